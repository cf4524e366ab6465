"""What training makes small, and what a model's values are taken for: for each task, of what goes INTO the last layer, where it keeps its
precision. Written in Keras' operations, so that both backends compute the same.
"""

from typing import Any, NamedTuple

from dmlworker import models
from dmlworker.task import MULTILABEL, REGRESSION


class Loss(NamedTuple):
    """task: see dmlworker/task.py. target: (mean, standard deviation) of a regression's."""

    task: str
    target: tuple[float, float] = (0.0, 1.0)

    @classmethod
    def of(cls, spec: dict[str, Any]) -> "Loss":
        task = models.task(spec)
        return cls(task, models.target(spec)) if task == REGRESSION else cls(task)

    @property
    def dtype(self) -> str:
        """Of y."""
        return {REGRESSION: "float32", MULTILABEL: "uint8"}.get(self.task, "int32")

    def shape(self, outputs: int) -> tuple[int, ...]:
        """Of one sample's y."""
        return (outputs,) if self.task == MULTILABEL else ()

    def losses(self, values: Any, y: Any) -> Any:
        """(n,): of each sample the cross-entropy; for several labels, the mean of theirs; for a number, half the square of what is missing to the
        standardised target, so that one learning rate suits all units."""
        from keras import ops

        if self.task == REGRESSION:
            mean, deviation = self.target
            return 0.5 * ops.square(values[:, 0] - (y - mean) / deviation)
        if self.task == MULTILABEL:
            return ops.mean(ops.binary_crossentropy(ops.cast(y, "float32"), values, from_logits=True), axis=1)
        return ops.sparse_categorical_crossentropy(y, values, from_logits=True)

    def answers(self, values: Any) -> Any:
        """What each sample is taken for: (n,) int32, its class; (n,) float32, the number in the target's unit; (n, k) int32, 1 for each label
        that it has. Where an output is not finite: -1, NaN, and -1 for all labels."""
        from keras import ops

        finite = ops.all(ops.isfinite(values), axis=1)
        if self.task == REGRESSION:
            mean, deviation = self.target
            return ops.where(finite, values[:, 0] * deviation + mean, float("nan"))
        if self.task == MULTILABEL:
            return ops.where(finite[:, None], ops.cast(values > 0, "int32"), -1)
        return ops.where(finite, ops.cast(ops.argmax(values, axis=1), "int32"), -1)
