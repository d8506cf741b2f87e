"""The best mapping of a layer's whole mapspace, by branch and bound.

A partial mapping is a row of cuts from the outermost in. Its *bound* is what the cuts taken cost at
least (:mod:`energysim.mapper.bound`) plus the least that any cuts to come can cost. The second part
is known for every tile beforehand: from the innermost cut outward,

    h(stage, tile) = min over next steps, min over tiles that fit into this one of
                         cost of the step + h(next stage, new tile),

a running minimum along the step's dims. It never exceeds what a completion costs, because tiles
that no whole trip count reaches, and levels that are too full, only leave fewer choices.

Partial mappings are continued in the order of their bounds. Complete ones are counted exactly. The
search ends when no bound is below the best cost: then that cost is optimal.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import count as counter
from itertools import islice
from math import prod
from time import monotonic
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from energysim.axes import Dim
from energysim.errors import DoesNotFitError
from energysim.mapper.dataflows import Dataflow
from energysim.mapper.goal import Certificate, Objective
from energysim.mapper.incumbent import TIE, Incumbent
from energysim.mapper.leaves import evaluate, excess
from energysim.mapper.parts import CostModel
from energysim.mapper.problem import Found, Front, Mapped, Problem
from energysim.mapper.space import (
    Arrangement,
    Path,
    arrangements,
    paths,
    size_of,
)
from energysim.mapper.tree import Nodes, Tree
from energysim.model.tables import Ints
from energysim.units import BITS_PER_BYTE

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

CHUNK = 1024
"""Complete mappings counted at once."""

SMALLEST_TRIED = 200
"""Orders of cuts of which the smallest tiles are tried, to say what is missing."""

FEW = 4000
"""Up to so many tiles it does not pay to look at some of them first."""

TURNS = 10
"""How long some of the tiles are looked at before all are."""

MOST_TOGETHER = 256
"""Partial mappings continued at once."""


def search(problem: Problem) -> Found:
    """Find the best mapping of a layer.

    Of mappings that are equally good by the objective the one of least energy is taken, of these
    the first found.

    Parameters
    ----------
    problem : Problem

    Returns
    -------
    Found

    Raises
    ------
    DoesNotFitError
        If not even the smallest tiles fit; names the level and the bytes missing.
    """
    begin = monotonic()
    return _first(problem, lambda goal, places: _minimise(goal, places, begin))


def front(problem: Problem) -> Front:
    """Find the Pareto set of a layer by ``problem.objective`` and ``problem.other``.

    From its end with the best first objective on: minimise the first while the second is below
    that of the point before, then the second while the first is as good.

    Parameters
    ----------
    problem : Problem

    Returns
    -------
    Front

    Raises
    ------
    DoesNotFitError
        As :func:`search`.
    """
    begin = monotonic()
    return _first(problem, lambda goal, places: _front(goal, places, begin))


Answer = TypeVar("Answer", Found, Front)


def _first(
    problem: Problem, solve: Callable[[Incumbent, Sequence[Arrangement]], Answer | None]
) -> Answer:
    """Answer for the narrowest mapspace in which anything fits."""
    flow = problem.dataflow
    loose = replace(flow, whole=frozenset())
    tries = [(flow, False), (loose, False), (flow, True), (loose, True)]
    for asked, beyond in tries if flow.whole else tries[::2]:
        goal = Incumbent(problem, asked)
        found = solve(goal, arrangements_of(problem, asked, beyond=beyond))
        if found is not None:
            return found
    raise DoesNotFitError(_too_small(problem, arrangements_of(problem, loose, beyond=True)))


def arrangements_of(problem: Problem, flow: Dataflow, *, beyond: bool) -> list[Arrangement]:
    """Every way to use the machine for a layer under a dataflow."""
    return arrangements(
        problem.hardware,
        problem.shape,
        flow,
        has_weights=problem.store is not None,
        latch=problem.rules.latch,
        resident=problem.residency.tensors,
        perfect=problem.options.perfect,
        beyond=beyond,
    )


def _minimise(goal: Incumbent, places: Sequence[Arrangement], begin: float) -> Found | None:
    asked = goal.objective
    done, lower = _explore(goal, places, begin)
    if not goal.found:
        return None
    first, best = goal.found[0][1], goal.best
    wanted = goal.problem.options.runners_up
    others = tuple(mapped for _, mapped in goal.found[1 : 1 + wanted])
    if asked is not Objective.ENERGY:
        goal.seek(Objective.ENERGY, {asked: best * (1 + TIE)})
        again, _ = _explore(goal, places, begin)
        done = done and again
        first = goal.found[0][1] if goal.found else first
    gap = 0.0 if done else max(0.0, 1 - lower / best)
    return Found(first, others, _certify(goal, places, begin, optimal=done, gap=gap))


def _front(goal: Incumbent, places: Sequence[Arrangement], begin: float) -> Front | None:
    first, second = goal.problem.objective, goal.problem.other
    assert second is not None
    points: list[Mapped] = []
    limits: dict[Objective, float] = {}
    done = True
    while done:
        goal.seek(first, limits)
        done, _ = _explore(goal, places, begin)
        if not goal.found:
            break
        best = goal.found[0][1]
        if done:
            goal.seek(second, limits | {first: goal.best * (1 + TIE)})
            done, _ = _explore(goal, places, begin)
            best = goal.found[0][1] if goal.found else best
        points.append(best)
        limits = {second: points[-1].measure.of(second) * (1 - 2 * TIE)}
    if not points:
        return None
    gap = 0.0 if done else 1.0
    return Front(tuple(points), _certify(goal, places, begin, optimal=done, gap=gap))


def _certify(
    goal: Incumbent, places: Sequence[Arrangement], begin: float, *, optimal: bool, gap: float
) -> Certificate:
    return Certificate(
        sum(size_of(here, goal.flow) for here in places),
        goal.evaluated,
        goal.pruned_bound,
        goal.pruned_capacity,
        optimal,
        gap,
        monotonic() - begin,
    )


def _explore(goal: Incumbent, places: Sequence[Arrangement], begin: float) -> tuple[bool, float]:
    """Branch and bound; whether it came to its end, and the least bound left.

    First among few tile sizes, for a good mapping: the better the best one known, the fewer tiles
    there are to look at.
    """
    rich = [here.coarse() for here in places
            if prod(ladder.trips.size for ladder in here.ladders) > FEW]  # fmt: skip
    if rich:
        _search(goal, rich, begin, most=TURNS)
    return _search(goal, places, begin)


def _search(
    goal: Incumbent, places: Sequence[Arrangement], begin: float, *, most: int | None = None
) -> tuple[bool, float]:
    queue = _Queue(goal)
    for i, here in enumerate(places):
        if goal.found and goal.exhausted(begin):
            return False, min(queue.least, *(_least(goal, each) for each in places[i:]))
        root = Tree(goal, CostModel(goal.problem, here)).root()
        if root is not None:
            if root.values[0] < goal.limit:
                _dive(root)  # the better the best one known, the smaller the trees to come
            queue.take(root)
    turns = 0
    while queue.waiting:
        value = queue.least
        if goal.problem.options.prune and value >= goal.limit * (1 - TIE):
            queue.drop()
            break
        turns += 1
        if goal.found and (goal.exhausted(begin) or (most and turns > most)):
            return False, value
        queue.turn()
    return True, goal.best


def _least(goal: Incumbent, here: Arrangement) -> float:
    """Bound of all mappings of an arrangement, without looking at any tile."""
    model = CostModel(goal.problem, here)
    return float(goal.values(model.least(goal.parts_of(model)))[0])


class _Bin:
    """Partial mappings with the same cuts in the same order, least bounds first."""

    def __init__(self, goal: Incumbent, nodes: Nodes) -> None:
        self.goal = goal
        self.fresh = [nodes]
        self.least = float(nodes.values.min())
        self.sorted: Nodes | None = None

    @property
    def size(self) -> int:
        """How many wait."""
        own = self.sorted.values.size if self.sorted is not None else 0
        return own + sum(nodes.values.size for nodes in self.fresh)

    def add(self, nodes: Nodes) -> None:
        """Take more in."""
        self.fresh.append(nodes)
        self.least = min(self.least, float(nodes.values.min()))

    def pop(self, most: int, below: float) -> Nodes:
        """Give the best away, at least one; forget what is not below a value."""
        if self.fresh:
            rest = [self.sorted] if self.sorted is not None else []
            every = Nodes.together([*rest, *self.fresh])
            good = np.flatnonzero(every.values < below)
            self.goal.pruned_bound += every.values.size - good.size
            every = every.some(good)
            self.sorted = every.some(np.argsort(every.values, kind="stable"))
            self.fresh = []
        assert self.sorted is not None
        values = self.sorted.values
        size = max(1, min(most, int(np.searchsorted(values, below))))
        taken = self.sorted.some(slice(0, size))
        self.sorted = self.sorted.some(slice(size, None))
        self.least = float(values[size]) if size < values.size else np.inf
        return taken


class _Queue:
    """Partial mappings by their bounds, and complete ones that wait to be counted.

    Those of one order of cuts are continued together, the more the longer the search takes: a batch
    costs little more than one, but some of it might have proved needless.
    """

    def __init__(self, goal: Incumbent) -> None:
        self.goal = goal
        self.bins: dict[tuple[int, Path], _Bin] = {}
        self.heap: list[tuple[float, int, int, _Bin]] = []
        self.tie = counter()
        self.pool = _Pool(goal)

    @property
    def waiting(self) -> bool:
        """Whether there is anything left to do."""
        while self.heap and self.heap[0][0] != self.heap[0][3].least:
            heapq.heappop(self.heap)  # the bin has changed since
        return bool(self.heap or self.pool.waiting)

    @property
    def least(self) -> float:
        """The least bound of all that is left."""
        return min(self.heap[0][0] if self.heap else np.inf, self.pool.least)

    def take(self, nodes: Nodes) -> None:
        """Take mappings in."""
        if nodes.complete:
            self.pool.add(nodes)
            return
        key = (id(nodes.tree), nodes.path)
        if key in self.bins:
            self.bins[key].add(nodes)
        else:
            self.bins[key] = _Bin(self.goal, nodes)
        self._push(len(nodes.path), self.bins[key])

    def turn(self) -> None:
        """Continue the most promising partial mappings, or count complete ones."""
        if not self.heap or self.pool.ripe(self.heap[0][0]):
            self.pool.flush()
            return
        _, depth, _, bin_ = heapq.heappop(self.heap)
        prune = self.goal.problem.options.prune
        below = self.goal.limit * (1 - TIE) if prune else np.inf
        nodes = bin_.pop(min(MOST_TOGETHER, 1 + self.goal.turns // 4), below)
        self._push(-depth, bin_)
        self.pool.turns += 1
        self.goal.turns += nodes.values.size
        for children in nodes.tree.branch(nodes):
            self.take(children)

    def drop(self) -> None:
        """Leave the rest: no bound is below the best cost."""
        left = sum(bin_.size for bin_ in self.bins.values())
        self.goal.pruned_bound += left + self.pool.drop()

    def _push(self, depth: int, bin_: _Bin) -> None:
        if np.isfinite(bin_.least):
            heapq.heappush(self.heap, (bin_.least, -depth, next(self.tie), bin_))


class _Pool:
    """Complete mappings that wait to be counted, those of one order of cuts together.

    Counting many at once is cheaper, but the sooner a good one is known the less is continued. So
    it is done after 1, 2, 4 ... turns without.
    """

    MOST_TURNS = 64

    def __init__(self, goal: Incumbent) -> None:
        self.goal = goal
        self.waiting: dict[tuple[int, Path], list[Nodes]] = {}
        self.least = np.inf
        self.turns, self.patience = 0, 1

    def add(self, stream: Nodes) -> None:
        """Take complete mappings in."""
        self.waiting.setdefault((id(stream.tree), stream.path), []).append(stream)
        self.least = min(self.least, float(stream.values.min()))

    def ripe(self, bound: float) -> bool:
        """Whether it is time to count."""
        return self.least <= bound and self.turns >= self.patience

    def flush(self) -> None:
        """Count all that may still be the best, the most promising first."""
        goal, waiting = self.goal, self.waiting
        self.waiting, self.least, self.turns = {}, np.inf, 0
        self.patience = min(2 * self.patience, self.MOST_TURNS)
        for streams in sorted(
            waiting.values(), key=lambda own: min(float(s.values.min()) for s in own)
        ):
            values = np.concatenate([stream.values for stream in streams])
            places = np.concatenate([stream.places for stream in streams])
            order = np.argsort(values, kind="stable")
            start, size = 0, 16
            while start < order.size:
                rows = order[start : start + size]
                if goal.problem.options.prune:
                    rows = rows[values[rows] < goal.limit * (1 - TIE)]
                if not rows.size:
                    goal.pruned_bound += order.size - start
                    break
                evaluate(streams[0].tree, streams[0].path, places[rows])
                start += size
                size = min(16 * size, CHUNK)

    def drop(self) -> int:
        """Forget what waits; how many."""
        many = sum(stream.values.size for own in self.waiting.values() for stream in own)
        self.waiting = {}
        return many


def _dive(root: Nodes) -> None:
    """Follow the best bound down to complete mappings, for a first good one."""
    nodes = root
    while not nodes.complete:
        children = list(nodes.tree.branch(nodes))
        if not children:
            return
        nodes = min(children, key=lambda child: float(child.values.min()))
        if not nodes.complete:
            nodes = nodes.some(np.argmin(nodes.values, keepdims=True))
    best = np.argsort(nodes.values, kind="stable")[:16]
    evaluate(nodes.tree, nodes.path, nodes.places[best])


def _too_small(problem: Problem, places: Sequence[Arrangement]) -> str:
    """Which level is too small, by how much, for the smallest tiles of the machine."""
    best: tuple[float, str] = (np.inf, "")
    goal = Incumbent(problem, problem.dataflow)
    for here in places:
        tree = Tree(goal, CostModel(problem, here))
        for path in islice(paths(here, goal.flow), SMALLEST_TRIED):
            lacking = excess(tree, path, _smallest(here, path))[0]
            level = int(np.argmax(lacking))
            if 0 < lacking[level] < best[0]:
                best = (float(lacking[level]), problem.hardware.levels[level].name)
    if not best[1]:
        return "no mapping keeps to its dataflow and fits its memories"
    missing = -(-int(best[0]) // BITS_PER_BYTE)
    return f"level {best[1]} is too small: {missing:,} bytes are missing for the smallest tiles"


def _smallest(here: Arrangement, path: Path) -> Ints:
    """As much as can be cut in front of every cut, shape (1, steps, 8)."""
    tile = np.zeros(len(Dim), dtype=np.int64)
    rows = []
    for step in path:
        for dim in step.dims:
            tile[dim] = here.ladders[dim].trips.size - 1
        rows.append(tile.copy())
    return np.array([rows])
