"""Network files: exact totals of the bundled networks, shapes, and every kind of mistake."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from energysim.axes import Dim, Shape, Tensor
from energysim.errors import InputError, InputErrors
from energysim.mistakes import Source
from energysim.network import (
    LayerKind,
    Network,
    NetworkSpec,
    PoolMode,
    build_network,
)
from energysim.yamlio import load_model

NETWORKS = Path(__file__).parent.parent / "networks"


def load(name: str) -> Network:
    spec, source = load_model(NETWORKS / f"{name}.yaml", NetworkSpec)
    return build_network(spec, source, load)


def parse(**fields: Any) -> NetworkSpec:
    return NetworkSpec.model_validate_json(json.dumps({"name": "net", "source": "test"} | fields))


def build(*layers: dict[str, Any], size: tuple[int, int, int] = (3, 8, 8)) -> Network:
    """Build a network from records without a file."""
    return build_network(parse(input=size, layers=layers), None, load)


def conv(name: str = "a", **fields: Any) -> dict[str, Any]:
    return {"name": name, "kind": "conv", "out": 4, "kernel": 3, "pad": 1} | fields


# --- the networks that come along -----------------------------------------------------------------


@pytest.mark.parametrize("path", sorted(NETWORKS.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_network_loads_and_says_where_it_comes_from(path: Path) -> None:
    network = load(path.stem)
    assert network.name == path.stem
    assert network.source
    assert (network.base is not None) is path.stem.endswith("_ps")
    for index, layer in enumerate(network.layers):
        assert layer.seed == index
        assert layer.shape[Dim.N] == 1
        assert network.layer(layer.name) is layer


@pytest.mark.parametrize(
    ("name", "parameters", "conv_macs", "macs"),
    [
        ("vgg16", 14_728_266, 313_196_544, 313_201_664),
        ("resnet18", 11_173_962, 555_417_600, 555_422_720),
        ("vgg16_tinyimagenet", 15_132_936, 4 * 313_196_544, 4 * 313_196_544 + 409_600),
        ("resnet18_tinyimagenet", 11_578_632, 4 * 555_417_600, 4 * 555_417_600 + 409_600),
        ("vgg16_imagenet", 138_357_544, 15_346_630_656, 15_470_264_320),
        ("resnet18_imagenet", 11_689_512, 1_813_561_344, 1_814_073_344),
        ("alexnet", 60_965_224, 665_784_864, 724_406_816),
    ],
)
def test_totals(name: str, parameters: int, conv_macs: int, macs: int) -> None:
    network = load(name)
    assert network.parameters == parameters
    assert network.conv_macs == conv_macs
    assert network.macs == network.effective_macs == macs
    assert network.pattern == "dense"


def test_vgg16_layer_by_layer() -> None:
    expected = [
        ("conv1_1", 1_728, 1_769_472), ("conv1_2", 36_864, 37_748_736),
        ("conv2_1", 73_728, 18_874_368), ("conv2_2", 147_456, 37_748_736),
        ("conv3_1", 294_912, 18_874_368), ("conv3_2", 589_824, 37_748_736),
        ("conv3_3", 589_824, 37_748_736), ("conv4_1", 1_179_648, 18_874_368),
        ("conv4_2", 2_359_296, 37_748_736), ("conv4_3", 2_359_296, 37_748_736),
        ("conv5_1", 2_359_296, 9_437_184), ("conv5_2", 2_359_296, 9_437_184),
        ("conv5_3", 2_359_296, 9_437_184), ("fc", 5_120, 5_120),
    ]  # fmt: skip
    layers = [layer for layer in load("vgg16").layers if layer.has_weights]
    assert [(layer.name, layer.weights_dense, layer.macs) for layer in layers] == expected


def test_resnet18_weights_by_kernel() -> None:
    convolutions = [layer for layer in load("resnet18").layers if layer.kind is LayerKind.CONV]
    by_kernel = {
        size: sum(layer.weights for layer in convolutions if layer.shape[Dim.R] == size)
        for size in (1, 3)
    }
    assert by_kernel == {1: 172_032, 3: 10_985_472 + 1_728}
    network = load("resnet18")
    assert network.layer("layer2.0.downsample").inputs == ("layer1.1.add",)
    assert network.layer("layer2.0.add").inputs == ("layer2.0.conv2", "layer2.0.downsample")
    assert network.layer("avgpool").mode is PoolMode.AVERAGE


@pytest.mark.parametrize(
    ("name", "height", "kernel", "out", "channels", "filters", "groups", "stride", "batch_macs"),
    [
        ("conv1", 227, 11, 55, 3, 96, 1, 4, 421_660_800),
        ("conv2", 31, 5, 27, 48, 256, 2, 1, 895_795_200),
        ("conv3", 15, 3, 13, 256, 384, 1, 1, 598_081_536),
        ("conv4", 15, 3, 13, 192, 384, 2, 1, 448_561_152),
        ("conv5", 15, 3, 13, 192, 256, 2, 1, 299_040_768),
    ],
)
def test_alexnet_as_eyeriss_ran_it(
    name: str,
    height: int,
    kernel: int,
    out: int,
    channels: int,
    filters: int,
    groups: int,
    stride: int,
    batch_macs: int,
) -> None:
    """Chen et al., JSSC 52(1), 2017, table V; MACs of a batch of 4, from the shapes."""
    layer = load("alexnet").layer(name)
    shape = layer.shape
    assert shape.dims == (1, groups, filters // groups, channels, out, out, kernel, kernel)
    assert shape.stride == (stride, stride)
    assert shape.size[0] + 2 * shape.pad[0] == height
    assert 4 * layer.macs == batch_macs


@pytest.mark.parametrize(
    ("patterns", "vgg_conv", "vgg_all", "res_conv", "res_all"),
    [
        ("dense pSC9", 14_710_464, "14.7283", 11_159_232, "11.1740"),
        ("pSC4 PS4_P4", 6_538_944, "6.5567", 5_056_192, "5.0709"),
        ("pSC2 PS2_P6 PSD1_P8", 3_270_336, "3.2881", 2_614_976, "2.6297"),
        ("pSC1 PS1_P9", 1_636_032, "1.6538", 1_394_368, "1.4091"),
        ("PSD4_P8", 7_560_384, "7.5782", 5_819_072, "5.8338"),
        ("PSD4_P16", 7_049_664, "7.0675", 5_437_632, "5.4524"),
        ("PSD2_P8", 4_700_352, "4.7182", 3_683_008, "3.6977"),
        ("PSD2_P16", 3_985_344, "4.0031", 3_148_992, "3.1637"),
        ("PSD1_P16", 2_453_184, "2.4710", 2_004_672, "2.0194"),
    ],
)
def test_parameters_of_the_patterns(
    patterns: str, vgg_conv: int, vgg_all: str, res_conv: int, res_all: str
) -> None:
    for pattern in patterns.split():
        for name, conv_weights, total in (
            ("vgg16", vgg_conv, vgg_all),
            ("resnet18", res_conv, res_all),
        ):
            network = load(name).with_pattern(pattern)
            convolutions = [layer for layer in network.layers if layer.kind is LayerKind.CONV]
            assert sum(layer.weights for layer in convolutions) == conv_weights
            assert f"{network.parameters / 1e6:.4f}" == total


@pytest.mark.parametrize(
    ("name", "pattern", "millions"),
    [
        ("vgg16_tinyimagenet", "dense", "15.1329"),
        ("vgg16_tinyimagenet", "PSD1_P16", "2.8757"),
        ("resnet18_tinyimagenet", "dense", "11.5786"),
        ("resnet18_tinyimagenet", "PSD1_P16", "2.4241"),
    ],
)
def test_parameters_for_tiny_imagenet(name: str, pattern: str, millions: str) -> None:
    assert f"{load(name).with_pattern(pattern).parameters / 1e6:.4f}" == millions


@pytest.mark.parametrize(
    ("patterns", "giga"),
    [
        ("dense", "0.3132 1.2532 0.5554 2.2221"),
        ("pSC4 PS4_P4", "0.1402 0.5611 0.2513 1.0057"),
        ("pSC2 PS2_P6", "0.0710 0.2843 0.1297 0.5192"),
        ("pSC1 PS1_P9", "0.0364 0.1459 0.0689 0.2759"),
        ("PSD4_P8", "0.1618 0.6476 0.2893 1.1578"),
        ("PSD4_P16", "0.1510 0.6044 0.2703 1.0818"),
        ("PSD2_P8", "0.1013 0.4054 0.1829 0.7321"),
        ("PSD2_P16", "0.0861 0.3449 0.1563 0.6256"),
        ("PSD1_P8", "0.0710 0.2843 0.1297 0.5192"),
        ("PSD1_P16", "0.0537 0.2151 0.0993 0.3976"),
    ],
)
def test_effective_macs_of_the_patterns(patterns: str, giga: str) -> None:
    names = ["vgg16", "vgg16_tinyimagenet", "resnet18", "resnet18_tinyimagenet"]
    for pattern in patterns.split():
        networks = [load(name).with_pattern(pattern) for name in names]
        assert [f"{net.effective_macs / 1e9:.4f}" for net in networks] == giga.split()


# --- shapes ---------------------------------------------------------------------------------------


def test_rectangular_convolution() -> None:
    layer = build(
        conv(kernel=[3, 1], stride=[2, 1], pad=[1, 0, 2, 1], dilation=[2, 1], groups=3, out=6),
        size=(3, 10, 7),
    ).layers[0]
    assert layer.shape == Shape(
        (1, 3, 2, 1, 4, 10, 3, 1), stride=(2, 1), dilation=(2, 1), pad=(1, 2), size=(10, 7)
    )
    assert layer.output == (6, 4, 10)
    assert layer.parameters == 6 * 1 * 3 + 6


@pytest.mark.parametrize("extent", range(1, 9))
@pytest.mark.parametrize("kernel", [1, 2, 3])
@pytest.mark.parametrize("stride", [1, 2, 3])
def test_same_padding_keeps_ceil_of_size_by_stride(extent: int, kernel: int, stride: int) -> None:
    layer = build(conv(kernel=kernel, stride=stride, pad="same"), size=(3, extent, extent)).layers[
        0
    ]
    assert layer.output[1:] == (-(-extent // stride),) * 2
    total = max(0, (layer.output[1] - 1) * stride + kernel - extent)
    assert layer.shape.pad == (total // 2, total // 2)


def test_pad_of_two() -> None:
    assert build(conv(pad=[0, 2])).layers[0].output == (4, 6, 10)


def test_depthwise_pool_and_linear() -> None:
    network = build(
        {"name": "d", "kind": "depthwise", "kernel": 3, "stride": 2, "pad": 1, "batch_norm": True},
        {"name": "p", "kind": "pool", "kernel": 2},
        {"name": "overlapping", "kind": "pool", "kernel": 3, "stride": 2, "input": "d"},
        {"name": "f", "kind": "linear", "out": 10, "bias": False},
        {"name": "g", "kind": "linear", "out": 5},
        size=(6, 15, 15),
    )
    depthwise, pool, overlapping, linear, last = network.layers
    assert depthwise.shape.dims == (1, 6, 1, 1, 8, 8, 3, 3)
    assert depthwise.parameters == 6 * 9 + 6 + 2 * 6
    assert pool.shape.dims == (1, 6, 1, 1, 4, 4, 2, 2)
    assert (pool.shape.stride, pool.mode) == ((2, 2), PoolMode.MAX)
    assert overlapping.shape.dims == (1, 6, 1, 1, 3, 3, 3, 3)
    assert linear.shape.dims == (1, 1, 10, 6 * 3 * 3, 1, 1, 1, 1)
    assert (linear.parameters, last.parameters) == (540, 55)
    assert pool.parameters == pool.weights_dense == pool.macs == pool.effective_macs == 0
    assert network.conv_macs == depthwise.macs == 6 * 9 * 64
    assert network.macs == depthwise.macs + 540 + 50


def test_global_pool_and_add() -> None:
    network = build(
        conv("a"),
        conv("b", input="input"),
        {"name": "sum", "kind": "add", "input": ["a", "b", "a"]},
        {"name": "p", "kind": "pool", "kernel": "global", "mode": "average"},
    )
    total, pool = network.layers[2:]
    assert total.shape.dims == (1, 4, 1, 3, 8, 8, 1, 1)
    assert total.inputs == ("a", "b", "a")
    assert total.shape.elements(Tensor.INPUT) == 3 * 4 * 64
    assert total.output == (4, 8, 8)
    assert pool.shape.dims == (1, 4, 1, 1, 1, 1, 8, 8)
    assert network.layers[1].inputs == ("input",)
    assert not total.has_weights


# --- patterns on networks -------------------------------------------------------------------------


def test_first_convolution_1x1_depthwise_and_linear_stay_dense() -> None:
    network = build(
        conv("first"),
        conv("second"),
        conv("small", kernel=1, pad=0),
        {"name": "depth", "kind": "depthwise", "kernel": 5, "pad": 2},
        {"name": "fc", "kind": "linear", "out": 3},
    ).with_pattern("psd4_p8")
    assert [layer.pattern for layer in network.layers] == ["dense", "PSD4_P8"] + ["dense"] * 3
    assert (network.name, network.base, network.pattern) == ("net+PSD4_P8", "net", "PSD4_P8")


def test_grouped_layers_count_slots_over_all_channels() -> None:
    """Group 1 starts at filter 8 and channel 4, so its first kernel has slot 13 mod 8."""
    layer = build(conv(out=16, groups=2, pattern="PSD4_P8"), size=(8, 8, 8)).layers[0]
    dense = [(k, c) for k in range(8) for c in range(4) if (8 + k + 4 + c + 1) % 8 == 0]
    sizes = layer.mask.support_sizes()
    assert [(int(k), int(c)) for k, c in zip(*(sizes[1] == 9).nonzero(), strict=True)] == dense
    assert layer.weights == sizes.sum()


def test_own_patterns() -> None:
    one = build(conv("a", pattern="ps4_p4"), conv("b"))
    assert (one.pattern, one.base) == ("PS4_P4", None)
    assert one.layers[0].pattern == "PS4_P4"
    assert build(conv("a", pattern="pSC4"), conv("b", pattern="pSC2")).pattern == "mixed"
    with pytest.raises(InputErrors, match="layers of 'net' have patterns of their own"):
        one.with_pattern("PSD4_P8")


def test_dense_pattern_changes_nothing() -> None:
    network = load("alexnet")
    assert network.with_pattern("pSC9") is network


def test_random_patterns_differ_between_layers() -> None:
    first, second = load("vgg16").with_pattern("pSC4").layers[-5:-3]
    assert first.shape == second.shape
    assert (first.mask.array() != second.mask.array()).any()


def test_variant_equals_base_with_pattern() -> None:
    variant, made = load("vgg16_ps"), load("vgg16").with_pattern("PSD4_P8")
    assert variant.layers == made.layers
    assert (variant.base, variant.pattern) == (made.base, made.pattern) == ("vgg16", "PSD4_P8")


def test_a_pattern_replaces_that_of_a_variant() -> None:
    again, fresh = (load(name).with_pattern("PS4_P4") for name in ("vgg16_ps", "vgg16"))
    assert (again.name, again.base, again.layers) == (fresh.name, fresh.base, fresh.layers)
    assert load("vgg16_ps").with_pattern("dense").layers == load("vgg16").layers


@pytest.mark.parametrize(
    ("name", "pattern", "text"),
    [
        ("alexnet", "PSD4_P8", "alexnet: layer 'conv2' has a 5x5 kernel; pattern PSD4_P8 is"),
        ("vgg16", "PSD4P8", "no pattern named 'PSD4P8'. Did you mean 'PSD4_P8'?"),
    ],
)
def test_pattern_that_does_not_fit(name: str, pattern: str, text: str) -> None:
    with pytest.raises(InputError, match=re.escape(text)):
        load(name).with_pattern(pattern)


def test_pattern_that_covers_nothing() -> None:
    network = build(conv("first"), conv("small", kernel=1, pad=0))
    with pytest.raises(InputErrors, match="pattern PSD4_P8 covers no layer of 'net'"):
        network.with_pattern("PSD4_P8")


def test_unknown_layer() -> None:
    with pytest.raises(InputError, match=r"has no layer named 'conv1_9'\. Did you mean 'conv1_"):
        load("vgg16").layer("conv1_9")


# --- what the file may not say --------------------------------------------------------------------


def problems_in(path: Path, text: str) -> tuple[Source, tuple[str, ...]]:
    """Read a file, and return (where its fields stand, problems)."""
    path.write_text(text)
    spec, source = load_model(path, NetworkSpec)
    with pytest.raises(InputErrors) as caught:
        build_network(spec, source, load)
    return source, caught.value.problems


HEAD = "name: net\nsource: test\ninput: [3, 8, 8]\nlayers:\n"
ROWS_BEFORE_LAYERS = HEAD.count("\n")

A = "{name: a, kind: conv, out: 4, kernel: 3, pad: 1}"
B = "{name: b, kind: conv, out: 4, kernel: 3, pad: 1}"


@pytest.mark.parametrize(
    ("records", "index", "key", "text"),
    [
        (
            [
                A,
                "{name: b, kind: conv, out: 8, kernel: 3, pad: 1}",
                "{name: s, kind: add, input: [a, b]}",
            ],
            2,
            "input",
            (
                "layer 's': channels, height and width of the operands must be equal, got"
                " 'a' [4, 8, 8], 'b' [8, 8, 8]"
            ),
        ),
        (
            [A, "{name: p, kind: pool, kernel: 2}", "{name: s, kind: add, input: [p, a]}"],
            2,
            "input",
            "got 'p' [4, 4, 4], 'a' [4, 8, 8]",
        ),
        (
            [
                "{name: stem1, kind: conv, out: 4, kernel: 3}",
                "{name: fc, kind: linear, out: 4, input: stem2}",
            ],
            1,
            "input",
            "layer 'fc': reads 'stem2', but there is no such layer. Did you mean 'stem1'?",
        ),
        (
            ["{name: fc, kind: linear, out: 4, input: inptu}"],
            0,
            "input",
            "layer 'fc': reads 'inptu', but there is no such layer. Did you mean 'input'?",
        ),
        (
            [A, "{name: s, kind: add, input: [a]}"],
            1,
            "input",
            "an add needs two or more layers to add",
        ),
        (
            [A, "{name: s, kind: add, input: [a, zzz]}"],
            1,
            "input",
            "layer 's': reads 'zzz', but there is no such layer.",
        ),
        (
            [A, "{name: s, kind: add, input: [a, s]}"],
            1,
            "input",
            "layer 's': reads itself (cycle or forward reference)",
        ),
        (
            ["{name: s, kind: add, input: [input, a]}", A],
            0,
            "input",
            (
                "layer 's': reads the later layer 'a' (cycle or forward reference); only"
                " earlier layers can be read"
            ),
        ),
        ([A, B, A], 2, "name", "layer 'a': there is an earlier layer of the same name"),
        (
            ["{name: input, kind: linear, out: 4}"],
            0,
            "name",
            "layer 'input': a layer can't be named",
        ),
        (
            ["{name: a, kind: conv, out: 4, kernel: 9}"],
            0,
            "kernel",
            "layer 'a': a 9x9 kernel is larger than the padded input 8x8",
        ),
        (
            ["{name: a, kind: conv, out: 4, kernel: [1, 3], dilation: 5, pad: [0, 1]}"],
            0,
            "kernel",
            "a 1x3 kernel (dilated to 1x11) is larger than the padded input 8x10",
        ),
        (
            ["{name: a, kind: depthwise, kernel: 5, dilation: 2}"],
            0,
            "kernel",
            "a 5x5 kernel (dilated to 9x9) is larger than the padded input 8x8",
        ),
        (
            ["{name: a, kind: pool, kernel: [9, 1]}"],
            0,
            "kernel",
            "a 9x1 kernel is larger than the padded input 8x8",
        ),
        (
            ["{name: a, kind: conv, out: 4, kernel: 3, groups: 2}"],
            0,
            "groups",
            "groups: 2 must divide the input channels (3) and the output channels (4)",
        ),
        (
            ["{name: a, kind: conv, out: 4, kernel: 3, groups: 3}"],
            0,
            "groups",
            "groups: 3 must divide the input channels (3) and the output channels (4)",
        ),
        (
            ["{name: a, kind: pool, kernel: global, stride: 2}"],
            0,
            "stride",
            "kernel: global covers the whole input; leave out stride",
        ),
        (
            ["{name: a, kind: pool, kernel: global, pad: 1}"],
            0,
            "pad",
            "kernel: global covers the whole input; leave out pad",
        ),
        (
            ["{name: a, kind: conv, out: 4, kernel: 5, pattern: PSD4_P8}"],
            0,
            "pattern",
            "layer 'a': pattern PSD4_P8 is defined for 3x3 kernels, not 5x5",
        ),
        (
            ["{name: a, kind: depthwise, kernel: 1, pattern: pSC4}"],
            0,
            "pattern",
            "layer 'a': pattern pSC4 is defined for 3x3 kernels, not 1x1",
        ),
        (
            ["{name: a, kind: conv, out: 4, kernel: 3, pattern: PS4P4}"],
            0,
            "pattern",
            "no pattern named 'PS4P4'. Did you mean 'PS4_P4'?",
        ),
    ],
)
def test_layers_that_do_not_fit_together(
    tmp_path: Path, records: list[str], index: int, key: str, text: str
) -> None:
    path = tmp_path / "net.yaml"
    rows = "".join(f"  - {record}\n" for record in records)
    source, (problem,) = problems_in(path, HEAD + rows)
    assert problem.startswith(source.problem(("layers", index, key), ""))
    assert f"net.yaml:{ROWS_BEFORE_LAYERS + index + 1}:" in problem
    assert text in problem


def test_all_problems_at_once_and_none_twice(tmp_path: Path) -> None:
    """The layers behind a wrong one are checked as far as they can be, without an echo of it."""
    rows = (
        "  - {name: a, kind: conv, out: 4, kernel: 9}\n"
        "  - {name: b, kind: conv, out: 4, kernel: 5, groups: 7, pattern: PS4_P4}\n"
        "  - {name: c, kind: add, input: [a, nowhere]}\n"
        "  - {name: a, kind: linear, out: 1, input: input}\n"
        "  - {name: d, kind: conv, out: 4, kernel: 3}\n"
    )
    _, problems = problems_in(tmp_path / "net.yaml", HEAD + rows)
    assert [int(problem.split("net.yaml:")[1].split(":")[0]) for problem in problems] == [
        5,
        6,
        7,
        8,
    ]


@pytest.mark.parametrize(
    ("text", "loc", "expected"),
    [
        ("base: vgg16\npattern: PSD4P8\n", ("pattern",), "no pattern named 'PSD4P8'. Did you mean"),
        ("base: vgg16\n", ("base",), "a variant of 'vgg16' needs a `pattern:`"),
        ("base: vgg61\npattern: PS4_P4\n", ("base",), "no network named 'vgg61'"),
        ("base: net\npattern: PS4_P4\n", ("base",), "network 'net' names itself as its base"),
        (
            "base: vgg16_ps\npattern: PS4_P4\n",
            ("base",),
            (
                "'vgg16_ps' is itself a variant (PSD4_P8 on 'vgg16'); a pattern goes on a dense "
                "network. Did you mean 'vgg16'?"
            ),
        ),
        (
            "base: alexnet\npattern: PS4_P4\n",
            ("pattern",),
            "layer 'conv2' has a 5x5 kernel; pattern PS4_P4 is defined for 3x3 kernels",
        ),
        ("base: mlp\npattern: PS4_P4\n", ("pattern",), "pattern PS4_P4 covers no layer of 'mlp'"),
        ("base: vgg16\npattern: PS4_P4\ninput: [3, 8, 8]\n", ("input",), "leave it out"),
        ("pattern: PS4_P4\n", ("pattern",), "needs either `input:` and `layers:`, or `base:` and"),
        ("input: [3, 8, 8]\nlayers: []\n", ("layers",), "a network needs at least one layer"),
        ("note: empty\n", (), "needs either `input:` and `layers:`, or `base:` and `pattern:`"),
        (
            f"layers:\n  - {A}\n",
            ("layers",),
            "`layers:` need an `input: [channels, height, width]`",
        ),
        (
            f"base: vgg16\ninput: [3, 8, 8]\nlayers:\n  - {A}\n",
            ("base",),
            "either `layers:` or `base:`, not both",
        ),
        (
            f"pattern: PS4_P4\ninput: [3, 8, 8]\nlayers:\n  - {A}\n",
            ("pattern",),
            "a network of its own layers takes `pattern:` in each layer",
        ),
    ],
)
def test_variants_that_can_not_be(
    tmp_path: Path, text: str, loc: tuple[str, ...], expected: str
) -> None:
    def resolve(name: str) -> Network:
        if name == "mlp":
            layers = [conv(), {"name": "fc", "kind": "linear", "out": 2}]
            return build_network(parse(name="mlp", input=[3, 8, 8], layers=layers), None, load)
        if not (NETWORKS / f"{name}.yaml").exists():
            raise InputError(f"no network named {name!r}.")
        return load(name)

    path = tmp_path / "net.yaml"
    path.write_text(f"name: net\nsource: test\n{text}")
    spec, source = load_model(path, NetworkSpec)
    with pytest.raises(InputErrors) as caught:
        build_network(spec, source, resolve)
    (problem,) = caught.value.problems
    assert problem.startswith(source.problem(loc, ""))
    assert expected in problem


def test_problems_of_the_base_keep_their_own_place() -> None:
    def resolve(name: str) -> Network:
        raise InputErrors([f"{name}.yaml:3:1: broken"])

    with pytest.raises(InputErrors, match=r"^other\.yaml:3:1: broken\n1 error$"):
        build_network(parse(base="other", pattern="PS4_P4"), None, resolve)


def test_without_a_file_the_network_and_field_are_named() -> None:
    with pytest.raises(InputErrors, match=r"^net layers\.0\.kernel: layer 'a': a 9x9 kernel"):
        build(conv(kernel=9, pad=0))
    with pytest.raises(InputErrors, match=r"^net: network 'net' needs either"):
        build_network(parse(), None, load)


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ("kind: conv, out: 4, kernel: 0", "kernel: must be >= 1, got 0"),
        ("kind: conv, out: 4, kernel: 1048576", "kernel: must be < 1048576, got 1048576"),
        ("kind: conv, out: 4, kernel: [3, 3, 3]", "kernel: must have at most 2 entries, got 3"),
        ("kind: conv, out: 4, kernel: 3.0", "kernel: must be an integer or a list, got 3.0"),
        ("kind: conv, out: 4, kernel: true", "kernel: must be an integer or a list, got true"),
        ("kind: conv, out: 4, kernel: 3, stride: [1, 0]", "stride.1: must be >= 1, got 0"),
        ("kind: conv, out: 4, kernel: 3, dilation: x", "dilation: must be an integer or a list"),
        ("kind: conv, out: 4, kernel: 3, pad: -1", "pad: must be >= 0, got -1"),
        ("kind: conv, out: 4, kernel: 3, pad: smae", "or 'same', got 'smae'"),
        ("kind: conv, out: 4, kernel: 3, pad: [1, 1, 1]", "pad: must have 2 or 4 entries, got 3"),
        ("kind: conv, out: 0, kernel: 3", "out: must be >= 1, got 0"),
        ("kind: conv, out: 1048576, kernel: 3", "out: must be < 1048576"),
        ("kind: conv, out: 4, kernel: 3, groups: '2'", "groups: must be an integer, got '2'"),
        ("kind: conv, out: 4, kernel: 3, bias: 1", "bias: must be true or false, got 1"),
        ("kind: conv, out: 4, kernel: 3, padd: 1", "padd: unknown field. Did you mean 'pad'?"),
        ("kind: conv, kernel: 3", "missing field 'out'"),
        ("kind: pool, kernel: globl", "or 'global', got 'globl'"),
        ("kind: pool, kernel: 2, mode: mean", "mode: must be one of 'max', 'average', got 'mean'"),
        ("kind: add, input: a", "input: must be a list, got 'a'"),
        ("kind: linear, out: 4, pattern: pSC4", "pattern: unknown field"),
        ("kind: covn", "'softmax', 'shuffle', got 'covn'. Did you mean 'conv'?"),
    ],
)
def test_fields_out_of_range(tmp_path: Path, fields: str, text: str) -> None:
    path = tmp_path / "net.yaml"
    path.write_text(f"{HEAD}  - {A}\n  - {{name: b, {fields}}}\n")
    with pytest.raises(InputErrors) as caught:
        load_model(path, NetworkSpec)
    (problem,) = caught.value.problems
    assert re.match(rf".*net\.yaml:{ROWS_BEFORE_LAYERS + 2}:\d+ layers\.1", problem)
    assert text in problem


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("name: a+b\nsource: s\n", ":1:7 name: must match"),
        ("name: a\nsource: ''\n", ":2:9 source: must not be empty"),
        ("name: a\nsource: s\ninput: [3, 0, 8]\n", ":3:12 input.1: must be >= 1, got 0"),
        ("name: a\nsource: s\ninput: [3, 8]\n", ":3:8 input: must have more entries"),
        ("name: a\n", ": missing field 'source'"),
    ],
)
def test_head_of_a_file(tmp_path: Path, text: str, problem: str) -> None:
    path = tmp_path / "net.yaml"
    path.write_text(text)
    with pytest.raises(InputErrors, match=re.escape(problem)):
        load_model(path, NetworkSpec)


@pytest.mark.parametrize("name", ["alexnet", "resnet18_imagenet", "vgg16_ps"])
def test_a_spec_survives_being_written_and_read(name: str) -> None:
    spec, _ = load_model(NETWORKS / f"{name}.yaml", NetworkSpec)
    again = NetworkSpec.model_validate_json(spec.model_dump_json())
    assert again == spec
    assert build_network(again, None, load) == load(name)


def test_the_schema_explains_every_field() -> None:
    schema = NetworkSpec.model_json_schema()
    for name, part in ({"NetworkSpec": schema} | schema["$defs"]).items():
        for field, properties in part.get("properties", {}).items():
            assert "description" in properties, f"{name}.{field}"


def test_network_is_immutable() -> None:
    network = load("vgg16")
    assert isinstance(network, Network)
    with pytest.raises(AttributeError):
        network.name = "other"
