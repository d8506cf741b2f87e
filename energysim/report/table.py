"""A table of the page: what its cells say, and what they are sorted by."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from energysim.units import NANOSECONDS, PICOJOULES, Unit, number, unit_for

NOTHING = "–"
"""Stands in a cell that has no value; sorted behind all that have one."""


def _with_micro(units: Sequence[Unit]) -> tuple[Unit, ...]:
    """Units as pictures have them: a terminal may not know the letter."""
    return tuple((factor, name.replace("u", "µ")) for factor, name in units)


JOULES, SECONDS = _with_micro(PICOJOULES), _with_micro(NANOSECONDS)
"""Units of picojoules and of nanoseconds."""


@dataclass(frozen=True, slots=True)
class Cell:
    """One value, as it is shown."""

    text: str
    key: float | None = None
    """what it is sorted by; words by themselves"""
    link: str = ""
    """id of the place on the page that it leads to"""
    share: float | None = None
    """of a whole, drawn as a bar behind the number"""

    @property
    def sorted_by(self) -> str:
        """The key as the page's script reads it."""
        return "" if self.key is None else str(self.key).replace("inf", "Infinity")

    @property
    def bar(self) -> str:
        """Length of the bar, as CSS wants it."""
        return "" if self.share is None else f"{100 * self.share:.1f}%"


@dataclass(frozen=True, slots=True)
class Column:
    """Name and cells of one column."""

    name: str
    cells: Sequence[Cell]
    total: str = ""
    unit: str = ""
    numeric: bool = True
    """numbers are aligned to the right, words to the left"""


@dataclass(frozen=True, slots=True)
class Table:
    """Columns of equal length."""

    title: str
    columns: tuple[Column, ...]
    note: str = ""
    """stands below it"""
    sorts: bool = True
    """whether its rows have no order of their own that matters"""
    rows: list[tuple[Cell, ...]] = field(init=False, repr=False)
    """cells row by row, without the totals"""

    def __post_init__(self) -> None:
        rows = list(zip(*(column.cells for column in self.columns), strict=True))
        object.__setattr__(self, "rows", rows)

    @property
    def has_total(self) -> bool:
        """Whether there is a row of totals."""
        return any(column.total for column in self.columns)


def words(name: str, texts: Sequence[str], total: str = "") -> Column:
    """Column of words."""
    return Column(name, [Cell(text or NOTHING) for text in texts], total, numeric=False)


def amounts(
    name: str,
    values: Sequence[float],
    units: Sequence[Unit],
    *,
    like: Sequence[float] = (),
    adds_up: bool = True,
) -> Column:
    """Column of numbers in one unit; ``like`` has a say in which.

    Parameters
    ----------
    name : str
        Of the column.
    values : sequence of float
        In the first of the units.
    units : sequence of Unit
        To choose from.
    like : sequence of float, optional
        Of columns beside it that should have the same unit.
    adds_up : bool
        Whether their sum means something.

    Examples
    --------
    >>> from energysim.units import BYTES
    >>> column = amounts("DRAM", [1500.0, 2500.0], BYTES)
    >>> column.name, column.unit, [cell.text for cell in column.cells], column.total
    ('DRAM', 'kB', ['1.50', '2.50'], '4.00')
    """
    factor, unit = unit_for([*values, *like], units)
    cells = [Cell(number(value, factor), float(value)) for value in values]
    return Column(name, cells, number(sum(values), factor) if adds_up else "", unit)
