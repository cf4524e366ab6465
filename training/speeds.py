"""How fast providers are, each beside those it trained with; by the platform's clock alone. See docs/decisions/parts-by-speed.md."""

from collections import defaultdict
from collections.abc import Iterable
from statistics import mean, median

from providers.models import Provider
from training.models import Assignment
from training.pay import seconds_of

MEASURED = 10
"""Rounds of a provider, the latest ones, by which its speed is told."""


def relative(providers: Iterable[Provider]) -> dict[int, float]:
    """By provider's pk: samples a second, as a multiple of the median of the round; the mean over its latest rounds, of whatever tickets, for
    models differ and rounds do not. 1 for one who has done nothing yet."""
    return {provider.pk: _relative(provider) for provider in providers}


def _relative(provider: Provider) -> float:
    done = Assignment.objects.filter(state=Assignment.State.COMMITTED, committed__isnull=False)
    latest = done.filter(provider=provider).order_by("-pk").values_list("round", flat=True)[:MEASURED]
    rounds = defaultdict[int, list[tuple[int, float]]](list)
    for work in done.filter(round__in=list(latest)).select_related("shard"):
        if (seconds := seconds_of(work) or 0.0) > 0:  # a clock that was set back says nothing
            rounds[work.round_id].append((work.provider_id, work.shard.samples / seconds))
    found = [
        rate / median(rate for _, rate in works)
        for works in rounds.values()
        for who, rate in works
        if who == provider.pk
    ]
    return mean(found) if found else 1.0
