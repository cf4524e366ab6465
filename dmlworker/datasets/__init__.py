"""Customers' files in, arrays out. Pure: NumPy, Pillow and the standard library; neither Django nor TensorFlow.

    facts = inspect(path, "iris.csv")                 what we understood, for the customer's page
    dataset = read(path, "iris.csv", target="species")
    found = parts(dataset, seed=1)                    found.train, found.holdout, found.encoder
    for shard in shards(found.train, 4, seed=1):
        blob = dump(shard.x, shard.y, shard.w)        what a provider gets: no names of columns or classes

Everything wrong with a file is a `DatasetError` whose text is meant for the customer's page.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

from dmlworker.datasets import foreign, groups, images, jsonl, npz, table, windows
from dmlworker.datasets.dataset import Dataset, DatasetError, Facts, cells_of, describe
from dmlworker.datasets.encoding import Encoder, encoded
from dmlworker.datasets.leaks import on_both_sides
from dmlworker.datasets.options import PLAIN, Options
from dmlworker.datasets.parts import Parts, parts
from dmlworker.datasets.shards import dump, few, load, load_weighted, mapped, pieces, shards, split, training_samples
from dmlworker.datasets.steps import heard

__all__ = [
    "Dataset", "DatasetError", "Encoder", "Facts", "Options", "Parts", "cells_of", "describe", "dump", "encoded", "few", "heard", "inspect", "load",
    "load_weighted", "mapped", "on_both_sides", "parts", "pieces", "read", "shards", "split", "training_samples",
]  # fmt: skip

_READERS: dict[str, Callable[[Path, str | None, Options], Dataset]] = {
    ".csv": table.read,
    ".tsv": table.read,
    ".txt": table.read,
    ".xlsx": partial(foreign.read, kind="excel"),
    ".parquet": partial(foreign.read, kind="parquet"),
    ".arrow": partial(foreign.read, kind="arrow"),
    ".feather": partial(foreign.read, kind="arrow"),
    ".jsonl": jsonl.read,
    ".ndjson": jsonl.read,
    ".npz": npz.read,
    ".zip": images.read,
    ".tar": images.read_tar,
    ".tar.gz": images.read_tar,
    ".tgz": images.read_tar,
}
SUFFIXES = tuple(_READERS)
"""File name endings that can be read."""


def read(path: Path | str, name: str, target: str | None = None, options: Options = PLAIN) -> Dataset:
    """The data set in the file at `path`, which the customer called `name`; its ending tells the kind.

    `target` names the column to learn, for tables; without it, a column called like a target, else the last one. What of it is to be learnt,
    `options.task` says (dmlworker/task.py); "auto": a number if it is all numbers, with a fraction or more than 20 different ones; else classes.
    Raises DatasetError with the reason if the file can't be trained on, not even with the customer's own `options`.
    """
    reader = next((found for suffix, found in _READERS.items() if name.lower().endswith(suffix)), None)
    if reader is None:
        raise DatasetError(
            "Unknown type of file. Send a table (CSV, Excel, Parquet, Arrow, JSON lines), an NPZ with arrays x and y, or a ZIP or TAR of images."
        )
    path = Path(path)
    if path.stat().st_size == 0:
        raise DatasetError("The file is empty.")
    options.check()
    found = reader(path, target or None, options)
    if options.of_tables and not found.target:
        raise DatasetError("This file has no columns: leave out the choice of columns, the group and the window.")
    return found


def inspect(path: Path | str, name: str, target: str | None = None, options: Options = PLAIN) -> Facts:
    """What the file holds, in words and numbers. Reads all of it; raises DatasetError like `read`, and if it can't be made numbers."""
    dataset = read(path, name, target, options)
    inputs, tokens = _inputs(dataset, options)
    return replace(describe(dataset), inputs=inputs, tokens=tokens)


def _inputs(dataset: Dataset, options: Options) -> tuple[tuple[int, ...], int]:
    """The shape of a sample as the model gets it, or a larger one, and how many tokens there are at most, if it is made of them. Raises
    DatasetError where the parts could not be made."""
    if dataset.groups is not None and (count := int(dataset.groups.max()) + 1) < groups.MIN_GROUPS:
        raise groups.too_few(count)
    rows = windows.with_past(dataset) if options.window else dataset
    if options.window:
        windows.by_time(rows, options)
    encoder = Encoder.fit(rows, training_samples(len(rows), rows.groups is not None)) if rows.raw else None
    inputs = (len(encoder.marks),) if encoder else rows.x.shape[1:]
    return ((options.window, *inputs) if options.window else inputs), encoder.tokens if encoder else 0
