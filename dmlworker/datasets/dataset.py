"""What every reader returns, and the checks that hold for every kind of data."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

MIN_PER_CLASS = 10
"""Samples a class needs: with a fifth held out, two to test on and eight to learn from."""
MAX_CLASSES = 1000
PREVIEW_ROWS = 5
PREVIEW_COLUMNS = 12
DETAILED_COLUMNS = 100
UNBALANCED = 10
"""So many times as large a class is warned of."""
FEW_PER_CLASS = 30
NAMED = 5
"""Columns that a warning names."""


class DatasetError(ValueError):
    """The file can't be trained on; the text says why, to the customer."""


@dataclass(frozen=True)
class Dataset:
    """Samples and labels.

    x: (n, d) float32 or uint8, or images (n, h, w) or (n, h, w, c), uint8 or float32. y: (n,) int32, indices into `classes`.
    features: names of the columns, empty for images and arrays. kind: "csv", "npz" or "images".
    """

    x: np.ndarray
    y: np.ndarray
    classes: tuple[str, ...]
    features: tuple[str, ...]
    kind: str
    target: str | None = None

    def __len__(self) -> int:
        return len(self.y)

    def take(self, indices: np.ndarray) -> "Dataset":
        """The samples at `indices`, in that order; classes stay as they are."""
        return replace(self, x=self.x[indices], y=self.y[indices])


@dataclass(frozen=True)
class Column:
    """A feature of a table. kind: "whole numbers", "numbers" or "always the same"."""

    name: str
    kind: str
    low: float
    high: float


@dataclass(frozen=True)
class Facts:
    """What a data set is, for people. shape: of one sample. columns: of the features, `details` of the first of them. preview: a few
    rows as text, the label last; head: its columns. warnings: what may make a model worse, in words."""

    kind: str
    samples: int
    shape: tuple[int, ...]
    columns: tuple[str, ...]
    classes: dict[str, int]
    target: str | None
    preview: tuple[tuple[str, ...], ...]
    head: tuple[str, ...] = ()
    details: tuple[Column, ...] = ()
    warnings: tuple[str, ...] = ()

    def json(self) -> dict[str, Any]:
        """The same as plain JSON types."""
        plain = {key: list(value) if isinstance(value, tuple) else value for key, value in vars(self).items()}
        return plain | {
            "preview": [list(row) for row in self.preview],
            "details": [vars(column) for column in self.details],
        }


def describe(dataset: Dataset) -> Facts:
    """Facts of a data set that was read."""
    counts = np.bincount(dataset.y, minlength=len(dataset.classes))
    classes = {name: int(count) for name, count in zip(dataset.classes, counts, strict=True)}
    columns = tuple(_column(name, dataset.x[:, index]) for index, name in enumerate(dataset.features))
    return Facts(
        kind=dataset.kind,
        samples=len(dataset),
        shape=dataset.x.shape[1:],
        columns=dataset.features,
        classes=classes,
        target=dataset.target,
        preview=tuple(_row(dataset, index) for index in range(min(PREVIEW_ROWS, len(dataset)))),
        head=_head(dataset),
        details=columns[:DETAILED_COLUMNS],
        warnings=tuple(_warnings(dataset, classes, columns)),
    )


def _column(name: str, values: np.ndarray) -> Column:
    low, high = float(values.min()), float(values.max())
    kind = "always the same" if low == high else "whole numbers" if (values == np.floor(values)).all() else "numbers"
    return Column(name, kind, low, high)


def _head(dataset: Dataset) -> tuple[str, ...]:
    """The columns of the preview of a table; empty for other kinds."""
    if not dataset.features:
        return ()
    more = ("…",) if len(dataset.features) > PREVIEW_COLUMNS else ()
    return (*dataset.features[:PREVIEW_COLUMNS], *more, dataset.target or "")


def _warnings(dataset: Dataset, classes: dict[str, int], columns: tuple[Column, ...]) -> Iterator[str]:
    largest, smallest = max(classes, key=classes.__getitem__), min(classes, key=classes.__getitem__)
    ratio = classes[largest] / classes[smallest]
    if ratio > UNBALANCED:
        yield f"{largest!r:.60} has {ratio:.0f} times as many samples as {smallest!r:.60}. A model may hardly ever answer with the rare one."
    elif classes[smallest] < FEW_PER_CLASS:
        yield f"{smallest!r:.60} has {classes[smallest]} samples only. The model will know little of it, and its measures will be rough."
    same = [column.name for column in columns if column.kind == "always the same"]
    if same:
        yield f"The same in every row, so nothing can be learnt from it: {_listed(same)}."
    rows = np.arange(len(dataset))
    count = [
        column.name
        for index, column in enumerate(columns)
        if column.kind == "whole numbers" and (dataset.x[:, index] - column.low == rows).all()
    ]
    if count:
        yield f"Looks like a row number, which says nothing about a new sample: {_listed(count)}. Better leave it out."


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(f"{name:.40}" for name in names[:NAMED]) + more


def _row(dataset: Dataset, index: int) -> tuple[str, ...]:
    sample, label = dataset.x[index], dataset.classes[dataset.y[index]]
    if sample.ndim > 1:
        return (" x ".join(map(str, sample.shape)), f"mean {sample.mean():.3g}", label)
    cells = [f"{value:g}" for value in sample[:PREVIEW_COLUMNS]]
    return (*cells, *(["…"] if len(sample) > PREVIEW_COLUMNS else []), label)


def encode_labels(labels: Sequence[str]) -> tuple[np.ndarray, tuple[str, ...]]:
    """Labels as (n,) int32 indices, and the class names: numbers in their order, else by the alphabet.

    Whole numbers are one class however they are written ("1", "1.0"). Raises DatasetError for one class only, more than
    MAX_CLASSES, or a class with fewer than MIN_PER_CLASS samples.
    """
    names, inverse = np.unique(np.asarray(labels, dtype=str), return_inverse=True)
    as_numbers = [_whole(name) for name in names]
    if all(number is not None for number in as_numbers):
        values, first, merged = np.unique(np.array(as_numbers), return_index=True, return_inverse=True)
        names = names[first] if len(values) == len(names) else values.astype(str)
        inverse = merged[inverse]
    _check_classes(names, np.bincount(inverse, minlength=len(names)))
    return inverse.astype(np.int32), tuple(str(name) for name in names)


def _whole(text: str) -> int | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return int(number) if number.is_integer() and abs(number) < 2**53 else None


def _check_classes(names: np.ndarray, counts: np.ndarray) -> None:
    if len(names) == 1:
        raise DatasetError(f"All samples are of one class ({names[0]!s:.50}). There is nothing to tell apart.")
    if len(names) > MAX_CLASSES:
        raise DatasetError(f"{len(names):,} classes are too many (at most {MAX_CLASSES:,}). Is it the right target?")
    rarest = int(counts.argmin())
    if counts[rarest] < MIN_PER_CLASS:
        raise DatasetError(
            f"Class {names[rarest]!s:.50} has {counts[rarest]} of at least {MIN_PER_CLASS} samples. "
            "Add some, leave the class out, or choose another target."
        )


def check_finite(x: np.ndarray) -> None:
    """Raises DatasetError, with the row's number from 1, if a float array holds an infinity or a NaN."""
    if x.dtype.kind != "f" or np.isfinite(x).all():
        return
    bad = ~np.isfinite(x.reshape(len(x), -1)).all(axis=1)
    raise DatasetError(f"Sample {int(bad.argmax()) + 1} holds a value that is missing, infinite or too large.")
