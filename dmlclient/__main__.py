"""The command line: `dml train iris.csv --target species`, or `python -m dmlclient`."""

import argparse
import json
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, is_dataclass
from datetime import datetime
from decimal import Decimal
from getpass import getpass
from pathlib import Path
from typing import Any

from dmlclient import __version__, config
from dmlclient.client import DML
from dmlclient.errors import DataError, DMLError, Expired, NetworkError, PaymentError, Refunded, Refused
from dmlclient.progress import Progress
from dmlclient.records import Event, Happened, Result, Round, Ticket
from dmlclient.wallet import MOST, Keystore

OTHER, USAGE, REFUSED, REFUNDED, NETWORK, PAYMENT, INTERRUPTED = 1, 2, 3, 4, 5, 6, 130
EPILOG = """Further options of quote and train are the training's own, by their names in the API: --rounds 20 --epochs 2.

Exit codes: 0 done; 1 a file arrived damaged, or can't be written; 2 usage, or a file that can't be read; 3 refused by the platform;
4 the ticket was refunded, or ran out; 5 no answer; 6 not paid; 130 interrupted: the ticket goes on."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit code."""
    given, further = parser().parse_known_args(arguments)
    try:
        given.options = _further(further) if further else {}
        if given.options and given.command not in ("quote", "train"):
            raise _Usage(f"{given.command} has no option --{next(iter(given.options))}.")
        return int(given.run(given) or 0)
    except KeyboardInterrupt:
        return INTERRUPTED
    except (DMLError, _Usage, OSError) as error:
        return _failed(error, given.json)


class _Usage(Exception):
    """What was typed makes no sense."""


def parser() -> argparse.ArgumentParser:
    found = argparse.ArgumentParser(
        "dml",
        description="Have models trained on DML.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    found.add_argument("--version", action="version", version=f"dml-client {__version__}")
    commands = found.add_subparsers(dest="command", required=True)
    for name, (run, needs, about) in COMMANDS.items():
        command = commands.add_parser(name, help=about, description=about, allow_abbrev=False)
        command.add_argument("--json", action="store_true", help="answer in JSON")
        command.set_defaults(run=run)
        for need in needs:
            _ARGUMENTS[need](command.add_argument)
    return found


def _file(add: Any) -> None:
    add("file", type=Path, help="the data: see docs/data.md for what can be trained on")
    add("--target", default="", help="of a table: the column to predict")


def _ticket(add: Any) -> None:
    add("ticket", help="its number, as train and list print it")


def _payer(add: Any) -> None:
    add("--payer", default="", metavar="ADDRESS", help="the wallet that pays, in a browser")


def _wallet(add: Any) -> None:
    add("--wallet", type=Path, metavar="KEYSTORE", help="pay with this key file [passphrase: DML_PASSPHRASE, or asked]")
    add("--rpc", default=os.environ.get("DML_RPC"), metavar="URL", help="a node of the chain [DML_RPC]")
    add("--max-price", default=MOST, metavar="DML", help="sign for no more than this (default: %(default)s)")
    add("--ticket", metavar="TICKET", help="go on with a ticket that was ordered, or paid, before")
    add("--detach", action="store_true", help="end when the data is there; see dml follow")


def _out(add: Any) -> None:
    add("--out", type=Path, metavar="PLACE", help="where to write")


def _login(add: Any) -> None:
    add("url", help="address of the platform")
    add("--email", help="make a key with your e-mail address and password, instead of giving one from the account page")
    add("--name", default="dml", help="of the key that is made (default: %(default)s)")


_ARGUMENTS: dict[str, Callable[[Any], None]] = {
    "file": _file,
    "ticket": _ticket,
    "payer": _payer,
    "wallet": _wallet,
    "out": _out,
    "login": _login,
}


def _further(words: Sequence[str]) -> dict[str, Any]:
    """`--rounds 20` or `--rounds=20`, as the API names it. Numbers are numbers."""
    found, rest = dict[str, Any](), list(words)
    while rest:
        name, assigned, value = rest.pop(0).partition("=")
        if not name.startswith("--") or not (assigned or rest):
            raise _Usage(f"What does {name} mean? Options look like --name value.")
        found[name[2:].replace("-", "_")] = _value(value if assigned else rest.pop(0))
    return found


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


# --- Commands ---------------------------------------------------------------------------------------------------------
def login(given: argparse.Namespace) -> None:
    if given.email:
        key = DML.login(given.url, given.email, _secret("Password: "), given.name)
    else:
        key = _secret("API key, from your account page: ")
    with DML(given.url, key) as client:
        client.tickets(limit=1)  # refused, if the key is wrong
        place = config.save(config.Config(given.url, key, client.terms()))
    _print(given, {"url": given.url, "config": str(place)}, f"Logged in at {given.url}. The key is in {place}.")


def quote(given: argparse.Namespace) -> None:
    with _client() as client:
        found = client.quote(given.file, given.payer, **_options(given))
        said = f"{found.price} DML for {found.file_size:,} bytes, until {found.pay_by:%Y-%m-%d %H:%M} UTC\n{client.link(found)}"
        _print(given, found, said)


def train(given: argparse.Namespace) -> None:
    if not (given.wallet or given.payer or given.ticket):
        raise _Usage("Who pays? Give --wallet KEYSTORE --rpc URL, or --payer ADDRESS to pay in a browser.")
    wallet = _keystore(given) if given.wallet else None
    with _client() as client, _Told(given) as told:
        told.again = f"dml train {given.file} --ticket"
        job = client.train(
            given.file, wallet=wallet, payer=given.payer, ticket=given.ticket, tell=told, **_options(given)
        )
        told.ticket, told.again = job.id, "dml follow"
        if given.detach:
            return _print(given, job.ticket, f"The ticket goes on: dml follow {job.id}")
        told.progress.of(job.ticket)
        _print_result(given, job.result(given.out, tell=told))


def status(given: argparse.Namespace) -> None:
    with _client() as client:
        found, rounds = client.ticket(given.ticket), client.rounds(given.ticket)
        lines = [_line(found), *map(_told, found.events), *map(_told, rounds)]
        _print(given, {**_plain(found), "rounds": _plain(rounds)}, "\n".join(lines))


def follow(given: argparse.Namespace) -> int:
    with _client() as client, _Told(given) as told:
        told.ticket = given.ticket
        for event in client.follow(given.ticket):
            print(json.dumps(_plain(event)) if given.json else _told(event), flush=True)
        found = client.ticket(given.ticket)
        _print(given, found, _line(found), indent=None)
        return 0 if found.status == "settled" else REFUNDED


def download(given: argparse.Namespace) -> None:
    with _client() as client, _Told(given) as told:
        _print_result(given, client.download(given.ticket, given.out, tell=told))


def receipt(given: argparse.Namespace) -> None:
    with _client() as client:
        text = client.receipt(given.ticket)
    if given.out is None:
        sys.stdout.write(text.decode())
    else:
        given.out.write_bytes(text)
        _print(given, {"receipt": str(given.out)}, f"{given.out}: check it by dmlworker verify {given.out}")


def tickets(given: argparse.Namespace) -> None:
    with _client() as client:
        found = client.tickets()
    _print(given, found, "\n".join(map(_line, found)) or "No tickets yet.")


def cancel(given: argparse.Namespace) -> None:
    with _client() as client:
        found = client.cancel(given.ticket)
    _print(given, found, _line(found))


COMMANDS: dict[str, tuple[Callable[[argparse.Namespace], int | None], tuple[str, ...], str]] = {
    "login": (login, ("login",), "Keep the address of a platform and a key for it."),
    "quote": (quote, ("file", "payer"), "What does it cost?"),
    "train": (train, ("file", "payer", "wallet", "out"), "Order, pay, upload, wait, download."),
    "status": (status, ("ticket",), "A ticket as it is, with its timeline."),
    "follow": (follow, ("ticket",), "Wait until a ticket has ended, and say what happens."),
    "download": (download, ("ticket", "out"), "The model and all that comes with it."),
    "receipt": (receipt, ("ticket", "out"), "The receipt, for dmlworker verify."),
    "list": (tickets, (), "Your tickets, newest first."),
    "cancel": (cancel, ("ticket",), "Before training starts: everything paid goes back."),
}


# --- Between the person and the client --------------------------------------------------------------------------------
class _Told:
    """Says what happens, on a terminal; and, when it is interrupted, how to go on."""

    def __init__(self, given: argparse.Namespace) -> None:
        self.progress = Progress()
        self.ticket, self.again = given.ticket or "", "dml follow"

    def __enter__(self) -> "_Told":
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        self.progress.__exit__(None, None, None)
        if kind is not None and issubclass(kind, KeyboardInterrupt | NetworkError) and self.ticket:
            print(f"The ticket goes on. To take it up again: {self.again} {self.ticket}", file=sys.stderr)

    def __call__(self, event: Event) -> None:
        if isinstance(event, Ticket):
            self.ticket = event.id
        self.progress(event)


def _client() -> DML:
    return DML.configured(progress=False)


def _options(given: argparse.Namespace) -> dict[str, Any]:
    return {**({"target": given.target} if given.target else {}), **given.options}


def _keystore(given: argparse.Namespace) -> Keystore:
    if not given.rpc:
        raise _Usage("A wallet needs a node of the chain: --rpc URL, or DML_RPC.")
    phrase = os.environ.get("DML_PASSPHRASE")
    phrase = _secret("Passphrase of the wallet: ") if phrase is None else phrase
    try:
        return Keystore(given.wallet, phrase, given.rpc, max_price=given.max_price, terms=config.load().terms)
    except ValueError as error:
        raise _Usage(str(error)) from None


def _secret(question: str) -> str:
    """Asked without an echo, or a line of standard input where nobody sits at a terminal. Never an argument: those show up in `ps`."""
    return getpass(question) if sys.stdin.isatty() else sys.stdin.readline().strip()


def _print(given: argparse.Namespace, value: Any, text: str, indent: int | None = 2) -> None:
    print(json.dumps(_plain(value), indent=indent) if given.json else text, flush=True)


def _print_result(given: argparse.Namespace, found: Result) -> None:
    lines = [_line(found.ticket), *map(str, found.files.values())]
    files = {name: str(path) for name, path in found.files.items()}
    _print(given, {**_plain(found.ticket), "files": files}, "\n".join(lines))


def _line(ticket: Ticket) -> str:
    right = f", {ticket.accuracy:.1%} right" if ticket.accuracy is not None else ""
    return f"{ticket.id}  {ticket.status}{right}  {ticket.price} DML  {ticket.file_name}{f'  {ticket.outcome}' * bool(ticket.outcome)}"


def _told(event: Happened | Round) -> str:
    if isinstance(event, Happened):
        return f"{event.at:%Y-%m-%d %H:%M:%S}  {event.new or event.kind}  {event.text}"
    right = f", {event.accuracy:.1%} right, loss {event.loss:.4g}" if event.accuracy is not None else ""
    return f"round {event.number}: {event.state}{right}"


def _plain(value: Any) -> Any:
    """For JSON: a ticket as the platform says it."""
    if isinstance(value, Ticket):
        return {**value.fields, "events": _plain(value.events)}
    if is_dataclass(value) and not isinstance(value, type):
        return _plain(asdict(value))
    if isinstance(value, dict):
        return {name: _plain(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    return str(value) if isinstance(value, Decimal | Path | datetime) else value


def _failed(error: Exception, as_json: bool) -> int:
    """Say why, and give the exit code."""
    print(json.dumps({"error": str(error)}) if as_json else f"dml: {error}", file=sys.stderr)
    codes: list[tuple[type[Exception], int]] = [
        (_Usage, USAGE),
        (DataError, USAGE),
        (Refused, REFUSED),
        (Refunded, REFUNDED),
        (Expired, REFUNDED),
        (NetworkError, NETWORK),
        (PaymentError, PAYMENT),
    ]
    return next((code for kind, code in codes if isinstance(error, kind)), OTHER)


if __name__ == "__main__":
    sys.exit(main())
