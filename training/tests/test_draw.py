"""Who gets which part: nobody a second one before everybody has one, and by chance among equals."""

import random
from collections import Counter
from datetime import timedelta

import pytest
from django.db.models.signals import post_init
from django.utils import timezone

from providers.models import Connection, Provider
from training import actions
from training.consumers import lease_of
from training.models import Assignment, Round
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
