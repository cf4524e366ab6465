"""What a receipt claims, computed again: each check returns what it found, in words, or raises Wrong.

Nothing is taken from the platform but bytes whose hashes the receipt names. Pure but for `Files`; TensorFlow is imported where
something is trained or measured.
"""

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, NoReturn
from zipfile import BadZipFile

import numpy as np

from dmlworker import (
    aggregation,
    comparison,
    compression,
    datasets,
    models,
    optimizers,
    rawmodel,
    rewards,
    task,
    trainer,
)
from dmlworker.aggregation.rounds import EXACT
from dmlworker.cache import blob_of
from dmlworker.datasets import arrays
from dmlworker.escrow import Payment
from dmlworker.files import Damaged, Files, Unavailable
from dmlworker.optimizers import SLOTS
from dmlworker.receipt import FEE_PERCENT, Audit, Receipt, Round, Shard, Update, split
from dmlworker.task import CLASSIFICATION
from dmlworker.trace import Trace, segments_of, steps_of_segment
from dmlworker.weights import mapped, pieces

Weights = list[np.ndarray]
Samples = tuple[np.ndarray, np.ndarray]
SAME = 1e-4
"""Of a round's change: rules that multiply matrices round otherwise on another machine."""
ROUNDING = 0.005
"""Of the hold-out: another processor may see so many samples otherwise, where the model is undecided."""


class Wrong(Exception):
    """What was found is not what the receipt says. The text says what."""


class NotKept(Exception):
    """There is nothing to check here, and that is no fault. The text says why."""


@contextmanager
def told() -> Iterator[None]:
    """Whatever keeps a check from being made is an answer, too: it was asked for, and is not shown to be right."""
    try:
        yield
    except (Damaged, Unavailable, ArithmeticError, ValueError) as error:  # the latter: of all readers here
        raise Wrong(str(error)) from error
    except OSError as error:
        raise Wrong(f"{error.filename or 'file'}: {error.strerror or error}") from error


def wrong(text: str) -> NoReturn:
    raise Wrong(text)


def must(condition: object, otherwise: str) -> None:
    if not condition:
        raise Wrong(otherwise)


def hash_of(weights: Weights) -> str:
    return blob_of(pieces(weights)).sha256


# --- What the receipt says of itself ----------------------------------------------------------------------------------
def rounds(receipt: Receipt) -> str:
    """Each round begins where the one before ended, and adds up every shard at most once, in order, at its size or half of it."""
    must(receipt.rounds, "the receipt has no rounds")
    numbers = [round_.number for round_ in receipt.rounds]
    must(numbers == list(range(1, len(numbers) + 1)), f"the rounds are numbered {numbers}")
    for before, after in zip(receipt.rounds, receipt.rounds[1:], strict=False):
        must(after.start == before.end, f"round {after.number} does not start where the one before ended")
    for round_ in receipt.rounds:
        _updates(receipt, round_)
    return f"{len(receipt.rounds)}, each starts where the one before ended"


def _updates(receipt: Receipt, round_: Round) -> None:
    order = [update.shard for update in round_.updates]
    must(order and order == sorted(set(order)), f"round {round_.number} adds up the shards {order}")
    must(order[0] >= 0 and order[-1] < len(receipt.shards), f"round {round_.number} has a shard that there is not")
    for update in round_.updates:
        size, where = receipt.shards[update.shard].samples, f"round {round_.number}, shard {update.shard}"
        must(update.weight in (size, 2 * size), f"{where}: of {size} samples, but weighed with {update.weight}")
        most = receipt.holdout.samples
        must(0 <= update.correct <= most, f"{where}: {update.correct} of {most} samples right")


def payouts(receipt: Receipt) -> str:
    """The price is split by what the platform measured, to the unit."""
    fee, measured = receipt.price * FEE_PERCENT // 100, merit(receipt)
    must(receipt.fee == fee, f"the fee of {receipt.price} is {fee}, not {receipt.fee}")
    for wallet, weight in receipt.merit.items():
        right = measured.get(wallet)
        must(right is not None and 0 <= weight == right, f"{wallet} has the weight {weight}, not {right}")
    shares = split(receipt.price - fee, receipt.merit)
    must(receipt.payouts == shares, "the payouts are not the price less the fee, split by merit")
    out = len(measured.keys() - receipt.merit.keys())
    left = f"; {out} left out, banned or gone by then" if out else ""
    return f"{len(receipt.payouts)} shares and the fee are the price, {receipt.price} micro-DML{left}"


def merit(receipt: Receipt) -> dict[str, int]:
    """Each provider's weight in the pay: the points of its updates by the ticket's reward scheme, over all rounds."""
    must(receipt.reward in rewards.SCHEMES, f"{receipt.reward} is no way to pay that this program knows")
    works = [_paid_by(receipt, round_, update) for round_ in receipt.rounds for update in round_.updates]
    return rewards.merit(receipt.reward, works)


def _paid_by(receipt: Receipt, round_: Round, update: Update) -> rewards.Work:
    return rewards.Work(
        provider=update.provider,
        round=round_.number,
        correct=update.correct,
        holdout=receipt.holdout.samples,
        steps=receipt.shards[update.shard].samples * receipt.training.epochs,
        f1=update.f1,
        seconds=update.seconds,
        contribution=update.contribution,
        joules=update.joules,
        gpu=update.gpu,
    )


# --- What the chain says ----------------------------------------------------------------------------------------------
def on_chain(receipt: Receipt, payment: Payment | None) -> Payment:
    """The escrow has settled this ticket with this receipt's root."""
    must(payment, "the escrow has not settled this ticket")
    assert payment
    must(payment.root == receipt.root, f"the chain has the root {payment.root}, this receipt {receipt.root}")
    return payment


def paid(receipt: Receipt, payment: Payment, in_standing: Callable[[str], bool]) -> str:
    """The payouts on the chain are the receipt's. Whom the escrow refused meanwhile has nothing, and the others have its share, as
    `ledger.actions.reconsider` does it."""
    given = (payment.price, payment.fee)
    must(
        given == (receipt.price, receipt.fee),
        f"price and fee are {given} on the chain, {(receipt.price, receipt.fee)} here",
    )
    due = {wallet: amount for wallet, amount in receipt.payouts.items() if amount}
    got = {wallet: payment.paid.get(wallet.lower(), 0) for wallet in due}
    missing = {wallet for wallet, amount in got.items() if not amount}
    if missing:
        due = split(receipt.price - receipt.fee, {wallet: due[wallet] for wallet in due if wallet not in missing})
    out = {wallet.lower() for wallet in receipt.merit} ^ {wallet.lower() for wallet in merit(receipt)}
    for wallet in missing | out:
        must(not in_standing(wallet), f"{wallet} was left out, but is in standing")
    must(len(payment.paid) == len(due), f"{len(payment.paid)} wallets were paid, not {len(due)}")
    for wallet, amount in due.items():
        must(got[wallet] == amount, f"{wallet} got {got[wallet]} micro-DML, not {amount}")
    left = f"; {len(missing)} left out, not in standing any more" if missing else ""
    return f"{len(due)} wallets got their shares, {sum(due.values())} micro-DML{left}"


# --- What the files say -----------------------------------------------------------------------------------------------
class Work:
    """The receipt with the files that it names."""

    def __init__(self, receipt: Receipt, files: Files) -> None:
        self.receipt, self._files = receipt, files

    def spec(self) -> trainer.Spec:
        return models.spec_from_bytes(self._files.path(self.receipt.spec).read_bytes())

    def weights(self, sha256: str) -> Weights:
        return mapped(self._files.path(sha256))

    def average(self, round_: Round) -> str:
        """The updates, each as it was committed, give the round's end weights, bit for bit."""
        start = self.weights(round_.start)
        updates = [(self.update(start, update), update.weight) for update in round_.updates]
        before = self.receipt.rounds[: self.receipt.rounds.index(round_)][-1:]
        state = [array for each in before if each.kept for array in self.weights(each.kept)]
        root, told = self.weights(round_.root) if round_.root else None, self.receipt.training
        how = aggregation.How(told.rule, told.byzantine, told.strategy)
        try:
            end, kept = aggregation.end_of(how, start, updates, state, round_.number, root)
        except (KeyError, ValueError) as error:
            raise Wrong(f"the updates cannot be averaged: {error}") from error
        if hash_of(end) == round_.end and (hash_of(kept) if kept else None) == round_.kept:
            return f"{len(updates)} updates, averaged anew, give its end weights bit for bit"
        must(told.rule not in EXACT, f"the average of the updates is {hash_of(end)[:12]}…, not {round_.end[:12]}…")
        far = comparison.compare(start, self.weights(round_.end), end).relative
        must(far <= SAME, f"the updates give other end weights, {far:.2g} of their change away")
        return f"{len(updates)} updates, averaged anew, give its end weights but for rounding ({far:.1g})"

    def update(self, start: Weights, update: Update) -> Weights:
        """The weights that an update stands for."""
        path, kind = self._files.path(update.update), self.receipt.training.compression
        weights = mapped(path) if kind == "none" else compression.decode(path.read_bytes(), kind, start)
        aggregation.check(weights, start)
        stands_for = update.update if kind == "none" else hash_of(weights)
        must(stands_for == update.weights, f"the update of shard {update.shard} stands for other weights")
        return weights

    def forget(self, round_: Round) -> None:
        self._files.drop(name for update in round_.updates for name in (update.update, update.weights))

    def model(self, path: Path) -> str:
        """The model in a file has the last round's weights, bit for bit."""
        found = mapped(path) if path.suffix == ".safetensors" else _loaded(self.spec(), path)
        ends = [round_.end for round_ in self.receipt.rounds]
        must([hash_of(found)] == ends[-1:], f"{path.name} has other weights than round {len(ends)} ended with")
        return f"{path.name} has the weights of the last round bit for bit"

    def accuracy(self, round_: Round, cut: "Cut") -> str:
        """What the platform measured of a round, by which it paid: measured again."""
        (x, y), start, spec, off = cut.holdout, self.weights(round_.start), self.spec(), 0
        for update in round_.updates:
            found = trainer.evaluate(spec, self.update(start, update), x, y).correct
            off = max(off, abs(found - update.correct))
        mean = trainer.evaluate(spec, self.weights(round_.end), x, y)
        off = max(off, round(abs(mean.score - round_.accuracy) * len(y)))
        must(
            off <= max(1, ROUNDING * len(y) * max(1.0, -mean.score)),
            f"measured again, {off} of {len(y)} samples are otherwise",
        )
        same = "the same" if not off else f"at most {off} samples off, by rounding"
        reached = task.shown(models.task(spec), mean.score)
        return f"round {round_.number}, {reached}: on {len(y)} samples, its updates and their mean are {same}"

    def replay(self, piece: "Piece", cut: "Cut") -> str:
        """A segment, done again from the weights that were committed, ends where the provider said."""
        update, hyper = piece.update, self.receipt.hyper(piece.round, piece.update)
        x, y = cut.shards[update.shard]
        trace = Trace.from_bytes(self._files.path(str(piece.audit.trace)).read_bytes())
        must(trace.root == update.trace == piece.audit.root, "the trace is not the one that the provider committed to")
        must(len(trace.segments) == segments_of(len(y), hyper), "the trace has another number of segments")
        must(trace.remembers == (SLOTS[hyper.optimizer] > 0), f"the trace is not one of {hyper.optimizer}")
        must(piece.segment in range(len(trace.segments)), f"there is no segment {piece.segment}")
        last = piece.segment + 1 == len(trace.segments)
        start = self.weights(piece.round.start)
        at = self.weights(trace.segments[piece.segment - 1].sha256) if piece.segment else start
        claimed = self.update(start, update) if last else self.weights(trace.segments[piece.segment].sha256)
        steps = steps_of_segment(piece.segment, len(y), hyper)
        done = trainer.replay(self.spec(), start, arrays.whole(x), y, hyper, at, steps, w=cut.weights[update.shard])
        like = [*start, *trainer.empty_state(self.spec(), hyper.optimizer)]
        for shown, bare in ((at, not piece.segment), (claimed, last)):
            aggregation.check(shown, start if bare else like)
            optimizers.check(hyper.optimizer, shown[len(start) :])
        far = comparison.compare_checkpoints(hyper.optimizer, len(start), at, claimed, done)
        said = trace.segments[piece.segment].change
        most = comparison.MAX_RELATIVE
        if last:
            most = comparison.allowed(hyper.compression, comparison.length(start, claimed), said)
        must(
            comparison.agrees(far, most),
            f"{piece}: {far.relative:.2g} away from what was committed, more than {most:.2g}",
        )
        return f"{piece}: done again, {far.relative:.1g} away from what was committed (rounding may be {most:.2g})"


def _loaded(spec: trainer.Spec, path: Path) -> Weights:
    if not path.is_file():
        raise Wrong(f"{path}: there is no such file")
    model = models.from_spec(spec)
    try:
        rawmodel.load_weights(model, path)
    except (ValueError, OSError, KeyError, TypeError, BadZipFile) as error:
        raise Wrong(f"{path.name} is no model of this kind: {str(error).splitlines()[0]:.200}") from error
    return [np.asarray(array, np.float32) for array in model.get_weights()]


# --- What the customer's own data says --------------------------------------------------------------------------------
@dataclass(frozen=True)
class Cut:
    """A customer's file, cut as the platform says that it cut it. weights: what each shard's samples count; None: 1."""

    holdout: Samples
    shards: tuple[tuple[arrays.Array, np.ndarray], ...]
    weights: tuple[np.ndarray | None, ...]


def cut(receipt: Receipt, path: Path) -> Cut:
    """The file at `path`, read and cut again with the receipt's seed: hold-out and shards have the hashes in the receipt."""
    with path.open("rb") as file:
        found = blob_of(iter(lambda: file.read(1 << 20), b"")).sha256
    was = f"{receipt.file.name}, {receipt.file.size} bytes"
    must(found == receipt.file.sha256, f"{path.name} is not the file that was uploaded ({was})")
    seed = receipt.training.seed
    # Before version 3, all learnt classes.
    old = datasets.Options(task=CLASSIFICATION)
    options = old if receipt.version < 3 else datasets.Options.from_text(receipt.file.options)
    whole = datasets.read(path, receipt.file.name, receipt.file.target or None, options)
    made = datasets.parts(whole, seed, options)
    holdout, parts = made.holdout, datasets.shards(made.train, len(receipt.shards), seed, options.sharding)
    for number, (part, said) in enumerate(zip([holdout, *parts], [receipt.holdout, *receipt.shards], strict=True)):
        same = said == Shard(blob_of(datasets.pieces(part.x, part.y, part.w)).sha256, len(part))
        must(same, f"{f'shard {number - 1}' if number else 'the hold-out'} is not cut from this file")
    return Cut(
        (arrays.whole(holdout.x), holdout.y), tuple((part.x, part.y) for part in parts), tuple(part.w for part in parts)
    )


# --- Segments ---------------------------------------------------------------------------------------------------------
class Piece(NamedTuple):
    """A segment, from 0, of an audited update."""

    round: Round
    update: Update
    audit: Audit
    segment: int

    @property
    def place(self) -> tuple[int, int, int]:
        return self.round.number, self.update.shard, self.segment

    def __str__(self) -> str:
        return f"round {self.round.number}, shard {self.update.shard}, segment {self.segment}"


def chosen(receipt: Receipt, number: int | None, shard: int | None, segment: int | None) -> Piece:
    """A segment to replay, by chance among those whose weights were kept. Raises NotKept, or Wrong if one was asked for."""
    found = [
        Piece(round_, update, audit, replay.segment)
        for round_ in receipt.rounds
        for audit in round_.audits
        for update in round_.updates
        for replay in audit.replays
        if audit.kept and audit.trace and (audit.shard, audit.update) == (update.shard, update.update)
    ]
    asked = (number, shard, segment)
    fits = [piece for piece in found if all(want in (None, at) for want, at in zip(asked, piece.place, strict=True))]
    if not fits:
        there = sorted({piece.place for piece in found})
        some = ", ".join(":".join(map(str, place)) for place in there[:12]) or "none"
        text = f"no such segment was audited and kept (round:shard:segment: {some})"
        raise NotKept(text) if asked == (None, None, None) else Wrong(text)
    return random.choice(fits)
