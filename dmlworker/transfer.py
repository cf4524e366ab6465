"""Blobs over HTTP: fetched and sent with resume, and verified by their hash. Errors are sorted into 'try again' and 'give up'."""

import asyncio
import hashlib
import io
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from itertools import count
from pathlib import Path
from typing import IO

import httpx

from dmlworker.cache import Cache
from dmlworker.protocol import Blob, blob_path
from dmlworker.weights import Bytes

TRIES = 8
"""Half a minute to a minute in all: a platform that is being restarted is waited for, and what was computed not thrown away."""
CHUNK = 1 << 20
Moved = Callable[[], None]
"""Called whenever some bytes went over the line."""


class TransferError(Exception):
    """A blob can't be fetched or sent, and trying again won't help; the text says why."""


class _Again(Exception):
    """This try failed, the next one may not."""


def backoff(attempt: int, longest: float = 30.0) -> float:
    """Seconds to wait before the next try: 0.5, 1, 2, ... up to `longest`, half of it by chance, so that a crowd of
    workers cut off together does not come back together. attempt: from 0."""
    return min(longest, 0.5 * float(2 ** min(attempt, 16))) * random.uniform(0.5, 1.0)


async def fetch(http: httpx.AsyncClient, cache: Cache, blob: Blob, moved: Moved) -> Path:
    """Where the blob's bytes are, from the disk or the platform. Raises TransferError, or OSError if the disk is full."""
    path = await asyncio.to_thread(cache.path, blob)
    if path is None:
        with cache.partial(blob).open("a+b") as file:
            await _fetched(http, blob, file, moved)
        path = cache.adopt(blob)
    return path


async def fetch_once(http: httpx.AsyncClient, blob: Blob, moved: Moved) -> memoryview:
    """The blob's bytes from the platform, held in memory only: for what no later work will ask for. Raises TransferError."""
    file = io.BytesIO()
    await _fetched(http, blob, file, moved)
    return file.getbuffer()


async def send(http: httpx.AsyncClient, blob: Blob, parts: Sequence[Bytes], moved: Moved) -> None:
    """Stores bytes, given in parts, on the platform under their hash; to send them twice does no harm. What got there before
    the line broke is not sent again. Raises TransferError."""
    tries = count()

    async def upload() -> None:
        first = await _arrived(http, blob) if next(tries) else 0
        await _upload(http, blob, parts, first, moved)

    await _persist(upload, f"sending {blob.sha256[:12]}")


async def _persist(work: Callable[[], Awaitable[None]], what: str) -> None:
    for attempt in range(TRIES):
        try:
            return await work()
        except (_Again, httpx.TransportError) as error:
            reason = str(error) or type(error).__name__
        if attempt + 1 < TRIES:
            await asyncio.sleep(backoff(attempt))
    raise TransferError(f"{what}: {reason}")


async def _fetched(http: httpx.AsyncClient, blob: Blob, file: IO[bytes], moved: Moved) -> None:
    await _persist(lambda: _download(http, blob, file, moved), f"fetching {blob.sha256[:12]}")


async def _download(http: httpx.AsyncClient, blob: Blob, file: IO[bytes], moved: Moved) -> None:
    """One try; what an earlier one left in the file is asked for no more."""
    have = file.seek(0, io.SEEK_END)
    if have < blob.size or not have:
        await _append(http, blob, file, have, moved)
    file.seek(0)
    if hashlib.file_digest(file, "sha256").hexdigest() != blob.sha256:
        file.truncate(0)
        raise _Again("what arrived has another hash")


async def _append(http: httpx.AsyncClient, blob: Blob, file: IO[bytes], have: int, moved: Moved) -> None:
    # Not compressed: the hash, the size and the range are those of the bytes themselves.
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={have}-"} if have else {})
    async with http.stream("GET", blob_path(blob.sha256), headers=headers) as response:
        if response.status_code == 416:
            file.truncate(0)
        _check(response, (200, 206))
        size = have if response.status_code == 206 else 0
        file.seek(size)
        file.truncate()
        # As they come, so that what came before a break is kept.
        async for chunk in response.aiter_raw():
            size += len(chunk)
            if size > blob.size:
                raise TransferError(f"{blob.sha256[:12]} is larger than was said")
            file.write(chunk)
            moved()


async def _arrived(http: httpx.AsyncClient, blob: Blob) -> int:
    """How many of a blob's bytes an upload that broke has left on the platform."""
    response = await http.head(blob_path(blob.sha256))
    return int(response.headers.get("Upload-Offset", 0)) if response.status_code == 200 else 0


async def _upload(http: httpx.AsyncClient, blob: Blob, parts: Sequence[Bytes], first: int, moved: Moved) -> None:
    async def body() -> AsyncIterator[bytes]:
        for chunk in _chunks(parts, first):
            yield chunk
            moved()

    # The length is told beforehand, so that the platform can refuse too much before it took any.
    headers = {"Content-Length": str(blob.size - first)} | ({"Upload-Offset": str(first)} if first else {})
    method = "PATCH" if first else "PUT"
    _check(await http.request(method, blob_path(blob.sha256), content=body(), headers=headers), (200, 201))


def _chunks(parts: Sequence[Bytes], skip: int) -> Iterator[bytes]:
    """The bytes of all parts, from the one after `skip` on."""
    for part in parts:
        for first in range(min(skip, len(part)), len(part), CHUNK):
            yield bytes(part[first : first + CHUNK])
        skip = max(0, skip - len(part))


def _check(response: httpx.Response, good: tuple[int, ...]) -> None:
    """A server in trouble, a busy one, and a body damaged on the way (422) are worth another try; other refusals not."""
    status = response.status_code
    if status in good:
        return
    if status >= 500 or status in (408, 409, 416, 422, 425, 429):
        raise _Again(f"the platform answered {status}")
    reasons = {401: "the key is not known", 403: "not allowed", 404: "not there", 413: "too large"}
    raise TransferError(reasons.get(status, f"the platform answered {status}"))
