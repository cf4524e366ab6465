"""What follows from audits: a round waits for them, passes, or is opened again without what may not stay in it. Rows only."""

import json
from dataclasses import asdict
from datetime import timedelta

import pytest
from django.utils import timezone

from dmlsite.errors import Conflict, Missing
from providers.models import Accusation, Provider, Standing
from tickets.models import OnCheat, Ticket
from training import actions, audits, pay, store
from training.consumers import lease_of
from training.models import Assignment, Audit, Blob, Replay, Round, Run
from training.tests.conftest import ROOT, close, commit, leases, make_provider

State = Audit.State


@pytest.fixture(autouse=True)
def chain(monkeypatch):
    """What the chain would be told."""
    told = []
    for verb in ("accuse", "refund", "fail_ticket"):
        monkeypatch.setattr(f"ledger.actions.{verb}", lambda *args, verb=verb, **kw: told.append(verb), raising=False)
    return told


def round_of(run, number=1):
    return Round.objects.select_related("run__ticket").get(run=run, number=number)


@pytest.fixture
def closed(started):
    """Two updates are averaged, round 2 is out, and cleo is there to help; nothing is measured yet."""
    make_provider("cleo")
    for lease in leases(started):
        commit(lease)
    close(started, check=False)
    return started


def asked(run, *names, number=1):
    """Audits of what these providers did in a round; the round is measured."""
    updates = [lease for lease in leases(run, number) if lease.provider.user_name in names]
    updates = [lease for lease in updates if lease.state == Assignment.State.COMMITTED]
    audits.measured(round_of(run, number), 0.5, 1.0, [(update, "drawn by chance") for update in updates])
    return [Audit.objects.get(assignment=update) for update in updates]


def decide(audit, state, note=""):
    if state == State.FAILED:
        told = {"start": "a" * 64, "claimed": "b" * 64, "allowed": 0.05, "relative": float("inf"), "cosine": 0}
        told |= {"result": "c" * 64, "apart": 0.001}
        for number in (1, 2):
            Replay.objects.create(audit=audit, segment=1, number=number, agrees=False, **told)
    audits.decide(audit, state, note)
    audits.judge(round_of(audit.assignment.round.run, audit.assignment.round.number))


def streak(name):
    return Provider.objects.get(user_name=name).streak


# --- Ordering ---------------------------------------------------------------------------------------------------------
def test_newcomers_are_always_audited_and_others_by_chance(started, settings):
    Provider.objects.filter(user_name="ada").update(streak=1000)
    for lease in leases(started):
        commit(lease)
    settings.AUDIT_PERCENT = 0
    drawn = []
    for _ in range(50):
        drawn += [update.provider.user_name for update, _ in audits.ordered(round_of(started), leases(started))]
    assert drawn.count("bob") == 50
    assert drawn.count("ada") < 5


def test_what_the_screen_noticed_is_audited_whatever_the_chance(started, settings):
    settings.AUDIT_FIRST = settings.AUDIT_PERCENT = 0
    updates = leases(started)
    updates[0].suspicion = "points away"
    assert audits.ordered(round_of(started), updates) == [(updates[0], "points away")]


def test_where_all_are_trusted_nobody_is_audited(started, settings):
    settings.AUDITS = False
    updates = leases(started)
    updates[0].suspicion = "points away"
    assert audits.ordered(round_of(started), updates) == []


@pytest.mark.parametrize(("number", "rounds", "audited"), [(1, 3, 1), (2, 3, 0), (3, 3, 1)])
def test_of_the_rounds_that_the_receipt_keeps_there_is_always_something_to_replay(
    started, settings, number, rounds, audited
):
    """Whoever the providers are: their own record would have nothing audited."""
    settings.AUDIT_FIRST = settings.AUDIT_PERCENT = 0
    round_ = round_of(started)
    round_.number, round_.run.rounds = number, rounds
    found = [audits.ordered(round_, leases(started)) for _ in range(20)]
    assert [len(orders) for orders in found] == [audited] * 20
    assert {why for orders in found for _, why in orders} == ({audits.FOR_RECEIPT} if audited else set())
    assert len({update.pk for orders in found for update, _ in orders}) == 2 * audited  # by chance


def test_nothing_more_is_ordered_for_the_receipt_where_something_is_audited_anyway(closed, settings):
    settings.AUDIT_FIRST = settings.AUDIT_PERCENT = 0
    updates = leases(closed)
    updates[0].suspicion = "points away"
    assert [why for _, why in audits.ordered(round_of(closed), updates)] == ["points away"]
    asked(closed, "ada")  # before the round was opened again
    assert audits.ordered(round_of(closed), leases(closed)) == []


def test_segments_are_drawn_within_the_work(closed):
    (audit,) = asked(closed, "ada")
    assert audit.drawn == [0]  # six samples, one step, one segment


# --- The worker's turn ------------------------------------------------------------------------------------------------
def test_a_worker_is_asked_once_and_shows_its_work(closed):
    (audit,) = asked(closed, "ada")
    lease = audit.assignment
    assert [found.pk for found in audits.challenges(lease.provider, "channel-ada")] == [audit.pk]
    with pytest.raises(Conflict, match="upload the trace first"):
        audits.show(lease.provider, lease_of(lease), "0" * 64)
    trace = store.put(b"trace").pk
    for _ in range(2):
        audits.show(lease.provider, lease_of(lease), trace)
    with pytest.raises(Conflict, match="decided"):
        audits.show(lease.provider, lease_of(lease), store.put(b"another").pk)
    assert audits.challenges(lease.provider, "channel-ada") == []
    with pytest.raises(Missing):
        audits.show(Provider.objects.get(user_name="bob"), lease_of(lease), trace)


def test_only_the_worker_that_did_it_is_asked_while_it_is_online(closed):
    lease = next(lease for lease in leases(closed) if lease.provider.user_name == "ada")
    Assignment.objects.filter(pk=lease.pk).update(channel="channel-ada")
    asked(closed, "ada")
    assert audits.challenges(lease.provider, "another of ada's") == []
    lease.provider.connections.all().delete()
    assert len(audits.challenges(lease.provider, "another of ada's")) == 1


def test_who_has_to_show_something_may_fetch_and_send_and_nobody_else(closed):
    (audit,) = asked(closed, "ada")
    ada, bob = (Provider.objects.get(user_name=name) for name in ("ada", "bob"))
    Assignment.objects.filter(round__number=2).update(state=Assignment.State.CANCELLED)
    assert actions.readable_blob(ada, audit.assignment.shard.blob_id)
    assert actions.upload_limit(ada, "0" * 64) > 0
    with pytest.raises(Missing):
        actions.readable_blob(bob, audit.assignment.shard.blob_id)


@pytest.mark.parametrize(("optimizer", "times"), [("sgd", 1), ("momentum", 2), ("adam", 3)])
def test_a_checkpoint_is_as_long_as_the_weights_and_what_the_optimizer_remembers(closed, optimizer, times):
    (audit,) = asked(closed, "ada")
    Assignment.objects.filter(round__number=2).update(state=Assignment.State.CANCELLED)
    Run.objects.filter(pk=closed.pk).update(optimizer=optimizer)
    Blob.objects.filter(pk=audit.assignment.round.start_id).update(size=10**6)
    limit = actions.upload_limit(audit.assignment.provider, "0" * 64)
    assert times * 10**6 <= limit < times * 10**6 + 10**5


def overdue(audit):
    Audit.objects.filter(pk=audit.pk).update(deadline=timezone.now() - timedelta(seconds=1))


def test_who_shows_nothing_in_time_is_not_waited_for(closed):
    (audit,) = asked(closed, "ada")
    assert audits.give_up_overdue() == []
    overdue(audit)
    other = next(lease for lease in leases(closed, 2) if lease.provider == audit.assignment.provider)
    actions.progress(other.provider, lease_of(other), 1, 2)  # at work on round 2
    assert audits.give_up_overdue() == []
    overdue(audit)
    assert [round_.pk for round_ in audits.give_up_overdue()] == [audit.assignment.round_id]
    audit.refresh_from_db()
    assert audit.state == State.UNPROVEN


# --- Verdicts ---------------------------------------------------------------------------------------------------------
def test_a_round_passes_when_all_its_audits_did(closed):
    first, second = asked(closed, "ada", "bob")
    decide(first, State.PASSED)
    assert round_of(closed).checked is None
    decide(second, State.PASSED)
    assert round_of(closed).checked
    assert (streak("ada"), streak("bob")) == (1, 1)


def test_what_proves_nothing_costs_nothing(closed):
    Provider.objects.update(streak=20)
    (audit,) = asked(closed, "ada")
    decide(audit, State.INCONCLUSIVE)
    assert round_of(closed).checked
    assert streak("ada") == 20


def test_a_verdict_stands(closed):
    (audit,) = asked(closed, "ada")
    decide(audit, State.PASSED)
    decide(audit, State.FAILED)
    audit.refresh_from_db()
    assert (audit.state, streak("ada")) == (State.PASSED, 1)


def test_work_that_was_not_shown_is_done_again_by_somebody_else_without_blame(closed):
    ada, bob = asked(closed, "ada", "bob")
    decide(bob, State.PASSED)
    void = round_of(closed, 2)
    for lease in leases(closed, 2):
        commit(lease)  # round 2 is trained already, on a start that is void now
    decide(ada, State.UNPROVEN, "not shown in time")
    reopened = round_of(closed)
    assert (reopened.state, reopened.end, reopened.accuracy, reopened.checked) == (Round.State.OPEN, None, None, None)
    assert Round.everything.get(pk=void.pk).voided
    assert set(void.assignments.values_list("state", flat=True)) == {Assignment.State.VOID}
    again = reopened.assignments.get(state=Assignment.State.OFFERED)
    assert (again.shard, again.attempt) == (ada.assignment.shard, 2)
    assert again.provider.user_name in ("bob", "cleo")
    assert Provider.objects.get(user_name="ada").standing == Standing.ACTIVE
    assert not Accusation.objects.exists()
    commit(again)
    close(closed, check=False)
    assert round_of(closed, 2).pk != void.pk
    assert audits.ordered(reopened, actions.updates_of(reopened))[0][0].pk == again.pk  # bob's was audited before
    assert sum(pay.merit(closed).values()) == 10


def test_a_shard_that_three_could_not_show_ends_the_ticket_in_a_refund(closed, chain):
    for name in ("dora", "emil"):
        make_provider(name)
    for _ in range(actions.TRIES):
        shard = closed.shards.first()
        work = round_of(closed).assignments.get(shard=shard, state__in=Assignment.LIVE)
        if work.state != Assignment.State.COMMITTED:
            commit(work)
            close(closed, check=False)
        (audit,) = asked(closed, work.provider.user_name)
        decide(audit, State.UNPROVEN, "not shown in time")
    closed.refresh_from_db()
    assert (closed.state, "refund" in chain) == (Run.State.STOPPED, True)


def test_that_audits_can_prove_nothing_is_told_to_the_customer_once(closed):
    for audit in asked(closed, "ada", "bob"):
        decide(audit, State.INCONCLUSIVE, "honest replays of segment 0 are 0.3 apart")
    (said,) = closed.ticket.events.filter(kind="not provable").values_list("text", flat=True)
    assert said.startswith("An audit in round 1 could prove nothing.") and "learning rate" in said
    assert round_of(closed).checked


def test_an_audit_that_does_prove_something_says_nothing_of_that(closed):
    ada, bob = asked(closed, "ada", "bob")
    decide(ada, State.PASSED)
    decide(bob, State.UNPROVEN, "not shown in time")
    assert not closed.ticket.events.filter(kind="not provable").exists()


# --- Cheats -----------------------------------------------------------------------------------------------------------
def test_by_default_a_cheat_ends_the_training_and_the_customer_is_refunded(closed, monkeypatch):
    refunded = []
    monkeypatch.setattr("tickets.actions.refund_for_cheating", lambda *args: refunded.append(args))
    (audit,) = asked(closed, "ada")
    decide(audit, State.FAILED)
    closed.refresh_from_db()
    accusation = Accusation.objects.get()
    assert (closed.state, len(refunded), accusation.pk) == (Run.State.STOPPED, 1, closed.ticket_id)
    assert [cheat.user_name for cheat in accusation.cheats.all()] == ["ada"]
    assert accusation.honest == [Provider.objects.get(user_name="bob").wallet]
    found = accusation.evidence["replays"]
    assert [each["segment"] for each in found] == [1, 1]
    work = audit.assignment
    assert found[0]["spec"] == closed.spec_id
    assert {name: found[0][name] for name in asdict(actions.hyper_of(work))} == asdict(actions.hyper_of(work))
    assert (found[0]["result"], found[0]["honest_replays_apart"], found[0]["relative_distance"]) == (
        "c" * 64,
        0.001,
        None,
    )
    json.dumps(accusation.evidence, allow_nan=False)


@pytest.fixture
def goes_on(closed):
    Ticket.objects.filter(pk=closed.ticket_id).update(on_cheat=OnCheat.CONTINUE)
    closed.refresh_from_db()
    return closed


def test_if_the_customer_wants_it_the_training_goes_on_without_the_cheat(goes_on, chain):
    (audit,) = asked(goes_on, "ada")
    decide(audit, State.FAILED)
    goes_on.refresh_from_db()
    assert (goes_on.state, goes_on.ticket.status, chain) == (Run.State.TRAINING, "training", ["accuse"])
    assert Provider.objects.get(user_name="ada").standing == Standing.ACCUSED
    reopened = round_of(goes_on)
    taken = reopened.assignments.get(provider__user_name="ada")
    assert taken.state == Assignment.State.REVOKED
    again = reopened.assignments.get(state=Assignment.State.OFFERED)
    assert (again.shard, again.provider.user_name) == (taken.shard, "cleo")
    commit(again)
    close(goes_on)
    for lease in leases(goes_on, 2):
        commit(lease)
    close(goes_on, 2)
    assert set(pay.merit(goes_on)) == set(
        Provider.objects.filter(user_name__in=["bob", "cleo"]).values_list("wallet", flat=True)
    )
    assert goes_on.ticket.events.filter(kind="back").count() == 1


def test_earlier_rounds_of_a_cheat_are_rolled_back_too(goes_on):
    """It was found in round 2; its work of round 1 had passed unseen."""
    audits.measured(round_of(goes_on), 0.5, 1.0, [])
    audits.judge(round_of(goes_on))
    for lease in leases(goes_on, 2):
        commit(lease)
    close(goes_on, 2, check=False)
    (audit,) = asked(goes_on, "ada", number=2)
    decide(audit, State.FAILED)
    assert list(Round.objects.filter(run=goes_on).values_list("number", "state")) == [(1, Round.State.OPEN)]
    assert Round.everything.filter(run=goes_on).count() == 2
    mine = Assignment.objects.filter(round__run=goes_on, provider__user_name="ada")
    assert set(mine.values_list("state", flat=True)) == {Assignment.State.REVOKED}


def test_a_run_that_ended_early_on_a_cheats_work_trains_on(goes_on):
    Run.objects.filter(pk=goes_on.pk).update(rounds=1)
    (audit,) = asked(goes_on, "ada")
    decide(audit, State.FAILED)
    goes_on.refresh_from_db()
    assert goes_on.rounds == goes_on.ticket.rounds == 2


def test_one_cheat_is_convicted_once_however_often_it_is_judged(goes_on):
    (audit,) = asked(goes_on, "ada")
    decide(audit, State.FAILED)
    audits.judge(round_of(goes_on))
    assert Accusation.objects.count() == 1
    assert ROOT
