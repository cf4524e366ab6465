"""The visitors of bench/visitors.py: each asks for something about once a second, drawn by chance.

In locust's own environment: nothing of ours is imported here. ASKED: a JSON file, [name, address, headers] of each.
"""

import json
import os
import random
from pathlib import Path

from locust import FastHttpUser, between, task

ASKED = json.loads(Path(os.environ["ASKED"]).read_text())


class Visitor(FastHttpUser):
    host = "http://localhost"  # never used: addresses are whole
    wait_time = between(0.5, 1.5)

    @task
    def look(self) -> None:
        name, address, headers = random.choice(ASKED)
        with self.client.get(address, headers=headers, name=name, allow_redirects=False, catch_response=True) as answer:
            if answer.status_code != 200:
                answer.failure(f"{answer.status_code}")
