"""What a training keeps of a customer's data, and of a provider's work (accounts/personal.py)."""

from contextlib import suppress
from typing import Any

from django.db.models import Model, Q, QuerySet

from accounts.models import User
from dmlworker.weights import MalformedUpdate
from training import audits, store
from training.models import Assignment, Audit, Replay, Round, Run, Shard

HOLDERS: list[tuple[type[Model], str, list[str]]] = [
    (Run, "", ["spec", "start", "holdout"]),
    (Shard, "run__", ["blob"]),
    (Round, "run__", ["start", "end", "kept", "root"]),
    (Assignment, "round__run__", ["update", "weights"]),
    (Audit, "assignment__round__run__", ["trace"]),
]
"""Whatever names a blob: the model, the way from it to the run, the fields."""
KEPT = ("kind", "samples", "training_samples", "holdout_samples", "sample_shape", "on_both_sides")
"""The facts of a run that are kept; the others are out of the customer's file."""


def refusal(user: User) -> str:
    return ""


def export(user: User) -> list[dict[str, Any]]:
    work = Assignment.objects.filter(provider__user=user)
    return list(work.values("round__run_id", "round__number", "shard__number", "state", "correct"))


def erase(user: User) -> None:
    """The bytes of their data and models go, and what was noted of them; their hashes and sizes stay. So do the pieces that convict a
    provider."""
    mine = Run.objects.filter(ticket__customer=user)
    proof, shown = _proof(mine), _shown(mine)
    store.forget(shown - proof)
    store.erase(_named(mine, inside=True) - _named(mine, inside=False) - proof)
    Round.everything.filter(run__in=mine).update(by_class=None)
    for run in mine:
        facts = {name: value for name, value in run.facts.items() if name in KEPT}
        Run.objects.filter(pk=run.pk).update(classes=[], facts=facts, metrics=None)


def _proof(runs: QuerySet[Run]) -> set[str]:
    """What it takes to do the segments again in which a provider was found to cheat: the model's form, its part of the data, the
    weights before and after, and the trace that it had committed to."""
    found: set[str] = set()
    failed = Audit.objects.filter(state=Audit.State.FAILED, assignment__round__run__in=runs)
    for audit in failed.select_related("assignment__round__run", "assignment__shard"):
        work = audit.assignment
        found |= {work.round.run.spec_id, work.shard.blob_id, work.round.start_id}
        found |= {sha256 for sha256 in (work.update_id, work.weights_id, audit.trace_id) if sha256}
        for replay in audit.replays.filter(agrees=False):
            found |= {replay.start, replay.claimed, replay.result}
    return found


def _shown(runs: QuerySet[Run]) -> set[str]:
    """The weights that workers showed to audits, and those that replays ended with. No row names these; a replay of another run may
    speak of the same."""
    replays = Replay.objects.filter(audit__assignment__round__run__in=runs)
    found = set(replays.exclude(result="").values_list("result", flat=True))
    for audit in Audit.objects.filter(assignment__round__run__in=runs, trace__erased=None).exclude(trace=None):
        with suppress(
            FileNotFoundError, MalformedUpdate
        ):  # the trace is lost, or never was one: nothing is known of them
            found |= audits.checkpoints(audit)
    others = Replay.objects.exclude(audit__assignment__round__run__in=runs)
    for field in ("start", "claimed", "result"):
        found -= set(others.filter(**{f"{field}__in": found}).values_list(field, flat=True))
    return found


def _named(runs: QuerySet[Run], inside: bool) -> set[str]:
    """The blobs that these runs name, or that any other does."""
    found: set[str] = set()
    for model, way, fields in HOLDERS:
        of_these = Q(**{f"{way}pk__in": runs})
        rows = model._base_manager.filter(of_these if inside else ~of_these)  # with the rounds that are void
        for field in fields:
            found |= set(rows.exclude(**{field: None}).values_list(f"{field}_id", flat=True))
    return found
