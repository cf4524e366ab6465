"""Reaching a node: the client, what it may repeat, and what its failures mean."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import requests
from web3 import HTTPProvider, Web3
from web3.exceptions import (
    BadFunctionCallOutput,
    BlockNotFound,
    ContractLogicError,
    TransactionNotFound,
    Web3Exception,
    Web3RPCError,
)
from web3.middleware import ExtraDataToPOAMiddleware, Web3Middleware
from web3.providers.rpc.utils import ExceptionRetryConfiguration

from contracts.encoding import revert
from contracts.types import GWEI, Fees, Rejected, Reverted, Unavailable

# A library of web3's (py_ecc) raises the limit to 100,000, at which deeply nested JSON ends the process instead of raising.
sys.setrecursionlimit(1_000)

# What may be asked again because it changes nothing. web3's own list also has eth_sendRawTransaction and evm_*.
_QUESTIONS = [
    "eth_blockNumber",
    "eth_call",
    "eth_chainId",
    "eth_estimateGas",
    "eth_feeHistory",
    "eth_getBalance",
    "eth_getBlockByNumber",
    "eth_getCode",
    "eth_getLogs",
    "eth_getTransactionByHash",
    "eth_getTransactionCount",
    "eth_getTransactionReceipt",
    "eth_maxPriorityFeePerGas",
]
_TRIES = 5
_PAUSE = 0.1
"""Seconds before the second try, twice as long before each one after: 1.5 s in all."""


class _Overloaded(requests.HTTPError):
    """HTTP 429 or 5xx: the next one may be answered."""


Told = Callable[[str, float, str], None]
"""Is told of each question: its name, the seconds it took, and how it ended: ok; refused, an answer that says no; failed, none."""


def connect(rpc_url: str, timeout: float = 10, told: Told | None = None) -> Web3:
    """A client for a node; opens no connection yet. `timeout`: seconds for one answer.

    A question is asked again when the connection failed or the node was overloaded, five times within two seconds. An
    answer that does not come in time is not waited for twice: often the question was too big. What sends is sent once:
    the caller knows what may be repeated.
    """
    retry = ExceptionRetryConfiguration([requests.ConnectionError, _Overloaded], _TRIES, _PAUSE, _QUESTIONS)
    kwargs = {"timeout": timeout, "hooks": {"response": _heed_overload}}
    w3 = Web3(HTTPProvider(rpc_url, kwargs, exception_retry_configuration=retry))
    # Polygon's headers carry more extra data than Ethereum's; harmless elsewhere.
    w3.middleware_onion.inject(ExtraDataToPOAMiddleware, layer=0)
    if told:
        w3.middleware_onion.inject(_telling(told), layer=0)  # nearest to the line: an error is still an answer there
    return w3


def _telling(told: Told) -> type[Web3Middleware]:
    class Telling(Web3Middleware):
        def wrap_make_request(self, make_request: Any) -> Any:
            def ask(method: Any, params: Any) -> Any:
                started, outcome = time.perf_counter(), "failed"
                try:
                    answer = make_request(method, params)
                    outcome = "refused" if answer.get("error") else "ok"
                    return answer
                finally:
                    told(str(method), time.perf_counter() - started, outcome)

            return ask

    return Telling


def _heed_overload(answer: requests.Response, **_: Any) -> None:
    if answer.status_code == 429 or answer.status_code >= 500:
        answer.close()
        raise _Overloaded(f"HTTP {answer.status_code} {answer.reason}", response=answer)


@contextmanager
def answering() -> Iterator[None]:
    """Turns what web3 and the connection raise into ours. TransactionNotFound passes: it is an answer."""
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
        raise Unavailable(f"no usable answer from the node: {type(error).__name__}: {_public(error)}") from error


def _public(error: Exception) -> str:
    """What an error says, without the path of an address: many nodes want a key there, and this text is logged and shown to admins."""
    text = re.sub(r"with url: \S+", "with url: …", str(error))
    return re.sub(r"(https?://)(?:[^/\s@]*@)?([^/\s'\"]+)[^\s'\"]*", r"\1\2", text)


def _rpc_text(error: Web3RPCError) -> str:
    answer = error.rpc_response or {}
    problem = answer.get("error") if isinstance(answer, dict) else None
    return str(problem.get("message")) if isinstance(problem, dict) else str(error)


def _reverted(error: ContractLogicError) -> Reverted:
    return revert(str(error.message or error), error.data if isinstance(error.data, str) else "")


def suggest_fees(w3: Web3, tip_floor_gwei: int = 1) -> Fees:
    """Room for the base fee to double, plus the node's tip or the floor."""
    base = w3.eth.get_block("latest").get("baseFeePerGas", 0)
    tip = max(-(-w3.eth.max_priority_fee // GWEI), tip_floor_gwei)
    return Fees(-(-2 * base // GWEI) + tip, tip)
