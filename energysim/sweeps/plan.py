"""The points of a sweep: which of them need a search, and which differ in numbers alone."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from math import prod
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field

from energysim.catalog import load_hardware, load_network
from energysim.errors import InputError, InputErrors, did_you_mean
from energysim.hardware import Hardware
from energysim.mapper.dataflows import with_dataflow
from energysim.network import Network, Scale
from energysim.simulate import PHASES, objective_named
from energysim.sparsity import get_pattern
from energysim.sweeps.axes import Axis, Value
from energysim.yamlio import load_model, validated

Floats = npt.NDArray[np.float64]

BLOCK = 20_000
"""Points that are computed and kept at once."""

NUMBERS = {
    "": ("clock_mhz", "static_mw"),
    "mac": ("energy_pj",),
    "vector": ("energy_pj",),
    "array": ("hop_pj_per_bit",),
    "levels": ("read_pj_per_bit", "write_pj_per_bit", "bandwidth_bits_per_cycle"),
}
"""Fields of a hardware file, by block, with which no mapping ceases to be one."""

ENERGIES = frozenset(
    {"energy_pj", "hop_pj_per_bit", "read_pj_per_bit", "write_pj_per_bit", "static_mw"}
)

ENERGIES_OF_LEVEL = ("read_pj_per_bit", "write_pj_per_bit")

NO_VALUES = frozenset({"name", "source", "note", "assumed", "ranges", "from_tables"})
"""Fields of a hardware file that no cost depends on."""

Words = Annotated[str, Field(min_length=1)]
Scanned = int | float | bool | str | list[int | float | bool | str]


class SweepSpec(BaseModel):
    """A sweep file (YAML), or the options of the command."""

    model_config = ConfigDict(
        frozen=True, strict=True, extra="forbid", use_attribute_docstrings=True
    )

    network: Words | None = None
    """name or path; may be scanned instead"""
    hardware: Words | None = None
    """name or path; may be scanned instead"""
    scan: Annotated[dict[str, Scanned], Field(min_length=1)]
    """fields and their values: ``levels.SRAM.capacity_kib: 64:1024:x2``, ``pattern: [dense,
    PS4_P4]``; fields joined by + change together. Every combination is a point"""
    batch: Annotated[int, Field(ge=1)] = 1
    """images processed together"""
    objective: str = "energy"
    """what mappings minimise: energy, dram, latency or edp"""
    mappings: Literal["ends", "kept"] = "ends"
    """where numbers alone change: ``kept`` searches once, in the middle, ``ends`` also at both ends
    of each field, and every point takes the best of what was found"""
    pattern: str | None = None
    """laid over the network"""
    dataflow: str | None = None
    """in place of the hardware's own"""
    residency: bool | None = None
    """keep what fits on chip; by default as the hardware says"""
    phase: str = "inference"
    """inference or training"""
    width: Annotated[float, Field(gt=0)] = 1.0
    """factor of the channels of the network"""
    input: Annotated[int, Field(ge=1)] | None = None
    """height and width of the image"""
    classes: Annotated[int, Field(ge=1)] | None = None
    """outputs of the last layer with weights"""


RUN_FIELDS = tuple(name for name in SweepSpec.model_fields if name not in ("scan", "mappings"))
"""Fields of a run that can be scanned, beside those of the hardware."""


@dataclass(frozen=True, slots=True)
class Design:
    """Everything of a point but its numbers."""

    network: Network
    hardware: Hardware
    """with the numbers of its file where none are scanned"""
    batch: int
    objective: str
    dataflow: str | None
    residency: bool | None
    phase: str


@dataclass(frozen=True)
class Plan:
    """All points: a design of those that need a search, times numbers."""

    axes: tuple[Axis, ...]
    """as given"""
    spec: SweepSpec
    machines: Mapping[str, Hardware] = field(repr=False)
    """by the word that names them"""
    networks: Mapping[tuple[Value | None, ...], Network] = field(repr=False)
    """by the words that make them, see :func:`_network_words`"""

    # -- how many ----------------------------------------------------------------------------------

    @cached_property
    def structural(self) -> tuple[Axis, ...]:
        """Axes with a search for each combination."""
        return tuple(each for each in self.axes if not is_number(each))

    @cached_property
    def numeric(self) -> tuple[Axis, ...]:
        """Axes of numbers that no search is needed for."""
        return tuple(each for each in self.axes if is_number(each))

    @property
    def designs(self) -> int:
        """Combinations with a search each."""
        return prod(len(each.values) for each in self.structural)

    @property
    def numbers(self) -> int:
        """Combinations of numbers for each design."""
        return prod(len(each.values) for each in self.numeric)

    @property
    def points(self) -> int:
        """All of them."""
        return self.designs * self.numbers

    @property
    def parts(self) -> int:
        """Blocks that the points of a design are cut into."""
        return -(-self.numbers // BLOCK)

    @property
    def blocks(self) -> int:
        """Blocks of all points."""
        return self.designs * self.parts

    def rows(self, block: int) -> range:
        """Points of a block: they stand by design, then by numbers."""
        design, part = divmod(block, self.parts)
        first = design * self.numbers
        return range(first + part * BLOCK, first + min((part + 1) * BLOCK, self.numbers))

    def block(self, point: int) -> int:
        """Block of a point."""
        design, within = divmod(point, self.numbers)
        return design * self.parts + within // BLOCK

    # -- what they are -----------------------------------------------------------------------------

    def words(self, design: int) -> dict[str, Value]:
        """Values of the structural axes of a design."""
        return _picked(self.structural, design)

    def columns(self, block: int) -> dict[str, list[Value]]:
        """Values of all axes for the points of a block, in the order they were given in."""
        rows = self.rows(block)
        words = self.words(block // self.parts)
        within = np.arange(rows.start, rows.stop) % self.numbers
        places = _places(self.numeric, within)
        found: dict[str, list[Value]] = {}
        for axis in self.axes:
            if axis.name in words:
                found[axis.name] = [words[axis.name]] * len(rows)
            else:
                values = axis.values
                found[axis.name] = [values[i] for i in places[axis.name].tolist()]
        return found

    def arrays(self, within: npt.NDArray[np.intp]) -> dict[str, Floats]:
        """Scanned numbers by field, such as ``static_mw``, for places within a design."""
        places = _places(self.numeric, within)
        return {
            name: np.array(axis.values, np.float64)[places[axis.name]]
            for axis in self.numeric
            for name in axis.fields
        }

    def anchors(self) -> list[int]:
        """Places within a design at which mappings are sought: the middle, and ends of the axes."""
        shape = [len(each.values) for each in self.numeric]
        middle = [(size - 1) // 2 for size in shape]
        found = [middle]
        for axis, size in enumerate(shape):
            if self.spec.mappings == "ends" and self._matters(self.numeric[axis]):
                found += [[*middle[:axis], end, *middle[axis + 1 :]] for end in (0, size - 1)]
        flat = (int(np.ravel_multi_index(each, shape)) if shape else 0 for each in found)
        return list(dict.fromkeys(flat))

    def settled(self, within: npt.NDArray[np.intp]) -> npt.NDArray[np.intp]:
        """For each place within a design, that with the same numbers as far as they matter.

        Mappings were sought for exactly these numbers where that is one of the anchors.
        """
        places, base = np.zeros_like(within), 1
        for axis, own in reversed(list(_places(self.numeric, within).items())):
            size = len(self._axis(axis).values)
            middle = (size - 1) // 2
            places = places + base * (own if self._matters(self._axis(axis)) else middle)
            base *= size
        return places

    def _axis(self, name: str) -> Axis:
        return next(each for each in self.axes if each.name == name)

    def _matters(self, axis: Axis) -> bool:
        """Whether the best mapping can depend on a number."""
        objectives = {str(each) for each in _values(self.axes, self.spec, "objective")}
        kinds = {name.rpartition(".")[2] for name in axis.fields}
        static = "static_mw" in {name for each in self.axes for name in each.fields} or any(
            each.static_mw for each in self.machines.values()
        )
        by_energy = objectives & {"energy", "edp"} and kinds & ENERGIES
        by_time = objectives & {"latency", "edp"} or (static and "energy" in objectives)
        return bool(by_energy or (by_time and kinds - ENERGIES))

    def design(self, number: int, within: int | None = None) -> Design:
        """A design, with scanned numbers of one place within it if one is given.

        Raises
        ------
        InputErrors
            If its hardware can't be.
        """
        words = self.words(number)
        if within is not None:
            words |= _picked(self.numeric, within)
        fields = {name: value for axis, value in words.items() for name in axis.split("+")}
        run = {name: fields.get(name, getattr(self.spec, name)) for name in RUN_FIELDS}
        machine = self.machines[run["hardware"]]
        own = {name: value for name, value in fields.items() if name not in RUN_FIELDS}
        return Design(
            self.networks[_network_words(run)],
            overridden(machine, own) if own else machine,
            run["batch"],
            run["objective"],
            run["dataflow"],
            run["residency"],
            run["phase"],
        )

    def fixed_energies(self) -> list[str]:
        """Levels whose size is scanned, and whose energies their file gives."""
        sizes = ("capacity_kib", "capacity_bytes", "bank_kib", "access_bits")
        names = [
            name.split(".")[1]
            for axis in self.axes
            for name in axis.fields
            if name.startswith("levels.") and name.rpartition(".")[2] in sizes
        ]
        return [
            f"{level.name} of {machine.name}"
            for machine in self.machines.values()
            for level in machine.levels
            if level.name in names and len(level.from_tables) < len(ENERGIES_OF_LEVEL)
        ]

    def described(self) -> dict[str, Any]:
        """All that decides the result, as plain data."""
        return {
            "axes": [[axis.name, list(axis.values)] for axis in self.axes],
            "spec": self.spec.model_dump(mode="json", exclude={"scan", "network", "hardware"}),
            "hardware": {
                name: each.model_dump(mode="json") for name, each in self.machines.items()
            },
            "networks": {
                "|".join(map(str, key)): each.counted() for key, each in self.networks.items()
            },
        }


def is_number(axis: Axis) -> bool:
    """Whether no mapping has to be sought anew for it."""
    return all(_block_and_field(name) is not None for name in axis.fields)


def _block_and_field(name: str) -> tuple[str, str] | None:
    """Block and field of a number; None if it is something else."""
    steps = name.split(".")
    block = steps[0] if len(steps) > 1 else ""
    known = NUMBERS.get(block, ())
    depth = {"": 1, "levels": 3}.get(block, 2)
    return (block, steps[-1]) if len(steps) == depth and steps[-1] in known else None


def load_plan(path: Path) -> Plan:
    """Plan what a sweep file says.

    Raises
    ------
    InputError, InputErrors
        If something is wrong with it.
    """
    spec, source = load_model(path, SweepSpec)
    return plan_of(spec, where=lambda name: source.where(("scan", name)))


def plan_of(
    spec: SweepSpec,
    *,
    networks: Mapping[str, Network] | None = None,
    machines: Mapping[str, Hardware] | None = None,
    where: Any = None,
) -> Plan:
    """Plan a sweep, and refuse what can't be before anything is computed.

    Parameters
    ----------
    spec : SweepSpec
    networks, machines : mapping, optional
        Objects that names in the spec stand for.
    where : callable, optional
        From the name of an axis to its place in a file, for messages.

    Raises
    ------
    InputErrors
        With everything that is wrong.
    """
    problems: list[str] = []

    def at(name: str) -> str:
        return f"{where(name)} " if where else ""

    axes: list[Axis] = []
    for name, given in spec.scan.items():
        try:
            axes.append(Axis.read(name, given))
        except InputError as error:
            problems.append(f"{at(name)}{error}")
    problems += _twice(axes)
    problems += _given_twice(axes, spec)
    scanned = {name for axis in axes for name in axis.fields}
    problems += [
        f"{name} is needed: give it, or scan it"
        for name in ("network", "hardware")
        if getattr(spec, name) is None and name not in scanned
    ]
    for axis in axes:
        problems += [f"{at(axis.name)}{each}" for each in _wrong_run_values(axis)]
    problems += _wrong_settings(spec)
    if problems:
        raise InputErrors(problems)
    words = _values(axes, spec, "hardware")
    found = {
        str(word): (machines or {}).get(str(word)) or load_hardware(str(word)) for word in words
    }
    for flow in _values(axes, spec, "dataflow"):
        for machine in found.values() if flow is not None else ():
            with_dataflow(machine, str(flow))
    plan = Plan(tuple(axes), spec, found, _networks(axes, spec, networks or {}))
    _check(plan, at)
    return plan


def _given_twice(axes: Sequence[Axis], spec: SweepSpec) -> Iterator[str]:
    for axis in axes:
        for name in axis.fields:
            if name in RUN_FIELDS and name in spec.model_fields_set:
                given = getattr(spec, name)
                if given is not None:
                    yield f"{name} is {given}, and scanned too: leave one out"


def _twice(axes: Sequence[Axis]) -> Iterator[str]:
    # two fields for one quantity are one
    names = [
        name.replace("capacity_bytes", "capacity_kib") for axis in axes for name in axis.fields
    ]
    for name in dict.fromkeys(names):
        if names.count(name) > 1:
            yield f"{name} is scanned twice"


def _values(axes: Sequence[Axis], spec: SweepSpec, name: str) -> tuple[Value | None, ...]:
    for axis in axes:
        if name in axis.fields:
            return axis.values
    return (getattr(spec, name),)


def _wrong_run_values(axis: Axis) -> Iterator[str]:
    """What is wrong with values of a field of the run."""
    for name in axis.fields:
        if name not in RUN_FIELDS:
            continue
        for value in axis.values:
            try:
                check_run_value(name, value)
            except InputError as error:
                yield f"{name}: {error}"


def _wrong_settings(spec: SweepSpec) -> Iterator[str]:
    """What is wrong with the settings of all points."""
    for name in RUN_FIELDS:
        given = getattr(spec, name)
        if given is not None:
            try:
                check_run_value(name, given)
            except InputError as error:
                yield f"{name}: {error}"


def check_run_value(name: str, value: Value) -> None:
    """Refuse what a field of the run can't be.

    Raises
    ------
    InputError
    """
    whole = isinstance(value, int) and not isinstance(value, bool)
    if name in ("batch", "input", "classes") and not (whole and value >= 1):  # type: ignore[operator]
        raise InputError(f"must be a whole number of at least 1, got {value}")
    if name == "width" and not (type(value) in (int, float) and value > 0):  # type: ignore[operator]
        raise InputError(f"must be a positive number, got {value}")
    if name == "residency" and not isinstance(value, bool):
        raise InputError(f"must be on or off, got {value}")
    if name == "objective":
        objective_named(str(value))
    if name == "pattern":
        get_pattern(str(value))
    if name == "phase" and value not in PHASES:
        raise InputError(f"must be {' or '.join(PHASES)}, got {value}")


def _network_words(run: Mapping[str, Any]) -> tuple[Value | None, ...]:
    return tuple(run[name] for name in ("network", "pattern", "width", "input", "classes"))


def _networks(
    axes: Sequence[Axis], spec: SweepSpec, given: Mapping[str, Network]
) -> dict[tuple[Value | None, ...], Network]:
    """Every network that a design has, by what makes it."""
    own = ("network", "pattern", "width", "input", "classes")
    varied = [axis for axis in axes if any(name in own for name in axis.fields)]
    found: dict[tuple[Value | None, ...], Network] = {}
    for number in range(prod(len(axis.values) for axis in varied)):
        words = {
            name: value
            for axis, value in _picked(varied, number).items()
            for name in axis.split("+")
        }
        run = {name: words.get(name, getattr(spec, name)) for name in own}
        name, pattern, width, side, classes = _network_words(run)
        scale = Scale(float(width), side, classes)  # type: ignore[arg-type]
        network = given.get(str(name))
        if network is None:
            network = load_network(str(name), scale=scale)
        elif scale != Scale():
            raise InputError(f"{network.name} is given as an object, which has its size already")
        found[name, pattern, width, side, classes] = (
            network if pattern is None else network.with_pattern(str(pattern))
        )
    return found


def _picked(axes: Sequence[Axis], number: int) -> dict[str, Value]:
    """Value of each axis for one combination, the last axis running fastest."""
    found: dict[str, Value] = {}
    for axis in reversed(axes):
        number, place = divmod(number, len(axis.values))
        found[axis.name] = axis.values[place]
    return {axis.name: found[axis.name] for axis in axes}


def _places(axes: Sequence[Axis], numbers: npt.NDArray[np.intp]) -> dict[str, npt.NDArray[np.intp]]:
    """Place of each combination along each axis, the last axis running fastest."""
    found: dict[str, npt.NDArray[np.intp]] = {}
    for axis in reversed(axes):
        numbers, places = np.divmod(numbers, len(axis.values))
        found[axis.name] = places
    return {axis.name: found[axis.name] for axis in axes}


# -- hardware with other values --------------------------------------------------------------------


def _check(plan: Plan, at: Any) -> None:
    """Make every value of every field of the hardware once.

    Raises
    ------
    InputErrors
        With everything that is wrong.
    """
    problems: dict[str, None] = {}
    sizes = [axis for axis in plan.axes if any(name not in RUN_FIELDS for name in axis.fields)]
    for axis in sizes:
        for machine in plan.machines.values():
            for value in _telling(axis):
                try:
                    overridden(machine, _own(axis, value))
                except InputError as error:
                    if not _possible(machine, axis, value, sizes):
                        told = error.problems if isinstance(error, InputErrors) else (str(error),)
                        problems |= dict.fromkeys(f"{at(axis.name)}{each}" for each in told)
    if problems:
        raise InputErrors(problems)


def _own(axis: Axis, value: Value) -> dict[str, Value]:
    return {name: value for name in axis.fields if name not in RUN_FIELDS}


def _possible(machine: Hardware, axis: Axis, value: Value, others: Sequence[Axis]) -> bool:
    """Whether a value that can't be alone can be with some value of another axis.

    A memory may be smaller than a bank of the file where the size of banks is varied too.
    """
    for other in others:
        for beside in other.values if other is not axis else ():
            try:
                overridden(machine, _own(axis, value) | _own(other, beside))
            except InputError:
                continue
            return True
    return False


def _telling(axis: Axis) -> Sequence[Value]:
    """Values to check: of numbers the ends, since what is allowed of them has no gaps."""
    if is_number(axis) and all(type(value) in (int, float) for value in axis.values):
        return (min(axis.values), max(axis.values))
    return axis.values


def overridden(hardware: Hardware, values: Mapping[str, Value]) -> Hardware:
    """Hardware with other values of some fields.

    Parameters
    ----------
    hardware : Hardware
        Energies that its file leaves out are looked up anew, for the new sizes.
    values : mapping
        By field: ``clock_mhz``, ``array.axes.rows``, ``levels.SRAM.capacity_kib`` (a level by its
        name).

    Raises
    ------
    InputError
        If there is no such field.
    InputErrors
        If the machine can't be.

    Examples
    --------
    >>> from energysim.catalog import load_hardware
    >>> tpu = overridden(load_hardware("edge_tpu"), {"levels.SRAM.capacity_kib": 64})
    >>> tpu.levels[1].capacity_kib
    64.0
    """
    data = copy.deepcopy(hardware.model_dump(mode="json"))
    for block in (data, data["mac"], data.get("vector"), data["array"], *data["levels"]):
        for name in (block or {}).pop("from_tables", {}):
            del block[name]
            block.get("ranges", {}).pop(name, None)
    for name, value in values.items():
        _put(data, name, value)
    told = ", ".join(f"{name}={value}" for name, value in values.items())
    return validated(data, Hardware, name=f"{hardware.name} with {told}:")


def _put(data: dict[str, Any], name: str, value: Value) -> None:
    """Put a value into the plain data of a hardware file."""
    block: Any = data
    *steps, last = name.split(".")
    if last in NO_VALUES:
        raise InputError(f"'{last}' of {name} is a text about values and not one of them")
    for i, step in enumerate(steps):
        if step == "levels" and i == 0:
            block = {level["name"]: level for level in data["levels"]}
            continue
        inner = block.get(step) if isinstance(block, dict) else None
        if not isinstance(inner, dict):
            known = [each for each, below in block.items() if isinstance(below, dict | list)]
            hint = did_you_mean(step, known) or f" Known: {', '.join(known) or 'none'}"
            before = ".".join(steps[:i])
            raise InputError(
                f"{data['name']} has no part '{step}'{' in ' + before if before else ''}, for"
                f" {name}.{hint}"
            )
        block = inner
    if not steps and last not in Hardware.model_fields:
        known = [*RUN_FIELDS, *Hardware.model_fields]
        hint = did_you_mean(last, known) or f" Known: {', '.join(known)}"
        raise InputError(f"there is no field named '{last}' to scan.{hint}")
    if steps == ["levels"]:
        raise InputError(f"'{name}' is a level, not a field of it: levels.{last}.capacity_kib")
    if isinstance(block.get("ranges"), dict):
        block["ranges"].pop(last, None)  # the value is taken as exact
    if last == "capacity_kib":
        block.pop("capacity_bytes", None)
    if last == "capacity_bytes":
        block.pop("capacity_kib", None)
    block[last] = value
