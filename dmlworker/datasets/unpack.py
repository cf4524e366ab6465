"""`python -m dmlworker.datasets.unpack KIND PATH`: the table in a Parquet, Arrow or Excel file, as CSV. See `foreign`."""

import csv
import os
import sys
from collections.abc import Callable, Iterator
from datetime import datetime, time
from pathlib import Path
from typing import Any

from dmlworker.datasets import archive, table
from dmlworker.datasets.dataset import DatasetError
from dmlworker.datasets.foreign import NAMES, REFUSED, broken

MEMORY = 3 * 10**9
"""Bytes of address space for this process."""
MAX_CELLS = 300_000_000
"""Or one for each byte of the file, as in an honest one of any size."""
MAX_SHEET_CELLS = 50_000_000
"""Of Excel, which is slow. Columns that a row skips count."""
MAX_BATCH = 64 * 10**6
"""Bytes of text in a column of a batch."""
MAX_TEXT = csv.field_size_limit()
"""Characters of a cell that are looked at, the same as in a CSV table."""
MAX_CHARACTERS = 4 * 10**9
"""Of all cells, or so many times the file's bytes as TIMES says. Few bytes may stand for a long text in every row."""
TIMES = 4
MAX_SHEET = 1_500_000_000
MAX_STRINGS = 200_000_000
"""Bytes that an Excel file's sheet, and its texts, may unpack to."""
_BATCH_ROWS = 4096
_BY_PANDAS = "__index_level_0__"
"""What it calls a column of row numbers."""


def main(kind: str, path: Path) -> None:
    _limit_memory()
    try:
        writer = csv.writer(sys.stdout)
        characters, most = 0, max(MAX_CHARACTERS, TIMES * path.stat().st_size)
        for row in _FORMATS[kind](path):
            characters += sum(map(len, row))
            if characters > most:
                raise DatasetError(f"The table holds more than {most / 1e9:g} billion characters.")
            writer.writerow([cell[:MAX_TEXT].strip() for cell in row])
        sys.stdout.flush()
    except BrokenPipeError:
        os._exit(0)  # enough was read
    except DatasetError as error:
        _refuse(error)
    except ImportError as error:
        _refuse(f"{error.name} is needed to read {NAMES[kind]} file: pip install 'dml-worker[tables]'")
    except Exception:  # The libraries raise what they like on a broken file, MemoryError among it.
        _refuse(broken(kind))


def _refuse(why: object) -> None:
    print(f"\n{why}".replace("\r", " "), file=sys.stderr, flush=True)
    os._exit(REFUSED)


def _limit_memory() -> None:
    try:
        import resource
    except ImportError:  # Windows
        return
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))


def _parquet(path: Path) -> Iterator[list[str]]:
    from pyarrow import parquet, types

    schema = parquet.read_schema(path)
    _check_schema(schema)
    # Dictionaries stay such: a long text that occurs in every row is there once.
    texts = [field.name for field in schema if types.is_string(field.type) or types.is_large_string(field.type)]
    with parquet.ParquetFile(path, read_dictionary=texts, pre_buffer=False) as file:
        _check_cells(file.metadata.num_rows * len(schema), _most(path))
        yield from _table(file.schema_arrow, file.iter_batches(_BATCH_ROWS, use_threads=False), _most(path))


def _arrow(path: Path) -> Iterator[list[str]]:
    import pyarrow as pa

    with pa.OSFile(str(path)) as source:
        try:
            file = pa.ipc.open_file(source)
        except pa.ArrowInvalid:
            source.seek(0)
            stream = pa.ipc.open_stream(source)
            yield from _table(stream.schema, stream, _most(path))
        else:
            yield from _table(file.schema, map(file.get_batch, range(file.num_record_batches)), _most(path))


def _check_schema(schema: Any) -> None:
    """Raises DatasetError for too many columns, and for one that holds anything but single values."""
    from pyarrow import types

    if len(schema) > table.MAX_COLUMNS:
        raise table.too_wide(len(schema))
    for field in schema:
        inner = field.type.value_type if types.is_dictionary(field.type) else field.type
        if types.is_nested(inner) or types.is_binary(inner) or types.is_large_binary(inner):
            raise DatasetError(
                f"Column {field.name!r:.80} holds {inner!s:.60}. Leave it out: values must be numbers, text or dates."
            )


def _most(path: Path) -> int:
    return max(MAX_CELLS, path.stat().st_size)


def _table(schema: Any, batches: Any, most: int) -> Iterator[list[str]]:
    """Names, then rows; of so many cells at most."""
    _check_schema(schema)
    kept = [index for index, name in enumerate(schema.names) if name != _BY_PANDAS]
    yield [schema.names[index] for index in kept]
    cells = 0
    for batch in batches:
        cells += len(batch) * len(schema)
        _check_cells(cells, most)
        for first in range(0, len(batch), _BATCH_ROWS):
            part = batch.slice(first, _BATCH_ROWS)
            yield from map(list, zip(*(_texts(part.column(index)) for index in kept), strict=True))


def _texts(column: Any) -> list[str]:
    import pyarrow as pa
    from pyarrow import compute, types

    if types.is_dictionary(column.type):
        if types.is_string(column.type.value_type) or types.is_large_string(column.type.value_type):
            lengths = compute.take(compute.binary_length(column.dictionary), column.indices)
            if (compute.sum(lengths).as_py() or 0) > MAX_BATCH:
                raise DatasetError("The table holds texts that are too long.")
        column = column.dictionary_decode()
    found: list[str] = compute.fill_null(column.cast(pa.large_string()), "").to_pylist()
    return found


def _excel(path: Path) -> Iterator[list[str]]:
    """The first sheet; of formulas, what they were when it was saved."""
    from openpyxl import load_workbook

    _check_excel(path)
    with path.open("rb") as file:
        yield from _sheet(load_workbook(file, read_only=True, data_only=True, keep_links=False).worksheets[0])


def _sheet(sheet: Any) -> Iterator[list[str]]:
    """Rows, as long as the first one or longer."""
    sheet.reset_dimensions()  # what the file says of its size may be anything
    width = cells = 0
    for values in sheet.iter_rows(values_only=True):
        cells += len(values) + 1
        _check_cells(cells, MAX_SHEET_CELLS)
        row = [_cell(value) for value in values]
        while row and not row[-1]:
            row.pop()
        width = width or len(row)
        yield row + [""] * (width - len(row))


def _check_cells(cells: int, most: int) -> None:
    if cells > most:
        raise DatasetError(f"The table has more than {most:,} cells.")


def _check_excel(path: Path) -> None:
    with archive.opened(path, "Excel", MAX_SHEET) as file:
        for entry in file.infolist():
            sheet = entry.filename.startswith("xl/worksheets/")
            most = (
                MAX_SHEET if sheet else MAX_STRINGS if entry.filename == "xl/sharedStrings.xml" else archive.MAX_ENTRY
            )
            if entry.file_size > most and not entry.filename.startswith("xl/media/"):
                raise DatasetError(f"{entry.filename!r:.120} would unpack to more than {most / 1e6:g} MB.")


def _cell(value: object) -> str:
    from openpyxl.cell.cell import ERROR_CODES

    if value is None or value in ERROR_CODES:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, datetime):
        return value.isoformat(" ") if value.time() != time() else value.date().isoformat()
    return str(value)


_FORMATS: dict[str, Callable[[Path], Iterator[list[str]]]] = {"parquet": _parquet, "arrow": _arrow, "excel": _excel}

if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
