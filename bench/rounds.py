"""Rounds in which the workers do nothing: what is left is ours. Time from one round's opening to the next one's, and memory.

    make bench-rounds        (ARGS="--workers 16 --megabytes 1 10 --rounds 12")

The whole platform in real processes (web under uvicorn, jobs under Dramatiq, PostgreSQL, Redis, chain, scanner), and every
worker a process of its own that speaks the real protocol over WebSocket and HTTP, all on this machine's loopback.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import date
from pathlib import Path
from statistics import mean
from typing import Any

import psycopg

from contracts.devchain import free_port
from dmlsite.supervisor import ROOT, Platform

SECONDS = 600
"""A measurement that takes longer is given up."""


@contextmanager
def platform(workers: int) -> Iterator[Platform]:
    with tempfile.TemporaryDirectory() as folder:
        settings = {"PROVIDERS_PER_TICKET": str(workers), "DML_ENV": "development", "LEASE_SECONDS": "300"}
        found = Platform(Path(folder), free_port(), free_port(), settings=settings)
        found.start()
        try:
            yield found
        finally:
            found.stop()


def query(on: Platform, sql: str) -> list[tuple[Any, ...]]:
    folder = on.layout.sockets / "pg"
    with psycopg.connect(f"host={folder} user=postgres dbname=dml") as connection:
        return connection.execute(sql).fetchall()


def open_market(on: Platform, workers: int, megabytes: int = 0) -> dict[str, Any]:
    command = [sys.executable, "-m", "bench.market", str(workers), str(megabytes)]
    done = subprocess.run(command, cwd=ROOT, env=on.env, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stderr[-2000:])
    return dict(json.loads(done.stdout.splitlines()[-1]))


def group_of(process: int) -> Iterator[Path]:
    """The folders in /proc of a process and of all that it started."""
    for path in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if process in (int(path.name), os.getpgid(int(path.name)), parent(path)):
                yield path


def parent(path: Path) -> int:
    return int(after_name(path)[1])


def after_name(path: Path) -> list[str]:
    """The fields of /proc/PID/stat from the state on; the name before them may hold blanks."""
    return (path / "stat").read_text().rpartition(")")[2].split()


def private_megabytes(process: int) -> float:
    """Memory of a process group's own (RssAnon): what is only mapped from files is not counted."""
    total = 0
    for path in group_of(process):
        with suppress(OSError, StopIteration):
            status = (path / "status").read_text()
            total += next(int(line.split()[1]) for line in status.splitlines() if line.startswith("RssAnon"))
    return total / 1000


def processor_seconds(process: int) -> float:
    """Processor time of a process group so far, its ended children included."""
    total = 0
    for path in group_of(process):
        with suppress(OSError):
            total += sum(map(int, after_name(path)[11:15]))
    return total / os.sysconf("SC_CLK_TCK")


def processes(on: Platform) -> dict[str, list[int]]:
    """Who takes part in a round, by what they are."""
    found: dict[str, list[int]] = {"web": [], "jobs": [], "workers": [], "other": []}
    for name, child in on.children.items():
        assert child.process is not None
        kind = "workers" if name.startswith("worker-") else name if name in found else "other"
        found[kind].append(child.process.pid)
    return found | {name.split()[0]: [server.process.pid] for name, server in on.servers.items()}


def used(on: Platform) -> dict[str, float]:
    return {kind: sum(map(processor_seconds, group)) for kind, group in processes(on).items()}


class Memory(threading.Thread):
    """Watches the most that web and jobs hold."""

    def __init__(self, on: Platform) -> None:
        super().__init__(daemon=True)
        self.groups = {name: processes(on)[name][0] for name in ("web", "jobs")}
        self.most = dict.fromkeys(self.groups, 0.0)
        self.over = threading.Event()

    def run(self) -> None:
        while not self.over.wait(0.1):
            for name, process in self.groups.items():
                self.most[name] = max(self.most[name], private_megabytes(process))


def start_apart(on: Platform, keys: list[str]) -> None:
    """Every worker a process of its own."""
    for number, key in enumerate(keys):
        env = {"DML_SERVER": on.url, "DML_KEY": key}
        cache = on.layout.var / "workers" / str(number)
        on.spawn(f"worker-{number}", "-m", "bench.idle_worker", "--cache", str(cache), env=env)


def measure(
    workers: int, megabytes: int, rounds: int, start: Callable[[Platform, list[str]], None] = start_apart
) -> dict[str, Any]:
    with platform(workers) as on:
        start(on, open_market(on, workers, megabytes)["keys"])
        memory = Memory(on)
        memory.start()
        begun, before = len(opened(on, 2)), used(on)
        moments = opened(on, begun + rounds)
        after = used(on)
        memory.over.set()
    counted = moments[begun - 1 :]  # in the first two, caches are filled
    times = [(later - earlier).total_seconds() for earlier, later in zip(counted, counted[1:], strict=False)]
    return {
        "seconds": round(mean(times), 3),
        "fastest": round(min(times), 3),
        "memory": {kind: round(most) for kind, most in memory.most.items()},
        "processor": {kind: round((after[kind] - before[kind]) / (len(moments) - begun), 3) for kind in after},
    }


def opened(on: Platform, rounds: int) -> list[Any]:
    """When each round was opened, as soon as there are so many."""
    end = time.monotonic() + SECONDS
    while time.monotonic() < end:
        found = [moment for (moment,) in query(on, "select opened from training_round order by number")]
        if len(found) >= rounds:
            return found
        time.sleep(0.2)
    raise SystemExit(f"{len(found)} rounds in {SECONDS} s; see {on.layout.var / 'log'}")


def main() -> None:
    options = argparse.ArgumentParser()
    options.add_argument("--workers", type=int, default=4)
    options.add_argument("--megabytes", type=int, nargs="+", default=[1, 10, 100])
    options.add_argument("--rounds", type=int, default=12)
    wanted = options.parse_args()
    kept = ROOT / "bench" / "results" / "rounds.json"
    known = json.loads(kept.read_text()) if kept.exists() else {}
    for megabytes in wanted.megabytes:
        name = f"{wanted.workers} workers, {megabytes} MB"
        known[name] = {
            "date": f"{date.today()}",
            "cores": os.cpu_count(),
            **measure(wanted.workers, megabytes, wanted.rounds),
        }
        print(f"{name}: {known[name]}", flush=True)
        kept.write_text(json.dumps(known, indent=1) + "\n")


if __name__ == "__main__":
    main()
