"""Tables in other formats than CSV, and files of them made to do harm."""

import io
import json
import os
import zipfile
from contextlib import suppress
from datetime import datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from openpyxl import Workbook
from pyarrow import feather, parquet

from dmlworker import datasets
from dmlworker.datasets import Dataset, DatasetError
from dmlworker.datasets.foreign import _rows

ROWS = 60
COLUMNS = {
    "size": [None if n == 7 else n / 4 for n in range(ROWS)],
    "colour": [None if n == 5 else ("red", "green, or so", "blé")[n % 3] for n in range(ROWS)],
    "good": [n % 4 == 0 for n in range(ROWS)],
    "when": [datetime(2024, 1 + n % 12, 1 + n % 28, n % 24) for n in range(ROWS)],
    "count": list(range(100, 100 + ROWS)),
    "kind": [("cat", "dog")[n % 2] for n in range(ROWS)],
}
NUMBERS = {"1990": [n / 8 for n in range(ROWS)], "1991": list(range(ROWS)), "2": [n % 2 for n in range(ROWS)]}


def read(folder: Path, name: str, content: bytes, target: str | None = None) -> Dataset:
    (folder / "upload").write_bytes(content)
    return datasets.read(folder / "upload", name, target)


def as_parquet(columns: dict, **options: object) -> bytes:
    buffer = io.BytesIO()
    parquet.write_table(pa.table(columns), buffer, **options)
    return buffer.getvalue()


def as_feather(columns: dict, **options: object) -> bytes:
    buffer = io.BytesIO()
    feather.write_feather(pa.table(columns), buffer, **options)
    return buffer.getvalue()


def as_stream(columns: dict) -> bytes:
    buffer, found = io.BytesIO(), pa.table(columns)
    with pa.ipc.new_stream(buffer, found.schema) as writer:
        writer.write_table(found)
    return buffer.getvalue()


def as_excel(columns: dict) -> bytes:
    book, buffer = Workbook(), io.BytesIO()
    for row in [list(columns), *zip(*columns.values(), strict=True)]:
        book.active.append(row)
    book.create_sheet("other").append(["x"])
    book.save(buffer)
    return buffer.getvalue()


def as_jsonl(columns: dict) -> bytes:
    rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    kept = [{key: value for key, value in row.items() if value is not None} for row in rows]
    return "\n".join(json.dumps(row, default=str, ensure_ascii=False) for row in kept).encode()


def as_csv(columns: dict) -> bytes:
    def text(value: object) -> str:
        return "" if value is None else str(value).lower() if isinstance(value, bool) else f'"{value}"'

    rows = [list(columns), *zip(*columns.values(), strict=True)]
    return "\n".join(",".join(map(text, row)) for row in rows).encode()


WRITERS = {
    "t.parquet": as_parquet,
    "t.feather": as_feather,
    "t.arrow": as_stream,
    "t.xlsx": as_excel,
    "t.jsonl": as_jsonl,
    "T.NDJSON": as_jsonl,
}


@pytest.mark.parametrize("name", WRITERS)
def test_a_table_is_the_same_in_every_format(tmp_path: Path, name: str) -> None:
    found = read(tmp_path, name, WRITERS[name](COLUMNS))
    wanted = read(tmp_path, "t.csv", as_csv(COLUMNS))
    assert [raw.kind for raw in wanted.raw] == ["number", "category", "category", "date", "number"]
    assert (found.raw, found.classes, found.target) == (wanted.raw, ("cat", "dog"), "kind")
    np.testing.assert_array_equal(found.x, wanted.x)
    np.testing.assert_array_equal(found.y, wanted.y)


@pytest.mark.parametrize("name", [name for name in WRITERS if name != "t.xlsx"])
def test_numbers_stay_plain_whatever_the_columns_are_called(tmp_path: Path, name: str) -> None:
    found = read(tmp_path, name, WRITERS[name](NUMBERS))
    assert (found.raw, found.features, found.target) == ((), ("1990", "1991"), "2")
    np.testing.assert_array_equal(found.x, np.stack([NUMBERS["1990"], NUMBERS["1991"]], axis=1))


def test_what_pandas_adds_is_no_column(tmp_path: Path) -> None:
    found = read(tmp_path, "t.parquet", as_parquet(NUMBERS | {"__index_level_0__": list(range(ROWS))}))
    assert found.features == ("1990", "1991")


def zipped(entries: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as file:
        for name, data in entries.items():
            file.writestr(name, data)
    return buffer.getvalue()


def excel_with(sheet: bytes) -> bytes:
    """A workbook whose sheet is this XML."""
    with zipfile.ZipFile(io.BytesIO(as_excel(NUMBERS))) as file:
        entries = {name: file.read(name) for name in file.namelist()}
    return zipped(entries | {"xl/worksheets/sheet1.xml": sheet})


SHEET = b'<worksheet xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main"><sheetData>%s</sheetData></worksheet>'
LAUGHS = b'<!DOCTYPE x [<!ENTITY a "%s">%s]>' % (
    b"ha" * 500,
    b"".join(b'<!ENTITY %c "%s">' % (98 + n, b"&%c;" % (97 + n) * 50) for n in range(8)),
)
WIDE = b"".join(b'<row r="%d"><c r="XFD%d"><v>1</v></c></row>' % (n, n) for n in range(1, 5000))
FAR = b'<row r="1048576"><c r="A1048576"><v>1</v></c></row>'


def repeated_text(write, **options) -> bytes:
    """Ten million characters, in each of 5,000 rows: a few kilobytes."""
    text = pa.DictionaryArray.from_arrays(pa.array([0] * 5000, pa.int32()), pa.array(["x" * 10**7]))
    return write({"text": text, "n": list(range(5000)), "y": [n % 2 for n in range(5000)]}, **options)


def nothing_but_zeros() -> bytes:
    """Six gigabytes in one batch."""
    buffer = io.BytesIO()
    zeros = pa.array(np.zeros(100_000_000))
    schema = pa.schema([(name, pa.float64()) for name in "abcdefgh"])
    with pa.ipc.new_file(buffer, schema, options=pa.ipc.IpcWriteOptions(compression="zstd")) as writer:
        writer.write_batch(pa.record_batch([zeros] * 8, schema=schema))
    return buffer.getvalue()


REFUSED = {
    "no Parquet": ("t.parquet", lambda: b"PAR1 or so", "not a Parquet file"),
    "half a Parquet": ("t.parquet", lambda: as_parquet(COLUMNS)[:-50], "not a Parquet file"),
    "damaged": ("t.parquet", lambda: as_parquet(COLUMNS).replace(b"green", b"\xff\xfe\xff\xfe\xff"), "broken"),
    "lists": ("t.parquet", lambda: as_parquet(NUMBERS | {"l": [[1]] * ROWS}), "Column 'l' holds list"),
    "bytes": ("t.feather", lambda: as_feather(NUMBERS | {"l": [b"x"] * ROWS}), "Column 'l' holds binary"),
    "many columns": (
        "t.parquet",
        lambda: as_parquet({f"c{n}": [1] for n in range(10_001)}),
        "10,001 columns are too many",
    ),
    "a text over and over": ("t.parquet", lambda: repeated_text(as_parquet), "texts that are too long"),
    "the same in Arrow": ("t.arrow", lambda: repeated_text(as_feather), "texts that are too long"),
    "gigabytes of zeros": ("t.arrow", nothing_but_zeros, "too large when it is unpacked"),
    "a billion cells": (
        "t.parquet",
        lambda: as_parquet({f"c{n}": np.zeros(10**6, np.int8) for n in range(301)}),
        "more than 300,000,000",
    ),
    "no Arrow": ("t.arrow", lambda: b"ARROW1 or so", "not an Arrow or Feather file"),
    "no Excel": ("t.xlsx", lambda: b"PK or so", "The Excel file is broken"),
    "another ZIP": ("t.xlsx", lambda: zipped({"a.txt": b"x"}), "not an Excel file"),
    "a path that leads up": ("t.xlsx", lambda: zipped({"../a": b"x"}), "leads outside"),
    "texts that unpack to much": (
        "t.xlsx",
        lambda: zipped({"xl/sharedStrings.xml": b"0" * 200_000_001}),
        "more than 200 MB",
    ),
    "a billion laughs": ("t.xlsx", lambda: excel_with(LAUGHS + SHEET % b"&i;"), "not an Excel file"),
    "columns far to the right": (
        "t.xlsx",
        lambda: excel_with(SHEET % WIDE),
        "more than 50,000,000 cells|columns are too many",
    ),
    "a row far below": ("t.xlsx", lambda: excel_with(SHEET % FAR), "one column only"),
    "an empty sheet": ("t.xlsx", lambda: excel_with(SHEET % b""), "The file is empty"),
    "no JSON": ("t.jsonl", lambda: b'{"a": 1, "b": 2}\n{"a": 1,\n', "Line 2 is not a JSON object"),
    "a list": ("t.jsonl", lambda: b"[1, 2]\n", "Line 1 is not a JSON object"),
    "an object inside": ("t.jsonl", lambda: b'{"a": {"b": 2}, "c": 1}\n' * 30, "'a' in line 1 is a list or an object"),
    "deep": ("t.jsonl", lambda: b"[" * 900_000 + b"\n", "Line 1 is not a JSON object"),
    "a long line": ("t.jsonl", lambda: b'{"a": "' + b"x" * 1_000_001 + b'"}', "longer than 1,000,000 bytes"),
    "a long number": ("t.jsonl", lambda: b'{"a": ' + b"9" * 5000 + b', "b": 1}\n' * 30, "Line 1 is not a JSON object"),
    "names without end": (
        "t.jsonl",
        lambda: b"".join(b'{"a%d": 1}\n' % n for n in range(10_002)),
        "10,001 columns are too many",
    ),
    "half a character": (
        "t.jsonl",
        lambda: b'{"a": "\\ud800", "b": "x"}\n{"a": "c", "b": "y"}\n' * 20,
        "not readable text",
    ),
    "NUL as a class": ("t.jsonl", lambda: b'{"a": 1, "b": "\\u0000"}\n{"a": 2, "b": "y"}\n' * 20, "not readable text"),
    "NUL in a name": ("t.jsonl", lambda: b'{"a\\u0000": 1, "b": "x"}\n' * 20, "not readable text"),
    "NUL in Parquet": ("t.parquet", lambda: as_parquet({"a": ["\0", "b"] * 30, "y": [0, 1] * 30}), "not readable text"),
    "NUL in UTF-16": ("t.csv", lambda: ("a,b\n" + "1,x\0\n2,y\n" * 20).encode("utf-16"), "not readable text"),
    "blank lines": ("t.jsonl", lambda: b"\n \n", "The file is empty"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_bad_files_are_refused(tmp_path: Path, what: str) -> None:
    name, content, message = REFUSED[what]
    with pytest.raises(DatasetError, match=message):
        read(tmp_path, name, content())


@pytest.mark.parametrize("name", ["t.parquet", "t.arrow", "t.xlsx"])
def test_damaged_files_are_read_or_refused_not_crashed_on(tmp_path: Path, name: str) -> None:
    random = np.random.default_rng(1)
    for _ in range(6):
        data = np.frombuffer(WRITERS[name](COLUMNS), np.uint8).copy()
        data[random.integers(0, len(data), 5)] = random.integers(0, 256, 5)
        with suppress(DatasetError):
            assert len(read(tmp_path, name, data.tobytes())) <= ROWS


def test_the_process_that_unpacks_knows_nothing_of_ours_and_ends_with_the_reading(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECRET_KEY", "x")
    (tmp_path / "upload").write_bytes(as_parquet({"a": np.arange(10**6), "b": np.arange(10**6)}))
    before = children()
    rows = _rows(tmp_path / "upload", "parquet")
    assert next(rows) == (1, ["a", "b"])
    [child] = children() - before
    assert b"SECRET_KEY" not in Path(f"/proc/{child}/environ").read_bytes()
    rows.close()
    assert child not in children()


def children() -> set[str]:
    return set(Path(f"/proc/self/task/{os.getpid()}/children").read_text().split())
