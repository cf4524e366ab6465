"""Models from shapes, and the loader that trusts no configuration."""

import copy
import json
from typing import Any

import numpy as np
import pytest

from dmlworker import models, trainer
from dmlworker.models import ModelRefused


def mlp() -> dict[str, Any]:
    return models.spec(models.build((4,), 3, "mlp", models.Statistics([0.0] * 4, [1.0] * 4)))


@pytest.mark.parametrize(
    ("shape", "name"), [((30,), "mlp"), ((28, 28), "cnn"), ((8, 8), "cnn"), ((32, 20, 3), "cnn"), ((7, 9), "mlp")]
)
def test_auto_chooses_by_shape(shape: tuple[int, ...], name: str) -> None:
    model = models.build(shape, 5)
    assert model.name == name
    assert model(np.zeros((2, *shape))).shape == (2, 5)


def test_the_cnn_for_mnist_is_mcmahans() -> None:
    assert models.build((28, 28), 10).count_params() == 1_663_370


SAMPLES: dict[str, tuple[tuple[int, ...], int]] = {"table": ((9,), 0), "image": ((12, 12, 3), 0), "text": ((12,), 50)}
SAMPLES |= {"series": ((12, 3), 0), "long series": ((600, 2), 0), "gray image": ((12, 12), 0)}
FITTING = {
    "table": ["linear", "mlp", "resmlp"],
    "image": ["linear", "mlp", "cnn", "resnet"],
    "gray image": ["linear", "mlp", "cnn", "resnet", "cnn1d", "gru", "transformer"],
    "series": ["linear", "mlp", "cnn1d", "gru", "transformer"],
    "long series": ["cnn1d", "gru", "transformer"],
    "text": ["linear", "mlp", "cnn1d", "gru", "transformer"],
}
CASES = [(of, kind) for of, kinds in FITTING.items() for kind in kinds]


@pytest.mark.parametrize(("of", "kind"), CASES)
def test_every_kind_goes_through_its_spec_unchanged(of: str, kind: str) -> None:
    shape, tokens = SAMPLES[of]
    spec = models.spec(models.build(shape, 4, kind, tokens=tokens))
    data = models.spec_bytes(spec)
    assert models.spec_bytes(models.spec(models.from_spec(models.spec_from_bytes(data)))) == data


@pytest.mark.parametrize(("of", "kind"), CASES)
def test_every_kind_but_the_linear_one_is_built_narrower_and_wider(of: str, kind: str) -> None:
    shape, tokens = SAMPLES[of]
    half, usual, double = (
        models.build(shape, 4, kind, tokens=tokens, times=times).count_params() for times in (0.5, 1.0, 2.0)
    )
    assert half < usual < double if kind != "linear" else half == usual == double


def test_equal_models_have_equal_specs() -> None:
    assert mlp() == mlp()


def test_tables_are_normalised_inside_the_model() -> None:
    x = np.array([[1, 1000, 5], [3, 3000, 5]], dtype=np.float32)
    model = models.build((3,), 2, "linear", models.statistics(x))
    np.testing.assert_allclose(model.layers[0](x), [[-1, -1, 0], [1, 1, 0]], atol=1e-6)


def test_a_constant_column_with_rounding_is_not_blown_up() -> None:
    x = np.full((1000, 1), 0.1, dtype=np.float32)
    statistics = models.statistics(x)
    assert statistics is not None
    assert statistics.variance == [1.0]


def test_float_images_are_normalised_by_one_number() -> None:
    x = np.random.default_rng(0).normal(5, 2, (50, 9, 9)).astype(np.float32)
    out = models.build((9, 9), 2, "auto", models.statistics(x)).layers[0](x)
    assert abs(float(np.mean(out))) < 1e-3
    assert abs(float(np.std(out)) - 1) < 1e-3


def test_initial_weights_follow_the_seed_and_nothing_else() -> None:
    first, again, other = (trainer.initial_weights(mlp(), seed) for seed in (1, 1, 2))
    assert all((a == b).all() for a, b in zip(first, again, strict=True))
    assert (first[0] != other[0]).any()
    assert not first[1].any()


def changed(**layer: Any) -> dict[str, Any]:
    spec = copy.deepcopy(mlp())
    spec["config"]["layers"].insert(2, layer)
    return spec


def with_dense(**config: Any) -> dict[str, Any]:
    spec = copy.deepcopy(mlp())
    spec["config"]["layers"][2]["config"].update(config)
    return spec


def without_softmax() -> dict[str, Any]:
    spec = mlp()
    spec["config"]["layers"].pop()
    return spec


LAMBDA = {"class_name": "Lambda", "module": "keras.layers", "config": {"function": "x"}, "registered_name": None}
OTHERS = {
    "a lambda": changed(**LAMBDA),
    "a layer of someone's own": changed(class_name="Mine", module="evil", config={}, registered_name="evil>Mine"),
    "a foreign module": changed(class_name="Dense", module="os", config={"units": 2}, registered_name=None),
    "a foreign name": changed(
        class_name="Dense", module="keras.layers", config={"units": 2}, registered_name="a>Dense"
    ),
    "something hidden in a field": with_dense(kernel_initializer=LAMBDA),
    "a function by name": with_dense(activation="os.system"),
    "state of its own": changed(class_name="BatchNormalization", module="keras.layers", config={}),
    "a huge layer": with_dense(units=10**9),
    "nonsense": with_dense(units=-1),
    "no softmax": without_softmax(),
    "another class": mlp() | {"class_name": "Functional"},
    "no class": mlp() | {"class_name": "Model"},
    "no layers": mlp() | {"config": {}},
    "empty": {},
}


GRAPH = models.spec(models.build((6, 4), 3, "transformer", models.Statistics([0.0], [1.0])))


def graph() -> dict[str, Any]:
    return copy.deepcopy(GRAPH)


def layer(spec: dict[str, Any], name: str) -> dict[str, Any]:
    return next(found for found in spec["config"]["layers"] if found["config"]["name"] == name)


def rewired(name: str, *source: Any, **options: Any) -> dict[str, Any]:
    """`name` is called with what `source` gives: [layer, call, output]."""
    spec = graph()
    node = layer(spec, name)["inbound_nodes"][0]
    if source:
        node["args"][0]["config"]["keras_history"] = list(source)
    node["kwargs"].update(options)
    return spec


def rewired_with_many() -> dict[str, Any]:
    spec = graph()
    layer(spec, "ordered")["inbound_nodes"][0]["args"] = [[tensor("order")] * 4000]
    return spec


def set_in(where: str, **config: Any) -> dict[str, Any]:
    spec = graph()
    layer(spec, where)["config"].update(config)
    return spec


def with_graph(**config: Any) -> dict[str, Any]:
    spec = graph()
    spec["config"].update(config)
    return spec


def more(**added: Any) -> dict[str, Any]:
    """A graph with one more layer, between the mean and the logits."""
    spec = rewired("logits", "more", 0, 0)
    node = {"args": [tensor("mean")], "kwargs": {}}
    new = {"module": "keras.layers", "config": {"name": "more"}, "name": "more", "inbound_nodes": [node]}
    spec["config"]["layers"].insert(-2, new | added)
    return spec


def tensor(name: str) -> dict[str, Any]:
    config = {"shape": [None, 64], "dtype": "float32", "keras_history": [name, 0, 0]}
    return {"class_name": "__keras_tensor__", "config": config}


def chained(*layers: Any) -> dict[str, Any]:
    import keras

    last = [keras.layers.Dense(3, name="logits"), keras.layers.Activation("softmax", name="probabilities")]
    return models.spec(keras.Sequential([keras.Input((8, 4)), *layers, keras.layers.Flatten(), *last]))


def later(spec: dict[str, Any], name: str, **config: Any) -> dict[str, Any]:
    """A spec with something in it that Keras itself would have to set memory aside for."""
    found = layer(spec, name)["config"]
    assert set(config) <= set(found)
    found.update(config)
    return spec


def keras_layers() -> dict[str, dict[str, Any]]:
    from keras import layers

    recurrent = layers.GRU(3, return_sequences=True, name="it")
    around = layers.Bidirectional(layers.LSTM(3, return_sequences=True, name="in"), name="it")
    cell = {"module": "keras.layers", "class_name": "GRUCell", "config": {"units": 3}, "registered_name": None}
    two = json.loads(json.dumps(chained(around)))
    layer(two, "it")["config"]["layer"] = LAMBDA
    return {
        "a state that lasts": later(chained(recurrent), "it", stateful=True),
        "a state that comes out": later(chained(recurrent), "it", return_state=True),
        "dropout within": later(chained(recurrent), "it", recurrent_dropout=0.1),
        "a cell of one's own": changed(class_name="RNN", module="keras.layers", config={"name": "it", "cell": cell}),
        "a lambda, both ways": two,
        "an endless series": later(chained(layers.ZeroPadding1D(1, name="it")), "it", padding=[0, 10**8]),
        "a wide convolution": later(chained(layers.Conv1D(4, 1, name="it")), "it", filters=10**8),
        "a regularizer": later(chained(layers.Dense(3, name="it")), "it", kernel_regularizer={"class_name": "L2"}),
        "half the bits": later(chained(layers.Dense(3, name="it")), "it", dtype="mixed_float16"),
        "half the bits, as an object": later(
            chained(layers.Dense(3, name="it")),
            "it",
            dtype={"module": "keras", "class_name": "DTypePolicy", "config": {"name": "float16"}},
        ),
        "channels first": later(chained(layers.Conv1D(4, 1, name="it")), "it", data_format="channels_first"),
        "no number": later(chained(layers.LeakyReLU(name="it")), "it", negative_slope=float("nan")),
        "statistics that are not there": changed(
            class_name="Normalization", module="keras.layers", config={"name": "n", "mean": None, "variance": None}
        ),
    }


OTHERS |= keras_layers() | {
    "an input that is another": with_graph(input_layers=["mean", 0, 0]),
    "two inputs": with_graph(input_layers=[["rows", 0, 0], ["rows", 0, 0]]),
    "two outputs": with_graph(output_layers=[["probabilities", 0, 0], ["logits", 0, 0]]),
    "outputs by name": with_graph(output_layers={"a": ["probabilities", 0, 0]}),
    "an output from the middle": with_graph(output_layers=["logits", 0, 0]),
    "no output": with_graph(output_layers=None),
    "a circle": rewired("embedding", "mean", 0, 0),
    "a layer that is not there": rewired("mean", "nowhere", 0, 0),
    "a call that never was": rewired("mean", "length", 7, 0),
    "a second output": rewired("mean", "length", 0, 1),
    "no output at all": rewired("mean", "length", 0, []),
    "an argument of someone's own": rewired("mean", attention=True),
    "code as an argument": rewired("attention_1", value=LAMBDA),
    "a path as an argument": rewired("attention_1", value="/etc/passwd"),
    "scores beside": rewired("attention_1", return_attention_scores=True),
    "huge heads": set_in("attention_1", key_dim=10**8),
    "many heads": set_in("attention_1", num_heads=10**6),
    "dropout in attention": set_in("attention_1", dropout=0.1),
    "a name with a way out": set_in("mean", name="../mean"),
    "a shared name": set_in("mean", name="length"),
    "a lambda in the graph": more(**LAMBDA | {"config": {"name": "more"}}),
    "a model in the graph": more(class_name="Sequential", module="keras", config=mlp()["config"] | {"name": "more"}),
    "a layer of someone's own in the graph": more(class_name="Dense", module="mine.layers"),
    "a wrapper of Keras' that loads by name": more(class_name="TFSMLayer", config={"name": "more", "filepath": "/x"}),
    "the last layer in use": rewired("mean", "probabilities", 0, 0),
    "a layer called with very much": rewired_with_many(),
    "a bidirectional of nothing": more(class_name="Bidirectional", config={"name": "more", "layer": "GRU"}),
    "configuration of text": {"class_name": "Sequential", "config": "x"},
    "layers of one": with_graph(layers=graph()["config"]["layers"][:1]),
    "layers of text": with_graph(layers="abc"),
    "deep": with_graph(layers=[json.loads('{"a":' * 500 + "1" + "}" * 500)] * 3),
    "Keras 2's": with_graph(
        layers=[each | {"inbound_nodes": [[["rows", 0, 0, {}]]]} for each in graph()["config"]["layers"]]
    ),
}


@pytest.mark.parametrize("what", OTHERS)
def test_specs_nobody_should_load_are_refused(what: str) -> None:
    with pytest.raises(ModelRefused):
        models.from_spec(OTHERS[what])


REASONS = {
    "BatchNormalization": "LayerNormalization or GroupNormalization",
    "Dropout": "draws at random",
    "SpatialDropout1D": "draws at random",
    "GaussianNoise": "draws at random",
    "RandomFlip": "draws at random",
    "Lambda": "holds code",
    "Sequential": "Put its layers into the model itself",
    "TextVectorization": "the platform does that",
}


@pytest.mark.parametrize("name", REASONS)
def test_what_is_used_elsewhere_is_refused_with_a_reason(name: str) -> None:
    with pytest.raises(ModelRefused, match=REASONS[name]):
        models.from_spec(more(class_name=name))


def test_what_was_counted_is_given_no_memory_later() -> None:
    import keras

    for what in ("a huge layer", "huge heads", "an endless series"):
        with pytest.raises(ModelRefused, match="too large"):
            models.from_spec(OTHERS[what])
    with keras.StatelessScope():  # at whose end Keras gives variables their values, those of 400 GB among them
        pass


def test_attention_over_many_steps_is_too_large() -> None:
    with pytest.raises(ModelRefused, match="too large"):
        models.build((5000, 2), 2, "transformer")


def test_a_graph_with_a_shared_layer_and_many_ways_is_taken() -> None:
    import keras
    from keras import layers

    rows = keras.Input((8, 4), name="rows", dtype="int32")
    shared = layers.Dense(4, name="shared")
    one, two = shared(rows), shared(layers.Identity(name="same")(rows))
    both = layers.Concatenate(name="both")([one, layers.Multiply(name="times")([one, two])])
    there = layers.Bidirectional(layers.GRU(3, name="gru"), name="ways")(both)
    out = layers.Activation("softmax", name="out")(layers.Dense(3, name="logits")(there))
    model = keras.Model([rows], [out])
    again = models.from_spec(models.spec(model))
    again.set_weights(model.get_weights())
    x = np.arange(64, dtype=np.float32).reshape(2, 8, 4)
    np.testing.assert_array_equal(
        np.asarray(again(x)), np.asarray(model(x))[0] if isinstance(model(x), list) else np.asarray(model(x))
    )
    spec = models.spec(again)
    assert models.spec(models.from_spec(spec)) == spec
    assert again.input_shape == (None, 8, 4)
    assert np.asarray(models.before_last(again)(x)).shape == (2, 3)


@pytest.mark.parametrize("data", [b"", b"[]", b"null", b"\x80", b"[" * 100_000])
def test_bytes_that_are_no_spec_are_refused(data: bytes) -> None:
    with pytest.raises(ModelRefused):
        models.spec_from_bytes(data)


def test_unknown_kinds_and_those_that_do_not_fit_are_refused() -> None:
    named = [(shape, tokens, kind) for shape, tokens in SAMPLES.values() for kind in (*models.KINDS[1:], "forest")]
    fitting = [(*SAMPLES[of], kind) for of, kind in CASES]
    fitting += [((600, 2), 0, kind) for kind in ("linear", "mlp")]
    refused = [case for case in named if case not in fitting]
    assert ((9,), 0, "cnn") in refused
    assert ((12,), 50, "resmlp") in refused
    for shape, tokens, kind in refused:
        with pytest.raises(ModelRefused):
            models.build(shape, 2, kind, tokens=tokens)


@pytest.mark.parametrize("outputs", [2, 3])
def test_the_last_layer_tells_the_task(outputs: int) -> None:
    table = models.Statistics([0.0] * 9, [1.0] * 9)
    for kind in FITTING["table"]:
        labels = models.build((9,), outputs, kind, table, task="multilabel")
        assert models.task(models.spec(labels)) == "multilabel"
        number = models.build((9,), 1, kind, table, task="regression", target=(40.0, 3.0))
        assert models.task(models.spec(number)) == "regression"
        rows = np.random.default_rng(0).normal(size=(5, 9)).astype(np.float32)
        before = np.asarray(models.before_last(number)(rows))
        np.testing.assert_allclose(np.asarray(number(rows)), before * 3 + 40, rtol=1e-6)
    with pytest.raises(ModelRefused):
        models.build((9,), 1, "mlp", table)


@pytest.mark.parametrize("kind", FITTING["text"])
def test_a_text_without_a_word_in_it_breaks_nothing(kind: str) -> None:
    out = np.asarray(models.build((12,), 3, kind, tokens=50)(np.zeros((2, 12), np.float32)))
    np.testing.assert_allclose(out.sum(axis=1), 1, rtol=1e-5)


@pytest.mark.parametrize("kind", ["linear", "mlp", "gru", "transformer"])
def test_places_without_a_token_count_for_nothing(kind: str) -> None:
    model = models.build((12,), 3, kind, tokens=50)
    weights = model.get_weights()
    at = next(n for n, weight in enumerate(model.weights) if weight.path.endswith("embedding/embeddings"))
    text = np.array([[3, 7, 4] + [0] * 9], np.float32)
    before = np.asarray(model(text))
    weights[at][0] += 5
    model.set_weights(weights)
    np.testing.assert_array_equal(np.asarray(model(text)), before)


def test_columns_of_a_series_are_normalised_one_by_one() -> None:
    x = np.random.default_rng(0).normal([5, 500], [1, 90], (40, 12, 2)).astype(np.float32)
    out = np.asarray(models.build((12, 2), 2, "gru", models.statistics(x.reshape(-1, 2))).layers[0](x))
    np.testing.assert_allclose(out.mean(axis=(0, 1)), 0, atol=1e-4)
    np.testing.assert_allclose(out.std(axis=(0, 1)), 1, atol=1e-4)


def test_a_table_of_many_columns_is_refused_before_any_memory_is_taken() -> None:
    with pytest.raises(ModelRefused, match="too large"):
        models.build((10**6,), 2, "resmlp")


def test_the_spec_is_what_keras_reads() -> None:
    import keras

    assert keras.models.model_from_json(json.dumps(mlp())).output_shape == (None, 3)
