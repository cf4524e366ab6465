"""A round's end: the mean of its updates, and what the server makes of it."""

from collections.abc import Sequence

import numpy as np

from dmlworker.aggregation.average import Weights, fedavg
from dmlworker.aggregation.optimizers import step


def end_of(
    strategy: str, start: Weights, updates: Sequence[tuple[Weights, int]], state: Weights, number: int
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """(the round's end weights, what the optimizer keeps for the next one) for updates (weights, how much each counts) in shard
    order. state: what was kept of the round before. number: the round, from 1. Bit for bit the same wherever it is computed.

    Raises ValueError for updates or states that do not fit.
    """
    return step(strategy, start, fedavg(updates), state, number=number)
