"""Start, watch and end the processes of one installation on the embedded default. No Django in here.

database, Redis        PostgreSQL and Redis out of wheels (embedded.py)
chain                  anvil (contracts/devchain.py)
web, scanner           ours, as separate processes
jobs, compute          likewise: all that needs no TensorFlow, and what does

Whichever of them dies is started again.
"""

import hashlib
import os
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from contracts.devchain import DevChain
from dmlsite.embedded import Layout, Server, ServerError, dies_with_parent, made, start_postgres, start_redis
from dmlworker.protocol import MAX_FRAME

FRAME = str(4 * MAX_FRAME)
"""Bytes of a WebSocket's message that the server reads: a little more than the protocol takes, so that it can say so."""
ROOT = Path(__file__).resolve().parent.parent
RESTARTS = 5
"""A child that died this often within a minute is given up."""
SERVERS = {"database (PostgreSQL)": ("DATABASE_URL", start_postgres), "Redis": ("REDIS_URL", start_redis)}
"""Each with the variable that names another one instead."""


@dataclass
class Child:
    """A process of ours, in a group of its own so that it ends with all that it started."""

    name: str
    command: list[str]
    log: Path
    env: dict[str, str]
    process: subprocess.Popen[bytes] | None = None
    started: list[float] = field(default_factory=list)

    def start(self) -> None:
        self.started = [moment for moment in self.started if moment > time.monotonic() - 60] + [time.monotonic()]
        with self.log.open("ab") as out:
            self.process = subprocess.Popen(
                self.command,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                cwd=ROOT,
                env=self.env,
                preexec_fn=dies_with_parent,
            )

    def alive(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def signal(self, number: int) -> None:
        if self.process is None:
            return
        try:
            os.killpg(self.process.pid, number)
        except ProcessLookupError:
            return

    def end(self, seconds: float = 15) -> None:
        if self.process is None:
            return
        self.signal(signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(seconds)
        self.signal(signal.SIGKILL)  # the leader is gone, or too slow; so is whatever it left in its group
        self.process.wait()


class Platform:
    """One installation: its data in `var`, its pages on `port`, its chain on `chain_port`. Call from the main thread."""

    def __init__(
        self,
        var: Path,
        port: int = 8000,
        chain_port: int = 8545,
        say: Callable[[str], None] = lambda text: None,
        settings: dict[str, str] | None = None,
    ) -> None:
        self.layout, self.port, self.say = Layout(var), port, say
        self.chain = DevChain(var / "chain.json", chain_port)
        self.own_chain = "CHAIN_RPC_URL" not in os.environ
        self.servers: dict[str, Server] = {}
        self.children: dict[str, Child] = {}
        self.ending, self.ended = threading.Event(), threading.Event()
        self.reviving = threading.Lock()
        self.url = f"http://localhost:{port}"
        self.env = os.environ | {
            "DML_VAR_DIR": str(var),
            "CHAIN_PORT": str(chain_port),
            "SITE_URL": self.url,
            "PYTHONUNBUFFERED": "1",
            "TF_CPP_MIN_LOG_LEVEL": "2",
            **(settings or {}),
        }

    @property
    def rpc_url(self) -> str:
        return self.chain.url

    def start(self) -> None:
        """Everything but the workers. Raises ServerError or ChainError with a text that says what to do."""
        refuse_taken(self.port)
        allow_many_files()
        made(self.layout.var / "log")
        try:
            self.start_servers()
            self._prepare()
            self._start_processes()
            self.watch()
        except BaseException:
            self.stop()
            raise

    def start_servers(self) -> None:
        """Database, Redis and chain."""
        for name, (variable, _) in SERVERS.items():
            self.say(name)
            if variable not in os.environ:
                self._start_server(name)
        if self.own_chain:
            self.say(f"chain (anvil on {self.rpc_url})")
            self.chain.start()

    def _start_server(self, name: str) -> None:
        self.servers[name] = SERVERS[name][1](self.layout)

    def _prepare(self) -> None:
        self._migrate()
        if not (self.layout.var / "deployment.json").exists():
            self.say("contracts")
            self.manage("deploy_contracts")

    def _migrate(self) -> None:
        """Bring the tables up to date; the embedded database remembers for which migrations that was done."""
        mark, wanted = self.layout.var / "migrated", migrations_digest()
        if "DATABASE_URL" not in os.environ and mark.exists() and mark.read_text() == wanted:
            return
        self.say("database tables")
        self.manage("migrate", "--verbosity", "0")
        mark.write_text(wanted)

    def _start_processes(self) -> None:
        self.say(f"web ({self.url})")
        web = ["-m", "uvicorn", "dmlsite.asgi:application", "--host", "127.0.0.1", "--port", str(self.port)]
        # Compressing tensors costs ten times what it saves; one process, as the embedded default has two cores.
        self.spawn(
            "web",
            *web,
            "--ws-per-message-deflate",
            "false",
            "--ws-max-size",
            FRAME,
            "--lifespan",
            "off",
            "--no-access-log",
        )
        self.say("jobs (Dramatiq) and scanner")
        for name, queue, threads in (("jobs", "default", 4), ("compute", "compute", 2)):
            self.spawn(
                name, "manage.py", "rundramatiq", "--queues", queue, "--processes", "1", "--threads", str(threads)
            )
        self.spawn("scanner", "manage.py", "scan_chain")
        self._await_web()

    def manage(self, *arguments: str) -> None:
        """Run a manage.py command to its end. Raises ServerError with what it said."""
        done = subprocess.run(
            [sys.executable, "manage.py", *arguments], cwd=ROOT, env=self.env, capture_output=True, text=True
        )
        if done.returncode:
            raise ServerError(f"manage.py {arguments[0]} failed:\n{done.stderr[-3000:]}")

    def spawn(self, name: str, *arguments: str, env: dict[str, str] | None = None) -> Child:
        """Start a Python program of ours as a child that is watched."""
        log = self.layout.var / "log" / f"{name}.log"
        child = Child(name, [sys.executable, *arguments], log, self.env | (env or {}))
        child.start()
        self.children[name] = child
        return child

    def worker(self, name: str, key: str, cheat: str = "") -> Child:
        """Start a provider's worker; `cheat` is a mode of dmlworker.cheats, for demonstrations and tests."""
        program = ["-m", "dmlworker.cheats", "--mode", cheat] if cheat else ["-m", "dmlworker"]
        cache = self.layout.var / "workers" / name
        env = {"DML_SERVER": self.url, "DML_KEY": key}
        return self.spawn(f"worker-{name}", *program, "--cache", str(cache), "--threads", "1", env=env)

    def _await_web(self, seconds: float = 180) -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if not self.children["web"].alive():
                break
            try:
                with urllib.request.urlopen(self.url, timeout=5):
                    return
            except OSError:
                time.sleep(0.1)
        log = self.children["web"].log
        raise ServerError(f"The web process did not start; see {log}:\n{log.read_text()[-2000:]}")

    def watch(self) -> None:
        """Start again what dies from now on."""
        threading.Thread(target=self._watch, name="supervisor", daemon=True).start()

    def _watch(self) -> None:
        """PR_SET_PDEATHSIG ties what is started to this thread, which therefore stays until all has ended."""
        while not self.ending.wait(0.5):
            with self.reviving:
                if not self.ending.is_set():
                    self._revive_servers()
                    self._revive_children()
        self.ended.wait()

    def _revive_servers(self) -> None:
        for name, server in list(self.servers.items()):
            if server.process.poll() is not None:
                self._revive(name, partial(self._start_server, name))
        if self.own_chain and not self.chain.alive():
            self._revive("chain", self._restart_chain)

    def _restart_chain(self) -> None:
        self.chain.kill()  # also ends its heartbeat
        self.chain.start()

    def _revive(self, name: str, start: Callable[[], object]) -> None:
        self.say(f"{name} died; starting it again")
        try:
            start()
        except Exception as error:  # a database's last processes may still be there: the next beat tries again
            self.say(f"{name}: {error}")

    def _revive_children(self) -> None:
        for child in list(self.children.values()):
            if child.alive() or child.name.startswith("worker-"):
                continue
            if len(child.started) < RESTARTS:
                self.say(f"{child.name} died (see {child.log}); starting it again")
                child.start()

    def stop(self) -> None:
        """End every child, in the reverse order of their start; once."""
        if self.ended.is_set():
            return
        self.ending.set()
        with self.reviving:  # what is being started is waited for, and ended
            for child in reversed(self.children.values()):
                child.signal(signal.SIGTERM)
            for child in reversed(self.children.values()):
                child.end()
            self.chain.stop()
            for server in reversed(self.servers.values()):
                server.stop()
            self.servers, self.children = {}, {}
        self.ended.set()


def migrations_digest() -> str:
    """Changes with every migration of ours, and with the packages that bring others."""
    files = [ROOT / "requirements.txt", *sorted(ROOT.glob("*/migrations/*.py"))]
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()


def allow_many_files() -> None:
    """Each connected worker is an open file of the web process, which inherits this limit."""
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def refuse_taken(port: int) -> None:
    """Raises ServerError if somebody else listens: their pages must not be taken for ours."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            raise ServerError(
                f"Port {port} is taken by another program. Free it, or choose another: PORT=8001"
            ) from None
