"""What a training keeps of a customer's data, and of a provider's work (accounts/personal.py)."""

from collections.abc import Iterable
from typing import Any

from django.db import transaction
from django.db.models import Model, Q

from accounts.models import User
from training import audits, store
from training.models import Assignment, Audit, Round, Run, Shard

HOLDERS: list[tuple[type[Model], str, list[str]]] = [
    (Run, "", ["spec", "start", "holdout"]),
    (Shard, "run__", ["blob"]),
    (Round, "run__", ["start", "end", "kept", "root"]),
    (Assignment, "round__run__", ["update", "weights"]),
    (Audit, "assignment__round__run__", ["trace"]),
]
"""Whatever names a blob: the model, the way from it to the run, the fields."""


def refusal(user: User) -> str:
    return ""


def export(user: User) -> list[dict[str, Any]]:
    work = Assignment.objects.filter(provider__user=user)
    return list(work.values("round__run_id", "round__number", "shard__number", "state", "correct"))


def erase(user: User) -> None:
    """The bytes of their data and models go, and the values of tables; their hashes stay. What is evidence against a provider is kept."""
    mine = Run.objects.filter(ticket__customer=user)
    proof = Audit.objects.filter(state=Audit.State.FAILED, assignment__round__run__in=mine)
    kept = set(proof.values_list("assignment__round__run", flat=True))
    gone = [pk for pk in mine.values_list("pk", flat=True) if pk not in kept]
    checked = Audit.objects.filter(assignment__round__run__in=gone, state=Audit.State.PASSED, trace__erased=None)
    shown = {sha256 for audit in checked for sha256 in audits.checkpoints(audit)}
    named = _named(gone, inside=True) - _named(gone, inside=False)
    for run in mine:
        run.facts = {key: value for key, value in run.facts.items() if key not in ("example", "encoder")}
        run.save(update_fields=["facts"])
    transaction.on_commit(lambda: store.erase(named))
    transaction.on_commit(lambda: store.forget(shown))


def _named(runs: Iterable[object], inside: bool) -> set[str]:
    """The blobs that these runs name, or that any other does."""
    found: set[str] = set()
    for model, way, fields in HOLDERS:
        of_these = Q(**{f"{way}pk__in": runs})
        rows = model._default_manager.filter(of_these if inside else ~of_these)
        for field in fields:
            found |= set(rows.exclude(**{field: None}).values_list(f"{field}_id", flat=True))
    return found
