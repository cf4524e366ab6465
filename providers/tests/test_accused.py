"""While a provider is accused, and after: the database says what the chain says, in whatever order that is read."""

import threading
import time
from collections.abc import Iterator
from datetime import timedelta
from itertools import permutations
from uuid import uuid4

import pytest
from django.db import connection, transaction
from django.utils import timezone

from accounts.models import User
from contracts.chain import Unavailable
from contracts.devchain import DevChain, free_port
from contracts.devchain import test_key as rich
from dmlsite.errors import Conflict
from dmlsite.testing import finalize
from ledger import gateway, outbox
from ledger.gateway import key
from ledger.models import Alarm, ChainEvent, ChainTx
from ledger.scanner import Scanner
from providers import actions, tasks
from providers.models import Accusation, Connection, Provider, Standing

pytestmark = pytest.mark.django_db(transaction=True)
State = Accusation.State


@pytest.fixture
def devchain() -> Iterator[DevChain]:
    """A chain for each test: its clock is moved by hours."""
    with DevChain(None, free_port(), beat=3600) as running:
        yield running


@pytest.fixture(autouse=True)
def no_messages(monkeypatch):
    """Each step is taken by hand."""
    monkeypatch.setattr("dmlsite.jobs._send", lambda *args: None)


@pytest.fixture
def ada(chain) -> Provider:
    provider = actions.join(User.objects.create_user("ada@example.org", "x"), "ada")
    deposit(chain, provider)
    return provider


def deposit(chain, provider: Provider) -> None:
    chain.send(actions.deposit_call(provider, rich(2).address), rich(2))
    follow(chain)
    provider.refresh_from_db()


def send() -> None:
    for pk in outbox.due():
        outbox.send(ChainTx.objects.get(pk=pk))


def read(chain) -> None:
    """Make final what is mined, and write its events down; nobody follows them yet."""
    finalize(chain)
    Scanner(chain).scan()
    outbox.confirm(chain)


def follow(chain) -> None:
    """Send what is due and follow every new event, as the jobs do."""
    send()
    read(chain)
    for pk in ChainEvent.objects.filter(followed=None).values_list("pk", flat=True):
        tasks.event_seen.fn(pk)


def accuse(chain, provider: Provider) -> Accusation:
    found = actions.accuse([provider], [], "two replays failed", evidence={})
    follow(chain)
    found.refresh_from_db()
    return found


def pass_time(chain, seconds: int) -> None:
    """Of the chain's clock, and of its final block."""
    chain.w3.provider.make_request("evm_increaseTime", [seconds])
    for _ in range(3):
        chain.w3.provider.make_request("evm_mine", [])


def lapse(chain, *cases: Accusation) -> None:
    """Let the time for executing be over: by the wall's clock, which a test cannot move, and by the chain's."""
    Accusation.objects.filter(pk__in=[case.pk for case in cases]).update(lapses_at=timezone.now())
    pass_time(chain, 3_601)


def standing(provider: Provider) -> str:
    provider.refresh_from_db()
    return provider.standing


def state(accusation: Accusation) -> str:
    accusation.refresh_from_db()
    return accusation.state


def test_the_chains_times_of_an_accusation_are_kept(chain, ada):
    case = accuse(chain, ada)
    there = chain.accusation(case.pk)
    assert (case.executable_at.timestamp(), case.lapses_at.timestamp()) == (there.executable_at, there.lapses_at)


# --- It lapses --------------------------------------------------------------------------------------------------------
def test_a_lapse_frees_the_provider_and_tells_the_admins(chain, ada):
    case = accuse(chain, ada)
    lapse(chain, case)
    actions.close_overdue()
    assert (standing(ada), state(case)) == (Standing.ACTIVE, State.LAPSED)
    assert ChainTx.objects.get(verb="executeBan").state == ChainTx.State.DROPPED
    told = Alarm.objects.get()
    assert (told.kind, told.case) == ("accusation lapsed", case.pk)
    assert "ada" in told.text
    actions.close_overdue()
    assert (Alarm.objects.count(), ada.history.count()) == (1, 3)


def test_nothing_lapses_before_the_final_block_says_so(chain, ada):
    """A ban that was mined in time may still become final: only the chain's own clock counts."""
    case = accuse(chain, ada)
    Accusation.objects.update(lapses_at=timezone.now() - timedelta(days=1))
    actions.close_overdue()
    assert (standing(ada), state(case)) == (Standing.ACCUSED, State.OPEN)
    chain.w3.provider.make_request("evm_increaseTime", [3_601])
    chain.w3.provider.make_request("evm_mine", [])
    assert chain.accusation(case.pk).state == "Lapsed"
    actions.close_overdue()
    assert state(case) == State.OPEN, "lapsed in a block that is not final"
    pass_time(chain, 1)
    actions.close_overdue()
    assert state(case) == State.LAPSED


def test_the_chain_is_not_asked_about_young_accusations(chain, ada, monkeypatch):
    accuse(chain, ada)

    def asked() -> None:
        raise AssertionError("the chain was asked")

    monkeypatch.setattr("providers.actions.chain", asked)
    actions.close_overdue()


def test_a_ban_that_was_executed_in_time_does_not_lapse(chain, ada):
    case = accuse(chain, ada)
    pass_time(chain, chain.challenge_seconds)
    ChainTx.objects.filter(verb="executeBan").update(not_before=None)
    send()
    finalize(chain)  # mined, and its event not read yet
    lapse(chain, case)
    actions.close_overdue()
    assert not Alarm.objects.exists()
    assert state(case) == State.EXECUTED
    follow(chain)
    assert (standing(ada), state(case)) == (Standing.BANNED, State.EXECUTED)


def test_a_second_ban_of_the_same_provider_ends_too_though_no_event_tells(chain, ada):
    cases = [accuse(chain, ada), accuse(chain, ada)]
    pass_time(chain, chain.challenge_seconds)
    ChainTx.objects.filter(verb="executeBan").update(not_before=None)
    follow(chain)
    follow(chain)
    assert [chain.accusation(case.pk).state for case in cases] == ["Executed", "Executed"]
    assert ChainEvent.objects.filter(name="Banned").count() == 1
    lapse(chain, *cases)
    actions.close_overdue()
    assert [state(case) for case in cases] == [State.EXECUTED, State.EXECUTED]
    assert (standing(ada), Alarm.objects.count()) == (Standing.BANNED, 0)


# --- It is taken back -------------------------------------------------------------------------------------------------
def test_the_guardians_own_veto_frees_the_provider_and_drops_the_ban(chain, ada):
    case = accuse(chain, ada)
    chain.send(chain.acquit_call(case.pk), key("guardian"))
    follow(chain)
    assert (standing(ada), state(case)) == (Standing.ACTIVE, State.LIFTED)
    assert ChainTx.objects.get(verb="executeBan").state == ChainTx.State.DROPPED


def test_an_accusation_is_lifted_here_and_on_the_chain_or_not_at_all(chain, ada, monkeypatch):
    case = accuse(chain, ada)

    def unavailable(*args: object) -> None:
        raise Unavailable("no answer")

    monkeypatch.setattr("ledger.actions.acquit", unavailable)
    with pytest.raises(Unavailable):
        actions.lift(case, "it was our bug", "admin@example.org")
    assert (standing(ada), state(case)) == (Standing.ACCUSED, State.OPEN)
    assert ChainTx.objects.get(verb="executeBan").state == ChainTx.State.READY


def test_two_accusations_hold_until_both_are_over(chain, ada):
    first, second = accuse(chain, ada), accuse(chain, ada)
    actions.lift(first, "a mistake", "admin@example.org")
    assert standing(ada) == Standing.ACCUSED
    lapse(chain, second)
    actions.close_overdue()
    assert standing(ada) == Standing.ACTIVE


def test_an_accusation_at_the_moment_in_which_another_is_lifted_holds(chain, ada):
    first = accuse(chain, ada)
    accused = threading.Event()

    def accuse_again() -> None:
        with transaction.atomic():
            actions.accuse([ada], [], "again", evidence={}, on_chain=False)
            accused.set()
            time.sleep(0.5)
        connection.close()

    other = threading.Thread(target=accuse_again)
    other.start()
    accused.wait(10)
    actions.lift(first, "a mistake", "admin@example.org")
    other.join()
    assert standing(ada) == Standing.ACCUSED


# --- Leaving meanwhile ------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("end", ["lift", "lapse"])
@pytest.mark.parametrize("when", ["before", "after"])
def test_who_wanted_to_leave_is_leaving_again_when_the_accusation_is_over(chain, ada, when, end):
    """Asked before the accusation or, straight at the contract, after it."""
    if when == "before":
        chain.send(chain.exit_call(), rich(2))
        follow(chain)
    case = accuse(chain, ada)
    if when == "after":
        chain.send(chain.exit_call(), rich(2))
        follow(chain)
    assert standing(ada) == Standing.ACCUSED
    if end == "lift":
        actions.lift(case, "it was our bug", "admin@example.org")
    else:
        lapse(chain, case)
        actions.close_overdue()
    assert standing(ada) == Standing.EXITING
    follow(chain)
    pass_time(chain, chain.unbonding_seconds)
    chain.send(actions.withdraw_call(ada), rich(2))
    follow(chain)
    assert (standing(ada), ada.deposit_gwei) == (Standing.LEFT, 0)


def leave(chain) -> None:
    """On the chain, to the end."""
    chain.send(chain.exit_call(), rich(2))
    pass_time(chain, chain.unbonding_seconds)
    chain.send(chain.withdraw_call(), rich(2))


def test_who_withdraws_before_the_accusation_reaches_the_chain_has_left(chain, ada):
    case = actions.accuse([ada], [], "two replays failed", evidence={})
    leave(chain)
    read(chain)
    follow(chain)
    assert (standing(ada), ada.deposit_gwei) == (Standing.LEFT, 0)
    assert chain.accusation(case.pk).state == "Open"
    actions.lift(case, "they are gone", "admin@example.org")
    assert standing(ada) == Standing.LEFT


def test_a_ban_that_is_followed_first_is_a_ban(chain):
    """After a long standstill a whole life is read at once."""
    bob = actions.join(User.objects.create_user("bob@example.org", "x"), "bob")
    chain.send(actions.deposit_call(bob, rich(2).address), rich(2))
    case = uuid4()
    chain.send(chain.accuse_call(case, [rich(2).address], []), key("settler"))
    pass_time(chain, chain.challenge_seconds)
    chain.send(chain.execute_ban_call(case, [rich(2).address], []), key("settler"))
    read(chain)
    for name in ("Banned", "Registered"):
        tasks.event_seen.fn(ChainEvent.objects.get(name=name).pk)
    assert (standing(bob), bob.wallet, bob.deposit_gwei) == (Standing.BANNED, rich(2).address, 0)


def test_who_comes_back_with_an_accusation_open_is_still_accused(chain, ada):
    case = actions.accuse([ada], [], "two replays failed", evidence={})
    leave(chain)
    follow(chain)
    assert standing(ada) == Standing.LEFT
    with pytest.raises(Conflict, match="accusation against you is open"):
        actions.deposit_call(ada, rich(2).address)
    chain.send(chain.register_call(ada.pk.bytes), rich(2))  # straight at the contract
    follow(chain)
    assert (standing(ada), ada.deposit_gwei) == (Standing.ACCUSED, chain.deposit_gwei())
    lapse(chain, case)
    actions.close_overdue()
    assert standing(ada) == Standing.ACTIVE


def test_no_other_wallet_takes_the_place_of_one_with_a_case(chain, ada):
    """The ban names the old wallet; with the new one the provider would escape it."""
    leave(chain)
    follow(chain)
    ada.refresh_from_db()
    actions.deposit_call(ada, rich(3).address)
    case = accuse(chain, ada)
    chain.send(chain.register_call(ada.pk.bytes), rich(3))
    follow(chain)
    assert (standing(ada), ada.wallet) == (Standing.ACCUSED, rich(2).address)
    assert Alarm.objects.get().kind == "stray deposit"
    pass_time(chain, chain.challenge_seconds)
    ChainTx.objects.filter(verb="executeBan").update(not_before=None)
    follow(chain)
    assert (standing(ada), state(case)) == (Standing.BANNED, State.EXECUTED)


@pytest.mark.parametrize("order", permutations(range(3)))
def test_events_may_be_followed_in_any_order(chain, ada, order):
    """Jobs run side by side, and one that failed comes again later."""
    leave(chain)
    Provider.objects.update(standing=Standing.LEFT)  # so that the page offers the way back
    ada.refresh_from_db()
    chain.send(actions.deposit_call(ada, rich(2).address), rich(2))
    Provider.objects.update(standing=Standing.ACTIVE)
    read(chain)
    pks = list(ChainEvent.objects.filter(followed=None).values_list("pk", flat=True))
    assert len(pks) == 3
    for number in order:
        tasks.event_seen.fn(pks[number])
    assert (standing(ada), ada.deposit_gwei) == (Standing.ACTIVE, chain.deposit_gwei())
    back = ChainEvent.objects.filter(name="Registered").last()
    assert ada.deposit_tx == back.tx


def test_a_sweep_forgets_connections_though_the_chain_does_not_answer(settings, tmp_path):
    settings.CHAIN_DEPLOYMENT = tmp_path / "none"
    gateway.chain.cache_clear()
    provider = actions.join(User.objects.create_user("ada@example.org", "x"), "ada")
    Accusation.objects.create(honest=[], reason="x", evidence={}, lapses_at=timezone.now())
    Connection.objects.create(provider=provider, channel="c")
    Connection.objects.update(seen=timezone.now() - 2 * actions.FORGOTTEN)
    tasks.sweep.fn()
    assert not Connection.objects.exists()
