"""A sweep comes to every run: one that can't go on keeps no other waiting."""

import pytest

from tickets.models import Status, Ticket
from training import tasks
from training.models import Run
from training.tests.conftest import another, make_provider

pytestmark = pytest.mark.django_db(transaction=True)


def test_a_run_that_cannot_start_does_not_keep_the_next_one_waiting(run):
    other = another(run)
    for name in ("ada", "bob", "cy", "dee"):
        make_provider(name)
    Ticket.objects.filter(pk=run.ticket_id).update(status=Status.REFUNDED)  # and no sweep has stopped it yet
    tasks.start_waiting.fn()
    assert list(Run.objects.filter(state=Run.State.TRAINING)) == [other]
