"""What every reader returns, and the checks that hold for every kind of data."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from dmlworker.datasets import arrays, dates, leaks
from dmlworker.task import CLASSIFICATION, MULTILABEL, REGRESSION

MIN_PER_CLASS = 10
"""Samples a class needs: with a fifth held out, two to test on and eight to learn from."""
MAX_CLASSES = 1000
PREVIEW_ROWS = 5
PREVIEW_COLUMNS = 12
PREVIEW_CHARACTERS = 80
DETAILED_COLUMNS = 100
UNBALANCED = 10
"""So many times as large a class is warned of."""
FEW_PER_CLASS = 30
NAMED = 5
"""Columns that a warning names."""
BARS = 10
FAR = 10
"""Standard deviations; a target that is farther from the mean is warned of."""
REPEATED = 0.01
"""Of the samples; more that occur twice are warned of."""
MOSTLY_MISSING = 0.5
CHOSEN = "you chose so"
GROUPS = "it says which rows stay together"
"""Why a column is left out, where that is no news."""
ALWAYS_THE_SAME = "always the same"
YES_OR_NO = (("yes", "no"), ("true", "false"), ("y", "n"), ("t", "f"), ("on", "off"))
MISSING = frozenset({"", "na", "n/a", "nan", "null", "none", "?", "-"})
"""What stands where nothing is, in small letters."""


class DatasetError(ValueError):
    """The file can't be trained on; the text says why, to the customer. `field`: the name of the option that it is about, if it is one."""

    def __init__(self, text: str, field: str | None = None) -> None:
        super().__init__(text)
        self.field = field


@dataclass(frozen=True)
class Raw:
    """A column of a table as it was read: float32, NaN where nothing is. kind: "number"; "category", indices into `values`; "date", hours
    since 1970, which were written in `form`; "text", indices into `values`, all there are."""

    name: str
    kind: str
    values: tuple[str, ...] = ()
    form: str = ""

    def text(self, value: float) -> str:
        """A cell as one might write it."""
        if np.isnan(value):
            return ""
        if self.kind in ("category", "text"):
            return self.values[int(value)]
        if self.kind == "date":
            return dates.written(value, self.form)
        return np.format_float_positional(np.float32(value), trim="-")


@dataclass(frozen=True)
class Dataset:
    """Samples and labels.

    x: (n, d) float32 or uint8, uint16 for the numbers of a text's words, or images (n, h, w) or (n, h, w, c), uint8 or float32. task: see
    dmlworker/task.py. y: (n,) int32, indices into `classes`; of a regression, which has none, (n,) float32; of several labels, (n, k) uint8, 1
    for each of `classes` that a sample has.
    features: names of the columns, empty for images and arrays. kind: "csv", "npz" or "images".
    raw: of a table with more than plain numbers, what x holds until an `Encoder` made numbers of it; else empty. left_out: the
    columns of a table that are no features, each with the reason. groups: (n,) int32, of each sample, if there are such. w: (n,) float32, what
    each counts in training; None: 1.
    """

    x: arrays.Array
    y: np.ndarray
    classes: tuple[str, ...]
    features: tuple[str, ...]
    kind: str
    target: str | None = None
    raw: tuple[Raw, ...] = ()
    left_out: tuple[tuple[str, str], ...] = ()
    groups: np.ndarray | None = None
    w: np.ndarray | None = None
    task: str = CLASSIFICATION

    def __len__(self) -> int:
        return len(self.y)

    def take(self, indices: np.ndarray) -> "Dataset":
        """The samples at `indices`, in that order; classes stay as they are."""
        return replace(self.rows(indices), x=arrays.take(self.x, indices))

    def rows(self, indices: np.ndarray) -> "Dataset":
        """As `take`; where x is large it is fetched as it is asked for."""
        groups, w = (None if of is None else arrays.take(of, indices) for of in (self.groups, self.w))
        x = arrays.settled(arrays.Rows(self.x, indices))
        return replace(self, x=x, y=arrays.take(self.y, indices), groups=groups, w=w)


@dataclass(frozen=True)
class Column:
    """A column of a table. kind: in words. low, high: of numbers. missing: values."""

    name: str
    kind: str
    low: float | None = None
    high: float | None = None
    missing: int = 0


@dataclass(frozen=True)
class Spread:
    """How the numbers of a target lie. bars: (from, to, samples) of BARS intervals of equal width."""

    low: float
    high: float
    mean: float
    deviation: float
    bars: tuple[tuple[float, float, int], ...]


@dataclass(frozen=True)
class Facts:
    """What a data set is, for people. shape: of one sample. columns: of the features, `details` of the first of them. classes: samples of
    each; none of a regression, which has its target's `spread`. preview: a few rows as text, the label last; head: its columns. warnings:
    what may make a model worse, in words. inputs: the shape of what the model takes of a sample; of a table that has to be made numbers,
    the most columns that may come of it; of windows, steps and columns; of nothing but text, the most tokens of one. tokens: how many
    different ones there are at most; 0 if a sample is not made of them."""

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
    inputs: tuple[int, ...] = ()
    tokens: int = 0
    task: str = CLASSIFICATION
    spread: Spread | None = None

    @property
    def outputs(self) -> int:
        """Numbers that a model gives: one for each class or label; or the one that is learnt."""
        return len(self.classes) or 1

    def json(self) -> dict[str, Any]:
        """The same as plain JSON types."""
        plain = {key: list(value) if isinstance(value, tuple) else value for key, value in vars(self).items()}
        return plain | {
            "preview": [list(row) for row in self.preview],
            "details": [vars(column) for column in self.details],
            "spread": self.spread and vars(self.spread),
        }


def describe(dataset: Dataset) -> Facts:
    """Facts of a data set that was read."""
    classes, spread = _samples_of(dataset), spread_of(dataset.y) if dataset.task == REGRESSION else None
    columns = tuple(_columns(dataset))
    return Facts(
        kind=dataset.kind,
        samples=len(dataset),
        shape=dataset.x.shape[1:],
        columns=dataset.features,
        classes=classes,
        target=dataset.target,
        preview=tuple(_row(dataset, index) for index in range(min(PREVIEW_ROWS, len(dataset)))),
        head=_head(dataset),
        details=columns[:DETAILED_COLUMNS]
        + tuple(Column(name, f"left out: {why}") for name, why in dataset.left_out[:DETAILED_COLUMNS]),
        warnings=tuple(_warnings(dataset, classes, columns)),
        task=dataset.task,
        spread=spread,
    )


def _samples_of(dataset: Dataset) -> dict[str, int]:
    """Of each class or label."""
    if not dataset.classes:
        return {}
    several = dataset.task == MULTILABEL
    counts = (
        dataset.y.sum(axis=0, dtype=np.int64) if several else np.bincount(dataset.y, minlength=len(dataset.classes))
    )
    return {name: int(count) for name, count in zip(dataset.classes, counts, strict=True)}


def spread_of(y: np.ndarray) -> Spread:
    """Of numbers (n,)."""
    values = y.astype(np.float64)
    counts, edges = np.histogram(values, BARS)
    bars = tuple(zip(edges[:-1].tolist(), edges[1:].tolist(), counts.tolist(), strict=True))
    return Spread(float(values.min()), float(values.max()), float(values.mean()), float(values.std()), bars)


def _columns(dataset: Dataset) -> Iterator[Column]:
    for index, name in enumerate(dataset.features):
        values = dataset.x[:, index]
        raw = dataset.raw[index] if dataset.raw else Raw(name, "number")
        known = values[~np.isnan(values)] if dataset.raw else values
        yield _column(raw, known, len(values) - len(known))


def _column(raw: Raw, known: np.ndarray, missing: int) -> Column:
    """known: the values that are not missing; at least one."""
    low, high = float(known.min()), float(known.max())
    kind = ALWAYS_THE_SAME if low == high and not missing else _kind(raw, known)
    more = f", {missing:,} missing" if missing else ""
    if raw.kind != "number":
        return Column(raw.name, kind + more, missing=missing)
    return Column(raw.name, kind + more, low, high, missing)


def _kind(raw: Raw, known: np.ndarray) -> str:
    if raw.kind == "date":
        return f"dates ({raw.form})"
    if raw.kind == "text":
        return "text"
    if raw.kind == "category":
        lowered = {value.lower() for value in raw.values}
        return "yes or no" if any(lowered == set(pair) for pair in YES_OR_NO) else f"category of {len(raw.values):,}"
    return "whole numbers" if (known == np.floor(known)).all() else "numbers"


def _head(dataset: Dataset) -> tuple[str, ...]:
    """The columns of the preview of a table; empty for other kinds."""
    if not dataset.features:
        return ()
    more = ("…",) if len(dataset.features) > PREVIEW_COLUMNS else ()
    return (*dataset.features[:PREVIEW_COLUMNS], *more, dataset.target or "")


def _warnings(dataset: Dataset, classes: dict[str, int], columns: tuple[Column, ...]) -> Iterator[str]:
    yield from _warnings_of_classes(classes) if classes else _warnings_of_numbers(dataset.y)
    yield from _warnings_of_columns(dataset, columns)
    yield from _warnings_of_leaks(dataset)


def _warnings_of_numbers(y: np.ndarray) -> Iterator[str]:
    spread = spread_of(y)
    far = max(spread.high - spread.mean, spread.mean - spread.low) / spread.deviation
    if far > FAR:
        yield f"A target lies {far:.0f} standard deviations away from the mean. A few such samples may outweigh all others."


def _warnings_of_classes(classes: dict[str, int]) -> Iterator[str]:
    largest, smallest = max(classes, key=classes.__getitem__), min(classes, key=classes.__getitem__)
    ratio = classes[largest] / classes[smallest]
    if ratio > UNBALANCED:
        yield f"{largest!r:.60} has {ratio:.0f} times as many samples as {smallest!r:.60}. A model may hardly ever answer with the rare one."
    elif classes[smallest] < FEW_PER_CLASS:
        yield f"{smallest!r:.60} has {classes[smallest]} samples only. The model will know little of it, and its measures will be rough."


def _warnings_of_leaks(dataset: Dataset) -> Iterator[str]:
    keys = leaks.keys(dataset)
    repeated, torn = leaks.repeated(keys, dataset.y)
    if repeated > REPEATED * len(dataset):
        yield f"{repeated:,} samples repeat an earlier one. Where one of two is held out to measure with, the model looks better than it is."
    if torn > REPEATED * len(dataset):
        yield f"{torn:,} samples are there with more than one label. At most one of these can be right."
    near = leaks.nearly(dataset, keys)
    if near > REPEATED * len(dataset):
        yield f"{near:,} images or more are nearly the same as another one. Where one of two is held out to measure with, the model looks better than it is."
    telling = list(leaks.telling(dataset))
    if telling:
        yield f"Tells the target all by itself: {_listed(telling)}. If it is not known of a new sample, or was written down after the target was, leave it out."


def _warnings_of_columns(dataset: Dataset, columns: tuple[Column, ...]) -> Iterator[str]:
    told = [f"{name:.40} ({why})" for name, why in dataset.left_out if why not in (CHOSEN, GROUPS)]
    if told:
        yield f"Left out, the model learns nothing from it: {_listed(told, 120)}."
    gaps = [column.name for column in columns if column.missing > MOSTLY_MISSING * len(dataset)]
    if gaps:
        yield f"Missing in more than half of the rows: {_listed(gaps)}."
    same = [column.name for column in columns if column.kind == ALWAYS_THE_SAME]
    if same:
        yield f"The same in every row, so nothing can be learnt from it: {_listed(same)}."
    count = [
        column.name
        for index, column in enumerate(columns)
        if column.kind == "whole numbers" and _counts(column, dataset.x[:, index])
    ]
    if count:
        yield f"Looks like a row number, which says nothing about a new sample: {_listed(count)}. Better leave it out."


def _counts(column: Column, values: np.ndarray) -> bool:
    """Whether the values are numbers in a row, in any order."""
    if column.missing or column.low is None or column.high is None or column.high - column.low + 1 != len(values):
        return False
    return len(np.unique(values)) == len(values)


def _listed(names: list[str], width: int = 40) -> str:
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(name[:width] for name in names[:NAMED]) + more


def _row(dataset: Dataset, index: int) -> tuple[str, ...]:
    sample, label = dataset.x[index], label_of(dataset, index)
    if sample.ndim > 1:
        return (" x ".join(map(str, sample.shape)), f"mean {sample.mean():.3g}", label)
    cells = _shown(dataset, index) if dataset.raw else [f"{v:g}" for v in sample[:PREVIEW_COLUMNS]]
    return (*cells, *(["…"] if len(sample) > PREVIEW_COLUMNS else []), label)


def _shown(dataset: Dataset, index: int) -> list[str]:
    cells = cells_of(dataset, index)[:PREVIEW_COLUMNS]
    return [cell if len(cell) <= PREVIEW_CHARACTERS else f"{cell[:PREVIEW_CHARACTERS]}…" for cell in cells]


def label_of(dataset: Dataset, index: int) -> str:
    """A sample's target as text."""
    answer = dataset.y[index]
    if dataset.task == MULTILABEL:
        return "; ".join(dataset.classes[label] for label in np.flatnonzero(answer)) or "none"
    return f"{answer:.7g}" if dataset.task == REGRESSION else dataset.classes[answer]


def cells_of(dataset: Dataset, index: int) -> list[str]:
    """A raw row as text."""
    return [raw.text(value) for raw, value in zip(dataset.raw, dataset.x[index].tolist(), strict=True)]


def encode_labels(labels: Sequence[str], codes: np.ndarray) -> tuple[np.ndarray, tuple[str, ...]]:
    """Classes as (n,) int32 indices, and their names: numbers in their order, else by the alphabet. labels: the different ones; codes (n,):
    which of them each sample has.

    Whole numbers are one class however they are written ("1", "1.0"). Raises DatasetError for one class only, more than
    MAX_CLASSES, or a class with fewer than MIN_PER_CLASS samples.
    """
    names = sorted(labels)
    for name in names[:MAX_CLASSES]:
        check_text(name)
    numbers = [number for name in names if (number := _whole(name)) is not None]
    keys: list[Any] = numbers if len(numbers) == len(names) else list(names)
    found = {key: name for key, name in sorted(zip(keys, names, strict=True), key=lambda pair: pair[0])}
    if len(found) < len(names):
        found = {key: str(key) for key in found}
    place = {key: index for index, key in enumerate(found)}
    code = {name: place[key] for name, key in zip(names, keys, strict=True)}
    y = arrays.take(np.array([code[label] for label in labels], np.int32), codes)
    _check_classes(list(found.values()), arrays.counts(y, len(found)))
    return y, tuple(found.values())


def check_text(text: str) -> None:
    """Raises DatasetError for what neither a database nor a model can keep as text."""
    if "\0" in text or any("\ud800" <= character <= "\udfff" for character in text):
        raise DatasetError(f"{text!r:.80} is not readable text.")


def _whole(text: str) -> int | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return int(number) if number.is_integer() and abs(number) < 2**53 else None


def too_many_classes(count: int) -> DatasetError:
    return DatasetError(f"{count:,} classes are too many (at most {MAX_CLASSES:,}). Is it the right target?")


def _check_classes(names: Sequence[str], counts: np.ndarray) -> None:
    if len(names) == 1:
        raise DatasetError(f"All samples are of one class ({names[0]:.50}). There is nothing to tell apart.")
    if len(names) > MAX_CLASSES:
        raise too_many_classes(len(names))
    rarest = int(counts.argmin())
    if counts[rarest] < MIN_PER_CLASS:
        raise DatasetError(
            f"Class {names[rarest]:.50} has {counts[rarest]} of at least {MIN_PER_CLASS} samples. "
            "Add some, leave the class out, or choose another target."
        )


def check_finite(x: np.ndarray, gaps: bool = False) -> None:
    """Raises DatasetError, with the row's number from 1, if a float array holds an infinity or, unless gaps are allowed, a NaN."""
    if x.dtype.kind != "f":
        return
    for part in arrays.blocks(x):
        wrong = np.isinf(x[part]) if gaps else ~np.isfinite(x[part])
        if wrong.any():
            bad = part.start + int(wrong.reshape(len(wrong), -1).any(axis=1).argmax())
            raise DatasetError(f"Sample {bad + 1} holds a value that is missing, infinite or too large.")
