"""Tickets in the admin: the timeline tells everything, and a refund needs a reason."""

from datetime import timedelta

import pytest
from django.contrib.admin.models import LogEntry
from django.urls import reverse
from django.utils import timezone

from dmlsite.tests.people import admin_client, person
from ledger import actions as ledger
from ledger.models import Attempt, ChainTx, Transfer
from tickets import actions
from tickets.models import Mail, Status, Ticket

pytestmark = pytest.mark.django_db
LIST = reverse("admin:tickets_ticket_changelist")
PAYER, HASH, PAID = "0x" + "12" * 20, "0x" + "ab" * 32, "0x" + "cd" * 32


@pytest.fixture
def ticket():
    soon = timezone.now() + timedelta(days=1)
    fields = {
        "file_name": "a.csv",
        "file_size": 10,
        "price": 130_000,
        "payer": PAYER,
        "signature": b"",
        "paid_tx": PAID,
    }
    return Ticket.objects.create(
        customer=person("customer"), status=Status.UPLOADED, pay_by=soon, settle_by=soon, **fields
    )


def page(client, ticket):
    return client.get(reverse("admin:tickets_ticket_change", args=[ticket.pk]))


def refund(client, ticket, **form):
    return client.post(LIST, {"action": "refund", "_selected_action": ticket.pk, "button": "1", **form}, follow=True)


def test_the_timeline_tells_everything_in_order(ticket):
    actions.note(ticket, "error", "<script>broke</script>")
    Mail.objects.create(
        ticket=ticket, kind="failed", to="customer@example.org", subject="Training failed", error="refused"
    )
    tx = ChainTx.objects.create(key="k", verb="refund", case=ticket.pk, to=PAYER, data="0x", error="Paused()")
    Attempt.objects.create(
        tx=tx, raw=b"", hash=HASH, gas=50_000, max_fee_gwei=2, tip_gwei=1, fee_gwei=123_000, block=8, error="timed out"
    )
    accounts = {"debit": f"escrow:{ticket.pk}", "credit": f"outside:{PAYER}", "currency": "DML"}
    Transfer.objects.create(key="t", kind="pending", amount=130_000, case=ticket.pk, **accounts)
    ledger.alarm("transaction reverted", "refund", ticket.pk)
    answer = page(admin_client(), ticket)
    whats = [moment.what for moment in answer.context["timeline"]]
    assert whats == ["error", "mail", "chain: decided", "chain: attempt", "ledger: pending", "alarm"]
    text = answer.content.decode()
    for said in ("Training failed", "Paused()", "timed out", "0.000123 coin", "0.13 DML", HASH, "&lt;script&gt;broke"):
        assert said in text
    assert "<script>broke" not in text
    for model in ("run", "round", "assignment"):
        assert f"/admin/training/{model}/?q={ticket.pk}" in text


@pytest.mark.parametrize("term", ["customer@example", PAYER, PAID, HASH, "id"])
def test_a_ticket_is_found_by_id_address_payer_and_hash(ticket, term):
    tx = ChainTx.objects.create(key="k", verb="refund", case=ticket.pk, to=PAYER, data="0x")
    Attempt.objects.create(tx=tx, raw=b"", hash=HASH, gas=50_000, max_fee_gwei=2, tip_gwei=1)
    found = admin_client().get(LIST, {"q": str(ticket.pk) if term == "id" else term})
    assert found.context["cl"].result_count == 1


def test_a_refund_without_a_reason_only_asks_for_one(ticket):
    answer = refund(admin_client(), ticket)
    assert answer.templates[0].name == "admin/reason.html"
    assert "The customer gets a mail and sees your reason." in answer.content.decode()
    ticket.refresh_from_db()
    assert ticket.status == Status.UPLOADED


def test_a_refund_gives_everything_back_once_and_is_logged(chain, ticket):
    client = admin_client()
    refund(client, ticket, reason="The file is not yours.")
    ticket.refresh_from_db()
    assert (ticket.status, ticket.outcome) == ("refunded", "The file is not yours.")
    assert ticket.events.last().actor == "admin@example.org"
    assert ChainTx.objects.get().key == f"refund:{ticket.pk}"
    assert "The file is not yours." in LogEntry.objects.get().change_message
    answer = refund(client, ticket, reason="Again.")
    assert "cannot become refunded" in answer.content.decode()
    assert ChainTx.objects.count() == Transfer.objects.count() == LogEntry.objects.count() == 1


@pytest.mark.parametrize("status", [Status.QUOTED, Status.SETTLED, Status.EXPIRED])
def test_what_cannot_be_refunded_stays_as_it_is(chain, ticket, status):
    Ticket.objects.update(status=status)
    assert "cannot become refunded" in refund(admin_client(), ticket, reason="Why not.").content.decode()
    assert not ChainTx.objects.exists() and not LogEntry.objects.exists()
