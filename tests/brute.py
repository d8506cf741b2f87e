"""Brute force over the mapspace: every order of cuts, tile and loop order, one after the other.

Nothing of :mod:`energysim.mapper.search` but the layout of loops is used: no bounds, no rule on
which loops a block may hold, no reduction of orders, and costs by the scalar path.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import permutations, product

import numpy as np

from energysim.axes import Dim, Tensor
from energysim.mapper import bound
from energysim.mapper.goal import Objective
from energysim.mapper.layout import lay_out
from energysim.mapper.problem import Problem
from energysim.mapper.space import STILL, Arrangement, Step, arrangements
from energysim.mapping import Nest
from energysim.model.capacity import occupancy
from energysim.model.counts import Counts, choices_of, expand_orders
from energysim.model.energy import tariff
from energysim.model.latency import latency
from energysim.model.tables import Ints


@dataclass(frozen=True)
class Price:
    """The measures of one mapping, from its counts alone."""

    energy: float
    dram: float
    latency: float
    feasible: bool

    def of(self, objective: Objective) -> float:
        if objective is Objective.EDP:
            return self.energy * self.latency
        return float(getattr(self, objective))


def price(asked: Problem, nest: Nest, trips: tuple[int, ...], counts: Counts) -> Price:
    """Measure one mapping (B = 1) by the scalar code path."""
    hardware = asked.hardware
    prices = tariff(hardware, nest, asked.store, asked.residency.tensors, asked.activity)
    energy = prices.once_pj()
    dram = float(sum(bits for key, bits in prices.once_bits.items() if key[0] == 0))
    for key, bits in prices.bits.items():
        elements = int(counts(*key)[0])
        level = hardware.levels[key[0]]
        writes = key[2] in ("fill", "update", "update_complete")
        energy += elements * bits * (level.write_pj_per_bit if writes else level.read_pj_per_bit)
        dram += elements * bits if key[0] == 0 else 0.0
    for key, bits in prices.hop_bits.items():
        energy += int(counts(*key)[0]) * bits * hardware.array.hop_pj_per_bit
    time = latency(
        hardware,
        nest,
        prices,
        steps=counts.steps,
        value=counts.values.get,
        used=counts.used,
        vector=asked.store is None,
    )
    cycles = float(time.total[0])
    energy += cycles * asked.static_pj_per_cycle + asked.compute_pj
    filled = occupancy(hardware, asked.shape, nest, trips, counts, asked.store, asked.residency)
    return Price(energy, dram, cycles, all(room.excess_bits <= 0 for room in filled))


def every_arrangement(asked: Problem) -> list[Arrangement]:
    """Choices of bypass and unrolling."""
    return arrangements(
        asked.hardware,
        asked.shape,
        asked.dataflow,
        has_weights=asked.store is not None,
        latch=asked.rules.latch,
        resident=asked.residency.tensors,
        perfect=asked.options.perfect,
    )


Order = tuple[tuple[Tensor, int], ...]


def cut_orders(here: Arrangement) -> list[Order]:
    """Orders of the cuts of memories: any that takes each tensor's outermost first."""
    found: set[Order] = set()

    def follow(taken: Order, left: list[list[tuple[Tensor, int]]]) -> None:
        if not any(left):
            found.add(taken)
        for i, chain in enumerate(left):
            if chain:
                rest = [list(other) for other in left]
                follow((*taken, rest[i].pop(0)), rest)

    follow((), [[(t, level) for level in here.cuts[t] if level < here.macs] for t in Tensor])
    return sorted(found)


def tiles(here: Arrangement, asked: Problem, order: Order) -> Ints:
    """Every chain of tiles for an order of cuts, ``(B, cuts, 8)``; loops over any dim anywhere."""
    ladders = here.ladders
    chains = [
        list(_chains(ladders[dim].reach, len(order), whole=dim in asked.dataflow.whole))
        for dim in Dim
    ]
    rows = [np.array(each, dtype=np.int64).T for each in product(*chains)]
    places = np.stack(rows) if order else np.empty((1, 0, len(Dim)), dtype=np.int64)
    return places[_valid(here, order, places)]


def _valid(here: Arrangement, order: Order, places: Ints) -> Ints:
    """Which tiles keep to the rules of the mapspace, for an order of cuts."""
    good = np.ones(places.shape[0], dtype=np.bool_)
    grid = [ladder.trips.size for ladder in here.ladders]
    for i, (tensor, level) in enumerate(order):
        if level == 1 and tensor in here.resident:
            good &= ~np.any(places[:, i] > 0, axis=1)
        elif tensor is Tensor.INPUT:
            good &= np.broadcast_to(bound.window_rule(here, level), grid)[tuple(places[:, i].T)]
        before = places[:, i - 1] if i else 0 * places[:, i]
        good &= _in_one_piece(here, order, i, places[:, i] != before)
    return good


def _chains(reach: tuple[Ints, ...], length: int, *, whole: bool) -> Iterator[tuple[int, ...]]:
    def follow(at: int, left: int, so_far: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
        if not left:
            yield so_far
            return
        for after in [0] if whole else reach[at].tolist():
            yield from follow(after, left - 1, (*so_far, after))

    yield from follow(0, length, ())


def _in_one_piece(here: Arrangement, order: Order, i: int, cut: Ints) -> Ints:
    """No dim is cut after it fanned out as long as an outer level's tile is still to come."""
    good = np.ones(cut.shape[0], dtype=np.bool_)
    for dim, axis, _ in here.fan:
        place = here.places[axis]
        fanned = any(level > place for _, level in order[:i])
        if fanned and any(level <= place for _, level in order[i:]):
            good &= ~cut[:, dim]
    return good


def shared_cuts(here: Arrangement, asked: Problem) -> tuple[Order, Ints]:
    """One cut a level for all its tensors: their order and every chain of tiles."""
    levels = [[t for t in Tensor if level in here.cuts[t]] for level in range(1, here.macs)]
    held = [level for level, tensors in enumerate(levels, 1) if tensors]
    order = tuple((t, level) for level in held for t in levels[level - 1])
    every = tuple((levels[level - 1][0], level) for level in held)
    chains = [
        list(_chains(here.ladders[dim].reach, len(every), whole=dim in asked.dataflow.whole))
        for dim in Dim
    ]
    rows = np.stack([np.array(each, dtype=np.int64).T for each in product(*chains)])
    at = [held.index(level) for _, level in order]
    places = rows[:, at]
    return order, places[_valid(here, order, places)]


def best_even(asked: Problem, objective: Objective, *, most: int = 3000) -> float | None:
    """Least cost of all nests with one cut a level and any order of loops; None if too many."""
    least = np.inf
    for here in every_arrangement(asked):
        order, places = shared_cuts(here, asked)
        if places.shape[0] > most:
            return None
        if places.shape[0]:
            least = min(least, _best_of(here, asked, order, places, objective)[0])
    return least


def best(asked: Problem, objective: Objective, *, most: int = 40_000) -> tuple[float, int] | None:
    """Least cost by brute force and the number of mappings tried; None if there are too many."""
    least, tried = np.inf, 0
    for here in every_arrangement(asked):
        for order in cut_orders(here):
            many = 1
            for dim in Dim:
                size = here.ladders[dim].trips.size
                many *= (
                    len(list(_chains(here.ladders[dim].reach, len(order), whole=False)))
                    if size > 1
                    else 1
                )
            tried += many
            if tried > most:
                return None
    tried = 0
    for here in every_arrangement(asked):
        for order in cut_orders(here):
            places = tiles(here, asked, order)
            if places.shape[0]:
                cost, many = _best_of(here, asked, order, places, objective)
                least, tried = min(least, cost), tried + many
    return least, tried


def _best_of(
    here: Arrangement,
    asked: Problem,
    order: Order,
    places: Ints,
    objective: Objective,
) -> tuple[float, int]:
    path = tuple(Step(tensor, level, tuple(Dim), (0, 0, 0), late=False) for tensor, level in order)
    layout = lay_out(here, path, places)
    loops = layout.nest.loops
    each = []
    for positions in layout.blocks:
        outer = [i for i in positions if loops[i].dim not in (Dim.R, Dim.S)]
        taps = [i for i in positions if loops[i].dim in (Dim.R, Dim.S)]
        still = [i for i in outer if loops[i].dim in STILL] if _ragged(here) else []
        turned = [i for i in outer if i not in still]
        each.append([(*still, *a, *b) for a in permutations(turned) for b in permutations(taps)])
    ranks = []
    for chosen in product(*each):
        rank = list(range(len(loops)))
        for positions, turned in zip(layout.blocks, chosen, strict=True):
            for spot, position in zip(sorted(positions), turned, strict=True):
                rank[position] = spot
        ranks.append(tuple(rank))
    choices, index = choices_of(layout.nest, layout.trips)
    least = np.inf
    for expansion in expand_orders(here.shape, layout.nest, choices, asked.rules, ranks=ranks):
        counts = expansion.at(index)
        least = min(least, _least(asked, layout.nest, layout.trips, counts, objective))
    return least, len(ranks) * places.shape[0]


def _ragged(here: Arrangement) -> bool:
    """Whether instances have unequal shares: one without work forgets its tile, in any order."""
    return any(
        here.shape[dim] % (trips * here.ladders[dim].fans[-1])
        for dim, _, _ in here.fan
        for trips in here.ladders[dim].trips.tolist()
    )


def _least(asked: Problem, nest: Nest, trips: Ints, counts: Counts, objective: Objective) -> float:
    """Least cost of a batch: energy and latency as arrays, whether it fits for the best first."""
    prices = tariff(asked.hardware, nest, asked.store, asked.residency.tensors, asked.activity)
    energy = np.full(counts.steps.shape, prices.once_pj() + asked.compute_pj)
    for key, pj in prices.element_pj().items():
        energy = energy + counts(*key) * pj
    cycles = latency(
        asked.hardware,
        nest,
        prices,
        steps=counts.steps,
        value=counts.values.get,
        used=counts.used,
        vector=asked.store is None,
    ).total
    energy = energy + asked.static_pj_per_cycle * cycles
    dram = np.zeros(energy.shape)
    for key, bits in prices.bits.items():
        if key[0] == 0:
            dram = dram + counts(*key) * bits
    dram = dram + float(sum(bits for key, bits in prices.once_bits.items() if key[0] == 0))
    costs = {
        Objective.ENERGY: energy,
        Objective.LATENCY: cycles,
        Objective.DRAM: dram,
        Objective.EDP: energy * cycles,
    }[objective]
    for row in np.argsort(costs, kind="stable").tolist():
        one = slice(row, row + 1)
        single = Counts(
            counts.steps[one],
            {key: value[one] for key, value in counts.values.items()},
            tuple(used[one] for used in counts.used),
        )
        alone = price(asked, nest, tuple(trips[row].tolist()), single)
        if alone.feasible and stays(asked, nest, single):
            return alone.of(objective)
    return float("inf")


def stays(asked: Problem, nest: Nest, counts: Counts) -> bool:
    """Whether the stationary tensor goes to its innermost memory once per stay on chip."""
    still = asked.dataflow.stationary
    if still is None:
        return True
    names = ("update", "drain") if still is Tensor.OUTPUT else ("read", "fill")
    return all(
        counts(level, still, names[0])[0] == counts(level, still, names[1])[0]
        for level in nest.holders(still)[1:-1]
    )


__all__ = ["Price", "best", "best_even", "price", "replace"]
