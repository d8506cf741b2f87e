"""Products of two activations, and softmax over channels."""

from __future__ import annotations

import numpy as np

from energysim.errors import InputError
from energysim.network import Over
from energysim.train.ops.blocks import column_blocks
from energysim.train.ops.loss import softmax
from energysim.train.scratch import Floats


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
        for some in column_blocks(each):
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
        for some in column_blocks(each):
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


def _grouped(x: Floats, groups: int) -> Floats:
    """Channels of each group by themselves, ``[group, channel, ...]``."""
    if groups < 1 or len(x) % groups:
        raise InputError(f"groups must divide the {len(x)} channels, got {groups}")
    return x.reshape(groups, len(x) // groups, *x.shape[1:])
