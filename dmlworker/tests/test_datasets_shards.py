"""Cutting: nothing lost, nothing twice, sizes exact, classes spread, and no names in what providers get."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import save

from dmlworker.datasets import Dataset, DatasetError, Options, dump, limits, load, shards, split, training_samples
from dmlworker.datasets.windows import by_time


def numbered(counts: list[int]) -> Dataset:
    """Samples whose x is their own number, in a mixed order."""
    y = np.repeat(np.arange(len(counts), dtype=np.int32), counts)
    y = np.random.Generator(np.random.PCG64(0)).permutation(y)
    x = np.arange(len(y), dtype=np.float32).reshape(-1, 1)
    return Dataset(x, y, tuple(f"class {index}" for index in range(len(counts))), ("number",), "csv", "target")


COUNTS = st.lists(st.integers(10, 60), min_size=2, max_size=6)


@given(COUNTS, st.integers(0, 2**32), st.floats(0.1, 0.5))
def test_split_is_exact_stratified_and_complete(counts: list[int], seed: int, holdout: float) -> None:
    data = numbered(counts)
    train, held = split(data, seed, holdout)
    assert len(held) == round(len(data) * holdout)
    assert sorted(np.concatenate([train.x, held.x]).ravel()) == list(range(len(data)))
    for index, count in enumerate(counts):
        assert abs((held.y == index).sum() - count * len(held) / len(data)) < 1
    assert all(data.y[int(number)] == label for number, label in zip(held.x.ravel(), held.y, strict=True))


@given(COUNTS, st.integers(1, 10), st.integers(0, 2**32))
def test_shards_partition_the_data_evenly(counts: list[int], n: int, seed: int) -> None:
    data = numbered(counts)
    parts = shards(data, n, seed)
    assert sorted(np.concatenate([part.x for part in parts]).ravel()) == list(range(len(data)))
    for counted in (
        [len(part) for part in parts],
        *([(part.y == label).sum() for part in parts] for label in set(data.y)),
    ):
        assert max(counted) - min(counted) <= 1


@given(COUNTS, st.integers(1, 10), st.integers(0, 2**32))
def test_parts_by_speed_are_as_three_to_two_the_larger_ones_first_each_of_all_classes(
    counts: list[int], n: int, seed: int
) -> None:
    data = numbered(counts)
    parts = shards(data, n, seed, "speed")
    assert sorted(np.concatenate([part.x for part in parts]).ravel()) == list(range(len(data)))
    whole = 2 * n + n // 2
    for number, part in enumerate(parts):
        share = (3 if number < n // 2 else 2) / whole
        for label, count in enumerate(counts):
            assert abs((part.y == label).sum() - count * share) < 3, "at most a card of each of its hands"
    if n > 1:
        assert [len(part) for part in parts] == sorted((len(part) for part in parts), reverse=True)


def test_no_more_are_held_out_than_are_measured_with(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MAX_HELD", 12)
    data = numbered([100, 200])
    train, held = split(data, 1)
    assert (len(train), np.bincount(held.y).tolist()) == (288, [4, 8])
    assert training_samples(300) == 288 and training_samples(50) == 40
    # Groups stay whole, so that the rest of theirs is used for nothing.
    groups = (data.x.ravel() // 10).astype(np.int32)
    train, held = split(replace(data, groups=groups), 1)
    assert len(held) == 12 and 228 <= len(train) <= 252
    assert not set(train.groups) & set(held.groups)
    ahead, rows = Options(window=2), replace(data, target="y")
    assert [len(part) for part in by_time(rows, ahead)] == [288, 12]


def test_mnist_sizes_come_out_exactly() -> None:
    train, held = split(numbered([1001, 1127, 991, 1032, 980, 863, 1014, 1070, 944, 978]), seed=1)
    assert (len(train), len(held)) == (8000, 2000)
    assert [len(part) for part in shards(train, 4, seed=1)] == [2000] * 4


def test_the_seed_decides_the_cut() -> None:
    data = numbered([30, 40])
    first, again, other = (split(data, seed)[1].x.ravel().tolist() for seed in (1, 1, 2))
    assert first == again
    assert first != other


@pytest.mark.parametrize("n", [0, 71])
def test_more_shards_than_samples_are_refused(n: int) -> None:
    with pytest.raises(DatasetError, match="can't be shared"):
        shards(numbered([30, 40]), n, 1)


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_a_shard_survives_as_bytes_without_names(dtype: type) -> None:
    data = numbered([30, 40])
    blob = dump(data.x.astype(dtype), data.y)
    x, y = load(blob)
    np.testing.assert_array_equal(x, data.x.astype(dtype))
    np.testing.assert_array_equal(y, data.y)
    assert (x.dtype, y.dtype) == (dtype, np.int32)
    assert not any(word in blob for word in (b"number", b"class", b"target"))
    assert dump(x, y) == blob
    assert save({"x": x, "y": y}) == blob


X, Y = np.zeros((3, 2), np.float32), np.zeros(3, np.int32)
MALFORMED = {
    "nothing": b"",
    "garbage": b"hello",
    "no y": save({"x": X}),
    "something more": save({"x": X, "y": Y, "z": Y}),
    "float64": save({"x": X.astype(float), "y": Y}),
    "another length": save({"x": X, "y": Y[:2]}),
    "empty": save({"x": X[:0], "y": Y[:0]}),
}


@pytest.mark.parametrize("what", MALFORMED)
def test_malformed_shards_are_refused(what: str) -> None:
    with pytest.raises(DatasetError):
        load(MALFORMED[what])
