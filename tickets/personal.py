"""What a customer's tickets say about them (accounts/personal.py)."""

from typing import Any

from django.contrib.admin.models import LogEntry
from django.contrib.contenttypes.models import ContentType
from django.db.models import Exists, F, OuterRef, Q, Value
from django.db.models.functions import Replace
from django.forms.models import model_to_dict

from accounts.models import User
from accounts.personal import erased_address
from ledger.alarms import Kind
from ledger.books import ENDINGS
from ledger.models import Alarm, ChainEvent
from tickets import files
from tickets.actions import drop_upload
from tickets.models import REFUNDABLE, Artifact, Dataset, Mail, OwnModel, PartialUpload, Status, Ticket, TicketEvent

QUOTING = ("The file cannot be trained on", "Something went wrong on our side")
"""Reasons after whose colon stands what an error said: it may quote the file."""


def refusal(user: User) -> str:
    mine = Ticket.objects.filter(customer=user)
    if mine.filter(status__in=REFUNDABLE).exists():
        return "A ticket of yours is paid and not finished yet."
    ended = ChainEvent.objects.filter(case=OuterRef("pk"), name__in=ENDINGS, followed__isnull=False)
    if mine.filter(~Exists(ended), status=Status.SETTLED).exists():
        return "A model of yours is ready, but the payment of the providers is not final yet. Please try again in a few minutes."
    return ""


def export(user: User) -> list[dict[str, Any]]:
    return [_ticket(ticket, user) for ticket in user.tickets.all()]


def _ticket(ticket: Ticket, user: User) -> dict[str, Any]:
    own = model_to_dict(ticket, exclude=["customer", "signature"])
    events = ticket.events.values("kind", "old", "new", "text", "actor", "at")
    parts = {
        "events": [event | {"actor": _named(event["actor"], user)} for event in events],
        "artifacts": ticket.artifacts.values("name", "size", "sha256", "created"),
        "files": Dataset.objects.filter(ticket=ticket).values("name", "size", "sha256", "created"),
        "models": OwnModel.objects.filter(ticket=ticket).values("name", "spec", "parameters", "notes", "created"),
        "mails": ticket.mails.values("to", "subject", "body", "sent"),
    }
    return {"id": ticket.pk, "created": ticket.created, **own, **{name: list(rows) for name, rows in parts.items()}}


def _named(actor: str, user: User) -> str:
    """Who did it; which of the admins is none of the customer's business."""
    return {user.email: "you", "platform": "platform"}.get(actor, "an admin")


def erase(user: User) -> None:
    """Files, names and addresses go; that a ticket was, what it cost and how it ended stay: the ledger's books are made of it."""
    tickets = Ticket.objects.filter(customer=user)
    list(tickets.select_for_update(no_key=True))  # an upload or a file for the customer comes before, or not at all
    _erase_files(user)
    nobody = erased_address(user)
    Mail.objects.filter(ticket__customer=user, sent=None).delete()
    Mail.objects.filter(ticket__customer=user).update(to=nobody, body="", error="")
    _erase_words(user, nobody)
    tickets.update(file_name="erased", target="", leave_out=[], kinds={}, group="")


def _erase_files(user: User) -> None:
    for upload in PartialUpload.objects.filter(ticket__customer=user):
        drop_upload(upload)
    datasets, artifacts, own = (kind.objects.filter(ticket__customer=user) for kind in (Dataset, Artifact, OwnModel))
    files.let_go([name for kind in (datasets, artifacts, own) for name in kind.values_list("file", flat=True)])
    datasets.update(file="", name="")
    artifacts.delete()
    own.delete()


def _erase_words(user: User, nobody: str) -> None:
    """In what is kept: the address, the files' names, and what errors may have quoted of the files."""
    events, tickets = TicketEvent.objects.filter(ticket__customer=user), Ticket.objects.filter(customer=user)
    events.filter(actor=user.email).update(actor=nobody)
    events.filter(Q(new=Status.UPLOADED) | Q(kind="error")).update(text="")
    for reason in QUOTING:
        events.filter(text__startswith=f"{reason}:").update(text=f"{reason}.")
        tickets.filter(outcome__startswith=f"{reason}:").update(outcome=f"{reason}.")
    events.update(text=Replace(F("text"), Value(user.email), Value(nobody)))
    alarms = Alarm.objects.filter(case__in=tickets.values("pk"), kind__in=[Kind.TICKET_FAILED, Kind.MAIL_FAILED])
    log = LogEntry.objects.filter(content_type=ContentType.objects.get_for_model(Alarm))
    log.filter(object_id__in=[str(pk) for pk in alarms.values_list("pk", flat=True)]).update(object_repr="an alarm")
    alarms.update(text="The customer has closed their account.")
