"""Accuracy against cost: the candidates that no other beats, and how surely.

:func:`non_dominated`, :func:`knee` and :func:`hypervolume` are for any costs; :func:`pareto` joins
accuracies (:func:`load_accuracies`) with what networks cost on a chip.
"""

from energysim.pareto.chance import front_probability
from energysim.pareto.front import hypervolume, knee, non_dominated
from energysim.pareto.join import (
    MACS_TOLERANCE,
    QUANTITIES,
    Candidate,
    LeftOut,
    ParetoTable,
    Point,
    Quantity,
    left_out_lines,
    network_named,
    pareto,
)
from energysim.pareto.sources import METRICS, PUBLISHED, Accuracies, Accuracy, load_accuracies

__all__ = [
    "MACS_TOLERANCE",
    "METRICS",
    "PUBLISHED",
    "QUANTITIES",
    "Accuracies",
    "Accuracy",
    "Candidate",
    "LeftOut",
    "ParetoTable",
    "Point",
    "Quantity",
    "front_probability",
    "hypervolume",
    "knee",
    "left_out_lines",
    "load_accuracies",
    "network_named",
    "non_dominated",
    "pareto",
]
