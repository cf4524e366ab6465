"""Whether an e-mail address is its owner's: a signed link is mailed to it, and pressing the button behind it says yes."""

from django.conf import settings
from django.core import signing
from django.template.loader import render_to_string
from django.urls import reverse
from django.utils import timezone

from accounts.models import User
from dmlsite import jobs
from dmlsite.errors import Invalid
from dmlsite.mail import message

SALT = "accounts.confirmation"
SECONDS = 7 * 24 * 3600
"""A link is good for so long."""


def ask(user: User) -> None:
    """Have the link mailed."""
    jobs.enqueue("accounts.tasks.ask_confirmation", user.pk)


def link(user: User) -> str:
    token = signing.dumps([user.pk, user.email], salt=SALT)
    return settings.SITE_URL + reverse("accounts:confirm", args=[token])


def send(user: User) -> None:
    text = render_to_string("accounts/confirm_mail.txt", {"link": link(user), "email": user.email})
    message("Please confirm your e-mail address", text, user.email).send()


def address(token: str) -> str:
    """Which address a link is about. Raises Invalid."""
    return str(_read(token)[1])


def confirm(token: str) -> None:
    """The link reached its reader. Confirming twice is no error. Raises Invalid."""
    pk, email = _read(token)
    User.objects.filter(pk=pk, email=email, confirmed=None).update(confirmed=timezone.now())
    if not User.objects.filter(pk=pk, email=email).exists():
        raise Invalid("This address belongs to no account any more.")


def _read(token: str) -> list[object]:
    try:
        found: list[object] = signing.loads(token, salt=SALT, max_age=SECONDS)
    except signing.BadSignature:
        raise Invalid("This link is damaged or too old. Your account page sends a new one.") from None
    return found
