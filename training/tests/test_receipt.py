"""What the receipt of a run says, and who gets the files that it names."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
from django.core.files.base import ContentFile
from django.urls import reverse

from accounts.models import User
from dmlsite.testing import content_given
from dmlworker import checks, schedules
from dmlworker import receipt as form
from ledger import money
from tickets import actions as tickets
from tickets import mail
from tickets.models import Artifact, Dataset, Ticket
from training import actions, pay, records, store
from training.models import Assignment, Audit, Replay, Round, Run, Shard
from training.tests.conftest import another, close, commit, leases

ESCROW = "0x" + "Cc" * 20


@pytest.fixture(autouse=True)
def chain(monkeypatch):
    deployment = SimpleNamespace(chain_id=31337, escrow=ESCROW)
    monkeypatch.setattr(records, "deployment", lambda: deployment)


@pytest.fixture
def done(started):
    """Two rounds, all in order; ada's work of the first was audited."""
    Dataset.objects.create(ticket=started.ticket, file="x", name="a.csv", size=10, sha256="3" * 64)
    for number in (1, 2):
        for lease in leases(started, number):
            commit(lease, correct=lease.shard.number + 3)
            Assignment.objects.filter(pk=lease.pk).update(weight=2 * lease.shard.samples)
        close(started, number)
    work = leases(started)[0]
    trace, around = store.put(b"trace"), [store.put(data) for data in (b"before", b"after")]
    fields = {"why": "drawn by chance", "state": Audit.State.PASSED, "deadline": work.deadline, "trace": trace}
    audit = Audit.objects.create(assignment=work, **fields)
    told = {"start": around[0].pk, "claimed": around[1].pk, "relative": 1e-7, "allowed": float("inf"), "cosine": 1.0}
    Replay.objects.create(audit=audit, segment=0, number=1, agrees=True, **told)
    return Run.objects.get(pk=started.pk)


def receipt_of(run) -> form.Receipt:
    return records.receipt(run, pay.merit(run))


def test_it_says_of_a_run_what_was_stored(done):
    found = form.load(receipt_of(done).to_bytes())
    assert (found.ticket, found.chain.escrow, found.price) == (str(done.ticket_id), ESCROW, done.ticket.price)
    assert [(shard.sha256, shard.samples) for shard in found.shards] == [
        (shard.blob_id, shard.samples) for shard in Shard.objects.filter(run=done)
    ]
    first = found.rounds[0]
    works = leases(done)
    assert [update.update for update in first.updates] == [work.update_id for work in works]
    assert [update.provider for update in first.updates] == [work.provider.wallet for work in works]
    assert [found.hyper(first, update) for update in first.updates] == [actions.hyper_of(work) for work in works]
    [audit] = first.audits
    assert (audit.state, audit.kept, audit.replays[0].allowed) == ("passed", True, None)
    assert checks.rounds(found) and checks.payouts(found)
    assert (found.payouts, found.fee) == money.shares(found.price, pay.merit(done))
    assert receipt_of(done).root == found.root


@pytest.mark.parametrize("schedule", schedules.SCHEDULES)
def test_the_rate_of_each_round_is_the_workers_the_platforms_and_the_receipts(done, schedule):
    """Of the rounds that were ordered, though fewer were needed."""
    Run.objects.filter(pk=done.pk).update(schedule=schedule, clip=2.0, optimizer="adam")
    Ticket.objects.filter(pk=done.ticket_id).update(rounds=8)
    found = form.load(receipt_of(Run.objects.get(pk=done.pk)).to_bytes())
    for round_ in found.rounds:
        works = leases(done, round_.number)
        expected = schedules.rate(schedule, done.learning_rate, round_.number, 8)
        for hyper in map(actions.hyper_of, works):
            assert (hyper.learning_rate, hyper.clip, hyper.optimizer) == (expected, 2.0, "adam")
        assert [found.hyper(round_, update) for update in round_.updates] == list(map(actions.hyper_of, works))


def test_rounds_that_are_void_are_no_part_of_it(done):
    Round.objects.filter(run=done, number=2).update(voided=done.created)
    assert [round_.number for round_ in receipt_of(done).rounds] == [1]


def test_weights_that_were_removed_are_not_called_kept(done):
    store.forget([Replay.objects.get().claimed])
    [audit] = receipt_of(done).rounds[0].audits
    assert not audit.kept


def test_what_good_work_showed_is_kept_of_the_first_and_the_last_round(started):
    rounds = [Round(run=started, number=number) for number in (1, 2, 3)]
    started.rounds = 3
    assert [records.keeps_checkpoints(round_) for round_ in rounds] == [True, False, True]


# --- The files --------------------------------------------------------------------------------------------------------
def given(run) -> Artifact:
    """The receipt, as the customer finds it."""
    return tickets.store_artifact(run.ticket, form.NAME, ContentFile(receipt_of(run).to_bytes()))


def ask(client, artifact, sha256: str):
    token = mail.link(artifact).rpartition("/")[2]
    return client.get(reverse("training:blob", args=[token, sha256]))


def test_whoever_has_the_receipts_link_gets_what_it_names(client, done):
    found = given(done)
    for sha256 in form.files(receipt_of(done)):
        assert content_given(ask(client, found, sha256)) == store.get(sha256)


def test_no_link_gives_what_its_receipt_does_not_name(client, done):
    """Neither another customer's, though it is stored; nor what is named like a file; nor what was removed."""
    found = given(done)
    stranger = store.put(b"of somebody else")
    Dataset.objects.update(name=stranger.pk)
    assert ask(client, given(done), stranger.pk).status_code == 404
    assert ask(client, found, "0" * 64).status_code == 404
    for data in (done.holdout_id, *Shard.objects.values_list("blob", flat=True)):  # a link may get into wrong hands
        assert ask(client, found, data).status_code == 404
    assert ask(client, found, "receipt.json").status_code == 404
    Replay.objects.update(segment=1)
    gone = Replay.objects.get().start
    store.forget([gone])
    assert ask(client, found, gone).status_code == 404


def test_another_customers_receipt_opens_nothing_of_this_one(client, done):
    other = another(done)
    Dataset.objects.create(ticket=other.ticket, file="x", name="b.csv", size=10, sha256="4" * 64)
    mine = done.all_rounds.get(number=1).end_id
    assert content_given(ask(client, given(done), mine)) == store.get(mine)
    assert ask(client, given(other), mine).status_code == 404


def test_only_the_receipts_own_link_will_do(client, done):
    receipt = given(done)
    model = tickets.store_artifact(done.ticket, "model.keras", ContentFile(receipt_of(done).to_bytes()))
    assert ask(client, model, done.spec_id).status_code == 404
    client.force_login(User.objects.get(pk=done.ticket.customer_id))  # to be logged in does not help, or matter
    for token in ("x", str(receipt.pk)):
        assert client.get(reverse("training:blob", args=[token, done.spec_id])).status_code == 404


def test_an_old_link_has_run_out(client, done, settings):
    found = given(done)
    settings.ARTIFACT_LINK_SECONDS = -1
    assert ask(client, found, done.spec_id).status_code == 410


def test_a_receipt_that_was_written_anew_is_read_anew(client, done):
    first = given(done)
    end = done.all_rounds.get(number=2).end_id
    assert content_given(ask(client, first, end)) == store.get(end)
    Round.objects.filter(run=done, number=2).update(voided=done.created)
    assert ask(client, given(done), end).status_code == 404


def test_a_receipt_of_version_1_opens_its_files_and_one_that_cannot_be_read_none(client, done):
    old = replace(receipt_of(done), version=1)
    found = tickets.store_artifact(done.ticket, form.NAME, ContentFile(old.to_bytes()))
    assert content_given(ask(client, found, done.spec_id)) == store.get(done.spec_id)
    found = tickets.store_artifact(done.ticket, form.NAME, ContentFile(b'{"ticket":"a","version":9}'))
    assert ask(client, found, done.spec_id).status_code == 404
