"""The normal distribution, as GELU needs it: NumPy has no error function."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import pi

import numpy as np

from energysim.train.lowered import Bools
from energysim.train.scratch import Floats

SMALL, LARGE = 0.46875, 4.0
"""Where the three approximations meet."""

# Coefficients of Cody's rational functions, those of the highest power first: of y^2 for small y,
# of y for middling and of 1/y^2 for large ones.
SMALL_ABOVE = (
    1.85777706184603153e-1,
    3.16112374387056560,
    1.13864154151050156e2,
    3.77485237685302021e2,
    3.20937758913846947e3,
)
SMALL_BELOW = (
    1.0,
    2.36012909523441209e1,
    2.44024637934444173e2,
    1.28261652607737228e3,
    2.84423683343917062e3,
)
MIDDLE_ABOVE = (
    2.15311535474403846e-8,
    5.64188496988670089e-1,
    8.88314979438837594,
    6.61191906371416295e1,
    2.98635138197400131e2,
    8.81952221241769090e2,
    1.71204761263407058e3,
    2.05107837782607147e3,
    1.23033935479799725e3,
)
MIDDLE_BELOW = (
    1.0,
    1.57449261107098347e1,
    1.17693950891312499e2,
    5.37181101862009858e2,
    1.62138957456669019e3,
    3.29079923573345963e3,
    4.36261909014324716e3,
    3.43936767414372164e3,
    1.23033935480374942e3,
)
LARGE_ABOVE = (
    1.63153871373020978e-2,
    3.05326634961232344e-1,
    3.60344899949804439e-1,
    1.25781726111229246e-1,
    1.60837851487422766e-2,
    6.58749161529837803e-4,
)
LARGE_BELOW = (
    1.0,
    2.56852019228982242,
    1.87295284992346725,
    5.27905102951428412e-1,
    6.05183413124413191e-2,
    2.33520497626869185e-3,
)

NOTHING_LEFT = 28.0
"""From here on the complement is zero in double precision; a square of more might overflow."""


def erfc(y: Floats) -> Floats:
    """Complementary error function of what is not negative.

    Parameters
    ----------
    y : ndarray
        Of 0 or more.

    Returns
    -------
    ndarray
        2 / sqrt(pi) times the integral of exp(-t^2) from y on, with the precision of ``y``.

    References
    ----------
    W. J. Cody, "Rational Chebyshev Approximations for the Error Function", Mathematics of
    Computation 23 (1969), 631-637; coefficients as in his routine CALERF (SPECFUN, netlib).

    Examples
    --------
    >>> erfc(np.array([0.0, 1.0, 30.0])).round(6).tolist()
    [1.0, 0.157299, 0.0]
    """
    flat = y.reshape(-1)
    found = np.empty_like(flat)
    small, large = flat <= SMALL, flat > LARGE
    pieces: tuple[tuple[Bools, Callable[[Floats], Floats]], ...] = (
        (small, _erfc_of_small),
        (~(small | large), _erfc_of_middling),
        (large, _erfc_of_large),
    )
    for where, piece in pieces:
        some = np.flatnonzero(where)  # indices are picked twice as fast as by a mask
        found[some] = piece(flat[some])
    return found.reshape(y.shape)


def normal_distribution(x: Floats) -> Floats:
    """Share of the standard normal distribution below x, exact in both tails.

    Examples
    --------
    >>> normal_distribution(np.array([-1.0, 0.0, 1.0])).round(6).tolist()
    [0.158655, 0.5, 0.841345]
    """
    beyond = erfc(np.abs(x) * 0.5**0.5) / 2
    share: Floats = np.where(x < 0, beyond, 1 - beyond)
    return share


def normal_density(x: Floats) -> Floats:
    """Density of the standard normal distribution.

    Examples
    --------
    >>> normal_density(np.array([0.0, 1.0])).round(6).tolist()
    [0.398942, 0.241971]
    """
    near = np.minimum(np.abs(x), 2 * NOTHING_LEFT)
    density: Floats = np.exp(near * near * -0.5) / (2 * pi) ** 0.5
    return density


def _erfc_of_small(y: Floats) -> Floats:
    return 1 - y * _ratio(y * y, SMALL_ABOVE, SMALL_BELOW)


def _erfc_of_middling(y: Floats) -> Floats:
    powers: Floats = np.exp(-y * y)
    return powers * _ratio(y, MIDDLE_ABOVE, MIDDLE_BELOW)


def _erfc_of_large(y: Floats) -> Floats:
    near = np.minimum(y, NOTHING_LEFT)
    inverse = 1 / (near * near)
    powers: Floats = np.exp(-near * near)
    powers *= (1 / pi**0.5 - inverse * _ratio(inverse, LARGE_ABOVE, LARGE_BELOW)) / near
    return powers


def _ratio(x: Floats, above: Sequence[float], below: Sequence[float]) -> Floats:
    ratio: Floats = _polynomial(x, above) / _polynomial(x, below)
    return ratio


def _polynomial(x: Floats, coefficients: Sequence[float]) -> Floats:
    """By Horner's rule, the highest power first."""
    total: Floats = np.full_like(x, coefficients[0])
    for each in coefficients[1:]:
        total *= x
        total += each
    return total
