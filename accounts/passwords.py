"""A new password: what it ends, what goes on with it, and that the owner is told."""

from django.conf import settings
from django.db import transaction
from django.template.loader import render_to_string
from django.urls import reverse

from accounts import actions
from accounts.models import ApiKey, User
from dmlsite import jobs
from dmlsite.mail import message

LINKS = {"reset": "accounts:reset", "provider": "providers:home"}


@transaction.atomic
def renewed(user: User, workers_too: bool = False) -> None:
    """Whoever had the old one may have made tokens and keys: programs' end. Workers earn and open nothing else, so their keys go on
    unless the owner says otherwise."""
    actions.end_tokens(user)
    actions.revoke_keys(user, *(ApiKey.Use if workers_too else ApiKey.PROGRAMS))
    jobs.enqueue("accounts.tasks.tell_new_password", user.pk)


def has_workers(user: User) -> bool:
    """Whether a key for a worker of this person's is in force."""
    return user.api_keys.filter(use=ApiKey.Use.WORKER, revoked=None).exists()


def send(user: User) -> None:
    goes_on = {"workers": has_workers(user), "wallets": user.wallets.exists()}
    links = {name: settings.SITE_URL + reverse(page) for name, page in LINKS.items()}
    context = {"email": user.email, **goes_on, **links}
    message("Your password was changed", render_to_string("accounts/password_mail.txt", context), user.email).send()
