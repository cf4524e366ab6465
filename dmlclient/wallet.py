"""A wallet on this computer that pays for tickets, and signs nothing else. Needs eth-account: pip install "dml-client[wallet]"."""

import json
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, cast
from uuid import UUID

import httpx

from dmlclient.errors import NetworkError, PaymentError
from dmlclient.flow import Flow, Send
from dmlclient.records import Terms, Ticket, micro

if TYPE_CHECKING:
    from eth_account.signers.local import LocalAccount

TRANSFER_AND_CALL = bytes.fromhex("4000aea0")
"""transferAndCall(address,uint256,bytes) of ERC-1363."""
SIGNATURE = slice(356, 421)
"""Where the platform's signature of the quote is, in the data of a payment."""
GAS_MARGIN = 1.25
"""An estimate is exact for one state; the state may have moved when the transaction is mined."""
MOST = 1
"""DML that one payment may cost, unless more is allowed."""
SECONDS = 30.0


@dataclass(frozen=True)
class Signed:
    """A transaction, ready to be sent."""

    raw: bytes
    hash: str


class Keystore:
    """An encrypted key file (the format of geth and MetaMask's kin). rpc: address of a node of the chain. max_price: DML that one payment
    may cost. terms: the chain and contracts that you trust; without them, those that the platform names when it is first asked.

    Raises PaymentError with what is wrong with the file.
    """

    def __init__(
        self,
        path: Path | str,
        passphrase: str,
        rpc: str,
        *,
        max_price: Decimal | str | int | float = MOST,
        terms: Terms | None = None,
    ) -> None:
        self._account = _account(Path(path), passphrase)
        self.rpc, self.terms, self.max_micro = rpc, terms, micro(max_price)

    def __repr__(self) -> str:
        return f"Keystore({self.address})"

    def __deepcopy__(self, memo: Any) -> "Keystore":
        """The same wallet: scikit-learn copies what its estimators are given."""
        return self

    def __reduce__(self) -> NoReturn:
        raise TypeError("A wallet holds a key, and is not pickled.")

    @property
    def address(self) -> str:
        return str(self._account.address)

    def check(self, call: dict[str, str], ticket: Ticket, terms: Terms, max_micro: int) -> None:
        """Raises PaymentError unless `call` is the payment of this ticket, to the byte, and costs no more than allowed."""
        if ticket.price_micro > max_micro:
            raise PaymentError(
                f"The price is {ticket.price} DML, and at most {Decimal(max_micro) / 10**6} are allowed."
            )
        must = {
            "wallet": (ticket.payer.lower(), self.address.lower()),
            "sender": (call["from"].lower(), self.address.lower()),
            "chain": (int(call["chainId"], 16), terms.chain_id),
            "token": (call["to"].lower(), terms.token.lower()),
            "coins sent along": (int(call["value"], 16), 0),
        }
        for what, (found, wanted) in must.items():
            if found != wanted:
                raise PaymentError(f"Not signed: the {what} of this transaction is {found}, and not {wanted}.")
        data = bytes.fromhex(call["data"].removeprefix("0x"))
        if data != payment_data(ticket, terms.escrow, data[SIGNATURE]):
            raise PaymentError("Not signed: the transaction is another one than the payment of this ticket.")

    def signed(self, call: dict[str, str]) -> Flow[Signed]:
        """Nothing is sent here. Check the call before."""
        chain = int((yield from self._ask("eth_chainId")), 16)
        if chain != int(call["chainId"], 16):
            raise PaymentError(f"Not signed: the node serves chain {chain}, and not {int(call['chainId'], 16)}.")
        tip = int((yield from self._ask("eth_maxPriorityFeePerGas")), 16)
        block = yield from self._ask("eth_getBlockByNumber", "latest", False)
        unsigned = {name: call[name] for name in ("from", "to", "data", "value")}
        gas = int((yield from self._ask("eth_estimateGas", unsigned)), 16)
        nonce = int((yield from self._ask("eth_getTransactionCount", self.address, "pending")), 16)
        transaction: dict[str, Any] = {
            "type": 2,
            "chainId": chain,
            "nonce": nonce,
            "gas": int(gas * GAS_MARGIN),
            "maxFeePerGas": 2 * int(block["baseFeePerGas"], 16) + tip,
            "maxPriorityFeePerGas": tip,
            "to": call["to"],
            "data": call["data"],
            "value": 0,
        }
        made = self._account.sign_transaction(transaction)
        return Signed(bytes(made.raw_transaction), "0x" + bytes(made.hash).hex())

    def send(self, signed: Signed) -> Flow[str]:
        """Hand the bytes to the node; their hash. To send the same ones twice pays once, and is no error."""
        try:
            yield from self._ask("eth_sendRawTransaction", "0x" + signed.raw.hex())
        except PaymentError:  # "already known", "nonce too low" after it was mined: ask, don't parse
            if not (yield from self._ask("eth_getTransactionByHash", signed.hash)):
                raise
        return signed.hash

    def reverted(self, tx: str) -> Flow[bool]:
        """Whether it was mined, and the contract refused it."""
        receipt = yield from self._ask("eth_getTransactionReceipt", tx)
        return bool(receipt) and int(receipt["status"], 16) == 0

    def _ask(self, method: str, *parameters: object) -> Flow[Any]:
        body = {"jsonrpc": "2.0", "id": 1, "method": method, "params": parameters}
        timeout = {"timeout": httpx.Timeout(SECONDS).as_dict()}
        try:
            response = yield Send(httpx.Request("POST", self.rpc, json=body, extensions=timeout))
            answer = response.raise_for_status().json()
        except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
            raise NetworkError(f"The node at {_host(self.rpc)} does not answer: {type(error).__name__}.") from error
        if not isinstance(answer, dict) or "result" not in answer:
            said = answer.get("error") if isinstance(answer, dict) else answer
            raise PaymentError(f"The node refuses {method}: {_message(said)}")
        return answer["result"]


def payment_data(ticket: Ticket, escrow: str, signature: bytes) -> bytes:
    """What paying a ticket says to the token: transferAndCall(escrow, amount, abi.encode(quote, signature))."""
    quote = [UUID(ticket.id).int, int(ticket.payer, 16), ticket.price_micro]
    quote += [int(ticket.pay_by.timestamp()), int(ticket.settle_by.timestamp())]
    padding = -len(signature) % 32
    inner = b"".join(map(_word, [*quote, 6 * 32, len(signature)])) + signature + bytes(padding)
    head = [int(escrow, 16), ticket.price_micro, 3 * 32, len(inner)]
    return TRANSFER_AND_CALL + b"".join(map(_word, head)) + inner


def _word(number: int) -> bytes:
    return number.to_bytes(32, "big")


def _account(path: Path, passphrase: str) -> "LocalAccount":
    try:
        from eth_account import Account
    except ImportError:
        raise PaymentError('A wallet needs eth-account: pip install "dml-client[wallet]"') from None
    try:
        return cast("LocalAccount", Account.from_key(Account.decrypt(json.loads(path.read_text()), passphrase)))
    except OSError as error:
        raise PaymentError(f"Can't read {path}: {error.strerror}") from error
    except (ValueError, KeyError, TypeError, NotImplementedError):
        raise PaymentError(f"{path} is no keystore file, or the passphrase is wrong.") from None


def _host(url: str) -> str:
    """Without what may be a secret in the path."""
    return httpx.URL(url).host


def _message(said: object) -> str:
    return str(said.get("message", said) if isinstance(said, dict) else said)[:200]
