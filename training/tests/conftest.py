"""A run in training, made of rows: what leases need, without any arithmetic."""

from datetime import timedelta
from uuid import uuid4

import pytest
from django.utils import timezone

from accounts.models import User
from providers.models import Connection, Provider, Standing
from tickets.models import Status, Ticket
from training import actions, audits, store
from training.consumers import lease_of
from training.models import Assignment, Round, Run

ROOT = "7" * 64
"""Of a trace that nobody asks to see."""


def make_provider(name: str, online: bool = True) -> Provider:
    user = User.objects.create_user(f"{name}@example.org", "x", is_provider=True)
    wallet = "0x" + uuid4().hex.ljust(40, "0")[:40]
    provider = Provider.objects.create(user=user, user_name=name, wallet=wallet, standing=Standing.ACTIVE)
    if online:
        Connection.objects.create(provider=provider, channel=f"channel-{name}")
    return provider


def make_ticket(status: str = Status.UPLOADED, **fields) -> Ticket:
    customer = User.objects.create_user(f"{uuid4().hex[:8]}@example.org", "x", is_customer=True)
    soon = timezone.now() + timedelta(days=1)
    names = {"file_name": "a.csv", "file_size": 10, "price": 10_000, "payer": "0x" + "a" * 40, "signature": b""}
    return Ticket.objects.create(customer=customer, status=status, pay_by=soon, settle_by=soon, **names | fields)


@pytest.fixture
def files(settings, tmp_path):
    settings.MEDIA_ROOT, settings.FILE_UPLOAD_TEMP_DIR = tmp_path, tmp_path / "unfinished"
    settings.FILE_UPLOAD_TEMP_DIR.mkdir()


@pytest.fixture
def run(transactional_db, files, settings) -> Run:
    """Waiting, two shards, two rounds."""
    settings.PROVIDERS_PER_TICKET = 2
    ticket = make_ticket(rounds=2)
    blobs = {name: store.put(name.encode()) for name in ("spec", "start", "holdout", "shard 0", "shard 1")}
    shards = [(blobs["shard 0"], 6), (blobs["shard 1"], 5)]
    prepared = actions.Prepared(
        blobs["spec"], blobs["start"], blobs["holdout"], shards, ["a", "b"], {"holdout_samples": 10}
    )
    return actions.open_run(ticket, prepared, seed=7)


@pytest.fixture
def started(run):
    """A run whose first round is with ada and bob."""
    make_provider("ada"), make_provider("bob")
    assert actions.start(run)
    run.refresh_from_db()
    return run


def leases(run, number=1):
    return list(
        Assignment.objects.filter(round__run=run, round__number=number, round__voided=None).select_related(
            "round__run", "shard", "provider"
        )
    )


def commit(assignment, data=b"update", correct=5):
    """A well-formed update that was looked at, and the platform's own beside it."""
    update = store.put(data + str(assignment.pk).encode())
    actions.record_update(assignment.provider, lease_of(assignment), update.pk, ROOT)
    Assignment.objects.filter(pk=assignment.pk).update(correct=correct)
    Assignment.objects.filter(pk=assignment.pk).update(weights=update)
    Round.objects.filter(pk=assignment.round_id, root=None).update(root=update)
    actions.received(assignment)
    return update


def close(run, number=1, loss=1.0, check=True):
    """Average a round that everybody committed to, and check it."""
    round_ = Round.objects.select_related("run").get(run=run, number=number)
    actions.finish_round(round_, actions.updates_of(round_), store.put(f"average {number}".encode()), None)
    if check:
        check_round(run, number, loss)


def check_round(run, number=1, loss=1.0, accuracy=0.5):
    """Measured, with no audit ordered, and passed."""
    round_ = Round.objects.select_related("run").get(run=run, number=number)
    audits.measured(round_, accuracy, loss, [])
    audits.judge(round_)


def another(run, customer=None) -> Run:
    ticket = make_ticket(rounds=2)
    if customer:
        ticket.customer = customer
        ticket.save()
    shards = [(shard.blob, shard.samples) for shard in run.shards.all()]
    prepared = actions.Prepared(run.spec, run.start, run.holdout, shards, run.classes, run.facts)
    return actions.open_run(ticket, prepared, seed=8)
