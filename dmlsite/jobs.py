"""The one door to background work: `enqueue("training.tasks.close_round", pk)`.

A message is only a wake-up call. It goes out after the transaction that asked for it has committed; if it is lost, the
sweep repeats it. Naming the actor by a dotted name lets a lower app nudge a higher one without importing it.
"""

import logging
from importlib import import_module

from django.db import transaction

log = logging.getLogger(__name__)


def enqueue(actor: str, *args: object, delay_ms: int = 0) -> None:
    """Send `actor` (dotted name) a message after commit. A dead broker is logged, never raised: the sweep repeats."""
    transaction.on_commit(lambda: _send(actor, args, delay_ms), robust=True)


def _send(actor: str, args: tuple[object, ...], delay_ms: int) -> None:
    module, name = actor.rsplit(".", 1)
    getattr(import_module(module), name).send_with_options(args=args, delay=delay_ms or None)
