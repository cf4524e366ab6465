"""Do the books agree with the chain? Every equality, at one final block, both sides and the difference."""

from collections.abc import Iterator
from dataclasses import dataclass

from django.db import transaction
from django.db.models import F, Q, Sum

from contracts.chain import Chain, Totals
from ledger import money
from ledger.alarms import Kind, alarm
from ledger.models import COUNTED, PAYOUTS, Currency, Cursor, Reconciliation, Transfer

DML, COIN = Currency.DML, Currency.COIN


@dataclass(frozen=True)
class Equality:
    """Two numbers that must be the same, in micro-DML or gwei."""

    name: str
    currency: str
    left: int
    right: int

    @property
    def difference(self) -> int:
        return self.left - self.right

    def __str__(self) -> str:
        left, right, off = (money.text(n, self.currency) for n in (self.left, self.right, self.difference))
        return f"{self.name}: {left} against {right}, off by {off}"


class NotYet(Exception):
    """The scanner has not read up to a final block whose state the node still has; try again in a moment."""


def reconcile(on: Chain) -> Reconciliation:
    """Compare, keep the result; a difference alarms the admins and stops payouts. Raises NotYet, ChainError."""
    block, rows = compare(on)
    wrong = [row for row in rows if row.difference]
    kept = [{"name": r.name, "currency": r.currency, "left": r.left, "right": r.right} for r in rows]
    with transaction.atomic():
        found = Reconciliation.objects.create(block=block, balanced=not wrong, rows=kept)
        if wrong:
            text = "; ".join(map(str, wrong))
            alarm(Kind.BOOKS_DIFFER, f"At block {block}: {text}", halts=PAYOUTS)
    return found


def compare(on: Chain) -> tuple[int, list[Equality]]:
    """All equalities at the block up to which the books were written. Raises NotYet, ChainError."""
    about = on.deployment
    cursor = Cursor.objects.filter(chain_id=about.chain_id, escrow=about.escrow).first()
    if cursor is None or not cursor.block_hash:
        raise NotYet("the chain was not scanned yet")
    totals = on.totals(at=cursor.block)
    with transaction.atomic():  # the scanner writes only while it holds this row
        if Cursor.objects.select_for_update().get(pk=cursor.pk).block != cursor.block:
            raise NotYet("the scanner moved on meanwhile")
        return cursor.block, [*_against_the_chain(totals), *_within_the_books()]


def _against_the_chain(totals: Totals) -> Iterator[Equality]:
    stray, credits = held("stray"), held("credit:")
    tokens = totals.token_balance - stray
    yield Equality("tokens held, less strays = escrowed + credits", DML, tokens, totals.escrowed + totals.token_credits)
    yield Equality("coins held = staked + credits", COIN, _coins(totals), totals.staked_gwei + totals.credits_gwei)
    yield Equality("escrow accounts = escrowed", DML, held("escrow:"), totals.escrowed)
    yield Equality("credit accounts = credits", DML, credits, totals.token_credits)
    yield Equality("deposit accounts = staked", COIN, held("deposit:", COIN), totals.staked_gwei)
    yield Equality("credit accounts = credits", COIN, held("credit:", COIN), totals.credits_gwei)
    settled = _moved(credit__startswith="provider:") + _moved(credit="fee")
    refunded = _moved(debit__startswith="escrow:", credit__startswith="outside:")
    paid = _moved(credit__startswith="escrow:")
    yield Equality("paid = escrowed + settled + refunded", DML, paid, totals.escrowed + settled + refunded)


def _coins(totals: Totals) -> int:
    """What the escrow holds of the native coin, without what somebody forced on it.

    No rule of the contract takes such coins in and none lets them out (a contract that ends itself can send coins to any
    address), so they are nobody's; if they counted as a difference, anyone could stop payouts for one gwei.
    """
    return min(totals.native_gwei, totals.staked_gwei + totals.credits_gwei)


def _within_the_books() -> Iterator[Equality]:
    for currency in Currency.values:
        counted = Transfer.objects.filter(currency=currency, kind__in=COUNTED)
        yield Equality("debits = credits", currency, _total(counted, "debit"), _total(counted, "credit"))
        carried_out = counted.filter(kind=Transfer.Kind.POST)
        plans = carried_out.aggregate(total=Sum("pending__amount"))["total"] or 0
        yield Equality("posted = planned", currency, _sum(carried_out), int(plans))
    yield Equality("tickets in the red = none", DML, _in_the_red(), 0)
    yield Equality("accounts of ended cases = 0", COIN, held("case:", COIN), 0)
    settled = list(_settled_tickets())
    yield Equality("settled tickets: shares + fee = paid", DML, sum(r[2] for r in settled), sum(r[1] for r in settled))
    for case, paid, left in settled:
        if paid != left:
            yield Equality(f"ticket {case}: shares + fee = paid", DML, left, paid)


def _total(rows, side: str) -> int:  # type: ignore[no-untyped-def]
    """The sum over all accounts of what each has on one side."""
    per_account = rows.order_by().values(side).annotate(total=Sum("amount")).values_list("total", flat=True)
    return int(sum(per_account))


def _sum(rows) -> int:  # type: ignore[no-untyped-def]
    return int(rows.aggregate(total=Sum("amount"))["total"] or 0)


def held(prefix: str, currency: str = DML) -> int:
    """The balance of all accounts whose names begin so."""
    rows = Transfer.objects.filter(currency=currency, kind__in=COUNTED)
    return _sum(rows.filter(credit__startswith=prefix)) - _sum(rows.filter(debit__startswith=prefix))


def _moved(**accounts: str) -> int:
    return _sum(Transfer.objects.filter(currency=DML, kind__in=COUNTED, **accounts))


def _in_the_red() -> int:
    """How many tickets had more paid out of escrow than was paid in."""
    rows = Transfer.objects.filter(currency=DML, kind__in=COUNTED, case__isnull=False).order_by().values("case")
    into, out = Q(credit__startswith="escrow:"), Q(debit__startswith="escrow:")
    sums = rows.annotate(paid=Sum("amount", filter=into, default=0), left=Sum("amount", filter=out, default=0))
    return sums.filter(left__gt=F("paid")).count()


def _settled_tickets() -> Iterator[tuple[str, int, int]]:
    """Per ticket that a provider was paid for: what came into its escrow account, and what left it."""
    rows = Transfer.objects.filter(currency=DML, kind__in=COUNTED)
    settled = rows.filter(Q(credit="fee") | Q(credit__startswith="provider:")).values("case")
    into, out = Q(credit__startswith="escrow:"), Q(debit__startswith="escrow:")
    sums = rows.filter(case__in=settled).order_by().values("case")
    sums = sums.annotate(paid=Sum("amount", filter=into, default=0), left=Sum("amount", filter=out, default=0))
    for row in sums.order_by("case"):
        yield str(row["case"]), int(row["paid"]), int(row["left"])
