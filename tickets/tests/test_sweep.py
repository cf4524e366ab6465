"""A sweep comes to everybody: what fails for one ticket is told, tried again, and keeps no other waiting."""

import threading
from datetime import timedelta

import pytest
from django.core import mail as post
from django.core.files.base import ContentFile
from django.db import connection
from django.utils import timezone

from dmlsite import jobs
from dmlsite.tests.people import person
from ledger.models import Alarm, ChainTx
from tickets import actions, tasks
from tickets.models import Mail, PartialUpload, Status, Ticket, UploadPart
from tickets.tests.test_pages import make

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("chain", "inline_jobs")]
LATE = timedelta(minutes=5)


@pytest.fixture(autouse=True)
def own_files(settings, tmp_path, monkeypatch):
    """The chain is told nothing, and nothing is trained."""
    settings.MEDIA_ROOT = tmp_path
    for name in ("ledger.tasks.send.fn", "training.tasks.prepare.fn"):
        monkeypatch.setattr(name, lambda pk: None)


@pytest.fixture
def ada():
    return person("ada")


def left(ada) -> PartialUpload:
    """All parts are here, and the process that had the last one died."""
    ticket = make(ada, Status.PAID, upload_by=timezone.now() + timedelta(days=1))
    begun = PartialUpload.objects.create(ticket=ticket, name="x.csv", size=6, offset=6)
    for offset, data in ((0, b"a,b\n"), (4, b"1\n")):
        UploadPart(upload=begun, offset=offset).file.save("x", ContentFile(data))
    return grown_old(begun)


def grown_old(begun: PartialUpload) -> PartialUpload:
    PartialUpload.objects.filter(pk=begun.pk).update(changed=timezone.now() - LATE)
    return begun


def status(ticket: Ticket) -> str:
    return Ticket.objects.get(pk=ticket.pk).status


def late(ada) -> Ticket:
    return make(ada, Status.TRAINING, settle_by=timezone.now())


def test_what_is_left_of_an_upload_is_put_together(ada):
    begun = left(ada)
    tasks.sweep.fn()
    assert status(begun.ticket) == Status.UPLOADED
    assert Ticket.objects.get().dataset.file.read() == b"a,b\n1\n"
    assert not UploadPart.objects.exists()


def test_an_upload_that_cannot_be_put_together_keeps_nobody_waiting(ada):
    begun, other = left(ada), late(ada)
    part = begun.parts.last()
    part.file.storage.delete(part.file.name)
    Mail.objects.create(ticket=other, kind="started", to=ada.email, due=timezone.now() - LATE)
    tasks.sweep.fn()
    assert (status(begun.ticket), status(other)) == (Status.PAID, Status.REFUNDED)
    assert Mail.objects.get(kind="started").sent

    grown_old(begun)
    tasks.sweep.fn()
    [said] = begun.ticket.events.all()
    assert said.text == "Putting your file together failed (FileNotFoundError). It is tried again."
    assert Alarm.objects.get(case=begun.ticket.pk, kind="ticket failed").cleared is None


def test_it_is_not_tried_with_every_sweep(ada, inline_jobs):
    begun = left(ada)
    part = begun.parts.last()
    part.file.storage.delete(part.file.name)
    for _ in range(3):
        tasks.sweep.fn()
    assert inline_jobs.count("tickets.tasks.put_together") == 1


def test_two_do_not_put_a_file_together_at_once(ada):
    begun, holds, done = left(ada), threading.Event(), threading.Event()

    def elsewhere() -> None:
        with jobs.claim(f"upload:{begun.pk}"):
            holds.set()
            done.wait(10)
        connection.close()

    other = threading.Thread(target=elsewhere)
    other.start()
    assert holds.wait(10)
    tasks.sweep.fn()
    assert status(begun.ticket) == Status.PAID
    done.set()
    other.join()
    grown_old(begun)
    tasks.sweep.fn()
    assert status(begun.ticket) == Status.UPLOADED


def test_a_file_whose_parts_are_lost_is_asked_for_again(ada):
    begun = left(ada)
    begun.parts.last().delete()
    tasks.sweep.fn()
    assert status(begun.ticket) == Status.PAID
    assert not PartialUpload.objects.exists()
    assert "Please upload it again" in begun.ticket.events.get().text
    assert actions.begin_upload(begun.ticket, "x.csv", 6)


def test_a_refund_that_is_refused_keeps_no_other_waiting(ada):
    stuck, other = late(ada), late(ada)
    Ticket.objects.filter(pk=other.pk).update(created=stuck.created - LATE)
    ChainTx.objects.create(key="x", verb="settle", case=stuck.pk)
    tasks.sweep.fn()
    assert (status(stuck), status(other)) == (Status.TRAINING, Status.REFUNDED)
    assert [message.subject for message in post.outbox] == ["Your payment was returned"]
