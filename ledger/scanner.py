"""Reading the escrow's events: cursor + events + ledger rows in one transaction, and only of final blocks.

What lies in blocks that are not final yet is kept apart, as sightings: people see that a payment is under way, nothing
is booked, and a reorg takes a sighting away again.
"""

import time
from collections.abc import Iterator
from typing import Any
from uuid import UUID

from django.db import transaction
from django.utils import timezone

from contracts.chain import Block, Chain, ChainError, Event
from dmlsite import jobs
from ledger import books
from ledger.alarms import Kind, alarm
from ledger.models import ChainEvent, Cursor, Sighting

RANGE = 50
"""Blocks asked for at a time at first; doubled when that went fast, halved when the node refused or was slow."""
FAST, SLOW = 1.0, 5.0
"""Seconds that an answer takes."""
LARGEST = 10_000
SIGHTED = "tickets.tasks.sighted"
"""Is told the case of a payment that came into sight, or out of it."""


class WrongChain(ChainError):
    """The node serves another chain than the one that the books were written from."""


def require_same_chain(on: Chain) -> None:
    """Raises WrongChain, and alarms, if the last block that was read is not on this chain (any more)."""
    cursor = _row(on)
    if cursor and cursor.block_hash and on.block(cursor.block).hash != cursor.block_hash:
        alarm(Kind.ANOTHER_CHAIN, f"final block {cursor.block} is no longer {cursor.block_hash}")
        raise WrongChain(f"Block {cursor.block} was final and has changed: this is another chain.")


def _row(on: Chain) -> Cursor | None:
    return Cursor.objects.filter(chain_id=on.deployment.chain_id, escrow=on.deployment.escrow).first()


class Scanner:
    """Follows one escrow. In memory are only the range's size and where it looked last; how far it got is the cursor's
    row."""

    def __init__(self, on: Chain) -> None:
        self.chain = on
        self.range = RANGE
        self._looked = ("", "")

    def scan(self) -> int:
        """Read what became final since the last time. Returns the number of new events."""
        require_same_chain(self.chain)
        cursor, final, count = self._cursor(), self.chain.finalized(), 0
        while cursor.block < final.number:
            last = min(cursor.block + self.range, final.number)
            events = self._ask(cursor.block + 1, last)
            if events is not None and self._record(cursor, self.chain.block(last), events):
                count += len(events)
            cursor.refresh_from_db()
        self._look_ahead(final)
        return count

    def _cursor(self) -> Cursor:
        about = self.chain.deployment
        start = {"block": about.block - 1}
        return Cursor.objects.get_or_create(chain_id=about.chain_id, escrow=about.escrow, defaults=start)[0]

    def _ask(self, first: int, last: int) -> list[Event] | None:
        """The events of a range; None if it was too much for the node, and less is to be asked for."""
        began = time.monotonic()
        try:
            events = self.chain.events(first, last)
        except ChainError:
            if first == last:
                raise
            self.range = max(1, (last - first + 1) // 2)
            return None
        self._adapt(last - first + 1, time.monotonic() - began)
        return events

    def _adapt(self, asked: int, seconds: float) -> None:
        if seconds > SLOW:
            self.range = max(1, asked // 2)
        elif seconds < FAST and asked == self.range:
            self.range = min(2 * self.range, LARGEST)

    def _record(self, cursor: Cursor, last: Block, events: list[Event]) -> bool:
        """Book it all, unless another scanner was faster."""
        with transaction.atomic():
            locked = Cursor.objects.select_for_update().get(pk=cursor.pk)
            if locked.block != cursor.block:
                return False
            for event in events:
                books.record(ChainEvent.objects.create(**self._fields(event)))
            locked.block, locked.block_hash = last.number, last.hash
            locked.save()
        return True

    def _fields(self, event: Event) -> dict[str, Any]:
        args = {name: str(value) if isinstance(value, UUID) else value for name, value in event.args.items()}
        return {
            "chain_id": self.chain.deployment.chain_id,
            "block": event.block,
            "block_hash": event.block_hash,
            "log_index": event.log_index,
            "tx": event.tx,
            "name": event.name,
            "args": args,
            "case": case_of(event),
            "followed": None if event.name in books.NUDGES else timezone.now(),
        }

    # --- Blocks that are not final yet

    def _look_ahead(self, final: Block) -> None:
        """Make the sightings what the blocks after the final one hold now, whatever they held before."""
        head = self.chain.head()
        if self._looked == (final.hash, head.hash):
            return
        seen = {_key(row): row for row in self._sight(final.number + 1, head.number)}
        known = {_key(row): row for row in Sighting.objects.all()}
        gone, new = known.keys() - seen.keys(), seen.keys() - known.keys()
        with transaction.atomic():
            Sighting.objects.filter(pk__in=[known[one].pk for one in gone]).delete()
            Sighting.objects.bulk_create(seen[one] for one in new)
            for case in {case for name, case, *_ in gone | new if name == "Paid"}:
                jobs.enqueue(SIGHTED, str(case))
        self._looked = (final.hash, head.hash)

    def _sight(self, first: int, last: int) -> Iterator[Sighting]:
        while first <= last:
            until = min(first + self.range - 1, last)
            events = self._ask(first, until)
            if events is None:
                continue
            for event in events:
                if case := case_of(event):
                    place = {"tx": event.tx, "block": event.block, "block_hash": event.block_hash}
                    yield Sighting(name=event.name, case=case, **place)
            first = until + 1


def case_of(event: Event) -> UUID | None:
    """The ticket or case that an event is about; for a deposit, the provider that it names."""
    found = next((value for value in event.args.values() if isinstance(value, UUID)), None)
    number = int(event.args.get("ref", "0x0"), 16)
    return found or (UUID(int=number) if 0 < number < 1 << 128 else None)


def _key(row: Sighting) -> tuple[str, UUID, str, str]:
    return row.name, row.case, row.tx, row.block_hash
