"""Prices by scheme: pinned, exact, never below the price by size."""

from dataclasses import fields, replace
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger import money, pricing
from ledger.pricing import Order

count = st.integers(0, 10**12)
orders = st.builds(Order, st.integers(1, 10**12), count, count, count, count, st.integers(1, 10**12))

MNIST = Order(60_000 * 784, flops=3 * 399_988, samples=60_000, rounds=10, epochs=1)
GOLDEN = {
    "size-1": [(Order(1), 10_000), (Order(1_290_000), 130_000), (Order(100_001, 10**9, 10, 10, 10), 20_000)],
    "compute-1": [
        (Order(1), 10_000),
        (Order(1, 1, 1, 1, 1), 20_000),
        (Order(100_000, 15 * 10**8, 1, 1, 1), 20_000),
        (Order(100_000, 15 * 10**8 + 1, 1, 1, 1), 30_000),
        (Order(100_001, 100, 569, 10, 2, rate=1000), 11_400_000),
        (MNIST, 4_710_000 + 4_800_000),
    ],
}


@pytest.mark.parametrize(("name", "order", "price"), [(name, *row) for name, rows in GOLDEN.items() for row in rows])
def test_a_version_never_changes(name, order, price):
    assert pricing.price(name, order) == price


def test_for_the_small_network_on_mnist_both_parts_are_alike():
    size, complexity = (part.amount for part in pricing.SCHEMES["compute-1"].parts(MNIST))
    assert Fraction(9, 10) < Fraction(size, complexity) < Fraction(11, 10)


@given(orders)
def test_no_price_is_below_the_price_by_size(order):
    assert pricing.price("size-1", order) == money.price(order.size) > 0
    assert pricing.price("compute-1", order) >= money.price(order.size)


@given(orders)
def test_what_is_computed_costs_its_rate_and_less_than_a_cent_more(order):
    paid = pricing.price("compute-1", order) - money.price(order.size)
    exact = Fraction(order.operations * money.CENT, order.rate)
    assert exact <= paid < exact + money.CENT and paid % money.CENT == 0


@given(orders, st.sampled_from([field.name for field in fields(Order)][:-1]), st.integers(1, 10**6))
def test_more_of_anything_is_never_cheaper(order, name, more):
    larger = replace(order, **{name: getattr(order, name) + more})
    for scheme in pricing.SCHEMES:
        assert pricing.price(scheme, larger) >= pricing.price(scheme, order)
        assert pricing.price(scheme, replace(order, rate=order.rate + more)) <= pricing.price(scheme, order)


@given(orders)
def test_the_parts_add_up_and_say_what_they_are_made_of(order):
    for name, scheme in pricing.SCHEMES.items():
        assert sum(part.amount for part in scheme.parts(order)) == pricing.price(name, order)
    says = pricing.SCHEMES["compute-1"].parts(order)[1].says
    assert all(f"{number:,}" in says for number in (order.flops, order.samples, order.operations, 100 * order.rate))


@pytest.mark.parametrize("name", ["flops", "samples", "rounds", "epochs", "rate", "size"])
def test_there_is_no_price_for_less_than_nothing(name):
    with pytest.raises(ValueError):
        pricing.price("compute-1", replace(Order(1, 1, 1, 1, 1), **{name: -1}))


def test_the_newest_version_of_each_is_offered():
    newest = {name.rpartition("-")[0]: name for name in sorted(pricing.SCHEMES)}
    assert set(pricing.OFFERED) == set(newest.values())
    assert pricing.DEFAULT in pricing.OFFERED
