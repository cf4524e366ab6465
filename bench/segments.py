"""How far a segment that is done again is from an honest claim, and from altered ones: what the audit's tolerance rests on.

    python -m bench.segments
    python -m bench.segments momentum adam

Claims: TensorFlow with oneDNN on one thread, with a checkpoint every few steps. Each segment is then done again from the claimed
checkpoint by other settings, a process each. docs/decisions/replay-tolerance.md tells what was found.
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from bench.compression import PARTS, digits
from dmlworker import aggregation, comparison, datasets, models, trainer
from dmlworker.datasets import samples
from dmlworker.protocol import Hyper
from dmlworker.trace import steps_of_segment
from dmlworker.weights import pack, unpack

Weights = list[np.ndarray]
CLAIMS = "tensorflow-1-1"
SETTINGS = ["tensorflow-2-1", "tensorflow-1-0", "tensorflow-2-0", "jax-1-1", "jax-2-1"]
"""Library, threads, oneDNN."""


class Case(NamedTuple):
    data: str
    kind: str
    round: int
    rate: float
    every: int
    batch: int = 20
    optimizer: str = "sgd"

    def __str__(self) -> str:
        steps = f"{self.every} steps of {self.batch}"
        return f"{self.optimizer}: {self.kind} on {self.data}, round {self.round}, rate {self.rate}, {steps}"

    @property
    def start(self) -> str:
        return f"{self.data}-{self.kind}-{self.round}-{self.rate}-{self.optimizer}"


CASES = [
    *[Case("digits", kind, round_, 0.1, every) for kind in ("mlp", "cnn") for round_ in (1, 4) for every in (1, 5, 25)],
    *[Case("cells", "mlp", round_, 0.1, 5) for round_ in (1, 4)],
    *[Case("digits", kind, 1, 1.0, every) for kind in ("mlp", "cnn") for every in (1, 5)],
    *[Case("digits", "cnn", 1, 0.1, 5, batch) for batch in (1, 200)],
]
OTHERS = [
    *[
        Case("digits", kind, round_, 0.01, 10 if kind == "mlp" else 5, optimizer="momentum")
        for kind in ("mlp", "cnn", "transformer")
        for round_ in (1, 4)
    ],
    *[
        Case("digits", kind, round_, 0.001, 10 if kind == "mlp" else 5, optimizer="adam")
        for kind in ("mlp", "cnn", "transformer", "resnet")
        for round_ in (1, 4)
    ],
    *[
        Case("digits", kind, 1, rate, 10 if kind == "mlp" else 5, optimizer=name)
        for name, rate in (("momentum", 0.1), ("adam", 0.01))
        for kind in ("mlp", "cnn")
    ],
]
"""With an optimizer that remembers."""


def cases(folder: Path) -> list[Case]:
    """Of the optimizers that were asked for."""
    asked = (folder / "optimizers").read_text().split()
    return [case for case in [*CASES, *OTHERS] if case.optimizer in asked]


def parts(data: str) -> list[datasets.Dataset]:
    if data == "digits":
        return datasets.shards(digits()[0], PARTS, 1)
    with tempfile.NamedTemporaryFile(suffix=".csv") as file:
        Path(file.name).write_bytes(samples.breast_cancer_csv())
        found = datasets.read(Path(file.name), "cells.csv", None)
    return datasets.shards(datasets.split(found, 1)[0], PARTS, 1)


def begin(folder: Path) -> None:
    """The specs, and the start weights of every round."""
    for data, kind, rate, optimizer in {(case.data, case.kind, case.rate, case.optimizer) for case in cases(folder)}:
        shards = parts(data)
        fitted = None if data == "digits" else models.statistics(shards[0].x)
        spec = models.spec(models.build(shards[0].x.shape[1:], len(shards[0].classes), kind, fitted))
        (folder / f"{data}-{kind}.json").write_bytes(models.spec_bytes(spec))
        weights = trainer.initial_weights(spec, 1)
        for number in range(1, 5):
            (folder / f"{data}-{kind}-{number}-{rate}-{optimizer}").write_bytes(pack(weights))
            hypers = [Hyper(1, 20, rate, number * PARTS + index, optimizer=optimizer) for index in range(PARTS)]
            pairs = zip(shards, hypers, strict=True)
            weights = aggregation.fedavg([(trainer.train(spec, weights, p.x, p.y, h), len(p.y)) for p, h in pairs])


def hyper_of(case: Case) -> Hyper:
    return Hyper(1, case.batch, case.rate, 100, checkpoint_every=case.every, optimizer=case.optimizer)


def claim(folder: Path) -> None:
    """Each case's checkpoints, the start among them."""
    trainer.threads(1)
    for number, case in enumerate(cases(folder)):
        spec, shard = models.spec_from_bytes((folder / f"{case.data}-{case.kind}.json").read_bytes()), part(case)
        start = unpack((folder / case.start).read_bytes())
        found = [pack(start)]
        trainer.train(spec, start, shard.x, shard.y, hyper_of(case), checkpoint=lambda w, f=found: f.append(pack(w)))
        for index, data in enumerate(found):
            (folder / f"{number}-{index}").write_bytes(data)


def part(case: Case) -> datasets.Dataset:
    """The first shard; of it, what makes 100 steps at most, so that a batch of one sample does not take all day."""
    shard = parts(case.data)[0]
    return shard.take(np.arange(min(len(shard), 100 * case.batch)))


def segments(
    folder: Path, number: int, case: Case, every: int = 1
) -> Iterator[tuple[int, list[np.ndarray], list[np.ndarray]]]:
    """(segment, the weights that it began with, the weights that it ended with)."""
    count = len(list(folder.glob(f"{number}-*"))) - 1
    for segment in range(0, count, every):
        yield segment, *(unpack((folder / f"{number}-{index}").read_bytes()) for index in (segment, segment + 1))  # type: ignore[misc]


def again(folder: Path, setting: str) -> None:
    """Prints, as JSON, the distances of all segments of each case."""
    trainer.threads(int(setting.split("-")[1]))
    found: dict[str, list[float]] = {}
    for number, case in enumerate(cases(folder)):
        spec, shard = models.spec_from_bytes((folder / f"{case.data}-{case.kind}.json").read_bytes()), part(case)
        start, hyper = unpack((folder / case.start).read_bytes()), hyper_of(case)
        distances = []
        for segment, at, end in segments(folder, number, case):
            steps = steps_of_segment(segment, len(shard.y), hyper)
            done = trainer.replay(spec, start, shard.x, shard.y, hyper, at, steps)
            far = comparison.compare_checkpoints(case.optimizer, len(start), at, end, done)
            distances.append(far.relative)
        found[str(case)] = distances
    print(json.dumps(found))


def alter(folder: Path) -> None:
    """Prints, as JSON, how far segments are that were not done as prescribed: the smallest distance, and the median."""
    trainer.threads(1)
    found: dict[str, Any] = {}
    for number, case in enumerate(cases(folder)):
        if (case.every, case.batch, case.rate, case.optimizer) == (5, 20, 0.1, "sgd"):
            ways: dict[str, list[float]] = {}
            for segment, at, end in segments(folder, number, case, every=2):
                for way, claimed in altered(folder, case, segment, at, end).items():
                    ways.setdefault(way, []).append(comparison.compare(at, claimed, end).relative)
            found[str(case)] = {way: [min(each), float(np.median(each))] for way, each in ways.items()}
    print(json.dumps(found))


def altered(folder: Path, case: Case, segment: int, at: Weights, end: Weights) -> dict[str, Weights]:
    """What a cheat may claim for a segment."""
    spec, shard = models.spec_from_bytes((folder / f"{case.data}-{case.kind}.json").read_bytes()), part(case)
    start, hyper, random = unpack((folder / case.start).read_bytes()), hyper_of(case), np.random.default_rng(segment)
    steps, classes, other = steps_of_segment(segment, len(shard), hyper), len(shard.classes), parts(case.data)[1]

    def done(x: np.ndarray, y: np.ndarray, hyper: Hyper = hyper, steps: range = steps) -> Weights:
        return trainer.replay(spec, start, x, y, hyper, at, steps)

    noise = [random.normal(size=array.shape).astype(np.float32) for array in at]
    scale = 0.05 * comparison.length(at, end) / np.sqrt(sum(float((n * n).sum()) for n in noise))
    few = np.where(random.random(len(shard)) < 0.1, (shard.y + 1) % classes, shard.y).astype(np.int32)
    return {
        "one label in ten changed": done(shard.x, few),
        "all labels changed": done(shard.x, (shard.y + 1) % classes),
        "another order": done(shard.x, shard.y, Hyper(1, 20, 0.1, 101)),
        "the last step left out": done(shard.x, shard.y, steps=steps[: max(1, len(steps) - 1)]),
        "a rate that is 5 % off": done(shard.x, shard.y, Hyper(1, 20, 0.105, 100)),
        "noise of 5 % of the change": [e + scale * n for e, n in zip(end, noise, strict=True)],
        "start returned": at,
        "sign flipped": [2 * a - e for a, e in zip(at, end, strict=True)],
        "another shard": done(*(np.resize(v, (len(shard), *v.shape[1:])) for v in (other.x, other.y))),
    }


def main(optimizers: list[str]) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "optimizers").write_text(" ".join(optimizers or ["sgd"]))
        child("begin", folder, CLAIMS)
        child("claim", folder, CLAIMS)
        for setting in SETTINGS:
            for case, distances in child("again", folder, setting).items():
                most, median = max(distances), float(np.median(distances))
                print(f"{setting}: {case}: median {median:.2g}, largest {most:.2g} of {len(distances)}", flush=True)
        for case, ways in child("alter", folder, CLAIMS).items():
            for way, (least, median) in ways.items():
                print(f"{way}: {case}: smallest {least:.2g}, median {median:.2g}", flush=True)


def child(what: str, folder: Path, setting: str) -> Any:
    library, _, onednn = setting.split("-")
    environment = os.environ | {"KERAS_BACKEND": library, "TF_ENABLE_ONEDNN_OPTS": onednn}
    command = [sys.executable, "-m", "bench.segments", what, str(folder), setting]
    said = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True).stdout
    return json.loads(said.splitlines()[-1]) if said.strip() else None


if __name__ == "__main__":
    steps = ("begin", "claim", "again", "alter")
    if sys.argv[1:2] and sys.argv[1] in steps:
        what, place, setting = sys.argv[1:]
        {"begin": begin, "claim": claim, "alter": alter}.get(what, lambda folder: again(folder, setting))(Path(place))
    else:
        main(sys.argv[1:])
