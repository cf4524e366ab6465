"""A customer and a real browser, from registration to the model.

The wallet proves our pages and our server; that MetaMask itself gets on with them is a manual check (docs/).
"""

import json
import re

from playwright.sync_api import expect

from dmlsite.demo import wait
from dmlworker.datasets import samples
from tests.browser.steps import SECONDS, accessible, ask_wallet, light, register, status

KEPT = """() => new Promise((done) => {
  const opening = indexedDB.open("dml-files");
  opening.onsuccess = () => {
    const keys = opening.result.transaction("files").objectStore("files").getAllKeys();
    keys.onsuccess = () => { opening.result.close(); done(keys.result); };
  };
})"""
"""The keys of the files that the browser keeps."""
OWN = {
    "class_name": "Sequential",
    "config": {
        "name": "own",
        "layers": [
            {"module": "keras.layers", "class_name": name, "config": config, "registered_name": None}
            for name, config in (
                ("InputLayer", {"name": "rows", "batch_shape": [None, 4], "dtype": "float32"}),
                ("Dense", {"name": "one", "units": 4, "activation": "relu"}),
                ("Dense", {"name": "two", "units": 2, "activation": "softmax"}),
            )
        ],
    },
}
"""3 x (8 + 40 + 20) operations for a sample: in front of it the platform puts what makes numbers of one size."""


def test_a_customer_registers_orders_pays_uploads_follows_and_downloads(platform, page, wallet, tmp_path):
    platform.workers(4)
    good, bad = tmp_path / "cells.csv", tmp_path / "bad.csv"
    good.write_bytes(samples.breast_cancer_csv())
    bad.write_text("a,b,target\n" + "1,2,x\n" * 40)

    register(page, "Customer", "browser-customer@example.org")
    page.get_by_role("link", name="Order a model").click()
    accessible(page)
    page.set_input_files("#file", bad)
    expect(page.locator("#checked")).to_contain_text("All samples are of one class")
    expect(page.get_by_role("button", name="Get the quote")).to_be_disabled()
    page.set_input_files("#file", good)
    expect(page.locator("#price .big")).to_have_text("0.02 DML")
    expect(page.locator("#price")).to_contain_text("0.0196 DML")
    expect(page.locator("#facts")).to_contain_text("569 samples")
    ask_wallet(page, "Connect wallet")
    expect(page.get_by_label("Wallet that pays")).to_have_value(wallet.key.address)
    page.get_by_role("button", name="Get the quote").click()

    status(page, "quoted", 10)
    expect(page.locator("#state .breakdown")).to_contain_text("0.0196 DML")
    expect(page.locator("#upload-file")).to_have_count(0)
    wallet.stuck = True
    ask_wallet(page, "Pay")
    expect(page.locator("#pay [data-wallet-state]")).to_contain_text("Your wallet is on another network")
    wallet.stuck, wallet.refuse = False, True
    ask_wallet(page, "Pay")
    expect(page.locator("#pay [data-wallet-state]")).to_contain_text("You declined in your wallet")
    ask_wallet(page, "Pay")
    under_way = re.compile("Waiting until the chain|Your payment is in block|Now upload the file")
    expect(page.locator("#live")).to_contain_text(under_way, timeout=120 * SECONDS)
    assert wallet.chain_id == platform.chain.deployment.chain_id
    status(page, "paid", 180)
    assert len(wallet.sent) == 1

    for _ in range(2):
        expect(page.get_by_text("cells.csv is still here: press Upload")).to_be_visible()
        page.reload()
    accessible(page)
    page.get_by_role("button", name="Upload").click()
    status(page, "training", 240)
    expect(page.get_by_text("Who trains, round")).to_be_visible(timeout=120 * SECONDS)
    accessible(page)
    status(page, "settled", 600)
    expect(page.get_by_text("Your model is ready")).to_be_visible()
    expect(page.locator(".matrix tbody tr")).to_have_count(2)
    expect(page.get_by_role("button", name="Ask the model")).to_be_enabled()
    page.evaluate("document.querySelector('#try button').click(); htmx.trigger('#live', 'refresh')")  # at once
    expect(page.locator("#answer tbody tr")).to_have_count(2, timeout=120 * SECONDS)
    accessible(page)
    with page.expect_download() as download:
        page.get_by_role("link", name="model.keras").click()
    model = tmp_path / "model.keras"
    download.value.save_as(model)
    assert model.read_bytes()[:2] == b"PK"


def test_the_price_follows_the_file_the_model_and_the_rounds(platform, page, wallet, tmp_path):
    good, other, words, own = (tmp_path / name for name in ("cells.csv", "passengers.csv", "words.csv", "model.json"))
    good.write_bytes(samples.breast_cancer_csv())
    own.write_text(json.dumps(OWN))
    other.write_bytes(samples.passengers_csv())
    register(page, "Customer", "browser-thrifty@example.org")
    page.get_by_role("link", name="Order a model").click()
    price = page.locator("#price .big")
    page.set_input_files("#file", good)
    expect(price).to_have_text("0.02 DML")
    expect(page.get_by_label("Samples")).to_be_hidden()

    page.get_by_label("How the price is made").select_option("By size and complexity")
    expect(page.get_by_label("Samples")).to_have_value("569")
    expect(page.get_by_label("Shape of a sample")).to_have_value("30")
    expect(price).to_have_text("0.04 DML")
    expect(page.locator("#price")).to_contain_text("280,992 operations for a sample × 569 samples × 10 rounds")
    accessible(page)
    page.get_by_text("Advanced: model").click()
    page.get_by_label("Rounds", exact=True).fill("100")
    expect(price).to_have_text("0.13 DML")
    page.get_by_label("Model", exact=True).select_option("Linear")
    expect(price).to_have_text("0.03 DML")
    page.get_by_label("Samples").fill("")
    expect(page.locator("#price")).to_contain_text("needs the number of samples")
    page.get_by_label("Samples").fill("1000000")
    expect(price).to_have_text("0.39 DML")

    words.write_text("review,liked\n" + "".join(f"the film was n{n % 9} in p{n},{'yn'[n % 2]}\n" for n in range(60)))
    page.set_input_files("#file", words)
    expect(page.get_by_label("Shape of a sample")).to_have_value("6")
    expect(page.get_by_label("Different words")).to_have_value("15")
    page.get_by_label("Model", exact=True).select_option("Small transformer (text and series)")
    expect(page.locator("#price")).to_contain_text("operations for a sample × 60 samples")
    page.set_input_files("#id_model_file", own)
    expect(page.locator("#own-model")).to_contain_text("204 operations for each", timeout=60 * SECONDS)
    expect(page.locator("#price")).to_contain_text("204 operations for a sample × 60 samples")
    page.set_input_files("#id_model_file", words)
    expect(page.locator("#price")).to_contain_text("has to know your own model first")
    expect(page.locator("#own-model")).to_contain_text("comes as model.json or as .keras")
    page.set_input_files("#id_model_file", [])
    page.get_by_label("Model", exact=True).select_option("Linear")

    page.set_input_files("#file", other)
    expect(page.get_by_label("Samples")).to_have_value("400")
    expect(page.get_by_label("Different words")).to_have_value("")
    ask_wallet(page, "Connect wallet")
    expect(page.get_by_label("Wallet that pays")).to_have_value(wallet.key.address)
    page.get_by_role("button", name="Get the quote").click()
    status(page, "quoted", 60)
    expect(page.locator("#state .breakdown")).to_contain_text("354 operations for a sample × 400 samples × 100 rounds")
    accessible(page)


def test_an_upload_is_paused_and_goes_on_after_a_reload(platform, page, wallet, tmp_path):
    data = tmp_path / "numbers.csv"
    long = "0" * 30_000  # 12 MB, and yet trained in a moment
    data.write_text("a,b,target\n" + "".join(f"{n}.{long},{n % 7},{n % 2}\n" for n in range(400)))
    register(page, "Customer", "browser-patient@example.org")
    page.get_by_role("link", name="Order a model").click()
    page.set_input_files("#file", data)
    ask_wallet(page, "Connect wallet")
    expect(page.get_by_label("Wallet that pays")).to_have_value(wallet.key.address)
    page.get_by_role("button", name="Get the quote").click()
    status(page, "quoted", 60)
    light(page, page.url)
    ask_wallet(page, "Pay")
    status(page, "paid", 300)

    line = page.context.new_cdp_session(page)
    slow = {"offline": False, "latency": 0, "downloadThroughput": -1, "uploadThroughput": 3 * 10**6}
    line.send("Network.emulateNetworkConditions", slow)
    page.set_input_files("#upload-file", data)
    page.get_by_role("button", name="Upload").click()
    ticket = page.url.rstrip("/").rpartition("/")[2]

    def here() -> int:
        [[offset]] = platform.query('select sum("offset") from tickets_partialupload where ticket_id = %s', ticket)
        return int(offset or 0)

    wait(lambda: here() > 0, 60, "the first part to be here")
    page.get_by_role("button", name="Pause").click()
    expect(page.get_by_text("Paused.")).to_be_visible()
    before = here()
    assert 0 < before < data.stat().st_size

    page.reload()
    expect(page.get_by_text("are here already")).to_be_visible()
    expect(page.get_by_text("numbers.csv is still here")).to_be_visible()
    expect(page.get_by_text("Choose the same file again")).to_have_count(0)
    with page.expect_request(lambda request: request.method == "PATCH") as first:
        page.get_by_role("button", name="Upload").click()
    assert int(first.value.headers["upload-offset"]) >= before
    expect(page.locator("#status")).not_to_have_attribute("data-status", "paid", timeout=120 * SECONDS)
    expect(page.locator("#live")).not_to_contain_text("still here")
    assert page.evaluate(KEPT) == [], "what was uploaded is kept no longer"
    [[size]] = platform.query("select size from tickets_dataset where ticket_id = %s", ticket)
    assert size == data.stat().st_size
