"""How the platform grows: more workers in a round, larger weights with many workers, many workers that wait.

    make bench-scale                        rounds with 4 to 256 workers, then 500 and 2,000 connections
    make bench-scale ARGS="rounds --workers 4 16"
    make bench-scale ARGS="idle --connections 500"
    make bench-scale ARGS=large             16 workers with 100 MB: 12 GB of memory, 20 GB of disk, some ten minutes

The whole platform in real processes, as in bench/rounds.py, on this machine's loopback. For `rounds` all workers are in one
process (bench/swarm.py), for `large` each in its own, for `idle` they only connect (bench/crowd.py).
"""

import argparse
import json
import os
import shutil
import tempfile
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

from bench import ours, report, rounds
from bench.processes import private_megabytes
from dmlsite.supervisor import Platform

REST_SECONDS = 15
"""After connecting, until waiting is measured: the jobs that connecting ordered are done by then."""
LARGE_MEMORY, LARGE_DISK = 12e9, 20e9


# --- Rounds -----------------------------------------------------------------------------------------------------------
def growing(wanted: argparse.Namespace) -> dict[str, Any]:
    found = {}
    titles = (
        "workers",
        "mean s",
        "fastest s",
        "ms a worker",
        "ratio",
        "web MB",
        "jobs MB",
        "processor s: web",
        "jobs",
        "compute",
    )
    row(titles)
    for workers in wanted.workers:
        one = rounds.play_ours(rounds.idle(1, workers), report.SKIPPED + wanted.rounds, start_together)
        one["milliseconds_per_worker"] = round(1000 * one["seconds"] / workers, 1)
        found[str(workers)] = one
        ratio = one["seconds"] / found[str(wanted.workers[0])]["seconds"]
        memory, used = one["memory"], one["processor"]
        times = (one["seconds"], one["fastest"], one["milliseconds_per_worker"], f"{ratio:.1f}")
        row((workers, *times, memory["web"], memory["jobs"], used["web"], used["jobs"], used["compute"]))
    return found


def start_together(on: Platform, keys: list[str]) -> None:
    """All workers in one process."""
    on.spawn("worker-swarm", "-m", "bench.swarm", on.url, str(kept(on, keys)), str(on.layout.var / "workers"))


def kept(on: Platform, keys: list[str]) -> Path:
    file = on.layout.var / "keys.json"
    file.write_text(json.dumps(keys))
    return file


def large(wanted: argparse.Namespace) -> dict[str, Any]:
    if shutil.disk_usage(tempfile.gettempdir()).free < LARGE_DISK or available_memory() < LARGE_MEMORY:
        raise SystemExit("This needs 12 GB of free memory, and 20 GB of free disk where temporary files are")
    found = rounds.play_ours(rounds.idle(100, 16), report.SKIPPED + 3)
    print(found)
    return found


def available_memory() -> int:
    lines = Path("/proc/meminfo").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable"))


# --- Connections ------------------------------------------------------------------------------------------------------
def idle(wanted: argparse.Namespace) -> dict[str, Any]:
    return {str(connections): waiting(connections, wanted.seconds) for connections in wanted.connections}


def waiting(connections: int, seconds: int) -> dict[str, Any]:
    """What so many workers cost that do nothing but being there."""
    with ours.platform(4) as on:
        keys = ours.market(on, "idle", str(connections))
        web = ours.groups(on)["web"]
        before, memory = front_page(on), private_megabytes(web)
        state = start_crowd(on, keys)
        time.sleep(REST_SECONDS)
        used, begun = rounds.used(on), time.monotonic()
        during = front_page(on, seconds)
        minutes = (time.monotonic() - begun) / 60
        processor = {kind: round((now - used[kind]) / minutes, 1) for kind, now in rounds.used(on).items()}
        online = ours.wait_for(on, 1, "select count(*) from providers_connection where seen > now() - interval '30 s'")
        last = json.loads(state.read_text())
        grown, files = private_megabytes(web) - memory, len(os.listdir(f"/proc/{web[0]}/fd"))
    found = {
        "seconds_to_connect": round(last["seconds"], 1),
        "open": last["open"],
        "online_as_the_platform_sees_it": online[0][0],
        "failures": last["failures"],
        "web_megabytes_before": round(memory),
        "web_megabytes_per_1000": round(1000 * grown / max(1, last["open"]), 1),
        "web_open_files": files,
        "processor_seconds_per_minute": processor,
        "page_milliseconds_before": before,
        "page_milliseconds_during": during,
    }
    print(f"{connections} connections", *(f"{name}: {value}" for name, value in found.items()), sep="\n  ", flush=True)
    return found


def start_crowd(on: Platform, keys: list[str]) -> Path:
    """Returns the file in which the crowd says how it is, as soon as each of it has tried to connect."""
    state = on.layout.var / "crowd.json"
    on.spawn("worker-crowd", "-m", "bench.crowd", on.url, str(kept(on, keys)), str(state))
    end = time.monotonic() + ours.SECONDS
    while time.monotonic() < end:
        if state.exists() and json.loads(state.read_text())["tried"] == len(keys):
            return state
        time.sleep(0.5)
    raise SystemExit(f"Not all have tried in {ours.SECONDS} s; see {state} and {on.layout.var / 'log'}")


def front_page(on: Platform, seconds: float = 10) -> dict[str, float]:
    """How long the front page takes, asked once a second. One that does not come within 10 s counts as failed."""
    times, failed = [], 0
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        begun = time.monotonic()
        try:
            with urllib.request.urlopen(on.url, timeout=10) as answer:
                answer.read()
        except OSError:
            failed += 1
        times.append(1000 * (time.monotonic() - begun))
        time.sleep(max(0, 1 - times[-1] / 1000))
    return {"median": round(median(times), 1), "most": round(max(times), 1), "failed": failed}


# --- The command ------------------------------------------------------------------------------------------------------
def row(cells: tuple[object, ...]) -> None:
    print(" ".join(f"{cell:>{max(9, len(str(cell)))}}" for cell in map(str, cells)), flush=True)


PARTS: dict[str, Callable[[argparse.Namespace], dict[str, Any]]] = {"rounds": growing, "large": large, "idle": idle}


def main() -> None:
    options = argparse.ArgumentParser()
    options.add_argument("parts", nargs="*", default=["rounds", "idle"], help=f"of {', '.join(PARTS)}")
    options.add_argument("--workers", type=int, nargs="+", default=[4, 16, 64, 256])
    options.add_argument("--rounds", type=int, default=6)
    options.add_argument("--connections", type=int, nargs="+", default=[500, 2000])
    options.add_argument("--seconds", type=int, default=60, help="that idle connections are watched")
    wanted = options.parse_args()
    for part in wanted.parts:
        report.keep("scale", {part: {"found": PARTS[part](wanted)}})


if __name__ == "__main__":
    main()
