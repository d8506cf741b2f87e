"""From tiles to loops: the nest that a row of cuts stands for, and the orders inside its blocks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import permutations, product

import numpy as np
import numpy.typing as npt

from energysim.axes import Dim, Tensor
from energysim.mapper.space import (
    STILL,
    TAPS,
    Arrangement,
    Path,
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


def lay_out(here: Arrangement, path: Path, places: Ints) -> Layout:
    """Write tiles as loops.

    Parameters
    ----------
    here : Arrangement
    path : Path
    places : int array, shape (B, steps, 8)
        The tile of each step, as places in the ladders.
    """
    batch = places.shape[0]
    loops: list[Loop] = []
    columns: list[Ints] = []
    blocks = []
    at: dict[tuple[int, Tensor], int] = {}
    waiting = {axis: here.place(axis) for axis in dict.fromkeys(axis for _, axis, _ in here.fan)}
    before = np.zeros((batch, len(Dim)), dtype=np.int64)
    last = np.array([[ladder.trips.size - 1 for ladder in here.ladders]])

    def block(dims: Sequence[Dim], after: Ints) -> None:
        positions = []
        for dim in dims:
            if np.any(after[:, dim] != before[:, dim]):
                positions.append(len(loops))
                loops.append(Loop(dim))
                columns.append(_trips(here, dim, before[:, dim], after[:, dim]))
        blocks.append(tuple(positions))
        before[:] = after

    def fan_out(level: int) -> None:
        opened = [axis for axis, place in waiting.items() if place < level]
        for axis in sorted(opened, key=waiting.__getitem__):
            del waiting[axis]
            for dim, own, size in here.fan:
                if own == axis:
                    loops.append(Loop(dim, axis))
                    columns.append(_spread(here, dim, size, before[:, dim], loops, columns))

    order = (*STILL, Dim.K, Dim.P, Dim.Q, *TAPS)
    for step, new in zip(path, places.transpose(1, 0, 2), strict=True):
        block([dim for dim in order if dim in step.dims], new)
        if step.level < here.macs:
            fan_out(step.level)
            at[step.level, step.tensor] = len(loops)
    block(order, np.broadcast_to(last, before.shape))
    fan_out(here.macs + 1)
    nest = Nest(tuple(loops), _cuts(here, at), here.axes[: here.macs])
    trips = np.stack(columns, axis=1) if columns else np.empty((batch, 0), dtype=np.int64)
    return Layout(nest, trips, tuple(blocks))


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
    orders may be a little better or worse: the mapspace has these.
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
