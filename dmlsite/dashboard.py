"""The admin's first page: above the list of tables, what there is and what waits; each part for who may see its rows."""

from typing import Any

from django.contrib import admin
from django.db.models import Count, Min, Q
from django.http import HttpRequest, HttpResponse
from django.urls import reverse
from django.utils import timezone

from dmlsite.admin import list_link, page_link
from ledger.models import Alarm, Reconciliation
from ledger.overview import escrow
from providers.models import Accusation, Connection, Provider, Standing
from tickets.models import Mail, Status, Ticket

SHOWN = 10
"""Alarms and accusations in full; the lists behind have all."""


def index(request: HttpRequest) -> HttpResponse:
    parts = {
        "tickets": (Ticket, _tickets),
        "escrow": (Reconciliation, _escrow),
        "cases": (Accusation, _cases),
        "alarms": (Alarm, _alarms),
        "workers": (Provider, _workers),
        "mails": (Mail, _mails),
    }
    shown = {name: part() for name, (model, part) in parts.items() if _may_view(request, model)}
    return admin.site.index(request, {"desk": shown})


def _may_view(request: HttpRequest, model: Any) -> bool:
    return bool(admin.site.get_model_admin(model).has_view_permission(request))


def _tickets() -> list[tuple[str, int]]:
    """Each status, linked to its tickets, and how many there are."""
    counts = dict(Ticket.objects.order_by().values_list("status").annotate(Count("pk")))
    return [
        (list_link("tickets_ticket", str(label), status__exact=value), counts.get(value, 0))
        for value, label in Status.choices
    ]


def _escrow() -> dict[str, Any]:
    return {"now": escrow(), "last": Reconciliation.objects.first()}


def _cases() -> dict[str, Any]:
    """The accusations that can still be lifted, the most urgent first; the one that is not on the chain yet has most time."""
    found = Accusation.objects.filter(state=Accusation.State.OPEN).prefetch_related("cheats", "answers")
    rows = [_case(case) for case in found.order_by("executable_at", "created")[:SHOWN]]
    return {"count": found.count(), "rows": rows, "all": _list("providers_accusation", state__exact="open")}


def _case(case: Accusation) -> dict[str, Any]:
    answered = {answer.provider_id for answer in case.answers.all()}
    accused = [(provider, provider.pk in answered) for provider in case.cheats.all()]
    due = case.executable_at is not None and case.executable_at <= timezone.now()
    return {"case": case, "accused": accused, "due": due, "link": page_link(case, "Look")}


def _alarms() -> dict[str, Any]:
    found = Alarm.objects.filter(cleared=None).order_by("created")
    rows = [(alarm, page_link(alarm, alarm.kind)) for alarm in found[:SHOWN]]
    return {"count": found.count(), "rows": rows, "all": _list("ledger_alarm", cleared__isempty=1)}


def _workers() -> dict[str, int]:
    online = Connection.objects.online()
    found = online.aggregate(workers=Count("pk"), providers=Count("provider", distinct=True))
    return found | {"active": Provider.objects.filter(standing=Standing.ACTIVE).count()}


def _mails() -> dict[str, Any]:
    waiting = Mail.objects.filter(sent=None)
    found = waiting.aggregate(count=Count("pk"), failed=Count("pk", filter=~Q(error="")), since=Min("created"))
    return found | {"all": _list("tickets_mail", sent__isempty=1)}


def _list(model: str, **query: object) -> str:
    return reverse(f"admin:{model}_changelist", query=query)
