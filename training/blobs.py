"""Blobs over HTTP for workers: `GET` with byte ranges, `PUT` for updates. A worker gets what its leases name, no more.

An upload that broke is gone on with: `HEAD` says in Upload-Offset how much of it is here, `PATCH` with that offset brings the
rest (the terms of https://datatracker.ietf.org/doc/draft-ietf-httpbis-resumable-upload/).

An ASGI application of its own beside Django's pages: bytes go from the socket to the store and back as they come, and no
page's middleware (sessions, templates, a copy of the body) stands in their way.
"""

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from http import HTTPStatus
from typing import Any
from uuid import UUID

from channels.db import database_sync_to_async

from dmlsite.errors import Conflict, DomainError, Forbidden, Missing
from dmlworker.protocol import ATTESTED, blob_path
from observe import logs
from providers.actions import worker_of
from providers.models import Provider
from training import actions, store
from training.models import Blob

PREFIX = blob_path("")
SHA256 = re.compile("[0-9a-f]{64}")
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
        if not SHA256.fullmatch(sha256):
            raise Missing("a blob is called by its SHA-256")
        if scope["method"] in ("PUT", "PATCH"):
            await _answer(send, await _take(sha256, headers, receive, resume=scope["method"] == "PATCH"))
        elif scope["method"] == "HEAD":
            size = await database_sync_to_async(_waiting)(sha256, headers)
            await _answer(send, HTTPStatus.OK, **{"Upload-Offset": str(size)})
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
    found = worker_of(token)
    logs.note(provider=found.pk)
    return found


# --- From a worker ----------------------------------------------------------------------------------------------------
async def _take(sha256: str, headers: dict[str, str], receive: Receive, resume: bool) -> int:
    provider, limit = await database_sync_to_async(_room)(sha256, headers)
    part = headers.get("upload-offset", "") if resume else None
    with await asyncio.to_thread(_spool, provider.pk, sha256, limit, part) as spool:
        try:
            async for pieces in _pieces(receive):
                await asyncio.to_thread(spool.writelines, pieces)
        except Gone:
            await asyncio.to_thread(spool.set_aside, provider.pk, sha256)
            raise
        return await database_sync_to_async(_keep)(spool, sha256, provider)


def _room(sha256: str, headers: dict[str, str]) -> tuple[Provider, int]:
    """Whose worker it is, and the bytes that it may store. Raises TooLarge if it says that it sends more: none is read then."""
    provider = _provider(headers)
    limit = actions.upload_limit(provider, sha256)
    length = headers.get("content-length", "")
    if length.isdecimal() and int(length) > limit:
        raise store.TooLarge(limit)
    return provider, limit


def _waiting(sha256: str, headers: dict[str, str]) -> int:
    """Bytes of an upload of this worker that broke."""
    return store.waiting_bytes(_provider(headers).pk, sha256)


def _spool(owner: UUID, sha256: str, limit: int, offset: str | None) -> store.Spool:
    """A new one, or what is here of an upload that broke. Raises Conflict unless that is as much as the worker thinks: it then
    asks again."""
    if offset is None:
        return store.Spool(limit)
    spool = store.Spool.resumed(owner, sha256, limit)
    if offset == str(spool.size):
        return spool
    with spool:
        spool.set_aside(owner, sha256)
    raise Conflict(f"{spool.size} bytes are here")


async def _pieces(receive: Receive) -> AsyncIterator[list[bytes]]:
    """The body as it comes, about a CHUNK at once: one step to another thread is worth more than a network packet."""
    held, size, more = [], 0, True
    while more:
        event = await receive()
        gone = event["type"] == "http.disconnect"
        held.append(event.get("body", b""))
        size += len(held[-1])
        more = event.get("more_body", False)
        if size >= store.CHUNK or not more or gone:
            yield held
            held, size = [], 0
        if gone:
            raise Gone


def _keep(spool: store.Spool, sha256: str, provider: Provider) -> int:
    """Raises TooLarge if other uploads have taken the room meanwhile."""
    if spool.size > (limit := actions.upload_limit(provider, sha256)):
        raise store.TooLarge(limit)
    return HTTPStatus.CREATED if spool.keep(sha256, provider.pk)[1] else HTTPStatus.OK


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
    blob = actions.readable_blob(_provider(headers), sha256, headers.get(ATTESTED.lower(), ""))
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
