"""The fast reader of CSV gives what Python's gives, or says that it does not know."""

import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dmlworker.datasets import arrays, cells, read, table
from dmlworker.datasets.dataset import MISSING

SNIPPETS = ["a", "1", "-2.5e3", "nan", "", '"', '""', ",", "\n", "\r\n", "\r", " ", "\t", "é", "\x0b", "\u2028", "'"]
TEXTS = st.lists(st.sampled_from(SNIPPETS), max_size=25).map("".join)
NUMBERS = ["1", "-2.5e3", "1_0", "+.5", " 7", "1e400", "inf", "-Infinity"]
CELLS = st.lists(st.sampled_from([*NUMBERS, "", "NA", "-nan", "?", "None", "x", "1,5", "ß"]), min_size=1, max_size=8)


def rows_of(text: str) -> list[list[str]]:
    return [found for _, found in table._rows(io.StringIO(text, newline=""), ",")]


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cells") / "table.csv"


def fast(path: Path, columns: int, skip: int = 0) -> Iterator[list[str]]:
    for block in cells.of_csv(path, ",", columns, skip):
        yield from map(list, zip(*(column.texts() for column in block.columns), strict=True))


def check_rows(path: Path, text: str, skip: int) -> None:
    rows = rows_of(text)
    path.write_bytes(text.encode())
    try:
        found = list(fast(path, len(rows[0]) if rows else 2, skip))
    except cells.Unclear:
        return
    assert found == rows[skip:]


@given(TEXTS, st.integers(0, 2))
def test_rows_are_the_same_or_not_promised(path: Path, text: str, skip: int) -> None:
    check_rows(path, text, skip)


@pytest.mark.parametrize(
    "text",
    [
        "a ",
        " a",
        "1,a ",
        "1, a",
        "1,a \n",
        "1,a\n 1,a",
        '"a "',
        "a\t",
        "a\u2003",
        "1 ,a",
        "a\r\n b",
        '"a\n",b',
        'b,"\r\na"',
        "a\x1f",
        "\x1ca,",
    ],
)
def test_no_space_is_left_around_a_cell(path: Path, text: str) -> None:
    path.write_text(text)
    assert list(fast(path, len(rows_of(text)[0]))) == rows_of(text)


def test_a_plain_file_is_promised(path: Path) -> None:
    path.write_text('\ufeffa,b\r\n1, x \r\n\r\n"2 ""q"", z","é"\r\n,\r\n', encoding="utf-8")
    assert list(fast(path, 2)) == [["a", "b"], ["1", "x"], ['2 "q", z', "é"]]
    assert list(fast(path, 2, skip=2)) == [['2 "q", z', "é"]]


@pytest.mark.parametrize("text", ['1, "a"\n', "1\n", "1,2,3\n"])
def test_what_the_readers_take_differently_is_not(path: Path, text: str) -> None:
    path.write_text(text)
    with pytest.raises(cells.Unclear):
        list(fast(path, 2))


@given(TEXTS, st.integers(0, 2), st.integers(8, 40))
def test_where_a_block_ends_makes_no_difference(path: Path, text: str, skip: int, size: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cells, "_BLOCK", size)
        check_rows(path, text, skip)


@given(CELLS, st.integers(0, 3))
def test_columns_say_the_same(given: list[str], before: int) -> None:
    import pyarrow as pa

    kinds = [cells.Texts(given), cells._Arrow(pa.array([""] * before + given).slice(before))]
    for numbers in ([each.numbers() for each in kinds], [each.gapped(MISSING) for each in kinds]):
        np.testing.assert_array_equal(*numbers)
    (names, codes), (others, theirs) = (each.distinct() for each in kinds)
    assert (list(names), codes.tolist()) == (list(others), theirs.tolist())
    assert [names[code] for code in codes] == given


def test_a_fault_in_a_file_read_fast_is_told_with_its_line(path: Path) -> None:
    path.write_text("a,y\n" + "1,no\n2,yes\n" * 20 + "3,\n")
    with pytest.raises(table.DatasetError, match="missing in line 42"):
        read(path, "table.csv")
    path.write_text("a,y\n" + "".join(f"{row}.5,{row % 2}\n" for row in range(40)) + "1o,1\n")
    with pytest.raises(table.DatasetError, match="text in line 42"):
        read(path, "table.csv")


@pytest.mark.parametrize("large", [1, arrays.LARGE])
def test_arrays_are_the_same_in_memory_and_in_files(monkeypatch: pytest.MonkeyPatch, large: int) -> None:
    monkeypatch.setattr(arrays, "LARGE", large)
    x = np.arange(60, dtype=np.float32).reshape(20, 3)
    growing = arrays.Growing((3,), np.float32)
    for first in range(0, 20, 7):
        growing.add(x[first : first + 7])
    found = growing.done()
    np.testing.assert_array_equal(found, x)
    np.testing.assert_array_equal(arrays.take(found, np.array([5, 0, 5])), x[[5, 0, 5]])
    found[0] = 7
    assert arrays.empty((0, 3), np.float32).shape == (0, 3)
    assert arrays.Growing((3,), np.uint8).done().shape == (0, 3)


@given(st.integers(1, 50), st.integers(1, 5))
def test_blocks_cover_everything_once(rows: int, width: int) -> None:
    x = np.zeros((rows, width))
    parts = list(arrays.blocks(x))
    assert [index for part in parts for index in range(rows)[part]] == list(range(rows))
