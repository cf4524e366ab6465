"""Weights as bytes: order and bits survive; anything that is not weights is a MalformedUpdate."""

import io
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import save

from dmlworker.weights import MalformedUpdate, mapped, pack, unpack, write


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


MALFORMED = {
    "nothing": b"",
    "no safetensors": b"\x80\x04pickle",
    "cut off": pack(some(2))[:-1],
    "no arrays": save({}),
    "a gap": save({"000/a": some(1)[0], "002/b": some(1)[0]}),
    "no number": save({"a": some(1)[0]}),
    "a number twice": save({"000/a": some(1)[0], "000/b": some(1)[0]}),
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
    spool = io.BytesIO()
    write(spool, weights)
    assert spool.getvalue() == pack(weights)
    (tmp_path / "update").write_bytes(spool.getvalue())
    for before, after in zip(weights, mapped(tmp_path / "update"), strict=True):
        np.testing.assert_array_equal(before, after)
        assert (before.shape, after.dtype, after.flags.writeable) == (after.shape, np.float32, False)


@given(st.binary(max_size=200))
def test_random_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(MalformedUpdate):
        unpack(data)


def test_only_float32_is_packed() -> None:
    with pytest.raises(MalformedUpdate):
        pack([np.zeros(2)])
