"""A ticket's aggregation rule in its rounds, the platform's own update, and what becomes of updates that look odd."""

from datetime import timedelta

import numpy as np
import pytest
from django.utils import timezone

from dmlworker import datasets, models, trainer
from dmlworker.aggregation import fedavg
from dmlworker.weights import pack
from tickets.models import Ticket
from training import actions, audits, compute, evidence, store, tasks
from training.models import Assignment, Round, Run
from training.tests.conftest import commit, leases, make_provider, make_ticket

PARTS = 4


@pytest.fixture
def trained(transactional_db, files, settings):
    """Builds a run of four shards with a small model, and trains the first round of it honestly."""
    settings.PROVIDERS_PER_TICKET = PARTS

    def build(**options) -> Run:
        random = np.random.default_rng(1)
        x = random.normal(size=(400, 6)).astype(np.float32)
        data = datasets.Dataset(x, (x[:, 0] + x[:, 1] ** 2 > 1).astype(np.int32), ("a", "b"), (), "csv")
        train, holdout = datasets.split(data, 1)
        spec = models.spec(models.build((6,), 2, "mlp", models.statistics(x)))
        blobs = [store.put(found) for found in (models.spec_bytes(spec), pack(trainer.initial_weights(spec, 1)))]
        held = store.put(datasets.dump(holdout.x, holdout.y))
        shards = [(store.put(datasets.dump(part.x, part.y)), len(part)) for part in datasets.shards(train, PARTS, 1)]
        prepared = actions.Prepared(*blobs, held, shards, ["a", "b"], {"holdout_samples": len(holdout)})
        run = actions.open_run(make_ticket(rounds=3, **options), prepared, seed=7)
        for name in "abcd":
            make_provider(name)
        assert actions.start(run)
        for lease in leases(run):
            work(lease, lease.shard.blob_id)
        Round.objects.filter(run=run).update(root=None)
        return Run.objects.get(pk=run.pk)

    return build


def work(lease: Assignment, shard: str) -> None:
    """Train a lease on the data of some shard, and commit to the result."""
    x, y = datasets.load(store.get(shard))
    start = compute.weights_of(lease.round.start_id)
    found = store.put_weights(trainer.train(compute.spec_of(lease.round.run), start, x, y, actions.hyper_of(lease)))
    commit(lease)
    Assignment.objects.filter(pk=lease.pk).update(update=found, weights=found)


def alter(lease: Assignment, factor: float) -> None:
    start, end = (compute.weights_of(str(sha256)) for sha256 in (lease.round.start_id, lease.weights_id))
    found = store.put_weights([a + np.float32(factor) * (b - a) for a, b in zip(start, end, strict=True)])
    Assignment.objects.filter(pk=lease.pk).update(update=found, weights=found)


def first(run: Run) -> Round:
    return Round.objects.select_related("run").get(run=run, number=1)


def averaged(run: Run) -> list[Assignment]:
    """The updates of the first round, looked at and averaged."""
    compute.root_update(first(run))
    for update in actions.updates_of(first(run)):
        compute.look(update)
    round_ = first(run)
    updates = actions.updates_of(round_)
    actions.finish_round(round_, updates, *compute.average(round_, updates))
    return updates


# --- Half the weight --------------------------------------------------------------------------------------------------
def test_what_looks_odd_counts_half_and_is_audited(trained):
    run = trained()
    alter(leases(run)[2], 10)
    updates = averaged(run)
    assert [update.weight for update in updates] == [160, 160, 80, 160]
    odd = updates[2]
    assert "times the median of the others" in odd.suspicion
    local = [(compute.weights_of(update.weights_id), update.weight) for update in updates]
    for ours, expected in zip(compute.weights_of(first(run).end_id), fedavg(local), strict=True):
        assert np.array_equal(ours, expected)
    for update in updates:
        update.provider.streak = 10**9
    assert (odd, odd.suspicion) in audits.ordered(first(run), updates)


def test_averaging_again_says_the_same_once(trained):
    """A job that died after it wrote the suspicion down."""
    run = trained()
    alter(leases(run)[2], 10)
    round_ = first(run)
    ends = [compute.average(round_, actions.updates_of(round_))[0].pk for _ in range(2)]
    assert ends[0] == ends[1]
    assert actions.updates_of(round_)[2].suspicion.count("times the median") == 1


# --- What the model says ----------------------------------------------------------------------------------------------
def suspicions(run: Run) -> list[str]:
    return [update.suspicion for update in averaged(run)]


@pytest.mark.parametrize("strategy", ["fedavg", "fedadam"])
def test_honest_work_is_not_odd_and_work_on_other_data_is(trained, strategy):
    run = trained(strategy=strategy)
    assert suspicions(run) == [""] * PARTS


def test_work_on_anothers_shard_is_odd(trained):
    run = trained()
    one, two, *_ = leases(run)
    for lease, other in ((one, two), (two, one)):
        Assignment.objects.filter(pk=lease.pk).update(update=other.update, weights=other.weights)
    updates = averaged(run)
    assert ["own shard" in update.suspicion for update in updates] == [True, True, False, False]
    assert [update.weight for update in updates] == [80, 80, 160, 160]


def test_an_update_is_looked_at_before_it_is_averaged(trained, monkeypatch):
    """The last look closes the round, once the platform's own update is there."""
    sent = []
    monkeypatch.setattr("dmlsite.jobs._send", lambda actor, args, delay: sent.append((actor, *args)))
    monkeypatch.setattr(tasks, "close_round", sent.append)
    run = trained()
    Assignment.objects.filter(round__run=run).update(received=None)
    sent.clear()
    for lease in leases(run):
        tasks.receive(lease.pk)
    assert sent == [("training.tasks.look", lease.pk) for lease in leases(run)]
    compute.root_update(first(run))
    for lease in leases(run):
        assert actions.ready(first(run)) == []
        tasks.look(lease.pk)
    assert sent[PARTS:] == [first(run).pk]
    assert all(len(lease.look["losses"]) == PARTS for lease in leases(run))
    tasks.look(leases(run)[0].pk)  # a message that came twice
    assert len(sent) == PARTS + 1


def test_where_all_are_trusted_nothing_is_looked_at(trained, monkeypatch, settings):
    sent = []
    settings.AUDITS = False
    monkeypatch.setattr("dmlsite.jobs._send", lambda actor, args, delay: sent.append(actor))
    monkeypatch.setattr(tasks, "close_round", sent.append)
    run = trained()
    Assignment.objects.filter(round__run=run).update(received=None)
    for lease in leases(run):
        tasks.receive(lease.pk)
    assert sent[-1] == first(run).pk and first(run).root_id is None
    assert not {"training.tasks.look", "training.tasks.root"} & set(sent)


# --- The platform's own update ----------------------------------------------------------------------------------------
@pytest.mark.parametrize("audits_", [True, False])
def test_fltrust_waits_for_the_platforms_own_update_and_goes_its_way(trained, monkeypatch, settings, audits_):
    sent, settings.AUDITS = [], audits_
    monkeypatch.setattr("dmlsite.jobs._send", lambda actor, args, delay: sent.append((actor, args)))
    monkeypatch.setattr(tasks.close_round, "send", lambda pk: sent.append(("close", pk)))
    run = trained(rule="fltrust")
    round_ = first(run)
    assert ("training.tasks.root", (round_.pk,)) in sent
    assert actions.ready(round_) == []
    tasks.root(round_.pk)
    assert sent[-1] == ("close", round_.pk)
    assert len(actions.ready(round_)) == PARTS  # asked by one who read the round before
    root = first(run).root_id
    tasks.root(round_.pk)
    assert first(run).root_id == root

    alter(leases(run)[0], -5)
    updates = averaged(run)
    assert "platform's own update" in updates[0].suspicion
    start, end, own = (np.concatenate([a.ravel() for a in compute.weights_of(x)]) for x in (round_.start_id, first(run).end_id, root))  # fmt: skip
    assert np.linalg.norm(end - start) <= 1.001 * np.linalg.norm(own - start)


def test_the_sweep_trains_a_root_that_was_lost(trained, monkeypatch):
    run, again = trained(rule="fltrust"), []
    monkeypatch.setattr(tasks.root, "send", again.append)
    Round.objects.filter(run=run).update(opened=timezone.now() - timedelta(hours=1))
    tasks.sweep()
    assert again == [first(run).pk]


def test_its_samples_are_evenly_of_all_classes():
    y = np.repeat(np.array([0, 1, 2], np.int32), [500, 60, 5])
    x = np.arange(565, dtype=np.float32)[:, None]
    few, labels = datasets.few(x, y, evidence.ROOT_SAMPLES)
    assert np.bincount(labels).tolist() == [48, 47, 5]
    assert few[:, 0].tolist() == [*range(48), *range(500, 547), *range(560, 565)]
    assert len(datasets.few(x, y, 10_000)[1]) == 565


# --- A quorum ---------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(("rule", "enough"), [("mean", 2), ("median", 3), ("fltrust", 2), ("bulyan", 4)])
def test_a_quorum_is_large_enough_for_the_rule_to_withstand_a_cheat(trained, settings, rule, enough):
    settings.QUORUM_PERCENT, settings.LEASE_SECONDS = 50, 10
    run = trained(rule=rule)
    Round.objects.filter(run=run).update(opened=timezone.now() - timedelta(hours=1), root=store.put(b"root"))
    done = Assignment.objects.filter(round__run=run)
    done.update(received=timezone.now() - timedelta(minutes=59))
    for left in range(PARTS, 0, -1):
        assert bool(actions.ready(first(run))) == (left >= enough)
        done.filter(pk=done.filter(received__isnull=False)[0].pk).update(received=None)


def test_the_platforms_own_update_takes_the_steps_that_the_workers_take(trained):
    """Of a round with a schedule and clipped gradients. There are three rounds; of ten, the first's rate is a third."""
    run = trained(learning_rate=0.3)

    def own(**fields) -> str:
        Run.objects.filter(pk=run.pk).update(**fields)
        return store.put_weights(compute._own_update(Round.objects.get(run=run))).sha256

    plain = own()
    Ticket.objects.filter(pk=run.ticket_id).update(rounds=10)
    slow = own(schedule="warm-up")
    assert plain != slow == own(schedule="constant", learning_rate=0.1)
    assert own(clip=0.01) not in (plain, slow)
    assert own(clip=0.0) != own(optimizer="adam")
