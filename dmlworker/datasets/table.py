"""Tables as rows of text; CSV is one, whose encoding, delimiter and header are found. The target may be numbers or text."""

import codecs
import csv
import io
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import numpy as np

from dmlworker.datasets import kinds, targets
from dmlworker.datasets.dataset import Dataset, DatasetError, Raw, check_finite, check_text
from dmlworker.datasets.kinds import is_missing, is_number
from dmlworker.task import AUTO

TARGET_NAMES = ("target", "label", "labels", "class", "classes", "species", "diagnosis", "outcome", "category", "y")
"""Column names taken for the target when none is given, the first that fits; case does not matter."""
DELIMITERS = ",;\t|"
MAX_COLUMNS = 10_000
_SNIFF_CHARACTERS = 64 * 1024
_CHUNK_ROWS = 4096

Row = tuple[int, list[str]]
"""The number of the line on which a row ends, and its cells."""
Rows = Callable[[], Iterator[Row]]
"""The rows of a table, from the first one at every call."""
Raws = tuple[Raw, ...]
LeftOut = tuple[tuple[str, str], ...]
"""Names of columns, and why."""


class _NotPlain(Exception):
    """There is more in a table than numbers."""


@dataclass(frozen=True)
class _Layout:
    """Names of all columns, the index of the target, and those of the features."""

    names: list[str]
    target: int
    features: list[int]


Block = Callable[[list[Row], _Layout], np.ndarray]
"""Makes some rows' features into numbers."""


def read(path: Path, target: str | None, task: str = AUTO) -> Dataset:
    """A CSV table. Raises DatasetError naming the column and the line at fault."""
    with path.open(encoding=_encoding(path), newline="") as file:
        try:
            return _parse(file, target, task)
        except csv.Error as error:
            raise DatasetError(f"The file is not a readable CSV table: {error}.") from None


def _parse(file: io.TextIOBase, target: str | None, task: str) -> Dataset:
    delimiter = _delimiter(file)

    def lines() -> Iterator[Row]:
        file.seek(0)
        return _rows(file, delimiter)

    return with_header(lines, target, "csv", task=task)


def with_header(lines: Rows, target: str | None, kind: str, named: bool = False, task: str = AUTO) -> Dataset:
    """As `parse`; the names of the columns are in the first line, unless that one is data, which it is not if they are known to be `named`."""
    names, first = _header(lines(), named)
    return parse(names, lambda: islice(lines(), first, None), target, kind, task)


def parse(names: list[str], rows: Rows, target: str | None, kind: str, task: str = AUTO) -> Dataset:
    """The table with columns of these names. If its features are all numbers, x (n, d) is float32 as it is; else see `Dataset.raw`.
    Raises DatasetError."""
    if len(names) > MAX_COLUMNS:
        raise too_wide(len(names))
    layout = _layout(names, target)
    raw: Raws = ()
    left_out: LeftOut = ()
    try:
        x, labels = _values(rows(), layout, _block)
    except _NotPlain:
        layout, raw, left_out = _kinds(rows(), layout)
        x, labels = _values(rows(), layout, lambda chunk, layout: _typed(chunk, layout, raw))
    if not labels:
        raise DatasetError("The file holds only a header, no rows.")
    check_finite(x, gaps=bool(raw))
    y, classes, learnt = targets.of(labels, task)
    features = tuple(layout.names[index] for index in layout.features)
    return Dataset(x, y, classes, features, kind, layout.names[layout.target], raw, left_out, learnt)


def _encoding(path: Path) -> str:
    """UTF-8 if the whole file is, UTF-16 by its mark, else Windows-1252 as spreadsheets write it."""
    with path.open("rb") as file:
        head = file.read(4)
        if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
            return "utf-16"
        file.seek(0)
        return "utf-8-sig" if _is_utf8(file) else "cp1252"


def _is_utf8(file: io.BufferedReader) -> bool:
    decoder = codecs.getincrementaldecoder("utf-8")()
    while block := file.read(1 << 20):
        if b"\0" in block:
            raise DatasetError("The file is not text, so it can't be a CSV table.")
        try:
            decoder.decode(block)
        except UnicodeDecodeError:
            return False
    return True


def _delimiter(file: io.TextIOBase) -> str:
    """The one that cuts the first lines into the most columns, all equally many. Rewinds the file."""
    try:
        head = file.read(_SNIFF_CHARACTERS)
    except UnicodeError:
        raise DatasetError("The file is not text, so it can't be a CSV table.") from None
    file.seek(0)
    # The last line may be cut off, unless it is the only one.
    lines = head.splitlines(keepends=True)[:50]
    lines = lines[:-1] if len(head) == _SNIFF_CHARACTERS and len(lines) > 1 else lines
    return max(DELIMITERS, key=lambda delimiter: _fit(lines, delimiter))


def _fit(lines: list[str], delimiter: str) -> tuple[bool, int]:
    widths = [len(row) for row in csv.reader(lines, delimiter=delimiter) if row]
    return (len(set(widths)) == 1 and widths[0] > 1, min(widths, default=0))


def _rows(file: io.TextIOBase, delimiter: str) -> Iterator[Row]:
    reader = csv.reader(file, delimiter=delimiter, skipinitialspace=True)
    try:
        for cells in reader:
            if any(cell.strip() for cell in cells):
                yield reader.line_num, [cell.strip() for cell in cells]
    except UnicodeError:
        raise DatasetError(f"Line {reader.line_num + 1} is not readable text.") from None


def _header(rows: Iterator[Row], named: bool) -> tuple[list[str], int]:
    """Names of the columns as written, and how many rows they take: none if the first one is data; then the columns are numbered."""
    first = next(rows, None)
    if first is None:
        raise DatasetError("The file is empty.")
    cells = first[1]
    if named or _is_header(cells):
        return cells, 1
    return [f"column {number}" for number in range(1, len(cells) + 1)], 0


def too_wide(columns: int) -> DatasetError:
    return DatasetError(f"{columns:,} columns are too many (at most {MAX_COLUMNS:,}).")


def _is_header(cells: list[str]) -> bool:
    """Names are no numbers; but data frames number their columns 0, 1, 2, ... and that is a header too."""
    numbers = [cell for cell in cells if is_number(cell)]
    return not numbers or (len(numbers) > 1 and numbers == [str(index) for index in range(len(numbers))])


def _layout(names: list[str], target: str | None) -> _Layout:
    if len(names) < 2:
        raise DatasetError(
            "The table has one column only. It needs features and a target; in a CSV file divided by , ; | or tabs."
        )
    # Data frames write their row numbers as a first column without a name: no feature, and a leak in sorted tables.
    numbering = names[0] in ("", "Unnamed: 0") and len(names) > 2
    names = [name or f"column {number}" for number, name in enumerate(names, 1)]
    for name in names:
        check_text(name)
    twice = {name for name in names if names.count(name) > 1} if len(set(names)) < len(names) else set()
    if twice:
        raise DatasetError(f"Two columns have the name {min(twice)!r:.80}.")
    index = _target(names, target)
    features = [column for column in range(len(names)) if column != index and not (numbering and column == 0)]
    return _Layout(names, index, features)


def _target(names: list[str], target: str | None) -> int:
    if target is not None:
        if target not in names:
            raise DatasetError(f"There is no column {target!r:.80}. The columns are: {_listed(names)}.")
        return names.index(target)
    lowered = [name.lower() for name in names]
    return next((lowered.index(name) for name in TARGET_NAMES if name in lowered), len(names) - 1)


def _listed(names: list[str]) -> str:
    shown = ", ".join(f"{name:.40}" for name in names[:30])
    return shown if len(names) <= 30 else f"{shown} and {len(names) - 30} more"


def _values(rows: Iterator[Row], layout: _Layout, block: Block) -> tuple[np.ndarray, list[str]]:
    """Features (n, d) float32 and labels, converted by blocks so that the text of few rows is held at once."""
    blocks, labels = [np.empty((0, len(layout.features)), np.float32)], []
    for chunk in _chunks(rows, layout):
        labels += [_label(line, cells, layout) for line, cells in chunk]
        blocks.append(block(chunk, layout))
    return np.concatenate(blocks), labels


def _chunks(rows: Iterator[Row], layout: _Layout) -> Iterator[list[Row]]:
    while chunk := list(islice(rows, _CHUNK_ROWS)):
        for line, cells in chunk:
            if len(cells) != len(layout.names):
                raise DatasetError(f"Line {line} has {len(cells)} values, but there are {len(layout.names)} columns.")
        yield chunk


def _label(line: int, cells: list[str], layout: _Layout) -> str:
    label = cells[layout.target]
    if is_missing(label):
        raise DatasetError(f"The target {layout.names[layout.target]!r:.80} is missing in line {line}.")
    return sys.intern(label)


def _block(chunk: list[Row], layout: _Layout) -> np.ndarray:
    """Raises _NotPlain if a cell is no number, or missing."""
    cells = [[row[column] for column in layout.features] for _, row in chunk]
    try:
        values = np.array(cells, dtype=np.float64)
    except ValueError:
        raise _NotPlain from None
    if np.isnan(values).any():
        raise _NotPlain
    with np.errstate(over="ignore"):
        return values.astype(np.float32)


# --- Tables with more than numbers ------------------------------------------------------------------------------------
def _kinds(rows: Iterator[Row], layout: _Layout) -> tuple[_Layout, Raws, LeftOut]:
    """The layout without what nothing can be learnt from, what its features are, and what was left out."""
    seen = [kinds.Seen() for _ in layout.features]
    for chunk in _chunks(rows, layout):
        lines = [line for line, _ in chunk]
        for column, each in zip(layout.features, seen, strict=True):
            each.add([row[column] for _, row in chunk], lines)
        kinds.bound(seen)
    found = [(column, each.settled(layout.names[column])) for column, each in zip(layout.features, seen, strict=True)]
    kept = [(column, what) for column, what in found if isinstance(what, Raw)]
    left_out = tuple((layout.names[column], what) for column, what in found if isinstance(what, str))
    if not kept:
        told = ", ".join(f"{name:.40} ({why})" for name, why in left_out[:10])
        raise DatasetError(f"There is no column that anything can be learnt from: {told}.")
    return replace(layout, features=[column for column, _ in kept]), tuple(what for _, what in kept), left_out


def _typed(chunk: list[Row], layout: _Layout, raw: Raws) -> np.ndarray:
    columns = zip(layout.features, raw, strict=True)
    return np.stack([kinds.typed(what, [row[column] for _, row in chunk]) for column, what in columns], axis=1)
