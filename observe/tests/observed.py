"""For tests of what is told of the platform: a caller of the ASGI application, the lines that are logged, jobs on the real broker."""

import io
import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import dramatiq
import httpx
from asgiref.sync import async_to_sync

from dmlsite.asgi import application
from observe.logs import Json

QUEUE = "observed"
"""Of the tests' own jobs."""


@async_to_sync
async def get(path: str, client: tuple[str, int] | None = ("127.0.0.1", 1), **headers: str) -> httpx.Response:
    transport = httpx.ASGITransport(application, raise_app_exceptions=False, client=client)  # type: ignore[arg-type]
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost", headers=headers) as caller:
        return await caller.get(path)


@contextmanager
def lines() -> Iterator[list[dict[str, Any]]]:
    """What is logged within, as a collector of logs reads it; there when the block has ended."""
    stream, found, root = io.StringIO(), list[dict[str, Any]](), logging.getLogger()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(Json())
    root.addHandler(handler)
    level = root.level
    root.setLevel(logging.INFO)
    try:
        yield found
    finally:
        root.removeHandler(handler)
        root.setLevel(level)
        found.extend(json.loads(line) for line in stream.getvalue().splitlines())


@contextmanager
def worker() -> Iterator[None]:
    """Jobs of QUEUE that are ordered within are done by the time the block has ended."""
    broker = dramatiq.get_broker()
    broker.declare_queue(QUEUE)  # also where no job of it was ever named
    broker.flush(QUEUE)
    running = dramatiq.Worker(broker, queues={QUEUE}, worker_timeout=50, worker_threads=1)
    running.start()
    try:
        yield
        broker.join(QUEUE, timeout=20_000)
        running.join()
    finally:
        running.stop()
