"""Pruning an untrained network to a share of its weights: which ones stay, and what of each layer.

A method scores weights, and the best of the whole network stay; SynFlow does so again and again,
so that no layer is emptied before the others (Tanaka et al., NeurIPS 2020, algorithm 1).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from math import floor, log10
from typing import Any

import numpy as np
import numpy.typing as npt

from energysim.axes import Dim
from energysim.errors import EnergysimError, InputError
from energysim.errors import did_you_mean as hint
from energysim.network import Layer, Network
from energysim.network.liveness import Liveness, liveness
from energysim.prune.scores import (
    Grasp,
    Live,
    Score,
    Snip,
    Start,
    SynFlow,
    chance,
    magnitude,
)
from energysim.train.data import Batch
from energysim.train.engine import one_blas_thread
from energysim.train.parameters import Init, start
from energysim.train.scratch import Floats

STEPS = {"synflow": 100, "snip": 1, "grasp": 1, "magnitude": 1, "random": 1,
         "uniform": 1, "erdos_renyi": 1}  # fmt: skip
"""Methods, and how often each scores what is left, as in the experiments of SynFlow's authors."""

METHODS = tuple(STEPS)
BY_DATA = frozenset({"snip", "grasp"})
"""Methods that look at images."""

BY_LAYER = frozenset({"uniform", "erdos_renyi"})
"""Methods with a share for each layer; within it chance decides."""

SCHEDULES = ("exponential", "linear")


class CollapseError(EnergysimError):
    """A layer has no weight left."""

    exit_code = 3


@dataclass(frozen=True, slots=True)
class Kept:
    """What is left of a layer."""

    layer: Layer
    before: int
    """live weights before"""
    live: int
    """weights that stay"""
    flow: float | None
    """sum of its scores before anything was pruned; None by a method that gives none"""

    @property
    def density(self) -> float:
        """Share of the weights that stay."""
        return self.live / self.before

    @property
    def effective_macs(self) -> int:
        """Multiply-accumulates that are left, for one image."""
        return self.live * self.layer.shape[Dim.P] * self.layer.shape[Dim.Q]

    @property
    def macs(self) -> int:
        """Those before."""
        return self.before * self.layer.shape[Dim.P] * self.layer.shape[Dim.Q]


@dataclass(frozen=True)
class Pruned:
    """A network with what a method leaves of it."""

    dense: Network = field(repr=False)
    """as given"""
    method: str
    density: float
    """that was asked for"""
    steps: int
    schedule: str
    seed: int
    masks: Mapping[str, npt.NDArray[np.bool_]] = field(repr=False)
    """of each layer with weights, ``[G, K, C, R, S]``"""
    layers: tuple[Kept, ...] = field(repr=False)

    @property
    def live(self) -> int:
        """Weights that stay."""
        return sum(each.live for each in self.layers)

    @property
    def weights(self) -> int:
        """Weights before."""
        return sum(each.before for each in self.layers)

    @property
    def mac_density(self) -> float:
        """Share of the multiply-accumulates that is left."""
        macs = sum(each.macs for each in self.layers)
        return sum(each.effective_macs for each in self.layers) / macs

    @cached_property
    def liveness(self) -> Liveness:
        """Which channels the masks leave something to do; the others are dead neurons."""
        return liveness(self.dense, masks=self.masks)

    @property
    def clean_mac_density(self) -> float:
        """Share of the multiply-accumulates that is left without those of dead neurons."""
        return self.liveness.macs / sum(each.macs for each in self.layers)

    @property
    def collapsed(self) -> tuple[str, ...]:
        """Layers that nothing is left of: no image gets through them."""
        return tuple(each.layer.name for each in self.layers if not each.live)

    @property
    def network(self) -> Network:
        """The network with its masks, to be counted or trained.

        Raises
        ------
        CollapseError
            If a layer has no weight left.
        """
        if self.collapsed:
            names = ", ".join(self.collapsed)
            raise CollapseError(
                f"{self.dense.name} at a density of {self.density:g} by {self.method}: nothing is"
                f" left of {names}. Try a larger density, synflow, or to keep one weight a layer"
            )
        return self.dense.with_masks(self.masks)

    def rows(self) -> list[dict[str, Any]]:
        """A record a layer; ``clean`` is what is left where dead neurons are removed."""
        found = self.liveness
        return [
            {
                "layer": each.layer.name,
                "weights": each.before,
                "live": each.live,
                "density": each.density,
                "macs": each.macs,
                "effective_macs": each.effective_macs,
                "channels": each.layer.output[0],
                "dead_channels": int((~found.live(each.layer.name)).sum()),
                "clean_weights": found.weights[each.layer.name],
                "clean_macs": found.macs_of(each.layer),
                "score_sum": each.flow,
            }
            for each in self.layers
        ]


def prune(
    network: Network,
    method: str = "synflow",
    density: float = 0.1,
    *,
    steps: int | None = None,
    schedule: str = "exponential",
    seed: int = 0,
    init: Init = Init.HE,
    batch: Batch | None = None,
    keep_one: bool = False,
    begun: Start | None = None,
    tell: Callable[[int], None] | None = None,
) -> Pruned:
    """Choose the weights that stay, before any training.

    Parameters
    ----------
    network : Network
        Weights that masks of its own leave out stay out.
    method : str
        One of :data:`METHODS`.
    density : float
        Share of the weights that stay, of the whole network.
    steps : int, optional
        How often what is left is scored anew; by default as :data:`STEPS` has it.
    schedule : str
        Share after step k of n: ``exponential``, density^(k/n), or ``linear``.
    seed : int
        Weights are those that a training with this seed begins with.
    init : Init
        How they are drawn.
    batch : Batch, optional
        Images that ``snip`` and ``grasp`` look at.
    keep_one : bool
        Never take the last weight of a layer.
    begun : Start, optional
        Of the network: the weights to look at, in place of those that the seed draws.
    tell : callable, optional
        Is told of the number of finished steps.

    Returns
    -------
    Pruned

    Raises
    ------
    InputError
        If the method is none, needs images, or a number is out of its range.

    Examples
    --------
    >>> from energysim.catalog import load_network
    >>> found = prune(load_network("digits_cnn"), "synflow", 0.1)
    >>> found.live, found.collapsed
    (1659, ())
    """
    _check_density(density)
    choice = _choice(
        network, method, steps, schedule, seed, init, batch, keep_one=keep_one, begun=begun
    )
    live, first = choice.at(density, tell=tell)
    return choice.pruned(density, live, first)


@dataclass(frozen=True)
class _Choice:
    """How the weights that stay are chosen, but for how many they are."""

    begun: Start
    method: str
    steps: int
    schedule: str
    seed: int
    keep_one: bool
    score: Score | None
    """None of a method with a share for each layer"""
    chance: np.random.SeedSequence

    def at(
        self,
        density: float,
        *,
        first: Floats | None = None,
        tell: Callable[[int], None] | None = None,
    ) -> tuple[Live, Floats]:
        """Choose a share of the weights.

        Parameters
        ----------
        density : float
        first : ndarray, shape (W,), optional
            Scores before anything is pruned, where they are known.
        tell : callable, optional
            Is told of the number of finished steps.

        Returns
        -------
        live : ndarray of bool, shape (W,)
        first : ndarray, shape (W,)
            Of a method with scores.
        """
        begun, rng = self.begun, np.random.default_rng(self.chance)
        if self.score is None:
            return _by_layer(begun, self.method, density, rng)
        live = begun.live
        for step in range(1, self.steps + 1):
            known = first if step == 1 else None
            scores = self._scores(live, rng) if known is None else known
            first = scores if step == 1 else first
            share = _share(density, step, self.steps, self.schedule)
            live = best(begun, scores, live, share, self.keep_one)
            if tell is not None:
                tell(step)
        assert first is not None  # there is at least one step
        return live, first

    def _scores(self, live: Live, rng: np.random.Generator) -> Floats:
        """Score what is live.

        Raises
        ------
        InputError
            If scores are too large to be numbers.
        """
        assert self.score is not None
        # Sums of several threads of BLAS would differ in their last bits with the number of cores.
        with one_blas_thread(), np.errstate(over="ignore", invalid="ignore"):  # told instead
            scores = self.score(self.begun, live, rng)
        if not np.isfinite(scores[live]).all():
            raise InputError(
                f"scores of {self.method} are no finite numbers: {self.begun.network.name} is too"
                " deep for it"
            )
        return scores

    def pruned(self, density: float, live: Live, first: Floats) -> Pruned:
        """Say what is left."""
        how = (self.method, density, self.steps, self.schedule, self.seed)
        return _pruned(self.begun, live, first, how)


def _choice(
    network: Network,
    method: str,
    steps: int | None = None,
    schedule: str = "exponential",
    seed: int = 0,
    init: Init = Init.HE,
    batch: Batch | None = None,
    *,
    keep_one: bool = False,
    begun: Start | None = None,
) -> _Choice:
    """Settings of :func:`prune`, checked, with what they begin with."""
    _check(method, steps, schedule, batch)
    many = STEPS[method] if steps is None else steps
    drawing, choosing = np.random.SeedSequence(seed).spawn(5)[::4]
    if begun is None:
        begun = Start.of(network, start(network, np.random.default_rng(drawing), init))
    score = None if method in BY_LAYER else _score(method, begun, batch)
    return _Choice(begun, method, many, schedule, seed, keep_one, score, choosing)


def _check_density(density: float) -> None:
    """Refuse what is no share.

    Raises
    ------
    InputError
    """
    if not 0 < density <= 1:
        raise InputError(f"the density is a share above 0 and up to 1, got {density:g}")


def _check(method: str, steps: int | None, schedule: str, batch: Batch | None) -> None:
    """Refuse what can't be.

    Raises
    ------
    InputError
    """
    if method not in METHODS:
        raise InputError(
            f"no method named '{method}'.{hint(method, METHODS)} Known: {', '.join(METHODS)}"
        )
    if steps is not None and steps < 1:
        raise InputError(f"needs at least one step, got {steps}")
    if method in BY_LAYER and steps not in (None, 1):
        raise InputError(f"{method} does not look at the weights: one step is all there is")
    if schedule not in SCHEDULES:
        raise InputError(f"the schedule is one of {', '.join(SCHEDULES)}, got '{schedule}'")
    if method in BY_DATA and batch is None:
        raise InputError(f"{method} looks at images: name some")


def _score(method: str, begun: Start, batch: Batch | None) -> Score:
    if method == "synflow":
        return SynFlow(begun)
    if method in BY_DATA:
        assert batch is not None
        return (Snip if method == "snip" else Grasp)(begun, batch)
    return magnitude if method == "magnitude" else chance


def _share(density: float, step: int, steps: int, schedule: str) -> float:
    """Share of all weights that stays after a step."""
    if schedule == "linear":
        return 1 - (1 - density) * step / steps
    return float(density ** (step / steps))


def best(begun: Start, scores: Floats, live: Live, share: float, keep_one: bool) -> Live:
    """The best weights of the whole network; of equal ones those that stand first.

    Parameters
    ----------
    begun : Start
    scores : ndarray, shape (W,)
    live : ndarray of bool, shape (W,)
        Of which they are chosen.
    share : float
        Of all weights of the start.
    keep_one : bool
        The best one of each layer is among them.

    Returns
    -------
    ndarray of bool, shape (W,)
    """
    many = min(round(share * int(begun.live.sum())), int(live.sum()))
    kept = np.zeros_like(live)
    if keep_one:
        many = max(many, len(begun.layers))
        for slot in begun.layout.slots:
            own = np.where(live[slot.start : slot.stop], scores[slot.start : slot.stop], -np.inf)
            kept[slot.start + int(own.argmax())] = True
    left = np.flatnonzero(live & ~kept)
    wanted = many - int(kept.sum())
    if wanted >= left.size:
        return live.copy()
    if wanted > 0:
        values = scores[left]
        least = np.partition(values, left.size - wanted)[left.size - wanted]
        above = values > least
        equal = np.flatnonzero(values == least)[: wanted - int(above.sum())]
        kept[left[above]] = True
        kept[left[equal]] = True
    return kept


# -- shares by layer -------------------------------------------------------------------------------


def _by_layer(
    begun: Start, method: str, density: float, rng: np.random.Generator
) -> tuple[Live, Floats]:
    """Weights at random, so many of each layer; and no scores."""
    sizes = {
        layer.name: int(part.sum())
        for layer, part in zip(begun.layers, begun.parts(begun.live).values(), strict=True)
    }
    if method == "uniform":
        shares = dict.fromkeys(sizes, density)
    else:
        shares = erdos_renyi(begun.layers, sizes, density)
    live = np.zeros_like(begun.live)
    own, before = begun.parts(live), begun.parts(begun.live)
    for name, size in sizes.items():
        places = np.flatnonzero(before[name])
        own[name][rng.choice(places, round(shares[name] * size), replace=False)] = True
    return live, np.zeros(0)


def erdos_renyi(
    layers: tuple[Layer, ...], sizes: Mapping[str, int], density: float
) -> dict[str, float]:
    """Share of each layer: as its extents' sum is to their product, none above 1.

    Of a convolution the extents are filters, channels, and height and width of the kernel (Evci et
    al., ICML 2020, section 3, Erdos-Renyi-Kernel).

    Parameters
    ----------
    layers : tuple of Layer
    sizes : mapping of str to int
        Live weights of each.
    density : float
        Of all of them together.
    """
    raw = {}
    for layer in layers:
        extents = [layer.shape[dim] for dim in (Dim.K, Dim.C, Dim.R, Dim.S)]
        taps = extents[2:] if max(extents[2:]) > 1 else []
        raw[layer.name] = (sum(extents[:2]) + sum(taps)) / float(np.prod(extents))
    full: set[str] = set()
    while True:
        rest = [name for name in sizes if name not in full]
        wanted = density * sum(sizes.values()) - sum(sizes[name] for name in full)
        weight = sum(raw[name] * sizes[name] for name in rest)
        factor = wanted / weight if weight else 0.0
        above = {name for name in rest if raw[name] * factor > 1}
        if not above:
            return {name: 1.0 if name in full else raw[name] * factor for name in sizes}
        full |= above


# -- what is left ----------------------------------------------------------------------------------


def _pruned(
    begun: Start, live: Live, first: Floats, how: tuple[str, float, int, str, int]
) -> Pruned:
    method, density, steps, schedule, seed = how
    masks = {name: np.array(mask, np.bool_) for name, mask in begun.views(live).items()}
    before = begun.parts(begun.live)
    flows = begun.parts(first) if first.size else {}
    layers = tuple(
        Kept(
            layer,
            int(before[layer.name].sum()),
            int(masks[layer.name].sum()),
            float(flows[layer.name].sum()) if flows else None,
        )
        for layer in begun.layers
    )
    return Pruned(begun.network, method, density, steps, schedule, seed, masks, layers)


def critical_compression(
    network: Network,
    method: str,
    *,
    quarter: int = 4,
    tell: Callable[[int, int, float], None] | None = None,
    **settings: Any,
) -> Iterator[tuple[float, tuple[str, ...]]]:
    """Compressions by steps of 10^(1/quarter), and the layers that each leaves nothing of.

    Parameters
    ----------
    network : Network
    method : str
    quarter : int
        Steps to a factor of 10.
    tell : callable, optional
        Is told of the compression that is tried: its number, how many there can be, and itself.
    **settings
        Of :func:`prune`.

    Yields
    ------
    compression : float
    collapsed : tuple of str
        Empty as far as the critical compression. The last compression is the first one above one
        weight a layer, at which no method can keep all of them.
    """
    choice = _choice(network, method, **settings)
    weights, layers = int(choice.begun.live.sum()), len(choice.begun.layers)
    last = floor(log10(weights / layers) * quarter) + 1
    first = None
    for step in range(last + 1):
        compression = 10 ** (step / quarter)
        if tell is not None:
            tell(step, last + 1, compression)
        # Rounded down: else fewer weights than layers might become as many.
        density = max(1, floor(weights / compression)) / weights
        live, scores = choice.at(density, first=first)
        first = scores if choice.steps == 1 and scores.size else None
        own = choice.begun.parts(live)
        yield compression, tuple(name for name, part in own.items() if not part.any())
