"""A whole platform, a customer with a key and a wallet in a file, and a line to the platform that can be cut."""

import select
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from eth_account import Account

from contracts.keys import make_keystore
from dmlclient import DML, Keystore
from dmlsite.demo import Person
from tests.conftest import Live, platform, pytest_runtest_makereport

__all__ = ["platform", "pytest_runtest_makereport"]
PASSPHRASE = "correct horse"


@pytest.fixture(scope="session")
def customer(platform: Live) -> Person:
    """With coins, and 100 DML."""
    person = platform.person("ada@example.org", "customer", Account.create())
    platform.fund(person.wallet.address)
    return person


@pytest.fixture(scope="session")
def key(customer: Person) -> str:
    return str(customer.call("POST", "keys", json={"name": "tests"})["key"])


@pytest.fixture(scope="session")
def keystore(customer: Person, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("wallet") / "keystore.json"
    make_keystore(path, PASSPHRASE, key=customer.wallet, iterations=2)
    return path


@pytest.fixture(scope="session")
def wallet(platform: Live, keystore: Path) -> Keystore:
    return Keystore(keystore, PASSPHRASE, platform.rpc_url)


@pytest.fixture
def client(platform: Live, key: str) -> Iterator[DML]:
    with DML(platform.url, key, timeout=30) as made:
        yield made


class Line:
    """Passes bytes on to a port of this machine, and breaks: the n-th connection after cuts[n] bytes from the client."""

    def __init__(self, port: int, cuts: list[int]) -> None:
        self._port, self._cuts = port, cuts
        self._here = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._here.getsockname()[1]
        self.broken = 0
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                near, _ = self._here.accept()
            except OSError:
                return
            threading.Thread(target=self._pass_on, args=(near,), daemon=True).start()

    def _pass_on(self, near: socket.socket) -> None:
        limit = self._cuts.pop(0) if self._cuts else 1 << 60
        with near, socket.create_connection(("localhost", self._port)) as far:
            while limit > 0:
                for ready in select.select([near, far], [], [])[0]:
                    if not (data := ready.recv(1 << 16)):
                        return
                    (far if ready is near else near).sendall(data)
                    limit -= len(data) if ready is near else 0
            self.broken += 1

    def close(self) -> None:
        self._here.close()


@pytest.fixture
def line(platform: Live) -> Iterator[Line]:
    made = Line(platform.platform.port, [])
    yield made
    made.close()
