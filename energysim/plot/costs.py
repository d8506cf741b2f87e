"""What pictures of costs are drawn from: a result, or what a file of one holds."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Protocol, TypeVar

from energysim.axes import Tensor
from energysim.errors import InputError
from energysim.files import read_text
from energysim.hardware import RESERVED_LEVELS, Hardware
from energysim.result import AccessRow, LayerRow, Result
from energysim.units import BITS_PER_BYTE, pj_to_mj
from energysim.yamlio import validated

PARTS = ("layers", "accesses", "settings", "hardware")
"""What the JSON of a run must hold to be drawn."""

Row = TypeVar("Row", LayerRow, AccessRow)


class Costs(Protocol):
    """Cost of one network on one machine: a :class:`energysim.Result`, or a :class:`Saved` one."""

    @property
    def network(self) -> str:
        """Name of the network."""

    @property
    def hardware(self) -> str:
        """Name of the machine."""

    @property
    def pattern(self) -> str:
        """Name of the pattern, ``dense`` without one."""

    @property
    def dataflow(self) -> str:
        """Name of the dataflow."""

    @property
    def batch(self) -> int:
        """Images processed together."""

    @property
    def layer_rows(self) -> Sequence[LayerRow]:
        """One row a layer."""

    @property
    def access_rows(self) -> Sequence[AccessRow]:
        """One row a layer, level, tensor and action."""

    @property
    def inputs(self) -> tuple[Any, Hardware]:
        """What was run, and on what."""

    @property
    def total_energy_pj(self) -> float:
        """Energy of the batch [pJ]."""

    @property
    def total_time_ms(self) -> float:
        """Time of the batch [ms]."""


@dataclass(frozen=True, slots=True)
class Saved:
    """What ``energysim run -o result.json`` wrote, as far as pictures need it."""

    network: str
    hardware: str
    pattern: str
    dataflow: str
    batch: int
    layer_rows: tuple[LayerRow, ...]
    access_rows: tuple[AccessRow, ...]
    inputs: tuple[None, Hardware]
    """the network is not read again"""

    @property
    def total_energy_pj(self) -> float:
        """Energy of the batch [pJ]."""
        return sum(row.energy_pj for row in self.layer_rows)

    @property
    def total_energy_mj(self) -> float:
        """Energy of the batch [mJ]."""
        return pj_to_mj(self.total_energy_pj)

    @property
    def total_time_ms(self) -> float:
        """Time of the batch [ms]."""
        return sum(row.time_ms for row in self.layer_rows)


def read_costs(path: Path) -> Saved:
    """Read a result that ``energysim run -o result.json`` wrote.

    Raises
    ------
    InputError
        If the file can't be read or is no such result.
    """
    text = read_text(path)
    try:
        data = json.loads(text)
    except ValueError as error:
        raise InputError(f"is no JSON: {error}", where=str(path)) from None
    missing = [part for part in PARTS if not isinstance(data, dict) or part not in data]
    if missing:
        raise InputError(
            f"has no {' and no '.join(missing)}: it is not what 'energysim run -o result.json' "
            "writes for one network",
            where=str(path),
        )
    try:
        settings = data["settings"]
        saved = Saved(
            settings["network"],
            settings["hardware"],
            settings["pattern"],
            settings["dataflow"],
            settings["batch"],
            tuple(_row(LayerRow, each) for each in data["layers"]),
            tuple(_row(AccessRow, each) for each in data["accesses"]),
            (None, validated(data["hardware"], Hardware, name=str(path))),
        )
        _check(saved)
    except (KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"was changed, or is of another version: {error}", where=str(path)
        ) from None
    return saved


def _row(kind: type[Row], record: Mapping[str, Any]) -> Row:
    """One row of a table; columns that only training has are left out."""
    kinds: dict[str, tuple[type, ...]] = {"int": (int,), "float": (int, float), "str": (str,)}
    values = {each.name: record[each.name] for each in fields(kind)}
    for each in fields(kind):
        if not isinstance(values[each.name], kinds[str(each.type)]):
            raise TypeError(f"{each.name} is {values[each.name]!r}")
    return kind(**values)


def _check(saved: Saved) -> None:
    """Refuse rows that don't belong together."""
    layers = {row.layer for row in saved.layer_rows}
    levels = {level.name for level in saved.inputs[1].levels} | set(RESERVED_LEVELS)
    for word, found, known in (
        ("layer", {row.layer for row in saved.access_rows}, layers),
        ("level", {row.level for row in saved.access_rows}, levels),
        ("tensor", {row.tensor for row in saved.access_rows},
         {"", *(tensor.label for tensor in Tensor)}),
    ):  # fmt: skip
        if not layers or found - known:
            raise TypeError(f"no {word} named {', '.join(sorted(found - known))}")


def level_bytes(costs: Costs, level: str) -> dict[str, float]:
    """Bytes that each layer reads and writes at one level."""
    moved = dict.fromkeys((row.layer for row in costs.layer_rows), 0.0)
    for row in costs.access_rows:
        if row.level == level:
            moved[row.layer] += row.bits / BITS_PER_BYTE
    return moved


def same_layers(every: Sequence[Costs]) -> bool:
    """Whether runs have layers of the same names."""
    names = [[row.layer for row in costs.layer_rows] for costs in every]
    return all(each == names[0] for each in names)


def common_title(every: Sequence[Costs]) -> list[str]:
    """Words that say what all runs have in common, to be joined or broken into lines."""
    networks = list(dict.fromkeys(_dense_name(costs) for costs in every))
    machines = list(dict.fromkeys(costs.hardware for costs in every))
    flows = list(dict.fromkeys(costs.dataflow.replace("_", " ") for costs in every))
    batches = list(dict.fromkeys(costs.batch for costs in every))
    patterns = list(dict.fromkeys(costs.pattern for costs in every))
    words = [f"{networks[0]} on {machines[0]}" if len(networks) == len(machines) == 1 else
             " ".join((*networks[:1],) * (len(networks) == 1)
                      + (f"on {machines[0]}",) * (len(machines) == 1))]  # fmt: skip
    for each in (patterns, flows):
        words += each if len(each) == 1 and each[0] != "dense" else []
    words += [f"batch {batches[0]}"] if len(batches) == 1 else []
    return [word for word in words if word]


def _dense_name(costs: Costs) -> str:
    """Name of the network, without the pattern that was laid over it."""
    return costs.network.removesuffix(f"+{costs.pattern}")


def as_result(costs: Costs) -> Result:
    """Costs for functions that take a whole result and read no more of it than its rows."""
    return costs  # type: ignore[return-value]


def variants_of(every: Sequence[Costs]) -> list[str]:
    """What tells runs apart: the words in which they differ, the pattern if in none."""
    fields_of = (
        [_dense_name(costs) for costs in every],
        [costs.pattern for costs in every],
        [costs.hardware for costs in every],
        [costs.dataflow.replace("_", " ") for costs in every],
        [f"batch {costs.batch}" for costs in every],
    )
    network, pattern, *others = fields_of
    differing = [each for each in (network, pattern, *others) if len(set(each)) > 1]
    return [" · ".join(words) for words in zip(*(differing or [pattern]), strict=True)]
