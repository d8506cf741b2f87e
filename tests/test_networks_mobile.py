"""MobileNetV2 and ShuffleNetV2 as bundled: totals, shapes where blocks join, and that they run."""

from __future__ import annotations

from dataclasses import replace

import pytest
from machines import bundled

import energysim as es
from energysim.axes import Dim, Tensor
from energysim.errors import InputErrors
from energysim.network import LayerKind, Network

# --- MobileNetV2 ----------------------------------------------------------------------------------


def test_mobilenet_v2_totals() -> None:
    """Figures of the authors' CIFAR-10 form, counted from their file."""
    network = es.load_network("mobilenet_v2")
    assert network.parameters == 2_296_922
    assert network.macs == network.effective_macs == 91_154_944
    assert network.conv_macs == 91_154_944 - 1280 * 10


STAGES = [
    (1, 16, 1, 32), (6, 24, 2, 32), (6, 32, 3, 16), (6, 64, 4, 8), (6, 96, 3, 8), (6, 160, 3, 4),
    (6, 320, 1, 4),
]  # fmt: skip
"""Expansion, width, blocks, and the side of the map behind the stage."""


def blocks_of_mobilenet_v2() -> list[tuple[int, int, int, int, int]]:
    """(channels in, channels between, channels out, side in, side out) of the 17 blocks."""
    found = []
    channels, side = 32, 32
    for expansion, width, repeats, side_out in STAGES:
        for _ in range(repeats):
            found.append((channels, expansion * channels, width, side, side_out))
            channels, side = width, side_out
    return found


def test_mobilenet_v2_blocks() -> None:
    network = es.load_network("mobilenet_v2")
    blocks = blocks_of_mobilenet_v2()
    assert len(blocks) == 17
    for number, (into, between, out, side_in, side) in enumerate(blocks):
        expand, mix, project = (
            network.layer(f"layers.{number}.conv{part}").shape for part in (1, 2, 3)
        )
        stride = side_in // side
        assert expand.dims == (1, 1, between, into, side_in, side_in, 1, 1)
        assert mix.dims == (1, between, 1, 1, side, side, 3, 3)
        assert (mix.stride, mix.pad) == ((stride, stride), (1, 1))
        assert project.dims == (1, 1, out, between, side, side, 1, 1)


def test_mobilenet_v2_joints() -> None:
    """Blocks of stride 1 add what they read, by a 1x1 convolution where the widths differ."""
    network = es.load_network("mobilenet_v2")
    entry = "conv1"
    shortcuts = []
    for number, (into, _, out, side_in, side) in enumerate(blocks_of_mobilenet_v2()):
        block = f"layers.{number}"
        names = {layer.name for layer in network.layers if layer.name.startswith(f"{block}.")}
        assert network.layer(f"{block}.conv1").inputs == (entry,)
        last = f"{block}.conv3"
        assert (f"{block}.add" in names) is (side_in == side)
        assert (f"{block}.shortcut" in names) is (side_in == side and into != out)
        if side_in == side:
            other = entry
            if into != out:
                other = f"{block}.shortcut"
                shortcuts.append(number)
                assert network.layer(other).inputs == (entry,)
                assert network.layer(other).shape.dims == (1, 1, out, into, side, side, 1, 1)
            add = network.layer(f"{block}.add")
            assert add.inputs == (last, other)
            assert add.shape.dims == (1, out, 1, 2, side, side, 1, 1)
            last = add.name
        entry = last
    assert shortcuts == [0, 1, 10, 16]
    head = network.layer("conv2")
    assert head.inputs == (entry,)
    assert head.output == (1280, 4, 4)
    assert network.layer("avgpool").output == (1280, 1, 1)
    assert network.layer("fc").shape.dims == (1, 1, 10, 1280, 1, 1, 1, 1)


def test_patterns_cover_nothing_of_mobilenet_v2() -> None:
    """Its only 3x3 kernels are the first layer's and depthwise ones: no sparse variant."""
    with pytest.raises(InputErrors, match="pattern PSD4_P8 covers no layer of 'mobilenet_v2'"):
        es.load_network("mobilenet_v2").with_pattern("PSD4_P8")


# --- both -----------------------------------------------------------------------------------------


def part_of(network: Network, *names: str) -> Network:
    """Some layers by themselves, each reading an image of its own."""
    layers = tuple(replace(network.layer(name), inputs=("input",)) for name in names)
    return replace(network, layers=layers)


def test_every_size_follows_from_the_layers_before() -> None:
    network = es.load_network("mobilenet_v2")
    sizes = {"input": network.input_size} | {layer.name: layer.output for layer in network.layers}
    for layer in network.layers:
        shape = layer.shape
        elements = sum(
            channels * height * width
            for channels, height, width in (sizes[name] for name in layer.inputs)
        )
        assert shape.elements(Tensor.INPUT) == elements
        assert {sizes[name][1:] for name in layer.inputs} <= {shape.size, (1, 1)}
    read = {name for layer in network.layers for name in layer.inputs}
    assert read == sizes.keys() - {"fc"}


@pytest.mark.parametrize("chip", ["edge_tpu", "eyeriss"])
def test_layers_of_mobilenet_v2_run(chip: str) -> None:
    """One of each kind, of those that are searched quickly."""
    names = ("layers.3.conv2", "layers.14.conv1", "layers.14.conv2", "layers.14.add", "avgpool")
    part = part_of(es.load_network("mobilenet_v2"), *names, "fc")
    result = es.simulate(part, es.load_hardware(chip))
    assert result.total_macs == part.macs
    assert result.search.optimal
    assert [row.kind for row in result.layer_rows] == [
        LayerKind.DEPTHWISE, LayerKind.CONV, LayerKind.DEPTHWISE, LayerKind.ADD, LayerKind.POOL,
        LayerKind.LINEAR,
    ]  # fmt: skip
    for layer, row in zip(part.layers, result.layer_rows, strict=True):
        assert row.energy_pj > 0
        assert row.dram_bytes >= row.dram_bound_bytes * (1 - 1e-12)
        shape = layer.shape
        if layer.kind is LayerKind.DEPTHWISE:
            assert row.macs == shape[Dim.G] * shape[Dim.P] * shape[Dim.Q] * 9


def test_depthwise_layers_use_one_element_of_a_matrix_array() -> None:
    """Rows take input channels and columns filters; each group of a depthwise layer has one."""
    rows = {row.layer: row for row in bundled("mobilenet_v2", "edge_tpu").layer_rows}
    assert rows["layers.14.conv2"].utilization == 1 / (64 * 64)
    assert rows["layers.14.conv1"].utilization > 0.1


def test_mobilenet_v2_stays_on_chip() -> None:
    """Weights (2.3 MB) and every map fit into the 8 MiB buffer: only image and result move."""
    result = bundled("mobilenet_v2", "edge_tpu")
    assert result.total_dram_bytes == 3 * 32 * 32 + 10
