"""A conviction needs two replays that contradict the claim and confirm each other. Real arithmetic, no processes."""

import json

import numpy as np
import pytest

from dmlworker import models, trainer
from dmlworker.weights import pack
from training import actions, compute, datasets, store, tasks
from training.models import Assignment, Audit
from training.tests.conftest import make_provider, make_ticket


@pytest.fixture
def update(transactional_db, files, settings):
    """An honest update of a tiny model on one shard."""
    settings.PROVIDERS_PER_TICKET = 1
    random = np.random.default_rng(1)
    x = random.normal(size=(60, 4)).astype(np.float32)
    y = (x[:, 0] > 0).astype(np.int32)
    spec = models.spec(models.build((4,), 2, "mlp", models.statistics(x)))
    start = trainer.initial_weights(spec, 1)
    blobs = [store.put(data) for data in (models.spec_bytes(spec), pack(start), datasets.dump(x, y))]
    prepared = actions.Prepared(*blobs, [(blobs[2], 60)], ["a", "b"], {"holdout_samples": 60})
    run = actions.open_run(make_ticket(rounds=1), prepared, seed=7)
    make_provider("ada")
    assert actions.start(run)
    lease = Assignment.objects.select_related("round__run", "shard").get()
    hyper = actions.hyper_of(lease)
    return claim(lease, trainer.train(spec, start, x, y, hyper))


def claim(lease: Assignment, weights) -> Assignment:
    lease.update = lease.weights = store.put(pack(weights))
    lease.save()
    return lease


def turned_round(lease: Assignment):
    pairs = zip(compute.weights_of(lease.round.start_id), compute.weights_of(lease.weights_id), strict=True)
    return [2 * start - end for start, end in pairs]


def test_honest_work_passes_at_the_first_replay(update):
    assert tasks._audit(update, "drawn at random") is None
    assert [(audit.number, audit.passed) for audit in Audit.objects.all()] == [(1, True)]
    assert Audit.objects.get().relative < 0.01


def test_altered_work_is_contradicted_by_two_replays(update):
    claim(update, turned_round(update))
    evidence = tasks._audit(update, "points away")
    assert evidence is not None
    assert [audit.passed for audit in Audit.objects.all()] == [False, False]
    assert evidence.relative == pytest.approx(2, abs=0.1)
    json.dumps(actions.evidence_of(evidence), allow_nan=False)
    again = tasks._audit(update, "points away")
    assert (again.pk, Audit.objects.count()) == (evidence.pk, 2)


def test_where_the_replays_disagree_nobody_is_blamed(update, monkeypatch):
    """As with a learning rate near divergence: other kernels, another result."""
    real = compute.replay

    def unstable(assignment, elsewhere):
        done = real(assignment, elsewhere=False)
        return [array + np.float32(elsewhere) for array in done]

    claim(update, turned_round(update))
    monkeypatch.setattr(compute, "replay", unstable)
    assert tasks._audit(update, "points away") is None
    assert "inconclusive" in Audit.objects.get(number=2).why
