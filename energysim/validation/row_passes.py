"""Row stationary as nn_dataflow counts it: whole rows move, and arrays work in passes.

A pass is one sweep of the array over whole rows of the maps: a processing element convolves one
row of a filter with one row of an input. Three dims are blocked, input channels, filters and
images, in three places: outside the buffer, between the buffer and the array, inside a processing
element. Counted in rows, such a mapping is a loop nest like any other: a layer whose elements are
rows.

References
----------
M. Gao et al., "TETRIS", ASPLOS 2017; Y.-H. Chen, J. Emer, V. Sze, ISCA 2016, section V.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import combinations, product
from math import ceil

import numpy as np
import numpy.typing as npt

from energysim.axes import RELEVANT, Dim, Shape, Tensor
from energysim.hardware import Hardware
from energysim.mapping import Loop, Nest, Rules, build_nest
from energysim.model.counts import count
from energysim.model.tables import Ints

DRAM, BUFFER, INPUT_BUS, OUTPUT_BUS, REGISTERS = range(5)
"""Levels of a nest with buses."""

EVERYWHERE = frozenset({BUFFER, INPUT_BUS, REGISTERS})
TILES_ONLY = frozenset({BUFFER})
"""Where a tile of the input is loaded whole: in passes over rows, and word by word."""

BLOCKED = (Dim.N, Dim.K, Dim.C)
"""Dims that are cut into blocks."""

Blocks = Mapping[Dim, Ints]
"""For each blocked dim trip counts outside the buffer, outside the array, and inside a processing
element, shape (B, 3)."""


@dataclass(frozen=True, slots=True)
class RowLayer:
    """A layer without groups; padding is part of its input."""

    images: int
    filters: int
    channels: int
    side: int
    """rows and columns of the output"""
    kernel: int
    stride: int

    @property
    def macs(self) -> int:
        """Multiply-accumulates."""
        return self.images * self.filters * self.channels * (self.side * self.kernel) ** 2

    @property
    def reach(self) -> int:
        """Rows and columns from the first window's first to the last window's last."""
        return (self.side - 1) * self.stride + self.kernel

    @property
    def row_words(self) -> dict[Tensor, int]:
        """Words in a row of each tensor."""
        return {Tensor.WEIGHT: self.kernel, Tensor.INPUT: self.reach, Tensor.OUTPUT: self.side}

    @property
    def words(self) -> Shape:
        """The layer as it is, a word for an element."""
        return Shape(
            (self.images, 1, self.filters, self.channels, *(self.side,) * 2, *(self.kernel,) * 2),
            stride=(self.stride, self.stride),
            size=(self.reach, self.reach),
        )

    @property
    def rows(self) -> Shape:
        """The same layer with a row for an element."""
        return Shape(
            (self.images, 1, self.filters, self.channels, self.side, 1, self.kernel, 1),
            stride=(self.stride, 1),
            size=(self.reach, 1),
        )


@dataclass(frozen=True, slots=True)
class Placement:
    """How the rows of one output map lie on the array, and what else there is room for."""

    folds: int
    """parts into which the map is cut, as if they were images"""
    stacked: int
    """pieces of a part one above the other"""
    width: int
    """columns taken by a piece"""
    sets: int
    """sets of all this one above the other: other channels or other filters"""
    beside: int
    """sets side by side: other filters"""


def place(layer: RowLayer, rows: int, cols: int) -> Placement:
    """Lay a set of kernel rows by output rows on the array; one that is too wide is folded.

    What of a fold fits above the other does not have to wait.
    """
    folds, beside = ceil(layer.side / cols), max(1, cols // layer.side)
    sets = rows // layer.kernel
    stacked = min(sets, folds)
    folds = ceil(folds / stacked)
    return Placement(folds, stacked, ceil(layer.side / folds / stacked), sets // stacked, beside)


def folded(layer: RowLayer, placement: Placement) -> RowLayer:
    """The layer with every fold an image: rows that two of them share are fetched for each."""
    if placement.folds == 1:
        return layer
    # Only the rows are fewer: a row keeps its length, see ``row_words`` of the whole layer.
    return replace(
        layer, images=layer.images * placement.folds, side=ceil(layer.side / placement.folds)
    )


@dataclass(frozen=True, slots=True)
class Pass:
    """A kind of pass: how many channels and filters at once, which loop is innermost, and where."""

    placement: Placement
    channel_sets: int
    inner: tuple[Dim, Dim]
    """innermost loop outside the buffer and outside the array"""
    past_buffer: frozenset[Tensor]
    """tensors that pass the buffer by"""

    @property
    def filter_sets(self) -> int:
        """Sets that work on other filters."""
        return self.placement.sets // self.channel_sets * self.placement.beside

    def trips(self, layer: RowLayer) -> dict[Dim, int]:
        """Passes over each blocked dim."""
        return {
            Dim.N: layer.images,
            Dim.K: ceil(layer.filters / self.filter_sets),
            Dim.C: ceil(layer.channels / self.channel_sets),
        }

    def told_apart(self, blocks: Blocks) -> npt.NDArray[np.bool_]:
        """For which blocks this order is not another one's: its innermost loops must run."""
        apart = np.ones(len(blocks[Dim.N]), dtype=np.bool_)
        for at, inner in enumerate(self.inner):
            runs = {dim: own[:, at] > 1 for dim, own in blocks.items()}
            none = ~np.any(list(runs.values()), axis=0)
            apart &= runs[inner] | (none & (inner is BLOCKED[0]))
        return apart

    def nest(self, layer: RowLayer, blocks: Blocks) -> tuple[Nest, Ints]:
        """The loops of the passes, and trip counts of a batch of them."""
        orders = [_with_last(dim) for dim in (*self.inner, Dim.C)]
        placement = self.placement
        spatial = (
            (Dim.R, layer.kernel),
            (Dim.P, placement.stacked),
            (Dim.C, self.channel_sets),
            (Dim.K, self.filter_sets),
            (Dim.P, placement.width),
        )
        fan = tuple((dim, axis) for axis, (dim, _) in enumerate(spatial))
        held = frozenset(Tensor)
        nest = build_nest(
            (frozenset(), frozenset(), frozenset(range(len(fan)))),
            (held, held - self.past_buffer, held),
            ((orders[0], ()), (orders[1], fan), (orders[2], ())),
        )
        size = len(blocks[Dim.N])
        columns = [blocks[dim][:, 0] for dim in orders[0]]
        columns += [blocks[dim][:, 1] for dim in orders[1]]
        columns += [np.full(size, trip) for _, trip in spatial]
        columns += [blocks[dim][:, 2] for dim in orders[2]]
        return nest, np.stack(columns, axis=1)


def _with_last(inner: Dim) -> tuple[Dim, ...]:
    return (*(dim for dim in BLOCKED if dim is not inner), inner)


def passes(placement: Placement, *, bypass: bool) -> Iterator[Pass]:
    """Every kind of pass that an array allows.

    Parameters
    ----------
    placement : Placement
    bypass : bool
        Whether tensors may pass the buffer by.
    """
    sizes = range(len(Tensor) + 1 if bypass else 1)
    chosen = [frozenset(some) for size in sizes for some in combinations(Tensor, size)]
    shares = [share for share in range(1, placement.sets + 1) if placement.sets % share == 0]
    for share, outer, inner, past in product(shares, BLOCKED, BLOCKED, chosen):
        yield Pass(placement, share, (outer, inner), past)


# -- counting --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Words:
    """Words moved, shape (B,) for each tensor."""

    dram: dict[Tensor, Ints]
    """read from and written to DRAM"""
    buffer: dict[Tensor, Ints]
    """read from the buffer, and outputs written to it, by the side of the array"""
    array: dict[Tensor, Ints]
    """carried over the array's network: to and from each processing element, but to sets that
    take the same words, or add to the same sums, once"""
    room: Ints
    """largest tiles in the buffer together [word]"""

    def cost(self, hardware: Hardware) -> Ints:
        """What they cost [the unit of the hardware file]."""
        bits = hardware.bits.input
        prices = (
            (self.dram, hardware.levels[0].read_pj_per_bit),
            (self.buffer, hardware.levels[1].read_pj_per_bit),
            (self.array, hardware.array.hop_pj_per_bit),
        )
        total = np.zeros_like(self.room)
        for words, price in prices:
            for moved in words.values():
                total = total + round(price * bits) * moved
        return total


def words_of(layer: RowLayer, rows: RowLayer, nest: Nest, trips: Ints) -> Words:
    """Count the words of a batch of mappings, a row for an element.

    Parameters
    ----------
    layer : RowLayer
        Says how long rows are.
    rows : RowLayer
        The layer that the nest is of: as :func:`folded` gives it, or the same.
    nest : Nest
        DRAM, buffer and registers.
    trips : int array, shape (B, loops)

    Notes
    -----
    A tile of the input is loaded whole when it changes.
    """
    return words_moved(rows.rows, layer.row_words, nest, trips, EVERYWHERE)


def single_words_of(
    layer: RowLayer, rows: RowLayer, nest: Nest, trips: Ints, *, slides_first: bool
) -> Words:
    """Count the same mappings word by word.

    A processing element then slides along its row: it holds a window of the inputs and a partial
    sum of each output, as the tool reserves room for, and what does not fit moves.

    Parameters
    ----------
    slides_first : bool
        Whether the loop along the row stands outside of those between the buffer and the array, or
        inside of them.
    """
    fan = next(i for i, loop in enumerate(nest.loops) if loop.axis is not None)
    at = len(BLOCKED) if slides_first else fan
    loops = (*nest.loops[:at], Loop(Dim.Q), *nest.loops[at:], Loop(Dim.S))
    inner = [None if cut is None else cut + 1 for cut in nest.cuts[-1]]
    slid = Nest(loops, (*nest.cuts[:-1], (inner[0], inner[1], inner[2])), nest.axes)
    along = np.insert(trips, at, layer.side, axis=1)
    along = np.insert(along, along.shape[1], layer.kernel, axis=1)
    whole = layer.words
    shape = Shape(
        (*rows.rows.dims[:5], *whole.dims[5:]),
        stride=whole.stride,
        size=(rows.reach, layer.reach),
    )
    return words_moved(shape, dict.fromkeys(Tensor, 1), slid, along, TILES_ONLY)


def words_moved(
    shape: Shape,
    length: Mapping[Tensor, int],
    nest: Nest,
    trips: Ints,
    refetch: frozenset[int],
) -> Words:
    """Count words of a batch of mappings.

    Parameters
    ----------
    shape : Shape
        What the nest is of.
    length : mapping
        Words in an element of each tensor.
    nest : Nest
        DRAM, buffer and registers.
    trips : int array, shape (B, loops)
    refetch : set of int
        Levels that load a tile of the input whole when it changes.

    Notes
    -----
    A partial sum that comes back goes to every processing element of the column that adds to it.
    """
    with_buses = add_buses(nest)
    counts = count(shape, with_buses, trips, Rules(refetch=refetch))
    dram, buffer, room = {}, {}, np.zeros_like(counts.steps)
    for tensor in Tensor:
        dram[tensor], buffer[tensor] = (
            length[tensor] * (counts(level, tensor, "read") + counts(level, tensor, "update"))
            for level in (DRAM, BUFFER)
        )
        room = room + length[tensor] * counts(BUFFER, tensor, "tile")
    column = [i for i, loop in enumerate(nest.loops) if loop.axis is not None and loop.dim is Dim.R]
    back = trips[:, column].prod(axis=1) * counts(OUTPUT_BUS, Tensor.OUTPUT, "fill")
    array = {
        Tensor.WEIGHT: counts(REGISTERS, Tensor.WEIGHT, "fill"),
        Tensor.INPUT: counts(INPUT_BUS, Tensor.INPUT, "fill"),
        Tensor.OUTPUT: counts(OUTPUT_BUS, Tensor.OUTPUT, "drain") + back,
    }
    return Words(dram, buffer, {t: length[t] * moved for t, moved in array.items()}, room)


def add_buses(nest: Nest) -> Nest:
    """Put levels between the buffer and the registers at which sets that share words are one.

    They hold what the registers hold: what fills them is what the array's network carries.
    """
    ids = {
        i: axis
        for axis, i in enumerate(i for i, at in enumerate(nest.loops) if at.axis is not None)
    }
    loops = tuple(Loop(loop.dim, ids.get(i)) for i, loop in enumerate(nest.loops))
    every = frozenset(ids.values())
    apart = {
        tensor: frozenset(ids[i] for i in ids if loops[i].dim in RELEVANT[tensor] | {Dim.R})
        for tensor in (Tensor.INPUT, Tensor.OUTPUT)
    }
    _, into, out = nest.cuts[-1]
    return Nest(
        loops,
        (*nest.cuts[:-1], (None, into, None), (None, None, out), nest.cuts[-1]),
        (frozenset(), frozenset(), apart[Tensor.INPUT], apart[Tensor.OUTPUT], every),
    )


# -- the best of all -------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Best:
    """The cheapest passes of a layer."""

    cost: int
    dram: dict[Tensor, int]
    """words of each tensor"""


def best_passes(layer: RowLayer, hardware: Hardware, *, bypass: bool) -> Best:
    """Try all blocks whose trip counts divide, in all kinds of passes that fit.

    Parameters
    ----------
    layer : RowLayer
    hardware : Hardware
        Buffer and register file hold all three tensors; two array axes.
    bypass : bool
        Whether tensors may pass the buffer by.

    Raises
    ------
    ValueError
        If nothing fits.
    """
    placement = place(layer, *hardware.axis_sizes)
    rows = folded(layer, placement)
    found: list[Best] = []
    for kind in passes(placement, bypass=bypass):
        blocks = _blocks(rows, kind, room_words(hardware, 2))
        if not len(blocks[Dim.N]):
            continue
        words = words_of(layer, rows, *kind.nest(rows, blocks))
        cost = np.where(
            words.room <= room_words(hardware, 1), words.cost(hardware), np.iinfo(np.int64).max
        )
        at = int(np.argmin(cost))
        found.append(Best(int(cost[at]), {t: int(moved[at]) for t, moved in words.dram.items()}))
    if not found:
        raise ValueError(f"no passes of {layer} fit")
    return min(found, key=lambda best: best.cost)


def room_words(hardware: Hardware, level: int) -> int:
    """Words in one instance of a level."""
    bits = hardware.levels[level].capacity_bits()
    assert isinstance(bits, int)  # what best_passes asks for
    return bits // hardware.bits.input


def _blocks(rows: RowLayer, kind: Pass, registers: int) -> Blocks:
    """All factors of the numbers of passes of which the innermost fit a register file.

    A processing element keeps a row of each filter it works on, of each input as many words, and of
    each output one.
    """
    trips = kind.trips(rows)
    ways = {dim: np.array(list(_three_factors(trips[dim]))) for dim in BLOCKED}
    index = np.indices([len(ways[dim]) for dim in BLOCKED]).reshape(len(BLOCKED), -1)
    blocks = {dim: ways[dim][index[i]] for i, dim in enumerate(BLOCKED)}
    images, filters, channels = (blocks[dim][:, 2] for dim in BLOCKED)
    taken = rows.kernel * channels * (filters + images) + filters * images
    kept = (taken <= registers) & kind.told_apart(blocks)
    return {dim: own[kept] for dim, own in blocks.items()}


def _three_factors(number: int) -> Iterator[tuple[int, int, int]]:
    divisors = [i for i in range(1, number + 1) if number % i == 0]
    for first in divisors:
        for second in divisors:
            if number // first % second == 0:
                yield first, second, number // first // second
