"""Every move of an audit is a verb here: order it, ask the worker, take what it shows, decide; and what follows for the round.

An audit never holds a round up that is still training: it is about one that was averaged. The next one may train meanwhile, but is
not averaged before the audits are decided. Nothing computes here; the replays are in compute.py.
"""

import random
from datetime import timedelta

from django.conf import settings
from django.db import transaction
from django.db.models import Exists, F, QuerySet
from django.utils import timezone

from dmlsite import jobs, live
from dmlsite.errors import Conflict, Missing
from dmlworker.protocol import Lease
from dmlworker.trace import Trace, segments_of
from providers import attestations
from providers.models import Connection, Provider
from tickets import actions as tickets
from training import actions, evidence, records, store
from training.models import Assignment, Audit, Blob, Replay, Round

State = Assignment.State
CHANCE = "drawn by chance"
FOR_RECEIPT = "for the customer's receipt"
NOT_PROVABLE = "not provable"
AMPLIFIES = (
    "With these settings tiny rounding differences between computers grow until honest work, done twice, ends in different weights. So doing "
    "a provider's work again does not tell a cheat here, and convicts nobody; the other checks go on. A lower learning rate mostly helps."
)


def ordered(round_: Round, updates: list[Assignment]) -> list[tuple[Assignment, str]]:
    """Whose work is looked at, and why: what the screen noticed, and by chance; the rarer, the more audits in a row were
    passed. An update that was audited before its round was opened again is not audited twice. Of the rounds that the receipt keeps
    at least one is, however long the providers' records, or the customer would have nothing to replay."""
    if not settings.AUDITS:
        return []
    known = set(Audit.objects.filter(assignment__round=round_).values_list("assignment", flat=True))
    new = [update for update in updates if update.pk not in known]
    found = [(update, why) for update in new if (why := update.suspicion or _by_chance(update.provider))]
    wanted = new and len(new) == len(updates) and records.keeps_checkpoints(round_)
    return found or ([(random.SystemRandom().choice(new), FOR_RECEIPT)] if wanted else [])


def _by_chance(provider: Provider) -> str:
    chance = evidence.audit_probability(provider.streak, settings.AUDIT_FIRST, settings.AUDIT_PERCENT / 100)
    return CHANCE if random.SystemRandom().random() < chance else ""


def measured(round_: Round, accuracy: float, loss: float | None, orders: list[tuple[Assignment, str]]) -> None:
    """Write down what a closed round's mean does on the hold-out, and ask the workers of these updates to show their work."""
    with transaction.atomic():
        run = actions.locked(round_.run)
        unmeasured = Round.objects.filter(pk=round_.pk, state=Round.State.CLOSED, accuracy=None)
        if run and unmeasured.update(accuracy=accuracy, loss=loss):
            deadline = timezone.now() + timedelta(seconds=settings.LEASE_SECONDS)
            Audit.objects.bulk_create(
                Audit(assignment=update, why=why, drawn=_drawn(update), deadline=deadline) for update, why in orders
            )
            live.changed(*(live.provider_group(update.provider_id) for update, _ in orders))


def _drawn(update: Assignment) -> list[int]:
    """Drawn only now that the worker has committed itself."""
    segments = segments_of(update.shard.samples, actions.hyper_of(update))
    return sorted(random.SystemRandom().sample(range(segments), min(evidence.DRAWN_SEGMENTS, segments)))


# --- The worker's turn ------------------------------------------------------------------------------------------------
def asked(provider: Provider) -> QuerySet[Audit]:
    """The audits for which a worker of this provider has to show its work."""
    return Audit.objects.filter(
        assignment__provider=provider, assignment__state=State.COMMITTED, state=Audit.State.ASKED
    )


def challenges(provider: Provider, channel: str) -> list[Audit]:
    """Those that the worker on this connection is to be told of: it did the work, or the one that did is not online; of work for attested
    workers, if it is one."""
    found = asked(provider).select_related(
        "assignment__round__run__spec",
        "assignment__round__run__ticket",
        "assignment__round__start",
        "assignment__shard__blob",
    )
    online = set(Connection.objects.online().filter(provider=provider).values_list("channel", flat=True)) - {channel}
    if not attestations.is_attested(channel):
        found = found.filter(assignment__round__run__ticket__attested=False)
    return [audit for audit in found if audit.assignment.channel not in online]


def show(provider: Provider, lease: Lease, trace: str) -> None:
    """A worker says that its trace, by this hash, and the weights that go with it are stored. Saying it again succeeds."""
    assignment = actions.find(provider, lease)
    audit = Audit.objects.filter(assignment=assignment).first()
    if audit is None:
        raise Missing("nothing is asked about this lease")
    stored = Exists(Blob.objects.filter(pk=trace))
    fields = {"state": Audit.State.SHOWN, "trace_id": trace}
    with transaction.atomic():
        done = Audit.objects.filter(stored, pk=audit.pk, state=Audit.State.ASKED).update(**fields)
        if done:
            store.take_over([trace])
            jobs.enqueue("training.tasks.audit", audit.pk)
    if not done and audit.trace_id != trace:
        raise Conflict("this audit is decided" if audit.state != Audit.State.ASKED else "upload the trace first")


def checkpoints(audit: Audit) -> set[str]:
    """The hashes of the weights that a worker was asked to show."""
    if not audit.trace_id:
        return set()
    trace = Trace.from_bytes(store.get(audit.trace_id))
    numbers = {number for segment in trace.asked(audit.drawn) for number in (segment, segment + 1)}
    return {trace.segments[number - 1].sha256 for number in numbers if number}


def unneeded(audit: Audit) -> set[str]:
    """Of these, and of what its replays ended with, all that no other audit looked at: that may be evidence against whoever did the same
    work before."""
    mine, run = checkpoints(audit).union(audit.replays.values_list("result", flat=True)), audit.assignment.round.run_id
    others = Replay.objects.filter(audit__assignment__round__run=run).exclude(audit=audit)
    return mine.difference(*others.values_list("start", "claimed", "result"))


def give_up_overdue() -> list[Round]:
    """End the audits whose workers neither showed their work in time nor were at other work; gives their rounds."""
    late = Audit.objects.filter(state=Audit.State.ASKED, deadline__lt=timezone.now())
    found = list(late.filter(assignment__state=State.COMMITTED).select_related("assignment__round__run__ticket"))
    for audit in found:
        decide(audit, Audit.State.UNPROVEN, "not shown in time")
    return [audit.assignment.round for audit in found]


# --- The verdict ------------------------------------------------------------------------------------------------------
def decide(audit: Audit, state: str, note: str = "") -> None:
    """Write a verdict down, once. A passed audit makes the next one less likely, any other end sends the provider back to
    the beginning, but one that proves nothing either way."""
    with transaction.atomic():
        open_ = Audit.objects.filter(pk=audit.pk, state__in=Audit.UNDECIDED)
        if not open_.update(state=state, note=note[:1000], decided=timezone.now()):
            return
        mine = Provider.objects.filter(pk=audit.assignment.provider_id)
        if state == Audit.State.PASSED:
            mine.update(streak=F("streak") + 1)
        elif state != Audit.State.INCONCLUSIVE:
            mine.update(streak=0)
        else:
            _say_not_provable(audit.assignment.round)


def _say_not_provable(round_: Round) -> None:
    """Tell the customer, once, that replays can't tell a cheat in this training. The lock keeps two auditors from saying it twice."""
    run = actions.locked(round_.run)
    if run and not run.ticket.events.filter(kind=NOT_PROVABLE).exists():
        text = f"An audit in round {round_.number} could prove nothing. {AMPLIFIES}"
        tickets.note(run.ticket, NOT_PROVABLE, text)


def judge(round_: Round) -> None:
    """What follows for a round when all its audits are decided: it passes; or what was not shown is done again by somebody
    else; or the cheats are convicted."""
    found = Audit.objects.filter(assignment__round=round_, assignment__state=State.COMMITTED)
    audits = list(found.select_related("assignment__provider", "assignment__shard", "assignment__round__run__ticket"))
    if any(audit.state in Audit.UNDECIDED for audit in audits):
        return
    if failed := [audit for audit in audits if audit.state == Audit.State.FAILED]:
        actions.convict(round_, failed)
    elif unproven := [audit for audit in audits if audit.state == Audit.State.UNPROVEN]:
        actions.set_aside(round_, unproven)
    else:
        actions.pass_round(round_)
