"""Numbers as people read them."""

from datetime import timedelta

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


@register.filter
def roughly(time: timedelta) -> str:
    """A duration as people say it: "20 seconds", "3 minutes", "2 hours"."""
    seconds = max(time.total_seconds(), 1)
    for name, unit in (("hour", 3600), ("minute", 60)):
        if seconds >= 1.5 * unit:
            return f"{seconds / unit:.0f} {name}s"
    tens = 10 * max(1, round(seconds / 10))
    return f"{tens} seconds"
