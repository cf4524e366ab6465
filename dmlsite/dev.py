"""Development only: a wallet whose keys are on the server, and the mail that went out. Never part of production.

Each person of the site gets a wallet of their own out of the development chain's well-known words; it is filled with
test coins and test DML when it is first connected.
"""

import email
import email.policy
import json
from email.message import EmailMessage
from pathlib import Path
from typing import Any, cast

from django.conf import settings
from django.contrib.auth.decorators import login_required
from django.db import connection, transaction
from django.http import Http404, HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import render
from django.urls import path
from django.views.decorators.http import require_POST
from eth_account.messages import encode_defunct

from accounts.models import User
from contracts import devchain
from contracts.chain import GWEI, Call, ChainError, Key, to_checksum
from ledger import money
from ledger.gateway import chain, key
from providers.models import Provider

FIRST_ACCOUNT = 1000
"""The wallet of the person with primary key n is the mnemonic's account FIRST_ACCOUNT + n. Tests and the chain's own
unlocked accounts are below."""

DEMO_ACCOUNTS = 10
"""The mnemonic's first accounts, which the demo's people use."""

COINS_GWEI = 10**10
TOKENS = 1000 * money.MICRO
SEPARATOR = b"-" * 79 + b"\n"
FORWARDED = {"eth_blockNumber", "eth_getBalance", "eth_getTransactionReceipt", "eth_getTransactionByHash"}
UNAUTHORIZED, UNSUPPORTED, INTERNAL = 4100, 4200, -32603  # EIP-1193's and JSON-RPC's codes


class RpcError(Exception):
    """An answer of the development wallet that is an error."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code


# --- The wallet -------------------------------------------------------------------------------------------------------
def account(user: User) -> Key:
    """A person's development wallet; the same one each time. A provider of the demo keeps the one it deposited from."""
    wallet = Provider.objects.filter(user=user, wallet__isnull=False).values_list("wallet", flat=True).first()
    known = (devchain.test_key(index) for index in range(DEMO_ACCOUNTS)) if wallet else ()
    found = next((one for one in known if one.address == wallet), None)
    return found or devchain.test_key(FIRST_ACCOUNT + user.pk)


def fund(address: str, tokens: int = TOKENS, coins_gwei: int = COINS_GWEI) -> None:
    """Fill a wallet up to `tokens` micro-DML, out of the admin's, and to `coins_gwei`, out of nothing.

    The admin's key signs for one caller at a time: a nonce has one owner.
    """
    if not settings.DEV_WALLET:
        raise ChainError("only a development chain gives away coins")
    url, admin = settings.CHAIN_RPC_URL, key("admin")
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("select pg_advisory_xact_lock(hashtextextended('dev.fund', 0))")
        for wallet in (address, admin.address):
            if chain().native_balance(wallet) < coins_gwei // 2:
                devchain.fund(url, wallet, coins_gwei)
        missing = tokens - chain().token_balance(address)
        if missing > tokens // 2:
            chain().send(chain().transfer_call(address, missing), admin)


@login_required
@require_POST
def rpc(request: HttpRequest) -> HttpResponse:
    """What a wallet would answer, for the methods that our pages use. Needs the login and the CSRF token."""
    if not settings.DEV_WALLET:
        raise Http404
    asked: dict[str, Any] = {}
    try:
        asked = json.loads(request.body)
        result = _answer(cast(User, request.user), str(asked["method"]), asked.get("params") or [])
        return JsonResponse({"jsonrpc": "2.0", "id": asked.get("id"), "result": result})
    except RpcError as error:
        code, text = error.code, str(error)
    except ChainError as error:
        code, text = INTERNAL, str(error)
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        code, text = -32600, f"not a request: {error}"
    identity = asked.get("id") if isinstance(asked, dict) else None
    return JsonResponse({"jsonrpc": "2.0", "id": identity, "error": {"code": code, "message": text}})


def _answer(user: User, method: str, params: list[Any]) -> Any:
    if method in ("eth_accounts", "eth_requestAccounts"):
        address = account(user).address
        fund(address)
        return [address]
    if method == "eth_chainId":
        return hex(settings.CHAIN_ID)
    if method == "eth_sendTransaction":
        return _send(user, params[0])
    if method == "personal_sign":
        return _sign(user, *params)
    if method in FORWARDED:
        return _forward(method, params)
    raise RpcError(UNSUPPORTED, f"The development wallet does not know {method}.")


def _send(user: User, wanted: dict[str, str]) -> str:
    """Sign with the person's own key, and only for it; returns the hash."""
    signer = account(user)
    if to_checksum(wanted.get("from", "")) != signer.address:
        raise RpcError(UNAUTHORIZED, "This is not the account of your development wallet.")
    if "chainId" in wanted and int(wanted["chainId"], 16) != settings.CHAIN_ID:
        raise RpcError(4901, "The development wallet is on another chain.")
    call = Call(to_checksum(wanted["to"]), wanted.get("data", "0x"), int(wanted.get("value", "0x0"), 16) // GWEI)
    return chain().broadcast(chain().sign(call, signer, chain().next_nonce(signer.address)).raw)


def _sign(user: User, message: str, address: str) -> str:
    signer = account(user)
    if to_checksum(address) != signer.address:
        raise RpcError(UNAUTHORIZED, "This is not the account of your development wallet.")
    return "0x" + signer.sign_message(encode_defunct(hexstr=message)).signature.hex()


def _forward(method: str, params: list[Any]) -> Any:
    answer = cast(dict[str, Any], chain().w3.provider.make_request(cast(Any, method), params))
    if "error" in answer:
        raise RpcError(INTERNAL, str(answer["error"].get("message", "the node refused")))
    return json.loads(chain().w3.to_json(answer["result"]))


# --- Mail -------------------------------------------------------------------------------------------------------------
def mail(request: HttpRequest) -> HttpResponse:
    """The mail that Django's file backend wrote down, newest first."""
    files = sorted(Path(settings.EMAIL_FILE_PATH).glob("*.log"), key=lambda file: file.stat().st_mtime, reverse=True)
    mails = [_shown(raw) for file in files[:30] for raw in reversed(file.read_bytes().split(SEPARATOR)) if raw.strip()]
    return render(request, "dev/mail.html", {"mails": mails})


def _shown(raw: bytes) -> dict[str, str]:
    message = cast(EmailMessage, email.message_from_bytes(raw, policy=email.policy.default))
    body = message.get_body(("plain",))
    text = body.get_content() if body else ""
    return {name: str(message.get(name, "")) for name in ("subject", "to", "date")} | {"body": text}


app_name = "dev"
urlpatterns = [path("rpc/", rpc, name="rpc"), path("mail/", mail, name="mail")]
