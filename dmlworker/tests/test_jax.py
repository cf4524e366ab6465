"""JAX in TensorFlow's place: the same result up to rounding, and no TensorFlow anywhere near it.

Keras has one library per process: what JAX computes is computed in another one, `in_jax`.
"""

import asyncio
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from safetensors.numpy import save

from dmlworker import comparison, models, trainer
from dmlworker.protocol import Commit, Hyper
from dmlworker.tests.platform import KEY, serving

RANDOM = np.random.Generator(np.random.PCG64(0))
TABLE = RANDOM.normal(size=(50, 4)).astype(np.float32)
IMAGES = RANDOM.integers(0, 256, (50, 8, 8), dtype=np.uint8)
LABELS = (TABLE[:, 0] > 0).astype(np.int32) + (TABLE[:, 1] > 1)
NUMBERS = (1000 + 50 * TABLE[:, 0] - TABLE[:, 2]).astype(np.float32)
SEVERAL = (TABLE[:, :3] > 0.5).astype(np.uint8)
SERIES = RANDOM.normal(size=(50, 12, 3)).astype(np.float32)
TEXTS = (RANDOM.integers(0, 30, (50, 12)) * (np.arange(12) < RANDOM.integers(0, 13, (50, 1)))).astype(np.uint16)
"""Some are empty."""
PLAIN = ["linear", "mlp", "cnn", "frozen", "number", "several"]
OTHERS = [
    "resmlp",
    "resnet",
    *(f"{of}-{kind}" for of in ("series", "text") for kind in ("cnn1d", "gru", "transformer")),
]
KINDS = [*PLAIN, *OTHERS, "text-linear"]


class Case(NamedTuple):
    """A training of five steps; 47 samples leave 7 for the last."""

    kind: str
    samples: int
    mu: float
    clip: float = 0.0
    optimizer: str = "sgd"

    @property
    def hyper(self) -> Hyper:
        rate = 0.003 if self.optimizer == "adam" else 0.1
        return Hyper(1, 10, rate, 5, self.mu, checkpoint_every=4, clip=self.clip, optimizer=self.optimizer)

    @property
    def data(self) -> tuple[np.ndarray, np.ndarray]:
        y = {"number": NUMBERS, "several": SEVERAL}.get(self.kind, LABELS)
        named = {"cnn": IMAGES, "resnet": IMAGES, "series": SERIES, "text": TEXTS}
        return named.get(self.kind.split("-")[0], TABLE)[: self.samples], y[: self.samples]

    @property
    def name(self) -> str:
        return f"{self.kind}-{self.samples}-{self.mu}-{self.clip}-{self.optimizer}"


CASES = [Case(kind, samples, mu) for kind in PLAIN for samples in (50, 47) for mu in (0.0, 0.3)]
CASES += [Case(kind, 47, 0.3) for kind in KINDS if kind not in PLAIN]
CASES += [Case(kind, 47, 0.3, 0.2) for kind in ("mlp", "number", "text-cnn1d")]
REMEMBERING = [
    Case(kind, 47, 0.3, 0.2, name)
    for kind in ("mlp", "cnn", "frozen", "text-transformer")
    for name in ("momentum", "adam")
]
CASES += REMEMBERING

AGAIN = [case for case in CASES if case.mu]


def spec_of(kind: str) -> dict[str, Any]:
    if kind == "number":
        head = {"task": "regression", "target": models.target_statistics(NUMBERS)}
        return models.spec(models.build((4,), 1, "mlp", models.statistics(TABLE), **head))
    if kind == "several":
        return models.spec(models.build((4,), 3, "mlp", models.statistics(TABLE), task="multilabel"))
    of, _, rest = kind.rpartition("-")
    if of == "text":
        return models.spec(models.build((12,), 3, rest, tokens=30))
    if of == "series":
        return models.spec(models.build((12, 3), 3, rest, models.statistics(SERIES)))
    if kind in ("cnn", "resnet"):
        return models.spec(models.build((8, 8), 3, kind))
    spec = models.spec(models.build((4,), 3, "mlp" if kind == "frozen" else kind, models.statistics(TABLE)))
    if kind == "frozen":
        hidden = next(layer for layer in spec["config"]["layers"] if layer["config"]["name"] == "hidden_1")
        hidden["config"]["trainable"] = False
    return spec


def train(folder: Path, case: Case) -> list[np.ndarray]:
    spec, start = (folder / case.kind).with_suffix(".json").read_bytes(), (folder / case.kind).read_bytes()
    return trainer.train(models.spec_from_bytes(spec), trainer.unpack(start), *case.data, case.hyper)


def checkpoint(folder: Path, case: Case) -> list[np.ndarray]:
    """After four steps: the weights, and what the optimizer remembers."""
    spec, start = (
        (folder / case.kind).with_suffix(".json").read_bytes(),
        trainer.unpack((folder / case.kind).read_bytes()),
    )
    return trainer.replay(models.spec_from_bytes(spec), start, *case.data, case.hyper, start, range(4))


def in_jax(folder: Path) -> None:
    """Every case, half of them again and compiled anew; what start weights and huge ones get right; the compilations."""
    import keras

    assert keras.backend.backend() == "jax"
    trainer.threads(1)
    for cases, again in ((CASES, ""), (AGAIN, "-again")):
        trainer._program.cache_clear()
        for case in cases:
            (folder / f"{case.name}{again}-jax").write_bytes(trainer.pack(train(folder, case)))
    for case in REMEMBERING:
        (folder / f"{case.name}-state").write_bytes(trainer.pack(checkpoint(folder, case)))
    for kind in KINDS:
        spec = models.spec_from_bytes((folder / f"{kind}.json").read_bytes())
        start = trainer.unpack((folder / kind).read_bytes())
        huge = [np.full_like(array, 1e30) for array in start]
        found = [trainer.evaluate(spec, start, *Case(kind, samples, 0).data) for samples in (50, 47)]
        found.append(trainer.evaluate(spec, huge, *Case(kind, 50, 0).data))
        np.save(
            folder / f"{kind}-scores.npy",
            [(each.correct, each.samples, each.loss, each.f1 or 0, each.score) for each in found],
        )
    for samples in (50, 47):
        train(folder, Case("mlp", samples, 0.0))
    program = trainer._program((folder / "mlp.json").read_bytes(), 10, "<f4", False, False, "sgd")
    np.save(folder / "compiled.npy", program._steps._step._cache_size())  # type: ignore[attr-defined]
    assert "tensorflow" not in sys.modules


def run(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"KERAS_BACKEND": "jax"}
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=900)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Specs, start weights, and what JAX made of them."""
    made = tmp_path_factory.mktemp("jax")
    for kind in KINDS:
        spec = spec_of(kind)
        (made / f"{kind}.json").write_bytes(models.spec_bytes(spec))
        (made / kind).write_bytes(trainer.pack(trainer.initial_weights(spec, 1)))
    code = "import sys, pathlib; from dmlworker.tests import test_jax; test_jax.in_jax(pathlib.Path(sys.argv[1]))"
    done = run(code, str(made))
    assert done.returncode == 0, done.stderr
    return made


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_five_steps_give_what_tensorflow_gives(folder: Path, case: Case) -> None:
    ours, theirs = train(folder, case), trainer.unpack((folder / f"{case.name}-jax").read_bytes())
    starts = trainer.unpack((folder / case.kind).read_bytes())
    moved = [np.linalg.norm(mine - start) for mine, start in zip(ours, starts, strict=True)]
    assert np.count_nonzero(moved) == len(moved) - 2 * (case.kind == "frozen")  # its kernel and bias stay
    assert comparison.compare(starts, theirs, ours).relative < 1e-3
    if (
        case.optimizer == "adam"
    ):  # which moves what gets no gradient but for rounding, like the bias of attention's keys, as well
        return
    for mine, other, length in zip(ours, theirs, moved, strict=True):
        np.testing.assert_allclose(other, mine, rtol=1e-5, atol=1e-5)
        # Against what the steps did, too: weights hardly move in five. What does not count, like the bias of attention's keys, moves
        # by rounding alone. A deep net amplifies it.
        assert np.linalg.norm(other - mine) <= (1e-4 if case.kind in PLAIN else 1e-3) * length + 1e-7


@pytest.mark.parametrize("case", REMEMBERING, ids=lambda case: case.name)
def test_what_is_remembered_is_what_tensorflow_remembers_and_either_goes_on_from_it(folder: Path, case: Case) -> None:
    theirs, start = (trainer.unpack((folder / name).read_bytes()) for name in (f"{case.name}-state", case.kind))
    ours, spec = checkpoint(folder, case), models.spec_from_bytes((folder / f"{case.kind}.json").read_bytes())
    assert comparison.compare_checkpoints(case.optimizer, len(start), start, theirs, ours).relative < 1e-3
    end = trainer.replay(spec, start, *case.data, case.hyper, theirs, range(4, 5))
    jax = trainer.unpack((folder / f"{case.name}-jax").read_bytes())
    assert comparison.compare(theirs[: len(start)], jax, end).relative < 1e-3


@pytest.mark.parametrize("case", AGAIN, ids=lambda case: case.name)
def test_again_gives_the_same_bits(folder: Path, case: Case) -> None:
    assert (folder / f"{case.name}-jax").read_bytes() == (folder / f"{case.name}-again-jax").read_bytes()


@pytest.mark.parametrize("kind", ["resnet", "text-linear", "text-cnn1d", "text-gru", "text-transformer"])
def test_tensorflow_compiled_anew_gives_the_same_bits(tmp_path: Path, kind: str) -> None:
    spec = spec_of(kind)
    (tmp_path / f"{kind}.json").write_bytes(models.spec_bytes(spec))
    (tmp_path / kind).write_bytes(trainer.pack(trainer.initial_weights(spec, 1)))
    first = trainer.pack(train(tmp_path, Case(kind, 47, 0.3)))
    trainer._program.cache_clear()
    assert trainer.pack(train(tmp_path, Case(kind, 47, 0.3))) == first


@pytest.mark.parametrize("kind", KINDS)
def test_as_many_are_right(folder: Path, kind: str) -> None:
    start = trainer.unpack((folder / kind).read_bytes())
    for samples, (correct, counted, loss, f1, score) in zip(
        (50, 47), np.load(folder / f"{kind}-scores.npy"), strict=False
    ):
        ours = trainer.evaluate(spec_of(kind), start, *Case(kind, samples, 0).data)
        assert (ours.correct, ours.samples, ours.f1 or 0) == (correct, counted, f1)
        assert (ours.loss, ours.score) == pytest.approx((loss, score), rel=1e-5)


@pytest.mark.parametrize("kind", ["mlp", "cnn", "several"])
def test_outputs_that_are_not_finite_count_as_wrong(folder: Path, kind: str) -> None:
    correct, _, loss, f1, _ = np.load(folder / f"{kind}-scores.npy")[-1]
    assert (correct, loss, f1) == (0, np.inf, 0)


def test_one_compilation_serves_every_shard_and_round(folder: Path) -> None:
    assert np.load(folder / "compiled.npy") == 1


def test_threads_are_pinned_until_jax_runs() -> None:
    code = (
        "import pathlib; from dmlworker import trainer; trainer.threads(3); trainer.threads(3);"
        "import jax.numpy as jnp; jnp.ones((500, 500)) @ jnp.ones((500, 500));"
        "names = [path.read_text().strip() for path in pathlib.Path('/proc/self/task').glob('*/comm')];"
        "import jax; print(names.count('tf_XLAEigen'), jax.config.jax_default_matmul_precision); trainer.threads(2)"
    )
    done = run(code)
    assert done.stdout.split() == ["3", "highest"]
    assert "RuntimeError" in done.stderr
    late = run("import jax; jax.devices(); from dmlworker import trainer; trainer.threads(1)")
    assert "RuntimeError" in late.stderr


def broken(folder: Path, package: str) -> dict[str, str]:
    """An environment in which a package can't be imported, and every attempt leaves a file."""
    (folder / f"{package}.py").write_text(
        f"import pathlib; pathlib.Path({str(folder / 'tried')!r}).touch(); raise ImportError('it is broken')"
    )
    return os.environ | {"PYTHONPATH": str(folder)}


async def worker(platform_url: str, cache: Path, env: dict[str, str]) -> asyncio.subprocess.Process:
    options = ("--server", platform_url, "--key", KEY, "--cache", str(cache), "--threads", "1", "--backend", "jax")
    pipe = asyncio.subprocess.PIPE
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", "dmlworker", *options, stdout=pipe, stderr=pipe, env=env
    )


def test_a_worker_serves_an_offer_without_tensorflow(folder: Path, tmp_path: Path) -> None:
    case = Case("cnn", 47, 0.3)
    x, y = case.data

    async def scenario() -> bytes:
        async with asyncio.timeout(120), serving() as platform:
            spec, start = (folder / "cnn.json").read_bytes(), (folder / "cnn").read_bytes()
            platform.offer(spec, start, save({"x": x, "y": y}), case.hyper)
            process = await worker(platform.url, tmp_path / "cache", broken(tmp_path, "tensorflow"))
            commit = await platform.hears(Commit)
            process.terminate()
            await process.communicate()
            return platform.blobs[commit.sha256]

    update = asyncio.run(scenario())
    assert update == (folder / f"{case.name}-jax").read_bytes()  # which is TensorFlow's up to rounding, see above
    assert not (tmp_path / "tried").exists()


def test_without_jax_it_says_how_to_install_it(tmp_path: Path) -> None:
    async def scenario() -> tuple[int | None, str]:
        async with asyncio.timeout(60):
            process = await worker("http://127.0.0.1:9", tmp_path / "cache", broken(tmp_path, "jax"))
            _, errors = await process.communicate()
            return process.returncode, errors.decode()

    code, said = asyncio.run(scenario())
    assert code == 1
    assert 'JAX can\'t be imported (it is broken). Install it: pip install "dml-worker[jax]"' in said
    assert "Traceback" not in said
