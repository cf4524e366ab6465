"""The receipt of a training: everything that went in and came out, so that anybody can compute it again. Standard library only.

The platform writes it (`receipt.json`) and `settle` puts its Merkle root on the chain, with the payment; `dmlworker verify`
checks it. Files are named by their SHA-256. The tree: a leaf for the head (all but the rounds) and a node for each round, which
is the root of a tree of its own: a leaf for its numbers, then one for each update, then one for each audit.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from types import NoneType
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from dmlworker import merkle, rewards, schedules
from dmlworker.protocol import Hyper, nesting, order_seed

NAME = "receipt.json"
VERSION = 4
"""What is written. Earlier versions are read as they were: without the fields of SINCE_2, SINCE_3, or SINCE_4."""
SINCE_2, SINCE_3, SINCE_4 = {"since": 2}, {"since": 3}, {"since": 4}
FEE_PERCENT = 2
"""Of the price, rounded down."""
_NESTING = 8
_Made = TypeVar("_Made")


class NotAReceipt(ValueError):
    """Bytes that are no receipt, or not one that this version can read. The text says why."""


@dataclass(frozen=True)
class Chain:
    """Where the payment was. escrow: address of the contract that took it in and paid it out."""

    id: int
    escrow: str


@dataclass(frozen=True)
class File:
    """What the customer uploaded. target: the column to predict, as chosen; empty: found by the reader. options: what was learnt of it, and what
    else they said of the data, as `datasets.Options.text`."""

    name: str
    size: int
    sha256: str
    target: str
    options: str = field(default="", metadata=SINCE_3)


@dataclass(frozen=True)
class Shard:
    sha256: str
    samples: int


@dataclass(frozen=True)
class Training:
    """The hyper-parameters. rule, byzantine, strategy: see aggregation.How. seed: of the hold-out, the shards, and (by `order_seed`) every order of samples.
    schedule: how learning_rate changes over the `ordered` rounds, of which the last ones may not have been needed (schedules.py). clip, optimizer: see Hyper."""

    epochs: int
    batch_size: int
    learning_rate: float
    rule: str
    byzantine: int
    strategy: str
    proximal: float
    compression: str
    seed: int
    schedule: str = field(default=schedules.CONSTANT, metadata=SINCE_3)
    ordered: int = field(default=1, metadata=SINCE_3)
    clip: float = field(default=0.0, metadata=SINCE_3)
    optimizer: str = field(default="sgd", metadata=SINCE_4)


@dataclass(frozen=True)
class Update:
    """What a provider made of a shard. shard: its number, from 0. weight: in the average, twice its samples, or once if it looked odd. update: what was sent; weights: what
    that stands for. trace: the Merkle root that the worker committed to, with a checkpoint every so many steps. correct:
    hold-out samples that these weights alone get right, or what stands for it; by it, and from f1 on, the provider is paid: see rewards.Work."""

    shard: int
    weight: int
    provider: str
    update: str
    weights: str
    trace: str
    checkpoint_every: int
    correct: int
    f1: float | None = field(default=None, metadata=SINCE_2)
    contribution: float | None = field(default=None, metadata=SINCE_2)
    seconds: float | None = field(default=None, metadata=SINCE_2)
    joules: float | None = field(default=None, metadata=SINCE_2)
    gpu: float | None = field(default=None, metadata=SINCE_2)


@dataclass(frozen=True)
class Replay:
    """A segment done again by the platform. start, claimed: the checkpoints that it began and was said to end with. Distances as in
    comparison.py; None: infinite."""

    segment: int
    number: int
    start: str
    claimed: str
    relative: float | None
    allowed: float | None
    cosine: float
    agrees: bool


@dataclass(frozen=True)
class Audit:
    """Of an update, which is part of the round unless the audit ended it. trace: the file that was shown. kept: the weights
    around the replayed segments can still be fetched."""

    shard: int
    provider: str
    update: str
    root: str
    why: str
    state: str
    trace: str | None
    kept: bool
    replays: tuple[Replay, ...]


@dataclass(frozen=True)
class Round:
    """start, end: the global weights. kept: what the server's optimizer keeps for the next round. updates: in the order in which
    they were added up. accuracy, loss: of `end` on the hold-out; the first is the
    score of the task (dmlworker/task.py), so it may be below 0. root: the platform's own update, if the rule needs one."""

    number: int
    start: str
    end: str
    kept: str | None
    root: str | None
    accuracy: float
    loss: float | None
    updates: tuple[Update, ...]
    audits: tuple[Audit, ...]


@dataclass(frozen=True)
class Receipt:
    """spec: the model. Amounts in micro-DML; merit: by which `price - fee` is split among the providers' wallets, the
    points that the scheme `reward` (rewards.py) gives their updates."""

    version: int
    ticket: str
    chain: Chain
    spec: str
    holdout: Shard
    file: File
    shards: tuple[Shard, ...]
    training: Training
    price: int
    fee: int
    merit: dict[str, int]
    payouts: dict[str, int]
    rounds: tuple[Round, ...]
    reward: str = field(default=rewards.DEFAULT, metadata=SINCE_2)

    def to_bytes(self) -> bytes:
        """Canonical JSON: one receipt has one text."""
        return _canonical(_plain(self, self.version))

    @property
    def root(self) -> str:
        """What `settle` puts on the chain: 32 bytes as 0x-hex."""
        head = _canonical(_plain(self, self.version, "rounds"))
        nodes = [bytes.fromhex(_root_of(round_, self.version)) for round_ in self.rounds]
        return "0x" + merkle.root([head, *nodes])

    def hyper(self, round_: Round, update: Update) -> Hyper:
        """All that the training of an update depended on, beside the bytes."""
        told = self.training
        proximal = told.proximal if told.strategy == "fedprox" else 0.0
        seed = order_seed(told.seed, round_.number, update.shard)
        rate = schedules.rate(told.schedule, told.learning_rate, round_.number, told.ordered)
        rest = (proximal, told.compression, update.checkpoint_every, told.clip, told.optimizer)
        return Hyper(told.epochs, told.batch_size, rate, seed, *rest)


def load(data: bytes) -> Receipt:
    """The receipt in a file. Raises NotAReceipt for anything that `to_bytes` does not write."""
    try:
        text = data.decode()
        body = json.loads(text) if nesting(text) <= _NESTING else None
    except (ValueError, RecursionError):
        body = None
    if not isinstance(body, dict) or "version" not in body or "ticket" not in body:
        raise NotAReceipt(f"This is no receipt: it should be the {NAME} that came with the model.")
    version = body["version"]
    if type(version) is not int or not 1 <= version <= VERSION:
        raise NotAReceipt(f"This receipt has version {version!r:.20}; this program reads versions 1 to {VERSION}.")
    found: Receipt = _built(Receipt, body, "receipt", version)
    if not _is_text_of(found, data):
        raise NotAReceipt("This receipt was changed or written anew by another program: download it again.")
    return found


def _is_text_of(receipt: Receipt, data: bytes) -> bool:
    try:
        return receipt.to_bytes() == data
    except ValueError:  # a number that is none
        return False


def split(amount: int, weights: Mapping[str, int]) -> dict[str, int]:
    """`amount` in parts by weight, by largest remainder, equal ones to the lower key; all equal where all weights are 0.

    The platform's own is `ledger.money.split`. This one is written apart on purpose: a check that shared its code would share
    its mistakes.
    """
    shares = dict(weights) if any(weights.values()) else dict.fromkeys(weights, 1)
    total = sum(shares.values())
    ranked = sorted(shares, key=lambda key: (-(amount * shares[key] % total), key))
    parts = {key: amount * share // total for key, share in shares.items()}
    left = amount - sum(parts.values())
    return {key: part + (key in ranked[:left]) for key, part in parts.items()}


def _root_of(round_: Round, version: int) -> str:
    numbers = _plain(round_, version, "updates", "audits")
    parts = [_plain(part, version) for part in (*round_.updates, *round_.audits)]
    return merkle.root([_canonical(each) for each in (numbers, *parts)])


def _canonical(value: object) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


def _names(kind: Any, version: int) -> list[str]:
    """The fields that a dataclass has in this version of the receipt."""
    return [each.name for each in fields(kind) if each.metadata.get("since", 1) <= version]


def _plain(value: Any, version: int, *without: str) -> Any:
    if is_dataclass(value):
        names = [name for name in _names(value, version) if name not in without]
        return {name: _plain(getattr(value, name), version) for name in names}
    return [_plain(each, version) for each in value] if isinstance(value, tuple) else value


def _built(kind: type[_Made], body: Any, where: str, version: int) -> _Made:
    """An instance of the dataclass `kind` from a JSON object that has exactly its fields."""
    hints, names = get_type_hints(kind), _names(kind, version)
    if not isinstance(body, dict) or body.keys() != set(names):
        raise NotAReceipt(f"This is no receipt: {where} should have exactly the fields {', '.join(names)}.")
    return kind(**{name: _value(hints[name], body[name], f"{where}.{name}", version) for name in names})


def _value(hint: Any, value: Any, where: str, version: int) -> Any:
    if is_dataclass(hint):
        return _built(hint, value, where, version)  # type: ignore[arg-type]
    parts = get_args(hint)
    if get_origin(hint) is tuple and type(value) is list:
        return tuple(_value(parts[0], each, f"{where}[{number}]", version) for number, each in enumerate(value))
    if get_origin(hint) is dict and type(value) is dict:
        return {key: _value(parts[1], each, f"{where}.{key}", version) for key, each in value.items()}
    # Exact types: to Python, True is also an int.
    if type(value) not in (parts if NoneType in parts else (hint,)):
        raise NotAReceipt(f"This is no receipt: {where} is {value!r:.40}.")
    return value


def files(receipt: Receipt) -> Iterator[str]:
    """Everything that can be fetched to check it. Not the data: that the customer has, and a link may get into wrong hands."""
    yield receipt.spec
    for round_ in receipt.rounds:
        yield from (sha256 for sha256 in (round_.start, round_.end, round_.kept, round_.root) if sha256)
        for update in round_.updates:
            yield from (update.update, update.weights)
        for audit in round_.audits:
            yield from (audit.update, *([audit.trace] if audit.trace else []))
            yield from (sha256 for replay in audit.replays if audit.kept for sha256 in (replay.start, replay.claimed))
