"""Tell open pages and connected workers that something changed. They then ask the database what."""

import logging
from uuid import UUID

from asgiref.sync import async_to_sync
from channels.layers import get_channel_layer
from django.db import transaction

log = logging.getLogger(__name__)


def ticket_group(ticket: UUID) -> str:
    return f"ticket.{ticket}"


def provider_group(provider: UUID) -> str:
    return f"provider.{provider}"


def changed(group: str) -> None:
    """After commit, wake whoever listens to `group`. A lost wake-up is repaired by the next one, or by the sweep."""
    transaction.on_commit(lambda: _send(group), robust=True)


def _send(group: str) -> None:
    async_to_sync(get_channel_layer().group_send)(group, {"type": "changed"})
