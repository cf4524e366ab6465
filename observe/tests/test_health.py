"""/healthz, /readyz, /metrics and the signs of life: what is said when a part is away, and to whom."""

import json
import threading
import time

import dramatiq
import pytest
from django.core.management import CommandError, call_command
from django.db import connection
from django.db.migrations.recorder import MigrationRecorder

from ledger.alarms import Kind, alarm
from observe import alive, health
from observe.health import Part, Watch
from observe.tests.observed import QUEUE, get, worker


@pytest.fixture
def ready(monkeypatch):
    """As at the start of a process."""
    monkeypatch.setattr(health, "ready", Watch(health.PARTS))


def state() -> dict:
    return json.loads(get("/readyz").content)


# --- Ready ------------------------------------------------------------------------------------------------------------
def test_healthz_asks_nobody(settings):
    """Not the database, which this test has none of, and no setting for pages."""
    settings.ALLOWED_HOSTS = []
    settings.SECURE_SSL_REDIRECT = True
    answer = get("/healthz", Host="10.1.2.3:8000")
    assert answer.status_code == 200 and answer.json() == {"status": "ok"}


@pytest.mark.django_db(transaction=True)
def test_all_parts_answer(ready, chain, files):
    answer = get("/readyz")
    assert answer.status_code == 200, answer.text
    assert answer.json()["status"] == "ok"
    assert {name: part["ok"] for name, part in answer.json()["parts"].items()} == dict.fromkeys(health.PARTS, True)
    assert answer.json()["parts"]["chain"]["age_seconds"] >= 0
    assert "x-request-id" not in answer.headers  # who watches is not counted


@pytest.mark.django_db(transaction=True)
def test_a_chain_that_is_away_only_degrades(ready, files):
    answer = get("/readyz")
    assert answer.status_code == 200 and answer.json()["status"] == "degraded"
    assert not answer.json()["parts"]["chain"]["ok"]


@pytest.mark.django_db(transaction=True)
def test_a_chain_that_stands_still_degrades(ready, chain, files):
    alarm(Kind.FINALITY_STILL, "block 7")
    assert state()["status"] == "degraded"


@pytest.mark.django_db(transaction=True)
def test_a_migration_that_is_missing_makes_it_unready(ready, chain, files):
    missing = MigrationRecorder(connection).migration_qs.filter(app="tickets").latest("pk")
    missing.delete()
    try:
        answer = get("/readyz")
    finally:
        MigrationRecorder(connection).record_applied(missing.app, missing.name)
    assert answer.status_code == 503 and answer.json()["parts"]["migrations"]["error"] == "1 not applied"


@pytest.mark.embedded  # it takes the disk away
@pytest.mark.django_db(transaction=True)
def test_redis_or_a_storage_that_is_away_makes_it_unready_and_no_address_is_told(ready, chain, settings):
    settings.REDIS_URL = "redis://:secret@127.0.0.1:1/0"
    settings.MEDIA_ROOT = "/proc/nowhere"
    answer = get("/readyz")
    assert answer.status_code == 503
    wrong = {name for name, part in answer.json()["parts"].items() if not part["ok"]}
    assert wrong == {"redis", "storage"}
    assert "127.0.0.1" not in answer.text and "secret" not in answer.text


def test_a_broker_that_is_away_makes_it_unready(monkeypatch):
    from dramatiq.brokers.redis import RedisBroker

    away = RedisBroker(url="redis://127.0.0.1:1/0")
    old = dramatiq.get_broker()
    dramatiq.set_broker(away)
    try:
        told = Watch({"broker": health.PARTS["broker"]})()
    finally:
        dramatiq.set_broker(old)
    assert told["status"] == "unready" and told["parts"]["broker"]["error"] == "ConnectionError"


def test_a_part_that_hangs_is_not_waited_for_and_not_asked_twice():
    asked, over = [], threading.Event()

    def hangs() -> None:
        asked.append(True)
        over.wait(30)

    watch = Watch({"slow": Part(hangs), "quick": Part(lambda: None)})
    started = time.monotonic()
    first = watch()
    assert time.monotonic() - started < health.SECONDS + 1
    assert first["status"] == "unready" and first["parts"]["quick"]["ok"]
    watch._told = (-health.FRESH, {})
    watch()
    over.set()
    assert len(asked) == 1


def test_who_asks_all_the_time_is_given_the_same_answer():
    asked = []
    watch = Watch({"part": Part(lambda: asked.append(True))})
    assert [watch()["status"] for _ in range(5)] == ["ok"] * 5
    assert len(asked) == 1


# --- Who may see the numbers ------------------------------------------------------------------------------------------
@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(
    ("token", "client", "headers", "status"),
    [
        ("", ("127.0.0.1", 1), {}, 200),
        ("", ("::1", 1), {}, 200),
        ("", ("10.1.2.3", 1), {}, 403),
        ("", None, {}, 403),
        ("", ("127.0.0.1", 1), {"X-Forwarded-For": "127.0.0.1"}, 403),
        ("", ("127.0.0.1", 1), {"X-Forwarded-Proto": "https"}, 403),
        ("", ("127.0.0.1", 1), {"Forwarded": "for=127.0.0.1"}, 403),
        ("", ("10.1.2.3", 1), {"Authorization": "Bearer "}, 403),
        ("a-long-token", ("10.1.2.3", 1), {"Authorization": "Bearer a-long-token"}, 200),
        ("a-long-token", ("127.0.0.1", 1), {}, 403),
        ("a-long-token", ("10.1.2.3", 1), {"Authorization": "Bearer a-long-toke"}, 403),
        ("a-long-token", ("10.1.2.3", 1), {"Authorization": "a-long-token"}, 403),
    ],
)
def test_numbers_are_for_the_token_or_where_there_is_none_for_the_machine_itself(
    settings, token, client, headers, status
):
    settings.METRICS_TOKEN = token
    answer = get("/metrics", client, **headers)
    assert answer.status_code == status
    assert ("dml_tickets" in answer.text) == (status == 200)


# --- Signs of life ----------------------------------------------------------------------------------------------------
def test_a_worker_gives_signs_of_life_for_its_queue(settings, tmp_path, monkeypatch):
    monkeypatch.setattr(alive, "_folder", lambda: tmp_path)
    assert alive.last(QUEUE) == float("inf")
    with worker():
        end = time.monotonic() + 10
        while alive.last(QUEUE) > 1 and time.monotonic() < end:
            time.sleep(0.05)
    assert alive.last(QUEUE) < 30


def test_the_healthcheck_fails_when_there_is_no_sign_or_an_old_one(tmp_path, monkeypatch):
    monkeypatch.setattr(alive, "_folder", lambda: tmp_path)
    with pytest.raises(CommandError, match="jobs: no sign of life"):
        call_command("healthcheck", "jobs")
    alive.sign("default")
    call_command("healthcheck", "jobs")
    monkeypatch.setattr(alive, "SECONDS", -1.0)
    with pytest.raises(CommandError, match="jobs: no sign of life"):
        call_command("healthcheck", "jobs")
