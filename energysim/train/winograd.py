"""3x3 correlation of stride 1 by Winograd's minimal filtering: fewer multiplications, more sums.

A tile of m x m outputs is ``A^T [(G w G^T) * (B^T d B)] A`` with d the (m + 2) x (m + 2) inputs
that it needs, so (m + 2)^2 products instead of 9 m^2: 2.25 times fewer for m = 2, four times for
m = 4. Summed over channels, each of the (m + 2)^2 points is one matrix product over all tiles.
The weight gradient is the exact adjoint in w, with the same two transforms of d and products:
``G^T [(A dy A^T) * (B^T d B)] G``.

The transforms are matrix products too, by the Kronecker squares of A, B and G. That takes more
multiplications than sums and differences of lines would, and half the time: a pass of NumPy over
an array costs more than the 72 operations of an element in a product.

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

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

import numpy as np

from energysim.train.lowered import valid_range
from energysim.train.scratch import Floats, scratch

KERNEL = 3
"""Height and width of the kernels."""

TILE_BYTES = 1 << 23
"""Of the transformed tiles of one matrix product, as far as one row of tiles doesn't need more
[byte]. With what they are made of and the products it is about three times this, and stays in L3.
"""

_FILTER = {
    2: np.array([[1, 0, 0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0, 0, 1]]),
    4: np.array(
        [
            [1 / 4, 0, 0],
            [-1 / 6, -1 / 6, -1 / 6],
            [-1 / 6, 1 / 6, -1 / 6],
            [1 / 24, 1 / 12, 1 / 6],
            [1 / 24, -1 / 12, 1 / 6],
            [0, 0, 1],
        ]
    ),
}
_INPUT = {
    2: np.array([[1, 0, -1, 0], [0, 1, 1, 0], [0, -1, 1, 0], [0, 1, 0, -1]]),
    4: np.array(
        [
            [4, 0, -5, 0, 1, 0],
            [0, -4, -4, 1, 1, 0],
            [0, 4, -4, -1, 1, 0],
            [0, -2, -1, 2, 1, 0],
            [0, 2, -1, -2, 1, 0],
            [0, 4, 0, -5, 0, 1],
        ]
    ),
}
_OUTPUT = {
    2: np.array([[1, 1, 1, 0], [0, 1, -1, -1]]),
    4: np.array(
        [[1, 1, 1, 1, 1, 0], [0, 1, -1, 2, -2, 0], [0, 1, 1, 4, 4, 0], [0, 1, -1, 8, -8, 1]]
    ),
}
"""G, B^T and A^T by m."""


@cache
def _squares(tile: int, dtype: np.dtype[np.float32]) -> tuple[Floats, Floats, Floats]:
    """Take the taps of a kernel, the inputs of a tile and its points to points and outputs."""
    first, second, third = (
        np.kron(matrix[tile], matrix[tile]).astype(dtype) for matrix in (_FILTER, _INPUT, _OUTPUT)
    )
    return first, second, third


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
        output, batch = _squares(self.tile, x.dtype)[2], x.shape[3]
        weights = self._weights(w)
        for block in self._blocks(batch * x.itemsize):
            points = self._input_points(x, block)
            products = scratch("product", (len(weights), self.filters, points.shape[2]), x.dtype)
            np.matmul(weights, points, out=products)
            pixels = scratch("tiles", (self.tile**2, self.filters * points.shape[2]), x.dtype)
            np.matmul(output, products.reshape(len(weights), -1), out=pixels)
            self._place(pixels.reshape(-1, self.filters, block.high, block.wide, batch), y, block)

    def weight_gradient(self, x: Floats, dy: Floats, dw: Floats) -> None:
        """Compute ``dw[k, c, i, j] = sum of dy[k, p, q, n] x[c, p + i + top, q + j + left, n]``.

        Parameters
        ----------
        x : ndarray, shape (C, H, W, N)
        dy : ndarray, shape (K, P, Q, N)
        dw : ndarray, shape (K, C, 3, 3)
            Is overwritten.
        """
        shape = (self.side**2, self.filters, self.channels)
        total = scratch("weights", shape, x.dtype)
        part = scratch("part", shape, x.dtype)
        for index, block in enumerate(self._blocks(x.shape[3] * x.itemsize)):
            left = self._gradient_points(dy, block)
            right = self._input_points(x, block).swapaxes(1, 2)
            np.matmul(left, right, out=part if index else total)
            if index:
                total += part
        filters = _squares(self.tile, x.dtype)[0]
        found = (filters.T @ total.reshape(self.side**2, -1)).reshape(KERNEL, KERNEL, *shape[1:])
        dw[...] = found.transpose(2, 3, 0, 1)

    def _weights(self, w: Floats) -> Floats:
        """G w G^T, as ``[point, K, C]``."""
        # Kernels of an input gradient are a transposed view: transposing the points instead costs
        # nothing, as a matrix product takes its operands either way.
        turned = abs(w.strides[0]) < abs(w.strides[1])
        taps = w.transpose(2, 3, 1, 0) if turned else w.transpose(2, 3, 0, 1)
        points = scratch("weights", (self.side**2, *taps.shape[2:]), w.dtype)
        filters = _squares(self.tile, w.dtype)[0]
        np.matmul(filters, taps.reshape(KERNEL**2, -1), out=points.reshape(len(points), -1))
        return points.swapaxes(1, 2) if turned else points

    def _blocks(self, pixel_bytes: int) -> Iterator[Block]:
        """Tiles that are computed together: rows of them, or what fits of one row."""
        high, wide = self.tiles
        tile = self.side**2 * max(self.filters, self.channels) * pixel_bytes
        many = max(1, TILE_BYTES // tile)
        columns = min(wide, many)
        rows = min(high, max(1, many // wide))
        for top in range(0, high, rows):
            for left in range(0, wide, columns):
                yield Block(top, min(rows, high - top), left, min(columns, wide - left))

    def _input_points(self, x: Floats, block: Block) -> Floats:
        """B^T d B of a block, ``[point, C, (tile, N)]``."""
        step, side, batch = self.tile, self.side, x.shape[3]
        top, left = block.top * step + self.offset[0], block.left * step + self.offset[1]
        shape = (side, side, self.channels, block.high, block.wide, batch)
        tiles = scratch("tiles", shape, x.dtype)
        for i, j in np.ndindex(side, side):
            into = tiles[i, j]
            rows, high = _inside(block.high, step, top + i, self.size[0])
            columns, wide = _inside(block.wide, step, left + j, self.size[1])
            _clear_margins(into, rows, columns)
            into[:, rows, columns] = x[:, high, wide]
        points = scratch("points", (side**2, self.channels, *shape[3:]), x.dtype)
        transform = _squares(step, x.dtype)[1]
        np.matmul(transform, tiles.reshape(side**2, -1), out=points.reshape(side**2, -1))
        return points.reshape(side**2, self.channels, -1)

    def _gradient_points(self, dy: Floats, block: Block) -> Floats:
        """A dy A^T of a block, ``[point, K, (tile, N)]``."""
        step, side, batch = self.tile, self.side, dy.shape[3]
        shape = (step, step, self.filters, block.high, block.wide, batch)
        tiles = scratch("tiles", shape, dy.dtype)
        for i, j in np.ndindex(step, step):
            into = tiles[i, j]
            rows, high = _inside(block.high, step, block.top * step + i, self.out[0])
            columns, wide = _inside(block.wide, step, block.left * step + j, self.out[1])
            _clear_margins(into, rows, columns)
            into[:, rows, columns] = dy[:, high, wide]
        points = scratch("product", (side**2, self.filters, *shape[3:]), dy.dtype)
        transform = _squares(step, dy.dtype)[2].T
        np.matmul(transform, tiles.reshape(step**2, -1), out=points.reshape(side**2, -1))
        return points.reshape(side**2, self.filters, -1)

    def _place(self, pixels: Floats, y: Floats, block: Block) -> None:
        """Write the outputs of a block to where they stand."""
        step = self.tile
        for index, (i, j) in enumerate(np.ndindex(step, step)):
            rows, high = _inside(block.high, step, block.top * step + i, self.out[0])
            columns, wide = _inside(block.wide, step, block.left * step + j, self.out[1])
            y[:, high, wide] = pixels[index][:, rows, columns]


def _inside(count: int, step: int, first: int, size: int) -> tuple[slice, slice]:
    """Which of the positions ``first + step * index`` are inside, and the positions."""
    low, high = valid_range(count, size, step, first)
    return slice(low, high), slice(low * step + first, (high - 1) * step + first + 1, step)


def _clear_margins(lines: Floats, rows: slice, columns: slice) -> None:
    """Zeros where the padding is."""
    lines[:, : rows.start] = 0
    lines[:, rows.stop :] = 0
    lines[:, rows, : columns.start] = 0
    lines[:, rows, columns.stop :] = 0
