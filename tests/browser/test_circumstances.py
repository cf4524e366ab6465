"""The same pages under other circumstances: somebody else, two tabs, the back button, a slow network, no JavaScript."""

import re

from playwright.sync_api import expect

from tests.browser.conftest import context_of
from tests.browser.steps import (
    PASSWORD,
    SECONDS,
    accessible,
    ask_wallet,
    log_in,
    order,
    quote,
    register,
    status,
    table,
)

SLOW = {"offline": False, "latency": 400, "downloadThroughput": 50_000, "uploadThroughput": 50_000}
"""Bytes a second; milliseconds: a bad mobile line."""


def test_an_outsider_finds_none_of_it(platform, browser, page, wallet):
    order(page, wallet, "browser-insider@example.org")
    path = page.url.removeprefix(platform.url)
    ticket = path.split("/")[2]
    ask_wallet(page, "Pay")
    status(page, "paid", 300)
    begins = {"Tus-Resumable": "1.0.0", "X-CSRFToken": csrf(page), "Upload-Length": "9"}
    part = page.request.post(f"{path}uploads/", headers=begins).headers["location"]
    assert page.request.head(part, headers=begins).status == 200
    with context_of(browser, platform) as other:
        register(other, "Customer", "browser-outsider@example.org")
        assert other.goto(path).status == 404
        accessible(other)
        for below in ("progress/", "try/x/"):
            assert other.request.get(path + below).status == 404
        assert other.goto(f"/tickets/order/?like={ticket}").status == 404
        tus = {"Tus-Resumable": "1.0.0", "X-CSRFToken": csrf(other)}
        for verb in ("HEAD", "PATCH", "DELETE"):
            assert other.request.fetch(part, method=verb, headers=tus).status == 404, verb
        for below in ("pay/", "upload/", "uploads/", "cancel/", "try/"):
            assert other.request.post(path + below, headers=tus).status == 404, below
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
        log_in(plain, email)
        plain.goto("/tickets/")
        plain.get_by_role("link", name="a.csv").click()
        expect(plain.locator("#status")).to_have_attribute("data-status", "quoted")
        # Chromium shows no <noscript> when it is only told to run no scripts: it is looked for in the source.
        assert "Without JavaScript this page does not follow at once" in plain.content()
        assert "This needs JavaScript: your wallet lives in the browser." in plain.content()
        plain.goto("/tickets/order/")
        assert "Ordering needs JavaScript" in plain.content()
        plain.goto("/accounts/")
        plain.get_by_role("link", name="Change your password").click()
        expect(plain.get_by_role("button", name="Save")).to_be_visible()


def test_without_javascript_a_file_is_uploaded_and_a_ticket_cancelled(platform, browser, page, wallet):
    email = "browser-plain-upload@example.org"
    unpaid = order(page, wallet, email).url
    paid = quote(page, wallet).url
    ask_wallet(page, "Pay")
    status(page, "paid", 300)
    with context_of(browser, platform, java_script_enabled=False) as plain:
        log_in(plain, email)
        plain.goto(paid)
        plain.set_input_files("#upload-file", table())
        plain.get_by_role("button", name="Upload").click()
        expect(plain.locator("#status")).to_have_attribute("data-status", re.compile("uploaded|training"))
        plain.goto(unpaid)
        plain.get_by_role("button", name="Cancel this ticket").click()
        expect(plain.get_by_text("The ticket was cancelled.")).to_be_visible()
        status(plain, "expired", 60)


def test_without_sockets_and_without_room_for_the_file_a_ticket_is_followed_and_the_file_dropped(
    platform, page, wallet
):
    page.route_web_socket("**/ws/**", lambda socket: socket.close())
    page.add_init_script("Object.defineProperty(window, 'indexedDB', { value: undefined })")
    order(page, wallet, "browser-no-sockets@example.org")
    ask_wallet(page, "Pay")
    status(page, "paid", 300)
    assert page.locator("#upload-file").evaluate("input => input.files.length") == 0
    text = table()["buffer"].decode()
    file = page.evaluate_handle(
        "text => { const it = new DataTransfer(); it.items.add(new File([text], 'a.csv')); return it; }", text
    )
    page.dispatch_event("#upload .drop", "dragover", {"dataTransfer": file})
    expect(page.locator("#upload .drop")).to_have_class("drop over")
    page.dispatch_event("#upload .drop", "drop", {"dataTransfer": file})
    expect(page.locator("#upload .drop")).to_have_class("drop")
    page.get_by_role("button", name="Upload").click()
    expect(page.locator("#status")).to_have_attribute("data-status", re.compile("uploaded|training"))


def test_who_logs_out_leaves_no_file_behind(platform, page, wallet):
    order(page, wallet, "browser-tidy@example.org")
    bases = "() => indexedDB.databases().then((found) => found.map((one) => one.name))"
    assert page.evaluate(bases) == ["dml-files"]
    page.get_by_role("button", name="Log out").click()
    page.get_by_role("link", name="Log in").wait_for()
    page.wait_for_function(f"({bases})().then((names) => names.length === 0)")


def csrf(page) -> str:
    return page.locator("meta[name=csrf]").get_attribute("content")


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


def test_what_a_reader_opened_and_where_the_focus_is_outlives_a_refresh(platform, page, wallet):
    order(page, wallet, "browser-reader@example.org")
    details = page.locator("#details")
    details.locator("summary").click()
    page.locator("#details dd").first.evaluate("element => { element.same = true; }")
    expect(page.get_by_role("status").filter(has_text="Waiting for payment.")).to_have_count(1)
    answers = list[int]()
    page.on("response", lambda answer: answers.append(answer.status) if "/progress/" in answer.url else None)
    page.wait_for_timeout(6 * SECONDS)
    assert answers and set(answers) == {204}, "nothing changed, so nothing is sent"
    expect(details).to_have_attribute("open", "")
    expect(details.locator("summary")).to_be_focused()

    second = page.context.new_page()
    second.goto(page.url)
    ask_wallet(second, "Pay")
    status(page, "paid", 300)
    assert 200 in answers
    expect(details).to_have_attribute("open", "")
    expect(details.locator("summary")).to_be_focused()
    assert page.locator("#details dd").first.evaluate("element => element.same"), "it is changed, not replaced"
    expect(page.get_by_role("status").filter(has_text="Paid, waiting for the file.")).to_have_count(1)

    second.once("dialog", lambda dialog: dialog.accept())
    second.get_by_role("button", name="Cancel this ticket").click()
    expect(page.locator("#said[data-over]")).to_have_count(1, timeout=300 * SECONDS)
    answers.clear()
    page.wait_for_timeout(8 * SECONDS)
    assert answers == [], "a ticket that is over is asked after no more"
    expect(details).to_have_attribute("open", "")


def test_the_keyboard_alone_can_order(platform, page, wallet):
    register(page, "Customer", "browser-keyboard@example.org")
    page.goto("/tickets/order/")
    reach(page, "file")
    with page.expect_file_chooser() as chooser:
        page.keyboard.press("Space")
    data = b"a,target\n" + b"1,x\n2,y\n" * 50
    chooser.value.set_files({"name": "keys.csv", "mimeType": "text/csv", "buffer": data})
    expect(page.locator("#facts")).to_be_visible()
    reach(page, "id_target")
    reach(page, "id_payer")
    page.keyboard.type(wallet.key.address)
    reach(page, "submit")
    page.keyboard.press("Enter")
    status(page, "quoted", 60)


def reach(page, wanted: str) -> None:
    """By tabs, forward."""
    for _ in range(60):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.id") == wanted:
            return
    raise AssertionError(f"no tab leads to {wanted}")
