"""A sign of life that jobs and the scanner give again and again, and that `manage.py healthcheck` looks for on the same machine."""

import os
import time
from pathlib import Path

from django.conf import settings

from dmlsite.embedded import made

SECONDS = 30.0
"""After which a process that gave none is taken for dead."""


def sign(name: str) -> None:
    """This process works. name: of its queue, or "scanner"."""
    (made(_folder()) / name).write_text(str(os.getpid()))


def last(name: str) -> float:
    """Seconds since the last sign; infinite if there was none."""
    try:
        return time.time() - (_folder() / name).stat().st_mtime
    except FileNotFoundError:
        return float("inf")


def _folder() -> Path:
    """Of this installation on this machine: not on a disk that others share."""
    return settings.EMBEDDED.sockets / "alive"
