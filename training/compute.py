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
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import numpy as np

from dmlworker import compression
from dmlworker.protocol import Hyper
from dmlworker.weights import pack, unpack
from tickets.models import Ticket
from training import aggregation, datasets, evidence, store
from training.actions import Prepared, hyper_of
from training.models import Assignment, Blob, Round, Run

if TYPE_CHECKING:
    from dmlworker import trainer

Weights = list[np.ndarray]
_one_at_a_time = threading.Lock()
OTHER_KERNELS = os.environ | {"TF_ENABLE_ONEDNN_OPTS": "0"}
"""Other arithmetic for the second replay: what rounding alone can do shows between the two."""


def prepare(ticket: Ticket, path: Path, parts: int, seed: int) -> Prepared:
    """Read the customer's file, keep a hold-out back, cut the rest into shards, choose the model.

    Raises DatasetError, whose text is for the customer.
    """
    from dmlworker import models, trainer

    data = datasets.read(path, ticket.dataset.name, ticket.target or None)
    train, holdout = datasets.split(data, seed)
    with _one_at_a_time:
        shape, fitted = train.x.shape[1:], models.statistics(train.x)
        try:
            spec = models.spec(models.build(shape, len(data.classes), ticket.model_kind, fitted))
        except models.ModelRefused as error:
            raise datasets.DatasetError(str(error)) from error
        start = pack(trainer.initial_weights(spec, seed))
    shards = [(store.put(datasets.dump(part.x, part.y)), len(part.y)) for part in datasets.shards(train, parts, seed)]
    return Prepared(
        spec=store.put(models.spec_bytes(spec)),
        start=store.put(start),
        holdout=store.put(datasets.dump(holdout.x, holdout.y)),
        shards=shards,
        classes=list(data.classes),
        facts=_facts(data, train, holdout),
    )


def _facts(data: datasets.Dataset, train: datasets.Dataset, holdout: datasets.Dataset) -> dict[str, object]:
    return {
        "kind": data.kind,
        "samples": len(data.y),
        "training_samples": len(train.y),
        "holdout_samples": len(holdout.y),
        "sample_shape": list(data.x.shape[1:]),
        "features": list(data.features),
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
    """(accuracy, loss) of a round's mean on the hold-out; the loss is None if it is not finite. Write down how many samples
    each update alone gets right: that is what its provider is paid by."""
    *alone, mean = _evaluate(round_.run, [str(update.weights_id) for update in updates] + [str(round_.end_id)])
    for update, found in zip(updates, alone, strict=True):
        update.correct = found.correct
    Assignment.objects.bulk_update(updates, ["correct"])
    return mean.accuracy, mean.loss if math.isfinite(mean.loss) else None


def _evaluate(run: Run, stored: list[str]) -> Iterator["trainer.Evaluation"]:
    """How each of the stored weights does on the hold-out."""
    from dmlworker import trainer

    spec, (x, y) = spec_of(run), datasets.load(store.get(run.holdout_id))
    for sha256 in stored:
        with _one_at_a_time, store.weights(sha256) as weights:
            yield trainer.evaluate(spec, weights, x, y)


def screen(round_: Round, updates: list[Assignment]) -> None:
    """Write down what looks odd. It orders a replay; it never blames."""
    with ExitStack() as open_:
        start = open_.enter_context(store.weights(round_.start_id))
        claimed = [open_.enter_context(store.weights(str(update.weights_id))) for update in updates]
        found = evidence.suspects(start, claimed, [update.correct or 0 for update in updates])
    for index, reason in found.items():
        updates[index].suspicion = reason
    Assignment.objects.bulk_update([updates[index] for index in found], ["suspicion"])


def average(round_: Round, updates: list[Assignment]) -> tuple[Blob, Blob | None]:
    """The round's end weights, and what the server's optimizer keeps for the next round, if anything.

    The mean is in shard order, weighted by the shard sizes that the platform set; in memory is the mean alone.
    """
    with ExitStack() as open_:
        local = [open_.enter_context(store.weights(str(update.weights_id))) for update in updates]
        mean = aggregation.fedavg(list(zip(local, [update.shard.samples for update in updates], strict=True)))
    before = Round.objects.filter(run=round_.run, number=round_.number - 1).first()
    kept = weights_of(before.kept_id) if before and before.kept_id else []
    with store.weights(round_.start_id) as start:
        end, keep = aggregation.step(round_.run.strategy, start, mean, kept, number=round_.number)
    return store.put_weights(end), store.put_weights(keep) if keep else None


def replay(assignment: Assignment, elsewhere: bool) -> Weights:
    """Do a worker's work again; `elsewhere` in a process of its own, with other kernels, hence other rounding."""
    run, round_ = assignment.round.run, assignment.round
    hyper = hyper_of(assignment)
    files = {
        "spec": store.get(run.spec_id),
        "start": store.get(round_.start_id),
        "shard": store.get(assignment.shard.blob_id),
    }
    return _replay_elsewhere(files, hyper) if elsewhere else _replay_here(files, hyper)


def distance(assignment: Assignment, replayed: Weights, claimed: Weights | None = None) -> evidence.Distance:
    """How far a claim, the worker's own unless given, is from a replay."""
    claimed = weights_of(str(assignment.weights_id)) if claimed is None else claimed
    return evidence.compare(weights_of(assignment.round.start_id), claimed, replayed)


def _replay_here(files: dict[str, bytes], hyper: Hyper) -> Weights:
    from dmlworker import trainer

    x, y = datasets.load(files["shard"])
    with _one_at_a_time:
        return trainer.train(json.loads(files["spec"]), unpack(files["start"]), x, y, hyper)


def _replay_elsewhere(files: dict[str, bytes], hyper: Hyper) -> Weights:
    """In a fresh process, so that no state of this one can explain a difference."""
    with TemporaryDirectory() as folder:
        for name, data in files.items():
            (Path(folder) / name).write_bytes(data)
        (Path(folder) / "hyper").write_text(json.dumps(asdict(hyper)))
        subprocess.run([sys.executable, "-m", "training.replay", folder], check=True, timeout=3600, env=OTHER_KERNELS)
        return unpack((Path(folder) / "end").read_bytes())


def export(run: Run, sha256: str, folder: Path) -> list[Path]:
    """The customer's files: model.json, model.weights.h5, model.keras."""
    from dmlworker import trainer

    with _one_at_a_time:
        return trainer.export(spec_of(run), weights_of(sha256), folder)
