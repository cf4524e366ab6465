from typing import Any

from django import template

from ledger import money

register = template.Library()
register.filter("dml", money.dml)
register.filter("coin", money.coin)


@register.inclusion_tag("_price.html")
def breakdown(size: int, price: int) -> dict[str, Any]:
    """What a file of `size` bytes costs (`price`, micro-DML), by which rate, and who gets it."""
    fee = money.fee(price)
    return {"size": size, "price": price, "fee": fee, "share": price - fee, "percent": money.FEE_PERCENT}
