"""Heartbeats of workers: those that come to this process at about the same time are one question to the database."""

import asyncio
from collections import defaultdict
from dataclasses import dataclass, field
from uuid import UUID

from channels.db import database_sync_to_async

from providers import actions as providers
from providers.models import Provider
from training import actions
from training.models import Assignment

SECONDS = 0.1
"""For so long others are waited for."""


Shown = tuple[UUID, str]
"""A provider, and the key or the sign-in that its worker has shown."""


@dataclass
class Concerned:
    """What a worker has to do, as primary keys of leases: those that are open, and those whose work is to be shown. welcome: whether it would
    be let in again."""

    standing: str
    welcome: bool
    open: set[int] = field(default_factory=set)
    asked: set[int] = field(default_factory=set)


class Batch:
    """The heartbeats that wait for the next question."""

    def __init__(self) -> None:
        self.workers: dict[str, Shown] = {}
        self.loop = asyncio.get_running_loop()
        self.answer = self.loop.create_task(self._ask())

    async def _ask(self) -> dict[Shown, Concerned]:
        global _next
        await asyncio.sleep(SECONDS)
        _next = None
        return await database_sync_to_async(_heard)(self.workers)


_next: Batch | None = None


async def heard(channel: str, worker: Shown) -> Concerned:
    """Write down that the worker on this channel lives; what it has to do."""
    global _next
    if _next is None or _next.loop is not asyncio.get_running_loop():
        _next = Batch()
    _next.workers[channel] = worker
    return (await asyncio.shield(_next.answer))[worker]


def _heard(channels: dict[str, Shown]) -> dict[Shown, Concerned]:
    providers.heard(channels)
    return concerned(set(channels.values()))


def concerned(workers: set[Shown]) -> dict[Shown, Concerned]:
    """In as many questions as for one worker."""
    whom = {provider for provider, _ in workers}
    rows = Provider.objects.filter(pk__in=whom).values_list("pk", "standing", "user__is_active")
    standings = {pk: (standing, active) for pk, standing, active in rows}
    good, found = providers.still_good({key for _, key in workers}), defaultdict(list)
    for provider, pk, state in actions.concerned(whom):
        found[provider].append((pk, state == Assignment.State.COMMITTED))
    answers = {}
    for provider, key in workers:
        standing, active = standings[provider]
        leases = ({pk for pk, asked in found[provider] if asked == wanted} for wanted in (False, True))
        answers[provider, key] = Concerned(standing, active and key in good, *leases)
    return answers
