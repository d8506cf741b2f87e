"""The best mapping of a layer's whole mapspace, by branch and bound.

A partial mapping is a row of cuts from the outermost in. Its *bound* is what the cuts taken cost at
least (:mod:`energysim.mapper.bound`) plus the least that any cuts to come can cost. The second part
is known for every tile beforehand: from the innermost cut outward,

    h(stage, tile) = min over next steps, min over tiles that fit into this one of
                         cost of the step + h(next stage, new tile),

a running minimum along the step's dims. It never exceeds what a completion costs, because tiles
that no whole trip count reaches, and levels that are too full, only leave fewer choices.

Partial mappings are continued in the order of their bounds. Complete ones are counted exactly. The
search ends when no bound is below the best cost: then that cost is optimal.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import count as counter
from itertools import pairwise, permutations, product
from time import monotonic

import numpy as np
import numpy.typing as npt

from energysim.axes import REDUCTION, RELEVANT, Dim, Shape, Tensor
from energysim.errors import DoesNotFitError
from energysim.hardware import Hardware
from energysim.mapper import bound
from energysim.mapper.dataflows import Dataflow
from energysim.mapper.goal import Certificate, Measure, Objective, Options
from energysim.mapper.space import (
    STILL,
    TAPS,
    Arrangement,
    Path,
    Stage,
    Step,
    arrangements,
    size_of,
    steps,
)
from energysim.mapping import Loop, Nest, Rules
from energysim.model.capacity import Residency, element_bits
from energysim.model.counts import Counts, Expansion, Key, choices_of, expand_orders
from energysim.model.energy import tariff
from energysim.model.latency import latency, overlaps
from energysim.model.sparse import WeightStore
from energysim.model.tables import Ints
from energysim.units import BITS_PER_BYTE

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

TIE = 1e-9
"""Costs closer than this, relative, count as equal."""

CHUNK = 256
"""Complete mappings counted at once."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One layer to be mapped on one machine."""

    hardware: Hardware
    shape: Shape
    rules: Rules
    dataflow: Dataflow
    """as :func:`energysim.mapper.dataflows.of_machine` gives it"""
    store: WeightStore | None
    residency: Residency
    objective: Objective
    static_pj_per_cycle: float = 0.0
    compute_pj: float = 0.0
    """energy of the arithmetic, the same for every mapping [pJ]"""
    options: Options = field(default_factory=Options)


@dataclass(frozen=True, slots=True)
class Mapped:
    """A complete mapping and its cost."""

    nest: Nest
    trips: tuple[int, ...]
    measure: Measure


@dataclass(frozen=True, slots=True)
class Found:
    """The best mapping of a layer's mapspace."""

    best: Mapped
    others: tuple[Mapped, ...]
    """runners-up among the mappings evaluated, each with another cost, best first"""
    certificate: Certificate


# -- costs that add up -----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Part:
    """A cost that is a sum over cuts: energy, DRAM traffic, or cycles that something takes."""

    prices: Mapping[Key, float]
    start: float
    """whatever the mapping"""
    first_tile: Mapping[Tensor, float] = field(default_factory=dict)
    """per element of the first (of ``output``: the last) tile of the outermost on-chip level"""
    fold: Mapping[tuple[Tensor, int], float] = field(default_factory=dict)
    """per tile of a cut, one after the other"""


class _Model:
    """Costs of an arrangement: their parts for bounds, and exact figures of complete mappings."""

    def __init__(self, problem: Problem, here: Arrangement) -> None:
        self.problem, self.here = problem, here
        self.tariff = tariff(
            problem.hardware, self._structure(), problem.store, problem.residency.tensors
        )
        self.prices = self.tariff.element_pj()
        self.start_pj = self.tariff.once_pj() + problem.compute_pj
        self.energy = _Part(self.prices, self.start_pj)
        self.dram = _Part(
            {key: bits for key, bits in self.tariff.bits.items() if key[0] == 0},
            float(sum(bits for key, bits in self.tariff.once_bits.items() if key[0] == 0)),
        )
        self.static = problem.static_pj_per_cycle

    def _structure(self) -> Nest:
        """A nest without loops: which level holds what."""
        here = self.here
        rows = [[0 if tensor in held else None for tensor in Tensor] for held in here.holds]
        return Nest((), tuple((row[0], row[1], row[2]) for row in rows), here.axes[: here.macs])

    def cycles(self) -> list[_Part]:
        """Times of which the latency is the longest, each with all that cannot overlap."""
        here, hardware, rules = self.here, self.problem.hardware, self.problem.rules
        nest = self._structure()
        del rules
        added: dict[Key, float] = {}
        start = 0.0
        together: list[tuple[dict[Key, float], float]] = [({}, self._steps())]
        for level, memory in enumerate(hardware.levels):
            width = memory.bandwidth_bits_per_cycle
            if width is None:
                continue
            for axis in here.axes[level]:
                width *= hardware.axis_sizes[axis]
            own = {key: bits / width for key, bits in self.tariff.bits.items() if key[0] == level}
            once = sum(b for key, b in self.tariff.once_bits.items() if key[0] == level) / width
            if overlaps(hardware, nest, level):
                together.append((own, once))
            else:
                added |= own
                start += once
        first = self._first_tiles(nest)
        fold = self._folds()
        parts = []
        for i, (own, once) in enumerate(together):
            parts.append(_Part(own | added, once + start, first, {} if i else fold))
        return parts

    def _steps(self) -> float:
        """At least so many array steps, or cycles of the vector unit."""
        steps = 1
        for dim, ladder in zip(Dim, self.here.ladders, strict=True):
            steps *= -(-self.here.shape[dim] // ladder.fans[-1])
        if self.problem.store is not None:
            return float(steps)
        vector = self.problem.hardware.vector
        return float(-(-steps // vector.lanes)) if vector and vector.lanes else 0.0

    def _first_tiles(self, nest: Nest) -> dict[Tensor, float]:
        hardware = self.problem.hardware
        width = hardware.levels[0].bandwidth_bits_per_cycle
        if width is None or not overlaps(hardware, nest, 0):
            return {}
        found = {}
        for tensor in Tensor:
            names = ("update", "update_complete") if tensor is Tensor.OUTPUT else ("read",)
            bits = sum(self.tariff.bits.get((0, tensor, name), 0.0) for name in names)
            if nest.holders(tensor)[1:]:
                found[tensor] = max(bits, 0.0) / width
        return found

    def _folds(self) -> dict[tuple[Tensor, int], float]:
        hardware, here = self.problem.hardware, self.here
        if not hardware.array.systolic or self.problem.store is None:
            return {}
        length = sum(used - 1 for used in bound.busy(here))
        every = frozenset(range(len(hardware.axis_sizes)))
        for tensor in Tensor:
            real = [level for level in here.cuts[tensor] if level < here.macs]
            if real and here.axes[real[-1]] == every:
                return {(tensor, real[-1]): float(length)}
        return {}

    # -- bounds ----------------------------------------------------------------------------------

    def cost(self, part: _Part, tensor: Tensor, level: int) -> Floats:
        """Bound of what a cut adds to a part, for every tile."""
        here, rules = self.here, self.problem.rules
        cost = bound.cut_cost(here, rules, tensor, level, part.prices)
        real = [each for each in here.cuts[tensor] if each < here.macs]
        if part.first_tile.get(tensor) and real[:1] == [level]:
            if tensor is Tensor.OUTPUT:
                tile = bound.last_tile(here)
            else:
                tile = bound.tile_elements(here, rules, tensor, level, first=True)
            cost = cost + tile * part.first_tile[tensor]
        if (tensor, level) in part.fold:
            cost = cost + bound.folds(here, level) * part.fold[tensor, level]
        return cost

    def at_macs(self, part: _Part) -> float:
        """Bound of what the MACs read and update, with nothing kept."""
        total = 0.0
        for tensor in Tensor:
            held = any(tensor in level for level in self.here.holds)
            if held and tensor not in self.here.latch:
                macs = self.here.macs
                cost = bound.cut_cost(self.here, self.problem.rules, tensor, macs, part.prices)
                total += float(cost.reshape(-1)[-1])
        return total

    def room(self, tensor: Tensor, level: int) -> tuple[Floats, Floats]:
        """Bits that a tile takes at least, and what it takes more if sums are not complete."""
        here, problem = self.here, self.problem
        memory = problem.hardware.levels[level]
        more = np.zeros((1,) * len(Dim))
        width = element_bits(problem.hardware, tensor, final=True)
        if tensor in here.resident and here.cuts[tensor][:1] == (level,):
            whole = 0 if tensor is Tensor.WEIGHT else here.shape.elements(tensor)
            bits = np.full((1,) * len(Dim), float(whole))
            copies: Floats = np.ones((1,) * len(Dim))
        else:
            copies = np.ones((1,) * len(Dim))
            if memory.double_buffered:
                copies = 2.0 - bound.constant(here, tensor).astype(np.float64)
            if tensor is Tensor.WEIGHT and memory.compressed and problem.store is not None:
                return bound.packed_bits(here, problem.store, level) * copies, more
            bits = bound.tile_elements(here, problem.rules, tensor, level)
        if tensor is Tensor.OUTPUT:
            partial = element_bits(problem.hardware, tensor, final=False)
            real = [each for each in here.cuts[tensor] if each < here.macs]
            if level == real[-1]:
                return bits * copies * partial, more
            return bits * copies * min(width, partial), bits * copies * max(partial - width, 0)
        return bits * copies * width, more

    # -- exact figures ---------------------------------------------------------------------------

    def measure(self, nest: Nest, counts: Counts) -> tuple[Floats, Floats, Floats]:
        """Energy [pJ], latency [cycle] and DRAM traffic [bit] of a batch."""
        problem = self.problem
        energy = np.full(counts.steps.shape, self.start_pj)
        for key, price in self.prices.items():
            if price and key in counts.values:
                energy = energy + counts.values[key] * price
        cycles = latency(
            problem.hardware,
            nest,
            self.tariff,
            steps=counts.steps,
            value=counts.values.get,
            used=counts.used,
            vector=problem.store is None,
        ).total
        moved = np.full(counts.steps.shape, self.dram.start)
        for key, bits in self.dram.prices.items():
            if key in counts.values:
                moved = moved + counts.values[key] * bits
        return energy + self.static * cycles, cycles, moved


# -- from ladders to loops -------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Layout:
    """The nest that all tile sizes of one order of cuts share."""

    nest: Nest
    trips: Ints
    blocks: tuple[tuple[int, ...], ...]
    """positions of the temporal loops of each block"""


def _lay_out(here: Arrangement, path: Path, places: Ints) -> _Layout:
    """Write tiles as loops.

    Parameters
    ----------
    here : Arrangement
    path : Path
    places : int array, shape (B, steps, 8)
        The tile of each step, as places in the ladders.
    """
    batch = places.shape[0]
    loops: list[Loop] = []
    columns: list[Ints] = []
    blocks = []
    at: dict[tuple[int, Tensor], int] = {}
    waiting = {axis: here.place(axis) for axis in dict.fromkeys(axis for _, axis, _ in here.fan)}
    before = np.zeros((batch, len(Dim)), dtype=np.int64)
    last = np.array([[ladder.trips.size - 1 for ladder in here.ladders]])

    def block(dims: Sequence[Dim], after: Ints) -> None:
        positions = []
        for dim in dims:
            if np.any(after[:, dim] != before[:, dim]):
                positions.append(len(loops))
                loops.append(Loop(dim))
                columns.append(_trips(here, dim, before[:, dim], after[:, dim]))
        blocks.append(tuple(positions))
        before[:] = after

    def fan_out(level: int) -> None:
        opened = [axis for axis, place in waiting.items() if place < level]
        for axis in sorted(opened, key=waiting.__getitem__):
            del waiting[axis]
            for dim, own, size in here.fan:
                if own == axis:
                    loops.append(Loop(dim, axis))
                    columns.append(_spread(here, dim, size, before[:, dim], loops, columns))

    order = (*STILL, Dim.K, Dim.P, Dim.Q, *TAPS)
    for step, new in zip(path, places.transpose(1, 0, 2), strict=True):
        block([dim for dim in order if dim in step.dims], new)
        if step.level < here.macs:
            fan_out(step.level)
            at[step.level, step.tensor] = len(loops)
    block(order, np.broadcast_to(last, before.shape))
    fan_out(here.macs + 1)
    nest = Nest(tuple(loops), _cuts(here, at), here.axes[: here.macs])
    trips = np.stack(columns, axis=1) if columns else np.empty((batch, 0), dtype=np.int64)
    return _Layout(nest, trips, tuple(blocks))


def _cuts(
    here: Arrangement, at: Mapping[tuple[int, Tensor], int]
) -> tuple[tuple[int | None, int | None, int | None], ...]:
    """Cuts of every level and tensor; those of the outermost level stand in front of all loops."""
    rows = [
        [at.get((level, tensor), 0) if tensor in held else None for tensor in Tensor]
        for level, held in enumerate(here.holds)
    ]
    return tuple((row[0], row[1], row[2]) for row in rows)


def _trips(here: Arrangement, dim: Dim, outer: Ints, inner: Ints) -> Ints:
    ladder = here.ladders[dim]
    known: dict[tuple[int, int], int] = {}
    pairs = list(zip(outer.tolist(), inner.tolist(), strict=True))
    for pair in pairs:
        if pair not in known:
            known[pair] = ladder.loop(*pair)
    return np.array([known[pair] for pair in pairs], dtype=np.int64)


def _spread(
    here: Arrangement, dim: Dim, size: int, at: Ints, loops: Sequence[Loop], columns: Sequence[Ints]
) -> Ints:
    """Instances that get work: the fewest that leave pieces as small as all of them would."""
    ladder = here.ladders[dim]
    left = -(-ladder.extent // ladder.trips[at])
    for loop, trips in zip(loops, columns, strict=False):
        if loop.dim is dim and loop.axis is not None:
            left = -(-left // trips)
    some = np.minimum(size, left)
    spread: Ints = -(-left // -(-left // some))
    return spread


def orders(layout: _Layout) -> list[tuple[int, ...]]:
    """Ranks of the loops for every order inside the blocks that can differ in cost.

    Where a loop stands in its block makes a difference to ``input`` only: ``weight`` and ``output``
    count the loops outside their cut, whatever their order (a tile that a block leaves as it is has
    a cut further out that is as good). Of an input tile something is found again when loop j
    advances only if neither j nor a loop inside it is over N, G or C. So these stand outermost in
    their block. The others are tried in every order, but taps stay inside of outputs: moving a
    kernel over a row finds all but its shift again, moving a row over the kernel nothing.

    Where instances have unequal shares, one that has no work in a step forgets its tile, and other
    orders may be a little better or worse: the mapspace has these.
    """
    loops = layout.nest.loops
    variants: list[list[tuple[int, ...]]] = []
    for positions in layout.blocks:
        still = [i for i in positions if loops[i].dim in STILL]
        moving = [i for i in positions if loops[i].dim in {Dim.K, Dim.P, Dim.Q}]
        taps = [i for i in positions if loops[i].dim in TAPS]
        if not {loops[i].dim for i in moving} & {Dim.P, Dim.Q}:
            tried = [tuple(moving)]
        else:
            tried = list(permutations(moving))
        tapped = list(permutations(taps))
        variants.append([(*still, *a, *b) for a in tried for b in tapped])
    found: dict[object, tuple[int, ...]] = {}
    for chosen in product(*variants):
        rank = list(range(len(loops)))
        for positions, order in zip(layout.blocks, chosen, strict=True):
            for place, position in zip(sorted(positions), order, strict=True):
                rank[position] = place
        found.setdefault(_seen_by_inputs(layout.nest, rank), tuple(rank))
    return list(found.values())


def _seen_by_inputs(nest: Nest, rank: Sequence[int]) -> object:
    """What of an order the counts of ``input`` depend on."""
    seen = []
    for level in nest.holders(Tensor.INPUT)[1:]:
        cut = nest.cuts[level][Tensor.INPUT] or 0
        outside = [i for i in range(cut) if nest.loops[i].axis is None]
        outside.sort(key=rank.__getitem__)
        last = max((n for n, i in enumerate(outside) if nest.loops[i].dim in STILL), default=-1)
        seen.append((frozenset(outside[: last + 1]), tuple(outside[last + 1 :])))
    return tuple(seen)


# -- branch and bound ------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Table:
    """Bounds of one part at one stage, over a window of places."""

    low: tuple[int, ...]
    values: Floats


@dataclass(slots=True)
class _Stream:
    """Partial mappings that continue the same one by the same step, best bound first."""

    tree: _Tree
    path: Path
    places: Ints
    """shape (B, steps, 8)"""
    costs: Floats
    """parts so far, shape (B, parts)"""
    bounds: Floats
    """parts with the least of what is to come, shape (B, parts)"""
    values: Floats
    """what the search minimises, from ``bounds``, shape (B,), ascending"""
    room: Floats
    """left in each level [bit], shape (B, levels)"""
    pending: Floats
    """what outputs would take more if they were not complete [bit], shape (B,)"""
    at: int = 0

    @property
    def stage(self) -> Stage:
        """Cuts taken."""
        return self.path[-1].after if self.path else (0, 0, 0)

    @property
    def complete(self) -> bool:
        """Whether all cuts are taken."""
        return not self.tree.following[self.stage]


class _Tree:
    """The mapspace of one arrangement with its bounds."""

    def __init__(self, goal: _Goal, model: _Model) -> None:
        self.goal, self.model, self.here = goal, model, model.here
        self.flow = goal.flow
        self.parts = goal.parts_of(model)
        self.macs = [part.start + model.at_macs(part) for part in self.parts]
        self.full = tuple(ladder.trips.size for ladder in self.here.ladders)
        self.cost: dict[tuple[Tensor, int], list[Floats]] = {}
        self.size: dict[tuple[Tensor, int], tuple[Floats, Floats]] = {}
        self.allowed: dict[tuple[Tensor, int], Bools] = {}
        for tensor in Tensor:
            for level in self.here.cuts[tensor]:
                self.cost[tensor, level] = [model.cost(p, tensor, level) for p in self.parts]
        self.plain = {
            level: [
                bound.cut_cost(self.here, goal.problem.rules, Tensor.INPUT, level, part.prices)
                for part in self.parts
            ]
            for level in self.here.cuts[Tensor.INPUT]
        }
        self.tapped = {
            level: [
                bound.cut_cost(
                    self.here, goal.problem.rules, Tensor.INPUT, level, part.prices, taps_last=True
                )
                for part in self.parts
            ]
            for level in self.here.cuts[Tensor.INPUT]
        }
        self.fresh: dict[int, bound.FreshChannels] = {}
        self._rooms()
        self.following: dict[Stage, list[Step]] = {}
        self.windows: dict[Stage, tuple[tuple[int, ...], tuple[int, ...]]] = {}
        self._windows()
        self.tables: dict[Stage, list[_Table]] = {}
        for stage in sorted(self.windows, key=sum, reverse=True):
            self.tables[stage] = self._bounds(stage)

    # -- room ------------------------------------------------------------------------------------

    def _rooms(self) -> None:
        """Room of every cut's tiles, and where a tile fits at all."""
        here, problem = self.here, self.goal.problem
        self.capacity = np.full(here.macs, np.inf)
        least = np.zeros(here.macs)
        for tensor, level in self.cost:
            if level == here.macs:
                self.allowed[tensor, level] = self._latched(tensor)
                continue
            self.size[tensor, level] = self.model.room(tensor, level)
            least[level] += float(self.size[tensor, level][0].min())
        for level in range(1, here.macs):
            capacity = problem.hardware.levels[level].capacity_bits()
            reserved = problem.residency.reserved_bits if level == 1 else 0
            if isinstance(capacity, int):
                self.capacity[level] = capacity - reserved
        for (tensor, level), (bits, _) in self.size.items():
            capacity = problem.hardware.levels[level].capacity_bits()
            if isinstance(capacity, dict):
                fits = bits <= capacity[tensor]
            else:
                others = least[level] - float(bits.min())
                fits = bits <= self.capacity[level] - others
            pinned = level == 1 and tensor in here.resident
            if tensor is Tensor.INPUT and not pinned:
                fits = fits & bound.window_rule(here, level)
            self.allowed[tensor, level] = fits

    def _latched(self, tensor: Tensor) -> Bools:
        """A MAC keeps one element."""
        final = {
            dim: np.arange(ladder.trips.size) == ladder.trips.size - 1
            for dim, ladder in zip(Dim, self.here.ladders, strict=True)
            if dim in RELEVANT[tensor]
        }
        return bound.outer(final) > 0

    # -- the least that is to come ---------------------------------------------------------------

    def _windows(self) -> None:
        """Places that a dim can have at each stage."""
        none = (0,) * len(Dim)
        self.windows[0, 0, 0] = (none, none)
        for level in range(sum(map(len, self.here.cuts)) + 1):
            for stage in [stage for stage in self.windows if sum(stage) == level]:
                self._open(stage)

    def _open(self, stage: Stage) -> None:
        low, high = self.windows[stage]
        self.following[stage] = steps(self.here, self.flow, stage)
        for step in self.following[stage]:
            new_low, new_high = list(low), list(high)
            for dim in step.dims:
                new_high[dim] = self.full[dim] - 1
            for at, least in enumerate(_lowest(self.allowed[step.tensor, step.level])):
                new_low[at] = max(new_low[at], least)
            if any(a > b for a, b in zip(new_low, new_high, strict=True)):
                continue
            if step.after in self.windows:
                old_low, old_high = self.windows[step.after]
                new_low = list(map(min, new_low, old_low))
                new_high = list(map(max, new_high, old_high))
            self.windows[step.after] = (tuple(new_low), tuple(new_high))

    def _bounds(self, stage: Stage) -> list[_Table]:
        low, high = self.windows[stage]
        shape = tuple(b - a + 1 for a, b in zip(low, high, strict=True))
        if not self.following[stage]:
            return [_Table(low, np.full((1,) * len(Dim), macs)) for macs in self.macs]
        tables = [np.full(shape, np.inf) for _ in self.parts]
        for step in self.following[stage]:
            if step.after not in self.tables:
                continue
            for part, (table, ahead) in enumerate(zip(tables, self._ahead(step), strict=True)):
                if self._has_windows(step):
                    self._lower_windows(table, low, shape, step, ahead, part)
                else:
                    self._lower(table, low, shape, step, ahead)
        return [_Table(low, table) for table in tables]

    def _ahead(self, step: Step) -> list[Floats]:
        """Cost of a step and of all that follows, over the window behind it."""
        low, high = self.windows[step.after]
        fits = _cut(self.allowed[step.tensor, step.level], low, high)
        costs = [_cut(cost, low, high) for cost in self.cost[step.tensor, step.level]]
        return [
            np.where(fits, cost + table.values, np.inf)
            for cost, table in zip(costs, self.tables[step.after], strict=True)
        ]

    def _has_windows(self, step: Step) -> bool:
        """Whether a step loads input tiles that may find something again."""
        if step.tensor is not Tensor.INPUT or step.level == self.here.macs:
            return False
        if step.level in self.goal.problem.rules.refetch or not set(STILL) & set(step.dims):
            return False
        return any(self.full[dim] > 1 for dim in (Dim.P, Dim.Q))

    def _lower_windows(
        self,
        table: Floats,
        low: tuple[int, ...],
        shape: tuple[int, ...],
        step: Step,
        ahead: Floats,
        part: int,
    ) -> None:
        """As ``_lower``, with what a block that brings new channels can't find again.

        Either the block cuts N, G or C and no taps, and pieces share rows only inside the tile it
        begins with; or it leaves N, G and C as they are; or it cuts taps.
        """
        level = step.level
        still = tuple(dim for dim in step.dims if dim in STILL)
        windows = tuple(dim for dim in step.dims if dim not in STILL)
        taps = tuple(dim for dim in windows if dim in TAPS)
        outputs = tuple(dim for dim in windows if dim not in TAPS)
        self._lower(table, low, shape, replace(step, dims=outputs), ahead)
        new_low, new_high = self.windows[step.after]
        plain = _cut(self.plain[level][part], new_low, new_high)
        tapped = ahead + (_cut(self.tapped[level][part], new_low, new_high) - plain)
        for dim in taps:
            if self.full[dim] > 1:
                self._lower(table, low, shape, step, tapped, strictly=(dim,))
        rules, here = self.goal.problem.rules, self.here
        fresh = bound.fresh_cost(here, rules, level, self.parts[part].prices)
        free = ahead - np.where(np.isfinite(ahead), plain, 0.0)
        for inside, cost in ((Dim.P, fresh.rows_inside), (Dim.Q, fresh.columns_inside)):
            # the tile before the block counts along the inner dim, so the minimum there comes first
            other = Dim.Q if inside is Dim.P else Dim.P
            first = _inward(free, inside) if inside in windows else free
            # places outward of the window are places before the block as well
            self._lower(
                table,
                low,
                shape,
                replace(step, dims=tuple(d for d in (*still, other, inside) if d in step.dims)),
                first,
                strictly=still,
                extra=(cost, inside),
            )

    def _lower(
        self,
        table: Floats,
        low: tuple[int, ...],
        shape: tuple[int, ...],
        step: Step,
        ahead: Floats,
        *,
        strictly: tuple[Dim, ...] = (),
        extra: tuple[Floats, Dim] | None = None,
    ) -> None:
        """Take the least over all tiles inside each tile, where it is lower.

        ``strictly``: the block cuts at least one of these dims. ``extra``: a cost to add that reads
        one dim before the block, along which the minimum has been taken already.
        """
        new_low, new_high = self.windows[step.after]
        full = tuple(b - a + 1 for a, b in zip(new_low, new_high, strict=True))
        ahead = np.broadcast_to(ahead, full)
        done: tuple[Dim, ...] = ()
        if extra is not None:
            cost, inside = extra
            done = (inside,)
            places = [np.arange(low[d], low[d] + shape[d]) if d is inside else
                      np.arange(new_low[d], new_high[d] + 1) for d in Dim]  # fmt: skip
            if inside in step.dims:
                at = np.maximum(places[inside], new_low[inside]) - new_low[inside]
                ahead = np.take(ahead, at, axis=inside)
                new_low = (*new_low[:inside], low[inside], *new_low[inside + 1 :])
                new_high = (
                    *new_high[:inside],
                    low[inside] + shape[inside] - 1,
                    *new_high[inside + 1 :],
                )
                full = tuple(b - a + 1 for a, b in zip(new_low, new_high, strict=True))
            else:
                places[inside] = np.arange(new_low[inside], new_high[inside] + 1)
            ahead = ahead + _pick(cost, places)
        for dim in step.dims:
            if full[dim] > 1 and dim not in done:
                ahead = _inward(ahead, dim)
        if strictly and all(self.full[dim] == 1 for dim in strictly):
            return
        movable = [dim for dim in strictly if self.full[dim] > 1]
        strict = movable[0] if len(movable) == 1 else None
        index, here = [], []
        for dim in Dim:
            spots = low[dim] + np.arange(shape[dim])
            if dim in step.dims and dim not in done:
                spots = np.maximum(spots + (dim is strict), new_low[dim])
                within = spots <= new_high[dim]
            else:
                within = (spots >= new_low[dim]) & (spots <= new_high[dim])
            here.append(np.flatnonzero(within))
            index.append(spots[within] - new_low[dim])
        target = np.ix_(*here)
        table[target] = np.minimum(table[target], ahead[np.ix_(*index)])

    # -- branching -------------------------------------------------------------------------------

    def root(self) -> _Stream | None:
        """The mapping of which nothing is decided."""
        bounds = np.array([[table.values.reshape(-1)[0] for table in self.tables[0, 0, 0]]])
        values = self.goal.values(bounds)
        if not np.isfinite(values[0]):
            return None
        return _Stream(
            self,
            (),
            np.empty((1, 0, len(Dim)), dtype=np.int64),
            np.zeros((1, len(self.parts))),
            bounds,
            values,
            self.capacity[None].copy(),
            np.zeros(1),
        )

    def branch(self, stream: _Stream, row: int) -> Iterator[_Stream]:
        """Everything that can come next after one partial mapping."""
        for step in self.following[stream.stage]:
            if step.after in self.tables:
                child = self._children(stream, row, step)
                if child is not None:
                    yield child

    def _children(self, stream: _Stream, row: int, step: Step) -> _Stream | None:
        goal = self.goal
        now = stream.places[row, -1] if stream.path else np.zeros(len(Dim), dtype=np.int64)
        base = _fresh_since(stream.path, stream.places[row])
        low, high = self.windows[step.after]
        lists = []
        for dim, ladder in zip(Dim, self.here.ladders, strict=True):
            at = int(now[dim])
            choice = ladder.reach[at] if dim in step.dims else np.array([at])
            choice = choice[(choice >= low[dim]) & (choice <= high[dim])]
            if not choice.size:
                return None
            lists.append(choice)
        room, pending, taken = self._take(stream, row, step, lists)
        fits = (_pick(self.allowed[step.tensor, step.level], lists) > 0) & taken
        shape = tuple(choice.size for choice in lists)
        costs, bounds = [], []
        for i, table in enumerate(self.tables[step.after]):
            cost = stream.costs[row, i] + self._step_cost(
                i, step.tensor, step.level, base, now, lists
            )
            shifted = [choice - a for choice, a in zip(lists, table.low, strict=True)]
            costs.append(np.broadcast_to(cost, shape).reshape(-1))
            ahead = _pick(table.values, shifted)
            bounds.append(np.broadcast_to(cost + ahead, shape).reshape(-1))
        fitting = np.broadcast_to(fits, shape).reshape(-1)
        every = np.stack(bounds, axis=1)
        values = goal.values(every)
        fitting = fitting & np.isfinite(values)
        good = fitting & goal.promising(every, values)
        goal.pruned_capacity += int(values.size - np.count_nonzero(fitting))
        goal.pruned_bound += int(np.count_nonzero(fitting) - np.count_nonzero(good))
        chosen = np.flatnonzero(good)
        if not chosen.size:
            return None
        chosen = chosen[np.argsort(values[chosen], kind="stable")]
        grid = np.unravel_index(chosen, shape)
        tile = np.stack([choice[at] for choice, at in zip(lists, grid, strict=True)], axis=1)
        before = np.broadcast_to(stream.places[row], (chosen.size, *stream.places.shape[1:]))
        return _Stream(
            self,
            (*stream.path, step),
            np.concatenate([before, tile[:, None]], axis=1),
            np.stack([cost[chosen] for cost in costs], axis=1),
            every[chosen],
            values[chosen],
            np.stack([np.broadcast_to(r, shape).reshape(-1)[chosen] for r in room], axis=1),
            np.broadcast_to(pending, shape).reshape(-1)[chosen],
        )

    def _step_cost(
        self,
        part: int,
        tensor: Tensor,
        level: int,
        base: Ints | None,
        now: Ints,
        lists: Sequence[Ints],
    ) -> Floats:
        """Bound of a cut's cost, now that the tiles in front of it are known."""
        cost = _pick(self.cost[tensor, level][part], lists)
        here, rules = self.here, self.goal.problem.rules
        pinned = tensor in here.resident and level == 1
        if tensor is not Tensor.INPUT or level in rules.refetch or level == here.macs or pinned:
            return cost
        if level not in self.fresh:
            self.fresh[level] = bound.FreshChannels(here, rules, level)
        fresh = self.fresh[level]
        plain = _pick(self.plain[level][part], lists)
        prices = self.parts[part].prices
        new = np.zeros((1,) * len(Dim), dtype=np.bool_)
        for dim in STILL:
            new = new | (lists[dim] != now[dim]).reshape(_ALONG[dim])
        found = plain
        if base is not None:
            found = np.maximum(plain, fresh.cost(prices, *fresh.elements(base.tolist(), lists)))
        if np.any(new):
            inside = fresh.cost(prices, *fresh.elements(now.tolist(), lists))
            found = np.where(new, np.maximum(plain, inside), found)
        cut_taps = np.zeros((1,) * len(Dim), dtype=np.bool_)
        for dim in TAPS:
            cut_taps = cut_taps | (lists[dim] != now[dim]).reshape(_ALONG[dim])
        if np.any(cut_taps):
            tapped = _pick(self.tapped[level][part], lists)
            found = np.where(cut_taps, np.maximum(found, tapped), found)
        return cost - plain + found

    def _take(
        self, stream: _Stream, row: int, step: Step, lists: Sequence[Ints]
    ) -> tuple[list[Floats], Floats, Bools]:
        """Room left in each level, what outputs may still need, and whether all fits."""
        one = np.ones((1,) * len(Dim))
        room = [one * stream.room[row, level] for level in range(self.here.macs)]
        pending = one * stream.pending[row]
        if step.level == self.here.macs:
            return room, pending, one > 0
        if step.tensor is Tensor.OUTPUT:
            real = [level for level in self.here.cuts[Tensor.OUTPUT] if level < self.here.macs]
            place = real.index(step.level)
            if place:
                above = real[place - 1]
                room[above] = room[above] - np.where(self._partial(step.level, lists), pending, 0.0)
            pending = _pick(self.size[Tensor.OUTPUT, step.level][1], lists)
        size = _pick(self.size[step.tensor, step.level][0], lists)
        room[step.level] = room[step.level] - size
        fits = one > 0
        for left in room:
            fits = fits & (left >= 0)
        return room, pending, fits

    def _partial(self, level: int, lists: Sequence[Ints]) -> Bools:
        """Whether sums that leave a level are not complete."""
        whole = np.ones((1,) * len(Dim), dtype=np.bool_)
        for dim in REDUCTION:
            ladder = self.here.ladders[dim]
            seen = (
                level
                if not self.goal.problem.rules.reduce
                else self.here.outer(Tensor.OUTPUT, level)
            )
            shape = [1] * len(Dim)
            shape[dim] = lists[dim].size
            alone = (ladder.trips[lists[dim]] == 1) & (ladder.fans[seen] == 1)
            whole = whole & alone.reshape(shape)
        return ~whole


def _fresh_since(path: Path, places: Ints) -> Ints | None:
    """Tile before the last block with loops over N, G or C, if none over K stands further in.

    Inside that tile no input piece finds anything of what came before.
    """
    still = list(STILL)
    for i in reversed(range(len(path))):
        before = places[i - 1] if i else np.zeros(len(Dim), dtype=np.int64)
        cut = places[i] != before
        if cut[Dim.K]:
            return None
        if np.any(cut[still]):
            return before
    return None


def _inward(values: Floats, dim: Dim) -> Floats:
    """The least over a place and all further ones along a dim."""
    return np.flip(np.minimum.accumulate(np.flip(values, dim), axis=dim), dim)


def _lowest(allowed: Bools) -> list[int]:
    """Along each dim the first place at which anything fits."""
    found = []
    for dim in Dim:
        some = np.any(allowed, axis=tuple(other for other in Dim if other is not dim))
        at = np.flatnonzero(some)
        found.append(int(at[0]) if at.size and some.size > 1 else 0 if at.size else 2**30)
    return found


def _cut(values: npt.NDArray[np.generic], low: Sequence[int], high: Sequence[int]) -> Floats:
    """A window of a grid; axes of length 1 stay."""
    slices = tuple(
        slice(None) if size == 1 else slice(a, b + 1)
        for size, a, b in zip(values.shape, low, high, strict=True)
    )
    return values[slices]  # type: ignore[return-value]


_ALONG = tuple(tuple(-1 if other is dim else 1 for other in Dim) for dim in Dim)


def _pick(values: npt.NDArray[np.generic], lists: Sequence[Ints]) -> Floats:
    """A grid at some places of each dim; axes of length 1 stay."""
    zero = np.zeros(1, dtype=np.int64)
    index = tuple(
        (zero if size == 1 else places).reshape(_ALONG[dim])
        for dim, size, places in zip(Dim, values.shape, lists, strict=True)
    )
    return values[index]  # type: ignore[return-value]


class _Goal:
    """What is sought, the best found so far, and the tally."""

    def __init__(self, problem: Problem, flow: Dataflow) -> None:
        self.problem, self.flow = problem, flow
        self.objective = problem.objective
        self.limit = np.inf
        """in the second round: the best cost by the objective; then energy is minimised"""
        self.best = np.inf
        self.found: list[tuple[float, Mapped]] = []
        self.evaluated = self.pruned_bound = self.pruned_capacity = self.turns = 0
        objective = problem.objective
        self.with_dram = objective is Objective.DRAM
        self.with_cycles = bool(problem.static_pj_per_cycle) or objective in {
            Objective.LATENCY,
            Objective.EDP,
        }

    def parts_of(self, model: _Model) -> list[_Part]:
        """Energy, and what else the objective needs."""
        parts = [model.energy]
        if self.with_dram:
            parts.append(model.dram)
        if self.with_cycles:
            parts += model.cycles()
        return parts

    def figures(self, parts: Floats) -> tuple[Floats, Floats, Floats]:
        """Energy, latency and DRAM traffic from sums of parts, shape (B, parts)."""
        zero = np.zeros(parts.shape[0])
        dram = parts[:, 1] if self.with_dram else zero
        cycles = parts[:, 1 + self.with_dram :].max(axis=1) if self.with_cycles else zero
        cycles = np.ceil(cycles * (1 - TIE))
        static = np.where(np.isfinite(cycles), cycles, 0.0) * self.problem.static_pj_per_cycle
        return parts[:, 0] + static, cycles, dram

    def cost(self, energy: Floats, cycles: Floats, dram: Floats) -> Floats:
        """What is minimised in this round; infinite beyond the limit."""
        own = self.of_objective(energy, cycles, dram)
        if np.isfinite(self.limit):
            return np.where(own <= self.limit, energy, np.inf)
        return own

    def of_objective(self, energy: Floats, cycles: Floats, dram: Floats) -> Floats:
        """The objective's own figure."""
        if self.objective is Objective.EDP:
            return np.where(np.isfinite(energy), energy * cycles, np.inf)
        own = {Objective.ENERGY: energy, Objective.LATENCY: cycles, Objective.DRAM: dram}
        return own[self.objective]

    def values(self, parts: Floats) -> Floats:
        """Bounds of what is minimised."""
        return self.cost(*self.figures(parts))

    def promising(self, parts: Floats, values: Floats) -> Bools:
        """Which bounds are below the best cost."""
        del parts
        if not self.problem.options.prune:
            return np.ones(values.shape, dtype=np.bool_)
        return values < self.best * (1 - TIE)

    def exhausted(self, begin: float) -> bool:
        """Whether the time or the turns that the search has are used up."""
        budget, turns = self.problem.options.budget_s, self.problem.options.turns
        late = budget is not None and monotonic() - begin > budget
        return late or (turns is not None and self.turns >= turns)

    def offer(self, value: float, mapped: Mapped) -> None:
        """Keep a complete mapping if it is the best, or one of the next."""
        if value < self.best * (1 - TIE) or not np.isfinite(self.best):
            self.best = value
        if any(abs(value - other) <= TIE * value for other, _ in self.found):
            return
        self.found.append((value, mapped))
        self.found.sort(key=lambda pair: pair[0])
        del self.found[KEPT:]


KEPT = 5
"""Mappings remembered: the best and runners-up."""


def _evaluate(tree: _Tree, path: Path, places: Ints) -> None:
    """Count complete mappings of one order of cuts exactly and offer them to the goal."""
    goal, here, problem = tree.goal, tree.here, tree.goal.problem
    layout = _lay_out(here, path, places)
    choices, index = choices_of(layout.nest, layout.trips)
    ranks = orders(layout)
    expansions = expand_orders(
        here.shape,
        layout.nest,
        choices,
        problem.rules,
        ranks=ranks,
        ordered=frozenset({Tensor.INPUT}),
    )
    first: tuple[Expansion, Counts] | None = None
    fits = np.ones(places.shape[0], dtype=np.bool_)
    for rank, expansion in zip(ranks, expansions, strict=True):
        counts = expansion.at(index, first)
        if first is None:
            first = (expansion, counts)
            fits = _fits(tree, layout, counts, places, path)
            goal.pruned_capacity += int(np.count_nonzero(~fits))
            if not np.any(fits):
                return
        figures = tree.model.measure(layout.nest, counts)
        goal.evaluated += int(np.count_nonzero(fits))
        values = np.where(fits, goal.cost(*figures), np.inf)
        for row in np.argsort(values, kind="stable")[:KEPT].tolist():
            if np.isfinite(values[row]):
                _offer(goal, float(values[row]), layout, rank, row, figures)


def _offer(
    goal: _Goal,
    value: float,
    layout: _Layout,
    rank: Sequence[int],
    row: int,
    figures: Sequence[Floats],
) -> None:
    worst = goal.found[-1][0] if len(goal.found) == KEPT else np.inf
    if value >= worst:
        return
    order = sorted(range(len(rank)), key=rank.__getitem__)
    loops = tuple(layout.nest.loops[i] for i in order)
    nest = Nest(loops, layout.nest.cuts, layout.nest.axes)
    trips = tuple(int(layout.trips[row, i]) for i in order)
    energy, cycles, dram = (float(figure[row]) for figure in figures)
    goal.offer(value, Mapped(nest, trips, Measure(energy, cycles, dram)))


def _fits(tree: _Tree, layout: _Layout, counts: Counts, places: Ints, path: Path) -> Bools:
    """Which mappings fit every level, as ``capacity.occupancy`` counts it."""
    here, problem = tree.here, tree.goal.problem
    fits = np.ones(places.shape[0], dtype=np.bool_)
    for level in range(1, here.macs):
        needed = {
            tensor: _needed(tree, layout, counts, level, tensor) for tensor in here.holds[level]
        }
        capacity = problem.hardware.levels[level].capacity_bits()
        if isinstance(capacity, dict):
            for tensor, bits in needed.items():
                fits &= bits <= capacity[tensor]
        elif capacity is not None:
            reserved = problem.residency.reserved_bits if level == 1 else 0
            fits &= sum(needed.values(), start=np.zeros(fits.shape)) <= capacity - reserved
    if tree.flow.stationary is not None:
        fits &= _stays(tree, counts)
    if tree.flow.order:
        fits &= _in_order(tree, path, places)
    return fits


def _needed(tree: _Tree, layout: _Layout, counts: Counts, level: int, tensor: Tensor) -> Floats:
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


def _stays(tree: _Tree, counts: Counts) -> Bools:
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


def _packed(shape: Shape, layout: _Layout, level: int, store: WeightStore) -> Floats:
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
        bits = store.tile_bits(shape, *pair, tile[Dim.R] * tile[Dim.S])
        found[row] = tile[Dim.G] * int(bits[0, 0])
    return found


def _in_order(tree: _Tree, path: Path, places: Ints) -> Bools:
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


# -- the search ------------------------------------------------------------------------------------


def search(problem: Problem) -> Found:
    """Find the best mapping of a layer.

    Of mappings that are equally good by the objective the one of least energy is taken, of these
    the first found.

    Parameters
    ----------
    problem : Problem

    Returns
    -------
    Found

    Raises
    ------
    DoesNotFitError
        If not even the smallest tiles fit; names the level and the bytes missing.
    """
    begin = monotonic()
    flow = problem.dataflow
    tries = [(flow, False), (flow, True)]
    if flow.whole:
        loose = replace(flow, whole=frozenset())
        tries = [(flow, False), (loose, False), (flow, True), (loose, True)]
    for asked, beyond in tries:
        goal = _Goal(problem, asked)
        places = _arrangements(problem, asked, beyond=beyond)
        found = _minimise(goal, places, begin)
        if found is not None:
            return found
    raise DoesNotFitError(_too_small(problem, _arrangements(problem, *tries[-1][:1], beyond=True)))


def _arrangements(problem: Problem, flow: Dataflow, *, beyond: bool) -> list[Arrangement]:
    return arrangements(
        problem.hardware,
        problem.shape,
        flow,
        has_weights=problem.store is not None,
        latch=problem.rules.latch,
        resident=problem.residency.tensors,
        perfect=problem.options.perfect,
        beyond=beyond,
    )


def _minimise(goal: _Goal, places: Sequence[Arrangement], begin: float) -> Found | None:
    problem = goal.problem
    trees = [_Tree(goal, _Model(problem, here)) for here in places]
    done, lower = _explore(goal, trees, begin)
    if not goal.found:
        return None
    if problem.objective is not Objective.ENERGY:
        goal.limit = goal.best * (1 + TIE)
        first = goal.found
        goal.best, goal.found = np.inf, []
        again, _ = _explore(goal, trees, begin)
        done = done and again
        if not goal.found:
            goal.found = first
        goal.best = first[0][0]
    others = tuple(mapped for _, mapped in goal.found[1:])
    mapspace = sum(size_of(here, goal.flow) for here in places)
    gap = 0.0 if done else max(0.0, 1 - lower / goal.best)
    certificate = Certificate(
        mapspace,
        goal.evaluated,
        goal.pruned_bound,
        goal.pruned_capacity,
        done,
        gap,
        monotonic() - begin,
    )
    return Found(goal.found[0][1], others, certificate)


def _explore(goal: _Goal, trees: Sequence[_Tree], begin: float) -> tuple[bool, float]:
    """Branch and bound over all trees; whether it came to its end, and the least bound left."""
    options = goal.problem.options
    roots = [root for tree in trees if (root := tree.root()) is not None]
    for root in sorted(roots, key=lambda root: float(root.values[0])):
        if root.values[0] < goal.best:
            _dive(root)
    queue = _Queue(goal)
    for root in roots:
        queue.take(root)
    while queue.waiting:
        value = queue.least
        if options.prune and value >= goal.best * (1 - TIE):
            queue.drop()
            break
        if goal.found and goal.exhausted(begin):
            return False, value
        queue.turn()
    return True, goal.best


class _Queue:
    """Partial mappings by their bounds, and complete ones that wait to be counted."""

    def __init__(self, goal: _Goal) -> None:
        self.goal = goal
        self.heap: list[tuple[float, int, int, _Stream]] = []
        self.tie = counter()
        self.pool = _Pool(goal)

    @property
    def waiting(self) -> bool:
        """Whether there is anything left to do."""
        return bool(self.heap or self.pool.waiting)

    @property
    def least(self) -> float:
        """The least bound of all that is left."""
        return min(self.heap[0][0] if self.heap else np.inf, self.pool.least)

    def take(self, stream: _Stream) -> None:
        """Take mappings in."""
        if stream.complete:
            self.pool.add(stream)
        else:
            self._push(stream)

    def turn(self) -> None:
        """Continue the most promising partial mapping, or count complete ones."""
        if not self.heap or self.pool.ripe(self.heap[0][0]):
            self.pool.flush()
            return
        _, _, _, stream = heapq.heappop(self.heap)
        row = stream.at
        stream.at += 1
        self._push(stream)
        self.pool.turns += 1
        self.goal.turns += 1
        for child in stream.tree.branch(stream, row):
            self.take(child)

    def drop(self) -> None:
        """Leave the rest: no bound is below the best cost."""
        left = sum(each[3].values.size - each[3].at for each in self.heap)
        self.goal.pruned_bound += left + self.pool.drop()

    def _push(self, stream: _Stream) -> None:
        if stream.at < stream.values.size:
            value = float(stream.values[stream.at])
            heapq.heappush(self.heap, (value, -len(stream.path), next(self.tie), stream))


class _Pool:
    """Complete mappings that wait to be counted, those of one order of cuts together.

    Counting many at once is cheaper, but the sooner a good one is known the less is continued. So
    it is done after 1, 2, 4 ... turns without.
    """

    MOST_TURNS = 64

    def __init__(self, goal: _Goal) -> None:
        self.goal = goal
        self.waiting: dict[tuple[int, Path], list[_Stream]] = {}
        self.least = np.inf
        self.turns, self.patience = 0, 1

    def add(self, stream: _Stream) -> None:
        """Take complete mappings in."""
        self.waiting.setdefault((id(stream.tree), stream.path), []).append(stream)
        self.least = min(self.least, float(stream.values[0]))

    def ripe(self, bound: float) -> bool:
        """Whether it is time to count."""
        return self.least <= bound and self.turns >= self.patience

    def flush(self) -> None:
        """Count all that may still be the best, the most promising first."""
        goal, waiting = self.goal, self.waiting
        self.waiting, self.least, self.turns = {}, np.inf, 0
        self.patience = min(2 * self.patience, self.MOST_TURNS)
        for streams in sorted(
            waiting.values(), key=lambda own: min(float(s.values[0]) for s in own)
        ):
            values = np.concatenate([stream.values for stream in streams])
            places = np.concatenate([stream.places for stream in streams])
            order = np.argsort(values, kind="stable")
            start, size = 0, 16
            while start < order.size:
                rows = order[start : start + size]
                if goal.problem.options.prune:
                    rows = rows[values[rows] < goal.best * (1 - TIE)]
                if not rows.size:
                    goal.pruned_bound += order.size - start
                    break
                _evaluate(streams[0].tree, streams[0].path, places[rows])
                start += size
                size = min(4 * size, CHUNK)

    def drop(self) -> int:
        """Forget what waits; how many."""
        many = sum(stream.values.size for own in self.waiting.values() for stream in own)
        self.waiting = {}
        return many


def _dive(root: _Stream) -> None:
    """Follow the best bound down to complete mappings, for a first good one."""
    stream = root
    for _ in range(64):
        if stream.complete:
            _evaluate(stream.tree, stream.path, stream.places[:16])
            return
        children = list(stream.tree.branch(stream, 0))
        if not children:
            return
        stream = min(children, key=lambda child: float(child.values[0]))


def _too_small(problem: Problem, places: Sequence[Arrangement]) -> str:
    """Which level is too small, by how much, for the smallest tiles of the machine."""
    best: tuple[float, str] | None = None
    for here in places:
        goal = _Goal(problem, problem.dataflow)
        model = _Model(problem, here)
        del goal
        worst: tuple[float, str] = (0.0, "")
        for level in range(1, here.macs):
            memory = problem.hardware.levels[level]
            least = {
                tensor: float(model.room(tensor, level)[0].min()) for tensor in here.holds[level]
            }
            capacity = memory.capacity_bits()
            if isinstance(capacity, dict):
                missing = max(bits - capacity[tensor] for tensor, bits in least.items())
            else:
                reserved = problem.residency.reserved_bits if level == 1 else 0
                missing = sum(least.values()) - ((capacity or 0) - reserved)
            if missing > worst[0]:
                worst = (missing, memory.name)
        if best is None or worst[0] < best[0]:
            best = worst
    if best is None or not best[1]:
        return "no mapping fits its memories"
    missing = -(-int(best[0]) // BITS_PER_BYTE)
    return f"level {best[1]} is too small: {missing:,} bytes are missing for the smallest tiles"
