"""Putting the contracts on a chain, and the file that says where they are."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from web3 import Web3

from contracts.encoding import artifact, to_checksum, to_hex
from contracts.keys import Key, write_atomically
from contracts.node import answering, suggest_fees
from contracts.types import GWEI, ChainError


@dataclass(frozen=True)
class Deployment:
    """Where the contracts are. `block`: the first block that can hold an event of theirs."""

    chain_id: int
    token: str
    escrow: str
    block: int
    explorer: str = ""

    @classmethod
    def load(cls, path: str | Path) -> Deployment:
        try:
            values = json.loads(Path(path).read_text())
            return cls(**values)
        except (OSError, ValueError, TypeError) as error:
            raise ChainError(f"{path} is not a readable deployment file: {error}") from error

    def save(self, path: str | Path) -> None:
        write_atomically(Path(path), json.dumps(asdict(self), indent=2) + "\n", mode=0o644)


@dataclass(frozen=True)
class Terms:
    """What is fixed at deployment; the defaults suit a public chain. Times in seconds."""

    deposit_gwei: int = 1_000_000  # 0.001 coin
    unbonding: int = 7 * 86_400
    challenge: int = 86_400
    lapse: int = 7 * 86_400
    daily_slash_cap_gwei: int = 10_000_000
    max_fee_bps: int = 200
    admin_delay: int = 2 * 86_400
    supply: int = 100_000_000 * 10**6  # micro-DML minted to the admin

    @classmethod
    def development(cls, **changes: int) -> Terms:
        """Terms under which a case can be watched from accusation to ban in seconds."""
        values = {"unbonding": 60, "challenge": 2, "lapse": 3_600, "admin_delay": 0} | changes
        return cls(**values)


def deploy(
    w3: Web3,
    admin_key: Key,
    *,
    quoter: str,
    settler: str,
    guardian: str,
    treasury: str,
    terms: Terms | None = None,
    explorer: str = "",
    timeout: float = 120,
) -> Deployment:
    """Put both contracts on the chain, paid for by `admin_key`, which becomes token owner and default admin."""
    terms = terms or Terms()
    with answering():
        chain_id, first = w3.eth.chain_id, w3.eth.block_number
    token = _create(w3, admin_key, "DMLToken", (admin_key.address, terms.supply), timeout)
    roles = (admin_key.address, *map(to_checksum, (quoter, settler, guardian)))
    packed = _terms_tuple(terms, token, to_checksum(treasury), roles)
    escrow = _create(w3, admin_key, "DMLEscrow", (packed,), timeout)
    return Deployment(chain_id, token, escrow, first, explorer)


def _terms_tuple(terms: Terms, token: str, treasury: str, roles: tuple[str, ...]) -> tuple[Any, ...]:
    times = (terms.unbonding, terms.challenge, terms.lapse)
    cap = terms.daily_slash_cap_gwei * GWEI
    return (token, treasury, terms.deposit_gwei * GWEI, *times, cap, terms.max_fee_bps, terms.admin_delay, *roles)


def _create(w3: Web3, key: Key, name: str, arguments: tuple[Any, ...], timeout: float) -> str:
    """Deploy one contract and wait for it."""
    code = artifact(name)
    with answering():
        factory = w3.eth.contract(abi=code["abi"], bytecode=code["bytecode"])
        fees = suggest_fees(w3)
        tx = factory.constructor(*arguments).build_transaction(
            {
                "from": key.address,
                "nonce": w3.eth.get_transaction_count(key.address, "pending"),
                "maxFeePerGas": fees.max_fee_gwei * GWEI,
                "maxPriorityFeePerGas": fees.tip_gwei * GWEI,
            }
        )
        tx_hash = w3.eth.send_raw_transaction(key.sign_transaction(tx).raw_transaction)
        receipt = w3.eth.wait_for_transaction_receipt(tx_hash, timeout, poll_latency=0.05)
    if receipt["status"] != 1:
        raise ChainError(f"the deployment of {name} failed: {to_hex(tx_hash)}")
    return str(receipt["contractAddress"])
