"""Pooling."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from energysim.axes import Dim, Shape
from energysim.train.lowered import Axis
from energysim.train.ops.blocks import channel_blocks
from energysim.train.scratch import Floats, scratch


def _axes(shape: Shape) -> tuple[Axis, Axis]:
    rows, columns = (
        Axis(
            shape[out],
            shape.size[i],
            shape.stride[i],
            tuple(tap * shape.dilation[i] - shape.pad[i] for tap in range(shape[kernel])),
        )
        for i, (out, kernel) in enumerate(((Dim.P, Dim.R), (Dim.Q, Dim.S)))
    )
    return rows, columns


def _meetings(shape: Shape) -> Iterator[tuple[tuple[slice, ...], tuple[slice, ...]]]:
    """For each tap, indices of the output and of the input that meet, all channels."""
    rows, columns = _axes(shape)
    every = slice(None)
    for p, h in _met(rows):
        for q, w in _met(columns):
            yield (every, p, q), (every, h, w)


def _met(axis: Axis) -> Iterator[tuple[slice, slice]]:
    """For each tap that meets the input along an axis, output and input positions."""
    for tap in range(len(axis.offsets)):
        out, inside = axis.meeting(tap)
        if out.stop > out.start:
            yield out, inside


def _disjoint(shape: Shape) -> tuple[bool, bool]:
    """Whether no element is in two windows, and whether each is in exactly one."""
    axes = _axes(shape)
    apart = all(axis.stride > axis.offsets[-1] - axis.offsets[0] for axis in axes)
    tiled = apart and all(
        axis.offsets == tuple(range(axis.stride)) and axis.out * axis.stride == axis.size
        for axis in axes
    )
    return apart, tiled


def _output(x: Floats, shape: Shape, value: float) -> Floats:
    y: Floats = np.full((len(x), shape[Dim.P], shape[Dim.Q], x.shape[3]), value, dtype=x.dtype)
    return y


def _global(shape: Shape) -> bool:
    """Whether there is one window, and it is the whole image."""
    kernel = shape[Dim.R], shape[Dim.S]
    return shape[Dim.P] == shape[Dim.Q] == 1 and kernel == shape.size and shape.pad == (0, 0)


def max_pool(x: Floats, shape: Shape) -> Floats:
    """Largest element of each window; padding is never the largest.

    Parameters
    ----------
    x : ndarray, shape (C, H, W, N)
    shape : Shape
        Of the layer; K and C are not used.

    Returns
    -------
    ndarray, shape (C, P, Q, N)
    """
    rows, columns = _axes(shape)
    y = _output(x, shape, -np.inf)
    for some in channel_blocks(x):
        # Of rows first: they are long, and fewer of them are left for the columns.
        room = (len(y[some]), rows.out, *x.shape[2:])
        tallest = scratch("tallest", room, x.dtype)
        tallest[...] = -np.inf
        for p, h in _met(rows):
            np.maximum(tallest[:, p], x[some, h], out=tallest[:, p])
        for q, w in _met(columns):
            into = y[some, :, q]
            np.maximum(into, tallest[:, :, w], out=into)
    return y


def max_pool_backward(dy: Floats, x: Floats, y: Floats, shape: Shape) -> Floats:
    """Gradient of :func:`max_pool`: all to the first of equal largest elements of a window.

    Parameters
    ----------
    dy : ndarray, shape (C, P, Q, N)
    x, y : ndarray
        What it was given and what it gave.
    shape : Shape
        Of the layer.

    Returns
    -------
    ndarray, shape (C, H, W, N)
    """
    apart, tiled = _disjoint(shape)
    dx = np.empty_like(x) if tiled else np.zeros_like(x)
    for some in channel_blocks(x):
        left = dy[some].copy()  # of each window, until it has found its element
        for out, inside in _meetings(shape):
            part = np.equal(x[some][inside], y[some][out]).astype(dy.dtype)
            part *= left[out]
            left[out] -= part
            into = dx[some][inside]
            if apart:
                into[...] = part
            else:
                into += part
    return dx


def max_pool_at(x: Floats, of: Floats, largest: Floats, shape: Shape) -> Floats:
    """Element of each window where another input has its largest, the first of equal ones.

    Parameters
    ----------
    x : ndarray, shape (C, H, W, N)
    of, largest : ndarray
        The other input, and what :func:`max_pool` gives of it.
    shape : Shape
        Of the layer.

    Returns
    -------
    ndarray, shape (C, P, Q, N)
    """
    y = _output(x, shape, 0)
    for some in channel_blocks(x):
        left = np.ones_like(largest[some])  # of each window, until it has found its element
        for out, inside in _meetings(shape):
            part = np.equal(of[some][inside], largest[some][out]).astype(x.dtype)
            part *= left[out]
            left[out] -= part
            y[some][out] += part * x[some][inside]
    return y


def average_pool(x: Floats, shape: Shape, *, count_padding: bool = False) -> Floats:
    """Mean of each window.

    Parameters
    ----------
    x : ndarray, shape (C, H, W, N)
    shape : Shape
        Of the layer; K and C are not used.
    count_padding : bool
        Divide by the size of the window, padding included, instead of by the elements inside.

    Returns
    -------
    ndarray, shape (C, P, Q, N)
    """
    if _global(shape):
        mean: Floats = x.mean(axis=(1, 2), keepdims=True)
        return mean
    y = _output(x, shape, 0)
    for some in channel_blocks(x):
        for out, inside in _meetings(shape):
            y[some][out] += x[some][inside]
    y *= _weights(shape, count_padding, x.dtype)
    return y


def average_pool_backward(dy: Floats, shape: Shape, *, count_padding: bool = False) -> Floats:
    """Gradient of :func:`average_pool`.

    Parameters
    ----------
    dy : ndarray, shape (C, P, Q, N)
    shape, count_padding
        As forward.

    Returns
    -------
    ndarray, shape (C, H, W, N)
    """
    height, width = shape.size
    share = dy * _weights(shape, count_padding, dy.dtype)
    if _global(shape):
        return np.repeat(np.repeat(share, height, axis=1), width, axis=2)
    dx: Floats = np.zeros((len(dy), height, width, dy.shape[3]), dtype=dy.dtype)
    for some in channel_blocks(dx):
        for out, inside in _meetings(shape):
            dx[some][inside] += share[some][out]
    return dx


def _weights(shape: Shape, count_padding: bool, dtype: npt.DTypeLike) -> Floats:
    """Reciprocal of the number of elements in each window, ``[1, P, Q, 1]``."""
    if count_padding:
        return np.full((1, 1, 1, 1), 1 / (shape[Dim.R] * shape[Dim.S]), dtype=dtype)
    rows, columns = (
        np.array(
            [
                sum(0 <= axis.stride * p + offset < axis.size for offset in axis.offsets)
                for p in range(axis.out)
            ]
        )
        for axis in _axes(shape)
    )
    counts = np.maximum(np.multiply.outer(rows, columns), 1)
    weights: Floats = (1 / counts).astype(dtype)[None, :, :, None]
    return weights
