"""An SMTP server that delivers nothing: what it takes becomes a file in the folder of the user who logged in.

python -m scripts.mailbox PORT FOLDER
"""

import asyncio
import itertools
import sys
import time
from pathlib import Path
from typing import Any

from aiosmtpd.controller import UnthreadedController
from aiosmtpd.smtp import AuthResult, Envelope, LoginPassword, Session

numbers = itertools.count()


class Folder:
    """What Django's file backend would have written: a file `*.log` for each mail."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    async def handle_DATA(self, server: object, session: Session, envelope: Envelope) -> str:
        place = self.folder / (session.auth_data or b"nobody").decode()
        place.mkdir(parents=True, exist_ok=True)
        half = place / f"{time.time_ns()}-{next(numbers)}.half"
        half.write_bytes(envelope.content or b"")  # type: ignore[arg-type]
        half.rename(half.with_suffix(".log"))
        return "250 OK"


def known(server: object, session: object, envelope: object, kind: str, said: Any) -> AuthResult:
    """Anybody who gives a name, which becomes a folder's."""
    if isinstance(said, LoginPassword) and said.login.isalnum():
        return AuthResult(success=True, auth_data=said.login)
    return AuthResult(success=False)


def main(port: int, folder: Path) -> None:
    loop = asyncio.new_event_loop()
    UnthreadedController(
        Folder(folder), "127.0.0.1", port, loop=loop, authenticator=known, auth_require_tls=False
    ).begin()
    loop.run_forever()


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]))
