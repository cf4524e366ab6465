"""Customers' own models: real files, as Keras writes them and as nobody should."""

import io
import json
import socket
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np
import pytest
from keras import layers

from dmlworker import flops, models, ownmodel, trainer
from dmlworker.loader import ModelRefused
from dmlworker.models import Statistics
from dmlworker.ownmodel import fitted, read
from dmlworker.weights import unpack

TABLE = Statistics([1.0] * 4, [4.0] * 4)
ROWS = np.random.default_rng(0).normal(1, 2, (6, 4)).astype(np.float32)


def plain(*more: Any, end: str | None = "softmax", outputs: int = 3) -> keras.Model:
    return keras.Sequential([keras.Input((4,)), layers.Dense(5, "relu"), *more, layers.Dense(outputs, end)])


def branched() -> keras.Model:
    rows = keras.Input((4,))
    one, two = layers.Dense(6, "tanh")(rows), layers.Dense(3, "tanh")(rows)
    both = layers.Concatenate()([layers.Dense(2)(one), two])
    return keras.Model(rows, layers.Dense(3, "softmax")(both))


def as_json(model: keras.Model) -> io.BytesIO:
    return io.BytesIO(model.to_json().encode())


def as_keras(model: keras.Model, folder: Path) -> io.BytesIO:
    model.save(folder / "model.keras")
    return io.BytesIO((folder / "model.keras").read_bytes())


def as_h5(model: keras.Model, folder: Path) -> io.BytesIO:
    model.save_weights(folder / "model.weights.h5")
    return io.BytesIO((folder / "model.weights.h5").read_bytes())


def rows_of(shape: tuple[int, ...], *more: Any) -> keras.Model:
    return keras.Sequential([keras.Input(shape), *more, layers.Dense(3, "softmax")])


def said(model: keras.Model, rows: np.ndarray = ROWS) -> np.ndarray:
    return np.asarray(model(rows))


# --- What is taken ----------------------------------------------------------------------------------------------------
def test_a_configuration_becomes_a_model_for_the_data_and_is_trained() -> None:
    found = read(as_json(plain()), "model.json")
    assert found.weights is None
    assert found.parameters == 43
    assert found.notes == ["softmax of the last layer became a layer of its own"]
    spec = fitted(found.spec, (4,), 3, TABLE)
    assert [layer["class_name"] for layer in spec["config"]["layers"]][:2] == ["InputLayer", "Normalization"]
    start = trainer.initial_weights(spec, 1)
    trained = trainer.train(spec, start, ROWS, np.arange(6, dtype=np.int32) % 3, trainer.Hyper(1, 3, 0.1, 5))
    assert all((a != b).any() for a, b in zip(start, trained, strict=True))


@pytest.mark.parametrize("make", [plain, branched], ids=["chain", "graph"])
def test_weights_in_a_keras_file_are_where_training_starts(make: Callable[[], keras.Model], tmp_path: Path) -> None:
    model = make()
    found = read(as_keras(model, tmp_path), "Mine.KERAS")
    assert found.weights
    again = models.from_spec(found.spec)
    again.set_weights(unpack(found.weights))
    np.testing.assert_allclose(said(again), said(model), rtol=1e-6)
    # What the platform puts in front has no weights of its own.
    with_front = models.from_spec(fitted(found.spec, (4,), 3, TABLE))
    with_front.set_weights(unpack(found.weights))
    np.testing.assert_allclose(said(with_front), said(model, (ROWS - 1) / 2), rtol=1e-4)


def test_weights_may_come_beside_a_configuration(tmp_path: Path) -> None:
    model = plain()
    found = read(as_json(model), "model.json", as_h5(model, tmp_path))
    assert found.weights
    for mine, theirs in zip(unpack(found.weights), model.get_weights(), strict=True):
        np.testing.assert_array_equal(mine, theirs)


@pytest.mark.parametrize(
    ("end", "outputs", "task"), [("sigmoid", 3, "multilabel"), (None, 1, "regression"), (None, 3, "classification")]
)
def test_the_end_says_what_is_learnt(end: str | None, outputs: int, task: str) -> None:
    from dmlworker import readmodel

    for model in (
        plain(end=end, outputs=outputs),
        keras.Model(rows := keras.Input((4,)), layers.Dense(outputs, end)(rows)),
    ):
        spec, notes = readmodel._with_head(json.loads(model.to_json()))
        assert models.task(spec) == task
        assert notes
        models.from_spec(spec)


# --- What the data asks -----------------------------------------------------------------------------------------------
def spec_of(model: keras.Model) -> dict[str, Any]:
    return models.spec(models.from_spec(models.spec(model)))


def ended(*layers_: Any, shape: tuple[int, ...] = (4,)) -> dict[str, Any]:
    last = [layers.Dense(3), layers.Activation("softmax")]
    return spec_of(keras.Sequential([keras.Input(shape), *layers_, *last]))


def test_what_does_not_fit_the_data_is_said_in_numbers() -> None:
    spec = ended()
    with pytest.raises(ModelRefused, match="takes samples of 4 numbers, and the data has 5 numbers"):
        fitted(spec, (5,), 3, TABLE)
    with pytest.raises(ModelRefused, match="gives 3 numbers for a sample, and the data has 2 classes"):
        fitted(spec, (4,), 2, TABLE)
    with pytest.raises(ModelRefused, match="made for classes, and the data for a number"):
        fitted(spec, (4,), 1, TABLE, task="regression")


@pytest.mark.parametrize("graph", [False, True])
def test_images_without_colours_get_a_place_for_the_one_they_have(graph: bool) -> None:
    body = [layers.Conv2D(2, 3), layers.Flatten()]
    if graph:
        rows = keras.Input((8, 8, 1), name="preprocessing")  # the name that ours would have
        out = layers.Activation("softmax")(layers.Dense(3)(body[1](body[0](rows))))
        spec = spec_of(keras.Model(rows, out))
    else:
        spec = ended(*body, shape=(8, 8, 1))
    model = models.from_spec(fitted(spec, (8, 8), 3, None))
    assert model.input_shape == (None, 8, 8)
    inner = models.from_spec(spec)
    inner.set_weights(model.get_weights())
    rows = np.random.default_rng(0).integers(0, 256, (2, 8, 8)).astype(np.float32)
    np.testing.assert_allclose(said(model, rows), said(inner, rows[..., None] / 255), rtol=1e-4)


def test_a_model_with_its_own_preprocessing_gets_no_other() -> None:
    spec = ended(layers.Rescaling(0.5))
    assert fitted(spec, (4,), 3, TABLE)["config"]["layers"] == spec["config"]["layers"]


def test_a_number_is_scaled_as_the_target() -> None:
    spec = spec_of(keras.Sequential([keras.Input((4,)), layers.Dense(1), layers.Rescaling(1.0, 0.0)]))
    found = models.last_layer(fitted(spec, (4,), 1, TABLE, task="regression", target=(40.0, 3.0)))
    assert (found["config"]["scale"], found["config"]["offset"]) == (3.0, 40.0)


# --- What is refused --------------------------------------------------------------------------------------------------
def zipped(**entries: bytes) -> io.BytesIO:
    """Entries by name; __ stands for a dot."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in entries.items():
            archive.writestr(name.replace("__", "."), data)
    return file


def two_inputs() -> keras.Model:
    one, two = keras.Input((4,)), keras.Input((4,))
    return keras.Model([one, two], layers.Dense(3, "softmax")(layers.Add()([one, two])))


@keras.saving.register_keras_serializable("mine")
class Mine(layers.Layer):
    def call(self, rows: Any) -> Any:
        return rows


def no_keras_3() -> io.BytesIO:
    old = {"class_name": "Model", "config": {"layers": []}, "keras_version": "2.4.0", "backend": "tensorflow"}
    return io.BytesIO(json.dumps(old).encode())


CONFIG = plain().to_json().encode()
FILES: dict[str, tuple[str, Callable[[], io.BytesIO], str]] = {
    "another kind of file": ("model.h5", lambda: as_json(plain()), "comes as model.json or as .keras"),
    "a pickle": ("model.pkl", lambda: io.BytesIO(b"\x80\x04cos\nsystem\n"), "comes as model.json"),
    "a pickle by another name": ("model.keras", lambda: io.BytesIO(b"\x80\x04cos\nsystem\n"), "broken or not a .keras"),
    "nothing": ("model.json", io.BytesIO, "this one has 0"),
    "too much": ("model.json", lambda: io.BytesIO(b" " * (ownmodel.MAX_CONFIG + 1)), "must have 1 to"),
    "no JSON": ("model.json", lambda: io.BytesIO(b"{"), "not a JSON object"),
    "deep JSON": ("model.json", lambda: io.BytesIO(b'{"a":' * 10**5), "not a JSON object"),
    "Keras 2": ("model.json", no_keras_3, "saved by Keras 2"),
    "a lambda": ("model.json", lambda: as_json(plain(layers.Lambda(lambda x: x))), "holds code"),
    "code of one's own": ("model.json", lambda: as_json(plain(Mine())), "not among the layers"),
    "statistics": ("model.json", lambda: as_json(plain(layers.BatchNormalization())), "GroupNormalization"),
    "dropout": ("model.json", lambda: as_json(plain(layers.Dropout(0.5))), "draws at random"),
    "several inputs": ("model.json", lambda: as_json(two_inputs()), "one InputLayer"),
    "a way out": ("model.keras", lambda: zipped(config__json=CONFIG, **{"../evil__py": b"x"}), "leads outside"),
    "something else in it": ("model.keras", lambda: zipped(config__json=CONFIG, evil__pkl=b"x"), "holds config.json"),
    "no configuration": ("model.keras", lambda: zipped(metadata__json=b"{}"), "holds config.json"),
    "a bomb": ("model.keras", lambda: zipped(config__json=b" " * 10**8), "more than 20,000,000 bytes"),
    "a larger bomb": (
        "model.keras",
        lambda: zipped(config__json=CONFIG, model__weights__h5=bytes(ownmodel.MAX_FILE + 1)),
        "would unpack to more than",
    ),
}


@pytest.mark.parametrize("what", FILES)
def test_files_nobody_should_open_are_refused_with_the_reason(what: str) -> None:
    name, make, reason = FILES[what]
    with pytest.raises(ModelRefused, match=reason):
        read(make(), name)


def test_a_lambda_in_a_keras_file_is_not_run(tmp_path: Path) -> None:
    trace = str(tmp_path / "ran")
    model = plain(layers.Lambda(lambda x: [x, open(trace, "w").close()][0], output_shape=(5,)))
    file = as_keras(model, tmp_path)
    Path(trace).unlink(missing_ok=True)
    with pytest.raises(ModelRefused, match="holds code"):
        read(file, "model.keras")
    assert not Path(trace).exists()


def h5(write: Callable[[h5py.File], object]) -> io.BytesIO:
    file = io.BytesIO()
    with h5py.File(file, "w") as made:
        write(made)
    return file


def virtual(file: h5py.File) -> None:
    layout = h5py.VirtualLayout((4, 5), "f4")
    layout[:] = h5py.VirtualSource("/etc/other.h5", "x", (4, 5))
    file.create_virtual_dataset("layers/dense/vars/0", layout)


def link(kind: Callable[[h5py.File], object]) -> Callable[[h5py.File], None]:
    def write(file: h5py.File) -> None:
        file["layers"] = kind(file)

    return write


WEIGHTS: dict[str, tuple[Callable[[h5py.File], object], str]] = {
    "a link to another file": (link(lambda _: h5py.ExternalLink("/etc/other.h5", "/")), "outside it"),
    "a soft link": (link(lambda _: h5py.SoftLink("/elsewhere")), "outside it"),
    "data that lie in another file": (
        lambda file: file.create_dataset("layers/dense/vars/0", (4, 5), "f4", external=[("/etc/passwd", 0, 80)]),
        "outside it",
    ),
    "data that another file has": (virtual, "outside it"),
    "text": (lambda file: file.create_dataset("x", data="cos\nsystem\n"), "no array of numbers"),
    "pickled bytes": (
        lambda file: file.create_dataset("x", data=np.void(b"\x80\x04cos\nsystem\n")),
        "no array of numbers",
    ),
    "a bomb": (
        lambda file: file.create_dataset("x", (10**5, 10**5), "f4", compression="gzip", chunks=(1000, 1000)),
        "unpacks to more",
    ),
    "another model's": (lambda file: file.create_dataset("layers/dense/vars/0", data=np.zeros((9, 9))), "do not fit"),
}


@pytest.mark.parametrize("what", WEIGHTS)
def test_weights_nobody_should_open_are_refused_with_the_reason(what: str) -> None:
    write, reason = WEIGHTS[what]
    with pytest.raises(ModelRefused, match=reason):
        read(as_json(plain()), "model.json", h5(write))


def test_weights_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    model = plain()
    model.set_weights([np.full_like(weight, np.nan) for weight in model.get_weights()])
    with pytest.raises(ModelRefused, match="not finite"):
        read(as_json(model), "model.json", as_h5(model, tmp_path))


def test_a_group_that_holds_itself_ends() -> None:
    def write(file: h5py.File) -> None:
        group = file.create_group("layers")
        group["again"] = group

    with pytest.raises(ModelRefused, match="do not fit"):
        read(as_json(plain()), "model.json", h5(write))


# --- The process ------------------------------------------------------------------------------------------------------
def python(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=120)


def test_the_process_has_no_network() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        reach = f"import socket; socket.create_connection(('127.0.0.1', {server.getsockname()[1]}), 5); print('there')"
        assert python(reach).stdout == "there\n"
        done = python(f"from dmlworker import readmodel; print(readmodel.alone(), flush=True)\n{reach}")
    if done.stdout.startswith("False"):
        pytest.skip("this kernel lets no process leave the network")
    assert "there" not in done.stdout
    assert "Error" in done.stderr


def test_the_process_has_little_memory() -> None:
    done = python("from dmlworker import readmodel as r; r._limit(); bytearray(r.MEMORY)")
    assert "MemoryError" in done.stderr


def test_the_process_has_little_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ownmodel, "SECONDS", 0.05)
    with pytest.raises(ModelRefused, match="too long"):
        read(as_json(plain()), "model.json")


def test_the_process_knows_nothing_of_our_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SECRET_KEY", "hunter2")
    assert not {"hunter2", "SECRET_KEY"} & set(sum(ownmodel._environment(tmp_path).items(), ()))


# --- What it computes -------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("model", "shape", "statistics"),
    [
        (plain, (4,), TABLE),
        (lambda: plain(layers.Dense(4)), (4,), TABLE),
        (branched, (4,), TABLE),
        (lambda: rows_of((4,), layers.Rescaling(2.0)), (4,), TABLE),
        (lambda: rows_of((8, 8, 1), layers.Conv2D(4, 3), layers.Flatten()), (8, 8), None),
        (lambda: rows_of((12,), layers.Embedding(50, 8), layers.GRU(6)), (12,), None),
        (lambda: rows_of((12, 4), layers.LSTM(6)), (12, 4), TABLE),
    ],
)
def test_it_is_known_before_there_is_data_what_it_will_compute(
    model: Callable[[], keras.Model], shape: tuple[int, ...], statistics: Statistics | None
) -> None:
    spec = read(as_json(model()), "model.json").spec
    assert ownmodel.operations(spec) == flops.of(fitted(spec, shape, 3, statistics))
