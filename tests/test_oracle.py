"""Checks of the oracle itself, against counts that can be verified by hand.

Sources of the tables: "exact" DRAM words of the two-level cases are the project's own brute force,
published beside Timeloop v3.0.3 counts (``dense_micro_exact_dram.csv``); the three-level cases are
Timeloop v3.0.3 (commit 6b41058) counts (``dense_micro.yaml``), inputs only where the tool is exact.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from itertools import pairwise
from math import prod
from typing import NamedTuple

import pytest
from hypothesis import given
from oracle import Walk, walk
from strategies import Case, cases, is_valid, random_case

from energysim.axes import Dim, Shape, Tensor
from energysim.mapping import Loop, Nest, Rules

WEIGHT, INPUT, OUTPUT = Tensor
LETTERS = {"W": WEIGHT, "I": INPUT, "O": OUTPUT}


class Level(NamedTuple):
    """One level as a mapping file has it: loops like ``"K4 C2"``, spatial ones like ``"P4@0"``."""

    temporal: str = ""
    spatial: str = ""
    keep: str = "WIO"


def layer(extents: str, stride: int = 1, pad: int = 0) -> Shape:
    """Build a layer from extents like ``"K2 P16 R3"``, the input exactly as large as needed."""
    dims = {Dim[word[0]]: int(word[1:]) for word in extents.split()}
    n, g, k, c, p, q, r, s = (dims.get(dim, 1) for dim in Dim)
    size = ((p - 1) * stride + r - 2 * pad, q + s - 1)
    return Shape((n, g, k, c, p, q, r, s), (stride, 1), (1, 1), (pad, 0), size)


def mapping(*levels: Level) -> tuple[Nest, tuple[int, ...]]:
    """Build nest and trips from levels; a spatial loop gives its axis to all levels inside it."""
    loops: list[Loop] = []
    trips: list[int] = []
    cuts: list[tuple[int | None, int | None, int | None]] = []
    axes: list[frozenset[int]] = []
    for level in levels:
        held = [len(loops) if letter in level.keep else None for letter in LETTERS]
        cuts.append((held[0], held[1], held[2]))
        axes.append(frozenset(loop.axis for loop in loops if loop.axis is not None))
        for word in (*level.temporal.split(), *level.spatial.split()):
            count, _, axis = word[1:].partition("@")
            loops.append(Loop(Dim[word[0]], int(axis) if axis else None))
            trips.append(int(count))
    return Nest(tuple(loops), tuple(cuts), tuple(axes)), tuple(trips)


def count(shape: Shape, *levels: Level, rules: Rules | None = None) -> Walk:
    """Walk a mapping given by its levels."""
    nest, trips = mapping(*levels)
    return walk(shape, nest, trips, rules or Rules())


def at(result: Walk, level: int, tensor: Tensor, *names: str) -> tuple[int, ...]:
    """Pick some counts of one tensor at one level."""
    return tuple(result.counts.get((level, tensor, name), 0) for name in names)


# own brute force, published beside Timeloop v3.0.3 counts: W read, I read, O read, O write at DRAM
EXACT_DRAM: dict[str, tuple[Shape, str, str, tuple[int, int, int, int]]] = {
    "m01_conv1d_flat": (layer("P16 R3"), "", "P16 R3", (3, 18, 0, 16)),
    "m02_conv1d_halo_P4x4": (layer("P16 R3"), "P4", "P4 R3", (3, 18, 0, 16)),
    "m03_conv1d_R_outer": (layer("P16 R3"), "R3", "P16", (3, 18, 0, 16)),
    "m04_conv1d_R_outer_P_outer": (layer("P16 R3"), "R3 P4", "P4", (3, 48, 32, 48)),
    "m05_conv1d_P_outer_R_inner": (layer("P16 R3"), "P4 R3", "P4", (12, 18, 0, 16)),
    "m07_conv1d_stride2": (layer("P8 R3", 2), "P4", "P2 R3", (3, 17, 0, 8)),
    "m09_conv1d_stride3_R1": (layer("P8", 3), "P4", "P2", (1, 8, 0, 8)),
    "m10_conv1d_stride3_R2_full": (layer("P8 R2", 3), "", "P8 R2", (2, 16, 0, 8)),
    "m11_psum_spill_C_outer": (layer("K2 C6 P8"), "C3 K2 P2", "C2 P4", (12, 96, 32, 48)),
    "m19_conv2d_halo_PQ": (
        layer("K2 C2 P8 Q8 R3 S3"),
        "Q2 P2",
        "K2 C2 Q4 P4 R3 S3",
        (36, 232, 0, 128),
    ),
    "m24_imperfect_P": (layer("P10 R3"), "P3", "P4 R3", (3, 12, 0, 10)),
}


@pytest.mark.parametrize("case", EXACT_DRAM)
def test_two_level_dram_words_equal_the_published_brute_force(case: str) -> None:
    shape, dram, buffer, (weight, image, back, written) = EXACT_DRAM[case]
    result = count(shape, Level(dram), Level(buffer))
    assert at(result, 0, WEIGHT, "read") == (weight,)
    assert at(result, 0, INPUT, "read") == (image,)
    assert at(result, 0, OUTPUT, "read", "update") == (back, written)
    assert result.steps == shape.macs  # one MAC; m24's idle steps are not taken


# Timeloop v3.0.3: (level, tensor): (reads, fills, updates)
TIMELOOP: dict[str, tuple[Shape, Sequence[Level], Mapping[tuple[int, str], tuple[int, int, int]]]]
TIMELOOP = {
    "m02_conv1d_halo_P4x4": (
        layer("P16 R3"),
        (Level("P4"), Level("P4 R3")),
        {(1, "W"): (48, 3, 0), (1, "I"): (48, 18, 0), (1, "O"): (32, 0, 48)},
    ),
    "m11_psum_spill_C_outer": (
        layer("K2 C6 P8"),
        (Level("C3 K2 P2"), Level("C2 P4")),
        {
            (0, "W"): (12, 0, 0),
            (0, "I"): (96, 0, 0),
            (0, "O"): (32, 0, 48),
            (1, "W"): (96, 12, 0),
            (1, "I"): (96, 96, 0),
            (1, "O"): (80, 32, 96),
        },
    ),
    "m13_bypass_W": (
        layer("K4 C4 P8 R3"),
        (Level("K2 P2"), Level("C4 K2 P2", keep="IO"), Level("P2 R3")),
        {
            (0, "W"): (96, 0, 0),
            (0, "O"): (0, 0, 32),
            (1, "W"): (0, 0, 0),
            (1, "O"): (96, 0, 128),
            (2, "W"): (384, 96, 0),
            (2, "O"): (352, 96, 384),
        },
    ),
    "m15_mcast_K": (
        layer("K4 C4 P8 R3"),
        (Level(), Level("C4 R3", "K4@0"), Level("P8")),
        {
            (0, "W"): (48, 0, 0),
            (0, "I"): (40, 0, 0),
            (0, "O"): (0, 0, 32),
            (1, "W"): (48, 48, 0),
            (1, "I"): (40, 40, 0),
            (1, "O"): (0, 0, 32),
            (2, "W"): (384, 48, 0),
            (2, "I"): (384, 160, 0),
            (2, "O"): (352, 0, 384),
        },
    ),
    "m16_sreduce_C": (
        layer("K4 C4 P8 R3"),
        (Level(), Level("K4 R3", "C4@0"), Level("P8")),
        {
            (0, "O"): (0, 0, 32),
            (1, "W"): (48, 48, 0),
            (1, "O"): (0, 0, 32),
            (2, "W"): (384, 48, 0),
            (2, "O"): (256, 0, 384),
        },
    ),
    "m17_mcast_halo_P": (
        layer("K2 C2 P16 R3"),
        (Level(), Level("K2 C2", "P4@0"), Level("P4 R3")),
        {
            (0, "I"): (36, 0, 0),
            (1, "W"): (12, 12, 0),
            (1, "O"): (0, 0, 32),
            (2, "W"): (192, 48, 0),
            (2, "I"): (192, 96, 0),
            (2, "O"): (160, 0, 192),
        },
    ),
    "m22_diag_PR_spatial": (
        layer("K2 C2 P4 R4"),
        (Level(), Level("K2 C2", "P4@0 R4@1"), Level()),
        {
            (0, "W"): (16, 0, 0),
            (0, "I"): (14, 0, 0),
            (0, "O"): (0, 0, 8),
            (1, "W"): (16, 16, 0),
            (1, "I"): (28, 14, 0),
            (1, "O"): (0, 0, 8),
            (2, "W"): (64, 64, 0),
            (2, "I"): (64, 64, 0),
            (2, "O"): (32, 0, 64),
        },
    ),
}


@pytest.mark.parametrize("case", TIMELOOP)
def test_micro_cases_equal_timeloop_where_it_is_exact(case: str) -> None:
    shape, levels, expected = TIMELOOP[case]
    result = count(shape, *levels)
    for (level, letter), counts in expected.items():
        got = at(result, level, LETTERS[letter], "read", "fill", "update")
        assert got == counts, (level, letter)


def test_halos_shared_by_neighbours_are_multicast() -> None:
    # m17: four PEs hold rows 0-5, 4-9, 8-13, 12-17. Their union is all 18 rows; C and K step
    # through 4 tiles that have nothing in common with the one before (K passes over both C):
    # 4 * 18 = 72 reads serve 4 * 4 * 6 = 96 fills. Timeloop reads 96, without partial multicast.
    shape, levels, _ = TIMELOOP["m17_mcast_halo_P"]
    result = count(shape, *levels)
    assert at(result, 1, INPUT, "read", "hop") == (72, 96)
    single = count(shape, *levels, rules=Rules(multicast=False))
    assert at(single, 1, INPUT, "read", "hop") == (96, 96)
    assert at(single, 2, INPUT, "fill") == (96,)


def test_diagonal_neighbours_share_inputs() -> None:
    # m22: PE (p, r) needs row p + r, 7 distinct rows for 16 PEs, in each of 4 steps (K over C).
    # Without multicast every PE is served alone. Outputs of the 4 PEs of a column are added.
    shape, levels, _ = TIMELOOP["m22_diag_PR_spatial"]
    assert at(count(shape, *levels), 1, INPUT, "read") == (4 * 7,)
    single = count(shape, *levels, rules=Rules(multicast=False))
    assert at(single, 1, INPUT, "read") == (4 * 16,)


def test_a_window_that_wraps_back_keeps_what_overlaps() -> None:
    # m16: per PE the 8 rows of P slide over R = 0, 1, 2 (8 + 1 + 1) for the first K. Each of the
    # 3 later K wraps from rows 2-9 to rows 0-7: 2 + 1 + 1. So 10 + 3 * 4 = 22, on 4 PEs with
    # channels of their own: 88. Timeloop refetches the window whole: 40 per K = 160.
    shape, levels, _ = TIMELOOP["m16_sreduce_C"]
    result = count(shape, *levels)
    assert at(result, 1, INPUT, "read") == (88,)
    assert at(result, 2, INPUT, "fill") == (88,)


def test_partial_sums_that_spill_are_complete_at_their_last_visit() -> None:
    # m11: 16 outputs leave the buffer after each of the 3 C tiles; only the last time complete.
    shape, levels, _ = TIMELOOP["m11_psum_spill_C_outer"]
    result = count(shape, *levels)
    assert at(result, 1, OUTPUT, "drain", "drain_complete") == (48, 16)
    assert at(result, 0, OUTPUT, "update", "update_complete") == (48, 16)
    assert at(result, 1, OUTPUT, "update_complete") == (0,)  # the MACs write partial sums


@pytest.mark.parametrize(
    ("reduce", "update", "complete", "read"),
    [(True, 32, 32, 0), (False, 128, 0, 96)],
)
def test_spatial_reduction(reduce: bool, update: int, complete: int, read: int) -> None:
    # m16: C on 4 PEs, each holds 8 partial sums per K: 4 * 4 * 8 = 128 leave. Added on the way,
    # 32 complete sums arrive. Else all 128 arrive, partial, and 96 are merged into one that is
    # there already. No PE alone ever holds a complete sum.
    shape, levels, _ = TIMELOOP["m16_sreduce_C"]
    result = count(shape, *levels, rules=Rules(reduce=reduce))
    assert at(result, 2, OUTPUT, "drain", "drain_complete") == (128, 0)
    assert at(result, 1, OUTPUT, "update", "update_complete", "read") == (update, complete, read)
    assert at(result, 1, OUTPUT, "hop") == (128,)


def test_returning_sums_go_to_one_instance() -> None:
    # C = 4 as 2 (temporal) x 2 (spatial), K = 2 in between: each of 2 PEs holds one sum at a time.
    # Steps C0K0, C0K1, C1K0, C1K1: every time both PEs drain the old one (8 drains, 4 updates).
    # From the third step on the sum was seen before: 2 return, once each, not once per PE.
    result = count(layer("K2 C4"), Level("C2 K2", "C2@0"), Level(keep="O"))
    assert at(result, 1, OUTPUT, "drain", "fill") == (8, 2)
    assert at(result, 0, OUTPUT, "update", "update_complete", "read") == (4, 2, 2)
    assert at(result, 0, OUTPUT, "hop") == (8 + 2,)


def test_an_instance_without_work_holds_nothing() -> None:
    # C = 3 as 2 (temporal, pieces of 2) x 2 (spatial): in the second step the second PE has no
    # work. Its partial sum leaves then, incomplete; the first PE's leaves at the end, complete.
    result = count(layer("C3"), Level("C2", "C2@0"), Level(keep="O"))
    assert result.steps == 2
    assert at(result, 1, OUTPUT, "drain", "drain_complete") == (2, 0)
    assert at(result, 0, OUTPUT, "update", "update_complete", "read") == (2, 1, 0)
    # An operand is lost too. Q = 3 as 2 x 2 (spatial) inside P = 2: PE 0 works on q = 0, 2, 0, 2
    # and keeps the one weight; PE 1 works on q = 1, none, 1, none and is filled twice.
    result = count(layer("P2 Q3"), Level("P2 Q2", "Q2@0"), Level(keep="W"))
    assert result.steps == 4
    assert at(result, 1, WEIGHT, "fill") == (1 + 2,)
    assert at(result, 0, WEIGHT, "read") == (2,)  # the first is a multicast to both


def test_ragged_pieces_are_nominal_and_idle_steps_are_not_taken() -> None:
    # K = 5: pieces of 3, of 2, of 1. First piece 0-2 = {0, 1}, {2}; second 3-4 = {3, 4}, {}.
    # 5 of 8 index tuples have work. The buffer holds at most 2 weights, each of 5 comes once.
    result = count(layer("K5"), Level("K2 K2"), Level("K2"))
    assert result.steps == 5
    assert at(result, 1, WEIGHT, "fill") == (5,)


@pytest.mark.parametrize(("refetch", "expected"), [(frozenset(), 18), (frozenset({1}), 24)])
def test_refetch_reloads_the_whole_input_tile(refetch: frozenset[int], expected: int) -> None:
    # m02: windows of 6 rows that overlap by 2: 6 + 3 * 4 kept, 4 * 6 reloaded.
    result = count(layer("P16 R3"), Level("P4"), Level("P4 R3"), rules=Rules(refetch=refetch))
    assert at(result, 0, INPUT, "read") == (expected,)
    # An unchanged tile is not reloaded: K at the outside moves no input at all after the first.
    result = count(layer("K3 P4"), Level("K3"), Level("P4"), rules=Rules(refetch=refetch))
    assert at(result, 1, INPUT, "fill") == (4,)


@pytest.mark.parametrize(("count_padding", "expected"), [(False, (4, 10)), (True, (6, 12))])
def test_padding_moves_only_if_counted(count_padding: bool, expected: tuple[int, int]) -> None:
    # 4 pixels, 3 taps, 1 row of padding above and below: 4 rows of image in 6 touched ones;
    # 2 of the 12 MACs read padding.
    shape = layer("P4 R3", pad=1)
    assert shape.size == (4, 1)
    result = count(shape, Level(), Level("P4 R3"), rules=Rules(count_padding=count_padding))
    assert (*at(result, 0, INPUT, "read"), *at(result, 1, INPUT, "read")) == expected


def test_latches_keep_operands_that_stay() -> None:
    # R outside P: the weight stays over 4 pixels, 3 reads instead of 12. P inside R: the sum
    # changes at every step; 12 updates, 8 of them after a read of what was there.
    outer = Level(), Level("R3 P4")
    result = count(layer("P4 R3"), *outer, rules=Rules(latch=frozenset({WEIGHT})))
    assert at(result, 1, WEIGHT, "read") == (3,)
    assert at(result, 1, INPUT, "read") == (12,)
    assert at(result, 1, OUTPUT, "read", "update") == (8, 12)
    # P outside R: the sum stays over 3 taps, and leaves once.
    inner = Level(), Level("P4 R3")
    result = count(layer("P4 R3"), *inner, rules=Rules(latch=frozenset({OUTPUT})))
    assert at(result, 1, OUTPUT, "read", "update", "update_complete") == (0, 4, 0)
    assert at(result, 1, WEIGHT, "read") == (12,)


def test_macs_that_fan_out_share_and_reduce() -> None:
    # 2 steps of C on 2 (K) x 2 (C) MACs under one buffer. Input: 2 distinct channels a step for 4
    # MACs. Weights all differ. Outputs: 2 sums a step, each from 2 MACs; the second step reads
    # them back. Without reduction 2 more arrivals a step are merged.
    levels = Level(), Level("C2", "K2@0 C2@1")
    result = count(layer("K2 C4"), *levels)
    assert result.steps == 2
    assert at(result, 1, WEIGHT, "read", "hop") == (8, 8)
    assert at(result, 1, INPUT, "read", "hop") == (4, 8)
    assert at(result, 1, OUTPUT, "read", "update", "hop") == (2, 4, 8 + 2)
    result = count(layer("K2 C4"), *levels, rules=Rules(multicast=False, reduce=False))
    assert at(result, 1, INPUT, "read", "hop") == (8, 8)
    assert at(result, 1, OUTPUT, "read", "update", "hop") == (2 + 4, 8, 8 + 2)


def test_uneven_cuts_give_tensors_of_a_level_different_tiles() -> None:
    # C2 K2 P2 behind one buffer. Weight cut behind C and K: 1 element, 4 in turn. Input cut at the
    # front: all 4 at once. Output cut behind C: the 4 sums stay while C runs, drained once.
    nest, trips = mapping(Level(), Level("C2 K2 P2"))
    uneven = Nest(nest.loops, ((0, 0, 0), (2, 0, 1)), nest.axes)
    result = walk(layer("K2 C2 P2"), uneven, trips)
    assert at(result, 1, WEIGHT, "fill") == (4,)
    assert at(result, 1, INPUT, "fill") == (4,)
    assert at(result, 1, OUTPUT, "drain", "fill", "drain_complete") == (4, 0, 4)
    # Output cut behind C and K: 2 sums at a time, 4 tiles, and for the second C they come back.
    spilled = Nest(nest.loops, ((0, 0, 0), (2, 0, 2)), nest.axes)
    result = walk(layer("K2 C2 P2"), spilled, trips)
    assert at(result, 1, OUTPUT, "drain", "fill", "drain_complete") == (8, 4, 4)


def test_a_tensor_that_nobody_holds_is_not_counted() -> None:
    result = count(layer("P4 R3"), Level(keep="IO"), Level("P4 R3", keep="IO"))
    assert not any(tensor is WEIGHT for _, tensor, _ in result.counts)
    assert at(result, 0, INPUT, "read") == (6,)


def test_loops_must_cut_every_dim_to_single_indices() -> None:
    with pytest.raises(ValueError, match="over K leave pieces of 2"):
        count(layer("K4"), Level("K2"), Level())
    nest, _ = mapping(Level("K4"), Level())
    with pytest.raises(ValueError, match="0 trip counts for 1 loops"):
        walk(layer("K4"), nest, ())


@given(cases())
def test_what_must_hold_for_every_walk(case: Case) -> None:
    shape, nest, trips, rules = case
    assert is_valid(nest)
    result = walk(shape, nest, trips, rules)
    temporal = [trips[i] for i, loop in enumerate(nest.loops) if loop.axis is None]
    assert result.steps <= prod(temporal)
    for tensor in Tensor:
        holders = nest.holders(tensor)
        for outer, inner in pairwise(holders):
            (fill, drain) = at(result, inner, tensor, "fill", "drain")
            read, update = at(result, outer, tensor, "read", "update")
            if tensor is OUTPUT:
                assert update <= drain if rules.reduce else update == drain
                assert fill <= read if not rules.reduce else fill == read
            else:
                assert read <= fill if rules.multicast else read == fill
                assert (drain, update) == (0, 0)
        if not rules.latch:
            # every MAC is served: with its weight, and its sum is written
            if tensor is WEIGHT and not rules.multicast:
                assert at(result, holders[-1], tensor, "read") == (shape.macs,)
            if tensor is OUTPUT and not rules.reduce:
                assert at(result, holders[-1], tensor, "update") == (shape.macs,)
    (written,) = at(result, 0, OUTPUT, "update")
    assert written >= shape.elements(OUTPUT)
    if rules.reduce and len(nest.holders(OUTPUT)) > 1:
        # every output arrives exactly once in its final width
        assert at(result, 0, OUTPUT, "update_complete") == (shape.elements(OUTPUT),)
    assert at(result, 0, WEIGHT, "read") >= (shape.elements(WEIGHT),)


def test_random_cases_reach_every_corner() -> None:
    found: set[str] = set()
    for seed in range(400):
        shape, nest, trips, rules = random_case(random.Random(seed))
        spatial = [i for i, loop in enumerate(nest.loops) if loop.axis is not None]
        corners = {
            "stride larger than kernel": shape.stride[0] > shape[Dim.R] > 1,
            "rectangular": shape[Dim.R] != shape[Dim.S],
            "dilation": max(shape.dilation) > 1 and shape[Dim.R] > 1,
            "padding": max(shape.pad) > 0 and not rules.count_padding,
            "four levels": nest.levels == 4,
            "bypass": None in nest.cuts[1],
            "uneven": len({cut for cut in nest.cuts[1] if cut is not None}) > 1,
            "spatial": any(trips[i] > 1 for i in spatial),
            "two axes": len({nest.loops[i].axis for i in spatial}) > 1,
            "two dims on an axis": len(spatial) > len({nest.loops[i].axis for i in spatial}),
            "fan-out to MACs only": bool(spatial) and not nest.axes[-1],
            "groups and batch": min(shape[Dim.G], shape[Dim.N]) > 1,
            "refetch": bool(rules.refetch),
            "latch": bool(rules.latch),
            "no reduction": not rules.reduce,
            "no multicast": not rules.multicast,
        }
        found |= {name for name, hit in corners.items() if hit}
        idle = prod(trips) != shape.macs
        found |= {"ragged"} if idle else {"even"}
    assert found >= {*corners, "ragged", "even"}
