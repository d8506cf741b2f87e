"""The mapspace of a layer: which loop nests there are to choose from.

A nest is a sequence of temporal loops, and every (level, tensor) pair has a *cut* in it: the tile
is what the loops inside the cut touch (:mod:`energysim.mapping`). From outside inward a mapping
takes the cuts one after the other. In front of each cut stands a *block* of loops, and only loops
that cut the new tile smaller need to stand there:

**A loop over a dim that the tensor does not use may always be moved behind its cut.** The tile
stays the same, it is fetched less often, and no other cut sees a difference but that the loop may
now be merged with a later one over the same dim, which never makes more pieces. So blocks hold
relevant dims only (:class:`Step`), whatever the order of cuts (:class:`Path`). If the dim is spread
over instances of the tensor's level, these split up behind the loop where cuts of outer levels
demand it (:func:`_late`), and are tried both ways where that can make a difference
(:func:`energysim.mapper.layout.delays`).

Along a dim a mapping is a descending chain of tile sizes. With ceil(ceil(E / a) / b) =
ceil(E / ab), the size of a piece depends on nothing but the product of the trip counts outside it,
so every dim has one list of products that differ in any level's tile size (:class:`Ladder`), and a
tile is a point of the grid of all ladders.

What is left out, so that bounds hold and tiles stay in one piece: a tile must split the last,
shorter piece of an outer tile too (:meth:`Ladder.of`); input tiles hold whole windows or a single
row (:func:`energysim.mapper.bound.window_rule`); a dim is not cut between the fan-out of its
instances and a tile of an outer level (:func:`_kept_together`, :func:`scatters`); instances do not
split up later than they must if that leaves fewer of them work (a bound of their tiles would have
to allow for it); where shares are unequal, one order of loops that only differ in who is without
work when; taps stay inside of outputs in a block (:func:`energysim.mapper.layout.orders`), which a
MAC that latches inputs could do better on; tiles are no smaller than what the array takes at once,
unless nothing fits otherwise.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from itertools import combinations, product
from math import prod

import numpy as np
import numpy.typing as npt

from energysim.axes import RELEVANT, Dim, Shape, Tensor
from energysim.hardware import Hardware
from energysim.mapper.dataflows import Dataflow, Fan, instances, unrollings
from energysim.mapping import held_tensors
from energysim.model.tables import Ints

TAPS = (Dim.R, Dim.S)
REACH = {Dim.R: Dim.P, Dim.S: Dim.Q}
"""The output dim that shares a window with each kernel dim."""

STILL = (Dim.N, Dim.G, Dim.C)
"""Dims whose loops bring wholly new inputs: outermost in a block (:func:`orders`)."""


# -- one dim ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Ladder:
    """Products of trip counts over one dim that differ in the tile size of any level, ascending."""

    extent: int
    trips: Ints
    """of the temporal loops outside a cut; the last one leaves a single step"""
    fans: tuple[int, ...]
    """instances along the dim, for each level and (last) the MACs"""
    reach: tuple[Ints, ...]
    """for each product, the places in ``trips`` of which a tile can follow, itself included"""
    known: list[list[int]] = field(default_factory=list)
    """numbers of chains from each place (:meth:`chains`), as far as known"""

    @cached_property
    def further(self) -> tuple[Ints, Ints]:
        """``reach`` of all products, one after the other, and where each ends."""
        return np.concatenate(self.reach), np.cumsum([places.size for places in self.reach])

    @cached_property
    def lists(self) -> list[list[int]]:
        """As ``reach``."""
        return [places.tolist() for places in self.reach]

    @classmethod
    @lru_cache(maxsize=4096)
    def of(cls, extent: int, fans: tuple[int, ...], *, perfect: bool, beyond: bool) -> Ladder:
        """List the products of a dim.

        Of a tile only such tiles can follow as split its last piece too, however short: else what
        the last piece needs is found again from one pass to the next, and no bound would know. The
        same holds for the share of an instance (the last one, with a shorter share, has no work in
        some steps and forgets its tile).

        Parameters
        ----------
        extent : int
        fans : tuple of int
            Instances along the dim at each level and at the MACs.
        perfect : bool
            Only trip counts that divide.
        beyond : bool
            Also pieces that are smaller than what the array takes at once.
        """
        steps = -(-extent // fans[-1])
        limit = extent if beyond else steps
        every = np.arange(1, limit + 1)
        if perfect:
            every = every[(steps if not beyond else extent) % every == 0]
        sizes = np.array([-(-extent // (every * fan)) for fan in sorted(set(fans))])
        new = np.r_[True, np.any(sizes[:, 1:] != sizes[:, :-1], axis=0)]
        trips = every[new]
        steps_at: list[int] = trips.tolist()
        reach = []
        lengths = {fan: [{-(-extent // fan)}, *(set[int]() for _ in trips[1:])] for fan in fans}
        for place in range(len(steps_at)):
            shortest = {fan: min(own[place], default=0) for fan, own in lengths.items()}
            onward = [place]
            for at, further in _multiples(steps_at, place):
                if perfect and further != steps_at[at]:
                    continue
                if all(shortest[fan] > -(-extent // (steps_at[at] * fan)) for fan in lengths):
                    onward.append(at)
                    for fan, own in lengths.items():
                        piece = -(-extent // (further * fan))
                        own[at] |= {(length - 1) % piece + 1 for length in own[place]}
            reach.append(np.array(onward))
        return cls(extent, trips, tuple(fans), tuple(reach))

    def sizes(self, level: int) -> Ints:
        """Extent of the tile of one instance, for each product."""
        return -(-self.extent // (self.trips * self.fans[level]))

    def chains(self, cuts: int) -> int:
        """Chains of tiles from the whole dim over so many places to a single step."""
        known = self.known
        if not known:
            known.append([1] * self.trips.size)
        while len(known) <= cuts:
            known.append([sum([known[-1][j] for j in places]) for places in self.lists])
        return known[cuts][0]

    @property
    def ends(self) -> Ints:
        """Trip counts that loops which lead to the last product may multiply to."""
        ends: Ints = self.trips * -(-self.trips[-1] // self.trips)
        return ends

    def least_sizes(self, level: int) -> Ints:
        """The same, or less: loops that lead to the last product may make more pieces than it."""
        trips = self.trips.copy()
        trips[-1] = self.ends.max()
        return -(-self.extent // (trips * self.fans[level]))

    def coarse(self) -> Ladder:
        """A few of the products, each about twice the one before, divisors where there are any."""
        last = int(self.trips[-1])
        kept = [0]
        for place, trips in enumerate(self.trips.tolist()):
            if place and (last % trips == 0 or trips >= 2 * int(self.trips[kept[-1]])):
                kept.append(place)
        if kept[-1] != self.trips.size - 1:
            kept.append(self.trips.size - 1)
        some = np.array(kept)
        reach = tuple(np.flatnonzero(np.isin(some, self.reach[place])) for place in kept)
        return Ladder(self.extent, self.trips[some], self.fans, reach)

    def loop(self, outer: int, inner: int) -> int:
        """Smallest trip count that leads from one place to another."""
        low = -(-int(self.trips[inner]) // int(self.trips[outer]))
        while int(np.searchsorted(self.trips, low * self.trips[outer], side="right")) - 1 < inner:
            low += 1
        return low


def _multiples(trips: Sequence[int], place: int) -> Iterator[tuple[int, int]]:
    """Places that a loop can lead to, and the least product that its trip count comes to there."""
    at, outer = place, trips[place]
    while at < len(trips) - 1:
        further = -(-trips[at + 1] // outer) * outer
        at = bisect_right(trips, further) - 1
        yield at, further


# -- one way to use the machine --------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Arrangement:
    """Who holds what and how the array is filled; the rest of a mapping is temporal loops.

    Equal to itself only: what is known about one is looked up by it.
    """

    hardware: Hardware
    shape: Shape
    holds: tuple[frozenset[Tensor], ...]
    fan: Fan
    ladders: tuple[Ladder, ...]
    latch: frozenset[Tensor]
    resident: frozenset[Tensor]

    @property
    def macs(self) -> int:
        """The index that stands for the MACs, one behind the innermost level."""
        return len(self.holds)

    @cached_property
    def axes(self) -> tuple[frozenset[int], ...]:
        """Array axes along which each level, and last the MACs, has instances of its own."""
        every = frozenset(axis for _, axis, _ in self.fan)
        own = [self.hardware.level_axes(level) for level in range(self.macs)]
        return (*own, every.union(*own))

    @cached_property
    def cuts(self) -> tuple[tuple[int, ...], ...]:
        """For each tensor the levels with a cut, outermost first (``macs`` for a latch)."""
        return tuple(
            tuple(level for level in range(1, self.macs) if tensor in self.holds[level])
            + ((self.macs,) if tensor in self.latch else ())
            for tensor in Tensor
        )

    def coarse(self) -> Arrangement:
        """The same with a few tile sizes only, for a first good mapping."""
        return replace(self, ladders=tuple(ladder.coarse() for ladder in self.ladders))

    def outer(self, tensor: Tensor, level: int) -> int:
        """The next outer level that holds a tensor."""
        return max(i for i in range(level) if tensor in self.holds[i])

    @cached_property
    def places(self) -> tuple[int, ...]:
        """For each array axis the level behind whose loops it fans out."""
        first = []
        for axis in range(len(self.hardware.axis_sizes)):
            own = [level for level in range(self.macs) if axis in self.axes[level]]
            first.append(min(own) if own else self.macs)
        return tuple(level - 1 for level in first)

    @cached_property
    def frame(self) -> Frame:
        """What the order of cuts depends on."""
        spread = frozenset((dim, self.places[axis]) for dim, axis, _ in self.fan)
        return Frame(self.cuts, tuple(sorted(spread)), self.macs, self.resident)


def arrangements(
    hardware: Hardware,
    shape: Shape,
    flow: Dataflow,
    *,
    has_weights: bool,
    latch: frozenset[Tensor],
    resident: frozenset[Tensor] = frozenset(),
    perfect: bool = False,
    beyond: bool = False,
) -> list[Arrangement]:
    """Every choice of bypass and unrolling.

    Parameters
    ----------
    hardware, shape
    flow : Dataflow
        As :func:`energysim.mapper.dataflows.of_machine` gives it.
    has_weights : bool
        A layer without weights runs on the vector unit: no unrolling, two levels.
    latch, resident
        Tensors that the MACs keep, and those that stay on chip whole.
    perfect, beyond
        As in :meth:`Ladder.of`.
    """
    base = held_tensors(hardware, has_weights=has_weights)
    if has_weights and not flow.local_reuse:
        base = _outermost_only(base)
    fans: list[Fan] = [()]
    if has_weights:
        extents = dict(zip(Dim, shape.dims, strict=True))
        fans = unrollings(hardware, extents, flow, perfect=perfect)
    found = []
    for holds in _bypasses(hardware, base, has_weights=has_weights, resident=resident):
        for fan in fans:
            own = [hardware.level_axes(level) for level in range(len(holds))]
            every = frozenset(range(len(hardware.axis_sizes)))
            ladders = tuple(
                Ladder.of(
                    shape[dim],
                    tuple(instances(fan, dim, axes) for axes in (*own, every)),
                    perfect=perfect,
                    beyond=beyond,
                )
                for dim in Dim
            )
            found.append(Arrangement(hardware, shape, holds, fan, ladders, latch, resident))
    return found


def _outermost_only(holds: Sequence[frozenset[Tensor]]) -> tuple[frozenset[Tensor], ...]:
    first = {
        tensor: next((i for i, held in enumerate(holds) if i and tensor in held), 0)
        for tensor in Tensor
    }
    return tuple(
        frozenset(tensor for tensor in held if i in {0, first[tensor]})
        for i, held in enumerate(holds)
    )


def _bypasses(
    hardware: Hardware,
    base: Sequence[frozenset[Tensor]],
    *,
    has_weights: bool,
    resident: frozenset[Tensor],
) -> Iterator[tuple[frozenset[Tensor], ...]]:
    """Every choice of tensors that pass levels by; first the one in which none does."""
    options = []
    for level, held in enumerate(base):
        free = hardware.levels[level].optional & held if has_weights else frozenset[Tensor]()
        if level == 1:
            free -= resident
        choices = [c for size in range(len(free) + 1) for c in combinations(sorted(free), size)]
        options.append([held - set(gone) for gone in choices])
    yield from product(*options)


# -- in which order the cuts come ------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Frame:
    """What of an arrangement the order of cuts depends on; layers of a network share it."""

    cuts: tuple[tuple[int, ...], ...]
    spread: tuple[tuple[Dim, int], ...]
    """dims over array axes, and behind which level's loops these fan out"""
    macs: int
    resident: frozenset[Tensor]


Stage = tuple[int, int, int]
"""How many cuts of each tensor have been taken."""


@dataclass(frozen=True, slots=True)
class Step:
    """The next cut, and the loops in front of it."""

    tensor: Tensor
    level: int
    dims: tuple[Dim, ...]
    """over which loops may stand in front of it"""
    after: Stage
    late: bool
    """its instances may split up behind loops further in that leave its tile alone"""


def steps(here: Arrangement, flow: Dataflow, stage: Stage) -> tuple[Step, ...]:
    """What can come next: the next cut of any tensor."""
    return _steps(here.frame, flow, stage)


@lru_cache(maxsize=4096)
def _steps(frame: Frame, flow: Dataflow, stage: Stage) -> tuple[Step, ...]:
    left = [own[taken:] for own, taken in zip(frame.cuts, stage, strict=True)]
    waiting = [tensor for tensor in Tensor if left[tensor]]
    pinned = [t for t in waiting if t in frame.resident and stage[t] == 0]
    # what is on chip whole is there before any loop runs
    return tuple(
        _step(frame, flow, stage, tensor, left[tensor][0]) for tensor in pinned[:1] or waiting
    )


def _step(frame: Frame, flow: Dataflow, stage: Stage, tensor: Tensor, level: int) -> Step:
    after = tuple(taken + (each is tensor) for each, taken in zip(Tensor, stage, strict=True))
    dims = RELEVANT[tensor]
    left = [each for own, taken in zip(frame.cuts, after, strict=True) for each in own[taken:]]
    if level < frame.macs or any(each < frame.macs for each in left):
        dims -= flow.whole  # no loop over it stands outside any memory's tile
    if level == 1 and tensor in frame.resident:
        dims = frozenset()
    dims -= _kept_together(frame, stage)
    if not flow.uneven and level < frame.macs:
        dims = dims.difference(*[RELEVANT[each] for each in _cut_ahead(frame, stage)])
    still = flow.stationary
    if still is not None:
        own = sum(cut < frame.macs for cut in frame.cuts[still])
        if 0 < stage[still] < own:
            dims &= RELEVANT[still]
    stage = (after[0], after[1], after[2])
    return Step(tensor, level, tuple(sorted(dims)), stage, _late(frame, tensor, level, stage))


def _late(frame: Frame, tensor: Tensor, level: int, after: Stage) -> bool:
    """Whether loops that leave a tile alone may come before the cuts that its instances wait for.

    They wait for cuts of levels outside an axis that they have and a dim is spread over.
    """
    ahead = [
        (other, each)
        for other, own, done in zip(Tensor, frame.cuts, after, strict=True)
        for each in own[done:]
    ]
    return level < frame.macs and any(
        place < level
        and dim not in RELEVANT[tensor]
        and any(each <= place for _, each in ahead)
        and any(dim in RELEVANT[other] for other, _ in ahead)
        for dim, place in frame.spread
    )


def _cut_ahead(frame: Frame, stage: Stage) -> list[Tensor]:
    """Tensors whose cut at a level is taken while others at that level, or outside it, are not.

    If all tensors of a level share one cut, it stands behind the last of these, and no loop up to
    there changes the tile of one that was cut before.
    """
    left = [level for cuts, done in zip(frame.cuts, stage, strict=True) for level in cuts[done:]]
    return [
        tensor
        for tensor, done in zip(Tensor, stage, strict=True)
        if done and frame.cuts[tensor][done - 1] >= min(left)
        and not (done == 1 and tensor in frame.resident)
    ]  # fmt: skip


def _kept_together(frame: Frame, stage: Stage) -> frozenset[Dim]:
    """Dims that must not be cut now, for the tiles of outer levels to stay in one piece.

    Once the instances along an axis have split a dim between them, cutting it further gives each a
    part of its own piece, and together they work on scattered parts. A dim that the inner tensor
    does not use may be cut as long as its tile stays: the instances can split up behind the loop
    (:func:`scatters`).
    """
    left = [level for cuts, done in zip(frame.cuts, stage, strict=True) for level in cuts[done:]]
    scattered = set[Dim]()
    for dim, place in frame.spread:
        taken = [
            tensor
            for tensor, done in zip(Tensor, stage, strict=True)
            if any(place < level < frame.macs for level in frame.cuts[tensor][:done])
        ]
        if any(level <= place for level in left) and any(dim in RELEVANT[each] for each in taken):
            scattered.add(dim)
    return frozenset(scattered)


Path = tuple[Step, ...]


def paths(here: Arrangement, flow: Dataflow) -> Iterator[Path]:
    """Every order of the cuts."""

    def follow(stage: Stage, before: Path) -> Iterator[Path]:
        following = steps(here, flow, stage)
        if not following:
            yield before
        for step in following:
            yield from follow(step.after, (*before, step))

    yield from follow((0, 0, 0), ())


def scatters(here: Arrangement, path: Path, before: Ints, tile: Ints) -> npt.NDArray[np.bool_]:
    """Which tiles of the last step would be in scattered parts (:func:`_kept_together`).

    Parameters
    ----------
    here : Arrangement
    path : Path
    before : int array, shape (n, steps - 1, 8)
        Places of the steps before.
    tile : int array, shape (8, n)
        Places of the last step.
    """
    found: npt.NDArray[np.bool_] = np.zeros(tile.shape[1], dtype=np.bool_)
    if len(path) == 1:
        return found
    taken = {(step.tensor, step.level) for step in path[:-1]}
    left = [level for t in Tensor for level in here.cuts[t] if (t, level) not in taken]
    for dim, axis, _ in here.fan:
        place = here.places[axis]
        if not any(level <= place for level in left):
            continue
        cut = tile[dim] != before[:, -1, dim]
        for i, step in enumerate(path[:-1]):
            if place < step.level < here.macs:
                own = sorted(RELEVANT[step.tensor] | across(here, path[:-1], step.level))
                found |= cut & np.any(before[:, i][:, own] != tile[own].T, axis=1)
    return found


def across(here: Arrangement, taken: Path, level: int) -> set[Dim]:
    """Dims that have split up already, between instances that a level knows nothing of."""
    return {
        dim
        for dim, axis, _ in here.fan
        if axis not in here.axes[level]
        and any(here.places[axis] < step.level < here.macs for step in taken)
    }


def spread_over(here: Arrangement, tensor: Tensor, level: int) -> frozenset[Dim]:
    """Dims spread over the instances of a cut that leave its tile alone."""
    return frozenset(
        dim
        for dim, axis, _ in here.fan
        if level < here.macs and axis in here.axes[level] and dim not in RELEVANT[tensor]
    )


def size_of(here: Arrangement, flow: Dataflow) -> int:
    """Mappings in an arrangement: orders of cuts times chains of tile sizes.

    Counts also those few that :func:`scatters` leaves out.

    Loop orders inside a block are counted apart, see :func:`orders`.
    """
    ladders = here.ladders
    wide = [dim for dim in Dim if ladders[dim].trips.size > 1]
    return sum(
        many * prod(ladders[dim].chains(cuts[dim]) for dim in wide)
        for cuts, many in _forms(here.frame, flow).items()
    )


@lru_cache(maxsize=256)
def _forms(frame: Frame, flow: Dataflow) -> dict[tuple[int, ...], int]:
    """Orders of cuts by how many of their blocks may hold a loop over each dim."""
    total: dict[tuple[Stage, tuple[int, ...]], int] = {((0, 0, 0), (0,) * len(Dim)): 1}
    forms: dict[tuple[int, ...], int] = {}
    while total:
        ahead: dict[tuple[Stage, tuple[int, ...]], int] = {}
        for (stage, cuts), many in total.items():
            following = _steps(frame, flow, stage)
            if not following:
                forms[cuts] = forms.get(cuts, 0) + many
            for step in following:
                more = tuple(used + (dim in step.dims) for dim, used in zip(Dim, cuts, strict=True))
                ahead[step.after, more] = ahead.get((step.after, more), 0) + many
        total = ahead
    return forms
