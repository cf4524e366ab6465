"""Tell open pages and connected workers that something changed. They then ask the database what."""

import asyncio
import threading
from functools import cache
from uuid import UUID

from channels.layers import get_channel_layer
from django.db import transaction

PATIENCE = 10
"""Seconds that Redis may take."""


def ticket_group(ticket: UUID) -> str:
    return f"ticket.{ticket}"


def provider_group(provider: UUID) -> str:
    return f"provider.{provider}"


def changed(*groups: str) -> None:
    """After commit, wake whoever listens to a group. A lost wake-up is repaired by the next one, or by the sweep."""
    transaction.on_commit(lambda: _send(groups), robust=True)


def _send(groups: tuple[str, ...]) -> None:
    asyncio.run_coroutine_threadsafe(_tell(groups), _loop()).result(PATIENCE)


async def _tell(groups: tuple[str, ...]) -> None:
    layer = get_channel_layer()
    for group in groups:
        await layer.group_send(group, {"type": "changed"})


@cache
def _loop() -> asyncio.AbstractEventLoop:
    """One for all that this process says: a loop of its own for each call would connect to Redis each time."""
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, name="live", daemon=True).start()
    return loop
