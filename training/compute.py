"""The arithmetic of the platform: cutting data, measuring, replaying, averaging. No transaction is open in here.

TensorFlow is imported inside the functions: jobs call them, the web process never does. One at a time per process:
TensorFlow uses all cores by itself, and memory stays at one model.
"""

import json
import math
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass, replace
from functools import lru_cache, partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any
from uuid import UUID

import numpy as np

from dmlworker import (
    aggregation,
    bounds,
    comparison,
    compression,
    datasets,
    exports,
    flops,
    metrics,
    optimizers,
    rewards,
    task,
)
from dmlworker.cache import blob_of
from dmlworker.comparison import Distance
from dmlworker.datasets import arrays, limits
from dmlworker.optimizers import SLOTS
from dmlworker.protocol import Hyper, order_seed
from dmlworker.trace import Trace, segments_of, steps_of_segment
from dmlworker.weights import MalformedUpdate, pack, pieces, unpack
from ledger import pricing
from tickets.models import OwnModel, Search, Ticket
from training import audits, delivery, evidence, measures, pay, ratesearch, raw, store
from training.actions import Prepared, clip, hyper_of
from training.models import Assignment, Audit, Blob, Replay, Round, Run

if TYPE_CHECKING:
    from dmlworker import trainer

Weights = list[np.ndarray]
Spec = dict[str, Any]
_one_at_a_time, _one_export_at_a_time = threading.Lock(), threading.Lock()
COMPARED = 8
"""Samples of the hold-out on which another format has to answer as the model does."""
RUNS_KEPT = 8
"""Runs whose panels stay in memory: some hundred samples each."""
OUTPUTS = 20_000_000
"""Of a model on the hold-out, that are measured together: 80 MB, and some times as much while it is done."""
READ = 0.6
"""Of the time that preparing takes, about, in which the file is read."""
EXAMPLE = 500
"""Characters of a text in the row that the page shows."""
OTHER_KERNELS = os.environ | {"TF_ENABLE_ONEDNN_OPTS": "0"}
"""Other arithmetic for the second replay: what rounding alone can do shows between the two."""


class Busy(Exception):
    """This process makes another model's formats."""


def _silent(done: float) -> None:
    pass


def prepare(ticket: Ticket, path: Path, parts: int, seed: int, told: Callable[[float], None] = _silent) -> Prepared:
    """Read the customer's file, keep a hold-out back, cut the rest into shards, choose the model. `told`: how much of it is done.

    Raises DatasetError, whose text is for the customer.
    """
    from dmlworker import models, ownmodel, trainer, zoo

    options = datasets.Options.of(ticket)
    with datasets.heard(lambda done: told(READ * done)):
        data = datasets.read(path, ticket.dataset.name, ticket.target or None, options)
    found = datasets.parts(data, seed, options)
    train, holdout, encoder = found.train, found.holdout, found.encoder
    with _one_at_a_time:
        tokens = encoder.tokens if encoder else 0
        # Of windows, for each feature: its values in all rows of all windows.
        rows = train.x.reshape(-1, train.x.shape[-1]) if options.window else train.x
        fitted = None if tokens else models.statistics(rows, encoder.marks if encoder else None)
        target = models.target_statistics(train.y) if data.task == task.REGRESSION else None
        outputs = len(data.classes) or 1
        shape, head = train.x.shape[1:], {"task": data.task, "target": target}
        own = OwnModel.objects.filter(ticket=ticket).first()

        def made(times: float = 1.0) -> Spec:
            if own:
                return ownmodel.fitted(models.spec_from_bytes(own.spec.encode()), shape, outputs, fitted, **head)
            sample = zoo.Sample(shape, tokens, options.window > 0)
            kind = zoo.choose(sample) if ticket.model_kind == "auto" else ticket.model_kind
            return models.spec(models.build(shape, outputs, kind, fitted, tokens=tokens, times=times, **head))

        try:
            spec = made()
        except models.ModelRefused as error:
            raise datasets.DatasetError(str(error)) from error
        _check_quoted(ticket, len(data), spec)
        start, search = _start(own, trainer.initial_weights(spec, seed)), None
        searched = ticket.search == Search.ON
        others = dict(_others(ticket, len(data), made, seed)) if searched and not own else {}
    if searched:
        search = _search(ticket, data.task, (spec, start), train, parts, seed, others)
        spec, start = others.get(search.width, (spec, start))
    shards, cut = [], datasets.shards(train, parts, seed, options.sharding)
    _check_fits(cut)
    for number, part in enumerate(cut):
        shards.append(
            (_stored(part, lambda done, before=number: told(READ + (1 - READ) * (before + done) / parts)), len(part))
        )
    return Prepared(
        spec=store.put(models.spec_bytes(spec)),
        start=store.put(pack(start)),
        holdout=store.put_pieces(datasets.pieces(holdout.x, holdout.y)),
        shards=shards,
        classes=list(data.classes),
        facts=_facts(data, train, holdout) | _raw_facts(found) | ({"window": options.window} if options.window else {}),
        segment_steps=evidence.segment_steps(spec),
        task=data.task,
        search=search,
    )


def _check_fits(parts: list[datasets.Dataset]) -> None:
    """Raises DatasetError if a part is larger than what workers take: nobody would train it."""
    largest = max(part.x.nbytes + part.y.nbytes + 4 * len(part) for part in parts)
    if largest > bounds.MAX_SHARD:
        raise datasets.DatasetError(
            f"a provider's part of it would have {largest / 1e9:.1f} GB, and a worker takes {bounds.MAX_SHARD / 1e9:g}. Leave out columns, "
            "above all those with many values, each of which becomes one of its own"
        )


def _others(
    ticket: Ticket, samples: int, made: Callable[[float], Spec], seed: int
) -> Iterator[tuple[float, ratesearch.Model]]:
    """The platform's own model at other widths; none that costs more than was paid, and none of a model that has no width."""
    from dmlworker import models, trainer, zoo

    usual = made(1.0)
    for times in zoo.WIDTHS:
        with suppress(models.ModelRefused, datasets.DatasetError):
            spec = made(times)
            _check_quoted(ticket, samples, spec)
            if spec != usual:
                yield times, (spec, trainer.initial_weights(spec, seed))


def _stored(part: datasets.Dataset, told: Callable[[float], None]) -> Blob:
    """told: how much of it is."""
    whole, stored = part.x.nbytes + part.y.nbytes, 0

    def pieces() -> Iterator[bytes]:
        nonlocal stored
        for piece in datasets.pieces(part.x, part.y, part.w):
            yield piece
            stored += len(piece)
            told(min(1.0, stored / whole))

    return store.put_pieces(pieces())


def _search(
    ticket: Ticket,
    learnt: str,
    model: ratesearch.Model,
    train: datasets.Dataset,
    parts: int,
    seed: int,
    others: Mapping[float, ratesearch.Model],
) -> ratesearch.Found:
    passes, most = ticket.rounds * ticket.epochs, clip(ticket, learnt)
    job = ratesearch.Training(ticket.learning_rate, ticket.batch_size, passes, parts, most, seed, ticket.optimizer)
    return ratesearch.search(model, train, job, _one_at_a_time, others)


def _start(own: OwnModel | None, drawn: Weights) -> Weights:
    """What training starts with: the weights that came with the customer's own model, or those drawn."""
    if own is None or not own.file:
        return drawn
    with own.file.open("rb") as file:
        given = unpack(file.read())
    try:
        aggregation.check(given, drawn)
    except MalformedUpdate as error:
        raise datasets.DatasetError("The start weights do not fit the model.") from error
    return given


def _check_quoted(ticket: Ticket, samples: int, spec: Mapping[str, object]) -> None:
    """What the customer said of the file made the price; what is computed must not cost more. Fewer is fine. Raises DatasetError."""
    if not pricing.SCHEMES[ticket.price_scheme].computes:
        return
    try:
        real = replace(ticket.priced, samples=samples, flops=flops.of(spec))
    except flops.Unknown as error:
        raise datasets.DatasetError(str(error)) from error
    if pricing.price(ticket.price_scheme, real) > ticket.price:
        quoted = f"{ticket.samples:,} samples with {ticket.flops:,} operations for each"
        raise datasets.DatasetError(
            f"it has {samples:,} samples and its model takes {real.flops:,} operations for each, but {quoted} were quoted and paid for. "
            "Order again, with what is in the file."
        )


def _raw_facts(found: datasets.Parts) -> dict[str, object]:
    """Of a table with more than plain numbers: how it became numbers, and a row as it was, or all rows of a window."""
    if found.encoder is None:
        return {}
    rows = [[cell[:EXAMPLE] for cell in row] for row in found.example]
    return {
        "encoder": found.encoder.json(),
        "example": rows if found.encoder.steps else rows[0],
    }


def _facts(data: datasets.Dataset, train: datasets.Dataset, holdout: datasets.Dataset) -> dict[str, object]:
    return {
        "kind": data.kind,
        "samples": len(data.y),
        "training_samples": len(train.y),
        "holdout_samples": len(holdout.y),
        "holdout_most": limits.MAX_HELD,
        "sample_shape": list(train.x.shape[1:]),
        "features": list(train.features),
        "target": data.target,
        "left_out": [f"{name} ({why})" for name, why in data.left_out],
        "on_both_sides": datasets.on_both_sides(train, holdout),
        "example": holdout.x[0].tolist() if holdout.features or holdout.x[0].ndim == 1 else None,
    }


def spec_of(run: Run) -> dict[str, object]:
    return dict(json.loads(store.get(run.spec_id)))


def weights_of(sha256: str) -> Weights:
    return unpack(store.get(sha256))


def receive(assignment: Assignment) -> str:
    """The hash of the weights that an update stands for. Raises MalformedUpdate (names, shapes, types, not finite)."""
    kind, update = assignment.round.run.compression, str(assignment.update_id)
    with store.weights(assignment.round.start_id) as start:
        if kind == "none":
            with store.weights(update) as weights:
                aggregation.check(weights, start)
            return update
        decoded = compression.decode(store.get(update), kind, start)
        aggregation.check(decoded, start)
        return store.put_weights(decoded).sha256


def measure(round_: Round, updates: list[Assignment]) -> tuple[float, float | None]:
    """(score, loss) of a round's mean on the hold-out; the loss is None if it is not finite. Write down what its provider is
    paid by: how each update alone does and, if the reward needs it, what the mean would lack without it; and how the mean does in more
    than a number."""
    with store.samples(round_.run.holdout_id) as (x, y):
        stored = [str(update.weights_id) for update in updates]
        for update, found in zip(updates, _evaluate(round_.run, stored, x, y), strict=True):
            update.correct, update.f1, update.score = found.correct, found.f1, found.score
        [mean] = _evaluate(round_.run, [str(round_.end_id)], x, y)
        kept = measures.of(round_.run.ticket.task, y, mean.answers, len(round_.run.classes))
    if pay.scheme_of(round_.run).leaves_one_out:
        _leave_one_out(round_, updates)
    Assignment.objects.bulk_update(updates, ["correct", "f1", "score", "contribution"])
    Round.objects.filter(pk=round_.pk).update(by_class=kept)
    return mean.score, mean.loss if math.isfinite(mean.loss) else None


def _leave_one_out(round_: Round, updates: list[Assignment]) -> None:
    """Each update's contribution: how much higher the loss of the others' weighted mean is than everybody's. It is the plain
    mean whatever the rule and the server's optimizer, which would say as much of themselves. An evaluation for each update."""
    from dmlworker import trainer

    spec = spec_of(round_.run)

    def loss(parts: list[tuple[Weights, int]]) -> float:
        with _one_at_a_time:
            found = trainer.evaluate(spec, aggregation.fedavg(parts) if parts else start, x, y).loss
        return min(found, rewards.MOST_GAIN)

    with ExitStack() as open_:
        x, y = open_.enter_context(store.samples(round_.run.holdout_id))
        start = open_.enter_context(store.weights(round_.start_id))
        local = [open_.enter_context(store.weights(str(update.weights_id))) for update in updates]
        weighted = [(weights, update.weight or 1) for weights, update in zip(local, updates, strict=True)]
        whole = loss(weighted)
        for index, update in enumerate(updates):
            update.contribution = loss(weighted[:index] + weighted[index + 1 :]) - whole


def _evaluate(run: Run, stored: list[str], x: np.ndarray, y: np.ndarray) -> Iterator["trainer.Evaluation"]:
    """How each of the stored weights does on x (n, ...), y (n,)."""
    from dmlworker import trainer

    spec = spec_of(run)
    for sha256 in stored:
        with _one_at_a_time, store.weights(sha256) as weights:
            yield trainer.evaluate(spec, weights, x, y)


def look(update: Assignment) -> None:
    """Keep how an update does on the panel, for the screen. It is done while others still train, and takes as long as some steps do."""
    from dmlworker import trainer

    run = update.round.run
    spec, (held, *parts) = spec_of(run), _panel(run.pk)
    with _one_at_a_time, store.weights(str(update.weights_id)) as weights:
        score = trainer.evaluate(spec, weights, *held).score
        losses = [min(trainer.evaluate(spec, weights, *part).loss, rewards.MOST_GAIN) for part in parts]
    update.look = {"score": score, "losses": losses}
    update.save(update_fields=["look"])


@lru_cache(maxsize=RUNS_KEPT)
def _panel(run: UUID) -> list[tuple[arrays.Array, np.ndarray]]:
    """Some samples of the hold-out, then of each shard; the same ones for the whole run."""
    found = Run.objects.get(pk=run)
    shards = [shard.blob_id for shard in found.shards.all()]
    each = evidence.panel_share(len(shards))
    parts = [(found.holdout_id, evidence.PANEL_SAMPLES), *((shard, each) for shard in shards)]
    return [_few(sha256, most) for sha256, most in parts]


def _few(sha256: str, most: int) -> tuple[arrays.Array, np.ndarray]:
    """Of a stored hold-out or shard; what of it is large stays on the disk."""
    with store.samples(sha256) as (x, y):
        return datasets.few(x, y, most)


def _looks(updates: list[Assignment]) -> list[evidence.Look]:
    """Empty where work is not looked at (AUDITS)."""
    return [
        evidence.Look(update.shard.number, tuple(update.look["losses"]), update.look["score"])
        for update in updates
        if update.look
    ]


def _suspect(updates: list[Assignment], found: dict[int, str]) -> None:
    for index, reason in found.items():
        known = updates[index].suspicion.split("; ") if updates[index].suspicion else []
        updates[index].suspicion = "; ".join(dict.fromkeys([*known, *reason.split("; ")]))
    Assignment.objects.bulk_update([updates[index] for index in found], ["suspicion"])


def root_update(round_: Round) -> None:
    """Keep the platform's own update with a round."""
    Round.objects.filter(pk=round_.pk).update(root=store.put_weights(_own_update(round_)))


def _own_update(round_: Round) -> Weights:
    """Trained on a part of the hold-out as workers train on their shards, FedProx apart; its order is that of a shard -1."""
    from dmlworker import trainer

    run = round_.run
    x, y = _few(run.holdout_id, evidence.ROOT_SAMPLES)
    seed = order_seed(run.seed, round_.number, -1)
    hyper = Hyper(run.epochs, run.batch_size, round_.learning_rate, seed, clip=run.clip, optimizer=run.optimizer)
    with _one_at_a_time:
        return trainer.train(spec_of(run), weights_of(round_.start_id), x, y, hyper)


def _weigh(updates: list[Assignment], weights: list[int]) -> None:
    """Write down how much each update counts in its round's average."""
    for update, weight in zip(updates, weights, strict=True):
        update.weight = weight
    Assignment.objects.bulk_update(updates, ["weight"])


def average(round_: Round, updates: list[Assignment]) -> tuple[Blob, Blob | None]:
    """The round's end weights, and what the server's optimizer keeps for the next round, if anything.

    In shard order, weighted by the shard sizes that the platform set; what looks odd counts half. In memory is the result alone.
    """
    run = round_.run
    before = Round.objects.filter(run=run, number=round_.number - 1).first()
    kept = weights_of(before.kept_id) if before and before.kept_id else []
    with ExitStack() as open_:
        start, local, root = _files(open_, round_, updates)
        odd = evidence.suspects(start, local, root, _looks(updates), run.ticket.task)
        _suspect(updates, odd)
        _weigh(updates, evidence.counts([update.shard.samples for update in updates], odd))
        how = aggregation.How(run.rule, run.byzantine, run.strategy)
        end, keep = aggregation.end_of(how, start, _weighted(local, updates), kept, round_.number, root)
    return store.put_weights(end), store.put_weights(keep) if keep else None


def _files(open_: ExitStack, round_: Round, updates: list[Assignment]) -> tuple[Weights, list[Weights], Weights | None]:
    """(start weights, what each update stands for, the platform's own update if it is kept), read from their files as needed."""
    start = open_.enter_context(store.weights(round_.start_id))
    local = [open_.enter_context(store.weights(str(update.weights_id))) for update in updates]
    return start, local, open_.enter_context(store.weights(round_.root_id)) if round_.root_id else None


def _weighted(local: list[Weights], updates: list[Assignment]) -> list[tuple[Weights, int]]:
    return [(weights, update.weight or 0) for weights, update in zip(local, updates, strict=True)]


# --- Audits -----------------------------------------------------------------------------------------------------------
class NotShown(Exception):
    """What a worker showed is not what it committed to, or is not all there. The text says what."""


@dataclass(frozen=True)
class Work:
    """What an audited update was made of, the data as a file, and the trace that its worker showed. like: a checkpoint's arrays, as the
    round begins."""

    assignment: Assignment
    hyper: Hyper
    trace: Trace
    files: dict[str, bytes]
    shard: Path
    like: Weights

    @classmethod
    def of(cls, audit: Audit, shard: Path) -> "Work":
        """Raises NotShown if the trace is not the one that was committed to."""
        from dmlworker import trainer

        work = audit.assignment
        hyper = hyper_of(work)
        try:
            trace = Trace.from_bytes(store.get(str(audit.trace_id)))
        except MalformedUpdate as error:
            raise NotShown(str(error)) from error
        told = len(trace.segments), trace.remembers
        if trace.root != work.root or told != (segments_of(work.shard.samples, hyper), SLOTS[hyper.optimizer] > 0):
            raise NotShown("the trace is not the one that was committed to")
        run = work.round.run
        names = {"spec": run.spec_id, "start": work.round.start_id}
        files = {name: store.get(sha256) for name, sha256 in names.items()}
        state = trainer.empty_state(json.loads(files["spec"]), hyper.optimizer)
        return cls(work, hyper, trace, files, shard, [*unpack(files["start"]), *state])

    @property
    def weights(self) -> int:
        """So many arrays of a checkpoint are weights; those behind them are what the optimizer remembers."""
        return len(self.like) - SLOTS[self.hyper.optimizer]

    def start(self, segment: int) -> str:
        """The hash of the checkpoint that a segment began with. The first one has no choice."""
        return self.trace.segments[segment - 1].sha256 if segment else self.assignment.round.start_id

    def claimed(self, segment: int) -> str:
        """The hash of the checkpoint that a segment ended with. The last one's is what went into the average."""
        last = segment + 1 == len(self.trace.segments)
        return str(self.assignment.weights_id) if last else self.trace.segments[segment].sha256


def audit(found: Audit) -> tuple[str, str]:
    """(state, note): what doing some segments of an update again says of it. Each replay is written down.

    A segment that the first replay contradicts is done again in another process with other kernels, and from weights that are off
    by their last bit. Where these are themselves far apart, the job amplifies rounding, and that segment proves nothing.
    """
    try:
        with store.local(found.assignment.shard.blob_id) as shard:
            return _judged(found, Work.of(found, shard))
    except NotShown as error:
        return Audit.State.UNPROVEN, str(error)


def _judged(found: Audit, work: Work) -> tuple[str, str]:
    verdict: tuple[str, str] = Audit.State.PASSED, ""
    for segment in work.trace.asked(found.drawn):
        state, note = _look(found, work, segment)
        if state == Audit.State.FAILED:
            return state, note
        if state == Audit.State.INCONCLUSIVE:
            verdict = state, note
    return verdict


def _look(found: Audit, work: Work, segment: int) -> tuple[str, str]:
    start, claimed = _begun(work, segment), _ended(work, segment)
    allowed = _allowed(work, segment, start, claimed)
    compare = partial(comparison.compare_checkpoints, work.hyper.optimizer, work.weights, start)
    first = _replay_here(work, segment, start)
    far = [compare(claimed, first)]
    if _replayed(found, work, segment, 1, first, far[0], allowed):
        return Audit.State.PASSED, ""
    second, *nudged = _replay_elsewhere(work, segment, start)
    far.append(compare(claimed, second))
    agrees = _replayed(found, work, segment, 2, second, far[1], allowed)
    apart = max(compare(first, other).relative for other in (second, *nudged))
    found.replays.filter(segment=segment).update(apart=apart)
    if agrees:
        return Audit.State.PASSED, ""
    if evidence.proven([each.relative for each in far], apart):
        return Audit.State.FAILED, f"segment {segment}"
    return Audit.State.INCONCLUSIVE, f"honest replays of segment {segment} are {apart:.2g} apart"


def _replayed(
    found: Audit, work: Work, segment: int, number: int, result: Weights, far: Distance, allowed: float
) -> bool:
    """Write a replay down; a job that runs again writes the same. Whether it agrees with the claim; if not, its result is kept."""
    told = {"start": work.start(segment), "claimed": work.claimed(segment), "allowed": allowed}
    agrees = comparison.agrees(far, allowed)
    ended = blob_of(pieces(result)).sha256 if agrees else store.put_weights(result).sha256
    told |= {"relative": far.relative, "cosine": far.cosine, "agrees": agrees, "result": ended}
    Replay.objects.update_or_create(audit=found, segment=segment, number=number, defaults=told)
    return agrees


def _begun(work: Work, segment: int) -> Weights:
    """What a segment began with; the first one with the round's weights, and nothing to remember."""
    return _shown(work, work.start(segment), remembers=segment > 0)


def _ended(work: Work, segment: int) -> Weights:
    """What a segment ended with; the last one with the update, from which nothing goes on."""
    return _shown(work, work.claimed(segment), remembers=segment + 1 < len(work.trace.segments))


def _shown(work: Work, sha256: str, remembers: bool) -> Weights:
    """A checkpoint that a worker showed. Raises NotShown if it is not here, or none of this model and optimizer."""
    if not Blob.objects.filter(pk=sha256).exists():
        raise NotShown("not all weights that were asked for were sent")
    try:
        found = weights_of(sha256)
        aggregation.check(found, work.like if remembers else work.like[: work.weights])
        optimizers.check(work.hyper.optimizer, found[work.weights :])
    except MalformedUpdate as error:
        raise NotShown(str(error)) from error
    return found


def _allowed(work: Work, segment: int, start: Weights, claimed: Weights) -> float:
    """How far from its replay a segment may end. A compressed update may be off by a part of the *whole* change besides. Raises
    NotShown if the segment did not move or turn as far as its trace said: then it named another one as the largest."""
    weights = work.weights
    moved, said = comparison.length(start[:weights], claimed[:weights]), work.trace.segments[segment].change
    if work.hyper.compression != "none" and segment + 1 == len(work.trace.segments):
        whole = comparison.length(work.like[:weights], claimed)
        return comparison.allowed(work.hyper.compression, whole, said)
    told = work.claimed(segment) == work.trace.segments[segment].sha256
    if told and abs(moved - said) > evidence.CHANGE_ROUNDING * moved:
        raise NotShown(f"the trace says that segment {segment} moved {said:.3g}, but it did {moved:.3g}")
    _check_turn(work, segment, start[weights:] or work.like[weights:], claimed[weights:])
    return comparison.MAX_RELATIVE


def _check_turn(work: Work, segment: int, before: Weights, after: Weights) -> None:
    """As for how far the weights moved. Raises NotShown."""
    if not after:
        return
    turned, said = optimizers.turned(work.hyper.optimizer, before, after), work.trace.segments[segment].turn or 0.0
    if not abs(turned - said) <= evidence.CHANGE_ROUNDING * turned:
        raise NotShown(
            f"the trace says that the optimizer's state turned {said:.3g} in segment {segment}, but it did {turned:.3g}"
        )


def _replay_here(work: Work, segment: int, at: Weights) -> Weights:
    from dmlworker import trainer

    x, y, w = datasets.mapped(work.shard)
    spec, start = json.loads(work.files["spec"]), unpack(work.files["start"])
    with _one_at_a_time:
        steps = steps_of_segment(segment, len(y), work.hyper)
        return trainer.replay(spec, start, x, y, work.hyper, at, steps, w=w)


def _replay_elsewhere(work: Work, segment: int, at: Weights) -> list[Weights]:
    """In a fresh process, so that no state of this one can explain a difference; the first one from `at`, the others from weights
    that are off by their last bit."""
    with TemporaryDirectory() as folder:
        for name, data in work.files.items():
            (Path(folder) / name).write_bytes(data)
        (Path(folder) / "shard").symlink_to(work.shard.resolve())
        (Path(folder) / "at").write_bytes(pack(at))
        (Path(folder) / "hyper").write_text(json.dumps(asdict(work.hyper)))
        command = [sys.executable, "-m", "training.replay", folder, str(segment)]
        subprocess.run(command, check=True, timeout=3600, env=OTHER_KERNELS)
        return [unpack(path.read_bytes()) for path in sorted(Path(folder).glob("end-*"))]


def forget_checkpoints(found: Audit) -> None:
    """Remove what a worker showed of good work; see `records.keeps_checkpoints`."""
    store.forget(audits.unneeded(found))


def predict(run: Run, sample: np.ndarray) -> list[float]:
    """What the run's final model says of one raw sample: the probability of each class, or a number."""
    from dmlworker import trainer

    end = run.all_rounds.get(number=run.rounds).end_id
    with _one_at_a_time:
        return [float(part) for part in trainer.predict(spec_of(run), weights_of(str(end)), sample[None])[0]]


def assess(run: Run, sha256: str) -> None:
    """Write down how good the final model is on the hold-out, with intervals; of more than OUTPUTS of its outputs, on some samples."""
    from dmlworker import trainer

    x, y = _few(run.holdout_id, max(1, OUTPUTS // max(len(run.classes), 1)))
    with _one_at_a_time, store.weights(sha256) as weights:
        outputs = trainer.predict(spec_of(run), weights, x)
    Run.objects.filter(pk=run.pk).update(metrics=metrics.TASKS[run.ticket.task](y, outputs))


def export(run: Run, sha256: str, folder: Path) -> list[Path]:
    """The customer's files, but for other formats: the model for Keras, and what is needed to use it in any."""
    from dmlworker import trainer

    with _one_at_a_time:
        paths = trainer.export(spec_of(run), weights_of(sha256), folder, raw.encoder_of(run))
    return [*paths, *delivery.write(run, folder)]


def convert(run: Run, folder: Path, formats: list[str]) -> tuple[list[Path], dict[str, str]]:
    """(files, by format why it was left out): the model in these formats (exports.FILES), out of the model.keras in `folder`. Raises Busy:
    one at a time, so that the other threads are there for whoever waits to be paid."""
    if not _one_export_at_a_time.acquire(blocking=False):
        raise Busy
    try:
        with store.samples(run.holdout_id) as (x, _):
            left_out = exports.export(folder, x[:COMPARED], formats)
    finally:
        _one_export_at_a_time.release()
    return [folder / exports.FILES[name] for name in formats if name not in left_out], left_out
