"""Replay one segment of a local training in a process of its own.

    python -m training.replay FOLDER SEGMENT

FOLDER holds `spec` and `hyper` (JSON), `start`, `shard` and `at`, the weights that the segment begins with (safetensors); the
result is written there as `end`. No Django.
"""

import json
import sys
from pathlib import Path

from dmlworker import trainer
from dmlworker.protocol import Hyper
from dmlworker.trace import steps_of_segment
from dmlworker.weights import pack, unpack
from training import datasets


def main(folder: Path, segment: int) -> None:
    trainer.threads(1)
    hyper = Hyper(**json.loads((folder / "hyper").read_text()))
    x, y = datasets.load((folder / "shard").read_bytes())
    start, at = (unpack((folder / name).read_bytes()) for name in ("start", "at"))
    steps = steps_of_segment(segment, len(y), hyper)
    end = trainer.replay(json.loads((folder / "spec").read_text()), start, x, y, hyper, at, steps)
    (folder / "end").write_bytes(pack(end))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
