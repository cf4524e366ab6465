"""Replay one segment of a local training in a process of its own.

    python -m training.replay FOLDER SEGMENT

FOLDER holds `spec` and `hyper` (JSON), `start`, `shard` and `at`, the checkpoint that the segment begins with (safetensors). The
result is written there as `end-0`; `end-1` and on are what comes of weights that are off by their last bit: where these
differ, rounding alone decides where the segment ends. No Django.
"""

import json
import sys
from pathlib import Path

import numpy as np

from dmlworker import datasets, trainer
from dmlworker.protocol import Hyper
from dmlworker.trace import steps_of_segment
from dmlworker.weights import pack, unpack

Weights = list[np.ndarray]


def main(folder: Path, segment: int) -> None:
    trainer.threads(1)
    hyper = Hyper(**json.loads((folder / "hyper").read_text()))
    x, y, w = datasets.mapped(folder / "shard")
    start, at = (unpack((folder / name).read_bytes()) for name in ("start", "at"))
    steps = steps_of_segment(segment, len(y), hyper)
    spec = json.loads((folder / "spec").read_text())
    for number, begun in enumerate([at, *nudged(at, len(start))]):
        (folder / f"end-{number}").write_bytes(pack(trainer.replay(spec, start, x, y, hyper, begun, steps, w=w)))


def nudged(checkpoint: Weights, count: int) -> list[Weights]:
    """The first `count` arrays, the weights, off by their last bit: all upwards, all downwards, and to either side by chance. What the optimizer
    remembers stays as it is: its rounding does nothing that the weights' does not."""
    weights, state, random = checkpoint[:count], checkpoint[count:], np.random.default_rng(1)
    up, down = ([np.nextafter(array, np.float32(way)) for array in weights] for way in (np.inf, -np.inf))
    mixed = [np.where(random.random(a.shape) < 0.5, a, b) for a, b in zip(up, down, strict=True)]
    return [[*each, *state] for each in (up, down, mixed)]


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
