"""What may go wrong. `str(error)` is for people; where the platform has said it, in the platform's own words.

DMLError
  NetworkError      no answer, however often asked
  DataError         what was given is no data, no address, no ticket's number, or can't be read
  PaymentError      the wallet does not sign it, or the chain does not take it
  Damaged           a file did not arrive as the platform says that it is
  Refused           the platform's answer to this request is no
    NotLoggedIn, NotAllowed, NotFound, WrongState, InvalidInput, TooMany, Unavailable
  Refunded          the ticket ended without a model; the whole payment went back
  Expired           nobody paid the ticket in time, or it was cancelled before
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dmlclient.records import Ticket


class DMLError(Exception):
    """Any of these."""


class NetworkError(DMLError):
    """The platform, or a node of the chain, does not answer."""


class DataError(DMLError):
    """What was given can't be used; the platform was not asked."""


class PaymentError(DMLError):
    """Not paid. What the text does not say was sent, was not sent."""


class Damaged(DMLError):
    """A file's size or SHA-256 is another one than the platform says."""


class Refused(DMLError):
    """status: of HTTP. errors: field -> what is wrong with it, where single fields are."""

    def __init__(self, status: int, detail: str, errors: Mapping[str, Any]) -> None:
        self.status, self.detail, self.errors = status, detail, dict(errors)
        super().__init__(" ".join([detail, *(f"{name}: {_text(said)}" for name, said in self.errors.items())]))


def _text(said: Any) -> str:
    return " ".join(map(str, said)) if isinstance(said, list) else str(said)


class NotLoggedIn(Refused):
    """The key is not known, or was revoked (401)."""


class NotAllowed(Refused):
    """Known, but not allowed to do this (403)."""


class NotFound(Refused):
    """No such thing, or somebody else's (404)."""


class WrongState(Refused):
    """The ticket's state does not allow this (409)."""


class InvalidInput(Refused):
    """The input can't be used; nothing was charged (413, 422)."""


class TooMany(Refused):
    """Too many attempts; the text says when to come back (429)."""


class Unavailable(Refused):
    """The platform, or the chain behind it, is out of order for the moment (5xx); nothing was lost."""


KINDS: dict[int, type[Refused]] = {
    401: NotLoggedIn,
    403: NotAllowed,
    404: NotFound,
    409: WrongState,
    413: InvalidInput,
    422: InvalidInput,
    429: TooMany,
}


def refused(status: int, detail: str, errors: Mapping[str, Any]) -> Refused:
    """The error that a status means."""
    kind = Unavailable if status >= 500 else KINDS.get(status, Refused)
    return kind(status, detail, errors)


class TicketError(DMLError):
    """The ticket has ended without a model."""

    def __init__(self, ticket: "Ticket") -> None:
        self.ticket = ticket
        super().__init__(ticket.outcome or f"The ticket is {ticket.status}.")


class Refunded(TicketError):
    """Everything was given back; the text says why."""


class Expired(TicketError):
    """Nothing was paid."""
