"""What the provider sees: a progress bar on a terminal, plain lines elsewhere."""

import contextlib
import sys
import time
from types import TracebackType

from rich.progress import (
    BarColumn,
    Progress,
    SpinnerColumn,
    TaskID,
    TaskProgressColumn,
    TextColumn,
    TimeRemainingColumn,
)

from dmlworker.protocol import Lease

_SECONDS_BETWEEN_LINES = 15.0


def named(lease: Lease) -> str:
    """A lease for people: rounds and shards counted from 1."""
    again = f", attempt {lease.attempt}" if lease.attempt > 1 else ""
    return f"run {lease.run[:8]}, round {lease.round}, shard {lease.shard + 1}{again}"


class Display:
    """Plain lines, each written at once, so that a log file or a pipe is up to date."""

    def __enter__(self) -> "Display":
        self._last = 0.0
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass

    def say(self, text: str) -> None:
        """A line about the connection or the work. One that can't be written, on a full disk, is not worth ending for."""
        with contextlib.suppress(OSError):
            print(f"{time.strftime('%H:%M:%S')} {text}", flush=True)

    def progress(self, lease: Lease, step: int, steps: int, loss: float) -> None:
        """How far the training of a lease is."""
        now = time.monotonic()
        if now - self._last >= _SECONDS_BETWEEN_LINES:
            self._last = now
            self.say(f"{named(lease)}: {step * 100 // max(1, steps)} % (loss {loss:.3f})")

    def finished(self) -> None:
        """The work in hand is done or dropped."""


class TerminalDisplay(Display):
    """The same with a bar for the work in hand."""

    def __enter__(self) -> "TerminalDisplay":
        columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), TaskProgressColumn())
        self._bars = Progress(*columns, TimeRemainingColumn(), TextColumn("{task.fields[loss]}"), transient=True)
        self._task: TaskID | None = None
        self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bars.stop()

    def say(self, text: str) -> None:
        self._bars.console.print(f"[dim]{time.strftime('%H:%M:%S')}[/] ", end="")
        self._bars.console.print(text, markup=False, highlight=False)

    def progress(self, lease: Lease, step: int, steps: int, loss: float) -> None:
        if self._task is None:
            self._task = self._bars.add_task("", loss="")
        description = named(lease)
        self._bars.update(self._task, description=description, completed=step, total=steps, loss=f"loss {loss:.3f}")

    def finished(self) -> None:
        if self._task is not None:
            self._bars.remove_task(self._task)
            self._task = None


def display() -> Display:
    """The one that fits where standard output goes."""
    return TerminalDisplay() if sys.stdout.isatty() else Display()
