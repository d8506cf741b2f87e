"""What is sought, the best found so far, and the tally."""

from __future__ import annotations

from time import monotonic

import numpy as np
import numpy.typing as npt

from energysim.mapper.dataflows import Dataflow
from energysim.mapper.goal import Objective
from energysim.mapper.parts import CostModel, Part
from energysim.mapper.problem import Mapped, Problem

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]


TIE = 1e-9
"""Costs closer than this, relative, count as equal."""

KEPT = 5
"""Mappings remembered: the best and runners-up."""


class Incumbent:
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

    def parts_of(self, model: CostModel) -> list[Part]:
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

    def promising(self, values: Floats) -> Bools:
        """Which bounds are below the best cost."""
        if not self.problem.options.prune:
            return np.ones(values.shape, dtype=np.bool_)
        return values < self.best * (1 - TIE)

    def exhausted(self, begin: float) -> bool:
        """Whether the time that the search has is used up."""
        budget = self.problem.options.budget_s
        return budget is not None and monotonic() - begin > budget

    def offer(self, value: float, mapped: Mapped) -> None:
        """Keep a complete mapping if it is the best, or one of the next."""
        if value < self.best * (1 - TIE) or not np.isfinite(self.best):
            self.best = value
        if any(abs(value - other) <= TIE * value for other, _ in self.found):
            return
        self.found.append((value, mapped))
        self.found.sort(key=lambda pair: pair[0])
        del self.found[KEPT:]
