"""Rounds over the API."""

import pytest
from django.utils import timezone

from dmlsite.tests.people import api, person, problem
from tickets.models import Ticket
from training.models import Blob, Round, Run


@pytest.fixture
def url(run):
    blob = Blob.objects.first()
    closed = {"state": Round.State.CLOSED, "accuracy": 0.75, "loss": 0.5, "closed": timezone.now()}
    Round.objects.update_or_create(run=run, number=1, defaults=closed | {"start": blob})
    Round.objects.create(run=run, number=2, start=blob)
    return f"/api/v1/tickets/{run.ticket_id}/rounds"


def test_the_customer_sees_the_rounds_in_order(run, url):
    rows = api(run.ticket.customer).get(url).json()
    assert [(row["number"], row["state"], row["accuracy"]) for row in rows] == [(1, "closed", 0.75), (2, "open", None)]


def test_nobody_else_does(run, url):
    problem(api(person("outsider", is_customer=True)).get(url), 404)
    problem(api().get(url), 401)


def test_a_ticket_without_a_run_has_no_rounds(run, url):
    run.all_rounds.all().delete()
    assert api(Ticket.objects.get().customer).get(url).json() == []


def test_the_customer_alone_sees_the_metrics(run):
    url = f"/api/v1/tickets/{run.ticket_id}/metrics"
    assert api(run.ticket.customer).get(url).json() == []
    Run.objects.update(metrics={"accuracy": [0.9, 0.8, 0.95], "roc_auc": [None, None, None]})
    assert api(run.ticket.customer).get(url).json() == [
        {"name": "accuracy", "value": 0.9, "low": 0.8, "high": 0.95},
        {"name": "roc_auc", "value": None, "low": None, "high": None},
    ]
    problem(api(person("outsider", is_customer=True)).get(url), 404)
