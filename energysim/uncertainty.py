"""How far the energy of a run depends on its constants: an interval, and who causes it.

Energy is a sum of counts times constants, so on a fixed mapping every effect is exact and effects
of several constants add up. Nothing is searched again: with other constants another mapping may be
the best, so the low end of the interval is one that can be reached and not a bound for it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from energysim.hardware import Hardware
from energysim.result import AccessRow, Result
from energysim.units import average_pj

if TYPE_CHECKING:
    import pandas as pd

STEP = 0.1
"""Change of a constant that the sensitivity table is made for, as a share of it."""

STATIC = "static"
"""Word of the rows of static energy."""

_WRITES = frozenset({"fill", "update"})

_UNITS = {"energy_pj": "pJ", "static_mw": "mW"}
"""Units of constants by their fields; those of all others are pJ/bit."""


@dataclass(frozen=True, slots=True)
class ConstantEffect:
    """What one constant of a hardware file does to the total energy of a run."""

    constant: str
    """block and field, a level by its name: ``DRAM.read_pj_per_bit``"""
    value: float
    """in ``unit``"""
    low: float
    """least that it may be; the value itself where the hardware gives no range"""
    high: float
    """most that it may be"""
    unit: str
    """pJ, pJ/bit or mW"""
    has_range: bool
    """whether the hardware gives a range, in its file or from the tables of technologies"""
    amount: float
    """what it is multiplied with: operations, bits, or ns of static power"""

    @property
    def energy_pj(self) -> float:
        """Its part of the total [pJ]."""
        return self.amount * self.value

    @property
    def step_pj(self) -> float:
        """Change of the total if it grows by 10 % [pJ]."""
        return STEP * self.energy_pj

    @property
    def interval_pj(self) -> float:
        """Width of the interval of the total, if it alone is uncertain [pJ]."""
        return self.amount * (self.high - self.low)


@dataclass(frozen=True, slots=True)
class Uncertainty:
    """The energy of a run as an interval, and what each constant does to it."""

    result: Result
    effects: tuple[ConstantEffect, ...]
    """of all constants that the run makes use of, largest part of the total first"""

    @property
    def total_pj(self) -> float:
        """With the values of the hardware [pJ]."""
        return self.result.total_energy_pj

    @property
    def low_pj(self) -> float:
        """With every constant at its low end [pJ]."""
        return self.total_pj - sum(each.amount * (each.value - each.low) for each in self.effects)

    @property
    def high_pj(self) -> float:
        """With every constant at its high end [pJ]."""
        return self.total_pj + sum(each.amount * (each.high - each.value) for each in self.effects)

    @property
    def widest(self) -> ConstantEffect | None:
        """The constant that causes most of the interval; None if no range is known."""
        wide = [each for each in self.effects if each.interval_pj]
        return max(wide, key=lambda each: each.interval_pj, default=None)

    @property
    def table(self) -> pd.DataFrame:
        """One row a constant, columns as in :meth:`rows`."""
        import pandas as pd

        return pd.DataFrame(self.rows())

    def rows(self) -> list[dict[str, Any]]:
        """One record a constant."""
        total, width = self.total_pj or 1.0, (self.high_pj - self.low_pj) or 1.0
        return [
            {
                **asdict(each),
                "energy_pj": each.energy_pj,
                "share": each.energy_pj / total,
                "per_10_percent_pj": each.step_pj,
                "per_10_percent_share": each.step_pj / total,
                "interval_pj": each.interval_pj,
                "interval_share": each.interval_pj / width,
            }
            for each in self.effects
        ]

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain data, with what is needed to repeat the run."""
        return {
            "settings": self.result.settings(),
            "energy_pj": {"low": self.low_pj, "value": self.total_pj, "high": self.high_pj},
            "most_of_the_interval": self.widest and self.widest.constant,
            "mappings": "those of the run, not searched again",
            "constants": self.rows(),
            "hardware": self.result.inputs[1].model_dump(mode="json"),
        }


def uncertainty(result: Result) -> Uncertainty:
    """Interval of the total energy of a run, and its sensitivity to each constant.

    Parameters
    ----------
    result : Result
        Its hardware gives the ranges of constants (``ranges``); one without is taken as exact.

    Returns
    -------
    Uncertainty
        On the mappings of the run; nothing is searched again.

    Notes
    -----
    The total is the sum over constants of amount times value, where the amount (bits, operations,
    time) does not depend on any constant. The change of the total with one of them is therefore its
    part of the total times its relative change, exactly.

    Examples
    --------
    >>> import energysim as es
    >>> r = es.simulate(es.load_network("vgg16_ps"), es.load_hardware("edge_tpu"))
    >>> es.uncertainty(r).effects[0].constant
    'mac.energy_pj'
    """
    given = dict(_constants(result.inputs[1]))
    amounts = amounts_of(result.access_rows, result.inputs[1])
    # without static power no row tells of the time
    amounts["static_mw"] = average_pj(1.0, result.total_time_ms)
    effects = [
        _effect(name, constant, amounts[name])
        for name, constant in given.items()
        if amounts.get(name)
    ]
    used = [each for each in effects if each.energy_pj or each.interval_pj]
    return Uncertainty(result, tuple(sorted(used, key=lambda each: -each.energy_pj)))


@dataclass(frozen=True, slots=True)
class _Given:
    """A constant as the hardware gives it."""

    value: float
    range: tuple[float, float] | None


def amounts_of(rows: Iterable[AccessRow], hardware: Hardware) -> dict[str, float]:
    """What each constant but the static power is multiplied with to give the energy of some rows.

    Parameters
    ----------
    rows : iterable of AccessRow
    hardware : Hardware
        Of the rows.

    Returns
    -------
    dict
        By constant, such as ``DRAM.read_pj_per_bit``: bits, or operations.
    """
    amounts: dict[str, float] = {}
    energies: dict[str, float] = {}
    for row in rows:
        if row.level != STATIC:
            name = _constant_of(row)
            energies[name] = energies.get(name, 0.0) + row.energy_pj
            amounts[name] = amounts.get(name, 0.0) + (row.bits or row.elements)
    given = dict(_constants(hardware))
    # rows count whole operations, their energy the expected ones where zeros are gated
    return {
        name: energies[name] / given[name].value if given[name].value else amount
        for name, amount in amounts.items()
        if name in given  # a machine without a vector unit has no energy of it
    }


def constants_of(hardware: Hardware) -> dict[str, float]:
    """Every constant of a machine that energy depends on, by name."""
    return {name: given.value for name, given in _constants(hardware)}


def _effect(name: str, given: _Given, amount: float) -> ConstantEffect:
    low, high = given.range or (given.value, given.value)
    unit = _UNITS.get(name.rpartition(".")[2], "pJ/bit")
    return ConstantEffect(name, given.value, low, high, unit, given.range is not None, amount)


def _constant_of(row: AccessRow) -> str:
    parts = {
        "MAC": "mac.energy_pj",
        "vector": "vector.energy_pj",
        "NoC": "array.hop_pj_per_bit",
    }
    field = "write_pj_per_bit" if row.action in _WRITES else "read_pj_per_bit"
    return parts.get(row.level) or f"{row.level}.{field}"


def _constants(hardware: Hardware) -> Iterator[tuple[str, _Given]]:
    """Every constant of a machine that energy depends on."""
    yield "mac.energy_pj", _given(hardware.mac.energy_pj, hardware.mac.ranges, "energy_pj")
    if hardware.vector is not None:
        vector = hardware.vector
        yield "vector.energy_pj", _given(vector.energy_pj, vector.ranges, "energy_pj")
    array, hop = hardware.array, "hop_pj_per_bit"
    yield f"array.{hop}", _given(array.hop_pj_per_bit, array.ranges, hop)
    yield "static_mw", _given(hardware.static_mw, hardware.ranges, "static_mw")
    for level in hardware.levels:
        for field, value in (
            ("read_pj_per_bit", level.read_pj_per_bit),
            ("write_pj_per_bit", level.write_pj_per_bit),
        ):
            yield f"{level.name}.{field}", _given(value, level.ranges, field)


def _given(value: float, ranges: Mapping[str, tuple[float, float]], field: str) -> _Given:
    return _Given(value, ranges.get(field))
