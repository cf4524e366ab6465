"""A provider's way in and out: the deposit's final event makes it active, and a ban is for good."""

from datetime import UTC, datetime
from uuid import uuid4

import pytest

from accounts.models import ApiKey, User
from contracts.chain import Reverted
from contracts.devchain import test_key as rich
from dmlsite.errors import Conflict, Forbidden, Invalid
from dmlsite.testing import finalize
from ledger import outbox
from ledger.gateway import key
from ledger.models import Alarm, ChainEvent, ChainTx
from ledger.scanner import Scanner
from providers import actions
from providers.models import Accusation, Provider, Standing

HOME = "/provider/"
pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def no_messages(monkeypatch):
    """Each step is taken by hand."""
    monkeypatch.setattr("dmlsite.jobs._send", lambda *args: None)


def join(name: str) -> Provider:
    return actions.join(User.objects.create_user(f"{name}@example.org", "x"), name)


def read(chain):
    """Send what is due, let it become final, and follow every event."""
    for pk in outbox.due():
        outbox.send(ChainTx.objects.get(pk=pk))
    finalize(chain)
    Scanner(chain).scan()
    outbox.confirm(chain)
    for event in ChainEvent.objects.filter(followed=None):
        actions.event_seen(event)


def deposited(chain, name: str, wallet) -> Provider:
    provider = join(name)
    chain.send(actions.deposit_call(provider, wallet.address), wallet)
    read(chain)
    provider.refresh_from_db()
    return provider


@pytest.mark.parametrize("name", ["ab", "-ada", "ada lovelace", "ada!", "x" * 31, ""])
def test_bad_user_names_are_refused(name):
    with pytest.raises(Invalid, match="3 to 30"):
        actions.check_user_name(name)


def test_a_user_name_is_unique_whatever_its_case():
    join("Ada")
    with pytest.raises(Invalid, match="taken"):
        actions.join(User.objects.create_user("other@example.org", "x"), "ADA")


def test_only_the_final_deposit_makes_a_provider_active(chain):
    provider = join("ada")
    with pytest.raises(Conflict, match="deposit is final"):
        actions.issue_key(provider)
    chain.send(actions.deposit_call(provider, rich(2).address), rich(2))
    Scanner(chain).scan()
    assert not ChainEvent.objects.filter(name="Registered").exists()
    read(chain)
    provider.refresh_from_db()
    assert (provider.standing, provider.wallet) == (Standing.ACTIVE, rich(2).address)
    assert provider.deposit_gwei == chain.deposit_gwei()
    assert actions.worker_of(actions.issue_key(provider)) == provider


def test_who_leaves_is_told_from_when_on_the_deposit_can_be_withdrawn(chain, client):
    provider = deposited(chain, "ada", rich(2))
    client.force_login(provider.user)
    page = client.get(HOME).content.decode()
    assert provider.deposit_tx[:14] in page.split("<h2>Deposit</h2>")[1]
    chain.send(actions.exit_call(provider), rich(2))
    read(chain)
    opens = datetime.fromtimestamp(chain.provider_standing(rich(2).address).unlock_at, UTC)
    button = client.get(HOME).content.decode().split("<h2>Leave</h2>")[1]
    assert f'<time datetime="{opens.isoformat()}">' in button and "data-wallet-go disabled" in button
    ChainEvent.objects.filter(name="ExitRequested").update(args={"provider": rich(2).address, "unlock_at": 1})
    button = client.get(HOME).content.decode().split("<h2>Leave</h2>")[1]
    assert "data-wallet-go" in button and "disabled" not in button


def test_a_wallet_belongs_to_whom_its_own_transaction_names(chain):
    """Naming somebody's wallet gives nothing: the deposit names the provider. Nor does copying that name."""
    mallory, ada = join("mallory"), join("ada")
    actions.deposit_call(mallory, rich(2).address)
    call = actions.deposit_call(ada, rich(2).address)
    chain.send(call, rich(3))  # seen in the pool, and sent first from another wallet
    chain.send(call, rich(2))
    read(chain)
    for provider in (ada, mallory):
        provider.refresh_from_db()
    assert (mallory.standing, mallory.wallet) == (Standing.PENDING, None)
    assert (ada.standing, ada.wallet) == (Standing.ACTIVE, rich(2).address)
    assert Alarm.objects.get().case == ada.pk


def test_a_deposit_of_another_size_is_refused(chain):
    from dataclasses import replace

    call = actions.deposit_call(join("ada"), rich(2).address)
    with pytest.raises(Reverted, match="WrongDeposit"):
        chain.send(replace(call, value_gwei=call.value_gwei - 1), rich(2))


def test_accused_banned_and_never_back(chain):
    cheat, honest = deposited(chain, "cheat", rich(2)), deposited(chain, "honest", rich(3))
    worker_key = actions.issue_key(cheat)
    accusation = actions.accuse([cheat], [honest], "two replays failed", evidence={"replays": []})
    cheat.refresh_from_db()
    assert cheat.standing == Standing.ACCUSED
    read(chain)
    chain.w3.provider.make_request("evm_increaseTime", [10])
    chain.w3.provider.make_request("evm_mine", [])
    ChainTx.objects.filter(verb="executeBan").update(not_before=None)
    read(chain)
    cheat.refresh_from_db()
    accusation.refresh_from_db()
    assert (cheat.standing, accusation.state) == (Standing.BANNED, Accusation.State.EXECUTED)
    assert chain.coin_credit(honest.wallet) == chain.deposit_gwei()
    with pytest.raises(Forbidden):
        actions.worker_of(worker_key)
    assert not ApiKey.objects.filter(user=cheat.user, revoked=None).exists()
    assert not actions.change_standing(cheat, Standing.ACTIVE, "please")
    with pytest.raises(Conflict):
        actions.deposit_call(cheat, rich(2).address)
    assert [(event.old, event.new) for event in cheat.history.all()] == [
        ("pending", "active"),
        ("active", "accused"),
        ("accused", "banned"),
    ]


def test_an_admin_lifts_an_accusation_in_time(chain):
    provider = deposited(chain, "ada", rich(2))
    accusation = actions.accuse([provider], [], "a mistake", evidence={})
    read(chain)
    actions.lift(accusation, "it was our bug", "admin@example.org")
    read(chain)
    provider.refresh_from_db()
    assert provider.standing == Standing.ACTIVE
    assert chain.accusation(accusation.pk).state == "Acquitted"
    assert ChainTx.objects.get(verb="executeBan").state == ChainTx.State.DROPPED
    assert provider.history.last().actor == "admin@example.org"
    with pytest.raises(Conflict):
        actions.lift(accusation, "again", "admin@example.org")


def test_leaving_and_withdrawing(chain):
    provider = deposited(chain, "ada", rich(2))
    chain.send(actions.exit_call(provider), rich(2))
    read(chain)
    provider.refresh_from_db()
    assert provider.standing == Standing.EXITING
    with pytest.raises(Reverted):
        chain.send(actions.withdraw_call(provider), rich(2))
    chain.w3.provider.make_request("evm_increaseTime", [chain.unbonding_seconds + 1])
    chain.w3.provider.make_request("evm_mine", [])
    chain.send(actions.withdraw_call(provider), rich(2))
    read(chain)
    provider.refresh_from_db()
    assert (provider.standing, provider.deposit_gwei) == (Standing.LEFT, 0)


def test_an_accusation_that_the_platform_never_made_alarms(chain):
    """The settler's key is stolen; there is time for the guardian's veto."""
    provider = deposited(chain, "ada", rich(2))
    chain.send(chain.accuse_call(uuid4(), [provider.wallet], []), key("settler"))
    read(chain)
    provider.refresh_from_db()
    assert provider.standing == Standing.ACTIVE
    assert provider.wallet in Alarm.objects.get(kind="unknown accusation").text


def test_an_accusation_that_was_never_sent_is_lifted_without_the_chain(chain):
    provider = deposited(chain, "ada", rich(2))
    accusation = actions.accuse([provider], [], "a mistake", evidence={})
    actions.lift(accusation, "a slip of the hand", "admin@example.org")
    read(chain)
    provider.refresh_from_db()
    assert provider.standing == Standing.ACTIVE
    assert [(tx.verb, tx.state) for tx in ChainTx.objects.all()] == [("accuse", "dropped")]
    assert not Alarm.objects.exists()
