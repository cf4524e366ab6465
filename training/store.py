"""Content-addressed bytes in the file storage. The row is the truth: a file without one is a crash's half-written rest."""

import hashlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import NamedTemporaryFile, TemporaryFile
from typing import IO

from django.core.files import File
from django.core.files.base import ContentFile
from django.core.files.storage import default_storage

from dmlsite.errors import Invalid
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
    digest, size = hashlib.sha256(), 0
    with TemporaryFile() as spool:
        for chunk in chunks:
            size += len(chunk)
            if size > limit:
                raise TooLarge(f"at most {limit} bytes are taken here")
            digest.update(chunk)
            spool.write(chunk)
        if digest.hexdigest() != sha256:
            raise Invalid("the bytes do not have this SHA-256")
        return Blob.objects.filter(pk=sha256).first() or _save(sha256, size, File(spool))


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


def opened(sha256: str) -> IO[bytes]:
    return default_storage.open(path(sha256))  # type: ignore[return-value]


@contextmanager
def local_copy(file: File, suffix: str) -> Iterator[Path]:
    """A stored file as a file on this machine, for readers that want a path."""
    with NamedTemporaryFile(suffix=suffix) as copy:
        with file.open("rb") as source:
            for chunk in source.chunks():
                copy.write(chunk)
        copy.flush()
        yield Path(copy.name)
