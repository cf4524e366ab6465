from django import template

register = template.Library()


@register.filter
def percent(fraction: float | None) -> str:
    """0.9561 -> "95.6 %"; nothing for None."""
    return "" if fraction is None else f"{fraction:.1%}".replace("%", " %")
