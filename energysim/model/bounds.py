"""Lower bounds of DRAM traffic: what no mapping can do without."""

from __future__ import annotations

from math import ceil, gcd, sqrt

import numpy as np

from energysim.axes import Dim, Shape, Tensor
from energysim.model.tables import Axis, axis_table


def touched_inputs(shape: Shape, *, count_padding: bool = False) -> int:
    """Input elements that some MAC really reads; padding and gaps between strides excluded."""
    total = shape[Dim.N] * shape[Dim.G] * shape[Dim.C]
    for along, (output, tap) in enumerate(((Dim.P, Dim.R), (Dim.Q, Dim.S))):
        axis = Axis(
            (shape[output], shape[tap]),
            stride=shape.stride[along],
            dilation=shape.dilation[along],
            pad=shape.pad[along],
            size=None if count_padding else shape.size[along],
        )
        total *= int(axis_table(axis, (), (), np.empty((1, 0), dtype=np.int64)).union[0])
    return total


def compulsory_elements(shape: Shape, *, count_padding: bool = False) -> dict[Tensor, int]:
    """Elements of each tensor that cross the DRAM boundary at least once."""
    return {
        Tensor.WEIGHT: shape.elements(Tensor.WEIGHT),
        Tensor.INPUT: touched_inputs(shape, count_padding=count_padding),
        Tensor.OUTPUT: shape.elements(Tensor.OUTPUT),
    }


def communication_bound(macs: int, reuse: int, capacity: int) -> int:
    """Elements that must cross to and from a memory of ``capacity`` elements.

    Parameters
    ----------
    macs : int
        Multiply-accumulates that need an element of each tensor, so none on padding.
    reuse : int
        Largest number of kernel positions in which one input element is used,
        see :func:`window_reuse`.
    capacity : int
        Elements that everything inside DRAM holds together: the memories, and the three operands
        of each MAC.

    Returns
    -------
    int
        A bound that may be 0.

    Notes
    -----
    Cut the execution into segments of T = 4 Z transfers, Z the capacity. Operands of a segment were
    inside at its start or are loaded in it; sums it touches are stored in it or inside at its end:
    at most 2 Z + T = 6 Z elements of the three tensors. By the Loomis-Whitney inequality on the
    unfolded input (each element standing for at most ``reuse`` of its copies) they allow
    sqrt(reuse * W * I * O) <= sqrt(reuse) * (2 Z)^(3/2) MACs. All segments but the last are whole:

        Q >= 4 Z * (ceil(macs / (sqrt(8 * reuse) * Z^(3/2))) - 1).

    The form is that of Chen et al. and of Demmel and Dinh; the constant is the weaker one that this
    argument proves.

    References
    ----------
    X. Chen, Y. Han, Y. Wang, "Communication Lower Bound in Convolution Accelerators", HPCA 2020
    (arXiv 1911.05662). J. Demmel, G. Dinh, "Communication-Optimal Convolutional Neural Nets", 2018
    (arXiv 1802.06905).

    Examples
    --------
    >>> communication_bound(10**9, 1, 10_000)
    14120000
    """
    per_segment = sqrt(8 * reuse * capacity) * capacity
    return 4 * capacity * max(ceil(macs / per_segment) - 1, 0)


def real_macs(shape: Shape) -> int:
    """Multiply-accumulates whose input is no padding.

    Examples
    --------
    >>> real_macs(Shape((1, 1, 1, 1, 3, 1, 3, 1), pad=(1, 0), size=(3, 1)))
    7
    """
    total: int = shape[Dim.N] * shape[Dim.G] * shape[Dim.K] * shape[Dim.C]
    for along, (output, tap) in enumerate(((Dim.P, Dim.R), (Dim.Q, Dim.S))):
        at = np.add.outer(
            np.arange(shape[output]) * shape.stride[along],
            np.arange(shape[tap]) * shape.dilation[along] - shape.pad[along],
        )
        total = total * int(np.count_nonzero((at >= 0) & (at < shape.size[along])))
    return total


def window_reuse(shape: Shape) -> int:
    """Kernel positions in which one input element can be used.

    h + pad = p * stride + r * dilation fixes r modulo stride / gcd(stride, dilation).
    """
    reuse = 1
    for along, tap in enumerate((Dim.R, Dim.S)):
        stride, dilation = shape.stride[along], shape.dilation[along]
        reuse *= ceil(shape[tap] / (stride // gcd(stride, dilation)))
    return reuse
