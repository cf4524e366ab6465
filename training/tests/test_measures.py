"""How a model does on each class."""

import numpy as np
import pytest
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

from training import measures

NAMES = ["a", "b", "c", "d"]
RANDOM = np.random.default_rng(3)
LABELS, ANSWERS = RANDOM.integers(0, 3, 200), RANDOM.integers(0, 3, 200)


def test_it_is_what_scikit_learn_says():
    kept = measures.by_class(LABELS, ANSWERS, 3)
    assert kept["confusion"] == confusion_matrix(LABELS, ANSWERS).tolist()
    wanted = precision_recall_fscore_support(LABELS, ANSWERS)
    for row, *numbers in zip(measures.table(kept, NAMES[:3]), *wanted, strict=True):
        assert [row.precision, row.recall, row.f1, row.samples] == pytest.approx(numbers)


def test_a_class_that_never_occurs_has_no_measures_and_no_answer_counts_nowhere():
    kept = measures.by_class(np.array([0, 0, 1]), np.array([0, -1, -1]), 4)
    assert kept["confusion"] == [[1, 0, 0, 0], [0] * 4, [0] * 4, [0] * 4]
    first, second, _, last = measures.table(kept, NAMES)
    assert (first.precision, first.recall) == (1, 0.5)
    assert (second.precision, second.recall, second.f1) == (None, 0, 0)
    assert (last.precision, last.recall, last.f1) == (None, None, None)


def test_cells_are_shaded_by_the_part_of_their_row():
    kept = measures.by_class(np.array([0] * 10 + [1]), np.array([0] * 9 + [1, 1]), 2)
    (name, row), (_, other) = measures.matrix(kept, NAMES)
    assert name == "a" and [(cell.count, cell.shade, cell.right) for cell in row] == [(9, 8, True), (1, 0, False)]
    assert [cell.shade for cell in other] == [0, 9]


def test_of_many_classes_no_matrix_is_kept():
    kept = measures.by_class(np.arange(21), np.arange(21), 21)
    assert kept["confusion"] is None and kept["right"] == [1] * 21
    assert measures.matrix(kept, [str(n) for n in range(21)]) == []
