"""What a new password ends, what goes on, and what the owner is told, whoever sets it."""

import re

import pytest
from django.core import mail
from django.core.cache import cache
from django.test import Client
from django.urls import reverse
from django.utils import timezone
from rest_framework.authtoken.models import Token

from accounts import actions
from accounts.models import ApiKey, Wallet
from dmlsite.tests.people import PASSWORD, admin_client, person

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("inline_jobs")]
NEW = "another-good-one-7"
ASKED = 'name="workers_too"'


@pytest.fixture(autouse=True)
def no_counts():
    cache.clear()


@pytest.fixture
def ada():
    return person("ada", PASSWORD, is_customer=True, is_provider=True)


def in_force() -> set[str]:
    return set(ApiKey.objects.filter(revoked=None).values_list("use", flat=True))


def change(client: Client, **more: str):
    client.login(username="ada@example.org", password=PASSWORD)
    form = {"old_password": PASSWORD, "new_password1": NEW, "new_password2": NEW}
    return client.post(reverse("accounts:password"), form | more, follow=True).content.decode()


def test_a_new_password_ends_programs_and_leaves_workers_and_says_so(client, ada):
    ApiKey.issue(ada), actions.issue_key(ada, "lab"), actions.issue_key(ada, "look", "read")
    Token.objects.create(user=ada)
    page = change(client)
    assert in_force() == {ApiKey.Use.WORKER} and not Token.objects.exists()
    assert "no longer work" in page and "The keys of your workers still work" in page
    [sent] = mail.outbox
    assert (sent.subject, sent.to) == ("Your password was changed", ["ada@example.org"])
    assert "workers still work" in sent.body and "http://localhost:8000/provider/" in sent.body


def test_workers_go_too_if_the_owner_says_so(client, ada):
    ApiKey.issue(ada), actions.issue_key(ada, "lab")
    ApiKey.issue(person("bob", is_provider=True))
    page = change(client, workers_too="on")
    assert list(ApiKey.objects.filter(revoked=None).values_list("user__email", flat=True)) == ["bob@example.org"]
    assert "still work" not in page + mail.outbox[0].body


def test_only_who_has_workers_is_asked_about_them(client, ada):
    client.force_login(ada)
    assert ASKED not in client.get(reverse("accounts:password")).content.decode()
    ApiKey.issue(ada)
    assert ASKED in client.get(reverse("accounts:password")).content.decode()
    ApiKey.objects.update(revoked=timezone.now())
    assert ASKED not in client.get(reverse("accounts:password")).content.decode()


def test_the_link_in_a_mail_asks_as_well(client, ada):
    ApiKey.issue(ada)
    client.post(reverse("accounts:reset"), {"email": "ada@example.org"})
    link = re.search(r"http://localhost:8000(\S+/reset/\S+)", mail.outbox.pop().body)[1]
    form = client.get(link, follow=True)
    assert ASKED in form.content.decode()
    new = {"new_password1": NEW, "new_password2": NEW, "workers_too": "on"}
    assert client.post(form.request["PATH_INFO"], new).status_code == 302
    assert in_force() == set() and [sent.subject for sent in mail.outbox] == ["Your password was changed"]
    assert client.get(link, follow=True).status_code == 200, "a link that is used up is no crash"


def test_what_an_admin_sets_ends_the_same_and_is_told(ada):
    ApiKey.issue(ada), actions.issue_key(ada, "lab")
    Token.objects.create(user=ada)
    page = reverse("admin:auth_user_password_change", args=[ada.pk])
    answer = admin_client().post(page, {"password1": NEW, "password2": NEW, "usable_password": "true"})
    assert answer.status_code == 302, answer.content.decode()
    ada.refresh_from_db()
    assert ada.check_password(NEW)
    assert in_force() == {ApiKey.Use.WORKER} and not Token.objects.exists()
    assert [sent.to for sent in mail.outbox] == [["ada@example.org"]]


def test_the_mail_names_wallets_that_still_log_in(client, ada):
    Wallet.objects.create(user=ada, address="0x" + "1" * 40)
    change(client)
    assert "linked wallets still log you in" in mail.outbox[0].body


@pytest.mark.parametrize("password", ["elevenchar1", "short"])
def test_a_password_has_twelve_characters(client, password):
    form = {"kind": "customer", "email": "new@example.org", "password": password, "confirm": password}
    answer = client.post(reverse("accounts:register"), form)
    assert answer.status_code == 422 and "at least 12 characters" in answer.content.decode()
