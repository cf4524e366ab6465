"""Cutting a data set: a hold-out that no provider sees, and shards of equal size, each with its share of every class, or of every part
of a target's range. And a shard as bytes."""

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load as _load
from safetensors.numpy import save as _save

from dmlworker.datasets.dataset import Dataset, DatasetError
from dmlworker.task import MULTILABEL, REGRESSION

STRATUM = 10
"""Samples of a regression that lie next to one another by their target: of these the hold-out takes its share, and each shard."""


def split(dataset: Dataset, seed: int, holdout: float = 0.2) -> tuple[Dataset, Dataset]:
    """(train, holdout), stratified: the hold-out has exactly round(n * holdout) samples, each class its share of them; of a
    regression each STRATUM of the samples, sorted by target; of several labels those whose rarest one is the same.

    The same seed gives the same cut. Shares are rounded by the largest remainder; ties go to the lower class.
    """
    if not 0 < holdout < 1:
        raise ValueError("holdout must lie between 0 and 1")
    random = np.random.Generator(np.random.PCG64(seed))
    groups = _groups(dataset, random)
    quotas = _quotas([len(group) for group in groups], round(len(dataset) * holdout))
    held = np.concatenate([group[:quota] for group, quota in zip(groups, quotas, strict=True)])
    kept = np.concatenate([group[quota:] for group, quota in zip(groups, quotas, strict=True)])
    return dataset.take(random.permutation(kept)), dataset.take(random.permutation(held))


def shards(train: Dataset, n: int, seed: int) -> list[Dataset]:
    """`n` parts that together are `train` exactly; sizes, and the count of each class or stratum, differ by at most one.

    Raises DatasetError if there are fewer samples than shards.
    """
    if not 1 <= n <= len(train):
        raise DatasetError(f"{len(train):,} samples can't be shared among {n:,} providers.")
    random = np.random.Generator(np.random.PCG64(seed))
    # Sorted by class and dealt out like cards: that evens out the sizes and the classes at once.
    deck = np.concatenate(_groups(train, random))
    return [train.take(random.permutation(deck[first::n])) for first in range(n)]


def few(x: np.ndarray, y: np.ndarray, most: int) -> tuple[np.ndarray, np.ndarray]:
    """At most so many samples, as evenly of all classes as there are, the first ones of each; of a regression, as evenly over the sorted
    targets. Copies, in their order."""
    if y.dtype == np.float32:
        ranked = np.argsort(y, kind="stable")
        chosen = np.sort(ranked[np.arange(min(most, len(y))) * len(y) // min(most, len(y))])
        return x[chosen], y[chosen]
    groups, turn = _rarest(y) if y.ndim == 2 else y, np.empty(len(y), np.int64)
    for index in np.unique(groups):
        mine = groups == index
        turn[mine] = np.arange(mine.sum())
    chosen = np.sort(np.argsort(turn, kind="stable")[:most])
    return x[chosen], y[chosen]


def _groups(dataset: Dataset, random: np.random.Generator) -> list[np.ndarray]:
    """The indices of all samples in groups of which each part gets its share: those of each class, stratum or rarest label,
    shuffled."""
    if dataset.task == REGRESSION:
        mixed = random.permutation(len(dataset))  # equal targets are next to one another by chance
        ranked = mixed[np.argsort(dataset.y[mixed], kind="stable")]
        return [random.permutation(part) for part in np.array_split(ranked, max(1, len(ranked) // STRATUM))]
    several, count = dataset.task == MULTILABEL, len(dataset.classes)
    place, groups = (_rarest(dataset.y), count + 1) if several else (dataset.y, count)
    return [random.permutation(np.flatnonzero(place == index)) for index in range(groups)]


def _rarest(y: np.ndarray) -> np.ndarray:
    """For each sample of y (n, k), the rarest of its labels, the first of equally rare ones; k if it has none."""
    order = np.argsort(y.sum(axis=0, dtype=np.int64), kind="stable")
    ranked = y[:, order] != 0
    found: np.ndarray = np.where(ranked.any(axis=1), order[ranked.argmax(axis=1)], y.shape[1])
    return found


def _quotas(counts: list[int], total: int) -> list[int]:
    """`total` divided in proportion to `counts`, by the largest remainder, in whole numbers only."""
    everything = sum(counts)
    quotas = [count * total // everything for count in counts]
    neediest = sorted(range(len(counts)), key=lambda index: (-(counts[index] * total % everything), index))
    for index in neediest[: total - sum(quotas)]:
        quotas[index] += 1
    return quotas


def dump(x: np.ndarray, y: np.ndarray) -> bytes:
    """A shard as safetensors bytes: x uint8 or float32, y int32; of a regression float32, of several labels
    uint8 (n, k); nothing else. The same arrays give the same bytes."""
    _check(x, y)
    return bytes(_save({"x": np.ascontiguousarray(x), "y": np.ascontiguousarray(y)}))


def load(data: bytes) -> tuple[np.ndarray, np.ndarray]:
    """(x, y) as `dump` was given them. Raises DatasetError for anything else."""
    try:
        tensors = _load(data)
    except (SafetensorError, ValueError, KeyError, TypeError):
        raise DatasetError("The shard is no safetensors file.") from None
    if tensors.keys() != {"x", "y"}:
        raise DatasetError("A shard holds x and y and nothing else.")
    _check(tensors["x"], tensors["y"])
    return tensors["x"], tensors["y"]


def _check(x: np.ndarray, y: np.ndarray) -> None:
    kinds = {np.dtype(np.int32): 1, np.dtype(np.float32): 1, np.dtype(np.uint8): 2}
    if x.dtype not in (np.uint8, np.float32) or kinds.get(y.dtype) != y.ndim:
        raise DatasetError("A shard's x is uint8 or float32, its y (n,) int32 or float32, or (n, k) uint8.")
    if x.ndim < 2 or len(x) != len(y) or not len(y):
        raise DatasetError("A shard's x and y must be equally long, and not empty.")
