"""Fault 4, for a whole ticket in real processes: every process of the platform speaks to a node that fails 7 of 10 calls;
on top of that, the jobs and the scanner are killed (SIGKILL) while the payout is under way."""

import signal

import pytest

from contracts import devchain
from contracts.chain import Chain, connect
from contracts.devchain import test_key as rich
from contracts.tests.proxy import Proxy
from dmlsite.demo import DemoError, wait
from dmlsite.embedded import ServerError
from dmlsite.supervisor import Platform
from dmlsite.testing import room
from dmlworker.datasets import samples
from ledger import money
from tests.conftest import SETTINGS, Live, up


@pytest.fixture
def flaky(tmp_path):
    """A platform whose node is only reached by the proxy; people's wallets use the node itself."""
    port = devchain.free_port()
    with Proxy(f"http://127.0.0.1:{port}") as proxy:
        settings = SETTINGS | room(tmp_path) | {"CHAIN_RPC_URL": proxy.url, "SCAN_MILLISECONDS": "200"}
        with up(Platform(tmp_path, devchain.free_port(), port, say=print, settings=settings)) as running:
            live = Live(running)
            live.proxy = proxy
            yield live
            proxy.fail(0)


def patiently(step, seconds=300):
    """As a person does whom the site tells that the chain does not answer: try again."""
    done = []

    def tried():
        try:
            done.append(step())
        except DemoError as error:
            assert ": 503 " in str(error), error
        return done

    wait(tried, seconds, "the site to be able to ask the chain")
    return done[0]


def test_4_seven_of_ten_calls_of_a_whole_ticket_fail_and_every_unit_arrives(flaky):
    flaky.workers(4)
    customer = flaky.person("customer@example.org", "customer", rich(1))
    flaky._fund(customer, 1)
    had = flaky.chain.token_balance(customer.wallet.address)
    flaky.proxy.fail(0.7, seed=4)
    ticket = patiently(lambda: flaky.order(customer, "cells.csv", samples.breast_cancer_csv(), rounds=3, seed=4))
    killed = False
    for now in flaky.follow(customer, ticket, 600):
        if now["status"] == "settled" and not killed:
            for name in ("jobs", "compute", "scanner"):
                flaky.platform.children[name].signal(signal.SIGKILL)
            killed = True
    assert (killed, now["status"]) == (True, "settled"), now["events"]
    flaky.proxy.fail(0)

    chain = Chain(connect(flaky.rpc_url), flaky.deployment)
    price = ticket["price_micro"]
    assert had - chain.token_balance(customer.wallet.address) == price
    shares = [chain.token_balance(person.wallet.address) for person in flaky.cast]
    assert sum(shares) + money.fee(price) == price
    assert chain.totals().token_balance == 0 == chain.escrowed()
    [[sent]] = flaky.query("select count(*) from ledger_chaintx where verb in ('settle', 'refund')")
    assert sent == 1
    wait(lambda: reconciled(flaky), 60, "the books to be compared")
    posted = (
        "select sum(amount) from ledger_transfer where kind in ('posted', 'post') and left(credit, 9) = 'provider:'"
    )
    [[paid]] = flaky.query(posted)
    assert paid == sum(shares)


def reconciled(live):
    """By the command; exit code 1 means a difference, or that the scanner was in the middle of it."""
    try:
        live.platform.manage("reconcile")
    except ServerError as error:
        assert "DIFFERS" not in str(error)
        return False
    return True
