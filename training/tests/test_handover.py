"""What comes after the providers were paid: other formats, the card, the mail; each once, whatever dies in between."""

import threading
from datetime import timedelta

import numpy as np
import pytest
from django.core.files.base import ContentFile
from django.db import connection
from django.utils import timezone

from accounts import personal as accounts
from dmlsite.jobs import claim
from dmlworker import datasets, exports, models, trainer
from ledger.models import ChainEvent
from tickets import actions as tickets
from tickets.models import Dataset, Mail, Status, Ticket
from training import compute, delivery, records, store, tasks
from training.models import Run
from training.tests.conftest import close, commit, leases

CARD = set(delivery.DOCUMENTS[:3])


@pytest.fixture
def paid(started) -> Run:
    """Settled a moment ago; the chain has not made it final."""
    Dataset.objects.create(ticket=started.ticket, file="x", name="a.csv", size=10, sha256="3" * 64)
    for number in (1, 2):
        for lease in leases(started, number):
            commit(lease)
        close(started, number)
    tickets.store_artifact(started.ticket, delivery.KERAS, ContentFile(b"model"))
    Ticket.objects.update(status=Status.SETTLED, accuracy=0.5)
    holdout = store.put(datasets.dump(np.ones((4, 3), np.float32), np.zeros(4, np.int32)))
    ended = {"state": Run.State.DONE, "finished": timezone.now(), "holdout": holdout}
    Run.objects.update(**ended, facts=started.facts | {"kind": "csv", "samples": 9, "training_samples": 8})
    return Run.objects.select_related("ticket").get()


def final(run: Run) -> ChainEvent:
    place = {"chain_id": 1, "block": 1, "block_hash": "0x1", "tx": "0x" + "ab" * 32, "log_index": 0}
    return ChainEvent.objects.create(name="Settled", case=run.ticket_id, args={}, **place)


def names(run: Run) -> set[str]:
    return set(run.ticket.artifacts.values_list("name", flat=True))


def done_mails() -> int:
    return Mail.objects.filter(kind="done").count()


def give(run: Run, *formats: str) -> None:
    for name in formats:
        tickets.store_artifact(run.ticket, exports.FILES[name], ContentFile(name.encode()))


def test_the_card_and_the_mail_wait_for_the_formats_and_for_the_payment(paid, inline_jobs):
    give(paid, *exports.FILES)
    tasks.deliver.fn(str(paid.pk))
    event = final(paid)
    tasks.settled.fn(event.pk)
    event.refresh_from_db()
    assert event.followed and not CARD & names(paid) and not done_mails()
    tasks.convert.fn(str(paid.pk))
    assert names(paid) >= CARD and done_mails() == 1


def test_the_payment_may_be_final_last(paid, inline_jobs):
    give(paid, *exports.FILES)
    tasks.convert.fn(str(paid.pk))
    assert not CARD & names(paid) and not done_mails()
    tasks.settled.fn(final(paid).pk)
    assert names(paid) >= CARD
    before = list(paid.ticket.artifacts.values_list("name", "file"))
    for job in (tasks.convert, tasks.deliver):
        job.fn(str(paid.pk))
    assert list(paid.ticket.artifacts.values_list("name", "file")) == before and done_mails() == 1


def test_a_job_that_died_between_two_formats_leaves_the_other_to_the_next(paid, tmp_path):
    spec = models.spec(models.build((3,), 2, "linear", models.Statistics([0.0] * 3, [1.0] * 3)))
    [*_, keras] = trainer.export(spec, trainer.initial_weights(spec, 1), tmp_path)
    tickets.store_artifact(paid.ticket, delivery.KERAS, ContentFile(keras.read_bytes()))
    give(paid, "TFLite")
    tasks.convert.fn(str(paid.pk))
    paid.refresh_from_db()
    assert paid.converted and names(paid) >= set(exports.FILES.values()) and not records.left_out(paid.ticket)
    assert paid.ticket.artifacts.get(name=exports.FILES["TFLite"]).size == len("TFLite"), "it was there already"


def test_a_job_that_died_before_the_mail_is_made_up_for(paid, monkeypatch):
    give(paid, *exports.FILES)
    tasks.convert.fn(str(paid.pk))
    final(paid)
    with monkeypatch.context() as patch:
        patch.setattr("tickets.mail.queue", _dies)
        with pytest.raises(SystemError):
            tasks.deliver.fn(str(paid.pk))
    assert names(paid) >= CARD and not done_mails()
    tasks.deliver.fn(str(paid.pk))
    assert done_mails() == 1


def _dies(*_):
    raise SystemError


def test_the_sweep_repeats_what_was_lost(paid, monkeypatch):
    give(paid, *exports.FILES)
    Run.objects.update(finished=timezone.now() - 2 * tasks.PATIENCE)
    final(paid)
    sent = []
    for job in (tasks.convert, tasks.deliver):
        monkeypatch.setattr(job, "send", lambda pk, job=job: sent.append(job.actor_name) or job.fn(pk))
    tasks.sweep.fn()
    assert names(paid) >= CARD and done_mails() == 1
    assert sent == ["training.tasks.convert", "training.tasks.deliver"]
    tasks.sweep.fn()
    assert len(sent) == 2, "there is nothing left to do"


def test_formats_that_take_too_long_are_given_up_and_the_card_says_so(paid):
    give(paid, "ONNX")
    final(paid)
    Run.objects.update(finished=timezone.now() - delivery.FORMATS - timedelta(seconds=1))
    tasks.deliver.fn(str(paid.pk))
    assert names(paid) >= CARD and done_mails() == 1
    assert len(records.left_out(paid.ticket)) == 2 and "SavedModel" in records.left_out(paid.ticket)[0]
    card = paid.ticket.artifacts.get(name="model-card.md").file.read().decode()
    assert "There is no TFLite file of this model: it was not made in time." in card
    tasks.convert.fn(str(paid.pk))
    assert not delivery.unconverted().exists()


def test_what_is_being_made_is_not_given_up(paid):
    final(paid)
    Run.objects.update(finished=timezone.now() - 2 * delivery.FORMATS)
    begun, done = threading.Event(), threading.Event()

    def other() -> None:
        with claim(f"formats:{paid.pk}"):
            begun.set()
            done.wait(30)
        connection.close()

    thread = threading.Thread(target=other)
    thread.start()
    begun.wait(30)
    tasks.deliver.fn(str(paid.pk))
    assert not CARD & names(paid)
    done.set()
    thread.join()
    tasks.deliver.fn(str(paid.pk))
    assert names(paid) >= CARD


def test_while_another_model_is_converted_here_it_is_left_to_the_sweep(paid):
    with compute._one_export_at_a_time:
        tasks.convert.fn(str(paid.pk))
    assert delivery.unconverted().get() == paid


def close_account(run: Run) -> None:
    """As soon as the payment is final, a customer may go."""
    ChainEvent.objects.update(followed=timezone.now())
    accounts.close(run.ticket.customer, "x")


def test_nothing_is_made_for_a_closed_account(paid):
    final(paid)
    close_account(paid)
    tasks.convert.fn(str(paid.pk))
    Run.objects.update(finished=timezone.now() - 2 * delivery.FORMATS)
    tasks.deliver.fn(str(paid.pk))
    assert not names(paid) and not done_mails() and not records.left_out(paid.ticket)


def test_what_is_made_as_the_account_closes_is_not_kept(paid, monkeypatch):
    def convert(run, folder, formats):
        close_account(run)
        (folder / "model.onnx").write_bytes(b"onnx")
        return [folder / "model.onnx"], {}

    final(paid)
    monkeypatch.setattr("training.compute.convert", convert)
    tasks.convert.fn(str(paid.pk))
    assert not names(paid)
