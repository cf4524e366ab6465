"""The provider's page, in each standing, and who may use it."""

import uuid

import pytest
from django.core.cache import cache
from django.urls import reverse

from accounts.models import ApiKey, User
from ledger.models import Currency, Transfer
from providers.models import Connection, Provider, Standing, StandingEvent

pytestmark = pytest.mark.django_db
WALLET = "0x70997970C51812dc3A010C7d01b50e0d17dc79C8"
OTHER = "0x3C44CdDdB6a900fa2b585dd299e03d12FA4293BC"
HOME = "/provider/"


@pytest.fixture(autouse=True)
def no_counts():
    cache.clear()


@pytest.fixture
def ada():
    return User.objects.create_user("ada@example.org", is_provider=True)


@pytest.fixture
def owner(client, ada):
    client.force_login(ada)
    return client


@pytest.fixture
def active(ada):
    return Provider.objects.create(
        user=ada, user_name="ada", wallet=WALLET, standing=Standing.ACTIVE, deposit_gwei=10**6
    )


@pytest.fixture
def eve():
    user = User.objects.create_user("eve@example.org", is_provider=True)
    return Provider.objects.create(user=user, user_name="eve", wallet=OTHER, standing=Standing.ACTIVE)


def text_of(answer):
    return answer.content.decode()


@pytest.mark.parametrize("name", ["home", "name", "live", "deposit", "leave", "withdraw", "credit", "key_create"])
def test_nobody_without_login_gets_in(client, name):
    url = reverse(f"providers:{name}")
    answer = client.get(url) if name in ("home", "name", "live") else client.post(url)
    assert answer.url.startswith(reverse("accounts:login"))


@pytest.mark.parametrize("name", ["live", "deposit", "leave", "withdraw", "credit", "key_create"])
def test_who_has_not_joined_gets_a_404(owner, name):
    url = reverse(f"providers:{name}")
    answer = owner.get(url) if name == "live" else owner.post(url, {"address": WALLET, "name": "x"})
    assert answer.status_code == 404


def test_a_customer_joins_and_is_a_provider_too(client, chain):
    user = User.objects.create_user("c@example.org", is_customer=True)
    client.force_login(user)
    assert "0.001" in text_of(client.get(HOME))
    assert client.post(HOME, {"user_name": "node-1"}).url == HOME
    user.refresh_from_db()
    assert user.is_customer
    assert user.is_provider
    page = text_of(client.get(HOME))
    assert "Pay the deposit" in page
    assert "Create API key" not in page


@pytest.mark.parametrize(
    ("name", "message"),
    [("EVE", "taken"), ("a b", "letters, digits"), ("no", "3"), ("-ada", "starts with"), ("", "required")],
)
def test_bad_names_are_refused_with_the_reason(owner, eve, name, message):
    answer = owner.post(HOME, {"user_name": name})
    assert answer.status_code == 422
    assert message in text_of(answer)
    if name:
        assert 'class="error"' in text_of(owner.get(reverse("providers:name"), {"user_name": name}))


def test_a_free_name_is_said_to_be_free(owner):
    assert "ada is free." in text_of(owner.get(reverse("providers:name"), {"user_name": "ada"}))


def test_the_join_page_stands_while_the_chain_is_away(owner, settings, tmp_path):
    settings.CHAIN_DEPLOYMENT = tmp_path / "nothing.json"
    assert owner.get(HOME).status_code == 200


def test_the_deposit_is_prepared_for_the_wallet_and_believed_from_nobody(owner, ada, chain):
    provider = Provider.objects.create(user=ada, user_name="ada")
    answer = owner.post(reverse("providers:deposit"), {"address": WALLET}).json()["transaction"]
    assert (answer["from"], answer["to"], int(answer["value"], 16)) == (WALLET, chain.deployment.escrow, 10**15)
    assert provider.pk.hex in answer["data"]
    provider.refresh_from_db()
    assert provider.standing == Standing.PENDING


@pytest.mark.parametrize(("address", "status"), [("0x12", 422), ("", 422), (OTHER, 409)])
def test_a_deposit_from_no_wallet_or_anothers_is_refused(owner, ada, eve, chain, address, status):
    Provider.objects.create(user=ada, user_name="ada")
    assert owner.post(reverse("providers:deposit"), {"address": address}).status_code == status


def test_a_key_is_shown_once_with_the_command(owner, active, settings):
    answer = owner.post(reverse("providers:key_create"), {"name": "attic"})
    page = text_of(answer)
    key = page.split('<pre id="key">')[1].split("<")[0]
    assert ApiKey.valid(key).get().user == active.user
    assert f"python -m dmlworker --server {settings.SITE_URL} --key {key}" in page
    assert "no-store" in answer.headers["Cache-Control"]
    again = text_of(owner.get(HOME))
    assert key not in again
    assert "attic" in again


@pytest.mark.parametrize(("url", "host"), [("https://dml.example", ""), ("http://localhost:8000", "--network host ")])
def test_a_new_key_comes_with_the_command_for_each_system(owner, active, settings, url, host):
    settings.SITE_URL = url
    page = text_of(owner.post(reverse("providers:key_create"), {"name": "attic"}))
    key = page.split('<pre id="key">')[1].split("<")[0]
    commands = {name: page.split(f'<pre id="command{name}">')[1].split("<")[0] for name in ("", "-windows", "-docker")}
    assert commands == {
        "": f"python -m dmlworker --server {url} --key {key}",
        "-windows": f"py -m dmlworker --server {url} --key {key}",
        "-docker": f"docker run --rm {host}--env DML_KEY={key} --volume dml-worker:/home/worker/.cache"
        f" dml-worker --server {url}",
    }
    for name in commands:
        assert f'data-copy="command{name}"' in page


@pytest.mark.parametrize("standing", [Standing.PENDING, Standing.ACCUSED, Standing.BANNED, Standing.LEFT])
def test_only_active_providers_get_a_key(owner, active, standing):
    Provider.objects.update(standing=standing)
    assert owner.post(reverse("providers:key_create"), {"name": "x"}).status_code == 409
    assert not ApiKey.objects.exists()


def test_a_key_is_revoked_by_its_owner_only(owner, active, eve):
    mine, theirs = ApiKey.issue(active.user), ApiKey.issue(eve.user)
    for key in ApiKey.objects.all():
        answer = owner.post(reverse("providers:key_revoke", args=[key.pk]))
        assert answer.status_code == (302 if key.user == active.user else 404)
    assert not ApiKey.valid(mine).exists()
    assert ApiKey.valid(theirs).get().user == eve.user


def test_the_page_shows_workers_earnings_and_history(owner, active):
    Connection.objects.create(provider=active, channel="c", device="Ada's laptop")
    fields = {"currency": Currency.DML, "debit": "escrow:x", "credit": f"provider:{WALLET}", "case": uuid.uuid4()}
    Transfer.objects.create(key="1", kind=Transfer.Kind.POSTED, amount=30_000, **fields)
    Transfer.objects.create(key="2", kind=Transfer.Kind.PENDING, amount=70_000, **fields)
    StandingEvent.objects.create(provider=active, old="pending", new="active", reason="deposit paid")
    for page in (HOME, reverse("providers:live") + "?standing=active"):
        text = text_of(owner.get(page))
        for part in ("Ada&#x27;s laptop", "0.03 DML", "0.07 DML", "deposit paid"):
            assert part in text


def test_the_page_reloads_itself_when_the_standing_changed(owner, active):
    answer = owner.get(reverse("providers:live"), {"standing": "pending"})
    assert answer.headers["HX-Refresh"] == "true"


def test_leaving_and_withdrawing_follow_the_standing(owner, active, chain):
    leave, withdraw = (reverse(f"providers:{name}") for name in ("leave", "withdraw"))
    assert owner.post(leave).json()["transaction"]["from"] == WALLET
    assert owner.post(withdraw).status_code == 409
    Provider.objects.update(standing=Standing.EXITING)
    assert owner.post(leave).status_code == 409
    assert owner.post(withdraw).json()["transaction"]["to"] == chain.deployment.escrow


def test_a_share_in_a_cheats_deposit_can_be_fetched(owner, active, chain):
    fields = {"currency": Currency.COIN, "debit": "case:x", "credit": f"credit:{WALLET}", "case": uuid.uuid4()}
    Transfer.objects.create(key="1", kind=Transfer.Kind.POSTED, amount=500_000, **fields)
    assert "0.0005" in text_of(owner.get(HOME))
    assert owner.post(reverse("providers:credit")).json()["transaction"]["to"] == chain.deployment.escrow


def test_the_banned_are_told_why(owner, active):
    Provider.objects.update(standing=Standing.BANNED)
    StandingEvent.objects.create(provider=active, old="active", new="banned", reason="two replays show it")
    text = text_of(owner.get(HOME))
    assert "banned for good" in text
    assert "two replays show it" in text
