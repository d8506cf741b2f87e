"""What moves when it is known beforehand which weights are zero.

A tile of inputs is what the loops inside a cut touch. With the mask known, less of it is needed:
input (n, g, c, h, w) only if one of these loops meets a live weight (g, k, c, r, s) that lies over
it. The needed part is no box any more, but for one channel it depends on three things alone: the
set of taps that are live for any filter of the tile, the taps' rows through which the tile's output
rows see h, and the columns through which they see w. All three take few values, and how often each
occurs follows from the loops of its own dims, as the steps of a nest are the product of the steps
of its dims. So the count is a sum over a few classes, exact for ragged tiles, strides, dilation,
padding and any mask.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np

from energysim.axes import Dim, Shape, Tensor
from energysim.mapping import Nest, Rules
from energysim.model.counts import Counts, Key
from energysim.model.tiling import loops_over, nest_pieces
from energysim.model.visits import (
    START,
    Along,
    Bools,
    Boundary,
    Ints,
    Moved,
    Sets,
    Stack,
    States,
    along,
    as_rows,
    held_before,
    kind_of,
    members_alone,
)

CHANNEL = (Dim.N, Dim.G, Dim.C)
"""Dims that say which channel of which image an input belongs to."""


def live_inputs(
    shape: Shape, nest: Nest, trips: Sequence[int], rules: Rules, live: Bools
) -> dict[Key, int]:
    """Count the inputs that live weights need, at every boundary of one mapping.

    Parameters
    ----------
    shape : Shape
    nest : Nest
    trips : sequence of int
        Trip count of each loop.
    rules : Rules
    live : bool array, shape (G, K, C, R, S)
        True where a weight may differ from zero, channels in the order in which the loops take
        them.

    Returns
    -------
    dict
        ``read``, ``fill`` and ``hop`` of inputs by (level, tensor, name), as in
        :class:`energysim.model.counts.Counts`.

    Notes
    -----
    The counting rule is that of dense tiles (fetched is what the new tile has and the old one
    has not), with what live weights need in place of what all weights touch. Loops over K between
    the cut and the next loop that changes the dense tile belong to the tile: it stays while they
    turn, if no instance is idle in some of their steps. Elsewhere an element that the old tile did
    not need and the new one does is fetched, even if the dense tile would have held it all the
    time; a machine that knows the mask knows where that makes it move more than whole tiles do, and
    moves those: :func:`with_known_zeros` takes the smaller count of each boundary.
    """
    counts: dict[Key, int] = {}
    holders = nest.holders(Tensor.INPUT)
    for outer, inner in zip(holders, (*holders, None)[1:], strict=True):
        boundary = Boundary(
            shape, nest, trips, rules, tensor=Tensor.INPUT, levels=(outer, inner), where=CHANNEL
        )
        moved = _moved(boundary, shape, live, padding=rules.count_padding)
        counts[outer, Tensor.INPUT, "read"] = moved.read
        if boundary.fans_out:
            counts[outer, Tensor.INPUT, "hop"] = moved.each
        if inner is not None:
            counts[inner, Tensor.INPUT, "fill"] = moved.each
    return counts


def needed_inputs(shape: Shape, live: Bools, *, count_padding: bool = False) -> int:
    """Input elements of a layer that any live weight needs.

    Parameters
    ----------
    shape : Shape
    live : bool array, shape (G, K, C, R, S)
    count_padding : bool
        Padding is moved like data.
    """
    whole = Nest((), ((0, 0, 0),), (frozenset(),))
    boundary = Boundary(
        shape, whole, (), Rules(), tensor=Tensor.INPUT, levels=(0, None), where=CHANNEL
    )
    return _moved(boundary, shape, live, padding=count_padding).read


def _moved(boundary: Boundary, shape: Shape, live: Bools, *, padding: bool) -> Moved:
    """Inputs that cross one boundary."""
    groups, filters, channels, height, width = live.shape
    each_channel = live.transpose(0, 2, 1, 3, 4).reshape(groups * channels, -1)
    first, kind = _alike(each_channel)
    columns = each_channel[first]
    taps = Stack(boundary.dims[Dim.K], columns.reshape(len(columns), filters, -1))
    windows = [
        _Window(shape, side, boundary.dims[p], boundary.dims[r], padding=padding)
        for side, (p, r) in enumerate(((Dim.P, Dim.R), (Dim.Q, Dim.S)))
    ]
    read = each = 0
    for loop in boundary.loops:
        image, group, channel = boundary.leaves(loop)
        leaves = (image[:, None, None] | group[:, None] | channel).reshape(image.size, -1)
        seen = [window.states(loop, whole=boundary.whole) for window in windows]
        for afresh in (False, True):
            counted = np.broadcast_to(kind, leaves.shape)[leaves == afresh]
            if not counted.size:
                continue
            times = np.bincount(counted, minlength=len(columns))
            states = [taps.states(loop, times, whole=boundary.whole), *seen]
            part = boundary.moved(states, (height, width), afresh=afresh)
            read, each = read + part.read, each + part.each
    return Moved(read, each)


def _alike(rows: Bools) -> tuple[Ints, Ints]:
    """First of each kind of equal rows, and which kind each row is."""
    kinds: dict[bytes, int] = {}
    keys = [row.tobytes() for row in np.packbits(rows, axis=1)]
    kind = np.array([kinds.setdefault(key, len(kinds)) for key in keys], dtype=np.int64)
    _, first = np.unique(kind, return_index=True)
    return first, kind


class _Window:
    """The rows (or columns) of the inputs, which an output and a kernel dim drive."""

    def __init__(
        self, shape: Shape, side: int, output: Along, tap: Along, *, padding: bool
    ) -> None:
        self.output, self.tap, self.taps = output, tap, tap.when.size
        p, r = np.indices((output.when.size, self.taps)).reshape(2, -1)
        at = p * shape.stride[side] + r * shape.dilation[side]
        inside = at - shape.pad[side]
        there = ((inside >= 0) & (inside < shape.size[side])) | padding
        p, r, at = p[there], r[there], at[there]
        self.needs: Sets = np.zeros(
            (
                output.steps * tap.steps,
                output.parents * tap.parents,
                output.children * tap.children,
                int(at.max(initial=0)) + 1,
            ),
            dtype=kind_of(self.taps),
        )
        """taps through which each place is seen"""
        where = (
            output.when[p] * tap.steps + tap.when[r],
            output.parent[p] * tap.parents + tap.parent[r],
            output.child[p] * tap.children + tap.child[r],
            at,
        )
        np.bitwise_or.at(self.needs, where, members_alone(self.taps)[r])

    def states(self, loop: int, *, whole: bool) -> States:
        """What is needed at the transitions of one loop."""
        pairs = np.array([[-1, 0]])
        if loop != START:
            outputs, taps = self.output.transitions(loop), self.tap.transitions(loop)
            pairs = (outputs[:, None] * self.tap.steps + taps).reshape(-1, 2)
        new = as_rows(self.needs[pairs[:, 1]])
        old = as_rows(held_before(self.needs, self.needs != 0, pairs, whole=whole))
        return States(new, old, np.ones(len(new), dtype=np.int64))


# -- outputs ---------------------------------------------------------------------------------------


def live_outputs(
    shape: Shape, nest: Nest, trips: Sequence[int], rules: Rules, live: Bools
) -> dict[Key, int]:
    """Count what MACs with live weights do to partial sums where they keep them.

    Parameters
    ----------
    shape, nest, trips, rules, live
        As in :func:`live_inputs`.

    Returns
    -------
    dict
        ``read``, ``update`` and ``hop`` of outputs at the innermost level that holds them. Further
        out nothing changes: whole tiles of sums move.

    Notes
    -----
    In an array step every port delivers the taps that any of its filters needs, one a cycle, the
    first one first (:func:`energysim.model.lockstep.lock_step`). In the cycle in which a port
    delivers the i-th of its taps, the filters for which that tap is live add to their sums. Ports
    whose sums are added on the way make one update together, if any of them has something to add.
    """
    outer = nest.holders(Tensor.OUTPUT)[-1]
    own = nest.axes[outer]
    filters, channels = (_roles(shape, nest, trips, dim, own) for dim in (Dim.K, Dim.C))
    groups, count, _, height, width = live.shape
    rows, columns = (_ports(shape, nest, trips, dim, own) for dim in (Dim.R, Dim.S))
    union = np.stack(
        [live[:, filters.when == step].any(axis=1) for step in range(filters.steps)], axis=1
    )
    sums = (channels.parents, *(max(one.sum for one in each) + 1 for each in (rows, columns)))
    added = np.zeros((groups, count, *sums, channels.steps, height * width), dtype=np.bool_)
    for row, column in product(rows, columns):
        port = (..., row.taps[:, None], column.taps)
        delivered = union[port].reshape(*union.shape[:3], -1)
        turn = np.cumsum(delivered, axis=-1) - 1
        g, k, c, tap = np.nonzero(live[port].reshape(*live.shape[:3], -1))
        mine = (channels.parent[c], row.sum, column.sum, channels.when[c])
        added[(g, k, *mine, turn[g, filters.when[k], c, tap])] = True
    pixels = shape[Dim.N] * shape[Dim.P] * shape[Dim.Q]
    each, merged = pixels * int(live.sum()), pixels * int(added.sum())
    first = pixels * int(added.any(axis=(-1, -2)).sum())
    back = merged - first
    found = {
        (outer, Tensor.OUTPUT, "update"): merged if rules.reduce else each,
        (outer, Tensor.OUTPUT, "read"): back if rules.reduce else each - first,
    }
    if fans_out(nest, outer):
        found[outer, Tensor.OUTPUT, "hop"] = back + each
    return found


def fans_out(nest: Nest, level: int) -> bool:
    """Whether several MACs hang under an instance of a level."""
    return nest.array_axes != nest.axes[level]


def _roles(shape: Shape, nest: Nest, trips: Sequence[int], dim: Dim, own: frozenset[int]) -> Along:
    """Loops over a dim, all of them outside the MACs."""
    at = list(enumerate(nest.loops))
    return along(
        shape[dim],
        [(i, trips[i]) for i, loop in at if loop.dim is dim],
        (
            [i for i, loop in at if loop.axis is None],
            [i for i, loop in at if loop.axis in own],
            [i for i, loop in at if loop.axis is not None and loop.axis not in own],
        ),
    )


@dataclass(frozen=True, slots=True)
class _Port:
    """Rows (or columns) of a kernel that stand at one place of the array."""

    taps: Ints
    sum: int
    """which instance of the level with the sums it adds to"""


def _ports(
    shape: Shape, nest: Nest, trips: Sequence[int], dim: Dim, own: frozenset[int]
) -> list[_Port]:
    """Places of the rows (or columns) of a kernel."""
    parent = _roles(shape, nest, trips, dim, own).parent
    parts = nest_pieces(shape[dim], loops_over(nest, trips, dim)).parts()
    return [_Port(part, int(parent[part[0]])) for part in parts]


# -- both ------------------------------------------------------------------------------------------


def with_known_zeros(
    counts: Counts,
    shape: Shape,
    nest: Nest,
    trips: Sequence[int],
    rules: Rules,
    live: Bools,
    *,
    skips: bool,
) -> Counts:
    """Counts of a machine that does nothing for weights that are zero.

    Parameters
    ----------
    counts : Counts
        Of this mapping alone (B = 1), zeros multiplied.
    shape, nest, trips, rules, live
        As in :func:`live_inputs`.
    skips : bool
        The machine skips zeros: inputs that no live weight needs are not fetched, sums without
        anything to add stay where they are. Else it gates them: its elements go through the same
        steps, and only memories that each of them has for itself are left alone.

    Returns
    -------
    Counts
        With fewer moves of inputs and outputs. Where a boundary would move more inputs than whole
        tiles have, it moves whole tiles (see :func:`live_inputs`).
    """
    alone = {tensor: not fans_out(nest, nest.holders(tensor)[-1]) for tensor in Tensor}
    found: dict[Key, int] = {}
    if skips or alone[Tensor.INPUT]:
        inputs = live_inputs(shape, nest, trips, rules, live)
        holders = nest.holders(Tensor.INPUT)
        for outer, inner in zip(holders, (*holders, None)[1:], strict=True):
            if not skips and inner is not None:
                continue
            keys = [(outer, Tensor.INPUT, "read"), (outer, Tensor.INPUT, "hop")]
            keys += [] if inner is None else [(inner, Tensor.INPUT, "fill")]
            if all(inputs.get(key, 0) <= int(counts(*key)[0]) for key in keys):
                found |= {key: inputs[key] for key in keys if key in inputs}
    if Tensor.OUTPUT not in rules.latch and (skips or alone[Tensor.OUTPUT]):
        found |= live_outputs(shape, nest, trips, rules, live)
    return counts.changed(found)
