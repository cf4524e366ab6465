"""Fault 13: however a ticket's end is contested, the payment leaves the escrow once and every unit is accounted for."""

from uuid import uuid4

import pytest

from accounts.models import User
from contracts.chain import Chain, Reverted
from contracts.devchain import test_key as rich
from dmlsite.errors import Conflict
from ledger import actions, outbox
from ledger.gateway import key
from ledger.models import Alarm, Attempt, ChainEvent, ChainTx, Currency, Transfer, balance
from tests.faults.steps import (
    FEE,
    PRICE,
    RECEIPTS,
    SHARES,
    balanced,
    fund,
    pass_time,
    pay,
    quote,
    read,
    refunded_exactly,
    register,
    rpc,
    send_all,
    settled_exactly,
    until_quiet,
)
from tickets import actions as tickets
from tickets.models import Mail, Status, Ticket

pytestmark = pytest.mark.django_db(transaction=True)
COIN = Currency.COIN


def held(chain):
    """Mine nothing by itself: what is sent waits for `at`."""
    rpc(chain, "evm_setAutomine", False)


def at(chain, timestamp):
    """One block with everything that waits, at that second."""
    rpc(chain, "evm_setNextBlockTimestamp", timestamp)
    rpc(chain, "evm_mine")
    rpc(chain, "evm_setAutomine", True)


@pytest.fixture
def short(chain):
    """A paid ticket to be settled within 600 seconds of the chain's time."""
    payer, ticket = rich(1), uuid4()
    fund(chain, payer)
    had = chain.token_balance(payer.address)
    offer = quote(ticket, payer, chain, seconds=60)
    chain.send(chain.pay_call(offer, chain.sign_quote(offer, key("quoter"))), payer)
    wallet = register(chain, rich(2))
    read(chain)
    return ticket, payer, had, wallet, chain.token_balance(wallet), offer.settle_by


def raw_refund(chain, ticket, sender):
    """Anybody's refund, unmined: estimated by nobody, as its moment has not come."""
    return chain.broadcast(
        chain.sign(
            chain.refund_call(ticket),
            sender,
            chain.confirmed_nonce(sender.address),
            fees=chain.suggest_fees(1),
            gas=200_000,
        ).raw
    )


@pytest.mark.parametrize("second", [-1, 0])
def test_13_settle_and_refund_meet_in_one_block_at_settle_by(chain, short, second):
    """One second before, only the settlement can be mined; from that second on, only the refund."""
    ticket, payer, had, wallet, before, settle_by = short
    actions.release(ticket, {wallet: SHARES}, FEE, RECEIPTS)
    held(chain)
    try:
        send_all()
        raw_refund(chain, ticket, rich(7))
    finally:
        at(chain, settle_by + second)
    chain.wait(Attempt.objects.get().hash)
    until_quiet(chain)
    if second < 0:
        settled_exactly(chain, ticket, wallet, before)
    else:
        assert balance(f"provider:{wallet}") == 0 == balance("fee")
        refunded_exactly(chain, ticket, payer.address, had)
        assert Transfer.objects.filter(kind="void").count() == 2
        assert set(Alarm.objects.values_list("kind", flat=True)) >= {"settlement overtaken by a refund"}


def test_13_a_settlement_that_comes_too_late_turns_into_a_refund(chain, short):
    """Nobody asked for the refund: the platform does, by itself."""
    ticket, payer, had, wallet, before, _ = short
    actions.release(ticket, {wallet: SHARES}, FEE, RECEIPTS)
    pass_time(chain, 601)
    until_quiet(chain)
    assert [tx.verb for tx in ChainTx.objects.filter(state="final")] == ["refund"]
    assert chain.token_balance(wallet) == before
    refunded_exactly(chain, ticket, payer.address, had)


def test_13_a_provider_banned_before_the_payout_is_mined_loses_its_share_to_the_others(paid):
    chain = paid.chain
    honest, cheat = paid.wallet, register(chain, rich(3))
    before = chain.token_balance(cheat)
    ban(chain, cheat, honest)
    actions.release(paid.ticket, {honest: 100_000, cheat: 27_400}, FEE, RECEIPTS)
    until_quiet(chain)
    settled_exactly(chain, paid.ticket, honest, paid.wallet_had)
    assert chain.token_balance(cheat) == before
    assert Alarm.objects.get(kind="settlement decided anew").case == paid.ticket


def test_13_a_provider_banned_while_the_payout_waits_to_be_mined(paid, monkeypatch):
    """Both were right when they were signed; the ban is mined first, and the settlement fails."""
    chain = paid.chain
    honest, cheat = paid.wallet, register(chain, rich(3))
    case = uuid4()
    actions.accuse(case, [cheat], [honest])
    until_quiet(chain)
    pass_time(chain, 10)
    actions.release(paid.ticket, {honest: 100_000, cheat: 27_400}, FEE, RECEIPTS)
    held(chain)
    try:
        planned(case, cheat, honest)
        outbox.send(ChainTx.objects.get(verb="executeBan"))
        with monkeypatch.context() as patch:  # some nodes estimate as of the last block, whatever waits
            patch.setattr(Chain, "estimate", lambda *_: 500_000)
            outbox.send(ChainTx.objects.get(verb="settle"))
    finally:
        rpc(chain, "evm_mine")
        rpc(chain, "evm_setAutomine", True)
    until_quiet(chain)
    assert ChainTx.objects.get(key=f"settle:{paid.ticket}").state == "reverted"
    assert ChainTx.objects.get(key=f"settle:{paid.ticket}#2").state == "final"
    settled_exactly(chain, paid.ticket, honest, paid.wallet_had)


def planned(case, cheat, honest):
    """The ban is due now."""
    actions.execute_ban(case, [cheat], [honest])
    ChainTx.objects.filter(verb="executeBan", case=case).update(not_before=None)


def ban(chain, cheat, honest):
    case = uuid4()
    actions.accuse(case, [cheat], [honest])
    until_quiet(chain)
    pass_time(chain, 10)
    planned(case, cheat, honest)
    until_quiet(chain)
    assert chain.provider_standing(cheat).name == "Banned"


def test_13_nobody_of_a_settlement_is_left(paid):
    other = register(paid.chain, rich(3))
    ban(paid.chain, paid.wallet, other)
    paid.settle()
    until_quiet(paid.chain)
    refunded_exactly(paid.chain, paid.ticket, paid.payer.address, paid.payer_had)


def test_13_a_provider_exits_then_is_accused(paid):
    """The stake stays in reach until it is unlocked; the accusation holds it, and the ban takes it."""
    chain, honest = paid.chain, paid.wallet
    leaver = rich(4)
    wallet = register(chain, leaver)
    deposit = chain.deposit_gwei()
    chain.send(chain.exit_call(), leaver)
    case = uuid4()
    actions.accuse(case, [wallet], [honest])
    until_quiet(chain)
    pass_time(chain, 61)
    with pytest.raises(Reverted, match="Frozen"):
        chain.send(chain.withdraw_call(), leaver)
    planned(case, wallet, honest)
    until_quiet(chain)
    assert chain.provider_standing(wallet).name == "Banned"
    assert balance(f"deposit:{wallet}", COIN) == 0
    assert balance(f"credit:{honest}", COIN) == deposit == chain.coin_credit(honest)
    balanced(chain)
    chain.send(chain.withdraw_credit_call(), rich(2))
    read(chain)
    assert balance(f"credit:{honest}", COIN) == 0 == chain.coin_credit(honest)
    balanced(chain)


def test_13_a_provider_exits_is_acquitted_and_leaves_with_all_of_its_stake(paid):
    chain, leaver = paid.chain, rich(4)
    wallet = register(chain, leaver)
    chain.send(chain.exit_call(), leaver)
    case = uuid4()
    actions.accuse(case, [wallet], [paid.wallet])
    until_quiet(chain)
    actions.acquit(case)
    until_quiet(chain)
    pass_time(chain, 61)
    had = chain.native_balance(wallet)
    receipt = chain.send(chain.withdraw_call(), leaver)
    assert abs(chain.native_balance(wallet) - (had + chain.deposit_gwei() - receipt.fee_gwei)) <= 1, "gas is in wei"
    read(chain)
    assert balance(f"deposit:{wallet}", COIN) == 0
    balanced(chain)


def test_13_a_recipient_contract_that_reverts_stops_nobody(paid):
    """A provider that is a contract which refuses every call: it is paid in tokens like all others, its coins wait."""
    chain, stubborn = paid.chain, register(paid.chain, rich(3))
    before = chain.token_balance(stubborn)
    cheat = register(chain, rich(4))
    rpc(chain, "anvil_setCode", stubborn, "0x60006000fd")
    try:
        actions.release(paid.ticket, {paid.wallet: 100_000, stubborn: 27_400}, FEE, RECEIPTS)
        ban(chain, cheat, stubborn)
        assert chain.token_balance(stubborn) - before == 27_400
        assert chain.token_balance(paid.wallet) - paid.wallet_had == 100_000
        rpc(chain, "anvil_impersonateAccount", stubborn)
        call = {"from": stubborn, "to": chain.deployment.escrow, "data": chain.withdraw_credit_call().data}
        answer = chain.w3.provider.make_request("eth_estimateGas", [call])
        assert "error" in answer, "it cannot take coins, and keeps its credit"
        assert balance(f"credit:{stubborn}", COIN) == chain.deposit_gwei() == chain.coin_credit(stubborn)
        balanced(chain)
    finally:
        rpc(chain, "anvil_setCode", stubborn, "0x")
    chain.send(chain.withdraw_credit_call(), rich(3))
    read(chain)
    assert chain.coin_credit(stubborn) == 0
    balanced(chain)


def test_13_paused_nothing_is_paid_out_and_the_refund_goes_through(paid):
    chain = paid.chain
    chain.send(chain.pause_call(), key("guardian"))
    tx = paid.settle()
    until_quiet(chain)
    tx.refresh_from_db()
    assert (tx.state, "EnforcedPause" in tx.error) == ("ready", True)
    other = uuid4()
    assert chain.ticket_state(other) == "None"
    with pytest.raises(Reverted, match="EnforcedPause"):
        pay(chain, other, paid.payer)
    chain.send(chain.transfer_call(key("admin").address, PRICE), paid.payer)  # the tokens it was given for that

    chain.send(chain.unpause_call(), key("admin"))
    until_quiet(chain)
    settled_exactly(chain, paid.ticket, paid.wallet, paid.wallet_had)


def test_13_paused_a_failed_ticket_is_refunded_at_once_and_the_accusation_follows(paid):
    """`failTicket` is refused while paused; the customer does not wait for that."""
    chain, cheat = paid.chain, paid.wallet
    chain.send(chain.pause_call(), key("guardian"))
    actions.fail_ticket(paid.ticket, paid.payer.address, PRICE, [cheat], [])
    until_quiet(chain)
    refunded_exactly(chain, paid.ticket, paid.payer.address, paid.payer_had)
    assert chain.accusation(paid.ticket).state == "None"
    chain.send(chain.unpause_call(), key("admin"))
    until_quiet(chain)
    assert chain.accusation(paid.ticket).state == "Open"
    balanced(chain)


def test_13_anyone_refunds_while_paused_after_settle_by(chain, short):
    ticket, payer, had, *_ = short
    chain.send(chain.pause_call(), key("guardian"))
    with pytest.raises(Reverted, match="TooEarly"):
        chain.send(chain.refund_call(ticket), rich(7))
    pass_time(chain, 601)
    chain.send(chain.refund_call(ticket), rich(7))
    read(chain)
    refunded_exactly(chain, ticket, payer.address, had)
    chain.send(chain.unpause_call(), key("admin"))


def test_a_settlement_that_nobody_decided_halts_every_payout(paid):
    """The settler's key is stolen, and pays a ticket to a provider of the thief's."""
    chain = paid.chain
    thief = register(chain, rich(6))
    other = uuid4()
    pay(chain, other, paid.payer)
    chain.send(chain.settle_call(other, {thief: SHARES}, RECEIPTS), key("settler"))
    read(chain)
    paid.refund()
    until_quiet(chain)
    halts = dict(Alarm.objects.values_list("kind", "halts"))
    assert halts["unplanned transfer"] == "payouts"
    assert chain.ticket_state(paid.ticket) == "Paid"


def test_two_decisions_about_one_payment_are_refused(paid):
    paid.settle()
    with pytest.raises(Conflict):
        actions.refund(paid.ticket, paid.payer.address, PRICE)
    until_quiet(paid.chain)
    settled_exactly(paid.chain, paid.ticket, paid.wallet, paid.wallet_had)


def test_13_a_ticket_follows_the_chain_when_the_customer_refunds_a_payout_that_came_too_late(
    chain, settings, tmp_path, client
):
    """Settled, as far as the platform had decided; the payout is not sent before `settleBy`, and the customer acts."""
    settings.SETTLE_SECONDS, settings.MEDIA_ROOT = 7200, tmp_path
    customer, wallet = User.objects.create_user("late@example.org", "x", is_customer=True), register(chain, rich(2))
    ticket = tickets.order(customer, file_name="a.csv", file_size=1_250_000, payer=rich(1).address)
    fund(chain, rich(1))
    had = chain.token_balance(rich(1).address)
    chain.send(tickets.payment_call(ticket), rich(1))
    read(chain)
    tickets.payment_seen(ticket)
    for status in (Status.UPLOADED, Status.TRAINING):
        tickets.move(ticket, status)
    tickets.settle(ticket, {wallet: 7}, 0.9, RECEIPTS)
    pass_time(chain, 7201)
    chain.send(chain.refund_call(ticket.pk), rich(1))
    until_quiet(chain)
    tickets.fail(ticket, "a mail could not be sent")  # of no consequence for the money, before or after
    assert ChainEvent.objects.filter(name="Refunded").count() == 1
    tickets.refund_seen(Ticket.objects.get(pk=ticket.pk))
    tickets.refund_seen(Ticket.objects.get(pk=ticket.pk))
    ticket.refresh_from_db()
    assert ticket.status == Status.REFUNDED
    assert Mail.objects.filter(ticket=ticket, kind="refunded").count() == 1
    assert [(tx.verb, tx.state) for tx in ChainTx.objects.all()] == [("settle", "dropped")]
    refunded_exactly(chain, ticket.pk, rich(1).address, had)
    client.force_login(customer)
    page = client.get(f"/tickets/{ticket.pk}/").content.decode()
    assert "It is back: 0.13 DML" in page and ChainEvent.objects.get(name="Refunded").tx in page
