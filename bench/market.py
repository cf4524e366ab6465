"""Runs inside a platform's environment: puts people with keys, and what they work on, into its database. What it prints is a list.

python -m bench.market case CASE.npz ROUNDS     a run that waits for a provider for each of the case's shards: their keys
python -m bench.market idle PROVIDERS           so many, and no run: their keys
python -m bench.market paid CUSTOMERS           each with a ticket that waits for its file: (key, ticket) of each
python -m bench.market people PROVIDERS CUSTOMERS
    whose deposits, coins and tokens are on the chain: the providers' keys; (key, the wallet's private key) of each customer
"""

import json
import os
import sys
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any, cast
from uuid import uuid4

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "dmlsite.settings")

import django

django.setup()

from django.conf import settings  # noqa: E402
from django.db import transaction  # noqa: E402
from django.utils import timezone  # noqa: E402
from eth_account import Account  # noqa: E402

from accounts.models import ApiKey, User  # noqa: E402
from bench.case import SEED, Case  # noqa: E402
from contracts import devchain  # noqa: E402
from contracts.chain import Key  # noqa: E402
from dmlworker import datasets  # noqa: E402
from dmlworker.models import spec_bytes  # noqa: E402
from dmlworker.weights import pack  # noqa: E402
from ledger.gateway import chain, key  # noqa: E402
from providers.actions import deposit_call  # noqa: E402
from providers.models import Provider, Standing  # noqa: E402
from tickets.models import Status, Ticket  # noqa: E402
from training import actions, evidence, store  # noqa: E402

COINS, TOKENS = 10**9, 10**7
"""gwei, and micro-DML, that everybody gets."""


def providers(count: int, standing: str = Standing.ACTIVE) -> list[str]:
    """Returns a key for the worker of each."""
    mark = uuid4().hex[:6]
    names = [f"p{number}-{mark}" for number in range(count)]
    users = [User(email=f"{name}@example.org", password="!", is_provider=True) for name in names]
    User.objects.bulk_create(users)
    Provider.objects.bulk_create(
        Provider(user=user, user_name=name, wallet=wallet(standing), standing=standing)
        for user, name in zip(users, names, strict=True)
    )
    return [ApiKey.issue(user) for user in users]


def wallet(standing: str) -> str | None:
    return f"0x{uuid4().hex}00000000" if standing == Standing.ACTIVE else None


def customer() -> User:
    return User.objects.create(
        email=f"{uuid4().hex[:8]}@example.org", password="!", is_customer=True, confirmed=timezone.now()
    )


def key_of(someone: User) -> str:
    return ApiKey.issue(someone, "bench", ApiKey.Use.CLIENT)


def ticket(status: str, rounds: int = 1) -> Ticket:
    soon = timezone.now() + timedelta(days=1)
    fixed = {"file_name": "a.csv", "file_size": 10**9, "price": 10_000, "payer": "0x" + "a" * 40, "signature": b""}
    return Ticket.objects.create(
        customer=customer(), status=status, rounds=rounds, pay_by=soon, settle_by=soon, **fixed
    )


def prepared(case: Case) -> actions.Prepared:
    return actions.Prepared(
        spec=store.put(spec_bytes(case.spec)),
        start=store.put(pack(case.start)),
        holdout=store.put(datasets.dump(*case.holdout)),
        shards=[(store.put(datasets.dump(x, y)), len(y)) for x, y in case.shards],
        segment_steps=evidence.segment_steps(case.spec),
        classes=[str(number) for number in range(len(case.start[-1]))],
        facts={"holdout_samples": len(case.holdout[1])},
    )


def case(file: str, rounds: str) -> list[str]:
    found = Case.load(Path(file))
    actions.open_run(ticket(Status.UPLOADED, int(rounds)), prepared(found), seed=SEED)
    return providers(len(found.shards))


def paid(count: str) -> list[tuple[str, str]]:
    tickets = [ticket(Status.PAID) for _ in range(int(count))]
    return [(key_of(found.customer), str(found.pk)) for found in tickets]


def people(workers: str, customers: str) -> list[list[Any]]:
    return [deposited(int(workers)), [with_tokens() for _ in range(int(customers))]]


def deposited(count: int) -> list[str]:
    """Providers whose deposits are sent; they are in standing when the scanner has read of them."""
    keys = providers(count, Standing.PENDING)
    for provider in Provider.objects.filter(standing=Standing.PENDING):
        wallet = with_coins()
        call = deposit_call(provider, wallet.address)
        transaction.on_commit(partial(chain().send, call, wallet))
    return keys


def with_coins() -> Key:
    wallet = cast(Key, Account.create())
    devchain.fund(settings.CHAIN_RPC_URL, wallet.address, COINS)
    return wallet


def with_tokens() -> tuple[str, str]:
    wallet = with_coins()
    chain().send(chain().transfer_call(wallet.address, TOKENS), key("admin"))
    return key_of(customer()), wallet.key.hex()


COMMANDS: dict[str, Callable[..., list[Any]]] = {
    "case": case,
    "idle": lambda count: providers(int(count)),
    "paid": paid,
    "people": people,
}


@transaction.atomic
def main(what: str, *given: str) -> list[Any]:
    return COMMANDS[what](*given)


if __name__ == "__main__":
    print(json.dumps(main(*sys.argv[1:])))
