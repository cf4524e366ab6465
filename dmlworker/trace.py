"""What a worker commits to while it trains: its weights after every few steps, each known by its hash.

The Merkle root goes into Commit, before the worker can know where the platform will look. Asked later for some segments, it
shows the whole trace and the weights around those segments; the platform then does their few steps again.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from math import isfinite
from typing import NamedTuple

import numpy as np

from dmlworker import merkle
from dmlworker.protocol import Hyper
from dmlworker.weights import MalformedUpdate

Weights = Sequence[np.ndarray]
_LINE = re.compile(rb"([0-9a-f]{64}) (\S{1,30})")
LINE = 96
"""Bytes of a line, at most."""


class Segment(NamedTuple):
    """sha256: of the weights after it, as `weights.pack` gives them. change: |after - before|, the length of its step."""

    sha256: str
    change: float


@dataclass(frozen=True)
class Trace:
    """The segments of a training, in order. Each begins where the one before ended, the first at the round's start."""

    segments: tuple[Segment, ...]

    @property
    def root(self) -> str:
        return merkle.root(list(self._lines()))

    @property
    def largest(self) -> int:
        """The segment with the largest change: where a lie that matters would be."""
        return max(range(len(self.segments)), key=lambda number: self.segments[number].change)

    def asked(self, drawn: Iterable[int]) -> list[int]:
        """The segments that an audit looks at: those drawn, the first, the last, and the one with the largest change."""
        return sorted({0, self.largest, len(self.segments) - 1, *drawn})

    def to_bytes(self) -> bytes:
        """A line for each segment."""
        return b"\n".join(self._lines())

    @classmethod
    def from_bytes(cls, data: bytes) -> "Trace":
        """Raises MalformedUpdate for anything that `to_bytes` does not write."""
        matches = [_LINE.fullmatch(line) for line in data.split(b"\n")]
        try:
            found = cls(tuple(Segment(match[1].decode(), float(match[2])) for match in matches if match))
        except ValueError:
            found = cls(())
        sound = all(isfinite(each.change) and each.change >= 0 for each in found.segments)
        if not found.segments or not sound or found.to_bytes() != data:
            raise MalformedUpdate("Not a trace of a training.")
        return found

    def _lines(self) -> Iterator[bytes]:
        return (f"{segment.sha256} {segment.change!r}".encode() for segment in self.segments)


class Recorder:
    """Makes a trace: to be called with the weights after each segment. `keep` is given each checkpoint's number, from 1, and
    weights, and returns their hash."""

    def __init__(self, start: Weights, keep: Callable[[int, Weights], str]) -> None:
        self._before = [array.astype(np.float32, copy=True) for array in start]
        self._keep = keep
        self._segments: list[Segment] = []

    def __call__(self, weights: Weights) -> None:
        change = self._moved(weights)
        self._segments.append(Segment(self._keep(len(self._segments) + 1, weights), change))

    def _moved(self, weights: Weights) -> float:
        squares = 0.0
        for before, after in zip(self._before, weights, strict=True):
            np.subtract(after, before, out=before)
            flat = before.reshape(-1)
            squares += float(flat @ flat)
            np.copyto(before, after)
        return float(np.sqrt(squares))

    @property
    def trace(self) -> Trace:
        return Trace(tuple(self._segments))


def steps_of(samples: int, hyper: Hyper) -> int:
    """Steps of SGD in a whole training."""
    return hyper.epochs * -(-samples // hyper.batch_size)


def steps_of_segment(number: int, samples: int, hyper: Hyper) -> range:
    """The steps, from 0, of a segment."""
    first = number * hyper.checkpoint_every
    return range(first, min(first + hyper.checkpoint_every, steps_of(samples, hyper)))


def segments_of(samples: int, hyper: Hyper) -> int:
    """How many segments a trace has; the last one may be shorter than `hyper.checkpoint_every`."""
    return -(-steps_of(samples, hyper) // hyper.checkpoint_every)
