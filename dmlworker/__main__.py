"""The command line: `dmlworker --server URL --key KEY`, or `python -m dmlworker`; `dmlworker verify RECEIPT` for customers;
`dmlworker attest` shows an attestation report."""

import argparse
import asyncio
import contextlib
import os
import signal
import sys
import threading
import time
from getpass import getpass
from pathlib import Path

from dmlworker import __version__, attested, backends, bounds, spans, verify
from dmlworker.cache import MAX_BYTES
from dmlworker.client import Refused, Settings, Worker
from dmlworker.display import Display, display
from dmlworker.wallet import Wallet

EPILOG = "For customers: dmlworker verify RECEIPT checks a model's receipt; see dmlworker verify --help."
SECONDS_TO_END = 3.0
"""What a thread deep in arithmetic gets to look up before the process ends without it."""


def main(arguments: list[str] | None = None, worker: type[Worker] = Worker) -> int:
    """Runs a worker until Ctrl-C, SIGTERM or a refusal. Returns the exit code: 0, or 1 with the reason printed."""
    given = sys.argv[1:] if arguments is None else arguments
    if given[:1] == ["verify"]:
        return verify.main(given[1:])
    if given[:1] == ["attest"]:
        return attested.main(given[1:])
    options = parser().parse_args(given)
    try:
        wallet = Wallet.load(options.wallet, _passphrase()) if options.wallet else None
        given_up = options.threads, wallet, options.backend, int(options.disk * bounds.GIGABYTE)
        proof = attested.Attested(options.certificate) if options.attestation else None
        settings = Settings(options.server, options.key or "", options.cache, *given_up, proof)
    except ValueError as error:
        return _fail(str(error))
    bounds.settle(int(options.memory * bounds.GIGABYTE))
    return run(settings, worker)


def parser() -> argparse.ArgumentParser:
    """The options; DML_SERVER and DML_KEY stand in for the first two (a key in the environment shows up in no `ps`)."""
    found = argparse.ArgumentParser("dmlworker", description="Train models for DML and be paid for it.", epilog=EPILOG)
    server, key = os.environ.get("DML_SERVER"), os.environ.get("DML_KEY")
    found.add_argument("--server", default=server, required=not server, help="address of the platform [DML_SERVER]")
    who = found.add_mutually_exclusive_group(required=not key)
    who.add_argument("--key", default=key, help="API key from the provider page [DML_KEY]")
    who.add_argument(
        "--wallet",
        type=Path,
        help="instead of a key: the keystore file of your wallet [passphrase: DML_PASSPHRASE, or asked]",
    )
    found.add_argument("--cache", type=Path, default=Path.home() / ".cache" / "dml-worker", help="folder for data")
    found.add_argument(
        "--disk", type=_gigabytes, default=MAX_BYTES / bounds.GIGABYTE, help="gigabytes of that folder [4]"
    )
    found.add_argument(
        "--memory",
        type=_gigabytes,
        default=bounds.memory() / bounds.GIGABYTE,
        help="gigabytes of memory, at most (default: three quarters of the computer's; 0: any)",
    )
    found.add_argument("--threads", type=_positive, default=_cores(), help="threads to train with (default: all cores)")
    found.add_argument(
        "--backend",
        choices=sorted(backends.LIBRARIES),
        default=backends.DEFAULT,
        help="library to train with (default: %(default)s)",
    )
    found.add_argument(
        "--attestation", choices=["snp"], help="prove to the platform what this runs in: an AMD SEV-SNP guest"
    )
    found.add_argument(
        "--certificate", type=Path, help="AMD's certificate for this processor (VCEK), where the host does not give it"
    )
    found.add_argument("--version", action="version", version=f"dml-worker {__version__}")
    return found


def _passphrase() -> str:
    found = os.environ.get("DML_PASSPHRASE")
    return getpass("Passphrase of the wallet: ") if found is None else found


def _positive(text: str) -> int:
    number = int(text)
    if not 1 <= number <= 4096:
        raise argparse.ArgumentTypeError("must be from 1 to 4096")
    return number


def _gigabytes(text: str) -> float:
    number = float(text)
    if not 0 <= number < 10**6:
        raise argparse.ArgumentTypeError("must be a number of gigabytes")
    return number


def _cores() -> int:
    """The cores this process may use, which in a container are fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def run(settings: Settings, worker: type[Worker] = Worker) -> int:
    """As `main`, the settings given."""
    spans.start()
    try:
        with display() as shown:
            if settings.server.startswith("http:") and not settings.local:
                shown.say(
                    "Warning: http:// sends your key and the data unprotected. Use https:// if the platform has it."
                )
            asyncio.run(_until_signal(settings, worker, shown))
        code = 0
    except Refused as error:
        code = _fail(str(error))
    except KeyboardInterrupt:  # where the loop can't take signals (Windows)
        code = 0
    except OSError as error:
        code = _fail(f"{error.strerror or error}: {error.filename or settings.cache}")
    _leave(code)
    return code


async def _until_signal(settings: Settings, worker: type[Worker], shown: Display) -> None:
    working = worker(settings, shown)
    for number in (signal.SIGINT, signal.SIGTERM):
        with contextlib.suppress(NotImplementedError):
            asyncio.get_running_loop().add_signal_handler(number, working.stop)
    await working.run()
    shown.say("Ended.")


def _fail(reason: str) -> int:
    print(f"dmlworker: {reason}", file=sys.stderr, flush=True)
    return 1


def _leave(code: int) -> None:
    """Python would wait for the training thread without end; its work was dropped, so the process need not."""
    end = time.monotonic() + SECONDS_TO_END
    for thread in threading.enumerate():
        if thread.name.startswith("trainer"):
            thread.join(max(0.0, end - time.monotonic()))
            if thread.is_alive():
                sys.stdout.flush()
                os._exit(code)


if __name__ == "__main__":
    sys.exit(main())
