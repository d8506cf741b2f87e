"""Every method trained in the same way: the runs that are needed, done before or now."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import numpy as np

from energysim.catalog import FILE_SIZE, load_network
from energysim.errors import EnergysimError
from energysim.lowrank import lower
from energysim.methods.named import (
    DENSE,
    DNR_CHANNELS,
    NARROW,
    REWIRED,
    TUCKER2,
    Family,
    Method,
    narrowed,
)
from energysim.network import Network, Scale
from energysim.prune import BY_DATA, Start, prune
from energysim.prune import METHODS as PRUNING
from energysim.sparsity import get_pattern
from energysim.sparsity.maskfile import MaskFile
from energysim.train.attacked import Strike, settings
from energysim.train.attacks import Attack
from energysim.train.data import Batch, Dataset, in_order
from energysim.train.grid import Row, run_all
from energysim.train.job import NUMPY, Job
from energysim.train.parameters import start
from energysim.train.recipe import Recipe, Rewire
from energysim.train.record import MASKS, WEIGHTS_FILE
from energysim.train.rewire import Mode
from energysim.train.run import Tell
from energysim.train.shrunk import shrunk_with
from energysim.train.weights import Weights

PER_CLASS = 10
"""Images of each class that SNIP and GraSP look at, as in the experiments of SynFlow's authors."""


@dataclass(frozen=True)
class Setting:
    """What all methods have in common."""

    load: Callable[[str | None, float], Network]
    """gives a network by name, None for the one that is made cheap, at a factor of its width"""
    data: Dataset
    recipe: Recipe
    seeds: tuple[int, ...]
    out: Path
    """folder of runs"""
    backend: str = NUMPY
    threads: int | None = None
    device: str = "cpu"
    attack: Attack | None = None
    """that accuracy is measured under too"""
    attacked: int | None = None
    """test images that are attacked, from the first; by default all"""
    shrink: bool = False
    """count networks as they are used without the channels that do nothing"""

    @classmethod
    def of(
        cls,
        net: str,
        data: Dataset,
        recipe: Recipe,
        *,
        seeds: Sequence[int] = (0,),
        out: Path,
        scale: Scale = FILE_SIZE,
        threads: int | None = None,
        attack: Attack | None = None,
        attacked: int | None = None,
    ) -> Setting:
        """Take a network by name or path, with as many classes as the images have.

        Other networks that are asked for read images of the same size.

        Parameters
        ----------
        net : str
        data : Dataset
        recipe : Recipe
        seeds : sequence of int
        out : Path
            Folder of runs.
        scale : Scale
            Of the network.
        threads : int, optional
            Cores to train with.
        attack : Attack, optional
            Measure accuracy under it too.
        attacked : int, optional
            Attack the first so many test images; by default all.
        """
        classes = len(data.classes)

        def load(name: str | None, width: float) -> Network:
            if name is None:
                own = Scale(scale.width * width, scale.side, classes)
                return load_network(net, scale=own)
            side = scale.side or load_network(net).input_size[1]
            return load_network(name, scale=Scale(width, side, classes))

        return cls(
            load, data, recipe, tuple(seeds), out, threads=threads, attack=attack, attacked=attacked
        )

    @property
    def network(self) -> Network:
        """That is made cheap."""
        return self.load(None, 1.0)


@dataclass(frozen=True)
class Trained:
    """A method with a seed: the network as it stands in use, and how well it tells images apart."""

    method: Method
    seed: int
    network: Network = field(repr=False)
    """as it was trained"""
    top1: float
    jobs: tuple[Job, ...] = field(repr=False)
    """all runs it took, its own last"""
    epochs: tuple[int, ...]
    """that each of them was trained"""
    robust: float | None = None
    """share of attacked images that is told right, where some were"""
    small: Network | None = field(default=None, repr=False)
    """that network without the channels that do nothing, with the same scores; None where it was
    not asked for, or all do something"""

    @property
    def used(self) -> Network:
        """The network whose costs in use count."""
        return self.small or self.network


@dataclass(frozen=True)
class Failed:
    """A method with a seed that came to nothing."""

    method: Method
    seed: int
    why: str


def train_all(
    methods: Sequence[Method],
    setting: Setting,
    *,
    tell: Tell | None = None,
    begin: Callable[[Method, Job], None] | None = None,
    struck: Callable[[Strike], None] | None = None,
) -> Iterator[Trained | Failed]:
    """Train each method with each seed, or find the run that was done before.

    Parameters
    ----------
    methods : sequence of Method
    setting : Setting
    tell : callable, optional
        Is told of every step and epoch of a run.
    begin : callable, optional
        Is told of each run before it begins, and of the method that needs it.
    struck : callable, optional
        Is told of every batch of attacked images.

    Yields
    ------
    Trained or Failed
        A method with all seeds, then the next one.
    """
    for method in methods:
        for seed in setting.seeds:
            try:
                yield _trained(method, seed, setting, tell, begin, struck)
            except EnergysimError as error:
                yield Failed(method, seed, str(error))


def _trained(
    method: Method,
    seed: int,
    setting: Setting,
    tell: Tell | None,
    begin: Callable[[Method, Job], None] | None,
    struck: Callable[[Strike], None] | None,
) -> Trained:
    """Train one.

    Raises
    ------
    EnergysimError
        If there is no such network, or training comes to nothing.
    """

    def done(job: Job, attacks: Sequence[Attack] = ()) -> tuple[Path, Row]:
        (attempt,) = run_all(
            [job], setting.out, threads=setting.threads, device=setting.device, tell=tell,
            attacks=attacks, attacked=setting.attacked, struck=struck,
            begin=None if begin is None else partial(begin, method),
        )  # fmt: skip
        if attempt.problem is not None:
            raise attempt.problem
        assert attempt.row is not None
        return setting.out / job.name, attempt.row

    def job(network: Network, recipe: Recipe, weights: Weights | None = None) -> Job:
        return Job(network, setting.data, recipe, seed, setting.backend, weights)

    before: tuple[tuple[Job, Row], ...] = ()
    recipe, weights = setting.recipe.model_copy(update={"rewire": None}), None
    if method.name == TUCKER2:
        assert method.density is not None
        first = job(setting.network, recipe)
        folder, row = done(first)
        low = lower(
            setting.network, method.density, "error", cost="parameters",
            weights=Weights.load(folder / WEIGHTS_FILE),
        )  # fmt: skip
        before, network, weights = ((first, row),), low.network, low.weights
    elif method.name in REWIRED:
        assert method.density is not None
        network = setting.network
        mode = Mode.CHANNEL if method.name == DNR_CHANNELS else Mode.IRREGULAR
        how = (setting.recipe.rewire or Rewire()).model_copy(
            update={"density": method.density, "mode": mode}
        )
        recipe = recipe.model_copy(update={"rewire": how})
    else:
        network = network_of(method, seed, setting)
    own = job(network, recipe, weights)
    attack = setting.attack
    folder, row = done(own, () if attack is None else (attack,))
    if method.name in REWIRED:
        network = network.with_masks(MaskFile.open(folder / MASKS))
    robust = None if attack is None else _robust(row, attack, setting)
    jobs, rows = zip(*before, (own, row), strict=True)
    epochs = tuple(int(each["epochs"]) for each in rows)
    small = _small(network, Weights.load(folder / WEIGHTS_FILE)) if setting.shrink else None
    return Trained(method, seed, network, row["top1"], jobs, epochs, robust, small)


def _small(network: Network, weights: Weights) -> Network | None:
    """A trained network without the channels that do nothing, if there are any."""
    found, _ = shrunk_with(network, weights)
    same = not found.removed and all(
        found.network.layer(layer.name).shape == layer.shape for layer in network.layers
    )
    return None if same else found.network


def _robust(row: Row, attack: Attack, setting: Setting) -> float:
    """Find the accuracy under an attack in a record."""
    images = min(setting.attacked or len(setting.data.test), len(setting.data.test))
    asked = settings(attack, images)
    (found,) = (each for each in row["robust"] if all(each[word] == asked[word] for word in asked))
    return float(found["robust_top1"])


def network_of(method: Method, seed: int, setting: Setting) -> Network:
    """Make the network of a method that decides before training.

    Raises
    ------
    InputError
        If there is none.
    """
    density = method.density
    if method.name == DENSE:
        return setting.network
    if method.name in PRUNING:
        assert density is not None
        return prune(
            setting.network, method.name, density, seed=seed,
            begun=_begun(setting, seed),
            batch=_looked_at(method, setting),
        ).network  # fmt: skip
    if method.name == NARROW:
        assert density is not None
        return narrowed(lambda width: setting.load(None, width),
                        density * setting.network.parameters)  # fmt: skip
    if method.family is Family.DENSE:
        return setting.load(method.name, method.width)
    return reseeded(setting.network.with_pattern(method.name), seed)


def _begun(setting: Setting, seed: int) -> Start:
    """Weights that training begins with."""
    recipe = setting.recipe
    rng = np.random.default_rng(np.random.SeedSequence(seed).spawn(1)[0])
    vector = start(setting.network, rng, recipe.init, gamma=recipe.gamma)
    return Start.of(setting.network, vector)


def reseeded(network: Network, seed: int) -> Network:
    """Draw the supports of random patterns and N:M anew; those of seed 0 are the network's own."""
    many = len(network.layers)
    layers = tuple(
        replace(layer, seed=layer.seed + seed * many)
        if get_pattern(layer.pattern).seeded
        else layer
        for layer in network.layers
    )
    return replace(network, layers=layers)


def _looked_at(method: Method, setting: Setting) -> Batch | None:
    """Images that a method of pruning looks at."""
    if method.name not in BY_DATA:
        return None
    some = setting.data.subset(per_class=PER_CLASS)
    many = PER_CLASS * len(setting.data.classes)
    return next(in_order(some, some.train, many, read=setting.network.input_size[:2]))


def by_method(found: Sequence[Trained]) -> Mapping[Method, tuple[Trained, ...]]:
    """Group by method, in order."""
    groups: dict[Method, list[Trained]] = {}
    for each in found:
        groups.setdefault(each.method, []).append(each)
    return {method: tuple(each) for method, each in groups.items()}
