"""The mapspace of one arrangement, and what its partial mappings cost at least."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from energysim.axes import REDUCTION, RELEVANT, Dim, Tensor
from energysim.mapper import bound
from energysim.mapper.incumbent import Incumbent
from energysim.mapper.parts import CostModel
from energysim.mapper.space import (
    REACH,
    STILL,
    TAPS,
    Path,
    Stage,
    Step,
    scatters,
    spread_over,
    steps,
)
from energysim.model.tables import Ints

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
_Any = TypeVar("_Any", bound=np.generic)

_RANK = {Tensor.INPUT: 0, Tensor.WEIGHT: 1, Tensor.OUTPUT: 2}
"""Which of two cuts at the same place comes first: bounds know more if that is the one of input."""

MOST = 2**18
"""Tiles looked at together."""

LIMITED = 2
"""Rounds of ruling out tiles: each makes the other cuts' least costs higher."""

_Edges = tuple[tuple[int, ...], tuple[int, ...]]
"""First and last places of each dim."""


@dataclass(frozen=True, slots=True)
class Table:
    """Bounds of one part at one stage, over a window of places."""

    low: tuple[int, ...]
    values: Floats

    def since(self, first: Mapping[Dim, int]) -> Table:
        """Only places from some on."""
        low, values = list(self.low), self.values
        for dim, place in first.items():
            skip = max(place - low[dim], 0)
            values = values[_along(dim, slice(skip, None))]
            low[dim] += skip
        return Table(tuple(low), values)

    def inward(self, dim: Dim, window: Table) -> Table:
        """The least over a place and all further ones, for the places of a window."""
        begins = np.arange(window.values.shape[dim]) + window.low[dim] - self.low[dim]
        begins = begins[begins < self.values.shape[dim]]
        low = (*self.low[:dim], window.low[dim], *self.low[dim + 1 :])
        if not begins.size:
            return Table(low, self.values[_along(dim, slice(0, 0))])
        return Table(low, _least_from(self.values, dim, np.maximum(begins, 0)))


@dataclass(frozen=True, slots=True)
class Nodes:
    """Partial mappings with the same cuts taken in the same order, and their bounds."""

    tree: Tree
    path: Path
    places: Ints
    """the tile of each step, shape (B, steps, 8)"""
    costs: Floats
    """parts so far, shape (B, parts)"""
    values: Floats
    """at least so much any completion costs, by the objective, shape (B,)"""
    room: Floats
    """left in each level [bit], shape (B, levels)"""
    pending: Floats
    """what outputs would take more if they were not complete [bit], shape (B,)"""

    @property
    def stage(self) -> Stage:
        """Cuts taken."""
        return self.path[-1].after if self.path else (0, 0, 0)

    @property
    def complete(self) -> bool:
        """Whether all cuts are taken."""
        return not self.tree.following[self.stage]

    @property
    def tile(self) -> Ints:
        """The innermost tile, shape (B, 8)."""
        if self.path:
            return self.places[:, -1]
        return np.zeros((self.values.size, len(Dim)), dtype=np.int64)

    def some(self, rows: Ints | slice) -> Nodes:
        """Only these."""
        places, costs, values = self.places[rows], self.costs[rows], self.values[rows]
        return Nodes(
            self.tree, self.path, places, costs, values, self.room[rows], self.pending[rows]
        )

    @classmethod
    def together(cls, several: Sequence[Nodes]) -> Nodes:
        """Join nodes of one path."""
        if len(several) == 1:
            return several[0]
        first = several[0]
        columns = ("places", "costs", "values", "room", "pending")
        arrays = (np.concatenate([getattr(each, name) for each in several]) for name in columns)
        return cls(first.tree, first.path, *arrays)


class Tree:
    """The mapspace of one arrangement with its bounds."""

    def __init__(self, goal: Incumbent, model: CostModel) -> None:
        self.goal, self.model, self.here = goal, model, model.here
        self.flow = goal.flow
        self.parts = goal.parts_of(model)
        self.macs = model.least(self.parts)[0].tolist()
        self.full = tuple(ladder.trips.size for ladder in self.here.ladders)
        self.cost: dict[tuple[Tensor, int, bool], list[Floats]] = {}
        self.size: dict[tuple[Tensor, int], tuple[Floats, Floats]] = {}
        self.allowed: dict[tuple[Tensor, int], Bools] = {}
        for tensor in Tensor:
            for level in self.here.cuts[tensor]:
                self.cost[tensor, level, False] = self.cost[tensor, level, True] = [
                    model.cost(part, tensor, level) for part in self.parts
                ]
                if spread_over(self.here, tensor, level):
                    self.cost[tensor, level, True] = [
                        model.cost(part, tensor, level, late=True) for part in self.parts
                    ]
        self.known: dict[tuple[int, bool, bound.Met, bool], list[Floats]] = {}
        self.fresh: dict[tuple[int, bool, bound.Met], bound.FreshChannels] = {}
        self.anew: dict[tuple[int, bool, int], bound.Fresh] = {}
        self.lists: dict[tuple[Step, Dim], tuple[Ints, Ints, Ints]] = {}
        self._rooms()
        self._limit()
        self.following: dict[Stage, Sequence[Step]] = {}
        self.windows: dict[Stage, _Edges] = {}
        self._windows()
        self.tables: dict[Stage, list[Table]] = {}
        for stage in sorted(self.windows, key=sum, reverse=True):
            self.tables[stage] = self._bounds(stage)

    # -- room ------------------------------------------------------------------------------------

    def _rooms(self) -> None:
        """Room of every cut's tiles, and where a tile fits at all."""
        here, problem = self.here, self.goal.problem
        self.capacity = np.full(here.macs, np.inf)
        least = np.zeros(here.macs)
        for tensor, level in [(each, level) for each in Tensor for level in here.cuts[each]]:
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

    def _limit(self) -> None:
        """Rule out tiles of which one cut alone costs too much, were all others at their best."""
        for _ in range(LIMITED):
            costs = {
                (tensor, level): np.stack(np.broadcast_arrays(*own))
                for (tensor, level, late), own in self.cost.items()
                if late
            }
            least = {cut: self._least_of(cut, cost) for cut, cost in costs.items()}
            for cut, cost in costs.items():
                others = [each for other, each in least.items() if other != cut]
                rest = sum(others, start=np.array(self.macs))
                values = self.goal.values(cost.reshape(len(self.parts), -1).T + rest)
                good = (np.isfinite(values) & self.goal.promising(values)).reshape(cost.shape[1:])
                whole, late = self.cost[*cut, False], self.cost[*cut, True]
                self.cost[*cut, True] = [np.where(good, own, np.inf) for own in late]
                self.cost[*cut, False] = self.cost[*cut, True]
                if whole is not late:
                    self.cost[*cut, False] = [np.where(good, own, np.inf) for own in whole]

    def _least_of(self, cut: tuple[Tensor, int], costs: Floats) -> Floats:
        """Least cost of a cut by each part, of tiles that fit."""
        idle = tuple(dim for dim in Dim if costs.shape[1 + dim] == 1)
        fits = np.any(self.allowed[cut], axis=idle, keepdims=True)
        least: Floats = np.where(fits, costs, np.inf).reshape(costs.shape[0], -1).min(axis=1)
        return least

    # -- the least that is to come ---------------------------------------------------------------

    def _windows(self) -> None:
        """Places that a dim can have at each stage."""
        none = (0,) * len(Dim)
        self.windows[0, 0, 0] = (none, none)
        edges = {
            cut: _edges(allowed, np.isfinite(self.cost[*cut, True][0]), self.full)
            for cut, allowed in self.allowed.items()
        }
        every = sum(map(len, self.here.cuts))
        for taken in range(every + 1):
            for stage in [stage for stage in self.windows if sum(stage) == taken]:
                self._open(stage, edges)
        for stage in sorted(self.windows, key=sum, reverse=True):
            if sum(stage) < every:
                self._close(stage, edges)

    def _open(self, stage: Stage, edges: Mapping[tuple[Tensor, int], _Edges]) -> None:
        """Places behind each step that can follow."""
        low, high = self.windows[stage]
        self.following[stage] = steps(self.here, self.flow, stage)
        for step in self.following[stage]:
            least, most = edges[step.tensor, step.level]
            new_low = [max(a, b) for a, b in zip(low, least, strict=True)]
            new_high = [most[dim] if dim in step.dims else min(high[dim], most[dim]) for dim in Dim]
            if any(a > b for a, b in zip(new_low, new_high, strict=True)):
                continue
            if step.after in self.windows:
                old_low, old_high = self.windows[step.after]
                new_low = list(map(min, new_low, old_low))
                new_high = list(map(max, new_high, old_high))
            self.windows[step.after] = (tuple(new_low), tuple(new_high))

    def _close(self, stage: Stage, edges: Mapping[tuple[Tensor, int], _Edges]) -> None:
        """Leave out places from which no step leads on: tiles only become smaller."""
        low, high = self.windows[stage]
        ends = [
            tuple(map(min, self.windows[step.after][1], edges[step.tensor, step.level][1]))
            for step in self.following[stage]
            if step.after in self.windows
        ]
        most = [min(end, max(onward)) for end, *onward in zip(high, *ends, strict=True) if onward]
        if not most or any(a > b for a, b in zip(low, most, strict=True)):
            del self.windows[stage]
        else:
            self.windows[stage] = (low, tuple(most))

    def _bounds(self, stage: Stage) -> list[Table]:
        low, high = self.windows[stage]
        shape = tuple(b - a + 1 for a, b in zip(low, high, strict=True))
        if not self.following[stage]:
            return [Table(low, np.full(shape, macs)) for macs in self.macs]
        tables = [np.full(shape, np.inf) for _ in self.parts]
        for step in self.following[stage]:
            if step.after not in self.tables:
                continue
            edges = self.windows[step.after]
            fits = _cut(self.allowed[step.tensor, step.level], *edges)
            unfit = np.where(fits, 0.0, np.inf)
            costs = self.cost[step.tensor, step.level, step.late]
            for part, (table, cost) in enumerate(zip(tables, costs, strict=True)):
                ahead = Table(edges[0], self.tables[step.after][part].values + unfit)
                if self._has_windows(step):
                    self._lower_windows(Table(low, table), step, ahead, part)
                else:
                    _lower(Table(low, table), step.dims, ahead, cost)
        return [Table(low, table) for table in tables]

    def _has_windows(self, step: Step) -> bool:
        """Whether a step loads input tiles that may find something again."""
        if step.tensor is not Tensor.INPUT or step.level == self.here.macs:
            return False
        if step.level in self.goal.problem.rules.refetch or not set(STILL) & set(step.dims):
            return False
        return any(self.full[dim] > 1 for dim in (Dim.P, Dim.Q))

    def _lower_windows(self, table: Table, step: Step, ahead: Table, part: int) -> None:
        """As :func:`_lower`, with what a block that brings new channels can't find again.

        Either the block cuts N, G or C and no taps, and pieces share rows only inside the tile it
        begins with; or it leaves N, G and C as they are; or it cuts taps.
        """
        level, here = step.level, self.here
        outputs = tuple(dim for dim in step.dims if dim in REACH.values())
        _lower(table, outputs, ahead, self.cost[step.tensor, level, step.late][part])
        for tap, out in REACH.items():
            if tap in step.dims and self.full[tap] > 1:
                met = self._split(Dim.R) or tap is not Dim.R, self._split(Dim.S) or tap is not Dim.S
                cost = self.inputs(level, step.late, met, taps_last=True)[part]
                # cut taps are single, around single rows or columns
                single = {dim: int(np.argmax(here.ladders[dim].sizes(level) == 1))
                          for dim in (tap, out)}  # fmt: skip
                _lower(table, step.dims, ahead.since(single), cost, strict=tap)
        still = tuple(dim for dim in step.dims if dim in STILL)
        strict = [dim for dim in still if self.full[dim] > 1]
        if not strict:
            return
        fresh = self._fresh_cost(level, step.late, part)
        for inside, cost in ((Dim.P, fresh.rows_inside), (Dim.Q, fresh.columns_inside)):
            # the tile before the block counts along the inner dim, so the minimum there comes first
            first = ahead
            if inside in step.dims:
                first = ahead.inward(inside, table)
            other = Dim.Q if inside is Dim.P else Dim.P
            dims = tuple(dim for dim in (*still, other) if dim in step.dims)
            _lower(table, dims, first, cost, strict=strict[0] if len(strict) == 1 else None)

    def _fresh_cost(self, level: int, late: bool, part: int) -> bound.Fresh:
        key = (level, late, part)
        if key not in self.anew:
            prices = self.parts[part].prices
            self.anew[key] = bound.fresh_cost(
                self.here, self.goal.problem.rules, level, prices, late=late
            )
        return self.anew[key]

    # -- branching -------------------------------------------------------------------------------

    def root(self) -> Nodes | None:
        """The mapping of which nothing is decided; None if no mapping is good enough."""
        if (0, 0, 0) not in self.tables:
            return None
        bounds = np.array([[table.values.reshape(-1)[0] for table in self.tables[0, 0, 0]]])
        values = self.goal.values(bounds)
        if not np.isfinite(values[0]):
            return None
        places = np.empty((1, 0, len(Dim)), dtype=np.int64)
        costs = np.zeros((1, len(self.parts)))
        return Nodes(self, (), places, costs, values, self.capacity[None].copy(), np.zeros(1))

    def branch(self, nodes: Nodes) -> Iterator[Nodes]:
        """Everything that can come next after some partial mappings."""
        for step in self.following[nodes.stage]:
            if step.after in self.tables:
                rows, tile = self._next(nodes, step)
                new = ~self._met_otherwise(nodes, step, rows, tile)
                new &= ~scatters(self.here, (*nodes.path, step), nodes.places[rows], tile)
                rows, tile = rows[new], tile[:, new]
                for start in range(0, rows.size, MOST):
                    part = slice(start, start + MOST)
                    children = self._children(nodes, step, rows[part], tile[:, part])
                    if children.values.size:
                        yield children

    def _next(self, nodes: Nodes, step: Step) -> tuple[Ints, Ints]:
        """All tiles that a step can lead to: the row of each, and its places, shape (8, n)."""
        now = nodes.tile
        lists = [self._choices(step, dim) for dim in Dim]
        lengths = [
            ends[at] - starts[at] for (_, starts, ends), at in zip(lists, now.T, strict=True)
        ]
        many = np.stack(lengths)
        total = many.prod(axis=0)
        rows = np.repeat(np.arange(total.size), total)
        left = np.arange(rows.size) - np.repeat(np.cumsum(total) - total, total)
        tile = np.empty((len(Dim), rows.size), dtype=np.int64)
        for dim in reversed(Dim):
            values, starts, _ = lists[dim]
            if dim in step.dims:
                left, turn = np.divmod(left, many[dim][rows])
                tile[dim] = values[starts[now[rows, dim]] + turn]
            else:
                tile[dim] = now[rows, dim]
        return rows, tile

    def _met_otherwise(self, nodes: Nodes, step: Step, rows: Ints, tile: Ints) -> Bools:
        """Which tiles give the mapping that has this cut before the last one.

        Cuts with no loop between them can change places, if the loops in front may stand in front
        of either. So can they if the loops in front leave the tile of the second alone, and may
        stand between.
        """
        no: Bools = np.zeros(rows.size, dtype=np.bool_)
        if not nodes.path:
            return no
        last = nodes.path[-1]
        stage = nodes.path[-2].after if len(nodes.path) > 1 else (0, 0, 0)
        sooner = [each for each in self.following[stage] if each.tensor is step.tensor]
        if not sooner:
            return no
        now = nodes.tile
        before = nodes.places[:, -2] if len(nodes.path) > 1 else np.zeros_like(now)
        moved = now != before
        free: Bools = np.zeros(now.shape[0], dtype=np.bool_)
        if _RANK[step.tensor] < _RANK[last.tensor]:
            free |= ~np.any(moved[:, [dim for dim in Dim if dim not in sooner[0].dims]], axis=1)
        later = [each for each in self.following.get(sooner[0].after, ())
                 if each.tensor is last.tensor]  # fmt: skip
        if later and step.level < self.here.macs and not self.flow.order:
            between = set(later[0].dims) - RELEVANT[step.tensor]
            free |= np.any(moved, axis=1) & ~np.any(
                moved[:, [dim for dim in Dim if dim not in between]], axis=1
            )
        found: Bools = free[rows] & np.all(tile == now[rows].T, axis=0)
        return found

    def _choices(self, step: Step, dim: Dim) -> tuple[Ints, Ints, Ints]:
        """Places that can follow each place, one after the other, and where each list is."""
        key = (step, dim)
        if key not in self.lists:
            low, high = (edge[dim] for edge in self.windows[step.after])
            further, ends = self.here.ladders[dim].further
            if dim not in step.dims:
                further = np.arange(ends.size)
                ends = further + 1
            some = (further >= low) & (further <= high)
            bounds = np.append(0, np.cumsum(some))[np.append(0, ends)]
            self.lists[key] = (further[some], bounds[:-1], bounds[1:])
        return self.lists[key]

    def _children(self, nodes: Nodes, step: Step, rows: Ints, tile: Ints) -> Nodes:
        goal = self.goal
        many = rows.size
        fits = _at(self.allowed[step.tensor, step.level], tile)
        rows, tile = rows[fits], tile[:, fits]
        ahead = [
            _at(table.values, tile - np.array(table.low)[:, None])
            for table in self.tables[step.after]
        ]
        # first by the bounds that know the new tile only, then by those that know the whole path
        plain = [_at(cost, tile) for cost in self.cost[step.tensor, step.level, step.late]]
        bounds = nodes.costs[rows] + np.stack(plain, axis=1) + np.stack(ahead, axis=1)
        values = goal.values(bounds)
        good = np.isfinite(values)
        fitting = int(np.count_nonzero(good))
        good &= goal.promising(values)
        rows, tile = rows[good], tile[:, good]
        ahead, plain = [each[good] for each in ahead], [each[good] for each in plain]
        room, pending, fits = self._take(nodes, step, rows, tile)
        rows, tile, room, pending = rows[fits], tile[:, fits], room[fits], pending[fits]
        fitting -= int(np.count_nonzero(~fits))
        costs = np.stack([cost[fits] for cost in plain], axis=1)
        if self._knows_more(step):
            costs = self._step_costs(nodes, step, rows, tile, costs)
        costs = nodes.costs[rows] + costs
        values = goal.values(costs + np.stack([each[fits] for each in ahead], axis=1))
        good = goal.promising(values)
        places = np.concatenate([nodes.places[rows[good]], tile[:, good].T[:, None]], axis=1)
        goal.pruned_capacity += many - fitting
        goal.pruned_bound += fitting - places.shape[0]
        path = (*nodes.path, step)
        return Nodes(self, path, places, costs[good], values[good], room[good], pending[good])

    def _knows_more(self, step: Step) -> bool:
        """Whether what an input tile finds again depends on the blocks before it."""
        if step.tensor is not Tensor.INPUT or step.level == self.here.macs:
            return False
        pinned = Tensor.INPUT in self.here.resident and step.level == 1
        return step.level not in self.goal.problem.rules.refetch and not pinned

    def _step_costs(
        self, nodes: Nodes, step: Step, rows: Ints, tile: Ints, costs: Floats
    ) -> Floats:
        """Bounds of an input cut's cost, now that the tiles in front of it are known."""
        level, here = step.level, self.here
        before, now = nodes.places[rows], nodes.tile[rows].T
        bases = self._fresh_since(level, before, tile)
        met = [bound.sweeps_meet(here, level, out, before, tile) for out in (Dim.P, Dim.Q)]
        found = costs.copy()
        for case in product((False, True), repeat=2):
            some = np.flatnonzero((met[0] == case[0]) & (met[1] == case[1]))
            if some.size:
                found[some] += self._better(
                    step,
                    (case[0], case[1]),
                    tile[:, some],
                    now[:, some],
                    [(base[some].T, known[some]) for base, known in bases],
                )
        return found

    def _better(
        self,
        step: Step,
        met: bound.Met,
        tile: Ints,
        now: Ints,
        bases: Sequence[tuple[Ints, Bools]],
    ) -> Floats:
        """By how much bounds rise if the tiles in front are known, shape (n, parts)."""
        level, late = step.level, step.late
        key = (level, late, met)
        if key not in self.fresh:
            self.fresh[key] = bound.FreshChannels(
                self.here, self.goal.problem.rules, level, met, late=late
            )
        fresh = self.fresh[key]
        new = np.any(tile[list(STILL)] != now[list(STILL)], axis=0)
        cut_taps = np.any(tile[list(TAPS)] != now[list(TAPS)], axis=0)
        (by_channels, some), (by_passes, others) = bases
        anew = [
            (mask, fresh.elements(base, tile, passes))
            for base, mask, passes in (
                (by_channels, some, by_channels[Dim.K]),
                (now, new, tile[Dim.K]),
            )
            if np.any(mask)
        ]
        again, once = None, tile
        if np.any(others):
            again = fresh.elements(by_passes, tile, tile[Dim.K], without=by_passes[Dim.K])
            once = np.where((np.array(Dim) == Dim.K)[:, None], by_passes, tile)
        columns = []
        for i, part in enumerate(self.parts):
            found = _at(self.inputs(level, late, met)[i], tile)
            for mask, elements in anew:
                cost = fresh.cost(part.prices, *elements)
                found = np.where(mask, np.maximum(found, cost), found)
            if again is not None:
                cost = _at(self.inputs(level, late, met)[i], once) + fresh.cost(part.prices, *again)
                found = np.where(others, np.maximum(found, cost), found)
            if np.any(cut_taps):
                cost = _at(self.inputs(level, late, met, taps_last=True)[i], tile)
                found = np.where(cut_taps, np.maximum(found, cost), found)
            columns.append(found - _at(self.inputs(level, late)[i], tile))
        return np.stack(columns, axis=1)

    def _fresh_since(
        self, level: int, places: Ints, tile: Ints
    ) -> tuple[tuple[Ints, Bools], tuple[Ints, Bools]]:
        """Tiles inside which no input piece finds anything of what came before, where known.

        The first stands before the last block with loops over N, G or C: these bring other
        elements, but loops over K further in may find all. The second stands before the last block
        with loops over K: they bring the same elements, and all but the first pass finds nothing of
        them if a sweep ends apart from where the next begins, and all windows are swept inside.
        Shapes (n, 8) and (n,).
        """
        many, blocks = places.shape[:2]
        found = []
        for dims in (list(STILL), [Dim.K]):
            base = np.zeros((many, len(Dim)), dtype=np.int64)
            known = np.zeros(many, dtype=np.bool_)
            for i in range(blocks):
                before = places[:, i - 1] if i else np.zeros_like(base)
                cut = places[:, i] != before
                here = np.any(cut[:, dims], axis=1)
                if dims == [Dim.K]:
                    inside = ~np.any(cut[:, [Dim.P, Dim.Q]], axis=1)
                    clean = inside & bound.ends_apart(self.here, level, before.T, tile)
                else:
                    clean = here
                base[here] = before[here]
                # a loop over N, G or C further in brings other elements
                known = np.where(here, clean, known & ~np.any(cut[:, list(STILL)], axis=1))
            found.append((base, known))
        return found[0], found[1]

    def inputs(
        self, level: int, late: bool, met: bound.Met = bound.ANY, *, taps_last: bool = False
    ) -> list[Floats]:
        """Bounds of each part of an input cut's cost if something is known about its path."""
        key = (level, late, met, taps_last)
        if key not in self.known:
            here, rules, tensor = self.here, self.goal.problem.rules, Tensor.INPUT
            self.known[key] = [
                bound.cut_cost(
                    here,
                    rules,
                    tensor,
                    level,
                    part.prices,
                    late=late,
                    met=met,
                    taps_last=taps_last,
                )
                for part in self.parts
            ]
        return self.known[key]

    def _split(self, tap: Dim) -> bool:
        """Whether two loops can cut a kernel into single taps."""
        reach, last = self.here.ladders[tap].reach, self.full[tap] - 1
        return any(last in reach[at] for at in reach[0] if 0 < at < last)

    def _take(
        self, nodes: Nodes, step: Step, rows: Ints, tile: Ints
    ) -> tuple[Floats, Floats, Bools]:
        """Room left in each level, what outputs may still need, and whether all fits."""
        room, pending = nodes.room[rows], nodes.pending[rows]
        if step.level == self.here.macs:
            return room, pending, np.ones(rows.size, dtype=np.bool_)
        if step.tensor is Tensor.OUTPUT:
            real = [level for level in self.here.cuts[Tensor.OUTPUT] if level < self.here.macs]
            place = real.index(step.level)
            if place:
                room[:, real[place - 1]] -= np.where(self._partial(step.level, tile), pending, 0.0)
            pending = _at(self.size[Tensor.OUTPUT, step.level][1], tile)
        room[:, step.level] -= _at(self.size[step.tensor, step.level][0], tile)
        return room, pending, np.all(room >= 0, axis=1)

    def _partial(self, level: int, tile: Ints) -> Bools:
        """Whether sums that leave a level are not complete."""
        alone = not self.goal.problem.rules.reduce
        seen = level if alone else self.here.outer(Tensor.OUTPUT, level)
        whole = np.ones(tile.shape[1], dtype=np.bool_)
        for dim in REDUCTION:
            ladder = self.here.ladders[dim]
            whole &= (ladder.trips[tile[dim]] == 1) & (ladder.fans[seen] == 1)
        return ~whole


def _along(dim: Dim, part: slice) -> tuple[slice, ...]:
    """Part of a grid along one dim."""
    return (slice(None),) * dim + (part,)


def _lower(
    table: Table, dims: Sequence[Dim], ahead: Table, cost: Floats, *, strict: Dim | None = None
) -> None:
    """Take the least of what follows and its cost, over all tiles inside each tile, if it is lower.

    Parameters
    ----------
    table : Table
        Changed in place.
    dims : sequence of Dim
        Along which tiles may be smaller.
    ahead : Table
        What follows a tile.
    cost : float array
        What a tile costs itself, over all places.
    strict : Dim, optional
        Along which tiles must be smaller.
    """
    values, target, still = ahead.values, [], []
    if not values.size:
        return
    begins: dict[Dim, Ints] = {}
    places: list[Ints] = []
    for dim in Dim:
        begin, end = table.low[dim], table.low[dim] + table.values.shape[dim] - 1
        first, last = ahead.low[dim], ahead.low[dim] + values.shape[dim] - 1
        if dim in dims:
            shift = int(dim is strict)
            end = min(end, last - shift)
            begins[dim] = np.maximum(np.arange(begin + shift, end + shift + 1) - first, 0)
            places.append(np.arange(first, last + 1))
        else:
            begin, end = max(begin, first), min(end, last)
            still.append((dim, slice(begin - first, end - first + 1)))
            places.append(np.arange(begin, end + 1))
        if begin > end:
            return
        target.append(slice(begin - table.low[dim], end - table.low[dim] + 1))
    for dim, part in still:
        if part.stop - part.start < values.shape[dim]:
            values = values[_along(dim, part)]
    own = _pick(cost, places)
    late = all(own.shape[dim] == 1 for dim in begins)
    if not late:
        values = values + own
    # few tiles first: where all begin at one place, the least of what follows is one number
    for dim in sorted(begins, key=lambda dim: begins[dim].size):
        values = _least_from(values, dim, begins[dim])
    view = table.values[tuple(target)]
    np.minimum(view, values + own if late else values, out=view)


def _inward(values: Floats, dim: Dim) -> Floats:
    """The least over a place and all further ones along a dim."""
    least: Floats = np.array(values)
    along = np.moveaxis(least, dim, 0)
    for place in range(along.shape[0] - 2, -1, -1):  # far faster than ufunc.accumulate
        np.minimum(along[place], along[place + 1], out=along[place])
    return least


def _least_from(values: Floats, dim: Dim, begins: Ints) -> Floats:
    """The least over each of some rising places and all further ones along a dim."""
    first = int(begins[0])
    if values.shape[dim] == 1:
        return values
    values = values[_along(dim, slice(first, None))]
    least: Floats
    if begins.size == 1:
        least = values.min(axis=dim, keepdims=True)
        return least
    least = _inward(values, dim)
    if begins[1] == first:
        return np.take(least, begins - first, axis=dim)
    return least[_along(dim, slice(0, begins.size))]


def _edges(allowed: Bools, payable: Bools, full: Sequence[int]) -> _Edges:
    """Along each dim the first and the last place at which anything fits and may pay."""
    low, high = [0] * len(Dim), [size - 1 for size in full]
    for grid in (allowed, payable):
        for dim in Dim:
            others = tuple(other for other in Dim if other is not dim and grid.shape[other] > 1)
            at = np.flatnonzero(np.any(grid, axis=others) if others else grid)
            if not at.size:
                high[dim] = -1
            elif grid.shape[dim] > 1:
                low[dim], high[dim] = max(low[dim], int(at[0])), min(high[dim], int(at[-1]))
    return tuple(low), tuple(high)


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


def _at(values: npt.NDArray[_Any], tile: Ints) -> npt.NDArray[_Any]:
    """A grid at some tiles, shape (8, n); an axis of length 1 is the same for all places."""
    index = np.zeros(tile.shape[1], dtype=np.int64)
    stride = 1
    for dim in reversed(Dim):
        if values.shape[dim] > 1:
            index += tile[dim] * stride
            stride *= values.shape[dim]
    return values.reshape(-1)[index]
