"""Two people and a real browser: a customer from registration to the model, a provider from registration to the key.

The wallet is injected as an extension would do it (EIP-6963, EIP-1193) and signs with a test key. It proves our pages and
our server; that MetaMask itself gets on with them is a manual check (docs/).
"""

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from eth_account import Account
from playwright.sync_api import Browser, Page, expect, sync_playwright

from contracts.chain import GWEI, Call, ChainError, Key
from dmlworker.datasets import samples
from tests.conftest import Live

CHROMIUM = "/usr/bin/chromium"
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
expect.set_options(timeout=60_000)  # a slow machine is no failure
PASSWORD = "battery-staple-9"
SECONDS = 1000

WALLET = """
(() => {
  const provider = {
    async request({ method, params = [] }) {
      const { result, error } = await window.testWallet(method, params);
      if (error) throw Object.assign(new Error(error.message), { code: error.code });
      return result;
    },
    on() {}, removeListener() {},
  };
  const icon = "data:image/svg+xml,<svg xmlns='http://www.w3.org/2000/svg'/>";
  const info = { uuid: "11111111-2222-4333-8444-555555555555", name: "Test wallet", icon, rdns: "org.example.test" };
  const detail = Object.freeze({ info, provider });
  const announce = () => window.dispatchEvent(new CustomEvent("eip6963:announceProvider", { detail }));
  window.addEventListener("eip6963:requestProvider", announce);
  announce();
})();
"""


class Wallet:
    """A wallet with one key. `refuse` makes its owner decline the next transaction; `chain_id` is where it starts, and
    where it stays while `stuck`."""

    def __init__(self, platform: Live) -> None:
        self.key: Key = Account.create()
        self.chain, self.refuse, self.chain_id, self.sent = platform.chain, False, 1, list[str]()
        self.stuck = False

    def __call__(self, method: str, params: list[Any]) -> dict[str, Any]:
        answers: dict[str, Callable[[], Any]] = {
            "eth_requestAccounts": lambda: [self.key.address],
            "eth_chainId": lambda: hex(self.chain_id),
            "wallet_switchEthereumChain": lambda: self._switch(int(params[0]["chainId"], 16)),
            "eth_sendTransaction": lambda: self._send(params[0]),
        }
        if method == "eth_sendTransaction" and self.refuse:
            self.refuse = False
            return {"error": {"code": 4001, "message": "User rejected the request."}}
        try:
            return {"result": answers[method]()}
        except (ChainError, KeyError) as error:
            return {"error": {"code": -32603, "message": str(error)}}

    def _switch(self, chain_id: int) -> None:
        self.chain_id = self.chain_id if self.stuck else chain_id

    def _send(self, tx: dict[str, str]) -> str:
        assert tx["from"] == self.key.address
        call = Call(tx["to"], tx["data"], int(tx["value"], 16) // GWEI)
        signed = self.chain.sign(call, self.key, self.chain.next_nonce(self.key.address))
        self.sent.append(self.chain.broadcast(signed.raw))
        return self.sent[-1]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    if not Path(CHROMIUM).exists():
        pytest.skip("Chromium is not installed: apt-get install chromium")
    with sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield found
        found.close()


@pytest.fixture
def wallet(platform: Live) -> Wallet:
    found = Wallet(platform)
    platform.fund(found.key.address)
    return found


@pytest.fixture
def page(browser: Browser, platform: Live, wallet: Wallet) -> Iterator[Page]:
    """A page in a browser of its own, the wallet injected. Any error in our JavaScript fails the test."""
    context = browser.new_context(base_url=platform.url, accept_downloads=True)
    context.expose_function("testWallet", wallet)
    context.add_init_script(WALLET)
    found, errors = context.new_page(), list[str]()
    found.on("pageerror", lambda error: errors.append(str(error)))
    yield found
    context.close()
    assert errors == []


def register(page: Page, kind: str, email: str) -> None:
    page.goto("/accounts/register/")
    page.get_by_label(kind).check()
    page.get_by_label("E-mail").fill(email)
    page.get_by_label("Password", exact=True).fill(PASSWORD)
    page.get_by_role("button", name="Show password").first.click()
    expect(page.get_by_label("Password", exact=True)).to_have_attribute("type", "text")
    page.get_by_label("Confirm password").fill(PASSWORD)
    page.get_by_role("button", name="Register").click()


def use_test_wallet(page: Page) -> None:
    """The development wallet is announced too: choose ours among the two."""
    page.get_by_label("Test wallet").first.check()


def status(page: Page, wanted: str, seconds: int) -> None:
    expect(page.locator("#status")).to_have_attribute("data-status", wanted, timeout=seconds * SECONDS)


def test_a_customer_registers_orders_pays_uploads_follows_and_downloads(platform, page, wallet, tmp_path):
    platform.workers(4)
    good, bad = tmp_path / "cells.csv", tmp_path / "bad.csv"
    good.write_bytes(samples.breast_cancer_csv())
    bad.write_text("a,b,target\n" + "1,two,x\n3,four,y\n" * 20)

    register(page, "Customer", "browser-customer@example.org")
    page.get_by_role("link", name="Order a model").click()
    page.set_input_files("#file", bad)
    expect(page.locator("#checked")).to_contain_text("has text in line 2")
    expect(page.get_by_role("button", name="Get the quote")).to_be_disabled()
    page.set_input_files("#file", good)
    expect(page.locator("#price")).to_have_text("0.02 DML")
    expect(page.locator("#facts")).to_contain_text("569 samples")
    use_test_wallet(page)
    page.get_by_role("button", name="Connect wallet").click()
    expect(page.get_by_label("Wallet that pays")).to_have_value(wallet.key.address)
    page.get_by_role("button", name="Get the quote").click()

    status(page, "quoted", 10)
    expect(page.locator("#upload-file")).to_have_count(0)
    use_test_wallet(page)
    wallet.stuck = True
    page.get_by_role("button", name="Pay").click()
    expect(page.locator("#pay [data-wallet-state]")).to_contain_text("Your wallet is on another network")
    wallet.stuck, wallet.refuse = False, True
    page.get_by_role("button", name="Pay").click()
    expect(page.locator("#pay [data-wallet-state]")).to_contain_text("You declined in your wallet")
    page.get_by_role("button", name="Pay").click()
    under_way = re.compile("Waiting until the chain|Your payment is in block|Now upload the file")
    expect(page.locator("#live")).to_contain_text(under_way, timeout=120 * SECONDS)
    assert wallet.chain_id == platform.chain.deployment.chain_id
    status(page, "paid", 180)
    assert len(wallet.sent) == 1

    page.set_input_files("#upload-file", good)
    page.get_by_role("button", name="Upload").click()
    status(page, "training", 240)
    expect(page.get_by_text("Who trains, round")).to_be_visible(timeout=120 * SECONDS)
    status(page, "settled", 600)
    expect(page.get_by_text("Your model is ready")).to_be_visible()
    with page.expect_download() as download:
        page.get_by_role("link", name="model.keras").click()
    model = tmp_path / "model.keras"
    download.value.save_as(model)
    assert model.read_bytes()[:2] == b"PK"


def test_a_provider_registers_joins_deposits_and_gets_a_key(platform, page, wallet):
    register(page, "Provider", "browser-provider@example.org")
    page.get_by_label("User name").press_sequentially("no")
    expect(page.locator("#name-state")).to_contain_text("3 to 30 letters")
    page.get_by_label("User name").press_sequentially("de-in-a-browser")
    expect(page.locator("#name-state")).to_contain_text("node-in-a-browser is free.")
    page.get_by_role("button", name="Join").click()

    expect(page.locator("#standing")).to_have_text("waiting for the deposit")
    use_test_wallet(page)
    page.get_by_role("button", name="Pay the deposit").click()
    expect(page.locator("#standing")).to_have_text("active", timeout=180 * SECONDS)
    assert platform.chain.provider_standing(wallet.key.address).name == "Active"

    page.get_by_role("button", name="Create API key").click()
    key = page.locator("#key").inner_text().strip()
    assert key.startswith("dml_")
    expect(page.locator("#command")).to_have_text(f"python -m dmlworker --server {platform.url} --key {key}")
    page.goto("/provider/")
    expect(page.locator("body")).not_to_contain_text(key)
    page.goto("/tickets/order/")
    expect(page.get_by_role("heading", name="Order a model")).to_be_visible()
