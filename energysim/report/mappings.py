"""The mapping of each layer, and what else is known of it."""

from __future__ import annotations

from collections.abc import Iterator

from energysim.axes import Dim
from energysim.model.capacity import Occupancy
from energysim.report.facts import Fact
from energysim.report.table import JOULES, Table, words
from energysim.result import Result
from energysim.units import BITS_PER_BYTE, BYTES, percent, quantity, si


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
