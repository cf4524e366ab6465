"""Whether a process of this machine works: 0 if so. For containers and service managers that ask by a command."""

from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from observe import alive

QUEUES = {"jobs": "default", "compute": "compute", "scanner": "scanner"}


class Command(BaseCommand):
    help = __doc__

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("process", choices=QUEUES)

    def handle(self, *args: Any, process: str, **options: Any) -> None:
        silent = alive.last(QUEUES[process])
        if silent > alive.SECONDS:
            raise CommandError(f"{process}: no sign of life in {alive.SECONDS:.0f} s")
        self.stdout.write(f"{process}: last sign of life {silent:.0f} s ago")
