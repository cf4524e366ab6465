"""Numbers: of what happens, of what lies in the database and the broker, and of several processes together."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from uuid import uuid4

import dramatiq
import httpx
import pytest
import yaml
from django.conf import settings as configured
from django.utils import timezone
from prometheus_client.mmap_dict import MmapedDict
from prometheus_client.parser import text_string_to_metric_families

from contracts.chain import Unavailable
from contracts.devchain import free_port
from dmlsite import jobs
from dmlsite.testing import database_url, finalize
from dmlsite.tests.rows import everything
from dmlworker.protocol import Lease, blob_path
from ledger import gateway, reconcile, watch
from ledger.alarms import Kind, alarm
from ledger.models import ChainTx, Reconciliation
from ledger.scanner import Scanner
from observe import metrics, readings
from observe.tests.observed import QUEUE, get, worker
from tickets.models import Status, TicketEvent
from training import actions
from training.consumers import lease_of
from training.models import Assignment, Round
from training.tests.conftest import leases, make_ticket

ROOT = Path(configured.BASE_DIR)


@jobs.actor(queue_name=QUEUE, retries=0)
def works() -> None:
    pass


@jobs.actor(queue_name=QUEUE, retries=0)
def fails() -> None:
    raise ValueError


def numbers(text: str) -> dict[tuple[str, frozenset], float]:
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def value(name: str, **labels: str) -> float:
    """As a scrape of this process has it; 0 if there is none."""
    return numbers(metrics.text(readings.Readings()).decode()).get((f"dml_{name}", frozenset(labels.items())), 0.0)


@contextmanager
def counted(name: str, by: float, **labels: str) -> Iterator[None]:
    before = value(name, **labels)
    yield
    assert value(name, **labels) - before == by


# --- Counted where it happens -----------------------------------------------------------------------------------------
@pytest.mark.django_db(transaction=True)
def test_requests_are_counted_by_view_and_status():
    with (
        counted("http_request_seconds_count", 2, view="accounts:login", status="200"),
        counted("http_request_seconds_count", 1, view="other", status="404"),
        counted("http_request_seconds_count", 1, view="blob", status="404"),
    ):
        get("/accounts/login/"), get("/accounts/login/"), get("/nowhere/"), get(blob_path("x"))


@pytest.mark.django_db(transaction=True)
def test_jobs_are_counted_by_what_became_of_them():
    name = f"{__name__}."
    with (
        counted("jobs_total", 1, job=f"{name}works", outcome="done"),
        counted("jobs_total", 1, job=f"{name}fails", outcome="failed"),
        counted("job_seconds_count", 1, job=f"{name}works"),
        counted("job_wait_seconds_count", 2, queue=QUEUE),
        worker(),
    ):
        works.send(), fails.send()


def test_a_lease_is_counted_from_its_offer_to_its_end(run, started):
    first, second = leases(started)
    with counted("leases_total", 1, outcome="accepted"):
        actions.accept(first.provider, lease_of(first), "a channel")
    with counted("leases_total", 1, outcome="declined"), counted("leases_total", 1, outcome="offered"):
        actions.decline(second.provider, lease_of(second), "no room")
    Assignment.objects.filter(pk=first.pk).update(deadline=timezone.now() - timedelta(seconds=1))
    with counted("leases_total", 1, outcome="expired"):
        actions.reassign_overdue()


def test_a_lease_that_is_not_there_counts_nothing(started):
    first = leases(started)[0]
    with counted("leases_total", 0, outcome="accepted"):
        actions.accept(first.provider, Lease(str(started.pk), 9, 0, 1), "a channel")


def test_a_round_is_counted_with_its_time_once(started):
    round_ = Round.objects.get(run=started)
    Round.objects.filter(pk=round_.pk).update(opened=timezone.now() - timedelta(seconds=40))
    round_.refresh_from_db()
    with (
        counted("rounds_total", 1, outcome="full"),
        counted("round_seconds_count", 1),
        counted("round_seconds_bucket", 1, le="60.0"),
        counted("round_seconds_bucket", 0, le="15.0"),
    ):
        for _ in range(2):
            actions.finish_round(round_, list(round_.assignments.all()), started.start, None)


@pytest.mark.django_db(transaction=True)
def test_questions_to_the_node_are_counted_by_how_they_ended(chain, settings):
    with counted("rpc_seconds_count", 1, method="eth_getBlockByNumber", outcome="ok"):
        chain.finalized()
    with counted("rpc_seconds_count", 1, method="eth_getBlockByNumber", outcome="failed"), pytest.raises(Unavailable):
        chain.w3.provider.endpoint_uri = "http://127.0.0.1:1"
        chain.finalized()


@pytest.mark.django_db(transaction=True)
def test_the_hot_keys_coins_are_told_when_they_are_looked_at(chain):
    watch.gas(chain)
    settler = chain.native_balance(gateway.key("settler").address)
    assert value("wallet_coins", role="settler") == pytest.approx(settler / 10**9)
    assert value("wallet_transactions", role="settler") == settler // watch.FIRST_FEE_GWEI


# --- Read at the scrape -----------------------------------------------------------------------------------------------
@pytest.mark.django_db(transaction=True)
def test_tickets_are_counted_and_the_one_that_waits_longest_is_known():
    for hours in (1, 3):
        ticket = make_ticket(Status.PAID)
        TicketEvent.objects.create(ticket=ticket, kind="moved", old="quoted", new="paid")
        ticket.events.update(at=timezone.now() - timedelta(hours=hours))
    left = make_ticket(Status.TRAINING)  # what it was before does not count
    TicketEvent.objects.create(ticket=left, kind="moved", old="quoted", new="paid")
    left.events.update(at=timezone.now() - timedelta(hours=9))
    assert (value("tickets", status="paid"), value("tickets", status="refunded")) == (2, 0)
    assert value("ticket_oldest_seconds", status="paid") == pytest.approx(3 * 3600, abs=60)


def test_what_trains_now(started):
    assert value("runs", state="training") == 1
    assert value("open_leases", state="offered") == 2
    assert (value("workers"), value("providers_online")) == (2, 2)


@pytest.mark.django_db(transaction=True)
def test_what_the_outbox_owes_is_as_old_as_it_has_been_due():
    now = timezone.now()
    ChainTx.objects.create(key="later", verb="executeBan", not_before=now + timedelta(days=1))
    ChainTx.objects.create(key="due", verb="executeBan", not_before=now - timedelta(hours=1))
    ChainTx.objects.create(key="new", verb="settle", state=ChainTx.State.SENT)
    ChainTx.objects.create(key="done", verb="settle", state=ChainTx.State.FINAL)
    assert (value("outbox_transactions", state="ready"), value("outbox_transactions", state="sent")) == (1, 1)
    assert value("outbox_oldest_seconds") == pytest.approx(3600, abs=60)


@pytest.mark.django_db(transaction=True)
def test_books_that_differ_and_open_alarms_are_told(chain):
    finalize(chain)
    Scanner(chain).scan()
    reconcile.reconcile(chain)
    assert value("reconciliation_difference", currency="DML") == 0
    rows = [
        {"name": "a", "currency": "DML", "left": 5, "right": 7},
        {"name": "b", "currency": "DML", "left": 9, "right": 8},
    ]
    Reconciliation.objects.create(block=1, balanced=False, rows=rows)
    alarm(Kind.BOOKS_DIFFER, "x")
    assert value("reconciliation_difference", currency="DML") == 3
    assert value("alarms_open", kind="books differ") == 1
    assert value("chain_scanned_block") > 0


@pytest.fixture
def waiting(monkeypatch):
    """Jobs in a queue: one for two minutes, one just now, one that is due in a minute."""
    monkeypatch.setattr(readings, "QUEUES", (QUEUE,))
    broker = dramatiq.get_broker()
    broker.declare_queue(QUEUE)
    broker.flush(QUEUE)
    broker.enqueue(works.message().copy(message_timestamp=int((time.time() - 120) * 1000)))
    works.send(), works.send_with_options(delay=60_000)


@pytest.mark.django_db(transaction=True)
def test_a_queue_tells_how_much_waits(waiting):
    assert value("queue_messages", queue=QUEUE, state="ready") == 2
    assert value("queue_messages", queue=QUEUE, state="delayed") == 1
    dramatiq.get_broker().flush(QUEUE)
    assert value("queue_messages", queue=QUEUE, state="ready") == 0


@pytest.mark.embedded  # RabbitMQ can't be asked
@pytest.mark.django_db(transaction=True)
def test_a_queue_tells_how_long(waiting):
    assert value("queue_oldest_seconds", queue=QUEUE) == pytest.approx(120, abs=30)


@pytest.mark.django_db(transaction=True)
def test_a_part_that_cannot_be_read_is_told_and_the_others_are_read(monkeypatch):
    from dramatiq.brokers.redis import RedisBroker

    monkeypatch.setattr(readings.dramatiq, "get_broker", lambda: RedisBroker(url="redis://127.0.0.1:1/0"))
    assert value("reading_failed", part="queues") == 1
    assert value("reading_failed", part="tickets") == 0


@pytest.mark.django_db(transaction=True)
def test_a_scrape_asks_little_and_the_next_one_nothing(django_assert_max_num_queries, django_assert_num_queries):
    everything()
    collector = readings.Readings()
    with django_assert_max_num_queries(12):
        text = metrics.text(collector).decode()
    assert len(re.findall(r"dml_reading_failed.* 0.0", text)) == len(readings.PARTS)
    with django_assert_num_queries(0):
        metrics.text(collector)


# --- Real processes ---------------------------------------------------------------------------------------------------
def environment(**more: str) -> dict[str, str]:
    """For a process of its own on the tests' database, which has no chain."""
    return os.environ | {
        "DATABASE_URL": database_url(),
        "CHAIN_RPC_URL": "http://127.0.0.1:1",
        "PYTHONUNBUFFERED": "1",
        **more,
    }


@contextmanager
def process(log: Path, *command: str, **env: str) -> Iterator[None]:
    with log.open("wb") as out:
        running = subprocess.Popen(
            [sys.executable, *command], cwd=ROOT, env=environment(**env), stdout=out, stderr=out, start_new_session=True
        )
    try:
        yield
    except BaseException:
        print(log.read_text()[-3000:])
        raise
    finally:
        os.killpg(running.pid, signal.SIGKILL)
        running.wait()


def scraped(port: int, until: str, token: str = "", path: str = "/metrics") -> str:
    """What is answered there, as soon as `until` is in it."""
    end = time.monotonic() + 180
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    while time.monotonic() < end:
        try:
            text = httpx.get(f"http://127.0.0.1:{port}{path}", headers=headers, timeout=30).text
        except httpx.HTTPError:
            text = ""
        if until in text:
            return text
        time.sleep(0.3)
    raise AssertionError(f"{until} did not come:\n{text[-2000:]}")


@pytest.mark.django_db(transaction=True)
def test_two_job_processes_answer_as_one_and_only_to_the_token(tmp_path):
    """Dramatiq's processes are forked; whichever has the port tells the numbers of both."""
    broker, port = dramatiq.get_broker(), free_port()
    broker.flush("default")
    env, folder = (
        {"METRICS_PORT": str(port), "METRICS_TOKEN": "a-token"},
        Path(f"/tmp/dml-metrics-{os.getuid()}-{port}"),
    )
    command = ("manage.py", "rundramatiq", "--queues", "default", "--processes", "2", "--threads", "1")
    with process(tmp_path / "jobs.log", *command, **env):
        sent = 0
        while len(busy(folder)) < 2:
            jobs.enqueue("ledger.tasks.send", str(uuid4()))  # of nothing
            sent += 1
            time.sleep(0.1)
        done = f'dml_jobs_total{{job="ledger.tasks.send",outcome="done"}} {float(sent)}'
        text = scraped(port, done, "a-token")
        assert "dml_tickets" not in text  # the web's
        assert httpx.get(f"http://127.0.0.1:{port}/metrics").status_code == 403
    assert numbers(text)[("dml_job_wait_seconds_count", frozenset({("queue", "default")}))] == sent


def busy(folder: Path) -> list[Path]:
    """Files of processes that have done jobs."""
    found = folder.glob("counter_*.db")
    return [
        file
        for file in found
        if any(n for key, n, *_ in MmapedDict.read_all_values_from_file(str(file)) if "dml_jobs" in key)
    ]


@pytest.fixture(scope="module")
def web_scrape(django_db_setup, django_db_blocker, tmp_path_factory) -> str:
    """All that a real web process tells."""
    port = free_port()
    with django_db_blocker.unblock():
        server = ("-m", "uvicorn", "dmlsite.asgi:application", "--port", str(port), "--no-access-log")
        with process(tmp_path_factory.mktemp("web") / "web.log", *server):
            scraped(port, '{"status": "ok"}', path="/healthz")
            return scraped(port, "dml_workers")


FUNCTIONS = {"histogram_quantile", "humanizeDuration"}
NAMED = re.compile(r"\bdml_\w+")
LABELS = re.compile(r"\b(dml_\w+)\{([^}]*)\}")
GROUPED = re.compile(r"\bby \(([^)]*)\) \((?:rate|increase)?\(?(dml_\w+)")


def expressions() -> list[str]:
    """Of all that Prometheus and Grafana are told to ask."""
    rules = yaml.safe_load((ROOT / "deploy/prometheus/alerts.yml").read_text())
    alerts = [rule["expr"] for group in rules["groups"] for rule in group["rules"]]
    board = json.loads((ROOT / "deploy/grafana/dml.json").read_text())
    return alerts + [target["expr"] for panel in board["panels"] for target in panel.get("targets", ())]


def test_whatever_dashboard_and_alerts_name_is_in_a_scrape_of_the_real_process(web_scrape):
    families = {family.name: family for family in text_string_to_metric_families(web_scrape)}
    known = set(families) | {f"{name}_total" for name, found in families.items() if found.type == "counter"}
    for name, found in families.items():
        if found.type == "histogram":
            known |= {f"{name}_{part}" for part in ("bucket", "sum", "count")}
    named = {name for text in expressions() for name in NAMED.findall(text)}
    assert len(named) > 20
    assert named <= known, named - known


def test_the_labels_that_they_ask_by_are_those_of_the_metrics():
    ours = {f"dml_{name}": set(labels) for name, (_, labels) in readings.TOLD.items()}
    ours |= {
        f"dml_{made._name.removeprefix('dml_')}": set(made._labelnames) for made in metrics.REGISTRY._collector_to_names
    }
    base = re.compile(r"_(total|bucket|sum|count)$")
    asked = [
        (name, re.findall(r"(\w+)[=!]~?", labels)) for text in expressions() for name, labels in LABELS.findall(text)
    ]
    asked += [(name, labels.split(", ")) for text in expressions() for labels, name in GROUPED.findall(text)]
    assert len(asked) > 20
    for name, labels in asked:
        known = ours[name if name in ours else base.sub("", name)] | {"le"}
        assert set(labels) <= known, (name, labels)


def test_every_metric_is_told_of_in_the_docs_and_no_other(web_scrape):
    told = set(NAMED.findall((ROOT / "docs/observing.md").read_text()))
    families = [family for family in text_string_to_metric_families(web_scrape) if family.name.startswith("dml_")]
    assert told == {f"{f.name}_total" if f.type == "counter" else f.name for f in families}
