"""The development chain as a process: its port, its state, its end."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from contracts.chain import Chain, ChainError, connect
from contracts.devchain import ROOT, DevChain, _copy_of, free_port
from contracts.devchain import test_key as rich
from contracts.tests.conftest import build_world, until


def test_a_taken_port_is_a_clear_error() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ChainError, match=f"port {port} is taken"):
            DevChain(None, port).start()


def test_another_chain_on_the_port_is_not_taken_for_ours(devchain: DevChain) -> None:
    with pytest.raises(ChainError, match="is taken"):
        DevChain(None, devchain.port, devchain.chain_id).start()
    assert devchain.alive()


def keeps(state_file: Path, block: int) -> bool:
    """Whether a stored state goes as far as that block. While it is written it is no JSON."""
    try:
        return bool(json.loads(state_file.read_text())["best_block_number"] >= block)
    except (FileNotFoundError, ValueError):
        return False


def test_the_state_survives_a_stop_and_a_crash(state_file: Path) -> None:
    chain = DevChain(state_file, free_port())
    with chain:
        world = build_world(chain)
        ticket = world.pay(130_000)
    with chain:
        Chain(connect(chain.url), world.chain.deployment).verify()
        assert world.chain.ticket_state(ticket) == "Paid"
        final = world.chain.finalized().number
        assert world.chain.escrowed(at=final) == 130_000, "the final state can be read after a restart"
        settled = world.settle(ticket, 127_400, 0, 0, 0)
        # the copy: the state itself may be torn by the very crash
        until(lambda: keeps(_copy_of(state_file), settled.block))
        chain.kill()
    with chain:
        assert world.chain.ticket_state(ticket) == "Settled"
        assert world.balance(world.providers[0]) == 127_400
        assert [event.name for event in world.chain.events(0, world.chain.head().number)][-1] == "Settled"


def test_a_torn_state_file_is_replaced_by_its_copy(state_file: Path) -> None:
    chain = DevChain(state_file, free_port())
    with chain:
        world = build_world(chain)
        until(lambda: keeps(_copy_of(state_file), world.chain.head().number))
    state_file.write_bytes(state_file.read_bytes()[:1000])
    with chain:
        world.chain.verify()


def test_a_torn_state_file_without_a_copy_is_a_clear_error(state_file: Path) -> None:
    state_file.write_text("{")
    with pytest.raises(ChainError, match="is damaged"):
        DevChain(state_file, free_port()).start()


def test_blocks_become_final_and_an_idle_chain_stays_idle() -> None:
    with DevChain(None, free_port(), beat=0.05) as chain:
        world = build_world(chain)
        ticket = world.pay(100)
        # the payment's own block, not the head: the heartbeat may have mined on already, and stops once this is final
        until(lambda: world.chain.ticket_state(ticket, at=world.chain.finalized().number) == "Paid")
        head = world.chain.head()
        time.sleep(0.5)  # ten beats
        assert world.chain.head() == head


def test_fund_adds_coins(devchain: DevChain) -> None:
    chain = connect(devchain.url)
    address = rich(9).address
    before = chain.eth.get_balance(address)
    devchain.fund(address, gwei=5)
    assert chain.eth.get_balance(address) == before + 5 * 10**9


def start_program(port: int, state: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "contracts.devchain", "--port", str(port), "--state", str(state)]
    program = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert program.stdout is not None
    assert program.stdout.readline().startswith("development chain 31337")
    return program


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_the_chain_ends_with_its_program(state_file: Path, number: signal.Signals) -> None:
    port = free_port()
    program = start_program(port, state_file)
    assert listens(port)
    os.kill(program.pid, number)
    code = program.wait(60)
    assert code == (-signal.SIGKILL if number == signal.SIGKILL else 0)
    until(lambda: not listens(port))


def test_the_program_says_when_the_port_is_taken(devchain: DevChain) -> None:
    command = [sys.executable, "-m", "contracts.devchain", "--port", str(devchain.port)]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert result.returncode == 1 and "is taken" in result.stderr
