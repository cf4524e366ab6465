"""Blobs over HTTP for workers: `GET` with byte ranges, `PUT` for updates. A worker gets what its leases name, no more.

An ASGI application of its own beside Django's pages: bytes go from the socket to the store and back as they come, and no
page's middleware (sessions, templates, a copy of the body) stands in their way.
"""

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from http import HTTPStatus
from typing import Any

from channels.db import database_sync_to_async

from dmlsite.errors import DomainError, Forbidden
from dmlworker.protocol import blob_path
from providers.actions import worker_of
from providers.models import Provider
from training import actions, store
from training.models import Blob

PREFIX = blob_path("")
RANGE = re.compile(r"bytes=(\d+)-(\d*)")

Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]


class Gone(Exception):
    """The worker hung up in the middle."""


async def door(scope: dict[str, Any], receive: Receive, send: Send) -> None:
    """The one door for workers' bytes; shown an API key or a wallet's sign-in, never a cookie."""
    sha256 = scope["path"].removeprefix(PREFIX)
    headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
    try:
        if scope["method"] == "PUT":
            await _answer(send, await _take(sha256, headers, receive))
        elif scope["method"] == "GET":
            await _give(sha256, headers, send)
        else:
            await _answer(send, HTTPStatus.METHOD_NOT_ALLOWED)
    except DomainError as error:
        await _answer(send, error.status, str(error))
    except Gone:
        pass


async def _answer(send: Send, status: int, text: str = "", **headers: str) -> None:
    body = text.encode()
    await _start(
        send, status, {"Content-Type": "text/plain; charset=utf-8", "Content-Length": str(len(body)), **headers}
    )
    await send({"type": "http.response.body", "body": body})


async def _start(send: Send, status: int, headers: dict[str, str]) -> None:
    pairs = [(name.lower().encode(), value.encode("latin-1")) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": int(status), "headers": pairs})


def _provider(headers: dict[str, str]) -> Provider:
    scheme, _, token = headers.get("authorization", "").partition(" ")
    if scheme != "Bearer":
        raise Forbidden("An API key is needed: Authorization: Bearer KEY")
    return worker_of(token)


# --- From a worker ----------------------------------------------------------------------------------------------------
async def _take(sha256: str, headers: dict[str, str], receive: Receive) -> int:
    limit = await database_sync_to_async(_room)(headers)
    with store.Spool(limit) as spool:
        async for piece in _pieces(receive):
            await asyncio.to_thread(spool.write, piece)
        return await database_sync_to_async(_keep)(spool, sha256)


def _room(headers: dict[str, str]) -> int:
    """Bytes that this worker may store. Raises TooLarge if it says that it sends more: none of them is read then."""
    limit = actions.upload_limit(_provider(headers))
    length = headers.get("content-length", "")
    if length.isdecimal() and int(length) > limit:
        raise store.TooLarge(limit)
    return limit


async def _pieces(receive: Receive) -> AsyncIterator[bytes]:
    """The body in pieces of about a CHUNK: one step to another thread is worth more than a network packet."""
    held, more = bytearray(), True
    while more:
        event = await receive()
        if event["type"] == "http.disconnect":
            raise Gone
        held += event.get("body", b"")
        more = event.get("more_body", False)
        if len(held) >= store.CHUNK or not more:
            yield bytes(held)
            held.clear()


def _keep(spool: store.Spool, sha256: str) -> int:
    return HTTPStatus.CREATED if spool.keep(sha256)[1] else HTTPStatus.OK


# --- To a worker ------------------------------------------------------------------------------------------------------
async def _give(sha256: str, headers: dict[str, str], send: Send) -> None:
    blob, link = await database_sync_to_async(_find)(headers, sha256)
    if link:
        return await _answer(send, HTTPStatus.FOUND, Location=link)
    first, last = 0, blob.size - 1
    if wanted := RANGE.fullmatch(headers.get("range", "")):
        first, last = int(wanted[1]), min(int(wanted[2] or last), last)
        if first > last:
            status = HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE
            return await _answer(send, status, **{"Content-Range": f"bytes */{blob.size}"})
    said = {
        "Content-Type": "application/octet-stream",
        "Content-Length": str(last - first + 1),
        "Accept-Ranges": "bytes",
        "ETag": f'"{blob.sha256}"',
    }
    if wanted:
        said["Content-Range"] = f"bytes {first}-{last}/{blob.size}"
    await _start(send, HTTPStatus.PARTIAL_CONTENT if wanted else HTTPStatus.OK, said)
    async for piece in _chunks(sha256, first, last - first + 1):
        await send({"type": "http.response.body", "body": piece, "more_body": True})
    await send({"type": "http.response.body"})


def _find(headers: dict[str, str], sha256: str) -> tuple[Blob, str]:
    blob = actions.readable_blob(_provider(headers), sha256)
    return blob, store.link(blob.sha256)


async def _chunks(sha256: str, first: int, count: int) -> AsyncIterator[bytes]:
    file = await asyncio.to_thread(store.opened, sha256)
    try:
        file.seek(first)
        while count > 0 and (chunk := await asyncio.to_thread(file.read, min(store.CHUNK, count))):
            count -= len(chunk)
            yield chunk
    finally:
        file.close()
