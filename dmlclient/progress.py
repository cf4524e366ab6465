"""How far it is, on a terminal: one line that is written over and over. Elsewhere only what somebody has to do: where to pay."""

import shutil
import sys
from types import TracebackType
from typing import TextIO

from dmlclient.records import Event, Happened, Payment, Received, Round, Sent, Ticket

WIDTH = 24
"""Characters of a whole bar."""


class Progress:
    """Told what happens. `say` and the bar share the line: a line of text pushes the bar down."""

    def __init__(self, out: TextIO | None = None) -> None:
        self._out = out or sys.stderr
        self._shown, self._rounds = self._out.isatty(), 0

    def __enter__(self) -> "Progress":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._write("\r\x1b[K")

    def __call__(self, event: Event) -> None:
        match event:
            case Ticket():
                self.of(event)
                self.say(f"Ticket {event.id}: {event.price} DML for {event.file_size:,} bytes")
            case Payment(link, tx):
                if tx:
                    self.say(f"Paying with {tx}")
                else:
                    self.ask(f"Please pay at {link}")
                self._bar("Waiting for the payment to be final", 0, 0)
            case Sent(done, total):
                self._bar("Sending the data", done, total)
            case Received(name, done, total):
                self._bar(f"Received {name}", done, total)
            case Round(number, _, accuracy, _) if accuracy is not None:
                self._bar(f"Round {number}: {accuracy:.1%} right", number, self._rounds)
            case Happened(new=new, text=text) if new:
                self.say(f"{new}{f': {text}' * bool(text)}")

    def of(self, ticket: Ticket) -> None:
        """Whose rounds are coming."""
        self._rounds = int(ticket.fields["rounds"])

    def say(self, text: str) -> None:
        self._write(f"\r\x1b[K{_clean(text)}\n")

    def ask(self, text: str) -> None:
        """As `say`, and not on a terminal only: without an answer nothing goes on."""
        if self._shown:
            self.say(text)
        else:
            print(_clean(text), file=self._out, flush=True)

    def _bar(self, text: str, done: int, total: int) -> None:
        part = done / total if total else 0.0
        full = round(part * WIDTH)
        line = f"[{'#' * full}{'.' * (WIDTH - full)}] {part:4.0%} {_clean(text)}"
        self._write(f"\r\x1b[K{line[: shutil.get_terminal_size().columns - 1]}")

    def _write(self, text: str) -> None:
        if self._shown:
            self._out.write(text)
            self._out.flush()


def _clean(text: str) -> str:
    """What the platform says can't command the terminal."""
    return "".join(char if char.isprintable() else " " for char in text)
