"""Damaged and hostile files, with anything said of them: read to the last shard, or refused with a DatasetError, and soon."""

import csv
import io
import json
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dmlworker import datasets
from dmlworker.datasets import DatasetError, Options, samples
from dmlworker.datasets.options import KINDS
from dmlworker.tests.test_datasets import idx, npz, picture, tarred, zipped
from dmlworker.tests.test_text import reviews

PASSENGERS = samples.passengers_csv(120)
IMAGES = {f"p/{n}.png": picture(n, (6, 5)) for n in range(20)}
LABELS = {"labels.csv": ("file,label\n" + "".join(f"{n}.png,{n % 2}\n" for n in range(20))).encode()}
X, Y = np.arange(80, dtype=np.float32).reshape(20, 4), np.arange(20) % 2
DIGITS = {"t-images-idx3-ubyte": idx(np.zeros((20, 4, 4), np.uint8)), "t-labels-idx1-ubyte": idx(Y.astype(np.uint8))}


def json_lines() -> bytes:
    rows = csv.DictReader(io.StringIO(PASSENGERS.decode()))
    return "\n".join(map(json.dumps, rows)).encode()


FILES: dict[str, tuple[str, bytes]] = {
    "passengers": ("t.csv", PASSENGERS),
    "text": ("t.tsv", reviews(60).encode()),
    "json lines": ("t.jsonl", json_lines()),
    "arrays": ("t.npz", npz(x=X, y=Y)),
    "images": ("t.zip", zipped(IMAGES | LABELS)),
    "images, stored": ("t.zip", zipped(IMAGES | LABELS, 0)),
    "images in a tar": ("t.tar", tarred(IMAGES | LABELS, "w")),
    "a packed tar": ("t.tgz", tarred(IMAGES | LABELS)),
    "digits": ("t.zip", zipped(DIGITS)),
}
COLUMNS = {
    "t.csv": ["name", "age", "deck/cabin", "paid", "boarded", "fare"],
    "t.jsonl": ["name", "age", "deck/cabin", "paid", "boarded", "fare"],
    "t.tsv": ["review"],
}


@st.composite
def said(draw: st.DrawFn, name: str) -> Options:
    """Something that may well be said of a file with that name; often nothing."""
    weights = draw(st.sampled_from(["none", "balanced"]))
    columns = st.sampled_from(COLUMNS.get(name, ["x"]))
    if name not in COLUMNS or draw(st.booleans()):
        return Options(class_weights=weights)
    if draw(st.booleans()):
        return Options(window=draw(st.integers(1, 4)), horizon=draw(st.integers(1, 3)), class_weights=weights)
    out, kinds = draw(st.lists(columns, max_size=2)), draw(st.dictionaries(columns, st.sampled_from(KINDS), max_size=2))
    group = draw(st.just("") | columns)
    sharding = draw(st.sampled_from(["iid", "group"])) if group else "iid"
    return Options(tuple(out), kinds, group, sharding=sharding, class_weights=weights)


ODD = st.binary(max_size=6) | st.sampled_from(
    [
        b"\0",
        b'"',
        b"\n",
        b",",
        b",,",
        b"nan",
        b"inf",
        b"-1e999",
        b"\xff\xfe",
        b"\xed\xa0\x80",
        b"9" * 400,
        b"\xe2\x80\xa8",
        b"PK\5\6",
        b"1\r",
    ]
)


@st.composite
def damaged(draw: st.DrawFn, data: bytes) -> bytes:
    """Some bytes replaced, put in, cut out, or moved."""
    found = bytearray(data)
    for _ in range(draw(st.integers(0, 3))):
        at = draw(st.integers(0, len(found)))
        end = min(len(found), at + draw(st.sampled_from([0, 1, 1, 4, 100])))
        piece = draw(ODD | st.just(bytes(found[at : at + 60])))
        found[at:end] = piece
    return bytes(found)


def used(path: Path, name: str, options: Options) -> None:
    """All that is done with a file."""
    datasets.inspect(path, name, None, options)
    found = datasets.parts(datasets.read(path, name, None, options), 1, options)
    for part in datasets.shards(found.train, 2, 1, options.sharding):
        datasets.load_weighted(datasets.dump(part.x, part.y, part.w))
    if found.encoder and not found.encoder.steps:
        np.testing.assert_array_equal(found.encoder.row(found.example[0]), found.holdout.x[0])


@pytest.mark.parametrize("what", FILES)
@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_damaged_files_are_used_or_refused(
    tmp_path_factory: pytest.TempPathFactory, what: str, data: st.DataObject
) -> None:
    name, content = FILES[what]
    path = tmp_path_factory.getbasetemp() / "damaged"
    path.write_bytes(data.draw(damaged(content)))
    with suppress(DatasetError):
        used(path, name, data.draw(said(name)))


@settings(deadline=None, max_examples=60)
@given(st.data())
def test_damaged_entries_of_an_archive_are_used_or_refused(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    name, entries = data.draw(
        st.sampled_from(
            [("labels.csv", IMAGES | LABELS), ("p/3.png", IMAGES | LABELS), *((each, DIGITS) for each in DIGITS)]
        )
    )
    path = tmp_path_factory.getbasetemp() / "damaged"
    path.write_bytes(zipped(entries | {name: data.draw(damaged(entries[name]))}))
    with suppress(DatasetError):
        used(path, "t.zip", Options())


@settings(deadline=None, max_examples=100)
@given(said("t.csv"))
def test_whatever_is_said_of_a_good_file_is_done_or_refused(
    tmp_path_factory: pytest.TempPathFactory, options: Options
) -> None:
    path = tmp_path_factory.getbasetemp() / "good"
    path.write_bytes(PASSENGERS)
    with suppress(DatasetError):
        used(path, "t.csv", options)


@settings(max_examples=200)
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from([*vars(Options()), "a"]), inner),
    )
)
def test_options_are_read_or_refused(told: object) -> None:
    with suppress(DatasetError):
        options = Options.from_text(json.dumps(told))
        assert Options.from_text(options.text) == options


def blank_names() -> bytes:
    return zipped({f"a/{n}.csv": b"" for n in range(20_000)})


HOSTILE: dict[str, tuple[str, Callable[[], bytes], dict]] = {
    "thousands of tables of labels": ("t.zip", blank_names, {}),
    "a line of a million cells": ("t.csv", lambda: b"a," * 10**6 + b"y\n" + b"1," * 10**6 + b"x\n", {}),
    "a huge table of labels": ("t.zip", lambda: zipped(IMAGES | {"l.csv": b"a,b\n" * 3_000_000}), {}),
    "a cell of megabytes": ("t.csv", lambda: b'a,y\n"' + b"word " * 10**6 + b'",1\n', {}),
    "as many groups as rows": (
        "t.csv",
        lambda: b"g,a,y\n" + b"".join(b"%d,1,%d\n" % (n, n % 2) for n in range(50_000)),
        {"group": "g"},
    ),
    "the widest windows": (
        "t.csv",
        lambda: b"a,y\n" + b"".join(b"%d,%d\n" % (n, n % 2) for n in range(10_000)),
        {"window": 1000},
    ),
}


@pytest.mark.parametrize("what", HOSTILE)
def test_hostile_files_take_seconds(tmp_path: Path, what: str) -> None:
    name, content, said = HOSTILE[what]
    (tmp_path / "upload").write_bytes(content())
    start = time.process_time()
    with suppress(DatasetError):
        used(tmp_path / "upload", name, Options(**said))
    assert time.process_time() - start < 20
