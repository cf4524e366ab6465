"""Customers' files in, arrays out. Pure: NumPy, Pillow and the standard library; neither Django nor TensorFlow.

    facts = inspect(path, "iris.csv")                 what we understood, for the customer's page
    dataset = read(path, "iris.csv", target="species")
    train, holdout, encoder = encoded(*split(dataset, seed=1))
    for shard in shards(train, 4, seed=1):
        blob = dump(shard.x, shard.y)                 what a provider gets: no names of columns or classes

Everything wrong with a file is a `DatasetError` whose text is meant for the customer's page.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path

from dmlworker.datasets import foreign, images, jsonl, npz, table
from dmlworker.datasets.dataset import Dataset, DatasetError, Facts, cells_of, describe
from dmlworker.datasets.encoding import Encoder, encoded
from dmlworker.datasets.shards import dump, few, load, shards, split
from dmlworker.task import AUTO

__all__ = [
    "Dataset", "DatasetError", "Encoder", "Facts", "cells_of", "describe", "dump", "encoded", "few", "inspect", "load", "read", "shards", "split",
]  # fmt: skip

_READERS: dict[str, Callable[[Path, str | None, str], Dataset]] = {
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


def read(path: Path | str, name: str, target: str | None = None, task: str = AUTO) -> Dataset:
    """The data set in the file at `path`, which the customer called `name`; its ending tells the kind.

    `target` names the column to learn, for tables; without it, a column called like a target, else the last one. `task` says what of
    it is to be learnt (dmlworker/task.py); "auto": a number if it is all numbers, with a fraction or more than 20 different ones; else classes.
    Raises DatasetError with the reason if the file can't be trained on.
    """
    reader = next((found for suffix, found in _READERS.items() if name.lower().endswith(suffix)), None)
    if reader is None:
        raise DatasetError(
            "Unknown type of file. Send a table (CSV, Excel, Parquet, Arrow, JSON lines), an NPZ with arrays x and y, or a ZIP or TAR of images."
        )
    path = Path(path)
    if path.stat().st_size == 0:
        raise DatasetError("The file is empty.")
    return reader(path, target or None, task)


def inspect(path: Path | str, name: str, target: str | None = None, task: str = AUTO) -> Facts:
    """What the file holds, in words and numbers. Reads all of it; raises DatasetError like `read`, and if it can't be made numbers."""
    dataset = read(path, name, target, task)
    if dataset.raw:
        Encoder.fit(dataset)
    return describe(dataset)
