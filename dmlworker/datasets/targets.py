"""What the target's column says is to be learnt: classes, a number, or several labels at once."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from dmlworker.datasets import arrays
from dmlworker.datasets.arrays import Growing
from dmlworker.datasets.cells import Texts
from dmlworker.datasets.dataset import (
    MAX_CLASSES,
    MIN_PER_CLASS,
    DatasetError,
    check_text,
    encode_labels,
    too_many_classes,
)
from dmlworker.task import AUTO, CLASSIFICATION, MULTILABEL, REGRESSION

MOST_CLASSES_OF_NUMBERS = 20
"""More different whole numbers are a quantity, and no classes."""
MIN_VALUES = 2 * MIN_PER_CLASS
"""Samples that a number is learnt from: as many as two classes need."""
SEPARATORS = ";|"
"""Between the labels in a cell; the one that more cells have."""
MOST_DIFFERENT = 1 << 18
"""Cells of a target that are told apart; more can only be numbers."""
MAX_MARKS = 500_000_000
"""Samples times labels."""


class Target(NamedTuple):
    """See `Dataset`."""

    y: np.ndarray
    classes: tuple[str, ...]
    task: str


class Labels:
    """The cells of a target, some at a time; none of them is missing. `names`: the different ones, or None if they are numbers and too many;
    `numbers`: (n,) float64, or None if not all are."""

    def __init__(self) -> None:
        self._places: dict[str, int] | None = {}
        self._codes, self._numbers = Growing((), np.int32), Growing((), np.float64)
        self._all_numbers = True

    @classmethod
    def of(cls, cells: Sequence[str]) -> "Labels":
        found = cls()
        found.add(*Texts(cells).distinct())
        return found

    def add(self, names: Sequence[str], codes: np.ndarray) -> None:
        """names: the different ones of some cells; codes: which of them each is. Raises DatasetError if they are too many."""
        values = _floats(names) if self._all_numbers else None
        if values is None:
            self._all_numbers = False
        else:
            self._numbers.add(values[codes])
        if self._places is not None:
            places = [self._places.setdefault(name, len(self._places)) for name in names]
            self._codes.add(np.array(places, np.int32)[codes])
            self._forget()

    def _forget(self) -> None:
        if self._places is not None and len(self._places) > MOST_DIFFERENT:
            if not self._all_numbers:
                raise too_many_classes(len(self._places))
            self._places = None

    def done(self) -> tuple[list[str] | None, np.ndarray, np.ndarray | None]:
        """(names, codes (n,) int32, which have a meaning if there are names, numbers); the last call."""
        names = None if self._places is None else list(self._places)
        if names is None and not self._all_numbers:
            raise too_many_classes(MOST_DIFFERENT)
        return names, self._codes.done(), self._numbers.done() if self._all_numbers else None


def of(labels: Labels, task: str = AUTO) -> Target:
    """What a target's cells are. Raises DatasetError if it can't be learnt as `task`."""
    names, codes, numbers = labels.done()
    if task == AUTO:
        task = _found(names, numbers)
    if task == REGRESSION:
        return Target(_numbers(names, codes, numbers), (), REGRESSION)
    if names is None:
        raise too_many_classes(MOST_DIFFERENT)
    if task == MULTILABEL:
        return _several(names, codes)
    return Target(*encode_labels(names, codes), CLASSIFICATION)


def _found(names: list[str] | None, numbers: np.ndarray | None) -> str:
    if names is None:
        return REGRESSION
    if numbers is None:
        return MULTILABEL if _repeat_in_cells(names) else CLASSIFICATION
    different = np.unique(np.array(names, np.float64))
    quantity = len(different) > MOST_CLASSES_OF_NUMBERS or bool((different != np.floor(different)).any())
    return REGRESSION if quantity else CLASSIFICATION


def _repeat_in_cells(names: Sequence[str]) -> bool:
    """Whether cells hold several labels that come in many combinations: fewer labels than different cells."""
    mark = separator(names, np.ones(len(names)))
    if not any(mark in cell for cell in names):
        return False
    return len({label for cell in names for label in _split(cell, mark)}) < len(names)


def separator(names: Sequence[str], counts: np.ndarray) -> str:
    """The one of SEPARATORS between these cells' labels. counts: how often each cell occurs."""
    return max(SEPARATORS, key=lambda mark: counts[[mark in cell for cell in names]].sum())


def _split(cell: str, separator: str) -> list[str]:
    """The labels in a cell; none in one that is a mere separator."""
    return [label for part in cell.split(separator) if (label := part.strip())]


def _several(cells: list[str], codes: np.ndarray) -> Target:
    mark = separator(cells, np.bincount(codes, minlength=len(cells)))
    split = [_split(cell, mark) for cell in cells]
    names = sorted({label for labels in split for label in labels})
    for name in names[:MAX_CLASSES]:
        check_text(name)
    _check_size(max(len(codes), len(cells)), len(names))
    place = {name: index for index, name in enumerate(names)}
    kinds = np.zeros((len(cells), len(names)), np.uint8)
    for row, labels in enumerate(split):
        kinds[row, [place[label] for label in labels]] = 1
    return marks(arrays.take(kinds, codes), names)


def marks(y: np.ndarray, names: Sequence[str] | None = None) -> Target:
    """Several labels as y (n, k) of 0 and 1. Raises DatasetError if one is too rare, or always there."""
    names = names or [f"label {number}" for number in range(1, y.shape[1] + 1)]
    _check_size(*y.shape)
    counts = y.sum(axis=0, dtype=np.int64)
    for name, count in zip(names, counts.tolist(), strict=True):
        if not MIN_PER_CLASS <= count < len(y):
            often = "every sample" if count == len(y) else f"{count} of at least {MIN_PER_CLASS} samples"
            raise DatasetError(f"The label {name:.50} is in {often}. Leave it out, or choose another target.")
    return Target(y.astype(np.uint8, copy=False), tuple(names), MULTILABEL)


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


def _numbers(names: list[str] | None, codes: np.ndarray, values: np.ndarray | None) -> np.ndarray:
    if values is None:
        raise DatasetError(
            "The target holds text, so it can't be learnt as a number. Choose classes, or another target."
        )
    with np.errstate(over="ignore"):
        y = arrays.mapped(values, np.positive, np.float32)
    if not arrays.every(y, np.isfinite):
        wrong = int((~np.isfinite(y)).argmax())
        cell = names[codes[wrong]] if names else str(values[wrong])
        raise DatasetError(f"The target of sample {wrong + 1} is infinite or too large ({cell:.40}).")
    if len(y) < MIN_VALUES:
        raise DatasetError(f"{len(y)} samples are too few to learn a number from (at least {MIN_VALUES}).")
    if y.min() == y.max():
        raise DatasetError(f"The target is always {values[0]:g}. There is nothing to learn.")
    return y
