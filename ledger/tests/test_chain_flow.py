"""The ledger against a real chain: what was decided is sent once, and the chain's events post it."""

import time
from datetime import timedelta
from uuid import uuid4

import pytest
from django.db import DatabaseError, connection, transaction
from django.utils import timezone

from contracts.chain import Fees, Quote, Unavailable
from contracts.devchain import mine_if_pending_finality
from contracts.devchain import test_key as rich
from dmlsite.testing import finalize
from ledger import actions, outbox
from ledger.gateway import key
from ledger.models import Alarm, Attempt, ChainEvent, ChainTx, Currency, Transfer, balance
from ledger.scanner import Scanner

pytestmark = pytest.mark.django_db(transaction=True)
PRICE = 130_000
ROOT = "0x" + "11" * 32


def pay(chain, ticket, payer, amount=PRICE):
    chain.send(chain.transfer_call(payer.address, amount), key("admin"))
    now = int(time.time())
    quote = Quote(ticket, payer.address, amount, now + 600, now + 6000)
    return chain.send(chain.pay_call(quote, chain.sign_quote(quote, key("quoter"))), payer)


def register(chain, wallet):
    chain.send(chain.register_call(uuid4().bytes), wallet)
    return wallet.address


def settled_once(chain):
    """Send everything due and read the chain until nothing changes."""
    for _ in range(3):
        for pk in outbox.due():
            outbox.send(ChainTx.objects.get(pk=pk))
        finalize(chain)
        outbox.confirm(chain)
        Scanner(chain).scan()


@pytest.fixture(autouse=True)
def no_messages(monkeypatch):
    """These tests take each step by hand."""
    monkeypatch.setattr("dmlsite.jobs._send", lambda *args: None)


def test_pay_settle_and_every_account_agrees_with_the_chain(chain):
    ticket, payer = uuid4(), rich(1)
    wallets = sorted(register(chain, rich(n)) for n in (2, 3))
    before = {wallet: chain.token_balance(wallet) for wallet in wallets}
    pay(chain, ticket, payer)
    finalize(chain)
    Scanner(chain).scan()
    assert balance(f"escrow:{ticket}") == PRICE == chain.escrowed()

    shares = {wallets[0]: 100_000, wallets[1]: 27_400}
    actions.release(ticket, shares, 2_600, ROOT)
    assert balance(f"escrow:{ticket}") == PRICE, "deciding moves nothing"
    settled_once(chain)

    assert balance(f"escrow:{ticket}") == 0 == chain.escrowed()
    assert balance("fee") == 2_600
    for wallet, share in shares.items():
        assert balance(f"provider:{wallet}") == share == chain.token_balance(wallet) - before[wallet]
        assert balance(f"deposit:{wallet}", Currency.COIN) == chain.deposit_gwei()
    assert not Transfer.objects.filter(kind="pending", outcome=None).exists()
    assert ChainTx.objects.get().state == "final"
    assert not Alarm.objects.exists()


def test_scanning_again_books_nothing_twice(chain):
    pay(chain, uuid4(), rich(1))
    finalize(chain)
    assert Scanner(chain).scan() > 0
    assert Scanner(chain).scan() == 0
    assert Transfer.objects.count() == ChainEvent.objects.filter(name="Paid").count() == 1


def test_a_payment_is_not_booked_before_it_is_final(chain):
    pay(chain, uuid4(), rich(1))
    Scanner(chain).scan()
    assert not ChainEvent.objects.filter(name="Paid").exists()


def test_an_intent_is_sent_once_however_often_it_is_asked_for(chain):
    ticket, payer = uuid4(), rich(1)
    pay(chain, ticket, payer)
    finalize(chain)
    Scanner(chain).scan()
    before = chain.token_balance(payer.address)
    actions.refund(ticket, payer.address, PRICE)
    tx = ChainTx.objects.get()
    for _ in range(3):
        outbox.send(ChainTx.objects.get(pk=tx.pk))
    settled_once(chain)
    assert tx.attempts.count() == 1
    assert tx.attempts.get().broadcasts >= 3
    assert chain.token_balance(payer.address) - before == PRICE
    assert balance(f"escrow:{ticket}") == 0


def test_an_error_after_signing_means_unknown_and_the_same_bytes_are_sent_again(chain, monkeypatch):
    ticket, payer = uuid4(), rich(1)
    pay(chain, ticket, payer)
    finalize(chain)
    actions.refund(ticket, payer.address, PRICE)
    tx = ChainTx.objects.get()
    with monkeypatch.context() as broken:
        broken.setattr(type(chain), "broadcast", lambda self, raw: (_ for _ in ()).throw(Unavailable("timed out")))
        outbox.send(tx)
    tx.refresh_from_db()
    assert (tx.state, tx.attempts.get().error) == ("sent", "timed out")
    first = tx.attempts.get().hash
    settled_once(chain)
    assert ChainTx.objects.get().hash == first
    assert chain.ticket_state(ticket) == "Refunded"


def test_what_the_chain_would_refuse_is_not_signed(chain):
    actions.refund(uuid4(), rich(1).address, PRICE)
    outbox.send(ChainTx.objects.get())
    tx = ChainTx.objects.get()
    assert (tx.state, tx.nonce) == ("ready", None)
    assert "WrongTicketState" in tx.error


def test_a_refund_by_the_customer_voids_a_planned_settlement_and_alarms(chain):
    """After settleBy anybody may refund; the chain decides, and the ledger follows it."""
    ticket, payer = uuid4(), rich(1)
    wallet = register(chain, rich(2))
    pay(chain, ticket, payer)
    finalize(chain)
    Scanner(chain).scan()
    actions.release(ticket, {wallet: 127_400}, 2_600, ROOT)
    chain.send(chain.refund_call(ticket), key("settler"))
    finalize(chain)
    Scanner(chain).scan()
    assert balance(f"escrow:{ticket}") == 0
    assert balance(f"provider:{wallet}") == 0
    assert Alarm.objects.get().kind == "settlement overtaken by a refund"


def test_the_database_refuses_to_change_or_delete_a_transfer(chain):
    pay(chain, uuid4(), rich(1))
    finalize(chain)
    Scanner(chain).scan()
    for statement in ("update ledger_transfer set amount = 1", "delete from ledger_transfer"):
        with pytest.raises(DatabaseError, match="append-only"), transaction.atomic(), connection.cursor() as cursor:
            cursor.execute(statement)


def test_a_banned_deposit_is_shared_to_the_unit(chain):
    cheat, honest = register(chain, rich(2)), register(chain, rich(3))
    case = uuid4()
    actions.accuse(case, [cheat], [honest])
    settled_once(chain)
    actions.execute_ban(case, [cheat], [honest])
    ready = ChainTx.objects.get(verb="executeBan")
    assert ready.not_before is not None
    ChainTx.objects.filter(pk=ready.pk).update(not_before=None)
    chain.w3.provider.make_request("evm_increaseTime", [10])
    chain.w3.provider.make_request("evm_mine", [])
    settled_once(chain)
    assert chain.provider_standing(cheat).name == "Banned"
    assert balance(f"deposit:{cheat}", Currency.COIN) == 0 == balance(f"case:{case}", Currency.COIN)
    assert balance(f"credit:{honest}", Currency.COIN) == chain.coin_credit(honest)


@pytest.mark.parametrize(
    ("fees", "cap", "wanted"),
    [
        (Fees(80, 8), 1000, Fees(90, 9)),
        (Fees(1, 1), 1000, Fees(2, 2)),
        (Fees(100, 30), 113, Fees(113, 34)),
        (Fees(100, 30), 112, None),
    ],
)
def test_a_bump_raises_both_fees_by_an_eighth_up_to_the_cap(fees, cap, wanted):
    assert outbox.raised(fees, cap) == wanted


def test_a_stuck_transaction_is_bumped_with_its_nonce_and_happens_once(chain, settings):
    ticket, payer = uuid4(), rich(1)
    pay(chain, ticket, payer)
    finalize(chain)
    Scanner(chain).scan()
    before = chain.token_balance(payer.address)
    actions.refund(ticket, payer.address, PRICE)
    chain.w3.provider.make_request("evm_setAutomine", [False])
    try:
        outbox.send(ChainTx.objects.get())
        Attempt.objects.update(created=timezone.now() - timedelta(seconds=settings.CHAIN_BUMP_SECONDS + 1))
        outbox.send(ChainTx.objects.get())
        first, second = Attempt.objects.all()
        assert second.max_fee_gwei > first.max_fee_gwei
        assert second.tip_gwei > first.tip_gwei
        nonces = {chain.w3.eth.get_transaction(sent.hash)["nonce"] for sent in (second,)}
        assert nonces == {ChainTx.objects.get().nonce}
        outbox.broadcast(first)  # the old bytes again, refused by the pool or not
    finally:
        chain.w3.provider.make_request("evm_setAutomine", [True])
        chain.w3.provider.make_request("evm_mine", [])
    while mine_if_pending_finality(chain.w3):
        pass
    outbox.confirm(chain)
    Scanner(chain).scan()
    tx = ChainTx.objects.get()
    assert (tx.state, tx.hash) == ("final", second.hash)
    assert chain.token_balance(payer.address) - before == PRICE
    assert balance(f"escrow:{ticket}") == 0


def test_a_transaction_that_cannot_be_asked_about_does_not_keep_the_next_one_from_its_end(chain):
    """A node answers for one hash with an error; what comes after it is final all the same."""
    broken = ChainTx.objects.create(key="broken", verb="settle", state=ChainTx.State.SENT)
    Attempt.objects.create(tx=broken, raw=b"", hash="no hash", gas=1, max_fee_gwei=1, tip_gwei=1)
    cheat = register(chain, rich(2))
    actions.accuse(uuid4(), [cheat], [])
    good = ChainTx.objects.get(verb="accuse")
    outbox.send(good)
    chain.wait(good.hash)
    while mine_if_pending_finality(chain.w3):
        pass
    outbox.confirm(chain)
    good.refresh_from_db()
    assert good.state == ChainTx.State.FINAL
