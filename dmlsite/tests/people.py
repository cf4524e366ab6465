"""Who uses the site in tests: a customer, a provider, an outsider, somebody without an account, an admin."""

from typing import Any

import pytest
from django.test import Client
from django_otp import DEVICE_ID_SESSION_KEY
from django_otp.plugins.otp_totp.models import TOTPDevice
from rest_framework.authtoken.models import Token
from rest_framework.test import APIClient

from accounts.models import User

PASSWORD = "correct-horse-42"


def person(name: str, password: str | None = None, **fields: Any) -> User:
    """An account; without a password, since hashing one is meant to be slow, and few tests log in."""
    return User.objects.create_user(f"{name}@example.org", password, **fields)


def api(user: User | None = None) -> APIClient:
    """A client that shows the user's token; without a user an anonymous one."""
    client = APIClient()
    if user:
        client.credentials(HTTP_AUTHORIZATION=f"Token {Token.objects.get_or_create(user=user)[0].key}")
    return client


def admin_client(**fields: Any) -> Client:
    """A logged-in superuser, or a lesser admin by `is_superuser=False`."""
    client = Client()
    client.force_login(person("admin", is_staff=True, **({"is_superuser": True} | fields)))
    return client


def verified(client: Client, admin: User) -> None:
    """This session has shown the admin's second factor."""
    device = TOTPDevice.objects.get_or_create(user=admin, name="app")[0]
    session = client.session
    session[DEVICE_ID_SESSION_KEY] = device.persistent_id
    session.save()


def problem(answer: Any, status: int) -> dict[str, Any]:
    """Make sure that an answer is a problem document of this status."""
    assert answer.status_code == status, answer.content
    assert answer["Content-Type"] == "application/problem+json"
    body = answer.json()
    assert body["status"] == status
    assert body["title"] and isinstance(body["detail"], str)
    return body


@pytest.fixture
def counted_afresh(settings: Any, request: pytest.FixtureRequest) -> None:
    """Rate limits start at zero: a cache for this test alone."""
    backend = "django.core.cache.backends.locmem.LocMemCache"
    settings.CACHES = {"default": {"BACKEND": backend, "LOCATION": request.node.nodeid}}
