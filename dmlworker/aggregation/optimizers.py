"""What the server does with the mean of a round's updates: take it, or take a step along it.

The step treats the mean change, mean - start, as a gradient that points the other way. Elementwise, in float64, a block at a
time. What is kept from round to round (`state`) is float32, as many arrays per weight as the rule says, zeros at first.

    fedavg    take the mean                              McMahan et al. 2016, https://arxiv.org/abs/1602.05629
    fedprox   the same; its workers are held to start    Li et al. 2018, https://arxiv.org/abs/1812.06127
    fedavgm   momentum                                   Hsu et al. 2019, https://arxiv.org/abs/1909.06335
    fedadam   Adam, bias-corrected as Keras and TFF do   Reddi et al. 2020, https://arxiv.org/abs/2003.00295
    fedyogi   Yogi, as Flower does                       the same
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from dmlworker.aggregation.average import Weights, blocks

MOMENTUM, SECOND, TAU = 0.9, 0.99, 1e-3
"""beta_1, beta_2 and the degree of adaptivity of Reddi et al., whose defaults they are."""

Block = np.ndarray
Rule = Callable[[Block, float, int, Sequence[Block]], tuple[Block, list[Block]]]


class Optimizer(NamedTuple):
    """`states`: arrays kept per weight. `rate`: the server's learning rate unless another is chosen. `rule`: (change, rate,
    round from 1, states) -> (step, new states)."""

    states: int
    rate: float
    rule: Rule | None


def _momentum(change: Block, rate: float, number: int, state: Sequence[Block]) -> tuple[Block, list[Block]]:
    velocity = MOMENTUM * state[0] + change
    return rate * velocity, [velocity]


def _adam(change: Block, rate: float, number: int, state: Sequence[Block]) -> tuple[Block, list[Block]]:
    first = MOMENTUM * state[0] + (1 - MOMENTUM) * change
    second = SECOND * state[1] + (1 - SECOND) * np.square(change)
    corrected = rate * np.sqrt(1 - SECOND**number) / (1 - MOMENTUM**number)
    return corrected * first / (np.sqrt(second) + TAU), [first, second]


def _yogi(change: Block, rate: float, number: int, state: Sequence[Block]) -> tuple[Block, list[Block]]:
    square = np.square(change)
    first = MOMENTUM * state[0] + (1 - MOMENTUM) * change
    second = state[1] - (1 - SECOND) * square * np.sign(state[1] - square)
    return rate * first / (np.sqrt(second) + TAU), [first, second]


OPTIMIZERS = {
    "fedavg": Optimizer(0, 1.0, None),
    "fedprox": Optimizer(0, 1.0, None),
    "fedavgm": Optimizer(1, 1.0, _momentum),
    "fedadam": Optimizer(2, 0.03, _adam),
    "fedyogi": Optimizer(2, 0.03, _yogi),
}


def step(
    name: str, start: Weights, mean: Weights, state: Weights = (), *, number: int = 1, rate: float | None = None
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """The next global weights and the next state, both float32.

    start, mean: the round's start weights and the mean of its updates, arrays of the same shapes. state: what the round
    before returned; empty in the first. number: the round, from 1. rate: the server's learning rate; None: the rule's own.
    Raises KeyError for an unknown name, ValueError for shapes or states that do not fit.
    """
    optimizer = OPTIMIZERS[name]
    if [array.shape for array in start] != [array.shape for array in mean]:
        raise ValueError("The mean does not have the shapes of the start weights.")
    if optimizer.rule is None:
        return list(mean), []
    state = list(state) or [np.zeros(array.shape, np.float32) for array in start for _ in range(optimizer.states)]
    if len(state) != optimizer.states * len(start):
        raise ValueError("This state belongs to another optimizer.")
    ends, kept = [], []
    for index, (before, after) in enumerate(zip(start, mean, strict=True)):
        mine = state[index * optimizer.states : (index + 1) * optimizer.states]
        end, new = _moved(optimizer.rule, before, after, mine, number, optimizer.rate if rate is None else rate)
        ends.append(end)
        kept += new
    return ends, kept


def _moved(
    rule: Rule, before: np.ndarray, after: np.ndarray, state: Sequence[np.ndarray], number: int, rate: float
) -> tuple[np.ndarray, list[np.ndarray]]:
    end = np.empty(before.shape, np.float32)
    new = [np.empty(before.shape, np.float32) for _ in state]
    for part in blocks(before.size):
        start = before.reshape(-1)[part].astype(np.float64)
        change = after.reshape(-1)[part] - start
        moved, kept = rule(change, rate, number, [array.reshape(-1)[part].astype(np.float64) for array in state])
        end.reshape(-1)[part] = start + moved
        for array, values in zip(new, kept, strict=True):
            array.reshape(-1)[part] = values
    return end, new
