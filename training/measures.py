"""How a model does on each class, as it is kept with a round and shown to the customer."""

from dataclasses import dataclass
from typing import Any

import numpy as np

MOST_CLASSES = 20
"""Up to so many, the whole confusion matrix is kept; it grows with the square."""


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
