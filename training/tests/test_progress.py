"""What a ticket's page tells while it is trained: how long it still takes, and the curves."""

from datetime import timedelta

import pytest
from django.urls import reverse
from django.utils import timezone

from training import views
from training.models import Round
from training.templatetags.shown import roughly
from training.tests.conftest import close, commit, leases


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
