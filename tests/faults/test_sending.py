"""Faults 1, 2, 3, 6 and 12: whatever dies while we send, the chain does it once."""

from datetime import timedelta
from uuid import uuid4

import pytest
from django.utils import timezone

from contracts.chain import connect
from contracts.devchain import test_key as rich
from contracts.tests.proxy import Proxy
from ledger import actions, alarms, outbox
from ledger.gateway import key
from ledger.models import Alarm, Attempt, ChainTx
from ledger.scanner import Scanner
from tests.faults.steps import (
    FEE,
    PRICE,
    RECEIPTS,
    SHARES,
    dies,
    finalize,
    pay,
    read,
    refunded_exactly,
    rpc,
    send_all,
    settled_exactly,
    until_quiet,
    victim,
    wait_for,
)

pytestmark = pytest.mark.django_db(transaction=True)


def settled(paid):
    until_quiet(paid.chain)
    settled_exactly(paid.chain, paid.ticket, paid.wallet, paid.wallet_had)
    assert ChainTx.objects.get().state == "final"


def test_killed_before_the_signature_is_committed(paid):
    tx = paid.settle()
    dies("send", str(tx.pk), "--die", "before-commit")
    tx.refresh_from_db()
    assert (tx.state, tx.nonce, tx.attempts.count()) == ("ready", None, 0)
    settled(paid)


def test_1_killed_between_sign_commit_and_broadcast(paid):
    tx = paid.settle()
    dies("send", str(tx.pk), "--die", "before-broadcast")
    tx.refresh_from_db()
    [attempt] = tx.attempts.all()
    assert (tx.state, attempt.broadcasts, paid.chain.receipt(attempt.hash)) == ("sent", 0, None)
    settled(paid)
    assert [sent.hash for sent in Attempt.objects.all()] == [attempt.hash], "the same bytes were sent, and no others"


def test_2_killed_between_broadcast_and_the_database(paid):
    tx = paid.settle()
    dies("send", str(tx.pk), "--die", "after-broadcast")
    [attempt] = tx.attempts.all()
    assert attempt.broadcasts == 0, "the database never heard of it"
    assert paid.chain.wait(attempt.hash).ok
    settled(paid)
    assert Attempt.objects.count() == 1


def test_3_the_node_accepts_and_the_answer_never_comes(paid, settings):
    tx = paid.settle()
    with Proxy(paid.chain.w3.provider.endpoint_uri) as proxy:
        proxy.swallow("eth_sendRawTransaction")
        through(paid, proxy, lambda: outbox.send(tx))
    [attempt] = tx.attempts.all()
    assert attempt.error and paid.chain.wait(attempt.hash).ok, "an error for us, a transaction for the chain"
    tx.refresh_from_db()
    assert tx.state == "sent", "unknown is not failed"
    settled(paid)
    assert Attempt.objects.count() == 1


def through(paid, proxy, step):
    """Take a step while the node is reached by the proxy, with a short patience."""
    direct = paid.chain.w3
    paid.chain.w3 = connect(proxy.url, timeout=2)
    try:
        step()
    finally:
        paid.chain.w3 = direct


@pytest.mark.parametrize("moment", ["in-transaction", "after-commit"])
def test_killed_while_the_chain_is_read(paid, moment):
    paid.settle()
    send_all()
    finalize(paid.chain)
    dies("scan", "--die", moment)
    settled(paid)


def test_6_a_reorg_drops_the_settlement(paid):
    paid.settle()
    send_all()
    [attempt] = Attempt.objects.all()
    assert paid.chain.wait(attempt.hash).ok
    rpc(paid.chain, "anvil_reorg", 1, [])
    assert paid.chain.receipt(attempt.hash) is None, "the block that had it is gone"
    outbox.confirm(paid.chain)
    Scanner(paid.chain).scan()
    assert ChainTx.objects.get().state == "sent"
    settled(paid)
    assert Attempt.objects.count() == 1, "the same bytes again"


def test_12_job_processes_that_claim_the_same_intents_send_each_once(paid):
    """Four processes, each of which wants to send all of eight refunds at the same moment."""
    tickets = [uuid4() for _ in range(8)]
    had = paid.chain.token_balance(paid.payer.address)
    for ticket in tickets:
        pay(paid.chain, ticket, paid.payer)
    read(paid.chain)
    for ticket in tickets:
        actions.refund(ticket, paid.payer.address, PRICE)
    intents = ChainTx.objects.filter(verb="refund")
    first = paid.chain.confirmed_nonce(key("settler").address)
    workers = [victim("race", *(str(tx.pk) for tx in intents)) for _ in range(4)]
    assert [worker.stdout.readline() for worker in workers] == ["ready\n"] * 4
    for worker in workers:
        worker.stdin.write("go\n")
        worker.stdin.flush()
    for worker in workers:
        _, errors = worker.communicate(timeout=120)
        assert worker.returncode == 0, errors
    assert sorted(intents.values_list("nonce", flat=True)) == list(range(first, first + 8))
    assert [tx.attempts.count() for tx in intents] == [1] * 8
    until_quiet(paid.chain)
    assert paid.chain.token_balance(paid.payer.address) - had == 8 * PRICE
    assert set(intents.values_list("state", flat=True)) == {"final"}


def test_12_a_gap_of_nonces_closes_by_itself(paid):
    """The first of two transactions is lost on its way: the node holds the second until the first comes again."""
    other = uuid4()
    pay(paid.chain, other, paid.payer)
    read(paid.chain)
    first = paid.refund()
    actions.release(other, {paid.wallet: SHARES}, FEE, RECEIPTS)
    second = ChainTx.objects.get(verb="settle")
    dies("send", str(first.pk), "--die", "before-broadcast")
    outbox.send(second)
    second.refresh_from_db()
    assert second.nonce == ChainTx.objects.get(pk=first.pk).nonce + 1
    assert paid.chain.receipt(second.attempts.get().hash) is None
    send_all()
    wait_for(lambda: paid.chain.receipt(second.attempts.get().hash))
    until_quiet(paid.chain)
    assert set(ChainTx.objects.values_list("state", flat=True)) == {"final"}
    settled_exactly(paid.chain, other, paid.wallet, paid.wallet_had)
    refunded_exactly(paid.chain, paid.ticket, paid.payer.address, paid.payer_had)


def test_12_a_foreign_spend_halts_the_sender_until_an_admin_has_looked(paid):
    """Somebody else signs with the settler's key: with the very nonce of ours that waits, and with the one after."""
    tx = paid.settle()
    dies("send", str(tx.pk), "--die", "before-broadcast")
    settler = key("settler")
    for _ in range(2):
        paid.chain.send(paid.chain.transfer_call(rich(5).address, 0), settler)
    until_quiet(paid.chain)
    alarm = Alarm.objects.get(kind="foreign nonce")
    assert alarm.halts == settler.address
    tx.refresh_from_db()
    assert (tx.state, tx.nonce) == ("ready", None), "its nonce is gone, so it never happened"
    assert ChainTx.objects.filter(state="foreign").count() == 2
    until_quiet(paid.chain)
    assert paid.chain.ticket_state(paid.ticket) == "Paid", "the sender stands still"

    alarms.clear(alarm, "admin@example.org")
    until_quiet(paid.chain)
    settled_exactly(paid.chain, paid.ticket, paid.wallet, paid.wallet_had)
    assert Alarm.objects.filter(cleared=None).count() == 0


def test_12_a_foreign_spend_that_is_not_final_yet_is_waited_for(paid):
    """Signing goes on only when it is clear what became of the nonce."""
    first = paid.refund()
    until_quiet(paid.chain)
    assert ChainTx.objects.get(pk=first.pk).state == "final"
    paid.chain.send(paid.chain.transfer_call(rich(5).address, 0), key("settler"))
    other = uuid4()
    pay(paid.chain, other, paid.payer)
    Scanner(paid.chain).scan()
    actions.refund(other, paid.payer.address, PRICE)
    outbox.send(ChainTx.objects.get(case=other))
    assert ChainTx.objects.get(case=other).nonce is None
    until_quiet(paid.chain)
    assert Alarm.objects.get(kind="foreign nonce").halts == key("settler").address


def test_a_mined_transaction_that_waits_for_finality_is_not_sent_again_for_more(paid, settings):
    paid.settle()
    send_all()
    [attempt] = Attempt.objects.all()
    paid.chain.wait(attempt.hash)
    Attempt.objects.update(created=timezone.now() - timedelta(seconds=settings.CHAIN_BUMP_SECONDS + 1))
    send_all()
    assert Attempt.objects.count() == 1
    settled(paid)
