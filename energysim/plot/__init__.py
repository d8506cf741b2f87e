"""Pictures of results. Each function draws a table into axes and gives them back."""

from __future__ import annotations

from energysim.plot.costs import Costs, Saved, read_costs
from energysim.plot.energy import By, energy, energy_figure
from energysim.plot.mapping import mapping, mapping_figure
from energysim.plot.methods import methods_figure
from energysim.plot.pareto import pareto, pareto_figure
from energysim.plot.patterns import gallery, gallery_figure
from energysim.plot.roofline import roofline, roofline_figure
from energysim.plot.style import FORMS, STYLE, check_form, new_figure, save
from energysim.plot.tornado import tornado, tornado_figure
from energysim.plot.traffic import traffic, traffic_figure
from energysim.plot.training import curves, read_curves, training_figure
from energysim.plot.validation import validation

__all__ = [
    "FORMS",
    "STYLE",
    "By",
    "Costs",
    "Saved",
    "check_form",
    "curves",
    "energy",
    "energy_figure",
    "gallery",
    "gallery_figure",
    "mapping",
    "mapping_figure",
    "methods_figure",
    "new_figure",
    "pareto",
    "pareto_figure",
    "read_costs",
    "read_curves",
    "roofline",
    "roofline_figure",
    "save",
    "tornado",
    "tornado_figure",
    "traffic",
    "traffic_figure",
    "training_figure",
    "validation",
]
