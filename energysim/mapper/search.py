"""Exhaustive search over a layer's mapspace (:mod:`energysim.mapper.space`).

All tile sizes of one loop order form a grid. Every count is a sum of products of small vectors
(:class:`energysim.model.counts.Terms`), so a linear cost of the whole grid is one matrix product.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import lru_cache
from functools import reduce as fold

import numpy as np
import numpy.typing as npt

from energysim.axes import Dim, Shape, Tensor
from energysim.errors import DoesNotFitError
from energysim.hardware import Hardware
from energysim.mapper.dataflows import Dataflow
from energysim.mapper.space import KERNEL, Template, dram_orders, make_template
from energysim.mapping import Nest, Rules, Segment
from energysim.model.capacity import Residency, element_bits
from energysim.model.counts import (
    GROUPS,
    SIDE,
    Expansion,
    Key,
    Terms,
    expand_orders,
    own_loops,
)
from energysim.model.energy import Tariff, tariff
from energysim.model.latency import latency
from energysim.model.sparse import WeightStore
from energysim.model.tables import Ints
from energysim.units import BITS_PER_BYTE

Floats = npt.NDArray[np.float64]

GRID_LIMIT = 2_000_000
"""Mappings evaluated at once; bounds the memory that costs take to some tens of MB."""

TIE = 1e-9
"""Costs closer than this, relative, count as equal; the first mapping in grid order is taken."""


class Objective(StrEnum):
    """What a search minimises."""

    ENERGY = "energy"
    """energy of the layer [pJ]"""
    DRAM = "dram"
    """bits to and from DRAM"""
    LATENCY = "latency"
    """cycles"""
    EDP = "edp"
    """energy times delay"""


@dataclass(frozen=True, slots=True)
class Found:
    """The best mapping of a layer's mapspace."""

    segments: tuple[Segment, ...]
    """loops of every level"""
    nest: Nest
    trips: tuple[int, ...]
    mapspace: int
    """mappings in the mapspace: tile sizes times loop orders that can differ in cost"""
    feasible: int
    """of them, those that fit the outermost on-chip memory; all of these are evaluated"""


@dataclass(frozen=True, slots=True)
class Problem:
    """One layer to be mapped on one machine."""

    hardware: Hardware
    shape: Shape
    rules: Rules
    dataflow: Dataflow
    store: WeightStore | None
    residency: Residency
    objective: Objective
    static_pj_per_cycle: float = 0.0
    compute_pj: float = 0.0
    """energy of the arithmetic, the same for every mapping [pJ]"""


def search(problem: Problem) -> Found:
    """Evaluate every mapping of the mapspace and return the best.

    Parameters
    ----------
    problem : Problem

    Returns
    -------
    Found

    Raises
    ------
    DoesNotFitError
        If not even the smallest tile fits; names the level and the bytes missing.
    """
    shape = problem.shape
    template = make_template(
        problem.hardware, shape, problem.dataflow, has_weights=problem.store is not None
    )
    dims = tuple(dim for dim in Dim if shape[dim] > 1 and dim not in KERNEL)
    orders = dram_orders(dims)
    expansions = _expansions(template, orders, problem.rules)
    fits, smallest_missing = _fits(
        problem, template, expansions[orders[0]], template.nest(orders[0])
    )
    feasible = int(np.count_nonzero(fits))
    if not feasible:
        name = problem.hardware.levels[template.buffer].name
        raise DoesNotFitError(
            f"no tile fits level {name}: {-(-smallest_missing // BITS_PER_BYTE)} bytes are missing "
            f"for the smallest one"
        )
    grids = [_Grid(problem, template.nest(order), expansions[order], fits) for order in orders]
    limit = min(grid.low for grid in grids) * (1 + TIE)
    if problem.objective is not Objective.ENERGY:
        # of the mappings that are equally good, the one of least energy
        cheapest = replace(problem, objective=Objective.ENERGY)
        grids = [
            _Grid(cheapest, grid.nest, grid.expansion, grid.within(limit))
            for grid in grids
            if grid.low <= limit
        ]
        limit = min(grid.low for grid in grids) * (1 + TIE)
    grid = next(grid for grid in grids if grid.low <= limit)
    choices = _choices(template, grid.nest)
    flat = int(np.flatnonzero(grid.within(limit))[0])
    index = np.unravel_index(flat, [rows.shape[0] for rows in choices])
    trips = _trips(grid.nest, choices, [int(i) for i in index])
    order = tuple(loop.dim for loop in grid.nest.loops[: len(dims)])
    segments = tuple(template.segments(order))
    return Found(segments, grid.nest, trips, fits.size * len(orders), feasible * len(orders))


class _Grid:
    """All tile sizes of one loop order, and the cost of the best of them."""

    def __init__(
        self, problem: Problem, nest: Nest, expansion: Expansion, fits: npt.NDArray[np.bool_]
    ) -> None:
        self.problem, self.nest, self.expansion, self.fits = problem, nest, expansion, fits
        self.low = min(float(costs.min()) for costs in self.costs())

    def costs(self) -> Iterator[Floats]:
        """Cost of every mapping, slab by slab, infinite where it is not to be had."""
        problem = self.problem
        prices = tariff(problem.hardware, self.nest, problem.store, problem.residency.tensors)
        sizes = tuple(factor.shape[1] for factor in self.expansion.steps.factors)
        columns = sizes[4] * sizes[5]
        for rows in _slabs(sizes):
            costs = _grid_cost(problem, self.nest, self.expansion, prices, rows)
            costs = np.where(self.fits.reshape(-1, columns)[rows], costs, np.inf)
            yield costs.reshape(-1)

    def within(self, limit: float) -> npt.NDArray[np.bool_]:
        """Which mappings cost no more than a limit."""
        return np.concatenate([costs <= limit for costs in self.costs()])


def _trips(nest: Nest, choices: list[Ints], index: list[int]) -> tuple[int, ...]:
    taken = [0] * len(GROUPS)
    trips = []
    for loop in nest.loops:
        group = next(i for i, dims in enumerate(GROUPS) if loop.dim in dims)
        trips.append(int(choices[group][index[group], taken[group]]))
        taken[group] += 1
    return tuple(trips)


# Two caches: a network repeats shapes, and a sparse network and its dense base share all of them.
@lru_cache(maxsize=512)
def _choices(template: Template, nest: Nest) -> list[Ints]:
    return template.choices(nest)


@lru_cache(maxsize=32)
def _expansions(
    template: Template, orders: tuple[tuple[Dim, ...], ...], rules: Rules
) -> dict[tuple[Dim, ...], Expansion]:
    """Counts of the whole grid for every order; all orders share the choices of the first."""
    base = orders[0]
    nest = template.nest(base)
    rest = tuple(range(len(base), len(nest.loops)))
    ranks = [(*(order.index(dim) for dim in base), *rest) for order in orders]
    expansions = expand_orders(template.shape, nest, _choices(template, nest), rules, ranks=ranks)
    return dict(zip(orders, expansions, strict=True))


# -- grids ---------------------------------------------------------------------------------------


def _linear(expansion: Expansion, prices: Iterable[tuple[Key, float]]) -> Terms:
    """``sum of price * count`` as one sum of products (the first factor becomes float)."""
    scaled = [
        (expansion.values[key].factors, price)
        for key, price in prices
        if price and key in expansion.values and expansion.values[key].factors[0].shape[0]
    ]
    if not scaled:
        empty = tuple(np.zeros((0, factor.shape[1])) for factor in expansion.steps.factors)
        return Terms(empty)  # type: ignore[arg-type]
    # Products that differ in the first factor only are one product; counts share many of them.
    merged: dict[bytes, int] = {}
    rows: list[Floats] = []
    rest: list[list[Ints]] = [[] for _ in GROUPS[1:]]
    for factors, price in scaled:
        for term in zip(*factors, strict=True):
            key = b"".join(factor.tobytes() for factor in term[1:])
            if key in merged:
                rows[merged[key]] = rows[merged[key]] + term[0] * price
                continue
            merged[key] = len(rows)
            rows.append(term[0] * price)
            for column, factor in zip(rest, term[1:], strict=True):
                column.append(factor)
    return Terms((np.stack(rows), *(np.stack(column) for column in rest)))


def _slabs(shape: tuple[int, ...]) -> Iterator[slice]:
    rows, columns = int(np.prod(shape[:4])), int(np.prod(shape[4:]))
    step = max(1, GRID_LIMIT // columns)
    for start in range(0, rows, step):
        yield slice(start, min(start + step, rows))


def _grid_cost(
    problem: Problem, nest: Nest, expansion: Expansion, prices: Tariff, rows: slice
) -> Floats:
    if problem.objective is Objective.DRAM:
        level_0 = ((key, bits) for key, bits in prices.bits.items() if key[0] == 0)
        return _linear(expansion, level_0).grid(rows)
    timed = problem.objective is not Objective.ENERGY or problem.static_pj_per_cycle
    cycles: Floats | float = 0.0
    if timed:
        cycles = latency(
            problem.hardware,
            nest,
            prices,
            steps=expansion.steps.grid(rows),
            value=_reader(expansion, rows),
            used=[terms.grid(rows) for terms in expansion.used],
            vector=problem.store is None,
        ).total
        if problem.objective is Objective.LATENCY:
            return np.asarray(cycles)
    energy = _linear(expansion, prices.element_pj().items()).grid(rows) + prices.once_pj()
    energy = energy + (problem.compute_pj + problem.static_pj_per_cycle * cycles)
    return energy * cycles if problem.objective is Objective.EDP else energy


def _reader(expansion: Expansion, rows: slice) -> Callable[[Key], Floats | None]:
    def value(key: Key) -> Floats | None:
        return expansion.values[key].grid(rows) if key in expansion.values else None

    return value


# -- what fits the searched level --------------------------------------------------------------


def _fits(
    problem: Problem, template: Template, expansion: Expansion, nest: Nest
) -> tuple[npt.NDArray[np.bool_], int]:
    """Which grid points fit the searched level (flat), and what the smallest misses [bit]."""
    sizes = tuple(factor.shape[1] for factor in expansion.steps.factors)
    flat, columns = int(np.prod(sizes)), sizes[4] * sizes[5]
    buffer = template.buffer
    capacity = problem.hardware.levels[buffer].capacity_bits()
    fits = np.ones((flat // columns, columns), dtype=np.bool_)
    least = 0
    if capacity is None:
        return fits.reshape(-1), least
    least = 2**62
    reserved = problem.residency.reserved_bits if buffer == 1 else 0
    for rows in _slabs(sizes):
        needed = {
            tensor: _needed_bits(problem, nest, template, expansion, tensor, rows)
            for tensor in Tensor
            if nest.cuts[buffer][tensor] is not None
        }
        if isinstance(capacity, dict):
            each = (bits - capacity[tensor] for tensor, bits in needed.items())
            missing = fold(np.maximum, each)
        else:
            missing = fold(np.add, needed.values()) - (capacity - reserved)
        fits[rows] = missing <= 0
        least = min(least, int(np.min(missing)))
    return fits.reshape(-1), least


def _needed_bits(
    problem: Problem,
    nest: Nest,
    template: Template,
    expansion: Expansion,
    tensor: Tensor,
    rows: slice,
) -> Floats:
    """Room that a tensor takes in the searched level, as ``capacity.occupancy`` counts it."""
    hardware, shape, buffer = problem.hardware, problem.shape, template.buffer
    memory = hardware.levels[buffer]
    width: Floats | int = element_bits(hardware, tensor, final=True)
    if tensor is Tensor.OUTPUT:
        final = expansion.values[buffer, tensor, "final"].grid(rows)
        partial = element_bits(hardware, tensor, final=False)
        width = partial + (width - partial) * final
    tile = expansion.values[buffer, tensor, "tile"].grid(rows)
    if tensor in problem.residency.tensors and nest.holders(tensor)[1] == buffer:
        whole = 0 if tensor is Tensor.WEIGHT else shape.elements(tensor)
        return whole * width + 0 * tile
    constant = expansion.values[buffer, tensor, "constant"].grid(rows)
    copies = 2 - constant if memory.double_buffered else 1
    if tensor is Tensor.WEIGHT and memory.compressed and problem.store is not None:
        packed = _packed_tiles(problem.store, template, nest)
        return packed[rows, None] * copies
    return tile * width * copies


def _packed_tiles(store: WeightStore, template: Template, nest: Nest) -> Floats:
    """Room of the compressed weight tile for every row of the grid [bit]."""
    shape, choices = template.shape, _choices(template, nest)
    cut = nest.cuts[template.buffer][Tensor.WEIGHT] or 0
    tiles = []
    for group in range(1, SIDE):
        piece = np.full(choices[group].shape[0], shape[GROUPS[group][0]], dtype=np.int64)
        for column, position in enumerate(own_loops(nest, group)):
            axis = nest.loops[position].axis
            if position < cut if axis is None else axis in nest.axes[template.buffer]:
                piece = -(-piece // choices[group][:, column])
        tiles.append(piece)
    kernel = shape[Dim.R] * shape[Dim.S]
    bits = store.tile_bits(shape, tiles[1], tiles[2], kernel)
    packed = np.multiply.outer(tiles[0], bits).astype(np.float64)
    return np.broadcast_to(packed, (choices[0].shape[0], *packed.shape)).reshape(-1)
