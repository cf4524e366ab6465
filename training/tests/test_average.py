"""A round's mean: the same to the last bit whoever answered first."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dmlworker import datasets, models, trainer
from dmlworker.weights import pack, unpack
from training import actions, compute, store
from training.consumers import lease_of
from training.models import Assignment, Round
from training.tests.conftest import ROOT, make_provider, make_ticket

pytestmark = pytest.mark.django_db
SHARDS = 5
SIZES = (60, 7, 23, 41, 60)


@pytest.fixture
def round_(settings, files, monkeypatch):
    """Open, its leases with five providers."""
    monkeypatch.setattr("dmlsite.jobs._send", lambda *args: None)
    monkeypatch.setattr("dmlsite.live._send", lambda *args: None)
    settings.PROVIDERS_PER_TICKET = SHARDS
    random = np.random.default_rng(1)
    x, y = random.normal(size=(60, 4)).astype(np.float32), random.integers(0, 2, 60).astype(np.int32)
    spec = models.spec(models.build((4,), 2, "mlp", models.statistics(x)))
    blobs = [store.put(data) for data in (models.spec_bytes(spec), pack(trainer.initial_weights(spec, 1)))]
    shards = [(store.put(datasets.dump(x[:size], y[:size])), size) for size in SIZES]
    prepared = actions.Prepared(*blobs, shards[0][0], shards, ["a", "b"], {"holdout_samples": 60})
    run = actions.open_run(make_ticket(rounds=2), prepared, seed=7)
    for number in range(SHARDS):
        make_provider(f"provider-{number}")
    assert actions.start(run)
    return Round.objects.select_related("run").get(run=run)


def update(round_: Round, shard: int) -> bytes:
    """The first and the last shard's changes are huge and cancel each other out: what was added between them loses bits."""
    random = np.random.default_rng(shard)
    far = {0: 1e12, SHARDS - 1: -1e12}.get(shard, 0.0)
    start = unpack(store.get(round_.start_id))
    return pack([(array + random.normal(size=array.shape) + far).astype(np.float32) for array in start])


def answered(round_: Round, order: list[int]) -> str:
    """The hash of the round's mean, where the shards' updates arrive in this order; all is undone again."""
    leases = Assignment.objects.filter(round=round_).select_related("round__run", "shard", "provider")
    by_shard = {lease.shard.number: lease for lease in leases}
    for shard in order:
        lease, blob = by_shard[shard], store.put(update(round_, shard))
        actions.record_update(lease.provider, lease_of(lease), blob.pk, ROOT)
        Assignment.objects.filter(pk=lease.pk).update(weights=blob)
        actions.received(lease)
    found = actions.updates_of(round_)
    assert len(found) == SHARDS
    mean = compute.average(round_, found)[0].pk
    leases.update(state=Assignment.State.ACCEPTED, update=None, weights=None, received=None, committed=None)
    return mean


@pytest.mark.parametrize("rule", ["mean", "median", "trimmed", "clipping", "rfa"])
@settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(order=st.permutations(range(SHARDS)))
def test_the_order_of_arrival_changes_no_bit(round_, rule, order):
    round_.run.rule = rule
    assert answered(round_, order) == answered(round_, list(range(SHARDS)))
