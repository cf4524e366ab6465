"""All files of a ticket as one ZIP, made while it is sent: neither in memory as a whole nor on the disk."""

import io
import zipfile
from collections.abc import Iterable, Iterator

from tickets.models import Artifact

CHUNK = 1 << 20


class _Pipe(io.RawIOBase):
    """Takes what a ZipFile writes, until it is taken on."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []

    def writable(self) -> bool:
        return True

    def write(self, data: bytes) -> int:  # type: ignore[override]
        self._parts.append(bytes(data))
        return len(data)

    def take(self) -> bytes:
        taken, self._parts = b"".join(self._parts), []
        return taken


def stream(artifacts: Iterable[Artifact]) -> Iterator[bytes]:
    """Not compressed: weights do not get smaller. Raises FileNotFoundError for a file that went meanwhile."""
    pipe = _Pipe()
    with zipfile.ZipFile(pipe, "w") as bundle:
        for artifact in artifacts:
            entry = zipfile.ZipInfo(artifact.name, artifact.created.timetuple()[:6])
            with artifact.file.open("rb") as file, bundle.open(entry, "w", force_zip64=True) as part:
                while chunk := file.read(CHUNK):
                    part.write(chunk)
                    yield pipe.take()
    yield pipe.take()
