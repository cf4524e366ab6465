"""Follow the chain: read the escrow's final events, confirm what was sent, and wake the sweeps.

The one process with a clock. Everything it does is idempotent; two of them are wasteful, not wrong.
"""

import logging
import signal
import threading
import time
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand
from django.db import DatabaseError, close_old_connections

from contracts.chain import ChainError
from dmlsite import jobs
from ledger import outbox
from ledger.gateway import chain
from ledger.scanner import Scanner

log = logging.getLogger(__name__)
SWEEPS = ("ledger.tasks.sweep", "tickets.tasks.sweep", "training.tasks.sweep")


class Command(BaseCommand):
    help = __doc__

    def handle(self, *args: Any, **options: Any) -> None:
        stop = threading.Event()
        for name in (signal.SIGTERM, signal.SIGINT):
            signal.signal(name, lambda *_: stop.set())
        scanner, swept = None, 0.0
        while not stop.wait(settings.SCAN_SECONDS):
            close_old_connections()
            try:
                scanner = scanner or Scanner(chain())
                scanner.scan()
                outbox.confirm(scanner.chain)
            except (ChainError, DatabaseError) as error:
                log.warning("scan: %s", error)
            if time.monotonic() - swept > settings.SWEEP_SECONDS:
                swept = time.monotonic()
                for sweep in SWEEPS:
                    self._sweep(sweep)

    def _sweep(self, name: str) -> None:
        try:
            jobs.enqueue(name)
        except DatabaseError as error:
            log.warning("sweep: %s", error)
