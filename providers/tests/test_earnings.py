"""What a provider was paid: the chart, its numbers, and the file."""

import csv
from datetime import UTC, datetime
from io import StringIO
from uuid import uuid4

import pytest
from django.core.cache import cache
from django.urls import reverse

from dmlsite.tests.people import person
from ledger.models import ChainEvent, Currency, Transfer
from providers import earnings
from providers.models import Provider, Standing

pytestmark = pytest.mark.django_db
WALLET = "0x70997970C51812dc3A010C7d01b50e0d17dc79C8"
OTHER = "0x3C44CdDdB6a900fa2b585dd299e03d12FA4293BC"
HASH = "0x" + "ab" * 32
HOME, FILE = reverse("providers:home"), reverse("providers:earnings")


@pytest.fixture(autouse=True)
def no_counts():
    cache.clear()


@pytest.fixture
def ada():
    user = person("ada", is_provider=True)
    return Provider.objects.create(user=user, user_name="ada", wallet=WALLET, standing=Standing.ACTIVE)


@pytest.fixture
def at(monkeypatch):
    """Sets the clock."""

    def set_clock(text):
        moment = datetime.fromisoformat(text).replace(tzinfo=UTC)
        monkeypatch.setattr("django.utils.timezone.now", lambda: moment)

    return set_clock


def pay(amount, wallet=WALLET, kind="posted", currency=Currency.DML, **fields):
    case = uuid4()
    about = {"debit": f"escrow:{case}", "credit": f"provider:{wallet}", "case": case, "currency": currency}
    return Transfer.objects.create(key=str(uuid4()), kind=kind, amount=amount, **about | fields)


@pytest.fixture
def paid(ada, at):
    """Two payments on one day, one in the month before, one too old for the chart of days."""
    at("2025-12-31T23:59:59")
    pay(40_000)
    at("2026-02-28T12:00:00")
    pay(10_000)
    at("2026-03-14T00:00:00")
    pay(20_000)
    pay(5)
    pay(70_000, kind="pending")
    pay(900_000, wallet=OTHER)
    pay(900_000, currency=Currency.COIN)
    at("2026-03-14T18:00:00")
    return ada


def test_the_chart_by_day_has_a_bar_for_each_of_thirty_days(paid):
    chart = earnings.chart(paid, "day")
    assert len(chart["bars"]) == earnings.DAYS
    sums = {str(bar.first): bar.amount for bar in chart["bars"] if bar.amount}
    assert sums == {"2026-02-28": 10_000, "2026-03-14": 20_005}
    assert (chart["total"], chart["most"]) == (30_005, 20_005)
    best = chart["bars"][-1]
    assert (best.y, best.height) == (0, earnings.HEIGHT)
    assert best.x + best.width <= earnings.WIDTH


def test_the_chart_by_month_goes_back_over_the_turn_of_the_year(paid):
    chart = earnings.chart(paid, "month")
    assert [str(bar.first) for bar in chart["bars"]][:2] == ["2025-04-01", "2025-05-01"]
    sums = {str(bar.first): bar.amount for bar in chart["bars"] if bar.amount}
    assert sums == {"2025-12-01": 40_000, "2026-02-01": 10_000, "2026-03-01": 20_005}


def test_the_page_draws_the_bars_and_has_the_numbers_in_a_table(client, paid):
    client.force_login(paid.user)
    page = client.get(HOME).content.decode()
    section = page.split('id="earnings"')[1].split("</section>")[0]
    assert section.count("<rect") == 2
    assert 'role="img"' in section
    assert '<th scope="row">14 Mar 2026</th><td class="num">0.020005</td>' in section
    assert "Dec" not in section
    assert "style=" not in section
    by_month = client.get(HOME, {"by": "month"}).content.decode().split('id="earnings"')[1]
    assert '<th scope="row">December 2025</th><td class="num">0.04</td>' in by_month
    assert "Earnings by day" in client.get(HOME, {"by": "<b>"}).content.decode()


def test_who_earned_nothing_is_told_so(client, ada):
    client.force_login(ada.user)
    assert "Nothing was paid in this time." in client.get(HOME).content.decode()
    assert earnings.chart(ada, "day")["most"] == 0


def test_the_file_has_every_payment_and_nobody_elses(client, paid):
    place = {"chain_id": 1, "block": 7, "block_hash": "0x1", "log_index": 0, "args": {}}
    event = ChainEvent.objects.create(name="Settled", tx=HASH, **place)
    last = pay(30_000, event=event)
    client.force_login(paid.user)
    answer = client.get(FILE)
    assert answer.headers["Content-Disposition"].startswith('attachment; filename="earnings-ada-')
    rows = list(csv.reader(StringIO(b"".join(answer.streaming_content).decode())))
    assert rows[0] == ["time", "ticket", "DML", "transaction"]
    assert rows[1] == ["2026-03-14T18:00:00+00:00", str(last.case), "0.03", HASH]
    assert [row[2] for row in rows[2:]] == ["0.000005", "0.02", "0.01", "0.04"]


def test_the_file_is_for_providers_who_are_logged_in_and_not_too_often(client, ada):
    assert client.get(FILE).url.startswith(reverse("accounts:login"))
    client.force_login(person("outsider", is_customer=True))
    assert client.get(FILE).status_code == 404
    client.force_login(ada.user)
    assert [client.get(FILE).status_code for _ in range(61)][-2:] == [200, 429]
