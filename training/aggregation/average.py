"""Federated Averaging (McMahan et al. 2016, https://arxiv.org/abs/1602.05629), streaming, in float64."""

from collections.abc import Iterable, Iterator, Sequence

import numpy as np

Weights = Sequence[np.ndarray]

BLOCK = 1 << 15
"""Values worked on at once, so that what is between two steps stays in the processor's cache."""


class Mean:
    """The weighted mean of updates added one after another; memory is one model in float64, however many there are.

    It is the deltas (local - start) that are summed: they are small beside the weights, so less is rounded away. The sum
    depends on the order of adding, to the last bit; add in shard order, and it does not matter who answered first.
    """

    def __init__(self, start: Weights) -> None:
        self._start = [np.ascontiguousarray(array, dtype=np.float32) for array in start]
        self._sums = [np.zeros(array.size, np.float64) for array in self._start]
        self._total = 0
        self._scratch = np.empty(BLOCK, np.float64)

    def add(self, local: Weights, samples: int) -> None:
        """Adds `samples` x (local - start). Raises ValueError for another shape or no samples."""
        if samples <= 0 or [array.shape for array in local] != [array.shape for array in self._start]:
            raise ValueError("An update needs the shapes of the start weights, and at least one sample.")
        for total, start, array in zip(self._sums, self._start, local, strict=True):
            self._add(total, start.reshape(-1), np.ascontiguousarray(array).reshape(-1), samples)
        self._total += samples

    def _add(self, total: np.ndarray, start: np.ndarray, local: np.ndarray, samples: int) -> None:
        for part in _blocks(total.size):
            delta = self._scratch[: part.stop - part.start]
            np.subtract(local[part], start[part], out=delta, dtype=np.float64)
            delta *= samples
            total[part] += delta

    def result(self) -> list[np.ndarray]:
        """start + mean delta, float32. Raises ValueError if nothing was added."""
        if not self._total:
            raise ValueError("There are no updates to average.")
        return [self._moved(start, total) for start, total in zip(self._start, self._sums, strict=True)]

    def _moved(self, start: np.ndarray, total: np.ndarray) -> np.ndarray:
        moved, flat = np.empty(start.size, np.float32), start.reshape(-1)
        for part in _blocks(total.size):
            mean = np.divide(total[part], self._total, out=self._scratch[: part.stop - part.start])
            mean += flat[part]
            moved[part] = mean
        return moved.reshape(start.shape)


def _blocks(size: int) -> Iterator[slice]:
    return (slice(first, min(first + BLOCK, size)) for first in range(0, size, BLOCK))


def fedavg(start: Weights, updates: Iterable[tuple[Weights, int]]) -> list[np.ndarray]:
    """start + sum n_k (local_k - start) / sum n_k, float32, for updates (local_k, n_k) in the order given.

    Takes one update at a time from `updates`, so a generator keeps memory flat. n_k: samples, as the platform counted them.
    Raises ValueError for no updates, no samples or other shapes.
    """
    mean = Mean(start)
    for local, samples in updates:
        mean.add(local, samples)
    return mean.result()
