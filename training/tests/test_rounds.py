"""When a round closes and the next one opens, when a run ends, and whose run starts first."""

from datetime import timedelta

import pytest
from django.utils import timezone

from dmlsite.errors import Conflict
from training import actions, pay, store
from training.consumers import lease_of
from training.models import Assignment, Round, Run
from training.tests.conftest import ROOT, another, check_round, close, commit, leases, make_provider

State = Assignment.State


def round_of(run, number=1) -> Round:
    return Round.objects.select_related("run").get(run=run, number=number)


@pytest.fixture
def refunds(monkeypatch):
    found = []
    monkeypatch.setattr("ledger.actions.refund", lambda *args: found.append(args))
    return found


def test_the_next_round_trains_while_the_last_one_is_checked_but_is_not_averaged_before(started):
    for lease in leases(started):
        commit(lease)
    close(started, check=False)
    assert round_of(started).checked is None
    for lease in leases(started, 2):
        commit(lease)
    assert actions.ready(round_of(started, 2)) == []
    check_round(started)
    assert len(actions.ready(round_of(started, 2))) == 2


def test_a_round_is_closed_and_checked_once(started):
    for lease in leases(started):
        commit(lease)
    for _ in range(2):
        close(started)
    check_round(started, accuracy=0.9)
    assert (round_of(started).accuracy, Round.objects.filter(run=started).count()) == (0.5, 2)
    assert started.ticket.events.filter(kind="round").count() == 1


def test_a_run_that_ended_while_it_was_averaged_opens_no_other_round(started):
    for lease in leases(started):
        commit(lease)
    actions.stop(started)
    close(started)
    assert (Round.objects.filter(run=started).count(), round_of(started).state) == (1, Round.State.OPEN)


def test_what_fails_after_a_round_that_is_not_checked_yet_is_not_taken_for_the_customers_fault(started, refunds):
    """A cheat's noise went into the average: nobody can train from there. The check will tell who it was."""
    for lease in leases(started):
        commit(lease)
    close(started, check=False)
    shard = leases(started, 2)[0].shard

    def fail():
        actions.reject(round_of(started, 2).assignments.get(shard=shard, state__in=Assignment.LIVE), "not finite")

    for _ in range(actions.TRIES):
        fail()
    started.refresh_from_db()
    assert (started.state, refunds) == (Run.State.TRAINING, [])
    check_round(started)  # hands the shard out again
    fail()
    started.refresh_from_db()
    assert (started.state, len(refunds)) == (Run.State.STOPPED, 1)


# --- A quorum -----------------------------------------------------------------------------------------------------------
def late(run, seconds):
    Round.objects.filter(run=run, number=1).update(opened=timezone.now() - timedelta(seconds=seconds))


@pytest.mark.parametrize(("percent", "enough"), [(50, True), (51, False), (100, False)])
def test_a_round_that_nobody_finishes_goes_on_with_a_quorum(started, settings, percent, enough):
    settings.QUORUM_PERCENT, settings.LEASE_SECONDS = percent, 10
    commit(leases(started)[0])
    assert actions.ready(round_of(started)) == []
    late(started, 1000)
    Assignment.objects.filter(received__isnull=False).update(received=round_of(started).opened + timedelta(seconds=300))
    assert bool(actions.ready(round_of(started))) == enough


def test_hope_lasts_longer_where_the_others_took_longer(started, settings):
    settings.QUORUM_PERCENT, settings.LEASE_SECONDS = 50, 10
    commit(leases(started)[0])
    late(started, 1000)
    Assignment.objects.filter(received__isnull=False).update(received=round_of(started).opened + timedelta(seconds=400))
    assert actions.ready(round_of(started)) == []


def test_who_is_left_behind_is_told_and_not_paid_without_blame(started):
    first, second = leases(started)
    commit(first, correct=8)
    update = store.put(b"too late")
    actions.record_update(second.provider, lease_of(second), update.pk, ROOT)  # after the others were counted
    close(started)
    second.refresh_from_db()
    assert (second.state, second.provider.standing) == (State.EXPIRED, "active")
    assert pay.merit(started) == {first.provider.wallet: 8}
    assert started.ticket.events.filter(kind="late", text__contains=second.provider.user_name).exists()
    with pytest.raises(Conflict):
        actions.record_update(second.provider, lease_of(second), update.pk, ROOT)


# --- The end, when more rounds would not help ---------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("patience", "losses", "rounds"),
    [
        (0, [1.0, 1.0, 1.0, 1.0, 1.0], 6),
        (1, [1.0, 0.5, 0.5], 4),  # the third did not help; the fourth was under way when that was known
        (2, [1.0, 0.5, 0.6, 0.55], 5),
        (2, [1.0, 0.5, 0.6, 0.4, 0.3], 6),
        (1, [1.0, None], 3),
    ],
)
def test_a_run_ends_early_where_the_loss_falls_no_more(started, patience, losses, rounds):
    Run.objects.filter(pk=started.pk).update(rounds=6, patience=patience)
    for number, loss in enumerate(losses, start=1):
        for lease in leases(started, number):
            commit(lease)
        close(started, number, loss=loss)
    for lease in leases(started, len(losses) + 1):
        commit(lease)
    close(started, len(losses) + 1)
    started.refresh_from_db()
    assert started.rounds == rounds
    assert Round.objects.filter(run=started).count() == min(rounds, len(losses) + 1 + (rounds > len(losses) + 1))


# --- The queue ----------------------------------------------------------------------------------------------------------
def test_customers_take_turns_and_the_oldest_order_goes_first(started):
    busy = started.ticket.customer
    second, third = another(started, busy), another(started, busy)
    one = another(started)
    two = another(started, one.ticket.customer)
    assert actions.queue() == [one, second, two, third]


def test_a_provider_takes_so_many_tickets_as_its_workers_have_hands(started, settings):
    settings.RUNS_PER_WORKER = 2
    second, third = another(started), another(started)
    assert actions.start(second)
    assert not actions.start(third)
    assert "0 of 2 providers free" in third.ticket.events.get(kind="waiting").text
    actions.stop(started)
    assert actions.start(third)


def test_a_shard_that_is_left_over_goes_to_one_without_a_part_in_the_round(started):
    make_provider("cleo")
    first, second = leases(started)
    commit(first)
    actions.decline(second.provider, lease_of(second), "No space left on device")
    again = Assignment.objects.get(shard=second.shard, state=State.OFFERED)
    assert again.provider.user_name == "cleo"


def test_the_least_busy_are_asked_first(started):
    idle = {make_provider(name).pk for name in ("cleo", "dan")}
    second = another(started)
    assert actions.start(second)
    assert {lease.provider_id for lease in leases(second)} == idle
