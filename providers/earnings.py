"""What a provider was paid: by day or month for the chart, and every transfer for the file."""

from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any

from django.db.models import QuerySet, Sum
from django.db.models.functions import TruncDate, TruncMonth
from django.utils import timezone

from ledger import money
from ledger.models import COUNTED, Currency, Transfer
from providers.models import Provider

WIDTH, HEIGHT = 300, 80
"""The chart's box, in SVG units."""

DAYS, MONTHS = 30, 12
"""How far back the chart goes, today's day or month included."""

COLUMNS = {
    "time": lambda row: row.created.isoformat(),
    "ticket": lambda row: row.case or "",
    "DML": lambda row: money.dml(row.amount),
    "transaction": lambda row: row.event.tx if row.event else "",
}
"""Of the CSV file."""


@dataclass(frozen=True)
class Bar:
    """A day or month: what it brought, in micro-DML, and its place in the chart's box."""

    first: date
    amount: int
    x: float
    y: float
    width: float
    height: float


def paid(provider: Provider) -> QuerySet[Transfer]:
    """Every payment that the chain has made final, the newest first."""
    rows = Transfer.objects.filter(credit=f"provider:{provider.wallet}", currency=Currency.DML, kind__in=COUNTED)
    return rows.select_related("event").order_by("-id")


def chart(provider: Provider, by: str) -> dict[str, Any]:
    """Bars by "day" or "month" (anything else is a day), the oldest first, those without pay too; the best one has full height."""
    if by == "month":
        cut, firsts = TruncMonth("created__date"), _months()
    else:
        by, cut, firsts = "day", TruncDate("created"), _days()
    rows = paid(provider).filter(created__date__gte=firsts[0]).order_by().values(first=cut)
    sums = dict(rows.annotate(total=Sum("amount")).values_list("first", "total"))
    most = max(sums.values(), default=0)
    bars = [_bar(i, first, sums.get(first, 0), most, WIDTH / len(firsts)) for i, first in enumerate(firsts)]
    return {"by": by, "bars": bars, "most": most, "total": sum(sums.values())}


def _bar(i: int, first: date, amount: int, most: int, step: float) -> Bar:
    height = round(HEIGHT * amount / most, 1) if most else 0.0
    return Bar(first, amount, round(i * step, 1), HEIGHT - height, round(0.8 * step, 1), height)


def _days() -> list[date]:
    today = timezone.localdate()
    return [today - timedelta(days=ago) for ago in reversed(range(DAYS))]


def _months() -> list[date]:
    today = timezone.localdate()
    now = 12 * today.year + today.month - 1
    return [date((now - ago) // 12, (now - ago) % 12 + 1, 1) for ago in reversed(range(MONTHS))]
