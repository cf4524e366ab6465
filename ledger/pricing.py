"""How a price is made: schemes, each under a name with its version. Pure integers; amounts in micro-DML.

A ticket keeps the name and the rate that it was quoted with, and a version that was ever used is never changed: another formula is
another version (tests pin the numbers). What is signed is the price alone.
"""

from collections.abc import Callable
from dataclasses import dataclass

from ledger import money

DEFAULT = "size-1"
FLOPS_PER_CENT = 15 * 10**8
"""The published rate, unless a site sets its own. Ten rounds of the usual small network (784-200-200-10) on MNIST's 60,000 images are
7.2 x 10^11 operations; the images have 47 MB, so that size costs 4.71 DML and complexity 4.80: the two parts are alike."""


@dataclass(frozen=True)
class Order:
    """What is priced. size: of the file, bytes. flops: floating-point operations of training on one sample, forward and backward.
    samples: in the file. rate: operations for 0.01 DML."""

    size: int
    flops: int = 0
    samples: int = 0
    rounds: int = 0
    epochs: int = 0
    rate: int = FLOPS_PER_CENT

    @property
    def operations(self) -> int:
        return self.flops * self.samples * self.rounds * self.epochs


@dataclass(frozen=True)
class Part:
    """Of a price. says: how it comes about, in words."""

    name: str
    amount: int
    says: str


@dataclass(frozen=True)
class Scheme:
    """The price is the sum of the parts. `computes`: whether samples and model have to be known before it is quoted."""

    name: str
    title: str
    says: str
    parts: Callable[[Order], list[Part]]
    computes: bool = False


def price(name: str, order: Order) -> int:
    """By the scheme of this name. Raises ValueError for an empty file, or for less than nothing."""
    return sum(part.amount for part in SCHEMES[name].parts(order))


def _size(order: Order) -> Part:
    says = f"{order.size:,} bytes, at 1 DML per {100 * money.BYTES_PER_CENT:,}, rounded up to 0.01 DML"
    return Part("Size", money.price(order.size), says)


def _complexity(order: Order) -> Part:
    if min(order.flops, order.samples, order.rounds, order.epochs, order.rate - 1) < 0:
        raise ValueError("nothing is computed less than never")
    factors = f"{order.flops:,} operations for a sample × {order.samples:,} samples × {order.rounds} rounds × {order.epochs} local epochs"
    says = f"{factors} = {order.operations:,}, at 1 DML per {100 * order.rate:,}, rounded up to 0.01 DML"
    return Part("Complexity", -(-order.operations // order.rate) * money.CENT, says)


SCHEMES = {
    scheme.name: scheme
    for scheme in (
        Scheme("size-1", "By size", "1 DML for 10 MB, whatever is computed.", lambda order: [_size(order)]),
        Scheme(
            "compute-1",
            "By size and complexity",
            "1 DML for 10 MB, and what training computes: the model's operations × samples × rounds × local epochs. Providers get "
            "more for a larger model and more rounds.",
            lambda order: [_size(order), _complexity(order)],
            computes=True,
        ),
    )
}
OFFERED = ("size-1", "compute-1")
"""The newest version of each: what a customer may choose."""
