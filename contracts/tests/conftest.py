"""A real anvil and one deployment with its people for all tests here; each finds it as it was."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from uuid import UUID, uuid4

import pytest

from contracts.chain import Chain, Key, Quote, Receipt, connect
from contracts.deploy import Terms, deploy
from contracts.devchain import DevChain, _rpc, free_port
from contracts.devchain import test_key as rich

DML = 10**6
# A challenge that cannot pass by itself while a test waits for its turn on a busy machine.
TERMS = Terms.development(challenge=600)


@dataclass
class World:
    """One deployment. `providers` are registered, in the ascending order of their addresses."""

    chain: Chain
    admin: Key
    quoter: Key
    settler: Key
    guardian: Key
    customer: Key
    treasury: str
    providers: list[Key] = field(default_factory=list)

    def quote(self, amount: int, payer: str = "", pay_for: int = 600, settle_for: int = 3_600) -> Quote:
        now = self.chain.head().timestamp
        return Quote(uuid4(), payer or self.customer.address, amount, now + pay_for, now + settle_for)

    def pay(self, amount: int) -> UUID:
        quote = self.quote(amount)
        self.chain.send(self.chain.pay_call(quote, self.chain.sign_quote(quote, self.quoter)), self.customer)
        return quote.ticket

    def settle(self, ticket: UUID, *amounts: int) -> Receipt:
        shares: dict[str, int] = dict(zip((key.address for key in self.providers), amounts, strict=True))
        return self.chain.send(self.chain.settle_call(ticket, shares, "0x" + "ab" * 32), self.settler)

    def join(self, key: Key) -> UUID:
        ref = uuid4()
        self.chain.send(self.chain.register_call(ref.bytes), key)
        return ref

    def pass_time(self, seconds: int) -> None:
        _rpc(self.chain.w3, "evm_increaseTime", [seconds])
        _rpc(self.chain.w3, "evm_mine", [])

    def balance(self, key: Key | str) -> int:
        return self.chain.token_balance(key if isinstance(key, str) else key.address)


@pytest.fixture(scope="session")
def devchain() -> Iterator[DevChain]:
    with DevChain(None, free_port()) as chain:
        yield chain


@pytest.fixture(scope="session")
def deployed(devchain: DevChain) -> World:
    return build_world(devchain)


@pytest.fixture
def world(deployed: World) -> Iterator[World]:
    """Everything done on the chain, time travel too, is undone afterwards."""
    before = _rpc(deployed.chain.w3, "evm_snapshot", [])
    try:
        yield deployed
    finally:
        _rpc(deployed.chain.w3, "evm_revert", [before])


def build_world(devchain: DevChain, terms: Terms | None = None) -> World:
    w3 = connect(devchain.url)
    admin, quoter, settler, guardian, customer, treasury, *others = map(rich, range(10))
    place = deploy(
        w3,
        admin,
        quoter=quoter.address,
        settler=settler.address,
        guardian=guardian.address,
        treasury=treasury.address,
        terms=terms or TERMS,
    )
    chain = Chain(w3, place)
    world = World(chain, admin, quoter, settler, guardian, customer, treasury.address)
    chain.send(chain.transfer_call(customer.address, 1_000 * DML), admin)
    world.providers = sorted(others, key=lambda key: int(key.address, 16))
    for key in world.providers:
        world.join(key)
    return world


@pytest.fixture
def state_file(tmp_path: Path) -> Path:
    return tmp_path / "chain.json"


def until(condition: object, seconds: float = 60) -> None:
    """Wait for a callable to become true."""
    assert callable(condition)
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.05)
