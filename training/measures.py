"""How a model does in more than a number, as it is kept with a round and shown to the customer: on each class; or how far off its numbers are."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from dmlworker import task

MOST_CLASSES = 20
"""Up to so many, the whole confusion matrix is kept; it grows with the square."""


MOST_POINTS = 300
"""Samples of the hold-out that are drawn, predicted against true."""


def of(learnt: str, y: np.ndarray, answers: np.ndarray, classes: int) -> dict[str, Any]:
    """What is kept of a model's answers, by its task; y, answers: as `trainer.Evaluation` has them."""
    if learnt == task.MULTILABEL:
        return by_label(y, answers)
    return errors(y, answers) if learnt == task.REGRESSION else by_class(y, answers, classes)


def by_label(y: np.ndarray, answers: np.ndarray) -> dict[str, Any]:
    """As `by_class`, of several labels: y, answers (n, k), where -1 is no answer. exact: samples with all of their labels right."""
    given, has = answers == 1, y == 1
    labelled, answered, right = (found.sum(axis=0).tolist() for found in (has, given, has & given))
    exact = int((y == answers).all(axis=1).sum())
    return {"labelled": labelled, "answered": answered, "right": right, "confusion": None, "exact": exact}


def errors(y: np.ndarray, answers: np.ndarray) -> dict[str, Any]:
    """Root of the mean square, and mean, of what answers (n,) miss of y, in its unit; None if that is not finite. points: (true, predicted)
    of some samples, evenly taken; those with no finite answer are left out."""
    missed = answers.astype(np.float64) - y
    means = {"rmse": np.sqrt(np.square(missed).mean()), "mae": np.abs(missed).mean()}
    some = np.arange(min(len(y), MOST_POINTS)) * len(y) // min(len(y), MOST_POINTS)
    points = [
        [_short(true), _short(said)] for true, said in zip(y[some], answers[some], strict=True) if np.isfinite(said)
    ]
    return {name: float(mean) if np.isfinite(mean) else None for name, mean in means.items()} | {"points": points}


def _short(number: float) -> float:
    """Enough for a picture."""
    return float(f"{number:.5g}")


def named(kept: dict[str, Any] | None) -> list[tuple[str, float]]:
    """What is known of the errors of a number, as people call it; nothing of classes."""
    names = {"rmse": "RMSE", "mae": "MAE"}
    return [(name, kept[key]) for key, name in names.items() if kept and kept.get(key) is not None]


@dataclass(frozen=True)
class Scatter:
    """Predicted against true numbers, as an SVG draws them: `dots`, a path of points in a square of `side` units; its edges stand for `low` and
    `high`."""

    dots: str
    low: float
    high: float
    side: int


def scatter(points: list[list[float]], side: int) -> Scatter | None:
    """True to the right, predicted upwards, the range of the true ones with a tenth of it to either side. What was predicted beyond is drawn
    on the edge. None without points."""
    if not points:
        return None
    true, said = np.array(points, np.float64).T
    margin = (true.max() - true.min()) / 10 or abs(true.max()) / 10 or 1.0
    low, high = true.min() - margin, true.max() + margin
    right, up = (side * (np.clip(numbers, low, high) - low) / (high - low) for numbers in (true, said))
    dots = "".join(f"M{x:.0f} {y:.0f}h0" for x, y in zip(right, side - up, strict=True))
    return Scatter(dots, float(low), float(high), side)


def by_class(labels: np.ndarray, answers: np.ndarray, classes: int) -> dict[str, Any]:
    """Counts of samples by class: as labelled, as answered, and right. labels, answers (n,): classes from 0; an answer of -1 is none.
    `confusion[label][answer]`, or None if there are many classes."""
    given = answers >= 0
    labelled, answered, right = (
        np.bincount(found, minlength=classes).tolist() for found in (labels, answers[given], labels[answers == labels])
    )
    pairs = (
        np.bincount(labels[given] * classes + answers[given], minlength=classes**2) if classes <= MOST_CLASSES else None
    )
    confusion = None if pairs is None else pairs.reshape(classes, classes).tolist()
    return {"labelled": labelled, "answered": answered, "right": right, "confusion": confusion}


@dataclass(frozen=True)
class Row:
    """A class: how many samples of it, which part of what was called so is right (precision), which part of it was found (recall),
    and their harmonic mean; None where nothing is to be divided."""

    name: str
    samples: int
    precision: float | None
    recall: float | None
    f1: float | None


def table(kept: dict[str, Any], names: list[str]) -> list[Row]:
    counts = zip(names, kept["labelled"], kept["answered"], kept["right"], strict=True)
    return [
        Row(name, labelled, _part(right, answered), _part(right, labelled), _part(2 * right, labelled + answered))
        for name, labelled, answered, right in counts
    ]


def _part(some: int, of: int) -> float | None:
    return some / of if of else None


@dataclass(frozen=True)
class Told:
    """A measure of the whole model, in words. interval: "94.1 % to 96.8 %", or empty."""

    title: str
    value: str
    interval: str
    help: str


TITLES = {
    "accuracy": ("Accuracy", "how much it gets right"),
    "balanced_accuracy": ("Balanced accuracy", "the mean of the classes' recall, so that rare classes count as much"),
    "exact_match": ("Exact match", "samples of which every label is right"),
    "micro_f1": ("F1, over all labels", "precision and recall in one, each answer counting alike"),
    "macro_f1": ("F1, mean of the classes", "precision and recall in one, each class counting alike"),
    "weighted_f1": ("F1, weighted", "each class counting by its samples"),
    "hamming_loss": ("Hamming loss", "labels that are wrong"),
    "roc_auc": ("ROC-AUC", "how often it puts a sample of a class above one that is not: 50 % is chance"),
    "calibration_error": ("Calibration error", "how far what it is sure of is from what it gets right"),
    "log_loss": ("Log loss", "0 is perfect; large where it is sure and wrong"),
    "brier": ("Brier score", "0 is perfect; the squared error of its probabilities"),
    "r2": ("R²", "how much of the target's variance it explains: 1 is all, 0 is no better than the mean"),
    "mae": ("Mean absolute error", "in the target's own unit"),
    "rmse": ("Root mean squared error", "in the target's own unit; large errors count more"),
    "median_absolute_error": ("Median absolute error", "in the target's own unit; half of the errors are smaller"),
}
NUMBERS = ("log_loss", "brier", "r2", "mae", "rmse", "median_absolute_error")
"""All others are parts, told in percent."""


def told(kept: dict[str, list[float | None]]) -> list[Told]:
    """What Run.metrics holds, in the order of TITLES; what is not defined is not told."""
    return [_told(name, *kept[name]) for name in TITLES if kept.get(name, [None])[0] is not None]


def _told(name: str, value: float, low: float | None, high: float | None) -> Told:
    text = (lambda found: f"{found:.4g}") if name in NUMBERS else (lambda found: f"{100 * found:.1f} %")
    interval = "" if low is None else f"{text(low)} to {text(high)}"
    title, words = TITLES[name]
    return Told(title, text(value), interval, words)


@dataclass(frozen=True)
class Cell:
    """`shade`: 0 to 9, by the part of the class's samples that are here; `right`: on the diagonal."""

    count: int
    shade: int
    right: bool


def matrix(kept: dict[str, Any], names: list[str]) -> list[tuple[str, list[Cell]]]:
    """A row for each class as labelled, a cell for each as answered; empty if it was not kept."""
    return [
        (names[label], [Cell(n, 9 * n // max(sum(row), 1), label == answer) for answer, n in enumerate(row)])
        for label, row in enumerate(kept["confusion"] or [])
    ]
