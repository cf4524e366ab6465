"""How a price is shared among those who trained: reward schemes, each under a name with its version. Standard library only.

A ticket keeps the name it was ordered with, and a version that was ever used is never changed: another formula is another version
(tests pin the numbers). Fractions are exact, so that platform, customer and provider count the same points on any machine.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from statistics import median
from sys import float_info

MILLION = 10**6
HALF = Fraction(1, 2)
DEFAULT = "accuracy-1"
MOST_GAIN = 1e6
"""Of the loss, which has no bound of its own: beyond it, it counts as if it were this, infinity too."""


@dataclass(frozen=True)
class Work:
    """An update that counts, as the platform knows it.

    provider: whom it is paid to. correct: hold-out samples that it alone gets right, of `holdout`; where a sample is not simply right or
    wrong, as many of them as the task's score is of 1 (whole numbers, so that the pay is exact): R² of a regression, 0 if it is below;
    macro F1 of several labels. Neither is had by a constant answer: the mean has an R² of 0, and who always says "none of them", which
    is right of most labels, has an F1 of 0. f1: macro, 0..1; a regression has none, which is 0 for all. steps: samples
    of its shard times epochs. seconds: from the offer to the commit. contribution: by how much the round's mean has a
    lower loss on the hold-out with it than without. joules, gpu (share of the time, 0..1): as the worker reports them. None: not
    known."""

    provider: str
    round: int
    correct: int
    holdout: int
    steps: int
    f1: float | None = None
    seconds: float | None = None
    contribution: float | None = None
    joules: float | None = None
    gpu: float | None = None


@dataclass(frozen=True)
class Factor:
    """A part of a scheme: `of` gives 0..1 for each of a round's works. `reported`: by the worker itself, so its weight is small."""

    name: str
    weight: int
    says: str
    of: Callable[[Sequence[Work]], list[Fraction]]
    reported: bool = False


@dataclass(frozen=True)
class Scheme:
    """`points` of each of a round's works; what is paid is split by their sums. `unit`: how many of them make one point of the
    formula."""

    name: str
    title: str
    says: str
    factors: tuple[Factor, ...]
    formula: str
    points: Callable[[Sequence[Work]], list[int]]
    unit: int = 1

    @property
    def leaves_one_out(self) -> bool:
        """Whether the contributions have to be measured, an evaluation for each update."""
        return any(factor.name == "contribution" for factor in self.factors)


def points(name: str, works: Iterable[Work]) -> list[tuple[Work, int]]:
    """Each work with its points, in whole numbers, by the scheme of this name."""
    rounds: dict[int, list[Work]] = defaultdict(list)
    for work in works:
        rounds[work.round].append(work)
    scheme = SCHEMES[name]
    return [pair for each in rounds.values() for pair in zip(each, scheme.points(each), strict=True)]


def merit(name: str, works: Iterable[Work]) -> dict[str, int]:
    """Each provider's weight in the pay: the points of its works, summed over the rounds."""
    found: dict[str, int] = defaultdict(int)
    for work, each in points(name, works):
        found[work.provider] += each
    return dict(found)


# --- The factors ------------------------------------------------------------------------------------------------------
def _above(value: float | None, most: float = 1.0) -> Fraction:
    """0 to `most`; what is not known, or is no number, is 0."""
    return Fraction(min(value, most)) if value is not None and value > 0 else Fraction(0)


def _accuracy(works: Sequence[Work]) -> list[Fraction]:
    return [Fraction(min(work.correct, work.holdout), work.holdout) for work in works]


def _f1(works: Sequence[Work]) -> list[Fraction]:
    return [_above(work.f1) for work in works]


def _steps(works: Sequence[Work]) -> list[Fraction]:
    return [Fraction(work.steps, max(max(other.steps for other in works), 1)) for work in works]


def _contribution(works: Sequence[Work]) -> list[Fraction]:
    """Of the round's best."""
    gained = [_above(work.contribution, MOST_GAIN) for work in works]
    best = max(gained)
    return [gain / best if best else gain for gain in gained]


def _against_median(spent: Sequence[Fraction | None]) -> list[Fraction]:
    """1 for the median or less of what is known, else in inverse proportion; half for what is not known."""
    known = [each for each in spent if each is not None]
    middle = median(known) if known else Fraction(0)
    return [HALF if each is None else min(Fraction(1), middle / each) for each in spent]


def _per_step(work: Work, spent: float | None) -> Fraction | None:
    return _above(spent, float_info.max) / max(work.steps, 1) or None


def _duration(works: Sequence[Work]) -> list[Fraction]:
    return _against_median([_per_step(work, work.seconds) for work in works])


def _energy(works: Sequence[Work]) -> list[Fraction]:
    return _against_median([_per_step(work, work.joules) for work in works])


def _gpu(works: Sequence[Work]) -> list[Fraction]:
    return [_above(work.gpu) for work in works]


# --- The schemes ------------------------------------------------------------------------------------------------------
def _correct(works: Sequence[Work]) -> list[int]:
    return [work.correct for work in works]


def _weighted(factors: Sequence[Factor]) -> Callable[[Sequence[Work]], list[int]]:
    """Millionths of the weighted mean of the factors, each rounded to millionths before."""

    def points(works: Sequence[Work]) -> list[int]:
        columns = [[factor.weight * int(MILLION * each + HALF) for each in factor.of(works)] for factor in factors]
        return [sum(row) // 100 for row in zip(*columns, strict=True)]

    return points


def _written(factors: Sequence[Factor]) -> str:
    return " + ".join(f"{factor.weight} × {factor.name}" for factor in factors)


_SHARE = "Share of a provider = its points in all rounds / everybody's points, of 98 % of the price."

_OTHERS = "of a number, R² from 0 to 1; of several labels, macro F1"

_BY_ACCURACY = (
    Factor(
        "accuracy",
        100,
        f"part of the hold-out that the update alone gets right ({_OTHERS}), measured by the platform",
        _accuracy,
    ),
)
_BY_MERIT = (
    Factor("accuracy", 40, f"part of the hold-out that the update alone gets right ({_OTHERS})", _accuracy),
    Factor("F1", 15, "mean of the classes' or labels' F1 on the hold-out: rare ones count as much as frequent ones; 0 for all where the model learns a number", _f1),
    Factor("work", 20, "samples of the part × local epochs, against the largest part of the round", _steps),
    Factor("contribution", 15, "by how much the round's mean is better with the update than without, against the round's best", _contribution),
    Factor("duration", 5, "time for a sample from the offer on, by the platform's clock: 1 up to the round's median, then median / own", _duration),
    Factor("energy", 3, "energy for a sample, as the worker reports it: 1 up to the round's median, then median / own; ½ if it is not known", _energy, True),
    Factor("GPU", 2, "share of the time that a GPU was at work, as the worker reports it; 0 if it is not known", _gpu, True),
)  # fmt: skip

SCHEMES = {
    scheme.name: scheme
    for scheme in (
        Scheme(
            "accuracy-1",
            "By accuracy",
            "Who trained the better update gets more. Simple, and measured by the platform alone.",
            _BY_ACCURACY,
            f"Points of an update = samples of the hold-out that it alone gets right ({_OTHERS}, times the samples). "
            + _SHARE,
            _correct,
        ),
        Scheme(
            "merit-1",
            "By merit",
            "Accuracy counts most; so do rare classes, the amount of work, what the model would lack without the update, and a little "
            "how fast and with how much energy it was made.",
            _BY_MERIT,
            f"Points of an update = {_written(_BY_MERIT)}, each from 0 to 1. " + _SHARE,
            _weighted(_BY_MERIT),
            MILLION // 100,
        ),
    )
}
OFFERED = ("accuracy-1", "merit-1")
"""The newest version of each: what a customer may choose."""
