"""Accuracy meets cost: candidates on one chip, which of them are on the front, and how surely."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from energysim.catalog import load_network
from energysim.errors import DoesNotFitError, InputError, InputErrors
from energysim.hardware import Hardware
from energysim.network import Network, Scale
from energysim.network.norm import MIXTURE
from energysim.pareto import chance, front
from energysim.pareto.sources import Accuracies, Accuracy
from energysim.result import Result
from energysim.simulate import Progress, simulate
from energysim.train.job import digest
from energysim.uncertainty import uncertainty
from energysim.units import pj_to_mj
from energysim.version import VERSION

if TYPE_CHECKING:
    import pandas as pd

    from energysim.cache import Cache

MACS_TOLERANCE = 0.05
"""A network whose effective MACs differ from a published figure by a larger share is another one:
the figures are rounded, read off pictures, and leave the details of some networks open."""

_SCALED = re.compile(
    r"(?P<file>.+?)(-x(?P<width>\d+(\.\d+)?))?(-(?P<side>\d+)px)?(-c(?P<classes>\d+))?"
)


@dataclass(frozen=True, slots=True)
class Quantity:
    """A cost that accuracy is traded for, an image."""

    name: str
    """what ``--x`` says"""
    column: str
    """of files, with its unit"""
    label: str
    """of axes and tables, without its unit"""
    of: Callable[[Result], float]
    """from the result of a batch, in the unit of the column for the whole batch"""
    phase: str = "inference"
    is_energy: bool = False
    """whether constants of the chip make it uncertain"""


QUANTITIES = {
    each.name: each
    for each in (
        Quantity("energy", "energy_mj", "energy per image", lambda r: r.total_energy_mj,
                 is_energy=True),
        Quantity("latency", "time_ms", "latency per image", lambda r: r.total_time_ms),
        Quantity("dram", "dram_bytes", "DRAM traffic per image", lambda r: r.total_dram_bytes),
        Quantity("parameters", "parameters", "parameters",
                 lambda r: r.inputs[0].parameters * r.batch),
        Quantity("training-energy", "training_energy_mj", "training energy per image",
                 lambda r: r.total_energy_mj, "training", is_energy=True),
    )
}  # fmt: skip
"""By name. All but parameters are for one image of a batch."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A network with a pattern, of which an accuracy is known."""

    network: Network
    accuracy: Accuracy

    @property
    def base(self) -> str:
        """Name of the dense network."""
        return _base(self.network)


@dataclass(frozen=True, slots=True)
class LeftOut:
    """What was asked for and can't be shown."""

    network: str
    pattern: str
    reason: str


@dataclass(frozen=True, slots=True)
class Point:
    """What a candidate costs, how accurate it is, and whether anything beats it."""

    candidate: Candidate
    result: Result = field(repr=False, compare=False)
    cost: float
    """an image, in the unit of the quantity"""
    low: float
    """with every constant of the chip at its low end; the cost where it is exact"""
    high: float
    on_front: bool
    """whether no other is as good by both and better by one"""
    probability: float
    """of being on the front, given what is uncertain"""
    is_knee: bool

    @property
    def percent(self) -> float:
        """Accuracy [%]."""
        return self.candidate.accuracy.percent

    @property
    def error(self) -> float | None:
        """How far the accuracy may be off, a standard deviation or at most [%]; None unknown."""
        own = self.candidate.accuracy
        return own.std if own.std is not None else own.either_way


@dataclass(frozen=True, slots=True)
class ParetoTable:
    """Candidates on one chip by rising cost, the front among them."""

    quantity: Quantity
    hardware: Hardware
    accuracies: Accuracies
    points: tuple[Point, ...]
    left_out: tuple[LeftOut, ...]
    settings: Mapping[str, Any]

    @property
    def front(self) -> tuple[Point, ...]:
        """Points on the front, by rising cost and accuracy."""
        return tuple(point for point in self.points if point.on_front)

    @property
    def knee(self) -> Point | None:
        """The knee of the front, if it has one."""
        return next((point for point in self.points if point.is_knee), None)

    def hypervolume(self, cost: float, percent: float) -> float:
        """Area of what the front dominates, as far as a cost and an accuracy that are worse.

        Parameters
        ----------
        cost : float
            In the unit of the quantity.
        percent : float
            Accuracy [%].

        Returns
        -------
        float
            In the unit of the quantity times percent.
        """
        costs = [(point.cost, -point.percent) for point in self.points]
        return front.hypervolume(costs, (cost, -percent))

    @property
    def table(self) -> pd.DataFrame:
        """One row a candidate, columns as in :meth:`rows`."""
        import pandas as pd

        return pd.DataFrame(self.rows())

    def rows(self) -> list[dict[str, Any]]:
        """One record a candidate; costs are for one image."""
        word = self.quantity.column
        stem, _, unit = word.rpartition("_") if self.quantity.is_energy else (word, "", "")
        rows = []
        for point in self.points:
            network, own = point.candidate.network, point.candidate.accuracy
            row = {
                "network": network.name,
                "base": point.candidate.base,
                "pattern": network.pattern,
                "hardware": self.hardware.name,
                "dataset": self.accuracies.dataset,
                "metric": self.accuracies.metric,
                "accuracy_percent": own.percent,
                "std_percent": own.std,
                "either_way_percent": own.either_way,
                "seeds": own.seeds,
                word: point.cost,
            }
            if self.quantity.is_energy:
                row |= {f"{stem}_low_{unit}": point.low, f"{stem}_high_{unit}": point.high}
            rows.append(row | {
                "on_front": point.on_front,
                "is_knee": point.is_knee,
                "front_probability": point.probability,
            })  # fmt: skip
        return rows

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain data, with what is needed to repeat it."""
        hashes = ("network_sha256", "hardware_sha256", "dataflow", "residency")
        own = [point.result.settings() for point in self.points]
        return {
            "settings": {"energysim": VERSION, **self.settings},
            "accuracies": {
                "source": self.accuracies.source,
                "dataset": self.accuracies.dataset,
                "metric": self.accuracies.metric,
                "notes": list(self.accuracies.notes),
            },
            "probability": {"draws": chance.DRAWS, "seed": chance.SEED},
            "rows": [
                row | {name: settings[name] for name in hashes}
                for row, settings in zip(self.rows(), own, strict=True)
            ],
            "left_out": [asdict(each) for each in self.left_out],
        }


def pareto(
    accuracies: Accuracies,
    hardware: Hardware,
    *,
    networks: Sequence[str] = (),
    patterns: Sequence[str] = (),
    quantity: str = "energy",
    batch: int = 1,
    objective: str = "energy",
    dataflow: str | None = None,
    residency: bool | None = None,
    cache: Cache | None = None,
    progress: Progress | None = None,
) -> ParetoTable:
    """Cost of networks on a chip against their accuracy, and which of them nothing beats.

    Parameters
    ----------
    accuracies : Accuracies
        See :func:`~energysim.pareto.load_accuracies`.
    hardware : Hardware
    networks : sequence of str
        Names or paths; all that have an accuracy by default. One with a pattern of its own stands
        for that pattern alone.
    patterns : sequence of str
        Proper names of patterns; all that have an accuracy by default.
    quantity : str
        Of :data:`QUANTITIES`: energy, latency, dram, parameters, training-energy.
    batch, objective, dataflow, residency, cache
        As for :func:`energysim.simulate`; costs are for one image of the batch.
    progress : callable, optional
        Called before each layer with layers done, layers in all of all candidates, and what comes
        next.

    Returns
    -------
    ParetoTable

    Raises
    ------
    InputError
        Nothing that was asked for has an accuracy, or an option is wrong.
    InputErrors
        Accuracies were measured on other networks than the ones of their names.
    DoesNotFitError
        No candidate fits a mapping.

    Notes
    -----
    Each candidate is simulated with the best mappings of its own. Intervals have every constant at
    its low or high end; probabilities are shares of draws, see
    :func:`~energysim.pareto.front_probability`.

    Examples
    --------
    >>> import energysim as es
    >>> from energysim.pareto import load_accuracies, pareto
    >>> chip = es.load_hardware("edge_tpu")
    >>> table = pareto(load_accuracies("published"), chip, networks=["vgg16"], quantity="dram")
    >>> [point.candidate.network.pattern for point in table.front]
    ['PSD4_P8', 'dense']
    """
    chosen = quantity_named(quantity)
    candidates, left_out = choose(accuracies, networks, patterns)
    if not candidates:
        raise InputError(_nothing(accuracies, left_out))
    settings = {"batch": batch, "objective": objective, "dataflow": dataflow,
                "residency": residency}  # fmt: skip
    found, failures = _simulated(
        candidates, hardware, progress, cache=cache, phase=chosen.phase, **settings
    )
    left_out += [
        LeftOut(candidates[i].base, candidates[i].network.pattern, str(error))
        for i, error in failures.items()
    ]
    if not found:
        raise next(iter(failures.values()))
    points = _points([(candidates[i], result) for i, result in found.items()], chosen, batch)
    asked = {"networks": list(networks), "patterns": list(patterns), "quantity": quantity}
    return ParetoTable(chosen, hardware, accuracies, points, tuple(left_out), {**asked, **settings})


def quantity_named(name: str) -> Quantity:
    """Find a quantity.

    Raises
    ------
    InputError
        If there is none of this name.
    """
    if name not in QUANTITIES:
        raise InputError(f"a cost must be one of {', '.join(QUANTITIES)}, got {name!r}")
    return QUANTITIES[name]


# -- what is compared ------------------------------------------------------------------------------


def network_named(word: str) -> Network:
    """Load a network by name or path, with what differs from its file behind it.

    Parameters
    ----------
    word : str
        Such as ``vgg16``, ``vgg16-x0.25`` (width), ``resnet18-64px-c200`` (side and classes), in
        the form that :class:`energysim.network.Scale` gives to names; ``+mixture:3`` stands for
        mixture norms.

    Raises
    ------
    InputError
        If there is no such network.

    Examples
    --------
    >>> network_named("vgg16-x0.25-c100").layers[-1].output
    (100, 1, 1)
    """
    plain, _, norm = word.partition(f"+{MIXTURE}:")
    if norm:
        return network_named(plain).with_norm(f"{MIXTURE}:{norm}")
    try:
        return load_network(word)
    except InputError:
        parts = _SCALED.fullmatch(word)
        if parts is None or parts["file"] == word:
            raise
    side, classes = (int(parts[name]) if parts[name] else None for name in ("side", "classes"))
    return load_network(parts["file"], scale=Scale(float(parts["width"] or 1), side, classes))


def choose(
    accuracies: Accuracies, networks: Sequence[str], patterns: Sequence[str]
) -> tuple[list[Candidate], list[LeftOut]]:
    """Networks that are asked for and have an accuracy, and those that have none.

    Parameters
    ----------
    accuracies : Accuracies
    networks : sequence of str
        Names or paths; all that have an accuracy, if none is given.
    patterns : sequence of str
        Proper names; all that have an accuracy, if none is given.

    Raises
    ------
    InputErrors
        Networks have no such names, or differ from those that were measured; with all of them.
    """
    problems: list[str] = []
    left_out: dict[LeftOut, None] = {}
    sources = {row.network: _network_or_why(row.network) for row in accuracies.rows}
    known = _Known(accuracies, sources)
    asked: dict[str, Network] = {}
    for word in networks or sources:
        network = _network_or_why(word) if networks else sources[word]
        if isinstance(network, Network):
            asked.setdefault(word, network)
        elif networks:
            problems.append(str(network))
        else:
            left_out[LeftOut(word, "", str(network))] = None
    found: dict[tuple[str, str], Candidate] = {}
    for network in asked.values():
        for each in known.candidates(network, patterns):
            if isinstance(each, LeftOut):
                left_out[each] = None
            else:
                problems += _differences(each)
                found.setdefault((each.base, each.network.pattern), each)
    if problems:
        raise InputErrors(problems)
    return list(found.values()), list(left_out)


@dataclass(frozen=True, slots=True)
class _Known:
    """Accuracies by the networks that they are of."""

    accuracies: Accuracies
    sources: Mapping[str, Network | InputError]
    """what each row names, or why it can't be loaded"""

    def candidates(
        self, network: Network, patterns: Sequence[str]
    ) -> Iterator[Candidate | LeftOut]:
        """A network with the patterns that are asked for, or why not."""
        rows = self._rows(network)
        if not rows and (other := self._other_name(network)):
            network = other.with_pattern(network.pattern)
            rows = self._rows(network)
        name = _base(network)
        wanted = patterns or list(rows) or [network.pattern]
        for pattern in wanted if network.pattern == "dense" else [network.pattern]:
            if pattern not in rows:
                yield LeftOut(name, pattern, self._why_none(name, pattern))
                continue
            try:
                yield Candidate(self._patterned(network, pattern, rows[pattern]), rows[pattern])
            except InputErrors as error:
                yield LeftOut(name, pattern, error.problems[0].removeprefix(f"{name}: "))

    def _rows(self, network: Network) -> dict[str, Accuracy]:
        """Accuracies of a network by pattern."""
        return {
            row.pattern: row
            for row in self.accuracies.rows
            if isinstance(own := self.sources[row.network], Network)
            and _base(own) == _base(network)
        }

    def _other_name(self, network: Network) -> Network | None:
        """What a network is called where it was measured, such as for larger images."""
        for row in self.accuracies.rows:
            own = self.sources[row.network]
            if row.also == _base(network) and isinstance(own, Network):
                return own.dense()
        return None

    def _patterned(self, network: Network, pattern: str, row: Accuracy) -> Network:
        own = self.sources[row.network]
        if network.pattern == pattern:
            return network
        if isinstance(own, Network) and own.pattern == pattern != "dense":
            return own  # a file may have patterns that have no name
        return network.with_pattern(pattern)

    def _why_none(self, name: str, pattern: str) -> str:
        where = f" on {self.accuracies.dataset}" if self.accuracies.dataset else ""
        return self.accuracies.others.get(
            (name, pattern), f"no accuracy in {self.accuracies.name}{where}"
        )


def _base(network: Network) -> str:
    return network.base or network.name


def _network_or_why(word: str) -> Network | InputError:
    try:
        return network_named(word)
    except InputError as error:
        return error


def _differences(candidate: Candidate) -> Iterator[str]:
    """Why a network is not the one that its accuracy was measured on."""
    network, row = candidate.network, candidate.accuracy
    measured = row.measured
    where = f"{row.where}: " if row.where else ""
    differ = [
        f"{getattr(network, name):,} {name.replace('_', ' ')} in place of {wanted:,}"
        for name in ("parameters", "macs", "effective_macs")
        if (wanted := getattr(measured, name)) not in (None, getattr(network, name))
    ]
    about = measured.effective_macs_about
    if about is not None and abs(network.effective_macs / about - 1) > MACS_TOLERANCE:
        differ.append(f"{network.effective_macs:,} effective macs in place of about {about:,.0f}")
    if not differ and measured.sha256 is not None and measured.version == VERSION:
        own = digest([asdict(layer) for layer in network.layers])
        if own != measured.sha256:
            differ.append("the same size, but other layers (their hashes differ)")
    if differ:
        yield (
            f"{where}the accuracy of {network.name} is of another network than this one, which has "
            f"{'; '.join(differ)}"
        )


def _nothing(accuracies: Accuracies, left_out: Sequence[LeftOut]) -> str:
    reasons = "".join(f"\n  {line}" for line in left_out_lines(left_out))
    return f"nothing that is asked for has an accuracy in {accuracies.name}{reasons}"


def left_out_lines(left_out: Iterable[LeftOut]) -> Iterator[str]:
    """One line for all patterns of a network that are left out for the same reason."""
    alike: dict[tuple[str, str], list[str]] = {}
    for each in left_out:
        reason = each.reason.replace(f"pattern {each.pattern}", "the pattern")
        alike.setdefault((each.network, reason), []).append(each.pattern)
    for (network, reason), patterns in alike.items():
        named = f" with {', '.join(patterns)}" if any(patterns) else ""
        yield f"{network}{named}: {reason}"


# -- what it costs ---------------------------------------------------------------------------------


def _simulated(
    candidates: Sequence[Candidate],
    hardware: Hardware,
    progress: Progress | None,
    **settings: Any,
) -> tuple[dict[int, Result], dict[int, DoesNotFitError]]:
    """Results by the place of their candidates, and why some have none."""
    total = sum(len(each.network.layers) for each in candidates)
    results: dict[int, Result] = {}
    failures: dict[int, DoesNotFitError] = {}
    before = 0
    for i, each in enumerate(candidates):
        tell = progress and _part(progress, before, total, each.network)
        try:
            results[i] = simulate(each.network, hardware, progress=tell, **settings)
        except DoesNotFitError as error:
            failures[i] = error
        except KeyboardInterrupt:
            raise KeyboardInterrupt(
                f"{i} of {len(candidates)} networks were done. Nothing was written; what was found "
                "is kept, unless --no-cache was given: the same command goes on from there."
            ) from None
        before += len(each.network.layers)
    return results, failures


def _part(progress: Progress, before: int, total: int, network: Network) -> Progress:
    """Progress of one network among several."""

    def tell(done: int, of: int, layer: str) -> None:
        layers = done * len(network.layers) // max(of, 1)  # in training a layer has several steps
        progress(before + layers, total, f"{network.name} {layer}".rstrip())

    return tell


def _points(
    pairs: Sequence[tuple[Candidate, Result]], quantity: Quantity, batch: int
) -> tuple[Point, ...]:
    """Who is on the front, and how surely."""
    costs = np.array([quantity.of(result) / batch for _, result in pairs])
    percent = np.array([each.accuracy.percent for each, _ in pairs])
    both = np.column_stack([costs, -percent])
    kept, at_knee = front.non_dominated(both), front.knee(both)
    lows = highs = costs
    constants = None
    if quantity.is_energy:
        found = [uncertainty(result) for _, result in pairs]
        lows, highs = (
            np.array([pj_to_mj(getattr(each, word)) / batch for each in found])
            for word in ("low_pj", "high_pj")
        )
        constants = chance.constants_of(found)
    known = chance.Accuracies(
        percent,
        np.array([each.accuracy.std or 0.0 for each, _ in pairs]),
        np.array([each.accuracy.either_way or 0.0 for each, _ in pairs]),
    )
    drawn = np.array([r.total_energy_pj for _, r in pairs]) if constants else costs
    probability = chance.front_probability(drawn, known, constants)
    points = [
        Point(
            each,
            result,
            float(costs[i]),
            float(lows[i]),
            float(highs[i]),
            bool(kept[i]),
            float(probability[i]),
            is_knee=i == at_knee,
        )
        for i, (each, result) in enumerate(pairs)
    ]
    return tuple(sorted(points, key=lambda p: (p.cost, -p.percent, p.candidate.network.name)))
