"""What stands between convolutions, forward and backward: pure functions of arrays.

Activations are ``[channel, row, column, image]``, vectors ``[channel, image]``. A gradient has the
name of what it is the gradient of, with a ``d`` in front: ``dy`` is d(loss) / d(y). Nothing is
changed in place but what a function has made itself.

Functions of many passes work on a few channels at a time, which stay in the cache from the first
pass to the last.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from energysim.axes import Dim, Shape
from energysim.errors import InputError
from energysim.network import Activation, Over
from energysim.train.lowered import LINE, Axis
from energysim.train.normal import normal_density, normal_distribution
from energysim.train.scratch import Floats, scratch

Ints = npt.NDArray[np.integer]

BLOCK_BYTES = 1 << 19
"""Of the channels that are worked on together [byte]. Half of it takes a tenth more time for what
calls cost; with twice as much the time stays the same."""

EPSILON = 1e-5
"""Added to a variance before its root is taken, as in PyTorch."""

MOMENTUM = 0.1
"""Share of a batch in running statistics, as in PyTorch."""


def channel_blocks(x: Floats) -> Iterator[slice]:
    """Channels that are worked on together."""
    many = max(1, BLOCK_BYTES // max(1, x[0].nbytes))
    for first in range(0, len(x), many):
        yield slice(first, first + many)


def _columns(x: Floats) -> Iterator[slice]:
    """Columns of a matrix that are worked on together, whole cache lines of them."""
    many = max(1, BLOCK_BYTES // max(1, x[:, :1].nbytes) // LINE) * LINE
    for first in range(0, x.shape[1], many):
        yield slice(first, first + many)


# -- linear ----------------------------------------------------------------------------------------


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


# -- batch normalisation ---------------------------------------------------------------------------


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


# -- layer normalisation ---------------------------------------------------------------------------


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
    for some in _columns(given):
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
    for some in _columns(given):
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


# -- activation functions --------------------------------------------------------------------------


RELU6_TOP = 6
"""Where ReLU6 ends."""


def relu(x: Floats) -> Floats:
    """Positive part."""
    return positive(x, np.empty_like(x))


def positive(x: Floats, into: Floats) -> Floats:
    """Positive part, NaN where it was; np.clip is twice as fast as np.maximum with a number."""
    return np.clip(x, 0, np.inf, out=into)


def relu_backward(dy: Floats, y: Floats) -> Floats:
    """Gradient of :func:`relu`, from what it gave; 0 at 0."""
    return dy * (y > 0)


def relu6(x: Floats) -> Floats:
    """Positive part, at most 6."""
    clipped: Floats = np.clip(x, 0, RELU6_TOP)
    return clipped


def relu6_backward(dy: Floats, y: Floats) -> Floats:
    """Gradient of :func:`relu6`, from what it gave; 0 at both ends."""
    return dy * ((y > 0) & (y < RELU6_TOP))


def sigmoid(x: Floats) -> Floats:
    """1 / (1 + exp(-x)), for any x without overflow."""
    # exp of what is not positive only; tanh would lose the small values.
    small = np.exp(-np.abs(x))
    y: Floats = np.where(x >= 0, 1, small) / (1 + small)
    return y


def sigmoid_backward(dy: Floats, y: Floats) -> Floats:
    """Gradient of :func:`sigmoid`, from what it gave."""
    return dy * y * (1 - y)


def swish(x: Floats) -> Floats:
    """X times its sigmoid."""
    return x * sigmoid(x)


def swish_backward(dy: Floats, x: Floats) -> Floats:
    """Gradient of :func:`swish`, from what it was given."""
    gate = sigmoid(x)
    return dy * gate * (1 + x * (1 - gate))


def gelu(x: Floats) -> Floats:
    """X times the normal distribution function of x.

    References
    ----------
    D. Hendrycks, K. Gimpel, "Gaussian Error Linear Units (GELUs)", arXiv 1606.08415, section 2: the
    exact one, not its approximation by tanh.
    """
    return x * normal_distribution(x)


def gelu_backward(dy: Floats, x: Floats) -> Floats:
    """Gradient of :func:`gelu`, from what it was given."""
    return dy * (normal_distribution(x) + x * normal_density(x))


def activate(kind: Activation, x: Floats) -> Floats:
    """Apply an activation function; without one, what it is given comes back, not a copy."""
    functions: dict[Activation, Callable[[Floats], Floats]] = {
        Activation.NONE: lambda each: each,
        Activation.RELU: relu,
        Activation.RELU6: relu6,
        Activation.SIGMOID: sigmoid,
        Activation.SWISH: swish,
        Activation.GELU: gelu,
    }
    return functions[kind](x)


def activate_backward(kind: Activation, dy: Floats, x: Floats, y: Floats) -> Floats:
    """Gradient of an activation function, from what it was given and what it gave."""
    match kind:
        case Activation.NONE:
            return dy
        case Activation.RELU:
            return relu_backward(dy, y)
        case Activation.RELU6:
            return relu6_backward(dy, y)
        case Activation.SIGMOID:
            return sigmoid_backward(dy, y)
        case Activation.SWISH:
            return swish_backward(dy, x)
        case Activation.GELU:
            return gelu_backward(dy, x)


# -- pooling ---------------------------------------------------------------------------------------


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


# -- joining and reordering ------------------------------------------------------------------------


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


def _grouped(x: Floats, groups: int) -> Floats:
    """Channels of each group by themselves, ``[group, channel, ...]``."""
    if groups < 1 or len(x) % groups:
        raise InputError(f"groups must divide the {len(x)} channels, got {groups}")
    return x.reshape(groups, len(x) // groups, *x.shape[1:])


# -- attention -------------------------------------------------------------------------------------


def channel_softmax(x: Floats, groups: int = 1) -> Floats:
    """Softmax over the channels of each group, for each position and image.

    Parameters
    ----------
    x : ndarray, shape (C, H, W, N)
        Such as the scores of an attention, a channel for each head and key: C = heads * keys.
    groups : int
        Whose channels add up to 1 each, such as the heads.

    Returns
    -------
    ndarray
        As large as ``x``.

    Raises
    ------
    InputError
        If the groups don't divide the channels.
    """
    given = _grouped(x, groups).reshape(groups, len(x) // groups, -1)
    y = np.empty_like(given)
    for into, each in zip(y, given, strict=True):
        for some in _columns(each):
            into[:, some] = softmax(each[:, some])
    return y.reshape(x.shape)


def channel_softmax_backward(dy: Floats, y: Floats, groups: int = 1) -> Floats:
    """Gradient of :func:`channel_softmax`, from what it gave.

    Notes
    -----
    dx = y (dy - sum(y dy)), summed over the channels of a group.
    """
    given, seen = (_grouped(each, groups).reshape(groups, len(y) // groups, -1) for each in (y, dy))
    dx = np.empty_like(given)
    for into, each, gradient in zip(dx, given, seen, strict=True):
        for some in _columns(each):
            shared = np.einsum("cm,cm->m", each[:, some], gradient[:, some])
            np.subtract(gradient[:, some], shared, out=into[:, some])
            into[:, some] *= each[:, some]
    return dx.reshape(y.shape)


def matmul(a: Floats, b: Floats, *, over: Over, groups: int = 1, factor: float = 1.0) -> Floats:
    """Product of two activations, image by image and group by group.

    Parameters
    ----------
    a : ndarray, shape (C, H, W, N)
        Over channels, ``[(group, c), position, image]``; over positions of the other operand, the
        weights of these, ``[(group, k), position, image]``.
    b : ndarray, shape (D, I, J, N)
        ``[(group, c), k, image]``, with positions k = (i, j).
    over : Over
        What of ``b`` is summed over: its channels (queries by keys) or its positions (scores by
        values).
    groups : int
        Independent products, such as the heads of an attention.
    factor : float
        Of every product, such as 1 / sqrt(channels of a head).

    Returns
    -------
    ndarray, shape (groups * I * J, H, W, N) or (D, H, W, N)
        Over channels, ``y[(g, k), p] = factor * sum over c of a[(g, c), p] b[(g, c), k]``; over
        positions, ``y[(g, c), p] = factor * sum over k of a[(g, k), p] b[(g, c), k]``.

    Raises
    ------
    InputError
        If the groups don't divide the channels or the operands don't fit.
    """
    by_image, left = _operands(a, b, over, groups)
    return _by_channel(_scaled(left @ by_image, factor), a.shape)


def matmul_backward(
    dy: Floats, a: Floats, b: Floats, *, over: Over, groups: int = 1, factor: float = 1.0
) -> tuple[Floats, Floats]:
    """Gradients of :func:`matmul`.

    Parameters
    ----------
    dy : ndarray
        Gradient of its result.
    a, b, over, groups, factor
        As forward.

    Returns
    -------
    da, db : ndarray
        As large as the operands.
    """
    by_image, left = _operands(a, b, over, groups)
    # A product of its own: images one by one may be seen without a copy.
    seen = _by_image(dy, groups) * factor
    da = left.swapaxes(2, 3) @ seen
    summed = over is Over.CHANNELS
    db = by_image @ seen.swapaxes(2, 3) if summed else seen @ by_image.swapaxes(2, 3)
    return _by_channel(da, a.shape), _by_channel(db, b.shape)


def _operands(a: Floats, b: Floats, over: Over, groups: int) -> tuple[Floats, Floats]:
    """Operand ``a`` and the matrices that it is multiplied by from the left."""
    right, left = _by_image(a, groups), _by_image(b, groups)
    if over is Over.CHANNELS:
        left = left.swapaxes(2, 3)
    if left.shape[3] != right.shape[2] or len(left) != len(right):
        raise InputError(
            f"operands of sizes {list(a.shape)} and {list(b.shape)} have no product over {over} in"
            f" {groups} group(s)"
        )
    return right, left


def _by_image(x: Floats, groups: int) -> Floats:
    """Matrices ``[image, group, channel, position]``, copied: BLAS wants images apart."""
    images = np.ascontiguousarray(x.reshape(-1, x.shape[-1]).T)
    return images.reshape(x.shape[-1], *_grouped(x, groups).shape[:2], -1)


def _by_channel(x: Floats, like: tuple[int, ...]) -> Floats:
    """Turn :func:`_by_image` back, with the positions and images of an operand."""
    channels = np.ascontiguousarray(x.reshape(len(x), -1).T)
    return channels.reshape(-1, *like[1:])


def _scaled(x: Floats, factor: float) -> Floats:
    """Multiply what has just been made."""
    if factor != 1:
        x *= factor
    return x


# -- loss ------------------------------------------------------------------------------------------


def softmax(logits: Floats) -> Floats:
    """Probability of each class, shape (K, N)."""
    powers: Floats = np.exp(logits - logits.max(axis=0))
    powers /= powers.sum(axis=0)
    return powers


def cross_entropy(logits: Floats, labels: Ints, *, smoothing: float = 0.0) -> tuple[float, Floats]:
    """Mean cross-entropy of softmax with the labels, and its gradient.

    Parameters
    ----------
    logits : ndarray, shape (K, N)
    labels : ndarray of int, shape (N,)
        Class of each image.
    smoothing : float
        Share of the target that is spread evenly over all classes, 0 to 1.

    Returns
    -------
    loss : float
        Mean over the images [nat].
    dlogits : ndarray, shape (K, N)

    References
    ----------
    C. Szegedy et al., "Rethinking the Inception Architecture for Computer Vision", CVPR 2016,
    section 7: label smoothing.

    Examples
    --------
    >>> loss, dlogits = cross_entropy(np.zeros((4, 1)), np.array([0]))
    >>> round(loss, 4), dlogits.ravel().tolist()
    (1.3863, [-0.75, 0.25, 0.25, 0.25])
    """
    classes, batch = logits.shape
    images = np.arange(batch)
    shifted = logits - logits.max(axis=0)
    powers = np.exp(shifted)
    total = powers.sum(axis=0)
    log_total = np.log(total)
    of_label = (shifted[labels, images] - log_total).mean(dtype=np.float64)
    of_all = (shifted.mean(axis=0, dtype=np.float64) - log_total).mean()
    loss = -float((1 - smoothing) * of_label + smoothing * of_all)
    dlogits: Floats = powers
    dlogits /= total
    dlogits -= smoothing / classes
    dlogits[labels, images] -= 1 - smoothing
    dlogits /= batch
    return loss, dlogits
