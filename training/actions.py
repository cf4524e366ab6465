"""Every move of a run is a verb here: open it, open its rounds, record updates, finish, convict, settle.

Nothing here computes: averaging, measuring and replaying are in compute.py and run outside any transaction.
"""

import math
import random
from collections import Counter
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from uuid import UUID

from django.conf import settings
from django.db import InterfaceError, OperationalError, transaction
from django.db.models import Count, Exists, F, Max, OuterRef, Q, QuerySet, Subquery, Sum
from django.db.models.functions import Coalesce
from django.utils import timezone
from redis import RedisError

from contracts.chain import Unavailable
from dmlsite import jobs, live
from dmlsite.errors import Conflict, Forbidden, Missing
from dmlworker import task
from dmlworker.aggregation import RULES
from dmlworker.optimizers import SLOTS
from dmlworker.protocol import Hyper, Lease, order_seed
from dmlworker.trace import LINE, segments_of
from observe import logs, metrics
from providers import actions as providers
from providers import attestations
from providers.models import Connection, Provider, Standing
from tickets import actions as tickets
from tickets import mail
from tickets.models import TRAINING, OnCheat, Status, Ticket
from training import evidence, pay, ratesearch, speeds, store
from training.models import Assignment, Audit, Blob, Replay, Round, Run, Shard

State = Assignment.State
TRIES = 3
"""A step of a ticket that fails this often ends it in a refund."""
OUTAGES = (Unavailable, OperationalError, InterfaceError, ConnectionError, TimeoutError, RedisError)
"""What a step meets where the node, the database, the queue or the network is away."""
HOPELESS = {State.REJECTED: TRIES, State.DECLINED: 20}
"""So does a shard with so many malformed updates in a round, or declined so often: full disks and broken lines are the
workers' own, and pass."""
MAX_SEGMENTS = 100_000
"""Of a training; a longer one has longer segments."""
FASTER = 1.25
"""Times as fast as another one is clearly faster: for less, a part does not change hands, which costs a transfer."""
UNNAMED = timedelta(days=1)
"""For so long is kept what a worker sent and nothing names."""


@dataclass(frozen=True)
class Prepared:
    """A customer's file made ready for training; blobs are stored already. task: see dmlworker/task.py. search: of the learning rate,
    if the customer asked for one."""

    spec: Blob
    start: Blob
    holdout: Blob
    shards: list[tuple[Blob, int]]
    classes: list[str]
    facts: dict[str, object]
    segment_steps: int = evidence.SEGMENT_STEPS
    task: str = task.CLASSIFICATION
    search: ratesearch.Found | None = None

    def blobs(self) -> set[str]:
        """The hashes of all of them."""
        return {blob.pk for blob in (self.spec, self.start, self.holdout, *(shard for shard, _ in self.shards))}


# --- The start --------------------------------------------------------------------------------------------------------
def open_run(ticket: Ticket, prepared: Prepared, seed: int) -> Run:
    """Write down everything that training depends on, once per ticket. Raises Conflict if the ticket has ended meanwhile, Missing if the same
    bytes, of an earlier ticket, were erased: the file is to be cut again."""
    fixed = {name: getattr(ticket, name) for name in TRAINING}
    blobs = {"spec": prepared.spec, "start": prepared.start, "holdout": prepared.holdout}
    fixed |= {"classes": prepared.classes, "facts": prepared.facts, "segment_steps": prepared.segment_steps}
    fixed |= {"clip": clip(ticket, prepared.task)}
    if found := prepared.search:
        fixed |= {"learning_rate": found.rate, "search": asdict(found) | {"told": found.told}}
    with transaction.atomic():
        if not Ticket.objects.select_for_update(no_key=True).filter(pk=ticket.pk, status=Status.UPLOADED).exists():
            raise Conflict("The ticket has ended meanwhile.")
        if len(store.locked(prepared.blobs())) < len(prepared.blobs()):
            raise Missing("pieces of the data were erased meanwhile")
        tickets.understood(ticket, prepared.task)
        if found:
            tickets.note(ticket, "search", found.told)
        run = Run.objects.create(ticket=ticket, seed=seed, **blobs, **fixed)
        for number, (blob, samples) in enumerate(prepared.shards):
            Shard.objects.create(run=run, number=number, blob=blob, samples=samples)
        jobs.enqueue("training.tasks.start_waiting")
    return run


def clip(ticket: Ticket, learnt: str) -> float:
    """The norm that gradients have at most, as ordered; if that was left open, what suits the task."""
    return task.CLIPS[learnt] if ticket.clip is None else ticket.clip


def candidates(run: Run) -> QuerySet[Provider]:
    """Who may work on a run: in standing, a worker online (an attested one, if the customer wants that), and not the customer themselves."""
    return providers.available(run.ticket.attested).exclude(user=run.ticket.customer_id)


def _workers(run: Run) -> Coalesce:
    """How many workers that may work on a run a provider has online."""
    online = Connection.objects.online(run.ticket.attested).filter(provider=OuterRef("pk")).order_by()
    online = online.values("provider")
    return Coalesce(Subquery(online.annotate(n=Count("pk")).values("n")), 0)


def free(run: Run) -> list[Provider]:
    """Who may begin to work on a run: none with all hands full. Those with least to do first, by chance among equals."""
    busy = Assignment.objects.filter(provider=OuterRef("pk"), round__state=Round.State.OPEN, state__in=Assignment.LIVE)
    busy = busy.filter(round__run__state=Run.State.TRAINING).order_by().values("provider")
    runs = busy.annotate(n=Count("round__run", distinct=True)).values("n")
    found = candidates(run).annotate(runs=Coalesce(Subquery(runs), 0), workers=_workers(run))
    able = list(found.filter(runs__lt=F("workers") * settings.RUNS_PER_WORKER))
    random.SystemRandom().shuffle(able)
    return sorted(able, key=lambda provider: provider.runs / provider.workers)  # type: ignore[attr-defined]


def queue() -> list[Run]:
    """The runs that wait, in the order in which they should start: customers who have least in training first, then the
    oldest. One who orders a hundred trainings does not close the house to others."""
    waiting = list(Run.objects.filter(state=Run.State.WAITING).select_related("ticket").order_by("created"))
    training = Run.objects.filter(state=Run.State.TRAINING).values_list("ticket__customer", flat=True)
    ahead = Counter(training)
    turns = {}
    for run in waiting:
        turns[run] = ahead[run.ticket.customer_id]
        ahead[run.ticket.customer_id] += 1
    return sorted(waiting, key=lambda run: turns[run])


def start(run: Run) -> bool:
    """Start a waiting run if enough providers are free; say so on the ticket if not."""
    found, shards = free(run), list(run.shards.all())
    if len(found) < len(shards):
        _say_waiting(run, len(found), len(shards))
        return False
    drawn = found[: len(shards)]
    with transaction.atomic():
        if not Run.objects.filter(pk=run.pk, state=Run.State.WAITING).update(state=Run.State.TRAINING):
            return False
        tickets.move(run.ticket, Status.TRAINING, "with " + ", ".join(provider.user_name for provider in drawn))
        mail.queue(run.ticket, "started")
        first = open_round(run, 1, run.start)
        _lease(first, _by_speed(run, dict(zip(shards, drawn, strict=True))))
    return True


def open_round(run: Run, number: int, start: Blob) -> Round:
    """A new round. The platform's own update is trained meanwhile."""
    round_ = Round.objects.create(run=run, number=number, start=start)
    if rooted(run.rule):
        jobs.enqueue("training.tasks.root", round_.pk)
    return round_


def _say_waiting(run: Run, free: int, needed: int) -> None:
    online = candidates(run).count()
    kind = "attested providers" if run.ticket.attested else "providers"
    text = f"{online} of {needed} {kind} online"
    if online >= needed:
        text = f"{free} of {needed} {kind} free, the others are busy with other tickets"
    last = run.ticket.events.filter(kind="waiting").last()
    if last is None or last.text != text:
        tickets.note(run.ticket, "waiting", text)


# --- Leases -----------------------------------------------------------------------------------------------------------
def _lease(round_: Round, given: dict[Shard, Provider]) -> None:
    """Offer shards to providers. Attempts go on counting where a round of this number that is void now left off: a lease never
    means two pieces of work."""
    leases = Assignment.objects.filter(round__run=round_.run_id, round__number=round_.number, shard__in=given)
    attempts = dict(leases.order_by().values_list("shard").annotate(last=Max("attempt")))
    deadline = timezone.now() + timedelta(seconds=settings.LEASE_SECONDS)
    Assignment.objects.bulk_create(
        Assignment(
            round=round_, shard=shard, provider=provider, attempt=attempts.get(shard.pk, 0) + 1, deadline=deadline
        )
        for shard, provider in given.items()
    )
    _count("offered", len(given))
    live.changed(*(live.provider_group(provider.pk) for provider in given.values()))


def _count(outcome: str, leases: int) -> None:
    """What of a transaction is counted is so when it is committed."""
    transaction.on_commit(lambda: metrics.LEASES.labels(outcome).inc(leases))


def fill(round_: Round) -> None:
    """Give every shard of an open round that nobody has to somebody. Nobody online: the sweep tries again."""
    if shards := list(_left_over(round_)):
        draw = Draw(round_)
        given = {shard: provider for shard in shards if (provider := draw.pick(shard))}
        _lease(round_, given if draw.leases else _by_speed(round_.run, given))


def _by_speed(run: Run, given: dict[Shard, Provider]) -> dict[Shard, Provider]:
    """The same parts to the same providers, who were drawn by chance; but where the customer allows it, the larger ones to those clearly faster. What a
    provider has already stays with it otherwise."""
    sizes = [shard.samples for shard in given]
    if run.ticket.sharding != "speed" or len(set(given.values())) < 2:
        return given
    speed, middle = speeds.relative(set(given.values())), (min(sizes) + max(sizes)) / 2
    slowest = sorted(given, key=lambda shard: speed[given[shard].pk])
    large = [shard for shard in slowest if shard.samples > middle]
    small = [shard for shard in reversed(slowest) if shard.samples <= middle]
    moved = dict(given)
    for one, other in zip(large, small, strict=False):
        if speed[given[other].pk] > FASTER * speed[given[one].pk]:
            moved[one], moved[other] = given[other], given[one]
    return moved


def _left_over(round_: Round) -> QuerySet[Shard]:
    return round_.run.shards.exclude(assignments__in=round_.assignments.filter(state__in=Assignment.LIVE))


def _refill(round_: Round) -> None:
    """As `fill`, for whoever has not locked the round."""
    if _left_over(round_).exists():
        with transaction.atomic():
            fill(Round.objects.select_for_update().get(pk=round_.pk))


class Draw:
    """Who gets which shard of a round. A wallet gets a second part only when everybody else who could take this one has a part: so
    much, and no more, is there for whoever comes with many wallets. Before that, whoever had it last round (its blob is cached
    there), else one who had none, and of these the one with least to do for each of its workers; by chance among equals.

    One who let this very lease lapse, or did not show other work of this run to an audit, gets it only if there is nobody else, and
    one who declined it not before some time has passed.
    """

    def __init__(self, round_: Round) -> None:
        self.leases = list(round_.assignments.all())
        while_ago = timezone.now() - timedelta(seconds=settings.LEASE_SECONDS)
        self._failed = {(lease.shard_id, lease.provider_id) for lease in self.leases}
        self._declined = {
            (lease.shard_id, lease.provider_id)
            for lease in self.leases
            if lease.state == State.DECLINED and lease.offered > while_ago
        }
        last = Assignment.objects.filter(round__run=round_.run_id, round__number=round_.number - 1)
        self._had = set(last.filter(state=State.COMMITTED).values_list("shard", "provider"))
        self._had_some = {provider for _, provider in self._had}
        self._parts = Counter(lease.provider_id for lease in self.leases if lease.state in Assignment.LIVE)
        busy = Count("assignments", filter=Q(assignments__state__in=[State.OFFERED, State.ACCEPTED]), distinct=True)
        unproven = Assignment.objects.filter(round__run=round_.run_id, state=State.UNPROVEN)
        self._unproven = set(unproven.values_list("provider", flat=True))
        self._everybody = candidates(round_.run).annotate(busy=busy, workers=_workers(round_.run))
        self._found = list(self._everybody.filter(pk__in=self._had_some))
        self._found_all = False
        self._picked = Counter[UUID]()

    def pick(self, shard: Shard) -> Provider | None:
        """A provider for a shard, who has then more to do. In most rounds that is who had it, whom nobody is before: the others, who may be
        thousands, are not looked at then."""
        found = self._best(shard)
        if not self._found_all and (found is None or self._order(shard, found)[:4] != (False, False, 0, False)):
            self._look_at_all()
            found = self._best(shard)
        if found:
            self._parts[found.pk] += 1
            self._picked[found.pk] += 1
        return found

    def _look_at_all(self) -> None:
        self._found, self._found_all = list(self._everybody), True
        random.shuffle(self._found)

    def _best(self, shard: Shard) -> Provider | None:
        able = [provider for provider in self._found if (shard.pk, provider.pk) not in self._declined]
        return min(able, key=lambda provider: self._order(shard, provider), default=None)

    def _order(self, shard: Shard, provider: Provider) -> tuple[bool, bool, int, bool, bool, float]:
        pair = shard.pk, provider.pk
        return (
            provider.pk in self._unproven,
            pair in self._failed,
            self._parts[provider.pk],
            pair not in self._had,
            provider.pk in self._had_some,
            (provider.busy + self._picked[provider.pk]) / max(provider.workers, 1),  # type: ignore[attr-defined]
        )


def reassign_overdue() -> None:
    """Take leases back that made no progress in time, and hand out every shard that nobody has."""
    late = Assignment.objects.filter(state__in=[State.OFFERED, State.ACCEPTED], deadline__lt=timezone.now())
    _count("expired", late.update(state=State.EXPIRED, note="no progress in time"))
    for round_ in Round.objects.filter(state=Round.State.OPEN, run__state=Run.State.TRAINING).select_related(
        "run__ticket"
    ):
        with tickets.apart(round_.run.ticket, "Handing out the work"):
            _refill(round_)


def open_leases(provider: Provider) -> QuerySet[Assignment]:
    """The oldest first."""
    return Assignment.objects.filter(provider=provider, state__in=[State.OFFERED, State.ACCEPTED]).order_by("pk")


def concerned(providers: Collection[UUID]) -> QuerySet[Assignment, tuple[UUID, int, str]]:
    """(provider, pk, state) of what the workers of these have to do: open leases, and committed work that is to be shown to an
    audit. In one question, for thousands of workers ask it every few seconds."""
    theirs = Assignment.objects.filter(provider__in=providers).order_by()
    open_ = theirs.filter(state__in=[State.OFFERED, State.ACCEPTED])
    shown = theirs.filter(audit__state=Audit.State.ASKED, state=State.COMMITTED)
    return open_.values_list("provider", "pk", "state").union(shown.values_list("provider", "pk", "state"), all=True)


def offers(provider: Provider, channel: str) -> list[Assignment]:
    """The leases that this provider's worker on this connection should be told of: it may have them, and no connection that still lives
    has accepted them."""
    if provider.standing not in (Standing.ACTIVE, Standing.EXITING):
        return []
    named = ("round__run__spec", "round__run__ticket", "round__start", "shard__blob")
    found = list(_fit(channel, open_leases(provider)).select_related(*named))
    channels = [lease.channel for lease in found if lease.channel]
    online = Connection.objects.online().filter(channel__in=channels)
    taken = set(online.values_list("channel", flat=True)) if channels else set()
    return [lease for lease in found if lease.channel not in taken]


def _fit(channel: str, work: QuerySet[Assignment]) -> QuerySet[Assignment]:
    """What of this work the worker on a connection may have: of tickets for attested workers only if it is one now."""
    attested = Connection.objects.online(attested=True).filter(channel=channel)
    return work.filter(Q(round__run__ticket__attested=False) | Exists(attested))


def seed_of(assignment: Assignment) -> int:
    round_ = assignment.round
    return order_seed(round_.run.seed, round_.number, assignment.shard.number)


def hyper_of(assignment: Assignment) -> Hyper:
    """All that local training depends on beside the bytes, for the worker and for whoever replays its work."""
    run = assignment.round.run
    proximal = run.proximal if run.strategy == "fedprox" else 0.0
    steps = run.epochs * -(-assignment.shard.samples // run.batch_size)
    every = max(run.segment_steps, -(-steps // MAX_SEGMENTS))
    rest = (seed_of(assignment), proximal, run.compression, every, run.clip, run.optimizer)
    return Hyper(run.epochs, run.batch_size, assignment.round.learning_rate, *rest)


def _named(provider: Provider, lease: Lease) -> QuerySet[Assignment]:
    """The provider's assignment that a lease names, if there is one."""
    try:
        run = UUID(lease.run)
    except ValueError:
        return Assignment.objects.none()
    return Assignment.objects.filter(
        provider=provider,
        round__run=run,
        round__number=lease.round,
        shard__number=lease.shard,
        attempt=lease.attempt,
    )


def find(provider: Provider, lease: Lease) -> Assignment:
    """The provider's assignment that a lease names. Raises Missing."""
    found = _named(provider, lease).select_related("round__run").first()
    if found is None:
        raise Missing("no such lease")
    return found


def accept(provider: Provider, lease: Lease, channel: str) -> bool:
    """A worker takes a lease. False if there is none, it is closed, another living connection has it, or it is for attested workers."""
    mine = Q(state=State.OFFERED) | Q(state=State.ACCEPTED, channel=channel)
    orphaned = Q(state=State.ACCEPTED) & ~Q(channel__in=Connection.objects.online().values("channel"))
    free = _fit(channel, _named(provider, lease).filter(mine | orphaned))
    first = Coalesce(F("accepted"), timezone.now())
    taken = _move_on(free, state=State.ACCEPTED, channel=channel, accepted=first)
    _count("accepted", taken)
    return bool(taken)


def progress(provider: Provider, lease: Lease, step: int, steps: int) -> None:
    """A worker is at work. What waits behind this work, leases and audits, does not lapse meanwhile."""
    assignment = find(provider, lease)
    _move_on(Audit.objects.filter(assignment__provider=provider, state=Audit.State.ASKED))
    accepted = Assignment.objects.filter(pk=assignment.pk, state=State.ACCEPTED)
    if _move_on(accepted, step=min(step, steps), steps=steps):
        waiting = Assignment.objects.filter(provider=provider, state=State.OFFERED)
        _move_on(waiting)
        live.changed(live.ticket_group(assignment.round.run.ticket_id))


def _move_on(work: QuerySet[Assignment] | QuerySet[Audit], **fields: object) -> int:
    """Write a sign of life down, with the time until which the next one has to come; gives the number of rows."""
    return work.update(deadline=timezone.now() + timedelta(seconds=settings.LEASE_SECONDS), **fields)


def record_update(
    provider: Provider, lease: Lease, sha256: str, root: str, joules: float = 0.0, gpu: float = 0.0
) -> None:
    """A worker says that its update is stored, and what it took (0: not known). The same COMMIT again succeeds; a late one raises Conflict."""
    assignment = find(provider, lease)
    if assignment.state == State.COMMITTED and assignment.update_id == sha256:
        return
    stored = Exists(Blob.objects.filter(pk=sha256))
    open_ = Assignment.objects.filter(stored, pk=assignment.pk, state__in=[State.OFFERED, State.ACCEPTED])
    now = timezone.now()
    took = (now - assignment.offered).total_seconds()
    told = {"joules": pay.plausible(joules, took), "gpu": gpu or None}
    with transaction.atomic():
        done = open_.update(state=State.COMMITTED, update_id=sha256, root=root, committed=now, **told)
        if done:
            store.take_over([sha256])
            jobs.enqueue("training.tasks.receive", assignment.pk)
            _count("committed", done)
    if done:
        return
    if Blob.objects.filter(pk=sha256).exists():
        store.forget_unnamed(Blob.objects.filter(pk=sha256, sender=provider))
        raise Conflict("this lease is closed")
    raise Missing("upload the update first")


def decline(provider: Provider, lease: Lease, reason: str) -> None:
    """A worker cannot serve a lease (disk full, model refused): somebody else gets it at once."""
    _hand_back(find(provider, lease), State.DECLINED, f"declined: {reason}")


def reject(assignment: Assignment, reason: str) -> None:
    """A malformed update: not paid, no blame, the shard goes to somebody else."""
    _hand_back(assignment, State.REJECTED, reason)


def _hand_back(assignment: Assignment, state: str, reason: str) -> None:
    with transaction.atomic():
        run, live_ = (
            locked(assignment.round.run),
            Assignment.objects.filter(pk=assignment.pk, state__in=Assignment.LIVE),
        )
        round_ = Round.objects.select_for_update().get(pk=assignment.round_id)
        if run and round_.state == Round.State.OPEN and live_.update(state=state, note=reason[:1000]):
            tickets.note(run.ticket, state, f"{assignment.provider}: {reason}")
            _count(state, 1)
            if round_.assignments.filter(shard=assignment.shard, state=state).count() < HOPELESS[state]:
                fill(round_)
            elif not unchecked(round_):  # else a bad update may have spoilt this round's start: its check decides
                _give_up(run, reason)


def _give_up(run: Run, reason: str) -> None:
    """Nobody can train a shard: it is the job, not the workers. A learning rate at which training diverges does this."""
    stop(run)
    tickets.refund(run.ticket, f"No provider could train on your data with these settings ({reason}).")


def well_formed(assignment: Assignment, weights: str) -> bool:
    """An update passed the gate, and stands for these weights (a blob's hash). Whether the round is now to be closed; with audits on, it
    is looked at before."""
    Assignment.objects.filter(pk=assignment.pk, state=State.COMMITTED).update(weights_id=weights)
    if not settings.AUDITS:
        return received(assignment)
    jobs.enqueue("training.tasks.look", assignment.pk)
    return False


def received(assignment: Assignment) -> bool:
    """An update may go into the average. Whether the round is now to be closed."""
    Assignment.objects.filter(pk=assignment.pk, state=State.COMMITTED).update(received=timezone.now())
    live.changed(live.ticket_group(assignment.round.run.ticket_id))
    return bool(ready(assignment.round))


def updates_of(round_: Round) -> list[Assignment]:
    """The updates of a round that may go into its average, in shard order."""
    done = round_.assignments.filter(state=State.COMMITTED, received__isnull=False).order_by("shard__number")
    return list(done.select_related("shard", "provider"))


def unchecked(round_: Round) -> bool:
    """Whether the round before is still being checked."""
    return Round.objects.filter(run=round_.run_id, number=round_.number - 1, checked=None).exists()


def ready(round_: Round) -> list[Assignment]:
    """The updates to average, in shard order; none as long as the round should wait.

    It waits for every shard. If the rest takes far too long (lapsed leases were handed on, and lapsed again), a quorum will
    do. It waits for the check of the round before, too: bad work is found before it went into a second average.
    """
    done = round_.assignments.filter(state=State.COMMITTED, received__isnull=False)
    times, shards = sorted(done.order_by().values_list("received", flat=True)), round_.run.shards.count()
    enough = len(times) == shards or _quorum(round_, times, shards)
    return updates_of(round_) if enough and _rooted(round_) and not unchecked(round_) else []


def rooted(rule: str) -> bool:
    """Whether the platform makes an update of its own in each round: for the rule, or to see which updates point away from it."""
    return settings.AUDITS or RULES[rule].root


def _rooted(round_: Round) -> bool:
    """Whether the platform's own update is there, if one is made; asked anew, for it comes while a caller is at work."""
    return not rooted(round_.run.rule) or Round.objects.filter(pk=round_.pk, root__isnull=False).exists()


def _quorum(round_: Round, times: list[datetime], shards: int) -> bool:
    """Enough of a round's updates, which came at these times, and no hope left for the rest. A robust rule needs as many as it takes to
    withstand one cheat.

    Hope lasts as long as handing a shard on twice would: three times a lease and the time that the last of the quorum took.
    """
    wanted = max(math.ceil(settings.QUORUM_PERCENT * shards / 100), min(shards, RULES[round_.run.rule].needs(1)))
    if len(times) < wanted:
        return False
    took = times[wanted - 1] - round_.opened
    return timezone.now() > round_.opened + TRIES * (took + timedelta(seconds=settings.LEASE_SECONDS))


# --- The end of a round -----------------------------------------------------------------------------------------------
def finish_round(round_: Round, updates: list[Assignment], end: Blob, kept: Blob | None) -> None:
    """Close a round with the weights that its updates gave, and what the optimizer keeps; open the next one, unless it was
    the last. Only the first caller does anything."""
    with transaction.atomic():
        run = locked(round_.run)
        closed = {"state": Round.State.CLOSED, "end": end, "kept": kept, "closed": timezone.now()}
        if not run or not Round.objects.filter(pk=round_.pk, state=Round.State.OPEN).update(**closed):
            return
        _leave_behind(round_, updates)
        _count_round(round_, "full" if len(updates) == run.shards.count() else "quorum")
        if _plateau(run):
            Run.objects.filter(pk=run.pk).update(rounds=round_.number)
            tickets.note(
                run.ticket, "plateau", f"round {round_.number} is the last: {run.patience} without a lower loss"
            )
        elif round_.number < run.rounds:
            fill(open_round(run, round_.number + 1, end))
        jobs.enqueue("training.tasks.check_round", round_.pk)


def _count_round(round_: Round, outcome: str) -> None:
    took = (timezone.now() - round_.opened).total_seconds()
    transaction.on_commit(lambda: metrics.ROUND.observe(took))
    transaction.on_commit(lambda: metrics.ROUNDS.labels(outcome).inc())


def locked(run: Run) -> Run | None:
    """A run that still trains; until commit nobody stops it."""
    return Run.objects.select_for_update().filter(pk=run.pk, state=Run.State.TRAINING).first()


def _leave_behind(round_: Round, updates: list[Assignment]) -> None:
    """Whatever is not in the average, for a quorum closed the round, is not paid, without blame."""
    rest = round_.assignments.filter(state__in=Assignment.LIVE).exclude(pk__in=[update.pk for update in updates])
    late = list(rest.select_related("provider"))
    for update in late:
        tickets.note(round_.run.ticket, "late", f"round {round_.number} went on without {update.provider}")
    if late:
        live.changed(*(live.provider_group(update.provider_id) for update in late))
        _count("late", rest.update(state=State.EXPIRED, note="the round closed without it"))


def _plateau(run: Run) -> bool:
    """Whether the checked rounds say that more of them would not help. Every machine gives the same answer: a round is
    closed only after the one before was checked."""
    if not run.patience:
        return False
    losses = list(run.all_rounds.exclude(checked=None).order_by("number").values_list("loss", flat=True))
    known = [math.inf if loss is None else loss for loss in losses]
    return run.patience < len(known) and min(known[-run.patience :]) >= min(known[: -run.patience])


def pass_round(round_: Round) -> None:
    """Nothing is wrong with a closed round. Let the next one go on, or finish the run. Only the first caller does anything."""
    with transaction.atomic():
        run = locked(round_.run)
        due = Round.objects.filter(pk=round_.pk, state=Round.State.CLOSED, checked=None, accuracy__isnull=False)
        if not run or not due.update(checked=timezone.now()):
            return
        round_.refresh_from_db(fields=["accuracy"])
        reached = task.told(run.ticket.task, round_.accuracy or 0.0)
        tickets.note(run.ticket, "round", f"round {round_.number} of {run.rounds}: {reached}")
        following = Round.objects.filter(run=run, number=round_.number + 1).first()
        if following is None:
            jobs.enqueue("training.tasks.finish", str(run.pk))
            return
        _refill(following)
        if ready(following):
            jobs.enqueue("training.tasks.close_round", following.pk)


# --- When work may not stay in an average -----------------------------------------------------------------------------
def convict(round_: Round, failed: list[Audit]) -> None:
    """Two replays of each of these failed: accuse the cheats, their deposit to the honest. Then the customer is refunded, or the
    training goes on without the cheats' work, as the customer chose."""
    cheats = {audit.assignment.provider for audit in failed}
    names = ", ".join(sorted(provider.user_name for provider in cheats))
    reason = f"In round {round_.number} the work of {names} was not what the training prescribes: two replays show it."
    evidence = {"ticket": str(round_.run.ticket_id), "round": round_.number, "replays": evidence_of(failed)}
    with transaction.atomic():
        run = locked(round_.run)
        if not run:
            return
        worked = Assignment.objects.filter(round__run=run, state=State.COMMITTED).values("provider")
        honest = set(Provider.objects.filter(pk__in=worked, standing=Standing.ACTIVE)) - cheats
        if run.ticket.on_cheat == OnCheat.REFUND:
            stop(run)
            wallets = [[p.wallet for p in group if p.wallet] for group in (cheats, honest)]
            tickets.refund_for_cheating(run.ticket, reason, *wallets)
            providers.accuse(cheats, honest, reason, evidence=evidence, case=run.ticket_id, on_chain=False)
        else:
            providers.accuse(cheats, honest, reason, evidence=evidence)
            theirs = Assignment.objects.filter(round__run=run, provider__in=cheats, state=State.COMMITTED)
            _take_out(run, theirs, State.REVOKED, reason)


def set_aside(round_: Round, unproven: list[Audit]) -> None:
    """Work that was not shown is not paid, and done again by somebody else, without blame."""
    with transaction.atomic():
        run = locked(round_.run)
        works = round_.assignments.filter(pk__in=[audit.assignment_id for audit in unproven], state=State.COMMITTED)
        if not run or not works.exists():
            return
        names = ", ".join(sorted({audit.assignment.provider.user_name for audit in unproven}))
        why = f"The work of {names} in round {round_.number} could not be audited: {unproven[0].note}."
        _take_out(run, works, State.UNPROVEN, why)
        tried = round_.assignments.filter(state=State.UNPROVEN).values("shard").annotate(n=Count("pk"))
        if any(row["n"] >= TRIES for row in tried):
            _give_up(run, "their work could not be audited")


def _take_out(run: Run, works: QuerySet[Assignment], state: str, why: str) -> None:
    """Take averaged updates out: the earliest round that has one is opened again, without them; what was built on it is void.
    The caller has locked the run."""
    first = Round.objects.filter(run=run, pk__in=works.values("round")).order_by("number")[0]
    _count(state, works.update(state=state, note=why[:1000]))
    void = Round.objects.filter(run=run, number__gt=first.number)
    lost = Assignment.objects.filter(round__in=void, state__in=Assignment.LIVE)
    live.changed(*map(live.provider_group, lost.order_by().values_list("provider", flat=True).distinct()))
    _count("void", lost.update(state=State.VOID))
    gone = void.update(voided=timezone.now())
    transaction.on_commit(lambda: metrics.ROUNDS.labels("void").inc(gone))
    anew = {name: None for name in ("end", "kept", "accuracy", "loss", "closed", "checked")}
    Round.objects.filter(pk=first.pk).update(state=Round.State.OPEN, **anew)
    Run.objects.filter(pk=run.pk).update(rounds=run.ticket.rounds)  # it may have ended early, on what is void now
    tickets.note(run.ticket, "back", f"{why} The training goes on from round {first.number}.")
    fill(Round.objects.select_for_update(of=("self",)).select_related("run__ticket").get(pk=first.pk))


def evidence_of(failed: list[Audit]) -> list[dict[str, object]]:
    """What an outsider needs to repeat the replays: the hashes of what went in, the hyper-parameters, what came out, and how far apart."""
    found = []
    for audit in failed:
        work = audit.assignment
        known = {
            "provider": work.provider.user_name,
            "spec": work.round.run.spec_id,
            "shard": work.shard.blob_id,
            "round_start": work.round.start_id,
            "update": work.update_id,
            "trace_root": work.root,
            **asdict(hyper_of(work)),
            "ordered_because": audit.why,
        }
        found += [known | _told(replay) for replay in audit.replays.filter(agrees=False)]
    return found


def _told(replay: Replay) -> dict[str, object]:
    return {
        "segment": replay.segment,
        "replay": replay.number,
        "start": replay.start,
        "claimed": replay.claimed,
        "result": replay.result,
        "relative_distance": _finite(replay.relative),
        "allowed": _finite(replay.allowed),
        "cosine": replay.cosine,
        "honest_replays_apart": _finite(replay.apart),
    }


def _finite(number: float | None) -> float | None:
    return number if number is not None and math.isfinite(number) else None


def stop(run: Run) -> None:
    """End a run without a result; its leases are taken back."""
    Run.objects.filter(pk=run.pk).update(state=Run.State.STOPPED, finished=timezone.now())
    leases = Assignment.objects.filter(round__run=run, state__in=[State.OFFERED, State.ACCEPTED])
    providers_ = leases.order_by().values_list("provider", flat=True).distinct()
    live.changed(*map(live.provider_group, providers_))
    _count("cancelled", leases.update(state=State.CANCELLED))
    jobs.enqueue("training.tasks.start_waiting")


def stop_ended() -> None:
    """Stop runs whose ticket ended by another way: cancelled, or refunded on the chain."""
    for run in Run.objects.filter(state__in=[Run.State.WAITING, Run.State.TRAINING], ticket__status=Status.REFUNDED):
        with tickets.apart(run.ticket, "Ending the training"):
            stop(run)


# --- The end of a run -------------------------------------------------------------------------------------------------
def finish(run: Run, accuracy: float, weights: dict[str, int], receipt_root: str) -> None:
    """Pay the providers by `weights`, their merit as the receipt has it. Past the time to settle the customer gets the payment
    back instead. One who is banned this very moment is left out by `ledger.actions.reconsider`."""
    with transaction.atomic():
        if not Run.objects.filter(pk=run.pk, state=Run.State.TRAINING).update(
            state=Run.State.DONE, finished=timezone.now()
        ):
            return
        if run.ticket.settle_by <= timezone.now() + tickets.GRACE:
            tickets.refund(run.ticket, "Training took longer than the time that was promised.")
        elif not weights:
            tickets.refund(run.ticket, "No provider of this training is in good standing any more.")
        else:
            tickets.settle(run.ticket, weights, accuracy, receipt_root)
        jobs.enqueue("training.tasks.convert", str(run.pk))
        jobs.enqueue("training.tasks.start_waiting")


# --- Blobs ------------------------------------------------------------------------------------------------------------
def _open_work(provider: Provider) -> QuerySet[Assignment]:
    """What a provider's workers may have files of: leases of open rounds, and work that is audited."""
    if provider.standing not in (Standing.ACTIVE, Standing.EXITING):
        raise Forbidden(f"This provider is {provider.get_standing_display()}.")
    open_ = Q(round__state=Round.State.OPEN) | Q(audit__state__in=Audit.UNDECIDED)
    return Assignment.objects.filter(
        open_, provider=provider, state__in=Assignment.LIVE, round__run__state=Run.State.TRAINING
    )


def readable_blob(provider: Provider, sha256: str, secret: str = "") -> Blob:
    """A blob that one of the provider's open leases names. Raises Missing: others' data does not exist for it. secret: what an attested
    worker shows; without it, work for such ones names nothing."""
    named = Q(shard__blob=sha256) | Q(round__start=sha256) | Q(round__run__spec=sha256)
    work = _open_work(provider).filter(named)
    if not (secret and attestations.shows(provider, secret)):
        work = work.filter(round__run__ticket__attested=False)
    found = Blob.objects.filter(Exists(work), pk=sha256).first()
    if found is None:
        raise Missing("none of your leases names this")
    return found


def upload_limit(provider: Provider, sha256: str) -> int:
    """Bytes that this upload may have: an update or a checkpoint what the weights have, the latter with what the optimizer remembers, and a
    little for another writer's header; or what a trace has. And all uploads that nothing names yet, other than this one: what the open work asks for, and once more, for
    what was sent in vain."""
    found = list(_open_work(provider).select_related("round__run__ticket", "round__start", "shard", "audit"))
    if not found:
        raise Forbidden("You have no open lease.")
    sizes = [(work, _checkpoint_bytes(work), _trace_bytes(work)) for work in found]
    due = sum(_shown(work) * weights + trace for work, weights, trace in sizes)
    unnamed = Blob.objects.filter(sender=provider).exclude(pk=sha256).aggregate(bytes=Sum("size"))["bytes"] or 0
    return max(0, min(max(max(size) for _, *size in sizes), 2 * due - unnamed))


def _audited(work: Assignment) -> bool:
    return hasattr(work, "audit") and work.audit.state in Audit.UNDECIDED


def _checkpoint_bytes(work: Assignment) -> int:
    slots = SLOTS[work.round.run.optimizer] if _audited(work) else 0
    return (1 + slots) * work.round.start.size + 65536


def _trace_bytes(work: Assignment) -> int:
    return LINE * segments_of(work.shard.samples, hyper_of(work)) if _audited(work) else 0


def _shown(work: Assignment) -> int:
    """What a worker sends for a piece of work: its update; or both ends of each segment drawn, the first, the last and
    the ones with the largest change and the sharpest turn."""
    return 2 * (len(work.audit.drawn) + 4) if _audited(work) else 1


def forget_unnamed() -> None:
    """Remove what workers sent and nothing has named in a day: updates of leases that they lost, and what they were not asked for. What was
    sent since an audit asked for it waits for its verdict."""
    audits = Audit.objects.filter(assignment__provider=OuterRef("sender"), state__in=Audit.UNDECIDED)
    old = Blob.objects.filter(sender__isnull=False, created__lt=timezone.now() - UNNAMED)
    store.forget_unnamed(old.exclude(Exists(audits.filter(asked__lte=OuterRef("created")))))


# --- When something breaks --------------------------------------------------------------------------------------------
@contextmanager
def guarded(ticket: Ticket, step: str, run: UUID | None = None) -> Iterator[None]:
    """An error in a step is written on the ticket and tried again; the third one ends the ticket in a refund. What is out of service
    for a while is not the ticket's fault: it is waited for as long as the ticket has time. What the job logs from now on names ticket and run."""
    logs.note(ticket=ticket.pk, run=run)
    try:
        yield
    except (Conflict, *OUTAGES):
        raise  # somebody else moved the ticket, or something is away: nothing is broken
    except Exception as error:
        text = f"{step}: {type(error).__name__}: {error}"
        tickets.note(ticket, "error", text)
        if ticket.events.filter(kind="error").count() < TRIES:
            raise
        with transaction.atomic():
            for run in Run.objects.filter(ticket=ticket, state__in=[Run.State.WAITING, Run.State.TRAINING]):
                stop(run)
            tickets.fail(tickets.get(ticket.pk), text)
