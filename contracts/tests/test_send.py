"""Signing, sending and looking: what the outbox builds on."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from contracts.chain import (
    Chain,
    ChainError,
    Deployment,
    Fees,
    Rejected,
    Unavailable,
    connect,
)
from contracts.devchain import DevChain, _rpc, free_port, mine_if_pending_finality
from contracts.keys import load_keystore, make_keystore
from contracts.tests.conftest import World, build_world


def test_verify_knows_its_chain_and_its_code(world: World) -> None:
    world.chain.verify()
    place, w3 = world.chain.deployment, world.chain.w3
    with pytest.raises(ChainError, match="serves chain 31337, the contracts are on 80002"):
        Chain(w3, replace(place, chain_id=80002)).verify()
    with pytest.raises(ChainError, match="no DMLEscrow at"):
        Chain(w3, replace(place, escrow=world.treasury)).verify()
    with pytest.raises(ChainError, match="not this version's DMLEscrow"):
        Chain(w3, replace(place, escrow=place.token)).verify()


def test_verify_on_another_real_chain(world: World) -> None:
    with DevChain(None, free_port(), chain_id=4242) as other, pytest.raises(ChainError, match="serves chain 4242"):
        Chain(connect(other.url), world.chain.deployment).verify()


def test_the_same_arguments_sign_the_same_bytes(world: World) -> None:
    chain = world.chain
    call, nonce = chain.transfer_call(world.treasury, 1), chain.next_nonce(world.customer.address)
    first = chain.sign(call, world.customer, nonce, Fees(30, 2), 60_000)
    assert first == chain.sign(call, world.customer, nonce, Fees(30, 2), 60_000)
    assert chain.receipt(first.hash) is None and not chain.knows(first.hash)


@pytest.fixture
def unbeaten() -> Iterator[World]:
    """On a chain without a heartbeat, which would mine what a test wants to wait."""
    with DevChain(None, free_port(), beat=3_600) as devchain:
        yield build_world(devchain)


def test_sending_the_same_bytes_again_succeeds_before_and_after_mining(unbeaten: World) -> None:
    world, chain, sender = unbeaten, unbeaten.chain, unbeaten.customer.address
    signed = chain.sign(chain.transfer_call(world.treasury, 1), world.customer, chain.next_nonce(sender))
    _rpc(chain.w3, "evm_setAutomine", [False])
    try:
        assert chain.broadcast(signed.raw) == chain.broadcast(signed.raw) == signed.hash
        assert (chain.confirmed_nonce(sender), chain.next_nonce(sender)) == (signed.nonce, signed.nonce + 1)
    finally:
        _rpc(chain.w3, "evm_setAutomine", [True])
        _rpc(chain.w3, "evm_mine", [])
    assert chain.wait(signed.hash).ok
    assert chain.broadcast(signed.raw) == signed.hash
    assert world.balance(world.treasury) == 1


def test_a_spent_nonce_is_rejected(world: World) -> None:
    chain, sender = world.chain, world.customer.address
    nonce = chain.next_nonce(sender)
    chain.send(chain.transfer_call(world.treasury, 1), world.customer)
    other = chain.sign(chain.transfer_call(world.treasury, 2), world.customer, nonce)
    with pytest.raises(Rejected, match="(?i)nonce"):
        chain.broadcast(other.raw)


def test_no_answer_is_unavailable() -> None:
    """Both kinds: nobody there, and somebody who never answers."""
    place = Deployment(1, "0x" + "11" * 20, "0x" + "22" * 20, 0)
    with pytest.raises(Unavailable):
        Chain(connect(f"http://127.0.0.1:{free_port()}"), place).head()
    with socket.create_server(("127.0.0.1", 0)) as mute:
        chain = Chain(connect(f"http://127.0.0.1:{mute.getsockname()[1]}", timeout=0.3), place)
        with pytest.raises(Unavailable):
            chain.broadcast(b"\x02")


def test_an_answer_that_is_no_json_is_unavailable() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer() -> None:
            connection, _ = server.accept()
            connection.recv(65536)
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\nConnection: close\r\n\r\noops")
            connection.close()

        threading.Thread(target=answer, daemon=True).start()
        w3 = connect(f"http://127.0.0.1:{server.getsockname()[1]}", timeout=30)
        with pytest.raises(Unavailable):
            Chain(w3, Deployment(1, "0x" + "11" * 20, "0x" + "22" * 20, 0)).head()


def test_reads_can_be_pinned_to_a_block(world: World) -> None:
    chain, before = world.chain, world.chain.head().number
    world.pay(100)
    while mine_if_pending_finality(chain.w3):
        pass
    assert (chain.escrowed(at=before), chain.escrowed(at=chain.finalized().number)) == (0, 100)
    assert chain.totals(before).token_balance == 0
    with pytest.raises(Unavailable):
        chain.block(chain.head().number + 10)


def test_keystore_round_trip(tmp_path: Path) -> None:
    path = tmp_path / "keys" / "hot.json"
    key = make_keystore(path, "open sesame", iterations=2)
    assert path.stat().st_mode & 0o777 == 0o600
    assert load_keystore(path, "open sesame").address == key.address
    with pytest.raises(ChainError, match="passphrase is wrong") as caught:
        load_keystore(path, "open barley")
    assert "barley" not in str(caught.value)
    with pytest.raises(ChainError, match="not overwriting"):
        make_keystore(path, "again", iterations=2)
    with pytest.raises(ChainError, match="cannot read"):
        load_keystore(tmp_path / "none.json", "x")


def test_deployment_round_trip(world: World, tmp_path: Path) -> None:
    world.chain.deployment.save(tmp_path / "place.json")
    assert Deployment.load(tmp_path / "place.json") == world.chain.deployment
    (tmp_path / "place.json").write_text("{}")
    with pytest.raises(ChainError, match="not a readable deployment file"):
        Deployment.load(tmp_path / "place.json")


@pytest.mark.parametrize("text", ["", "0x12", "no address", "0x" + "aB" * 20])
def test_what_is_no_address_is_said_to_be_none(world: World, text: str) -> None:
    with pytest.raises(ChainError, match="is not an address"):
        world.chain.transfer_call(text, 1)
