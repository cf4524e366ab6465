"""Every layer that a model may have is trained: what is on the list can be computed, and is the same the second time."""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers

from dmlworker import models, trainer
from dmlworker.loader import LAYERS

Y = np.arange(10, dtype=np.int32) % 3
SHAPES: dict[str, tuple[int, ...]] = {"table": (6,), "steps": (8, 4), "image": (8, 8, 3)}
FLAT: dict[str, Callable[[], Any]] = {
    "Rescaling": lambda: layers.Rescaling(0.5, 1.0),
    "Normalization": lambda: layers.Normalization(mean=[0.0] * 6, variance=[1.0] * 6),
    "RepeatVector": lambda: layers.RepeatVector(2),
    "Identity": layers.Identity,
    "Dense": lambda: layers.Dense(4, "gelu"),
    **{name: getattr(layers, name) for name in ("ReLU", "LeakyReLU", "ELU", "PReLU", "Softmax", "UnitNormalization")},
    "Activation": lambda: layers.Activation("silu"),
}
STEPS: dict[str, Callable[[], Any]] = {
    "Reshape": lambda: layers.Reshape((4, 8)),
    "Flatten": layers.Flatten,
    "Permute": lambda: layers.Permute((2, 1)),
    "Masking": layers.Masking,
    "Conv1D": lambda: layers.Conv1D(4, 3, 2),
    "SeparableConv1D": lambda: layers.SeparableConv1D(4, 3),
    "DepthwiseConv1D": lambda: layers.DepthwiseConv1D(3),
    "ZeroPadding1D": lambda: layers.ZeroPadding1D(1),
    "Cropping1D": lambda: layers.Cropping1D(1),
    "MaxPooling1D": layers.MaxPooling1D,
    "AveragePooling1D": lambda: layers.AveragePooling1D(2),
    "GlobalMaxPooling1D": layers.GlobalMaxPooling1D,
    "GlobalAveragePooling1D": layers.GlobalAveragePooling1D,
    "SimpleRNN": lambda: layers.SimpleRNN(4),
    "GRU": lambda: layers.GRU(4, return_sequences=True),
    "LSTM": lambda: layers.LSTM(4),
    "Bidirectional": lambda: layers.Bidirectional(layers.LSTM(4, return_sequences=True)),
    "LayerNormalization": layers.LayerNormalization,
    "RMSNormalization": layers.RMSNormalization,
}
IMAGES: dict[str, Callable[[], Any]] = {
    "Conv2D": lambda: layers.Conv2D(4, 3, dilation_rate=2),
    "SeparableConv2D": lambda: layers.SeparableConv2D(4, 3),
    "DepthwiseConv2D": lambda: layers.DepthwiseConv2D(3, 2, padding="same"),
    "ZeroPadding2D": lambda: layers.ZeroPadding2D(1),
    "Cropping2D": lambda: layers.Cropping2D(1),
    "MaxPooling2D": layers.MaxPooling2D,
    "AveragePooling2D": lambda: layers.AveragePooling2D(2),
    "GlobalMaxPooling2D": layers.GlobalMaxPooling2D,
    "GlobalAveragePooling2D": layers.GlobalAveragePooling2D,
    "GroupNormalization": lambda: layers.GroupNormalization(3),
}
MERGING = ["Add", "Subtract", "Multiply", "Average", "Maximum", "Minimum", "Concatenate", "Dot", "MultiHeadAttention"]
CASES = [
    (of, name, make) for of, made in zip(SHAPES, (FLAT, STEPS, IMAGES), strict=True) for name, make in made.items()
]


def trained(shape: tuple[int, ...], body: Callable[[Any], Any], rows: np.ndarray | None = None) -> None:
    """A graph with `body` between layers that learn, out and back through its spec, twice."""
    x = np.random.default_rng(0).normal(size=(10, *shape)).astype(np.float32) if rows is None else rows
    first = keras.Input(shape)
    values = body(layers.Dense(shape[-1])(first) if rows is None else first)
    last = layers.Dense(3)(layers.Flatten()(values) if len(values.shape) > 2 else values)
    spec = models.spec(models.from_spec(models.spec(keras.Model(first, layers.Activation("softmax")(last)))))
    start = trainer.initial_weights(spec, 1)
    ends = []
    for _ in range(2):
        ends.append(trainer.pack(trainer.train(spec, start, x, Y, trainer.Hyper(2, 4, 0.1, 3))))
        trainer._program.cache_clear()
    assert ends[0] == ends[1] != trainer.pack(start)


@pytest.mark.parametrize(("of", "name", "make"), CASES, ids=[name for _, name, _ in CASES])
def test_a_layer_is_trained(of: str, name: str, make: Callable[[], Any]) -> None:
    trained(SHAPES[of], lambda values: make()(values))


@pytest.mark.parametrize("name", MERGING)
def test_a_layer_that_merges_is_trained(name: str) -> None:
    options = {"Dot": {"axes": 2}, "MultiHeadAttention": {"num_heads": 2, "key_dim": 3}}.get(name, {})

    def body(values: Any) -> Any:
        other = layers.Dense(4)(values)
        layer = getattr(layers, name)(**options)
        return (
            layer(values, value=other, use_causal_mask=True) if name == "MultiHeadAttention" else layer([values, other])
        )

    trained((8, 4), body)


ROWS = (
    np.random.default_rng(0).integers(0, 9, (10, 8)).astype(np.uint16) * (np.arange(10) > 0).astype(np.uint16)[:, None]
)


def test_an_embedding_is_trained() -> None:
    trained((8,), lambda values: layers.LSTM(4)(layers.Embedding(9, 4)(values)), ROWS)


def test_masks_are_taken_in_chains_only() -> None:
    masked = [layers.Embedding(9, 4, mask_zero=True), layers.LSTM(4), layers.Dense(3), layers.Activation("softmax")]
    spec = models.spec(models.from_spec(models.spec(keras.Sequential([keras.Input((8,)), *masked]))))
    start = trainer.initial_weights(spec, 1)
    end = trainer.train(spec, start, ROWS, Y, trainer.Hyper(2, 4, 0.1, 3))
    assert all((a != b).any() for a, b in zip(start, end, strict=True))
    with pytest.raises(models.ModelRefused, match="masks .* are taken in chains"):
        trained((8,), lambda values: layers.LSTM(4)(layers.Embedding(9, 4, mask_zero=True)(values)), ROWS)


def test_no_layer_is_left_out() -> None:
    assert {"InputLayer", "Embedding", *MERGING, *(name for _, name, _ in CASES)} == LAYERS
