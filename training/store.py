"""Content-addressed bytes in the file storage. The row is the truth: a file without one is a crash's half-written rest."""

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import IO, Self, cast

import numpy as np
from django.conf import settings
from django.core.files import File
from django.core.files.base import ContentFile
from django.core.files.storage import default_storage

from dmlsite.errors import Invalid
from dmlworker.weights import mapped, write
from training.models import Blob

CHUNK = 1 << 20


class TooLarge(Invalid):
    """More bytes than this sender may store here."""

    status = 413  # type: ignore[assignment]

    def __init__(self, limit: int) -> None:
        super().__init__(f"at most {limit} bytes are taken here")


def path(sha256: str) -> str:
    return f"blobs/{sha256[:2]}/{sha256}"


def put(data: bytes) -> Blob:
    """Store bytes; the same bytes again cost nothing."""
    sha256 = hashlib.sha256(data).hexdigest()
    return Blob.objects.filter(pk=sha256).first() or _save(sha256, len(data), ContentFile(data))


def put_weights(weights: Sequence[np.ndarray]) -> Blob:
    """Store weights as safetensors, without a copy of them in memory."""
    with Spool() as spool:
        write(cast(IO[bytes], spool), weights)
        return spool.keep()[0]


class Spool:
    """Bytes on their way into the store: counted and hashed as they come. On a local disk they are only renamed then."""

    def __init__(self, limit: int | None = None) -> None:
        """`limit`: bytes that are taken at most."""
        self._digest, self._size, self._limit = hashlib.sha256(), 0, limit
        self._file = NamedTemporaryFile(dir=settings.FILE_UPLOAD_TEMP_DIR, delete=False)  # noqa: SIM115 (__exit__ closes it)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
        Path(self._file.name).unlink(missing_ok=True)

    def write(self, chunk: bytes) -> int:
        """Raises TooLarge past the limit."""
        self._size += memoryview(chunk).nbytes
        if self._limit is not None and self._size > self._limit:
            raise TooLarge(self._limit)
        self._digest.update(chunk)
        return self._file.write(chunk)

    def keep(self, expected: str | None = None) -> tuple[Blob, bool]:
        """(the blob, whether it is new). Raises Invalid if the bytes are not what they are called."""
        sha256 = self._digest.hexdigest()
        if expected not in (None, sha256):
            raise Invalid("the bytes do not have this SHA-256")
        self._file.flush()
        if known := Blob.objects.filter(pk=sha256).first():
            return known, False
        return _save(sha256, self._size, _Movable(self._file)), True


class _Movable(File):
    """A file that the storage may take over instead of copying it."""

    def temporary_file_path(self) -> str:
        return str(self.file.name)


def _save(sha256: str, size: int, file: File) -> Blob:
    name = path(sha256)
    if default_storage.exists(name):
        default_storage.delete(name)
    file.seek(0)
    saved = default_storage.save(name, file)
    if saved != name:  # somebody stored the same bytes meanwhile
        default_storage.delete(saved)
    blob = Blob(sha256=sha256, size=size)
    Blob.objects.bulk_create([blob], ignore_conflicts=True)
    return blob


def get(sha256: str) -> bytes:
    with default_storage.open(path(sha256)) as file:
        return bytes(file.read())


def link(sha256: str) -> str:
    """Where a worker fetches a blob by itself, for a while: the object store's signed URL. Empty on a local disk."""
    try:
        default_storage.path("")
    except NotImplementedError:
        return str(default_storage.url(path(sha256)))
    return ""


def opened(sha256: str) -> IO[bytes]:
    return default_storage.open(path(sha256))  # type: ignore[return-value]


@contextmanager
def weights(sha256: str) -> Iterator[list[np.ndarray]]:
    """Stored weights to look at, not in memory: on a local disk the file itself, else a copy of it. Raises MalformedUpdate."""
    try:
        place = default_storage.path(path(sha256))
    except NotImplementedError:
        with local_copy(File(default_storage.open(path(sha256))), ".safetensors") as copy:
            yield mapped(copy)
    else:
        yield mapped(Path(place))


@contextmanager
def local_copy(file: File, suffix: str) -> Iterator[Path]:
    """A stored file as a file on this machine, for readers that want a path."""
    with NamedTemporaryFile(suffix=suffix) as copy:
        with file.open("rb") as source:
            for chunk in source.chunks():
                copy.write(chunk)
        copy.flush()
        yield Path(copy.name)
