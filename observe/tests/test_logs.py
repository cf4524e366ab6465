"""Log lines: readable by machines, with the ids of what they are about from request to job, and without secrets."""

import asyncio
import logging
import sys
from uuid import uuid4

import dramatiq
import pytest
from asgiref.sync import async_to_sync
from channels.testing import WebsocketCommunicator
from django.http import HttpResponse
from django.urls import path

from accounts.models import ApiKey
from contracts.chain import Unavailable
from dmlsite import jobs
from dmlsite.asgi import application
from dmlworker import protocol
from observe import logs
from observe.tests.observed import QUEUE, get, lines, worker
from training import actions
from training.tests.conftest import leases

log = logging.getLogger(__name__)
ID = "abcdef0123456789"


@jobs.actor(queue_name=QUEUE, retries=0)
def count_ticket(ticket: str) -> None:
    log.info("at work")
    order_more.send()


@jobs.actor(queue_name=QUEUE, retries=0)
def order_more() -> None:
    log.info("more work")


@jobs.actor(queue_name=QUEUE, retries=1, min_backoff=1)
def fails_once() -> None:
    log.info("trying")
    if not tried:
        tried.append(True)
        raise ValueError("the first time")


tried: list[bool] = []


def sync_view(request):
    log.info("in the view")
    count_ticket.send("7")
    return HttpResponse("ok")


async def async_view(request):
    await asyncio.sleep(0)
    log.info("in the view")
    return HttpResponse("ok")


urlpatterns = [path("sync/", sync_view), path("async/", async_view)]


@pytest.fixture
def views(settings):
    settings.ROOT_URLCONF = __name__


def named(found, text):
    return next(line for line in found if line["text"] == text)


# --- Requests ---------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", ["sync", "async"])
def test_what_a_view_logs_names_the_request_that_the_caller_gave(views, name):
    dramatiq.get_broker().flush(QUEUE)
    with lines() as found:
        answer = get(f"/{name}/", **{"X-Request-ID": ID})
    assert answer.headers["x-request-id"] == ID
    assert named(found, "in the view")["request"] == ID


@pytest.mark.parametrize("given", ["short", "x" * 65, "two words here", 'quote"quote'])
def test_an_id_that_is_not_well_formed_is_replaced(views, given):
    answer = get("/async/", **{"X-Request-ID": given})
    assert answer.headers["x-request-id"] != given
    assert len(answer.headers["x-request-id"]) == 32


def test_each_request_has_an_id_of_its_own_and_one_line(views):
    with lines() as found:
        first, second = get("/async/"), get("/nowhere/")
    assert first.headers["x-request-id"] != second.headers["x-request-id"]
    told = [line for line in found if line["logger"] == "observe.inbound"]
    assert [(line["view"], line["status"]) for line in told] == [
        ("observe.tests.test_logs.async_view", 200),
        ("other", 404),
    ]
    assert [line["request"] for line in told] == [first.headers["x-request-id"], second.headers["x-request-id"]]


@pytest.mark.django_db
def test_a_page_of_a_ticket_names_the_ticket_and_not_the_address():
    ticket, token = uuid4(), "a-signed-link"
    with lines() as found:
        get(f"/tickets/{ticket}/")
        get(f"/tickets/files/{token}")
    assert next(line for line in found if line.get("view") == "tickets:ticket")["ticket"] == str(ticket)
    assert not [line for line in found if token in str(line) and line["logger"] == "observe.inbound"]


# --- Jobs -------------------------------------------------------------------------------------------------------------
def test_a_job_and_what_it_orders_name_the_request_that_caused_them_on_the_real_broker(views):
    with lines() as found, worker():
        get("/sync/", **{"X-Request-ID": ID})
    assert named(found, "at work")["request"] == named(found, "more work")["request"] == ID
    assert named(found, "at work")["ticket"] == "7"
    assert "ticket" not in named(found, "more work")
    assert named(found, "more work")["job"] == "observe.tests.test_logs.order_more"


def test_a_job_that_no_request_ordered_has_an_id_that_it_keeps_when_it_is_tried_again():
    tried.clear()
    with lines() as found, worker():
        fails_once.send()
        order_more.send()
    first, second = (line["request"] for line in found if line["text"] == "trying")
    assert first == second
    assert named(found, "more work")["request"] != first


def test_an_outage_in_a_guarded_step_names_ticket_and_run(started):
    stopped, step = pytest.raises(Unavailable), actions.guarded(started.ticket, "a step", started.pk)
    with lines() as found, logs.about(job="x"), stopped, step:
        log.info("inside")
        raise Unavailable("away")
    assert named(found, "inside")["ticket"] == str(started.ticket_id)
    assert named(found, "inside")["run"] == str(started.pk)


# --- Sockets ----------------------------------------------------------------------------------------------------------
@pytest.mark.embedded  # it looks into the queue by Redis
def test_a_workers_socket_names_its_provider_and_hands_its_id_on_to_jobs(started):
    lease = leases(started)[0]
    key = ApiKey.issue(lease.provider.user)

    @async_to_sync
    async def talk() -> None:
        headers = [(b"authorization", f"Bearer {key}".encode()), (b"x-request-id", ID.encode())]
        line = WebsocketCommunicator(application, protocol.SOCKET_PATH, headers=headers)
        await line.connect()
        await line.send_to(text_data=protocol.encode(protocol.Hello("test", 1)))
        await line.receive_from(10)
        await line.receive_from(10)
        elsewhere = protocol.Lease(str(uuid4()), 1, 0, 1)
        await line.send_to(text_data=protocol.encode(protocol.Progress(elsewhere, 1, 2, 0.5)))
        await line.receive_from(10)
        await line.disconnect()

    with lines() as found:
        talk()
    refused = next(line for line in found if line["logger"] == "training.consumers")
    assert refused["provider"] == str(lease.provider.pk)
    assert refused["request"] == ID
    broker = dramatiq.get_broker()
    waiting = [dramatiq.Message.decode(raw) for raw in broker.client.hvals("dramatiq:default.msgs")]
    assert [m for m in waiting if m.actor_name.endswith("start_waiting") and m.options["request"] == ID]


def test_the_servers_own_lines_come_but_not_those_with_addresses():
    with lines() as found:
        logging.getLogger("uvicorn.error").info("Started")
        logging.getLogger("uvicorn.access").info("GET /tickets/files/a-signed-link")
    assert [line["text"] for line in found if line["logger"].startswith("uvicorn")] == ["Started"]


# --- Secrets ----------------------------------------------------------------------------------------------------------
@pytest.fixture
def secrets(monkeypatch, tmp_path):
    (tmp_path / "passphrase").write_text("open sesame 1001\n")
    given = {
        "SECRET_KEY": "the-secret-key-of-django",
        "CHAIN_RPC_URL": "https://node.example/v2/0123456789abcdefNODEKEY?token=QUERYTOKEN",
        "EMAIL_HOST_PASSWORD": 'pass"word-of-mail',
        "METRICS_TOKEN": "token-of-prometheus",
        "KEY_PASSPHRASE_FILE": str(tmp_path / "passphrase"),
    }
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    logs._secrets.cache_clear()
    yield
    logs._secrets.cache_clear()


@pytest.mark.parametrize("formatter", [logs.Json, logs.Line])
def test_no_line_holds_a_secret_of_this_process(secrets, formatter):
    texts = [
        "key the-secret-key-of-django",
        "Max retries exceeded with url: /v2/0123456789abcdefNODEKEY?token=QUERYTOKEN",
        'login with pass"word-of-mail',
        "token-of-prometheus",
        "open sesame 1001",
        "postgres://dml:hunter22@db.example/dml refused",
        "Bearer dml_0123456789abcdefghijklmnopqrstuvwxyz",
    ]
    try:
        raise ValueError(" ".join(texts))
    except ValueError:
        record = logging.getLogger("x").makeRecord("x", 40, "f", 1, "%s", (" ".join(texts),), sys.exc_info())
    shown = formatter().format(record)
    for word in (
        "secret-key",
        "NODEKEY",
        "QUERYTOKEN",
        "word-of-mail",
        "of-prometheus",
        "sesame",
        "hunter22",
        "dml_0123",
    ):
        assert word not in shown, word
    assert "db.example/dml refused" in shown and "Max retries" in shown
