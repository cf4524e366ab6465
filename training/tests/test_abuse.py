"""WebSockets as somebody with bad intentions uses them, on the real server: what is too much is closed, and the server serves others."""

import asyncio
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress

import pytest
from asgiref.sync import async_to_sync
from django.conf import settings
from django.test import Client
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from accounts.models import ApiKey
from contracts.devchain import free_port
from dmlsite.testing import database_url
from dmlsite.web import FRAME
from dmlworker import protocol
from dmlworker.protocol import Hello
from training.consumers import BAD_FRAME, TOO_MANY
from training.tests.conftest import make_provider, make_ticket


@pytest.fixture(scope="module")
def process(django_db_setup) -> Iterator[str]:
    """Our application on a port, as the supervisor starts it, with little patience and for few workers."""
    port = free_port()
    small = {"PRESENCE_SECONDS": "2", "WORKERS_PER_PROVIDER": "3", "DATABASE_URL": database_url()}
    command = [
        sys.executable,
        "-m",
        "uvicorn",
        "dmlsite.asgi:application",
        "--port",
        str(port),
        "--ws-max-size",
        str(FRAME),
        "--timeout-graceful-shutdown",
        "1",
    ]
    with subprocess.Popen(
        [*command, "--lifespan", "off", "--log-level", "error"], env=os.environ | small, cwd=settings.BASE_DIR
    ) as running:
        while not _answers(port):
            assert running.poll() is None
            time.sleep(0.1)
        yield f"ws://127.0.0.1:{port}"
        running.terminate()


def _answers(port: int) -> bool:
    with socket.socket() as line:
        return line.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture
def server(process, transactional_db) -> str:
    return process


@pytest.fixture
def key(server) -> str:
    return ApiKey.issue(make_provider("ada", online=False).user)


def worker(server: str, key: str):
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    return connect(f"{server}{protocol.SOCKET_PATH}", additional_headers=headers, compression=None, max_size=None)


async def closed(line: ClientConnection) -> int:
    """The code with which the server ends it."""
    try:
        async with asyncio.timeout(20):
            while True:
                await line.recv()
    except ConnectionClosed as error:
        return error.rcvd.code if error.rcvd else 0


async def hello(line: ClientConnection) -> None:
    await line.send(protocol.encode(Hello("test", 1)))
    assert isinstance(protocol.decode(await line.recv()), protocol.Welcome)


@async_to_sync
async def still_serves(server: str, key: str) -> None:
    async with worker(server, key) as line:
        await hello(line)


@pytest.mark.parametrize("shown", ["", "dml_nonsense", "wallet:0x:1:0x", "x" * 400])
def test_without_a_key_nothing_is_said(server, key, shown):
    @async_to_sync
    async def scenario() -> int:
        async with worker(server, shown) as line:
            return await closed(line)

    assert scenario() == protocol.CLOSE_BAD_KEY
    still_serves(server, key)


MALFORMED = [
    "",
    "{",
    "[]",
    "null",
    "\0",
    "[" * 16_000,
    '{"v":6,"type":"hello"}',
    '{"v":6,"type":"offer"}',
    "x" * 17_000,
    "é" * 9_000,
]


@pytest.mark.parametrize(
    "frame", [*MALFORMED, b"\xff\xfe", b"x" * 20_000], ids=lambda frame: f"{len(frame)} {frame[:8]!r}"
)
def test_what_is_no_message_ends_the_connection(server, key, frame):
    @async_to_sync
    async def scenario() -> int:
        async with worker(server, key) as line:
            await line.send(frame)
            return await closed(line)

    assert scenario() == BAD_FRAME
    still_serves(server, key)


def test_a_huge_message_is_not_even_read(server, key):
    @async_to_sync
    async def scenario() -> int:
        async with worker(server, key) as line:
            await hello(line)
            with suppress(ConnectionClosed):
                await line.send("x" * 10_000_000)
            return await closed(line)

    assert scenario() == 1009
    still_serves(server, key)


def test_who_never_says_hello_is_not_waited_for(server, key):
    @async_to_sync
    async def scenario() -> int:
        async with worker(server, key) as line:
            return await closed(line)

    assert scenario() == BAD_FRAME


def test_one_provider_has_so_many_workers(server, key):
    @async_to_sync
    async def scenario() -> list[int]:
        lines = [await worker(server, key) for _ in range(5)]
        for line in lines[:3]:
            await hello(line)
        for line in lines[3:]:
            await line.send(protocol.encode(Hello("test", 1)))
        codes = [await closed(line) for line in lines[3:]]
        for line in lines:
            await line.close()
        return codes

    assert scenario() == [TOO_MANY, TOO_MANY]
    still_serves(server, key)


@pytest.mark.parametrize("origin", [None, "http://evil.example", "null", "http://127.0.0.1.evil.example"])
def test_a_page_of_somebody_elses_does_not_follow_a_ticket(server, origin):
    ticket = make_ticket()
    browser = Client()
    browser.force_login(ticket.customer)
    headers = {"Cookie": f"sessionid={browser.cookies['sessionid'].value}"}

    @async_to_sync
    async def follow(origin: str | None) -> None:
        async with connect(f"{server}/ws/tickets/{ticket.pk}/", additional_headers=headers, origin=origin):
            pass

    with pytest.raises(InvalidStatus):
        follow(origin)
    follow(server.replace("ws", "http"))


def test_a_page_that_talks_is_cut_off(server):
    ticket = make_ticket()
    browser = Client()
    browser.force_login(ticket.customer)
    headers = {"Cookie": f"sessionid={browser.cookies['sessionid'].value}"}

    @async_to_sync
    async def talk() -> int:
        place = f"{server}/ws/tickets/{ticket.pk}/"
        async with connect(place, additional_headers=headers, origin=server.replace("ws", "http")) as line:
            await line.send("x")
            return await closed(line)

    assert talk() == BAD_FRAME
