"""Speed of each layer against what it computes per byte moved, below the roofs of a machine.

References
----------
S. Williams, A. Waterman, D. Patterson, "Roofline: An Insightful Visual Performance Model for
Multicore Architectures", Communications of the ACM 52(4), 2009.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf, prod
from typing import TYPE_CHECKING, Any

import matplotlib as mpl

from energysim.errors import InputError
from energysim.hardware import Hardware
from energysim.plot.costs import Costs, common_title, level_bytes
from energysim.plot.labels import Ends, Labels, Spot
from energysim.plot.rows import shortened
from energysim.plot.sheet import NARROW_IN, figure_of, settle, sheet, words_pt
from energysim.plot.style import INK, PAGE_IN, STYLE, level_looks, own_axes
from energysim.units import BITS_PER_BYTE, si

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MARKERS = ("o", "s")
"""Of DRAM, and of the memory next to it."""

SMALLEST_PT2, LARGEST_PT2 = 9.0, 60.0
"""Areas of the points of layers that take no time, and the longest [point^2]."""

MOST_LABELS = 24
"""Points that get a name, those of the layers that take longest first."""

WORDS = "operational intensity [MAC per byte moved]"

BODY_SHARE = 0.62
"""Height of the picture below its title, as a share of its width."""


@dataclass(frozen=True, slots=True)
class Roof:
    """How fast a machine can be at most, as far as one memory goes."""

    level: str
    bytes_per_ns: float
    """of all instances of the level together; inf where the file gives no limit"""

    def at(self, intensity: float, peak: float) -> float:
        """Highest speed [GMAC/s] at an intensity [MAC/byte]."""
        return min(peak, self.bytes_per_ns * intensity) if intensity else 0.0


@dataclass(frozen=True, slots=True)
class Point:
    """One layer as one memory sees it."""

    layer: str
    level: str
    intensity: float
    """[MAC/byte]; inf where the layer moves nothing there"""
    speed: float
    """[GMAC/s]"""
    time_share: float
    """part of the time of the run"""


def peak_of(hardware: Hardware) -> float:
    """Most that an array can multiply [GMAC/s]."""
    return prod(hardware.axis_sizes) * hardware.clock_mhz / 1e3


def roofs_of(hardware: Hardware) -> list[Roof]:
    """Roofs of DRAM and of the memory next to it."""
    roofs = []
    for place, level in enumerate(hardware.levels[: len(MARKERS)]):
        bits = level.bandwidth_bits_per_cycle
        if bits is None:
            roofs.append(Roof(level.name, inf))
            continue
        per_cycle = bits * hardware.instances(place) / BITS_PER_BYTE
        roofs.append(Roof(level.name, per_cycle * hardware.clock_mhz / 1e3))
    return roofs


def points_of(costs: Costs) -> list[Point]:
    """Layers that multiply, as DRAM and the memory next to it see them.

    Notes
    -----
    What counts are the MACs that the array has to take time for: where it skips zero weights, those
    that are left. A layer's speed never exceeds its roofs.
    """
    hardware = costs.inputs[1]
    skips = hardware.sparsity.weights == "skip"
    total = costs.total_time_ms or 1.0
    found = []
    for roof in roofs_of(hardware):
        moved = level_bytes(costs, roof.level)
        for row in costs.layer_rows:
            macs = row.effective_macs if skips else row.macs
            if macs and row.time_ms:
                bytes_ = moved[row.layer]
                speed = macs / (row.time_ms * 1e6)
                intensity = macs / bytes_ if bytes_ else inf
                share = row.time_ms / total
                found.append(Point(row.layer, roof.level, intensity, speed, share))
    return found


def roofline(costs: Costs, ax: Axes | None = None, *, size: float = 7.5) -> Axes:
    """Speed of each layer over its operational intensity, below the roofs of the machine.

    Parameters
    ----------
    costs : Costs
        A :class:`energysim.Result`, or one that :func:`energysim.plot.read_costs` read.
    ax : matplotlib.axes.Axes, optional
        Where to draw; on a figure of its own by default.
    size : float
        Of the words [point].

    Returns
    -------
    matplotlib.axes.Axes
        One collection of points a memory, areas by share of the time. Layers that move nothing
        there stand in a strip of their own at the right.

    Raises
    ------
    InputError
        If no layer multiplies.
    """
    axes = own_axes(ax, (PAGE_IN, PAGE_IN * BODY_SHARE))
    figure = figure_of(axes)
    points = points_of(costs)
    if not points:
        raise InputError(f"no layer of {costs.network} multiplies: there is nothing to draw")
    hardware = costs.inputs[1]
    looks = level_looks(hardware.levels)
    peak, roofs = peak_of(hardware), roofs_of(hardware)
    with mpl.rc_context(STYLE):
        frame = _Frame.around(points, roofs, peak)
        frame.set(axes, size)
        for roof, marker in zip(roofs, MARKERS, strict=False):
            own = [point for point in points if point.level == roof.level]
            colour = looks[roof.level].colour
            axes.scatter(
                [frame.place(point.intensity) for point in own],
                [point.speed for point in own],
                s=[_area(point, points) for point in own],
                marker=marker,
                zorder=3,
                linewidths=0.5 if marker == "o" else 0.9,
                label=roof.level,
                facecolors=colour if marker == "o" else "none",
                edgecolors="white" if marker == "o" else colour,
            )
        lines = [(f"array: {si(peak)} GMAC/s", frame.top(peak), INK)]
        lines += [
            (f"{roof.level}: {si(roof.bytes_per_ns)} GB/s", frame.slope(roof, peak),
             looks[roof.level].colour)
            for roof in roofs if roof.bytes_per_ns < inf
        ]  # fmt: skip
        for _, ends, colour in lines:
            axes.plot(*zip(*ends, strict=True), color=colour, linewidth=1.2, zorder=2)
        settle(figure)
        labels = Labels(axes)
        spots = _spots(points, frame, size)
        labels.keep_clear_of_points(spots)
        for words, ends, colour in lines:
            labels.keep_clear_of(ends)
            labels.along(words, ends, colour, size)
        labels.beside(spots)
    return axes


@dataclass(frozen=True, slots=True)
class _Frame:
    """Ends of the axes, and the strip for layers that move nothing."""

    left: float
    right: float
    low: float
    high: float
    strip: float | None
    """where the strip begins"""

    @classmethod
    def around(cls, points: Sequence[Point], roofs: Sequence[Roof], peak: float) -> _Frame:
        finite = [point.intensity for point in points if point.intensity < inf]
        # the bends of the roofs are what the points are seen against
        bends = [peak / roof.bytes_per_ns for roof in roofs if roof.bytes_per_ns < inf]
        ends = [*finite, *bends] or [1.0]
        left, right = min(ends) / 3, max(ends) * 3
        speeds = [point.speed for point in points]
        low, high = min(*speeds, peak) / 3, peak * 2
        if all(point.intensity < inf for point in points):
            return cls(left, right, low, high, None)
        strip = right
        return cls(left, right * (right / left) ** 0.14, low, high, strip)

    def place(self, intensity: float) -> float:
        """Where a point stands; those of the strip in its middle."""
        if intensity < inf or self.strip is None:
            return intensity
        return float((self.strip * self.right) ** 0.5)

    def top(self, peak: float) -> Ends:
        """Line of the most that the array can do."""
        return (self.left, peak), (self.right, peak)

    def slope(self, roof: Roof, peak: float) -> Ends:
        """Line of what a memory feeds the array with, as far as it can be seen."""
        start = max(self.left, self.low / roof.bytes_per_ns)
        return (start, roof.bytes_per_ns * start), (peak / roof.bytes_per_ns, peak)

    def set(self, axes: Axes, size: float) -> None:
        """Scale, name and, where needed, divide the axes."""
        axes.set(xscale="log", yscale="log", xlim=(self.left, self.right),
                 ylim=(self.low, self.high))  # fmt: skip
        axes.set_xlabel(WORDS, size=size)
        axes.set_ylabel("speed [GMAC/s]", size=size)
        axes.tick_params(labelsize=size, which="both")
        axes.minorticks_off()
        if self.strip is not None:
            axes.axvspan(self.strip, self.right, color="#f4f4f4", zorder=0)
            ticks = [tick for tick in axes.get_xticks() if self.left <= tick <= self.strip]
            axes.set_xticks(ticks)
            axes.set_xticks([self.place(inf)], ["∞"], minor=True)
            narrow = figure_of(axes).get_figwidth() < NARROW_IN
            joint = "\n" if narrow else "; "
            axes.set_xlabel(f"{WORDS}{joint}∞ where none is", size=size)


def _area(point: Point, points: Sequence[Point]) -> float:
    """Of the mark of a point [point^2]."""
    longest = max(each.time_share for each in points)
    return SMALLEST_PT2 + (LARGEST_PT2 - SMALLEST_PT2) * point.time_share / longest


def _spots(points: Sequence[Point], frame: _Frame, size: float) -> list[Spot]:
    """What is to be named, layers that take longest first, each once.

    Layers whose points lie on one another are one spot, named after the first of them.
    """
    spots: list[Spot] = []
    named: set[str] = set()
    alike: dict[tuple[str, str, str], list[Point]] = {}
    for point in sorted(points, key=lambda each: -each.time_share):
        key = (point.level, f"{point.intensity:.2g}", f"{point.speed:.2g}")
        alike.setdefault(key, []).append(point)
    for group in alike.values():
        new = [point.layer for point in group if point.layer not in named]
        words = ""
        if new and len(named) < MOST_LABELS:
            words = shortened(new[0]) + (f" +{len(new) - 1}" if len(new) > 1 else "")
            named.update(new)
        x, radius = frame.place(group[0].intensity), _area(group[0], points) ** 0.5 / 2
        spots.append(Spot(words, x, group[0].speed, radius, INK, size))
    return spots


def roofline_figure(costs: Costs, *, width: float = PAGE_IN) -> Figure:
    """Roofline of one run, with title and legend.

    Parameters
    ----------
    costs : Costs
    width : float
        Of the picture [inch].

    Returns
    -------
    matplotlib.figure.Figure
    """
    from matplotlib.lines import Line2D

    hardware = costs.inputs[1]
    looks = level_looks(hardware.levels)
    handles: list[Any] = []
    for roof, marker in zip(roofs_of(hardware), MARKERS, strict=False):
        colour = looks[roof.level].colour
        limit = "" if roof.bytes_per_ns < inf else " (no bandwidth given)"
        fill = colour if marker == "o" else "none"
        handles.append(Line2D([], [], linestyle="none", marker=marker, color=colour, markersize=6,
                              label=f"bytes of {roof.level}{limit}",
                              markerfacecolor=fill))  # fmt: skip
    idle = sum(1 for row in costs.layer_rows if not row.macs)
    words = ["area: share of the time"]
    if idle:
        layers = "1 layer that doesn't" if idle == 1 else f"{idle} layers that don't"
        words.append(f"without {layers} multiply")
    handles += [Line2D([], [], linestyle="none", label=each) for each in words]
    title = [*common_title([costs]), f"{si(costs.total_time_ms)} ms"]
    figure = sheet(width, max(width * BODY_SHARE, 2.6), title, (), handles)
    with mpl.rc_context(STYLE):
        axes = figure.subplots()
        roofline(costs, axes, size=words_pt(width))
    return figure
