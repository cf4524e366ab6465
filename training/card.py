"""The model card, as Markdown for people and as JSON for programs, and the curves as a picture."""

import json
from dataclasses import fields
from typing import Any

from django.template.loader import render_to_string

from dmlworker import receipt as form
from dmlworker.task import score_of
from ledger import money, pricing
from ledger.models import ChainEvent
from training import chart, delivery, measures, records
from training.models import Run
from training.raw import columns, loading, said

VERSION = 1
"""Of model-card.json."""


def documents(run: Run, event: ChainEvent) -> dict[str, bytes]:
    """By file name. event: the final payment of the providers."""
    rounds = list(run.all_rounds.all())
    told, title = structured(run, event), score_of(run.ticket.task).name
    return {
        "model-card.md": markdown(run, event).encode(),
        "model-card.json": (json.dumps(told, indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode(),
        "curves.png": chart.curves([each.accuracy for each in rounds], [each.loss for each in rounds], title),
    }


def markdown(run: Run, event: ChainEvent) -> str:
    context = {
        "run": run,
        "ticket": run.ticket,
        "score": score_of(run.ticket.task),
        "measures": measures.named(run.all_rounds.get(number=run.rounds).by_class),
        "rounds": run.all_rounds.all(),
        "metrics": measures.told(run.metrics or {}),
        "left_out": records.left_out(run.ticket),
        "payments": records.payments(run),
        "fee": money.fee(run.ticket.price),
        "price_parts": pricing.SCHEMES[run.ticket.price_scheme].parts(run.ticket.priced),
        "tx": event.tx,
        "columns": columns(run),
        "loading": loading(run),
        "said": list(said(run.ticket)),
    }
    return render_to_string("training/model-card.md", context)


def structured(run: Run, event: ChainEvent) -> dict[str, Any]:
    """Amounts are in micro-DML. metrics: of the hold-out, each with the ends of its 95 % confidence interval."""
    ticket, facts = run.ticket, run.facts
    names = [field.name for field in fields(form.Training)]
    files = ticket.artifacts.exclude(name__in=delivery.DOCUMENTS[:3]).order_by("name")
    return {
        "version": VERSION,
        "ticket": str(ticket.pk),
        "data": {
            "file": {"name": ticket.dataset.name, "size": ticket.dataset.size, "sha256": ticket.dataset.sha256},
            "target": ticket.target,
            "classes": run.classes,
            **{name: value for name, value in facts.items() if name != "example"},
        },
        "task": ticket.task,
        "settings": {"model": ticket.model_kind} | {name: getattr(run, name) for name in names},
        "search": run.search,
        "metrics": {
            name: dict(zip(("value", "low", "high"), found, strict=True)) for name, found in (run.metrics or {}).items()
        },
        "rounds": list(run.all_rounds.values("number", "accuracy", "loss")),
        "files": {file.name: {"size": file.size, "sha256": file.sha256} for file in files},
        "formats_left_out": records.left_out(ticket),
        "providers": records.payments(run),
        "price": ticket.price,
        "price_scheme": ticket.price_scheme,
        "fee": money.fee(ticket.price),
        "reward": ticket.reward,
        "spec": run.spec_id,
        "payment": ticket.paid_tx,
        "payout": event.tx,
        "receipt_root": event.args.get("receipt_root", ""),
    }
