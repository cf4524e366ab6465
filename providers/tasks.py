"""Jobs about providers."""

import dramatiq

from ledger.actions import following
from providers import actions


@dramatiq.actor(max_retries=3, max_age=3_600_000)
def event_seen(pk: int) -> None:
    """A deposit, an exit, an accusation or a ban is final on the chain."""
    with following(pk) as event:
        if event:
            actions.event_seen(event)
