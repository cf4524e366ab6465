"""What is known about a person: given to them, and erased when they close their account.

Each app answers for its own rows, in a module `personal` that the settings name (PERSONAL_DATA):

    refusal(user)   why the account can't be closed yet; empty if it can
    export(user)    a section of the export, as JSON
    erase(user)     erase what nobody else needs, in the transaction that closes the account
"""

from importlib import import_module
from types import ModuleType
from typing import Any

from django.conf import settings
from django.contrib.admin.models import LogEntry
from django.contrib.contenttypes.models import ContentType
from django.db import transaction
from django.forms.models import model_to_dict
from django.utils import timezone

from accounts import second_factor
from accounts.actions import end_tokens, require_own
from accounts.models import ApiKey, User
from dmlsite.errors import Conflict


def _holders() -> list[ModuleType]:
    return [import_module(name) for name in settings.PERSONAL_DATA]


def export(user: User) -> dict[str, Any]:
    """All that is kept about somebody, by app."""
    account = model_to_dict(user, ["email", "is_customer", "is_provider"]) | {
        "joined": user.date_joined,
        "email_confirmed": user.confirmed,
        "last_login": user.last_login,
        "wallets": list(user.wallets.values("address", "linked")),
        "api_keys": list(user.api_keys.values("name", "use", "prefix", "created", "last_used", "revoked")),
    }
    sections = {holder.__name__.partition(".")[0]: holder.export(user) for holder in _holders()}
    return {"exported": timezone.now(), "account": account, **sections}


def refusals(user: User) -> list[str]:
    """Why the account can't be closed yet."""
    reasons = [holder.refusal(user) for holder in _holders()]
    if user.is_staff:
        reasons.append("An admin's account is closed by another admin.")
    return [reason for reason in reasons if reason]


@transaction.atomic
def close(user: User, password: str) -> None:
    """For good. Raises Invalid for a wrong password, Conflict, with the reasons, while it can't be done."""
    user = User.objects.select_for_update().get(pk=user.pk)
    require_own(user, password)
    if reasons := refusals(user):
        raise Conflict(" ".join(reasons))
    for holder in _holders():
        holder.erase(user)
    end_tokens(user)
    second_factor.remove(user)
    log = LogEntry.objects.filter(content_type=ContentType.objects.get_for_model(User), object_id=str(user.pk))
    log.update(object_repr=erased_address(user))
    user.wallets.all().delete()
    ApiKey.objects.filter(user=user).delete()
    user.email, user.confirmed, user.is_active = erased_address(user), None, False
    user.set_unusable_password()  # which ends every session
    user.save()


def erased_address(user: User) -> str:
    """What stands where their e-mail address stood."""
    return f"closed-{user.pk}@invalid"
