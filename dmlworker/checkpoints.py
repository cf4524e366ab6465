"""The checkpoints along the way of one training, kept until the platform asks for some of them or lets them go.

Where the disk allowance is short every second checkpoint goes, then every fourth, ... From the nearest one that is left the
training is gone on with: the same machine gives the same bits.
"""

import contextlib
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from dmlworker.cache import blob_of, write
from dmlworker.trace import Trace
from dmlworker.weights import MalformedUpdate, pieces, unpack

MAX_BYTES, MAX_FILES = 10**9, 10_000
"""Of one training."""


class Checkpoints:
    """A folder of its own for one piece of work; it is made when there is something to put there."""

    def __init__(self, folder: Path, max_bytes: int = MAX_BYTES) -> None:
        self._folder, self._max_bytes = folder, max_bytes
        self._stride, self._used, self._count = 1, 0, 0

    def keep(self, number: int, weights: Sequence[np.ndarray]) -> str:
        """The hash of the weights after so many segments. A full disk is no reason to stop training: what is missing is
        computed again."""
        parts = pieces(weights)
        blob = blob_of(parts)
        if number % self._stride == 0:
            with contextlib.suppress(OSError):
                self._write(str(number), *parts)
                self._used, self._count = self._used + blob.size, self._count + 1
                self._thin_out()
        return blob.sha256

    def _write(self, name: str, *parts: bytes | memoryview) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        write(self._folder / name, *parts)

    def _thin_out(self) -> None:
        while self._count and (self._used > self._max_bytes or self._count > MAX_FILES):
            self._stride *= 2
            for number in self._numbers():
                if number % self._stride:
                    self._used, self._count = self._used - self._path(number).stat().st_size, self._count - 1
                    self._path(number).unlink()

    def nearest(self, number: int) -> tuple[int, list[np.ndarray]] | None:
        """The last kept checkpoint up to this one, and its weights."""
        for kept in sorted(self._numbers(), reverse=True):
            if kept <= number:
                with contextlib.suppress(OSError, MalformedUpdate):
                    return kept, unpack(self._path(kept).read_bytes())
        return None

    def finish(self, trace: Trace) -> None:
        with contextlib.suppress(OSError):
            self._write("trace", trace.to_bytes())

    def trace(self) -> Trace | None:
        """Of the finished training, if it is still here."""
        try:
            return Trace.from_bytes((self._folder / "trace").read_bytes())
        except (OSError, MalformedUpdate):
            return None

    def remove(self) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)

    def _numbers(self) -> list[int]:
        return [int(path.name) for path in self._folder.glob("*") if path.name.isdecimal()]

    def _path(self, number: int) -> Path:
        return self._folder / str(number)
