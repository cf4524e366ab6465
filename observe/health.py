"""Doors for those who watch the web processes: `/healthz`, `/readyz`, `/metrics`.

They stand before Django's pages: who watches comes by a plain address, without a host name of ours, TLS, cookie or session.
"""

import ipaddress
import json
import threading
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

from asgiref.sync import sync_to_async
from django.conf import settings
from django.core.files.base import ContentFile
from django.core.files.storage import default_storage
from django.db import connection
from django.db.migrations.executor import MigrationExecutor
from django.utils import timezone
from redis import Redis

from ledger.gateway import chain
from ledger.models import Alarm
from observe import metrics, readings

Send = Callable[[dict[str, Any]], Awaitable[None]]
JSON = b"application/json"
SECONDS = 2.0
"""How long a part may take to answer."""
FRESH = 2.0
"""Seconds for which an answer serves: whoever asks all the time costs no more than one who asks now and then."""
STANDSTILL = (Alarm.Kind.CHAIN_SILENT, Alarm.Kind.FINALITY_STILL)
FORWARDED = {b"forwarded", b"x-forwarded-for", b"x-forwarded-proto", b"x-real-ip"}


async def door(scope: dict[str, Any], send: Send) -> None:
    await DOORS[scope["path"]](scope, send)


async def _healthz(scope: dict[str, Any], send: Send) -> None:
    """The process answers; nothing else is asked."""
    await _say(send, 200, JSON, b'{"status": "ok"}\n')


async def _readyz(scope: dict[str, Any], send: Send) -> None:
    state = await sync_to_async(ready, thread_sensitive=False)()
    await _say(send, 503 if state["status"] == "unready" else 200, JSON, json.dumps(state).encode() + b"\n")


async def _metrics(scope: dict[str, Any], send: Send) -> None:
    """For whoever shows the token; where there is none, for the machine itself."""
    headers = dict(scope["headers"])
    shown = headers.get(b"authorization", b"").decode("latin-1")
    if not (metrics.allowed(shown) or (not settings.METRICS_TOKEN and _from_here(scope))):
        await _say(send, 403, b"text/plain", b"Authorization: Bearer METRICS_TOKEN\n")
        return
    text = await sync_to_async(_numbers, thread_sensitive=False)()  # not in the one thread that sockets wait for
    await _say(send, 200, metrics.CONTENT_TYPE.encode(), text)


def _numbers() -> bytes:
    try:
        return metrics.text(readings.READINGS)
    finally:
        connection.close()


def _from_here(scope: dict[str, Any]) -> bool:
    """From loopback, and passed on by nobody: behind a proxy on the same machine everybody comes from there."""
    host = (scope.get("client") or ("",))[0]
    try:
        local = ipaddress.ip_address(host).is_loopback
    except ValueError:  # a socket in the file system has no address
        return False
    return local and not FORWARDED & {name for name, _ in scope["headers"]}


async def _say(send: Send, status: int, kind: bytes, body: bytes) -> None:
    headers = [(b"content-type", kind), (b"content-length", b"%d" % len(body)), (b"cache-control", b"no-store")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


DOORS = {"/healthz": _healthz, "/readyz": _readyz, "/metrics": _metrics}


# --- Ready ------------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Part:
    """Something the web needs. `look` raises what is wrong, and may return what else to tell."""

    look: Callable[[], dict[str, object] | None]
    needed: bool = True
    keeps: float = 0.0
    """Seconds for which it is well once it was: for what costs more to look at."""


def _database() -> None:
    try:
        with connection.cursor() as cursor:
            cursor.execute("select 1")
    finally:
        connection.close()


def _migrations() -> None:
    """All that this program knows are applied. More may be: a newer one is being rolled out."""
    try:
        executor = MigrationExecutor(connection)
        if plan := executor.migration_plan(executor.loader.graph.leaf_nodes()):
            raise LookupError(f"{len(plan)} not applied")
    finally:
        connection.close()


def _redis() -> None:
    with Redis.from_url(settings.REDIS_URL, socket_timeout=SECONDS, socket_connect_timeout=SECONDS) as redis:
        redis.ping()


def _broker() -> None:
    list(readings.queues())


def _storage() -> None:
    name = default_storage.save(f"health/{uuid4().hex}", ContentFile(b"ok"))
    default_storage.delete(name)


def _chain() -> dict[str, object]:
    """Of the last final block; its clock may be ahead of ours. An idle chain makes none: what stands still is noticed by the scanner, which raises an alarm."""
    try:
        age = max(0.0, timezone.now().timestamp() - chain().finalized().timestamp)
        stands = Alarm.objects.filter(cleared=None, kind__in=STANDSTILL).values_list("kind", flat=True).first()
    finally:
        connection.close()
    if stands:
        raise LookupError(stands)
    return {"age_seconds": round(age)}


PARTS = {
    "database": Part(_database),
    "migrations": Part(_migrations, keeps=float("inf")),
    "redis": Part(_redis),
    "broker": Part(_broker),
    "storage": Part(_storage, keeps=30),
    "chain": Part(_chain, needed=False, keeps=5),
}


class Watch:
    """Looks at all parts at once, none for longer than SECONDS. One that still hangs from the last time is not asked again."""

    def __init__(self, parts: dict[str, Part]) -> None:
        self.parts = parts
        self._pool = ThreadPoolExecutor(len(parts), thread_name_prefix="health")
        self._lock = threading.Lock()
        self._asked: dict[str, Future[dict[str, object]]] = {}
        self._well: dict[str, tuple[float, dict[str, object]]] = {}
        self._told: tuple[float, dict[str, Any]] = (-FRESH, {})

    def __call__(self) -> dict[str, Any]:
        with self._lock:
            if time.monotonic() - self._told[0] >= FRESH:
                self._told = (time.monotonic(), self._look())
            return self._told[1]

    def _look(self) -> dict[str, Any]:
        end = time.monotonic() + SECONDS
        for name, part in self.parts.items():
            if name not in self._asked and not self._still_well(name):
                self._asked[name] = self._pool.submit(_seen, part)
        told = {name: self._answer(name, end - time.monotonic()) for name in self.parts}
        away = {name for name, part in told.items() if not part["ok"]}
        needed = {name for name in away if self.parts[name].needed}
        return {"status": "unready" if needed else "degraded" if away else "ok", "parts": told}

    def _still_well(self, name: str) -> bool:
        return name in self._well and time.monotonic() - self._well[name][0] < self.parts[name].keeps

    def _answer(self, name: str, seconds: float) -> dict[str, object]:
        if name not in self._asked:
            return self._well[name][1]
        try:
            found = self._asked[name].result(max(seconds, 0))
        except TimeoutError:
            return {"ok": False, "error": f"no answer in {SECONDS:g} s"}
        del self._asked[name]
        if found["ok"]:
            self._well[name] = (time.monotonic(), found)
        return found


def _seen(part: Part) -> dict[str, object]:
    """Only the kind of what is wrong: anybody may ask, and clients' texts tell addresses."""
    started = time.perf_counter()
    try:
        more = part.look() or {}
    except LookupError as error:  # our own words
        return {"ok": False, "error": str(error.args[0])}
    except Exception as error:
        return {"ok": False, "error": type(error).__name__}
    return {"ok": True, "seconds": round(time.perf_counter() - started, 3), **more}


ready = Watch(PARTS)
