"""What a customer says of their data: columns and their kinds, groups that stay whole, windows over time, classes that count alike."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from dmlworker import datasets, models, trainer
from dmlworker.datasets import Dataset, DatasetError, Encoder, Options
from dmlworker.protocol import Hyper
from dmlworker.tests.test_encoding import LOAD, table


def read(folder: Path, content: str, name: str = "t.csv", **options: object) -> Dataset:
    (folder / "upload").write_text(content)
    return datasets.read(folder / "upload", name, None, Options(**options))  # type: ignore[arg-type]


def test_options_go_through_text_and_usual_ones_are_none() -> None:
    assert Options().text == "" and Options.from_text("") == Options()
    options = Options("classification", ("a",), {"b": "text"}, "c", 0, 2, "group", "balanced")
    assert Options.from_text(options.text) == options
    for text in (
        "[",
        "[1]",
        '{"more": 1}',
        '{"kinds": {"a": "list"}}',
        '{"window": "x"}',
        '{"leave_out": 3}',
        '{"kinds": []}',
    ):
        with pytest.raises(DatasetError):
            Options.from_text(text)


# --- Columns ----------------------------------------------------------------------------------------------------------
PEOPLE = table(
    "id,zip,born,note,y", *(f"{n},{10000 + n % 4},0{1 + n % 9}/02/2024,said {n % 3},{n % 2}" for n in range(60))
)


def test_columns_are_left_out_and_are_what_their_owner_says(tmp_path: Path) -> None:
    data = read(tmp_path, PEOPLE, leave_out=("id",), kinds={"zip": "category", "note": "text"})
    assert [(raw.name, raw.kind) for raw in data.raw] == [("zip", "category"), ("born", "date"), ("note", "text")]
    facts = datasets.describe(data)
    assert "left out: you chose so" in [column.kind for column in facts.details] and not any(
        "Left out" in each for each in facts.warnings
    )
    assert datasets.parts(data, 1).train.x.shape[0] == 48


def test_numbers_alone_become_categories_if_their_owner_says_so(tmp_path: Path) -> None:
    content = table("a,b,y", *(f"{n % 3},{n},{n % 2}" for n in range(60)))
    assert read(tmp_path, content).raw == () and read(tmp_path, content, kinds={"a": "number"}).raw == ()
    assert [raw.kind for raw in read(tmp_path, content, kinds={"a": "category"}).raw] == ["category", "number"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"leave_out": ("idd",)}, "no column 'idd'. The columns are: id"),
        ({"kinds": {"idd": "text"}}, "no column 'idd'"),
        ({"group": "idd"}, "no column 'idd'"),
        ({"leave_out": ("y",)}, "'y' is the target"),
        ({"group": "y"}, "'y' is the target"),
        ({"leave_out": ("id", "zip", "born", "note")}, "No column is left"),
        ({"kinds": {"note": "number"}}, "'note' has text in line 2"),
        ({"kinds": {"zip": "date"}}, "'zip' does not hold dates"),
        ({"kinds": {"zip": "list"}}, "no kind of column 'list'"),
        ({"window": -1}, "A window has up to"),
        ({"sharding": "group"}, "name the column"),
        ({"group": "id", "window": 3}, "one series"),
    ],
)
def test_what_is_wrong_with_the_choice_is_said(tmp_path: Path, options: dict, message: str) -> None:
    with pytest.raises(DatasetError, match=message):
        read(tmp_path, PEOPLE, **options)


def test_arrays_have_no_columns(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=np.zeros((20, 2), np.float32), y=np.arange(20) % 2)
    with pytest.raises(DatasetError, match="has no columns"):
        datasets.read(tmp_path / "a.npz", "a.npz", None, Options(group="a"))


# --- Groups -----------------------------------------------------------------------------------------------------------
def patients(people: int = 40, seed: int = 1) -> str:
    random = np.random.Generator(np.random.PCG64(seed))
    rows = [
        f"p{person},{random.normal():.3f},{int(person % 4 == 0)}"
        for person in range(people)
        for _ in range(random.integers(1, 12))
    ]
    return table("patient,a,ill", *random.permutation(rows))


@pytest.mark.parametrize("seed", range(5))
def test_rows_of_a_group_are_never_on_both_sides(tmp_path: Path, seed: int) -> None:
    data = read(tmp_path, patients(), group="patient")
    assert data.features == ("a",) and data.raw == ()
    train, holdout = datasets.split(data, seed)
    assert not set(train.groups) & set(holdout.groups) and len(train) + len(holdout) == len(data)
    assert abs(len(holdout) / len(data) - 0.2) < 0.03
    assert abs(holdout.y.mean() - data.y.mean()) < 0.08
    again = datasets.split(data, seed)
    assert (again[1].x == holdout.x).all() and set(datasets.split(data, seed + 1)[1].groups) != set(holdout.groups)


def test_groups_are_given_to_providers_whole(tmp_path: Path) -> None:
    train, _ = datasets.split(read(tmp_path, patients(), group="patient"), 1)
    parts = datasets.shards(train, 4, 1, "group")
    groups = [set(part.groups) for part in parts]
    assert sum(map(len, groups)) == len(set.union(*groups)) == len(set(train.groups))
    assert max(map(len, parts)) - min(map(len, parts)) <= 12 and sum(map(len, parts)) == len(train)
    with pytest.raises(DatasetError, match="can't be shared among 100 providers"):
        datasets.shards(train, 100, 1, "group")


def test_too_few_groups_and_too_large_ones_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "upload"
    path.write_text(table("g,a,y", *(f"{n % 4},{n},{n % 2}" for n in range(80))))
    with pytest.raises(DatasetError, match="There are 4 groups; at least 5"):
        datasets.inspect(path, "t.csv", None, Options(group="g"))
    data = read(tmp_path, table("g,a,y", *(f"{max(0, n - 95)},{n},{n % 2}" for n in range(100))), group="g")
    with pytest.raises(DatasetError, match="too large"):
        datasets.split(data, 1)
    with pytest.raises(DatasetError, match="The group 'g' is missing in line 2"):
        read(tmp_path, table("g,a,y", *(f"{n or ''},{n},{n % 2}" for n in range(80))), group="g")


def test_no_class_is_held_out_whole(tmp_path: Path) -> None:
    rows = [f"{n // 10},{n},{'rare' if n < 10 else 'ab'[n % 2]}" for n in range(200)]
    data = read(tmp_path, table("g,a,y", *rows), group="g")
    for seed in range(5):
        assert "rare" in {data.classes[label] for label in datasets.split(data, seed)[0].y}


# --- Windows ----------------------------------------------------------------------------------------------------------
SERIES = table("day,load,y", *(f"{n},{n / 10},{'up' if n % 4 < 2 else 'down'}" for n in range(200)))


def test_windows_hold_the_rows_before_and_the_targets_own_past(tmp_path: Path) -> None:
    options = Options(window=6, horizon=3)
    found = datasets.parts(read(tmp_path, SERIES, window=6, horizon=3), 1, options)
    assert found.train.x.shape == (160 - 8, 6, 2 + 3) and found.holdout.x.shape == (40 - 8, 6, 5)
    np.testing.assert_array_equal(found.train.x[5, :, 0], np.arange(5, 11))
    # The first column of a category is for values never seen, then: down, up.
    np.testing.assert_array_equal(found.train.x[5, :, 3:], [[n % 4 >= 2, n % 4 < 2] for n in range(5, 11)])
    assert found.train.y.tolist() == [int(n % 4 < 2) for n in range(8, 160)]
    # The last row that training sees, as a target, comes before the first one that is held out.
    assert found.train.x[-1, -1, 0] + 3 == 159 and found.holdout.x[0, 0, 0] == 160
    assert found.example[0][:2] == ["160", "16"] and len(found.example) == 6


def test_shards_of_windows_are_of_the_whole_time(tmp_path: Path) -> None:
    found = datasets.parts(read(tmp_path, SERIES, window=6), 1, Options(window=6))
    for shard in datasets.shards(found.train, 3, 1):
        assert shard.x[:, 0, 0].min() < 20 and shard.x[:, 0, 0].max() > 130
        assert datasets.load(datasets.dump(shard.x, shard.y))[0].shape[1:] == (6, 5)


def test_too_few_rows_and_too_many_values_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "upload").write_text(SERIES)
    with pytest.raises(DatasetError, match="200 rows are too few for windows of 30 with the target 2 further on"):
        datasets.inspect(tmp_path / "upload", "t.csv", None, Options(window=30, horizon=2))
    monkeypatch.setattr("dmlworker.datasets.windows.MAX_VALUES", 1000)
    with pytest.raises(DatasetError, match="Take shorter ones"):
        datasets.parts(read(tmp_path, SERIES, window=6), 1, Options(window=6))


def test_a_series_may_be_its_target_alone(tmp_path: Path) -> None:
    found = datasets.parts(read(tmp_path, SERIES, window=4, leave_out=("day", "load")), 1, Options(window=4))
    assert found.train.x.shape[1:] == (4, 3)


def test_a_numbers_past_is_a_number(tmp_path: Path) -> None:
    data = read(tmp_path, SERIES)
    rows = datasets.windows.with_past(replace(data, y=np.arange(200, dtype=np.float32), classes=()))
    assert rows.raw == () and rows.features == ("day", "load", "y")
    found = datasets.windows.windows(rows, Options(window=5, horizon=2))
    assert found.x[0, :, 2].tolist() == [0, 1, 2, 3, 4] and found.y[0] == 6


def test_the_exported_model_takes_raw_windows(tmp_path: Path) -> None:
    rows = [
        f"{n if n % 9 else ''},{'ab'[n % 2]},2024-01-{1 + n % 28:02},{'up' if n % 4 < 2 else 'down'}"
        for n in range(200)
    ]
    options = Options(window=4)
    found = datasets.parts(read(tmp_path, table("a,b,c,y", *rows), window=4), 1, options)
    encoder, shape = found.encoder, found.train.x.shape[1:]
    assert encoder and encoder.steps == 4 and Encoder.from_json(encoder.json(), 4) == encoder
    spec = models.spec(models.build(shape, 2, "mlp", models.Statistics([0.0], [1.0])))
    weights = trainer.initial_weights(spec, 1)
    trainer.export(spec, weights, tmp_path, encoder)
    cells = [
        [float(row[n] or "nan") if feature.kind == "number" else row[n] for row in found.example]
        for n, feature in enumerate(encoder.features)
    ]
    (tmp_path / "rows.json").write_text(
        json.dumps({name: [each] for name, each in zip(encoder.inputs, cells, strict=True)})
    )
    done = subprocess.run([sys.executable, "-c", LOAD], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    answer = np.array(json.loads(done.stdout.partition("FOUND")[2]))
    np.testing.assert_allclose(answer, trainer.predict(spec, weights, found.holdout.x[:1]), atol=1e-5)


# --- Class weights ----------------------------------------------------------------------------------------------------
def unbalanced(rows: int = 3000) -> str:
    random = np.random.Generator(np.random.PCG64(2))
    labels = ["rare" if n % 20 == 0 else "usual" for n in range(rows)]
    return table("a,b,y", *(f"{random.normal(label == 'rare'):.4f},{random.normal():.4f},{label}" for label in labels))


def test_balanced_classes_count_alike(tmp_path: Path) -> None:
    data = read(tmp_path, unbalanced())
    found = datasets.parts(data, 1, Options(class_weights="balanced"))
    w = found.train.w
    assert w is not None and found.holdout.w is None
    assert w[found.train.y == 0].sum() == pytest.approx(w[found.train.y == 1].sum()) and w.mean() == pytest.approx(1)
    assert datasets.parts(data, 1).train.w is None
    for shard in datasets.shards(found.train, 3, 1):
        blob = datasets.dump(shard.x, shard.y, shard.w)
        np.testing.assert_array_equal(datasets.load_weighted(blob)[2], shard.w)
        np.testing.assert_array_equal(datasets.load(blob)[1], shard.y)


def test_classes_that_are_equal_already_need_no_weights(tmp_path: Path) -> None:
    data = read(tmp_path, table("a,y", *(f"{n},{n % 2}" for n in range(100))))
    assert datasets.parts(data, 1, Options(class_weights="balanced")).train.w is None


def test_a_rare_class_is_found_more_often_with_balanced_weights(tmp_path: Path) -> None:
    data, recalls = read(tmp_path, unbalanced()), []
    for class_weights in ("none", "balanced"):
        found = datasets.parts(data, 1, Options(class_weights=class_weights))
        train, holdout = found.train, found.holdout
        spec = models.spec(models.build((2,), 2, "linear", models.statistics(train.x)))
        weights = trainer.train(
            spec, trainer.initial_weights(spec, 1), train.x, train.y, Hyper(5, 20, 0.1, 3), w=train.w
        )
        answers = trainer.evaluate(spec, weights, holdout.x, holdout.y).answers
        recalls.append((answers[holdout.y == 0] == 0).mean())
    assert recalls[1] > recalls[0] + 0.3


def test_a_replay_of_weighted_work_is_the_same_bit_for_bit(tmp_path: Path) -> None:
    train = datasets.parts(read(tmp_path, unbalanced(200)), 1, Options(class_weights="balanced")).train
    spec = models.spec(models.build((2,), 2, "linear", models.statistics(train.x)))
    start, hyper = trainer.initial_weights(spec, 1), Hyper(2, 10, 0.1, 3, checkpoint_every=8)
    kept: list = []
    end = trainer.train(
        spec, start, train.x, train.y, hyper, checkpoint=lambda at: kept.append([each.copy() for each in at]), w=train.w
    )
    again = trainer.replay(spec, start, train.x, train.y, hyper, kept[1], range(16, 32), w=train.w)
    plain = trainer.replay(spec, start, train.x, train.y, hyper, kept[1], range(16, 32))
    assert all(map(np.array_equal, end, again)) and not all(map(np.array_equal, end, plain))


@pytest.mark.parametrize(
    "w", [np.zeros(4, np.float32), np.ones(3, np.float32), np.ones(4), np.full(4, np.inf, np.float32)]
)
def test_bad_weights_are_no_shard(w: np.ndarray) -> None:
    with pytest.raises(DatasetError, match="weights"):
        datasets.dump(np.zeros((4, 2), np.float32), np.zeros(4, np.int32), w)
