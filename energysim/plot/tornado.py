"""What each energy constant does to the total: within its range, and by a tenth of itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import matplotlib as mpl

from energysim.errors import InputError
from energysim.plot.bars import JOULES, Unit, row_height, row_pt, unit_of
from energysim.plot.costs import Costs, as_result, common_title
from energysim.plot.energy import amount
from energysim.plot.rows import PER_INCH, shortened
from energysim.plot.sheet import EDGE_IN, FRAME_IN, extent_in, figure_of, settle, sheet, words_pt
from energysim.plot.style import FAINT, INK, PAGE_IN, STYLE, Look, level_looks, own_axes
from energysim.uncertainty import STEP, ConstantEffect, Uncertainty, uncertainty
from energysim.units import percent, si

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

MOST = 14
"""Constants that are drawn; those that matter least are counted."""

THICK, THIN = 0.62, 0.28
"""Of the bars of intervals and of steps, as shares of a row."""

BLOCKS: Mapping[str, str] = {"mac": "MAC", "vector": "vector", "array": "NoC"}
"""Parts of the energy, by the block of the hardware file with their constant."""


def ordered(effects: Sequence[ConstantEffect]) -> list[ConstantEffect]:
    """Constants, the one that can move the total furthest first."""
    return sorted(effects, key=lambda each: -max(each.interval_pj, 2 * each.step_pj))


def tornado(
    given: Uncertainty, ax: Axes | None = None, *, most: int = MOST, size: float = 7.5
) -> Axes:
    """Total energy over the range of each constant, and with 10 % more and less of it.

    Parameters
    ----------
    given : Uncertainty
        Of :func:`energysim.uncertainty`.
    ax : matplotlib.axes.Axes, optional
        Where to draw; on a figure of its own by default.
    most : int
        Constants that are drawn.
    size : float
        Of the words [point].

    Returns
    -------
    matplotlib.axes.Axes
        Two bar containers, ``interval`` and ``step``; a bar runs from the least to the most total
        in the unit of the label.

    Raises
    ------
    InputError
        If no constant has any effect.
    """
    shown = ordered(given.effects)[:most]
    if not shown:
        raise InputError("no constant of the hardware costs any energy: there is nothing to draw")
    axes = own_axes(ax, (PAGE_IN, FRAME_IN + len(shown) * row_height(len(shown))))
    unit = unit_of(given.total_pj, JOULES)
    with mpl.rc_context(STYLE):
        _bars(axes, given, shown, unit)
        axes.axvline(given.total_pj / unit[0], color=INK, linewidth=0.9, zorder=4)
        axes.set_yticks(range(len(shown)), _names(axes, shown), size=size)
        axes.set_ylim(len(shown) - 0.4, -0.6)
        axes.set_xlabel(f"total energy [{unit[1]}]", size=size)
        axes.tick_params(axis="x", labelsize=size)
        axes.tick_params(axis="y", length=0)
        axes.grid(visible=False, axis="y")
        axes.spines["left"].set_visible(False)
        _words(axes, given, shown, unit, size)
    return axes


def _names(axes: Axes, shown: Sequence[ConstantEffect]) -> list[str]:
    """Names of constants, cut where they would leave no room for the bars."""
    longest = int(PER_INCH * figure_of(axes).get_figwidth())
    return [shortened(each.constant, longest) for each in shown]


def _bars(axes: Axes, given: Uncertainty, shown: Sequence[ConstantEffect], unit: Unit) -> None:
    looks = level_looks(given.result.inputs[1].levels)
    colours = [_look(each, looks).colour for each in shown]
    factor, total = unit[0], given.total_pj
    lows = [(total - each.amount * (each.value - each.low)) / factor for each in shown]
    axes.barh(range(len(shown)), [each.interval_pj / factor for each in shown], THICK, left=lows,
              color=colours, edgecolor="none", alpha=0.45, label="interval", zorder=2)  # fmt: skip
    axes.barh(range(len(shown)), [2 * each.step_pj / factor for each in shown], THIN,
              left=[(total - each.step_pj) / factor for each in shown], color=colours,
              edgecolor="white", linewidth=0.4, label="step", zorder=3)  # fmt: skip


def _look(effect: ConstantEffect, looks: Mapping[str, Look]) -> Look:
    """That of the part of the energy that a constant belongs to."""
    block = effect.constant.partition(".")[0]
    return looks.get(BLOCKS.get(block, block)) or looks["static"]


def _words(
    axes: Axes,
    given: Uncertainty,
    shown: Sequence[ConstantEffect],
    unit: Unit,
    size: float,
) -> None:
    """The ends of each range at the ends of its bar, in an axis that is long enough for them."""
    figure = figure_of(axes)
    factor, total = unit[0], given.total_pj
    probe = figure.text(0, 0, "", size=size)
    left: list[tuple[float, float]] = []
    right: list[tuple[float, float]] = []
    for place, each in enumerate(shown):
        low, high = _reach(each)
        ends = (total - low) / factor, (total + high) / factor
        words = ("", f"{si(each.value)} {each.unit}, no range")
        if each.has_range:
            words = si(each.low), f"{si(each.high)} {each.unit}"
        for text, end, side, found in zip(
            words, ends, ("right", "left"), (left, right), strict=True
        ):
            gap = -3 if side == "right" else 3
            axes.annotate(text, (end, place), (gap, 0), textcoords="offset points", ha=side,
                          va="center", size=size, color=FAINT, in_layout=False)  # fmt: skip
            probe.set_text(text)
            found.append((end, extent_in(figure, probe)[0] + EDGE_IN))
    probe.remove()
    for _ in range(2):  # the room changes with the numbers of the axis
        settle(figure)
        axes.set_xlim(*_limits(left, right, axes.get_window_extent().width / figure.dpi))


def _reach(effect: ConstantEffect) -> tuple[float, float]:
    """How far a constant moves the total down and up, in its range and by its step [pJ]."""
    down = effect.amount * (effect.value - effect.low)
    up = effect.amount * (effect.high - effect.value)
    return max(down, effect.step_pj), max(up, effect.step_pj)


def _limits(
    left: Sequence[tuple[float, float]], right: Sequence[tuple[float, float]], width: float
) -> tuple[float, float]:
    """Ends of an axis of some width [inch] so that words of given widths fit beyond given ends."""
    low, high = min(end for end, _ in left), max(end for end, _ in right)
    if low == high:
        low, high = low - 1, high + 1
    for _ in range(20):  # each end moves what the other needs, less every time
        scale = (high - low) / width
        low = min(end - words * scale for end, words in left)
        high = max(end + words * scale for end, words in right)
    return low, high


def tornado_figure(costs: Costs, *, width: float = PAGE_IN, most: int = MOST) -> Figure:
    """Sensitivity of the energy of one run, with title and legend.

    Parameters
    ----------
    costs : Costs
    width : float
        Of the picture [inch].
    most : int
        Constants that are drawn.

    Returns
    -------
    matplotlib.figure.Figure
    """
    from matplotlib.patches import Patch

    given = uncertainty(as_result(costs))
    rows = min(len(given.effects), most)
    title = common_title([costs])
    title += [f"{amount(given.total_pj)}, {amount(given.low_pj)} to {amount(given.high_pj)}"]
    handles = [
        Patch(facecolor=FAINT, alpha=0.45, label="range of the constant"),
        Patch(facecolor=FAINT, label=f"{STEP:.0%} more or less".replace("%", " %")),
        *_left_out(given, most),
    ]
    figure = sheet(width, FRAME_IN + max(rows, 1) * 0.19, title, (), handles)
    with mpl.rc_context(STYLE):
        axes = figure.subplots()
        tornado(given, axes, most=most, size=min(words_pt(width), row_pt(rows, width)))
    return figure


def _left_out(given: Uncertainty, most: int) -> list[Patch]:
    """What the legend says of constants that are not drawn."""
    from matplotlib.patches import Patch

    rest = ordered(given.effects)[most:]
    if not rest:
        return []
    share = percent(sum(each.energy_pj for each in rest), given.total_pj)
    return [Patch(facecolor="none", label=f"{len(rest)} more: {share} % of the energy")]
