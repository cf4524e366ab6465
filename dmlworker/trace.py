"""What a worker commits to while it trains: its weights, and what its optimizer remembers, after every few steps, each known by their hash.

The Merkle root goes into Commit, before the worker can know where the platform will look. Asked later for some segments, it
shows the whole trace and the checkpoints around those segments; the platform then does their few steps again.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from math import isfinite
from typing import NamedTuple

import numpy as np

from dmlworker import merkle
from dmlworker.optimizers import SLOTS, empty, turned
from dmlworker.protocol import Hyper
from dmlworker.weights import MalformedUpdate

Weights = Sequence[np.ndarray]
_LINE = re.compile(rb"([0-9a-f]{64}) (\S{1,30})(?: (\S{1,30}))?")
LINE = 128
"""Bytes of a line, at most."""


class Segment(NamedTuple):
    """sha256: of the checkpoint after it, as `weights.pack` gives it. change: |after - before| of the weights, the length of its step. turn: how far
    what the optimizer remembers changed (`optimizers.turned`); none if it remembers nothing."""

    sha256: str
    change: float
    turn: float | None = None


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

    @property
    def sharpest(self) -> int:
        """The segment after the first in which the optimizer's state turned most: where a lie about it would be, that would carry the weights off in
        the segments that follow, each of them done as it should be. Without a state, the first."""
        later = range(1, len(self.segments)) if self.remembers else range(0)
        return max(later, key=lambda number: self.segments[number].turn or 0.0, default=0)

    @property
    def remembers(self) -> bool:
        """Whether it is of an optimizer with a state."""
        return self.segments[0].turn is not None

    def asked(self, drawn: Iterable[int]) -> list[int]:
        """The segments that an audit looks at: those drawn, the first, the last, and the ones with the largest change and the sharpest turn."""
        return sorted({0, self.largest, self.sharpest, len(self.segments) - 1, *drawn})

    def to_bytes(self) -> bytes:
        """A line for each segment."""
        return b"\n".join(self._lines())

    @classmethod
    def from_bytes(cls, data: bytes) -> "Trace":
        """Raises MalformedUpdate for anything that `to_bytes` does not write."""
        matches = [_LINE.fullmatch(line) for line in data.split(b"\n")]
        try:
            found = cls(tuple(_segment(match) for match in matches if match))
        except ValueError:
            found = cls(())
        numbers = [number for each in found.segments for number in (each.change, each.turn or 0.0)]
        sound = all(isfinite(number) and number >= 0 for number in numbers)
        if len({each.turn is None for each in found.segments}) != 1 or not sound or found.to_bytes() != data:
            raise MalformedUpdate("Not a trace of a training.")
        return found

    def _lines(self) -> Iterator[bytes]:
        for segment in self.segments:
            turn = "" if segment.turn is None else f" {segment.turn!r}"
            yield f"{segment.sha256} {segment.change!r}{turn}".encode()


def _segment(line: re.Match[bytes]) -> Segment:
    """Raises ValueError."""
    return Segment(line[1].decode(), float(line[2]), None if line[3] is None else float(line[3]))


class Recorder:
    """Makes a trace: to be called with the checkpoint after each segment. `keep` is given each checkpoint's number, from 1, and
    arrays, and returns their hash."""

    def __init__(self, start: Weights, keep: Callable[[int, Weights], str], optimizer: str = "sgd") -> None:
        self._before = [array.astype(np.float32, copy=True) for array in start]
        self._keep, self._optimizer = keep, optimizer
        self._state: Weights = ()
        self._segments: list[Segment] = []

    def __call__(self, checkpoint: Weights) -> None:
        count = len(self._before)
        change, turn = self._moved(checkpoint[:count]), self._turned(checkpoint[count:])
        self._segments.append(Segment(self._keep(len(self._segments) + 1, checkpoint), change, turn))

    def _turned(self, state: Weights) -> float | None:
        """None without a state. The last checkpoint has none: nothing goes on from it."""
        if not SLOTS[self._optimizer]:
            return None
        if not state:
            return 0.0
        before, self._state = self._state or empty(self._optimizer, len(state[0])), [slot.copy() for slot in state]
        return turned(self._optimizer, before, state)

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
