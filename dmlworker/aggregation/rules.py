"""From a round's updates to one: the weighted mean, and rules that some cheats among the updates cannot lead astray.

All work on changes, local - start, in float64, a block of every update at a time: beside the result, memory is a block of each,
however large the model, if the updates lie in files (`weights.mapped`). The result depends on nothing but the updates in shard
order. n: updates, f: cheats that a rule is told to withstand.

    mean       sum n_k local_k / sum n_k; one cheat leads it anywhere      McMahan et al. 2016, https://arxiv.org/abs/1602.05629
    median     of each coordinate; n > 2f                                  Yin et al. 2018, https://arxiv.org/abs/1803.01498
    trimmed    mean of each coordinate without the f smallest and largest; n > 2f    the same
    krum       the one update nearest to its n-f-2 nearest; n >= 2f+3      Blanchard et al. 2017, https://arxiv.org/abs/1703.02757
    multikrum  mean of the n-f updates that Krum likes best; n >= 2f+3     the same
    bulyan     trimmed mean around the median of n-2f of Krum's choices; n >= 4f+3    El Mhamdi et al. 2018, https://arxiv.org/abs/1802.07927
    clipping   mean of changes that are shortened around a centre; n > 2f  Karimireddy et al. 2021, https://arxiv.org/abs/2012.10333
    rfa        geometric median; n > 2f                                    Pillutla et al. 2022, https://arxiv.org/abs/1912.13445
    fltrust    mean of changes by their cosine with the platform's own, at its length; n > f    Cao et al. 2021, https://arxiv.org/abs/2012.13995

Samples weigh in mean, multikrum, clipping and rfa. The others are told as their papers do, every update alike: a weight would give
one cheat the say of many.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from dmlworker.aggregation.average import Weights, blocks, fedavg

Updates = Sequence[tuple[Weights, int]]
ROUNDS = 5
"""Steps of centred clipping."""
STEPS, SMOOTHING = 300, 1e-6
"""Steps of Weiszfeld's algorithm for the geometric median, which halve what a cheat far away weighs; the distance, relative to the median of the changes' lengths, below
which one counts as this far."""
TINY = 1e-100
"""For what must not be divided by nought."""
AT_ONCE = 1 << 18
"""Changes of all updates together that are in memory at once: 2 MB."""


class Rule(NamedTuple):
    """`title`: for people. `needs(f)`: updates that it needs to withstand f cheats. `root`: it needs an update of the platform's own."""

    title: str
    needs: Callable[[int], int]
    root: bool = False


RULES = {
    "mean": Rule("Weighted mean", lambda f: 1),
    "median": Rule("Median of each weight", lambda f: 2 * f + 1),
    "trimmed": Rule("Trimmed mean", lambda f: 2 * f + 1),
    "krum": Rule("Krum", lambda f: 2 * f + 3),
    "multikrum": Rule("Multi-Krum", lambda f: 2 * f + 3),
    "bulyan": Rule("Bulyan", lambda f: 4 * f + 3),
    "clipping": Rule("Centred clipping", lambda f: 2 * f + 1),
    "rfa": Rule("Geometric median (RFA)", lambda f: 2 * f + 1),
    "fltrust": Rule("FLTrust", lambda f: f + 1, root=True),
}


def withstands(rule: str, n: int) -> int:
    """The largest number of cheats among n updates that a rule withstands; 0: it protects nothing."""
    return 0 if rule == "mean" else max((f for f in range(1, n + 1) if RULES[rule].needs(f) <= n), default=0)


def check(rule: str, n: int, f: int) -> None:
    """Raises ValueError, with the reason for people, if a rule told to withstand f cheats among n updates protects nothing. The mean
    does not claim to."""
    found = RULES[rule]
    if rule == "mean":
        return
    if f < 1:
        raise ValueError(
            f"{found.title} that withstands no cheat protects nothing: choose at least 1, or the weighted mean."
        )
    if found.needs(f) > n:
        cheats = "a cheat" if f == 1 else f"{f} cheats"
        most = withstands(rule, n)
        instead = f"; among {n} it withstands {most}" if most else f"; among {n} it withstands none"
        raise ValueError(f"{found.title} needs {found.needs(f)} providers to withstand {cheats}{instead}.")


def aggregate(rule: str, start: Weights, updates: Updates, f: int = 1, root: Weights | None = None) -> list[np.ndarray]:
    """What a rule makes of the updates (local_k, n_k), in shard order: weights, float32.

    start: the round's start weights. f: cheats to withstand; among too few updates, as many as can be. root: the platform's own
    update, for FLTrust. Raises ValueError for no updates, other shapes, no samples, or a root that is missing.
    """
    if rule == "mean":
        return fedavg(updates)
    if not updates or any(samples <= 0 for _, samples in updates):
        raise ValueError("Aggregation needs updates, each with at least one sample.")
    if RULES[rule].root and root is None:
        raise ValueError(f"{RULES[rule].title} needs the platform's own update.")
    locals_ = [local for local, _ in updates]
    if any([array.shape for array in local] != [array.shape for array in start] for local in locals_):
        raise ValueError("Updates have the shapes of the start weights.")
    samples = np.array([samples for _, samples in updates], np.float64)
    return _RULES[rule](start, locals_, samples / samples.sum(), min(f, withstands(rule, len(updates))), root)


# --- Coordinate by coordinate -------------------------------------------------------------------------------------------
def _median(
    start: Weights, updates: Sequence[Weights], shares: np.ndarray, f: int, root: Weights | None
) -> list[np.ndarray]:
    return _blockwise(start, updates, lambda changes: _middle(_sorted(changes)))


def _trimmed(
    start: Weights, updates: Sequence[Weights], shares: np.ndarray, f: int, root: Weights | None
) -> list[np.ndarray]:
    return _blockwise(start, updates, lambda changes: _sorted(changes)[:, f : len(changes) - f].mean(axis=1))


def _sorted(changes: np.ndarray) -> np.ndarray:
    """Each coordinate's changes in ascending order, (block, n): side by side in memory they are sorted five times as quickly."""
    found = np.ascontiguousarray(changes.T)
    found.sort(axis=1)
    return found


def _middle(ordered: np.ndarray) -> np.ndarray:
    """The median of each row: of an even number, the mean of the two in the middle."""
    n = ordered.shape[1]
    found: np.ndarray = ordered[:, (n - 1) // 2 : n // 2 + 1].mean(axis=1)
    return found


# --- By distance ------------------------------------------------------------------------------------------------------
def _krum(
    start: Weights, updates: Sequence[Weights], shares: np.ndarray, f: int, root: Weights | None
) -> list[np.ndarray]:
    best = _liked(_distances(gram(start, updates)), f)[0]
    return [np.array(array, np.float32) for array in updates[best]]


def _multikrum(
    start: Weights, updates: Sequence[Weights], shares: np.ndarray, f: int, root: Weights | None
) -> list[np.ndarray]:
    chosen = np.zeros(len(updates))
    chosen[_liked(_distances(gram(start, updates)), f)[: len(updates) - f]] = 1
    return _weighted(start, updates, chosen * shares / (chosen * shares).sum())


def _bulyan(
    start: Weights, updates: Sequence[Weights], shares: np.ndarray, f: int, root: Weights | None
) -> list[np.ndarray]:
    """Krum's choice, again and again among those that are left, n-2f times; of these in each coordinate the mean of the n-4f
    values nearest to their median."""
    distances, left, chosen = _distances(gram(start, updates)), list(range(len(updates))), []
    while len(chosen) < max(1, len(updates) - 2 * f):
        chosen.append(left.pop(_liked(distances[np.ix_(left, left)], f)[0]))
    most = max(1, len(chosen) - 2 * f)
    return _blockwise(
        start, [updates[index] for index in sorted(chosen)], lambda changes: _around_median(changes, most)
    )


def _around_median(changes: np.ndarray, most: int) -> np.ndarray:
    """The mean of so many values nearest to the median of each coordinate. In order, these are neighbours: the nearest run of them."""
    ordered = _sorted(changes)
    middle, best, found = _middle(ordered), np.full(len(ordered), np.inf), np.zeros(len(ordered))
    for first in range(ordered.shape[1] - most + 1):
        run = ordered[:, first : first + most]
        far = np.maximum(middle - run[:, 0], run[:, -1] - middle)
        np.copyto(found, run.mean(axis=1), where=far < best)
        np.minimum(best, far, out=best)
    return found


def _distances(products: np.ndarray) -> np.ndarray:
    """Squared distances, (n, n), from inner products."""
    squares = np.diag(products)
    found: np.ndarray = np.maximum(squares[:, None] + squares[None, :] - 2 * products, 0)
    return found


def _liked(distances: np.ndarray, f: int) -> np.ndarray:
    """Indices by Krum's score, the best first: the sum of squared distances to the n-f-2 nearest others."""
    others = np.sort(distances + np.diag(np.full(len(distances), np.inf)), axis=1)
    near = max(1, len(distances) - f - 2)
    return np.argsort(np.where(np.isinf(others), 0, others)[:, :near].sum(axis=1), kind="stable")


# --- By weights that depend on distance -------------------------------------------------------------------------------
def _clipping(
    start: Weights, updates: Sequence[Weights], shares: np.ndarray, f: int, root: Weights | None
) -> list[np.ndarray]:
    """Centre v = sum of coefficients times changes, from 0; again and again v += sum s_k min(1, r / |d_k - v|) (d_k - v). r: the
    median of the distances to the first centre, the changes' lengths, so that it needs no tuning."""
    products, centre = gram(start, updates), np.zeros(len(updates))
    radius = float(np.median(_from(products, centre)))
    for _ in range(ROUNDS):
        far = _from(products, centre)
        kept = shares * np.minimum(1, radius / np.maximum(far, TINY))
        centre = kept + (1 - kept.sum()) * centre
    return _weighted(start, updates, centre)


def _rfa(
    start: Weights, updates: Sequence[Weights], shares: np.ndarray, f: int, root: Weights | None
) -> list[np.ndarray]:
    """Smoothed Weiszfeld: the weighted mean, weighted anew with share / distance until it stays."""
    products, weights = gram(start, updates), shares
    least = max(SMOOTHING * float(np.median(_from(products, np.zeros(len(updates))))), TINY)
    for _ in range(STEPS):
        nearer = shares / np.maximum(_from(products, weights), least)
        weights = nearer / nearer.sum()
    return _weighted(start, updates, weights)


def _from(products: np.ndarray, coefficients: np.ndarray) -> np.ndarray:
    """Each change's distance from the point that is so many times each of them."""
    along = products @ coefficients
    squares = np.diag(products) - 2 * along + coefficients @ along
    found: np.ndarray = np.sqrt(np.maximum(squares, 0))
    return found


def _fltrust(
    start: Weights, updates: Sequence[Weights], shares: np.ndarray, f: int, root: Weights | None
) -> list[np.ndarray]:
    """Weights relu(cosine with the root's change) x root's length / own length. Where nobody points its way, the root itself."""
    assert root is not None
    products = gram(start, [*updates, root])
    lengths = np.sqrt(np.diag(products))
    own = lengths[-1]
    trust = np.maximum(products[-1, :-1] / np.maximum(lengths[:-1] * own, TINY), 0)
    if not trust.sum():
        return [np.array(array, np.float32) for array in root]
    return _weighted(start, updates, trust / trust.sum() * own / np.maximum(lengths[:-1], TINY))


Body = Callable[[Weights, Sequence[Weights], np.ndarray, int, Weights | None], list[np.ndarray]]
_RULES: dict[str, Body] = {
    "median": _median,
    "trimmed": _trimmed,
    "krum": _krum,
    "multikrum": _multikrum,
    "bulyan": _bulyan,
    "clipping": _clipping,
    "rfa": _rfa,
    "fltrust": _fltrust,
}


# --- A block at a time ------------------------------------------------------------------------------------------------
def gram(start: Weights, updates: Sequence[Weights]) -> np.ndarray:
    """Inner products of all changes with each other, (n, n)."""
    total = np.zeros((len(updates), len(updates)))
    for _, _, changes in _changes(start, updates):
        total += changes @ changes.T
    return total


def _weighted(start: Weights, updates: Sequence[Weights], coefficients: np.ndarray) -> list[np.ndarray]:
    return _blockwise(start, updates, lambda changes: coefficients @ changes)


def _blockwise(
    start: Weights, updates: Sequence[Weights], combine: Callable[[np.ndarray], np.ndarray]
) -> list[np.ndarray]:
    """start + combine(changes (n, block))."""
    found = [np.empty(array.shape, np.float32) for array in start]
    for number, part, changes in _changes(start, updates):
        found[number].reshape(-1)[part] = start[number].reshape(-1)[part] + combine(changes)
    return found


def _changes(start: Weights, updates: Sequence[Weights]) -> Iterator[tuple[int, slice, np.ndarray]]:
    """(number of the array, part of it, changes (n, block) in float64). The changes are valid until the next ones: fresh memory for
    each block would cost more than the arithmetic."""
    width = max(1, AT_ONCE // max(1, len(updates)))
    held = np.empty((len(updates), min(width, max(array.size for array in start))))
    for number, origin in enumerate(start if updates else ()):
        before, after = origin.reshape(-1), [update[number].reshape(-1) for update in updates]
        for part in blocks(before.size, width):
            changes = held[:, : part.stop - part.start]
            for change, values in zip(changes, after, strict=True):
                np.subtract(values[part], before[part], out=change, dtype=np.float64)
            yield number, part, changes
