"""Forms about accounts. What makes an address or a password good is decided in `actions`."""

from typing import Any
from urllib.parse import urlsplit

from django import forms
from django.conf import settings
from django.contrib.auth.forms import (
    AdminPasswordChangeForm,
    AuthenticationForm,
    PasswordChangeForm,
    PasswordResetForm,
    SetPasswordForm,
)
from django.db import transaction
from django.http import HttpRequest

from accounts import actions, passwords
from accounts.models import User
from dmlsite import jobs
from dmlsite.errors import Invalid


def password_input(autocomplete: str) -> forms.PasswordInput:
    return forms.PasswordInput(attrs={"autocomplete": autocomplete, "data-reveal": ""})


class RegisterForm(forms.Form):
    kind = forms.ChoiceField(
        label="I am a",
        choices=[("customer", "Customer: I have data and want a model"), ("provider", "Provider: I lend my computer")],
        widget=forms.RadioSelect,
        initial="customer",
    )
    email = forms.EmailField(label="E-mail", widget=forms.EmailInput(attrs={"autocomplete": "username"}))
    password = forms.CharField(
        strip=False, widget=password_input("new-password"), help_text="At least 12 characters, not a common one."
    )
    confirm = forms.CharField(label="Confirm password", strip=False, widget=password_input("new-password"))

    def clean_email(self) -> str:
        return _checked(actions.check_email, self.cleaned_data["email"])

    def clean(self) -> dict[str, Any]:
        data = super().clean() or {}
        password, email = data.get("password"), data.get("email") or ""
        if password and "confirm" in data and password != data["confirm"]:
            self.add_error("confirm", "The two passwords differ.")
        if password:
            try:
                actions.check_password(password, email)
            except Invalid as error:
                self.add_error("password", str(error))
        return data


def _checked(check: Any, value: str) -> Any:
    try:
        return check(value)
    except Invalid as error:
        raise forms.ValidationError(str(error)) from None


class LoginForm(AuthenticationForm):
    error_messages = {
        "invalid_login": "This e-mail address and password do not match an account.",
        "inactive": "This account is closed.",
    }

    def __init__(self, request: HttpRequest | None = None, *args: Any, **kwargs: Any) -> None:
        super().__init__(request, *args, **kwargs)
        self.fields["username"].label = "E-mail"
        self.fields["username"].widget = forms.EmailInput(attrs={"autocomplete": "username", "maxlength": 254})
        self.fields["password"].widget = password_input("current-password")


class ResetForm(PasswordResetForm):
    """A job mails the link: the answer comes as soon for an address that nobody has, whatever the mail server does."""

    def save(self, *args: Any, **kwargs: Any) -> None:
        jobs.enqueue("accounts.tasks.mail_reset", self.cleaned_data["email"])

    def mail(self) -> None:
        """In the job."""
        site = urlsplit(settings.SITE_URL)
        super().save(
            domain_override=site.netloc,
            use_https=site.scheme == "https",
            email_template_name="accounts/reset_mail.txt",
            subject_template_name="accounts/reset_subject.txt",
        )


class _Renews:
    """A form for a new password, with all that follows from one."""

    cleaned_data: dict[str, Any]

    @transaction.atomic
    def save(self, commit: bool = True) -> User:
        user: User = super().save(commit)  # type: ignore[misc]
        passwords.renewed(user, self.cleaned_data.get("workers_too", False))
        return user


class _AsksForWorkers(_Renews, forms.Form):
    """Who has workers says what becomes of their keys. `user`: None where a link is no good."""

    workers_too = forms.BooleanField(
        label="Revoke the keys of my workers, too",
        required=False,
        help_text="They stop within a minute, and need new keys. API keys of programs are revoked anyway.",
    )

    def __init__(self, user: User | None, *args: Any, **kwargs: Any) -> None:
        super().__init__(user, *args, **kwargs)
        if user is None or not passwords.has_workers(user):
            del self.fields["workers_too"]


class NewPasswordForm(_AsksForWorkers, PasswordChangeForm):
    """For who knows the old one."""


class ResetPasswordForm(_AsksForWorkers, SetPasswordForm):
    """For who came by a link in a mail."""


class AdminPasswordForm(_Renews, AdminPasswordChangeForm):
    """For an admin, who sets somebody's."""


class KeyForm(forms.Form):
    name = forms.CharField(
        label="Name of the key", max_length=60, initial="my program", help_text="To tell them apart."
    )
    scope = forms.ChoiceField(
        label="It may", choices=[("order", "order and read"), ("read", "only read")], initial="order", required=False
    )

    def clean_scope(self) -> str:
        return self.cleaned_data["scope"] or "order"


class CloseForm(forms.Form):
    password = forms.CharField(label="Your password", strip=False, widget=password_input("current-password"))
