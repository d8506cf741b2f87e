"""Per-axis tables: all that one axis of a tensor's tile contributes to the counts of a boundary.

A tile is a product of axes (n, g, k, c, h, w, and one single-element axis for every dim that the
tensor does not use). Everything an axis does depends on its own loop indices only, so it is
tabulated here once per *choice* of its trip counts; :mod:`energysim.model.counts` multiplies axes.

Steps are the index tuples of the temporal loops outside a cut. Between two steps one loop advances
and all loops inside it wrap to their start. For one axis with own temporal loops 1..m only this
matters, so transitions are coded

    code 2i    : loops 1..i of the axis stand still, i+1..m go from their last index to 0,
    code 2i - 1: loop i goes from v to v + 1, loops i+1..m from their last index to 0.

Along an axis each instance needs an interval (h and w: one interval per residue class, see
:func:`_window_intervals`), so unions and differences are sums over sorted interval ends, whatever
the size of the layer.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from functools import lru_cache
from math import gcd
from typing import Any

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]


LIMIT = 2**19
"""Tiles walked at once where a table must be walked; bounds memory to some tens of MB."""

KNOWN = 1024
"""Choices of an axis that are kept; larger batches share too little with others."""


class Role(Enum):
    """What a loop is to a boundary between an outer holder p and the next inner holder c."""

    TEMPORAL = "temporal"
    OUTER = "outer"
    """spatial, spreads the instances of p"""
    FANOUT = "fanout"
    """spatial, spreads the instances of c under one instance of p"""


@dataclass(frozen=True, slots=True)
class Axis:
    """One axis of a tile.

    Parameters
    ----------
    extents : tuple of int
        One extent, or (outputs, taps) for the sliding windows h and w.
    used : bool
        False for a dim that the tensor does not use: one element, there while there is work.
    stride, dilation, pad, size : int
        Of a window axis; ``size`` is None where padding is moved like data.
    """

    extents: tuple[int, ...]
    used: bool = True
    stride: int = 1
    dilation: int = 1
    pad: int = 0
    size: int | None = None


@dataclass(frozen=True, slots=True)
class AxisTable:
    """Sums over the steps of one axis; arrays end in the choice, shape ``(U,)`` or ``(2m+1, U)``.

    *union* takes the elements that the instances of c under one p need together, *each* the sum
    over instances of c; both are summed over the instances of p. *held* counts those of them that
    need not move in a transition of a code.
    """

    union: Ints
    """elements needed, over all steps"""
    each: Ints
    held_in: Ints
    """of the new tile: held already by every instance that needs it"""
    held_out: Ints
    """of the old tile: kept by every instance that has it"""
    held_each: Ints
    """old and new, summed over instances"""
    first: Ints
    """union at the first step"""
    last: Ints
    """union at the last step"""
    peak: Ints
    """largest tile of one instance of c"""
    steps: Ints
    """steps that have work"""
    spread_outer: Ints
    """instances of p that ever have work"""
    spread: Ints
    """instances of c that ever have work"""
    union_last: Ints
    """union, each, held_out, held_each of tiles left behind at the last step of the axis"""
    each_last: Ints
    held_out_last: Ints
    held_each_last: Ints


@dataclass(frozen=True, slots=True)
class _Loops:
    """The loops of an axis that stand outside a cut, with trip counts ``(U, L)``."""

    dims: tuple[int, ...]
    roles: tuple[Role, ...]
    trips: Ints
    sizes: Ints
    """nominal piece behind each loop, ``(U, L)``"""

    def of(self, role: Role) -> list[int]:
        return [i for i, r in enumerate(self.roles) if r is role]


def axis_table(
    axis: Axis,
    dims: Sequence[int],
    roles: Sequence[Role],
    trips: Ints,
    *,
    keeps: bool = True,
    whole_tiles: bool = False,
) -> AxisTable:
    """Tabulate one axis of one boundary for many choices of trip counts.

    Parameters
    ----------
    axis : Axis
    dims : sequence of int
        For each loop of the axis outside the cut, outermost first: 0, or 1 for taps of a window.
    roles : sequence of Role
    trips : int array, shape (U, L)
        Trip counts of these loops; repeated rows are computed once.
    keeps : bool
        False where nothing stays from step to step (a MAC without latch): *held* is zero then.
    whole_tiles : bool
        A tile that changes is reloaded whole (``halo: refetch``).

    Returns
    -------
    AxisTable
    """
    trips = np.ascontiguousarray(trips, dtype=np.int64)
    loops = (tuple(dims), tuple(roles), trips.shape[0], trips.tobytes())
    return _memo(axis, *loops, keeps=keeps, whole=whole_tiles)


@lru_cache(maxsize=1024)
def _memo(
    axis: Axis,
    dims: tuple[int, ...],
    roles: tuple[Role, ...],
    rows: int,
    raw: bytes,
    *,
    keeps: bool,
    whole: bool,
) -> AxisTable:
    if not dims:
        table = _build(axis, dims, roles, np.empty((1, 0), dtype=np.int64), keeps, whole)
        return _picked(table, np.zeros(rows, dtype=np.int64))
    if rows == 1:
        return _build(axis, dims, roles, _read(raw, dims), keeps, whole)
    if rows <= KNOWN:
        return _known(axis, dims, roles, keeps, whole).table(raw)
    unique, inverse = np.unique(_read(raw, dims), axis=0, return_inverse=True)
    return _picked(_build(axis, dims, roles, unique, keeps, whole), inverse.reshape(-1))


def _read(raw: bytes, dims: tuple[int, ...]) -> Ints:
    return np.frombuffer(raw, dtype=np.int64).reshape(-1, len(dims))


def _build(
    axis: Axis,
    dims: tuple[int, ...],
    roles: tuple[Role, ...],
    trips: Ints,
    keeps: bool,
    whole: bool,
) -> AxisTable:
    loops = _Loops(dims, roles, trips, _nominal_sizes(axis.extents, dims, trips))
    build = _window_table if len(axis.extents) > 1 else _piece_table
    return build(axis, loops, keeps=keeps, whole=whole)


def _picked(table: AxisTable, choices: Ints) -> AxisTable:
    return AxisTable(*(getattr(table, name)[..., choices] for name in AxisTable.__slots__))


class _Known:
    """Choices of one axis that were tabulated before: batches of a search ask for the same anew.

    What is known is replaced as a whole, never changed, so that threads may share it.
    """

    def __init__(self, *of: Any) -> None:
        self.axis, self.dims, self.roles, self.keeps, self.whole = of
        self.state: tuple[dict[bytes, int], AxisTable | None] = ({}, None)

    def table(self, raw: bytes) -> AxisTable:
        """Table of choices, given as the bytes of their trip counts."""
        width = 8 * len(self.dims)
        asked = [raw[i : i + width] for i in range(0, len(raw), width)]
        at, table = self.state
        new = [choice for choice in dict.fromkeys(asked) if choice not in at]
        if new and len(at) + len(new) > KNOWN:
            at, table, new = {}, None, list(dict.fromkeys(asked))
        if new:
            trips = _read(b"".join(new), self.dims)
            more = _build(self.axis, self.dims, self.roles, trips, self.keeps, self.whole)
            table = more if table is None else _joined(table, more)
            at = at | {choice: len(at) + i for i, choice in enumerate(new)}
            self.state = (at, table)
        assert table is not None  # a batch has mappings
        return _picked(table, np.array([at[choice] for choice in asked]))


_known = lru_cache(maxsize=256)(_Known)


def _joined(table: AxisTable, more: AxisTable) -> AxisTable:
    names = AxisTable.__slots__
    pairs = [(getattr(table, name), getattr(more, name)) for name in names]
    return AxisTable(*(np.concatenate(pair, axis=-1) for pair in pairs))


# -- axes of a single dim: pieces never overlap, so most sums are known without walking -----------


def _piece_table(axis: Axis, loops: _Loops, *, keeps: bool, whole: bool) -> AxisTable:
    """A dim that the tensor uses (pieces of elements) or not (one element while at work)."""
    extent = axis.extents[0]
    everyone = frozenset((Role.OUTER, Role.FANOUT))
    outer = frozenset((Role.OUTER,))
    temporal = frozenset((Role.TEMPORAL,))

    there = frozenset(loops.roles)
    known: dict[tuple[frozenset[Role], bool, bool], Ints] = {}

    def total(counted: frozenset[Role], *, at_last: bool = False, used: bool = axis.used) -> Ints:
        key = (counted & there, at_last and Role.TEMPORAL in there, used)
        if key not in known:
            known[key] = _tally(extent, loops, key[0], at_last=key[1], lengths=used)
        return known[key]

    # The first fan-out instance has work whenever any has, so it stands for the union of an unused
    # dim; pieces of a used dim are disjoint, so their union is their sum.
    together = everyone if axis.used else outer
    union, each = total(together | temporal), total(everyone | temporal)
    union_last, each_last = total(together, at_last=True), total(everyone, at_last=True)
    codes = 2 * len(loops.of(Role.TEMPORAL)) + 1
    held = _Held(codes, loops.trips.shape[0])
    if keeps:
        _fill_held(axis, loops, held, whole=whole)
        held.set_last(union, each, union_last, each_last)
    return AxisTable(
        union=union,
        each=each,
        held_in=held.inward,
        held_out=held.outward,
        held_each=held.each,
        first=total(together),
        last=union_last,
        peak=total(frozenset()),
        steps=total(temporal, used=False),
        spread_outer=total(outer, used=False),
        spread=total(everyone, used=False),
        union_last=union_last,
        each_last=each_last,
        held_out_last=held.outward_last,
        held_each_last=held.each_last,
    )


def _tally(
    extent: int, loops: _Loops, counted: frozenset[Role], *, at_last: bool, lengths: bool
) -> Ints:
    """Sum over the index tuples of the counted loops that have work: of 1, or of piece lengths.

    Loops that are not counted stand at index 0, temporal ones at their last index if ``at_last``.
    A piece of length L splits into L // s full pieces and one of L % s, so a few (length,
    multiplicity) pairs per depth say everything.
    """
    choices = loops.trips.shape[0]
    pieces = [(np.full(choices, extent, dtype=np.int64), np.ones(choices, dtype=np.int64))]
    lead = pieces[0][0]  # length of the first instance's piece: it says which index is the last
    for i, role in enumerate(loops.roles):
        size = loops.sizes[:, i]
        if role in counted:
            whole = np.zeros_like(size)
            for length, many in pieces:
                whole += many * (length // size)
            pieces = [(size, whole), *((length % size, many) for length, many in pieces)]
        elif at_last and role is Role.TEMPORAL:
            before = (lead - 1) // size * size
            pieces = [(np.clip(length - before, 0, size), many) for length, many in pieces]
            lead = lead - before
        else:
            pieces = [(np.minimum(length, size), many) for length, many in pieces]
        lead = np.minimum(lead, size)
    total = np.zeros(choices, dtype=np.int64)
    for length, many in pieces:
        total += many * (length if lengths else length > 0)
    return total


class _Held:
    """The *held* rows of a table while they are filled in."""

    def __init__(self, codes: int, choices: int) -> None:
        self.inward, self.outward, self.each, self.outward_last, self.each_last = (
            np.zeros((codes, choices), dtype=np.int64) for _ in range(5)
        )

    def set_last(self, union: Ints, each: Ints, union_last: Ints, each_last: Ints) -> None:
        """The last code changes nothing: everything is held, at every step."""
        self.inward[-1] = self.outward[-1] = union
        self.each[-1] = each
        self.outward_last[-1], self.each_last[-1] = union_last, each_last

    def add(self, axis: Axis, code: int, states: _States, *, whole: bool) -> None:
        old, new = states.old, states.new
        both = _overlap(new, old, whole=whole).sum(axis=-1)
        inward = _union(axis, new) - _moved(axis, new, old, whole=whole)
        outward = _union(axis, old) - _moved(axis, old, new)
        for rows, values in (
            (self.inward, inward),
            (self.outward, outward),
            (self.each, both),
            (self.outward_last, outward * states.from_last),
            (self.each_last, both * states.from_last),
        ):
            rows[code] += _sum(states.choice, values, rows.shape[1])


def _fill_held(axis: Axis, loops: _Loops, held: _Held, *, whole: bool) -> None:
    temporal = loops.of(Role.TEMPORAL)
    for bucket, fan in _fan_outs(loops):
        for code in range(2 * len(temporal)):
            if axis.used and len(axis.extents) == 1 and code % 2:
                continue  # the advancing loop brings another piece: nothing is held
            states = _transition(axis, loops, temporal, fan, code, bucket)
            if states is not None:
                held.add(axis, code, states, whole=whole)


# -- windows: overlapping pieces of two dims, step by step ----------------------------------------


def _window_table(axis: Axis, loops: _Loops, *, keeps: bool, whole: bool) -> AxisTable:
    temporal = loops.of(Role.TEMPORAL)
    choices = loops.trips.shape[0]
    union, each, first, last, each_last, peak, steps, spread_outer, spread = (
        np.zeros(choices, dtype=np.int64) for _ in range(9)
    )
    outers = np.prod(loops.trips[:, loops.of(Role.OUTER)], axis=1, dtype=np.int64)
    for bucket, fan in _fan_outs(loops):
        choice, tiles, is_first, is_last = _all_steps(axis, loops, temporal, fan, bucket)
        together, sizes = _union(axis, tiles), _sizes(tiles)
        apart = sizes.sum(axis=-1)
        working = tiles.work & is_first[:, None]
        union += _sum(choice, together, choices)
        each += _sum(choice, apart, choices)
        first += _sum(choice, together * is_first, choices)
        last += _sum(choice, together * is_last, choices)
        each_last += _sum(choice, apart * is_last, choices)
        np.maximum.at(peak, choice, sizes.max(axis=-1))
        steps += np.bincount(choice, minlength=choices) // outers
        spread_outer += _sum(choice, np.any(working, axis=-1, keepdims=True)[:, 0], choices)
        spread += _sum(choice, working.sum(axis=-1), choices)
    held = _Held(2 * len(temporal) + 1, choices)
    if keeps:
        _fill_held(axis, loops, held, whole=whole)
        held.set_last(union, each, last, each_last)
    return AxisTable(
        union, each, held.inward, held.outward, held.each, first, last, peak, steps,
        spread_outer, spread, last, each_last, held.outward_last, held.each_last,
    )  # fmt: skip


def _nominal_sizes(extents: tuple[int, ...], dims: tuple[int, ...], trips: Ints) -> Ints:
    sizes = np.empty_like(trips)
    current = [np.full(trips.shape[0], extent, dtype=np.int64) for extent in extents]
    for i, dim in enumerate(dims):
        current[dim] = -(-current[dim] // trips[:, i])
        sizes[:, i] = current[dim]
    return sizes


@dataclass(frozen=True, slots=True)
class _FanOut:
    """Index of every fan-out loop for every instance of c under one p, shape ``(U, F)``."""

    index: dict[int, Ints]
    valid: Bools


def _fan_outs(loops: _Loops) -> Iterator[tuple[Ints, _FanOut]]:
    """Choices in buckets of like fan-out (to the next power of 2), each padded to its largest."""
    fan = loops.of(Role.FANOUT)
    total = np.prod(loops.trips[:, fan], axis=1, dtype=np.int64)
    exponent = np.ceil(np.log2(total)).astype(np.int64)
    steps = np.prod(loops.trips, axis=1, dtype=np.int64)
    # choices of like fan-out together, but no more of them than LIMIT instances at all steps
    order = np.lexsort((np.cumsum(steps) // LIMIT, exponent))
    part = exponent[order] * (int(steps.sum()) // LIMIT + 1) + (np.cumsum(steps) // LIMIT)[order]
    for bucket in np.split(order, np.flatnonzero(np.diff(part)) + 1):
        width = int(total[bucket].max())
        rest = np.broadcast_to(np.arange(width, dtype=np.int64), (total.size, width))
        valid = rest < total[:, None]
        index: dict[int, Ints] = {}
        for loop in reversed(fan):
            index[loop] = rest % loops.trips[:, loop, None]
            rest = rest // loops.trips[:, loop, None]
        yield bucket, _FanOut(index, valid)


def _enumerate(counts: Ints, bucket: Ints) -> tuple[Ints, Ints]:
    """All index tuples of some choices: choice of each row ``(X,)`` and indices ``(X, L)``."""
    total = np.zeros(counts.shape[0], dtype=np.int64)
    total[bucket] = np.prod(counts[bucket], axis=1, dtype=np.int64)
    choice = np.repeat(np.arange(counts.shape[0]), total)
    rest = np.arange(choice.size) - np.repeat(np.cumsum(total) - total, total)
    index = np.empty((choice.size, counts.shape[1]), dtype=np.int64)
    for i in reversed(range(counts.shape[1])):
        index[:, i] = rest % counts[choice, i]
        rest = rest // counts[choice, i]
    return choice, index


@dataclass(frozen=True, slots=True)
class _Tiles:
    """Tiles along one axis: intervals per residue class, ``(classes, X, F)``, empty ones 0..0."""

    low: Ints
    high: Ints
    work: Bools
    """instances that have work, ``(X, F)``"""


def _tiles(axis: Axis, loops: _Loops, choice: Ints, index: dict[int, Ints], fan: _FanOut) -> _Tiles:
    """Tiles for given indices ``(X,)`` of the temporal and outer loops; every fan-out instance."""
    start = [np.zeros((choice.size, 1), dtype=np.int64) for _ in axis.extents]
    end = [np.full((choice.size, 1), extent, dtype=np.int64) for extent in axis.extents]
    for i, dim in enumerate(loops.dims):
        at = fan.index[i][choice] if i in fan.index else index[i][:, None]
        size = loops.sizes[choice, i, None]
        start[dim] = start[dim] + at * size
        end[dim] = np.minimum(end[dim], start[dim] + size)
    work = fan.valid[choice]
    for low, high in zip(start, end, strict=True):
        work = work & (low < high)
    if not axis.used:
        return _Tiles(np.zeros((1, *work.shape), dtype=np.int64), work[None].astype(np.int64), work)
    if len(axis.extents) == 1:
        low, high = np.broadcast_arrays(start[0], end[0])
        return _Tiles(np.where(work, low, 0)[None], np.where(work, high, 0)[None], work)
    return _window_intervals(axis, start, end, work)


def _window_intervals(axis: Axis, start: list[Ints], end: list[Ints], work: Bools) -> _Tiles:
    """Input positions of outputs p in [p0, p1) and taps r in [r0, r1), as exact intervals.

    With g = gcd(stride, dilation), s = stride / g, d = dilation / g, write p = d b + sigma and
    r = s a + rho. Then h + pad = g (s d (a + b) + s sigma + d rho): positions of different
    (sigma, rho) are different, and those of one class are the a + b, which fill an interval.
    """
    common = gcd(axis.stride, axis.dilation)
    s, d = axis.stride // common, axis.dilation // common
    lows, highs = [], []
    for sigma in range(min(d, axis.extents[0])):
        first_b, past_b = -(-(start[0] - sigma) // d), -(-(end[0] - sigma) // d)
        for rho in range(min(s, axis.extents[1])):
            first_a, past_a = -(-(start[1] - rho) // s), -(-(end[1] - rho) // s)
            low, high = first_a + first_b, past_a + past_b - 1
            if axis.size is not None:
                pitch, offset = common * s * d, common * (s * sigma + d * rho) - axis.pad
                low = np.maximum(low, -(offset // pitch))
                high = np.minimum(high, -(-(axis.size - offset) // pitch))
            some = work & (first_a < past_a) & (first_b < past_b) & (low < high)
            lows.append(np.where(some, low, 0))
            highs.append(np.where(some, high, 0))
    return _Tiles(np.stack(lows), np.stack(highs), work)


def _lead(
    loops: _Loops, extents: tuple[int, ...], choice: Ints, index: dict[int, Ints]
) -> tuple[dict[int, Ints], Bools]:
    """Indices of the last step with work inside the given context, and whether there is one.

    The first spatial instance has work whenever any has (its pieces start earliest), so it alone
    decides which steps exist.
    """
    start = [np.zeros(choice.size, dtype=np.int64) for _ in extents]
    end = [np.full(choice.size, extent, dtype=np.int64) for extent in extents]
    last: dict[int, Ints] = {}
    for i, dim in enumerate(loops.dims):
        size = loops.sizes[choice, i]
        if loops.roles[i] is Role.TEMPORAL:
            inner = np.maximum((end[dim] - start[dim] - 1) // size, 0)
            last[i] = index.get(i, inner)
            start[dim] = start[dim] + last[i] * size
        end[dim] = np.minimum(end[dim], start[dim] + size)
    exists = np.ones(choice.size, dtype=np.bool_)
    for low, high in zip(start, end, strict=True):
        exists &= low < high
    return last, exists


@dataclass(frozen=True, slots=True)
class _States:
    """The transitions of one code."""

    choice: Ints
    old: _Tiles
    new: _Tiles
    from_last: Bools
    """those that leave the last step of the axis"""


def _transition(
    axis: Axis, loops: _Loops, temporal: list[int], fan: _FanOut, code: int, bucket: Ints
) -> _States | None:
    """Old and new tiles of every transition of one code that may keep something."""
    fixed = temporal[: (code + 1) // 2]
    advancing = fixed[-1] if code % 2 else None
    outer = loops.of(Role.OUTER)
    counts = loops.trips[:, fixed + outer]
    if advancing is not None:
        counts = counts.copy()
        counts[:, len(fixed) - 1] -= 1
    choice, at = _enumerate(counts, bucket)
    before = {loop: at[:, i] for i, loop in enumerate(fixed + outer)}
    after = dict(before)
    if advancing is not None:
        after[advancing] = before[advancing] + 1
    context = {loop: after[loop] for loop in fixed}
    final, exists = _lead(loops, axis.extents, choice, context)
    if axis.used and len(axis.extents) == 1:
        for loop in set(temporal) - set(fixed):
            exists = exists & (final[loop] == 0)  # else the inner loops end on another piece
    choice = choice[exists]
    if not choice.size:
        return None
    before = {loop: value[exists] for loop, value in before.items()}
    after = {loop: value[exists] for loop, value in after.items()}
    old_last, _ = _lead(loops, axis.extents, choice, {loop: before[loop] for loop in fixed})
    very_last, _ = _lead(loops, axis.extents, choice, {})
    from_last = np.ones(choice.size, dtype=np.bool_)
    for loop in temporal:
        from_last &= old_last[loop] == very_last[loop]
    zero = np.zeros(choice.size, dtype=np.int64)
    old = _tiles(axis, loops, choice, before | old_last, fan)
    new = _tiles(axis, loops, choice, dict.fromkeys(temporal, zero) | after, fan)
    return _States(choice, old, new, from_last)


def _all_steps(
    axis: Axis, loops: _Loops, temporal: list[int], fan: _FanOut, bucket: Ints
) -> tuple[Ints, _Tiles, Bools, Bools]:
    """Tiles of every step and outer instance, and which steps are the first and the last."""
    outer = loops.of(Role.OUTER)
    choice, at = _enumerate(loops.trips[:, temporal + outer], bucket)
    index = {loop: at[:, i] for i, loop in enumerate(temporal + outer)}
    exists = _lead(loops, axis.extents, choice, {loop: index[loop] for loop in temporal})[1]
    choice = choice[exists]
    index = {loop: value[exists] for loop, value in index.items()}
    very_last, _ = _lead(loops, axis.extents, choice, {})
    is_first = np.ones(choice.size, dtype=np.bool_)
    is_last = is_first.copy()
    for loop in temporal:
        is_first &= index[loop] == 0
        is_last &= index[loop] == very_last[loop]
    return choice, _tiles(axis, loops, choice, index, fan), is_first, is_last


def _sum(choice: Ints, values: npt.NDArray[np.generic], choices: int) -> Ints:
    # bincount adds in float64, exact here: a table entry is far below 2**53.
    return np.bincount(choice, weights=values, minlength=choices).astype(np.int64)


def _sizes(tiles: _Tiles) -> Ints:
    sizes: Ints = (tiles.high - tiles.low).sum(axis=0)
    return sizes


def _union(axis: Axis, tiles: _Tiles) -> Ints:
    """Elements that the instances of c under one p need together, ``(X,)``."""
    if not axis.used:
        at_work: Ints = np.any(tiles.work, axis=-1, keepdims=True)[..., 0].astype(np.int64)
        return at_work
    if len(axis.extents) == 1:  # pieces of one dim never overlap
        together: Ints = _sizes(tiles).sum(axis=-1)
        return together
    return _measure(tiles.low, tiles.high)


def _measure(low: Ints, high: Ints) -> Ints:
    """Length of the union of intervals along the last axis, summed over classes (first axis)."""
    if low.shape[-1] == 1:
        alone: Ints = (high - low)[..., 0].sum(axis=0)
        return alone
    order = np.argsort(low, axis=-1, kind="stable")
    low, high = np.take_along_axis(low, order, -1), np.take_along_axis(high, order, -1)
    reach = np.maximum.accumulate(high, axis=-1)
    begin = low.copy()
    begin[..., 1:] = np.maximum(low[..., 1:], reach[..., :-1])
    length: Ints = np.maximum(high - begin, 0).sum(axis=(0, -1))
    return length


def _changed(new: _Tiles, old: _Tiles) -> Bools:
    changed: Bools = ((new.low != old.low) | (new.high != old.high)).any(axis=0)
    return changed


def _moved(axis: Axis, new: _Tiles, old: _Tiles, *, whole: bool = False) -> Ints:
    """Union over instances of what is in ``new`` and not in ``old``, ``(X,)``."""
    if not axis.used:
        comes: Ints = np.any(new.work & ~old.work, axis=-1, keepdims=True)[..., 0].astype(np.int64)
        return comes
    if whole:
        keep = _changed(new, old)[None]
        low, high = np.where(keep, new.low, 0), np.where(keep, new.high, 0)
        return _measure(low, high)
    if len(axis.extents) == 1:
        apart: Ints = (_sizes(new) - _overlap(new, old)).sum(axis=-1)
        return apart
    # new \ old is what lies before the old interval and what lies behind it
    left_high = np.minimum(new.high, old.low)
    right_low = np.maximum(new.low, old.high)
    low = np.concatenate([new.low, np.minimum(right_low, new.high)], axis=-1)
    high = np.concatenate([np.maximum(left_high, new.low), new.high], axis=-1)
    return _measure(low, high)


def _overlap(new: _Tiles, old: _Tiles, *, whole: bool = False) -> Ints:
    """Elements of ``new`` that need not move, for each instance, ``(X, F)``."""
    if whole:
        kept: Ints = np.where(_changed(new, old), 0, _sizes(new))
        return kept
    both = np.minimum(new.high, old.high) - np.maximum(new.low, old.low)
    same: Ints = np.maximum(both, 0).sum(axis=0)
    return same
