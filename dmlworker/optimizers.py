"""What a worker's step makes of a gradient, and what it remembers for the next one. NumPy only.

What is remembered, the state, begins empty in every round, and is a part of the checkpoints that audits replay from: a vector of float32 for
each slot, over all trainable weights in their order. The number of steps done is no part of it: a segment's place tells it.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from dmlworker.protocol import Hyper
from dmlworker.weights import MalformedUpdate

Arrays = Sequence[np.ndarray]

SLOTS = {"sgd": 0, "momentum": 1, "adam": 2}
"""momentum: the velocity, how far the next step goes by itself. adam: the means of gradients and of their squares."""
FRICTION, SQUARES = 0.9, 0.999
"""Of a slot, what is left after a step. Keras' defaults for Adam; the first one is momentum's, too."""
EPSILON = 1e-7
"""Adam's, added to the root of the squares."""


def rates(hyper: Hyper, steps: range) -> np.ndarray:
    """The step lengths of some steps, from 0: (k,) float32. Adam's slots begin at 0, which this makes up for (https://arxiv.org/abs/1412.6980, section 2)."""
    done = np.arange(steps.start + 1, steps.stop + 1, dtype=np.float64)
    known = np.sqrt(1 - SQUARES**done) / (1 - FRICTION**done) if hyper.optimizer == "adam" else np.ones(len(done))
    return (hyper.learning_rate * known).astype(np.float32)


def step(
    optimizer: str, gradient: Any, slots: Sequence[Any], rate: Any, root: Callable[[Any], Any]
) -> tuple[Any, list[Any]]:
    """(what a weight becomes less by, its slots afterwards). For one weight's arrays of any library, whose square root is `root`."""
    if optimizer == "momentum":
        velocity = FRICTION * slots[0] + rate * gradient
        return velocity, [velocity]
    if optimizer == "adam":
        mean = slots[0] + (gradient - slots[0]) * (1 - FRICTION)
        squares = slots[1] + (gradient * gradient - slots[1]) * (1 - SQUARES)
        return mean * rate / (root(squares) + EPSILON), [mean, squares]
    return rate * gradient, []


def empty(optimizer: str, size: int) -> list[np.ndarray]:
    """The state that a round begins with. size: of all trainable weights together."""
    return [np.zeros(size, np.float32) for _ in range(SLOTS[optimizer])]


def check(optimizer: str, state: Arrays) -> None:
    """Raises MalformedUpdate for what no step leaves behind."""
    if optimizer == "adam" and state and (state[1] < 0).any():
        raise MalformedUpdate("A mean of squares is below 0.")


def turned(optimizer: str, before: Arrays, after: Arrays) -> float:
    """How far a state changed, in what it does to the steps that follow. Of Adam both which way they go and how long they are, weight by weight
    and in parts: what hardly moves counts as much as what moves most."""
    if optimizer == "momentum":
        return _norm(after[0] - before[0])
    (mean, gear), (then, geared) = _adam(before), _adam(after)
    return float(np.hypot(_norm(then / geared - mean / gear), _norm(np.log(geared / gear))))


def apart(optimizer: str, claimed: Arrays, replayed: Arrays) -> float:
    """How far a claimed state is from the replayed one, as a part of that one's own size; infinite if only the claim has any. No state: 0.

    Adam's by what it does: its means as the steps that they make; the squares as what they divide a usual gradient by. Their plain
    difference would let all be altered that is small, which is most.
    """
    if not claimed:
        return 0.0
    if optimizer == "momentum":
        return _relative(claimed[0] - replayed[0].astype(np.float64), replayed[0])
    (said, told), (mean, gear) = _adam(claimed, np.float64), _adam(replayed, np.float64)
    usual = (gear - EPSILON) / gear
    ratio = np.maximum(told / gear, gear / told) - 1
    return float(np.maximum(_relative((said - mean) / gear, mean / gear), _relative(ratio, usual)))


def _adam(state: Arrays, kind: Any = np.float32) -> tuple[np.ndarray, np.ndarray]:
    """(means, what they are divided by)."""
    mean, squares = state[0].astype(kind, copy=False), state[1].astype(kind, copy=False)
    return mean, np.sqrt(squares) + kind(EPSILON)


def _relative(gap: np.ndarray, whole: np.ndarray) -> float:
    far, size = _norm(gap), _norm(whole)
    return far / size if size else float(np.inf if far else 0.0)


def _norm(vector: np.ndarray) -> float:
    return float(np.sqrt(vector @ vector))
