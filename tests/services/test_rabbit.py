"""RabbitMQ closes the connection of a thread that was idle for long: whatever the thread asks for next, it has another one."""

import asyncio
import threading
import time
from contextlib import AsyncExitStack
from pathlib import Path
from urllib.parse import urlsplit

import dramatiq
import pytest
from asgiref.sync import sync_to_async
from django.conf import settings
from dmlsite.tests.observed import QUEUE, worker

from dmlsite import health, jobs, readings
from dmlsite.testing import SERVICES
from dmlsite.threads import MOST, Pages
from scripts import services

began: set[int] = set()
did: set[int] = set()


@jobs.actor(queue_name=QUEUE, retries=0)
def does(number: int) -> None:
    did.add(number)


@jobs.actor(queue_name=QUEUE, retries=0)
def orders(number: int) -> None:
    """A long job. It is given out again afterwards, for who did it had no connection left to say that it was done."""
    if number not in began:
        began.add(number)
        does.send(0)
        close_connections()
    does.send(number)


def close_connections() -> None:
    """All of this room, as RabbitMQ does with one that gave no sign for two heartbeats."""
    stack = services.Stack.load(Path(SERVICES))
    room = urlsplit(settings.BROKER_URL).path.lstrip("/")
    services.rabbitmqctl(stack, "close_all_connections", "--vhost", room, "idle")


@pytest.fixture
def broker(monkeypatch):
    monkeypatch.setattr(readings, "QUEUES", (QUEUE,))
    broker = dramatiq.get_broker()
    broker.declare_queue(QUEUE)
    broker.flush(QUEUE)
    did.clear(), began.clear()
    yield broker
    broker.flush(QUEUE)


def ready() -> float:
    """Messages that wait."""
    return next(sample.value for sample in readings.queues() if sample.labels == (QUEUE, "ready"))


def test_a_message_is_sent_and_nobody_is_told_of_an_error(broker, caplog):
    does.send(1)
    close_connections()
    does.send(2)
    assert ready() == 2
    assert not caplog.records


def test_queues_are_counted_and_the_process_stays_ready(broker):
    does.send(1)
    assert ready() == 1
    close_connections()
    assert ready() == 1
    close_connections()
    assert health.Watch({"broker": health.PARTS["broker"]})()["status"] == "ok"


def test_a_thread_that_has_waited_meanwhile_asks_again(broker):
    """As those of /readyz and /metrics do by turns."""
    closed, counted = threading.Event(), []

    def looks_twice() -> None:
        counted.append(ready())
        closed.wait(60)
        counted.append(ready())

    thread = threading.Thread(target=looks_twice)
    thread.start()
    while not counted:
        thread.join(0.05)
    close_connections()
    closed.set()
    thread.join(60)
    assert counted == [0, 0]


def test_a_queue_is_emptied(broker):
    does.send(1)
    close_connections()
    broker.flush(QUEUE)
    assert ready() == 0


def test_jobs_are_taken_on_and_order_others(broker):
    with worker():
        orders.send(1)
        end = time.monotonic() + 60
        while did != {0, 1} and time.monotonic() < end:
            time.sleep(0.1)
        close_connections()
        does.send(2)
    assert did == {0, 1, 2}


def test_a_thread_that_ends_leaves_no_connection(broker):
    """Of a web process, when many have asked for something at the same moment."""
    before = len(broker.connections)
    pages = Pages()

    async def many_at_once() -> None:
        async with AsyncExitStack() as threads:
            for number in range(MOST + 3):
                await threads.enter_async_context(pages.thread())
                await sync_to_async(does.send)(number)
            assert len(broker.connections) == before + MOST + 3
        for _ in range(100):
            if len(broker.connections) == before + MOST:
                return
            await asyncio.sleep(0.1)

    asyncio.run(many_at_once())
    assert len(broker.connections) == before + MOST
    for one in pages.free:
        one.submit(jobs.hang_up)
        one.shutdown()
    assert len(broker.connections) == before
