"""Arrays of any size. A large one lies in a file without a name, which the operating system keeps in memory as far as there is room, and
which is gone with the array. Pure NumPy."""

import math
import os
from collections.abc import Callable, Iterator
from tempfile import TemporaryFile

import numpy as np

LARGE = 32 << 20
"""Bytes from which on an array lies in a file."""
BLOCK = 4 << 20
"""Bytes that are worked on at once, about."""


def empty(shape: tuple[int, ...], dtype: np.typing.DTypeLike) -> np.ndarray:
    """As `np.empty`. Raises OSError if the disk is full: of a file that turns out too short later the process would die."""
    size = int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize
    if size < LARGE:
        return np.empty(shape, dtype)
    with TemporaryFile() as file:
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(file.fileno(), 0, size)
        else:  # macOS and Windows, where workers run
            file.truncate(size)
            file.flush()
        return np.memmap(file, dtype, "r+", shape=shape).view(np.ndarray)


class Rows:
    """Rows of an array, each block of them fetched, and made what it is to be, when it is asked for: what is read once or twice needs no file
    of its own. `make` gets some rows of `source` and gives as many of `shape` and `dtype`; `columns`: how to make some columns alone."""

    def __init__(
        self,
        source: "Array",
        indices: np.ndarray | None = None,
        make: Callable[[np.ndarray], np.ndarray] | None = None,
        shape: tuple[int, ...] | None = None,
        dtype: np.typing.DTypeLike = None,
        columns: Callable[[np.ndarray], "Rows"] | None = None,
    ) -> None:
        self._source, self._indices, self._make, self.columns = source, indices, make, columns
        rows = len(source) if indices is None else len(indices)
        self.shape, self.dtype = (
            (rows, *(source.shape[1:] if shape is None else shape)),
            np.dtype(dtype or source.dtype),
        )
        self.ndim, self.itemsize = len(self.shape), self.dtype.itemsize
        self.nbytes = math.prod(self.shape) * self.itemsize
        self.widest = _width(source)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, key: int | slice | np.ndarray) -> np.ndarray:
        if isinstance(key, int):
            one: np.ndarray = self[key : key + 1][0]
            return one
        found = fetched(self._source, key if self._indices is None else self._indices[key])
        return self._make(found).astype(self.dtype, copy=False) if self._make else found

    def __array__(self, dtype: np.typing.DTypeLike = None, copy: bool | None = None) -> np.ndarray:
        """All of it, in memory."""
        return np.asarray(self[:], dtype)


Array = np.ndarray | Rows


def settled(rows: Rows) -> Array:
    """Made at once, if that is little."""
    return np.asarray(rows) if rows.nbytes < LARGE else rows


def whole(x: Array) -> np.ndarray:
    """As `np.ascontiguousarray`; what is large lies in a file."""
    if x.nbytes < LARGE or (isinstance(x, np.ndarray) and x.flags.c_contiguous):
        return np.ascontiguousarray(x)
    found = Growing(x.shape[1:], x.dtype)
    for part in blocks(x):
        found.add(x[part])
    return found.done()


def blocks(x: Array) -> Iterator[slice]:
    """Slices of the first axis that cover x, of `BLOCK` bytes each."""
    step = max(1, BLOCK // max(1, _width(x)))
    return (slice(first, min(first + step, len(x))) for first in range(0, len(x), step))


def _width(x: "Array") -> int:
    """Bytes of a row, or of what it is made of."""
    return max(x.itemsize * math.prod(x.shape[1:]), x.widest if isinstance(x, Rows) else 0)


def columns(x: Array, wanted: np.ndarray) -> Rows:
    """Some columns of x (n, d); the others are not made, where that can be left out."""
    if isinstance(x, Rows) and x.columns:
        return x.columns(wanted)
    return Rows(x, None, lambda rows: rows.take(wanted, axis=1), (len(wanted),))


def fetched(x: Array, key: slice | np.ndarray) -> np.ndarray:
    """As `x[key]`, for whole numbers. Rows are fetched five times as fast by `np.take`."""
    return x.take(key, axis=0) if isinstance(x, np.ndarray) and isinstance(key, np.ndarray) else x[key]


def take(x: Array, indices: np.ndarray) -> np.ndarray:
    """As `x[indices]`, for whole numbers."""
    return whole(Rows(x, indices))


def counts(values: np.ndarray, size: int) -> np.ndarray:
    """(size,) int64: how often each of the numbers from 0 on is in values (n,)."""
    found = np.zeros(size, np.int64)
    for part in blocks(values):
        found += np.bincount(values[part], minlength=size)
    return found


def mapped(x: np.ndarray, function: Callable[[np.ndarray], np.ndarray], dtype: np.typing.DTypeLike) -> np.ndarray:
    """What the function makes of x, row by row (n,)."""
    return whole(Rows(x, None, function, (), dtype))


def every(x: np.ndarray, test: Callable[[np.ndarray], np.ndarray]) -> bool:
    """Whether all values pass."""
    return all(bool(test(x[part]).all()) for part in blocks(x))


def ordered(x: np.ndarray) -> np.ndarray:
    """uint32 in the same order as the float32 numbers in x, and equal where these are; no NaN."""
    bits = (x + np.float32(0)).view(np.uint32)  # -0 becomes 0
    return np.where(bits >> np.uint32(31), ~bits, bits | np.uint32(1 << 31))


def floats(bits: np.ndarray) -> np.ndarray:
    """The inverse of `ordered`."""
    return np.where(bits >> np.uint32(31), bits & np.uint32(~(1 << 31) & 0xFFFFFFFF), ~bits).view(np.float32)


class Growing:
    """Rows of unknown number, one block after another."""

    def __init__(self, shape: tuple[int, ...], dtype: np.typing.DTypeLike) -> None:
        """shape: of one row."""
        self._shape, self._dtype, self._rows = shape, np.dtype(dtype), 0
        self._file = TemporaryFile()  # noqa: SIM115 (done closes it, and so does being forgotten)

    def add(self, block: np.ndarray) -> None:
        """(n, *shape). Raises OSError if the disk is full."""
        self._file.write(np.ascontiguousarray(block, self._dtype).reshape(-1).view(np.uint8))
        self._rows += len(block)

    def done(self) -> np.ndarray:
        """All rows; the last call."""
        shape = (self._rows, *self._shape)
        with self._file as file:
            file.flush()
            if file.tell() < LARGE:
                file.seek(0)
                return np.frombuffer(bytearray(file.read()), self._dtype).reshape(shape)
            return np.memmap(file, self._dtype, "r+", shape=shape).view(np.ndarray)
