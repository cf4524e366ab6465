"""What makes a model look better than it is: samples that are there twice, and columns that say the answer."""

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from dmlworker.datasets import arrays

if TYPE_CHECKING:
    from dmlworker.datasets.dataset import Dataset

MIN_SAMPLES = 50
"""Of fewer, a column may part the classes by chance."""
MOST_COMPARED = 1 << 20
"""Samples that are looked for in others."""
MOST_SAMPLES = 20_000
"""That columns are looked at by."""
MOST_COLUMNS = 1000
PURE = 0.999
"""Of the samples, that a column tells."""
_NEIGHBOURS = 16
_GRID = 8
_COARSE, _FINE = 3.0, 4.0
"""Grey values of 255 that two images may differ by: the most of any field of a grid, and on average of all pixels."""


def keys(dataset: "Dataset", part: int = 1) -> np.ndarray:
    """(n,) uint64, equal for samples that are equal, the label aside; but for hashes that are equal by chance. part: only those that it
    divides, which are one of so many, and the same ones wherever a sample is."""
    x = dataset.x
    random = np.random.Generator(np.random.PCG64(0))
    factors = 2 * random.integers(0, 2**63, math.prod(x.shape[1:]), dtype=np.uint64) + np.uint64(1)
    found = [np.empty(0, np.uint64)]
    for rows in arrays.blocks(x):
        hashes = _hashes(np.ascontiguousarray(x[rows]).reshape(rows.stop - rows.start, -1), factors)
        found.append(hashes[hashes % np.uint64(part) == 0])
    return np.concatenate(found)


def _hashes(values: np.ndarray, factors: np.ndarray) -> np.ndarray:
    """(n,) uint64: the sum of each row's bits, value by value, times odd numbers; mixed, so that the last bits depend on all."""
    bits = values.view(np.uint32) if values.dtype == np.float32 else values
    found = np.zeros(len(bits), np.uint64)
    for column, factor in zip(bits.T, factors, strict=True):
        found += column * factor
    found ^= found >> np.uint64(29)
    found *= np.uint64(0xBF58476D1CE4E5B9)
    return found ^ (found >> np.uint64(32))


def repeated(found: np.ndarray, y: np.ndarray) -> tuple[int, int]:
    """(samples that repeat an earlier one, samples that are there with more than one label)."""
    _, places, counts = np.unique(found, return_inverse=True, return_counts=True)
    if y.ndim != 1:
        return len(found) - len(counts), 0
    low, high = np.full(len(counts), np.inf), np.full(len(counts), -np.inf)
    np.minimum.at(low, places, y)
    np.maximum.at(high, places, y)
    return len(found) - len(counts), int(counts[low < high].sum())


def on_both_sides(train: "Dataset", holdout: "Dataset") -> int:
    """Samples held out that are in the training part, too, with this label or another one; of very many, an estimate."""
    part = 1 << max(0, (len(train) // MOST_COMPARED).bit_length())
    return part * int(np.isin(keys(holdout, part), keys(train, part)).sum())


def nearly(dataset: "Dataset", found: np.ndarray) -> int:
    """Images that are nearly another one, as when it was saved again: some pairs may be missed, as only neighbours in an order by brightness
    along some directions are compared. `found`: the `keys`; what is equal does not count."""
    x = dataset.x
    if x.ndim < 3 or min(x.shape[1:3]) < 2 * _GRID or x.dtype != np.uint8:
        return 0
    grid = _grid(x)
    near = np.zeros(len(x), bool)
    random = np.random.Generator(np.random.PCG64(1))
    for _ in range(2):
        direction: np.ndarray = random.normal(size=grid.shape[1:])
        order = np.argsort(grid @ direction.astype(np.float32), kind="stable")
        for step in range(1, min(_NEIGHBOURS, len(x) - 1) + 1):
            a, b = order[:-step], order[step:]
            alike = (np.abs(grid[a] - grid[b]).max(axis=1) <= _COARSE) & (found[a] != found[b])
            for one, other in zip(a[alike], b[alike], strict=True):
                near[max(one, other)] |= np.abs(x[one].astype(np.float32) - x[other]).mean() <= _FINE
    return int(near.sum())


def _grid(x: np.ndarray) -> np.ndarray:
    """(n, fields) float32: the mean grey value of each field."""
    rows, columns = (np.arange(_GRID) * side // _GRID for side in x.shape[1:3])
    heights, widths = (np.diff([*edges, side]) for edges, side in zip((rows, columns), x.shape[1:3], strict=True))
    parts = []
    for some in arrays.blocks(x):
        part = x[some].astype(np.float32)
        part = part.mean(axis=3) if part.ndim == 4 else part
        sums = np.add.reduceat(np.add.reduceat(part, rows, axis=1), columns, axis=2)
        parts.append((sums / np.outer(heights, widths)).reshape(len(part), -1))
    return np.concatenate(parts)


def telling(dataset: "Dataset") -> Iterator[str]:
    """The names of columns that say by themselves what the target is."""
    if len(dataset) < MIN_SAMPLES or dataset.y.ndim != 1:
        return
    rows = (
        np.unique(np.linspace(0, len(dataset) - 1, MOST_SAMPLES).astype(np.int64))
        if len(dataset) > MOST_SAMPLES
        else slice(None)
    )
    y = dataset.y[rows]
    for index, name in enumerate(dataset.features[:MOST_COLUMNS]):
        column = dataset.x[rows, index].astype(np.float64)
        kind = dataset.raw[index].kind if dataset.raw else "number"
        if _tells(np.where(np.isnan(column), -1, column) if kind == "category" else column, y, kind):
            yield name


def _tells(column: np.ndarray, y: np.ndarray, kind: str) -> bool:
    if kind == "text":
        return False
    if y.dtype.kind == "f":
        return kind == "number" and bool(np.array_equal(column, y))
    classes = len(np.unique(y))
    if kind == "category":
        return _pure(column, y) and 10 * len(np.unique(column)) <= len(y)
    return _parts(column, y) == classes > 1


def _pure(column: np.ndarray, y: np.ndarray) -> bool:
    """Whether nearly every value goes with one class."""
    pairs, counts = np.unique(np.stack([column, y.astype(np.float64)]), axis=1, return_counts=True)
    starts = np.flatnonzero(np.r_[True, np.diff(pairs[0]) != 0])
    return bool(np.maximum.reduceat(counts, starts).sum() >= PURE * len(y))


def _parts(column: np.ndarray, y: np.ndarray) -> int:
    """How many stretches of one class there are along the column's values; 0 if a value is missing, or goes with two classes."""
    order = np.lexsort([y, column])
    values, labels = column[order], y[order]
    changes = labels[1:] != labels[:-1]
    if np.isnan(column).any() or (changes & (values[1:] == values[:-1])).any():
        return 0
    return 1 + int(changes.sum())
