"""Flower's rounds in its deployment mode: a SuperLink, a SuperNode for each shard and an app with its FedAvg (flower_app/).

Real processes on the loopback, in the environment that the Makefile builds for Flower, with stock settings. Nothing is sent
to the internet and nothing installed: telemetry, the check for updates and the installing of an app's packages are off.
"""

import os
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bench.case import Case
from bench.processes import Memory, children, family
from contracts.devchain import free_port
from dmlsite.embedded import dies_with_parent

ROOT = Path(__file__).resolve().parent.parent
BIN = ROOT / ".bench" / "flower" / "bin"
HOST = "127.0.0.1"
SECONDS = 1800
"""A run that takes longer is given up."""
SETTINGS = {
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_DISABLE_UPDATE_CHECK": "1",
    "PYTHONDONTWRITEBYTECODE": "",  # where it is set, every client process would compile the app again
    "PYTHONPATH": str(ROOT),
    "PATH": f"{BIN}:{os.environ['PATH']}",  # Flower starts its programs by name
}


@dataclass(frozen=True)
class Played:
    """Seconds of each round, the weights after the last one, and the most memory that the server's side held, in MB."""

    seconds: list[float]
    weights: list[np.ndarray]
    megabytes: float


def play(case: Case, rounds: int, idle: bool) -> Played:
    """`idle`: the clients send back what they got. Raises RuntimeError if the run fails."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        file, end = case.save(folder / "case.npz"), folder / "end.npz"
        with Federation(folder, len(case.shards)).running() as federation, Memory({"": federation.server}) as memory:
            federation.run(f'case="{file}" end="{end}" rounds={rounds} idle={str(idle).lower()}')
            if not end.exists():
                raise RuntimeError(f"Flower failed:\n{federation.log.read_text()[-5000:]}")
        with np.load(end) as found:
            weights = [found[f"arr_{number}"] for number in range(len(case.start))]
            return Played(np.diff(found["moments"]).tolist(), weights, memory.most["together"])


class Federation:
    """A SuperLink with its SuperNodes."""

    def __init__(self, folder: Path, nodes: int) -> None:
        self.folder, self.nodes, self.port, self.log = folder, nodes, free_port(), folder / "log"
        self.processes: list[subprocess.Popen[bytes]] = []
        self.env = os.environ | SETTINGS | {"FLWR_HOME": str(folder)}

    @property
    def server(self) -> list[int]:
        return [self.processes[0].pid]

    @contextmanager
    def running(self) -> Iterator["Federation"]:
        link = f"{HOST}:{self.port}"
        config = f'[superlink]\ndefault = "bench"\n[superlink.bench]\naddress = "{link}"\ninsecure = true\n'
        (self.folder / "config.toml").write_text(config)
        try:
            alone = "--disable-runtime-dependency-installation"
            self.start("flower-superlink", "--insecure", alone, "--host", HOST, "--port", f"{self.port}")
            self.await_link()
            for number in range(self.nodes):
                own = ("--port", f"{free_port()}", "--node-config", f"partition-id={number}")
                self.start("flower-supernode", "--insecure", "--superlink", link, "--host", HOST, *own)
            yield self
        finally:
            self.stop()

    def start(self, program: str, *arguments: str) -> None:
        with self.log.open("ab") as log:
            command = [str(BIN / program), *arguments]
            process = subprocess.Popen(
                command, cwd=self.folder, env=self.env, stdout=log, stderr=log, preexec_fn=dies_with_parent
            )
        self.processes.append(process)

    def await_link(self) -> None:
        end = time.monotonic() + 60
        while time.monotonic() < end and self.processes[0].poll() is None:
            with suppress(OSError), socket.create_connection((HOST, self.port), 1):
                return
            time.sleep(0.2)
        raise RuntimeError(f"Flower's SuperLink did not start:\n{self.log.read_text()[-5000:]}")

    def run(self, config: str) -> None:
        """Runs the app to its end."""
        command = [BIN / "flwr", "run", ROOT / "bench" / "flower_app", "--stream", "--run-config", config]
        with self.log.open("ab") as log:
            subprocess.run(command, cwd=self.folder, env=self.env, stdout=log, stderr=log, timeout=SECONDS)

    def stop(self) -> None:
        """Ends all of it; Flower starts children in sessions of their own, which are ended one by one."""
        started = family([process.pid for process in self.processes], children())
        for process in self.processes:
            process.terminate()
        for process in self.processes:
            with suppress(subprocess.TimeoutExpired):
                process.wait(10)
        for process_id in started:
            with suppress(ProcessLookupError):
                os.kill(process_id, signal.SIGKILL)
        for process in self.processes:
            process.wait()
