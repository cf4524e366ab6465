"""What a worker takes of its provider's computer: in a process of its own, since there is no way back."""

import os
import subprocess
import sys

import pytest

from dmlworker import bounds
from dmlworker.protocol import Blob, Hyper, Lease, Offer

OFFER = Offer(Lease("r", 1, 0, 1), Blob("a" * 64, 10), Blob("b" * 64, 10), Blob("c" * 64, 10), Hyper(1, 20, 0.1, 7), 0)


def bounded(work: str, memory: int = 0) -> subprocess.CompletedProcess[str]:
    lines = f"from dmlworker import bounds\nbounds.settle({memory})\n{work}"
    return subprocess.run([sys.executable, "-c", lines], capture_output=True, text=True, timeout=300)


@pytest.mark.parametrize(
    "start",
    [
        "import os; os.system('echo out')",
        "import subprocess; subprocess.run(['echo', 'out'])",
        "import os; os.execv('/bin/echo', ['echo', 'out'])",
        "import os; os.posix_spawn('/bin/echo', ['echo', 'out'], {})",
        "import os; os.fork() or print('out')",
        "import pty; pty.spawn('/bin/sh')",
    ],
)
def test_no_other_program_is_started(start):
    done = bounded(start)
    assert "starts no other program" in done.stderr and "out" not in done.stdout and done.returncode


def test_more_memory_than_was_given_is_refused():
    done = bounded("import numpy; numpy.ones(10**8); print('out')", memory=500 * 10**6)
    assert "MemoryError" in done.stderr and "out" not in done.stdout
    assert bounded("import numpy; numpy.ones(10**7); print('out')", memory=500 * 10**6).stdout == "out\n"


def test_other_programs_go_first_and_nothing_is_left_of_a_crash():
    done = bounded("import os, resource; print(os.nice(0), resource.getrlimit(resource.RLIMIT_CORE))")
    assert done.stdout == f"{min(os.nice(0) + bounds.NICE, 19)} (0, 0)\n"


@pytest.mark.parametrize("backend", ["tensorflow", "jax"])
def test_training_goes_on_within_the_bounds(backend):
    done = bounded(
        f"""
import numpy as np
from dmlworker import backends
backends.choose({backend!r})
from dmlworker import models, trainer
trainer.threads(1)
x, y = np.ones((40, 4), np.float32), np.arange(40, dtype=np.int32) % 2
model = models.build((4,), 2, "mlp")
done = trainer.train(models.spec(model), model.get_weights(), x, y, trainer.Hyper(1, 20, 0.1, 7))
print("trained", len(done) > 0)
""",
        memory=bounds.memory(),
    )
    assert "trained True" in done.stdout, done.stderr[-2000:]


@pytest.mark.parametrize(("what", "size"), [("spec", 10**8), ("weights", 10**9), ("shard", 10**11)])
def test_an_offer_of_too_much_is_declined_before_it_is_fetched(what, size):
    bounds.check(OFFER)
    with pytest.raises(bounds.TooMuch, match="bytes"):
        bounds.check(Offer(**vars(OFFER) | {what: Blob("d" * 64, size)}))


def test_three_quarters_of_the_computers_memory_are_the_most_by_default():
    assert 0 < bounds.memory() < 10**14
