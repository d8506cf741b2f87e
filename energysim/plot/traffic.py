"""What each layer moves to and from DRAM, beside the least that it must move."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import matplotlib as mpl

from energysim.axes import Tensor
from energysim.errors import InputError
from energysim.plot.bars import BYTES, Stacks, alike, panels, ratio, row_height, stacked, unit_of
from energysim.plot.costs import Costs, common_title, same_layers, variants_of
from energysim.plot.rows import MOST_ROWS, Row, rows_of, together_key
from energysim.plot.sheet import FRAME_IN, PANEL_TITLE_IN, fitting_panels, sheet
from energysim.plot.style import INK, PAGE_IN, STYLE, TENSOR_LOOKS, own_axes
from energysim.units import BITS_PER_BYTE, si

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

AT_BOUND = 1.005
"""Traffic up to this times the lower bound is not said to be more."""


def traffic_of(costs: Costs) -> dict[str, list[float]]:
    """Bytes that each layer reads from and writes to DRAM, by tensor.

    Tensors that none moves are left out; the sum of all is the DRAM traffic of the run.
    """
    dram = costs.inputs[1].levels[0].name
    places = {row.layer: place for place, row in enumerate(costs.layer_rows)}
    moved = {tensor.label: [0.0] * len(places) for tensor in Tensor}
    for row in costs.access_rows:
        if row.level == dram:
            moved[row.tensor][places[row.layer]] += row.bits / BITS_PER_BYTE
    return {tensor: values for tensor, values in moved.items() if any(values)}


def traffic(costs: Costs, ax: Axes | None = None, *, rows: int = MOST_ROWS) -> Axes:
    """DRAM traffic of each layer by tensor, with its lower bound as a line across the bar.

    Parameters
    ----------
    costs : Costs
        A :class:`energysim.Result`, or one that :func:`energysim.plot.read_costs` read.
    ax : matplotlib.axes.Axes, optional
        Where to draw; on a figure of its own by default.
    rows : int
        Most bars; more layers are put together by stage.

    Returns
    -------
    matplotlib.axes.Axes
        One bar container a tensor, in the unit of the label, and one collection of lines.
    """
    chosen = rows_of([row.layer for row in costs.layer_rows], rows)
    axes = own_axes(ax, (PAGE_IN, 1 + len(chosen) * row_height(len(chosen))))
    factor, unit = _unit([costs], chosen)
    with mpl.rc_context(STYLE):
        stacked(axes, chosen, _stacks(costs, chosen, factor), TENSOR_LOOKS)
        axes.set_yticks(range(len(chosen)), [row.label for row in chosen])
        axes.set_xlabel(f"{_dram([costs])} traffic [{unit}]")
        handles, _ = axes.get_legend_handles_labels()
        axes.legend(handles=[*handles, _bound_key()], loc="lower right")
    return axes


def traffic_figure(
    every: Sequence[Costs], *, width: float = PAGE_IN, rows: int = MOST_ROWS
) -> Figure:
    """DRAM traffic against its lower bound, of one run or of several side by side.

    Parameters
    ----------
    every : sequence of Costs
        Runs with the same layers.
    width : float
        Of the picture [inch].
    rows : int
        Most bars of a panel; more layers are put together by stage.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    InputError
        If there is nothing to draw, or more than fits.
    """
    _check(every, width)
    chosen = rows_of([row.layer for row in every[0].layer_rows], rows)
    factor, unit = _unit(every, chosen)
    titles = variants_of(every) if len(every) > 1 else [""]
    stacks = [
        _stacks(costs, chosen, factor, f"{title}: {_total(costs)}" if title else "")
        for costs, title in zip(every, titles, strict=True)
    ]
    used = {tensor for each in stacks for tensor in each.parts}
    looks = [(tensor, look) for tensor, look in TENSOR_LOOKS.items() if tensor in used]
    title = common_title(every) + ([_total(every[0])] if len(every) == 1 else [])
    body = FRAME_IN + len(chosen) * row_height(len(chosen))
    body += PANEL_TITLE_IN if len(every) > 1 else 0
    figure = sheet(width, body, title, looks, [_bound_key(), *together_key(chosen)])
    panels(figure, chosen, stacks, TENSOR_LOOKS, f"{_dram(every)} traffic [{unit}]")
    return figure


def _check(every: Sequence[Costs], width: float) -> None:
    if not every:
        raise InputError("there is no result to draw")
    if not same_layers(every):
        raise InputError("results of different layers have no bars in common: draw them one by one")
    fitting = fitting_panels(width)
    if len(every) > fitting:
        raise InputError(
            f"{len(every)} results are too many for {width:g} inches: at most {fitting} fit beside "
            "one another"
        )


def _stacks(costs: Costs, rows: Sequence[Row], factor: float, title: str = "") -> Stacks:
    """Bytes by tensor of each row, its lower bound, and how far above it is."""
    moved = {
        tensor: _by_row(values, rows, factor) for tensor, values in traffic_of(costs).items()
    } or {Tensor.WEIGHT.label: [0.0] * len(rows)}
    bounds = _by_row([row.dram_bound_bytes for row in costs.layer_rows], rows, factor)
    sums = Stacks(moved).totals
    words = [
        f"{word}, {ratio(total, bound)}" if bound and total > AT_BOUND * bound else word
        for word, total, bound in zip(alike(sums), sums, bounds, strict=True)
    ]
    return Stacks(moved, words, bounds, title)


def _by_row(values: Sequence[float], rows: Sequence[Row], factor: float) -> list[float]:
    return [sum(values[place] for place in row.layers) / factor for row in rows]


def _unit(every: Sequence[Costs], rows: Sequence[Row]) -> tuple[float, str]:
    """Unit of the longest bar or the furthest bound."""
    stacks = [_stacks(costs, rows, 1.0) for costs in every]
    return unit_of(max(max(each.totals + list(each.marks)) for each in stacks), BYTES)


def _total(costs: Costs) -> str:
    """Bytes of the run, and how far they are above the sum of the bounds."""
    moved = sum(row.dram_bytes for row in costs.layer_rows)
    bound = sum(row.dram_bound_bytes for row in costs.layer_rows)
    factor, unit = unit_of(moved, BYTES)
    words = f"{si(moved / factor)} {unit}"
    if bound and moved > AT_BOUND * bound:
        return f"{words}, {ratio(moved, bound)} the bound"
    return f"{words}, at the bound" if moved else words


def _dram(every: Sequence[Costs]) -> str:
    names: Mapping[str, None] = dict.fromkeys(costs.inputs[1].levels[0].name for costs in every)
    return next(iter(names)) if len(names) == 1 else "DRAM"


def _bound_key() -> Line2D:
    """Entry of a legend for the lines across the bars."""
    from matplotlib.lines import Line2D

    return Line2D([], [], color=INK, linestyle="none", marker="|", markersize=8,
                  markeredgewidth=1.3, label="lower bound")  # fmt: skip
