"""MNIST's own format, IDX, in a ZIP: `…images-idx3-ubyte` with `…labels-idx1-ubyte`, each as it is or with gzip; several pairs are one."""

import gzip
import math
import struct
import zlib
from pathlib import PurePosixPath

import numpy as np

from dmlworker.datasets import archive, targets
from dmlworker.datasets.dataset import Dataset, DatasetError

MAX_BYTES = 2 * 10**9
"""Of all images, unpacked."""
MAX_SAMPLES = 5_000_000
MAX_SIDE = 512
"""Pixels."""
_IMAGES, _LABELS = 0x803, 0x801
"""What such files begin with: unsigned bytes in three dimensions, or one."""


def found(names: list[str]) -> list[tuple[str, str]]:
    """The pairs (images, labels) among the names of an archive's entries."""
    images = [name for name in names if "images-idx3-ubyte" in _plain(name)]
    labels = {_plain(name): name for name in names}
    twins = [(name, labels.get(_plain(name).replace("images-idx3", "labels-idx1"))) for name in images]
    for name, twin in twins:
        if twin is None:
            raise DatasetError(f"{name!r:.120} has no labels beside it (labels-idx1-ubyte).")
    return [(name, twin) for name, twin in twins if twin]


def _plain(name: str) -> str:
    """As the files are called in the original: some programs unpack them to …-images.idx3-ubyte."""
    return str(PurePosixPath(name)).removesuffix(".gz").replace(".idx", "-idx")


def read(file: archive.Archive, pairs: list[tuple[str, str]], task: str) -> Dataset:
    """x (n, h, w) uint8. Raises DatasetError."""
    images, labels = [], []
    for name, twin in pairs:
        images.append(_array(file, name, _IMAGES))
        labels.append(_array(file, twin, _LABELS))
        if sum(x.nbytes for x in images) > MAX_BYTES:
            raise DatasetError("The images are too large together.")
    for (name, _), x, y in zip(pairs, images, labels, strict=True):
        if len(x) != len(y):
            raise DatasetError(f"{name!r:.120} has {len(x):,} images, but {len(y):,} labels.")
        if x.shape[1:] != images[0].shape[1:]:
            raise DatasetError("The images are not all of one size.")
    y, classes, learnt = targets.of(targets.Labels.of(np.concatenate(labels).astype(str).tolist()), task)
    return Dataset(np.concatenate(images), y, classes, (), "images", task=learnt)


def _array(file: archive.Archive, name: str, kind: int) -> np.ndarray:
    """No more is read than the header announces, and no more than MAX_BYTES."""
    with file.open(file.getinfo(name)) as packed, gzip.open(packed) if name.endswith(".gz") else packed as stream:
        try:
            dimensions = 3 if kind == _IMAGES else 1
            head = stream.read(4 + 4 * dimensions)
            magic, *shape = struct.unpack(f">{1 + dimensions}I", head)
            if magic != kind:
                raise _broken(name)
            if shape[0] > MAX_SAMPLES or any(side > MAX_SIDE for side in shape[1:]) or math.prod(shape) > MAX_BYTES:
                raise DatasetError(f"{name!r:.120} is too large: {' x '.join(map(str, shape))}.")
            return _filled(stream, shape, name)
        except (struct.error, EOFError, zlib.error, gzip.BadGzipFile):
            raise _broken(name) from None


def _filled(stream: object, shape: list[int], name: str) -> np.ndarray:
    array = np.empty(shape, np.uint8)
    rest = array.reshape(-1).data
    while rest:
        count = stream.readinto(rest[: 1 << 20])  # type: ignore[attr-defined]
        if not count:
            raise _broken(name)
        rest = rest[count:]
    return array


def _broken(name: str) -> DatasetError:
    return DatasetError(f"{name!r:.120} is broken, or not an IDX file of bytes.")
