"""Spans by OpenTelemetry, where OTEL_EXPORTER_OTLP_ENDPOINT is set and the extra `trace` is installed; else nothing.

Each lease is a trace of its own, with the lease's ids: a lease has no place for the platform's. What is fetched and sent within it is
told the platform by HTTP's own header for that, so that its spans of those requests are in here.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from dmlworker.protocol import Lease

_tracer: Any = None
"""None: nobody wants spans."""


def start(exporter: Any = None) -> None:
    """Once in a process. `exporter` in place of OTLP's: for tests."""
    global _tracer
    if not (exporter or os.environ.get("OTEL_EXPORTER_OTLP_ENDPOINT")):
        return
    try:
        from opentelemetry.instrumentation.httpx import HTTPXClientInstrumentor
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor, SimpleSpanProcessor
    except ImportError:
        return
    provider = TracerProvider(resource=Resource.create({"service.name": "dml-worker"}))
    provider.add_span_processor(SimpleSpanProcessor(exporter) if exporter else BatchSpanProcessor(_otlp()))
    HTTPXClientInstrumentor().instrument(tracer_provider=provider)
    _tracer = provider.get_tracer("dml")


def _otlp() -> Any:
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

    return OTLPSpanExporter()


@contextmanager
def work(lease: Lease) -> Iterator[None]:
    """A span from the acceptance of a lease to its end."""
    if _tracer is None:
        yield
        return
    ids = {"dml.run": lease.run, "dml.round": lease.round, "dml.shard": lease.shard, "dml.attempt": lease.attempt}
    with _tracer.start_as_current_span("lease", attributes=ids):
        yield
