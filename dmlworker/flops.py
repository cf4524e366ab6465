"""How much a model computes: floating-point operations for one sample, counted from its configuration. Standard library only.

    of(spec)                            a pass forward and backward of a model, from `models.spec`
    zoo("cnn", Sample((28, 28)), 10)    the same of one that is not built yet

The web process quotes by it, where there is no Keras; so does the platform when it reads the file, from the spec of the real model.
A multiplication and an addition are two operations; an activation counts one for each value, however it is computed. What no layer
of the list does (the loss, the step of the optimizer) is not counted.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from dmlworker import zoo as kinds
from dmlworker.loader import ModelRefused

Shape = tuple[int, ...]
Config = Mapping[str, Any]
Counted = tuple[int, Shape]
"""Operations, and the shape that comes out; shapes are of one sample, channels last."""

PASSES = 3
"""Forward once; backward the gradient with respect to what came in, and with respect to the weights: each is the same products again."""
MOST_VALUES = 20_000_000
"""That a sample may have; no model takes more."""


MOST = 2**63 - 1
"""Operations: what a database can hold."""


class Unknown(ValueError):
    """It can't be told how much this computes; the text says why, to the customer."""


def of(spec: Config) -> int:
    """Operations of training on one sample: forward and backward. Raises Unknown."""
    found = PASSES * forward(spec)
    if not 0 <= found <= MOST:
        raise Unknown("The model's configuration says that it computes more than anything can.")
    return found


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
            yield _count(layer, list(_given(node)))[0]


def _given(node: Config) -> Iterator[Shape]:
    """The shapes that a layer is called with; of attention query, value, key, however they are written."""
    yield from _shapes(node["args"])
    for name in ("value", "key"):
        yield from _shapes(node["kwargs"].get(name))


def _shapes(value: Any) -> Iterator[Shape]:
    """Of the tensors that are named anywhere in a value, in their order."""
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
    """One value of each, where a side of 1 stands for as many as the others have."""
    longest = max(map(len, shapes))
    out = tuple(map(max, *(((1,) * (longest - len(shape)) + shape) for shape in shapes)))
    return (len(shapes) - 1) * math.prod(out), out


def _dot(config: Config, shapes: Sequence[Shape]) -> Counted:
    """Sums of products along one axis of each; axes count from the batch on. Normalized, each value is squared, summed and divided."""
    axes = config["axes"]
    sides = [list(shape) for shape in shapes]
    along = [(axis - 1 if axis > 0 else axis) for axis in ([axes] * 2 if isinstance(axes, int) else axes)]
    common = [side.pop(axis) for side, axis in zip(sides, along, strict=True)][0]
    out = (*sides[0], *sides[1]) or (1,)
    lengths = 3 * sum(map(math.prod, shapes)) if config.get("normalize") else 0
    return 2 * common * math.prod(out) + lengths, out


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
    return 0, _longer(shapes[0], config["padding"], 1)


def _crop(config: Config, shapes: Sequence[Shape]) -> Counted:
    return 0, _longer(shapes[0], config["cropping"], -1)


def _longer(shape: Shape, ends: Any, sign: int) -> Shape:
    """By what is put to either end of a side, or cut off."""
    pairs = [ends] if len(shape) == 2 else ends
    return (*(side + sign * sum(pair) for side, pair in zip(shape[:-1], pairs, strict=True)), shape[-1])


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
    forwards, out = _count(config["layer"], shapes)
    backwards = _count(config.get("backward_layer") or config["layer"], shapes)[0]
    if config.get("merge_mode") == "concat":
        return forwards + backwards, (*out[:-1], 2 * out[-1])
    return forwards + backwards + math.prod(out), out


def _attention(config: Config, shapes: Sequence[Shape]) -> Counted:
    """Multi-head: query, value and, unless it is the value, key; each (places…, features). Between the axes that are not attended to,
    places don't meet."""
    query, value = shapes[0], shapes[min(1, len(shapes) - 1)]
    key = shapes[2] if len(shapes) > 2 else value
    asked, known = math.prod(query[:-1]), math.prod(key[:-1])
    heads, wide = config["num_heads"], config["key_dim"]
    deep = config.get("value_dim") or wide
    attended = _tuple(config.get("attention_axes") or tuple(range(1, len(query))), 1)
    apart = math.prod(side for axis, side in enumerate(query[:-1], 1) if axis not in attended)
    into = asked * query[-1] * wide + known * key[-1] * wide + known * value[-1] * deep
    pairs = asked * known // apart
    out = (*query[:-1], *_tuple(config.get("output_shape") or query[-1], 1))
    return 2 * heads * (into + pairs * (wide + deep) + deep * math.prod(out)) + 3 * heads * pairs, out


_PASSED_ON = ("Masking", "Identity")
_ACTIVATIONS = ("Activation", "ReLU", "LeakyReLU", "PReLU", "ELU", "Softmax")
_POOLINGS = ("MaxPooling1D", "MaxPooling2D", "AveragePooling1D", "AveragePooling2D")
_GLOBAL = ("GlobalAveragePooling1D", "GlobalAveragePooling2D", "GlobalMaxPooling1D", "GlobalMaxPooling2D")
_NORMALISATIONS = ("LayerNormalization", "GroupNormalization", "RMSNormalization", "UnitNormalization")

RULES: dict[str, Rule] = {
    "InputLayer": _input,
    **dict.fromkeys(_PASSED_ON, _each(0)),
    **dict.fromkeys(_ACTIVATIONS, _each(1)),
    **dict.fromkeys(("Rescaling", "Normalization"), _each(2)),
    **dict.fromkeys(_NORMALISATIONS, _each(7)),  # mean 1, variance 2, both applied 2, scale and offset 2
    **dict.fromkeys(("Add", "Subtract", "Multiply", "Average", "Maximum", "Minimum"), _merge),
    "Dot": _dot,
    "Concatenate": _concatenate,
    "Reshape": _reshape,
    "Flatten": _flatten,
    "Permute": _permute,
    "RepeatVector": _repeat,
    **dict.fromkeys(("ZeroPadding1D", "ZeroPadding2D"), _pad),
    **dict.fromkeys(("Cropping1D", "Cropping2D"), _crop),
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
    "MultiHeadAttention": _attention,
}


# --- Models that are not built yet ------------------------------------------------------------------------------------
def zoo(kind: str, sample: kinds.Sample, outputs: int) -> int:
    """What `of` says of `models.build` with a kind of model, the same sample and so many outputs, one of which is a number to be learnt;
    tests hold the two together. It is the same for any number of tokens. Raises Unknown for a kind that doesn't take such samples."""
    shape = sample.shape
    if not shape or min(shape) < 1 or math.prod(shape) > MOST_VALUES or (sample.tokens and len(shape) > 1):
        raise Unknown("No model takes samples of this shape.")
    kind = kinds.choose(sample) if kind == "auto" else kind
    try:
        kinds.check(kind, sample)
    except ModelRefused as error:
        raise Unknown(str(error)) from error
    put = _Sketch()
    rows = shape if sample.tokens else put("Rescaling", shape)
    logits = put("Dense", _ZOO[kind](put, rows, sample), units=outputs)
    put("Activation" if outputs > 1 else "Rescaling", logits)
    return PASSES * put.operations


class _Sketch:
    """Layers put to shapes, as the zoo puts them to values, and what they compute together."""

    operations = 0

    def __call__(self, name: str, *shapes: Shape, **config: Any) -> Shape:
        operations, shape = RULES[name](config, shapes)
        self.operations += operations
        return shape


_Body = Callable[[_Sketch, Shape, kinds.Sample], Shape]
_SAME = {"strides": 1, "padding": "same"}
_HALF = {"pool_size": 2, "strides": 2}


def _dense_body(*hidden: int) -> _Body:
    def body(put: _Sketch, values: Shape, sample: kinds.Sample) -> Shape:
        values = _bag(put, sample) if sample.tokens else put("Flatten", values)
        for units in hidden:
            values = put("Dense", values, units=units, activation="relu")
        return values

    return body


def _present(put: _Sketch, sample: kinds.Sample) -> Shape:
    return put("Reshape", put("ReLU", sample.shape), target_shape=(*sample.shape, 1))


def _embedded(put: _Sketch, values: Shape, sample: kinds.Sample) -> Shape:
    return put("Embedding", values, output_dim=kinds.EMBEDDING) if sample.tokens else values


def _sum(put: _Sketch, present: Shape, values: Shape) -> Shape:
    return put("LayerNormalization", put("Flatten", put("Dot", present, values, axes=1)))


def _bag(put: _Sketch, sample: kinds.Sample) -> Shape:
    return _sum(put, _present(put, sample), _embedded(put, sample.shape, sample))


def _resmlp(put: _Sketch, values: Shape, sample: kinds.Sample) -> Shape:
    values = put("Dense", values, units=kinds.WIDTH)
    for _ in range(kinds.BLOCKS):
        inside = put("LayerNormalization", values)
        inside = put("Dense", inside, units=2 * kinds.WIDTH, activation="relu")
        values = put("Add", values, put("Dense", inside, units=kinds.WIDTH))
    return put("ReLU", put("LayerNormalization", values))


def _with_channels(put: _Sketch, values: Shape) -> Shape:
    return put("Reshape", values, target_shape=(*values, 1)) if len(values) == 2 else values


def _cnn(put: _Sketch, values: Shape, sample: kinds.Sample) -> Shape:
    values = _with_channels(put, values)
    for filters in (32, 64):
        values = put("Conv2D", values, filters=filters, kernel_size=5, activation="relu", **_SAME)
        values = put("MaxPooling2D", values, padding="valid", **_HALF)
    return put("Dense", put("Flatten", values), units=512, activation="relu")


def _resnet(put: _Sketch, values: Shape, sample: kinds.Sample) -> Shape:
    values = put("Conv2D", _with_channels(put, values), filters=32, kernel_size=3, **_SAME)
    for filters, stride in ((32, 1), (64, 2), (128, 2)):
        values = _residual(put, values, filters, stride)
    return put("GlobalAveragePooling2D", put("ReLU", put("GroupNormalization", values)))


def _residual(put: _Sketch, values: Shape, filters: int, stride: int) -> Shape:
    inside = values
    for step in (stride, 1):
        inside = put("ReLU", put("GroupNormalization", inside))
        inside = put("Conv2D", inside, filters=filters, kernel_size=3, strides=step, padding="same")
    if stride > 1:
        values = put("Conv2D", values, filters=filters, kernel_size=1, strides=stride, padding="same")
    return put("Add", values, inside)


def _cnn1d(put: _Sketch, values: Shape, sample: kinds.Sample) -> Shape:
    values = _embedded(put, values, sample)
    for _ in range(2):
        values = put("Conv1D", values, filters=64, kernel_size=5, activation="relu", **_SAME)
        values = put("MaxPooling1D", values, padding="same", **_HALF)
    places = not sample.tokens and sample.shape[0] <= kinds.MOST_STEPS
    values = put("Flatten" if places else "GlobalMaxPooling1D", values)
    return put("Dense", values, units=128, activation="relu")


def _gru(put: _Sketch, values: Shape, sample: kinds.Sample) -> Shape:
    values = put("GRU", _embedded(put, values, sample), units=64)
    return put("Dense", values, units=64, activation="relu")


def _transformer(put: _Sketch, values: Shape, sample: kinds.Sample) -> Shape:
    present = _present(put, sample) if sample.tokens else ()
    values = _embedded(put, values, sample) if present else put("Dense", values, units=kinds.EMBEDDING)
    if present:
        values = put("Multiply", present, values)
    values = put("Add", values, put("Conv1D", values, filters=kinds.EMBEDDING, kernel_size=5, **_SAME))
    for _ in range(kinds.ATTENTIONS):
        values = _attended(put, values)
    return _sum(put, present, values) if present else put("GlobalAveragePooling1D", put("LayerNormalization", values))


def _attended(put: _Sketch, values: Shape) -> Shape:
    inside = put("LayerNormalization", values)
    heads = {"num_heads": kinds.HEADS, "key_dim": kinds.EMBEDDING // kinds.HEADS}
    values = put("Add", values, put("MultiHeadAttention", inside, inside, **heads))
    inside = put("Dense", put("LayerNormalization", values), units=kinds.INSIDE, activation="gelu")
    return put("Add", values, put("Dense", inside, units=kinds.EMBEDDING))


_ZOO: dict[str, _Body] = {
    "linear": _dense_body(),
    "mlp": _dense_body(200, 200),
    "resmlp": _resmlp,
    "cnn": _cnn,
    "resnet": _resnet,
    "cnn1d": _cnn1d,
    "gru": _gru,
    "transformer": _transformer,
}
