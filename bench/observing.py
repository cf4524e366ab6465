"""What being watched costs: a request, a job and a socket's message with and without logs, metrics and ids, by turns. Microseconds of
processor time.

make bench-observing

The lines are written as JSON, and thrown away; the numbers are shared through files, as several job processes do. What a round costs is the sum over
what happens in one.
"""

import asyncio
import os
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from statistics import median
from typing import Any

TURNS, EACH = 30, 200
FOLDER = Path(tempfile.mkdtemp(prefix="dml-observing-"))
os.environ |= {"DML_VAR_DIR": str(FOLDER), "LOG_FORMAT": "json", "DJANGO_SETTINGS_MODULE": "dmlsite.settings"}
os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(FOLDER)
sys.stderr = open(os.devnull, "w")  # noqa: SIM115 - the log handler keeps it

import dramatiq  # noqa: E402
from django.conf import settings  # noqa: E402
from dramatiq.brokers.redis import RedisBroker  # noqa: E402
from dramatiq.middleware import default_middleware  # noqa: E402

from bench import report  # noqa: E402
from dmlsite import asgi  # noqa: E402  (settings are read now)
from dmlsite.embedded import start_redis  # noqa: E402
from observe import inbound, metrics  # noqa: E402
from observe.background import Background  # noqa: E402

ROUND = {"request": 8, "job": 6, "message": 28, "count": 14}
"""Of four workers: each fetches the weights and sends its update; is offered, accepts, reports, commits, is answered, beats; a job for each update, one
that averages, one that checks."""


def compared(bare: Callable[[], float], watched: Callable[[], float]) -> dict[str, float]:
    """Medians over the turns, one after the other, and of what is between the two of one turn."""
    bare(), watched()
    turns = [(bare(), watched()) for _ in range(TURNS)]
    without, with_ = (round(median(column), 1) for column in zip(*turns, strict=True))
    return {"without": without, "with": with_, "more": round(median(b - a for a, b in turns), 1)}


# --- A request --------------------------------------------------------------------------------------------------------
async def asked(application: Any) -> float:
    """The home page, in this very event loop: no line, no server."""
    scope = {"type": "http", "method": "GET", "path": "/", "raw_path": b"/", "query_string": b"", "http_version": "1.1"}
    scope |= {
        "headers": [(b"host", b"localhost")],
        "client": ("127.0.0.1", 1),
        "server": ("localhost", 80),
        "scheme": "http",
    }
    never = asyncio.Event()

    async def send(event: dict[str, Any]) -> None:
        assert event.get("status", 200) == 200

    async def once() -> None:
        events = [{"type": "http.request"}]

        async def receive() -> dict[str, Any]:
            if not events:
                await never.wait()
            return events.pop()

        await application(dict(scope), receive, send)

    return await timed(once, EACH // 4)


async def timed(step: Callable[[], Awaitable[None]], times: int) -> float:
    started = time.process_time()
    for _ in range(times):
        await step()
    return (time.process_time() - started) / times * 1e6


# --- A socket's message -----------------------------------------------------------------------------------------------
async def talked(application: Any) -> float:
    """An echo of many messages."""
    events = iter([{"type": "websocket.receive", "text": "x"}] * 2000)
    scope = {"type": "websocket", "path": "/ws/worker/", "headers": []}
    started = time.process_time()

    async def receive() -> dict[str, Any]:
        return next(events, {"type": "websocket.disconnect"})

    async def send(event: dict[str, Any]) -> None:
        pass

    await application(scope, receive, send)
    return (time.process_time() - started) / 4000 * 1e6


async def echo(scope: Any, receive: Any, send: Any) -> None:
    while (event := await receive())["type"] == "websocket.receive":
        await send({"type": "websocket.send", "text": event["text"]})


# --- A job ------------------------------------------------------------------------------------------------------------
def jobs(watched: bool) -> Callable[[], float]:
    """From the order to its end, one after the other, on a broker of its own."""
    chosen = [middleware() for middleware in default_middleware if "Prometheus" not in middleware.__name__]
    name = "watched" if watched else "bare"
    broker = RedisBroker(
        url=settings.REDIS_URL, namespace=name, middleware=[*([Background()] if watched else []), *chosen]
    )
    nothing = dramatiq.actor(lambda: None, actor_name=name, broker=broker)
    running = dramatiq.Worker(broker, worker_threads=1, worker_timeout=5)
    running.start()

    def turn() -> float:
        started = time.process_time()
        for _ in range(EACH):
            nothing.send()
        broker.join("default", interval=1)
        return (time.process_time() - started) / EACH * 1e6

    return turn


def counted() -> float:
    started = time.process_time()
    for _ in range(2000):
        metrics.LEASES.labels("committed").inc()
    return (time.process_time() - started) / 2000 * 1e6


def main() -> None:
    redis = start_redis(settings.EMBEDDED)
    try:
        runner = asyncio.Runner()
        request = compared(lambda: runner.run(asked(asgi.http)), lambda: runner.run(asked(inbound.watched(asgi.http))))
        message = compared(lambda: runner.run(talked(echo)), lambda: runner.run(talked(inbound.watched(echo))))
        job = compared(jobs(False), jobs(True))
    finally:
        redis.stop()
    found = {
        "request": request,
        "message": message,
        "job": job,
        "count": {"more": round(median(counted() for _ in range(TURNS)), 1)},
    }
    found["round"] = {"more": round(sum(found[name]["more"] * times for name, times in ROUND.items()))}
    report.keep("observing", found)
    rows = [
        [name, *(str(numbers.get(column, "")) for column in ("without", "with", "more"))]
        for name, numbers in found.items()
    ]
    report.show("What being watched costs, µs of processor time", ["", "without", "with", "more"], rows)


if __name__ == "__main__":
    main()
    os._exit(0)  # the workers' threads wait for a Redis that is gone
