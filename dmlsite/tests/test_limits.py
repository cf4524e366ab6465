"""Whatever changes something or is costly counts how often it is asked: each address of the URL map, so that a new one can't be forgotten."""

import pytest
from django.core.cache import caches
from django.test import Client

from accounts.models import ApiKey
from dmlsite.tests.people import api, counted_afresh, person, problem
from dmlsite.tests.routes import OWNED_BY_PROVIDER, address, patterns, world
from tickets import actions
from tickets.models import OwnModel, Status, Ticket

__all__ = ["counted_afresh"]
pytestmark = pytest.mark.django_db
UNCOUNTED = {
    "accounts/logout/": "ends a session, which costs less than to count it",
    "admin/": "admins, whose log-in is counted",
    "": "the home page",
    "accounts/": "a person's own page: a few rows",
    "accounts/register/": "a form",
    "accounts/login/": "a form",
    "accounts/password/": "a form",
    "accounts/confirm/<token>/": "a form",
    "accounts/close/": "a form",
    "accounts/second-factor/": "a form",
    "accounts/second-factor/setup/": "a form",
    "accounts/second-factor/picture/": "for admins",
    "accounts/reset/": "a form",
    "accounts/reset/sent/": "words",
    "accounts/reset/done/": "words",
    "tickets/": "a person's own rows",
    "tickets/order/": "a form",
    "tickets/<uuid:pk>/": "one row; what follows is `progress`",
    "tickets/<uuid:pk>/try/<str:name>/": "an answer out of the cache",
    "provider/": "a person's own page",
    "api/v1/provider": "one row",
    "api/v1/terms": "settings",
    "api/v1/tickets": "a hundred rows at most",
    "api/v1/tickets/<uuid:pk>": "one row",
    "api/v1/tickets/<uuid:pk>/metrics": "one row",
    "api/v1/tickets/<uuid:pk>/rounds": "a few rows",
    "api/": "nothing",
    "dev/rpc/": "not in production",
    "dev/mail/": "not in production",
}
"""For GET; a page that is no form does the same at a POST."""
PAGES = {where for where, why in UNCOUNTED.items() if why != "a form" and not where.startswith("api/v1/")}


@pytest.fixture
def counts(counted_afresh):
    """The counts of this test alone."""
    return caches["default"]


def counted(counts) -> bool:
    return any(":rl:" in name for name in counts._cache)


def asked(where: str, method: str, theirs):
    client = Client(raise_request_exception=False)
    if where not in ("accounts/register/", "accounts/login/", "accounts/wallet/login/"):
        client.force_login(
            theirs.provider if where in OWNED_BY_PROVIDER or where.startswith("provider/") else theirs.customer
        )
    if where.startswith("accounts/second-factor/"):
        type(theirs.customer).objects.update(is_staff=True)
    if where == "accounts/second-factor/":
        theirs.customer.totpdevice_set.create(name="app")
    headers = {"Tus-Resumable": "1.0.0"}
    if where.startswith("api/v1/provider/attestations"):  # for workers
        headers["Authorization"] = f"Bearer {ApiKey.issue(theirs.provider)}"
    return getattr(client, method)(address(where, theirs), headers=headers)


ADDRESSES = sorted({where for where, _ in patterns() if not where.startswith("admin/") or where == "admin/"})
OF_FORMS, OF_THE_API = ("post",), ("post", "put", "patch", "delete")


@pytest.mark.parametrize("where", ADDRESSES)
def test_it_is_counted(counts, where):
    theirs = world()
    if asked(where, "get", theirs).status_code not in (404, 405, 412) and where not in UNCOUNTED:
        assert counted(counts), "each GET is counted here, or in UNCOUNTED with the reason"
    programs = where.startswith("api/") or where == "tickets/uploads/<uuid:pk>/"
    for method in () if where in PAGES else OF_THE_API if programs else OF_FORMS:
        counts.clear()
        if asked(where, method, theirs).status_code not in (404, 405):
            assert counted(counts), f"{method} is not counted"


def test_no_reason_is_for_nothing():
    assert set(UNCOUNTED) <= set(ADDRESSES)


def test_unpaid_orders_are_not_without_end(chain, monkeypatch):
    monkeypatch.setattr(actions, "MOST_UNPAID", 2)
    ada, order = person("ada"), {"file_name": "a.csv", "file_size": 10, "payer": "0x" + "1" * 40}
    quotes = [api(ada).post("/api/v1/quotes", order) for _ in range(3)]
    assert [answer.status_code for answer in quotes] == [201, 201, 409]
    api(ada).post(f"/api/v1/tickets/{quotes[0].json()['id']}/cancel")
    assert api(ada).post("/api/v1/quotes", order).status_code == 201
    assert api(person("bob")).post("/api/v1/quotes", order).status_code == 201


def test_nor_are_the_weights_that_came_with_them(chain, monkeypatch):
    monkeypatch.setattr(actions, "MOST_UNPAID_BYTES", 4000)
    ada, order = person("ada"), {"file_name": "a.csv", "file_size": 10, "payer": "0x" + "1" * 40}
    quoted = api(ada).post("/api/v1/quotes", order).json()["id"]
    own = OwnModel.objects.create(ticket_id=quoted, name="m", spec="{}", parameters=1000, file="models/x")
    problem(api(ada).post("/api/v1/quotes", order), 409)
    Ticket.objects.update(status=Status.EXPIRED)
    problem(api(ada).post("/api/v1/quotes", order), 409)
    OwnModel.objects.filter(pk=own.pk).update(file="")
    assert api(ada).post("/api/v1/quotes", order).status_code == 201
