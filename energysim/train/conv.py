"""Convolution of a batch of images, forward and backward, on the exact mask of the layer.

Activations are ``[channel, row, column, image]``: what a kernel moves or combines are then long
runs of neighbouring floats whatever the kernel's size and stride, every s-th channel is a view, and
so a periodic mask needs no permuted weights.

A plan is made once a layer. It holds what is known before any image comes, has no buffers and no
state that a result depends on, and may be used by many threads at once.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

from energysim.axes import Dim, Shape
from energysim.errors import InputError
from energysim.sparsity import Mask
from energysim.train.depthwise import Depthwise
from energysim.train.lowered import (
    ROWS,
    Axis,
    Block,
    Bools,
    Lowered,
    Part,
    Piece,
    equal_rows,
    residues_of,
)
from energysim.train.scratch import Floats
from energysim.train.winograd import KERNEL, Winograd

USUAL_BATCH = 64
"""Images that a plan is made for unless told otherwise."""

TILE = 4
"""m of the Winograd kernels: with m = 2 they were slower on every layer that was measured."""


class Kind(StrEnum):
    """How a convolution is computed."""

    POINTWISE = "pointwise"
    """1x1 kernels: one matrix product, masked where the mask leaves weights out"""
    DEPTHWISE = "depthwise"
    """a channel a group: a small matrix product for each channel"""
    DENSE = "dense"
    """lowered rows, nothing left out"""
    MASKED = "masked"
    """as dense, with zeros in the weights"""
    GROUPED = "grouped"
    """lowered rows for each set of filters of equal supports, without the fixed zeros"""
    WINOGRAD = "winograd"
    """3x3 kernels by minimal filtering, with zeros in the weights where the mask has some"""


# -- what a kernel costs ---------------------------------------------------------------------------

PEAK_FLOP_PER_NS = 87.5
"""Of a matrix product in single precision with many rows [flop/ns]. Fitted, as are those below,
to times of one thread of an AVX2 core (AMD EPYC, family 25) and OpenBLAS 0.3.31, layers of 8 to 512
channels and shards of 32 and 64 images, with a mean deviation of an eighth; only their ratios
decide. See ``benchmarks/trainer_kernels.py``, which prints estimates beside times."""

HALF_PEAK_ROWS = 4.5
"""Rows of the left matrix (filters) with which a product runs at half the peak."""

HALF_PEAK_DEPTH = 8.0
"""The same of columns of the left matrix (channels and taps)."""

ARRANGE_NS = 1.1
"""To arrange an element of the left matrix for one product [ns]"""

PACK_NS = 2.6
"""To put a weight between fixed zeros where a product takes it, or its gradient back [ns]"""

COPY_NS = 0.31
"""To copy a float into a lowered line [ns]"""

PLACE_NS = 0.7
"""To put a result where it belongs that a product can't write there [ns]"""

CALL_NS = 1600.0
"""Of one call of NumPy on a small array [ns]"""

STRETCH_CALLS, TILE_CALLS = 3, 120
"""Calls for equal output rows of a block and for a block of tiles"""

INPUT_NS, OUTPUT_NS, WEIGHT_NS = 6.0, 2.2, 14.0
"""Of the Winograd transforms of m = 4 for one input, one output and one kernel [ns]"""


def product_ns(rows: int, depth: int, columns: float, times: int = 1) -> float:
    """Time of ``times`` matrix products of this size [ns]."""
    rows = -(-rows // ROWS) * ROWS
    wanted = 2 * columns * (rows + HALF_PEAK_ROWS) * (depth + HALF_PEAK_DEPTH)
    return times * (wanted / PEAK_FLOP_PER_NS + ARRANGE_NS * rows * depth)


def lowered_ns(kernel: Lowered, batch: int) -> float:
    """Time of a correlation by lowered rows [ns]."""
    schedules = kernel.schedules(batch, np.dtype(np.float32).itemsize)
    return sum(
        _piece_ns(kernel, part, piece, blocks, batch, first=piece is part.pieces[0])
        for part, each in zip(kernel.parts, schedules, strict=True)
        for piece, blocks in zip(part.pieces, each, strict=True)
    )


def _piece_ns(
    kernel: Lowered,
    part: Part,
    piece: Piece,
    blocks: tuple[Block, ...],
    batch: int,
    *,
    first: bool,
) -> float:
    width = kernel.columns.out * batch
    direct = first and part.count % ROWS == 0
    time, calls = 0.0, 0
    for block in blocks:
        time += prod(block.shape) * batch * COPY_NS
        calls += len(block.copies) + len(block.margins)
        for stretch in block.stretches:
            depth, rows = stretch.stop - stretch.start, stretch.rows.stop - stretch.rows.start
            time += product_ns(part.count, depth, width, rows)
            time += 0 if direct else part.count * rows * width * PLACE_NS
            calls += STRETCH_CALLS
    if piece.depth < kernel.depth:
        time += PACK_NS * part.count * piece.depth
        calls += len(piece.runs) * piece.height
    return time + calls * CALL_NS


def winograd_ns(kernel: Winograd, batch: int) -> float:
    """Time of a correlation by minimal filtering [ns]."""
    high, wide = kernel.tiles
    points = kernel.side**2
    positions = high * wide * kernel.tile**2 * batch
    products = product_ns(kernel.filters, kernel.channels, high * wide * batch, points)
    transforms = INPUT_NS * kernel.channels + OUTPUT_NS * kernel.filters
    weights = WEIGHT_NS * kernel.filters * kernel.channels
    return products + positions * transforms + weights + TILE_CALLS * CALL_NS


# -- one group -------------------------------------------------------------------------------------

Kernel = Lowered | Winograd


@dataclass(frozen=True, slots=True)
class Residue:
    """Input positions of one remainder by the stride: their gradient is a correlation of its own.

    With h = stride * j + a, the taps that meet there are those with ``(a + pad - dilation * r)``
    divisible by the stride, and output position ``j + (a + pad - dilation * r) / stride`` meets
    them: stride 1, and no zeros are inserted anywhere.
    """

    kernel: Kernel | None
    """none where no tap meets"""
    places: tuple[slice, slice]
    """of the input, along height and width"""
    taps: tuple[slice, slice]
    """kernel rows and columns, last first"""


@dataclass(frozen=True, slots=True)
class Group:
    """The kernels of one group of channels."""

    forward: Kernel
    residues: tuple[Residue, ...]

    def input_gradient(self, dy: Floats, w: Floats, dx: Floats) -> None:
        """Overwrite the gradient of the input."""
        for residue in self.residues:
            into = dx[:, residue.places[0], residue.places[1]]
            if residue.kernel is None:
                into[...] = 0
            else:
                taps = w[:, :, residue.taps[0], residue.taps[1]]
                residue.kernel.apply(dy, taps.transpose(1, 0, 2, 3), into)


def _axes(shape: Shape) -> tuple[Axis, Axis]:
    """How output and input correspond along height and width."""
    out, kernel = (shape[Dim.P], shape[Dim.Q]), (shape[Dim.R], shape[Dim.S])
    rows, columns = (
        Axis(
            out[i],
            shape.size[i],
            shape.stride[i],
            tuple(tap * shape.dilation[i] - shape.pad[i] for tap in range(kernel[i])),
        )
        for i in (0, 1)
    )
    return rows, columns


def _winograd(mask: Bools, rows: Axis, columns: Axis) -> Winograd | None:
    """The kernel by minimal filtering, where there is one."""
    fits = all(
        axis.stride == 1
        and len(axis.offsets) == KERNEL
        and axis.offsets[2] - axis.offsets[0] == KERNEL - 1
        for axis in (rows, columns)
    )
    if not fits:
        return None
    return Winograd(
        TILE,
        mask.shape[0],
        mask.shape[1],
        (rows.out, columns.out),
        (rows.size, columns.size),
        (rows.offsets[0], columns.offsets[0]),
    )


def _kernel(kind: Kind, mask: Bools, rows: Axis, columns: Axis, batch: int) -> Kernel | None:
    if kind is Kind.WINOGRAD:
        return _winograd(mask, rows, columns)
    kept = mask if kind is Kind.GROUPED else np.ones_like(mask)
    ways = [Lowered.of(kept, rows, columns, boxes=boxes) for boxes in (True, False)]
    return min(ways, key=lambda each: lowered_ns(each, batch))


def _group(kind: Kind, mask: Bools, shape: Shape, batch: int) -> Group | None:
    rows, columns = _axes(shape)
    forward = _kernel(kind, mask, rows, columns, batch)
    if forward is None:
        return None
    residues = []
    for top, high, row_taps in residues_of(rows):
        for left, wide, column_taps in residues_of(columns):
            taps = mask[:, :, row_taps, column_taps].transpose(1, 0, 2, 3)
            kernel = _kernel(kind, taps, high, wide, batch) if taps.size else None
            places = slice(top, None, rows.stride), slice(left, None, columns.stride)
            residues.append(Residue(kernel, places, (row_taps, column_taps)))
    return Group(forward, tuple(residues))


def _time(group: Group, batch: int) -> float:
    """Estimate of a training step, forward and both gradients [ns]."""
    kernels = [residue.kernel for residue in group.residues if residue.kernel is not None]
    # The weight gradient has the products and copies of forward.
    both = [group.forward, group.forward, *kernels]
    return sum(
        winograd_ns(each, batch) if isinstance(each, Winograd) else lowered_ns(each, batch)
        for each in both
    )


# -- the layer -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ConvPlan:
    """How one convolution is computed. Build it with :meth:`of`.

    Examples
    --------
    >>> shape = Shape((1, 1, 512, 512, 4, 4, 3, 3), pad=(1, 1), size=(4, 4))
    >>> ConvPlan.of(shape).kind, ConvPlan.of(shape, Mask.of("PS2_P6", shape)).kind
    (<Kind.WINOGRAD: 'winograd'>, <Kind.GROUPED: 'grouped'>)
    """

    shape: Shape
    """geometry of the layer; its N is not used"""
    dtype: np.dtype[Any]
    """of activations and weights, float32 or float64"""
    kind: Kind
    """how it is computed"""
    estimates: dict[Kind, float]
    """of a training step of one image, for every kind that was considered [us]"""
    live: Bools | None = field(repr=False)
    """the mask ``[G, K, C, R, S]``; None where it leaves nothing out"""
    groups: tuple[Group, ...] = field(repr=False)
    """kernels of each group; none for pointwise and depthwise convolutions"""

    @classmethod
    def of(
        cls,
        shape: Shape,
        mask: Mask | None = None,
        *,
        dtype: npt.DTypeLike = np.float32,
        batch: int = USUAL_BATCH,
        kind: Kind | str | None = None,
    ) -> ConvPlan:
        """Choose how a layer is computed.

        Parameters
        ----------
        shape : Shape
            Geometry of a layer with weights; a linear one has P = Q = R = S = 1.
        mask : Mask, optional
            Weights that may differ from zero; all by default.
        dtype : dtype
            float32, or float64 to check gradients.
        batch : int
            Images that it is made for; any number can be computed.
        kind : Kind or str, optional
            Instead of the one with the smallest estimate.

        Raises
        ------
        InputError
            If the mask is of another layer, the layer can't be computed in this way, or the type
            isn't one of the two.
        """
        wanted = np.dtype(dtype)
        if wanted not in (np.float32, np.float64):
            raise InputError(f"weights are float32 or float64, got {wanted}")
        dims = tuple(shape[dim] for dim in (Dim.G, Dim.K, Dim.C, Dim.R, Dim.S))
        if mask is not None and mask.dims != dims:
            raise InputError(f"the mask has the dims {mask.dims}, the layer's weights {dims}")
        live = None if mask is None or mask.nonzeros == mask.total else mask.array()
        made, estimates = _choices(shape, live, dims, batch, kind)
        if kind is None:
            chosen = min(made, key=lambda each: estimates.get(each, 0.0))
        elif kind in made:
            chosen = Kind(kind)
        else:
            raise InputError(
                f"a convolution of this shape can't be computed as {str(kind)!r}; it can as"
                f" {', '.join(made)}"
            )
        return cls(shape, wanted, chosen, estimates, live, made[chosen])

    @property
    def weight_dims(self) -> tuple[int, int, int, int, int]:
        """Extents of the weights, ``[G, K, C, R, S]``."""
        shape = self.shape
        return shape[Dim.G], shape[Dim.K], shape[Dim.C], shape[Dim.R], shape[Dim.S]

    def __str__(self) -> str:
        others = ", ".join(
            f"{kind} {time:.0f} us" for kind, time in self.estimates.items() if kind != self.kind
        )
        own = self.estimates.get(self.kind)
        time = "" if own is None else f", {own:.0f} us an image"
        return f"{self.kind}{time}" + (f" (estimates; {others})" if others else "")

    def stored(self, w: npt.ArrayLike) -> Floats:
        """Arrange weights in memory as the kernels read them: ``[G, K, R, S, C]``.

        Parameters
        ----------
        w : array-like, shape (G, K, C, R, S)

        Returns
        -------
        ndarray, shape (G, K, C, R, S)
            Equal to ``w`` with zeros where the mask has them. All kernels take weights in any
            arrangement, this one without a copy; weight gradients are arranged so too.
        """
        arranged = np.empty(self._memory, dtype=self.dtype).transpose(0, 1, 4, 2, 3)
        arranged[...] = w
        if self.live is not None:
            arranged *= self.live
        return arranged

    @property
    def _memory(self) -> tuple[int, int, int, int, int]:
        groups, filters, channels, height, width = self.weight_dims
        return groups, filters, height, width, channels

    def forward(self, x: Floats, w: Floats) -> Floats:
        """Convolve.

        Parameters
        ----------
        x : ndarray, shape (G * C, H, W, N)
            Images.
        w : ndarray, shape (G, K, C, R, S)
            Weights, zero where the mask leaves them out.

        Returns
        -------
        ndarray, shape (G * K, P, Q, N)
        """
        groups, filters, channels, _, _ = self.weight_dims
        shape = self.shape
        batch = x.shape[3]
        y: Floats = np.empty(
            (groups * filters, shape[Dim.P], shape[Dim.Q], batch), dtype=self.dtype
        )
        if self.kind is Kind.POINTWISE:
            seen = self._seen(x).reshape(groups, channels, -1)
            np.matmul(w[..., 0, 0], seen, out=y.reshape(groups, filters, -1))
        elif self.kind is Kind.DEPTHWISE:
            self._depthwise.apply(x, w, y)
        else:
            for index, group in enumerate(self.groups):
                group.forward.apply(
                    x[index * channels : (index + 1) * channels],
                    w[index],
                    y[index * filters : (index + 1) * filters],
                )
        return y

    def backward_input(self, dy: Floats, w: Floats) -> Floats:
        """Gradient of the input.

        Parameters
        ----------
        dy : ndarray, shape (G * K, P, Q, N)
            Gradient of the output.
        w : ndarray, shape (G, K, C, R, S)
            Weights, zero where the mask leaves them out.

        Returns
        -------
        ndarray, shape (G * C, H, W, N)
        """
        groups, filters, channels, _, _ = self.weight_dims
        batch = dy.shape[3]
        dx: Floats = np.empty((groups * channels, *self.shape.size, batch), dtype=self.dtype)
        if self.kind is Kind.POINTWISE:
            left, right = w[..., 0, 0].swapaxes(1, 2), dy.reshape(groups, filters, -1)
            if self.shape.stride == (1, 1) and self._seen(dx).shape == dx.shape:
                np.matmul(left, right, out=dx.reshape(groups, channels, -1))
            else:
                dx[...] = 0
                seen = self._seen(dx)
                seen[...] = np.matmul(left, right).reshape(seen.shape)
        elif self.kind is Kind.DEPTHWISE:
            self._depthwise.input_gradient(dy, w, dx)
        else:
            for index, group in enumerate(self.groups):
                group.input_gradient(
                    dy[index * filters : (index + 1) * filters],
                    w[index],
                    dx[index * channels : (index + 1) * channels],
                )
        return dx

    def backward_weight(self, dy: Floats, x: Floats) -> Floats:
        """Gradient of the weights.

        Parameters
        ----------
        dy : ndarray, shape (G * K, P, Q, N)
            Gradient of the output.
        x : ndarray, shape (G * C, H, W, N)
            Images.

        Returns
        -------
        ndarray, shape (G, K, C, R, S)
            Exactly 0 where the mask leaves weights out; arranged as :meth:`stored` does.
        """
        groups, filters, channels, _, _ = self.weight_dims
        memory = np.zeros(self._memory, dtype=self.dtype)
        dw: Floats = memory.transpose(0, 1, 4, 2, 3)
        if self.kind is Kind.POINTWISE:
            seen = self._seen(x).reshape(groups, channels, -1)
            left = dy.reshape(groups, filters, -1)
            np.matmul(left, seen.swapaxes(1, 2), out=dw[..., 0, 0])
        elif self.kind is Kind.DEPTHWISE:
            self._depthwise.weight_gradient(x, dy, dw)
        else:
            for index, group in enumerate(self.groups):
                group.forward.weight_gradient(
                    x[index * channels : (index + 1) * channels],
                    dy[index * filters : (index + 1) * filters],
                    dw[index],
                )
        if self.live is not None and self.kind is not Kind.GROUPED:
            # Not by a product: what overflowed must not become NaN at a weight that is not there.
            np.copyto(dw, 0, where=~self.live)
        return dw

    def _seen(self, x: Floats) -> Floats:
        """Pixels that 1x1 kernels meet."""
        shape = self.shape
        (high, wide), (down, right) = (shape[Dim.P], shape[Dim.Q]), shape.stride
        return x[:, : (high - 1) * down + 1 : down, : (wide - 1) * right + 1 : right]

    @cached_property
    def _depthwise(self) -> Depthwise:
        return Depthwise(*_axes(self.shape))


def _choices(
    shape: Shape, live: Bools | None, dims: tuple[int, ...], batch: int, asked: Kind | str | None
) -> tuple[dict[Kind, tuple[Group, ...]], dict[Kind, float]]:
    """Kernels of every kind that computes the layer, and what their steps are estimated to take."""
    made: dict[Kind, tuple[Group, ...]] = {}
    estimates: dict[Kind, float] = {}
    groups, _, channels, height, width = dims
    if channels == 1 and groups > 1:
        return {Kind.DEPTHWISE: ()}, {}
    if height == width == 1 and shape.pad == (0, 0) and _reaches(shape):
        return {Kind.POINTWISE: ()}, {}
    mask = np.ones(dims, np.bool_) if live is None else live
    plain = Kind.DENSE if live is None else Kind.MASKED
    for kind in (plain, Kind.GROUPED, Kind.WINOGRAD):
        if kind is Kind.GROUPED and live is None:
            continue
        if kind is Kind.GROUPED and asked != kind:
            # Irregular masks have a part for each filter, which takes minutes to lay out.
            least = sum(_least_ns(one, shape, batch) for one in mask) / batch / 1000
            if least >= estimates[plain]:
                continue
        each: dict[bytes, Group | None] = {}
        for one in mask:
            key = one.tobytes()
            if key not in each:
                each[key] = _group(kind, one, shape, batch)
        found = [each[one.tobytes()] for one in mask]
        kernels = tuple(group for group in found if group is not None)
        if len(kernels) == len(found):
            made[kind] = kernels
            estimates[kind] = sum(_time(group, batch) for group in kernels) / batch / 1000
    return made, estimates


def _least_ns(mask: Bools, shape: Shape, batch: int) -> float:
    """Time that kernels grouped by equal supports take at least, forward and for weights [ns].

    A group of filters has a line for each channel with live weights, at every output position, and
    a product over the live weights that meet the input, of a few rows at the least.
    """
    rows, _ = _axes(shape)
    met = np.array([stop - first for first, stop in map(rows.valid, range(len(rows.offsets)))])
    width = shape[Dim.Q] * batch
    time = 0.0
    for alike in equal_rows(mask.reshape(len(mask), -1)):
        live = mask[alike[0]]
        filters = -(-len(alike) // ROWS) * ROWS + HALF_PEAK_ROWS
        depths = float(live.sum(axis=(0, 2)) @ met)
        time += 2 * width * filters * depths / PEAK_FLOP_PER_NS
        time += int(live.any(axis=(1, 2)).sum()) * shape[Dim.P] * width * COPY_NS
    return 2 * time


def _reaches(shape: Shape) -> bool:
    """Whether all output pixels of a 1x1 kernel without padding above and left are inside."""
    return all(
        (shape[dim] - 1) * shape.stride[i] < shape.size[i] for i, dim in ((0, Dim.P), (1, Dim.Q))
    )
