"""The admin's page about the money: what needs a hand, what is owed and held, how far the gas reaches."""

from datetime import timedelta
from uuid import uuid4

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import Permission
from django.urls import reverse
from django.utils import timezone

from contracts.devchain import test_key as rich
from dmlsite.testing import finalize
from dmlsite.tests.people import admin_client, person
from ledger import overview, watch
from ledger.gateway import key
from ledger.models import Alarm, Attempt, ChainEvent, ChainTx, Reconciliation, Transfer
from ledger.scanner import Scanner
from ledger.tests.test_chain_flow import PRICE, no_messages, pay, register

pytestmark = pytest.mark.django_db(transaction=True)
__all__ = ["no_messages"]
PAGE, NOW = "admin:ledger_reconciliation_changelist", "admin:ledger_reconcile_now"


def text_of(client) -> str:
    answer = client.get(reverse(PAGE))
    assert answer.status_code == 200
    return answer.content.decode()


def test_nothing_needs_a_hand_and_the_balances_are_shown_in_units(chain):
    pay(chain, uuid4(), rich(1))
    register(chain, rich(2))
    finalize(chain)
    Scanner(chain).scan()
    page = text_of(admin_client())
    assert "No alarm is open" in page
    assert f"at final block {chain.finalized().number}" in page
    assert "0.13 DML" in page and "0.001 coin" in page
    assert key("settler").address in page and "transactions" in page


def test_every_kind_of_exception_is_in_the_queue(chain, monkeypatch):
    payer = rich(1)
    ticket = uuid4()
    pay(chain, ticket, payer)
    chain.send(chain.transfer_call(payer.address, 7), key("admin"))
    chain.send(chain.transfer_call(chain.deployment.escrow, 7), payer)
    finalize(chain)
    Scanner(chain).scan()
    long_ago = timezone.now() - timedelta(days=2)
    ChainTx.objects.create(key="a", verb="accuse", case=uuid4(), to=payer.address, data="0x")
    stuck = ChainTx.objects.create(key="b", verb="settle", case=ticket, to="0x", data="0x", state="sent", nonce=4)
    Attempt.objects.create(tx=stuck, raw=b"", hash="0x1", gas=1, max_fee_gwei=1, tip_gwei=1)
    ChainTx.objects.update(created=long_ago)
    Attempt.objects.update(created=long_ago)
    ChainEvent.objects.update(seen=long_ago)
    plan = {"debit": f"escrow:{ticket}", "credit": "fee", "currency": "DML", "amount": PRICE}
    Transfer.objects.bulk_create([Transfer(key="p", kind="pending", case=ticket, **plan)])
    monkeypatch.setattr(overview, "UNDECIDED", timedelta(0))  # the rows of the ledger cannot be made older
    found = {matter.kind: matter.text for matter in overview.exceptions()}
    kinds = {"alarm: stray tokens", "stray tokens", "stuck nonce", "overdue", "event nobody acted on"}
    assert set(found) == kinds | {"planned, not done"}
    assert found["stray tokens"] == f"0.000007 DML from {payer.address}; that wallet paid for ticket {ticket}"
    assert "nonce 4" in found["stuck nonce"]
    page = text_of(admin_client())
    assert all(kind in page for kind in found)


def test_without_a_chain_the_page_still_says_what_needs_a_hand(settings, tmp_path, chain):
    from ledger import gateway

    Alarm.objects.create(kind="gas low", text="the settler is poor")
    gateway.chain.cache_clear()
    settings.CHAIN_DEPLOYMENT = tmp_path / "none.json"
    page = text_of(admin_client())
    assert "the settler is poor" in page and "does not answer" in page


def test_an_admin_reconciles_by_a_button_and_is_logged(chain):
    client = admin_client()
    page = client.post(reverse(NOW), follow=True).content.decode()
    assert "the chain was not scanned yet" in page
    finalize(chain)
    Scanner(chain).scan()
    client.post(reverse(NOW))
    assert Reconciliation.objects.get().balanced
    assert LogEntry.objects.get().change_message == "reconciled"
    assert client.get(reverse(NOW)).status_code == 405
    one = client.get(reverse("admin:ledger_reconciliation_change", args=[Reconciliation.objects.get().pk]))
    assert "paid = escrowed + settled + refunded" in one.content.decode()


def test_who_may_only_look_has_no_button(chain, client):
    auditor = person("auditor", is_staff=True)
    auditor.user_permissions.add(Permission.objects.get(codename="view_reconciliation"))
    client.force_login(auditor)
    assert "Reconcile now" not in text_of(client)
    assert client.post(reverse(NOW)).status_code == 403


def test_gas_that_runs_low_alarms(chain, settings):
    watch.gas(chain)
    assert not Alarm.objects.exists()
    settings.GAS_RUNWAY = 10**9
    watch.gas(chain)
    watch.gas(chain)
    assert Alarm.objects.filter(kind="gas low").count() == 1
    assert key("settler").address in Alarm.objects.get().text


def test_what_is_overdue_or_not_reconciled_any_more_alarms(chain):
    ripe = timezone.now() - timedelta(hours=3)
    ChainTx.objects.create(key="late", verb="settle", case=uuid4(), to="0x", data="0x")
    waits = timezone.now() + timedelta(hours=3)
    ChainTx.objects.create(key="waits", verb="executeBan", case=uuid4(), to="0x", data="0x", not_before=waits)
    ChainTx.objects.update(created=ripe)
    Reconciliation.objects.create(block=1, balanced=True, rows=[])
    watch.all_of(chain)
    assert [alarm.kind for alarm in Alarm.objects.all()] == ["transaction overdue"]
    Reconciliation.objects.update(created=ripe)
    watch.all_of(chain)
    assert Alarm.objects.filter(kind="reconciliation overdue").exists()


def test_every_alarm_has_a_page_in_the_runbook():
    from dmlsite.testing import ROOT

    runbook = (ROOT / "docs" / "money.md").read_text()
    assert [kind for kind in Alarm.Kind.values if f"### {kind}\n" not in runbook] == []
