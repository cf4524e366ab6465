"""A customer's data is not kept for longer than it is needed: some days after a ticket's end, or when the customer says so before, the file
and the parts cut of it are erased. The model stays, and so do the hashes, and what proves that a provider cheated."""

from datetime import datetime, timedelta

from django.conf import settings
from django.db import transaction
from django.db.models import Exists, OuterRef, QuerySet
from django.utils import timezone

from dmlsite.errors import Conflict
from tickets import actions as tickets
from tickets.models import ENDED, Dataset, Ticket, TicketEvent
from training import delivery, personal, store
from training.models import Run


def due() -> QuerySet[Ticket]:
    """Whose data was kept for long enough."""
    ended = _ends(OuterRef("pk")).filter(at__lt=timezone.now() - _kept())
    kept = Ticket.objects.filter(Exists(ended), status__in=ENDED, dataset__in=Dataset.objects.exclude(file=""))
    return kept.exclude(run__in=delivery.undelivered())


def until(ticket: Ticket) -> datetime | None:
    """When a ticket's data is erased by itself; None if it has not ended, or has none."""
    ended = _ends(ticket.pk).values_list("at", flat=True).first() if ticket.status in ENDED else None
    return ended + _kept() if ended and Dataset.objects.filter(ticket=ticket).exclude(file="").exists() else None


def erase(ticket: Ticket, actor: str = "platform") -> None:
    """Erase the file and its parts. Raises Conflict while they are needed, and if they are gone."""
    run = Run.objects.filter(ticket=ticket).first()
    if run and delivery.undelivered().filter(pk=run.pk).exists():
        raise Conflict("The model's files are still being made of it. Please try again in a few minutes.")
    with transaction.atomic():
        tickets.erase_dataset(ticket, actor)
        if run:
            mine = Run.objects.filter(pk=run.pk)
            store.erase(personal.data_of(mine))
            mine.update(facts=run.facts | {"example": None})


def _ends(ticket: object) -> QuerySet[TicketEvent]:
    return TicketEvent.objects.filter(ticket=ticket, new__in=ENDED).order_by("at")


def _kept() -> timedelta:
    return timedelta(days=settings.KEEP_DATA_DAYS)
