"""How claims compare with replays: distances, by hand, and the verdict."""

from functools import partial

import numpy as np
import pytest

from dmlworker import optimizers
from dmlworker.comparison import MAX_RELATIVE, Distance, agrees, allowed, compare, compare_checkpoints

Weights = list[np.ndarray]


def f32(*values: float) -> Weights:
    return [np.array(values, dtype=np.float32)]


@pytest.mark.parametrize(
    ("claimed", "relative", "cosine"),
    [
        (f32(4, 5), 0.0, 1.0),
        (f32(7, 9), 1.0, 1.0),  # twice the change
        (f32(-2, -3), 2.0, -1.0),  # the opposite
        (f32(1, 1), 1.0, 0.0),  # no change
        (f32(5, -2), np.sqrt(2), 0.0),  # at right angles
    ],
)
def test_distances_of_a_change_of_3_and_4(claimed: Weights, relative: float, cosine: float) -> None:
    """Start at (1, 1), replayed to (4, 5): a change of length 5."""
    found = compare(f32(1, 1), claimed, f32(4, 5))
    assert found == pytest.approx((relative, cosine))


def test_a_replay_that_did_not_move() -> None:
    assert compare(f32(1, 1), f32(1, 1), f32(1, 1)) == Distance(0.0, 1.0)
    assert compare(f32(1, 1), f32(1, 2), f32(1, 1)) == Distance(np.inf, 0.0)


def test_a_small_change_of_large_weights_is_measured_in_full() -> None:
    start = [np.full(1000, 1000, np.float32)]
    moved = [start[0] + np.float32(0.001)]
    assert compare(start, start, moved).relative == pytest.approx(1.0)


def test_the_verdict() -> None:
    assert agrees(Distance(0.0, 1.0))
    assert agrees(Distance(MAX_RELATIVE, 0.9))
    assert not agrees(Distance(MAX_RELATIVE + 0.01, 0.9))
    assert not agrees(Distance(np.inf, 0.0))
    assert not agrees(Distance(np.nan, np.nan))


def test_what_a_compressed_update_is_off_is_a_part_of_the_whole_change() -> None:
    assert allowed("none", 10.0, 1.0) == MAX_RELATIVE
    assert allowed("int8", 10.0, 1.0) == pytest.approx(MAX_RELATIVE + 1.0)
    assert allowed("fp16", 10.0, 0.0) == np.inf


# --- What optimizers remember -------------------------------------------------------------------------------------------
MEAN, SQUARES = np.array([0.01, -0.02, 1e-5, 0.0], np.float32), np.array([1e-3, 4e-3, 1e-8, 0.0], np.float32)


@pytest.mark.parametrize(
    ("mean", "squares", "least"),
    [
        (-1.0, 1.0, 1.9),
        (0.0, 1.0, 0.9),
        (1.0, 0.0, 100),  # from there on, steps of any length
        (1.0, 100.0, 5),  # or none
        (1.0, [1, 1, 0, 1], 10),  # of what hardly moves alone
        (1.0, 1.3, 0.1),
    ],
)
def test_what_alters_the_steps_that_follow_is_far_away(mean: float, squares: object, least: float) -> None:
    claimed = [mean * MEAN, np.asarray(squares, np.float32) * SQUARES]
    assert optimizers.apart("adam", claimed, [MEAN, SQUARES]) > least
    assert optimizers.turned("adam", [MEAN, SQUARES], claimed) > least / 10


def test_what_never_had_a_gradient_cannot_be_frozen() -> None:
    assert optimizers.apart("adam", [MEAN, SQUARES + np.float32([0, 0, 0, 1])], [MEAN, SQUARES]) > 100


def test_rounding_is_near_even_where_the_gradient_is_rounding_itself() -> None:
    claimed = [MEAN + np.float32(1e-10), SQUARES * np.float32(1 + 1e-6) + np.float32(1e-20)]
    assert optimizers.apart("adam", claimed, [MEAN, SQUARES]) < 0.01
    assert optimizers.apart("momentum", claimed[:1], [MEAN]) < 1e-6


@pytest.mark.parametrize("optimizer", ["momentum", "adam"])
def test_a_state_beside_none_is_infinitely_far(optimizer: str) -> None:
    state = [MEAN, SQUARES][: optimizers.SLOTS[optimizer]]
    nothing = [array * 0 for array in state]
    assert optimizers.apart(optimizer, state, nothing) == np.inf
    assert optimizers.apart(optimizer, nothing, nothing) == 0.0


def test_of_checkpoints_the_larger_distance_counts_and_none_hides_the_other() -> None:
    start, end, velocity = f32(1, 1), f32(4, 5), f32(3, 4)
    compare = partial(compare_checkpoints, "momentum", 1)
    assert compare(start, end + velocity, end + velocity) == Distance(0.0, 1.0)
    assert compare(start + velocity, end + f32(3, 9), end + velocity).relative == pytest.approx(1.0)
    assert compare(start, f32(7, 9) + f32(3, 4.5), end + velocity).relative == pytest.approx(1.0)
    assert compare(start, f32(7, 9), end).relative == pytest.approx(1.0)
    assert np.isnan(compare(start, end + f32(np.nan, 1), end + velocity).relative)
