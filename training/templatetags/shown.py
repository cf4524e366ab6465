"""Numbers as people read them."""

from django import template

register = template.Library()


@register.filter
def percent(fraction: float | None) -> str:
    """0.9561 -> "95.6 %"; nothing for None."""
    return "" if fraction is None else f"{100 * fraction:.1f} %"


@register.filter
def size(count: int | None) -> str:
    """Bytes in decimal units, as the price counts them: 125436 -> "126 kB"."""
    count = int(count or 0)
    if count < 10**6:
        return f"{-(-count // 1000)} kB"
    return f"{count / 10**6:,.1f} MB" if count < 10**9 else f"{count / 10**9:,.1f} GB"
