"""What is sought, the best found so far, and the tally."""

from __future__ import annotations

from collections.abc import Mapping
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
        self.evaluated = self.pruned_bound = self.pruned_capacity = 0
        named = {problem.objective, problem.other}
        self.with_dram = Objective.DRAM in named
        timed = bool(named & {Objective.LATENCY, Objective.EDP})
        self.with_cycles = timed or bool(problem.static_pj_per_cycle)
        self.seek(problem.objective)

    def seek(self, objective: Objective, limits: Mapping[Objective, float] | None = None) -> None:
        """Begin a round: minimise one figure while others stay within limits."""
        self.objective, self.limits = objective, dict(limits or {})
        self.best = np.inf
        self.found: list[tuple[float, Mapped]] = []
        self.turns = 0

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
        """What is minimised in this round; infinite beyond a limit."""
        own = figure(self.objective, energy, cycles, dram)
        for objective, limit in self.limits.items():
            own = np.where(figure(objective, energy, cycles, dram) <= limit, own, np.inf)
        return own

    def values(self, parts: Floats) -> Floats:
        """Bounds of what is minimised."""
        return self.cost(*self.figures(parts))

    def promising(self, values: Floats) -> Bools:
        """Which bounds are below the best cost."""
        if not self.problem.options.prune:
            return np.ones(values.shape, dtype=np.bool_)
        return values < self.limit * (1 - TIE)

    @property
    def limit(self) -> float:
        """Cost below which a mapping is of use: better than the best, or than the last runner-up.

        Infinite as long as fewer are known than are asked for.
        """
        wanted = self.problem.options.runners_up
        if not wanted:
            return self.best
        return self.found[wanted][0] if len(self.found) > wanted else np.inf

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


def figure(objective: Objective, energy: Floats, cycles: Floats, dram: Floats) -> Floats:
    """An objective's figure of some mappings."""
    if objective is Objective.EDP:
        return np.where(np.isfinite(energy), energy * cycles, np.inf)
    own = {Objective.ENERGY: energy, Objective.LATENCY: cycles, Objective.DRAM: dram}
    return own[objective]
