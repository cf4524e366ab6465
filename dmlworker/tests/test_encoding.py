"""Tables with text, gaps and dates: what becomes of them, and the exported model that does the same to raw rows."""

import hashlib
import json
import subprocess
import sys
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dmlworker import datasets, models, ownmodel, rawmodel, trainer, zoo
from dmlworker.checks import Wrong, _loaded
from dmlworker.datasets import Dataset, DatasetError, Encoder, arrays, dates, samples
from dmlworker.datasets.cells import Texts
from dmlworker.datasets.dataset import Raw, encode_labels
from dmlworker.protocol import Hyper

LOAD = """
import json, sys
import keras, numpy as np
rows = json.load(open("rows.json"))
inputs = {name: keras.ops.convert_to_tensor(values) for name, values in rows.items()}
a = keras.saving.load_model("model.keras", safe_mode=True)
b = keras.models.model_from_json(open("model.json").read())
b.load_weights("model.weights.h5")
p, q = a.predict(inputs, verbose=0), b.predict(inputs, verbose=0)
assert (p == q).all()
assert "dmlworker" not in sys.modules
print("FOUND" + json.dumps(p.tolist()))
"""


def read(folder: Path, content: bytes | str, target: str | None = None, name: str = "t.csv") -> Dataset:
    path = folder / "upload"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return datasets.read(path, name, target)


def table(header: str, *rows: str) -> str:
    return "\n".join([header, *rows]) + "\n"


@pytest.fixture
def passengers(tmp_path: Path) -> Dataset:
    return read(tmp_path, samples.passengers_csv())


def test_each_column_is_found_to_be_what_it_is(passengers: Dataset) -> None:
    assert [(raw.name, raw.kind) for raw in passengers.raw] == [
        ("age", "number"),
        ("deck/cabin", "category"),
        ("paid", "category"),
        ("boarded", "date"),
        ("fare", "number"),
    ]
    assert passengers.left_out == (("name", "nearly every value is another"),)
    assert passengers.raw[1].values == ("A", "B", "C", "Ü 1")
    assert passengers.raw[3].form == "YYYY-MM-DD"
    assert passengers.x.dtype == np.float32


def test_a_table_of_plain_numbers_stays_as_it_was(tmp_path: Path) -> None:
    data = read(tmp_path, samples.breast_cancer_csv())
    assert data.raw == ()
    train, holdout = datasets.split(data, 5)
    assert datasets.encoded(train, holdout) == (train, holdout, None)
    parts = [holdout, *datasets.shards(train, 3, 5)]
    # As they were before there was an encoder: receipts name them.
    cut = [hashlib.sha256(datasets.dump(part.x, part.y)).hexdigest()[:16] for part in parts]
    assert cut == ["d1294b36323ce077", "1ab989562e7c45ab", "3737a0d47f84416c", "6bf33a991d9697aa"]


def test_the_encoder_learns_from_the_training_part_alone(tmp_path: Path) -> None:
    rows = [f"{n if n % 9 else ''},{'abc'[n % 3]},{n % 2}" for n in range(60)]
    train = read(tmp_path, table("n,c,y", *rows))
    encoder = Encoder.fit(train)
    other = read(tmp_path, table("n,c,y", *(f"{n * 1000},{'axz'[n % 3] if n else ''},{n % 2}" for n in range(60))))
    median = np.nanmedian(train.x[:, 0])
    assert encoder.features[0].fill == median
    assert encoder.features[1].values == ("a", "b", "c")
    found = encoder.encode(other)
    # n, n is missing, another value, a, b, c
    np.testing.assert_array_equal(
        found.x[:4], [[0, 0, 1, 0, 0, 0], [1000, 0, 1, 0, 0, 0], [2000, 0, 1, 0, 0, 0], [3000, 0, 0, 1, 0, 0]]
    )
    np.testing.assert_array_equal(encoder.encode(train).x[0], [median, 1, 0, 1, 0, 0])
    assert found.raw == () and encoder.marks.tolist() == [False, True, True, True, True, True]


def test_rare_values_are_the_others_and_at_most_a_hundred_have_a_column(tmp_path: Path) -> None:
    names = [f"v{n % 150:03}" for n in range(3000)] + ["once", "v000", "v000"]
    data = read(tmp_path, table("c,n,y", *(f"{name},{n},{n % 2}" for n, name in enumerate(names))))
    [feature, _] = Encoder.fit(data).features
    assert len(feature.values) == 100 and "v000" in feature.values and "once" not in feature.values
    few = read(tmp_path, table("c,y", *(f"{'rare' if n == 7 else 'ab'[n % 2]},{n % 2}" for n in range(60))))
    assert Encoder.fit(few).features[0].values == ("a", "b")


@given(
    st.lists(st.sampled_from("abcdefgh"), min_size=60, max_size=400), st.integers(0, 2**31 - 1), st.integers(50, 400)
)
def test_no_part_that_is_trained_on_becomes_more_columns_than_were_said(cells: list[str], seed: int, rare: int) -> None:
    """Before paying nobody knows the part: what is rare in all may be frequent in it."""
    values = tuple(sorted(set(cells)))
    x = np.array([[values.index(cell)] for cell in cells], np.float32)
    x[:: max(len(cells) // 3, 1)] = np.nan
    y = np.arange(len(cells), dtype=np.int32) % 2
    data = Dataset(x, y, ("n", "y"), ("a",), "csv", raw=(Raw("a", "category", values),))
    train, _ = datasets.split(data, seed)
    assert len(train) == datasets.training_samples(len(data))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("dmlworker.datasets.encoding.RARE", rare)
        most = len(Encoder.fit(data, len(train)).marks)
        assert len(Encoder.fit(train).marks) <= most <= len(values) + 2


def test_what_was_never_missing_gets_no_column_for_it_and_is_filled_all_the_same(tmp_path: Path) -> None:
    encoder = Encoder.fit(read(tmp_path, table("n,c,y", *(f"{n},{'ab'[n % 2]},{n % 2}" for n in range(30)))))
    gaps = read(tmp_path, table("n,c,y", *(f"{n if n else ''},{'ab'[n % 2] if n else ''},{n % 2}" for n in range(30))))
    np.testing.assert_array_equal(encoder.encode(gaps).x[0], [14.5, 1, 0, 0])


def test_large_numbers_have_a_median(tmp_path: Path) -> None:
    rows = [f"{'' if n == 3 else (3e38 if n % 3 else 3.2e38)},{n % 2}" for n in range(31)]
    fill = Encoder.fit(read(tmp_path, table("a,y", *rows))).features[0].fill
    assert 2.9e38 < fill < 3.3e38


def test_an_encoder_goes_through_json(passengers: Dataset) -> None:
    encoder = Encoder.fit(passengers)
    assert Encoder.from_json(json.loads(json.dumps(encoder.json()))) == encoder


def test_a_row_of_text_is_encoded_as_the_file_was(passengers: Dataset) -> None:
    encoder = Encoder.fit(passengers)
    for index in range(30):
        np.testing.assert_array_equal(
            encoder.row(datasets.cells_of(passengers, index)), encoder.encode(passengers).x[index]
        )


@pytest.mark.parametrize(
    ("cells", "message"),
    [
        (["tall", "A", "yes", "", "1"], "age: tall is no number"),
        (["inf", "A", "yes", "", "1"], "age: inf is no number"),
        (["1", "A", "yes", "1912-13-01", "1"], "boarded: 1912-13-01 is no date, YYYY-MM-DD"),
        (["1", "A", "yes", "", ""], "fare: nothing was ever missing here"),
    ],
)
def test_a_row_that_does_not_fit_is_refused(passengers: Dataset, cells: list[str], message: str) -> None:
    with pytest.raises(DatasetError, match=message):
        Encoder.fit(passengers).row(cells)


@pytest.mark.parametrize(
    ("cells", "form"),
    [
        (["2024-02-29", "2023-12-31"], "YYYY-MM-DD"),
        (["2024-02-29T23:59:01.5Z", "2023-12-31 00:00"], "YYYY-MM-DD"),
        (["31.12.2023", "01.02.2024"], "DD.MM.YYYY"),
        (["31/12/2023", "01/02/2024"], "DD/MM/YYYY"),
        (["12/31/2023", "01/02/2024"], "MM/DD/YYYY"),
    ],
)
def test_dates_are_read_as_they_are_written(tmp_path: Path, cells: list[str], form: str) -> None:
    [raw] = read(tmp_path, table("d,y", *(f"{cells[n % 2]},{n % 2}" for n in range(30)))).raw
    assert (raw.kind, raw.form) == ("date", form)
    assert dates.text(dates.hours(cells[0], form) or 0).startswith(("2024-02-29", "2023-12-31"))


def test_parts_of_dates_are_those_of_the_calendar() -> None:
    days = [date(1899, 12, 31) + timedelta(days=37 * n) for n in range(3000)]
    hours = np.array([dates.hours(f"{day:%Y-%m-%d} 07:30", "YYYY-MM-DD") for day in days], np.float32)
    parts = dates.parts(hours)
    wanted = [(day.year, day.month, day.weekday()) for day in days]
    np.testing.assert_array_equal(parts[:, :3], wanted)
    assert set(parts[:, 5]) == {7}
    angles = 2 * np.pi * np.array([day.timetuple().tm_yday - 1 for day in days]) / 366
    np.testing.assert_allclose(parts[:, 3:5], np.stack([np.sin(angles), np.cos(angles)], axis=1), atol=1e-6)


REFUSED = {
    "a slip among numbers": ([f"{n},{n % 2}" for n in range(40)] + ["4O,1"], "'a' has text in line 42: '4O'"),
    "decimal commas": ([f'"{n % 4},5",{n % 2}' for n in range(40)], "'a' has text in line 2: '0,5'.*with a point"),
    "names only": ([f"name {n},{n % 2}" for n in range(40)], "no column that anything can be learnt from: a .nearly"),
    "nothing at all": ([f",{n % 2}" for n in range(40)], "no column that anything can be learnt from: a .empty"),
    "an infinite number": (
        [f"{'' if n == 3 else n},{n % 2}" for n in range(40)] + ["inf,1"],
        "Sample 41 holds a value",
    ),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_nothing_can_be_learnt_from_is_refused(tmp_path: Path, what: str) -> None:
    rows, message = REFUSED[what]
    with pytest.raises(DatasetError, match=message):
        read(tmp_path, table("a,y", *rows))


def test_columns_that_would_become_too_many_numbers_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dmlworker.datasets.encoding.MAX_CELLS", 100)
    (tmp_path / "upload").write_bytes(samples.passengers_csv())
    with pytest.raises(DatasetError, match="Leave out columns with many values"):
        datasets.inspect(tmp_path / "upload", "t.csv")


def test_values_of_many_columns_take_bounded_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dmlworker.datasets.kinds.MAX_VALUES_TOTAL", 20)
    data = read(tmp_path, table("a,b,y", *(f"a{n % 15},b{n % 6},{n % 2}" for n in range(60))))
    assert [raw.name for raw in data.raw] == ["b"]
    assert data.left_out[0][0] == "a"


def test_statistics_are_those_of_all_columns_where_only_some_are_made(
    passengers: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(arrays, "BLOCK", 1 << 12)
    small, _, encoder = datasets.encoded(*datasets.split(passengers, 1))
    monkeypatch.setattr(arrays, "LARGE", 1 << 10)
    large, _, _ = datasets.encoded(*datasets.split(passengers, 1))
    assert encoder and isinstance(small.x, np.ndarray) and isinstance(large.x, arrays.Rows)
    assert models.statistics(large.x, encoder.marks) == models.statistics(small.x, encoder.marks)
    assert models.statistics(large.x, np.ones(len(encoder.marks), bool)).variance == [1.0] * len(encoder.marks)


# --- The exported model -----------------------------------------------------------------------------------------------
def trained(data: Dataset) -> tuple[dict, list[np.ndarray], Encoder, Dataset]:
    train, holdout, encoder = datasets.encoded(*datasets.split(data, 1))
    assert encoder
    statistics = models.statistics(train.x, encoder.marks)
    target = models.target_statistics(train.y) if data.task == "regression" else None
    outputs = len(data.classes) or 1
    spec = models.spec(models.build(train.x.shape[1:], outputs, "mlp", statistics, task=data.task, target=target))
    start = trainer.initial_weights(spec, 1)
    return spec, trainer.train(spec, start, train.x, train.y, Hyper(20, 10, 0.05, 3)), encoder, holdout


def columns(encoder: Encoder, rows: list[list[str]]) -> dict[str, list]:
    """Rows as the exported model takes them."""
    found = {}
    for index, (name, feature) in enumerate(zip(encoder.inputs, encoder.features, strict=True)):
        cells = [row[index] for row in rows]
        found[name] = [float(cell or "nan") for cell in cells] if feature.kind == "number" else cells
    return found


def test_the_exported_model_takes_raw_rows_and_says_what_the_platform_measured(
    tmp_path: Path, passengers: Dataset
) -> None:
    spec, weights, encoder, holdout = trained(passengers)
    _, raw = datasets.split(passengers, 1)
    rows = [datasets.cells_of(raw, index) for index in range(len(raw))]
    assert any("" in row for row in rows)
    rows += [["41", "never seen", "maybe", "2024-02-29 23:59", "7"], ["", "", "yes", "", "8.5"]]
    x = np.stack([encoder.row(row) for row in rows])
    np.testing.assert_array_equal(x[: len(holdout)], holdout.x)
    assert [path.name for path in trainer.export(spec, weights, tmp_path, encoder)] == [
        "model.json",
        "model.weights.h5",
        "model.keras",
    ]
    (tmp_path / "rows.json").write_text(json.dumps(columns(encoder, rows)))
    done = subprocess.run([sys.executable, "-c", LOAD], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = np.array(json.loads(done.stdout.partition("FOUND")[2]))
    np.testing.assert_allclose(found, trainer.predict(spec, weights, x), atol=1e-5)
    assert trainer.evaluate(spec, weights, holdout.x, holdout.y).accuracy > 0.8


def test_a_number_comes_out_of_raw_rows_in_its_own_unit(tmp_path: Path) -> None:
    import keras

    (tmp_path / "p.csv").write_bytes(samples.passengers_csv())
    data = datasets.read(tmp_path / "p.csv", "p.csv", "fare")
    spec, weights, encoder, holdout = trained(data)
    _, raw = datasets.split(data, 1)
    trainer.export(spec, weights, tmp_path, encoder)
    model = keras.saving.load_model(tmp_path / "model.keras", safe_mode=True)
    cells = columns(encoder, [datasets.cells_of(raw, index) for index in range(len(raw))])
    found = model.predict({name: keras.ops.convert_to_tensor(values) for name, values in cells.items()}, verbose=0)
    assert data.task == "regression" and 20 < found.mean() < 40
    np.testing.assert_allclose(found, trainer.predict(spec, weights, holdout.x), rtol=1e-4)
    for name in ("model.keras", "model.weights.h5"):
        assert all(map(np.array_equal, _loaded(spec, tmp_path / name), weights))


def test_dates_in_the_exported_model_are_the_encoders(tmp_path: Path) -> None:
    import keras

    days = [date(1904, 2, 27) + timedelta(days=n * 97) for n in range(600)]
    for form in ("YYYY-MM-DD", "DD.MM.YYYY"):
        cells = [dates.written(dates.hours(f"{day} {day.day % 24:02}:10", "YYYY-MM-DD") or 0, form) for day in days]
        data = read(tmp_path, table("mlp,y", *(f"{cell if n % 50 else ''},{n % 2}" for n, cell in enumerate(cells))))
        encoder = Encoder.fit(data)
        core = keras.Sequential([keras.Input((7,)), keras.layers.Activation("linear")], name="mlp")
        found = rawmodel.of(core, encoder)(
            {
                "mlp_": keras.ops.convert_to_tensor(
                    [raw[0] for raw in map(lambda i: datasets.cells_of(data, i), range(len(data)))]
                )
            }
        )
        wanted = encoder.encode(data).x
        np.testing.assert_array_equal(np.asarray(found)[:, [0, 1, 2, 5, 6]], wanted[:, [0, 1, 2, 5, 6]])
        np.testing.assert_allclose(np.asarray(found), wanted, atol=1e-5)


def test_labels_are_in_their_order_and_numbers_are_one_however_written() -> None:
    labels = ["10", "9", "1e1", "9.0", "b"] * 20
    assert encode_labels(*Texts(labels).distinct())[1] == ("10", "1e1", "9", "9.0", "b")
    y, classes = encode_labels(*Texts([label for label in labels if label != "b"]).distinct())
    assert classes == ("9", "10") and y.tolist()[:4] == [1, 0, 1, 0]
    assert encode_labels(*Texts(["2.0", "10.0"] * 20).distinct())[1] == ("2.0", "10.0")


@pytest.mark.parametrize("kind", ["mlp", "resmlp", "own"])
def test_columns_may_have_any_name(tmp_path: Path, kind: str) -> None:
    names = [
        *zoo.KINDS,
        "own",
        "a/b",
        "a_b",
        "preprocessing",
        "concatenate",
        "größe (m)",
        "column_0",
        "raw",
        "where",
        "x\ty",
        "🚢",
        "x" * 300,
        "%s",
        ".",
    ]
    rows = [",".join(["" if n == 13 else str(n + k) for k in range(len(names))] + [str(n % 2)]) for n in range(30)]
    data = read(tmp_path, table(",".join([*names, "y"]), *rows))
    encoder = Encoder.fit(data)
    shape, statistics = (len(encoder.marks),), models.statistics(encoder.encode(data).x)
    spec = models.spec(models.build(shape, 2, "mlp" if kind == "own" else kind, statistics))
    if kind == "own":
        spec["config"]["name"] = "a_b"
        spec = ownmodel.fitted(spec, shape, 2, statistics)
    weights = trainer.initial_weights(spec, 1)
    trainer.export(spec, weights, tmp_path, encoder)
    assert len(set(encoder.inputs)) == len(names)
    import keras

    model = keras.saving.load_model(tmp_path / "model.keras", safe_mode=True)
    inputs = {name: data.x[:, index] for index, name in enumerate(encoder.inputs)}
    wanted = trainer.predict(spec, weights, encoder.encode(data).x)
    np.testing.assert_allclose(model.predict(inputs, verbose=0), wanted, atol=1e-5)
    with pytest.raises(Wrong):
        _loaded(
            models.spec(models.build((3,), 2, "mlp", models.Statistics([0.0] * 3, [1.0] * 3))), tmp_path / "model.keras"
        )
