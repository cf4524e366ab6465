"""A customer's file straight into the object store (S3's multipart uploads), past our processes: they give signed addresses for its
parts, and look at what came before anything is opened.

Nothing is noted of it here: what belongs to an upload is in its signed token. Each address takes one part of just its size, for
STORE_LINK_SECONDS; the store drops what is never finished (deploy/README.md).
"""

import hashlib
import secrets
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

from django.core import signing
from django.core.files.storage import default_storage

from dmlsite.errors import Conflict, Invalid
from tickets import actions, files
from tickets.models import Dataset, Ticket

PART = 16 * 10**6
"""Bytes of each part but the last. S3 wants 5 MiB at least, and 10,000 parts at most."""
AT_ONCE = 100
"""Addresses in one answer, at most."""
SECONDS = 24 * 3600
"""How long an upload may take."""
SALT = "tickets.direct"
CHUNK = 1 << 20


@dataclass(frozen=True)
class Direct:
    """An upload that was begun: `key` and `upload` are the store's names of it."""

    ticket: str
    name: str
    size: int
    key: str
    upload: str

    @property
    def parts(self) -> int:
        return -(-self.size // PART)

    def length(self, number: int) -> int:
        """Bytes of a part; they count from 1."""
        return min(PART, self.size - (number - 1) * PART)

    @property
    def token(self) -> str:
        return signing.dumps(asdict(self), salt=SALT)


def begin(ticket: Ticket, name: str, size: int) -> Direct:
    """Raises Conflict where files lie on a disk, and as an upload does: before payment, or when the file is too large."""
    actions.require_upload(ticket, size)
    key = f"direct/{ticket.pk}/{secrets.token_hex(8)}"
    return Direct(str(ticket.pk), name, size, key, _store().begin_parts(key))


def opened(ticket: Ticket, token: str) -> Direct:
    """What a token of this ticket says. Raises Invalid."""
    try:
        found = Direct(**signing.loads(token, salt=SALT, max_age=SECONDS))
    except signing.BadSignature:
        raise Invalid("This upload is not known, or was begun more than a day ago. Please begin anew.") from None
    if found.ticket != str(ticket.pk):
        raise Invalid("This upload belongs to another ticket.")
    return found


def links(direct: Direct, numbers: Iterable[int]) -> dict[int, str]:
    """Where these parts go, by `PUT`."""
    wanted = set(numbers)
    if len(wanted) > AT_ONCE or not all(1 <= number <= direct.parts for number in wanted):
        raise Invalid(f"Parts are numbered from 1 to {direct.parts}; ask for {AT_ONCE} at most.")
    return {n: _store().part_link(direct.key, direct.upload, n, direct.length(n)) for n in sorted(wanted)}


def here(direct: Direct) -> list[int]:
    """The parts that have come: an upload that broke goes on with the others. Raises Conflict if the store has forgotten it."""
    return sorted(_store().parts(direct.key, direct.upload))


def finish(ticket: Ticket, direct: Direct, sha256: str, actor: str) -> Dataset:
    """Make the ticket's file of the parts. It is copied to where no address that we gave leads to, and measured there. Raises Conflict if
    parts are missing, Invalid if the bytes are others than was said; `sha256` is empty where nothing was said."""
    actions.require_upload(ticket, direct.size)
    came = _store().parts(direct.key, direct.upload)
    if {number: size for number, (_, size) in came.items()} != {
        n: direct.length(n) for n in range(1, direct.parts + 1)
    }:
        raise Conflict(f"{len(came)} of {direct.parts} parts are here.")
    _store().put_together(direct.key, direct.upload, {number: tag for number, (tag, _) in came.items()})
    name = _store().moved(direct.key, actions.dataset_name(ticket, direct.name))
    try:
        size, digest = _measured(name)
        if size != direct.size or sha256 not in ("", digest):
            raise Invalid("What came is not the file that was announced. Please upload it again.")
    except BaseException:
        files.let_go([name])
        raise
    return actions.accept(Dataset(ticket=ticket, name=direct.name, size=size, sha256=digest, file=name), actor)


def _measured(name: str) -> tuple[int, str]:
    """Bytes and SHA-256, of what is in the store."""
    size, digest = 0, hashlib.sha256()
    with default_storage.open(name) as file:
        while chunk := file.read(CHUNK):
            size += len(chunk)
            digest.update(chunk)
    return size, digest.hexdigest()


def _store() -> Any:
    """Raises Conflict where there is no store that takes parts."""
    if not hasattr(default_storage, "begin_parts"):
        raise Conflict("This platform takes files itself: send it to `file` or `uploads`.")
    return default_storage
