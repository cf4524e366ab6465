"""The models that can be trained, and the safe way from a configuration to a model.

A model is a chain of layers (Keras `Sequential`) from raw rows to class probabilities, or to a number; what the data needs first is a
layer like any other, its constants part of the configuration. Keras is imported inside the functions.
"""

import json
import math
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from dmlworker.datasets.arrays import blocks
from dmlworker.protocol import nesting
from dmlworker.task import CLASSIFICATION, MULTILABEL, REGRESSION

if TYPE_CHECKING:
    import keras

# Read by TensorFlow and Keras when they are first imported. oneDNN is off by default on processors without AVX-512, where
# it still halves the time of a CNN.
for _name, _value in {"KERAS_BACKEND": "tensorflow", "TF_ENABLE_ONEDNN_OPTS": "1", "TF_CPP_MIN_LOG_LEVEL": "2"}.items():
    os.environ.setdefault(_name, _value)

KINDS = ("auto", "linear", "mlp", "cnn")
MAX_PARAMETERS = 50_000_000
MAX_ACTIVATIONS = 20_000_000
"""Values that the layers of a model may pass on for one sample, together."""
MAX_LAYERS = 100
MAX_NESTING = 50
"""Objects within objects in a configuration; ours have 6."""

LAYERS = frozenset(
    {
        "InputLayer", "Rescaling", "Normalization", "Reshape", "Flatten", "Dense", "Conv1D", "Conv2D", "MaxPooling1D",
        "MaxPooling2D", "AveragePooling2D", "GlobalAveragePooling2D", "Activation", "ReLU", "LeakyReLU", "LayerNormalization",
    }
)  # fmt: skip
"""Layers a configuration may name: deterministic, without state of their own, and without code in their configuration."""
_INITIALIZERS = frozenset(
    {"GlorotUniform", "GlorotNormal", "HeUniform", "HeNormal", "LecunUniform", "LecunNormal", "Zeros", "Ones"}
)
_OTHERS = frozenset({"Sequential", "DTypePolicy"})
_ACTIVATIONS = frozenset({"linear", "relu", "leaky_relu", "elu", "selu", "gelu", "silu", "tanh", "sigmoid", "softmax"})


class ModelRefused(ValueError):
    """A configuration that is not loaded; the text gives the reason."""


class Statistics(NamedTuple):
    """What Normalization needs: per feature for tables, one number for all pixels of float images."""

    mean: list[float]
    variance: list[float]


def statistics(x: np.ndarray, marks: np.ndarray | None = None) -> Statistics | None:
    """Mean and variance of the training part: of each column of x (n, d) float32, of all values of float images.

    None for uint8, whose range is known. A column that does not vary gets the variance 1, so that it becomes 0. marks (d,): columns of
    mere 0 and 1, which stay so: a rare 1 would become huge.
    """
    if x.dtype == np.uint8:
        return None
    mean, variance = _moments(x if x.ndim == 2 else x.reshape(-1, 1))
    # float32 rounds to 6e-8 of the value: what varies less than that is noise, and must not be blown up to size 1.
    variance = np.where(variance <= 1e-12 * np.square(mean) + 1e-30, 1.0, variance)
    if marks is not None:
        mean[marks], variance[marks] = 0.0, 1.0
    return Statistics(mean.tolist(), variance.tolist())


def _moments(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and variance of each column, float64, a block of rows at a time."""
    mean, variance = np.zeros(values.shape[1]), np.zeros(values.shape[1])
    for part in blocks(values):
        mean += values[part].sum(axis=0, dtype=np.float64)
    mean /= len(values)
    for part in blocks(values):
        variance += np.square(values[part] - mean).sum(axis=0)
    return mean, variance / len(values)


def target_statistics(y: np.ndarray) -> tuple[float, float]:
    """Mean and standard deviation of the training part's target (n,), of a regression."""
    mean, deviation = float(y.mean(dtype=np.float64)), float(y.std(dtype=np.float64))
    return mean, deviation or 1.0


def build(
    shape: tuple[int, ...],
    outputs: int,
    kind: str = "auto",
    statistics: Statistics | None = None,
    *,
    task: str = CLASSIFICATION,
    target: tuple[float, float] | None = None,
) -> "keras.Sequential":
    """An untrained model for samples of `shape`: (d,), (h, w) or (h, w, c); raw values in. What comes out: `outputs` probabilities, or
    of a regression one number in the target's own unit, whose (mean, standard deviation) is `target`.

    kind: "linear"; "mlp", 784-200-200-10 for MNIST; "cnn", 5x5x32, 5x5x64, dense 512 (both after McMahan et al. 2016);
    "auto": cnn for images of at least 8 x 8, mlp otherwise. statistics: from `statistics(x)`; None means uint8, which is
    divided by 255. Raises ModelRefused for an unknown kind, a cnn on a table, or a model that grows too large.
    """
    import keras

    if kind == "auto":
        kind = "cnn" if len(shape) > 1 and min(shape[:2]) >= 8 else "mlp"
    bodies = {"linear": _linear, "mlp": _mlp, "cnn": _cnn}
    if kind not in bodies:
        raise ModelRefused(f"There is no kind of model {kind!r:.40}. Choose one of {', '.join(KINDS)}.")
    # Every layer has a name of its own choosing: Keras would number them through the whole process.
    layers = [keras.layers.InputLayer(shape, name="rows"), _preprocessing(shape, statistics), *bodies[kind](shape)]
    layers += _head(outputs, task, target)
    configs = [keras.saving.serialize_keras_object(layer) for layer in layers]
    return from_spec({"class_name": "Sequential", "config": {"name": kind, "layers": configs}})


def _head(outputs: int, task: str, target: tuple[float, float] | None) -> list[Any]:
    """The last layer says the task, and nothing else does: see `task`."""
    from keras import layers

    if task == REGRESSION:
        mean, deviation = target or (0.0, 1.0)
        return [layers.Dense(outputs, name="standardised"), layers.Rescaling(deviation, offset=mean, name="prediction")]
    activation = "sigmoid" if task == MULTILABEL else "softmax"
    return [layers.Dense(outputs, name="logits"), layers.Activation(activation, name="probabilities")]


def task(spec: dict[str, Any]) -> str:
    """What a model learns, by its last layer. Raises ModelRefused for one that says nothing."""
    layer = _last(spec)
    if layer["class_name"] == "Rescaling":
        return REGRESSION
    found = {"softmax": CLASSIFICATION, "sigmoid": MULTILABEL}.get(str(layer["config"].get("activation")))
    if layer["class_name"] != "Activation" or found is None:
        raise ModelRefused(
            "The last layer must be Activation('softmax') for classes, Activation('sigmoid') for several labels, or Rescaling for a number."
        )
    return found


def target(spec: dict[str, Any]) -> tuple[float, float]:
    """(mean, standard deviation) of a regression's target, which its last layer puts back. Raises ModelRefused if they are none."""
    config = _last(spec)["config"]
    mean, deviation = config.get("offset", 0.0), config.get("scale")
    if (
        not all(isinstance(number, int | float) and math.isfinite(number) for number in (mean, deviation))
        or deviation <= 0
    ):
        raise ModelRefused(
            "The last layer, Rescaling, must have a positive number as its scale, and a number as its offset."
        )
    return float(mean), float(deviation)


def _last(spec: dict[str, Any]) -> dict[str, Any]:
    """The layer that a model's output is of: a functional one names it, a chain ends in it."""
    layers: list[dict[str, Any]] = spec["config"]["layers"]
    name = spec["config"].get("output_layers")
    while isinstance(name, list) and name:
        name = name[0]
    return next((layer for layer in layers if name is not None and layer["config"].get("name") == name), layers[-1])


def build_for(data: Any, classes: int, kind: str = "auto") -> "keras.Sequential":
    """The model for a training part with samples `data.x`, (n, ...) uint8 or float32; its constants come from them."""
    return build(data.x.shape[1:], classes, kind, statistics(data.x))


def _preprocessing(shape: tuple[int, ...], statistics: Statistics | None) -> Any:
    import keras

    if statistics is None:
        return keras.layers.Rescaling(1 / 255, name="preprocessing")
    if len(shape) == 1:
        return keras.layers.Normalization(mean=statistics.mean, variance=statistics.variance, name="preprocessing")
    mean, variance = statistics.mean[0], statistics.variance[0]
    return keras.layers.Rescaling(1 / math.sqrt(variance), offset=-mean / math.sqrt(variance), name="preprocessing")


def _flatten(shape: tuple[int, ...]) -> list[Any]:
    import keras

    return [keras.layers.Flatten(name="flatten")] if len(shape) > 1 else []


def _linear(shape: tuple[int, ...]) -> list[Any]:
    return _flatten(shape)


def _mlp(shape: tuple[int, ...]) -> list[Any]:
    import keras

    hidden = [keras.layers.Dense(200, activation="relu", name=f"hidden_{number}") for number in (1, 2)]
    return [*_flatten(shape), *hidden]


def _cnn(shape: tuple[int, ...]) -> list[Any]:
    from keras import layers

    if len(shape) < 2 or min(shape[:2]) < 4:
        raise ModelRefused("A CNN needs images of at least 4 x 4 pixels.")
    channels = [layers.Reshape((*shape, 1), name="channels")] if len(shape) == 2 else []
    convolutions = []
    for number, filters in enumerate((32, 64), 1):
        convolutions += [
            layers.Conv2D(filters, 5, padding="same", activation="relu", name=f"convolution_{number}"),
            layers.MaxPooling2D(2, name=f"pooling_{number}"),
        ]
    return [
        *channels,
        *convolutions,
        layers.Flatten(name="flatten"),
        layers.Dense(512, activation="relu", name="hidden"),
    ]


def spec(model: "keras.Sequential") -> dict[str, Any]:
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


def from_spec(spec: dict[str, Any]) -> "keras.Sequential":
    """A model with fresh weights from a configuration that nobody vouches for.

    Raises ModelRefused unless it is a chain of allowed layers that ends in a task's, within the limits on size. Sizes are
    counted before any memory is set aside.
    """
    import keras

    try:
        configs = _allowed_layers(spec)
        layers = [keras.saving.deserialize_keras_object(config, safe_mode=True) for config in configs]
        _check_sizes(layers, task(spec))
        model = keras.Sequential(layers, name=str(spec["config"].get("name", "model")))
        if not model.built:
            raise ModelRefused("The first layer must say what shape goes in.")
        return model
    except ModelRefused:
        raise
    except Exception as error:  # Keras raises what it likes on a configuration that makes no sense.
        raise ModelRefused(f"Keras can't build the model: {error!s:.300}") from error


def _allowed_layers(spec: dict[str, Any]) -> list[dict[str, Any]]:
    """The layers' configurations, after every object named anywhere inside them was found on the lists."""
    if spec.get("class_name") != "Sequential":
        raise ModelRefused("The model must be a chain of layers (Keras Sequential).")
    layers = spec["config"]["layers"]
    if not isinstance(layers, list) or not 2 <= len(layers) <= MAX_LAYERS:
        raise ModelRefused(f"The model must have 2 to {MAX_LAYERS} layers.")
    _check_objects(layers)
    if layers[0]["class_name"] != "InputLayer" or any(layer["class_name"] not in LAYERS for layer in layers):
        raise ModelRefused("The model must be an InputLayer followed by layers.")
    if task(spec) == REGRESSION:
        target(spec)
    # What a layer was once built for is not asked; it is built here, for what really goes in.
    return [{key: value for key, value in layer.items() if key != "build_config"} for layer in layers]


def _check_objects(value: Any) -> None:
    if isinstance(value, list):
        for item in value:
            _check_objects(item)
    if not isinstance(value, dict):
        return
    name = value.get("class_name")
    if name is not None and name not in LAYERS | _INITIALIZERS | _OTHERS:
        raise ModelRefused(f"{name!s:.60} is not among the layers that are allowed.")
    if str(value.get("module") or "keras").split(".")[0] not in ("keras", "builtins"):
        raise ModelRefused("Only Keras' own layers are allowed.")
    if value.get("registered_name") not in (None, name):
        raise ModelRefused("Only Keras' own layers are allowed.")
    for key in ("activation", "recurrent_activation"):
        if key in value and value[key] not in _ACTIVATIONS:
            raise ModelRefused(f"The activation {value[key]!s:.60} is not among those allowed.")
    for item in value.values():
        _check_objects(item)


def _check_sizes(layers: list[Any], learnt: str) -> None:
    """Follows the shapes through layers that are not built yet; Dense(10^9) would fill the memory when it is."""
    shape = tuple(layers[0].batch_shape)
    if len(shape) < 2 or shape[0] is not None or not all(isinstance(side, int) and side > 0 for side in shape[1:]):
        raise ModelRefused("The shape that goes in must be whole numbers.")
    parameters, activations = 0, math.prod(shape[1:])
    for layer in layers[1:]:
        parameters += _PARAMETERS.get(type(layer).__name__, _none)(layer, shape)
        shape = tuple(layer.compute_output_shape(shape))
        activations += math.prod(shape[1:])
    if parameters > MAX_PARAMETERS or activations > MAX_ACTIVATIONS:
        raise ModelRefused(f"The model is too large: {parameters:,} parameters; at most {MAX_PARAMETERS:,} are taken.")
    if learnt == REGRESSION and shape[1:] != (1,):
        raise ModelRefused("The model must end in one number.")
    if learnt != REGRESSION and (len(shape) != 2 or shape[1] < 2):
        raise ModelRefused("The model must end in one probability for each of at least two classes or labels.")


def _none(layer: Any, shape: tuple[int, ...]) -> int:
    return 0


def _dense(layer: Any, shape: tuple[int, ...]) -> int:
    return (shape[-1] + 1) * int(layer.units)


def _convolution(layer: Any, shape: tuple[int, ...]) -> int:
    return int((math.prod(layer.kernel_size) * shape[-1] + 1) * layer.filters)


def _layer_norm(layer: Any, shape: tuple[int, ...]) -> int:
    return 2 * math.prod(shape[1:])


_PARAMETERS: dict[str, Callable[[Any, tuple[int, ...]], int]] = {
    "Dense": _dense,
    "Conv1D": _convolution,
    "Conv2D": _convolution,
    "LayerNormalization": _layer_norm,
}
