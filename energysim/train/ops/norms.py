"""Batch and layer normalisation."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from energysim.train.ops.activations import positive
from energysim.train.ops.blocks import channel_blocks, column_blocks
from energysim.train.scratch import Floats, scratch

EPSILON = 1e-5
"""Added to a variance before its root is taken, as in PyTorch."""

MOMENTUM = 0.1
"""Share of a batch in running statistics, as in PyTorch."""


@dataclass(frozen=True, slots=True)
class Statistics:
    """Mean and variance of each channel, over images and positions."""

    mean: Floats
    """shape (C,)"""
    variance: Floats
    """of the batch as it is, divided by its number of elements; shape (C,)"""

    @classmethod
    def start(cls, channels: int, dtype: npt.DTypeLike = np.float32) -> Statistics:
        """Running statistics before the first batch: mean 0, variance 1."""
        return cls(np.zeros(channels, dtype), np.ones(channels, dtype))

    def moved(self, batch: Statistics, elements: int, momentum: float = MOMENTUM) -> Statistics:
        """Running statistics after one more batch.

        Parameters
        ----------
        batch : Statistics
            Of the batch.
        elements : int
            Of each channel in the batch; its variance is divided by one less here, as an estimate
            of the variance of all images.
        momentum : float
            Share of the batch.
        """
        unbiased = batch.variance * (elements / max(1, elements - 1))
        return Statistics(
            self.mean + momentum * (batch.mean - self.mean),
            self.variance + momentum * (unbiased - self.variance),
        )


def batch_norm(
    x: Floats, gamma: Floats, beta: Floats, *, relu: bool = False, epsilon: float = EPSILON
) -> tuple[Floats, Statistics]:
    """Normalise each channel by the statistics of the batch, scale and shift it.

    Parameters
    ----------
    x : ndarray, shape (C, H, W, N) or (C, N)
    gamma, beta : ndarray, shape (C,)
        Scale and shift.
    relu : bool
        Take the positive part of the result in the same go.
    epsilon : float
        Added to the variance.

    Returns
    -------
    y : ndarray
        As large as ``x``.
    statistics : Statistics
        Of the batch, for :func:`batch_norm_backward` and for running ones.

    References
    ----------
    S. Ioffe, C. Szegedy, "Batch Normalization", ICML 2015, algorithm 1.
    """
    given = x.reshape(len(x), -1)
    elements = given.shape[1]
    y, ones = np.empty_like(given), np.ones(elements, x.dtype)
    mean, variance = np.empty_like(gamma), np.empty_like(gamma)
    for some in channel_blocks(given):
        into = y[some]
        mean[some] = given[some] @ ones / elements
        np.subtract(given[some], mean[some, None], out=into)
        variance[some] = dots(into, into) / elements
        into *= (gamma[some] / np.sqrt(variance[some] + epsilon))[:, None]
        into += beta[some, None]
        if relu:
            positive(into, into)
    return y.reshape(x.shape), Statistics(mean, variance)


def batch_norm_backward(
    dy: Floats,
    x: Floats,
    y: Floats,
    gamma: Floats,
    statistics: Statistics,
    *,
    relu: bool = False,
    epsilon: float = EPSILON,
) -> tuple[Floats, Floats, Floats]:
    """Gradients of :func:`batch_norm`.

    Parameters
    ----------
    dy : ndarray
        Gradient of its result.
    x, y : ndarray
        What it was given and what it gave; ``y`` is read with ``relu`` only.
    gamma : ndarray, shape (C,)
    statistics : Statistics
        Of the batch.
    relu, epsilon
        As forward.

    Returns
    -------
    dx, dgamma, dbeta : ndarray

    Notes
    -----
    With M elements a channel and u = (x - mean) / sqrt(variance + epsilon):
    dx = gamma / sqrt(variance + epsilon) (dy - sum(dy) / M - u sum(dy u) / M).
    """
    given, seen = x.reshape(len(x), -1), dy.reshape(len(x), -1)
    elements = given.shape[1]
    scale = 1 / np.sqrt(statistics.variance + epsilon)
    dx, ones = np.empty_like(given), np.ones(elements, x.dtype)
    dgamma, dbeta = np.empty_like(gamma), np.empty_like(gamma)
    for some in channel_blocks(given):
        unit = scratch("unit", given[some].shape, x.dtype)
        np.subtract(given[some], statistics.mean[some, None], out=unit)
        into, passed = dx[some], seen[some]
        if relu:
            passed = np.multiply(passed, y.reshape(given.shape)[some] > 0, out=into)
        dbeta[some] = passed @ ones
        dgamma[some] = dots(passed, unit) * scale[some]
        # What unit lacks, its scale, stands in the factors of whole channels.
        unit *= (dgamma[some] * scale[some] / elements)[:, None]
        np.subtract(passed, unit, out=into)
        into -= (dbeta[some] / elements)[:, None]
        into *= (gamma[some] * scale[some])[:, None]
    return dx.reshape(x.shape), dgamma, dbeta


def dots(a: Floats, b: Floats) -> Floats:
    """Dot product of each row with its like, by BLAS.

    In single precision it sums into more registers than np.einsum, and so is quicker and nearer to
    the true sum: over 65536 squares 4e-7 of it away instead of 2e-6.
    """
    products: Floats = np.matmul(a[:, None, :], b[:, :, None])[:, 0, 0]
    return products


def batch_norm_inference(
    x: Floats,
    gamma: Floats,
    beta: Floats,
    running: Statistics,
    *,
    relu: bool = False,
    epsilon: float = EPSILON,
) -> Floats:
    """Normalise each channel by running statistics, scale and shift it.

    Parameters
    ----------
    x, gamma, beta, relu, epsilon
        As for :func:`batch_norm`.
    running : Statistics

    Returns
    -------
    ndarray
        As large as ``x``.
    """
    scale = gamma / np.sqrt(running.variance + epsilon)
    shift = beta - running.mean * scale
    given = x.reshape(len(x), -1)
    y = np.empty_like(given)
    for some in channel_blocks(given):
        np.multiply(given[some], scale[some, None], out=y[some])
        y[some] += shift[some, None]
        if relu:
            positive(y[some], y[some])
    return y.reshape(x.shape)


def layer_norm(x: Floats, gamma: Floats, beta: Floats, *, epsilon: float = EPSILON) -> Floats:
    """Normalise each position of each image over its channels, scale and shift each channel.

    Parameters
    ----------
    x : ndarray, shape (C, H, W, N) or (C, N)
    gamma, beta : ndarray, shape (C,)
        Scale and shift.
    epsilon : float
        Added to the variance.

    Returns
    -------
    ndarray
        As large as ``x``.

    References
    ----------
    J. L. Ba, J. R. Kiros, G. E. Hinton, "Layer Normalization", arXiv 1607.06450, equations 3 and 4;
    over the channels of each token, as transformers do.
    """
    given = x.reshape(len(x), -1)
    y = np.empty_like(given)
    for some in column_blocks(given):
        unit, _ = _normalised(given[:, some], epsilon)
        np.multiply(unit, gamma[:, None], out=y[:, some])
        y[:, some] += beta[:, None]
    return y.reshape(x.shape)


def layer_norm_backward(
    dy: Floats, x: Floats, gamma: Floats, *, epsilon: float = EPSILON
) -> tuple[Floats, Floats, Floats]:
    """Gradients of :func:`layer_norm`.

    Parameters
    ----------
    dy : ndarray
        Gradient of its result.
    x : ndarray
        What it was given. Statistics are computed again: the block stands in the cache for its
        gradient anyway.
    gamma : ndarray, shape (C,)
    epsilon : float
        As forward.

    Returns
    -------
    dx, dgamma, dbeta : ndarray

    Notes
    -----
    With C channels, u = (x - mean) / sqrt(variance + epsilon) and g = gamma dy, sums over channels:
    dx = (g - sum(g) / C - u sum(g u) / C) / sqrt(variance + epsilon).
    """
    given, seen = x.reshape(len(x), -1), dy.reshape(len(x), -1)
    dx = np.empty_like(given)
    dgamma, dbeta = np.zeros_like(gamma), np.zeros_like(gamma)
    for some in column_blocks(given):
        unit, scale = _normalised(given[:, some], epsilon)
        dgamma += np.einsum("cm,cm->c", seen[:, some], unit)
        dbeta += seen[:, some].sum(axis=1)
        into = dx[:, some]
        np.multiply(seen[:, some], gamma[:, None], out=into)
        unit *= np.einsum("cm,cm->m", into, unit) / len(x)
        into -= into.mean(axis=0)
        into -= unit
        into *= scale
    return dx.reshape(x.shape), dgamma, dbeta


def _normalised(x: Floats, epsilon: float) -> tuple[Floats, Floats]:
    """Columns of mean 0 and variance 1, and the factor of each that made it so."""
    unit: Floats = x - x.mean(axis=0)
    scale: Floats = 1 / np.sqrt(np.einsum("cm,cm->m", unit, unit) / len(x) + epsilon)
    unit *= scale
    return unit, scale
