"""What is known of providers' work, for everybody and for admins; and the deposit that makes cheating not worth it."""

import math
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from typing import Any
from uuid import UUID

from django.conf import settings
from django.db.models import F, Q, QuerySet, Window
from django.db.models.functions import RowNumber

from ledger import money
from ledger.models import ChainEvent, balance
from providers import actions as providers
from providers import attestations
from providers.models import Accusation, Provider, Standing, StandingEvent
from providers.score import LATEST, score
from tickets.models import Status, Ticket
from training import evidence
from training.models import Assignment, Audit

State = Assignment.State


# --- Scores -----------------------------------------------------------------------------------------------------------
def _taken() -> QuerySet[Assignment]:
    """Work of which it is known whether it was delivered. What was declined, malformed, late or void says nothing: that is
    as often the job's fault."""
    good = Q(state=State.COMMITTED, received__isnull=False)
    lapsed = Q(state=State.EXPIRED, accepted__isnull=False, committed=None)
    return Assignment.objects.filter(good | lapsed | Q(state__in=[State.UNPROVEN, State.REVOKED]))


def delivered(providers_: Iterable[Provider]) -> dict[UUID, list[bool]]:
    """For each provider whether the latest work that it took was delivered, the newest first."""
    newest = Window(RowNumber(), partition_by=F("provider"), order_by=F("pk").desc())
    rows = _taken().filter(provider__in=list(providers_)).annotate(n=newest).filter(n__lte=LATEST).order_by("n")
    found: dict[UUID, list[bool]] = defaultdict(list)
    for provider, state in rows.values_list("provider", "state"):
        found[provider].append(state == State.COMMITTED)
    return found


def scores(providers_: Iterable[Provider]) -> dict[UUID, int | None]:
    everybody = list(providers_)
    known = delivered(everybody)
    return {one.pk: score(known.get(one.pk, []), one.streak, one.standing == Standing.BANNED) for one in everybody}


# --- What everybody may know ------------------------------------------------------------------------------------------
def public(provider: Provider) -> dict[str, Any]:
    """What a provider's public page shows: nothing of its customers, nor of the person."""
    audits = Counter(Audit.objects.filter(assignment__provider=provider).values_list("state", flat=True))
    worked = Assignment.objects.filter(provider=provider, state=State.COMMITTED)
    return {
        "provider": provider,
        "score": scores([provider])[provider.pk],
        "passed": audits[Audit.State.PASSED],
        "failed": audits[Audit.State.FAILED],
        "not_shown": audits[Audit.State.UNPROVEN],
        "tickets": worked.values("round__run").distinct().count(),
        "earned": balance(f"provider:{provider.wallet}"),
        "attestation": attestations.current(provider),
        "history": provider.history.order_by("-id"),
        "bans": [_ban(event) for event in provider.history.filter(new=Standing.BANNED)],
    }


def _ban(event: StandingEvent) -> dict[str, Any]:
    case = Accusation.objects.filter(pk=event.case).first() if event.case else None
    tx = ChainEvent.objects.filter(name="Banned", case=event.case, args__provider=event.provider.wallet).first()
    return {"event": event, "hash": providers.evidence_hash(case) if case else "", "tx": tx.tx if tx else ""}


# --- For admins: the distribution -------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Bar:
    label: str
    count: int


STREAKS = (("none", 0, 0), ("1–9", 1, 9), ("10–49", 10, 49), ("50–99", 50, 99), ("100–999", 100, 999), ("1000 or more", 1000, math.inf))  # fmt: skip


def distribution() -> dict[str, list[Bar]]:
    """How many providers, of all with a deposit ever, have which standing, score and streak."""
    everybody = list(Provider.objects.exclude(wallet=None))
    standings = Counter(one.standing for one in everybody)
    found = scores(everybody)
    tens = Counter("none yet" if each is None else _ten(each) for each in found.values())
    names = ["none yet", *(_ten(first) for first in range(0, 100, 10))]
    return {
        "standing": [Bar(str(label), standings[value]) for value, label in Standing.choices],
        "score": [Bar(name, tens[name]) for name in names],
        "audits passed in a row": [
            Bar(label, sum(first <= one.streak <= last for one in everybody)) for label, first, last in STREAKS
        ],
    }


def _ten(score: int) -> str:
    first = min(score // 10 * 10, 90)
    return f"{first}–{first + 9}" if first < 90 else "90–100"


# --- For admins: what deters ------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Deterrence:
    """For a provider with so many audits passed in a row: how likely a piece of its work is looked at, and the deposit, in
    micro-DML and in gwei, that makes cheating in it lose more than it gains. None: no deposit does, or no rate is known."""

    streak: int
    probability: float
    deposit: int | None
    gwei: int | None


def needed(gain: int, probability: float) -> int | None:
    """gain × (1 - p) / p, rounded up: with probability 1 - p a cheat gains, with p it loses the deposit."""
    chance = Fraction(probability)
    return math.ceil(gain * (1 - chance) / chance) if chance else None


def gain_of(price: int) -> int:
    """The largest share in a ticket of this price that a provider can count on: an equal part of what is paid out."""
    return -(-(price - money.fee(price)) // settings.PROVIDERS_PER_TICKET)


def deterrence(gain: int, rate: Decimal) -> list[Deterrence]:
    """rate: what a DML is worth in the chain's coin; 0: not known."""
    found = []
    for streak in (0, 10, 50, 1000):
        chance = evidence.audit_probability(streak, settings.AUDIT_FIRST, settings.AUDIT_PERCENT / 100)
        deposit = needed(gain, chance)
        gwei = math.ceil(deposit * rate * 1000) if deposit is not None and rate else None
        found.append(Deterrence(streak, chance, deposit, gwei))
    return found


def prices() -> dict[str, int]:
    """Of which tickets the arithmetic is done: the dearest that can be ordered by size, and the dearest that was ever paid."""
    found = {"the largest file that is taken": money.price(settings.MAX_DATASET_BYTES)}
    unpaid = (Status.QUOTED, Status.EXPIRED)
    paid = Ticket.objects.exclude(status__in=unpaid).order_by("-price").values_list("price", flat=True).first()
    return found | ({"the dearest ticket paid so far": paid} if paid else {})
