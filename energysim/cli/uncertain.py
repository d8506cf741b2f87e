"""``energysim run --uncertainty``: the energy as an interval, and what each constant does to it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from energysim.cli.options import Target
from energysim.cli.render import Column, Grid, as_csv, as_json, grid_text, print_text, title
from energysim.units import PICOJOULES, heading, number, percent, si, unit_for

if TYPE_CHECKING:
    from energysim.uncertainty import ConstantEffect, Uncertainty

STEP_PERCENT = 10
SHOWN = 3
"""Constants without a range that a line names."""


def show(found: Uncertainty, target: Target) -> None:
    """Print or write the interval and the sensitivity table."""
    if target.form == "csv":
        text = as_csv(found.rows())
    elif target.form == "json":
        text = as_json(found.to_dict())
    else:
        text = grid_text(_grid(found), target)
    print_text(text, target)


def _grid(found: Uncertainty) -> Grid:
    """One row a constant, largest effect first."""
    effects, total = found.effects, found.total_pj
    factor, unit = unit_for([each.step_pj for each in effects], PICOJOULES)
    width = found.high_pj - found.low_pj
    columns = (
        Column("constant", [each.constant for each in effects], right=False),
        Column("value", [si(each.value) for each in effects]),
        Column("low", [_end(each, each.low) for each in effects]),
        Column("high", [_end(each, each.high) for each in effects]),
        Column("unit", [each.unit for each in effects], right=False),
        Column("share [%]", [percent(each.energy_pj, total) for each in effects]),
        Column(
            heading(f"per {STEP_PERCENT} %", unit),
            [number(each.step_pj, factor) for each in effects],
        ),
        Column("total [%]", [percent(each.step_pj, total) for each in effects]),
        Column("of interval [%]", [percent(each.interval_pj, width) for each in effects]),
    )
    return Grid(
        columns,
        f"{title(found.result)} · uncertainty",
        tuple(_footer(found)),
        [each.energy_pj for each in effects],
    )


def _end(effect: ConstantEffect, value: float) -> str:
    return si(value) if effect.has_range else "-"


def _footer(found: Uncertainty) -> Iterator[str]:
    factor, unit = unit_for([found.total_pj], PICOJOULES, least=1)
    low, value, high = (
        number(each, factor) for each in (found.low_pj, found.total_pj, found.high_pj)
    )
    if found.widest is None:
        yield f"energy: {value} {unit}; no constant has a range, so there is no interval"
    else:
        part = percent(found.widest.interval_pj, found.high_pj - found.low_pj)
        yield (
            f"energy: {low} to {high} {unit} ({value} as given), all constants at their low or "
            f"high ends at once"
        )
        yield f"most of the interval: {found.widest.constant}, {part} %"
    exact = [each.constant for each in found.effects if not each.has_range]
    if exact:
        named = ", ".join(exact[:SHOWN]) + (" ..." if len(exact) > SHOWN else "")
        yield (
            f"{len(exact)} of {len(found.effects)} have no range and are taken as exact ({named}); "
            f"a hardware file gives one as 'ranges: {{read_pj_per_bit: [4, 20]}}'"
        )
    yield "on the mappings of this run: with other constants others may be better"
