"""The states of a wallet that the pages explain: none, locked, another account, too little DML, too few coins."""

from eth_account import Account
from playwright.sync_api import expect

from contracts import devchain
from tests.browser.conftest import context_of
from tests.browser.steps import accessible, ask_wallet, order, register, status

STATE = "#pay [data-wallet-state]"


def test_a_wallet_without_dml_or_coins_is_told_what_it_lacks(platform, page, wallet):
    poor = Account.create()
    wallet.key = poor
    order(page, wallet, "browser-poor@example.org")
    ask_wallet(page, "Pay")
    expect(page.locator(STATE)).to_contain_text("Your wallet has 0.00 DML, and this costs 0.13 DML.")
    platform.chain.send(platform.chain.transfer_call(poor.address, 10**6), platform.admin)
    ask_wallet(page, "Pay")
    expect(page.locator(STATE)).to_contain_text("the network's fee is paid in the network's own coin")
    assert wallet.sent == []
    devchain.fund(platform.rpc_url, poor.address, 10**9)
    ask_wallet(page, "Pay")
    expect(page.locator(STATE)).to_contain_text("Sent as 0x")
    status(page, "paid", 300)


def test_another_account_is_followed_before_the_quote_and_refused_after_it(platform, page, wallet):
    first, second = wallet.key, Account.create()
    order(page, wallet, "browser-two-accounts@example.org")
    wallet.key = second
    ask_wallet(page, "Pay")
    expect(page.locator(STATE)).to_contain_text(f"This is for the wallet {first.address[:6]}")
    page.goto("/tickets/order/")
    ask_wallet(page, "Connect wallet")
    expect(page.get_by_label("Wallet that pays")).to_have_value(second.address)
    change = "accounts => window.dispatchEvent(new CustomEvent('test:accountsChanged', { detail: accounts }))"
    page.evaluate(change, [first.address])
    expect(page.get_by_label("Wallet that pays")).to_have_value(first.address)
    page.evaluate(change, [])
    expect(page.locator("#connect [data-wallet-state]")).to_contain_text("no longer connected")
    accessible(page)


def test_a_locked_wallet_is_pointed_at(page, wallet):
    register(page, "Customer", "browser-locked@example.org")
    page.goto("/tickets/order/")
    wallet.locked = True
    ask_wallet(page, "Connect wallet")
    expect(page.locator("#connect [data-wallet-state]")).to_contain_text("already shows a request")
    wallet.locked = False
    ask_wallet(page, "Connect wallet")
    expect(page.get_by_label("Wallet that pays")).to_have_value(wallet.key.address)


def test_a_browser_without_a_wallet_is_told_to_get_one(browser, platform):
    with context_of(browser, platform) as page:
        page.goto("/accounts/login/")
        page.route("**/devwallet.js", lambda route: route.abort())
        page.reload()
        page.get_by_role("button", name="Log in with a wallet").click()
        expect(page.locator("#login-wallet [data-wallet-state]")).to_contain_text("No wallet found.")
