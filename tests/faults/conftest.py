"""Each fault is injected into a ticket that has been paid, with a provider in standing."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from uuid import UUID, uuid4

import pytest

from contracts.chain import Chain, Key
from contracts.devchain import DevChain, free_port
from contracts.devchain import test_key as rich
from ledger import actions
from ledger.models import ChainTx
from tests.faults.steps import FEE, PRICE, RECEIPTS, SHARES, pay, read, register


@pytest.fixture
def devchain() -> Iterator[DevChain]:
    """A chain for each test: its clock is moved, its blocks are thrown away, and only the test makes them final."""
    with DevChain(None, free_port(), beat=3600) as running:
        yield running


@pytest.fixture(autouse=True)
def no_messages(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each step is taken by hand."""
    monkeypatch.setattr("dmlsite.jobs._send", lambda *args: None)


@dataclass
class Paid:
    """A ticket in escrow. `had`: what the payer, and the provider, had before."""

    chain: Chain
    ticket: UUID
    payer: Key
    wallet: str
    payer_had: int
    wallet_had: int

    def settle(self) -> ChainTx:
        """Decide it; nothing is sent yet."""
        actions.release(self.ticket, {self.wallet: SHARES}, FEE, RECEIPTS)
        return ChainTx.objects.get(verb="settle", case=self.ticket)

    def refund(self) -> ChainTx:
        actions.refund(self.ticket, self.payer.address, PRICE)
        return ChainTx.objects.get(verb="refund", case=self.ticket)


@pytest.fixture
def paid(chain: Any) -> Paid:
    payer, provider, ticket = rich(1), rich(2), uuid4()
    wallet = register(chain, provider)
    had = chain.token_balance(payer.address) + PRICE, chain.token_balance(wallet)
    pay(chain, ticket, payer)
    read(chain)
    return Paid(chain, ticket, payer, wallet, *had)
