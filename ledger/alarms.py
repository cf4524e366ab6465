"""What an admin must look at, and what stands still until an admin has."""

import logging
from uuid import UUID

from django.db import IntegrityError, transaction
from django.db.models import Value
from django.db.models.functions import Concat
from django.utils import timezone

from dmlsite import jobs
from ledger.models import PAYOUTS, Alarm, ChainTx
from observe import logs

log = logging.getLogger(__name__)
Kind = Alarm.Kind

PAYING = ("settle", "refund", "failTicket", "executeBan")
"""The verbs that take money out of the escrow. An accusation only freezes, an acquittal only frees."""


def alarm(kind: Kind, text: str, case: UUID | None = None, halts: str = "") -> None:
    """Record something an admin must look at and mail the admins; one open alarm per kind, case and what it halts."""
    with logs.about(ticket=case):
        log.error("alarm: %s: %s", kind, text)
    try:
        with transaction.atomic():
            found = Alarm.objects.create(kind=kind, text=text, case=case, halts=halts)
            jobs.enqueue("ledger.tasks.mail_alarm", found.pk)
    except IntegrityError:
        log.info("that alarm is open already")


def add(kind: Kind, text: str, case: UUID) -> None:
    """As `alarm`, where every text is news: to an open alarm it is added, and the whole is mailed again. The caller holds a lock
    on the case."""
    opened = Alarm.objects.filter(kind=kind, case=case, halts="", cleared=None)
    pk = opened.values_list("pk", flat=True).first()
    if pk is None or not opened.update(text=Concat("text", Value(f"\n{text}")), mailed=None):
        return alarm(kind, text, case)
    log.error("alarm: %s: %s", kind, text)
    jobs.enqueue("ledger.tasks.mail_alarm", pk)


def clear(found: Alarm, actor: str) -> None:
    """An admin has looked; what the alarm halted goes on."""
    Alarm.objects.filter(pk=found.pk, cleared=None).update(cleared=timezone.now(), cleared_by=actor)


def halted(tx: ChainTx, sender: str) -> bool:
    """Whether an open alarm forbids to sign this."""
    what = [sender, PAYOUTS] if tx.verb in PAYING else [sender]
    return Alarm.objects.filter(cleared=None, halts__in=what).exists()
