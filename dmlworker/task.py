"""What a model learns: one class of several, a number, or any of several labels at once. Standard library only."""

from typing import NamedTuple

AUTO = "auto"
CLASSIFICATION = "classification"
REGRESSION = "regression"
MULTILABEL = "multilabel"


class Score(NamedTuple):
    """The number by which a model is called good, as people name it, and whether it is a share, to be read in percent. What it says of
    a model: `says`."""

    name: str
    share: bool
    says: str


SCORES = {
    CLASSIFICATION: Score("accuracy", True, "The accuracy is the part of the samples whose class is told right."),
    REGRESSION: Score(
        "R²",
        False,
        "R² is the part of the target's variance that the model explains: 1 is perfect, 0 no better than always saying the mean, and below 0 worse than that.",
    ),
    MULTILABEL: Score(
        "macro F1",
        True,
        "The macro F1 is the mean over the labels of the harmonic mean of precision and recall: a rare label counts as much as a frequent one.",
    ),
}


CLIPS = {CLASSIFICATION: 0.0, REGRESSION: 1.0, MULTILABEL: 0.0}
"""The norm at which gradients are clipped where none is chosen; 0: none. A number's error is not bounded as a probability's is, and neither
are its gradients: deeper models run away (docs/models.md)."""


def score_of(task: str) -> Score:
    """AUTO, before the file was read, is taken for the first."""
    return SCORES.get(task, SCORES[CLASSIFICATION])


def shown(task: str, score: float, digits: int = 1) -> str:
    """A score as people read it: "95.6 %", or "0.478"."""
    return f"{100 * score:.{digits}f} %" if score_of(task).share else f"{score:.{digits + 2}f}"


def told(task: str, score: float, digits: int = 1) -> str:
    """With its name: "accuracy 95.6 %"."""
    return f"{score_of(task).name} {shown(task, score, digits)}"
