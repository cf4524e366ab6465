"""TensorFlow Federated's seconds per round: one epoch over 4 clients of 2,000 digits each, batch 20, in one process.

    .bench/tff/bin/python bench/tff_rounds.py mlp|cnn [--rounds 5] [--cores 2] [--digits FILE.npz]

In TFF's environment; use tff_environment.run from ours. Prints JSON: seconds of each round after the first two, which
compile. FILE holds x (n, 28, 28) uint8 and y (n,); without it the pixels are random, which takes the same time.
"""

import argparse
import json
import time

import numpy as np
from tff_side import averaging, batches, begin, network, pin

CLIENTS, SAMPLES, BATCH, RATE = 4, 2000, 20, 0.1


def digits(path):
    if path:
        with np.load(path) as file:
            return file["x"][: CLIENTS * SAMPLES], file["y"][: CLIENTS * SAMPLES]
    random = np.random.Generator(np.random.PCG64(0))
    count = CLIENTS * SAMPLES
    return random.integers(0, 256, (count, 28, 28), np.uint8), random.integers(0, 10, count, np.int32)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", choices=("mlp", "cnn"))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--cores", type=int, default=2)
    parser.add_argument("--digits")
    chosen = parser.parse_args()
    pin(chosen.cores)
    x, y = digits(chosen.digits)
    x, y = (x / 255).astype(np.float32), y.astype(np.int32)
    data = [batches(x[first::CLIENTS], y[first::CLIENTS], BATCH) for first in range(CLIENTS)]
    process = averaging(chosen.model, RATE)
    state, seconds = begin(process, network(chosen.model).get_weights()), []
    for _ in range(2 + chosen.rounds):
        began = time.perf_counter()
        state = process.next(state, data).state
        seconds.append(round(time.perf_counter() - began, 3))
    print(json.dumps({"model": chosen.model, "seconds": seconds[2:], "best": min(seconds[2:])}))


if __name__ == "__main__":
    main()
