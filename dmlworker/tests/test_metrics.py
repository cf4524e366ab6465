"""Measures with their intervals: against scikit-learn, by hand, and how often an interval holds the truth."""

import time
import warnings

import numpy as np
import pytest
from sklearn import metrics as sk

from dmlworker import metrics

RANDOM = np.random.default_rng(5)


def probabilities(samples: int, classes: int) -> np.ndarray:
    drawn = RANDOM.random((samples, classes)) ** 3
    return drawn / drawn.sum(axis=1, keepdims=True)


def values(found: dict[str, metrics.Interval]) -> dict[str, float | None]:
    return {name: value for name, (value, _, _) in found.items()}


@pytest.mark.parametrize(("samples", "classes"), [(200, 2), (3000, 5), (20_000, 3)])
def test_classes_are_measured_as_scikit_learn_does(samples, classes):
    y, p = RANDOM.integers(0, classes, samples), probabilities(samples, classes)
    p[::3] = np.round(p[::3], 1)  # ties
    p /= p.sum(axis=1, keepdims=True)
    answers = p.argmax(axis=1)
    wanted = {
        "accuracy": sk.accuracy_score(y, answers),
        "balanced_accuracy": sk.balanced_accuracy_score(y, answers),
        "macro_f1": sk.f1_score(y, answers, average="macro"),
        "weighted_f1": sk.f1_score(y, answers, average="weighted"),
        "roc_auc": sk.roc_auc_score(y, p[:, 1]) if classes == 2 else sk.roc_auc_score(y, p, multi_class="ovr"),
        "log_loss": sk.log_loss(y, p),
        "brier": sk.brier_score_loss(y, p[:, 1] if classes == 2 else p),
    }
    found = metrics.classification(y, p)
    assert values(found) | wanted == pytest.approx(values(found), abs=1e-9)
    assert all(low <= value <= high for value, low, high in found.values())


def test_numbers_are_measured_as_scikit_learn_does():
    for samples in (200, 201, 20_000):
        y = RANDOM.normal(1e4, 3, samples)
        predictions = y + RANDOM.normal(size=samples)
        wanted = {
            "mae": sk.mean_absolute_error(y, predictions),
            "rmse": sk.root_mean_squared_error(y, predictions),
            "r2": sk.r2_score(y, predictions),
            "median_absolute_error": sk.median_absolute_error(y, predictions),
        }
        found = metrics.regression(y, predictions[:, None])
        assert values(found) == pytest.approx(wanted, abs=1e-9)
        assert all(low <= value <= high for value, low, high in found.values())


def test_labels_are_measured_as_scikit_learn_does():
    y, p = (RANDOM.random((500, 4)) < 0.3).astype(np.uint8), RANDOM.random((500, 4))
    y[:, 3], p[:, 3] = 0, 0.1  # a label that is neither there nor given
    given = p > 0.5
    with warnings.catch_warnings(action="ignore"):
        macro = sk.f1_score(y, given, average="macro", zero_division=np.nan)
    wanted = {
        "exact_match": sk.accuracy_score(y, given),
        "micro_f1": sk.f1_score(y, given, average="micro"),
        "macro_f1": macro,
        "roc_auc": sk.roc_auc_score(y[:, :3], p[:, :3]),
        "hamming_loss": sk.hamming_loss(y, given),
    }
    assert values(metrics.multilabel(y, p)) == pytest.approx(wanted, abs=1e-9)


def test_the_calibration_error_is_the_gap_between_what_is_said_and_what_is():
    p = np.array([[0.9, 0.1]] * 10 + [[0.3, 0.7]] * 10)
    y = np.array([0] * 6 + [1] * 4 + [1] * 8 + [0] * 2)  # said 0.9, is 0.6; said 0.7, is 0.8
    assert metrics.classification(y, p)["calibration_error"][0] == pytest.approx(0.5 * 0.3 + 0.5 * 0.1)


def test_what_is_not_defined_is_none():
    one_class = metrics.classification(np.zeros(9, int), probabilities(9, 2))
    assert one_class["roc_auc"] == (None, None, None) and one_class["log_loss"][0] is not None
    p = probabilities(9, 2)
    p[0] = np.nan
    diverged = metrics.classification(p.argmax(axis=1), p)
    assert diverged["accuracy"][0] == pytest.approx(8 / 9) and diverged["brier"] == (None, None, None)
    assert metrics.regression(np.ones(5), np.arange(5))["r2"] == (None, None, None)
    assert set(metrics.regression(np.ones(5), np.full(5, np.inf)).values()) == {(None, None, None)}
    assert metrics.multilabel(np.zeros((5, 2), int), np.zeros((5, 2)))["macro_f1"] == (None, None, None)


def test_the_same_samples_give_the_same_intervals():
    y, p = RANDOM.integers(0, 3, 300), probabilities(300, 3)
    assert metrics.classification(y, p) == metrics.classification(y, p)
    assert metrics.classification(y, p) != metrics.classification(y, p, seed=1)


def test_wilsons_interval_is_the_published_one():
    """Newcombe 1998, table I: 81 of 263, and 0 of 20."""
    assert metrics.wilson(81, 263) == pytest.approx((0.3080, 0.2553, 0.3662), abs=5e-5)
    assert metrics.wilson(0, 20) == pytest.approx((0, 0, 0.1611), abs=5e-5)


def classes_drawn(random: np.random.Generator, samples: int) -> tuple[np.ndarray, np.ndarray]:
    """From a model that is too sure of itself: its calibration error is not 0."""
    y = random.integers(0, 3, samples)
    odds = np.exp(2.5 * (random.normal(size=(samples, 3)) + 1.5 * np.eye(3)[y]))
    return y, odds / odds.sum(axis=1, keepdims=True)


def numbers_drawn(random: np.random.Generator, samples: int) -> tuple[np.ndarray, np.ndarray]:
    y = random.normal(size=samples)
    return y, y + 0.5 * random.normal(size=samples)


@pytest.mark.parametrize("samples", [300, 8000])
@pytest.mark.parametrize(
    ("drawn", "measure"), [(classes_drawn, metrics.classification), (numbers_drawn, metrics.regression)]
)
def test_the_intervals_hold_the_truth_about_as_often_as_they_say(drawn, measure, samples, monkeypatch):
    """The truth is known from very many samples of the same law. 8,000: where only a part is resampled."""
    monkeypatch.setattr(metrics, "RESAMPLES", 200)
    monkeypatch.setattr(metrics, "MOST", 1000)
    random = np.random.default_rng(11)
    truth = values(measure(*drawn(random, 500_000)))
    hits = dict.fromkeys(truth, 0)
    for _ in range(300):
        for name, (_, low, high) in measure(*drawn(random, samples)).items():
            hits[name] += low <= truth[name] <= high
    parts = {name: hit / 300 for name, hit in hits.items()}
    assert all((0.85 if name in metrics._BIASED else 0.9) <= part <= 0.99 for name, part in parts.items()), parts


def test_many_samples_take_seconds():
    y, p = RANDOM.integers(0, 10, 200_000), probabilities(200_000, 10).astype(np.float32)
    began = time.monotonic()
    found = metrics.classification(y, p)
    assert time.monotonic() - began < 30
    low, high = found["macro_f1"][1:]
    assert 0.002 < high - low < 0.006  # 3.9 standard errors
