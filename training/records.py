"""What is told about a finished run: the receipt that the chain commits to, who was paid, and which formats the model has not."""

import math
from collections.abc import Mapping
from dataclasses import fields
from functools import lru_cache

from django.db.models import QuerySet

from dmlsite.errors import Missing
from dmlworker import receipt as form
from dmlworker.aggregation import RULES
from dmlworker.datasets import Options
from dmlworker.receipt import Receipt
from ledger import money
from ledger.gateway import deployment
from ledger.models import Transfer
from tickets import actions as tickets
from tickets.models import Artifact, Ticket
from training.actions import hyper_of
from training.models import Assignment, Audit, Blob, Replay, Round, Run
from training.pay import seconds_of

LEFT_OUT = "left out"
"""The kind of event that tells of a format that a model has not."""


def receipt(run: Run, merit: Mapping[str, int]) -> Receipt:
    """All that a customer needs to compute the training and the payouts again. merit: wallet -> weight in the pay; the
    same for the same run, whenever it is called."""
    ticket, on = run.ticket, deployment()
    parts, fee = money.shares(ticket.price, merit) if merit else ({}, 0)
    names = [field.name for field in fields(form.Training)]
    return Receipt(
        version=form.VERSION,
        ticket=str(ticket.pk),
        chain=form.Chain(on.chain_id, on.escrow),
        spec=run.spec_id,
        holdout=form.Shard(run.holdout_id, run.facts["holdout_samples"]),
        file=form.File(
            ticket.dataset.name,
            ticket.dataset.size,
            ticket.dataset.sha256,
            ticket.target,
            Options.of(ticket).text,
        ),
        shards=tuple(form.Shard(shard.blob_id, shard.samples) for shard in run.shards.all()),
        training=form.Training(**{name: getattr(run, name) for name in names}),
        price=ticket.price,
        fee=fee,
        merit=dict(merit),
        payouts=parts,
        rounds=tuple(_round(round_) for round_ in run.all_rounds.all()),
        reward=ticket.reward,
    )


def _round(round_: Round) -> form.Round:
    done = _updates(round_.run).filter(round=round_)
    audits = Audit.objects.filter(assignment__round=round_).order_by("assignment__shard__number", "pk")
    return form.Round(
        number=round_.number,
        start=round_.start_id,
        end=str(round_.end_id),
        kept=round_.kept_id,
        root=round_.root_id if RULES[round_.run.rule].root else None,
        accuracy=float(round_.accuracy or 0),
        loss=round_.loss,
        updates=tuple(map(_update, done)),
        audits=tuple(map(_audit, audits.select_related("assignment__shard", "assignment__provider"))),
    )


def _update(work: Assignment) -> form.Update:
    return form.Update(
        shard=work.shard.number,
        weight=work.weight or 0,
        provider=work.provider.wallet or "",
        update=str(work.update_id),
        weights=str(work.weights_id),
        trace=work.root,
        checkpoint_every=hyper_of(work).checkpoint_every,
        correct=work.correct or 0,
        f1=work.f1,
        contribution=work.contribution,
        seconds=seconds_of(work),
        joules=work.joules,
        gpu=work.gpu,
    )


def _audit(audit: Audit) -> form.Audit:
    work, replays = audit.assignment, list(audit.replays.all())
    around = {sha256 for replay in replays for sha256 in (replay.start, replay.claimed)}
    return form.Audit(
        shard=work.shard.number,
        provider=work.provider.wallet or "",
        update=str(work.update_id),
        root=work.root,
        why=audit.why,
        state=audit.state,
        trace=audit.trace_id,
        kept=Blob.objects.filter(pk__in=around).count() == len(around),
        replays=tuple(map(_replay, replays)),
    )


def _replay(replay: Replay) -> form.Replay:
    relative, allowed = (far if math.isfinite(far) else None for far in (replay.relative, replay.allowed))
    told = (replay.segment, replay.number, replay.start, replay.claimed)
    return form.Replay(*told, relative, allowed, replay.cosine, replay.agrees)


def keeps_checkpoints(round_: Round) -> bool:
    """Whether what a worker showed of good work is kept, so that the customer can replay it, too: in the first round and the
    last. That bounds the disk; what failed an audit is kept in every round, it is evidence."""
    return round_.number in (1, round_.run.rounds)


def named(found: Artifact, sha256: str) -> Blob:
    """A blob that a receipt names. Raises Missing: all others do not exist for whoever holds the receipt, and one that can't be
    read names none."""
    blob = Blob.objects.filter(pk=sha256).first()
    if blob is None or found.name != form.NAME or sha256 not in _files(found.file.name, found.sha256):
        raise Missing("no receipt of yours names this")
    return blob


@lru_cache(maxsize=32)
def _files(path: str, sha256: str) -> frozenset[str]:
    """What the receipt in the storage names. sha256: of the receipt, which may be written anew under its name."""
    with Artifact.file.field.storage.open(path) as file:
        try:
            return frozenset(form.files(form.load(file.read())))
        except form.NotAReceipt as error:
            raise Missing(str(error)) from error


def _updates(run: Run) -> QuerySet[Assignment]:
    done = Assignment.objects.filter(round__run=run, round__voided=None, state=Assignment.State.COMMITTED)
    return done.select_related("round__run__ticket", "shard", "provider").order_by("round__number", "shard__number")


def payments(run: Run) -> list[dict[str, object]]:
    """Who gets what: name, wallet, share in micro-DML, mean score of its updates on the hold-out."""
    planned = Transfer.objects.filter(case=run.ticket_id, kind=Transfer.Kind.PENDING, key__startswith="settle:")
    shares = {row.credit.removeprefix("provider:"): row.amount for row in planned}
    per = run.facts["holdout_samples"]
    rows: dict[str, dict[str, object]] = {}
    for update in _updates(run):
        wallet = update.provider.wallet or ""
        row = rows.setdefault(wallet, {"name": update.provider.user_name, "wallet": wallet, "scores": []})
        known = (update.correct or 0) / per if update.score is None else update.score
        row["scores"].append(known)  # type: ignore[attr-defined]
    for wallet, row in rows.items():
        scores: list[float] = row.pop("scores")  # type: ignore[assignment]
        row |= {"share": shares.get(wallet, 0), "score": sum(scores) / len(scores), "updates": len(scores)}
    return sorted(rows.values(), key=lambda row: str(row["name"]))


def tell_left_out(ticket: Ticket, formats: Mapping[str, str]) -> None:
    """On the timeline, once however often the job runs: which formats the model has not, and why. The card tells it, too."""
    for name, reason in formats.items():
        text = f"There is no {name} file of this model: {reason}."
        if not ticket.events.filter(kind=LEFT_OUT, text=text).exists():
            tickets.note(ticket, LEFT_OUT, text)


def left_out(ticket: Ticket) -> list[str]:
    """What was told of formats that the model has not."""
    return list(ticket.events.filter(kind=LEFT_OUT).values_list("text", flat=True))
