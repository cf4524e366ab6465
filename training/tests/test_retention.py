"""A customer's data goes some time after a ticket's end, or when they say so; the model stays."""

from datetime import timedelta

import pytest
from django.core.files.base import ContentFile
from django.core.files.storage import default_storage
from django.urls import reverse
from django.utils import timezone

from dmlsite.errors import Conflict, Missing
from dmlsite.tests.people import api
from tickets.models import Dataset, Status, TicketEvent
from training import actions, retention, store, tasks
from training.models import Blob, Run, Shard
from training.tests.conftest import commit, leases, make_ticket
from training.tests.test_personal import convicted, here, store_id

pytestmark = pytest.mark.django_db(transaction=True)
EXAMPLE = {"kind": "csv", "sample_shape": [1], "features": ["age"], "example": [41.5]}


@pytest.fixture
def ended(started) -> Run:
    """Settled today, delivered, with the customer's file."""
    upload(started.ticket)
    return end(started)


def upload(ticket) -> Dataset:
    found = Dataset.objects.create(ticket=ticket, name="a.csv", size=4, sha256="0" * 64)
    found.file.save("a.csv", ContentFile(b"a,b\n"))
    return found


def end(run: Run, days: int = 0) -> Run:
    now = timezone.now()
    facts = run.facts | EXAMPLE
    Run.objects.filter(pk=run.pk).update(state=Run.State.DONE, finished=now, delivered=now, facts=facts)
    run.ticket.status = Status.SETTLED
    run.ticket.save()
    event = TicketEvent.objects.create(ticket=run.ticket, kind="moved", new=Status.SETTLED)
    TicketEvent.objects.filter(pk=event.pk).update(at=now - timedelta(days=days))
    run.refresh_from_db()
    return run


def test_the_sweep_erases_what_was_kept_for_long_enough(ended, settings):
    name = ended.ticket.dataset.file.name
    tasks.sweep.fn()
    assert here("shard 0", "shard 1", "holdout", "start", "spec") == [True] * 5
    TicketEvent.objects.update(at=timezone.now() - timedelta(days=settings.KEEP_DATA_DAYS, minutes=1))
    tasks.sweep.fn()
    assert here("shard 0", "shard 1", "holdout", "start", "spec") == [False] * 3 + [True] * 2
    ended.refresh_from_db()
    dataset = Dataset.objects.get()
    assert not default_storage.exists(name) and (dataset.sha256, dataset.size, dataset.file) == ("0" * 64, 4, "")
    assert ended.facts["example"] is None and ended.facts["features"] == ["age"]
    assert ended.ticket.events.get(kind="erased").actor == "platform"
    tasks.sweep.fn()
    assert ended.ticket.events.filter(kind="erased").count() == 1


def test_nothing_goes_while_it_is_needed(started, settings):
    dataset = upload(started.ticket)
    with pytest.raises(Conflict):
        retention.erase(started.ticket)
    end(started, days=settings.KEEP_DATA_DAYS + 1)
    Run.objects.update(delivered=None)
    assert not retention.due().exists()
    with pytest.raises(Conflict, match="still being made"):
        retention.erase(started.ticket)
    dataset.refresh_from_db()
    assert here("shard 0", "holdout") == [True] * 2 and default_storage.exists(dataset.file.name)


def test_the_customer_has_it_erased_on_the_page(ended, client):
    page, where = reverse("tickets:ticket", args=[ended.ticket_id]), reverse("training:erase", args=[ended.ticket_id])
    client.force_login(ended.ticket.customer)
    until = f"{timezone.now() + timedelta(days=30):%Y-%m-%d}"
    assert until in client.get(page).content.decode() and "41.5" in client.get(page).content.decode()
    answer = client.post(where, follow=True)
    assert "Your data is erased." in answer.content.decode() and here("shard 0", "holdout") == [False] * 2
    text = client.get(page).content.decode()
    assert where not in text and "41.5" not in text and 'name="value-0"' in text, "the model can still be asked"
    assert ended.ticket.events.get(kind="erased").actor == ended.ticket.customer.email


def test_the_customer_has_it_erased_over_the_api_once(ended):
    client, where = api(ended.ticket.customer), f"/api/v1/tickets/{ended.ticket_id}/data"
    assert client.delete(where).status_code == 204 and here("shard 0") == [False]
    assert client.delete(where).status_code == 409


def test_nobody_else_can_have_it_erased(ended, client):
    stranger = make_ticket().customer
    client.force_login(stranger)
    assert client.post(reverse("training:erase", args=[ended.ticket_id])).status_code == 404
    assert api(stranger).delete(f"/api/v1/tickets/{ended.ticket_id}/data").status_code == 404
    assert here("shard 0") == [True]


def same_again(run: Run) -> Run:
    """Another ticket with the same file."""
    other = Run.objects.get(pk=run.pk)
    other.pk, other.ticket, other._state.adding = None, make_ticket(), True
    other.save()
    for shard in run.shards.all():
        Shard.objects.create(run=other, number=shard.number, blob=shard.blob, samples=shard.samples)
    upload(other.ticket)
    return other


def test_what_two_tickets_name_goes_with_the_last(ended):
    other = same_again(ended)
    retention.erase(ended.ticket)
    assert here("shard 0", "holdout") == [True] * 2
    retention.erase(end(other).ticket)
    assert here("shard 0", "holdout") == [False] * 2


def test_what_a_ticket_is_about_to_name_is_cut_again(ended):
    ticket, blobs = make_ticket(), {name: Blob.objects.get(pk=store_id(name)) for name in ("spec", "start", "holdout")}
    prepared = actions.Prepared(
        shards=[(Blob.objects.get(pk=store_id("shard 0")), 6)], classes=["a"], facts={}, **blobs
    )
    retention.erase(ended.ticket)
    with pytest.raises(Missing):
        actions.open_run(ticket, prepared, seed=7)
    again = actions.Prepared(
        shards=[(store.put(b"shard 0"), 6)], classes=["a"], facts={}, **blobs | {"holdout": store.put(b"holdout")}
    )
    actions.open_run(ticket, again, seed=7)
    assert here("shard 0", "holdout") == [True] * 2


def test_what_proves_a_cheat_stays(started):
    first, second = leases(started)
    convicted(first), commit(second)
    upload(started.ticket)
    retention.erase(end(started).ticket)
    shards = [here(f"shard {number}")[0] for number in range(2)]
    assert sorted(shards) == [False, True] and shards[first.shard.number]
