"""Mails about a ticket. A row is written with the move that causes it; a job sends it once."""

from datetime import timedelta
from smtplib import SMTPException, SMTPRecipientsRefused

from django.conf import settings
from django.core import signing
from django.db import transaction
from django.db.models import F, QuerySet
from django.template.loader import render_to_string
from django.urls import reverse
from django.utils import timezone

from accounts.models import User
from dmlsite import jobs, live
from dmlsite.mail import message
from ledger.alarms import Kind, alarm
from tickets.models import Artifact, Mail, Ticket, TicketEvent

SUBJECTS = {
    "paid": "Your payment has arrived",
    "started": "Training has started",
    "done": "Your model is ready",
    "refunded": "Your payment was returned",
    "mishandled": "Your data was mishandled; your payment was returned",
    "failed": "Training failed; your payment was returned",
}
MAILED = ("model.json", "model.keras", "model.weights.h5", "model-card.md", "receipt.json")
"""Files whose links are in the mail; the ticket's page has all."""
SALT = "tickets.artifact"
PATIENCE = timedelta(minutes=1)
"""A mail that is due for so long and not sent is taken up by the sweep."""
LEASE = timedelta(minutes=10)
"""A job that has not ended a mail after so long is taken for dead. The mail server has answered by then (EMAIL_TIMEOUT)."""


def link(artifact: Artifact) -> str:
    """A signed link to a file that runs out after ARTIFACT_LINK_SECONDS."""
    token = signing.TimestampSigner(salt=SALT).sign(str(artifact.pk))
    return settings.SITE_URL + reverse("tickets:artifact", args=[token])


def opened(token: str) -> str:
    """The artifact's id in a link's token. Raises SignatureExpired or BadSignature."""
    return signing.TimestampSigner(salt=SALT).unsign(token, max_age=settings.ARTIFACT_LINK_SECONDS)


def queue(ticket: Ticket, kind: str) -> None:
    """Have a mail of this kind sent to the ticket's customer; at most one of a kind, however often asked. None to a closed account."""
    if not User.objects.filter(pk=ticket.customer_id, is_active=True).exists():
        return
    mail, new = Mail.objects.get_or_create(ticket=ticket, kind=kind, to=ticket.customer.email)
    if new:
        jobs.enqueue("tickets.tasks.send_mail", mail.pk)


def waiting() -> QuerySet[Mail]:
    """What should have gone out by now: a message was lost, a process died, or it failed a while ago."""
    return Mail.objects.filter(sent=None, due__lt=timezone.now() - PATIENCE)


def claim(pk: int) -> Mail | None:
    """A mail to be sent, for the one job that gets it; None if it was sent, is not due, or another job has it.

    A job whose process dies is made up for when its LEASE is over. If it had given the mail to the server just before, the mail goes
    out a second time: nobody knows.
    """
    mine = Mail.objects.filter(pk=pk, sent=None, due__lte=timezone.now())
    if not mine.update(due=timezone.now() + LEASE):
        return None
    found = Mail.objects.select_related("ticket__customer").filter(pk=pk).first()
    if found and not found.ticket.customer.is_active:  # queued in the moment in which the account was closed
        found.delete()
        return None
    return found


def send(mail: Mail) -> None:
    """Render and send a mail that the caller has claimed. A failure is recorded, shown to the admins, and tried again by the sweep,
    less and less often.

    A link opens the model for whoever has it: it goes to no address that was not confirmed."""
    mailed = mail.kind == "done" and mail.ticket.customer.confirmed
    files = mail.ticket.artifacts.filter(name__in=MAILED) if mailed else []
    links = [(artifact.name, link(artifact)) for artifact in files]
    page = settings.SITE_URL + reverse("tickets:ticket", args=[mail.ticket_id])
    context = {"ticket": mail.ticket, "links": links, "page": page, "days": settings.ARTIFACT_LINK_SECONDS // 86400}
    mail.subject, mail.body = SUBJECTS[mail.kind], render_to_string(f"mail/{mail.kind}.txt", context)
    try:
        message(mail.subject, mail.body, mail.to).send()
    except (OSError, ValueError) as error:  # SMTP's errors are OSErrors; ValueError: no mail can be made of it
        _failed(mail, _told(error))
    else:
        _went_out(mail)


def _went_out(mail: Mail) -> None:
    """Only on a row that is still there: it may have gone with the customer's account meanwhile."""
    with transaction.atomic():
        done = {"subject": mail.subject, "body": mail.body, "sent": timezone.now(), "error": ""}
        if Mail.objects.filter(pk=mail.pk).update(**done):
            TicketEvent.objects.create(ticket=mail.ticket, kind="mailed", text=f"{mail.subject} (to {mail.to})")
            live.changed(live.ticket_group(mail.ticket_id))


def _failed(mail: Mail, error: str) -> None:
    """The timeline has an error once for as long as it is the same."""
    due = timezone.now() + jobs.backoff(mail.tries + 1)
    with transaction.atomic():
        failed = {"subject": mail.subject, "error": error, "due": due, "tries": F("tries") + 1}
        if not Mail.objects.filter(pk=mail.pk, sent=None).update(**failed):
            return
        if error != mail.error:
            TicketEvent.objects.create(ticket=mail.ticket, kind="mail failed", text=f"{mail.subject}: {error}")
        alarm(Kind.MAIL_FAILED, f"{mail.kind}: {error}", case=mail.ticket_id)


def _told(error: Exception) -> str:
    """An error without the words of a mail server, which may hold the address: that is kept in the mail's row alone."""
    if not isinstance(error, (SMTPException, ValueError)):
        return str(error)
    refused = error.recipients.values() if isinstance(error, SMTPRecipientsRefused) else ()
    codes = {code for code, _ in refused} or {getattr(error, "smtp_code", "")}
    return " ".join([type(error).__name__, *map(str, sorted(codes))]).strip()
