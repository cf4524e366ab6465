"""The chain, as the rest of DML sees it: the only file that speaks web3.

Units outside this file: micro-DML (int) for the token, gwei (int) for the native coin, `uuid.UUID` for tickets and
cases, checksum strings for addresses, lower-case '0x…' strings for hashes. Wei and uint256 exist only in here.

Nothing here keeps state or retries: `sign` makes bytes, `broadcast` sends them, `receipt` looks. Who may spend which
nonce, and what to do when an answer never comes, is the outbox's business. Synchronous throughout.

    ChainError            what went wrong, in words; none of the others: wrong chain, no code, bad key file
    ├── Unavailable       no answer, or none that can be used: for a broadcast this means "unknown"
    ├── Rejected          the node answered with an error: for a broadcast, that node did not take the bytes
    └── Reverted          the contract would refuse, or refused, the call: `name` is its custom error
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any, cast
from uuid import UUID

import requests
from eth_abi.abi import decode as abi_decode
from eth_abi.abi import encode as abi_encode
from eth_account import Account
from eth_account.signers.local import LocalAccount
from web3 import HTTPProvider, Web3
from web3.exceptions import (
    BadFunctionCallOutput,
    BlockNotFound,
    ContractLogicError,
    TransactionNotFound,
    Web3Exception,
    Web3RPCError,
)
from web3.middleware import ExtraDataToPOAMiddleware
from web3.providers.rpc.utils import ExceptionRetryConfiguration

# A library of web3's (py_ecc) raises the limit to 100,000, at which deeply nested JSON ends the process instead of raising.
sys.setrecursionlimit(1_000)

Key = LocalAccount

GWEI = 10**9
ABI_FOLDER = Path(__file__).parent / "abi"
ZERO_HASH = "0x" + "00" * 32
TICKET_STATES = ("None", "Paid", "Settled", "Refunded")
STANDINGS = ("None", "Active", "Exiting", "Banned")
CASE_STATES = ("None", "Open", "Acquitted", "Executed", "Lapsed")
ROLES = ("QUOTER", "SETTLER", "GUARDIAN")

# Events whose amount is native coin; every other event's is micro-DML.
COIN_EVENTS = {"StakeShared", "CreditWithdrawn"}
# An estimate is exact for one state; the state may have moved when the transaction is mined.
GAS_MARGIN = 1.25


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


# ------------------------------------------------------------------------------------------------------ dataclasses


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
        _write_atomically(Path(path), json.dumps(asdict(self), indent=2) + "\n", mode=0o644)


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


# ------------------------------------------------------------------------------------------------- connect and deploy

_ONLY_ASKING = [
    "eth_blockNumber",
    "eth_call",
    "eth_chainId",
    "eth_estimateGas",
    "eth_getBalance",
    "eth_getBlockByNumber",
    "eth_getCode",
    "eth_getLogs",
    "eth_getTransactionCount",
    "eth_getTransactionReceipt",
    "eth_maxPriorityFeePerGas",
]


def connect(rpc_url: str, timeout: float = 10) -> Web3:
    """A client for a node; opens no connection yet. What only asks is asked again, five times within two seconds, when
    the connection broke or the node was overloaded; an answer that does not come within `timeout` is not waited for
    twice. What sends is sent once: the caller knows what may be repeated."""
    again = ExceptionRetryConfiguration(
        errors=[requests.ConnectionError, requests.HTTPError], backoff_factor=0.1, method_allowlist=_ONLY_ASKING
    )
    provider = HTTPProvider(rpc_url, {"timeout": timeout}, exception_retry_configuration=again)
    w3 = Web3(provider)
    # Polygon's headers carry more extra data than Ethereum's; harmless elsewhere.
    w3.middleware_onion.inject(ExtraDataToPOAMiddleware, layer=0)
    return w3


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
    with _answers():
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
    with _answers():
        factory = w3.eth.contract(abi=code["abi"], bytecode=code["bytecode"])
        fees = _fees(w3)
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
        raise ChainError(f"the deployment of {name} failed: {_hex(tx_hash)}")
    return str(receipt["contractAddress"])


@cache
def artifact(name: str) -> dict[str, Any]:
    """A committed compiler output: abi, bytecode, runtime, immutables, compiler."""
    return cast(dict[str, Any], json.loads((ABI_FOLDER / f"{name}.json").read_text()))


# -------------------------------------------------------------------------------------------------------------- chain


class Chain:
    """One deployment on one chain. Thread-safe as far as web3's HTTP provider is: it keeps a session per thread."""

    def __init__(self, w3: Web3, deployment: Deployment) -> None:
        self.w3 = w3
        self.deployment = deployment
        self._token = w3.eth.contract(to_checksum(deployment.token), abi=artifact("DMLToken")["abi"])
        self._escrow = w3.eth.contract(to_checksum(deployment.escrow), abi=artifact("DMLEscrow")["abi"])
        self._events = {_topic(w3, entry): entry["name"] for entry in self._escrow.abi if entry["type"] == "event"}

    def verify(self) -> None:
        """Make sure that the node serves our chain and that our code is at our addresses.

        A node may silently serve another chain (a wrong URL, a restarted development chain, somebody else's port).
        """
        with _answers():
            chain_id = self.w3.eth.chain_id
        if chain_id != self.deployment.chain_id:
            raise ChainError(f"the node serves chain {chain_id}, the contracts are on {self.deployment.chain_id}")
        for name, address in (("DMLToken", self.deployment.token), ("DMLEscrow", self.deployment.escrow)):
            self._verify_code(name, to_checksum(address))

    def _verify_code(self, name: str, address: str) -> None:
        with _answers():
            code = bytes(self.w3.eth.get_code(cast(Any, address)))
        if not code:
            raise ChainError(f"there is no {name} at {address} on chain {self.deployment.chain_id}")
        if _without_immutables(name, code) != _without_immutables(name, _unhex(artifact(name)["runtime"])):
            raise ChainError(f"the code at {address} is not this version's {name}")

    # --- quotes

    def sign_quote(self, quote: Quote, key: Key) -> bytes:
        """QUOTER's EIP-712 signature: 65 bytes."""
        values = dict(zip(("ticketId", "payer", "amount", "payBy", "settleBy"), quote.as_tuple(), strict=True))
        types = {"Quote": [{"name": n, "type": t} for n, t in _QUOTE_FIELDS]}
        return bytes(key.sign_typed_data(self._domain(), types, values).signature)

    def _domain(self) -> dict[str, Any]:
        return {
            "name": "DMLEscrow",
            "version": "1",
            "chainId": self.deployment.chain_id,
            "verifyingContract": to_checksum(self.deployment.escrow),
        }

    # --- calls: what somebody could sign

    def pay_call(self, quote: Quote, signature: bytes) -> Call:
        """The payer's one transaction: ERC-1363 transferAndCall on the token."""
        data = abi_encode(["(uint256,address,uint256,uint64,uint64)", "bytes"], [quote.as_tuple(), signature])
        # By signature: the ABI has transferAndCall with and without data.
        signature_ = "transferAndCall(address,uint256,bytes)"
        return self._call(self._token, signature_, to_checksum(self.deployment.escrow), quote.amount, data)

    def approve_call(self, amount: int) -> Call:
        """Let the escrow take `amount`: for wallets that would rather approve, then `pay_approved_call`."""
        return self._call(self._token, "approve", to_checksum(self.deployment.escrow), amount)

    def pay_approved_call(self, quote: Quote, signature: bytes) -> Call:
        return self._call(self._escrow, "pay", quote.as_tuple(), signature)

    def transfer_call(self, to: str, amount: int) -> Call:
        """A plain token transfer, in micro-DML. (To the escrow it pays for nothing: use `pay_call`.)"""
        return self._call(self._token, "transfer", to_checksum(to), amount)

    def mint_call(self, to: str, amount: int) -> Call:
        """Only for the token's owner (the admin key of `deploy`)."""
        return self._call(self._token, "mint", to_checksum(to), amount)

    def register_call(self, ref: bytes) -> Call:
        """Lock the deposit. `ref`: up to 32 bytes that the platform issued for this wallet, and only for it."""
        return self._call(self._escrow, "register", ref.rjust(32, b"\0"), value_gwei=self.deposit_gwei())

    def exit_call(self) -> Call:
        return self._call(self._escrow, "requestExit")

    def withdraw_call(self) -> Call:
        return self._call(self._escrow, "withdraw")

    def withdraw_credit_call(self) -> Call:
        """Fetch native coin out of slashed stakes."""
        return self._call(self._escrow, "withdrawCredit")

    def withdraw_token_credit_call(self, to: str) -> Call:
        """Fetch tokens that could not be pushed."""
        return self._call(self._escrow, "withdrawTokenCredit", to_checksum(to))

    def settle_call(self, ticket: UUID, shares: Mapping[str, int], receipt_root: str) -> Call:
        """Pay a ticket out; what the shares leave of its amount is the fee. Shares of nothing are left out."""
        paid = {address: amount for address, amount in _merged(shares).items() if amount}
        accounts = sorted(paid, key=_numeric)
        amounts = [paid[account] for account in accounts]
        return self._call(self._escrow, "settle", ticket.int, accounts, amounts, _unhex(receipt_root))

    def refund_call(self, ticket: UUID) -> Call:
        return self._call(self._escrow, "refund", ticket.int)

    def fail_ticket_call(self, ticket: UUID, cheats: Sequence[str], honest: Sequence[str]) -> Call:
        """Refund, and accuse under the ticket's id."""
        return self._call(self._escrow, "failTicket", ticket.int, _ascending(cheats), _ascending(honest))

    def accuse_call(self, case: UUID, cheats: Sequence[str], honest: Sequence[str]) -> Call:
        return self._call(self._escrow, "accuse", case.int, _ascending(cheats), _ascending(honest))

    def execute_ban_call(self, case: UUID, cheats: Sequence[str], honest: Sequence[str]) -> Call:
        """`cheats` and `honest` exactly as accused (their order does not matter here)."""
        return self._call(self._escrow, "executeBan", case.int, _ascending(cheats), _ascending(honest))

    def acquit_call(self, case: UUID) -> Call:
        return self._call(self._escrow, "acquit", case.int)

    def pause_call(self) -> Call:
        return self._call(self._escrow, "pause")

    def unpause_call(self) -> Call:
        return self._call(self._escrow, "unpause")

    def move_surplus_call(self, to: str, amount: int) -> Call:
        """The admin's way to give back tokens that were sent to the escrow by mistake."""
        return self._call(self._escrow, "moveSurplus", to_checksum(to), amount)

    def _call(self, contract: Any, function: str, *arguments: Any, value_gwei: int = 0) -> Call:
        return Call(str(contract.address), contract.encode_abi(function, args=list(arguments)), value_gwei)

    def arguments(self, call: Call) -> dict[str, Any]:
        """What a call of ours to the escrow says, by name; in the units of events."""
        function, values = self._escrow.decode_function_input(cast(Any, call.data))
        return dict(_outside(function.fn_name, name, value) for name, value in values.items())

    # --- sending

    def suggest_fees(self, tip_floor_gwei: int = 1) -> Fees:
        """Room for the base fee to double, plus the node's tip or the floor (Polygon wants 25 or more)."""
        with _answers():
            return _fees(self.w3, tip_floor_gwei)

    def estimate(self, call: Call, sender: str) -> int:
        """Gas for `call` as of the coming block. Raises Reverted with the contract's own error."""
        with _answers():
            # "pending": on a quiet chain the latest block's clock is old, and deadlines look wrong by it.
            return self.w3.eth.estimate_gas(cast(Any, self._unsigned(call, sender)), "pending")

    def _unsigned(self, call: Call, sender: str) -> dict[str, Any]:
        return {"from": sender, "to": call.to, "data": call.data, "value": call.value_gwei * GWEI}

    def sign(self, call: Call, key: Key, nonce: int, fees: Fees | None = None, gas: int | None = None) -> Signed:
        """Sign, and send nothing. With fees and gas given it talks to no node; same arguments, same bytes."""
        fees = fees or self.suggest_fees()
        gas = gas or int(self.estimate(call, key.address) * GAS_MARGIN)
        tx: dict[str, Any] = {
            "type": 2,
            "chainId": self.deployment.chain_id,
            "nonce": nonce,
            "gas": gas,
            "maxFeePerGas": fees.max_fee_gwei * GWEI,
            "maxPriorityFeePerGas": fees.tip_gwei * GWEI,
            "to": call.to,
            "data": call.data,
            "value": call.value_gwei * GWEI,
        }
        signed = key.sign_transaction(tx)
        raw = bytes(signed.raw_transaction)
        return Signed(raw, _hex(signed.hash), nonce, gas, fees.max_fee_gwei, fees.tip_gwei)

    def broadcast(self, raw: bytes) -> str:
        """Hand signed bytes to the node; returns their hash. Sending the same bytes twice is a success.

        Rejected: the node refused, and does not know them. Unavailable: nobody can say.
        """
        tx_hash = _hex(Web3.keccak(raw))
        try:
            with _answers():
                self.w3.eth.send_raw_transaction(raw)
        except Rejected:
            # "already known", "already imported", "nonce too low" after it was mined: ask, don't parse.
            if not self.knows(tx_hash):
                raise
        return tx_hash

    def knows(self, tx_hash: str) -> bool:
        """Whether the node has the transaction, mined or waiting."""
        try:
            with _answers():
                self.w3.eth.get_transaction(cast(Any, tx_hash))
        except TransactionNotFound:
            return False
        return True

    def next_nonce(self, address: str) -> int:
        """Counts the transactions that wait in this node's pool."""
        with _answers():
            return self.w3.eth.get_transaction_count(to_checksum(address), "pending")

    def confirmed_nonce(self, address: str) -> int:
        """Counts mined transactions only."""
        with _answers():
            return self.w3.eth.get_transaction_count(to_checksum(address), "latest")

    def final_nonce(self, address: str) -> int:
        """Counts what is mined at or below the finalized block."""
        with _answers():
            return self.w3.eth.get_transaction_count(to_checksum(address), "finalized")

    def receipt(self, tx_hash: str) -> Receipt | None:
        """None: not mined, as far as this node knows. Not final before `finalized()` has passed its block."""
        try:
            with _answers():
                found = self.w3.eth.get_transaction_receipt(cast(Any, tx_hash))
        except TransactionNotFound:
            return None
        wei = found["gasUsed"] * found["effectiveGasPrice"]
        ok = found["status"] == 1
        return Receipt(tx_hash, ok, found["blockNumber"], _hex(found["blockHash"]), found["gasUsed"], -(-wei // GWEI))

    def wait(self, tx_hash: str, timeout: float = 30) -> Receipt:
        """For deployment, demos and tests: poll until it is mined."""
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            if (receipt := self.receipt(tx_hash)) is not None:
                return receipt
            time.sleep(0.02)
        raise Unavailable(f"{tx_hash} was not mined within {timeout:g} s")

    def send(self, call: Call, key: Key, timeout: float = 30) -> Receipt:
        """For deployment, demos and tests: sign, broadcast, wait. The platform's own payments go by the outbox."""
        signed = self.sign(call, key, self.next_nonce(key.address))
        receipt = self.wait(self.broadcast(signed.raw), timeout)
        if not receipt.ok:
            raise Reverted(f"{signed.hash} was mined, but failed")
        return receipt

    # --- blocks and events

    def head(self) -> Block:
        return self.block("latest")

    def finalized(self) -> Block:
        """The last block that a reorg cannot take back."""
        return self.block("finalized")

    def block(self, number: int | str) -> Block:
        """Raises Unavailable for a block that the node does not have (yet)."""
        with _answers():
            found = self.w3.eth.get_block(cast(Any, number))
        return Block(found["number"], _hex(found["hash"]), found["timestamp"])

    def events(self, from_block: int, to_block: int) -> list[Event]:
        """The escrow's events of both blocks and all between, in the chain's order; and what reached it for nothing, as
        events named "Stray" (sender, amount).

        Filtered by the escrow's address: another contract that emits the same events is not heard. Raises Rejected or
        Unavailable when the range is too wide for the node: ask again with a smaller one.
        """
        query = {"address": self._escrow.address, "fromBlock": from_block, "toBlock": to_block}
        arrivals = query | {
            "address": self._token.address,
            "topics": [_TRANSFER, None, _topic_of(self._escrow.address)],
        }
        with _answers():
            logs = self.w3.eth.get_logs(cast(Any, query))
            arrived = self.w3.eth.get_logs(cast(Any, arrivals))
        events = [self._decode(log) for log in logs if _hex(log["topics"][0]) in self._events]
        return sorted([*events, *self._strays(events, arrived)], key=lambda event: (event.block, event.log_index))

    def _strays(self, events: list[Event], arrived: Sequence[Any]) -> Iterator[Event]:
        """Tokens that reached the escrow without paying for anything.

        A payment has one transfer of its payer and amount in its own transaction; what no payment accounts for is stray.
        """
        paid = Counter((e.tx, e.args["payer"], e.args["amount"]) for e in events if e.name == "Paid")
        for log in arrived:
            values = self._token.events.Transfer().process_log(log)["args"]
            sender, amount, tx = values["from"], values["value"], _hex(log["transactionHash"])
            if paid[tx, sender, amount]:
                paid[tx, sender, amount] -= 1
            elif amount:
                args = {"sender": sender, "amount": amount}
                yield Event("Stray", args, log["blockNumber"], _hex(log["blockHash"]), tx, log["logIndex"])

    def receipt_events(self, tx_hash: str) -> list[Event]:
        """The escrow's events of one mined transaction; none if it is not mined."""
        try:
            with _answers():
                logs = self.w3.eth.get_transaction_receipt(cast(Any, tx_hash))["logs"]
        except TransactionNotFound:
            return []
        return [self._decode(log) for log in logs if log["address"] == self._escrow.address]

    def _decode(self, log: Any) -> Event:
        name = self._events[_hex(log["topics"][0])]
        found = getattr(self._escrow.events, name)().process_log(log)
        args = dict(_outside(name, key, value) for key, value in found["args"].items())
        block_hash, tx = _hex(log["blockHash"]), _hex(log["transactionHash"])
        return Event(name, args, log["blockNumber"], block_hash, tx, log["logIndex"])

    # --- reads; `at` is a block number, None the latest

    def token_balance(self, address: str, at: int | None = None) -> int:
        return int(self._read(self._token.functions.balanceOf(to_checksum(address)), at))

    def native_balance(self, address: str, at: int | None = None) -> int:
        """Whole gwei, rounded down."""
        with _answers():
            return self.w3.eth.get_balance(to_checksum(address), cast(Any, _at(at))) // GWEI

    def deposit_gwei(self) -> int:
        return self._fixed("deposit") // GWEI

    @property
    def challenge_seconds(self) -> int:
        """From an accusation to the moment in which the ban may be executed."""
        return self._fixed("challengeTime")

    @property
    def unbonding_seconds(self) -> int:
        return self._fixed("unbondingTime")

    @property
    def max_fee_bps(self) -> int:
        return self._fixed("maxFeeBps")

    def slash_left_gwei(self, at: int | None = None) -> int:
        """What bans can still take today (UTC)."""
        return int(self._read(self._escrow.functions.slashLeft(), at)) // GWEI

    def ticket_state(self, ticket: UUID, at: int | None = None) -> str:
        """One of TICKET_STATES."""
        return self.ticket(ticket, at).state

    def ticket(self, ticket: UUID, at: int | None = None) -> TicketOnChain:
        payer, amount, settle_by, state = self._read(self._escrow.functions.tickets(ticket.int), at)
        return TicketOnChain(TICKET_STATES[state], payer, amount, settle_by)

    def provider_standing(self, address: str, at: int | None = None) -> Standing:
        values = self._read(self._escrow.functions.providers(to_checksum(address)), at)
        stake, unlock_at, frozen_until, _, standing = values
        frozen = self._read(self._escrow.functions.isFrozen(to_checksum(address)), at)
        name = STANDINGS[standing]
        return Standing(name, stake // GWEI, unlock_at, frozen_until if frozen and name != "Banned" else 0)

    def accusation(self, case: UUID, at: int | None = None) -> Accusation:
        state, executable_at, lapses_at, cheats = self._read(self._escrow.functions.accusation(case.int), at)
        return Accusation(CASE_STATES[state], executable_at, lapses_at, tuple(cheats))

    def token_credit(self, address: str, at: int | None = None) -> int:
        """micro-DML that the token refused to pay this address: its owner can fetch it."""
        return int(self._read(self._escrow.functions.tokenCredit(to_checksum(address)), at))

    def coin_credit(self, address: str, at: int | None = None) -> int:
        """gwei out of slashed stakes, for its owner to fetch."""
        return int(self._read(self._escrow.functions.ethCredit(to_checksum(address)), at)) // GWEI

    def has_role(self, role: str, address: str, at: int | None = None) -> bool:
        """`role`: one of ROLES, or 'ADMIN'."""
        number = b"\0" * 32 if role == "ADMIN" else bytes(Web3.keccak(text=role))
        return bool(self._read(self._escrow.functions.hasRole(number, to_checksum(address)), at))

    def paused(self, at: int | None = None) -> bool:
        return bool(self._read(self._escrow.functions.paused(), at))

    def escrowed(self, at: int | None = None) -> int:
        return int(self._read(self._escrow.functions.escrowed(), at))

    def token_credits(self, at: int | None = None) -> int:
        return int(self._read(self._escrow.functions.tokenCredits(), at))

    def staked_gwei(self, at: int | None = None) -> int:
        return int(self._read(self._escrow.functions.staked(), at)) // GWEI

    def credits_gwei(self, at: int | None = None) -> int:
        return int(self._read(self._escrow.functions.ethCredits(), at)) // GWEI

    def totals(self, at: int | None = None) -> Totals:
        """All totals; give `at` (a finalized block) when they are to be compared with one another."""
        escrow = self.deployment.escrow
        return Totals(
            escrowed=self.escrowed(at),
            token_credits=self.token_credits(at),
            token_balance=self.token_balance(escrow, at),
            staked_gwei=self.staked_gwei(at),
            credits_gwei=self.credits_gwei(at),
            native_gwei=self.native_balance(escrow, at),
        )

    def _fixed(self, name: str) -> int:
        """An immutable of the escrow: asked for once."""
        cached = self.__dict__.setdefault("_immutables", {})
        if name not in cached:
            cached[name] = int(self._read(getattr(self._escrow.functions, name)(), None))
        return int(cached[name])

    def _read(self, function: Any, at: int | None) -> Any:
        with _answers():
            return function.call(block_identifier=_at(at))


_TRANSFER = "0x" + bytes(Web3.keccak(text="Transfer(address,address,uint256)")).hex()
_QUOTE_FIELDS = (
    ("ticketId", "uint256"),
    ("payer", "address"),
    ("amount", "uint256"),
    ("payBy", "uint64"),
    ("settleBy", "uint64"),
)


# --------------------------------------------------------------------------------------------------------------- keys


def make_keystore(path: str | Path, passphrase: str, *, key: Key | None = None, iterations: int | None = None) -> Key:
    """Write a key (a new one, unless given) encrypted to `path`, readable by its owner only. Never overwrites.

    `iterations`: of scrypt, a power of two; the default costs about a second, 2 is for development chains only.
    """
    if Path(path).exists():
        raise ChainError(f"{path} exists: not overwriting a key")
    key = key or Account.create()
    secret = Account.encrypt(key.key, passphrase, kdf="scrypt", iterations=iterations)
    _write_atomically(Path(path), json.dumps(secret), mode=0o600)
    return key


def load_keystore(path: str | Path, passphrase: str) -> Key:
    """The key in an encrypted file. The passphrase is never repeated in an error."""
    try:
        return cast(Key, Account.from_key(Account.decrypt(json.loads(Path(path).read_text()), passphrase)))
    except OSError as error:
        raise ChainError(f"cannot read the key file {path}: {error.strerror}") from error
    except (ValueError, KeyError, TypeError, NotImplementedError):
        raise ChainError(f"{path} is not a key file, or the passphrase is wrong") from None


def _write_atomically(path: Path, text: str, mode: int) -> None:
    """All or nothing, with its final rights from the first byte."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode), "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(draft, path)


# -------------------------------------------------------------------------------------------------------------- errors


@contextmanager
def _answers() -> Iterator[None]:
    """Turns what web3 and the connection raise into this file's errors. TransactionNotFound passes: it is an answer."""
    try:
        yield
    except TransactionNotFound:
        raise
    except BlockNotFound as error:
        raise Unavailable(f"the node does not have that block: {error}") from error
    except ContractLogicError as error:
        raise _reverted(error) from error
    except BadFunctionCallOutput as error:
        raise Unavailable(f"the contract gave no answer: {error}") from error
    except Web3RPCError as error:
        raise Rejected(_rpc_text(error)) from error
    except (Web3Exception, requests.RequestException, OSError, ValueError) as error:
        raise Unavailable(f"no usable answer from the node: {type(error).__name__}: {error}") from error


def _rpc_text(error: Web3RPCError) -> str:
    answer = error.rpc_response or {}
    problem = answer.get("error") if isinstance(answer, dict) else None
    return str(problem.get("message")) if isinstance(problem, dict) else str(error)


def _reverted(error: ContractLogicError) -> Reverted:
    data = error.data if isinstance(error.data, str) else ""
    known = _custom_errors().get(data[:10])
    if known is None:
        return Reverted(str(error.message or error))
    name, types = known
    values = abi_decode(types, _unhex(data)[4:])
    words = ", ".join(map(str, values))
    return Reverted(f"{name}({words})", name, values)


@cache
def _custom_errors() -> dict[str, tuple[str, list[str]]]:
    """Selector -> the custom errors of both contracts."""
    found = {}
    for entry in artifact("DMLToken")["abi"] + artifact("DMLEscrow")["abi"]:
        if entry["type"] == "error":
            types = [part["type"] for part in entry["inputs"]]
            selector = Web3.keccak(text=f"{entry['name']}({','.join(types)})")[:4]
            found[_hex(selector)] = (entry["name"], types)
    return found


# --------------------------------------------------------------------------------------------------------- conversions


def to_checksum(address: str) -> Any:
    """An address in its one spelling; ChainError if it is none. Mixed case has to be a right checksum."""
    try:
        if address.lower() != address and not Web3.is_checksum_address(address):
            raise ValueError("wrong checksum")
        return Web3.to_checksum_address(address)
    except (ValueError, TypeError, AttributeError) as error:
        raise ChainError(f"{address!r} is not an address: {error}") from error


def _merged(shares: Mapping[str, int]) -> dict[str, int]:
    merged = {to_checksum(address): amount for address, amount in shares.items()}
    if len(merged) != len(shares):
        raise ChainError("one address has two shares, in two spellings")
    return merged


def _ascending(addresses: Sequence[str]) -> list[str]:
    """The contract's order: strictly by number, hence without doubles."""
    return sorted({to_checksum(address) for address in addresses}, key=_numeric)


def _numeric(address: str) -> int:
    return int(address, 16)


def _outside(event: str, key: str, value: Any) -> tuple[str, Any]:
    """One argument of an event in the units of the outside."""
    if key in ("ticketId", "caseId"):
        return key.removesuffix("Id"), _uuid(value)
    if key == "stake" or (key == "amount" and event in COIN_EVENTS):
        return key, value // GWEI
    if isinstance(value, (bytes, bytearray)):
        return _snake(key), _hex(value)
    return _snake(key), list(value) if isinstance(value, (list, tuple)) else value


def _uuid(number: int) -> UUID | int:
    """A number beyond a UUID is none of ours (a stolen hot key could make one): it must not stop the scanner."""
    return UUID(int=number) if number < 1 << 128 else number


def _snake(name: str) -> str:
    return "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in name)


def _hex(value: bytes | bytearray) -> str:
    return "0x" + bytes(value).hex()


def _topic_of(address: str) -> str:
    return "0x" + address.removeprefix("0x").lower().rjust(64, "0")


def _unhex(text: str) -> bytes:
    return bytes.fromhex(text.removeprefix("0x"))


def _at(block: int | None) -> int | str:
    return "latest" if block is None else block


def _topic(w3: Web3, entry: Mapping[str, Any]) -> str:
    types = ",".join(part["type"] for part in entry["inputs"])
    return _hex(w3.keccak(text=f"{entry['name']}({types})"))


def _without_immutables(name: str, code: bytes) -> bytes:
    """Runtime code with zeros where the constructor wrote what was chosen at deployment."""
    masked = bytearray(code)
    for start, length in artifact(name)["immutables"]:
        masked[start : start + length] = bytes(length)
    return bytes(masked)


def _fees(w3: Web3, tip_floor_gwei: int = 1) -> Fees:
    base = w3.eth.get_block("latest").get("baseFeePerGas", 0)
    tip = max(-(-w3.eth.max_priority_fee // GWEI), tip_floor_gwei)
    return Fees(-(-2 * base // GWEI) + tip, tip)
