"""The server's optimizers by hand, and beside Keras' and Flower's own."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dmlworker.aggregation import OPTIMIZERS, fedavg, step

Weights = list[np.ndarray]
FLOWER = Path(__file__).with_name("flower_optimizers.json")
SAMPLES = [100, 300, 50]


def f32(*values: float) -> Weights:
    return [np.array(values, dtype=np.float32)]


def start_of() -> Weights:
    return [np.linspace(-1, 1, 6, dtype=np.float32).reshape(2, 3), np.zeros(2, np.float32)]


def locals_of(weights: Weights, number: int) -> list[Weights]:
    """As in bench/flower_optimizers.py."""
    found = []
    for worker in range(len(SAMPLES)):
        random = np.random.Generator(np.random.PCG64(10 * number + worker))
        found.append([array + random.normal(size=array.shape).astype(np.float32) / 10 for array in weights])
    return found


def test_momentum_by_hand() -> None:
    """Twice the change 1: velocity 1, then 0.9 + 1 = 1.9."""
    first, state = step("fedavgm", f32(0), f32(1))
    second, state = step("fedavgm", first, [first[0] + 1], state, number=2)
    assert first[0] == 1
    assert second[0] == pytest.approx(1 + 1.9)
    assert state[0] == pytest.approx(1.9)


def test_adam_by_hand() -> None:
    """Corrected for its bias, the first step is rate x change / (|change| + tau / sqrt(1 - 0.99)): m and v start at 0."""
    moved, (first, second) = step("fedadam", f32(0), f32(0.5), rate=0.01)
    assert first == pytest.approx(0.1 * 0.5)
    assert second == pytest.approx(0.01 * 0.25)
    assert moved[0] == pytest.approx(0.01 * (0.1 / 0.1) * 0.5 / ((0.1 * 0.5 + 1e-3) / 0.1), rel=1e-6)


def test_yogi_by_hand() -> None:
    """v = 0 - 0.01 x 0.25 x sign(0 - 0.25) = 0.0025; m = 0.05; the step 0.01 x 0.05 / (0.05 + 0.001)."""
    moved, (first, second) = step("fedyogi", f32(0), f32(0.5), rate=0.01)
    assert (float(first[0]), float(second[0])) == pytest.approx((0.05, 0.0025))
    assert moved[0] == pytest.approx(0.01 * 0.05 / 0.051, rel=1e-6)


def test_yogi_lets_its_second_moment_fall_slower_than_adam() -> None:
    """After a change of 1 a change of 0.05: Adam multiplies v by 0.99, Yogi takes 0.01 x 0.0025 away."""
    moments = {}
    for name in ("fedadam", "fedyogi"):
        at, state = step(name, f32(0), f32(1))
        _, state = step(name, at, [at[0] + np.float32(0.05)], state, number=2)
        moments[name] = float(state[1][0])
    assert moments == pytest.approx({"fedadam": 0.01 * 0.99 + 0.01 * 0.0025, "fedyogi": 0.01 - 0.01 * 0.0025}, rel=1e-4)


@pytest.mark.parametrize("name", ["fedavg", "fedavgm", "fedyogi"])
def test_four_rounds_are_flowers(name: str) -> None:
    weights, state = start_of(), []
    for number, expected in enumerate(json.loads(FLOWER.read_text())["rounds"][name], 1):
        mean = fedavg(list(zip(locals_of(weights, number), SAMPLES, strict=True)))
        rate = 0.01 if name == "fedyogi" else 1.0
        weights, state = step(name, weights, mean, state, number=number, rate=rate)
        for array, values in zip(weights, expected, strict=True):
            np.testing.assert_allclose(array.ravel(), values, rtol=2e-5, atol=2e-6)


@pytest.mark.parametrize("name", ["fedavgm", "fedadam"])
def test_four_rounds_are_keras(name: str) -> None:
    """Keras' own optimizers, given the mean change as a gradient that points the other way."""
    import keras

    rate = 1.0 if name == "fedavgm" else 0.01
    theirs = {
        "fedavgm": lambda: keras.optimizers.SGD(rate, momentum=0.9),
        "fedadam": lambda: keras.optimizers.Adam(rate, beta_1=0.9, beta_2=0.99, epsilon=1e-3),
    }[name]()
    variables = [keras.Variable(array) for array in start_of()]
    weights, state = start_of(), []
    for number in range(1, 5):
        mean = fedavg(list(zip(locals_of(weights, number), SAMPLES, strict=True)))
        theirs.apply([before - after for before, after in zip(weights, mean, strict=True)], variables)
        weights, state = step(name, weights, mean, state, number=number, rate=rate)
        for array, variable in zip(weights, variables, strict=True):
            np.testing.assert_allclose(array, np.array(variable), rtol=2e-5, atol=2e-6)
            variable.assign(array)  # the next round's updates start from ours


@given(st.sampled_from(sorted(OPTIMIZERS)), st.integers(0, 2**32 - 1))
def test_whoever_moves_nothing_stays_where_it_is(name: str, seed: int) -> None:
    weights = [np.random.Generator(np.random.PCG64(seed)).normal(size=(3, 2)).astype(np.float32)]
    moved, state = step(name, weights, [array.copy() for array in weights])
    np.testing.assert_array_equal(moved[0], weights[0])
    assert len(state) == OPTIMIZERS[name].states and all((array == 0).all() for array in state)


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="shapes"):
        step("fedavg", f32(0, 1), f32(0))
    with pytest.raises(ValueError, match="another optimizer"):
        step("fedadam", f32(0), f32(1), f32(0))
    with pytest.raises(KeyError):
        step("sgd", f32(0), f32(1))
