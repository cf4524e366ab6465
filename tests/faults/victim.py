"""A process that sends or reads, and is killed (SIGKILL) at the worst moment, as `kill -9` or the kernel would.

python -m tests.faults.victim send TX --die before-broadcast | after-broadcast | before-commit
python -m tests.faults.victim scan --die in-transaction | after-commit
python -m tests.faults.victim race TX …     says "ready", waits for a line, sends all of them
"""

import argparse
import os
import signal
import sys
from typing import Any

import django


def die(*_: Any) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def send(tx: str, moment: str) -> None:
    from contracts.chain import Chain
    from ledger import outbox
    from ledger.models import ChainTx

    if moment == "before-commit":
        outbox._store = die
    elif moment == "before-broadcast":
        Chain.broadcast = die  # type: ignore[method-assign,assignment]
    else:
        whole = Chain.broadcast

        def broadcast(chain: Chain, raw: bytes) -> str:
            whole(chain, raw)
            die()
            return ""

        Chain.broadcast = broadcast  # type: ignore[method-assign]
    outbox.send(ChainTx.objects.get(pk=tx))


def scan(moment: str) -> None:
    from ledger import books
    from ledger.gateway import chain
    from ledger.scanner import Scanner

    scanner = Scanner(chain())
    if moment == "in-transaction":
        whole = books.record

        def record(event: Any) -> None:
            whole(event)
            die()

        books.record = record
        scanner.scan()
    else:
        scanner.scan()
        die()


def race(txs: list[str]) -> None:
    from ledger import outbox
    from ledger.gateway import chain, key
    from ledger.models import ChainTx

    chain(), key("settler")
    print("ready", flush=True)
    sys.stdin.readline()
    for tx in txs:
        outbox.send(ChainTx.objects.get(pk=tx))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("step", choices=["send", "scan", "race"])
    parser.add_argument("txs", nargs="*")
    parser.add_argument("--die", default="")
    options = parser.parse_args()
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "dmlsite.settings")
    django.setup()
    from dmlsite import jobs

    jobs._send = lambda *_: None  # each step is taken by hand
    if options.step == "send":
        send(options.txs[0], options.die)
    elif options.step == "scan":
        scan(options.die)
    else:
        race(options.txs)


if __name__ == "__main__":
    main()
