"""Reward schemes: what holds for all of them, and the numbers of each version, which never change."""

import random
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dmlworker import rewards
from dmlworker.rewards import SCHEMES, Work
from ledger import money

share = st.floats(0, 1)
amount = st.none() | st.floats(1e-3, 1e7)
works = st.lists(
    st.builds(
        Work,
        provider=st.sampled_from(["ada", "bob", "cleo"]),
        round=st.integers(1, 3),
        correct=st.integers(0, 100),
        holdout=st.just(100),
        steps=st.integers(1, 10**6),
        f1=share,
        seconds=amount,
        contribution=st.floats(-5, 5),
        joules=amount,
        gpu=st.none() | share,
    ),
    min_size=1,
    max_size=8,
)
names = st.sampled_from(sorted(SCHEMES))


@given(names, works)
def test_points_are_whole_and_never_negative(name: str, done: list[Work]) -> None:
    found = rewards.points(name, done)
    assert all(type(points) is int and points >= 0 for _, points in found)
    assert sorted(map(id, done)) == sorted(id(work) for work, _ in found)
    assert rewards.merit(name, done).keys() == {work.provider for work in done}


@given(works)
def test_by_merit_whoever_worked_gets_something(done: list[Work]) -> None:
    assert sum(rewards.merit("merit-1", done).values()) > 0


@given(names, works, st.randoms(use_true_random=False))
def test_the_order_does_not_matter(name: str, done: list[Work], chance: random.Random) -> None:
    mixed = chance.sample(done, len(done))
    assert rewards.merit(name, mixed) == rewards.merit(name, done)


BETTER = {
    "correct": lambda work, by: min(100, work.correct + int(100 * by)),
    "f1": lambda work, by: work.f1 + (1 - work.f1) * by,
    "steps": lambda work, by: work.steps + int(1000 * by),
    "contribution": lambda work, by: work.contribution + by,
    "seconds": lambda work, by: work.seconds and work.seconds * (1 - by / 2),
    "joules": lambda work, by: work.joules and work.joules * (1 - by / 2),
    "gpu": lambda work, by: max(work.gpu or 0, by),
}


@given(names, works, st.sampled_from(sorted(BETTER)), share)
def test_who_does_better_gets_no_fewer_points(name: str, done: list[Work], what: str, by: float) -> None:
    first = next(iter(done))
    better = replace(first, **{what: BETTER[what](first, by)})
    before = next(points for work, points in rewards.points(name, done) if work is first)
    after = next(points for work, points in rewards.points(name, [better, *done[1:]]) if work is better)
    assert after >= before


@given(names, works, st.integers(0, 10**9))
def test_the_price_is_shared_to_the_unit(name: str, done: list[Work], price: int) -> None:
    parts, fee = money.shares(price, rewards.merit(name, done))
    assert sum(parts.values()) + fee == price


@pytest.mark.parametrize("scheme", SCHEMES.values(), ids=lambda scheme: scheme.name)
def test_weights_add_up_to_100_and_what_workers_say_themselves_has_little(scheme: rewards.Scheme) -> None:
    assert sum(factor.weight for factor in scheme.factors) == 100
    assert sum(factor.weight for factor in scheme.factors if factor.reported) <= 5
    assert all(f"{factor.weight} × {factor.name}" in scheme.formula for factor in scheme.factors[1:])


def test_the_newest_version_of_each_is_offered() -> None:
    newest = {name.rpartition("-")[0]: name for name in sorted(SCHEMES)}
    assert set(rewards.OFFERED) == set(newest.values())
    assert rewards.DEFAULT in rewards.OFFERED


def test_the_sources_own_example() -> None:
    """Accuracies 75, 55, 55, 95 %, paid 0.13: shares that read 0.03, 0.02, 0.02, 0.04."""
    done = [Work(name, 1, correct, 100, 10) for name, correct in zip("abcd", (75, 55, 55, 95), strict=True)]
    parts, _ = money.shares(130_000, rewards.merit("accuracy-1", done))
    assert [money.dml(parts[name])[:4] for name in "abcd"] == ["0.03", "0.02", "0.02", "0.04"]


# --- Golden numbers: a version that was used keeps its numbers for good -----------------------------------------------
GIVEN = [
    Work("ada", 1, 90, 100, 400, 0.9, 20.0, 0.04, 800.0, 0.5),
    Work("bob", 1, 80, 100, 400, 0.75, 10.0, 0.02, 400.0, None),
    Work("cleo", 1, 60, 100, 200, 0.5, 40.0, -0.01, None, None),
    Work("ada", 2, 95, 100, 400, 0.95, 20.0, 0.0, 800.0, 1.0),
    Work("bob", 2, 95, 100, 400, 0.95, 20.0, 0.0, None, None),
    Work("dan", 3, 10, 100, 100, None, None, None, None, None),
]
GOLDEN = {
    "accuracy-1": {"ada": 185, "bob": 175, "cleo": 60, "dan": 10},
    "merit-1": {"ada": 1_750_000, "bob": 1_575_000, "cleo": 442_500, "dan": 280_000},
}


@pytest.mark.parametrize("name", SCHEMES)
def test_a_version_keeps_its_numbers(name: str) -> None:
    assert rewards.merit(name, GIVEN) == GOLDEN[name]


def test_no_number_is_worth_nothing() -> None:
    nan, inf = float("nan"), float("inf")
    done = [Work("ada", 1, 5, 10, 1, nan, inf, inf, nan, nan), Work("bob", 1, 5, 10, 1, inf, nan, 1.0, inf, inf)]
    assert all(points >= 0 for _, points in rewards.points("merit-1", done))
