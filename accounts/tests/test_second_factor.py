"""The second factor of admins."""

import re
from datetime import timedelta

import pytest
from django.test import Client
from django.urls import reverse
from django.utils import timezone
from django_otp.oath import TOTP
from django_otp.plugins.otp_static.models import StaticDevice
from django_otp.plugins.otp_totp.models import TOTPDevice

from dmlsite.tests.people import admin_client, counted_afresh, person  # noqa: F401

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("counted_afresh")]
INDEX, ASK, SETUP = reverse("admin:index"), reverse("accounts:second_factor"), reverse("accounts:second_factor_setup")


@pytest.fixture(autouse=True)
def demanded(settings):
    settings.ADMIN_TWO_FACTOR = True


def code(drift=0):
    """What the app shows; each code is good once, so the next one is of the next half minute."""
    device = TOTPDevice.objects.latest("pk")
    totp = TOTP(device.bin_key, device.step, device.t0, device.digits, drift)
    return f"{totp.token():06d}"


def again(user):
    client = Client()
    client.force_login(user)
    return client


@pytest.fixture
def armed():
    """An admin who has set it up: the user, and the recovery codes."""
    client = admin_client()
    client.get(SETUP)
    page = client.post(SETUP, {"code": code()}).content.decode()
    codes = re.findall(r"<li><code>(\w+)</code>", page)
    assert len(codes) == 10 and client.get(INDEX).status_code == 200
    return TOTPDevice.objects.get().user, codes


def test_an_admin_without_one_is_led_to_set_it_up():
    client = admin_client()
    answer = client.get(INDEX, follow=True)
    assert answer.redirect_chain[-1][0] == SETUP
    page = answer.content.decode()
    secret = re.search(r"<code>([A-Z2-7 ]+)</code>", page)[1].replace(" ", "")
    picture = client.get(reverse("accounts:second_factor_picture"))
    assert picture["Content-Type"] == "image/svg+xml" and picture.content.startswith(b"<svg xmlns")
    assert f"secret={secret}" in TOTPDevice.objects.get().config_url
    answer = client.post(SETUP, {"code": "000000"})
    assert answer.status_code == 422 and "does not fit" in answer.content.decode()
    assert not TOTPDevice.objects.filter(confirmed=True).exists()


def test_the_code_opens_the_admin_once(armed):
    user, _ = armed
    client = again(user)
    answer = client.get(reverse("admin:accounts_user_changelist"), follow=True)
    assert answer.redirect_chain[-1][0].startswith(ASK)
    there = answer.redirect_chain[-1][0]
    assert client.post(there, {"code": code(drift=1)}).url == reverse("admin:accounts_user_changelist")
    assert client.get(INDEX).status_code == 200
    assert again(user).post(ASK, {"code": code(drift=1)}).status_code == 422, "a code is good once"


def test_a_recovery_code_does_too_once(armed):
    user, codes = armed
    assert again(user).post(ASK, {"code": f" {codes[0].upper()} "}).url == INDEX
    assert "does not fit" in again(user).post(ASK, {"code": codes[0]}).content.decode()
    StaticDevice.objects.update(throttling_failure_timestamp=timezone.now() + timedelta(minutes=1))
    assert "wait a few seconds" in again(user).post(ASK, {"code": codes[1]}).content.decode()
    StaticDevice.objects.update(throttling_failure_timestamp=None)
    assert again(user).post(ASK, {"code": codes[1]}).status_code == 302


def test_wrong_codes_are_limited(armed, settings):
    settings.LOGIN_RATE = "3/5m"
    client = again(armed[0])
    codes = [client.post(ASK, {"code": "nonsense"}).status_code for _ in range(4)]
    assert codes == [422, 422, 422, 429]


def test_the_password_alone_neither_replaces_the_phone_nor_shows_its_secret(armed):
    client = again(armed[0])
    assert client.get(SETUP).url == ASK
    assert client.post(SETUP, {"code": code()}).url == ASK
    assert client.get(reverse("accounts:second_factor_picture")).status_code == 403


def test_nobody_is_sent_to_another_site(armed):
    answer = again(armed[0]).post(f"{ASK}?next=https://evil.example/", {"code": code(drift=1)})
    assert answer.url == INDEX


def test_a_superuser_removes_a_lost_one_and_nobody_else_does(armed):
    user, _ = armed
    client = again(user)
    client.post(ASK, {"code": code(drift=1)})
    action = {"action": "remove_second_factor", "_selected_action": user.pk}
    url = reverse("admin:accounts_user_changelist")
    user.is_superuser = False
    user.save()
    assert client.post(url, action).status_code == 403
    assert TOTPDevice.objects.exists()
    user.is_superuser = True
    user.save()
    client.post(url, action)
    assert not TOTPDevice.objects.exists()
    assert client.get(INDEX, follow=True).redirect_chain[-1][0] == SETUP


def test_where_it_is_not_demanded_who_has_one_shows_it_all_the_same(armed, settings):
    settings.ADMIN_TWO_FACTOR = False
    assert again(armed[0]).get(INDEX).status_code == 302
    assert again(person("other", is_staff=True)).get(INDEX).status_code == 200


def test_it_is_for_admins(client):
    client.force_login(person("customer"))
    assert client.get(SETUP).status_code == 403
    assert client.get(INDEX).status_code == 302
