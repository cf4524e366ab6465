"""How often somebody may do something: counted in the cache, atomically, before the work is done."""

import unicodedata
from collections.abc import Callable
from http import HTTPStatus

from django.http import HttpRequest
from django_ratelimit.core import get_usage

from dmlsite.errors import DomainError

Counted = Callable[[str, HttpRequest], str]
"""Group and request -> what an attempt is counted under."""


CHAIN = "120/m"
"""What asks the node, by one person."""
PARTS = "1200/m"
"""Parts of an upload, by one person: 300 MB a second of the largest."""
CHANGES = "120/m"
"""Small changes, by one person."""
FILES = "600/m"
"""Files by signed links, to one address: an office has many people behind one."""
READS = "600/m"
"""Pages that take some work to make, by one person: a page that follows a ticket asks at most once a second."""


class TooMany(DomainError):
    """Too many attempts (429). The text says when to come back."""

    status = HTTPStatus.TOO_MANY_REQUESTS


def throttle(request: HttpRequest, group: str, rate: str, *keys: str | Counted) -> None:
    """Count this attempt under each key ("ip", "user", "post:<field>"); raises TooMany past `rate` ("10/5m")."""
    for key in keys:
        counted = _account(key.removeprefix("post:")) if isinstance(key, str) and key.startswith("post:") else key
        usage = get_usage(request, group=group, key=counted, rate=rate, increment=True)
        if usage and usage["should_limit"]:
            raise TooMany(f"Too many attempts. Please try again in {_wait(usage['time_left'])}.")


def _account(field: str) -> Counted:
    """The account that a form names, as it is looked up: another spelling of it does not get guesses of its own."""

    def key(group: str, request: HttpRequest) -> str:
        return spelled(request.POST.get(field, ""))

    return key


def spelled(email: str) -> str:
    """As forms and the user manager read an address: NFKC, no blanks around it, lower case."""
    return unicodedata.normalize("NFKC", email).strip().lower()


def _wait(seconds: int) -> str:
    minutes = -(-max(seconds, 1) // 60)
    return "a minute" if minutes == 1 else f"{minutes} minutes"
