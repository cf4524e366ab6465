"""Files of any size: what is cut of them is the same as of small ones, and takes the memory of a few blocks."""

import io
import tracemalloc
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from dmlworker import datasets, models
from dmlworker.cache import blob_of
from dmlworker.datasets import Dataset, Options, arrays, cells
from dmlworker.datasets import table as table_file
from dmlworker.datasets.dataset import Raw
from dmlworker.task import CLASSIFICATION, MULTILABEL, REGRESSION

ROWS = 400_000
FEW = 200_000
"""Bytes: less than one for each row."""


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arrays, "LARGE", 1 << 14)
    monkeypatch.setattr(arrays, "BLOCK", 1 << 12)


def table(task: str, rows: int) -> Dataset:
    random = np.random.Generator(np.random.PCG64(1))
    x = arrays.empty((rows, 2), np.float32)
    x[:] = random.normal(size=x.shape)
    classes = () if task == REGRESSION else ("a", "b", "c")
    shape, dtype = {CLASSIFICATION: ((), np.int32), REGRESSION: ((), np.float32), MULTILABEL: ((3,), np.uint8)}[task]
    y = arrays.empty((rows, *shape), dtype)
    y[:] = random.normal(size=y.shape) if task == REGRESSION else random.integers(0, 2, y.shape)
    groups = arrays.empty((rows,), np.int32)
    groups[:] = np.arange(rows) % 97
    return Dataset(x, y, classes, ("p", "q"), "csv", "y", groups=groups, task=task)


def cut(data: Dataset, options: Options) -> list[str]:
    """The hashes of everything that comes of it."""
    found = datasets.parts(data, 3, options)
    models.statistics(found.train.x)
    if data.task == REGRESSION:
        models.target_statistics(found.train.y)
    shards = datasets.shards(found.train, 4, 3, options.sharding)
    return [blob_of(datasets.pieces(part.x, part.y, part.w)).sha256 for part in (found.holdout, *shards)]


CASES: dict[str, tuple[str, Callable[[Dataset], Dataset], Options]] = {
    "classes": (CLASSIFICATION, lambda data: replace(data, groups=None), Options()),
    "balanced": (CLASSIFICATION, lambda data: replace(data, groups=None), Options(class_weights="balanced")),
    "a number": (REGRESSION, lambda data: replace(data, groups=None), Options()),
    "labels": (MULTILABEL, lambda data: replace(data, groups=None), Options()),
    "groups": (CLASSIFICATION, lambda data: data, Options(group="g", sharding="group")),
}


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("case", CASES)
def test_cutting_takes_less_than_a_byte_for_each_row(case: str) -> None:
    task, change, options = CASES[case]
    cut(change(table(task, 5_000)), options)  # what is imported and cached at first
    data = change(table(task, ROWS))
    tracemalloc.start()
    try:
        cut(data, options)
        assert tracemalloc.get_traced_memory()[1] < FEW
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("case", CASES)
def test_large_and_small_are_cut_alike(monkeypatch: pytest.MonkeyPatch, case: str) -> None:
    task, change, options = CASES[case]
    data = change(table(task, 5_003))
    small = cut(data, options)
    monkeypatch.setattr(arrays, "LARGE", 1 << 10)
    monkeypatch.setattr(arrays, "BLOCK", 1 << 10)
    assert cut(data, options) == small


@pytest.mark.usefixtures("small_blocks")
def test_a_table_of_all_kinds_takes_no_more() -> None:
    def mixed(rows: int) -> Dataset:
        plain = table(CLASSIFICATION, rows)
        x = arrays.empty((rows, 3), np.float32)
        x[:, :2], x[:, 2] = plain.x, np.arange(rows) % 5
        x[::7, 0], x[:, 1] = np.nan, np.arange(rows) % 9000
        raw = (Raw("p", "number"), Raw("q", "date", form="YYYY-MM-DD"), Raw("r", "category", tuple("abcde")))
        return replace(plain, x=x, features=("p", "q", "r"), raw=raw, groups=None)

    cut(mixed(5_000), Options())
    data = mixed(ROWS)
    tracemalloc.start()
    try:
        cut(data, Options())
        assert tracemalloc.get_traced_memory()[1] < FEW
    finally:
        tracemalloc.stop()


# --- Reading ----------------------------------------------------------------------------------------------------------
CHANGES = {
    "numbers": (["1", "2.5"], ["3", "-400"], 1),
    "gaps": (["1", "2.5"], ["", "NA"], 1),
    "gaps first": (["", "NA"], ["1", "2"], 1),
    "categories": (["a", "NA"], ["", "7"], 1),
    "dates": (["2024-01-02", ""], ["2023-03-04", "none"], 1),
    "text": (["car number # is red", "car # is red"], ["", "car # is blue"], 1),
    "numbers, then text": (["1", "2"], ["x", "1"], 3),
    "dates of one form, then of another": (["03/04/2024", "05/06/2024"], ["03/14/2024", "03/15/2024"], 3),
    "dates, then text": (["2024-01-02", ""], ["x", "y"], 3),
    "gaps, then text": (["?", ""], ["car number # is red", ""], 3),
}
"""Two cells of a column that are there in turn, two later ones (#: the row), and how often the table is read for it."""


@pytest.mark.parametrize("change", CHANGES)
def test_a_table_is_read_once_if_its_columns_are_what_they_seem(monkeypatch: pytest.MonkeyPatch, change: str) -> None:
    first, later, times = CHANGES[change]
    monkeypatch.setattr(cells, "CHUNK_ROWS", 8)
    column = [(later if row >= 40 else first)[row % 2].replace("#", str(row)) for row in range(80)]
    rows = [(row + 2, [cell, f"{row}.5" if row else "", str(row % 2)]) for row, cell in enumerate(column)]
    read = []

    def blocks() -> Iterator[cells.Block]:
        read.append(True)
        yield from cells.of_rows(iter(rows), 3)

    found = table_file.parse(["it", "size", "y"], blocks, "y", "csv")
    assert len(read) == times
    gone = {""} if found.raw[0].kind == "text" else {"", "?", "NA", "none"}
    assert [datasets.cells_of(found, row)[0] for row in range(80)] == ["" if cell in gone else cell for cell in column]


def npy_header(shape: tuple[int, ...], dtype: str) -> bytes:
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": np.dtype(dtype).str, "fortran_order": False, "shape": shape})
    return header.getvalue()


@pytest.mark.parametrize("dtype", ["uint8", "float64"])
def test_the_arrays_of_an_npz_file_are_in_nobodys_memory(tmp_path: Path, dtype: str) -> None:
    rows, row = 100_000, np.arange(784).astype(dtype).tobytes()
    with zipfile.ZipFile(tmp_path / "t.npz", "w") as file:
        with file.open("x.npy", "w", force_zip64=True) as stream:
            stream.write(npy_header((rows, 784), dtype))
            for _ in range(rows // 1000):
                stream.write(1000 * row)
        with file.open("y.npy", "w") as stream:
            stream.write(npy_header((rows,), "uint8") + bytes(range(10)) * (rows // 10))
    tracemalloc.start()
    try:
        found = datasets.read(tmp_path / "t.npz", "t.npz")
        assert tracemalloc.get_traced_memory()[1] < 40_000_000
    finally:
        tracemalloc.stop()
    assert found.x.shape == (rows, 784) and found.classes == tuple("0123456789")
    wanted = np.arange(784).astype(np.uint8 if dtype == "uint8" else np.float32)
    assert (found.x[::999] == wanted).all() and found.x.dtype == wanted.dtype
    assert (found.y == np.arange(rows) % 10).all()
