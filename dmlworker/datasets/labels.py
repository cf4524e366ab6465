"""A table in an archive of images that says which label each has: a column with the files' names, and one with the labels."""

from collections.abc import Iterator, Sequence
from pathlib import PurePosixPath

from dmlworker.datasets import archive, table
from dmlworker.datasets.dataset import DatasetError
from dmlworker.datasets.kinds import is_missing

ENDINGS = (".csv", ".tsv")


def read(
    file: archive.Archive, entry: archive.Entry, images: Sequence[archive.Entry], target: str | None
) -> dict[int, str]:
    """Which images, by their place, have which label. target: the labels' column; else one called like a target, else the last one. Raises
    DatasetError."""
    rows = _rows(file, entry)
    places = _places(images)
    column = _column_of_names(rows, places, entry)
    first = rows[0][1][column] not in places  # the head of the table
    labels = _column_of_labels(rows[0][1] if first else [], len(rows[0][1]), column, target)
    found: dict[int, str] = {}
    for line, cells in rows[first:]:
        place, label = places.get(cells[column]), cells[labels]
        if place is None:
            raise DatasetError(
                f"Line {line} of {entry.filename!r:.80} names {cells[column]!r:.80}: there is no such image, or more than one."
            )
        if is_missing(label):
            raise DatasetError(f"The label is missing in line {line} of {entry.filename!r:.80}.")
        if found.setdefault(place, label) != label:
            raise DatasetError(
                f"{cells[column]!r:.80} has two labels in {entry.filename!r:.80}: {found[place]:.40} and {label:.40}."
            )
    return found


def _rows(file: archive.Archive, entry: archive.Entry) -> list[table.Row]:
    with file.open(entry) as stream:
        data = stream.read()
    rows = table.rows_of(data, archive.MAX_ENTRIES + 1)
    if len(rows) > archive.MAX_ENTRIES:
        raise DatasetError(f"{entry.filename!r:.120} has more than {archive.MAX_ENTRIES:,} lines.")
    width = len(rows[0][1]) if rows else 0
    if width > table.MAX_COLUMNS:
        raise table.too_wide(width)
    if width < 2 or any(len(cells) != width for _, cells in rows):
        raise DatasetError(f"{entry.filename!r:.120} must be a table with a column of file names and one of labels.")
    return rows


def _places(images: Sequence[archive.Entry]) -> dict[str, int | None]:
    """Where each image is, by its path, the ends of its path, and its name without the ending; None: there are several."""
    found: dict[str, int | None] = {}
    for place, image in enumerate(images):
        for name in set(_names(image.filename)):
            found[name] = place if name not in found else None
    return found


def _names(path: str) -> Iterator[str]:
    parts = PurePosixPath(path).parts
    for first in range(len(parts)):
        name = "/".join(parts[first:])
        yield name
        yield name.removesuffix(PurePosixPath(path).suffix)


def _column_of_names(rows: list[table.Row], places: dict[str, int | None], entry: archive.Entry) -> int:
    hits = [sum(cells[column] in places for _, cells in rows) for column in range(len(rows[0][1]))]
    if 2 * max(hits) < len(rows):
        raise DatasetError(f"No column of {entry.filename!r:.120} names the images.")
    return hits.index(max(hits))


def _column_of_labels(head: list[str], width: int, names: int, target: str | None) -> int:
    if target is not None:
        if target not in head:
            raise table.no_column(target, head)
        return head.index(target)
    lowered = [name.lower() for name in head]
    called = [lowered.index(name) for name in table.TARGET_NAMES if name in lowered]
    others = [column for column in range(width) if column != names]
    return next((column for column in called if column != names), others[-1])
