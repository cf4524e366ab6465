"""What somebody with bad intentions sends: each was a hole once, or might become one."""

import json
from base64 import b64encode

import pytest
from django.core.cache import cache
from django.test import Client

from accounts import actions
from accounts.models import ApiKey
from dmlsite.tests.people import PASSWORD, api, person, problem
from dmlsite.tests.rows import everything
from providers.models import Provider, Standing
from tickets.models import Status, Ticket

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def no_counts():
    cache.clear()


def holder(key: str):
    client = api()
    client.credentials(HTTP_AUTHORIZATION=f"Bearer {key}")
    return client


# --- Guessing ---------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("page", ["/accounts/login/", "/admin/login/"])
def test_an_account_spelled_otherwise_is_the_same_account(page, settings):
    settings.LOGIN_RATE = "3/5m"
    person("ada", PASSWORD, is_staff=True)
    spelled = ["ada@example.org", "ADA@example.org", " ada@example.org", "ａda@example.org", "Ada@Example.org"]
    guesses = [
        Client(REMOTE_ADDR=f"10.0.0.{n}").post(page, {"username": name, "password": "guess"})
        for n, name in enumerate(spelled)
    ]
    assert [answer.status_code for answer in guesses[:3]] == [guesses[0].status_code] * 3
    assert [answer.status_code for answer in guesses[3:]] == [429, 429]


def test_a_mail_for_an_address_spelled_otherwise_is_counted_with_the_others(settings):
    settings.LOGIN_RATE = "2/5m"
    for n, (name, status) in enumerate([("ada@a.org", 302), ("ADA@a.org", 302), (" ada@A.org", 429)]):
        answer = Client(REMOTE_ADDR=f"10.0.1.{n}").post("/accounts/reset/", {"email": name})
        assert answer.status_code == status


def test_a_header_does_not_say_where_a_guess_comes_from(settings):
    settings.LOGIN_RATE = "2/5m"
    for n, status in enumerate([422, 422, 429]):
        form = {"username": f"somebody{n}@a.org", "password": "guess"}
        answer = Client().post("/accounts/login/", form, HTTP_X_FORWARDED_FOR=f"10.9.9.{n}")
        assert answer.status_code == status


# --- Keys -------------------------------------------------------------------------------------------------------------
def test_a_programs_key_makes_no_worker_key():
    """It would outlive the end of the one that made it."""
    ada = person("ada")
    Provider.objects.create(user=ada, user_name="ada", wallet="0x" + "1" * 40, standing=Standing.ACTIVE)
    key = actions.issue_key(ada, "lab")
    problem(holder(key).post("/api/v1/provider/keys", {"name": "mine"}), 403)
    assert not ApiKey.objects.filter(use=ApiKey.Use.WORKER).exists()


def test_a_programs_key_logs_nobody_else_out():
    ada = person("ada")
    other = api(ada)
    problem(holder(actions.issue_key(ada, "lab")).post("/api/v1/logout"), 403)
    assert other.get("/api/v1/tickets").status_code == 200


# --- What cannot be kept or read --------------------------------------------------------------------------------------
def test_a_name_with_a_nul_is_nobodys():
    assert Client().get("/providers/a%00b/").status_code == 404
    assert Client().get("/accounts/register/?kind=a%00b").status_code == 404


@pytest.mark.parametrize("body", ["[" * 100_000, '{"file_name":' * 50_000, '{"kinds":' + '{"a":' * 90_000])
def test_json_nested_without_end_is_refused(body):
    answer = api(person("ada")).post("/api/v1/quotes", body, content_type="application/json")
    problem(answer, 400)


@pytest.mark.parametrize("odd", ["\0", "a\0b", "\ud800"], ids=["nul", "inner nul", "half a character"])
@pytest.mark.parametrize("where", ["kinds", "unknown", "leave_out", "file_name", "group"])
def test_odd_text_in_an_order_is_refused(odd, where):
    order = {"file_name": "a.csv", "file_size": 10, "payer": "0x" + "1" * 40}
    given = {"kinds": {odd: "number"}, "leave_out": [odd]}.get(where, odd)
    order |= {odd: 1} if where == "unknown" else {where: given}
    answer = api(person("ada")).post("/api/v1/quotes", json.dumps(order), content_type="application/json")
    problem(answer, 400 if "\ud800" in odd else 422)


@pytest.mark.parametrize(
    "name", ["a\0.csv", "..", "../../etc/passwd", "a\r\nSet-Cookie: b=c", "<script>.csv", "x" * 4000]
)
def test_an_upload_may_be_called_anything(name, settings, tmp_path, inline_jobs):
    settings.MEDIA_ROOT = tmp_path
    ticket = everything()
    Ticket.objects.filter(pk=ticket.pk).update(status=Status.PAID)
    ticket.dataset.delete()
    said = {"Upload-Length": "2", "Upload-Metadata": f"filename {b64encode(name.encode()).decode()}"}
    client = api(ticket.customer)
    begun = client.post(f"/api/v1/tickets/{ticket.pk}/uploads", headers={"Tus-Resumable": "1.0.0"} | said)
    assert begun.status_code in (201, 422)
