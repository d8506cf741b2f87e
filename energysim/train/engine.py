"""What carries out steps: weights, what the optimiser remembers, running statistics.

:class:`Engine` is in NumPy; :mod:`energysim.train.torch_engine` has the same methods and the same
arrays in PyTorch, so a run can be begun with one and looked at with the other.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Protocol, TypeVar

import numpy as np
import numpy.typing as npt
from threadpoolctl import threadpool_limits

from energysim.network import Network
from energysim.train import ops
from energysim.train.data import Batch
from energysim.train.model import Model, Trace, Watch
from energysim.train.ops import MOMENTUM, Statistics
from energysim.train.parameters import (
    LAST,
    MEAN,
    VARIANCE,
    Arrays,
    kept_fit,
    live_weights,
    mixture_layers,
    normalised_layers,
    running_fit,
    running_start,
    start,
)
from energysim.train.recipe import Recipe, Rewire
from energysim.train.rewire import Moved, Wiring
from energysim.train.scratch import Floats, scratch

TOP = 5
"""Classes among which the right one must be, for the second accuracy."""

LIVE, ANCHOR = "live", "anchor"
"""What is remembered of a network that is rewired: 1 or 0 for each weight, and the weights after
the last rewiring."""

T = TypeVar("T")
S = TypeVar("S")


@dataclass(frozen=True, slots=True)
class Score:
    """What some images came to."""

    images: int = 0
    loss: float = 0.0
    """summed over them [nat]"""
    first: int = 0
    """of them, how many had the right class on top"""
    among: int = 0
    """of them, how many had it among the first five"""

    def __add__(self, other: Score) -> Score:
        return Score(
            self.images + other.images,
            self.loss + other.loss,
            self.first + other.first,
            self.among + other.among,
        )


@dataclass(frozen=True, slots=True)
class State:
    """All that a run needs to go on, as arrays."""

    weights: Floats
    memory: Arrays
    """of the optimiser, and of what is live where the network is rewired"""
    running: Arrays
    """statistics of batch norms"""


class Adversary(Protocol):
    """What changes images so that a network errs; :class:`~energysim.train.attacks.Adversary`."""

    def against(
        self, weights: Arrays, running: Arrays
    ) -> Callable[[Floats, npt.NDArray[np.integer], np.random.Generator], Floats]:
        """Change images, by what has been learnt so far."""


class Trainer(Protocol):
    """What a run needs of an engine."""

    name: str
    """of the back-end, with the version of what it computes with"""

    def step(self, shards: Sequence[Batch], lr: float) -> Score:
        """Learn from one batch."""

    def evaluate(self, batches: Iterable[Batch]) -> Score:
        """Loss and hits on images, with running statistics."""

    def state(self) -> State:
        """A copy of where the run stands."""

    def load(self, state: State) -> None:
        """Go on from there."""

    def settle(self) -> None:
        """Take weights that were loaded from elsewhere as those to begin with."""

    def rewire(self, share: float) -> Moved:
        """Prune a share of the live weights of each layer and let as many others grow, from 0."""


def score(scores: Floats, labels: npt.NDArray[np.integer], loss: float) -> Score:
    """Count hits; among equal scores the class with the smaller number comes first.

    A score that is no number comes before all others, so that it is never a hit.

    Examples
    --------
    >>> score(np.array([[0.1], [0.7], [0.7]]), np.array([2]), 1.5)
    Score(images=1, loss=1.5, first=0, among=1)
    """
    images = len(labels)
    right = scores[labels, np.arange(images)]
    numbers = np.arange(len(scores))[:, None]
    behind = (scores < right) | ((scores == right) & (numbers > labels))
    rank = len(scores) - 1 - behind.sum(axis=0)
    return Score(images, loss * images, int((rank == 0).sum()), int((rank < TOP).sum()))


class Engine:
    """Steps in NumPy: each shard of a batch in a thread of its own, BLAS in one thread each.

    Parameters
    ----------
    network : Network
    recipe : Recipe
    rng : numpy.random.Generator
        Draws the weights.
    threads : int, optional
        By default as many as there are shards and cores. Their number changes no result.
    dtype : dtype
        float32, or float64 to check.
    wiring : numpy.random.Generator, optional
        Draws the first live weights, where the recipe rewires.
    """

    def __init__(
        self,
        network: Network,
        recipe: Recipe,
        rng: np.random.Generator,
        *,
        threads: int | None = None,
        dtype: npt.DTypeLike = np.float32,
        wiring: np.random.Generator | None = None,
    ) -> None:
        self.recipe, self.rule = recipe, recipe.rule
        self.model = Model.of(network, dtype=dtype, batch=max(1, recipe.batch // recipe.shards))
        self.name = f"numpy {np.__version__}"
        self.threads = threads or min(recipe.shards, cores())
        self.weights = start(network, rng, recipe.init, dtype, gamma=recipe.gamma)
        self.chance = int(rng.integers(2**32))
        self.running = running_start(network, dtype)
        self.memory = self.rule.start(self.weights)
        self.adversary: Adversary | None = None
        """what changes the images that are learnt from, beside those as they are"""
        self.attacks = np.random.default_rng(0)
        """draws the starts of that"""
        if recipe.rewire is not None:
            self._begin_sparse(network, recipe.rewire, wiring or np.random.default_rng(0))
        # The threads stay, and so do the buffers of each. One alone computes in a thread of its own
        # too: glibc takes memory of the main thread back after every step, and then all pages of
        # the next one are new.
        self._pool = ThreadPoolExecutor(self.threads)
        self._gradients: list[Floats] = []

    def step(self, shards: Sequence[Batch], lr: float) -> Score:
        """Learn from one batch.

        Parameters
        ----------
        shards : sequence of Batch
            Its parts; each is normalised by itself, and gradients are summed in their order.
        lr : float
            Learning rate.

        Returns
        -------
        Score
            Before the step.
        """
        images = sum(len(shard.y) for shard in shards)
        learn = self._learn if self.adversary is None else self._learn_against(self.adversary)

        def of_shard(work: tuple[Batch, Floats, int]) -> tuple[Score, list[Trace]]:
            shard, gradient, seed = work
            with no_warnings():
                return learn(shard, len(shard.y) / images, gradient, seed)

        missing = len(shards) - len(self._gradients)
        self._gradients += [np.empty_like(self.weights) for _ in range(missing)]
        # drawn here: shards are computed in any order
        seeds = self.attacks.integers(2**63, size=len(shards)).tolist()
        works = zip(shards, self._gradients, seeds, strict=False)
        done = list(in_turn(self._pool, self.threads, of_shard, works))
        with no_warnings():
            for _, traces in done:
                for trace in traces:
                    self._follow(trace)
        total = self._gradients[0]
        with no_warnings():
            for gradient in self._gradients[1 : len(shards)]:
                total += gradient
            decayed = self.model.layout.weights
            self._pull(total[:decayed])
            self.rule.step(self.weights, total, self.memory, lr, decayed=decayed)
            self._mask()
        return sum((each for each, _ in done), Score())

    def _learn(
        self,
        shard: Batch,
        share: float,
        gradient: Floats,
        seed: int = 0,
    ) -> tuple[Score, list[Trace]]:
        """Loss of a shard, and its gradient times a share.

        Parameters
        ----------
        shard : Batch
        share : float
            Of the loss of the step.
        gradient : ndarray, shape (total,)
            Overwritten.
        seed : int
            Of the first fits of mixture norms.
        """
        views = self.model.layout.views(self.weights)
        x = shard.x.astype(self.weights.dtype, copy=False)
        chance = (self.chance, seed)
        scores, trace = self.model.forward(views, x, running=self.running, chance=chance)
        loss, dscores = ops.cross_entropy(scores, shard.y, smoothing=self.recipe.smoothing)
        dscores *= share
        self.model.backward(views, trace, dscores, gradient)
        return score(scores, shard.y, loss), [trace]

    def _learn_against(
        self, adversary: Adversary
    ) -> Callable[[Batch, float, Floats, int], tuple[Score, list[Trace]]]:
        """Learn from a shard and from what an adversary makes of it.

        Both are normalised by themselves, and running statistics follow both. Hits are of the shard
        as it is, where it is learnt from.
        """
        change = adversary.against(self.model.layout.views(self.weights), self.running)
        assert self.recipe.adversarial is not None
        clean_share = self.recipe.adversarial.clean_share

        def learn(
            shard: Batch, share: float, gradient: Floats, seed: int
        ) -> tuple[Score, list[Trace]]:
            x = shard.x.astype(self.weights.dtype, copy=False)
            moved = Batch(change(x, shard.y, np.random.default_rng(seed)), shard.y)
            if not clean_share:
                return self._learn(moved, share, gradient)
            clean, traces = self._learn(shard, share * clean_share, gradient)
            more = scratch("adversarial", gradient.shape, gradient.dtype)
            hard, others = self._learn(moved, share * (1 - clean_share), more)
            gradient += more
            loss = clean_share * clean.loss + (1 - clean_share) * hard.loss
            return replace(clean, loss=loss), traces + others

        return learn

    # -- live weights that move --------------------------------------------------------------------

    def _begin_sparse(self, network: Network, how: Rewire, rng: np.random.Generator) -> None:
        """Draw the first live weights; what is remembered of them stands beside the optimiser's."""
        self.wiring = Wiring.of(network, how.mode)
        self.memory[LIVE] = self.wiring.start(how.density, rng).astype(self.weights.dtype)
        self._mask()
        self._anchor(how)

    def settle(self) -> None:
        """Take weights that were loaded from elsewhere as those to begin with."""
        self._mask()
        if self.recipe.rewire is not None:
            self._anchor(self.recipe.rewire)

    def rewire(self, share: float) -> Moved:
        """Prune a share of the live weights of each layer and let as many others grow, from 0.

        Parameters
        ----------
        share : float

        Returns
        -------
        Moved

        Notes
        -----
        A dead weight is 0 in every pass, and still has a gradient and a momentum, which tell
        whether it should grow.
        """
        how, many = self.recipe.rewire, self.model.layout.weights
        assert how is not None
        moved = self.wiring.rewired(
            self.memory[LIVE],
            self.weights[:many],
            self.rule.momentum_of(self.memory)[:many],
            share,
            self.wiring.target(how.density),
        )
        self.memory[LIVE] = moved.live
        self._mask()
        self._anchor(how)
        return moved

    def masks(self) -> dict[str, npt.NDArray[np.bool_]]:
        """Live weights by layer; empty where the recipe does not rewire."""
        return self.wiring.masks(self.memory[LIVE]) if LIVE in self.memory else {}

    def _mask(self) -> None:
        """Set dead weights to 0."""
        if LIVE in self.memory:
            self.weights[: self.model.layout.weights] *= self.memory[LIVE]

    def _anchor(self, how: Rewire) -> None:
        """Remember the weights, which the dynamic L2 penalty pulls back to."""
        if how.rho:
            self.memory[ANCHOR] = self.weights[: self.model.layout.weights].copy()

    def _pull(self, gradient: Floats) -> None:
        """Add the gradient of the penalty; dead weights are 0 in both, so they have none."""
        if ANCHOR in self.memory:
            assert self.recipe.rewire is not None
            away = self.weights[: len(gradient)] - self.memory[ANCHOR]
            away *= self.recipe.rewire.rho
            gradient += away

    # -- all else ----------------------------------------------------------------------------------

    def evaluate(self, batches: Iterable[Batch], *, watch: Watch | None = None) -> Score:
        """Loss and hits on images, with running statistics."""
        views = self.model.layout.views(self.weights)

        def infer(batch: Batch) -> Score:
            x = batch.x.astype(self.weights.dtype, copy=False)
            with no_warnings():
                scores = self.model.infer(views, self.running, x, watch=watch)
                loss, _ = ops.cross_entropy(scores, batch.y)
            return score(scores, batch.y, loss)

        # What watches counts one batch at a time.
        if watch is not None:
            return sum(map(infer, batches), Score())
        return sum(in_turn(self._pool, self.threads, infer, batches), Score())

    def state(self) -> State:
        """A copy of where the run stands."""
        return State(self.weights.copy(), _copies(self.memory), _copies(self.running))

    def load(self, state: State) -> None:
        """Go on from there."""
        self.weights = state.weights.astype(self.weights.dtype)
        self.memory, self.running = _copies(state.memory), _copies(state.running)

    def _follow(self, trace: Trace) -> None:
        """Move running statistics after a shard."""
        for layer in normalised_layers(self.model.network):
            mean, variance = f"{layer.name}.{MEAN}", f"{layer.name}.{VARIANCE}"
            before = Statistics(self.running[mean], self.running[variance])
            elements = trace.counts[layer.name]
            after = before.moved(trace.statistics[layer.name], elements, MOMENTUM)
            self.running[mean], self.running[variance] = after.mean, after.variance
        for layer in mixture_layers(self.model.network):
            seen = trace.fits[layer.name]
            moved = running_fit(layer, self.running).moved(seen, trace.counts[layer.name])
            self.running |= kept_fit(layer, moved) | kept_fit(layer, seen, LAST)


def in_turn(
    pool: ThreadPoolExecutor, threads: int, function: Callable[[S], T], works: Iterable[S]
) -> Iterator[T]:
    """Results in order, computed by the threads of a pool; few works wait at a time."""
    waiting: deque[Future[T]] = deque()
    for work in works:
        waiting.append(pool.submit(function, work))
        if len(waiting) > threads:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


def check_zeros(network: Network, weights: Floats, live: Floats | None = None) -> None:
    """Make sure that what the masks leave out is exactly 0.

    Parameters
    ----------
    network : Network
    weights : ndarray, shape (total,)
    live : ndarray, shape (W,), optional
        0 for weights that rewiring leaves out too.

    Raises
    ------
    RuntimeError
        If it is not: a bug of the trainer.
    """
    dead = ~live_weights(network)
    if live is not None:
        dead[: len(live)] |= live == 0
    if np.any(weights[dead]):
        raise RuntimeError(f"{network.name}: a weight that the mask leaves out is not 0")


def no_warnings() -> np.errstate:
    """Let numbers overflow in silence: whoever asks for the loss is told."""
    return np.errstate(over="ignore", invalid="ignore")


@contextmanager
def one_blas_thread() -> Iterator[None]:
    """Let BLAS compute each product in the thread that asks for it.

    Its own threads wait for each other in every one of thousands of small products, and their
    number changes the order of sums.
    """
    with threadpool_limits(1, "blas"):
        yield


def cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _copies(arrays: Arrays) -> Arrays:
    return {name: each.copy() for name, each in arrays.items()}
