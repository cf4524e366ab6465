"""What a worker commits to: the tree's roots by hand, traces both ways, and a training that is its own replay."""

import hashlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dmlworker import merkle, models, trainer
from dmlworker.checkpoints import Checkpoints
from dmlworker.optimizers import SLOTS
from dmlworker.protocol import Hyper
from dmlworker.trace import LINE, Recorder, Segment, Trace, segments_of, steps_of_segment
from dmlworker.weights import MalformedUpdate, pack


def sha(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


# --- The tree ---------------------------------------------------------------------------------------------------------
def test_roots_are_those_of_rfc_6962() -> None:
    """Certificate Transparency's own test vectors: the first one is the hash of nothing, the last one of eight leaves."""
    leaves = [bytes.fromhex(text) for text in ("", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f")]  # fmt: skip
    assert merkle.root([]) == hashlib.sha256().hexdigest()
    assert merkle.root(leaves[:1]) == "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d"
    assert merkle.root(leaves[:3]) == "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77"
    assert merkle.root(leaves) == "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328"


def rfc(leaves: list[bytes]) -> bytes:
    """The definition, word for word."""
    if len(leaves) == 1:
        return sha(b"\0" + leaves[0])
    split = 1 << (len(leaves) - 1).bit_length() - 1
    return sha(b"\1" + rfc(leaves[:split]) + rfc(leaves[split:]))


@given(st.lists(st.binary(max_size=3), min_size=1, max_size=40))
def test_any_list_has_the_root_of_the_definition(leaves: list[bytes]) -> None:
    assert merkle.root(leaves) == rfc(leaves).hex()


# --- Traces -----------------------------------------------------------------------------------------------------------
hashes = st.binary(min_size=32, max_size=32).map(bytes.hex)
numbers = st.floats(0, 1e30)
rows = st.lists(st.tuples(hashes, numbers), min_size=1) | st.lists(st.tuples(hashes, numbers, numbers), min_size=1)
traces = rows.map(lambda found: Trace(tuple(Segment(*row) for row in found)))


@given(traces)
def test_a_trace_survives_as_bytes(trace: Trace) -> None:
    assert Trace.from_bytes(trace.to_bytes()) == trace
    assert len(trace.to_bytes()) <= LINE * len(trace.segments)


@given(traces, st.data())
def test_every_change_of_a_trace_changes_its_root(trace: Trace, data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(trace.segments) - 1))
    other = trace.segments[at]._replace(sha256=data.draw(hashes), change=trace.segments[at].change * 2 + 1)
    changed = Trace((*trace.segments[:at], other, *trace.segments[at + 1 :]))
    assert changed.root != trace.root


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"x",
        b"0" * 64,
        *(
            b"0" * 64 + rest
            for rest in (
                b" nan",
                b" -1.0",
                b" 1.00",
                b" 1.0\n",
                b" 1.0 nan",
                b" 1.0 1.0 1.0",
                b" 1.0 1.0\n" + b"0" * 64 + b" 1.0",
            )
        ),
    ],
)
def test_what_is_no_trace_is_refused(data: bytes) -> None:
    with pytest.raises(MalformedUpdate):
        Trace.from_bytes(data)


def test_an_audit_looks_at_the_first_the_last_the_largest_and_what_was_drawn() -> None:
    trace = Trace(tuple(Segment("0" * 64, change) for change in (1.0, 1.0, 5.0, 1.0, 1.0, 1.0)))
    assert trace.asked([3]) == [0, 2, 3, 5]
    assert trace.asked([2, 0]) == [0, 2, 5]


def test_it_looks_at_the_sharpest_turn_after_the_first_too() -> None:
    trace = Trace(tuple(Segment("0" * 64, 1.0, turn) for turn in (9.0, 1.0, 1.0, 2.0, 1.0, 0.0)))
    assert trace.asked([1]) == [0, 1, 3, 5]
    assert Trace((Segment("0" * 64, 1.0, 0.0),)).asked([0]) == [0]


# --- A training and its replay ----------------------------------------------------------------------------------------
HYPER = Hyper(2, 20, 0.1, 7, checkpoint_every=2)
"""50 samples: 3 steps an epoch, 6 in all, 3 segments; the second one lies in both epochs."""


@pytest.fixture(scope="module")
def work():  # type: ignore[no-untyped-def]
    random = np.random.default_rng(1)
    x = random.normal(size=(50, 4)).astype(np.float32)
    spec = models.spec(models.build((4,), 2, "mlp", models.statistics(x)))
    return spec, trainer.initial_weights(spec, 1), x, (x[:, 0] > 0).astype(np.int32)


@pytest.mark.parametrize(
    "hyper",
    [
        HYPER,
        Hyper(2, 20, 0.1, 7, proximal=0.5, checkpoint_every=2),
        Hyper(2, 20, 0.1, 7, checkpoint_every=2, optimizer="momentum"),
        Hyper(2, 20, 0.01, 7, proximal=0.5, checkpoint_every=2, clip=0.5, optimizer="adam"),
    ],
)
def test_every_segment_done_again_gives_its_checkpoint_to_the_bit(work, hyper: Hyper) -> None:  # type: ignore[no-untyped-def]
    """FedProx too: it pulls back to the round's start, not to the segment's."""
    spec, start, x, y = work
    kept = [start]
    end = trainer.train(spec, start, x, y, hyper, checkpoint=lambda weights: kept.append([w.copy() for w in weights]))
    assert pack(kept[-1]) == pack(end)
    assert len(end) == len(start) and len(kept[1]) == len(start) + SLOTS[hyper.optimizer]
    assert len(kept) - 1 == segments_of(50, hyper) == 3
    for number in range(3):
        again = trainer.replay(spec, start, x, y, hyper, kept[number], steps_of_segment(number, 50, hyper))
        assert pack(again) == pack(kept[number + 1])


def test_checkpoints_do_not_change_what_is_learned(work) -> None:  # type: ignore[no-untyped-def]
    spec, start, x, y = work
    apart = [trainer.train(spec, start, x, y, Hyper(2, 20, 0.1, 7, checkpoint_every=n)) for n in (1, 2, 1000)]
    assert len({pack(weights) for weights in apart}) == 1


def test_a_recorder_tells_hashes_and_how_far_each_segment_moved(work) -> None:  # type: ignore[no-untyped-def]
    spec, start, x, y = work
    seen = []
    record = Recorder(start, lambda number, weights: seen.append(number) or f"{number:064x}")
    trainer.train(spec, start, x, y, HYPER, checkpoint=record)
    kept = [start]
    trainer.train(spec, start, x, y, HYPER, checkpoint=lambda weights: kept.append([w.copy() for w in weights]))
    lengths = [
        np.sqrt(sum(((b.astype(float) - a) ** 2).sum() for a, b in zip(*pair, strict=True)))
        for pair in zip(kept, kept[1:], strict=False)
    ]
    assert seen == [1, 2, 3]
    assert [segment.change for segment in record.trace.segments] == pytest.approx(lengths, rel=1e-4)


def test_a_recorder_tells_how_far_the_state_turned(work) -> None:  # type: ignore[no-untyped-def]
    spec, start, x, y = work
    hyper, kept = Hyper(2, 20, 0.1, 7, checkpoint_every=2, optimizer="momentum"), [[]]
    record = Recorder(start, lambda number, arrays: kept.append(list(arrays[len(start) :])) or "0" * 64, "momentum")
    trainer.train(spec, start, x, y, hyper, checkpoint=record)
    velocities = [kept[1][0] * 0, kept[1][0], kept[2][0]]
    turns = [float(np.linalg.norm(b - a)) for a, b in zip(velocities, velocities[1:], strict=False)]
    assert [segment.turn for segment in record.trace.segments] == pytest.approx([*turns, 0.0], rel=1e-4)


# --- On disk ----------------------------------------------------------------------------------------------------------
def weights(value: float) -> list[np.ndarray]:
    return [np.full(250, value, np.float32)]


def test_what_does_not_fit_is_thinned_out_and_the_nearest_is_found(tmp_path) -> None:  # type: ignore[no-untyped-def]
    checkpoints = Checkpoints(tmp_path / "work", max_bytes=4500)  # four of about 1,070 bytes
    for number in range(1, 12):
        assert checkpoints.keep(number, weights(number)) == hashlib.sha256(pack(weights(number))).hexdigest()
    assert {int(path.name) for path in (tmp_path / "work").iterdir()} == {4, 8}
    found = Checkpoints(tmp_path / "work").nearest(7)
    assert found is not None and found[0] == 4 and found[1][0][0] == 4
    assert checkpoints.nearest(3) is None
    checkpoints.remove()
    assert checkpoints.nearest(11) is None


def test_a_trace_is_found_after_a_restart_and_a_damaged_one_is_not(tmp_path) -> None:  # type: ignore[no-untyped-def]
    trace = Trace((Segment("0" * 64, 1.5),))
    Checkpoints(tmp_path / "work").finish(trace)
    assert Checkpoints(tmp_path / "work").trace() == trace
    (tmp_path / "work" / "trace").write_bytes(b"0")
    assert Checkpoints(tmp_path / "work").trace() is None


def test_a_full_disk_does_not_stop_a_training(tmp_path) -> None:  # type: ignore[no-untyped-def]
    (tmp_path / "work").write_text("in the way of a folder")
    checkpoints = Checkpoints(tmp_path / "work")
    assert checkpoints.keep(1, weights(1)) == hashlib.sha256(pack(weights(1))).hexdigest()
    checkpoints.finish(Trace(()))
    assert checkpoints.trace() is None
