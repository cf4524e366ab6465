"""Opening customers' ZIP files, of which an NPZ is one, without trusting a word in them. Nothing is ever unpacked to disk."""

import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from dmlworker.datasets.dataset import DatasetError

MAX_ENTRIES = 200_000
MAX_ENTRY = 32 * 10**6
"""Bytes that one entry may unpack to."""
MAX_TOTAL = 4 * 10**9
"""Bytes that all entries may unpack to, together."""


@contextmanager
def opened(path: Path, kind: str, max_entry: int = MAX_ENTRY) -> Iterator[zipfile.ZipFile]:
    """The archive, its directory checked. `kind` names it in messages ("ZIP", "NPZ").

    zipfile reads no more of an entry than the directory declares, so that checking the declared sizes is enough. Raises
    DatasetError for a broken archive, found now or while it is read, a path that leads outside, and anything too large.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            _check_directory(archive.infolist(), kind, max_entry)
            yield archive
    # RuntimeError: encrypted. NotImplementedError: an exotic compression.
    except (
        zipfile.BadZipFile,
        zlib.error,
        EOFError,
        OSError,
        RuntimeError,
        NotImplementedError,
        UnicodeError,
    ) as error:
        raise DatasetError(f"The {kind} file is broken or not a {kind} at all ({error!s:.120}).") from None


def _check_directory(entries: list[zipfile.ZipInfo], kind: str, max_entry: int) -> None:
    if not entries:
        raise DatasetError(f"The {kind} file is empty.")
    if len(entries) > MAX_ENTRIES:
        raise DatasetError(f"The {kind} file has {len(entries):,} entries; at most {MAX_ENTRIES:,} are taken.")
    if sum(entry.file_size for entry in entries) > MAX_TOTAL:
        raise DatasetError(f"The {kind} file would unpack to more than {MAX_TOTAL / 1e9:g} GB.")
    for entry in entries:
        _check_entry(entry, kind, max_entry)


def _check_entry(entry: zipfile.ZipInfo, kind: str, max_entry: int) -> None:
    # zipfile cuts names at a NUL and turns backslashes on Windows only: look at the name as it was stored.
    name = entry.orig_filename
    if "\0" in name or "\\" in name or name.startswith("/") or ".." in PurePosixPath(name).parts or name[1:2] == ":":
        raise DatasetError(f"The {kind} file has an entry whose path leads outside: {name!r:.120}.")
    if entry.file_size > max_entry:
        raise DatasetError(f"{name!r:.120} would unpack to more than {max_entry / 1e6:g} MB.")
