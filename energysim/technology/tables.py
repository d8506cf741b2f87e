"""Tables of numbers with their sources, and log-log interpolation between points of one source."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from math import exp, log

from energysim.errors import InputError

Point = tuple[float, ...]
"""Coordinates of a value, such as node, access width and capacity."""


class OutsideError(InputError):
    """A value is asked for that lies outside of what the tables know."""


@dataclass(frozen=True, slots=True)
class Axis:
    """What one coordinate of a table is."""

    name: str
    unit: str


@dataclass(frozen=True, slots=True)
class Read:
    """A value read off a table, and the points it stands between."""

    value: float
    corners: tuple[Point, ...]
    """one, if it stands in the table"""


@dataclass(frozen=True, slots=True)
class Table:
    """Points of one source."""

    source: str
    axes: tuple[Axis, ...]
    points: Mapping[Point, float]
    status: Mapping[Point, str]

    def at(self, point: Point) -> Read | None:
        """Interpolate; None outside of the points.

        Notes
        -----
        Logarithms of the value are linear in the logarithm of each coordinate, one axis after the
        other, so that a power law between two points is met exactly.
        """
        return _interpolate(self.points, point)

    def span(self) -> str:
        """Ranges of the coordinates, for messages."""
        parts = []
        for i, axis in enumerate(self.axes):
            parts.append(f"{ends(point[i] for point in self.points)} {axis.unit}")
        return f"{self.source} ({', '.join(parts)})"


def _interpolate(points: Mapping[Point, float], at: Point) -> Read | None:
    if not at:
        return Read(points[()], ((),)) if () in points else None
    first, rest = at[0], at[1:]
    known = sorted({point[0] for point in points})
    below = [each for each in known if each <= first]
    above = [each for each in known if each >= first]
    if not below or not above:
        return None
    ends = dict.fromkeys((below[-1], above[0]))
    reads = [(end, _interpolate(_slice(points, end), rest)) for end in ends]
    found = [(end, read) for end, read in reads if read is not None]
    if len(found) < len(reads):
        return None
    corners = tuple((end, *corner) for end, read in found for corner in read.corners)
    (low, lower), (high, upper) = found[0], found[-1]
    if low == high:
        return Read(lower.value, corners)
    share = log(first / low) / log(high / low)
    return Read(exp((1 - share) * log(lower.value) + share * log(upper.value)), corners)


def _slice(points: Mapping[Point, float], first: float) -> dict[Point, float]:
    return {point[1:]: value for point, value in points.items() if point[0] == first}


@cache
def rows(name: str) -> tuple[dict[str, str], ...]:
    """Rows of one of the CSV files of this package."""
    text = resources.files("energysim.technology").joinpath(f"{name}.csv").read_text("utf-8")
    return tuple(csv.DictReader(text.splitlines()))


@cache
def tables(
    name: str, value: str, axes: tuple[Axis, ...], only: tuple[tuple[str, str], ...] = ()
) -> tuple[Table, ...]:
    """Tables of a file, one for each source, in file order.

    Parameters
    ----------
    name : str
        Of the file, without ``.csv``.
    value : str
        Column of the values.
    axes : tuple of Axis
        Columns of the coordinates.
    only : tuple of (column, word)
        What a row must say to be taken.
    """
    points: dict[str, dict[Point, float]] = {}
    status: dict[str, dict[Point, str]] = {}
    for row in rows(name):
        if all(row[column] == word for column, word in only):
            point = tuple(float(row[axis.name]) for axis in axes)
            points.setdefault(row["source"], {})[point] = float(row[value])
            status.setdefault(row["source"], {})[point] = row["status"]
    return tuple(Table(key, axes, each, status[key]) for key, each in points.items())


def ends(values: Iterable[float]) -> str:
    """Least and largest of some values, or the one there is.

    Examples
    --------
    >>> ends([8, 32, 16]), ends([45, 45])
    ('8 to 32', '45')
    """
    known = sorted(values)
    return " to ".join(f"{each:g}" for each in dict.fromkeys((known[0], known[-1])))


def outside(what: str, known: Sequence[Table]) -> OutsideError:
    """The error for a value that no table knows."""
    spans = "; ".join(table.span() for table in known) or "nothing"
    return OutsideError(f"no energy is known of {what}. Known: {spans}")
