"""The development wallet and the mail page."""

import json
import os

import pytest
from django.core import mail
from django.test import Client
from django.urls import reverse

from accounts.models import User
from contracts import devchain
from contracts.chain import GWEI
from dmlsite import dev
from providers.models import Provider

pytestmark = pytest.mark.django_db


@pytest.fixture
def ada():
    return User.objects.create_user("ada@example.org")


@pytest.fixture
def call(client, ada, settings, chain):
    settings.DEV_WALLET = True
    client.force_login(ada)

    def ask(method, *params):
        body = json.dumps({"jsonrpc": "2.0", "id": 7, "method": method, "params": params})
        return client.post(reverse("dev:rpc"), body, content_type="application/json").json()

    return ask


def test_connecting_fills_the_wallet_once(call, ada, chain):
    [address] = call("eth_requestAccounts")["result"]
    assert address == dev.account(ada).address
    assert chain.token_balance(address) == dev.TOKENS
    assert chain.native_balance(address) == dev.COINS_GWEI
    call("eth_requestAccounts")
    assert chain.token_balance(address) == dev.TOKENS


def test_it_signs_for_its_own_account_and_no_other(call, chain):
    [address] = call("eth_accounts")["result"]
    other = devchain.test_key(9).address
    before = chain.native_balance(other)
    tx = {"from": address, "to": other, "data": "0x", "value": hex(5 * GWEI), "chainId": call("eth_chainId")["result"]}
    sent = call("eth_sendTransaction", tx)["result"]
    assert chain.wait(sent).ok
    assert chain.native_balance(other) == before + 5
    assert call("eth_getTransactionReceipt", sent)["result"]["status"] == "0x1"
    assert call("eth_sendTransaction", tx | {"from": other})["error"]["code"] == 4100
    assert call("eth_sendTransaction", tx | {"chainId": "0x1"})["error"]["code"] == 4901


@pytest.mark.parametrize("method", ["anvil_setBalance", "eth_sign", "evm_mine", "debug_traceCall"])
def test_other_methods_are_refused(call, method):
    assert call(method)["error"]["code"] == 4200


def test_what_is_no_request_is_answered_as_such(client, ada, settings, chain):
    settings.DEV_WALLET = True
    client.force_login(ada)
    for body in ("", "[]", "{}", '"x"', '{"method": "eth_sendTransaction"}'):
        answer = client.post(reverse("dev:rpc"), body, content_type="application/json")
        assert answer.json()["error"]["code"] == -32600


def test_it_needs_a_login_and_the_csrf_token_and_a_development_chain(client, ada, settings):
    url, body = reverse("dev:rpc"), '{"method": "eth_chainId"}'
    assert client.post(url, body, content_type="application/json").status_code == 302
    strict = Client(enforce_csrf_checks=True)
    strict.force_login(ada)
    assert strict.post(url, body, content_type="application/json").status_code == 403
    settings.DEV_WALLET = False
    client.force_login(ada)
    assert client.post(url, body, content_type="application/json").status_code == 404


def test_a_provider_of_the_demo_keeps_its_wallet(ada):
    assert dev.account(ada) == devchain.test_key(dev.FIRST_ACCOUNT + ada.pk)
    Provider.objects.create(user=ada, user_name="ada", wallet=devchain.test_key(3).address)
    assert dev.account(ada) == devchain.test_key(3)


@pytest.fixture
def mail_on_disk(settings, tmp_path):
    settings.EMAIL_FILE_PATH = tmp_path
    settings.EMAIL_BACKEND = "django.core.mail.backends.filebased.EmailBackend"


def test_mails_that_share_a_file_are_shown_newest_first_too(client, mail_on_disk):
    with mail.get_connection() as connection:
        for subject in ("First", "Second"):
            mail.send_mail(subject, "text", None, ["a@b.org"], connection=connection)
    text = client.get(reverse("dev:mail")).content.decode()
    assert text.index("Second") < text.index("First")


def test_the_mail_page_shows_what_went_out_newest_first(client, mail_on_disk, tmp_path):
    assert "None yet." in client.get(reverse("dev:mail")).content.decode()
    mail.send_mail("Größe", "first <b>", None, ["a@b.org"])
    os.utime(next(tmp_path.glob("*.log")), (1, 1))  # the clock of file systems is coarse
    mail.send_mail("Second", "see http://localhost:8000/tickets/x/", None, ["a@b.org"])
    text = client.get(reverse("dev:mail")).content.decode()
    assert text.index("Second") < text.index("Größe")
    assert "first &lt;b&gt;" in text
    assert '<a href="http://localhost:8000/tickets/x/"' in text
