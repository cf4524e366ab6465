"""A real browser, a wallet in it, and a page."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Page, sync_playwright

from tests.browser.wallet import SCRIPT, Wallet
from tests.conftest import Live

POLICY = "Content Security Policy"
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


def _forbidden(said: ConsoleMessage) -> bool:
    """Something on the page was against the policy. What tests run there themselves, axe-core above all, has no address."""
    return POLICY in said.text and bool(said.location["url"])


@contextmanager
def context_of(browser: Browser, platform: Live, **options: Any) -> Iterator[Page]:
    """A page in a browser of its own. Any error in our JavaScript, and whatever the policy forbids, fails the test."""
    context = browser.new_context(base_url=platform.url, accept_downloads=True, **options)
    found, errors = context.new_page(), list[str]()
    found.on("pageerror", lambda error: errors.append(str(error)))
    context.on("console", lambda said: errors.append(said.text) if _forbidden(said) else None)
    yield found
    context.close()
    assert errors == []


@pytest.fixture
def page(browser: Browser, platform: Live, wallet: Wallet) -> Iterator[Page]:
    """The same, with the wallet injected."""
    with context_of(browser, platform) as found:
        found.context.expose_function("testWallet", wallet)
        found.context.add_init_script(SCRIPT)
        yield found
