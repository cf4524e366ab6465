"""The models that can be trained, and the safe way from a configuration to a model.

A model is made of layers (Keras `Sequential` or `Functional`), from raw rows to probabilities or a number; what the data needs first
is a layer like any other, its constants part of the configuration. Keras is imported inside the functions.
"""

import json
import math
import os
from collections.abc import Callable
from functools import reduce
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import numpy as np

from dmlworker import zoo
from dmlworker.datasets import arrays
from dmlworker.datasets.arrays import Array, blocks
from dmlworker.loader import ModelRefused, apart, load
from dmlworker.protocol import nesting
from dmlworker.task import CLASSIFICATION, MULTILABEL, REGRESSION

if TYPE_CHECKING:
    import keras

# Read by TensorFlow and Keras when they are first imported. oneDNN is off by default on processors without AVX-512, where
# it still halves the time of a CNN.
for _name, _value in {"KERAS_BACKEND": "tensorflow", "TF_ENABLE_ONEDNN_OPTS": "1", "TF_CPP_MIN_LOG_LEVEL": "2"}.items():
    os.environ.setdefault(_name, _value)

KINDS = zoo.KINDS
MAX_NESTING = 50
"""Objects within objects in a configuration; ours have 6."""


class Statistics(NamedTuple):
    """What Normalization needs: per feature for tables, one number for all pixels of float images."""

    mean: list[float]
    variance: list[float]


def statistics(x: Array, marks: np.ndarray | None = None) -> Statistics | None:
    """Mean and variance of the training part: of each column of x (n, d) float32, of all values of float images.

    None for uint8, whose range is known. A column that does not vary gets the variance 1, so that it becomes 0. marks (d,): columns of
    mere 0 and 1, which stay so: a rare 1 would become huge.
    """
    if x.dtype == np.uint8:
        return None
    varying = np.flatnonzero(~marks) if marks is not None and x.ndim == 2 else None
    mean, variance = _moments(x if x.ndim == 2 else x.reshape(-1, 1), varying)
    # float32 rounds to 6e-8 of the value: what varies less than that is noise, and must not be blown up to size 1.
    variance = np.where(variance <= 1e-12 * np.square(mean) + 1e-30, 1.0, variance)
    return Statistics(mean.tolist(), variance.tolist())


def _moments(values: Array, columns: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Mean and variance of each column, float64, a block of rows at a time; 0 of columns other than these."""
    columns = np.arange(values.shape[1]) if columns is None else columns
    mean, variance = np.zeros(values.shape[1]), np.zeros(values.shape[1])
    if not len(columns):
        return mean, variance
    chosen = arrays.columns(values, columns)
    for part in blocks(values):
        mean[columns] += chosen[part].sum(axis=0, dtype=np.float64)
    mean /= len(values)
    for part in blocks(values):
        variance[columns] += np.square(chosen[part] - mean[columns]).sum(axis=0)
    return mean, variance / len(values)


def target_statistics(y: np.ndarray) -> tuple[float, float]:
    """Mean and standard deviation of the training part's target (n,), of a regression."""
    mean, variance = _moments(y.reshape(-1, 1))
    return float(mean[0]), math.sqrt(variance[0]) or 1.0


def build(
    shape: tuple[int, ...],
    outputs: int,
    kind: str = "auto",
    statistics: Statistics | None = None,
    *,
    task: str = CLASSIFICATION,
    tokens: int = 0,
    target: tuple[float, float] | None = None,
    times: float = 1.0,
) -> "keras.Model":
    """An untrained model for samples of `shape`: (d,), (h, w), (h, w, c) or (steps, features); raw values in.

    kind: "linear"; "mlp", 784-200-200-10 for MNIST; "cnn", 5x5x32, 5x5x64, dense 512 (both after McMahan et al. 2016); the others in
    `zoo`. "auto": a 1-D CNN for tokens, a CNN for images of at least 8 x 8, mlp otherwise. statistics: from `statistics(x)`; None means
    uint8, which is divided by 255. tokens: how many there are, for sequences of them, of shape (steps,), whose 0 is nothing.
    Out come, by task, `outputs` probabilities of classes or of labels, or one
    number; target: its mean and standard deviation. times: as wide as usual (`zoo.WIDTHS`). Raises ModelRefused for a kind that is unknown or doesn't fit, and for a model
    that grows too large.
    """
    import keras

    sample = zoo.Sample(shape, tokens)
    kind = zoo.choose(sample) if kind == "auto" else kind
    body = zoo.body(kind, sample, times)
    first = [] if tokens else [_preprocessing(shape, statistics)]
    last = [keras.layers.Dense(outputs, name="logits"), _last(task, target)]
    if callable(body):
        return from_spec(apart(lambda: _graph(kind, shape, first, body, last)))
    layers = [keras.layers.InputLayer(shape, name="rows"), *first, *body, *last]
    configs = [keras.saving.serialize_keras_object(layer) for layer in layers]
    return from_spec({"class_name": "Sequential", "config": {"name": kind, "layers": configs}})


def build_for(data: Any, classes: int, kind: str = "auto") -> "keras.Model":
    """The model for a training part with samples `data.x`, (n, ...) uint8 or float32; its constants come from them."""
    return build(data.x.shape[1:], classes, kind, statistics(data.x))


def _graph(
    kind: str, shape: tuple[int, ...], first: list[Any], body: Callable[[Any], Any], last: list[Any]
) -> dict[str, Any]:
    import keras

    rows = keras.Input(shape, name="rows")
    values = reduce(lambda values, layer: layer(values), first, rows)
    return spec(keras.Model(rows, reduce(lambda values, layer: layer(values), last, body(values)), name=kind))


def _last(task: str, target: tuple[float, float] | None) -> Any:
    """The layer that tells what is learnt."""
    import keras

    if task == REGRESSION:
        mean, deviation = target or (0.0, 1.0)
        return keras.layers.Rescaling(deviation, offset=mean, name="prediction")
    return keras.layers.Activation({CLASSIFICATION: "softmax", MULTILABEL: "sigmoid"}[task], name="probabilities")


def _preprocessing(shape: tuple[int, ...], statistics: Statistics | None) -> Any:
    """Of images, one number for all values; of a table, or a series whose statistics say it, a number for each column."""
    import keras

    if statistics is None:
        return keras.layers.Rescaling(1 / 255, name="preprocessing")
    if len(shape) == 1 or (len(shape) == 2 and len(statistics.mean) == shape[1] > 1):
        return keras.layers.Normalization(mean=statistics.mean, variance=statistics.variance, name="preprocessing")
    mean, variance = statistics.mean[0], statistics.variance[0]
    return keras.layers.Rescaling(1 / math.sqrt(variance), offset=-mean / math.sqrt(variance), name="preprocessing")


def spec(model: "keras.Model") -> dict[str, Any]:
    """The model's configuration as plain JSON types; weights are no part of it. Equal models give equal specs."""
    config: dict[str, Any] = json.loads(model.to_json())
    for key in ("build_config", "compile_config", "keras_version"):
        config.pop(key, None)
    return config


def spec_bytes(spec: dict[str, Any]) -> bytes:
    """The spec as it is stored and hashed: JSON, keys sorted, no spaces."""
    return json.dumps(spec, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


def spec_from_bytes(data: bytes) -> dict[str, Any]:
    """The inverse of `spec_bytes`. Raises ModelRefused for what is no JSON object."""
    try:
        text = data.decode()
        spec = json.loads(text) if nesting(text) <= MAX_NESTING else None
    except ValueError:
        spec = None
    if not isinstance(spec, dict):
        raise ModelRefused("The model's configuration is not a JSON object.")
    return spec


def from_spec(spec: dict[str, Any]) -> "keras.Model":
    """A model with fresh weights from a configuration that nobody vouches for.

    Raises ModelRefused unless it is made of allowed layers and ends in one that tells what it learns (`task`), within the limits on
    size. Sizes are counted before any memory is set aside.
    """
    learns = task(spec)
    if learns == REGRESSION:
        target(spec)
    model = load(spec)
    outputs = model.output_shape[1:]
    if learns == REGRESSION and outputs != (1,):
        raise ModelRefused("A model that ends in Rescaling must give one number.")
    if learns != REGRESSION and (len(outputs) != 1 or outputs[0] < 2):
        raise ModelRefused("The model must end in one probability for each of at least two classes or labels.")
    return model


def task(spec: dict[str, Any]) -> str:
    """What a model learns, which its last layer alone tells: see dmlworker/task.py. Raises ModelRefused for one that says nothing."""
    last = last_layer(spec)
    config = last.get("config")
    if last.get("class_name") == "Rescaling":
        return REGRESSION
    activation = config.get("activation") if isinstance(config, dict) else None
    found = {"softmax": CLASSIFICATION, "sigmoid": MULTILABEL}.get(str(activation))
    if last.get("class_name") != "Activation" or found is None:
        raise ModelRefused(
            "The last layer must be Activation('softmax') for classes, Activation('sigmoid') for several labels, or Rescaling for a number."
        )
    return found


def target(spec: dict[str, Any]) -> tuple[float, float]:
    """(mean, standard deviation) of a regression's target, which its last layer puts back. Raises ModelRefused if they are none."""
    config = last_layer(spec).get("config")
    config = config if isinstance(config, dict) else {}
    mean, deviation = config.get("offset", 0.0), config.get("scale")
    if (
        not all(isinstance(number, int | float) and math.isfinite(number) for number in (mean, deviation))
        or deviation <= 0
    ):
        raise ModelRefused(
            "The last layer, Rescaling, must have a positive number as its scale, and a number as its offset."
        )
    return float(mean), float(deviation)


def last_layer(spec: dict[str, Any]) -> dict[str, Any]:
    """Its configuration; empty if there is none."""
    config = spec.get("config")
    layers = config.get("layers") if isinstance(config, dict) else None
    found = [layer for layer in layers if isinstance(layer, dict)] if isinstance(layers, list) else []
    if spec.get("class_name") != "Functional" or not found:
        return found[-1] if found else {}
    output = config.get("output_layers") if isinstance(config, dict) else None
    while isinstance(output, list) and output:
        output = output[0]
    return next((layer for layer in found if layer.get("name") == output), {})


def serialized_preprocessing(shape: tuple[int, ...], statistics: Statistics | None) -> dict[str, Any]:
    """The configuration of what the platform puts in front of a model."""
    return _serialized(_preprocessing(shape, statistics))


def serialized_reshape(shape: tuple[int, ...]) -> dict[str, Any]:
    import keras

    return _serialized(keras.layers.Reshape(shape, name="channels"))


def _serialized(layer: Any) -> dict[str, Any]:
    import keras

    found: dict[str, Any] = json.loads(json.dumps(keras.saving.serialize_keras_object(layer)))
    return found


def before_last(model: "keras.Model") -> Callable[[Any], Any]:
    """Rows to what goes into the last layer: losses are taken there, where they keep their precision. float32 in."""
    import keras

    if isinstance(model, keras.Sequential):
        return lambda rows: reduce(lambda values, layer: layer(values), model.layers[:-1], rows)
    last = model.outputs[0]._keras_history.operation
    return cast(Callable[[Any], Any], keras.Model(model.inputs[0], last.input))
