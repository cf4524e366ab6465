"""Cutting large files into shards, as `prepare` does: MB of the file a second, and memory, on one core.

    make bench-cutting ARGS="--gigabytes 10 --images 200000"

Each file is made first, read, split, encoded, cut in four and hashed in a process of its own on one core. Memory: the most that the
process held of its own (files that are only mapped are not counted). Beside it, pyarrow and Python's csv module alone: they read
the text of the same file, a block at a time, and keep nothing.
"""

import argparse
import io
import json
import os
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from bench import report

COLUMNS, LINES, SIDE = 20, 20_000, 64
CITIES, KINDS = 20, 200

WORK = """
import csv, json, sys, threading, time
from pathlib import Path
most = 0
def private():
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("RssAnon")) / 1000
def watch():
    global most
    while True:
        most = max(most, private())
        time.sleep(0.01)
def ours(path):
    from dmlworker import datasets, models
    from dmlworker.cache import blob_of
    found = datasets.parts(datasets.read(path, path.name), 1)
    models.statistics(found.train.x, found.encoder.marks if found.encoder else None)
    datasets.on_both_sides(found.train, found.holdout)
    for part in [found.holdout, *datasets.shards(found.train, 4, 1)]:
        blob_of(datasets.pieces(part.x, part.y))
def arrow(path):
    from pyarrow import csv
    options = csv.ReadOptions(use_threads=False, block_size=1 << 22)
    for batch in csv.open_csv(path, read_options=options):
        pass
def python(path):
    with path.open(newline="") as file:
        for row in csv.reader(file):
            pass
threading.Thread(target=watch, daemon=True).start()
began = time.process_time()
globals()[sys.argv[1]](Path(sys.argv[2]))
print(json.dumps({"seconds": round(time.process_time() - began, 2), "megabytes": round(most)}))
"""


def numbers(random: np.random.Generator) -> str:
    x = random.normal(size=(LINES, COLUMNS))
    return "".join(",".join([*(f"{v:.6g}" for v in row), str(int(row[0] > 0))]) + "\n" for row in x)


def mixed(random: np.random.Generator) -> str:
    """Numbers with gaps, categories, dates, a number that each row has of its own."""
    lines = []
    for row in range(LINES):
        city, kind, day = (int(random.integers(most)) for most in (CITIES, KINDS, 28))
        gap = "" if random.random() < 0.05 else f"{random.normal() * 1000:.2f}"
        lines.append(f"{row},{random.normal():.6g},city {city},{kind},2024-02-{day + 1:02},{gap},{row % 3}\n")
    return "".join(lines)


TABLES: dict[str, tuple[list[str], Callable[[np.random.Generator], str]]] = {
    "numbers": ([*(f"c{number}" for number in range(COLUMNS)), "y"], numbers),
    "mixed": (["id", "size", "city", "kind", "day", "income", "y"], mixed),
}


def write_table(path: Path, name: str, size: float) -> None:
    """A table of `size` bytes: a block of lines, again and again."""
    head, block = TABLES[name][0], TABLES[name][1](np.random.Generator(np.random.PCG64(0)))
    with path.open("w") as file:
        file.write(",".join(head) + "\n")
        for _ in range(int(size / len(block)) + 1):
            file.write(block)


def write_images(path: Path, images: int) -> None:
    random = np.random.Generator(np.random.PCG64(0))
    with zipfile.ZipFile(path, "w") as file:
        for number in range(images):
            data = io.BytesIO()
            Image.fromarray(random.integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)).save(data, "JPEG")
            file.writestr(f"{number % 10}/{number}.jpg", data.getvalue())


def run(how: str, path: Path) -> dict[str, float]:
    done = subprocess.run(
        [sys.executable, "-c", WORK, how, str(path)],
        cwd=report.ROOT,
        capture_output=True,
        text=True,
        preexec_fn=lambda: os.sched_setaffinity(0, {0}),
    )
    if done.returncode:
        raise SystemExit(f"{how} failed:\n{done.stderr[-2000:]}")
    found = dict(json.loads(done.stdout.splitlines()[-1]))
    return found | {"rate": round(path.stat().st_size / 1e6 / found["seconds"], 1)}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--gigabytes", type=float, default=1)
    parser.add_argument("--images", type=int, default=20_000, help="0: none")
    parser.add_argument("--tables", nargs="*", choices=TABLES, default=list(TABLES))
    given = parser.parse_args()
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        for name in given.tables:
            path = Path(folder) / f"{name}.csv"
            write_table(path, name, given.gigabytes * 1e9)
            for how in ("ours", "arrow", "python"):
                found[f"{name}, {given.gigabytes:g} GB: {how}"] = run(how, path)
            path.unlink()
        if given.images:
            path = Path(folder) / "images.zip"
            write_images(path, given.images)
            found[f"{given.images:,} images of {SIDE} x {SIDE}: ours"] = run("ours", path)
    rows = [[name, *(f"{one[key]:,}" for key in ("seconds", "rate", "megabytes"))] for name, one in found.items()]
    report.show("Cutting a file in four, one core", ["file", "s", "MB/s", "MB of its own"], rows)
    report.keep("cutting", found)


if __name__ == "__main__":
    main()
