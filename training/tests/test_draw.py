"""Who gets which part: nobody a second one before everybody has one, and by chance among equals."""

import random
from collections import Counter
from datetime import timedelta

import pytest
from django.db.models.signals import post_init
from django.utils import timezone

from providers.models import Connection, Provider
from tickets.models import Ticket
from training import actions
from training.consumers import lease_of
from training.models import Assignment, Round, Run, Shard
from training.tests.conftest import another, close, commit, leases, make_provider

State = Assignment.State


def parts(run, number=1) -> Counter[str]:
    live = Assignment.objects.filter(round__run=run, round__number=number, state__in=Assignment.LIVE)
    return Counter(live.values_list("provider__user_name", flat=True))


def alone_then_joined(run):
    """Ada does all of round 1, for bob is away; then he comes back, and round 2 is given out."""
    Connection.objects.filter(provider__user_name="bob").delete()
    theirs = next(lease for lease in leases(run) if lease.provider.user_name == "bob")
    actions.decline(theirs.provider, lease_of(theirs), "going home")
    for lease in leases(run):
        if lease.state != State.DECLINED:
            commit(lease)
    assert parts(run) == {"ada": 2}
    Connection.objects.create(provider=theirs.provider, channel="channel-bob")
    close(run)


def test_who_had_two_parts_last_round_does_not_keep_both_from_one_who_has_none(started):
    alone_then_joined(started)
    assert parts(started, 2) == {"ada": 1, "bob": 1}


def test_parts_stay_where_their_data_is(started):
    before = {lease.shard_id: lease.provider_id for lease in leases(started)}
    for name in ("cleo", "dan", "eve"):
        make_provider(name)
    for lease in leases(started):
        commit(lease)
    close(started)
    assert {lease.shard_id: lease.provider_id for lease in leases(started, 2)} == before


def test_where_all_parts_stay_nobody_else_is_looked_at(started):
    """There may be ten thousand others."""
    newcomers = [make_provider(name) for name in ("cleo", "dan", "eve")]
    for lease in leases(started):
        commit(lease)
    read = set()

    def note(instance: Provider, **_: object) -> None:
        read.add(instance.pk)

    post_init.connect(note, Provider)
    close(started)
    post_init.disconnect(note, Provider)
    assert len(parts(started, 2)) == 2
    assert not read & {provider.pk for provider in newcomers}


def test_a_part_that_is_free_goes_to_a_newcomer_not_to_one_who_has_another_part_cached(started):
    first, _ = leases(started)
    for name in ("cleo", "dan"):
        make_provider(name)
    for lease in leases(started):
        commit(lease)
    Connection.objects.filter(provider=first.provider).delete()
    close(started)
    kept = parts(started, 2)
    assert len(kept) == 2
    assert first.provider.user_name not in kept


def test_only_when_everybody_has_a_part_does_one_get_another(run, settings):
    ada, bob = make_provider("ada"), make_provider("bob")
    assert actions.start(run)
    for lease in leases(run):
        commit(lease)
    bob.connections.all().delete()
    close(run)
    assert parts(run, 2) == {"ada": 2}
    assert ada.assignments.filter(round__number=2).count() == 2


def given_by_nine_tickets(run) -> Counter[str]:
    """Who gets the first part of each of nine trainings, one after the other, while none is done."""
    for _ in range(9):
        round_ = Round.objects.create(run=another(run), number=1, start=run.start)
        shard = round_.run.shards.first()
        picked = actions.Draw(round_).pick(shard)
        Assignment.objects.create(round=round_, shard=shard, provider=picked, deadline=timezone.now())
    return Counter(Assignment.objects.values_list("provider__user_name", flat=True))


def test_who_has_two_workers_gets_twice_as_much(run):
    ada, _ = make_provider("ada"), make_provider("bob")
    Connection.objects.create(provider=ada, channel="channel-ada-2")
    assert given_by_nine_tickets(run) == {"ada": 6, "bob": 3}


def test_a_worker_that_is_gone_does_not_count(run):
    gone = timezone.now() - timedelta(days=1)
    for provider in (make_provider("ada"), make_provider("bob"), make_provider("cleo")):
        Connection.objects.create(provider=provider, channel=f"{provider}-2")
        Connection.objects.filter(provider__user_name="ada", channel="ada-2").update(seen=gone)
    assert given_by_nine_tickets(run)["ada"] == 2


@pytest.mark.django_db
def test_equals_are_drawn_by_chance(run):
    random.seed(1)
    names = ["ada", "bob", "cleo", "dan"]
    for name in names:
        make_provider(name)
    round_ = Round.objects.create(run=run, number=1, start=run.start)
    shard = run.shards.first()
    drawn = Counter(actions.Draw(round_).pick(shard).user_name for _ in range(200))
    assert all(30 <= drawn[name] <= 70 for name in names), drawn
    first = Counter(actions.free(run)[0].user_name for _ in range(200))
    assert all(20 <= first[name] <= 80 for name in names), first


# --- Parts by speed ---------------------------------------------------------------------------------------------------
def allowed(run):
    """The customer allows it: the first part is the larger one."""
    Ticket.objects.filter(pk=run.ticket_id).update(sharding="speed")
    Shard.objects.filter(run=run).update(samples=200)
    run.shards.filter(number=0).update(samples=300)
    return Run.objects.get(pk=run.pk)


def did(run, number, **seconds):
    """Everybody commits to a round, each so long after the offer; then it is closed."""
    for lease in leases(run, number):
        commit(lease)
        took = timedelta(seconds=seconds[lease.provider.user_name])
        committed = Assignment.objects.get(pk=lease.pk).committed
        Assignment.objects.filter(pk=lease.pk).update(offered=committed - took)
    close(run, number)


def has_first(run, number):
    return next(lease.provider.user_name for lease in leases(run, number) if lease.shard.number == 0)


def other(name):
    return {"ada": "bob", "bob": "ada"}[name]


def test_the_larger_part_goes_to_the_faster_and_stays_there(run):
    make_provider("ada"), make_provider("bob")
    run = allowed(run)
    Run.objects.update(rounds=3)
    assert actions.start(run)
    slow = has_first(run, 1)
    did(run, 1, **{slow: 30, other(slow): 10})
    assert has_first(run, 2) == other(slow)
    did(run, 2, ada=15, bob=10 if slow == "bob" else 15)
    assert has_first(run, 3) == other(slow)


def test_parts_change_hands_neither_for_a_little_nor_unless_it_is_allowed(run):
    make_provider("ada"), make_provider("bob")
    run = allowed(run)
    assert actions.start(run)
    first = has_first(run, 1)
    did(run, 1, **{first: 16, other(first): 10})  # 18.75 and 20 samples a second
    assert has_first(run, 2) == first
    second = another(run)
    assert actions.start(second)
    had = has_first(second, 1)
    did(second, 1, **{had: 60, other(had): 1})
    assert has_first(second, 2) == had


def test_what_was_measured_on_other_tickets_counts_from_the_first_round_on(run):
    """By how they did beside one another, for models differ."""
    make_provider("ada"), make_provider("bob")
    assert actions.start(run)
    Shard.objects.update(samples=100)
    did(run, 1, ada=500, bob=20)
    for _ in range(4):
        later = allowed(another(run))
        assert actions.start(later)
        assert has_first(later, 1) == "bob"
        actions.stop(later)


def test_who_takes_part_is_still_drawn_by_chance(run):
    for name in ("ada", "bob", "cleo", "dan"):
        make_provider(name)
    run = allowed(run)
    assert actions.start(run)
    drawn = set(parts(run))
    did(run, 1, **dict.fromkeys(drawn, 100) | {min(drawn): 1})
    assert set(parts(run, 2)) == drawn
    actions.stop(run)
    took_part = set()
    for _ in range(20):
        later = allowed(another(run))
        assert actions.start(later)
        took_part |= set(parts(later))
        actions.stop(later)
    assert len(took_part) == 4, "one of them by a chance of one in a million not"


def test_a_part_that_is_handed_on_is_handed_on_as_ever(run):
    """The others keep what they have begun."""
    make_provider("ada"), make_provider("bob")
    run = allowed(run)
    assert actions.start(run)
    slow = has_first(run, 1)
    did(run, 1, **{slow: 30, other(slow): 10})
    make_provider("cleo")
    small = next(lease for lease in leases(run, 2) if lease.shard.number == 1)
    actions.decline(small.provider, lease_of(small), "no room")
    live = {lease.shard.number: lease.provider.user_name for lease in leases(run, 2) if lease.state in Assignment.LIVE}
    assert live == {0: other(slow), 1: "cleo"}
