"""What an admin wants to know of the money at one glance: what needs a hand, what is owed against what is there."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime, timedelta

from django.conf import settings
from django.db import transaction
from django.db.models import Count, Max, Model, Q
from django.utils import timezone

from contracts.chain import Chain, ChainError, Unavailable
from ledger import money, reconcile, watch
from ledger.gateway import chain, deployment
from ledger.models import Alarm, ChainEvent, ChainTx, Currency, Cursor, Transfer, balance

DML, COIN = Currency.DML, Currency.COIN

UNFOLLOWED = timedelta(minutes=5)
UNDECIDED = timedelta(days=1)
MOST = 50
"""Rows that the page shows of each kind; the lists behind have all."""

ANSWER_SECONDS = 2.0
"""How long a page that tells more than that waits for the chain."""

_asking = ThreadPoolExecutor(max_workers=2, thread_name_prefix="overview")


@dataclass(frozen=True)
class Matter:
    """Something that needs an admin's hand."""

    kind: str
    at: datetime
    text: str
    row: Model


def exceptions() -> Iterator[Matter]:
    """The queue, kind by kind, the oldest of each first."""
    yield from _alarms()
    yield from _strays()
    yield from _stuck()
    for tx in watch.overdue().order_by("created")[:MOST]:
        yield Matter("overdue", tx.created, f"{tx.verb}: {tx.get_state_display()}. {tx.error}", tx)
    yield from _unfollowed()
    yield from _undecided()


def _alarms() -> Iterator[Matter]:
    for row in Alarm.objects.filter(cleared=None).order_by("created")[:MOST]:
        stop = f" Halts {row.halts}." if row.halts else ""
        yield Matter(f"alarm: {row.kind}", row.created, f"{row.text}{stop}", row)


def _strays() -> Iterator[Matter]:
    """Transfers and overpayments that reached the escrow for nothing, as long as any of them is still there."""
    if balance("stray") <= 0:
        return
    for row in ChainEvent.objects.filter(name="Stray").order_by("seen")[:MOST]:
        sender, paid = row.args["sender"], money.text(row.args["amount"], DML)
        known = ChainEvent.objects.filter(name="Paid", args__payer=sender).order_by("-block").first()
        whose = f"; that wallet paid for ticket {known.case}" if known else ""
        yield Matter("stray tokens", row.seen, f"{paid} from {sender}{whose}", row)


def _stuck() -> Iterator[Matter]:
    """Signed, sent, and not final although a higher fee was due or offered."""
    late = timezone.now() - timedelta(seconds=settings.CHAIN_BUMP_SECONDS)
    sent = ChainTx.objects.filter(state=ChainTx.State.SENT)
    tried = sent.annotate(tries=Count("attempts"), last=Max("attempts__created"))
    for tx in tried.filter(Q(tries__gt=1) | Q(last__lt=late)).order_by("nonce")[:MOST]:
        text = f"{tx.verb}, nonce {tx.nonce} of {tx.sender}, {tx.tries} attempts. {tx.error}"
        yield Matter("stuck nonce", tx.created, text, tx)


def _unfollowed() -> Iterator[Matter]:
    late = timezone.now() - UNFOLLOWED
    for row in ChainEvent.objects.filter(followed=None, seen__lt=late).order_by("seen")[:MOST]:
        yield Matter("event nobody acted on", row.seen, f"{row.name} in block {row.block}", row)


def _undecided() -> Iterator[Matter]:
    late = timezone.now() - UNDECIDED
    plans = Transfer.objects.filter(kind=Transfer.Kind.PENDING, outcome=None, created__lt=late)
    for row in plans.order_by("created")[:MOST]:
        text = f"{money.text(row.amount, row.currency)} {row.debit} → {row.credit}"
        yield Matter("planned, not done", row.created, text, row)


@dataclass(frozen=True)
class Line:
    """One line of what is owed and what is there; amounts with their units."""

    what: str
    amount: str


def liabilities(on: Chain) -> tuple[int, list[Line], list[Line]]:
    """At the last final block: its number, what the escrow owes, what it holds. Raises ChainError."""
    block = on.finalized().number
    now = on.totals(at=block)
    owed = [
        Line("tickets in escrow", money.text(now.escrowed, DML)),
        Line("tokens to be fetched", money.text(now.token_credits, DML)),
        Line("deposits", money.text(now.staked_gwei, COIN)),
        Line("coins to be fetched", money.text(now.credits_gwei, COIN)),
    ]
    held = [
        Line("tokens held", money.text(now.token_balance, DML)),
        Line("of these for nothing (stray)", money.text(now.surplus, DML)),
        Line("coins held", money.text(now.native_gwei, COIN)),
    ]
    return block, owed, held


@dataclass(frozen=True)
class Escrow:
    """The tickets' money in escrow by the books, and by the chain at the block up to which the books were written.

    `held` is None while that is not known; `problem` says why. Amounts in micro-DML.
    """

    booked: int
    block: int | None = None
    held: int | None = None
    problem: str = ""


def escrow() -> Escrow:
    """Waits for the chain no longer than ANSWER_SECONDS, and raises nothing if no answer comes."""
    booked, block = _booked()
    if block is None:
        return Escrow(booked, problem="The chain was not read yet.")
    try:
        return Escrow(booked, block, _within(ANSWER_SECONDS, lambda: chain().escrowed(block)))
    except ChainError as error:
        return Escrow(booked, block, problem=f"The chain does not answer just now: {error}")


def _booked() -> tuple[int, int | None]:
    """What the books have in escrow, and the block up to which they were written; None: none was read yet."""
    with transaction.atomic():  # the scanner writes only while it holds this row
        cursor = _cursor()
        return reconcile.held("escrow:"), cursor.block if cursor else None


def _cursor() -> Cursor | None:
    try:
        about = deployment()
    except ChainError:
        return None
    read = Cursor.objects.exclude(block_hash="").filter(chain_id=about.chain_id, escrow=about.escrow)
    return read.select_for_update().first()


def _within(seconds: float, ask: Callable[[], int]) -> int:
    """What `ask` returns or raises. Raises Unavailable if that takes longer; then the answer is not waited for."""
    asked = _asking.submit(ask)
    try:
        return asked.result(seconds)
    except TimeoutError:
        asked.cancel()
        raise Unavailable(f"nothing came within {seconds:.0f} seconds") from None
