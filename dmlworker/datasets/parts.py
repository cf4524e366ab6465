"""From a data set as it was read to what is trained on and what is measured with."""

from dataclasses import dataclass, replace

import numpy as np

from dmlworker.datasets import arrays
from dmlworker.datasets.dataset import Dataset, DatasetError, cells_of
from dmlworker.datasets.encoding import Encoder, encoded
from dmlworker.datasets.options import PLAIN, Options
from dmlworker.datasets.shards import split
from dmlworker.datasets.windows import by_time, windows, with_past


@dataclass(frozen=True)
class Parts:
    """encoder: how raw rows became numbers; None if they were numbers. example: of the first sample held out, each raw row as text; empty
    without an encoder."""

    train: Dataset
    holdout: Dataset
    encoder: Encoder | None
    example: list[list[str]]


def parts(dataset: Dataset, seed: int, options: Options = PLAIN) -> Parts:
    """The same ones for the same file, seed and options. Raises DatasetError."""
    raw = by_time(with_past(dataset), options) if options.window else split(dataset, seed)
    train, holdout, encoder = encoded(*raw)
    example = [cells_of(raw[1], row) for row in range(options.window or 1)] if encoder else []
    if options.window:
        train, holdout = windows(train, options), windows(holdout, options)
        encoder = encoder and replace(encoder, steps=options.window)
    if options.class_weights == "balanced":
        train = _balanced(train)
    return Parts(train, holdout, encoder, example)


def _balanced(train: Dataset) -> Dataset:
    """Every class counts as much as any other, and a sample 1 on average."""
    if train.y.dtype != np.int32 or not train.classes:
        raise DatasetError("Only classes can be balanced. Choose no class weights for this target.")
    counts = arrays.counts(train.y, len(train.classes))
    weights = len(train) / (np.count_nonzero(counts) * np.maximum(counts, 1))
    return (
        replace(train, w=arrays.take(weights.astype(np.float32), train.y))
        if (weights[counts > 0] != 1).any()
        else train
    )
