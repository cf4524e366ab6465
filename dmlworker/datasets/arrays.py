"""Arrays of any size. A large one lies in a file without a name, which the operating system keeps in memory as far as there is room, and
which is gone with the array. Pure NumPy."""

import os
from collections.abc import Iterator
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
        os.posix_fallocate(file.fileno(), 0, size)
        return np.memmap(file, dtype, "r+", shape=shape).view(np.ndarray)


def blocks(x: np.ndarray) -> Iterator[slice]:
    """Slices of the first axis that cover x, of `BLOCK` bytes each."""
    rows = max(1, BLOCK // max(1, x[:1].nbytes))
    return (slice(first, min(first + rows, len(x))) for first in range(0, len(x), rows))


def take(x: np.ndarray, indices: np.ndarray) -> np.ndarray:
    """As `x[indices]`, for whole numbers."""
    found = empty((len(indices), *x.shape[1:]), x.dtype)
    for part in blocks(found):
        found[part] = x[indices[part]]
    return found


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
