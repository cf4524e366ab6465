"""The same pages under other circumstances: somebody else, two tabs, the back button, a slow network, no JavaScript."""

from playwright.sync_api import expect

from tests.browser.conftest import context_of
from tests.browser.steps import PASSWORD, SECONDS, accessible, ask_wallet, order, register, status

SLOW = {"offline": False, "latency": 400, "downloadThroughput": 50_000, "uploadThroughput": 50_000}
"""Bytes a second; milliseconds: a bad mobile line."""


def test_an_outsider_finds_none_of_it(platform, browser, page, wallet):
    order(page, wallet, "browser-insider@example.org")
    path = page.url.removeprefix(platform.url)
    with context_of(browser, platform) as other:
        register(other, "Customer", "browser-outsider@example.org")
        assert other.goto(path).status == 404
        accessible(other)
        for below in ("progress/", "try/x/"):
            assert other.request.get(path + below).status == 404
        assert other.request.get("/admin/").url.endswith("/admin/login/?next=/admin/")
        other.goto("/tickets/")
        expect(other.get_by_text("a.csv")).to_have_count(0)
    with context_of(browser, platform) as nobody:
        nobody.goto(path)
        expect(nobody.get_by_role("heading", name="Log in")).to_be_visible()


def test_two_tabs_and_the_back_button_agree(platform, page, wallet):
    order(page, wallet, "browser-two-tabs@example.org")
    second = page.context.new_page()
    second.goto(page.url)
    status(second, "quoted", 60)
    ask_wallet(page, "Pay")
    status(second, "paid", 300)
    status(page, "paid", 60)
    assert len(wallet.sent) == 1
    page.goto("/tickets/")
    page.go_back()
    status(page, "paid", 60)
    expect(page.get_by_role("button", name="Pay", exact=True)).to_have_count(0)
    second.once("dialog", lambda dialog: dialog.accept())
    second.get_by_role("button", name="Cancel this ticket").click()
    status(second, "refunded", 60)
    status(page, "refunded", 60)


def test_on_a_slow_line_the_ticket_is_still_followed(platform, page, wallet):
    order(page, wallet, "browser-slow@example.org")
    line = page.context.new_cdp_session(page)
    line.send("Network.emulateNetworkConditions", SLOW)
    page.reload()
    ask_wallet(page, "Pay")
    status(page, "paid", 300)


def test_without_javascript_the_pages_say_what_they_cannot(platform, browser, page, wallet):
    email = "browser-plain@example.org"
    order(page, wallet, email)
    with context_of(browser, platform, java_script_enabled=False) as plain:
        plain.goto("/accounts/login/")
        plain.get_by_label("E-mail").fill(email)
        plain.get_by_label("Password", exact=True).fill(PASSWORD)
        plain.get_by_role("button", name="Log in", exact=True).click()
        plain.get_by_role("link", name="a.csv").click()
        expect(plain.locator("#status")).to_have_attribute("data-status", "quoted")
        # Chromium shows no <noscript> when it is only told to run no scripts: it is looked for in the source.
        assert "Without JavaScript this page does not follow by itself" in plain.content()
        assert "This needs JavaScript: your wallet lives in the browser." in plain.content()
        plain.goto("/tickets/order/")
        assert "Ordering needs JavaScript" in plain.content()
        plain.goto("/accounts/")
        plain.get_by_role("link", name="Change your password").click()
        expect(plain.get_by_role("button", name="Save")).to_be_visible()


def test_the_admin_finds_a_ticket_in_two_clicks_at_any_width(platform, browser, page, wallet):
    order(page, wallet, "browser-found@example.org")
    ticket = page.url.rstrip("/").rpartition("/")[2]
    with context_of(browser, platform) as admin:
        platform.admin_account("browser-admin@example.org", PASSWORD)
        admin.goto("/admin/")
        admin.get_by_label("E-mail").fill("browser-admin@example.org")
        admin.get_by_label("Password").fill(PASSWORD)
        admin.get_by_role("button", name="Log in", exact=True).click()
        expect(admin.get_by_text("Workers online")).to_be_visible(timeout=60 * SECONDS)
        accessible(admin)
        admin.locator(".model-ticket").get_by_role("link", name="Tickets", exact=True).click()
        for words in ("browser-found@example.org", wallet.key.address, ticket):
            admin.locator("#searchbar").fill(words)
            admin.locator("#searchbar").press("Enter")
            expect(admin.locator("#result_list tbody tr")).to_have_count(1)
        accessible(admin)
        admin.locator("#result_list tbody a").first.click()
        expect(admin.get_by_text("waiting for payment").first).to_be_visible()
        accessible(admin)
        admin.set_viewport_size({"width": 360, "height": 800})
        admin.goto("/admin/")
        assert admin.evaluate("document.documentElement.scrollWidth") <= 360
