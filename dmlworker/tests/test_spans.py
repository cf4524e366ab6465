"""Each lease is a trace of its own, which the requests within it are told of."""

import asyncio
from pathlib import Path

import pytest

from dmlworker import spans
from dmlworker.client import Settings, Worker
from dmlworker.protocol import Decline, Hyper
from dmlworker.tests.platform import KEY, serving
from dmlworker.tests.test_client import Lines

exporting = pytest.importorskip("opentelemetry.sdk.trace.export.in_memory_span_exporter")


def test_a_lease_is_a_trace_with_its_ids_and_the_requests_within(tmp_path: Path) -> None:
    exporter = exporting.InMemorySpanExporter()
    spans.start(exporter)

    async def a_lease_that_nobody_can_serve() -> None:
        async with serving() as platform:
            platform.offer(b"no model", b"no weights", b"no shard", Hyper(1, 10, 0.1, 3), round_=4)
            worker = Worker(Settings(platform.url, KEY, tmp_path, 1), Lines())
            running = asyncio.create_task(worker.run())
            await platform.hears(Decline)
            worker.stop()
            await running

    try:
        asyncio.run(a_lease_that_nobody_can_serve())
    finally:
        spans._tracer = None
        from opentelemetry.instrumentation.httpx import HTTPXClientInstrumentor

        HTTPXClientInstrumentor().uninstrument()
    found = exporter.get_finished_spans()
    (lease,) = (span for span in found if span.name == "lease")
    assert dict(lease.attributes) == {"dml.run": "run-1", "dml.round": 4, "dml.shard": 0, "dml.attempt": 1}
    fetched = [span for span in found if span.parent and span.parent.span_id == lease.context.span_id]
    assert fetched and all(span.attributes["http.method"] == "GET" for span in fetched)
