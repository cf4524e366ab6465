"""The local update: start weights, a shard and hyper-parameters in; trained weights out, the same ones every time.

The platform fixes all that decides the result, sample order included, so a replay can tell honest work from other. Steps
(`optimizers`) on the mean of the task's loss (`losses`), compiled by TensorFlow or JAX (`backends`), which are imported at the first call.
"""

import json
import threading
from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dmlworker import backends, models, optimizers, rawmodel
from dmlworker.datasets import Encoder, arrays
from dmlworker.losses import Loss
from dmlworker.protocol import Hyper
from dmlworker.task import CLASSIFICATION, MULTILABEL, REGRESSION
from dmlworker.trace import steps_of
from dmlworker.weights import MalformedUpdate, unpack
from dmlworker.weights import pack as _pack

if TYPE_CHECKING:
    import keras

__all__ = [
    "Evaluation", "Hyper", "MalformedUpdate", "device", "evaluate", "export", "initial_weights", "pack", "predict", "replay", "threads", "train", "unpack",
]  # fmt: skip

Spec = dict[str, Any]
Weights = list[np.ndarray]
ProgressCallback = Callable[[int, int, float], None]
CheckpointCallback = Callable[[Weights], None]

_SAMPLES_PER_CALL = 400
"""Samples between two calls of `progress`, about; the result does not depend on it."""
_EVALUATION_BATCH = 250
_PROGRAMS_KEPT = 4


LEAST_R2 = -1e6
"""Below it, a model is as good as one whose answers are not finite."""


@dataclass(frozen=True)
class Evaluation:
    """How a model does on so many samples. score: its task's number (dmlworker/task.py): accuracy, R², or macro F1. correct: samples that it gets
    right; of another task than classification, as many of them as the score is of 1, none for one below 0. loss: the mean (`losses`),
    infinite if it is not finite. f1: mean of the classes' or labels' F1 (0..1; of those that occur among labels or answers), None
    without any. answers: see `Loss.answers`."""

    correct: int
    samples: int
    loss: float
    f1: float | None
    score: float
    answers: np.ndarray = field(compare=False, repr=False)

    @property
    def accuracy(self) -> float:
        return self.correct / self.samples


def threads(n: int) -> None:
    """Pins the library to `n` threads, and a GPU to full float32; to be called before it first computes. Another number may give other
    rounding.

    Raises RuntimeError if it already runs with another number, ImportError if it is not installed.
    """
    backends.chosen().threads(n)


def device() -> str:
    """What the library computes on: "CPU", or the names of the GPUs that it found."""
    return backends.chosen().device()


def initial_weights(spec: Spec, seed: int) -> Weights:
    """Fresh weights, float32, drawn as the layers' initializers say; the same ones for the same spec and seed."""
    seeded = deepcopy(spec)
    for number, initializer in enumerate(_initializers(seeded)):
        initializer["seed"] = int(np.random.SeedSequence([seed, number]).generate_state(1)[0] >> 1)
    return _arrays(models.from_spec(seeded))


def _initializers(value: Any) -> Iterator[dict[str, Any]]:
    """The configurations of everything random in a spec, in its order."""
    if isinstance(value, dict) and "seed" in value:
        yield value
    items = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    for item in items:
        yield from _initializers(item)


def _arrays(model: "keras.Model") -> Weights:
    # Copies: the library may hand out views of memory that the next step changes.
    return [np.array(weight, dtype=np.float32) for weight in model.get_weights()]


def train(
    spec: Spec,
    weights: Weights,
    x: arrays.Array,
    y: np.ndarray,
    hyper: Hyper,
    progress: ProgressCallback | None = None,
    checkpoint: CheckpointCallback | None = None,
    w: np.ndarray | None = None,
) -> Weights:
    """`weights` after `hyper.epochs` passes over the shard x (n, ...), uint8, uint16 or float32, and y as `Dataset` has it. w (n,) float32:
    what each sample counts in its batch's mean; None: 1. Of a mapped shard (`datasets.mapped`), only what the next steps take is in memory.

    `progress(step, steps, loss)` is called every few steps, loss being the epoch's mean so far; what it raises ends the
    training. `checkpoint(arrays)` is called after every `hyper.checkpoint_every` steps, with what the optimizer remembers
    behind the weights, and after the last with the weights alone, from which nothing goes on; the arrays are valid for the length of
    the call. Bit for bit the same at the same number of threads on the same machine; see docs/decisions/replay-tolerance.md for how far others differ. Raises ModelRefused for the spec, MalformedUpdate for the
    weights, ValueError for the data.
    """
    program = _trainer(spec, x, hyper)
    with program.lock:
        program.load(weights)
        return program.train(x, y, hyper, progress or _silent, checkpoint or _let_go, w=w)


def replay(
    spec: Spec,
    weights: Weights,
    x: arrays.Array,
    y: np.ndarray,
    hyper: Hyper,
    at: Weights,
    segment: range,
    checkpoint: CheckpointCallback | None = None,
    w: np.ndarray | None = None,
) -> Weights:
    """The steps `segment` (from 0) of the training that `train` does, gone on with from the checkpoint `at` that they began with; gives the
    one that they end with. Step 0 begins with weights alone: there is nothing to remember yet.

    weights: the training's own start, which FedProx pulls back to. Raises as `train` does.
    """
    program = _trainer(spec, x, hyper)
    with program.lock:
        program.load(weights)
        return program.train(x, y, hyper, _silent, checkpoint or _let_go, at, segment, w)


def _trainer(spec: Spec, x: arrays.Array, hyper: Hyper) -> "_Program":
    how = hyper.proximal > 0, hyper.clip > 0, hyper.optimizer
    return _program(models.spec_bytes(spec), hyper.batch_size, x.dtype.str, *how)


def empty_state(spec: Spec, optimizer: str) -> Weights:
    """What stands behind the weights in a checkpoint, as it is before the first step."""
    if not optimizers.SLOTS[optimizer]:
        return []
    return optimizers.empty(optimizer, _size(models.from_spec(spec)))


def _size(model: "keras.Model") -> int:
    """Of all trainable weights together."""
    return sum(int(np.prod(weight.shape)) for weight in model.trainable_weights)


def evaluate(spec: Spec, weights: Weights, x: arrays.Array, y: np.ndarray) -> Evaluation:
    """How well the model does on x (n, ...), y (n, ...). A sample whose output is not finite is not correct.

    Raises as `train` does.
    """
    program = _program(models.spec_bytes(spec), _EVALUATION_BATCH, x.dtype.str)
    with program.lock:
        program.load(weights)
        return program.evaluate(x, y)


def predict(spec: Spec, weights: Weights, x: arrays.Array) -> np.ndarray:
    """The probability of each class or label (n, k), or the number (n, 1), for raw samples x (n, ...), as the exported model gives it. Raises
    as `train` does."""
    model = models.from_spec(spec)
    if x.shape[1:] != model.input_shape[1:] or [tuple(weight.shape) for weight in model.weights] != [
        w.shape for w in weights
    ]:
        raise MalformedUpdate("The samples or the weights do not fit the model.")
    model.set_weights(weights)
    parts = (x[first : first + _EVALUATION_BATCH] for first in range(0, len(x), _EVALUATION_BATCH))
    return np.concatenate([np.asarray(model(part.astype(np.float32), training=False)) for part in parts])


def _silent(step: int, steps: int, loss: float) -> None:
    pass


def _let_go(weights: Weights) -> None:
    pass


@lru_cache(maxsize=_PROGRAMS_KEPT)
def _program(
    spec: bytes, batch_size: int, dtype: str, held: bool = False, clipped: bool = False, optimizer: str = "sgd"
) -> "_Program":
    return _Program(models.spec_from_bytes(spec), batch_size, dtype, held, clipped, optimizer)


class _Program:
    """A model with its steps, compiled once for a batch size and a type of input. One caller at a time: `lock`.

    `held`: by FedProx to its start weights, which the steps then keep beside the model's. `clipped`: its gradients are."""

    def __init__(self, spec: Spec, batch_size: int, dtype: str, held: bool, clipped: bool, optimizer: str) -> None:
        self.lock = threading.Lock()
        self._model = models.from_spec(spec)
        self._batch_size = batch_size
        self._loss = Loss.of(spec)
        self._empty = optimizers.empty(optimizer, _size(self._model))
        self._steps = backends.chosen().Steps(self._model, self._loss, batch_size, dtype, held, clipped, optimizer)

    def load(self, weights: Weights) -> None:
        shapes = [tuple(weight.shape) for weight in self._model.weights]
        if [array.shape for array in weights] != shapes:
            raise MalformedUpdate("The weights do not fit the model.")
        self._model.set_weights(weights)

    def train(
        self,
        x: arrays.Array,
        y: np.ndarray,
        hyper: Hyper,
        progress: ProgressCallback,
        checkpoint: CheckpointCallback,
        at: Weights | None = None,
        part: range | None = None,
        w: np.ndarray | None = None,
    ) -> Weights:
        """The steps of `part`, or all, from the checkpoint `at`, or the weights loaded; gives the one that they end with."""
        self._check(x, y)
        if w is not None and w.shape != y.shape[:1]:
            raise ValueError(f"{len(y)} samples have {len(w)} weights.")
        steps, count = steps_of(len(y), hyper), len(self._model.weights)
        part = part or range(steps)
        run = self._steps.start(x, y, hyper, self._state(at[count:] if at and part.start else None))
        if at is not None:
            self.load(at[:count] if part.start else at)
        for done, loss in self._losses(run, len(y), w, hyper, part):
            progress(done, steps, loss)
            if done % hyper.checkpoint_every == 0 or done == steps:
                checkpoint([*self._model.get_weights(), *(self._steps.state() if done < steps else ())])
        return [*_arrays(self._model), *(self._steps.state() if part.stop < steps else ())]

    def _state(self, given: Weights | None) -> Weights:
        """Raises MalformedUpdate if what is given is not what this optimizer remembers."""
        if given is None:
            return self._empty
        if [array.shape for array in given] != [array.shape for array in self._empty]:
            raise MalformedUpdate("The optimizer's state does not fit the model.")
        return given

    def _losses(
        self, run: backends.Run, samples: int, w: np.ndarray | None, hyper: Hyper, part: range
    ) -> Iterator[tuple[int, float]]:
        """After every few steps, the number of steps done and the mean loss of the epoch so far. w: what each sample counts; None: 1."""
        per_epoch = -(-samples // self._batch_size)
        for epoch, order in enumerate(_orders(samples, hyper)):
            first = epoch * per_epoch
            mine = range(max(first, part.start), min(first + per_epoch, part.stop))
            total, seen = 0.0, 0.0
            for now in _calls(mine, max(1, _SAMPLES_PER_CALL // self._batch_size), hyper.checkpoint_every):
                batches, mask = _batches(order, w, self._batch_size, slice(now.start - first, now.stop - first))
                total += run(batches, mask, optimizers.rates(hyper, now))
                seen += float(mask.sum(dtype=np.float64))
                yield now.stop, total / seen

    def evaluate(self, x: arrays.Array, y: np.ndarray) -> Evaluation:
        self._check(x, y)
        answers, total = [], 0.0
        for first in range(0, len(y), self._batch_size):
            part = slice(first, first + self._batch_size)
            found, loss = self._steps.score(x[part], y[part])
            answers.append(found.astype(np.int8) if self._loss.task == MULTILABEL else found)
            total += loss
        return _measured(self._loss.task, np.concatenate(answers), y, total)

    def _check(self, x: arrays.Array, y: np.ndarray) -> None:
        outputs = self._model.output_shape[-1]
        if x.shape[1:] != self._model.input_shape[1:] or y.shape != (len(x), *self._loss.shape(outputs)) or not len(y):
            raise ValueError(f"Samples of shape {x.shape} with labels of shape {y.shape} do not fit the model.")
        if (y.dtype == np.float32) != (self._loss.task == REGRESSION):
            raise ValueError(f"Labels of type {y.dtype} do not fit the model.")
        if self._loss.task == CLASSIFICATION and (y.min() < 0 or y.max() >= outputs):
            raise ValueError("A label is outside the model's classes.")


def _measured(task: str, answers: np.ndarray, y: np.ndarray, total: float) -> Evaluation:
    """total: the sum of the samples' losses."""
    loss, n = total / len(y) if np.isfinite(total) else float("inf"), len(y)
    if task == CLASSIFICATION:
        correct = int((answers == y).sum())
        return Evaluation(correct, n, loss, _macro_f1(answers, y), correct / n, answers)
    f1 = _labels_f1(answers, y) if task == MULTILABEL else None
    score = r2(answers, y) if f1 is None else f1
    return Evaluation(round(n * min(max(score, 0.0), 1.0)), n, loss, f1, score, answers)


def r2(answers: np.ndarray, y: np.ndarray) -> float:
    """The part of the variance of y (n,) that the answers (n,) explain, LEAST_R2 at least; of a y that does not vary, 1 if they are right and
    else 0. In float64."""
    missing, around = (np.square(y - found.astype(np.float64)).sum() for found in (answers, y.mean(dtype=np.float64)))
    if not np.isfinite(missing):
        return LEAST_R2
    if not around:
        return float(not missing)
    return max(LEAST_R2, float(1 - missing / around))


def _labels_f1(answers: np.ndarray, y: np.ndarray) -> float:
    """As `_macro_f1`, over the labels of y (n, k)."""
    right, answered, labelled = (found.sum(axis=0) for found in ((answers == 1) & (y == 1), answers == 1, y == 1))
    return _mean_f1(right, answered + labelled)


def _macro_f1(answers: np.ndarray, y: np.ndarray) -> float:
    """2 TP / (answered + labelled), averaged over the classes that occur. An answer of -1 is none."""
    size = int(max(answers.max(), y.max())) + 1
    right, answered, labelled = (
        np.bincount(classes, minlength=size) for classes in (y[answers == y], answers[answers >= 0], y)
    )
    return _mean_f1(right, answered + labelled)


def _mean_f1(right: np.ndarray, counted: np.ndarray) -> float:
    """Of those that occur; 0 if none does."""
    occurs = counted > 0
    return float((2 * right[occurs] / counted[occurs]).mean()) if occurs.any() else 0.0


def _orders(samples: int, hyper: Hyper) -> Iterator[np.ndarray]:
    """For each epoch, the indices of all samples in the order that the seed gives; valid until the next one is asked for."""
    random, order = np.random.Generator(np.random.PCG64(hyper.seed)), arrays.empty((samples,), np.int32)
    for _ in range(hyper.epochs):
        for part in arrays.blocks(order):
            order[part] = np.arange(part.start, part.stop)
        random.shuffle(order)
        yield order


def _batches(order: np.ndarray, w: np.ndarray | None, batch_size: int, steps: slice) -> tuple[np.ndarray, np.ndarray]:
    """Indices (k, batch_size) of the samples of some steps of an epoch, and their weights.

    The last batch is filled up with sample 0 at weight 0, so that every batch has one shape and nothing is compiled twice.
    """
    now = order[steps.start * batch_size : steps.stop * batch_size]
    padded = np.zeros((steps.stop - steps.start) * batch_size, np.int32)
    mask = np.zeros(len(padded), np.float32)
    padded[: len(now)], mask[: len(now)] = now, 1 if w is None else w[now]
    return padded.reshape(-1, batch_size), mask.reshape(-1, batch_size)


def _calls(steps: range, most: int, checkpoint_every: int) -> Iterator[range]:
    """Steps to be done at once: up to `most`, and never past a checkpoint."""
    first = steps.start
    while first < steps.stop:
        end = min(first + most, (first // checkpoint_every + 1) * checkpoint_every, steps.stop)
        yield range(first, end)
        first = end


def pack(weights: Weights, spec: Spec | None = None) -> bytes:
    """Weights as safetensors bytes, in order; named after the layers if the spec is given. See `weights.pack`."""
    if spec is None:
        return _pack(weights)
    return _pack(weights, [weight.path for weight in models.from_spec(spec).weights])


def export(spec: Spec, weights: Weights, folder: Path, encoder: Encoder | None = None) -> list[Path]:
    """Writes model.json, model.weights.h5 and model.keras, which plain Keras 3 reads, into `folder`; gives their paths.

    The model takes raw rows as in the customer's file; an encoder that made numbers of them becomes a part of it. Raises ModelRefused,
    MalformedUpdate.
    """
    model = models.from_spec(spec)
    if [array.shape for array in weights] != [tuple(weight.shape) for weight in model.weights]:
        raise MalformedUpdate("The weights do not fit the model.")
    model.set_weights(weights)
    model = rawmodel.of(model, encoder) if encoder else model
    paths = [folder / name for name in ("model.json", "model.weights.h5", "model.keras")]
    paths[0].write_text(json.dumps(json.loads(model.to_json()), indent=1) + "\n")
    model.save_weights(paths[1])
    model.save(paths[2])
    return paths
