"""Which library does the arithmetic. Keras builds the models for either; the compiled training steps differ, a module each.

Each module has `threads`, `device` and `Steps`, as `Backend` and `Steps` say here, and imports its library inside them.
"""

import importlib
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple, Protocol, cast

import numpy as np

from dmlworker.datasets.arrays import Array
from dmlworker.losses import Loss
from dmlworker.optimizers import Arrays
from dmlworker.protocol import Hyper

if TYPE_CHECKING:
    import keras

Run = Callable[[np.ndarray, np.ndarray, np.ndarray], float]


class Library(NamedTuple):
    """What to call a library, and how it is installed."""

    title: str
    install: str


LIBRARIES = {
    "tensorflow": Library("TensorFlow", "pip install tensorflow-cpu"),
    "jax": Library("JAX", 'pip install "dml-worker[jax]"'),
}
DEFAULT = "tensorflow"


class Steps(Protocol):
    """A model's training steps and its measuring, compiled. The weights are in the model before and after every call."""

    def __init__(
        self, model: "keras.Model", loss: Loss, batch_size: int, dtype: str, held: bool, clipped: bool, optimizer: str
    ) -> None: ...

    def start(self, x: Array, y: np.ndarray, hyper: Hyper, state: Arrays) -> Run:
        """For a training that starts at the model's present weights: `run(batches, mask, rates)` does a step for each row of
        indices (k, batch_size), every sample at its weight in the mask, as long as its rate says (k,), and returns the sum of the samples'
        losses. state: what the optimizer remembers of the steps before the first `run` (optimizers.py)."""

    def state(self) -> list[np.ndarray]:
        """What it remembers now; copies."""

    def score(self, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, float]:
        """What up to batch_size samples are taken for (`Loss.answers`), and the sum of their losses."""


class Backend(Protocol):
    """A module of this package."""

    Steps: type[Steps]

    def threads(self, n: int) -> None:
        """See `trainer.threads`."""

    def device(self) -> str:
        """See `trainer.device`."""


def choose(name: str) -> None:
    """Settles the library for this process; to be called before Keras is imported.

    Raises ImportError if it is not installed, RuntimeError if Keras already uses another.
    """
    os.environ["KERAS_BACKEND"] = name
    import keras

    if keras.backend.backend() != name:
        raise RuntimeError(f"Keras already uses {keras.backend.backend()}")


def chosen() -> Backend:
    """The module for the library that Keras uses."""
    import keras

    return cast(Backend, importlib.import_module(f"{__name__}.{keras.backend.backend()}"))
