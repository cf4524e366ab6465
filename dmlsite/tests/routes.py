"""Every address of the site, out of the URL map, with real objects in the place of its arguments."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from django.contrib import admin
from django.core.cache import cache
from django.urls import URLPattern, URLResolver, get_resolver

from accounts import confirmation
from accounts.models import ApiKey, User, Wallet
from dmlsite.tests.rows import WALLET, everything
from providers.models import Accusation, Attestation
from tickets import mail
from tickets.models import PartialUpload, Ticket
from training.models import Run

MARK = "marked-7f3a9"
"""In what is only the owner's to read."""
TRIAL = "0" * 32


@dataclass
class World:
    """Somebody's ticket, settled, and all that belongs to it; the provider who worked on it."""

    ticket: Ticket
    customer: User
    provider: User


def world() -> World:
    ticket = everything()
    Ticket.objects.filter(pk=ticket.pk).update(file_name=f"{MARK}.csv", outcome=MARK, target=MARK)
    ticket.artifacts.update(name=f"{MARK}.json")
    PartialUpload.objects.create(ticket=ticket, name=f"{MARK}.csv", size=10)
    ApiKey.issue(ticket.customer, MARK, ApiKey.Use.CLIENT)
    Wallet.objects.create(user=ticket.customer, address=WALLET)
    provider = User.objects.get(provider__isnull=False)
    Accusation.objects.update(evidence={"round": 1, "replays": [], "note": MARK}, reason=MARK)
    ticket.refresh_from_db()
    return World(ticket, ticket.customer, provider)


def count_afresh() -> None:
    """Rates begin at zero; what was tried with the model is there."""
    cache.clear()
    cache.set(f"trial:{Run.objects.get().pk.hex}:{TRIAL}", True)
    cache.set(f"trial-answer:{TRIAL}", [0.75, 0.25])


Fill = Callable[[World], dict[str, Any]]


def _ticket(world: World) -> dict[str, Any]:
    return {"<uuid:pk>": world.ticket.pk, "<uuid:ticket>": world.ticket.pk, "<str:name>": TRIAL}


def _upload(world: World) -> dict[str, Any]:
    return {"<uuid:pk>": world.ticket.partial.pk}


def _link(world: World) -> dict[str, Any]:
    token = mail.link(world.ticket.artifacts.get()).rpartition("/")[2]
    return {"<str:token>": token, "<str:sha256>": "0" * 64}


OWNED_BY_CUSTOMER: dict[str, Fill] = {
    "accounts/wallet/<int:pk>/unlink/": lambda world: {"<int:pk>": Wallet.objects.get().pk},
    "accounts/keys/<int:pk>/revoke/": lambda world: {"<int:pk>": ApiKey.objects.get(name=MARK).pk},
    "tickets/<uuid:pk>/files.zip": _ticket,
    "tickets/<uuid:pk>/": _ticket,
    "tickets/<uuid:pk>/pay/": _ticket,
    "tickets/<uuid:pk>/upload/": _ticket,
    "tickets/<uuid:pk>/uploads/": _ticket,
    "tickets/uploads/<uuid:pk>/": _upload,
    "tickets/<uuid:pk>/cancel/": _ticket,
    "tickets/<uuid:pk>/erase/": _ticket,
    "tickets/<uuid:pk>/try/": _ticket,
    "tickets/<uuid:pk>/try/<str:name>/": _ticket,
    "tickets/<uuid:pk>/progress/": _ticket,
    "api/v1/tickets/<uuid:pk>": _ticket,
    "api/v1/tickets/<uuid:pk>/payment": _ticket,
    "api/v1/tickets/<uuid:pk>/file": _ticket,
    "api/v1/tickets/<uuid:pk>/uploads": _ticket,
    "api/v1/uploads/<uuid:pk>": _upload,
    "api/v1/tickets/<uuid:pk>/direct": _ticket,
    "api/v1/tickets/<uuid:pk>/direct/parts": _ticket,
    "api/v1/tickets/<uuid:pk>/direct/finish": _ticket,
    "api/v1/tickets/<uuid:pk>/cancel": _ticket,
    "api/v1/tickets/<uuid:pk>/artifacts": _ticket,
    "api/v1/tickets/<uuid:pk>/data": _ticket,
    "api/v1/tickets/<uuid:pk>/metrics": _ticket,
    "api/v1/tickets/<uuid:pk>/rounds": _ticket,
}
OWNED_BY_PROVIDER: dict[str, Fill] = {
    "provider/cases/<uuid:pk>/answer/": lambda world: {"<uuid:pk>": Accusation.objects.get().pk},
    "provider/keys/<int:pk>/revoke/": lambda world: {"<int:pk>": ApiKey.objects.get(use="worker").pk},
    "provider/work/<uuid:ticket>/": _ticket,
}
FOR_WORKERS: dict[str, Fill] = {
    "api/v1/provider/attestations/<uuid:pk>": lambda world: {"<uuid:pk>": Attestation.objects.get().pk},
}
"""Of the provider, and shut even to them: their worker shows its key."""
FOR_WHOEVER_HAS_THE_LINK: dict[str, Fill] = {
    "accounts/confirm/<token>/": lambda world: {"<token>": confirmation.link(world.customer).split("/")[-2]},
    "accounts/reset/<uidb64>/<token>/": lambda world: {"<uidb64>": "MQ", "<token>": "set-password"},
    "tickets/files/<str:token>": _link,
    "tickets/files/<str:token>/<str:sha256>": _link,
}
PUBLIC: dict[str, Fill] = {
    "providers/<str:name>/": lambda world: {"<str:name>": world.provider.provider.user_name},
    r"admin/^(?P<app_label>admin|auth|accounts|ledger|providers|tickets|training)/$": lambda world: {},
    "admin/(?P<url>.*)$": lambda world: {},
}
"""And what has no page behind it."""
FILLED = OWNED_BY_CUSTOMER | OWNED_BY_PROVIDER | FOR_WORKERS | FOR_WHOEVER_HAS_THE_LINK | PUBLIC


def patterns(resolver: Any = None, prefix: str = "") -> Iterator[tuple[str, URLPattern]]:
    """Each address as the URL map has it."""
    for found in (resolver or get_resolver()).url_patterns:
        where = prefix + str(found.pattern)
        if isinstance(found, URLResolver):
            yield from patterns(found, where)
        else:
            yield where, found


def without_sample() -> list[str]:
    """Addresses with arguments that nobody has put an object in the place of."""
    return [where for where, _ in patterns() if "<" in where and where not in FILLED and not _of_admin(where)]


def address(where: str, world: World) -> str:
    """With the arguments filled in."""
    if where not in FILLED and _of_admin(where):
        return (
            f"/{where}".replace("<path:object_id>", _row(where))
            .replace("<id>", str(world.customer.pk))
            .replace("<path:content_type_id>", "1")
        )
    for argument, value in FILLED.get(where, lambda world: {})(world).items():
        where = where.replace(argument, str(value))
    return f"/{where.replace('(?P<url>.*)$', 'nothing/').partition('^')[0]}"


def _of_admin(where: str) -> bool:
    return where.startswith("admin/")


def _row(where: str) -> str:
    """The primary key of some row of the model that an admin page is about."""
    _, app, name, *_ = [*where.split("/"), "", ""]
    models = {(model._meta.app_label, model._meta.model_name): model for model in admin.site._registry}
    found = models[app, name].objects.first() if (app, name) in models else None
    return str(found.pk) if found else "1"
