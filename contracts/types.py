"""What the chain says and is told, in DML's own terms: frozen dataclasses, and the errors.

Units: micro-DML (int) for the token, gwei (int) for the native coin, `uuid.UUID` for tickets and cases, checksum strings
for addresses, lower-case '0x…' strings for hashes. Wei and uint256 stay inside this package.

    ChainError            what went wrong, in words; none of the others: wrong chain, no code, bad key file
    ├── Unavailable       no answer, or none that can be used: for a broadcast this means "unknown"
    ├── Rejected          the node answered with an error: for a broadcast, that node did not take the bytes
    └── Reverted          the contract would refuse, or refused, the call: `name` is its custom error
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

GWEI = 10**9
TICKET_STATES = ("None", "Paid", "Settled", "Refunded")
STANDINGS = ("None", "Active", "Exiting", "Banned")
CASE_STATES = ("None", "Open", "Acquitted", "Executed", "Lapsed")
ROLES = ("QUOTER", "SETTLER", "GUARDIAN")

# Events whose amount is native coin; every other event's is micro-DML.
COIN_EVENTS = {"StakeShared", "CreditWithdrawn"}


class ChainError(Exception):
    """Anything that went wrong with the chain; the text is fit for an admin's eyes."""


class Unavailable(ChainError):
    """No usable answer from the node. After a broadcast: the transaction may or may not be under way."""


class Rejected(ChainError):
    """The node answered with an error of its own (not a contract's)."""


class Reverted(ChainError):
    """A contract refuses the call. `name` is its custom error ('' if it gave none), `args_` the error's values."""

    def __init__(self, reason: str, name: str = "", args: Sequence[Any] = ()) -> None:
        super().__init__(reason)
        self.reason = reason
        self.name = name
        self.args_ = tuple(args)


@dataclass(frozen=True)
class Quote:
    """An offer to one payer: `amount` micro-DML, payable until `pay_by`, refundable by anyone from `settle_by` on."""

    ticket: UUID
    payer: str
    amount: int
    pay_by: int
    settle_by: int

    def as_tuple(self) -> tuple[int, str, int, int, int]:
        return (self.ticket.int, self.payer, self.amount, self.pay_by, self.settle_by)


@dataclass(frozen=True)
class Call:
    """A transaction that nobody has signed yet. `data`: '0x…'."""

    to: str
    data: str
    value_gwei: int = 0

    def for_wallet(self, sender: str, chain_id: int) -> dict[str, str]:
        """The parameter of a browser wallet's eth_sendTransaction, ready for JSON."""
        value = hex(self.value_gwei * GWEI)
        return {"from": sender, "to": self.to, "data": self.data, "value": value, "chainId": hex(chain_id)}


@dataclass(frozen=True)
class Fees:
    """EIP-1559 fees per gas in whole gwei."""

    max_fee_gwei: int
    tip_gwei: int


@dataclass(frozen=True)
class Signed:
    """Signed bytes, with what a fee bump has to keep (nonce, gas) and to raise (fees)."""

    raw: bytes
    hash: str
    nonce: int
    gas: int
    max_fee_gwei: int
    tip_gwei: int


@dataclass(frozen=True)
class Receipt:
    """`fee_gwei` is rounded up: the chain counts gas in wei."""

    hash: str
    ok: bool
    block: int
    block_hash: str
    gas_used: int
    fee_gwei: int


@dataclass(frozen=True)
class Block:
    number: int
    hash: str
    timestamp: int


@dataclass(frozen=True)
class Event:
    """One of the escrow's events. `args`: 'ticket' and 'case' are UUIDs (an int if it fits no UUID), 'stake' is gwei,
    'amount' and 'fee' are micro-DML (gwei in StakeShared and CreditWithdrawn), the rest by the units of this file."""

    name: str
    args: dict[str, Any]
    block: int
    block_hash: str
    tx: str
    log_index: int


@dataclass(frozen=True)
class TicketOnChain:
    state: str
    payer: str
    amount: int
    settle_by: int


@dataclass(frozen=True)
class Standing:
    """`unlock_at`: when an Exiting provider may withdraw. `frozen_until`: 0 unless an accusation is open."""

    name: str
    stake_gwei: int
    unlock_at: int
    frozen_until: int


@dataclass(frozen=True)
class Accusation:
    state: str
    executable_at: int
    lapses_at: int
    cheats: tuple[str, ...]


@dataclass(frozen=True)
class Totals:
    """Both sides of the chain's own equalities, at one block: token_balance >= escrowed + token_credits and
    native_gwei >= staked_gwei + credits_gwei."""

    escrowed: int
    token_credits: int
    token_balance: int
    staked_gwei: int
    credits_gwei: int
    native_gwei: int

    @property
    def surplus(self) -> int:
        """micro-DML that reached the escrow without a quote."""
        return self.token_balance - self.escrowed - self.token_credits
