"""The ledger's pages: units, links, exports, and the two things an admin can do there."""

import csv
from uuid import UUID

import pytest
from django.contrib.admin.models import LogEntry
from django.urls import reverse

from dmlsite.export import cell
from dmlsite.tests.people import admin_client
from ledger import actions
from ledger.models import Alarm, Attempt, ChainEvent, ChainTx, Currency, Transfer

pytestmark = pytest.mark.django_db
HASH, WALLET = "0x" + "ab" * 32, "0x" + "12" * 20
CASE = UUID(int=7)


@pytest.fixture
def rows():
    place = {"chain_id": 1, "block": 7, "block_hash": "0x1", "tx": HASH, "case": CASE, "log_index": 0}
    event = ChainEvent.objects.create(name="StakeShared", args={"provider": WALLET, "amount": 500_000}, **place)
    about = {"kind": "posted", "debit": f"case:{CASE}", "credit": f"credit:{WALLET}", "case": CASE}
    Transfer.objects.create(key="a", currency=Currency.COIN, amount=500_000, event=event, **about)
    Transfer.objects.create(key="b", currency=Currency.DML, amount=130_000, **about)


def listed(model, **query):
    return reverse(f"admin:ledger_{model}_changelist", query=query)


def tx(state="reverted", verb="accuse") -> ChainTx:
    found = ChainTx.objects.create(key=f"{verb}:{CASE}", verb=verb, case=CASE, to=WALLET, data="0x", state=state)
    Attempt.objects.create(
        tx=found, raw=b"", hash=HASH, gas=50_000, max_fee_gwei=2, tip_gwei=1, fee_gwei=123_000, block=8
    )
    return found


def test_amounts_are_shown_in_units(rows):
    client = admin_client()
    page = client.get(listed("transfer")).content.decode()
    assert "0.0005 coin" in page and "0.13 DML" in page
    assert "0.0005 coin" in client.get(listed("chainevent")).content.decode()


def test_transfers_are_exported_in_units(rows):
    chosen = {"action": "export", "_selected_action": list(Transfer.objects.values_list("pk", flat=True))}
    answer = admin_client().post(listed("transfer"), chosen)
    assert answer["Content-Type"].startswith("text/csv")
    found = list(csv.DictReader(answer.getvalue().decode().splitlines()))
    assert {(row["currency"], row["amount"]) for row in found} == {("COIN", "0.0005"), ("DML", "0.13")}
    assert {row["transaction"] for row in found} == {HASH, ""}


@pytest.mark.parametrize("model", ["chaintx", "chainevent"])
def test_the_chain_is_exported_too(rows, model):
    row = tx() if model == "chaintx" else ChainEvent.objects.get()
    answer = admin_client().post(listed(model), {"action": "export", "_selected_action": row.pk})
    [line] = csv.DictReader(answer.getvalue().decode().splitlines())
    assert HASH in line.values()
    assert "0.000123" in line.values() or "0.0005 coin" in line["arguments"]


@pytest.mark.parametrize(("value", "shown"), [("=1+1", "'=1+1"), ("@x", "'@x"), ("refund:1", "refund:1"), (3, 3)])
def test_a_spreadsheet_is_given_no_formula(value, shown):
    assert cell(value) == shown


@pytest.mark.parametrize("term", [HASH, HASH.upper().replace("X", "x"), WALLET, str(CASE)])
def test_rows_are_found_by_hash_wallet_and_case(rows, term):
    client, _ = admin_client(), tx()
    assert client.get(listed("transfer", q=term)).context["cl"].result_count > 0
    assert client.get(listed("chainevent", q=term)).context["cl"].result_count == 1
    if term != WALLET:
        assert client.get(listed("chaintx", q=term)).context["cl"].result_count == 1


def test_the_explorer_is_linked_if_there_is_one(rows, settings):
    client, link = admin_client(), f'href="https://scan.example/tx/{HASH}"'
    assert link not in client.get(listed("transfer")).content.decode()
    settings.CHAIN_EXPLORER = "https://scan.example"
    assert link in client.get(listed("transfer")).content.decode()


def test_an_alarm_is_cleared_once_with_who_and_when():
    actions.alarm("mail failed", "refused", CASE)
    client, alarm = admin_client(), Alarm.objects.get()
    for _ in range(2):
        client.post(listed("alarm"), {"action": "clear", "_selected_action": alarm.pk})
    alarm.refresh_from_db()
    assert alarm.cleared and alarm.cleared_by == "admin@example.org"
    assert LogEntry.objects.count() == 1


def test_a_reverted_transaction_is_tried_again_and_no_other():
    client, found = admin_client(), tx()
    form = {"action": "again", "_selected_action": found.pk, "button": "1"}
    client.post(listed("chaintx"), form)
    assert sorted(ChainTx.objects.values_list("state", flat=True)) == ["ready", "reverted"]
    assert LogEntry.objects.get().object_id == str(found.pk)
    ChainTx.objects.filter(pk=found.pk).update(state="final")
    page = client.post(listed("chaintx"), form, follow=True).content.decode()
    assert "Only a reverted transaction can be tried again." in page
    assert ChainTx.objects.count() == 2 and LogEntry.objects.count() == 1


def test_a_reverted_refund_is_not_tried_again_when_the_payment_was_decided_anew():
    client, found = admin_client(), tx(verb="refund")
    ChainTx.objects.create(key=f"refund:{CASE}#2", verb="refund", case=CASE, to=WALLET, data="0x", state="reverted")
    form = {"action": "again", "_selected_action": found.pk, "button": "1"}
    page = client.post(listed("chaintx"), form, follow=True).content.decode()
    assert "decided anew" in page and ChainTx.objects.count() == 2


def test_the_signed_bytes_are_not_shown():
    found = tx()
    Attempt.objects.update(raw=b"\xde\xad\xbe\xef" * 8)
    page = admin_client().get(reverse("admin:ledger_chaintx_change", args=[found.pk])).content.decode()
    assert HASH in page and "deadbeef" not in page
