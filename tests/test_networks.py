"""The bundled networks against totals that others have published, and their layers."""

from __future__ import annotations

from decimal import Decimal
from math import prod

import pytest

import energysim as es
from energysim.axes import Dim, Tensor
from energysim.network import LayerKind, Network
from energysim.validation.data import read_rows
from energysim.validation.networks import UNITS, parse_published, totals

ROWS = read_rows("networks.csv")
NETS = sorted({row["network"] for row in ROWS} - {"vit_b_16"})


def rounded(value: int, like: str) -> str:
    """Write a number in the unit and with the decimals of a published one."""
    unit = UNITS.get(like[-1], 1)
    figure = like.rstrip("kMG")
    places = Decimal(1).scaleb(-len(figure.partition(".")[2]))
    return f"{(Decimal(value) / unit).quantize(places)}{like[len(figure) :]}"


@pytest.mark.parametrize(
    ("value", "like"),
    [(4_231_976, "4.2M"), (568_740_352, "569M"), (1_498_376_192, "1.498G"), (77, "77")],
)
def test_rounding_as_published(value: int, like: str) -> None:
    assert rounded(value, like) == like
    assert rounded(value + value // 10, like) != like


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row['network']}-{row['source'][:16]}")
def test_totals_are_the_published_ones(row: dict[str, str]) -> None:
    parameters, macs = totals(row["network"])
    assert row["parameters"] or row["macs"]
    if row["parameters"]:
        assert rounded(parameters, row["parameters"]) == row["parameters"]
    if row["macs"]:
        assert rounded(macs, row["macs"]) == row["macs"]


def test_the_block_is_of_vit_b_16() -> None:
    assert es.load_network("vit_b_16_block").input_size == (768, (224 // 16) ** 2 + 1, 1)


@pytest.mark.parametrize("like", ["4.2M", "1.498G", "0.30G", "77"])
def test_the_band_is_what_rounds_to_the_published(like: str) -> None:
    value, low, high = map(int, parse_published(like))
    assert rounded(value, like) == like
    assert rounded(low + 1, like) == rounded(high, like) == like
    assert rounded(low - 1, like) != like != rounded(high + 1, like)


def test_macs_of_the_unet_stage_by_stage() -> None:
    """None are published: two 3x3 convolutions a stage, of which each halves what the next sees."""
    image, first, depth = 256, 32, 4
    macs = image**2 * 9 * first * (3 + first)
    for stage in range(1, depth + 1):
        width, pixels = first << stage, (image >> stage) ** 2
        macs += pixels * 9 * width * (width // 2 + width)  # down
        macs += pixels * 4 * width * (width // 2)  # enlarge
        macs += 4 * pixels * 9 * (width // 2) * (width + width // 2)  # up
    assert es.load_network("unet").macs == macs + image**2 * first


@pytest.mark.parametrize("name", [*NETS, "vit_b_16_block"])
def test_every_size_follows_from_the_layers_before(name: str) -> None:
    """What a layer reads is there, all of it unless it takes some channels, and all is read."""
    net = es.load_network(name)
    sizes = {"input": net.input_size} | {layer.name: layer.output for layer in net.layers}
    last = net.layers[-1]
    read = {each for layer in net.layers for each in layer.inputs}
    assert read == sizes.keys() - {last.name}
    for layer in net.layers:
        for tensor, names in layer.operands.items():
            volumes = [sizes[each] for each in names]
            there = layer.shape.elements(tensor)
            if layer.channels is None:
                assert there == sum(map(prod, volumes))
            else:
                assert there == layer.channels * prod(layer.shape.size) < sum(map(prod, volumes))
        assert prod(layer.output) == layer.shape.elements(Tensor.OUTPUT)


@pytest.mark.parametrize("name", [name for name in NETS if name not in {"unet", "resnet20"}])
def test_networks_for_imagenet(name: str) -> None:
    net = es.load_network(name)
    assert net.input_size == (3, 224, 224)
    assert net.layers[-1].output == (1000, 1, 1)


def by_kind(net: Network, kind: LayerKind) -> int:
    return sum(layer.kind is kind for layer in net.layers)


@pytest.mark.parametrize(
    ("name", "layer", "dims", "stride"),
    [
        ("vgg19", "conv5_4", (1, 1, 512, 512, 14, 14, 3, 3), 1),
        ("resnet20", "layer3.0.conv1", (1, 1, 64, 32, 8, 8, 3, 3), 2),
        ("resnet34", "layer2.0.downsample", (1, 1, 128, 64, 28, 28, 1, 1), 2),
        ("resnet50", "layer3.0.conv2", (1, 1, 256, 256, 14, 14, 3, 3), 2),
        ("resnet50", "layer4.2.conv3", (1, 1, 2048, 512, 7, 7, 1, 1), 1),
        ("mobilenet_v1", "block12.dw", (1, 512, 1, 1, 7, 7, 3, 3), 2),
        ("mobilenet_v1", "block13.pw", (1, 1, 1024, 1024, 7, 7, 1, 1), 1),
        ("mobilenet_v2_imagenet", "block2.dw", (1, 96, 1, 1, 56, 56, 3, 3), 2),
        ("mobilenet_v2_imagenet", "block17.project", (1, 1, 320, 960, 7, 7, 1, 1), 1),
        ("shufflenet_v2_x1_0_imagenet", "stage2.0.branch1.dw", (1, 24, 1, 1, 28, 28, 3, 3), 2),
        ("shufflenet_v2_x1_5_imagenet", "conv5", (1, 1, 1024, 704, 7, 7, 1, 1), 1),
        ("squeezenet", "conv1", (1, 1, 96, 3, 109, 109, 7, 7), 2),
        ("squeezenet", "fire5.squeeze", (1, 1, 32, 256, 27, 27, 1, 1), 1),
        ("squeezenet", "fire9.expand3x3", (1, 1, 256, 64, 13, 13, 3, 3), 1),
        ("googlenet", "inception3a.branch1", (1, 1, 64, 192, 28, 28, 1, 1), 1),
        ("googlenet", "inception4e.branch2.1", (1, 1, 320, 160, 14, 14, 3, 3), 1),
        ("googlenet", "inception5b.branch4.1", (1, 1, 128, 832, 7, 7, 1, 1), 1),
        ("densenet121", "block3.24.conv1", (1, 1, 128, 992, 14, 14, 1, 1), 1),
        ("densenet121", "transition2.conv", (1, 1, 256, 512, 28, 28, 1, 1), 1),
        ("efficientnet_b0", "block4.dw", (1, 144, 1, 1, 28, 28, 5, 5), 2),
        ("efficientnet_b0", "block16.reduce", (1, 1, 48, 1152, 1, 1, 1, 1), 1),
        ("unet", "upconv4", (1, 1, 4 * 256, 512, 16, 16, 1, 1), 1),
        ("unet", "decoder1.conv1", (1, 1, 32, 64, 256, 256, 3, 3), 1),
        ("vit_b_16_block", "scores", (1, 12, 197, 64, 197, 1, 1, 1), 1),
        ("vit_b_16_block", "attend", (1, 12, 64, 197, 197, 1, 1, 1), 1),
    ],
)
def test_shapes(name: str, layer: str, dims: tuple[int, ...], stride: int) -> None:
    shape = es.load_network(name).layer(layer).shape
    assert shape.dims == dims
    assert shape.stride == (stride, stride)


@pytest.mark.parametrize(
    ("name", "kinds"),
    [
        ("resnet20", {"conv": 19 + 2, "add": 9, "linear": 1}),
        ("resnet50", {"conv": 49 + 4, "add": 16, "linear": 1}),
        ("mobilenet_v1", {"conv": 14, "depthwise": 13, "linear": 1}),
        ("mobilenet_v2_imagenet", {"conv": 35, "depthwise": 17, "add": 10, "linear": 1}),
        ("squeezenet", {"conv": 26, "linear": 0, "pool": 4}),
        ("googlenet", {"conv": 57, "pool": 14, "linear": 1}),
        ("densenet121", {"conv": 120, "batch_norm": 58 + 3 + 1, "linear": 1}),
        ("efficientnet_b0", {"conv": 49 - 16 + 2 * 16, "depthwise": 16, "multiply": 16, "add": 9}),
        ("unet", {"conv": 19, "transposed": 4, "pool": 4}),
        ("vit_b_16_block", {"conv": 6, "matmul": 2, "layer_norm": 2, "softmax": 1, "add": 2}),
    ],
)
def test_layers_of_each_kind(name: str, kinds: dict[str, int]) -> None:
    net = es.load_network(name)
    assert {kind: by_kind(net, LayerKind(kind)) for kind in kinds} == kinds


def test_densenet_reads_all_layers_of_its_block() -> None:
    net = es.load_network("densenet121")
    for block, layers, first in ((1, 6, 64), (2, 12, 128), (3, 24, 256), (4, 16, 512)):
        for at in range(1, layers + 1):
            norm = net.layer(f"block{block}.{at}.norm1")
            assert len(norm.inputs) == at
            assert norm.output[0] == first + 32 * (at - 1)


@pytest.mark.parametrize(("width", "name"), [(116, "x1_0"), (176, "x1_5")])
def test_channels_of_shufflenet_are_followed_one_by_one(width: int, name: str) -> None:
    """Each unit keeps the even half of its channels and works on the other, then interleaves."""
    net = es.load_network(f"shufflenet_v2_{name}_imagenet")

    def interleaved(first: list[str], second: list[str]) -> list[str]:
        return [each for pair in zip(first, second, strict=True) for each in pair]

    held = ["maxpool"] * 24
    for stage, (times, units) in enumerate(((1, 4), (2, 8), (4, 4)), 2):
        half = times * width // 2
        for at in ("branch1.dw", "branch2.pw1"):
            assert set(net.layer(f"stage{stage}.0.{at}").inputs) == set(held)
        left, right = f"stage{stage}.0.branch1.pw", f"stage{stage}.0.branch2.pw2"
        now = interleaved([left] * half, [right] * half)
        for unit in range(1, units):
            first = net.layer(f"stage{stage}.{unit}.pw1")
            assert set(first.inputs) == set(now[half:])
            assert first.shape[Dim.C] == half
            now = interleaved(now[:half], [f"stage{stage}.{unit}.pw2"] * half)
        held = now
    assert set(net.layer("conv5").inputs) == set(held)
