"""Files go straight from the object store to those who have a link."""

import httpx
import pytest
from django.core.files.base import ContentFile

from scripts import services
from tickets import actions, mail
from tickets.models import Status
from tickets.tests.test_pages import ada, make, owner  # noqa: F401

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
