"""The whole: what must hold of every run, whatever the network and the machine."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from machines import bundled, conv, looked_up, machine, memory, network

import energysim as es
from energysim.axes import Dim, Tensor
from energysim.catalog import names
from energysim.errors import InputError
from energysim.hardware import Hardware
from energysim.mapper.dataflows import CUSTOM, DATAFLOWS
from energysim.mapping import MappingFile, write_line
from energysim.network import Network
from energysim.result import AccessRow, LayerRow, Result
from energysim.simulate import simulate

NET = network(
    conv("a", 12),
    conv("b", 16, stride=2),
    {"name": "pool", "kind": "pool", "kernel": 2},
    {"name": "fc", "kind": "linear", "out": 10},
    size=(5, 12, 12),
)

FLOWS = sorted(DATAFLOWS)

SMALL = network(conv("a", 8, stride=2), {"name": "fc", "kind": "linear", "out": 10}, size=(3, 6, 6))

RUNS = [
    *((name, "edge_tpu") for name in names("nets")),
    *((name, "eyeriss") for name in ("alexnet", "vgg16", "vgg16_ps")),
]
# each of the others, in tests/test_hw_configs.py too
RUNS += [("resnet20", hw) for hw in names("hw") if hw not in {each for _, each in RUNS}]


def chip(around: dict[str, Any] | None = None, **fields: Any) -> Hardware:
    """Build a machine with a small double buffer."""
    buffer = {"capacity_kib": 1, "double_buffered": True, "bandwidth_bits_per_cycle": 64.0}
    dram = {"bandwidth_bits_per_cycle": 8.0}
    return machine(memory("BUF", **(buffer | fields)), dram=dram, **(around or {}))


def figures(result: Result) -> tuple[list[LayerRow], list[AccessRow]]:
    """All numbers, without the words for what was run."""
    return (
        list(result.layer_rows),
        [replace(row, network="") for row in result.access_rows],
    )


# -- every file ------------------------------------------------------------------------------------


def test_every_network_and_every_machine_is_run() -> None:
    assert {name for name, _ in RUNS} == set(names("nets"))
    assert {hw for _, hw in RUNS} == set(names("hw"))


@pytest.mark.parametrize(("name", "hw"), RUNS)
def test_networks_run_on_machines(name: str, hw: str) -> None:
    net = es.load_network(name)
    # of its 120 different layers the trip counts that divide will do
    sought = {"perfect": True, "uneven": False} if name == "densenet121" else {}
    result = bundled(name, hw, **sought)
    assert [row.layer for row in result.layer_rows] == [layer.name for layer in net.layers]
    assert result.total_macs == net.macs
    assert result.total_effective_macs == net.effective_macs
    check_bounds(result)
    for layer, row in zip(net.layers, result.layer_rows, strict=True):
        assert row.energy_pj > 0
        assert row.kind == layer.kind
        assert row.weight_bits > 0 or not layer.stores_weights
        assert result.mappings[row.layer]
    assert result.search.evaluated > 0
    assert result.search.optimal


def check_bounds(result: Result) -> None:
    """No layer moves less than it must."""
    for row in result.layer_rows:
        assert row.dram_bytes >= row.dram_bound_bytes * (1 - 1e-12)
    assert result.total_dram_bytes >= result.total_dram_bound_bytes * (1 - 1e-12)


@pytest.mark.parametrize(
    ("name", "hw"), [("vgg16", "edge_tpu"), ("vgg16_ps", "edge_tpu"), ("vgg16_ps", "eyeriss")]
)
@pytest.mark.parametrize("residency", [True, False])
def test_dram_traffic_is_at_least_the_bound(name: str, hw: str, *, residency: bool) -> None:
    check_bounds(bundled(name, hw, residency=residency, objective="dram"))


def test_the_bound_holds_where_most_multiplications_are_on_padding() -> None:
    """They need no input, so they prove no traffic."""
    hardware = machine(
        memory("BUF", capacity_bytes=100),
        bits={"weight": 8, "input": 8, "output": 8, "psum": 8},
        array={"axes": {"rows": 1, "cols": 1}},
    )
    net = network(conv("c", 64) | {"pad": 4}, size=(64, 2, 2))
    check_bounds(simulate(net, hardware, objective="dram"))


@pytest.mark.parametrize("kib", [0.25, 1, 4])
def test_the_bound_holds_in_small_memories(kib: float) -> None:
    net = network(conv("a", 40), conv("b", 40, 1), size=(40, 12, 12))
    result = simulate(net, chip(capacity_kib=kib), objective="dram")
    check_bounds(result)


# -- objectives ------------------------------------------------------------------------------------

MEASURES = {
    "energy": lambda result: result.total_energy_pj,
    "dram": lambda result: result.total_dram_bytes,
    "latency": lambda result: result.total_cycles,
    "edp": lambda result: sum(row.energy_pj * row.cycles for row in result.layer_rows),
}
"""each layer is mapped by itself, so the sum over the layers is what is least"""


@pytest.mark.parametrize("name", ["edge_tpu", "eyeriss", "small", "costly arithmetic"])
def test_each_objective_is_best_in_its_own_measure(name: str) -> None:
    own = {"small": {}, "costly arithmetic": {"mac": {"energy_pj": 3000.0, "source": "a test"}}}
    hardware = chip(own[name]) if name in own else es.load_hardware(name)
    net = NET if name in own else SMALL
    results = {
        objective: simulate(net, hardware, objective=objective, residency=False)
        for objective in MEASURES
    }
    for objective, measure in MEASURES.items():
        least = min(measure(result) for result in results.values())
        assert measure(results[objective]) <= least * (1 + 2e-9)
        assert results[objective].objective == objective


def test_wrong_options_are_refused() -> None:
    with pytest.raises(InputError, match="batch must be an integer of at least 1, got 0"):
        simulate(NET, chip(), batch=0)
    with pytest.raises(InputError, match=r"no objective named 'enrgy'. Did you mean 'energy'"):
        simulate(NET, chip(), objective="enrgy")
    with pytest.raises(InputError, match=r"no weight format named 'crs'. Did you mean 'csr'"):
        simulate(NET, chip(), weight_format="crs")
    with pytest.raises(InputError, match="chip cannot decode the weight format 'csr'"):
        simulate(NET, chip(), weight_format="csr")
    with pytest.raises(InputError, match="no dataflow named 'weight'"):
        simulate(NET, chip(), dataflow="weight")


# -- size of the buffer, width of the search -------------------------------------------------------


@pytest.mark.parametrize("objective", sorted(MEASURES))
@pytest.mark.parametrize("dataflow", [name for name in FLOWS if name != CUSTOM])
def test_a_larger_buffer_never_costs_more(dataflow: str, objective: str) -> None:
    costs = [
        MEASURES[objective](
            simulate(
                SMALL,
                chip(capacity_kib=kib),
                dataflow=dataflow,
                objective=objective,
                residency=False,
            )
        )
        for kib in (0.25, 0.5, 1, 4)
    ]
    assert all(b <= a * (1 + 1e-9) for a, b in pairwise(costs))


def test_a_larger_buffer_of_edge_tpu_never_costs_more() -> None:
    hardware = es.load_hardware("edge_tpu")
    costs = []
    for kib in (64, 512, 8192):
        levels = [
            level.model_copy(update={"capacity_kib": float(kib)}) if level.name == "SRAM" else level
            for level in hardware.levels
        ]
        wider = hardware.model_copy(update={"levels": tuple(levels)})
        costs.append(simulate(es.load_network("vgg16"), wider, residency=False).total_energy_pj)
    assert costs == sorted(costs, reverse=True)


# -- batch -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("hw", ["edge_tpu", "eyeriss"])
def test_twice_the_batch(hw: str) -> None:
    net, hardware = es.load_network("vgg16") if hw == "edge_tpu" else NET, es.load_hardware(hw)
    one, two = (
        looked_up(net, hardware, batch=batch, residency=False, objective="dram") for batch in (1, 2)
    )
    assert two.total_macs == 2 * one.total_macs
    assert two.total_effective_macs == 2 * one.total_effective_macs
    for small, large in zip(one.layer_rows, two.layer_rows, strict=True):
        # what one image took can be done twice
        assert large.dram_bytes <= 2 * small.dram_bytes
        assert large.dram_bytes >= small.dram_bytes


def test_a_batch_loads_the_weights_once_where_sums_fit() -> None:
    weights = {}
    for batch in (1, 4):
        result = bundled("vgg16", "edge_tpu", batch=batch, residency=False, objective="dram")
        weights[batch] = {
            row.layer: row.bits
            for row in result.access_rows
            if (row.level, row.tensor) == ("DRAM", "weight")
        }
    assert weights[1] == weights[4]


# -- equal things cost the same --------------------------------------------------------------------


@pytest.mark.parametrize("hw", ["edge_tpu", "eyeriss"])
def test_density_one_is_dense(hw: str) -> None:
    base, hardware = SMALL, es.load_hardware(hw)
    dense = simulate(base, hardware)
    for word in ("dense", "pSC9"):
        assert figures(simulate(base.with_pattern(word), hardware)) == figures(dense)
    every_layer = replace(
        base,
        layers=tuple(
            replace(layer, pattern="pSC9") if layer.kind == "conv" else layer
            for layer in base.layers
        ),
    )
    assert figures(simulate(every_layer, hardware)) == figures(dense)


def test_identical_layers_cost_the_same() -> None:
    net = network(conv("a", 8), conv("b", 8), conv("c", 8), size=(8, 6, 6))
    result = simulate(net, chip(), residency=False)
    first, *others = result.layer_rows
    assert [replace(row, layer="a") for row in others] == [first] * 2
    rows = [
        [replace(row, layer="") for row in result.access_rows if row.layer == name]
        for name in "abc"
    ]
    assert rows[0] == rows[1] == rows[2]
    alone = simulate(network(conv("a", 8), size=(8, 6, 6)), chip(), residency=False)
    assert alone.layer_rows[0] == first


CODE = """
import hashlib, energysim as es
r = es.simulate(es.load_network("vgg16_ps"), es.load_hardware("edge_tpu"))
print(hashlib.sha256(r.to_json().encode()).hexdigest())
"""


def test_two_runs_give_the_same_bytes() -> None:
    net, hardware = es.load_network("vgg16_ps"), es.load_hardware("edge_tpu")
    assert simulate(net, hardware).to_json() == simulate(net, hardware).to_json()
    root = Path(es.__file__).parent.parent
    digests = {
        subprocess.run(
            [sys.executable, "-c", CODE],
            env=os.environ | {"PYTHONHASHSEED": seed, "PYTHONPATH": str(root)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "77")
    }
    assert len(digests) == 1


# -- odd layers ------------------------------------------------------------------------------------

ODD: dict[str, Network] = {
    "1x1 image": network(conv("c", 8), size=(8, 1, 1)),
    "depthwise": network({"name": "d", "kind": "depthwise", "kernel": 3, "pad": 1}, size=(9, 5, 4)),
    "dilated": network(conv("c", 4) | {"dilation": [2, 3], "pad": [2, 3]}, size=(2, 5, 4)),
    "groups": network(conv("c", 12, groups=3), size=(6, 5, 5)),
    "stride beyond kernel": network(conv("c", 4, 1, stride=3), size=(4, 10, 10)),
    "linear on an image": network({"name": "f", "kind": "linear", "out": 7}, size=(4, 3, 5)),
    "tall kernel": network(conv("c", 4) | {"kernel": [5, 1], "pad": [2, 0]}, size=(4, 6, 3)),
    "lopsided": network(conv("c", 4) | {"pad": [0, 2, 1, 0]}, size=(2, 3, 4)),
    "global pool": network({"name": "p", "kind": "pool", "kernel": "global"}, size=(5, 7, 7)),
    "one of everything": network(conv("c", 1, 1), size=(1, 1, 1)),
    "add of three": network(
        conv("a", 3),
        conv("b", 3),
        {"name": "s", "kind": "add", "input": ["a", "b", "input"]},
        size=(3, 4, 4),
    ),
}


def two_levels(**fields: Any) -> Hardware:
    return machine(memory("BUF", capacity_kib=1), **fields)


MACHINES = {
    "edge_tpu": lambda: es.load_hardware("edge_tpu"),
    "eyeriss": lambda: es.load_hardware("eyeriss"),
    "two levels": two_levels,
    "four axes": lambda: two_levels(
        array={
            "axes": {"w": 2, "x": 3, "y": 2, "z": 4},
            "unroll": {"w": ["C"], "x": ["K", "G"], "y": ["P"], "z": ["Q", "N"]},
        }
    ),
    "each its own": lambda: machine(
        memory("BUF", capacity_bytes={"weight": 300, "input": 300, "output": 200}, compressed=True)
    ),
    "per element": lambda: machine(
        memory("RF", "regfile", per=["rows", "cols"], capacity_bytes=200)
    ),
    "weights first": lambda: machine(
        memory("WBUF", holds=["weight"], capacity_kib=1),
        memory("ABUF", holds=["input", "output"], capacity_kib=1),
    ),
    "no sharing": lambda: two_levels(array={"multicast": False, "reduce": False}),
    "padding moves": lambda: two_levels(padding="count"),
    "refetch": lambda: machine(memory("BUF", capacity_kib=1, halo="refetch")),
}


@pytest.mark.parametrize("hw", MACHINES)
@pytest.mark.parametrize("layer", ODD)
def test_odd_layers_on_odd_machines(layer: str, hw: str) -> None:
    """Under the machine's own dataflow and one other, so that each meets each layer and machine."""
    net, hardware = ODD[layer], MACHINES[hw]()
    other = FLOWS[(list(ODD).index(layer) + list(MACHINES).index(hw)) % len(FLOWS)]
    for batch, dataflow in ((1, None), (3, None), (2, other)):
        result = simulate(net, hardware, batch=batch, dataflow=dataflow, residency=True)
        check_bounds(result)
        assert result.total_macs == batch * net.macs
        for record, row in zip(net.layers, result.layer_rows, strict=True):
            assert 0 <= row.utilization <= 1
            reads = [
                access
                for access in result.access_rows
                if (access.layer, access.level, access.tensor) == (row.layer, "MAC", "")
            ]
            assert sum(access.elements for access in reads) == (
                batch * record.shape.macs if record.has_weights else 0
            )
            written = sum(
                access.elements
                for access in result.access_rows
                if (access.layer, access.level, access.action) == (row.layer, "DRAM", "update")
            )
            kept = "output" in row.resident
            assert kept or written >= batch * record.shape.elements(Tensor.OUTPUT)


def test_an_array_without_a_common_buffer_is_used() -> None:
    """Where each element has the only on-chip memory, the spatial loops stand behind DRAM."""
    hardware = machine(memory("RF", "regfile", per=["rows", "cols"], capacity_bytes=64))
    net = network(conv("c", 8), size=(8, 6, 6))
    result = simulate(net, hardware)
    (row,) = result.layer_rows
    behind_dram, _ = row.mapping.split(" | RF")
    assert behind_dram.endswith("[C2@rows] [K3@cols]")
    # 8 filters on 3 columns take 3 steps, one column idle in the last
    assert row.utilization == pytest.approx(8 / 9)
    mapping = MappingFile(layers=dict(result.mappings))
    assert figures(simulate(net, hardware, mapping=mapping)) == figures(result)


def test_shape_of_the_batch() -> None:
    assert NET.layers[0].shape[Dim.N] == 1  # the batch is no part of a network
    result = simulate(NET, chip(), batch=3)
    assert result.batch == 3
    assert result.total_macs == 3 * NET.macs


def test_progress_is_told_layer_by_layer() -> None:
    told: list[tuple[int, int, str]] = []
    simulate(NET, chip(), residency=False, progress=lambda *news: told.append(news))
    assert told == [(0, 4, "a"), (1, 4, "b"), (2, 4, "pool"), (3, 4, "fc"), (4, 4, "")]


def test_a_mapping_in_one_line() -> None:
    result = simulate(NET, es.load_hardware("edge_tpu"))
    row = result.layer_rows[0]
    assert row.mapping == write_line(result.mappings["a"])
    assert row.mapping.startswith("DRAM | SRAM")
    assert "[K12@cols]" in row.mapping


def test_more_operations_than_can_be_counted() -> None:
    with pytest.raises(InputError, match=r"layer a of .* does .* operations with batch"):
        simulate(NET, chip(), batch=2**48)


def test_names_instead_of_objects_are_refused() -> None:
    with pytest.raises(InputError, match="load_network"):
        simulate("vgg16", chip())  # type: ignore[arg-type]


def test_another_dataflow_brings_its_own_unrolling() -> None:
    hardware = es.load_hardware("edge_tpu")
    result = simulate(es.load_network("vgg16"), hardware, dataflow="output_stationary")
    assert "Q32@rows" in result.layer_rows[0].mapping
    assert result.inputs[1] is hardware  # the record names the machine that was asked for
    own = simulate(es.load_network("vgg16"), hardware, dataflow=hardware.dataflow)
    assert "C3@rows" in own.layer_rows[0].mapping


@pytest.mark.parametrize("hw", ["edge_tpu", "eyeriss"])
def test_sram_is_the_outermost_memory_on_chip(hw: str) -> None:
    result = bundled("alexnet", hw)
    moved = result.level_bytes(result.level_names[1])
    assert [row.sram_bytes for row in result.layer_rows] == pytest.approx(moved)


def test_the_record_says_what_was_given() -> None:
    first = simulate(NET, chip(), weight_format="dense")
    assert first.to_dict()["settings"]["weight_format"] == "dense"
    assert first.to_dict()["settings"]["given_mappings"] == []
    given = MappingFile(layers={"a": first.mappings["a"]})
    again = simulate(NET, chip(), mapping=given)
    assert again.to_dict()["settings"]["weight_format"] == "auto"
    assert again.to_dict()["settings"]["given_mappings"] == ["a"]
