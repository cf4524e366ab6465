"""The admin's first page: what it tells, to whom, and what it says while the chain is away."""

import time
from datetime import timedelta
from uuid import uuid4

import pytest
from django.contrib.auth.models import Permission
from django.urls import reverse
from django.utils import timezone

from contracts.devchain import test_key as rich
from dmlsite.testing import finalize
from dmlsite.tests.people import admin_client, person
from dmlsite.tests.rows import everything
from ledger import gateway, overview
from ledger.models import Alarm, Reconciliation, Transfer
from ledger.scanner import Scanner
from ledger.tests.test_chain_flow import no_messages, pay
from providers.models import Accusation, Answer, Provider
from tickets.models import Mail

__all__ = ["no_messages"]
pytestmark = pytest.mark.django_db
PARTS = {
    "cases": "view_accusation",
    "alarms": "view_alarm",
    "tickets": "view_ticket",
    "escrow": "view_reconciliation",
    "workers": "view_provider",
    "mails": "view_mail",
}


@pytest.fixture
def no_chain(settings, tmp_path):
    settings.CHAIN_DEPLOYMENT = tmp_path / "none.json"


def page_of(client) -> str:
    answer = client.get(reverse("admin:index"))
    assert answer.status_code == 200
    return answer.content.decode()


def escrow_of(client) -> str:
    return page_of(client).split('id="desk-escrow"')[1].split("</section>")[0]


def test_an_empty_site_has_nothing_that_waits(no_chain):
    page = page_of(admin_client())
    for text in ("Nobody is accused", "None is open", "not reconciled yet", "Recent actions", "Moderation and audit"):
        assert text in page


def test_what_waits_is_told_with_links(no_chain):
    everything()
    case = Accusation.objects.get()
    Accusation.objects.update(executable_at=timezone.now() + timedelta(hours=5))
    client = admin_client()
    page = page_of(client)
    for model in (case, Alarm.objects.get()):
        assert reverse(f"admin:{model._meta.app_label}_{model._meta.model_name}_change", args=[model.pk]) in page
    assert "Accusations that wait: 1" in page
    assert "gpu-farm" in page
    assert "two replays" in page
    assert "4\xa0hours" in page
    assert "<strong>answered</strong>" not in page
    assert '/admin/tickets/ticket/?status__exact=settled">settled</a></th><td class="num">1</td>' in page
    assert "<strong>1</strong> of 1 provider;" in page
    assert '/admin/tickets/mail/?sent__isempty=1"><strong>1</strong></a>' in page
    assert "1 failed" in page
    assert "block 7: DIFFERENT" in page
    Answer.objects.create(accusation=case, provider=Provider.objects.get(), text="It was the memory.")
    Accusation.objects.update(executable_at=timezone.now() - timedelta(minutes=1))
    page = page_of(client)
    assert "<strong>answered</strong>" in page
    assert "may be executed since" in page


def test_what_is_done_waits_no_longer(no_chain):
    everything()
    Accusation.objects.update(state="lifted")
    Alarm.objects.update(cleared=timezone.now())
    Mail.objects.update(sent=timezone.now())
    page = page_of(admin_client())
    assert "Nobody is accused" in page
    assert "None is open" in page
    assert "two replays" not in page
    assert 'sent__isempty=1"><strong>0</strong>' in page


@pytest.mark.parametrize("part", PARTS)
def test_each_part_is_for_who_may_see_its_rows(client, no_chain, part):
    everything()
    auditor = person("auditor", is_staff=True)
    client.force_login(auditor)
    assert 'id="desk"' not in page_of(client)
    auditor.user_permissions.add(Permission.objects.get(codename=PARTS[part]))
    page = page_of(client)
    assert [name for name in PARTS if f'id="desk-{name}"' in page] == [part]


def test_nobody_else_gets_in(client):
    for user in (None, person("outsider", is_customer=True, is_provider=True)):
        if user:
            client.force_login(user)
        assert client.get(reverse("admin:index")).url.startswith(reverse("admin:login"))


def test_without_a_chain_the_books_are_shown_alone(no_chain):
    everything()
    told = escrow_of(admin_client())
    assert "0.13 DML" in told
    assert "The chain was not read yet" in told


@pytest.mark.django_db(transaction=True)
def test_books_and_chain_are_shown_side_by_side(chain, no_messages):
    ticket = uuid4()
    client = admin_client()
    assert "The chain was not read yet" in escrow_of(client)
    pay(chain, ticket, rich(1))
    finalize(chain)
    Scanner(chain).scan()
    told = escrow_of(client)
    assert told.count("0.13 DML") == 2
    assert f"Equal at block {chain.finalized().number}" in told
    astray = {"debit": "outside:x", "credit": "escrow:x", "currency": "DML", "amount": 1}
    Transfer.objects.create(key="astray", kind="posted", case=ticket, **astray)
    Reconciliation.objects.create(block=7, balanced=True, rows=[])
    told = escrow_of(client)
    assert "Books and chain differ" in told
    assert "block 7: all equal" in told


@pytest.mark.django_db(transaction=True)
def test_a_node_that_is_gone_is_told_and_the_rest_is_there(chain, no_messages, settings):
    finalize(chain)
    Scanner(chain).scan()
    gateway.chain.cache_clear()
    settings.CHAIN_RPC_URL = "http://127.0.0.1:9"
    page = page_of(admin_client())
    assert "The chain does not answer just now: " in page
    assert "0.00 DML" in page
    assert "None is open" in page


@pytest.mark.django_db(transaction=True)
def test_a_chain_that_hangs_holds_the_page_up_for_a_moment_only(chain, no_messages, monkeypatch):
    finalize(chain)
    Scanner(chain).scan()
    monkeypatch.setattr(overview, "ANSWER_SECONDS", 0.2)
    monkeypatch.setattr(overview, "chain", lambda: time.sleep(3))
    client, began = admin_client(), time.monotonic()
    told = [escrow_of(client) for _ in range(4)]  # more than the threads that wait
    assert time.monotonic() - began < 3
    assert all("nothing came within" in each for each in told)
