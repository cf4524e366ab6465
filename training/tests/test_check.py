"""The check of a file before it is paid for: what was found, or what is wrong; nothing is kept."""

import io
import re

import pyarrow
import pytest
from django.core.cache import cache
from django.core.files.uploadedfile import SimpleUploadedFile
from django.template.loader import get_template
from django.urls import reverse
from pyarrow import parquet

from accounts.models import User
from dmlsite.tests.people import api, problem
from dmlworker.datasets import SUFFIXES, samples

pytestmark = pytest.mark.django_db


@pytest.fixture
def owner(client):
    cache.clear()
    client.force_login(User.objects.create_user("ada@example.org", is_customer=True))
    return client


def check(client, data, name="cells.csv", **fields):
    return client.post(reverse("training:check"), {"file": SimpleUploadedFile(name, data), **fields})


def test_a_good_file_is_described_and_nothing_is_kept(owner, tmp_path, settings):
    settings.FILE_UPLOAD_TEMP_DIR = tmp_path
    text = check(owner, samples.breast_cancer_csv()).content.decode()
    assert "569 samples" in text
    assert "2 classes" in text
    assert re.search(r'<datalist id="columns" hx-swap-oob="true">.*value="mean radius".*value="diagnosis"', text)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("data", "name", "message"),
    [
        (b"", "cells.csv", "empty"),
        (
            b"a,target\n" + b"".join(b"%d,%s\n" % (n, b"xy"[n % 2 :][:1]) for n in range(40)) + b"4O,x\n",
            "cells.csv",
            "has text in line 42",
        ),
        (b"a,target\n" + b"1,x\n" * 40, "cells.csv", "one class"),
        (b"PK\3\4 broken", "images.zip", "ZIP"),
        (b"\x80\x04\x95", "data.pkl", "Unknown type of file"),
    ],
)
def test_a_bad_file_gets_the_reason(owner, data, name, message):
    answer = check(owner, data, name)
    assert answer.status_code == 422
    assert message in answer.content.decode()


def test_a_table_with_text_gaps_and_dates_is_described(owner):
    text = check(owner, samples.passengers_csv()).content.decode()
    for part in ("category of 4", "dates (YYYY-MM-DD)", "yes or no", "left out: nearly every value is another"):
        assert part in text


def test_what_the_price_may_need_of_the_file_comes_with_the_answer(owner):
    """Of a table that has to be made numbers, the columns that come of it."""
    text = check(owner, samples.breast_cancer_csv()).content.decode()
    assert 'data-samples="569" data-shape="30" data-outputs="2"' in text
    text = check(owner, samples.passengers_csv()).content.decode()
    assert re.search(r'data-samples="\d+" data-shape="(19|2\d)" data-outputs="2" data-tokens=""', text)
    text = check(owner, samples.diabetes_csv(), window=6).content.decode()
    assert 'data-samples="442" data-shape="6 × 11" data-outputs="1" data-tokens=""' in text
    reviews = "review,liked\n" + "".join(f"the film was n{n % 9} in p{n},{'yn'[n % 2]}\n" for n in range(60))
    text = check(owner, reviews.encode()).content.decode()
    assert 'data-samples="60" data-shape="6" data-outputs="2" data-tokens="15"' in text


def test_what_a_model_must_take_is_told_where_it_is_known(owner):
    text = check(owner, samples.breast_cancer_csv()).content.decode()
    assert 'name="data_shape" value="30"' in text
    assert 'name="data_classes" value="2"' in text
    assert 'name="data_shape" value=""' in check(owner, samples.passengers_csv()).content.decode()


def test_a_wrong_target_names_the_columns(owner):
    answer = check(owner, b"a,b\n1,x\n", target="c")
    assert answer.status_code == 422
    assert "The columns are: a, b." in answer.content.decode()


def test_the_check_needs_a_login_a_small_file_and_patience(client, owner, settings):
    settings.MAX_CHECK_BYTES = 10
    assert "too large to be checked" in check(owner, b"x" * 11).content.decode()
    codes = [check(owner, b"x").status_code for _ in range(31)]
    assert codes[-1] == 429
    client.logout()
    assert check(client, b"x").status_code == 302


def test_a_parquet_table_is_described(owner):
    buffer = io.BytesIO()
    parquet.write_table(pyarrow.table({"colour": ["red", "blue"] * 20, "kind": ["a", "b", "b", "a"] * 10}), buffer)
    text = check(owner, buffer.getvalue(), "t.parquet").content.decode()
    assert "40 samples" in text and "category of 2" in text


@pytest.mark.parametrize("template", ["tickets/order.html", "training/_progress.html"])
def test_the_pages_offer_every_kind_of_file_that_can_be_read(template):
    source = get_template(template).template.source
    offered = re.search(r'accept="([^"]+)"', source)[1].split(",")
    assert {suffix if suffix != ".tar.gz" else ".gz" for suffix in SUFFIXES} == set(offered)


def test_a_program_asks_the_same():
    cache.clear()
    client = api(User.objects.create_user("bob@example.org", is_customer=True))
    file = SimpleUploadedFile("cells.csv", samples.breast_cancer_csv())
    facts = client.post("/api/v1/check", {"file": file, "target": "diagnosis"}, format="multipart").json()
    assert (facts["samples"], facts["target"], len(facts["columns"])) == (569, "diagnosis", 30)
    assert facts["classes"] == {"benign": 357, "malignant": 212}
    empty = {"file": SimpleUploadedFile("cells.csv", b"")}
    assert "empty" in problem(client.post("/api/v1/check", empty, format="multipart"), 422)["detail"]


def test_the_owner_says_what_a_column_is(owner):
    table = b"id,zip,y\n" + b"".join(b"%d,%d,%d\n" % (n, 10000 + n % 3, n % 2) for n in range(60))
    text = check(owner, table).content.decode()
    assert '<select data-kind="zip"' in text and "whole numbers" in text and " checked" not in text
    text = check(owner, table, leave_out='["id"]', kinds='{"zip": "category"}').content.decode()
    assert "category of 3" in text and "left out: you chose so" in text
    assert re.search(r'data-leave-out="id"[^>]* checked', text) and "<option selected>category</option>" in text
    text = check(owner, table, group="id", window="").content.decode()
    assert "left out: it says which rows stay together" in text and 'data-leave-out="id"' not in text


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({"leave_out": '["idd"]'}, "no column"),
        ({"group": "zip"}, "There are 3 groups"),
        ({"window": "30"}, "too few for windows of 30"),
        ({"kinds": "{"}, "valid JSON"),
    ],
)
def test_what_does_not_fit_the_file_is_said_before_paying(owner, said, message):
    table = b"id,zip,y\n" + b"".join(b"%d,%d,%d\n" % (n, 10000 + n % 3, n % 2) for n in range(60))
    answer = check(owner, table, **said)
    assert answer.status_code == 422 and message in answer.content.decode()
