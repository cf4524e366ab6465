"""What a customer gets, opened where nothing of ours is installed: every format answers as the platform does."""

import csv
import hashlib
import importlib.util
import io
import json
import os
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from django.conf import settings
from django.core.files.base import ContentFile
from django.utils import timezone
from PIL import Image

from dmlworker import datasets, exports, models, trainer, zoo
from dmlworker.datasets import images, samples, windows
from dmlworker.tests.test_text import ODD, reviews
from tickets.models import Dataset, Status, Ticket
from training import actions, compute, delivery, raw, records, tasks
from training.models import Round, Run
from training.tests.conftest import make_ticket
from training.tests.test_tasks import scenes

pytestmark = pytest.mark.django_db(transaction=True)

KERAS = """
import contextlib, io, runpy, sys, keras, numpy as np, rows, tensorflow as tf
said = io.StringIO()
with contextlib.redirect_stdout(said):
    runpy.run_path("predict.py")
given = keras.tree.map_structure(keras.ops.convert_to_tensor, rows.raw(sys.argv[1:]))
a = keras.saving.load_model("model.keras")
b = keras.models.model_from_json(open("model.json").read())
b.load_weights("model.weights.h5")
opened = tf.saved_model.load("savedmodel")
np.savez("found", keras=a.predict(given, verbose=0), json=b.predict(given, verbose=0), savedmodel=opened.serve(given))
print(said.getvalue())
"""
LIGHT = """
import sys, numpy as np, onnxruntime, rows
from ai_edge_litert.interpreter import Interpreter
x = rows.numbers(sys.argv[1:])
session = onnxruntime.InferenceSession("model.onnx")
a = session.run(None, {session.get_inputs()[0].name: x})[0]
b = Interpreter("model.tflite").get_signature_runner()(rows=x)["output_0"]
np.savez("found", onnx=a, tflite=b)
"""


def made(tmp_path: Path, name: str, data: bytes, **fields) -> Run:
    """A run on the customer's file, with the model as it began. fields: of the ticket."""
    ticket = make_ticket(rounds=1, **fields)
    Dataset.objects.create(ticket=ticket, file=ContentFile(data, "x"), name=name, size=len(data), sha256="1" * 64)
    path = tmp_path / name
    path.write_bytes(data)
    found = actions.open_run(ticket, compute.prepare(ticket, path, 2, 7), 7)
    Round.objects.create(run=found, number=1, start=found.start, end=found.start, state=Round.State.CLOSED)
    return found


def numbers_csv() -> bytes:
    random = np.random.default_rng(2)
    rows = [[*map(str, row), "high" if row.sum() > 0 else "low"] for row in random.normal(0, 50, (120, 5)).round(3)]
    text = io.StringIO()
    csv.writer(text).writerows([["a", "b b", "c", "d", "e", "class"], *rows])
    return text.getvalue().encode()


def pictures() -> dict[str, bytes]:
    """In two folders, not all of one size."""
    random, found = np.random.default_rng(3), {}
    for number in range(40):
        side, image = 12 + number % 3, io.BytesIO()
        Image.fromarray(random.integers(0, 255, (side, side, 3), np.uint8)).save(image, "PNG")
        found[f"{'left' if number % 2 else 'right'}/{number}.png"] = image.getvalue()
    return found


def pictures_zip() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, data in pictures().items():
            archive.writestr(name, data)
    return file.getvalue()


def environment(folder: Path, requirements: str) -> str:
    """The Python of an environment with these packages alone; kept for the next time."""
    home = settings.BASE_DIR / ".bench" / "delivery" / hashlib.sha256(requirements.encode()).hexdigest()[:12]
    if not (home / ".done").exists():
        (folder / "wanted.txt").write_text(requirements)
        uv = Path(sys.executable).with_name("uv")
        subprocess.run([uv, "venv", "-q", "--clear", "--python", sys.executable, home], check=True)
        install = [uv, "pip", "install", "-q", "--python", home / "bin" / "python", "-r", folder / "wanted.txt"]
        subprocess.run(install, check=True)
        (home / ".done").touch()
    return str(home / "bin" / "python")


def families(run: Run, folder: Path) -> tuple[str, str]:
    """The Pythons for Keras and TensorFlow, and for ONNX and TFLite, with what requirements.txt says, and Pillow, so that there is one of
    each for all kinds of data."""
    lines = delivery.requirements(images=True).splitlines()
    assert set((folder / "requirements.txt").read_text().splitlines()) <= set(lines)
    named = [part.split()[-1] for part in lines[-1].split(";")]
    light = [*named, *(line for line in lines if line.startswith(("numpy", "pillow")))]
    return environment(folder, "\n".join(lines)), environment(folder, "\n".join(light))


def ran(folder: Path, *command: str) -> str:
    """What it prints, in an environment in which nothing of ours is set."""
    alone = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "KERAS", "TF_"))}
    done = subprocess.run(command, cwd=folder, env=alone, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def check(run: Run, folder: Path, files: list[str], x: np.ndarray) -> list[str]:
    """Everything answers to `files` as the platform does to x; what predict.py prints, a line for each sample."""
    paths = compute.export(run, run.start_id, folder)
    made, left_out = compute.convert(run, folder, list(exports.FILES))
    program = set(delivery.PROGRAM) - (set() if run.classes else {"labels.txt"})
    assert not left_out and {path.name for path in paths + made} == {*delivery.MODEL, *exports.FILES.values(), *program}
    with zipfile.ZipFile(folder / "model.savedmodel.zip") as archive:
        archive.extractall(folder / "savedmodel")
    wanted = trainer.predict(compute.spec_of(run), compute.weights_of(run.start_id), x)
    said = []
    for python, script in zip(families(run, folder), (KERAS, LIGHT), strict=True):
        said += ran(folder, python, "-c", script, *files).splitlines()
        with np.load(folder / "found.npz") as found:
            for name, values in found.items():
                np.testing.assert_allclose(values, wanted, rtol=1e-5, atol=1e-5, err_msg=name)
    lines = [line for line in said if line]
    assert len(lines) == len(wanted)
    return lines


def check_classes(run: Run, folder: Path, files: list[str], x: np.ndarray) -> None:
    lines = check(run, folder, files, x)
    wanted = trainer.predict(compute.spec_of(run), compute.weights_of(run.start_id), x)
    assert lines == [f"{run.classes[row.argmax()]}\t{row.max():.1%}" for row in wanted]


def encoded(run: Run, path: Path) -> np.ndarray:
    """Every row of the customer's file, as the platform's encoder makes it numbers."""
    encoder = raw.encoder_of(run)
    with path.open(encoding="utf-8-sig", newline="") as file:
        table = list(csv.DictReader(file, skipinitialspace=True))
    return np.stack([encoder.row([row[feature.name] for feature in encoder.features]) for row in table])


KINDS = {
    "table": ("resmlp", "mlp"),
    "text": ("cnn1d", "linear", "gru", "transformer"),
    "images": ("resnet", "cnn"),
    "series": ("gru", "transformer"),
}
"""Of the platform's models, opened in every format."""


def test_no_kind_of_model_is_left_out():
    assert {kind for kinds in KINDS.values() for kind in kinds} == set(zoo.KINDS) - {"auto"}


@pytest.mark.parametrize("kind", KINDS["table"])
def test_a_table_of_numbers(files, tmp_path, kind):
    run = made(tmp_path, "numbers.csv", numbers_csv(), model_kind=kind)
    data = datasets.read(tmp_path / "numbers.csv", "numbers.csv")
    check_classes(run, tmp_path, ["numbers.csv"], data.x)


def test_a_table_with_categories_dates_gaps_and_text(files, tmp_path):
    lines = samples.passengers_csv().decode().splitlines()
    words = [line.rpartition(",")[0] for line in reviews(400).splitlines()[1:]]
    table = "\n".join([f"review,{lines[0]}", *(f"{a},{b}" for a, b in zip(words, lines[1:], strict=True))])
    run = made(tmp_path, "p.csv", table.encode())
    assert {feature.kind for feature in raw.encoder_of(run).features} == {"number", "category", "date", "text"}
    check_classes(run, tmp_path, ["p.csv"], encoded(run, tmp_path / "p.csv"))


@pytest.mark.parametrize("kind", KINDS["text"])
def test_text_alone(files, tmp_path, kind):
    run = made(tmp_path, "reviews.csv", reviews().encode(), model_kind=kind)
    check_classes(run, tmp_path, ["reviews.csv"], encoded(run, tmp_path / "reviews.csv"))


@pytest.mark.parametrize("kind", KINDS["images"])
def test_images(files, tmp_path, kind):
    run = made(tmp_path, "pictures.zip", pictures_zip(), model_kind=kind)
    names = []
    for name, data in pictures().items():
        names.append(name.replace("/", "-"))
        (tmp_path / names[-1]).write_bytes(data)
    shape = tuple(run.facts["sample_shape"])
    x = np.stack([images.one(io.BytesIO(data), shape) for data in pictures().values()])
    check_classes(run, tmp_path, names, x)


def test_a_number_is_told_in_its_own_unit(files, tmp_path):
    run = made(tmp_path, "diabetes.csv", samples.diabetes_csv(), target="progression")
    data = datasets.read(tmp_path / "diabetes.csv", "diabetes.csv", "progression")
    said = [float(line) for line in check(run, tmp_path, ["diabetes.csv"], data.x)]
    assert run.ticket.task == "regression" and abs(np.mean(said) - data.y.mean()) < data.y.std()
    wanted = trainer.predict(compute.spec_of(run), compute.weights_of(run.start_id), data.x)
    np.testing.assert_allclose(said, wanted[:, 0], rtol=1e-4)


def test_the_labels_above_one_half_are_told(files, tmp_path):
    run = made(tmp_path, "scenes.csv", scenes())
    data = datasets.read(tmp_path / "scenes.csv", "scenes.csv")
    lines = check(run, tmp_path, ["scenes.csv"], data.x)
    wanted = trainer.predict(compute.spec_of(run), compute.weights_of(run.start_id), data.x)
    for line, row in zip(lines, wanted, strict=True):
        likely = [f"{name} {value:.1%}" for name, value in zip(run.classes, row, strict=True) if value > 0.5]
        assert line == (", ".join(likely) or "-")


def series_csv() -> bytes:
    random, lines = np.random.default_rng(5), ["load,weather,heat"]
    for hour in range(300):
        load = "" if hour % 50 == 9 else round(np.sin(hour / 4) + random.normal(0, 0.1), 3)
        lines.append(f"{load},{'wet' if hour % 7 < 3 else 'dry'},{20 + 5 * np.sin(hour / 4 + 1):.3f}")
    return "\n".join(lines).encode()


PLAIN = ["load", "weather"]
"""What is left out, so that only plain numbers are left."""


@pytest.mark.parametrize(
    ("leave_out", "kind"), [([], "mlp"), (PLAIN, "cnn1d"), *(([], kind) for kind in KINDS["series"])]
)
def test_windows_of_a_series(files, tmp_path, leave_out, kind):
    """Of columns as they were written; of plain numbers."""
    said = {"window": 6, "horizon": 2, "leave_out": leave_out, "target": "heat", "model_kind": kind}
    run = made(tmp_path, "series.csv", series_csv(), **said)
    rows = datasets.read(tmp_path / "series.csv", "series.csv", "heat", datasets.Options.of(run.ticket))
    found, encoder = windows.with_past(rows), raw.encoder_of(run)
    assert bool(encoder) != bool(leave_out)
    x = (encoder.encode(found) if encoder else found).x
    view = np.lib.stride_tricks.sliding_window_view(x, 6, axis=0).transpose(0, 2, 1)
    assert len(check(run, tmp_path, ["series.csv"], view)) == 295


def test_the_end_of_a_run_keeps_all_of_it_for_the_customer(chain, files, tmp_path):
    """Nobody took part here, so the payment goes back in the end."""
    run = made(tmp_path, "numbers.csv", numbers_csv())
    Run.objects.update(state=Run.State.TRAINING, rounds=1)
    Round.objects.update(accuracy=0.5, checked=timezone.now())
    Ticket.objects.update(status=Status.TRAINING)
    tasks.finish.fn(str(run.pk))
    run.refresh_from_db()
    assert run.state == Run.State.DONE and run.metrics["accuracy"][0] is not None
    before = {*delivery.MODEL, *delivery.PROGRAM, "receipt.json"}
    assert set(run.ticket.artifacts.values_list("name", flat=True)) == before, (
        "the payout has waited for no other format"
    )
    tasks.convert.fn(str(run.pk))
    assert set(run.ticket.artifacts.values_list("name", flat=True)) == before | set(exports.FILES.values())


def test_recurrent_layers_of_ones_own_have_every_format(tmp_path, monkeypatch):
    """Both ways, over steps that are masked and of which everything is kept."""
    from keras import Input, Sequential, layers

    monkeypatch.setattr(exports, "SECONDS", 900)  # a slow machine is no failure
    chain = [
        Input((8,)),
        layers.Embedding(9, 4, mask_zero=True),
        layers.Bidirectional(layers.LSTM(4, return_sequences=True)),
        layers.GRU(5, go_backwards=True, return_sequences=True),
        layers.SimpleRNN(3),
        layers.Dense(2),
        layers.Activation("softmax"),
    ]
    spec = models.spec(models.from_spec(models.spec(Sequential(chain))))
    trainer.export(spec, trainer.initial_weights(spec, 1), tmp_path)
    x = np.random.default_rng(6).integers(0, 9, (5, 8))
    x[0], x[1, 3:], x[2, :2] = 0, 0, 0
    assert exports.export(tmp_path, x) == {}


# --- What fails -------------------------------------------------------------------------------------------------------
@pytest.fixture
def model(tmp_path):
    spec = models.spec(models.build((3,), 2, "linear", models.Statistics([0.0] * 3, [1.0] * 3)))
    trainer.export(spec, trainer.initial_weights(spec, 1), tmp_path)
    return tmp_path


def test_a_conversion_that_takes_too_long_is_ended(model, monkeypatch):
    monkeypatch.setattr(exports, "SECONDS", 0.5)
    left_out = exports.export(model, np.ones((2, 3)))
    assert left_out == dict.fromkeys(exports.FILES, "the conversion took more than 0.5 seconds")
    assert sorted(path.name for path in model.iterdir()) == ["model.json", "model.keras", "model.weights.h5"]


def test_a_format_that_cannot_be_tried_out_is_not_given(model):
    """The samples do not fit the model; a runtime may crash on them, which leaves the next format its own process."""
    left_out = exports.export(model, np.ones((2, 4)))
    assert set(left_out) == set(exports.FILES) and all(left_out.values())
    assert sorted(path.name for path in model.iterdir()) == ["model.json", "model.keras", "model.weights.h5"]


def test_a_format_that_is_left_out_is_told_once(run):
    for _ in range(2):
        records.tell_left_out(run.ticket, {"ONNX": "it is too large"})
    [event] = run.ticket.events.filter(kind=records.LEFT_OUT)
    assert event.text == "There is no ONNX file of this model: it is too large."


# --- rows.py, by itself -----------------------------------------------------------------------------------------------
@pytest.fixture(autouse=True)
def csv_limit() -> Iterator[None]:
    """rows.py takes longer cells than usual, wherever it is loaded."""
    before = csv.field_size_limit()
    yield
    csv.field_size_limit(before)


def rows_of(folder: Path, run: Run) -> ModuleType:
    """The delivered rows.py, as Python loads it from its folder."""
    delivery.write(run, folder)
    spec = importlib.util.spec_from_file_location("delivered_rows", folder / "rows.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


MIXED = """id;seen;town;amount;class
1;03.01.2024 23:59;Ávila;1.5;a
2;29.02.2024 00:00;"Bonn; Rhein";-2e3;b
3;;Ávila;n/a;a
4;31.12.1999 07:30;NULL;0;b
5;01.03.2023 12:00;"Bonn; Rhein";4;a
"""


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "cp1252"])
def test_a_mixed_table_is_encoded_as_the_platform_does(tmp_path, encoding):
    text = MIXED + "".join(f"{n};05.06.2020 0{n % 10}:00;Ávila;{n};{'ab'[n % 2]}\n" for n in range(6, 30))
    path = tmp_path / "t.csv"
    path.write_text(text, encoding=encoding)
    data = datasets.read(path, "t.csv")
    encoder = datasets.Encoder.fit(data)
    facts = {"kind": "csv", "sample_shape": [len(encoder.marks)], "features": list(data.features)}
    found = rows_of(tmp_path, Run(ticket=Ticket(), classes=["a", "b"], facts=facts | {"encoder": encoder.json()}))
    np.testing.assert_array_equal(found.numbers([str(path)]), encoder.encode(data).x)
    raw_ = found.raw([str(path)])
    assert list(raw_) == encoder.inputs and raw_["town"][:4, 0].tolist() == ["Ávila", "Bonn; Rhein", "Ávila", ""]
    lines = [line.split(";")[::-1] for line in text.replace("Bonn; Rhein", "elsewhere").splitlines()]
    path.write_text(
        "\n".join(",".join(line[1:]) for line in lines), encoding="utf-8"
    )  # turned round, without the target
    other = found.numbers([str(path)])
    assert other.shape == (29, len(encoder.marks)) and (other[0] == encoder.encode(data).x[0]).all()


@pytest.mark.parametrize(("script", "split"), [("words", "whitespace"), ("电影很好看" * 30, "character")])
@pytest.mark.parametrize("more", [False, True])
def test_odd_text_is_cut_as_the_platform_does(tmp_path, script, split, more):
    path, lines = tmp_path / "t.csv", csv.writer(text := io.StringIO())
    lines.writerow(["review", *["size"] * more, "liked"])
    for n in range(200):
        lines.writerow([f"{script} {ODD[n % len(ODD)]} {n}", *[n] * more, "ab"[n % 2]])
    path.write_text(text.getvalue(), encoding="utf-8")
    data = datasets.read(path, "t.csv", options=datasets.Options(kinds={"review": "text"}))
    encoder = datasets.Encoder.fit(data)
    assert encoder.features[0].split == split
    facts = {"kind": "csv", "sample_shape": [len(encoder.marks)], "features": list(data.features)}
    facts["encoder"] = encoder.json()
    found = rows_of(tmp_path, Run(ticket=Ticket(), classes=["a", "b"], facts=facts))
    np.testing.assert_array_equal(found.numbers([str(path)]), encoder.encode(data).x)


def test_a_table_without_a_header_and_arrays_are_read(tmp_path):
    random = np.random.default_rng(4).normal(size=(30, 2)).round(3)
    path = tmp_path / "t.csv"
    path.write_text("".join(f"{a},{'xy'[n % 2]},{b}\n" for n, (a, b) in enumerate(random)))
    data = datasets.read(path, "t.csv", "column 2")
    found = rows_of(
        tmp_path,
        Run(
            ticket=Ticket(),
            classes=["x", "y"],
            facts={"kind": "csv", "sample_shape": [2], "features": list(data.features)},
        ),
    )
    np.testing.assert_array_equal(found.numbers([str(path)]), data.x)
    np.save(tmp_path / "x.npy", data.x[:3])
    np.testing.assert_array_equal(found.raw([str(tmp_path / "x.npy")]), data.x[:3])
    path.write_text("a,b\n1,2\n")
    with pytest.raises(SystemExit):
        found.numbers([str(path)])


@pytest.mark.parametrize(
    ("task", "outputs", "said"),
    [
        ("classification", [[0.25, 0.75]], "y\t75.0%"),
        ("multilabel", [[0.6, 0.7], [0.1, 0.2]], "x 60.0%, y 70.0%\n-"),
        ("regression", [[1234.5678]], "1234.57"),
    ],
)
def test_what_the_model_says_is_told_by_what_it_learnt(tmp_path, capsys, task, outputs, said):
    facts = {"kind": "csv", "sample_shape": [2], "features": ["a", "b"]}
    found = rows_of(tmp_path, Run(ticket=Ticket(task=task), classes=["x", "y"], facts=facts))
    found.tell(np.array(outputs))
    assert capsys.readouterr().out.strip() == said


def test_data_that_no_program_of_ours_reads_comes_without_one(run, tmp_path):
    run.facts = {"kind": "text", "sample_shape": [8, 3], "features": [], "holdout_samples": 10}
    assert [path.name for path in delivery.write(run, tmp_path)] == [
        "preprocessing.json",
        "labels.txt",
    ]
    assert json.loads((tmp_path / "preprocessing.json").read_text())["labels"] == ["a", "b"]
