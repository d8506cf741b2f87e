"""Cycles of cases small enough to work out by hand."""

from __future__ import annotations

from typing import Any

import pytest
from machines import bundled, conv, loops, machine, memory, network

from energysim.hardware import Hardware
from energysim.mapping import MappingFile
from energysim.result import LayerRow
from energysim.simulate import simulate

NET = network(conv("c", 4, 1), size=(6, 4, 5))
"""4 x 6 x 20 = 480 multiplications; 24 weights, 120 inputs, 80 outputs"""

BUFFER = {"capacity_kib": 8}
ALL_INSIDE = ({"level": "BUF", "temporal": [("K", 4), ("P", 4), ("Q", 5), ("C", 6)]},)


def run(hardware: Hardware, *rows: dict[str, Any]) -> LayerRow:
    """Cost of NET under a mapping."""
    mapping = MappingFile(layers={"c": loops(*rows)})
    return simulate(NET, hardware, mapping=mapping).layer_rows[0]


def test_steps_of_the_array() -> None:
    hardware = machine(memory("BUF", **BUFFER))
    row = run(hardware, *ALL_INSIDE)
    assert (row.cycles, row.time_ms, row.utilization) == (480, 480 / 100e3, 1 / 6)
    spread = {
        "level": "BUF",
        "temporal": [("P", 4), ("Q", 5), ("K", 2), ("C", 3)],
        "spatial": [("K", 2, "cols"), ("C", 2, "rows")],
    }
    row = run(hardware, spread)
    assert (row.cycles, row.utilization) == (120, 480 / (120 * 6))


def test_a_ragged_last_piece_takes_a_whole_step() -> None:
    spread = {
        "level": "BUF",
        "temporal": [("P", 4), ("Q", 5), ("K", 2), ("C", 6)],
        "spatial": [("K", 2, "cols")],
    }
    hardware = machine(memory("BUF", **BUFFER))
    net = network(conv("c", 3, 1), size=(6, 4, 5))
    mapping = MappingFile(layers={"c": loops(spread)})
    # 3 filters in two steps, one of them with an idle column
    assert simulate(net, hardware, mapping=mapping).layer_rows[0].cycles == 240


DRAM_BITS = (24 + 120 + 80) * 8


def test_dram_adds_where_the_buffer_is_single() -> None:
    row = run(machine(memory("BUF", **BUFFER), dram={"bandwidth_bits_per_cycle": 4.0}), *ALL_INSIDE)
    assert row.dram_bytes == DRAM_BITS / 8
    assert row.cycles == 480 + DRAM_BITS / 4


def test_first_tiles_in_and_last_tile_out_are_exposed() -> None:
    double = memory("BUF", **BUFFER, double_buffered=True)
    hardware = machine(double, dram={"bandwidth_bits_per_cycle": 64.0})
    # one tile: nothing overlaps, all of it is first or last
    assert run(hardware, *ALL_INSIDE).cycles == 480 + DRAM_BITS / 64
    rows = (
        {"level": "DRAM", "temporal": [("P", 4)]},
        {"level": "BUF", "temporal": [("K", 4), ("Q", 5), ("C", 6)]},
    )
    # first: all weights, a row of inputs; last: a row of outputs
    assert run(hardware, *rows).cycles == 480 + -(-(24 + 30 + 20) * 8 // 64)
    slow = machine(double, dram={"bandwidth_bits_per_cycle": 2.0})
    # DRAM is what takes longest: the first and last tiles are part of what it moves
    assert run(slow, *rows).cycles == DRAM_BITS / 2


@pytest.mark.parametrize("bandwidth", [0.5, 1.0, 3.0, 8.0, 64.0])
@pytest.mark.parametrize("rows", [("P", 4), ("Q", 5), ("K", 2), ("C", 3)])
def test_double_buffering_never_makes_slower(bandwidth: float, rows: tuple[str, int]) -> None:
    inside = [each for each in (("K", 4), ("P", 4), ("Q", 5), ("C", 6)) if each[0] != rows[0]]
    left = {"K": 2, "C": 2}.get(rows[0])
    mapping = (
        {"level": "DRAM", "temporal": [rows]},
        {"level": "BUF", "temporal": [*inside, *([(rows[0], left)] if left else [])]},
    )
    times = []
    for double in (True, False):
        buffer = memory("BUF", **BUFFER, double_buffered=double)
        hardware = machine(buffer, dram={"bandwidth_bits_per_cycle": bandwidth})
        row = run(hardware, *mapping)
        moved = row.dram_bytes * 8 / bandwidth
        assert max(480.0, moved) <= row.cycles
        times.append(row.cycles)
    assert times[0] <= times[1] == -(-(480 + moved) // 1)


def test_buffer_bandwidth_overlaps_only_where_double() -> None:
    # the MACs read a weight, an input and (but for the first of 6) a partial sum, and update it
    moved = (480 + 480) * 8 + (400 + 480) * 24
    moved += DRAM_BITS  # filled and drained
    slow = {"bandwidth_bits_per_cycle": 16.0}
    assert moved % 16 == 0
    assert run(machine(memory("BUF", **BUFFER, **slow)), *ALL_INSIDE).cycles == 480 + moved // 16
    double = memory("BUF", **BUFFER, **slow, double_buffered=True)
    assert run(machine(double), *ALL_INSIDE).cycles == moved // 16
    wide = memory("BUF", **BUFFER, bandwidth_bits_per_cycle=1e6, double_buffered=True)
    assert run(machine(wide), *ALL_INSIDE).cycles == 480


@pytest.mark.parametrize("axes", [{"cols": 3}, {"rows": 2, "cols": 3}, {"cols": 3, "rows": 2}])
def test_instances_share_the_traffic_of_their_level(axes: dict[str, int]) -> None:
    """Those with work do; an axis that nothing unrolls on changes nothing."""
    acc = memory("ACC", per=["cols"], holds=["output"], capacity_bytes=64,
                 bandwidth_bits_per_cycle=24.0)  # fmt: skip
    hardware = machine(memory("BUF", **BUFFER), acc, array={"axes": axes})
    rows = (
        {"level": "BUF", "temporal": [("K", 2)], "spatial": [("K", 2, "cols")]},
        {"level": "ACC", "temporal": [("P", 4), ("Q", 5), ("C", 6)]},
    )
    # updates, reads but for the first, and the drain of final outputs, over two columns
    moved = 480 * 24 + 400 * 24 + 80 * 8
    assert run(hardware, *rows).cycles == -(-(240 * 48 + moved) // 48)


def test_a_search_tells_the_axes_apart_where_the_first_is_idle() -> None:
    """One input channel leaves the rows idle; 8 filters keep 3 columns busy."""
    net = network(conv("c", 8), size=(1, 6, 6))
    acc = memory("ACC", per=["cols"], holds=["output"], capacity_bytes=64,
                 bandwidth_bits_per_cycle=8.0)  # fmt: skip
    hardware = machine(memory("BUF", capacity_bytes=640), acc)
    result = simulate(net, hardware)
    (row,) = result.layer_rows
    assert "[K3@cols]" in row.mapping
    assert "@rows" not in row.mapping
    moved = sum(access.bits for access in result.access_rows if access.level == "ACC")
    assert row.cycles == 3 * 36 * 9 + -(-moved // (3 * 8))


def test_a_systolic_array_fills_and_drains_for_every_fold() -> None:
    rf = memory("RF", "regfile", per=["rows", "cols"], holds=["weight"], capacity_bytes=1)
    hardware = machine(memory("BUF", **BUFFER), rf, array={"systolic": True})
    rows = (
        {
            "level": "BUF",
            "temporal": [("K", 2), ("C", 3)],
            "spatial": [("K", 2, "cols"), ("C", 2, "rows")],
        },
        {"level": "RF", "temporal": [("P", 4), ("Q", 5)]},
    )
    # 6 tiles of weights, each (2 - 1) + (2 - 1) cycles late
    assert run(hardware, *rows).cycles == 120 + 6 * 2


PE = memory("RF", "regfile", per=["rows", "cols"], holds=["weight", "input"], capacity_bytes=8)
PASSES = (
    {
        "level": "BUF",
        "temporal": [("K", 2), ("C", 3), ("P", 4), ("Q", 5)],
        "spatial": [("K", 2, "cols"), ("C", 2, "rows")],
    },
)
"""120 steps; 6 passes, each with 4 weights and 20 steps of 2 inputs and 2 sums"""


def linked(*levels: dict[str, Any], dram: float | None = None, **links: float) -> Hardware:
    """A machine whose array has buses of its own."""
    array = {"link_bits_per_cycle": links}
    return machine(
        memory("BUF", **BUFFER), *levels, array=array, dram={"bandwidth_bits_per_cycle": dram}
    )


def test_a_bus_of_the_array_can_be_what_takes_longest() -> None:
    assert run(linked(PE), *PASSES).cycles == 120
    assert run(linked(PE, input=16.0), *PASSES).cycles == 120  # as fast as the array
    assert run(linked(PE, input=8.0), *PASSES).cycles == 240
    # each way by itself: 240 sums out; those of the first two channels do not come in
    assert run(linked(PE, output=12.0), *PASSES).cycles == 240 * 24 // 12
    assert run(linked(PE, input=8.0, output=24.0), *PASSES).cycles == 240


def test_each_pass_waits_for_its_weights_and_first_inputs() -> None:
    assert run(linked(PE, weight=16.0), *PASSES).cycles == 120 + 6 * 4 * 8 // 16
    assert run(linked(PE, weight=16.0, input=16.0), *PASSES).cycles == 120 + 6 * (2 + 1)
    # inputs that stay while the weights change are still counted as loaded for each pass
    assert run(linked(PE, input=16.0), *PASSES).cycles == 120


def test_double_buffered_weights_come_while_others_are_used() -> None:
    double = PE | {"double_buffered": True, "capacity_bytes": 16}
    assert run(linked(double, weight=16.0, input=16.0), *PASSES).cycles == 120 + 2 + 1
    assert run(linked(double, weight=1.0), *PASSES).cycles == 24 * 8


def test_a_pass_whose_inputs_come_slowly_takes_what_they_take() -> None:
    """The first inputs are waited for, and are part of what the bus carries in all."""
    slow = linked(PE, weight=16.0, input=8.0)  # 40 inputs a pass, 40 cycles for its 20 steps
    assert run(slow, *PASSES).cycles == 6 * (2 + 40)


def test_inputs_that_stay_are_waited_for_once() -> None:
    fully = network({"name": "c", "kind": "linear", "out": 8}, size=(4, 1, 1))
    rows = ({"level": "BUF", "temporal": [("C", 2), ("K", 4)],
             "spatial": [("K", 2, "cols"), ("C", 2, "rows")]},)  # fmt: skip
    mapping = MappingFile(layers={"c": loops(*rows)})
    row = simulate(fully, linked(PE, weight=16.0, input=4.0), mapping=mapping).layer_rows[0]
    # 8 passes of one step and 4 weights; 2 inputs for four of them, 2 for the others
    assert row.cycles == 8 + 8 * 2 + 4 * 8 // 4


def test_weights_wait_for_buffer_or_bus_but_not_for_both() -> None:
    slow = memory("BUF", **BUFFER, bandwidth_bits_per_cycle=16.0)
    with_bus, without = (
        machine(slow, PE, array={"link_bits_per_cycle": links}) for links in ({"weight": 16.0}, {})
    )
    assert run(with_bus, *PASSES).cycles == run(without, *PASSES).cycles
    double = memory("BUF", **BUFFER, bandwidth_bits_per_cycle=1.0, double_buffered=True)
    alone = machine(double, PE, array={"link_bits_per_cycle": {"weight": 16.0}})
    row = run(alone, *PASSES)
    assert row.cycles == row.sram_bytes * 8  # waiting for weights is no more work for the buffer


def test_waiting_for_dram_covers_the_bus_behind_it() -> None:
    """Weights that come from DRAM into the array itself take the slower of the two ways."""
    buffer = memory("BUF", **BUFFER, holds=["input", "output"])
    times = {}
    for dram in (8.0, 32.0):
        hardware = machine(
            buffer,
            PE,
            array={"link_bits_per_cycle": {"weight": 16.0}},
            dram={"bandwidth_bits_per_cycle": dram},
        )
        # the last sums are out when their memory is free again: DRAM does not overlap
        times[dram] = run(hardware, *PASSES).cycles - DRAM_BITS // int(dram)
    assert times == {8.0: 120, 32.0: 120 + 24 * 8 // 16 // 2}


BY_ROWS = (
    {"level": "DRAM", "temporal": [("P", 4)]},
    {"level": "BUF", "temporal": [("K", 4), ("Q", 5), ("C", 6)]},
)
BY_COLUMNS = (
    {"level": "DRAM", "temporal": [("Q", 5)]},
    {"level": "BUF", "temporal": [("K", 4), ("P", 4), ("C", 6)]},
)


@pytest.mark.parametrize(
    ("rows", "weights", "inputs", "outputs"),
    [
        # one tile: each tensor lies in a row
        (ALL_INSIDE, 2 * 16, 8 * 16, 5 * 16),
        # a row of 5 elements of each of 6 channels at a time, and of each of 4 filters
        (BY_ROWS, 2 * 16, 4 * 6 * 16, 4 * 4 * 16),
        # columns: every element by itself
        (BY_COLUMNS, 2 * 16, 120 * 16, 80 * 16),
    ],
)
def test_dram_moves_whole_bursts(
    rows: tuple[dict[str, Any], ...], weights: int, inputs: int, outputs: int
) -> None:
    """Bursts of 16 bytes, 8 bytes a cycle; 24 weights, 120 inputs, 80 outputs of one byte."""
    burst = {"bandwidth_bits_per_cycle": 64.0, "burst_bits": 16 * 8}
    row = run(machine(memory("BUF", **BUFFER), dram=burst), *rows)
    assert row.cycles == 480 + (weights + inputs + outputs) // 8
    assert row.dram_bytes == DRAM_BITS / 8  # what is moved for nothing takes time, no more


def test_what_a_stride_passes_over_lies_in_the_bursts() -> None:
    """Every second input of every second row of 8: 4 of 7 bytes in a row."""
    net = network({"name": "c", "kind": "conv", "out": 1, "kernel": 1, "stride": 2}, size=(1, 8, 8))
    mapping = MappingFile(layers={"c": loops({"level": "BUF", "temporal": [("P", 4), ("Q", 4)]})})
    times = {}
    for burst in (8, 32, 64):
        dram = {"bandwidth_bits_per_cycle": 8.0, "burst_bits": burst}
        buffer = memory("BUF", **BUFFER)
        times[burst] = simulate(net, machine(buffer, dram=dram), mapping=mapping).total_cycles - 16
    # inputs: 4 rows of 7, 8 and 8 bytes; one weight and 16 outputs in a row
    assert times == {8: 4 * 7 + 1 + 16, 32: 4 * 8 + 4 + 16, 64: 4 * 8 + 8 + 16}


def test_what_the_macs_take_from_dram_comes_one_by_one() -> None:
    buffer = memory("BUF", **BUFFER, holds=["input", "output"])
    bursts, single = (
        run(
            machine(buffer, dram={"bandwidth_bits_per_cycle": 8.0, "burst_bits": bits}), *ALL_INSIDE
        )
        for bits in (64, 8)
    )
    assert bursts.cycles - single.cycles == 480 * 7  # a burst of 8 bytes for each weight


def test_the_first_and_last_tile_are_bursts_too() -> None:
    burst = {"bandwidth_bits_per_cycle": 64.0, "burst_bits": 16 * 8}
    double = memory("BUF", **BUFFER, double_buffered=True)
    # all weights and a row of inputs of each channel; a row of outputs of each filter
    assert run(machine(double, dram=burst), *BY_ROWS).cycles == 480 + (32 + 6 * 16 + 4 * 16) // 8


def test_a_search_by_time_prefers_what_lies_in_a_row() -> None:
    """Room for a fifth of the inputs: rows cost no more traffic than columns, but less time."""
    net = network(conv("c", 4, 1), size=(6, 20, 20))
    tight = memory("BUF", capacity_bytes=24 + 600 + 400)
    burst = {"bandwidth_bits_per_cycle": 8.0, "burst_bits": 20 * 8}
    (row,) = simulate(net, machine(tight, dram=burst), objective="latency").layer_rows
    assert row.dram_bytes == 24 + 2400 + 1600
    assert row.cycles <= 400 * 4 * 6 + 24 + 40 + 2400 + 1600


def test_only_dram_has_bursts() -> None:
    with pytest.raises(ValueError, match="is for DRAM only, got kind sram"):
        machine(memory("BUF", **BUFFER, burst_bits=64))


def test_the_vector_unit_has_no_buses() -> None:
    net = network({"name": "p", "kind": "pool", "kernel": 2}, size=(3, 6, 6))
    lanes = {"lanes": 8, "energy_pj": 0.25, "source": "a test"}
    array = {"link_bits_per_cycle": {"input": 1.0, "output": 1.0}}
    chip = machine(memory("BUF", **BUFFER), vector=lanes, array=array)
    assert simulate(net, chip).total_cycles == -(-3 * 9 * 4 // 8)


def test_static_energy_is_power_times_time() -> None:
    hardware = machine(memory("BUF", **BUFFER), static_mw=7.0)
    result = simulate(NET, hardware)
    (static,) = [row for row in result.access_rows if row.level == "static"]
    # 1 mW over 1 ms is 1e6 pJ
    assert static.energy_pj == pytest.approx(7.0 * result.total_time_ms * 1e6)
    without = simulate(NET, machine(memory("BUF", **BUFFER)))
    assert not [row for row in without.access_rows if row.level == "static"]


def test_the_vector_unit_does_some_lanes_a_cycle() -> None:
    net = network({"name": "p", "kind": "pool", "kernel": 2}, size=(3, 6, 6))
    lanes = {"lanes": 8, "energy_pj": 0.25, "source": "a test"}
    result = simulate(net, machine(memory("BUF", **BUFFER), vector=lanes))
    assert result.total_cycles == -(-3 * 9 * 4 // 8)
    assert [row.energy_pj for row in result.access_rows if row.level == "vector"] == [
        3 * 9 * 4 * 0.25
    ]
    assert simulate(net, machine(memory("BUF", **BUFFER))).total_cycles == 0


@pytest.mark.parametrize(
    ("chip", "objective"), [("edge_tpu", "energy"), ("edge_tpu", "latency"), ("eyeriss", "energy")]
)
def test_no_array_does_more_than_it_can(chip: str, objective: str) -> None:
    result = bundled("vgg16", chip, objective=objective)
    assert all(0 <= row.utilization <= 1 for row in result.layer_rows)
    assert all(row.cycles > 0 for row in result.layer_rows)
