"""What nobody tells us, because nothing happens: checks that the process with the clock makes again and again."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta

from django.conf import settings
from django.db.models import Avg, Q, QuerySet
from django.utils import timezone

from contracts.chain import Block, Chain
from ledger import money
from ledger.alarms import Kind, alarm
from ledger.gateway import key
from ledger.models import Attempt, ChainEvent, ChainTx, Reconciliation
from observe import metrics

FIRST_FEE_GWEI = 10_000_000
"""What a transaction is taken to cost before one was mined: 0.01 coin (300,000 gas at 33 gwei)."""

RECENT = 50
"""Transactions over which the fee is averaged."""


class Standstill:
    """Has the chain been silent, or finality stood still, for too long? `clock` gives seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock = clock
        self._final, self._head, self._since = -1, -1, clock()
        self._heard = clock()

    def heard(self, final: Block, head: Block) -> None:
        """The chain answered. Finality stands still only while the head goes on: an idle chain is in order."""
        self._heard = self.clock()
        if final.number != self._final:
            self._final, self._head, self._since = final.number, head.number, self.clock()
        elif head.number > self._head and self.clock() - self._since > settings.CHAIN_LAG_SECONDS:
            alarm(Kind.FINALITY_STILL, f"block {final.number} is still the last final one; the head is {head.number}")

    def silent(self, error: object) -> None:
        """The chain did not answer, or not usably."""
        if self.clock() - self._heard > settings.CHAIN_LAG_SECONDS:
            alarm(Kind.CHAIN_SILENT, f"no usable answer for {settings.CHAIN_LAG_SECONDS} s: {error}")


@dataclass(frozen=True)
class Runway:
    """How far a hot key's native coin reaches: its balance, and an average transaction's fee, in gwei."""

    role: str
    address: str
    balance_gwei: int
    fee_gwei: int

    @property
    def transactions(self) -> int:
        return self.balance_gwei // max(self.fee_gwei, 1)


def runways(on: Chain) -> Iterator[Runway]:
    """One for each key that sends."""
    for role in ("settler", "guardian"):
        address = key(role).address
        paid = Attempt.objects.filter(tx__sender=address, fee_gwei__isnull=False).order_by("-id")[:RECENT]
        average = paid.aggregate(fee=Avg("fee_gwei"))["fee"] or FIRST_FEE_GWEI
        yield Runway(role, address, on.native_balance(address), int(average))


def gas(on: Chain) -> None:
    """Alarm long before a hot key cannot pay for its transactions."""
    for one in runways(on):
        metrics.COINS.labels(one.role).set(one.balance_gwei / 10**9)
        metrics.REACH.labels(one.role).set(one.transactions)
        if one.transactions < settings.GAS_RUNWAY:
            text = (
                f"the {one.role} {one.address} has {money.coin(one.balance_gwei)} coin: {one.transactions} transactions"
            )
            alarm(Kind.GAS_LOW, text)


def overdue() -> QuerySet[ChainTx]:
    """Intents that should have been final long ago."""
    late = timezone.now() - timedelta(seconds=settings.CHAIN_OVERDUE_SECONDS)
    ripe = Q(not_before=None) | Q(not_before__lt=late)
    return ChainTx.objects.filter(ripe, created__lt=late, state__in=[ChainTx.State.READY, ChainTx.State.SENT])


def intents() -> None:
    for tx in overdue():
        alarm(Kind.OVERDUE, f"{tx} is not final yet. {tx.error}", tx.case)


def reconciliation() -> None:
    """Nobody compares the books any more: as dangerous as a difference, but it stops nothing."""
    late = timezone.now() - timedelta(seconds=3 * settings.RECONCILE_SECONDS)
    last = Reconciliation.objects.first()
    since = last.created if last else ChainEvent.objects.order_by("seen").values_list("seen", flat=True).first()
    if since and since < late:
        alarm(Kind.RECONCILIATION_OVERDUE, f"the last one was at {since:%Y-%m-%d %H:%M} UTC")


def all_of(on: Chain) -> None:
    """Everything that is not worth asking with each scan."""
    gas(on)
    intents()
    reconciliation()
