"""The table of a sweep: a row a point, written block by block."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from energysim.errors import MissingExtraError
from energysim.files import atomic_file
from energysim.sweeps.axes import Axis
from energysim.sweeps.evaluate import METRICS
from energysim.sweeps.plan import Plan
from energysim.sweeps.run import Check
from energysim.sweeps.store import Blocks

if TYPE_CHECKING:
    from xarray import Dataset

WHOLE = ("cycles", "macs", "effective_macs", "parameters")
"""Columns of whole numbers."""

UNITS = {"energy_mj": "mJ", "time_ms": "ms", "dram_bytes": "byte", "sram_bytes": "byte"}
"""Units of columns; the others are counts and ratios."""


@dataclass(frozen=True, slots=True)
class Sweep:
    """A finished sweep."""

    plan: Plan = field(repr=False)
    store: Blocks = field(repr=False)
    check: Check | None = None
    """points that were searched anew, if any were"""

    @property
    def table(self) -> pd.DataFrame:
        """All points, one row each; large sweeps are better read by :meth:`frames`."""
        return pd.concat(self.frames(), ignore_index=True)

    def frames(self) -> Iterator[pd.DataFrame]:
        """The table in blocks, in order."""
        for number in range(self.plan.blocks):
            yield frame(self.plan, self.store, number)

    def to_csv(self, path: str | Path) -> None:
        """Write the table as CSV, whole or not at all."""
        with atomic_file(Path(path)) as file:
            for number, each in enumerate(self.frames()):
                text = each.to_csv(index=False, header=number == 0, lineterminator="\n")
                file.write(text.encode())

    def to_parquet(self, path: str | Path) -> None:
        """Write the table as Parquet, whole or not at all.

        Raises
        ------
        MissingExtraError
            Without pyarrow.
        """
        try:
            import pyarrow as pa
            import pyarrow.parquet as pq
        except ImportError:
            raise MissingExtraError(
                "Parquet needs pyarrow, which is not installed: pip install 'energysim[parquet]'"
            ) from None
        first = next(self.frames())
        schema = pa.Schema.from_pandas(first, preserve_index=False)
        with atomic_file(Path(path)) as file, pq.ParquetWriter(file, schema) as writer:
            for each in self.frames():
                writer.write_table(pa.Table.from_pandas(each, schema=schema, preserve_index=False))

    def to_xarray(self) -> Dataset:
        """The table as a grid: a dimension an axis, a variable a column, units in attributes.

        Raises
        ------
        MissingExtraError
            Without xarray.
        """
        try:
            import xarray as xr
        except ImportError:
            raise MissingExtraError(
                "to_xarray needs xarray, which is not installed: pip install 'energysim[xarray]'"
            ) from None
        plan = self.plan
        table = self.table
        axes = (*plan.structural, *plan.numeric)
        shape = [len(axis.values) for axis in axes]
        names = [axis.name for axis in axes]
        # float64 holds whole numbers to 2^53 and points that can't be
        columns = {name: table[name].astype("float64").to_numpy() for name in METRICS}
        data = {
            name: (names, values.reshape(shape), {"units": UNITS.get(name, "1")})
            for name, values in columns.items()
        }
        return xr.Dataset(data, {axis.name: list(axis.values) for axis in axes})


def frame(plan: Plan, store: Blocks, number: int) -> pd.DataFrame:
    """Rows of a block."""
    block = store.get(number)
    figures = block.values
    axes = plan.columns(number)
    columns: dict[str, Any] = {
        name: getattr(plan.spec, name)
        for name in ("network", "hardware")
        if name not in {each for axis in plan.axes for each in axis.fields}
    }
    columns |= {axis.name: pd.Series(axes[axis.name], dtype=_type_of(axis)) for axis in plan.axes}
    columns |= {name: figures[:, place] for place, name in enumerate(METRICS)}
    made = pd.DataFrame(columns, index=range(len(figures)))
    for name in WHOLE:
        made[name] = made[name].astype("Int64")
    made["searched"] = made["searched"].fillna(0.0).astype(bool)
    made["note"] = np.where(np.isnan(figures[:, 0]), block.note, "")
    return made


def _type_of(axis: Axis) -> str:
    """One type for all values of an axis, so that blocks agree."""
    kinds = {type(value) for value in axis.values}
    if kinds <= {int}:
        return "int64"
    if kinds <= {int, float}:
        return "float64"
    return "bool" if kinds == {bool} else "object"
