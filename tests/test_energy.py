"""Counts to energy: numbers worked out by hand, and what must hold of every bill."""

from __future__ import annotations

import json
from collections import defaultdict

import pytest
from machines import bundled, conv, looked_up, loops, machine, memory, network

import energysim as es
from energysim.axes import Dim, Tensor
from energysim.hardware import Hardware
from energysim.mapping import MappingFile
from energysim.model.energy import compute_pj
from energysim.model.sparse import ONCE_PER_LAYER
from energysim.network import Network
from energysim.result import Result
from energysim.simulate import simulate
from energysim.sparsity import FORMATS, PATTERNS


def bill(result: Result, layer: str) -> dict[tuple[str, str, str], tuple[int, float, float]]:
    """(level, tensor, action) -> elements, bits, pJ of one layer."""
    return {
        (row.level, row.tensor, row.action): (row.elements, row.bits, row.energy_pj)
        for row in result.access_rows
        if row.layer == layer
    }


# -- by hand ---------------------------------------------------------------------------------------


def test_conv1_2_of_vgg16_on_edge_tpu() -> None:
    """64 -> 64 channels, 32x32, 3x3, pad 1: all of it fits, so each thing is done once.

    The 64x64 array holds one tap of all kernels; for each of the 9 taps all 1024 pixels pass, and
    the accumulators under the columns keep the 1024 sums of a filter until all taps are done.
    """
    result = bundled("vgg16", "edge_tpu", residency=False)
    (row,) = [row for row in result.layer_rows if row.layer == "conv1_2"]
    macs = 64 * 64 * 9 * 32 * 32
    weights, image = 64 * 64 * 9, 64 * 32 * 32
    # a tap that looks over the edge reads nothing: 31 + 32 + 31 of 3 * 32 along each side
    reads = 64 * 94 * 94
    sums = 64 * 9 * 32 * 32  # one for each column and step: the rows are added on the way
    assert bill(result, "conv1_2") == {
        ("DRAM", "weight", "read"): (weights, weights * 8, pytest.approx(weights * 64.0)),
        ("DRAM", "input", "read"): (image, image * 8, pytest.approx(image * 64.0)),
        ("DRAM", "output", "update"): (image, image * 8, pytest.approx(image * 64.0)),
        ("SRAM", "weight", "fill"): (weights, weights * 8, pytest.approx(weights * 8 * 0.4073)),
        ("SRAM", "weight", "read"): (weights, weights * 8, pytest.approx(weights * 8 * 0.5045)),
        ("SRAM", "input", "fill"): (image, image * 8, pytest.approx(image * 8 * 0.4073)),
        ("SRAM", "input", "read"): (reads, reads * 8, pytest.approx(reads * 8 * 0.5045)),
        ("SRAM", "output", "update"): (image, image * 8, pytest.approx(image * 8 * 0.4073)),
        ("SRAM", "output", "drain"): (image, image * 8, pytest.approx(image * 8 * 0.5045)),
        ("ACC", "output", "update"): (sums, sums * 32, pytest.approx(sums * 32 * 0.1231)),
        ("ACC", "output", "read"): (
            sums - image,
            (sums - image) * 32,
            pytest.approx((sums - image) * 32 * 0.0959),
        ),
        ("ACC", "output", "drain"): (image, image * 8, pytest.approx(image * 8 * 0.0959)),
        ("RF", "weight", "fill"): (weights, weights * 8, pytest.approx(weights * 0.01)),
        ("RF", "weight", "read"): (macs, macs * 8, pytest.approx(macs * 0.01)),
        ("NoC", "weight", "hop"): (weights, weights * 8, 0),
        ("NoC", "input", "hop"): (reads * 64, reads * 64 * 8, 0),  # to each of 64 columns
        ("NoC", "output", "hop"): (
            macs + sums - image + image,
            (macs + sums - image) * 32 + image * 8,
            0,
        ),
        ("MAC", "", "compute"): (macs, 0, pytest.approx(macs * 0.3)),
    }
    assert row.macs == row.effective_macs == macs
    assert row.dram_bytes == weights + 2 * image == row.dram_bound_bytes
    # 9 taps of 1024 steps, each tap 63 + 63 cycles late; everything is loaded before and stored
    # after, as there is only one tile
    compute = 9 * (1024 + 126)
    assert row.cycles == compute + -(-(weights + 2 * image) * 80 // 5333)
    assert row.utilization == macs / (row.cycles * 4096)


def test_fc6_of_alexnet_on_eyeriss() -> None:
    """9216 -> 4096: every weight is used once, so DRAM decides."""
    result = bundled("alexnet", "eyeriss")
    found = bill(result, "fc6")
    weights = 9216 * 4096
    assert found["DRAM", "weight", "read"] == (weights, weights * 16, weights * 16 * 25.0)
    assert found["WSPAD", "weight", "fill"] == (weights, weights * 16, weights * 2.0)
    assert found["WSPAD", "weight", "read"] == (weights, weights * 16, weights * 2.0)
    assert found["MAC", "", "compute"] == (weights, 0, weights * 2.0)
    assert ("GLB", "weight", "fill") not in found
    assert found["DRAM", "input", "read"][0] == 9216
    assert found["DRAM", "output", "update"][0] == 4096


def test_hops_of_a_network() -> None:
    acc = memory("ACC", per=["cols"], holds=["output"], capacity_bytes=64)
    hardware = machine(memory("BUF", capacity_kib=8), acc, array={"hop_pj_per_bit": 0.5})
    rows = (
        {"level": "BUF", "temporal": [("K", 2)], "spatial": [("K", 2, "cols")]},
        {
            "level": "ACC",
            "temporal": [("P", 4), ("Q", 5), ("C", 3)],
            "spatial": [("C", 2, "rows")],
        },
    )
    mapping = MappingFile(layers={"c": loops(*rows)})
    found = bill(simulate(network(conv("c", 4, 1), size=(6, 4, 5)), hardware, mapping=mapping), "c")
    # each of the 4 elements gets its operands in each of 120 steps
    assert found["NoC", "weight", "hop"] == (480, 480 * 8, 480 * 4.0)
    assert found["NoC", "input", "hop"] == (480, 480 * 8, 480 * 4.0)
    # an element sends its sum, and gets the one before but for the first: one of two rows does
    sums = 480 + (240 - 80)
    # final outputs go from the columns to the buffer
    assert found["NoC", "output", "hop"] == (
        sums + 80,
        sums * 24 + 80 * 8,
        (sums * 24 + 80 * 8) * 0.5,
    )


def test_what_stays_on_chip_makes_no_hops_from_dram() -> None:
    """With a buffer in each column, what comes from DRAM crosses the network."""
    buffer = memory("BUF", capacity_kib=4, per=["cols"])
    hardware = machine(buffer, array={"hop_pj_per_bit": 1.0})
    net = network(conv("c", 6), conv("d", 6), size=(6, 8, 8))
    moving = simulate(net, hardware, residency=False)
    staying = simulate(
        net, hardware, residency=True, mapping=MappingFile(layers=dict(moving.mappings))
    )
    assert [row.resident for row in staying.layer_rows] == ["weight output", "weight input"]
    from_dram = {"weight": "fill", "input": "fill", "output": "drain"}
    for row in staying.layer_rows:
        before, after = bill(moving, row.layer), bill(staying, row.layer)
        for tensor, action in from_dram.items():
            moved = before["BUF", tensor, action]
            saved = moved if tensor in row.resident else (0, 0, 0)
            hops, fewer = before["NoC", tensor, "hop"], after["NoC", tensor, "hop"]
            assert (hops[0] - fewer[0], hops[1] - fewer[1]) == saved[:2]


def test_arithmetic() -> None:
    hardware = es.load_hardware("edge_tpu")
    assert compute_pj(hardware, 1000, 400, has_weights=True) == pytest.approx(120.0)
    assert compute_pj(hardware, 1000, 0, has_weights=False) == pytest.approx(30.0)
    chip = machine(memory("BUF", capacity_kib=8), mac={"energy_pj": 0.5, "source": "a test"})
    assert compute_pj(chip, 1000, 400, has_weights=True) == 500.0
    assert compute_pj(chip, 1000, 400, has_weights=False) == 0.0


# -- every bill ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "chip"),
    [
        ("vgg16", "edge_tpu"),
        ("vgg16_ps", "edge_tpu"),
        ("resnet18", "edge_tpu"),
        ("vgg16_ps", "eyeriss"),
        ("digits_cnn", "eyeriss_absolute"),
    ],
)
def test_the_parts_sum_to_the_total(name: str, chip: str) -> None:
    hardware = es.load_hardware(chip)
    result = bundled(name, chip)
    rows: dict[str, float] = defaultdict(float)
    bytes_of: dict[str, float] = defaultdict(float)
    for row in result.access_rows:
        rows[row.layer] += row.energy_pj
        if row.level == "DRAM":
            bytes_of[row.layer] += row.bits / 8
    close = pytest.approx
    assert sum(row.energy_pj for row in result.access_rows) == close(result.total_energy_pj)
    assert sum(result.energy_by_level().values()) == close(result.total_energy_pj)
    assert result.total_energy_mj == close(result.total_energy_pj / 1e9)
    for layer, name_of_level in zip(result.layer_rows, result.level_bytes("DRAM"), strict=True):
        assert layer.energy_pj == close(rows[layer.layer])
        assert layer.dram_bytes == close(bytes_of[layer.layer]) == close(name_of_level)
    prices = {
        level.name: (level.write_pj_per_bit, level.read_pj_per_bit) for level in hardware.levels
    }
    for row in result.access_rows:
        if row.level in prices:
            price = prices[row.level][row.action in ("read", "drain")]
            assert row.energy_pj == close(row.bits * price)
            assert row.elements > 0


def check_widths(result: Result, net: Network, psum: int, output: int) -> None:
    """Outputs move as final values or as partial sums and nothing between or beside them."""
    for row in result.access_rows:
        if row.tensor == "output" and row.level not in ("NoC", "vector"):
            low, high = sorted((psum, output))
            assert row.elements * low <= row.bits <= row.elements * high
    ends = {row.layer: row for row in result.access_rows
            if (row.level, row.action) == ("DRAM", "update")}  # fmt: skip
    for layer in net.layers:
        if layer.name in ends:
            assert ends[layer.name].bits >= layer.shape.elements(Tensor.OUTPUT) * output


@pytest.mark.parametrize("name", ["vgg16"])
def test_widths_of_outputs(name: str) -> None:
    net = es.load_network(name)
    check_widths(bundled(name, "edge_tpu", residency=False), net, 32, 8)
    check_widths(bundled(name, "eyeriss"), net, 16, 16)


# -- sparse weights --------------------------------------------------------------------------------

SPARSE = network(conv("first", 12), conv("second", 17), conv("last", 10, 1), size=(5, 6, 5))
NETS = {
    "edge_tpu": SPARSE,
    # each format and pattern is a search of its own there, over more levels
    "eyeriss": network(conv("first", 8), conv("second", 9), conv("last", 5, 1), size=(3, 4, 5)),
}


def check_weights(result: Result, net: Network, dense: Result) -> None:
    """Compressed levels move the dense count of weights, each at what it takes stored."""
    hardware = result.inputs[1]
    packed = {level.name for level in hardware.levels if level.compressed}
    stored = {row.layer: (row.weight_format, row.weight_bits) for row in result.layer_rows}
    assert dense.mappings == result.mappings or packed  # the same loops, or others by choice
    for row in result.access_rows:
        if row.tensor != "weight" or row.level == "NoC":
            continue
        assert isinstance(row.elements, int)
        layer = net.layer(row.layer)
        name, bits = stored[row.layer]
        live = layer.weights if name != "dense" else layer.weights_dense
        if row.level in packed:
            times, rest = divmod(row.elements, live)
            assert rest == 0
            expected = FORMATS[name](layer.mask, hardware.bits.weight)
            assert expected.total == bits
            once = expected.metadata if name in ONCE_PER_LAYER else 0
            assert row.bits == pytest.approx(times * (bits - once) + once)
        else:
            assert row.bits == row.elements * hardware.bits.weight


@pytest.mark.parametrize(
    ("pattern", "chip"),
    [(name, "edge_tpu") for name in PATTERNS if name != "dense"]
    + [(name, "eyeriss") for name in ("PS1_P9", "PSD4_P8", "pSC2")],
)
@pytest.mark.parametrize("residency", [True, False])
def test_sparse_weights_cost_no_more(pattern: str, chip: str, *, residency: bool) -> None:
    hardware, base = es.load_hardware(chip), NETS[chip]
    net = base.with_pattern(pattern)
    dense = looked_up(base, hardware, residency=residency)
    result = looked_up(net, hardware, residency=residency)
    check_weights(result, net, dense)
    assert result.total_energy_pj <= dense.total_energy_pj
    assert result.total_dram_bytes <= dense.total_dram_bytes
    assert result.total_effective_macs == net.effective_macs < dense.total_macs
    assert result.total_macs == dense.total_macs
    assert [row.weight_format for row in result.layer_rows][::2] == ["dense", "dense"]


@pytest.mark.parametrize("weight_format", ["csr", "bitmap", "periodic", "dense", "auto"])
@pytest.mark.parametrize("chip", ["edge_tpu", "eyeriss"])
def test_every_format(weight_format: str, chip: str) -> None:
    hardware, base = es.load_hardware(chip), NETS[chip]
    net = base.with_pattern("PSD2_P8")
    result = looked_up(net, hardware, weight_format=weight_format, residency=False)
    check_weights(result, net, looked_up(base, hardware, residency=False))
    expected = "periodic" if weight_format == "auto" else weight_format
    assert result.layer_rows[1].weight_format == expected


def test_the_smallest_format_is_the_cheapest() -> None:
    hardware, net = es.load_hardware("edge_tpu"), SPARSE.with_pattern("PSD2_P8")
    costs = {
        name: looked_up(net, hardware, weight_format=name, residency=False).total_energy_pj
        for name in (*hardware.sparsity.formats, "auto")  # it decodes no other
    }
    assert costs["auto"] == min(costs.values()) == costs["periodic"]
    assert costs["dense"] == max(costs.values())


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [("1:4", "nm"), ("2:4", "nm"), ("pSC1", "rle"), ("PSD2_P8", "cp"), ("dense", "dense")],
)
def test_every_format_that_a_machine_decodes_is_taken_where_it_is_smallest(
    pattern: str, expected: str
) -> None:
    plain = es.load_hardware("edge_tpu").model_dump(mode="json")
    # Without periodic and bitmap, which are smaller than these wherever they can be.
    plain["sparsity"]["formats"] = formats = ["dense", "cp", "nm", "rle"]
    if expected == "cp":
        formats.remove("rle")
    hardware = Hardware.model_validate_json(json.dumps(plain))
    net = SPARSE.with_pattern(pattern)
    result = looked_up(net, hardware, residency=False)
    row, layer = result.layer_rows[1], net.layers[1]
    stored = FORMATS[expected](layer.mask, hardware.bits.weight)
    assert (row.weight_format, row.weight_bits) == (expected, stored.total)
    every = [each(layer.mask, 8).total for name, each in FORMATS.items()
             if name in formats and each.holds(layer.mask)]  # fmt: skip
    assert stored.total == min(every)
    assert bill(result, layer.name)["DRAM", "weight", "read"][1] == pytest.approx(stored.total)


@pytest.mark.parametrize(
    ("name", "chip"), [("vgg16", "edge_tpu"), ("vgg16", "eyeriss"), ("resnet18", "edge_tpu")]
)
@pytest.mark.parametrize("residency", [True, False])
def test_sparse_networks_cost_no_more_than_their_base(
    name: str, chip: str, *, residency: bool
) -> None:
    net = es.load_network(f"{name}_ps")
    sparse, dense = (bundled(each, chip, residency=residency) for each in (net.name, name))
    assert sparse.total_energy_pj < dense.total_energy_pj
    assert sparse.total_dram_bytes < dense.total_dram_bytes
    for one, other in zip(sparse.layer_rows, dense.layer_rows, strict=True):
        assert one.effective_macs <= other.effective_macs
        # without residency a layer can only gain; with it, others may take the room
        assert residency or one.energy_pj <= other.energy_pj * (1 + 1e-9)
    check_weights(sparse, net, dense)


def test_zero_weights_are_multiplied_unless_gated() -> None:
    for chip, gated in (("edge_tpu", True), ("eyeriss", False)):
        net = NETS[chip].with_pattern("PS4_P4")
        result = looked_up(net, es.load_hardware(chip), batch=3)
        arithmetic = {row.layer: row.elements for row in result.access_rows if row.level == "MAC"}
        for layer in net.layers:
            assert arithmetic[layer.name] == 3 * (layer.effective_macs if gated else layer.macs)
        assert result.total_effective_macs == 3 * net.effective_macs
        assert all(row.macs == 3 * layer.shape.macs and layer.shape[Dim.N] == 1
                   for row, layer in zip(result.layer_rows, net.layers, strict=True))  # fmt: skip
