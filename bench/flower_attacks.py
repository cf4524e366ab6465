"""Three simple cheats against Flower's own averaging, run by bench/attacks.py in Flower's environment. Prints JSON.

One of four workers sends -100 for every weight, where the others send about 1. Flower's functions are told just what its strategies
tell them: the numbers of samples as the workers report them, and the updates as they came.
"""

import json
from importlib.metadata import version

import numpy as np
from flwr.server.strategy.aggregate import aggregate, aggregate_trimmed_avg

SIZE, SAMPLES = 1000, 1000


def main() -> None:
    random = np.random.default_rng(1)
    honest = [[random.normal(1, 0.1, SIZE)] for _ in range(3)]
    cheat, broken = [np.full(SIZE, -100.0)], [np.where(np.arange(SIZE) == 7, np.nan, 1.0)]
    alike = [(update, SAMPLES) for update in honest]
    inflated = aggregate([*alike, (cheat, 10**9)])[0]
    spread = aggregate([*alike, (broken, SAMPLES)])[0]
    trimmed = aggregate_trimmed_avg([*alike, (cheat, SAMPLES)], 0.2)[0]
    found = {
        "flower": version("flwr"),
        "inflated": float(inflated.mean()),
        "not_finite": int((~np.isfinite(spread)).sum()),
        "trimmed": float(trimmed.mean()),
        "mean": float(aggregate([*alike, (cheat, SAMPLES)])[0].mean()),
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main()
