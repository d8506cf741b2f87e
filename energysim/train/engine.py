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
from dataclasses import dataclass
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
    MEAN,
    VARIANCE,
    Arrays,
    live_weights,
    normalised_layers,
    running_start,
    start,
)
from energysim.train.recipe import Recipe
from energysim.train.scratch import Floats

TOP = 5
"""Classes among which the right one must be, for the second accuracy."""

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
    """of the optimiser"""
    running: Arrays
    """statistics of batch norms"""


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
    """

    def __init__(
        self,
        network: Network,
        recipe: Recipe,
        rng: np.random.Generator,
        *,
        threads: int | None = None,
        dtype: npt.DTypeLike = np.float32,
    ) -> None:
        self.recipe, self.rule = recipe, recipe.rule
        self.model = Model.of(network, dtype=dtype, batch=max(1, recipe.batch // recipe.shards))
        self.name = f"numpy {np.__version__}"
        self.threads = threads or min(recipe.shards, cores())
        self.weights = start(network, rng, recipe.init, dtype)
        self.running = running_start(network, dtype)
        self.memory = self.rule.start(self.weights)
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
        views = self.model.layout.views(self.weights)

        def learn(work: tuple[Batch, Floats]) -> tuple[Score, Trace]:
            shard, gradient = work
            x = shard.x.astype(self.weights.dtype, copy=False)
            with no_warnings():
                scores, trace = self.model.forward(views, x)
                loss, dscores = ops.cross_entropy(scores, shard.y, smoothing=self.recipe.smoothing)
                dscores *= len(shard.y) / images
                self.model.backward(views, trace, dscores, gradient)
            return score(scores, shard.y, loss), trace

        missing = len(shards) - len(self._gradients)
        self._gradients += [np.empty_like(self.weights) for _ in range(missing)]
        done = list(self._each(learn, zip(shards, self._gradients, strict=False)))
        with no_warnings():
            for _, trace in done:
                self._follow(trace)
        total = self._gradients[0]
        with no_warnings():
            for gradient in self._gradients[1 : len(shards)]:
                total += gradient
            decayed = self.model.layout.weights
            self.rule.step(self.weights, total, self.memory, lr, decayed=decayed)
        return sum((each for each, _ in done), Score())

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
        done = map(infer, batches) if watch is not None else self._each(infer, batches)
        return sum(done, Score())

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

    def _each(self, function: Callable[[S], T], works: Iterable[S]) -> Iterator[T]:
        """Results in order, computed by the threads; few works wait at a time."""
        waiting: deque[Future[T]] = deque()
        for work in works:
            waiting.append(self._pool.submit(function, work))
            if len(waiting) > self.threads:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def check_zeros(network: Network, weights: Floats) -> None:
    """Make sure that what the masks leave out is exactly 0.

    Raises
    ------
    RuntimeError
        If it is not: a bug of the trainer.
    """
    if np.any(weights[~live_weights(network)]):
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
