"""What the target's column says is to be learnt: classes, a number, or several labels at once."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from dmlworker.datasets.dataset import MIN_PER_CLASS, DatasetError, encode_labels
from dmlworker.task import AUTO, CLASSIFICATION, REGRESSION

MOST_CLASSES_OF_NUMBERS = 20
"""More different whole numbers are a quantity, and no classes."""
MIN_VALUES = 2 * MIN_PER_CLASS
"""Samples that a number is learnt from: as many as two classes need."""


class Target(NamedTuple):
    """See `Dataset`."""

    y: np.ndarray
    classes: tuple[str, ...]
    task: str


def of(cells: Sequence[str], task: str = AUTO) -> Target:
    """What the cells (n,) of a target are, none of them missing. Raises DatasetError if it can't be learnt as `task`."""
    if task == AUTO:
        task = _found(cells)
    if task == REGRESSION:
        return Target(_numbers(cells), (), REGRESSION)
    return Target(*encode_labels(cells), CLASSIFICATION)


def _found(cells: Sequence[str]) -> str:
    values = _floats(cells)
    if values is None:
        return CLASSIFICATION
    different = np.unique(values)
    quantity = len(different) > MOST_CLASSES_OF_NUMBERS or bool((different != np.floor(different)).any())
    return REGRESSION if quantity else CLASSIFICATION


def _floats(cells: Sequence[str]) -> np.ndarray | None:
    try:
        return np.array(cells, np.float64)
    except ValueError:
        return None


def _numbers(cells: Sequence[str]) -> np.ndarray:
    values = _floats(cells)
    if values is None:
        raise DatasetError(
            "The target holds text, so it can't be learnt as a number. Choose classes, or another target."
        )
    with np.errstate(over="ignore"):
        y = values.astype(np.float32)
    if not np.isfinite(y).all():
        wrong = int((~np.isfinite(y)).argmax())
        raise DatasetError(f"The target of sample {wrong + 1} is infinite or too large ({cells[wrong]:.40}).")
    if len(y) < MIN_VALUES:
        raise DatasetError(f"{len(y)} samples are too few to learn a number from (at least {MIN_VALUES}).")
    if y.min() == y.max():
        raise DatasetError(f"The target is always {cells[0]:.40}. There is nothing to learn.")
    return y
