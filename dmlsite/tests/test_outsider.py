"""Every address x everybody whose business it is not: nothing is shown, nothing is changed. Generated from the URL map: an address that
nobody has put a sample object into fails here."""

from collections.abc import Iterator

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.sessions.models import Session
from django.core.serializers import serialize
from django.test import Client

from accounts.models import ApiKey, User, Wallet
from dmlsite.tests.people import admin_client, person
from dmlsite.tests.routes import (
    FOR_WHOEVER_HAS_THE_LINK,
    FOR_WORKERS,
    MARK,
    OWNED_BY_CUSTOMER,
    OWNED_BY_PROVIDER,
    PUBLIC,
    World,
    address,
    count_afresh,
    patterns,
    without_sample,
    world,
)
from providers.models import Accusation, Answer, Attestation, Provider, Standing
from tickets.models import PartialUpload, Ticket, TicketEvent
from tickets.uploads import PART_TYPE

pytestmark = pytest.mark.django_db
OWNED = OWNED_BY_CUSTOMER | OWNED_BY_PROVIDER | FOR_WORKERS
METHODS = ("get", "head", "post", "put", "patch", "delete")
SHUT = {401, 403, 404, 405}
HEADERS = {"Tus-Resumable": "1.0.0", "Upload-Offset": "0", "Upload-Length": "5"}
SENT = {"patch": {"data": b"xxxxx", "content_type": PART_TYPE}, "post": {"data": {"text": "x", "name": "x"}}}
OURS = (Ticket, TicketEvent, PartialUpload, ApiKey, Wallet, Provider, Accusation, Answer, Attestation)


@pytest.fixture
def theirs(settings) -> World:
    settings.ADMIN_TWO_FACTOR = True
    return world()


def signed_in(user: User | None) -> Client:
    client = Client()
    if user:
        client.force_login(user)
    return client


def outsider(who: str) -> Client:
    """Somebody whose business none of it is."""
    if who == "nobody":
        return signed_in(None)
    if who == "another customer":
        return signed_in(person("other", is_customer=True))
    if who == "a provider with no part":
        user = person("idle", is_provider=True)
        Provider.objects.create(user=user, user_name="idle", wallet="0x" + "77" * 20, standing=Standing.ACTIVE)
        return signed_in(user)
    return signed_in(person("boss", is_staff=True, is_superuser=True))


WHO = ["nobody", "another customer", "a provider with no part", "an admin without the second factor"]


def asked(client: Client, where: str, theirs: World) -> Iterator[tuple[str, object]]:
    """The answer to each method."""
    path = address(where, theirs)
    for method in ("get", "post") if where.startswith("admin/") else METHODS:
        count_afresh()
        yield f"{method} {path}", getattr(client, method)(path, headers=HEADERS, **SENT.get(method, {}))


def kept() -> str:
    """All that could have been changed."""
    return "".join(serialize("json", model.objects.order_by("pk")) for model in OURS)


def said(answer) -> str:
    body = b"".join(answer.streaming_content) if answer.streaming and not answer.is_async else b""
    return (body if answer.streaming else answer.content).decode(errors="replace") + str(dict(answer.headers))


def test_every_address_with_arguments_has_a_sample():
    assert without_sample() == []
    there = {where for where, _ in patterns()}
    assert set(OWNED) | set(FOR_WHOEVER_HAS_THE_LINK) | set(PUBLIC) <= there, "some samples are for nothing"


@pytest.mark.parametrize("who", WHO)
def test_what_is_somebody_elses_does_not_exist(theirs, who):
    client = outsider(who)
    before = kept()
    for where in OWNED:
        for what, answer in asked(client, where, theirs):
            gone = answer.status_code == 302 and answer.url.startswith("/accounts/login/")
            assert gone or answer.status_code in SHUT, f"{what}: {answer.status_code}"
            assert MARK not in said(answer), what
    assert kept() == before


@pytest.mark.parametrize("who", WHO)
def test_no_other_address_tells_of_it_either(theirs, who):
    client = outsider(who)
    before = (
        Ticket.objects.count(),
        LogEntry.objects.count(),
        set(User.objects.values_list("pk", "is_staff", "password")),
    )
    for where, _ in patterns():
        if where in OWNED or where in FOR_WHOEVER_HAS_THE_LINK or "logout" in where:
            continue
        for what, answer in asked(client, where, theirs):
            assert answer.status_code < 500 or answer.status_code == 503, what
            text = said(answer)
            assert MARK not in text and theirs.customer.email not in text, what
            if where.startswith("admin/") and answer.status_code == 200:
                assert where in ("admin/login/",), what
    assert (
        Ticket.objects.count(),
        LogEntry.objects.count(),
        set(User.objects.values_list("pk", "is_staff", "password")),
    ) == before


@pytest.mark.parametrize("owner", ["customer", "provider"])
def test_its_owner_gets_it(theirs, owner):
    """So that the samples above are of what there is."""
    client = signed_in(getattr(theirs, owner))
    for where in OWNED_BY_CUSTOMER if owner == "customer" else OWNED_BY_PROVIDER:
        path = address(where, theirs)
        count_afresh()
        found = {getattr(client, method)(path, headers=HEADERS).status_code for method in ("get", "head", "post")}
        if not found - SHUT:
            found.add(client.delete(path, headers=HEADERS).status_code)
        assert found - SHUT, f"{path}: {found}"


def test_an_admin_with_the_second_factor_gets_every_page(theirs, settings):
    settings.ADMIN_TWO_FACTOR = False
    client = admin_client()
    for where, _ in patterns():
        if where.startswith("admin/") and "<path:object_id>/change/" in where:
            assert client.get(address(where, theirs)).status_code == 200, where


@pytest.mark.parametrize("where", FOR_WHOEVER_HAS_THE_LINK)
def test_a_link_that_was_changed_opens_nothing(theirs, where):
    path = address(where, theirs)
    for at in (-3, -20, len(path) // 2):
        changed = path[:at] + ("A" if path[at] != "A" else "B") + path[at:][1:]
        answer = Client().get(changed)
        assert MARK not in said(answer) and theirs.customer.email not in said(answer), changed


def test_sessions_of_outsiders_name_no_other_user(theirs):
    client = outsider("another customer")
    client.get("/")
    assert {each.get_decoded()["_auth_user_id"] for each in Session.objects.all()} == {
        str(User.objects.get(email="other@example.org").pk)
    }
