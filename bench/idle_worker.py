"""A worker that does nothing, for bench/rounds.py: the whole conversation and all the bytes, and hardly any arithmetic.

What it sends is near the start weights, and like and unlike the others' as honest updates are, so that no audit is ordered.
"""

import asyncio
import sys
from typing import Any

import numpy as np

from dmlworker.__main__ import parser, run
from dmlworker.cache import Cache
from dmlworker.client import Settings, Worker
from dmlworker.display import Display
from dmlworker.protocol import Offer
from dmlworker.weights import pack, unpack

PATTERN = 1024


class SmallCache(Cache):
    """Keeps the last round only, so that many workers fit onto one disk."""

    def prune(self, max_bytes: int = 0) -> None:
        largest = max((path.stat().st_size for path in self._blobs.iterdir()), default=0)
        super().prune(3 * largest)


class IdleWorker(Worker):
    def __init__(self, settings: Settings, display: Display) -> None:
        super().__init__(settings, display)
        self._cache = SmallCache(settings.folder)

    def _warm_up(self) -> str:
        return "nothing"

    def _train(self, offer: Offer, spec: bytes, weights: bytes, shard: bytes, loop: asyncio.AbstractEventLoop) -> bytes:
        arrays: list[np.ndarray[Any, Any]] = unpack(weights)
        step = np.float32(1e-4 if offer.lease.round % 2 else -1e-4)  # there and back: the accuracy stays
        own = np.random.default_rng(offer.lease.shard).integers(1, 3, PATTERN).astype(np.float32) * step
        for array in arrays:
            flat, whole = array.reshape(-1), array.size - array.size % PATTERN
            flat[:whole].reshape(-1, PATTERN)[:] += own
            flat[whole:] += own[: array.size - whole]
        return pack(arrays)


if __name__ == "__main__":
    options = parser().parse_args()
    sys.exit(run(Settings(options.server, options.key, options.cache, 1), IdleWorker))
