"""The front, its knee and hypervolume: brute force, moocore, ties, and what is refused."""

from __future__ import annotations

import builtins
from typing import Any

import moocore
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from energysim.errors import InputError, MissingExtraError
from energysim.pareto import hypervolume, knee, non_dominated
from energysim.pareto.front import on_fronts

Floats = npt.NDArray[np.float64]


def dominates(one: Floats, other: Floats) -> bool:
    return bool((one <= other).all() and (one < other).any())


def by_hand(points: Floats) -> list[bool]:
    return [not any(dominates(other, own) for other in points) for own in points]


def with_ties(measures: int) -> st.SearchStrategy[Floats]:
    """Few values, so that points share costs and are equal; infinite ones among them."""
    values = st.one_of(
        st.integers(0, 4).map(float), st.sampled_from([np.inf, -np.inf, -0.0, 1e-300])
    )
    return st.integers(0, 30).flatmap(
        lambda count: arrays(np.float64, (count, measures), elements=values)
    )


@given(st.integers(1, 5).flatmap(with_ties))
def test_front_is_that_of_all_pairs(points: Floats) -> None:
    assert non_dominated(points).tolist() == by_hand(points)


@given(
    st.integers(2, 4).flatmap(
        lambda measures: arrays(
            np.float64,
            st.tuples(st.integers(1, 40), st.just(measures)),
            elements=st.integers(0, 6).map(float),
        )
    )
)
def test_front_is_that_of_moocore(points: Floats) -> None:
    theirs = moocore.is_nondominated(points, keep_weakly=True)
    assert non_dominated(points).tolist() == theirs.tolist()


@pytest.mark.parametrize("measures", [2, 3, 5])
def test_large_fronts_are_those_of_moocore(measures: int) -> None:
    points = np.random.default_rng(measures).random((3_000, measures))
    theirs = moocore.is_nondominated(points, keep_weakly=True)
    assert non_dominated(points).tolist() == theirs.tolist()


@given(st.integers(2, 4).flatmap(with_ties), st.randoms(use_true_random=False))
def test_order_and_scale_change_nothing(points: Floats, chance: Any) -> None:
    order = list(range(len(points)))
    chance.shuffle(order)
    kept = non_dominated(points)
    assert non_dominated(points[order]).tolist() == kept[order].tolist()
    assert non_dominated(points * 8.0).tolist() == kept.tolist()


def test_sums_that_round_hide_nothing() -> None:
    # both sums are 1e16, and yet the first is better
    assert non_dominated([[1e16, 0.0, 0.0], [1e16, 0.5, 0.0]]).tolist() == [True, False]


def test_many_sets_at_once_are_each_by_itself() -> None:
    sets = np.random.default_rng(0).integers(0, 5, (200, 9, 2)).astype(np.float64)
    together = on_fronts(sets[..., 0], sets[..., 1])
    assert together.shape == (200, 9)
    for own, flags in zip(sets, together, strict=True):
        assert flags.tolist() == by_hand(own)


def test_nothing_has_an_empty_front() -> None:
    assert non_dominated(np.zeros((0, 3))).shape == (0,)
    assert non_dominated([]).shape == (0,)


@pytest.mark.parametrize(
    ("costs", "words"),
    [
        ([[1.0, np.nan], [0.0, 2.0]], "cost 0 is not a number"),
        ([[1.0], [np.nan]], "cost 1 is not a number"),
        ([[1.0, 2.0, np.nan]], "not a number"),
        ([1.0, 2.0], "shape"),
        (np.zeros((3, 0)), "shape"),
        (np.zeros((2, 2, 2)), "shape"),
        ([["a", "b"]], "must be numbers"),
    ],
)
def test_what_is_no_set_of_points_is_refused(costs: Any, words: str) -> None:
    for function in (non_dominated, lambda each: hypervolume(each, (9.0, 9.0))):
        with pytest.raises(InputError, match=words):
            function(costs)


# -- the knee --------------------------------------------------------------------------------------


def test_knee_is_furthest_from_the_chord() -> None:
    # distances from x + y = 1: 0.5, 0.6 and 0.3, over sqrt(2)
    assert knee([[0, 1], [0.1, 0.4], [0.2, 0.2], [0.6, 0.1], [1, 0]]) == 2


@given(arrays(np.float64, (12, 2), elements=st.integers(-50, 50).map(float)))
def test_knee_does_not_depend_on_units(points: Floats) -> None:
    found = knee(points)
    assert knee(points * (1024.0, 0.25) + (4096.0, -8.0)) == found
    if found is not None:
        assert non_dominated(points)[found]


@given(arrays(np.float64, (10, 2), elements=st.integers(0, 30).map(float)))
def test_knee_by_the_formula_of_the_distance_to_a_line(points: Floats) -> None:
    front = np.unique(points[by_hand(points)], axis=0)
    if len(front) < 3:
        assert knee(points) is None
        return
    scaled = (front - front.min(axis=0)) / np.ptp(front, axis=0)
    (x1, y1), (x2, y2) = scaled[0], scaled[-1]
    signed = ((y2 - y1) * scaled[:, 0] - (x2 - x1) * scaled[:, 1] + x2 * y1 - y2 * x1) / np.hypot(
        x2 - x1, y2 - y1
    )
    # the ideal point 0, 0 is on the positive side
    assert x2 * y1 - y2 * x1 > 0
    found = knee(points)
    if signed.max() < 1e-9:
        assert found is None
    else:
        assert found is not None
        best = np.flatnonzero(signed > signed.max() - 1e-9)[0]
        assert points[found].tolist() == front[best].tolist()
        assert found == next(i for i, p in enumerate(points.tolist()) if p == front[best].tolist())


@pytest.mark.parametrize(
    "costs",
    [
        [],
        [[1, 1]],
        [[0, 1], [1, 0]],
        [[0, 2], [1, 1], [2, 0]],
        [[0, 10], [9, 9], [10, 0]],
        [[1, 1], [1, 1], [1, 1]],
        [[0, np.inf], [1, 1], [np.inf, 0]],
    ],
)
def test_a_front_may_have_no_knee(costs: list[list[float]]) -> None:
    assert knee(costs) is None


def test_of_equal_knees_the_cheapest() -> None:
    assert knee([[10, 0], [6, 1], [1, 6], [0, 10]]) == 2


def test_knee_is_of_two_costs() -> None:
    with pytest.raises(InputError, match="2 costs, got 3"):
        knee([[1, 2, 3]])


# -- hypervolume -----------------------------------------------------------------------------------


def test_hypervolume_counts_cells() -> None:
    rng = np.random.default_rng(3)
    for _ in range(50):
        points = rng.integers(0, 12, (rng.integers(0, 10), 2))
        x, y = np.meshgrid(np.arange(10), np.arange(10))
        covered = np.zeros((10, 10), dtype=bool)
        for own in points:
            covered |= (x >= own[0]) & (y >= own[1])
        assert hypervolume(points.reshape(-1, 2), (10, 10)) == covered.sum()


@pytest.mark.parametrize("measures", [1, 2, 3, 4])
def test_hypervolume_is_that_of_moocore(measures: int) -> None:
    points = np.random.default_rng(measures).random((200, measures))
    reference = [0.8] * measures
    ours = hypervolume(points, reference)
    if measures == 1:
        assert ours == pytest.approx(0.8 - points.min())
    else:
        assert ours == pytest.approx(moocore.hypervolume(points, ref=reference), rel=1e-12)


def test_points_beyond_the_reference_add_nothing() -> None:
    assert hypervolume([[1, 3], [2, 1], [3, 3], [0, 9], [9, 0]], (4, 4)) == 7
    assert hypervolume([[4, 0]], (4, 4)) == 0
    assert hypervolume([[-np.inf, 0]], (4, 4)) == np.inf


@pytest.mark.parametrize("reference", [(1.0,), (1.0, 2.0, 3.0), (1.0, np.nan), (np.inf, 1.0)])
def test_a_reference_is_a_point(reference: tuple[float, ...]) -> None:
    with pytest.raises(InputError, match="2 finite numbers"):
        hypervolume([[0, 0]], reference)


def test_without_moocore_more_than_two_costs_say_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    real = builtins.__import__

    def without(name: str, *rest: Any, **more: Any) -> Any:
        if name == "moocore":
            raise ImportError(name)
        return real(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", without)
    assert hypervolume([[0, 0]], (2, 2)) == 4
    with pytest.raises(MissingExtraError, match=r"pip install 'energysim\[pareto\]'"):
        hypervolume([[0, 0, 0]], (1, 1, 1))
