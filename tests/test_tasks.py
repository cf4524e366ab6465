"""What is not a class, and what is no number, end to end in real processes: a number to be learnt, and sentences to learn from."""

import subprocess
import sys

import httpx
import pytest

from contracts.devchain import test_key as rich
from dmlworker.datasets import samples

WORDS = {"good": ("lovely", "friendly", "tasty"), "bad": ("awful", "rude", "stale")}
REVIEWS = "review,mood\n" + "".join(
    f'"the {place} was {word} on day {n}",{mood}\n'
    for n in range(20)
    for place in ("meal", "room")
    for mood, words in WORDS.items()
    for word in words
)
ASK = """
import keras
model = keras.saving.load_model("model.keras")
rows = [["the meal was lovely on day 3"], ["the room was awful on day 5"]]
print(*model.predict({"review": keras.ops.convert_to_tensor(rows)}, verbose=0).argmax(axis=1))
"""


@pytest.fixture(scope="module")
def customer(platform):
    platform.workers(4)
    return platform.person("tasks@example.org", "customer", rich(1))


def settled(platform, customer, name, data, **options):
    ticket = platform.order(customer, name, data, seed=4, **options)
    *_, last = platform.follow(customer, ticket, 600)
    assert last["status"] == "settled", last["outcome"]
    return last


def files(customer, ticket, folder):
    for row in customer.call("GET", f"tickets/{ticket['id']}/artifacts"):
        (folder / row["name"]).write_bytes(httpx.get(row["url"], follow_redirects=True).raise_for_status().content)
        assert (folder / row["name"]).stat().st_size == row["size"]


def says(folder, *command: str) -> str:
    """What a program prints that has nothing but the files that were delivered."""
    done = subprocess.run([sys.executable, *command], capture_output=True, text=True, cwd=folder)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_number_is_learnt_and_what_is_delivered_tells_it(platform, customer, tmp_path):
    ticket = settled(platform, customer, "diabetes.csv", samples.diabetes_csv())
    assert (ticket["task"], ticket["accuracy"] > 0.1) == ("regression", True)
    assert "R²" in ticket["outcome"]
    files(customer, ticket, tmp_path)
    (tmp_path / "rows.csv").write_bytes(b"".join(samples.diabetes_csv().splitlines(keepends=True)[:4]))
    told = [float(line) for line in says(tmp_path, "predict.py", "rows.csv").split()]
    assert len(told) == 3 and all(0 < number < 500 for number in told)


def test_sentences_are_learnt_and_the_model_takes_them_as_they_are(platform, customer, tmp_path):
    ticket = settled(platform, customer, "reviews.csv", REVIEWS.encode())
    assert (ticket["task"], ticket["accuracy"] > 0.8) == ("classification", True)
    files(customer, ticket, tmp_path)
    names = (tmp_path / "labels.txt").read_text().split()
    assert [names[int(one)] for one in says(tmp_path, "-c", ASK).split()] == ["good", "bad"]
