"""Do the books agree with the chain? Every equality, at one final block, both sides and the difference."""

from collections.abc import Iterator
from dataclasses import dataclass

from django.db.models import Q, Sum

from contracts.chain import Chain
from ledger.models import COUNTED, Currency, Cursor, Transfer


@dataclass(frozen=True)
class Equality:
    """Two numbers that must be the same; micro-DML or gwei."""

    name: str
    left: int
    right: int

    @property
    def difference(self) -> int:
        return self.left - self.right


class NotYet(Exception):
    """The scanner has not read up to a final block whose state the node still has; try again in a moment."""


def reconcile(on: Chain) -> list[Equality]:
    """All equalities at the block up to which the books were written. Raises NotYet, ChainError."""
    about = on.deployment
    cursor = Cursor.objects.filter(chain_id=about.chain_id, escrow=about.escrow).first()
    if cursor is None or not cursor.block_hash:
        raise NotYet("the chain was not scanned yet")
    found = [*_against_the_chain(on, cursor.block), *_within_the_books()]
    cursor_now = Cursor.objects.get(pk=cursor.pk)
    if cursor_now.block != cursor.block:
        raise NotYet("the scanner moved on meanwhile")
    return found


def _against_the_chain(on: Chain, block: int) -> Iterator[Equality]:
    totals = on.totals(at=block)
    held = totals.token_balance - totals.surplus
    yield Equality(
        "tokens of the escrow, less strays == escrowed + credits", held, totals.escrowed + totals.token_credits
    )
    yield Equality(
        "coins of the escrow == staked + credits", totals.native_gwei, totals.staked_gwei + totals.credits_gwei
    )
    yield Equality("escrow accounts == escrowed", _held("escrow:", Currency.DML), totals.escrowed)
    yield Equality("deposit accounts == staked", _held("deposit:", Currency.COIN), totals.staked_gwei)
    yield Equality("credit accounts == credits", _held("credit:", Currency.COIN), totals.credits_gwei)
    settled = _moved(credit__startswith="provider:") + _moved(credit="fee")
    refunded = _moved(debit__startswith="escrow:", credit__startswith="outside:")
    paid = _moved(credit__startswith="escrow:")
    yield Equality("paid == escrowed + settled + refunded", paid, totals.escrowed + settled + refunded)


def _within_the_books() -> Iterator[Equality]:
    for case, credits, debits in _settled_tickets():
        yield Equality(f"ticket {case}: shares + fee == paid", debits, credits)


def _held(prefix: str, currency: str) -> int:
    """The balance of all accounts whose names begin so."""
    rows = Transfer.objects.filter(currency=currency, kind__in=COUNTED)
    sums = rows.aggregate(
        credits=Sum("amount", filter=Q(credit__startswith=prefix)),
        debits=Sum("amount", filter=Q(debit__startswith=prefix)),
    )
    return int((sums["credits"] or 0) - (sums["debits"] or 0))


def _moved(**accounts: str) -> int:
    rows = Transfer.objects.filter(currency=Currency.DML, kind__in=COUNTED, **accounts)
    return int(rows.aggregate(total=Sum("amount"))["total"] or 0)


def _settled_tickets() -> Iterator[tuple[str, int, int]]:
    """Per ticket whose fee was posted: what came into its escrow account, and what left it."""
    rows = Transfer.objects.filter(currency=Currency.DML, kind__in=COUNTED)
    settled = rows.filter(credit="fee").values("case")
    sums = (
        rows.filter(case__in=settled)
        .values("case")
        .annotate(
            credits=Sum("amount", filter=Q(credit__startswith="escrow:")),
            debits=Sum("amount", filter=Q(debit__startswith="escrow:")),
        )
    )
    for row in sums.order_by("case"):
        yield str(row["case"]), int(row["credits"] or 0), int(row["debits"] or 0)
