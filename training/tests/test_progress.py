"""What a ticket's page tells while it is trained: how long it still takes, and the curves."""

import re
import time
from datetime import timedelta
from types import SimpleNamespace

import numpy as np
import pytest
from django.urls import reverse
from django.utils import timezone

from ledger.models import ChainEvent
from tickets import actions as tickets
from tickets.models import Artifact, Status, Ticket
from training import measures, views
from training.models import Round, Run
from training.templatetags.shown import roughly
from training.tests.conftest import another, close, commit, leases


def closed(*seconds: float) -> list[Round]:
    now = timezone.now()
    return [Round(closed=now + timedelta(seconds=each)) for each in seconds]


@pytest.mark.parametrize(
    ("ends", "rounds", "left"),
    [
        ([], 10, None),
        ([0], 10, None),
        ([0, 10], 10, 80),
        ([0, 100, 110, 120, 130], 10, 50),  # the last four count
        ([0, 10], 2, 10),  # the last round is being checked
    ],
)
def test_the_time_that_is_left_is_told_by_the_last_rounds(ends, rounds, left):
    found = views._left(closed(*ends), rounds)
    assert (found and found.total_seconds()) == (left and pytest.approx(left))


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0, "10 seconds"),
        (24, "20 seconds"),
        (89, "90 seconds"),
        (100, "2 minutes"),
        (3600, "60 minutes"),
        (7200, "2 hours"),
    ],
)
def test_a_time_as_people_say_it(seconds, said):
    assert roughly(timedelta(seconds=seconds)) == said


def test_a_loss_that_is_not_finite_is_as_high_as_the_largest():
    assert views._heights([0.5, None, 1.0, 2.0]) == [0.25, 1.0, 0.5, 1.0]
    assert views._heights([None]) == [1.0]
    assert views._heights([0.0, 0.0]) == [0.0, 0.0]
    assert views._heights([]) == []


def test_the_page_draws_both_curves(client, started):
    started.rounds = 5
    started.save()
    for number in (1, 2):
        for lease in leases(started, number):
            commit(lease)
        close(started, number)
    client.force_login(started.ticket.customer)
    page = client.get(reverse("training:progress", args=[started.ticket_id])).content.decode()
    assert page.count("<polyline") == 2
    assert "left." in page


def follow(client, ticket, **query):
    return client.get(reverse("training:progress", args=[ticket.pk]), query)


def mark(page) -> str:
    return re.search(r'data-mark="(\w+)"', page.content.decode())[1]


def test_a_page_that_shows_all_of_it_is_sent_nothing(client, started):
    client.force_login(started.ticket.customer)
    first = follow(client, started.ticket)
    assert "Training, round 1 of 2." in first.content.decode()
    assert mark(client.get(reverse("tickets:ticket", args=[started.ticket_id]))) == mark(first)
    same = follow(client, started.ticket, seen=mark(first))
    assert same.status_code == 204 and same.content == b""
    for lease in leases(started):
        commit(lease)
    changed = follow(client, started.ticket, seen=mark(first))
    assert changed.status_code == 200 and mark(changed) != mark(first)


def test_links_that_are_signed_anew_are_nothing_new(client, run, monkeypatch):
    client.force_login(run.ticket.customer)
    Artifact.objects.create(ticket=run.ticket, file="x", name="model.json", size=10, sha256="0" * 64)
    first = follow(client, run.ticket)
    later = time.time() + 3600
    monkeypatch.setattr("django.core.signing.time", SimpleNamespace(time=lambda: later))
    assert follow(client, run.ticket, seen=mark(first)).status_code == 204


@pytest.mark.parametrize("status", [Status.QUOTED, Status.PAID, Status.UPLOADED])
def test_a_ticket_under_way_is_followed(client, run, status):
    assert not over(client, run, status)


def test_one_that_came_to_its_end_is_followed_no_more(client, run):
    assert over(client, run, Status.EXPIRED)
    assert not over(client, run, Status.SETTLED), "the card is not there yet"
    Run.objects.update(delivered=timezone.now())
    assert over(client, run, Status.SETTLED)


def test_the_money_on_its_way_is_still_followed(client, run):
    assert not over(client, run, Status.REFUNDED)
    ChainEvent.objects.create(
        name="Refunded", case=run.ticket_id, chain_id=1, block=1, block_hash="0x1", tx="0x2", log_index=0, args={}
    )
    assert over(client, run, Status.REFUNDED)


def over(client, run, status: str) -> bool:
    Ticket.objects.filter(pk=run.ticket_id).update(status=status)
    client.force_login(run.ticket.customer)
    return "data-over" in follow(client, run.ticket).content.decode()


@pytest.mark.parametrize(("count", "said"), [(20, False), (21, True)])
def test_why_there_is_no_matrix_is_said(client, started, count, said):
    kept = measures.by_class(np.arange(count), np.arange(count), count)
    Run.objects.filter(pk=started.pk).update(state=Run.State.DONE, classes=list(range(count)), facts={"kind": "images"})
    checked = {"state": Round.State.CLOSED, "checked": timezone.now(), "closed": timezone.now()}
    Round.objects.filter(run=started).update(accuracy=1.0, loss=0.1, by_class=kept, **checked)
    client.force_login(started.ticket.customer)
    page = follow(client, started.ticket).content.decode()
    assert ("is shown up to 20 classes; this model has 21" in page) == said
    assert ('class="matrix"' in page) != said


def test_who_waits_is_told_the_place_in_the_queue(client, run):
    client.force_login(run.ticket.customer)
    assert "you are next" in follow(client, run.ticket).content.decode()
    later = another(run)
    client.force_login(later.ticket.customer)
    assert "1 before yours" in follow(client, later.ticket).content.decode()


def test_the_timeline_links_its_transactions_and_still_escapes_the_rest(client, run, settings):
    settings.CHAIN_EXPLORER = "https://explorer.example"
    tickets.note(run.ticket, "payment", f"<b>paid</b> in 0x{'ab' * 32}")
    client.force_login(run.ticket.customer)
    page = follow(client, run.ticket).content.decode()
    assert f'href="https://explorer.example/tx/0x{"ab" * 32}"' in page
    assert "&lt;b&gt;paid&lt;/b&gt; in" in page
