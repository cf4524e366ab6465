"""What a log-in leaves in the log, and how long it lasts."""

from datetime import timedelta

import pytest
from django.core.cache import cache
from django.utils import timezone

from accounts.sessions import OF_ADMINS
from dmlsite.tests.people import PASSWORD, api, person
from observe.tests.observed import lines

pytestmark = pytest.mark.django_db
EMAIL = "ada@example.org"


@pytest.fixture(autouse=True)
def no_counts():
    cache.clear()


@pytest.fixture
def ada():
    return person("ada", PASSWORD, is_customer=True)


def said(found) -> list[tuple]:
    return [(one["text"], one["user"], one["address"]) for one in found if one["logger"] == "accounts.sessions"]


def tries(password: str, email: str = EMAIL, client=None):
    client.post("/accounts/login/", {"username": email, "password": password}, REMOTE_ADDR="10.1.2.3")
    api().post("/api/v1/login", {"email": email, "password": password}, REMOTE_ADDR="10.1.2.4")


def test_log_ins_are_logged_with_who_and_from_where_and_without_the_address_of_mail(client, ada):
    with lines() as found:
        tries(PASSWORD, client=client)
    text = f"Log-in of user {ada.pk}"
    assert said(found) == [(text, ada.pk, "10.1.2.3"), (text, ada.pk, "10.1.2.4")]
    assert EMAIL not in str(found) and PASSWORD not in str(found)


@pytest.mark.parametrize("known", [True, False])
def test_refused_ones_too(client, ada, known):
    with lines() as found:
        tries("wrong-password", EMAIL.upper() if known else "nobody@example.org", client)
    whose = ada.pk if known else None
    assert said(found) == [("Log-in refused", whose, "10.1.2.3"), ("Log-in refused", whose, "10.1.2.4")]
    assert "wrong-password" not in str(found) and "nobody@" not in str(found)


def test_a_wrong_code_is_logged(client):
    admin = person("admin", PASSWORD, is_staff=True)
    admin.totpdevice_set.create(name="app", confirmed=True)
    client.force_login(admin)
    with lines() as found:
        client.post("/accounts/second-factor/", {"code": "000000"}, REMOTE_ADDR="10.1.2.3")
    assert said(found) == [("Second factor refused", admin.pk, "10.1.2.3")]


def test_the_session_of_an_admin_ends_the_same_day_whatever_is_done_in_it(client, ada):
    client.login(username=EMAIL, password=PASSWORD)
    assert client.session.get_expiry_age() == 14 * 24 * 3600
    person("boss", PASSWORD, is_staff=True)
    client.login(username="boss@example.org", password=PASSWORD)
    session = client.session
    assert session.get_expiry_date() - timezone.now() == pytest.approx(OF_ADMINS, abs=timedelta(minutes=1))
    first = session.get_expiry_date()
    session["more"] = 1
    session.save()
    assert client.session.get_expiry_date() == first
