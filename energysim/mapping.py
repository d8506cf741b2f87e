"""A mapping seen whole: one sequence of loops, and a cut in it for every (level, tensor)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from energysim.axes import RELEVANT, Dim, Shape, Tensor
from energysim.errors import InputErrors, did_you_mean
from energysim.hardware import DimWord, Hardware, TensorWord

TripCount = Annotated[int, Field(ge=1, le=2**24)]


@dataclass(frozen=True, slots=True)
class Loop:
    """One loop of the nest; its trip count is kept apart so that many mappings share a nest."""

    dim: Dim
    axis: int | None = None
    """index of the array axis of a spatial loop, None for a temporal loop"""


@dataclass(frozen=True, slots=True)
class Nest:
    """The structure that a batch of mappings shares: loops, who holds what, and the cuts.

    A loop over a dim of extent E with trip count n makes pieces of ceil(E / n); the last one may be
    smaller. Nested loops over the same dim cut the *nominal* piece of the outer one, so sizes are
    the same in every iteration and a last piece may need fewer iterations. A step in which no
    instance has work is not taken.

    Parameters
    ----------
    loops : tuple of Loop
        Outermost first.
    cuts : tuple of tuple of (int or None)
        ``cuts[level][tensor]``: how many of ``loops`` (counting spatial ones) stand before the cut,
        None where the level does not hold the tensor. Temporal loops before the cut are outside the
        tile, those behind it inside.
    axes : tuple of frozenset of int
        ``axes[level]``: array axes along which the level has instances of its own; spatial loops on
        them are outside the cut, the others inside, wherever they stand.
    """

    loops: tuple[Loop, ...]
    cuts: tuple[tuple[int | None, int | None, int | None], ...]
    axes: tuple[frozenset[int], ...]

    @property
    def levels(self) -> int:
        """Number of memory levels (the MACs are not one of them)."""
        return len(self.cuts)

    @property
    def array_axes(self) -> frozenset[int]:
        """Array axes along which MACs stand side by side."""
        return frozenset().union(
            *self.axes, (loop.axis for loop in self.loops if loop.axis is not None)
        )

    def holders(self, tensor: Tensor) -> tuple[int, ...]:
        """Levels that hold the tensor, outermost first."""
        return tuple(level for level, cut in enumerate(self.cuts) if cut[tensor] is not None)


@dataclass(frozen=True, slots=True)
class Rules:
    """How data moves between the levels of one machine."""

    multicast: bool = True
    """one read of a level serves every instance below it that needs the element in that step"""
    reduce: bool = True
    """partial sums that leave several instances in one step are added on the way"""
    refetch: frozenset[int] = frozenset()
    """levels that reload the whole ``input`` tile when it changes (``halo: refetch``)"""
    count_padding: bool = False
    """padding is moved like data (``padding: count``)"""
    latch: frozenset[Tensor] = frozenset()
    """operands that the MAC keeps while they stay the same"""
    bursts: bool = False
    """the outermost level moves whole bursts: count how long its tiles lie in a row"""


class LevelLoops(BaseModel):
    """The loops that stand between the tiles of one level and those of the next inner one."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")

    level: str
    """name of the level"""
    temporal: tuple[tuple[DimWord, TripCount], ...] = ()
    """(dim, trip count), outermost first"""
    spatial: tuple[tuple[DimWord, TripCount, str], ...] = ()
    """(dim, trip count, array axis), behind the temporal loops: the fan-out to the next level"""
    cuts: dict[TensorWord, Annotated[int, Field(ge=0, le=64)]] = Field(default_factory=dict)
    """uneven mapping: the tile of a tensor sits this many temporal loops further in"""
    bypass: tuple[TensorWord, ...] = ()
    """tensors that the level could hold and that pass it by"""


class MappingFile(BaseModel):
    """Mappings by layer name, as ``run --mapping`` reads them; ``mapping`` of ``run -o x.json``."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")

    note: str = ""
    """anything worth saying"""
    layers: Annotated[dict[str, tuple[LevelLoops, ...]], Field(min_length=1)]
    """levels outermost first; a level without loops may be left out. Layers that are not named are
    mapped by the search"""


Segment = tuple[tuple[Dim, ...], tuple[tuple[Dim, int], ...]]
"""Of one level: dims of its temporal loops, and (dim, axis) of its spatial loops."""


def build_nest(
    axes: Sequence[frozenset[int]],
    holds: Sequence[frozenset[Tensor]],
    segments: Sequence[Segment],
    shifts: Sequence[Mapping[Tensor, int]] | None = None,
) -> Nest:
    """Put the loops of all levels in a row and cut them in front of each level's own.

    Parameters
    ----------
    axes, holds : sequence, one entry a level
        Array axes with instances of their own, and tensors held.
    segments : sequence of Segment, one a level
    shifts : sequence of mapping, optional
        Temporal loops by which a tensor's cut stands further in.

    Returns
    -------
    Nest
    """
    loops: list[Loop] = []
    starts = []
    for temporal, spatial in segments:
        starts.append(len(loops))
        loops += [Loop(dim) for dim in temporal]
        loops += [Loop(dim, axis) for dim, axis in spatial]
    cuts = []
    for level, start in enumerate(starts):
        row: list[int | None] = []
        for tensor in Tensor:
            shift = shifts[level].get(tensor, 0) if shifts else 0
            row.append(_behind(loops, start, shift) if tensor in holds[level] else None)
        cuts.append((row[0], row[1], row[2]))
    return Nest(tuple(loops), tuple(cuts), tuple(axes))


def _behind(loops: Sequence[Loop], start: int, shift: int) -> int:
    """Position behind the ``shift``-th temporal loop from ``start`` on."""
    position = start
    while shift and position < len(loops):
        shift -= loops[position].axis is None
        position += 1
    return position


def nominal_tile(
    shape: Shape, nest: Nest, trips: Sequence[int], level: int, tensor: Tensor
) -> list[int]:
    """Extents of the full tile of a tensor at a level, in the order of :class:`Dim`."""
    cut = nest.cuts[level][tensor]
    size = list(shape.dims)
    for position, (loop, trip) in enumerate(zip(nest.loops, trips, strict=True)):
        outside = position < (cut or 0) if loop.axis is None else loop.axis in nest.axes[level]
        if outside:
            size[loop.dim] = -(-size[loop.dim] // trip)
    return size


def uncovered(shape: Shape, nest: Nest, trips: Sequence[int]) -> dict[Dim, int]:
    """Dims whose loops do not reach single elements, and the size of the pieces that are left."""
    size = list(shape.dims)
    for loop, trip in zip(nest.loops, trips, strict=True):
        size[loop.dim] = -(-size[loop.dim] // trip)
    return {dim: size[dim] for dim in Dim if size[dim] > 1}


def tile_extents(shape: Shape, size: Sequence[int], tensor: Tensor) -> list[str]:
    """Extents of a tile as people write them, such as ``K64`` and ``R3``; 1s are left out.

    Parameters
    ----------
    shape : Shape
        Of the layer.
    size : sequence of 8 int
        Of the tile by dim, see :func:`nominal_tile`.
    tensor : Tensor
        An input has the height and width of the image, with what windows share.

    Examples
    --------
    >>> conv = Shape((1, 1, 64, 3, 32, 32, 3, 3), pad=(1, 1), size=(32, 32))
    >>> tile_extents(conv, (1, 1, 8, 3, 4, 32, 3, 3), Tensor.INPUT)
    ['C3', 'H6', 'W32']
    """
    extents = {dim.name: size[dim] for dim in Dim if dim in RELEVANT[tensor]}
    if tensor is Tensor.INPUT:
        for side, (out, tap, name) in enumerate(((Dim.P, Dim.R, "H"), (Dim.Q, Dim.S, "W"))):
            reach = (size[out] - 1) * shape.stride[side] + (size[tap] - 1) * shape.dilation[side]
            del extents[out.name], extents[tap.name]
            extents[name] = min(reach + 1, shape.size[side])
    return [f"{name}{each}" for name, each in extents.items() if each > 1] or ["1"]


# -- on a given machine --------------------------------------------------------------------------


def machine_rules(hardware: Hardware, *, has_weights: bool) -> Rules:
    """How data moves on a machine; the vector unit keeps the sum or maximum it is working on."""
    return Rules(
        multicast=hardware.array.multicast,
        reduce=hardware.array.reduce,
        refetch=frozenset(i for i, level in enumerate(hardware.levels) if level.halo == "refetch"),
        count_padding=hardware.padding == "count",
        latch=hardware.mac.latched if has_weights else frozenset({Tensor.OUTPUT}),
        bursts=hardware.levels[0].burst_bits is not None,
    )


def held_tensors(hardware: Hardware, *, has_weights: bool) -> tuple[frozenset[Tensor], ...]:
    """Tensors that each level holds; layers without weights stop at the outermost on-chip level.

    The vector unit that does them stands next to that level.
    """
    if has_weights:
        return tuple(level.tensors for level in hardware.levels)
    holds = [frozenset[Tensor]() for _ in hardware.levels]
    for tensor in (Tensor.INPUT, Tensor.OUTPUT):
        for level in hardware.holders(tensor)[:2]:
            holds[level] |= {tensor}
    return tuple(holds)


def write_nest(
    hardware: Hardware, nest: Nest, trips: Sequence[int], *, has_weights: bool = True
) -> tuple[LevelLoops, ...]:
    """A nest as a mapping file states it, without loops that run once.

    Parameters
    ----------
    hardware : Hardware
    nest : Nest
    trips : sequence of int

    Returns
    -------
    tuple of LevelLoops, one a level
        :func:`read_loops` turns it into a nest that moves the same elements.
    """
    cuts = _shared_cuts(nest, trips)
    could = held_tensors(hardware, has_weights=has_weights)
    starts = _starts(nest, cuts)
    rows = []
    for level, (start, stop) in enumerate(pairwise(starts)):
        own = [(nest.loops[i], trips[i]) for i in range(start, stop) if trips[i] > 1]
        shifts = {}
        for tensor in Tensor:
            cut = cuts[level][tensor]
            if cut is not None and level:
                between = range(start, cut)
                shift = sum(nest.loops[i].axis is None and trips[i] > 1 for i in between)
                if shift:
                    shifts[tensor.label] = shift
        names = hardware.axis_names
        row = {
            "level": hardware.levels[level].name,
            "temporal": tuple((loop.dim.name, n) for loop, n in own if loop.axis is None),
            "spatial": tuple(
                (loop.dim.name, n, names[loop.axis]) for loop, n in own if loop.axis is not None
            ),
            "cuts": shifts,
            "bypass": tuple(t.label for t in sorted(could[level]) if cuts[level][t] is None),
        }
        rows.append(LevelLoops.model_validate(row))
    return tuple(rows)


def _starts(nest: Nest, cuts: Sequence[Sequence[int | None]]) -> list[int]:
    """Where each level's own loops begin: at the outermost cut of it and all levels inside it.

    Also no later than the spatial loops that fan out behind the level.
    """
    starts = [len(nest.loops)] * (nest.levels + 1)
    for level in reversed(range(nest.levels)):
        own = [cut for cut in cuts[level] if cut is not None]
        fans = [
            position
            for position, loop in enumerate(nest.loops)
            if loop.axis is not None and _fans_behind(nest, loop.axis) == level
        ]
        starts[level] = min([starts[level + 1], *own, *fans])
    starts[0] = 0
    return starts


def _fans_behind(nest: Nest, axis: int) -> int:
    """The level whose instances share what is spread along an axis."""
    own = [level for level, axes in enumerate(nest.axes) if axis in axes]
    return (min(own) if own else nest.levels) - 1


def _fans_last(nest: Nest, trips: Sequence[int], cuts: Sequence[Sequence[int | None]]) -> bool:
    """Whether in each level's own loops the spatial ones stand behind the temporal ones."""
    for start, stop in pairwise(_starts(nest, cuts)):
        kinds = [nest.loops[i].axis is not None for i in range(start, stop) if trips[i] > 1]
        if kinds != sorted(kinds):
            return False
    return True


def _shared_cuts(nest: Nest, trips: Sequence[int]) -> list[list[int | None]]:
    """Cuts moved inward past loops that leave the tile alone, where those of a level then meet.

    Not past sums that are still open: an outer level must know that what it gets is complete.
    """
    cuts: list[list[int | None]] = [list(row) for row in nest.cuts]
    floor = 0
    for level in range(1, nest.levels):
        reach: dict[Tensor, tuple[int, int]] = {}
        for tensor in Tensor:
            cut = cuts[level][tensor]
            if cut is not None:
                later = [cuts[i][tensor] for i in nest.holders(tensor) if i > level]
                reach[tensor] = (cut, _idle_until(nest, trips, tensor, cut, later))
        if not reach:
            continue
        low, high = max(a for a, _ in reach.values()), min(b for _, b in reach.values())
        if max(low, floor) > high:
            continue
        moved = list(cuts)
        moved[level] = [None if cut is None else max(low, floor) for cut in cuts[level]]
        if _fans_last(nest, trips, moved):
            cuts, floor = moved, max(low, floor)
    return cuts


def _idle_until(
    nest: Nest, trips: Sequence[int], tensor: Tensor, cut: int, later: Sequence[int | None]
) -> int:
    """How far inward a cut can move without a change to its tile."""
    if tensor is Tensor.OUTPUT:
        return cut
    stop = min([each for each in later if each is not None], default=len(nest.loops))
    position = cut
    while position < stop:
        loop = nest.loops[position]
        if trips[position] > 1 and (loop.axis is not None or loop.dim in RELEVANT[tensor]):
            break
        position += 1
    return position


def write_line(loops: Iterable[LevelLoops]) -> str:
    """A mapping in one line: ``DRAM K4 | SRAM C2 P7 [K64@cols]``.

    Examples
    --------
    >>> write_line([LevelLoops(level="DRAM", temporal=(("K", 4),), spatial=(("C", 8, "rows"),))])
    'DRAM K4 [C8@rows]'
    """
    rows = []
    for row in loops:
        words = [row.level, *(f"{dim}{trip}" for dim, trip in row.temporal)]
        words += [f"[{dim}{trip}@{axis}]" for dim, trip, axis in row.spatial]
        words += [f"{tensor}+{shift}" for tensor, shift in row.cuts.items()]
        words += [f"-{tensor}" for tensor in row.bypass]
        rows.append(" ".join(words))
    return " | ".join(rows)


Where = Callable[[tuple[str | int, ...]], str]
"""From a place in one layer's list of levels to ``file:line:column``."""


def read_loops(
    hardware: Hardware,
    shape: Shape,
    loops: Sequence[LevelLoops],
    *,
    has_weights: bool,
    where: Where,
) -> tuple[Nest, tuple[int, ...]]:
    """Turn one layer of a mapping file into a nest with trip counts.

    Raises
    ------
    InputErrors
        Unknown or misplaced levels and axes, axes that are too short, loops that do not cover a
        dim; everything at once.
    """
    reader = _Reader(hardware, where)
    for i, row in enumerate(loops):
        reader.level(i, row)
    reader.stop()
    reader.sizes(shape, loops)
    reader.stop()
    holds = [
        held - reader.bypass[level]
        for level, held in enumerate(held_tensors(hardware, has_weights=has_weights))
    ]
    nest = build_nest(reader.axes, holds, reader.segments, reader.shifts)
    trips = tuple(trip for row in reader.trips for trip in row)
    for dim, size in uncovered(shape, nest, trips).items():
        reader.problem(
            (),
            f"the loops over {dim.name} do not cover its extent {shape[dim]}: pieces of {size} are "
            f"left, multiply the trip counts by {size}",
        )
    for tensor in Tensor:
        cuts = [nest.cuts[level][tensor] or 0 for level in nest.holders(tensor)]
        if cuts != sorted(cuts):
            message = f"the cuts of {tensor.label} must not go outward again at an inner level"
            reader.problem((), message)
    reader.stop()
    return nest, trips


class _Reader:
    """The levels of one layer of a mapping file, checked one after the other."""

    def __init__(self, hardware: Hardware, where: Where) -> None:
        self.hardware, self.where = hardware, where
        self.names = [level.name for level in hardware.levels]
        self.axes = tuple(hardware.level_axes(level) for level in range(len(self.names)))
        self.segments: list[Segment] = [((), ()) for _ in self.names]
        self.shifts: list[dict[Tensor, int]] = [{} for _ in self.names]
        self.bypass: list[frozenset[Tensor]] = [frozenset() for _ in self.names]
        self.trips: list[list[int]] = [[] for _ in self.names]
        self.used = dict.fromkeys(hardware.axis_names, 1)
        self.previous = -1
        self.problems: list[str] = []

    def problem(self, loc: tuple[str | int, ...], message: str) -> None:
        self.problems.append(f"{self.where(loc)}: {message}")

    def stop(self) -> None:
        if self.problems:
            raise InputErrors(self.problems)

    def level(self, i: int, row: LevelLoops) -> None:
        if row.level not in self.names:
            hint = did_you_mean(row.level, self.names)
            known = ", ".join(self.names)
            message = f"no level named '{row.level}'.{hint} Levels of {self.hardware.name}: {known}"
            self.problem((i, "level"), message)
            return
        level = self.names.index(row.level)
        if level <= self.previous:
            self.problem((i, "level"), f"'{row.level}' must stand once, outermost level first")
            return
        self.previous = level
        fan = [
            (Dim[dim], self.hardware.axis_index(axis))
            for j, (dim, trip, axis) in enumerate(row.spatial)
            if self.axis((i, "spatial", j), level, trip, axis)
        ]
        self.segments[level] = (tuple(Dim[dim] for dim, _ in row.temporal), tuple(fan))
        self.bypass[level] = frozenset(Tensor[word.upper()] for word in row.bypass)
        if level == 0 and row.bypass:
            self.problem((i, "bypass"), "nothing can pass the outermost level by")
        self.shifts[level] = {Tensor[word.upper()]: shift for word, shift in row.cuts.items()}
        self.trips[level] = [trip for _, trip in row.temporal]
        self.trips[level] += [trip for _, trip, _ in row.spatial]

    def sizes(self, shape: Shape, loops: Sequence[LevelLoops]) -> None:
        """No loop needs more trips than there are elements left of its dim."""
        left = dict(zip(Dim.__members__, shape.dims, strict=True))
        for i, row in enumerate(loops):
            fan = [(dim, trip) for dim, trip, _ in row.spatial]
            for kind, own in (("temporal", list(row.temporal)), ("spatial", fan)):
                for j, (dim, trip) in enumerate(own):
                    if trip > left[dim]:
                        message = f"{trip} trips over {dim}, of which {left[dim]} are left here"
                        self.problem((i, kind, j), message)
                    left[dim] = -(-left[dim] // trip)

    def axis(self, loc: tuple[str | int, ...], level: int, trip: int, axis: str) -> bool:
        """Whether a spatial loop may stand here; says why not."""
        if axis not in self.used:
            hint = did_you_mean(axis, self.used)
            self.problem(loc, f"no array axis named '{axis}'.{hint} Axes: {', '.join(self.used)}")
            return False
        self.used[axis] *= trip
        length, index = self.hardware.array.axes[axis], self.hardware.axis_index(axis)
        if self.used[axis] > length:
            self.problem(loc, f"{self.used[axis]} instances along '{axis}', which has {length}")
        own = [at for at in range(len(self.names)) if index in self.axes[at]]
        place = (min(own) if own else len(self.names)) - 1
        if level != place:
            self.problem(loc, f"'{axis}' fans out behind {self.names[place]}: put this loop there")
        return True
