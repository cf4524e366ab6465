"""What the chain's client makes of a node that fails."""

import time
from collections.abc import Iterator

import pytest

from contracts.chain import Chain, Rejected, Unavailable, connect
from contracts.devchain import DevChain, free_port
from contracts.devchain import test_key as rich
from contracts.tests.conftest import World
from contracts.tests.proxy import Proxy


@pytest.fixture
def proxy(devchain: DevChain) -> Iterator[Proxy]:
    with Proxy(devchain.url) as running:
        yield running


def test_questions_are_asked_again(world: World, proxy: Proxy) -> None:
    chain = Chain(connect(proxy.url), world.chain.deployment)
    proxy.fail(0.5, seed=1)
    assert [chain.head().number for _ in range(20)]
    assert proxy.calls["eth_getBlockByNumber"] > 20


def test_what_sends_is_sent_once(world: World, proxy: Proxy) -> None:
    """The node takes the transaction, and its answer is lost: unknown to us, and mined once."""
    chain = Chain(connect(proxy.url), world.chain.deployment)
    proxy.swallow("eth_sendRawTransaction")
    signed = chain.sign(chain.approve_call(1), rich(4), chain.next_nonce(rich(4).address))
    with pytest.raises(Unavailable):
        chain.broadcast(signed.raw)
    assert proxy.calls["eth_sendRawTransaction"] == 1
    assert chain.wait(signed.hash).ok


def test_a_dead_node_is_told_soon() -> None:
    began = time.monotonic()
    with pytest.raises(Unavailable):
        Chain.verify(_nowhere())
    assert time.monotonic() - began < 30, "bounded, on a slow machine too"


def _nowhere() -> Chain:
    from contracts.chain import Deployment

    zero = "0x" + "00" * 20
    return Chain(connect(f"http://127.0.0.1:{free_port()}"), Deployment(31337, zero, zero, 0))


def test_a_range_that_is_refused_is_an_error_with_the_nodes_words(world: World, proxy: Proxy) -> None:
    chain = Chain(connect(proxy.url), world.chain.deployment)
    proxy.limit_range(2)
    last = chain.head().number
    assert chain.events(last - 1, last) is not None
    with pytest.raises(Rejected, match="too wide"):
        chain.events(last - 2, last)


def test_finality_can_stand_still(world: World, proxy: Proxy) -> None:
    chain = Chain(connect(proxy.url), world.chain.deployment)
    proxy.freeze_finalized()
    before, nonce = chain.finalized(), chain.final_nonce(rich(4).address)
    world.pay(1)
    for _ in range(4):
        chain.w3.provider.make_request("evm_mine", [])  # type: ignore[arg-type]
    assert (chain.finalized(), chain.final_nonce(rich(4).address)) == (before, nonce)
    proxy.thaw()
    assert chain.finalized().number > before.number
