"""Where the energy of a network goes: by memory level or by tensor, layer by layer or in all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Literal

from energysim.errors import InputError
from energysim.plot.bars import (
    JOULES,
    TALL_IN,
    Stacks,
    alike,
    panels,
    ratio,
    row_height,
    stacked,
    unit_of,
)
from energysim.plot.costs import Costs, common_title, same_layers, variants_of
from energysim.plot.rows import MOST_ROWS, PER_INCH, Row, rows_of, shortened, together_key
from energysim.plot.sheet import FRAME_IN, PANEL_TITLE_IN, fitting_panels, sheet
from energysim.plot.style import PAGE_IN, PART_LOOKS, TENSOR_LOOKS, Look, level_looks, own_axes
from energysim.result import AccessRow
from energysim.units import percent, si

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

By = Literal["level", "tensor"]
"""What the energy is divided by."""


def parts_of(costs: Costs, by: By = "level") -> dict[str, list[float]]:
    """Energy of each layer, divided by level or by tensor.

    Parameters
    ----------
    costs : Costs
    by : {"level", "tensor"}
        By tensor, what belongs to none is ``compute`` (MACs and the vector unit) or ``static``.

    Returns
    -------
    dict
        By part, in the order in which they are stacked: energy of each layer [pJ]. Parts that take
        none are left out; the sum of all is the total energy.
    """
    places = {row.layer: place for place, row in enumerate(costs.layer_rows)}
    word = _level if by == "level" else _tensor
    parts = {part: [0.0] * len(places) for part in looks_of([costs], by)}
    for row in costs.access_rows:
        parts[word(row)][places[row.layer]] += row.energy_pj
    return {part: values for part, values in parts.items() if any(values)}


def _level(row: AccessRow) -> str:
    return row.level


def _tensor(row: AccessRow) -> str:
    return row.tensor or ("static" if row.level == "static" else "compute")


def looks_of(every: Sequence[Costs], by: By) -> dict[str, Look]:
    """How the parts are drawn, in the order in which they are stacked."""
    if by == "tensor":
        return dict(TENSOR_LOOKS)
    looks: dict[str, Look] = {}
    for costs in every:
        looks |= level_looks(costs.inputs[1].levels)
    parts = {part: looks.pop(part) for part in PART_LOOKS if part in looks}
    return looks | parts


def energy(
    costs: Costs, ax: Axes | None = None, *, by: By = "level", rows: int = MOST_ROWS
) -> Axes:
    """Stacked energy of each layer, a horizontal bar a layer.

    Parameters
    ----------
    costs : Costs
        A :class:`energysim.Result`, or one that :func:`energysim.plot.read_costs` read.
    ax : matplotlib.axes.Axes, optional
        Where to draw; on a figure of its own by default.
    by : {"level", "tensor"}
        What the energy is divided by.
    rows : int
        Most bars; more layers are put together by stage.

    Returns
    -------
    matplotlib.axes.Axes
        One bar container a part. Lengths add up to the total energy, in the unit of the label.
    """
    chosen = rows_of([row.layer for row in costs.layer_rows], rows)
    axes = own_axes(ax, (PAGE_IN, 1 + len(chosen) * row_height(len(chosen))))
    parts = parts_of(costs, by)
    factor, unit = _unit([(parts, chosen)])
    stacked(axes, chosen, _stacks(parts, chosen, factor), looks_of([costs], by))
    axes.set_yticks(range(len(chosen)), [row.label for row in chosen])
    axes.set_xlabel(f"energy [{unit}]")
    axes.legend(loc="lower right")
    return axes


def _unit(
    every: Sequence[tuple[Mapping[str, Sequence[float]], Sequence[Row]]],
) -> tuple[float, str]:
    """Unit of the longest bar."""
    longest = max(
        (total for parts, rows in every for total in _stacks(parts, rows, 1.0).totals), default=0.0
    )
    return unit_of(longest, JOULES)


def _stacks(
    parts: Mapping[str, Sequence[float]], rows: Sequence[Row], factor: float, title: str = ""
) -> Stacks:
    scaled = {
        part: [sum(values[place] for place in row.layers) / factor for row in rows]
        for part, values in parts.items()
    }
    empty = Stacks({"": [0.0] * len(rows)}).totals
    totals = Stacks(scaled).totals if scaled else empty
    return Stacks(scaled, [*alike(totals)], title=title)


def energy_figure(
    every: Sequence[Costs],
    *,
    by: By = "level",
    width: float = PAGE_IN,
    rows: int = MOST_ROWS,
    totals: bool = False,
) -> Figure:
    """Energy of one network, or of variants of it side by side, with title and legend.

    Parameters
    ----------
    every : sequence of Costs
        Runs to be compared, the first is what others are relative to.
    by : {"level", "tensor"}
        What the energy is divided by.
    width : float
        Of the picture [inch].
    rows : int
        Most bars of a panel; more layers are put together by stage.
    totals : bool
        One bar a run, all layers together; so too where runs have different layers, or there are
        more of them than panels fit beside one another.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    InputError
        If there is nothing to draw.
    """
    if not every:
        raise InputError("there is no result to draw")
    names = [row.layer for row in every[0].layer_rows]
    if totals or not same_layers(every) or len(every) > fitting_panels(width):
        longest = int(PER_INCH * width)
        chosen = [Row(shortened(name, longest), (0,)) for name in variants_of(every)]
        return _totals(every, chosen, by, width)
    return _by_layer(every, rows_of(names, rows), by, width)


def _by_layer(every: Sequence[Costs], rows: Sequence[Row], by: By, width: float) -> Figure:
    """One panel a run, one bar a layer."""
    several = len(every) > 1
    parts = [parts_of(costs, by) for costs in every]
    factor, unit = _unit([(each, rows) for each in parts])
    titles = variants_of(every) if several else [""]
    stacks = [
        _stacks(each, rows, factor, f"{title}: {amount(costs.total_energy_pj)}" if title else "")
        for costs, each, title in zip(every, parts, titles, strict=True)
    ]
    looks = looks_of(every, by)
    title = common_title(every)
    if not several:
        title.append(amount(every[0].total_energy_pj))
    body = FRAME_IN + len(rows) * row_height(len(rows)) + (PANEL_TITLE_IN if several else 0)
    figure = sheet(width, body, title, _key(looks, parts), together_key(rows))
    panels(figure, rows, stacks, looks, f"energy [{unit}]")
    return figure


def _totals(every: Sequence[Costs], rows: Sequence[Row], by: By, width: float) -> Figure:
    """One panel, one bar a run, each beside the first."""
    parts = [parts_of(costs, by) for costs in every]
    names = [name for name in looks_of(every, by) if any(name in each for each in parts)]
    pj = {name: [sum(each.get(name, ())) for each in parts] for name in names}
    sums = [costs.total_energy_pj for costs in every]
    factor, unit = unit_of(max(sums), JOULES)
    words = alike(sums, factor)
    if len(every) > 1 and sums[0]:
        words = [f"{word}, {ratio(each, sums[0])}" for word, each in zip(words, sums, strict=True)]
    looks = looks_of(every, by)
    stacks = Stacks({name: [v / factor for v in values] for name, values in pj.items()}, words)
    body = FRAME_IN + len(rows) * TALL_IN
    figure = sheet(width, body, common_title(every), _key(looks, parts))
    panels(figure, rows, [stacks], looks, f"energy [{unit}]")
    return figure


def _key(
    looks: Mapping[str, Look], parts: Sequence[Mapping[str, Sequence[float]]]
) -> list[tuple[str, Look]]:
    """Entries of the legend: parts that take any energy, of one run with their share."""
    used = [part for part in looks if any(part in each for each in parts)]
    if len(parts) > 1:
        return [(part, looks[part]) for part in used]
    sums = {part: sum(parts[0][part]) for part in used}
    whole = sum(sums.values())
    return [(f"{part} {percent(sums[part], whole)} %", looks[part]) for part in used]


def amount(energy_pj: float) -> str:
    """Energy in the unit that suits it.

    Examples
    --------
    >>> amount(2.5e7)
    '25.0 µJ'
    """
    factor, unit = unit_of(energy_pj, JOULES)
    return f"{si(energy_pj / factor)} {unit}"
