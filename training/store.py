"""Content-addressed bytes in the file storage. The row is the truth: a file without one is a crash's half-written rest."""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
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


def path(sha256: str) -> str:
    return f"blobs/{sha256[:2]}/{sha256}"


def put(data: bytes) -> Blob:
    """Store bytes; the same bytes again cost nothing."""
    sha256 = hashlib.sha256(data).hexdigest()
    return Blob.objects.filter(pk=sha256).first() or _save(sha256, len(data), ContentFile(data))


def take(sha256: str, chunks: Iterable[bytes], limit: int) -> Blob:
    """Store what somebody sends. Raises TooLarge past `limit` bytes, Invalid if it is not what it is called."""
    with _Spool() as spool:
        for chunk in chunks:
            if spool.size + len(chunk) > limit:
                raise TooLarge(f"at most {limit} bytes are taken here")
            spool.write(chunk)
        if spool.sha256 != sha256:
            raise Invalid("the bytes do not have this SHA-256")
        return spool.store()


def put_weights(weights: Sequence[np.ndarray]) -> Blob:
    """Store weights as safetensors, without a copy of them in memory."""
    with _Spool() as spool:
        write(cast(IO[bytes], spool), weights)
        return spool.store()


class _Spool:
    """Bytes on their way into the store: counted and hashed as they come. On a local disk they are only renamed then."""

    def __init__(self) -> None:
        self._digest, self.size = hashlib.sha256(), 0
        self._file = NamedTemporaryFile(dir=settings.FILE_UPLOAD_TEMP_DIR, delete=False)  # noqa: SIM115 (__exit__ closes it)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
        Path(self._file.name).unlink(missing_ok=True)

    def write(self, chunk: bytes) -> int:
        self._digest.update(chunk)
        self.size += memoryview(chunk).nbytes
        return self._file.write(chunk)

    @property
    def sha256(self) -> str:
        return self._digest.hexdigest()

    def store(self) -> Blob:
        self._file.flush()
        known = Blob.objects.filter(pk=self.sha256).first()
        return known or _save(self.sha256, self.size, _Movable(self._file))


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
    return Blob.objects.get_or_create(pk=sha256, defaults={"size": size})[0]


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
