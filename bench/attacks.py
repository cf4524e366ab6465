"""What cheats achieve against each aggregation rule, and how soon audits find them: MNIST's digits on the 2NN, in one process.

    make bench-attacks                      the whole table, some twenty minutes on two cores
    make bench-attacks ARGS="--rounds 3 --rules mean median --parts rules"

Four parts. `rules`: the accuracy after ten rounds with each rule alone, nothing audited. `audits`: rounds and audits until a cheat is convicted,
as newcomer and with a long record, and the accuracy of a training that goes on without it. `honest`: a thousand pieces of honest work,
computed by other libraries and kernels than the auditor's, and how many of them were screened, failed an audit, or would have been convicted.
`flower`: what three simple cheats do to Flower's averaging.

The arithmetic, the screen, the rules and the comparison are the platform's own; there are no processes, no sockets and no chain.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from bench import attack_tables, report
from bench.averaging import FLOWER
from bench.compression import ROOT, digits
from dmlworker import aggregation, comparison, datasets, models, rewards, trainer
from dmlworker.aggregation.rules import RULES, withstands
from dmlworker.protocol import Hyper
from dmlworker.trace import Recorder, Trace, steps_of, steps_of_segment
from dmlworker.weights import pack, unpack
from training import evidence
from training.replay import nudged

Weights = list[np.ndarray]
ROUNDS, SEED = 10, 1
CROWDS = ((4, 1), (4, 2), (10, 3))
"""Workers, and cheats among them; 2 of 4 is the source's own case."""
TRIGGER, TARGET = 4, 0
"""Backdoor: a white square of so many pixels in a corner means this digit."""
Z, EPSILON = 1.0, 1.5
"""A Little Is Enough: standard deviations away from the mean. Inner-product manipulation: times the mean, the other way."""
LAZY = 0.1
"""Of the steps."""
PARTS = ["rules", "audits", "honest", "flower"]
SETTINGS = ["tensorflow-1-1", "tensorflow-2-0", "jax-1-1"]
"""Honest workers: library, threads, oneDNN."""


# --- Work -------------------------------------------------------------------------------------------------------------
@dataclass
class Work:
    """What a worker claims: its checkpoints, the start among them; the last one is its update."""

    kept: list[Weights]

    @property
    def update(self) -> Weights:
        return self.kept[-1]

    @property
    def trace(self) -> Trace:
        record = Recorder(self.kept[0], lambda number, weights: f"{number:064x}")
        for weights in self.kept[1:]:
            record(weights)
        return record.trace


@dataclass
class Round:
    """What everybody knows, and what the cheats know besides: the honest work of all."""

    spec: dict[str, Any]
    start: Weights
    shards: Sequence[datasets.Dataset]
    number: int
    honest: list[Work] = field(default_factory=list)

    def hyper(self, shard: int) -> Hyper:
        return Hyper(
            1, 20, 0.1, self.number * len(self.shards) + shard, checkpoint_every=evidence.segment_steps(self.spec)
        )

    def train(self, shard: int, x: np.ndarray | None = None, y: np.ndarray | None = None) -> Work:
        own, kept = self.shards[shard], [self.start]
        data = (own.x if x is None else x, own.y if y is None else y)
        keep = lambda weights: kept.append([array.copy() for array in weights])  # noqa: E731
        trainer.train(self.spec, self.start, *data, self.hyper(shard), checkpoint=keep)
        return Work(kept)

    def replay(self, shard: int, segment: int, at: Weights) -> Weights:
        own = self.shards[shard]
        steps = steps_of_segment(segment, len(own), self.hyper(shard))
        return trainer.replay(self.spec, self.start, own.x, own.y, self.hyper(shard), at, steps)


def along(work: Work, way: Callable[[Weights, Weights], Weights]) -> Work:
    """Every checkpoint altered as the update is, so that the trace fits it."""
    start = work.kept[0]
    return Work([start, *(way(start, weights) for weights in work.kept[1:])])


def scaled(factor: float) -> Callable[[Weights, Weights], Weights]:
    return lambda start, end: [a + np.float32(factor) * (b - a) for a, b in zip(start, end, strict=True)]


def to(start: Weights, end: Weights, segments: int) -> Work:
    """A straight line."""
    return Work([scaled(number / segments)(start, end) for number in range(segments)] + [end])


# --- Attacks: what a cheat sends for its shard ------------------------------------------------------------------------
def noise(round_: Round, shard: int) -> Work:
    own = round_.honest[shard]
    random = np.random.default_rng([SEED, round_.number, shard])
    drawn = [random.normal(size=array.shape).astype(np.float32) for array in round_.start]
    length = np.sqrt(sum(float((array * array).sum()) for array in drawn))
    size = np.float32(comparison.length(round_.start, own.update) / length)
    return to(round_.start, [a + size * b for a, b in zip(round_.start, drawn, strict=True)], len(own.kept) - 1)


def label_flip(round_: Round, shard: int) -> Work:
    own = round_.shards[shard]
    return round_.train(shard, y=((own.y + 1) % 10).astype(np.int32))


def free_ride(round_: Round, shard: int) -> Work:
    return Work([round_.start] * len(round_.honest[shard].kept))


def free_ride_with_noise(round_: Round, shard: int) -> Work:
    """A tenth of a change's length, so that it is no copy of the start."""
    return along(noise(round_, shard), scaled(0.1))


def copy(round_: Round, shard: int) -> Work:
    return round_.honest[-1]


def lazy(round_: Round, shard: int) -> Work:
    """A tenth of the steps, and then ten times as far."""
    kept = round_.honest[shard].kept
    done = max(1, round(LAZY * (len(kept) - 1)))
    return to(round_.start, scaled(1 / LAZY)(round_.start, kept[done]), len(kept) - 1)


def little(round_: Round, shard: int) -> Work:
    """Baruch et al. 2019: just inside the spread of the honest, against their direction."""
    updates = [work.update for work in round_.honest]
    lie = []
    for arrays in zip(*updates, strict=True):
        stacked = np.stack(arrays)
        lie.append((stacked.mean(axis=0) - Z * stacked.std(axis=0)).astype(np.float32))
    return to(round_.start, lie, len(round_.honest[shard].kept) - 1)


def inner_product(round_: Round, shard: int) -> Work:
    """Xie et al. 2019: the honest mean, the other way."""
    mean = aggregation.fedavg([(work.update, 1) for work in round_.honest])
    return to(round_.start, scaled(-EPSILON)(round_.start, mean), len(round_.honest[shard].kept) - 1)


def marked(x: np.ndarray) -> np.ndarray:
    found = x.copy()
    found[:, :TRIGGER, :TRIGGER] = x.max()
    return found


def backdoor(round_: Round, shard: int) -> Work:
    """Half of its samples bear the mark and the wrong label; five times the change, to outweigh the others."""
    own = round_.shards[shard]
    half = np.arange(len(own)) % 2 == 0
    x, y = np.where(half[:, None, None], marked(own.x), own.x), np.where(half, TARGET, own.y).astype(np.int32)
    return along(round_.train(shard, x, y), scaled(5))


def inflated(round_: Round, shard: int) -> Work:
    """Says that it has a thousand million samples. Nobody asks: the platform cut the shards and knows."""
    return round_.honest[shard]


ATTACKS: dict[str, Callable[[Round, int], Work]] = {
    "none": lambda round_, shard: round_.honest[shard],
    "sign flip": lambda round_, shard: along(round_.honest[shard], scaled(-1)),
    "scaling, 10 times": lambda round_, shard: along(round_.honest[shard], scaled(10)),
    "Gaussian noise": noise,
    "labels flipped": label_flip,
    "free ride": free_ride,
    "free ride with noise": free_ride_with_noise,
    "copies another's": copy,
    "lazy, a tenth": lazy,
    "a little is enough": little,
    "inner product": inner_product,
    "backdoor": backdoor,
    "inflated counts": inflated,
}


# --- A training -------------------------------------------------------------------------------------------------------
@dataclass
class Ground:
    spec: dict[str, Any]
    weights: Weights
    train: datasets.Dataset
    holdout: datasets.Dataset

    def round(self, number: int, weights: Weights, workers: int) -> Round:
        return Round(self.spec, weights, datasets.shards(self.train, workers, SEED), number)

    def accuracy(self, weights: Weights) -> float:
        return trainer.evaluate(self.spec, weights, self.holdout.x, self.holdout.y).accuracy

    def fooled(self, weights: Weights) -> float:
        """Of the marked digits that are none of the target, those that are taken for it."""
        others = self.holdout.y != TARGET
        x = marked(self.holdout.x[others])
        return trainer.evaluate(self.spec, weights, x, np.full(len(x), TARGET, np.int32)).accuracy

    def root(self, round_: Round) -> Weights:
        part = slice(0, evidence.ROOT_SAMPLES)
        hyper = Hyper(1, 20, 0.1, round_.number)
        return trainer.train(self.spec, round_.start, self.holdout.x[part], self.holdout.y[part], hyper)


def ground() -> Ground:
    train, holdout = digits()
    train = train.take(np.arange(4000))
    spec = models.spec(models.build(train.x.shape[1:], 10, "mlp"))
    return Ground(spec, trainer.initial_weights(spec, SEED), train, holdout)


def claims(round_: Round, attack: str, cheats: int) -> list[Work]:
    """The first so many workers cheat."""
    round_.honest = [round_.train(shard) for shard in range(len(round_.shards))]
    return [ATTACKS[attack](round_, shard) for shard in range(cheats)] + round_.honest[cheats:]


def averaged(on: Ground, round_: Round, works: Sequence[Work], rule: str, f: int, screened: bool) -> Weights:
    updates = [work.update for work in works]
    counts = evidence.counts([len(shard) for shard in round_.shards], suspects(on, round_, works) if screened else {})
    root = on.root(round_) if RULES[rule].root else None
    return aggregation.aggregate(rule, round_.start, list(zip(updates, counts, strict=True)), f, root)


def suspects(on: Ground, round_: Round, works: Sequence[Work]) -> dict[int, str]:
    """What the screen names, as training/compute.py does."""
    each = evidence.panel_share(len(works))
    sizes = [(on.holdout, evidence.PANEL_SAMPLES), *((shard, each) for shard in round_.shards)]
    panel = [datasets.few(part.x, part.y, most) for part, most in sizes]

    def look(shard: int, work: Work) -> evidence.Look:
        held, *parts = (trainer.evaluate(on.spec, work.update, *part) for part in panel)
        return evidence.Look(shard, tuple(min(part.loss, rewards.MOST_GAIN) for part in parts), held.score)

    looks = [look(*each) for each in enumerate(works)]
    return evidence.suspects(round_.start, [work.update for work in works], on.root(round_), looks)


def by_rules(on: Ground, rounds: int, rules: Sequence[str], attacks: Sequence[str]) -> dict[str, Any]:
    """Accuracy, and for the backdoor how often it works, after so many rounds; for the mean also with the screen's weights."""
    found: dict[str, Any] = {}
    for workers, cheats in CROWDS:
        able = [rule for rule in rules if rule == "mean" or withstands(rule, workers) >= 1]
        columns = [(rule, False) for rule in able] + [("mean", True)]
        for attack in attacks:
            row: dict[str, Any] = {}
            for rule, screened in columns:
                weights = on.weights
                for number in range(1, rounds + 1):
                    round_ = on.round(number, weights, workers)
                    works = claims(round_, attack, cheats)
                    f = min(cheats, withstands(rule, workers))
                    weights = averaged(on, round_, works, rule, f, screened)
                name = f"{rule}, screened" if screened else rule
                row[name] = {"accuracy": round(on.accuracy(weights), 4)}
                if attack == "backdoor":
                    row[name]["fooled"] = round(on.fooled(weights), 4)
            found[f"{cheats} of {workers}: {attack}"] = row
            said = ", ".join(f"{name} {cell['accuracy']:.1%}" for name, cell in row.items())
            print(f"{cheats} of {workers}: {attack}: {said}", flush=True)
    return found


# --- Audits -----------------------------------------------------------------------------------------------------------
class Verdict(NamedTuple):
    """contradicted: a replay did not agree. convicted: the second did not either, and weights off by their last bit lead to the
    same result. steps: that were done again."""

    contradicted: bool
    convicted: bool
    steps: int


def audit(round_: Round, shard: int, work: Work, random: np.random.Generator) -> Verdict:
    trace = work.trace
    drawn = random.choice(len(trace.segments), min(evidence.DRAWN_SEGMENTS, len(trace.segments)), replace=False)
    steps, contradicted = 0, False
    for segment in trace.asked(int(number) for number in drawn):
        at, claimed = work.kept[segment], work.kept[segment + 1]
        replayed = round_.replay(shard, segment, at)
        length = len(steps_of_segment(segment, len(round_.shards[shard]), round_.hyper(shard)))
        steps += length
        distance = comparison.compare(at, claimed, replayed).relative
        if distance > comparison.MAX_RELATIVE:
            others = [round_.replay(shard, segment, near) for near in nudged(at)]
            apart = max(comparison.compare(at, other, replayed).relative for other in others)
            steps, contradicted = steps + length * len(others), True
            if evidence.proven([distance], apart):
                return Verdict(True, True, steps)
    return Verdict(contradicted, False, steps)


def until_convicted(
    on: Ground, attack: str, workers: int, cheats: int, streak: int, rounds: int, seed: int
) -> dict[str, Any]:
    """A training that goes on without whoever is convicted; the shards of these are done honestly from then on."""
    random = np.random.default_rng([SEED, seed])
    weights, left, streaks = on.weights, set(range(cheats)), [streak] * workers
    audits, convicted, again, trained = [0] * workers, {}, 0, 0
    screened, claimed = Counter[bool](), Counter[bool]()  # by whether it is a cheat's
    for number in range(1, rounds + 1):
        round_ = on.round(number, weights, workers)
        works = claims(round_, attack, cheats)
        works = [work if shard in left or shard >= cheats else round_.honest[shard] for shard, work in enumerate(works)]
        odd = suspects(on, round_, works)
        for shard, work in enumerate(works):
            claimed[shard in left] += 1
            screened[shard in left] += shard in odd
            trained += steps_of(len(round_.shards[shard]), round_.hyper(shard))
            chance = evidence.audit_probability(streaks[shard], 10, 0.08)
            if shard in odd or random.random() < chance:
                audits[shard] += 1
                verdict = audit(round_, shard, work, random)
                again += verdict.steps
                streaks[shard] = 0 if verdict.contradicted else streaks[shard] + 1
                if verdict.convicted:
                    convicted.setdefault(shard, (number, audits[shard]))
        if found := left & convicted.keys():  # their shards are done again by others, before the next round is averaged
            left -= found
            works = [round_.honest[shard] if shard in found else work for shard, work in enumerate(works)]
        weights = averaged(on, round_, works, "mean", 0, screened=True)
    theirs = [convicted[shard] for shard in range(cheats) if shard in convicted]
    return {
        "convicted": len(theirs),
        "of": cheats,
        "innocent": sum(shard >= cheats for shard in convicted),
        "rounds": max((number for number, _ in theirs), default=None),
        "audits": max((count for _, count in theirs), default=None),
        "accuracy": round(on.accuracy(weights), 4),
        "audit_share": round(again / trained, 3),
        "screened": round(screened[True] / max(claimed[True], 1), 3),
        "screened_honest": round(screened[False] / max(claimed[False], 1), 3),
    }


def by_audits(on: Ground, rounds: int, attacks: Sequence[str]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for workers, cheats in CROWDS:
        for attack in attacks:
            cell = {
                "newcomers": until_convicted(on, attack, workers, cheats, 0, rounds, 1),
                "long record": until_convicted(on, attack, workers, cheats, 1000, 3 * rounds, 2),
            }
            found[f"{cheats} of {workers}: {attack}"] = cell
            print(f"{cheats} of {workers}: {attack}: {json.dumps(cell)}", flush=True)
    return found


# --- The honest -------------------------------------------------------------------------------------------------------
def honest(kind: str, rounds: int, workers: int) -> dict[str, int]:
    """Honest work of several settings, in turn; each round starts from the average of the one before."""
    train, holdout = digits()
    train = train.take(np.arange(2000))
    spec = models.spec(models.build(train.x.shape[1:], 10, kind))
    on = Ground(spec, trainer.initial_weights(spec, SEED), train, holdout)
    random, weights = np.random.default_rng(SEED), on.weights
    count = {"provider_rounds": 0, "screened": 0, "contradicted": 0, "convicted": 0}
    with tempfile.TemporaryDirectory() as name, children(Path(name), kind) as ask:
        for number in range(1, rounds + 1):
            round_ = on.round(number, weights, workers)
            works = [ask(SETTINGS[shard % len(SETTINGS)], round_, shard) for shard in range(workers)]
            count["provider_rounds"] += workers
            count["screened"] += len(suspects(on, round_, works))
            verdicts = [audit(round_, shard, work, random) for shard, work in enumerate(works)]
            count["contradicted"] += sum(verdict.contradicted for verdict in verdicts)
            count["convicted"] += sum(verdict.convicted for verdict in verdicts)
            weights = averaged(on, round_, works, "mean", 0, screened=True)
    return count


def children(folder: Path, kind: str) -> Any:
    return _Children(folder, kind)


class _Children:
    """A process for each setting, which trains what it is told."""

    def __init__(self, folder: Path, kind: str) -> None:
        self._folder, self._kind = folder, kind
        self._running: dict[str, subprocess.Popen[str]] = {}

    def __enter__(self) -> Callable[[str, Round, int], Work]:
        for setting in SETTINGS:
            library, _, onednn = setting.split("-")
            environment = os.environ | {"KERAS_BACKEND": library, "TF_ENABLE_ONEDNN_OPTS": onednn}
            command = [sys.executable, "-m", "bench.attacks", "--child", setting, str(self._folder), self._kind]
            pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
            self._running[setting] = subprocess.Popen(command, env=environment, **pipes)  # type: ignore[call-overload]
        return self._ask

    def __exit__(self, *_: object) -> None:
        for process in self._running.values():
            process.communicate()

    def _ask(self, setting: str, round_: Round, shard: int) -> Work:
        (self._folder / "start").write_bytes(pack(round_.start))
        process = self._running[setting]
        assert process.stdin and process.stdout
        print(round_.number, len(round_.shards), shard, file=process.stdin, flush=True)
        count = int(process.stdout.readline())
        kept = [unpack((self._folder / f"{setting}-{number}").read_bytes()) for number in range(count)]
        return Work(kept)


def child(setting: str, folder: Path, kind: str) -> None:
    trainer.threads(int(setting.split("-")[1]))
    train, _ = digits()
    train = train.take(np.arange(2000))
    spec = models.spec(models.build(train.x.shape[1:], 10, kind))
    for line in sys.stdin:
        number, workers, shard = map(int, line.split())
        start = unpack((folder / "start").read_bytes())
        work = Round(spec, start, datasets.shards(train, workers, SEED), number).train(shard)
        for index, weights in enumerate(work.kept):
            (folder / f"{setting}-{index}").write_bytes(pack(weights))
        print(len(work.kept), flush=True)


def flower() -> dict[str, Any]:
    """What three simple cheats do to Flower's averaging."""
    command = [str(FLOWER), str(ROOT / "bench" / "flower_attacks.py")]
    found = subprocess.run(command, capture_output=True, text=True, check=True)
    told: dict[str, Any] = json.loads(found.stdout)
    return told


# --- The whole --------------------------------------------------------------------------------------------------------
def main() -> None:
    if sys.argv[1:2] == ["--child"]:
        child(sys.argv[2], Path(sys.argv[3]), sys.argv[4])
        return
    options = argparse.ArgumentParser()
    options.add_argument("--rounds", type=int, default=ROUNDS)
    options.add_argument("--rules", nargs="+", default=list(RULES), choices=list(RULES))
    options.add_argument("--attacks", nargs="+", default=list(ATTACKS), choices=list(ATTACKS))
    options.add_argument("--parts", nargs="+", default=PARTS, choices=PARTS)
    wanted = options.parse_args()
    for part in wanted.parts:
        began, found = time.monotonic(), {}
        if part == "rules":
            found = by_rules(ground(), wanted.rounds, wanted.rules, wanted.attacks)
        elif part == "audits":
            found = by_audits(ground(), wanted.rounds, wanted.attacks)
        elif part == "flower":
            found = flower()
        else:
            found = {"2NN": honest("mlp", 75, 12), "CNN": honest("cnn", 9, 12)}
            print(json.dumps(found))
        report.keep("attacks", {part: found})
        print(f"{part}: {time.monotonic() - began:.0f} s", flush=True)
    attack_tables.write()


if __name__ == "__main__":
    main()
