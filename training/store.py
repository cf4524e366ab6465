"""Content-addressed bytes in the file storage. The row is the truth: a file without one is a crash's half-written rest."""

import hashlib
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import IO, Self
from uuid import UUID

import numpy as np
from django.conf import settings
from django.core.files import File
from django.core.files.base import ContentFile
from django.core.files.storage import default_storage
from django.db import IntegrityError, transaction
from django.db.models import ProtectedError, QuerySet
from django.utils import timezone

from dmlsite.errors import Conflict, Invalid
from dmlworker import datasets
from dmlworker.weights import Bytes, mapped, pieces
from tickets import files
from training.models import Blob

CHUNK = 1 << 20
UNFINISHED_SECONDS = 86_400
"""Half an upload is kept for so long."""


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
    return _known(sha256) or _save(sha256, len(data), ContentFile(data))


def put_weights(weights: Sequence[np.ndarray]) -> Blob:
    """Store weights as safetensors, without a copy of them in memory."""
    return put_pieces(pieces(weights))


def put_pieces(parts: Iterable[Bytes]) -> Blob:
    """Store bytes that come a few at a time."""
    with Spool() as spool:
        spool.writelines(parts)
        return spool.keep()[0]


class Spool:
    """Bytes on their way into the store: counted and hashed as they come. On a local disk they are only renamed then."""

    def __init__(self, limit: int | None = None) -> None:
        """`limit`: bytes that are taken at most."""
        self._digest, self.size, self._limit = hashlib.sha256(), 0, limit
        self._file = NamedTemporaryFile(dir=settings.FILE_UPLOAD_TEMP_DIR, delete=False)  # noqa: SIM115 (__exit__ closes it)

    @classmethod
    def resumed(cls, owner: UUID, sha256: str, limit: int) -> Self:
        """What was set aside, to be gone on with. Raises Conflict if there is none, TooLarge."""
        spool = cls(limit)
        spool._file.close()
        try:
            _waiting(owner, sha256).replace(spool._file.name)
            spool._file = open(spool._file.name, "r+b")  # noqa: SIM115
            while chunk := spool._file.read(CHUNK):
                spool._count(chunk)
        except FileNotFoundError:
            spool.__exit__()
            raise Conflict("there is nothing to go on with") from None
        except TooLarge:
            spool.__exit__()
            raise
        return spool

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
        Path(self._file.name).unlink(missing_ok=True)

    def writelines(self, pieces: Iterable[Bytes]) -> None:
        """Raises TooLarge past the limit."""
        for piece in pieces:
            self._count(piece)
            self._file.write(piece)

    def _count(self, chunk: Bytes) -> None:
        self.size += len(chunk)
        if self._limit is not None and self.size > self._limit:
            raise TooLarge(self._limit)
        self._digest.update(chunk)

    def set_aside(self, owner: UUID, sha256: str) -> None:
        """Keep what came so far, for `resumed`: one upload of each owner."""
        self._file.flush()
        for path in _unfinished(owner, "*"):
            path.unlink(missing_ok=True)
        Path(self._file.name).replace(_waiting(owner, sha256))

    def keep(self, expected: str | None = None, sender: UUID | None = None) -> tuple[Blob, bool]:
        """(the blob, whether it is new). Raises Invalid if the bytes are not what they are called."""
        sha256 = self._digest.hexdigest()
        if expected not in (None, sha256):
            raise Invalid("the bytes do not have this SHA-256")
        self._file.flush()
        if known := _known(sha256, sender):
            return known, False
        return _save(sha256, self.size, _Movable(self._file), sender), True


def waiting_bytes(owner: UUID, sha256: str) -> int:
    """How much of an upload that broke is here."""
    return sum(path.stat().st_size for path in _unfinished(owner, sha256))


def _waiting(owner: UUID, sha256: str) -> Path:
    return Path(settings.FILE_UPLOAD_TEMP_DIR) / f"{owner}.{sha256}.part"


def _unfinished(owner: UUID, sha256: str) -> list[Path]:
    return list(Path(settings.FILE_UPLOAD_TEMP_DIR).glob(_waiting(owner, sha256).name))


def forget_unfinished() -> None:
    """Remove what nobody goes on with, and what a process that was killed left behind."""
    while_ago = time.time() - UNFINISHED_SECONDS
    for path in Path(settings.FILE_UPLOAD_TEMP_DIR).iterdir():
        with suppress(FileNotFoundError):
            if path.is_file() and path.stat().st_mtime < while_ago:
                path.unlink()


class _Movable(File):
    """A file that the storage may take over instead of copying it."""

    def temporary_file_path(self) -> str:
        return str(self.file.name)


def _known(sha256: str, sender: UUID | None = None) -> Blob | None:
    """A blob that is here. Unnamed, it is now the latest sender's, who has as long to name it; what the platform itself stores is
    nobody's, and stays."""
    found = Blob.objects.filter(pk=sha256).first()
    if found and found.sender_id:
        Blob.objects.filter(pk=sha256, sender__isnull=False).update(sender=sender, created=timezone.now())
    return found


def _save(sha256: str, size: int, file: File, sender: UUID | None = None) -> Blob:
    name = path(sha256)
    files.keep(name)
    if default_storage.exists(name):
        default_storage.delete(name)
    file.seek(0)
    saved = default_storage.save(name, file)
    if saved != name:  # somebody stored the same bytes meanwhile
        default_storage.delete(saved)
    blob = Blob(sha256=sha256, size=size, sender_id=sender)
    anew = ["erased", "sender"]
    Blob.everything.bulk_create([blob], update_conflicts=True, unique_fields=["sha256"], update_fields=anew)
    return blob


def take_over(blobs: Iterable[str]) -> None:
    """Something names these now: they are no longer their sender's, and stay."""
    Blob.objects.filter(pk__in=set(blobs), sender__isnull=False).update(sender=None)


def forget(blobs: Iterable[str]) -> None:
    """Remove blobs that nothing names."""
    for sha256 in set(blobs):
        _remove(Blob.objects.filter(pk=sha256), sha256)


def forget_unnamed(blobs: QuerySet[Blob]) -> None:
    """Remove those of these blobs that are still their sender's."""
    for sha256 in blobs.values_list("pk", flat=True):
        _remove(Blob.objects.filter(pk=sha256, sender__isnull=False), sha256)


def _remove(found: QuerySet[Blob], sha256: str) -> None:
    # A row that names it is seen here, or only by the database.
    with suppress(ProtectedError, IntegrityError), transaction.atomic():
        if found.delete()[0]:
            files.let_go([path(sha256)])


def locked(blobs: Iterable[str]) -> set[str]:
    """Those of these blobs that are here. Until the transaction ends nobody else erases them, or begins to need them."""
    found = Blob.objects.select_for_update(no_key=True).filter(pk__in=set(blobs)).order_by("pk")
    return set(found.values_list("pk", flat=True))


def erase(blobs: Iterable[str]) -> None:
    """Remove the bytes of blobs that are still named; their hashes stay."""
    gone = set(blobs)
    with transaction.atomic():
        Blob.objects.filter(pk__in=gone).update(erased=timezone.now())
        files.let_go(map(path, gone))


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
def local(sha256: str) -> Iterator[Path]:
    """A blob as a file on this machine, not to be changed: on a local disk the file itself, else a copy of it."""
    try:
        place = default_storage.path(path(sha256))
    except NotImplementedError:
        with local_copy(File(default_storage.open(path(sha256))), ".safetensors") as copy:
            yield copy
    else:
        yield Path(place)


@contextmanager
def weights(sha256: str) -> Iterator[list[np.ndarray]]:
    """Stored weights to look at, not in memory. Raises MalformedUpdate."""
    with local(sha256) as place:
        yield mapped(place)


@contextmanager
def samples(sha256: str) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """(x, y) of a stored hold-out or shard, not in memory."""
    with local(sha256) as place:
        yield datasets.mapped(place)[:2]


@contextmanager
def local_copy(file: File, suffix: str) -> Iterator[Path]:
    """A stored file as a file on this machine, for readers that want a path."""
    with NamedTemporaryFile(suffix=suffix) as copy:
        with file.open("rb") as source:
            for chunk in source.chunks():
                copy.write(chunk)
        copy.flush()
        yield Path(copy.name)
