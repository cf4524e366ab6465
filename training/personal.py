"""What a training keeps of a customer's data, and of a provider's work (accounts/personal.py)."""

from contextlib import suppress
from typing import Any

from django.db import transaction
from django.db.models import Model, QuerySet

from accounts.models import User
from dmlworker.weights import MalformedUpdate
from training import audits, store
from training.models import Assignment, Audit, Replay, Round, Run, Shard

Holders = list[tuple[type[Model], str, list[str]]]
DATA: Holders = [(Run, "", ["holdout"]), (Shard, "run__", ["blob"])]
"""Whatever names a piece of the customer's data: the model, the way from it to the run, the fields."""
MODELS: Holders = [
    (Run, "", ["spec", "start"]),
    (Round, "run__", ["start", "end", "kept", "root"]),
    (Assignment, "round__run__", ["update", "weights"]),
    (Audit, "assignment__round__run__", ["trace"]),
]
"""Whatever names another blob."""
KEPT = ("kind", "samples", "training_samples", "holdout_samples", "sample_shape", "on_both_sides")
"""The facts of a run that are kept; the others are out of the customer's file."""


def refusal(user: User) -> str:
    return ""


def export(user: User) -> list[dict[str, Any]]:
    work = Assignment.objects.filter(provider__user=user)
    return list(work.values("round__run_id", "round__number", "shard__number", "state", "correct"))


@transaction.atomic
def erase(user: User) -> None:
    """The bytes of their data and models go, and what was noted of them; their hashes and sizes stay. So do the pieces that convict a
    provider."""
    mine = Run.objects.filter(ticket__customer=user)
    proof, shown = _proof(mine), _shown(mine)
    store.forget(shown - proof)
    store.erase(data_of(mine) | (_named(MODELS, mine) - _named(MODELS, _others(mine)) - proof))
    Round.everything.filter(run__in=mine).update(by_class=None)
    for run in mine:
        facts = {name: value for name, value in run.facts.items() if name in KEPT}
        Run.objects.filter(pk=run.pk).update(classes=[], facts=facts, metrics=None)


def data_of(runs: QuerySet[Run]) -> set[str]:
    """The pieces of the customer's file that these runs name, but for those that are evidence, or that a run needs whose own was not erased."""
    mine = store.locked(_named(DATA, runs))  # before another run is looked for that needs the same
    needed = _others(runs).exclude(ticket__dataset__file="")
    return mine - _named(DATA, needed) - _proof(runs)


def _others(runs: QuerySet[Run]) -> QuerySet[Run]:
    return Run.objects.exclude(pk__in=runs)


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


def _named(holders: Holders, runs: QuerySet[Run]) -> set[str]:
    """The blobs that these runs name."""
    found: set[str] = set()
    for model, way, fields in holders:
        rows = model._base_manager.filter(**{f"{way}pk__in": runs})  # with the rounds that are void
        for field in fields:
            found |= set(rows.exclude(**{field: None}).values_list(f"{field}_id", flat=True))
    return found
