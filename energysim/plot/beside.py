"""Words beside points, in places where they hide nothing: found by trying, always the same ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import cos, hypot, pi, sin, sqrt
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from matplotlib.patheffects import withStroke

from energysim.plot.sheet import renderer_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Floats = npt.NDArray[np.float64]

DIRECTIONS = 16
"""Directions in which a place is tried, straight to the left first."""

DISTANCES = (0.0, 0.6, 1.4, 2.4, 3.6, 5.0)
"""Between a point's edge and its words, in heights of a line."""

GAP_PT = 2.0
"""Between words and whatever is not to be touched [point]."""

LEADER = 0.5
"""Words further away than this, in heights of a line, get a line to their point."""

PASSES = 6
"""Rounds in which words look for a better place, now that the others have theirs."""

HIDES_WORDS, HIDES_POINT, CROSSES, TOUCHES, MISLEADS = 60.0, 40.0, 8.0, 0.4, 6.0
"""How bad it is to stand over other words, a point, a line or a thin line, and to stand nearer to
another point than to one's own."""

STRAYS, TURNS = 1.0, 0.8
"""How bad it is to be a height of a line away, and on the far side of the point."""


@dataclass(frozen=True, slots=True)
class Label:
    """Words that belong to a point."""

    text: str
    x: float
    """in units of the axis"""
    y: float
    style: dict[str, Any]
    """keywords of the text"""
    radius_pt: float
    """of the point that it belongs to [point]"""


@dataclass(frozen=True, slots=True)
class _Place:
    """Where words may stand: a box, and the line to their point."""

    box: Floats
    """left, lower, right, upper [pixel]"""
    leader: Floats
    """two ends, shape (4,)"""
    badness: float
    """by itself"""
    has_leader: bool


def place_labels(
    axes: Axes,
    labels: Sequence[Label],
    *,
    points: npt.ArrayLike,
    lines: npt.ArrayLike = (),
    thin: npt.ArrayLike = (),
    radius_pt: float = 3.0,
) -> None:
    """Write words beside their points, in places where they hide as little as can be.

    Parameters
    ----------
    axes : Axes
        With its limits as they stay, and settled.
    labels : sequence of Label
        The most important first.
    points : array_like, shape (P, 2)
        Not to be covered, in units of the axes.
    lines : array_like, shape (S, 4)
        Pieces of lines not to be crossed: x and y of one end and of the other.
    thin : array_like, shape (T, 4)
        The same of lines that may be crossed if need be; words may lie on those of their own point.
    radius_pt : float
        Of the points [point].

    Notes
    -----
    Each label in turn takes the best of all places around its point, in 16 directions and 6
    distances, given where the others stand; after that each may move again, a few times over. What
    is bad about a place is the sum of what it hides or crosses, how far away it is, and how far it
    turns from the left, where a front leaves the plane empty.
    """
    figure = axes.get_figure(root=True)
    assert figure is not None
    pixel = figure.dpi / 72
    to_pixel = axes.transData.transform
    dots = to_pixel(np.asarray(points, dtype=np.float64).reshape(-1, 2))
    solid, faint = (
        to_pixel(np.asarray(each, dtype=np.float64).reshape(-1, 2)).reshape(-1, 4)
        for each in (lines, thin)
    )
    frame = axes.get_window_extent()
    room = np.array([frame.x0, frame.y0, frame.x1, frame.y1])
    gap, radius = GAP_PT * pixel, radius_pt * pixel
    tried = []
    for label in labels:
        own = to_pixel((label.x, label.y))
        around = _Around(room, dots, solid, faint[_far(faint, own) > 1], own, radius, gap / 2)
        places = _places(own, _size(axes, label), label.radius_pt * pixel, gap)
        tried.append([(each, around.badness(each)) for each in places])
    for label, place in zip(labels, _settled(tried, gap), strict=True):
        _write(axes, label, place)


def _size(axes: Axes, label: Label) -> tuple[float, float]:
    """Width and height of words [pixel]."""
    figure = axes.get_figure(root=True)
    assert figure is not None
    probe = axes.text(label.x, label.y, label.text, **label.style)
    box = probe.get_window_extent(renderer_of(figure))
    probe.remove()
    return box.width, box.height


def _places(own: Floats, size: tuple[float, float], radius: float, gap: float) -> list[_Place]:
    """All places around a point, near ones first."""
    width, height = size
    found = []
    for distance in DISTANCES:
        away = radius + gap + distance * height
        for turn in range(DIRECTIONS):
            # from the left alternately to both sides
            step = (turn + 1) // 2 * (1 if turn % 2 else -1)
            angle = pi + step * 2 * pi / DIRECTIONS
            # around a rectangle: to its sides or corners, then on by the distance
            across, up = cos(angle), sin(angle)
            x = own[0] + away * across + width / 2 * min(max(across * sqrt(2), -1), 1)
            y = own[1] + away * up + height / 2 * min(max(up * sqrt(2), -1), 1)
            box = np.array([x - width / 2, y - height / 2, x + width / 2, y + height / 2])
            near = np.array([np.clip(own[0], box[0], box[2]), np.clip(own[1], box[1], box[3])])
            far = max(hypot(*(near - own)) - radius, 0.0) / height
            badness = STRAYS * far + TURNS * abs(step) / DIRECTIONS * 2
            found.append(_Place(box, np.concatenate([own, near]), badness, far > LEADER))
    return found


@dataclass(frozen=True, slots=True)
class _Around:
    """What is drawn around a point [pixel]."""

    room: Floats
    """left, lower, right, upper of the axes"""
    dots: Floats
    """all points, shape (P, 2)"""
    solid: Floats
    """lines, shape (S, 4)"""
    faint: Floats
    """thin lines but its own, shape (T, 4)"""
    own: Floats
    """the point"""
    radius: float
    """of all points"""
    gap: float
    """between words and lines"""

    def badness(self, place: _Place) -> float:
        """How bad a place is, whatever other words do."""
        left, lower, right, upper = place.box
        room = self.room
        if left < room[0] or lower < room[1] or right > room[2] or upper > room[3]:
            return np.inf
        away = np.hypot(*(np.clip(self.dots, (left, lower), (right, upper)) - self.dots).T)
        others = (self.dots != self.own).any(axis=1)
        to_own = np.hypot(*(np.clip(self.own, (left, lower), (right, upper)) - self.own))
        found = place.badness + HIDES_POINT * ((away < self.radius) & others).sum()
        found += MISLEADS * bool(((away < to_own - 1) & others).any() and not place.has_leader)
        margin = np.array([-1.0, -1.0, 1.0, 1.0]) * self.gap
        for lines, cost, more in ((self.solid, CROSSES, margin), (self.faint, TOUCHES, 0.0)):
            found += cost * _crosses_box(lines, place.box + more).sum()
            if place.has_leader:
                found += cost / 2 * _cross(lines, place.leader).sum()
        return float(found)


def _far(pieces: Floats, point: Floats) -> Floats:
    """Distance of a point from each piece of a line."""
    start, step = pieces[:, :2], pieces[:, 2:] - pieces[:, :2]
    length = np.maximum((step**2).sum(axis=1), np.finfo(np.float64).tiny)
    along = np.clip(((point - start) * step).sum(axis=1) / length, 0, 1)
    found: Floats = np.hypot(*(start + along[:, None] * step - point).T)
    return found


def _settled(tried: Sequence[Sequence[tuple[_Place, float]]], gap: float) -> list[_Place]:
    """The best place of each, given the others."""
    chosen: list[int | None] = [None] * len(tried)
    boxes = [np.array([place.box for place, _ in own]) for own in tried]
    leaders = [np.array([place.leader for place, _ in own]) for own in tried]
    alone = [np.array([badness for _, badness in own]) for own in tried]
    for _ in range(PASSES):
        before = list(chosen)
        for i, own in enumerate(tried):
            badness = alone[i].copy()
            for j, at in enumerate(chosen):
                if at is None or j == i:
                    continue
                other, _ = tried[j][at]
                badness += HIDES_WORDS * _overlap(boxes[i], other.box, gap / 2)
                if other.has_leader:
                    badness += HIDES_WORDS / 4 * _boxes_on_line(boxes[i], other.leader)
                line = np.array([place.has_leader for place, _ in own])
                badness += HIDES_WORDS / 4 * (line & _crosses_box(leaders[i], other.box))
                if other.has_leader:
                    badness += HIDES_WORDS / 8 * (line & _cross(leaders[i], other.leader))
            chosen[i] = int(np.argmin(badness))
        if chosen == before:
            break
    return [own[at][0] for own, at in zip(tried, chosen, strict=True) if at is not None]


def _overlap(boxes: Floats, other: Floats, gap: float) -> npt.NDArray[np.bool_]:
    found: npt.NDArray[np.bool_] = (
        (boxes[:, 0] < other[2] + gap)
        & (boxes[:, 2] > other[0] - gap)
        & (boxes[:, 1] < other[3] + gap / 2)
        & (boxes[:, 3] > other[1] - gap / 2)
    )
    return found


def _crosses_box(pieces: Floats, box: Floats) -> npt.NDArray[np.bool_]:
    """Which pieces of lines enter a box (clipped to it as by Liang and Barsky)."""
    start, step = pieces[:, :2], pieces[:, 2:] - pieces[:, :2]
    with np.errstate(divide="ignore", invalid="ignore"):
        to_low, to_high = (box[:2] - start) / step, (box[2:] - start) / step
    inside = (box[:2] < start) & (start < box[2:])
    enter = np.where(step == 0, np.where(inside, -np.inf, np.inf), np.minimum(to_low, to_high))
    leave = np.where(step == 0, np.where(inside, np.inf, -np.inf), np.maximum(to_low, to_high))
    found: npt.NDArray[np.bool_] = np.maximum(enter.max(axis=1), 0) < np.minimum(
        leave.min(axis=1), 1
    )
    return found


def _boxes_on_line(boxes: Floats, line: Floats) -> npt.NDArray[np.bool_]:
    return np.array([_crosses_box(line[None], box)[0] for box in boxes])


def _cross(pieces: Floats, line: Floats) -> npt.NDArray[np.bool_]:
    """Which pieces of lines cross a line."""

    def side(ax: Any, ay: Any, bx: Any, by: Any, cx: Any, cy: Any) -> Any:
        return np.sign((bx - ax) * (cy - ay) - (by - ay) * (cx - ax))

    x0, y0, x1, y1 = pieces.T
    u0, v0, u1, v1 = line
    found: npt.NDArray[np.bool_] = (
        side(x0, y0, x1, y1, u0, v0) * side(x0, y0, x1, y1, u1, v1) < 0
    ) & (side(u0, v0, u1, v1, x0, y0) * side(u0, v0, u1, v1, x1, y1) < 0)
    return found


def _write(axes: Axes, label: Label, place: _Place) -> None:
    """Write words where they are to stand, in pieces of the axes so that any size of dot fits."""
    back = axes.transData.inverted().transform
    x, y = back(((place.box[0] + place.box[2]) / 2, (place.box[1] + place.box[3]) / 2))
    if place.has_leader:
        (x0, y0), (x1, y1) = back(place.leader.reshape(2, 2))
        axes.plot((x0, x1), (y0, y1), color=label.style.get("color"), linewidth=0.4, zorder=2.5,
                  solid_capstyle="butt")  # fmt: skip
    words = axes.text(x, y, label.text, ha="center", va="center", zorder=2.8, **label.style)
    words.set_path_effects([withStroke(linewidth=1.8, foreground="white")])
