"""Sign-In with Ethereum: to link a wallet, and to log in with it."""

import re
from datetime import timedelta

import pytest
from django.test import Client
from django.urls import reverse
from django.utils import timezone
from eth_account import Account
from eth_account.messages import encode_defunct

from accounts.models import Wallet
from dmlsite.tests.people import counted_afresh, person  # noqa: F401

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("counted_afresh")]
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


def text(client, key=KEY):
    answer = client.post(reverse("accounts:wallet_text"), {"address": key.address.lower()})
    assert answer.status_code == 200, answer.content
    return answer.json()["text"]


def signed(message, key=KEY):
    return "0x" + key.sign_message(encode_defunct(text=message)).signature.hex()


def show(client, done, signature, **more):
    return client.post(reverse(f"accounts:wallet_{done}"), {"signature": signature, **more})


@pytest.fixture
def ada():
    return person("ada")


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
    other.force_login(person("bob"))
    answer = show(other, "link", signed(text(other)))
    assert answer.status_code == 409 and "another account" in answer.content.decode()
    assert Wallet.objects.get().user == ada


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
