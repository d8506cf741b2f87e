"""Lower bounds of DRAM traffic are never above what a mapping moves."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from math import prod

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import (
    Case,
    cases,
    level_cuts,
    random_axes,
    random_loops,
    random_rules,
    random_shape,
    random_side,
    shift_cuts,
    swap_loops,
)

from energysim.axes import Dim, Shape, Tensor
from energysim.mapping import Loop, Nest, Rules
from energysim.model.bounds import (
    communication_bound,
    compulsory_elements,
    touched_inputs,
    window_reuse,
)
from energysim.model.counts import Counts, count

SIDES = ((Dim.P, Dim.R), (Dim.Q, Dim.S))
LARGEST_ARRAY = 512
"""most processing elements of a random mapping"""

shapes = st.builds(random_shape, st.randoms(use_true_random=False))


def positions(shape: Shape, side: int, *, count_padding: bool) -> list[int]:
    """Input row (side 0) or column of every output pixel and tap; padding only if it counts."""
    out, tap = SIDES[side]
    found = (
        p * shape.stride[side] + r * shape.dilation[side] - shape.pad[side]
        for p in range(shape[out])
        for r in range(shape[tap])
    )
    return [h for h in found if count_padding or 0 <= h < shape.size[side]]


# -- inputs ----------------------------------------------------------------------------------------


@settings(max_examples=3 * settings.default.max_examples)
@given(shape=shapes, count_padding=st.booleans())
def test_touched_inputs_are_a_set(*, shape: Shape, count_padding: bool) -> None:
    rows, columns = (
        len(set(positions(shape, side, count_padding=count_padding))) for side in (0, 1)
    )
    expected = shape[Dim.N] * shape[Dim.G] * shape[Dim.C] * rows * columns
    assert touched_inputs(shape, count_padding=count_padding) == expected


def test_inputs_of_a_downsampling_layer() -> None:
    """1 x 1 kernels at stride 2 read a quarter of the image (ResNet-18, layer 2)."""
    shape = Shape((1, 1, 128, 64, 28, 28, 1, 1), stride=(2, 2), size=(56, 56))
    assert touched_inputs(shape) == 50_176
    assert shape.elements(Tensor.INPUT) == 4 * 50_176


@settings(max_examples=3 * settings.default.max_examples)
@given(shapes)
def test_window_reuse_is_the_largest_there_is(shape: Shape) -> None:
    """It is reached where the output is as wide as the kernel reaches."""
    most, wide = 1, True
    for side, (out, tap) in enumerate(SIDES):
        found = Counter(positions(shape, side, count_padding=True))
        most *= max(found.values())
        wide &= (shape[out] - 1) * shape.stride[side] >= (shape[tap] - 1) * shape.dilation[side]
    assert most <= window_reuse(shape) <= shape[Dim.R] * shape[Dim.S]
    assert most == window_reuse(shape) or not wide


# -- compulsory traffic ----------------------------------------------------------------------------


def dram_traffic(counts: Counts) -> dict[Tensor, int]:
    """Elements of each tensor that cross the outermost level's boundary."""
    return {
        tensor: int(counts(0, tensor, "read")[0] + counts(0, tensor, "update")[0])
        for tensor in Tensor
    }


@settings(max_examples=2 * settings.default.max_examples)
@given(cases())
def test_no_mapping_moves_less_than_every_element_once(case: Case) -> None:
    counts = count(case.shape, case.nest, np.array([case.trips]), case.rules)
    moved = dram_traffic(counts)
    bound = compulsory_elements(case.shape, count_padding=case.rules.count_padding)
    assert all(bound[tensor] <= moved[tensor] for tensor in Tensor)
    assert bound[Tensor.OUTPUT] <= int(counts(0, Tensor.OUTPUT, "update")[0])


@settings(max_examples=settings.default.max_examples // 2)
@given(shape=shapes, count_padding=st.booleans())
def test_a_buffer_for_everything_moves_just_that(*, shape: Shape, count_padding: bool) -> None:
    nest = Nest(tuple(map(Loop, Dim)), ((0, 0, 0), (0, 0, 0)), (frozenset(), frozenset()))
    rules = Rules(count_padding=count_padding)
    counts = count(shape, nest, np.array([shape.dims]), rules)
    assert dram_traffic(counts) == compulsory_elements(shape, count_padding=count_padding)


# -- communication ---------------------------------------------------------------------------------


def macs_on_data(shape: Shape, rules: Rules) -> int:
    """MACs whose input element is really moved; those on padding read nothing."""
    windows = prod(
        len(positions(shape, side, count_padding=rules.count_padding)) for side in (0, 1)
    )
    return windows * prod(shape[dim] for dim in (Dim.N, Dim.G, Dim.K, Dim.C))


def capacity(case: Case, counts: Counts) -> int:
    """Elements that everything inside the outermost level holds.

    The MACs count as well: with the operands they keep from step to step (latch), and with those
    that reach them from the outermost level directly, which are nowhere else while in use.
    """
    used = [int(instances[0]) for instances in counts.used]
    tiles = sum(
        int(counts(level, tensor, "tile")[0]) * prod(used[axis] for axis in case.nest.axes[level])
        for level in range(1, case.nest.levels)
        for tensor in Tensor
    )
    operands = sum(
        tensor in case.rules.latch or case.nest.holders(tensor) == (0,) for tensor in Tensor
    )
    return tiles + operands * prod(used)


def bound_and_traffic(case: Case) -> tuple[int, int]:
    """Proved and counted elements at the outermost boundary."""
    counts = count(case.shape, case.nest, np.array([case.trips]), case.rules)
    macs, room = macs_on_data(case.shape, case.rules), capacity(case, counts)
    bound = communication_bound(macs, window_reuse(case.shape), room)
    return bound, sum(dram_traffic(counts).values())


def random_large_case(rng: random.Random) -> Case:
    """Draw a layer with K, C, P, Q of at least 4, too large to walk, and any mapping of it."""
    n, k, c, p, q = rng.choice((1, 1, 2)), *(rng.randint(4, 20) for _ in range(4))
    r, s = rng.choice((1, 1, 2, 3, 5)), rng.choice((1, 1, 2, 3))
    high, wide = random_side(rng, p, r), random_side(rng, q, s)
    stride, dilation, pad, size = (pair for pair in zip(high, wide, strict=True))
    shape = Shape((n, 1, k, c, p, q, r, s), stride, dilation, pad, size)
    levels = rng.randint(2, 4)
    axes, macs_axes = random_axes(rng, levels)
    loops, starts = random_loops(rng, shape, axes, macs_axes)
    nest = Nest(tuple(loops), tuple(level_cuts(rng, starts)), tuple(axes))
    if rng.random() < 0.5:
        nest = shift_cuts(rng, nest)
    if rng.random() < 0.2:
        nest = swap_loops(rng, nest)
    return Case(shape, nest, any_trips(rng, shape, nest.loops), random_rules(rng, levels))


def any_trips(rng: random.Random, shape: Shape, loops: Sequence[Loop]) -> tuple[int, ...]:
    """Trip counts down to single elements, the array not too large."""
    last = {loop.dim: position for position, loop in enumerate(loops)}
    sizes, trips, array = list(shape.dims), [], 1
    for position, loop in enumerate(loops):
        left = sizes[loop.dim]
        trip = left if last[loop.dim] == position else rng.choice((1, 2, 3, 4, left))
        if loop.axis is not None:
            array *= trip
        sizes[loop.dim] = -(-left // trip)
        trips.append(trip)
    return tuple(trips) if array <= LARGEST_ARRAY else any_trips(rng, shape, loops)


@settings(max_examples=2 * settings.default.max_examples)
@given(st.builds(random_large_case, st.randoms(use_true_random=False)))
def test_no_mapping_moves_less_than_the_communication_bound(case: Case) -> None:
    bound, moved = bound_and_traffic(case)
    assert bound <= moved


@given(cases())
def test_no_small_mapping_moves_less_than_the_communication_bound(case: Case) -> None:
    bound, moved = bound_and_traffic(case)
    assert bound <= moved


def tiled(shape: Shape, order: str, trips: Sequence[int]) -> Case:
    """One buffer inside the loops of ``order``; all dims once more inside it."""
    loops = tuple(Loop(Dim[letter]) for letter in order)
    cut = len(order)
    inside = list(shape.dims)
    for loop, trip in zip(loops, trips, strict=True):
        inside[loop.dim] = -(-inside[loop.dim] // trip)
    nest = Nest(
        loops + tuple(map(Loop, Dim)), ((0, 0, 0), (cut, cut, cut)), (frozenset(), frozenset())
    )
    return Case(shape, nest, (*trips, *inside), Rules())


@pytest.mark.parametrize(
    ("shape", "order", "trips", "share"),
    [
        # a matrix product, outputs stay: 16 x 16 sums, single columns and rows of operands
        (Shape((1, 1, 64, 64, 64, 1, 1, 1), size=(64, 1)), "KPC", (4, 4, 64), 0.5),
        # the same by 4 x 4 sums
        (Shape((1, 1, 64, 64, 64, 1, 1, 1), size=(64, 1)), "KPC", (16, 16, 64), 0.5),
        # a 3 x 3 layer
        (Shape((1, 1, 32, 32, 16, 16, 3, 3), size=(18, 18)), "KPQC", (4, 4, 4, 32), 0.25),
    ],
)
def test_the_communication_bound_is_worth_something(
    shape: Shape, order: str, trips: tuple[int, ...], share: float
) -> None:
    bound, moved = bound_and_traffic(tiled(shape, order, trips))
    assert share * moved <= bound <= moved


def test_random_cases_are_not_all_trivial() -> None:
    pairs = [bound_and_traffic(random_large_case(random.Random(seed))) for seed in range(60)]
    assert sum(bound > 0 for bound, _ in pairs) >= 20
    assert max(bound / moved for bound, moved in pairs) > 0.3


def test_operands_in_flight_are_part_of_the_capacity() -> None:
    """An array of 8 x 8 x 8 MACs fed by DRAM alone does in one step what needs 3 x 64 elements."""
    shape = Shape((1, 1, 8, 8, 8, 1, 1, 1), size=(8, 1))
    loops = (Loop(Dim.K, 0), Loop(Dim.C, 1), Loop(Dim.P, 2))
    case = Case(shape, Nest(loops, ((0, 0, 0),), (frozenset(),)), (8, 8, 8), Rules())
    counts = count(shape, case.nest, np.array([case.trips]))
    assert sum(dram_traffic(counts).values()) == 3 * 64
    assert capacity(case, counts) == 3 * 512
    assert communication_bound(shape.macs, 1, 1) > 3 * 64


def test_macs_on_padding_prove_nothing() -> None:
    """One real row of five: 1 x 1 kernels on padding need no input."""
    shape = Shape((2, 1, 12, 20, 5, 17, 1, 1), stride=(1, 2), pad=(2, 0), size=(1, 33))
    loops = tuple(map(Loop, (Dim.N, Dim.K, Dim.Q, Dim.P, Dim.C)))
    nest = Nest(loops, ((0, 0, 0), (3, None, 3)), (frozenset(), frozenset()))
    case = Case(shape, nest, (2, 12, 17, 5, 20), Rules())
    bound, moved = bound_and_traffic(case)
    room = capacity(case, count(shape, nest, np.array([case.trips])))
    assert macs_on_data(shape, Rules()) == shape.macs // 5
    assert bound <= moved < communication_bound(shape.macs, 1, room)


def test_the_communication_bound_by_hand() -> None:
    # 2 * sqrt(2) * 100^1.5 = 2828.4 MACs for every 400 elements
    assert communication_bound(28_285, 1, 100) == 10 * 400
    assert communication_bound(28_284, 1, 100) == 9 * 400
    assert communication_bound(2_828, 1, 100) == 0
    # four uses of an input: twice the MACs
    assert communication_bound(56_569, 4, 100) == 10 * 400
