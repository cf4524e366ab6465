"""The step length of each round, from the one that was ordered. Standard library only."""

import math
from collections.abc import Callable

CONSTANT = "constant"
DIGITS = 9
"""Of a rate, that count: another machine's cosine may differ in the last of sixteen, and float32 has seven."""

_PARTS: dict[str, Callable[[int, int], float]] = {
    CONSTANT: lambda before, rounds: 1.0,
    "cosine": lambda before, rounds: (1 + math.cos(math.pi * before / rounds)) / 2,
    "step": lambda before, rounds: 0.5 ** ((2 * before >= rounds) + (4 * before >= 3 * rounds)),
    "warm-up": lambda before, rounds: min(1.0, (before + 1) / (rounds // 5 + 1)),
}
SCHEDULES = tuple(_PARTS)


def rate(schedule: str, ordered: float, number: int, rounds: int) -> float:
    """The learning rate of round `number`, from 1, of as many as were ordered, whether or not training ends earlier; above 0.

    cosine: falls to almost nothing, along half a wave; step: halved at one half, and again at three quarters; warm-up: grows over
    the first fifth. Raises ValueError for another schedule.
    """
    if schedule not in _PARTS:
        raise ValueError(f"{schedule:.20} is no schedule of learning rates.")
    part = _PARTS[schedule](number - 1, rounds)
    return ordered if part == 1 else float(f"{ordered * part:.{DIGITS}g}")
