"""Jobs about providers."""

from dmlsite import jobs
from ledger.books import following
from providers import actions, attestations


@jobs.actor()
def event_seen(pk: int) -> None:
    """A deposit, an exit, an accusation or a ban is final on the chain."""
    with following(pk) as event:
        if event:
            actions.event_seen(event)


@jobs.actor(retries=0, max_age=jobs.SWEEP_AGE)
def sweep() -> None:
    """What no event tells of."""
    with jobs.apart("accusations whose time is over"):  # the chain may not answer
        actions.close_overdue()
    actions.forget_connections()
    attestations.forget()
