"""Energy of arithmetic and memories by technology, looked up in tables that name their sources.

Every number stands in a CSV file beside this one, with its source and its status: ``verified``
(read in a stored public source), ``tool default`` (a constant of a published tool), ``computed``
(by running a published tool, or by a rule that the source gives) or ``from memory``. Between the
points of one source values are interpolated; outside of them nothing is said.
"""

from energysim.technology.constants import (
    DRAM_KINDS,
    SOURCES,
    Constant,
    Dram,
    Use,
    add,
    dram,
    mac,
    regfile,
    sram,
)
from energysim.technology.tables import OutsideError

__all__ = [
    "DRAM_KINDS",
    "SOURCES",
    "Constant",
    "Dram",
    "OutsideError",
    "Use",
    "add",
    "dram",
    "mac",
    "regfile",
    "sram",
]
