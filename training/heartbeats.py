"""Heartbeats of workers: those that come to this process at about the same time are one question to the database."""

import asyncio
from dataclasses import dataclass, field
from uuid import UUID

from channels.db import database_sync_to_async

from providers import actions as providers
from providers.models import Provider
from training import actions
from training.models import Assignment

SECONDS = 0.1
"""For so long others are waited for."""


@dataclass
class Concerned:
    """What a provider's workers have to do, as primary keys of leases: those that are open, and those whose work is to be shown."""

    standing: str
    open: set[int] = field(default_factory=set)
    asked: set[int] = field(default_factory=set)


class Batch:
    """The heartbeats that wait for the next question."""

    def __init__(self) -> None:
        self.providers: dict[str, UUID] = {}
        self.loop = asyncio.get_running_loop()
        self.answer = self.loop.create_task(self._ask())

    async def _ask(self) -> dict[UUID, Concerned]:
        global _next
        await asyncio.sleep(SECONDS)
        _next = None
        return await database_sync_to_async(_heard)(self.providers)


_next: Batch | None = None


async def heard(channel: str, provider: UUID) -> Concerned:
    """Write down that the worker on this channel lives; what its provider has to do."""
    global _next
    if _next is None or _next.loop is not asyncio.get_running_loop():
        _next = Batch()
    _next.providers[channel] = provider
    return (await asyncio.shield(_next.answer))[provider]


def _heard(channels: dict[str, UUID]) -> dict[UUID, Concerned]:
    providers.heard(channels)
    return concerned(set(channels.values()))


def concerned(whom: set[UUID]) -> dict[UUID, Concerned]:
    found = {
        pk: Concerned(standing) for pk, standing in Provider.objects.filter(pk__in=whom).values_list("pk", "standing")
    }
    for provider, pk, state in actions.concerned(whom):
        (found[provider].asked if state == Assignment.State.COMMITTED else found[provider].open).add(pk)
    return found
