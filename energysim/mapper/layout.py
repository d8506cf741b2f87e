"""From tiles to loops: the nest that a row of cuts stands for, and the orders inside its blocks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, permutations, product

import numpy as np
import numpy.typing as npt

from energysim.axes import RELEVANT, Dim, Tensor
from energysim.mapper.space import (
    STILL,
    TAPS,
    Arrangement,
    Path,
    Step,
    across,
    spread_over,
)
from energysim.mapping import Loop, Nest
from energysim.model.tables import Ints

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Layout:
    """The nest that all tile sizes of one order of cuts share."""

    nest: Nest
    trips: Ints
    blocks: tuple[tuple[int, ...], ...]
    """positions of the temporal loops of each block"""
    opened: Mapping[int, Ints]
    """for each array axis the tiles in front of its fan-out, as places in the ladders, (B, 8)"""


def lay_out(
    here: Arrangement, path: Path, places: Ints, far: frozenset[int] = frozenset()
) -> Layout:
    """Write tiles as loops.

    A cut of inner instances stands further inside, as far as its tile stays the same, if cuts of
    outer levels are still to come: the instances must not split up before these.

    Parameters
    ----------
    here : Arrangement
    path : Path
    places : int array, shape (B, steps, 8)
        The tile of each step, as places in the ladders. All leave the tiles of such cuts alone for
        as long (:func:`kept_until`).
    far : frozenset of int
        Steps whose cuts stand as far inside as their tiles stay the same in any case.
    """
    writing = _Writing(here, path, places.shape[0])
    for i, (step, new) in enumerate(zip(path, places.transpose(1, 0, 2), strict=True)):
        writing.block(step.dims, new)
        if step.level < here.macs:
            writing.late.append(i)
            done = [j for j in writing.late if j not in far]
            writing.cut(j for j in done if not _waits(here, path[j], path[i + 1 :]))
    last = np.array([[ladder.trips.size - 1 for ladder in here.ladders]])
    if writing.late:
        ends = writing.before.copy()
        ends[:, writing.idle] = last[:, writing.idle]
        writing.block(writing.idle, ends)
        writing.cut(list(writing.late))
    writing.block(ORDER, np.broadcast_to(last, writing.before.shape))
    writing.fan_out(here.macs + 1)
    loops, columns = writing.loops, writing.columns
    nest = Nest(tuple(loops), _cuts(here, writing.at), here.axes[: here.macs])
    trips = np.stack(columns, axis=1) if columns else np.empty((len(places), 0), dtype=np.int64)
    return Layout(nest, trips, tuple(writing.blocks), writing.opened)


ORDER = (*STILL, Dim.K, Dim.P, Dim.Q, *TAPS)
"""In which the loops of a block are written down."""


class _Writing:
    """A nest that grows inward."""

    def __init__(self, here: Arrangement, path: Path, batch: int) -> None:
        self.here, self.path = here, path
        self.loops: list[Loop] = []
        self.columns: list[Ints] = []
        self.blocks: list[tuple[int, ...]] = []
        self.at: dict[tuple[int, Tensor], int] = {}
        self.late: list[int] = []
        """steps whose cuts may stand further inside"""
        self.opened: dict[int, Ints] = {}
        self.waiting = {axis: here.places[axis] for _, axis, _ in here.fan}
        """axes that have not fanned out, and behind which level's loops they do"""
        self.before = np.zeros((batch, len(Dim)), dtype=np.int64)

    @property
    def idle(self) -> list[Dim]:
        """Dims that leave the tiles of all waiting cuts alone."""
        stops = frozenset[Dim]().union(*(self._stops(self.path[i]) for i in self.late))
        return [dim for dim in ORDER if dim not in stops]

    def block(self, dims: Sequence[Dim], after: Ints) -> None:
        """Add the loops that lead to the next tile, behind the cuts whose tiles they change."""
        moved = [dim for dim in ORDER
                 if dim in dims and np.any(after[:, dim] != self.before[:, dim])]  # fmt: skip
        self.cut([i for i in self.late if self._stops(self.path[i]).intersection(moved)])
        self.blocks.append(tuple(range(len(self.loops), len(self.loops) + len(moved))))
        for dim in moved:
            self.loops.append(Loop(dim))
            self.columns.append(_trips(self.here, dim, self.before[:, dim], after[:, dim]))
        self.before = after.copy()

    def _stops(self, step: Step) -> frozenset[Dim]:
        """Dims over which no loop may stand in front of a waiting cut."""
        own = self.here.axes[step.level]
        split = {dim for dim, axis, _ in self.here.fan if axis not in self.waiting.keys() | own}
        return RELEVANT[step.tensor] | split

    def cut(self, steps: Iterable[int]) -> None:
        """Put cuts here; their instances split up."""
        for i in list(steps):
            if i in self.late:
                step = self.path[i]
                self.cut([j for j in self.late if self._before(self.path[j], step)])
                self.fan_out(step.level)
                self.at[step.level, step.tensor] = len(self.loops)
                self.late.remove(i)

    def _before(self, waiting: Step, step: Step) -> bool:
        """Whether a waiting cut can't wait longer: for an inner one of its tensor, or of an axis.

        Loops behind the fan-out of an axis that its level does not have must stay inside of it.
        """
        if waiting.tensor is step.tensor:
            return waiting.level < step.level
        return any(waiting.level <= place < step.level for place in self.waiting.values())

    def fan_out(self, level: int) -> None:
        """Add the spatial loops in front of a level."""
        opened = [axis for axis, place in self.waiting.items() if place < level]
        for axis in sorted(opened, key=self.waiting.__getitem__):
            del self.waiting[axis]
            self.opened[axis] = self.before
            for dim, own, size in self.here.fan:
                if own == axis:
                    spread = _spread(
                        self.here, dim, size, self.before[:, dim], self.loops, self.columns
                    )
                    self.loops.append(Loop(dim, axis))
                    self.columns.append(spread)


def _waits(here: Arrangement, step: Step, ahead: Path) -> bool:
    """Whether a cut's instances wait for a cut to come, of a level outside one of their axes."""
    return step.late and any(
        here.places[axis] < step.level and any(each.level <= here.places[axis] for each in ahead)
        for _, axis, _ in here.fan
    )


def delays(here: Arrangement, path: Path, places: Ints) -> list[frozenset[int]]:
    """Choices of cuts that may stand further inside and so make a difference (:func:`lay_out`).

    Their instances split up behind loops over a dim that leaves the tile alone. Then they do not
    work on one stretch of that dim each, but all together on one stretch after the other. That
    matters where the stretches of neighbours overlap or are of unequal length only. A dim that is
    spread over axes of different levels stays as it is.
    """
    candidates = []
    last = [ladder.trips.size - 1 for ladder in here.ladders]
    for i, step in enumerate(path):
        dims = spread_over(here, step.tensor, step.level)
        if any(_nested(here, dim) for dim in dims):
            continue
        for dim in dims:
            cut = np.any(places[:, i, dim] != last[dim])
            if cut and (_overlaps(here, dim) or _ragged(here, dim, places)):
                candidates.append(i)
                break
    return [
        frozenset(some) for n in range(len(candidates) + 1) for some in combinations(candidates, n)
    ]


def _nested(here: Arrangement, dim: Dim) -> bool:
    return len({here.places[axis] for each, axis, _ in here.fan if each is dim}) > 1


def _overlaps(here: Arrangement, dim: Dim) -> bool:
    windows = {Dim.P: Dim.R, Dim.R: Dim.P, Dim.Q: Dim.S, Dim.S: Dim.Q}
    return dim in windows and here.shape[windows[dim]] > 1


def _ragged(here: Arrangement, dim: Dim, places: Ints) -> bool:
    ladder = here.ladders[dim]
    trips = ladder.trips[np.append(np.unique(places[:, :, dim]), -1)]
    return bool(np.any(ladder.extent % (trips * ladder.fans[-1])))


def kept_until(path: Path, places: Ints, here: Arrangement) -> Ints:
    """Steps up to which each cut that may stand further inside keeps its tile, shape (B, n)."""
    columns = [np.zeros(places.shape[0], dtype=np.int64)]
    for i, step in enumerate(path):
        if step.late or spread_over(here, step.tensor, step.level):
            for dims in (RELEVANT[step.tensor], across(here, path, step.level)):
                own = sorted(dims)
                same = np.all(places[:, i:][:, :, own] == places[:, i : i + 1][:, :, own], axis=2)
                columns.append(np.where(same.all(axis=1), len(path), np.argmin(same, axis=1) + i))
    return np.stack(columns, axis=1)


def _cuts(
    here: Arrangement, at: Mapping[tuple[int, Tensor], int]
) -> tuple[tuple[int | None, int | None, int | None], ...]:
    """Cuts of every level and tensor; those of the outermost level stand in front of all loops."""
    rows = [
        [at.get((level, tensor), 0) if tensor in held else None for tensor in Tensor]
        for level, held in enumerate(here.holds)
    ]
    return tuple((row[0], row[1], row[2]) for row in rows)


def _trips(here: Arrangement, dim: Dim, outer: Ints, inner: Ints) -> Ints:
    ladder = here.ladders[dim]
    known: dict[tuple[int, int], int] = {}
    pairs = list(zip(outer.tolist(), inner.tolist(), strict=True))
    for pair in pairs:
        if pair not in known:
            known[pair] = ladder.loop(*pair)
    return np.array([known[pair] for pair in pairs], dtype=np.int64)


def _spread(
    here: Arrangement, dim: Dim, size: int, at: Ints, loops: Sequence[Loop], columns: Sequence[Ints]
) -> Ints:
    """Instances that get work: the fewest that leave pieces as small as all of them would."""
    ladder = here.ladders[dim]
    left = -(-ladder.extent // ladder.trips[at])
    for loop, trips in zip(loops, columns, strict=False):
        if loop.dim is dim and loop.axis is not None:
            left = -(-left // trips)
    some = np.minimum(size, left)
    spread: Ints = -(-left // -(-left // some))
    return spread


def orders(layout: Layout) -> list[tuple[int, ...]]:
    """Ranks of the loops for every order inside the blocks that can differ in cost.

    Where a loop stands in its block makes a difference to ``input``. ``weight`` and ``output``
    count the loops outside their cut, whatever their order (a tile that a block leaves as it is has
    a cut further out that is as good); but where a cut of ``weight`` follows a block of ``output``
    at once, it stays over P and Q only if these stand inside of K, so each order counts it as well.
    Of an input tile something is found again when loop j advances only if neither j nor a loop
    inside it is over N, G or C. So these stand outermost in their block. The others are tried in
    every order, but taps stay inside of outputs: moving a kernel over a row finds all but its shift
    again, moving a row over the kernel nothing.

    Where instances have unequal shares, one that has no work in a step forgets its tile, and other
    orders may be a little better or worse: the mapspace has the one order only.
    """
    loops = layout.nest.loops
    variants: list[list[tuple[int, ...]]] = []
    for positions in layout.blocks:
        still = [i for i in positions if loops[i].dim in STILL]
        moving = [i for i in positions if loops[i].dim in {Dim.K, Dim.P, Dim.Q}]
        taps = [i for i in positions if loops[i].dim in TAPS]
        if not {loops[i].dim for i in moving} & {Dim.P, Dim.Q}:
            tried = [tuple(moving)]
        else:
            tried = list(permutations(moving))
        tapped = list(permutations(taps))
        variants.append([(*still, *a, *b) for a in tried for b in tapped])
    found: dict[object, tuple[int, ...]] = {}
    for chosen in product(*variants):
        rank = list(range(len(loops)))
        for positions, order in zip(layout.blocks, chosen, strict=True):
            for place, position in zip(sorted(positions), order, strict=True):
                rank[position] = place
        found.setdefault(_seen_by_inputs(layout.nest, rank), tuple(rank))
    return list(found.values())


def _seen_by_inputs(nest: Nest, rank: Sequence[int]) -> object:
    """What of an order the counts of ``input`` depend on."""
    seen = []
    for level in nest.holders(Tensor.INPUT)[1:]:
        cut = nest.cuts[level][Tensor.INPUT] or 0
        outside = [i for i in range(cut) if nest.loops[i].axis is None]
        outside.sort(key=rank.__getitem__)
        last = max((n for n, i in enumerate(outside) if nest.loops[i].dim in STILL), default=-1)
        seen.append((frozenset(outside[: last + 1]), tuple(outside[last + 1 :])))
    return tuple(seen)
