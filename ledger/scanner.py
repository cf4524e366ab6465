"""Reading the escrow's events: only final blocks, and cursor + events + ledger rows in one transaction."""

from typing import Any
from uuid import UUID

from django.db import transaction
from django.utils import timezone

from contracts.chain import Block, Chain, ChainError, Event
from ledger import actions
from ledger.models import ChainEvent, Cursor

RANGE = 50
"""Blocks asked for at a time at first; doubled when that went well, halved when the node refused."""


class Scanner:
    """Follows one escrow. Holds only the range's size in memory; how far it got is the cursor's row."""

    def __init__(self, on: Chain) -> None:
        self.chain = on
        self.range = RANGE

    def scan(self) -> int:
        """Read what became final since the last time. Returns the number of new events."""
        cursor, final, count = self._cursor(), self.chain.finalized(), 0
        while cursor.block < final.number:
            count += self._step(cursor, final)
            cursor.refresh_from_db()
        return count

    def _cursor(self) -> Cursor:
        about = self.chain.deployment
        cursor, _ = Cursor.objects.get_or_create(
            chain_id=about.chain_id, escrow=about.escrow, defaults={"block": about.block - 1}
        )
        if cursor.block_hash and self.chain.block(cursor.block).hash != cursor.block_hash:
            actions.alarm("another chain", f"final block {cursor.block} is no longer {cursor.block_hash}")
            raise ChainError(f"Block {cursor.block} was final and has changed: this is another chain.")
        return cursor

    def _step(self, cursor: Cursor, final: Block) -> int:
        last = min(cursor.block + self.range, final.number)
        try:
            events = self.chain.events(cursor.block + 1, last)
        except ChainError:
            if self.range == 1:
                raise
            self.range = max(1, self.range // 2)
            return 0
        self.range *= 2
        self._record(cursor, self.chain.block(last), events)
        return len(events)

    def _record(self, cursor: Cursor, last: Block, events: list[Event]) -> None:
        with transaction.atomic():
            locked = Cursor.objects.select_for_update().get(pk=cursor.pk)
            if locked.block != cursor.block:
                return  # another scanner was faster
            for event in events:
                actions.record(ChainEvent.objects.create(**self._row(event)))
            locked.block, locked.block_hash = last.number, last.hash
            locked.save()

    def _row(self, event: Event) -> dict[str, Any]:
        case = next((value for value in event.args.values() if isinstance(value, UUID)), None) or _ref(event)
        args = {name: str(value) if isinstance(value, UUID) else value for name, value in event.args.items()}
        return {
            "chain_id": self.chain.deployment.chain_id,
            "block": event.block,
            "block_hash": event.block_hash,
            "log_index": event.log_index,
            "tx": event.tx,
            "name": event.name,
            "args": args,
            "case": case,
            "followed": None if event.name in actions.NUDGES else timezone.now(),
        }


def _ref(event: Event) -> UUID | None:
    """The provider that a deposit names, if the 32 bytes hold one of our ids."""
    number = int(event.args.get("ref", "0x0"), 16)
    return UUID(int=number) if 0 < number < 1 << 128 else None
