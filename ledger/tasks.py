"""Jobs about money. Each takes ids, may run twice, and does nothing the second time."""

import logging
from datetime import timedelta

from django.core.mail import mail_admins
from django.utils import timezone

from contracts.chain import ChainError
from dmlsite import jobs
from ledger import outbox, watch
from ledger.books import NUDGES
from ledger.gateway import chain
from ledger.models import Alarm, ChainEvent, ChainTx
from ledger.reconcile import NotYet
from ledger.reconcile import reconcile as compare_and_keep
from observe import logs

log = logging.getLogger(__name__)


@jobs.actor()
def send(pk: str) -> None:
    if tx := ChainTx.objects.filter(pk=pk).first():
        logs.note(ticket=tx.case)
        outbox.send(tx)


@jobs.actor(retries=5)
def mail_alarm(pk: int) -> None:
    if alarm := Alarm.objects.filter(pk=pk, mailed=None).first():
        stop = f"\n\nUntil it is cleared, this stands still: {alarm.halts}" if alarm.halts else ""
        mail_admins(f"Alarm: {alarm.kind}", f"{alarm.text}\n\nTicket or case: {alarm.case or 'none'}{stop}")
        Alarm.objects.filter(pk=pk, text=alarm.text).update(mailed=timezone.now())  # what was added meanwhile is not


@jobs.actor(retries=0, max_age=jobs.SWEEP_AGE)
def sweep() -> None:
    """Send what is due, and repeat nudges that were lost."""
    for pk in outbox.due():
        send.send(pk)
    for event in ChainEvent.objects.filter(followed=None, seen__lt=timezone.now() - timedelta(seconds=10)):
        jobs.enqueue(NUDGES[event.name], event.pk)
    for pk in Alarm.objects.filter(mailed=None, cleared=None).values_list("pk", flat=True):
        mail_alarm.send(pk)


@jobs.actor(retries=0, max_age=60_000)
def reconcile() -> None:
    """The scheduled comparison of the books with the chain. One that could not be made is made up for by the next."""
    try:
        compare_and_keep(chain())
        watch.all_of(chain())
    except (NotYet, ChainError) as error:
        log.warning("reconcile: %s", error)
