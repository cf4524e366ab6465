"""An account and a real browser: confirming it, a wallet that logs in, one's data, and the end."""

import json
import re

from playwright.sync_api import expect

from dmlsite.demo import mails, wait
from tests.browser.steps import PASSWORD, accessible, ask_wallet, register

ADDRESS = "browser-leaver@example.org"


def link(platform) -> str:
    found = list[str]()

    def arrived() -> bool:
        found.extend(text for text in mails(platform.var / "mail") if f"address {ADDRESS}" in text)
        return bool(found)

    wait(arrived, 60, "the mail with the link")
    return re.search(r"http\S+", found[-1])[0]


def test_an_account_is_confirmed_opened_by_a_wallet_exported_and_closed(platform, page, wallet):
    register(page, "Customer", ADDRESS)
    page.get_by_role("link", name="Account").click()
    expect(page.get_by_text("not confirmed yet")).to_be_visible()
    page.goto(link(platform))
    expect(page.get_by_text(ADDRESS)).to_be_visible()
    accessible(page)
    page.get_by_role("button", name="Yes, it is mine").click()
    expect(page.get_by_text("Your e-mail address is confirmed.")).to_be_visible()

    ask_wallet(page, "Link a wallet")
    expect(page.get_by_text("This is not your password.")).to_be_visible()
    page.get_by_label("Your password").fill(PASSWORD)
    wallet.refuse = True
    ask_wallet(page, "Link a wallet")
    expect(page.get_by_text("You declined in your wallet.")).to_be_visible()
    ask_wallet(page, "Link a wallet")
    expect(page.get_by_text(f"The wallet {wallet.key.address} is linked.")).to_be_visible()
    accessible(page)

    page.get_by_role("button", name="Log out").click()
    page.goto("/accounts/login/?next=/accounts/")
    ask_wallet(page, "Log in with a wallet")
    expect(page.get_by_role("heading", name="Account")).to_be_visible()

    with page.expect_download() as given:
        page.get_by_role("link", name="Download all that is kept about me").click()
    kept = json.loads(given.value.path().read_text())
    assert kept["account"]["email"] == ADDRESS and kept["account"]["wallets"][0]["address"] == wallet.key.address

    page.get_by_role("link", name="Close my account").click()
    accessible(page)
    page.get_by_label("Your password").fill("wrong")
    page.get_by_role("button", name="Close my account").click()
    expect(page.get_by_text("This is not your password.")).to_be_visible()
    page.get_by_label("Your password").fill(PASSWORD)
    page.get_by_role("button", name="Close my account").click()
    expect(page.get_by_text("Your account is closed")).to_be_visible()
    assert platform.query("select count(*) from accounts_user where email = %s", ADDRESS) == [(0,)]
