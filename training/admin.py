"""Runs, rounds, assignments and audits in the admin: all of it to be read, none to be changed."""

from decimal import Decimal
from typing import Any

from django.conf import settings
from django.contrib import admin
from django.core.exceptions import PermissionDenied
from django.db.models import Max, QuerySet
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.urls import path

from contracts.chain import ChainError
from dmlsite import env
from dmlsite.admin import ReadOnlyAdmin, ReadOnlyInline, list_link, page_link, pretty
from dmlworker import task
from ledger.gateway import chain
from providers.score import FORMULA
from tickets.models import TRAINING
from training import standing
from training.models import Assignment, Audit, Replay, Round, Run


def reached(run: Run, score: float | None) -> str:
    """A score as the run's task has it."""
    return "–" if score is None else task.told(run.ticket.task, score, 2)


class RoundInline(ReadOnlyInline):
    model = Round
    fields = ["number", "state", "measured", "loss", "opened", "closed", "checked"]

    def get_queryset(self, request: HttpRequest) -> QuerySet[Round]:
        return super().get_queryset(request).select_related("run__ticket")

    @admin.display(description="reached")
    def measured(self, row: Round) -> str:
        return reached(row.run, row.accuracy)


class AssignmentInline(ReadOnlyInline):
    model = Assignment
    fields = ["part", "attempt", "provider", "state", "accuracy", "suspicion", "note", "offered", "committed"]

    def get_queryset(self, request: HttpRequest) -> QuerySet[Assignment]:
        return super().get_queryset(request).select_related("shard", "provider", "round__run__ticket")

    @admin.display(description="shard")
    def part(self, row: Assignment) -> str:
        return part(row)

    @admin.display(description="correct on the hold-out")
    def accuracy(self, row: Assignment) -> str:
        return accuracy(row)


class AuditInline(ReadOnlyInline):
    model = Audit
    fields = ["why", "state", "note", "drawn", "asked", "decided"]


class ReplayInline(ReadOnlyInline):
    model = Replay
    fields = [
        "segment",
        "number",
        "relative",
        "allowed",
        "cosine",
        "agrees",
        "apart",
        "start",
        "claimed",
        "result",
        "at",
    ]


def part(row: Assignment) -> str:
    return f"{row.shard.number} ({row.shard.samples} samples)"


def accuracy(row: Assignment) -> str:
    """Of the update alone: its score; of classes, count and share of the hold-out."""
    if row.correct is None:
        return "–"
    if row.score is not None and row.round.run.ticket.task not in (task.AUTO, task.CLASSIFICATION):
        return reached(row.round.run, row.score)
    size = row.round.run.facts.get("holdout_samples")
    return f"{row.correct} ({row.correct / size:.2%})" if size else str(row.correct)


@admin.register(Run)
class RunAdmin(ReadOnlyAdmin):
    inlines = [RoundInline]
    list_display = ["created", "ticket", "state", "progress", "last_accuracy", "finished"]
    list_filter = ["state", "created"]
    list_select_related = ["ticket"]
    search_fields = ["ticket__id", "id", "ticket__customer__email", "ticket__file_name"]
    fields = ["order", "state", "progress", "last_accuracy", "work", "about", "classes", "spec", "holdout"]
    fields += [*TRAINING, "seed", "created", "finished"]

    def get_queryset(self, request: HttpRequest) -> QuerySet[Run]:
        return super().get_queryset(request).prefetch_related("all_rounds")

    @admin.display(description="ticket")
    def order(self, row: Run) -> str:
        return page_link(row.ticket)

    @admin.display(description="rounds done")
    def progress(self, row: Run) -> str:
        return f"{len(_closed(row))} of {row.rounds}"

    @admin.display(description="reached")
    def last_accuracy(self, row: Run) -> str:
        done = _closed(row)
        return reached(row, done[-1].accuracy) if done else "–"

    @admin.display
    def work(self, row: Run) -> str:
        return list_link("training_assignment", "all assignments", round__run__id__exact=row.pk)

    @admin.display(description="what the data is")
    def about(self, row: Run) -> str:
        return pretty(row.facts)


def _closed(run: Run) -> list[Round]:
    return [found for found in run.all_rounds.all() if found.state == Round.State.CLOSED]


@admin.register(Round)
class RoundAdmin(ReadOnlyAdmin):
    inlines = [AssignmentInline]
    list_display = ["__str__", "state", "measured", "loss", "opened", "closed"]
    list_filter = ["state", "opened"]
    list_select_related = ["run__ticket"]
    search_fields = ["run__ticket__id", "run__id"]
    ordering = ["-opened"]
    fields = ["of", "number", "state", "measured", "loss", "start", "end", "opened", "closed", "checked"]

    @admin.display(description="run")
    def of(self, row: Round) -> str:
        return page_link(row.run)

    @admin.display(description="reached", ordering="accuracy")
    def measured(self, row: Round) -> str:
        return reached(row.run, row.accuracy)


def _bars() -> dict[str, Any]:
    found = standing.distribution()
    return {"distribution": found, "most": max(bar.count for bars in found.values() for bar in bars) or 1}


def _deterrence(request: HttpRequest) -> dict[str, Any]:
    typed = request.GET.get("rate", "").strip()
    rate = env.amount(typed) if typed else settings.DML_IN_COIN
    gains = [(name, price, standing.gain_of(price)) for name, price in standing.prices().items()]
    return {
        "rate": typed or (rate or ""),
        "problem": "" if rate is not None else "The rate is a number such as 0.002, not below 0.",
        "cases": [
            {"name": name, "price": price, "gain": gain, "rows": standing.deterrence(gain, rate or Decimal())}
            for name, price, gain in gains
        ],
        "deposit": _asked(),
        "providers": settings.PROVIDERS_PER_TICKET,
        "first": settings.AUDIT_FIRST,
        "percent": settings.AUDIT_PERCENT,
    }


def _asked() -> int | None:
    """The deposit in gwei that the contract asks now; None while the chain does not answer."""
    try:
        return chain().deposit_gwei()
    except ChainError:
        return None


@admin.register(Assignment)
class AssignmentAdmin(ReadOnlyAdmin):
    inlines = [AuditInline]
    list_display = ["offered", "round", "part", "attempt", "provider", "state", "accuracy", "suspicion", "committed"]
    list_filter = ["state", ("suspicion", admin.EmptyFieldListFilter), "offered"]
    list_select_related = ["round__run__ticket", "shard", "provider"]
    search_fields = ["provider__user_name", "provider__wallet", "round__run__ticket__id", "suspicion", "note"]
    search_help_text = "Provider, wallet or ticket"
    ordering = ["-offered"]
    fields = [
        "of",
        "who",
        "part",
        "attempt",
        "state",
        "accuracy",
        "suspicion",
        "note",
        "step",
        "steps",
        "update",
        "weights",
    ]
    fields += ["f1", "contribution", "joules", "gpu", "deadline", "offered", "accepted", "committed"]

    def get_urls(self) -> list[Any]:
        standing = path("standing/", self.admin_site.admin_view(self.standing), name="training_standing")
        return [standing, *super().get_urls()]

    def standing(self, request: HttpRequest) -> HttpResponse:
        """How providers are distributed, and the deposit that deters."""
        if not request.user.has_perm("providers.view_provider"):
            raise PermissionDenied
        context = self.admin_site.each_context(request) | {"title": "Distribution and deposit", "formula": FORMULA}
        return render(request, "admin/training/standing.html", context | _bars() | _deterrence(request))

    def lookup_allowed(self, lookup: str, value: str, request: HttpRequest | None = None) -> bool:
        """The pages of providers and runs link to their own assignments."""
        own = ("provider__id__exact", "round__run__id__exact")
        return lookup in own or super().lookup_allowed(lookup, value, request)

    @admin.display(description="round")
    def of(self, row: Assignment) -> str:
        return page_link(row.round)

    @admin.display(description="provider")
    def who(self, row: Assignment) -> str:
        return page_link(row.provider)

    @admin.display(description="shard")
    def part(self, row: Assignment) -> str:
        return part(row)

    @admin.display(description="correct on the hold-out")
    def accuracy(self, row: Assignment) -> str:
        return accuracy(row)


@admin.register(Audit)
class AuditAdmin(ReadOnlyAdmin):
    inlines = [ReplayInline]
    list_display = ["asked", "assignment", "state", "worst", "decided", "why"]
    list_filter = ["state", "asked"]
    list_select_related = ["assignment__round__run__ticket", "assignment__shard", "assignment__provider"]
    search_fields = ["assignment__provider__user_name", "assignment__round__run__ticket__id", "why"]
    ordering = ["-asked"]
    fields = ["of", "why", "state", "note", "drawn", "trace", "asked", "deadline", "decided"]

    def get_queryset(self, request: HttpRequest) -> QuerySet[Audit]:
        return super().get_queryset(request).annotate(worst=Max("replays__relative"))

    @admin.display(description="assignment")
    def of(self, row: Audit) -> str:
        return page_link(row.assignment)

    @admin.display(description="largest distance", ordering="worst")
    def worst(self, row: Audit) -> str:
        return "–" if row.worst is None else f"{row.worst:.2g}"  # type: ignore[attr-defined]
