"""A ticket's way of averaging, from round to round."""

import numpy as np
import pytest

from dmlworker import comparison, compression, datasets, models, trainer
from dmlworker.weights import MalformedUpdate, pack, unpack
from training import actions, compute, store
from training.models import Assignment, Round
from training.tests.conftest import check_round, make_provider, make_ticket

pytestmark = pytest.mark.django_db


def run_with(strategy: str, **options):
    """A run of two rounds on one shard, in the first of which one provider works."""
    random = np.random.default_rng(1)
    x, y = random.normal(size=(60, 4)).astype(np.float32), random.integers(0, 2, 60).astype(np.int32)
    spec = models.spec(models.build((4,), 2, "mlp", models.statistics(x)))
    blobs = [store.put(data) for data in (models.spec_bytes(spec), pack(trainer.initial_weights(spec, 1)))]
    holdout = store.put(datasets.dump(x, y))
    prepared = actions.Prepared(*blobs, holdout, [(holdout, 60)], ["a", "b"], {"holdout_samples": 60})
    run = actions.open_run(make_ticket(rounds=2, strategy=strategy, **options), prepared, seed=7)
    make_provider(f"ada-{strategy}")
    assert actions.start(run)
    return run


def closed(run, change: float):
    """Close the open round with one update that moved every weight by `change`."""
    round_ = Round.objects.select_related("run").get(run=run, state=Round.State.OPEN)
    lease = Assignment.objects.select_related("shard").get(round=round_)
    lease.update = lease.weights = store.put(
        pack([array + np.float32(change) for array in unpack(store.get(round_.start_id))])
    )
    lease.save()
    end, kept = compute.average(round_, [lease])
    actions.finish_round(round_, [lease], end, kept)
    check_round(run, round_.number, 0.1)
    return round_.start_id, end.pk


def moved(pair) -> float:
    start, end = (np.concatenate([array.ravel() for array in unpack(store.get(sha256))]) for sha256 in pair)
    assert np.ptp(end - start) < 1e-6
    return float(np.mean(end - start))


@pytest.fixture(autouse=True)
def no_messages(monkeypatch, settings, tmp_path):
    monkeypatch.setattr("dmlsite.jobs._send", lambda *args: None)
    monkeypatch.setattr("dmlsite.live._send", lambda *args: None)
    settings.PROVIDERS_PER_TICKET, settings.MEDIA_ROOT = 1, tmp_path


@pytest.mark.parametrize(("strategy", "second"), [("fedavg", 1.0), ("fedprox", 1.0), ("fedavgm", 1.9)])
def test_what_the_optimizer_keeps_goes_on_to_the_next_round(strategy, second):
    run = run_with(strategy)
    assert moved(closed(run, 1.0)) == pytest.approx(1.0, abs=1e-6)
    assert (Round.objects.get(run=run, number=1).kept is None) == (strategy != "fedavgm")
    assert moved(closed(run, 1.0)) == pytest.approx(second, abs=1e-5)


def test_only_fedprox_holds_the_workers_back():
    for strategy, mu in (("fedprox", 0.5), ("fedavg", 0.0)):
        [lease] = Assignment.objects.filter(round__run=run_with(strategy, proximal=0.5))
        assert actions.hyper_of(lease).proximal == mu


@pytest.mark.parametrize("kind", ["fp16", "int8"])
def test_a_short_update_stands_for_weights_near_those_that_were_trained(kind):
    run = run_with("fedavg", compression=kind)
    [lease] = Assignment.objects.select_related("round__run", "shard").all()
    start = unpack(store.get(lease.round.start_id))
    delta = [np.random.default_rng(2).normal(0, 0.1, array.shape).astype(np.float32) for array in start]
    trained = [array + change for array, change in zip(start, delta, strict=True)]
    lease.update = store.put(compression.encode(delta, actions.hyper_of(lease).compression)[0])
    lease.weights_id = compute.receive(lease)
    lease.save()
    assert run.compression == kind
    sent = compute.weights_of(lease.weights_id)
    assert comparison.compare(start, sent, trained).relative < 0.02


def test_bytes_of_another_kind_are_malformed():
    run_with("fedavg", compression="int8")
    [lease] = Assignment.objects.select_related("round__run").all()
    lease.update_id = lease.round.start_id
    with pytest.raises(MalformedUpdate):
        compute.receive(lease)
