"""The books agree with the chain after everything that may happen, and a wrong row is noticed."""

from io import StringIO
from uuid import uuid4

import pytest
from django.core.management import call_command

from contracts.devchain import test_key as rich
from dmlsite.testing import finalize
from ledger import actions, alarms
from ledger.models import Alarm, ChainEvent, Transfer, balance
from ledger.reconcile import NotYet, compare, reconcile
from ledger.scanner import Scanner
from ledger.tests.test_chain_flow import PRICE, ROOT, no_messages, pay, register, settled_once

pytestmark = pytest.mark.django_db(transaction=True)
__all__ = ["no_messages"]


@pytest.fixture
def busy(chain):
    """One ticket settled, one refunded, one still in escrow; a deposit; a stray token in the escrow."""
    tickets, payer = [uuid4() for _ in range(3)], rich(1)
    wallet = register(chain, rich(2))
    for ticket in tickets:
        pay(chain, ticket, payer)
    finalize(chain)
    Scanner(chain).scan()
    actions.release(tickets[0], {wallet: 127_400}, 2_600, ROOT)
    actions.refund(tickets[1], payer.address, PRICE)
    from ledger.gateway import key

    chain.send(chain.transfer_call(chain.deployment.escrow, 5), key("admin"))
    settled_once(chain)
    return chain


def test_every_equality_holds(busy):
    _, found = compare(busy)
    assert [row for row in found if row.difference] == []
    assert {row.name: row.left for row in found}["escrow accounts = escrowed"] == PRICE
    assert reconcile(busy).balanced
    assert not Alarm.objects.filter(halts="payouts").exists()
    out = StringIO()
    call_command("reconcile", stdout=out)
    assert "DIFFERS" not in out.getvalue()


def test_a_wrong_row_is_noticed(busy):
    Transfer.objects.create(
        key="forged", kind="posted", currency="DML", debit="outside:x", credit=f"escrow:{uuid4()}", amount=1
    )
    wrong = [row for row in compare(busy)[1] if row.difference]
    names = ["escrow accounts = escrowed", "paid = escrowed + settled + refunded"]
    assert [(row.name, row.difference) for row in wrong] == [(name, 1) for name in names]
    with pytest.raises(SystemExit):
        call_command("reconcile", stdout=StringIO())


def test_a_difference_stops_payouts_until_an_admin_clears_it(busy):
    [waiting] = [
        ticket
        for ticket in ChainEvent.objects.filter(name="Paid").values_list("case", flat=True)
        if balance(f"escrow:{ticket}")
    ]
    Transfer.objects.create(
        key="forged", kind="posted", currency="COIN", debit="outside:x", credit="credit:y", amount=3
    )
    found = reconcile(busy)
    assert not found.balanced
    alarm = Alarm.objects.get(kind="books differ")
    assert (alarm.halts, "off by 0.000000003 coin" in alarm.text) == ("payouts", True)
    actions.refund(waiting, rich(1).address, PRICE)
    settled_once(busy)
    assert busy.ticket_state(waiting) == "Paid"
    reconcile(busy)
    assert Alarm.objects.filter(kind="books differ").count() == 1, "one open alarm, however often it is found"

    alarms.clear(alarm, "admin@example.org")
    settled_once(busy)
    assert busy.ticket_state(waiting) == "Refunded"
    reconcile(busy)
    assert Alarm.objects.filter(kind="books differ", cleared=None).exists(), "it is still there, so it is said again"


def test_coins_forced_on_the_escrow_are_nobodys_and_stop_nothing(busy):
    """A contract can end itself and send its coins anywhere, unasked."""
    before = busy.native_balance(busy.deployment.escrow)
    busy.w3.provider.make_request("anvil_setBalance", [busy.deployment.escrow, hex((before + 7) * 10**9)])
    busy.w3.provider.make_request("evm_mine", [])
    finalize(busy)
    busy.w3.provider.make_request("evm_mine", [])
    busy.w3.provider.make_request("evm_mine", [])
    Scanner(busy).scan()
    assert busy.native_balance(busy.deployment.escrow, at=busy.finalized().number) == before + 7
    assert reconcile(busy).balanced


def test_before_the_first_scan_nothing_is_said(chain):
    with pytest.raises(NotYet):
        reconcile(chain)
