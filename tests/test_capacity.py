"""How full the memories are, what is said when something doesn't fit, and mapping files."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from machines import bundled, conv, loops, machine, memory, network

import energysim as es
from energysim.axes import Shape, Tensor
from energysim.errors import DoesNotFitError, InputError, InputErrors
from energysim.hardware import Hardware
from energysim.mapping import MappingFile, machine_rules, read_loops
from energysim.model.capacity import Occupancy, Residency, element_bits, occupancy
from energysim.model.counts import count
from energysim.model.sparse import WeightStore
from energysim.simulate import simulate
from energysim.sparsity import Mask

W, I, O = Tensor
SHAPE = Shape((1, 1, 4, 6, 4, 4, 3, 3), pad=(1, 1), size=(4, 4))


def fill(
    hardware: Hardware,
    *rows: dict[str, Any],
    pattern: str = "dense",
    residency: Residency | None = None,
) -> Occupancy:
    """Room taken in the outermost on-chip level of SHAPE under a mapping."""
    nest, trips = read_loops(hardware, SHAPE, loops(*rows), has_weights=True, where=str)
    counts = count(SHAPE, nest, np.array([trips]), machine_rules(hardware, has_weights=True))
    store = WeightStore.of(Mask.of(pattern, SHAPE), 8, hardware.sparsity.formats)
    return occupancy(hardware, SHAPE, nest, trips, counts, store, residency or Residency())[0]


REST = {"level": "BUF", "temporal": [("P", 4), ("Q", 4), ("R", 3), ("S", 3)]}


def buffer(**fields: Any) -> dict[str, Any]:
    return memory("BUF", **({"capacity_kib": 8} | fields))


def test_second_buffers_are_for_tiles_that_change() -> None:
    rows = (
        {"level": "DRAM", "temporal": [("K", 4)]},
        REST | {"temporal": [("C", 6), *REST["temporal"]]},
    )
    once = fill(machine(buffer()), *rows)
    assert once.bits == {W: 6 * 9 * 8, I: 6 * 16 * 8, O: 16 * 24}
    twice = fill(machine(buffer(double_buffered=True)), *rows)
    # the input is loaded once and for all
    assert twice.bits == {W: 2 * 6 * 9 * 8, I: 6 * 16 * 8, O: 2 * 16 * 24}
    assert twice.used_bits == sum(twice.bits.values())
    assert twice.excess_bits == twice.used_bits - 8 * 8192


def test_outputs_are_wide_where_partial_sums_arrive() -> None:
    hardware = machine(buffer())
    whole = fill(hardware, REST | {"temporal": [("K", 4), ("C", 6), *REST["temporal"]]})
    assert whole.bits[O] == 64 * 24  # the MAC updates the buffer itself: 64 partial sums
    inner = memory("ACC", per=["cols"], holds=["output"], capacity_bytes=64)
    acc = {"level": "ACC", "temporal": [("C", 6), ("P", 4), ("Q", 4), ("R", 3), ("S", 3)]}
    final = fill(machine(buffer(), inner), {"level": "BUF", "temporal": [("K", 4)]}, acc)
    assert final.bits[O] == 64 * 8
    cut = acc | {"temporal": [("C", 3), *acc["temporal"][1:]]}
    cut_in_buffer = fill(
        machine(buffer(), inner), {"level": "BUF", "temporal": [("C", 2), ("K", 4)]}, cut
    )
    assert cut_in_buffer.bits[O] == 64 * 24
    cut_in_dram = fill(
        machine(buffer(), inner),
        {"level": "DRAM", "temporal": [("C", 2)]},
        {"level": "BUF", "temporal": [("K", 4)]},
        cut,
    )
    assert cut_in_dram.bits[O] == 64 * 24


def test_sums_that_the_network_cannot_add_arrive_as_partial_sums() -> None:
    inner = memory("ACC", per=["rows"], holds=["output"], capacity_bytes=64)
    rows = (
        {"level": "BUF", "temporal": [("K", 4)], "spatial": [("C", 2, "rows")]},
        {"level": "ACC", "temporal": [("C", 3), ("P", 4), ("Q", 4), ("R", 3), ("S", 3)]},
    )
    assert fill(machine(buffer(), inner), *rows).bits[O] == 64 * 8
    apart = fill(machine(buffer(), inner, array={"reduce": False}), *rows)
    assert apart.bits[O] == 64 * 24


def test_a_capacity_for_each_tensor() -> None:
    sizes = {"weight": 100, "input": 96, "output": 200}
    room = fill(
        machine(memory("BUF", capacity_bytes=sizes)),
        REST | {"temporal": [("K", 4), ("C", 6), *REST["temporal"]]},
    )
    # 216 bytes of weights in 100; the room that the others leave doesn't help
    assert room.bits == {W: 216 * 8, I: 96 * 8, O: 192 * 8}
    assert room.excess_bits == 116 * 8


def test_compressed_tiles_take_what_is_stored() -> None:
    rows = (
        {"level": "DRAM", "temporal": [("K", 2)]},
        REST | {"temporal": [("K", 2), ("C", 6), *REST["temporal"]]},
    )
    packed = {"compressed": True}
    csr = {"sparsity": {"formats": ["csr"]}}
    assert fill(machine(buffer()), *rows, pattern="PS4_P4").bits[W] == 2 * 6 * 9 * 8
    periodic = machine(buffer(**packed), sparsity={"formats": ["periodic"]})
    # two filters of six channels with 4 taps each, and the table of 4 slots of 9 taps
    assert fill(periodic, *rows, pattern="PS4_P4").bits[W] == 12 * 4 * 8 + 4 * 9
    # 48 weights with columns of 6 bits, and 3 row starts as wide as those of the layer, of 7 bits
    found = fill(machine(buffer(**packed), **csr), *rows, pattern="PS4_P4").bits[W]
    assert found == 12 * 4 * 8 + 48 * 6 + 3 * 7


def test_a_capacity_for_each_tensor_and_compressed_weights() -> None:
    sizes = {"weight": 50, "input": 96, "output": 200}
    hardware = machine(
        memory("BUF", capacity_bytes=sizes, compressed=True), sparsity={"formats": ["periodic"]}
    )
    rows = (
        {"level": "DRAM", "temporal": [("K", 2)]},
        REST | {"temporal": [("K", 2), ("C", 6), *REST["temporal"]]},
    )
    room = fill(hardware, *rows, pattern="PS4_P4")
    assert room.bits[W] == 12 * 4 * 8 + 4 * 9
    assert room.excess_bits == room.bits[W] - 50 * 8
    net = network(conv("a", 4), conv("b", 4), size=(6, 4, 4)).with_pattern("PS4_P4")
    found = simulate(net, hardware)
    assert found.layer_rows[1].weight_format == "periodic"
    assert found.search.pruned_capacity  # not all tiles fit


def test_what_stays_takes_room_whole() -> None:
    hardware = machine(buffer(double_buffered=True))
    rows = (
        {"level": "DRAM", "temporal": [("K", 4), ("C", 6)]},
        REST,
    )
    around = Residency(frozenset({W, I}), 5000)
    room = fill(hardware, *rows, residency=around)
    # cached weights are in what is reserved, the input is there once
    assert room.bits == {W: 0, I: 6 * 16 * 8, O: 2 * 16 * 24}
    assert room.used_bits == 5000 + 6 * 16 * 8 + 2 * 16 * 24


@pytest.mark.parametrize(
    ("tensor", "final", "bits"), [(W, True, 8), (I, False, 8), (O, True, 8), (O, False, 24)]
)
def test_width_of_an_element(tensor: Tensor, *, final: bool, bits: int) -> None:
    assert element_bits(machine(buffer()), tensor, final=final) == bits


# -- nothing fits ----------------------------------------------------------------------------------


def test_a_layer_that_fits_nothing_is_named() -> None:
    net = network(conv("small", 1, 1), conv("large", 4), size=(1, 6, 6))
    with pytest.raises(DoesNotFitError) as caught:
        simulate(net, machine(buffer(capacity_kib=None, capacity_bytes=4)))
    # a weight, an input and a partial sum of 3 bytes
    assert str(caught.value) == (
        "layer small: level BUF is too small: 1 bytes are missing for the smallest tiles"
    )
    assert caught.value.exit_code == 3


def test_an_inner_level_that_is_too_small_is_named() -> None:
    tiny = memory(
        "RF", "regfile", per=["rows", "cols"], holds=["weight", "output"], capacity_bytes=3
    )
    with pytest.raises(DoesNotFitError) as caught:
        simulate(network(conv("c", 4), size=(4, 6, 6)), machine(buffer(), tiny))
    # one weight and one partial sum of 24 bits
    assert str(caught.value) == (
        "layer c: level RF is too small: 1 bytes are missing for the smallest tiles"
    )
    doubled = machine(buffer(), tiny | {"double_buffered": True, "capacity_bytes": 7})
    with pytest.raises(DoesNotFitError, match="1 bytes are missing"):
        simulate(network(conv("c", 4), size=(4, 6, 6)), doubled)


def test_a_given_mapping_that_does_not_fit_is_an_input_error() -> None:
    net = network(conv("c", 4), size=(6, 4, 4))
    given = MappingFile(
        layers={"c": loops(REST | {"temporal": [("K", 4), ("C", 6), *REST["temporal"]]})}
    )
    small = machine(buffer(capacity_kib=None, capacity_bytes=500))
    with pytest.raises(InputError) as caught:
        simulate(net, small, mapping=given, where=lambda loc: "m.yaml:" + ".".join(map(str, loc)))
    assert not isinstance(caught.value, DoesNotFitError)
    assert str(caught.value) == (
        "m.yaml:layers.c: level BUF is too small by 4 bytes: the tiles need 504 bytes "
        "(weight 216, input 96, output 192)"
    )


# -- mapping files ---------------------------------------------------------------------------------


def refused(*rows: dict[str, Any]) -> tuple[str, ...]:
    """All that is wrong with a mapping of SHAPE, without the places."""
    hardware = machine(
        buffer(),
        memory("ACC", per=["cols"], holds=["output"], capacity_bytes=64),
        memory("RF", "regfile", per=["rows", "cols"], holds=["weight"], capacity_bytes=2),
    )
    with pytest.raises(InputErrors) as caught:
        read_loops(hardware, SHAPE, loops(*rows), has_weights=True, where=lambda loc: f"at {loc}")
    return caught.value.problems


REDUCE = [("C", 6), ("R", 3), ("S", 3)]
ALL = {"level": "BUF", "temporal": [("K", 4), ("P", 4), ("Q", 4), *REDUCE]}


def test_unknown_level() -> None:
    (problem,) = refused({"level": "BUFF"}, ALL)
    assert problem == (
        "at (0, 'level'): no level named 'BUFF'. Did you mean 'BUF'? "
        "Levels of chip: DRAM, BUF, ACC, RF"
    )


@pytest.mark.parametrize("again", ["BUF", "DRAM"])
def test_levels_out_of_order(again: str) -> None:
    (problem,) = refused(ALL, {"level": again})
    assert problem == f"at (1, 'level'): '{again}' must stand once, outermost level first"


def test_unknown_axis() -> None:
    (problem,) = refused(ALL | {"spatial": [("K", 1, "row")]})
    assert problem == (
        "at (0, 'spatial', 0): no array axis named 'row'. Did you mean 'rows'? Axes: rows, cols"
    )


def test_axis_too_short() -> None:
    (problem,) = refused(ALL | {"spatial": [("K", 2, "cols"), ("P", 2, "cols")]})
    assert problem == "at (0, 'spatial', 1): 4 instances along 'cols', which has 3"


def test_axis_at_the_wrong_level() -> None:
    (problem,) = refused(ALL, {"level": "ACC", "spatial": [("K", 2, "cols")]})
    assert problem.startswith("at (1, 'spatial', 0): 'cols' fans out ")
    assert "put this loop" in problem


def test_a_dim_that_is_not_covered() -> None:
    (problem,) = refused(ALL | {"temporal": [("K", 4), ("P", 2), ("Q", 4), *REDUCE]})
    assert problem == (
        "at (): the loops over P do not cover its extent 4: pieces of 2 are left, multiply the "
        "trip counts by 2"
    )


def test_cuts_that_go_outward_again() -> None:
    (problem,) = refused(
        {"level": "BUF", "temporal": [("K", 4), ("P", 4)], "cuts": {"output": 4}},
        {"level": "ACC", "temporal": [("Q", 4), *REDUCE]},
    )
    assert problem == "at (): the cuts of output must not go outward again at an inner level"


def test_everything_that_is_wrong_is_told_at_once() -> None:
    problems = refused(
        {"level": "NONE"},
        ALL | {"spatial": [("K", 9, "cols"), ("C", 2, "deep")]},
        {"level": "DRAM"},
    )
    assert len(problems) == 4
    uncovered = refused({"level": "BUF", "temporal": [("K", 4)]})
    assert [problem.split("over ")[1][0] for problem in uncovered] == ["C", "P", "Q", "R", "S"]


def test_a_layer_name_that_the_network_has_not() -> None:
    net = network(conv("conv_a", 4), size=(6, 4, 4))
    with pytest.raises(
        InputError, match=r"net has no layer named 'conv_b'\. Did you mean 'conv_a'\?"
    ):
        simulate(net, machine(buffer()), mapping=MappingFile(layers={"conv_b": loops(ALL)}))


def test_a_tile_in_several_pieces_is_refused() -> None:
    acc = memory("ACC", per=["cols"], holds=["output"], capacity_bytes=64)
    # the weight tile would be every second filter: inside the columns, outside the loop in them
    rows = (
        {
            "level": "BUF",
            "temporal": [("P", 4)],
            "spatial": [("K", 2, "cols")],
            "cuts": {"weight": 2},
        },
        {"level": "ACC", "temporal": [("K", 2), ("Q", 4), *REDUCE]},
    )
    mapping = MappingFile(layers={"c": loops(*rows)})
    with pytest.raises(InputError, match=r"^mapping.layers.c: loop 2 over K is outside a cut but"):
        simulate(network(conv("c", 4), size=(6, 4, 4)), machine(buffer(), acc), mapping=mapping)


def test_an_uneven_mapping_needs_less_room() -> None:
    hardware = machine(buffer())
    rows = {"level": "BUF", "temporal": [("K", 4), ("C", 6), *REST["temporal"]]}
    even, uneven = fill(hardware, rows), fill(hardware, rows | {"cuts": {"weight": 2}})
    assert even.bits[W] == 4 * 6 * 9 * 8
    assert uneven.bits == even.bits | {W: 9 * 8}


@pytest.mark.parametrize("capacity", range(300, 1500, 100))
def test_mappings_make_the_round_trip_where_an_output_left_after_all(capacity: int) -> None:
    """The same outputs leave, whether loops are searched or given."""
    net = network(conv("a", 12, 1), conv("b", 12, 1), conv("c", 12, 1), size=(12, 5, 5))
    hardware = machine(buffer(capacity_kib=None, capacity_bytes=capacity))
    first = simulate(net, hardware, residency=True)
    mapping = MappingFile(layers=dict(first.mappings))
    again = simulate(net, hardware, residency=True, mapping=mapping)
    assert again.layer_rows == first.layer_rows
    assert again.access_rows == first.access_rows


@pytest.mark.parametrize(
    ("name", "chip", "residency"),
    [
        ("vgg16_ps", "edge_tpu", True),
        ("vgg16_ps", "edge_tpu", False),
        ("alexnet", "eyeriss", True),
        ("digits_cnn", "eyeriss", False),
    ],
)
def test_mappings_make_the_round_trip(name: str, chip: str, *, residency: bool) -> None:
    net, hardware = es.load_network(name), es.load_hardware(chip)
    first = bundled(name, chip, residency=residency)
    text = MappingFile(layers=dict(first.mappings)).model_dump_json()
    again = simulate(
        net, hardware, residency=residency, mapping=MappingFile.model_validate_json(text)
    )
    assert again.layer_rows == first.layer_rows
    assert again.access_rows == first.access_rows
    assert again.mappings == first.mappings
    assert again.search.evaluated == len(net.layers)


def test_more_trips_than_there_is_left() -> None:
    (problem, *_) = refused(ALL | {"temporal": [("K", 16777216), *REDUCE]})
    assert problem.startswith("at (0, 'temporal', 0): 16777216 trips over K, of which ")


def test_residency_is_not_blamed_for_an_inner_level() -> None:
    registers = memory("RF", "regfile", per=["rows", "cols"], holds=["weight"], capacity_bytes=1)
    hardware = machine(memory("BUF", capacity_kib=8), registers)
    inside = [("K", 4), ("C", 6), ("P", 4), ("Q", 4), ("R", 3), ("S", 3)]
    mapping = MappingFile(layers={"a": loops({"level": "RF", "temporal": inside})})
    net = network(conv("a", 4), conv("b", 4), size=(6, 4, 4))
    with pytest.raises(InputError, match="level RF is too small by 215 bytes") as raised:
        simulate(net, hardware, mapping=mapping, residency=True)
    assert "residency" not in str(raised.value)
