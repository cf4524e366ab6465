"""Numbers as people read them."""

import re
from datetime import timedelta
from decimal import Decimal
from typing import Any

from django import template
from django.template.loader import render_to_string
from django.utils.html import format_html_join
from django.utils.safestring import SafeString

from dmlworker import task as tasks
from tickets.models import Ticket

register = template.Library()
TX = re.compile(r"(0x[0-9a-f]{64})")


@register.filter
def percent(fraction: float | None) -> str:
    """0.9561 -> "95.6 %"; nothing for None."""
    return "" if fraction is None else f"{100 * fraction:.1f} %"


@register.filter
def score(value: float | None, task: str) -> str:
    """As a model's task has it: "95.6 %" or "0.478"; nothing for None."""
    return "" if value is None else tasks.shown(task, value)


@register.filter
def result(ticket: Ticket) -> str:
    """What a ticket's model reached, with its name: "accuracy 95.6 %"."""
    return "" if ticket.accuracy is None else tasks.told(ticket.task, ticket.accuracy)


@register.filter
def figures(number: float | str | None) -> str:
    """A number of any size with six figures: 1234567.8 -> "1234570"; nothing for None, or where there is none."""
    return "" if number is None or number == "" else format(Decimal(f"{number:.6g}"), "f")


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


@register.simple_tag(takes_context=True)
def with_txs(context: dict[str, Any], text: str) -> SafeString:
    """A text in which transactions are shown as everywhere: short, and linked to the explorer where there is one."""
    explorer = context.get("explorer")
    parts = (
        render_to_string("_tx.html", {"hash": part, "explorer": explorer}) if number % 2 else part
        for number, part in enumerate(TX.split(text))
    )
    return format_html_join("", "{}", ((part,) for part in parts))
