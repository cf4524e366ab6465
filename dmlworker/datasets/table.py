"""Tables as rows of text; CSV is one, whose encoding, delimiter and header are found. The target may be numbers or text."""

import codecs
import csv
import io
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np

from dmlworker.datasets import arrays, cells, kinds, steps, targets
from dmlworker.datasets.arrays import Growing
from dmlworker.datasets.cells import Block, Blocks, Row
from dmlworker.datasets.dataset import CHOSEN, GROUPS, Dataset, DatasetError, Raw, check_finite, check_text
from dmlworker.datasets.kinds import is_missing, is_number
from dmlworker.datasets.options import PLAIN, Options

TARGET_NAMES = ("target", "label", "labels", "class", "classes", "species", "diagnosis", "outcome", "category", "y")
"""Column names taken for the target when none is given, the first that fits; case does not matter."""
DELIMITERS = ",;\t|"
MAX_COLUMNS = 10_000
_SNIFF_CHARACTERS = 64 * 1024
_UTF8 = "utf-8-sig"

Rows = Callable[[], Iterator[Row]]
"""The rows of a table, from the first one at every call."""
Raws = tuple[Raw, ...]
LeftOut = tuple[tuple[str, str], ...]
"""Names of columns, and why."""


@dataclass(frozen=True)
class _Layout:
    """Names of all columns, the index of the target, and those of the features."""

    names: list[str]
    target: int
    features: list[int]


@dataclass(frozen=True)
class _Read:
    """x (n, d) of these features, by their index; `raw` and `useless` (left out) as of `Dataset`."""

    x: np.ndarray
    labels: targets.Labels
    features: list[int]
    raw: Raws
    useless: LeftOut


def read(path: Path, target: str | None, options: Options = PLAIN) -> Dataset:
    """A CSV table. Raises DatasetError naming the column and the line at fault."""
    encoding = _encoding(path)
    with path.open(encoding=encoding, newline="") as file:
        try:
            return _parse(file, path if encoding == _UTF8 else None, target, options)
        except csv.Error as error:
            raise DatasetError(f"The file is not a readable CSV table: {error}.") from None


def _parse(file: io.TextIOWrapper, path: Path | None, target: str | None, options: Options) -> Dataset:
    """path: if it may be read fast."""
    delimiter = _delimiter(file)

    size = os.fstat(file.fileno()).st_size

    def lines() -> Iterator[Row]:
        file.seek(0)
        for number, row in enumerate(_rows(file, delimiter)):
            if number and number % cells.CHUNK_ROWS == 0:  # whoever looks at the header alone has read nothing yet
                steps.tell(file.buffer.tell(), size)
            yield row

    if path:
        names, first = _header(lines(), False)
        with suppress(cells.Unclear):
            return parse(names, partial(cells.of_csv, path, delimiter, len(names), first), target, "csv", options)
    return with_header(lines, target, "csv", options=options)


def with_header(lines: Rows, target: str | None, kind: str, named: bool = False, options: Options = PLAIN) -> Dataset:
    """As `of_rows`; the names of the columns are in the first line, unless that one is data, which it is not if they are known to be `named`."""
    names, first = _header(lines(), named)
    return of_rows(names, lambda: islice(lines(), first, None), target, kind, options)


def of_rows(names: list[str], rows: Rows, target: str | None, kind: str, options: Options = PLAIN) -> Dataset:
    """As `parse`, from rows of text."""
    return parse(names, lambda: cells.of_rows(rows(), len(names)), target, kind, options)


def parse(names: list[str], blocks: Blocks, target: str | None, kind: str, options: Options = PLAIN) -> Dataset:
    """The table with columns of these names. If its features are all numbers, x (n, d) is float32 as it is; else see `Dataset.raw`.
    Raises DatasetError."""
    if len(names) > MAX_COLUMNS:
        raise too_wide(len(names))
    layout, left_out = _chosen(_layout(names, target), options)
    try:
        found = _at_once(blocks(), layout, options)
    except kinds.Surprise:
        found = _looked_at_first(blocks, layout, options)
    if not len(found.x):
        raise DatasetError("The file holds only a header, no rows.")
    check_finite(found.x, gaps=bool(found.raw))
    y, classes, learnt = targets.of(found.labels, options.task)
    features = tuple(layout.names[index] for index in found.features)
    groups = _groups(blocks(), layout, options)
    left_out = (*left_out, *found.useless)
    return Dataset(
        found.x, y, classes, features, kind, layout.names[layout.target], found.raw, left_out, groups, task=learnt
    )


def rows_of(data: bytes, most: int) -> list[Row]:
    """The first ones of a small CSV table in memory, its head among them. Raises DatasetError."""
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = data.decode("cp1252", errors="replace")
    file = io.StringIO(text, newline="")
    try:
        return list(islice(_rows(file, _delimiter(file)), most))
    except csv.Error as error:
        raise DatasetError(f"The table is not readable: {error}.") from None


def _encoding(path: Path) -> str:
    """UTF-8 if the whole file is, UTF-16 by its mark, else Windows-1252 as spreadsheets write it."""
    with path.open("rb") as file:
        head = file.read(4)
        if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
            return "utf-16"
        file.seek(0)
        return _UTF8 if _is_utf8(file) else "cp1252"


def _is_utf8(file: io.BufferedReader) -> bool:
    decoder = codecs.getincrementaldecoder("utf-8")()
    while block := file.read(1 << 20):
        if b"\0" in block:
            raise DatasetError("The file is not text, so it can't be a CSV table.")
        if block.isascii() and not decoder.getstate()[0]:
            continue
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


def _chosen(layout: _Layout, options: Options) -> tuple[_Layout, LeftOut]:
    """Without the columns that the customer leaves out, and the one that only says which rows are together."""
    left_out = dict.fromkeys(options.leave_out, CHOSEN) | ({options.group: GROUPS} if options.group else {})
    for name in (*left_out, *options.kinds):
        if name not in layout.names:
            raise no_column(name, layout.names)
    if layout.names[layout.target] in left_out:
        raise DatasetError(f"{layout.names[layout.target]!r:.80} is the target: it is neither left out nor the group.")
    features = [column for column in layout.features if layout.names[column] not in left_out]
    if not features and not options.window:
        raise DatasetError("No column is left to learn from.")
    return replace(layout, features=features), tuple(left_out.items())


def no_column(name: str, names: list[str]) -> DatasetError:
    return DatasetError(f"There is no column {name!r:.80}. The columns are: {_listed(names)}.")


def _groups(blocks: Iterator[Block], layout: _Layout, options: Options) -> np.ndarray | None:
    """(n,) int32: of each row the number of its group, in the order in which they occur."""
    if not options.group:
        return None
    column, numbers = layout.names.index(options.group), dict[str, int]()
    found = Growing((), np.int32)
    for block in blocks:
        names, codes = _named(block, column, f"The group {options.group!r:.80}")
        found.add(np.array([numbers.setdefault(name, len(numbers)) for name in names], np.int32)[codes])
    return found.done()


def _named(block: Block, column: int, what: str) -> tuple[Sequence[str], np.ndarray]:
    """The different cells of a column, and which of them each row has. Raises DatasetError if one is missing."""
    names, codes = block.columns[column].distinct()
    for code, name in enumerate(names):
        if is_missing(name):
            raise DatasetError(f"{what} is missing in line {block.line(int((codes == code).argmax()))}.{_hint(names)}")
    return names, codes


def _hint(names: Sequence[str]) -> str:
    """Where cells look like several labels at once, how to write none."""
    mark = targets.separator(names, np.ones(len(names)))
    several = any(mark in name for name in names)
    return f" Where a row has none of several labels, write a mere {mark} there." if several else ""


def _target(names: list[str], target: str | None) -> int:
    if target is not None:
        if target not in names:
            raise no_column(target, names)
        return names.index(target)
    lowered = [name.lower() for name in names]
    return next((lowered.index(name) for name in TARGET_NAMES if name in lowered), len(names) - 1)


def _listed(names: list[str]) -> str:
    shown = ", ".join(f"{name:.40}" for name in names[:30])
    return shown if len(names) <= 30 else f"{shown} and {len(names) - 30} more"


def _values(
    blocks: Iterator[Block], layout: _Layout, features: Callable[[Block], Sequence[np.ndarray]]
) -> tuple[np.ndarray, targets.Labels]:
    """Features (n, d) float32 and labels; the text of one block is held at once. features: the columns of a block."""
    x, labels = Growing((len(layout.features),), np.float32), targets.Labels()
    for block in blocks:
        names, codes = _named(block, layout.target, f"The target {layout.names[layout.target]!r:.80}")
        labels.add(names, codes)
        rows = np.empty((block.rows, len(layout.features)), np.float32)
        for index, column in enumerate(features(block)):
            rows[:, index] = column
        x.add(rows)
    return x.done(), labels


def _at_once(blocks: Iterator[Block], layout: _Layout, options: Options) -> _Read:
    """The table, its text read once. Raises kinds.Surprise if a column is not what it seemed to be at first."""
    names = [layout.names[column] for column in layout.features]
    drafts = [kinds.Draft(options.kinds.get(name, "")) for name in names]

    def columns(block: Block) -> list[np.ndarray]:
        found = [draft.add(block.columns[column], block) for column, draft in zip(layout.features, drafts, strict=True)]
        kinds.bound([draft.seen for draft in drafts])
        return found

    x, labels = _values(blocks, layout, columns)
    if not len(x):
        return _Read(x, labels, layout.features, (), ())
    kept, useless = _settled(layout, [draft.seen for draft in drafts], options)
    places = [layout.features.index(column) for column, _ in kept]
    settled = [drafts[place].settled(what) for place, (_, what) in zip(places, kept, strict=True)]
    plain = all(what.kind == "number" for what, _ in settled) and not any(draft.gaps for draft in drafts)
    plain = plain and not useless and all(kind == "number" for kind in options.kinds.values())
    x = (
        x
        if len(places) == x.shape[1]
        else arrays.whole(arrays.Rows(x, None, lambda rows: rows[:, places], (len(places),)))
    )
    for index, (_, becomes) in enumerate(settled):
        if becomes is not None:
            _recode(x, index, becomes)
    return _Read(
        x, labels, [column for column, _ in kept], () if plain else tuple(what for what, _ in settled), useless
    )


def _recode(x: np.ndarray, index: int, becomes: np.ndarray) -> None:
    """In a column, NaN stays."""
    becomes = np.append(becomes, np.float32(np.nan))
    for part in arrays.blocks(x):
        codes = x[part, index]
        x[part, index] = becomes.take(np.where(np.isnan(codes), len(becomes) - 1, codes).astype(np.int64))


def _settled(layout: _Layout, seen: list[kinds.Seen], options: Options) -> tuple[list[tuple[int, Raw]], LeftOut]:
    """(columns with what they are, what nothing can be learnt from)."""
    names = [layout.names[column] for column in layout.features]
    settled = [each.settled(name, options.kinds.get(name, "")) for name, each in zip(names, seen, strict=True)]
    found = list(zip(layout.features, settled, strict=True))
    kept = [(column, what) for column, what in found if isinstance(what, Raw)]
    useless = tuple((layout.names[column], what) for column, what in found if isinstance(what, str))
    if not kept and not options.window:
        told = ", ".join(f"{name:.40} ({why})" for name, why in useless[:10])
        raise DatasetError(f"There is no column that anything can be learnt from: {told}.")
    return kept, useless


# --- Where columns are not what they seemed to be ---------------------------------------------------------------------
def _looked_at_first(blocks: Blocks, layout: _Layout, options: Options) -> _Read:
    """The table, its text read once to see what its columns are, and once more."""
    seen = [kinds.Seen() for _ in layout.features]
    for block in blocks():
        for column, each in zip(layout.features, seen, strict=True):
            each.add(block.columns[column], block)
        kinds.bound(seen)
    kept, useless = _settled(layout, seen, options)
    layout = replace(layout, features=[column for column, _ in kept])
    columns = [kinds.Column(what) for _, what in kept]

    def typed(block: Block) -> list[np.ndarray]:
        return [column.typed(block.columns[place]) for place, column in zip(layout.features, columns, strict=True)]

    x, labels = _values(blocks(), layout, typed)
    return _Read(x, labels, layout.features, tuple(column.raw for column in columns), useless)
