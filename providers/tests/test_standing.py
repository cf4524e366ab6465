"""A provider's way in and out: the deposit's final event makes it active, and a ban is for good."""

from uuid import uuid4

import pytest
from django.utils import timezone

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


def accused(chain, provider) -> Accusation:
    found = actions.accuse([provider], [], "two replays failed", evidence={})
    read(chain)
    found.refresh_from_db()
    return found


def long_ago(accusation: Accusation) -> None:
    """The time to execute it is over, by the clock of the wall; the chain's own need not have moved."""
    Accusation.objects.filter(pk=accusation.pk).update(lapses_at=timezone.now() - 2 * actions.LAPSE_GRACE)


def test_the_chains_times_of_an_accusation_are_kept(chain):
    accusation = accused(chain, deposited(chain, "ada", rich(2)))
    there = chain.accusation(accusation.pk)
    assert (accusation.executable_at.timestamp(), accusation.lapses_at.timestamp()) == (
        there.executable_at,
        there.lapses_at,
    )


def test_an_accusation_that_is_not_executed_in_time_frees_the_provider_and_tells_the_admins(chain):
    provider = deposited(chain, "ada", rich(2))
    accusation = accused(chain, provider)
    actions.lapse_overdue()
    accusation.refresh_from_db()
    assert accusation.state == Accusation.State.OPEN, "not yet"
    long_ago(accusation)
    actions.lapse_overdue()
    for row in (provider, accusation):
        row.refresh_from_db()
    assert (provider.standing, accusation.state) == (Standing.ACTIVE, Accusation.State.LAPSED)
    assert ChainTx.objects.get(verb="executeBan").state == ChainTx.State.DROPPED
    assert Alarm.objects.get().kind == "accusation lapsed"
    actions.lapse_overdue()
    assert Alarm.objects.count() == 1


def test_a_ban_that_was_executed_in_time_does_not_lapse(chain):
    provider = deposited(chain, "ada", rich(2))
    accusation = accused(chain, provider)
    chain.w3.provider.make_request("evm_increaseTime", [10])
    chain.w3.provider.make_request("evm_mine", [])
    ChainTx.objects.filter(verb="executeBan").update(not_before=None)
    for pk in outbox.due():
        outbox.send(ChainTx.objects.get(pk=pk))
    chain.wait(ChainTx.objects.get(verb="executeBan").hash)  # mined, and its event not read yet
    long_ago(accusation)
    actions.lapse_overdue()
    accusation.refresh_from_db()
    assert accusation.state == Accusation.State.OPEN
    read(chain)
    provider.refresh_from_db()
    assert provider.standing == Standing.BANNED


@pytest.mark.parametrize("when", ["before", "after"])
def test_who_wanted_to_leave_is_leaving_again_when_the_accusation_is_over(chain, when):
    """Asked before the accusation or, straight at the contract, after it."""
    provider = deposited(chain, "ada", rich(2))
    if when == "before":
        chain.send(chain.exit_call(), rich(2))
        read(chain)
    accusation = accused(chain, Provider.objects.get(pk=provider.pk))
    if when == "after":
        chain.send(chain.exit_call(), rich(2))
        read(chain)
    provider.refresh_from_db()
    assert provider.standing == Standing.ACCUSED
    actions.lift(accusation, "it was our bug", "admin@example.org")
    read(chain)
    provider.refresh_from_db()
    assert provider.standing == Standing.EXITING


def test_two_accusations_hold_until_both_are_over(chain):
    provider = deposited(chain, "ada", rich(2))
    first, second = accused(chain, provider), accused(chain, provider)
    actions.lift(first, "a mistake", "admin@example.org")
    provider.refresh_from_db()
    assert provider.standing == Standing.ACCUSED
    actions.lift(second, "a mistake", "admin@example.org")
    provider.refresh_from_db()
    assert provider.standing == Standing.ACTIVE


def test_an_accusation_that_the_platform_never_made_alarms(chain):
    """The settler's key is stolen; there is time for the guardian's veto."""
    provider = deposited(chain, "ada", rich(2))
    chain.send(chain.accuse_call(uuid4(), [provider.wallet], []), key("settler"))
    read(chain)
    provider.refresh_from_db()
    assert provider.standing == Standing.ACTIVE
    assert provider.wallet in Alarm.objects.get(kind="unknown accusation").text
