"""The tables of the page: variants, layers, levels, constants and mappings."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import inf
from typing import Any

from pydantic import BaseModel

from energysim.axes import Action, Dim, Tensor
from energysim.errors import EnergysimError
from energysim.hardware import Hardware
from energysim.model.capacity import Occupancy
from energysim.report.facts import NS_PER_MS, Fact, busy, stored_bytes
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
    quantity,
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


# -- constants -------------------------------------------------------------------------------------


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


_UNITS = {
    "_pj_per_bit": "pJ/bit",
    "_pj": "pJ",
    "_bits_per_cycle": "bit/cycle",
    "_mhz": "MHz",
    "_mw": "mW",
    "_nm": "nm",
    "_kib": "KiB",
    "_bytes": "byte",
    "_bits": "bit",
}
"""By the end of a field's name."""

_NOT_CONSTANTS = frozenset({"name", "source", "note", "assumed", "ranges", "from_tables"})

_BLOCKS = ("mac", "vector", "array", "sparsity", "technology")


@dataclass(frozen=True, slots=True)
class Source:
    """Where constants come from."""

    id: str
    number: int
    text: str


def constants(hardware: Hardware) -> tuple[Table, tuple[Source, ...]]:
    """Every constant of a machine with its value, unit and range, and where they come from.

    Parameters
    ----------
    hardware : Hardware

    Returns
    -------
    tuple of Table and tuple of Source
        The table names sources by their numbers.
    """
    rows = list(_constants(hardware))
    texts = dict.fromkeys(row.source for row in rows if row.source)
    sources = {text: Source(f"source-{i}", i, text) for i, text in enumerate(texts, start=1)}
    columns = (
        words("part", [row.part for row in rows]),
        words("constant", [row.name for row in rows]),
        Column("value", [row.value for row in rows]),
        words("unit", [row.unit for row in rows]),
        words("range", [row.range for row in rows]),
        words("status", [row.status for row in rows]),
        Column("source", [_reference(sources.get(row.source)) for row in rows], numeric=False),
    )
    note = (
        "assumed: not published; the source says what the assumption goes by. looked up: from the "
        "tables of technologies that come with energysim. default: what holds where the file says "
        "nothing."
    )
    return Table(f"Constants of {hardware.name}", columns, note), tuple(sources.values())


def _reference(source: Source | None) -> Cell:
    return Cell(f"[{source.number}]", link=source.id) if source else Cell(NOTHING)


@dataclass(frozen=True, slots=True)
class _Constant:
    """One field of a hardware file."""

    part: str
    name: str
    value: Cell
    unit: str
    range: str
    status: str
    source: str


def _constants(hardware: Hardware) -> Iterator[_Constant]:
    """Fields of all parts, levels outermost first, and then what holds for the whole machine."""
    for level in hardware.levels:
        yield from _fields(level.name, level, level)
    # its widths are told of by the file as a whole
    yield from _fields("bits", hardware.bits, hardware)
    for name in _BLOCKS:
        block = getattr(hardware, name)
        if block is not None:
            yield from _fields(name, block, block)
    yield from _fields("machine", hardware, hardware, without={*_BLOCKS, "bits", "levels"})


def _fields(
    part: str, block: BaseModel, told: BaseModel, *, without: Collection[str] = ()
) -> Iterator[_Constant]:
    """Fields of one part, of which ``told`` has the source and names what is assumed."""
    plain, about = block.model_dump(mode="json"), told.model_dump(mode="json")
    named = about.get("assumed", [])
    assumed = {*named, *plain} if part in named else {*named}
    ranges, tables = plain.get("ranges", {}), plain.get("from_tables", {})
    for name, value in plain.items():
        if name in _NOT_CONSTANTS or name in without or value in (None, {}, []):
            continue
        source = tables.get(name) or about.get("source", "")
        status = "published" if source else "no source"
        if name in assumed:
            status = "assumed"
        elif name in tables:
            status = "looked up"
        elif name not in block.model_fields_set:
            status, source = "default", ""
        span = " to ".join(f"{end:g}" for end in ranges.get(name, ()))
        yield _Constant(part, name, _value(value), _unit(part, name), span, status, source)


def _unit(part: str, name: str) -> str:
    if part == "bits":
        return "bit"
    return next((unit for end, unit in _UNITS.items() if name.endswith(end)), "")


def _value(value: Any) -> Cell:
    """Numbers as they stand in the file, and words as a person writes them."""
    if isinstance(value, bool):
        return Cell("yes" if value else "no")
    if isinstance(value, int | float):
        return Cell(f"{value:g}" if isinstance(value, float) else str(value), float(value))
    if isinstance(value, list):
        return Cell(", ".join(map(str, value)))
    if isinstance(value, dict):
        return Cell("; ".join(f"{name} {_value(each).text}" for name, each in value.items()))
    return Cell(str(value))


# -- mappings --------------------------------------------------------------------------------------


def mapping(result: Result, layer: str) -> Table:
    """Loops between the levels of one layer's mapping, and how full each level is."""
    rooms = {result.level_names[room.level]: room for room in result.rooms[layer]}
    rows = result.mappings[layer]
    columns = (
        words("level", [row.level for row in rows]),
        words(
            "loops in time",
            [" ".join(f"{dim}{trips}" for dim, trips in row.temporal) for row in rows],
        ),
        words(
            "side by side",
            [" ".join(f"{dim}{trips} on {axis}" for dim, trips, axis in row.spatial)
             for row in rows],
        ),
        words(
            "tiles further in",
            [", ".join(f"{tensor} by {shift}" for tensor, shift in row.cuts.items())
             for row in rows],
        ),
        words("passed by", [", ".join(row.bypass) for row in rows]),
        words("room taken", [_room(rooms.get(row.level)) for row in rows]),
    )  # fmt: skip
    return Table(f"Mapping of {layer}", columns, sorts=False)


def _room(room: Occupancy | None) -> str:
    if room is None:
        return ""
    if isinstance(room.capacity_bits, int):
        return _part(room.used_bits, room.capacity_bits)
    return ", ".join(
        f"{tensor.label} {_part(room.bits.get(tensor, 0), size)}"
        for tensor, size in room.capacity_bits.items()
    )


def _part(used_bits: int, size_bits: int) -> str:
    used, size = used_bits / BITS_PER_BYTE, size_bits / BITS_PER_BYTE
    return f"{percent(used, size)} % of {quantity(size, BYTES)}"


def about_layer(result: Result, place: int) -> Iterator[Fact]:
    """What is known of one layer beside its mapping."""
    row = result.layer_rows[place]
    steps = result.inputs[0].layers if result.training is None else result.training.steps
    shape = steps[place].batched(result.batch)
    extents = " ".join(f"{dim.name}{shape[dim]}" for dim in Dim if shape[dim] > 1)
    yield Fact("extents", extents or "all 1")
    yield Fact("energy", quantity(row.energy_pj, JOULES))
    yield Fact("time", f"{row.cycles:,} cycles, {si(row.time_ms)} ms", _time(result, row.layer))
    if row.weight_bits:
        stored = quantity(row.weight_bits / BITS_PER_BYTE, BYTES)
        yield Fact("weights", f"{stored} stored as {row.weight_format}")
    yield Fact("stays on chip", ", ".join(row.resident.split()) or "nothing")
    yield Fact("found", _found(result, row.layer))


def _time(result: Result, layer: str) -> str:
    """What the cycles are made of, parts that take none left out."""
    timing = result.timings.get(layer)
    if timing is None:
        return ""
    parts = {
        "steps": timing.compute_cycles,
        "busiest bus": timing.bus_cycles,
        "waiting": timing.waiting_cycles,
        "first tiles in and last out": timing.exposed_cycles,
    }
    parts |= {f"traffic of {name}": each for name, each in timing.level_cycles.items()}
    hidden = "; traffic of " + ", ".join(timing.overlapping) + " overlaps with other work"
    told = ", ".join(f"{name} {each:,.0f}" for name, each in parts.items() if each)
    return f"cycles of each part: {told}{hidden * bool(timing.overlapping)}"


def _found(result: Result, layer: str) -> str:
    if layer in result.given_mappings:
        return "the mapping was given"
    search = result.searches[layer]
    if search.optimal:
        return f"no mapping among {search.mapspace:,} is better"
    return (
        f"stopped early among {search.mapspace:,} mappings: the best may be up to "
        f"{100 * search.gap:.2g} % better"
    )
