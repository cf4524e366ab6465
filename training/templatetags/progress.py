"""`{% progress ticket %}`: the live part of a ticket's page, the same fragment that `training:progress` sends."""

from typing import Any

from django import template

from tickets.models import Ticket
from training.views import progress_of

register = template.Library()


@register.inclusion_tag("training/_progress.html", takes_context=True)
def progress(context: dict[str, Any], ticket: Ticket) -> dict[str, Any]:
    return {**context.flatten(), **progress_of(ticket, context["user"])}
