"""The worst day, practised: `make restore-drill`. A ticket is half trained when the backup is made; training goes on, and then the
database and all files are lost. They are restored, the books agree with the chain, and the ticket goes on until its providers are
paid, once.

It runs on a platform of its own in a fresh folder. Only the chain goes on: it is not ours to lose.
"""

import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import UUID

from contracts import devchain
from contracts.chain import Chain, Deployment, connect
from contracts.keys import load_keystore
from dmlsite.demo import Demo, DemoError, Person, wait
from dmlsite.embedded import Layout, ServerError, start_postgres
from dmlsite.supervisor import Platform
from dmlworker.datasets import samples
from scripts import backup

ELSEWHERE = ("chain.json", "deployment.json", "keys", "secret_key")
"""The chain's own state, where its contracts are, and what its guards keep: none of it is in the backup."""
SETTINGS = {
    "PROVIDERS_PER_TICKET": "2",
    "SWEEP_SECONDS": "2",
    "LEASE_SECONDS": "20",
    "PRESENCE_SECONDS": "9",
    "EXPORT_FORMATS": "none",
    "EMAIL_BACKEND": "django.core.mail.backends.filebased.EmailBackend",
}
TRAINING: dict[str, Any] = {"rounds": 6, "epochs": 8, "batch_size": 1, "learning_rate": 0.01}
"""Slow enough to be interrupted."""


class Drill:
    """One platform, lost and found. `say` is told each step."""

    def __init__(self, folder: Path, say: Callable[[str], None]) -> None:
        self.folder, self.say = folder, say
        self.ports = devchain.free_port(), devchain.free_port()
        self.platform = self._platform("before")

    def _platform(self, name: str) -> Platform:
        return Platform(self.folder / name, *self.ports, say=self.say, settings=SETTINGS)

    def run(self) -> dict[str, Any]:
        """The ticket as it is in the end. Raises DemoError, ServerError."""
        try:
            self.platform.start()
            demo = self._demo()
            customer, providers = self._people(demo)
            ticket = demo.order(customer, "cells.csv", samples.breast_cancer_csv(), **TRAINING)
            self._rounds(customer, ticket, 1)
            self._keep()
            self._rounds(customer, ticket, 2)  # what is done after the backup is lost
            self._lose()
            self._bring_back()
            for name, key in providers.items():
                self.platform.worker(name, key)
            last = self._paid(customer, ticket, demo.chain)
            self.say(self._books())
            return last
        finally:
            self.platform.stop()

    def _demo(self) -> Demo:
        keys = self.platform.layout.var / "keys"
        admin = load_keystore(keys / "admin.json", (keys / "passphrase").read_text().strip())
        chain = Chain(connect(self.platform.rpc_url), Deployment.load(self.platform.layout.var / "deployment.json"))
        return Demo(self.platform, chain, admin, self.say)

    def _people(self, demo: Demo) -> tuple[Person, dict[str, str]]:
        """A customer, and the keys of two providers with a worker each."""
        customer = demo.person("customer@dml.example", "customer", devchain.test_key(1))
        for number, name in enumerate(("ada", "bob")):
            demo.provider(name, devchain.test_key(2 + number))
        keys = {name: self.platform.children[f"worker-{name}"].env["DML_KEY"] for name in ("ada", "bob")}
        return customer, keys

    def _rounds(self, customer: Person, ticket: dict[str, Any], count: int) -> None:
        def done() -> bool:
            return len(customer.call("GET", f"tickets/{ticket['id']}/rounds")) >= count

        wait(done, 300, f"round {count} to be over")

    def _keep(self) -> None:
        self.say("a backup is made, while training goes on")
        backup.dump(self.folder / "backup", self.platform.database_url, self.platform.layout.var / "files")

    def _lose(self) -> None:
        self.say("everything is lost")
        self.platform.stop()
        safe = self.folder / "safe"
        safe.mkdir()
        for name in ELSEWHERE:
            shutil.move(self.platform.layout.var / name, safe / name)
        shutil.rmtree(self.platform.layout.var)

    def _bring_back(self) -> None:
        self.say("database and files are restored")
        self.platform = self._platform("after")
        var = self.platform.layout.var
        shutil.copytree(self.folder / "safe", var)
        server = start_postgres(Layout(var))
        try:
            backup.restore(self.folder / "backup", self.platform.database_url, var / "files")
        finally:
            server.stop()
        self.platform.start()
        self.say(self._books())

    def _books(self, seconds: float = 120) -> str:
        """What the comparison with the chain says. Raises ServerError if anything differs, or nothing can be compared in time."""
        end = time.monotonic() + seconds
        while True:  # the scanner first reads what happened meanwhile
            try:
                return self.platform.manage("reconcile")
            except ServerError:
                if time.monotonic() > end:
                    raise
                time.sleep(1)

    def _paid(self, customer: Person, ticket: dict[str, Any], chain: Chain) -> dict[str, Any]:
        def settled() -> bool:
            return chain.ticket_state(UUID(ticket["id"])) == "Settled"

        wait(settled, 600, "the providers to be paid")
        last: dict[str, Any] = customer.call("GET", f"tickets/{ticket['id']}")
        return last


def main() -> int:
    with tempfile.TemporaryDirectory(prefix="dml-drill-") as folder:
        try:
            last = Drill(Path(folder), print).run()
        except (DemoError, ServerError) as error:
            print(error, file=sys.stderr)
            return 1
    print(f"The ticket is {last['status']}, and its providers are paid.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
