"""Joining, depositing and making keys over the API."""

import pytest

from accounts.models import ApiKey
from contracts.devchain import test_key as rich
from dmlsite.tests.people import api, counted_afresh, person, problem  # noqa: F401
from providers.models import Provider, Standing

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("counted_afresh")]
ME, DEPOSIT, KEYS = "/api/v1/provider", "/api/v1/provider/deposit", "/api/v1/provider/keys"


@pytest.fixture
def user():
    return person("provider", is_provider=True)


@pytest.fixture
def provider(user):
    return Provider.objects.create(user=user, user_name="gpu-farm")


def active(provider, wallet=None):
    Provider.objects.filter(pk=provider.pk).update(standing=Standing.ACTIVE, wallet=wallet, deposit_gwei=10**6)


def test_joining_reserves_the_name(user):
    problem(api(user).get(ME), 404)
    answer = api(user).post(ME, {"user_name": "gpu-farm"})
    assert answer.status_code == 201
    assert answer.json()["standing"] == "pending"
    assert api(user).get(ME).json() == answer.json()
    problem(api(user).post(ME, {"user_name": "another"}), 409)


@pytest.mark.parametrize("name", ["", "ab", "with space", "x" * 31, "GPU-Farm", "-dash"])
def test_a_name_that_cannot_be_is_422(provider, name):
    problem(api(person("late")).post(ME, {"user_name": name}), 422)


def test_an_outsider_sees_and_gets_nothing_of_a_provider(provider):
    active(provider)
    outsider = api(person("outsider", is_customer=True))
    problem(outsider.get(ME), 404)
    problem(outsider.post(DEPOSIT, {"wallet": rich(1).address}), 404)
    problem(outsider.post(KEYS), 404)
    assert not ApiKey.objects.exists()


@pytest.mark.parametrize(("method", "url"), [("get", ME), ("post", ME), ("post", DEPOSIT), ("post", KEYS)])
def test_a_stranger_is_told_to_log_in(provider, method, url):
    problem(getattr(api(), method)(url), 401)


def test_the_deposit_is_shown_in_coins(user, provider):
    active(provider)
    assert api(user).get(ME).json()["deposit"] == "0.001"


def test_a_key_needs_a_deposit_and_works(user, provider):
    problem(api(user).post(KEYS), 409)
    active(provider)
    answer = api(user).post(KEYS, {"name": "cellar"})
    assert answer.status_code == 201
    assert answer["Cache-Control"] == "no-store"
    assert ApiKey.valid(answer.json()["key"]).get().user == user
    assert ApiKey.objects.get().name == "cellar"


@pytest.mark.parametrize("standing", [Standing.ACCUSED, Standing.BANNED])
def test_who_is_accused_or_banned_gets_no_key(user, provider, standing):
    Provider.objects.update(standing=standing)
    problem(api(user).post(KEYS), 409)


@pytest.mark.parametrize("wallet", ["", "0x12", "me", "0x" + "g" * 40, rich(1).address.swapcase()])
def test_a_wallet_must_be_an_address(user, provider, wallet):
    assert "wallet" in problem(api(user).post(DEPOSIT, {"wallet": wallet}), 422)["errors"]


def test_another_providers_wallet_is_refused(user, provider):
    other = Provider.objects.create(user=person("other"), user_name="other")
    active(other, rich(1).address)
    problem(api(user).post(DEPOSIT, {"wallet": rich(1).address.lower()}), 409)


def test_without_a_chain_the_answer_is_503_and_tells_nothing_of_our_files(user, provider, settings, tmp_path):
    from ledger import gateway

    gateway.chain.cache_clear()
    settings.CHAIN_DEPLOYMENT = tmp_path / "none.json"
    assert str(tmp_path) not in problem(api(user).post(DEPOSIT, {"wallet": rich(1).address}), 503)["detail"]


def test_the_prepared_deposit_is_taken_by_the_chain(chain, user, provider):
    from contracts.chain import Call

    call = api(user).post(DEPOSIT, {"wallet": rich(1).address.lower()}).json()
    assert call["from"] == rich(1).address
    assert int(call["chainId"], 16) == chain.deployment.chain_id
    chain.send(Call(call["to"], call["data"], int(call["value"], 16) // 10**9), rich(1))
    assert chain.provider_standing(rich(1).address).name == "Active"
    active(provider, rich(1).address)
    problem(api(user).post(DEPOSIT, {"wallet": rich(1).address}), 409)
