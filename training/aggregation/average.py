"""Federated Averaging (McMahan et al. 2016, https://arxiv.org/abs/1602.05629), streaming, in float64."""

import math
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

Weights = Sequence[np.ndarray]

BLOCK = 1 << 16
"""Values worked on at once, so that what is between two steps stays in the processor's cache."""


class Mean:
    """The weighted mean of updates added one after another; memory is one model in float64, however many there are.

    The sum depends on the order of adding, to the last bit; add in shard order, and it does not matter who answered first.
    Sums of float32 times whole numbers in float64 lose nothing that a float32 could show: 29 bits are spare.
    """

    def __init__(self, shapes: Sequence[tuple[int, ...]]) -> None:
        self._shapes = list(shapes)
        self._sums = [np.zeros(math.prod(shape), np.float64) for shape in shapes]
        self._total = 0
        self._scratch = np.empty(BLOCK, np.float64)

    def add(self, local: Weights, samples: int) -> None:
        """Adds `samples` x local. Raises ValueError for other shapes, or no samples."""
        if samples <= 0 or [array.shape for array in local] != self._shapes:
            raise ValueError("An update needs the shapes of the model's weights, and at least one sample.")
        for total, array in zip(self._sums, local, strict=True):
            self._add(total, np.ascontiguousarray(array).reshape(-1), samples)
        self._total += samples

    def _add(self, total: np.ndarray, local: np.ndarray, samples: int) -> None:
        for part in blocks(total.size):
            weighted = self._scratch[: part.stop - part.start]
            weighted[...] = local[part]
            weighted *= samples
            total[part] += weighted

    def result(self) -> list[np.ndarray]:
        """The mean, float32. It takes the place of the sums: nothing can be added any more. Raises ValueError if nothing
        was."""
        if not self._total:
            raise ValueError("There are no updates to average.")
        divided, self._total = [self._divide(total) for total in self._sums], 0
        return [mean.reshape(shape) for mean, shape in zip(divided, self._shapes, strict=True)]

    def _divide(self, total: np.ndarray) -> np.ndarray:
        """The first half of the sums' own memory, which each block leaves behind before it is written to."""
        mean = total.view(np.float32)[: total.size]
        for part in blocks(total.size):
            quotient = np.divide(total[part], self._total, out=self._scratch[: part.stop - part.start])
            mean[part] = quotient
        return mean


def blocks(size: int) -> Iterator[slice]:
    """Consecutive parts of so many values, each small enough for the processor's cache."""
    return (slice(first, min(first + BLOCK, size)) for first in range(0, size, BLOCK))


def fedavg(updates: Iterable[tuple[Weights, int]]) -> list[np.ndarray]:
    """sum n_k local_k / sum n_k, float32, for updates (local_k, n_k) in the order given.

    Takes one update at a time from `updates`, so a generator keeps memory flat. n_k: samples, as the platform counted them.
    Raises ValueError for no updates, no samples or other shapes.
    """
    mean: Mean | None = None
    for local, samples in updates:
        mean = mean or Mean([array.shape for array in local])
        mean.add(local, samples)
    if mean is None:
        raise ValueError("There are no updates to average.")
    return mean.result()
