"""Networks narrower, for other images and for other classes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from trainable import ATTENTION, CONVOLUTIONS, JOINED

from energysim.catalog import load_network, names
from energysim.errors import InputError, InputErrors
from energysim.network import LayerKind, Network, Scale
from energysim.network.scale import LEAST_SHARE, MULTIPLE, narrowed

WITHOUT_CLASSES = ("unet", "vit_b_16_block")
"""Bundled networks that give no scores of classes."""

WIDE = """
name: wide
source: a test
input: [3, 8, 8]
layers:
  - {name: conv1, kind: conv, out: 64, kernel: 3, pad: 1}
  - {name: conv2, kind: conv, out: 96, kernel: 3, pad: 1, groups: 4}
  - {name: odd, kind: conv, out: 50, kernel: 1}
  - {name: grown, kind: transposed, out: 24, kernel: 2, stride: 2}
  - {name: depthwise, kind: depthwise, kernel: 3}
  - {name: hidden, kind: linear, out: 128}
  - {name: scores, kind: linear, out: 20}
"""


def load(text: str, folder: Path, scale: Scale) -> Network:
    path = folder / "net.yaml"
    path.write_text(text)
    return load_network(str(path), scale=scale)


def outs(network: Network) -> dict[str, int]:
    return {layer.name: layer.output[0] for layer in network.layers}


# -- numbers of channels ---------------------------------------------------------------------------


@given(st.integers(1, 4096), st.floats(0.01, 4), st.sampled_from([1, 2, 3, 8, 32]))
def test_narrowed(blocks: int, width: float, groups: int) -> None:
    channels = blocks * groups
    found = narrowed(channels, width, groups)
    step = np.lcm(MULTIPLE, groups) if channels % MULTIPLE == 0 else groups
    assert found >= LEAST_SHARE * channels * width
    assert found % step == 0
    assert found <= channels * width + step, "the next multiple, or the one after at the most"
    assert narrowed(channels, 1.0, groups) == channels


@given(st.integers(1, 512), st.floats(0.01, 4), st.floats(0.01, 4))
def test_a_wider_one_has_no_fewer_channels(channels: int, one: float, other: float) -> None:
    low, high = sorted((one, other))
    if high != 1 and low != 1:
        assert narrowed(channels, low) <= narrowed(channels, high)


def test_rounding_of_mobilenets() -> None:
    """The channels of MobileNetV2 with width 0.75 and 0.35 (published code and weights)."""
    full = (32, 16, 24, 32, 64, 96, 160, 320)
    assert [narrowed(each, 0.75) for each in full] == [24, 16, 24, 24, 48, 72, 120, 240]
    assert [narrowed(each, 0.35) for each in full] == [16, 8, 8, 16, 24, 32, 56, 112]


def test_layers_of_a_narrow_network(tmp_path: Path) -> None:
    """All but the last with weights; what has no channels of its own follows."""
    order = ("conv1", "conv2", "odd", "grown", "depthwise", "hidden", "scores")
    sizes = {
        1.0: (64, 96, 50, 24, 24, 128, 20),
        0.25: (16, 24, 13, 8, 8, 32, 20),
        1.5: (96, 144, 75, 40, 40, 192, 20),
    }
    for width, wanted in sizes.items():
        network = load(WIDE, tmp_path, Scale(width))
        assert outs(network) == dict(zip(order, wanted, strict=True))
        assert network.layer("conv2").shape.dims[1] == 4


def test_groups_stay_and_must_divide(tmp_path: Path) -> None:
    many = WIDE.replace("groups: 4", "groups: 32")
    assert load(many, tmp_path, Scale(0.5)).layer("conv2").output[0] == 64
    with pytest.raises(InputErrors, match=r"groups: 32 must divide the input channels \(16\)"):
        load(many, tmp_path, Scale(0.25))


# -- side and classes ------------------------------------------------------------------------------


def test_side_and_classes(tmp_path: Path) -> None:
    network = load(WIDE, tmp_path, Scale(side=12, classes=7))
    assert network.input_size == (3, 12, 12)
    assert network.layers[-1].output == (7, 1, 1)
    assert network.layer("conv1").output == (64, 12, 12)
    oblong = load(CONVOLUTIONS, tmp_path, Scale(side=8))
    assert oblong.input_size == (3, 8, 8)


def test_the_last_layer_with_weights_has_the_classes() -> None:
    """SqueezeNet ends with a convolution and a pool."""
    network = load_network("squeezenet", scale=Scale(0.5, classes=10))
    assert network.layers[-1].kind is LayerKind.POOL
    assert network.layers[-1].output == (10, 1, 1)


def test_too_small_a_side_is_told_where(tmp_path: Path) -> None:
    with pytest.raises(InputErrors, match=r"net.yaml:\d+:\d+ .*larger than the padded input"):
        load(WIDE.replace("kernel: 3}", "kernel: 5}"), tmp_path, Scale(side=2))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"width": 0.0}, "width must be a positive number, got 0.0"),
        ({"width": -1.0}, "width must be a positive number"),
        ({"width": float("nan")}, "width must be a positive number, got nan"),
        ({"width": float("inf")}, "width must be a positive number"),
        ({"side": 0}, "side must be 1 to 1048575, got 0"),
        ({"side": -3}, "side must be 1"),
        ({"classes": 0}, "number of classes must be 1 to 1048575, got 0"),
        ({"classes": 2**20}, "number of classes must be 1"),
    ],
)
def test_scales_that_can_not_be(fields: dict[str, float], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Scale(**fields)


def test_channels_by_number_have_no_meaning_at_another_width(tmp_path: Path) -> None:
    with pytest.raises(InputErrors) as told:
        load(JOINED, tmp_path, Scale(0.5))
    assert [line.split(" reads")[0] for line in told.value.problems] == [
        "joined: layer 'first'",
        "joined: layer 'listed'",
    ]
    assert "Give it a `part:` of them" in str(told.value)
    assert load(JOINED, tmp_path, Scale(side=8)).layer("listed").picked == (5, 0, 8, 2)


def test_parts_and_shuffles_are_scaled(tmp_path: Path) -> None:
    data = yaml.safe_load(JOINED)
    data["layers"] = [each for each in data["layers"] if "channels" not in each]
    for each in data["layers"]:
        if each["name"] == "sum":
            each["input"] = ["right", "left"]
        if each.get("out") == 8:
            each["out"] = 16
    text = yaml.safe_dump(data)
    full, narrow = (load(text, tmp_path, Scale(width)) for width in (1.0, 0.5))
    assert full.layer("left").shape.dims[3] == 2 * narrow.layer("left").shape.dims[3] == 16
    # Channel 1 of what is dealt out is the first one of the other operand.
    assert full.layer("left").picked[:4] == (0, 16, 1, 17)
    assert narrow.layer("left").picked[:4] == (0, 8, 1, 9)


def test_heads_stay(tmp_path: Path) -> None:
    """And their channels get fewer, as long as they divide them."""
    twice = ATTENTION.replace("out: 6,", "out: 16,").replace("out: 8,", "out: 8, activation: none,")
    network = load(twice, tmp_path, Scale(1.0))
    assert network.layer("products").shape.dims[1:4] == (2, 4, 8)
    narrow = load(twice.replace("[products, places]", "[products, products]"), tmp_path, Scale(0.5))
    assert narrow.layer("products").shape.dims[1:4] == (2, 4, 4)


# -- names, variants, masks ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("scale", "name"),
    [
        (Scale(), "vgg16"),
        (Scale(0.25), "vgg16-x0.25"),
        (Scale(side=32, classes=10), "vgg16"),
        (Scale(side=64), "vgg16-64px"),
        (Scale(classes=100), "vgg16-c100"),
        (Scale(0.125, 64, 200), "vgg16-x0.125-64px-c200"),
    ],
)
def test_names_say_what_differs(scale: Scale, name: str) -> None:
    assert load_network("vgg16", scale=scale).name == name
    sparse = load_network("vgg16_ps", scale=scale)
    assert sparse.name == name.replace("vgg16", "vgg16_ps")
    assert sparse.base == name
    laid = load_network("vgg16", scale=scale, pattern="PS4_P4")
    assert laid.name == f"{name}+PS4_P4"


def test_a_variant_keeps_its_pattern() -> None:
    full, narrow = (load_network("vgg16_ps", scale=Scale(width)) for width in (1.0, 0.25))
    dense = load_network("vgg16", scale=Scale(0.25))
    assert narrow.pattern == full.pattern != "dense"
    assert [layer.pattern for layer in narrow.layers] == [layer.pattern for layer in full.layers]
    assert outs(narrow) == outs(dense)
    assert narrow.layers == dense.with_pattern(full.pattern).layers
    assert narrow.parameters < dense.parameters < full.parameters


def test_masks_of_another_size_are_refused(tmp_path: Path) -> None:
    base = tmp_path / "wide.yaml"
    base.write_text(WIDE)
    mask = np.random.default_rng(0).random((96, 16, 3, 3)) < 0.5
    np.savez(tmp_path / "masks.npz", conv2=mask)
    path = tmp_path / "pruned.yaml"
    path.write_text("name: pruned\nsource: a test\nbase: wide\nmasks: masks.npz\n")
    for scale in (Scale(), Scale(side=16, classes=3)):
        assert load_network(str(path), scale=scale).layer("conv2").weights == mask.sum()
    with pytest.raises(InputErrors, match=r"pruned\.yaml:\d+.*masks.npz: layer 'conv2': .*24"):
        load_network(str(path), scale=Scale(0.25))


# -- every bundled network -------------------------------------------------------------------------


@pytest.mark.parametrize("name", [name for name in names("nets") if name not in WITHOUT_CLASSES])
def test_every_bundled_network(name: str) -> None:
    full = load_network(name)
    assert load_network(name, scale=Scale()) == full
    parameters = [full.parameters]
    for width in (0.5, 0.25):
        network = load_network(name, scale=Scale(width, classes=10))
        assert network.layers[-1].output == (10, 1, 1)
        assert network.input_size == full.input_size
        assert [layer.name for layer in network.layers] == [layer.name for layer in full.layers]
        kinds = [(layer.kind, layer.pattern, layer.activation) for layer in network.layers]
        assert kinds == [(layer.kind, layer.pattern, layer.activation) for layer in full.layers]
        for thin, wide in zip(network.layers[:-1], full.layers[:-1], strict=True):
            if thin.kind is LayerKind.CONV and wide.output[1:] == thin.output[1:]:
                assert (
                    thin.output[0] >= LEAST_SHARE * width * wide.output[0] or thin.output[0] == 10
                )
        parameters.append(network.parameters)
    assert parameters == sorted(parameters, reverse=True)
    assert parameters[0] > 2 * parameters[2]


def test_a_network_of_pixels_gets_narrower_too() -> None:
    full, half = (load_network("unet", scale=Scale(width)) for width in (1.0, 0.5))
    assert half.name == "unet-x0.5"
    assert half.layers[-1].output == full.layers[-1].output
    assert full.parameters / 4.2 < half.parameters < full.parameters / 3.8


def test_what_is_added_to_the_image_can_not_get_narrower() -> None:
    """The channels of what enters a network are not the network's."""
    with pytest.raises(InputErrors, match=r"vit_b_16_block.yaml:\d+.*'add1'.*\[384, 197, 1\]"):
        load_network("vit_b_16_block", scale=Scale(0.5))
