"""Stacked bars by layer, one panel a variant: what energy and traffic have in common."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import matplotlib as mpl

from energysim.plot.rows import Row
from energysim.plot.sheet import (
    EDGE_IN,
    room_for_words,
    settle,
    words_pt,
)
from energysim.plot.style import FAINT, INK, STYLE, Look
from energysim.units import si

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Unit = tuple[float, str]

JOULES: tuple[Unit, ...] = ((1, "pJ"), (1e3, "nJ"), (1e6, "µJ"), (1e9, "mJ"), (1e12, "J"))
BYTES: tuple[Unit, ...] = ((1, "byte"), (1e3, "kB"), (1e6, "MB"), (1e9, "GB"))

TALL_IN, LOW_IN = 0.17, 0.12
"""Height of a row where there are few, and where there are many [inch]."""

FEW_ROWS, MANY_ROWS = 30, 60

DIGITS = 3
"""Of the largest number beside bars."""

THICK = 0.8
"""Of a bar, as a share of its row."""


@dataclass(frozen=True, slots=True)
class Stacks:
    """Values of one panel, by part and row."""

    parts: Mapping[str, Sequence[float]]
    """in one unit, in the order in which they are stacked"""
    words: Sequence[str] = ()
    """behind each bar"""
    marks: Sequence[float] = ()
    """a line across each bar"""
    title: str = ""

    @property
    def totals(self) -> list[float]:
        """Length of each bar; all are nothing where no part takes anything."""
        if not self.parts:
            return [0.0] * len(self.words)
        return [sum(values) for values in zip(*self.parts.values(), strict=True)]


def unit_of(largest: float, units: Sequence[Unit]) -> Unit:
    """Largest unit in which the largest value is no less than 1.

    Examples
    --------
    >>> unit_of(2.5e7, JOULES)
    (1000000.0, 'µJ')
    """
    fitting = [unit for unit in units if largest >= unit[0]]
    return fitting[-1] if fitting else units[0]


def row_height(rows: int) -> float:
    """Height of one of so many rows [inch]."""
    share = min(max((rows - FEW_ROWS) / (MANY_ROWS - FEW_ROWS), 0), 1)
    return TALL_IN + share * (LOW_IN - TALL_IN)


def row_pt(rows: int, width: float) -> float:
    """Size of the words beside one of so many rows [point]."""
    return min(words_pt(width), row_height(rows) * 72 * 0.72)


def alike(values: Sequence[float], factor: float = 1.0) -> list[str]:
    """Numbers with as many decimals as give the largest three digits.

    Examples
    --------
    >>> alike([16.94, 0.32, 0.04, 0])
    ['16.9', '0.3', '<0.1', '0']
    """
    scaled = [value / factor for value in values]
    decimals = max(DIGITS - len(f"{max(scaled, default=0):.0f}"), 0)
    least = 10.0**-decimals
    return [
        "0" if not value else f"<{least:g}" if value < least / 2 else f"{value:.{decimals}f}"
        for value in scaled
    ]


def ratio(value: float, base: float) -> str:
    """How many times as much.

    Examples
    --------
    >>> ratio(1, 2), ratio(1, 16), ratio(900, 2), ratio(1, 0)
    ('0.50x', '0.062x', '450x', '')
    """
    if not base:
        return ""
    times = value / base
    return f"{si(times, 2 if times < 1 else 3)}x"


def stacked(axes: Axes, rows: Sequence[Row], stacks: Stacks, looks: Mapping[str, Look]) -> None:
    """Draw one panel of stacked bars, the first row at the top."""
    places = range(len(rows))
    left = [0.0] * len(rows)
    for part, values in stacks.parts.items():
        axes.barh(places, values, THICK, left=left, label=part, **looks[part].bar())
        left = [start + value for start, value in zip(left, values, strict=True)]
    if stacks.marks:
        half = THICK / 2 + 0.08
        axes.vlines(stacks.marks, [place - half for place in places],
                    [place + half for place in places], color=INK, linewidth=1.3, zorder=4,
                    label="_bound")  # fmt: skip
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.grid(visible=False, axis="y")
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_color(FAINT)


def panels(
    figure: Figure,
    rows: Sequence[Row],
    stacks: Sequence[Stacks],
    looks: Mapping[str, Look],
    label: str,
) -> list[Axes]:
    """Panels side by side with the same rows and the same scale, words behind the bars.

    Parameters
    ----------
    figure : Figure
        With room for them, see :func:`energysim.plot.sheet.sheet`.
    rows : sequence of Row
    stacks : sequence of Stacks
        One a panel.
    looks : mapping
        Of each part.
    label : str
        Of the value axis, with its unit.
    """
    with mpl.rc_context(STYLE):
        width = figure.get_size_inches()[0]
        size = row_pt(len(rows), width)
        every = list(figure.subplots(1, len(stacks), sharey=True, sharex=True, squeeze=False)[0])
        for axes, each in zip(every, stacks, strict=True):
            stacked(axes, rows, each, looks)
            axes.tick_params(axis="x", labelsize=words_pt(width))
            axes.set_xlabel(label, size=words_pt(width))
            if each.title:
                axes.set_title(each.title, loc="left", size=words_pt(width), color=INK)
        every[0].set_yticks(range(len(rows)), [row.label for row in rows], size=size)
        _finish(figure, every, stacks, size)
    return every


def _finish(figure: Figure, every: Sequence[Axes], stacks: Sequence[Stacks], size: float) -> None:
    """Write behind the bars, with the axis long enough for the words."""
    from matplotlib.ticker import MaxNLocator

    for axes, each in zip(every, stacks, strict=True):
        ends = [max(pair) for pair in zip(each.totals, each.marks or each.totals, strict=True)]
        gap = (3, 0)
        for place, (end, text) in enumerate(zip(ends, each.words, strict=False)):
            axes.annotate(text, (end, place), gap, textcoords="offset points", va="center",
                          size=size, color=FAINT, in_layout=False)  # fmt: skip
    right = 0.0
    for _ in range(2):  # the numbers of the axis change with its end, and with them the places
        settle(figure)
        right = max(
            room_for_words(axes, each.totals, each.words or [""] * len(each.totals), size)
            for axes, each in zip(every, stacks, strict=True)
        )
        inches = every[0].get_window_extent().width / figure.dpi
        for axes in every:
            axes.set_xlim(0, right * 1.02)
            axes.xaxis.set_major_locator(MaxNLocator(max(int(inches / 0.5), 1), min_n_ticks=1))
    _drop_last(figure, every)


def _drop_last(figure: Figure, every: Sequence[Axes]) -> None:
    """Leave out the number at the end of an axis that would run into that of the next panel."""
    settle(figure)
    for axes, after in pairwise(every):
        limit = after.get_window_extent().x0 - EDGE_IN * figure.dpi
        low, high = axes.get_xlim()
        ticks = [tick for tick in axes.get_xticks() if low <= tick <= high]
        labels = [each.get_text() for each in axes.get_xticklabels()][: len(ticks)]
        boxes = [each.get_window_extent() for each in axes.get_xticklabels()][: len(ticks)]
        if boxes and boxes[-1].x1 > limit:
            axes.set_xticks(ticks, [*labels[:-1], ""])
