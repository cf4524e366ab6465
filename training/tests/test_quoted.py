"""What the customer said of the file made the price: a file that takes more to compute is given back, one that takes less is trained on."""

from types import SimpleNamespace

import pytest
from django.core.files.base import ContentFile

from dmlworker import datasets
from dmlworker.datasets import samples
from tickets import actions as tickets
from tickets.models import Dataset, Status, Ticket
from training import card, tasks
from training.models import Blob, Round, Run
from training.tests.conftest import make_ticket

pytestmark = pytest.mark.django_db(transaction=True)
RATE = 1000
"""So low that a single sample is seen in the price."""


def quoted(data: bytes, name: str, settings, **said) -> Ticket:
    """Paid and uploaded, by what the check finds, or by what the customer says in its place."""
    settings.FLOPS_PER_CENT = RATE
    path = settings.MEDIA_ROOT / name
    path.write_bytes(data)
    facts = datasets.inspect(path, name)
    ticket = make_ticket(price_scheme="compute-1", file_size=len(data), samples=said.pop("samples", facts.samples))
    ticket.model_kind = said.pop("model_kind", "auto")
    tickets.set_price(ticket, said.pop("sample_shape", facts.inputs), said.pop("outputs", len(facts.classes)))
    ticket.save()
    Dataset.objects.create(ticket=ticket, file=ContentFile(data, name), name=name, size=len(data), sha256="1" * 64)
    return ticket


def prepared(ticket: Ticket) -> Ticket:
    tasks.prepare.fn(str(ticket.pk))
    ticket.refresh_from_db()
    return ticket


def test_what_the_check_finds_is_enough(files, settings):
    for seed in range(3):
        for data, name in ((samples.passengers_csv(), "p.csv"), (samples.breast_cancer_csv(), "c.csv")):
            ticket = quoted(data, name, settings)
            ticket.seed = seed
            ticket.save()
            assert prepared(ticket).status == Status.UPLOADED
            assert Run.objects.filter(ticket=ticket).exists()


@pytest.mark.parametrize("said", [{"samples": 568}, {"sample_shape": (29,)}, {"model_kind": "linear", "outputs": 1}])
def test_more_than_was_quoted_is_given_back_and_nothing_is_kept(files, settings, chain, said):
    ticket = prepared(quoted(samples.breast_cancer_csv(), "c.csv", settings, **said))
    assert ticket.status == Status.REFUNDED and not Run.objects.exists() and not Blob.objects.exists()
    assert "it has 569 samples and its model takes" in ticket.outcome
    assert f"but {ticket.samples:,} samples with {ticket.flops:,} operations" in ticket.outcome


def test_fewer_than_quoted_are_trained_on(files, settings):
    ticket = prepared(quoted(samples.breast_cancer_csv(), "c.csv", settings, samples=1000, sample_shape=(40,)))
    assert ticket.status == Status.UPLOADED and Run.objects.filter(ticket=ticket).exists()


def test_by_size_nothing_else_is_asked(files, settings):
    data = samples.breast_cancer_csv()
    ticket = make_ticket(file_size=len(data))
    Dataset.objects.create(ticket=ticket, file=ContentFile(data, "c"), name="c.csv", size=len(data), sha256="1" * 64)
    assert prepared(ticket).status == Status.UPLOADED


def test_the_model_card_names_the_scheme_and_its_parts(files, settings):
    ticket = prepared(quoted(samples.breast_cancer_csv(), "c.csv", settings))
    run, last = ticket.run, {"state": Round.State.CLOSED, "accuracy": 1, "loss": 0}
    Round.objects.create(run=run, number=run.rounds, start=run.start, **last)
    text = card.markdown(ticket.run, SimpleNamespace(tx="0x1"))
    assert "(`compute-1`; size 0.02 DML: " in text
    assert "; complexity 15988.45 DML: 280,992 operations for a sample × 569 samples × 10 rounds" in text
