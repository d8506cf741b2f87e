"""What a network can trade between two objectives: the Pareto set of its mappings."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from energysim.errors import InputError
from energysim.files import write_atomically
from energysim.hardware import Hardware
from energysim.mapper.goal import Certificate, Objective
from energysim.network import Network
from energysim.result import Result, certificate_dict
from energysim.simulate import (
    LayerCost,
    Progress,
    Settled,
    objective_named,
    priced,
    problem_of,
    renamed,
    same,
    settle,
)
from energysim.solve import solve_front
from energysim.units import pj_to_mj

if TYPE_CHECKING:
    import pandas as pd

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Point:
    """What a network costs with one choice of mappings, for the whole batch."""

    energy_mj: float
    time_ms: float
    cycles: int
    dram_bytes: float
    picks: tuple[int, ...]
    """for each layer, which of its mappings"""


@dataclass(frozen=True, slots=True)
class Front:
    """The Pareto set of a network by two objectives, in the order of the first.

    Layers run one after the other, so their energy, time and traffic add up; what stays on chip is
    planned once, for the first objective.
    """

    objectives: tuple[str, str]
    points: tuple[Point, ...]
    layers: tuple[tuple[LayerCost, ...], ...]
    """the Pareto set of each layer"""
    search: Certificate
    settled: Settled

    def result(self, at: int) -> Result:
        """Everything about one point."""
        picks = self.points[at].picks
        costs = [own[pick] for own, pick in zip(self.layers, picks, strict=True)]
        return self.settled.result(costs)

    @property
    def table(self) -> pd.DataFrame:
        """One row a point."""
        import pandas as pd

        return pd.DataFrame(self.rows())

    def rows(self) -> list[dict[str, Any]]:
        """One record a point; ``edp_mj_ms`` is energy times time."""
        return [
            {
                "energy_mj": each.energy_mj,
                "time_ms": each.time_ms,
                "cycles": each.cycles,
                "dram_bytes": each.dram_bytes,
                "edp_mj_ms": each.energy_mj * each.time_ms,
            }
            for each in self.points
        ]

    def to_json(self, path: str | Path | None = None) -> str:
        """Write the points, and the mappings that they choose from, as JSON; also returned."""
        first = self.result(0)
        data = {
            "settings": first.settings() | {"objective": ",".join(self.objectives)},
            "search": certificate_dict(self.search),
            "points": [
                row | {"picks": list(point.picks)}
                for row, point in zip(self.rows(), self.points, strict=True)
            ],
            "layers": {
                own[0].layer.layer: [
                    {
                        **asdict(cost.layer),
                        "loops": [row.model_dump(mode="json") for row in cost.loops],
                    }
                    for cost in own
                ]
                for own in self.layers
            },
        }
        text = json.dumps(data, indent=1, ensure_ascii=False) + "\n"
        if path is not None:
            write_atomically(Path(path), text)
        return text


def trade(
    network: Network,
    hardware: Hardware,
    objectives: tuple[str, str] = ("energy", "latency"),
    *,
    progress: Progress | None = None,
    **settings: Any,
) -> Front:
    """Find what a network can trade between two objectives.

    Parameters
    ----------
    network : Network
    hardware : Hardware
    objectives : tuple of str
        Two of energy, dram and latency.
    progress : callable, optional
        Called before each layer and at the end.
    **settings
        As of :func:`energysim.simulate`, but for ``objective`` and ``mapping``.

    Returns
    -------
    Front
        Every trade-off of mappings that no other is better than by both objectives.

    Raises
    ------
    InputError
        As ``simulate``, or the objectives can't be traded.
    DoesNotFitError
        A layer fits no mapping.

    Examples
    --------
    >>> import energysim as es
    >>> f = es.trade(es.load_network("vgg16_ps"), es.load_hardware("edge_tpu"))
    >>> f.points[0].energy_mj <= f.points[-1].energy_mj
    True
    """
    first, second = (_additive(name) for name in objectives)
    if first is second:
        raise InputError(f"{first} can't be traded for itself: name two objectives")
    settled = settle(network, hardware, objective=str(first), mappings_vary=True, **settings)
    options = settled.settings
    sets: dict[tuple[object, ...], tuple[LayerCost, ...]] = {}
    layers, certificates = [], []
    for i, job in enumerate(settled.jobs):
        if progress:
            progress(i, len(settled.jobs), job.layer.name)
        key = same(job)
        if key not in sets:
            left = {same(each) for each in settled.jobs[i:]} - sets.keys()
            budget = options.deadline and max(options.deadline - monotonic(), 0.0) / len(left)
            found = solve_front(problem_of(job, options, budget, second), options.cache)
            sets[key] = tuple(
                replace(
                    priced(job, options, each.nest, each.trips, each.loops, counts=each.counts),
                    certificate=found.certificate,
                )
                for each in found.points
            )
        own = tuple(renamed(cost, job.layer) for cost in sets[key])
        layers.append(own)
        certificates.append(own[0].certificate)
    if progress:
        progress(len(settled.jobs), len(settled.jobs), "")
    points = _points(layers, first, second)
    search = sum(certificates[1:], start=certificates[0])
    return Front((str(first), str(second)), points, tuple(layers), search, settled)


def _additive(name: str) -> Objective:
    objective = objective_named(name)
    if objective is Objective.EDP:
        raise InputError(
            "edp does not add up over layers: trade energy for latency instead, "
            "the table shows the product of both"
        )
    return objective


def _figure(cost: LayerCost, objective: Objective) -> float:
    row = cost.layer
    own = {
        Objective.ENERGY: row.energy_pj,
        Objective.LATENCY: row.cycles,
        Objective.DRAM: row.dram_bytes,
    }
    return float(own[objective])


def _points(
    layers: Sequence[Sequence[LayerCost]], first: Objective, second: Objective
) -> tuple[Point, ...]:
    """Sum over layers in every way that no other is better than."""
    sums, picks = np.zeros((1, 2)), np.zeros((1, 0), dtype=np.int64)
    for own in layers:
        costs = np.array([[_figure(cost, each) for each in (first, second)] for cost in own])
        every = (sums[:, None] + costs[None]).reshape(-1, 2)
        keep = nondominated(every)
        rows, choice = np.divmod(keep, len(own))
        sums, picks = every[keep], np.column_stack([picks[rows], choice])
    return tuple(_point(layers, row) for row in picks.tolist())


def _point(layers: Sequence[Sequence[LayerCost]], picks: Sequence[int]) -> Point:
    rows = [own[pick].layer for own, pick in zip(layers, picks, strict=True)]
    return Point(
        pj_to_mj(sum(row.energy_pj for row in rows)),
        sum(row.time_ms for row in rows),
        sum(row.cycles for row in rows),
        sum(row.dram_bytes for row in rows),
        tuple(picks),
    )


def nondominated(costs: Floats) -> npt.NDArray[np.intp]:
    """Indices of points that no other is as good as by both costs, by rising first cost.

    Parameters
    ----------
    costs : float array, shape (n, 2)

    Examples
    --------
    >>> nondominated(np.array([[3.0, 1.0], [1.0, 2.0], [2.0, 2.0], [1.0, 2.0]])).tolist()
    [1, 0]
    """
    order = np.lexsort((costs[:, 1], costs[:, 0]))
    second = costs[order, 1]
    before = np.concatenate([[np.inf], np.minimum.accumulate(second)[:-1]])
    kept: npt.NDArray[np.intp] = order[second < before]
    return kept
