"""What comes and goes when the loops outside a cut turn, for parts of a tensor that differ.

The closed form of :mod:`energysim.model.counts` is for whole boxes of elements. Where it matters
which weights are live, elements fall into classes instead: some dims say *where* an element is (it
is touched at one index of each, and gone while their loops stand at another), the loops over the
others turn above it. Steps of a nest are the product of the steps of its dims, so how often each
class comes up is a product of small tables.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
import numpy.typing as npt

from energysim.axes import RELEVANT, Dim, Shape, Tensor
from energysim.mapping import Nest, Rules

Bools = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Sets = npt.NDArray[Any]
"""sets of taps (or of rows, or of columns) of a kernel, one bit each"""

MACHINE_BITS = 62
"""Sets of no more members fit a machine word; larger ones are Python's integers."""

START = -1
"""The step before which nothing is held; transitions are named by the loop that advances."""


@dataclass(frozen=True, slots=True)
class Moved:
    """What crosses the boundary between a level and the next inner one."""

    read: int
    """at the outer level"""
    each: int
    """summed over the instances of the inner level: filled there, handed over by the network"""


# -- loops of one dim ----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Along:
    """Where the indices of one dim are touched: when, and by which instance."""

    when: Ints
    """number of the step of the dim's own outside loops in which each index is touched"""
    parent: Ints
    """which instance of the outer level touches it"""
    child: Ints
    """which of the inner instances below that one"""
    parents: int
    children: int
    digits: Ints
    """indices of the outside loops in each step, shape (steps, loops), in order"""
    positions: tuple[int, ...]
    """of the outside loops in the nest"""

    @property
    def steps(self) -> int:
        """Steps of the dim's own outside loops that have work."""
        return len(self.digits)

    @property
    def never_idle(self) -> bool:
        """Whether an instance that has work in one of the steps has it in all."""
        instance = self.parent * self.children + self.child
        seen = np.unique(instance * self.steps + self.when).size
        return seen == self.steps * np.unique(instance).size

    def transitions(self, loop: int) -> Ints:
        """Steps before and after the loop at some position of the nest advances, shape (n, 2)."""
        if loop == START:
            return np.array([[-1, 0]])
        before = sum(position < loop for position in self.positions)
        starts, ends = _blocks(self.digits[:, :before])
        if loop not in self.positions:
            return np.stack([ends, starts], axis=1)
        # Within a block of the same outer indices, the loop goes from one of its own to the next.
        inner, last = _blocks(self.digits[:, : before + 1])
        goes_on = ~np.isin(inner, starts)
        return np.stack([last[:-1][goes_on[1:]], inner[goes_on]], axis=1)

    def interrupts(self, loop: int) -> Bools:
        """Whether other indices of the dim come up each time a loop advances, by index."""
        if loop == START:
            return np.ones(self.when.size, dtype=np.bool_)
        before = sum(position < loop for position in self.positions)
        starts, ends = _blocks(self.digits[:, :before])
        several: Bools = np.repeat(ends > starts, ends - starts + 1)[self.when]
        return several


def _blocks(rows: Ints) -> tuple[Ints, Ints]:
    """First and last of each run of equal rows."""
    changed = np.any(rows[1:] != rows[:-1], axis=1)
    starts = np.concatenate([[0], np.flatnonzero(changed) + 1])
    return starts, np.concatenate([starts[1:] - 1, [len(rows) - 1]])


def along(extent: int, loops: Sequence[tuple[int, int]], roles: tuple[Sequence[int], ...]) -> Along:
    """Walk the loops (position, trip count) over one dim, outermost first.

    ``roles`` are the positions of all loops outside the cut, of those over instances of the outer
    level, and of those over inner instances below one of these.
    """
    outside, parents, children = roles
    rest, size = np.arange(extent), extent
    digit: dict[int, Ints] = {}
    for position, count in loops:
        size = -(-size // count)
        digit[position], rest = np.divmod(rest, size)
    trips = dict(loops)

    def number(positions: Iterable[int]) -> tuple[Ints, int]:
        which, many = np.zeros(extent, dtype=np.int64), 1
        for position in positions:
            if position in digit:
                which, many = which * trips[position] + digit[position], many * trips[position]
        return which, many

    own = tuple(position for position in outside if position in digit)
    _, first, when = np.unique(number(own)[0], return_index=True, return_inverse=True)
    digits = np.zeros((1, 0), dtype=np.int64)
    if own:
        digits = np.stack([digit[position][first] for position in own], axis=1)
    (parent, many), (child, each) = number(parents), number(children)
    return Along(when.reshape(-1), parent, child, many, each, digits, own)


# -- what is needed -------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class States:
    """Which sets are needed now and were needed before, and how often that comes up."""

    new: Sets
    """shape (states, instances)"""
    old: Sets
    """shape (states, instances)"""
    times: Ints
    """shape (states,)"""

    def merged(self) -> States:
        """Put equal rows together; those that need nothing are left out."""
        needed = np.any(self.new != 0, axis=1)
        both = np.concatenate([self.new, self.old], axis=1)[needed]
        kinds, which = _kinds(both)
        total = np.zeros(len(kinds), dtype=np.int64)
        np.add.at(total, which, self.times[needed])
        instances = self.new.shape[1]
        return States(both[kinds, :instances], both[kinds, instances:], total)

    def apart(self) -> States:
        """Each instance for itself."""
        times = np.repeat(self.times, self.new.shape[1])
        return States(self.new.reshape(-1, 1), self.old.reshape(-1, 1), times)

    def afresh(self) -> States:
        """Nothing is held before, so that it only matters what any instance needs."""
        union = np.bitwise_or.reduce(self.new, axis=1)[:, None]
        return States(union, np.zeros_like(union), self.times)


def _as_keys(rows: Ints) -> Sets:
    """One sortable thing for each row."""
    if rows.shape[1] == 0:
        return np.zeros(len(rows), dtype=np.int64)
    if rows.shape[1] == 1:
        return rows[:, 0]
    half = np.iinfo(rows.dtype).bits // 2 - 1
    if rows.shape[1] == 2 and int(rows.max(initial=0)) < 1 << half:  # noqa: PLR2004 - a pair
        return rows[:, 0] << half | rows[:, 1]
    # As bytes they are sorted faster than column by column.
    whole = np.dtype((np.void, rows.dtype.itemsize * rows.shape[1]))
    return np.ascontiguousarray(rows).view(whole).reshape(-1)


def _kinds(rows: Sets) -> tuple[Ints, Ints]:
    """First of each kind of equal rows, and which kind each row is."""
    if rows.dtype == np.object_:  # which NumPy can't sort by rows
        found: dict[tuple[object, ...], int] = {}
        kind = [found.setdefault(row, len(found)) for row in map(tuple, rows.tolist())]
        keys: Sets = np.array(kind, dtype=np.int64)
    else:
        keys = _as_keys(rows[:, np.any(rows, axis=0)])
    _, first, which = np.unique(keys, return_index=True, return_inverse=True)
    return first, which.reshape(-1)


def held_before(needs: Sets, present: Bools, pairs: Ints, *, whole: bool) -> Sets:
    """Sets held before each transition, shape (..., pairs, parents, children, places).

    Parameters
    ----------
    needs : sets, shape (..., steps, parents, children, places)
    present : bool array, shape (steps, parents, children, places)
        What a dense tile has.
    pairs : int array, shape (n, 2)
        Step before (-1: none) and after.
    whole : bool
        A tile that changes is loaded anew: what the old one had counts only if it is the same.
    """
    old = needs[..., pairs[:, 0], :, :, :]
    if whole:
        same = np.all(present[pairs[:, 0]] == present[pairs[:, 1]], axis=-1, keepdims=True)
        old = np.where(same, old, np.zeros_like(old))
    started = (pairs[:, 0] >= 0)[:, None, None, None]
    held: Sets = np.where(started, old, np.zeros_like(old))
    return held


def as_rows(sets: Sets) -> Sets:
    """One row for each place, with a column for each instance."""
    turned = np.moveaxis(sets, -1, -2)
    return turned.reshape(-1, sets.shape[-2])


def kind_of(members: int) -> type:
    """Type of sets of so many members."""
    return np.int64 if members <= MACHINE_BITS else np.object_


def members_alone(members: int) -> Sets:
    """The sets of one member each."""
    return np.array([1 << each for each in range(members)], dtype=kind_of(members))


def members_of(sets: Sets, members: int) -> Floats:
    """Who is in each set, 0 or 1, shape (sets, members)."""
    there: Floats = (sets[:, None] & members_alone(members) != 0).astype(np.float64)
    return there


class Stack:
    """A set for every index of a dim: what a tile needs is the union over its part of the dim.

    Parameters
    ----------
    along : Along
    columns : bool array, shape (kinds, extent of the dim, members)
        Who is in the set of each index, for every kind of element.
    """

    def __init__(self, along: Along, columns: Bools) -> None:
        kinds, extent, members = columns.shape
        self.along = along
        shape = (along.steps, along.parents, along.children, 1)
        where = (along.when, along.parent, along.child, np.zeros(extent, dtype=np.int64))
        self.needs: Sets = np.zeros((kinds, *shape), dtype=kind_of(members))
        sets = (columns.astype(kind_of(members)) * members_alone(members)).sum(axis=2)
        at_all = np.moveaxis(self.needs, 0, -1)  # a view: the steps first, the kinds last
        np.bitwise_or.at(at_all, where, sets.T)
        self.present = np.zeros(shape, dtype=np.bool_)
        self.present[where] = True

    def states(self, loop: int, times: Ints, *, whole: bool) -> States:
        """What is needed at the transitions of one loop by so many channels of each kind."""
        pairs = self.along.transitions(loop)
        new = self.needs[:, pairs[:, 1]]
        old = held_before(self.needs, self.present, pairs, whole=whole)
        each = np.repeat(times, new[0].size // new.shape[-2])
        return States(as_rows(new), as_rows(old), each)


def moves(states: Sequence[States], kernel: tuple[int, int]) -> int:
    """Elements that an instance needs and does not hold, over all states.

    Parameters
    ----------
    states : sequence of 3 States
        Sets of taps of a kernel, numbered row by row; of its rows; and of its columns. An element
        is needed where one of the taps stands in one of the rows and one of the columns.
    kernel : (int, int)
        Its height and width.
    """
    stack, rows, columns = states
    known: dict[frozenset[tuple[int, int]], int] = {}
    total = 0
    for new, old, times in zip(
        stack.new.tolist(), stack.old.tolist(), stack.times.tolist(), strict=True
    ):
        pairs = frozenset(pair for pair in zip(new, old, strict=True) if pair[0])
        if pairs not in known:
            moved = np.zeros((len(rows.times), len(columns.times)), dtype=np.bool_)
            for (now, before), r, c in product(
                sorted(pairs), range(rows.new.shape[1]), range(columns.new.shape[1])
            ):
                needed = _hits(now, rows.new[:, r], columns.new[:, c], kernel)
                moved |= needed & ~_hits(before, rows.old[:, r], columns.old[:, c], kernel)
            known[pairs] = int(rows.times @ moved.astype(np.int64) @ columns.times)
        total += times * known[pairs]
    return total


def _hits(taps: int, rows: Sets, columns: Sets, kernel: tuple[int, int]) -> Bools:
    """Whether any of the taps is in a row and a column of two sets, for all pairs of sets."""
    height, width = kernel
    live = members_of(np.array([taps], dtype=kind_of(height * width)), height * width)
    seen = members_of(rows, height) @ live.reshape(height, width)
    hits: Bools = seen @ members_of(columns, width).T > 0
    return hits


class Boundary:
    """Between a level that holds a tensor and the next inner one (None: the MACs).

    Parameters
    ----------
    shape, nest, trips, rules
        The mapping.
    tensor : Tensor
    outer : int
    inner : int or None
    where : tuple of Dim
        Dims that say where an element is; the loops over the others turn above it.
    """

    def __init__(
        self,
        shape: Shape,
        nest: Nest,
        trips: Sequence[int],
        rules: Rules,
        *,
        tensor: Tensor,
        levels: tuple[int, int | None],
        where: tuple[Dim, ...],
    ) -> None:
        outer, inner = levels
        cut = len(nest.loops) if inner is None else nest.cuts[inner][tensor]
        assert cut is not None  # holders() lists only levels with a cut
        axes = nest.array_axes if inner is None else nest.axes[inner]
        self.where = where
        self.multicast = rules.multicast
        self.fans_out = axes != nest.axes[outer]
        self.keeps = inner is not None or tensor in rules.latch
        self.whole = tensor is Tensor.INPUT and inner in rules.refetch
        turning = [
            i for i, loop in enumerate(nest.loops[:cut]) if loop.axis is None and trips[i] > 1
        ]
        spread = [i for i, loop in enumerate(nest.loops) if loop.axis in axes]
        parents = [i for i in spread if nest.loops[i].axis in nest.axes[outer]]
        children = [i for i in spread if i not in parents]

        def walked(dim: Dim) -> Along:
            own = [(i, trips[i]) for i, loop in enumerate(nest.loops) if loop.dim is dim]
            return along(shape[dim], own, (turning, parents, children))

        self.dims = {dim: walked(dim) for dim in Dim}
        while self.keeps and turning:
            dim = nest.loops[turning[-1]].dim
            if dim in RELEVANT[tensor] or not self.dims[dim].never_idle:
                break
            turning.pop()  # the tile stays while this loop turns
            self.dims[dim] = walked(dim)
        self.loops = [START, *(i for i in turning if nest.loops[i].dim not in where)]

    def leaves(self, loop: int) -> list[Bools]:
        """Whether an element leaves before a loop advances, by its index of each dim of ``where``.

        One that does for any of its indices is gone.
        """
        if self.keeps:
            return [self.dims[dim].interrupts(loop) for dim in self.where]
        return [np.ones(self.dims[dim].when.size, dtype=np.bool_) for dim in self.where]

    def moved(self, states: Sequence[States], kernel: tuple[int, int], *, afresh: bool) -> Moved:
        """Count at the transitions of one loop, see :func:`moves`.

        Parameters
        ----------
        states : sequence of 3 States
            Taps, rows and columns.
        kernel : (int, int)
        afresh : bool
            The elements have left before.
        """
        apart = [state.apart() for state in states]
        if afresh:
            states = [state.afresh() for state in states]
            apart = [state.afresh() for state in apart]
        states, apart = [[state.merged() for state in each] for each in (states, apart)]
        each = moves(apart, kernel)
        return Moved(moves(states, kernel) if self.multicast else each, each)
