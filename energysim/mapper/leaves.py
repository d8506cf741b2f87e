"""Complete mappings: counted exactly, checked against every level, offered to the incumbent."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from energysim.axes import Dim, Shape, Tensor
from energysim.mapper import bound
from energysim.mapper.goal import Measure
from energysim.mapper.incumbent import KEPT, Incumbent
from energysim.mapper.layout import Layout, delays, kept_until, lay_out, orders
from energysim.mapper.problem import Mapped
from energysim.mapper.space import (
    Arrangement,
    Path,
    Stage,
    spread_over,
)
from energysim.mapper.tree import Tree
from energysim.mapping import Nest
from energysim.model.capacity import element_bits
from energysim.model.counts import Counts, Expansion, choices_of, count, expand_orders
from energysim.model.sparse import WeightStore
from energysim.model.tables import Ints

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]


def evaluate(tree: Tree, path: Path, places: Ints) -> Floats:
    """Count complete mappings of one order of cuts exactly and offer them to the incumbent.

    Returns
    -------
    float array, shape (B,)
        The best cost over the orders inside the blocks, and over where instances split up;
        infinite where a memory is too small.
    """
    here = tree.here
    kept = kept_until(path, places, here)
    if np.any(kept != kept[:1]):
        kinds, kind = np.unique(kept, axis=0, return_inverse=True)
        costs = np.empty(places.shape[0])
        for each in range(len(kinds)):
            rows = np.flatnonzero(kind.reshape(-1) == each)
            costs[rows] = evaluate(tree, path, places[rows])
        return costs
    best = np.full(places.shape[0], np.inf)
    met = set[Nest]()
    for far in delays(here, path, places):
        layout = lay_out(here, path, places, far)
        if layout.nest not in met:
            met.add(layout.nest)
            as_many = _as_many(here, path, places, layout, far)
            best = np.minimum(best, _evaluate(tree, path, places, layout, as_many))
    return best


def _as_many(
    here: Arrangement, path: Path, places: Ints, layout: Layout, far: frozenset[int]
) -> Bools:
    """Where no fewer instances have work than if they had split up at once: bounds rely on that."""
    good = np.ones(places.shape[0], dtype=np.bool_)
    for i in far:
        for dim in spread_over(here, path[i].tensor, path[i].level):
            axis = next(axis for each, axis, _ in here.fan if each is dim)
            working = bound.working(here, dim, path[i].level)
            good &= working[layout.opened[axis][:, dim]] >= working[places[:, i, dim]]
    return good


def _evaluate(tree: Tree, path: Path, places: Ints, layout: Layout, allowed: Bools) -> Floats:
    goal, here, problem = tree.goal, tree.here, tree.goal.problem
    choices, index = choices_of(layout.nest, layout.trips)
    ranks = orders(layout)
    expansions = expand_orders(
        here.shape,
        layout.nest,
        choices,
        problem.rules,
        ranks=ranks,
        ordered=frozenset({Tensor.WEIGHT, Tensor.INPUT}),
    )
    first: tuple[Expansion, Counts] | None = None
    fits = allowed
    best = np.full(places.shape[0], np.inf)
    for rank, expansion in zip(ranks, expansions, strict=True):
        counts = expansion.at(index, first)
        if first is None:
            first = (expansion, counts)
            fits = allowed & _fits(tree, layout, counts, places, path)
            goal.pruned_capacity += int(np.count_nonzero(~fits & allowed))
            if not np.any(fits):
                break
        figures = tree.model.measure(layout.nest, counts)
        goal.evaluated += int(np.count_nonzero(fits))
        values = np.where(fits, goal.cost(*figures), np.inf)
        best = np.minimum(best, values)
        for row in np.argsort(values, kind="stable")[:KEPT].tolist():
            if np.isfinite(values[row]):
                _offer(goal, float(values[row]), layout, rank, row, figures, counts)
    return best


def _offer(
    goal: Incumbent,
    value: float,
    layout: Layout,
    rank: Sequence[int],
    row: int,
    figures: Sequence[Floats],
    counts: Counts,
) -> None:
    worst = goal.found[-1][0] if len(goal.found) == KEPT else np.inf
    if value >= worst:
        return
    order = sorted(range(len(rank)), key=rank.__getitem__)
    loops = tuple(layout.nest.loops[i] for i in order)
    nest = Nest(loops, layout.nest.cuts, layout.nest.axes)
    trips = tuple(int(layout.trips[row, i]) for i in order)
    energy, cycles, dram = (float(figure[row]) for figure in figures)
    goal.offer(value, Mapped(nest, trips, Measure(energy, cycles, dram), counts.one(row)))


def _fits(tree: Tree, layout: Layout, counts: Counts, places: Ints, path: Path) -> Bools:
    """Which mappings fit every level and keep to what the dataflow asks of complete ones."""
    fits: Bools = np.all(_excess(tree, layout, counts) <= 0, axis=1)
    if tree.flow.stationary is not None:
        fits &= _stays(tree, counts)
    if tree.flow.order:
        fits &= _in_order(tree, path, places)
    return fits


def excess(tree: Tree, path: Path, places: Ints) -> Floats:
    """Room that mappings lack in each level, shape (B, levels) [bit]; negative where some is left.

    As ``capacity.occupancy`` counts it.
    """
    layout = lay_out(tree.here, path, places)
    counts = count(tree.here.shape, layout.nest, layout.trips, tree.goal.problem.rules)
    return _excess(tree, layout, counts)


def _excess(tree: Tree, layout: Layout, counts: Counts) -> Floats:
    here, problem = tree.here, tree.goal.problem
    found = np.full((counts.steps.size, here.macs), -np.inf)
    for level in range(1, here.macs):
        needed = {
            tensor: _needed(tree, layout, counts, level, tensor) for tensor in here.holds[level]
        }
        capacity = problem.hardware.levels[level].capacity_bits()
        if isinstance(capacity, dict):
            for tensor, bits in needed.items():
                found[:, level] = np.maximum(found[:, level], bits - capacity[tensor])
        elif capacity is not None:
            reserved = problem.residency.reserved_bits if level == 1 else 0
            total = sum(needed.values(), start=np.zeros(counts.steps.size))
            found[:, level] = total - (capacity - reserved)
    return found


def _needed(tree: Tree, layout: Layout, counts: Counts, level: int, tensor: Tensor) -> Floats:
    """Room that a tensor takes in a level, for each mapping of a batch [bit]."""
    here, problem = tree.here, tree.goal.problem
    memory = problem.hardware.levels[level]
    final = counts(level, tensor, "final") > 0
    widths = (element_bits(problem.hardware, tensor, final=each) for each in (True, False))
    width = np.where(final, *widths).astype(np.float64)
    if tensor in here.resident and here.cuts[tensor][:1] == (level,):
        whole = 0 if tensor is Tensor.WEIGHT else here.shape.elements(tensor)
        return whole * width
    bits: Floats = counts(level, tensor, "tile") * width
    if tensor is Tensor.WEIGHT and memory.compressed and problem.store is not None:
        bits = _packed(here.shape, layout, level, problem.store)
    if memory.double_buffered:
        bits = bits * (2.0 - counts(level, tensor, "constant"))
    return bits


def _stays(tree: Tree, counts: Counts) -> Bools:
    """Whether the stationary tensor goes from its outermost to its innermost memory just once.

    Loops that the outermost tile does not see may stand between the two cuts all the same.
    """
    tensor = tree.flow.stationary
    assert tensor is not None
    real = [level for level in tree.here.cuts[tensor] if level < tree.here.macs]
    good = np.ones(counts.steps.shape, dtype=np.bool_)
    for outer, inner in pairwise(real):
        if tensor is Tensor.OUTPUT:
            good &= counts(outer, tensor, "update") == counts(outer, tensor, "drain")
        else:
            good &= counts(outer, tensor, "read") == counts(outer, tensor, "fill")
        del inner
    return good


def _packed(shape: Shape, layout: Layout, level: int, store: WeightStore) -> Floats:
    """Room of the compressed weight tile of each mapping [bit]."""
    nest = layout.nest
    cut = nest.cuts[level][Tensor.WEIGHT] or 0
    size = np.tile(np.array(shape.dims), (layout.trips.shape[0], 1))
    for position, loop in enumerate(nest.loops):
        outside = position < cut if loop.axis is None else loop.axis in nest.axes[level]
        if outside:
            size[:, loop.dim] = -(-size[:, loop.dim] // layout.trips[:, position])
    found = np.empty(size.shape[0])
    for row, tile in enumerate(size.tolist()):
        pair = np.array([tile[Dim.K]]), np.array([tile[Dim.C]])
        bits = store.tile_bits(*pair, tile[Dim.R] * tile[Dim.S])
        found[row] = tile[Dim.G] * int(bits[0, 0])
    return found


def _in_order(tree: Tree, path: Path, places: Ints) -> Bools:
    """Whether loops inside the outermost on-chip memories stand in the order asked for."""
    here, order = tree.here, tree.flow.order
    good = np.ones(places.shape[0], dtype=np.bool_)
    reached = np.full(places.shape[0], -1)
    last = np.array([ladder.trips.size - 1 for ladder in here.ladders])
    before = np.zeros((places.shape[0], len(Dim)), dtype=np.int64)
    stage: Stage = (0, 0, 0)
    ends = np.broadcast_to(last, (places.shape[0], 1, len(Dim)))
    tiles = np.concatenate([places, ends], axis=1).transpose(1, 0, 2)
    for i, tile in enumerate(tiles):
        on_chip = all(done or not cuts for done, cuts in zip(stage, here.cuts, strict=True))
        if on_chip:
            newest = reached.copy()
            for rank, dim in enumerate(order):
                loop = tile[:, dim] != before[:, dim]
                good &= ~loop | (rank >= reached)
                newest = np.where(loop, np.maximum(newest, rank), newest)
            reached = newest
        before = tile
        if i < len(path):
            stage = path[i].after
    return good
