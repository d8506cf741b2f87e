"""The tables of the page that are about results: variants, layers, levels, sensitivity."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import inf
from typing import Any

from energysim.axes import Action, Tensor
from energysim.errors import EnergysimError
from energysim.report.facts import NS_PER_MS, busy, stored_bytes
from energysim.report.table import JOULES, NOTHING, SECONDS, Cell, Column, Table, amounts, words
from energysim.result import AccessRow, LayerRow, Result
from energysim.uncertainty import ConstantEffect, Uncertainty
from energysim.units import (
    BITS_PER_BYTE,
    BYTES,
    COUNTS,
    PJ_PER_MJ,
    number,
    percent,
    si,
    times,
    unit_for,
)

STEP_PERCENT = 10

Key = tuple[str, str, str]
"""Level, tensor and action."""


# -- variants side by side -------------------------------------------------------------------------


def variants(results: Sequence[Result], base: Result | None) -> Table:
    """One row a network, each figure with its ratio to that of the base.

    Parameters
    ----------
    results : sequence of Result
        Of variants of one network on one machine.
    base : Result or None
        What they are compared with; without it no ratios.
    """
    outer = results[0].level_names[0]
    figures: tuple[tuple[str, Callable[[Result], float], Sequence[tuple[float, str]]], ...] = (
        ("parameters", lambda each: each.inputs[0].parameters, COUNTS),
        ("stored weights", stored_bytes, BYTES),
        ("effective MACs", lambda each: each.total_effective_macs, COUNTS),
        ("time", lambda each: each.total_time_ms * NS_PER_MS, SECONDS),
        (outer, lambda each: each.total_dram_bytes, BYTES),
        ("energy", lambda each: each.total_energy_pj, JOULES),
    )
    columns = [
        words("network", [each.network for each in results]),
        words("pattern", [each.pattern for each in results]),
    ]
    for name, figure, units in figures:
        values = [figure(each) for each in results]
        columns.append(amounts(name, values, units, adds_up=False))
        if base is not None:
            columns.append(_ratios("rel.", values, [figure(base)] * len(values)))
    columns.append(_shares("util.", [busy(each) for each in results], 1.0))
    note = f"rel.: relative to {base.network}, which is dense" if base is not None else ""
    return Table("Side by side", tuple(columns), note)


def _ratios(name: str, values: Sequence[float], base: Sequence[float]) -> Column:
    return Column(name, [_ratio(*pair) for pair in zip(values, base, strict=True)])


def _ratio(value: float, base: float) -> Cell:
    if not base:
        return Cell(NOTHING)
    return Cell(times(value, base), value / base)


def _shares(
    name: str, values: Sequence[float], whole: float, total: str = "", *, bars: bool = False
) -> Column:
    """Column of parts of a whole in percent, with bars as long as the largest allows."""
    most = max(values, default=0.0) or 1.0
    cells = [
        Cell(percent(value, whole), value / (whole or 1.0), share=value / most if bars else None)
        for value in values
    ]
    return Column(name, cells, total, "%")


# -- layers and levels -----------------------------------------------------------------------------


def layers(result: Result, dense: Result | EnergysimError | None, place: str) -> Table:
    """One row a layer, or step of training.

    Parameters
    ----------
    result : Result
    dense : Result or EnergysimError or None
        Of the dense network of a variant: each layer is compared with its layer of the same name.
    place : str
        Start of the ids of the mappings on the page, which the names of layers lead to.
    """
    rows = result.layer_rows
    outer, buffer, *_ = result.level_names
    outer_bytes, buffer_bytes = result.level_bytes(outer), result.level_bytes(buffer)
    macs, live = [row.macs for row in rows], [row.effective_macs for row in rows]
    energies = [row.energy_pj for row in rows]
    names = [Cell(row.layer, link=f"{place}{i}") for i, row in enumerate(rows)]
    columns = [
        Column("layer", names, "total", numeric=False),
        words("kind", [row.kind for row in rows]),
        amounts("MACs", macs, COUNTS),
    ]
    if live != macs:
        columns.append(amounts("effective", live, COUNTS, like=macs))
    columns += [
        amounts("cycles", [row.cycles for row in rows], COUNTS),
        Column(
            "util.",
            [Cell(percent(row.utilization, 1), row.utilization) if row.macs else Cell(NOTHING)
             for row in rows],
            percent(busy(result), 1),
            "%",
        ),
        amounts(outer, outer_bytes, BYTES, like=buffer_bytes),
        Column(
            "over bound",
            [_over_bound(row.dram_bytes, row.dram_bound_bytes) for row in rows],
            _over_bound(result.total_dram_bytes, result.total_dram_bound_bytes).text,
        ),
        amounts(buffer, buffer_bytes, BYTES, like=outer_bytes),
        amounts("energy", energies, JOULES),
        _shares("share", energies, result.total_energy_pj, "100", bars=True),
    ]  # fmt: skip
    if isinstance(dense, Result) and dense is not result:
        columns.append(_beside_dense(rows, dense))
    note = (
        f"over bound: {outer} traffic over the least that any mapping must move, given what stays "
        "on chip. A name leads to the mapping of its layer."
    )
    return Table("Layers", tuple(columns), note)


def _over_bound(moved: float, bound: float) -> Cell:
    """How far traffic is from its lower bound; nothing where nothing moves."""
    if not moved:
        return Cell(NOTHING)
    return _ratio(moved, bound) if bound else Cell("∞", inf)


def _beside_dense(rows: Sequence[LayerRow], dense: Result) -> Column:
    """Energy of each layer over that of the dense network's layer of the same name."""
    base = {row.layer: row.energy_pj for row in dense.layer_rows}
    cells = [_ratio(row.energy_pj, base.get(row.layer, 0.0)) for row in rows]
    whole = times(sum(row.energy_pj for row in rows), dense.total_energy_pj)
    return Column("energy vs dense", cells, whole)


def levels(result: Result) -> Table:
    """One row a level, tensor and action, all layers together."""
    sums: dict[Key, list[AccessRow]] = {}
    for row in result.access_rows:
        sums.setdefault((row.level, row.tensor, row.action), []).append(row)
    keys = _in_order(sums, result.level_names)
    columns = [words(name, [key[i] for key in keys]) for i, name in enumerate(_KEYS)]
    columns[0] = Column("level", columns[0].cells, "total", numeric=False)
    grouped = [sums[key] for key in keys]
    columns += _moves(
        [sum(row.elements for row in rows) for rows in grouped],
        [sum(row.bits for row in rows) for rows in grouped],
        [sum(row.energy_pj for row in rows) for rows in grouped],
        result.total_energy_pj,
    )
    note = (
        "fill and update write to a level, read and drain read from it; MAC, vector, NoC and "
        "static are the parts that are no memory."
    )
    return Table("Levels, tensors and actions", tuple(columns), note)


def accesses(result: Result) -> Table:
    """One row a layer, level, tensor and action."""
    rows = result.access_rows
    columns = [
        words("layer", [row.layer for row in rows], "total"),
        *(words(name, [getattr(row, name) for row in rows]) for name in _KEYS),
        *_moves(
            [row.elements for row in rows],
            [row.bits for row in rows],
            [row.energy_pj for row in rows],
            result.total_energy_pj,
        ),
    ]
    return Table("Every layer, level, tensor and action", tuple(columns))


_KEYS = ("level", "tensor", "action")


def _in_order(keys: Mapping[Key, Any], level_names: Sequence[str]) -> list[Key]:
    orders = (
        [*level_names, "NoC", "vector", "MAC", "static"],
        ["", *(tensor.label for tensor in Tensor)],
        [*(action.label for action in Action), "hop", "compute", "static"],
    )
    return sorted(
        keys, key=lambda key: [order.index(word) for order, word in zip(orders, key, strict=True)]
    )


def _moves(
    elements: Sequence[int], bits: Sequence[float], energies: Sequence[float], total: float
) -> list[Column]:
    moved = [each / BITS_PER_BYTE for each in bits]
    return [
        amounts("elements", elements, COUNTS, adds_up=False),
        amounts("data", moved, BYTES, adds_up=False),
        amounts("energy", energies, JOULES),
        _shares("share", energies, total, "100", bars=True),
    ]


def phases(result: Result) -> Table | None:
    """One row a phase of a training iteration; nothing for inference."""
    costs = result.by_phase()
    if not costs:
        return None
    energies = [cost.energy_mj * PJ_PER_MJ for cost in costs.values()]
    columns = (
        words("phase", list(costs), "total"),
        amounts("energy", energies, JOULES),
        _shares("share", energies, result.total_energy_pj, "100", bars=True),
        amounts("time", [cost.time_ms * NS_PER_MS for cost in costs.values()], SECONDS),
        amounts("MACs", [cost.macs for cost in costs.values()], COUNTS),
        amounts(result.level_names[0], [cost.dram_bytes for cost in costs.values()], BYTES),
    )
    return Table("Phases of the iteration", columns)


# -- what energy constants do ----------------------------------------------------------------------


def sensitivity(found: Uncertainty) -> Table:
    """What each energy constant that the run makes use of does to the total."""
    effects, width = found.effects, found.high_pj - found.low_pj
    factor, unit = unit_for([each.step_pj for each in effects], JOULES)
    steps = [Cell(number(each.step_pj, factor), each.step_pj) for each in effects]
    columns = (
        words("constant", [each.constant for each in effects]),
        Column("value", [Cell(si(each.value), each.value) for each in effects]),
        Column("low", [_end(each, each.low) for each in effects]),
        Column("high", [_end(each, each.high) for each in effects]),
        words("unit", [each.unit for each in effects]),
        _shares("share", [each.energy_pj for each in effects], found.total_pj, bars=True),
        Column(f"per {STEP_PERCENT} %", steps, unit=unit),
        _shares("of interval", [each.interval_pj for each in effects], width),
    )
    note = (
        f"per {STEP_PERCENT} %: change of the total where the constant is {STEP_PERCENT} % more, "
        "on the same mappings; of interval: its part of the width from least to most."
    )
    return Table("What each energy constant does", columns, note)


def _end(effect: ConstantEffect, value: float) -> Cell:
    return Cell(si(value), value) if effect.has_range else Cell(NOTHING)
