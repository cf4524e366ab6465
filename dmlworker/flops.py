"""How much a model computes: floating-point operations for one sample, counted from its configuration. Standard library only.

    of(spec)                      a pass forward and backward of a model, from `models.spec`
    of(zoo("cnn", (28, 28), 10))  of one that is not built yet

The web process quotes by it, where there is no Keras; so does the platform when it reads the file, from the spec of the real model.
A multiplication and an addition are two operations; an activation counts one for each value, however it is computed. What no layer
of the list does (the loss, the step of the optimizer) is not counted.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

Shape = tuple[int, ...]
Config = Mapping[str, Any]
Counted = tuple[int, Shape]
"""Operations, and the shape that comes out; shapes are of one sample, channels last."""

PASSES = 3
"""Forward once; backward the gradient with respect to what came in, and with respect to the weights: each is the same products again."""
MOST_VALUES = 20_000_000
"""That a sample may have; no model takes more."""


class Unknown(ValueError):
    """It can't be told how much this computes; the text says why, to the customer."""


def of(spec: Config) -> int:
    """Operations of training on one sample: forward and backward. Raises Unknown."""
    return PASSES * forward(spec)


def forward(spec: Config) -> int:
    """Operations of an answer to one sample. Raises Unknown."""
    try:
        return sum(_functional(spec) if spec["class_name"] == "Functional" else _sequential(spec))
    except Unknown:
        raise
    except (KeyError, TypeError, IndexError, ValueError, AttributeError, ArithmeticError) as error:
        raise Unknown("The model's configuration does not say how much it computes.") from error


def _sequential(spec: Config) -> Iterator[int]:
    shape: Shape = ()
    for layer in spec["config"]["layers"]:
        operations, shape = _count(layer, [shape])
        yield operations


def _functional(spec: Config) -> Iterator[int]:
    """A layer that is used twice counts twice; what goes into it stands with each use."""
    for layer in spec["config"]["layers"]:
        for node in layer["inbound_nodes"]:
            yield _count(layer, list(_shapes(node)))[0]


def _shapes(value: Any) -> Iterator[Shape]:
    """Of the tensors that are named anywhere in a node, in their order."""
    if isinstance(value, Mapping) and value.get("class_name") == "__keras_tensor__":
        yield tuple(value["config"]["shape"][1:])
    elif isinstance(value, Mapping | list):
        for item in value.values() if isinstance(value, Mapping) else value:
            yield from _shapes(item)


def _count(layer: Config, shapes: Sequence[Shape]) -> Counted:
    name = layer["class_name"]
    if name not in RULES:
        raise Unknown(f"It is not known how much a layer {name!s:.40} computes.")
    return RULES[name](layer["config"], shapes)


# --- Layers -----------------------------------------------------------------------------------------------------------
Rule = Callable[[Config, Sequence[Shape]], Counted]


def _input(config: Config, shapes: Sequence[Shape]) -> Counted:
    return 0, tuple(config["batch_shape"][1:])


def _each(operations: int) -> Rule:
    """So many for each value; the shape stays."""
    return lambda config, shapes: (operations * math.prod(shapes[0]), shapes[0])


def _merge(config: Config, shapes: Sequence[Shape]) -> Counted:
    return (len(shapes) - 1) * math.prod(shapes[0]), shapes[0]


def _concatenate(config: Config, shapes: Sequence[Shape]) -> Counted:
    axis = config["axis"] - 1 if config["axis"] > 0 else config["axis"]
    joined = list(shapes[0])
    joined[axis] = sum(shape[axis] for shape in shapes)
    return 0, tuple(joined)


def _reshape(config: Config, shapes: Sequence[Shape]) -> Counted:
    target = tuple(config["target_shape"])
    known = math.prod(side for side in target if side != -1)
    return 0, tuple(math.prod(shapes[0]) // known if side == -1 else side for side in target)


def _flatten(config: Config, shapes: Sequence[Shape]) -> Counted:
    return 0, (math.prod(shapes[0]),)


def _permute(config: Config, shapes: Sequence[Shape]) -> Counted:
    return 0, tuple(shapes[0][axis - 1] for axis in config["dims"])


def _repeat(config: Config, shapes: Sequence[Shape]) -> Counted:
    return 0, (config["n"], *shapes[0])


def _pad(config: Config, shapes: Sequence[Shape]) -> Counted:
    sides, padding = shapes[0][:-1], config["padding"]
    pairs = [padding] if len(sides) == 1 else padding
    return 0, (*(side + sum(pair) for side, pair in zip(sides, pairs, strict=True)), shapes[0][-1])


def _dense(config: Config, shapes: Sequence[Shape]) -> Counted:
    *places, inputs = shapes[0]
    out = (*places, config["units"])
    return 2 * inputs * math.prod(out) + _ends(config, math.prod(out)), out


def _ends(config: Config, values: int) -> int:
    """Adding the bias, and the activation."""
    return values * (bool(config.get("use_bias", True)) + (config.get("activation") not in (None, "linear")))


def _sides(config: Config, shape: Shape, window: Any) -> Shape:
    """Where a window of `window` sides comes to stand, without the channels."""
    window, strides, dilation = (_tuple(value, len(shape) - 1) for value in (window, config["strides"], config.get("dilation_rate", 1)))  # fmt: skip
    if config["padding"] != "valid":
        return tuple(-(-side // step) for side, step in zip(shape[:-1], strides, strict=True))
    spans = ((size - 1) * rate + 1 for size, rate in zip(window, dilation, strict=True))
    return tuple((side - span) // step + 1 for side, span, step in zip(shape[:-1], spans, strides, strict=True))


def _tuple(value: Any, sides: int) -> Shape:
    return (value,) * sides if isinstance(value, int) else tuple(value)


def _convolution(config: Config, shapes: Sequence[Shape]) -> Counted:
    shape, kernel = shapes[0], math.prod(_tuple(config["kernel_size"], len(shapes[0]) - 1))
    out = (*_sides(config, shape, config["kernel_size"]), config["filters"])
    products = kernel * shape[-1] // config.get("groups", 1) * math.prod(out)
    return 2 * products + _ends(config, math.prod(out)), out


def _depthwise(config: Config, shapes: Sequence[Shape]) -> Counted:
    shape, kernel = shapes[0], math.prod(_tuple(config["kernel_size"], len(shapes[0]) - 1))
    out = (*_sides(config, shape, config["kernel_size"]), shape[-1] * config["depth_multiplier"])
    return 2 * kernel * math.prod(out) + _ends(config, math.prod(out)), out


def _separable(config: Config, shapes: Sequence[Shape]) -> Counted:
    first, between = _depthwise({**config, "use_bias": False, "activation": "linear"}, shapes)
    out = (*between[:-1], config["filters"])
    return first + 2 * between[-1] * math.prod(out) + _ends(config, math.prod(out)), out


def _pooling(config: Config, shapes: Sequence[Shape]) -> Counted:
    out = (*_sides(config, shapes[0], config["pool_size"]), shapes[0][-1])
    return math.prod(_tuple(config["pool_size"], len(shapes[0]) - 1)) * math.prod(out), out


def _global_pooling(config: Config, shapes: Sequence[Shape]) -> Counted:
    sides = (1,) * (len(shapes[0]) - 1) if config.get("keepdims") else ()
    return math.prod(shapes[0]), (*sides, shapes[0][-1])


def _embedding(config: Config, shapes: Sequence[Shape]) -> Counted:
    """A look-up; backward each value is added once."""
    out = (*shapes[0], config["output_dim"])
    return math.prod(out), out


def _recurrent(gates: int) -> Rule:
    """For each step, products of `gates` gates with what comes in and with the state; and about four operations a gate on each value."""

    def count(config: Config, shapes: Sequence[Shape]) -> Counted:
        (steps, inputs), units = shapes[0], config["units"]
        out = (steps, units) if config.get("return_sequences") else (units,)
        return steps * gates * units * (2 * (inputs + units) + 4), out

    return count


def _both_ways(config: Config, shapes: Sequence[Shape]) -> Counted:
    operations, out = _count(config["layer"], shapes)
    joined = (*out[:-1], 2 * out[-1]) if config.get("merge_mode") == "concat" else out
    return 2 * operations, joined


def _at_each_step(config: Config, shapes: Sequence[Shape]) -> Counted:
    steps, *rest = shapes[0]
    operations, out = _count(config["layer"], [tuple(rest)])
    return steps * operations, (steps, *out)


def _attention(config: Config, shapes: Sequence[Shape]) -> Counted:
    """Multi-head: query, value and, unless it is the value, key; each (steps, features)."""
    query, value = shapes[0], shapes[min(1, len(shapes) - 1)]
    key = shapes[2] if len(shapes) > 2 else value
    heads, wide = config["num_heads"], config["key_dim"]
    deep = config.get("value_dim") or wide
    into = query[0] * query[1] * wide + key[0] * key[1] * wide + value[0] * value[1] * deep
    between = query[0] * key[0] * (wide + deep)
    out = query[0] * heads * deep * query[1]
    return 2 * (heads * (into + between) + out) + 3 * heads * query[0] * key[0], query


_PASSED_ON = ("Dropout", "SpatialDropout1D", "SpatialDropout2D", "GaussianNoise", "Masking", "Identity")
_ACTIVATIONS = ("Activation", "ReLU", "LeakyReLU", "PReLU", "ELU", "Softmax")
_POOLINGS = ("MaxPooling1D", "MaxPooling2D", "AveragePooling1D", "AveragePooling2D")
_GLOBAL = ("GlobalAveragePooling1D", "GlobalAveragePooling2D", "GlobalMaxPooling1D", "GlobalMaxPooling2D")
_NORMALISATIONS = (
    "LayerNormalization",
    "BatchNormalization",
    "GroupNormalization",
    "RMSNormalization",
    "UnitNormalization",
)

RULES: dict[str, Rule] = {
    "InputLayer": _input,
    **dict.fromkeys(_PASSED_ON, _each(0)),
    **dict.fromkeys(_ACTIVATIONS, _each(1)),
    **dict.fromkeys(("Rescaling", "Normalization"), _each(2)),
    **dict.fromkeys(_NORMALISATIONS, _each(7)),  # mean 1, variance 2, both applied 2, scale and offset 2
    **dict.fromkeys(("Add", "Subtract", "Multiply", "Average", "Maximum", "Minimum"), _merge),
    "Concatenate": _concatenate,
    "Reshape": _reshape,
    "Flatten": _flatten,
    "Permute": _permute,
    "RepeatVector": _repeat,
    **dict.fromkeys(("ZeroPadding1D", "ZeroPadding2D"), _pad),
    "Dense": _dense,
    **dict.fromkeys(("Conv1D", "Conv2D"), _convolution),
    **dict.fromkeys(("DepthwiseConv1D", "DepthwiseConv2D"), _depthwise),
    **dict.fromkeys(("SeparableConv1D", "SeparableConv2D"), _separable),
    **dict.fromkeys(_POOLINGS, _pooling),
    **dict.fromkeys(_GLOBAL, _global_pooling),
    "Embedding": _embedding,
    "SimpleRNN": _recurrent(1),
    "GRU": _recurrent(3),
    "LSTM": _recurrent(4),
    "Bidirectional": _both_ways,
    "TimeDistributed": _at_each_step,
    "MultiHeadAttention": _attention,
}


# --- Models that are not built yet ------------------------------------------------------------------------------------
def zoo(kind: str, shape: Shape, outputs: int) -> dict[str, Any]:
    """What `of` needs to know of `models.build(shape, outputs, kind)`; tests hold the two together. Raises Unknown for a kind that is not
    here, or a shape that it does not take."""
    if not shape or min(shape) < 1 or math.prod(shape) > MOST_VALUES:
        raise Unknown("No model takes samples of this shape.")
    if kind == "auto":
        kind = "cnn" if len(shape) > 1 and min(shape[:2]) >= 8 else "mlp"
    if kind not in _ZOO:
        raise Unknown("How much this kind of model computes is known only when it is built. Choose the price by size.")
    layers = [("InputLayer", {"batch_shape": [None, *shape]}), ("Rescaling", {}), *_ZOO[kind](shape)]
    layers += [("Dense", {"units": outputs}), ("Activation", {})]
    return {
        "class_name": "Sequential",
        "config": {"layers": [{"class_name": name, "config": config} for name, config in layers]},
    }


_Layers = list[tuple[str, dict[str, Any]]]
_FLAT: _Layers = [("Flatten", {})]


def _linear(shape: Shape) -> _Layers:
    return _FLAT


def _mlp(shape: Shape) -> _Layers:
    return [*_FLAT, *[("Dense", {"units": 200, "activation": "relu"})] * 2]


def _cnn(shape: Shape) -> _Layers:
    if len(shape) < 2 or min(shape[:2]) < 4:
        raise Unknown("A CNN needs images of at least 4 x 4 pixels.")
    layers: _Layers = [("Reshape", {"target_shape": [*shape, 1]})] if len(shape) == 2 else []
    for filters in (32, 64):
        same = {"strides": 1, "padding": "same"}
        layers.append(("Conv2D", {"filters": filters, "kernel_size": 5, "activation": "relu", **same}))
        layers.append(("MaxPooling2D", {"pool_size": 2, "strides": 2, "padding": "valid"}))
    return [*layers, *_FLAT, ("Dense", {"units": 512, "activation": "relu"})]


_ZOO: dict[str, Callable[[Shape], _Layers]] = {"linear": _linear, "mlp": _mlp, "cnn": _cnn}
