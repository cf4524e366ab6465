"""Accounts and keys in the admin."""

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import Permission
from django.core import mail
from django.urls import reverse
from django.utils import timezone

from accounts.models import ApiKey, User
from dmlsite.tests.people import PASSWORD, admin_client, counted_afresh, person  # noqa: F401

pytestmark = pytest.mark.django_db
KEYS = reverse("admin:accounts_apikey_changelist")


def test_a_key_is_revoked_once_and_logged():
    client, user = admin_client(), person("worker")
    text = ApiKey.issue(user)
    key = ApiKey.objects.get()
    page = client.get(reverse("admin:accounts_apikey_change", args=[key.pk])).content.decode()
    assert "Revoke" in page and key.digest not in page
    client.post(KEYS, {"action": "revoke", "_selected_action": key.pk})
    assert not ApiKey.valid(text).exists()
    revoked = ApiKey.objects.get().revoked
    client.post(KEYS, {"action": "revoke", "_selected_action": key.pk})
    assert ApiKey.objects.get().revoked == revoked
    assert LogEntry.objects.count() == 1


def test_an_admin_who_may_only_look_revokes_nothing():
    client, user = admin_client(is_superuser=False), person("worker")
    User.objects.get(is_staff=True).user_permissions.add(Permission.objects.get(codename="view_apikey"))
    text = ApiKey.issue(user)
    assert client.get(KEYS).status_code == 200
    client.post(KEYS, {"action": "revoke", "_selected_action": ApiKey.objects.get().pk})
    assert ApiKey.valid(text).get().user == user


def test_a_user_made_by_an_admin_can_log_in_however_the_address_was_written(client):
    fields = {"email": "New@Example.org", "usable_password": "true", "password1": PASSWORD, "password2": PASSWORD}
    answer = admin_client().post(reverse("admin:accounts_user_add"), fields)
    assert answer.status_code == 302, answer.content.decode()
    assert client.login(username="new@example.org", password=PASSWORD)


def test_an_account_can_be_closed_and_not_deleted():
    client, user = admin_client(), person("ada", PASSWORD)
    assert client.post(reverse("admin:accounts_user_delete", args=[user.pk]), {"post": "yes"}).status_code == 403
    form = {"email": user.email}
    form |= {f"{rows}-{name}_FORMS": 0 for rows in ("wallets", "api_keys") for name in ("TOTAL", "INITIAL")}
    answer = client.post(reverse("admin:accounts_user_change", args=[user.pk]), form)
    assert answer.status_code == 302, answer.content.decode()
    user.refresh_from_db()
    assert not user.is_active
    assert user.check_password(PASSWORD)


@pytest.mark.usefixtures("inline_jobs")
def test_a_changed_address_is_to_be_confirmed_anew(django_capture_on_commit_callbacks):
    client, user = admin_client(), person("ada", confirmed=timezone.now())
    form = {"is_active": "on"} | {
        f"{rows}-{name}_FORMS": 0 for rows in ("wallets", "api_keys") for name in ("TOTAL", "INITIAL")
    }
    for email, mailed in (("ADA@example.org", 0), ("new@example.org", 1)):
        with django_capture_on_commit_callbacks(execute=True):
            answer = client.post(reverse("admin:accounts_user_change", args=[user.pk]), form | {"email": email})
        assert answer.status_code == 302, answer.content.decode()
        user.refresh_from_db()
        assert (len(mail.outbox), user.confirmed is None) == (mailed, bool(mailed))
    assert mail.outbox[0].to == ["new@example.org"] and "/confirm/" in mail.outbox[0].body


def test_a_lesser_admin_cannot_take_or_hand_out_rights():
    boss, user = person("boss", is_superuser=True, is_staff=True), person("ada")
    client = admin_client(is_superuser=False)
    me = User.objects.get(email="admin@example.org")
    me.user_permissions.add(*Permission.objects.filter(codename__in=["view_user", "change_user"]))
    fields = {"email": user.email, "is_active": "on", "is_staff": "on", "is_superuser": "on"}
    fields |= {f"api_keys-{name}_FORMS": 0 for name in ("TOTAL", "INITIAL")}
    client.post(reverse("admin:accounts_user_change", args=[user.pk]), fields)
    client.post(reverse("admin:accounts_user_change", args=[me.pk]), fields | {"email": me.email})
    assert not User.objects.filter(is_superuser=True).exclude(pk=boss.pk).exists()
    assert client.post(reverse("admin:auth_user_password_change", args=[boss.pk]), {}).status_code == 403


@pytest.mark.usefixtures("counted_afresh")
def test_guessing_at_the_admins_door_is_limited(client, settings):
    settings.LOGIN_RATE = "2/5m"
    guesses = [client.post(reverse("admin:login"), {"username": "a@example.org", "password": "x"}) for _ in range(3)]
    assert [guess.status_code for guess in guesses] == [200, 200, 429]
