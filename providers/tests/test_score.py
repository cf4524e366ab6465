"""The score: documented, between 0 and 100, and better for who delivers and passes audits."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from providers.score import FORMULA, HALVED_EVERY, LATEST, score

work = st.lists(st.booleans(), min_size=1, max_size=150)


@given(work, st.integers(0, 10**6))
def test_it_is_between_0_and_100_and_rises_with_audits(done: list[bool], streak: int) -> None:
    assert 0 <= score(done, streak) <= score(done, streak + 1) <= 100


@given(work, st.integers(0, 149))
def test_delivering_is_never_worse(done: list[bool], at: int) -> None:
    better = [good or index == at for index, good in enumerate(done)]
    assert score(better, 0) >= score(done, 0)


@pytest.mark.parametrize(
    ("done", "streak", "found"),
    [
        ([], 50, None),
        ([True], 0, 80),
        ([True] * 10, 10, 90),
        ([False], 0, 0),
        ([True, False], 0, 40),
        ([True] * HALVED_EVERY + [False] * HALVED_EVERY, 0, 53),
        ([False] * HALVED_EVERY + [True] * HALVED_EVERY, 0, 26),
        ([True] * LATEST + [False] * 50, 0, 80),
        ([True] * 10, 10**9, 99),
    ],
)
def test_by_the_numbers(done: list[bool], streak: int, found: int | None) -> None:
    assert score(done, streak) == found


def test_a_ban_makes_it_0() -> None:
    assert score([True] * 50, 50, banned=True) == 0


def test_what_is_explained_is_what_is_done() -> None:
    assert "80 × " in FORMULA and "20 × s / (s + 10)" in FORMULA
