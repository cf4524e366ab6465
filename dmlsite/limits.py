"""How often somebody may do something: counted in the cache, atomically, before the work is done."""

from http import HTTPStatus

from django.http import HttpRequest
from django_ratelimit.core import get_usage

from dmlsite.errors import DomainError


class TooMany(DomainError):
    """Too many attempts (429). The text says when to come back."""

    status = HTTPStatus.TOO_MANY_REQUESTS


def throttle(request: HttpRequest, group: str, rate: str, *keys: str) -> None:
    """Count this attempt under each key ("ip", "user", "post:<field>"); raises TooMany past `rate` ("10/5m")."""
    for key in keys:
        usage = get_usage(request, group=group, key=key, rate=rate, increment=True)
        if usage and usage["should_limit"]:
            raise TooMany(f"Too many attempts. Please try again in {_wait(usage['time_left'])}.")


def _wait(seconds: int) -> str:
    minutes = -(-max(seconds, 1) // 60)
    return "a minute" if minutes == 1 else f"{minutes} minutes"
