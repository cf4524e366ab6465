"""Before the training, when the customer asked for it: a few learning rates, each tried on a sample, and the one that gets furthest; then, at
that rate, the same model narrower and wider.

What is compared is a loss on a part of the training data that is set aside for this; the hold-out is not looked at. The same seed gives
the same. Pure: no Django.
"""

import math
import time
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from dmlworker.datasets import Dataset, DatasetError, split
from dmlworker.protocol import Hyper

Weights = list[np.ndarray]
Model = tuple[dict[str, Any], Weights]
"""Its spec, and what its training starts with."""
Tried = tuple[tuple[float, float | None], ...]
"""Each with its loss, None if it is not finite."""

RATES = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3)
"""Tried beside the one that would be taken without a search."""
SAMPLES, SET_ASIDE = 2000, 0.25
"""Of the training part, at most; and which part of them tells how good a rate is."""
PASSES = 10_000
"""Samples that each rate is trained with, counted each time, at most."""
PARAMETERS = 5_000_000
"""Of a model that is searched for, at most."""
SECONDS = 60
"""For all rates and widths together; of what takes longer, nothing is concluded, as another machine might have gone further."""
GAIN = 0.05
"""Part of the loss by which another width has to be better: less is chance, on so few samples, and a wider model is more work."""


class TooLong(Exception):
    """The time is up."""


@dataclass(frozen=True)
class Found:
    """rate: the best of those tried, or the one that was asked for, if nothing could be tried, and `why`. width: times the usual one; widths: those
    compared at that rate, none where there is no other, or `unknown` says why."""

    rate: float
    tried: Tried = ()
    why: str = ""
    width: float = 1.0
    widths: Tried = ()
    unknown: str = ""

    @property
    def told(self) -> str:
        """For the timeline."""
        if self.why:
            return f"no search for a learning rate: {self.why}; {self.rate:g} is taken"
        found = f"learning rate {self.rate:g} found on a part of the training data; loss by rate: {_each(self.tried)}"
        if self.unknown:
            return f"{found}; other widths were not compared: {self.unknown}"
        taken = f"{self.width:g} times the usual width is" if self.width != 1 else "the usual width is"
        return f"{found}; {taken} taken; loss by width: {_each(self.widths)}" if self.widths else found


def _each(tried: Tried) -> str:
    return ", ".join(f"{value:g}: {'not finite' if loss is None else f'{loss:.4g}'}" for value, loss in tried)


def _best(tried: Iterable[tuple[float, float | None]]) -> tuple[float, float]:
    """(loss, value); the lower value of two that are as good."""
    return min((math.inf if loss is None else loss, value) for value, loss in tried)


@dataclass(frozen=True)
class Training:
    """What is to be done with the rate. passes: over a provider's part, in all rounds; parts: providers."""

    rate: float
    batch_size: int
    passes: int
    parts: int
    clip: float
    seed: int
    optimizer: str = "sgd"

    def hyper(self, rate: float, samples: int, sample: int) -> Hyper:
        """A trial on `sample` samples of `samples`: as many steps as a provider takes, as far as PASSES allow."""
        steps = self.passes * samples // self.parts
        epochs = max(1, min(steps, PASSES) // sample)
        return Hyper(min(epochs, 1000), self.batch_size, rate, self.seed, clip=self.clip, optimizer=self.optimizer)


def search(
    model: Model,
    train: Dataset,
    job: Training,
    turn: AbstractContextManager[Any],
    others: Mapping[float, Model] | None = None,
) -> Found:
    """The rate to train with, and how wide. `turn` is held while something is tried. others: the model at other widths. Raises nothing that a search
    could go wrong with: then what was ordered stays."""
    if why := _too_large(model):
        return Found(job.rate, why=why)
    try:
        fit, aside = split(_sample(train, job.seed), job.seed, SET_ASIDE)
        if not len(fit) or not len(aside):
            return Found(job.rate, why="there are too few samples")
        trials = _Trials(fit, aside, len(train), job, turn)
        tried = tuple((rate, trials.loss(model, rate)) for rate in sorted({*RATES, job.rate}))
    except DatasetError as error:
        return Found(job.rate, why=str(error).rstrip("."))
    except TooLong as error:
        return Found(job.rate, why=str(error))
    loss, rate = _best(tried)
    if not math.isfinite(loss):
        return Found(job.rate, tried)
    return _widened(Found(rate, tried), loss, trials, others or {})


def _widened(found: Found, loss: float, trials: "_Trials", others: Mapping[float, Model]) -> Found:
    """With what comes of the other widths, where `loss` is the usual one's. Those that are too large are left out."""
    able = {times: model for times, model in others.items() if not _too_large(model)}
    try:
        losses = {times: trials.loss(model, found.rate) for times, model in able.items()}
    except TooLong as error:
        return replace(found, unknown=str(error))
    if not losses:
        return found
    least, width = _best(losses.items())
    widths = tuple(sorted({**losses, 1.0: loss}.items()))
    return replace(found, widths=widths, width=width if least < (1 - GAIN) * loss else 1.0)


def _too_large(model: Model) -> str:
    parameters = sum(array.size for array in model[1])
    return (
        f"the model has {parameters:,} parameters, and one is made up to {PARAMETERS:,}"
        if parameters > PARAMETERS
        else ""
    )


def _sample(train: Dataset, seed: int) -> Dataset:
    random = np.random.Generator(np.random.PCG64(seed))
    few = random.choice(len(train), min(SAMPLES, len(train)), replace=False, shuffle=False)
    return train.take(np.sort(few))


class _Trials:
    """Trainings on `fit`, measured on `aside`, within SECONDS together; the time in which others had their turn does not count."""

    def __init__(
        self, fit: Dataset, aside: Dataset, samples: int, job: Training, turn: AbstractContextManager[Any]
    ) -> None:
        self._fit, self._aside, self._samples, self._job, self._turn = fit, aside, samples, job, turn
        self._left = float(SECONDS)

    def loss(self, model: Model, rate: float) -> float | None:
        """None if it is not finite. Raises TooLong, whose text says it."""
        from dmlworker import trainer

        (spec, start), fit, aside = model, self._fit, self._aside
        with self._turn:
            begun = time.monotonic()

            def in_time(*_: object) -> None:
                if time.monotonic() > begun + self._left:
                    raise TooLong(f"it took longer than {SECONDS} seconds")

            hyper = self._job.hyper(rate, self._samples, len(fit))
            trained = trainer.train(spec, start, fit.x, fit.y, hyper, in_time, w=fit.w)
            loss = trainer.evaluate(spec, trained, aside.x, aside.y).loss
            self._left -= time.monotonic() - begun
        return loss if math.isfinite(loss) else None
