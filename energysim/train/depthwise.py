"""Depthwise correlation: every channel has filters of its own, so nothing is summed over channels.

Products and sums of whole shifted images would pass over memory twice for every tap. Here they are
products of matrices after all, small ones, one for each channel, that NumPy hands to BLAS from a
single call. Large images are lowered line by line as in :mod:`energysim.train.lowered`: a row of
the output is the vector of weights times what its taps meet. Small images are one vector each, and
the correlation is a matrix of weights and zeros (Toeplitz by blocks) that multiplies all images of
the batch: no copies, and products with zeros cost less than calls on short rows.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import product

import numpy as np

from energysim.train.lowered import Axis, residues_of, valid_range
from energysim.train.scratch import Floats, scratch

CACHE_BYTES = 1 << 18
"""Of matrices that are made at once [byte]; they stand in L2 with what they multiply"""

BUFFER_BYTES = 1 << 21
"""Of lowered lines, as far as one output row of one channel does not need more [byte]; smaller
blocks take more calls: half of it 10 % more time, an eighth 60 %"""

MOST_ELEMENTS = 1024
"""Of the matrix of one channel, output by input positions; lowering is quicker above (8 x 8 pixels
to as many: 1.6 against 2.2 ns a pixel; 4 x 4: 2.9 against 0.9 ns)"""


@dataclass(frozen=True)
class Depthwise:
    """A correlation ``y[g, k, p, q] = sum of w[g, k, 0, i, j] x[g, rows(p, i), columns(q, j)]``."""

    rows: Axis
    columns: Axis

    @cached_property
    def _small(self) -> bool:
        rows, columns = self.rows, self.columns
        return rows.out * columns.out * rows.size * columns.size <= MOST_ELEMENTS

    def apply(self, x: Floats, w: Floats, y: Floats) -> None:
        """Compute the correlation.

        Parameters
        ----------
        x : ndarray, shape (G, H, W, N)
        w : ndarray, shape (G, K, 1, R, S)
        y : ndarray, shape (G * K, P, Q, N)
            Is overwritten.
        """
        groups, filters = w.shape[:2]
        into = y.reshape(groups, filters, *y.shape[1:])
        if not self._small:
            self._forward.apply(x[:, None], w, into)
            return
        pixels = x.reshape(groups, -1, x.shape[3])
        for some in self._channels(w):
            for k in range(filters):
                matrices = self._matrices(w[some, k, 0])
                np.matmul(matrices, pixels[some], out=_flat(into[some, k]))

    def input_gradient(self, dy: Floats, w: Floats, dx: Floats) -> None:
        """Compute the gradient of the input.

        Parameters
        ----------
        dy : ndarray, shape (G * K, P, Q, N)
        w : ndarray, shape (G, K, 1, R, S)
        dx : ndarray, shape (G, H, W, N)
            Is overwritten.
        """
        groups, filters = w.shape[:2]
        given = dy.reshape(groups, filters, *dy.shape[1:])
        if not self._small:
            self._input_gradient_by_lines(given, w, dx)
            return
        for some in self._channels(w):
            for k in range(filters):
                turned = self._matrices(w[some, k, 0]).swapaxes(1, 2)
                if k == 0:
                    np.matmul(turned, _flat(given[some, k]), out=_flat(dx[some]))
                else:
                    dx[some] += np.matmul(turned, _flat(given[some, k])).reshape(dx[some].shape)

    def _input_gradient_by_lines(self, dy: Floats, w: Floats, dx: Floats) -> None:
        for lines, places, taps in self._residues:
            into = dx[:, None, *places]
            kernels = w[:, :, :, *taps].swapaxes(1, 2)
            if kernels.size:
                lines.apply(dy, kernels, into)
            else:
                into[...] = 0

    @cached_property
    def _forward(self) -> Lines:
        return Lines(self.rows, self.columns)

    @cached_property
    def _residues(self) -> tuple[tuple[Lines, tuple[slice, slice], tuple[slice, slice]], ...]:
        """For each remainder by the stride a correlation of stride 1, its input and its taps."""
        return tuple(
            (
                Lines(high, wide),
                (slice(top, None, self.rows.stride), slice(left, None, self.columns.stride)),
                (taps, others),
            )
            for (top, high, taps), (left, wide, others) in product(
                residues_of(self.rows), residues_of(self.columns)
            )
        )

    def weight_gradient(self, x: Floats, dy: Floats, dw: Floats) -> None:
        """Compute the gradient of the weights.

        Parameters
        ----------
        x : ndarray, shape (G, H, W, N)
        dy : ndarray, shape (G * K, P, Q, N)
        dw : ndarray, shape (G, K, 1, R, S)
            Taps that meet the input are overwritten; the others are too or aren't touched.
        """
        groups, filters = dw.shape[:2]
        given = dy.reshape(groups, filters, *dy.shape[1:])
        if not self._small:
            self._forward.weight_gradient(x[:, None], given, dw)
            return
        pixels = x.reshape(groups, -1, x.shape[3]).swapaxes(1, 2)
        for some in self._channels(dw):
            for k in range(filters):
                gradients = scratch("matrices", self._shape(len(given[some])), dw.dtype)
                np.matmul(_flat(given[some, k]), pixels[some], out=_square(gradients))
                for (i, j), place in self._meetings:
                    dw[some, k, 0, i, j] = np.einsum("gpqpq->g", gradients[place])

    def _channels(self, w: Floats) -> Iterator[slice]:
        """Channels whose matrices are made together."""
        many = max(1, CACHE_BYTES // (MOST_ELEMENTS * w.itemsize))
        for first in range(0, len(w), many):
            yield slice(first, min(len(w), first + many))

    def _shape(self, channels: int) -> tuple[int, ...]:
        rows, columns = self.rows, self.columns
        return channels, rows.out, columns.out, rows.size, columns.size

    def _matrices(self, w: Floats) -> Floats:
        """What takes all input pixels of a channel to its output pixels, ``[g, (p, q), (h, w)]``.

        ``w`` is ``[g, i, j]``.
        """
        matrices = scratch("matrices", self._shape(len(w)), w.dtype)
        matrices[...] = 0
        for (i, j), place in self._meetings:
            # The diagonal along which output and input positions of the tap go together, a view.
            np.einsum("gpqpq->gpq", matrices[place])[...] = w[:, i, j, None, None]
        return _square(matrices)

    @cached_property
    def _meetings(self) -> tuple[tuple[tuple[int, int], tuple[slice, ...]], ...]:
        """For each tap that meets the input, where it stands in :meth:`_matrices`."""
        found = []
        for i, j in np.ndindex(len(self.rows.offsets), len(self.columns.offsets)):
            (p, h), (q, w) = self.rows.meeting(i), self.columns.meeting(j)
            if p.stop > p.start and q.stop > q.start:
                found.append(((i, j), (slice(None), p, q, h, w)))
        return tuple(found)


def _flat(x: Floats) -> Floats:
    """Pixels of each channel as one axis: ``[G, (H, W), N]``."""
    return x.reshape(len(x), -1, x.shape[3])


def _square(matrices: Floats) -> Floats:
    count, high, wide = matrices.shape[:3]
    return matrices.reshape(count, high * wide, -1)


@dataclass(frozen=True)
class Lines:
    """A correlation of each group by itself, all channels of a group lowered line by line.

    ``y[g, k, p, q] = sum of w[g, k, c, i, j] x[g, c, rows(p, i), columns(q, j)]``.
    """

    rows: Axis
    columns: Axis

    def apply(self, x: Floats, w: Floats, y: Floats) -> None:
        """Compute the correlation.

        Parameters
        ----------
        x : ndarray, shape (G, C, H, W, N)
        w : ndarray, shape (G, K, C, I, J)
        y : ndarray, shape (G, K, P, Q, N)
            Is overwritten.
        """
        groups, filters = w.shape[:2]
        left = np.ascontiguousarray(w.transpose(0, 1, 3, 4, 2)).reshape(groups, 1, filters, -1)
        flat = y.strides[3:] == (y.shape[4] * y.itemsize, y.itemsize)
        for some, these in self._blocks(x):
            lowered = self._lowered(x[some], these)
            into = y[some, :, these].swapaxes(1, 2)
            if flat:
                np.matmul(left[some], lowered, out=into.reshape(*into.shape[:3], -1))
            else:
                room = scratch("product", (*into.shape[:3], lowered.shape[3]), y.dtype)
                np.matmul(left[some], lowered, out=room)
                into[...] = room.reshape(into.shape)

    def weight_gradient(self, x: Floats, dy: Floats, dw: Floats) -> None:
        """Compute ``dw[g, k, c, i, j]``, the gradient of the weights.

        Parameters
        ----------
        x : ndarray, shape (G, C, H, W, N)
        dy : ndarray, shape (G, K, P, Q, N)
        dw : ndarray, shape (G, K, C, I, J)
            Is overwritten.
        """
        groups, filters, channels, high, wide = dw.shape
        total: Floats = np.zeros((groups, filters, high * wide * channels), dtype=dw.dtype)
        for some, these in self._blocks(x):
            lowered = self._lowered(x[some], these)
            given = dy[some, :, these].swapaxes(1, 2)
            left = given.reshape(*given.shape[:3], -1)
            total[some] += np.matmul(left, lowered.swapaxes(2, 3)).sum(axis=1)
        dw[...] = total.reshape(groups, filters, high, wide, channels).transpose(0, 1, 4, 2, 3)

    def _blocks(self, x: Floats) -> Iterator[tuple[slice, slice]]:
        """Groups and output rows that are worked on together."""
        groups, channels, _, _, batch = x.shape
        line = channels * len(self.columns.offsets) * self.columns.out * batch * x.itemsize
        lines = max(1, BUFFER_BYTES // line)
        rows = min(self.rows.out, max(1, lines // self._lines_of_row))
        many = max(1, lines // (rows * self._lines_of_row))
        for first in range(0, groups, many):
            for top in range(0, self.rows.out, rows):
                yield (
                    slice(first, min(groups, first + many)),
                    slice(top, min(self.rows.out, top + rows)),
                )

    @cached_property
    def _neighbours(self) -> bool:
        """Whether the kernel rows are, so that what they meet are lines that follow one another."""
        return self.rows.offsets[-1] - self.rows.offsets[0] == len(self.rows.offsets) - 1

    @cached_property
    def _lines_of_row(self) -> int:
        """Lines that one more output row takes."""
        return self.rows.stride if self._neighbours else len(self.rows.offsets)

    def _lowered(self, x: Floats, these: slice) -> Floats:
        """What output rows meet, ``[group, p, (i, j, c), (q, n)]``."""
        rows, height = self.rows, len(self.rows.offsets)
        many = these.stop - these.start
        if self._neighbours:
            lines = (many - 1) * rows.stride + height
            first = these.start * rows.stride + rows.offsets[0]
            room = self._room(x, lines)
            self._fill(x, room, 1, first)
            step = rows.stride * room.strides[1]
        else:
            room = self._room(x, many * height)
            for i, offset in enumerate(rows.offsets):
                first = these.start * rows.stride + offset
                self._fill(x, room[:, i::height], rows.stride, first)
            step = height * room.strides[1]
        groups, _, wide, channels, columns, batch = room.shape
        depth, width = height * wide * channels, columns * batch
        strides = (room.strides[0], step, width * room.itemsize, room.itemsize)
        # As as_strided, at a tenth of its time.
        return np.ndarray((groups, many, depth, width), room.dtype, room, strides=strides)

    def _room(self, x: Floats, lines: int) -> Floats:
        groups, channels, _, _, batch = x.shape
        shape = (groups, lines, len(self.columns.offsets), channels, self.columns.out, batch)
        return scratch("lines", shape, x.dtype)

    def _fill(self, x: Floats, room: Floats, step: int, first: int) -> None:
        """Lower the input rows ``first``, ``first + step`` and so on."""
        top, bottom = valid_range(room.shape[1], self.rows.size, step, first)
        if top:
            room[:, :top] = 0
        if bottom < room.shape[1]:
            room[:, bottom:] = 0
        if top == bottom:
            return
        high = slice(top * step + first, (bottom - 1) * step + first + 1, step)
        for j, (inside, wide) in enumerate(self._columns):
            into = room[:, top:bottom, j]
            if inside.start:
                into[:, :, :, : inside.start] = 0
            if inside.stop < self.columns.out:
                into[:, :, :, inside.stop :] = 0
            if inside.stop > inside.start:
                into[:, :, :, inside] = x[:, :, high, wide].swapaxes(1, 2)

    @cached_property
    def _columns(self) -> tuple[tuple[slice, slice], ...]:
        """For each kernel column, output and input columns that meet."""
        return tuple(self.columns.meeting(j) for j in range(len(self.columns.offsets)))
