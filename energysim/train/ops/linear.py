"""A linear layer, and biases."""

from __future__ import annotations

from energysim.train.scratch import Floats


def linear(x: Floats, w: Floats, b: Floats | None = None) -> Floats:
    """Multiply vectors by a matrix.

    Parameters
    ----------
    x : ndarray, shape (C, N)
    w : ndarray, shape (K, C)
    b : ndarray, shape (K,), optional
        Added to each image's.

    Returns
    -------
    ndarray, shape (K, N)
    """
    y: Floats = w @ x
    return y if b is None else add_bias(y, b)


def linear_backward(dy: Floats, x: Floats, w: Floats) -> tuple[Floats, Floats, Floats]:
    """Gradients of :func:`linear`.

    Returns
    -------
    dx, dw, db : ndarray, shapes (C, N), (K, C) and (K,)
    """
    return w.T @ dy, dy @ x.T, bias_gradient(dy)


def add_bias(y: Floats, b: Floats) -> Floats:
    """Add one number to each channel."""
    return y + b.reshape(-1, *(1,) * (y.ndim - 1))


def bias_gradient(dy: Floats) -> Floats:
    """Gradient of what was added to each channel, shape (K,)."""
    total: Floats = dy.reshape(len(dy), -1).sum(axis=1)
    return total
