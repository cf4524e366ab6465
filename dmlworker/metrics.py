"""How good a model is on a hold-out, each measure with a 95 % confidence interval. Pure NumPy.

    classification(y, probabilities)["roc_auc"]     (value, low, high), or three None where it is not defined

Where a measure is the part of the samples that are right, the interval is Wilson's; else it is a bootstrap's: percentiles over RESAMPLES
resamples of the samples, seeded. A resample is a row of weights, so that nothing is copied or sorted again. Of more than MOST samples,
some are resampled, and how far the measure strays is scaled by the root of their part (the m out of n bootstrap): time and memory stay
bounded whatever the hold-out.
"""

import math
from collections.abc import Callable, Iterable

import numpy as np

Interval = tuple[float, float, float] | tuple[None, None, None]
_Measures = dict[str, np.ndarray]
"""By name, a measure in each resample (resamples,); NaN where it is not defined."""

RESAMPLES = 1000
MOST = 5000
"""Samples that are resampled, at most; fewer where there are more than a hundred classes, each of which takes its time."""
_LEAST = 500
_WORK = 500_000
"""Samples times classes in a resample, about."""
BINS = 15
"""Of the largest probability, for the calibration error."""
_Z = 1.959963984540054
_UNDEFINED: Interval = (None, None, None)
_BY_ANSWERS = ("balanced_accuracy", "macro_f1", "weighted_f1")
_BY_PROBABILITIES = ("roc_auc", "log_loss", "brier", "calibration_error")
_REGRESSION = ("mae", "rmse", "r2", "median_absolute_error")
_MULTILABEL = ("exact_match", "micro_f1", "macro_f1", "roc_auc", "hamming_loss")
_BIASED = ("calibration_error",)
"""Grow by chance alone, and in a resample once more: their percentiles are mirrored (the basic bootstrap), which takes that off."""


def classification(y: np.ndarray, probabilities: np.ndarray, seed: int = 0) -> dict[str, Interval]:
    """Of labels y (n,) from 0 and probabilities (n, classes). A sample with one that is not finite has no answer; then what is made of
    probabilities is not defined.

    F1: of the classes that occur among labels or answers; recall, for the balanced accuracy, among labels. ROC-AUC: of the second of
    two classes, else the mean over the classes that occur, each against the rest. Brier score: halved for two classes, as scikit-learn
    has it. Log loss in nats.
    """
    finite, classes = np.isfinite(probabilities).all(axis=1), probabilities.shape[1]
    answers = np.where(finite, np.argmax(np.where(finite[:, None], probabilities, 0), axis=1), -1)
    found = {"accuracy": wilson(int((answers == y).sum()), len(y))}
    found |= _intervals(_by_answers, classes, seed, y, answers)
    if not finite.all():
        return found | dict.fromkeys(_BY_PROBABILITIES, _UNDEFINED)
    return found | _intervals(_by_probabilities, classes, seed, y, probabilities)


def regression(y: np.ndarray, predictions: np.ndarray, seed: int = 0) -> dict[str, Interval]:
    """Of numbers y (n,) and predictions (n,) or (n, 1). None is defined where a prediction is not finite; R2 not where y does not vary."""
    predictions = np.asarray(predictions, np.float64).reshape(len(y))
    if not np.isfinite(predictions).all():
        return dict.fromkeys(_REGRESSION, _UNDEFINED)
    return _intervals(_by_errors, 1, seed, np.asarray(y, np.float64), predictions)


def multilabel(y: np.ndarray, probabilities: np.ndarray, seed: int = 0) -> dict[str, Interval]:
    """Of marks y (n, labels), 0 or 1, and probabilities (n, labels); a label is given where its probability is over a half.

    None is defined where a probability is not finite. Macro means are over the labels that have something to be divided."""
    if not np.isfinite(probabilities).all():
        return dict.fromkeys(_MULTILABEL, _UNDEFINED)
    exact = int((y == (probabilities > 0.5)).all(axis=1).sum())
    return {"exact_match": wilson(exact, len(y))} | _intervals(_by_labels, y.shape[1], seed, y, probabilities)


TASKS: dict[str, Callable[[np.ndarray, np.ndarray], dict[str, Interval]]] = {
    "classification": classification,
    "regression": regression,
    "multilabel": multilabel,
}


# --- Intervals --------------------------------------------------------------------------------------------------------
def wilson(hits: int, of: int) -> Interval:
    """A part of samples that were drawn independently, and Wilson's score interval for it (1927)."""
    part, z2 = hits / of, _Z * _Z
    middle, half = part + z2 / (2 * of), _Z * math.sqrt(part * (1 - part) / of + z2 / (4 * of * of))
    low, high = (middle - half) / (1 + z2 / of), (middle + half) / (1 + z2 / of)
    return part, min(max(0.0, low), part), max(min(1.0, high), part)


def _intervals(
    measures: Callable[..., _Measures], classes: int, seed: int, *columns: np.ndarray
) -> dict[str, Interval]:
    """What `measures(weights, *columns)` says of all samples, and of resamples of all or some of them."""
    samples = len(columns[0])
    most = min(MOST, max(_LEAST, _WORK // classes))
    part = np.sort(np.random.default_rng(seed).permutation(samples)[:most])
    some = [column[part] for column in columns]
    values = measures(np.ones((1, samples)), *columns)
    middles = measures(np.ones((1, len(part))), *some)
    drawn = measures(_weights(len(part), seed), *some)
    scale = math.sqrt(len(part) / samples)
    return {
        name: _interval(float(value[0]), scale * (drawn[name] - middles[name]), mirrored=name in _BIASED)
        for name, value in values.items()
    }


def _weights(samples: int, seed: int) -> np.ndarray:
    """How often each sample is in each resample, (RESAMPLES, samples)."""
    random, weights = np.random.default_rng([seed, 1]), np.empty((RESAMPLES, samples), np.float32)
    for row in weights:
        row[:] = np.bincount(random.integers(0, samples, samples), minlength=samples)
    return weights


def _interval(value: float, strayed: np.ndarray, mirrored: bool) -> Interval:
    """strayed (resamples,): how far each is from the middle; one in which the measure is not defined says nothing."""
    known = strayed[~np.isnan(strayed)]
    if math.isnan(value) or not len(known):
        return _UNDEFINED
    low, high = np.percentile(known, [2.5, 97.5])
    if mirrored:
        return value, max(0.0, value - max(float(high), 0.0)), value - min(float(low), 0.0)
    return value, value + min(float(low), 0.0), value + max(float(high), 0.0)


# --- Measures, of weights (resamples, n) and columns (n, ...) ---------------------------------------------------------
def _by_answers(weights: np.ndarray, y: np.ndarray, answers: np.ndarray) -> _Measures:
    """answers (n,): -1 is none."""
    f1, recall, labelled = [], [], []
    for label in np.union1d(y, answers[answers >= 0]):
        is_it, called_it = y == label, answers == label
        right, has, called = (_sum(weights, found) for found in (is_it & called_it, is_it, called_it))
        f1.append(_divided(2 * right, has + called))
        recall.append(_divided(right, has))
        labelled.append(has)
    weighted = np.nansum(np.multiply(f1, labelled), axis=0) / np.sum(labelled, axis=0)
    return dict(zip(_BY_ANSWERS, (_mean(recall), _mean(f1), weighted), strict=True))


def _by_probabilities(weights: np.ndarray, y: np.ndarray, probabilities: np.ndarray) -> _Measures:
    classes = probabilities.shape[1]
    own = probabilities[np.arange(len(y)), y].astype(np.float64)
    tiny = np.finfo(np.float64).eps
    squares = (
        np.square(probabilities, dtype=np.float64).sum(axis=1) - 2 * own + 1
    )  # sum of (p - 1 where it is the label)^2
    per_class = (
        _auc(weights, y == label, probabilities[:, label]) for label in ([1] if classes == 2 else np.unique(y))
    )
    of = weights.sum(axis=1)
    found = (
        _mean(per_class),
        _sum(weights, -np.log(np.clip(own, tiny, 1 - tiny))) / of,
        _sum(weights, squares) / of / (2 if classes == 2 else 1),
        _calibration_error(weights, y, probabilities) / of,
    )
    return dict(zip(_BY_PROBABILITIES, found, strict=True))


def _calibration_error(weights: np.ndarray, y: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """Over bins of equal width of the largest probability: how far it is from how often it is right, times the samples in the bin."""
    top = probabilities.max(axis=1).astype(np.float64)
    gap = (probabilities.argmax(axis=1) == y) - top
    bins = np.minimum((top * BINS).astype(np.int64), BINS - 1)
    return np.sum([abs(_sum(weights, np.where(bins == number, gap, 0))) for number in np.unique(bins)], axis=0)


def _by_errors(weights: np.ndarray, y: np.ndarray, predictions: np.ndarray) -> _Measures:
    errors, centred, of = np.abs(y - predictions), y - y.mean(), weights.sum(axis=1)
    squares = _sum(weights, np.square(errors))
    spread = _sum(weights, np.square(centred)) - np.square(_sum(weights, centred)) / of
    r2 = 1 - _divided(squares, np.where(spread > 1e-12 * np.square(y).sum() if len(y) else 0, spread, 0))
    found = (_sum(weights, errors) / of, np.sqrt(squares / of), r2, _median(weights, errors))
    return dict(zip(_REGRESSION, found, strict=True))


def _median(weights: np.ndarray, values: np.ndarray) -> np.ndarray:
    """The middle one, or the mean of the two in the middle."""
    order = np.argsort(values, kind="stable")
    below, half = np.cumsum(weights[:, order], axis=1), weights.sum(axis=1)[:, None] / 2
    first, second = (below < half).sum(axis=1), (below <= half).sum(axis=1)
    return (values[order][first] + values[order][np.minimum(second, len(values) - 1)]) / 2


def _by_labels(weights: np.ndarray, y: np.ndarray, probabilities: np.ndarray) -> _Measures:
    given, is_it = probabilities > 0.5, y > 0
    right, counted = ([_sum(weights, column) for column in found.T] for found in (is_it & given, 1.0 * is_it + given))
    found = (
        _divided(2 * np.sum(right, axis=0), np.sum(counted, axis=0)),
        _mean(_divided(2 * hits, of) for hits, of in zip(right, counted, strict=True)),
        _mean(_auc(weights, mark, column) for mark, column in zip(is_it.T, probabilities.T, strict=True)),
        _sum(weights, (is_it != given).mean(axis=1)) / weights.sum(axis=1),
    )
    return dict(zip(_MULTILABEL[1:], found, strict=True))


def _auc(weights: np.ndarray, positive: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """How often a positive sample scores above a negative one; a tie is half. NaN if there are not both."""
    order = np.argsort(scores, kind="stable")
    starts = np.flatnonzero(np.diff(scores[order], prepend=np.nan) != 0)
    ups, downs = (
        np.add.reduceat(weights[:, order] * found[order].astype(weights.dtype), starts, axis=1)
        for found in (positive, ~positive)
    )
    below = np.cumsum(downs, axis=1) - downs / 2
    return _divided(
        np.einsum("ij,ij->i", ups, below, dtype=np.float64), _sum(weights, positive) * _sum(weights, ~positive)
    )


def _sum(weights: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Of values (n,) in each resample (resamples,)."""
    total: np.ndarray = (weights @ values.astype(weights.dtype)).astype(np.float64)
    return total


def _divided(some: np.ndarray, of: np.ndarray) -> np.ndarray:
    """NaN where there is nothing to be divided by."""
    return np.divide(some, of, out=np.full(np.shape(some), np.nan), where=of > 0)


def _mean(parts: Iterable[np.ndarray]) -> np.ndarray:
    """Of those that are defined, in each resample."""
    found = np.stack(list(parts))
    return _divided(np.nansum(found, axis=0), (~np.isnan(found)).sum(axis=0))
