"""Local training: the same bits every time, a partial batch counted right, and files that plain Keras reads."""

import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from sklearn.metrics import f1_score

from dmlworker import comparison, datasets, models, trainer
from dmlworker.trainer import Hyper, MalformedUpdate

X = np.random.Generator(np.random.PCG64(0)).normal(size=(53, 4)).astype(np.float32)
Y = (X[:, 0] > 0).astype(np.int32) + (X[:, 1] > 1)
SPEC = models.spec(models.build((4,), 3, "mlp", models.statistics(X)))
START = trainer.initial_weights(SPEC, 1)
HYPER = Hyper(epochs=3, batch_size=10, learning_rate=0.1, seed=5)


def same(first: list[np.ndarray], second: list[np.ndarray]) -> bool:
    return all((a == b).all() for a, b in zip(first, second, strict=True))


def test_it_learns() -> None:
    before = trainer.evaluate(SPEC, START, X, Y)
    after = trainer.evaluate(SPEC, trainer.train(SPEC, START, X, Y, Hyper(30, 10, 0.1, 5)), X, Y)
    assert after.loss < before.loss / 2
    assert after.accuracy > 0.9
    assert after.samples == 53


def test_f1_is_the_mean_over_the_classes_that_occur() -> None:
    random = np.random.default_rng(0)
    y, answers = random.integers(0, 5, 200), random.integers(0, 7, 200)
    for labels, classes in ((y, answers), (y, y), (y * 2, y), (np.zeros(3, int), np.ones(3, int))):
        assert trainer._macro_f1(classes, labels) == pytest.approx(f1_score(labels, classes, average="macro"))
    assert trainer._macro_f1(np.array([-1, -1, 1]), np.array([0, 1, 1])) == pytest.approx(1 / 3)


def test_again_gives_the_same_bits_and_another_seed_does_not() -> None:
    first, other = (trainer.train(SPEC, START, X, Y, hyper) for hyper in (HYPER, Hyper(3, 10, 0.1, 6)))
    assert same(first, trainer.train(SPEC, START, X, Y, HYPER))
    assert not same(first, other)


def test_another_process_gives_the_same_bits(tmp_path: Path) -> None:
    code = (
        "import sys; from dmlworker.tests.test_trainer import *; from pathlib import Path;"
        "Path(sys.argv[1]).write_bytes(trainer.pack(trainer.train(SPEC, START, X, Y, HYPER)))"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "end")], check=True, capture_output=True)
    assert same(trainer.unpack((tmp_path / "end").read_bytes()), trainer.train(SPEC, START, X, Y, HYPER))


@pytest.mark.parametrize("mu", [0.0, 0.3])
def test_steps_are_plain_sgd_with_the_partial_batch_weighed_by_its_size_and_fedprox_pulls_back(mu: float) -> None:
    """Two steps by hand, of 40 and 13 samples. In the first there is nothing to be pulled back from."""
    spec = models.spec(models.build((4,), 3, "linear", models.Statistics([0.0] * 4, [1.0] * 4)))
    start = [array.astype(np.float64) for array in trainer.initial_weights(spec, 3)]
    kernel, bias = start
    order = np.random.Generator(np.random.PCG64(9)).permutation(53)
    for batch in (order[:40], order[40:]):
        logits = X[batch] @ kernel + bias
        chances = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
        error = (chances - np.eye(3)[Y[batch]]) / len(batch)
        pull = mu * (kernel - start[0]), mu * (bias - start[1])
        kernel, bias = kernel - 0.5 * (X[batch].T @ error + pull[0]), bias - 0.5 * (error.sum(axis=0) + pull[1])
    hyper = Hyper(1, 40, 0.5, 9, mu)
    for _ in range(2):  # the second time the anchors are left over from the first
        trained = trainer.train(spec, trainer.initial_weights(spec, 3), X, Y, hyper)
        np.testing.assert_allclose(trained[0], kernel, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(trained[1], bias, rtol=1e-5, atol=1e-6)


OPTIMIZERS: dict[str, Callable[[], Any]] = {
    "sgd": lambda: keras.optimizers.SGD(0.1),
    "momentum": lambda: keras.optimizers.SGD(0.1, momentum=0.9),
    "adam": lambda: keras.optimizers.Adam(0.01),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_ten_steps_are_those_of_keras_own_optimizers(name: str) -> None:
    """In JAX, see test_jax: the same as these."""
    rate = 0.01 if name == "adam" else 0.1
    hyper = Hyper(2, 10, rate, 5, optimizer=name)
    model = models.from_spec(SPEC)
    model.set_weights(START)
    model.compile(OPTIMIZERS[name](), loss="sparse_categorical_crossentropy")
    for order in trainer._orders(50, hyper):
        for batch in order.reshape(5, 10):
            model.train_on_batch(X[batch], Y[batch])
    ours = trainer.train(SPEC, START, X[:50], Y[:50], hyper)
    assert comparison.compare(START, ours, model.get_weights()).relative < 1e-5


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_round_begins_with_nothing_to_remember(name: str) -> None:
    hyper = replace(HYPER, optimizer=name, learning_rate=0.01)
    first = trainer.train(SPEC, START, X, Y, hyper)
    assert same(first, trainer.train(SPEC, START, X, Y, hyper))


def test_a_checkpoint_of_another_optimizer_is_refused() -> None:
    hyper = Hyper(1, 10, 0.01, 5, checkpoint_every=2, optimizer="momentum")
    at = trainer.replay(SPEC, START, X, Y, hyper, START, range(2))
    for wrong in (at[:-1], [*at, at[-1]], [*at[:-1], at[-1][1:]]):
        with pytest.raises(MalformedUpdate):
            trainer.replay(SPEC, START, X, Y, hyper, wrong, range(2, 4))
    with pytest.raises(MalformedUpdate):
        trainer.replay(SPEC, START, X, Y, hyper, at, range(2))


def test_no_step_is_longer_than_clipped_gradients_allow() -> None:
    """Some are shorter by themselves: those stay as they are, to the bit."""
    spec = models.spec(models.build((4,), 3, "linear"))
    start = trainer.initial_weights(spec, 3)

    def lengths(clip: float, mu: float = 0.0) -> list[float]:
        found = [start]
        hyper = Hyper(3, 10, 0.5, 9, mu, checkpoint_every=1, clip=clip)
        trainer.train(spec, start, X, Y, hyper, checkpoint=lambda weights: found.append(list(map(np.copy, weights))))
        return [
            float(np.sqrt(sum(np.square(b - a).sum() for a, b in zip(*pair, strict=True)))) for pair in pairwise(found)
        ]

    free = lengths(0.0)
    clip = 2 * float(np.median(free))
    assert lengths(1000.0) == free
    for mu in (0.0, 0.3):
        clipped = lengths(clip, mu)
        assert max(clipped) == pytest.approx(0.5 * clip, rel=1e-5) and min(clipped) < 0.49 * clip


def test_a_training_that_runs_away_does_not_with_clipped_gradients() -> None:
    spec = models.spec(models.build((4,), 3, "linear"))
    start, far = trainer.initial_weights(spec, 3), np.float32(1e6) * X
    losses = [
        trainer.evaluate(spec, trainer.train(spec, start, far, Y, Hyper(1, 10, 0.1, 9, clip=clip)), far, Y).loss
        for clip in (0.0, 0.01)
    ]
    assert losses[1] < losses[0] / 100


def test_progress_counts_up_to_the_last_step() -> None:
    seen: list[tuple[int, int, float]] = []
    trainer.train(SPEC, START, X, Y, HYPER, lambda *report: seen.append(report))
    assert seen[-1][:2] == (18, 18)
    assert [step for step, _, _ in seen] == sorted({step for step, _, _ in seen})
    assert all(np.isfinite(loss) for _, _, loss in seen)


def test_what_progress_raises_ends_the_training_and_leaves_the_next_one_alone() -> None:
    def stop(step: int, steps: int, loss: float) -> None:
        raise InterruptedError

    with pytest.raises(InterruptedError):
        trainer.train(SPEC, START, X, Y, HYPER, stop)
    assert same(trainer.train(SPEC, START, X, Y, HYPER), trainer.train(SPEC, START, X, Y, HYPER))


def test_one_compilation_serves_every_shard_and_round() -> None:
    trainer._program.cache_clear()
    for size in (53, 30, 11):
        trainer.train(SPEC, START, X[:size], Y[:size], HYPER)
    program = trainer._program(models.spec_bytes(SPEC), 10, "<f4", False, False, "sgd")
    assert trainer._program.cache_info().misses == 1
    assert program._steps._run.experimental_get_tracing_count() == 1


@pytest.mark.parametrize("weights", [START[:-1], [*START[:-1], np.zeros(4, np.float32)], []])
def test_weights_of_another_model_are_refused(weights: list[np.ndarray]) -> None:
    with pytest.raises(MalformedUpdate):
        trainer.train(SPEC, weights, X, Y, HYPER)


@pytest.mark.parametrize(("x", "y"), [(X[:, :3], Y), (X, Y[:5]), (X[:0], Y[:0]), (X, Y + 1), (X, Y - 1)])
def test_data_that_does_not_fit_is_refused(x: np.ndarray, y: np.ndarray) -> None:
    for call in (lambda: trainer.train(SPEC, START, x, y, HYPER), lambda: trainer.evaluate(SPEC, START, x, y)):
        with pytest.raises(ValueError, match="fit the model|outside"):
            call()


def test_outputs_that_are_not_finite_count_as_wrong() -> None:
    found = trainer.evaluate(SPEC, [np.full_like(array, 1e30) for array in START], X, Y)
    assert found.correct == 0
    assert found.loss == float("inf")


def test_exported_files_open_in_plain_keras_with_raw_rows(tmp_path: Path) -> None:
    images = np.random.default_rng(1).integers(0, 256, (20, 9, 9), dtype=np.uint8)
    labels = (np.arange(20) % 2).astype(np.int32)
    spec = models.spec(models.build((9, 9), 2))
    weights = trainer.train(spec, trainer.initial_weights(spec, 1), images, labels, HYPER)
    paths = trainer.export(spec, weights, tmp_path)
    assert [path.name for path in paths] == ["model.json", "model.weights.h5", "model.keras"]
    np.savez(tmp_path / "rows.npz", x=images)
    code = (
        "import keras, numpy as np, pathlib; x = np.load('rows.npz')['x'];"
        "a = keras.models.load_model('model.keras');"
        "b = keras.models.model_from_json(pathlib.Path('model.json').read_text());"
        "b.load_weights('model.weights.h5');"
        "p, q = a.predict(x), b.predict(x); assert (p == q).all(); print('RIGHT', *p.argmax(axis=1))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    guesses = [int(part) for part in done.stdout.split("RIGHT")[1].split()]
    assert int((np.array(guesses) == labels).sum()) == trainer.evaluate(spec, weights, images, labels).correct


def test_names_in_packed_weights_tell_the_layer() -> None:
    assert b"000/mlp/hidden_1/kernel" in trainer.pack(START, SPEC)
    assert same(trainer.unpack(trainer.pack(START, SPEC)), START)


def test_the_device_is_the_one_that_tensorflow_computes_on() -> None:
    import tensorflow as tf

    assert (trainer.device() == "CPU") == (not tf.config.list_physical_devices("GPU"))


def test_a_gpu_would_multiply_in_full_float32() -> None:
    code = (
        "import tensorflow as tf; from dmlworker import trainer; trainer.threads(1); trainer.threads(1);"
        "print(tf.config.experimental.tensor_float_32_execution_enabled(), tf.config.threading.get_intra_op_parallelism_threads())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.split() == ["False", "1"], done.stderr


# --- Large shards -----------------------------------------------------------------------------------------------------
def test_a_shard_that_is_not_in_memory_gives_the_same(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from dmlworker.backends import tensorflow

    weights = np.linspace(0.5, 1.5, len(Y), dtype=np.float32)
    (tmp_path / "shard").write_bytes(datasets.dump(X, Y.astype(np.int32), weights))
    found = []
    for held in (tensorflow.HELD, 0):
        monkeypatch.setattr(tensorflow, "HELD", held)
        x, y, w = datasets.mapped(tmp_path / "shard")
        found.append(trainer.train(SPEC, START, x, y, HYPER, w=w))
    assert same(*found)


IN_LITTLE = """
import resource, sys
from pathlib import Path
from dmlworker import datasets, models, trainer
from dmlworker.protocol import Hyper
def held():
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("VmData")) * 1024
x, y, w = datasets.mapped(Path(sys.argv[1]))
spec, hyper = models.spec(models.build(x.shape[1:], 2, "linear", models.Statistics([0.0] * 64, [1.0] * 64))), Hyper(1, 20, 0.1, 1)
start = trainer.initial_weights(spec, 1)
trainer.train(spec, start, x[:100], y[:100], hyper)
trainer.evaluate(spec, start, x[:300], y[:300])
most = held() + 200_000_000
resource.setrlimit(resource.RLIMIT_DATA, (most, most))
trainer.replay(spec, start, x, y, hyper, start, range(40))
trainer.evaluate(spec, start, x[-10_000:], y[-10_000:])
"""


def test_a_large_shard_takes_little_memory(tmp_path: Path) -> None:
    """1 GB, which the process could not hold."""
    rows, path = 4_000_000, tmp_path / "shard"
    x, y = np.broadcast_to(np.float32(0), (rows, 64)), np.broadcast_to(np.int32(0), rows)
    with path.open("wb") as file:
        file.write(next(datasets.pieces(x, y)))
        file.truncate(file.tell() + x.nbytes + y.nbytes)
    done = subprocess.run([sys.executable, "-c", IN_LITTLE, str(path)], capture_output=True, text=True)
    assert not done.returncode, done.stderr[-2000:]
