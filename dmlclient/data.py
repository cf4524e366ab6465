"""What a customer has, as a file to be sent: a path, a pandas DataFrame, or NumPy arrays."""

import io
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dmlclient.errors import DataError

TARGET = "target"
"""The column of y, where a table is given as x and y."""


@dataclass(frozen=True)
class Data:
    """A file's name and size, and its bytes, which are read as they are needed."""

    name: str
    size: int
    _source: Path | bytes = field(repr=False)

    def read(self, first: int, length: int) -> bytes:
        """Bytes from `first` on. Raises DataError if the file is no longer what it was."""
        if isinstance(self._source, bytes):
            return self._source[first : first + length]
        try:
            with self._source.open("rb") as file:
                file.seek(first)
                found = file.read(length)
        except OSError as error:
            raise DataError(f"Can't read {self._source}: {error.strerror}") from error
        if len(found) != min(length, self.size - first):
            raise DataError(f"{self._source} has changed meanwhile.")
        return found


def data_of(given: Any) -> Data:
    """A path (str or Path); a DataFrame, written as CSV; (x, y) arrays, written as NPZ; (DataFrame, y), as CSV with a column
    `target`. Raises DataError for anything else."""
    if isinstance(given, Data):
        return given
    if isinstance(given, str | Path):
        return _file(Path(given))
    if _is_table(given):
        return _csv(given)
    if isinstance(given, tuple) and len(given) == 2:
        x, y = given
        return _csv(_joined(x, y)) if _is_table(x) else _npz(x, y)
    raise DataError("Give a path, a DataFrame, or a tuple (x, y) of arrays.")


def _file(path: Path) -> Data:
    try:
        if not path.is_file():
            raise DataError(f"{path} is no file.")
        return Data(path.name, path.stat().st_size, path)
    except OSError as error:
        raise DataError(f"Can't read {path}: {error.strerror}") from error


def _is_table(given: Any) -> bool:
    return hasattr(given, "to_csv") and hasattr(given, "columns")


def _joined(table: Any, y: Any) -> Any:
    if TARGET in table.columns:
        raise DataError(f"The table has a column {TARGET} already: give it alone, and say target=…")
    return table.assign(**{TARGET: getattr(y, "to_numpy", lambda: y)()})


def _csv(table: Any) -> Data:
    return _kept("data.csv", table.to_csv(index=False).encode())


def _npz(x: Any, y: Any) -> Data:
    """Compressed: it is cheaper."""
    import numpy as np

    arrays: dict[str, Any] = {"x": np.asarray(x), "y": np.asarray(y)}
    for name, array in arrays.items():
        if array.dtype == object:  # would need pickle, which is not taken
            raise DataError(f"{name} holds Python objects. Give numbers{' or texts of one type' * (name == 'y')}.")
    if arrays["x"].shape[:1] != arrays["y"].shape[:1]:
        raise DataError(f"x and y differ in length: {arrays['x'].shape} and {arrays['y'].shape}.")
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    return _kept("data.npz", buffer.getvalue())


def _kept(name: str, content: bytes) -> Data:
    return Data(name, len(content), content)
