"""Follow the chain: read the escrow's events, confirm what was sent, and wake the sweeps.

The one process with a clock. There may be several, on several machines: one leads, and the others wait for its end.
"""

import logging
import signal
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand
from django.db import DatabaseError, close_old_connections

from contracts.chain import ChainError
from dmlsite import jobs
from ledger import outbox
from ledger.gateway import chain
from ledger.scanner import Scanner
from ledger.watch import Standstill
from observe import alive, metrics, traces

log = logging.getLogger(__name__)
SWEEPS = ("ledger.tasks.sweep", "tickets.tasks.sweep", "providers.tasks.sweep", "training.tasks.sweep")
RECONCILE = "ledger.tasks.reconcile"


class Every:
    """Says at most once in so many seconds that it is time."""

    def __init__(self, seconds: float) -> None:
        self.seconds, self.last = seconds, -seconds

    def due(self) -> bool:
        if time.monotonic() - self.last < self.seconds:
            return False
        self.last = time.monotonic()
        return True


class Command(BaseCommand):
    help = __doc__

    def handle(self, *args: Any, **options: Any) -> None:
        stop = threading.Event()
        for name in (signal.SIGTERM, signal.SIGINT):
            signal.signal(name, lambda *_: stop.set())
        traces.start("scanner")
        metrics.serve()
        self.scanner: Scanner | None = None
        self.standstill = Standstill()
        self.lead = jobs.Lead("scan_chain")
        sweeps, reconciliations = Every(settings.SWEEP_SECONDS), Every(settings.RECONCILE_SECONDS)
        while not stop.wait(settings.SCAN_SECONDS):
            close_old_connections()
            alive.sign("scanner")
            if not self._leads():
                continue
            self._try(self._scan)
            self._try(lambda: outbox.confirm(chain()))
            if sweeps.due():
                self._enqueue(*SWEEPS)
            if reconciliations.due():
                self._enqueue(RECONCILE)

    def _leads(self) -> bool:
        try:
            return self.lead.taken()
        except DatabaseError as error:
            log.warning("%s", error)
            return False

    def _try(self, step: Callable[[], object]) -> None:
        """What fails now is done the next time; only when that goes on for long, somebody is told."""
        try:
            step()
        except (ChainError, DatabaseError) as error:
            log.warning("scan: %s", error)
            problem = str(error)
            self._without_database(lambda: self.standstill.silent(problem))

    def _scan(self) -> None:
        self.scanner = self.scanner or Scanner(chain())
        self.scanner.scan()
        self.standstill.heard(self.scanner.chain.finalized(), self.scanner.chain.head())

    def _enqueue(self, *names: str) -> None:
        for name in names:
            self._without_database(partial(jobs.enqueue, name))

    def _without_database(self, step: Callable[[], object]) -> None:
        try:
            step()
        except DatabaseError as error:
            log.warning("%s", error)
