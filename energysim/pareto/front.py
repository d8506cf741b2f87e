"""The non-dominated set of points, its knee and its hypervolume: NumPy alone, all costs minimised.

What is to be maximised, such as an accuracy, goes in with its sign changed.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from energysim.errors import InputError, MissingExtraError

Floats = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]

PLANE = 2
"""Number of costs for which everything is exact and needs no loop."""

LEAST_BULGE = 1e-12
"""A knee nearer to the chord than this share of the front is one of rounding only."""


def non_dominated(costs: npt.ArrayLike) -> Flags:
    """Tell which points no other point dominates.

    A point dominates another if it is no worse by any cost and better by at least one. Points that
    are equal don't dominate each other: all of them are kept, or none.

    Parameters
    ----------
    costs : array_like, shape (N, D)
        What each of N points costs by D measures, all to be made small. Infinite costs are allowed.

    Returns
    -------
    bool array, shape (N,)

    Raises
    ------
    InputError
        If the shape is another, or a cost is not a number.

    Notes
    -----
    Two costs: points are sorted, and one is kept if its second cost is below all before it,
    O(N log N) (Kung, Luccio and Preparata 1975). More: the living point whose ranks by the single
    costs have the smallest sum is dominated by no other, as whatever dominates it would have a
    smaller sum; what it dominates is taken out, until none is left. That is O(N F D) for a front of
    F points. Ranks are integers, so that neither rounding nor an infinite cost can hide anything.

    References
    ----------
    H. T. Kung, F. Luccio, F. P. Preparata, On Finding the Maxima of a Set of Vectors, Journal of
    the ACM 22(4), 1975.

    Examples
    --------
    >>> non_dominated([[1, 4], [2, 2], [3, 3], [2, 2], [4, 1]]).tolist()
    [True, True, False, True, True]
    """
    points = _points(costs)
    count, measures = points.shape
    if not count:
        return np.zeros(0, dtype=np.bool_)
    if measures == 1:
        smallest: Flags = points[:, 0] == points[:, 0].min()
        return smallest
    if measures == PLANE:
        return on_fronts(points[:, 0], points[:, 1])
    return _outlived(points)


def on_fronts(first: Floats, second: Floats) -> Flags:
    """Tell which points of many sets, each of its own, are not dominated by two costs.

    Parameters
    ----------
    first, second : float array, shape (..., N)
        Costs of N points; each place before the last axis is a set of its own. No NaN.

    Returns
    -------
    bool array, shape (..., N)
        As :func:`non_dominated` of each set.
    """
    sets, count = first.shape[:-1], first.shape[-1]
    order = np.argsort(first, axis=-1)
    one = np.take_along_axis(first, order, axis=-1)
    two = np.take_along_axis(second, order, axis=-1)
    # only the least second cost of those that share a first cost has a chance
    opens = np.ones((*sets, count), dtype=np.bool_)
    np.not_equal(one[..., 1:], one[..., :-1], out=opens[..., 1:])
    starts = np.flatnonzero(opens)
    least = np.minimum.reduceat(two.ravel(), starts)
    # and that if nothing with a smaller first cost is as good by the second
    so_far = np.minimum.accumulate(two, axis=-1).ravel()
    good = (starts % count == 0) | (least < so_far[starts - 1])
    sizes = np.diff(starts, append=two.size)
    kept = np.repeat(good, sizes) & (two.ravel() == np.repeat(least, sizes))
    found = np.empty((*sets, count), dtype=np.bool_)
    np.put_along_axis(found, order, kept.reshape(found.shape), axis=-1)
    return found


def _outlived(points: Floats) -> Flags:
    """Take out what the best of the living dominates until no one is left."""
    ranks = sum(np.unique(column, return_inverse=True)[1] for column in points.T)
    living = np.argsort(ranks, kind="stable")
    found = np.zeros(len(points), dtype=np.bool_)
    while living.size:
        best, others = points[living[0]], points[living]
        found[living[(others == best).all(axis=1)]] = True
        living = living[(others < best).any(axis=1)]
    return found


def knee(costs: npt.ArrayLike) -> int | None:
    """Find the point of a front in two costs where less of one begins to cost much of the other.

    Parameters
    ----------
    costs : array_like, shape (N, 2)
        Both to be made small. Points that are dominated or not finite are left aside.

    Returns
    -------
    int or None
        Which point; None where no point of the front lies on the inner side of the line through its
        two ends: there is nothing special about any of them. Of several that are equally far from
        the line, the one of the smallest first cost; of equal points the first.

    Raises
    ------
    InputError
        If the shape is another, or a cost is not a number.

    Notes
    -----
    Each cost is brought to [0, 1] between its values at the two ends of the front, so that units
    don't matter. The knee is the point furthest from the line through the ends, on the side of
    small costs (Das 1999; Branke et al. 2004 compare it with other meanings of the word).

    References
    ----------
    I. Das, On characterizing the "knee" of the Pareto curve based on Normal-Boundary Intersection,
    Structural Optimization 18, 1999.
    J. Branke, K. Deb, H. Dierolf, M. Osswald, Finding Knees in Multi-objective Optimization, PPSN
    VIII, 2004.

    Examples
    --------
    >>> knee([[0, 10], [1, 3], [5, 2], [10, 0], [2, 5]])
    1
    >>> knee([[0, 1], [1, 0]]) is None
    True
    """
    points = _points(costs)
    if points.shape[1] != PLANE:
        raise InputError(f"a knee is found for 2 costs, got {points.shape[1]}")
    finite = np.isfinite(points).all(axis=1)
    front = np.flatnonzero(non_dominated(points) & finite)
    front = front[np.argsort(points[front, 0], kind="stable")]
    if front.size <= PLANE:
        return None
    ends = points[front[[0, -1]]]
    spread = np.abs(ends[1] - ends[0])
    if not spread.all():  # all of them are equal
        return None
    bulge = 1 - ((points[front] - ends.min(axis=0)) / spread).sum(axis=1)
    if bulge.max() < LEAST_BULGE:
        return None
    return int(front[np.flatnonzero(bulge > bulge.max() - LEAST_BULGE)[0]])


def hypervolume(costs: npt.ArrayLike, reference: Sequence[float]) -> float:
    """Volume of what a set of points dominates, as far as a reference point.

    Parameters
    ----------
    costs : array_like, shape (N, D)
        All to be made small. Points that are not below the reference by every cost add nothing.
    reference : sequence of float, length D
        A point that is worse than all that count.

    Returns
    -------
    float
        In the product of the units of the costs.

    Raises
    ------
    InputError
        If shapes don't fit, a cost is not a number, or the reference is not finite.
    MissingExtraError
        If there are more than two costs and ``moocore`` is not installed.

    References
    ----------
    E. Zitzler, L. Thiele, Multiobjective Optimization Using Evolutionary Algorithms: A Comparative
    Case Study, PPSN V, 1998. More than two costs: C. M. Fonseca, L. Paquete, M. Lopez-Ibanez, An
    Improved Dimension-Sweep Algorithm for the Hypervolume Indicator, CEC 2006, as in ``moocore``.

    Examples
    --------
    >>> hypervolume([[1, 3], [2, 1], [3, 3]], (4, 4))
    7.0
    """
    points, worst = _points(costs), np.asarray(reference, dtype=np.float64)
    measures = points.shape[1]
    if worst.shape != (measures,) or not np.isfinite(worst).all():
        raise InputError(
            f"the reference must be {measures} finite number{'s' * (measures != 1)}, one a cost, "
            f"got {list(reference)}"
        )
    inside = points[(points < worst).all(axis=1)]
    if not len(inside):
        return 0.0
    if measures == 1:
        return float(worst[0] - inside.min())
    if measures > PLANE:
        return _moocore_volume(inside[non_dominated(inside)], worst)
    front = inside[non_dominated(inside)]
    front = front[np.argsort(front[:, 0], kind="stable")]
    upper = np.concatenate([worst[1:], front[:-1, 1]])
    heights = upper - front[:, 1]
    own = heights > 0  # of equal points the first has the area
    return float(((worst[0] - front[own, 0]) * heights[own]).sum())


def _moocore_volume(front: Floats, worst: Floats) -> float:
    try:
        import moocore
    except ImportError:
        raise MissingExtraError(
            f"the hypervolume of {len(worst)} costs needs moocore; install it with: "
            "pip install 'energysim[pareto]'"
        ) from None
    return float(moocore.hypervolume(front, ref=worst))


def _points(costs: npt.ArrayLike) -> Floats:
    try:
        points = np.asarray(costs, dtype=np.float64)
    except (TypeError, ValueError):
        raise InputError("costs must be numbers, a row a point") from None
    if points.size == 0 and points.ndim == 1:
        points = points.reshape(0, PLANE)
    if points.ndim != PLANE or not points.shape[1]:
        raise InputError(f"costs must have the shape (points, costs), got {points.shape}")
    unknown = np.isnan(points)
    if unknown.any():
        row = int(np.flatnonzero(unknown.any(axis=1))[0])
        raise InputError(f"cost {row} is not a number: {points[row].tolist()}")
    return points
