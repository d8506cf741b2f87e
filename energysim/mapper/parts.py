"""Costs of a mapping as sums over cuts, for bounds, and exact figures of complete ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from energysim.axes import Dim, Tensor
from energysim.mapper import bound
from energysim.mapper.problem import Problem
from energysim.mapper.space import Arrangement
from energysim.mapping import Nest
from energysim.model.bounds import compulsory_elements
from energysim.model.capacity import element_bits
from energysim.model.counts import Counts, Key
from energysim.model.energy import tariff
from energysim.model.latency import MOVED, Links, latency, links, overlaps

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Part:
    """A cost that is a sum over cuts: energy, DRAM traffic, or cycles that something takes."""

    prices: Mapping[Key, float]
    start: float
    """whatever the mapping"""
    first_tile: Mapping[Tensor, float] = field(default_factory=dict)
    """per element of the first (of ``output``: the last) tile of the outermost on-chip level"""
    fold: Mapping[tuple[Tensor, int], float] = field(default_factory=dict)
    """per tile of a cut, one after the other"""


def _sum(prices: Mapping[Key, float], more: Mapping[Key, float]) -> dict[Key, float]:
    return {key: prices.get(key, 0.0) + more.get(key, 0.0) for key in {**prices, **more}}


class CostModel:
    """Costs of an arrangement: their parts for bounds, and exact figures of complete mappings."""

    def __init__(self, problem: Problem, here: Arrangement) -> None:
        self.problem, self.here = problem, here
        self.tariff = tariff(
            problem.hardware,
            self._structure(),
            problem.store,
            problem.residency.tensors,
            problem.activity,
        )
        self.prices = self.tariff.element_pj()
        self.start_pj = self.tariff.once_pj() + problem.compute_pj
        self.energy = Part(self.prices, self.start_pj)
        self.dram = Part(
            {key: bits for key, bits in self.tariff.bits.items() if key[0] == 0},
            float(sum(bits for key, bits in self.tariff.once_bits.items() if key[0] == 0)),
        )
        self.static = problem.static_pj_per_cycle

    def _structure(self) -> Nest:
        """A nest without loops: which level holds what."""
        here = self.here
        rows = [[0 if tensor in held else None for tensor in Tensor] for held in here.holds]
        return Nest((), tuple((row[0], row[1], row[2]) for row in rows), here.axes[: here.macs])

    def cycles(self) -> list[Part]:
        """Times of which the latency is the longest, each with all that cannot overlap."""
        here, hardware = self.here, self.problem.hardware
        nest = self._structure()
        added: dict[Key, float] = {}
        start = 0.0
        first, fold = self._first_tiles(nest), self._folds()
        waits: dict[Key, float] = {}
        waited, buses = 0.0, list[Mapping[Key, float]]()
        if self.problem.store is not None:
            found = links(hardware, nest, self.tariff)
            waits = {key: float(each) for key, each in found.waits.items()}
            buses = [prices for _, prices in found.busy]
            waited = self._first_inputs(found)
        together = [Part(waits, self._steps() + waited, first, fold)]
        # the first inputs are part of what the bus for them carries
        together += [Part(_sum(own, waits), 0.0, first, {}) for own in buses]
        for level, memory in enumerate(hardware.levels):
            width = memory.bandwidth_bits_per_cycle
            if width is None:
                continue
            for axis in here.axes[level]:
                width *= hardware.axis_sizes[axis]
            own = {key: bits / width for key, bits in self.tariff.bits.items() if key[0] == level}
            once = sum(b for key, b in self.tariff.once_bits.items() if key[0] == level) / width
            if overlaps(hardware, nest, level):
                # first and last tiles are part of what DRAM moves
                together.append(Part(own, once, first if level else {}, {}))
            else:
                added |= own
                start += once
        return [
            Part(_sum(part.prices, added), part.start + start, part.first_tile, part.fold)
            for part in together
        ]

    def _first_inputs(self, buses: Links) -> float:
        """At least so many cycles pass while the array waits for the first inputs of all passes.

        A pass has at most the weights that the array has room for, and begins with an input for
        each instance that differs in batch, group or channel; with none, where it begins with
        padding.
        """
        here, hardware = self.here, self.problem.hardware
        load = buses.loads.get(Tensor.INPUT)
        if load is None or not buses.every_pass or any(here.shape.pad):
            return 0.0
        least = compulsory_elements(here.shape)[Tensor.INPUT]
        level = buses.loads[Tensor.WEIGHT].first[0]
        size = hardware.levels[level].capacity_bits()
        room = size[Tensor.WEIGHT] if isinstance(size, dict) else size
        if room is None or hardware.levels[level].compressed:
            return 0.0
        held = room // hardware.bits.weight * hardware.instances(level)
        passes = max(1.0, here.shape.elements(Tensor.WEIGHT) / max(held, 1))
        inputs = passes * bound.apart(here, (Dim.N, Dim.G, Dim.C))
        return min(inputs, float(least)) * load.cycles

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
            bits = sum(self.tariff.bits.get((0, tensor, name), 0.0) for name in MOVED[tensor])
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

    def cost(self, part: Part, tensor: Tensor, level: int, *, late: bool = False) -> Floats:
        """Bound of what a cut adds to a part, for every tile."""
        here, rules = self.here, self.problem.rules
        cost = bound.cut_cost(here, rules, tensor, level, part.prices, late=late)
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

    def least(self, parts: Sequence[Part]) -> Floats:
        """What no mapping can do without by each part, known before any tile, shape (1, parts)."""
        return np.array([[part.start + self.at_macs(part) for part in parts]])

    def at_macs(self, part: Part) -> float:
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
