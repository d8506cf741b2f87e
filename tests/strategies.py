"""Random layers and mappings, small enough to walk, for the comparison of model and oracle."""

from __future__ import annotations

import random
from collections.abc import Sequence
from math import prod
from typing import NamedTuple

from hypothesis import strategies as st

from energysim.axes import Dim, Shape, Tensor
from energysim.mapping import Loop, Nest, Rules

Cuts = tuple[int | None, int | None, int | None]

LARGEST = (2, 2, 4, 5, 7, 5, 3, 3)
"""largest extent of each dim"""
MAX_MACS = 160
"""largest product of the extents"""
MAX_POINTS = 1200
"""largest product of all trip counts (steps times MACs of the array)"""


class Case(NamedTuple):
    """Everything that one walk needs."""

    shape: Shape
    nest: Nest
    trips: tuple[int, ...]
    rules: Rules


def cases() -> st.SearchStrategy[Case]:
    """Random (shape, nest, trips, rules) for hypothesis."""
    return st.builds(random_case, st.randoms(use_true_random=False))


def random_case(rng: random.Random) -> Case:
    """One random (shape, nest, trips, rules); the same distribution as :func:`cases`.

    Two to four levels, bypass, ragged and too many trips, loops of one dim over several levels,
    spatial loops on up to two axes, uneven cuts, and every rule.
    """
    shape = random_shape(rng)
    levels = rng.randint(2, 4)
    axes, macs_axes = random_axes(rng, levels)
    loops, starts = random_loops(rng, shape, axes, macs_axes)
    cuts = level_cuts(rng, starts)
    nest = Nest(tuple(loops), tuple(cuts), tuple(axes))
    if rng.random() < 0.5:
        nest = shift_cuts(rng, nest)
    if rng.random() < 0.2:
        nest = swap_loops(rng, nest)
    trips = random_trips(rng, shape, nest.loops)
    return Case(shape, nest, trips, random_rules(rng, levels))


def is_valid(nest: Nest) -> bool:
    """Whether cuts grow inward, and no loop inside a cut stands before an outside one of its dim.

    The closed form needs both; the walk does not need the second.
    """
    for tensor in Tensor:
        previous = 0
        for level in nest.holders(tensor):
            cut = nest.cuts[level][tensor]
            if cut is None or cut < previous:
                return False
            previous = cut
            entered: set[Dim] = set()
            for position, loop in enumerate(nest.loops):
                outside = position < cut if loop.axis is None else loop.axis in nest.axes[level]
                if not outside:
                    entered.add(loop.dim)
                elif loop.dim in entered:
                    return False
    return True


def random_shape(rng: random.Random) -> Shape:
    """Draw a layer: any kernel, stride, dilation and padding, exact, cropped or lopsided."""
    dims = [1] * len(Dim)
    order = list(Dim)
    rng.shuffle(order)
    for dim in order:
        dims[dim] = rng.randint(1, max(1, min(LARGEST[dim], MAX_MACS // prod(dims))))
    sides = [random_side(rng, dims[p], dims[r]) for p, r in ((Dim.P, Dim.R), (Dim.Q, Dim.S))]
    (stride_h, dilation_h, pad_h, height), (stride_w, dilation_w, pad_w, width) = sides
    return Shape(
        (dims[0], dims[1], dims[2], dims[3], dims[4], dims[5], dims[6], dims[7]),
        stride=(stride_h, stride_w),
        dilation=(dilation_h, dilation_w),
        pad=(pad_h, pad_w),
        size=(height, width),
    )


def random_side(rng: random.Random, out: int, taps: int) -> tuple[int, int, int, int]:
    """Stride, dilation, padding and input size along one side with ``out`` pixels."""
    stride, dilation, pad = rng.randint(1, 3), rng.randint(1, 2), rng.randint(0, 2)
    reach = (out - 1) * stride + (taps - 1) * dilation + 1
    kind = rng.randint(0, 3)
    if kind == 0:  # cropped: the input goes on behind the last pixel
        below = -rng.randint(0, 4)
    elif kind == 1:  # lopsided padding
        below = rng.randint(0, 2)
    else:  # the usual formula, floored
        below = pad - rng.randint(0, stride - 1)
    return stride, dilation, pad, max(1, reach - pad - below)


def random_axes(rng: random.Random, levels: int) -> tuple[list[frozenset[int]], frozenset[int]]:
    """Array axes of every level, growing inward, and of the MACs."""
    count = rng.choice((0, 1, 1, 2, 2))
    begins = [rng.randint(1, levels) for _ in range(count)]  # == levels: only MACs fan out
    axes = [frozenset(a for a in range(count) if begins[a] <= level) for level in range(levels)]
    return axes, frozenset(range(count))


def random_loops(
    rng: random.Random, shape: Shape, axes: Sequence[frozenset[int]], macs_axes: frozenset[int]
) -> tuple[list[Loop], list[int]]:
    """Temporal loops of each level and then spatial ones into the next, and where levels start."""
    wide = [dim for dim in Dim if shape[dim] > 1] or [Dim.K]
    segments: list[tuple[list[Loop], list[Loop]]] = []
    for level, own in enumerate(axes):
        below = axes[level + 1] if level + 1 < len(axes) else macs_axes
        temporal = [Loop(dim) for dim in wide if rng.random() < 0.4]
        if rng.random() < 0.1:
            temporal.append(Loop(rng.choice(list(Dim))))
        spatial = [
            Loop(rng.choice(wide), axis)
            for axis in sorted(below - own)
            for _ in range(rng.choice((1, 1, 2)))
        ]
        segments.append((temporal, spatial))
    used = {loop.dim for parts in segments for part in parts for loop in part}
    for dim in wide:
        if dim not in used:
            rng.choice(segments)[0].append(Loop(dim))
    loops: list[Loop] = []
    starts: list[int] = []
    for temporal, spatial in segments:
        starts.append(len(loops))
        rng.shuffle(temporal)
        rng.shuffle(spatial)
        loops += [*temporal, *spatial]
    return loops, starts


def level_cuts(rng: random.Random, starts: Sequence[int]) -> list[Cuts]:
    """Cuts where the levels start; the outermost level holds everything, others a subset."""
    cuts: list[Cuts] = [(0, 0, 0)]
    for start in starts[1:]:
        held = [start if rng.random() < 0.7 else None for _ in Tensor]
        cuts.append((held[0], held[1], held[2]))
    return cuts


def shift_cuts(rng: random.Random, nest: Nest) -> Nest:
    """Move some cuts to other places where they are valid: an uneven mapping."""
    for level in range(1, nest.levels):
        for tensor in Tensor:
            cut = nest.cuts[level][tensor]
            if cut is None or rng.random() < 0.4:
                continue
            moved = list(nest.cuts[level])
            moved[tensor] = min(max(0, cut + rng.randint(-4, 4)), len(nest.loops))
            cuts = list(nest.cuts)
            cuts[level] = (moved[0], moved[1], moved[2])
            shifted = Nest(nest.loops, tuple(cuts), nest.axes)
            if is_valid(shifted):
                nest = shifted
    return nest


def swap_loops(rng: random.Random, nest: Nest) -> Nest:
    """Swap some neighbouring loops where that is valid: spatial loops may stand anywhere."""
    for _ in range(rng.randint(1, 4)):
        if len(nest.loops) < 2:
            break
        loops = list(nest.loops)
        at = rng.randrange(len(loops) - 1)
        loops[at], loops[at + 1] = loops[at + 1], loops[at]
        swapped = Nest(tuple(loops), nest.cuts, nest.axes)
        if is_valid(swapped):
            nest = swapped
    return nest


def random_trips(rng: random.Random, shape: Shape, loops: Sequence[Loop]) -> tuple[int, ...]:
    """Trip counts that cut every dim to single indices, ragged and with idle trips now and then."""
    last = {loop.dim: position for position, loop in enumerate(loops)}
    sizes = {dim: shape[dim] for dim in Dim}
    trips: list[int] = []
    for position, loop in enumerate(loops):
        size = sizes[loop.dim]
        count = size if last[loop.dim] == position else rng.randint(1, min(4, size + 1))
        if rng.random() < 0.05:
            count += 1
        sizes[loop.dim] = -(-size // count)
        trips.append(count)
    if prod(trips) <= MAX_POINTS:
        return tuple(trips)
    # Too much to walk: leave each dim to its innermost loop alone.
    return tuple(
        shape[loop.dim] if last[loop.dim] == position else 1 for position, loop in enumerate(loops)
    )


def random_rules(rng: random.Random, levels: int) -> Rules:
    """How data moves, every rule on or off."""
    return Rules(
        multicast=rng.random() < 0.7,
        reduce=rng.random() < 0.7,
        refetch=frozenset(level for level in range(1, levels) if rng.random() < 0.2),
        count_padding=rng.random() < 0.3,
        latch=frozenset(tensor for tensor in Tensor if rng.random() < 0.25),
    )
