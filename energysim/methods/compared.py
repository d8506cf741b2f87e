"""What trained methods cost on hardware, beside how well they tell images apart."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from statistics import mean, stdev
from typing import TYPE_CHECKING, Any

import numpy as np

from energysim.cache import Cache
from energysim.errors import DoesNotFitError, InputError
from energysim.hardware import Hardware
from energysim.methods.named import Method
from energysim.methods.trained import Failed, Trained, by_method
from energysim.network import Network
from energysim.pareto import non_dominated
from energysim.simulate import simulate
from energysim.train.attacks import Attack
from energysim.train.job import Job
from energysim.train.run import parted
from energysim.training import Phase

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, slots=True)
class Axis:
    """Something that accuracy is set against."""

    name: str
    label: str
    column: str
    """with the unit; its values are in rows of :meth:`Comparison.rows`"""
    of_hardware: bool = False
    of_batch: bool = False


AXES = {
    each.name: each
    for each in (
        Axis("energy", "energy per image", "energy_mj", of_hardware=True, of_batch=True),
        Axis("latency", "time per image", "time_ms", of_hardware=True, of_batch=True),
        Axis("training-energy", "energy of training", "training_energy_mj", of_hardware=True),
        Axis("parameters", "parameters", "parameters"),
        Axis("macs", "effective MACs", "effective_macs"),
    )
}
"""By name."""


@dataclass(frozen=True)
class Figures:
    """What a network costs, for one image, and how it was mapped."""

    energy_mj: float
    time_ms: float
    dataflow: str
    objective: str
    residency: bool


@dataclass(frozen=True)
class Point:
    """A method, over its seeds."""

    method: Method
    runs: tuple[Trained, ...] = field(repr=False)
    inference: Mapping[tuple[str, int], Figures]
    """by hardware and batch, mean of what was counted"""
    training: Mapping[str, float]
    """by hardware, of the whole training [mJ]; empty if it was not asked for"""

    @property
    def percent(self) -> float:
        """Mean accuracy."""
        return 100 * mean(each.top1 for each in self.runs)

    @property
    def std(self) -> float | None:
        """Standard deviation of a sample; None of one seed."""
        return _spread([each.top1 for each in self.runs])

    @property
    def robust_percent(self) -> float | None:
        """Mean accuracy under the attack, where there was one."""
        values = self._robust
        return 100 * mean(values) if values else None

    @property
    def robust_std(self) -> float | None:
        """Its standard deviation; None of one seed."""
        return _spread(self._robust)

    @property
    def _robust(self) -> list[float]:
        return [each.robust for each in self.runs if each.robust is not None]

    def accuracy(self, *, robust: bool) -> tuple[float, float | None]:
        """Mean and spread of accuracy [%], as images are or under the attack."""
        if not robust:
            return self.percent, self.std
        assert self.robust_percent is not None
        return self.robust_percent, self.robust_std

    @property
    def parameters(self) -> float:
        """Mean over seeds."""
        return mean(each.used.parameters for each in self.runs)

    @property
    def effective_macs(self) -> float:
        """Mean over seeds, for one image."""
        return mean(each.used.effective_macs for each in self.runs)

    def cost(self, axis: Axis, hardware: str, batch: int) -> float:
        """What accuracy is set against."""
        match axis.name:
            case "energy":
                return self.inference[hardware, batch].energy_mj
            case "latency":
                return self.inference[hardware, batch].time_ms
            case "training-energy":
                return self.training[hardware]
            case "parameters":
                return self.parameters
        return self.effective_macs


def _spread(shares: Sequence[float]) -> float | None:
    """Standard deviation of a sample [%]."""
    return 100 * stdev(shares) if len(shares) > 1 else None


@dataclass(frozen=True)
class Panel:
    """One axis on one machine with one batch; as much of that as it depends on."""

    axis: Axis
    hardware: str = ""
    batch: int = 0
    robust: bool = False
    """accuracy is that under the attack"""


@dataclass(frozen=True)
class Comparison:
    """Methods beside each other."""

    points: tuple[Point, ...]
    failed: tuple[Failed, ...]
    """those that came to nothing"""
    network: Network = field(repr=False)
    """that was made cheap"""
    hardware: tuple[str, ...]
    batches: tuple[int, ...]
    job: Job = field(repr=False)
    """any one: what they have in common"""
    trains: bool
    """whether energies of training are known"""
    all_seeds: bool = True
    """costs are means over the networks of all seeds; else of the first one"""
    attack: str = ""
    """with its strength, where accuracy under one is known"""

    def panels(self, axes: Sequence[Axis]) -> tuple[Panel, ...]:
        """All that accuracy can be set against, and then accuracy under the attack."""
        return tuple(
            Panel(axis, hardware, batch, robust)
            for robust in ((False, True) if self.attack else (False,))
            for axis in axes
            for hardware in (self.hardware if axis.of_hardware else ("",))
            for batch in (self.batches if axis.of_batch else (0,))
        )

    def costs(self, panel: Panel) -> list[float]:
        """Of each point."""
        return [each.cost(panel.axis, panel.hardware, panel.batch) for each in self.points]

    def front(self, panel: Panel) -> tuple[bool, ...]:
        """Of each point, whether no other one is as good by both and better by one."""
        pairs = [(cost, -point.accuracy(robust=panel.robust)[0])
                 for cost, point in zip(self.costs(panel), self.points, strict=True)]  # fmt: skip
        return tuple(map(bool, non_dominated(np.array(pairs))))

    def rows(self) -> list[dict[str, Any]]:
        """A record a method, hardware and batch; its ``on_front`` is that of energy."""
        fronts = {
            (hardware, batch): self.front(Panel(AXES["energy"], hardware, batch))
            for hardware in self.hardware
            for batch in self.batches
        }
        rows = []
        for hardware in self.hardware:
            for batch in self.batches:
                for place, point in enumerate(self.points):
                    figures = point.inference[hardware, batch]
                    rows.append(
                        {
                            **self._own(point),
                            "hardware": hardware,
                            "batch": batch,
                            "dataflow": figures.dataflow,
                            "objective": figures.objective,
                            "residency": figures.residency,
                            "energy_mj": figures.energy_mj,
                            "time_ms": figures.time_ms,
                            "training_energy_mj": point.training.get(hardware),
                            "on_front": fronts[hardware, batch][place],
                        }
                    )
        return rows

    def _own(self, point: Point) -> dict[str, Any]:
        return {
            "method": point.method.name,
            "family": str(point.method.family),
            "density": point.method.density,
            "network": point.runs[0].network.name,
            "seeds": len(point.runs),
            "accuracy_percent": point.percent,
            "std_percent": point.std,
            "attack": self.attack or None,
            "robust_percent": point.robust_percent,
            "robust_std_percent": point.robust_std,
            "parameters": point.parameters,
            "macs": mean(each.used.macs for each in point.runs),
            "effective_macs": point.effective_macs,
        }

    @cached_property
    def table(self) -> pd.DataFrame:
        """:meth:`rows` as a table."""
        import pandas as pd

        return pd.DataFrame(self.rows())


def compare_trained(
    found: Sequence[Trained | Failed],
    network: Network,
    hardware: Sequence[Hardware],
    batches: Sequence[int],
    *,
    training: bool = False,
    all_seeds: bool = True,
    attack: Attack | None = None,
    cache: Cache | None = None,
    progress: Callable[[int, int, str], None] | None = None,
    **settings: Any,
) -> Comparison:
    """Count what trained methods cost.

    Parameters
    ----------
    found : sequence of Trained or Failed
        From :func:`~energysim.methods.train_all`.
    network : Network
        That was made cheap.
    hardware : sequence of Hardware
    batches : sequence of int
    training : bool
        Also the energy of the whole training, with the batch, images and epochs of the runs.
    all_seeds : bool
        Take the mean over the networks of all seeds; else count that of the first one, where they
        differ.
    attack : Attack, optional
        That accuracies were measured under too.
    cache : Cache, optional
        Of mappings.
    progress : callable, optional
        Is told of finished methods, of all, and of the next one's name.
    **settings
        Of :func:`energysim.simulate`.

    Returns
    -------
    Comparison
        Methods that fit no mapping are among the failed.

    Raises
    ------
    InputError
        If none came to anything.
    """
    trained = [each for each in found if isinstance(each, Trained)]
    failed = [each for each in found if isinstance(each, Failed)]
    groups = by_method(trained)
    points = []
    for place, (method, runs) in enumerate(groups.items()):
        if progress is not None:
            progress(place, len(groups), method.label)
        counted = _distinct(runs) if all_seeds else runs[:1]
        try:
            inference = {
                (machine.name, batch): _inference(counted, machine, batch, cache, settings)
                for machine in hardware
                for batch in batches
            }
            spent = {machine.name: _training(counted, machine, cache, settings)
                     for machine in hardware} if training else {}  # fmt: skip
        except (DoesNotFitError, InputError) as error:
            failed.append(Failed(method, runs[0].seed, str(error)))
            continue
        points.append(Point(method, runs, inference, spent))
    if progress is not None:
        progress(len(groups), len(groups), "")
    if not points:
        why = f" The first: {failed[0].why}" if failed else ""
        raise InputError(f"no method came to anything.{why}")
    names = tuple(each.name for each in hardware)
    return Comparison(
        tuple(points), tuple(failed), network, names, tuple(batches), trained[0].jobs[-1], training,
        all_seeds, "" if attack is None else attack.name,
    )  # fmt: skip


def _distinct(runs: Sequence[Trained]) -> Sequence[Trained]:
    """One run if the networks of all are the same, else all."""
    first = runs[0].used
    return runs[:1] if all(each.used == first for each in runs) else runs


def _inference(
    runs: Sequence[Trained],
    hardware: Hardware,
    batch: int,
    cache: Cache | None,
    settings: Mapping[str, Any],
) -> Figures:
    results = [simulate(each.used, hardware, batch=batch, cache=cache, **settings) for each in runs]
    return Figures(
        mean(each.total_energy_mj for each in results) / batch,
        mean(each.total_time_ms for each in results) / batch,
        results[0].dataflow, results[0].objective, results[0].residency,
    )  # fmt: skip


def _training(
    runs: Sequence[Trained], hardware: Hardware, cache: Cache | None, settings: Mapping[str, Any]
) -> float:
    """Energy of all runs that a method took [mJ]; pruning itself counts nothing."""
    return mean(
        sum(
            _of_job(each, job, epochs, hardware, cache, settings)
            for job, epochs in zip(each.jobs, each.epochs, strict=True)
        )
        for each in runs
    )


def _of_job(
    run: Trained,
    job: Job,
    epochs: int,
    hardware: Hardware,
    cache: Cache | None,
    settings: Mapping[str, Any],
) -> float:
    """Energy of one run: its steps, each of the network that it ends with."""
    network = run.network if job is run.jobs[-1] else job.network
    data, _ = parted(job, job.generators()["held_out"])
    result = simulate(
        network, hardware, batch=job.recipe.batch, phase="training", epoch_images=len(data.train),
        cache=cache, **settings,
    )  # fmt: skip
    times = passes_of(job)
    step = sum(cost.energy_mj * times[Phase(word)] for word, cost in result.by_phase().items())
    return step * result.epoch_iterations * epochs


def passes_of(job: Job) -> dict[Phase, int]:
    """How often a step does each phase.

    Once; where a run learns from attacked images too, each step of the attack is a pass forward and
    one back to the images, without gradients of weights, and what it came to is learnt from as the
    images as they are. The gradient of the images themselves, behind the first layer, is not
    counted.
    """
    attacked = job.recipe.adversarial
    learnt, struck = 1, 0
    if attacked is not None:
        learnt, struck = 1 + (attacked.clean_share > 0), attacked.steps
    return {
        Phase.FORWARD: learnt + struck,
        Phase.RECOMPUTE: learnt + struck,
        Phase.INPUT_GRAD: learnt + struck,
        Phase.WEIGHT_GRAD: learnt,
        Phase.UPDATE: 1,
    }
