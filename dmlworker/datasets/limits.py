"""How much is held out to measure with."""

HOLDOUT = 0.2
"""Of the samples."""
MAX_HELD = 200_000
"""Samples that are held out at most: an accuracy is known to 0.2 points then, and the platform's memory does not grow with the file."""


def held(n: int, holdout: float = HOLDOUT) -> int:
    """Of n samples."""
    return min(round(n * holdout), MAX_HELD)
