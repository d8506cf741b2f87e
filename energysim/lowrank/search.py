"""Ranks learnt together with the weights, as in HALOC, with the cost of our own model.

Every layer is a mixture of itself at several ranks, weighted by gates; gates learn on the loss
times what the network costs above its budget, weights on the loss, in turns (Xiao et al., AAAI
2023; what it leaves open follows ComCAT of the same group, Xiao et al., ICML 2023: Gumbel-softmax
gates with a falling temperature, the exponent of the cost, the matching of feature maps).

A sum of convolutions of one input is the convolution by the sum of their kernels, so that the
mixture costs no more than the dense network: in the bases of the channels, a rank is a corner of
the kernel, and the gates weight nested corners.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from math import cos, isfinite, pi
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from energysim.errors import InputError
from energysim.lowrank.ranks import Choice, Menu, cheapest
from energysim.lowrank.tucker import CORE, REDUCE, Floats, Ranks, bases, tucker2, with_ranks
from energysim.network import LayerKind, Network
from energysim.train import ops
from energysim.train.checkpoint import Checkpoint
from energysim.train.data import Batch, Dataset, batches
from energysim.train.engine import Score, State, no_warnings, one_blas_thread, score
from energysim.train.job import digest
from energysim.train.model import Model, Trace
from energysim.train.ops import MOMENTUM, Statistics
from energysim.train.parameters import MEAN, VARIANCE, WEIGHT, Arrays, normalised_layers
from energysim.train.recipe import Recipe
from energysim.train.run import DivergedError
from energysim.train.weights import Weights

ENDS = 2
"""Layers at either end whose outputs are matched to those of the given network."""

GATE = "gate."
"""Begins the names of arrays of the gates in a file that keeps a search."""

LEAST_EPOCHS = 2

LEAST_MATCHING = 0.01
"""Share of the matching that is left at the end."""


@dataclass(frozen=True, slots=True)
class Settings:
    """How ranks are learnt."""

    gate_lr: float = 0.05
    """learning rate of the gates (Adam); ComCAT has 0.01 and 30 long epochs, here there are few"""
    hot: float = 5.0
    """temperature of the gates in the first epoch"""
    cold: float = 0.1
    """temperature in the last"""
    exponent: float = 1.5
    """of the cost over its budget, which the loss is multiplied with"""
    matching: float = 0.5
    """weight of the mean squared difference of feature maps in the first epoch; it falls along a
    quarter of a cosine; 0: none"""


@dataclass(frozen=True)
class Found:
    """What a search came to."""

    choice: Choice
    probabilities: Mapping[str, npt.NDArray[np.float64]]
    """of each layer's ranks"""
    weights: Weights
    """of the network in whose kernels the ranks hold, as of the one that was given"""
    losses: tuple[float, ...] = field(default=())
    """mean loss of each epoch of weights [nat]"""


# -- gates -----------------------------------------------------------------------------------------


def gates(a: npt.NDArray[np.float64], temperature: float) -> npt.NDArray[np.float64]:
    """Weights of the ranks of a layer: softmax(a / temperature).

    Parameters
    ----------
    a : ndarray, shape (M,)
        With noise added to it where one is drawn (Jang et al., ICLR 2017, equation 1).
    temperature : float

    Examples
    --------
    >>> gates(np.array([1.0, 0.0]), 0.01).round(6).tolist()
    [1.0, 0.0]
    """
    shifted = (a - a.max()) / temperature
    powers = np.exp(shifted)
    share: npt.NDArray[np.float64] = powers / powers.sum()
    return share


def gates_backward(
    g: npt.NDArray[np.float64], dg: npt.NDArray[np.float64], temperature: float
) -> npt.NDArray[np.float64]:
    """Gradient of what the gates are made of, from their own.

    Parameters
    ----------
    g, dg : ndarray, shape (M,)
    temperature : float
    """
    da: npt.NDArray[np.float64] = g * (dg - float((g * dg).sum())) / temperature
    return da


def excess(cost: float, budget: float, exponent: float) -> tuple[float, float]:
    """What the loss is multiplied with, and its derivative by the cost.

    (cost / budget)^exponent above the budget, else 1.

    Examples
    --------
    >>> excess(4.0, 1.0, 0.5), excess(0.5, 1.0, 0.5)
    ((2.0, 0.25), (1.0, 0.0))
    """
    ratio = cost / budget
    if ratio <= 1:
        return 1.0, 0.0
    return ratio**exponent, exponent * ratio ** (exponent - 1) / budget


# -- a layer in the bases of its channels ----------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Corners:
    """A kernel seen in bases of its channels, in which each rank is a corner of it."""

    of_input: Floats
    """shape (C, C)"""
    of_output: Floats
    """shape (K, K)"""
    ranks: tuple[Ranks | None, ...]

    @classmethod
    def of(cls, kernel: Floats, ranks: tuple[Ranks | None, ...]) -> Corners:
        """Take the bases of a kernel, ``[K, C, R, S]``."""
        of_input, of_output = bases(kernel.astype(np.float64))
        return cls(of_input.astype(kernel.dtype), of_output.astype(kernel.dtype), ranks)

    def inward(self, kernel: Floats) -> Floats:
        """From channels to the bases."""
        return _turned(kernel, self.of_output.T, self.of_input.T)

    def outward(self, core: Floats) -> Floats:
        """From the bases to channels."""
        return _turned(core, self.of_output, self.of_input)

    def weighted(self, g: npt.NDArray[np.float64]) -> Floats:
        """Weight of each entry of the core: the sum of the gates of all ranks that hold it.

        Returns
        -------
        ndarray, shape (K, C, 1, 1)
        """
        shape = (len(self.of_output), len(self.of_input))
        total = np.zeros(shape, self.of_input.dtype)
        for weight, ranks in zip(g, self.ranks, strict=True):
            first, second = shape[::-1] if ranks is None else ranks
            total[:second, :first] += weight
        return total[:, :, None, None]

    def gradients(self, dkernel: Floats, core: Floats) -> npt.NDArray[np.float64]:
        """Gradient of each gate, from that of the mixed kernel.

        Parameters
        ----------
        dkernel : ndarray, shape (K, C, R, S)
        core : ndarray, shape (K, C, R, S)
            The kernel in the bases.
        """
        each = (self.inward(dkernel) * core).sum(axis=(2, 3), dtype=np.float64)
        return np.array(
            [float((each if ranks is None else each[: ranks[1], : ranks[0]]).sum())
             for ranks in self.ranks]
        )  # fmt: skip


def _turned(kernel: Floats, of_output: Floats, of_input: Floats) -> Floats:
    filters, channels, height, width = kernel.shape
    half = of_output @ kernel.reshape(filters, -1)
    whole: Floats = np.matmul(of_input, half.reshape(len(of_output), channels, height * width))
    return whole.reshape(len(of_output), len(of_input), height, width)


# -- the search ------------------------------------------------------------------------------------


def search(
    menu: Menu,
    budget: float,
    begin: Weights,
    data: Dataset,
    recipe: Recipe,
    settings: Settings | None = None,
    *,
    seed: int = 0,
    path: Path | None = None,
    tell: Callable[[int, int, float], None] | None = None,
) -> Found:
    """Learn the ranks of a network's layers.

    Each epoch trains the weights at the ranks that the gates prefer, and, from the second on, then
    the gates at fixed weights. At the end each layer takes a rank so that the product of their
    probabilities is the largest within the budget.

    Parameters
    ----------
    menu : Menu
        Ranks and costs.
    budget : float
        Cost of the whole network.
    begin : Weights
        Of the network, trained or not.
    data : Dataset
    recipe : Recipe
        Of the weights; its epochs are those of the search. Batches are not cut into shards.
    settings : Settings, optional
    seed : int
        Of order, augmentation and gates.
    path : Path, optional
        Of a file that keeps the search after each epoch; it goes on from there.
    tell : callable, optional
        Is told of finished steps, of all steps, and of the last loss.

    Raises
    ------
    InputError
        If the weights are of another network, no ranks are within the budget, the file is of
        another search, the recipe has what a search does not do or less than two epochs, or the
        network has mixture norms.
    DivergedError
        If the loss is no number any more.
    KeyboardInterrupt
        When interrupted; says what is kept.
    """
    _check(menu.network, recipe)
    menu.budget(min(1.0, budget / menu.dense))  # refuses one that no ranks are within
    with one_blas_thread():
        found = _Search(menu, budget, begin, data, recipe, settings or Settings(), seed, path)
        try:
            return found.run(tell)
        except KeyboardInterrupt:
            raise KeyboardInterrupt(found.kept()) from None


def _check(network: Network, recipe: Recipe) -> None:
    """Refuse what a search does not do.

    Raises
    ------
    InputError
    """
    if recipe.epochs < LEAST_EPOCHS:
        raise InputError(
            f"a search takes {LEAST_EPOCHS} epochs or more, as gates learn from the second on, got"
            f" {recipe.epochs}"
        )
    others = ("rewire", "adversarial", "validation", "stop_after")
    for word in others:
        if getattr(recipe, word):
            raise InputError(f"a search does without {word}: leave it out of the recipe")
    if any(layer.kind == LayerKind.MIXTURE_NORM for layer in network.layers):
        raise InputError(f"{network.name} has mixture norms, whose statistics a search loses")


class _Search:
    def __init__(
        self,
        menu: Menu,
        budget: float,
        begin: Weights,
        data: Dataset,
        recipe: Recipe,
        settings: Settings,
        seed: int,
        path: Path | None,
    ) -> None:
        self.menu, self.budget, self.data = menu, budget, data
        self.recipe, self.settings = recipe, settings
        self.model = Model.of(menu.network, batch=recipe.batch)
        self.weights, self.running = begin.fitted(menu.network)
        self.given = self.weights.copy()
        self.gradient = np.empty_like(self.weights)
        self.memory = recipe.rule.start(self.weights)
        sources = np.random.SeedSequence(seed).spawn(3)
        words = ("order", "changes", "noise")
        self.chance = {word: np.random.default_rng(own)
                       for word, own in zip(words, sources, strict=True)}  # fmt: skip
        self.a = {name: np.full(len(each), 1 / len(each)) for name, each in menu.costs.items()}
        self.adam = {name: (np.zeros_like(a), np.zeros_like(a)) for name, a in self.a.items()}
        self.gate_steps = 0
        self.corners: dict[str, Corners] = {}
        names = list(menu.costs)
        self.matched = list(dict.fromkeys(names[:ENDS] + names[-ENDS:]))
        self.losses: tuple[float, ...] = ()
        self.path = path
        self.identity = digest(
            {
                "network": menu.network.counted(),
                "costs": {name: each.tolist() for name, each in menu.costs.items()},
                "ranks": menu.ranks,
                "budget": budget,
                "begin": begin.sha256,
                "data": data.sha256,
                "recipe": recipe.model_dump(mode="json"),
                "settings": asdict(settings),
                "seed": seed,
            }
        )
        if path is not None and path.exists():
            self._resume(Checkpoint.load(path, self.identity))

    def run(self, tell: Callable[[int, int, float], None] | None) -> Found:
        epochs = self.recipe.epochs
        steps = -(-len(self.data.train) // self.recipe.batch)
        for epoch in range(len(self.losses), epochs):
            done = steps * max(0, 2 * epoch - 1)

            def told(step: int, loss: float, done: int = done) -> None:
                if tell is not None:
                    tell(done + step, steps * (2 * epochs - 1), loss)

            self._epoch(epoch, steps, told)
            if self.path is not None:
                self._checkpoint().save(self.path)
        return self._found()

    def kept(self) -> str:
        """What an interruption leaves."""
        done, of = len(self.losses), self.recipe.epochs
        if self.path is None or not done:
            return f"epoch {done + 1} of {of} was not finished, and nothing is kept."
        return f"{done} of {of} epochs are kept in {self.path}; the same command goes on."

    def _epoch(self, epoch: int, steps: int, told: Callable[[int, float], None]) -> None:
        self._look()
        summed, done = Score(), 0
        for number, batch in enumerate(self._batches()):
            got = self._learn_weights(batch, self._rate(epoch, number, steps), epoch)
            self._check(got, "weights", epoch, number)
            summed += got
            done += 1
            told(done, got.loss / got.images)
        if epoch:
            self._look()
            for number, batch in enumerate(self._batches()):
                got = self._learn_gates(batch, self._temperature(epoch))
                self._check(got, "gates", epoch, number)
                done += 1
                told(done, got.loss / got.images)
        self.losses += (summed.loss / summed.images,)

    def _rate(self, epoch: int, step: int, steps: int) -> float:
        return self.recipe.learning_rate(epoch, step, steps, self.losses)

    def _checkpoint(self) -> Checkpoint:
        own: Arrays = {"gate_steps": np.array([float(self.gate_steps)])}
        for name, a in self.a.items():
            first, second = self.adam[name]
            own |= {f"{GATE}{name}": np.stack([a, first, second])}
        state = State(self.weights, self.memory | own, self.running)
        chance = {word: each.bit_generator.state for word, each in self.chance.items()}
        records = tuple({"loss": each} for each in self.losses)
        return Checkpoint(self.identity, state, chance, records)

    def _resume(self, found: Checkpoint) -> None:
        memory = dict(found.state.memory)
        self.gate_steps = int(memory.pop("gate_steps")[0])
        for name in self.a:
            a, first, second = memory.pop(f"{GATE}{name}").astype(np.float64)
            self.a[name], self.adam[name] = a.copy(), (first.copy(), second.copy())
        self.weights, self.running = found.state.weights, dict(found.state.running)
        self.memory = memory
        self.losses = tuple(each["loss"] for each in found.records)
        for word, state in found.generators.items():
            self.chance[word].bit_generator.state = state

    def _found(self) -> Found:
        shares = {name: gates(a, 1.0) for name, a in self.a.items()}  # as noise draws them
        unlikely = {name: -np.log(np.maximum(each, 1e-300)) for name, each in shares.items()}
        choice = cheapest(self.menu, unlikely, self.budget)
        self._look()
        mixed = self._mixed(
            {name: _one(place, len(shares[name])) for name, place in choice.items()}
        )
        views = self.model.layout.views(mixed)
        return Found(
            choice, shares, Weights.of(self.menu.network, views, self.running), self.losses
        )

    def _check(self, got: Score, word: str, epoch: int, step: int) -> None:
        if not isfinite(got.loss):
            raise DivergedError(
                f"{self.menu.network.name}: the loss is {got.loss / got.images} at step {step + 1}"
                f" of epoch {epoch + 1} ({word}). Try a smaller learning rate"
            )

    def _temperature(self, epoch: int) -> float:
        """Falls by the same factor each epoch."""
        hot, cold = self.settings.hot, self.settings.cold
        return float(hot * (cold / hot) ** (epoch / max(1, self.recipe.epochs - 1)))

    def _batches(self) -> Iterator[Batch]:
        found = batches(
            self.data,
            self.chance["order"],
            self.recipe.batch,
            1,
            changes=self.chance["changes"],
            augmentation=self.recipe.augmentation(self.data),
            read=self.menu.network.input_size[:2],
        )
        for shards in found:
            yield from shards

    def _kernel(self, vector: Floats, name: str) -> Floats:
        view: Floats = self.model.layout.views(vector)[f"{name}.{WEIGHT}"][0]
        return view

    def _look(self) -> None:
        """Take the bases of the kernels as they are now."""
        for name, ranks in self.menu.ranks.items():
            self.corners[name] = Corners.of(self._kernel(self.weights, name), ranks)

    def _mixed(self, g: Mapping[str, npt.NDArray[np.float64]]) -> Floats:
        """All weights, with mixtures in place of kernels."""
        vector = self.weights.copy()
        for name, corners in self.corners.items():
            core = corners.inward(self._kernel(self.weights, name)) * corners.weighted(g[name])
            self._kernel(vector, name)[...] = corners.outward(core)
        return vector

    # -- steps -------------------------------------------------------------------------------------

    def _passed(self, vector: Floats, batch: Batch, matching: float = 0.0) -> tuple[Score, Trace]:
        """A pass forward and back; the gradient of the mixed weights is left in its place."""
        views, x = self.model.layout.views(vector), batch.x
        with no_warnings():
            scores, trace = self.model.forward(views, x)
            loss, dscores = ops.cross_entropy(scores, batch.y, smoothing=self.recipe.smoothing)
            extra = self._matched(trace, x, matching) if matching else None
            self.model.backward(views, trace, dscores, self.gradient, extra=extra)
        return score(scores, batch.y, loss), trace

    def _matched(self, trace: Trace, x: Floats, matching: float) -> Arrays:
        """Gradients of the mean squared difference to the given network's feature maps."""
        _, wanted = self.model.forward(self.model.layout.views(self.given), x)
        found: Arrays = {}
        for name in self.matched:
            off = trace.outputs[name] - wanted.outputs[name]
            off *= 2 * matching / off.size
            found[name] = off
        return found

    def _learn_weights(self, batch: Batch, lr: float, epoch: int) -> Score:
        g = {name: _one(_preferred(a), len(a)) for name, a in self.a.items()}
        got, trace = self._passed(self._mixed(g), batch, self._matching(epoch))
        for name, corners in self.corners.items():
            into = self._kernel(self.gradient, name)
            into[...] = corners.outward(corners.inward(into) * corners.weighted(g[name]))
        self._follow(trace)
        with no_warnings():
            self.recipe.rule.step(
                self.weights, self.gradient, self.memory, lr, decayed=self.model.layout.weights
            )
        return got

    def _matching(self, epoch: int) -> float:
        if not self.settings.matching:
            return 0.0
        falling = cos(pi / 2 * epoch / self.recipe.epochs)
        return self.settings.matching * max(LEAST_MATCHING, falling)

    def _learn_gates(self, batch: Batch, temperature: float) -> Score:
        noisy = {name: a + self.chance["noise"].gumbel(size=len(a)) for name, a in self.a.items()}
        g = {name: gates(each, temperature) for name, each in noisy.items()}
        got, _ = self._passed(self._mixed(g), batch)
        cost = self.menu.rest + sum(float(self.menu.costs[name] @ g[name]) for name in g)
        factor, slope = excess(cost, self.budget, self.settings.exponent)
        loss = got.loss / got.images
        self.gate_steps += 1
        for name, corners in self.corners.items():
            core = corners.inward(self._kernel(self.weights, name))
            dg = factor * corners.gradients(self._kernel(self.gradient, name), core)
            dg += loss * slope * self.menu.costs[name]
            self._step_gate(name, gates_backward(g[name], dg, temperature))
        return got

    def _step_gate(self, name: str, da: npt.NDArray[np.float64]) -> None:
        """A step of Adam (Kingma and Ba, ICLR 2015, algorithm 1)."""
        first, second = self.adam[name]
        first += (1 - 0.9) * (da - first)
        second += (1 - 0.999) * (da**2 - second)
        rate = self.settings.gate_lr / (1 - 0.9**self.gate_steps)
        self.a[name] -= rate * first / (np.sqrt(second / (1 - 0.999**self.gate_steps)) + 1e-8)

    def _follow(self, trace: Trace) -> None:
        for layer in normalised_layers(self.model.network):
            mean, variance = f"{layer.name}.{MEAN}", f"{layer.name}.{VARIANCE}"
            before = Statistics(self.running[mean], self.running[variance])
            after = before.moved(trace.statistics[layer.name], trace.counts[layer.name], MOMENTUM)
            self.running[mean], self.running[variance] = after.mean, after.variance


def _preferred(a: npt.NDArray[np.float64]) -> int:
    """Place of the largest number; of equal ones the last, which is the largest rank."""
    return len(a) - 1 - int(np.argmax(a[::-1]))


def _one(place: int, many: int) -> npt.NDArray[np.float64]:
    found = np.zeros(many)
    found[place] = 1
    return found


# -- the network of low rank -----------------------------------------------------------------------


def factored(
    network: Network, weights: Weights, ranks: Mapping[str, Ranks]
) -> tuple[Network, Weights]:
    """Put three convolutions in place of some, with weights that come as near as ranks allow.

    Parameters
    ----------
    network : Network
    weights : Weights
        Of it.
    ranks : mapping of str to (R1, R2)

    Returns
    -------
    network : Network
        As :func:`~energysim.lowrank.with_ranks` has it.
    weights : Weights
        Of it; for ``energysim train --begin``.
    """
    low = with_ranks(network, ranks)
    arrays: dict[str, npt.NDArray[Any]] = {}
    for name, each in weights.arrays.items():
        layer, _, word = name.rpartition(".")
        if word != WEIGHT or layer not in ranks:
            arrays[name] = each
            continue
        parts = tucker2(each.astype(np.float64), ranks[layer])
        for own, part in zip(_names(layer), (parts.reduce, parts.core, parts.expand), strict=True):
            arrays[own] = part.reshape((*part.shape, 1, 1)[:4]).astype(each.dtype)
    return low, Weights(arrays, weights.where)


def _names(layer: str) -> tuple[str, str, str]:
    return f"{layer}.{REDUCE}.{WEIGHT}", f"{layer}.{CORE}.{WEIGHT}", f"{layer}.{WEIGHT}"
