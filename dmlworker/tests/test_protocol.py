"""Frames to the letter: a version must stay what it is, and nothing else may pass for it."""

import json
import subprocess
import sys
from typing import get_type_hints

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dmlworker import protocol
from dmlworker.protocol import (
    Accept,
    Ack,
    Blob,
    Cancel,
    Challenge,
    Commit,
    Decline,
    Heartbeat,
    Hello,
    Hyper,
    Lease,
    Offer,
    Progress,
    ProtocolError,
    Release,
    Reveal,
    VersionMismatch,
    Welcome,
    decode,
    encode,
)

LEASE = Lease("7c9e6679", 3, 1, 2)
L = '"lease":{"run":"7c9e6679","round":3,"shard":1,"attempt":2}'
A, B, C = "a" * 64, "b" * 64, "c" * 64
USED = '"joules":0.0,"gpu":0.0'

OFFER = Offer(
    LEASE, Blob(A, 1), Blob(B, 2), Blob(C, 3), Hyper(1, 20, 0.1, 7, 0.01, "fp16", 5, 1.5, "adam"), 1_800_000_000
)
OFFERED = encode(OFFER).replace('"v":6,"type":"offer",', "")

GOLDEN: dict[str, protocol.Message] = {
    '{"v":6,"type":"hello","software":"dml-worker 0.1.0","threads":2,"device":"CPU"}': Hello("dml-worker 0.1.0", 2),
    '{"v":6,"type":"welcome","provider":"ada","heartbeat":10}': Welcome("ada", 10),
    f'{{"v":6,"type":"offer",{L},"spec":{{"sha256":"{A}","size":1}},"weights":{{"sha256":"{B}","size":2}},'
    f'"shard":{{"sha256":"{C}","size":3}},'
    '"hyper":{"epochs":1,"batch_size":20,"learning_rate":0.1,"seed":7,"proximal":0.01,"compression":"fp16",'
    '"checkpoint_every":5,"clip":1.5,"optimizer":"adam"},"deadline":1800000000}': OFFER,
    f'{{"v":6,"type":"accept",{L}}}': Accept(LEASE),
    f'{{"v":6,"type":"decline",{L},"reason":"disk full"}}': Decline(LEASE, "disk full"),
    f'{{"v":6,"type":"progress",{L},"step":20,"steps":100,"loss":0.5}}': Progress(LEASE, 20, 100, 0.5),
    f'{{"v":6,"type":"commit",{L},"sha256":"{A}","size":5,"root":"{B}","joules":12.5,"gpu":0.25}}': Commit(
        LEASE, A, 5, B, 12.5, 0.25
    ),
    f'{{"v":6,"type":"ack",{L},"ok":true,"reason":""}}': Ack(LEASE, True),
    f'{{"v":6,"type":"cancel",{L},"reason":"closed"}}': Cancel(LEASE, "closed"),
    f'{{"v":6,"type":"challenge","offer":{OFFERED},"root":"{A}","segments":[0,7]}}': Challenge(OFFER, A, (0, 7)),
    f'{{"v":6,"type":"reveal",{L},"trace":"{A}"}}': Reveal(LEASE, A),
    f'{{"v":6,"type":"release",{L}}}': Release(LEASE),
    '{"v":6,"type":"heartbeat"}': Heartbeat(),
}


@pytest.mark.parametrize("text", GOLDEN)
def test_golden_frames_both_ways(text: str) -> None:
    assert encode(GOLDEN[text]) == text
    assert decode(text) == GOLDEN[text]


EARLIER = [
    '{"v":1,"type":"hello","software":"dml-worker 0.1.0","threads":2,"device":"CPU"}',
    f'{{"v":1,"type":"offer",{L},"spec":{{"sha256":"{A}","size":1}},"weights":{{"sha256":"{B}","size":2}},'
    f'"shard":{{"sha256":"{C}","size":3}},'
    '"hyper":{"epochs":1,"batch_size":20,"learning_rate":0.1,"seed":7},"deadline":1800000000}',
    '{"v":2,"type":"hello","software":"dml-worker 0.1.0","threads":2,"device":"CPU"}',
    f'{{"v":2,"type":"commit",{L},"sha256":"{A}","size":5}}',
    '{"v":3,"type":"hello","software":"dml-worker 0.1.0","threads":2,"device":"CPU"}',
    f'{{"v":3,"type":"commit",{L},"sha256":"{A}","size":5,"root":"{B}"}}',
    '{"v":4,"type":"hello","software":"dml-worker 0.1.0","threads":2,"device":"CPU"}',
    f'{{"v":4,"type":"commit",{L},"sha256":"{A}","size":5,"root":"{B}","joules":12.5,"gpu":0.25}}',
    f'{{"v":5,"type":"offer",{L},"spec":{{"sha256":"{A}","size":1}},"weights":{{"sha256":"{B}","size":2}},'
    f'"shard":{{"sha256":"{C}","size":3}},'
    '"hyper":{"epochs":1,"batch_size":20,"learning_rate":0.1,"seed":7,"proximal":0.01,"compression":"fp16",'
    '"checkpoint_every":5,"clip":1.5},"deadline":1800000000}',
]


@pytest.mark.parametrize("text", EARLIER)
def test_golden_frames_of_earlier_versions_are_told_apart(text: str) -> None:
    """Version 1 had no `proximal`: a worker that does not know it would train something else. Version 2 committed to no trace.
    Version 3 told nothing of energy and GPU. Version 4 knew no weights of samples. Version 5 had no `optimizer`, and knew
    plain SGD alone."""
    with pytest.raises(VersionMismatch, match="only version 6") as caught:
        decode(text)
    assert caught.value.theirs == json.loads(text)["v"]


FIELDS = {
    5: """
        Lease: run str, round int, shard int, attempt int
        Blob: sha256 str, size int
        Hyper: epochs int, batch_size int, learning_rate float, seed int, proximal float, compression str, checkpoint_every int, clip float
        Hello: software str, threads int, device str
        Welcome: provider str, heartbeat int
        Offer: lease Lease, spec Blob, weights Blob, shard Blob, hyper Hyper, deadline int
        Accept: lease Lease
        Decline: lease Lease, reason str
        Progress: lease Lease, step int, steps int, loss float
        Commit: lease Lease, sha256 str, size int, root str, joules float, gpu float
        Ack: lease Lease, ok bool, reason str
        Cancel: lease Lease, reason str
        Challenge: offer Offer, root str, segments tuple
        Reveal: lease Lease, trace str
        Release: lease Lease
        Heartbeat:
    """
}
FIELDS[6] = FIELDS[5].replace("clip float", "clip float, optimizer str")
"""What each version says, to the field. A version that is out is never changed here: another field is another version."""


def test_a_frame_has_other_fields_only_under_another_version() -> None:
    kinds = [Lease, Blob, Hyper, *protocol.Message.__args__]
    said = [
        f"{kind.__name__}: {', '.join(f'{n} {t.__name__}' for n, t in get_type_hints(kind).items())}" for kind in kinds
    ]
    assert [line.strip() for line in said] == [line.strip() for line in FIELDS[protocol.VERSION].strip().splitlines()]


def test_constants_are_part_of_version_6() -> None:
    assert (protocol.VERSION, protocol.SOCKET_PATH) == (6, "/ws/worker/")
    assert protocol.blob_path(A) == f"/worker/blobs/{A}"
    assert (protocol.CLOSE_BAD_KEY, protocol.CLOSE_BANNED, protocol.CLOSE_TOO_OLD) == (4401, 4403, 4426)


@given(st.text(max_size=500).filter(lambda text: text.isprintable()), st.integers(1, 4096))
def test_any_text_survives(software: str, threads: int) -> None:
    assert decode(encode(Hello(software, threads))) == Hello(software, threads)


def test_brackets_in_a_text_are_no_nesting() -> None:
    assert decode(encode(Cancel(LEASE, "[" * 500))) == Cancel(LEASE, "[" * 500)


def test_a_deep_frame_ends_no_process_whose_recursion_limit_was_raised() -> None:
    code = (
        "import sys; from dmlworker.protocol import *; sys.setrecursionlimit(10**9)\n"
        "try: decode('[' * MAX_FRAME)\nexcept ProtocolError: sys.exit(7)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 7


def test_another_version_is_told_apart_whatever_its_fields() -> None:
    with pytest.raises(VersionMismatch) as caught:
        decode('{"v":7,"type":"hello","capabilities":[]}')
    assert caught.value.theirs == 7


MALFORMED = {
    "not JSON": "hello",
    "empty": "",
    "no object": "[1]",
    "no version": '{"type":"heartbeat"}',
    "version as text": '{"v":"1","type":"heartbeat"}',
    "version as truth": '{"v":true,"type":"heartbeat"}',
    "no type": '{"v":6}',
    "unknown type": '{"v":6,"type":"quit"}',
    "type is a list": '{"v":6,"type":["hello"]}',
    "unknown field": '{"v":6,"type":"heartbeat","more":1}',
    "field missing": '{"v":6,"type":"welcome","provider":"ada"}',
    "name twice": '{"v":6,"type":"heartbeat","v":6}',
    "number as text": '{"v":6,"type":"welcome","provider":"ada","heartbeat":"10"}',
    "truth as number": '{"v":6,"type":"welcome","provider":"ada","heartbeat":true}',
    "fraction as number": '{"v":6,"type":"welcome","provider":"ada","heartbeat":1.5}',
    "number as truth": f'{{"v":6,"type":"ack",{L},"ok":1,"reason":""}}',
    "lease is text": '{"v":6,"type":"accept","lease":"7c9e6679"}',
    "lease without attempt": '{"v":6,"type":"accept","lease":{"run":"r","round":1,"shard":0}}',
    "negative round": '{"v":6,"type":"accept","lease":{"run":"r","round":-1,"shard":0,"attempt":1}}',
    "huge round": '{"v":6,"type":"accept","lease":{"run":"r","round":4294967296,"shard":0,"attempt":1}}',
    "endless digits": '{"v":6,"type":"welcome","provider":"ada","heartbeat":' + "9" * 5000 + "}",
    "no run": '{"v":6,"type":"accept","lease":{"run":"","round":1,"shard":0,"attempt":1}}',
    "hash in capitals": f'{{"v":6,"type":"commit",{L},"sha256":"{"A" * 64}","size":5,"root":"{A}",{USED}}}',
    "hash too short": f'{{"v":6,"type":"commit",{L},"sha256":"{"a" * 63}","size":5,"root":"{A}",{USED}}}',
    "hash with a newline": f'{{"v":6,"type":"commit",{L},"sha256":"{"a" * 64}\\n","size":5,"root":"{A}",{USED}}}',
    "no root": f'{{"v":6,"type":"commit",{L},"sha256":"{A}","size":5,"root":"",{USED}}}',
    "energy below nothing": f'{{"v":6,"type":"commit",{L},"sha256":"{A}","size":5,"root":"{A}","joules":-1.0,"gpu":0.0}}',
    "a GPU at work more than all the time": f'{{"v":6,"type":"commit",{L},"sha256":"{A}","size":5,"root":"{A}","joules":1.0,"gpu":1.1}}',
    "segments as an object": f'{{"v":6,"type":"challenge","offer":{OFFERED},"root":"{A}","segments":{{}}}}',
    "a segment as text": f'{{"v":6,"type":"challenge","offer":{OFFERED},"root":"{A}","segments":["0"]}}',
    "negative size": f'{{"v":6,"type":"commit",{L},"sha256":"{A}","size":-5,"root":"{A}",{USED}}}',
    "NaN": f'{{"v":6,"type":"progress",{L},"step":1,"steps":2,"loss":NaN}}',
    "infinite": f'{{"v":6,"type":"progress",{L},"step":1,"steps":2,"loss":1e999}}',
    "step after the last": f'{{"v":6,"type":"progress",{L},"step":3,"steps":2,"loss":0.1}}',
    "long text": f'{{"v":6,"type":"cancel",{L},"reason":"{"x" * 501}"}}',
    "half a character": f'{{"v":6,"type":"cancel",{L},"reason":"\\ud800"}}',
    "deep": "[" * 10_000,
    "deep in an object": '{"v":6,"type":' + '{"a":' * 3000,
    "long": f'{{"v":6,"type":"heartbeat"}}{" " * protocol.MAX_FRAME}',
}


@pytest.mark.parametrize("what", MALFORMED)
def test_malformed_frames_are_refused(what: str) -> None:
    with pytest.raises(ProtocolError) as caught:
        decode(MALFORMED[what])
    assert not isinstance(caught.value, VersionMismatch)


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(), st.lists, max_leaves=5))
def test_any_value_in_any_field_is_refused_or_of_the_right_type(value: object) -> None:
    for text in GOLDEN:
        frame = json.loads(text)
        for name in frame:
            try:
                decode(json.dumps(frame | {name: value}))
            except ProtocolError:
                continue


@pytest.mark.parametrize(
    "wrong",
    [lambda: Hyper(0, 20, 0.1, 1), lambda: Hyper(1, 0, 0.1, 1), lambda: Hyper(1, 1, 0.0, 1), lambda: Hyper(1, 1, float("nan"), 1),
     lambda: Hyper(1, 1, 0.1, -1), lambda: Hyper(1, 1, 0.1, 1, 0.0, "zip"), lambda: Hyper(1, 1, 0.1, 1, clip=-1.0), lambda: Hyper(1, 1, 0.1, 1, optimizer="rprop"), lambda: Blob("x", 1), lambda: Welcome("ada", 0), lambda: Hello("w", 0)],
)  # fmt: skip
def test_values_out_of_range_cannot_even_be_made(wrong) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ProtocolError):
        wrong()


def test_encode_refuses_what_decode_would() -> None:
    with pytest.raises(ProtocolError):
        encode(Cancel(LEASE, "x" * 501))
    with pytest.raises(ProtocolError):
        encode(LEASE)  # type: ignore[arg-type]


@pytest.mark.parametrize("module", ["dmlworker.protocol", "dmlworker.client", "dmlworker.weights", "dmlworker.datasets", "dmlworker.aggregation", "training.evidence"])  # fmt: skip
def test_what_the_web_process_may_import_does_not_bring_tensorflow(module: str) -> None:
    code = f"import sys, {module}; sys.exit(any(name in sys.modules for name in ('tensorflow', 'keras', 'django')))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
