"""What a search is asked for, and what it says about its answer."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum


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
class Options:
    """How to search."""

    perfect: bool = False
    """only trip counts that divide"""
    budget_s: float | None = None
    """stop after this long [s]"""
    runners_up: int = 0
    """how many of the next best costs to find for certain as well (at most 4)"""
    prune: bool = True
    """False: continue every partial mapping, whatever its bound (for tests)"""


@dataclass(frozen=True, slots=True)
class Certificate:
    """What a search has looked at."""

    mapspace: int = 1
    """mappings: choices of bypass and unrolling, orders of cuts and chains of tile sizes"""
    evaluated: int = 1
    """mappings counted exactly, with all loop orders inside blocks that can differ in cost"""
    pruned_bound: int = 0
    """partial mappings that no completion can make better than the best one"""
    pruned_capacity: int = 0
    """partial mappings that do not fit a level"""
    optimal: bool = True
    """no mapping of the mapspace is better"""
    gap: float = 0.0
    """how far below the best cost the lower bound of all mappings is, relative"""
    seconds: float = field(default=0.0, compare=False)
    """wall clock; never part of a result file"""

    def __add__(self, other: Certificate) -> Certificate:
        return Certificate(
            self.mapspace + other.mapspace,
            self.evaluated + other.evaluated,
            self.pruned_bound + other.pruned_bound,
            self.pruned_capacity + other.pruned_capacity,
            self.optimal and other.optimal,
            max(self.gap, other.gap),
            self.seconds + other.seconds,
        )


@dataclass(frozen=True, slots=True)
class Measure:
    """What one mapping costs."""

    energy: float
    """[pJ]"""
    latency: float
    """[cycle]"""
    dram: float
    """[bit]"""

    def of(self, objective: Objective) -> float:
        """The cost by one objective."""
        if objective is Objective.EDP:
            return self.energy * self.latency
        return float(getattr(self, objective))
