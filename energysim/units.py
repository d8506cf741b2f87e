"""The glossary of output columns, the few conversions between units, and numbers as text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite

BITS_PER_BYTE = 8
BITS_PER_KIB = 1024 * BITS_PER_BYTE
"""1 KiB = 1024 bytes; MB, where it appears, is 10^6 bytes."""

PJ_PER_MJ = 1e9
"""picojoules in a millijoule"""


@dataclass(frozen=True, slots=True)
class Column:
    """What one column of an output table means."""

    label: str
    """heading and plot label, without the unit"""
    unit: str
    """unit of the values; empty for words, counts and ratios"""
    meaning: str
    """one sentence"""

    @property
    def heading(self) -> str:
        """Label with its unit in square brackets."""
        return f"{self.label} [{self.unit}]" if self.unit else self.label


COLUMNS: dict[str, Column] = {
    "network": Column("network", "", "name of the network"),
    "hardware": Column("hardware", "", "name of the accelerator"),
    "dataflow": Column("dataflow", "", "named set of constraints the mapping was chosen under"),
    "pattern": Column("pattern", "", "pre-defined sparsity pattern of the weights"),
    "batch": Column("batch", "", "images processed together"),
    "layer": Column("layer", "", "name of the layer"),
    "kind": Column("kind", "", "kind of the layer: conv, depthwise, linear, pool or add"),
    "level": Column(
        "level",
        "",
        "memory level; MAC, vector, NoC and static are the parts that are no memory",
    ),
    "tensor": Column("tensor", "", "weight, input or output"),
    "action": Column(
        "action",
        "",
        "fill and update write, read and drain read; compute, hop and static elsewhere",
    ),
    "elements": Column("elements", "", "elements moved, or operations done"),
    "bits": Column("bits", "bit", "bits moved, metadata of a storage format included"),
    "energy_pj": Column("energy", "pJ", "energy"),
    "energy_mj": Column("energy", "mJ", "energy"),
    "macs": Column("MACs", "", "multiply-accumulates, those with a zero weight included"),
    "effective_macs": Column(
        "effective MACs", "", "multiply-accumulates with a weight not fixed at 0"
    ),
    "cycles": Column("cycles", "", "clock cycles"),
    "time_ms": Column("time", "ms", "cycles over the clock frequency"),
    "utilization": Column("utilization", "", "MACs over cycles times processing elements"),
    "dram_bytes": Column("DRAM", "byte", "bytes read from and written to DRAM"),
    "sram_bytes": Column(
        "SRAM", "byte", "bytes read from and written to the outermost on-chip memory"
    ),
    "dram_bound_bytes": Column(
        "DRAM bound", "byte", "bytes that any mapping must move, given what stays on chip"
    ),
    "weight_bits": Column("weights", "bit", "bits of the stored weights, metadata included"),
    "parameters": Column("parameters", "", "weights not fixed at 0, biases and normalisation"),
}
"""Every column of an output table, by its name in files."""


_PLAIN_EXPONENTS = range(-4, 7)
"""Powers of ten that :func:`si` writes without an exponent."""


def pj_to_mj(energy_pj: float) -> float:
    """Energy [mJ] of an energy [pJ].

    Examples
    --------
    >>> pj_to_mj(2.5e9)
    2.5
    """
    return energy_pj / PJ_PER_MJ


def cycles_to_ms(cycles: float, clock_mhz: float) -> float:
    """Time [ms] of a number of clock cycles at a clock frequency [MHz].

    Examples
    --------
    >>> cycles_to_ms(480_000, 480)
    1.0
    """
    return cycles / (clock_mhz * 1e3)


def average_pj(power_mw: float, time_ms: float) -> float:
    """Energy [pJ] of a constant power [mW] over a time [ms].

    Examples
    --------
    >>> average_pj(30, 2)
    60000000.0
    """
    return power_mw * time_ms * 1e6


def si(value: float, digits: int = 3) -> str:
    """Write a number with so many significant digits; very small and large ones with an exponent.

    Examples
    --------
    >>> [si(value) for value in (12.345, 0.4, 1.2345, 9.996, 6823, 0, 1.2e-9)]
    ['12.3', '0.400', '1.23', '10.0', '6820', '0', '1.20e-09']
    """
    if value == 0 or not isfinite(value):
        return f"{value:g}"
    scientific = f"{value:.{digits - 1}e}"
    exponent = int(scientific.partition("e")[2])
    if exponent not in _PLAIN_EXPONENTS:
        return scientific
    decimals = digits - 1 - exponent
    return f"{round(value, decimals):.{max(decimals, 0)}f}"


# -- numbers as people read them -----------------------------------------------------------------

Unit = tuple[float, str]
"""Factor and name of a unit."""

COUNTS: tuple[Unit, ...] = ((1, ""), (1e3, "k"), (1e6, "M"), (1e9, "G"))
BITS: tuple[Unit, ...] = ((1, "bit"), (1e3, "kbit"), (1e6, "Mbit"), (1e9, "Gbit"))
BYTES: tuple[Unit, ...] = ((1, "B"), (1e3, "kB"), (1e6, "MB"), (1e9, "GB"))
PICOJOULES: tuple[Unit, ...] = ((1, "pJ"), (1e3, "nJ"), (1e6, "uJ"), (1e9, "mJ"), (1e12, "J"))
NANOSECONDS: tuple[Unit, ...] = ((1, "ns"), (1e3, "us"), (1e6, "ms"), (1e9, "s"))

LEAST_MEDIAN = 0.5
"""A column takes the largest unit in which half of its values are no less than this."""

LEAST_SHOWN = 0.001
"""Smaller values of a column are shown as less than this."""

PERCENT = 100

SMALL = 0.1
"""Percentages below this are shown as less than this, ratios below it with three digits."""


def number(value: float, factor: float = 1) -> str:
    """Three significant digits in a given unit.

    Examples
    --------
    >>> [number(value, 1e6) for value in (1_234_567, 0, 12)]
    ['1.23', '0', '<0.001']
    """
    scaled = value / factor
    return f"<{LEAST_SHOWN}" if 0 < scaled < LEAST_SHOWN else si(scaled)


def unit_for(
    values: Sequence[float], units: Sequence[Unit], *, least: float = LEAST_MEDIAN
) -> Unit:
    """Choose the largest unit in which at least half of the values are no less than ``least``.

    Examples
    --------
    >>> unit_for([0, 650_000, 2_300_000], COUNTS)
    (1000000.0, 'M')
    """
    from statistics import median

    present = [value for value in values if value] or [0]
    middle = median(present)
    fitting = [unit for unit in units if middle >= least * unit[0]]
    return fitting[-1] if fitting else units[0]


def heading(name: str, unit: str) -> str:
    """Name of a column with its unit in square brackets."""
    return f"{name} [{unit}]" if unit else name


def percent(part: float, whole: float) -> str:
    """Part of a whole in percent, to two digits.

    Examples
    --------
    >>> [percent(part, 1000) for part in (623, 9, 0.1, 0)]
    ['62', '0.90', '<0.1', '0']
    """
    value = PERCENT * part / whole if whole else 0.0
    if not value:
        return "0"
    if value < SMALL:
        return f"<{SMALL}"
    return si(value, 2) if value < PERCENT else f"{value:.0f}"


def times(value: float, base: float) -> str:
    """Ratio of two figures, as people say it.

    Examples
    --------
    >>> times(51, 100), times(3, 0), times(0, 0)
    ('0.51x', '-', '1.00x')
    """
    if value == base:
        return "1.00x"
    if not base:
        return "-"
    ratio = value / base
    return f"{ratio:.2f}x" if SMALL <= ratio < PERCENT else f"{si(ratio)}x"


def quantity(value: float, units: Sequence[Unit]) -> str:
    """Write one figure with its unit.

    Examples
    --------
    >>> quantity(2.5e9, PICOJOULES), quantity(0, BYTES), quantity(64, COUNTS)
    ('2.50 mJ', '0 B', '64.0')
    """
    factor, unit = unit_for([value], units, least=1)
    return f"{number(value, factor)} {unit}".rstrip()
