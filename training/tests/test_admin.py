"""Runs, rounds, assignments and audits in the admin."""

import pytest
from django.urls import reverse

from dmlsite.tests.people import admin_client
from dmlsite.tests.rows import everything
from training.models import Assignment, Audit, Replay, Round, Run

pytestmark = pytest.mark.django_db


@pytest.fixture
def client():
    return admin_client()


@pytest.fixture(autouse=True)
def ticket():
    return everything()


def page(client, row):
    return client.get(reverse(f"admin:training_{row._meta.model_name}_change", args=[row.pk])).content.decode()


def test_a_run_shows_its_rounds_and_their_accuracy(client):
    text = page(client, Run.objects.get())
    assert "97.00 %" in text and "1 of 1" in text


def test_a_round_shows_who_did_what(client):
    text = page(client, Round.objects.get())
    for said in ("gpu-farm", "0 (400 samples)", "190 (95.00%)", "too far"):
        assert said in text


def test_an_assignment_shows_its_audits(client):
    text = page(client, Assignment.objects.get())
    assert "failed" in text and "points away" in text
    assert "0.9" in page(client, Audit.objects.get())


def test_an_audit_shows_what_its_replays_ended_with_and_how_far_honest_ones_are_apart(client):
    Replay.objects.update(result="7" * 64, apart=0.00123)
    text = page(client, Audit.objects.get())
    assert "7" * 64 in text and "0.00123" in text


def test_the_links_of_tickets_providers_and_runs_find_their_rows(client, ticket):
    work = Assignment.objects.get()
    queries = {"q": ticket.pk}, {"provider__id__exact": work.provider_id}, {"round__run__id__exact": work.round.run_id}
    for query in queries:
        answer = client.get(reverse("admin:training_assignment_changelist", query=query))
        assert answer.status_code == 200
        assert answer.context["cl"].result_count == 1
    other = {"provider__id__exact": ticket.pk}
    assert client.get(reverse("admin:training_assignment_changelist", query=other)).context["cl"].result_count == 0
