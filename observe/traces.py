"""Traces by OpenTelemetry, where OTEL_EXPORTER_OTLP_ENDPOINT is set and the extra `trace` is installed; else nothing.

request or a worker's message (web) -> job, by the options of its message -> whatever that job orders. Queries are spans within them.
What a worker does is a trace of its own: the protocol has no place for another's (dmlworker/spans.py).
"""

import os
from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager
from typing import Any

try:
    from opentelemetry import context, propagate, trace
except ImportError:  # the extra is not installed
    trace = None  # type: ignore[assignment]

from observe import logs

OPTION = "trace"
"""Of a message: the W3C trace context of what ordered the job."""
_tracer: Any = None
"""None: nobody wants traces."""


def wanted() -> bool:
    return bool(os.environ.get("OTEL_EXPORTER_OTLP_ENDPOINT")) and trace is not None


def start(process: str, exporter: Any = None) -> None:
    """Once in a process, after it was forked: web, jobs or scanner. `exporter` in place of OTLP's: for tests."""
    global _tracer
    if _tracer or not (exporter or wanted()):
        return
    from opentelemetry.instrumentation.psycopg import PsycopgInstrumentor
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider

    provider = TracerProvider(resource=Resource.create({"service.name": f"dml-{process}"}))
    provider.add_span_processor(_processor(exporter))
    PsycopgInstrumentor().instrument(tracer_provider=provider)
    _tracer = provider.get_tracer("dml")


def _processor(exporter: Any) -> Any:
    from opentelemetry.sdk.trace.export import BatchSpanProcessor, SimpleSpanProcessor

    if exporter:
        return SimpleSpanProcessor(exporter)
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

    return BatchSpanProcessor(OTLPSpanExporter())


@contextmanager
def request(scope: dict[str, Any]) -> Iterator[None]:
    """A span for a request, in the trace of whoever sent it, if that has one."""
    if not _tracer:
        yield
        return
    sent = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
    with _span(scope["method"], trace.SpanKind.SERVER, propagate.extract(sent)):
        yield


@contextmanager
def message(name: str) -> Iterator[None]:
    """A span for what a socket is told. None for the socket: it would end, and be seen, after hours. None for signs of life, of which there
    are many."""
    if not _tracer or name in ("heartbeat", "progress"):
        yield
        return
    with _span(f"worker {name}", trace.SpanKind.SERVER, None):
        yield


def answered(view: str, status: int) -> None:
    """Name the span of this request by its view: addresses hold people's secrets, and there are too many."""
    if _tracer:
        span = trace.get_current_span()
        span.update_name(view)
        span.set_attributes({"http.route": view, "http.response.status_code": status})


def hand_on(options: MutableMapping[str, Any]) -> None:
    if _tracer and OPTION not in options:
        carrier: dict[str, str] = {}
        propagate.inject(carrier)
        options[OPTION] = carrier


@contextmanager
def job(message: Any) -> Iterator[None]:
    if not _tracer:
        yield
        return
    origin = propagate.extract(message.options.get(OPTION, {}))
    with _span(message.actor_name, trace.SpanKind.CONSUMER, origin):
        trace.get_current_span().set_attribute("messaging.destination.name", message.queue_name)
        yield


def failed(error: BaseException | None) -> None:
    """The kind of an error only: its text may tell of people."""
    if _tracer and error:
        trace.get_current_span().set_status(trace.StatusCode.ERROR, type(error).__name__)


@contextmanager
def _span(name: str, kind: Any, origin: Any) -> Iterator[None]:
    """What it is about is known better at its end than at its start. An error's text is not taken down."""
    span = _tracer.start_span(name, context=origin, kind=kind)
    token = context.attach(trace.set_span_in_context(span, origin))
    try:
        yield
    except BaseException as error:
        failed(error)
        raise
    finally:
        span.set_attributes({f"dml.{name}": value for name, value in logs.ids().items()})
        context.detach(token)
        span.end()
