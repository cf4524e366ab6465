"""Taking over somebody's session or account: fixation, replay, redirects, stored scripts."""

import pytest
from django.core.cache import cache
from django.test import Client
from eth_account import Account
from eth_account.messages import encode_defunct

from accounts.models import Wallet
from dmlsite.export import cell
from dmlsite.tests.people import PASSWORD, person
from dmlsite.tests.rows import everything
from tickets.models import Ticket
from training.models import Run

pytestmark = pytest.mark.django_db
EVIL = ["https://evil.example/", "//evil.example/", "/\\evil.example", "javascript:alert(1)", "https:evil.example"]
SCRIPT = '"><script>alert(1)</script><img src=x onerror=alert(1)>'


@pytest.fixture(autouse=True)
def no_counts():
    cache.clear()


@pytest.fixture
def ada():
    return person("ada", PASSWORD, is_customer=True)


def log_in(client: Client, **more):
    return client.post("/accounts/login/", {"username": "ada@example.org", "password": PASSWORD} | more)


def test_a_session_that_somebody_else_began_is_not_the_one_that_is_logged_in(client, ada):
    client.post("/accounts/wallet/text/", {"address": "0x" + "1" * 40})
    planted = client.cookies["sessionid"].value
    log_in(client)
    assert client.cookies["sessionid"].value != planted
    thief = Client()
    thief.cookies["sessionid"] = planted
    assert thief.get("/accounts/").status_code == 302


def test_a_new_password_ends_the_other_sessions_and_keeps_this_one(client, ada):
    other = Client()
    log_in(client), log_in(other)
    new = "another-good-one-7"
    form = {"old_password": PASSWORD, "new_password1": new, "new_password2": new}
    assert client.post("/accounts/password/", form).status_code == 302
    assert (client.get("/accounts/").status_code, other.get("/accounts/").status_code) == (200, 302)


def test_the_old_password_is_not_guessed_from_a_borrowed_session(client, ada, settings):
    settings.LOGIN_RATE = "3/5m"
    client.force_login(ada)
    form = {"old_password": "guess", "new_password1": "another-7", "new_password2": "another-7"}
    assert [client.post("/accounts/password/", form).status_code for _ in range(4)] == [200, 200, 200, 429]


@pytest.mark.parametrize("wanted", EVIL)
def test_nobody_is_sent_elsewhere_after_a_log_in(client, ada, wanted):
    assert log_in(client, next=wanted).url == "/tickets/"
    key = Account.create()
    Wallet.objects.create(user=ada, address=key.address)
    fresh = Client()
    signature = signed(fresh, key)
    answer = fresh.post("/accounts/wallet/login/", {"signature": signature, "next": wanted})
    assert answer.json()["next"] == "/tickets/"


def signed(client: Client, key) -> str:
    text = client.post("/accounts/wallet/text/", {"address": key.address}).json()["text"]
    return "0x" + key.sign_message(encode_defunct(text=text)).signature.hex()


def test_a_wallets_signature_is_good_once_and_in_its_own_session(client, ada):
    key = Account.create()
    Wallet.objects.create(user=ada, address=key.address)
    form = {"signature": signed(client, key)}
    thief = Client()
    thief.post("/accounts/wallet/text/", {"address": key.address})
    assert thief.post("/accounts/wallet/login/", form).status_code == 422, "another text was asked there"
    assert client.post("/accounts/wallet/login/", form).status_code == 200
    client.post("/accounts/logout/")
    assert client.post("/accounts/wallet/login/", form).status_code == 422


def test_an_unknown_account_costs_the_work_of_a_wrong_password(client, ada, monkeypatch):
    from django.contrib.auth.hashers import Argon2PasswordHasher

    work: list[str] = []
    encode = Argon2PasswordHasher.encode
    verify = Argon2PasswordHasher.verify
    monkeypatch.setattr(Argon2PasswordHasher, "encode", lambda self, *a: work.append("hash") or encode(self, *a))
    monkeypatch.setattr(Argon2PasswordHasher, "verify", lambda self, *a: work.append("hash") or verify(self, *a))
    done = {}
    for name in ("ada@example.org", "nobody@example.org"):
        for path in ("/accounts/login/", "/api/v1/login"):
            work.clear()
            client.post(path, {"username": name, "email": name, "password": "wrong"})
            done[name, path] = len(work)
    assert set(done.values()) == {1}


def test_a_file_called_as_a_script_is_shown_and_not_run(ada):
    ticket = everything()
    Ticket.objects.filter(pk=ticket.pk).update(file_name=SCRIPT, target=SCRIPT, outcome=SCRIPT)
    Run.objects.update(classes=[SCRIPT, "b"])
    client = Client()
    client.force_login(ticket.customer)
    for path in ("/tickets/", f"/tickets/{ticket.pk}/", f"/tickets/{ticket.pk}/progress/"):
        page = client.get(path).content.decode()
        assert "alert(1)</script>" not in page and "<img src=x" not in page, path


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1"])
def test_a_text_in_a_table_is_no_formula(text):
    assert cell(text) == f"'{text}"
