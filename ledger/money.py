"""Prices, fees and splits, in integers: micro-DML (10^-6 DML) for the token, gwei for the native coin."""

from collections.abc import Mapping, Sequence
from decimal import Decimal

MICRO = 10**6
"""micro-DML in one DML."""

CENT = MICRO // 100
"""The step a price is rounded up to: 0.01 DML."""

BYTES_PER_CENT = 10**5
"""1 DML per 10 MB (10^7 bytes)."""

FEE_PERCENT = 2

MOST = 10**10 * MICRO
"""All the DML that there can ever be (DMLToken.MAX_SUPPLY)."""


def price(size: int) -> int:
    """Price in micro-DML of training on `size` bytes: 1 DML per 10 MB, rounded up to 0.01 DML."""
    if size <= 0:
        raise ValueError("an empty file has no price")
    return -(-size // BYTES_PER_CENT) * CENT


def fee(amount: int) -> int:
    """The platform's part of `amount`, rounded down: what cannot be divided goes to the providers."""
    return amount * FEE_PERCENT // 100


def split(amount: int, weights: Mapping[str, int]) -> dict[str, int]:
    """Split `amount` by weight with the largest-remainder method: the parts add up to `amount`, always.

    Weights are integers >= 0; all zero counts as all equal. Equal remainders go to the lower key first, so the result
    does not depend on the order of the mapping. Raises ValueError for no or negative weights.
    """
    if not weights or min(weights.values()) < 0:
        raise ValueError("weights must be given and not be negative")
    if not any(weights.values()):
        weights = dict.fromkeys(weights, 1)
    total = sum(weights.values())
    parts = {key: amount * weight // total for key, weight in weights.items()}
    by_remainder = sorted(weights, key=lambda key: (-(amount * weights[key] % total), key))
    for key in by_remainder[: amount - sum(parts.values())]:
        parts[key] += 1
    return parts


def shares(amount: int, weights: Mapping[str, int]) -> tuple[dict[str, int], int]:
    """The providers' shares of a price and the fee; shares + fee == amount."""
    platform = fee(amount)
    return split(amount - platform, weights), platform


def split_deposit(amount: int, honest: Sequence[str]) -> tuple[dict[str, int], int]:
    """A cheat's deposit in equal parts to the honest, and the rest (all, if nobody is honest) to the treasury."""
    if not honest:
        return {}, amount
    each = amount // len(honest)
    return dict.fromkeys(honest, each), amount - each * len(honest)


def dml(micro: int) -> str:
    """micro-DML as text in DML, at least two places: 130000 -> "0.13"."""
    return _decimal(micro, 6)


def coin(gwei: int) -> str:
    """gwei as text in the native coin: 1000000 -> "0.001"."""
    return _decimal(gwei, 9)


def text(units: int, currency: str) -> str:
    """An amount with its unit, as people read it: "0.13 DML", "0.001 coin"."""
    return f"{dml(units)} DML" if currency == "DML" else f"{coin(units)} coin"


def _decimal(units: int, places: int) -> str:
    text = f"{Decimal(units).scaleb(-places):f}"
    whole, _, rest = text.partition(".")
    return f"{whole}.{rest.rstrip('0').ljust(2, '0')}"
