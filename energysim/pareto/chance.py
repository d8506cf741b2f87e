"""Probability that a candidate is on the front, given what is uncertain about costs and accuracies.

All candidates run on one chip, so its constants are drawn once for all of them: where the energy of
a MAC is high, it is high for everyone. Intervals of two candidates may therefore overlap widely and
one of them still be the cheaper in every draw.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from energysim.pareto.front import on_fronts
from energysim.uncertainty import Uncertainty

Floats = npt.NDArray[np.float64]

DRAWS = 10_000
"""Draws of all that is uncertain."""

SEED = 20200707
"""Of the draws; a fixed one, so that the same question has the same answer."""

AT_ONCE = 2_000_000
"""Points of all draws that are looked at together; bounds the memory, changes nothing else."""


@dataclass(frozen=True, slots=True)
class Constants:
    """Constants of one chip, and what each of them is multiplied with in each candidate."""

    names: tuple[str, ...]
    value: Floats
    """as the hardware gives them, shape (E,) [pJ, pJ/bit or mW]"""
    low: Floats
    """shape (E,)"""
    high: Floats
    """shape (E,)"""
    amounts: Floats
    """operations, bits, or ns of static power, shape (N, E)"""

    def changes_pj(self, values: Floats) -> Floats:
        """Energy of each candidate with other constants, less that with the given ones [pJ].

        Parameters
        ----------
        values : float array, shape (..., E)

        Returns
        -------
        float array, shape (..., N)
        """
        changes: Floats = (values - self.value) @ self.amounts.T
        return changes


def constants_of(found: Sequence[Uncertainty]) -> Constants:
    """Put the constants of several runs on one chip together.

    Parameters
    ----------
    found : sequence of Uncertainty
        Of N runs with the same hardware.
    """
    known = {each.constant: each for own in found for each in own.effects}
    names = tuple(sorted(known))
    columns = [known[name] for name in names]
    amounts = np.zeros((len(found), len(names)))
    for row, own in enumerate(found):
        for each in own.effects:
            amounts[row, names.index(each.constant)] = each.amount
    value, low, high = (
        np.array([getattr(each, word) for each in columns], dtype=np.float64)
        for word in ("value", "low", "high")
    )
    return Constants(names, value, low, high, amounts)


def triangular(share: Floats, low: Floats, mode: Floats, high: Floats) -> Floats:
    """Values below which a share of a triangular distribution lies.

    Parameters
    ----------
    share : float array, shape (..., E)
        From 0 to 1.
    low, mode, high : float array, shape (E,)
        Ends and most likely value; a constant without a range has all three alike.

    Returns
    -------
    float array, shape (..., E)

    Notes
    -----
    A hardware file gives a constant as the value that its source says, and the least and the most
    that other sources say. That is a three-point estimate, of which the triangular distribution
    makes the least: no value outside, the given one the most likely (a uniform one would forget it;
    a logarithmic one has no place for an end of 0). It is the inverse of its distribution function.

    Examples
    --------
    >>> ends = np.array([0.0]), np.array([1.0]), np.array([4.0])
    >>> triangular(np.array([[0.0], [0.25], [1.0]]), *ends).ravel().tolist()
    [0.0, 1.0, 4.0]
    """
    width, left, right = high - low, mode - low, high - mode
    below = share * width < left
    rising = low + np.sqrt(share * width * left)
    falling = high - np.sqrt((1 - share) * width * right)
    found: Floats = np.where(below, rising, falling)
    return np.clip(found, low, high)


@dataclass(frozen=True, slots=True)
class Accuracies:
    """What is known of the accuracy of N candidates."""

    percent: Floats
    """mean, shape (N,)"""
    std: Floats
    """of a normal distribution, shape (N,)"""
    either_way: Floats
    """half the width of a uniform one, of which nothing is known but its ends, shape (N,)"""

    def drawn(
        self, uniform: np.random.Generator, gaussian: np.random.Generator, draws: int
    ) -> Floats:
        """Accuracies of all candidates, each by itself, shape (draws, N) [%]."""
        shape = draws, self.percent.size
        shares, normal = uniform.random(shape), gaussian.standard_normal(shape)
        found = self.percent + (2 * shares - 1) * self.either_way + normal * self.std
        return np.clip(found, 0.0, 100.0)


def front_probability(
    costs: Floats,
    accuracies: Accuracies,
    constants: Constants | None,
    *,
    draws: int = DRAWS,
    seed: int = SEED,
) -> Floats:
    """Share of draws in which each candidate is on the front of cost against accuracy.

    Parameters
    ----------
    costs : float array, shape (N,)
        To be made small; with constants, energies [pJ].
    accuracies : Accuracies
        Of the N candidates, to be made large.
    constants : Constants, optional
        By which energies are uncertain, together; costs are exact without.
    draws : int
    seed : int

    Returns
    -------
    float array, shape (N,)

    Examples
    --------
    >>> sure, close = np.zeros(2), np.array([0.0, 1.0])
    >>> known = Accuracies(np.array([90.0, 90.0]), sure, close)
    >>> front_probability(np.array([1.0, 2.0]), known, None).round(1).tolist()
    [1.0, 0.5]
    """
    # a source for each kind of chance, so that drawing in pieces changes nothing
    seeds = np.random.SeedSequence(seed).spawn(3)
    of_costs, uniform, gaussian = (np.random.default_rng(each) for each in seeds)
    times = np.zeros(costs.size)
    for size in _pieces(draws, costs.size):
        drawn = np.broadcast_to(costs, (size, costs.size))
        if constants is not None:
            shares = of_costs.random((size, constants.value.size))
            values = triangular(shares, constants.low, constants.value, constants.high)
            drawn = drawn + constants.changes_pj(values)
        times += on_fronts(drawn, -accuracies.drawn(uniform, gaussian, size)).sum(axis=0)
    return times / draws


def _pieces(draws: int, candidates: int) -> Iterator[int]:
    step = max(1, AT_ONCE // max(candidates, 1))
    for start in range(0, draws, step):
        yield min(step, draws - start)
