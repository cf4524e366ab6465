"""The model card, for people and for programs, and the picture of the curves."""

import io
import json

import numpy as np
import pytest
from django.core.files.base import ContentFile
from django.urls import reverse
from PIL import Image

from ledger.models import ChainEvent
from tickets import actions as tickets
from tickets.models import Dataset
from training import card, chart, records
from training.models import Run
from training.tests.conftest import close, commit, leases

METRICS = {"accuracy": [0.9, 0.8, 0.95], "roc_auc": [None, None, None], "log_loss": [0.25, 0.2, 0.31]}


@pytest.fixture
def done(started) -> Run:
    """Two rounds; one format was left out."""
    Dataset.objects.create(ticket=started.ticket, file="x", name="a|b.csv", size=10, sha256="3" * 64)
    for number in (1, 2):
        for lease in leases(started, number):
            commit(lease)
        close(started, number)
    facts = {"kind": "csv", "samples": 21, "training_samples": 11, "holdout_samples": 10, "sample_shape": [2]}
    Run.objects.filter(pk=started.pk).update(metrics=METRICS, facts=facts | {"example": [1.0, 2.0]})
    records.tell_left_out(started.ticket, {"ONNX": "it is too large"})
    tickets.store_artifact(started.ticket, "model.keras", ContentFile(b"weights"))
    return Run.objects.get(pk=started.pk)


@pytest.fixture
def event(done) -> ChainEvent:
    place = {"chain_id": 1, "block": 1, "block_hash": "0x1", "tx": "0x" + "ab" * 32, "log_index": 0}
    return ChainEvent.objects.create(
        name="Settled", case=done.ticket_id, args={"receipt_root": "0x" + "cd" * 32}, **place
    )


def test_a_program_reads_all_of_it(done, event):
    found = json.loads(card.documents(done, event)["model-card.json"])
    assert found["metrics"]["accuracy"] == {"value": 0.9, "low": 0.8, "high": 0.95}
    assert found["metrics"]["roc_auc"] == {"value": None, "low": None, "high": None}
    assert found["data"]["holdout_samples"] == 10 and found["data"]["file"]["name"] == "a|b.csv"
    assert "example" not in found["data"], "a row of the customer's"
    assert [round_["number"] for round_ in found["rounds"]] == [1, 2]
    assert (found["payout"], found["receipt_root"]) == (event.tx, event.args["receipt_root"])
    assert {one["name"] for one in found["providers"]} == {"ada", "bob"}
    assert list(found["files"]) == ["model.keras"] and "too large" in found["formats_left_out"][0]
    assert found["settings"]["learning_rate"] == done.learning_rate
    assert found["settings"]["optimizer"] == "sgd"


def test_people_read_the_intervals_and_what_was_left_out(done, event):
    text = card.documents(done, event)["model-card.md"].decode()
    assert "| Accuracy | 90.0 % | 80.0 % to 95.0 % |" in text and "| Log loss | 0.25 | 0.2 to 0.31 |" in text
    assert "ROC-AUC" not in text
    assert "There is no ONNX file of this model: it is too large." in text and "![Accuracy and loss" in text


def test_the_card_is_the_same_when_it_is_made_again(done, event):
    first = card.documents(done, event)
    for name, data in first.items():
        tickets.store_artifact(done.ticket, name, ContentFile(data))
    assert card.documents(done, event) == first


def test_the_curves_are_where_their_values_are():
    """The score falls from 1 to 0, the loss is at its most in the end; what is not finite is a gap."""
    image = Image.open(io.BytesIO(chart.curves([1.0, 0.5, 0.0], [None, 1.0, 4.0])))
    assert image.format == "PNG" and image.size == (chart.WIDTH, chart.HEIGHT)
    pixels = np.asarray(image.convert("RGB")).astype(int)
    middle = (chart.LEFT + chart.RIGHT) // 2

    def height(x: int, colour: str) -> list[int]:
        wanted = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
        rows = np.flatnonzero(np.abs(pixels[:, x] - wanted).sum(axis=1) < 20)
        return [int(row) for row in rows if chart.TOP - 3 <= row <= chart.BOTTOM + 3]

    assert np.mean(height(chart.LEFT, chart.SCORE)) == pytest.approx(chart.TOP, abs=2)
    assert np.mean(height(middle, chart.SCORE)) == pytest.approx((chart.TOP + chart.BOTTOM) / 2, abs=2)
    assert np.mean(height(chart.RIGHT, chart.LOSS)) == pytest.approx(chart.TOP, abs=2)
    assert height(chart.LEFT + 20, chart.LOSS) == []


@pytest.mark.parametrize("values", [[], [0.5], [None, float("nan")]])
def test_few_rounds_or_none_that_is_finite_are_drawn_too(values):
    assert Image.open(io.BytesIO(chart.curves(values, values))).size == (chart.WIDTH, chart.HEIGHT)


def test_files_are_listed_by_kind(client, done):
    for name in ("model.onnx", "predict.py", "receipt.json", "else.txt"):
        tickets.store_artifact(done.ticket, name, ContentFile(b"x"))
    client.force_login(done.ticket.customer)
    page = client.get(reverse("training:progress", args=[done.ticket_id])).content.decode()
    words = ["The model", "model.keras", "other formats", "model.onnx", "To use it", "predict.py", "Documents"]
    places = [page.index(word, page.index('id="files"')) for word in [*words, "receipt.json", "else.txt", "files.zip"]]
    assert places == sorted(places)
