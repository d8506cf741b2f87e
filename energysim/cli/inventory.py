"""What ``energysim list`` shows: networks, hardware, dataflows and patterns."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from energysim import catalog
from energysim.catalog import Kind
from energysim.cli.render import Column, Grid, Narrow
from energysim.errors import InputError
from energysim.hardware import Hardware
from energysim.mapper.dataflows import DATAFLOWS
from energysim.network import Network
from energysim.sparsity import ALL_TAPS, PATTERNS
from energysim.units import BITS_PER_KIB, number

Record = Mapping[str, Any]

MEGA = 1e6


@dataclass(frozen=True, slots=True)
class Shown:
    """One column of the printed table, made of a field of the records."""

    heading: str
    field: str
    write: Callable[[Any], str] = str
    right: bool = True
    narrow: Narrow = "keep"


@dataclass(frozen=True, slots=True)
class Inventory:
    """Records of one kind, and how they are printed."""

    title: str
    shown: tuple[Shown, ...]
    records: Sequence[Record]
    notes: tuple[str, ...] = ()
    """lines below the table; files hold the records only"""

    def grid(self) -> Grid:
        """Lay the records out as a table."""
        columns = tuple(
            Column(
                column.heading,
                [_cell(column, record) for record in self.records],
                right=column.right,
                narrow=column.narrow,
            )
            for column in self.shown
        )
        return Grid(columns, self.title, self.notes)


def _cell(column: Shown, record: Record) -> str:
    value = record.get(column.field)
    return "-" if value is None else column.write(value)


def _words(heading: str, field: str) -> Shown:
    return Shown(heading, field, right=False)


_SOURCE = Shown("source", "source", right=False, narrow="cut")


def _mega(value: float) -> str:
    return number(value, MEGA)


def _networks() -> Inventory:
    shown = (
        _words("name", "name"),
        Shown("layers", "layers"),
        Shown("parameters [M]", "parameters", _mega),
        Shown("MACs [M]", "macs", _mega),
        Shown("effective [M]", "effective_macs", _mega),
        _words("pattern", "pattern"),
        _SOURCE,
    )
    return Inventory("networks", shown, _loaded("nets", catalog.load_network, _network))


def _network(network: Network) -> Record:
    return {
        "layers": len(network.layers),
        "parameters": network.parameters,
        "macs": network.macs,
        "effective_macs": network.effective_macs,
        "pattern": network.pattern,
        "base": network.base,
        "source": network.source,
    }


def _hardware() -> Inventory:
    shown = (
        _words("name", "name"),
        Shown("array", "array"),
        Shown("on chip [KiB]", "on_chip_kib", number),
        _words("dataflow", "dataflow"),
        _SOURCE,
    )
    return Inventory("hardware", shown, _loaded("hw", catalog.load_hardware, _chip))


def _chip(chip: Hardware) -> Record:
    bits = 0
    for index, level in enumerate(chip.levels):
        size = level.capacity_bits() or 0
        each = size if isinstance(size, int) else sum(size.values())
        bits += each * chip.instances(index)
    return {
        "array": "x".join(map(str, chip.axis_sizes)),
        "on_chip_kib": bits / BITS_PER_KIB,
        "clock_mhz": chip.clock_mhz,
        "dataflow": chip.dataflow,
        "source": chip.source,
    }


def _loaded(
    kind: Kind, load: Callable[[str], Any], describe: Callable[[Any], Record]
) -> list[Record]:
    """Describe every file that has a name; one with mistakes is listed with advice."""
    found: dict[str, Record | None] = {}
    for name in catalog.names(kind):
        try:
            found[name] = describe(load(name))
        except InputError:
            found[name] = None
    fields = dict.fromkeys(field for record in found.values() if record for field in record)
    return [
        {
            "name": name,
            **(record or {**fields, "source": f"has mistakes: energysim check {kind} {name}"}),
        }
        for name, record in found.items()
    ]


def _dataflows() -> Inventory:
    shown = (_words("name", "name"), Shown("meaning", "meaning", right=False, narrow="wrap"))
    records = [{"name": flow.name, "meaning": flow.meaning} for flow in DATAFLOWS.values()]
    return Inventory("dataflows", shown, records)


def _patterns() -> Inventory:
    shown = (
        _words("name", "name"),
        Shown("taps", "taps"),
        Shown("period", "period"),
        Shown("dense kernels", "dense_kernels"),
        Shown("density", "density", "{:.3f}".format),
        Shown("supports", "supports", right=False, narrow="wrap"),
    )
    records = [
        {
            "name": pattern.name,
            "taps": pattern.kss,
            "period": None if pattern.random else pattern.period,
            "dense_kernels": f"1 of {pattern.period}" if pattern.fdk else None,
            "density": pattern.mean_kss / len(ALL_TAPS),
            "supports": "random" if pattern.random else _supports(pattern.slots),
        }
        for pattern in PATTERNS.values()
    ]
    return Inventory("patterns of 3x3 kernels", shown, records, OWN_PATTERNS)


OWN_PATTERNS = (
    "N:M such as 2:4 is a pattern too: N of every M input channels are live",
    "so are supports spelled out, 3x3_0.1.3.4_4.5.7.8_F8: taps of each variant, 1 of 8 dense",
    "in a file: pattern: {supports: [[0, 1, 3, 4], [4, 5, 7, 8]], fdk_every: 8}, any kernel size",
)
"""What ``--pattern`` takes besides the names."""


def _supports(slots: Sequence[Sequence[int]]) -> str:
    return " ".join(dict.fromkeys("".join(map(str, taps)) for taps in slots))


TABLES: dict[str, Callable[[], Inventory]] = {
    "nets": _networks,
    "hw": _hardware,
    "dataflows": _dataflows,
    "patterns": _patterns,
}
"""How to take stock, by the words of ``energysim list``."""
