"""DEVELOPMENT ONLY: workers that cheat, to show that they are caught. Not part of what a provider runs.

    python -m dmlworker.cheats --server URL --key KEY --mode garbage|signflip|scale|freeride

A cheat takes its leases and talks like any worker, but alters the update before it is sent, or does no work at all and makes up a
trace that fits. Left out of the dml-worker distribution.
"""

import argparse
import sys
from collections.abc import Callable

import numpy as np

from dmlworker import datasets
from dmlworker.__main__ import parser, run
from dmlworker.client import Files, Settings, Weights, Worker
from dmlworker.protocol import Hyper, Offer
from dmlworker.trace import Recorder, segments_of


def garbage(start: Weights, trained: Weights, hyper: Hyper) -> Weights:
    """Noise as large as the weights themselves."""
    random = np.random.Generator(np.random.PCG64(hyper.seed))
    return [random.normal(0, array.std() + 0.05, array.shape).astype(np.float32) for array in start]


def signflip(start: Weights, trained: Weights, hyper: Hyper) -> Weights:
    """The opposite of what was learned."""
    return [begin - (end - begin) for begin, end in zip(start, trained, strict=True)]


def scale(start: Weights, trained: Weights, hyper: Hyper) -> Weights:
    """Ten times what was learned, to weigh more than the others."""
    return [begin + 10 * (end - begin) for begin, end in zip(start, trained, strict=True)]


MODES: dict[str, Callable[[Weights, Weights, Hyper], Weights]] = {
    "garbage": garbage,
    "signflip": signflip,
    "scale": scale,
}


class FreeRider(Worker):
    """Returns the start weights, and commits to a trace that says so."""

    def _training(
        self, offer: Offer, files: Files, start: Weights, report: Callable[[int, int, float], None], record: Recorder
    ) -> Weights:
        from dmlworker import models, trainer

        samples = len(datasets.mapped(files.shard)[1])
        state = trainer.empty_state(models.spec_from_bytes(files.spec), offer.hyper.optimizer)
        for _ in range(segments_of(samples, offer.hyper) - 1):
            record([*start, *state])
        record(start)
        return start


def cheating(mode: str) -> type[Worker]:
    """A worker class whose updates are altered, or made up, in this way."""
    if mode == "freeride":
        return FreeRider

    class Cheat(Worker):
        def update(self, start: Weights, trained: Weights, hyper: Hyper) -> Weights:
            return MODES[mode](start, trained, hyper)

    return Cheat


def main(arguments: list[str] | None = None) -> int:
    """Like `dmlworker`, plus --mode. Its cache is apart from an honest worker's: results are remembered there."""
    options_of = argparse.ArgumentParser(
        "dmlworker.cheats", parents=[parser()], conflict_handler="resolve", add_help=False
    )
    options_of.add_argument("--mode", choices=[*sorted(MODES), "freeride"], required=True)
    options = options_of.parse_args(arguments)
    cache = options.cache / f"cheat-{options.mode}"
    settings = Settings(options.server, options.key, cache, options.threads, backend=options.backend)
    return run(settings, cheating(options.mode))


if __name__ == "__main__":
    sys.exit(main())
