"""MobileNetV2 and ShuffleNetV2 as bundled: totals, shapes where blocks join, and that they run."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import pairwise
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from command_line import ROOT
from machines import bundled, conv
from machines import network as build
from pydantic import ValidationError

import energysim as es
from energysim.axes import Dim, Tensor
from energysim.errors import InputErrors
from energysim.network import LayerKind, Network, NetworkSpec, build_network
from energysim.validation.variant import variant
from energysim.yamlio import load_model

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


# --- ShuffleNetV2 ---------------------------------------------------------------------------------


def test_shufflenet_v2_totals() -> None:
    network = es.load_network("shufflenet_v2")
    assert network.parameters == 2_488_874
    assert network.macs == network.effective_macs == 94_259_712
    assert network.conv_macs == 94_259_712 - 1024 * 10


def test_shufflenet_v2_and_the_cost_that_was_plotted() -> None:
    """Kundu et al. plot 0.098 G; with two operations per output of a batch norm it is 0.096 G.

    A count of 93.7 M (95.3 M) for this width, made elsewhere, is what a 1x1 stem would give.
    """
    network = es.load_network("shufflenet_v2")
    stem = network.layers[0]
    normalising = sum(2 * prod(layer.output) for layer in network.layers if layer.batch_norm)
    assert f"{(network.macs + normalising) / 1e9:.3f}" == "0.096"
    without = network.macs - stem.macs + stem.macs // 9
    assert f"{without / 1e6:.1f} {(without + normalising) / 1e6:.1f}" == "93.7 95.3"


def test_shufflenet_v2_for_imagenet_has_the_published_size() -> None:
    """torchvision's shufflenet_v2_x1_5: 3503624 parameters, 0.296 G MACs for 224x224 images.

    The CIFAR-10 form has no published size of its own. Its layers with the stem, the pool and the
    classifier of the original must have the original's.
    """
    spec, _ = load_model(ROOT / "networks" / "shufflenet_v2.yaml", NetworkSpec)
    data = json.loads(spec.model_dump_json(exclude_unset=True))
    stem, *body, pool, classifier = data["layers"]
    for record in body:
        if record.get("input") == "conv1":
            record["input"] = "maxpool"
    layers = [
        stem | {"stride": 2},
        {"name": "maxpool", "kind": "pool", "kernel": 3, "stride": 2, "pad": 1},
        *body,
        pool | {"kernel": "global"},
        classifier | {"out": 1000},
    ]
    text = json.dumps(data | {"input": [3, 224, 224], "layers": layers})
    network = build_network(NetworkSpec.model_validate_json(text), None, es.load_network)
    assert network.parameters == 3_503_624
    assert f"{network.macs / 1e9:.3f}" == "0.296"


def shuffled(channels: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """First channel of each half, then the second of each, and so on."""
    return channels.reshape(2, -1).T.reshape(-1)


def test_shufflenet_v2_reads_what_the_shuffles_leave() -> None:
    """Each channel is followed through all splits, concatenations and shuffles of the network."""
    network = es.load_network("shufflenet_v2")
    index = {layer.name: i for i, layer in enumerate(network.layers)}

    def reads(name: str, channels: npt.NDArray[np.int64]) -> None:
        """Compare the layer's input with channels that are known by the layer that made them."""
        layer = network.layer(name)
        assert sorted(index[each] for each in layer.inputs) == np.unique(channels).tolist()
        groups, _, each_group = layer.shape.dims[1:4]
        assert groups * each_group == channels.size

    def made(name: str) -> npt.NDArray[np.int64]:
        return np.full(network.layer(name).output[0], index[name])

    def chain(*names: str) -> None:
        for earlier, later in pairwise(names):
            reads(later, made(earlier))

    x, side = made("conv1"), 32
    for stage, (width, units) in enumerate(((176, 4), (352, 8), (704, 4)), 1):
        half, side = width // 2, side // 2
        first = [f"layer{stage}.0.conv{part}" for part in range(1, 6)]
        reads(first[0], x)
        reads(first[2], x)
        chain(*first[:2])
        chain(*first[2:])
        for at in (0, 3):
            assert network.layer(first[at]).shape.stride == (2, 2)
        x = shuffled(np.concatenate([made(first[1]), made(first[4])]))
        for unit in range(1, units):
            names = [f"layer{stage}.{unit}.conv{part}" for part in range(1, 4)]
            reads(names[0], x[half:])
            chain(*names)
            assert {network.layer(name).output for name in names} == {(half, side, side)}
            x = shuffled(np.concatenate([x[:half], made(names[2])]))
        assert f"layer{stage}.{units}.conv1" not in index
        assert x.size == width
    reads("conv2", x)
    assert side == 4
    assert network.layer("conv2").output == (1024, 4, 4)
    assert len(network.layers) == 1 + 3 * 5 + (3 + 7 + 3) * 3 + 3


def test_layers_of_shufflenet_v2_run() -> None:
    """A layer that reads parts of others costs what one with an input of its own costs."""
    network = es.load_network("shufflenet_v2")
    part = part_of(network, "layer3.1.conv1", "layer3.1.conv2", "layer3.0.conv4")
    for chip in ("edge_tpu", "eyeriss"):
        result = es.simulate(part, es.load_hardware(chip))
        assert result.search.optimal
        assert result.total_macs == 352 * 352 * 16 + 2 * (352 * 9 * 16)
    whole = bundled("shufflenet_v2", "edge_tpu")
    assert whole.total_dram_bytes == 3 * 32 * 32 + 10


# --- joined and split channels --------------------------------------------------------------------


def reading(*records: dict[str, Any]) -> Network:
    return build(
        conv("a", 4, kernel=1), conv("b", 6, kernel=1, input="input"), *records, size=(3, 8, 8)
    )


@pytest.mark.parametrize(("channels", "read"), [({}, 10), ({"channels": 7}, 7)])
def test_every_kind_reads_joined_channels(channels: dict[str, int], read: int) -> None:
    how: dict[str, Any] = {"input": ["a", "b"]} | channels
    network = reading(
        conv("c", 5, **how),
        {"name": "d", "kind": "depthwise", "kernel": 3, **how},
        {"name": "p", "kind": "pool", "kernel": 2, **how},
        {"name": "f", "kind": "linear", "out": 2, **how},
    )
    c, d, p, f = network.layers[2:]
    assert c.shape.dims == (1, 1, 5, read, 8, 8, 3, 3)
    assert d.shape.dims == (1, read, 1, 1, 6, 6, 3, 3)
    assert p.shape.dims == (1, read, 1, 1, 4, 4, 2, 2)
    assert f.shape.dims == (1, 1, 2, read * 64, 1, 1, 1, 1)
    assert {layer.inputs for layer in (c, d, p, f)} == {("a", "b")}
    assert {layer.channels for layer in (c, d, p, f)} == {channels.get("channels")}


def test_part_of_one_layer() -> None:
    network = reading(conv("c", 5, channels=2))
    assert network.layers[2].shape[Dim.C] == 2
    assert network.layers[2].inputs == ("b",)


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"input": ["a", "b"], "channels": 11}, "c.*: there are 10 channels to read, got 11"),
        ({"input": ["a", "z"]}, "reads 'z', but there is no such layer"),
        (
            {"input": ["a", "small"]},
            r"read together must be equal, got 'a' \[4, 8, 8\], 'small' \[6, 4, 4\]",
        ),
    ],
)
def test_channels_that_can_not_be_read(fields: dict[str, Any], text: str) -> None:
    small = {"name": "small", "kind": "pool", "kernel": 2}
    with pytest.raises(InputErrors, match=text):
        reading(small, conv("c", 5, **fields))


@pytest.mark.parametrize("fields", [{"input": []}, {"channels": 0}])
def test_reading_nothing_is_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        reading(conv("c", 5, **fields))


# --- both -----------------------------------------------------------------------------------------


def part_of(network: Network, *names: str) -> Network:
    """Some layers by themselves, each reading an image of its own."""
    layers = tuple(replace(network.layer(name), inputs=("input",)) for name in names)
    return replace(network, layers=layers)


@pytest.mark.parametrize("name", ["mobilenet_v2", "shufflenet_v2"])
def test_every_size_follows_from_the_layers_before(name: str) -> None:
    network = es.load_network(name)
    sizes = {"input": network.input_size} | {layer.name: layer.output for layer in network.layers}
    for layer in network.layers:
        shape, volumes = layer.shape, [sizes[each] for each in layer.inputs]
        present = sum(prod(volume) for volume in volumes)
        if layer.channels is None:
            assert shape.elements(Tensor.INPUT) == present
        else:
            assert shape.elements(Tensor.INPUT) == layer.channels * prod(shape.size) < present
        assert {volume[1:] for volume in volumes} == {shape.size}
    assert {each for layer in network.layers for each in layer.inputs} == sizes.keys() - {"fc"}


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
    chip = variant(es.load_hardware("edge_tpu"), unroll={"cols": ("K",)})
    rows = {row.layer: row for row in es.simulate(es.load_network("mobilenet_v2"), chip).layer_rows}
    assert rows["layers.14.conv2"].utilization == 1 / (64 * 64)
    assert rows["layers.14.conv1"].utilization > 0.1


def test_edge_tpu_lays_groups_along_its_columns() -> None:
    """One column each: with one element for them all, MobileNet would take ten times as long."""
    rows = {row.layer: row for row in bundled("mobilenet_v2", "edge_tpu").layer_rows}
    assert 1 / (64 * 64) < rows["layers.14.conv2"].utilization <= 1 / 64


def test_mobilenet_v2_stays_on_chip() -> None:
    """Weights (2.3 MB) and every map fit into the 8 MiB buffer: only image and result move."""
    result = bundled("mobilenet_v2", "edge_tpu")
    assert result.total_dram_bytes == 3 * 32 * 32 + 10
