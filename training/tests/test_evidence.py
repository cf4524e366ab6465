"""How often work is audited, and what the screen notices of real training."""

from collections.abc import Callable
from functools import cache

import numpy as np
import pytest

from dmlworker import aggregation, cheats, datasets, models, trainer
from dmlworker.datasets import Dataset
from dmlworker.protocol import Hyper
from training.evidence import audit_probability, suspects

Weights = list[np.ndarray]


# --- How often --------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("streak", "chance"), [(0, 1.0), (9, 1.0), (10, 0.1), (11, 1 / 11), (12, 1 / 12), (13, 0.08), (10**6, 0.08)]
)
def test_the_more_audits_were_passed_the_rarer_they_are(streak: int, chance: float) -> None:
    assert audit_probability(streak, 10, 0.08) == pytest.approx(chance)


def test_without_a_first_and_a_least_nobody_is_audited_by_chance() -> None:
    assert audit_probability(0, 0, 0.0) == 0.0


# --- Real updates: four shards of breast cancer, in the first round and later -----------------------------------------
HYPER = Hyper(1, 20, 0.1, 7)


class Situation:
    """A round: its start, and what honest workers make of it."""

    def __init__(self, rounds_before: int) -> None:
        from sklearn.datasets import load_breast_cancer

        source = load_breast_cancer()
        data = Dataset(source.data.astype(np.float32), source.target.astype(np.int32), ("m", "b"), (), "csv")
        train, self.holdout = datasets.split(data, seed=1)
        self.shards = datasets.shards(train, 4, seed=1)
        self.spec = models.spec(models.build_for(train, 2))
        self.start = trainer.initial_weights(self.spec, 1)
        for _ in range(rounds_before):
            self.start = aggregation.fedavg([(self.train(index), 1) for index in range(4)])
        self.honest = [self.train(index) for index in range(4)]

    def train(self, shard: int, hyper: Hyper = HYPER) -> Weights:
        return trainer.train(self.spec, self.start, self.shards[shard].x, self.shards[shard].y, hyper)

    def suspects(self, updates: list[Weights]) -> dict[int, str]:
        x, y = self.holdout.x, self.holdout.y
        right = [trainer.evaluate(self.spec, update, x, y).correct for update in updates]
        return suspects(self.start, updates, right)


situation = cache(Situation)
ROUNDS = [0, 5]


def free_ride(start: Weights, trained: Weights, hyper: Hyper) -> Weights:
    return start


Attack = Callable[[Weights, Weights, Hyper], Weights]
LOUD: dict[str, Attack] = cheats.MODES | {"free ride": free_ride}
"""Attacks that the screen sees at once. Others only an audit finds: honest changes of small shards differ in length too."""


@pytest.mark.parametrize("rounds", ROUNDS)
def test_the_screen_leaves_an_honest_round_alone(rounds: int) -> None:
    assert situation(rounds).suspects(situation(rounds).honest) == {}


@pytest.mark.parametrize("rounds", ROUNDS)
@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("attack", LOUD)
def test_the_screen_names_every_loud_cheat(rounds: int, count: int, attack: str) -> None:
    found = situation(rounds)
    altered = [LOUD[attack](found.start, update, HYPER) for update in found.honest[:count]]
    assert set(range(count)) <= found.suspects(altered + found.honest[count:]).keys()


def test_copies_are_named() -> None:
    found = situation(0)
    named = found.suspects([found.honest[0], found.honest[0], found.honest[2], found.honest[3]])
    assert "nearly the same as update 1" in named[0]
    assert "nearly the same as update 0" in named[1]


def test_rounds_with_nobody_or_one_are_no_trouble() -> None:
    found = situation(0)
    assert found.suspects([]) == {}
    assert found.suspects(found.honest[:1]) == {}
