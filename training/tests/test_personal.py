"""A customer's data in the blob store goes with their account; its hashes, and what is evidence, stay."""

import hashlib

import pytest
from django.core.files.base import ContentFile
from django.core.files.storage import default_storage
from django.utils import timezone

from accounts import personal as accounts
from dmlworker.trace import Segment, Trace
from tickets.models import Dataset, Status, Ticket
from tickets.tasks import remove_files
from training import actions, personal, store, tasks, trial
from training.models import Audit, Blob, Replay, Round, Run
from training.tests.conftest import close, commit, leases, make_ticket

pytestmark = pytest.mark.django_db(transaction=True)


def here(*names):
    """Whether the bytes are there when the job that removes files was here."""
    remove_files.fn()
    return [default_storage.exists(store.path(store_id(name))) for name in names]


def store_id(name):
    return hashlib.sha256(name.encode()).hexdigest()


def test_the_bytes_go_and_come_back_with_another_upload(started):
    update = commit(leases(started)[0])
    personal.erase(started.ticket.customer)
    assert here("shard 0", "shard 1", "holdout", "start") == [False] * 4
    assert not default_storage.exists(store.path(update.pk))
    assert not Blob.objects.exists() and Blob.everything.count() == 6
    again = store.put(b"holdout")
    assert Blob.objects.get() == again and store.get(again.pk) == b"holdout"
    assert started.holdout == again


def test_what_another_ticket_needs_stays(started, run, files):
    other = Run.objects.get(pk=run.pk)
    other.pk, other.ticket, other._state.adding = None, make_ticket(), True
    other.save()
    personal.erase(started.ticket.customer)
    assert here("shard 0", "holdout", "spec") == [False, True, True]


def test_what_a_replay_ended_with_goes_too(started):
    lease = leases(started)[0]
    commit(lease)
    audit = Audit.objects.create(assignment=lease, why="drawn", state=Audit.State.INCONCLUSIVE, deadline=lease.deadline)
    told = {"start": "a" * 64, "claimed": "b" * 64, "relative": 1.0, "allowed": 0.1, "cosine": 0.0, "agrees": False}
    Replay.objects.create(audit=audit, segment=0, number=1, result=blob("replayed").pk, **told)
    personal.erase(started.ticket.customer)
    assert here("replayed") == [False]


def convicted(lease):
    """Its audit failed: the first segment agrees with a replay, the second one does not."""
    commit(lease)
    trace = Trace((Segment(blob("good").pk, 1.0), Segment(blob("claimed").pk, 1.0), Segment("c" * 64, 1.0)))
    shown = {"trace": store.put(trace.to_bytes()), "drawn": [0, 1], "deadline": lease.deadline}
    audit = Audit.objects.create(assignment=lease, why="drawn", state=Audit.State.FAILED, **shown)
    told = {"number": 1, "relative": 0.9, "allowed": 0.02, "cosine": 0.1}
    Replay.objects.create(audit=audit, segment=0, start="start", claimed=blob("good").pk, agrees=True, **told)
    claims = {"start": blob("before").pk, "claimed": blob("claimed").pk, "result": blob("replayed").pk}
    Replay.objects.create(audit=audit, segment=1, agrees=False, **claims, **told)
    return audit


def blob(name):
    return store.put(name.encode())


def test_of_a_conviction_the_pieces_that_prove_it_stay_and_nothing_else(started):
    first, second = leases(started)
    audit, other = convicted(first), commit(second)
    close(started, check=False)
    personal.erase(started.ticket.customer)
    assert here("spec", "start", "shard 0", "claimed", "before", "replayed") == [True] * 6
    assert default_storage.exists(store.path(audit.trace_id))
    first.refresh_from_db()
    assert default_storage.exists(store.path(first.update_id))
    assert here("shard 1", "holdout", "average 1") == [False] * 3
    assert not default_storage.exists(store.path(other.pk))
    assert not default_storage.exists(store.path(store_id("good")))


def test_what_is_noted_of_the_data_goes_and_its_size_stays(started):
    facts = {"kind": "csv", "samples": 21, "holdout_samples": 10, "sample_shape": [2]}
    known = facts | {"features": ["age", "weight"], "example": [41.0, 70.5]}
    Run.objects.filter(pk=started.pk).update(facts=known, classes=["healthy", "ill"], metrics={"accuracy": [1, 1, 1]})
    Round.objects.update(by_class={"labelled": [3, 7]})
    personal.erase(started.ticket.customer)
    left = Run.objects.get(pk=started.pk)
    assert (left.facts, left.classes, left.metrics, Round.objects.get().by_class) == (facts, [], None, None)
    Run.objects.filter(pk=started.pk).update(state=Run.State.DONE)
    left.refresh_from_db()
    assert trial.kind(left) == "", "there is no model to be tried"


def test_the_models_of_rounds_that_are_void_go_too(started):
    for lease in leases(started):
        commit(lease)
    close(started, check=False)
    Round.objects.update(voided=timezone.now())
    personal.erase(started.ticket.customer)
    assert here("average 1") == [False]


def test_a_trace_that_is_lost_does_not_keep_the_account_open(started):
    audit = convicted(leases(started)[0])
    Audit.objects.update(state=Audit.State.PASSED)
    default_storage.delete(store.path(audit.trace_id))
    personal.erase(started.ticket.customer)
    assert here("shard 0") == [False]


def test_a_file_that_was_being_cut_when_its_account_closed_leaves_nothing(files, monkeypatch):
    """The customer cancels and closes the account while the job is at work."""
    ticket = make_ticket()
    Dataset.objects.create(ticket=ticket, name="a.csv", size=4, sha256="0" * 64).file.save(
        "a.csv", ContentFile(b"a,b\n")
    )

    def prepare(*_):
        Ticket.objects.update(status=Status.REFUNDED)
        accounts.close(ticket.customer, "x")
        names = {name: blob(name) for name in ("spec", "start", "holdout")}
        return actions.Prepared(shards=[(blob("shard 0"), 5)], classes=["a"], facts={}, **names)

    monkeypatch.setattr("training.compute.prepare", prepare)
    tasks.prepare.fn(str(ticket.pk))
    remove_files.fn()
    assert not Run.objects.exists() and not Blob.objects.exists()
    assert not [path for path in default_storage.listdir("blobs")[1]]


def test_bytes_that_come_again_before_they_are_removed_stay(started):
    personal.erase(started.ticket.customer)
    store.put(b"holdout")
    assert here("holdout", "start") == [True, False]
