"""What is known of an update that counts, and what it is worth by the ticket's scheme."""

import html
import re
from datetime import timedelta

import numpy as np
import pytest
from django.template.defaultfilters import floatformat
from django.urls import reverse
from django.utils import timezone

from dmlworker import datasets, models, rewards, trainer
from dmlworker.protocol import Hyper
from dmlworker.weights import pack
from providers import actions as providers
from providers.models import Standing
from tickets.models import Ticket
from training import actions, compute, pay, store
from training.consumers import lease_of
from training.models import Assignment, Round
from training.tests.conftest import ROOT, close, commit, leases, make_provider, make_ticket


def took(lease, seconds, joules=0.0, gpu=0.0):
    """The lease was offered so long ago, and its worker commits now."""
    then = timezone.now() - timedelta(seconds=seconds)
    Assignment.objects.filter(pk=lease.pk).update(offered=then)
    update = store.put(b"update" + str(lease.pk).encode())
    actions.record_update(lease.provider, lease_of(lease), update.pk, ROOT, joules, gpu)
    lease.refresh_from_db()
    return lease


def test_the_time_runs_from_the_offer_to_the_commit(started):
    lease = leases(started)[0]
    assert pay.seconds_of(lease) is None
    assert pay.seconds_of(took(lease, 10)) == pytest.approx(10, abs=2)


def test_who_trains_first_and_takes_the_lease_afterwards_is_no_faster(started):
    for lease in leases(started):
        Assignment.objects.filter(pk=lease.pk).update(offered=timezone.now() - timedelta(seconds=60))
    late, _ = leases(started)
    assert actions.accept(late.provider, lease_of(late), "channel-late")
    for lease in leases(started):
        commit(lease)
    close(started)
    durations = [pay.seconds_of(update) for update in pay.counted(started)]
    assert durations == pytest.approx([60, 60], abs=5)


def test_energy_is_judged_by_the_same_time(started):
    """A lease taken a moment before the commit makes no tiny energy plausible, and no real one implausible."""
    tiny, real = leases(started)
    for lease in (tiny, real):
        Assignment.objects.filter(pk=lease.pk).update(accepted=timezone.now())
    assert took(tiny, 60, joules=0.5).joules is None
    assert took(real, 60, joules=6_000.0).joules == 6_000.0


@pytest.mark.parametrize(
    ("joules", "kept"), [(0.0, False), (500.0, True), (30_000.0, False), (1e9, False), (5.0, False)]
)
def test_energy_that_no_computer_takes_is_not_known(started, joules, kept):
    lease = took(leases(started)[0], 10, joules, 0.5)
    assert (lease.joules, lease.gpu) == (joules if kept else None, 0.5)


def test_a_ticket_is_paid_by_its_own_scheme(started):
    for lease, correct in zip(leases(started), (8, 4), strict=True):
        commit(lease, correct=correct)
        Assignment.objects.filter(pk=lease.pk).update(f1=0.5, contribution=0.1)
    close(started)
    ada, bob = (lease.provider.wallet for lease in leases(started))
    assert pay.merit(started) == {ada: 8, bob: 4}
    started.ticket.reward = "merit-1"
    found = pay.merit(started)
    works = list(map(pay.work_of, pay.counted(started)))
    assert found == rewards.merit("merit-1", works)
    assert found[ada] > found[bob] > 0


def test_the_work_of_one_who_is_not_paid_still_counts_where_others_are_compared(started):
    started.ticket.reward = "merit-1"
    for lease in leases(started):
        commit(lease)
    close(started)
    before = pay.merit(started)
    ada, bob = (lease.provider for lease in leases(started))
    providers.change_standing(ada, Standing.BANNED, "another ticket")
    assert pay.merit(started) == {bob.wallet: before[bob.wallet]}


# --- What the platform measures ---------------------------------------------------------------------------------------
@pytest.fixture
def measured(transactional_db, files):
    """A round with an honest update, one that learned nothing and one that unlearned."""
    random = np.random.default_rng(0)
    x = random.normal(size=(120, 4)).astype(np.float32)
    y = (x[:, 0] > 0).astype(np.int32)
    spec = models.spec(models.build((4,), 2, "linear", models.statistics(x)))
    start = trainer.initial_weights(spec, 1)
    good = trainer.train(spec, start, x[:60], y[:60], Hyper(5, 10, 0.1, 1))
    bad = [begin - 3 * (end - begin) for begin, end in zip(start, good, strict=True)]
    ticket = make_ticket(rounds=1, reward="merit-1")
    shards = [(store.put(datasets.dump(x[:60], y[:60])), 60)] * 3
    blobs = [store.put(models.spec_bytes(spec)), store.put(pack(start)), store.put(datasets.dump(x[60:], y[60:]))]
    run = actions.open_run(ticket, actions.Prepared(*blobs, shards, ["a", "b"], {"holdout_samples": 60}), seed=7)
    for name in ("ada", "bob", "cleo"):
        make_provider(name)
    assert actions.start(run)
    for lease, weights in zip(leases(run), (good, start, bad), strict=True):
        update = store.put(pack(weights))
        fields = {"update": update, "weights": update, "weight": 60, "received": timezone.now(), "state": "committed"}
        Assignment.objects.filter(pk=lease.pk).update(**fields)
    round_ = Round.objects.select_related("run__ticket").get(run=run)
    round_.end = store.put_weights(compute.aggregation.fedavg([(w, 60) for w in (good, start, bad)]))
    return round_, actions.updates_of(round_)


def test_an_update_contributes_what_the_mean_lacks_without_it(measured):
    round_, updates = measured
    compute.measure(round_, updates)
    good, idle, bad = (Assignment.objects.get(pk=update.pk) for update in updates)
    assert good.contribution > idle.contribution > bad.contribution
    assert bad.contribution < 0 < good.contribution
    assert good.f1 > 0.8 > bad.f1
    points = [points for _, points in rewards.points("merit-1", map(pay.work_of, (good, idle, bad)))]
    assert points == sorted(points, reverse=True)


def test_what_no_reward_needs_is_not_measured(measured):
    round_, updates = measured
    round_.run.ticket.reward = "accuracy-1"
    compute.measure(round_, updates)
    assert [update.contribution for update in updates] == [None] * 3
    assert all(update.f1 is not None for update in updates)


def test_alone_in_a_round_it_is_compared_with_the_start(measured):
    round_, updates = measured
    compute.measure(round_, updates[:1])
    assert updates[0].contribution > 0


# --- Who sees what ----------------------------------------------------------------------------------------------------
@pytest.fixture
def paid_by_merit(started):
    """Ada and bob have done round 1, and the platform has measured it."""
    started.ticket.reward = "merit-1"
    started.ticket.save()
    for lease, correct in zip(leases(started), (8, 4), strict=True):
        commit(lease, correct=correct)
        Assignment.objects.filter(pk=lease.pk).update(f1=0.5, contribution=0.1 * correct)
    close(started)
    return started


def test_the_rows_are_what_is_paid(paid_by_merit):
    found = pay.rows(paid_by_merit)
    assert [row.update.shard.number for row in found] == [0, 1]
    assert all(len(row.factors) == len(rewards.SCHEMES["merit-1"].factors) for row in found)
    for row in found:
        weighted = sum(
            part * factor.weight for part, factor in zip(row.factors, pay.scheme_of(paid_by_merit).factors, strict=True)
        )
        assert row.points == pytest.approx(weighted, abs=1e-3)
        assert row.of == pytest.approx(sum(each.points for each in found))
    unit = pay.scheme_of(paid_by_merit).unit
    assert sum(pay.merit(paid_by_merit).values()) / unit == pytest.approx(found[0].of)


def test_a_provider_sees_its_own_row_and_no_others(client, paid_by_merit):
    url = reverse("training:work", args=[paid_by_merit.ticket_id])
    mine, other = pay.rows(paid_by_merit)
    client.force_login(mine.update.provider.user)
    page = client.get(url).content.decode()
    assert "By merit" in page and "merit-1" in page
    assert f'<p class="big" id="points">{floatformat(mine.points, "-1g")}</p>' in page
    assert other.update.provider.user_name not in page
    assert page.count("<tr>") - len(pay.scheme_of(paid_by_merit).factors) == 3  # two headings, one row


@pytest.mark.parametrize(
    ("learnt", "name"), [("classification", "accuracy"), ("regression", "R²"), ("multilabel", "macro F1")]
)
def test_the_score_is_called_what_it_is_of_what_was_learnt(client, paid_by_merit, learnt, name):
    Ticket.objects.update(task=learnt)
    client.force_login(pay.rows(paid_by_merit)[0].update.provider.user)
    page = client.get(reverse("training:work", args=[paid_by_merit.ticket_id])).content.decode()
    assert re.findall(r'<th class="num">(.*?)</th>', page)[1:3] == [name, "F1"]


@pytest.mark.parametrize("who", ["anonymous", "customer", "idle"])
def test_who_did_not_work_on_a_ticket_sees_nothing_of_it(client, paid_by_merit, who):
    if who == "customer":
        client.force_login(paid_by_merit.ticket.customer)
    elif who == "idle":
        client.force_login(make_provider("cleo").user)
    answer = client.get(reverse("training:work", args=[paid_by_merit.ticket_id]))
    assert answer.status_code == (302 if who == "anonymous" else 404)


def test_the_customer_sees_every_formula_before_and_the_chosen_one_after(client, paid_by_merit):
    client.force_login(paid_by_merit.ticket.customer)
    page = html.unescape(client.get(reverse("tickets:order")).content.decode())
    for name in rewards.OFFERED:
        scheme = rewards.SCHEMES[name]
        assert scheme.formula in page
        assert all(factor.says in page for factor in scheme.factors)
    ticket = client.get(reverse("tickets:ticket", args=[paid_by_merit.ticket_id]))
    live = client.get(reverse("training:progress", args=[paid_by_merit.ticket_id]))
    assert ticket.status_code == 200
    assert "<code>merit-1</code>" in live.content.decode()
