"""The mapspace of a layer: one nest per loop order, and the choices of trip counts of each dim.

Between DRAM and the outermost on-chip memory every distinct tile size and every loop order that can
differ in cost is a candidate; kernel taps are not cut there. Inside that memory the dataflow's rule
decides: each inner level, from the innermost outwards, takes as much of the dataflow's loops as it
can hold, once for the whole layer; smaller tiles use the same loops with smaller trip counts.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations, permutations

import numpy as np

from energysim.axes import RELEVANT, Dim, Shape, Tensor
from energysim.errors import DoesNotFitError
from energysim.hardware import Hardware
from energysim.mapper.dataflows import Dataflow
from energysim.mapping import Nest, Segment, build_nest, held_tensors
from energysim.model.counts import GROUPS, own_loops
from energysim.model.tables import Ints
from energysim.units import BITS_PER_BYTE

INNER = 2
"""The first level within the outermost on-chip memory (level 1)."""

KERNEL = (Dim.R, Dim.S)
"""Dims that are not cut between DRAM and the outermost on-chip memory."""


@dataclass(frozen=True, slots=True)
class Template:
    """Loops inside the outermost on-chip memory, with the largest trip count of each.

    ``temporal[level]`` and ``spatial[level]`` are outermost first; the caps of level 1 are open
    (None): its loops do whatever is left of a tile.
    """

    shape: Shape
    axes: tuple[frozenset[int], ...]
    holds: tuple[frozenset[Tensor], ...]
    temporal: tuple[tuple[tuple[Dim, int | None], ...], ...]
    spatial: tuple[tuple[tuple[Dim, int, int], ...], ...]
    """(dim, array axis, cap)"""
    buffer: int = 1
    """the level whose tiles are searched: the outermost on-chip one that the layer uses"""

    def nest(self, order: tuple[Dim, ...]) -> Nest:
        """The nest with DRAM loops in this order, outermost first."""
        return build_nest(self.axes, self.holds, self.segments(order))

    def segments(self, order: tuple[Dim, ...]) -> list[Segment]:
        """Loops of every level with DRAM loops in this order."""
        temporal = (order, *(tuple(dim for dim, _ in row) for row in self.temporal[1:]))
        spatial = (tuple((dim, axis) for dim, axis, _ in fan) for fan in self.spatial)
        return list(zip(temporal, spatial, strict=True))

    def choices(self, nest: Nest) -> list[Ints]:
        """Trip counts of every group of dims, one row a tile size, fewest DRAM trips first."""
        return [self._group_choices(nest, group) for group in range(len(GROUPS))]

    def _group_choices(self, nest: Nest, group: int) -> Ints:
        own = own_loops(nest, group)
        parts = []
        for dim in GROUPS[group]:
            cut = any(nest.loops[i].dim is dim and i < self._dram_loops(nest) for i in own)
            trips = distinct_trips(self.shape[dim]) if cut else np.array([1])
            parts.append(self._distribute(dim, trips, cut=cut))
        # rows of both dims of a window, each loop in its own column
        rows = np.array(np.meshgrid(*(range(len(part)) for part in parts), indexing="ij"))
        picks = rows.reshape(len(parts), -1)
        columns = np.empty((picks.shape[1], len(own)), dtype=np.int64)
        taken = dict.fromkeys(GROUPS[group], 0)
        for column, position in enumerate(own):
            dim = nest.loops[position].dim
            which = GROUPS[group].index(dim)
            columns[:, column] = parts[which][picks[which], taken[dim]]
            taken[dim] += 1
        return columns

    def _dram_loops(self, nest: Nest) -> int:
        rest = sum(map(len, self.temporal[1:])) + sum(map(len, self.spatial))
        return len(nest.loops) - rest

    def _distribute(self, dim: Dim, dram: Ints, *, cut: bool) -> Ints:
        """Trip counts of all loops over one dim, for given DRAM trip counts.

        Array axes are filled first, then the inner memories, then level 1 does the rest; each count
        is the smallest that still covers the tile, so pieces are as even as can be.
        """
        slots: list[tuple[bool, int | None]] = []
        for temporal, spatial in zip(self.temporal, self.spatial, strict=True):
            slots += [(False, cap) for each, cap in temporal if each is dim]
            slots += [(True, cap) for each, _, cap in spatial if each is dim]
        piece = -(-self.shape[dim] // dram)
        columns = [dram] if cut else []
        parallel, left = [], piece
        for is_spatial, cap in slots:
            if is_spatial and cap is not None:
                parallel.append(np.minimum(cap, left))
                left = -(-left // parallel[-1])
        room = list(parallel)
        for i, (is_spatial, cap) in enumerate(slots):
            behind = np.ones_like(piece)
            for other in room[1:] if is_spatial else room:
                behind = behind * other
            for later_spatial, later_cap in slots[i + 1 :]:
                if not later_spatial and later_cap is not None:
                    behind = behind * later_cap
            if is_spatial:
                wanted = room.pop(0)
                size = -(-piece // wanted)
                trip = -(-piece // size)
            else:
                trip = -(-piece // behind)
                if cap is not None:
                    trip = np.minimum(trip, cap)
                size = -(-piece // trip)
                trip = -(-piece // size)
            columns.append(trip)
            piece = size
        return np.stack(columns, axis=1) if columns else np.empty((dram.size, 0), dtype=np.int64)


def distinct_trips(extent: int) -> Ints:
    """One trip count for every distinct tile size, ascending.

    Examples
    --------
    >>> distinct_trips(10).tolist()
    [1, 2, 3, 4, 5, 10]
    """
    sizes = np.unique(-(-extent // np.arange(1, extent + 1)))
    return np.sort(-(-extent // sizes))


# -- loop orders -----------------------------------------------------------------------------------


def stationarity(order: tuple[Dim, ...]) -> tuple[tuple[Dim, ...], ...]:
    """What the cost of an order of DRAM loops depends on, if all run more than once.

    For each tensor, the loops behind the last one that gives it a wholly new tile. Proof: a count
    is T - sum over loops j of M_j (see :mod:`energysim.model.counts`). T knows no order. M_j is 0
    if j, or a loop inside j, moves to another piece of a dim that indexes the tensor directly (all
    its dims but P and Q of ``input``, whose windows overlap), since then no element is held. For
    the other j an axis's factor depends only on whether its loop is inside j, at j or outside. All
    loops inside the DRAM loops stand where they are in every order.
    """
    behind = []
    for tensor in Tensor:
        windows = {Dim.P, Dim.Q} if tensor is Tensor.INPUT else set()
        renewing = RELEVANT[tensor] - windows
        last = max((i for i, dim in enumerate(order) if dim in renewing), default=-1)
        behind.append(order[last + 1 :])
    return tuple(behind)


@lru_cache(maxsize=64)
def dram_orders(dims: tuple[Dim, ...]) -> tuple[tuple[Dim, ...], ...]:
    """Loop orders such that every mapping costs the same as one with an order of this list.

    A loop that runs once is as good as absent, so for every subset of ``dims`` each behaviour
    (:func:`stationarity`) must be shown by some listed order with the other dims left out.
    """
    subsets = [
        frozenset(subset) for size in range(len(dims), 0, -1) for subset in combinations(dims, size)
    ]
    shown: dict[frozenset[Dim], set[tuple[tuple[Dim, ...], ...]]] = {s: set() for s in subsets}
    orders: list[tuple[Dim, ...]] = []
    for subset in subsets:
        rest = tuple(dim for dim in dims if dim not in subset)
        for order in permutations(sorted(subset)):
            if stationarity(order) in shown[subset]:
                continue
            orders.append(rest + order)
            for other in subsets:
                kept = tuple(dim for dim in orders[-1] if dim in other)
                shown[other].add(stationarity(kept))
    return tuple(orders) or ((),)


# -- the dataflow's rule inside the chip -----------------------------------------------------------


def make_template(
    hardware: Hardware, shape: Shape, dataflow: Dataflow, *, has_weights: bool
) -> Template:
    """Place the loops inside the outermost on-chip memory by the dataflow's rule.

    Parameters
    ----------
    has_weights : bool
        A layer without weights runs on the vector unit, next to the outermost on-chip level that
        holds its data.

    Raises
    ------
    DoesNotFitError
        If an inner level cannot hold a single element of each tensor.
    """
    levels = len(hardware.levels)
    axes = tuple(hardware.level_axes(level) for level in range(levels))
    holds = held_tensors(hardware, has_weights=has_weights)
    if not has_weights:
        return _vector_template(hardware, shape, axes, holds)
    spatial = _spread(hardware, shape, dataflow)
    fan = {
        dim: int(np.prod([cap for row in spatial for d, _, cap in row if d is dim], dtype=np.int64))
        for dim in Dim
    }
    inner = _Inner(hardware, shape, spatial)
    inner.reserve(dim for dim in dataflow.inner if dim in dataflow.whole)
    temporal: list[list[tuple[Dim, int | None]]] = [[] for _ in range(levels)]
    segment = levels - 1
    for dim in dataflow.inner:
        need = -(-shape[dim] // fan[dim])
        if need == 1:
            continue
        while segment >= INNER:
            size = inner.largest(dim, need, range(INNER, segment + 1))
            if size > 1:
                temporal[segment].insert(0, (dim, size))
                inner.take(dim, size, segment)
                break
            if segment == INNER or inner.largest(dim, need, range(INNER, segment)) == 1:
                break
            segment -= 1
    temporal[1] = [(dim, None) for dim in reversed(dataflow.order) if shape[dim] > 1]
    return Template(
        shape, axes, holds, tuple(tuple(row) for row in temporal), tuple(map(tuple, spatial))
    )


def _vector_template(
    hardware: Hardware,
    shape: Shape,
    axes: tuple[frozenset[int], ...],
    holds: tuple[frozenset[Tensor], ...],
) -> Template:
    inner = [
        level for tensor in (Tensor.INPUT, Tensor.OUTPUT) for level in hardware.holders(tensor)[1:2]
    ]
    buffer = min(inner, default=1)
    order = (Dim.N, Dim.G, Dim.K, Dim.P, Dim.Q, Dim.C, Dim.R, Dim.S)
    loops = tuple((dim, None) for dim in order if shape[dim] > 1)
    temporal = tuple(loops if level == buffer else () for level in range(len(holds)))
    return Template(shape, axes, holds, temporal, ((),) * len(holds), buffer)


def _spread(
    hardware: Hardware, shape: Shape, dataflow: Dataflow
) -> list[list[tuple[Dim, int, int]]]:
    """Spatial loops of each level: dims fill their axis in turn, each with what room is left."""
    rows: list[list[tuple[Dim, int, int]]] = [[] for _ in hardware.levels]
    left = dict(zip(Dim, shape.dims, strict=True))
    for axis, (name, size) in enumerate(hardware.array.axes.items()):
        own = [i for i in range(len(rows)) if axis in hardware.level_axes(i)]
        level = (min(own) if own else len(rows)) - 1
        room = size
        named = hardware.unroll_dims(name)
        default = dataflow.unroll[axis] if axis < len(dataflow.unroll) else ()
        for dim in default if named is None else named:
            trips = min(room, left[dim])
            if trips > 1:
                rows[level].append((dim, axis, trips))
                left[dim] = -(-left[dim] // trips)
                room //= trips
    return rows


class _Inner:
    """Tile extents in the levels within the outermost on-chip memory, and what these can hold."""

    def __init__(
        self, hardware: Hardware, shape: Shape, spatial: list[list[tuple[Dim, int, int]]]
    ) -> None:
        self.hardware, self.shape = hardware, shape
        self.sizes = [dict.fromkeys(Dim, 1) for _ in hardware.levels]
        for level in range(INNER, len(hardware.levels)):
            own = hardware.level_axes(level)
            for row in spatial:
                for dim, axis, trips in row:
                    if axis not in own:
                        self.sizes[level][dim] *= trips
            missing = self._missing_bits(level, self.sizes[level])
            if missing > 0:
                name = hardware.levels[level].name
                raise DoesNotFitError(
                    f"level {name} cannot hold one element of each tensor that it keeps: "
                    f"{-(-missing // BITS_PER_BYTE)} bytes are missing"
                )
        self.reserved: dict[Dim, int] = {}

    def reserve(self, dims: Iterable[Dim]) -> None:
        for dim in dims:
            if self.largest(dim, self.shape[dim], range(INNER, len(self.sizes))) == self.shape[dim]:
                self.reserved[dim] = self.shape[dim]

    def take(self, dim: Dim, size: int, segment: int) -> None:
        self.reserved.pop(dim, None)
        for level in range(INNER, segment + 1):
            self.sizes[level][dim] *= size

    def largest(self, dim: Dim, need: int, levels: range) -> int:
        """Largest trip count up to ``need`` that all the levels can hold (1 if none)."""
        low, high = 1, need
        while low < high:
            middle = (low + high + 1) // 2
            if all(self._fits(level, dim, middle) for level in levels):
                low = middle
            else:
                high = middle - 1
        return low

    def _fits(self, level: int, dim: Dim, trips: int) -> bool:
        sizes = dict(self.sizes[level])
        for other, size in self.reserved.items():
            if other is not dim:
                sizes[other] *= size
        sizes[dim] *= trips
        return self._missing_bits(level, sizes) <= 0

    def _missing_bits(self, level: int, sizes: dict[Dim, int]) -> int:
        memory = self.hardware.levels[level]
        capacity = memory.capacity_bits()
        copies = 2 if memory.double_buffered else 1
        needed = {
            tensor: copies * _nominal_elements(self.shape, sizes, tensor) * width
            for tensor, width in _widths(self.hardware).items()
            if tensor in memory.tensors
        }
        if isinstance(capacity, dict):
            return max(needed[tensor] - room for tensor, room in capacity.items())
        return sum(needed.values()) - (capacity or 0)


def _widths(hardware: Hardware) -> dict[Tensor, int]:
    bits = hardware.bits
    return {Tensor.WEIGHT: bits.weight, Tensor.INPUT: bits.input, Tensor.OUTPUT: bits.psum}


def _nominal_elements(shape: Shape, sizes: dict[Dim, int], tensor: Tensor) -> int:
    """Elements of a full tile away from the borders."""
    total = 1
    for dim in RELEVANT[tensor] - (
        {Dim.P, Dim.Q, Dim.R, Dim.S} if tensor is Tensor.INPUT else set()
    ):
        total *= sizes[dim]
    if tensor is Tensor.INPUT:
        for along, (out, tap) in enumerate(((Dim.P, Dim.R), (Dim.Q, Dim.S))):
            reach = (sizes[out] - 1) * shape.stride[along]
            total *= reach + (sizes[tap] - 1) * shape.dilation[along] + 1
    return total
