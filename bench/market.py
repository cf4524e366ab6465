"""Runs inside a platform's environment: puts providers with keys, and a run that waits for them, into its database.

python -m bench.market PROVIDERS MEGABYTES      prints {"keys": [...]}; 0 MEGABYTES: no run
"""

import json
import os
import sys
from datetime import timedelta
from uuid import uuid4

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "dmlsite.settings")

import django

django.setup()

import keras  # noqa: E402
import numpy as np  # noqa: E402
from django.db import transaction  # noqa: E402
from django.utils import timezone  # noqa: E402

from accounts.models import ApiKey, User  # noqa: E402
from dmlworker import models, trainer  # noqa: E402
from dmlworker.weights import pack  # noqa: E402
from providers.models import Provider, Standing  # noqa: E402
from tickets.models import Status, Ticket  # noqa: E402
from training import actions, datasets, store  # noqa: E402

FEATURES, SAMPLES = 20, 20
ROUNDS = 10**9
"""So many that nobody is drawn for an audit: a replay would find out that these workers do nothing."""


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


def ticket() -> Ticket:
    customer = User.objects.create_user(f"{uuid4().hex[:8]}@example.org", None, is_customer=True)
    soon = timezone.now() + timedelta(days=1)
    fixed = {"file_name": "a.csv", "file_size": 10, "price": 10_000, "payer": "0x" + "a" * 40, "signature": b""}
    return Ticket.objects.create(
        customer=customer, status=Status.UPLOADED, rounds=ROUNDS, pay_by=soon, settle_by=soon, **fixed
    )


def model(megabytes: int) -> dict[str, object]:
    """A dense net of so many MB of weights."""
    width = round((megabytes * 250_000) ** 0.5)
    layers = [keras.layers.Dense(width, activation="relu") for _ in range(2)]
    last = [keras.layers.Dense(2), keras.layers.Activation("softmax")]
    return models.spec(keras.Sequential([keras.Input((FEATURES,)), *layers, *last]))


def run(parts: int, megabytes: int) -> None:
    """A run that waits for so many providers."""
    random = np.random.default_rng(1)
    x, y = random.normal(size=(SAMPLES, FEATURES)).astype(np.float32), np.arange(SAMPLES, dtype=np.int32) % 2
    spec = model(megabytes)
    blobs = [models.spec_bytes(spec), pack(trainer.initial_weights(spec, 1)), datasets.dump(x, y)]
    shards = [(store.put(datasets.dump(x + number, y)), SAMPLES) for number in range(parts)]
    prepared = actions.Prepared(*map(store.put, blobs), shards, ["a", "b"], {"holdout_samples": SAMPLES})
    actions.open_run(ticket(), prepared, seed=1)


@transaction.atomic
def main(count: int, megabytes: int) -> None:
    print(json.dumps({"keys": providers(count)}))
    if megabytes:
        run(count, megabytes)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
