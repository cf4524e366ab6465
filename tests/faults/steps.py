"""The steps of a ticket's money, taken by hand on a real chain, and processes that are killed in the middle of one."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from uuid import UUID, uuid4

from django.conf import settings

from contracts.chain import Chain, Key, Quote, Receipt
from contracts.devchain import mine_if_pending_finality
from dmlsite.testing import database_url
from ledger import outbox
from ledger.gateway import key
from ledger.models import COUNTED, ChainTx, Transfer, balance
from ledger.reconcile import compare
from ledger.scanner import Scanner

ROOT = Path(__file__).resolve().parent.parent.parent
PRICE = 130_000
SHARES, FEE = 127_400, 2_600
RECEIPTS = "0x" + "11" * 32


def quote(ticket: UUID, payer: Key, chain: Chain, amount: int = PRICE, seconds: int = 600) -> Quote:
    """Payable for `seconds` of the chain's time, to be settled within ten times that."""
    now = chain.head().timestamp
    return Quote(ticket, payer.address, amount, now + seconds, now + 10 * seconds)


def fund(chain: Chain, payer: Key, amount: int = PRICE) -> None:
    chain.send(chain.transfer_call(payer.address, amount), key("admin"))


def pay(chain: Chain, ticket: UUID, payer: Key, seconds: int = 600) -> Receipt:
    fund(chain, payer)
    offer = quote(ticket, payer, chain, seconds=seconds)
    return chain.send(chain.pay_call(offer, chain.sign_quote(offer, key("quoter"))), payer)


def register(chain: Chain, wallet: Key) -> str:
    """Deposit; returns the address."""
    chain.send(chain.register_call(uuid4().bytes), wallet)
    return str(wallet.address)


def finalize(chain: Chain) -> None:
    """Have all that can be mined mined (what waits for an earlier nonce cannot), and final."""
    wait_for(lambda: int(str(rpc(chain, "txpool_status")["pending"]), 16) == 0)  # type: ignore[index]
    while mine_if_pending_finality(chain.w3):
        pass


def read(chain: Chain) -> None:
    """Make everything final that is mined, and book it."""
    finalize(chain)
    Scanner(chain).scan()
    outbox.confirm(chain)


def send_all() -> None:
    """As the sweep does."""
    for pk in outbox.due():
        outbox.send(ChainTx.objects.get(pk=pk))


def until_quiet(chain: Chain) -> None:
    for _ in range(3):
        send_all()
        read(chain)


def pass_time(chain: Chain, seconds: int) -> None:
    """Of the chain's clock."""
    rpc(chain, "evm_increaseTime", seconds)
    rpc(chain, "evm_mine")


def rpc(chain: Chain, method: str, *params: object) -> object:
    answer = chain.w3.provider.make_request(method, list(params))  # type: ignore[arg-type]
    assert "error" not in answer, answer
    return answer["result"]


def balanced(chain: Chain) -> None:
    """Every equality of the reconciliation holds, and nothing that was decided is left open."""
    _, rows = compare(chain)
    assert [(row.name, row.left, row.right) for row in rows if row.difference] == []
    assert not Transfer.objects.filter(kind="pending", outcome=None).exists()


def settled_exactly(chain: Chain, ticket: UUID, wallet: str, before: int) -> None:
    """One settlement, to the unit, on the chain and in the ledger, and one only."""
    assert chain.ticket_state(ticket) == "Settled"
    assert chain.token_balance(wallet) - before == SHARES == balance(f"provider:{wallet}")
    assert balance("fee") == FEE
    assert balance(f"escrow:{ticket}") == 0 == chain.escrowed()
    assert chain.totals().token_balance == balance("stray")
    balanced(chain)


def refunded_exactly(chain: Chain, ticket: UUID, payer: str, before: int) -> None:
    """`before`: what the payer had before it paid."""
    assert chain.ticket_state(ticket) == "Refunded"
    assert chain.token_balance(payer) == before
    assert balance(f"escrow:{ticket}") == 0 == chain.escrowed()
    back = Transfer.objects.filter(case=ticket, credit=f"outside:{payer}", kind__in=COUNTED)
    assert [row.amount for row in back] == [PRICE]
    balanced(chain)


# --- Processes that die -----------------------------------------------------------------------------------------------
def environment() -> dict[str, str]:
    """What another process needs to work on this test's database and chain."""
    keys = {
        f"{role}_KEYSTORE": str(getattr(settings, f"{role}_KEYSTORE")) for role in ("QUOTER", "SETTLER", "GUARDIAN")
    }
    return os.environ | {
        "DATABASE_URL": database_url(),
        "REDIS_URL": settings.REDIS_URL,
        "CHAIN_RPC_URL": settings.CHAIN_RPC_URL,
        "CHAIN_DEPLOYMENT": str(settings.CHAIN_DEPLOYMENT),
        "KEY_PASSPHRASE_FILE": str(settings.KEY_PASSPHRASE_FILE),
        **keys,
    }


def victim(*arguments: str) -> "subprocess.Popen[str]":
    """A process of `tests.faults.victim`."""
    command = [sys.executable, "-m", "tests.faults.victim", *arguments]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "stdin": subprocess.PIPE}
    return subprocess.Popen(command, cwd=ROOT, env=environment(), text=True, **pipes)  # type: ignore[call-overload,no-any-return]


def dies(*arguments: str) -> None:
    """Run a victim and see that it was killed, at the place it was to be killed at."""
    process = victim(*arguments)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == -signal.SIGKILL, errors


def wait_for(condition: Callable[[], object], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it never came true"
        time.sleep(0.1)
