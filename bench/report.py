"""How measurements of rounds are summed up, printed and kept."""

import json
import os
from datetime import date
from statistics import mean
from typing import Any

from rich.console import Console
from rich.table import Table

from dmlsite.supervisor import ROOT

SKIPPED = 4
"""The first rounds are not counted: libraries are loaded, caches filled and steps compiled in them."""
Found = dict[str, Any]


def summary(seconds: list[float]) -> Found:
    counted = seconds[SKIPPED:]
    return {"seconds": round(mean(counted), 3), "fastest": round(min(counted), 3)}


def shown(found: Found) -> str:
    return f"{found['seconds']:.2f} s ({found['fastest']:.2f} s)"


def ratio(peer: Found, ours: Found) -> str:
    """How many times as long as ours a peer's rounds took: in the mean, and the fastest."""
    return f"{peer['seconds'] / ours['seconds']:.1f} ({peer['fastest'] / ours['fastest']:.1f})"


def show(title: str, columns: list[str], rows: list[list[str]]) -> None:
    table = Table(*columns)
    for row in rows:
        table.add_row(*row)
    console = Console(width=120)
    console.print(title, table, sep="\n")


def keep(name: str, found: dict[str, Found]) -> None:
    """Adds measurements to bench/results/NAME.json, in the place of earlier ones of the same things."""
    file = ROOT / "bench" / "results" / f"{name}.json"
    known = json.loads(file.read_text()) if file.exists() else {}
    taken = {"date": f"{date.today()}", "cores": os.cpu_count()}
    known |= {thing: taken | numbers for thing, numbers in found.items()}
    file.write_text(json.dumps(known, indent=1) + "\n")
