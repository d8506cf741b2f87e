"""Accuracy against what it costs, with the front that no other beats."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
import numpy as np
from matplotlib.colors import to_rgb
from matplotlib.lines import Line2D

from energysim.pareto import ParetoTable, Point
from energysim.plot.bars import JOULES
from energysim.plot.beside import Label, place_labels
from energysim.plot.sheet import NARROW_IN, settle, sheet, words_pt
from energysim.plot.style import FAINT, INK, OKABE_ITO, PAGE_IN, STYLE
from energysim.units import BYTES, COUNTS, Unit, heading, unit_for

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MARKERS = "osD^vPX*"
COLOURS = ("blue", "vermillion", "green", "purple", "orange", "sky", "black")
"""Of networks in turn; as their numbers have no common factor, 56 look different."""

SECONDS: tuple[Unit, ...] = ((1, "ns"), (1e3, "µs"), (1e6, "ms"), (1e9, "s"))

UNITS: dict[str, tuple[float, Sequence[Unit]]] = {
    "energy_mj": (1e9, JOULES),
    "training_energy_mj": (1e9, JOULES),
    "time_ms": (1e6, SECONDS),
    "dram_bytes": (1, BYTES),
    "parameters": (1, COUNTS),
}
"""By column: the smallest units in its own, and the units that an axis may have."""

LOGARITHMIC = 4.0
"""Costs, or ends of intervals, that differ by a larger factor stand on a logarithmic axis."""

FLOOR = 1e-3
"""Ends of intervals are drawn down to this share of the smallest cost, as an axis may need."""

HEIGHTS = {True: 2.5, False: 3.7}
"""Of the panel in narrow and in wide pictures [inch]."""


MARKER, KNEE = 0.75, 1.4
"""Sizes of a point and of the ring around the knee, in sizes of words."""


_Bar = tuple[float, float, float, float, str]
"""Two ends, each x and y, and a colour."""


@dataclass(frozen=True, slots=True)
class _Look:
    colour: str
    marker: str


def pareto_figure(table: ParetoTable, *, width_in: float = PAGE_IN) -> Figure:
    """Draw accuracy against cost.

    Parameters
    ----------
    table : ParetoTable
    width_in : float
        Of the picture [inch].

    Returns
    -------
    matplotlib.figure.Figure
        A point a candidate, in the colour and shape of its network, the fuller the more probably it
        is on the front; the front as steps over what it dominates, with the names of its patterns
        and its knee; thin bars for intervals of the front and errors of accuracies.
    """
    narrow = width_in < NARROW_IN
    looks = network_looks(table)
    handles: list[Any] = [
        Line2D(
            [], [], color=look.colour, marker=look.marker, linestyle="", markersize=5, label=name
        )
        for name, look in looks.items()
    ]
    handles += _key(table)
    figure = sheet(width_in, HEIGHTS[narrow], _title(table), handles=handles)
    with mpl.rc_context(STYLE):
        pareto(table, figure.add_subplot())
    return figure


def _key(table: ParetoTable) -> Iterator[Any]:
    """What lines and shades mean."""
    yield Line2D([], [], color=INK, linewidth=1.1, label="front")
    if table.knee is not None:
        yield Line2D([], [], color=INK, marker="o", markerfacecolor="none", linestyle="",
                     markersize=9, markeredgewidth=0.9, label="its knee")  # fmt: skip
    if any(0 < point.probability < 1 for point in table.points):
        yield Line2D([], [], color=FAINT, marker="o", markerfacecolor="#cccccc", linestyle="",
                     markersize=5, markeredgewidth=0.9, label="less surely on it")  # fmt: skip
    if any(point.high > point.low for point in table.front):
        yield Line2D([], [], color=FAINT, linewidth=0.6, label="interval")


def network_looks(table: ParetoTable) -> dict[str, _Look]:
    """Colour and shape of each network, the one with most candidates first."""
    counted = Counter(point.candidate.base for point in table.points)
    names = sorted(counted, key=lambda name: (-counted[name], name))
    return {
        name: _Look(OKABE_ITO[COLOURS[i % len(COLOURS)]], MARKERS[i % len(MARKERS)])
        for i, name in enumerate(names)
    }


def _title(table: ParetoTable) -> tuple[str, ...]:
    result = table.points[0].result
    where = (table.accuracies.dataset,) if table.accuracies.dataset else ()
    return (f"Accuracy against {table.quantity.label.removesuffix(' per image')}",
            *where, f"{table.hardware.name}, batch {result.batch}")  # fmt: skip


def pareto(table: ParetoTable, axes: Axes) -> Axes:
    """Draw accuracy against cost into axes of a figure that is laid out.

    Parameters
    ----------
    table : ParetoTable
    axes : Axes

    Returns
    -------
    Axes
    """
    figure = axes.get_figure(root=True)
    assert figure is not None
    size = words_pt(figure.get_figwidth())
    looks = network_looks(table)
    column = table.quantity.column
    in_column, units = UNITS[column]
    scale, unit = unit_for([point.cost * in_column for point in table.points], units)
    factor = in_column / scale
    costs = np.array([point.cost for point in table.points]) * factor
    axes.tick_params(labelsize=size)
    axes.set_xlabel(heading(table.quantity.label, unit), fontsize=size + 0.5)
    axes.set_ylabel(f"{table.accuracies.label} [%]", fontsize=size + 0.5)
    _limits(axes, table, costs, factor)
    intervals = list(_intervals(table, factor, axes.get_xlim()[0]))
    errors = list(_errors(table, factor))
    for point, (x, y) in zip(table.points, zip(costs, _percents(table), strict=True), strict=True):
        _draw_point(axes, point, looks[point.candidate.base], (x, y), size)
    for bars, alpha in ((intervals, 0.4), (errors, 0.9)):
        for x0, y0, x1, y1, colour in bars:
            axes.plot((x0, x1), (y0, y1), color=colour, linewidth=0.5, alpha=alpha, zorder=2,
                      solid_capstyle="butt")  # fmt: skip
    steps = draw_front(axes, ((point.cost * factor, point.percent) for point in table.front))
    plain_ticks(axes)
    settle(figure)
    place_labels(
        axes,
        [_label(table, point, x, size) for point, x in _named(table, costs)],
        points=np.column_stack([costs, _percents(table)]),
        lines=steps,
        thin=[bar[:4] for bar in (*intervals, *errors)],
        radius_pt=size * MARKER / 2,
    )  # fmt: skip
    return axes


def _percents(table: ParetoTable) -> list[float]:
    return [point.percent for point in table.points]


def _limits(axes: Axes, table: ParetoTable, costs: Any, factor: float) -> None:
    """Room around all points, and for the intervals of the front."""
    lows = [point.low * factor for point in table.front]
    highs = [point.high * factor for point in table.front]
    low, high = min(costs.min(), *lows), max(costs.max(), *highs)
    if costs.min() > 0 and high > LOGARITHMIC * costs.min():
        low = max(low, FLOOR * costs.min())
        axes.set_xscale("log")
        margin = (high / low) ** 0.06
        axes.set_xlim(low / margin, high * margin)
    else:
        margin = 0.08 * (high - low) or 0.1 * abs(high) or 1.0
        axes.set_xlim(max(low - margin, 0.0) if low >= 0 else low - margin, high + margin)
    percents, errors = _percents(table), [point.error or 0.0 for point in table.points]
    least = min(each - error for each, error in zip(percents, errors, strict=True))
    most = max(each + error for each, error in zip(percents, errors, strict=True))
    room = 0.09 * (most - least) or 1.0
    axes.set_ylim(least - room, most + room)


def _intervals(table: ParetoTable, factor: float, floor: float) -> Iterator[_Bar]:
    """Costs with all constants at their ends, of what is on the front."""
    looks = network_looks(table)
    for point in table.front:
        if point.high > point.low:
            low, y = max(point.low * factor, floor), point.percent
            yield low, y, point.high * factor, y, looks[point.candidate.base].colour


def _errors(table: ParetoTable, factor: float) -> Iterator[_Bar]:
    """How far off accuracies may be."""
    looks = network_looks(table)
    for point in table.points:
        if point.error:
            x, y = point.cost * factor, point.percent
            colour = looks[point.candidate.base].colour
            yield x, y - point.error, x, y + point.error, colour


def _draw_point(
    axes: Axes, point: Point, look: _Look, place: tuple[float, float], size: float
) -> None:
    """A marker, the fuller the more probably it is on the front."""
    share = point.probability
    filled = [1 - share * (1 - part) for part in to_rgb(look.colour)]
    axes.plot(*place, marker=look.marker, markersize=size * MARKER, markerfacecolor=filled,
              markeredgecolor=look.colour, markeredgewidth=0.9, linestyle="",
              zorder=4 if point.on_front else 3)  # fmt: skip
    if point.is_knee:
        axes.plot(*place, marker="o", markersize=size * KNEE, markerfacecolor="none",
                  markeredgecolor=INK, markeredgewidth=0.9, linestyle="", zorder=4)  # fmt: skip


def draw_front(
    axes: Axes, front: Iterable[tuple[float, float]]
) -> list[tuple[float, float, float, float]]:
    """Draw a front of costs and accuracies as steps, what it dominates shaded; give its pieces."""
    points = sorted(set(front))
    right, bottom = axes.get_xlim()[1], axes.get_ylim()[0]
    corners = [(points[0][0], bottom)]
    for x, y in points:
        corners += [(x, corners[-1][1]), (x, y)]
    corners.append((right, corners[-1][1]))
    across, up = zip(*corners, strict=True)
    axes.plot(across, up, color=INK, linewidth=1.0, zorder=2.2, solid_joinstyle="miter")
    axes.fill_between(across, up, bottom, color="#f4f4f4", zorder=0, linewidth=0)
    return [(*one, *other) for one, other in pairwise(corners)]


def plain_ticks(axes: Axes) -> None:
    """Plain numbers on a logarithmic axis, 1-2-5 in each decade."""
    if axes.get_xscale() != "log":
        return
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    low, high = axes.get_xlim()
    few = (1.0,) if high / low > 1e4 else (1.0, 2.0, 5.0)  # noqa: PLR2004 - four decades
    axes.xaxis.set_major_locator(LogLocator(subs=few))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())


def _named(table: ParetoTable, costs: Any) -> Iterator[tuple[Point, float]]:
    """Points with a name beside them: the front, its knee first, and what is dense."""
    placed = list(zip(table.points, costs, strict=True))
    ranked = sorted(placed, key=lambda each: (not each[0].is_knee, not each[0].on_front))
    for point, x in ranked:
        if point.on_front or point.candidate.network.pattern == "dense":
            yield point, float(x)


def _label(table: ParetoTable, point: Point, x: float, size: float) -> Label:
    """Name of the pattern; of the network where it has no other."""
    own = point.candidate
    is_alone = sum(each.candidate.base == own.base for each in table.points) == 1
    words = own.base if is_alone and own.network.pattern == "dense" else own.network.pattern
    colour = dark(network_looks(table)[own.base].colour)
    style = {"fontsize": size, "color": colour, "weight": "bold" if point.is_knee else "normal"}
    return Label(words, x, point.percent, style, size * (KNEE if point.is_knee else MARKER) / 2)


def dark(colour: str) -> tuple[float, float, float]:
    """A colour as words have it: dark enough to be read on white."""
    red, green, blue = (0.72 * part for part in to_rgb(colour))
    return red, green, blue
