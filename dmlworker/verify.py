"""`dmlworker verify RECEIPT`: is the model what the receipt says, and was everybody paid by it? Nothing is taken on trust from
the platform: what can be computed is computed again, and the rest is on the chain. See docs/receipt.md.

The averaging (`aggregation`), the readers of data (`datasets`) and the measure of a replay (`comparison`) are the platform's own
modules; they are a part of this distribution, and the platform imports them from here.
"""

import argparse
import os
import sys
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TypeVar

import httpx

from dmlworker import checks
from dmlworker.checks import Cut, NotKept, Work, Wrong, must
from dmlworker.escrow import ChainError, Escrow, Payment
from dmlworker.files import Files, Unavailable, fetch, is_link
from dmlworker.receipt import NAME, NotAReceipt, Receipt, Round, load

_Answer = TypeVar("_Answer")
EPILOG = """Exit code: 0 if all that was checked is right, 1 if anything is wrong or could not be checked as asked."""


def main(arguments: list[str]) -> int:
    """Prints a line for each check."""
    options = parser().parse_args(arguments)
    with TemporaryDirectory() as folder, httpx.Client() as http:
        try:
            receipt = _opened(options.receipt, Path(folder), http)
        except (NotAReceipt, Unavailable) as error:
            print(f"dmlworker verify: {error}", file=sys.stderr)
            return 1
        except OSError as error:
            print(f"dmlworker verify: {options.receipt}: {error.strerror or error}", file=sys.stderr)
            return 1
        return Verification(receipt, options, Path(folder), http).run()


def parser() -> argparse.ArgumentParser:
    found = argparse.ArgumentParser(
        "dmlworker verify", description="Check a model's receipt without trusting the platform.", epilog=EPILOG
    )
    add = found.add_argument
    add("receipt", help=f"{NAME}, or the link to it from the mail or the ticket's page")
    add("--files", metavar="PLACE", help=f"where the files are that it names: the link to {NAME}, or a folder")
    add("--model", type=Path, help="your model: model.weights.h5, model.keras or weights as .safetensors")
    add("--data", type=Path, help="the file that you uploaded")
    add("--rpc", default=os.environ.get("DML_RPC"), metavar="URL", help="a node of the chain that you trust [DML_RPC]")
    add(
        "--tx",
        default="",
        metavar="HASH",
        help="the payment's transaction (in model-card.md), for nodes that search little",
    )
    add("--escrow", metavar="ADDRESS", help="the contract that you paid to: the receipt has to name the same one")
    add("--round", type=int, metavar="N", help="look at this round only (default: all of them)")
    add("--shard", type=int, metavar="N", help="replay a segment of this shard, from 0 (default: by chance)")
    add("--segment", type=int, metavar="N", help="replay this segment, from 0 (default: by chance)")
    add("--no-replay", action="store_true", help="neither measure nor replay anything, which needs TensorFlow")
    return found


def _opened(place: str, folder: Path, http: httpx.Client) -> Receipt:
    path = Path(place)
    if is_link(place):
        path = folder / NAME
        fetch(http, place, path)
    return load(path.read_bytes())


class Verification:
    """The checks that the options allow, and what came of them."""

    def __init__(self, receipt: Receipt, options: argparse.Namespace, folder: Path, http: httpx.Client) -> None:
        self._receipt, self._options, self._http = receipt, options, http
        place = options.files or (options.receipt if is_link(options.receipt) else "")
        self._work = Work(receipt, Files(place, folder, http)) if place else None
        self._wrong = 0

    def run(self) -> int:
        _say(f"Receipt of ticket {self._receipt.ticket}, root {self._receipt.root}")
        self._check("hashes", lambda: checks.rounds(self._receipt))
        self._check("payouts", lambda: checks.payouts(self._receipt))
        self._on_chain()
        cut = self._data()
        self._rounds(cut)
        self._model()
        _say("All that was checked is right." if not self._wrong else f"{self._wrong} FAILED.")
        return 1 if self._wrong else 0

    def _check(self, name: str, work: Callable[[], str]) -> bool:
        """Whether a check holds; it is one line."""
        try:
            with checks.told():
                text, state = work(), "ok"
        except Wrong as error:
            text, state = str(error), "FAILED"
            self._wrong += 1
        except NotKept as error:
            return self._left_out(name, str(error))
        _say(f"{state:<12} {name}: {text}")
        return state == "ok"

    def _left_out(self, name: str, why: str) -> bool:
        _say(f"{'not checked':<12} {name}: {why}")
        return False

    # --- The chain
    def _on_chain(self) -> None:
        if not self._options.rpc:
            self._left_out("chain", "needs --rpc, a node of the chain that you trust")
            return
        escrow = Escrow(self._http, self._options.rpc, self._receipt.chain.escrow)
        found: list[Payment] = []
        self._check("chain", lambda: self._settled(escrow, found))
        if found:
            self._check("paid", lambda: _asked(lambda: checks.paid(self._receipt, found[0], escrow.in_standing)))

    def _settled(self, escrow: Escrow, found: list[Payment]) -> str:
        named, wanted = self._receipt.chain, self._options.escrow
        must(wanted is None or wanted.lower() == named.escrow.lower(), f"the receipt names the escrow {named.escrow}")
        chain = _asked(escrow.chain_id)
        must(chain == named.id, f"the receipt is of chain {named.id}, the node is of chain {chain}")
        payment = _asked(lambda: escrow.payment(self._receipt.ticket, self._options.tx))
        found.append(checks.on_chain(self._receipt, payment))
        return f"the escrow {named.escrow} has settled the ticket with this root"

    # --- The files
    def _data(self) -> Cut | None:
        """The customer's file, cut anew."""
        if not self._options.data:
            self._left_out("data", "needs --data, the file that you uploaded")
            return None
        found: list[Cut] = []

        def work() -> str:
            found.append(checks.cut(self._receipt, self._options.data))
            return f"the hold-out and {len(found[0].shards)} shards are cut from {self._options.data.name}, all of it"

        self._check("data", work)
        return found[0] if found else None

    def _rounds(self, cut: Cut | None) -> None:
        work = self._work
        if work is None:
            self._left_out("rounds", f"needs --files, the link to {NAME}, or a folder")
            return
        chosen = [found for found in self._receipt.rounds if self._options.round in (None, found.number)]
        if not chosen:
            self._check("rounds", lambda: checks.wrong("there is no such round"))
        for number, round_ in enumerate(chosen, start=1):
            self._round(work, round_, None if self._options.no_replay or number < len(chosen) else cut)
        if cut and not self._options.no_replay:
            self._check("replay", lambda: self._replayed(work, cut))
        elif not self._options.no_replay:
            self._left_out("replay", "needs --data, the file that you uploaded")

    def _round(self, work: Work, round_: Round, cut: Cut | None) -> None:
        """`cut`: if the round is to be measured again, too."""
        if self._check(f"round {round_.number}", lambda: work.average(round_)) and cut:
            self._check("accuracy", lambda: work.accuracy(round_, cut))
        work.forget(round_)

    def _replayed(self, work: Work, cut: Cut) -> str:
        piece = checks.chosen(self._receipt, self._options.round, self._options.shard, self._options.segment)
        return work.replay(piece, cut)

    def _model(self) -> None:
        path, work = self._options.model, self._work
        if not path:
            self._left_out("model", "needs --model, the file that you hold")
        elif work is None:
            self._left_out("model", f"needs --files, the link to {NAME}, or a folder")
        else:
            self._check("model", lambda: work.model(path))


def _say(line: str) -> None:
    """Names in a receipt are anybody's text, and no business of the terminal's."""
    print("".join(char if char.isprintable() else "?" for char in line), flush=True)


def _asked(question: Callable[[], _Answer]) -> _Answer:
    """What the node answers; that it does not is an answer, too."""
    try:
        return question()
    except ChainError as error:
        raise Wrong(str(error)) from error
