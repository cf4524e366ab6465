"""How many rounds each local optimizer takes to a score, at a good rate of its own: 4 workers, one local epoch a round, in one process.

    python -m bench.local_optimizers

docs/models.md has what was found.
"""

import sys
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

from bench.compression import PARTS, digits
from dmlworker import aggregation, datasets, models, trainer
from dmlworker.datasets import samples
from dmlworker.protocol import Hyper, order_seed

SEED, BATCH = 1, 20
RATES = {"sgd": (0.03, 0.1, 0.3), "momentum": (0.003, 0.01, 0.03), "adam": (0.0003, 0.001, 0.003)}


class Case(NamedTuple):
    """goal: the score on the hold-out. few: of the training part, so many samples are trained on."""

    data: str
    kind: str
    goal: float
    most: int
    few: int | None = None


CASES = [
    Case("cells", "mlp", 0.96, 30),
    Case("digits", "mlp", 0.94, 30),
    Case("digits", "cnn", 0.94, 12, 2000),
]


def data_of(case: Case) -> tuple[datasets.Dataset, datasets.Dataset]:
    """(train, holdout)."""
    if case.data == "digits":
        return digits()
    with tempfile.NamedTemporaryFile(suffix=".csv") as file:
        Path(file.name).write_bytes(samples.breast_cancer_csv())
        return datasets.split(datasets.read(Path(file.name), "cells.csv", None), SEED)


def scores(case: Case, optimizer: str, rate: float) -> list[float]:
    """Of the rounds, up to the one that reaches the goal."""
    train, holdout = data_of(case)
    train = datasets.split(train, SEED, case.few / len(train))[1] if case.few else train
    spec = models.spec(models.build(train.x.shape[1:], len(train.classes), case.kind, models.statistics(train.x)))
    weights, parts = trainer.initial_weights(spec, SEED), datasets.shards(train, PARTS, SEED)
    found: list[float] = []
    while len(found) < case.most and max(found, default=0.0) < case.goal:
        hypers = [
            Hyper(1, BATCH, rate, order_seed(SEED, len(found), shard), optimizer=optimizer) for shard in range(PARTS)
        ]
        weights = aggregation.fedavg([_trained(spec, weights, *pair) for pair in zip(parts, hypers, strict=True)])
        found.append(trainer.evaluate(spec, weights, holdout.x, holdout.y).score)
    return found


def _trained(spec: Any, weights: list[Any], part: datasets.Dataset, hyper: Hyper) -> tuple[list[Any], int]:
    return trainer.train(spec, weights, part.x, part.y, hyper), len(part)


def main(kinds: list[str]) -> None:
    for case in CASES:
        if not kinds or f"{case.data}-{case.kind}" in kinds:
            for optimizer, rates in RATES.items():
                for rate in rates:
                    found = scores(case, optimizer, rate)
                    reached = f"{len(found)} rounds" if found[-1] >= case.goal else "not reached"
                    print(
                        f"{case.data}, {case.kind}, {optimizer}, {rate}: {reached} to {case.goal}; first {found[0]:.4f}, best {max(found):.4f}",
                        flush=True,
                    )


if __name__ == "__main__":
    main(sys.argv[1:])
