"""What is searched, and what is found."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from energysim.axes import Shape
from energysim.hardware import Hardware
from energysim.mapper.dataflows import Dataflow
from energysim.mapper.goal import Certificate, Measure, Objective, Options
from energysim.mapping import Nest, Rules
from energysim.model.capacity import Residency
from energysim.model.counts import Counts
from energysim.model.sparse import WeightStore
from energysim.sparsity import DENSE, Activity

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Problem:
    """One layer to be mapped on one machine."""

    hardware: Hardware
    shape: Shape
    rules: Rules
    dataflow: Dataflow
    """as :func:`energysim.mapper.dataflows.of_machine` gives it"""
    store: WeightStore | None
    residency: Residency
    objective: Objective
    other: Objective | None = None
    """a second objective, of a Pareto set"""
    static_pj_per_cycle: float = 0.0
    compute_pj: float = 0.0
    """energy of the arithmetic, the same for every mapping [pJ]"""
    options: Options = field(default_factory=Options)
    activity: Activity = DENSE
    """what is known of zeros in the input and output"""


@dataclass(frozen=True, slots=True)
class Mapped:
    """A complete mapping and its cost."""

    nest: Nest
    trips: tuple[int, ...]
    measure: Measure
    counts: Counts = field(compare=False, repr=False)
    """of this mapping alone (B = 1)"""


@dataclass(frozen=True, slots=True)
class Front:
    """The Pareto set of a layer.

    No mapping of the mapspace is better than one of these by one objective and as good by the
    other; every such cost is among them.
    """

    points: tuple[Mapped, ...]
    """by rising first and falling second objective; of equal ones the first found"""
    certificate: Certificate


@dataclass(frozen=True, slots=True)
class Found:
    """The best mapping of a layer's mapspace."""

    best: Mapped
    others: tuple[Mapped, ...]
    """the next best, each with another cost, best first: as many as were asked for"""
    certificate: Certificate
