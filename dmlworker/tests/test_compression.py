"""Smaller updates: what they lose, that it comes with the next round, and that strangers' bytes do no harm."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from safetensors.numpy import save

from dmlworker.cache import Cache
from dmlworker.compression import decode, encode
from dmlworker.protocol import COMPRESSIONS, Lease
from dmlworker.weights import MalformedUpdate, pack

SMALLER = [kind for kind in COMPRESSIONS if kind != "none"]
floats = st.floats(-1e4, 1e4, width=32)
changes = st.lists(
    arrays(np.float32, st.tuples(st.integers(0, 4), st.integers(1, 5)), elements=floats), min_size=1, max_size=3
)


@pytest.mark.parametrize("kind", SMALLER)
@given(delta=changes)
def test_what_is_said_and_the_rest_make_the_whole(kind, delta):
    data, rest = encode(delta, kind)
    start = [np.zeros_like(array) for array in delta]
    for array, said, left in zip(delta, decode(data, kind, start), rest, strict=True):
        largest = np.max(np.abs(array), initial=0)
        assert said.dtype == left.dtype == np.float32
        np.testing.assert_allclose(said + left, array, atol=largest * 1e-6)
        assert np.max(np.abs(left), initial=0) <= largest * (1 / 2048 if kind == "fp16" else 1 / 250) + 1e-7


@pytest.mark.parametrize(("kind", "part"), [("fp16", 0.51), ("int8", 0.26)])
def test_an_update_has_half_or_a_quarter_of_its_bytes(kind, part):
    delta = [np.random.default_rng(1).normal(size=(100, 100)).astype(np.float32)]
    assert len(encode(delta, kind)[0]) < part * len(pack(delta))


@pytest.mark.parametrize("kind", SMALLER)
def test_with_its_feedback_nothing_is_lost_over_many_rounds(kind):
    """A small number beside a large one is rounded to nothing every time; carried on, it arrives all the same."""
    delta, rest, total = [np.array([100.0, 0.01], np.float32)], [np.zeros(2, np.float32)], np.zeros(2)
    for _ in range(200):
        data, rest = encode([delta[0] + rest[0]], kind)
        total += decode(data, kind, [np.zeros(2, np.float32)])[0]
    np.testing.assert_allclose(total, [20_000, 2], atol=0.5)


@pytest.mark.parametrize("kind", SMALLER)
def test_an_overflow_is_cut_and_kept(kind):
    data, rest = encode([np.array([1e6, 1], np.float32)], kind)
    said = decode(data, kind, [np.zeros(2, np.float32)])[0]
    assert np.isfinite(said).all()
    np.testing.assert_allclose(said + rest[0], [1e6, 1], rtol=1e-6)


D, S = "000/delta", "000/step"
HALF, BYTES, STEP = np.zeros(2, np.float16), np.zeros(2, np.int8), np.ones(1, np.float32)


@pytest.mark.parametrize(
    ("kind", "data"),
    [
        ("fp16", b""),
        ("fp16", b"junk"),
        ("fp16", save({})),
        ("fp16", save({D: BYTES})),
        ("fp16", save({"delta": HALF})),
        ("fp16", save({D: HALF, "002/delta": HALF})),
        ("fp16", save({D: np.zeros(3, np.float16)})),
        ("int8", save({D: BYTES})),
        ("int8", save({D: HALF, S: STEP})),
        ("int8", save({D: BYTES, S: np.ones(2, np.float32)})),
        ("int8", save({D: BYTES, S: STEP, "x": STEP})),
        ("int8", pack([np.zeros(2, np.float32)])),
    ],
)
def test_anything_else_is_malformed(kind, data):
    with pytest.raises(MalformedUpdate):
        decode(data, kind, [np.zeros(2, np.float32)])


def test_a_worker_keeps_the_rest_for_the_next_round_of_the_shard_and_no_other(tmp_path):
    cache, rest = Cache(tmp_path), [np.array([0.5], np.float32)]
    first, second, third = (Lease("run", number, 0, 1) for number in (1, 2, 3))
    cache.keep_rest(first, rest)
    assert cache.rest(second) == rest
    cache.keep_rest(second, [np.array([0.25], np.float32)])
    assert cache.rest(second) == rest  # should the work of round 2 have to be done again
    assert cache.rest(third) == [np.array([0.25], np.float32)]
    assert cache.rest(Lease("run", 2, 1, 1)) is cache.rest(Lease("other", 2, 0, 1)) is cache.rest(first) is None
    cache.keep_rest(third, rest)
    assert cache.rest(second) is None
