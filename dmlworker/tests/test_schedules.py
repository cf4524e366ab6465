"""The rate of each round."""

import pytest

from dmlworker.schedules import SCHEDULES, rate


def rates(schedule: str, rounds: int, ordered: float = 0.1) -> list[float]:
    return [rate(schedule, ordered, number, rounds) for number in range(1, rounds + 1)]


def test_the_rates_by_hand() -> None:
    assert rates("constant", 3) == [0.1] * 3
    assert rates("step", 8, 0.8) == [0.8] * 4 + [0.4] * 2 + [0.2] * 2
    assert rates("warm-up", 10, 0.3) == [0.1, 0.2, *[0.3] * 8]
    assert rates("cosine", 4, 1.0) == [1.0, 0.853553391, 0.5, 0.146446609]


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("rounds", [1, 2, 3, 100])
def test_no_rate_is_nothing_or_more_than_was_ordered(schedule: str, rounds: int) -> None:
    assert all(0 < each <= 1e-5 for each in rates(schedule, rounds, 1e-5))
    assert 1e-5 in rates(schedule, rounds, 1e-5)


def test_another_schedule_is_refused() -> None:
    with pytest.raises(ValueError, match="no schedule"):
        rate("up and down", 0.1, 1, 10)
