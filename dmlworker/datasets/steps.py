"""How far the reading of a file is, told to whoever listens."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_listener: ContextVar[Callable[[float], None] | None] = ContextVar("listener", default=None)


@contextmanager
def heard(listener: Callable[[float], None]) -> Iterator[None]:
    """What is read in here says now and then how much of it was: 0 to 1, and again from 0 if it is read once more."""
    token = _listener.set(listener)
    try:
        yield
    finally:
        _listener.reset(token)


def tell(done: int, of: int) -> None:
    if listener := _listener.get():
        listener(min(1.0, done / max(of, 1)))
