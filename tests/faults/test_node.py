"""Faults 4 and 14: a node that fails most calls, whose finality stands still, or that refuses ranges of logs."""

import pytest

from contracts.chain import Chain, Rejected, connect
from contracts.tests.proxy import Proxy
from ledger import outbox, scanner, watch
from ledger.models import Alarm, Attempt, ChainEvent, ChainTx, Transfer, balance
from ledger.scanner import Scanner
from tests.faults.steps import PRICE, finalize, read, rpc, send_all, settled_exactly, until_quiet

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def proxy(paid):
    with Proxy(paid.chain.w3.provider.endpoint_uri) as running:
        yield running


def by(proxy, paid):
    return Chain(connect(proxy.url), paid.chain.deployment)


def test_14_finality_stands_still_for_a_quarter_of_an_hour(paid, proxy, settings):
    """A settlement is mined, and not final for 15 minutes: nothing is booked, nothing sent again for more, admins know."""
    through, now = by(proxy, paid), [0.0]
    standstill = watch.Standstill(lambda: now[0])
    tx = paid.settle()
    send_all()
    proxy.freeze_finalized()
    finalize(paid.chain)
    booked = Transfer.objects.count()
    for minute in range(17):
        now[0] = 60.0 * minute
        rpc(paid.chain, "evm_mine")
        Scanner(through).scan()
        outbox.confirm(through)
        send_all()
        standstill.heard(through.finalized(), through.head())
        tx.refresh_from_db()
        assert (tx.state, Transfer.objects.count(), Attempt.objects.count()) == ("sent", booked, 1)
        assert Alarm.objects.filter(kind="finality stands still").exists() == (60 * minute > settings.CHAIN_LAG_SECONDS)
    assert balance(f"escrow:{paid.ticket}") == PRICE, "until it is final, it is in escrow"

    proxy.thaw()
    Scanner(through).scan()
    outbox.confirm(through)
    settled_exactly(paid.chain, paid.ticket, paid.wallet, paid.wallet_had)
    assert ChainTx.objects.get().state == "final"


def test_an_idle_chain_is_no_standstill(paid):
    """A development chain makes no blocks while nothing happens: its last final block is old, and that is in order."""
    now = [0.0]
    standstill = watch.Standstill(lambda: now[0])
    for hour in range(3):
        now[0] = 3600.0 * hour
        standstill.heard(paid.chain.finalized(), paid.chain.head())
    assert not Alarm.objects.exists()


def test_a_chain_that_is_silent_for_long_alarms(paid, settings):
    now = [0.0]
    standstill = watch.Standstill(lambda: now[0])
    standstill.silent(Rejected("no"))
    assert not Alarm.objects.exists()
    now[0] = settings.CHAIN_LAG_SECONDS + 1.0
    standstill.silent(Rejected("no"))
    assert Alarm.objects.get().kind == "chain silent"


@pytest.mark.parametrize("most", [1, 3, 7])
def test_14_a_node_that_refuses_ranges_of_logs_is_asked_for_less(paid, proxy, most):
    for _ in range(40):
        rpc(paid.chain, "evm_mine")
    paid.settle()
    send_all()
    proxy.limit_range(most)
    finalize(paid.chain)
    reader = Scanner(by(proxy, paid))
    reader.scan()
    outbox.confirm(paid.chain)
    assert reader.range <= 2 * most
    settled_exactly(paid.chain, paid.ticket, paid.wallet, paid.wallet_had)


def test_14_a_node_that_refuses_every_log_stops_the_reading_and_loses_nothing(paid, proxy):
    paid.settle()
    send_all()
    finalize(paid.chain)
    proxy.limit_range(0)
    before = ChainEvent.objects.count()
    with pytest.raises(Rejected):
        Scanner(by(proxy, paid)).scan()
    assert ChainEvent.objects.count() == before
    read(paid.chain)
    settled_exactly(paid.chain, paid.ticket, paid.wallet, paid.wallet_had)


def test_the_range_follows_how_fast_the_node_answers(paid, monkeypatch):
    for _ in range(300):
        rpc(paid.chain, "evm_mine")
    reader = Scanner(paid.chain)
    reader.scan()
    assert reader.range > scanner.RANGE
    wide = reader.range
    monkeypatch.setattr(scanner, "SLOW", 0.0)
    for _ in range(3):
        rpc(paid.chain, "evm_mine")
    reader.scan()
    assert reader.range < wide


@pytest.mark.parametrize("seed", range(3))
def test_4_seven_of_ten_calls_fail_and_the_settlement_happens_once(paid, proxy, seed, monkeypatch):
    """Some are refused, some cut off, some carried out and never answered."""
    from contracts.chain import ChainError
    from ledger import gateway

    flaky = by(proxy, paid)
    proxy.fail(0.7, seed=seed)
    paid.settle()
    monkeypatch.setattr(outbox, "chain", lambda: flaky)
    for _ in range(200):
        try:
            send_all()
            finalize(paid.chain)
            Scanner(flaky).scan()
            outbox.confirm(flaky)
        except ChainError:
            continue
        if ChainTx.objects.get().state == "final" and balance(f"escrow:{paid.ticket}") == 0:
            break
    monkeypatch.setattr(outbox, "chain", gateway.chain)
    until_quiet(paid.chain)
    settled_exactly(paid.chain, paid.ticket, paid.wallet, paid.wallet_had)
    assert Attempt.objects.count() == 1
