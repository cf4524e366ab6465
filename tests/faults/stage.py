"""A platform in real processes whose training is disturbed: who works on what, and what must be so in the end."""

import os
import signal
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack, contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple
from uuid import UUID

import psycopg
from redis import Redis
from websockets.sync.client import ClientConnection, connect

from contracts import devchain
from dmlsite.supervisor import Child, Platform
from dmlworker import protocol
from dmlworker.datasets import samples
from dmlworker.display import named
from ledger import money
from tests.conftest import SETTINGS, Live
from tests.faults.link import Link

QUICK = SETTINGS | {
    "PROVIDERS_PER_TICKET": "2",
    "LEASE_SECONDS": "6",
    "PRESENCE_SECONDS": "6",
    "SCAN_MILLISECONDS": "200",
    "RECONCILE_SECONDS": "2",
    "AUDIT_PERCENT": "0",
}
CAST = ("alpha", "beta", "gamma")
"""One more than a ticket needs: whoever fails can be replaced."""
TRAINING: dict[str, Any] = {"rounds": 3, "epochs": 12, "batch_size": 1, "learning_rate": 0.01, "seed": 7}
"""The same for every ticket, so that all must end in the same weights; a lease is a second of work or so."""
PATIENCE = 600.0


class Lease(NamedTuple):
    pk: int
    run: UUID
    round: int
    shard: int
    attempt: int
    provider: str
    state: str
    step: int
    steps: int
    update: str | None
    root: str
    channel: str
    taken: float

    @property
    def left(self) -> float:
        """Seconds of training, if it goes on as since the lease was taken, `taken` seconds ago."""
        return self.taken * (self.steps - self.step) / self.step if self.step else float("inf")

    @property
    def name(self) -> str:
        """As the worker's log has it."""
        return named(self.protocol)

    @property
    def protocol(self) -> protocol.Lease:
        return protocol.Lease(str(self.run), self.round, self.shard, self.attempt)


LEASES = """
    select a.id, u.id, r.number, s.number, a.attempt, p.user_name, a.state, a.step, a.steps, a.update_id, a.root, a.channel,
           coalesce(extract(epoch from now() - a.accepted), 0)::float
    from training_assignment a join training_round r on r.id = a.round_id join training_run u on u.id = r.run_id
    join training_shard s on s.id = a.shard_id join providers_provider p on p.id = a.provider_id
    where u.ticket_id = %s order by r.number, s.number, a.attempt"""
ROUNDS = """
    select r.end_id from training_round r join training_run u on u.id = r.run_id
    where u.ticket_id = %s and r.end_id is not null order by r.number"""
MERIT = """
    select p.wallet, sum(a.correct)::int from training_assignment a join training_round r on r.id = a.round_id
    join training_run u on u.id = r.run_id join providers_provider p on p.id = a.provider_id
    where u.ticket_id = %s and a.state = 'committed' group by p.wallet"""
POSTED = """
    select substring(credit from 10), sum(amount)::int from ledger_transfer
    where "case" = %s and kind in ('posted', 'post') and credit like 'provider:%%' group by credit"""


class Linked(Platform):
    """Every worker reaches it by a line of its own; workers and lines outlive it, as other people's computers do."""

    def __init__(self, *arguments: Any, **more: Any) -> None:
        super().__init__(*arguments, **more)
        self.settings = more["settings"]
        self.links: dict[str, Link] = {}
        self.keys: dict[str, str] = {}
        self.open = ExitStack()

    def worker(self, name: str, key: str, cheat: str = "") -> Child:
        self.keys[name] = key
        self.links[name] = self.open.enter_context(Link(self.port))
        return self.another(name, name)

    def another(self, name: str, process: str) -> Child:
        """A worker process with the key of `name`."""
        cache = self.layout.var / "workers" / process
        env = {"DML_SERVER": self.links[name].url, "DML_KEY": self.keys[name]}
        return self.spawn(f"worker-{process}", "-m", "dmlworker", "--cache", str(cache), "--threads", "1", env=env)

    def successor(self) -> "Linked":
        """Another one on the same folder and ports, which takes the workers over."""
        new = Linked(self.layout.var, self.port, self.chain.port, say=self.say, settings=self.settings)
        new.links, new.keys, new.open = self.links, self.keys, self.open
        new.children = {name: child for name, child in self.children.items() if name.startswith("worker-")}
        return new

    def kill(self) -> None:
        """Every process but the workers, at once, as when the power fails. There is no coming back from this one."""
        self.ending.set()
        with self.reviving:
            doomed = [child.process for name, child in self.children.items() if not name.startswith("worker-")]
            doomed += [server.process for server in self.servers.values()]
            doomed += [self.chain.process]
            pids = [pid for process in doomed if process for pid in descendants(process.pid)]
            for pid in pids:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            for process in doomed:
                if process:
                    process.wait()
            self.chain.kill()
            while any(running(pid) for pid in pids):
                time.sleep(0.01)
        self.close_door()
        self.ended.set()


def descendants(pid: int) -> list[int]:
    """A process and all that it started, the youngest first."""
    try:
        texts = [(task / "children").read_text() for task in Path(f"/proc/{pid}/task").iterdir()]
    except (FileNotFoundError, ProcessLookupError):
        return []
    return [below for text in texts for child in text.split() for below in descendants(int(child))] + [pid]


def running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


class Stage(Live):
    """A customer, three providers, and the faults that befall them."""

    platform: Linked

    def __init__(self, platform: Linked) -> None:
        super().__init__(platform)
        self.customer = self.person("customer@example.org", "customer", devchain.test_key(1))
        for number, name in enumerate(CAST):
            self.provider(name, devchain.test_key(2 + number))

    # --- A ticket

    def begin(self, cast: Collection[str] = CAST) -> str:
        """A ticket that is about to be trained, by workers who remember nothing of the ones before."""
        self.ready(cast)
        return str(self.order(self.customer, "cells.csv", samples.breast_cancer_csv(), **TRAINING)["id"])

    def ready(self, cast: Collection[str]) -> None:
        """These and no others work; every line is whole."""
        for name in CAST:
            child, link = self.child(name), self.platform.links[name]
            child.signal(signal.SIGCONT)
            link.mend()
            if name not in cast:
                child.end()
            elif not child.alive():
                child.start()
        for result in (self.var / "workers").glob("*/*/results/*"):
            result.unlink()
        self.until(lambda: self.online() == set(cast), f"the workers of {', '.join(cast)} to be online")

    def online(self) -> set[str]:
        rows = self.query(
            """select p.user_name from providers_connection c join providers_provider p on p.id = c.provider_id
               where c.seen > now() - interval '6 seconds'"""
        )
        return {name for (name,) in rows}

    def leases(self, ticket: str) -> list[Lease]:
        return [Lease(*row) for row in self.query(LEASES, ticket)]

    def lease(self, ticket: str, **wanted: object) -> Lease:
        """Wait for a lease like that."""
        found: list[Lease] = []

        def there() -> bool:
            rows = self.leases(ticket)
            found[:] = [row for row in rows if all(getattr(row, name) == value for name, value in wanted.items())]
            return bool(found)

        self.until(there, f"a lease with {wanted}")
        return found[0]

    @property
    def database(self) -> str:
        return self.platform.database_url

    def again(self, ticket: str, lease: Lease) -> Lease:
        """As it is now."""
        return next(row for row in self.leases(ticket) if row.pk == lease.pk)

    def under_way(self, ticket: str, seconds: float = PATIENCE) -> Lease:
        """A lease in the middle of its training, with no more than so much of it left."""
        found: list[Lease] = []

        def there() -> bool:
            rows = [row for row in self.leases(ticket) if row.state == "accepted" and 0 < row.step < row.steps]
            found[:] = [row for row in rows if row.left <= seconds]
            return bool(found)

        self.until(there, "a worker to be in the middle of its training")
        return found[0]

    def stored_only(self, ticket: str) -> Lease:
        """A lease whose update has arrived, while the word that says so (COMMIT) is held back on the line."""
        soon = int(QUICK["LEASE_SECONDS"]) / 2  # no heartbeat gets through either
        while not self._held_back(ticket, lease := self.under_way(ticket, soon)):
            self.platform.links[lease.provider].release()
        return lease

    def _held_back(self, ticket: str, lease: Lease) -> bool:
        """False if the worker was faster."""
        link = self.platform.links[lease.provider]
        link.stored.clear()
        link.hold()
        self.until(lambda: link.stored or self.again(ticket, lease).state == "committed", "the update to arrive")
        return self.again(ticket, lease).state == "accepted"

    def freeze(self, ticket: str) -> Lease:
        """Stop (SIGSTOP) a worker in the middle of its training."""
        while True:
            lease = self.under_way(ticket)
            self.child(lease.provider).signal(signal.SIGSTOP)
            time.sleep(0.5)  # what it said before is heard
            if self.again(ticket, lease).state == "accepted":
                return lease
            self.child(lease.provider).signal(signal.SIGCONT)  # it was faster

    @contextmanager
    def closing(self, ticket: str, number: int) -> Iterator[None]:
        """A round that a job wants to close, and can't while we look: we hold its row."""
        row = """select r.id from training_round r join training_run u on u.id = r.run_id
                 where u.ticket_id = %s and r.number = %s for no key update of r"""
        stuck = (
            "select 1 from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock' "
            "and query like 'UPDATE \"training_round\"%%'"
        )
        with psycopg.connect(self.database) as connection:
            connection.execute(row, (ticket, number))
            self.until(lambda: self.query(stuck), f"round {number} to be closed")
            yield

    def rounds_noted(self, ticket: str) -> int:
        found = self.query("select count(*) from tickets_ticketevent where kind = 'round' and ticket_id = %s", ticket)
        return int(found[0][0])

    def round_times(self, ticket: str, number: int) -> tuple[datetime, datetime | None]:
        """When it was opened and closed."""
        sql = """select r.opened, r.closed from training_round r join training_run u on u.id = r.run_id
                 where u.ticket_id = %s and r.number = %s"""
        return self.query(sql, ticket, number)[0]  # type: ignore[return-value]

    # --- The end

    def settled(self, ticket: str) -> list[str]:
        """Wait until the providers are paid, once and exactly. Returns the global weights after each round."""
        self.until(lambda: self._over(ticket), "the ticket to be settled")
        events = self.query("select kind, text from tickets_ticketevent where ticket_id = %s order by id", ticket)
        assert self.status_of(ticket) == "settled", events
        self._paid_once(ticket)
        return [end for (end,) in self.query(ROUNDS, ticket)]

    def status_of(self, ticket: str) -> str:
        return str(self.query("select status from tickets_ticket where id = %s", ticket)[0][0])

    def _over(self, ticket: str) -> bool:
        return self.status_of(ticket) == "refunded" or self._sent(ticket) == [("settle", "final")]

    def _sent(self, ticket: str) -> list[tuple[str, str]]:
        return self.query("""select verb, state from ledger_chaintx where "case" = %s""", ticket)

    def _paid_once(self, ticket: str) -> None:
        """On the chain and in the ledger, one payout: the whole price, split by what the platform measured."""
        events = self.chain.events(self.deployment.block, self.chain.head().number)
        mine = [event for event in events if str(event.args.get("ticket")) == ticket]
        names = Counter(event.name for event in mine)
        assert (names["Paid"], names["Settled"], names["Refunded"]) == (1, 1, 0)
        shares = {event.args["provider"]: event.args["amount"] for event in mine if event.name == "ProviderPaid"}
        assert names["ProviderPaid"] == len(shares), "one share each"
        price = next(event.args["amount"] for event in mine if event.name == "Paid")
        assert shares == money.shares(price, dict(self.query(MERIT, ticket)))[0]
        assert self._sent(ticket) == [("settle", "final")]
        self.until(lambda: dict(self.query(POSTED, ticket)) == shares, "the ledger to say the same")

    # --- Processes

    def child(self, name: str) -> Child:
        """The process of a provider's worker."""
        return self.platform.children[f"worker-{name}"]

    def kill(self, name: str) -> None:
        """SIGKILL for a process that the supervisor watches; returns when there is another."""
        child = self.platform.children[name]
        before = child.process
        child.signal(signal.SIGKILL)
        self.until(lambda: child.process is not before and child.alive(), f"{name} to be started again")

    def kill_server(self, name: str) -> None:
        before = self.platform.servers[name]
        before.process.kill()
        self.until(lambda: self.platform.servers[name] is not before, f"{name} to be started again")

    def kill_chain(self) -> None:
        before = self.platform.chain.process
        assert before
        before.kill()
        alive = self.platform.chain.alive
        self.until(lambda: self.platform.chain.process is not before and alive(), "the chain to be started again")

    def forget_shards(self, name: str) -> None:
        """Empty a worker's cache of what it fetched."""
        for blob in (self.var / "workers" / name).glob("*/blobs/*"):
            blob.unlink()

    @contextmanager
    def second_worker(self, name: str) -> Iterator[str]:
        """Another process with the key of a provider's worker; gives its name."""
        process = f"{name}-2"
        child = self.platform.another(name, process)
        self.until(lambda: "Connected" in self.log(process), "the second worker to be online")
        yield process
        child.end()
        del self.platform.children[child.name]

    def socket(self, name: str) -> ClientConnection:
        """A provider's WebSocket in our own hands, nothing said yet."""
        headers = {"Authorization": f"Bearer {self.platform.keys[name]}"}
        address = f"ws://localhost:{self.platform.port}{protocol.SOCKET_PATH}"
        return connect(address, additional_headers=headers, proxy=None)

    @property
    def redis(self) -> Redis:
        return Redis.from_url(self.platform.redis_url)

    def listening(self) -> set[str]:
        """Providers whose sockets are woken by messages."""
        return {
            name
            for name, provider, channel in self.query(
                """select p.user_name, p.id, c.channel from providers_connection c
                   join providers_provider p on p.id = c.provider_id"""
            )
            if self.redis.zscore(f"asgi:group:provider.{provider}", channel) is not None
        }

    def power_failure(self) -> None:
        """Nothing is left of the platform but its folder; then it is started anew."""
        self.platform.kill()
        self.platform = self.platform.successor()
        self.platform.start()

    def log(self, name: str) -> str:
        return self.child(name).log.read_text()

    def until(self, condition: Callable[[], object], what: str, seconds: float = PATIENCE) -> None:
        """Poll, also while the database or the site is away."""

        end = time.monotonic() + seconds
        while not self._holds(condition):
            assert time.monotonic() < end, f"Waited {seconds:.0f} s for {what}."
            time.sleep(0.05)

    def _holds(self, condition: Callable[[], object]) -> bool:
        try:
            return bool(condition())
        except psycopg.OperationalError:
            return False
