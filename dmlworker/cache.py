"""What a worker keeps on disk: blobs by their hash, which update came of which work, its checkpoints, and what compression
lost."""

import hashlib
import json
import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

import numpy as np

from dmlworker import protocol
from dmlworker.protocol import Blob, Lease, Offer
from dmlworker.weights import Bytes, MalformedUpdate, pieces, unpack

MAX_BYTES = 4 * 10**9
"""Blobs kept from one start to the next; the least recently used go first."""


class Cache:
    """A folder of its own for each key, so that workers of several providers on one machine do not meet."""

    def __init__(self, folder: Path) -> None:
        self._blobs, self._results, self._traces = folder / "blobs", folder / "results", folder / "traces"
        for path in (self._blobs, self._results):
            path.mkdir(parents=True, exist_ok=True)

    def get(self, blob: Blob) -> bytes | None:
        """The blob's bytes if they are here and whole."""
        path = self.path(blob)
        return path and path.read_bytes()

    def path(self, blob: Blob) -> Path | None:
        """Where the blob is, if it is here and whole; a damaged file is removed."""
        path = self._blobs / blob.sha256
        try:
            with path.open("rb") as file:
                whole = hashlib.file_digest(file, "sha256").hexdigest() == blob.sha256
        except FileNotFoundError:
            return None
        if not whole:
            path.unlink(missing_ok=True)
            return None
        os.utime(path)
        return path

    def put(self, *parts: Bytes) -> Blob:
        """Keeps bytes, given in parts, under their hash."""
        blob = blob_of(parts)
        write(self._blobs / blob.sha256, *parts)
        return blob

    def partial(self, blob: Blob) -> Path:
        """Where a download that is not complete grows."""
        return self._blobs / f"{blob.sha256}.part"

    def adopt(self, blob: Blob) -> Path:
        """Keeps a download that was found to be complete."""
        return self.partial(blob).replace(self._blobs / blob.sha256)

    def result(self, offer: Offer) -> tuple[Blob, list[bytes], str] | None:
        """The update that this very work gave before, its bytes, and the root of its trace, if they are still here."""
        try:
            known = json.loads(self._result(offer).read_text())
            blob, root = Blob(known["sha256"], known["size"]), str(known["root"])
        except (OSError, ValueError, TypeError, KeyError):
            return None
        data = self.get(blob)
        return None if data is None else (blob, [data], root)

    def remember(self, offer: Offer, update: Blob, root: str) -> None:
        """Notes which update the work of an offer gave, and the root of its trace."""
        write(self._result(offer), json.dumps(vars(update) | {"root": root}).encode())

    def forget(self, offer: Offer) -> None:
        """The update was refused: the next time, the work is done anew."""
        self._result(offer).unlink(missing_ok=True)

    def checkpoints(self, offer: Offer) -> Path:
        """The folder for the checkpoints of the work of an offer."""
        return self._traces / self._named(offer)

    def _result(self, offer: Offer) -> Path:
        return self._results / self._named(offer)

    def _named(self, offer: Offer) -> str:
        # After what decides the result, not after the lease: another attempt at the same work is answered at once.
        work = [offer.spec.sha256, offer.weights.sha256, offer.shard.sha256, vars(offer.hyper), protocol.VERSION]
        return hashlib.sha256(json.dumps(work, sort_keys=True).encode()).hexdigest()

    def rest(self, lease: Lease) -> list[np.ndarray] | None:
        """What the compression of this shard's update lost in the round before, if this worker trained it then."""
        try:
            return unpack(self._rest(lease, lease.round - 1).read_bytes())
        except (OSError, MalformedUpdate):
            return None

    def keep_rest(self, lease: Lease, rest: list[np.ndarray]) -> None:
        """For the next round. That of the round before stays, in case this work has to be done again."""
        write(self._rest(lease, lease.round), *pieces(rest))
        self._rest(lease, lease.round - 2).unlink(missing_ok=True)

    def _rest(self, lease: Lease, round_: int) -> Path:
        name = hashlib.sha256(f"{lease.run} {lease.shard}".encode()).hexdigest()[:32]
        return self._results / f"rest-{name}-{round_}"

    def prune(self, max_bytes: int = MAX_BYTES) -> None:
        """Removes the least recently used files until the rest fit. Another worker may be at work in the same folder."""
        entries = []
        for path in (*self._blobs.iterdir(), *self._results.iterdir(), *self._traces.glob("*/*")):
            with suppress(FileNotFoundError):
                entries.append((path, path.stat()))
        used = sum(stat.st_size for _, stat in entries)
        for path, stat in sorted(entries, key=lambda entry: entry[1].st_mtime):
            if used <= max_bytes:
                return
            with suppress(PermissionError):  # on Windows, what is being trained on stays
                path.unlink(missing_ok=True)
                used -= stat.st_size


def blob_of(parts: Iterable[Bytes]) -> Blob:
    """What to call bytes that are given in parts."""
    digest, size = hashlib.sha256(), 0
    for part in parts:
        digest.update(part)
        size += len(part)
    return Blob(digest.hexdigest(), size)


def write(path: Path, *parts: Bytes) -> None:
    """All or nothing: a crash leaves no half file under a real name."""
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            file.writelines(parts)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
