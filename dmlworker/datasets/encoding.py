"""A table's columns as they were written, made into numbers. What that takes is learnt from the training part alone. Pure NumPy.

    train, holdout = split(dataset, seed)
    encoder = Encoder.fit(train)
    train, holdout = encoder.encode(train), encoder.encode(holdout)

A number stays, the median where it is missing. A category becomes a column for each frequent value, after one for all others. A
date becomes its parts. Where something was missing in the training part, a column says so. A text becomes a column for each of its
frequent words; where there is nothing but text, the numbers of its words in their order.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import accumulate
from typing import Any

import numpy as np

from dmlworker.datasets import arrays, dates, text
from dmlworker.datasets.dataset import Dataset, DatasetError, Raw
from dmlworker.datasets.kinds import is_missing
from dmlworker.zoo import KINDS, OWN

MAX_CATEGORIES = 100
"""Values of a category that get a column of their own."""
RARE = 1000
"""A value gets one if at least one row in so many has it, and two have."""
MAX_CELLS = 8_000_000_000
"""Numbers that all rows may become, together: 32 GB in the shards. They are made a block at a time; what bounds them is the disk, and the
time, 2 s for each GB."""


@dataclass(frozen=True)
class Feature:
    """What becomes of a raw column. kind: as of `Raw`; a text is "text", a column for each word, or "tokens", their numbers in order.
    missing: whether any value was, in the training part. fill: the median, for numbers and dates. values: those of a category that count,
    or a text's words. form: of a date. timed: whether its hour counts. split: how a text is cut (text.py). length: tokens that count."""

    name: str
    kind: str
    missing: bool
    fill: float = 0.0
    values: tuple[str, ...] = ()
    form: str = ""
    timed: bool = False
    split: str = ""
    length: int = 0

    @property
    def vocabulary(self) -> tuple[str, ...]:
        """The values that have a column, "" for what is missing; the first column is that of all others."""
        return (*self.values, "") if self.missing else self.values

    @property
    def parts(self) -> int:
        """How many of `dates.PARTS` count."""
        return len(dates.PARTS) - (not self.timed)

    @property
    def marks(self) -> list[bool]:
        """For each of its encoded columns, whether it is a mere 0 or 1."""
        if self.kind == "tokens":
            return [False] * self.length
        if self.kind == "text":
            return [True] * (1 + len(self.values))
        if self.kind == "category":
            return [True] * (1 + len(self.vocabulary))
        return [False] * (self.parts if self.kind == "date" else 1) + [True] * self.missing

    def encode(self, column: np.ndarray, values: Sequence[str], out: np.ndarray) -> None:
        """Write into `out` (n, width) float32, uint16 of tokens, all 0, what a raw column (n,) becomes; values: what its numbers mean, if it is
        a category or text."""
        gone = np.isnan(column)
        if self.kind in ("text", "tokens"):
            out[:] = self._words(np.where(gone, -1, column).astype(np.int64), values)
        elif self.kind == "category":
            self._mark(column, gone, values, out)
        else:
            known = np.where(gone, np.float32(self.fill), column)
            parts = self.parts if self.kind == "date" else 1
            out[:, :parts] = dates.parts(known)[:, :parts] if self.kind == "date" else known[:, None]
            if self.missing:
                out[:, parts] = gone

    def _words(self, codes: np.ndarray, values: Sequence[str]) -> np.ndarray:
        """codes: -1 for an empty text."""
        known = text.Vocabulary(self.values, self.split)
        different, places = np.unique(codes, return_inverse=True)
        texts = ["" if code < 0 else values[code] for code in different]
        rows = [known.ids(each, self.length) if self.length else known.marks(each) for each in texts]
        return np.stack(rows)[places]

    def _mark(self, column: np.ndarray, gone: np.ndarray, values: Sequence[str], out: np.ndarray) -> None:
        place = {value: number for number, value in enumerate(self.vocabulary, 1)}
        marked = np.array([place.get(value, 0) for value in values] + [place.get("", 0)])
        places = marked.take(np.where(gone, len(values), column).astype(np.int64))
        out[np.arange(len(out)), places] = 1

    def cell(self, text: str) -> tuple[float, str]:
        """(the raw number, what it means if this is a category or text) of one cell. Raises DatasetError, with what is wrong."""
        text = text.strip()
        if self.kind in ("text", "tokens"):
            return 0.0, text
        if is_missing(text):
            if not self.missing:
                raise DatasetError(f"{self.name:.80}: nothing was ever missing here.")
            return math.nan, ""
        if self.kind == "category":
            return 0.0, text
        found = dates.hours(text, self.form) if self.kind == "date" else number(text)
        if found is None:
            asked = f"no date, {self.form}" if self.kind == "date" else "no number"
            raise DatasetError(f"{self.name:.80}: {text:.40} is {asked}.")
        return float(found), ""


def number(text: str) -> float | None:
    """A number that float32 can hold, or None."""
    try:
        found = float(text)
    except ValueError:
        return None
    return found if abs(found) < float(np.finfo(np.float32).max) else None


@dataclass(frozen=True)
class Encoder:
    """What becomes of each raw column, in their order. steps: rows that are one sample; 0: each is one."""

    features: tuple[Feature, ...]
    steps: int = 0

    @classmethod
    def fit(cls, train: Dataset, rows: int | None = None) -> "Encoder":
        """Learnt from a training part as it was read. Raises DatasetError if too much would come of it. rows: of any part that has so many,
        no more columns come than these."""
        alone = len(train.raw) == 1
        found = cls(
            tuple(_fit(raw, train.x[:, index], rows or len(train), alone) for index, raw in enumerate(train.raw))
        )
        if len(train) * len(found.marks) > MAX_CELLS:
            raise DatasetError(
                f"The columns become {len(found.marks):,} numbers a row, as each value of a category has its own: "
                f"more than {MAX_CELLS / 1e6:g} million in all. Leave out columns with many values."
            )
        return found

    @property
    def marks(self) -> np.ndarray:
        """For each encoded column, whether it is a mere 0 or 1."""
        return np.asarray([mark for feature in self.features for mark in feature.marks])

    @property
    def inputs(self) -> list[str]:
        """What the exported model's inputs are called: as the columns, but "/" is not allowed, and some names are its own."""
        found: list[str] = []
        taken = {"raw", "preprocessing", OWN, *KINDS}
        for feature in self.features:
            name = feature.name.replace("/", "_")
            while name in taken:
                name += "_"
            found.append(name)
            taken.add(name)
        return found

    @property
    def tokens(self) -> int:
        """How many there are, if all is numbers of tokens, with those for nothing and for unknown ones; else 0."""
        [first, *_] = self.features
        return len(first.values) + text.UNKNOWN + 1 if first.kind == "tokens" else 0

    def encode(self, dataset: Dataset) -> Dataset:
        """The same samples, x (n, width) float32, or uint16 of tokens."""
        values, dtype = [raw.values for raw in dataset.raw], np.uint16 if self.tokens else np.float32

        def columns(wanted: np.ndarray) -> arrays.Rows:
            make = partial(self._columns, values=values, wanted=wanted)
            return arrays.Rows(dataset.x, None, make, (len(wanted),), dtype)

        make = partial(self._encode, values=values)
        rows = arrays.Rows(dataset.x, None, make, (len(self.marks),), dtype, columns)
        slow = any(feature.kind in ("text", "tokens") for feature in self.features)
        return replace(dataset, x=arrays.whole(rows) if slow else arrays.settled(rows), raw=())

    def row(self, cells: Sequence[str]) -> np.ndarray:
        """A row of text, x (width,). Raises DatasetError, with what is wrong."""
        found = [feature.cell(cell) for feature, cell in zip(self.features, cells, strict=True)]
        x = np.array([[value for value, _ in found]], np.float32)
        encoded: np.ndarray = self._encode(x, [[meaning] for _, meaning in found])[0]
        return encoded

    def _encode(self, x: np.ndarray, values: Sequence[Sequence[str]]) -> np.ndarray:
        widths = [len(feature.marks) for feature in self.features]
        encoded = np.zeros((len(x), sum(widths)), np.uint16 if self.tokens else np.float32)
        for index, (feature, last) in enumerate(zip(self.features, accumulate(widths), strict=True)):
            feature.encode(x[:, index], values[index], encoded[:, last - widths[index] : last])
        return encoded

    def _columns(self, x: np.ndarray, values: Sequence[Sequence[str]], wanted: np.ndarray) -> np.ndarray:
        """Some columns of `_encode`, sorted; features that have none of them are left out."""
        owner = np.repeat(np.arange(len(self.features)), [len(feature.marks) for feature in self.features])
        needed = np.unique(owner[wanted])
        part = Encoder(tuple(self.features[index] for index in needed))
        made = part._encode(x[:, needed], [values[index] for index in needed])
        found: np.ndarray = made.take(np.searchsorted(np.flatnonzero(np.isin(owner, needed)), wanted), axis=1)
        return found

    def json(self) -> list[dict[str, Any]]:
        """As plain JSON types."""
        return [asdict(feature) | {"values": list(feature.values)} for feature in self.features]

    @classmethod
    def from_json(cls, data: Sequence[Mapping[str, Any]], steps: int = 0) -> "Encoder":
        return cls(tuple(Feature(**{**each, "values": tuple(each["values"])}) for each in data), steps)


def encoded(train: Dataset, holdout: Dataset) -> tuple[Dataset, Dataset, Encoder | None]:
    """Both parts as numbers, and how; a table that is all numbers, arrays and images stay as they are, with no encoder."""
    if not train.raw:
        return train, holdout, None
    encoder = Encoder.fit(train)
    return encoder.encode(train), encoder.encode(holdout), encoder


def _fit(raw: Raw, column: np.ndarray, rows: int, alone: bool) -> Feature:
    """alone: there is no other column."""
    if raw.kind in ("category", "text"):
        counts = _counted(column, len(raw.values))
        gaps = len(column) - int(counts.sum())
        if raw.kind == "text":
            return _fit_text(raw, counts, rows, rows - gaps, alone)
        return Feature(raw.name, raw.kind, gaps > 0, values=_frequent(raw.values, counts, rows))
    known = _known(column)
    missing, fill = len(known) < len(column), _median(known)
    if raw.kind == "date":
        timed = not arrays.every(known, lambda hours: hours % 24 == 0)
        return Feature(raw.name, raw.kind, missing, float(math.floor(fill)), form=raw.form, timed=timed)
    return Feature(raw.name, raw.kind, missing, fill)


def _known(column: np.ndarray) -> np.ndarray:
    """A copy without what is missing."""
    found = arrays.Growing((), np.float32)
    for part in arrays.blocks(column):
        found.add(column[part][~np.isnan(column[part])])
    return found.done()


def _median(known: np.ndarray) -> float:
    """0 of nothing. Changes the order."""
    if not len(known):
        return 0.0
    middle = ((len(known) - 1) // 2, len(known) // 2)
    known.partition(middle)
    return (float(known[middle[0]]) + float(known[middle[1]])) / 2


def _counted(column: np.ndarray, size: int) -> np.ndarray:
    """How often each of the values is there."""
    found = np.zeros(size, np.int64)
    for part in arrays.blocks(column):
        some = column[part]
        found += np.bincount(some[~np.isnan(some)].astype(np.int64), minlength=size)
    return found


def _fit_text(raw: Raw, counts: np.ndarray, rows: int, least: int, alone: bool) -> Feature:
    """counts: of each of the values; least: texts that any part of so many rows has."""
    different = np.flatnonzero(counts)
    texts, times = [raw.values[code] for code in different], counts[different]
    split, counted = text.way_of(texts), zip(texts, times.tolist(), strict=True)
    if not alone:
        words = text.frequent(counted, split, text.MAX_WORDS, max(text.RARE, rows / RARE))
        return Feature(raw.name, "text", False, values=words, split=split)
    words = text.frequent(counted, split, text.MAX_TOKENS)
    lengths = np.array([min(text.MAX_LENGTH, len(text.tokens(each, split))) for each in texts] or [1], np.uint16)
    # A part may have the longest ones: of fewer texts, fewer are cut.
    length = text.length_of(np.sort(np.repeat(lengths, times) if len(times) else lengths)[-max(1, least) :])
    return Feature(raw.name, "tokens", False, values=words, split=split, length=length)


def _frequent(values: Sequence[str], counts: np.ndarray, rows: int) -> tuple[str, ...]:
    """The values that count, by the alphabet; at least the most frequent one."""
    ranked = sorted(range(len(values)), key=lambda code: (-counts[code], values[code]))
    enough = max(2, rows / RARE)
    kept = [code for code in ranked[:MAX_CATEGORIES] if counts[code] >= enough]
    return tuple(sorted(values[code] for code in kept or ranked[:1]))
