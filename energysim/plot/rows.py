"""Layers as rows of a picture: how many there are, what they are called, how high they are."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

MOST_ROWS = 50
"""More layers than this are put together by stage unless a picture is told otherwise."""

LONGEST = 26
"""Longer names are cut in the middle [characters]."""

PER_INCH = 8
"""Letters that the names of bars may have for each inch of a picture."""

_STEPS = re.compile(r"[./]")


@dataclass(frozen=True, slots=True)
class Row:
    """One layer, or neighbouring layers of one stage."""

    label: str
    layers: tuple[int, ...]
    """places of its layers in the network"""


def rows_of(names: Sequence[str], most: int = MOST_ROWS) -> list[Row]:
    """Put neighbouring layers together until there are few enough rows.

    Names have steps with dots or slashes between, as ``block1.2.conv1``. Layers that share their
    first steps make one row, with as many steps as leave no more than ``most`` rows; where even one
    step leaves more, neighbours make rows of equal length.

    Parameters
    ----------
    names : sequence of str
        Of the layers, in order.
    most : int
        Rows that there may be.

    Returns
    -------
    list of Row
        Every layer is in one of them, in order.

    Examples
    --------
    >>> names = ["stem", "a.1.conv", "a.1.add", "a.2.conv", "a.2.add", "fc"]
    >>> [row.label for row in rows_of(names, 4)]
    ['stem', 'a.1 (2)', 'a.2 (2)', 'fc']
    >>> [row.label for row in rows_of(names, 3)]
    ['stem', 'a (4)', 'fc']
    """
    if len(names) <= most:
        return [Row(shortened(name), (place,)) for place, name in enumerate(names)]
    deepest = max(len(_STEPS.findall(name.strip("./"))) for name in names)
    for depth in range(deepest, 0, -1):
        rows = _by_steps(names, depth)
        if len(rows) <= most:
            return rows
    length = -(-len(names) // most)
    starts = range(0, len(names), length)
    return [_together(names, range(start, min(start + length, len(names)))) for start in starts]


def _by_steps(names: Sequence[str], depth: int) -> list[Row]:
    """Rows of neighbours whose names begin with the same steps."""
    stages: list[tuple[str, list[int]]] = []
    for place, name in enumerate(names):
        stage = _stage(name, depth)
        if not stages or stages[-1][0] != stage:
            stages.append((stage, []))
        stages[-1][1].append(place)
    return [
        Row(_counted(stage, len(places)) if len(places) > 1 else shortened(names[places[0]]),
            tuple(places))
        for stage, places in stages
    ]  # fmt: skip


def _stage(name: str, depth: int) -> str:
    """The first steps of a name."""
    start = len(name) - len(name.lstrip("./"))
    ends = [match.start() for match in _STEPS.finditer(name, start)]
    return name[: ends[depth - 1]] if len(ends) >= depth else name


def _together(names: Sequence[str], places: range) -> Row:
    first, last = names[places[0]], names[places[-1]]
    half = LONGEST // 2
    label = shortened(first) if len(places) == 1 else (
        f"{shortened(first, half)} to {shortened(last, half)}"
    )  # fmt: skip
    return Row(label, tuple(places))


def _counted(stage: str, layers: int) -> str:
    count = f" ({layers})"
    return shortened(stage, LONGEST - len(count)) + count


def together_key(rows: Sequence[Row]) -> list[Any]:
    """What a legend says of rows that are more than one layer."""
    from matplotlib.lines import Line2D

    if all(len(row.layers) == 1 for row in rows):
        return []
    return [Line2D([], [], linestyle="none", label="(n): n layers together")]


def shortened(name: str, longest: int = LONGEST) -> str:
    """Cut a long name in the middle; what tells layers apart often stands at its end.

    Examples
    --------
    >>> shortened("features.denseblock1.denselayer1.conv1", 20)
    'feature…layer1.conv1'
    """
    if len(name) <= longest:
        return name
    tail = (longest - 1) * 2 // 3
    return f"{name[: longest - 1 - tail]}…{name[-tail:]}"
