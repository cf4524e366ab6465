"""A whole platform in real processes, for the end-to-end and browser tests."""

from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest

from contracts import devchain
from contracts.chain import Chain, Deployment, connect
from contracts.keys import load_keystore
from dmlsite.demo import COINS, Demo, Person
from dmlsite.supervisor import Platform
from dmlsite.testing import SERVICES, room
from scripts import services

EXPLORER = "https://explorer.example"
SETTINGS = {
    "CHAIN_EXPLORER": EXPLORER,
    "EMAIL_BACKEND": "django.core.mail.backends.filebased.EmailBackend",
    "LEASE_SECONDS": "20",
    "PRESENCE_SECONDS": "9",
    "SWEEP_SECONDS": "2",
    "LOGIN_RATE": "1000/m",
    "EXPORT_FORMATS": "none",  # tested by themselves, and in the demo
}


class Live(Demo):
    """A running platform, and people who use it."""

    def __init__(self, platform: Platform) -> None:
        self.var = platform.layout.var
        self.deployment = Deployment.load(self.var / "deployment.json")
        keys = self.var / "keys"
        self.admin = load_keystore(keys / "admin.json", (keys / "passphrase").read_text().strip())
        super().__init__(platform, Chain(connect(platform.rpc_url), self.deployment), self.admin, print)
        self.url, self.rpc_url = platform.url, platform.rpc_url
        self.cast: list[Person] = []

    def fund(self, address: str) -> None:
        """Test coins and 100 DML."""
        devchain.fund(self.rpc_url, address, COINS)
        self.chain.send(self.chain.transfer_call(address, 100 * 10**6), self.admin)

    def workers(self, count: int) -> list[Person]:
        """At least this many honest providers with a worker online."""
        while len(self.cast) < count:
            number = len(self.cast)
            self.cast.append(self.provider(f"provider-{number}", devchain.test_key(2 + number)))
        return self.cast

    def admin_account(self, email: str, password: str) -> None:
        """A superuser."""
        self.platform.env["DJANGO_SUPERUSER_PASSWORD"] = password
        self.platform.manage("createsuperuser", "--noinput", "--email", email)

    def query(self, sql: str, *values: object) -> list[tuple[Any, ...]]:
        """Look into the platform's own database."""
        with psycopg.connect(self.platform.database_url) as connection:
            return connection.execute(sql, values).fetchall()  # type: ignore[arg-type]

    def blob(self, sha256: str) -> bytes:
        if SERVICES:
            return services.stored(self.platform.env, f"blobs/{sha256[:2]}/{sha256}")
        return (self.var / "files" / "blobs" / sha256[:2] / sha256).read_bytes()


running: list[Path] = []
"""The log folders of the platforms that are up."""


@contextmanager
def up(platform: Platform) -> Iterator[Platform]:
    """Started, and stopped at the end; a test that fails meanwhile shows the end of every log."""
    logs = platform.layout.var / "log"
    platform.start()
    running.append(logs)
    try:
        yield platform
    finally:
        running.remove(logs)
        platform.stop()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.failed:
        for log in sorted(path for folder in running for path in folder.glob("*.log")):
            report.sections.append((f"the end of {log.name}", log.read_text(errors="replace")[-3000:]))
    return report


@pytest.fixture(scope="session")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    """PostgreSQL, Redis, anvil, web, jobs and scanner, each a process, on free loopback ports."""
    var: Path = tmp_path_factory.mktemp("platform")
    settings = SETTINGS | room(var)
    with up(Platform(var, devchain.free_port(), devchain.free_port(), say=print, settings=settings)) as started:
        yield Live(started)
