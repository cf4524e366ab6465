"""A customer tries their model: a row or an image in, the probability of each class out."""

import html
import io
import json

import numpy as np
import pytest
from django.core.cache import cache
from django.core.files.uploadedfile import SimpleUploadedFile
from django.urls import reverse
from PIL import Image

from dmlsite.tests.people import person
from dmlworker import datasets, models, trainer
from dmlworker.tests.test_text import reviews
from training import raw, store
from training.models import Round, Run
from training.tests.test_delivery import made, series_csv

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def empty_cache():
    cache.clear()


def done(run, shape, classes, **facts):
    """The run has ended with an untrained model for samples of this shape."""
    statistics = models.statistics(np.random.default_rng(1).normal(size=(20, *shape)).astype(np.float32))
    spec = models.spec(models.build(shape, len(classes), "mlp", statistics if len(shape) == 1 else None))
    end = store.put(trainer.pack(trainer.initial_weights(spec, 3)))
    Round.objects.create(run=run, number=run.rounds, start=run.start, end=end, state=Round.State.CLOSED)
    kept = {"state": Run.State.DONE, "spec": store.put(models.spec_bytes(spec)), "classes": classes}
    Run.objects.filter(pk=run.pk).update(facts=run.facts | {"sample_shape": list(shape)} | facts, **kept)
    run.refresh_from_db()
    return run, trainer.predict(
        json.loads(store.get(run.spec_id)), trainer.unpack(store.get(end.pk)), np.zeros((1, *shape))
    )


@pytest.fixture
def table(run):
    return done(run, (2,), ["red", "<b>blue"], kind="csv", features=["height", "width"], example=[0.5, 1234567.0])[0]


def ask(client, run, **given):
    client.force_login(run.ticket.customer)
    return client.post(reverse("training:ask_trial", args=[run.ticket_id]), given, headers={"HX-Request": "true"})


def test_the_page_offers_a_row_that_no_provider_saw(client, table):
    client.force_login(table.ticket.customer)
    page = client.get(reverse("training:progress", args=[table.ticket_id])).content.decode()
    assert 'name="value-0" value="0.5"' in page and 'name="value-1" value="1.23457e+06"' in page
    assert "height" in page


def test_a_row_is_answered_with_what_plain_keras_says(client, table, inline_jobs):
    answer = client.get(ask(client, table, **{"value-0": "1", "value-1": "-2.5"}).url, headers={"HX-Request": "true"})
    model = models.from_spec(json.loads(store.get(table.spec_id)))
    model.set_weights(trainer.unpack(store.get(table.all_rounds.get(number=table.rounds).end_id)))
    wanted = model.predict(np.array([[1, -2.5]]), verbose=0)[0]
    page = answer.content.decode()
    assert "&lt;b&gt;blue" in page
    for part in wanted:
        assert f"{100 * part:.1f} %" in page
    assert inline_jobs == ["training.tasks.answer_trial"]


def test_until_it_is_answered_the_page_asks_again_also_without_javascript(client, table, monkeypatch):
    monkeypatch.setattr("dmlsite.jobs._send", lambda *args: None)
    url = ask(client, table, **{"value-0": "1", "value-1": "2"}).url
    assert "delay:700ms" in client.get(url, headers={"HX-Request": "true"}).content.decode()
    plain = client.get(url)
    assert plain["Refresh"] == "2" and "The model is thinking" in plain.content.decode()


@pytest.mark.parametrize("value", ["", "tall", "nan", "inf", "1e39", "1,5"])
def test_what_is_no_number_is_named(client, table, value):
    answer = ask(client, table, **{"value-0": "1", "value-1": value})
    assert answer.status_code == 422 and "width: " in answer.content.decode()


def test_many_columns_come_in_one_line(client, run, inline_jobs):
    run, wanted = done(run, (50,), ["a", "b"], kind="npz", features=[], example=[0.0] * 50)
    assert ask(client, run, line="1, 2").status_code == 422
    url = ask(client, run, line=", ".join(["0"] * 50)).url
    assert f"{100 * wanted[0].max():.1f} %" in client.get(url).content.decode()


@pytest.mark.parametrize(("shape", "mode"), [((8, 6), "L"), ((8, 6, 3), "RGB")])
def test_an_image_is_read_as_the_data_set_was(client, run, inline_jobs, shape, mode):
    run, wanted = done(run, shape, ["cat", "dog"], kind="images")
    data = io.BytesIO()
    Image.new(mode, (60, 80)).save(data, "PNG")
    url = ask(client, run, image=SimpleUploadedFile("x.png", data.getvalue())).url
    assert f"{100 * wanted[0].max():.1f} %" in client.get(url).content.decode()
    answer = ask(client, run, image=SimpleUploadedFile("x.png", b"no image"))
    assert answer.status_code == 422 and "does not open as an image" in answer.content.decode()
    assert "choose an image" in ask(client, run).content.decode()


def test_a_model_that_is_not_there_is_not_tried(client, run):
    answer = ask(client, run, line="1")
    assert answer.status_code == 422 and "can&#x27;t be tried" in answer.content.decode()


def test_another_customer_and_another_run_see_nothing(client, table, monkeypatch):
    monkeypatch.setattr("dmlsite.jobs._send", lambda *args: None)
    url = ask(client, table, **{"value-0": "1", "value-1": "2"}).url
    client.force_login(person("eve"))
    assert client.get(url).status_code == 404
    assert client.post(reverse("training:ask_trial", args=[table.ticket_id]), {}).status_code == 404
    client.force_login(table.ticket.customer)
    assert client.get(reverse("training:trial", args=[table.ticket_id, "f" * 32])).status_code == 404


# --- What is no row of numbers ----------------------------------------------------------------------------------------
def tried(client, run, data, **given):
    """What the page says to a sample, and the model's own answer to what the platform makes of it, `data`."""
    url = ask(client, run, **given).url
    page = client.get(url, headers={"HX-Request": "true"}).content.decode()
    return page, trainer.predict(json.loads(store.get(run.spec_id)), trainer.unpack(store.get(run.start_id)), data)[0]


def ended(run):
    Run.objects.filter(pk=run.pk).update(state=Run.State.DONE, rounds=1)
    return Run.objects.select_related("ticket").get(pk=run.pk)


def page_of(client, run):
    client.force_login(run.ticket.customer)
    return client.get(reverse("training:progress", args=[run.ticket_id])).content.decode()


def test_a_text_is_typed_into_an_area_of_its_own(client, files, tmp_path, inline_jobs):
    run = ended(made(tmp_path, "reviews.csv", reviews().encode()))
    page = page_of(client, run)
    assert '<textarea id="try-value-0" name="value-0"' in page and run.facts["example"][0] in page
    text = "A Great, great film.\nThe plot was good!"
    x = raw.encoder_of(run).row([text])
    assert x[:8].all() and not x[8:].any() and x.dtype == np.uint16
    said, wanted = tried(client, run, x[None], **{"value-0": text})
    for part in wanted:
        assert f"{100 * part:.1f} %" in said


def test_a_text_is_tried_beside_other_columns(client, files, tmp_path, inline_jobs):
    lines = [f"{line.rpartition(',')[0]},{n},{'ab'[n % 2]}" for n, line in enumerate(reviews().splitlines()[1:])]
    run = ended(made(tmp_path, "t.csv", "\n".join(["review,size,kind", *lines]).encode()))
    page = page_of(client, run)
    assert page.count("<textarea") == 1 and 'inputmode="decimal" id="try-value-1"' in page
    x = raw.encoder_of(run).row(["good film", "12"])
    said, wanted = tried(client, run, x[None], **{"value-0": "good film", "value-1": "12"})
    assert f"{100 * wanted.max():.1f} %" in said


@pytest.mark.parametrize("leave_out", [[], ["load", "weather"]])
def test_a_window_is_pasted_row_by_row(client, files, tmp_path, inline_jobs, leave_out):
    said = {"window": 6, "leave_out": leave_out, "target": "heat"}
    run = ended(made(tmp_path, "series.csv", series_csv(), **said))
    shown = html.unescape(page_of(client, run)).partition('name="rows"')[2].partition(">")[2].partition("<")[0]
    rows = [line.split(",") for line in shown.splitlines()]
    assert len(rows) == 6 and {len(row) for row in rows} == {len(run.facts["features"])}
    x, _ = datasets.load(store.get(run.holdout_id))
    for text in (shown, shown.replace(",", "\t") + "\r\n\r\n"):
        page, [wanted] = tried(client, run, x[:1], rows=text)
        assert float(page.partition('"big">')[2].partition("<")[0].replace(",", "")) == pytest.approx(wanted, rel=1e-4)
    for wrong in ("\n".join(shown.splitlines()[1:]), shown + ",1", shown.replace(rows[0][-1], "tall", 1), ""):
        assert ask(client, run, rows=wrong).status_code == 422
