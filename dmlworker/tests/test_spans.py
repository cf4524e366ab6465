"""Each lease is a trace of its own, which the requests within it are told of."""

from pathlib import Path

import pytest

from dmlworker import spans
from dmlworker.protocol import Decline
from dmlworker.tests.platform import serving
from dmlworker.tests.test_client import _quick, offered, run, working

__all__ = ["_quick"]  # a fixture
exporting = pytest.importorskip("opentelemetry.sdk.trace.export.in_memory_span_exporter")


def test_a_lease_is_a_trace_with_its_ids_and_the_requests_within(tmp_path: Path) -> None:
    exporter = exporting.InMemorySpanExporter()
    spans.start(exporter)

    async def a_lease_that_nobody_can_serve() -> None:
        async with serving() as platform, working(platform, tmp_path):
            offered(platform, spec=b"no model", round_=4)
            await platform.hears(Decline)

    try:
        run(a_lease_that_nobody_can_serve)
    finally:
        spans._tracer = None
        from opentelemetry.instrumentation.httpx import HTTPXClientInstrumentor

        HTTPXClientInstrumentor().uninstrument()
    found = exporter.get_finished_spans()
    (lease,) = (span for span in found if span.name == "lease")
    assert dict(lease.attributes) == {"dml.run": "run-1", "dml.round": 4, "dml.shard": 0, "dml.attempt": 1}
    fetched = [span for span in found if span.parent and span.parent.span_id == lease.context.span_id]
    assert fetched and all(span.attributes["http.method"] == "GET" for span in fetched)
