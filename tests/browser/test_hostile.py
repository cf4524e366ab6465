"""Whatever somebody calls things: on every page that shows it, to everybody, it is text."""

import csv
import html
import io
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from eth_account import Account
from playwright.sync_api import Browser, Dialog, Page, expect

from contracts import devchain
from dmlsite.demo import COINS, PASSWORD, Person, wait
from tests.browser.conftest import context_of
from tests.browser.steps import SECONDS, log_in, register, status
from tests.conftest import Live

MARK = "h0stile"
"""In every text, and the class of every element that one might become."""
TEXTS = (
    f'<script class={MARK}>alert("{MARK}")</script>',
    f'"><img class={MARK} src=x onerror=alert(1)>',
    f"javascript:alert('{MARK}')",
    f"{{{{ 7777*7777 }}}}{{% {MARK} %}}${{7777*7777}}",
)
COMPUTED = str(7777 * 7777)
FILE = f"{TEXTS[1]}.csv"
CUSTOMER, ADMIN, PROVIDER = "hostile@example.org", "hostile-admin@example.org", "hostile@dml.example"


def table() -> bytes:
    """Its columns, target, categories and classes have such names."""
    text = io.StringIO()
    lines = csv.writer(text)
    lines.writerow(TEXTS)
    for n in range(160):
        lines.writerow([n % 13, n * 7 % 31, TEXTS[n % 3], TEXTS[n % 4]])
    return text.getvalue().encode()


def model() -> bytes:
    """A Keras model with a layer of such a name."""
    first = {"class_name": "InputLayer", "config": {"name": "rows", "batch_shape": [None, 4], "dtype": "float32"}}
    layers = [first, {"class_name": "Dense", "config": {"name": TEXTS[1], "units": 2}}]
    layers.append({"class_name": "Activation", "config": {"name": "end", "activation": "softmax"}})
    return json.dumps({"class_name": "Sequential", "config": {"name": "own", "layers": layers}}).encode()


def is_text(page: Page) -> None:
    """The page as it is now shows some of it, and nothing of it has become more than text."""
    assert MARK in page.evaluate("document.documentElement.outerHTML"), page.url
    assert page.locator(f".{MARK}, [href^='javascript:'], [src^='javascript:']").count() == 0, page.url
    assert COMPUTED not in page.content(), page.url


@contextmanager
def watched(page: Page) -> Iterator[None]:
    """A dialog fails the test; so does, by `context_of`, what the policy forbids."""
    dialogs = list[str]()

    def seen(dialog: Dialog) -> None:
        dialogs.append(dialog.message)
        dialog.dismiss()

    page.context.on("dialog", seen)
    yield
    assert dialogs == []


def provider(platform: Live) -> Person:
    """One with a deposit, and without a worker."""
    found = platform.person(PROVIDER, "provider", devchain.test_key(40))
    found.call("POST", "provider", json={"user_name": "hostile"})
    devchain.fund(platform.rpc_url, found.wallet.address, COINS)
    found.sign(found.call("POST", "provider/deposit", json={"wallet": found.wallet.address}))
    wait(lambda: found.call("GET", "provider")["standing"] == "active", 180, "the deposit to be final")
    return found


def key_named(page: Page, name: str) -> None:
    page.get_by_label("Name", exact=True).fill(name)
    page.get_by_role("button", name="Create API key").click()
    expect(page.locator("#key")).to_be_visible()


def ordered(page: Page, payer: str) -> None:
    """The file and a model on the order page, on which each is looked at, and a quote without the model."""
    page.goto("/tickets/order/")
    page.set_input_files("#file", {"name": FILE, "mimeType": "text/csv", "buffer": table()})
    expect(page.locator("#facts")).to_contain_text("4 classes")
    is_text(page)
    page.get_by_label("Target column").fill(TEXTS[3])
    page.get_by_text("A Keras model of your own").click()
    page.set_input_files("#id_model_file", {"name": f"{TEXTS[1]}.json", "mimeType": "x/y", "buffer": model()})
    expect(page.locator("#own-model")).to_contain_text(MARK, timeout=240 * SECONDS)
    is_text(page)
    page.set_input_files("#id_model_file", [])
    page.get_by_text("Advanced: model").click()
    page.get_by_label("Rounds", exact=True).fill("2")
    page.get_by_label("Wallet that pays").fill(payer)
    page.get_by_role("button", name="Get the quote").click()
    status(page, "quoted", 60)
    is_text(page)


def banned(admin: Page, reason: str) -> None:
    """By an admin, with a reason."""
    admin.goto("/admin/providers/provider/?q=hostile")
    admin.locator("#result_list tbody a").first.click()
    admin.get_by_role("button", name="Ban…").click()
    admin.get_by_label("Reason").fill(reason)
    admin.get_by_role("button", name="Ban", exact=True).click()


def desk(admin: Page) -> list[str]:
    """The admin's lists, and of each the first pages, that show some of it."""
    admin.goto("/admin/")
    lists = {path for path in links(admin.content()) if re.fullmatch(r"/admin/\w+/\w+/", path)}
    shown = []
    for path in sorted(lists):
        found = admin.request.get(path).text()
        rows = [one for one in links(found) if one.startswith(path) and one.endswith("/change/")][:3]
        shown += [one for one in (path, *rows) if MARK in admin.request.get(one).text()]
    return shown


def links(page: str) -> list[str]:
    return list(dict.fromkeys(html.unescape(path) for path in re.findall(r'href="([^"#]+)"', page)))


def walked(browser: Browser, platform: Live, ticket: str) -> None:
    """An admin looks at everything."""
    with context_of(browser, platform) as admin, watched(admin):
        log_in(admin, ADMIN, PASSWORD)
        for path in (*desk(admin), f"/tickets/{ticket}/"):
            admin.goto(path)
            is_text(admin)


@pytest.fixture(scope="module")
def office(platform) -> None:
    platform.admin_account(ADMIN, PASSWORD)


def test_what_a_customer_calls_things_is_text_to_both(platform, browser, office):
    with context_of(browser, platform) as page, watched(page):
        register(page, "Customer", CUSTOMER)
        page.goto("/accounts/")
        key_named(page, TEXTS[1])
        is_text(page)
        ordered(page, Account.create().address)
        ticket = page.url.rstrip("/").rpartition("/")[2]
        for path in ("/tickets/", f"/tickets/order/?like={ticket}"):
            page.goto(path)
            is_text(page)
    walked(browser, platform, ticket)


def test_what_a_model_tells_is_text_to_all(platform, browser, office):
    platform.workers(4)
    customer = platform.person(f"trained-{CUSTOMER}", "customer", Account.create())
    ticket = platform.order(customer, FILE, table(), rounds=2)["id"]
    wait(lambda: platform.status(customer, {"id": ticket}) == "settled", 900, "the training")
    with context_of(browser, platform) as page, watched(page):
        log_in(page, customer.email, PASSWORD)
        page.goto(f"/tickets/{ticket}/")
        is_text(page)
        page.get_by_role("button", name="Ask the model").click()
        expect(page.locator("#answer tbody tr")).to_have_count(4, timeout=120 * SECONDS)
        is_text(page)
        page.goto("/dev/mail/")
        is_text(page)
    walked(browser, platform, ticket)


def test_what_an_admin_and_an_accused_say_is_text_to_both(platform, browser, office):
    provider(platform)
    with context_of(browser, platform) as admin, context_of(browser, platform) as page, watched(admin), watched(page):
        log_in(page, PROVIDER, PASSWORD)
        page.goto("/provider/")
        key_named(page, TEXTS[0])
        is_text(page)
        log_in(admin, ADMIN, PASSWORD)
        banned(admin, "".join(TEXTS))
        page.goto("/provider/")
        page.get_by_label("Your answer").fill("\n".join(TEXTS))
        page.get_by_role("button", name="Answer").click()
        expect(page.get_by_text("Your answer is with the case now.")).to_be_visible()
        is_text(page)
        for path in desk(admin):
            admin.goto(path)
            is_text(admin)
