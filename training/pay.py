"""What a run's providers are paid by: the updates that count, as its ticket's reward scheme (dmlworker/rewards.py) sees them."""

from collections import defaultdict
from dataclasses import dataclass

from django.db.models import QuerySet

from dmlworker import rewards
from providers.models import Standing
from training.models import Assignment, Round, Run

LEAST_WATTS, MOST_WATTS = 1.0, 2000.0
"""Of a computer at work. A report beyond these is taken for none."""


def scheme_of(run: Run) -> rewards.Scheme:
    return rewards.SCHEMES[run.ticket.reward]


def counted(run: Run) -> QuerySet[Assignment]:
    """The updates that are in the model."""
    done = Assignment.objects.filter(round__run=run, round__state=Round.State.CLOSED, state=Assignment.State.COMMITTED)
    return done.filter(round__voided=None).select_related("provider", "shard", "round__run")


def work_of(update: Assignment) -> rewards.Work:
    run = update.round.run
    return rewards.Work(
        provider=update.provider.wallet or "",
        round=update.round.number,
        correct=update.correct or 0,
        holdout=run.facts["holdout_samples"],
        steps=update.shard.samples * run.epochs,
        f1=update.f1,
        seconds=seconds_of(update),
        contribution=update.contribution,
        joules=update.joules,
        gpu=update.gpu,
    )


@dataclass(frozen=True)
class Row:
    """What an update is worth: the scheme's factors, 0 to 1, in its order; its points by the formula, and those of its whole round."""

    update: Assignment
    factors: list[float]
    points: float
    of: float


def rows(run: Run) -> list[Row]:
    """A row for each update that counts, by round and shard."""
    scheme, rounds = scheme_of(run), defaultdict(list)
    for update in counted(run).order_by("round__number", "shard__number"):
        rounds[update.round.number].append(update)
    found = []
    for updates in rounds.values():
        works = list(map(work_of, updates))
        points, columns = (
            [each / scheme.unit for each in scheme.points(works)],
            [each.of(works) for each in scheme.factors],
        )
        factors = [list(map(float, row)) for row in zip(*columns, strict=True)]
        found += [Row(*row, sum(points)) for row in zip(updates, factors, points, strict=True)]
    return found


def seconds_of(update: Assignment) -> float | None:
    """From the offer of the lease to the commit, by the platform's clock: when the work began in between, nobody else can know."""
    return (update.committed - update.offered).total_seconds() if update.committed else None


def plausible(joules: float, seconds: float) -> float | None:
    """What a worker reported of its energy, or None: not known, or not possible."""
    return joules if LEAST_WATTS * seconds <= joules <= MOST_WATTS * seconds and joules else None


def merit(run: Run) -> dict[str, int]:
    """Each provider's weight in the pay: the points of its updates, summed over the rounds; who worked in half of the rounds
    has about half of the weight.

    Who was banned over another ticket meanwhile, or left, is not paid: the escrow would refuse. Their work still counts where
    others are compared with it.
    """
    updates = list(counted(run))
    out = {update.provider.wallet for update in updates if update.provider.standing in (Standing.BANNED, Standing.LEFT)}
    found = rewards.merit(run.ticket.reward, map(work_of, updates))
    return {wallet: points for wallet, points in sorted(found.items()) if wallet not in out}
