"""Blobs over HTTP: fetched with resume and verified, sent by hash. Errors are sorted into 'try again' and 'give up'."""

import asyncio
import hashlib
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import TypeVar

import httpx

from dmlworker.cache import Cache
from dmlworker.protocol import Blob, blob_path

Done = TypeVar("Done")
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


async def fetch(http: httpx.AsyncClient, cache: Cache, blob: Blob, moved: Moved) -> bytes:
    """The blob's bytes, from the disk or the platform. Raises TransferError, or OSError if the disk is full."""
    data = cache.get(blob)
    if data is None:
        data = await _persist(lambda: _download(http, blob, cache.partial(blob), moved), f"fetching {blob.sha256[:12]}")
        cache.adopt(blob)
    return data


async def send(http: httpx.AsyncClient, blob: Blob, data: bytes, moved: Moved) -> None:
    """Stores bytes on the platform under their hash; to send them twice does no harm. Raises TransferError."""
    await _persist(lambda: _upload(http, blob, data, moved), f"sending {blob.sha256[:12]}")


async def _persist(work: Callable[[], Awaitable[Done]], what: str) -> Done:
    for attempt in range(TRIES):
        try:
            return await work()
        except (_Again, httpx.TransportError) as error:
            reason = str(error) or type(error).__name__
        if attempt + 1 < TRIES:
            await asyncio.sleep(backoff(attempt))
    raise TransferError(f"{what}: {reason}")


async def _download(http: httpx.AsyncClient, blob: Blob, path: Path, moved: Moved) -> bytes:
    """One try; what an earlier one left in `path` is asked for no more."""
    have = path.stat().st_size if path.exists() else 0
    if have < blob.size or not have:
        await _append(http, blob, path, have, moved)
    data = path.read_bytes()
    if hashlib.sha256(data).hexdigest() != blob.sha256:
        path.unlink(missing_ok=True)
        raise _Again("what arrived has another hash")
    return data


async def _append(http: httpx.AsyncClient, blob: Blob, path: Path, have: int, moved: Moved) -> None:
    # Not compressed: the hash, the size and the range are those of the bytes themselves.
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={have}-"} if have else {})
    async with http.stream("GET", blob_path(blob.sha256), headers=headers) as response:
        if response.status_code == 416:
            path.unlink(missing_ok=True)
        _check(response, (200, 206))
        resumed = response.status_code == 206
        with path.open("ab" if resumed else "wb") as file:
            size = have if resumed else 0
            # As they come, so that what came before a break is kept.
            async for chunk in response.aiter_bytes():
                size += len(chunk)
                if size > blob.size:
                    raise TransferError(f"{blob.sha256[:12]} is larger than was said")
                file.write(chunk)
                moved()


async def _upload(http: httpx.AsyncClient, blob: Blob, data: bytes, moved: Moved) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        for first in range(0, len(data), CHUNK):
            yield data[first : first + CHUNK]
            moved()

    # The length is told beforehand, so that the platform can refuse too much before it took any.
    response = await http.put(blob_path(blob.sha256), content=pieces(), headers={"Content-Length": str(len(data))})
    _check(response, (200, 201))


def _check(response: httpx.Response, good: tuple[int, ...]) -> None:
    """A server in trouble, a busy one, and a body damaged on the way (422) are worth another try; other refusals not."""
    status = response.status_code
    if status in good:
        return
    if status >= 500 or status in (408, 416, 422, 425, 429):
        raise _Again(f"the platform answered {status}")
    reasons = {401: "the key is not known", 403: "not allowed", 404: "not there", 413: "too large"}
    raise TransferError(reasons.get(status, f"the platform answered {status}"))
