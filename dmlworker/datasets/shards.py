"""Cutting a data set: a hold-out that no provider sees, and shards of equal size, each with its share of every class, or of every part
of a target's range. And a shard as bytes."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import load as _load

from dmlworker.datasets import arrays, groups, limits
from dmlworker.datasets.dataset import Dataset, DatasetError
from dmlworker.datasets.limits import HOLDOUT
from dmlworker.task import MULTILABEL, REGRESSION

STRATUM = 10
"""Samples of a regression that lie next to one another by their target: of these the hold-out takes its share, and each shard."""

_TYPES = {"uint8": "U8", "uint16": "U16", "float32": "F32", "int32": "I32"}
"""What safetensors calls them."""

LARGE, SMALL = 3, 2
"""Sizes of the parts for faster and slower providers, in proportion. Not more apart, or honest updates of the larger ones would be so much longer that
the screen (training/evidence.py) took them for odd."""


def training_samples(n: int, grouped: bool = False) -> int:
    """Of n samples, those that are not held out; of groups, which stay whole, as few as that may be."""
    return n - (round(n * HOLDOUT * groups.MOST) if grouped else limits.held(n))


def split(dataset: Dataset, seed: int, holdout: float = HOLDOUT) -> tuple[Dataset, Dataset]:
    """(train, holdout), stratified: the hold-out has exactly round(n * holdout) samples, or MAX_HELD, each class its share of them; of a
    regression each STRATUM of the samples, sorted by target; of several labels those whose rarest one is the same.

    The same seed gives the same cut. Shares are rounded by the largest remainder; ties go to the lower class. Where samples are of
    groups, these stay whole, and the rest holds about: see `groups.split`, which raises DatasetError. Of more than MAX_HELD the others are in
    neither part, as their groups must not be.
    """
    if not 0 < holdout < 1:
        raise ValueError("holdout must lie between 0 and 1")
    random = np.random.Generator(np.random.PCG64(seed))
    if dataset.groups is not None:
        kept, held = groups.split(dataset, random, holdout)
    else:
        deck, sizes = _strata(dataset, random)
        kept, held = _parted(deck, sizes, _quotas(sizes, limits.held(len(dataset), holdout)))
    for indices in (kept, held):
        random.shuffle(indices)
    return dataset.take(kept), dataset.take(held[: limits.MAX_HELD])


def shards(train: Dataset, n: int, seed: int, sharding: str = "iid") -> list[Dataset]:
    """`n` parts that together are `train` exactly; sizes, and the count of each class or stratum, differ by at most one. sharding: "group"
    gives whole groups instead, sizes as even as these allow; "speed" makes the first half of the parts larger, LARGE to SMALL.

    Raises DatasetError if there are fewer samples, or groups, than shards.
    """
    if not 1 <= n <= len(train):
        raise DatasetError(f"{len(train):,} samples can't be shared among {n:,} providers.")
    random = np.random.Generator(np.random.PCG64(seed))
    # Sorted by class and dealt out like cards: that evens out the sizes and the classes at once.
    if sharding == "group":
        dealt = groups.dealt(train, n, random)
    else:
        deck, turns = _strata(train, random)[0], _turns(n, sharding)
        dealt = [_hand(deck, turns, number) for number in range(n)]
    for indices in dealt:
        random.shuffle(indices)
    return [train.rows(indices) for indices in dealt]


def _turns(n: int, sharding: str) -> list[int]:
    """Which part the cards of a deck go to, over and over again."""
    everyone, first = list(range(n)), list(range(n // 2))
    return SMALL * everyone + (LARGE - SMALL) * first if sharding == "speed" else everyone


def _hand(deck: np.ndarray, turns: list[int], number: int) -> np.ndarray:
    """The cards that a part is dealt."""
    hand = arrays.Growing((), deck.dtype)
    for place, part in enumerate(turns):
        if part == number:
            cards = deck[place :: len(turns)]
            for some in arrays.blocks(cards):
                hand.add(cards[some])
    return hand.done()


def few(x: arrays.Array, y: np.ndarray, most: int) -> tuple[arrays.Array, np.ndarray]:
    """At most so many samples, as evenly of all classes as there are, the first ones of each; of a regression, as evenly over the sorted
    targets. In their order; nothing else of x is read."""
    if y.dtype == np.float32:
        count = min(most, len(y))
        ranked = _ranked(y, _numbers_to(len(y)))
        chosen = np.sort(ranked[np.arange(count) * len(y) // count])
    else:
        chosen = _first_ones(_rarest(y) if y.ndim == 2 else y, most)
    return arrays.settled(arrays.Rows(x, chosen)), y[chosen]


def _numbers_to(n: int) -> np.ndarray:
    """(n,) int32, from 0 on."""
    found = arrays.empty((n,), np.int32)
    for part in arrays.blocks(found):
        found[part] = np.arange(part.start, part.stop)
    return found


def _first_ones(groups: np.ndarray, most: int) -> np.ndarray:
    """Sorted indices of so many of groups (n,): the first of each, then the second of each, and so on."""
    seen = np.zeros(1 + int(groups.max()), np.int64)
    places, turns = [], []
    for part in arrays.blocks(groups):
        some = groups[part].astype(np.uint16)  # sorted five times as fast as int32
        order, counts = np.argsort(some, kind="stable"), np.bincount(some, minlength=len(seen))
        turn = np.arange(len(some)) + np.repeat(seen - np.cumsum(counts) + counts, counts)
        places.append(part.start + order[turn < most])
        turns.append(turn[turn < most])
        seen += counts
    place, turn = np.concatenate(places), np.concatenate(turns)
    return np.sort(place[np.lexsort([place, turn])[:most]])


def _strata(dataset: Dataset, random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """(indices (n,) of all samples, sizes): the groups of which each part gets its share, one after the other, each shuffled: those of each
    class, stratum or rarest label."""
    if dataset.task == REGRESSION:
        return _strata_of_numbers(dataset.y, random)
    several, count = dataset.task == MULTILABEL, len(dataset.classes)
    place, strata = (_rarest(dataset.y), count + 1) if several else (dataset.y, count)
    sizes = arrays.counts(place, strata)
    deck, ends = _gathered(place, sizes), np.cumsum(sizes)
    for first, last in zip(ends - sizes, ends, strict=True):
        random.shuffle(deck[first:last])
    return deck, sizes


def _gathered(place: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """(n,) int32: where 0 stands in `place`, then where 1 does, and so on; sizes: how often each does."""
    deck, ends = arrays.empty((len(place),), np.int32), np.cumsum(sizes) - sizes
    for part in arrays.blocks(place):
        some = place[part].astype(np.uint16)  # sorted five times as fast as int32
        order = np.argsort(some, kind="stable")
        counts = np.bincount(some, minlength=len(sizes))
        deck[np.arange(len(some)) + np.repeat(ends - np.cumsum(counts) + counts, counts)] = order + part.start
        ends += counts
    return deck


def _strata_of_numbers(y: np.ndarray, random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """As `_strata`: STRATUM samples that are next to one another by their number, a few of one more."""
    mixed = _numbers_to(len(y))  # equal targets are next to one another by chance
    random.shuffle(mixed)
    deck = _ranked(y, mixed)
    strata = max(1, len(y) // STRATUM)
    sizes = arrays.empty((strata,), np.int32)
    sizes[:] = len(y) // strata
    sizes[: len(y) % strata] += 1
    rest = int((len(y) % strata) * sizes[0])
    for first in range(0, rest, int(sizes[0])):
        random.shuffle(deck[first : first + sizes[0]])
    rows = deck[rest:].reshape(-1, sizes[-1])
    random.permuted(rows, axis=1, out=rows)
    return deck, sizes


def _ranked(y: np.ndarray, mixed: np.ndarray) -> np.ndarray:
    """`mixed` sorted by y, a stable sort that takes no memory: the bits of floats, in the order of their values, before the place."""
    keys = arrays.empty((len(y),), np.uint64)
    for part in arrays.blocks(keys):
        bits = arrays.ordered(arrays.fetched(y, mixed[part])).astype(np.uint64)
        keys[part] = bits << np.uint64(32) | np.arange(part.start, part.stop, dtype=np.uint64)
    keys.sort()
    places = arrays.mapped(keys, lambda some: some & np.uint64(0xFFFFFFFF), np.int32)
    return arrays.take(mixed, places)


def _rarest(y: np.ndarray) -> np.ndarray:
    """For each sample of y (n, k), the rarest of its labels, the first of equally rare ones; k if it has none."""
    order = np.argsort(y.sum(axis=0, dtype=np.int64), kind="stable")

    def rarest(some: np.ndarray) -> np.ndarray:
        ranked = some[:, order] != 0
        return np.where(ranked.any(axis=1), order[ranked.argmax(axis=1)], y.shape[1])

    return arrays.mapped(y, rarest, np.int32)


def _quotas(counts: np.ndarray, total: int) -> np.ndarray:
    """`total` divided in proportion to `counts` (k,), by the largest remainder, in whole numbers only."""
    everything = int(counts.sum(dtype=np.int64))
    parts = list(arrays.blocks(counts))

    def rest(part: slice) -> np.ndarray:
        return counts[part].astype(np.int64) * total % everything

    quotas = arrays.mapped(counts, lambda some: some.astype(np.int64) * total // everything, np.int32)
    left = total - int(quotas.sum(dtype=np.int64))
    for most in sorted({value for part in parts for value in np.unique(rest(part)).tolist()}, reverse=True):
        for part in parts:
            neediest = part.start + np.flatnonzero(rest(part) == most)[:left]
            quotas[neediest] += 1
            left -= len(neediest)
    return quotas


def _parted(deck: np.ndarray, sizes: np.ndarray, quotas: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(the rest, the first ones of each stratum, as many as its quota), indices in the order of the deck."""
    ends = arrays.empty(sizes.shape, np.int64)
    last = 0
    for part in arrays.blocks(ends):
        ends[part] = last + np.cumsum(sizes[part], dtype=np.int64)
        last = ends[part][-1]
    kept, held = arrays.Growing((), np.int32), arrays.Growing((), np.int32)
    for part in arrays.blocks(deck):
        places = np.arange(part.start, part.stop)
        stratum = np.searchsorted(ends, places, side="right")
        first = places < ends[stratum] - sizes[stratum] + quotas[stratum]
        held.add(deck[part][first])
        kept.add(deck[part][~first])
    return kept.done(), held.done()


def dump(x: np.ndarray, y: np.ndarray, w: np.ndarray | None = None) -> bytes:
    """A shard as safetensors bytes: x uint8, uint16 (tokens) or float32, y int32 or, of a regression, float32, of
    several labels uint8 (n, k); w (n,) float32, what each sample counts in training, if not 1.
    Nothing else. The same arrays give the same bytes."""
    return b"".join(pieces(x, y, w))


def pieces(x: arrays.Array, y: np.ndarray, w: np.ndarray | None = None) -> Iterator[bytes]:
    """The bytes of `dump`, a few at a time."""
    tensors: dict[str, arrays.Array] = {"x": x, "y": y} | ({} if w is None else {"w": w})
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
        return _checked(_load(data))
    except (SafetensorError, ValueError, KeyError, TypeError) as error:
        raise _unreadable(error) from None


def mapped(path: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """As `load_weighted` of the file's bytes, read by the operating system as they are looked at: of any size, they take no memory of ours."""
    try:
        return _checked(_mapped(path))
    except (SafetensorError, ValueError, KeyError, TypeError) as error:
        raise _unreadable(error) from None


def _mapped(path: Path) -> dict[str, np.ndarray]:
    with safe_open(path, "np"):
        pass  # its header was checked: what it says of lengths and places is true
    data = np.asarray(np.memmap(path, np.uint8, mode="r"))
    first = 8 + int.from_bytes(data[:8].tobytes(), "little")
    entries, types = json.loads(data[8:first].tobytes()), {name: kind for kind, name in _TYPES.items()}
    entries.pop("__metadata__", None)
    found = {}
    for name, entry in entries.items():
        begin, end = entry["data_offsets"]
        found[name] = data[first + begin : first + end].view(types[entry["dtype"]]).reshape(entry["shape"])
    return found


def _unreadable(error: Exception) -> DatasetError:
    return error if isinstance(error, DatasetError) else DatasetError("The shard is no safetensors file.")


def _checked(tensors: Mapping[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    if tensors.keys() - {"w"} != {"x", "y"}:
        raise DatasetError("A shard holds x and y, weights maybe, and nothing else.")
    _check(tensors)
    return tensors["x"], tensors["y"], tensors.get("w")


def _check(tensors: Mapping[str, arrays.Array]) -> None:
    x, y, w = tensors["x"], tensors["y"], tensors.get("w")
    kinds = {np.dtype(np.int32): 1, np.dtype(np.float32): 1, np.dtype(np.uint8): 2}
    if x.dtype not in (np.uint8, np.uint16, np.float32) or kinds.get(y.dtype) != y.ndim:
        raise DatasetError("A shard's x is uint8, uint16 or float32, its y (n,) int32 or float32, or (n, k) uint8.")
    if x.ndim < 2 or len(x) != len(y) or not len(y):
        raise DatasetError("A shard's x and y must be equally long, and not empty.")
    if w is not None and (
        w.dtype != np.float32
        or w.shape != y.shape[:1]
        or not arrays.every(w, lambda some: (some > 0) & np.isfinite(some))
    ):
        raise DatasetError("A shard's weights are float32, one above 0 for each sample.")
