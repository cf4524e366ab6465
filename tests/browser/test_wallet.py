"""The states of a wallet that the pages explain: none, locked, another account, too little DML, too few coins."""

from eth_account import Account
from playwright.sync_api import expect

from contracts import devchain
from tests.browser.conftest import context_of
from tests.browser.steps import accessible, ask_wallet, order, register, status
from tests.conftest import EXPLORER

STATE = "#pay [data-wallet-state]"


def test_a_wallet_without_dml_or_coins_is_told_what_it_lacks(platform, page, wallet):
    poor = Account.create()
    wallet.key = poor
    order(page, wallet, "browser-poor@example.org")
    ask_wallet(page, "Pay")
    expect(page.locator(STATE)).to_contain_text("Your wallet has 0.00 DML, and this costs 0.13 DML.")
    expect(page.locator(STATE)).to_contain_text("The development wallet of this site is given test DML.")
    platform.chain.send(platform.chain.transfer_call(poor.address, 10**6), platform.admin)
    ask_wallet(page, "Pay")
    expect(page.locator(STATE)).to_contain_text("the network's fee is paid in the network's own coin")
    assert wallet.sent == []
    devchain.fund(platform.rpc_url, poor.address, 10**9)
    ask_wallet(page, "Pay")
    status(page, "paid", 300)
    assert len(wallet.sent) == 1


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
        expect(page.get_by_role("link", name="https://metamask.io")).to_have_attribute("href", "https://metamask.io")
        accessible(page)


def test_a_wallet_that_does_not_know_the_chain_is_told_of_it(platform, page, wallet):
    order(page, wallet, "browser-new-chain@example.org")
    wallet.unknown = True
    ask_wallet(page, "Pay")
    status(page, "paid", 300)
    [chain] = wallet.added
    assert int(chain["chainId"], 16) == wallet.chain_id == platform.chain.deployment.chain_id
    assert chain["rpcUrls"] == [platform.rpc_url] and chain["blockExplorerUrls"] == [EXPLORER]
    assert chain["chainName"] and chain["nativeCurrency"]["decimals"] == 18


def test_what_was_sent_is_still_known_after_a_reload_and_links_to_the_explorer(platform, page, wallet):
    order(page, wallet, "browser-sent@example.org")
    wallet.holds = True
    ask_wallet(page, "Pay")
    expect(page.locator(STATE)).to_contain_text("Sent as 0x")
    for _ in range(2):
        link = page.locator(STATE).get_by_role("link")
        expect(link).to_have_attribute("href", f"{EXPLORER}/tx/{wallet.sent[0]}")
        expect(page.locator(STATE)).to_contain_text("Waiting until the chain has made it final")
        expect(page.get_by_role("button", name="Pay", exact=True)).to_be_hidden()
        expect(page.get_by_role("button", name="Pay again")).to_be_hidden()
        page.reload()
    page.get_by_text("It does not arrive?").click()
    expect(page.get_by_text("the contract refuses the second one")).to_be_visible()
    accessible(page)
    wallet.holds = False
    ask_wallet(page, "Pay again")
    status(page, "paid", 300)
    sent = f"{EXPLORER}/tx/{wallet.sent[1]}"
    expect(page.locator("#timeline").locator(f"a[href='{sent}']").first).to_be_visible()
    expect(page.locator("#details").locator(f"a[href='{sent}']")).to_have_count(1)


def told(page, event: str, what: object) -> None:
    """The wallet says that its account or its chain is another one now."""
    page.evaluate(
        "([event, detail]) => window.dispatchEvent(new CustomEvent(`test:${event}`, { detail }))", [event, what]
    )


def test_a_change_in_the_wallet_is_told_in_the_box_that_pays(platform, page, wallet):
    order(page, wallet, "browser-changes@example.org")
    wallet.refuse = True
    ask_wallet(page, "Pay")
    expect(page.locator(STATE)).to_contain_text("You declined")
    told(page, "accountsChanged", [Account.create().address])
    expect(page.locator(STATE)).to_contain_text(f"This is for the wallet {wallet.key.address[:6]}")
    told(page, "accountsChanged", [wallet.key.address])
    expect(page.locator(STATE)).to_contain_text(f"Your wallet shows {wallet.key.address[:6]}")
    told(page, "accountsChanged", [])
    expect(page.locator(STATE)).to_contain_text("no longer connected")
    told(page, "chainChanged", "0x1")
    expect(page.locator(STATE)).to_contain_text("on another network now")
    told(page, "chainChanged", hex(platform.chain.deployment.chain_id))
    expect(page.locator(STATE)).to_contain_text("on the right network")


def test_a_change_while_the_wallet_is_open_is_told_too(page, wallet):
    """The box of the deposit, which is for no account in particular."""
    register(page, "Provider", "browser-changing-provider@example.org")
    page.get_by_label("User name").fill("changing-mind")
    page.get_by_role("button", name="Join").click()
    state = page.locator("#deposit [data-wallet-state]")
    page.evaluate("() => { window.testWait = new Promise((done) => { window.testGo = done; }); }")
    ask_wallet(page, "Pay the deposit")
    expect(state).to_contain_text("Please confirm in your wallet")
    told(page, "chainChanged", hex(wallet.chain_id))
    told(page, "accountsChanged", [wallet.key.address])
    expect(state).to_contain_text("Please confirm in your wallet")
    told(page, "accountsChanged", [Account.create().address])
    expect(state).to_contain_text("Decline there, and start again.")
    told(page, "chainChanged", "0x1")
    expect(state).to_contain_text("on another network now")
    wallet.refuse = True
    page.evaluate("testGo()")
    expect(state).to_contain_text("You declined")
    told(page, "accountsChanged", [wallet.key.address])
    expect(state).to_contain_text(f"Your wallet shows {wallet.key.address[:6]}")
