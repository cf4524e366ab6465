"""One trace from a request through the jobs that it ordered, on the real broker; and none where nobody asked for it."""

import os
import subprocess
import sys

import pytest
from django.http import HttpResponse
from django.urls import path

from dmlsite import jobs
from observe import traces
from observe.tests.observed import QUEUE, get, worker

trace_sdk = pytest.importorskip("opentelemetry.sdk.trace.export.in_memory_span_exporter")
CALLER = "4bf92f3577b34da6a3ce929d0e0e4736"


@jobs.actor(queue_name=QUEUE, retries=0)
def first(ticket: str) -> None:
    second.send()


@jobs.actor(queue_name=QUEUE, retries=0)
def second() -> None:
    raise ValueError("someone@people.example")


def orders(request):
    first.send("17")
    return HttpResponse("ok")


urlpatterns = [path("orders/", orders, name="orders")]


@pytest.fixture(scope="module")
def exporter():
    """A process has one for its whole life."""
    found = trace_sdk.InMemorySpanExporter()
    traces.start("test", found)
    yield found
    traces._tracer = None


@pytest.fixture
def spans(exporter, settings):
    settings.ROOT_URLCONF = __name__
    exporter.clear()
    return lambda: {span.name: span for span in exporter.get_finished_spans()}


def test_request_job_and_the_job_of_a_job_are_one_trace(spans):
    with worker():
        answer = get("/orders/", traceparent=f"00-{CALLER}-00f067aa0ba902b7-01")
    found = spans()
    web, one, two = (found[name] for name in ("orders", f"{__name__}.first", f"{__name__}.second"))
    assert {format(span.context.trace_id, "032x") for span in (web, one, two)} == {CALLER}
    assert one.parent.span_id == web.context.span_id
    assert two.parent.span_id == one.context.span_id
    assert web.attributes["dml.request"] == two.attributes["dml.request"] == answer.headers["x-request-id"]
    assert one.attributes["dml.ticket"] == "17"
    assert (web.attributes["http.response.status_code"], web.kind.name, one.kind.name) == (200, "SERVER", "CONSUMER")


def test_a_job_that_fails_is_marked_without_the_text_of_its_error(spans):
    with worker():
        second.send()
    failed = spans()[f"{__name__}.second"]
    assert (failed.status.status_code.name, failed.status.description) == ("ERROR", "ValueError")
    assert "someone" not in failed.to_json()


@pytest.mark.django_db(transaction=True)
def test_queries_are_spans_of_what_asked_without_their_values(spans):
    from django.db import connection

    connection.close()  # those opened from now on are watched
    get("/accounts/login/")
    with traces.request({"type": "http", "method": "GET", "headers": []}), connection.cursor() as cursor:
        cursor.execute("select %s::text", ["a-private-value"])
    found = spans()
    query = next(span for name, span in found.items() if "elect" in name)
    assert query.parent.span_id == found["GET"].context.span_id
    assert "a-private-value" not in query.to_json()


@pytest.mark.parametrize("endpoint", ["", "http://127.0.0.1:1"])
def test_the_variable_alone_decides_whether_there_are_traces(endpoint):
    check = "import os; from observe import traces; traces.start('web'); os._exit(traces._tracer is not None)"
    env = os.environ | {"OTEL_EXPORTER_OTLP_ENDPOINT": endpoint}
    assert subprocess.run([sys.executable, "-c", check], env=env).returncode == bool(endpoint)
