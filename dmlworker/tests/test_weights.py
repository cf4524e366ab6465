"""Weights as bytes: order and bits survive; anything that is not weights is a MalformedUpdate."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import load, save

from dmlworker.weights import MalformedUpdate, mapped, pack, pieces, unpack


def some(count: int) -> list[np.ndarray]:
    random = np.random.Generator(np.random.PCG64(count))
    return [random.normal(size=(3, number + 1)).astype(np.float32) for number in range(count)]


@pytest.mark.parametrize("count", [1, 2, 11, 120])
def test_order_and_bits_survive(count: int) -> None:
    weights = some(count)
    for before, after in zip(weights, unpack(pack(weights)), strict=True):
        np.testing.assert_array_equal(before, after)


def test_same_weights_give_the_same_bytes() -> None:
    assert pack(some(3)) == pack(some(3))


def described(spans: dict[str, list[int]], shape: Any = (3,)) -> bytes:
    """A file whose header says what it likes."""
    entries = {name: {"dtype": "F32", "shape": shape, "data_offsets": span} for name, span in spans.items()}
    return framed(json.dumps(entries).encode()) + bytes(max(end for _, end in spans.values()))


def framed(header: bytes) -> bytes:
    return len(header).to_bytes(8, "little") + header


MALFORMED = {
    "nothing": b"",
    "no safetensors": b"\x80\x04pickle",
    "cut off": pack(some(2))[:-1],
    "no arrays": save({}),
    "a gap": save({"000/a": some(1)[0], "002/b": some(1)[0]}),
    "no number": save({"a": some(1)[0]}),
    "a number twice": save({"000/a": some(1)[0], "000/b": some(1)[0]}),
    "an overlap": described({"000/a": [0, 12], "001/b": [8, 20]}),
    "a hole": described({"000/a": [0, 12], "001/b": [16, 28]}),
    "bytes that belong to nobody": pack(some(2)) + bytes(4),
    "another size than the shape's": described({"000/a": [0, 16]}),
    "a size below zero": described({"000/a": [12, 0]}, [-3]),
    "half a number": described({"000/a": [0, 12]}, [3.0]),
    "more dimensions than arrays have": described({"000/a": [0, 4]}, [1] * 100),
    "no end of brackets": framed(b"[" * 100_000),
    "no description": framed(b"[1, 2]"),
    "float64": save({"000/a": some(1)[0].astype(np.float64)}),
}


@pytest.mark.parametrize("what", MALFORMED)
def test_malformed_bytes_are_refused(what: str, tmp_path: Path) -> None:
    with pytest.raises(MalformedUpdate):
        unpack(MALFORMED[what])
    (tmp_path / "update").write_bytes(MALFORMED[what])
    with pytest.raises(MalformedUpdate):
        mapped(tmp_path / "update")


@pytest.mark.parametrize("count", [1, 11, 120])
def test_weights_are_written_array_by_array_and_looked_at_in_the_file(count: int, tmp_path: Path) -> None:
    weights = [*some(count), np.float32(3).reshape(()), np.zeros((0, 2), np.float32)]
    with (tmp_path / "update").open("wb") as file:
        file.writelines(pieces(weights))
    assert (tmp_path / "update").read_bytes() == pack(weights)
    for before, after in zip(weights, mapped(tmp_path / "update"), strict=True):
        np.testing.assert_array_equal(before, after)
        assert (before.shape, after.dtype, after.flags.writeable) == (after.shape, np.float32, False)


@given(st.binary(max_size=200))
def test_random_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(MalformedUpdate):
        unpack(data)


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=4), st.data())
def test_what_is_taken_for_weights_the_library_reads_alike(shapes: list[tuple[int, int]], data: st.DataObject) -> None:
    changed = bytearray(pack([np.arange(a * b, dtype=np.float32).reshape(a, b) for a, b in shapes]))
    for _ in range(data.draw(st.integers(0, 3))):
        changed[data.draw(st.integers(0, len(changed) - 1))] = data.draw(st.sampled_from(b'0123456789",:[]{} F'))
    try:
        found = unpack(changed)
    except MalformedUpdate:
        return
    expected = load(bytes(changed))
    for array, name in zip(found, sorted(expected), strict=True):
        np.testing.assert_array_equal(array, expected[name])


def test_only_float32_is_packed() -> None:
    with pytest.raises(MalformedUpdate):
        pack([np.zeros(2)])
