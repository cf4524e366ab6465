from typing import Any

from django import template

from ledger import money, pricing

register = template.Library()
register.filter("dml", money.dml)
register.filter("coin", money.coin)


@register.inclusion_tag("_price.html")
def breakdown(price: int, scheme: str, order: pricing.Order) -> dict[str, Any]:
    """What was quoted (`price`, micro-DML), which parts it has by its scheme, and who gets it."""
    fee, parts = money.fee(price), pricing.SCHEMES[scheme].parts(order)
    return {"price": price, "parts": parts, "fee": fee, "share": price - fee, "percent": money.FEE_PERCENT}
