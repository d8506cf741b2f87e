"""Accuracy of methods against what they cost, a panel a machine and batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
import numpy as np
from matplotlib.lines import Line2D

from energysim.methods import AXES, Comparison, Family, Panel
from energysim.plot.bars import JOULES
from energysim.plot.beside import Label, place_labels
from energysim.plot.pareto import LOGARITHMIC, SECONDS, dark, draw_front, plain_ticks
from energysim.plot.sheet import NARROW_IN, figure_of, settle, sheet, words_pt
from energysim.plot.style import INK, OKABE_ITO, PAGE_IN, STYLE
from energysim.units import COUNTS, Unit, heading, unit_for

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = {
    Family.DENSE: "black",
    Family.PERIODIC: "blue",
    Family.BY_KERNEL: "sky",
    Family.BLOCKS: "green",
    Family.PRUNING: "orange",
    Family.CHANCE: "yellow",
    Family.REWIRING: "vermillion",
    Family.LOW_RANK: "purple",
}
MARKERS = "osD^vPX*<>hdp8"
"""Of the methods of a family in turn."""

UNITS: dict[str, tuple[float, Sequence[Unit]]] = {
    "energy_mj": (1e9, JOULES),
    "training_energy_mj": (1e9, JOULES),
    "time_ms": (1e6, SECONDS),
    "parameters": (1, COUNTS),
    "effective_macs": (1, COUNTS),
}
"""By column: the smallest units in its own, and the units that an axis may have."""

COLUMNS = 3
"""Panels beside each other at most."""

PANEL_IN = {True: 2.0, False: 2.2}
"""Height of a panel in narrow and in wide pictures [inch]."""

MARKER = 0.62
"""Size of a point, in sizes of words."""

COLLAPSED = 0.25
"""Share of the methods that may stand below the axis, where they would squeeze all others."""

BEHIND = 1.6
"""Room beside the costs, as a factor of the distance of neighbours, on a logarithmic axis."""


@dataclass(frozen=True, slots=True)
class _Look:
    colour: str
    marker: str


def methods_figure(
    found: Comparison, axes: Sequence[str] = ("energy",), *, width_in: float = PAGE_IN
) -> Figure:
    """Draw methods beside each other.

    Parameters
    ----------
    found : Comparison
    axes : sequence of str
        Names of :data:`energysim.methods.AXES` that accuracy is set against.
    width_in : float
        Of the picture [inch].

    Returns
    -------
    matplotlib.figure.Figure
        A panel a machine and batch, as far as costs depend on them; a point a method and density,
        in the colour of what the method does and a shape of its own, with the front as steps and
        names where it bends. A few methods that collapsed stand at the lower edge, with their
        accuracy.
    """
    panels = found.panels([AXES[name] for name in axes])
    narrow = width_in < NARROW_IN
    columns = 1 if narrow else min(COLUMNS, len(panels))
    if not narrow and len(found.batches) <= COLUMNS and len(panels) > COLUMNS:
        columns = max(len(found.batches), 2) if "energy" in axes or "latency" in axes else columns
    rows = ceil(len(panels) / columns)
    looks = method_looks(found)
    handles: list[Any] = [
        Line2D([], [], color=look.colour, marker=look.marker, linestyle="", markersize=4.5,
               markeredgecolor=dark(look.colour), markeredgewidth=0.5, label=name)
        for name, look in looks.items()
    ]  # fmt: skip
    handles.append(Line2D([], [], color=INK, linewidth=1.0, label="front"))
    figure = sheet(width_in, rows * PANEL_IN[narrow], _title(found), handles=handles)
    with mpl.rc_context(STYLE):
        drawn = [
            (panel, _draw(found, panel, figure.add_subplot(rows, columns, place + 1), looks))
            for place, panel in enumerate(panels)
        ]
        settle(figure)
        for panel, (each, steps) in drawn:
            _write_names(found, panel, each, steps)
    return figure


def method_looks(found: Comparison) -> dict[str, _Look]:
    """Colour and shape of each method, by name."""
    used: dict[Family, int] = {}
    looks: dict[str, _Look] = {}
    for family in Family:
        for point in found.points:
            if point.method.family is family and point.method.name not in looks:
                place = used.get(family, 0)
                used[family] = place + 1
                colour = OKABE_ITO[COLOURS[family]]
                looks[point.method.name] = _Look(colour, MARKERS[place % len(MARKERS)])
    return looks


def _title(found: Comparison) -> tuple[str, ...]:
    job = found.job
    seeds = max(len(each.runs) for each in found.points)
    drawn = ("SYNTHETIC images",) if job.data.synthetic else ()
    attack = (f"attack: {found.attack}",) if found.attack else ()
    return (
        f"Accuracy of {found.network.name} made cheap",
        job.data.name,
        f"{job.recipe.epochs} epochs",
        f"{seeds} seeds" if seeds > 1 else "1 seed: differences may be chance",
        *attack,
        *drawn,
    )


def _draw(
    found: Comparison, panel: Panel, axes: Axes, looks: dict[str, _Look]
) -> tuple[Axes, list[tuple[float, float, float, float]]]:
    """Points and front of one panel; names come when all stands."""
    size = words_pt(figure_of(axes).get_figwidth())
    costs, unit = _scaled(found, panel)
    axes.tick_params(labelsize=size)
    axes.set_xlabel(heading(panel.axis.label, unit), fontsize=size)
    axes.set_ylabel("top-1 under attack [%]" if panel.robust else "top-1 [%]", fontsize=size)
    words = [panel.hardware, f"batch {panel.batch}" if panel.batch else ""]
    axes.set_title(" · ".join(filter(None, words)), fontsize=size, loc="left", color=INK)
    accuracies = [each.accuracy(robust=panel.robust) for each in found.points]
    edge = _limits(axes, costs, accuracies)
    fronts = found.front(panel)
    for point, cost, front, (percent, std) in zip(
        found.points, costs, fronts, accuracies, strict=True
    ):
        look = looks[point.method.name]
        if std and percent > edge:
            axes.plot((cost, cost), (percent - std, percent + std),
                      color=dark(look.colour), linewidth=0.5, alpha=0.6, zorder=2,
                      solid_capstyle="butt")  # fmt: skip
        axes.plot(cost, max(percent, edge), marker=look.marker, markersize=size * MARKER,
                  color=look.colour, markeredgecolor=dark(look.colour), markeredgewidth=0.5,
                  linestyle="", zorder=4 if front else 3, clip_on=percent >= edge)  # fmt: skip
    on_front = [(cost, percent) for cost, (percent, _), front
                in zip(costs, accuracies, fronts, strict=True) if front]  # fmt: skip
    steps = draw_front(axes, on_front)
    plain_ticks(axes)
    return axes, steps


def _scaled(found: Comparison, panel: Panel) -> tuple[list[float], str]:
    """Costs in the unit of the axis, and that unit."""
    own, units = UNITS[panel.axis.column]
    costs = [each * own for each in found.costs(panel)]
    scale, unit = unit_for(costs, units)
    return [each / scale for each in costs], unit


def _limits(
    axes: Axes, costs: Sequence[float], accuracies: Sequence[tuple[float, float | None]]
) -> float:
    """Set what the axes reach; the least accuracy that has room."""
    low, high = min(costs), max(costs)
    if low > 0 and high > LOGARITHMIC * low:
        axes.set_xscale("log")
        margin = (high / low) ** 0.08
        axes.set_xlim(low / margin, high * margin)
    else:
        margin = 0.1 * (high - low) or 0.1 * high or 1.0
        axes.set_xlim(max(0.0, low - margin), high + margin)
    collapsed = _collapsed([percent for percent, _ in accuracies])
    shown = [each for each in accuracies if each[0] > collapsed]
    least = min(percent - (std or 0) for percent, std in shown)
    most = max(percent + (std or 0) for percent, std in shown)
    room = 0.12 * (most - least) or 1.0
    axes.set_ylim(least - room, most + room)
    return least - room


def _collapsed(percents: Sequence[float]) -> float:
    """Accuracy that few have at most, farther from all others than these are from each other.

    Examples
    --------
    >>> _collapsed([98.4, 97.1, 48.6, 98.8, 99.1, 98.0, 98.1, 97.9, 82.4])
    82.4
    >>> _collapsed([98.4, 97.1, 96.6])
    -inf
    """
    order = sorted(percents)
    for many in range(int(COLLAPSED * len(order)), 0, -1):
        if order[many] - order[many - 1] > order[-1] - order[many]:
            return order[many - 1]
    return float("-inf")


def _write_names(
    found: Comparison,
    panel: Panel,
    axes: Axes,
    steps: list[tuple[float, float, float, float]],
) -> None:
    """Names beside the points of the front, the dense network, and those below the axis."""
    size = words_pt(figure_of(axes).get_figwidth())
    costs, _ = _scaled(found, panel)
    looks = method_looks(found)
    percents = [each.accuracy(robust=panel.robust)[0] for each in found.points]
    edge = axes.get_ylim()[0]
    named = [
        Label(
            point.method.label if percent > edge else f"↓ {point.method.label}: {percent:.1f} %",
            cost,
            max(percent, edge),
            {"fontsize": size - 1, "color": dark(looks[point.method.name].colour)},
            size * MARKER / 2,
        )
        for point, cost, percent, front in zip(
            found.points, costs, percents, found.front(panel), strict=True
        )
        if front or point.method.name == "dense" or percent <= edge
    ]
    place_labels(
        axes,
        named,
        points=np.column_stack([costs, np.maximum(percents, edge)]),
        lines=steps,
        radius_pt=size * MARKER / 2,
    )
