"""A hundred tickets at once, by as many customers, trained by two hundred workers: real payments, uploads, leases and payouts, and
workers that do hardly any arithmetic. Ends with an error if anything is lost.

    make bench-hundred      (ARGS="--tickets 100 --workers 200")

The customers are dml-client in threads of one process, the workers bench/swarm.py. No audits, which such workers could not pass.
"""

import argparse
import os
import sys
import threading
import time
from pathlib import Path
from statistics import median, quantiles
from typing import Any

from eth_account import Account

from bench import ours, report, rounds, scale
from bench.processes import Memory
from contracts.keys import make_keystore
from dmlclient import DML, Keystore
from dmlsite.embedded import ServerError
from dmlsite.supervisor import Platform
from dmlworker.datasets import samples
from ledger import money

TRAINING = {"rounds": 3, "epochs": 1, "batch_size": 32, "seed": 7}
PROVIDERS = 2
"""Of each ticket."""
PATIENCE = 1800
"""Seconds after which a ticket that has not ended counts as lost."""
PASSPHRASE = "bench"


class Customer(threading.Thread):
    """Orders and waits; `times`: seconds until the data was there, and until the ticket had ended."""

    def __init__(self, on: Platform, key: str, private: str, folder: Path) -> None:
        super().__init__(daemon=True)
        folder.mkdir(parents=True)
        make_keystore(folder / "wallet.json", PASSPHRASE, key=Account.from_key(private), iterations=2)
        self.wallet = Keystore(folder / "wallet.json", PASSPHRASE, on.rpc_url)
        self.client = DML(on.url, key, timeout=120, progress=False)
        self.data = folder / "cells.csv"
        self.data.write_bytes(samples.breast_cancer_csv())
        self.times: list[float] = []
        self.ended = "waits still"

    def run(self) -> None:
        began = time.monotonic()
        try:
            job = self.client.train(self.data, wallet=self.wallet, **TRAINING)
            self.times.append(time.monotonic() - began)
            self.ended = self.client.wait(job.id).status
            self.times.append(time.monotonic() - began)
        except Exception as error:
            self.ended = f"{type(error).__name__}: {error}"


def play(on: Platform, tickets: int, workers: int) -> dict[str, Any]:
    keys, customers = ours.market(on, "people", str(workers), str(tickets))
    ours.wait_for(on, workers, "select 1 from providers_provider where standing = 'active'")
    scale.start_together(on, keys)
    ours.wait_for(on, workers, "select 1 from providers_connection where seen > now() - interval '30 s'")
    people = [Customer(on, *found, on.layout.var / f"customer-{n}") for n, found in enumerate(customers)]
    before, began = rounds.used(on), time.monotonic()
    with Memory({name: group for name, group in ours.groups(on).items() if name != "workers"}) as memory:
        for person in people:
            person.start()
        for person in people:
            person.join(max(0, began + PATIENCE - time.monotonic()))
    seconds, after = time.monotonic() - began, rounds.used(on)
    return {
        "wrong": [person.ended for person in people if person.ended != "settled"] + wrong(on, tickets),
        "seconds": round(seconds),
        "tickets_an_hour": round(3600 * tickets / seconds),
        "uploaded": spread([person.times[0] for person in people if person.times]),
        "settled": spread([person.times[1] for person in people if len(person.times) > 1]),
        "processor_seconds_a_ticket": {name: round((after[name] - before[name]) / tickets, 2) for name in after},
        "memory": memory.most,
    }


def spread(seconds: list[float]) -> dict[str, float]:
    return {"median": round(median(seconds), 1), "of 95 %": round(quantiles(seconds, n=20)[-1], 1)} if seconds else {}


# --- What must be so --------------------------------------------------------------------------------------------------
FINAL = "select 1 from ledger_chaintx where verb = 'settle' and state = 'final'"
ONCE = """
    select t.price from tickets_ticket t where t.status = 'settled'
    and (select count(*) from ledger_chaintx x where x."case" = t.id) = 1
    and (select count(*) from tickets_ticketevent e where e.ticket_id = t.id and e.kind = 'round') = t.rounds"""
POSTED = """
    select coalesce(sum(amount), 0)::bigint from ledger_transfer
    where kind in ('posted', 'post') and credit like 'provider:%'"""


def wrong(on: Platform, tickets: int) -> list[str]:
    """What was lost, or happened twice."""
    ours.wait_for(on, tickets, FINAL)
    prices = [price for (price,) in ours.wait_for(on, tickets, ONCE)]
    due = sum(price - money.fee(price) for price in prices)
    [[posted]] = ours.wait_for(on, 1, POSTED)
    found = [f"{posted} of {due} micro-DML were paid out"] if posted != due else []
    return found + ([] if balanced(on) else ["the books differ from the chain"])


def balanced(on: Platform, seconds: float = 60) -> bool:
    """By the command, which also refuses as long as something is under way."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            on.manage("reconcile")
            return True
        except ServerError:
            time.sleep(1)
    return False


def main() -> int:
    options = argparse.ArgumentParser()
    options.add_argument("--tickets", type=int, default=100)
    options.add_argument("--workers", type=int, default=200)
    options.add_argument("--webs", type=int, default=2)
    wanted = options.parse_args()
    processes = {"web": wanted.webs, "jobs": 2, "compute": os.cpu_count() or 1}
    with ours.platform(PROVIDERS, audits=False, processes=processes, EXPORT_FORMATS="none") as on:
        found = play(on, wanted.tickets, wanted.workers)
    name = f"{wanted.tickets} tickets, {wanted.workers} workers"
    print(name, *(f"{thing}: {value}" for thing, value in found.items()), sep="\n  ", flush=True)
    report.keep("hundred", {name: found})
    return 1 if found["wrong"] else 0


if __name__ == "__main__":
    sys.exit(main())
