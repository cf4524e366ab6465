"""An order with a model of the customer's own: by page and API, shown on the ticket, gone with the account."""

import io
import json

import pytest
from django.core.cache import cache
from django.core.files.uploadedfile import SimpleUploadedFile
from django.urls import reverse

from accounts.models import User
from dmlsite.tests.people import api, counted_afresh, person, problem  # noqa: F401
from tickets import personal
from tickets.models import Leftover, OwnModel, Ticket
from tickets.tests.test_pages import ORDER

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("chain", "counted_afresh")]


@pytest.fixture(autouse=True)
def own_files(settings, tmp_path):
    settings.MEDIA_ROOT = tmp_path
    cache.clear()


@pytest.fixture
def owner(client):
    client.force_login(User.objects.create_user("ada@example.org", is_customer=True))
    return client


def mine(layer: str = "Dense", **config):
    """A model.json as Keras 3 writes it, but for what has a default."""
    policy = {"module": "keras", "class_name": "DTypePolicy", "config": {"name": "float32"}, "registered_name": None}
    rows = {"batch_shape": [None, 4], "dtype": "float32", "name": "rows"}
    layers = [
        ("InputLayer", rows),
        (layer, {"name": "one", **config}),
        ("Dense", {"name": "two", "units": 3, "activation": "softmax"}),
    ]
    layers = [
        {"module": "keras.layers", "class_name": name, "config": {"dtype": policy} | config, "registered_name": None}
        for name, config in layers
    ]
    spec = {"class_name": "Sequential", "config": {"name": "mine", "layers": layers}, "keras_version": "3.15.1"}
    return io.BytesIO(json.dumps(spec).encode())


def files(layer: str = "Dense", name="model.json", **config):
    return {"model_file": SimpleUploadedFile(name, mine(layer, **config).getvalue())}


def test_a_model_is_ordered_and_shown(owner):
    answer = owner.post(reverse("tickets:order"), ORDER | files(units=5))
    assert answer.status_code == 302, answer.content.decode()
    own = Ticket.objects.get().own_model
    assert (own.name, own.parameters, bool(own.file)) == ("model.json", 43, False)
    text = owner.get(reverse("training:progress", args=[own.ticket_id])).content.decode()
    assert "your own, <code>model.json</code>, 43 parameters" in text
    assert "softmax of the last layer became a layer of its own" in text
    seen = api(own.ticket.customer).get(f"/api/v1/tickets/{own.ticket_id}").json()
    assert seen["own_model"] == "model.json"


def test_a_model_that_can_t_be_taken_costs_nothing(owner):
    for given, reason in (
        (files("Lambda"), "Lambda holds code"),
        (files(units=5, name="model.pkl"), "comes as model.json or as .keras"),
        ({"model_weights": SimpleUploadedFile("w.weights.h5", b"x")}, "need the model that they belong to"),
        (files(units=5) | {"model_weights": SimpleUploadedFile("w.weights.h5", b"x")}, "not HDF5 at all"),
    ):
        answer = owner.post(reverse("tickets:order"), ORDER | given)
        assert answer.status_code == 422
        assert reason in answer.content.decode()
    assert not Ticket.objects.exists()


def test_a_model_is_described_before_it_is_ordered(owner):
    text = owner.post(reverse("tickets:own_model"), files(units=5)).content.decode()
    assert "43 parameters; 4 numbers go in for a sample, 3 come out" in text
    answer = owner.post(reverse("tickets:own_model"), files("BatchNormalization"))
    assert answer.status_code == 422
    assert "Use LayerNormalization or GroupNormalization" in answer.content.decode()
    data = {"data_shape": "5", "data_classes": "3"}
    answer = owner.post(reverse("tickets:own_model"), files(units=5) | data)
    assert answer.status_code == 422
    assert "takes samples of 4 numbers, and the data has 5 numbers" in answer.content.decode()
    assert owner.post(reverse("tickets:own_model")).status_code == 422
    assert not OwnModel.objects.exists()
    codes = [owner.post(reverse("tickets:own_model")).status_code for _ in range(20)]
    assert codes[-1] == 429
    owner.logout()
    assert owner.post(reverse("tickets:own_model")).status_code == 302


def test_a_model_comes_by_the_api(settings):
    customer = person("customer", is_customer=True)
    order = {name: ORDER[name] for name in ("file_name", "file_size", "payer")}
    answer = api(customer).post("/api/v1/quotes", order | files(units=5), format="multipart")
    assert answer.status_code == 201, answer.json()
    assert answer.json()["own_model"] == "model.json"
    problem(api(customer).post("/api/v1/quotes", order | files("Dropout"), format="multipart"), 422)
    plain = api(customer).post("/api/v1/quotes", order, format="json").json()
    assert plain["own_model"] is None


COMPUTE = {"price_scheme": "compute-1", "samples": 1000}
OPERATIONS = 3 * (2 * 4 + 2 * 4 * 500 + 500 + 2 * 500 * 3 + 3 + 3)


def test_its_price_by_complexity_is_shown_once_it_is_read(owner):
    text = owner.post(reverse("tickets:own_model"), files(units=500)).content.decode()
    assert f"{OPERATIONS:,} operations for each" in text
    assert f'<input type="hidden" name="own_operations" value="{OPERATIONS}">' in text
    said = {"file_size": 1000, "own_operations": OPERATIONS, **COMPUTE}
    shown = owner.get(reverse("tickets:price"), said)
    assert f"{OPERATIONS:,} operations for a sample × 1,000 samples × 10 rounds" in shown.content.decode()
    for changed, reason in (({"samples": ""}, "needs the number of samples."), ({"own_operations": 0}, "by size")):
        answer = owner.get(reverse("tickets:price"), said | changed)
        assert answer.status_code == 422 and reason in answer.content.decode()


def test_an_order_counts_the_model_itself_whatever_the_page_says(owner):
    answer = owner.post(reverse("tickets:order"), ORDER | COMPUTE | files(units=500) | {"own_operations": 1})
    assert answer.status_code == 302, answer.content.decode()
    ticket = Ticket.objects.get()
    assert (ticket.samples, ticket.flops, ticket.price_scheme) == (1000, OPERATIONS, "compute-1")


def test_the_api_quotes_it_by_complexity_or_says_what_is_missing():
    customer = person("customer", is_customer=True)
    order = {name: ORDER[name] for name in ("file_name", "file_size", "payer")} | COMPUTE
    answer = api(customer).post("/api/v1/quotes", order | files(units=500), format="multipart")
    assert answer.status_code == 201, answer.json()
    assert answer.json()["flops"] == OPERATIONS
    order.pop("samples")
    told = problem(api(customer).post("/api/v1/quotes", order | files(units=500), format="multipart"), 422)
    assert told["detail"] == "A price by complexity needs the number of samples."


def test_a_closed_account_leaves_no_model(owner):
    owner.post(reverse("tickets:order"), ORDER | files(units=5))
    own = OwnModel.objects.get()
    own.file.save("start.safetensors", SimpleUploadedFile("x", b"weights"))
    exported = personal.export(own.ticket.customer)[0]["models"]
    assert [row["name"] for row in exported] == ["model.json"]
    personal.erase(own.ticket.customer)
    assert not OwnModel.objects.exists()
    assert own.file.name in Leftover.objects.values_list("name", flat=True)
