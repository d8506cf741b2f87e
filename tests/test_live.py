"""Inputs that live weights need, against a walk with the mask in hand."""

from __future__ import annotations

import random

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from oracle import Live, walk_inputs, walk_sums
from strategies import Case, random_case

from energysim.axes import Dim, Shape, Tensor
from energysim.mapping import Loop, Nest, Rules
from energysim.model import visits
from energysim.model.counts import count
from energysim.model.live import live_inputs, live_outputs, needed_inputs, with_known_zeros
from energysim.sparsity import Mask

Bools = npt.NDArray[np.bool_]

KERNELS = (Dim.G, Dim.K, Dim.C, Dim.R, Dim.S)
PATTERNS = ("PS4_P4", "PSD4_P8", "PS2_P6", "PSD1_P16", "pSC2")


def a_mask(shape: Shape, seed: int) -> Bools:
    """Random weights of some density, whole channels and filters dead now and then."""
    generator = np.random.default_rng(seed)
    live: Bools = generator.random([shape[dim] for dim in KERNELS]) < generator.choice(
        [0.2, 0.5, 0.8]
    )
    for axis in (1, 2):
        if generator.random() < 0.3:
            dead: list[slice | int] = [slice(None)] * live.ndim
            dead[axis] = int(generator.integers(live.shape[axis]))
            live[tuple(dead)] = False
    return live


def as_set(live: Bools) -> Live:
    """The live weights one by one."""
    return frozenset((g, k, c, r, s) for g, k, c, r, s in np.argwhere(live).tolist())


def compare(case: Case, live: Bools) -> None:
    """Model and walk count the same."""
    shape, nest, trips, rules = case
    walked = walk_inputs(shape, nest, trips, rules, as_set(live))
    assert live_inputs(shape, nest, trips, rules, live) == walked


@settings(max_examples=200)
@given(seed=st.integers(0, 2**32))
def test_counts_equal_a_walk_with_the_mask(seed: int) -> None:
    case = random_case(random.Random(seed))
    compare(case, a_mask(case.shape, seed))


@settings(max_examples=60)
@given(seed=st.integers(0, 2**32))
def test_counts_of_patterns_equal_a_walk(seed: int) -> None:
    rng = random.Random(seed)
    case = random_case(rng)
    while (case.shape[Dim.R], case.shape[Dim.S]) != (3, 3):
        case = random_case(rng)
    compare(case, Mask.of(rng.choice(PATTERNS), case.shape, seed % 100).array())


@settings(max_examples=60)
@given(seed=st.integers(0, 2**32))
def test_kernels_of_many_taps_are_counted_alike(seed: int) -> None:
    """Sets that don't fit a machine word are Python's integers."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(visits, "MACHINE_BITS", 0)
        case = random_case(random.Random(seed))
        compare(case, a_mask(case.shape, seed))


@settings(max_examples=100)
@given(seed=st.integers(0, 2**32))
def test_a_whole_mask_counts_as_the_dense_model(seed: int) -> None:
    shape, nest, trips, rules = random_case(random.Random(seed))
    dense = count(shape, nest, np.array([trips], dtype=np.int64), rules)
    live = np.ones([shape[dim] for dim in KERNELS], dtype=np.bool_)
    for key, value in live_inputs(shape, nest, trips, rules, live).items():
        assert value == int(dense(*key)[0]), key


def test_a_dead_last_row_of_taps_needs_no_halo() -> None:
    """16 outputs in 4 tiles, 3 taps, the last one dead: 17 inputs instead of 18."""
    shape = Shape((1, 1, 1, 1, 16, 1, 3, 1), size=(18, 1))
    loops = (Loop(Dim.P), Loop(Dim.P), Loop(Dim.R))
    nest = Nest(loops, cuts=((0, 0, 0), (1, 1, 1)), axes=(frozenset(), frozenset()))
    live = np.array([True, True, False]).reshape(1, 1, 1, 3, 1)
    counts = live_inputs(shape, nest, (4, 4, 3), Rules(), live)
    assert counts[0, Tensor.INPUT, "read"] == counts[1, Tensor.INPUT, "fill"] == 17
    assert counts[1, Tensor.INPUT, "read"] == 32  # two live taps for each output
    assert needed_inputs(shape, live) == 17


def test_a_port_reads_once_what_its_filters_need() -> None:
    """Filters side by side share a read: as many as the union of their supports."""
    shape = Shape((1, 1, 2, 1, 4, 1, 3, 1), size=(6, 1))
    loops = (Loop(Dim.P), Loop(Dim.R), Loop(Dim.K, 0))
    nest = Nest(loops, cuts=((0, 0, 0),), axes=(frozenset(),))
    live = np.array([[True, False, False], [True, True, False]]).reshape(1, 2, 1, 3, 1)
    counts = live_inputs(shape, nest, (4, 3, 2), Rules(), live)
    assert counts[0, Tensor.INPUT, "read"] == 4 * 2
    assert counts[0, Tensor.INPUT, "hop"] == 4 * 3
    apart = live_inputs(shape, nest, (4, 3, 2), Rules(multicast=False), live)
    assert apart[0, Tensor.INPUT, "read"] == 4 * 3


@settings(max_examples=60)
@given(seed=st.integers(0, 2**32))
def test_needed_inputs_are_those_under_a_live_weight(seed: int) -> None:
    shape = random_case(random.Random(seed)).shape
    live = a_mask(shape, seed)
    seen = np.zeros((shape[Dim.G], shape[Dim.C], *shape.size), dtype=np.bool_)
    for g, _, c, r, s in np.argwhere(live).tolist():
        for p in range(shape[Dim.P]):
            for q in range(shape[Dim.Q]):
                h = p * shape.stride[0] + r * shape.dilation[0] - shape.pad[0]
                w = q * shape.stride[1] + s * shape.dilation[1] - shape.pad[1]
                if 0 <= h < shape.size[0] and 0 <= w < shape.size[1]:
                    seen[g, c, h, w] = True
    assert needed_inputs(shape, live) == shape[Dim.N] * int(seen.sum())


@settings(max_examples=150)
@given(seed=st.integers(0, 2**32))
def test_sums_equal_stepping_the_array_delivery_by_delivery(seed: int) -> None:
    shape, nest, trips, rules = random_case(random.Random(seed))
    live = a_mask(shape, seed)
    walked = walk_sums(shape, nest, trips, rules, as_set(live))
    assert live_outputs(shape, nest, trips, rules, live) == walked


@settings(max_examples=100)
@given(seed=st.integers(0, 2**32))
def test_sums_of_a_whole_mask_are_those_of_the_dense_model(seed: int) -> None:
    shape, nest, trips, rules = random_case(random.Random(seed))
    assume(Tensor.OUTPUT not in rules.latch)
    dense = count(shape, nest, np.array([trips], dtype=np.int64), rules)
    live = np.ones([shape[dim] for dim in KERNELS], dtype=np.bool_)
    for key, value in live_outputs(shape, nest, trips, rules, live).items():
        assert value == int(dense(*key)[0]), key


@settings(max_examples=100)
@given(seed=st.integers(0, 2**32), skips=st.booleans())
def test_known_zeros_never_move_more(seed: int, skips: bool) -> None:
    shape, nest, trips, rules = random_case(random.Random(seed))
    dense = count(shape, nest, np.array([trips], dtype=np.int64), rules)
    live = a_mask(shape, seed)
    known = with_known_zeros(dense, shape, nest, trips, rules, live, skips=skips)
    assert known.values.keys() == dense.values.keys()
    for key, value in known.values.items():
        assert 0 <= value[0] <= dense.values[key][0], key
        if not skips and key[2] in ("fill", "drain"):
            assert value[0] == dense.values[key][0], "gating only spares what MACs do"


def test_gating_spares_only_memories_of_a_mac_alone() -> None:
    """One MAC with sums of its own: half of the weights live, half of the accesses made."""
    shape = Shape((1, 1, 4, 8, 6, 1, 1, 1), size=(6, 1))
    loops = (Loop(Dim.P), Loop(Dim.K), Loop(Dim.C))
    nest = Nest(loops, cuts=((0, 0, 0), (1, 1, 1)), axes=(frozenset(), frozenset()))
    live = np.arange(32).reshape(1, 4, 8, 1, 1) % 2 == 0
    dense = count(shape, nest, np.array([(6, 4, 8)]))
    gated = with_known_zeros(dense, shape, nest, (6, 4, 8), Rules(), live, skips=False)
    assert (
        int(gated(1, Tensor.INPUT, "read")[0]) == 96 == int(dense(1, Tensor.INPUT, "read")[0]) / 2
    )
    assert int(gated(1, Tensor.OUTPUT, "update")[0]) == 96
    assert int(gated(1, Tensor.OUTPUT, "read")[0]) == 96 - 24
    spread = Nest((Loop(Dim.P), Loop(Dim.K), Loop(Dim.C, 0)), nest.cuts, nest.axes)
    shared = count(shape, spread, np.array([(6, 4, 8)]))
    assert (
        with_known_zeros(shared, shape, spread, (6, 4, 8), Rules(), live, skips=False).values
        == shared.values
    )
