"""A round's end: what a rule makes of its updates, and what the server makes of that."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from dmlworker.aggregation.average import Weights
from dmlworker.aggregation.optimizers import step
from dmlworker.aggregation.rules import aggregate

EXACT = ("mean", "median", "trimmed")
"""Rules that give the same bits on every machine. The others multiply matrices, which libraries do in different orders."""


class How(NamedTuple):
    """byzantine: cheats that the rule is to withstand. strategy: the server's optimizer."""

    rule: str
    byzantine: int
    strategy: str


def end_of(
    how: How,
    start: Weights,
    updates: Sequence[tuple[Weights, int]],
    state: Weights,
    number: int,
    root: Weights | None = None,
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """(the round's end weights, what the optimizer keeps for the next one) for updates (weights, how much each counts) in shard
    order. state: what was kept of the round before. number: the round, from 1. root: the platform's own update, for FLTrust.

    Raises ValueError for updates or states that do not fit, KeyError for a name that is none.
    """
    middle = aggregate(how.rule, start, updates, how.byzantine, root)
    return step(how.strategy, start, middle, state, number=number)
