"""The services of a platform of many machines, on loopback, for tests and for trying things out:

PostgreSQL 15, Redis 7, RabbitMQ 3.10     as Debian has them
S3, Google Cloud Storage                  moto's server and gcp-storage-emulator; neither checks a signature
mail                                      mailbox.py

python -m scripts.services up [--install] [--port redis=6390 …]      start what does not run yet
python -m scripts.services env                                       what to `eval` for a platform on it
python -m scripts.services down                                      end all that `up` started; the data stay

All of it lies in a folder of its own (`--folder`, var/services). A room is what one platform gets of it: a database, a number of
Redis', a virtual host of RabbitMQ, a bucket, a mailbox.
"""

import argparse
import json
import os
import secrets
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from dmlsite.embedded import ServerError, made, own, postgres_prefix

ROOT = Path(__file__).resolve().parent.parent
BIN = Path(sys.executable).parent
POSTGRES = Path("/usr/lib/postgresql/15/bin")
RABBIT = Path("/usr/lib/rabbitmq/bin")
PROGRAMS = {
    str(POSTGRES / "postgres"): "postgresql-15",
    "/usr/bin/redis-server": "redis-server",
    str(RABBIT / "rabbitmq-server"): "rabbitmq-server",
}
"""Each with Debian's package."""
NAMES = ("postgres", "redis", "epmd", "rabbit", "rabbit-dist", "s3", "gcs", "mail")
"""Whatever listens."""
USER = "dml"
REGION = "eu-central-1"
ROOMS = 512
PATIENCE = 90
"""Seconds that a service may take to start."""


@dataclass
class Stack:
    """What is known of the services of a folder: kept in its stack.json."""

    folder: Path
    ports: dict[str, int]
    password: str = field(default_factory=lambda: secrets.token_urlsafe(16))
    processes: dict[str, tuple[int, str]] = field(default_factory=dict)
    """By name: the id, which is also its group's, and when it was started, by which a later process of this id is told apart."""
    environment: dict[str, str] = field(default_factory=dict)
    """Of the first room, for `env`."""

    @classmethod
    def load(cls, folder: Path) -> "Stack":
        """Raises ServerError if nothing was started there."""
        try:
            kept = json.loads((folder / "stack.json").read_text())
        except FileNotFoundError:
            raise ServerError(f"No services in {folder}: python -m scripts.services up") from None
        return cls(folder, **kept)

    def save(self) -> None:
        kept = {name: value for name, value in asdict(self).items() if name != "folder"}
        file = self.folder / "stack.json"
        file.touch(mode=0o600)
        file.write_text(json.dumps(kept, indent=1))

    def running(self, name: str) -> bool:
        pid, started = self.processes.get(name, (0, ""))
        return bool(pid) and started_at(pid) == started

    def spawn(
        self, name: str, *command: object, prefix: tuple[str, ...] = (), env: dict[str, str] | None = None
    ) -> None:
        """Start a service that outlives us, in a group of its own."""
        with self.log(name).open("ab") as out:
            process = subprocess.Popen(
                [*prefix, *map(str, command)],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                cwd=self.folder,
                env=os.environ | (env or {}),
                start_new_session=True,
            )
        self.processes[name] = process.pid, started_at(process.pid)
        self.save()

    def log(self, name: str) -> Path:
        return made(self.folder / "log") / f"{name}.log"


def started_at(pid: int) -> str:
    """When a process began, in the kernel's ticks; empty if there is none."""
    try:
        words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if words[0] in "ZX" else words[19]


# --- Up ---------------------------------------------------------------------------------------------------------------
def up(folder: Path, ports: dict[str, int], say: Callable[[str], None] = print) -> Stack:
    """Start what does not run yet; on the ports of the last time, unless others are given. Raises ServerError."""
    refuse_missing()
    stack = _known(folder, ports)
    stack.save()
    for name in SERVICES:
        say(name)
        start(stack, name)
    if stack.environment:
        _bring_back_bucket(stack)
    else:
        stack.environment = room(stack)
        stack.save()
    return stack


def start(stack: Stack, name: str) -> None:
    """Unless it runs; it then answers."""
    begin, ready = SERVICES[name]
    if not stack.running(name):
        begin(stack)
    _wait(stack, name, ready)


def _known(folder: Path, ports: dict[str, int]) -> Stack:
    made(folder).chmod(0o711)  # PostgreSQL passes through
    try:
        stack = Stack.load(folder)
    except ServerError:
        stack = Stack(folder, free_ports())
    stack.ports |= ports
    return stack


def free_ports() -> dict[str, int]:
    """For whatever listens: ports that nobody else listens on, all different."""
    probes = {name: socket.create_server(("127.0.0.1", 0)) for name in NAMES}
    ports = {name: probe.getsockname()[1] for name, probe in probes.items()}
    for probe in probes.values():
        probe.close()
    return ports


def refuse_missing() -> None:
    """Raises ServerError with what to type if programs are missing."""
    if packages := [package for program, package in PROGRAMS.items() if not Path(program).exists()]:
        raise ServerError(f"Missing programs; on Debian: apt-get install --no-install-recommends {' '.join(packages)}")


def install(programs: dict[str, str] = PROGRAMS) -> None:
    """What is missing, as root on Debian. Nothing that is installed starts by itself, and what runs is left alone."""
    if all(Path(program).exists() for program in programs):
        return
    quiet: dict[str, Any] = {
        "stdout": subprocess.DEVNULL,
        "env": os.environ | {"DEBIAN_FRONTEND": "noninteractive", "RUNLEVEL": "1"},
        "check": True,
    }
    subprocess.run(["apt-get", "update", "-qq"], **quiet | {"check": False})
    subprocess.run(["apt-get", "install", "-y", "-qq", "--no-install-recommends", *programs.values()], **quiet)


def _wait(stack: Stack, name: str, ready: Callable[[Stack], object]) -> None:
    end = time.monotonic() + PATIENCE
    while True:
        try:
            ready(stack)
            return
        except Exception as error:  # what each client raises is its own
            if not stack.running(name) or time.monotonic() > end:
                said = stack.log(name).read_text(errors="replace")[-2000:]
                raise ServerError(f"{name} did not start ({error}); see {stack.log(name)}:\n{said}") from None
            time.sleep(0.1)


def _listens(name: str) -> Callable[[Stack], object]:
    return lambda stack: socket.create_connection(("127.0.0.1", stack.ports[name]), timeout=1).close()


def _secret(stack: Stack, name: str, text: str) -> Path:
    file = stack.folder / name
    file.touch(mode=0o600)
    file.write_text(text)
    return file


def start_postgres(stack: Stack) -> None:
    data, prefix = stack.folder / "postgres", tuple(postgres_prefix(dies=False))
    if not (data / "PG_VERSION").exists():
        file = _secret(stack, "password", stack.password)
        rules = ["-U", USER, "-A", "scram-sha-256", "--pwfile", file, "-E", "UTF8", "--locale=C.UTF-8"]
        command = [*prefix, POSTGRES / "initdb", "-D", own(data), *rules]
        with stack.log("postgres").open("ab") as out:
            subprocess.run(command, stdout=out, stderr=out, cwd="/", check=True)
    limits = ["-c", "max_connections=300", "-c", "unix_socket_directories="]
    address = ["-h", "127.0.0.1", "-p", stack.ports["postgres"]]
    stack.spawn("postgres", POSTGRES / "postgres", "-D", data, *address, *limits, prefix=prefix)


def start_redis(stack: Stack) -> None:
    rules = ["bind 127.0.0.1", f"port {stack.ports['redis']}", f"requirepass {stack.password}", f"databases {ROOMS}"]
    file = _secret(stack, "redis.conf", "\n".join([*rules, 'save ""', "appendonly no", ""]))
    stack.spawn("redis", "/usr/bin/redis-server", file)


def start_epmd(stack: Stack) -> None:
    """Erlang's name server. RabbitMQ would start one by itself, and leave it behind."""
    stack.spawn("epmd", shutil.which("epmd"), "-port", stack.ports["epmd"], "-address", "127.0.0.1")


def start_rabbit(stack: Stack) -> None:
    rules = {
        "listeners.tcp.1": f"127.0.0.1:{stack.ports['rabbit']}",
        "default_user": USER,
        "default_pass": stack.password,
        # RabbitMQ takes a message back from who has not finished it after so many milliseconds (half an hour, if not told). A job may
        # take an hour, and those that a process has fetched ahead wait for it.
        "consumer_timeout": 24 * 3_600_000,
    }
    _secret(stack, "rabbitmq.conf", "".join(f"{name} = {value}\n" for name, value in rules.items()))
    (stack.folder / "enabled_plugins").write_text("[].\n")
    (stack.folder / "rabbitmq-env.conf").write_text("")
    stack.spawn("rabbit", RABBIT / "rabbitmq-server", env=_rabbit_environment(stack))


def _rabbit_environment(stack: Stack) -> dict[str, str]:
    """Its own node, name server, cookie and data: another RabbitMQ of this machine is not touched."""
    at = stack.folder
    return {
        "HOME": str(made(at / "rabbit")),
        "RABBITMQ_NODENAME": f"dml-{stack.ports['rabbit']}@localhost",
        "RABBITMQ_DIST_PORT": str(stack.ports["rabbit-dist"]),
        "ERL_EPMD_PORT": str(stack.ports["epmd"]),
        "ERL_EPMD_ADDRESS": "127.0.0.1",
        "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-kernel inet_dist_use_interface {127,0,0,1}",
        "RABBITMQ_MNESIA_BASE": str(at / "rabbit" / "mnesia"),
        "RABBITMQ_LOG_BASE": str(at / "log"),
        "RABBITMQ_CONFIG_FILE": str(at / "rabbitmq.conf"),
        "RABBITMQ_CONF_ENV_FILE": str(at / "rabbitmq-env.conf"),
        "RABBITMQ_ENABLED_PLUGINS_FILE": str(at / "enabled_plugins"),
    }


def start_s3(stack: Stack) -> None:
    stack.spawn("s3", BIN / "moto_server", "-H", "127.0.0.1", "-p", stack.ports["s3"])


def start_gcs(stack: Stack) -> None:
    place = {"STORAGE_BASE": str(stack.folder), "STORAGE_DIR": "gcs"}
    address = ["--host", "127.0.0.1", "--port", stack.ports["gcs"]]
    stack.spawn("gcs", BIN / "gcp-storage-emulator", "start", *address, "--quiet", env=place)
    if not (stack.folder / "google.json").exists():
        _secret(stack, "google.json", json.dumps(_service_account()))


def _service_account() -> dict[str, str]:
    """A key that Google knows nothing of: it signs links which the emulator does not check."""
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import rsa

    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return {
        "type": "service_account",
        "project_id": "dml",
        "private_key": pem.decode(),
        "client_email": "dml@dml.example",
        "token_uri": "http://127.0.0.1/none",
    }


def start_mail(stack: Stack) -> None:
    command = [sys.executable, "-m", "scripts.mailbox", stack.ports["mail"], stack.folder / "mail"]
    stack.spawn("mail", *command, env={"PYTHONPATH": str(ROOT)})


def _database_answers(stack: Stack) -> None:
    import psycopg

    with psycopg.connect(_database(stack, "postgres")) as connection:
        connection.execute("create sequence if not exists rooms")


def _broker_answers(stack: Stack) -> None:
    import pika

    pika.BlockingConnection(pika.URLParameters(_broker(stack, "%2F"))).close()


SERVICES: dict[str, tuple[Callable[[Stack], None], Callable[[Stack], object]]] = {
    "postgres": (start_postgres, _database_answers),
    "redis": (start_redis, _listens("redis")),
    "epmd": (start_epmd, _listens("epmd")),
    "rabbit": (start_rabbit, _broker_answers),
    "s3": (start_s3, _listens("s3")),
    "gcs": (start_gcs, _listens("gcs")),
    "mail": (start_mail, _listens("mail")),
}
"""In the order of their start: how, and what fails until it is there."""


# --- Down -------------------------------------------------------------------------------------------------------------
def down(stack: Stack) -> None:
    """End what was started, the last first, and wait for it. PostgreSQL's SIGINT is its fast end."""
    for name in reversed(SERVICES):
        if stack.running(name):
            end(stack, name, signal.SIGINT if name == "postgres" else signal.SIGTERM)
        stack.processes.pop(name, None)
        stack.save()


def end(stack: Stack, name: str, number: int, seconds: float = 20) -> None:
    """A service with all that it started."""
    pid, _ = stack.processes[name]
    if name == "postgres":
        os.kill(pid, number)  # to the first one alone: it ends the others
    else:
        os.killpg(pid, number)
    limit = time.monotonic() + seconds
    while stack.running(name) and time.monotonic() < limit:
        with suppress(ChildProcessError):
            os.waitpid(pid, os.WNOHANG)
        time.sleep(0.05)
    with suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)


# --- Rooms ------------------------------------------------------------------------------------------------------------
def room(stack: Stack, store: str = "s3") -> dict[str, str]:
    """A room that nobody has used; its environment. `store`: s3 or gcs."""
    number = _next_number(stack)
    name = f"room{number}"
    _make_database(stack, name)
    _make_host(stack, name)
    make_bucket(stack, name, store)
    return {
        "DATABASE_URL": _database(stack, name),
        "REDIS_URL": _redis(stack, number),
        "BROKER_URL": _broker(stack, name),
        "FILE_STORE": store,
        "S3_BUCKET": name,
        "S3_ENDPOINT": address(stack, "s3"),
        "S3_REGION": REGION,
        "S3_ACCESS_KEY": USER,
        "S3_SECRET_KEY": stack.password,
        "GCS_BUCKET": name,
        "GCS_EMULATOR": address(stack, "gcs"),
        "GCS_CREDENTIALS_FILE": str(stack.folder / "google.json"),
        "EMAIL_BACKEND": "django.core.mail.backends.smtp.EmailBackend",
        "EMAIL_HOST": "127.0.0.1",
        "EMAIL_PORT": str(stack.ports["mail"]),
        "EMAIL_HOST_USER": name,
        "EMAIL_HOST_PASSWORD": stack.password,
    }


def _next_number(stack: Stack) -> int:
    import psycopg

    with psycopg.connect(_database(stack, "postgres")) as connection:
        [number] = connection.execute("select nextval('rooms')").fetchone() or [0]
    return int(number)


def mails(stack: Stack, environment: dict[str, str]) -> Path:
    """Where a room's mails come to lie."""
    return made(stack.folder / "mail" / environment["EMAIL_HOST_USER"])


def _database(stack: Stack, name: str) -> str:
    return f"postgres://{USER}:{stack.password}@127.0.0.1:{stack.ports['postgres']}/{name}"


def _redis(stack: Stack, number: int) -> str:
    return f"redis://:{stack.password}@127.0.0.1:{stack.ports['redis']}/{number}"


def _broker(stack: Stack, host: str) -> str:
    return f"amqp://{USER}:{stack.password}@127.0.0.1:{stack.ports['rabbit']}/{host}"


def address(stack: Stack, name: str) -> str:
    return f"http://127.0.0.1:{stack.ports[name]}"


def _make_database(stack: Stack, name: str) -> None:
    import psycopg

    with psycopg.connect(_database(stack, "postgres"), autocommit=True) as connection:
        connection.execute(f"create database {name}")  # type: ignore[arg-type]


def _make_host(stack: Stack, name: str) -> None:
    user, host, all_of_it = f'<<"{USER}">>', f'<<"{name}">>', '<<".*">>'
    added = f"rabbit_vhost:add({host}, {user})"
    rights = f"{user}, {host}, {all_of_it}, {all_of_it}, {all_of_it}, {user}"
    granted = f"rabbit_auth_backend_internal:set_permissions({rights})"
    rabbitmqctl(stack, "eval", f"{added}, {granted}.")


def rabbitmqctl(stack: Stack, *command: str) -> None:
    """Raises ServerError with what RabbitMQ says."""
    done = subprocess.run(
        [RABBIT / "rabbitmqctl", *command],
        env=os.environ | _rabbit_environment(stack),
        capture_output=True,
        text=True,
        cwd=stack.folder,
    )
    if done.returncode:
        raise ServerError(f"rabbitmqctl {command[0]}: {done.stdout}{done.stderr}")


def make_bucket(stack: Stack, name: str, store: str) -> None:
    if store == "s3":
        s3(stack).create_bucket(Bucket=name, CreateBucketConfiguration={"LocationConstraint": REGION})
        return
    from google.auth.credentials import AnonymousCredentials
    from google.cloud.storage import Client

    there = {"api_endpoint": address(stack, "gcs")}
    Client(project="dml", credentials=AnonymousCredentials(), client_options=there).create_bucket(name)


def _bring_back_bucket(stack: Stack) -> None:
    """The S3 stand-in keeps nothing on disk: started again, it has no buckets."""
    name = stack.environment["S3_BUCKET"]
    if name not in {bucket["Name"] for bucket in s3(stack).list_buckets()["Buckets"]}:
        make_bucket(stack, name, "s3")


def s3(stack: Stack) -> Any:
    """A client of the S3 stand-in."""
    import boto3

    there = address(stack, "s3")
    keys = {"aws_access_key_id": USER, "aws_secret_access_key": stack.password}
    return boto3.client("s3", endpoint_url=there, region_name=REGION, **keys)


def stored(environment: dict[str, str], name: str) -> bytes:
    """A file of a room on S3."""
    stack = Stack.load(Path(environment["DML_SERVICES"]))
    return bytes(s3(stack).get_object(Bucket=environment["S3_BUCKET"], Key=name)["Body"].read())


# --- The command line -------------------------------------------------------------------------------------------------
def _port(text: str) -> tuple[str, int]:
    name, _, number = text.partition("=")
    if name not in NAMES or not number.isdecimal():
        raise argparse.ArgumentTypeError(f"NAME=NUMBER, with a name of {', '.join(NAMES)}")
    return name, int(number)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=ROOT / "var" / "services")
    commands = parser.add_subparsers(dest="command", required=True)
    starting = commands.add_parser("up")
    starting.add_argument("--install", action="store_true", help="with apt-get, as root, what is missing")
    starting.add_argument("--port", type=_port, action="append", default=[], metavar="NAME=NUMBER")
    commands.add_parser("down")
    commands.add_parser("env")
    options = parser.parse_args()
    folder = options.folder.resolve()
    try:
        if options.command == "up":
            if options.install:
                install()
            up(folder, dict(options.port), lambda name: print(f"{name} …", flush=True))
        elif options.command == "down":
            down(Stack.load(folder))
        else:
            for name, value in Stack.load(folder).environment.items():
                print(f"export {name}={shlex.quote(value)}")
    except ServerError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
