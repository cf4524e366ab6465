"""A ticket that learns another thing than one class: from the file to the pages, the receipt and the model that plain Keras loads."""

import re
from types import SimpleNamespace

import keras
import numpy as np
import pytest
from django.core.cache import cache
from django.core.files.base import ContentFile
from django.template.loader import render_to_string
from django.urls import reverse
from sklearn.metrics import f1_score, mean_absolute_error, mean_squared_error, precision_recall_fscore_support, r2_score

from dmlworker import checks, datasets
from dmlworker import receipt as form
from dmlworker.cache import blob_of
from dmlworker.datasets import Options, samples
from tickets.models import Dataset, Ticket
from training import actions, card, compute, pay, records, store, tasks
from training.models import Round, Run
from training.tests.conftest import leases, make_provider, make_ticket
from training.tests.test_screen import alter, work

PARTS, ROUNDS = 4, 3


@pytest.fixture
def started(transactional_db, files, settings, tmp_path, monkeypatch):
    """Begins a ticket on a file, with four providers."""
    cache.clear()
    settings.PROVIDERS_PER_TICKET, settings.AUDITS = PARTS, False
    deployment = SimpleNamespace(chain_id=31337, escrow="0x" + "Cc" * 20)
    monkeypatch.setattr(records, "deployment", lambda: deployment)

    def begun(name: str, data: bytes, **fields) -> Run:
        ticket = make_ticket(rounds=ROUNDS, **fields)
        sha256 = blob_of([data]).sha256
        Dataset.objects.create(ticket=ticket, file=ContentFile(data, "x"), name=name, size=len(data), sha256=sha256)
        (tmp_path / name).write_bytes(data)
        run = actions.open_run(ticket, compute.prepare(ticket, tmp_path / name, PARTS, 7), 7)
        for provider in "abcd":
            make_provider(provider)
        assert actions.start(run)
        return run

    return begun


def play(run: Run, number: int, cheat=None) -> Round:
    """A round, done honestly by all but for what `cheat` does to the first one's work, and checked."""
    for lease in leases(run, number):
        work(lease, lease.shard.blob_id)
    if cheat:
        cheat(leases(run, number)[0])
    round_ = Round.objects.select_related("run__ticket").get(run=run, number=number)
    compute.root_update(round_)
    for update in actions.updates_of(round_):
        compute.look(update)
    round_.refresh_from_db()
    updates = actions.updates_of(round_)
    actions.finish_round(round_, updates, *compute.average(round_, updates))
    round_.refresh_from_db()
    tasks._check(round_)
    return Round.objects.select_related("run__ticket").get(pk=round_.pk)


def trained(run: Run) -> Run:
    for number in range(1, ROUNDS + 1):
        play(run, number)
    Run.objects.filter(pk=run.pk).update(state=Run.State.DONE)
    return Run.objects.select_related("ticket").get(pk=run.pk)


def page_of(client, run: Run) -> str:
    client.force_login(run.ticket.customer)
    return client.get(reverse("training:progress", args=[run.ticket_id])).content.decode()


def card_of(run: Run) -> str:
    return card.markdown(run, SimpleNamespace(tx="0x" + "1" * 64))


# --- A number -----------------------------------------------------------------------------------------------------------
@pytest.fixture
def diabetes(started):
    return lambda **fields: started("diabetes.csv", samples.diabetes_csv(), target="progression", **fields)


def test_a_number_is_learnt_to_the_end(diabetes, client, tmp_path):
    run = trained(diabetes(reward="merit-1"))
    last = run.all_rounds.get(number=ROUNDS)
    assert run.ticket.task == "regression" and last.accuracy > 0.3

    # The model that the customer gets, in plain Keras and in the target's unit.
    compute.export(run, last.end_id, tmp_path)
    model = keras.saving.load_model(tmp_path / "model.keras")
    x, y = datasets.load(store.get(run.holdout_id))
    said = model.predict(x, verbose=0)[:, 0]
    assert last.accuracy == pytest.approx(r2_score(y, said), abs=1e-5)
    assert last.by_class["rmse"] == pytest.approx(mean_squared_error(y, said) ** 0.5, rel=1e-5)
    assert last.by_class["mae"] == pytest.approx(mean_absolute_error(y, said), rel=1e-5)
    np.testing.assert_allclose(np.array(last.by_class["points"])[:, 0], y, rtol=1e-4)
    np.testing.assert_allclose(compute.predict(run, x[0]), said[:1], rtol=1e-5)

    # What people read.
    page = page_of(client, run)
    assert f"{last.accuracy:.3f}" in page and f"{last.by_class['rmse']:.6g}" in page
    assert len(re.findall(r"M\d+ \d+h0", page)) == len(y)
    text = card_of(run)
    assert "Learns: a number, progression" in text and "| Round | R² | Loss |" in text and "- RMSE of the last" in text
    for told in (page, text):
        assert not re.search(r"accura|class(es)?\b[^=]", re.sub(r'class="', "", told), re.IGNORECASE)

    # What is paid, and the receipt of it.
    for update in actions.updates_of(last):
        assert update.correct == round(len(y) * max(update.score, 0)) and update.f1 is None
    receipt = form.load(records.receipt(run, pay.merit(run)).to_bytes())
    assert Options.from_text(receipt.file.options).task == "regression"
    assert checks.payouts(receipt) and checks.cut(receipt, tmp_path / "diabetes.csv")


def test_what_it_reached_is_told_by_its_own_name(diabetes, client):
    run = trained(diabetes(reward="merit-1"))
    Ticket.objects.filter(pk=run.ticket_id).update(accuracy=-0.25, status="settled")
    ticket = Ticket.objects.get(pk=run.ticket_id)
    assert ticket.events.filter(kind="round").last().text.startswith("round 3 of 3: R² 0.")
    mail = render_to_string("mail/done.txt", {"ticket": ticket, "page": "x", "days": 1})
    client.force_login(ticket.customer)
    for text in (mail, client.get(reverse("tickets:list")).content.decode(), page_of(client, run)):
        assert "-0.250" in text and "R²" in text and "accuracy" not in text.lower()


def test_honest_work_is_not_suspected(diabetes):
    run = diabetes()
    for number in (1, 2):
        assert [update.suspicion for update in actions.updates_of(play(run, number))] == [""] * PARTS


def test_a_cheat_is_told_by_what_its_update_explains(diabetes):
    run = diabetes()
    play(run, 1, lambda lease: alter(lease, -1.0))
    first, *others = leases(run)
    assert "R² is -" in first.suspicion and first.score < 0 < min(other.score for other in others)
    assert (first.correct, pay.merit(run)[first.provider.wallet]) == (0, 0)


def test_a_model_that_runs_away_is_measured_all_the_same(diabetes):
    run = diabetes(reward="merit-1", learning_rate=10.0, clip=0.0)
    round_ = play(run, 1)
    assert (round_.accuracy, round_.loss) == (-1e6, None) or round_.accuracy < 0
    assert all(update.correct == 0 for update in actions.updates_of(round_))
    form.load(records.receipt(run, pay.merit(run)).to_bytes())


def test_the_customer_tries_it_and_reads_a_number(diabetes, client, request):
    run = trained(diabetes())
    request.getfixturevalue("inline_jobs")  # not before: here the test itself does what jobs do in a training
    client.force_login(run.ticket.customer)
    row = {f"value-{n}": value for n, value in enumerate(run.facts["example"])}
    there = client.post(reverse("training:ask_trial", args=[run.ticket_id]), row, headers={"HX-Request": "true"})
    answer = client.get(there.url, headers={"HX-Request": "true"}).content.decode()
    [said] = compute.predict(run, np.array(run.facts["example"], np.float32))
    assert f"{said:.6g}" in answer and "progression" in answer and "%" not in answer


def test_the_check_tells_the_range_of_a_number(client, transactional_db, files):
    client.force_login(make_ticket().customer)
    file = ContentFile(samples.diabetes_csv(), "diabetes.csv")
    text = client.post(reverse("training:check"), {"file": file}).content.decode()
    assert "From 25 to 346, mean 152.133" in text and text.count("<meter") == 10
    assert "classes." not in text
    file.seek(0)
    refused = client.post(reverse("training:check"), {"file": file, "task": "classification"})
    assert refused.status_code == 422 and "at least 10 samples" in refused.content.decode()


# --- Several labels -----------------------------------------------------------------------------------------------------
def scenes() -> bytes:
    """400 rows of six numbers; each of three labels depends on two of them."""
    random = np.random.Generator(np.random.PCG64(1))
    x = random.normal(size=(400, 6)).round(4)
    marks = x[:, ::2] + x[:, 1::2] > [0, 0.5, 1.2]
    names = [[name for name, there in zip(("sea", "<b>hill", "town"), row, strict=True) if there] for row in marks]
    rows = [",".join([*map(str, row), "|".join(labels) or "|"]) for row, labels in zip(x.tolist(), names, strict=True)]
    return "\n".join(["a,b,c,d,e,f,labels", *rows]).encode()


def test_labels_are_learnt_to_the_end(started, client, tmp_path, request):
    run = started("scenes.csv", scenes(), reward="merit-1", epochs=5)
    for number in (1, 2):
        assert [update.suspicion for update in actions.updates_of(play(run, number))] == [""] * PARTS
    play(run, 3)
    Run.objects.filter(pk=run.pk).update(state=Run.State.DONE)
    run = Run.objects.select_related("ticket").get(pk=run.pk)
    last = run.all_rounds.get(number=ROUNDS)
    assert (run.ticket.task, run.classes) == ("multilabel", ["<b>hill", "sea", "town"])

    compute.export(run, last.end_id, tmp_path)
    model = keras.saving.load_model(tmp_path / "model.keras")
    x, y = datasets.load(store.get(run.holdout_id))
    said = model.predict(x, verbose=0)
    assert last.accuracy == pytest.approx(f1_score(y, said > 0.5, average="macro"))
    assert last.by_class["exact"] == ((said > 0.5) == y).all(axis=1).sum()

    page, text = page_of(client, run), card_of(run)
    for told in precision_recall_fscore_support(y, said > 0.5, zero_division=0)[2]:
        assert f"{100 * told:.1f} %" in page
    assert "&lt;b&gt;hill" in page and "matrix" not in page and f"All labels right: {last.by_class['exact']} of" in page
    assert "- Labels, in the order of the model's outputs" in text and "| Round | Macro F1 | Loss |" in text

    request.getfixturevalue("inline_jobs")
    row = {f"value-{n}": value for n, value in enumerate(run.facts["example"])}
    there = client.post(reverse("training:ask_trial", args=[run.ticket_id]), row, headers={"HX-Request": "true"})
    answer = client.get(there.url, headers={"HX-Request": "true"}).content.decode()
    assert "<th>Label</th>" in answer
    for part in compute.predict(run, np.array(run.facts["example"], np.float32)):
        assert f"{100 * part:.1f} %" in answer

    for update in actions.updates_of(last):
        assert update.correct == round(len(y) * update.score) and update.f1 == update.score
    receipt = form.load(records.receipt(run, pay.merit(run)).to_bytes())
    assert checks.payouts(receipt) and checks.cut(receipt, tmp_path / "scenes.csv")


def test_the_check_tells_how_often_each_label_is_there(client, transactional_db, files):
    client.force_login(make_ticket().customer)
    text = client.post(reverse("training:check"), {"file": ContentFile(scenes(), "scenes.csv")}).content.decode()
    assert "any of 3 labels." in text and "&lt;b&gt;hill" in text and text.count("<meter") == 3
