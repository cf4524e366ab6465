"""Operations are those that TensorFlow itself counts, and a model that is not built yet counts like the one that is."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dmlworker import flops, models


def profiled(model: Any) -> int:
    """What TensorFlow's profiler counts in the frozen graph of an answer to one sample."""
    import tensorflow as tf
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

    inputs = tf.TensorSpec((1, *model.input_shape[1:]), tf.float32)
    frozen = convert_variables_to_constants_v2(tf.function(lambda x: model(x)).get_concrete_function(inputs))
    options = tf.compat.v1.profiler.ProfileOptionBuilder(
        tf.compat.v1.profiler.ProfileOptionBuilder.float_operation()
    ).with_empty_output()
    with tf.Graph().as_default() as graph:
        tf.graph_util.import_graph_def(frozen.graph.as_graph_def(), name="")
        return tf.compat.v1.profiler.profile(graph, options=options.build()).total_float_ops


def chain(shape: tuple[int, ...], *layers: Any) -> Any:
    import keras

    return keras.Sequential([keras.layers.InputLayer(shape), *layers])


def test_the_2nn_and_the_cnn_are_what_tensorflow_counts():
    for kind, shape in (("mlp", (28, 28)), ("cnn", (28, 28)), ("cnn", (32, 32, 3))):
        model = models.build(shape, 10, kind)
        assert flops.forward(models.spec(model)) == pytest.approx(profiled(model), rel=0.02)


def test_the_2nn_by_hand():
    """784-200-200-10: products and sums; biases; ReLU and softmax; and the division by 255."""
    products = 784 * 200 + 200 * 200 + 200 * 10
    forward = 2 * products + 410 + 410 + 2 * 784
    assert flops.forward(models.spec(models.build((28, 28), 10, "mlp"))) == forward
    assert flops.of(models.spec(models.build((28, 28), 10, "mlp"))) == 3 * forward


def test_layers_are_what_tensorflow_counts():
    from keras import layers

    for model in (
        chain((40, 6), layers.Conv1D(16, 3, strides=2, activation="relu"), layers.Flatten(), layers.Dense(3)),
        chain((33, 31, 8), layers.SeparableConv2D(24, 3), layers.Flatten(), layers.Dense(3)),
        chain((33, 31, 8), layers.DepthwiseConv2D(3, padding="same", depth_multiplier=2), layers.Flatten(), layers.Dense(3)),
        chain((33, 31, 8), layers.Conv2D(24, (3, 5)), layers.GlobalAveragePooling2D(), layers.Dense(3)),
        chain((12, 8), layers.Dense(64), layers.Flatten(), layers.Dense(3)),
    ):  # fmt: skip
        assert flops.forward(models.spec(model)) == pytest.approx(profiled(model), rel=0.06)


def test_unrolled_recurrence_is_what_tensorflow_counts():
    from keras import layers

    for cell in (layers.GRU, layers.LSTM, layers.SimpleRNN):
        model = chain((20, 16), cell(64, unroll=True, return_sequences=True), layers.Flatten(), layers.Dense(3))
        assert flops.forward(models.spec(model)) == pytest.approx(profiled(model), rel=0.06)


def test_attention_and_what_joins_are_what_tensorflow_counts():
    """But for the products of activations with one another, which its profiler leaves out."""
    import keras
    from keras import layers

    rows = keras.Input((24, 32))
    attended = layers.Add()([rows, layers.MultiHeadAttention(4, 16)(rows, rows)])
    dense = layers.Dense(64, activation="relu")(attended)
    joined = layers.Concatenate()([dense, layers.Dense(64)(attended)])
    model = keras.Model(rows, layers.Dense(3)(layers.GlobalAveragePooling1D()(joined)))
    left_out = 2 * 2 * 4 * 24 * 24 * 16
    assert flops.forward(models.spec(model)) == pytest.approx(profiled(model) + left_out, rel=0.03)


def test_shapes_that_come_out_are_keras_own():
    import keras
    from keras import layers

    for shape, layer in (
        ((17, 5), layers.Conv1D(4, 3, strides=2, padding="same")),
        ((17, 5), layers.Conv1D(4, 3, padding="causal", dilation_rate=2)),
        ((17, 5), layers.SeparableConv1D(4, 3)),
        ((17, 5), layers.MaxPooling1D(3)),
        ((17, 5), layers.AveragePooling1D(2, padding="same")),
        ((17, 5), layers.ZeroPadding1D(2)),
        ((17, 5), layers.GlobalMaxPooling1D()),
        ((17, 5), layers.Bidirectional(layers.GRU(3, return_sequences=True))),
        ((17, 5), layers.TimeDistributed(layers.Dense(3))),
        ((17, 5), layers.LSTM(3)),
        ((17, 5), layers.Permute((2, 1))),
        ((17,), layers.RepeatVector(3)),
        ((17,), layers.Embedding(100, 8)),
        ((16, 15, 3), layers.ZeroPadding2D(((1, 2), (3, 4)))),
        ((16, 15, 3), layers.Conv2D(4, 3, strides=(2, 3))),
        ((16, 15, 3), layers.Conv2D(4, (3, 5), dilation_rate=2)),
        ((16, 15, 3), layers.GlobalAveragePooling2D(keepdims=True)),
        ((16, 15, 3), layers.Reshape((-1, 3))),
        ((16, 15, 3), layers.LayerNormalization()),
    ):
        config = keras.saving.serialize_keras_object(layer)
        assert flops._count(config, [shape])[1] == tuple(layer.compute_output_shape((None, *shape)))[1:], config


@pytest.mark.parametrize("shape", [(30,), (1,), (4, 4), (8, 9), (28, 28), (13, 14, 3), (7, 30, 1)])
def test_a_model_that_is_not_built_counts_like_the_one_that_is(shape):
    for kind in models.KINDS:
        try:
            built = flops.forward(models.spec(models.build(shape, 7, kind)))
        except models.ModelRefused:
            with pytest.raises(flops.Unknown):
                flops.zoo(kind, shape, 7)
        else:
            assert flops.forward(flops.zoo(kind, shape, 7)) == built


def test_every_layer_that_is_allowed_is_counted():
    assert models.LAYERS - flops.RULES.keys() == set()


@given(st.integers(1, 60), st.integers(1, 60), st.integers(1, 50), st.sampled_from(("linear", "mlp", "cnn")))
def test_a_larger_model_never_counts_less(height, width, outputs, kind):
    if kind == "cnn":
        height, width = height + 4, width + 4
    found = flops.of(flops.zoo(kind, (height, width), outputs))
    assert 0 < found < flops.of(flops.zoo(kind, (height, width), outputs + 1))
    assert found <= flops.of(flops.zoo(kind, (height + 1, width), outputs))


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ({"class_name": "Sequential", "config": {"layers": [{"class_name": "Lambda", "config": {}}]}}, "Lambda"),
        ({"class_name": "Sequential", "config": {"layers": [{"class_name": "Dense", "config": {}}]}}, "does not say"),
        ({"class_name": "Sequential", "config": 3}, "does not say"),
        ({}, "does not say"),
    ],
)
def test_what_is_not_known_is_no_number(spec, says):
    with pytest.raises(flops.Unknown, match=says):
        flops.of(spec)


@pytest.mark.parametrize("shape", [(), (0,), (28, -28), (10**6, 10**6)])
def test_no_model_takes_such_samples(shape):
    with pytest.raises(flops.Unknown, match="shape"):
        flops.zoo("mlp", shape, 10)
