"""What a provider's own page tells of its work: what each worker computes now, and how the audits went."""

from datetime import timedelta

import pytest
from django.urls import reverse
from django.utils import timezone

from providers.models import Connection, Provider
from training import actions
from training.consumers import lease_of
from training.models import Assignment, Audit, Run, Shard
from training.tests.conftest import commit, leases


@pytest.fixture
def ada(started):
    return Provider.objects.get(user_name="ada")


@pytest.fixture
def lease(started, ada):
    return next(lease for lease in leases(started) if lease.provider_id == ada.pk)


@pytest.fixture
def page(client, ada):
    client.force_login(ada.user)

    def text():
        own = client.get(reverse("providers:home")).content.decode()
        assert client.get(reverse("providers:live"), {"standing": "active"}).content.decode().strip() in own
        return own.split("<h2>Workers online</h2>")[1]

    return text


def workers(text):
    return text.split("</section>")[0]


def test_each_worker_is_shown_with_what_it_computes(page, ada, lease):
    Connection.objects.create(provider=ada, channel="other", device="attic")
    assert workers(page()).count("waits for work") == 2
    assert actions.accept(ada, lease_of(lease), "other")
    told = workers(page())
    assert told.count("waits for work") == 1
    assert f"<code>{str(lease.round.run.ticket_id)[:8]}</code>, round 1 of 2, part {lease.shard.number + 1}" in told
    assert "it fetches the data" in told.split("attic")[1]
    actions.progress(ada, lease_of(lease), 1200, 5000)
    assert 'step 1,200 of 5,000<progress value="1200" max="5000"' in workers(page())
    commit(lease)
    assert workers(page()).count("waits for work") == 2


def took(lease, seconds):
    """The update came so long after the lease was taken, by the worker on ada's first connection."""
    now = timezone.now()
    times = {"accepted": now - timedelta(seconds=seconds), "committed": now}
    Assignment.objects.filter(pk=lease.pk).update(channel="channel-ada", **times)


def test_a_workers_speed_is_that_of_its_last_updates(page, started, ada, lease):
    Connection.objects.create(provider=ada, channel="other", device="attic")
    assert "samples/s" not in workers(page())
    Run.objects.update(epochs=3)
    Shard.objects.filter(pk=lease.shard_id).update(samples=5_000)
    took(lease, 12)
    told = workers(page())
    assert "about 1,200 samples/s" in told.split("attic")[0], "3 times 5,000 samples in 12 seconds, to two digits"
    assert told.count("samples/s") == 1


def test_the_speed_counts_a_workers_own_updates_together(page, started, ada, lease):
    other = next(one for one in leases(started) if one.pk != lease.pk)
    Shard.objects.update(samples=3)
    took(lease, 1)
    took(other, 3)
    assert "about 3 samples/s" in workers(page()), "bob's is bob's"
    Assignment.objects.update(provider=ada)
    assert "about 1.5 samples/s" in workers(page())


def test_the_work_of_others_is_not_shown(page, started, ada):
    theirs = next(lease for lease in leases(started) if lease.provider_id != ada.pk)
    actions.accept(theirs.provider, lease_of(theirs), "channel-bob")
    assert "it fetches" not in page()


def test_audits_and_the_streak_are_counted(page, started, ada):
    for lease, state in zip(leases(started), ("passed", "passed"), strict=True):
        Audit.objects.create(assignment=lease, why="drawn by chance", state=state, deadline=timezone.now())
    Provider.objects.filter(pk=ada.pk).update(streak=7)
    told = page().split('id="audits"')[1].split("</section>")[0]
    assert "1 passed" in told
    assert "7 in a row; 0 failed; 0 not shown" in told
    Audit.objects.filter(assignment__provider=ada).update(state="unproven")
    told = page().split('id="audits"')[1]
    assert "0 passed" in told
    assert "0 failed; 1 not shown" in told
    Assignment.objects.filter(provider=ada).update(state="revoked")
    assert "1 not shown" in page()
