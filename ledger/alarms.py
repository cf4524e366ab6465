"""What an admin must look at, and what stands still until an admin has."""

import logging
from uuid import UUID

from django.db import IntegrityError, transaction
from django.utils import timezone

from dmlsite import jobs
from ledger.models import PAYOUTS, Alarm, ChainTx

log = logging.getLogger(__name__)
Kind = Alarm.Kind

PAYING = ("settle", "refund", "failTicket", "executeBan")
"""The verbs that take money out of the escrow. An accusation only freezes, an acquittal only frees."""


def alarm(kind: Kind, text: str, case: UUID | None = None, halts: str = "") -> None:
    """Record something an admin must look at and mail the admins; one open alarm per kind, case and what it halts."""
    log.error("alarm: %s: %s", kind, text)
    try:
        with transaction.atomic():
            found = Alarm.objects.create(kind=kind, text=text, case=case, halts=halts)
            jobs.enqueue("ledger.tasks.mail_alarm", found.pk)
    except IntegrityError:
        log.info("that alarm is open already")


def clear(found: Alarm, actor: str) -> None:
    """An admin has looked; what the alarm halted goes on."""
    Alarm.objects.filter(pk=found.pk, cleared=None).update(cleared=timezone.now(), cleared_by=actor)


def halted(tx: ChainTx, sender: str) -> bool:
    """Whether an open alarm forbids to sign this."""
    what = [sender, PAYOUTS] if tx.verb in PAYING else [sender]
    return Alarm.objects.filter(cleared=None, halts__in=what).exists()
