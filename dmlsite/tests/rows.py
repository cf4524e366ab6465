"""One row of everything that the admin shows: a ticket that was trained in one round, audited, and settled."""

from datetime import timedelta
from uuid import uuid4

from django.contrib.admin.models import ADDITION, LogEntry
from django.contrib.auth.models import Group
from django.contrib.contenttypes.models import ContentType
from django.utils import timezone

from accounts.models import ApiKey, User
from dmlsite.tests.people import person
from ledger.models import Alarm, Attempt, ChainEvent, ChainTx, Currency, Cursor, Reconciliation, Sighting, Transfer
from providers.models import Accusation, Attestation, Connection, Measurement, Provider, Standing, StandingEvent
from tickets.models import Artifact, Dataset, Leftover, Mail, Status, Ticket, TicketEvent
from training.models import Assignment, Audit, Blob, Replay, Round, Run, Shard

PAID, SETTLED = "0x" + "aa" * 32, "0x" + "bb" * 32
WALLET, PAYER = "0x" + "12" * 20, "0x" + "34" * 20


def everything() -> Ticket:
    ticket, provider = _ticket(), _provider()
    _money(ticket, provider)
    _training(ticket, provider)
    _log(ticket.customer)
    return ticket


def _ticket() -> Ticket:
    soon = timezone.now() + timedelta(days=1)
    fields = {
        "file_name": "cells.csv",
        "file_size": 1_250_000,
        "price": 130_000,
        "payer": PAYER,
        "signature": b"x" * 65,
    }
    fields |= {"status": Status.SETTLED, "paid_tx": PAID, "accuracy": 0.97, "outcome": "accuracy 97.0%"}
    ticket = Ticket.objects.create(customer=person("customer"), pay_by=soon, settle_by=soon, **fields)
    TicketEvent.objects.create(ticket=ticket, kind="moved", old="quoted", new="paid", text="<b>paid</b>")
    Dataset.objects.create(ticket=ticket, file="datasets/x.csv", name="cells.csv", size=10, sha256="0" * 64)
    Artifact.objects.create(ticket=ticket, file="artifacts/model.json", name="model.json", size=10, sha256="0" * 64)
    Leftover.objects.create(name="parts/x", tries=1, error="refused", due=soon)
    Mail.objects.create(
        ticket=ticket, kind="done", to=ticket.customer.email, subject="Your model is ready", error="refused"
    )
    return ticket


def _provider() -> Provider:
    user = person("provider")
    ApiKey.issue(user)
    fields = {"standing": Standing.ACTIVE, "deposit_gwei": 1_000_000, "deposit_tx": PAID}
    provider = Provider.objects.create(user=user, user_name="gpu-farm", wallet=WALLET, **fields)
    StandingEvent.objects.create(provider=provider, old="pending", new="active", reason="deposit paid", case=uuid4())
    Connection.objects.create(provider=provider, channel="c", device="laptop")
    measurement = Measurement.objects.create(value="ab" * 48, title="worker 0.1.0")
    told = {"product": "Milan", "tcb": "4.0.22.213", "chip": "cd" * 64, "measurement": measurement}
    told |= {"presented": timezone.now(), "expires": timezone.now() + timedelta(hours=1), "state": "valid"}
    Attestation.objects.create(provider=provider, nonce="ef" * 32, report=b"report", certificate=b"\x30", **told)
    replay = {"provider": "gpu-farm", "shard": "0" * 64, "relative_distance": 0.9, "cosine": 0.1}
    case = Accusation.objects.create(honest=[PAYER], reason="two replays", evidence={"round": 1, "replays": [replay]})
    case.cheats.add(provider)
    later = timezone.now() + timedelta(hours=3)
    ChainTx.objects.create(
        key=f"executeBan:{case.pk}", verb="executeBan", case=case.pk, to=PAYER, data="0x", not_before=later
    )
    return provider


def _money(ticket: Ticket, provider: Provider) -> None:
    place = {"chain_id": 1, "block": 7, "block_hash": "0x1", "tx": PAID, "case": ticket.pk}
    args = {"ticket": str(ticket.pk), "payer": PAYER, "amount": 130_000}
    paid = ChainEvent.objects.create(name="Paid", log_index=0, args=args, **place)
    deposit = {"provider": WALLET, "stake": 1_000_000}
    ChainEvent.objects.create(name="Registered", log_index=1, args=deposit, **place | {"case": provider.pk})
    accounts = {"debit": f"outside:{PAYER}", "credit": f"escrow:{ticket.pk}"}
    Transfer.objects.create(
        key="paid", kind="posted", currency="DML", amount=130_000, case=ticket.pk, event=paid, **accounts
    )
    coins = {"debit": f"outside:{WALLET}", "credit": f"deposit:{WALLET}", "currency": Currency.COIN}
    Transfer.objects.create(key="deposit", kind="posted", amount=1_000_000, case=provider.pk, **coins)
    fields = {"sender": PAYER, "nonce": 3, "state": "reverted", "to": PAYER, "data": "0x00"}
    tx = ChainTx.objects.create(key=f"settle:{ticket.pk}", verb="settle", case=ticket.pk, error="Paused()", **fields)
    fees = {"max_fee_gwei": 2, "tip_gwei": 1, "fee_gwei": 123_000, "block": 8, "gas_used": 100}
    Attempt.objects.create(tx=tx, raw=b"raw", hash=SETTLED, broadcasts=2, gas=50_000, **fees)
    Cursor.objects.create(chain_id=1, escrow=PAYER, block=7)
    Alarm.objects.create(kind="transaction reverted", case=ticket.pk, text="settle")
    Sighting.objects.create(name="Paid", case=uuid4(), tx=PAID, block=9, block_hash="0x2")
    row = {"name": "escrow accounts = escrowed", "currency": "DML", "left": 130_000, "right": 130_001}
    Reconciliation.objects.create(block=7, balanced=False, rows=[row])


def _training(ticket: Ticket, provider: Provider) -> None:
    blob = Blob.objects.create(sha256="0" * 64, size=1)
    names = {"epochs": 1, "batch_size": 20, "learning_rate": 0.1, "seed": 7, "classes": ["a", "b"], "rounds": 1}
    run = Run.objects.create(
        ticket=ticket, spec=blob, start=blob, holdout=blob, facts={"holdout_samples": 200}, **names
    )
    closed = {"state": Round.State.CLOSED, "accuracy": 0.97, "loss": 0.1, "closed": timezone.now()}
    round_ = Round.objects.create(run=run, number=1, start=blob, end=blob, **closed)
    shard = Shard.objects.create(run=run, number=0, blob=blob, samples=400)
    work = {"state": Assignment.State.COMMITTED, "correct": 190, "suspicion": "too far", "update": blob}
    found = Assignment.objects.create(round=round_, shard=shard, provider=provider, deadline=timezone.now(), **work)
    audit = Audit.objects.create(assignment=found, why="points away", state="failed", deadline=found.deadline)
    told = {"start": "a" * 64, "claimed": "b" * 64, "allowed": 0.02}
    Replay.objects.create(audit=audit, segment=3, number=1, relative=0.9, cosine=0.1, agrees=False, **told)


def _log(user: User) -> None:
    Group.objects.create(name="auditors")
    about = ContentType.objects.get_for_model(user)
    LogEntry.objects.create(user=user, content_type=about, object_id=user.pk, object_repr="x", action_flag=ADDITION)
