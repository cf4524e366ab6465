"""From a configuration that nobody vouches for to a model, or to the reason why not. Keras is imported inside the functions.

A chain of layers (Keras `Sequential`) or a graph of them (`Functional`). Everything named in it is looked up on lists; calls are read
here, and made one by one: Keras never sees the configuration as a whole. What a model will need is counted before memory is set aside.
"""

import math
import re
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

if TYPE_CHECKING:
    import keras

T = TypeVar("T")

MAX_PARAMETERS = 50_000_000
MAX_ACTIVATIONS = 20_000_000
"""Values that the layers of a model may pass on for one sample, together."""
MAX_LAYERS = 300
MAX_ARGUMENTS = 10 * MAX_LAYERS
MAX_NUMBER = 2**31
"""Of anything in a configuration; seeds are the largest."""

_CHAINED = {
    "InputLayer", "Rescaling", "Normalization", "Reshape", "Flatten", "Permute", "RepeatVector", "Identity", "Masking",
    "Dense", "Embedding",
    "Conv1D", "Conv2D", "SeparableConv1D", "SeparableConv2D", "DepthwiseConv1D", "DepthwiseConv2D",
    "ZeroPadding1D", "ZeroPadding2D", "Cropping1D", "Cropping2D",
    "MaxPooling1D", "MaxPooling2D", "AveragePooling1D", "AveragePooling2D",
    "GlobalMaxPooling1D", "GlobalMaxPooling2D", "GlobalAveragePooling1D", "GlobalAveragePooling2D",
    "Activation", "ReLU", "LeakyReLU", "ELU", "PReLU", "Softmax",
    "LayerNormalization", "GroupNormalization", "RMSNormalization", "UnitNormalization",
    "Bidirectional",
}  # fmt: skip
_RECURRENT = {"SimpleRNN", "GRU", "LSTM"}
_MERGING = {"Add", "Subtract", "Multiply", "Average", "Maximum", "Minimum", "Concatenate", "Dot", "MultiHeadAttention"}
LAYERS = frozenset(_CHAINED | _RECURRENT | _MERGING)
"""Layers a configuration may name: deterministic, without state that training changes, and without code in their configuration."""
_INITIALIZERS = frozenset(
    {
        "GlorotUniform", "GlorotNormal", "HeUniform", "HeNormal", "LecunUniform", "LecunNormal", "Zeros", "Ones", "Constant",
        "RandomUniform", "RandomNormal", "TruncatedNormal", "VarianceScaling", "Orthogonal", "Identity",
    }
)  # fmt: skip
_ACTIVATIONS = frozenset(
    {
        "linear", "relu", "relu6", "leaky_relu", "elu", "selu", "gelu", "silu", "swish", "softplus", "softsign", "tanh",
        "sigmoid", "hard_sigmoid", "softmax",
    }
)  # fmt: skip
_MODULES = frozenset({"keras", "keras.layers", "keras.initializers", "builtins"})
_INPUT_TYPES = frozenset({"float32", "uint8", "uint16", "int16", "int32", "int64"})

_RANDOM = "draws at random while it trains, so that no replay could check the work. Leave it out."
_STATISTICS = (
    "keeps running statistics, which no audit can check and no average makes right. "
    "Use LayerNormalization or GroupNormalization."
)
_WORDS = "makes numbers of raw data. Leave it out: the platform does that, and puts it into the model that you get."
_PENALTY = "is a regularizer, and the loss has no such term here. Leave it out."
_LIMIT = "is a constraint on weights, and none is kept here. Leave it out."
_NESTED = "is a model within the model. Put its layers into the model itself."
_MASK = "is what a mask becomes in a graph of layers: masks (Masking, mask_zero) are taken in chains (Sequential) only."
_WHY = {
    **dict.fromkeys(("NotEqual", "Any"), _MASK),
    "Lambda": "holds code, which is never loaded. Say it in layers of Keras' own.",
    "BatchNormalization": _STATISTICS,
    "SpectralNormalization": _STATISTICS,
    **dict.fromkeys(("Sequential", "Functional", "Model"), _NESTED),
    **dict.fromkeys(("L1", "L2", "L1L2", "OrthogonalRegularizer", "ActivityRegularization"), _PENALTY),
    **dict.fromkeys(("MaxNorm", "MinMaxNorm", "NonNeg", "UnitNorm"), _LIMIT),
    **dict.fromkeys(("Discretization", "Hashing", "IntegerLookup", "StringLookup", "TextVectorization"), _WORDS),
}
"""Why what people use elsewhere is not taken here."""

_OFF = {
    "dropout": _RANDOM,
    "recurrent_dropout": _RANDOM,
    "stateful": "keeps its state from one batch to the next, which depends on their order.",
    "unroll": "must not be unrolled.",
    "return_state": "must give one output, without its state.",
    "sparse": "must take plain arrays.",
    "ragged": "must take plain arrays.",
    "optional": "must not be optional.",
    "quantization_config": "must not be quantized.",
    "lora_rank": "must be without LoRA.",
    "use_gate": "must be without a gate.",
    "sliding_window": "must be without a sliding window.",
}
"""Fields that must be empty, and why."""
_CALL_OPTIONS = frozenset({"value", "key", "use_causal_mask"})


class ModelRefused(ValueError):
    """A configuration that is not loaded; the text gives the reason."""


class _Call(NamedTuple):
    """A layer put to what other layers give: their names, with the number of the call; or lists of such for layers that merge."""

    layer: str
    arguments: list[Any]
    options: dict[str, Any]


class Plan(NamedTuple):
    """A configuration that was found to be harmless: each layer's own, by name, and the calls, in an order that works."""

    name: str
    chain: bool
    layers: dict[str, dict[str, Any]]
    calls: list[_Call]
    first: str
    last: str


def load(spec: dict[str, Any]) -> "keras.Model":
    """A model with fresh weights; whatever it ends in. Raises ModelRefused."""
    try:
        plan = _plan(spec)
        apart(lambda: _count(plan))
        return _made(plan)
    except ModelRefused:
        raise
    except Exception as error:  # Keras raises what it likes on a configuration that makes no sense.
        raise ModelRefused(f"Keras can't build the model: {error!s:.300}") from error


def apart(work: Callable[[], T]) -> T:
    """What `work` makes of layers whose variables get no values. In a thread of its own: Keras remembers such variables for each
    thread, and would give them their memory later."""
    import keras

    def scoped() -> T:
        with keras.StatelessScope(initialize_variables=False):
            return work()

    with ThreadPoolExecutor(1) as thread:
        return thread.submit(scoped).result()


# --- What is allowed --------------------------------------------------------------------------------------------------
def _plan(spec: dict[str, Any]) -> Plan:
    config, kind = spec.get("config"), spec.get("class_name")
    if kind not in ("Sequential", "Functional") or not isinstance(config, dict):
        raise ModelRefused("The model must be a chain or a graph of layers (Keras Sequential or Functional).")
    configs = config.get("layers")
    if not isinstance(configs, list) or not 2 <= len(configs) <= MAX_LAYERS:
        raise ModelRefused(f"The model must have 2 to {MAX_LAYERS} layers.")
    layers = {_name(layer): _clean(layer) for layer in configs}
    if len(layers) != len(configs):
        raise ModelRefused("Two layers have the same name.")
    inputs = [name for name, layer in layers.items() if layer["class_name"] == "InputLayer"]
    if len(inputs) != 1 or (kind == "Sequential" and inputs[0] != next(iter(layers))):
        raise ModelRefused(
            "The model must have one InputLayer, the first one, which says what shape goes in: keras.Input(shape)."
        )
    name = str(config.get("name", "model"))[:100]
    if kind == "Sequential":
        return Plan(name, True, layers, _in_turn(list(layers)), inputs[0], next(reversed(layers)))
    first, last = _only(config.get("input_layers"), "input"), _only(config.get("output_layers"), "output")
    if first != (inputs[0], 0):
        raise ModelRefused("The model's input must be its InputLayer.")
    calls = _ordered(_calls(configs), first)
    uses = [call for call in calls if last in _references([call.arguments, call.options])]
    if last[1] or sum(call.layer == last[0] for call in calls) != 1 or uses:
        raise ModelRefused("The last layer must be used once, and nothing may follow it.")
    return Plan(name, False, layers, calls, first[0], last[0])


def _name(layer: Any) -> str:
    name = layer["config"]["name"] if isinstance(layer, dict) else None
    if (
        not isinstance(name, str)
        or not re.fullmatch(r"[A-Za-z0-9_.\-]{1,100}", name)
        or layer.get("name", name) != name
    ):
        raise ModelRefused(f"A layer's name must be of letters, digits, _, . and -, and not {name!r:.60}.")
    return name


def _clean(layer: dict[str, Any]) -> dict[str, Any]:
    """The layer's configuration, after every object named anywhere inside it was found on the lists. What a layer was once built
    for is not asked; it is built here, for what really goes in."""
    if layer.get("class_name") not in LAYERS:
        raise _not_allowed(layer.get("class_name"))
    kept = {key: layer[key] for key in ("module", "class_name", "config", "registered_name") if key in layer}
    found: dict[str, Any] = _without_history(kept)
    _check(found, str(layer["config"]["name"]))
    return found


def _without_history(value: Any) -> Any:
    if isinstance(value, dict):
        gone = ("build_config", "shared_object_id")
        return {key: _without_history(item) for key, item in value.items() if key not in gone}
    return [_without_history(item) for item in value] if isinstance(value, list) else value


def _check(value: Any, where: str) -> None:
    if isinstance(value, dict):
        if "class_name" in value:
            _check_object(value, where)
        for key, item in value.items():
            _check_field(key, item, value, where)
            _check(item, where)
    elif isinstance(value, list):
        for item in value:
            _check(item, where)
    elif isinstance(value, int | float) and not (math.isfinite(value) and abs(value) <= MAX_NUMBER):
        raise ModelRefused(f"Layer {where}: {value!s:.20} is too large a number.")


def _check_object(value: dict[str, Any], where: str) -> None:
    name, config = value["class_name"], value.get("config")
    if name not in LAYERS | _INITIALIZERS | {"DTypePolicy"}:
        raise _not_allowed(name)
    if (value.get("module") or "keras") not in _MODULES or value.get("registered_name") not in (None, name):
        raise ModelRefused("Only Keras' own layers are allowed.")
    if not isinstance(config, dict):
        raise ModelRefused(f"Layer {where}: {name} has no configuration.")
    if name == "DTypePolicy" and config.get("name") != "float32":
        raise ModelRefused(f"Layer {where} must compute in float32.")
    if name == "Bidirectional":
        inner = [config.get("layer"), config.get("backward_layer")]
        if any(layer and (not isinstance(layer, dict) or layer.get("class_name") not in _RECURRENT) for layer in inner):
            raise ModelRefused(f"Layer {where}: Bidirectional goes around {', '.join(sorted(_RECURRENT))}.")
    if name == "Normalization" and (config.get("mean") is None or config.get("variance") is None):
        raise ModelRefused(
            f"Layer {where}: Normalization must have its mean and variance in its configuration. "
            "Leave it out: the platform puts one in front, with those of your data."
        )
    if name.startswith(("Conv", "SeparableConv")) and config.get("groups", 1) != 1:
        raise ModelRefused(f"Layer {where}: convolutions in groups are not taken. Use a depthwise one.")


def _not_allowed(name: object) -> ModelRefused:
    why = _WHY.get(str(name))
    if why is None and re.search("Dropout|Noise|Random|RandAugment|MixUp|CutMix", str(name)):
        why = _RANDOM
    return ModelRefused(f"{name!s:.60} {why}" if why else f"{name!s:.60} is not among the layers that are allowed.")


def _check_field(key: str, value: Any, config: dict[str, Any], where: str) -> None:
    if key in ("activation", "recurrent_activation") and value is not None and value not in _ACTIVATIONS:
        raise ModelRefused(f"Layer {where}: the activation {value!s:.60} is not among those allowed.")
    if key in _OFF and value not in (None, False, 0):
        raise ModelRefused(f"Layer {where}: {key}: it {_OFF[key]}")
    if key.endswith(("_regularizer", "_constraint")) and value is not None:
        kind = value.get("class_name") if isinstance(value, dict) else value
        raise ModelRefused(f"Layer {where}: {kind!s:.60} {_PENALTY if key.endswith('zer') else _LIMIT}")
    if key == "data_format" and value not in (None, "channels_last"):
        raise ModelRefused(f"Layer {where}: channels must come last.")
    if key == "dtype" and isinstance(value, str):
        allowed = _INPUT_TYPES if "batch_shape" in config else {"float32"}
        if value not in allowed:
            raise ModelRefused(f"Layer {where} must compute in float32.")
    if key.endswith("_initializer") and isinstance(value, str):
        raise ModelRefused(f"Layer {where}: write {key} out, as Keras 3 does when it saves a model.")


# --- Who is called with what ------------------------------------------------------------------------------------------
def _in_turn(names: list[str]) -> list[_Call]:
    return [_Call(name, [(before, 0)], {}) for before, name in zip(names, names[1:], strict=False)]


def _only(found: Any, what: str) -> tuple[str, int]:
    """The one reference: [name, call, 0], or that in a list."""
    if isinstance(found, list) and len(found) == 1:
        found = found[0]
    if not isinstance(found, list) or not all(isinstance(part, str | int) for part in found):
        raise ModelRefused(f"The model must have exactly one {what}.")
    return _reference(found)


def _reference(history: Any) -> tuple[str, int]:
    name, call, output = history
    if not isinstance(name, str) or not isinstance(call, int) or output != 0:
        raise ModelRefused("Each layer must give one output.")
    return name, call


def _calls(configs: list[dict[str, Any]]) -> list[_Call]:
    found = []
    for layer in configs:
        nodes = layer.get("inbound_nodes", [])
        if not all(isinstance(node, dict) and {"args", "kwargs"} <= set(node) for node in nodes):
            raise ModelRefused("The model was not saved by Keras 3. Load it there, and save it again.")
        if layer["class_name"] == "InputLayer":
            continue
        for node in nodes:
            options = {key: value for key, value in node["kwargs"].items() if value is not None and key != "training"}
            if not set(options) <= _CALL_OPTIONS:
                raise ModelRefused(
                    f"Layer {_name(layer)} is called with {', '.join(options)!s:.60}, which is not taken."
                )
            found.append(_Call(_name(layer), _resolved(node["args"]), _resolved(options)))
    if sum(1 for _ in _references([[call.arguments, call.options] for call in found])) > MAX_ARGUMENTS:
        raise ModelRefused(f"All layers together may be called with at most {MAX_ARGUMENTS:,} outputs of others.")
    if not len(configs) - 1 <= len(found) <= MAX_LAYERS:
        raise ModelRefused(f"Each layer must be used, and the model must have at most {MAX_LAYERS} calls.")
    return found


def _resolved(value: Any) -> Any:
    """With tensors replaced by references to the calls that they come from."""
    if isinstance(value, list):
        return [_resolved(item) for item in value]
    if isinstance(value, dict) and value.get("class_name") == "__keras_tensor__":
        return _reference(value["config"]["keras_history"])
    if isinstance(value, dict) and "class_name" not in value:
        return {key: _resolved(item) for key, item in value.items()}
    if isinstance(value, bool):
        return value
    raise ModelRefused("A layer is called with something that is no other layer's output.")


def _references(value: Any) -> Iterator[tuple[str, int]]:
    if isinstance(value, tuple):
        yield value
    elif isinstance(value, list | dict):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _references(item)


def _ordered(calls: list[_Call], first: tuple[str, int]) -> list[_Call]:
    """So that each one comes after those whose outputs it takes. A layer's own calls keep their order: they are numbered by it."""
    known, found, left, made = {first}, list[_Call](), calls, dict[str, int]()
    while left:
        later, held = [], set[str]()
        for call in left:
            if call.layer in held or not set(_references([call.arguments, call.options])) <= known:
                later.append(call)
                held.add(call.layer)
                continue
            known.add((call.layer, made.get(call.layer, 0)))
            made[call.layer] = made.get(call.layer, 0) + 1
            found.append(call)
        if len(later) == len(left):
            raise ModelRefused("Some layers are called with outputs that there never are.")
        left = later
    return found


# --- Layers and tensors -----------------------------------------------------------------------------------------------
def _made(plan: Plan) -> "keras.Model":
    import keras

    layers = _layers(plan)
    if plan.chain:
        return keras.Sequential(list(layers.values()), name=plan.name)
    outputs = {(plan.first, 0): layers[plan.first].output}
    for call, number in _numbered(plan.calls):
        outputs[call.layer, number] = layers[call.layer](
            *_given(call.arguments, outputs), **_given(call.options, outputs)
        )
    model = keras.Model(outputs[plan.first, 0], outputs[plan.last, 0], name=plan.name)
    if len(model.layers) != len(layers):
        raise ModelRefused("Some layers lead nowhere.")
    return model


def _layers(plan: Plan) -> dict[str, Any]:
    import keras

    return {name: keras.saving.deserialize_keras_object(config, safe_mode=True) for name, config in plan.layers.items()}


def _numbered(calls: list[_Call]) -> Iterator[tuple[_Call, int]]:
    made: dict[str, int] = {}
    for call in calls:
        yield call, made.get(call.layer, 0)
        made[call.layer] = made.get(call.layer, 0) + 1


def _given(value: Any, outputs: dict[tuple[str, int], Any]) -> Any:
    if isinstance(value, tuple):
        return outputs[value]
    if isinstance(value, dict):
        return {key: _given(item, outputs) for key, item in value.items()}
    return [_given(item, outputs) for item in value] if isinstance(value, list) else value


def _count(plan: Plan) -> None:
    """Follows the shapes through layers whose variables have no values yet; Dense(10^9) would fill the memory when it has."""
    import keras

    layers = _layers(plan)
    shape = tuple(layers[plan.first].batch_shape)
    if len(shape) < 2 or shape[0] is not None or not all(isinstance(side, int) and side > 0 for side in shape[1:]):
        raise ModelRefused("The shape that goes in must be whole numbers.")
    outputs = {(plan.first, 0): layers[plan.first].output}
    activations, counted = math.prod(shape[1:]), dict[str, int]()
    for call, number in _numbered(plan.calls):
        _check_size(sum(counted.values()), activations)
        arguments, options = _given(call.arguments, outputs), _given(call.options, outputs)
        activations += _inner(layers[call.layer], [*arguments, *options.values()])
        _check_size(0, activations)
        output = layers[call.layer](*arguments, **options)
        if not isinstance(output, keras.KerasTensor) or None in output.shape[1:]:
            raise ModelRefused(f"Layer {call.layer} must give one output of known shape.")
        counted[call.layer] = sum(math.prod(weight.shape) for weight in layers[call.layer].weights)
        activations += math.prod(output.shape[1:])
        outputs[call.layer, number] = output
    _check_size(sum(counted.values()), activations)


def _check_size(parameters: int, activations: int) -> None:
    if parameters > MAX_PARAMETERS:
        raise ModelRefused(f"The model is too large: {parameters:,} parameters; at most {MAX_PARAMETERS:,} are taken.")
    if activations > MAX_ACTIVATIONS:
        raise ModelRefused(
            f"The model is too large: its layers give {activations:,} values for a sample; at most {MAX_ACTIVATIONS:,} are taken."
        )


def _inner(layer: Any, arguments: list[Any]) -> int:
    """Values for one sample that a layer makes on its way, beside its output."""
    kind, shape = type(layer).__name__, getattr(arguments[0], "shape", (None, 0))
    if kind == "MultiHeadAttention":
        places = [math.prod(each.shape[1:-1]) for each in arguments if hasattr(each, "shape")]
        return int(layer.num_heads * (max(places) ** 2 + 3 * max(places) * (layer.key_dim or 1)))
    if kind in _RECURRENT:
        return int(shape[1] * layer.units * 4)
    if kind == "Bidirectional":
        return 2 * _inner(layer.forward_layer, arguments)
    if kind.startswith("SeparableConv"):
        return int(math.prod(shape[1:]) * layer.depth_multiplier)
    return 0
