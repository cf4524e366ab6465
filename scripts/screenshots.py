"""`make screenshots`: the main pages of a platform that has done its main job, at 1280 and 360 pixels, into docs/images/."""

import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from playwright.sync_api import Browser, Page, sync_playwright

from contracts import devchain
from contracts.chain import Chain, Deployment, connect
from contracts.keys import load_keystore
from dmlsite.demo import PASSWORD, Demo, wait
from dmlsite.supervisor import Platform
from dmlworker.datasets import samples

ROOT = Path(__file__).resolve().parent.parent
IMAGES = ROOT / "docs" / "images"
WIDTHS = (1280, 360)
CUSTOMER, ADMIN = "customer@dml.example", "admin@dml.example"
PROVIDERS = ("ada", "bob", "cleo", "dan")
CHROMIUM = "/usr/bin/chromium"
FILE = {"name": "cells.csv", "mimeType": "text/csv", "buffer": samples.breast_cancer_csv()}


def main() -> int:
    with tempfile.TemporaryDirectory(prefix="dml-screenshots-") as folder:
        settings = {"DJANGO_SUPERUSER_PASSWORD": PASSWORD, "LOGIN_RATE": "1000/m"}
        platform = Platform(Path(folder), devchain.free_port(), devchain.free_port(), say=print, settings=settings)
        try:
            platform.start()
            ticket = trained(platform)
            shoot(platform.url, ticket)
        finally:
            platform.stop()
    return 0


def trained(platform: Platform) -> str:
    """The id of a ticket that is settled."""
    platform.manage("createsuperuser", "--noinput", "--email", ADMIN)
    keys = platform.layout.var / "keys"
    admin = load_keystore(keys / "admin.json", (keys / "passphrase").read_text().strip())
    chain = Chain(connect(platform.rpc_url), Deployment.load(platform.layout.var / "deployment.json"))
    demo = Demo(platform, chain, admin, print)
    customer = demo.person(CUSTOMER, "customer", devchain.test_key(1))
    for number, name in enumerate(PROVIDERS):
        demo.provider(name, devchain.test_key(2 + number))
    ticket = demo.order(customer, FILE["name"], FILE["buffer"])
    wait(lambda: demo.status(customer, ticket) == "settled", 600, "the training")
    return str(ticket["id"])


def shoot(url: str, ticket: str) -> None:
    IMAGES.mkdir(exist_ok=True)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        for width in WIDTHS:
            for name, page in pages(browser, url, width, ticket):
                page.wait_for_timeout(500)  # what htmx asks for at once
                page.screenshot(path=IMAGES / f"{name}-{width}.png", full_page=True)
        browser.close()


def pages(browser: Browser, url: str, width: int, ticket: str) -> Iterator[tuple[str, Page]]:
    size = {"width": width, "height": 800}

    def visit(*paths: tuple[str, str], who: str = "") -> Iterator[tuple[str, Page]]:
        context = browser.new_context(base_url=url, viewport=size)
        page = context.new_page()
        if who:
            page.goto("/accounts/login/")
            page.get_by_label("E-mail").fill(who)
            page.get_by_label("Password", exact=True).fill(PASSWORD)
            page.get_by_role("button", name="Log in", exact=True).click()
            page.wait_for_url(lambda now: "login" not in now)
        for name, path in paths:
            page.goto(path)
            if name == "order":
                page.set_input_files("#file", FILE)
                page.get_by_text("569 samples").wait_for()
            yield name, page
        context.close()

    yield from visit(("start", "/"), ("public", "/providers/ada/"))
    yield from visit(("order", "/tickets/order/"), ("ticket", f"/tickets/{ticket}/"), who=CUSTOMER)
    yield from visit(("provider", "/provider/"), ("points", f"/provider/work/{ticket}/"), who="ada@dml.example")
    yield from visit(("admin", "/admin/"), ("deposit", "/admin/training/assignment/standing/"), who=ADMIN)


if __name__ == "__main__":
    sys.exit(main())
