"""What the target's column says is to be learnt: classes, a number, or several labels at once."""

from collections.abc import Collection, Sequence
from typing import NamedTuple

import numpy as np

from dmlworker.datasets.dataset import MAX_CLASSES, MIN_PER_CLASS, DatasetError, check_text, encode_labels
from dmlworker.task import AUTO, CLASSIFICATION, MULTILABEL, REGRESSION

MOST_CLASSES_OF_NUMBERS = 20
"""More different whole numbers are a quantity, and no classes."""
MIN_VALUES = 2 * MIN_PER_CLASS
"""Samples that a number is learnt from: as many as two classes need."""
SEPARATORS = ";|"
"""Between the labels in a cell; the one that more cells have."""
MAX_MARKS = 500_000_000
"""Samples times labels."""


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
    if task == MULTILABEL:
        return _several(cells)
    return Target(*encode_labels(cells), CLASSIFICATION)


def _found(cells: Sequence[str]) -> str:
    values = _floats(cells)
    if values is None:
        return MULTILABEL if _repeat_in_cells(cells) else CLASSIFICATION
    different = np.unique(values)
    quantity = len(different) > MOST_CLASSES_OF_NUMBERS or bool((different != np.floor(different)).any())
    return REGRESSION if quantity else CLASSIFICATION


def _repeat_in_cells(cells: Sequence[str]) -> bool:
    """Whether cells hold several labels that come in many combinations: fewer labels than different cells."""
    different = set(cells)
    separator = _separator(different)
    if not any(separator in cell for cell in different):
        return False
    return len({label for cell in different for label in _split(cell, separator)}) < len(different)


def _separator(cells: Collection[str]) -> str:
    return max(SEPARATORS, key=lambda separator: sum(separator in cell for cell in cells))


def _split(cell: str, separator: str) -> list[str]:
    """The labels in a cell; none in one that is a mere separator."""
    return [label for part in cell.split(separator) if (label := part.strip())]


def _several(cells: Sequence[str]) -> Target:
    separator = _separator(cells)
    kinds = {cell: _split(cell, separator) for cell in set(cells)}
    names = sorted({label for labels in kinds.values() for label in labels})
    for name in names[:MAX_CLASSES]:
        check_text(name)
    _check_size(len(cells), len(names))
    place = {name: index for index, name in enumerate(names)}
    y = np.zeros((len(cells), len(names)), np.uint8)
    for row, cell in enumerate(cells):
        y[row, [place[label] for label in kinds[cell]]] = 1
    return marks(y, names)


def marks(y: np.ndarray, names: Sequence[str] | None = None) -> Target:
    """Several labels as y (n, k) of 0 and 1. Raises DatasetError if one is too rare, or always there."""
    names = names or [f"label {number}" for number in range(1, y.shape[1] + 1)]
    _check_size(*y.shape)
    counts = y.sum(axis=0, dtype=np.int64)
    for name, count in zip(names, counts.tolist(), strict=True):
        if not MIN_PER_CLASS <= count < len(y):
            often = "every sample" if count == len(y) else f"{count} of at least {MIN_PER_CLASS} samples"
            raise DatasetError(f"The label {name:.50} is in {often}. Leave it out, or choose another target.")
    return Target(y.astype(np.uint8), tuple(names), MULTILABEL)


def _check_size(samples: int, labels: int) -> None:
    if labels < 2:
        raise DatasetError("There is one label only, or none. Several are written in a cell as a;b or a|b.")
    if labels > MAX_CLASSES:
        raise DatasetError(f"{labels:,} labels are too many (at most {MAX_CLASSES:,}). Is it the right target?")
    if samples * labels > MAX_MARKS:
        raise DatasetError(f"{samples:,} samples with {labels:,} labels are too many to be learnt together.")


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
