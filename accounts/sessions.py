"""What follows from a log-in, by whatever door: a line in the log, tried ones too, and for admins a session that ends the same day."""

import logging
from datetime import timedelta
from typing import Any

from django.http import HttpRequest
from django.utils import timezone

from accounts.models import User
from dmlsite.limits import spelled

log = logging.getLogger(__name__)
OF_ADMINS = timedelta(hours=12)
"""How long a session of an admin lasts, whatever is done in it; of others SESSION_COOKIE_AGE."""


def began(request: HttpRequest, user: User, **more: Any) -> None:
    """Called by Django's `login`."""
    told(request, user)
    if user.is_staff:
        request.session.set_expiry(timezone.now() + OF_ADMINS)


def told(request: Any, user: User) -> None:
    log.info("Log-in of user %s", user.pk, extra={"user": user.pk, "address": _address(request)})


def refused(credentials: dict[str, Any], request: Any = None, **more: Any) -> None:
    """Called by Django's `authenticate`. Whose account was tried is looked up whether there is one or not: it takes as long."""
    email = spelled(str(credentials.get("username", "")))
    user = User.objects.filter(email=email).values_list("pk", flat=True).first()
    log.warning("Log-in refused", extra={"user": user, "address": _address(request)})


def code_refused(request: HttpRequest, user: User) -> None:
    log.warning("Second factor refused", extra={"user": user.pk, "address": _address(request)})


def _address(request: Any) -> str:
    return request.META.get("REMOTE_ADDR", "") if request else ""
