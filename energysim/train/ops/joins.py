"""Joining, scaling and reordering of channels."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from energysim.errors import InputError
from energysim.train.scratch import Floats

Ints = npt.NDArray[np.integer]


def add(operands: Sequence[Floats]) -> Floats:
    """Sum of activations of one size; each has the gradient of the sum."""
    total = operands[0] + operands[1] if len(operands) > 1 else operands[0].copy()
    for each in operands[2:]:
        total += each
    return total


def concat(operands: Sequence[Floats]) -> Floats:
    """Channels of all operands, one after another."""
    return np.concatenate(operands)


def concat_backward(dy: Floats, channels: Sequence[int]) -> list[Floats]:
    """Gradients of :func:`concat`, as views; ``channels`` are those of each operand."""
    return np.split(dy, np.cumsum(channels)[:-1])


def multiply(x: Floats, scale: Floats) -> Floats:
    """Product of each element with that of an operand of the same size, or of size (C, 1, 1, N)."""
    return x * scale


def multiply_backward(dy: Floats, x: Floats, scale: Floats) -> tuple[Floats, Floats]:
    """Gradients of :func:`multiply`.

    Returns
    -------
    dx, dscale : ndarray
        As large as the operands.
    """
    if scale.shape == x.shape:
        return dy * scale, dy * x
    dscale: Floats = np.einsum("chwn,chwn->cn", dy, x)
    return dy * scale, dscale.reshape(scale.shape)


def pick(x: Floats, channels: Ints) -> Floats:
    """Read some channels, in any order and any number of times.

    Parameters
    ----------
    x : ndarray, shape (C, ...)
    channels : ndarray of int, shape (D,)
        Which ones, from 0.

    Returns
    -------
    ndarray, shape (D, ...)
        Always a copy.

    Raises
    ------
    InputError
        If there is no such channel.

    Examples
    --------
    >>> pick(np.array([10.0, 11.0, 12.0]), np.array([2, 0, 2])).tolist()
    [12.0, 10.0, 12.0]
    """
    _check_channels(channels, len(x))
    return x[channels]


def pick_backward(dy: Floats, channels: Ints, total: int) -> Floats:
    """Gradient of :func:`pick`: a channel gets the sum over the times it was read.

    Parameters
    ----------
    dy : ndarray, shape (D, ...)
    channels : ndarray of int, shape (D,)
        As forward.
    total : int
        How many channels there were to read.

    Returns
    -------
    ndarray, shape (total, ...)

    Raises
    ------
    InputError
        If there is no such channel.
    """
    _check_channels(channels, total)
    dx: Floats = np.zeros((total, *dy.shape[1:]), dtype=dy.dtype)
    if len(np.unique(channels)) == len(channels):
        dx[channels] = dy
        return dx
    for channel, each in zip(channels.tolist(), dy, strict=True):
        dx[channel] += each
    return dx


def _check_channels(channels: Ints, total: int) -> None:
    wrong = channels[(channels < 0) | (channels >= total)]
    if wrong.size:
        raise InputError(f"channels to pick must be 0 to {total - 1}, got {wrong[0]}")
