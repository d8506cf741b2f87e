"""3x3 correlation of stride 1 by Winograd's minimal filtering: fewer multiplications, more sums.

A tile of m x m outputs is ``A^T [(G w G^T) * (B^T d B)] A`` with d the (m + 2) x (m + 2) inputs
that it needs, so (m + 2)^2 products instead of 9 m^2: 2.25 times fewer for m = 2, four times for
m = 4. Summed over channels, each of the (m + 2)^2 elements is one matrix product over all tiles.
The weight gradient is the exact adjoint in w, with the same two transforms of d and products:
``G^T [(A dy A^T) * (B^T d B)] G``.

Sums of m = 4 lose about one digit against a plain correlation in single precision: relative to the
largest output the error stays below 1e-4 (tested up to 512 channels). Zeros in w become non-zeros
in G w G^T, so nothing is gained from sparse kernels here.

References
----------
S. Winograd, "Arithmetic Complexity of Computations", SIAM 1980.
A. Lavin, S. Gray, "Fast Algorithms for Convolutional Neural Networks", CVPR 2016 (arXiv
1509.09308): sections 4.1 and 4.3 have the matrices.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from energysim.train.scratch import Floats, scratch

KERNEL = 3
"""Height and width of the kernels."""

CACHE_BYTES = 1 << 20
"""Of half transformed lines that are worked on at once [byte]. The lines of one operation are a
sixth of it and more or less stay in L2; with less, calls of NumPy are too short for what they
cost. Measured as the best power of two."""

TILE_BYTES = 1 << 24
"""Of the transformed tiles of one matrix product, as far as one tile of all images and channels
doesn't need more [byte]. They and the products are half of an L3 of 32 MiB."""

Lines = Sequence[Floats] | Floats
Transform = Callable[[Lines, Lines, Floats], None]
"""Takes lines to lines; the third is room for one line of the result's size."""


def _input2(d: Lines, v: Lines, _: Floats) -> None:
    """B^T of m = 2."""
    np.subtract(d[0], d[2], out=v[0])
    np.add(d[1], d[2], out=v[1])
    np.subtract(d[2], d[1], out=v[2])
    np.subtract(d[1], d[3], out=v[3])


def _output2(m: Lines, y: Lines, _: Floats) -> None:
    """A^T of m = 2."""
    np.add(m[1], m[2], out=y[0])
    np.add(y[0], m[0], out=y[0])
    np.subtract(m[1], m[2], out=y[1])
    np.subtract(y[1], m[3], out=y[1])


def _gradient2(y: Lines, m: Lines, _: Floats) -> None:
    """A of m = 2."""
    np.copyto(m[0], y[0])
    np.add(y[0], y[1], out=m[1])
    np.subtract(y[0], y[1], out=m[2])
    np.negative(y[1], out=m[3])


def _input4(d: Lines, v: Lines, room: Floats) -> None:
    """B^T of m = 4, with what pairs of its rows have in common computed once."""
    np.multiply(d[2], -4, out=v[1])
    np.add(v[1], d[4], out=v[1])
    np.multiply(d[1], -4, out=room)
    room += d[3]
    np.subtract(v[1], room, out=v[2])
    np.add(v[1], room, out=v[1])
    np.subtract(d[4], d[2], out=v[3])
    np.subtract(d[3], d[1], out=room)
    room *= 2
    np.subtract(d[0], d[2], out=v[0])
    np.multiply(v[0], 4, out=v[0])
    np.add(v[0], v[3], out=v[0])
    np.subtract(d[5], d[3], out=v[5])
    np.subtract(v[3], room, out=v[4])
    np.add(v[3], room, out=v[3])
    room *= 2
    np.subtract(v[5], room, out=v[5])


def _output4(m: Lines, y: Lines, room: Floats) -> None:
    """A^T of m = 4."""
    np.add(m[1], m[2], out=y[0])
    np.subtract(m[1], m[2], out=y[1])
    np.add(m[3], m[4], out=room)
    np.multiply(room, 4, out=y[2])
    np.add(y[2], y[0], out=y[2])
    np.add(y[0], room, out=y[0])
    np.add(y[0], m[0], out=y[0])
    np.subtract(m[3], m[4], out=room)
    room *= 2
    np.add(y[1], m[5], out=y[3])
    np.add(y[1], room, out=y[1])
    room *= 4
    np.add(y[3], room, out=y[3])


def _gradient4(y: Lines, m: Lines, room: Floats) -> None:
    """A of m = 4."""
    np.copyto(m[0], y[0])
    np.add(y[0], y[2], out=m[1])
    np.add(y[1], y[3], out=room)
    np.subtract(m[1], room, out=m[2])
    np.add(m[1], room, out=m[1])
    np.multiply(y[2], 4, out=m[3])
    np.add(m[3], y[0], out=m[3])
    np.multiply(y[3], 4, out=room)
    room += y[1]
    room *= 2
    np.subtract(m[3], room, out=m[4])
    np.add(m[3], room, out=m[3])
    np.copyto(m[5], y[3])


_FILTER2 = np.array([[1, 0, 0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0, 0, 1]])
_FILTER4 = np.array(
    [
        [1 / 4, 0, 0],
        [-1 / 6, -1 / 6, -1 / 6],
        [-1 / 6, 1 / 6, -1 / 6],
        [1 / 24, 1 / 12, 1 / 6],
        [1 / 24, -1 / 12, 1 / 6],
        [0, 0, 1],
    ]
)
_INPUT: dict[int, Transform] = {2: _input2, 4: _input4}
_OUTPUT: dict[int, Transform] = {2: _output2, 4: _output4}
_GRADIENT: dict[int, Transform] = {2: _gradient2, 4: _gradient4}
_FILTER = {2: _FILTER2, 4: _FILTER4}


@dataclass(frozen=True, slots=True)
class Block:
    """Tiles that are computed together."""

    top: int
    """first row of tiles"""
    high: int
    """rows"""
    left: int
    """first column of tiles"""
    wide: int
    """columns"""


@dataclass(frozen=True, slots=True)
class Winograd:
    """A 3x3 correlation ``y[k, p, q] = sum of w[k, c, i, j] x[c, p + i + top, q + j + left]``."""

    tile: int
    """m, outputs of a tile along each axis: 2 or 4"""
    filters: int
    channels: int
    out: tuple[int, int]
    """output height and width"""
    size: tuple[int, int]
    """input height and width"""
    offset: tuple[int, int]
    """(top, left): input position that output position 0 and tap 0 meet"""

    @property
    def side(self) -> int:
        """Inputs of a tile along each axis."""
        return self.tile + KERNEL - 1

    @property
    def tiles(self) -> tuple[int, int]:
        """Tiles that cover the output, along height and width."""
        return -(-self.out[0] // self.tile), -(-self.out[1] // self.tile)

    def apply(self, x: Floats, w: Floats, y: Floats) -> None:
        """Compute the correlation.

        Parameters
        ----------
        x : ndarray, shape (C, H, W, N)
        w : ndarray, shape (K, C, 3, 3)
            Zeros where a mask leaves weights out.
        y : ndarray, shape (K, P, Q, N)
            Is overwritten.
        """
        side, batch = self.side, x.shape[3]
        points = self._filter(w)[:, :, None]
        for block in self._blocks(x):
            tiles = self._tiles_of_input(x, block)
            shape = (side, side, block.wide, self.filters, block.high * batch)
            products = scratch("product", shape, x.dtype)
            np.matmul(points, tiles, out=products)
            self._output(products, y, block)

    def weight_gradient(self, x: Floats, dy: Floats, dw: Floats) -> None:
        """Compute ``dw[k, c, i, j] = sum of dy[k, p, q, n] x[c, p + i + top, q + j + left, n]``.

        Parameters
        ----------
        x : ndarray, shape (C, H, W, N)
        dy : ndarray, shape (K, P, Q, N)
        dw : ndarray, shape (K, C, 3, 3)
            Is overwritten.
        """
        side = self.side
        total = scratch("points", (side, side, self.filters, self.channels), x.dtype)
        one = scratch("point", (self.filters, self.channels), x.dtype)
        fresh = True
        for block in self._blocks(x):
            left = self._tiles_of_gradient(dy, block)
            right = self._tiles_of_input(x, block)
            for column in range(block.wide):
                for at in np.ndindex(side, side):
                    into = total[at] if fresh else one
                    np.matmul(left[at][column], right[at][column].T, out=into)
                    if not fresh:
                        total[at] += one
                fresh = False
        found = self._filter_matrix(x.dtype).T @ total.reshape(side * side, -1)
        dw[...] = found.reshape(KERNEL, KERNEL, self.filters, self.channels).transpose(2, 3, 0, 1)

    def _filter_matrix(self, dtype: npt.DTypeLike) -> Floats:
        """Takes the nine taps of a kernel to the points of its transform."""
        matrix: Floats = np.kron(_FILTER[self.tile], _FILTER[self.tile]).astype(dtype)
        return matrix

    def _filter(self, w: Floats) -> Floats:
        """G w G^T, as ``[point row, point column, K, C]``."""
        side = self.side
        # Kernels of an input gradient are a transposed view: transposing the points instead costs
        # nothing, as a matrix product takes its operands either way.
        turned = abs(w.strides[0]) < abs(w.strides[1])
        taps = w.transpose(2, 3, 1, 0) if turned else w.transpose(2, 3, 0, 1)
        points = scratch("points", (side, side, *taps.shape[2:]), w.dtype)
        np.matmul(
            self._filter_matrix(w.dtype),
            taps.reshape(KERNEL * KERNEL, -1),
            out=points.reshape(side * side, -1),
        )
        return points.swapaxes(2, 3) if turned else points

    def _blocks(self, x: Floats) -> Iterator[Block]:
        """Tiles that are computed together: first as many rows, then as many columns as fit."""
        high, wide = self.tiles
        tile = self.side**2 * max(self.filters, self.channels) * x.shape[3] * x.itemsize
        rows = min(high, max(1, TILE_BYTES // tile))
        columns = min(wide, max(1, TILE_BYTES // (tile * rows)))
        for top in range(0, high, rows):
            for left in range(0, wide, columns):
                yield Block(top, min(rows, high - top), left, min(columns, wide - left))

    def _tiles_of_input(self, x: Floats, block: Block) -> Floats:
        """B^T d B of a block, ``[point row, point column, tile column, C, (tile row, N)]``."""
        side, step, batch = self.side, self.tile, x.shape[3]
        height, width = (block.high - 1) * step + side, (block.wide - 1) * step + side
        shape = (side, side, block.wide, self.channels, block.high, batch)
        tiles = scratch("tiles", shape, x.dtype)
        many = max(1, CACHE_BYTES // (side * width * block.high * batch * x.itemsize))
        top, left = block.top * step + self.offset[0], block.left * step + self.offset[1]
        for start in range(0, self.channels, many):
            band = _window(x[start : start + many], top, left, height, width)
            count = len(band)
            room = scratch("room", (count, block.high, width, batch), x.dtype)
            half = scratch("half", (side, *room.shape), x.dtype)
            _INPUT[step](_every(band, 1, step, side), half, room)
            # Columns outwards, so that the second pass works on long runs too.
            turned = scratch("turned", (side, width, count, block.high, batch), x.dtype)
            turned[...] = half.transpose(0, 3, 1, 2, 4)
            places = tiles[:, :, :, start : start + many].transpose(1, 0, 2, 3, 4, 5)
            room = scratch("room", places.shape[1:], x.dtype)
            _INPUT[step](_every(turned, 1, step, side), places, room)
        return tiles.reshape(*shape[:4], -1)

    def _output(self, products: Floats, y: Floats, block: Block) -> None:
        """A^T m A of a block, written to where it stands in the output."""
        side, step, batch = self.side, self.tile, y.shape[3]
        points = products.reshape(side, side, block.wide, self.filters, block.high, batch)
        height, width = block.high * step, block.wide * step
        many = max(1, CACHE_BYTES // (side * width * block.high * batch * y.itemsize))
        for start in range(0, self.filters, many):
            some = points[:, :, :, start : start + many]
            count = some.shape[3]
            turned = scratch("turned", (side, block.wide, step, *some.shape[3:]), y.dtype)
            room = scratch("room", (side, *some.shape[2:]), y.dtype)
            columns = [turned[:, :, j] for j in range(step)]
            _OUTPUT[step]([some[:, j] for j in range(side)], columns, room)
            half = scratch("half", (side, count, block.high, width, batch), y.dtype)
            half.reshape(side, count, block.high, block.wide, step, batch)[...] = turned.transpose(
                0, 3, 4, 1, 2, 5
            )
            target = y[start : start + many, block.top * step :, block.left * step :]
            target = target[:, :height, :width]
            whole = target.shape[1:3] == (height, width)
            place = target if whole else scratch("band", (count, height, width, batch), y.dtype)
            room = scratch("room", half.shape[1:], y.dtype)
            _OUTPUT[step](half, [place[:, i::step] for i in range(step)], room)
            if not whole:
                target[...] = place[:, : target.shape[1], : target.shape[2]]

    def _tiles_of_gradient(self, dy: Floats, block: Block) -> Floats:
        """A dy A^T of a block, ``[point row, point column, tile column, K, (tile row, N)]``."""
        side, step, batch = self.side, self.tile, dy.shape[3]
        height, width = block.high * step, block.wide * step
        shape = (side, side, block.wide, self.filters, block.high, batch)
        points = scratch("product", shape, dy.dtype)
        many = max(1, CACHE_BYTES // (side * width * block.high * batch * dy.itemsize))
        for start in range(0, self.filters, many):
            some = dy[start : start + many]
            band = _window(some, block.top * step, block.left * step, height, width)
            count = len(band)
            half = scratch("half", (side, count, block.high, width, batch), dy.dtype)
            room = scratch("room", half.shape[1:], dy.dtype)
            _GRADIENT[step]([band[:, i::step] for i in range(step)], half, room)
            turned = scratch("turned", (side, width, count, block.high, batch), dy.dtype)
            turned[...] = half.transpose(0, 3, 1, 2, 4)
            places = points[:, :, :, start : start + many].transpose(1, 0, 2, 3, 4, 5)
            room = scratch("room", places.shape[1:], dy.dtype)
            _GRADIENT[step]([turned[:, j::step] for j in range(step)], places, room)
        return points.reshape(*shape[:4], -1)


def _every(lines: Floats, axis: int, step: int, side: int) -> list[Floats]:
    """Lines that are the first, second ... of each tile along an axis."""
    steps = lines.shape[axis] - side + 1
    before = (slice(None),) * axis
    return [lines[(*before, slice(i, i + steps, step))] for i in range(side)]


def _window(x: Floats, top: int, left: int, height: int, width: int) -> Floats:
    """Some rows and columns of the images, with zeros where these stand outside."""
    _, rows, columns, batch = x.shape
    low, start = min(height, max(0, -top)), min(width, max(0, -left))
    high, end = max(low, min(height, rows - top)), max(start, min(width, columns - left))
    inside: Floats = x[:, top + low : top + high, left + start : left + end]
    if inside.shape[1:3] == (height, width):
        return inside
    band = scratch("band", (len(x), height, width, batch), x.dtype)
    band[:, :low] = 0
    band[:, high:] = 0
    band[:, low:high, :start] = 0
    band[:, low:high, end:] = 0
    band[:, low:high, start:end] = inside
    return band
