"""Jobs about money. Each takes ids, may run twice, and does nothing the second time."""

from datetime import timedelta

from django.core.mail import mail_admins
from django.utils import timezone

from dmlsite import jobs
from ledger import outbox
from ledger.actions import NUDGES
from ledger.models import Alarm, ChainEvent, ChainTx


@jobs.actor()
def send(pk: str) -> None:
    if tx := ChainTx.objects.filter(pk=pk).first():
        outbox.send(tx)


@jobs.actor(retries=5)
def mail_alarm(pk: int) -> None:
    if alarm := Alarm.objects.filter(pk=pk, mailed=None).first():
        mail_admins(f"Alarm: {alarm.kind}", f"{alarm.text}\n\nTicket or case: {alarm.case or 'none'}")
        Alarm.objects.filter(pk=pk).update(mailed=timezone.now())


@jobs.actor(retries=0, max_age=60_000)
def sweep() -> None:
    """Send what is due, and repeat nudges that were lost."""
    for pk in outbox.due():
        send.send(pk)
    for event in ChainEvent.objects.filter(followed=None, seen__lt=timezone.now() - timedelta(seconds=10)):
        jobs.enqueue(NUDGES[event.name], event.pk)
    for pk in Alarm.objects.filter(mailed=None, cleared=None).values_list("pk", flat=True):
        mail_alarm.send(pk)
