"""A provider's score, for people to read: 0 to 100. It decides nothing; audits and pay have rules of their own."""

from collections.abc import Sequence
from fractions import Fraction

LATEST = 100
"""Pieces of work that are looked at, the newest."""
HALVED_EVERY = 20
"""A piece counts half as much as one that is so many pieces newer."""
RELIABLE, TRUSTED = 80, 20
"""The most that delivering, and passing audits, is worth."""
MIDDLE = 10
"""Audits passed in a row that are worth half of TRUSTED."""

FORMULA = (
    f"Score = {RELIABLE} × the part of the work taken that was delivered and, where an audit asked, shown (the latest {LATEST} pieces; "
    f"one counts half as much as one {HALVED_EVERY} pieces newer) + {TRUSTED} × s / (s + {MIDDLE}), where s is the number of audits passed "
    "in a row. A ban makes it 0."
)


def score(delivered: Sequence[bool], streak: int, banned: bool = False) -> int | None:
    """delivered: whether each piece of work that was taken was, the newest first. None: nothing is known yet."""
    if banned:
        return 0
    if not delivered:
        return None
    weights = [Fraction(1, 2 ** (age // HALVED_EVERY)) for age in range(min(len(delivered), LATEST))]
    reliable = sum(weight for weight, good in zip(weights, delivered, strict=False) if good) / sum(weights)
    return int(RELIABLE * reliable + TRUSTED * Fraction(streak, streak + MIDDLE))
