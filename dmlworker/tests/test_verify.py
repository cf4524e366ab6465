"""A customer's check of a real, small training: two rounds of two shards; then with every part of it altered."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import httpx
import numpy as np
import pytest

from contracts.devchain import test_key as rich
from contracts.encoding import artifact, topic
from dmlworker import aggregation, checks, compression, datasets, escrow, models, receipt, trainer, verify
from dmlworker.__main__ import main
from dmlworker.cache import blob_of
from dmlworker.checks import Wrong
from dmlworker.datasets import Options
from dmlworker.escrow import ChainError, Escrow, Payment
from dmlworker.receipt import Audit, Chain, File, Receipt, Replay, Round, Shard, Training, Update
from dmlworker.trace import Recorder
from dmlworker.weights import pack

WALLETS = ("0x" + "Aa" * 20, "0x" + "bB" * 20)


class House:
    """A platform with its two providers, all of them honest, and a folder with the files that they leave."""

    def __init__(
        self,
        folder: Path,
        strategy: str = "fedavg",
        kind: str = "none",
        rule: str = "mean",
        target: str = "kind",
        optimizer: str = "sgd",
    ) -> None:
        self.folder, self.kind, self.target = folder, kind, target
        self.data = folder / "flowers.csv"
        self.data.write_bytes(table(target))
        self.data_set = datasets.read(self.data, "flowers.csv", target)
        train, holdout = datasets.split(self.data_set, 7)
        self.shards = datasets.shards(train, 2, 7)
        self.holdout = holdout
        self.spec = models.spec(self.model(train))
        rate = 0.01 if optimizer == "adam" else 0.1
        self.training = Training(2, 10, rate, rule, 1, strategy, 0.01, kind, 7, optimizer=optimizer)
        self.end, self.kept = trainer.initial_weights(self.spec, 7), []
        self.made: list[Round] = []
        for number in (1, 2):
            self.made.append(self.round(number))
        self.receipt = self.told()
        self.cut = checks.cut(self.receipt, self.data)
        (folder / receipt.NAME).write_bytes(self.receipt.to_bytes())
        (folder / "mine.safetensors").write_bytes(pack(self.end))

    def model(self, train: datasets.Dataset) -> Any:
        task, fitted = train.task, models.statistics(train.x)
        target = models.target_statistics(train.y) if task == "regression" else None
        return models.build((4,), len(train.classes) or 1, "linear", fitted, task=task, target=target)

    def put(self, data: bytes) -> str:
        sha256 = blob_of([data]).sha256
        (self.folder / sha256).write_bytes(data)
        return sha256

    def round(self, number: int) -> Round:
        start = self.end
        works = [self.work(number, shard) for shard in range(2)]
        weighted = [(weights, update.weight) for weights, update, _ in works]
        root = works[0][0] if aggregation.RULES[self.training.rule].root else None
        how = aggregation.How(self.training.rule, 1, self.training.strategy)
        self.end, kept = aggregation.end_of(how, start, weighted, self.kept, number, root)
        self.kept = kept
        mean = trainer.evaluate(self.spec, self.end, self.holdout.x, self.holdout.y)
        ends = self.put(pack(start)), self.put(pack(self.end)), self.put(pack(kept)) if kept else None
        updates, audits = (tuple(work[index] for work in works) for index in (1, 2))
        return Round(number, *ends, self.put(pack(root)) if root else None, mean.score, mean.loss, updates, audits)

    def work(self, number: int, shard: int) -> tuple[list[np.ndarray], Update, Audit]:
        part, start = self.shards[shard], self.end
        empty = Update(shard, (2 - shard) * len(part), WALLETS[shard], "", "", "", 3, 0)
        hyper = self.told().hyper(Round(number, "", "", None, None, 0.0, None, (), ()), empty)
        keep = lambda _, arrays: self.put(pack([np.array(array) for array in arrays]))  # noqa: E731
        record = Recorder(start, keep, self.training.optimizer)
        weights = trainer.train(self.spec, start, part.x, part.y, hyper, checkpoint=record)
        update = pack(weights)
        if self.kind != "none":
            delta = [after - before for before, after in zip(start, weights, strict=True)]
            update = compression.encode(delta, self.kind)[0]
            weights = compression.decode(update, self.kind, start)
        correct = trainer.evaluate(self.spec, weights, self.holdout.x, self.holdout.y).correct
        names = {"update": self.put(update), "weights": self.put(pack(weights)), "trace": record.trace.root}
        told = replace(empty, correct=correct, **names)
        segments = [self.put(pack(start)), *(segment.sha256 for segment in record.trace.segments)]
        replays = tuple(
            Replay(n, 1, segments[n], segments[n + 1], 0.0, 0.1, 1.0, True) for n in range(len(segments) - 1)
        )
        shown = self.put(record.trace.to_bytes())
        return (
            weights,
            told,
            Audit(shard, WALLETS[shard], told.update, told.trace, "chance", "passed", shown, True, replays),
        )

    def told(self) -> Receipt:
        merit = {wallet: sum(r.updates[n].correct for r in self.made) for n, wallet in enumerate(WALLETS)}
        return Receipt(
            version=receipt.VERSION,
            ticket="6f9619ff-8b86-4d01-b42d-00cf4fc964ff",
            chain=Chain(31337, "0x" + "Cc" * 20),
            spec=self.put(models.spec_bytes(self.spec)),
            holdout=self.shard(self.holdout),
            file=File(
                "flowers.csv",
                self.data.stat().st_size,
                blob_of([self.data.read_bytes()]).sha256,
                self.target,
                Options(task=self.data_set.task).text,
            ),
            shards=tuple(map(self.shard, self.shards)),
            training=self.training,
            price=10_000,
            fee=200,
            merit=merit,
            payouts=receipt.split(9_800, merit),
            rounds=tuple(self.made),
        )

    def shard(self, part: datasets.Dataset) -> Shard:
        return Shard(self.put(datasets.dump(part.x, part.y)), len(part))

    def verify(self, *more: str, changed: Receipt | None = None) -> int:
        """With everything at hand but a chain."""
        path = self.folder / receipt.NAME
        path.write_bytes((changed or self.receipt).to_bytes())
        given = [
            "--files",
            str(self.folder),
            "--data",
            str(self.data),
            "--model",
            str(self.folder / "mine.safetensors"),
        ]
        return main(["verify", str(path), *given, *more])


def table(target: str = "kind") -> bytes:
    random = np.random.default_rng(1)
    rows = random.normal(size=(120, 4)).round(3)
    lines = [[*row, TARGETS[target](row)] for row in rows.tolist()]
    return "\n".join(",".join(map(str, line)) for line in [["a", "b", "c", "d", target], *lines]).encode()


TARGETS: dict[str, Callable[[list[float]], object]] = {
    "kind": lambda row: "rose" if row[0] > 0 else "tulip",
    "kinds": lambda row: "|".join(name for name, value in zip("abc", row, strict=False) if value > 0) or "|",
    "height": lambda row: 170 + 20 * row[0] - 5 * row[1],
}


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> House:
    return House(tmp_path_factory.mktemp("house"))


def lines(text: str, state: str) -> list[str]:
    return [line.split(":")[0].removeprefix(state).strip() for line in text.splitlines() if line.startswith(state)]


def test_an_honest_training_is_found_right(house: House, capsys: pytest.CaptureFixture[str]) -> None:
    assert house.verify() == 0
    said = capsys.readouterr().out
    assert lines(said, "ok") == ["hashes", "payouts", "data", "round 1", "round 2", "accuracy", "replay", "model"]
    assert lines(said, "not checked") == ["chain"]
    assert said.endswith("All that was checked is right.\n")


def test_a_receipt_of_version_1_is_checked_as_ever(house: House, capsys: pytest.CaptureFixture[str]) -> None:
    old = replace(house.receipt, version=1)
    assert b"reward" not in old.to_bytes()
    assert house.verify(changed=old) == 0
    assert lines(capsys.readouterr().out, "ok")[-2:] == ["replay", "model"]


@pytest.mark.parametrize("target", ["height", "kinds"])
def test_another_task_is_checked_by_its_own_measure(tmp_path: Path, target: str, capsys: Any) -> None:
    house = House(tmp_path, target=target)
    assert house.verify() == 0
    assert lines(capsys.readouterr().out, "ok")[-3:] == ["accuracy", "replay", "model"]
    for lie in (update(house, correct=house.receipt.rounds[1].updates[0].correct + 3), second(house, accuracy=0.5)):
        assert house.verify(changed=lie) == 1
        assert "accuracy" in lines(capsys.readouterr().out, "FAILED")
    as_classes = replace(house.receipt, file=replace(house.receipt.file, options=Options(task="classification").text))
    assert house.verify("--no-replay", changed=as_classes) == 1
    assert lines(capsys.readouterr().out, "FAILED") == ["data"]


WAYS = [("fedprox", "none", "median"), ("fedadam", "int8", "fltrust"), ("fedavgm", "fp16", "rfa")]


@pytest.mark.parametrize(("strategy", "kind", "rule"), WAYS)
def test_other_ways_of_averaging_and_short_updates(tmp_path: Path, strategy: str, kind: str, rule: str) -> None:
    house = House(tmp_path, strategy, kind, rule)
    assert house.verify("--round", "2") == 0
    for segment in (0, len(house.receipt.rounds[0].audits[0].replays) - 1):
        assert house.verify("--round", "1", "--segment", str(segment)) == 0


def test_every_segment_can_be_replayed(house: House) -> None:
    work = checks.Work(house.receipt, checks.Files(str(house.folder), house.folder, httpx.Client()))
    for round_ in house.receipt.rounds:
        for update, audit in zip(round_.updates, round_.audits, strict=True):
            for replay in audit.replays:
                work.replay(checks.Piece(round_, update, audit, replay.segment), house.cut)


@pytest.mark.parametrize(("optimizer", "kind"), [("momentum", "none"), ("adam", "int8")])
def test_every_segment_of_an_optimizer_that_remembers_can_be_replayed(
    tmp_path: Path, optimizer: str, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    house = House(tmp_path, kind=kind, optimizer=optimizer)
    test_every_segment_can_be_replayed(house)
    assert house.verify() == 0
    for lie in ({"optimizer": "sgd"}, {"learning_rate": 2 * house.training.learning_rate}):
        assert house.verify("--segment", "1", changed=trained(house, **lie)) == 1
        assert lines(capsys.readouterr().out, "FAILED") == ["replay"]


def test_the_customers_own_formats_of_a_model(house: House, tmp_path: Path) -> None:
    for path in trainer.export(house.spec, house.end, tmp_path)[1:]:
        assert house.verify("--no-replay", "--model", str(path)) == 0
    trainer.export(house.spec, [array + 1 for array in house.end], tmp_path)
    assert house.verify("--no-replay", "--model", str(tmp_path / "model.keras")) == 1
    (tmp_path / "model.keras").write_bytes(b"no model")
    assert house.verify("--no-replay", "--model", str(tmp_path / "model.keras")) == 1


# --- Lies -------------------------------------------------------------------------------------------------------------
def second(house: House, **fields: Any) -> Receipt:
    """With another second round."""
    first, last = house.receipt.rounds
    return replace(house.receipt, rounds=(first, replace(last, **fields)))


def update(house: House, **fields: Any) -> Receipt:
    """With another first update in the second round."""
    first, *others = house.receipt.rounds[1].updates
    return second(house, updates=(replace(first, **fields), *others))


def other(house: House) -> str:
    return house.put(pack([array + 1 for array in house.end]))


def trained(house: House, **fields: Any) -> Receipt:
    return replace(house.receipt, training=replace(house.training, **fields))


LIES: dict[str, tuple[Callable[[House], Receipt], set[str]]] = {
    "another end": (lambda house: second(house, end=other(house)), {"round 2", "model"}),
    "another start": (lambda house: second(house, start=other(house)), {"hashes"}),
    "another update": (lambda house: update(house, update=other(house), weights=other(house)), {"round 2"}),
    "a file that is no update": (lambda house: update(house, update=house.put(b"no update")), {"round 2"}),
    "a path for a hash": (lambda house: update(house, update="../../etc/passwd"), {"round 2"}),
    "a file that is not there": (lambda house: update(house, update="0" * 64), {"round 2"}),
    "one twice": (lambda house: second(house, updates=house.receipt.rounds[1].updates[:1] * 2), {"hashes", "round 2"}),
    "a weight of its own": (lambda house: update(house, weight=1), {"hashes", "round 2"}),
    "a weight beyond all": (lambda house: update(house, weight=10**400), {"hashes", "round 2"}),
    "a better measure": (lambda house: update(house, correct=24), {"payouts", "accuracy"}),
    "another accuracy": (lambda house: second(house, accuracy=0.1), {"accuracy"}),
    "a round less": (lambda house: replace(house.receipt, rounds=house.receipt.rounds[:1]), {"payouts", "model"}),
    "no rounds": (lambda house: replace(house.receipt, rounds=()), {"hashes", "payouts", "rounds", "model"}),
    "a larger fee": (lambda house: replace(house.receipt, fee=201), {"payouts"}),
    "another split": (lambda house: replace(house.receipt, payouts={WALLETS[0]: 9_800, WALLETS[1]: 0}), {"payouts"}),
    "a negative weight": (lambda house: replace(house.receipt, merit={WALLETS[0]: 1, WALLETS[1]: -1}), {"payouts"}),
    "other shards": (lambda house: replace(house.receipt, shards=house.receipt.shards[::-1]), {"data"}),
    "another seed": (lambda house: trained(house, seed=8), {"data"}),
    "another rate": (lambda house: trained(house, learning_rate=0.3), {"replay"}),
    "another schedule": (lambda house: trained(house, schedule="warm-up", ordered=20), {"replay"}),
    "an unknown schedule": (lambda house: trained(house, schedule="x"), {"replay"}),
    "another optimizer": (lambda house: trained(house, optimizer="momentum"), {"replay"}),
    "an unknown optimizer": (lambda house: trained(house, optimizer="x"), {"replay"}),
    "another clip": (lambda house: trained(house, clip=0.01), {"replay"}),
    "an unknown strategy": (lambda house: trained(house, strategy="x"), {"round 1"}),
    "an unknown compression": (lambda house: trained(house, compression="x"), {"round 1", "replay"}),
    "another model": (lambda house: replace(house.receipt, spec=house.put(b"{}")), {"accuracy", "replay"}),
}


@pytest.mark.parametrize("lie", LIES)
def test_a_lie_is_noticed(house: House, capsys: pytest.CaptureFixture[str], lie: str) -> None:
    change, noticed = LIES[lie]
    quick = [] if noticed & {"accuracy", "replay"} else ["--no-replay"]
    assert house.verify(*quick, changed=change(house)) == 1
    assert noticed <= set(lines(capsys.readouterr().out, "FAILED"))


def test_a_trace_that_was_not_committed_to_is_noticed(house: House) -> None:
    round_ = house.receipt.rounds[1]
    piece = checks.Piece(round_, replace(round_.updates[0], trace="0" * 64), round_.audits[0], 1)
    work = checks.Work(house.receipt, checks.Files(str(house.folder), house.folder, httpx.Client()))
    with pytest.raises(Wrong, match="committed"):
        work.replay(piece, house.cut)


def test_what_the_customer_holds_is_looked_at(house: House, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = tmp_path / "data.csv"
    data.write_bytes(table() + b"\n1,2,3,4,rose")
    model = tmp_path / "model.safetensors"
    model.write_bytes(pack([np.nextafter(array, np.float32(9)) for array in house.end]))
    assert house.verify("--no-replay", "--data", str(data), "--model", str(model)) == 1
    assert lines(capsys.readouterr().out, "FAILED") == ["data", "model"]


def test_without_the_data_neither_measures_nor_replays_are_checked(house: House, capsys: Any) -> None:
    assert main(["verify", str(house.folder / receipt.NAME), "--files", str(house.folder)]) == 0
    said = capsys.readouterr().out
    assert lines(said, "ok") == ["hashes", "payouts", "round 1", "round 2"]
    assert lines(said, "not checked") == ["chain", "data", "replay", "model"]


def test_a_damaged_file_is_told_apart(house: House, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for path in house.folder.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    damaged = tmp_path / house.receipt.rounds[0].updates[0].update
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"x")
    assert house.verify("--no-replay", "--files", str(tmp_path)) == 1
    assert "has another hash" in capsys.readouterr().out


def test_a_segment_that_was_not_kept_is_no_fault_unless_it_was_asked_for(house: House, capsys: Any) -> None:
    kept = [replace(round_, audits=()) for round_ in house.receipt.rounds]
    none = replace(house.receipt, rounds=tuple(kept))
    assert house.verify(changed=none) == 0
    assert "not checked  replay: no such segment" in capsys.readouterr().out
    assert house.verify("--segment", "0", changed=none) == 1
    assert house.verify("--shard", "0", changed=none) == 1
    assert house.verify("--round", "9") == 1
    assert house.verify("--shard", "2") == 1
    assert "round:shard:segment: 1:0:0, 1:0:1" in capsys.readouterr().out


def test_the_customer_chooses_whose_segment_is_replayed(house: House, capsys: Any) -> None:
    for shard in ("0", "1"):
        assert house.verify("--round", "2", "--shard", shard, "--segment", "1") == 0
        assert f"replay: round 2, shard {shard}, segment 1: done again" in capsys.readouterr().out


# --- What is no receipt, and no network -------------------------------------------------------------------------------
def test_what_is_no_receipt_is_told_in_a_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "note.txt").write_text("hello")
    for place, said in [("note.txt", "no receipt"), ("none.json", "No such file"), (".", "directory")]:
        assert main(["verify", str(tmp_path / place)]) == 1
        error = capsys.readouterr().err
        assert said in error and error.count("\n") == 1


def test_a_platform_or_node_that_is_down_is_said_as_such(house: House, capsys: pytest.CaptureFixture[str]) -> None:
    down = "http://127.0.0.1:9/tickets/files/x"
    assert main(["verify", down]) == 1
    assert "127.0.0.1 does not answer" in capsys.readouterr().err
    assert house.verify("--no-replay", "--files", down, "--rpc", "http://127.0.0.1:9") == 1
    said = capsys.readouterr().out
    assert {"chain", "round 1", "round 2"} == set(lines(said, "FAILED"))
    assert "the node at http://127.0.0.1:9 does not answer" in said


@pytest.mark.parametrize(
    ("status", "said"), [(404, "not there"), (410, "renews it"), (403, "answers 403"), (500, "answers 500")]
)
def test_what_a_link_answers_is_put_into_words(tmp_path: Path, status: int, said: str) -> None:
    http = httpx.Client(transport=httpx.MockTransport(lambda request: httpx.Response(status)))
    with pytest.raises(checks.Unavailable, match=said):
        checks.Files("https://dml.example.org/tickets/files/x", tmp_path, http).path("a" * 64)
    assert not list(tmp_path.iterdir())


# --- The chain, by a node made of answers -----------------------------------------------------------------------------
TICKET = UUID("6f9619ff-8b86-4d01-b42d-00cf4fc964ff")
TOPIC = f"0x{TICKET.int:064x}"
ADDRESS = "0x" + "Cc" * 20


def node(logs: list[dict[str, Any]], standing: int = 1, chain: int = 31337) -> Escrow:
    def answered(request: httpx.Request) -> httpx.Response:
        asked = json.loads(request.content)
        found = {
            "eth_chainId": hex(chain),
            "eth_getLogs": logs,
            "eth_getTransactionReceipt": {"logs": logs},
            "eth_call": "0x" + "0" * 256 + f"{standing:064x}",
        }
        return httpx.Response(200, json={"result": found[asked["method"]]})

    return Escrow(httpx.Client(transport=httpx.MockTransport(answered)), "http://node", ADDRESS)


def log(
    kind: str, *words: int, wallet: str = "", address: str = ADDRESS.lower(), ticket: str = TOPIC
) -> dict[str, Any]:
    topics = [kind, ticket, *(["0x" + wallet[2:].lower().rjust(64, "0")] if wallet else [])]
    return {"address": address, "topics": topics, "data": "0x" + "".join(f"{word:064x}" for word in words)}


def settled(one: Receipt, paid: dict[str, int]) -> list[dict[str, Any]]:
    shares = [log(escrow.PROVIDER_PAID, amount, wallet=wallet) for wallet, amount in paid.items()]
    return [*shares, log(escrow.SETTLED, one.price, one.fee, int(one.root, 16))]


def test_the_events_are_those_of_the_contract() -> None:
    events = {entry["name"]: topic(entry) for entry in artifact("DMLEscrow")["abi"] if entry["type"] == "event"}
    assert (events["Settled"], events["ProviderPaid"]) == (escrow.SETTLED, escrow.PROVIDER_PAID)


@pytest.mark.parametrize("tx", ["", "0x12"])
def test_a_payment_is_read_and_others_events_are_not(house: House, tx: str) -> None:
    one = house.receipt
    noise = [
        log(escrow.SETTLED, 1, 1, 1, ticket="0x" + "0" * 64),
        log(escrow.SETTLED, 1, 1, 1, address="0x" + "dd" * 20),
    ]
    found = node([*noise, *settled(one, one.payouts)]).payment(one.ticket, tx)
    paid = {wallet.lower(): amount for wallet, amount in one.payouts.items()}
    assert found == Payment(10_000, 200, one.root, paid)
    assert node(noise).payment(one.ticket, tx) is None


def checked(one: Receipt, paid: dict[str, int], standing: int = 1, about: Receipt | None = None) -> str:
    there = node(settled(about or one, paid), standing)
    payment = checks.on_chain(one, there.payment(one.ticket))
    return checks.paid(one, payment, there.in_standing)


def test_the_shares_on_the_chain_are_compared_to_the_unit(house: House) -> None:
    one = house.receipt
    assert "2 wallets got their shares, 9800" in checked(one, one.payouts)
    first, second_ = one.payouts.items()
    for wrong in ({first[0]: first[1] + 1, second_[0]: second_[1] - 1}, {first[0]: 9_800}, {**one.payouts, ADDRESS: 0}):
        with pytest.raises(Wrong):
            checked(one, wrong)


def test_another_root_on_the_chain_is_noticed(house: House) -> None:
    with pytest.raises(Wrong, match="the chain has the root"):
        checked(house.receipt, house.receipt.payouts, about=second(house, accuracy=0.1))
    with pytest.raises(Wrong, match="has not settled"):
        checks.on_chain(house.receipt, None)


def test_whom_the_escrow_refused_has_nothing_and_the_others_its_share(house: House) -> None:
    one, rest = house.receipt, WALLETS[0]
    assert "1 left out" in checked(one, {rest: 9_800}, standing=3)
    with pytest.raises(Wrong, match="is in standing"):
        checked(one, {rest: 9_800}, standing=2)


@pytest.mark.django_db
def test_a_real_settlement_is_read_from_a_real_node(chain: Any, settings: Any) -> None:
    from ledger.gateway import key
    from tests.faults.steps import pay, register

    payer, provider, ticket = rich(1), rich(2), uuid4()
    wallet = register(chain, provider)
    pay(chain, ticket, payer)
    root = "0x" + "12" * 32
    done = chain.send(chain.settle_call(ticket, {wallet: 127_400}, root), key("settler"))
    there = Escrow(httpx.Client(), settings.CHAIN_RPC_URL, chain.deployment.escrow)
    for tx in ("", done.hash):
        assert there.payment(str(ticket), tx) == Payment(130_000, 2_600, root, {wallet.lower(): 127_400})
    assert there.payment(str(uuid4())) is None
    assert (there.in_standing(wallet), there.in_standing(payer.address)) == (True, False)
    assert there.chain_id() == chain.deployment.chain_id


def test_a_node_that_refuses_is_quoted() -> None:
    answer = {"error": {"message": "block range is too wide"}}
    http = httpx.Client(transport=httpx.MockTransport(lambda request: httpx.Response(200, json=answer)))
    with pytest.raises(ChainError, match="too wide"):
        Escrow(http, "http://node", ADDRESS).payment(str(TICKET))


def test_a_worker_is_started_as_ever(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--help"])
    assert "dmlworker verify" in capsys.readouterr().out
    assert verify.parser().parse_args(["receipt.json"]).round is None
