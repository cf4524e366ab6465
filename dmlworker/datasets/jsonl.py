"""JSON lines: an object a line, its values numbers, text, true, false or null."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dmlworker.datasets import cells, steps, table
from dmlworker.datasets.cells import Row
from dmlworker.datasets.dataset import Dataset, DatasetError
from dmlworker.datasets.options import PLAIN, Options

MAX_LINE = 1_000_000
"""Bytes."""


def read(path: Path, target: str | None, options: Options = PLAIN) -> Dataset:
    """A table with a column for each name that occurs; what a line lacks is missing there. Raises DatasetError naming the line at fault."""
    names: dict[str, None] = {}
    for _, found in _objects(path):
        names |= dict.fromkeys(found)
        if len(names) > table.MAX_COLUMNS:
            raise table.too_wide(len(names))
    if not names:
        raise DatasetError("The file is empty.")
    columns = list(names)
    return table.of_rows([name.strip() for name in columns], lambda: _rows(path, columns), target, "jsonl", options)


def _rows(path: Path, columns: list[str]) -> Iterator[Row]:
    for number, found in _objects(path):
        yield number, [_text(found.get(name), name, number) for name in columns]


def _objects(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    with path.open("rb") as file:
        number, size = 0, path.stat().st_size
        while line := file.readline(MAX_LINE + 1):
            number += 1
            if len(line) > MAX_LINE:
                raise DatasetError(f"Line {number} is longer than {MAX_LINE:,} bytes.")
            if number % cells.CHUNK_ROWS == 1:
                steps.tell(file.tell(), size)
            if line.strip():
                yield number, _object(line, number)


def _object(line: bytes, number: int) -> dict[str, Any]:
    try:
        found = json.loads(line.decode("utf-8-sig" if number == 1 else "utf-8"))
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise DatasetError(f'Line {number} is not a JSON object such as {{"size": 1.5, "kind": "a"}}.')
    return found


def _text(value: Any, name: str, number: int) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if not isinstance(value, str | int | float):
        raise DatasetError(f"{name!r:.80} in line {number} is a list or an object. Values must be numbers or text.")
    try:
        return str(value).strip()
    except ValueError:  # thousands of digits
        raise DatasetError(f"{name!r:.80} in line {number} is too large a number.") from None
