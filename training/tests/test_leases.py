"""Who gets which shard, when a lease ends, and that a repeated or late message changes nothing."""

from datetime import timedelta

import pytest
from django.db import OperationalError
from django.utils import timezone
from redis import RedisError

from contracts.chain import Unavailable
from dmlsite.errors import Conflict, Forbidden, Missing
from providers import actions as providers
from providers.models import Connection, Provider, Standing
from tickets.models import Status
from training import actions, pay, store
from training.consumers import lease_of
from training.models import Assignment, Round, Run
from training.tests.conftest import ROOT, another, close, commit, leases, make_provider

State = Assignment.State


def test_a_run_waits_visibly_until_enough_providers_are_online(run):
    make_provider("ada"), make_provider("offline", online=False)
    assert not actions.start(run)
    assert not actions.start(run)
    assert [event.text for event in run.ticket.events.filter(kind="waiting")] == ["1 of 2 providers online"]
    make_provider("bob")
    assert actions.start(run)
    run.ticket.refresh_from_db()
    assert run.ticket.status == Status.TRAINING


def test_a_customer_never_trains_their_own_ticket(run):
    make_provider("ada")
    own = make_provider("own")
    own.user, run.ticket.customer = run.ticket.customer, own.user
    run.ticket.save()
    assert not actions.start(run)


def test_every_shard_has_one_live_lease_and_its_own_seed(started):
    found = leases(started)
    assert {(lease.shard.number, lease.provider.user_name) for lease in found} in (
        {(0, "ada"), (1, "bob")},
        {(0, "bob"), (1, "ada")},
    )
    assert len({actions.seed_of(lease) for lease in found}) == 2


def test_a_repeated_commit_succeeds_and_another_update_does_not_replace_it(started):
    lease = leases(started)[0]
    update = commit(lease)
    actions.record_update(lease.provider, lease_of(lease), update.pk, ROOT)
    with pytest.raises(Conflict):
        actions.record_update(lease.provider, lease_of(lease), store.put(b"second thoughts").pk, ROOT)
    lease.refresh_from_db()
    assert lease.update_id == update.pk


def test_a_commit_needs_the_bytes_and_the_right_provider(started):
    one, other = leases(started)
    with pytest.raises(Missing, match="upload"):
        actions.record_update(one.provider, lease_of(one), "0" * 64, ROOT)
    with pytest.raises(Missing, match="lease"):
        actions.record_update(other.provider, lease_of(one), store.put(b"x").pk, ROOT)


def test_an_overdue_lease_goes_to_somebody_else_and_its_late_commit_is_refused(started):
    make_provider("cleo")
    lease = leases(started)[0]
    Assignment.objects.filter(pk=lease.pk).update(deadline=timezone.now() - timedelta(seconds=1))
    actions.reassign_overdue()
    lease.refresh_from_db()
    assert lease.state == State.EXPIRED
    again = Assignment.objects.get(round=lease.round, shard=lease.shard, attempt=2)
    assert again.provider != lease.provider
    with pytest.raises(Conflict):
        actions.record_update(lease.provider, lease_of(lease), store.put(b"late").pk, ROOT)


def test_a_shard_nobody_can_take_is_handed_out_when_somebody_comes(started):
    Connection.objects.all().delete()
    Assignment.objects.update(deadline=timezone.now() - timedelta(seconds=1))
    actions.reassign_overdue()
    assert not Assignment.objects.filter(state__in=Assignment.LIVE).exists()
    make_provider("cleo")
    actions.reassign_overdue()
    assert {lease.provider.user_name for lease in leases(started) if lease.state == State.OFFERED} == {"cleo"}


def test_a_malformed_update_goes_to_somebody_else_without_blame(started):
    make_provider("cleo")
    lease = leases(started)[0]
    actions.record_update(lease.provider, lease_of(lease), store.put(b"junk").pk, ROOT)
    actions.reject(lease, "not finite")
    lease.refresh_from_db()
    assert (lease.state, lease.provider.standing) == (State.REJECTED, Standing.ACTIVE)
    assert Assignment.objects.get(round=lease.round, shard=lease.shard, state=State.OFFERED).provider != lease.provider


def test_what_nobody_can_train_on_is_refunded_and_not_tried_for_ever(started, monkeypatch):
    refunds = []
    monkeypatch.setattr("ledger.actions.refund", lambda *args: refunds.append(args))
    shard = leases(started)[0].shard
    for _ in range(actions.TRIES):
        lease = Assignment.objects.get(round__run=started, shard=shard, state__in=Assignment.LIVE)
        actions.reject(lease, "not finite")
    started.refresh_from_db()
    assert (started.state, len(refunds)) == (Run.State.STOPPED, 1)
    assert "not finite" in started.ticket.outcome
    assert set(Provider.objects.values_list("standing", flat=True)) == {Standing.ACTIVE}


def test_declining_is_no_sign_that_the_job_is_hopeless_unless_everybody_does_it_all_the_time(started, monkeypatch):
    refunds = []
    monkeypatch.setattr("ledger.actions.refund", lambda *args: refunds.append(args))
    shard = leases(started)[0].shard
    for count in range(actions.HOPELESS[State.DECLINED]):
        assert not refunds, count
        lease = Assignment.objects.get(round__run=started, shard=shard, state__in=Assignment.LIVE)
        actions.decline(lease.provider, lease_of(lease), "No space left on device")
        Assignment.objects.filter(shard=shard).update(offered=timezone.now() - timedelta(days=1))
        actions.reassign_overdue()
    assert len(refunds) == 1


def test_who_declined_is_not_asked_again_at_once(started):
    shard = leases(started)[0].shard
    for _ in range(2):
        lease = Assignment.objects.get(round__run=started, shard=shard, state__in=Assignment.LIVE)
        actions.decline(lease.provider, lease_of(lease), "No space left on device")
        actions.reassign_overdue()
    assert not Assignment.objects.filter(round__run=started, shard=shard, state__in=Assignment.LIVE).exists()


def test_progress_keeps_a_lease_alive(started):
    lease = leases(started)[0]
    assert actions.accept(lease.provider, lease_of(lease), f"channel-{lease.provider}")
    Assignment.objects.filter(pk=lease.pk).update(deadline=timezone.now() - timedelta(seconds=1))
    actions.progress(lease.provider, lease_of(lease), 3, 10)
    actions.reassign_overdue()
    lease.refresh_from_db()
    assert (lease.state, lease.step) == (State.ACCEPTED, 3)


def test_an_offer_does_not_lapse_while_its_worker_makes_progress_with_other_work(started):
    other = another(started)
    assert actions.start(other)
    Assignment.objects.update(deadline=timezone.now() - timedelta(seconds=1))
    now, then = (Assignment.objects.get(round__run=run, provider__user_name="ada") for run in (started, other))
    assert actions.accept(now.provider, lease_of(now), "channel-ada")
    actions.progress(now.provider, lease_of(now), 3, 10)
    actions.reassign_overdue()
    then.refresh_from_db()
    assert then.state == State.OFFERED
    assert Assignment.objects.get(round__run=other, provider__user_name="bob").state == State.EXPIRED


def test_of_two_workers_with_one_key_one_gets_the_lease_and_its_heir_when_it_is_gone(started):
    lease = leases(started)[0]
    Connection.objects.create(provider=lease.provider, channel="second")
    first = f"channel-{lease.provider}"
    assert actions.accept(lease.provider, lease_of(lease), first)
    assert not actions.accept(lease.provider, lease_of(lease), "second")
    assert actions.offers(lease.provider, "channel") == []
    providers.disconnected(first)
    assert [offer.pk for offer in actions.offers(lease.provider, "channel")] == [lease.pk]
    assert actions.accept(lease.provider, lease_of(lease), "second")


def test_a_round_closes_once_and_the_next_one_keeps_everybody_at_their_shard(started):
    for lease in leases(started):
        commit(lease)
    assert len(actions.ready(Round.objects.get(run=started, number=1))) == 2
    for _ in range(2):
        close(started)
    assert Round.objects.filter(run=started).count() == 2
    before, after = ({(x.shard_id, x.provider_id) for x in leases(started, number)} for number in (1, 2))
    assert before == after


def test_merit_is_what_the_updates_got_right_summed_over_the_rounds(started):
    for number in (1, 2):
        for lease in leases(started, number):
            commit(lease, correct=8 if lease.provider.user_name == "ada" else 3)
        close(started, number)
    assert sorted(pay.merit(started).values()) == [6, 16]


def test_who_was_banned_meanwhile_is_not_paid_and_nobody_left_means_a_refund(started, monkeypatch):
    settled, refunded = [], []
    monkeypatch.setattr("ledger.actions.release", lambda ticket, shares, *rest: settled.append(shares))
    monkeypatch.setattr("ledger.actions.refund", lambda *args: refunded.append(args))
    for lease in leases(started):
        commit(lease)
    close(started)
    ada, bob = (Provider.objects.get(user_name=name) for name in ("ada", "bob"))
    providers.change_standing(ada, Standing.BANNED, "another ticket")
    assert list(pay.merit(started)) == [bob.wallet]
    providers.change_standing(bob, Standing.BANNED, "another ticket")
    actions.finish(started, 0.5, pay.merit(started), "0x" + "0" * 64)
    started.ticket.refresh_from_db()
    assert (started.ticket.status, len(settled), len(refunded)) == (Status.REFUNDED, 0, 1)


def test_a_worker_reads_only_what_its_open_leases_name(started):
    ada, bob = leases(started)
    for blob in (ada.shard.blob_id, started.start_id, started.spec_id):
        assert actions.readable_blob(ada.provider, blob).pk == blob
    for blob in (bob.shard.blob_id, started.holdout_id):
        with pytest.raises(Missing):
            actions.readable_blob(ada.provider, blob)
    actions.stop(started)
    with pytest.raises(Missing):
        actions.readable_blob(ada.provider, ada.shard.blob_id)
    with pytest.raises(Forbidden):
        actions.upload_limit(ada.provider, "0" * 64)


def test_a_banned_provider_gets_no_work_and_no_bytes(started):
    lease = leases(started)[0]
    providers.change_standing(lease.provider, Standing.ACCUSED, "evidence")
    assert actions.offers(lease.provider, "channel") == []
    assert lease.provider not in actions.candidates(started)
    with pytest.raises(Forbidden):
        actions.readable_blob(lease.provider, lease.shard.blob_id)


def test_an_error_in_a_step_is_recorded_and_the_third_one_ends_the_ticket_in_a_refund(started, monkeypatch):
    refunds = []
    monkeypatch.setattr("ledger.actions.refund", lambda *args: refunds.append(args))
    for _ in range(2):
        with pytest.raises(RuntimeError), actions.guarded(started.ticket, "averaging"):
            raise RuntimeError("disk on fire")
    with actions.guarded(started.ticket, "averaging"):
        raise RuntimeError("disk on fire")
    started.refresh_from_db()
    assert started.state == Run.State.STOPPED
    assert (started.ticket.status, len(refunds)) == (Status.REFUNDED, 1)
    assert started.ticket.events.filter(kind="error", text__contains="disk on fire").count() >= 3


@pytest.mark.parametrize("outage", [Unavailable, OperationalError, RedisError, ConnectionRefusedError, TimeoutError])
def test_an_outage_is_waited_for_however_often_a_step_meets_it(started, outage):
    for _ in range(2 * actions.TRIES):
        with pytest.raises(outage), actions.guarded(started.ticket, "averaging"):
            raise outage("gone for a while")
    started.refresh_from_db()
    assert (started.state, started.ticket.status) == (Run.State.TRAINING, Status.TRAINING)
