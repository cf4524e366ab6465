"""What the platform says, as values; and what a caller is told meanwhile."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

MICRO = 10**6
"""micro-DML in a DML."""
ENDED = frozenset({"settled", "refunded", "expired"})


def micro(price: Decimal | str | int | float) -> int:
    """DML as micro-DML. Raises ValueError for what is no price."""
    try:
        found = Decimal(str(price)) * MICRO
        whole = int(found)
    except (ArithmeticError, ValueError):
        raise ValueError(f"{price!r} is no price in DML.") from None
    if found != whole or whole < 0:
        raise ValueError(f"{price!r} is no price in DML.")
    return whole


@dataclass(frozen=True)
class Happened:
    """A line of a ticket's timeline. old, new: the status, where it changed."""

    at: datetime
    kind: str
    text: str
    old: str = ""
    new: str = ""


@dataclass(frozen=True)
class Round:
    """accuracy (0..1), loss: measured on data that no provider saw, once the round is closed."""

    number: int
    state: str
    accuracy: float | None
    loss: float | None


@dataclass(frozen=True)
class Payment:
    """How a ticket is being paid: by the transaction `tx`, or by whoever opens `link`."""

    link: str
    tx: str = ""


@dataclass(frozen=True)
class Sent:
    """Bytes of the upload that are there."""

    done: int
    total: int


@dataclass(frozen=True)
class Received:
    """Bytes of a file that are here."""

    name: str
    done: int
    total: int


@dataclass(frozen=True)
class Ticket:
    """A ticket as it was when it was asked for. price: DML; price_micro: 10^-6 DML. fields: all that the platform said, the
    training's options among it. payment: the transaction that pays, with a fresh quote."""

    id: str
    status: str
    file_name: str
    file_size: int
    price: Decimal
    price_micro: int
    payer: str
    pay_by: datetime
    settle_by: datetime
    outcome: str
    accuracy: float | None
    events: tuple[Happened, ...]
    fields: Mapping[str, Any] = field(repr=False)

    @property
    def ended(self) -> bool:
        return self.status in ENDED

    @classmethod
    def of(cls, said: Mapping[str, Any]) -> "Ticket":
        return cls(
            id=said["id"],
            status=said["status"],
            file_name=said["file_name"],
            file_size=said["file_size"],
            price=Decimal(said["price"]),
            price_micro=said["price_micro"],
            payer=said["payer"],
            pay_by=datetime.fromisoformat(said["pay_by"]),
            settle_by=datetime.fromisoformat(said["settle_by"]),
            outcome=said["outcome"],
            accuracy=said["accuracy"],
            events=tuple(_happened(event) for event in said.get("events", ())),
            fields={name: value for name, value in said.items() if name != "events"},
        )


def _happened(said: Mapping[str, Any]) -> Happened:
    at = datetime.fromisoformat(said["at"])
    return Happened(at, said["kind"], said["text"], said["old"] or "", said["new"] or "")


Event = Ticket | Happened | Round | Payment | Sent | Received
"""What a caller is told. A Ticket: it was ordered."""


@dataclass(frozen=True)
class Terms:
    """The chain and the contracts that payments go to. Addresses in any case."""

    chain_id: int
    token: str
    escrow: str


@dataclass(frozen=True)
class File:
    """A file of the result. url: signed, and runs out."""

    name: str
    size: int
    sha256: str
    url: str = field(repr=False)


@dataclass(frozen=True)
class Result:
    """A model that was trained. files: by name, each verified by its SHA-256."""

    ticket: Ticket
    files: Mapping[str, Path]

    @property
    def accuracy(self) -> float | None:
        """0..1, on the part of the data that no provider saw."""
        return self.ticket.accuracy

    def model(self) -> Any:
        """The Keras model. Needs Keras: pip install "dml-client[sklearn]"."""
        from keras.saving import load_model

        return load_model(self.files["model.keras"])
