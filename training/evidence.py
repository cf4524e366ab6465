"""How updates look beside each other, and whose work is replayed. Pure NumPy, float64.

The screen (`suspects`) only says whose work to replay first. What a replay says is `dmlworker/comparison.py`, which is the verdict.
Both look at deltas, local minus start: the weights themselves hardly change in a round.
"""

from collections.abc import Sequence

import numpy as np

from dmlworker.aggregation import blocks

Weights = Sequence[np.ndarray]

# Thresholds, all but those of dmlworker/comparison.py. How they were found: docs/decisions/replay-tolerance.md.
SEGMENT_STEPS = 5
"""Steps between two checkpoints: so few that SGD can't amplify rounding much."""
DRAWN_SEGMENTS = 2
"""Segments of an audited update that are drawn by chance, beside the first, the last and the one with the largest change."""
FAR_BELOW = 4
"""Replay: two honest ones have to be so many times nearer to each other than a claim may be, or nothing is proven."""
CHANGE_ROUNDING = 0.01
"""Replay: a trace says how far each segment moved, added up in float32."""
NORM_FACTOR = 1.8
"""Screen: longer than this times the median of the others, or shorter than that median divided by it."""
MIN_ALIGNMENT = 0.0
"""Screen: cosine with the mean of the others; honest updates on even shards share a direction."""
MIN_ACCURACY = 0.8
"""Screen: hold-out accuracy as a part of the round's best."""
TWIN = 0.999
"""Screen: cosine between two updates above which one is taken for a copy of the other."""


def audit_probability(streak: int, always: int, least: float) -> float:
    """How likely a piece of work is audited after so many audits passed in a row: certainly before `always` of them, then
    with 1/streak, never under `least`. BOINC's adaptive replication (https://github.com/BOINC/boinc/wiki/Adaptive_Replication)."""
    return 1.0 if streak < always else max(least, 1 / streak if streak else 0.0)


def suspects(start: Weights, updates: Sequence[Weights], accuracies: Sequence[float]) -> dict[int, str]:
    """Which updates of a round look odd, by index, and why. Orders an audit; proves nothing.

    accuracies: of each update alone on the hold-out, in any unit (fractions or counts). It would rather name too many:
    if half a round cheats, nobody can tell from the numbers alone which half, and a replay costs one shard's training.
    """
    return {index: "; ".join(odd) for index, odd in enumerate(_looks(start, updates, accuracies)) if odd}


def _looks(start: Weights, updates: Sequence[Weights], accuracies: Sequence[float]) -> list[list[str]]:
    gram = _gram(start, updates)
    best = max(accuracies, default=0)
    found: list[list[str]] = []
    for index, accuracy in enumerate(accuracies):
        odd = [_length(gram, index), _direction(gram, index), _twin(gram, index)]
        if accuracy < MIN_ACCURACY * best:
            odd.append(f"accuracy is {accuracy / best:.0%} of the round's best")
        found.append([text for text in odd if text])
    return found


def _length(gram: np.ndarray, index: int) -> str:
    """Against the median of the others, so that two of four can't hide behind the median that they moved."""
    norms = np.sqrt(np.diag(gram))
    others = np.delete(norms, index)
    median = float(np.median(others)) if len(others) else float(norms[index])
    if median / NORM_FACTOR <= norms[index] <= median * NORM_FACTOR:
        return ""
    return f"the change is {norms[index] / median if median else np.inf:.2g} times the median of the others"


def _direction(gram: np.ndarray, index: int) -> str:
    """Cosine of one delta and the mean of the others' directions; from directions, a huge one has no more say."""
    norms = np.sqrt(np.diag(gram))
    cosines = gram / np.maximum(np.outer(norms, norms), np.finfo(float).tiny)
    others = [other for other in range(len(gram)) if other != index]
    length = np.sqrt(cosines[np.ix_(others, others)].sum())
    cosine = cosines[index, others].sum() / length if length > 0 else 0.0
    return "" if not others or cosine > MIN_ALIGNMENT else f"points away from the others (cosine {cosine:.2f})"


def _twin(gram: np.ndarray, index: int) -> str:
    norms = np.sqrt(np.diag(gram))
    for other in range(len(gram)):
        if other != index and gram[index, other] > TWIN * norms[index] * norms[other] > 0:
            return f"is nearly the same as update {other}"
    return ""


def _gram(start: Weights, updates: Sequence[Weights]) -> np.ndarray:
    """Inner products of all deltas with each other, (n, n). A block of every update at a time, to spare memory."""
    total = np.zeros((len(updates), len(updates)))
    for number, origin in enumerate(start if updates else ()):
        flat = origin.reshape(-1)
        for part in blocks(flat.size):
            deltas = np.stack([update[number].reshape(-1)[part] for update in updates], dtype=np.float64)
            deltas -= flat[part]
            total += deltas @ deltas.T
    return total
