"""pytest plugin: the embedded servers for the tests, in a `var` folder of their own; a real chain; jobs run inline.

With DML_SERVICES, the folder of running services (scripts/services.py), the tests run on a room there instead: PostgreSQL, Redis,
RabbitMQ and an object store from the environment, as on many machines. Every process, and every platform that a test starts, has a
room of its own.

It is loaded by name in pyproject.toml, before Django reads its settings.
"""

import os
import sys
from collections.abc import Iterator
from io import StringIO
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import pytest
from hypothesis import settings

settings.register_profile("no times are asserted", deadline=None)
settings.load_profile("no times are asserted")
ROOT = Path(__file__).resolve().parent.parent
PROCESS = os.environ.get("PYTEST_XDIST_WORKER", "")
"""Named where tests run side by side (pytest -n): each process has servers of its own."""
os.environ["DML_VAR_DIR"] = str(Path(os.environ.get("DML_VAR_DIR", ROOT / "var" / "test")) / PROCESS)
SERVICES = os.environ.get("DML_SERVICES", "")
"""Empty: the embedded default."""


def room(var: Path, store: str = "s3") -> dict[str, str]:
    """What a platform in `var` needs to know to live in a room of its own, with its files in this `store`. Nothing where it brings its
    own servers."""
    if not SERVICES:
        return {}
    from scripts import services

    stack = services.Stack.load(Path(SERVICES))
    found = services.room(stack, store)
    (var / "mail").symlink_to(services.mails(stack, found))  # where tests look for mails
    return found


def _move_in() -> None:
    """Before Django reads its settings. Mail stays with the tests: those that send some look at what would have gone out."""
    if SERVICES:
        from scripts import services

        found = services.room(services.Stack.load(Path(SERVICES)))
        os.environ.update({name: value for name, value in found.items() if not name.startswith("EMAIL_")})


_move_in()
os.environ.setdefault("EMAIL_BACKEND", "django.core.mail.backends.locmem.EmailBackend")
os.environ.setdefault("ERROR_MAILS_PER_HOUR", "0")  # they would come when another test looks into its mails
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """In CI nothing is skipped: what could not run has failed."""
    skipped = terminalreporter.stats.get("skipped", [])
    if skipped and os.environ.get("CI"):
        terminalreporter.write_line(f"{len(skipped)} tests were skipped, which CI does not allow", red=True)
        terminalreporter._session.exitstatus = pytest.ExitCode.TESTS_FAILED


@pytest.fixture(scope="session", autouse=True)
def servers() -> Iterator[None]:
    """PostgreSQL and Redis, unless the environment names others."""
    from dmlsite.embedded import Layout, start_postgres, start_redis

    layout = Layout(Path(os.environ["DML_VAR_DIR"]).resolve())
    starts = {"DATABASE_URL": start_postgres, "REDIS_URL": start_redis}
    running = [start(layout) for name, start in starts.items() if name not in os.environ]
    _wait_for_no_disk(os.environ.get("DATABASE_URL", layout.database_url))
    yield
    for server in reversed(running):
        server.stop()


def _wait_for_no_disk(database: str) -> None:
    """A commit is kept when its server is killed, and need not be when the machine's power fails."""
    import psycopg

    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute("alter system set fsync = off")
        connection.execute("select pg_reload_conf()")


@pytest.fixture(autouse=bool(SERVICES))
def own_shelf(tmp_path: Path) -> Iterator[None]:
    """In the one bucket, each test has a place of its own, as it has a folder on a disk."""
    from django.core.files.storage import default_storage

    default_storage.location = str(tmp_path).strip("/")
    yield
    default_storage.location = ""


@pytest.fixture(autouse=True)
def own_threads() -> Iterator[None]:
    """Those that pages ran in end with their test: the next one may be allowed no database, and fails where a connection is open."""
    yield
    if application := sys.modules.get("dmlsite.asgi"):
        from dmlsite.threads import hang_up

        for one in application.pages.free:
            one.submit(hang_up).result()
            one.shutdown()
        application.pages.free.clear()


def database_url() -> str:
    """Of the tests' own database, for processes of their own."""
    from django.db import connection

    database = connection.settings_dict
    who = ":".join(quote(str(database[name]), safe="") for name in ("USER", "PASSWORD") if database[name])
    where = urlencode({"host": database["HOST"], "port": database["PORT"] or 5432})
    return f"postgres://{who}@/{database['NAME']}?{where}"


def files_kept(folder: str = "") -> list[str]:
    """What is in the file storage, by its names there."""
    from django.core.files.storage import default_storage

    try:
        folders, files = default_storage.listdir(folder)
    except FileNotFoundError:  # a disk on which nothing was ever stored
        return []
    below = [name for inner in folders for name in files_kept(f"{folder}/{inner}".lstrip("/"))]
    return [f"{folder}/{name}".lstrip("/") for name in files] + below


def content_given(answer: Any) -> bytes:
    """The file that a link answers with, by way of the object store where there is one."""
    if answer.status_code == 302:
        import httpx

        return httpx.get(answer.headers["Location"]).raise_for_status().content
    assert answer.status_code == 200, answer.status_code
    return b"".join(answer)


@pytest.fixture(scope="session", autouse=True)
def quick_passwords() -> None:
    """The same algorithm with next to no work: at its real cost, hashing passwords is most of the time of most tests."""
    from django.contrib.auth.hashers import Argon2PasswordHasher

    Argon2PasswordHasher.time_cost, Argon2PasswordHasher.memory_cost, Argon2PasswordHasher.parallelism = 1, 8, 1


@pytest.fixture(scope="session", autouse=True)
def quick_ends() -> None:
    """A test that commits ends with empty tables. Django truncates each, used or not, and then looks after all models' permissions, which
    took longer than most of these tests; those, and the content types, stay."""
    from django.test import TransactionTestCase

    TransactionTestCase._fixture_teardown = lambda self: _empty()


def _empty() -> None:
    from django.contrib.auth.models import Permission
    from django.contrib.contenttypes.models import ContentType
    from django.db import connection

    kept = {Permission._meta.db_table, ContentType._meta.db_table}
    tables = sorted(set(connection.introspection.django_table_names(only_existing=True)) - kept)
    deleted = " ".join(f'delete from "{table}";' for table in tables)
    with connection.cursor() as cursor:  # as a replica does it: no trigger refuses, and no order is asked for
        cursor.execute(f"do $$ begin set local session_replication_role = replica; {deleted} end $$")


@pytest.fixture(scope="session")
def devchain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """An anvil with our contracts on it, for the session; use `chain` in tests."""
    from contracts.devchain import DevChain, free_port

    with DevChain(None, free_port()) as running:
        yield running


@pytest.fixture
def chain(devchain: Any, settings: Any, tmp_path: Path) -> Iterator[Any]:
    """`contracts.chain.Chain` on a fresh deployment, also what `ledger.gateway.chain()` gives; undone afterwards."""
    from django.core.management import call_command

    from ledger import gateway

    gateway.chain.cache_clear()
    gateway.key.cache_clear()
    settings.CHAIN_RPC_URL = devchain.url
    settings.CHAIN_DEPLOYMENT = tmp_path / "deployment.json"
    settings.KEY_PASSPHRASE_FILE = tmp_path / "passphrase"
    for role in ("ADMIN", "QUOTER", "SETTLER", "GUARDIAN"):
        setattr(settings, f"{role}_KEYSTORE", tmp_path / f"{role.lower()}.json")
    call_command("deploy_contracts", stdout=StringIO())
    yield gateway.chain()
    gateway.chain.cache_clear()
    gateway.key.cache_clear()


def finalize(chain: Any) -> None:
    """Have everything that was sent mined and final. anvil mines a moment after it took a transaction: wait for it."""
    from contracts.devchain import mine_if_pending_finality
    from ledger.models import Attempt

    for sent in Attempt.objects.filter(tx__state="sent"):
        chain.wait(sent.hash)
    while mine_if_pending_finality(chain.w3):
        pass


@pytest.fixture
def inline_jobs(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Jobs run at once, in the process of the test, after commit; the list names them in order."""
    from importlib import import_module

    from dmlsite import jobs

    ran: list[str] = []

    def run(actor: str, args: tuple[object, ...], delay_ms: int) -> None:
        module, name = actor.rsplit(".", 1)
        ran.append(actor)
        getattr(import_module(module), name).fn(*args)

    monkeypatch.setattr(jobs, "_send", run)
    return ran
