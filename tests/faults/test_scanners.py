"""Two scanners on one database: one leads, and where it is killed the other one goes on."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from uuid import uuid4

import pytest
from django.db import connection

from contracts.devchain import test_key as rich
from ledger.models import ChainEvent, Cursor, Sighting, balance
from tests.faults.steps import PRICE, ROOT, balanced, environment, finalize, pay, wait_for

pytestmark = pytest.mark.django_db(transaction=True)
NAMES = ("first", "second")


@contextmanager
def scanners() -> Iterator[dict[str, "subprocess.Popen[bytes]"]]:
    """By the name that their connection has in the database."""
    command = [sys.executable, "manage.py", "scan_chain"]
    env = environment() | {"SCAN_MILLISECONDS": "50"}
    running = {
        name: subprocess.Popen(command, cwd=ROOT, env=env | {"PGAPPNAME": name}, stderr=subprocess.DEVNULL)
        for name in NAMES
    }
    try:
        yield running
    finally:
        for process in running.values():
            process.kill()
            process.wait()


def asked(sql: str) -> list[str]:
    with connection.cursor() as cursor:
        cursor.execute(sql)
        return [name for (name,) in cursor.fetchall()]


def connected() -> list[str]:
    return asked("select application_name from pg_stat_activity where application_name in ('first', 'second')")


def leading() -> list[str]:
    """Whose connection holds the scanner's lock; on one server, other platforms have databases and scanners of their own."""
    return asked(
        """select application_name from pg_locks join pg_stat_activity using (pid)
           where locktype = 'advisory' and datname = current_database() and (classid::bigint << 32 | objid::bigint) = hashtextextended('scan_chain', 0)"""
    )


def sighted(ticket) -> int:
    return Sighting.objects.filter(name="Paid", case=ticket).count()


def test_of_two_scanners_one_leads_and_the_other_takes_over(paid):
    with scanners() as running:
        wait_for(lambda: sorted(connected()) == sorted(NAMES))
        wait_for(leading)
        [leader], before, after = leading(), uuid4(), uuid4()
        pay(paid.chain, before, paid.payer)
        wait_for(lambda: sighted(before))
        assert (leading(), sighted(before)) == ([leader], 1)

        running[leader].kill()
        pay(paid.chain, after, rich(3))
        finalize(paid.chain)
        wait_for(lambda: balance(f"escrow:{after}") == PRICE)
        [follower] = leading()
        assert follower != leader
    assert ChainEvent.objects.filter(name="Paid", case__in=[before, after]).count() == 2
    assert Cursor.objects.count() == 1
    balanced(paid.chain)
