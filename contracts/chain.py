"""One deployment, as the rest of DML sees it: Chain(w3, deployment) -> dataclasses.

What others need of this package for their work with a chain is imported from here; `contracts.deploy` and
`contracts.keys` are for those who set one up.

Nothing here keeps state: `sign` makes bytes, `broadcast` sends them once, `receipt` looks. Who may spend which nonce, and
what to do when an answer never comes, is the outbox's business. Synchronous throughout.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, cast
from uuid import UUID

from eth_abi.abi import encode as abi_encode
from eth_utils.crypto import keccak
from web3 import Web3
from web3.exceptions import TransactionNotFound

from contracts.deploy import Deployment
from contracts.encoding import (
    artifact,
    ascending,
    by_address,
    from_hex,
    numeric,
    outside,
    to_checksum,
    to_hex,
    topic,
    without_immutables,
)
from contracts.keys import Key
from contracts.node import answering, connect, suggest_fees
from contracts.types import (
    CASE_STATES,
    COIN_EVENTS,
    GWEI,
    ROLES,
    STANDINGS,
    TICKET_STATES,
    Accusation,
    Block,
    Call,
    ChainError,
    Event,
    Fees,
    Quote,
    Receipt,
    Rejected,
    Reverted,
    Signed,
    Standing,
    TicketOnChain,
    Totals,
    Unavailable,
)

__all__ = [
    "COIN_EVENTS",
    "GAS_MARGIN",
    "GWEI",
    "ROLES",
    "Accusation",
    "Block",
    "Call",
    "Chain",
    "ChainError",
    "Deployment",
    "Event",
    "Fees",
    "Key",
    "Quote",
    "Receipt",
    "Rejected",
    "Reverted",
    "Signed",
    "Standing",
    "TicketOnChain",
    "Totals",
    "Unavailable",
    "artifact",
    "connect",
    "to_checksum",
]

# An estimate is exact for one state; the state may have moved when the transaction is mined.
GAS_MARGIN = 1.25


class Chain:
    """One deployment on one chain. Thread-safe as far as web3's HTTP provider is: it keeps a session per thread."""

    def __init__(self, w3: Web3, deployment: Deployment) -> None:
        self.w3 = w3
        self.deployment = deployment
        self._token = w3.eth.contract(to_checksum(deployment.token), abi=artifact("DMLToken")["abi"])
        self._escrow = w3.eth.contract(to_checksum(deployment.escrow), abi=artifact("DMLEscrow")["abi"])
        self._events = {topic(entry): entry["name"] for entry in self._escrow.abi if entry["type"] == "event"}

    def verify(self) -> None:
        """Make sure that the node serves our chain and that our code is at our addresses.

        A node may silently serve another chain (a wrong URL, a restarted development chain, somebody else's port).
        """
        with answering():
            chain_id = self.w3.eth.chain_id
        if chain_id != self.deployment.chain_id:
            raise ChainError(f"the node serves chain {chain_id}, the contracts are on {self.deployment.chain_id}")
        for name, address in (("DMLToken", self.deployment.token), ("DMLEscrow", self.deployment.escrow)):
            self._verify_code(name, to_checksum(address))

    def _verify_code(self, name: str, address: str) -> None:
        with answering():
            code = bytes(self.w3.eth.get_code(cast(Any, address)))
        if not code:
            raise ChainError(f"there is no {name} at {address} on chain {self.deployment.chain_id}")
        if without_immutables(name, code) != without_immutables(name, from_hex(artifact(name)["runtime"])):
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
        paid = {address: amount for address, amount in by_address(shares).items() if amount}
        accounts = sorted(paid, key=numeric)
        amounts = [paid[account] for account in accounts]
        return self._call(self._escrow, "settle", ticket.int, accounts, amounts, from_hex(receipt_root))

    def refund_call(self, ticket: UUID) -> Call:
        return self._call(self._escrow, "refund", ticket.int)

    def fail_ticket_call(self, ticket: UUID, cheats: Sequence[str], honest: Sequence[str]) -> Call:
        """Refund, and accuse under the ticket's id."""
        return self._call(self._escrow, "failTicket", ticket.int, ascending(cheats), ascending(honest))

    def accuse_call(self, case: UUID, cheats: Sequence[str], honest: Sequence[str]) -> Call:
        return self._call(self._escrow, "accuse", case.int, ascending(cheats), ascending(honest))

    def execute_ban_call(self, case: UUID, cheats: Sequence[str], honest: Sequence[str]) -> Call:
        """`cheats` and `honest` exactly as accused (their order does not matter here)."""
        return self._call(self._escrow, "executeBan", case.int, ascending(cheats), ascending(honest))

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
        return dict(outside(function.fn_name, name, value) for name, value in values.items())

    # --- sending

    def suggest_fees(self, tip_floor_gwei: int = 1) -> Fees:
        """Room for the base fee to double, plus the node's tip or the floor (Polygon wants 25 or more)."""
        with answering():
            return suggest_fees(self.w3, tip_floor_gwei)

    def estimate(self, call: Call, sender: str) -> int:
        """Gas for `call` as of the coming block. Raises Reverted with the contract's own error."""
        with answering():
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
        return Signed(raw, to_hex(signed.hash), nonce, gas, fees.max_fee_gwei, fees.tip_gwei)

    def broadcast(self, raw: bytes) -> str:
        """Hand signed bytes to the node; returns their hash. Sending the same bytes twice is a success.

        Rejected: the node refused, and does not know them. Unavailable: nobody can say.
        """
        tx_hash = to_hex(keccak(raw))
        try:
            with answering():
                self.w3.eth.send_raw_transaction(raw)
        except Rejected:
            # "already known", "already imported", "nonce too low" after it was mined: ask, don't parse.
            if not self.knows(tx_hash):
                raise
        return tx_hash

    def knows(self, tx_hash: str) -> bool:
        """Whether the node has the transaction, mined or waiting."""
        try:
            with answering():
                self.w3.eth.get_transaction(cast(Any, tx_hash))
        except TransactionNotFound:
            return False
        return True

    def next_nonce(self, address: str) -> int:
        """Counts the transactions that wait in this node's pool."""
        with answering():
            return self.w3.eth.get_transaction_count(to_checksum(address), "pending")

    def confirmed_nonce(self, address: str) -> int:
        """Counts mined transactions only."""
        with answering():
            return self.w3.eth.get_transaction_count(to_checksum(address), "latest")

    def final_nonce(self, address: str) -> int:
        """Counts what is mined at or below the finalized block."""
        with answering():
            return self.w3.eth.get_transaction_count(to_checksum(address), "finalized")

    def receipt(self, tx_hash: str) -> Receipt | None:
        """None: not mined, as far as this node knows. Not final before `finalized()` has passed its block."""
        try:
            with answering():
                found = self.w3.eth.get_transaction_receipt(cast(Any, tx_hash))
        except TransactionNotFound:
            return None
        wei = found["gasUsed"] * found["effectiveGasPrice"]
        ok = found["status"] == 1
        return Receipt(tx_hash, ok, found["blockNumber"], to_hex(found["blockHash"]), found["gasUsed"], -(-wei // GWEI))

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
        with answering():
            found = self.w3.eth.get_block(cast(Any, number))
        return Block(found["number"], to_hex(found["hash"]), found["timestamp"])

    def events(self, from_block: int, to_block: int) -> list[Event]:
        """The escrow's events of both blocks and all between, in the chain's order; and what reached it for nothing, as
        events named "Stray" (sender, amount).

        Filtered by the escrow's address: another contract that emits the same events is not heard. Raises Rejected or
        Unavailable when the range is too wide for the node: ask again with a smaller one.
        """
        query = {"address": self._escrow.address, "fromBlock": from_block, "toBlock": to_block}
        with answering():
            logs = self.w3.eth.get_logs(cast(Any, query))
            arrived = self._token.events.Transfer().get_logs({"to": self._escrow.address}, from_block, to_block)
        events = [self._decode(log) for log in logs if to_hex(log["topics"][0]) in self._events]
        return sorted([*events, *self._strays(events, arrived)], key=lambda event: (event.block, event.log_index))

    def _strays(self, events: list[Event], arrived: Iterable[Any]) -> Iterator[Event]:
        """Tokens that reached the escrow without paying for anything.

        A payment has one transfer of its payer and amount in its own transaction; what no payment accounts for is stray.
        """
        paid = Counter((e.tx, e.args["payer"], e.args["amount"]) for e in events if e.name == "Paid")
        for log in arrived:
            sender, amount, tx = log["args"]["from"], log["args"]["value"], to_hex(log["transactionHash"])
            if paid[tx, sender, amount]:
                paid[tx, sender, amount] -= 1
            elif amount:
                args = {"sender": sender, "amount": amount}
                yield Event("Stray", args, log["blockNumber"], to_hex(log["blockHash"]), tx, log["logIndex"])

    def receipt_events(self, tx_hash: str) -> list[Event]:
        """The escrow's events of one mined transaction; none if it is not mined."""
        try:
            with answering():
                logs = self.w3.eth.get_transaction_receipt(cast(Any, tx_hash))["logs"]
        except TransactionNotFound:
            return []
        return [self._decode(log) for log in logs if log["address"] == self._escrow.address]

    def _decode(self, log: Any) -> Event:
        name = self._events[to_hex(log["topics"][0])]
        found = getattr(self._escrow.events, name)().process_log(log)
        args = dict(outside(name, key, value) for key, value in found["args"].items())
        block_hash, tx = to_hex(log["blockHash"]), to_hex(log["transactionHash"])
        return Event(name, args, log["blockNumber"], block_hash, tx, log["logIndex"])

    # --- reads; `at` is a block number, None the latest

    def token_balance(self, address: str, at: int | None = None) -> int:
        return int(self._read(self._token.functions.balanceOf(to_checksum(address)), at))

    def native_balance(self, address: str, at: int | None = None) -> int:
        """Whole gwei, rounded down."""
        with answering():
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
        number = b"\0" * 32 if role == "ADMIN" else bytes(keccak(text=role))
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
        with answering():
            return function.call(block_identifier=_at(at))


_QUOTE_FIELDS = (
    ("ticketId", "uint256"),
    ("payer", "address"),
    ("amount", "uint256"),
    ("payBy", "uint64"),
    ("settleBy", "uint64"),
)


def _at(block: int | None) -> int | str:
    return "latest" if block is None else block
