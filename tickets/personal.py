"""What a customer's tickets say about them (accounts/personal.py)."""

from typing import Any

from django.db import transaction
from django.db.models import F, Value
from django.db.models.functions import Replace
from django.forms.models import model_to_dict

from accounts.models import User
from accounts.personal import erased_address
from tickets.actions import drop_upload
from tickets.models import REFUNDABLE, Artifact, Dataset, Mail, PartialUpload, Ticket, TicketEvent


def refusal(user: User) -> str:
    if Ticket.objects.filter(customer=user, status__in=REFUNDABLE).exists():
        return "A ticket of yours is paid and not finished yet."
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
        "mails": ticket.mails.values("to", "subject", "body", "sent"),
    }
    return {"id": ticket.pk, "created": ticket.created, **own, **{name: list(rows) for name, rows in parts.items()}}


def _named(actor: str, user: User) -> str:
    """Who did it; which of the admins is none of the customer's business."""
    return {user.email: "you", "platform": "platform"}.get(actor, "an admin")


def erase(user: User) -> None:
    """Files, names and addresses go; that a ticket was, what it cost and how it ended stay: the ledger's books are made of it."""
    for upload in PartialUpload.objects.filter(ticket__customer=user):
        drop_upload(upload)
    for dataset in Dataset.objects.filter(ticket__customer=user):
        _delete_later(dataset)
        Dataset.objects.filter(pk=dataset.pk).update(file="", name="")
    for artifact in Artifact.objects.filter(ticket__customer=user):
        _delete_later(artifact)
        artifact.delete()
    nobody = erased_address(user)
    events = TicketEvent.objects.filter(ticket__customer=user)
    events.filter(actor=user.email).update(actor=nobody)
    events.update(text=Replace(F("text"), Value(user.email), Value(nobody)))
    Mail.objects.filter(ticket__customer=user).update(to=nobody, body="")
    Ticket.objects.filter(customer=user).update(file_name="erased", target="")


def _delete_later(row: Dataset | Artifact) -> None:
    """When the transaction has committed: a file can't be brought back."""
    storage, name = row.file.storage, row.file.name
    if name:
        transaction.on_commit(lambda: storage.delete(name))
