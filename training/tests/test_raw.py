"""A table with more than plain numbers, from the file to the model that takes its rows, and the page that tries it."""

import hashlib
import json
import subprocess
import sys
from dataclasses import asdict
from types import SimpleNamespace

import numpy as np
import pytest
from django.core.cache import cache
from django.core.files.base import ContentFile
from django.template.loader import render_to_string
from django.urls import reverse

from dmlworker import checks, comparison, datasets, trainer
from dmlworker.datasets import samples
from dmlworker.protocol import Hyper
from dmlworker.receipt import File, Shard
from dmlworker.weights import unpack
from tickets.models import Dataset
from training import actions, compute, measures, raw, store
from training.models import Round, Run
from training.tests.conftest import make_ticket

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def run(files, tmp_path) -> Run:
    """Done, with the model as it began."""
    cache.clear()
    data = samples.passengers_csv()
    ticket = make_ticket(rounds=1)
    Dataset.objects.create(ticket=ticket, file=ContentFile(data, "x"), name="p.csv", size=len(data), sha256="1" * 64)
    path = tmp_path / "p.csv"
    path.write_bytes(data)
    found = actions.open_run(ticket, compute.prepare(ticket, path, 2, 7), 7)
    Round.objects.create(run=found, number=1, start=found.start, end=found.start, state=Round.State.CLOSED)
    Run.objects.filter(pk=found.pk).update(state=Run.State.DONE, rounds=1)
    found.refresh_from_db()
    return found


def ask(client, run, **changed):
    given = {f"value-{n}": value for n, value in enumerate(run.facts["example"])}
    client.force_login(run.ticket.customer)
    names = {f"value-{n}": name for n, name in enumerate(run.facts["features"])}
    given = {key: changed.get(names[key], value) for key, value in given.items()}
    return client.post(reverse("training:ask_trial", args=[run.ticket_id]), given, headers={"HX-Request": "true"})


def test_providers_get_numbers_without_names(run):
    for shard in run.shards.all():
        x, _ = datasets.load(store.get(shard.blob_id))
        assert x.dtype == np.float32 and x.shape[1:] == (19,) and np.isfinite(x).all()
    assert b"deck" not in store.get(run.spec_id)


def test_the_delivered_model_is_loaded_and_fed_as_the_page_says(run, tmp_path, monkeypatch):
    compute.export(run, run.start_id, tmp_path)
    monkeypatch.chdir(tmp_path)
    code = raw.loading(run)
    found: dict = {}
    exec(code.replace("model.predict(", "answer = model.predict("), found)
    x, _ = datasets.load(store.get(run.holdout_id))
    np.testing.assert_allclose(found["answer"][0], compute.predict(run, x[0]), atol=1e-6)
    card = render_to_string(
        "training/model-card.md",
        {"run": run, "ticket": run.ticket, "loading": code, "fee": 0, "columns": raw.columns(run)},
    )
    assert (
        code in card
        and "| boarded | date, YYYY-MM-DD | 1912-" in card
        and "Left out: name (nearly every value is another)" in card
        and "As the customer" not in card
    )


def test_the_page_offers_known_values_and_takes_text_and_gaps(client, run, inline_jobs):
    client.force_login(run.ticket.customer)
    page = client.get(reverse("training:progress", args=[run.ticket_id])).content.decode()
    assert '<option value="Ü 1"></option>' in page
    example = run.facts["example"]
    assert f'name="value-1" value="{example[1]}" autocomplete="off" list="known-value-1">' in page
    encoder = raw.encoder_of(run)
    for changed in ({}, {"deck/cabin": "never seen", "age": ""}):
        row = [changed.get(name, value) for name, value in zip(run.facts["features"], example, strict=True)]
        wanted = compute.predict(run, encoder.row(row))
        answer = client.get(ask(client, run, **changed).url, headers={"HX-Request": "true"}).content.decode()
        assert all(f"{100 * part:.1f} %" in answer for part in wanted)


def test_how_good_the_final_model_is_is_kept_and_told(client, run):
    compute.assess(run, run.start_id)
    x, y = datasets.load(store.get(run.holdout_id))
    found = trainer.evaluate(compute.spec_of(run), compute.weights_of(run.start_id), x, y)
    kept = Run.objects.get().metrics
    assert kept["accuracy"][0] == found.accuracy and kept["log_loss"][0] == pytest.approx(found.loss, rel=1e-5)
    assert kept["macro_f1"][0] == pytest.approx(found.f1)
    client.force_login(run.ticket.customer)
    page = client.get(reverse("training:progress", args=[run.ticket_id])).content.decode()
    low, high = (f"{100 * end:.1f} %" for end in kept["roc_auc"][1:])
    assert "on 80 samples" in page and f'<td class="num">{low} to {high}</td>' in page


def test_a_measure_that_is_not_defined_is_not_told():
    kept = {"brier": [0.12345, 0.1, 0.2], "roc_auc": [None] * 3, "accuracy": [0.5, 0.4, 0.6]}
    assert [(one.title, one.value, one.interval) for one in measures.told(kept)] == [
        ("Accuracy", "50.0 %", "40.0 % to 60.0 %"),
        ("Brier score", "0.1235", "0.1 to 0.2"),
    ]


@pytest.mark.parametrize(
    ("changed", "words"),
    [({"age": "old"}, "age: old is no number"), ({"boarded": "soon"}, "no date"), ({"fare": ""}, "fare: nothing was")],
)
def test_what_does_not_fit_is_named(client, run, changed, words):
    answer = ask(client, run, **changed)
    assert answer.status_code == 422 and words in answer.content.decode()


def test_many_columns_are_one_line_as_in_the_file(client, run, inline_jobs, monkeypatch):
    monkeypatch.setattr("training.trial.MOST_FIELDS", 2)
    client.force_login(run.ticket.customer)
    url = reverse("training:ask_trial", args=[run.ticket_id])
    assert client.post(url, {"line": "1,2"}).status_code == 422
    answer = client.post(url, {"line": '41,"A", yes,,7'}, headers={"HX-Request": "true"})
    wanted = compute.predict(run, raw.encoder_of(run).row(["41", "A", "yes", "", "7"]))
    assert f"{100 * max(wanted):.1f} %" in client.get(answer.url).content.decode()


def test_the_shards_are_cut_again_from_the_customers_own_file(run, tmp_path):
    data = (tmp_path / "p.csv").read_bytes()
    told = SimpleNamespace(
        version=3,
        file=File("p.csv", len(data), hashlib.sha256(data).hexdigest(), ""),
        training=SimpleNamespace(seed=7),
        holdout=Shard(run.holdout_id, 80),
        shards=[Shard(shard.blob_id, shard.samples) for shard in run.shards.all()],
    )
    assert len(checks.cut(told, tmp_path / "p.csv").shards) == 2
    told.training.seed = 8
    with pytest.raises(checks.Wrong, match="not cut from this file"):
        checks.cut(told, tmp_path / "p.csv")


def test_no_value_of_the_table_is_left_when_the_account_is_closed(run):
    from training.personal import erase

    erase(run.ticket.customer)
    run.refresh_from_db()
    assert "Ü 1" not in json.dumps(run.facts, ensure_ascii=False) and run.facts["holdout_samples"] == 80


def prepared(tmp_path, content: str, **fields) -> Run:
    """A run, and its file as `checks.cut` asks for it."""
    (tmp_path / "t.csv").write_text(content)
    ticket = make_ticket(rounds=1, model_kind="mlp", **fields)
    digest = hashlib.sha256(content.encode()).hexdigest()
    Dataset.objects.create(ticket=ticket, file=ContentFile(b"", "x"), name="t.csv", size=len(content), sha256=digest)
    return actions.open_run(ticket, compute.prepare(ticket, tmp_path / "t.csv", 2, 7), 7)


def recut(run, tmp_path) -> checks.Cut:
    data = run.ticket.dataset
    told = SimpleNamespace(
        version=3,
        file=File("t.csv", data.size, data.sha256, "", datasets.Options.of(run.ticket).text),
        training=SimpleNamespace(seed=7),
        holdout=Shard(run.holdout_id, run.facts["holdout_samples"]),
        shards=[Shard(shard.blob_id, shard.samples) for shard in run.shards.all()],
    )
    return checks.cut(told, tmp_path / "t.csv")


PATIENTS = "patient,a,note,y\n" + "".join(
    f"p{n // 4},{n % 7},in {n % 3} words {n},{int(n % 5 == 0)}\n" for n in range(200)
)


def test_groups_and_balanced_classes_reach_the_shards_and_whoever_checks_them(files, tmp_path):
    said = {"group": "patient", "sharding": "group", "class_weights": "balanced", "leave_out": ["note"]}
    run = prepared(tmp_path, PATIENTS, **said)
    cut = recut(run, tmp_path)
    for shard, (_, y), w in zip(run.shards.all(), cut.shards, cut.weights, strict=True):
        _, _, stored = datasets.load_weighted(store.get(shard.blob_id))
        assert w[y == 1].max() > w[y == 0].max()
        np.testing.assert_array_equal(stored, w)
    assert run.facts["features"] == ["a"]
    context = {"run": run, "ticket": run.ticket, "fee": 0, "said": list(raw.said(run.ticket))}
    card = render_to_string("training/model-card.md", context)
    assert "Left out: note (you chose so), patient (it says which rows stay together)" in card
    assert "rows with the same patient stay together, a provider each; rare classes count more" in card
    assert f"Of the samples held out, {run.facts['on_both_sides']} are in the training part" in card
    run.ticket.class_weights = "none"
    with pytest.raises(checks.Wrong, match="shard 0 is not cut"):
        recut(run, tmp_path)


def test_a_run_on_windows_is_fed_as_the_page_says(files, tmp_path, monkeypatch):
    content = "a,b,y\n" + "".join(f"{n % 5},{'pq'[n % 2]},{'ud'[n % 4 // 2]}\n" for n in range(200))
    run = prepared(tmp_path, content, window=4, horizon=2)
    assert run.facts["sample_shape"][0] == 4 and recut(run, tmp_path)
    compute.export(run, run.start_id, tmp_path)
    monkeypatch.chdir(tmp_path)
    found: dict = {}
    exec(raw.loading(run).replace("model.predict(", "answer = model.predict("), found)
    x, _ = datasets.load(store.get(run.holdout_id))
    wanted = trainer.predict(compute.spec_of(run), compute.weights_of(run.start_id), x[:1])
    np.testing.assert_allclose(found["answer"], wanted, atol=1e-6)


def test_weighted_work_is_replayed_elsewhere_with_its_weights(files, tmp_path):
    run = prepared(tmp_path, PATIENTS, class_weights="balanced", leave_out=["note", "patient"])
    shard = store.get(run.shards.first().blob_id)
    x, y, w = datasets.load_weighted(shard)
    hyper = Hyper(1, 10, 0.1, 3, checkpoint_every=4)
    spec, start = compute.spec_of(run), compute.weights_of(run.start_id)
    parts = {"spec": store.get(run.spec_id), "start": store.get(run.start_id), "at": store.get(run.start_id)}
    for name, data in (parts | {"shard": shard, "hyper": json.dumps(asdict(hyper)).encode()}).items():
        (tmp_path / name).write_bytes(data)
    command = [sys.executable, "-m", "training.replay", str(tmp_path), "0"]
    subprocess.run(command, check=True, env=compute.OTHER_KERNELS)
    far = unpack((tmp_path / "end-0").read_bytes())
    worked, plain = (trainer.replay(spec, start, x, y, hyper, start, range(4), w=each) for each in (w, None))
    assert comparison.compare(start, worked, far).relative < 1e-5
    assert comparison.compare(start, plain, far).relative > 0.05
