"""A ticket's life against a real chain: only the escrow's final event pays it, and every way out gives all back."""

from datetime import timedelta

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.utils import timezone

from accounts.models import User
from contracts.chain import Reverted
from contracts.devchain import test_key as rich
from dmlsite.errors import Conflict, Forbidden, Invalid
from dmlsite.testing import finalize
from ledger import outbox
from ledger.gateway import key
from ledger.models import Alarm, ChainEvent, ChainTx, balance
from ledger.scanner import Scanner
from tickets import actions
from tickets.models import Mail, Status, Ticket

pytestmark = pytest.mark.django_db(transaction=True)
SIZE = 250_000


@pytest.fixture(autouse=True)
def no_messages(monkeypatch, settings, tmp_path):
    """Each step is taken by hand."""
    monkeypatch.setattr("dmlsite.jobs._send", lambda *args: None)
    settings.MEDIA_ROOT = tmp_path


@pytest.fixture
def customer():
    return User.objects.create_user("customer@example.org", "x", is_customer=True)


@pytest.fixture
def ticket(chain, customer):
    return actions.order(customer, file_name="a.csv", file_size=SIZE, payer=rich(1).address)


def read(chain):
    finalize(chain)
    Scanner(chain).scan()


def pay(chain, ticket):
    chain.send(chain.transfer_call(ticket.payer, ticket.price), key("admin"))
    chain.send(actions.payment_call(ticket), rich(1))
    read(chain)
    actions.payment_seen(ticket)
    return ticket


def send_all(chain):
    for pk in outbox.due():
        outbox.send(ChainTx.objects.get(pk=pk))
    read(chain)


def file(size=SIZE, name="a.csv"):
    return SimpleUploadedFile(name, b"x" * size)


def test_the_price_is_quoted_to_one_wallet(chain, ticket):
    assert ticket.price == 30_000
    chain.send(chain.transfer_call(rich(2).address, ticket.price), key("admin"))
    with pytest.raises(Reverted, match="WrongPayer"):
        chain.send(actions.payment_call(ticket), rich(2))


@pytest.mark.parametrize(("size", "why"), [(0, "empty"), (10**12, "larger than")])
def test_no_quote_for_nothing_or_too_much(chain, customer, size, why):
    with pytest.raises(Invalid, match=why):
        actions.order(customer, file_name="a.csv", file_size=size, payer=rich(1).address)


def test_a_ticket_is_paid_by_the_final_event_and_nothing_else(chain, ticket):
    actions.payment_seen(ticket)
    assert ticket.status == Status.QUOTED
    with pytest.raises(Conflict, match="Upload opens"):
        actions.upload(ticket, file(), "customer")
    pay(chain, ticket)
    assert ticket.status == Status.PAID
    assert ticket.paid_tx == ChainEvent.objects.get(name="Paid").tx
    assert balance(f"escrow:{ticket.pk}") == ticket.price


def test_paying_twice_is_refused_by_the_chain(chain, ticket):
    call = actions.payment_call(ticket)
    pay(chain, ticket)
    chain.send(chain.transfer_call(ticket.payer, ticket.price), key("admin"))
    with pytest.raises(Reverted, match="WrongTicketState"):
        chain.send(call, rich(1))


def test_a_larger_file_is_refused_and_the_right_one_may_follow(chain, ticket):
    pay(chain, ticket)
    for bad, why in ((file(SIZE + 1), "were quoted"), (file(0), "empty")):
        with pytest.raises(Invalid, match=why):
            actions.upload(ticket, bad, "customer")
    assert ticket.status == Status.PAID
    dataset = actions.upload(ticket, file(), "customer")
    assert (ticket.status, dataset.size) == (Status.UPLOADED, SIZE)
    with pytest.raises(Conflict):
        actions.upload(ticket, file(), "customer")


@pytest.mark.parametrize("uploaded", [False, True])
def test_a_customer_who_cancels_before_training_gets_everything_back(chain, ticket, customer, uploaded):
    before = chain.token_balance(ticket.payer)
    pay(chain, ticket)
    if uploaded:
        actions.upload(ticket, file(), "customer")
    actions.cancel(ticket, customer)
    assert ticket.status == Status.REFUNDED
    send_all(chain)
    assert chain.token_balance(ticket.payer) == before + ticket.price  # what the admin had given for it
    assert balance(f"escrow:{ticket.pk}") == 0 == chain.escrowed()
    assert [row.kind for row in Mail.objects.all()] == ["paid", "refunded"]


def test_training_cannot_be_cancelled_and_nobody_else_can_cancel(chain, ticket, customer):
    outsider = User.objects.create_user("outsider@example.org", "x")
    with pytest.raises(Forbidden):
        actions.cancel(ticket, outsider)
    Ticket.objects.filter(pk=ticket.pk).update(status=Status.TRAINING)
    ticket.refresh_from_db()
    with pytest.raises(Conflict, match="Training has started"):
        actions.cancel(ticket, customer)


def test_who_never_uploads_gets_everything_back_after_a_day(chain, ticket):
    pay(chain, ticket)
    actions.overdue()
    ticket.refresh_from_db()
    assert ticket.status == Status.PAID
    Ticket.objects.update(upload_by=timezone.now() - timedelta(seconds=1))
    actions.overdue()
    ticket.refresh_from_db()
    assert ticket.status == Status.REFUNDED
    send_all(chain)
    assert chain.ticket_state(ticket.pk) == "Refunded"


def test_an_unpaid_quote_expires_and_a_payment_that_was_in_time_still_counts(chain, ticket):
    Ticket.objects.update(pay_by=timezone.now() - actions.GRACE - timedelta(seconds=1))
    chain.send(chain.transfer_call(ticket.payer, ticket.price), key("admin"))
    chain.send(actions.payment_call(ticket), rich(1))
    actions.overdue()
    ticket.refresh_from_db()
    assert ticket.status == Status.EXPIRED
    read(chain)
    actions.payment_seen(ticket)
    assert ticket.status == Status.PAID


def test_a_status_is_written_once_when_two_race(chain, ticket, customer):
    other = Ticket.objects.get(pk=ticket.pk)
    actions.cancel(ticket, customer)
    with pytest.raises(Conflict, match="Somebody else"):
        actions.cancel(other, customer)


def test_a_failure_is_on_the_ticket_at_the_admins_and_refunded(chain, ticket):
    pay(chain, ticket)
    actions.upload(ticket, file(), "customer")
    actions.fail(ticket, "the disk broke")
    assert ticket.status == Status.REFUNDED
    assert "the disk broke" in ticket.outcome
    assert Alarm.objects.get().case == ticket.pk
    assert ticket.events.filter(kind="error").exists()
    assert [row.kind for row in Mail.objects.all()] == ["paid", "failed"]


def test_what_is_not_done_in_the_promised_time_is_refunded(chain, ticket):
    pay(chain, ticket)
    actions.upload(ticket, file(), "customer")
    Ticket.objects.update(settle_by=timezone.now() + actions.GRACE - timedelta(seconds=1))
    actions.overdue()
    ticket.refresh_from_db()
    assert ticket.status == Status.REFUNDED
    send_all(chain)
    assert chain.ticket_state(ticket.pk) == "Refunded"
