"""Training steps in TensorFlow: a loop over them, compiled, so that small models don't wait for Python."""

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from dmlworker import models, optimizers
from dmlworker.backends import Run
from dmlworker.datasets.arrays import Array
from dmlworker.losses import Loss
from dmlworker.optimizers import SLOTS, Arrays
from dmlworker.protocol import Hyper

if TYPE_CHECKING:
    import keras
    import tensorflow as tf


HELD = 64 << 20
"""Bytes of a shard up to which TensorFlow has a copy of its own of them; of more, of those that the next steps take."""


def threads(n: int) -> None:
    """See `trainer.threads`."""
    import tensorflow as tf

    # GPUs would multiply with 10 of 23 bits (TensorFloat-32) and add in any order: too far from a replay, and from themselves.
    tf.config.experimental.enable_tensor_float_32_execution(False)
    if tf.config.list_physical_devices("GPU"):
        tf.config.experimental.enable_op_determinism()
    settings = tf.config.threading
    if settings.get_intra_op_parallelism_threads() == n and settings.get_inter_op_parallelism_threads() == 1:
        return
    settings.set_intra_op_parallelism_threads(n)
    # The steps follow one another: there is nothing to run side by side.
    settings.set_inter_op_parallelism_threads(1)


def device() -> str:
    """See `trainer.device`."""
    import tensorflow as tf

    found = [tf.config.experimental.get_device_details(gpu) for gpu in tf.config.list_physical_devices("GPU")]
    return ", ".join(details.get("device_name", "GPU") for details in found) or "CPU"


class Steps:
    """See `backends.Steps`."""

    def __init__(
        self, model: "keras.Model", loss: Loss, batch_size: int, dtype: str, held: bool, clipped: bool, optimizer: str
    ) -> None:
        import tensorflow as tf

        self._weights = model.trainable_weights if held else []
        self._anchors = [tf.Variable(weight.value) for weight in self._weights]
        self._sizes = [int(np.prod(weight.shape)) for weight in model.trainable_weights]
        self._slots = [
            [tf.Variable(tf.zeros(weight.shape)) for weight in model.trainable_weights] for _ in range(SLOTS[optimizer])
        ]
        step = partial(optimizers.step, optimizer, root=tf.sqrt)
        self._run, self._score = _compile(model, loss, batch_size, dtype, self._anchors, clipped, step, self._slots)

    def start(self, x: Array, y: np.ndarray, hyper: Hyper, state: Arrays) -> Run:
        import tensorflow as tf

        for anchor, weight in zip(self._anchors, self._weights, strict=True):
            anchor.assign(weight.value)
        bounds = np.float32(hyper.proximal), np.float32(hyper.clip)
        for slot, vector in zip(self._slots, state, strict=True):
            for variable, part in zip(slot, np.split(vector, np.cumsum(self._sizes)[:-1]), strict=True):
                variable.assign(part.reshape(variable.shape))
        if x.nbytes + y.nbytes <= HELD:
            rows, labels = tf.constant(np.asarray(x)), tf.constant(y)
            return lambda batches, mask, rates: float(self._run(rows, labels, batches, mask, rates, *bounds))

        def run(batches: np.ndarray, mask: np.ndarray, rates: np.ndarray) -> float:
            places = np.arange(batches.size, dtype=np.int32).reshape(batches.shape)
            return float(self._run(x[batches.ravel()], y[batches.ravel()], places, mask, rates, *bounds))

        return run

    def state(self) -> list[np.ndarray]:
        return [np.concatenate([variable.numpy().ravel() for variable in slot]) for slot in self._slots]

    def score(self, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, float]:
        answers, total = self._score(x, y)
        return answers.numpy(), float(total)


def _compile(
    model: "keras.Model",
    loss: Loss,
    batch_size: int,
    dtype: str,
    anchors: list["tf.Variable"],
    clipped: bool,
    step_of: Callable[..., tuple[Any, list[Any]]],
    slots: list[list["tf.Variable"]],
) -> tuple[Any, Any]:
    """(run, score): `run` does steps and returns the sum of the samples' losses; `score` tells what samples are taken for.

    anchors: FedProx' start weights, to which each step pulls back (Li et al. 2018, https://arxiv.org/abs/1812.06127: the
    gradient of mu/2 |w - w_start|^2 is added); without them there is no such term in the compiled loop. clipped: the
    step's gradient, that term in it, is made no longer than `most` over all weights (Pascanu et al. 2012, https://arxiv.org/abs/1211.5063);
    else that is not in the loop either. step_of: `optimizers.step` for one of them; slots: what it remembers of each weight.
    """
    import tensorflow as tf

    of_rows = models.before_last(model)

    def before_last(rows: "tf.Tensor") -> "tf.Tensor":
        return of_rows(tf.cast(rows, tf.float32))

    variables = [weight.value for weight in model.trainable_weights]
    rows = tf.TensorSpec((None, *model.input_shape[1:]), np.dtype(dtype))
    labels = tf.TensorSpec((None, *loss.shape(model.output_shape[-1])), loss.dtype)
    batches = tf.TensorSpec((None, batch_size), tf.int32)
    mask = tf.TensorSpec((None, batch_size), tf.float32)

    def run(x: Any, y: Any, batches: Any, mask: Any, rates: Any, pull: Any, most: Any) -> Any:
        total = tf.constant(0.0)
        for step in tf.range(tf.shape(batches)[0]):
            tf.autograph.experimental.set_loop_options(parallel_iterations=1)
            with tf.GradientTape() as tape:
                losses = loss.losses(before_last(tf.gather(x, batches[step])), tf.gather(y, batches[step]))
                batch = tf.reduce_sum(losses * mask[step])
                mean = batch / tf.reduce_sum(mask[step])
            gradients = tape.gradient(mean, variables, unconnected_gradients=tf.UnconnectedGradients.ZERO)
            gradients = [tf.convert_to_tensor(gradient) for gradient in gradients]  # an embedding's are a few rows
            if anchors:
                gradients = [g + pull * (w - a) for g, w, a in zip(gradients, variables, anchors, strict=True)]
            if clipped:
                norm = tf.sqrt(tf.add_n([tf.reduce_sum(tf.square(g)) for g in gradients]))
                gradients = [g * (most / tf.maximum(norm, most)) for g in gradients]
            for number, (variable, gradient) in enumerate(zip(variables, gradients, strict=True)):
                mine = [slot[number] for slot in slots]
                less, kept = step_of(gradient, mine, rates[step])
                variable.assign_sub(less)
                for slot, value in zip(mine, kept, strict=True):
                    slot.assign(value)
            total += batch
        return total

    def score(x: Any, y: Any) -> Any:
        values = before_last(x)
        return loss.answers(values), tf.reduce_sum(tf.cast(loss.losses(values, y), tf.float64))

    numbers = [tf.TensorSpec(shape, tf.float32) for shape in ((None,), (), ())]
    signature = [rows, labels, batches, mask, *numbers]
    return tf.function(run, input_signature=signature), tf.function(score, input_signature=[rows, labels])
