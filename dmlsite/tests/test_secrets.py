"""What is secret is in no log, mail, error report or page: the main flows with marked secrets. And production's settings are what Django
asks of them."""

import json
import logging
import os
import subprocess
import sys
from io import StringIO

import pytest
import requests
from django.conf import settings as site
from django.core import mail
from django.core.cache import cache
from django.test import Client
from django.utils.log import AdminEmailHandler

from contracts.node import _public
from dmlsite.tests.people import api

MARK = "marked-secret-5e1f"
PASSWORD = f"{MARK}-Password-1"


@pytest.fixture
def written(monkeypatch):
    """All that is logged meanwhile, at the finest level, error reports to the admins among it."""
    text, root = StringIO(), logging.getLogger()
    handlers = [logging.StreamHandler(text), AdminEmailHandler()]
    handlers[1].setLevel(logging.ERROR)
    for handler in handlers:
        root.addHandler(handler)
    level = root.level
    root.setLevel(logging.DEBUG)
    yield text
    root.setLevel(level)
    for handler in handlers:
        root.removeHandler(handler)


def mails() -> str:
    return "\n".join(
        f"{each.subject}\n{each.body}\n{each.alternatives if hasattr(each, 'alternatives') else ''}"
        for each in mail.outbox
    )


@pytest.mark.django_db(transaction=True)
def test_passwords_tokens_and_keys_are_nowhere(written, inline_jobs):
    cache.clear()
    page, program = Client(), api()
    form = {"email": "ada@example.org", "password": PASSWORD, "confirm": PASSWORD, "kind": "customer"}
    assert page.post("/accounts/register/", form).status_code == 302
    ada = {"email": "ada@example.org", "password": PASSWORD}
    token = program.post("/api/v1/login", ada).json()["token"]
    program.post("/api/v1/login", ada | {"password": MARK + "wrong"})
    Client().post("/accounts/login/", {"username": "ada@example.org", "password": MARK + "wrong"})
    Client().post("/accounts/login/", {"username": "ada@example.org", "password": PASSWORD})
    page.post("/accounts/password/", {"old_password": MARK, "new_password1": MARK, "new_password2": MARK})
    program.credentials(HTTP_AUTHORIZATION=f"Token {token}")
    key = program.post("/api/v1/keys").json()["key"]
    program.credentials(HTTP_AUTHORIZATION=f"Bearer {key}")
    program.get("/api/v1/tickets"), program.post("/api/v1/keys")
    said = written.getvalue() + mails()
    for secret in (MARK, token, key, page.cookies["sessionid"].value, site.SECRET_KEY):
        assert secret not in said
    assert "confirm" in said, "the mails were looked at"


@pytest.mark.django_db
@pytest.mark.parametrize("kind", ["application/json", "application/x-www-form-urlencoded", "multipart/form-data"])
def test_nor_when_a_page_breaks(written, monkeypatch, kind, settings):
    settings.ADMINS = [("admin", "admin@example.org")]
    cache.clear()

    def broken(*args, **kwargs):
        raise RuntimeError("on purpose")

    monkeypatch.setattr("accounts.api.authenticate", broken)
    monkeypatch.setattr("accounts.actions.validate_password", broken)
    client = Client(raise_request_exception=False)
    form = {"email": "a@b.org", "password": PASSWORD, "kind": "customer", "confirm": PASSWORD}
    for path in ("/api/v1/login", "/api/v1/register", "/accounts/register/"):
        headers = {"Authorization": f"Bearer {MARK}", "Cookie": f"sessionid={MARK}"}
        sent = {"data": form} if kind.startswith("multipart") else {"data": json.dumps(form), "content_type": kind}
        if kind.endswith("urlencoded"):
            sent["data"] = "&".join(f"{name}={value}" for name, value in form.items())
        if path.startswith("/accounts") and kind == "application/json":
            continue
        assert client.post(path, headers=headers, **sent).status_code == 500, path
    assert mail.outbox and "on purpose" in mails()
    assert MARK not in written.getvalue() + mails()


def test_the_key_in_a_nodes_address_is_not_told():
    with pytest.raises(requests.ConnectionError) as caught:
        requests.get(f"http://127.0.0.1:1/v3/{MARK}?key={MARK}", timeout=1)
    assert MARK in str(caught.value) and MARK not in _public(caught.value)
    odd = ValueError(f"404 Client Error for url: https://user:{MARK}@node.example.org/v3/{MARK}")
    assert _public(odd) == "404 Client Error for url: https://node.example.org"


PRODUCTION = {
    "DML_ENV": "production",
    "SECRET_KEY": "0123456789-abcdefghij-ABCDEFGHIJ-0123456789-abcdefghij-KLMNOP",
    "SITE_URL": "https://dml.example.org",
    "ALLOWED_HOSTS": "dml.example.org",
    "DATABASE_URL": "postgres://dml@db/dml",
    "REDIS_URL": "redis://redis:6379/0",
}


def checked(**changes: str) -> subprocess.CompletedProcess[str]:
    names = {name: value for name, value in os.environ.items() if name in ("PATH", "HOME", "DML_VAR_DIR")}
    command = [sys.executable, "manage.py", "check", "--deploy", "--fail-level", "INFO"]
    return subprocess.run(command, cwd=site.BASE_DIR, env=names | PRODUCTION | changes, capture_output=True, text=True)


def test_djangos_check_of_a_deployment_finds_nothing():
    done = checked()
    assert done.returncode == 0, done.stderr
    assert checked(SECRET_KEY="short").returncode != 0, "it does look"


@pytest.mark.parametrize("name", ["SECRET_KEY"])
def test_production_does_not_start_without_its_secrets(name):
    done = checked(**{name: ""})
    assert done.returncode != 0 and name in done.stderr


def test_production_has_no_page_for_developers():
    lines = "import django; django.setup(); from django.urls import resolve; resolve('/dev/mail/')"
    names = {name: value for name, value in os.environ.items() if name in ("PATH", "HOME", "DML_VAR_DIR")}
    done = subprocess.run(
        [sys.executable, "-c", lines],
        cwd=site.BASE_DIR,
        env=names | PRODUCTION | {"DJANGO_SETTINGS_MODULE": "dmlsite.settings"},
        capture_output=True,
        text=True,
    )
    assert "Resolver404" in done.stderr


def test_cookies_of_production_are_of_this_very_host():
    lines = "from django.conf import settings as s; print(s.SESSION_COOKIE_NAME, s.CSRF_COOKIE_NAME, s.SESSION_COOKIE_SECURE)"
    names = {name: value for name, value in os.environ.items() if name in ("PATH", "HOME", "DML_VAR_DIR")}
    env = names | PRODUCTION | {"DJANGO_SETTINGS_MODULE": "dmlsite.settings"}
    done = subprocess.run([sys.executable, "-c", lines], cwd=site.BASE_DIR, env=env, capture_output=True, text=True)
    assert done.stdout.split() == ["__Host-sessionid", "__Host-csrftoken", "True"], done.stderr
