"""Opening customers' ZIP files, of which an NPZ is one, and TAR files, without trusting a word in them. Nothing is ever unpacked to disk."""

import gzip
import io
import tarfile
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any, Protocol

from dmlworker.datasets.dataset import DatasetError

MAX_ENTRIES = 200_000
MAX_ENTRY = 32 * 10**6
"""Bytes that one entry may unpack to."""
MAX_TOTAL = 4 * 10**9
"""Bytes that an archive may unpack to; of a large one, TIMES its own size."""
TIMES = 2
"""Images hardly shrink in an archive."""
MAX_READ = 2 * MAX_ENTRY
"""Bytes that are read from a TAR at once. Its headers may ask for any number."""


class Entry(Protocol):
    """A file, or a folder, in an archive."""

    @property
    def filename(self) -> str: ...

    @property
    def orig_filename(self) -> str: ...

    @property
    def file_size(self) -> int: ...

    def is_dir(self) -> bool: ...


class Archive(Protocol):
    """What `zipfile.ZipFile` and `Tar` have in common."""

    def infolist(self) -> list[Any]: ...

    def getinfo(self, name: str) -> Any: ...

    def open(self, entry: Any) -> IO[bytes]: ...


@contextmanager
def opened(path: Path, kind: str, max_entry: int = MAX_ENTRY) -> Iterator[zipfile.ZipFile]:
    """The archive, its directory checked. `kind` names it in messages ("ZIP", "NPZ").

    zipfile reads no more of an entry than the directory declares, so that checking the declared sizes is enough. Raises
    DatasetError for a broken archive, found now or while it is read, a path that leads outside, and anything too large.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            _check_directory(archive.infolist(), kind, max_entry, _most(path))
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


def _most(path: Path) -> int:
    return max(MAX_TOTAL, TIMES * path.stat().st_size)


def _check_directory(entries: Sequence[Entry], kind: str, max_entry: int, most: int) -> None:
    if not entries:
        raise DatasetError(f"The {kind} file is empty.")
    if len(entries) > MAX_ENTRIES:
        raise _too_many(len(entries), kind)
    if sum(entry.file_size for entry in entries) > most:
        raise DatasetError(f"The {kind} file would unpack to more than {most / 1e9:g} GB.")
    for entry in entries:
        _check_entry(entry, kind, max_entry)


def _check_entry(entry: Entry, kind: str, max_entry: int) -> None:
    # zipfile cuts names at a NUL and turns backslashes on Windows only: look at the name as it was stored.
    name = entry.orig_filename
    if "\0" in name or "\\" in name or name.startswith("/") or ".." in PurePosixPath(name).parts or name[1:2] == ":":
        raise DatasetError(f"The {kind} file has an entry whose path leads outside: {name!r:.120}.")
    if entry.file_size > max_entry:
        raise DatasetError(f"{name!r:.120} would unpack to more than {max_entry / 1e6:g} MB.")


def _too_many(entries: int, kind: str) -> DatasetError:
    return DatasetError(f"The {kind} file has {entries:,} entries; at most {MAX_ENTRIES:,} are taken.")


# --- TAR --------------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class _Member:
    """An `Entry`. Links and devices are none."""

    filename: str
    file_size: int
    member: tarfile.TarInfo

    @property
    def orig_filename(self) -> str:
        return self.filename

    def is_dir(self) -> bool:
        return self.member.isdir()


class Tar:
    """An `Archive`."""

    def __init__(self, file: tarfile.TarFile) -> None:
        self._file, self._entries = file, {}
        for number, member in enumerate(file, 1):
            if number > MAX_ENTRIES:
                raise _too_many(number, "TAR")
            if member.isreg() or member.isdir():
                name = member.name.removeprefix("./")
                self._entries[name] = _Member(name, member.size, member)

    def infolist(self) -> list[_Member]:
        return list(self._entries.values())

    def getinfo(self, name: str) -> _Member:
        return self._entries[name]

    def open(self, entry: _Member) -> IO[bytes]:
        stream = self._file.extractfile(entry.member)
        assert stream
        return stream


@contextmanager
def opened_tar(path: Path) -> Iterator[Tar]:
    """The archive, with gzip or without, as `opened`."""
    try:
        with (
            path.open("rb") as file,
            _Bounded(_unpacked(file), _most(path)) as bounded,
            tarfile.open(fileobj=bounded, mode="r:") as tar,
        ):
            found = Tar(tar)
            _check_directory(found.infolist(), "TAR", MAX_ENTRY, _most(path))
            yield found
    except DatasetError:
        raise
    # What tarfile raises on nonsense is not always its own error.
    except (tarfile.TarError, zlib.error, EOFError, OSError, ValueError, RecursionError) as error:
        raise DatasetError(f"The TAR file is broken or not a TAR at all ({error!s:.120}).") from None


def _unpacked(file: IO[bytes]) -> IO[bytes] | gzip.GzipFile:
    packed = file.read(2) == b"\x1f\x8b"
    file.seek(0)
    return gzip.open(file) if packed else file


class _Bounded(io.BufferedIOBase):
    """A file that nobody reads too far into, nor too much of at once: a small one with gzip may go on for ever."""

    def __init__(self, file: IO[bytes] | gzip.GzipFile, most: int) -> None:
        self._file, self._most = file, most

    def read(self, size: int | None = -1) -> bytes:
        if size is None or not 0 <= size <= MAX_READ:
            raise DatasetError(f"The TAR file has a part of more than {MAX_READ / 1e6:g} MB.")
        return self._file.read(size)

    def seek(self, position: int, whence: int = io.SEEK_SET) -> int:
        if position > self._most:
            raise DatasetError(f"The TAR file would unpack to more than {self._most / 1e9:g} GB.")
        return self._file.seek(position, whence)

    def tell(self) -> int:
        return self._file.tell()
