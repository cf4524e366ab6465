"""Files go straight to the object store, and from it, by links that are good for a while."""

import hashlib

import httpx
import pytest
from django.core.files.base import ContentFile

from dmlsite.testing import files_kept
from scripts import services
from tickets import actions, direct, mail
from tickets.models import Dataset, Leftover, Status, Ticket
from tickets.tests.test_pages import ada, eve, make, owner  # noqa: F401

pytestmark = pytest.mark.django_db


@pytest.fixture(scope="module")
def stack(tmp_path_factory):
    stack = services.Stack(tmp_path_factory.mktemp("store"), services.free_ports())
    services.start(stack, "s3")
    services.make_bucket(stack, "direct", "s3")
    yield stack
    services.down(stack)


@pytest.fixture(autouse=True)
def bucket(stack, settings):
    where = {"endpoint_url": services.address(stack, "s3"), "region_name": services.REGION}
    options = {"bucket_name": "direct", "access_key": "a", "secret_key": "b", "querystring_expire": 60, **where}
    settings.STORAGES = settings.STORAGES | {"default": {"BACKEND": "dmlsite.stores.S3", "OPTIONS": options}}
    settings.FILE_STORE = "s3"


def test_the_mailed_link_leads_to_the_store_for_a_minute(client, ada, settings):  # noqa: F811
    artifact = actions.store_artifact(make(ada, Status.SETTLED), "model.keras", ContentFile(b"weights"))
    answer = client.get(mail.link(artifact).removeprefix(settings.SITE_URL))
    assert (answer.status_code, answer.headers["Cache-Control"]) == (302, "private, no-store")
    assert "X-Amz-Expires=60" in answer.headers["Location"]
    found = httpx.get(answer.headers["Location"])
    assert found.content == b"weights"
    assert found.headers["Content-Disposition"] == 'attachment; filename="model.keras"'


# --- Up ---------------------------------------------------------------------------------------------------------------
@pytest.fixture
def small(monkeypatch):
    """Parts of S3's least size, so that there are two."""
    monkeypatch.setattr(direct, "PART", 5 << 20)


DATA = b"a,b\n" + b"1,2\n" * 1_500_000
"""More than one part, less than two."""


@pytest.fixture
def ticket(ada):  # noqa: F811
    found = make(ada, Status.PAID)
    found.file_size = len(DATA)
    found.save()
    return found


def ask(client, ticket, step="", **said):
    return client.post(f"/api/v1/tickets/{ticket.pk}/direct{step}", said, content_type="application/json")


def sent(client, ticket, data=DATA, size=None):
    """Begin, and put every part where it goes. The token."""
    begun = ask(client, ticket, file_name="cells.csv", file_size=size or len(data)).json()
    numbers = list(range(1, begun["parts"] + 1))
    links = ask(client, ticket, "/parts", token=begun["token"], numbers=numbers).json()["links"]
    for number in numbers:
        part = data[(number - 1) * begun["part_size"] : number * begun["part_size"]]
        httpx.put(links[str(number)], content=part).raise_for_status()
    return begun["token"]


def test_a_file_goes_straight_to_the_store_and_becomes_the_tickets(owner, ticket, small):  # noqa: F811
    token = sent(owner, ticket)
    assert ask(owner, ticket, "/parts", token=token, numbers=[]).json()["here"] == [1, 2]
    digest = hashlib.sha256(DATA).hexdigest()
    done = ask(owner, ticket, "/finish", token=token, sha256=digest)
    assert (done.status_code, done.json()["status"]) == (200, "uploaded")
    kept = Dataset.objects.get()
    assert (kept.name, kept.size, kept.sha256) == ("cells.csv", len(DATA), digest)
    assert kept.file.open().read() == DATA
    assert not [name for name in files_kept() if name.startswith("direct/")]
    assert ask(owner, ticket, "/finish", token=token).status_code == 409, "only once"


def test_what_is_not_the_announced_file_is_refused_and_removed(owner, ticket, small):  # noqa: F811
    token = sent(owner, ticket)
    assert ask(owner, ticket, "/finish", token=token, sha256="0" * 64).status_code == 422
    assert not Dataset.objects.exists()
    assert Ticket.objects.get().status == Status.PAID
    assert Leftover.objects.count() == 1


def test_a_part_that_is_missing_or_short_is_told(owner, ticket, small):  # noqa: F811
    begun = ask(owner, ticket, file_name="cells.csv", file_size=len(DATA)).json()
    assert ask(owner, ticket, "/finish", token=begun["token"]).status_code == 409
    short = sent(owner, ticket, DATA[:-4], size=len(DATA))
    assert ask(owner, ticket, "/finish", token=short).status_code == 409


def test_the_address_of_a_part_says_how_long_it_is(owner, ticket, small):  # noqa: F811
    begun = ask(owner, ticket, file_name="cells.csv", file_size=len(DATA)).json()
    link = ask(owner, ticket, "/parts", token=begun["token"], numbers=[2]).json()["links"]["2"]
    assert "content-length" in link.lower(), "signed: the store refuses any other"
    assert ask(owner, ticket, "/parts", token=begun["token"], numbers=[3]).status_code == 422


def test_a_larger_file_than_was_paid_for_is_not_begun(owner, ticket):  # noqa: F811
    assert ask(owner, ticket, file_name="cells.csv", file_size=len(DATA) + 1).status_code == 422


def test_an_upload_is_its_owners_and_its_tickets(owner, client, ada, eve, ticket, small):  # noqa: F811
    token = ask(owner, ticket, file_name="cells.csv", file_size=len(DATA)).json()["token"]
    assert ask(owner, ticket, "/parts", token="made-up", numbers=[1]).status_code == 422
    client.force_login(eve)
    assert ask(client, ticket, "/parts", token=token, numbers=[1]).status_code == 404
    other = make(eve, Status.PAID)
    assert ask(client, other, "/parts", token=token, numbers=[1]).status_code == 422


def test_on_a_disk_it_says_where_else_to_send_the_file(owner, ticket, settings):  # noqa: F811
    settings.STORAGES = settings.STORAGES | {"default": settings.STORES["disk"]}
    answer = ask(owner, ticket, file_name="cells.csv", file_size=5)
    assert (answer.status_code, "uploads" in answer.json()["detail"]) == (409, True)
