"""A customer's data in the blob store goes with their account; its hashes, and what is evidence, stay."""

import pytest
from django.core.files.storage import default_storage

from training import personal, store
from training.models import Audit, Blob, Replay
from training.tests.conftest import commit, leases

pytestmark = pytest.mark.django_db(transaction=True)


def here(*names):
    return [
        default_storage.exists(store.path(Blob.everything.get(size=len(name), pk=store_id(name)).pk)) for name in names
    ]


def store_id(name):
    import hashlib

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
    from training.models import Run
    from training.tests.conftest import make_ticket

    other = Run.objects.get(pk=run.pk)
    other.pk, other.ticket, other._state.adding = None, make_ticket(), True
    other.save()
    personal.erase(started.ticket.customer)
    assert here("shard 0", "holdout", "spec") == [False, True, True]


def test_what_a_replay_ended_with_goes_too(started):
    lease = leases(started)[0]
    commit(lease)
    audit = Audit.objects.create(assignment=lease, why="drawn", state=Audit.State.INCONCLUSIVE, deadline=lease.deadline)
    result = store.put(b"replayed").pk
    told = {"start": "a" * 64, "claimed": "b" * 64, "relative": 1.0, "allowed": 0.1, "cosine": 0.0, "agrees": False}
    Replay.objects.create(audit=audit, segment=0, number=1, result=result, **told)
    personal.erase(started.ticket.customer)
    assert not default_storage.exists(store.path(result))


def test_evidence_stays(started):
    lease = leases(started)[0]
    commit(lease)
    Audit.objects.create(assignment=lease, why="drawn", state=Audit.State.FAILED, deadline=lease.deadline)
    personal.erase(started.ticket.customer)
    assert here("shard 0", "holdout") == [True, True]
