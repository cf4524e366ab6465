"""The door for workers' bytes: who gets what, parts of it, and what is refused before a byte was taken."""

import hashlib
from datetime import timedelta
from pathlib import Path

import httpx
import pytest
from asgiref.sync import async_to_sync
from django.conf import settings
from django.core.files.storage import FileSystemStorage, default_storage
from django.utils import timezone

from accounts.models import ApiKey
from dmlsite.asgi import application
from dmlsite.errors import Conflict
from dmlworker.protocol import blob_path
from dmlworker.trace import Segment, Trace
from training import actions, audits, compute, store, tasks
from training.blobs import door
from training.consumers import lease_of
from training.models import Assignment, Audit, Blob, Round
from training.tests.conftest import ROOT, leases

DATA = b"what a worker computed"


@pytest.fixture
def lease(started) -> Assignment:
    return leases(started)[0]


class Caller:
    """A worker's HTTP, to the application itself."""

    def __init__(self, key: str) -> None:
        self.key = key

    def get(self, sha256: str, **headers: str) -> httpx.Response:
        return self.call("GET", sha256, headers=headers)

    def put(self, data: bytes, sha256: str = "") -> httpx.Response:
        return self.call("PUT", sha256 or hashlib.sha256(data).hexdigest(), content=data)

    @async_to_sync  # so that the database is asked in the test's own thread
    async def call(self, method: str, sha256: str, **more) -> httpx.Response:
        headers = {"Authorization": f"Bearer {self.key}"} | more.pop("headers", {})
        transport = httpx.ASGITransport(application)
        async with httpx.AsyncClient(transport=transport, base_url=settings.SITE_URL, headers=headers) as client:
            return await client.request(method, blob_path(sha256), **more)

    @async_to_sync
    async def breaks_off(self, sha256: str, data: bytes) -> None:
        """Sends the beginning of an update, and hangs up."""
        events = [{"type": "http.request", "body": data, "more_body": True}, {"type": "http.disconnect"}]
        headers = [(b"authorization", f"Bearer {self.key}".encode())]
        scope = {"type": "http", "method": "PUT", "path": blob_path(sha256), "headers": headers}

        async def receive() -> dict:
            return events.pop(0)

        async def send(event: dict) -> None:
            raise AssertionError("nobody is there to hear this")

        await door(scope, receive, send)


async def aiter_of(pieces):
    for piece in pieces:
        yield piece


@pytest.fixture
def worker(lease) -> Caller:
    return Caller(ApiKey.issue(lease.provider.user))


@pytest.mark.embedded  # an object store serves by itself
def test_a_blob_whole_and_from_where_it_broke(worker, lease):
    whole = store.get(lease.shard.blob_id)
    answer = worker.get(lease.shard.blob_id)
    assert (answer.status_code, answer.content) == (200, whole)
    answer = worker.get(lease.shard.blob_id, Range="bytes=3-")
    assert (answer.status_code, answer.content) == (206, whole[3:])
    assert answer.headers["Content-Range"] == f"bytes 3-{len(whole) - 1}/{len(whole)}"
    assert worker.get(lease.shard.blob_id, Range="bytes=1-2").content == whole[1:3]
    answer = worker.get(lease.shard.blob_id, Range=f"bytes={len(whole)}-")
    assert (answer.status_code, answer.headers["Content-Range"]) == (416, f"bytes */{len(whole)}")


def test_without_a_key_or_a_lease_nothing_is_there(worker, lease):
    other = leases(lease.round.run)[1]
    assert Caller("wrong").get(lease.shard.blob_id).status_code == 403
    assert worker.get(other.shard.blob_id).status_code == 404
    assert worker.get("0" * 64).status_code == 404
    assert worker.call("DELETE", "0" * 64).status_code == 405


def test_an_update_is_stored_once_under_its_own_hash(worker):
    assert worker.put(DATA).status_code == 201
    assert worker.put(DATA).status_code == 200
    sha256 = hashlib.sha256(DATA).hexdigest()
    assert store.get(sha256) == DATA
    assert worker.put(DATA, sha256="0" * 64).status_code == 422
    assert not Blob.objects.filter(pk="0" * 64).exists()


@pytest.fixture
def broken(worker, lease) -> str:
    """The hash of an upload whose line broke in the middle."""
    sha256 = hashlib.sha256(DATA).hexdigest()
    worker.breaks_off(sha256, DATA[:9])
    return sha256


def test_an_upload_that_broke_is_gone_on_with(worker, broken):
    assert worker.call("HEAD", broken).headers["Upload-Offset"] == "9"
    assert not Blob.objects.filter(pk=broken).exists()
    assert worker.call("PATCH", broken, content=DATA[9:], headers={"Upload-Offset": "9"}).status_code == 201
    assert store.get(broken) == DATA
    assert worker.call("HEAD", broken).headers["Upload-Offset"] == "0"
    assert list(Path(settings.FILE_UPLOAD_TEMP_DIR).glob(f"*{broken}*")) == []


def test_the_rest_of_an_upload_must_fit_what_is_there(worker, broken):
    assert worker.call("PATCH", broken, content=DATA[3:], headers={"Upload-Offset": "3"}).status_code == 409
    assert worker.call("PATCH", "1" * 64, content=DATA, headers={"Upload-Offset": "9"}).status_code == 409
    assert worker.call("PATCH", broken, content=b"something", headers={"Upload-Offset": "9"}).status_code == 422
    assert worker.call("HEAD", broken).headers["Upload-Offset"] == "0"  # it can only be sent anew


def test_an_upload_is_gone_on_with_by_who_began_it_and_one_waits_for_each(worker, broken, lease):
    other = Caller(ApiKey.issue(leases(lease.round.run)[1].provider.user))
    assert other.call("HEAD", broken).headers["Upload-Offset"] == "0"
    assert other.call("PATCH", broken, content=DATA[9:], headers={"Upload-Offset": "9"}).status_code == 409
    worker.breaks_off("1" * 64, b"second")
    assert worker.call("HEAD", broken).headers["Upload-Offset"] == "0"
    assert worker.call("HEAD", "1" * 64).headers["Upload-Offset"] == "6"


def test_half_an_upload_is_forgotten_after_a_while(worker, broken, monkeypatch):
    store.forget_unfinished()
    assert worker.call("HEAD", broken).headers["Upload-Offset"] == "9"
    monkeypatch.setattr(store, "UNFINISHED_SECONDS", -1)
    store.forget_unfinished()
    assert worker.call("HEAD", broken).headers["Upload-Offset"] == "0"


@pytest.mark.parametrize("name", ["..", "*", "0" * 63, "../" + "0" * 64, "Z" * 64])
def test_only_a_hash_names_a_blob(worker, name):
    for method in ("GET", "HEAD", "PUT", "PATCH"):
        assert worker.call(method, name).status_code == 404


def test_too_much_is_refused_before_it_is_stored(worker, lease):
    size = lease.round.start.size + 65536
    assert worker.put(b"x" * (size + 1)).status_code == 413
    pieces = (b"x" * 65536 for _ in range(size // 65536 + 1))
    assert worker.call("PUT", "0" * 64, content=aiter_of(pieces)).status_code == 413  # who tells no length
    assert worker.put(b"x" * size).status_code == 201


def test_who_has_no_open_lease_stores_nothing(worker, lease):
    Assignment.objects.all().update(state=Assignment.State.EXPIRED)
    assert worker.put(DATA).status_code == 403


# --- What nothing names -----------------------------------------------------------------------------------------------
def largest(lease: Assignment, number: int) -> bytes:
    """An update as large as one may be, and each another one."""
    return bytes([number]) * (lease.round.start.size + 65536)


def test_a_lease_takes_one_upload_and_another_try(worker, lease):
    for number, status in enumerate([201, 201, 413, 413]):
        assert worker.put(largest(lease, number)).status_code == status
    assert worker.put(largest(lease, 0)).status_code == 200  # the same again takes no room
    pieces = (largest(lease, 5)[n : n + 4096] for n in range(0, len(largest(lease, 5)), 4096))
    assert worker.call("PUT", "0" * 64, content=aiter_of(pieces)).status_code == 413  # who tells no length
    assert Blob.objects.filter(sender=lease.provider).count() == 2


def test_others_are_not_kept_from_uploading(worker, lease):
    theirs = leases(lease.round.run)[1]
    other = Caller(ApiKey.issue(theirs.provider.user))
    for number in range(3):
        worker.put(largest(lease, number))
    assert other.put(largest(lease, 9)).status_code == 201


def test_what_was_committed_takes_no_room_any_more(worker, lease):
    sent = hashlib.sha256(largest(lease, 0)).hexdigest()
    for number in (0, 1):
        worker.put(largest(lease, number))
    actions.record_update(lease.provider, lease_of(lease), sent, ROOT)
    assert [blob.pk == sent for blob in Blob.objects.filter(sender=None, size=len(largest(lease, 0)))] == [True]
    assert worker.put(largest(lease, 2)).status_code == 201


def test_an_update_that_comes_too_late_is_not_kept(worker, lease):
    worker.put(DATA)
    Assignment.objects.filter(pk=lease.pk).update(state=Assignment.State.EXPIRED)
    with pytest.raises(Conflict, match="closed"):
        actions.record_update(lease.provider, lease_of(lease), hashlib.sha256(DATA).hexdigest(), ROOT)
    assert not Blob.objects.filter(size=len(DATA)).exists()


def aged(*sent: bytes) -> list[bool]:
    """Whether these uploads, a day and more old, outlive the sweep."""
    names = [hashlib.sha256(data).hexdigest() for data in sent]
    Blob.objects.filter(pk__in=names).update(created=timezone.now() - timedelta(hours=25))
    actions.forget_unnamed()
    return [Blob.objects.filter(pk=name).exists() and default_storage.exists(store.path(name)) for name in names]


def test_what_nothing_named_in_a_day_goes_and_all_else_stays(worker, lease):
    assert [worker.put(data).status_code for data in (b"lost", b"new", b"update", b"taken")] == [201] * 4
    actions.record_update(lease.provider, lease_of(lease), hashlib.sha256(b"update").hexdigest(), ROOT)
    store.put(b"taken")  # the platform came by the same bytes
    assert aged(b"lost", b"update", b"taken", b"shard 0", b"start") == [False, True, True, True, True]
    assert store.get(hashlib.sha256(b"new").hexdigest()) == b"new"


def test_what_is_sent_again_has_another_day(worker, lease):
    for data in (b"lost", b"again"):
        worker.put(data)
    Blob.objects.update(created=timezone.now() - timedelta(hours=25))
    assert worker.put(b"again").status_code == 200
    actions.forget_unnamed()
    assert set(Blob.objects.filter(sender=lease.provider).values_list("size", flat=True)) == {len(b"again")}


@pytest.fixture
def asked(worker, lease) -> Audit:
    """The lease is done, its round is over, and an audit wants to see one segment."""
    worker.put(b"update")
    actions.record_update(lease.provider, lease_of(lease), hashlib.sha256(b"update").hexdigest(), ROOT)
    Round.objects.filter(pk=lease.round_id).update(state=Round.State.CLOSED)
    long_ago = timezone.now() - timedelta(days=2)
    audit = Audit.objects.create(assignment=lease, why="drawn by chance", drawn=[0], deadline=lease.deadline)
    Audit.objects.filter(pk=audit.pk).update(asked=long_ago)
    return audit


def test_an_audit_takes_both_ends_of_all_its_segments_and_what_was_shown_waits_for_the_verdict(worker, lease, asked):
    shown = [largest(lease, number) for number in range(8)]
    assert [worker.put(data).status_code for data in shown] == [201] * 8
    names = [hashlib.sha256(data).hexdigest() for data in shown]
    trace = Trace(tuple(Segment(name, 1.0) for name in names[:1])).to_bytes()
    assert worker.put(trace).status_code == 201
    assert aged(shown[0]) == [True]
    audits.show(lease.provider, lease_of(lease), hashlib.sha256(trace).hexdigest())
    assert aged(shown[0], trace) == [True, True]


@pytest.mark.parametrize(
    ("verdict", "stays"),
    [("failed", True), ("inconclusive", True), ("passed", True), ("unproven", False)],
)
def test_what_an_audit_looked_at_stays_but_what_was_not_what_it_asked_for(
    worker, lease, asked, monkeypatch, verdict, stays
):
    """In the first round, of which the customer may see all."""
    worker.put(b"weights"), worker.put(b"more")
    trace = Trace((Segment(hashlib.sha256(b"weights").hexdigest(), 1.0),)).to_bytes()
    worker.put(trace)
    audits.show(lease.provider, lease_of(lease), hashlib.sha256(trace).hexdigest())
    monkeypatch.setattr(compute, "audit", lambda found: (verdict, ""))
    monkeypatch.setattr(audits, "judge", lambda round_: None)
    tasks.audit(asked.pk)
    assert aged(b"weights", b"more", trace) == [stays, False, True]


def test_an_object_store_serves_by_itself(worker, lease, monkeypatch):
    class Bucket(FileSystemStorage):
        """As django-storages' are: no path, signed links."""

        def path(self, name: str) -> str:
            raise NotImplementedError

        def url(self, name: str | None) -> str:
            return f"https://bucket.example.org/{name}?signature=1"

    monkeypatch.setattr(store, "default_storage", Bucket())
    answer = worker.get(lease.shard.blob_id)
    assert (answer.status_code, answer.content) == (302, b"")
    assert answer.headers["Location"] == f"https://bucket.example.org/{store.path(lease.shard.blob_id)}?signature=1"
