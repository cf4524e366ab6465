"""How far a customer's file is read and cut. The job says so in the cache: what is lost there is said again a second later."""

import time
from contextlib import suppress

from django.core.cache import cache
from redis import RedisError

from dmlsite import live
from tickets.models import Status, Ticket

SECONDS = 1.0
"""From one word to the next, at least."""
KEPT = 600
"""Seconds for which the last word counts: a job that died says nothing more."""


def fraction(ticket: Ticket) -> float | None:
    """0 to 1; None if no job is at it."""
    found: float | None = cache.get(_key(ticket)) if ticket.status == Status.UPLOADED else None
    return found


class Preparing:
    """What a job says of a ticket's file. It never goes back, and no trouble with the cache ends the job."""

    def __init__(self, ticket: Ticket) -> None:
        self._ticket, self._told, self._at = ticket, 0.0, 0.0

    def __call__(self, done: float) -> None:
        if done > self._told and time.monotonic() - self._at >= SECONDS:
            self._told, self._at = done, time.monotonic()
            with suppress(RedisError):
                cache.set(_key(self._ticket), done, KEPT)
                live.changed(live.ticket_group(self._ticket.pk))

    def __enter__(self) -> "Preparing":
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(RedisError):
            cache.delete(_key(self._ticket))


def _key(ticket: Ticket) -> str:
    return f"preparing:{ticket.pk}"
