"""How updates look beside each other, and whose work is replayed. Pure NumPy, float64.

The screen (`suspects`) only says whose work counts less, and is replayed first. What a replay says is `dmlworker/comparison.py`, which is the verdict.
Both look at deltas, local minus start: the weights themselves hardly change in a round.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from dmlworker import aggregation
from dmlworker.task import CLASSIFICATION, score_of

Weights = Sequence[np.ndarray]

# Thresholds, all but those of dmlworker/comparison.py. How they were found: docs/decisions/replay-tolerance.md.
SEGMENT_STEPS, DENSE_SEGMENT_STEPS = 5, 10
"""Steps between two checkpoints: so few that SGD can't amplify rounding much. Nets of dense layers only amplify it less."""
_DENSE = frozenset(
    {"InputLayer", "Rescaling", "Normalization", "Reshape", "Flatten", "Identity", "Dense", "Add", "Activation"}
    | {"ReLU", "LeakyReLU", "ELU", "Softmax", "LayerNormalization", "RMSNormalization"}
)
DRAWN_SEGMENTS = 2
"""Segments of an audited update that are drawn by chance, beside the first, the last and the one with the largest change."""
FAR_BELOW = 4
"""Replay: how far honest ones are from each other has to be so many times below the segment's change, and below what a claim is away from
each of them; otherwise nothing is proven."""
CHANGE_ROUNDING = 0.01
"""Replay: a trace says how far each segment moved, added up in float32."""
NORM_FACTOR = 1.8
"""Screen: longer than this times the median of the others, or shorter than that median divided by it."""
MIN_ALIGNMENT = -0.3
"""Screen: cosine with the mean of the others, and with the platform's own update. Honest updates share a direction at first; near
the end of a training they point anywhere, down to -0.21."""
MIN_ACCURACY = 0.8
"""Screen: the score on the hold-out as a part of the others' median. Of R² and of the labels' F1, 1 + score, so that who knows nothing, and
has 0, is where one is who guesses between two classes; by the score itself, all would look odd in early rounds, when it is little."""
PANEL_SAMPLES, PANEL_MOST, PANEL_LEAST = 800, 200, 50
"""Screen: of all shards together, of a shard at most, and at least; and so many as of all shards of the hold-out, to see whether an update
does better on its own shard, and how good it is."""
ROOT_SAMPLES = 100
"""Screen: of the hold-out, for the platform's own update."""
TWIN = 0.999
"""Screen: cosine between two updates above which one is taken for a copy of the other."""


def segment_steps(spec: dict[str, Any]) -> int:
    """Steps between two checkpoints for a model's Keras configuration."""
    layers = {str(layer["class_name"]) for layer in spec["config"]["layers"]}
    return DENSE_SEGMENT_STEPS if layers <= _DENSE else SEGMENT_STEPS


def audit_probability(streak: int, always: int, least: float) -> float:
    """How likely a piece of work is audited after so many audits passed in a row: certainly before `always` of them, then
    with 1/streak, never under `least`. BOINC's adaptive replication (https://github.com/BOINC/boinc/wiki/Adaptive_Replication)."""
    return 1.0 if streak < always else max(least, 1 / streak if streak else 0.0)


def proven(distances: Sequence[float], apart: float) -> bool:
    """Whether a claim that no replay agrees with is wrong for certain. distances: relative, from each replay; apart: the largest
    between honest replays, by other kernels and from weights off by their last bit."""
    return FAR_BELOW * apart <= 1 and min(distances) > FAR_BELOW * apart


@dataclass(frozen=True)
class Look:
    """How an update does on the panel: some samples of every shard and of the hold-out, the same ones for a whole run.

    own: the index of the shard that it was trained on. losses: on each shard's part, in their order. score: on the hold-out's, as the
    task has it; of classes in any unit."""

    own: int
    losses: tuple[float, ...]
    score: float


def panel_share(shards: int) -> int:
    """Samples of each of so many shards on the panel."""
    return min(PANEL_MOST, max(PANEL_LEAST, PANEL_SAMPLES // shards))


def suspects(
    start: Weights,
    updates: Sequence[Weights],
    root: Weights | None = None,
    looks: Sequence[Look] = (),
    task: str = CLASSIFICATION,
) -> dict[int, str]:
    """Which updates of a round look odd, by index, and why. Lowers a weight and orders an audit; proves nothing.

    root: the platform's own update, made of a part of the hold-out (FLTrust), where there is one. looks: at each of the updates, or
    none at all. It would rather name too many: if half a round cheats, nobody can tell from the numbers alone which half, and an audit
    costs a few steps.
    """
    products = aggregation.gram(start, [*updates, root] if root is not None else updates)
    others = products[: len(updates), : len(updates)]
    odd = [[_length(others, n), _direction(others, n), _twin(others, n)] for n in range(len(updates))]
    if root is not None:
        odd = [[*texts, _away(cosine)] for texts, cosine in zip(odd, _with_last(products), strict=True)]
    if looks:
        leads, scores = _leads(looks), np.array([look.score for look in looks])
        odd = [[*texts, _weak(scores, n, task), _free(leads[n])] for n, texts in enumerate(odd)]
    found = ["; ".join(text for text in texts if text) for texts in odd]
    return {index: text for index, text in enumerate(found) if text}


def counts(samples: Sequence[int], odd: Collection[int]) -> list[int]:
    """What updates of so many samples count in an average, if those at `odd` count half. Whole numbers, so that the average is exact."""
    return [count if index in odd and len(odd) < len(samples) else 2 * count for index, count in enumerate(samples)]


def _leads(looks: Sequence[Look]) -> list[tuple[float, float]]:
    """By how much each update's loss is below what is usual for the others', on its own shard and on all shards. Against the others on the
    same samples, a shard that is easy for all leads nowhere."""
    losses, found = np.array([look.losses for look in looks]), []
    for index, look in enumerate(looks):
        others = np.delete(losses, index, axis=0)
        lead = np.median(others, axis=0) - losses[index] if len(others) else np.zeros(losses.shape[1])
        found.append((float(lead[look.own]), float(lead.mean())))
    return found


def _free(lead: tuple[float, float]) -> str:
    """Work that was done on a shard leads there (after Templar's test for free-riders, who are no better on their own data than on other)."""
    own, all_ = lead
    return (
        f"does no better on its own shard than on others' (leads by {own:.2g}, by {all_:.2g} on all)"
        if own < all_
        else ""
    )


def _weak(scores: np.ndarray, index: int, task: str) -> str:
    """Against the median of the others: their best may be far from what is usual, when all are still weak."""
    if len(scores) < 2:
        return ""
    name, score, usual = score_of(task).name, float(scores[index]), float(np.median(np.delete(scores, index)))
    if task == CLASSIFICATION:
        return f"{name} is {score / usual:.0%} of the others' median" if score < MIN_ACCURACY * usual else ""
    known, much = max(0.0, 1 + score), max(0.0, 1 + usual)
    return f"{name} is {score:.2f}, the others' median is {usual:.2f}" if known < MIN_ACCURACY * much else ""


def _with_last(gram: np.ndarray) -> list[float]:
    """Each other change's cosine with the last one."""
    norms = np.sqrt(np.diag(gram))
    found = gram[-1, :-1] / np.maximum(norms[:-1] * norms[-1], np.finfo(float).tiny)
    return [float(cosine) for cosine in found]


def _away(cosine: float) -> str:
    return "" if not cosine <= MIN_ALIGNMENT else f"points away from the platform's own update (cosine {cosine:.2f})"


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
