"""The best mapping of a layer: from the cache if it was found before, else by the search."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from functools import cache as once
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel, ValidationError

from energysim.axes import Dim, Shape
from energysim.cache import Cache, key_of
from energysim.errors import EnergysimError
from energysim.mapper.goal import Certificate, Measure
from energysim.mapper.problem import Mapped, Problem
from energysim.mapper.search import front, search
from energysim.mapping import LevelLoops, Nest, Rules, read_loops, write_nest
from energysim.model.capacity import occupancy
from energysim.model.counts import Counts, count
from energysim.result import RunnerUp
from energysim.version import VERSION

_NOT_COUNTED = {
    "source",
    "note",
    "assumed",
    "clock_mhz",
    "static_mw",
    "technology",
    "bank_kib",
    "access_bits",
    "ranges",
    "from_tables",
}
"""Fields of a hardware file that no count depends on (static energy per cycle is given apart, and
energies that were looked up are there as numbers)."""

_NOT_ASKED = {"budget_s"}
"""Options of the search that a proven answer does not depend on."""

SHOWING = (
    "accuracy", "cli", "lowrank", "methods", "pareto", "plot", "prune", "report", "train",
    "validation",
)  # fmt: skip
"""Parts of the package that no count or search uses."""


@dataclass(frozen=True, slots=True)
class Solved:
    """A mapping as a mapping file states it, and as loops."""

    loops: tuple[LevelLoops, ...]
    nest: Nest
    trips: tuple[int, ...]
    certificate: Certificate
    others: tuple[RunnerUp, ...]
    counts: Counts
    """of the mapping alone (B = 1)"""


def solve(problem: Problem, cache: Cache | None) -> Solved:
    """Search, unless the same has been searched before.

    What a budget of time has stopped is not kept. What the cache holds is read like a mapping file
    and must cover the layer and fit the machine; if anything is wrong with it, the layer is
    searched again.

    Parameters
    ----------
    problem : Problem
    cache : Cache or None
        None: search in any case and keep nothing.
    """
    key = key_of(_parts(problem)) if cache else ""
    known = cache.get(key) if cache else None
    if known is not None:
        solved = _read(problem, known)
        if solved is not None:
            return solved
    found = search(problem)
    solved = Solved(
        _loops_of(problem, found.best),
        found.best.nest,
        found.best.trips,
        found.certificate,
        tuple(RunnerUp(_loops_of(problem, other), other.measure) for other in found.others),
        found.best.counts,
    )
    if cache and found.certificate.optimal:
        cache.put(key, _written(solved))
    return solved


@dataclass(frozen=True, slots=True)
class SolvedFront:
    """The Pareto set of a layer, as mapping files state it and as loops."""

    points: tuple[Solved, ...]
    certificate: Certificate


def solve_front(problem: Problem, cache: Cache | None) -> SolvedFront:
    """As :func:`solve`, for two objectives."""
    key = key_of(_parts(problem)) if cache else ""
    known = cache.get(key) if cache else None
    if known is not None:
        read = _read_front(problem, known)
        if read is not None:
            return read
    found = front(problem)
    points = tuple(
        Solved(_loops_of(problem, each), each.nest, each.trips, found.certificate, (), each.counts)
        for each in found.points
    )
    if cache and found.certificate.optimal:
        cache.put(key, {"points": [_written(each) for each in points]})
    return SolvedFront(points, found.certificate)


def _read_front(problem: Problem, entry: Any) -> SolvedFront | None:
    try:
        points = [_read(problem, each) for each in entry["points"]]
    except (KeyError, TypeError):
        return None
    good = tuple(each for each in points if each is not None)
    if not good or len(good) < len(points):
        return None
    return SolvedFront(good, good[0].certificate)


def _loops_of(problem: Problem, mapped: Mapped) -> tuple[LevelLoops, ...]:
    weights = problem.store is not None
    trips = _with_work(problem.shape, mapped.nest, mapped.trips)
    return write_nest(problem.hardware, mapped.nest, trips, has_weights=weights)


def _with_work(shape: Shape, nest: Nest, trips: Sequence[int]) -> list[int]:
    """Trip counts without those of instances that never have work, as a file must state them."""
    left = dict(zip(Dim, shape.dims, strict=True))
    needed = []
    for loop, trip in zip(nest.loops, trips, strict=True):
        needed.append(min(trip, left[loop.dim]))
        left[loop.dim] = -(-left[loop.dim] // trip)
    return needed


def _parts(problem: Problem) -> dict[str, Any]:
    """All that the answer depends on, as plain data."""
    store, flow, rules = problem.store, problem.dataflow, problem.rules
    hardware = _bare(problem.hardware)
    del hardware["name"]
    return {
        "energysim": [VERSION, program()],
        "hardware": hardware,
        "shape": asdict(problem.shape),
        "rules": {
            "multicast": rules.multicast,
            "reduce": rules.reduce,
            "refetch": sorted(rules.refetch),
            "count_padding": rules.count_padding,
            "latch": sorted(tensor.label for tensor in rules.latch),
        },
        "dataflow": {
            "unroll": [[dim.name for dim in dims] for dims in flow.unroll],
            "stationary": None if flow.stationary is None else flow.stationary.label,
            "whole": sorted(dim.name for dim in flow.whole),
            "order": [dim.name for dim in flow.order],
            "uneven": flow.uneven,
            "local_reuse": flow.local_reuse,
        },
        "store": store
        and {
            "format": store.format,
            "elements": store.elements,
            "values": store.values_bits,
            "metadata": store.metadata_bits,
            "pattern": repr(store.mask.pattern),
            "dims": list(store.mask.dims),
            "seed": store.mask.seed,
            "outputs": list(store.outputs),
        },
        "resident": sorted(tensor.label for tensor in problem.residency.tensors),
        "reserved": problem.residency.reserved_bits,
        "objective": str(problem.objective),
        "other": problem.other and str(problem.other),
        "static": problem.static_pj_per_cycle,
        "compute": problem.compute_pj,
        "activity": asdict(problem.activity),
        "options": {
            name: value for name, value in asdict(problem.options).items() if name not in _NOT_ASKED
        },
    }


def _bare(block: BaseModel) -> dict[str, Any]:
    """A block of the hardware file without what says only where its values come from."""
    # A machine of a norm has a share of a lane where files have whole ones.
    plain = block.model_dump(mode="json", warnings=False)
    for name in type(block).model_fields:
        value = getattr(block, name)
        if isinstance(value, BaseModel):
            plain[name] = _bare(value)
        elif isinstance(value, tuple) and any(isinstance(each, BaseModel) for each in value):
            plain[name] = [_bare(each) for each in value]
    return {name: value for name, value in plain.items() if name not in _NOT_COUNTED}


@once
def program() -> str:
    """Hash of what counts and searches: another program may find another answer."""
    found = hashlib.sha256()
    for path in program_files():
        found.update(path.read_bytes())
    return found.hexdigest()


def program_files() -> list[Path]:
    """All sources that a count or a search may depend on."""
    here = Path(__file__).parent
    apart = [here / name for name in SHOWING]
    return sorted(path for path in here.rglob("*.py") if not set(apart) & set(path.parents))


def _written(solved: Solved) -> dict[str, Any]:
    return {
        "loops": _rows(solved.loops),
        "certificate": {**asdict(solved.certificate), "seconds": 0.0},
        "others": [
            {"loops": _rows(other.loops), "measure": asdict(other.measure)}
            for other in solved.others
        ],
    }


def _rows(loops: Sequence[LevelLoops]) -> list[dict[str, Any]]:
    return [row.model_dump(mode="json") for row in loops]


def _read(problem: Problem, entry: Any) -> Solved | None:
    try:
        loops = _loops(entry["loops"])
        nest, trips = read_loops(
            problem.hardware,
            problem.shape,
            loops,
            has_weights=problem.store is not None,
            where=str,
        )
        certificate = _certificate(entry["certificate"])
        others = tuple(
            RunnerUp(_loops(other["loops"]), _measure(other["measure"]))
            for other in entry["others"]
        )
        counts = _counted(problem.shape, nest, trips, problem.rules)
        if not _fits(problem, nest, trips, counts):
            return None
    except (EnergysimError, ValidationError, AttributeError, KeyError, TypeError, ValueError):
        return None
    return Solved(loops, nest, trips, certificate, others, counts)


@lru_cache(maxsize=256)
def _counted(shape: Shape, nest: Nest, trips: tuple[int, ...], rules: Rules) -> Counts:
    """Counts of one mapping: layers with other patterns often have the same best one."""
    counts = count(shape, nest, np.array([trips], dtype=np.int64), rules)
    for each in (counts.steps, *counts.values.values(), *counts.used):
        each.flags.writeable = False  # all who ask get the same
    return counts


def _fits(problem: Problem, nest: Nest, trips: tuple[int, ...], counts: Counts) -> bool:
    hardware, shape = problem.hardware, problem.shape
    rooms = occupancy(hardware, shape, nest, trips, counts, problem.store, problem.residency)
    return all(room.excess_bits <= 0 for room in rooms)


def _certificate(plain: Any) -> Certificate:
    """Read the certificate of a search that came to its end."""
    found = Certificate(**{each.name: plain[each.name] for each in fields(Certificate)})
    tallies = (found.mapspace, found.evaluated, found.pruned_bound, found.pruned_capacity)
    if found.optimal is not True or any(type(each) is not int or each < 0 for each in tallies):
        raise ValueError("no certificate of a finished search")
    return replace(found, gap=0.0, seconds=0.0)


def _measure(plain: Any) -> Measure:
    return Measure(**{each.name: float(plain[each.name]) for each in fields(Measure)})


def _loops(rows: Any) -> tuple[LevelLoops, ...]:
    return tuple(LevelLoops.model_validate_json(json.dumps(row)) for row in rows)
