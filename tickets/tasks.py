"""Jobs about tickets. Each takes ids, may run twice, and does nothing the second time."""

from dmlsite import jobs
from ledger.books import following
from observe import logs
from tickets import actions, files, mail
from tickets.models import Ticket


@jobs.actor()
def event_seen(pk: int) -> None:
    """A payment or a refund is final on the chain."""
    with following(pk) as event:
        if event and (ticket := Ticket.objects.filter(pk=event.case).first()):
            {"Paid": actions.payment_seen, "Refunded": actions.refund_seen}[event.name](ticket)


@jobs.actor()
def sighted(case: str) -> None:
    """A payment came into sight before it is final, or out of it."""
    if ticket := Ticket.objects.filter(pk=case).first():
        actions.payment_sighted(ticket)


@jobs.actor()
def send_mail(pk: int) -> None:
    if found := mail.claim(pk):
        logs.note(ticket=found.ticket_id)
        mail.send(found)


@jobs.actor(retries=0, time_limit=3_600_000)
def put_together(pk: str) -> None:
    """The parts of an upload, where the process that had the last one did not."""
    actions.put_together_late(pk)


@jobs.actor(retries=0, time_limit=3_600_000)
def remove_files() -> None:
    """Whatever nothing names any more; one job at a time."""
    with jobs.claim("leftovers") as mine:
        for left in files.due() if mine else ():
            files.remove(left)


@jobs.actor(retries=0, max_age=jobs.SWEEP_AGE)
def sweep() -> None:
    """Repeat what a lost message or a crash left undone."""
    actions.overdue()
    if files.due().exists():
        jobs.enqueue("tickets.tasks.remove_files")
    for upload in actions.left_over().values_list("pk", flat=True):
        jobs.enqueue("tickets.tasks.put_together", str(upload))
    for pk in mail.waiting().values_list("pk", flat=True):
        jobs.enqueue("tickets.tasks.send_mail", pk)
