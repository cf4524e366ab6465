"""The receipt's form: one text for one receipt, a root that stands for every value in it, and what is no receipt."""

import hashlib
import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dmlworker import checks, merkle, receipt
from dmlworker.receipt import Audit, Chain, File, NotAReceipt, Receipt, Replay, Round, Shard, Training, Update, load
from ledger import money

WALLETS = ("0x" + "Aa" * 20, "0x" + "bB" * 20)


def sha(number: int) -> str:
    return f"{number:064x}"


def make() -> Receipt:
    """Two rounds of two shards; the second provider was audited in the first round."""
    replay = Replay(0, 1, sha(10), sha(51), 1e-7, 0.1, 1.0, True)
    audit = Audit(1, WALLETS[1], sha(21), sha(41), "drawn by chance", "passed", sha(50), True, (replay,))
    merit = {WALLETS[0]: 16, WALLETS[1]: 14}
    return Receipt(
        version=receipt.VERSION,
        ticket="6f9619ff-8b86-4d01-b42d-00cf4fc964ff",
        chain=Chain(31337, "0x" + "Cc" * 20),
        spec=sha(1),
        holdout=Shard(sha(2), 10),
        file=File("a.csv", 1000, sha(3), "kind"),
        shards=(Shard(sha(4), 6), Shard(sha(5), 5)),
        training=Training(1, 20, 0.1, "mean", 1, "fedavg", 0.01, "none", 7),
        price=10_000,
        fee=200,
        merit=merit,
        payouts=receipt.split(9_800, merit),
        rounds=(_round(1, sha(10), sha(11), (audit,)), _round(2, sha(11), sha(12), ())),
    )


def _round(number: int, start: str, end: str, audits: tuple[Audit, ...]) -> Round:
    updates = tuple(
        Update(shard, 12 - 2 * shard, WALLETS[shard], sha(20 + shard), sha(20 + shard), sha(40 + shard), 5, 8 - shard)
        for shard in range(2)
    )
    return Round(number, start, end, None, None, 0.5, 0.7, updates, audits)


def test_it_is_read_as_it_was_written() -> None:
    assert load(make().to_bytes()) == make()


def leaves(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The paths to all single values of a JSON text."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else None
    if items is None:
        return [path]
    return [found for key, each in items for found in leaves(each, (*path, key))]


def changed(value: Any) -> Any:
    if isinstance(value, bool):
        return not value
    if isinstance(value, str):
        return value[:-1] + ("0" if value[-1:] != "0" else "1")
    return 0.25 if value is None else value + 1


@pytest.mark.parametrize("path", leaves(json.loads(make().to_bytes())), ids=lambda path: ".".join(map(str, path)))
def test_a_change_of_any_value_changes_the_root_or_is_refused(path: tuple[Any, ...]) -> None:
    body = json.loads(make().to_bytes())
    place = body
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = changed(place[path[-1]])
    try:
        found = load(canonical(body))
    except NotAReceipt:
        return
    assert found.root != make().root


def canonical(body: Any) -> bytes:
    return json.dumps(body, sort_keys=True, separators=(",", ":")).encode()


def test_what_is_left_out_put_in_or_moved_changes_the_root() -> None:
    one = make()
    first, second = one.rounds
    others = [
        replace(one, rounds=(first,)),
        replace(one, rounds=(second, first)),
        replace(one, rounds=(replace(first, updates=first.updates[::-1]), second)),
        replace(one, rounds=(replace(first, updates=first.updates[:1]), second)),
        replace(one, rounds=(replace(first, audits=()), replace(second, audits=first.audits))),
        replace(one, merit={**one.merit, "0x" + "dd" * 20: 0}),
    ]
    assert len({one.root, *(other.root for other in others)}) == 1 + len(others)


def test_the_root_is_a_tree_over_the_head_and_a_tree_for_each_round() -> None:
    """Written out once by hand, for whoever checks it with another program."""
    body = json.loads(make().to_bytes())
    rounds = body.pop("rounds")
    nodes = []
    for round_ in rounds:
        updates, audits = round_.pop("updates"), round_.pop("audits")
        nodes.append(bytes.fromhex(merkle.root([canonical(each) for each in (round_, *updates, *audits)])))
    assert make().root == "0x" + merkle.root([canonical(body), *nodes])


GOLDEN = {
    1: (
        "32efa0488fa78f7e1ba590726c127d5866629e64a3b64c2290fde528fac812c1",
        "0xab9b2689dc59cde5cf2910ec01b7ea29adc68a2a7eedc52f35dc335442902a5d",
    ),
    2: (
        "6e11355db1268360260ba51642c7a9b0ac77da7538cdb3f0d94f902f39cdc0f3",
        "0xf50cd2526d32bdc8382ffbe9b68fe1ed60e25acb4abb149edafe164844f9767a",
    ),
    3: (
        "740d67d95dbcadf2b7ded2732985dc61a3013a300eaf1767a867c6255cc64cb0",
        "0xcc5f49bb9e3427a3a75a5d166f4330127ae9022bd899d51e3f80ed6a0050fe84",
    ),
    4: (
        "93041945b3972e18cf1b6e4f05199e7e0876b8eafa428f27e1d8abdc9990675d",
        "0x41b8b5fb09f505d601acdfe8b93f58f289e67142df097e35dbda25f66ff0bc87",
    ),
}
"""For each version, the SHA-256 of the text of `make()` and its root, which is on chains: never changed here."""


@pytest.mark.parametrize("version", GOLDEN)
def test_every_version_is_written_and_read_as_ever(version: int) -> None:
    one = replace(make(), version=version)
    text = one.to_bytes()
    assert (hashlib.sha256(text).hexdigest(), one.root) == GOLDEN[version]
    assert load(text) == one
    assert list(GOLDEN) == list(range(1, receipt.VERSION + 1))


def test_the_rate_of_a_round_follows_the_schedule_and_the_rounds_that_were_ordered() -> None:
    told = replace(make().training, schedule="step", ordered=4, clip=2.0)
    one = load(replace(make(), training=told).to_bytes())
    hypers = [one.hyper(round_, round_.updates[0]) for round_ in (*one.rounds, replace(one.rounds[1], number=3))]
    assert [(hyper.learning_rate, hyper.clip) for hyper in hypers] == [(0.1, 2.0), (0.1, 2.0), (0.05, 2.0)]


@pytest.mark.parametrize("version", [1, 2])
def test_earlier_versions_knew_one_rate_for_all_rounds(version: int) -> None:
    body = json.loads(replace(make(), version=version).to_bytes())
    assert not {"schedule", "ordered", "clip"} & body["training"].keys()
    one = load(canonical(body))
    assert {one.hyper(round_, update).learning_rate for round_ in one.rounds for update in round_.updates} == {0.1}


def test_before_version_4_all_was_plain_sgd() -> None:
    told = replace(make().training, optimizer="adam")
    one = load(replace(make(), training=told).to_bytes())
    assert one.hyper(one.rounds[0], one.rounds[0].updates[0]).optimizer == "adam"
    body = json.loads(replace(make(), version=3).to_bytes())
    assert "optimizer" not in body["training"]
    assert load(canonical(body)).hyper(one.rounds[0], one.rounds[0].updates[0]).optimizer == "sgd"


def test_version_1_knew_pay_by_accuracy_alone() -> None:
    body = json.loads(replace(make(), version=1).to_bytes())
    assert "reward" not in body and body["rounds"][0]["updates"][0].keys() == {
        "shard", "weight", "provider", "update", "weights", "trace", "checkpoint_every", "correct"
    }  # fmt: skip
    assert checks.payouts(load(canonical(body)))


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "no receipt"),
        (b"\xff", "no receipt"),
        (b"[]", "no receipt"),
        (b"[" * 100_000, "no receipt"),
        (b'{"ticket":"a","rounds":[]}', "no receipt"),
        (b'{"ticket":"a","version":5}', "version 5; this program reads versions 1 to 4"),
        (b'{"ticket":"a","version":0}', "version 0; this program reads"),
        (b'{"ticket":"a","version":true}', "version True; this program reads"),
        (b'{"ticket":"a","version":1}', "should have exactly the fields"),
        (b'{"ticket":"a","version":2}', "should have exactly the fields"),
        (make().to_bytes().replace(b'"version":4', b'"version":1'), "should have exactly the fields"),
        (make().to_bytes().replace(b'"version":4', b'"version":2'), "should have exactly the fields"),
        (replace(make(), version=1).to_bytes().replace(b'"version":1', b'"version":2'), "exactly the fields"),
        (make().to_bytes().replace(b'"price":10000', b'"price":true'), "receipt.price is True"),
        (make().to_bytes().replace(b'"price":10000', b'"price":NaN'), "receipt.price is nan"),
        (make().to_bytes().replace(b'"price":10000', b'"price":1,"price":10000'), "changed or written anew"),
        (make().to_bytes() + b"\n", "changed or written anew"),
    ],
)
def test_what_is_no_receipt_is_refused_and_told_why(data: bytes, said: str) -> None:
    with pytest.raises(NotAReceipt, match=said):
        load(data)


@given(st.integers(0, 10**12), st.dictionaries(st.text(min_size=1), st.integers(0, 10**9), min_size=1))
def test_the_payouts_are_split_as_the_platform_splits_them(amount: int, weights: dict[str, int]) -> None:
    assert receipt.split(amount, weights) == money.split(amount, weights)


def test_the_fee_is_the_platforms() -> None:
    assert receipt.FEE_PERCENT == money.FEE_PERCENT


def test_all_files_but_the_data_and_what_was_not_kept_are_named() -> None:
    one = make()
    assert {sha(n) for n in (1, 10, 11, 12, 20, 21, 50, 51)} == set(receipt.files(one))
    gone = replace(one.rounds[0].audits[0], kept=False)
    one = replace(one, rounds=(replace(one.rounds[0], audits=(gone,)), one.rounds[1]))
    assert sha(51) not in set(receipt.files(one))
