"""Pruning before training: SynFlow, SNIP, GraSP, magnitude, chance.

:func:`prune` gives a network its masks, which :func:`energysim.simulate` counts and
:func:`energysim.train.run.train` trains.
"""

from energysim.prune.alike import alike
from energysim.prune.prune import (
    BY_DATA,
    METHODS,
    SCHEDULES,
    STEPS,
    CollapseError,
    Kept,
    Pruned,
    critical_compression,
    erdos_renyi,
    prune,
)
from energysim.prune.scores import Grasp, Snip, Start, SynFlow

__all__ = [
    "BY_DATA",
    "METHODS",
    "SCHEDULES",
    "STEPS",
    "CollapseError",
    "Grasp",
    "Kept",
    "Pruned",
    "Snip",
    "Start",
    "SynFlow",
    "alike",
    "critical_compression",
    "erdos_renyi",
    "prune",
]
