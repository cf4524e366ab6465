"""Requests share few threads, and with them connections to the database, but never at the same time."""

import asyncio
import sys
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable

import httpx
import pytest
from django.core.signals import request_started
from django.db import connection

from dmlsite.asgi import application, pages
from dmlsite.threads import MOST, TURN

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def backends():
    """The processes of the database that served requests, in their order, and how many did so at once."""
    found: list[tuple[int, int]] = []
    lock, inside = threading.Lock(), set[int]()

    def note(**_: object) -> None:
        with connection.cursor() as cursor:
            cursor.execute("select pg_backend_pid()")
            pid = cursor.fetchone()[0]
        with lock:
            inside.add(pid)
            found.append((pid, len(inside)))
        time.sleep(0.02)
        with lock:
            inside.remove(pid)

    request_started.connect(note)
    yield found
    request_started.disconnect(note)


def run(scenario: Callable[[httpx.AsyncClient], Awaitable[None]]) -> None:
    async def all_of_it() -> None:
        pages.places, pages.free = asyncio.Semaphore(MOST), []
        transport = httpx.ASGITransport(application)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost", timeout=60) as client:
            await scenario(client)

    asyncio.run(all_of_it())


async def page(client: httpx.AsyncClient) -> None:
    assert (await client.get("/accounts/login/")).status_code == 200


def test_one_request_after_the_other_uses_one_connection(backends):
    async def scenario(client: httpx.AsyncClient) -> None:
        for _ in range(3):
            await page(client)

    run(scenario)
    assert len(backends) == 3 and len({pid for pid, _ in backends}) == 1


def test_of_many_at_once_some_wait(backends):
    async def scenario(client: httpx.AsyncClient) -> None:
        await asyncio.gather(*(page(client) for _ in range(3 * MOST)))
        assert len(pages.free) <= MOST

    run(scenario)
    assert len(backends) == 3 * MOST
    assert 1 < max(together for _, together in backends) <= MOST


def test_who_sends_slowly_takes_nobodys_place():
    async def scenario(client: httpx.AsyncClient) -> None:
        arrived = asyncio.Event()

        async def slow() -> AsyncIterator[bytes]:
            yield b"email="
            await arrived.wait()

        senders = [asyncio.create_task(client.post("/api/v1/login", content=slow())) for _ in range(MOST)]
        await asyncio.sleep(0.1)
        async with asyncio.timeout(30):
            await page(client)
        arrived.set()
        assert {answer.status_code for answer in await asyncio.gather(*senders)} == {422}

    run(scenario)


def test_short_questions_do_not_wait_long_behind_pages_that_compute():
    """As a socket asks them, beside eight pages; compared with Python's own turns, on the same machine at about the same time."""
    assert sys.getswitchinterval() == pytest.approx(TURN)
    try:
        took = {turn: asked_beside_pages(turn) for turn in (TURN, 5 * TURN)}
    finally:
        sys.setswitchinterval(TURN)
    assert took[TURN] < took[5 * TURN]


def asked_beside_pages(turn: float) -> float:
    """Seconds for thirty questions; each lets others run while it is answered."""
    sys.setswitchinterval(turn)
    over = threading.Event()
    pages = [threading.Thread(target=computes, args=(over,)) for _ in range(8)]
    for each in pages:
        each.start()
    began = time.perf_counter()
    for _ in range(30):
        time.sleep(0.0002)
    took = time.perf_counter() - began
    over.set()
    for each in pages:
        each.join()
    return took


def computes(over: threading.Event) -> None:
    while not over.is_set():
        sum(range(1000))
