"""Rows of one person, patient, machine: together on one side of the hold-out, and with one provider if that is asked for."""

import numpy as np

from dmlworker.datasets import arrays
from dmlworker.datasets.dataset import Dataset, DatasetError

MIN_GROUPS = 5
"""Fewer can't be cut near a fifth."""
MOST = 2.0
"""Times as large as asked for, the hold-out may become with large groups; as small as one part in so many."""


def split(dataset: Dataset, random: np.random.Generator, holdout: float) -> tuple[np.ndarray, np.ndarray]:
    """(kept, held), indices. Whole groups are held out, the largest first, each if it brings the classes' counts nearer to their share and
    leaves some of every class. Raises DatasetError if there are too few groups, or too large ones."""
    counts = counted(dataset)
    if len(counts) < MIN_GROUPS:
        raise too_few(len(counts))
    chosen = _chosen(counts, random, holdout)
    assert dataset.groups is not None
    share = counts[chosen].sum() / len(dataset) / holdout
    if not 1 / MOST <= share <= MOST:
        raise DatasetError(
            "The groups are too large to hold about a fifth of the rows out without cutting one. Is it the right column?"
        )
    kept, held = _sorted_out(dataset.groups, chosen.astype(np.int64), 2)
    return kept, held


def _sorted_out(groups: np.ndarray, parts: np.ndarray, count: int) -> list[np.ndarray]:
    """The indices of the rows that each part gets; parts: of each group, its number."""
    found = [arrays.Growing((), np.int32) for _ in range(count)]
    for some in arrays.blocks(groups):
        part = parts[groups[some]]
        for number, each in enumerate(found):
            each.add(np.flatnonzero(part == number) + some.start)
    return [each.done() for each in found]


def too_few(groups: int) -> DatasetError:
    return DatasetError(
        f"There are {groups:,} groups; at least {MIN_GROUPS} are needed, so that some can be held out whole. Is it the right column?"
    )


def counted(dataset: Dataset) -> np.ndarray:
    """(groups, classes) int64: rows of each; a target without classes counts as one."""
    assert dataset.groups is not None
    classes = len(dataset.classes) if dataset.y.dtype == np.int32 else 1
    size = 1 + int(dataset.groups.max())
    found = np.zeros(size * classes, np.int64)
    for part in arrays.blocks(dataset.groups):
        labels = dataset.y[part] if dataset.y.dtype == np.int32 else 0
        np.add.at(found, dataset.groups[part].astype(np.int64) * classes + labels, 1)
    return found.reshape(size, classes)


def _chosen(counts: np.ndarray, random: np.random.Generator, holdout: float) -> np.ndarray:
    """(groups,) bool."""
    total = counts.sum(axis=0)
    wanted, held = total * holdout, np.zeros(len(total))
    chosen = np.zeros(len(counts), bool)
    scale = 1 / np.maximum(wanted, 1)
    shuffled = random.permutation(len(counts))
    for group in shuffled[np.argsort(-counts[shuffled].sum(axis=1), kind="stable")]:
        after = held + counts[group]
        nearer = np.square((after - wanted) * scale).sum() < np.square((held - wanted) * scale).sum()
        if nearer and (after < total)[total > 0].all():
            held, chosen[group] = after, True
    return chosen


def dealt(dataset: Dataset, n: int, random: np.random.Generator) -> list[np.ndarray]:
    """The indices of `n` parts, whole groups each, the largest group first to the part that has least. Raises DatasetError if there are
    fewer groups than parts."""
    assert dataset.groups is not None
    counts = np.zeros(1 + int(dataset.groups.max()), np.int64)
    for some in arrays.blocks(dataset.groups):
        np.add.at(counts, dataset.groups[some], 1)
    names = np.flatnonzero(counts)
    if len(names) < n:
        raise DatasetError(f"{len(names):,} groups can't be shared among {n:,} providers, each whole.")
    part, filled = np.zeros(len(counts), np.int64), np.zeros(n, np.int64)
    shuffled = names[random.permutation(len(names))]
    for group in shuffled[np.argsort(-counts[shuffled], kind="stable")]:
        part[group] = filled.argmin()
        filled[part[group]] += counts[group]
    return _sorted_out(dataset.groups, part, n)
