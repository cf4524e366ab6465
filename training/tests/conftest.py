"""A run in training, made of rows: what leases need, without any arithmetic."""

from datetime import timedelta
from uuid import uuid4

import pytest
from django.utils import timezone

from accounts.models import User
from providers.models import Connection, Provider, Standing
from tickets.models import Status, Ticket
from training import actions, store
from training.models import Run


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
    settings.MEDIA_ROOT = tmp_path


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
