"""What every admin page shares: read-only pages, actions that ask for a reason, links to the chain's explorer.

Nothing that holds money, a status or a standing can be edited: an admin acts by a verb of `actions.py`, with a reason.
"""

import json
from collections.abc import Callable, Iterable
from functools import wraps
from typing import Any

from django import forms
from django.conf import settings
from django.contrib import admin, messages
from django.contrib.admin.helpers import ACTION_CHECKBOX_NAME
from django.contrib.admin.models import LogEntry
from django.contrib.auth.admin import GroupAdmin
from django.contrib.auth.models import Group
from django.db import transaction
from django.db.models import Model, QuerySet
from django.forms import Media
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils.html import format_html
from django_dramatiq.models import Task
from django_otp.plugins.otp_static.models import StaticDevice
from django_otp.plugins.otp_totp.models import TOTPDevice
from rest_framework.authtoken.models import TokenProxy

from dmlsite.errors import message, status_of
from observe.models import Origin

Action = Callable[[Any, HttpRequest, QuerySet[Any]], HttpResponse | None]
Verb = Callable[[Any, HttpRequest, Any, str], None]

# Tokens open other people's accounts and are nobody's to read; jobs are kept in the broker, so their table stays empty.
# Second factors are secrets, too; whoever has lost theirs has it removed on the page of their account.
admin.site.unregister([TokenProxy, Task, StaticDevice, TOTPDevice, Group])


# --- What is shown ----------------------------------------------------------------------------------------------------
SHORT = 12
"""Characters of a hash in lists and timelines; the whole one shows under the mouse and on the row's page."""


def tx_link(tx: str, shown: int = 66) -> str:
    """A transaction's hash, its first characters at least, linked to the explorer if the installation has one."""
    if not tx:
        return "–"
    text = tx if len(tx) <= shown else f"{tx[:shown]}…"
    code = format_html('<code title="{}">{}</code>', tx, text)
    url = f"{settings.CHAIN_EXPLORER}/tx/{tx}"
    return format_html('<a href="{}" rel="noreferrer">{}</a>', url, code) if settings.CHAIN_EXPLORER else code


def page_link(found: Model | None, text: str = "") -> str:
    """A link to the admin page of a row."""
    if found is None:
        return "–"
    return format_html('<a href="{}">{}</a>', page_url(found), text or str(found))


def page_url(found: Model) -> str:
    return reverse(f"admin:{found._meta.app_label}_{found._meta.model_name}_change", args=[found.pk])


def list_link(model: str, text: str, **query: object) -> str:
    """A link to a list, e.g. `list_link("training_run", "run", ticket=pk)`; names the model so as not to import it."""
    return format_html('<a href="{}">{}</a>', reverse(f"admin:{model}_changelist", query=query), text)


def pretty(value: object) -> str:
    return format_html("<pre>{}</pre>", json.dumps(value, indent=2, default=str))


# --- The audit log ----------------------------------------------------------------------------------------------------
class Audited(admin.ModelAdmin):
    """What an admin does here is logged with the address that it came from."""

    def log_addition(self, request: HttpRequest, obj: Any, message: Any) -> LogEntry:
        return _from(request, super().log_addition(request, obj, message))

    def log_change(self, request: HttpRequest, obj: Any, message: Any) -> LogEntry:
        return _from(request, super().log_change(request, obj, message))

    def log_deletions(self, request: HttpRequest, queryset: QuerySet[Any]) -> list[LogEntry]:
        return [_from(request, entry) for entry in super().log_deletions(request, queryset)]


def _from(request: HttpRequest, entry: LogEntry) -> LogEntry:
    """Over a unix socket there is no address."""
    if address := request.META.get("REMOTE_ADDR"):
        Origin.objects.create(entry=entry, address=address)
    return entry


# --- What cannot be done ----------------------------------------------------------------------------------------------
class _NoEditing:
    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False


class ReadOnlyInline(_NoEditing, admin.TabularInline):
    extra = 0
    can_delete = False
    show_change_link = True

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> list[str]:
        """All of them, also where the row's owner can be edited."""
        return list(self.fields)


class ReadOnlyAdmin(_NoEditing, Audited):
    """Rows can be read, searched and acted upon, never edited. `buttons` names the actions that a row's page offers."""

    change_form_template = "admin/read_only_change_form.html"
    list_per_page = 50
    show_full_result_count = False
    buttons: tuple[str, ...] = ()

    @property
    def media(self) -> Media:
        """Of Django's scripts those that lists use. The others are for typing, and larger than all of a page should be."""
        return Media(js=["admin/js/core.js", "admin/js/actions.js"])

    def has_act_permission(self, request: HttpRequest) -> bool:
        """Actions need the right to change, which the pages themselves never grant."""
        return request.user.has_perm(f"{self.opts.app_label}.change_{self.opts.model_name}")

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        buttons = [(name, text) for name, (_, _, text) in self.get_actions(request).items() if name in self.buttons]
        context = {"buttons": buttons, "checkbox": ACTION_CHECKBOX_NAME, "pk": object_id}
        return super().change_view(request, object_id, form_url, context | (extra_context or {}))

    def carry_out(self, request: HttpRequest, rows: Iterable[Any], do: Callable[[Any], object], what: str) -> None:
        """Do something to each row and log it, both or neither. What a row refuses is shown and stops no other."""
        for row in rows:
            try:
                with transaction.atomic():
                    do(row)
                    self.log_change(request, row, what)
            except Exception as error:
                if status_of(error) is None:
                    raise
                self.message_user(request, f"{row}: {message(error)}", messages.ERROR)
            else:
                self.message_user(request, f"{row}: {what}", messages.SUCCESS)


# --- What can be done -------------------------------------------------------------------------------------------------
class ReasonForm(forms.Form):
    reason = forms.CharField(widget=forms.Textarea(attrs={"rows": 4, "cols": 80, "autofocus": True}), max_length=1000)


def reasoned(title: str, explain: str) -> Callable[[Verb], Action]:
    """Make an admin action of a verb for one row. It asks for a reason first; `explain` says there what will happen."""

    def decorate(verb: Verb) -> Action:
        @admin.action(description=f"{title}…", permissions=["act"])
        @wraps(verb)
        def action(page: Any, request: HttpRequest, queryset: QuerySet[Any]) -> HttpResponse | None:
            rows = list(queryset)
            form = ReasonForm(request.POST if "reason" in request.POST else None)
            if not form.is_valid():
                return _ask(page, request, rows, form, title, explain)
            reason = form.cleaned_data["reason"]
            page.carry_out(request, rows, lambda row: verb(page, request, row, reason), f"{title}: {reason}")
            return back(request, rows)

        return action

    return decorate


def _ask(page: Any, request: HttpRequest, rows: list[Any], form: ReasonForm, title: str, explain: str) -> HttpResponse:
    context = {
        **page.admin_site.each_context(request),
        "opts": page.opts,
        "title": title,
        "explain": explain,
        "rows": rows,
        "form": form,
        "checkbox": ACTION_CHECKBOX_NAME,
        "action": request.POST["action"],
        "button": request.POST.get("button", ""),
    }
    return TemplateResponse(request, "admin/reason.html", context)


def back(request: HttpRequest, rows: list[Any]) -> HttpResponse | None:
    """To the row's page if the action was asked for there; None means to the list."""
    return HttpResponseRedirect(page_url(rows[0])) if request.POST.get("button") and len(rows) == 1 else None


def actor(request: HttpRequest) -> str:
    """How the log and the histories name the admin who acts."""
    return request.user.get_username()


@admin.register(LogEntry)
class LogEntryAdmin(ReadOnlyAdmin):
    """Who did what in the admin, and from where."""

    list_display = ["action_time", "user", "address", "content_type", "object_repr", "change_message"]
    list_filter = ["action_time", "content_type"]
    list_select_related = ["user", "content_type", "origin"]
    search_fields = ["user__email", "origin__address", "object_id", "object_repr", "change_message"]
    date_hierarchy = "action_time"

    @admin.display(ordering="origin__address")
    def address(self, entry: LogEntry) -> str:
        return str(getattr(entry, "origin", "–"))


@admin.register(Group)
class GroupPage(Audited, GroupAdmin):
    pass
