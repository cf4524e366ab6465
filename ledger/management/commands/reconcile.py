"""Compare the books with the chain at one final block; exit code 1 if anything differs.

The result is kept; a difference alarms the admins and stops payouts until one of them clears the alarm.
"""

import sys
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from contracts.chain import ChainError
from ledger import money
from ledger.gateway import chain
from ledger.reconcile import NotYet, reconcile


class Command(BaseCommand):
    help = __doc__

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            found = reconcile(chain())
        except (ChainError, NotYet) as error:
            raise CommandError(str(error)) from error
        self.stdout.write(f"At block {found.block}:")
        for row in found.rows:
            left, right, off = (
                money.text(n, row["currency"]) for n in (row["left"], row["right"], row["left"] - row["right"])
            )
            mark = "equal" if row["left"] == row["right"] else "DIFFERS"
            self.stdout.write(f"{row['name']:<48} {left:>22} {right:>22}   off by {off}   {mark}")
        if not found.balanced:
            sys.exit(1)
