"""Many idle workers in one process, for bench/scale.py: each with its own key, cache, socket and HTTP connections.

python -m bench.swarm SERVER KEYS CACHE      KEYS: a JSON file with a list of API keys
"""

import asyncio
import json
import sys
from pathlib import Path

from bench.idle_worker import IdleWorker
from dmlworker.client import Settings
from dmlworker.display import Display


async def main(server: str, keys: Path, cache: Path) -> None:
    """Works until it is ended from outside; a worker that is refused ends all."""
    with Display() as display:
        workers = [IdleWorker(Settings(server, key, cache, 1), display) for key in json.loads(keys.read_text())]
        await asyncio.gather(*(worker.run() for worker in workers))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])))
