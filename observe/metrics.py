"""What is counted and timed as it happens, and how a scrape gets at it. What is in the database is read at the scrape: readings.py.

The web processes answer `/metrics` (health.py). Jobs and the scanner have no door of their own: each group of processes that is
started together answers on METRICS_PORT, for all of its processes, through files that they share (prometheus_client's multiprocess
mode). docs/observing.md has every metric with its unit. No Django models in here: every app counts with it.
"""

import hmac
import logging
import os
import tempfile
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from threading import Thread
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, make_server

from django.conf import settings

log = logging.getLogger(__name__)


class Taken(OSError):
    """The folder for the numbers belongs to somebody else."""


def _shared_folder(port: int) -> str:
    """The same for all processes with this port, and nobody else's. It must be known before prometheus_client is imported."""
    folder = Path(tempfile.gettempdir()) / f"dml-metrics-{os.getuid()}-{port}"
    folder.mkdir(mode=0o700, exist_ok=True)
    if folder.stat().st_uid != os.getuid():
        raise Taken(f"{folder} belongs to another user; remove it")
    return str(folder)


if settings.METRICS_PORT:
    os.environ.setdefault("PROMETHEUS_MULTIPROC_DIR", _shared_folder(settings.METRICS_PORT))

from prometheus_client import (  # noqa: E402
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
    generate_latest,
    multiprocess,
)
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, ThreadingWSGIServer  # noqa: E402

disable_created_metrics()  # a second number for each, which nothing reads
REGISTRY = CollectorRegistry()
OF_REQUESTS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10)
OF_JOBS = (0.01, 0.05, 0.1, 0.5, 1, 5, 15, 60, 300, 1800)


def _counter(name: str, text: str, *labels: str) -> Counter:
    return Counter(f"dml_{name}", text, labels, registry=REGISTRY)


def _histogram(name: str, text: str, buckets: Iterable[float], *labels: str) -> Histogram:
    return Histogram(f"dml_{name}", text, labels, buckets=tuple(buckets), registry=REGISTRY)


def _gauge(name: str, text: str, mode: Any, *labels: str) -> Gauge:
    return Gauge(f"dml_{name}", text, labels, multiprocess_mode=mode, registry=REGISTRY)


# --- The web ----------------------------------------------------------------------------------------------------------
HTTP = _histogram("http_request_seconds", "Requests, by view and status.", OF_REQUESTS, "view", "status")
SOCKETS = _gauge("websocket_connections", "Open WebSockets: of workers, and of pages.", "livesum", "kind")
FRAMES = _counter("websocket_messages", "Messages on WebSockets, in and out.", "kind", "direction")

# --- Jobs -------------------------------------------------------------------------------------------------------------
JOBS = _counter("jobs", "Jobs that ended: done, retried, failed for good, or dropped as too old.", "job", "outcome")
JOB = _histogram("job_seconds", "What jobs took.", OF_JOBS, "job")
WAITED = _histogram("job_wait_seconds", "From when a job was due to its start.", OF_JOBS, "queue")

# --- Training ---------------------------------------------------------------------------------------------------------
ROUND = _histogram(
    "round_seconds", "From a round's opening to its average.", (0.25, 0.5, 1, 2.5, 5, 15, 60, 300, 1800, 7200)
)
ROUNDS = _counter("rounds", "Rounds that ended: averaged in full or by a quorum, or void.", "outcome")
LEASES = _counter("leases", "What became of leases; all but offered, accepted and committed are failures.", "outcome")

# --- Money ------------------------------------------------------------------------------------------------------------
RPC = _histogram("rpc_seconds", "Questions to the chain's node.", (0.01, 0.05, 0.1, 0.5, 1, 5, 10), "method", "outcome")
COINS = _gauge("wallet_coins", "Native coin of a hot key.", "mostrecent", "role")
REACH = _gauge("wallet_transactions", "For how many transactions a hot key's coin lasts.", "mostrecent", "role")


def rpc(method: str, seconds: float, outcome: str) -> None:
    """Told by the client of the node. outcome: ok; refused, an answer that says no; failed: no usable answer."""
    RPC.labels(method, outcome).observe(seconds)


# --- The scrape -------------------------------------------------------------------------------------------------------
def text(*more: Any) -> bytes:
    """All numbers of this process, or of all that share its folder, and those of the collectors `more`, as Prometheus reads them."""
    shown = CollectorRegistry()
    if "PROMETHEUS_MULTIPROC_DIR" in os.environ:
        multiprocess.MultiProcessCollector(shown)
    else:
        shown.register(REGISTRY)  # type: ignore[arg-type]  # it has `collect`, which is all that is asked for
    for collector in more:
        shown.register(collector)
    return generate_latest(shown)


CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4


def allowed(authorization: str) -> bool:
    """Whether a request shows the token. Without one in the settings, nobody does."""
    wanted = f"Bearer {settings.METRICS_TOKEN}"
    return bool(settings.METRICS_TOKEN) and hmac.compare_digest(authorization.encode(), wanted.encode())


def serve() -> None:
    """Answer scrapes on METRICS_PORT, in a thread: on all addresses where a token is wanted, else on loopback only. Of several
    processes that share a port the first one does."""
    if not settings.METRICS_PORT:
        return
    host = "0.0.0.0" if settings.METRICS_TOKEN else "127.0.0.1"
    try:
        server = make_server(host, settings.METRICS_PORT, _answer, ThreadingWSGIServer, _Quiet)
    except OSError as error:
        log.info("metrics: port %s: %s: another process of this group answers there", settings.METRICS_PORT, error)
        return
    _forget_the_dead()
    Thread(target=server.serve_forever, name="metrics", daemon=True).start()


class _Quiet(WSGIRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        pass


def _answer(environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
    if settings.METRICS_TOKEN and not allowed(environ.get("HTTP_AUTHORIZATION", "")):
        start_response("403 Forbidden", [])
        return []
    start_response("200 OK", [("Content-Type", CONTENT_TYPE)])
    return [text()]


def _forget_the_dead() -> None:
    """Numbers of processes that an earlier start left in the folder: they are nobody's now."""
    for file in Path(os.environ["PROMETHEUS_MULTIPROC_DIR"]).glob("*.db"):
        pid = file.stem.rpartition("_")[2]
        if not Path(f"/proc/{pid}").exists():
            with suppress(FileNotFoundError):
                file.unlink()
