"""ZIP and TAR files with a folder of images for each class, or a table of their labels, decoded to one size; and IDX in a ZIP, which holds
the pixels themselves."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO

import numpy as np
from PIL import Image

from dmlworker.datasets import archive, arrays, idx, labels, steps, targets
from dmlworker.datasets.dataset import Dataset, DatasetError
from dmlworker.datasets.options import PLAIN, Options
from dmlworker.task import AUTO, CLASSIFICATION

MAX_SIDE = 64
"""Pixels; larger images are scaled down to this."""
MAX_PIXELS = 32_000_000
"""In one image, at most: a small file can decode to gigabytes."""
MAX_PIXELS_TOTAL = 20_000_000_000
"""In all images together, or so many for each byte of them as PIXELS says, which photos have: minutes of decoding."""
PIXELS = 10
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF")
_GREY = frozenset({"1", "L", "LA", "I", "I;16", "F"})


@dataclass(frozen=True)
class _Sizes:
    """Height and width to decode to, and whether no image has colour."""

    height: int
    width: int
    grey: bool


def read(path: Path, target: str | None, options: Options = PLAIN) -> Dataset:
    """Images as x (n, h, w) uint8 if all are grey, else (n, h, w, 3); h, w: the median size, at most MAX_SIDE.

    The class is the folder that an image lies in; or, where a table lies beside them, what that says (labels.py), in its column `target`. A
    number only if `options.task` says so. Raises DatasetError.
    """
    task = _task(options)
    with archive.opened(path, "ZIP", idx.MAX_BYTES) as file:
        if pairs := idx.found(file.namelist()):
            return idx.read(file, pairs, task)
    with archive.opened(path, "ZIP") as file:
        return _read(file, "ZIP", target, task)


def read_tar(path: Path, target: str | None, options: Options = PLAIN) -> Dataset:
    """As `read`, of a TAR file, with gzip or without."""
    with archive.opened_tar(path) as file:
        return _read(file, "TAR", target, _task(options))


def _task(options: Options) -> str:
    """Folders called 1 to 100 are a hundred classes, and no quantity."""
    return CLASSIFICATION if options.task == AUTO else options.task


def _read(file: archive.Archive, kind: str, target: str | None, task: str) -> Dataset:
    entries = [entry for entry in file.infolist() if not _ignored(entry)]
    tables, images = _sorted(entries)
    if not images:
        raise DatasetError(f"The {kind} file holds no images.")
    if len(tables) > 1:
        raise DatasetError(f"The {kind} file holds {len(tables)} tables; one says which label each image has.")
    found = labels.read(file, tables[0], images, target) if tables else dict(enumerate(map(_label, images)))
    named = [images[place] for place in sorted(found)]
    y, classes, learnt = targets.of(targets.Labels.of([found[place] for place in sorted(found)]), task)
    x = _decode(file, named, _sizes(file, named))
    unnamed = len(images) - len(named)
    left_out = ((f"{unnamed:,} images", "the table does not name them"),) if unnamed else ()
    return Dataset(x, y, classes, (), "images", left_out=left_out, task=learnt)


def _sorted(entries: list[archive.Entry]) -> tuple[list[archive.Entry], list[archive.Entry]]:
    """Tables and the others."""
    parts: tuple[list[archive.Entry], list[archive.Entry]] = ([], [])
    for entry in entries:
        parts[not entry.filename.lower().endswith(labels.ENDINGS)].append(entry)
    return parts


def _ignored(entry: archive.Entry) -> bool:
    """Folders, and what operating systems leave behind."""
    parts = PurePosixPath(entry.filename).parts
    return entry.is_dir() or any(part.startswith((".", "__MACOSX")) for part in parts) or parts[-1:] == ("Thumbs.db",)


def _label(entry: archive.Entry) -> str:
    parts = PurePosixPath(entry.filename).parts
    if len(parts) < 2:
        raise DatasetError(
            f"{entry.filename!r:.120} lies in no folder. Put the images in one folder for each class, or a table of their labels beside them."
        )
    return parts[-2]


def _sizes(file: archive.Archive, entries: list[archive.Entry]) -> _Sizes:
    """From the headers alone, before any pixel is decoded."""
    heights, widths, grey = [], [], True
    for _, image in _images(file, entries):
        heights.append(image.height)
        widths.append(image.width)
        grey = grey and image.mode in _GREY
    most = max(MAX_PIXELS_TOTAL, PIXELS * sum(entry.file_size for entry in entries))
    if sum(height * width for height, width in zip(heights, widths, strict=True)) > most:
        raise DatasetError("The images have too many pixels together. Scale them down first.")
    return _Sizes(min(MAX_SIDE, int(np.median(heights))), min(MAX_SIDE, int(np.median(widths))), grey)


def _images(file: archive.Archive, entries: list[archive.Entry]) -> Iterator[tuple[int, Image.Image]]:
    """Opened, not yet decoded. Whatever fails on one, here or in the caller's loop body, names it in a DatasetError."""
    for index, entry in enumerate(entries):
        with file.open(entry) as stream:
            try:
                image = Image.open(stream, formats=FORMATS)
            except Image.DecompressionBombError:
                raise _too_large(entry) from None
            except (OSError, ValueError, SyntaxError):
                raise _unreadable(entry) from None
            if image.width * image.height > MAX_PIXELS:
                raise _too_large(entry)
            yield index, image


def _decode(file: archive.Archive, entries: list[archive.Entry], sizes: _Sizes) -> np.ndarray:
    shape = (len(entries), sizes.height, sizes.width) + (() if sizes.grey else (3,))
    x = arrays.empty(shape, np.uint8)
    for index, image in _images(file, entries):
        try:
            x[index] = _pixels(image, sizes)
            steps.tell(index + 1, len(entries))
        # Decoders raise what they like on broken input.
        except (OSError, ValueError, SyntaxError, IndexError, TypeError, EOFError):
            raise _unreadable(entries[index]) from None
    return x


def one(file: IO[bytes], shape: tuple[int, ...]) -> np.ndarray:
    """A single image as `read` would give it: uint8 of `shape`, (h, w) or (h, w, 3). Raises DatasetError."""
    try:
        image = Image.open(file, formats=FORMATS)
        if image.width * image.height > MAX_PIXELS:
            raise DatasetError(f"The image has too many pixels (at most {MAX_PIXELS / 1e6:g} million).")
        return _pixels(image, _Sizes(shape[0], shape[1], len(shape) == 2))
    except (OSError, ValueError, SyntaxError, IndexError, TypeError, EOFError, Image.DecompressionBombError) as error:
        if isinstance(error, DatasetError):
            raise
        raise DatasetError(f"This does not open as an image ({', '.join(FORMATS)}).") from None


def _pixels(image: Image.Image, sizes: _Sizes) -> np.ndarray:
    if image.mode.startswith("I") and sizes.grey:
        image = Image.fromarray((np.asarray(image, dtype=np.int64) >> 8).clip(0, 255).astype(np.uint8))
    image = image.convert("L" if sizes.grey else "RGB")
    if image.size != (sizes.width, sizes.height):
        image = image.resize((sizes.width, sizes.height), Image.Resampling.BILINEAR, reducing_gap=2.0)
    return np.asarray(image, dtype=np.uint8)


def _unreadable(entry: archive.Entry) -> DatasetError:
    return DatasetError(f"{entry.filename!r:.120} does not open as an image ({', '.join(FORMATS)}).")


def _too_large(entry: archive.Entry) -> DatasetError:
    return DatasetError(f"{entry.filename!r:.120} has too many pixels (at most {MAX_PIXELS / 1e6:g} million).")
