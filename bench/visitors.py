"""Many visitors at the same time, by locust: how long pages, the API's answers and a bare Django view take then. Milliseconds.

Part of `make bench-pages`. Each third is asked apart from the others, by as many visitors as the others have.
"""

import csv
import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx

from bench import report
from dmlsite.supervisor import ROOT

LOCUST = ROOT / ".bench" / "locust" / "bin" / "locust"
CUTS = {"median": "50%", "of 95 %": "95%", "of 99 %": "99%"}
Asked = tuple[str, httpx.Client, list[str]]
THIRDS: dict[str, Callable[[str], bool]] = {
    "a bare Django view": lambda who: who == "bare Django",
    "pages": lambda who: who not in ("bare Django", "API"),
    "API": lambda who: who == "API",
}


def play(asked: list[Asked], ticket: str, folder: Path, users: int, seconds: int) -> dict[str, Any]:
    """What each third took, all of it together; and which of the pages and answers took longest."""
    found = {}
    for name, belongs in THIRDS.items():
        addresses = [each for one in asked if belongs(one[0]) for each in told(*one, ticket)]
        found[f"{name}, {users} visitors"] = attacked(addresses, folder, users, seconds)
    return found


def told(who: str, client: httpx.Client, paths: list[str], ticket: str) -> list[tuple[str, str, dict[str, str]]]:
    """Name, address and headers of what a client asks for, for a program that does not know it."""
    headers = {"Accept": "*/*"}
    if cookies := "; ".join(f"{cookie.name}={cookie.value}" for cookie in client.cookies.jar):
        headers["Cookie"] = cookies
    if shown := client.headers.get("Authorization"):
        headers["Authorization"] = shown
    places = [path.format(ticket=ticket) for path in paths]
    return [
        (f"{who}: {path}", str(client.base_url.join(place)), headers) for path, place in zip(paths, places, strict=True)
    ]


def attacked(
    addresses: list[tuple[str, str, dict[str, str]]], folder: Path, users: int, seconds: int
) -> dict[str, Any]:
    """Raises what went wrong: an answer other than 200 is none that is worth a time."""
    file = folder / "asked.json"
    file.write_text(json.dumps(addresses))
    command = [str(LOCUST), "-f", str(ROOT / "bench" / "locustfile.py"), "--headless", "--only-summary"]
    command += ["-u", str(users), "-r", str(users), "-t", f"{seconds}s", "--csv", str(folder / "locust")]
    done = subprocess.run(command, env=os.environ | {"ASKED": str(file)}, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit((done.stdout + done.stderr)[-3000:])
    rows = list(csv.DictReader((folder / "locust_stats.csv").open()))
    *each, all_ = rows
    if not each:
        raise SystemExit("Nobody was answered in time")
    slowest = max(each, key=lambda row: float(row["50%"]))
    numbers = {name: float(all_[column]) for name, column in CUTS.items()}
    return numbers | {"answers": int(all_["Request Count"]), "slowest": f"{slowest['Name']} {slowest['50%']} ms"}


def show(found: dict[str, Any]) -> None:
    rows = [[name, *map(str, numbers.values())] for name, numbers in found.items()]
    report.show("Many at once, ms", ["what", *CUTS, "answers", "slowest, median"], rows)
