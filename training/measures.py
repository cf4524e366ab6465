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
