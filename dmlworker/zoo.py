"""The platform's own models, from raw rows up to where classes or numbers are made of what they found.

Their sizes suit plain SGD at rates around 0.1, and data of 10^2 to 10^6 samples. No BatchNormalization: its statistics differ from shard to
shard (Hsieh et al. 2020, https://arxiv.org/abs/1910.00189, who take groups, too). Every layer has a name of its own choosing: Keras
would number them through the whole process. Keras is imported inside the functions.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

from dmlworker.loader import ModelRefused

KINDS = ("auto", "linear", "mlp", "cnn", "resmlp", "resnet", "cnn1d", "gru", "transformer")
OWN = "own"
"""What a customer's own model is called."""
EMBEDDING = 64
"""Numbers that a token becomes."""
WIDTH, BLOCKS = 128, 3
"""Of the residual MLP."""
HEADS, ATTENTIONS, INSIDE = 4, 2, 128
"""Of the transformer: heads, blocks, and the width within one."""
MOST_STEPS = 256
"""Of a series whose places are kept apart to the end."""
WIDTHS = (0.5, 2.0)
"""Times as wide as here a kind may be built, where one is searched for. Groups of 8 and heads stay whole."""


class Sample(NamedTuple):
    """What one sample is: numbers of this shape, or tokens from 0 to `tokens` - 1, where 0 is nothing. series: whether they are steps in time, which
    look like an image without colours."""

    shape: tuple[int, ...]
    tokens: int = 0
    series: bool = False

    @property
    def image(self) -> bool:
        return len(self.shape) > 1 and not self.tokens

    @property
    def sequence(self) -> bool:
        """Steps in an order. Images without colours look like one with a line a step, and may be taken for that."""
        return len(self.shape) == 2 or bool(self.tokens)


def choose(sample: Sample) -> str:
    """The kind for "auto"."""
    if sample.tokens or (sample.series and sample.sequence):
        return "cnn1d"
    return "cnn" if sample.image and min(sample.shape[:2]) >= 8 else "mlp"


def body(kind: str, sample: Sample, times: float = 1.0) -> list[Any] | Callable[[Any], Any]:
    """A chain of layers, or a graph: a function from symbolic rows. times: as wide as the sizes here say, 1 or one of WIDTHS; a linear model
    has no width. Raises ModelRefused where the kind doesn't fit the data. What each computes at its usual width, `flops` counts without Keras; tests
    hold the two together."""
    check(kind, sample)
    if kind in ("linear", "mlp"):
        hidden = _hidden(kind, times)
        return (
            (lambda rows: _after(_bag(rows, sample.tokens), hidden)) if sample.tokens else [*_flatten(sample), *hidden]
        )
    if kind in ("cnn", "cnn1d", "gru"):
        return {"cnn": _cnn, "cnn1d": _cnn1d, "gru": _gru}[kind](sample, times)
    graphs = {"resmlp": _resmlp, "resnet": _resnet, "transformer": _transformer}
    return lambda rows: graphs[kind](rows, sample, times)


def check(kind: str, sample: Sample) -> None:
    """Raises ModelRefused where the kind doesn't fit the data, or isn't one."""
    if kind not in KINDS[1:]:
        raise ModelRefused(f"There is no kind of model {kind!r:.40}. Choose one of {', '.join(KINDS)}.")
    if kind in ("cnn", "resnet"):
        least = 4 if kind == "cnn" else 8
        if not sample.image or min(sample.shape[:2]) < least:
            raise ModelRefused(f"A {_TITLES[kind]} needs images of at least {least} x {least} pixels.")
    if kind in ("cnn1d", "gru", "transformer") and not sample.sequence:
        raise ModelRefused(f"A {_TITLES[kind]} needs text, or a series of steps.")
    if kind == "resmlp" and (sample.tokens or len(sample.shape) > 1):
        raise ModelRefused("A residual MLP needs a table.")


_TITLES = {"cnn": "CNN", "resnet": "ResNet", "cnn1d": "1-D CNN", "gru": "GRU", "transformer": "transformer"}


def _after(values: Any, layers: list[Any]) -> Any:
    for layer in layers:
        values = layer(values)
    return values


# --- Chains -----------------------------------------------------------------------------------------------------------
def _flatten(sample: Sample) -> list[Any]:
    import keras

    return [keras.layers.Flatten(name="flatten")] if len(sample.shape) > 1 else []


def _hidden(kind: str, times: float) -> list[Any]:
    import keras

    sizes = {"linear": (), "mlp": (200, 200)}[kind]
    return [
        keras.layers.Dense(int(size * times), activation="relu", name=f"hidden_{n}") for n, size in enumerate(sizes, 1)
    ]


def _channels(sample: Sample) -> list[Any]:
    import keras

    return [keras.layers.Reshape((*sample.shape, 1), name="channels")] if len(sample.shape) == 2 else []


def _cnn(sample: Sample, times: float) -> list[Any]:
    from keras import layers

    convolutions = []
    for number, filters in enumerate((32, 64), 1):
        convolutions += [
            layers.Conv2D(int(filters * times), 5, padding="same", activation="relu", name=f"convolution_{number}"),
            layers.MaxPooling2D(2, name=f"pooling_{number}"),
        ]
    return [
        *_channels(sample),
        *convolutions,
        layers.Flatten(name="flatten"),
        layers.Dense(int(512 * times), activation="relu", name="hidden"),
    ]


def _embedding(tokens: int, size: int = EMBEDDING, **options: Any) -> Any:
    """Plain SGD hardly moves the rows of rare tokens: they begin far enough apart."""
    import keras

    start = keras.initializers.RandomUniform(-1.0, 1.0)
    return keras.layers.Embedding(tokens, size, embeddings_initializer=start, name="embedding", **options)


def _cnn1d(sample: Sample, times: float) -> list[Any]:
    """Kim 2014 (https://arxiv.org/abs/1408.5882) for text: the strongest match anywhere. In a short series its place counts, too."""
    from keras import layers

    first = [_embedding(sample.tokens)] if sample.tokens else []
    steps = sample.shape[0]
    together: Any = layers.GlobalMaxPooling1D(name="together")
    if not sample.tokens and steps <= MOST_STEPS:
        together = layers.Flatten(name="together")
    return [
        *first,
        layers.Conv1D(int(64 * times), 5, padding="same", activation="relu", name="convolution_1"),
        layers.MaxPooling1D(2, padding="same", name="pooling_1"),
        layers.Conv1D(int(64 * times), 5, padding="same", activation="relu", name="convolution_2"),
        layers.MaxPooling1D(2, padding="same", name="pooling_2"),
        together,
        layers.Dense(int(128 * times), activation="relu", name="hidden"),
    ]


def _gru(sample: Sample, times: float) -> list[Any]:
    """It passes over steps where there is no token."""
    from keras import layers

    first = [_embedding(sample.tokens, mask_zero=True)] if sample.tokens else []
    units = int(64 * times)
    return [*first, layers.GRU(units, name="recurrent"), layers.Dense(units, activation="relu", name="hidden")]


# --- Graphs -----------------------------------------------------------------------------------------------------------
def _present(rows: Any, steps: int) -> Any:
    """(steps, 1): 1 where there is a token, else 0."""
    from keras import layers

    return layers.Reshape((steps, 1), name="present")(layers.ReLU(max_value=1.0, name="up_to_one")(rows))


def _sum(present: Any, values: Any) -> Any:
    """Of the values (steps, d) where there is a token, brought to one length: (d,). Not a mean: of nothing there is none."""
    from keras import layers

    added = layers.Flatten(name="flatten")(layers.Dot(axes=1, name="sum")([present, values]))
    return layers.LayerNormalization(name="length")(added)


def _bag(rows: Any, tokens: int) -> Any:
    return _sum(_present(rows, rows.shape[1]), _embedding(tokens)(rows))


def _resmlp(rows: Any, sample: Sample, times: float) -> Any:
    """Gorishniy et al. 2021 (https://arxiv.org/abs/2106.11959), with LayerNormalization, and nothing that draws at random."""
    from keras import layers

    width = int(WIDTH * times)
    values = layers.Dense(width, name="width")(rows)
    for n in range(1, BLOCKS + 1):
        inside = layers.LayerNormalization(name=f"length_{n}")(values)
        inside = layers.Dense(2 * width, activation="relu", name=f"wide_{n}")(inside)
        values = layers.Add(name=f"block_{n}")([values, layers.Dense(width, name=f"narrow_{n}")(inside)])
    return layers.ReLU(name="last_relu")(layers.LayerNormalization(name="last_length")(values))


def _resnet(rows: Any, sample: Sample, times: float) -> Any:
    """After He et al. 2016 (https://arxiv.org/abs/1603.05027): three stages, each half as fine as the one before."""
    from keras import layers

    values = _after(rows, _channels(sample))
    values = layers.Conv2D(int(32 * times), 3, padding="same", name="first")(values)
    for n, filters in enumerate((32, 64, 128), 1):
        values = _residual(values, int(filters * times), 1 if n == 1 else 2, n)
    values = layers.ReLU(name="last_relu")(layers.GroupNormalization(8, name="last_groups")(values))
    return layers.GlobalAveragePooling2D(name="mean")(values)


def _residual(values: Any, filters: int, stride: int, n: int) -> Any:
    from keras import layers

    def convolution(values: Any, stride: int, part: str) -> Any:
        values = layers.GroupNormalization(8, name=f"groups_{n}{part}")(values)
        values = layers.ReLU(name=f"relu_{n}{part}")(values)
        return layers.Conv2D(filters, 3, stride, padding="same", name=f"convolution_{n}{part}")(values)

    inside = convolution(convolution(values, stride, "a"), 1, "b")
    if stride > 1:
        values = layers.Conv2D(filters, 1, stride, padding="same", name=f"shortcut_{n}")(values)
    return layers.Add(name=f"block_{n}")([values, inside])


def _transformer(rows: Any, sample: Sample, times: float) -> Any:
    """Blocks of attention, each after LayerNormalization (Xiong et al. 2020, https://arxiv.org/abs/2002.04745). A convolution tells
    them the order of steps (Chu et al. 2021, https://arxiv.org/abs/2102.10882)."""
    from keras import layers

    wide = int(EMBEDDING * times)
    present = _present(rows, sample.shape[0]) if sample.tokens else None
    first = _embedding(sample.tokens, wide) if sample.tokens else layers.Dense(wide, name="embedding")
    values = first(rows)
    if present is not None:
        values = layers.Multiply(name="only_present")([present, values])
    order = layers.Conv1D(wide, 5, padding="same", name="order")(values)
    values = layers.Add(name="ordered")([values, order])
    for n in range(1, ATTENTIONS + 1):
        values = _attention(values, wide, n)
    if present is not None:
        return _sum(present, values)
    return layers.GlobalAveragePooling1D(name="mean")(layers.LayerNormalization(name="length")(values))


def _attention(values: Any, wide: int, n: int) -> Any:
    from keras import layers

    inside = layers.LayerNormalization(name=f"attention_length_{n}")(values)
    heads = layers.MultiHeadAttention(HEADS, wide // HEADS, name=f"attention_{n}")(inside, inside)
    values = layers.Add(name=f"attended_{n}")([values, heads])
    inside = layers.LayerNormalization(name=f"dense_length_{n}")(values)
    inside = layers.Dense(INSIDE * wide // EMBEDDING, activation="gelu", name=f"wide_{n}")(inside)
    return layers.Add(name=f"block_{n}")([values, layers.Dense(wide, name=f"narrow_{n}")(inside)])
