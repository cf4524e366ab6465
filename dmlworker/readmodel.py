"""`python -m dmlworker.readmodel FOLDER`: a customer's own model, read where it can do no harm. See `ownmodel`.

FOLDER holds model.json or model.keras, and start.weights.h5 if weights were given. Written there: spec.json, facts.json, and
weights.safetensors if there are weights.
"""

import ctypes
import json
import math
import os
import sys
import zipfile
from pathlib import Path
from typing import Any

from dmlworker.ownmodel import MAX_CONFIG, MAX_FILE, REFUSED, node

MEMORY = 6 * 10**9
"""Bytes of address space; TensorFlow alone maps two."""
CPU_SECONDS = 120
_NEW_USER, _NEW_NETWORK = 0x10000000, 0x40000000
"""Linux' CLONE_NEWUSER and CLONE_NEWNET."""
_IN_KERAS = {"metadata.json", "config.json", "model.weights.h5"}
_MAX_H5_OBJECTS = 20_000


def main(folder: Path) -> None:
    apart = alone()  # first: threads would be in the way
    _limit()
    from dmlworker.datasets import DatasetError
    from dmlworker.loader import ModelRefused

    try:
        _read(folder, apart)
    except (ModelRefused, DatasetError) as error:
        _refuse(error)
    except MemoryError:
        _refuse("The model takes too much memory.")


def _refuse(why: object) -> None:
    print(f"\n{' '.join(str(why).split())}", file=sys.stderr, flush=True)
    os._exit(REFUSED)


def alone() -> bool:
    """Leaves the network, and root's rights where it can; False where the kernel does not allow it, or is not Linux."""
    try:
        unshare = ctypes.CDLL(None, use_errno=True).unshare
    except (OSError, AttributeError, TypeError):
        return False
    return unshare(_NEW_USER | _NEW_NETWORK) == 0 or unshare(_NEW_NETWORK) == 0


def _limit() -> None:
    try:
        import resource
    except ImportError:  # Windows
        return
    bounds = {"AS": MEMORY, "CPU": CPU_SECONDS, "FSIZE": 2 * MAX_FILE, "CORE": 0}
    for name, most in bounds.items():
        resource.setrlimit(getattr(resource, f"RLIMIT_{name}"), (most, most))


def _read(folder: Path, apart: bool) -> None:
    from dmlworker import models, trainer
    from dmlworker.loader import load
    from dmlworker.weights import pack

    config, weights = _parts(folder)
    if weights:
        _check_h5(weights)
    given = _plain(models.spec_from_bytes(config))
    with_head, notes = _with_head(given)
    model = models.from_spec(with_head)
    spec = models.spec(model)
    start = None
    if weights:
        start = _loaded(load(given), weights)
        (folder / "weights.safetensors").write_bytes(pack(start))
    _try(spec, start or trainer.initial_weights(spec, 0))
    facts = {"alone": apart, "parameters": model.count_params(), "outputs": model.output_shape[-1], "notes": notes}
    (folder / "facts.json").write_text(json.dumps(facts))
    (folder / "spec.json").write_bytes(models.spec_bytes(spec))


def _parts(folder: Path) -> tuple[bytes, Path | None]:
    """The configuration, and the file of weights."""
    from dmlworker.datasets import archive
    from dmlworker.loader import ModelRefused

    start = folder / "start.weights.h5"
    if (plain := folder / "model.json").exists():
        return plain.read_bytes(), start if start.exists() else None
    with archive.opened(folder / "model.keras", ".keras", MAX_FILE) as file:
        names = [entry.filename for entry in file.infolist()]
        other = [name for name in names if name not in _IN_KERAS and not name.endswith("/")]
        if other or "config.json" not in names or len(names) != len(set(names)):
            raise ModelRefused(
                f"A .keras file holds config.json and weights, this one {', '.join(map(repr, other or names))!s:.200}."
            )
        if file.getinfo("config.json").file_size > MAX_CONFIG:
            raise ModelRefused(f"The model's configuration has more than {MAX_CONFIG:,} bytes.")
        config = file.read("config.json")
        if "model.weights.h5" in names:
            _unpack(file, start)
    return config, start if start.exists() else None


def _unpack(file: zipfile.ZipFile, path: Path) -> None:
    """zipfile reads no more than the directory says, which was checked."""
    with file.open("model.weights.h5") as source, path.open("wb") as copy:
        while chunk := source.read(1 << 20):
            copy.write(chunk)


def _plain(spec: dict[str, Any]) -> dict[str, Any]:
    """Without how it was compiled and built, which is not asked."""
    from dmlworker.loader import ModelRefused

    if str(spec.get("keras_version", "")).startswith(("1.", "2.")):
        raise ModelRefused("The model was saved by Keras 2. Load it in Keras 3, and save it again.")
    return {key: spec.get(key) for key in ("class_name", "config")}


# --- Its end ----------------------------------------------------------------------------------------------------------
def _with_head(spec: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """The same, with a last layer that says what is learnt, and what was changed for that."""
    from dmlworker import models

    found = json.loads(json.dumps(spec))
    last = models.last_layer(found)
    config: Any = last.get("config")
    if not isinstance(config, dict):
        return found, []
    if last.get("class_name") == "Softmax" and config.get("axis") in (-1, [-1], 1):
        last |= {"class_name": "Activation", "config": _head(config["name"], "softmax")["config"]}
        return found, []
    if last.get("class_name") != "Dense":
        return found, []
    activation, units = config.get("activation"), config.get("units")
    if activation in ("softmax", "sigmoid"):
        config["activation"] = "linear"
        _append(found, last, _head("probabilities", activation))
        return found, [f"{activation} of the last layer became a layer of its own"]
    if activation != "linear":
        return found, []
    if units == 1:
        _append(found, last, _head("value"))
        return found, ["the number that comes out is scaled as your target is"]
    _append(found, last, _head("probabilities", "softmax"))
    return found, ["a softmax was put at the end"]


def _head(name: str, activation: str = "") -> dict[str, Any]:
    kind, config = (
        ("Activation", {"activation": activation}) if activation else ("Rescaling", {"scale": 1.0, "offset": 0.0})
    )
    return {"module": "keras.layers", "class_name": kind, "config": {"name": name, **config}, "registered_name": None}


def _append(spec: dict[str, Any], last: dict[str, Any], layer: dict[str, Any]) -> None:
    names = {each["config"]["name"] for each in spec["config"]["layers"]}
    while layer["config"]["name"] in names:
        layer["config"]["name"] += "_"
    if spec["class_name"] == "Functional":
        name = layer["config"]["name"]
        layer |= {"name": name, "inbound_nodes": [node(last["config"]["name"])]}
        spec["config"]["output_layers"] = [name, 0, 0]
    spec["config"]["layers"].append(layer)


# --- Its weights ------------------------------------------------------------------------------------------------------
def _check_h5(path: Path) -> None:
    """Arrays of numbers in this very file, and nothing else. HDF5 could point to other files, and unpack to anything."""
    import h5py

    from dmlworker.loader import ModelRefused

    try:
        with h5py.File(path, "r") as file:
            seen, todo, size = set(), [file["/"]], 0
            while todo:
                group = todo.pop()
                for name in group:
                    if not isinstance(group.get(name, getlink=True), h5py.HardLink):
                        raise ModelRefused("The file of weights points to something outside it.")
                    found = group[name]
                    address = h5py.h5o.get_info(found.id).addr
                    if address in seen:
                        continue
                    seen.add(address)
                    if isinstance(found, h5py.Group):
                        todo.append(found)
                    else:
                        size += _array_size(found)
                    if size > MAX_FILE or len(seen) > _MAX_H5_OBJECTS:
                        raise ModelRefused(
                            f"The file of weights unpacks to more than {MAX_FILE:,} bytes. Save it without the optimizer."
                        )
    except ModelRefused:
        raise
    except Exception as error:  # HDF5 raises what it likes on a broken file
        raise ModelRefused(f"The file of weights is broken, or not HDF5 at all ({error!s:.120}).") from None


def _array_size(found: Any) -> int:
    import h5py

    from dmlworker.loader import ModelRefused

    if not isinstance(found, h5py.Dataset) or found.dtype.kind not in "fiu" or found.shape is None:
        raise ModelRefused("The file of weights holds something that is no array of numbers.")
    if found.external or found.is_virtual:
        raise ModelRefused("The file of weights points to something outside it.")
    return math.prod(found.shape) * int(found.dtype.itemsize)


def _loaded(model: Any, path: Path) -> list[Any]:
    import numpy as np

    from dmlworker.loader import ModelRefused

    try:
        model.load_weights(path)
    except Exception as error:  # Keras raises what it likes
        raise ModelRefused(f"The weights do not fit the model: {str(error).splitlines()[0]:.200}") from None
    found = [np.array(weight, np.float32) for weight in model.get_weights()]
    if not all(np.isfinite(weight).all() for weight in found):
        raise ModelRefused("Some of the weights are not finite.")
    return found


def _try(spec: dict[str, Any], weights: list[Any]) -> None:
    """A step on made-up rows: what the library can't compute is refused now, and not when it is paid for."""
    import numpy as np

    from dmlworker import models, trainer
    from dmlworker.loader import ModelRefused

    if models.task(spec) != "classification":
        return
    shape = models.from_spec(spec).input_shape[1:]
    x, y = np.zeros((4, *shape), np.float32), np.zeros(4, np.int32)
    try:
        trainer.train(spec, weights, x, y, trainer.Hyper(1, 4, 1e-3, 0))
    except MemoryError:
        raise
    except Exception as error:  # TensorFlow raises what it likes
        raise ModelRefused(f"The model can't be trained: {str(error).strip().splitlines()[-1]:.200}") from None


if __name__ == "__main__":
    main(Path(sys.argv[1]))
