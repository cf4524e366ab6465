"""What a worker may take of its provider's computer, held by the operating system: memory, core files, the turn of other programs; and no
other program is started. What is trained are a stranger's model and data, of which something may be wrong that nobody has thought of.

Called by the command line, once everything is imported; there is no way back. Linux holds all of it, other systems what they can.
"""

import os
import sys
from contextlib import suppress
from typing import Any

from dmlworker import loader
from dmlworker.protocol import Offer

GIGABYTE = 10**9
NICE = 10
"""Other programs of the computer go first."""
MAX_SPEC = 20 * 10**6
"""Bytes of a model's configuration."""
MAX_WEIGHTS = 4 * loader.MAX_PARAMETERS + 10**6
"""Bytes of its weights, with their header."""
MAX_SHARD = 4 * GIGABYTE
"""Bytes of the data of one lease: so much of the disk at once."""
_STARTS = {
    "os.system",
    "os.exec",
    "os.posix_spawn",
    "os.spawn",
    "os.fork",
    "os.forkpty",
    "subprocess.Popen",
    "pty.spawn",
}
"""Python's audit events of another program's start."""


class TooMuch(ValueError):
    """An offer asks for more than a worker gives. The text says of what."""


def check(offer: Offer) -> None:
    """Before anything of it is fetched. Raises TooMuch."""
    for what, blob, most in (
        ("model", offer.spec, MAX_SPEC),
        ("weights", offer.weights, MAX_WEIGHTS),
        ("data", offer.shard, MAX_SHARD),
    ):
        if blob.size > most:
            raise TooMuch(f"the {what} would have {blob.size:,} bytes, and a worker takes {most:,}")


def memory() -> int:
    """Bytes that a worker takes at most, if nothing else is said: three quarters of the computer's. 0 where that can't be told."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") * 3 // 4
    except (AttributeError, ValueError, OSError):
        return 0


def settle(most_memory: int) -> None:
    """Hold this process to its bounds, for good. most_memory: bytes; 0 for any. A library that asks for more fails, or ends the worker, before
    the computer has to swap."""
    _limit_memory(most_memory)
    with suppress(AttributeError, OSError):
        os.nice(NICE)
    sys.addaudithook(_no_programs)


def _limit_memory(most: int) -> None:
    try:
        import resource
    except ImportError:  # Windows
        return
    with suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # it would hold the data, and the key
    if most:
        with suppress(ValueError, OSError):  # more than it was given is refused, and then the lower bound holds
            resource.setrlimit(resource.RLIMIT_DATA, (most, most))


def _no_programs(event: str, arguments: Any) -> None:
    if event in _STARTS:
        raise PermissionError("a worker starts no other program")
