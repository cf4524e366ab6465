"""Replay one piece of local training in a process of its own.

    python -m training.replay FOLDER

FOLDER holds `spec` and `hyper` (JSON), `start` and `shard` (safetensors); the result is written there as `end`. No Django.
"""

import json
import sys
from pathlib import Path

from dmlworker import trainer
from dmlworker.protocol import Hyper
from dmlworker.weights import pack, unpack
from training import datasets


def main(folder: Path, hyper: Hyper) -> None:
    trainer.threads(1)
    x, y = datasets.load((folder / "shard").read_bytes())
    spec, start = json.loads((folder / "spec").read_text()), unpack((folder / "start").read_bytes())
    (folder / "end").write_bytes(pack(trainer.train(spec, start, x, y, hyper)))


if __name__ == "__main__":
    place = Path(sys.argv[1])
    main(place, Hyper(**json.loads((place / "hyper").read_text())))
