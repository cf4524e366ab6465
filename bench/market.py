"""Runs inside a platform's environment: puts providers with keys, and a run that waits for them, into its database.

python -m bench.market CASE.npz ROUNDS      prints ["key", ...], one for each of the case's shards
python -m bench.market PROVIDERS            so many, and no run
"""

import json
import os
import sys
from datetime import timedelta
from pathlib import Path
from uuid import uuid4

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "dmlsite.settings")

import django

django.setup()

from django.db import transaction  # noqa: E402
from django.utils import timezone  # noqa: E402

from accounts.models import ApiKey, User  # noqa: E402
from bench.case import SEED, Case  # noqa: E402
from dmlworker import datasets  # noqa: E402
from dmlworker.models import spec_bytes  # noqa: E402
from dmlworker.weights import pack  # noqa: E402
from providers.models import Provider, Standing  # noqa: E402
from tickets.models import Status, Ticket  # noqa: E402
from training import actions, evidence, store  # noqa: E402


def providers(count: int) -> list[str]:
    """Providers in standing; returns a key for the worker of each."""
    mark = uuid4().hex[:6]
    names = [f"p{number}-{mark}" for number in range(count)]
    users = [User(email=f"{name}@example.org", password="!", is_provider=True) for name in names]
    User.objects.bulk_create(users)
    Provider.objects.bulk_create(
        Provider(user=user, user_name=name, wallet=f"0x{uuid4().hex}00000000", standing=Standing.ACTIVE)
        for user, name in zip(users, names, strict=True)
    )
    return [ApiKey.issue(user) for user in users]


def ticket(rounds: int) -> Ticket:
    customer = User.objects.create_user(f"{uuid4().hex[:8]}@example.org", None, is_customer=True)
    soon = timezone.now() + timedelta(days=1)
    fixed = {"file_name": "a.csv", "file_size": 10, "price": 10_000, "payer": "0x" + "a" * 40, "signature": b""}
    return Ticket.objects.create(
        customer=customer, status=Status.UPLOADED, rounds=rounds, pay_by=soon, settle_by=soon, **fixed
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


def open_run(file: Path, rounds: int) -> int:
    """Returns for how many providers it waits."""
    case = Case.load(file)
    actions.open_run(ticket(rounds), prepared(case), seed=SEED)
    return len(case.shards)


@transaction.atomic
def main(what: str, *rounds: str) -> None:
    print(json.dumps(providers(open_run(Path(what), int(rounds[0])) if rounds else int(what))))


if __name__ == "__main__":
    main(*sys.argv[1:])
