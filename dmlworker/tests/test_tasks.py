"""Learning a number, or several labels at once: read, cut, trained, measured and replayed. In JAX: test_jax."""

import io
import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from sklearn.datasets import load_diabetes
from sklearn.metrics import f1_score, log_loss, r2_score

from dmlworker import datasets, models, task, trainer
from dmlworker.datasets import Dataset, DatasetError, Options, dump, few, load, samples, shards, split
from dmlworker.datasets.shards import STRATUM
from dmlworker.models import ModelRefused
from dmlworker.protocol import Hyper
from dmlworker.trace import steps_of_segment

RANDOM = np.random.Generator(np.random.PCG64(3))
X = RANDOM.normal(size=(120, 3)).astype(np.float32)
PRICE = (250_000 + 40_000 * X[:, 0] - 10_000 * X[:, 1]).astype(np.float32)
SPEC = models.spec(
    models.build((3,), 1, "linear", models.statistics(X), task="regression", target=models.target_statistics(PRICE))
)
START = trainer.initial_weights(SPEC, 1)
HYPER = Hyper(epochs=30, batch_size=20, learning_rate=0.1, seed=5)


def read(tmp_path: Path, cells: list[object], learn: str = "auto") -> Dataset:
    path = tmp_path / "a.csv"
    path.write_text("a,target\n" + "".join(f"{n},{cell}\n" for n, cell in enumerate(cells)))
    return datasets.read(path, "a.csv", options=Options(task=learn))


# --- What a target is -------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("cells", "found"),
    [
        ([n % 20 for n in range(210)], "classification"),
        ([n % 21 for n in range(210)], "regression"),
        ([0.5, 1] * 20, "regression"),
        (["1.0", "2"] * 20, "classification"),
        ([*range(40), *["forty"] * 10], None),
    ],
)
def test_numbers_with_a_fraction_or_of_many_values_are_a_quantity(
    tmp_path: Path, cells: list[object], found: str | None
) -> None:
    if found is None:
        with pytest.raises(DatasetError, match="at least 10 samples"):
            read(tmp_path, cells)
    else:
        assert read(tmp_path, cells).task == found


def test_the_customer_may_say_otherwise(tmp_path: Path) -> None:
    stars = [1 + n % 5 for n in range(50)]
    numbers = read(tmp_path, stars, "regression")
    assert (numbers.y.dtype, numbers.classes, numbers.y.tolist()) == (np.float32, (), stars)
    assert read(tmp_path, [n % 30 for n in range(300)], "classification").classes[-1] == "29"


@pytest.mark.parametrize(
    ("cells", "said"),
    [
        (["a", "b"] * 20, "holds text"),
        ([1.5] * 40, "always 1.5"),
        ([n / 2 for n in range(19)], "too few"),
        ([*range(40), "1e39"], "sample 41"),
        ([*range(40), "inf"], "sample 41"),
        ([*range(40), "NA"], "missing in line 42"),
    ],
)
def test_what_cannot_be_learnt_as_a_number_is_refused(tmp_path: Path, cells: list[object], said: str) -> None:
    with pytest.raises(DatasetError, match=said):
        read(tmp_path, cells, "regression")


def test_an_array_of_numbers_is_a_regression_too(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    path.write_bytes(samples.npz(X, PRICE))
    np.testing.assert_array_equal(datasets.read(path, "a.npz").y, PRICE)
    with pytest.raises(DatasetError, match="are too many|at least 10 samples"):
        datasets.read(path, "a.npz", options=Options(task="classification"))


def test_folders_called_by_numbers_are_classes_unless_the_customer_says_otherwise(tmp_path: Path) -> None:
    path, picture = tmp_path / "a.zip", io.BytesIO()
    Image.new("L", (8, 8)).save(picture, "PNG")
    with zipfile.ZipFile(path, "w") as file:
        for n in range(210):
            file.writestr(f"{n % 21}/{n}.png", picture.getvalue())
    assert datasets.read(path, "a.zip").task == "classification"
    assert datasets.read(path, "a.zip", options=Options(task="regression")).y.max() == 20


def test_it_is_described_by_its_range_and_not_by_classes(tmp_path: Path) -> None:
    facts = datasets.describe(read(tmp_path, [*range(99), 1000]))
    assert (facts.task, facts.classes, facts.preview[1]) == ("regression", {}, ("1", "1"))
    assert facts.spread and (facts.spread.low, facts.spread.high) == (0, 1000)
    assert [count for _, _, count in facts.spread.bars] == [99, *[0] * 8, 1]
    json.dumps(facts.json())


# --- The cut ----------------------------------------------------------------------------------------------------------
def numbers(n: int, different: int) -> Dataset:
    """Samples whose x is their own number; targets may be equal."""
    y = np.random.Generator(np.random.PCG64(n)).permutation(np.arange(n) % different).astype(np.float32)
    x = np.arange(n, dtype=np.float32).reshape(-1, 1)
    return Dataset(x, y, (), ("number",), "csv", "target", task="regression")


def strata(data: Dataset, part: Dataset) -> list[int]:
    """How many samples of each stratum a part has; all targets differ."""
    bounds = [chunk[0] for chunk in np.array_split(np.sort(data.y), max(1, len(data) // STRATUM))]
    return np.bincount(np.searchsorted(bounds, part.y, "right") - 1, minlength=len(bounds)).tolist()


@given(st.integers(20, 200), st.integers(0, 2**32), st.floats(0.1, 0.5))
def test_split_is_exact_complete_and_takes_its_share_of_every_stratum(n: int, seed: int, holdout: float) -> None:
    data = numbers(n, n)
    train, held = split(data, seed, holdout)
    assert len(held) == round(n * holdout)
    assert sorted(np.concatenate([train.x, held.x]).ravel()) == list(range(n))
    assert all(data.y[int(number)] == label for number, label in zip(held.x.ravel(), held.y, strict=True))
    for taken, all_ in zip(strata(data, held), strata(data, data), strict=True):
        assert abs(taken - all_ * len(held) / n) < 1


@given(st.integers(20, 200), st.integers(1, 10), st.integers(0, 2**32))
def test_shards_partition_the_data_and_every_stratum_evenly(n: int, count: int, seed: int) -> None:
    data = numbers(n, n)
    parts = shards(data, count, seed)
    assert sorted(np.concatenate([part.x for part in parts]).ravel()) == list(range(n))
    for counted in ([len(part) for part in parts], *zip(*(strata(data, part) for part in parts), strict=True)):
        assert max(counted) - min(counted) <= 1


@given(st.integers(20, 200), st.integers(1, 20))
def test_equal_targets_cost_nothing_of_that(n: int, different: int) -> None:
    data = numbers(n, different)
    train, held = split(data, 1)
    assert (len(held), len(train) + len(held)) == (round(n * 0.2), n)
    sizes = [len(part) for part in shards(train, 4, 1)]
    assert max(sizes) - min(sizes) <= 1 and sum(sizes) == len(train)


def test_few_are_spread_over_the_whole_range() -> None:
    data = numbers(100, 100)
    x, y = few(data.x, data.y, 10)
    assert sorted(y.tolist()) == list(range(0, 100, 10))
    assert x.ravel().tolist() == sorted(x.ravel().tolist())
    assert len(few(data.x, data.y, 1000)[1]) == 100


def test_a_shard_of_numbers_survives_as_bytes() -> None:
    x, y = load(dump(X, PRICE))
    assert (x.tobytes(), y.tobytes(), y.dtype) == (X.tobytes(), PRICE.tobytes(), np.float32)
    with pytest.raises(DatasetError):
        dump(X, PRICE.astype(np.float64))


# --- The model --------------------------------------------------------------------------------------------------------
def test_the_last_layer_says_what_is_learnt() -> None:
    assert models.task(SPEC) == "regression"
    assert models.target(SPEC) == pytest.approx((PRICE.mean(dtype=float), PRICE.std(dtype=float)))
    assert models.task(models.spec(models.build((3,), 2, "mlp"))) == "classification"
    assert models.task(models.spec(models.build((3,), 2, "mlp", task="multilabel"))) == "multilabel"


def test_of_a_functional_model_the_output_says_it_wherever_its_layer_is_listed() -> None:
    import keras

    rows = keras.Input((3,))
    said = keras.layers.Rescaling(2.0, offset=5.0)(keras.layers.Dense(1)(rows))
    spec = models.spec(keras.Model(rows, said))
    spec["config"]["layers"].reverse()
    assert (models.task(spec), models.target(spec)) == ("regression", (5.0, 2.0))


@pytest.mark.parametrize("scale", [0.0, -1.0, [1.0, 2.0], None])
def test_a_scale_that_is_none_is_refused(scale: object) -> None:
    spec = json.loads(json.dumps(SPEC))
    spec["config"]["layers"][-1]["config"]["scale"] = scale
    with pytest.raises(ModelRefused):
        models.from_spec(spec)


def test_a_number_is_one_output() -> None:
    with pytest.raises(ModelRefused, match="one number"):
        models.build((3,), 2, task="regression", target=(0.0, 1.0))


# --- Training ---------------------------------------------------------------------------------------------------------
def test_it_learns_whatever_the_unit() -> None:
    end = trainer.train(SPEC, START, X, PRICE, HYPER)
    found = trainer.evaluate(SPEC, end, X, PRICE)
    assert found.score > 0.999
    assert (found.correct, found.samples, found.f1) == (120, 120, None)
    predicted = trainer.predict(SPEC, end, X)[:, 0]
    np.testing.assert_allclose(found.answers, predicted, rtol=1e-5)
    assert found.score == pytest.approx(r2_score(PRICE, predicted))
    assert found.loss == pytest.approx(0.5 * np.square((predicted - PRICE) / PRICE.std()).mean(), rel=1e-2)


def test_steps_are_plain_sgd_on_half_the_square_with_the_partial_batch_weighed_by_its_size() -> None:
    mean, deviation = models.target(SPEC)
    rows, wanted = (X - X.mean(axis=0, dtype=float)) / X.std(axis=0, dtype=float), (PRICE - mean) / deviation
    kernel, bias = (array.astype(float) for array in START)
    order = np.random.Generator(np.random.PCG64(9)).permutation(120)
    for batch in (order[:50], order[50:100], order[100:]):
        error = ((rows[batch] @ kernel + bias)[:, 0] - wanted[batch]) / len(batch)
        kernel, bias = kernel - 0.5 * (rows[batch].T @ error)[:, None], bias - 0.5 * error.sum()
    trained = trainer.train(SPEC, START, X, PRICE, Hyper(1, 50, 0.5, 9))
    np.testing.assert_allclose(trained[0], kernel, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(trained[1], bias, rtol=1e-4, atol=1e-5)


def test_a_segment_done_again_ends_in_the_same_bits() -> None:
    hyper, kept = Hyper(2, 20, 0.1, 5, checkpoint_every=3), [START]
    trainer.train(SPEC, START, X, PRICE, hyper, checkpoint=lambda now: kept.append([np.array(a) for a in now]))
    again = trainer.replay(SPEC, START, X, PRICE, hyper, kept[1], steps_of_segment(1, 120, hyper))
    assert all((a == b).all() for a, b in zip(again, kept[2], strict=True))


@pytest.mark.parametrize("size", [1e30, np.inf, np.nan])
def test_answers_that_are_not_finite_are_the_worst_and_no_error(size: float) -> None:
    found = trainer.evaluate(SPEC, [np.full_like(array, size) for array in START], X, PRICE)
    assert (found.correct, found.score, found.loss) == (0, trainer.LEAST_R2, np.inf)


def test_worse_than_the_mean_is_below_zero_and_earns_nothing() -> None:
    found = trainer.evaluate(SPEC, [np.zeros_like(START[0]), np.ones_like(START[1])], X, PRICE)
    assert found.score == pytest.approx(-1, abs=0.01)
    assert found.correct == 0


def test_a_target_that_does_not_vary() -> None:
    y = np.ones(3)
    assert [trainer.r2(answers, y) for answers in (y, y + 1)] == [1.0, 0.0]


def test_labels_of_another_task_are_refused() -> None:
    for labels in (PRICE.astype(np.int32), PRICE[:, None], PRICE[:50]):
        with pytest.raises(ValueError, match="do not fit"):
            trainer.evaluate(SPEC, START, X, labels)


def test_real_data_comes_near_to_least_squares() -> None:
    """Of scikit-learn's diabetes; a linear model there reaches an R² of about 0.5."""
    x, y = load_diabetes(return_X_y=True)
    whole = Dataset(x.astype(np.float32), y.astype(np.float32), (), ("",) * 10, "csv", "target", task="regression")
    train, held = split(whole, 1)
    head = {"task": "regression", "target": models.target_statistics(train.y)}
    spec = models.spec(models.build((10,), 1, "linear", models.statistics(train.x), **head))
    start = trainer.initial_weights(spec, 1)
    end = trainer.train(spec, start, train.x, train.y, Hyper(30, 20, 0.02, 1))
    rows = np.c_[train.x, np.ones(len(train))]
    best = np.linalg.lstsq(rows, train.y, rcond=None)[0]
    wanted = r2_score(held.y, np.c_[held.x, np.ones(len(held))] @ best)
    assert trainer.evaluate(spec, end, held.x, held.y).score == pytest.approx(wanted, abs=0.05)


def test_a_score_reads_as_people_write_it() -> None:
    assert [task.shown(each, 0.4776) for each in ("auto", "regression", "multilabel")] == ["47.8 %", "0.478", "47.8 %"]
    assert task.shown("regression", -0.2) == "-0.200"


# --- Several labels -----------------------------------------------------------------------------------------------------
WORDS = [(["red"] * (n % 2 == 0) + ["big"] * (n % 3 == 0) + ["old"] * (n % 5 == 0)) or [";"] for n in range(120)]
MARKS = np.array([[n % 3 == 0, n % 5 == 0, n % 2 == 0] for n in range(120)], np.uint8)


@pytest.mark.parametrize("separator", [";", " | "])
def test_cells_with_several_labels_in_many_combinations_are_several(tmp_path: Path, separator: str) -> None:
    cells = [separator.join(words) if words != [";"] else separator for words in WORDS]
    found = read(tmp_path, [f'"{cell}"' for cell in cells])
    assert (found.task, found.classes) == ("multilabel", ("big", "old", "red"))
    np.testing.assert_array_equal(found.y, MARKS)
    facts = datasets.describe(found)
    assert facts.classes == {"big": 40, "old": 24, "red": 60}
    assert [row[-1] for row in facts.preview[:2]] == ["big; old; red", "none"]


def test_names_with_a_separator_are_classes_unless_the_customer_says_otherwise(tmp_path: Path) -> None:
    cells = ["beer|wine", "tea"] * 20
    assert read(tmp_path, cells).classes == ("beer|wine", "tea")
    assert read(tmp_path, cells, "multilabel").classes == ("beer", "tea", "wine")


@pytest.mark.parametrize(
    ("cells", "said"),
    [
        (["a"] * 40, "one label only"),
        (["a|b"] * 20 + ["a|b|c"] * 9, "a is in every sample"),
        (["a|b"] * 20 + ["c"] * 9, "c is in 9 of at least 10"),
        ([f"{n}|{n + 1}" for n in range(1001)], "1,002 labels are too many"),
    ],
)
def test_labels_that_cannot_be_learnt_are_refused(tmp_path: Path, cells: list[object], said: str) -> None:
    with pytest.raises(DatasetError, match=said):
        read(tmp_path, cells, "multilabel")


@pytest.mark.parametrize("mark", [";", "|"])
def test_how_to_write_no_label_is_told_where_one_is_missing(tmp_path: Path, mark: str) -> None:
    rows = [f"{n},{cell}" for n, cell in enumerate([f"a{mark}b", "a", ""] * 20)]
    path = tmp_path / "a.csv"
    path.write_text("\n".join(["x,labels", *rows]))
    with pytest.raises(DatasetError, match="missing in line 4. Where a row has none of several labels, write") as found:
        datasets.read(path, "a.csv")
    assert str(found.value).endswith(f"write a mere {mark} there.")
    path.write_text("\n".join(["x,labels", *rows]).replace(",\n", f",{mark}\n") + mark)
    assert datasets.read(path, "a.csv").y.sum(axis=0).tolist() == [40, 20]


def test_an_array_of_marks_is_several_labels_and_a_one_hot_one_is_classes(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    path.write_bytes(samples.npz(X, MARKS.astype(float)))
    found = datasets.read(path, "a.npz")
    assert (found.classes, found.y.dtype, found.y.tolist()) == (
        ("label 1", "label 2", "label 3"),
        np.uint8,
        MARKS.tolist(),
    )
    path.write_bytes(samples.npz(X, np.eye(3, dtype=int)[np.arange(120) % 3]))
    assert datasets.read(path, "a.npz").y.tolist() == [n % 3 for n in range(120)]
    assert datasets.read(path, "a.npz", options=Options(task="multilabel")).y.shape == (120, 3)


def several(n: int, shares: list[float], seed: int) -> Dataset:
    random = np.random.Generator(np.random.PCG64(seed))
    y = (random.random((n, len(shares))) < shares).astype(np.uint8)
    x = np.arange(n, dtype=np.float32).reshape(-1, 1)
    return Dataset(x, y, tuple(map(str, range(len(shares)))), ("number",), "csv", "target", task="multilabel")


def by_rarest(data: Dataset, part: Dataset) -> list[int]:
    order = sorted(range(len(data.classes)), key=lambda label: (data.y[:, label].sum(), label))
    found = [next((label for label in order if row[label]), len(order)) for row in part.y]
    return np.bincount(found, minlength=len(order) + 1).tolist()


LABELS = st.builds(
    several, st.integers(20, 120), st.lists(st.floats(0.05, 0.9), min_size=2, max_size=6), st.integers(0, 99)
)


@given(LABELS, st.integers(0, 2**32), st.floats(0.1, 0.5))
def test_split_is_exact_complete_and_takes_its_share_by_the_rarest_label(
    data: Dataset, seed: int, holdout: float
) -> None:
    train, held = split(data, seed, holdout)
    assert len(held) == round(len(data) * holdout)
    assert sorted(np.concatenate([train.x, held.x]).ravel()) == list(range(len(data)))
    assert all((data.y[int(number)] == marks).all() for number, marks in zip(held.x.ravel(), held.y, strict=True))
    for taken, all_ in zip(by_rarest(data, held), by_rarest(data, data), strict=True):
        assert abs(taken - all_ * len(held) / len(data)) < 1


@given(LABELS, st.integers(1, 10), st.integers(0, 2**32))
def test_shards_partition_the_data_evenly_by_the_rarest_label(data: Dataset, count: int, seed: int) -> None:
    parts = shards(data, count, seed)
    assert sorted(np.concatenate([part.x for part in parts]).ravel()) == list(range(len(data)))
    for counted in ([len(part) for part in parts], *zip(*(by_rarest(data, part) for part in parts), strict=True)):
        assert max(counted) - min(counted) <= 1


def test_few_have_every_label_and_a_shard_survives_as_bytes() -> None:
    data = several(200, [0.9, 0.05], 1)
    x, y = few(data.x, data.y, 9)
    assert len(y) == 9 and y[:, 1].sum() >= 3
    assert [found.tobytes() for found in load(dump(x, y))] == [x.tobytes(), y.tobytes()]


SEVERAL = models.spec(models.build((3,), 3, "mlp", models.statistics(X), task="multilabel"))
SIGNS = (X + [0, 0, -1] > 0).astype(np.uint8)


def test_labels_are_learnt_independently_of_one_another() -> None:
    start = trainer.initial_weights(SEVERAL, 1)
    before, end = trainer.evaluate(SEVERAL, start, X, SIGNS), trainer.train(SEVERAL, start, X, SIGNS, HYPER)
    found, said = trainer.evaluate(SEVERAL, end, X, SIGNS), trainer.predict(SEVERAL, end, X)
    assert found.loss < before.loss / 2 and found.score > 0.85
    np.testing.assert_array_equal(found.answers, said > 0.5)
    assert found.score == found.f1 == pytest.approx(f1_score(SIGNS, said > 0.5, average="macro"))
    assert found.correct == round(120 * found.score)
    assert found.loss == pytest.approx(log_loss(SIGNS.ravel(), said.ravel().astype(float)), rel=1e-4)


def test_a_constant_answer_earns_nothing_however_rare_the_labels() -> None:
    nothing = [np.zeros_like(array) for array in trainer.initial_weights(SEVERAL, 1)]
    nothing[-1] -= 1
    found = trainer.evaluate(SEVERAL, nothing, X, SIGNS)
    assert (found.answers == 0).all()
    assert (found.correct, found.score) == (0, 0.0)


def test_labels_of_answers_that_are_not_finite_count_for_none() -> None:
    huge = [np.full_like(array, 1e30) for array in trainer.initial_weights(SEVERAL, 1)]
    found = trainer.evaluate(SEVERAL, huge, X, SIGNS)
    assert (found.correct, found.score, found.loss, found.answers.max()) == (0, 0.0, np.inf, -1)
