"""Search for good designs: hardware, and a pattern for each layer, by more than one objective.

Optuna (extra ``search``) proposes designs; each is mapped and counted as by
:func:`energysim.simulate`. A study is kept in one file and goes on from there; what it proposes
next follows from its seed and what it holds, so that an interrupted study ends as an uninterrupted
one.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from filelock import FileLock, Timeout

from energysim.cache import Cache, key_of
from energysim.errors import DoesNotFitError, InputError, MissingExtraError
from energysim.errors import did_you_mean as hint
from energysim.hardware import Hardware
from energysim.mapper.dataflows import with_dataflow
from energysim.network import Layer, Network
from energysim.network.types import pattern_of
from energysim.pareto import non_dominated
from energysim.result import Result
from energysim.simulate import simulate
from energysim.sparsity import get_pattern
from energysim.sweeps.axes import Axis, Value
from energysim.sweeps.plan import RUN_FIELDS, check_run_value, overridden
from energysim.units import BITS_PER_KIB

if TYPE_CHECKING:
    import pandas as pd

CHANCE = "random"
SAMPLERS = ("nsga2", "tpe", CHANCE)
"""Who proposes designs: NSGA-II (Deb et al., IEEE Trans. Evolutionary Computation 6(2), 2002),
a tree-structured Parzen estimator (Bergstra et al., NeurIPS 2011), or chance. The first two begin
with :attr:`Space.starts`."""

POPULATION = 12
"""Designs of a generation of NSGA-II: few, since each costs a search of all mappings."""

MIXED = "mixed"
"""Pattern of a network whose layers have different ones."""

LAYER = "pattern."
"""Begins the name of the choice of a layer's pattern."""

MOST_BYTES = 1_000_000
"""Longest line that a journal begins with."""

BUSY = ".busy"
"""Behind the name of a study: a file that keeps other processes out of it."""

MODES = {"batch", "dataflow", "objective", "pattern", "residency"}
"""Fields of a run, beside those of the hardware, that a design may vary."""


@dataclass(frozen=True, slots=True)
class Goal:
    """Something to be made small, or large; costs are those of an image."""

    name: str
    unit: str
    measure: Callable[[Result], float]
    largest: bool = False

    @property
    def column(self) -> str:
        """Heading in tables, with the unit."""
        return f"{self.name}_{self.unit}" if self.unit else self.name


def _edp(result: Result) -> float:
    return result.total_energy_mj * result.total_time_ms / result.batch**2


def _on_chip_kib(result: Result) -> float:
    hardware = result.inputs[1]
    total = 0.0
    for index, level in enumerate(hardware.levels):
        size = level.capacity_bits()
        bits = sum(size.values()) if isinstance(size, dict) else size or 0
        total += bits * hardware.instances(index)
    return total / BITS_PER_KIB


def _elements(result: Result) -> float:
    return float(np.prod(result.inputs[1].axis_sizes))


def _live(result: Result) -> float:
    """Share of the weights that patterns leave; all of them where there are none."""
    layers = [layer for layer in result.inputs[0].layers if layer.stores_weights]
    total = sum(each.mask.total for each in layers)
    return sum(each.mask.nonzeros for each in layers) / total if total else 1.0


GOALS = {
    each.name: each
    for each in (
        Goal("energy", "mj", lambda result: result.total_energy_mj / result.batch),
        Goal("latency", "ms", lambda result: result.total_time_ms / result.batch),
        Goal("dram", "bytes", lambda result: result.total_dram_bytes / result.batch),
        Goal("edp", "mj_ms", _edp),
        Goal("on_chip", "kib", _on_chip_kib),
        Goal("elements", "", _elements),
        Goal("live_weights", "", _live, largest=True),
    )
}
"""By name. ``live_weights``, the share of weights that patterns leave, is made large: it stands for
accuracy where none is known."""


@dataclass(frozen=True)
class Space:
    """What a design may be.

    Raises
    ------
    InputError, InputErrors
        If something in it can't be.
    """

    network: Network
    """of a variant, layers that choose a pattern choose in place of its own"""
    hardware: Hardware
    axes: tuple[Axis, ...]
    """fields and their values"""
    patterns: tuple[str, ...] = ()
    """that each layer which a pattern covers chooses from"""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """of :func:`energysim.simulate`"""

    def __post_init__(self) -> None:
        self._check_dataflow(self.settings.get("dataflow"))
        for axis in self.axes:
            for name in axis.fields:
                self._check_run_field(name, axis.values)
            own = [name for name in axis.fields if name not in RUN_FIELDS]
            for value in axis.values if own else ():
                overridden(self.hardware, dict.fromkeys(own, value))
        if self.patterns and any("pattern" in axis.fields for axis in self.axes):
            raise InputError("pattern is varied for the network and for each layer: leave one out")
        if self.patterns and not self.layers:
            raise InputError(f"{self.network.name} has no layer that a pattern covers")
        if not self.choices:
            raise InputError("nothing is varied")

    def _check_run_field(self, name: str, values: Sequence[Value]) -> None:
        if name not in RUN_FIELDS:
            return
        if name not in MODES:
            raise InputError(f"{name} can't be varied here; sweep it")
        for value in values:
            try:
                check_run_value(name, value)
                if name == "dataflow":
                    self._check_dataflow(str(value))
            except InputError as error:
                raise InputError(f"{name}: {error}") from None

    def _check_dataflow(self, name: str | None) -> None:
        if name is not None:
            with_dataflow(self.hardware, name)

    @property
    def layer_patterns(self) -> dict[str, tuple[str, ...]]:
        """Patterns that each layer chooses from: those that cover it, and dense if it is named."""
        names = dict.fromkeys(get_pattern(name).name for name in self.patterns)
        covered = {name: self._covered(name) for name in names if name != "dense"}
        every = set().union(*covered.values())
        return {
            layer.name: tuple(each for each in names if layer.name in covered.get(each, every))
            for layer in self.network.layers
            if layer.name in every
        }

    def _covered(self, pattern: str) -> set[str]:
        laid = self.network.with_pattern(pattern)
        return {layer.name for layer in laid.layers if layer.pattern != "dense"}

    @property
    def layers(self) -> tuple[str, ...]:
        """Layers that choose a pattern."""
        return tuple(self.layer_patterns)

    @property
    def choices(self) -> dict[str, tuple[Value, ...]]:
        """Values by what is chosen."""
        found: dict[str, tuple[Value, ...]] = {axis.name: axis.values for axis in self.axes}
        return found | {f"{LAYER}{name}": own for name, own in self.layer_patterns.items()}

    @property
    def starts(self) -> tuple[dict[str, Value], ...]:
        """Designs to begin with: each pattern on all layers that can have it, fields in turn.

        Chance never finds the ends of the front, such as a network that is dense throughout; mixing
        these designs does.
        """
        if not self.layers:
            return ()
        return tuple(
            {
                name: pattern if pattern in values else values[place % len(values)]
                for name, values in self.choices.items()
            }
            for place, pattern in enumerate(self.patterns)
        )

    @property
    def size(self) -> int:
        """Designs in all."""
        total = 1
        for values in self.choices.values():
            total *= len(values)
        return total

    def run(self, chosen: Mapping[str, Value], cache: Cache | None) -> Result:
        """Map and count a design.

        Raises
        ------
        DoesNotFitError
            If a layer fits no mapping.
        InputError
            If the machine can't be.
        """
        fields = {
            name: value
            for axis, value in chosen.items()
            if not axis.startswith(LAYER)
            for name in axis.split("+")
        }
        own = {name: value for name, value in fields.items() if name not in RUN_FIELDS}
        run = dict(self.settings) | {
            name: value for name, value in fields.items() if name in RUN_FIELDS
        }
        pattern = run.pop("pattern", None)
        network = self.network if pattern is None else self.network.with_pattern(str(pattern))
        picked = {
            name.removeprefix(LAYER): str(value)
            for name, value in chosen.items()
            if name.startswith(LAYER)
        }
        if picked:
            network = with_patterns(network.dense(), picked)
        machine = overridden(self.hardware, own) if own else self.hardware
        return simulate(network, machine, cache=cache, **run)

    def described(self) -> dict[str, Any]:
        """All that decides what a design costs."""
        return {
            "network": self.network.counted(),
            "hardware": self.hardware.model_dump(mode="json"),
            "choices": {name: list(values) for name, values in self.choices.items()},
            "settings": {name: self.settings[name] for name in sorted(self.settings)},
        }


def with_patterns(network: Network, patterns: Mapping[str, str]) -> Network:
    """Give layers patterns of their own.

    Parameters
    ----------
    network : Network
        Dense.
    patterns : mapping
        Names of patterns by layer.

    Raises
    ------
    InputError
        If there is no such layer or pattern.

    Examples
    --------
    >>> from energysim.catalog import load_network
    >>> net = with_patterns(load_network("digits_cnn"), {"conv2": "PS4_P4"})
    >>> net.pattern, [layer.pattern for layer in net.layers[:2]]
    ('mixed', ['dense', 'PS4_P4'])
    """
    for name in patterns:
        network.layer(name)
    layers: tuple[Layer, ...] = tuple(
        replace(layer, pattern=get_pattern(patterns[layer.name]).name)
        if layer.name in patterns
        else layer
        for layer in network.layers
    )
    if all(layer.pattern == "dense" for layer in layers if layer.name in patterns):
        return network
    word = pattern_of(layers)
    if word != MIXED and layers != network.with_pattern(word).layers:
        word = MIXED  # its name stands for all layers that it covers
    return replace(
        network, name=f"{network.name}+{word}", layers=layers, base=network.name, pattern=word
    )


@dataclass(frozen=True, slots=True)
class Trial:
    """A design that was tried."""

    number: int
    chosen: Mapping[str, Value]
    values: tuple[float, ...] | None
    """by goal; None where it can't be"""
    note: str = ""
    """why it can't"""


@dataclass(frozen=True, slots=True)
class Study:
    """A finished search."""

    space: Space = field(repr=False)
    goals: tuple[Goal, ...]
    trials: tuple[Trial, ...]

    @property
    def front(self) -> tuple[Trial, ...]:
        """Designs that no other tried one beats, each once."""
        known = [each for each in self.trials if each.values is not None]
        costs = np.array([self.costs(each) for each in known]).reshape(-1, len(self.goals))
        seen: dict[tuple[float, ...], Trial] = {}
        for trial, kept in zip(known, non_dominated(costs), strict=True):
            if kept:
                seen.setdefault(self.costs(trial), trial)
        return tuple(seen[costs] for costs in sorted(seen))

    def costs(self, trial: Trial) -> tuple[float, ...]:
        """Values with what is to be large turned round."""
        assert trial.values is not None
        pairs = zip(self.goals, trial.values, strict=True)
        return tuple(-value if goal.largest else value for goal, value in pairs)

    @property
    def table(self) -> pd.DataFrame:
        """A row a trial, in their order."""
        import pandas as pd

        return pd.DataFrame(self.rows())

    def rows(self) -> list[dict[str, Any]]:
        """A record a trial."""
        best = {each.number for each in self.front}
        return [
            {
                "trial": each.number,
                **each.chosen,
                **{
                    goal.column: None if each.values is None else each.values[place]
                    for place, goal in enumerate(self.goals)
                },
                "on_front": each.number in best,
                "note": each.note,
            }
            for each in self.trials
        ]


def goals_named(names: Sequence[str]) -> tuple[Goal, ...]:
    """Find goals by their names.

    Raises
    ------
    InputError
        If there is no such goal, or one is named twice.
    """
    for name in names:
        if name not in GOALS:
            raise InputError(
                f"no goal named '{name}'.{hint(name, GOALS)} Known: {', '.join(GOALS)}"
            )
        if list(names).count(name) > 1:
            raise InputError(f"the goal {name} is named twice")
    if not names:
        raise InputError(f"name at least one goal of {', '.join(GOALS)}")
    return tuple(GOALS[name] for name in names)


def study(
    space: Space,
    goals: Sequence[str] = ("energy", "on_chip"),
    *,
    trials: int = 100,
    seed: int = 0,
    sampler: str = "nsga2",
    path: Path | None = None,
    cache: Cache | None = None,
    tell: Callable[[int], None] | None = None,
) -> Study:
    """Search a space for designs that no other beats.

    Parameters
    ----------
    space : Space
    goals : sequence of str
        Names of :data:`GOALS`.
    trials : int
        Designs to try in all, those in the file included.
    seed : int
    sampler : str
        One of :data:`SAMPLERS`.
    path : Path, optional
        Of the file that keeps the study; without one nothing is kept.
    cache : Cache, optional
        Of mappings.
    tell : callable, optional
        Is told of the number of finished trials.

    Returns
    -------
    Study

    Raises
    ------
    InputError
        If the goals or sampler are none, or the file is that of another study, or another process
        works on it.
    MissingExtraError
        Without Optuna.
    KeyboardInterrupt
        When interrupted; says what is kept.
    """
    chosen = goals_named(goals)
    if sampler not in SAMPLERS:
        raise InputError(
            f"no sampler named '{sampler}'.{hint(sampler, SAMPLERS)} Known: {', '.join(SAMPLERS)}"
        )
    with _alone(path):
        keeper = _Keeper(space, chosen, seed, sampler, path)
        try:
            for done in keeper.tried(trials, cache):
                if tell is not None:
                    tell(done)
        except KeyboardInterrupt:
            done = len(keeper.finished())
            kept = (
                f"kept in {path}; the same command goes on"
                if path
                else "lost: no --study was named"
            )
            raise KeyboardInterrupt(f"{done} of {trials} trials are {kept}.") from None
        return Study(space, chosen, keeper.finished()[:trials])


@contextmanager
def _alone(path: Path | None) -> Iterator[None]:
    """Keep other processes out of a study: what comes next follows from all that is in it.

    Raises
    ------
    InputError
        If one works on it, or it can't be a study.
    """
    if path is None:
        yield
        return
    if not _is_journal(path):
        raise InputError("is no study. Name another file with --study", where=str(path))
    if not path.parent.is_dir():
        raise InputError(f"the folder {path.parent} does not exist", where=str(path))
    lock = FileLock(f"{path}{BUSY}")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise InputError("another process works on this study", where=str(path)) from None
    except OSError as error:
        raise InputError(f"can't be used as a study: {error.strerror}", where=str(path)) from None
    try:
        yield
    finally:
        lock.release()


class _Keeper:
    """A study of Optuna, in a file or in memory."""

    def __init__(
        self, space: Space, goals: tuple[Goal, ...], seed: int, sampler: str, path: Path | None
    ) -> None:
        self.optuna = _optuna()
        self.space, self.goals, self.seed, self.sampler = space, goals, seed, sampler
        self.distributions = {
            name: self.optuna.distributions.CategoricalDistribution(values)
            for name, values in space.choices.items()
        }
        identity = key_of(
            {
                "space": space.described(),
                "goals": [goal.name for goal in goals],
                "seed": seed,
                "sampler": sampler,
                "starts": [] if sampler == CHANCE else list(space.starts),
            }
        )
        directions = ["maximize" if goal.largest else "minimize" for goal in goals]
        self.kept = None if path is None else self._opened(path, identity, directions)
        # Proposed and tried in memory, and written when it is over, in one piece: a process that is
        # killed leaves whole trials, and the one it was at is proposed again.
        self.study = self.optuna.create_study(directions=directions)
        before = self.kept.get_trials(deepcopy=False) if self.kept is not None else ()
        self.study.add_trials([each for each in before if each.state.is_finished()])

    def _opened(self, path: Path, identity: str, directions: Sequence[str]) -> Any:
        optuna = self.optuna
        try:
            storage = optuna.storages.JournalStorage(
                optuna.storages.journal.JournalFileBackend(str(path))
            )
            found = optuna.create_study(
                storage=storage, study_name="energysim", directions=directions, load_if_exists=True
            )
        except (OSError, ValueError, KeyError) as error:
            raise InputError(f"can't be used as a study: {error}", where=str(path)) from None
        known = found.user_attrs.get("identity")
        if known is None and not found.trials:
            found.set_user_attr("identity", identity)
        elif known != identity:
            raise InputError(
                "holds another study: other fields, values, goals, seed, sampler, network or"
                " hardware. Name another file with --study, or remove this one",
                where=str(path),
            )
        return found

    def tried(self, trials: int, cache: Cache | None) -> Iterator[int]:
        """Try designs until there are enough."""
        yield len(self.study.trials)
        while len(self.study.trials) < trials:
            number = len(self.study.trials)
            # Of its own for each trial, so that what comes next depends on the file alone.
            self.study.sampler = self._sampler(number)
            self._evaluate(self.study.ask(self.distributions), cache)
            if self.kept is not None:
                self.kept.add_trial(self.study.trials[number])
            yield len(self.study.trials)

    def _sampler(self, number: int) -> Any:
        own = int(np.random.SeedSequence([self.seed, number]).generate_state(1)[0])
        samplers = self.optuna.samplers
        if self.sampler == CHANCE:
            return samplers.RandomSampler(seed=own)
        found = (
            samplers.TPESampler(seed=own, multivariate=False)
            if self.sampler == "tpe"
            else _in_order(samplers.NSGAIISampler)(population_size=POPULATION, seed=own)
        )
        starts = self.space.starts
        if number >= len(starts):
            return found
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", self.optuna.exceptions.ExperimentalWarning)
            return samplers.PartialFixedSampler(starts[number], found)

    def _evaluate(self, trial: Any, cache: Cache | None) -> None:
        try:
            result = self.space.run(trial.params, cache)
        except (DoesNotFitError, InputError) as error:
            trial.set_user_attr("note", str(error))
            self.study.tell(trial, state=self.optuna.trial.TrialState.FAIL)
        else:
            self.study.tell(trial, [goal.measure(result) for goal in self.goals])

    def finished(self) -> tuple[Trial, ...]:
        """All trials that are over."""
        return tuple(
            Trial(
                each.number,
                dict(each.params),
                None if each.values is None else tuple(each.values),
                each.user_attrs.get("note", ""),
            )
            for each in self.study.get_trials(deepcopy=False)
            if each.state.is_finished()
        )


def _in_order(sampler: Any) -> Any:
    """Give a genetic sampler its parents always by number.

    It keeps them in memory, and has them in another order when it selects them than when it looks
    them up: a study that goes on from its file would propose something else.
    """

    class InOrder(sampler):  # type: ignore[misc]
        def get_parent_population(self, study: Any, generation: int) -> list[Any]:
            found = super().get_parent_population(study, generation)
            return sorted(found, key=lambda each: each.number)

    return InOrder


def _is_journal(path: Path) -> bool:
    """Whether Optuna may write to a file: it is new, or begins as its journals do.

    Raises
    ------
    InputError
        If it can't be read.
    """
    try:
        if not path.exists():
            return True
        with path.open("rb") as file:
            first = file.readline(MOST_BYTES)
    except OSError as error:
        raise InputError(f"can't be read: {error.strerror}", where=str(path)) from None
    try:
        return not first or "op_code" in json.loads(first)
    except (ValueError, TypeError):
        return False


def _optuna() -> Any:
    try:
        import optuna
        import optuna.storages.journal
    except ImportError:
        raise MissingExtraError(
            "the search needs Optuna, which is not installed: pip install 'energysim[search]'"
        ) from None
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna
