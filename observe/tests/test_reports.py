"""Errors reach the admins: once, not often, and without what is about people."""

import gzip
import json
import logging
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
import sentry_sdk
from django.core import mail
from django.core.cache import cache
from django.http import HttpResponse
from django.urls import path

from dmlsite import jobs
from observe import logs, reports
from observe.tests.observed import QUEUE, get, worker

log = logging.getLogger(__name__)
ADDRESS = "@".join(["someone", "people.example"])  # the lines around an error are sent, too
KEY = "_".join(["dml", "0123456789abcdefghijklmnop"])


def breaks(request):
    raise RuntimeError(f"{ADDRESS} did not work, key {KEY}")


def unavailable(request):
    return HttpResponse("later", status=503)


urlpatterns = [path("breaks/", breaks), path("later/", unavailable)]


@jobs.actor(queue_name=QUEUE, retries=1, min_backoff=1)
def always_fails(ticket: str) -> None:
    raise ValueError(ADDRESS)


@jobs.actor(queue_name=QUEUE, retries=1, min_backoff=1)
def recovers() -> None:
    if not cache.add("recovers", 1, 60):
        return
    raise ValueError("only the first time")


@pytest.fixture(autouse=True)
def fresh(settings):
    settings.ROOT_URLCONF, settings.ERROR_MAILS_PER_HOUR = __name__, 20
    cache.clear()
    reports._last_alone[0] = float("-inf")


def told() -> list[mail.EmailMessage]:
    """The mails to the admins, when all that was to be sent is out."""
    reports._sender.submit(lambda: None).result(10)
    return mail.outbox


def test_a_500_is_mailed_with_its_ids_and_its_place_and_nothing_about_people():
    answer = get("/breaks/?name=someone")
    (sent,) = told()
    assert answer.status_code == 500
    assert sent.to == ["admin@dml.example"] and "RuntimeError" in sent.subject
    assert f"request: {answer.headers['x-request-id']}" in sent.body
    assert "observe/tests/test_reports.py" in sent.body and "breaks" in sent.body
    for secret in (ADDRESS, KEY, "someone"):
        assert secret not in sent.body + sent.subject


def test_an_outage_that_is_answered_as_one_is_not_mailed():
    assert get("/later/").status_code == 503
    assert not told()


def test_the_same_error_is_mailed_once_and_another_by_itself(settings):
    for _ in range(3):
        get("/breaks/")
    log.error("something else: %s", 1)
    log.error("something else: %s", 2)
    assert len(told()) == 2


def test_it_is_mailed_again_when_the_time_is_over(settings):
    get("/breaks/")
    told()
    (key,) = cache._cache.get_client().keys("*reports:????????????????????????????????")
    assert cache._cache.get_client().ttl(key) in range(
        settings.ERROR_MAIL_MINUTES * 60 - 10, settings.ERROR_MAIL_MINUTES * 60 + 1
    )
    cache._cache.get_client().delete(key)
    get("/breaks/")
    assert len(told()) == 2


def test_there_is_a_bound_for_each_hour(settings):
    settings.ERROR_MAILS_PER_HOUR = 3
    for number in range(6):
        reports.tell(f"error {number}", None)
    assert len(told()) == 3


def test_without_redis_each_process_tells_once(settings):
    settings.CACHES = {
        "default": {"BACKEND": "django.core.cache.backends.redis.RedisCache", "LOCATION": "redis://127.0.0.1:1"}
    }
    for number in range(4):
        reports.tell(f"error {number}", None)
    assert len(told()) == 1


def test_a_mail_server_that_fails_is_logged_and_ends_nothing(settings, caplog):
    settings.EMAIL_BACKEND = "django.core.mail.backends.smtp.EmailBackend"
    settings.EMAIL_HOST, settings.EMAIL_PORT = "127.0.0.1", 1
    reports.tell("an error", None)
    told()
    assert "the admins could not be told" in caplog.text


def test_a_job_that_failed_for_good_is_mailed_once_one_that_recovers_is_not():
    with worker():
        always_fails.send("17")
        recovers.send()
    (sent,) = told()
    assert "ValueError: job observe.tests.test_reports.always_fails" in sent.subject
    assert "ticket: 17" in sent.body and ADDRESS not in sent.body


def test_an_alarm_is_told_by_its_own_mail_alone():
    logging.getLogger("ledger.alarms").error("alarm: %s: %s", "x", "y")
    assert not told()


# --- Sentry -----------------------------------------------------------------------------------------------------------
@pytest.fixture
def sentry():
    """A server that takes what the SDK sends, and the SDK set up to send there."""
    got: list[bytes] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            got.append(gzip.decompress(body) if self.headers["Content-Encoding"] == "gzip" else body)
            self.send_response(200)
            self.end_headers()

        def log_message(self, *args: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    reports.start_sentry(f"http://public@127.0.0.1:{server.server_port}/1")
    yield got
    sentry_sdk.init()
    server.shutdown()


def test_sentry_is_told_the_place_and_nothing_about_people(sentry):
    with logs.about(ticket="17"):
        try:
            local = ADDRESS[::-1]  # noqa: F841
            breaks(None)
        except RuntimeError:
            log.exception("of %s", ADDRESS)
    sentry_sdk.flush(10)
    events = [json.loads(line) for body in sentry for line in body.splitlines() if b'"exception"' in line]
    text = json.dumps(events)
    assert events and "RuntimeError" in text and "test_reports.py" in text and '"ticket": "17"' in text
    for secret in (ADDRESS, KEY, ADDRESS[::-1]):
        assert secret not in text


def test_without_a_dsn_the_sdk_is_not_even_imported():
    check = "import django; django.setup(); import sys; sys.exit('sentry_sdk' in sys.modules)"
    env = {name: value for name, value in os.environ.items() if name != "SENTRY_DSN"}
    assert (
        subprocess.run(
            [sys.executable, "-c", check], env=env | {"DJANGO_SETTINGS_MODULE": "dmlsite.settings"}
        ).returncode
        == 0
    )
