"""TensorFlow Federated's seconds per round on a case of bench/case.py: its Federated Averaging, in one process.

    .bench/tff/bin/python bench/tff_rounds.py mlp|cnn CASE.npz END.npz [--cores 2]

In TFF's environment; use tff_environment.run from ours. Batches of 20, an epoch of every shard a round, a round for each row
of the case's seeds. END: the weights after the last round, and the seconds of each.
"""

import argparse
import time

import numpy as np
from tff_side import averaging, batches, begin, pin

BATCH, RATE = 20, 0.1


def shuffled(samples, seed):
    """A shard in the order that our trainer takes it in."""
    x, y = samples
    order = np.random.Generator(np.random.PCG64(seed)).permutation(len(y))
    return batches(x[order], y[order], BATCH)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", choices=("mlp", "cnn"))
    parser.add_argument("case")
    parser.add_argument("end")
    parser.add_argument("--cores", type=int, default=2)
    chosen = parser.parse_args()
    pin(chosen.cores)
    with np.load(chosen.case) as case:
        start, seeds = [case[name] for name in sorted(case) if name.startswith("start_")], case["seeds"]
        shards = [((case[f"x_{n}"] / 255).astype(np.float32), case[f"y_{n}"]) for n in range(seeds.shape[1])]
    process = averaging(chosen.model, RATE)
    state, moments = begin(process, start), [time.perf_counter()]
    for row in seeds:
        data = [shuffled(samples, seed) for samples, seed in zip(shards, row, strict=True)]
        state = process.next(state, data).state
        moments.append(time.perf_counter())
    weights = [np.asarray(weight) for weight in process.get_model_weights(state).trainable]
    np.savez(chosen.end, *weights, seconds=np.diff(moments))


if __name__ == "__main__":
    main()
