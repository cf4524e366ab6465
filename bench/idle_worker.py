"""A worker that does nothing, for bench/rounds.py: the whole conversation and all the bytes, and hardly any arithmetic.

What it sends is near the start weights, and like and unlike the others' as honest updates are, so that the screen orders no audit;
none is drawn by chance there (bench/ours.py).
"""

import asyncio
import sys
from collections.abc import Sequence

import numpy as np

from dmlworker.__main__ import parser, run
from dmlworker.client import Files, Settings, Worker
from dmlworker.protocol import Offer
from dmlworker.weights import Bytes, pieces, unpack

PATTERN = 1024


class IdleWorker(Worker):
    def _warm_up(self) -> str:
        return "nothing"

    def _train(self, offer: Offer, files: Files, loop: asyncio.AbstractEventLoop) -> tuple[Sequence[Bytes], str]:
        step = np.float32(1e-4 if offer.lease.round % 2 else -1e-4)  # there and back: the accuracy stays
        own = np.random.default_rng(offer.lease.shard).integers(1, 3, PATTERN).astype(np.float32) * step
        return pieces([array + np.resize(own, array.shape[-1]) for array in unpack(files.weights)]), "0" * 64


if __name__ == "__main__":
    options = parser().parse_args()
    sys.exit(run(Settings(options.server, options.key, options.cache, 1), IdleWorker))
