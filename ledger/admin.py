"""The ledger and the chain in the admin: everything can be read and exported, nothing edited.

Amounts are shown in DML and in the native coin, never in the integers that the database keeps.
"""

from typing import Any

from django.conf import settings
from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.urls import path
from django.utils.html import format_html, format_html_join
from django.utils.safestring import mark_safe
from django.views.decorators.http import require_POST

from contracts.chain import COIN_EVENTS, ChainError
from dmlsite.admin import SHORT, ReadOnlyAdmin, ReadOnlyInline, actor, back, page_link, pretty, tx_link
from dmlsite.export import Column, csv_response
from ledger import actions, alarms, money, overview, watch
from ledger.gateway import chain
from ledger.models import (
    Alarm,
    Attempt,
    ChainEvent,
    ChainTx,
    Currency,
    Cursor,
    Reconciliation,
    Sighting,
    Transfer,
)
from ledger.reconcile import NotYet, reconcile


def amount(units: int | None, currency: str) -> str:
    """An amount with its unit, as people read it: "0.13 DML", "0.001 coin"."""
    if units is None:
        return "–"
    return money.text(units, currency)


# --- CSV --------------------------------------------------------------------------------------------------------------
class ExportAdmin(ReadOnlyAdmin):
    """A read-only page whose rows can be exported; `columns` as for `csv_response`."""

    actions: tuple[str, ...] = ("export",)
    columns: dict[str, Column] = {}

    @admin.action(description="Export as CSV", permissions=["view"])
    def export(self, request: HttpRequest, queryset: QuerySet[Any]) -> HttpResponse:
        return csv_response(str(self.opts.verbose_name_plural).replace(" ", "-"), self.columns, queryset)  # type: ignore[return-value]


# --- Transfers --------------------------------------------------------------------------------------------------------
class CurrencyFilter(admin.SimpleListFilter):
    title = parameter_name = "currency"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [(Currency.DML, "DML"), (Currency.COIN, "native coin")]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Transfer]) -> QuerySet[Transfer]:
        return queryset.filter(currency=self.value()) if self.value() else queryset


def _decimal(row: Transfer) -> str:
    return money.dml(row.amount) if row.currency == Currency.DML else money.coin(row.amount)


@admin.register(Transfer)
class TransferAdmin(ExportAdmin):
    list_display = ["created", "kind", "moved", "debit", "credit", "case", "short"]
    list_filter = ["kind", CurrencyFilter, "created"]
    list_select_related = ["event"]
    search_fields = ["case", "debit", "credit", "key", "event__tx"]
    search_help_text = "Ticket or case, wallet, account, or transaction hash"
    date_hierarchy = "created"
    fields = [
        "key",
        "kind",
        "planned",
        "became",
        "moved",
        "debit",
        "credit",
        "case",
        "transaction",
        "on_chain",
        "created",
    ]
    columns = {
        "id": lambda row: row.pk,
        "created": lambda row: row.created.isoformat(),
        "kind": lambda row: row.kind,
        "currency": lambda row: row.currency,
        "amount": _decimal,
        "from": lambda row: row.debit,
        "to": lambda row: row.credit,
        "case": lambda row: row.case or "",
        "transaction": lambda row: row.event.tx if row.event else "",
        "key": lambda row: row.key,
    }

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        row = self.get_object(request, object_id)
        context = {"subtitle": f"{self.moved(row)} {row.debit} → {row.credit}"} if row else {}  # str(row) has no units
        return super().change_view(request, object_id, form_url, context | (extra_context or {}))

    @admin.display(description="amount", ordering="amount")
    def moved(self, row: Transfer) -> str:
        return amount(row.amount, row.currency)

    @admin.display(description="decided in")
    def planned(self, row: Transfer) -> str:
        return page_link(row.pending, row.pending.key if row.pending else "")

    @admin.display(description="became")
    def became(self, row: Transfer) -> str:
        outcome = getattr(row, "outcome", None)
        return page_link(outcome, outcome.kind if outcome else "")

    @admin.display
    def transaction(self, row: Transfer) -> str:
        return tx_link(row.event.tx if row.event else "")

    @admin.display(description="transaction")
    def short(self, row: Transfer) -> str:
        return tx_link(row.event.tx if row.event else "", SHORT)

    @admin.display(description="event")
    def on_chain(self, row: Transfer) -> str:
        return page_link(row.event)


# --- What we send -----------------------------------------------------------------------------------------------------
def _paid(units: int | None) -> str:
    return amount(units, Currency.COIN)


def fee_of(tx: ChainTx) -> int | None:
    """What the chain took for it, in gwei; None before it is mined."""
    return next((attempt.fee_gwei for attempt in tx.attempts.all() if attempt.fee_gwei is not None), None)


def hash_of(tx: ChainTx) -> str:
    """As `ChainTx.hash`, from attempts that were fetched already: a list costs no query per row."""
    attempts = sorted(tx.attempts.all(), key=lambda attempt: (attempt.block is not None, attempt.pk))
    return attempts[-1].hash if attempts else ""


class AttemptInline(ReadOnlyInline):
    """The signed bytes themselves are not shown: who has them can only send what was sent."""

    model = Attempt
    show_change_link = False
    fields = ["created", "link", "gas_price", "tip", "broadcasts", "block", "gas_used", "fee", "error"]

    @admin.display(description="hash")
    def link(self, row: Attempt) -> str:
        return tx_link(row.hash)

    @admin.display(description="at most, per gas")
    def gas_price(self, row: Attempt) -> str:
        return _paid(row.max_fee_gwei)

    @admin.display(description="tip, per gas")
    def tip(self, row: Attempt) -> str:
        return _paid(row.tip_gwei)

    @admin.display
    def fee(self, row: Attempt) -> str:
        return _paid(row.fee_gwei)


@admin.register(ChainTx)
class ChainTxAdmin(ExportAdmin):
    inlines = [AttemptInline]
    actions = ("export", "again")
    buttons = ("again",)
    list_display = ["created", "verb", "case", "state", "short", "fee", "nonce", "not_before", "final_at", "error"]
    list_filter = ["state", "verb", "role", "created"]
    search_fields = ["case", "attempts__hash", "key", "sender", "to"]
    search_help_text = "Ticket or case, transaction hash, or sender"
    date_hierarchy = "created"
    fields = ["key", "verb", "case", "state", "error", "link", "fee", "role", "sender", "nonce", "to", "value", "data"]
    fields += ["not_before", "created", "final_at"]
    columns = {
        "id": lambda row: row.pk,
        "created": lambda row: row.created.isoformat(),
        "verb": lambda row: row.verb,
        "case": lambda row: row.case,
        "state": lambda row: row.state,
        "hash": hash_of,
        "sender": lambda row: row.sender,
        "nonce": lambda row: row.nonce,
        "value in coin": lambda row: money.coin(row.value_gwei),
        "fee in coin": lambda row: money.coin(fee_of(row) or 0),
        "final": lambda row: row.final_at.isoformat() if row.final_at else "",
        "error": lambda row: row.error,
    }

    def get_queryset(self, request: HttpRequest) -> QuerySet[ChainTx]:
        return super().get_queryset(request).prefetch_related("attempts")

    @admin.display(description="transaction")
    def link(self, row: ChainTx) -> str:
        return tx_link(hash_of(row))

    @admin.display(description="transaction")
    def short(self, row: ChainTx) -> str:
        return tx_link(hash_of(row), SHORT)

    @admin.display
    def fee(self, row: ChainTx) -> str:
        return _paid(fee_of(row))

    @admin.display
    def value(self, row: ChainTx) -> str:
        return _paid(row.value_gwei)

    @admin.action(description="Try again (reverted ones)", permissions=["act"])
    def again(self, request: HttpRequest, queryset: QuerySet[ChainTx]) -> HttpResponse | None:
        rows = list(queryset)
        self.carry_out(request, rows, lambda row: actions.retry(row, actor(request)), "tried again")
        return back(request, rows)


# --- What the chain says ----------------------------------------------------------------------------------------------
def readable(event: ChainEvent) -> dict[str, object]:
    """An event's arguments, amounts in units."""
    coin = {"stake"} | ({"amount"} if event.name in COIN_EVENTS else set())
    dml = {"amount", "fee"} - coin
    units = dict.fromkeys(coin, Currency.COIN) | dict.fromkeys(dml, Currency.DML)
    return {name: amount(value, units[name]) if name in units else value for name, value in event.args.items()}


@admin.register(ChainEvent)
class ChainEventAdmin(ExportAdmin):
    list_display = ["block", "name", "case", "said", "short", "seen", "followed"]
    list_filter = ["name", ("followed", admin.EmptyFieldListFilter), "seen"]
    search_fields = ["case", "tx", "args", "block_hash"]
    search_help_text = "Ticket or case, transaction hash, or wallet"
    fields = [
        "name",
        "case",
        "arguments",
        "transaction",
        "chain_id",
        "block",
        "block_hash",
        "log_index",
        "seen",
        "followed",
    ]
    columns = {
        "block": lambda row: row.block,
        "name": lambda row: row.name,
        "case": lambda row: row.case or "",
        "arguments": lambda row: "; ".join(f"{name}={value}" for name, value in readable(row).items()),
        "transaction": lambda row: row.tx,
        "seen": lambda row: row.seen.isoformat(),
    }

    @admin.display(description="arguments")
    def said(self, row: ChainEvent) -> str:
        return ", ".join(f"{name} {value}" for name, value in readable(row).items() if name not in ("ticket", "case"))

    @admin.display
    def arguments(self, row: ChainEvent) -> str:
        return pretty(readable(row))

    @admin.display
    def transaction(self, row: ChainEvent) -> str:
        return tx_link(row.tx)

    @admin.display(description="transaction")
    def short(self, row: ChainEvent) -> str:
        return tx_link(row.tx, SHORT)


@admin.register(Sighting)
class SightingAdmin(ReadOnlyAdmin):
    """What is on the chain, but not final yet: it moves nothing."""

    list_display = ["name", "case", "block", "tx"]
    search_fields = ["case", "tx"]


@admin.register(Cursor)
class CursorAdmin(ReadOnlyAdmin):
    list_display = ["escrow", "chain_id", "block", "block_hash"]


@admin.register(Reconciliation)
class ReconciliationAdmin(ExportAdmin):
    """Above the list: everything about the money that needs a hand, and what is owed against what is there."""

    change_list_template = "admin/ledger/reconciliation/change_list.html"
    list_display = ["created", "block", "balanced", "off"]
    list_filter = ["balanced", "created"]
    fields = ["created", "block", "balanced", "equalities"]
    columns = {
        "created": lambda row: row.created.isoformat(),
        "block": lambda row: row.block,
        "balanced": lambda row: row.balanced,
        "differences": lambda row: "; ".join(_differences(row)),
    }

    def get_urls(self) -> list[Any]:
        now = path("now/", self.admin_site.admin_view(require_POST(self.now)), name="ledger_reconcile_now")
        return [now, *super().get_urls()]

    def now(self, request: HttpRequest) -> HttpResponse:
        if not self.has_act_permission(request):
            raise PermissionDenied
        try:
            found = reconcile(chain())
        except (NotYet, ChainError) as error:
            self.message_user(request, f"Not possible just now: {error}", messages.ERROR)
        else:
            self.log_addition(request, found, "reconciled")
            level = messages.SUCCESS if found.balanced else messages.ERROR
            self.message_user(request, str(found), level)
        return redirect("admin:ledger_reconciliation_changelist")

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        matters = [{"matter": one, "link": page_link(one.row, "look")} for one in overview.exceptions()]
        context = {
            "exceptions": matters,
            "may_act": self.has_act_permission(request),
            "title": "Money",
            **_owed_and_held(),
        }
        return super().changelist_view(request, context | (extra_context or {}))

    @admin.display(description="differences")
    def off(self, row: Reconciliation) -> str:
        return ", ".join(_differences(row)) or "none"

    @admin.display
    def equalities(self, row: Reconciliation) -> str:
        head = mark_safe("<tr><th>Equality</th><th>Left</th><th>Right</th><th>Difference</th></tr>")
        cells = ((r["name"], *(amount(n, r["currency"]) for n in _sides(r))) for r in row.rows)
        body = format_html_join("", "<tr><td>{}</td><td>{}</td><td>{}</td><td>{}</td></tr>", cells)
        return format_html("<table><thead>{}</thead><tbody>{}</tbody></table>", head, body)


def _sides(row: dict[str, Any]) -> tuple[int, int, int]:
    return row["left"], row["right"], row["left"] - row["right"]


def _differences(found: Reconciliation) -> list[str]:
    return [f"{r['name']}: {amount(_sides(r)[2], r['currency'])}" for r in found.rows if _sides(r)[2]]


def _owed_and_held() -> dict[str, Any]:
    """The chain is asked for it; without an answer the rest of the page is as useful as ever."""
    try:
        block, owed, held = overview.liabilities(chain())
        runways = [_runway(one) for one in watch.runways(chain())]
    except ChainError as error:
        return {"problem": str(error)}
    return {"final": block, "owed": owed, "held": held, "runways": runways}


def _runway(one: watch.Runway) -> dict[str, Any]:
    return {
        "role": one.role,
        "address": one.address,
        "balance": amount(one.balance_gwei, Currency.COIN),
        "fee": amount(one.fee_gwei, Currency.COIN),
        "transactions": one.transactions,
        "low": one.transactions < settings.GAS_RUNWAY,
    }


@admin.register(Alarm)
class AlarmAdmin(ReadOnlyAdmin):
    actions = buttons = ("clear",)
    list_display = ["created", "kind", "halts", "case", "text", "mailed", "cleared", "cleared_by"]
    list_filter = [("cleared", admin.EmptyFieldListFilter), ("halts", admin.EmptyFieldListFilter), "kind", "created"]
    search_fields = ["case", "kind", "text"]

    @admin.action(description="Clear", permissions=["act"])
    def clear(self, request: HttpRequest, queryset: QuerySet[Alarm]) -> HttpResponse | None:
        rows = list(queryset.filter(cleared=None))
        self.carry_out(request, rows, lambda row: alarms.clear(row, actor(request)), "cleared")
        return back(request, rows)
