"""Counts of published tools for the same loop nests; every difference is listed with its reason.

``golden/README.md`` says where the numbers come from and what each tool counts; those of Timeloop
are in ``validation/data/timeloop.yaml`` of the package.
"""

from __future__ import annotations

import csv
from enum import Enum
from functools import cache
from math import prod
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from oracle import walk

from energysim.axes import REDUCTION, Dim, Shape, Tensor
from energysim.mapping import Nest, Rules, nominal_tile
from energysim.model.counts import count
from energysim.validation.timeloop import WHY_INPUT, cases, shape_of

WEIGHT, INPUT, OUTPUT = Tensor
GOLDEN = Path(__file__).parent / "golden"
ACTIONS = ("read", "fill", "update")
WALKED = (*ACTIONS, "drain", "update_complete", "drain_complete", "hop")
SMALL = {"R": 3, "S": 3}
"""trip counts of the small analogues of large cases; 2 for all other dims"""


class Why(Enum):
    """Why a tool counts something else than the elements that really move."""

    WRAP = "a window that wraps back to its start is fetched whole, overlap or not"
    BOX = "the bounding box is counted, with the gaps that a stride leaves between kernels"
    HALO = "tiles of neighbouring instances that overlap only in part are read one by one"
    FULL_LAST = "a smaller last tile is taken as full"
    NO_REUSE = "a tile that changes is loaded whole"
    TO_ALL = "a sum that comes back goes to every instance that adds to it, not to one of them"


class Difference(NamedTuple):
    """One number that differs; written as sums that say how it comes about."""

    ours: int
    theirs: int
    why: Why


Key = tuple[str, str, str, str]
"""case, level, tensor, count"""


def of_input(case: str, ours: int, theirs: int, why: Why, *places: str) -> dict[Key, Difference]:
    """The same difference of the input at several places, ``"level count"`` each."""
    found = {}
    for place in places:
        level, name = place.split()
        found[case, level, "input", name] = Difference(ours, theirs, why)
    return found


DRAM_TO_BUF = ("DRAM read", "BUF fill")
BUF_TO_REG = ("BUF read", "REG fill")

DIFFERENCES: dict[Key, Difference] = {
    # 4 tiles of P, R inside: the step to the next tile goes back by 2 rows and on by 4
    **of_input(
        "m05_conv1d_P_outer_R_inner", 4 + 2 + 3 * (2 + 2), 4 * (4 + 2), Why.WRAP, *DRAM_TO_BUF
    ),
    # 8 single rows, 3 apart, in 4 tiles of 2
    **of_input("m09_conv1d_stride3_R1", 8, 4 * (3 + 1), Why.BOX, *DRAM_TO_BUF),
    **of_input("m09_conv1d_stride3_R1", 2, 3 + 1, Why.BOX, "BUF tile"),
    # 8 pairs of rows, 3 apart, in one tile
    **of_input(
        "m10_conv1d_stride3_R2_full", 8 * 2, 7 * 3 + 2, Why.BOX, *DRAM_TO_BUF, "BUF tile"
    ),
    # two tiles of P with 4 + 2 rows each, twice (K), 4 channels
    **of_input("m13_bypass_W", 4 * (6 + 3 * 4), 4 * 2 * (6 + 4), Why.WRAP, *DRAM_TO_BUF),
    # two tiles of P with 2 + 2 rows each, twice (K), in every channel of the 4 tiles above
    **of_input("m13_bypass_W", 4 * 4 * (4 + 3 * 2), 4 * 4 * 2 * (4 + 2), Why.WRAP, *BUF_TO_REG),
    # R slides a tile of 8 rows by 2 and goes back for each of 4 K, in 4 channels at once
    **of_input(
        "m16_sreduce_C", 4 * (8 + 2 + 3 * (2 + 2)), 4 * 4 * (8 + 2), Why.WRAP, *BUF_TO_REG
    ),
    # 4 instances with 4 + 2 rows each, 18 different ones; two channels, twice (K)
    **of_input("m17_mcast_halo_P", 2 * 2 * 18, 2 * 2 * 4 * 6, Why.HALO, "BUF read"),
    # 2 x 2 tiles of 6 x 6 pixels, 2 channels; a step along P keeps 2 rows, one along Q 2 x 2 pixels
    **of_input(
        "m19_conv2d_halo_PQ",
        2 * (2 * (36 + 24) - 2 * 2),
        2 * 2 * (36 + 24),
        Why.WRAP,
        *DRAM_TO_BUF,
    ),
    # 10 outputs in tiles of 4, 4 and 2, and 2 rows of halo
    **of_input("m24_imperfect_P", 10 + 2, 3 * 4 + 2, Why.FULL_LAST, *DRAM_TO_BUF),
    ("m24_imperfect_P", "", "", "cycles"): Difference(3 * 10, 3 * 3 * 4, Why.FULL_LAST),
    # 28 x 28 single pixels, 2 apart; 4 tiles of 28 x 7; 64 channels
    **of_input(
        "ws_resnet18_layer2_0_down_1x1_s2",
        64 * 28 * 28,
        64 * 4 * (27 * 2 + 1) * (6 * 2 + 1),
        Why.BOX,
        "DRAM read",
        "GLB fill",
    ),
    **of_input(
        "ws_resnet18_layer2_0_down_1x1_s2",
        64 * 28 * 7,
        64 * (27 * 2 + 1) * (6 * 2 + 1),
        Why.BOX,
        "GLB tile",
    ),
} | {
    # sums read from GLB, and the instances along C (and S) that add to each of them
    (case, level, "output", "fill"): Difference(sums, adders * sums, Why.TO_ALL)
    for case, level, sums, adders in (
        ("ws_vgg16_conv1_1", "REG", 25_690_112, 3),
        ("ws_vgg16_conv3_2", "REG", 114_802_688, 16),
        ("ws_vgg16_conv5_1", "REG", 28_801_024, 16),
        ("ws_resnet18_conv1_s2", "REG", 38_535_168, 3),
        ("ws_resnet18_layer2_0_down_1x1_s2", "REG", 301_056, 16),
        ("ws_resnet50_res2_1x1", "REG", 2_408_448, 16),
        ("ws_resnet18_layer4_conv_N4", "REG", 28_801_024, 16),
        ("ey_vgg16_conv3_2", "OSPAD", 50_577_408, 3),
        ("ey_resnet18_layer2_0_conv1_s2", "OSPAD", 1_505_280, 3),
        ("ey_resnet50_res2_1x1", "OSPAD", 2_408_448, 2),
    )
}  # fmt: skip

# Halos are reloaded with `halo: refetch`, so what is left is the box.
ACCELFORGE_DIFFERENCES = {
    ("m09_conv1d_stride3_R1", "DRAM", "input", "reads"): Difference(8, 4 * 4, Why.BOX),
    ("m09_conv1d_stride3_R1", "BUF", "input", "writes"): Difference(8, 4 * 4, Why.BOX),
    ("m10_conv1d_stride3_R2_full", "DRAM", "input", "reads"): Difference(16, 23, Why.BOX),
    ("m10_conv1d_stride3_R2_full", "BUF", "input", "writes"): Difference(16, 23, Why.BOX),
}


CASES = cases()
WALKABLE_MACS = 10_000
"""More steps are too many to walk."""
MICRO = {name: case for name, case in CASES.items() if case.macs <= WALKABLE_MACS}
LARGE = {name: case for name, case in CASES.items() if case.macs > WALKABLE_MACS}


def rows_of(name: str) -> list[dict[str, str]]:
    """Rows of a table of golden numbers."""
    with (GOLDEN / name).open(newline="") as file:
        return list(csv.DictReader(file))


@cache
def ours_of(name: str) -> dict[Key, int]:
    """Our numbers for a case, in the words of the file."""
    case = CASES[name]
    counts = case.count()
    used = [int(amount[0]) for amount in counts.used]
    found: dict[Key, int] = {(name, "", "", "cycles"): int(counts.steps[0])}
    for index, level, tensor in case.held():
        numbers = {action: int(counts(index, tensor, action)[0]) for action in ACTIONS}
        # the outermost level has no tile of its own: it holds the whole tensor
        whole = case.shape.elements(tensor)
        numbers["tile"] = int(counts(index, tensor, "tile")[0]) if index else whole
        numbers["instances"] = prod(used[axis] for axis in case.nest.axes[index])
        found |= {(name, level, tensor.label, key): value for key, value in numbers.items()}
    return found


def theirs_of(name: str) -> dict[Key, int]:
    """All of Timeloop's numbers for a case."""
    case = CASES[name]
    found: dict[Key, int] = {(name, "", "", "cycles"): case.cycles}
    for level, tensors in case.counts.items():
        for word, numbers in tensors.items():
            found |= {(name, level, word, key): value for key, value in numbers.items()}
    return found


def check_equal_to_walk(shape: Shape, nest: Nest, trips: tuple[int, ...], rules: Rules) -> None:
    """Compare every count of the closed form with the walk."""
    walked = walk(shape, nest, trips, rules)
    counts = count(shape, nest, np.array([trips]), rules)
    assert int(counts.steps[0]) == walked.steps
    ours = {key: int(value[0]) for key, value in counts.values.items() if key[2] in WALKED}
    assert {key: value for key, value in ours.items() if value} == dict(walked.counts)


# -- Timeloop --------------------------------------------------------------------------------------


def test_all_cases_are_there() -> None:
    assert (len(MICRO), len(LARGE)) == (16, 10)
    assert {key[0] for key in DIFFERENCES} <= set(CASES)


def test_the_study_explains_the_same_inputs() -> None:
    assert {key[0] for key in DIFFERENCES if key[2] == "input"} == WHY_INPUT.keys()


@pytest.mark.parametrize("name", CASES)
def test_macs(name: str) -> None:
    assert CASES[name].shape.macs == CASES[name].macs


@pytest.mark.parametrize("name", CASES)
def test_timeloop_differs_only_where_it_must(name: str) -> None:
    ours, theirs = ours_of(name), theirs_of(name)
    assert ours.keys() == theirs.keys()
    found = {key: (ours[key], theirs[key]) for key in ours if ours[key] != theirs[key]}
    listed = {key: each[:2] for key, each in DIFFERENCES.items() if key[0] == name}
    assert found == listed


@pytest.mark.parametrize("name", MICRO)
@pytest.mark.parametrize(
    "rules", [Rules(), Rules(refetch=frozenset({1, 2})), Rules(multicast=False, reduce=False)]
)
def test_ours_is_what_a_walk_counts(name: str, rules: Rules) -> None:
    case = MICRO[name]
    check_equal_to_walk(case.shape, case.nest, case.trips, rules)


@pytest.mark.parametrize("name", LARGE)
def test_ours_is_what_a_walk_counts_in_a_small_analogue(name: str) -> None:
    case = LARGE[name]
    trips = tuple(
        min(trip, SMALL.get(loop.dim.name, 2))
        for loop, trip in zip(case.nest.loops, case.trips, strict=True)
    )
    dims = dict.fromkeys((dim.name for dim in Dim), 1)
    for loop, trip in zip(case.nest.loops, trips, strict=True):
        dims[loop.dim.name] *= trip
    shape = shape_of(dims, list(case.shape.stride), list(case.shape.dilation))
    check_equal_to_walk(shape, case.nest, trips, Rules())


TO_ALL = [key for key, difference in DIFFERENCES.items() if difference.why is Why.TO_ALL]


@pytest.mark.parametrize(("name", "level"), [key[:2] for key in TO_ALL])
def test_sums_that_come_back_are_read_once_and_spread(name: str, level: str) -> None:
    """They leave the outer level as often in both counts; only the fill differs, by the fan-out."""
    case = CASES[name]
    index = case.levels.index(level)
    outer = [at for at in case.nest.holders(OUTPUT) if at < index][-1]
    adders = prod(
        trip
        for loop, trip in zip(case.nest.loops, case.trips, strict=True)
        if loop.dim in REDUCTION and loop.axis in case.nest.axes[index] - case.nest.axes[outer]
    )
    theirs = case.counts
    read = theirs[case.levels[outer]]["output"]["read"]
    assert theirs[level]["output"]["fill"] == adders * read
    assert ours_of(name)[name, level, "output", "fill"] == read


@pytest.mark.parametrize("name", CASES)
def test_their_input_tiles_are_boxes(name: str) -> None:
    """Of the full tile; where ours is another, the stride leaves gaps in the box."""
    case = CASES[name]
    for index, level, tensor in case.held():
        if tensor is not INPUT:
            continue
        tile = nominal_tile(case.shape, case.nest, case.trips, index, INPUT)
        rows, columns = (
            (tile[out] - 1) * case.shape.stride[side]
            + (tile[tap] - 1) * case.shape.dilation[side]
            + 1
            for side, (out, tap) in enumerate(((Dim.P, Dim.R), (Dim.Q, Dim.S)))
        )
        box = tile[Dim.N] * tile[Dim.C] * rows * columns
        assert case.counts[level]["input"]["tile"] == box


# -- exact DRAM elements ---------------------------------------------------------------------------


@pytest.mark.parametrize("row", rows_of("exact_dram.csv"), ids=lambda row: " ".join(row.values()))
def test_dram_elements_are_exact(row: dict[str, str]) -> None:
    ours = ours_of(row["case"])
    assert ours[row["case"], "DRAM", row["tensor"], row["action"]] == int(row["elements"])


def test_exact_dram_elements_cover_all_cases_of_two_levels() -> None:
    two = {name for name, case in CASES.items() if len(case.levels) == 2}
    rows = rows_of("exact_dram.csv")
    assert {row["case"] for row in rows} == two
    assert len(rows) == 4 * len(two)


# -- AccelForge ------------------------------------------------------------------------------------


def test_accelforge_differs_only_where_it_must() -> None:
    found = {}
    rows = rows_of("accelforge_micro.csv")
    for row in rows:
        case = CASES[row["case"]]
        counts = case.count(Rules(refetch=frozenset({1})))
        level, tensor = case.levels.index(row["level"]), Tensor[row["tensor"].upper()]
        ours = {
            "reads": int(counts(level, tensor, "read")[0] + counts(level, tensor, "drain")[0]),
            "writes": int(counts(level, tensor, "fill")[0] + counts(level, tensor, "update")[0]),
        }
        for name, value in ours.items():
            if value != int(row[name]):
                key = (row["case"], row["level"], row["tensor"], name)
                found[key] = (value, int(row[name]))
    assert len(rows) == 7 * 6
    assert found == {key: each[:2] for key, each in ACCELFORGE_DIFFERENCES.items()}
