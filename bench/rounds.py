"""Rounds in which the workers do nothing: what is left is the engine. Seconds from one round to the next, and memory; ours
and then Flower's in the same run.

    make bench-rounds        (ARGS="--alone" without Flower; ARGS="--workers 16 --megabytes 1 10 --rounds 22")

Ours: the whole platform (ours.py), and every worker a process of its own that speaks the real protocol over WebSocket and
HTTP (idle_worker.py). Flower: its deployment mode (flower.py).
"""

import argparse
from collections.abc import Callable

import numpy as np

from bench import flower, ours, report
from bench.case import Case, seeds
from bench.processes import Memory, children, family, processor_seconds
from dmlsite.supervisor import Platform
from dmlworker import models, trainer

FEATURES, SAMPLES = 20, 20
ENDLESS = 10**9
"""Rounds of the ticket: it does not come near its end."""


def idle(megabytes: int, workers: int) -> Case:
    """A dense net of so many MB of weights, and hardly any data."""
    import keras

    width = round((megabytes * 250_000) ** 0.5)
    layers = [keras.layers.Dense(width, activation="relu") for _ in range(2)]
    last = [keras.layers.Dense(2), keras.layers.Activation("softmax")]
    spec = models.spec(keras.Sequential([keras.Input((FEATURES,)), *layers, *last]))
    x = np.random.default_rng(1).normal(size=(SAMPLES, FEATURES)).astype(np.float32)
    y = np.arange(SAMPLES, dtype=np.int32) % 2
    shards = [(x + number, y) for number in range(workers)]
    return Case(spec, trainer.initial_weights(spec, 1), shards, (x, y), seeds(0, workers))


def start_apart(on: Platform, keys: list[str]) -> None:
    """Every worker a process of its own."""
    for number, key in enumerate(keys):
        env = {"DML_SERVER": on.url, "DML_KEY": key}
        cache = on.layout.var / "workers" / str(number)
        on.spawn(f"worker-{number}", "-m", "bench.idle_worker", "--cache", str(cache), env=env)


def play_ours(case: Case, rounds: int, start: Callable[[Platform, list[str]], None] = start_apart) -> report.Found:
    with ours.platform(len(case.shards), audits=False) as on:
        start(on, ours.open_market(on, case, ENDLESS))
        begun = len(ours.opened(on, report.SKIPPED + 1))
        server = {name: group for name, group in ours.groups(on).items() if name != "workers"}
        with Memory(server) as memory:
            before = used(on)
            moments = ours.opened(on, rounds + 1)
            after = used(on)
    return {
        **report.summary(np.diff(moments).tolist()),
        "memory": memory.most,
        "processor": {name: round((after[name] - before[name]) / (len(moments) - begun), 3) for name in after},
    }


def used(on: Platform) -> dict[str, float]:
    known = children()
    return {name: processor_seconds(family(group, known)) for name, group in ours.groups(on).items()}


def play_flower(case: Case, rounds: int) -> report.Found:
    played = flower.play(case, rounds, idle=True)
    return {**report.summary(played.seconds), "memory": {"together": played.megabytes}}


def row(name: str, found: dict[str, report.Found]) -> list[str]:
    dml, peer = found["DML"], found.get("Flower")
    memory = dml["memory"]
    cells = [name, report.shown(dml), *(f"{memory[part]:.0f} MB" for part in ("web", "jobs", "compute", "together"))]
    return (
        cells + [report.shown(peer), f"{peer['memory']['together']:.0f} MB", report.ratio(peer, dml)] if peer else cells
    )


def main() -> None:
    options = argparse.ArgumentParser()
    options.add_argument("--workers", type=int, default=4)
    options.add_argument("--megabytes", type=int, nargs="+", default=[1, 10, 100])
    options.add_argument("--rounds", type=int, default=12, help=f"the first {report.SKIPPED} are not counted")
    options.add_argument("--alone", action="store_true", help="without Flower")
    wanted = options.parse_args()
    columns = ["weights", "ours, mean (fastest)", "web", "jobs", "compute", "all of ours"]
    columns += [] if wanted.alone else ["Flower, mean (fastest)", "its server", "Flower / ours"]
    rows = []
    for megabytes in wanted.megabytes:
        case = idle(megabytes, wanted.workers)
        found = {"DML": play_ours(case, wanted.rounds)}
        if not wanted.alone:
            found["Flower"] = play_flower(case, wanted.rounds)
        report.keep("rounds", {f"{wanted.workers} workers, {megabytes} MB": found})
        rows.append(row(f"{megabytes} MB", found))
    report.show(f"Rounds of {wanted.workers} workers that do nothing; memory: the most that was held", columns, rows)


if __name__ == "__main__":
    main()
