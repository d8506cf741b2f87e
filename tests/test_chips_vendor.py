"""Bundled chips whose makers give a compiler or a table of estimates: Ethos-U and NVDLA."""

from __future__ import annotations

from math import prod

import pytest

from energysim import load_hardware, load_network, simulate
from energysim.axes import Tensor
from energysim.validation.variant import variant

PEAK = {"ethos_u55_128": 128, "ethos_u65_512": 512, "nvdla_small": 64, "nvdla_large": 2048}
"""Multiply-accumulates in a cycle, by the names of the sizes."""

GOPS = {"ethos_u55_128": 128, "ethos_u65_512": 1024, "nvdla_small": 128, "nvdla_large": 4096}
"""Operations a second at most, two for each multiply-accumulate [G/s]."""

OWN_KIB = {
    "ethos_u55_128": {"SHRAM": 20},
    "ethos_u65_512": {"SHRAM": 88},
    "nvdla_small": {"CBUF": 128},
    "nvdla_large": {"CBUF": 512},
}
"""Memories whose sizes are published [KiB]."""

GB_S = {"ethos_u55_128": 0.5, "ethos_u65_512": 3.75, "nvdla_small": 1.0, "nvdla_large": 20.0}
"""Bandwidth of the outermost memory [GB/s]."""


@pytest.mark.parametrize("name", PEAK)
def test_size(name: str) -> None:
    chip = load_hardware(name)
    assert prod(chip.axis_sizes) == PEAK[name]
    assert 2 * PEAK[name] * chip.clock_mhz / 1000 == GOPS[name]
    levels = {level.name: level for level in chip.levels}
    for level, kib in OWN_KIB[name].items():
        assert levels[level].capacity_kib == kib
    width = chip.levels[0].bandwidth_bits_per_cycle
    assert width is not None
    assert width / 8 * chip.clock_mhz / 1000 == GB_S[name]


@pytest.mark.parametrize("name", PEAK)
def test_everything_that_is_not_published_is_said(name: str) -> None:
    chip = load_hardware(name)
    assert chip.note
    for level in chip.levels:
        looked_up = set(level.from_tables)
        given = {"read_pj_per_bit", "write_pj_per_bit"} - looked_up
        assert given <= set(level.assumed)


@pytest.mark.parametrize("name", PEAK)
def test_runs(name: str) -> None:
    chip, network = load_hardware(name), load_network("resnet20")
    result = simulate(network, chip, perfect=True)
    assert result.total_macs == sum(layer.macs for layer in network.layers)
    assert result.total_cycles >= result.total_macs / PEAK[name]
    assert all(0 <= row.utilization <= 1 for row in result.layer_rows)


@pytest.mark.parametrize(
    ("name", "share"),
    # one lane of 8, one channel of 64 or 8: the others would add up what does not belong together
    [("ethos_u55_128", 1 / 8), ("ethos_u65_512", 1 / 8), ("nvdla_large", 1 / 64)],
)
def test_a_depthwise_layer_leaves_the_dot_products_empty(name: str, share: float) -> None:
    result = simulate(load_network("mobilenet_v2"), load_hardware(name), perfect=True)
    depthwise = [row for row in result.layer_rows if row.kind == "depthwise"]
    assert depthwise
    assert max(row.utilization for row in depthwise) <= share


def test_flash_of_ethos_u55_gives_weights_and_no_feature_maps_between_layers() -> None:
    network = load_network("mobilenet_v2")
    result = simulate(network, load_hardware("ethos_u55_128"), perfect=True)
    first, last = network.layers[0].name, network.layers[-1].name
    for row in result.access_rows:
        if row.level == "FLASH" and row.elements:
            allowed = {("weight", "read"), ("input", "read"), ("output", "update")}
            assert (row.tensor, row.action) in allowed
            assert row.tensor != "input" or row.layer == first
            assert row.tensor != "output" or row.layer == last
    weights = sum(layer.shape.elements(Tensor.WEIGHT) for layer in network.layers if layer.weights)
    read = sum(
        row.elements
        for row in result.access_rows
        if (row.level, row.tensor, row.action) == ("FLASH", "weight", "read")
    )
    assert read == weights


def test_a_variant_changes_what_it_says_and_nothing_else() -> None:
    chip = load_hardware("nvdla_large")
    smaller = variant(chip, axes={"kernels": 8}, levels={"CBUF": {"capacity_kib": 64}}, static_mw=1)
    assert smaller.array.axes == {"channels": 64, "kernels": 8}
    assert smaller.levels[1].capacity_kib == 64
    assert smaller.levels[0] == chip.levels[0]
    assert smaller.static_mw == 1
    assert variant(chip) == chip
    with pytest.raises(ValueError, match="no level named L2"):
        variant(chip, levels={"L2": {}})
