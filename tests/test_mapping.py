"""Nests from segments, tiles, mapping files, and their mistakes."""

from __future__ import annotations

import json
import random
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from machines import random_layer, random_machine
from pydantic import ValidationError
from strategies import Case, cases
from test_bound import draw_places

from energysim.axes import RELEVANT, Dim, Shape, Tensor
from energysim.errors import InputErrors
from energysim.hardware import Hardware
from energysim.mapper.dataflows import of_machine
from energysim.mapper.layout import lay_out
from energysim.mapper.space import arrangements, paths
from energysim.mapping import (
    LevelLoops,
    Loop,
    MappingFile,
    Nest,
    Segment,
    build_nest,
    held_tensors,
    machine_rules,
    nominal_tile,
    read_loops,
    uncovered,
    write_nest,
)
from energysim.model.counts import count
from energysim.yamlio import load_model, to_yaml

WEIGHT, INPUT, OUTPUT = Tensor
ALL = frozenset(Tensor)
N, G, K, C, P, Q, R, S = Dim
NO_AXES: frozenset[int] = frozenset()

# -- nests -----------------------------------------------------------------------------------------

SEGMENTS: list[Segment] = [
    ((K, P), ()),
    ((C, K), ((C, 0), (K, 1))),
    ((P, R), ()),
]
AXES = [NO_AXES, NO_AXES, frozenset({0, 1})]


def test_loops_stand_in_a_row_and_cuts_in_front_of_each_level() -> None:
    nest = build_nest(AXES, [ALL, ALL, ALL], SEGMENTS)
    assert nest == Nest(
        loops=(
            Loop(K),
            Loop(P),
            Loop(C),
            Loop(K),
            Loop(C, axis=0),
            Loop(K, axis=1),
            Loop(P),
            Loop(R),
        ),
        cuts=((0, 0, 0), (2, 2, 2), (6, 6, 6)),
        axes=(NO_AXES, NO_AXES, frozenset({0, 1})),
    )
    assert nest.levels == 3
    assert nest.holders(WEIGHT) == (0, 1, 2)


def test_a_level_has_no_cut_for_what_it_does_not_hold() -> None:
    nest = build_nest(AXES, [ALL, frozenset({INPUT, OUTPUT}), frozenset({WEIGHT})], SEGMENTS)
    assert nest.cuts == ((0, 0, 0), (None, 2, 2), (6, None, None))
    assert nest.holders(WEIGHT) == (0, 2)
    assert nest.holders(INPUT) == nest.holders(OUTPUT) == (0, 1)


def test_shifts_count_temporal_loops_only() -> None:
    shifts = [{}, {WEIGHT: 1, INPUT: 2, OUTPUT: 3}, {OUTPUT: 1}]
    nest = build_nest(AXES, [ALL, ALL, ALL], SEGMENTS, shifts)
    # the third temporal loop behind the second level is P, with two spatial ones in between
    assert nest.cuts == ((0, 0, 0), (3, 4, 7), (6, 6, 7))


def test_a_shift_past_the_last_loop_stops_there() -> None:
    nest = build_nest(AXES, [ALL, ALL, ALL], SEGMENTS, [{}, {}, {WEIGHT: 9}])
    assert nest.cuts[2] == (8, 6, 6)


def test_layers_without_weights() -> None:
    """A 2 x 2 pooling layer: channels are groups, nothing moves for weights."""
    both = frozenset({INPUT, OUTPUT})
    shape = Shape((1, 8, 1, 1, 4, 4, 2, 2), stride=(2, 2), size=(8, 8))
    segments: list[Segment] = [((G,), ()), ((P, Q, R, S), ())]
    nest = build_nest([NO_AXES, NO_AXES], [both, both], segments)
    assert nest.cuts == ((None, 0, 0), (None, 1, 1))
    assert nest.holders(WEIGHT) == ()
    counts = count(shape, nest, np.array([[8, 4, 4, 2, 2]]))
    assert {tensor for _, tensor, _ in counts.values} == both
    assert counts(0, INPUT, "read").tolist() == [8 * 8 * 8]
    assert counts(0, OUTPUT, "update").tolist() == [8 * 4 * 4]


# -- tiles -----------------------------------------------------------------------------------------

SHAPE = Shape((1, 1, 10, 7, 9, 1, 3, 1), size=(11, 1))
TRIPS = (3, 2, 2, 2, 4, 2, 5, 3)


def test_nominal_tiles_are_the_full_ones() -> None:
    nest = build_nest(AXES, [ALL, ALL, ALL], SEGMENTS)
    tiles = [nominal_tile(SHAPE, nest, TRIPS, level, WEIGHT) for level in range(3)]
    assert tiles[0] == list(SHAPE.dims)
    assert [(tile[K], tile[C], tile[P], tile[R]) for tile in tiles] == [
        (10, 7, 9, 3),
        (4, 7, 5, 3),  # 10 filters in thirds, 9 rows in halves
        (1, 1, 5, 3),  # 4 filters in halves and over 2 columns, 7 channels in halves over 4 rows
    ]


def test_nominal_tiles_of_uneven_mappings_differ() -> None:
    nest = build_nest(AXES, [ALL, ALL, ALL], SEGMENTS, [{}, {OUTPUT: 2}, {}])
    assert nominal_tile(SHAPE, nest, TRIPS, 1, WEIGHT)[K] == 4
    assert nominal_tile(SHAPE, nest, TRIPS, 1, OUTPUT)[K] == 2


@settings(max_examples=2 * settings.default.max_examples)
@given(cases())
def test_nominal_tiles_are_the_largest_that_are_counted(case: Case) -> None:
    counts = count(case.shape, case.nest, np.array([case.trips]), case.rules)
    for tensor in (WEIGHT, OUTPUT):
        for level in case.nest.holders(tensor)[1:]:
            tile = nominal_tile(case.shape, case.nest, case.trips, level, tensor)
            elements = prod(tile[dim] for dim in RELEVANT[tensor])
            assert counts(level, tensor, "tile").tolist() == [elements]


def test_uncovered_dims_are_named_with_what_is_left() -> None:
    nest = build_nest(AXES, [ALL, ALL, ALL], SEGMENTS)
    assert uncovered(SHAPE, nest, TRIPS) == {}
    assert uncovered(SHAPE, nest, (3, 2, 2, 1, 4, 2, 3, 1)) == {K: 2, P: 2, R: 3}
    assert uncovered(Shape((2, 1, 10, 7, 9, 1, 3, 1)), nest, TRIPS) == {N: 2}


@given(cases())
def test_random_mappings_cover_everything(case: Case) -> None:
    assert uncovered(case.shape, case.nest, case.trips) == {}


# -- files -----------------------------------------------------------------------------------------

FILE = """\
note: by hand
layers:
  conv1:
  - {level: DRAM, temporal: [[K, 4], [C, 2]]}
  - level: SRAM
    temporal: [[P, 8]]
    spatial: [[C, 4, rows], [K, 2, cols]]
    cuts: {weight: 1}
  fc: [{level: DRAM}]
"""


def load(folder: Path, text: str) -> MappingFile:
    """Read a mapping file."""
    path = folder / "map.yaml"
    path.write_text(text)
    return load_model(path, MappingFile)[0]


def test_a_mapping_file_is_read_and_written_back(tmp_path: Path) -> None:
    mapping = load(tmp_path, FILE)
    assert mapping == MappingFile(
        note="by hand",
        layers={
            "conv1": (
                LevelLoops(level="DRAM", temporal=(("K", 4), ("C", 2))),
                LevelLoops(
                    level="SRAM",
                    temporal=(("P", 8),),
                    spatial=(("C", 4, "rows"), ("K", 2, "cols")),
                    cuts={"weight": 1},
                ),
            ),
            "fc": (LevelLoops(level="DRAM"),),
        },
    )
    assert load(tmp_path, to_yaml(mapping)) == mapping
    assert MappingFile.model_validate_json(mapping.model_dump_json()) == mapping


def test_loops_are_frozen() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        LevelLoops(level="DRAM").level = "SRAM"


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ("[K, 4]", "[Z, 4]", "4:31 layers.conv1.0.temporal.0.0: must be one of 'N', 'G', 'K'"),
        ("[K, 4]", "[k, 4]", "4:31 layers.conv1.0.temporal.0.0: must be one of 'N', 'G', 'K'"),
        ("[K, 4]", "[K, 0]", "4:34 layers.conv1.0.temporal.0.1: must be >= 1, got 0"),
        ("[K, 4]", "[K, 16777217]", "4:34 layers.conv1.0.temporal.0.1: must be <= 16777216"),
        ("[K, 4]", "[K, 2.5]", "4:34 layers.conv1.0.temporal.0.1: must be an integer, got 2.5"),
        ("[K, 4]", "[K, '4']", "4:34 layers.conv1.0.temporal.0.1: must be an integer, got '4'"),
        ("[K, 4]", "[K]", "4:30 layers.conv1.0.temporal.0: must have more entries: entry 2"),
        ("[K, 4]", "[K, 4, rows]", "4:30 layers.conv1.0.temporal.0: must have at most 2 entries"),
        ("[C, 4, rows]", "[C, 4]", "7:15 layers.conv1.1.spatial.0: must have more entries"),
        ("[C, 4, rows]", "[C, 4, 1]", "7:22 layers.conv1.1.spatial.0.2: must be text, got 1"),
        ("weight: 1", "weights: 1", "8:12 layers.conv1.1.cuts.weights: must be one of 'weight'"),
        ("weight: 1", "weight: -1", "8:20 layers.conv1.1.cuts.weight: must be >= 0, got -1"),
        ("weight: 1", "weight: 65", "8:20 layers.conv1.1.cuts.weight: must be <= 64, got 65"),
        ("level: SRAM", "name: SRAM", "5:5 layers.conv1.1.name: unknown field"),
        ("spatial:", "spatail:", "7:5 layers.conv1.1.spatail: unknown field. Did you mean 'spati"),
        ("layers:", "layer:", "2:1 layer: unknown field. Did you mean 'layers'?"),
        ("fc: [{level: DRAM}]", "fc: DRAM", "9:7 layers.fc: must be a list, got 'DRAM'"),
        ("by hand", "[1]", "1:7 note: must be text, got a list"),
    ],
)
def test_mistakes_in_a_file_have_a_position(
    tmp_path: Path, old: str, new: str, problem: str
) -> None:
    assert FILE.count(old) == 1
    with pytest.raises(InputErrors) as caught:
        load(tmp_path, FILE.replace(old, new))
    assert any(f"map.yaml:{problem}" in each for each in caught.value.problems), caught.value


def test_a_file_without_layers_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputErrors, match=r"map.yaml:1:9 layers: must have at least 1 entry"):
        load(tmp_path, "layers: {}")
    with pytest.raises(InputErrors, match="missing field 'layers'"):
        load(tmp_path, "note: nothing")


# -- on a machine ----------------------------------------------------------------------------------


def memory(name: str, **fields: Any) -> dict[str, Any]:
    """Describe a memory level."""
    cost = {"read_pj_per_bit": 1.0, "write_pj_per_bit": 1.0, "source": "a test"}
    return {"name": name, "kind": "sram", "capacity_kib": 64} | cost | fields


def chip(**fields: Any) -> Hardware:
    """Build a machine of three levels, the innermost one in every processing element."""
    record = {
        "name": "chip",
        "source": "a test",
        "clock_mhz": 100,
        "bits": {"weight": 8, "input": 8, "output": 8, "psum": 32},
        "mac": {"energy_pj": 1.0, "latch": ["weight"], "source": "a test"},
        "array": {"axes": {"rows": 4, "cols": 2}, "source": "a test"},
        "levels": [
            memory("DRAM", kind="dram", capacity_kib=None),
            memory("SRAM", halo="refetch"),
            memory("RF", per=["rows", "cols"], holds=["weight", "output"]),
        ],
        "dataflow": "weight_stationary",
    }
    return Hardware.model_validate_json(json.dumps(record | fields))


def place(loc: tuple[str | int, ...]) -> str:
    """Say where in the list of levels something is."""
    return ".".join(map(str, loc)) or "here"


def levels(*rows: dict[str, Any]) -> tuple[LevelLoops, ...]:
    """Turn plain data into the loops of a layer."""
    return tuple(LevelLoops.model_validate_json(json.dumps(row)) for row in rows)


LAYER = Shape((1, 1, 8, 8, 6, 1, 3, 1), size=(8, 1))
ROWS: tuple[dict[str, Any], ...] = (
    {"level": "DRAM", "temporal": [["K", 4], ["C", 2]]},
    {"level": "SRAM", "temporal": [["P", 6]], "spatial": [["C", 4, "rows"], ["K", 2, "cols"]]},
    {"level": "RF", "temporal": [["R", 3]]},
)


def test_loops_of_a_file_become_a_nest() -> None:
    nest, trips = read_loops(chip(), LAYER, levels(*ROWS), has_weights=True, where=place)
    assert trips == (4, 2, 6, 4, 2, 3)
    assert nest.loops == (Loop(K), Loop(C), Loop(P), Loop(C, 0), Loop(K, 1), Loop(R))
    assert nest.cuts == ((0, 0, 0), (2, 2, 2), (5, None, 5))
    assert nest.axes == (NO_AXES, NO_AXES, frozenset({0, 1}))
    counts = count(LAYER, nest, np.array([trips]), machine_rules(chip(), has_weights=True))
    assert counts.steps.tolist() == [4 * 2 * 6 * 3]


def test_a_level_without_loops_may_be_left_out() -> None:
    nest, trips = read_loops(
        chip(),
        Shape((1, 1, 8, 1, 1, 1, 1, 1)),
        levels({"level": "RF", "temporal": [["K", 8]]}),
        has_weights=True,
        where=place,
    )
    assert trips == (8,)
    assert nest.cuts == ((0, 0, 0), (0, 0, 0), (0, None, 0))


def test_loops_are_written_as_they_are_read() -> None:
    segments: list[Segment] = [((K, N, C), ()), ((P,), ((C, 0), (K, 1))), ((R, S), ())]
    hardware = chip()
    axes = [hardware.level_axes(level) for level in range(3)]
    nest = build_nest(axes, held_tensors(hardware, has_weights=True), segments)
    assert write_nest(hardware, nest, (4, 1, 2, 6, 4, 2, 3, 1)) == levels(*ROWS)


@pytest.mark.parametrize("seed", range(60))
def test_what_is_written_moves_the_same(seed: int) -> None:
    """Mappings with different cuts within a level, as the search finds them."""
    rng = random.Random(seed)
    hardware, shape = random_machine(rng), random_layer(rng, largest=6, wide=3)
    for weights in (True, False):
        rules = machine_rules(hardware, has_weights=weights)
        flow = of_machine(hardware)
        found = arrangements(hardware, shape, flow, has_weights=weights, latch=rules.latch)
        here = rng.choice(found)
        path = rng.choice(list(paths(here, flow))[:500])
        layout = lay_out(here, path, draw_places(rng, here, path))
        trips = tuple(layout.trips[0].tolist())
        loops = write_nest(hardware, layout.nest, trips, has_weights=weights)
        nest, again = read_loops(hardware, shape, loops, has_weights=weights, where=str)
        before = count(shape, layout.nest, np.array([trips]), rules)
        after = count(shape, nest, np.array([again]), rules)
        for key, value in before.values.items():
            if key[2] in {"read", "fill", "update", "drain", "tile", "hop", "drain_complete"}:
                assert int(after(*key)[0]) == int(value[0]), (key, loops)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({0: {"level": "DARM"}}, r"0.level: no level named 'DARM'. Did you mean 'DRAM'\?"),
        ({2: {"level": "SRAM"}}, "2.level: 'SRAM' must stand once, outermost level first"),
        (
            {1: {"spatial": [["C", 4, "row"], ["K", 2, "cols"]]}},
            r"1.spatial.0: no array axis named 'row'. Did you mean 'rows'\?",
        ),
        (
            {1: {"spatial": [["C", 4, "rows"], ["K", 2, "rows"]]}},
            "1.spatial.1: 8 instances along 'rows', which has 4",
        ),
        ({2: {"spatial": [["R", 3, "rows"]]}}, "2.spatial.0: 'rows' fans out"),
        (
            {0: {"temporal": [["K", 2], ["C", 2]]}},
            "here: the loops over K do not cover its extent 8: pieces of 2 are left",
        ),
        (
            {
                1: {"cuts": {"output": 2}, "spatial": [["K", 2, "cols"]]},
                2: {"temporal": [["C", 4], ["R", 3]]},
            },
            "here: the cuts of output must not go outward again",
        ),
    ],
)
def test_mistakes_of_a_mapping_on_a_machine(
    changes: dict[int, dict[str, Any]], problem: str
) -> None:
    rows = [row | changes.get(at, {}) for at, row in enumerate(ROWS)]
    with pytest.raises(InputErrors, match=problem):
        read_loops(chip(), LAYER, levels(*rows), has_weights=True, where=place)


def test_all_mistakes_of_a_mapping_are_told_at_once() -> None:
    rows = [{"level": "A"}, {"level": "B"}, {"level": "RF", "spatial": [["K", 2, "z"]]}]
    with pytest.raises(InputErrors) as caught:
        read_loops(chip(), LAYER, levels(*rows), has_weights=True, where=place)
    assert [each.split(":")[0] for each in caught.value.problems] == [
        "0.level",
        "1.level",
        "2.spatial.0",
    ]


def test_layers_without_weights_stop_at_the_outermost_memory_on_the_chip() -> None:
    assert held_tensors(chip(), has_weights=True) == (ALL, ALL, frozenset({WEIGHT, OUTPUT}))
    both = frozenset({INPUT, OUTPUT})
    assert held_tensors(chip(), has_weights=False) == (both, both, frozenset())


def test_rules_of_a_machine() -> None:
    rules = machine_rules(chip(), has_weights=True)
    assert rules.refetch == {1}
    assert rules.latch == {WEIGHT}
    assert (rules.multicast, rules.reduce, rules.count_padding) == (True, True, False)
    assert machine_rules(chip(), has_weights=False).latch == {OUTPUT}
    array = {"axes": {"rows": 4, "cols": 2}, "multicast": False, "reduce": False, "source": "a"}
    plain = machine_rules(chip(array=array, padding="count"), has_weights=True)
    assert (plain.multicast, plain.reduce, plain.count_padding) == (False, False, True)
