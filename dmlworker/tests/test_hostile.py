"""What the other side sends, damaged by Hypothesis: frames, weights, shards, models. Read as they are, or refused by their own error."""

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import given, settings

from dmlworker import compression, datasets, loader, models, protocol, trace, weights
from dmlworker.tests.test_fuzz import damaged

LEASE = protocol.Lease("run", 1, 0, 1)
ARRAYS = [np.ones((2, 3), np.float32), np.zeros(3, np.float32)]


def frame(data: bytes) -> None:
    message = protocol.decode(data.decode(errors="replace"))
    assert protocol.decode(protocol.encode(message)) == message


def spec(data: bytes) -> None:
    models.from_spec(models.spec_from_bytes(data))


def shard(data: bytes) -> None:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "shard"
        path.write_bytes(data)
        x, y, w = datasets.mapped(path)
        assert datasets.dump(x, y, w)


KINDS: dict[str, tuple[Callable[[bytes], object], type[Exception], Callable[[], bytes]]] = {
    "frame": (frame, protocol.ProtocolError, lambda: protocol.encode(protocol.Progress(LEASE, 1, 2, 0.5)).encode()),
    "weights": (weights.unpack, weights.MalformedUpdate, lambda: b"".join(map(bytes, weights.pieces(ARRAYS)))),
    "shard": (shard, datasets.DatasetError, lambda: datasets.dump(np.ones((4, 2), np.float32), np.ones(4, np.int32))),
    "compressed": (
        lambda data: compression.decode(data, "int8", ARRAYS),
        weights.MalformedUpdate,
        lambda: compression.encode(ARRAYS, "int8")[0],
    ),
    "trace": (
        trace.Trace.from_bytes,
        weights.MalformedUpdate,
        lambda: trace.Trace((trace.Segment("a" * 64, 0.5),) * 3).to_bytes(),
    ),
    "model": (spec, loader.ModelRefused, lambda: models.spec_bytes(models.spec(models.build((4,), 2, "linear")))),
}


@pytest.mark.parametrize("kind", KINDS)
def test_it_is_read_or_refused(kind: str) -> None:
    read, refused, good = KINDS[kind]
    content = good()
    read(content)

    @settings(max_examples=60, deadline=None)
    @given(data=damaged(content))
    def send(data: bytes) -> None:
        with suppress(refused):
            read(data)

    send()
