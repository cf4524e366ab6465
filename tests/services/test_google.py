"""A whole ticket on Google Cloud Storage (its emulator): order, upload, train, download by a signed link. Every other test here has S3."""

import hashlib

import httpx
import pytest

from contracts import devchain
from dmlsite.supervisor import Platform
from dmlsite.testing import room
from dmlworker.datasets import samples
from tests.conftest import SETTINGS, Live, up


@pytest.fixture(scope="module")
def live(tmp_path_factory):
    var = tmp_path_factory.mktemp("google")
    settings = SETTINGS | room(var, "gcs") | {"PROVIDERS_PER_TICKET": "2"}
    with up(Platform(var, devchain.free_port(), devchain.free_port(), say=print, settings=settings)) as platform:
        yield Live(platform)


def test_a_ticket_is_trained_and_its_model_downloaded(live):
    live.workers(2)
    customer = live.person("customer@example.org", "customer", devchain.test_key(1))
    ticket = live.order(customer, "cells.csv", samples.breast_cancer_csv(), rounds=2)
    *_, last = live.follow(customer, ticket, 600)
    assert (last["status"], last["accuracy"] > 0.8) == ("settled", True)
    for row in customer.call("GET", f"tickets/{ticket['id']}/artifacts"):
        found = httpx.get(row["url"], follow_redirects=True).raise_for_status().content
        assert hashlib.sha256(found).hexdigest() == row["sha256"]
