"""Tickets in the admin: the whole timeline of each, and the one thing an admin may do, a refund."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.utils.html import format_html_join
from django.utils.safestring import mark_safe

from dmlsite.admin import SHORT, ReadOnlyAdmin, ReadOnlyInline, actor, list_link, page_link, reasoned, tx_link
from dmlworker import task
from ledger.admin import amount, readable
from ledger.models import Alarm, Attempt, ChainEvent, ChainTx, Currency, Transfer
from tickets import actions
from tickets.models import DATA, TRAINING, Artifact, Dataset, Leftover, Mail, OwnModel, Ticket

REFUND = (
    "Refund: the ticket ends here, training stops, and the whole payment goes back to the wallet that paid it. "
    "The customer gets a mail and sees your reason."
)


@dataclass(frozen=True)
class Moment:
    """A line of the timeline. `text` and `link` are safe to show as they are; `wrong` marks what failed."""

    at: datetime
    what: str
    text: str
    who: str = ""
    link: str = ""
    wrong: bool = False


def timeline(ticket: Ticket) -> list[Moment]:
    """Everything that is known of a ticket, oldest first: its own events, mails, ledger, chain, alarms."""
    parts = (_events, _mails, _transfers, _intents, _attempts, _chain_events, _alarms)
    return sorted((moment for part in parts for moment in part(ticket)), key=lambda moment: moment.at)


def _events(ticket: Ticket) -> Iterator[Moment]:
    for row in ticket.events.all():
        move = f"{row.old} → {row.new}: {row.text}" if row.new else row.text
        yield Moment(row.at, row.kind, move, row.actor, wrong=row.kind == "error")


def _mails(ticket: Ticket) -> Iterator[Moment]:
    for row in ticket.mails.all():
        state = f"sent {row.sent:%Y-%m-%d %H:%M:%S}" if row.sent else f"not sent yet. {row.error}"
        yield Moment(
            row.created, "mail", f"{row.subject or row.kind} to {row.to}: {state}", link=page_link(row, "mail")
        )


def _transfers(ticket: Ticket) -> Iterator[Moment]:
    for row in Transfer.objects.filter(case=ticket.pk):
        moved = f"{amount(row.amount, row.currency)} {row.debit} → {row.credit}"
        yield Moment(row.created, f"ledger: {row.kind}", moved, link=page_link(row, "transfer"))


def _intents(ticket: Ticket) -> Iterator[Moment]:
    for row in ChainTx.objects.filter(case=ticket.pk):
        text = f"{row.verb}: {row.get_state_display()}. {row.error}"
        yield Moment(
            row.created, "chain: decided", text, wrong=bool(row.error), link=page_link(row, "chain transaction")
        )


def _attempts(ticket: Ticket) -> Iterator[Moment]:
    for row in Attempt.objects.filter(tx__case=ticket.pk).select_related("tx"):
        fee = (
            "not mined yet" if row.fee_gwei is None else f"fee {amount(row.fee_gwei, Currency.COIN)}, block {row.block}"
        )
        text = f"{row.tx.verb}, nonce {row.tx.nonce}: sent {row.broadcasts} times; {fee}. {row.error}"
        yield Moment(row.created, "chain: attempt", text, link=tx_link(row.hash, SHORT), wrong=bool(row.error))


def _chain_events(ticket: Ticket) -> Iterator[Moment]:
    for row in ChainEvent.objects.filter(case=ticket.pk):
        said = ", ".join(f"{name} {value}" for name, value in readable(row).items() if name != "ticket")
        yield Moment(row.seen, f"chain: {row.name}", f"block {row.block}: {said}", link=tx_link(row.tx, SHORT))


def _alarms(ticket: Ticket) -> Iterator[Moment]:
    for row in Alarm.objects.filter(case=ticket.pk):
        cleared = f" (cleared by {row.cleared_by})" if row.cleared else ""
        text = f"{row.kind}: {row.text}{cleared}"
        yield Moment(row.created, "alarm", text, wrong=not row.cleared, link=page_link(row, "alarm"))


class DatasetInline(ReadOnlyInline):
    """What is known of the customer's file; the file itself is the customer's, not ours to open."""

    model = Dataset
    fields = ["name", "size", "sha256", "created"]


class OwnModelInline(ReadOnlyInline):
    model = OwnModel
    fields = ["name", "parameters", "notes", "created"]


class ArtifactInline(ReadOnlyInline):
    model = Artifact
    fields = ["name", "size", "sha256", "created"]


@admin.register(Ticket)
class TicketAdmin(ReadOnlyAdmin):
    change_form_template = "admin/tickets/ticket/change_form.html"
    actions = buttons = ("refund",)
    inlines = [DatasetInline, OwnModelInline, ArtifactInline]
    list_display = ["created", "id", "customer", "status", "cost", "file_name", "result", "outcome"]
    list_filter = ["status", "created"]
    list_select_related = ["customer"]
    search_fields = ["id", "customer__email", "payer", "paid_tx", "file_name"]
    search_help_text = "Ticket, e-mail address, paying wallet, or the hash of any of its transactions"
    date_hierarchy = "created"
    fields = ["id", "status", "outcome", "who", "cost", "payer", "payment", "training", "sent", "result", "file_name"]
    fields += [
        "file_size",
        "target",
        "model_kind",
        *TRAINING,
        "search",
        *DATA,
        "attested",
        "on_cheat",
        "reward",
        "seed",
    ]
    fields += ["price_scheme", "samples", "flops", "flops_rate", "pay_by"]
    fields += ["upload_by", "settle_by", "created"]

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Ticket], search_term: str
    ) -> tuple[QuerySet[Ticket], bool]:
        """Also by the hash of any transaction that has to do with the ticket."""
        found, duplicates = super().get_search_results(request, queryset, search_term)
        if (tx := search_term.strip().lower()).startswith("0x"):
            cases = [*ChainTx.objects.filter(attempts__hash=tx).values_list("case", flat=True)]
            cases += ChainEvent.objects.filter(tx=tx).values_list("case", flat=True)
            found |= queryset.filter(pk__in=[case for case in cases if case])
        return found, duplicates

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        ticket = self.get_object(request, object_id)
        context = {"timeline": timeline(ticket) if ticket and self.has_view_permission(request, ticket) else []}
        return super().change_view(request, object_id, form_url, context | (extra_context or {}))

    @admin.display(description="customer")
    def who(self, row: Ticket) -> str:
        return page_link(row.customer)

    @admin.display(description="price", ordering="price")
    def cost(self, row: Ticket) -> str:
        return amount(row.price, Currency.DML)

    @admin.display(description="result", ordering="accuracy")
    def result(self, row: Ticket) -> str:
        return "–" if row.accuracy is None else task.told(row.task, row.accuracy, 2)

    @admin.display
    def payment(self, row: Ticket) -> str:
        return tx_link(row.paid_tx)

    @admin.display(description="run and rounds")
    def training(self, row: Ticket) -> str:
        parts = [("training_run", "run"), ("training_round", "rounds"), ("training_assignment", "assignments")]
        return format_html_join(", ", "{}", ((list_link(model, text, q=row.pk),) for model, text in parts))

    @admin.display(description="chain transactions")
    def sent(self, row: Ticket) -> str:
        found = ChainTx.objects.filter(case=row.pk).order_by("created")
        links = ((page_link(tx, tx.verb), tx.get_state_display(), tx_link(tx.hash)) for tx in found)
        return format_html_join(mark_safe("<br>"), "{}: {} {}", links) or "none"

    @reasoned("Refund", REFUND)
    def refund(self, request: HttpRequest, row: Ticket, reason: str) -> None:
        actions.refund(row, reason, actor=actor(request))


@admin.register(Mail)
class MailAdmin(ReadOnlyAdmin):
    list_display = ["created", "kind", "to", "ticket", "sent", "error", "due"]
    list_filter = ["kind", ("sent", admin.EmptyFieldListFilter), "created"]
    list_select_related = ["ticket"]
    search_fields = ["to", "ticket__id", "subject"]
    fields = ["order", "kind", "to", "subject", "sent", "error", "tries", "due", "created"]

    @admin.display(description="ticket")
    def order(self, row: Mail) -> str:
        return page_link(row.ticket)


@admin.register(Leftover)
class LeftoverAdmin(ReadOnlyAdmin):
    """What stays here with an error, the storage refuses to remove."""

    fields = list_display = ("name", "created", "tries", "error", "due")
    list_filter = ["created"]
    search_fields = ["name"]
