"""`make fuzz`: coverage-guided fuzzing (Atheris) of what strangers send: frames of the protocol, model JSON, safetensors, tables. Each for
FUZZ_SECONDS (60); an input that raises anything but what is meant to be raised is written to `.fuzz/` and ends it.

    python -m scripts.fuzz           all targets, each in a process of its own
    python -m scripts.fuzz frames    one of them
"""

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import atheris
import numpy as np

with atheris.instrument_imports(include=["dmlworker"]):
    from dmlworker import datasets, loader, models, protocol, weights

FOLDER = Path(__file__).resolve().parent.parent / ".fuzz"
SECONDS = int(os.environ.get("FUZZ_SECONDS", "60"))


def frames(data: bytes) -> None:
    with suppress(protocol.ProtocolError):
        message = protocol.decode(data.decode(errors="replace"))
        assert protocol.decode(protocol.encode(message)) == message


def specs(data: bytes) -> None:
    """Model JSON, up to what needs Keras."""
    with suppress(loader.ModelRefused):
        models.task(models.spec_from_bytes(data))


def tensors(data: bytes) -> None:
    with suppress(weights.MalformedUpdate):
        weights.unpack(data)
    with suppress(ValueError):
        datasets.load_weighted(data)


def tables(data: bytes) -> None:
    endings = (".csv", ".tsv", ".jsonl", ".npz", ".zip", ".tar", ".parquet")
    name = f"t{endings[data[0] % len(endings)] if data else '.csv'}"
    with tempfile.NamedTemporaryFile() as file:
        file.write(data[1:])
        file.flush()
        with suppress(datasets.DatasetError):
            datasets.inspect(Path(file.name), name, None, datasets.Options())


def seeds() -> dict[str, list[bytes]]:
    """Good ones, from which the fuzzer goes on."""
    lease = protocol.Lease("run", 1, 0, 1)
    accept, progress = protocol.Accept(lease), protocol.Progress(lease, 1, 2, 0.5)
    model = models.serialized_reshape((4,))
    spec = {"class_name": "Sequential", "config": {"name": "m", "layers": [model]}}
    arrays = [np.ones((2, 3), np.float32), np.zeros(3, np.float32)]
    return {
        "frames": [protocol.encode(message).encode() for message in (accept, progress, protocol.Hello("x", 1))],
        "specs": [models.spec_bytes(spec), b"{}", b"[" * 100],
        "tensors": [
            b"".join(map(bytes, weights.pieces(arrays))),
            datasets.dump(np.ones((2, 2), np.float32), np.ones(2)),
        ],
        "tables": [b"\0a,b,y\n" + b"1,x,0\n2,y,1\n" * 12, b'\2{"a": 1, "y": 0}\n' * 12, b"\4PK\5\6" + bytes(18)],
    }


TARGETS: dict[str, Callable[[bytes], None]] = {each.__name__: each for each in (frames, specs, tensors, tables)}


def one(name: str) -> None:
    corpus = FOLDER / name
    corpus.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(seeds()[name]):
        (corpus / f"seed-{number}").write_bytes(seed)
    options = [f"-max_total_time={SECONDS}", "-max_len=4096", "-timeout=20", f"-artifact_prefix={FOLDER}/{name}-"]
    atheris.Setup([sys.argv[0], str(corpus), *options], TARGETS[name])
    atheris.Fuzz()


def main() -> int:
    if sys.argv[1:]:
        one(sys.argv[1])
        return 0
    results = [subprocess.run([sys.executable, "-m", "scripts.fuzz", name]).returncode for name in TARGETS]
    print(dict(zip(TARGETS, results, strict=True)))
    return max(results)


if __name__ == "__main__":
    sys.exit(main())
