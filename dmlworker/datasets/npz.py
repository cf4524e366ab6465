"""NumPy archives with arrays `x` and `y`, read without pickle."""

import zipfile
from pathlib import Path
from typing import IO

import numpy as np
from numpy.lib import format as npy

from dmlworker.datasets import archive, arrays, targets
from dmlworker.datasets.dataset import Dataset, DatasetError, check_finite
from dmlworker.datasets.options import PLAIN, Options
from dmlworker.task import AUTO, MULTILABEL

MAX_ARRAY = 10**10
"""Bytes in one array, at most; it lies in a file."""
MAX_FEATURES = 1_000_000
"""Values in one sample, at most."""


def read(path: Path, target: str | None, options: Options = PLAIN) -> Dataset:
    """x (n, d), (n, h, w) or (n, h, w, c): uint8 stays, all else becomes float32. y: one label, number or text, a sample; or (n, k) of 0 and
    1, a column for each of several labels; or of classes, if every sample has exactly one.

    `target` has no meaning here and is ignored, and of the options all but the task. Raises DatasetError.
    """
    with archive.opened(path, "NPZ", MAX_ARRAY) as file:
        x, y = _array(file, "x"), _array(file, "y")
    if len(x) != len(y):
        raise DatasetError(f"x has {len(x):,} samples, but y has {len(y):,} labels.")
    x = _features(x)
    check_finite(x)
    several = _is_marks(y)
    if several and options.task != MULTILABEL and (y.sum(axis=1) == 1).all():
        y, several = y.argmax(axis=1), False  # one-hot: exactly one of the classes each
    found = targets.marks(y) if several and options.task in (AUTO, MULTILABEL) else targets.of(_labels(y), options.task)
    return Dataset(x, found.y, found.classes, (), "npz", task=found.task)


def _array(file: zipfile.ZipFile, name: str) -> np.ndarray:
    names = file.namelist()
    if f"{name}.npy" not in names:
        found = ", ".join(sorted(entry.removesuffix(".npy") for entry in names)[:20])
        raise DatasetError(f"The NPZ file has no array {name}; it must hold x and y. Found: {found:.200}.")
    entry = file.getinfo(f"{name}.npy")
    try:
        with file.open(entry) as stream:
            return _content(stream, *_checked_header(stream, name, entry.file_size))
    except (ValueError, TypeError, SyntaxError, MemoryError, OverflowError) as error:
        raise error if isinstance(error, DatasetError) else _broken(name) from None


def _broken(name: str) -> DatasetError:
    return DatasetError(f"The array {name} in the NPZ file is broken.")


def _content(stream: IO[bytes], shape: tuple[int, ...], by_columns: bool, dtype: np.dtype) -> np.ndarray:
    """A large array lies in a file."""
    found = arrays.empty(shape[::-1] if by_columns else shape, dtype)
    letters = found.reshape(-1).view(np.uint8)
    for part in arrays.blocks(letters):
        data = stream.read(part.stop - part.start)
        if len(data) < part.stop - part.start:
            raise ValueError("it ends too soon")
        letters[part] = np.frombuffer(data, np.uint8)
    return found.transpose() if by_columns else found


def _checked_header(stream: IO[bytes], name: str, size: int) -> tuple[tuple[int, ...], bool, np.dtype]:
    """(shape, whether it lies column by column, type). Refuses pickles, and a shape larger than the bytes that follow: the place for it would be
    set aside unseen."""
    version = npy.read_magic(stream)
    if version not in ((1, 0), (2, 0)):
        raise _broken(name)
    header = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
    shape, by_columns, dtype = header(stream)
    if dtype.hasobject:
        raise DatasetError(f"The array {name} holds pickled Python objects. Save numbers or text instead.")
    if not shape or any(side < 1 for side in shape):
        raise DatasetError(f"The array {name} is empty.")
    count = 1
    for side in shape:
        count *= side
    if not 0 < count * dtype.itemsize <= size:
        raise _broken(name)
    return shape, by_columns, dtype


def _features(x: np.ndarray) -> np.ndarray:
    if x.dtype.kind not in "uifb":
        raise DatasetError("The array x must hold numbers.")
    if x.ndim not in (2, 3, 4) or (x.ndim == 4 and x.shape[3] > 4):
        raise DatasetError(f"The array x has the shape {x.shape}. It must be (n, d), (n, h, w) or (n, h, w, channels).")
    if x[0].size > MAX_FEATURES:
        raise DatasetError(f"{x[0].size:,} values in a sample are too many (at most {MAX_FEATURES:,}).")
    wanted = np.uint8 if x.dtype == np.uint8 or _is_picture(x) else np.float32
    with np.errstate(over="ignore"):
        return arrays.whole(x if x.dtype == wanted else arrays.Rows(x, None, lambda some: some, x.shape[1:], wanted))


def _is_picture(x: np.ndarray) -> bool:
    """Grey values that were saved as wider integers."""
    return x.ndim > 2 and x.dtype.kind in "ui" and int(x.min()) >= 0 and 1 < int(x.max()) <= 255


def _is_marks(y: np.ndarray) -> bool:
    return (
        y.ndim == 2
        and y.shape[1] > 1
        and y.dtype.kind in "iubf"
        and arrays.every(y, lambda some: (some == 0) | (some == 1))
    )


def _labels(y: np.ndarray) -> targets.Labels:
    y = y[:, 0] if y.ndim == 2 and y.shape[1] == 1 else y
    if y.ndim != 1:
        raise DatasetError(
            f"The array y has the shape {y.shape}. It must hold one label for each sample, or 0 and 1 for each of several."
        )
    if y.dtype.kind not in "iubfU":
        raise DatasetError("The array y must hold numbers or text.")
    if y.dtype.kind == "f" and not np.isfinite(y).all():
        raise DatasetError("The array y holds a label that is missing.")
    if y.dtype.kind == "b" or (y.dtype.kind == "f" and np.array_equal(y, np.trunc(y)) and np.abs(y).max() < 2**53):
        y = y.astype(np.int64)
    found = targets.Labels()
    for part in arrays.blocks(y):
        different, codes = np.unique(y[part], return_inverse=True)
        found.add([str(label) for label in different.tolist()], codes)
    return found
