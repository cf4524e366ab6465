"""Before the training, when the customer asked for it: a few learning rates, each tried on a sample, and the one that gets furthest.

What is compared is a loss on a part of the training data that is set aside for this; the hold-out is not looked at. The same seed gives
the same rate. Pure: no Django.
"""

import math
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import numpy as np

from dmlworker.datasets import Dataset, DatasetError, split
from dmlworker.protocol import Hyper

Weights = list[np.ndarray]

RATES = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3)
"""Tried beside the one that would be taken without a search."""
SAMPLES, SET_ASIDE = 2000, 0.25
"""Of the training part, at most; and which part of them tells how good a rate is."""
PASSES = 10_000
"""Samples that each rate is trained with, counted each time, at most."""
PARAMETERS = 5_000_000
"""Of a model that is searched for, at most."""
SECONDS = 60
"""For all rates together; of what takes longer, nothing is concluded, as another machine might have gone further."""


class TooLong(Exception):
    """The time is up."""


@dataclass(frozen=True)
class Found:
    """rate: the best of those tried, each with its loss, None if it is not finite; or the one that was asked for, if nothing could be
    tried, and `why`."""

    rate: float
    tried: tuple[tuple[float, float | None], ...] = ()
    why: str = ""

    @property
    def told(self) -> str:
        """For the timeline."""
        if self.why:
            return f"no search for a learning rate: {self.why}; {self.rate:g} is taken"
        each = ", ".join(f"{rate:g}: {'not finite' if loss is None else f'{loss:.4g}'}" for rate, loss in self.tried)
        return f"learning rate {self.rate:g} found on a part of the training data; loss by rate: {each}"


@dataclass(frozen=True)
class Training:
    """What is to be done with the rate. passes: over a provider's part, in all rounds; parts: providers."""

    rate: float
    batch_size: int
    passes: int
    parts: int
    clip: float
    seed: int

    def hyper(self, rate: float, samples: int, sample: int) -> Hyper:
        """A trial on `sample` samples of `samples`: as many steps as a provider takes, as far as PASSES allow."""
        steps = self.passes * samples // self.parts
        epochs = max(1, min(steps, PASSES) // sample)
        return Hyper(min(epochs, 1000), self.batch_size, rate, self.seed, clip=self.clip)


def search(
    spec: dict[str, Any], start: Weights, train: Dataset, job: Training, turn: AbstractContextManager[Any]
) -> Found:
    """The rate to train with. `turn` is held while a rate is tried. Raises nothing that a search could go wrong with: then the rate stays."""
    parameters = sum(array.size for array in start)
    if parameters > PARAMETERS:
        return Found(job.rate, why=f"the model has {parameters:,} parameters, and one is made up to {PARAMETERS:,}")
    try:
        fit, aside = split(_sample(train, job.seed), job.seed, SET_ASIDE)
        if not len(fit) or not len(aside):
            return Found(job.rate, why="there are too few samples")
        tried = tuple(_tried(spec, start, fit, aside, len(train), job, turn))
    except DatasetError as error:
        return Found(job.rate, why=str(error).rstrip("."))
    except TooLong:
        return Found(job.rate, why=f"it took longer than {SECONDS} seconds")
    loss, best = min((math.inf if loss is None else loss, rate) for rate, loss in tried)
    return Found(best if math.isfinite(loss) else job.rate, tried)


def _sample(train: Dataset, seed: int) -> Dataset:
    random = np.random.Generator(np.random.PCG64(seed))
    few = random.choice(len(train), min(SAMPLES, len(train)), replace=False, shuffle=False)
    return train.take(np.sort(few))


def _tried(
    spec: dict[str, Any],
    start: Weights,
    fit: Dataset,
    aside: Dataset,
    samples: int,
    job: Training,
    turn: AbstractContextManager[Any],
) -> Iterator[tuple[float, float | None]]:
    """(rate, loss). Raises TooLong; the time in which others had their turn does not count."""
    from dmlworker import trainer

    left = float(SECONDS)
    for rate in sorted({*RATES, job.rate}):
        with turn:
            begun = time.monotonic()

            def in_time(*_: object, end: float = begun + left) -> None:
                if time.monotonic() > end:
                    raise TooLong

            hyper = job.hyper(rate, samples, len(fit))
            trained = trainer.train(spec, start, fit.x, fit.y, hyper, in_time, w=fit.w)
            loss = trainer.evaluate(spec, trained, aside.x, aside.y).loss
            left -= time.monotonic() - begun
        yield rate, loss if math.isfinite(loss) else None
