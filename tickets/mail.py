"""Mails about a ticket. A row is written with the move that causes it; a job sends it once."""

from django.conf import settings
from django.core import signing
from django.template.loader import render_to_string
from django.urls import reverse
from django.utils import timezone

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
SALT = "tickets.artifact"


def link(artifact: Artifact) -> str:
    """A signed link to a file that runs out after ARTIFACT_LINK_SECONDS."""
    token = signing.TimestampSigner(salt=SALT).sign(str(artifact.pk))
    return settings.SITE_URL + reverse("tickets:artifact", args=[token])


def opened(token: str) -> str:
    """The artifact's id in a link's token. Raises SignatureExpired or BadSignature."""
    return signing.TimestampSigner(salt=SALT).unsign(token, max_age=settings.ARTIFACT_LINK_SECONDS)


def queue(ticket: Ticket, kind: str) -> None:
    """Have a mail of this kind sent to the ticket's customer; at most one of a kind, however often asked."""
    mail, new = Mail.objects.get_or_create(ticket=ticket, kind=kind, to=ticket.customer.email)
    if new:
        jobs.enqueue("tickets.tasks.send_mail", mail.pk)


def send(mail: Mail) -> None:
    """Render and send. Called by a job; a failure is recorded, shown to the admins, and tried again by the sweep.

    A link opens the model for whoever has it: it goes to no address that was not confirmed."""
    mailed = mail.kind == "done" and mail.ticket.customer.confirmed
    links = [(artifact.name, link(artifact)) for artifact in mail.ticket.artifacts.all()] if mailed else []
    page = settings.SITE_URL + reverse("tickets:ticket", args=[mail.ticket_id])
    context = {"ticket": mail.ticket, "links": links, "page": page, "days": settings.ARTIFACT_LINK_SECONDS // 86400}
    mail.subject, mail.body = SUBJECTS[mail.kind], render_to_string(f"mail/{mail.kind}.txt", context)
    try:
        message(mail.subject, mail.body, mail.to).send()
    except OSError as error:  # SMTP's errors are OSErrors
        mail.error = str(error)
        mail.save()
        TicketEvent.objects.create(ticket=mail.ticket, kind="mail failed", text=f"{mail.subject}: {error}")
        alarm(Kind.MAIL_FAILED, f"{mail.kind}: {error}", case=mail.ticket_id)
        return
    mail.sent, mail.error = timezone.now(), ""
    mail.save()
    TicketEvent.objects.create(ticket=mail.ticket, kind="mailed", text=f"{mail.subject} (to {mail.to})")
    live.changed(live.ticket_group(mail.ticket_id))
