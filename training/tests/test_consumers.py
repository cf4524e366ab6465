"""A worker's socket: what it is told, when, and at what cost."""

from collections.abc import Awaitable, Callable

import pytest
from asgiref.sync import async_to_sync
from channels.db import database_sync_to_async
from channels.testing import WebsocketCommunicator
from django.db import connections
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from accounts.models import ApiKey, User
from dmlworker import protocol
from dmlworker.protocol import Ack, Cancel, Commit, Heartbeat, Hello, Message, Offer, Welcome
from providers.models import Connection, Provider, Standing
from training import consumers, store
from training.consumers import BAD_FRAME, WorkerConsumer, lease_of
from training.models import Assignment
from training.tests.conftest import ROOT, leases

State = Assignment.State


class Socket:
    """A worker's end of the line, to the consumer itself."""

    def __init__(self, key: str) -> None:
        self._line = WebsocketCommunicator(WorkerConsumer.as_asgi(), protocol.SOCKET_PATH)
        self._line.scope["headers"] = [(b"authorization", f"Bearer {key}".encode())]

    async def says(self, *messages: Message) -> None:
        for message in messages:
            await self._line.send_to(text_data=protocol.encode(message))

    async def hears(self) -> Message:
        return protocol.decode(await self._line.receive_from(10))

    async def writes(self, text: str) -> None:
        """A frame that this version would not write."""
        await self._line.send_to(text_data=text)

    async def is_closed_with(self) -> int:
        while (event := await self._line.receive_output(10))["type"] != "websocket.close":
            pass
        self.told = event.get("reason", "")
        return int(event["code"])

    async def silent(self) -> bool:
        return bool(await self._line.receive_nothing(0.3))

    async def __aenter__(self) -> "Socket":
        await self._line.connect()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._line.disconnect()


@pytest.fixture
def lease(started) -> Assignment:
    return leases(started)[0]


@pytest.fixture
def connected(lease):
    """Runs a scenario with a socket that was welcomed and told of the lease."""

    def run(scenario: Callable[[Socket], Awaitable[None]]) -> None:
        @async_to_sync  # so that the database is asked in the test's own thread
        async def all_of_it() -> None:
            async with Socket(key) as socket:
                await socket.says(Hello("test", 1))
                assert isinstance(await socket.hears(), Welcome)
                offer = await socket.hears()
                assert isinstance(offer, Offer) and offer.lease == lease_of(lease)
                await scenario(socket)

        all_of_it()

    key = ApiKey.issue(lease.provider.user)
    return run


def test_hello_is_answered_by_a_welcome_and_the_open_leases(connected, lease):
    async def scenario(socket: Socket) -> None:
        assert await database_sync_to_async(Connection.objects.filter(provider=lease.provider).count)() == 2
        assert await socket.silent()

    connected(scenario)
    assert Connection.objects.filter(provider=lease.provider).count() == 1  # it said goodbye


def test_heartbeats_without_news_cost_four_short_queries_however_many_come_at_once(connected, started):
    async def scenario(socket: Socket) -> None:
        async with Socket(key) as other:
            await other.says(Hello("test", 1))
            assert [type(await other.hears()) for _ in range(2)] == [Welcome, Offer]
            # The connection is its thread's own.
            captured = await database_sync_to_async(lambda: CaptureQueriesContext(connections["default"]).__enter__())()
            await socket.says(Heartbeat())
            await other.says(Heartbeat())
            assert await socket.silent() and await other.silent()
            await database_sync_to_async(captured.__exit__)(None, None, None)
            asked = [query["sql"] for query in captured if not query["sql"].startswith("SELECT 1")]
            assert len(asked) == 4, asked

    key = ApiKey.issue(leases(started)[1].provider.user)
    connected(scenario)


def test_nothing_is_said_after_a_close(connected, lease):
    """What was on its way is not answered."""

    async def scenario(socket: Socket) -> None:
        await socket.writes("nothing of ours")
        await socket.says(Heartbeat(), Commit(lease_of(lease), "0" * 64, 6, ROOT))
        assert await socket.is_closed_with() == BAD_FRAME
        assert await socket.silent()

    connected(scenario)


def test_what_a_lost_wake_up_would_have_said_is_said_at_the_next_heartbeat(connected, lease):
    def withdrawn() -> None:
        Assignment.objects.filter(pk=lease.pk).update(state=State.EXPIRED)
        Assignment.objects.create(
            round=lease.round, shard=lease.shard, provider=lease.provider, attempt=2, deadline=lease.deadline
        )

    async def scenario(socket: Socket) -> None:
        await database_sync_to_async(withdrawn)()
        await socket.says(Heartbeat())
        told = [await socket.hears(), await socket.hears()]
        assert [(type(message), message.lease.attempt) for message in told] == [(Offer, 2), (Cancel, 1)]
        await socket.says(Heartbeat())
        assert await socket.silent()

    connected(scenario)


def test_a_commit_is_acknowledged_and_not_taken_for_withdrawn(connected, lease):
    async def scenario(socket: Socket) -> None:
        update = await database_sync_to_async(store.put)(b"update")
        await socket.says(
            Commit(lease_of(lease), "0" * 64, 6, ROOT), Commit(lease_of(lease), update.pk, 6, ROOT), Heartbeat()
        )
        answers = [await socket.hears(), await socket.hears()]
        assert [answer.ok for answer in answers if isinstance(answer, Ack)] == [False, True]
        assert await socket.silent()

    connected(scenario)


def test_who_is_banned_meanwhile_is_sent_away(connected, lease):
    async def scenario(socket: Socket) -> None:
        found = Provider.objects.filter(pk=lease.provider.pk)
        await database_sync_to_async(found.update)(standing=Standing.BANNED)
        await socket.says(Heartbeat())
        assert await socket.is_closed_with() == protocol.CLOSE_BANNED

    connected(scenario)


@pytest.mark.parametrize(("key", "code"), [("", protocol.CLOSE_BAD_KEY), ("right", BAD_FRAME)])
def test_without_a_key_or_a_hello_nobody_is_heard(lease, key, code):
    shown = key and ApiKey.issue(lease.provider.user)

    @async_to_sync
    async def scenario() -> None:
        async with Socket(shown) as socket:
            await socket.says(Heartbeat())
            assert await socket.is_closed_with() == code

    scenario()


EARLIER = [
    '{"v":3,"type":"hello","software":"dml-worker 0.1.0","threads":2,"device":"CPU"}',
    '{"v":3,"type":"commit","lease":{"run":"r","round":1,"shard":0,"attempt":1},"sha256":"%s","size":5,"root":"%s"}',
]


@pytest.mark.parametrize("frame", EARLIER)
def test_an_earlier_worker_is_told_that_it_is_too_old_and_does_not_come_back(lease, frame):
    key = ApiKey.issue(lease.provider.user)

    @async_to_sync
    async def scenario() -> None:
        async with Socket(key) as socket:
            await socket.writes(frame.replace("%s", ROOT))
            assert await socket.is_closed_with() == protocol.CLOSE_TOO_OLD
            assert socket.told == f"protocol version 3 is not spoken here, only version {protocol.VERSION}"

    scenario()


def test_a_key_that_is_revoked_ends_the_connection_that_it_opened(connected, lease):
    async def scenario(socket: Socket) -> None:
        await database_sync_to_async(ApiKey.objects.update)(revoked=timezone.now())
        await socket.says(Heartbeat())
        assert await socket.is_closed_with() == protocol.CLOSE_BAD_KEY
        assert "revoked" in socket.told

    connected(scenario)


def test_so_does_an_account_that_is_closed(connected, lease):
    async def scenario(socket: Socket) -> None:
        await database_sync_to_async(User.objects.filter(pk=lease.provider.user_id).update)(is_active=False)
        await socket.says(Heartbeat())
        assert await socket.is_closed_with() == protocol.CLOSE_BAD_KEY

    connected(scenario)


def test_a_flood_is_cut_off_and_not_answered(connected, lease, monkeypatch):
    monkeypatch.setattr(consumers, "BURST", 5)
    monkeypatch.setattr(consumers, "PER_SECOND", 0)

    async def scenario(socket: Socket) -> None:
        await socket.says(*[Heartbeat()] * 10)
        assert await socket.is_closed_with() == consumers.TOO_MANY
        assert await socket.silent()

    connected(scenario)
