"""Which channels stand on the array together: tiles and places, natural or grouped by slot."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Literal

import numpy as np
import numpy.typing as npt

from energysim.axes import Dim
from energysim.mapping import Nest

Bools = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int64]

OrderWord = Literal["natural", "by_slot"]

CHANNELS = (Dim.G, Dim.K, Dim.C)
"""Dims whose tiles are the array steps."""

TAPS = (Dim.R, Dim.S)
"""Dims of one kernel: walked inside an array step, skipped where no tap is live."""


@dataclass(frozen=True, slots=True)
class Spread:
    """One dim laid along one array axis."""

    dim: Dim
    """any but those of :data:`REPLICAS` changes who waits for whom"""
    count: int
    """indices of the dim that stand side by side"""
    axis: str = ""
    """name of the array axis"""
    piece: int = 1
    """consecutive indices that one place of the axis walks through in time, channels only: a
    temporal loop inside the spatial one. At 1 a tile is ``count`` channels in a row, at m every
    m-th channel of ``count * m``"""


@dataclass(frozen=True, slots=True)
class Tiling:
    """Where each index of a dim stands: in which tile, at which place."""

    tile: Ints
    place: Ints
    tiles: int
    places: int


def _tiling(residues: Ints, count: int, piece: int) -> Tiling:
    """Cut a dim into tiles that hold one residue each; the tiles take the residues in turn."""
    by_residue = np.argsort(residues, kind="stable")
    members = np.bincount(residues)
    starts = np.cumsum(members) - members
    rank = np.empty_like(residues)
    rank[by_residue] = np.arange(residues.size) - np.repeat(starts, members)
    block, inside = np.divmod(rank, count * piece)
    place, turn = np.divmod(inside, piece)
    own = block * piece + turn
    # Neighbours of different residues put a dense kernel on another port in every tile of a queue.
    _, tile = np.unique(own * members.size + residues, return_inverse=True)
    return Tiling(tile, place, int(tile.max()) + 1, int(place.max()) + 1)


def rule_tilings(
    dims: tuple[int, int, int, int, int],
    array: tuple[Spread, ...],
    order: Mapping[str, OrderWord],
    period: int,
) -> dict[Dim, Tiling]:
    """Tiles of G, K and C."""
    found = {}
    for dim, residues in residues_of(dims, array, order, period).items():
        own = [spread for spread in array if spread.dim is dim]
        found[dim] = _tiling(residues, prod(s.count for s in own), prod(s.piece for s in own))
    return found


def residues_of(
    dims: tuple[int, int, int, int, int],
    array: tuple[Spread, ...],
    order: Mapping[str, OrderWord],
    period: int,
) -> dict[Dim, Ints]:
    """What the indices of G, K and C are grouped by; 0 for all where they are not."""
    extents = dict(zip(CHANNELS, dims[: len(CHANNELS)], strict=True))
    # Slot (g * K + k + g * C + c + 1) mod P: the share of each dim in the sum is its residue.
    step = {Dim.G: extents[Dim.K] + extents[Dim.C], Dim.K: 1, Dim.C: 1}
    found = {}
    for dim, extent in extents.items():
        numbers = np.arange(extent, dtype=np.int64)
        grouped = any(order[s.axis] == "by_slot" for s in array if s.dim is dim)
        found[dim] = numbers * step[dim] % period if grouped else np.zeros_like(numbers)
    return found


@dataclass(frozen=True, slots=True)
class Pieces:
    """The rows (or columns) of a kernel by the place of the array that has them."""

    order: Ints
    """numbers of the rows, place by place"""
    starts: Ints
    """where in ``order`` each place begins"""

    def parts(self) -> list[Ints]:
        """Rows of each place."""
        return np.split(self.order, self.starts[1:])


def tap_pieces(extent: int, array: tuple[Spread, ...], dim: Dim) -> Pieces:
    """Pieces of consecutive rows (or columns)."""
    count = prod(spread.count for spread in array if spread.dim is dim)
    starts = np.arange(0, extent, -(-extent // min(count, extent)), dtype=np.int64)
    return Pieces(np.arange(extent), starts)


def nest_pieces(extent: int, loops: Sequence[tuple[int, bool]]) -> Pieces:
    """Rows (or columns) of a kernel by the spatial loops over them."""
    _, place = _tile_and_place(extent, loops)
    order = np.argsort(place, kind="stable")
    _, starts = np.unique(place[order], return_index=True)
    return Pieces(order, starts)


def loops_over(nest: Nest, trips: Sequence[int], dim: Dim) -> list[tuple[int, bool]]:
    """Trip counts of the loops over a dim, and whether each is spatial."""
    return [
        (count, loop.axis is not None)
        for loop, count in zip(nest.loops, trips, strict=True)
        if loop.dim is dim
    ]


def nest_tiling(residues: Ints, loops: Sequence[tuple[int, bool]]) -> Tiling:
    """Tile and place of each index of a dim, when its loops take them in :func:`nest_order`."""
    tile, place = _tile_and_place(residues.size, loops)
    number = nest_order(residues, loops)
    return Tiling(tile[number], place[number], int(tile.max()) + 1, int(place.max()) + 1)


def nest_order(residues: Ints, loops: Sequence[tuple[int, bool]]) -> Ints:
    """Where in the loops over a dim each of its indices stands.

    As numbered, or, if there are several residues, so that those of one residue fill one tile after
    the other.

    Parameters
    ----------
    residues : int array, shape (extent of the dim,)
    loops : sequence of (int, bool)
        Trip counts of the loops over the dim, outermost first, and whether each is spatial.
    """
    if not np.any(residues):
        return np.arange(residues.size)
    tile, place = _tile_and_place(residues.size, loops)
    number = np.empty_like(tile)
    number[np.argsort(residues, kind="stable")] = np.lexsort((place, tile))
    return number


def _tile_and_place(extent: int, loops: Sequence[tuple[int, bool]]) -> tuple[Ints, Ints]:
    """Digits of each number by the temporal and by the spatial loops."""
    rest = np.arange(extent)
    tile, place, size = np.zeros_like(rest), np.zeros_like(rest), extent
    for count, spatial in loops:
        size = -(-size // count)
        digit, rest = np.divmod(rest, size)
        if spatial:
            place = place * count + digit
        else:
            tile = tile * count + digit
    _, tile = np.unique(tile, return_inverse=True)
    return tile.reshape(-1), place


def temporal_steps(extent: int, loops: Sequence[tuple[int, bool]]) -> int:
    """Steps of the temporal loops over a dim in which any instance has work.

    Parameters
    ----------
    extent : int
    loops : sequence of (int, bool)
        Trip counts of the loops over the dim, outermost first, and whether each is spatial.
    """
    return int(_tile_and_place(extent, loops)[0].max()) + 1
