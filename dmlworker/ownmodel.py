"""A model of the customer's own, as Keras 3 saves it: a configuration (model.json) or a whole model (.keras), start weights with it or not.

It is read in a process of its own (`readmodel`), with bounds on memory and time, without a network where the kernel can do that, and
with nothing of our environment. What comes back is a spec in plain JSON, and weights in safetensors; both are looked at again here.
"""

import json
import math
import os
import shutil
import subprocess
import sys
import threading
from copy import deepcopy
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO, Any, NamedTuple

from dmlworker import flops, models
from dmlworker.loader import ModelRefused
from dmlworker.models import Statistics
from dmlworker.zoo import OWN

MAX_CONFIG = 20 * 10**6
"""Bytes of a configuration, or of a file that holds no more."""
MAX_FILE = 220 * 10**6
"""Bytes of a file with weights: 50 million of them, and some."""
SECONDS = 180
"""Until the process is ended, by the clock."""
REFUSED = 3
"""The process's exit code, if it tells the reason."""
_TOGETHER = threading.BoundedSemaphore(2)
"""Each takes a gigabyte of memory."""
_PATIENCE = 60
_KEPT = ("PATH", "LD_LIBRARY_PATH", "SYSTEMROOT")
_ROOT = Path(__file__).resolve().parents[1]


class Own(NamedTuple):
    """spec: as in `models`. outputs: numbers that come out for a sample. weights: safetensors, or none. notes: what was changed, in words. alone: whether it was read without a network."""

    spec: dict[str, Any]
    weights: bytes | None
    parameters: int
    outputs: int
    notes: list[str]
    alone: bool


def read(model: IO[bytes], name: str, weights: IO[bytes] | None = None) -> Own:
    """What is in a file of this name, and in one of start weights (.weights.h5). Raises ModelRefused, whose text is for the customer."""
    ending = Path(name).suffix.lower()
    if ending not in (".json", ".keras"):
        raise ModelRefused("A model of your own comes as model.json or as .keras, as Keras 3 saves it.")
    if weights is not None and ending == ".keras":
        raise ModelRefused("A .keras file has its own weights. Leave the others out.")
    if not _TOGETHER.acquire(timeout=_PATIENCE):
        raise ModelRefused("Too many models are being read just now. Please try again in a minute.")
    try:
        with TemporaryDirectory() as folder:
            _put(model, Path(folder) / f"model{ending}", MAX_CONFIG if ending == ".json" else MAX_FILE)
            if weights is not None:
                _put(weights, Path(folder) / "start.weights.h5", MAX_FILE)
            _run(Path(folder))
            return _found(Path(folder))
    finally:
        _TOGETHER.release()


def _put(file: IO[bytes], path: Path, most: int) -> None:
    file.seek(0, os.SEEK_END)
    if not 0 < file.tell() <= most:
        raise ModelRefused(f"A file of this kind must have 1 to {most:,} bytes; this one has {file.tell():,}.")
    file.seek(0)
    with path.open("wb") as copy:
        shutil.copyfileobj(file, copy)


def _run(folder: Path) -> None:
    command = [sys.executable, "-m", "dmlworker.readmodel", str(folder)]
    with (folder / "told").open("w+b") as told:
        try:
            done = subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=told,
                env=_environment(folder),
                cwd=folder,
                timeout=SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise ModelRefused("Reading the model took too long.") from None
        if done.returncode == REFUSED:
            told.seek(0)
            raise ModelRefused(told.read()[-2000:].decode(errors="replace").strip().rpartition("\n")[2])
    if done.returncode:
        raise ModelRefused("The model can't be read: it is broken, or takes too much memory or time.")


def _environment(folder: Path) -> dict[str, str]:
    """A hostile file may take the process over: what we know is none of its business."""
    kept = {name: os.environ[name] for name in _KEPT if name in os.environ}
    homes = dict.fromkeys(("HOME", "KERAS_HOME", "TMPDIR"), str(folder))
    python = {"PYTHONPATH": str(_ROOT), "PYTHONIOENCODING": "utf-8"}
    return kept | homes | python | {"KERAS_BACKEND": "tensorflow", "CUDA_VISIBLE_DEVICES": "-1"}


def _found(folder: Path) -> Own:
    """What the process left. It may have been taken over: this is looked at as the customer's file would be."""
    paths = [folder / name for name in ("spec.json", "facts.json", "weights.safetensors")]
    for path, most in zip(paths, (MAX_CONFIG, MAX_CONFIG, MAX_FILE), strict=True):
        if path.is_symlink() or (path.exists() and path.stat().st_size > most):
            raise ModelRefused("The model can't be read.")
    facts = json.loads(paths[1].read_text())
    weights = paths[2].read_bytes() if paths[2].exists() else None
    notes = [str(note)[:300] for note in facts["notes"]][:10]
    spec = models.spec_from_bytes(paths[0].read_bytes())
    return Own(spec, weights, int(facts["parameters"]), int(facts["outputs"]), notes, facts["alone"] is True)


# --- What the data asks of it -----------------------------------------------------------------------------------------
def fitted(
    spec: dict[str, Any],
    shape: tuple[int, ...],
    outputs: int,
    statistics: Statistics | None,
    *,
    task: str = "classification",
    target: tuple[float, float] | None = None,
) -> dict[str, Any]:
    """The model for data of this shape, with the platform's preprocessing in front unless it has one. Weights stay as they are: what is
    put in front has none. Raises ModelRefused, whose text is for the customer, where the two don't fit."""
    if models.task(spec) != task:
        raise ModelRefused(f"Your model is made for {_TASKS[models.task(spec)]}, and the data for {_TASKS[task]}.")
    wanted = input_shape(spec)
    check_shape(wanted, shape)
    found = deepcopy(spec)
    found["config"]["name"] = OWN  # the delivered one lies among inputs called as the columns are
    if not _prepares(spec):
        found = _in_front(found, shape, wanted, statistics)
    elif wanted != shape:
        raise _misfit(wanted, shape)
    if task == "regression" and target:
        _set_target(found, target)
    check_outputs(models.from_spec(found).output_shape[-1], outputs)
    return models.spec(models.from_spec(found))


def check_shape(wanted: tuple[int, ...], shape: tuple[int, ...]) -> None:
    """Raises ModelRefused unless samples of this shape can go in; images without colours may for those with one."""
    if wanted not in (shape, (*shape, 1)):
        raise _misfit(wanted, shape)


def check_outputs(given: int, classes: int) -> None:
    """Raises ModelRefused unless a number comes out for each class."""
    if given != classes:
        raise ModelRefused(f"Your model gives {given} numbers for a sample, and the data has {classes} classes.")


def _misfit(wanted: tuple[int, ...], shape: tuple[int, ...]) -> ModelRefused:
    return ModelRefused(f"Your model takes samples of {_size(wanted)}, and the data has {_size(shape)}.")


_TASKS = {"classification": "classes", "multilabel": "several labels at once", "regression": "a number"}


def _size(shape: tuple[int, ...]) -> str:
    return f"{' x '.join(map(str, shape))} numbers"


def operations(spec: dict[str, Any]) -> int:
    """Of training on one sample, with what the platform will put in front: as `flops.of` says of the `fitted` model. Raises Unknown."""
    shape = input_shape(spec)
    rows = {"class_name": "InputLayer", "config": {"batch_shape": [None, *shape]}}
    front = {"class_name": "Sequential", "config": {"layers": [rows, {"class_name": "Rescaling", "config": {}}]}}
    return flops.of(spec) + (0 if _prepares(spec) else flops.of(front))


def input_shape(spec: dict[str, Any]) -> tuple[int, ...]:
    """Of a sample that the model takes."""
    rows = next(layer for layer in spec["config"]["layers"] if layer["class_name"] == "InputLayer")
    return tuple(rows["config"]["batch_shape"][1:])


def _prepares(spec: dict[str, Any]) -> bool:
    """Whether rows go first into what makes them fit to be learnt from; tokens go into an embedding."""
    layers = spec["config"]["layers"]
    rows = next(layer for layer in layers if layer["class_name"] == "InputLayer")["config"]["name"]
    if spec["class_name"] == "Sequential":
        after = layers[1:2]
    else:
        after = [layer for layer in layers if json.dumps([rows, 0, 0]) in json.dumps(layer.get("inbound_nodes", []))]
    return all(layer["class_name"] in ("Rescaling", "Normalization", "Embedding") for layer in after)


def _in_front(
    spec: dict[str, Any], shape: tuple[int, ...], wanted: tuple[int, ...], statistics: Statistics | None
) -> dict[str, Any]:
    """Right after the input: the preprocessing, and for images without colours a place for the one that they have."""
    layers = spec["config"]["layers"]
    names = {layer["config"]["name"] for layer in layers}
    new = [_named(models.serialized_preprocessing(shape, statistics), names)]
    if wanted != shape:
        new.append(_named(models.serialized_reshape(wanted), names))
    at = next(n for n, layer in enumerate(layers) if layer["class_name"] == "InputLayer")
    rows = layers[at]
    rows["config"] |= {"batch_shape": [None, *shape], "dtype": "float32"}
    if spec["class_name"] == "Functional":
        _replace(layers, rows["config"]["name"], new[-1]["config"]["name"])
        for before, layer in zip([rows, *new], new, strict=False):
            layer |= {"name": layer["config"]["name"], "inbound_nodes": [node(before["config"]["name"])]}
    layers[at + 1 : at + 1] = new
    return spec


def _named(layer: dict[str, Any], names: set[str]) -> dict[str, Any]:
    while layer["config"]["name"] in names:
        layer["config"]["name"] += "_"
    return layer


def node(name: str) -> dict[str, Any]:
    """A call of a layer with what the one of this name gives."""
    config = {"shape": [None], "dtype": "float32", "keras_history": [name, 0, 0]}
    return {"args": [{"class_name": "__keras_tensor__", "config": config}], "kwargs": {}}


def _replace(value: Any, old: str, new: str) -> None:
    """Whoever was called with what `old` gives is called with what `new` gives."""
    if isinstance(value, dict):
        if value.get("keras_history") == [old, 0, 0]:
            value["keras_history"] = [new, 0, 0]
        for item in value.values():
            _replace(item, old, new)
    elif isinstance(value, list):
        for item in value:
            _replace(item, old, new)


def _set_target(spec: dict[str, Any], target: tuple[float, float]) -> None:
    """Of a model that was given none: a Rescaling that changes nothing."""
    config = models.last_layer(spec)["config"]
    if (config["scale"], config["offset"]) == (1.0, 0.0) and math.isfinite(sum(target)):
        config["offset"], config["scale"] = target
