"""Numbers that lie in the database and in the broker: read when a scrape asks for them, at most once in so many seconds."""

import json
import logging
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from typing import Any, NamedTuple

import dramatiq
from django.db import close_old_connections
from django.db.models import Count, F, Min, Q
from django.db.models.functions import Coalesce
from django.utils import timezone
from prometheus_client.core import GaugeMetricFamily
from redis import Redis

from dmlsite import jobs
from ledger.models import Alarm, ChainTx, Currency, Cursor, Reconciliation
from providers.models import Connection
from tickets.models import Mail, Status, Ticket, TicketEvent
from training.models import Assignment, Run

log = logging.getLogger(__name__)
FRESH = 5.0
"""Seconds for which an answer serves: several Prometheus servers, or somebody who asks all the time, cost no more."""
QUEUES = ("default", jobs.COMPUTE)
LIVE = (Status.PAID, Status.UPLOADED, Status.TRAINING)
"""In which a ticket waits for somebody, or something, with money paid."""


class Sample(NamedTuple):
    """A number of a metric without its prefix, and the values of its labels."""

    name: str
    value: float
    labels: tuple[str, ...] = ()


TOLD: dict[str, tuple[str, tuple[str, ...]]] = {
    "tickets": ("Tickets.", ("status",)),
    "ticket_oldest_seconds": ("How long the ticket that is longest in a status has been in it.", ("status",)),
    "runs": ("Trainings that wait for providers or are under way.", ("state",)),
    "open_leases": ("Leases that workers have been offered or have accepted.", ("state",)),
    "workers": ("Workers that were heard from lately.", ()),
    "providers_online": ("Providers with such a worker.", ()),
    "queue_messages": (
        "Messages in a queue of the broker: ready, being worked on, delayed or dead.",
        ("queue", "state"),
    ),
    "queue_oldest_seconds": ("Age of the message that is next in a queue.", ("queue",)),
    "outbox_transactions": ("Chain transactions that are decided and due, but not final.", ("state",)),
    "outbox_oldest_seconds": ("How long the oldest of them has been due.", ()),
    "alarms_open": ("Alarms that no admin has cleared.", ("kind",)),
    "reconciliation_difference": ("Of the last comparison: all differences, in micro-DML or gwei.", ("currency",)),
    "reconciliation_age_seconds": ("How long ago the books were compared with the chain.", ()),
    "chain_scanned_block": ("The final block up to which the books are written.", ()),
    "mails_waiting": ("Mails to customers that have not gone out.", ()),
    "reading_failed": ("Whether a part could not be read just now: 1 or 0.", ("part",)),
}


class Readings:
    """A collector of prometheus_client's. What can't be read is left out, and told."""

    def __init__(self) -> None:
        self._lock, self._read, self._samples = threading.Lock(), -FRESH, list[Sample]()

    def collect(self) -> Iterator[GaugeMetricFamily]:
        found = defaultdict(list)
        for sample in self._fresh():
            found[sample.name].append(sample)
        for name, (text, labels) in TOLD.items():
            family = GaugeMetricFamily(f"dml_{name}", text, labels=labels)
            for sample in found[name]:
                family.add_metric(sample.labels, sample.value)
            yield family

    def _fresh(self) -> list[Sample]:
        with self._lock:
            if time.monotonic() - self._read >= FRESH:
                self._samples = list(_all())
                self._read = time.monotonic()
            return self._samples


def _all() -> Iterator[Sample]:
    close_old_connections()
    for name, part in PARTS.items():
        samples, failed = _part(name, part)
        yield from samples
        yield Sample("reading_failed", failed, (name,))


def _part(name: str, part: Callable[[], Iterable[Sample]]) -> tuple[list[Sample], int]:
    try:
        return list(part()), 0
    except (
        Exception
    ) as error:  # whatever a broker's or a database's client raises: the other parts are wanted all the more
        log.warning("metrics: %s: %s", name, error)
        return [], 1


def _age(moment: datetime | None) -> float:
    """Seconds since; 0 if there is none."""
    return max((timezone.now() - moment).total_seconds(), 0.0) if moment else 0.0


def _tickets() -> Iterator[Sample]:
    counts = dict(Ticket.objects.order_by().values_list("status").annotate(Count("pk")))
    waiting = Q(kind="moved", ticket__status__in=LIVE, new=F("ticket__status"))
    since = TicketEvent.objects.filter(waiting).order_by().values_list("new").annotate(Min("at"))
    oldest = dict(since)
    for status in Status.values:
        yield Sample("tickets", counts.get(status, 0), (status,))
        if status in LIVE:
            yield Sample("ticket_oldest_seconds", _age(oldest.get(status)), (status,))


def _training() -> Iterator[Sample]:
    states = (Run.State.WAITING, Run.State.TRAINING)
    runs = dict(Run.objects.filter(state__in=states).order_by().values_list("state").annotate(Count("pk")))
    for state in states:
        yield Sample("runs", runs.get(state, 0), (state,))
    open_ = (Assignment.State.OFFERED, Assignment.State.ACCEPTED)
    leases = Assignment.objects.filter(state__in=open_).order_by().values_list("state").annotate(Count("pk"))
    counts = dict(leases)
    for lease in open_:
        yield Sample("open_leases", counts.get(lease, 0), (lease,))
    online = Connection.objects.online().aggregate(workers=Count("pk"), providers=Count("provider", distinct=True))
    yield Sample("workers", online["workers"])
    yield Sample("providers_online", online["providers"])


def _outbox() -> Iterator[Sample]:
    states = (ChainTx.State.READY, ChainTx.State.SENT)
    due = ChainTx.objects.filter(Q(not_before=None) | Q(not_before__lte=timezone.now()), state__in=states)
    since = Min(Coalesce("not_before", "created"))
    rows = due.order_by().values("state").annotate(count=Count("pk"), since=since)
    found = {row["state"]: (row["count"], row["since"]) for row in rows}
    for state in states:
        yield Sample("outbox_transactions", found.get(state, (0, None))[0], (state,))
    yield Sample("outbox_oldest_seconds", max((_age(since) for _, since in found.values()), default=0.0))


def _alarms() -> Iterator[Sample]:
    counts = dict(Alarm.objects.filter(cleared=None).order_by().values_list("kind").annotate(Count("pk")))
    for kind in Alarm.Kind.values:
        yield Sample("alarms_open", counts.get(kind, 0), (kind,))


def _books() -> Iterator[Sample]:
    """None of them before the first comparison."""
    if last := Reconciliation.objects.first():
        apart = dict.fromkeys(Currency.values, 0)
        for row in last.rows:
            apart[row["currency"]] += abs(row["left"] - row["right"])
        for currency, units in apart.items():
            yield Sample("reconciliation_difference", units, (currency,))
        yield Sample("reconciliation_age_seconds", _age(last.created))
    if cursor := Cursor.objects.exclude(block_hash="").order_by("-pk").first():
        yield Sample("chain_scanned_block", cursor.block)


def _mails() -> Iterator[Sample]:
    yield Sample("mails_waiting", Mail.objects.filter(sent=None).count())


# --- The broker -------------------------------------------------------------------------------------------------------
def queues() -> Iterator[Sample]:
    """Raises what the broker's client raises where the broker is away."""
    broker: Any = dramatiq.get_broker()
    for name in QUEUES:
        yield from _redis_queue(broker, name) if hasattr(broker, "client") else _rabbit_queue(broker, name)


def _redis_queue(broker: Any, name: str) -> Iterator[Sample]:
    """As Dramatiq lays them out: a list of ids that wait, a hash of all messages that are not done, a sorted set of dead ones."""
    key = f"{broker.namespace}:{name}"
    with broker.client.pipeline(transaction=True) as ask:
        ask.llen(key).hlen(f"{key}.msgs").hlen(f"{key}.DQ.msgs").zcard(f"{key}.XQ").lindex(key, 0)
        ready, undone, delayed, dead, first = ask.execute()
    yield from _counted(name, ready=ready, working=undone - ready, delayed=delayed, dead=dead)
    yield Sample("queue_oldest_seconds", _message_age(broker.client, key, first), (name,))


def _message_age(client: Redis, key: str, first: bytes | None) -> float:
    raw: Any = client.hget(f"{key}.msgs", first.decode()) if first else None
    if raw is None:
        return 0.0
    message = json.loads(raw)
    due = message["options"].get("eta") or message["message_timestamp"]
    return max(time.time() - due / 1000, 0.0)


def _rabbit_queue(broker: Any, name: str) -> Iterator[Sample]:
    """RabbitMQ tells how many are ready; how old, nobody can ask it: dml_job_wait_seconds tells afterwards."""
    ready, delayed, dead = broker.get_queue_message_counts(name)
    yield from _counted(name, ready=ready, delayed=delayed, dead=dead)


def _counted(queue: str, **states: int) -> Iterator[Sample]:
    for state, count in states.items():
        yield Sample("queue_messages", count, (queue, state))


PARTS: dict[str, Callable[[], Iterable[Sample]]] = {
    "tickets": _tickets,
    "training": _training,
    "outbox": _outbox,
    "alarms": _alarms,
    "books": _books,
    "mails": _mails,
    "queues": queues,
}
READINGS = Readings()
