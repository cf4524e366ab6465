"""Windows over the rows of an ordered table: so many in a row are a sample, its target that of a row further on. The target's own past is a
feature like any other.

    rows = with_past(dataset)
    train, holdout = by_time(rows, options)     rows, the last fifth held out
    train = windows(train, options)             x (n, steps, features)

Rows are parted before windows are made of them, so that no window, nor its target, lies on both sides: the windows in between are the gap.
"""

from dataclasses import replace

import numpy as np

from dmlworker.datasets import arrays, limits
from dmlworker.datasets.dataset import Dataset, DatasetError, Raw
from dmlworker.datasets.options import Options

MIN_WINDOWS = 10
"""That either part must have."""
MAX_VALUES = 2_000_000_000
"""In all windows together: 8 GB, in files."""


def with_past(dataset: Dataset) -> Dataset:
    """The same rows with the target as their last feature: a number, or a category."""
    if dataset.x.ndim != 2 or dataset.y.ndim != 1 or dataset.target is None:
        raise DatasetError("Windows are made of a table with one target.")
    x = arrays.empty((len(dataset), dataset.x.shape[1] + 1), np.float32)
    x[:, :-1], x[:, -1] = dataset.x, dataset.y
    features = (*dataset.features, dataset.target)
    classes = dataset.y.dtype == np.int32
    raw = dataset.raw
    if classes or raw:
        past = Raw(dataset.target, "category", dataset.classes) if classes else Raw(dataset.target, "number")
        raw = (*(raw or (Raw(name, "number") for name in dataset.features)), past)
    return replace(dataset, x=x, features=features, raw=raw)


def by_time(rows: Dataset, options: Options) -> tuple[Dataset, Dataset]:
    """(train, holdout): the rows in their order, the last ones held out. Raises DatasetError if too few windows come of either."""
    first = len(rows) - limits.held(len(rows))
    parts = rows.take(np.arange(first)), rows.take(np.arange(first, len(rows)))
    if min(map(len, parts)) < options.window + options.horizon - 1 + MIN_WINDOWS:
        raise DatasetError(
            f"{len(rows):,} rows are too few for windows of {options.window:,} with the target {options.horizon:,} further on: "
            f"a fifth of them must be enough for {MIN_WINDOWS} windows of its own."
        )
    return parts


def windows(rows: Dataset, options: Options) -> Dataset:
    """x (n, steps, features) of encoded rows, y the target `horizon` rows after each window's last. Raises DatasetError if that is too much."""
    ahead = options.window + options.horizon - 1
    n, width = len(rows) - ahead, rows.x.shape[1]
    if n * options.window * width > MAX_VALUES:
        raise DatasetError(
            f"The windows have more than {MAX_VALUES / 1e6:g} million values together. Take shorter ones."
        )
    view = np.lib.stride_tricks.sliding_window_view(arrays.whole(rows.x), options.window, axis=0)[:n]
    return replace(rows, x=arrays.whole(view.transpose(0, 2, 1)), y=rows.y[ahead:])
