"""Prices and splits: exact, to the unit."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger import money


def test_the_source_example():
    """Paid 0.13 DML; accuracies 0.75, 0.55, 0.55, 0.95: shares that read 0.03, 0.02, 0.02, 0.04 in two places."""
    paid = 130_000
    parts, fee = money.shares(paid, {"a": 75, "b": 55, "c": 55, "d": 95})
    assert [parts[name] // money.CENT for name in "abcd"] == [3, 2, 2, 4]
    assert parts == {"a": 34_125, "b": 25_025, "c": 25_025, "d": 43_225}
    assert fee == 2_600
    assert sum(parts.values()) + fee == paid


@pytest.mark.parametrize(
    ("size", "price"),
    [(1, 10_000), (100_000, 10_000), (100_001, 20_000), (10_000_000, 1_000_000), (1_290_000, 130_000)],
)
def test_price_is_1_dml_per_10_mb_rounded_up_to_a_cent(size, price):
    assert money.price(size) == price


def test_an_empty_file_has_no_price():
    with pytest.raises(ValueError, match="empty"):
        money.price(0)


weights = st.dictionaries(st.text(min_size=1, max_size=5), st.integers(0, 10**6), min_size=1, max_size=20)


@given(st.integers(1, 10**15), weights)
def test_shares_and_fee_add_up_to_the_price(amount, given_weights):
    parts, fee = money.shares(amount, given_weights)
    assert sum(parts.values()) + fee == amount
    assert min(parts.values()) >= 0


@given(st.integers(1, 10**15), weights)
def test_the_split_is_fair_to_within_one_unit(amount, given_weights):
    total = sum(given_weights.values())
    for key, part in money.split(amount, given_weights).items():
        if total:
            assert abs(part * total - amount * given_weights[key]) < total


@given(st.integers(0, 10**12), st.lists(st.text(min_size=1), unique=True, max_size=9))
def test_a_deposit_is_shared_equally_and_the_dust_goes_to_the_treasury(amount, honest):
    parts, rest = money.split_deposit(amount, honest)
    assert sum(parts.values()) + rest == amount
    assert len(set(parts.values())) <= 1


def test_no_weights_cannot_be_split_by():
    for bad in ({}, {"a": -1}):
        with pytest.raises(ValueError, match="weights"):
            money.split(10, bad)


@pytest.mark.parametrize(
    ("micro", "text"), [(0, "0.00"), (130_000, "0.13"), (1, "0.000001"), (2_500_000, "2.50"), (10**7, "10.00")]
)
def test_amounts_read_in_token_units(micro, text):
    assert money.dml(micro) == text


def test_coin_reads_in_coins():
    assert money.coin(1_000_000) == "0.001"
