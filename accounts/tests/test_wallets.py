"""Sign-In with Ethereum: to link a wallet, and to log in with it."""

import re
from datetime import timedelta

import pytest
from django.core import mail
from django.test import Client
from django.urls import reverse
from django.utils import timezone
from eth_account import Account
from eth_account.messages import encode_defunct

from accounts.models import Wallet
from dmlsite.tests.people import PASSWORD, counted_afresh, person  # noqa: F401

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("inline_jobs", "counted_afresh")]
KEY = Account.create()

EIP_4361 = re.compile(
    r"(?P<domain>[\w.:-]+) wants you to sign in with your Ethereum account:\n"
    r"(?P<address>0x[0-9a-fA-F]{40})\n\n"
    r"(?P<statement>[^\n]+)\n\n"
    r"URI: (?P<uri>\S+)\nVersion: 1\nChain ID: (?P<chain>\d+)\nNonce: (?P<nonce>[0-9a-zA-Z]{8,})\n"
    r"Issued At: (?P<issued>\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00)\n"
    r"Expiration Time: (?P<expires>\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00)"
)
"""The message's ABNF, as far as we use it."""


def ask(client, key=KEY, **more):
    return client.post(reverse("accounts:wallet_text"), {"address": key.address.lower(), **more})


def text(client, key=KEY):
    answer = ask(client, key, password=PASSWORD)
    assert answer.status_code == 200, answer.content
    return answer.json()["text"]


def signed(message, key=KEY):
    return "0x" + key.sign_message(encode_defunct(text=message)).signature.hex()


def show(client, done, signature, **more):
    return client.post(reverse(f"accounts:wallet_{done}"), {"signature": signature, **more})


@pytest.fixture
def ada():
    return person("ada", PASSWORD)


@pytest.fixture
def linked(ada):
    return Wallet.objects.create(user=ada, address=KEY.address)


def test_the_text_is_eip_4361s_and_names_our_site(client, settings):
    settings.SITE_URL = "https://dml.example:8443"
    found = EIP_4361.fullmatch(text(client))
    assert (found["domain"], found["uri"]) == ("dml.example:8443", "https://dml.example:8443")
    assert (found["address"], found["chain"]) == (KEY.address, str(settings.CHAIN_ID))
    assert EIP_4361.fullmatch(text(client))["nonce"] != found["nonce"]


def test_a_wallet_is_linked_once_and_to_one_account(client, ada):
    client.force_login(ada)
    for _ in range(2):
        assert show(client, "link", signed(text(client))).json() == {"next": reverse("accounts:account")}
    assert KEY.address in client.get(reverse("accounts:account")).content.decode()
    other = Client()
    other.force_login(person("bob", PASSWORD))
    answer = show(other, "link", signed(text(other)))
    assert answer.status_code == 409 and "another account" in answer.content.decode()
    assert Wallet.objects.get().user == ada


@pytest.mark.parametrize("password", [None, "wrong"])
def test_a_borrowed_session_links_nothing(client, ada, password):
    client.force_login(ada)
    answer = ask(client, **({"password": password} if password else {}))
    assert answer.status_code == 422 and "not your password" in answer.content.decode()
    assert show(client, "link", signed("whatever")).status_code == 422
    assert not Wallet.objects.exists()


def test_guessing_the_password_is_limited(client, ada, settings):
    settings.LOGIN_RATE = "2/5m"
    client.force_login(ada)
    assert [ask(client, password="wrong").status_code for _ in range(3)] == [422, 422, 429]


def test_an_account_without_a_password_links_no_wallet(client):
    client.force_login(person("nobody"))
    answer = ask(client, password="")
    assert answer.status_code == 422 and "has no password" in answer.content.decode()


def test_the_owner_is_told_by_mail_once(client, ada):
    client.force_login(ada)
    for _ in range(2):
        show(client, "link", signed(text(client)))
    [message] = mail.outbox
    assert message.to == [ada.email] and KEY.address in message.body
    assert reverse("accounts:reset") in message.body and "unlinks every wallet" in message.body


def new_password(client, ada):
    """Chosen by the mailed link; the page at the end."""
    client.post(reverse("accounts:reset"), {"email": ada.email})
    form = client.get(re.search(r"http://[^/]+(/\S+)", mail.outbox[-1].body)[1], follow=True)
    passwords = {"new_password1": "another-7-good", "new_password2": "another-7-good"}
    return client.post(form.request["PATH_INFO"], passwords, follow=True).content.decode()


def test_a_new_password_by_mail_unlinks_every_wallet_and_says_so(client, ada, linked):
    other = Wallet.objects.create(user=person("bob"), address=Account.create().address)
    assert "Your 1 linked wallet was unlinked" in new_password(client, ada)
    assert "unlinks" in mail.outbox[0].body
    assert Wallet.objects.get() == other
    refused(show(client, "login", signed(text(client))), client)


def test_who_has_no_wallet_hears_of_none(client, ada):
    assert "unlinked" not in new_password(client, ada)


def test_a_password_changed_by_who_knows_the_old_one_keeps_them(client, ada, linked):
    client.force_login(ada)
    fields = {"old_password": PASSWORD, "new_password1": "another-7-good", "new_password2": "another-7-good"}
    assert client.post(reverse("accounts:password"), fields).status_code == 302
    assert Wallet.objects.get() == linked


def test_a_linked_wallet_logs_in_and_an_unlinked_one_no_longer_does(client, ada, linked):
    answer = show(client, "login", signed(text(client)), next="/tickets/order/")
    assert answer.json() == {"next": "/tickets/order/"}
    assert client.session["_auth_user_id"] == str(ada.pk)
    client.post(reverse("accounts:wallet_unlink", args=[linked.pk]))
    client.post(reverse("accounts:logout"))
    answer = show(client, "login", signed(text(client)))
    assert answer.status_code == 422 and "No account knows this wallet" in answer.content.decode()


def test_nobody_is_sent_to_another_site(client, linked):
    answer = show(client, "login", signed(text(client)), next="https://evil.example/")
    assert answer.json()["next"].startswith("/")


def test_a_closed_account_is_not_opened(client, ada, linked):
    ada.is_active = False
    ada.save()
    assert show(client, "login", signed(text(client))).status_code == 422


def refused(answer, client):
    assert answer.status_code == 422
    assert "_auth_user_id" not in client.session


def test_another_ones_signature_is_refused_and_the_text_is_used_up(client, linked):
    asked = text(client)
    refused(show(client, "login", signed(asked, Account.create())), client)
    refused(show(client, "login", signed(asked)), client)


@pytest.mark.parametrize("signature", ["", "0x", "0x00", "zz", "0x" + "ff" * 65])
def test_what_is_no_signature_is_refused(client, linked, signature):
    text(client)
    refused(show(client, "login", signature), client)


def test_a_text_of_another_session_or_of_long_ago_is_refused(client, linked, monkeypatch):
    elsewhere = text(Client())
    refused(show(client, "login", signed(elsewhere)), client)
    asked, later = text(client), timezone.now() + timedelta(minutes=6)
    with monkeypatch.context() as then:
        then.setattr(timezone, "now", lambda: later)
        refused(show(client, "login", signed(asked)), client)


def test_a_text_for_linking_does_not_log_in(client, ada, linked):
    client.force_login(ada)
    asked = text(client)
    session = client.session
    del session["_auth_user_id"]
    session.save()
    refused(show(client, "login", signed(asked)), client)


def test_what_is_no_address_is_refused(client):
    answer = client.post(reverse("accounts:wallet_text"), {"address": "0x12"})
    assert answer.status_code == 422 and "no address" in answer.content.decode()


def test_somebody_elses_wallet_is_not_unlinked(client, linked):
    client.force_login(person("bob"))
    client.post(reverse("accounts:wallet_unlink", args=[linked.pk]))
    assert Wallet.objects.exists()
