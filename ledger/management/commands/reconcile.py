"""Compare the books with the chain at one final block; exit code 1 if anything differs."""

import sys
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from contracts.chain import ChainError
from ledger.gateway import chain
from ledger.reconcile import NotYet, reconcile


class Command(BaseCommand):
    help = __doc__

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            found = reconcile(chain())
        except (ChainError, NotYet) as error:
            raise CommandError(str(error)) from error
        for row in found:
            mark = "equal" if row.difference == 0 else f"DIFFERS by {row.difference}"
            self.stdout.write(f"{row.name}: {row.left} {row.right} {mark}")
        if any(row.difference for row in found):
            sys.exit(1)
