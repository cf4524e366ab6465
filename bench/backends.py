"""How far JAX is from TensorFlow, and how long each takes: the digits, in four shards, as the platform would train on them.

    python -m bench.backends

A process per library and number of threads. Distances are those that a replay would see (dmlworker/comparison.py); round 4
starts from three rounds that TensorFlow trained. docs/decisions/replay-tolerance.md tells what was found.
"""

import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from bench.compression import PARTS, digits
from dmlworker import aggregation, comparison, datasets, models, trainer
from dmlworker.protocol import Hyper
from dmlworker.weights import pack, unpack

REFERENCE = "tensorflow-1-1"
OTHERS = ["jax-1-1", "jax-2-1", "tensorflow-1-0"]
"""Library, threads, oneDNN."""
CASES = [
    *[("cnn", seed, round_, 1, 20, shard) for seed, round_ in ((1, 1), (2, 1), (1, 4)) for shard in range(PARTS)],
    *[("cnn", 1, round_, epochs, 20, shard) for round_ in (1, 4) for epochs in (3, 5) for shard in (0, 1)],
    *[("cnn", 1, 1, 1, 200, shard) for shard in (0, 1)],
    *[("mlp", 1, round_, epochs, 20, shard) for round_ in (1, 4) for epochs in (1, 3, 5, 20) for shard in range(PARTS)],
]
"""Model, seed of the start weights, round, epochs, batch size, shard."""


def shards() -> list[datasets.Dataset]:
    return datasets.shards(digits()[0], PARTS, 1)


def name_of(case: tuple[str, int, int, int, int, int]) -> str:
    return "-".join(map(str, case))


def begin(folder: Path) -> None:
    """Specs, and the start weights of rounds 1 and 4."""
    parts = shards()
    for kind, seed in {case[:2] for case in CASES}:
        spec = models.spec(models.build((28, 28), 10, kind))
        (folder / f"{kind}.json").write_bytes(models.spec_bytes(spec))
        weights = trainer.initial_weights(spec, seed)
        for number in range(1, 5):
            (folder / f"{kind}-{seed}-{number}").write_bytes(pack(weights))
            hypers = [Hyper(1, 20, 0.1, number * PARTS + index) for index in range(PARTS)]
            pairs = zip(parts, hypers, strict=True)
            weights = aggregation.fedavg([(trainer.train(spec, weights, p.x, p.y, h), len(p.y)) for p, h in pairs])


def compute(folder: Path, setting: str) -> None:
    """Every case, and the time that one epoch of the CNN takes: the first in this process, and the second."""
    trainer.threads(int(setting.split("-")[1]))
    parts = shards()
    for case in CASES:
        kind, seed, round_, epochs, batch, shard = case
        spec = models.spec_from_bytes((folder / f"{kind}.json").read_bytes())
        start, part = unpack((folder / f"{kind}-{seed}-{round_}").read_bytes()), parts[shard]
        began, computed = time.perf_counter(), time.process_time()
        update = trainer.train(spec, start, part.x, part.y, Hyper(epochs, batch, 0.1, 100 + shard))
        if case in CASES[:3]:
            seconds = time.perf_counter() - began, time.process_time() - computed
            print(f"{setting} {name_of(case)}: {seconds[0]:.2f} s, {seconds[1]:.2f} s of processor time", flush=True)
        (folder / f"{setting}-{name_of(case)}").write_bytes(pack(update))
    print(f"{setting}: at most {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024} MB resident", flush=True)


def distance(folder: Path, first: str, second: str, case: tuple[str, int, int, int, int, int]) -> float:
    start = (folder / f"{case[0]}-{case[1]}-{case[2]}").read_bytes()
    ends = [(folder / f"{setting}-{name_of(case)}").read_bytes() for setting in (first, second)]
    return comparison.compare(*map(unpack, (start, *ends))).relative


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        child("begin", folder, "tensorflow-2-1")
        for setting in (REFERENCE, *OTHERS):
            child("compute", folder, setting)
        pairs = [(other, REFERENCE) for other in OTHERS] + [("jax-2-1", "jax-1-1"), ("jax-1-1", "tensorflow-1-0")]
        for first, second in pairs:
            for group in dict.fromkeys((case[0], *case[2:5]) for case in CASES):
                found = [distance(folder, first, second, case) for case in CASES if (case[0], *case[2:5]) == group]
                print(f"{first} to {second}: {group} {min(found):.2g} - {max(found):.2g}")


def child(what: str, folder: Path, setting: str) -> None:
    library, _, onednn = setting.split("-")
    environment = os.environ | {"KERAS_BACKEND": library, "TF_ENABLE_ONEDNN_OPTS": onednn}
    subprocess.run([sys.executable, "-m", "bench.backends", what, folder, setting], env=environment, check=True)


if __name__ == "__main__":
    if len(sys.argv) == 1:
        main()
    elif sys.argv[1] == "begin":
        begin(Path(sys.argv[2]))
    else:
        compute(Path(sys.argv[2]), sys.argv[3])
