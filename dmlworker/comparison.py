"""How a claimed piece of training compares with the same steps done again. Pure NumPy, float64.

The platform's audits and whoever verifies a receipt use the same measure and the same tolerance. Both look at changes, end minus
start: the weights themselves hardly change in a few steps. What an optimizer remembers is looked at as it is.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from dmlworker import optimizers

Weights = Sequence[np.ndarray]

# How these were found: docs/decisions/replay-tolerance.md.
MAX_RELATIVE = 0.1
"""A segment done again and an honest claim differ by rounding alone: by 1e-6, and where it tips a pooling, by 0.025."""
COMPRESSED = {"none": 0.0, "fp16": 0.001, "int8": 0.1}
"""How much of the whole change of the weights a compressed update may be off, error feedback included."""


class Distance(NamedTuple):
    """relative: |claimed - replayed| / |replayed - start|; infinite if only the claim moved. cosine: of the two changes."""

    relative: float
    cosine: float


def compare(start: Weights, claimed: Weights, replayed: Weights) -> Distance:
    """How far a claim is from its replay; (0, 1) if they are the same. Shapes must agree."""
    first, second = _delta(start, claimed), _delta(start, replayed)
    gap, moved = _norm(first - second), _norm(second)
    if gap == 0:
        return Distance(0.0, 1.0)
    return Distance(gap / moved if moved else math.inf, _cosine(first, second))


def compare_checkpoints(optimizer: str, weights: int, start: Weights, claimed: Weights, replayed: Weights) -> Distance:
    """As `compare`, of checkpoints, which have so many arrays of weights; of the two distances, the weights' and the state's, the larger one. Without
    a state, as the last checkpoint is, the weights' alone."""
    far = compare(start[:weights], claimed[:weights], replayed[:weights])
    state = optimizers.apart(optimizer, claimed[weights:], replayed[weights:])
    return far._replace(relative=float(np.maximum(far.relative, state)))  # not a number, if either is not


def agrees(distance: Distance, allowed: float = MAX_RELATIVE) -> bool:
    """Whether a claim is what an honest worker could have computed."""
    return distance.relative <= allowed


def allowed(compression: str, whole: float, segment: float) -> float:
    """The largest relative distance of a training's last segment, which moved so far (`segment`) of the `whole` change of the
    weights: what a compressed update is off is a part of the whole."""
    off = COMPRESSED[compression]
    if not off:
        return MAX_RELATIVE
    return MAX_RELATIVE + (off * whole / segment if segment else math.inf)


def length(first: Weights, second: Weights) -> float:
    """|second - first|."""
    return _norm(_delta(first, second))


def _delta(start: Weights, end: Weights) -> np.ndarray:
    pairs = zip(start, end, strict=True)
    return np.concatenate([(after.astype(np.float64) - before).ravel() for before, after in pairs])


def _norm(vector: np.ndarray) -> float:
    return float(np.linalg.norm(vector))


def _cosine(first: np.ndarray, second: np.ndarray) -> float:
    lengths = _norm(first) * _norm(second)
    return float(first @ second / lengths) if lengths else 0.0
