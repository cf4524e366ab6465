"""Runs, rounds, assignments and audits in the admin: all of it to be read, none to be changed."""

from django.contrib import admin
from django.db.models import Max, QuerySet
from django.http import HttpRequest

from dmlsite.admin import ReadOnlyAdmin, ReadOnlyInline, list_link, page_link, pretty
from tickets.models import TRAINING
from training.models import Assignment, Audit, Replay, Round, Run


def percent(share: float | None) -> str:
    return "–" if share is None else f"{share:.2%}"


class RoundInline(ReadOnlyInline):
    model = Round
    fields = ["number", "state", "measured", "loss", "opened", "closed", "checked"]

    @admin.display(description="accuracy")
    def measured(self, row: Round) -> str:
        return percent(row.accuracy)


class AssignmentInline(ReadOnlyInline):
    model = Assignment
    fields = ["part", "attempt", "provider", "state", "accuracy", "suspicion", "note", "offered", "committed"]

    def get_queryset(self, request: HttpRequest) -> QuerySet[Assignment]:
        return super().get_queryset(request).select_related("shard", "provider", "round__run")

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
    fields = ["segment", "number", "relative", "allowed", "cosine", "agrees", "start", "claimed", "at"]


def part(row: Assignment) -> str:
    return f"{row.shard.number} ({row.shard.samples} samples)"


def accuracy(row: Assignment) -> str:
    """Of the update alone: count and share of the hold-out."""
    if row.correct is None:
        return "–"
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

    @admin.display(description="accuracy")
    def last_accuracy(self, row: Run) -> str:
        done = _closed(row)
        return percent(done[-1].accuracy) if done else "–"

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

    @admin.display(description="accuracy", ordering="accuracy")
    def measured(self, row: Round) -> str:
        return percent(row.accuracy)


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
    fields += ["deadline", "offered", "committed"]

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
    list_display = ["asked", "assignment", "why", "state", "worst", "decided"]
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
