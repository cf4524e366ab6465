"""Rounds of real training: MNIST's digits on DML, Flower and TensorFlow Federated, one after the other in the same run.

    make bench-digits        (ARGS="--alone" without the others; ARGS="--models mlp --rounds 5")

McMahan's 2NN ("mlp") and CNN: 8,000 digits in 4 shards, an epoch of each in batches of 20 a round, SGD with a rate of 0.1.
All three get the same start weights and shards, and take the samples in the same order. Ours and Flower's workers train with
the same code on one thread each; TFF is a simulator, all in one process on all cores. Accuracy: after the last round, on 2,000
digits held out; ours is what the platform measured, the others' end weights are measured here.
"""

import argparse
import os
import tempfile
from pathlib import Path

import numpy as np

from bench import flower, ours, report, tff_environment
from bench.case import SEED, Case, seeds
from bench.compression import digits
from dmlworker import datasets, models, trainer

WORKERS = 4
TITLES = {"mlp": "2NN", "cnn": "CNN"}


def case_of(kind: str, rounds: int) -> Case:
    train, holdout = digits()
    spec = models.spec(models.build_for(train, 10, kind))
    shards = [(part.x, part.y) for part in datasets.shards(train, WORKERS, SEED)]
    return Case(spec, trainer.initial_weights(spec, SEED), shards, (holdout.x, holdout.y), seeds(rounds, WORKERS))


def play_ours(kind: str, case: Case) -> report.Found:
    """On the whole platform, audits included. The last round lasts until it is checked, the others until the next one opens."""
    sql = """select extract(epoch from opened)::float8, extract(epoch from checked)::float8, accuracy
             from training_round where checked is not null order by number"""
    with ours.platform(WORKERS) as on:
        for number, key in enumerate(ours.open_market(on, case, len(case.seeds))):
            on.worker(str(number), key)
        rows = ours.wait_for(on, len(case.seeds), sql)
    opened, checked, accuracies = zip(*rows, strict=True)
    return report.summary(np.diff([*opened, checked[-1]]).tolist()) | {"accuracy": round(accuracies[-1], 4)}


def play_flower(kind: str, case: Case) -> report.Found:
    played = flower.play(case, len(case.seeds), idle=False)
    return report.summary(played.seconds) | {"accuracy": accuracy(case, played.weights)}


def play_tff(kind: str, case: Case) -> report.Found:
    with tempfile.TemporaryDirectory() as folder:
        file, end = case.save(Path(folder) / "case.npz"), Path(folder) / "end.npz"
        tff_environment.run("tff_rounds.py", kind, file, end, "--cores", str(os.cpu_count()))
        with np.load(end) as found:
            weights = [found[f"arr_{number}"] for number in range(len(case.start))]
            return report.summary(found["seconds"].tolist()) | {"accuracy": accuracy(case, weights)}


def accuracy(case: Case, weights: list[np.ndarray]) -> float:
    return round(trainer.evaluate(case.spec, weights, *case.holdout).accuracy, 4)


ENGINES = {"DML": play_ours, "Flower": play_flower, "TFF": play_tff}


def main() -> None:
    options = argparse.ArgumentParser()
    options.add_argument("--models", nargs="+", choices=TITLES, default=list(TITLES))
    options.add_argument("--rounds", type=int, default=10, help=f"the first {report.SKIPPED} are not counted")
    options.add_argument("--alone", action="store_true", help="without Flower and TFF")
    wanted = options.parse_args()
    rows = []
    for kind in wanted.models:
        case, found = case_of(kind, wanted.rounds), {}
        for name in ["DML"] if wanted.alone else ENGINES:
            found[name] = now = ENGINES[name](kind, case)
            cells = [report.shown(now), report.ratio(now, found["DML"]), f"{now['accuracy']:.2%}"]
            rows.append([TITLES[kind], name, *cells])
        report.keep("digits", {f"{TITLES[kind]}, {wanted.rounds} rounds": found})
    columns = ["model", "engine", "a round, mean (fastest)", "times ours", "accuracy"]
    report.show(f"{WORKERS} workers with {len(case.shards[0][1]):,} digits each, {wanted.rounds} rounds", columns, rows)


if __name__ == "__main__":
    main()
