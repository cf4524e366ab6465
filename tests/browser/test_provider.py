"""A provider and a real browser, from registration to the key."""

from playwright.sync_api import expect

from tests.browser.steps import SECONDS, accessible, ask_wallet, register


def test_a_provider_registers_joins_deposits_and_gets_a_key(platform, page, wallet):
    register(page, "Provider", "browser-provider@example.org")
    page.get_by_label("User name").press_sequentially("no")
    expect(page.locator("#name-state")).to_contain_text("3 to 30 letters")
    page.get_by_label("User name").press_sequentially("de-in-a-browser")
    expect(page.locator("#name-state")).to_contain_text("node-in-a-browser is free.")
    page.get_by_role("button", name="Join").click()

    expect(page.locator("#standing")).to_have_text("waiting for the deposit")
    ask_wallet(page, "Pay the deposit")
    expect(page.locator("#standing")).to_have_text("active", timeout=180 * SECONDS)
    assert platform.chain.provider_standing(wallet.key.address).name == "Active"

    accessible(page)
    page.get_by_role("button", name="Create API key").click()
    key = page.locator("#key").inner_text().strip()
    assert key.startswith("dml_")
    expect(page.locator("#command")).to_have_text(f"python -m dmlworker --server {platform.url} --key {key}")
    page.goto("/provider/")
    expect(page.locator("body")).not_to_contain_text(key)
    page.goto("/tickets/order/")
    expect(page.get_by_role("heading", name="Order a model")).to_be_visible()
