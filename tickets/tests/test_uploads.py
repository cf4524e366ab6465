"""A customer's file in parts, as a tus client sends them; broken off, gone on with, sent twice, by others."""

import base64
import threading
from datetime import timedelta

import pytest
from django.core.cache import cache
from django.core.files.base import ContentFile
from django.core.files.storage import default_storage
from django.db import connection, transaction
from django.urls import reverse
from django.utils import timezone
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rest_framework.test import APIClient

from accounts import actions as accounts
from dmlsite.testing import files_kept
from dmlsite.tests.people import api, person, problem
from tickets import actions, files, tasks, uploads
from tickets.models import Leftover, PartialUpload, Status, UploadPart
from tickets.tests.test_pages import ada, eve, make, owner  # noqa: F401

pytestmark = pytest.mark.django_db
DATA = b"a,b\n1,2\n3,4\n"
SIZE = len(DATA)


@pytest.fixture(autouse=True)
def own_files(settings, tmp_path):
    settings.MEDIA_ROOT = tmp_path
    cache.clear()
    return tmp_path


@pytest.fixture
def ticket(ada):  # noqa: F811
    found = make(ada, Status.PAID)
    found.file_size = 20
    found.save()
    return found


def headers(**more):
    return {"Tus-Resumable": "1.0.0"} | {name.replace("_", "-"): value for name, value in more.items()}


def begin(client, ticket, size=SIZE, name="cells.csv"):
    told = headers(
        Upload_Length=str(size), Upload_Metadata=f"filename {base64.b64encode(name.encode()).decode()},type dGV4dA=="
    )
    return client.post(reverse("tickets:uploads", args=[ticket.pk]), headers=told)


def patch(client, place, offset, data, kind=uploads.PART_TYPE):
    return client.patch(place, data, content_type=kind, headers=headers(Upload_Offset=str(offset)))


def stored():
    """What is there when the job that removes files was here."""
    tasks.remove_files.fn()
    return files_kept()


def test_a_file_comes_in_parts_and_after_a_break(owner, ticket):  # noqa: F811
    begun = begin(owner, ticket)
    place = begun.headers["Location"]
    assert (begun.status_code, begun.headers["Tus-Resumable"]) == (201, "1.0.0")
    first = patch(owner, place, 0, DATA[:5])
    assert (first.status_code, first.headers["Upload-Offset"]) == (204, "5")
    asked = owner.head(place, headers=headers())
    assert (asked.headers["Upload-Offset"], asked.headers["Upload-Length"]) == ("5", str(len(DATA)))
    assert "no-store" in asked.headers["Cache-Control"]
    page = owner.get(reverse("training:progress", args=[ticket.pk])).content.decode()
    assert "Of cells.csv," in page
    assert patch(owner, place, 5, DATA[5:]).headers["Upload-Offset"] == str(len(DATA))
    ticket.refresh_from_db()
    assert (ticket.status, ticket.dataset.name, ticket.dataset.size) == (Status.UPLOADED, "cells.csv", len(DATA))
    assert ticket.dataset.file.read() == DATA
    assert len(stored()) == 1
    again = owner.head(place, headers=headers())  # its answer to the last part was lost
    assert again.headers["Upload-Offset"] == str(len(DATA))


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.integers(1, 4), min_size=1, max_size=5))
def test_however_it_is_cut_it_is_the_same_file(ada, sizes):  # noqa: F811
    ticket, whole = make(ada, Status.PAID), bytes(range(sum(sizes)))
    begun, at = actions.begin_upload(ticket, "x.csv", len(whole)), 0
    for size in sizes:
        at = actions.add_part(begun, at, ContentFile(whole[at : at + size]), "ada")
    ticket.refresh_from_db()
    assert ticket.dataset.file.read() == whole


def test_a_part_that_is_sent_twice_counts_once(owner, ticket):  # noqa: F811
    place = begin(owner, ticket).headers["Location"]
    assert patch(owner, place, 0, DATA[:5]).status_code == 204
    assert patch(owner, place, 0, DATA[:5]).status_code == 409
    assert patch(owner, place, 7, DATA[7:]).status_code == 409
    assert len(stored()) == 1
    assert patch(owner, place, 5, DATA[5:]).status_code == 204


def test_a_new_upload_takes_the_place_of_the_last(owner, ticket):  # noqa: F811
    old = begin(owner, ticket).headers["Location"]
    patch(owner, old, 0, DATA[:5])
    new = begin(owner, ticket, size=3).headers["Location"]
    assert stored() == []
    assert patch(owner, old, 5, DATA[5:]).status_code == 404
    assert patch(owner, new, 0, b"a,b").status_code == 204
    assert owner.delete(old, headers=headers()).status_code == 404


def test_an_upload_is_dropped(owner, ticket):  # noqa: F811
    place = begin(owner, ticket).headers["Location"]
    patch(owner, place, 0, DATA[:5])
    assert owner.delete(place, headers=headers()).status_code == 204
    assert (stored(), UploadPart.objects.count()) == ([], 0)


@pytest.mark.parametrize(
    ("size", "status"), [("0", 422), ("21", 422), ("20", 201), ("-1", 422), ("many", 422), ("", 422), ("1" * 30, 422)]
)
def test_only_what_was_quoted_is_taken(owner, ticket, size, status):  # noqa: F811
    assert begin(owner, ticket, size).status_code == status


def test_more_than_was_said_is_refused(owner, ticket, monkeypatch):  # noqa: F811
    place = begin(owner, ticket, 3).headers["Location"]
    assert patch(owner, place, 0, DATA).status_code == 422
    monkeypatch.setattr(uploads, "MAX_PART", 2)
    assert patch(owner, place, 0, b"abc").status_code == 413
    assert patch(owner, place, 0, b"ab").status_code == 204


def test_it_opens_with_the_payment(owner, ada):  # noqa: F811
    assert begin(owner, make(ada)).status_code == 409


def test_others_find_nothing(client, owner, eve, ticket):  # noqa: F811
    place = begin(owner, ticket).headers["Location"]
    client.force_login(eve)
    assert begin(client, ticket).status_code == 404
    assert client.head(place, headers=headers()).status_code == 404
    assert patch(client, place, 0, DATA).status_code == 404
    assert client.delete(place, headers=headers()).status_code == 404
    client.logout()
    assert begin(client, ticket).status_code == 302


def test_the_protocol(owner, ticket):  # noqa: F811
    url = reverse("tickets:uploads", args=[ticket.pk])
    said = owner.options(url)
    assert (said.status_code, said.headers["Tus-Version"], said.headers["Tus-Extension"]) == (
        204,
        "1.0.0",
        "creation,termination",
    )
    assert int(said.headers["Tus-Max-Size"]) > 10**6
    old = owner.post(url, headers={"Tus-Resumable": "0.2.2", "Upload-Length": "3"})
    assert (old.status_code, old.headers["Tus-Version"]) == (412, "1.0.0")
    place = begin(owner, ticket).headers["Location"]
    assert patch(owner, place, 0, DATA, kind="text/plain").status_code == 415
    assert owner.get(url, headers=headers()).status_code == 405
    assert owner.get(place, headers=headers()).status_code == 405
    bad = headers(Upload_Length="3", Upload_Metadata="filename ???")
    assert owner.post(url, headers=bad).status_code == 422


def test_a_crash_before_the_whole_file_loses_nothing(owner, ticket, monkeypatch):  # noqa: F811
    place = begin(owner, ticket).headers["Location"]
    patch(owner, place, 0, DATA[:5])

    def die(*_):
        raise SystemExit

    with monkeypatch.context() as broken:
        broken.setattr(actions, "upload", die)
        with pytest.raises(SystemExit):
            actions.add_part(PartialUpload.objects.get(), 5, ContentFile(DATA[5:]), "ada")
    ticket.refresh_from_db()
    assert ticket.status == Status.PAID
    tasks.put_together.fn(PartialUpload.objects.get().pk)
    ticket.refresh_from_db()
    assert ticket.status == Status.PAID  # it may be under way just now
    PartialUpload.objects.update(changed=timezone.now() - timedelta(minutes=3))
    tasks.put_together.fn(PartialUpload.objects.get().pk)
    ticket.refresh_from_db()
    assert ticket.status == Status.UPLOADED
    assert ticket.dataset.file.read() == DATA


def test_what_is_of_no_use_any_more_is_forgotten(ticket):
    actions.add_part(actions.begin_upload(ticket, "x.csv", 5), 0, ContentFile(b"abc"), "ada")
    PartialUpload.objects.update(created=timezone.now() - timedelta(hours=1))
    actions.overdue()
    assert PartialUpload.objects.count() == 1
    type(ticket).objects.update(status=Status.REFUNDED)
    actions.overdue()
    assert (PartialUpload.objects.count(), stored()) == (0, [])


# --- Two at once ------------------------------------------------------------------------------------------------------
def elsewhere(step, result):
    """Run in another thread, on a connection of its own, and wait until it is done or waits for a lock."""

    def run():
        try:
            result.append(step())
        except Exception as error:
            result.append(error)
        finally:
            connection.close()

    thread = threading.Thread(target=run)
    thread.start()
    thread.join(0.5)
    return thread


@pytest.mark.django_db(transaction=True)
def test_two_begin_at_once_and_the_later_one_counts(ticket):
    result = []
    with transaction.atomic():
        first = actions.begin_upload(ticket, "first.csv", 5)
        other = elsewhere(lambda: actions.begin_upload(ticket, "second.csv", 6), result)
    other.join()
    [second] = result
    assert PartialUpload.objects.get() == second != first


@pytest.mark.django_db(transaction=True)
def test_a_part_that_comes_while_its_upload_is_dropped_leaves_nothing(ticket, inline_jobs):
    begun, result = actions.begin_upload(ticket, "x.csv", 6), []
    with transaction.atomic():
        actions.add_part(begun, 0, ContentFile(b"abc"), "ada")
        other = elsewhere(lambda: actions.drop_upload(PartialUpload.objects.get(pk=begun.pk)), result)
    other.join()
    assert result == [None]
    assert (PartialUpload.objects.count(), UploadPart.objects.count(), stored()) == (0, 0, [])


@pytest.mark.django_db(transaction=True)
@pytest.mark.embedded
def test_what_the_storage_does_not_delete_now_it_deletes_later(ticket, own_files, inline_jobs):
    begun = actions.begin_upload(ticket, "x.csv", 6)
    actions.add_part(begun, 0, ContentFile(b"a"), "ada")
    actions.add_part(begun, 1, ContentFile(b"b"), "ada")
    bad = own_files / begun.parts.first().file.name
    bad.unlink()
    (bad / "in the way").mkdir(parents=True)  # which no storage can delete
    actions.drop_upload(begun)
    assert stored() == [] and not PartialUpload.objects.exists()
    left = Leftover.objects.get()
    assert "not empty" in left.error and left.due > timezone.now()

    (bad / "in the way").rmdir()
    tasks.sweep.fn()
    assert bad.exists(), "not before it is due"
    Leftover.objects.update(due=timezone.now())
    tasks.sweep.fn()
    assert not bad.exists() and not Leftover.objects.exists()


@pytest.mark.django_db(transaction=True)
def test_a_file_that_is_named_again_is_not_removed(ticket, inline_jobs):
    """A process died between the file and its row, and another file took the name."""
    artifact = actions.store_artifact(ticket, "model.keras", ContentFile(b"new"))
    files.let_go([artifact.file.name])
    assert artifact.file.read() == b"new" and not Leftover.objects.exists()


@pytest.mark.django_db(transaction=True)
def test_the_file_that_another_replaces_is_removed(ticket, inline_jobs):
    for data in (b"old", b"new"):
        actions.store_artifact(ticket, "model.keras", ContentFile(data))
    assert [default_storage.open(name).read() for name in stored()] == [b"new"]


def test_a_program_sends_the_parts_with_its_key(ada, ticket):  # noqa: F811
    program = APIClient()
    program.credentials(HTTP_AUTHORIZATION=f"Bearer {accounts.issue_key(ada, 'lab')}")
    begun = program.post(f"/api/v1/tickets/{ticket.pk}/uploads", headers=headers(Upload_Length=str(SIZE)))
    place = begun.headers["Location"]
    assert (begun.status_code, place.startswith("/api/v1/uploads/")) == (201, True)
    for at, data in ((0, DATA[:5]), (5, DATA[5:])):
        assert program.head(place, headers=headers()).headers["Upload-Offset"] == str(at)
        told = headers(Upload_Offset=str(at))
        sent = program.generic("PATCH", place, data, content_type=uploads.PART_TYPE, headers=told)
        assert sent.status_code == 204, sent.content
    ticket.refresh_from_db()
    assert ticket.dataset.file.read() == DATA


def test_an_upload_over_the_api_is_refused_in_its_own_words(ada, ticket):  # noqa: F811
    address = f"/api/v1/tickets/{ticket.pk}/uploads"
    problem(api(person("outsider")).post(address, headers=headers(Upload_Length="5")), 404)
    assert "were quoted" in problem(api(ada).post(address, headers=headers(Upload_Length="500")), 422)["detail"]
    assert api(ada).post(address).status_code == 412
    place = api(ada).post(address, headers=headers(Upload_Length=str(SIZE))).headers["Location"]
    late = api(ada).generic("PATCH", place, b"x", content_type=uploads.PART_TYPE, headers=headers(Upload_Offset="3"))
    assert "last one ended" in problem(late, 409)["detail"]
    assert api(person("eve2")).head(place, headers=headers()).status_code == 404
    assert api(ada).delete(place, headers=headers()).status_code == 204
