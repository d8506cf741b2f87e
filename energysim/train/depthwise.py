"""Depthwise correlation: every channel has filters of its own, so nothing is summed over channels.

There is no matrix product in it. For each tap the shifted images are multiplied by its weights and
added up, a few channels at a time so that images and sums stay in the cache.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from energysim.train.lowered import Axis
from energysim.train.scratch import Floats, scratch

CACHE_BYTES = 1 << 18
"""Of one operand that is worked on at once [byte]; three of them stand in L2 and beside it"""


@dataclass(frozen=True, slots=True)
class Depthwise:
    """A correlation ``y[g, k, p, q] = sum of w[g, k, 0, i, j] x[g, rows(p, i), columns(q, j)]``."""

    rows: Axis
    columns: Axis
    taps: tuple[tuple[int, int], ...]
    """kernel rows and columns that some kernel has"""

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
        sums = y.reshape(groups, filters, *y.shape[1:])
        for some in self._channels(y, groups):
            sums[some] = 0
            for (row, column), out, inside in self._meetings():
                into = sums[some][:, :, out[0], out[1]]
                room = scratch("room", into.shape, y.dtype)
                weights = w[some, :, 0, row, column, None, None, None]
                np.multiply(x[some, None, inside[0], inside[1]], weights, out=room)
                into += room

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
        for some in self._channels(dy, groups):
            dx[some] = 0
            for (row, column), out, inside in self._meetings():
                into = dx[some, inside[0], inside[1]]
                for k in range(filters):
                    room = scratch("room", into.shape, dx.dtype)
                    weights = w[some, k, 0, row, column, None, None, None]
                    np.multiply(given[some, k, out[0], out[1]], weights, out=room)
                    into += room

    def weight_gradient(self, x: Floats, dy: Floats, dw: Floats) -> None:
        """Compute the gradient of the weights.

        Parameters
        ----------
        x : ndarray, shape (G, H, W, N)
        dy : ndarray, shape (G * K, P, Q, N)
        dw : ndarray, shape (G, K, 1, R, S)
            Taps that meet the input are overwritten, the others aren't touched.
        """
        groups, filters = dw.shape[:2]
        given = dy.reshape(groups, filters, *dy.shape[1:])
        for some in self._channels(dy, groups):
            for (row, column), out, inside in self._meetings():
                dw[some, :, 0, row, column] = np.einsum(
                    "ghwn,gkhwn->gk", x[some, inside[0], inside[1]], given[some, :, out[0], out[1]]
                )

    def _channels(self, y: Floats, groups: int) -> Iterator[slice]:
        """Channels that are worked on together."""
        many = max(1, CACHE_BYTES // max(1, y.nbytes // groups))
        for first in range(0, groups, many):
            yield slice(first, min(groups, first + many))

    def _meetings(
        self,
    ) -> Iterator[tuple[tuple[int, int], tuple[slice, slice], tuple[slice, slice]]]:
        """For each tap, the output and input positions that meet; none where only padding is."""
        for row, column in self.taps:
            pairs = [self.rows.meeting(row), self.columns.meeting(column)]
            if all(out.stop > out.start for out, _ in pairs):
                yield (row, column), (pairs[0][0], pairs[1][0]), (pairs[0][1], pairs[1][1])
