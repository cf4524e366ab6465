"""The books agree with the chain after everything that may happen, and a wrong row is noticed."""

from io import StringIO
from uuid import uuid4

import pytest
from django.core.management import call_command

from contracts.devchain import test_key as rich
from dmlsite.testing import finalize
from ledger import actions
from ledger.models import Transfer
from ledger.reconcile import NotYet, reconcile
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
    found = reconcile(busy)
    assert [row for row in found if row.difference] == []
    assert {row.name: row.left for row in found}["escrow accounts == escrowed"] == PRICE
    out = StringIO()
    call_command("reconcile", stdout=out)
    assert "DIFFERS" not in out.getvalue()


def test_a_wrong_row_is_noticed(busy):
    Transfer.objects.create(
        key="forged", kind="posted", currency="DML", debit="outside:x", credit=f"escrow:{uuid4()}", amount=1
    )
    wrong = [row for row in reconcile(busy) if row.difference]
    names = ["escrow accounts == escrowed", "paid == escrowed + settled + refunded"]
    assert [(row.name, row.difference) for row in wrong] == [(name, 1) for name in names]
    with pytest.raises(SystemExit):
        call_command("reconcile", stdout=StringIO())


def test_before_the_first_scan_nothing_is_said(chain):
    with pytest.raises(NotYet):
        reconcile(chain)
