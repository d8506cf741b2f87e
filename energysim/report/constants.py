"""Every constant of a machine, with where it comes from."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

from energysim.hardware import Hardware
from energysim.report.table import NOTHING, Cell, Column, Table, words

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
