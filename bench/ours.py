"""The whole platform in real processes, for measuring: web under uvicorn, jobs under Dramatiq, PostgreSQL, Redis, chain and
scanner, on this machine's loopback. Its rounds are read from its database."""

import json
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg

from bench.case import Case
from contracts.devchain import free_port
from dmlsite.supervisor import ROOT, Platform

SECONDS = 600
"""A measurement that takes longer is given up."""


@contextmanager
def platform(
    workers: int, audits: bool = True, processes: dict[str, int] | None = None, **more: str
) -> Iterator[Platform]:
    """`audits`: workers that do nothing could not pass them. `more`: settings."""
    with tempfile.TemporaryDirectory() as folder:
        settings = {"PROVIDERS_PER_TICKET": str(workers), "DML_ENV": "development", "LEASE_SECONDS": "300"}
        settings |= {"AUDITS": str(int(audits)), **more}
        found = Platform(Path(folder), free_port(), free_port(), settings=settings, processes=processes)
        found.start()
        try:
            yield found
        finally:
            found.stop()


def open_market(on: Platform, case: Case, rounds: int) -> list[str]:
    """Puts a run and a provider for each shard into the database; returns the keys for their workers."""
    return market(on, "case", str(case.save(on.layout.var / "case.npz")), str(rounds))


def market(on: Platform, *arguments: str) -> list[Any]:
    """Runs bench.market in the platform's environment; what it gave."""
    command = [sys.executable, "-m", "bench.market", *arguments]
    done = subprocess.run(command, cwd=ROOT, env=on.env, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stderr[-2000:])
    return list(json.loads(done.stdout.splitlines()[-1]))


def wait_for(on: Platform, rows: int, sql: str) -> list[tuple[Any, ...]]:
    """What a query gives, as soon as it gives so many rows."""
    end, folder = time.monotonic() + SECONDS, on.layout.sockets / "pg"
    with psycopg.connect(f"host={folder} user=postgres dbname=dml", autocommit=True) as connection:
        while time.monotonic() < end:
            found = connection.execute(sql).fetchall()
            if len(found) >= rows:
                return found
            time.sleep(0.2)
    logs = "".join(file.read_text()[-1000:] for file in (on.layout.var / "log").glob("*.log"))
    raise SystemExit(f"{len(found)} of {rows} rounds in {SECONDS} s:\n{logs}")


def opened(on: Platform, rounds: int) -> list[float]:
    """When each round was opened, as soon as there are so many."""
    sql = "select extract(epoch from opened)::float8 from training_round order by number"
    return [moment for (moment,) in wait_for(on, rounds, sql)]


def groups(on: Platform) -> dict[str, list[int]]:
    """Who takes part in a round, by what they are; the chain does not."""
    found: dict[str, list[int]] = defaultdict(list)
    for name, child in on.children.items():
        assert child.process is not None
        found["workers" if name.startswith("worker-") else name.split("-")[0]].append(child.process.pid)
    return found | {name.split()[0]: [server.process.pid] for name, server in on.servers.items()}
