"""Averaging by hand, in any order, and the gate before it."""

import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from dmlworker.aggregation import MalformedUpdate, average, check, fedavg
from dmlworker.aggregation.average import BLOCK, WORTH_A_THREAD
from dmlworker.weights import mapped, pieces

Weights = list[np.ndarray]


def f32(*values: float) -> np.ndarray:
    return np.array(values, dtype=np.float32)


def some(seed: int, size: int = 50) -> Weights:
    random = np.random.Generator(np.random.PCG64(seed))
    return [random.normal(size=(size, 3)).astype(np.float32), random.normal(size=3).astype(np.float32)]


def same(first: Weights, second: Weights) -> bool:
    return all((a == b).all() and a.dtype == b.dtype for a, b in zip(first, second, strict=True))


def test_by_hand() -> None:
    """Three samples at (2, 2) and one at (1, 6): (6 + 1)/4 and (6 + 6)/4."""
    average = fedavg([([f32(2, 2)], 3), ([f32(1, 6)], 1)])
    assert same(average, [f32(1.75, 3)])


def test_mcmahans_formula_over_blocks_and_shapes() -> None:
    updates = [(some(seed, BLOCK), seed * 10) for seed in (1, 2, 3)]
    for index, mean in enumerate(fedavg(updates)):
        expected = sum(local[index].astype(np.float64) * samples for local, samples in updates) / 60
        np.testing.assert_allclose(mean, expected, rtol=1e-6, atol=1e-7)


def test_one_update_is_its_own_average_and_nothing_is_changed_in_place() -> None:
    local = some(1)
    assert same(fedavg([(local, 7)]), local)
    assert same(local, some(1))


def test_large_arrays_are_shared_among_threads_and_not_a_bit_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    updates = [(some(seed, 3 * WORTH_A_THREAD + 5), seed) for seed in (1, 2)]
    monkeypatch.setattr(average, "THREADS", 3)
    shared = fedavg(updates)
    monkeypatch.setattr(average, "THREADS", 1)
    assert same(shared, fedavg(updates))


def test_memory_is_one_model_however_many_updates_there_are(tmp_path: Path) -> None:
    one = 2_000_000
    for seed in range(6):
        with (tmp_path / str(seed)).open("wb") as file:
            file.writelines(pieces([np.full(one, seed, np.float32)]))
    tracemalloc.start()
    average = fedavg([(mapped(tmp_path / str(seed)), 1) for seed in range(6)])
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert same(average, [np.full(one, 2.5, np.float32)])
    assert most < 1.5 * 4 * one


def test_nothing_to_average_and_what_does_not_fit_are_refused() -> None:
    other = [(some(1, 49), 1), (some(1)[:1], 1)]
    for updates in ([], [(some(1), 0)], [(some(1), -1)], *([(some(1), 1), odd] for odd in other)):
        with pytest.raises(ValueError, match="(?i)update"):
            fedavg(updates)  # type: ignore[arg-type]


def test_the_gate_lets_an_update_through() -> None:
    check(some(1), some(0))


def with_value(value: float) -> Weights:
    update = some(1)
    update[0][3, 1] = value
    return update


MALFORMED = {
    "too few arrays": some(1)[:1],
    "too many arrays": [*some(1), f32(1)],
    "another shape": [some(1)[0].T, some(1)[1]],
    "another order": some(1)[::-1],
    "float64": [array.astype(np.float64) for array in some(1)],
    "NaN": with_value(np.nan),
    "infinite": with_value(-np.inf),
}


@pytest.mark.parametrize("what", MALFORMED)
def test_the_gate_refuses(what: str) -> None:
    with pytest.raises(MalformedUpdate):
        check(MALFORMED[what], some(0))
