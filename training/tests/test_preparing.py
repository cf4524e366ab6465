"""While a file is read and cut, its customer sees how far that is."""

import pytest
from django.core.cache import cache
from django.urls import reverse

from dmlsite.tests.people import api
from dmlworker import bounds, datasets
from dmlworker.datasets import cells, samples
from tickets import preparing
from tickets.models import Dataset, Status, Ticket
from tickets.preparing import Preparing
from training import compute
from training.models import Blob
from training.tests.conftest import make_ticket


@pytest.fixture
def ticket(transactional_db, files) -> Ticket:
    cache.clear()
    return make_ticket(target="diagnosis")


def seen(client, ticket: Ticket) -> tuple[str, float | None]:
    """What the page shows, and what the API says."""
    client.force_login(ticket.customer)
    page = client.get(reverse("training:progress", args=[ticket.pk])).content.decode()
    return page, api(ticket.customer).get(f"/api/v1/tickets/{ticket.pk}").json()["prepared"]


def test_the_page_and_the_api_tell_how_far_it_is(ticket, client):
    assert seen(client, ticket)[1] is None
    with Preparing(ticket) as told:
        told(0.4256)
        page, said = seen(client, ticket)
        assert "cut into parts: 42.6 %" in page and '<progress value="0.426"' in page and said == 0.4256
        Ticket.objects.update(status=Status.REFUNDED)
        assert seen(client, Ticket.objects.get())[1] is None
        Ticket.objects.update(status=Status.UPLOADED)
    page, said = seen(client, ticket)
    assert "cut into parts…" in page and "File read" not in page and said is None


def test_it_is_told_once_a_second_and_never_goes_back(ticket, monkeypatch):
    with Preparing(ticket) as told:
        told(0.2), told(0.3)
        assert preparing.fraction(ticket) == 0.2
        monkeypatch.setattr(preparing, "SECONDS", 0)
        told(0.3), told(0.1)
        assert preparing.fraction(ticket) == 0.3


def test_preparing_tells_how_far_it_is(ticket, tmp_path, monkeypatch):
    monkeypatch.setattr(cells, "_BLOCK", 1 << 12)
    path = tmp_path / "cancer.csv"
    path.write_bytes(samples.breast_cancer_csv())
    Dataset.objects.create(ticket=ticket, file="x", name=path.name, size=path.stat().st_size, sha256="0" * 64)
    told: list[float] = []
    compute.prepare(ticket, path, 4, 7, told.append)
    assert told == sorted(told) and told[-1] == 1
    assert any(done <= compute.READ for done in told) and sum(done > compute.READ for done in told) >= 4


def test_a_part_that_no_worker_takes_is_refused_before_it_is_stored(ticket, tmp_path, monkeypatch):
    path = tmp_path / "cancer.csv"
    path.write_bytes(samples.breast_cancer_csv())
    Dataset.objects.create(ticket=ticket, file="x", name=path.name, size=path.stat().st_size, sha256="0" * 64)
    monkeypatch.setattr(bounds, "MAX_SHARD", 1000)
    with pytest.raises(
        datasets.DatasetError, match=r"a provider's part of it would have 0.0 GB, and a worker takes 1e-06"
    ):
        compute.prepare(ticket, path, 4, 7)
    assert not Blob.objects.count()


@pytest.mark.parametrize("encoding", ["utf-8", "latin-1"])
def test_reading_tells_how_far_it_is(tmp_path, monkeypatch, encoding):
    monkeypatch.setattr(cells, "CHUNK_ROWS", 64)
    monkeypatch.setattr(cells, "_BLOCK", 1 << 10)
    path = tmp_path / "a.csv"
    path.write_bytes(("a,y\n" + "1.5,ä\n2.5,b\n" * 20_000).encode(encoding))
    told: list[float] = []
    with datasets.heard(told.append):
        datasets.read(path, path.name)
    assert len(told) > 5 and told == sorted(told) and told[0] < 0.5 < told[-1] <= 1
    told.clear()
    datasets.read(path, path.name)
    assert not told
