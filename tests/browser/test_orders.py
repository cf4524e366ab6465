"""Orders that are not a plain table of classes, in a real browser, to the model that comes out: a model of one's own, several labels."""

import io
from pathlib import Path

import keras
import numpy as np
from playwright.sync_api import FilePayload, Page, expect

from dmlworker.datasets import samples
from tests.browser.steps import SECONDS, accessible, ask_wallet, register, status
from tests.browser.wallet import Wallet

READ = 240 * SECONDS
"""For a model to be read, in a process of its own, on a slow machine."""
LABELS = ("sea", "hill", "town")


def begun(page: Page, email: str) -> None:
    """A new customer on the order page."""
    register(page, "Customer", email)
    page.get_by_role("link", name="Order a model").click()


def rounds(page: Page, count: int) -> None:
    page.get_by_text("Advanced: model").click()
    page.get_by_label("Rounds", exact=True).fill(str(count))


def settled(page: Page, wallet: Wallet) -> None:
    """From the filled-in order to the result."""
    ask_wallet(page, "Connect wallet")
    expect(page.get_by_label("Wallet that pays")).to_have_value(wallet.key.address)
    page.get_by_role("button", name="Get the quote").click()
    status(page, "quoted", 60)
    ask_wallet(page, "Pay")
    status(page, "paid", 300)
    page.get_by_role("button", name="Upload").click()
    status(page, "settled", 900)


def downloaded(page: Page, name: str, folder: Path) -> Path:
    with page.expect_download() as found:
        page.get_by_role("link", name=name, exact=True).click()
    found.value.save_as(folder / name)
    return folder / name


def own(path: Path, *body: keras.layers.Layer) -> keras.Model:
    """A model that its owner has saved there with its weights, for the 30 columns of the cells."""
    model = keras.Sequential([keras.Input((30,)), *body, keras.layers.Dense(2, activation="softmax")])
    model.save(path)
    return model


def scenes(none: str) -> FilePayload:
    """400 rows of six numbers; each label depends on two of them. none: how it is written that a row has no label."""
    x = np.random.default_rng(1).normal(size=(400, 6)).round(3)
    text = io.StringIO("a,b,c,d,e,f,labels\n")
    text.seek(0, io.SEEK_END)
    for row, marks in zip(x, x[:, ::2] + x[:, 1::2] > [0, 0.5, 1.2], strict=True):
        there = [name for name, mark in zip(LABELS, marks, strict=True) if mark]
        text.write(",".join(map(str, row)) + f",{'|'.join(there) or none}\n")
    return {"name": "scenes.csv", "mimeType": "text/csv", "buffer": text.getvalue().encode()}


def test_a_model_of_ones_own_is_trained_on_from_its_weights(platform, page, wallet, tmp_path):
    platform.workers(4)
    data, wrong, right = tmp_path / "cells.csv", tmp_path / "first.keras", tmp_path / "mine.keras"
    data.write_bytes(samples.breast_cancer_csv())
    own(wrong, keras.layers.Dense(16), keras.layers.BatchNormalization())
    before = own(right, keras.layers.Dense(16, activation="relu"))
    begun(page, "browser-own-model@example.org")
    page.set_input_files("#file", data)
    expect(page.locator("#facts")).to_contain_text("569 samples")
    rounds(page, 2)
    page.get_by_text("A Keras model of your own").click()
    page.set_input_files("#id_model_file", wrong)
    expect(page.locator("#own-model")).to_contain_text("BatchNormalization keeps running statistics", timeout=READ)
    accessible(page)
    page.set_input_files("#id_model_file", right)
    facts = "530 parameters; 30 numbers go in for a sample, 2 come out"
    expect(page.locator("#own-model")).to_contain_text(facts, timeout=READ)
    expect(page.locator("#own-model")).to_contain_text("Training starts with its weights.")
    settled(page, wallet)

    page.locator("#details summary").click()
    expect(page.locator("#details")).to_contain_text("your own, mine.keras, 530 parameters, from its own weights on")
    expect(page.locator(".matrix tbody tr")).to_have_count(2)
    accessible(page)
    model = keras.saving.load_model(downloaded(page, "model.keras", tmp_path))
    pairs = list(zip(before.get_weights(), model.get_weights()[-4:], strict=True))
    assert all(a.shape == b.shape and not np.array_equal(a, b) for a, b in pairs)
    drawn = np.linalg.norm(keras.initializers.GlorotUniform(5)((30, 16)) - pairs[0][0])
    assert np.linalg.norm(pairs[0][1] - pairs[0][0]) < drawn / 2, "it began where its owner's was"


def test_several_labels_are_learnt_and_told(platform, page, wallet, tmp_path):
    platform.workers(4)
    begun(page, "browser-labels@example.org")
    page.set_input_files("#file", scenes(""))
    expect(page.locator("#checked")).to_contain_text("Where a row has none of several labels, write a mere | there.")
    expect(page.get_by_role("button", name="Get the quote")).to_be_disabled()
    accessible(page)
    page.set_input_files("#file", scenes("|"))
    expect(page.locator("#facts")).to_contain_text("any of 3 labels")
    rounds(page, 2)
    settled(page, wallet)

    expect(page.locator("#quality")).to_contain_text("All labels right")
    for name in LABELS:
        expect(page.locator("#quality").get_by_role("rowheader", name=name)).to_be_visible()
    page.get_by_role("button", name="Ask the model").click()
    expect(page.locator("#answer tbody tr")).to_have_count(3, timeout=120 * SECONDS)
    accessible(page)
    assert downloaded(page, "labels.txt", tmp_path).read_text().split() == sorted(LABELS)
