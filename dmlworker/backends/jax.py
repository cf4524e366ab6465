"""Training steps in JAX: one compiled step, called again and again.

No loop in XLA: in one, on a CPU, convolutions take ten times as long (docs/decisions/training-arithmetic.md).
"""

import os
from typing import TYPE_CHECKING, Any

import numpy as np

from dmlworker import models, optimizers
from dmlworker.backends import Run
from dmlworker.datasets.arrays import Array
from dmlworker.losses import Loss
from dmlworker.optimizers import Arrays
from dmlworker.protocol import Hyper

if TYPE_CHECKING:
    import keras

_pinned: list[int] = []


def threads(n: int) -> None:
    """See `trainer.threads`. XLA's compiler, at work for seconds once a ticket, is not held by it."""
    import jax

    if _pinned and _pinned != [n]:
        raise RuntimeError(f"JAX is pinned to {_pinned[0]} threads.")
    # XLA takes the size of its pool from NPROC when it starts; this setting complains if it has.
    jax.config.update("jax_num_cpu_devices", 1)
    jax.config.update(
        "jax_default_matmul_precision", "highest"
    )  # GPUs would multiply with 10 of 23 bits (TensorFloat-32)
    os.environ["NPROC"] = str(n)
    _pinned[:] = [n]


def device() -> str:
    """See `trainer.device`."""
    import jax

    return ", ".join(device.device_kind for device in jax.devices() if device.platform != "cpu") or "CPU"


class Steps:
    """See `backends.Steps`."""

    def __init__(
        self, model: "keras.Model", loss: Loss, batch_size: int, dtype: str, held: bool, clipped: bool, optimizer: str
    ) -> None:
        self._variables = model.trainable_variables
        self._batch_size = batch_size
        self._held = held
        self._slots: list[list[Any]] = []
        self._step, self._score = _compile(model, loss, clipped, optimizer)

    def start(self, x: Array, y: np.ndarray, hyper: Hyper, state: Arrays) -> Run:
        anchors = self._values() if self._held else []
        bounds = np.float32(hyper.proximal), np.float32(hyper.clip)
        self._slots = [self._cut(vector) for vector in state]

        def run(batches: np.ndarray, mask: np.ndarray, rates: np.ndarray) -> float:
            weights, slots, losses = self._values(), self._slots, []
            for batch, share, rate in zip(batches, mask, rates, strict=True):
                weights, slots, loss = self._step(weights, slots, anchors, x[batch], y[batch], share, rate, *bounds)
                losses.append(loss)
            self._slots = slots
            for variable, weight in zip(self._variables, weights, strict=True):
                variable.assign(weight)
            return float(sum(map(float, losses)))

        return run

    def state(self) -> list[np.ndarray]:
        return [np.concatenate([np.ravel(part) for part in slot]) for slot in self._slots]

    def _cut(self, vector: np.ndarray) -> list[Any]:
        """Into the shapes of the weights."""
        from jax import numpy as jnp

        ends = np.cumsum([int(np.prod(variable.shape)) for variable in self._variables])[:-1]
        parts = zip(np.split(vector, ends), self._variables, strict=True)
        return [jnp.asarray(part.reshape(variable.shape)) for part, variable in parts]

    def score(self, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, float]:
        # Filled up to one shape, or the last batch would be compiled for itself.
        missing = self._batch_size - len(y)
        rows, labels = (np.concatenate([part, np.zeros((missing, *part.shape[1:]), part.dtype)]) for part in (x, y))
        answers, losses = (np.asarray(found)[: len(y)] for found in self._score(self._values(), rows, labels))
        return answers, float(losses.sum(dtype=np.float64))

    def _values(self) -> list[Any]:
        return [variable.value for variable in self._variables]


def _compile(model: "keras.Model", loss: Loss, clipped: bool, optimizer: str) -> tuple[Any, Any]:
    """(step, score): `step` gives the weights after a step, what the optimizer remembers, and the sum of the samples' losses; `score` says for each
    sample what it is taken for, and its loss.

    anchors: FedProx' start weights, to which each step pulls back (see backends/tensorflow.py), or none. clipped: no gradient is longer
    than `most`, else that is not looked at.
    """
    import jax
    import keras
    from jax import numpy as jnp

    variables, before_last = model.trainable_variables, models.before_last(model)

    def losses_of(weights: Any, x: Any, y: Any) -> tuple[Any, Any]:
        with keras.StatelessScope(state_mapping=list(zip(variables, weights, strict=True))):
            values = before_last(x.astype(jnp.float32))
        return loss.losses(values, y), values

    def mean(weights: Any, x: Any, y: Any, share: Any) -> tuple[Any, Any]:
        total = jnp.sum(losses_of(weights, x, y)[0] * share)
        return total / jnp.sum(share), total

    def step(
        weights: Any, slots: Any, anchors: Any, x: Any, y: Any, share: Any, rate: Any, pull: Any, most: Any
    ) -> tuple[Any, Any, Any]:
        gradients, total = jax.grad(mean, has_aux=True)(weights, x, y, share)
        if anchors:
            gradients = [g + pull * (w - a) for g, w, a in zip(gradients, weights, anchors, strict=True)]
        if clipped:
            norm = jnp.sqrt(sum(jnp.sum(jnp.square(g)) for g in gradients))
            gradients = [g * (most / jnp.maximum(norm, most)) for g in gradients]
        mine = zip(*slots, strict=True) if slots else [()] * len(weights)
        steps = [optimizers.step(optimizer, g, kept, rate, jnp.sqrt) for g, kept in zip(gradients, mine, strict=True)]
        after = [w - less for w, (less, _) in zip(weights, steps, strict=True)]
        return after, [[kept[number] for _, kept in steps] for number in range(len(slots))], total

    def score(weights: Any, x: Any, y: Any) -> tuple[Any, Any]:
        losses, values = losses_of(weights, x, y)
        return loss.answers(values), losses

    return jax.jit(step), jax.jit(score)
