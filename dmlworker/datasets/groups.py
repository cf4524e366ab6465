"""Rows of one person, patient, machine: together on one side of the hold-out, and with one provider if that is asked for."""

import numpy as np

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
    held = chosen[dataset.groups]
    share = held.mean() / holdout
    if not 1 / MOST <= share <= MOST:
        raise DatasetError(
            "The groups are too large to hold about a fifth of the rows out without cutting one. Is it the right column?"
        )
    return np.flatnonzero(~held), np.flatnonzero(held)


def too_few(groups: int) -> DatasetError:
    return DatasetError(
        f"There are {groups:,} groups; at least {MIN_GROUPS} are needed, so that some can be held out whole. Is it the right column?"
    )


def counted(dataset: Dataset) -> np.ndarray:
    """(groups, classes) int64: rows of each; a target without classes counts as one."""
    assert dataset.groups is not None
    classes = len(dataset.classes) if dataset.y.dtype == np.int32 else 1
    labels = dataset.y if dataset.y.dtype == np.int32 else np.zeros(len(dataset), np.int32)
    size = int(dataset.groups.max()) + 1
    found = np.bincount(dataset.groups.astype(np.int64) * classes + labels, minlength=size * classes)
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
    names, places = np.unique(dataset.groups, return_inverse=True)
    if len(names) < n:
        raise DatasetError(f"{len(names):,} groups can't be shared among {n:,} providers, each whole.")
    sizes = np.bincount(places)
    shuffled = random.permutation(len(names))
    part, filled = np.empty(len(names), np.int64), np.zeros(n, np.int64)
    for group in shuffled[np.argsort(-sizes[shuffled], kind="stable")]:
        part[group] = filled.argmin()
        filled[part[group]] += sizes[group]
    return [random.permutation(np.flatnonzero(part[places] == number)) for number in range(n)]
