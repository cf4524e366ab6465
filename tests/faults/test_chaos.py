"""Two web processes, three of jobs, two scanners: for a while one of them, drawn by chance, is killed (SIGKILL) every few seconds, while
customers order, pay, upload and wait as they do anywhere. Then every ticket is settled, once and to the unit, and each of them has,
bit for bit, the model that a training has in peace.

CHAOS_SECONDS (60) and CHAOS_SEED choose how long, and who is killed when; `make chaos` takes ten minutes.
"""

import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import httpx
import pytest

from contracts.devchain import free_port
from contracts.devchain import test_key as rich
from contracts.keys import make_keystore
from dmlclient import DML, Keystore
from dmlsite.supervisor import ROOT
from dmlworker.datasets import samples
from ledger import money
from tests.conftest import up
from tests.faults.stage import QUICK, TRAINING, Linked, Stage

SECONDS = float(os.environ.get("CHAOS_SECONDS", "60"))
SEED = int(os.environ.get("CHAOS_SEED", random.randrange(10**6)))
PROCESSES = {"web": 2, "jobs": 2, "compute": 1, "scanner": 2}
CUSTOMERS = 3
PAUSE = (2.0, 6.0)
"""Seconds between two kills, from and to."""
OFTEN = 3
"""Starts within a minute after which a process is left alone, for the supervisor would give it up."""
PATIENCE = 600.0
"""Seconds in which a ticket has to end when nobody is killed, yet or any more: on a slow machine as well."""
PASSPHRASE = "chaos"


class Customer(threading.Thread):
    """Orders one ticket after the other, with the client that customers have, until it is told to stop."""

    def __init__(self, stage: Stage, number: int, folder: Path) -> None:
        super().__init__(daemon=True)
        person = stage.person(f"chaos-{number}@example.org", "customer", rich(10 + number))
        stage.fund(person.wallet.address)
        folder.mkdir()
        (folder / "cells.csv").write_bytes(samples.breast_cancer_csv())
        make_keystore(folder / "wallet.json", PASSPHRASE, key=person.wallet, iterations=2)
        self.address, self.folder = person.wallet.address, folder
        self.wallet = Keystore(folder / "wallet.json", PASSPHRASE, stage.rpc_url)
        self.client = DML(stage.url, person.call("POST", "keys", json={"name": "chaos"})["key"], progress=False)
        self.had, self.over = stage.chain.token_balance(self.address), threading.Event()
        self.results: dict[str, Path] = {}
        self.error: Exception | None = None

    def run(self) -> None:
        try:
            while not self.over.is_set():
                self._order()
        except Exception as error:
            self.error = error

    def _order(self) -> None:
        job = self.client.train(self.folder / "cells.csv", wallet=self.wallet, **TRAINING)
        self.results[job.id] = self.folder / job.id
        job.result(self.folder / job.id)


def kill_at_random(platform: Linked, seconds: float) -> Counter[str]:
    """How often each was killed. Each time the site has to answer first, which takes as long as the machine is slow."""
    chance, killed = random.Random(SEED), Counter[str]()
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        time.sleep(chance.uniform(*PAUSE))
        httpx.get(platform.url, timeout=120).raise_for_status()
        name = chance.choice([name for name in platform.children if not name.startswith("worker-")])
        child = platform.children[name]
        lately = [start for start in child.started if start > time.monotonic() - 60]
        if child.alive() and len(lately) < OFTEN:
            child.signal(signal.SIGKILL)
            killed[name] += 1
    return killed


@pytest.fixture(scope="module")
def after(tmp_path_factory):
    """(stage, customers, global weights of a training in peace), when all is over."""
    var = tmp_path_factory.mktemp("chaos")
    with up(Linked(var, free_port(), free_port(), say=print, settings=QUICK, processes=PROCESSES)) as first, first.open:
        stage = Stage(first)
        reference = stage.settled(stage.begin())
        customers = [Customer(stage, number, var / f"customer-{number}") for number in range(CUSTOMERS)]
        for customer in customers:
            customer.start()
        killed = kill_at_random(first, SECONDS)
        for customer in customers:
            customer.over.set()
        for customer in customers:
            customer.join(PATIENCE)
        orders = sum(len(customer.results) for customer in customers)
        print(f"seed {SEED}: {orders} tickets, killed {dict(killed)}")
        yield stage, customers, reference


def test_every_ticket_is_settled_once_with_the_model_of_an_undisturbed_training(after):
    stage, customers, reference = after
    for customer in customers:
        assert customer.error is None and not customer.is_alive()
        assert customer.results
        for ticket in customer.results:
            assert stage.settled(ticket) == reference
            assert stage.rounds_noted(ticket) == TRAINING["rounds"], "each was closed once"
    statuses = {status for (status,) in stage.query("select distinct status from tickets_ticket")}
    assert statuses <= {"settled", "quoted"}, "a quote that was asked for twice is not paid"


def test_no_unit_is_lost(after):
    stage, customers, _ = after
    stage.until(
        lambda: stage.query("select 1 from ledger_chaintx where state <> 'final'") == [], "the payouts to be final"
    )
    stage.until(lambda: stage.chain.escrowed() == 0, "the escrow to be empty")
    for customer in customers:
        prices = stage.query("select price from tickets_ticket where id::text = any(%s)", list(customer.results))
        assert customer.had - stage.chain.token_balance(customer.address) == sum(price for (price,) in prices)
    paid = stage.query("select price from tickets_ticket where status = 'settled'")
    shares = stage.query(
        "select sum(amount)::int from ledger_transfer where kind in ('posted', 'post') and credit like 'provider:%%'"
    )
    assert shares == [(sum(price - money.fee(price) for (price,) in paid),)]
    assert stage.chain.escrowed() == 0 == stage.chain.totals().token_balance


def test_the_books_balance_and_nobody_is_accused(after):
    stage, *_ = after
    [[last]] = stage.query("select coalesce(max(id), 0) from ledger_reconciliation")
    stage.until(lambda: stage.query("select 1 from ledger_reconciliation where id > %s", last), "a reconciliation")
    assert stage.query("select * from ledger_reconciliation where not balanced") == []
    assert stage.query("select kind, text from ledger_alarm") == []
    assert stage.query("select distinct standing from providers_provider") == [("active",)]
    assert stage.query("select 1 from ledger_chaintx where state <> 'final'") == []
    assert stage.query("select 1 from training_run where state <> 'done'") == []


def test_every_model_is_the_one_that_its_receipt_tells_of(after):
    stage, customers, _ = after
    for customer in customers:
        for ticket, folder in customer.results.items():
            link = next(file.url for file in customer.client.files(ticket) if file.name == "receipt.json")
            given = [link, "--model", folder / "model.keras", "--escrow", stage.deployment.escrow, "--no-replay"]
            command = [sys.executable, "-m", "dmlworker", "verify", *map(str, given), "--rpc", stage.rpc_url]
            done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
            assert done.returncode == 0, done.stdout + done.stderr
            checked = {line.split(":")[0].removeprefix("ok").strip() for line in done.stdout.splitlines()}
            assert checked >= {"chain", "paid", "model", "round 1", "round 2", "round 3"}, done.stdout
