"""What the chain's client makes of a node that fails."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from contracts.chain import Chain, ChainError, Rejected, Unavailable, connect
from contracts.deploy import Deployment
from contracts.devchain import DevChain, _rpc, free_port
from contracts.devchain import test_key as rich
from contracts.tests.conftest import World, until
from contracts.tests.proxy import Proxy

NOWHERE = Deployment(31337, "0x" + "11" * 20, "0x" + "22" * 20, 0)


@pytest.fixture
def proxy(devchain: DevChain) -> Iterator[Proxy]:
    with Proxy(devchain.url) as running:
        yield running


def by(proxy: Proxy, world: World, timeout: float = 10) -> Chain:
    return Chain(connect(proxy.url, timeout), world.chain.deployment)


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Nothing is slept; the list says what would have been."""
    slept: list[float] = []
    monkeypatch.setattr("web3.providers.rpc.rpc.time.sleep", slept.append)
    return slept


def answered(chain: Chain) -> bool:
    try:
        chain.head()
    except Unavailable:
        return False
    return True


def test_questions_are_asked_again(world: World, proxy: Proxy, pauses: list[float]) -> None:
    """At seven failures in ten, one try in 3.3 succeeds, and five in 1.2."""
    chain = by(proxy, world)
    proxy.fail(0.7, seed=1)
    count = sum(answered(chain) for _ in range(100))
    assert count >= 75 and proxy.calls["eth_getBlockByNumber"] > 250
    proxy.fail(0)
    assert answered(chain)


def test_a_third_of_the_failures_have_happened_all_the_same(world: World, proxy: Proxy) -> None:
    w3, before = connect(proxy.url), world.chain.head().number
    proxy.fail(1, seed=1)
    for _ in range(60):
        with pytest.raises(OSError):
            _rpc(w3, "evm_mine", [])
    assert proxy.calls["evm_mine"] == 60, "what changes something is never repeated"
    assert 10 <= world.chain.head().number - before <= 40  # the heartbeat may add two


def test_a_dead_node_is_told_after_two_seconds(pauses: list[float]) -> None:
    with pytest.raises(Unavailable):
        Chain(connect(f"http://127.0.0.1:{free_port()}"), NOWHERE).head()
    assert len(pauses) == 4 and sum(pauses) <= 2


def test_a_proxy_that_ended_is_a_dead_node(devchain: DevChain, pauses: list[float]) -> None:
    """Also for the connections that it had."""
    with Proxy(devchain.url) as proxy:
        chain = Chain(connect(proxy.url), NOWHERE)
        assert answered(chain)
    assert not answered(chain) and len(pauses) == 4


def test_a_mute_node_is_not_waited_for_twice(world: World, proxy: Proxy) -> None:
    proxy.swallow("eth_getBlockByNumber")
    assert not answered(by(proxy, world, timeout=0.5))
    until(lambda: proxy.calls["eth_getBlockByNumber"])
    assert proxy.calls["eth_getBlockByNumber"] == 1


def test_what_sends_is_sent_once(world: World, proxy: Proxy) -> None:
    """The node takes the transaction, and its answer is lost: unknown to us, and mined once."""
    chain, sender = world.chain, rich(4)
    nonce = chain.next_nonce(sender.address)
    signed = chain.sign(chain.approve_call(1), sender, nonce)
    proxy.swallow("eth_sendRawTransaction")
    with pytest.raises(Unavailable):
        by(proxy, world, timeout=1).broadcast(signed.raw)
    assert chain.wait(signed.hash).ok and chain.confirmed_nonce(sender.address) == nonce + 1
    assert proxy.calls["eth_sendRawTransaction"] == 1


def test_sending_fails_at_once_when_all_fails(world: World, proxy: Proxy, pauses: list[float]) -> None:
    chain, sender = by(proxy, world), rich(4)
    signed = chain.sign(chain.approve_call(1), sender, chain.next_nonce(sender.address))
    proxy.fail(1)
    with pytest.raises(Unavailable):
        chain.broadcast(signed.raw)
    assert proxy.calls["eth_sendRawTransaction"] == 1 and pauses == []


def test_a_range_that_is_refused_is_an_error_with_the_nodes_words(world: World, proxy: Proxy) -> None:
    chain, last = by(proxy, world), world.chain.head().number
    proxy.limit_range(2)
    assert chain.events(last - 1, last) == world.chain.events(last - 1, last)
    with pytest.raises(Rejected, match="too wide"):
        chain.events(last - 2, last)
    assert proxy.calls["eth_getLogs"] == 3, "an answer is an answer: it is not asked for again"


def test_finality_can_stand_still(world: World, proxy: Proxy) -> None:
    chain, sender = by(proxy, world), world.customer.address
    proxy.freeze_finalized()
    before, nonce = chain.finalized(), chain.final_nonce(sender)
    world.pay(1)
    for _ in range(4):
        _rpc(world.chain.w3, "evm_mine", [])
    assert (chain.finalized(), chain.final_nonce(sender)) == (before, nonce)
    assert chain.head().number >= before.number + 5, "the rest goes on"
    proxy.thaw()
    assert chain.finalized().number > before.number and chain.final_nonce(sender) == nonce + 1


def test_another_node_behind_the_same_address_is_noticed(world: World, proxy: Proxy) -> None:
    chain = by(proxy, world)
    chain.verify()
    with DevChain(None, free_port(), chain_id=4242) as other:
        proxy.switch(other.url)
        with pytest.raises(ChainError, match="serves chain 4242"):
            chain.verify()


def test_what_is_told_of_a_node_that_is_away_has_no_key_of_its_address(world: World) -> None:
    away = Chain(connect("http://127.0.0.1:1/v2/a-customers-key?token=another"), world.chain.deployment)
    with pytest.raises(Unavailable) as told:
        away.suggest_fees()
    assert "127.0.0.1" in str(told.value) and "key" not in str(told.value) and "another" not in str(told.value)
