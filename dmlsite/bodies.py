"""How large a request may be. Django writes a body down before it looks at anything, so that is decided here, by the address and by who
asks: nobody fills the disk with what no page takes, and nobody without an account with more than a form."""

import math
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from http.cookies import CookieError, SimpleCookie
from importlib import import_module
from typing import Any, TypeVar

from channels.db import database_sync_to_async
from django.conf import settings
from django.contrib.auth import SESSION_KEY
from django.urls import Resolver404, resolve
from rest_framework.authtoken.models import Token

from accounts.models import ApiKey

FORM = 4 * 10**6
"""Bytes of a request whose address says nothing else."""
MARGIN = 10**6
"""Of what stands around a file in a form."""

App = Callable[[dict[str, Any], Any, Any], Awaitable[None]]
View = TypeVar("View", bound=Callable[..., Any])


class _TooLarge(Exception):
    pass


def takes(bytes_: Callable[[], int]) -> Callable[[View], View]:
    """A view that takes files of so many bytes together, from people who are logged in. On a class it goes above all of its methods."""

    def mark(view: View) -> View:
        view.most_bytes = bytes_  # type: ignore[attr-defined]
        return view

    return mark


def bounded(app: App) -> App:
    """Answers 413 to what is larger than its address takes, and 401 to what is larger than a form and from nobody we know, without having
    read it."""

    async def answer(scope: dict[str, Any], receive: Any, send: Any) -> None:
        headers = {name.lower(): value.decode("latin-1") for name, value in scope["headers"]}
        said, most, status = _said(headers), FORM, HTTPStatus.REQUEST_ENTITY_TOO_LARGE
        if said > FORM and (larger := limit(scope["path"])) > FORM:
            if await database_sync_to_async(_known)(headers):
                most = larger
            else:
                status = HTTPStatus.UNAUTHORIZED
        if most < said < math.inf:
            return await _refuse(send, status)
        try:
            await app(scope, _counting(receive, most), send)
        except _TooLarge:
            await _refuse(send, status)

    return answer


def limit(path: str) -> int:
    """Bytes that are taken at an address."""
    try:
        view = resolve(path).func
    except Resolver404:
        return FORM
    owner = getattr(view, "view_class", None) or getattr(view, "cls", None) or view
    return owner.most_bytes() + MARGIN if hasattr(owner, "most_bytes") else FORM


def _said(headers: dict[bytes, str]) -> float:
    """Bytes that are to come; infinite where nobody knows."""
    length = headers.get(b"content-length", "")
    if length.isascii() and length.isdecimal() and len(length) < 16:
        return int(length)
    return math.inf if length or b"transfer-encoding" in headers else 0


def _counting(receive: Any, most: int) -> Any:
    got = 0

    async def counted() -> dict[str, Any]:
        nonlocal got
        event = await receive()
        got += len(event.get("body", b""))
        if got > most:
            raise _TooLarge
        return event

    return counted


def _known(headers: dict[bytes, str]) -> bool:
    """Whether a session or a secret is shown that is somebody's. What they may do is the view's business."""
    scheme, _, secret = headers.get(b"authorization", "").partition(" ")
    if secret:
        return Token.objects.filter(key=secret).exists() or ApiKey.valid(secret, *ApiKey.PROGRAMS).exists()
    try:
        cookie = SimpleCookie(headers.get(b"cookie", "")).get(settings.SESSION_COOKIE_NAME)
    except CookieError:
        return False
    if cookie is None:
        return False
    return SESSION_KEY in import_module(settings.SESSION_ENGINE).SessionStore(cookie.value).load()


async def _refuse(send: Any, status: HTTPStatus) -> None:
    body = b"This is more than is taken here, or than is taken without a login."
    headers = [
        (b"content-type", b"text/plain"),
        (b"content-length", str(len(body)).encode()),
        (b"connection", b"close"),
    ]
    await send({"type": "http.response.start", "status": int(status), "headers": headers})
    await send({"type": "http.response.body", "body": body})
