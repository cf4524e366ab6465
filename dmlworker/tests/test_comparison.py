"""How claims compare with replays: distances, by hand, and the verdict."""

import numpy as np
import pytest

from dmlworker.comparison import MAX_RELATIVE, Distance, agrees, allowed, compare

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
