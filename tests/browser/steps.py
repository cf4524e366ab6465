"""What people do on the pages, and what holds for each page."""

from pathlib import Path

from playwright.sync_api import FilePayload, Page, expect

from tests.browser.wallet import Wallet

expect.set_options(timeout=60_000)  # a slow machine is no failure
AXE = Path(__file__).resolve().parent.parent.parent / "node_modules" / "axe-core" / "axe.min.js"
GRAVE = ("serious", "critical")
MOST_BYTES = 150_000
SHIFT = """() => new Promise((done) => {
  let shift = 0;
  const moved = [];
  new PerformanceObserver((list) => {
    for (const entry of list.getEntries()) {
      shift += entry.value;
      moved.push(...entry.sources.map(({ node }) => node?.outerHTML?.slice(0, 80) ?? node?.nodeName));
    }
  }).observe({ type: "layout-shift", buffered: true });
  setTimeout(() => done([shift, moved]), 300);
})"""
"""How much of the page moved, as a part of it, and what."""
PASSWORD = "battery-staple-9"
SECONDS = 1000


def accessible(page: Page) -> None:
    """axe-core finds nothing serious or critical on the page as it is now."""
    page.evaluate(AXE.read_text())
    told = page.evaluate("axe.run({ resultTypes: ['violations'] })")
    found = [
        (one["id"], [node["html"] for node in one["nodes"]]) for one in told["violations"] if one["impact"] in GRAVE
    ]
    assert not found, (page.url, found)


def light(page: Page, path: str) -> None:
    """The page comes in under 150 KB without a cache, and nothing on it jumps while it loads."""
    line, received = page.context.new_cdp_session(page), list[int]()
    line.send("Network.enable")
    line.send("Network.setCacheDisabled", {"cacheDisabled": True})
    line.on("Network.loadingFinished", lambda told: received.append(told["encodedDataLength"]))
    page.goto(path)
    page.wait_for_load_state("networkidle")
    assert 0 < sum(received) < MOST_BYTES, (path, received)
    shift, moved = page.evaluate(SHIFT)
    assert shift < 0.01, (path, moved)
    line.detach()


def register(page: Page, kind: str, email: str) -> None:
    page.goto("/accounts/register/")
    page.get_by_label(kind).check()
    page.get_by_label("E-mail").fill(email)
    page.get_by_label("Password", exact=True).fill(PASSWORD)
    page.get_by_role("button", name="Show password").first.click()
    expect(page.get_by_label("Password", exact=True)).to_have_attribute("type", "text")
    page.get_by_label("Confirm password").fill(PASSWORD)
    page.get_by_role("button", name="Register").click()


def ask_wallet(page: Page, button: str) -> None:
    """The development wallet is announced too: choose ours among the two. Before the page is loaded, its buttons do nothing yet."""
    page.wait_for_load_state()
    page.get_by_role("button", name=button, exact=True).click()
    page.get_by_role("button", name="Test wallet").click(timeout=60 * SECONDS)


def status(page: Page, wanted: str, seconds: int) -> None:
    expect(page.locator("#status")).to_have_attribute("data-status", wanted, timeout=seconds * SECONDS)


def log_in(page: Page, email: str, password: str = PASSWORD) -> None:
    page.goto("/accounts/login/")
    page.get_by_label("E-mail").fill(email)
    page.get_by_label("Password", exact=True).fill(password)
    page.get_by_role("button", name="Log in", exact=True).click()
    page.wait_for_url(lambda now: "login" not in now)


def table(size: int = 1_250_000) -> FilePayload:
    """A CSV of so many bytes."""
    data = b"a,target\n" + b"1,x\n2,y\n" * (size // 8 - 1)
    return {"name": "a.csv", "mimeType": "text/csv", "buffer": data}


def order(page: Page, wallet: Wallet, email: str) -> Page:
    """A new customer with a quote; the page is the ticket's."""
    register(page, "Customer", email)
    return quote(page, wallet)


def quote(page: Page, wallet: Wallet) -> Page:
    page.goto("/tickets/order/")
    page.set_input_files("#file", table())
    ask_wallet(page, "Connect wallet")
    expect(page.get_by_label("Wallet that pays")).to_have_value(wallet.key.address)
    page.get_by_role("button", name="Get the quote").click()
    status(page, "quoted", 60)
    return page
