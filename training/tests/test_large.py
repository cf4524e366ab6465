"""Hold-outs and shards of any size: what the platform does with them takes the memory of a few blocks."""

import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from django.core.files.storage import default_storage

from dmlworker import datasets, models, trainer
from dmlworker.weights import pack
from training import actions, compute, store
from training.models import Assignment, Blob, Round, Run
from training.tests.conftest import commit, leases, make_provider, make_ticket

ROWS, WIDTH = 16_000, 4096
"""262 MB."""
LITTLE = 64_000_000


def zeros(name: str) -> Blob:
    """A stored file of samples that takes no place on the disk."""
    x, y = np.broadcast_to(np.float32(0), (ROWS, WIDTH)), np.broadcast_to(np.int32(0), ROWS)
    header = next(datasets.pieces(x, y))
    blob = Blob.objects.create(sha256=name * 64, size=len(header) + x.nbytes + y.nbytes)
    path = Path(default_storage.path(store.path(blob.pk)))
    path.parent.mkdir(parents=True)
    with path.open("wb") as file:
        file.write(header)
        file.truncate(blob.size)
    return blob


@pytest.fixture
def run(transactional_db, files, settings) -> Run:
    """Two large shards and a large hold-out; the first round's updates are the start weights."""
    settings.PROVIDERS_PER_TICKET = 2
    spec = models.spec(models.build((WIDTH,), 2, "linear", models.Statistics([0.0] * WIDTH, [1.0] * WIDTH)))
    blobs = [store.put(found) for found in (models.spec_bytes(spec), pack(trainer.initial_weights(spec, 1)))]
    shards = [(zeros(name), ROWS) for name in "ab"]
    prepared = actions.Prepared(*blobs, zeros("c"), shards, ["a", "b"], {"holdout_samples": ROWS})
    found = actions.open_run(make_ticket(rounds=2, reward="merit-1"), prepared, seed=7)
    for name in "ab":
        make_provider(name)
    assert actions.start(found)
    for lease in leases(found):
        commit(lease)
        Assignment.objects.filter(pk=lease.pk).update(update=blobs[1], weights=blobs[1])
    Round.objects.filter(run=found).update(end=blobs[1])
    return Run.objects.get(pk=found.pk)


@pytest.fixture
def traced(run: Run) -> Iterator[Callable[[], int]]:
    """The most bytes that there were at once; TensorFlow is warm."""
    spec, start = compute.spec_of(run), compute.weights_of(run.start_id)
    x, y = np.zeros((300, WIDTH), np.float32), np.zeros(300, np.int32)
    trainer.evaluate(spec, start, x, y)
    trainer.predict(spec, start, x)
    compute._panel.cache_clear()
    tracemalloc.start()
    yield lambda: tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    compute._panel.cache_clear()


def test_looking_and_measuring(run, traced):
    round_, updates = run.all_rounds.get(), list(Assignment.objects.filter(round__run=run))
    for update in updates:
        compute.look(update)
    compute.root_update(round_)
    assert compute.measure(round_, updates)[0] in (0.0, 1.0)
    assert all(update.contribution == 0 for update in updates)
    assert traced() < LITTLE


def test_a_segment_is_replayed(run, traced):
    lease = Assignment.objects.filter(round__run=run).first()
    files = {"spec": store.get(run.spec_id), "start": store.get(run.start_id)}
    start = compute.weights_of(run.start_id)
    with store.local(lease.shard.blob_id) as shard:
        work = compute.Work(lease, actions.hyper_of(lease), None, files, shard, start)
        assert [array.shape for array in compute._replay_here(work, 1, start)] == [array.shape for array in start]
    assert traced() < LITTLE


def test_the_final_measures_and_samples_for_other_formats(run, traced, tmp_path):
    compute.assess(run, run.start_id)
    assert Run.objects.get(pk=run.pk).metrics["accuracy"][0] in (0.0, 1.0)
    assert compute.convert(run, tmp_path, []) == ([], {})
    assert traced() < LITTLE
