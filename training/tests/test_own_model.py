"""A ticket with a model of the customer's own, prepared: its spec, its start weights, and what does not fit the data."""

import json

import keras
import numpy as np
import pytest
from django.core.files.base import ContentFile

from dmlworker import models
from dmlworker.datasets import DatasetError, samples
from dmlworker.weights import pack, unpack
from tickets.models import Dataset, OwnModel
from training import compute, store
from training.tests.conftest import make_ticket

pytestmark = pytest.mark.django_db(transaction=True)


def ticket_with(spec, weights=None):
    data = samples.breast_cancer_csv()
    ticket = make_ticket(rounds=1)
    Dataset.objects.create(ticket=ticket, file=ContentFile(data, "x"), name="b.csv", size=len(data), sha256="1" * 64)
    own = OwnModel(ticket=ticket, name="model.keras", spec=models.spec_bytes(spec).decode(), parameters=1)
    if weights:
        own.file.save("start.safetensors", ContentFile(pack(weights)), save=False)
    own.save()
    return ticket


def prepared(ticket, tmp_path):
    path = tmp_path / "b.csv"
    path.write_bytes(samples.breast_cancer_csv())
    return compute.prepare(ticket, path, 2, 7)


def model(columns=30, outputs=2):
    rows = keras.Input((columns,), name="rows")
    one = keras.layers.Dense(4, "tanh", name="one")(rows)
    both = keras.layers.Concatenate(name="both")([one, keras.layers.Dense(3, name="two")(rows)])
    last = keras.layers.Activation("softmax", name="last")(keras.layers.Dense(outputs, name="logits")(both))
    return keras.Model(rows, last)


def test_it_is_trained_from_its_weights_on_with_preprocessing_in_front(files, tmp_path):
    own = model()
    found = prepared(ticket_with(models.spec(own), own.get_weights()), tmp_path)
    spec = json.loads(store.get(found.spec.sha256))
    assert [layer["class_name"] for layer in spec["config"]["layers"]][:2] == ["InputLayer", "Normalization"]
    for mine, theirs in zip(unpack(store.get(found.start.sha256)), own.get_weights(), strict=True):
        np.testing.assert_array_equal(mine, theirs)
    assert models.from_spec(spec).count_params() == own.count_params()


def test_without_weights_they_are_drawn_from_the_ticket_s_seed(files, tmp_path):
    own = model()
    start = [unpack(store.get(prepared(ticket_with(models.spec(own)), tmp_path).start.sha256)) for _ in range(2)]
    assert all((a == b).all() for a, b in zip(*start, strict=True))
    assert (start[0][0] != own.get_weights()[0]).any()


@pytest.mark.parametrize(
    ("columns", "outputs", "reason"),
    [
        (29, 2, "takes samples of 29 numbers, and the data has 30 numbers"),
        (30, 3, "gives 3 numbers for a sample, and the data has 2 classes"),
    ],
)
def test_what_does_not_fit_the_data_is_said(files, tmp_path, columns, outputs, reason):
    with pytest.raises(DatasetError, match=reason):
        prepared(ticket_with(models.spec(model(columns, outputs))), tmp_path)
