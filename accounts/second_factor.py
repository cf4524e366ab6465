"""The second factor of admins: a code from an app (TOTP, RFC 6238), or one of ten recovery codes. The codes are django-otp's business."""

from collections.abc import Sequence
from typing import cast

import segno
from django import forms
from django.conf import settings
from django.contrib.auth.decorators import login_required
from django.contrib.auth.models import AnonymousUser
from django.contrib.sessions.backends.base import SessionBase
from django.db import transaction
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.utils.http import url_has_allowed_host_and_scheme
from django.views.decorators.cache import never_cache
from django_otp import DEVICE_ID_SESSION_KEY, devices_for_user, user_has_device, verify_token
from django_otp.models import Device
from django_otp.plugins.otp_static.models import StaticDevice, StaticToken
from django_otp.plugins.otp_totp.models import TOTPDevice

from accounts import sessions
from accounts.models import User
from dmlsite.errors import Forbidden
from dmlsite.limits import throttle

RECOVERY_CODES = 10
APP, PAPER = "app", "recovery codes"
WRONG = "This code does not fit. Your app shows a new one every 30 seconds."


def missing(request: HttpRequest) -> bool:
    """Whether somebody who is logged in has to show a second factor, and has not."""
    return _lacking(cast(User, request.user), request.session)


def oversees(user: User | AnonymousUser, session: SessionBase, right: str) -> bool:
    """Whether an admin may look at what is somebody else's, on a page or by a socket: the right to it, and the second factor."""
    return user.is_staff and user.has_perm(right) and not _lacking(cast(User, user), session)


def _lacking(user: User, session: SessionBase) -> bool:
    return not _shown(user, session) and (settings.ADMIN_TWO_FACTOR or user_has_device(user))


def _shown(user: User, session: SessionBase) -> bool:
    """As django-otp's middleware finds it, which sockets do not pass."""
    name = session.get(DEVICE_ID_SESSION_KEY)
    device = Device.from_persistent_id(name) if name else None
    return device is not None and device.user_id == user.pk and device.confirmed


def remove(user: User) -> None:
    """The phone is lost, and the codes are, too: the next login sets it up anew."""
    for device in devices_for_user(user, confirmed=None):
        device.delete()


class CodeForm(forms.Form):
    code = forms.CharField(
        max_length=20,
        widget=forms.TextInput(attrs={"autocomplete": "one-time-code", "autofocus": True, "spellcheck": "false"}),
    )

    def clean_code(self) -> str:
        return str(self.cleaned_data["code"]).replace(" ", "").lower()


@login_required
@never_cache
def ask(request: HttpRequest) -> HttpResponse:
    """The step after the password."""
    user = cast(User, request.user)
    if not user_has_device(user):
        return redirect("accounts:second_factor_setup")
    form = CodeForm(request.POST or None)
    if request.method == "POST":
        throttle(request, "second-factor", settings.LOGIN_RATE, "user")
        if form.is_valid():
            devices = _of_kind(user, form.cleaned_data["code"])
            waiting = any(not device.verify_is_allowed()[0] for device in devices)
            if device := _fitting(devices, form.cleaned_data["code"]):
                _passed(request, device)
                return redirect(_next(request))
            sessions.code_refused(request, user)
            form.add_error("code", "After a wrong code please wait a few seconds." if waiting else WRONG)
    return render(request, "accounts/second_factor.html", {"form": form}, status=422 if form.errors else 200)


@login_required
@never_cache
def setup(request: HttpRequest) -> HttpResponse:
    """Scan a picture, type the first code, keep the recovery codes. Whoever has a factor already shows it first."""
    user = _admin(request)
    if missing(request) and user_has_device(user):
        return redirect("accounts:second_factor")
    device = _waiting(user)
    form = CodeForm(request.POST if request.method == "POST" else None)
    if request.method == "POST":
        throttle(request, "second-factor", settings.LOGIN_RATE, "user")
        if form.is_valid() and verify_token(user, device.persistent_id, form.cleaned_data["code"]):
            codes = _install(user, device)
            _passed(request, device)
            return render(request, "accounts/recovery_codes.html", {"codes": codes, "next": reverse("admin:index")})
        form.add_error("code", "This code does not fit. Is the clock of your phone right?")
    context = {"form": form, "secret": _secret(device)}
    return render(request, "accounts/second_factor_setup.html", context, status=422 if form.errors else 200)


@login_required
@never_cache
def picture(request: HttpRequest) -> HttpResponse:
    """What the app scans."""
    user = _admin(request)
    if missing(request) and user_has_device(user):
        raise Forbidden("Please show your second factor first.")
    code = segno.make(_waiting(user).config_url, error="m").svg_inline(scale=5, border=4, light="#fff")
    return HttpResponse(
        code.replace("<svg", '<svg xmlns="http://www.w3.org/2000/svg"', 1), content_type="image/svg+xml"
    )


def _admin(request: HttpRequest) -> User:
    user = cast(User, request.user)
    if not user.is_staff:
        raise Forbidden("Only admins have a second factor.")
    return user


def _waiting(user: User) -> TOTPDevice:
    """The app that is being set up."""
    return TOTPDevice.objects.get_or_create(user=user, name=APP, confirmed=False)[0]


def _secret(device: TOTPDevice) -> str:
    """For those who can't scan: base32, in groups of four."""
    text = device.config_url.partition("secret=")[2].partition("&")[0].rstrip("=")
    return " ".join(text[at : at + 4] for at in range(0, len(text), 4))


@transaction.atomic
def _install(user: User, device: TOTPDevice) -> Sequence[str]:
    """This app, and no earlier one; new recovery codes, which nobody can read again."""
    TOTPDevice.objects.filter(user=user).exclude(pk=device.pk).delete()
    StaticDevice.objects.filter(user=user).delete()
    TOTPDevice.objects.filter(pk=device.pk).update(confirmed=True)
    paper = StaticDevice.objects.create(user=user, name=PAPER)
    codes = [StaticToken.random_token() for _ in range(RECOVERY_CODES)]
    StaticToken.objects.bulk_create(StaticToken(device=paper, token=code) for code in codes)
    return codes


def _of_kind(user: User, code: str) -> list[TOTPDevice | StaticDevice]:
    """Six digits are the app's, all else is a recovery code: a wrong one counts against its own kind only."""
    kind = TOTPDevice if code.isdecimal() and len(code) == 6 else StaticDevice
    return [device for device in devices_for_user(user) if isinstance(device, kind)]


def _fitting(devices: Sequence[TOTPDevice | StaticDevice], code: str) -> TOTPDevice | StaticDevice | None:
    return next((device for device in devices if verify_token(device.user, device.persistent_id, code)), None)


def _passed(request: HttpRequest, device: TOTPDevice | StaticDevice) -> None:
    """A session that has shown both gets a new name."""
    request.session.cycle_key()
    request.session[DEVICE_ID_SESSION_KEY] = device.persistent_id


def _next(request: HttpRequest) -> str:
    wanted = request.GET.get("next", "")
    safe = url_has_allowed_host_and_scheme(wanted, {request.get_host()}, require_https=request.is_secure())
    return wanted if safe else reverse("admin:index")
