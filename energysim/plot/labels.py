"""Names beside points, as many as there is room for: none over another, a point or a line."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from math import atan2, cos, degrees, sin
from typing import TYPE_CHECKING, Any

from matplotlib.path import Path as Outline
from matplotlib.transforms import Bbox

from energysim.plot.sheet import figure_of, renderer_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.backends.backend_agg import RendererAgg

APART_PT = 2.0
"""Between names, and between a name and its point [point]."""

POINTS_PER_INCH = 72

_SIDES = ((1, 0), (-1, 0), (0, 1), (0, -1), (1, 1), (1, -1), (-1, 1), (-1, -1))
"""Where a name may stand beside its point: right, left, above, below, corners."""

STEPS_ALONG = 40
"""How often words are moved along a line, by their height, to find a place."""

Place = Any
"""x and y, as a pair or an array [pixel]"""

Ends = tuple[tuple[float, float], tuple[float, float]]
"""Of a straight line."""


@dataclass(frozen=True, slots=True)
class Spot:
    """A point to keep clear of, and what to write beside it."""

    words: str
    """empty for a point that gets no name"""
    x: float
    y: float
    radius: float
    """of the point [point]"""
    colour: str
    size: float
    """of the words [point]"""


@dataclass(slots=True)
class Labels:
    """Words of one panel, and what they have to keep clear of."""

    axes: Axes
    """with its final place and limits, see :func:`energysim.plot.sheet.settle`"""
    taken: list[Bbox] = field(default_factory=list)
    """places of words and points [pixel]"""
    lines: list[Outline] = field(default_factory=list)
    """[pixel]"""
    written: list[str] = field(default_factory=list)
    """names that found room"""

    @property
    def pixel(self) -> float:
        """Pixels in a point."""
        figure = figure_of(self.axes)
        return figure.dpi / POINTS_PER_INCH

    def keep_clear_of(self, ends: Ends) -> None:
        """Let no word cross a line."""
        self.lines.append(Outline(self.axes.transData.transform(ends)))

    def along(self, words: str, ends: Ends, colour: str, size: float) -> None:
        """Write along a line, above or below it, as near its first end as there is room."""
        first, last = (self.axes.transData.transform(end) for end in ends)
        angle = atan2(last[1] - first[1], last[0] - first[0])
        width, height = self._size(words, size)
        inside = self.axes.get_window_extent()
        for step in range(STEPS_ALONG):
            for side in (1, -1):
                reach = 10 * self.pixel + step * height
                corner = _moved(first, angle, reach, side * 1.5 * self.pixel)
                # a slanted box is many small upright ones
                boxes = [
                    _square(
                        _moved(corner, angle, (i + 0.5) * height, side * height / 2), height / 2
                    )
                    for i in range(int(width // height) + 1)
                ]
                if all(_within(box, inside) and self._clear(box) for box in boxes):
                    self.taken += boxes
                    self._write(words, corner, angle, colour, size, "bottom" if side > 0 else "top")
                    return

    def _write(
        self, words: str, corner: Place, angle: float, colour: str, size: float, edge: str
    ) -> None:
        place = self.axes.transAxes.inverted().transform(corner)
        label = self.axes.text(
            float(place[0]), float(place[1]), words, transform=self.axes.transAxes, size=size,
            color=colour, rotation=degrees(angle), rotation_mode="anchor", va=edge, zorder=5,
        )  # fmt: skip
        label.set_in_layout(False)
        self.written.append(words)

    def _size(self, words: str, size: float) -> tuple[float, float]:
        """Width and height of words [pixel]."""
        probe = self.axes.text(0.5, 0.5, words, size=size, transform=self.axes.transAxes)
        box = probe.get_window_extent(self._renderer())
        probe.remove()
        return box.width, box.height

    def _renderer(self) -> RendererAgg:
        figure = figure_of(self.axes)
        return renderer_of(figure)

    def keep_clear_of_points(self, spots: Sequence[Spot]) -> None:
        """Let no word stand on a point."""
        for spot in spots:
            place = self.axes.transData.transform((spot.x, spot.y))
            self.taken.append(_square(place, spot.radius * self.pixel))

    def beside(self, spots: Sequence[Spot]) -> None:
        """Write names beside points where there is room, earlier ones first."""
        for spot in spots:
            if spot.words:
                self._beside(spot)

    def _beside(self, spot: Spot) -> None:
        label = self.axes.annotate(spot.words, (spot.x, spot.y), (0, 0), size=spot.size,
                                   textcoords="offset points", color=spot.colour, zorder=5,
                                   in_layout=False)  # fmt: skip
        renderer, inside = self._renderer(), self.axes.get_window_extent()
        for dx, dy, right, up in _offers(spot.radius + APART_PT):
            label.set_position((dx, dy))
            label.set(ha=right, va=up)
            box = label.get_window_extent(renderer).padded(APART_PT * self.pixel / 2)
            if _within(box, inside) and self._free(box):
                self.taken.append(box)
                self.written.append(spot.words)
                return
        label.remove()

    def _free(self, box: Bbox) -> bool:
        return self._clear(box) and not any(
            line.intersects_bbox(box, filled=False) for line in self.lines
        )

    def _clear(self, box: Bbox) -> bool:
        return not any(box.overlaps(other) for other in self.taken)


def _moved(start: Place, angle: float, along: float, across: float) -> tuple[float, float]:
    """Place so far along a direction, and to the left of it."""
    return (
        float(start[0]) + along * cos(angle) - across * sin(angle),
        float(start[1]) + along * sin(angle) + across * cos(angle),
    )


def _square(middle: Place, half: float) -> Bbox:
    x, y = float(middle[0]), float(middle[1])
    return Bbox([[x - half, y - half], [x + half, y + half]])


def _offers(away: float) -> Iterator[tuple[float, float, str, str]]:
    """Offsets [point] and alignments to be tried, the best first."""
    for right, up in _SIDES:
        share = 0.75 if right and up else 1.0
        yield (
            right * away * share,
            up * away * share,
            ("center", "left", "right")[right],
            ("center", "bottom", "top")[up],
        )


def _within(box: Bbox, outer: Bbox) -> bool:
    return bool(
        box.x0 >= outer.x0 and box.x1 <= outer.x1 and box.y0 >= outer.y0 and box.y1 <= outer.y1
    )
