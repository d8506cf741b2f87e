"""Cost of all points of a design: mappings sought at a few of them, then arrays.

A mapping stays a mapping whatever energies, bandwidths and the clock are. With it, the energy of a
layer is a sum of amounts (bits, operations) times constants, and its cycles follow from its counts
and the bandwidths. So a design is searched at a few points (:meth:`Plan.anchors`), where its
figures are those of a run. Every other point takes, layer by layer, the mapping among those found
that is best for its own numbers: an upper bound of what its own search would find. (By ``edp``, and
where zero weights are skipped, searches are not exact for the network as a whole; then a point may
also come out better than a run of it.)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from energysim.errors import DoesNotFitError, InputError
from energysim.hardware import Hardware
from energysim.mapper.goal import Objective
from energysim.mapping import machine_rules, read_loops
from energysim.model.counts import count
from energysim.model.latency import bandwidths
from energysim.price import Job, cycles_at, machine_of
from energysim.simulate import LayerCost, Settled, same, settle
from energysim.sweeps.plan import Design, Plan
from energysim.uncertainty import amounts_of, constants_of
from energysim.units import PJ_PER_MJ

if TYPE_CHECKING:
    from energysim.cache import Cache

Floats = npt.NDArray[np.float64]

LARGEST = 2**53
"""Cycles up to this are exact."""

ROUNDING = 1e-12
"""Share by which equal sums may differ."""

METRICS = (
    "energy_mj",
    "time_ms",
    "cycles",
    "dram_bytes",
    "sram_bytes",
    "macs",
    "effective_macs",
    "parameters",
    "utilization",
    "searched",
)
"""Columns of numbers, for the whole batch; ``searched`` is 1 where the mappings were sought for
exactly this point."""


@dataclass(frozen=True, slots=True)
class Block:
    """Figures of some points of a sweep."""

    values: Floats
    """shape (points, metrics); NaN where a point can't be"""
    note: str = ""
    """why it can't"""

    @property
    def missing(self) -> int:
        """Points that can't be."""
        return int(np.isnan(self.values[:, 0]).sum())


@dataclass(frozen=True, slots=True)
class Choice:
    """One mapping of one layer, with all that depends on it and on no number."""

    amounts: Mapping[str, float]
    """of each constant"""
    cycles: Callable[[Sequence[float | Floats | None]], Floats]
    """from the bandwidth of each level"""
    dram_bytes: float
    sram_bytes: float
    busy: float
    """steps in which a processing element works, of all of them"""


@dataclass(frozen=True, slots=True)
class Kind:
    """Layers that cost the same, and the mappings that were found for them."""

    many: int
    choices: tuple[Choice, ...]


@dataclass(frozen=True, slots=True)
class Figures:
    """Sums over layers, arrays over points."""

    energy_pj: Floats
    cycles: Floats
    dram_bytes: Floats
    sram_bytes: Floats
    busy: Floats

    def goal(self, objective: Objective) -> Floats:
        """What the objective minimises."""
        return {
            Objective.ENERGY: self.energy_pj,
            Objective.LATENCY: self.cycles,
            Objective.DRAM: self.dram_bytes,
            Objective.EDP: self.energy_pj * self.cycles,
        }[objective]


def goal_of(figures: Floats, objective: Objective) -> float:
    """What an objective minimises, of a row of a block."""
    own = dict(zip(METRICS, figures.tolist(), strict=True))
    energy, cycles = own["energy_mj"] * PJ_PER_MJ, own["cycles"]
    goals = {
        Objective.ENERGY: energy,
        Objective.LATENCY: cycles,
        Objective.DRAM: own["dram_bytes"],
        Objective.EDP: energy * cycles,
    }
    return float(goals[objective])


@dataclass(frozen=True, slots=True)
class Found:
    """A design after its searches: plans of what stays on chip, each with kinds of layers."""

    design: Design
    """with the numbers of the file"""
    objective: Objective
    plans: tuple[tuple[Kind, ...], ...]
    anchored: Mapping[int, tuple[Kind, ...]]
    """for each place within the design that was searched, the mappings found there"""
    constant: tuple[float, ...]
    """macs, effective macs and parameters"""


def find(plan: Plan, number: int, cache: Cache | None) -> Found:
    """Search a design at its anchors.

    Raises
    ------
    DoesNotFitError
        A layer fits no mapping.
    InputError
        The design can't be.
    """
    anchors = plan.anchors()
    settled = [run_at(plan.design(number, within), cache) for within in anchors]
    design = plan.design(number)
    objective = settled[0].settings.objective
    totals = settled[0].costs
    constant = (
        float(sum(cost.layer.macs for cost in totals)),
        float(sum(cost.layer.effective_macs for cost in totals)),
        float(design.network.parameters),
    )
    made: Choices = {}
    anchored = {place: _kinds([each], made) for place, each in zip(anchors, settled, strict=True)}
    return Found(design, objective, _plans(settled, objective, made), anchored, constant)


def run_at(design: Design, cache: Cache | None) -> Settled:
    """Search all layers of a design with its own numbers."""
    return settle(
        design.network,
        design.hardware,
        batch=design.batch,
        objective=design.objective,
        dataflow=design.dataflow,
        residency=design.residency,
        phase=design.phase,
        cache=cache,
    )


Choices = dict[tuple[object, str], Choice]
"""By layers that cost the same, and mapping."""


def _plans(
    settled: Sequence[Settled], objective: Objective, made: Choices
) -> tuple[tuple[Kind, ...], ...]:
    """Mappings of each layer, of all searches that let the same data stay on chip."""
    groups: dict[object, list[Settled]] = {}
    for number, each in enumerate(settled):
        kept = tuple(job.residency for job in each.jobs)
        # A product of sums is not the sum of products: whole networks are compared.
        groups.setdefault((kept, number if objective is Objective.EDP else 0), []).append(each)
    return tuple(_kinds(group, made) for group in groups.values())


def _kinds(group: Sequence[Settled], made: Choices) -> tuple[Kind, ...]:
    jobs = group[0].jobs
    places: dict[object, list[int]] = {}
    for place, job in enumerate(jobs):
        places.setdefault(same(job), []).append(place)
    kinds = []
    for kind, alike in places.items():
        first = alike[0]
        choices: dict[str, Choice] = {}
        for each in group:
            cost = each.costs[first]
            loops = repr(cost.loops)
            if (kind, loops) not in made:
                made[kind, loops] = _choice(jobs[first], cost, each.settings.hardware)
            choices[loops] = made[kind, loops]
        kinds.append(Kind(len(alike), tuple(choices.values())))
    return tuple(kinds)


def _choice(job: Job, cost: LayerCost, hardware: Hardware) -> Choice:
    row = cost.layer
    machine = machine_of(job.layer, hardware)
    nest, trips = read_loops(
        machine, job.shape, cost.loops, has_weights=job.layer.has_weights, where=str
    )
    rules = machine_rules(machine, has_weights=job.layer.has_weights)
    counts = count(job.shape, nest, np.array([trips], dtype=np.int64), rules)

    def cycles(widths: Sequence[float | Floats | None]) -> Floats:
        return cycles_at(job, machine, (nest, trips), counts, cost.skipped, widths)

    return Choice(
        amounts_of(cost.accesses, hardware),
        cycles,
        row.dram_bytes,
        row.sram_bytes,
        row.utilization * row.cycles * prod(hardware.axis_sizes),
    )


# -- arrays ----------------------------------------------------------------------------------------


def block_of(plan: Plan, number: int, found: Found | str) -> Block:
    """Figures of the points of a block.

    Parameters
    ----------
    plan : Plan
    number : int
        Of the block.
    found : Found or str
        Its design after the search, or why there is none.
    """
    rows = plan.rows(number)
    if isinstance(found, str):
        return Block(np.full((len(rows), len(METRICS)), np.nan), found)
    within = np.arange(rows.start, rows.stop) % plan.numbers
    numbers = plan.arrays(within)
    hardware = found.design.hardware
    places = plan.settled(within)
    figures = _best(found, found.plans, numbers, len(rows))
    for place, kinds in found.anchored.items():
        there = np.flatnonzero(places == place)
        if there.size:
            picked = {name: values[there] for name, values in numbers.items()}
            own = _best(found, (kinds,), picked, there.size)
            for values, exact in zip(_arrays(figures), _arrays(own), strict=True):
                values[there] = exact
    clock = numbers.get("clock_mhz", np.full(1, hardware.clock_mhz))
    elements = float(prod(hardware.axis_sizes))
    columns: dict[str, Floats | float] = {
        "energy_mj": figures.energy_pj / PJ_PER_MJ,
        "time_ms": figures.cycles / (clock * 1000),
        "cycles": figures.cycles,
        "dram_bytes": figures.dram_bytes,
        "sram_bytes": figures.sram_bytes,
        "utilization": figures.busy / np.maximum(figures.cycles * elements, 1),
        "searched": np.isin(places, list(found.anchored)).astype(np.float64),
        **dict(zip(("macs", "effective_macs", "parameters"), found.constant, strict=True)),
    }
    values = np.empty((len(rows), len(METRICS)))
    for place, name in enumerate(METRICS):
        values[:, place] = columns[name]
    odd = ~np.isfinite(values).all(axis=1) | (figures.cycles > LARGEST)
    values[odd] = np.nan
    return Block(values, f"more than {LARGEST:,} cycles" if odd.any() else "")


def _best(
    found: Found,
    choices: Sequence[tuple[Kind, ...]],
    numbers: Mapping[str, Floats],
    many: int,
) -> Figures:
    """For each point the best plan, and in it for each layer the best mapping."""
    hardware = found.design.hardware
    constants = _by_constant(hardware, numbers)
    widths = _widths(hardware, numbers)
    clock = numbers.get("clock_mhz", hardware.clock_mhz)
    static = constants["static_mw"] * 1000 / clock  # 1 mW for 1 us is 1000 pJ
    plans = [
        _sum([_layers(kind, found.objective, constants, widths, static, many) for kind in kinds])
        for kinds in choices
    ]
    best = plans[0]
    for other in plans[1:]:
        best = _where(_is_better(other, best, found.objective), other, best)
    return best


def _layers(
    kind: Kind,
    objective: Objective,
    constants: Mapping[str, float | Floats],
    widths: Sequence[float | Floats | None],
    static: float | Floats,
    many: int,
) -> Figures:
    """Layers of one kind with the mapping that is best for each point."""
    best: Figures | None = None
    zeros = np.zeros(many)
    for choice in kind.choices:
        cycles = choice.cycles(widths) + zeros
        fixed, energy = 0.0, static * cycles
        for name, amount in choice.amounts.items():
            constant = constants[name]
            if isinstance(constant, np.ndarray):
                energy = energy + amount * constant
            else:
                fixed += amount * constant
        energy = energy + fixed
        own = Figures(
            energy, cycles, zeros + choice.dram_bytes, zeros + choice.sram_bytes,
            zeros + choice.busy,
        )  # fmt: skip
        best = own if best is None else _where(_is_better(own, best, objective), own, best)
    assert best is not None
    return Figures(*(kind.many * each for each in _arrays(best)))


def _is_better(one: Figures, other: Figures, objective: Objective) -> npt.NDArray[np.bool_]:
    """Whether the first costs less, or what rounding can't tell apart in fewer cycles."""
    mine, theirs = one.goal(objective), other.goal(objective)
    equal = np.abs(mine - theirs) <= ROUNDING * np.abs(theirs)
    better: npt.NDArray[np.bool_] = np.where(equal, one.cycles < other.cycles, mine < theirs)
    return better


def _arrays(figures: Figures) -> tuple[Floats, ...]:
    return (
        figures.energy_pj,
        figures.cycles,
        figures.dram_bytes,
        figures.sram_bytes,
        figures.busy,
    )


def _sum(parts: Sequence[Figures]) -> Figures:
    return Figures(
        *(sum(each[1:], start=each[0]) for each in zip(*map(_arrays, parts), strict=True))
    )


def _where(better: npt.NDArray[np.bool_], one: Figures, other: Figures) -> Figures:
    pairs = zip(_arrays(one), _arrays(other), strict=True)
    return Figures(*(np.where(better, a, b) for a, b in pairs))


def _by_constant(hardware: Hardware, numbers: Mapping[str, Floats]) -> dict[str, float | Floats]:
    """Energy constants under the names of :func:`constants_of`, scanned ones as arrays."""
    own: dict[str, float | Floats] = dict(constants_of(hardware))
    return own | {
        name.removeprefix("levels."): values
        for name, values in numbers.items()
        if name.removeprefix("levels.") in own
    }


def _widths(hardware: Hardware, numbers: Mapping[str, Floats]) -> list[float | Floats | None]:
    """Bandwidth of each level, scanned ones as arrays."""
    return [
        numbers.get(f"levels.{level.name}.bandwidth_bits_per_cycle", width)
        for level, width in zip(hardware.levels, bandwidths(hardware), strict=True)
    ]


def found_or_why(plan: Plan, number: int, cache: Cache | None) -> Found | str:
    """A design after its searches, or in words why it can't be."""
    try:
        return find(plan, number, cache)
    except (DoesNotFitError, InputError) as error:
        return str(error)
