"""Weights that move in coded tiles: how often each tile moves, and its exact bits.

A tile of weights moves whole or not at all: loops over dims that weights have lead to other tiles,
loops over N, P and Q leave the tile alone or come back to it. How often it moves depends on
whether another tile comes up in between, which may differ at ragged ends.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np

from energysim.axes import Dim, Shape, Tensor
from energysim.mapping import Nest, Rules
from energysim.model.counts import Counts, Key
from energysim.model.sparse import WeightStore
from energysim.model.visits import Along, Bools, Boundary, Ints, Moved, Stack
from energysim.sparsity import Mask, Tiles, tile_bits, tile_nonzeros

WEIGHT = (Dim.G, Dim.K, Dim.C, Dim.R, Dim.S)
"""Dims that say which weight it is."""

ABOVE = (Dim.N, Dim.P, Dim.Q)
"""Dims that no weight has."""


def coded_bits(
    store: WeightStore,
    compressed: Sequence[bool],
    shape: Shape,
    nest: Nest,
    trips: Sequence[int],
    rules: Rules,
    counts: Counts,
) -> dict[Key, float]:
    """Bits of weights that cross each boundary, tile by tile.

    Parameters
    ----------
    store : WeightStore
    compressed : sequence of bool, one a level
        Whether the level holds weights coded; what an inner level holds coded, those outside it do.
    shape, nest, trips, rules
        The mapping.
    counts : Counts
        Of this mapping alone (B = 1).

    Returns
    -------
    dict
        ``read``, ``fill`` and ``hop`` of weights by (level, tensor, name), for levels that hold
        them coded [bit]. What a layer loads once is not in it.

    Notes
    -----
    Between two such levels the inner one's tiles move, each coded by itself: with row starts and
    widths of indices of its own. To a level that holds weights as they are, and to the MACs, the
    outer level's tiles are read through; there each weight takes its share of the code.
    """

    def code_of(tiles: Tiles) -> Ints:
        name, bits = store.format, store.weight_bits
        return tile_bits(name, store.mask, tiles, bits, run_bits=store.run_bits).total

    holders = nest.holders(Tensor.WEIGHT)
    found: dict[Key, float] = {}
    share = (store.total_bits - store.once_bits) / store.elements
    for outer, inner in zip(holders, (*holders, None)[1:], strict=True):
        if not compressed[outer]:
            break
        names = [(outer, Tensor.WEIGHT, "read"), (outer, Tensor.WEIGHT, "hop")]
        if inner is None or not compressed[inner]:
            found |= {key: int(counts(*key)[0]) * share for key in names if key in counts.values}
            break
        boundary = Boundary(
            shape, nest, trips, rules, tensor=Tensor.WEIGHT, levels=(outer, inner), where=WEIGHT
        )
        moved, once = _tiles_moved(store.mask, boundary, code_of)
        found[names[0]] = moved.read
        found[inner, Tensor.WEIGHT, "fill"] = moved.each
        if boundary.fans_out:
            found[names[1]] = moved.each
        share = once / store.elements
    return found


@dataclass(frozen=True, slots=True)
class _Ranges:
    """Ranges of a dim that tiles have, those that count alike together."""

    starts: Ints
    stops: Ints
    leaves: Bools
    """whether another range comes up before each loop advances, shape (ranges, loops)"""
    times: Ints


def live_weights(
    mask: Mask,
    compressed: Sequence[bool],
    shape: Shape,
    nest: Nest,
    trips: Sequence[int],
    rules: Rules,
    counts: Counts,
) -> dict[Key, int]:
    """Count the weights that move, where a machine that skips zeros holds them uncoded.

    Parameters
    ----------
    mask : Mask
    compressed, shape, nest, trips, rules, counts
        As in :func:`coded_bits`.

    Returns
    -------
    dict
        ``read``, ``fill`` and ``hop`` of live weights by (level, tensor, name), for levels that
        hold weights as they are. The MACs read each live one as often as each other.
    """
    holders = nest.holders(Tensor.WEIGHT)
    found: dict[Key, int] = {}
    for outer, inner in zip(holders, (*holders, None)[1:], strict=True):
        names = [(outer, Tensor.WEIGHT, "read"), (outer, Tensor.WEIGHT, "hop")]
        if inner is None:
            if not compressed[outer]:
                some = {key: int(counts(*key)[0]) for key in names if key in counts.values}
                found |= {key: _share(each, mask) for key, each in some.items()}
            break
        if compressed[inner]:
            continue
        boundary = Boundary(
            shape, nest, trips, rules, tensor=Tensor.WEIGHT, levels=(outer, inner), where=WEIGHT
        )
        moved, _ = _tiles_moved(mask, boundary, lambda tiles: tile_nonzeros(mask, tiles))
        found[inner, Tensor.WEIGHT, "fill"] = moved.each
        if not compressed[outer]:
            found[names[0]] = moved.read
            if boundary.fans_out:
                found[names[1]] = moved.each
    return found


def _share(count: int, mask: Mask) -> int:
    """Live ones of some weights, to the nearest."""
    return (2 * count * mask.nonzeros + mask.total) // (2 * mask.total)


def _tiles_moved(
    mask: Mask, boundary: Boundary, size_of: Callable[[Tiles], Ints]
) -> tuple[Moved, int]:
    """Size of all tiles that move, and of each tile once."""
    visits = [
        [_visits(boundary, loop, afresh=afresh) for afresh in (False, True)]
        for loop in boundary.loops
    ]
    by_loop = [boundary.leaves(loop) for loop in boundary.loops]
    period = mask.pattern.period if mask.periodic else None
    _, filters, channels = mask.dims[:3]
    step = {Dim.G: filters + channels, Dim.K: 1, Dim.C: 1}
    ranges = [
        _ranges(
            boundary.dims[dim],
            np.stack([leaves[at] for leaves in by_loop], axis=1),
            None if period is None or dim not in step else step[dim] % period,
            period,
        )
        for at, dim in enumerate(WEIGHT)
    ]
    read = each = once = 0
    # One group of filters after the other, so that memory stays small.
    for g, k in product(range(len(ranges[0].times)), range(len(ranges[1].times))):
        grid = np.meshgrid(
            [g], [k], *(np.arange(len(one.times)) for one in ranges[2:]), indexing="ij"
        )
        at = [axis.ravel() for axis in grid]
        tiles = Tiles(
            np.stack([one.starts[i] for one, i in zip(ranges, at, strict=True)], axis=1),
            np.stack([one.stops[i] for one, i in zip(ranges, at, strict=True)], axis=1),
        )
        coded = size_of(tiles)
        for one, i in zip(ranges, at, strict=True):
            coded = coded * one.times[i]
        leaves = np.any([one.leaves[i] for one, i in zip(ranges, at, strict=True)], axis=0)
        once += int(coded.sum())
        for place, (stays, comes) in enumerate(visits):
            again = int(coded[leaves[:, place]].sum())
            kept = int(coded.sum()) - again
            read += kept * stays.read + again * comes.read
            each += kept * stays.each + again * comes.each
    return Moved(read, each), once


def _visits(boundary: Boundary, loop: int, *, afresh: bool) -> Moved:
    """How often a tile moves at the transitions of a loop."""
    one = np.ones(1, dtype=np.int64)
    states = [
        Stack(boundary.dims[dim], np.ones((1, boundary.dims[dim].when.size, 1), dtype=np.bool_))
        .states(loop, one, whole=False)
        for dim in ABOVE
    ]  # fmt: skip
    return boundary.moved(states, (1, 1), afresh=afresh)


def _ranges(along: Along, leaves: Bools, step: int | None, period: int | None) -> _Ranges:
    """Ranges of a dim at the steps and instances that have work.

    Where a mask is periodic, a range is as good as another one of its length that starts a whole
    number of periods away.
    """
    place = (along.when * along.parents + along.parent) * along.children + along.child
    changed = np.flatnonzero(np.diff(place)) + 1
    starts = np.concatenate([[0], changed])
    stops = np.concatenate([changed, [place.size]])
    slot = starts if step is None or period is None else starts * step % period
    alike = np.column_stack([slot, stops - starts, leaves[starts]])
    _, first, times = np.unique(alike, axis=0, return_index=True, return_counts=True)
    return _Ranges(starts[first], stops[first], leaves[starts[first]], times)
