"""A worker shows a sign-in that its provider's wallet signed, in place of an API key; connections that nobody closed."""

import time
from datetime import timedelta
from urllib.parse import urlsplit

import pytest
from django.utils import timezone
from eth_account import Account

from accounts.models import User
from contracts.keys import make_keystore
from dmlsite.errors import Forbidden
from dmlworker.client import Settings
from dmlworker.wallet import Wallet
from providers import actions
from providers.models import Connection, Provider, Standing

pytestmark = pytest.mark.django_db


@pytest.fixture
def key():
    return Account.create()


@pytest.fixture
def provider(key):
    user = User.objects.create_user("ada@example.org", "x", is_provider=True)
    return Provider.objects.create(user=user, user_name="ada", wallet=key.address, standing=Standing.ACTIVE)


@pytest.fixture
def site(settings):
    return urlsplit(settings.SITE_URL).netloc


def test_the_wallets_signature_opens_the_door(key, provider, site):
    assert actions.worker_of(Wallet(key).token(site)) == provider


def test_a_connection_whose_web_process_died_is_forgotten_some_day(provider):
    for age in (0, 2):
        seen = timezone.now() - timedelta(days=age)
        Connection.objects.create(provider=provider, channel=f"channel {age}", seen=seen)
    actions.forget_connections()
    assert Connection.objects.get().channel == "channel 0"


def test_a_wallet_that_never_joined_opens_nothing(provider, site):
    with pytest.raises(Forbidden, match="has joined"):
        actions.worker_of(Wallet(Account.create()).token(site))


def test_a_signature_for_another_site_cannot_be_passed_on(key, provider):
    with pytest.raises(Forbidden, match="is not signed by"):
        actions.worker_of(Wallet(key).token("evil.example.org"))


@pytest.mark.parametrize("moved", [-25 * 3600, 25 * 3600])
def test_it_is_good_for_a_day_and_no_longer(key, provider, site, monkeypatch, moved):
    token = Wallet(key).token(site)
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + moved)
    with pytest.raises(Forbidden, match="run out"):
        actions.worker_of(token)


def test_who_changes_a_part_of_it_is_refused(key, provider, site):
    _, wallet, expires, signature = Wallet(key).token(site).split(":")
    other = Account.create().address
    for parts in (
        ("wallet", other, expires, signature),
        ("wallet", wallet, str(int(expires) + 1), signature),
        ("wallet", wallet.lower(), expires, signature),
        ("wallet", wallet, expires, "0x" + signature[3:] + signature[2]),
        ("wallet", wallet, expires, "0x" + "zz" * 65),
        ("wallet", wallet, "soon", signature),
        ("wallet",),
        ("wallet", "", "", ""),
    ):
        with pytest.raises(Forbidden):
            actions.worker_of(":".join(parts))


def test_a_worker_signs_with_its_keystore_and_again_before_the_day_is_over(key, tmp_path, monkeypatch):
    make_keystore(tmp_path / "key.json", "secret", key=key, iterations=2)
    wallet = Wallet.load(tmp_path / "key.json", "secret")
    settings = Settings("https://dml.example.org", "", tmp_path, 1, wallet)
    first = settings.authorization["Authorization"]
    assert first.startswith(f"Bearer wallet:{key.address}:")
    assert settings.authorization["Authorization"] == first
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 13 * 3600)
    assert settings.authorization["Authorization"] != first


@pytest.mark.parametrize(
    ("content", "passphrase", "said"),
    [(None, "x", "Can't read"), ("{}", "x", "no keystore"), ("", "x", "no keystore"), ("real", "wrong", "passphrase")],
)
def test_a_bad_keystore_is_told(tmp_path, key, content, passphrase, said):
    path = tmp_path / "key.json"
    if content == "real":
        make_keystore(path, "secret", key=key, iterations=2)
    elif content is not None:
        path.write_text(content)
    with pytest.raises(ValueError, match=said):
        Wallet.load(path, passphrase)
