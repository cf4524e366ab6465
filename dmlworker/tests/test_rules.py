"""Robust aggregation: each rule by a case worked by hand, and what no cheat may do to it."""

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dmlworker import aggregation
from dmlworker.aggregation.rules import RULES, aggregate, check, withstands
from dmlworker.weights import mapped, pack

ROBUST = sorted(set(RULES) - {"mean"})
ZERO = [np.zeros(2, np.float32)]


def w(*values: float) -> list[np.ndarray]:
    return [np.array(values, np.float32)]


def of(rule: str, *points: tuple[float, ...], f: int = 1, samples: list[int] | None = None, root=None) -> list[float]:
    counts = samples or [1] * len(points)
    updates = [(w(*point), count) for point, count in zip(points, counts, strict=True)]
    start = [np.zeros(len(points[0]), np.float32)]
    return aggregate(rule, start, updates, f, root)[0].tolist()


# --- By hand ----------------------------------------------------------------------------------------------------------
def test_the_mean_weighs_by_samples():
    assert of("mean", (1, 0), (4, 3), samples=[2, 1]) == [2, 1]


def test_the_median_of_each_coordinate():
    assert of("median", (1, 9), (2, -100), (1000, 5)) == [2, 5]
    assert of("median", (1, 0), (2, 0), (4, 0), (1000, 0)) == [3, 0]


def test_the_trimmed_mean_leaves_the_ends_out():
    assert of("trimmed", (0, 1), (1, 2), (5, 3), (-1000, 4), (1000, 5)) == [2, 3]
    assert of("trimmed", *[(value, 0.0) for value in (0, 1, 2, 3, 4, 5, 900)], f=2) == [3, 0]


def test_krum_takes_the_one_with_the_nearest_neighbours():
    """Five, f=1: each is judged by its two nearest. 0: 1+4, 1: 1+1, 2: 1+1, 3.5: 2.25+6.25; the first of the best."""
    assert of("krum", (0, 0), (1, 0), (2, 0), (3.5, 0), (99, 0)) == [1, 0]


def test_multi_krum_averages_the_best():
    """Scores 5, 2, 2, 8.5 and very many: all but one are taken, by samples."""
    assert of("multikrum", (0, 0), (1, 0), (2, 0), (3.5, 0), (99, 0)) == [1.625, 0]
    assert of("multikrum", (0, 0), (1, 0), (2, 0), (3.5, 0), (99, 0), samples=[1, 1, 4, 1, 50]) == pytest.approx(
        [12.5 / 7, 0]
    )


def test_bulyan_chooses_by_krum_and_then_around_the_median():
    """Seven, f=1: Krum likes 2, then 1, 3, 4 and 0 of what is left; of these the three nearest to their median."""
    points = [(0, 0), (1, 0), (2, 0), (3, 0), (4, 0), (5, 0), (500, 0)]
    assert of("bulyan", *points) == pytest.approx([2, 0])
    assert of("bulyan", *[(7, 7)] * 6, (500, 0)) == [7, 7]


def test_as_flower_does():
    """flwr 1.41 on seven updates of 3, 1, 4, 1, 5, 9 and 2 samples: aggregate_median, _trimmed_avg, _krum and _bulyan."""
    points = [
        (-2.4, -4.0, -0.7, 1.3),
        (3.4, 0.3, -1.7, -2.4),
        (2.2, 4.9, 0.8, -3.7),
        (-2.9, 4.8, 0.6, -5.2),
        (-0.3, -3.5, -1.9, -1.5),
        (-2.1, 1.7, -0.2, -1.8),
        (40.0, -35.5, 20.25, -60.0),
    ]
    theirs = {
        ("median", 1): [-0.3, 0.3, -0.2, -2.4],
        ("trimmed", 1): [0.16, -0.14, -0.24, -2.92],
        ("trimmed", 2): [-0.06666666666666658, -0.5, -0.1, -2.6333333333333333],
        ("krum", 1): [-2.1, 1.7, -0.2, -1.8],
        ("krum", 2): [-0.3, -3.5, -1.9, -1.5],
        ("multikrum", 1): [-0.7956521739130435, 0.45652173913043476, -0.4913043478260869, -1.8347826086956522],
        ("multikrum", 2): [-0.7, 0.2590909090909092, -0.5409090909090909, -1.6818181818181819],
        ("bulyan", 1): [-1.6, -0.5, -0.8666666666666666, -1.9],
    }
    for (rule, f), expected in theirs.items():
        assert of(rule, *points, f=f, samples=[3, 1, 4, 1, 5, 9, 2]) == pytest.approx(expected, rel=1e-6)


def test_centred_clipping_shortens_what_is_far():
    """Lengths 1, 1, 1, 1000: the radius is 1. Without clipping the mean would be 250.75."""
    found = of("clipping", (1, 0), (1, 0), (1, 0), (1000, 0))
    assert 1 <= found[0] < 1.6
    assert of("clipping", (1, 0), (3, 0), samples=[1, 1]) == pytest.approx([2, 0])


def test_the_geometric_median():
    """Of three corners of a triangle with an angle over 120 degrees, that corner; of a square, its centre."""
    assert of("rfa", (0, 0), (10, 1), (-10, 1)) == pytest.approx([0, 0], abs=0.01)
    assert of("rfa", (0, 0), (2, 0), (0, 2), (2, 2)) == pytest.approx([1, 1])
    assert of("rfa", (0, 0), (1, 0), (5, 0), samples=[1, 10, 1]) == pytest.approx([1, 0], abs=1e-4)


def test_fltrust_goes_the_platforms_way_at_its_length():
    """The first points the same way, twice as long; the second the opposite way; the third at right angles."""
    assert of("fltrust", (2, 0), (-1, 0), (0, 7), root=w(1, 0)) == [1, 0]
    assert of("fltrust", (-2, 0), (-1, 0), root=w(1, 0)) == [1, 0]
    diagonal = of("fltrust", (4, 0), (3, 3), root=w(1, 0))
    share = np.cos(np.pi / 4) / (1 + np.cos(np.pi / 4))
    assert diagonal == pytest.approx([1 - share + share * np.cos(np.pi / 4), share * np.cos(np.pi / 4)])


# --- What every rule does ---------------------------------------------------------------------------------------------
points = st.lists(st.tuples(*[st.floats(-1, 1, width=32)] * 2), min_size=7, max_size=11)


@pytest.mark.parametrize("rule", ROBUST)
@given(points)
@settings(max_examples=50)
def test_one_cheat_cannot_lead_it_away(rule: str, honest: list[tuple[float, float]]) -> None:
    """Honest changes lie in a square; whatever one more says, the result is near it."""
    for lie in ((1e6, -1e6), (0.0, 1e30)):
        found = np.array(of(rule, *honest, lie, root=w(0.5, 0.5)))
        assert np.isfinite(found).all()
        assert np.abs(found).max() <= 4


@pytest.mark.parametrize("rule", ["median", "trimmed"])
@given(points, st.data())
@settings(max_examples=50)
def test_a_coordinate_stays_among_the_honest(rule: str, honest: list[tuple[float, float]], data) -> None:
    """Whatever as many cheats say as it withstands."""
    lies = st.tuples(*[st.floats(-(2.0**100), 2.0**100, width=32)] * 2)
    f = len(honest) - 1
    crowd = data.draw(st.permutations(honest + data.draw(st.lists(lies, min_size=f, max_size=f))))
    assert withstands(rule, len(crowd)) == f
    found = np.array(of(rule, *crowd, f=f))
    assert (found >= np.float32(np.min(honest, axis=0))).all()
    assert (found <= np.float32(np.max(honest, axis=0))).all()


@pytest.mark.parametrize("rule", ROBUST)
@given(points, st.randoms(use_true_random=False))
@settings(max_examples=30)
def test_the_order_of_providers_does_not_matter(rule: str, crowd: list[tuple[float, float]], random) -> None:
    """But for rounding, and for ties: Krum then takes the first."""
    spread = [(x + number * 0.37, y + number**2 * 0.11) for number, (x, y) in enumerate(crowd)]
    shuffled = random.sample(spread, len(spread))
    found, other = (of(rule, *order, root=w(1, 1)) for order in (spread, shuffled))
    if rule not in ("krum", "multikrum", "bulyan"):
        assert other == pytest.approx(found, rel=1e-4, abs=1e-4)
    assert np.isfinite(other).all()


@pytest.mark.parametrize("rule", RULES)
def test_the_same_updates_give_the_same_bits(rule: str) -> None:
    random = np.random.default_rng(3)
    updates = [([random.normal(size=(300, 500)).astype(np.float32)], 5 + number) for number in range(7)]
    start, root = [np.zeros((300, 500), np.float32)], updates[0][0]
    first, second = (aggregate(rule, start, updates, 1, root)[0] for _ in range(2))
    assert first.tobytes() == second.tobytes()


def test_fewer_updates_than_were_asked_for_are_withstood_as_far_as_can_be() -> None:
    """A quorum of three: two cheats of five were to be withstood, one of three is."""
    assert of("trimmed", (1, 1), (2, 2), (900, -900), f=2) == [2, 1]


@pytest.mark.parametrize("n", range(1, 10))
def test_medians_are_numpys(n: int) -> None:
    values = np.random.default_rng(n).normal(size=(n, 50)).astype(np.float32)
    assert of("median", *map(tuple, values)) == np.median(values.astype(float), axis=0).astype(np.float32).tolist()


@pytest.mark.parametrize("rule", RULES)
@given(st.tuples(*[st.floats(-100, 100, width=32)] * 2), st.integers(7, 11))
@settings(max_examples=20)
def test_who_all_agree_are_followed(rule: str, point: tuple[float, float], n: int) -> None:
    assert of(rule, *[point] * n, root=w(*point)) == pytest.approx(list(point), rel=1e-5, abs=1e-5)


@pytest.mark.parametrize("rule", RULES)
def test_files_and_memory_give_the_same_bits_and_nothing_is_copied_whole(rule: str, tmp_path) -> None:
    """8 MB each, eight of them, in files: the result and blocks are all that is held."""
    random = np.random.default_rng(1)
    arrays = [[random.normal(size=(2_000_000,)).astype(np.float32)] for _ in range(8)]
    for number, local in enumerate(arrays):
        (tmp_path / str(number)).write_bytes(pack(local))
    start = [np.zeros(2_000_000, np.float32)]
    inside = aggregate(rule, start, [(local, 1) for local in arrays], 1, arrays[0])
    del arrays
    files = [(mapped(tmp_path / str(number)), 1) for number in range(8)]
    tracemalloc.start()
    outside = aggregate(rule, start, files, 1, files[0][0])
    held = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert np.array_equal(inside[0], outside[0])
    assert held < 8e6 + 16 * aggregation.rules.AT_ONCE * 8


# --- What is refused --------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("rule", "n", "most"),
    [
        ("mean", 100, 0),
        ("median", 4, 1),
        ("median", 5, 2),
        ("trimmed", 2, 0),
        ("krum", 4, 0),
        ("krum", 5, 1),
        ("multikrum", 7, 2),
    ]
    + [("bulyan", 6, 0), ("bulyan", 7, 1), ("clipping", 10, 4), ("rfa", 3, 1), ("fltrust", 4, 3), ("fltrust", 1, 0)],
)
def test_how_many_cheats_a_rule_withstands(rule: str, n: int, most: int) -> None:
    assert withstands(rule, n) == most
    if rule != "mean":
        for f in range(1, n + 1):
            if f <= most:
                check(rule, n, f)
            else:
                with pytest.raises(ValueError, match="needs"):
                    check(rule, n, f)


def test_reasons_are_for_people() -> None:
    with pytest.raises(ValueError, match="Krum needs 5 providers to withstand a cheat; among 4 it withstands none"):
        check("krum", 4, 1)
    with pytest.raises(ValueError, match="Trimmed mean that withstands no cheat protects nothing"):
        check("trimmed", 4, 0)
    check("mean", 4, 0)


def test_what_cannot_be_aggregated_is_refused() -> None:
    for updates in ([], [(w(1, 1), 0)], [(w(1), 1)]):
        with pytest.raises(ValueError):
            aggregate("median", ZERO, updates)
    with pytest.raises(ValueError, match="own update"):
        aggregate("fltrust", ZERO, [(w(1, 1), 1)])


def test_products_are_those_of_the_changes() -> None:
    found = aggregation.gram(w(1, 1), [w(2, 1), w(1, 3)])
    assert found.tolist() == [[1, 0], [0, 4]]
