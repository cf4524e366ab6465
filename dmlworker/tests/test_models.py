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


@pytest.mark.parametrize("kind", ["linear", "mlp", "cnn"])
def test_every_kind_goes_through_its_spec_unchanged(kind: str) -> None:
    spec = models.spec(models.build((12, 12, 3), 4, kind))
    data = models.spec_bytes(spec)
    assert models.spec_bytes(models.spec(models.from_spec(models.spec_from_bytes(data)))) == data


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
    "no layers": mlp() | {"config": {}},
    "empty": {},
}


@pytest.mark.parametrize("what", OTHERS)
def test_specs_nobody_should_load_are_refused(what: str) -> None:
    with pytest.raises(ModelRefused):
        models.from_spec(OTHERS[what])


@pytest.mark.parametrize("data", [b"", b"[]", b"null", b"\x80", b"[" * 100_000])
def test_bytes_that_are_no_spec_are_refused(data: bytes) -> None:
    with pytest.raises(ModelRefused):
        models.spec_from_bytes(data)


def test_unknown_kinds_and_cnns_on_tables_are_refused() -> None:
    for shape, kind in (((4,), "forest"), ((4,), "cnn")):
        with pytest.raises(ModelRefused):
            models.build(shape, 2, kind)


def test_the_spec_is_what_keras_reads() -> None:
    import keras

    assert keras.models.model_from_json(json.dumps(mlp())).output_shape == (None, 3)
