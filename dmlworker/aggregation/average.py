"""Federated Averaging (McMahan et al. 2016, https://arxiv.org/abs/1602.05629), a block at a time, in float64."""

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

Weights = Sequence[np.ndarray]

BLOCK = 1 << 16
"""Values worked on at once, so that what is between two steps stays in the processor's cache."""

THREADS = min(os.cpu_count() or 1, 4)
"""Memory is what averaging waits for: more than a few threads gain nothing."""

WORTH_A_THREAD = 1 << 20
"""Values; fewer are done before a thread has begun."""


def blocks(size: int, most: int = BLOCK) -> Iterator[slice]:
    """Consecutive parts of so many values, each small enough for the processor's cache."""
    return (slice(first, min(first + most, size)) for first in range(0, size, most))


def fedavg(updates: Sequence[tuple[Weights, int]]) -> list[np.ndarray]:
    """sum n_k local_k / sum n_k, float32, for updates (local_k, n_k) in the order given.

    A block of every update at a time: beside the result, memory is one block, however many updates there are, if they lie in
    files (`weights.mapped`). The sum depends on the order of adding, to the last bit; give them in shard order, and it does not
    matter who answered first. Sums of float32 times whole numbers in float64 lose nothing that a float32 could show: 29 bits
    are spare. n_k: samples, as the platform counted them. Raises ValueError for no updates, no samples or other shapes.
    """
    if not updates or any(samples <= 0 for _, samples in updates):
        raise ValueError("An average needs updates, each with at least one sample.")
    shapes = [array.shape for array in updates[0][0]]
    if any([array.shape for array in local] != shapes for local, _ in updates):
        raise ValueError("Updates to average have the same shapes.")
    counts = [samples for _, samples in updates]
    return [_mean(arrays, counts) for arrays in zip(*(local for local, _ in updates), strict=True)]


def _mean(arrays: Sequence[np.ndarray], counts: Sequence[int]) -> np.ndarray:
    mean = np.empty(arrays[0].shape, np.float32)
    flat, result = [np.ascontiguousarray(array).reshape(-1) for array in arrays], mean.reshape(-1)
    share = max(-(-mean.size // THREADS), WORTH_A_THREAD)
    parts = [([array[part] for array in flat], counts, result[part]) for part in blocks(mean.size, share)]
    if len(parts) > 1:
        with ThreadPoolExecutor(len(parts)) as pool:
            list(pool.map(_into, *zip(*parts, strict=True)))
    else:
        for part in parts:
            _into(*part)
    return mean


def _into(arrays: Sequence[np.ndarray], counts: Sequence[int], mean: np.ndarray) -> None:
    """The mean of flat arrays, written into another. Each value's sum is taken in the order given, whoever takes it."""
    sums, weighted, total = np.empty(BLOCK), np.empty(BLOCK), sum(counts)
    for part in blocks(mean.size):
        size = part.stop - part.start
        done, more = sums[:size], weighted[:size]
        done[:] = 0
        for array, samples in zip(arrays, counts, strict=True):
            more[:] = array[part]
            more *= samples
            done += more
        done /= total
        mean[part] = done
