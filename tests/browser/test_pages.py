"""What holds for every page, of everybody, at any width, light and dark."""

import pytest
from eth_account import Account
from playwright.sync_api import expect

from dmlsite.demo import PASSWORD, wait
from dmlworker.datasets import samples
from tests.browser.conftest import context_of
from tests.browser.steps import accessible, light, log_in, register

CUSTOMER, ADMIN, PROVIDER = "browser-settled@example.org", "browser-desk@example.org", "provider-0@dml.example"
PAGES = {
    "": ["/", "/accounts/login/", "/accounts/register/", "/accounts/reset/", "/providers/provider-0/", "/nowhere/"],
    CUSTOMER: [
        "/tickets/",
        "/tickets/order/",
        "/tickets/order/?like={ticket}",
        "/tickets/{ticket}/",
        "/accounts/",
        "/accounts/password/",
        "/accounts/close/",
        "/provider/",
    ],
    PROVIDER: ["/provider/", "/provider/?by=month", "/provider/work/{ticket}/", "/accounts/"],
    ADMIN: ["/admin/", "/tickets/{ticket}/"],
}
"""Who sees which pages once a ticket is settled."""


@pytest.fixture(scope="module")
def settled(platform) -> str:
    """The id of a ticket that is settled."""
    platform.workers(4)
    platform.admin_account(ADMIN, PASSWORD)
    customer = platform.person(CUSTOMER, "customer", Account.create())
    ticket = platform.order(customer, "cells.csv", samples.breast_cancer_csv())
    wait(lambda: platform.status(customer, ticket) == "settled", 600, "the training")
    return str(ticket["id"])


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 360])
@pytest.mark.parametrize("who", PAGES, ids=["visitor", "customer", "provider", "admin"])
def test_pages_are_light_stand_still_and_are_accessible(platform, browser, settled, who, width, scheme):
    size = {"width": width, "height": 800}
    with context_of(browser, platform, color_scheme=scheme, viewport=size) as page:
        if who:
            log_in(page, who, PASSWORD)
        for path in PAGES[who]:
            light(page, path.format(ticket=settled))
            accessible(page)
            assert page.evaluate("document.documentElement.scrollWidth") <= width, path


def test_an_outsider_finds_nothing_of_what_is_settled(platform, browser, settled):
    [[key]] = platform.query("select min(id) from accounts_apikey")
    [[revoked]] = platform.query("select count(*) from accounts_apikey where revoked is not null")
    with context_of(browser, platform) as page:
        register(page, "Provider", "browser-stranger@example.org")
        page.get_by_label("User name").fill("stranger")
        page.get_by_role("button", name="Join").click()
        expect(page.locator("#standing")).to_be_visible()
        for path in (
            f"/tickets/{settled}/",
            f"/tickets/{settled}/progress/",
            f"/tickets/{settled}/try/x/",
            f"/tickets/order/?like={settled}",
            f"/provider/work/{settled}/",
        ):
            assert page.request.get(path).status == 404, path
        told = {"X-CSRFToken": page.locator("meta[name=csrf]").get_attribute("content")}
        assert page.request.post(f"/provider/keys/{key}/revoke/", headers=told).status == 404
        assert page.request.post(f"/provider/cases/{settled}/answer/", headers=told, form={"text": "x"}).status == 404
        page.goto("/tickets/")
        expect(page.get_by_text("cells.csv")).to_have_count(0)
    assert platform.query("select count(*) from accounts_apikey where revoked is not null") == [(revoked,)]
