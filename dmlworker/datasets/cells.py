"""Some rows of a table at a time, column by column, as text without space around it. From rows of text, or from a CSV file by pyarrow, which
is ten times as fast; without pyarrow, and where the two might differ, the rows are what counts."""

import io
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from dmlworker.datasets import steps
from dmlworker.datasets.dataset import DatasetError

Row = tuple[int, list[str]]
"""The number of the line on which a row ends, and its cells."""
CHUNK_ROWS = 4096
_BLOCK = 4 << 20
"""Bytes of a CSV file that become a block."""
_ODD = re.compile(rb'(?:^|[,;\t|\r\n]) +"')
"""A quote after a space: Python's reader lets it begin a value, Arrow's does not."""


class Unclear(Exception):
    """This is not to be read fast: something is wrong with it, and only the rows tell what, and in which line."""


class Cells(Protocol):
    """A column of some rows."""

    def texts(self) -> Sequence[str]:
        """Every cell."""

    def numbers(self) -> np.ndarray | None:
        """(n,) float64 if every cell is a number, NaN among them; else None."""

    def gapped(self, missing: frozenset[str]) -> np.ndarray | None:
        """(n,) float64, NaN where a cell, its sign and capitals aside, is one of these, if all others are numbers; else None."""

    def distinct(self) -> tuple[Sequence[str], np.ndarray]:
        """The different cells, in the order of their first appearance, and (n,) which of them each is."""


@dataclass(frozen=True)
class Block:
    """Some rows. lines: where each of them ends, or None if nobody counted."""

    columns: Sequence[Cells]
    rows: int
    lines: Sequence[int] | None = None

    def line(self, row: int) -> int:
        """For people. Raises Unclear."""
        if self.lines is None:
            raise Unclear
        return self.lines[row]


Blocks = Callable[[], Iterator[Block]]
"""A table, from its first row at every call."""


class Texts:
    """Cells as Python has them."""

    def __init__(self, cells: Sequence[str]) -> None:
        self._cells = cells

    def texts(self) -> Sequence[str]:
        return self._cells

    def numbers(self) -> np.ndarray | None:
        try:
            return np.array(self._cells, np.float64)
        except ValueError:
            return None

    def gapped(self, missing: frozenset[str]) -> np.ndarray | None:
        if (found := self.numbers()) is not None:
            return found
        return Texts(["nan" if cell.lower().lstrip("+-") in missing else cell for cell in self._cells]).numbers()

    def distinct(self) -> tuple[Sequence[str], np.ndarray]:
        place: dict[str, int] = {}
        codes = [place.setdefault(cell, len(place)) for cell in self._cells]
        return list(place), np.array(codes, np.int64)


def of_rows(rows: Iterator[Row], columns: int) -> Iterator[Block]:
    """Raises DatasetError for a row with more cells, or fewer."""
    while chunk := list(islice(rows, CHUNK_ROWS)):
        for line, cells in chunk:
            if len(cells) != columns:
                raise DatasetError(f"Line {line} has {len(cells)} values, but there are {columns} columns.")
        parts = zip(*(cells for _, cells in chunk), strict=True)
        yield Block([Texts(part) for part in parts], len(chunk), [line for line, _ in chunk])


# --- Fast -------------------------------------------------------------------------------------------------------------
class _Arrow:
    """Cells as pyarrow has them."""

    def __init__(self, array: Any) -> None:
        self._array = array

    def texts(self) -> Sequence[str]:
        found: list[str] = self._array.to_pylist()
        return found

    def numbers(self) -> np.ndarray | None:
        found = _floats(self._array)
        return self._slowly(Texts.numbers) if found is None else found

    def gapped(self, missing: frozenset[str]) -> np.ndarray | None:
        import pyarrow as pa
        from pyarrow import compute

        nothing = _empty(self._array)  # looked for first: Arrow goes on to the end where a cell is no number
        found = _floats(_without(self._array, nothing) if nothing.any() else self._array)
        if found is None:
            bare = compute.utf8_ltrim(compute.utf8_lower(self._array), characters="+-")
            gone = compute.is_in(bare, value_set=pa.array(sorted(missing)))
            found = _floats(compute.if_else(gone, None, self._array))
        return self._slowly(lambda cells: cells.gapped(missing)) if found is None else found

    def _slowly(self, numbers: Callable[[Texts], np.ndarray | None]) -> np.ndarray | None:
        """Python knows more ways to write a number."""
        names, codes = self.distinct()
        found = numbers(Texts(names))
        return None if found is None else found[codes]

    def distinct(self) -> tuple[Sequence[str], np.ndarray]:
        return self._encoded

    @cached_property
    def _encoded(self) -> tuple[Sequence[str], np.ndarray]:
        found = self._array.dictionary_encode()
        return found.dictionary.to_pylist(), np.asarray(found.indices, np.int64)


def _floats(array: Any) -> np.ndarray | None:
    """(n,) float64, NaN for null; None if there is anything else than numbers."""
    import pyarrow as pa

    try:
        return np.asarray(array.cast(pa.float64()))
    except pa.ArrowInvalid:
        return None


def of_csv(path: Path, delimiter: str, columns: int, skip: int) -> Iterator[Block]:
    """The rows of a CSV file in UTF-8 but for the first `skip`, as Python's reader would give them. Raises Unclear where it can't promise
    that, and where pyarrow is not installed."""
    try:
        import pyarrow as pa
        from pyarrow import csv
    except ImportError:
        raise Unclear from None
    names = [str(number) for number in range(columns)]
    how = {
        "read_options": csv.ReadOptions(use_threads=False, block_size=_BLOCK, column_names=names),
        "parse_options": csv.ParseOptions(delimiter=delimiter, newlines_in_values=True),
        "convert_options": csv.ConvertOptions(column_types=dict.fromkeys(names, pa.string())),
    }
    try:
        with _Watched(path) as file, csv.open_csv(pa.PythonFile(file, mode="r"), **how) as reader:
            for batch in reader:
                steps.tell(file.done, file.size)
                filled = _filled(batch.columns)
                rows, first = len(filled[0]), min(skip, len(filled[0]))
                skip -= first
                yield Block([_Arrow(column.slice(first)) for column in filled], rows - first)
    except pa.ArrowException:
        raise Unclear from None


def _filled(columns: list[Any]) -> list[Any]:
    """Without space around the cells, and without rows of nothing."""
    from pyarrow import compute

    columns = [compute.utf8_trim_whitespace(column) if _spaced(column) else column for column in columns]
    nothing = _empty(columns[0])
    for column in columns[1:] if nothing.any() else ():
        nothing &= _empty(column)
    return [column.filter(~nothing) for column in columns] if nothing.any() else columns


def _begins(column: Any) -> np.ndarray:
    """(n + 1,): where each cell of a column of text without nulls begins, and the last one ends. A tenth of the time that Arrow's own functions
    for text take."""
    return np.frombuffer(column.buffers()[1], np.int32)[column.offset : column.offset + len(column) + 1]


def _empty(column: Any) -> np.ndarray:
    begins = _begins(column)
    found: np.ndarray = begins[1:] == begins[:-1]
    return found


def _spaced(column: Any) -> bool:
    """Whether there may be space around a cell."""
    begins, text = _begins(column), column.buffers()[2]
    if begins[0] == begins[-1]:
        return False
    letters = np.frombuffer(text, np.uint8)
    # Of an empty cell these are letters of its neighbours.
    edges = letters[begins[:-1].clip(max=len(letters) - 1)], letters[begins[1:] - 1]
    return any(each.min() <= ord(" ") or each.max() >= 0x80 for each in edges)


def _without(column: Any, gone: np.ndarray) -> Any:
    """The same column of text, null where something is gone; its text is not copied."""
    import pyarrow as pa

    _, begins, text = column.buffers()
    known = np.packbits(np.concatenate([np.ones(column.offset, bool), ~gone]), bitorder="little")
    return pa.StringArray.from_buffers(len(column), begins, text, pa.py_buffer(known), -1, column.offset)


class _Watched:
    """A file to be read, which must not hold what the two readers take in different ways. Raises Unclear."""

    def __init__(self, path: Path) -> None:
        self._file, self._tail = path.open("rb"), b"\n"
        self.closed = False
        self.done, self.size = 0, path.stat().st_size

    def read(self, size: int = -1) -> bytes:
        found = self._file.read(size)
        if len(found) > 1 and found.endswith(b"\r"):  # Arrow loses the \n of a line's end in a cell between two blocks
            self._file.seek(-1, io.SEEK_CUR)
            found = found[:-1]
        seam = self._tail + found[:64]
        # The mere quote is looked for fifty times as fast.
        if (b' "' in seam or (b'"' in found and b' "' in found)) and _ODD.search(self._tail + found):
            raise Unclear
        self._tail = (self._tail + found[-64:])[-64:]
        self.done += len(found)
        return found

    def close(self) -> None:
        self.closed = True
        self._file.close()

    def __enter__(self) -> "_Watched":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
