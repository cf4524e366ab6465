"""An audit does a few segments again: honest work passes, and two replays contradict altered work. Real arithmetic."""

import json
from dataclasses import fields, replace
from functools import partial

import numpy as np
import pytest

from dmlworker import comparison, compression, datasets, models, optimizers, trainer
from dmlworker.protocol import Hyper
from dmlworker.trace import Recorder, Segment, Trace, steps_of_segment
from dmlworker.weights import pack, unpack
from training import actions, audits, compute, evidence, store
from training.models import Assignment, Audit, Blob, Replay
from training.tests.conftest import make_provider, make_ticket

State = Audit.State


class Worker:
    """Does the work of a lease on 200 samples, ten steps of 20 and two epochs: four segments of five. What it shows, and
    whether that is what it did, is up to the test."""

    def __init__(self, lease: Assignment, spec, start, x, y) -> None:
        self.lease, self.spec, self.start, self.x, self.y = lease, spec, start, x, y
        self.kept = [start]
        self.hyper = actions.hyper_of(lease)
        self.work(x, y)

    def work(self, x, y, hyper: Hyper | None = None) -> None:
        self.kept = [self.start]
        keep = lambda weights: self.kept.append([array.copy() for array in weights])  # noqa: E731
        trainer.train(self.spec, self.start, x, y, hyper or self.hyper, checkpoint=keep)

    def go_on(self, segment: int, at) -> None:
        """With what is done as it should be, but from another checkpoint `at` in the place of that segment's."""
        self.kept[segment:] = [at]
        for number in range(segment, 4):
            steps = steps_of_segment(number, len(self.y), self.hyper)
            self.kept.append(trainer.replay(self.spec, self.start, self.x, self.y, self.hyper, self.kept[-1], steps))

    def commit(self, update=None) -> None:
        """To the checkpoints as they are now; the update is the last one, unless it is another."""
        stored = lambda number, weights: Blob.objects.get(pk=store.put(pack(weights)).pk).pk  # noqa: E731
        record = Recorder(self.start, stored, self.hyper.optimizer)
        for weights in self.kept[1:]:
            record(weights)
        self.trace = record.trace
        self.lease.root = self.trace.root
        self.lease.update = self.lease.weights = store.put(pack(self.kept[-1] if update is None else update))
        self.lease.state = Assignment.State.COMMITTED
        self.lease.save()

    def audited(self, drawn=(1,), trace: bytes | None = None) -> Audit:
        """The audit, decided."""
        shown = store.put(self.trace.to_bytes() if trace is None else trace)
        fields = {"why": "drawn by chance", "drawn": list(drawn), "deadline": self.lease.deadline}
        audit = Audit.objects.create(assignment=self.lease, state=State.SHOWN, trace=shown, **fields)
        audits.decide(audit, *compute.audit(audit))
        audit.refresh_from_db()
        return audit


def classes(x):
    return (x[:, 0] > 0).astype(np.int32), 2, {}


def numbers(x):
    y = (1000 + 30 * x[:, 0] - 10 * x[:, 1]).astype(np.float32)
    return y, 1, {"target": models.target_statistics(y)}


def labels(x):
    return (x[:, :3] > 0).astype(np.uint8), 3, {}


TARGETS = {"classification": classes, "regression": numbers, "multilabel": labels}


@pytest.fixture
def make(transactional_db, files, settings):
    """A worker that has done its work, on a tiny model."""

    def made(learnt="classification", **fields) -> Worker:
        settings.PROVIDERS_PER_TICKET = 1
        random = np.random.default_rng(1)
        x = random.normal(size=(200, 4)).astype(np.float32)
        y, outputs, head = TARGETS[learnt](x)
        spec = models.spec(models.build((4,), outputs, "mlp", models.statistics(x), task=learnt, **head))
        start = trainer.initial_weights(spec, 1)
        blobs = [store.put(data) for data in (models.spec_bytes(spec), pack(start), datasets.dump(x, y))]
        prepared = actions.Prepared(*blobs, [(blobs[2], 200)], ["a", "b"], {"holdout_samples": 200})
        run = actions.open_run(make_ticket(rounds=1, epochs=2, **fields), prepared, seed=7)
        make_provider("ada")
        assert actions.start(run)
        lease = Assignment.objects.select_related("round__run", "shard", "provider").get()
        return Worker(lease, spec, start, x, y)

    return made


@pytest.fixture
def worker(make):
    return make()


def flipped(start, weights):
    return [2 * begin - end for begin, end in zip(start, weights, strict=True)]


def test_honest_work_passes_at_the_first_replay_of_each_segment(worker):
    worker.commit()
    audit = worker.audited()
    assert audit.state == State.PASSED
    assert {(replay.number, replay.agrees) for replay in audit.replays.all()} == {(1, True)}
    assert {0, 1, 3} <= {replay.segment for replay in audit.replays.all()}
    assert max(replay.relative for replay in audit.replays.all()) < 1e-4
    audit.assignment.provider.refresh_from_db()
    assert audit.assignment.provider.streak == 1


def convicted(audit: Audit, segment: int) -> None:
    assert audit.state == State.FAILED
    pair = audit.replays.filter(segment=segment)
    assert [(replay.number, replay.agrees) for replay in pair] == [(1, False), (2, False)]
    audit.assignment.provider.refresh_from_db()
    assert audit.assignment.provider.streak == 0
    told = actions.evidence_of([audit])
    json.dumps(told, allow_nan=False)
    pair = [each for each in told if each["segment"] == segment]
    assert [each["result"] for each in pair] == [replay.result for replay in audit.replays.filter(segment=segment)]
    start, claimed, first, second = (
        unpack(store.get(pair[n][name])) for n, name in ((0, "start"), (0, "claimed"), (0, "result"), (1, "result"))
    )
    with store.local(audit.assignment.shard.blob_id) as shard:
        work = compute.Work.of(audit, shard)
    compare = partial(comparison.compare_checkpoints, work.hyper.optimizer, work.weights, start)
    for each, result in zip(pair, (first, second), strict=True):
        assert compare(claimed, result).relative == pytest.approx(each["relative_distance"])
        assert compare(first, second).relative <= each["honest_replays_apart"] < 0.025


def test_the_evidence_is_enough_to_do_a_replay_again(worker):
    worker.work(worker.x, 1 - worker.y)
    worker.commit()
    told, _ = actions.evidence_of([worker.audited()])
    spec = models.spec_from_bytes(store.get(told["spec"]))
    hyper = Hyper(**{field.name: told[field.name] for field in fields(Hyper)})
    x, y = datasets.load(store.get(told["shard"]))
    round_start, start = (unpack(store.get(told[name])) for name in ("round_start", "start"))
    steps = steps_of_segment(told["segment"], len(y), hyper)
    assert store.put_weights(trainer.replay(spec, round_start, x, y, hyper, start, steps)).pk == told["result"]


def test_of_a_replay_that_agrees_the_hash_is_enough(worker):
    worker.commit()
    audit = worker.audited()
    shown = {segment.sha256 for segment in worker.trace.segments}
    results = set(audit.replays.values_list("result", flat=True))
    assert all(len(result) == 64 for result in results)
    assert not Blob.objects.filter(pk__in=results - shown).exists()


def test_an_update_that_is_not_what_the_trace_ends_with_is_contradicted_in_the_last_segment(worker):
    worker.commit(flipped(worker.start, worker.kept[-1]))
    convicted(worker.audited(), 3)


def test_a_trace_made_up_of_nothing_is_contradicted_in_the_first_segment(worker):
    """Returns the start weights, and says that it never moved."""
    worker.kept = [worker.start] * 5
    worker.commit()
    convicted(worker.audited(), 0)


def test_who_stops_early_is_contradicted_where_it_stopped(worker):
    worker.kept[2:] = [worker.kept[1]] * 3
    worker.commit()
    convicted(worker.audited(drawn=[2]), 2)


def test_other_labels_are_contradicted(worker):
    worker.work(worker.x, 1 - worker.y)
    worker.commit()
    convicted(worker.audited(), 0)


@pytest.mark.parametrize("learnt", ["regression", "multilabel"])
def test_of_another_task_honest_work_passes_and_other_targets_are_contradicted(make, learnt):
    worker = make(learnt)
    worker.commit()
    assert worker.audited().state == State.PASSED
    Replay.objects.all().delete(), Audit.objects.all().delete()
    worker.work(worker.x, worker.y[::-1].copy())
    worker.commit()
    convicted(worker.audited(), 0)


def test_one_label_in_ten_is_contradicted(worker):
    """Which the whole of the work, compared at its end, would not have told from rounding for sure."""
    labels = worker.y.copy()
    labels[::10] = 1 - labels[::10]
    worker.work(worker.x, labels)
    worker.commit()
    convicted(worker.audited(), 0)


def test_a_poisoned_segment_is_the_largest_and_so_is_looked_at(worker):
    worker.kept[3] = [array + np.float32(1) for array in worker.kept[3]]
    worker.commit()
    convicted(worker.audited(drawn=[1]), 2)


def test_a_job_that_runs_again_writes_the_same(worker):
    worker.commit(flipped(worker.start, worker.kept[-1]))
    audit = worker.audited()
    said = "segment", "number", "relative", "result", "apart"
    before = list(audit.replays.values_list(*said))
    compute.audit(audit)
    assert list(audit.replays.values_list(*said)) == before


# --- What was not shown, or not as it was committed to ------------------------------------------------------------------
def unproven(audit: Audit, why: str) -> None:
    assert (audit.state, why in audit.note) == (State.UNPROVEN, True), audit.note
    assert not audit.replays.filter(agrees=False).exists()


def test_another_trace_than_the_one_committed_to(worker):
    worker.commit()
    other = Trace(tuple(Segment(segment.sha256, segment.change + 1) for segment in worker.trace.segments))
    unproven(worker.audited(trace=other.to_bytes()), "not the one that was committed to")


def test_no_trace_at_all(worker):
    worker.commit()
    unproven(worker.audited(trace=b"hello"), "Not a trace")


def test_a_trace_of_fewer_segments(worker):
    del worker.kept[3]
    worker.commit()
    unproven(worker.audited(), "not the one that was committed to")


def test_weights_that_were_not_sent(worker):
    worker.commit()
    store.forget([worker.trace.segments[0].sha256])
    unproven(worker.audited(), "not all weights")


def test_weights_that_are_none(worker):
    worker.commit()
    junk = store.put(b"junk").pk
    segments = [Segment(junk, worker.trace.segments[0].change), *worker.trace.segments[1:]]
    worker.trace = Trace(tuple(segments))
    worker.lease.root = worker.trace.root
    worker.lease.save()
    unproven(worker.audited(), "Not a safetensors file")


def test_a_trace_that_lies_about_how_far_a_segment_moved(worker):
    """To have another one taken for the largest."""
    worker.commit()
    worker.trace = Trace(tuple(Segment(segment.sha256, 1e-6) for segment in worker.trace.segments))
    worker.lease.root = worker.trace.root
    worker.lease.save()
    unproven(worker.audited(), "moved")


# --- Rounding ---------------------------------------------------------------------------------------------------------
def test_where_the_replays_disagree_nobody_is_blamed(worker, monkeypatch):
    """As with a learning rate near divergence: other kernels, another result."""
    worker.commit(flipped(worker.start, worker.kept[-1]))
    real = compute._replay_here
    monkeypatch.setattr(compute, "_replay_elsewhere", lambda *args: [[array + np.float32(1) for array in real(*args)]])
    audit = worker.audited()
    assert (audit.state, "apart" in audit.note) == (State.INCONCLUSIVE, True)


def test_a_segment_that_proves_nothing_hides_no_other(worker, monkeypatch):
    worker.commit(flipped(worker.start, worker.kept[-1]))
    real = compute._replay_here

    def elsewhere(work, segment, at):
        return [array + np.float32(1 if segment == 0 else 0) for array in real(work, segment, at)]

    monkeypatch.setattr(compute, "_replay_elsewhere", lambda *args: [elsewhere(*args)])
    audit = worker.audited()
    assert audit.state == State.FAILED
    assert audit.note != "segment 0"


@pytest.mark.parametrize("kind", ["fp16", "int8"])
def test_what_compression_loses_is_no_offence_but_a_lie_on_top_is(make, kind):
    worker = make(compression=kind)
    delta = [end - begin for begin, end in zip(worker.start, worker.kept[-1], strict=True)]
    sent = compression.decode(compression.encode(delta, kind)[0], kind, worker.start)
    worker.commit(sent)
    store.put(pack(worker.kept[-1]))
    assert worker.audited().state == State.PASSED
    Replay.objects.all().delete(), Audit.objects.all().delete()
    worker.commit(flipped(worker.start, sent))
    convicted(worker.audited(), 3)


def test_what_is_evidence_against_another_stays_when_good_work_is_let_go(worker):
    """The same shard was another's before: up to where it cheated, its weights are the same."""
    worker.commit()
    audit = worker.audited()
    lease = Assignment.objects.get(pk=worker.lease.pk)
    lease.pk, lease.attempt, lease.state, lease._state.adding = None, 2, Assignment.State.REVOKED, True
    lease.save()
    cheat = Audit.objects.create(assignment=lease, why="drawn", state=State.FAILED, deadline=lease.deadline)
    same = worker.trace.segments[0].sha256
    told = {"start": same, "claimed": "b" * 64, "allowed": 0.1, "relative": 2.0, "cosine": 0.0, "agrees": False}
    Replay.objects.create(audit=cheat, segment=1, number=1, **told)
    compute.forget_checkpoints(audit)
    assert Blob.objects.filter(pk=same).exists()
    assert not Blob.objects.filter(pk=worker.trace.segments[1].sha256).exists()


def test_what_was_shown_of_good_work_is_removed_but_not_what_is_still_needed(worker):
    worker.commit()
    audit = worker.audited()
    assert evidence.DRAWN_SEGMENTS == 2
    compute.forget_checkpoints(audit)
    left = {segment.sha256 for segment in worker.trace.segments} & set(Blob.objects.values_list("pk", flat=True))
    assert left == {worker.lease.update_id}
    assert unpack(store.get(worker.lease.update_id))


# --- Optimizers that remember -------------------------------------------------------------------------------------------
RATES = {"momentum": 0.03, "adam": 0.003}
ALTERED = [("momentum", 0, -3.0), ("adam", 0, -3.0), ("adam", 1, 0.0), ("adam", 1, 100.0)]


@pytest.fixture(params=RATES)
def remembering(request, make):
    return make(optimizer=request.param, learning_rate=RATES[request.param])


def test_honest_work_with_momentum_and_adam_passes_and_looks_at_the_sharpest_turn(remembering):
    remembering.commit()
    sizes = [len(kept) - len(remembering.start) for kept in remembering.kept]
    assert sizes == [0, *[optimizers.SLOTS[remembering.hyper.optimizer]] * 3, 0]
    audit = remembering.audited(drawn=())
    assert audit.state == State.PASSED, audit.note
    trace = remembering.trace
    assert {0, 3, trace.largest, trace.sharpest} == {replay.segment for replay in audit.replays.all()}
    assert max(replay.relative for replay in audit.replays.all()) < 1e-3


def stopped(worker):
    """A quarter of the work; what it remembers goes on from there unchanged."""
    worker.kept[2:4] = [worker.kept[1]] * 2
    worker.kept[4] = worker.kept[1][: len(worker.start)]


def free_ride(worker):
    state = trainer.empty_state(worker.spec, worker.hyper.optimizer)
    worker.kept = [worker.start, *[[*worker.start, *state]] * 3, worker.start]


def other_rate(worker):
    worker.work(worker.x, worker.y, replace(worker.hyper, learning_rate=1.5 * worker.hyper.learning_rate))


def from_the_round_before(worker):
    """With what it remembered at the end of it, in place of nothing."""
    program = trainer._trainer(worker.spec, worker.x, worker.hyper)
    program._empty, nothing = worker.kept[3][len(worker.start) :], program._empty
    worker.work(worker.x, worker.y)
    program._empty = nothing


def plain(worker):
    """Plain steps, and for what it should remember, what it is at first."""
    state = trainer.empty_state(worker.spec, worker.hyper.optimizer)
    worker.work(worker.x, worker.y, replace(worker.hyper, optimizer="sgd"))
    worker.kept[1:4] = [[*weights, *state] for weights in worker.kept[1:4]]


CHEATS = {
    "sign flip": (lambda worker: worker.kept.__setitem__(4, flipped(worker.start, worker.kept[4])), 3),
    "other labels": (lambda worker: worker.work(worker.x, 1 - worker.y), 0),
    "stops early": (stopped, 1),
    "start returned": (free_ride, 0),
    "half as long again a step": (other_rate, 0),
    "begins with a state": (from_the_round_before, 0),
    "plain SGD": (plain, 0),
}


@pytest.mark.parametrize("cheat", CHEATS)
def test_cheats_with_momentum_and_adam_are_contradicted(remembering, cheat):
    alter, segment = CHEATS[cheat]
    alter(remembering)
    remembering.commit()
    convicted(remembering.audited(drawn=()), segment)


@pytest.mark.parametrize(("optimizer", "slot", "times"), ALTERED)
def test_a_state_altered_between_segments_is_contradicted_though_all_that_follows_is_right(
    make, optimizer, slot, times
):
    """The segment in which it was altered moved as far as it should, and is not drawn."""
    worker = make(optimizer=optimizer, learning_rate=RATES[optimizer])
    at = [array.copy() for array in worker.kept[2]]
    at[len(worker.start) + slot] *= np.float32(times)
    worker.go_on(2, at)
    worker.commit()
    convicted(worker.audited(drawn=()), 1)


def test_a_state_that_is_none_is_unproven(make):
    worker = make(optimizer="adam", learning_rate=0.003)
    honest = list(worker.kept)
    for altered in (honest[1][:-1], [*honest[1][:-1], -honest[1][-1]], [*honest[1][:-1], honest[1][-1][1:]]):
        worker.kept[1] = honest[1]
        worker.commit()
        segments = [Segment(store.put(pack(altered)).pk, *worker.trace.segments[0][1:]), *worker.trace.segments[1:]]
        worker.trace = Trace(tuple(segments))
        worker.lease.root = worker.trace.root
        worker.lease.save()
        unproven(worker.audited(), "")
        Audit.objects.all().delete()


@pytest.mark.parametrize("turn", [None, 1e-6])
def test_a_trace_that_lies_about_how_far_the_state_turned(remembering, turn):
    remembering.commit()
    lies = (Segment(segment.sha256, segment.change, turn) for segment in remembering.trace.segments)
    remembering.trace = Trace(tuple(lies))
    remembering.lease.root = remembering.trace.root
    remembering.lease.save()
    unproven(remembering.audited(), "not the one that was committed to" if turn is None else "turned")


@pytest.mark.parametrize("optimizer", RATES)
def test_the_evidence_of_a_state_is_enough_to_do_a_replay_again(make, optimizer):
    worker = make(optimizer=optimizer, learning_rate=RATES[optimizer])
    stopped(worker)
    worker.commit()
    told = actions.evidence_of([worker.audited(drawn=[1])])[0]
    hyper = Hyper(**{field.name: told[field.name] for field in fields(Hyper)})
    start = unpack(store.get(told["start"]))
    steps = steps_of_segment(told["segment"], len(worker.y), hyper)
    again = trainer.replay(worker.spec, worker.start, worker.x, worker.y, hyper, start, steps)
    assert store.put_weights(again).pk == told["result"]
