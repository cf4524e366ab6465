"""Ordering, paying, uploading, cancelling and downloading over the API: customer, outsider, stranger."""

from datetime import timedelta
from uuid import uuid4

import pytest
from django.core.files.base import ContentFile
from django.core.files.uploadedfile import SimpleUploadedFile
from django.utils import timezone

from contracts.chain import Call
from contracts.devchain import test_key as rich
from dmlsite.testing import content_given
from dmlsite.tests.people import api, counted_afresh, person, problem  # noqa: F401
from ledger.models import ChainTx
from tickets import actions
from tickets.models import Status, Ticket

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("counted_afresh")]
ORDER = {"file_name": "cells.csv", "file_size": 1_250_000, "payer": rich(1).address}
QUOTES, TICKETS = "/api/v1/quotes", "/api/v1/tickets"
PARTS = [
    ("get", ""),
    ("post", "/payment"),
    ("post", "/file"),
    ("put", "/file"),
    ("post", "/cancel"),
    ("get", "/artifacts"),
]


@pytest.fixture(autouse=True)
def files(settings, tmp_path):
    settings.MEDIA_ROOT = tmp_path / "files"


@pytest.fixture
def customer():
    return person("customer", is_customer=True)


def make(customer, status=Status.QUOTED, **fields) -> Ticket:
    soon = timezone.now() + timedelta(days=1)
    fields = {
        "file_name": "a.csv",
        "file_size": 10,
        "price": 10_000,
        "payer": rich(1).address,
        "signature": b"",
    } | fields
    return Ticket.objects.create(customer=customer, status=status, pay_by=soon, settle_by=soon, **fields)


def at(ticket, part="") -> str:
    return f"{TICKETS}/{ticket.pk}{part}"


def file(size=10, name="a.csv"):
    return {"file": SimpleUploadedFile(name, b"x" * size)}


# --- Who may ----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(("method", "part"), PARTS)
def test_a_stranger_is_told_to_log_in(customer, method, part):
    problem(getattr(api(), method)(at(make(customer), part)), 401)


@pytest.mark.parametrize(("method", "part"), PARTS)
def test_somebody_elses_ticket_does_not_exist(customer, method, part):
    ticket, outsider = make(customer, Status.PAID), api(person("outsider", is_customer=True))
    told = problem(getattr(outsider, method)(at(ticket, part)), 404)
    ticket.pk = uuid4()
    assert problem(getattr(outsider, method)(at(ticket, part)), 404) == told
    assert Ticket.objects.get().status == Status.PAID


def test_everybody_lists_their_own_newest_first(customer):
    older, newer = make(customer), make(customer)
    make(person("outsider"))
    assert [row["id"] for row in api(customer).get(TICKETS).json()] == [str(newer.pk), str(older.pk)]
    assert [row["id"] for row in api(customer).get(TICKETS + "?limit=1&offset=1").json()] == [str(older.pk)]
    problem(api(customer).get(TICKETS + "?limit=1000"), 422)
    problem(api().get(TICKETS), 401)
    problem(api().post(QUOTES, ORDER), 401)


# --- Ordering ---------------------------------------------------------------------------------------------------------
def test_a_quote_is_priced_in_dml_and_its_transaction_pays(chain, customer):
    from ledger.gateway import key

    answer = api(customer).post(
        QUOTES, ORDER | {"rounds": 3, "task": "regression", "optimizer": "adam", "payer": rich(1).address.lower()}
    )
    assert answer.status_code == 201
    ticket = answer.json()
    assert (ticket["price"], ticket["price_micro"], ticket["status"]) == ("0.13", 130_000, "quoted")
    assert (ticket["rounds"], ticket["task"], ticket["optimizer"]) == (3, "regression", "adam")
    assert [event["kind"] for event in ticket["events"]] == ["quoted"]
    assert ticket["payment"] == api(customer).post(f"{TICKETS}/{ticket['id']}/payment").json()
    call = ticket["payment"]
    assert call["from"] == rich(1).address
    chain.send(chain.transfer_call(rich(1).address, 130_000), key("admin"))
    chain.send(Call(call["to"], call["data"], int(call["value"], 16)), rich(1))
    assert chain.escrowed() == 130_000


def test_a_quote_by_complexity_says_what_it_was_made_from(chain, customer):
    work = {
        "price_scheme": "compute-1",
        "samples": 60_000,
        "sample_shape": [28, 28],
        "outputs": 10,
        "model_kind": "mlp",
    }
    ticket = api(customer).post(QUOTES, ORDER | work).json()
    assert (ticket["price"], ticket["price_scheme"], ticket["samples"]) == ("4.93", "compute-1", 60_000)
    assert (ticket["flops"], ticket["flops_rate"]) == (1_199_964, 1_500_000_000)
    by_size = api(customer).post(QUOTES, ORDER | work | {"price_scheme": "size-1"}).json()
    assert (by_size["price"], by_size["samples"], by_size["flops"]) == ("0.13", None, None)
    told = problem(api(customer).post(QUOTES, ORDER | work | {"sample_shape": []}), 422)
    assert "the shape of one" in told["detail"]
    problem(api(customer).post(QUOTES, ORDER | {"price_scheme": "compute-0"}), 422)
    text = work | {"sample_shape": [50], "tokens": 1000, "model_kind": "transformer"}
    assert api(customer).post(QUOTES, ORDER | text).json()["flops"] > 10**7


def test_a_provider_who_orders_becomes_a_customer_too(chain):
    user = person("provider", is_provider=True)
    assert api(user).post(QUOTES, ORDER).status_code == 201
    user.refresh_from_db()
    assert user.is_customer and user.is_provider


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("file_size", 0),
        ("file_size", -1),
        ("file_size", "many"),
        ("file_name", ""),
        ("file_name", "x" * 201),
        ("payer", "0x12"),
        ("rounds", 0),
        ("rounds", 101),
        ("epochs", 51),
        ("batch_size", 0),
        ("optimizer", "rprop"),
        ("learning_rate", 0),
        ("learning_rate", "nan"),
        ("learning_rate", "inf"),
        ("schedule", "up and down"),
        ("clip", -1),
        ("task", "clustering"),
        ("model_kind", "forest"),
        ("strategy", "krum"),
        ("proximal", -1),
        ("patience", 101),
        ("compression", "zip"),
        ("rule", "democracy"),
        ("byzantine", -1),
        ("on_cheat", "shrug"),
        ("target", "x" * 201),
    ],
)
def test_an_order_that_cannot_be_is_422_names_the_field_and_leaves_no_ticket(customer, name, value):
    assert list(problem(api(customer).post(QUOTES, ORDER | {name: value}), 422)["errors"]) == [name]
    assert not Ticket.objects.exists()


@pytest.mark.parametrize(
    "choice", [{"rule": "krum"}, {"rule": "median", "byzantine": 0}, {"rule": "rfa", "byzantine": 2}]
)
def test_an_aggregation_that_protects_nothing_is_422_with_the_reason(customer, choice):
    assert "withstand" in problem(api(customer).post(QUOTES, ORDER | choice), 422)["detail"]
    assert not Ticket.objects.exists()


def test_a_slip_in_an_options_name_is_not_passed_over(customer):
    errors = problem(api(customer).post(QUOTES, ORDER | {"round": 5}), 422)["errors"]
    assert errors == {"round": ["There is no such option."]}
    assert not Ticket.objects.exists()


def test_the_terms_name_the_contracts_that_a_payment_goes_to(chain, customer):
    found = api(customer).get("/api/v1/terms").json()
    deployed = chain.deployment
    assert (found["chain_id"], found["token"], found["escrow"]) == (31337, deployed.token, deployed.escrow)


def test_a_file_beyond_the_limit_is_not_quoted(customer, settings):
    assert "larger than" in problem(api(customer).post(QUOTES, ORDER | {"file_size": 10**30}), 422)["detail"]


def test_what_is_no_json_is_400_and_a_wrong_method_is_405(customer):
    problem(api(customer).generic("POST", QUOTES, "{", content_type="application/json"), 400)
    problem(api(customer).delete(QUOTES), 405)
    problem(api(customer).post(QUOTES, "x", content_type="text/plain"), 415)


@pytest.mark.parametrize("status", [Status.PAID, Status.EXPIRED, Status.SETTLED])
def test_only_a_quoted_ticket_is_to_be_paid(customer, status):
    problem(api(customer).post(at(make(customer, status), "/payment")), 409)


# --- Uploading --------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("method", ["post", "put"])
def test_a_paid_ticket_takes_one_file(customer, method):
    ticket = make(customer, Status.PAID)
    answer = getattr(api(customer), method)(at(ticket, "/file"), file(), format="multipart")
    assert answer.status_code == 200, answer.content
    assert answer.json()["status"] == "uploaded"
    problem(api(customer).post(at(ticket, "/file"), file(), format="multipart"), 409)
    assert Ticket.objects.get().dataset.size == 10


@pytest.mark.parametrize(
    "refused", [file(0), file(11), file(5, "x" * 220 + ".csv"), {}], ids=["empty", "large", "name", "none"]
)
def test_a_refused_file_costs_nothing_and_the_right_one_may_follow(customer, refused):
    ticket = make(customer, Status.PAID)
    problem(api(customer).post(at(ticket, "/file"), refused, format="multipart"), 422)
    assert api(customer).post(at(ticket, "/file"), file(), format="multipart").status_code == 200


def test_nothing_is_uploaded_before_the_payment_is_final(customer):
    problem(api(customer).post(at(make(customer), "/file"), file(), format="multipart"), 409)


# --- The end ----------------------------------------------------------------------------------------------------------
def test_cancelling_before_payment_costs_nothing(customer):
    ticket = make(customer)
    assert api(customer).post(at(ticket, "/cancel")).json()["status"] == "expired"
    assert not ChainTx.objects.exists()


def test_cancelling_after_payment_gives_everything_back_once(chain, customer):
    ticket = make(customer, Status.PAID)
    assert api(customer).post(at(ticket, "/cancel")).json()["status"] == "refunded"
    problem(api(customer).post(at(ticket, "/cancel")), 409)
    assert ChainTx.objects.get().key == f"refund:{ticket.pk}"


def test_a_training_ticket_cannot_be_cancelled(customer):
    problem(api(customer).post(at(make(customer, Status.TRAINING), "/cancel")), 409)


def test_artifacts_come_with_links_that_open(customer):
    ticket = make(customer, Status.SETTLED)
    assert api(customer).get(at(ticket, "/artifacts")).json() == []
    actions.store_artifact(ticket, "model.json", ContentFile(b"{}"))
    [row] = api(customer).get(at(ticket, "/artifacts")).json()
    assert (row["name"], row["size"]) == ("model.json", 2)
    assert content_given(api().get(row["url"])) == b"{}"


def test_the_timeline_names_no_admin(customer):
    ticket = make(customer)
    actions.note(ticket, "error", "something broke", actor="boss@example.org")
    assert b"boss@example.org" not in api(customer).get(at(ticket)).content


# --- What a customer says of the data ---------------------------------------------------------------------------------
def test_what_is_said_of_the_data_is_kept(chain, customer):
    said = {"leave_out": ["id"], "kinds": {"zip": "category"}, "window": 12, "horizon": 2, "class_weights": "balanced"}
    answer = api(customer).post(QUOTES, ORDER | said)
    assert answer.status_code == 201
    assert {name: answer.json()[name] for name in said} == said
    assert (answer.json()["group"], answer.json()["sharding"]) == ("", "iid")


def test_attested_providers_may_be_wanted(chain, customer):
    assert api(customer).post(QUOTES, ORDER).json()["attested"] is False
    assert api(customer).post(QUOTES, ORDER | {"attested": True}).json()["attested"] is True
    assert "attested" in problem(api(customer).post(QUOTES, ORDER | {"attested": "maybe"}), 422)["errors"]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("leave_out", "id"),
        ("leave_out", ["a\0"]),
        ("kinds", {"a": "list"}),
        ("kinds", ["a"]),
        ("window", 1001),
        ("horizon", 0),
    ],
)
def test_what_can_be_said_of_no_data_names_the_field(customer, name, value):
    assert name in problem(api(customer).post(QUOTES, ORDER | {name: value}), 422)["errors"]


def test_what_makes_no_sense_together_is_422(customer):
    assert "one series" in problem(api(customer).post(QUOTES, ORDER | {"group": "a", "window": 2}), 422)["detail"]
    assert "readable" in problem(api(customer).post(QUOTES, ORDER | {"kinds": {"a\0": "text"}}), 422)["detail"]
