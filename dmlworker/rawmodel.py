"""The model that a customer gets for a table with more than plain numbers: raw columns in, by name; class probabilities out.

What the platform's `Encoder` does is done again by layers of Keras' own, in front of the trained chain. No Lambda, no code of ours:
`keras.saving.load_model` opens it in safe mode. Text needs Keras' TensorFlow backend. Keras is imported inside the functions.
"""

from functools import reduce
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dmlworker.datasets import Encoder, dates
from dmlworker.datasets.encoding import Feature

if TYPE_CHECKING:
    import keras

_OTHERS = "\n"
"""StringLookup's name for values that it does not know. No cell of a table is that: they are stripped."""
_DIGITS = [str(digit) for digit in range(10)]
_COUNT = dates.HOUR_AT + 2
"""Characters of a date that count."""
_TO_EPOCH = 719468
"""Days from 1 March of the year 0 to 1970."""


def of(core: "keras.Model", encoder: Encoder) -> "keras.Model":
    """`core` with raw columns as inputs, each (n,) or (n, 1), or (n, steps) of windows: float32 with NaN, or text with "" for what is missing."""
    import keras

    features, steps = encoder.features, encoder.steps or 1
    inputs = {
        name: keras.Input((steps,), name=name, dtype=_dtype(each))
        for name, each in zip(encoder.inputs, features, strict=True)
    }
    # A model of its own, so that no name of a column can be that of a layer.
    inner = [keras.Input((steps,), name=f"column_{n}", dtype=_dtype(each)) for n, each in enumerate(features)]
    # Each row of a window for itself, and together again.
    rows = [keras.ops.reshape(column, (-1, 1)) for column in inner] if encoder.steps else inner
    parts = _encode(features, rows)
    encoded = keras.ops.concatenate(parts, axis=1) if len(parts) > 1 else parts[0]
    if encoder.steps:
        encoded = keras.ops.reshape(encoded, (-1, steps, encoded.shape[1]))
    preprocessing = keras.Model(inner, encoded, name="preprocessing")
    return keras.Model(inputs, core(preprocessing(list(inputs.values()))), name="raw")


def is_raw(model: "keras.Model") -> bool:
    """Whether it was made by `of`."""
    return model.name == "raw"


def core_of(model: "keras.Model") -> "keras.Model":
    """What was trained, behind the encoding: numbers in. The model itself if there is no encoding."""
    return model.layers[-1] if is_raw(model) else model


def load_weights(core: "keras.Model", path: Path) -> None:
    """The core's weights out of an exported model, of either form. Raises as Keras' load_weights."""
    import keras

    try:
        core.load_weights(path)
    except ValueError:
        # In the file, the core lies below a model: so it does in this one.
        rows = keras.Input(core.input_shape[1:])
        keras.Model(rows, core(rows)).load_weights(path)


def _dtype(feature: Feature) -> str:
    return "float32" if feature.kind == "number" else "string"


def _encode(features: tuple[Feature, ...], columns: list[Any]) -> list[Any]:
    kinds = {"number": _number, "category": _category, "date": _date, "text": _words, "tokens": _words}
    return [part for each, column in zip(features, columns, strict=True) for part in kinds[each.kind](each, column)]


def _number(feature: Feature, column: Any) -> list[Any]:
    from keras import ops

    return _filled(feature, ops.isnan(column), [column], [feature.fill])


def _filled(feature: Feature, gone: Any, parts: list[Any], fill: list[float]) -> list[Any]:
    from keras import ops

    mark = [ops.cast(gone, "float32")] if feature.missing else []
    return [ops.where(gone, value, part) for part, value in zip(parts, fill, strict=True)] + mark


def _category(feature: Feature, column: Any) -> list[Any]:
    import keras

    lookup = keras.layers.StringLookup(
        vocabulary=list(feature.vocabulary), num_oov_indices=1, oov_token=_OTHERS, output_mode="one_hot"
    )
    return [lookup(column)]


def _words(feature: Feature, column: Any) -> list[Any]:
    """`text.Vocabulary`."""
    import keras

    words = keras.layers.TextVectorization(
        standardize="lower_and_strip_punctuation",
        split=feature.split,
        output_mode="int" if feature.length else "multi_hot",
        output_sequence_length=feature.length or None,
        vocabulary=list(feature.values),
    )(column)
    # Of marks, Keras expects a shape that they do not have.
    return [words if feature.length else keras.ops.reshape(words, (-1, 1 + len(feature.values)))]


def _date(feature: Feature, column: Any) -> list[Any]:
    """`dates.parts`, from the characters."""
    import keras
    from keras import ops

    characters = keras.layers.TextVectorization(
        standardize=None, split="character", output_sequence_length=_COUNT, vocabulary=_DIGITS
    )(column)
    # Indices: 0 where the text has ended, 1 for what is no digit, then the digits.
    digits = ops.maximum(ops.cast(characters, "float32") - 2.0, 0.0)

    def read(first: int, length: int) -> Any:
        return reduce(lambda number, at: 10.0 * number + digits[:, at : at + 1], range(first, first + length), 0.0)

    year, month, day = (read(feature.form.index(part), len(part)) for part in ("YYYY", "MM", "DD"))
    today, new_year = _days(year, month, day), _days(year, 0.0 * month + 1.0, 1.0)
    angle = (today - new_year) * (2 * np.pi / dates.DAYS)
    weekday = ops.mod(today + 3.0, 7.0)
    parts = [year, month, weekday, ops.sin(angle), ops.cos(angle), read(dates.HOUR_AT, 2)][: feature.parts]
    fill = dates.parts(np.array([feature.fill]))[0].tolist()[: feature.parts]
    return _filled(feature, ops.equal(characters[:, :1], 0), parts, fill)


def _days(year: Any, month: Any, day: Any) -> Any:
    """Days since 1970, all in whole float32; after Howard Hinnant's days_from_civil, whose years begin in March."""
    from keras import ops

    early = ops.cast(ops.less(month, 2.5), "float32")
    year = year - early
    century = ops.floor(year / 100.0)
    since_march = ops.floor((153.0 * (month - 3.0 + 12.0 * early) + 2.0) / 5.0) + day - 1.0
    return 365.0 * year + ops.floor(year / 4.0) - century + ops.floor(century / 4.0) + since_march - _TO_EPOCH
