"""What is told about a finished run: the training record that the chain commits to, and the model card."""

import hashlib
import json

from django.template.loader import render_to_string

from ledger import money
from ledger.models import ChainEvent, Transfer
from training.models import Assignment, Run


def record(run: Run) -> bytes:
    """The training record, canonical JSON: per round the hashes of what went in and came out, and who did what."""
    rounds = [
        {
            "number": round_.number,
            "start": round_.start_id,
            "end": round_.end_id,
            "accuracy": round_.accuracy,
            "updates": [
                {
                    "shard": update.shard.blob_id,
                    "samples": update.shard.samples,
                    "provider": update.provider.wallet,
                    "update": update.update_id,
                    "correct": update.correct,
                }
                for update in _updates(run).filter(round=round_)
            ],
        }
        for round_ in run.all_rounds.all()
    ]
    names = ("epochs", "batch_size", "learning_rate", "strategy", "proximal", "compression", "seed")
    body = {"ticket": str(run.ticket_id), "spec": run.spec_id, "rounds": rounds, **{n: getattr(run, n) for n in names}}
    return json.dumps(body, sort_keys=True, separators=(",", ":")).encode()


def root(data: bytes) -> str:
    """What `settle` commits to on the chain: the record's SHA-256, 32 bytes as 0x-hex."""
    return "0x" + hashlib.sha256(data).hexdigest()


def _updates(run: Run):  # type: ignore[no-untyped-def]
    done = Assignment.objects.filter(round__run=run, state=Assignment.State.COMMITTED)
    return done.select_related("shard", "provider").order_by("round__number", "shard__number")


def payments(run: Run) -> list[dict[str, object]]:
    """Who gets what: name, wallet, share in micro-DML, mean accuracy of its updates on the hold-out."""
    planned = Transfer.objects.filter(case=run.ticket_id, kind=Transfer.Kind.PENDING, key__startswith="settle:")
    shares = {row.credit.removeprefix("provider:"): row.amount for row in planned}
    per = run.facts["holdout_samples"]
    rows: dict[str, dict[str, object]] = {}
    for update in _updates(run):
        wallet = update.provider.wallet or ""
        row = rows.setdefault(wallet, {"name": update.provider.user_name, "wallet": wallet, "scores": []})
        row["scores"].append((update.correct or 0) / per)  # type: ignore[attr-defined]
    for wallet, row in rows.items():
        scores: list[float] = row.pop("scores")  # type: ignore[assignment]
        row |= {"share": shares.get(wallet, 0), "accuracy": sum(scores) / len(scores), "updates": len(scores)}
    return sorted(rows.values(), key=lambda row: str(row["name"]))


def card(run: Run, event: ChainEvent) -> str:
    """The model card, Markdown."""
    context = {
        "run": run,
        "ticket": run.ticket,
        "rounds": run.all_rounds.all(),
        "payments": payments(run),
        "fee": money.fee(run.ticket.price),
        "tx": event.tx,
    }
    return render_to_string("training/model-card.md", context)
