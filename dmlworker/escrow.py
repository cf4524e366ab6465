"""What the chain says of a payment: read from any node, by plain JSON-RPC. The events are small enough to be read by hand, so
that nobody needs a library for contracts to check a receipt."""

from dataclasses import dataclass
from typing import Any
from uuid import UUID

import httpx

SETTLED = "0x8797736cb4c0df0b1cf2f1a028628f84011848f522a735dd89e0839c36126f81"
"""Settled(uint256 indexed ticketId, uint256 amount, uint256 fee, bytes32 receiptRoot)"""
PROVIDER_PAID = "0x419de2faea3105a98590c3cf748b61bf5dd9fa1a9bd059fc6ed4c9ff7c45c3aa"
"""ProviderPaid(uint256 indexed ticketId, address indexed provider, uint256 amount)"""
PROVIDERS = "0x0787bc27"
"""providers(address) -> (stake, unlockAt, frozenUntil, openCases, standing)"""
IN_STANDING = (1, 2)
"""Active and Exiting: the escrow pays nobody else."""
SECONDS = 30.0


class ChainError(Exception):
    """The node does not answer, or not what was asked. The text says what."""


@dataclass(frozen=True)
class Payment:
    """How a ticket was settled. Amounts in micro-DML; paid: by wallet, in lower case. root: 0x-hex."""

    price: int
    fee: int
    root: str
    paid: dict[str, int]


class Escrow:
    """The contract, at its address, on the chain that a node serves."""

    def __init__(self, http: httpx.Client, rpc: str, address: str) -> None:
        self._http, self._rpc, self._address = http, rpc, address

    def chain_id(self) -> int:
        return int(str(self._ask("eth_chainId")), 16)

    def payment(self, ticket: str, tx: str = "") -> Payment | None:
        """How a ticket was settled, from the transaction that did it or else from all the escrow's events; None if it was not.
        Raises ChainError; public nodes do not search many blocks at once."""
        topic = f"0x{UUID(ticket).int:064x}"
        logs = [log for log in self._logs(topic, tx) if self._is_ours(log, topic)]
        settled = [_words(log) for log in logs if log["topics"][0] == SETTLED]
        if not settled:
            return None
        shares = [log for log in logs if log["topics"][0] == PROVIDER_PAID]
        paid = {"0x" + log["topics"][2][-40:].lower(): int(_words(log)[0], 16) for log in shares}
        amount, fee, root = settled[0]
        return Payment(int(amount, 16), int(fee, 16), "0x" + root, paid)

    def in_standing(self, wallet: str) -> bool:
        """Whether a provider may be paid, now."""
        call = {"to": self._address, "data": PROVIDERS + wallet.lower().removeprefix("0x").rjust(64, "0")}
        answer = str(self._ask("eth_call", call, "latest"))
        return int(answer[-64:], 16) in IN_STANDING

    def _logs(self, topic: str, tx: str) -> list[dict[str, Any]]:
        if tx:
            receipt: Any = self._ask("eth_getTransactionReceipt", tx)
            return list(receipt["logs"]) if receipt else []
        kinds = [SETTLED, PROVIDER_PAID]
        query = {"address": self._address, "fromBlock": "earliest", "toBlock": "latest", "topics": [kinds, topic]}
        found: Any = self._ask("eth_getLogs", query)
        return list(found)

    def _is_ours(self, log: dict[str, Any], topic: str) -> bool:
        return str(log["address"]).lower() == self._address.lower() and log["topics"][1:2] == [topic]

    def _ask(self, method: str, *params: object) -> object:
        body = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
        try:
            answer = self._http.post(self._rpc, json=body, timeout=SECONDS).raise_for_status().json()
        except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
            raise ChainError(f"the node at {self._rpc} does not answer: {error}") from error
        if not isinstance(answer, dict) or "result" not in answer:
            said = answer.get("error") if isinstance(answer, dict) else answer
            raise ChainError(f"the node refuses {method}: {said!s:.200}")
        return answer["result"]


def _words(log: dict[str, Any]) -> list[str]:
    """A log's data in words of 32 bytes, hexadecimal."""
    data = str(log["data"]).removeprefix("0x")
    return [data[first : first + 64] for first in range(0, len(data), 64)]
