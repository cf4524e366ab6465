"""A payout that came too late, and the way back of a payment: the ticket and its page say what the chain says."""

from collections.abc import Iterator

import pytest
from django.core.files.base import ContentFile
from django.urls import reverse

from accounts.models import User
from contracts.devchain import DevChain, free_port
from contracts.devchain import test_key as rich
from dmlsite.errors import Conflict
from dmlsite.testing import content_given, finalize
from ledger import outbox, reconcile
from ledger.gateway import key
from ledger.models import COUNTED, Alarm, ChainEvent, ChainTx, Transfer, balance
from ledger.scanner import Scanner
from tickets import actions, mail, tasks
from tickets.models import Artifact, Mail, Status, Ticket

pytestmark = pytest.mark.django_db(transaction=True)
ROOT = "0x" + "11" * 32


@pytest.fixture
def devchain() -> Iterator[DevChain]:
    """A chain for each test: its clock is moved by hours."""
    with DevChain(None, free_port(), beat=3600) as running:
        yield running


@pytest.fixture(autouse=True)
def no_messages(monkeypatch, settings, tmp_path):
    """Each step is taken by hand."""
    monkeypatch.setattr("dmlsite.jobs._send", lambda *args: None)
    settings.MEDIA_ROOT, settings.SETTLE_SECONDS = tmp_path, 7_200


@pytest.fixture
def customer() -> User:
    return User.objects.create_user("customer@example.org", "x", is_customer=True)


@pytest.fixture
def ticket(chain, customer) -> Ticket:
    """Paid; nobody has followed the payment yet."""
    found = actions.order(customer, file_name="a.csv", file_size=1_250_000, payer=rich(1).address)
    chain.send(chain.transfer_call(found.payer, found.price), key("admin"))
    chain.send(actions.payment_call(found), rich(1))
    read(chain)
    return found


@pytest.fixture
def settled(chain, ticket) -> Ticket:
    """The payout is decided; nothing of it is sent."""
    chain.send(chain.register_call(b"ada"), rich(2))
    read(chain)
    follow()
    ticket.refresh_from_db()
    for status in (Status.UPLOADED, Status.TRAINING):
        actions.move(ticket, status)
    actions.store_artifact(ticket, "model.keras", ContentFile(b"weights"))
    actions.settle(ticket, {rich(2).address: 7}, 0.9, ROOT)
    return ticket


def rpc(chain, method: str, *params: object) -> None:
    answer = chain.w3.provider.make_request(method, list(params))
    assert "error" not in answer, answer


def send() -> None:
    for pk in outbox.due():
        outbox.send(ChainTx.objects.get(pk=pk))


def read(chain) -> None:
    finalize(chain)
    Scanner(chain).scan()
    outbox.confirm(chain)


def follow() -> None:
    """Every event about a payment that nobody followed yet, as the jobs do."""
    for event in ChainEvent.objects.filter(followed=None, name__in=["Paid", "Refunded"]):
        tasks.event_seen.fn(event.pk)


def is_refunded_to_the_unit(chain, ticket: Ticket, before: int) -> None:
    assert chain.ticket_state(ticket.pk) == "Refunded"
    assert chain.token_balance(ticket.payer) == before + ticket.price
    assert balance(f"escrow:{ticket.pk}") == 0 == chain.escrowed()
    back = Transfer.objects.filter(case=ticket.pk, credit=f"outside:{ticket.payer}", kind__in=COUNTED)
    assert [row.amount for row in back] == [ticket.price]
    assert [row.name for row in reconcile.compare(chain)[1] if row.difference] == []
    assert not Transfer.objects.filter(kind="pending", outcome=None).exists()


def progress(client, ticket: Ticket) -> str:
    client.force_login(ticket.customer)
    return client.get(reverse("training:progress", args=[ticket.pk])).content.decode()


# --- A payout that came too late --------------------------------------------------------------------------------------
def test_a_payout_that_reverts_and_the_customers_own_refund(chain, settled, client):
    """Both are in one block, after `settleBy`: the payout reverts, the refund happens, and all of us follow that."""
    before = chain.token_balance(settled.payer)
    rpc(chain, "evm_setAutomine", False)
    send()
    rpc(chain, "evm_increaseTime", 7_201)
    own = chain.broadcast(
        chain.sign(chain.refund_call(settled.pk), rich(1), chain.next_nonce(settled.payer), gas=200_000).raw
    )
    rpc(chain, "evm_mine")
    rpc(chain, "evm_setAutomine", True)
    assert chain.wait(own).ok
    assert not chain.wait(ChainTx.objects.get(verb="settle").hash).ok

    for _ in range(3):
        read(chain)
        follow()
        send()
    settled.refresh_from_db()
    assert settled.status == Status.REFUNDED
    assert "ran out" in settled.outcome
    assert [(row.verb, row.state) for row in ChainTx.objects.all()] == [("settle", "reverted")]
    is_refunded_to_the_unit(chain, settled, before)
    assert [row.kind for row in Mail.objects.all()] == ["paid", "refunded"]
    told = [(event.old, event.new, event.text) for event in settled.events.order_by("-id")[:2]]
    assert told[1][:2] == ("settled", "refunded")
    assert told[0][2] == f"the payment is back in your wallet: {own}"
    page = progress(client, settled)
    assert own in page and "model.keras" in page
    assert content_given(client.get(mail.link(Artifact.objects.get())))


def test_a_payout_that_reverts_and_nobody_asks_for_the_refund(chain, settled):
    """The platform decides it itself; the ticket says so when the chain has done it."""
    before = chain.token_balance(settled.payer)
    rpc(chain, "evm_increaseTime", 7_201)
    rpc(chain, "evm_mine")
    for _ in range(3):
        send()
        read(chain)
        follow()
    settled.refresh_from_db()
    assert settled.status == Status.REFUNDED
    is_refunded_to_the_unit(chain, settled, before)


def test_a_refund_that_is_followed_before_the_payment(chain, ticket):
    """After a long standstill both are read at once, and jobs run side by side: nobody trains for nothing then."""
    rpc(chain, "evm_increaseTime", 7_201)
    chain.send(chain.refund_call(ticket.pk), rich(1))
    read(chain)
    for name in ("Refunded", "Paid"):
        tasks.event_seen.fn(ChainEvent.objects.get(name=name).pk)
    ticket.refresh_from_db()
    assert ticket.status == Status.REFUNDED
    assert [row.kind for row in Mail.objects.all()] == ["refunded"]


VERBS = {
    "refund": lambda ticket: actions.refund(ticket, "because"),
    "refund_for_cheating": lambda ticket: actions.refund_for_cheating(ticket, "because", [rich(2).address], []),
    "cancel": lambda ticket: actions.cancel(ticket, ticket.customer),
}


@pytest.mark.parametrize("verb", VERBS)
def test_the_platform_never_takes_a_payout_back(settled, verb):
    with pytest.raises(Conflict):
        VERBS[verb](settled)
    settled.refresh_from_db()
    assert settled.status == Status.SETTLED
    assert [row.verb for row in ChainTx.objects.all()] == ["settle"]
    assert [row.kind for row in Mail.objects.all()] == ["paid"]


def test_a_failure_after_the_payout_was_decided_is_told_and_refunds_nothing(settled):
    actions.fail(settled, "the mail server is down")
    settled.refresh_from_db()
    assert settled.status == Status.SETTLED
    assert Alarm.objects.get().kind == "ticket failed"
    assert [row.verb for row in ChainTx.objects.all()] == ["settle"]


# --- The way back of a payment ----------------------------------------------------------------------------------------
@pytest.fixture
def refunded(ticket) -> Ticket:
    follow()
    ticket.refresh_from_db()
    actions.cancel(ticket, ticket.customer)
    return ticket


def test_the_page_says_how_far_a_refund_is(chain, refunded, client):
    page = progress(client, refunded)
    assert "goes back to your wallet" in page and "You cancelled" in page
    assert "is being sent" in page
    send()
    tx = ChainTx.objects.get(verb="refund").hash
    page = progress(client, refunded)
    assert "On its way" in page and tx in page and "It is back" not in page
    read(chain)
    follow()
    page = progress(client, refunded)
    assert "It is back" in page and tx in page and "On its way" not in page
    assert "the payment is back in your wallet" in page.partition("Timeline")[2]


def test_the_page_shows_no_transaction_that_can_no_longer_come(chain, refunded, client):
    """Ours reverted, or its nonce was taken: that hash would be a promise that is never kept."""
    send()
    for state in (ChainTx.State.REVERTED, ChainTx.State.READY):
        ChainTx.objects.update(state=state)
        assert "is being sent" in progress(client, refunded)
