"""The one door to background work: `enqueue("training.tasks.close_round", pk)`.

A message is only a wake-up call. It goes out after the transaction that asked for it has committed; if it is lost, the
sweep repeats it. Naming the actor by a dotted name lets a lower app nudge a higher one without importing it.
"""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from importlib import import_module
from typing import Any

import dramatiq
from django.db import connection, transaction

log = logging.getLogger(__name__)

COMPUTE = "compute"
"""The queue of what needs TensorFlow, minutes or hours at a time: payments, mail and averages do not wait behind it."""
SWEEP_AGE = 10_000
"""Milliseconds after which a sweep that was not begun is dropped: jobs that lag behind must not be given the same again and
again, and the next sweep comes in a moment."""


def actor(*, retries: int = 3, **options: Any) -> Callable[[Callable[..., None]], dramatiq.Actor[..., None]]:
    """Make a function a job, named by module and function: two apps may both have a `sweep`.

    A message is tried again `retries` times (Dramatiq's own default is 20), and dropped when it is an hour old: by then
    the sweep has sent others.
    """
    fixed = {"max_retries": retries, "min_backoff": 1_000, "max_backoff": 30_000, "max_age": 3_600_000} | options

    def wrap(function: Callable[..., None]) -> dramatiq.Actor[..., None]:
        return dramatiq.actor(actor_name=f"{function.__module__}.{function.__name__}", **fixed)(function)

    return wrap


def enqueue(actor: str, *args: object, delay_ms: int = 0) -> None:
    """Send `actor` (dotted name) a message after commit. A dead broker is logged, never raised: the sweep repeats."""
    transaction.on_commit(lambda: _send(actor, args, delay_ms), robust=True)


def _send(actor: str, args: tuple[object, ...], delay_ms: int) -> None:
    module, name = actor.rsplit(".", 1)
    getattr(import_module(module), name).send_with_options(args=args, delay=delay_ms or None)


def hang_up() -> None:
    """Before a thread ends: close its own connection to the broker. Redis' connections are nobody's own."""
    broker: Any = dramatiq.get_broker()
    if hasattr(broker, "hang_up"):
        broker.hang_up()


def backoff(tries: int) -> timedelta:
    """How long to wait after so many failures in a row, from 1: a minute, doubled each time, an hour at most."""
    return timedelta(minutes=min(2 ** min(tries - 1, 6), 60))


@contextmanager
def claim(name: str) -> Iterator[bool]:
    """One process at a time does a costly step; the lock ends with its connection, so a killed process frees it."""
    with connection.cursor() as cursor:
        cursor.execute("select pg_try_advisory_lock(hashtextextended(%s, 0))", [name])
        got = bool(cursor.fetchone()[0])
        try:
            yield got
        finally:
            if got:
                cursor.execute("select pg_advisory_unlock(hashtextextended(%s, 0))", [name])


class Lead:
    """Of several processes that could do the same, one does it, for as long as its connection to the database lives: where it is
    killed, or loses the connection, another one takes over."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.session: object = None

    def taken(self) -> bool:
        """Whether it is us. Raises DatabaseError if nobody can know."""
        connection.ensure_connection()
        if self.session is not connection.connection:
            with connection.cursor() as cursor:
                cursor.execute("select pg_try_advisory_lock(hashtextextended(%s, 0))", [self.name])
                self.session = connection.connection if cursor.fetchone()[0] else None
        return self.session is not None


@contextmanager
def apart(what: object) -> Iterator[None]:
    """One row of many, or one step of a sweep: what fails is logged, and the others have their turn. The next sweep tries it again."""
    try:
        yield
    except Exception:
        log.exception("left for the next sweep: %s", what)
