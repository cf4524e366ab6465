"""How often work is audited, and what the screen notices of real training."""

import math
from collections.abc import Callable
from functools import cache

import numpy as np
import pytest

from dmlworker import aggregation, cheats, datasets, models, trainer
from dmlworker.datasets import Dataset
from dmlworker.protocol import Hyper
from training.evidence import Look, audit_probability, counts, proven, segment_steps, suspects

Weights = list[np.ndarray]


def f32(*values: float) -> Weights:
    return [np.array(values, dtype=np.float32)]


# --- How often --------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("streak", "chance"), [(0, 1.0), (9, 1.0), (10, 0.1), (11, 1 / 11), (12, 1 / 12), (13, 0.08), (10**6, 0.08)]
)
def test_the_more_audits_were_passed_the_rarer_they_are(streak: int, chance: float) -> None:
    assert audit_probability(streak, 10, 0.08) == pytest.approx(chance)


def test_without_a_first_and_a_least_nobody_is_audited_by_chance() -> None:
    assert audit_probability(0, 0, 0.0) == 0.0


@pytest.mark.parametrize(
    ("kind", "steps"), [("linear", 10), ("mlp", 10), ("cnn", 5), ("resnet", 5), ("gru", 5), ("transformer", 5)]
)
def test_segments_are_short_where_layers_amplify_rounding(kind: str, steps: int) -> None:
    assert segment_steps(models.spec(models.build((8, 8), 2, kind))) == steps


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
        """All that the screen says."""
        root = trainer.train(self.spec, self.start, self.holdout.x[:100], self.holdout.y[:100], HYPER)
        return suspects(self.start, updates, root, [self.look(*each) for each in enumerate(updates)])

    def look(self, shard: int, update: Weights) -> Look:
        score, *losses = (trainer.evaluate(self.spec, update, part.x, part.y) for part in (self.holdout, *self.shards))
        return Look(shard, tuple(found.loss for found in losses), score.score)


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


SAME = [f32(1, 0), f32(1, 0.2), f32(1, -0.2)]


def looked(*looks: Look) -> dict[int, str]:
    """What is said of updates that differ in how they do alone."""
    return suspects(f32(0, 0), SAME[: len(looks)], None, looks)


def test_who_does_no_better_on_its_own_shard_is_named() -> None:
    """The first leads on its own shard, the second on the third's; the third is worse everywhere, but least so on its own. The second
    shard is easy for all."""
    found = looked(Look(0, (0.7, 0.3, 0.9), 1), Look(1, (0.9, 0.45, 0.8), 1), Look(2, (1.2, 0.6, 0.95), 1))
    assert list(found) == [1] and "own shard" in found[1]


def test_who_does_worst_on_the_hold_out_is_named() -> None:
    """By the median of the others, 0.85; that one of them is much better is no matter."""
    found = looked(*(Look(0, (1.0,), score) for score in (0.99, 0.71, 0.67)))
    assert list(found) == [2] and "79%" in found[2]


@pytest.mark.parametrize("rounds", ROUNDS)
def test_work_on_another_shard_than_the_own_is_named(rounds: int) -> None:
    """Each looks like the others', is as long and as accurate."""
    found = situation(rounds)
    swapped = [found.honest[1], found.honest[0], *found.honest[2:]]
    named = found.suspects(swapped)
    assert list(named) == [0, 1] and all("own shard" in reason for reason in named.values())


def test_who_points_away_from_the_platforms_own_update_is_named() -> None:
    """Three that agree, and a root that points elsewhere: a little, as for honest ones near the end of a training; away; nowhere."""
    assert suspects(f32(0, 0), SAME, f32(-0.05, 1)) == suspects(f32(0, 0), SAME) == {}
    named = suspects(f32(0, 0), SAME, f32(-1, 0))
    assert all("platform's own" in named[index] for index in range(3))
    assert suspects(f32(0, 0), SAME, f32(math.nan, 0)) == {}


def test_what_is_odd_counts_half_unless_all_are() -> None:
    assert counts([10, 11, 12], {1}) == [20, 11, 24]
    assert counts([10, 11], {0, 1}) == counts([10, 11], ()) == [20, 22]


def test_rounds_with_nobody_or_one_are_no_trouble() -> None:
    found = situation(0)
    assert suspects(found.start, []) == {}
    assert found.suspects(found.honest[:1]) == {}


@pytest.mark.parametrize(
    ("distances", "apart", "found"),
    [
        ([2.0, 2.0], 1e-6, True),
        ([2.0, 2.0], 0.05, True),  # a tie, far from what is claimed
        ([0.15, 0.14], 0.05, False),  # a tie could have done it
        ([0.15, 0.14], 0.01, True),
        ([2.0, 0.15], 0.05, False),
        ([9.0, 9.0], 0.3, False),  # where honest ones are so far apart, nothing is proven at all
        ([math.inf, math.inf], 0.0, True),
    ],
)
def test_a_claim_is_wrong_for_certain_only_far_beyond_what_rounding_does(distances, apart, found) -> None:
    assert proven(distances, apart) == found
