"""What a benchmark trains, as one NPZ file that every engine reads: model, start weights, shards, hold-out, sample orders.

NumPy only, for it is also read in Flower's environment; TFF's side reads the file as it is.
"""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

SEED = 1
Samples = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True)
class Case:
    """`spec`: the model, as `dmlworker.models.spec` gives it. `seeds` (rounds, shards): of the order in which the samples of
    a shard are taken in a round."""

    spec: dict[str, Any]
    start: list[np.ndarray]
    shards: list[Samples]
    holdout: Samples
    seeds: np.ndarray

    def save(self, file: Path) -> Path:
        arrays = {f"start_{number:03d}": array for number, array in enumerate(self.start)}
        for number, (x, y) in enumerate(self.shards):
            arrays |= {f"x_{number}": x, f"y_{number}": y}
        x, y = self.holdout
        np.savez(file, spec=json.dumps(self.spec), seeds=self.seeds, holdout_x=x, holdout_y=y, **arrays)
        return file

    @classmethod
    def load(cls, file: Path) -> "Case":
        with np.load(file) as found:
            return cls(
                spec=json.loads(str(found["spec"])),
                start=[found[name] for name in sorted(found) if name.startswith("start_")],
                shards=[(found[f"x_{n}"], found[f"y_{n}"]) for n in range(found["seeds"].shape[1])],
                holdout=(found["holdout_x"], found["holdout_y"]),
                seeds=found["seeds"],
            )


def seeds(rounds: int, shards: int) -> np.ndarray:
    """The seeds that `training.actions.seed_of` gives the leases of a run with SEED."""
    texts = [[f"{SEED}:{round_}:{shard}" for shard in range(shards)] for round_ in range(1, rounds + 1)]
    drawn = [[int.from_bytes(hashlib.sha256(text.encode()).digest()[:4]) for text in row] for row in texts]
    return np.array(drawn, np.int64).reshape(rounds, shards)
