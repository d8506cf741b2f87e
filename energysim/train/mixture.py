"""Mixture normalisation: a Gaussian mixture fitted to each batch, in place of one Gaussian.

A batch norm is the normalised Fisher score, by its mean, of one Gaussian fitted to a channel. With
K Gaussians an element x has a posterior g_k for each of them, and the score summed over them is

    u = sum over k of g_k / sqrt(lambda_k) (x - mu_k) / sqrt(var_k + epsilon)

with the proportion lambda_k, the mean mu_k and the variance var_k of the component. Scale and shift
follow as in a batch norm. The points are single numbers, with a mixture for each channel, or the
vectors of all channels of a pixel, with one mixture (diagonal covariances).

What the method leaves open is settled so: each step of training goes on with the fit of the last
one, for a given number of sweeps of expectation and maximisation, so that components keep their
numbers and running averages of them mean something; the very first step begins with k-means++.
Posteriors are constants for the gradient, means and variances are not. A component with less than
one element begins anew with the mean and variance of the whole batch, and is left out of the step
if that does not help.

References
----------
M. M. Kalayeh, M. Shah, "Training Faster by Separating Modes of Variation in Batch-normalized
Models", IEEE TPAMI 42 (2020), arXiv 1806.02892.
T. Jaakkola, D. Haussler, "Exploiting Generative Models in Discriminative Classifiers", NIPS 1998:
Fisher scores.
D. Arthur, S. Vassilvitskii, "k-means++: The Advantages of Careful Seeding", SODA 2007.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import log, pi
from typing import Any

import numpy as np
import numpy.typing as npt

from energysim.network import Mixture, Of
from energysim.train.ops import EPSILON, MOMENTUM, channel_blocks, dots, positive
from energysim.train.scratch import Floats

LEAST = 1.0
"""Elements that a component answers for, below which it is dead."""

FIRST_SWEEPS = 10
"""Of expectation and maximisation after the seeding, before those of the step itself."""


@dataclass(frozen=True, slots=True)
class Fit:
    """Components of a mixture; with points of all channels together, one proportion for all."""

    proportion: Floats
    """shape (K, C), or (K, 1) of vectors; sums to 1 over the components"""
    mean: Floats
    """shape (K, C)"""
    variance: Floats
    """shape (K, C)"""

    @classmethod
    def start(cls, how: Mixture, channels: int, dtype: npt.DTypeLike = np.float32) -> Fit:
        """Running statistics before the first batch: mean 0, variance 1, equal proportions."""
        shape = how.components, channels
        own = how.components, channels if how.of is Of.CHANNEL else 1
        equal = np.full(own, 1 / how.components, dtype)
        return cls(equal, np.zeros(shape, dtype), np.ones(shape, dtype))

    @property
    def alive(self) -> npt.NDArray[np.bool_]:
        """Which components answer for anything, shape as of the proportions."""
        return self.proportion > 0

    def moved(self, batch: Fit, elements: int, momentum: float = MOMENTUM) -> Fit:
        """Running statistics after one more batch.

        Parameters
        ----------
        batch : Fit
        elements : int
            Of each channel in the batch. A component's variance is divided by one element less
            than it answers for, as an estimate of that of all images.
        momentum : float
            Share of the batch. Mean and variance of a component that is dead there stay.
        """
        dtype = batch.mean.dtype
        counts = batch.proportion.astype(np.float64) * elements
        unbiased = batch.variance * (counts / np.maximum(1, counts - 1)).astype(dtype)
        share = np.where(batch.alive, momentum, 0).astype(dtype)
        return Fit(
            self.proportion + momentum * (batch.proportion - self.proportion),
            self.mean + share * (batch.mean - self.mean),
            self.variance + share * (unbiased - self.variance),
        )


# -- expectation and maximisation ------------------------------------------------------------------


def posteriors(x: Floats, fit: Fit) -> tuple[Floats, Floats]:
    """Posterior of each component, and log-likelihood, of each point.

    Parameters
    ----------
    x : ndarray, shape (C, M)
    fit : Fit

    Returns
    -------
    posteriors : ndarray, shape (K, C, M), or (K, 1, M) of vectors
        Sums to 1 over the components; that of a component with proportion 0 is 0.
    likelihoods : ndarray, shape (C, M) or (1, M)
        Of the point under the mixture [nat].

    Notes
    -----
    The largest log-density of a point is taken off before any power is taken, so that nothing
    overflows and at least one component keeps a weight, however far away all of them are.
    """
    together = fit.proportion.shape[1] < fit.mean.shape[1]
    with np.errstate(divide="ignore"):
        constants = np.log(fit.proportion)
    spread = fit.variance + EPSILON
    logs = log(2 * pi) + np.log(spread)
    constants = constants - (logs.sum(axis=1, keepdims=True) if together else logs) / 2
    densities: Floats = np.empty((len(fit.mean), 1 if together else len(x), x.shape[1]), x.dtype)
    for k in range(len(densities)):
        into = densities[k]
        away = x - fit.mean[k, :, None]
        if together:
            away *= away
            into[0] = (-0.5 / spread[k]) @ away
        else:
            np.multiply(away, away, out=into)
            into *= (-0.5 / spread[k])[:, None]
        into += constants[k, :, None]
    highest = densities.max(axis=0)
    densities -= highest
    powers: Floats = np.exp(densities, out=densities)
    total = powers.sum(axis=0)
    powers /= total
    return powers, highest + np.log(total)


def moments(x: Floats, weights: Floats, before: Fit) -> Fit:
    """Maximisation: proportion, mean and variance of what each component answers for.

    Parameters
    ----------
    x : ndarray, shape (C, M)
    weights : ndarray, shape (K, C, M) or (K, 1, M)
        Posteriors.
    before : Fit
        Whose means and variances a component without any element keeps.
    """
    ones = np.ones(x.shape[1], x.dtype)
    counts = weights @ ones
    mean, variance = before.mean.astype(x.dtype), before.variance.astype(x.dtype)
    for k, own in enumerate(weights):
        wide = np.broadcast_to(counts[k], (len(x),))
        for some in channel_blocks(x):
            part = own if len(own) == 1 else own[some]
            many = wide[some]
            if not many.any():
                continue
            many = np.where(many > 0, many, 1)
            middle = (part * x[some]) @ ones / many
            away = x[some] - middle[:, None]
            spread = dots(part * away, away) / many
            found = wide[some] > 0
            mean[k, some] = np.where(found, middle, mean[k, some])
            variance[k, some] = np.where(found, spread, variance[k, some])
    return Fit(counts / x.shape[1], mean, variance)


def sweep(x: Floats, begin: Fit) -> tuple[Floats, Fit]:
    """Expectation and maximisation, once.

    Parameters
    ----------
    x : ndarray, shape (C, M)
    begin : Fit

    Returns
    -------
    posteriors : ndarray
        Under ``begin``, or what it became where components were dead.
    fit : Fit
        Moments of the points under these posteriors.
    """
    found, _ = posteriors(x, begin)
    dead = _dead(found)
    if dead.any():
        begin = _begun_anew(x, begin, dead)
        found, _ = posteriors(x, begin)
        dead = _dead(found)
        if dead.any():  # now without them: the others answer for all
            kept = np.where(dead, 0, begin.proportion).astype(x.dtype)
            begin = replace(begin, proportion=kept)
            found, _ = posteriors(x, begin)
    return found, moments(x, found, begin)


def fitted(x: Floats, how: Mixture, begin: Fit) -> tuple[Floats, Fit]:
    """The sweeps of one step.

    Parameters
    ----------
    x : ndarray, shape (C, M)
    how : Mixture
    begin : Fit
        Of the step before, or seeds.

    Returns
    -------
    posteriors : ndarray
        Of the last expectation.
    fit : Fit
        Moments under them, so that what is normalised by both has mean 0 exactly.
    """
    for _ in range(how.sweeps - 1):
        _, begin = sweep(x, begin)
    return sweep(x, begin)


def _dead(weights: Floats) -> npt.NDArray[np.bool_]:
    """Which components answer for less than :data:`LEAST`; never the one that does for most."""
    counts = weights.sum(axis=2)
    dead: npt.NDArray[np.bool_] = (counts < LEAST) & (counts < counts.max(axis=0))
    return dead


def _begun_anew(x: Floats, fit: Fit, dead: npt.NDArray[np.bool_]) -> Fit:
    """Give dead components mean and variance of the whole batch, and an equal proportion."""
    equal = np.where(dead, 1 / len(dead), fit.proportion).astype(x.dtype)
    mean = np.where(dead, x.mean(axis=1), fit.mean).astype(x.dtype)
    return Fit(equal, mean, np.where(dead, x.var(axis=1), fit.variance).astype(x.dtype))


# -- seeding ---------------------------------------------------------------------------------------


def seeded(x: Floats, how: Mixture, rng: np.random.Generator) -> Fit:
    """A first fit: k-means++, each point given to its nearest seed, then a few sweeps.

    Components are put in the order of their means, so that parts of one batch which are seeded
    apart number theirs alike.

    Parameters
    ----------
    x : ndarray, shape (C, M)
    how : Mixture
    rng : numpy.random.Generator
        The same draws give the same fit.
    """
    channels, elements = x.shape
    centres = _centres(x, how, rng)
    distance = np.stack([_squares(x, centre, how.of) for centre in centres])
    nearest = distance.argmin(axis=0)
    given = (nearest == np.arange(how.components)[:, None, None]).astype(x.dtype)
    whole = np.broadcast_to(x.mean(axis=1), (how.components, channels))
    spread = np.broadcast_to(x.var(axis=1), (how.components, channels))
    equal = np.full((*given.shape[:2],), 1 / how.components, x.dtype)
    fit = moments(x, given, Fit(equal, whole, spread))
    for _ in range(FIRST_SWEEPS if elements > 1 else 0):
        _, fit = sweep(x, fit)
    return _in_order(fit)


def _centres(x: Floats, how: Mixture, rng: np.random.Generator) -> list[Floats]:
    """Points of the batch: the first by chance, each next one by its squared distance to them."""
    draws = len(x) if how.of is Of.CHANNEL else 1
    rows = np.arange(len(x)) if how.of is Of.CHANNEL else slice(None)
    found = [x[rows, rng.integers(x.shape[1], size=draws)].reshape(len(x))]
    least = _squares(x, found[0], how.of)
    while len(found) < how.components:
        reach = least.cumsum(axis=1, dtype=np.float64)
        aim = rng.random(draws) * reach[:, -1]
        picked = np.minimum((reach <= aim[:, None]).sum(axis=1), x.shape[1] - 1)
        found.append(x[rows, picked].reshape(len(x)))
        least = np.minimum(least, _squares(x, found[-1], how.of))
    return found


def _squares(x: Floats, centre: Floats, of: Of) -> Floats:
    """Squared distance of each point to a centre, shape (C, M) or (1, M)."""
    away = x - centre[:, None]
    away *= away
    return away if of is Of.CHANNEL else away.sum(axis=0, keepdims=True)


def _in_order(fit: Fit) -> Fit:
    channels = fit.proportion.shape[1]
    keys = fit.mean if channels == fit.mean.shape[1] else fit.mean.sum(axis=1, keepdims=True)
    order = np.argsort(keys, axis=0, kind="stable")
    wide = np.broadcast_to(order, fit.mean.shape)
    return Fit(
        np.take_along_axis(fit.proportion, order, axis=0),
        np.take_along_axis(fit.mean, wide, axis=0),
        np.take_along_axis(fit.variance, wide, axis=0),
    )


# -- the layer -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Seen:
    """What a pass forward leaves of a batch."""

    posteriors: Floats
    fit: Fit


def mixture_norm(
    x: Floats,
    gamma: Floats,
    beta: Floats,
    how: Mixture,
    begin: Fit | np.random.Generator,
    *,
    relu: bool = False,
) -> tuple[Floats, Seen]:
    """Fit a mixture to the batch, normalise by it, scale and shift.

    Parameters
    ----------
    x : ndarray, shape (C, H, W, N) or (C, N)
    gamma, beta : ndarray, shape (C,)
    how : Mixture
    begin : Fit or Generator
        The fit of the step before; or what draws the seeds of a first one.
    relu : bool
        Take the positive part of the result in the same go.

    Returns
    -------
    y : ndarray
        As large as ``x``. Before scale and shift each channel has mean 0; its variance is about K
        with the root and components far apart, and at most 1 without.
    seen : Seen
        For :func:`mixture_norm_backward` and for running statistics.
    """
    points = x.reshape(len(x), -1)
    if isinstance(begin, np.random.Generator):
        begin = seeded(points, how, begin)
    weights, fit = fitted(points, how, begin)
    y = _normalised(points, gamma, beta, how, weights, fit)
    if relu:
        positive(y, y)
    return y.reshape(x.shape), Seen(weights, fit)


def mixture_norm_inference(
    x: Floats, gamma: Floats, beta: Floats, how: Mixture, running: Fit, *, relu: bool = False
) -> Floats:
    """Normalise by running statistics: posteriors of each element, scale and shift.

    Parameters
    ----------
    x, gamma, beta, how, relu
        As for :func:`mixture_norm`.
    running : Fit
    """
    points = x.reshape(len(x), -1)
    weights, _ = posteriors(points, running)
    y = _normalised(points, gamma, beta, how, weights, running)
    if relu:
        positive(y, y)
    return y.reshape(x.shape)


def _normalised(
    points: Floats, gamma: Floats, beta: Floats, how: Mixture, weights: Floats, fit: Fit
) -> Floats:
    y = np.empty_like(points)
    gains = gains_of(fit, how)
    for some in channel_blocks(points):
        total = y[some]
        for k, own in enumerate(weights):
            into = total if k == 0 else np.empty_like(total)
            np.subtract(points[some], fit.mean[k, some, None], out=into)
            into *= own if len(own) == 1 else own[some]
            scale = gamma[some] * _of(gains, k, some) / np.sqrt(fit.variance[k, some] + EPSILON)
            into *= scale[:, None]
            if k:
                total += into
        total += beta[some, None]
    return y


def gains_of(fit: Fit, how: Mixture) -> Floats:
    """What the part of each component is multiplied with, shape as of the proportions."""
    found: Floats = np.zeros_like(fit.proportion)
    alive = fit.alive
    found[alive] = 1 / np.sqrt(fit.proportion[alive]) if how.root else 1
    return found


def _of(per_component: Floats, k: int, some: slice) -> Any:
    """Numbers of one component for some channels: one each, or one for all."""
    row = per_component[k]
    return row if len(row) == 1 else row[some]


def mixture_norm_backward(
    dy: Floats,
    x: Floats,
    y: Floats,
    gamma: Floats,
    how: Mixture,
    seen: Seen,
    *,
    relu: bool = False,
) -> tuple[Floats, Floats, Floats]:
    """Gradients of :func:`mixture_norm`, with posteriors as constants.

    Parameters
    ----------
    dy : ndarray
        Gradient of its result.
    x, y : ndarray
        What it was given and what it gave; ``y`` is read with ``relu`` only.
    gamma : ndarray, shape (C,)
    how, seen, relu
        As forward, and what it left.

    Returns
    -------
    dx, dgamma, dbeta : ndarray

    Notes
    -----
    Each component is a batch norm with weights. With its posteriors g, N = sum(g), gain a = 1 /
    sqrt(lambda), r = 1 / sqrt(var + epsilon) and u = r (x - mu) it adds

        gamma a r g (dy - sum(g dy) / N - u sum(g dy u) / N)

    to dx and a sum(g dy u) to dgamma.
    """
    points, arriving = x.reshape(len(x), -1), dy.reshape(len(x), -1)
    given = y.reshape(len(x), -1)
    weights, fit, gains = seen.posteriors, seen.fit, gains_of(seen.fit, how)
    counts = np.where(fit.alive, fit.proportion * points.shape[1], 1).astype(x.dtype)
    scales = 1 / np.sqrt(fit.variance + EPSILON)
    dx, ones = np.empty_like(points), np.ones(points.shape[1], x.dtype)
    dgamma, dbeta = np.zeros_like(gamma), np.empty_like(gamma)
    for some in channel_blocks(points):
        passed = arriving[some] * (given[some] > 0) if relu else arriving[some]
        dbeta[some] = passed @ ones
        total = dx[some]
        for k, own in enumerate(weights):
            part = own if len(own) == 1 else own[some]
            scale, many, gain = scales[k, some], _of(counts, k, some), _of(gains, k, some)
            unit = points[some] - fit.mean[k, some, None]
            weighted = part * passed
            along = dots(weighted, unit) * scale
            dgamma[some] += gain * along
            unit *= (along * scale / many)[:, None]
            np.subtract(passed, unit, out=unit)
            unit -= (weighted @ ones / many)[:, None]
            unit *= part
            unit *= (gamma[some] * gain * scale)[:, None]
            if k:
                total += unit
            else:
                total[...] = unit
    return dx.reshape(x.shape), dgamma, dbeta
