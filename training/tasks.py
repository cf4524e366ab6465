"""Jobs of training. Each takes ids, may run twice, and does nothing the second time."""

import secrets
import shutil
from collections.abc import Iterable
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

from django.conf import settings
from django.core.files.base import ContentFile, File
from django.db.models import Exists, OuterRef
from django.utils import timezone

from dmlsite import jobs
from dmlsite.errors import Conflict
from dmlsite.jobs import claim
from dmlworker.datasets import DatasetError
from dmlworker.receipt import NAME
from dmlworker.weights import MalformedUpdate
from ledger.books import following
from ledger.models import ChainEvent
from tickets import actions as tickets
from tickets.models import Status, Ticket
from tickets.preparing import Preparing
from training import actions, audits, card, compute, delivery, pay, records, retention, store, trial
from training.actions import guarded
from training.models import Assignment, Audit, Round, Run

FIRST = -1
"""The priority of what a round waits for, before measuring and replaying."""
LONG = 3_600_000
"""Milliseconds that a step may take."""
PATIENCE = timedelta(seconds=4 * settings.SWEEP_SECONDS)
"""A step not begun after this long is begun by the sweep."""
ERASED_AT_ONCE = 100
"""Tickets whose data one sweep erases."""


@jobs.actor(queue_name=jobs.COMPUTE, time_limit=LONG)
def prepare(ticket: str) -> None:
    """Cut an uploaded file into shards. One that cannot be trained on gets the whole payment back."""
    found = tickets.get(ticket)
    with claim(f"prepare:{ticket}") as mine:
        if mine and found.status == Status.UPLOADED and not Run.objects.filter(ticket=found).exists():
            with guarded(found, "preparing the data"):
                _prepare(found)


def _prepare(ticket: Ticket) -> None:
    seed = secrets.randbelow(2**31) if ticket.seed is None else ticket.seed
    with store.local_copy(ticket.dataset.file, Path(ticket.dataset.name).suffix) as path, Preparing(ticket) as told:
        try:
            prepared = compute.prepare(ticket, path, settings.PROVIDERS_PER_TICKET, seed, told)
        except DatasetError as error:
            tickets.refund(ticket, f"The file cannot be trained on: {error}")
            return
    try:
        actions.open_run(ticket, prepared, seed)
    except Conflict:  # the customer cancelled, and may have closed the account: nothing of the data stays
        store.forget(prepared.blobs())


@jobs.actor(time_limit=LONG)
def start_waiting() -> None:
    """Start what waits, in fair order, as far as providers are free."""
    with claim("start") as mine:
        for run in actions.queue() if mine else ():
            with tickets.apart(run.ticket, "Starting the training"):
                actions.start(run)


@jobs.actor(time_limit=LONG)
def receive(pk: int) -> None:
    """See whether an update is well-formed; the last one of a round closes it, if it needs no look."""
    update = Assignment.objects.select_related("round__run__ticket", "provider").get(pk=pk)
    if update.state != Assignment.State.COMMITTED or update.received:
        return
    last = False
    with guarded(update.round.run.ticket, "receiving an update", update.round.run_id):
        try:
            weights = update.weights_id or compute.receive(update)  # it may have passed, and wait for its look
        except MalformedUpdate as error:
            actions.reject(update, str(error))
        else:
            last = actions.well_formed(update, weights)
    if last:  # here and now: another message would take longer than the average
        close_round(update.round_id)


@jobs.actor(queue_name=jobs.COMPUTE, priority=FIRST, time_limit=LONG)
def look(pk: int) -> None:
    """See how a well-formed update does on some samples, before it is averaged; the last one of a round closes it."""
    update = Assignment.objects.select_related("round__run__ticket", "provider").get(pk=pk)
    if update.state != Assignment.State.COMMITTED or update.received or not update.weights_id:
        return
    last = False
    with guarded(update.round.run.ticket, "looking at an update"):
        compute.look(update)
        last = actions.received(update)
    if last:
        close_round(update.round_id)


@jobs.actor(time_limit=LONG)
def close_round(pk: int) -> None:
    """Average a complete round and open the next one; one job at a time."""
    with claim(f"round:{pk}") as mine:
        round_ = Round.objects.select_related("run__ticket").get(pk=pk)
        open_ = mine and round_.state == Round.State.OPEN and round_.run.state == Run.State.TRAINING
        if open_ and (updates := actions.ready(round_)):
            with guarded(round_.run.ticket, f"closing round {round_.number}", round_.run_id):
                actions.finish_round(round_, updates, *compute.average(round_, updates))


@jobs.actor(queue_name=jobs.COMPUTE, priority=FIRST, time_limit=LONG)
def root(pk: int) -> None:
    """Train the platform's own update; the others may be waiting for it already."""
    with claim(f"root:{pk}") as mine:
        round_ = Round.objects.select_related("run__ticket").get(pk=pk)
        open_ = mine and round_.state == Round.State.OPEN and round_.run.state == Run.State.TRAINING
        if open_ and round_.root_id is None:
            with guarded(round_.run.ticket, f"the platform's own update of round {round_.number}", round_.run_id):
                compute.root_update(round_)
            if actions.ready(round_):
                close_round.send(pk)


@jobs.actor(queue_name=jobs.COMPUTE, time_limit=LONG)
def check_round(pk: int) -> None:
    """Measure a closed round and audit its updates, while the next one trains. Bad work ends the run: no model that holds any leaves
    the house."""
    with claim(f"check:{pk}") as mine:
        round_ = Round.objects.select_related("run__ticket").get(pk=pk)
        due = round_.state == Round.State.CLOSED and not round_.checked and round_.run.state == Run.State.TRAINING
        if mine and due:
            with guarded(round_.run.ticket, f"checking round {round_.number}", round_.run_id):
                _check(round_)


def _check(round_: Round) -> None:
    if round_.accuracy is None:
        updates = actions.updates_of(round_)
        accuracy, loss = compute.measure(round_, updates)
        audits.measured(round_, accuracy, loss, audits.ordered(round_, updates))
    audits.judge(round_)


@jobs.actor(queue_name=jobs.COMPUTE, time_limit=LONG)
def audit(pk: int) -> None:
    """Replay what a worker showed of its work; the last audit of a round decides what becomes of the round."""
    with claim(f"audit:{pk}") as mine:
        found = Audit.objects.select_related("assignment__round__run__ticket", "assignment__shard").get(pk=pk)
        round_ = found.assignment.round
        if mine and found.state == Audit.State.SHOWN and round_.run.state == Run.State.TRAINING:
            with guarded(round_.run.ticket, f"auditing round {round_.number}", round_.run_id):
                state, note = compute.audit(found)
                if state != Audit.State.UNPROVEN:
                    store.take_over(audits.checkpoints(found))
                audits.decide(found, state, note)
                if state == Audit.State.PASSED and not records.keeps_checkpoints(round_):
                    compute.forget_checkpoints(found)
                audits.judge(round_)


@jobs.actor(queue_name=jobs.COMPUTE, time_limit=LONG)
def finish(run: str) -> None:
    """Make the customer's model, then pay the providers; its other formats take longer, and come after."""
    found = Run.objects.select_related("ticket").get(pk=run)
    with claim(f"finish:{run}") as mine:
        if mine and found.state == Run.State.TRAINING:
            with guarded(found.ticket, "finishing", found.pk):
                _finish(found)


def _finish(run: Run) -> None:
    last = run.all_rounds.get(number=run.rounds)
    if last.end_id is None or last.accuracy is None:  # not checked yet
        return
    compute.assess(run, last.end_id)
    with TemporaryDirectory() as folder:
        _keep(run, compute.export(run, last.end_id, Path(folder)))
    merit = pay.merit(run)
    receipt = records.receipt(run, merit)
    tickets.store_artifact(run.ticket, NAME, ContentFile(receipt.to_bytes()))
    actions.finish(run, last.accuracy, merit, receipt.root)


def _keep(run: Run, paths: Iterable[Path]) -> None:
    for path in paths:
        with path.open("rb") as file:
            tickets.store_artifact(run.ticket, path.name, File(file))


@jobs.actor(queue_name=jobs.COMPUTE, time_limit=LONG)
def convert(run: str) -> None:
    """Make the other formats of a finished model. While this process makes another's, it is left to the sweep."""
    with claim(f"formats:{run}") as mine:
        found = delivery.unconverted().filter(pk=run).first()
        if mine and found:
            with suppress(Conflict, compute.Busy):  # Conflict: the customer has closed their account meanwhile
                _convert(found)


def _convert(run: Run) -> None:
    """What an earlier job stored is not made again."""
    if not (formats := delivery.missing(run)):
        delivery.converted(run, {})
        return
    with TemporaryDirectory() as folder:
        model = run.ticket.artifacts.get(name=delivery.KERAS)
        with model.file.open("rb") as file, (Path(folder) / delivery.KERAS).open("wb") as copy:
            shutil.copyfileobj(file, copy)
        paths, left_out = compute.convert(run, Path(folder), formats)
        _keep(run, paths)
    delivery.converted(run, left_out)


@jobs.actor(time_limit=LONG)
def deliver(run: str) -> None:
    """Where the payment of the providers is final: write the model card and the mail, when all formats are there, or their time is over."""
    with claim(f"formats:{run}") as mine:
        found = delivery.undelivered().filter(pk=run).first()
        event = ChainEvent.objects.filter(name="Settled", case=found.ticket_id).first() if found else None
        if mine and found and event and delivery.formats_over(found):
            with suppress(Conflict):  # the customer has closed their account meanwhile
                for name, data in card.documents(found, event).items():
                    tickets.store_artifact(found.ticket, name, ContentFile(data))
                delivery.delivered(found)


@jobs.actor(queue_name=jobs.COMPUTE, retries=0, max_age=1000 * trial.SECONDS)
def answer_trial(run: str, pk: str) -> None:
    """Ask a customer's model about the sample that they gave."""
    sample = trial.sample(pk)
    if sample is not None:
        trial.answer(pk, compute.predict(Run.objects.get(pk=run), sample))


@jobs.actor()
def settled(event: int) -> None:
    """The payment of the providers is final: the model card can name the transaction, and the mail may go out."""
    with following(event) as found:
        run = Run.objects.filter(ticket=found.case).first() if found else None
        if run:
            jobs.enqueue("training.tasks.deliver", str(run.pk))


@jobs.actor(retries=0, max_age=jobs.SWEEP_AGE)
def sweep() -> None:
    """Repeat what a lost message or a crash left undone."""
    late = timezone.now() - PATIENCE
    actions.stop_ended()
    actions.reassign_overdue()
    with jobs.apart("unfinished uploads"):
        store.forget_unfinished()
    with jobs.apart("what nothing names"):
        actions.forget_unnamed()
    for ticket in retention.due()[:ERASED_AT_ONCE]:
        with jobs.apart(f"the data of {ticket}"):
            retention.erase(ticket)
    for pk in Ticket.objects.filter(status=Status.UPLOADED, run=None, dataset__created__lt=late).values_list(
        "pk", flat=True
    ):
        prepare.send(str(pk))
    if Run.objects.filter(state=Run.State.WAITING).exists():
        start_waiting.send()
    open_, closed = (
        {"state": state, "run__state": Run.State.TRAINING} for state in (Round.State.OPEN, Round.State.CLOSED)
    )
    committed = Assignment.objects.filter(state=Assignment.State.COMMITTED, received=None, committed__lt=late)
    for pk in committed.filter(round__in=Round.objects.filter(**open_)).values_list("pk", flat=True):
        receive.send(pk)
    for pk, rule in Round.objects.filter(opened__lt=late, root=None, **open_).values_list("pk", "run__rule"):
        if actions.rooted(rule):
            root.send(pk)
    for round_ in Round.objects.filter(opened__lt=late, **open_):
        with jobs.apart(round_):
            if actions.ready(round_):
                close_round.send(round_.pk)
    for pk in Round.objects.filter(checked=None, closed__lt=late, **closed).values_list("pk", flat=True):
        check_round.send(pk)
    for round_ in audits.give_up_overdue():
        with tickets.apart(round_.run.ticket, f"Judging round {round_.number}"):
            audits.judge(round_)
    shown = Audit.objects.filter(
        state=Audit.State.SHOWN, asked__lt=late, assignment__round__run__state=Run.State.TRAINING
    )
    for pk in shown.values_list("pk", flat=True):
        audit.send(pk)
    unchecked = Round.objects.filter(run=OuterRef("pk"), checked=None)
    for run in Run.objects.filter(~Exists(unchecked), state=Run.State.TRAINING):
        finish.send(str(run.pk))
    for run in delivery.unconverted().filter(finished__lt=late):
        convert.send(str(run.pk))
    for run in delivery.undelivered().filter(finished__lt=late):
        deliver.send(str(run.pk))
