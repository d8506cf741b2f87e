"""The words of the field: dims, tensors, actions, and the shape of one layer.

Every array of the package is indexed by these enums; see README, 'How it counts'.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from math import prod


class Dim(IntEnum):
    """Loop dims of a layer; a linear layer has P=Q=R=S=1, a depthwise one K=C=1 and G channels."""

    N = 0
    """batch"""
    G = 1
    """groups"""
    K = 2
    """output channels per group"""
    C = 3
    """input channels per group"""
    P = 4
    """output height"""
    Q = 5
    """output width"""
    R = 6
    """kernel height"""
    S = 7
    """kernel width"""


class Tensor(IntEnum):
    """The three tensors of a layer."""

    WEIGHT = 0
    """``[G, K, C, R, S]``"""
    INPUT = 1
    """``[N, G, C, H, W]`` with h = p * stride + r * dilation - pad"""
    OUTPUT = 2
    """``[N, G, K, P, Q]``; a partial sum until its last reduction step is done"""

    @property
    def label(self) -> str:
        """The word used in files, tables and plots."""
        return self.name.lower()


class Action(IntEnum):
    """What is done to elements of one tensor at one memory level."""

    FILL = 0
    """written from the outer level"""
    READ = 1
    """read towards the inner level or the MAC"""
    UPDATE = 2
    """partial or final output written by the inner level or the MAC"""
    DRAIN = 3
    """output read to be sent outward"""

    @property
    def label(self) -> str:
        """The word used in files, tables and plots."""
        return self.name.lower()


RELEVANT: dict[Tensor, frozenset[Dim]] = {
    Tensor.WEIGHT: frozenset({Dim.G, Dim.K, Dim.C, Dim.R, Dim.S}),
    Tensor.INPUT: frozenset({Dim.N, Dim.G, Dim.C, Dim.P, Dim.Q, Dim.R, Dim.S}),
    Tensor.OUTPUT: frozenset({Dim.N, Dim.G, Dim.K, Dim.P, Dim.Q}),
}
"""Dims that index each tensor."""

REDUCTION: frozenset[Dim] = frozenset({Dim.C, Dim.R, Dim.S})
"""Dims over which an output element is summed."""


@dataclass(frozen=True, slots=True)
class Shape:
    """Geometry of one layer: the eight extents and how output pixels map to input pixels.

    Parameters
    ----------
    dims : tuple of 8 int
        Extents in the order of :class:`Dim`.
    stride, dilation : (int, int)
        Along (height, width).
    pad : (int, int)
        Rows above and columns left of the input. What is needed below and to the right follows from
        ``dims`` and ``size``.
    size : (int, int)
        Input height and width without padding.

    Examples
    --------
    >>> conv = Shape((1, 1, 64, 3, 32, 32, 3, 3), pad=(1, 1), size=(32, 32))
    >>> conv.macs
    1769472
    """

    dims: tuple[int, int, int, int, int, int, int, int]
    stride: tuple[int, int] = (1, 1)
    dilation: tuple[int, int] = (1, 1)
    pad: tuple[int, int] = (0, 0)
    size: tuple[int, int] = (1, 1)

    def __getitem__(self, dim: Dim) -> int:
        """Extent of one dim."""
        return self.dims[dim]

    @property
    def macs(self) -> int:
        """Multiply-accumulates (or, without weights, vector operations), zeros included."""
        return prod(self.dims)

    def elements(self, tensor: Tensor) -> int:
        """Elements of the whole tensor as stored (``input``: the H x W image without padding)."""
        d = self.dims
        if tensor is Tensor.WEIGHT:
            return d[Dim.G] * d[Dim.K] * d[Dim.C] * d[Dim.R] * d[Dim.S]
        if tensor is Tensor.INPUT:
            return d[Dim.N] * d[Dim.G] * d[Dim.C] * self.size[0] * self.size[1]
        return d[Dim.N] * d[Dim.G] * d[Dim.K] * d[Dim.P] * d[Dim.Q]
