"""Cutting a data set: a hold-out that no provider sees, and shards of equal size, each with its share of every class, or of every part
of a target's range. And a shard as bytes."""

import json
from collections.abc import Iterator

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load as _load

from dmlworker.datasets import arrays, groups
from dmlworker.datasets.dataset import Dataset, DatasetError
from dmlworker.task import MULTILABEL, REGRESSION

STRATUM = 10
"""Samples of a regression that lie next to one another by their target: of these the hold-out takes its share, and each shard."""

_TYPES = {"uint8": "U8", "uint16": "U16", "float32": "F32", "int32": "I32"}
"""What safetensors calls them."""

HOLDOUT = 0.2
"""Of the samples."""
LARGE, SMALL = 3, 2
"""Sizes of the parts for faster and slower providers, in proportion. Not more apart, or honest updates of the larger ones would be so much longer that
the screen (training/evidence.py) took them for odd."""


def training_samples(n: int, grouped: bool = False) -> int:
    """Of n samples, those that are not held out; of groups, which stay whole, as few as that may be."""
    return n - round(n * HOLDOUT * (groups.MOST if grouped else 1))


def split(dataset: Dataset, seed: int, holdout: float = HOLDOUT) -> tuple[Dataset, Dataset]:
    """(train, holdout), stratified: the hold-out has exactly round(n * holdout) samples, each class its share of them; of a
    regression each STRATUM of the samples, sorted by target; of several labels those whose rarest one is the same.

    The same seed gives the same cut. Shares are rounded by the largest remainder; ties go to the lower class. Where samples are of
    groups, these stay whole, and the rest holds about: see `groups.split`, which raises DatasetError.
    """
    if not 0 < holdout < 1:
        raise ValueError("holdout must lie between 0 and 1")
    random = np.random.Generator(np.random.PCG64(seed))
    if dataset.groups is not None:
        kept, held = groups.split(dataset, random, holdout)
        return dataset.take(random.permutation(kept)), dataset.take(random.permutation(held))
    strata = _strata(dataset, random)
    quotas = _quotas([len(each) for each in strata], round(len(dataset) * holdout))
    held = np.concatenate([each[:quota] for each, quota in zip(strata, quotas, strict=True)])
    kept = np.concatenate([each[quota:] for each, quota in zip(strata, quotas, strict=True)])
    return dataset.take(random.permutation(kept)), dataset.take(random.permutation(held))


def shards(train: Dataset, n: int, seed: int, sharding: str = "iid") -> list[Dataset]:
    """`n` parts that together are `train` exactly; sizes, and the count of each class or stratum, differ by at most one. sharding: "group"
    gives whole groups instead, sizes as even as these allow; "speed" makes the first half of the parts larger, LARGE to SMALL.

    Raises DatasetError if there are fewer samples, or groups, than shards.
    """
    if not 1 <= n <= len(train):
        raise DatasetError(f"{len(train):,} samples can't be shared among {n:,} providers.")
    random = np.random.Generator(np.random.PCG64(seed))
    if sharding == "group":
        return [train.take(indices) for indices in groups.dealt(train, n, random)]
    # Sorted by class and dealt out like cards: that evens out the sizes and the classes at once.
    deck, turns = np.concatenate(_strata(train, random)), _turns(n, sharding)
    hands = [[deck[place :: len(turns)] for place, part in enumerate(turns) if part == number] for number in range(n)]
    return [train.take(random.permutation(np.concatenate(hand))) for hand in hands]


def _turns(n: int, sharding: str) -> list[int]:
    """Which part the cards of a deck go to, over and over again."""
    everyone, first = list(range(n)), list(range(n // 2))
    return SMALL * everyone + (LARGE - SMALL) * first if sharding == "speed" else everyone


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


def _strata(dataset: Dataset, random: np.random.Generator) -> list[np.ndarray]:
    """The indices of all samples in groups of which each part gets its share: those of each class, stratum or rarest label,
    shuffled."""
    # int32: half the memory where there are tens of millions.
    if dataset.task == REGRESSION:
        mixed = random.permutation(len(dataset)).astype(np.int32)  # equal targets are next to one another by chance
        ranked = mixed[np.argsort(dataset.y[mixed], kind="stable")]
        return [random.permutation(part) for part in np.array_split(ranked, max(1, len(ranked) // STRATUM))]
    several, count = dataset.task == MULTILABEL, len(dataset.classes)
    place, strata = (_rarest(dataset.y), count + 1) if several else (dataset.y, count)
    return [random.permutation(np.flatnonzero(place == index).astype(np.int32)) for index in range(strata)]


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


def dump(x: np.ndarray, y: np.ndarray, w: np.ndarray | None = None) -> bytes:
    """A shard as safetensors bytes: x uint8, uint16 (tokens) or float32, y int32 or, of a regression, float32, of
    several labels uint8 (n, k); w (n,) float32, what each sample counts in training, if not 1.
    Nothing else. The same arrays give the same bytes."""
    return b"".join(pieces(x, y, w))


def pieces(x: np.ndarray, y: np.ndarray, w: np.ndarray | None = None) -> Iterator[bytes]:
    """The bytes of `dump`, a few at a time."""
    tensors = {"x": x, "y": y} | ({} if w is None else {"w": w})
    _check(tensors)
    # In the order of safetensors' own writer: what has the longest values first, then by name.
    ordered = sorted(tensors.items(), key=lambda pair: (-pair[1].itemsize, pair[0]))
    entries, end = {}, 0
    for name, array in ordered:
        begin, end = end, end + array.nbytes
        entries[name] = {"dtype": _TYPES[array.dtype.name], "shape": list(array.shape), "data_offsets": [begin, end]}
    header = json.dumps(entries, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)
    yield len(header).to_bytes(8, "little") + header
    for _, array in ordered:
        yield from (array[part].tobytes() for part in arrays.blocks(array))


def load(data: bytes) -> tuple[np.ndarray, np.ndarray]:
    """(x, y) as `dump` was given them. Raises DatasetError for anything else."""
    return load_weighted(data)[:2]


def load_weighted(data: bytes) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """(x, y, w) as `dump` was given them. Raises DatasetError for anything else."""
    try:
        tensors = _load(data)
    except (SafetensorError, ValueError, KeyError, TypeError):
        raise DatasetError("The shard is no safetensors file.") from None
    if tensors.keys() - {"w"} != {"x", "y"}:
        raise DatasetError("A shard holds x and y, weights maybe, and nothing else.")
    _check(tensors)
    return tensors["x"], tensors["y"], tensors.get("w")


def _check(tensors: dict[str, np.ndarray]) -> None:
    x, y, w = tensors["x"], tensors["y"], tensors.get("w")
    kinds = {np.dtype(np.int32): 1, np.dtype(np.float32): 1, np.dtype(np.uint8): 2}
    if x.dtype not in (np.uint8, np.uint16, np.float32) or kinds.get(y.dtype) != y.ndim:
        raise DatasetError("A shard's x is uint8, uint16 or float32, its y (n,) int32 or float32, or (n, k) uint8.")
    if x.ndim < 2 or len(x) != len(y) or not len(y):
        raise DatasetError("A shard's x and y must be equally long, and not empty.")
    if w is not None and (
        w.dtype != np.float32 or w.shape != y.shape[:1] or not (w > 0).all() or not np.isfinite(w).all()
    ):
        raise DatasetError("A shard's weights are float32, one above 0 for each sample.")
