"""Activation functions: where they stand in a network that says little, and in the bundled ones."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

import energysim as es
from energysim.cli.describe import network_yaml
from energysim.errors import InputErrors
from energysim.network import Activation, LayerKind, Network, NetworkSpec, build_network

NONE, RELU, RELU6 = Activation.NONE, Activation.RELU, Activation.RELU6
SIGMOID, SWISH, GELU = Activation.SIGMOID, Activation.SWISH, Activation.GELU


def build(*records: dict[str, Any], **fields: Any) -> Network:
    data = {"name": "net", "source": "a test", "input": (4, 8, 8), "layers": records} | fields
    return build_network(NetworkSpec.model_validate_json(json.dumps(data)), None, es.load_network)


def layer(kind: str, name: str, **fields: Any) -> dict[str, Any]:
    if kind == "conv":
        fields = {"out": 4, "kernel": 1} | fields
    return {"name": name, "kind": kind} | fields


def found(network: Network) -> dict[str, Activation]:
    return {each.name: each.activation for each in network.layers}


# --- what is usual --------------------------------------------------------------------------------

EVERY = (
    layer("conv", "conv"),
    layer("depthwise", "depthwise", kernel=3, pad=1),
    layer("transposed", "transposed", out=4, kernel=1, stride=1),
    layer("batch_norm", "batch_norm"),
    layer("layer_norm", "layer_norm"),
    layer("softmax", "softmax"),
    layer("add", "add", input=["conv", "softmax"]),
    layer("multiply", "multiply", input=["add", "conv"]),
    layer("matmul", "matmul", input=["multiply", "add"], over="channels"),
    layer("pool", "pool", kernel=2, input="multiply"),
    layer("linear", "linear", out=3),
    layer("linear", "last", out=3),
)
USUALLY = {"conv", "depthwise", "transposed", "batch_norm", "add", "linear"}


@pytest.mark.parametrize(
    ("fields", "own"), [({}, RELU), *(({"activation": str(each)}, each) for each in Activation)]
)
def test_which_kinds_have_that_of_the_network(fields: dict[str, str], own: Activation) -> None:
    network = build(*EVERY, **fields)
    assert found(network) == {
        each.name: own if each.name in USUALLY else NONE for each in network.layers
    }


def test_outputs_have_none() -> None:
    """Two layers that nobody reads, one in the middle."""
    network = build(layer("conv", "a"), layer("conv", "b"), layer("conv", "c", input="a"))
    assert found(network) == {"a": RELU, "b": NONE, "c": NONE}


def test_what_only_adds_read_has_none() -> None:
    network = build(
        layer("conv", "stem"),
        layer("conv", "a"),
        layer("conv", "b"),
        layer("conv", "shortcut", input="stem"),
        layer("add", "sum", input=["b", "shortcut"]),
        layer("add", "again", input=["sum", "stem"]),
        layer("conv", "out"),
    )
    none = {"b", "shortcut", "sum", "out"}
    assert found(network) == {
        each.name: NONE if each.name in none else RELU for each in network.layers
    }


def test_what_a_shuffle_passes_on_has_readers() -> None:
    """A shuffle reads nothing itself: who reads it counts, for those whose channels are read."""
    shuffle = {"name": "s", "kind": "shuffle", "input": ["a", "b"], "groups": 1}
    network = build(
        layer("conv", "a"), layer("conv", "b"), shuffle, layer("conv", "c", part=[2, 2])
    )
    assert found(network) == {"a": RELU, "b": RELU, "c": NONE}
    network = build(
        layer("conv", "a"),
        layer("conv", "b", input="input"),
        shuffle,
        layer("conv", "c", part=[2, 2]),
    )
    assert found(network) == {"a": NONE, "b": RELU, "c": NONE}


def test_what_a_layer_says_holds() -> None:
    given = {
        name: str(each)
        for name, each in {
            "conv": GELU, "depthwise": NONE, "transposed": SIGMOID, "batch_norm": RELU6,
            "layer_norm": SWISH, "add": NONE, "multiply": RELU, "linear": SIGMOID, "last": SWISH,
        }.items()
    }  # fmt: skip
    records = [each | ({"activation": given[each["name"]]} if each["name"] in given else {})
               for each in EVERY]  # fmt: skip
    network = build(*records, activation="gelu")
    assert found(network) == {each.name: given.get(each.name, "none") for each in network.layers}


@pytest.mark.parametrize("own", list(Activation))
def test_activations_are_shown_as_they_are_read(own: Activation, tmp_path: Path) -> None:
    network = build(*EVERY[:3], EVERY[4] | {"activation": "relu6"}, *EVERY[5:], activation=str(own))
    path = tmp_path / "net.yaml"
    path.write_text(network_yaml(network))
    assert es.load_network(str(path)).layers == network.layers
    said = re.findall(r"^activation: (\w+)", path.read_text(), re.MULTILINE)
    assert said == ([] if own is RELU else [own])


def test_variants_keep_them() -> None:
    dense = es.load_network("resnet18")
    for variant in (es.load_network("resnet18_ps"), dense.with_pattern("PS2_P6")):
        assert found(variant) == found(dense)
    masked = dense.with_masks({"conv1": [True, False, True]})
    assert found(masked) == found(dense)
    assert masked.layer("conv1").weights < dense.layer("conv1").weights


def test_costs_do_not_depend_on_them() -> None:
    plain, other = build(*EVERY[:5]), build(*EVERY[:5], activation="gelu")
    assert plain.layers != other.layers
    chip = es.load_hardware("edge_tpu")
    results = [es.simulate(each, chip) for each in (plain, other)]
    assert results[0].to_json() == results[1].to_json()
    assert results[0].settings() == results[1].settings()


# --- the networks that come along -----------------------------------------------------------------

# Layers of each kind and activation function, where not all layers have what is usual. From the
# code that each file names: github.com/pytorch/vision torchvision/models (ImageNet forms),
# kuangliu/pytorch-cifar, ksouvik52/Pre-defined-sparseCNN, mateuszbuda/brain-segmentation-pytorch.
BUNDLED = {
    "vgg16": "conv relu 13, pool none 5, linear none 1",
    "vgg19": "conv relu 16, pool none 5, linear relu 2, linear none 1",
    "alexnet": "conv relu 5, pool none 3, linear relu 2, linear none 1",
    "googlenet": "conv relu 57, pool none 14, linear none 1",
    "squeezenet": "conv relu 26, pool none 4",
    "resnet20": "conv relu 10, conv none 11, add relu 9, pool none 1, linear none 1",
    "resnet50": "conv relu 33, conv none 20, add relu 16, pool none 2, linear none 1",
    "mobilenet_v1": "conv relu6 14, depthwise relu6 13, pool none 1, linear none 1",
    "mobilenet_v2": "conv relu 19, depthwise relu 17, conv none 21, add none 14, pool none 1,"
    " linear none 1",
    "mobilenet_v2_imagenet": "conv relu6 18, depthwise relu6 17, conv none 17, add none 10,"
    " pool none 1, linear none 1",
    "shufflenet_v2": "conv relu 37, depthwise none 19, pool none 1, linear none 1",
    "shufflenet_v2_x1_0_imagenet": "conv relu 37, depthwise none 19, pool none 2, linear none 1",
    "densenet121": "conv relu 59, conv none 61, batch_norm relu 62, pool none 5, linear none 1",
    "efficientnet_b0": "conv swish 33, depthwise swish 16, conv sigmoid 16, conv none 16,"
    " multiply none 16, add none 9, pool none 17, linear none 1",
    "unet": "conv relu 18, transposed none 4, conv sigmoid 1, pool none 4",
    "vit_b_16_block": "conv gelu 1, conv none 5, layer_norm none 2, matmul none 2, softmax none 1,"
    " add none 2",
    "digits_cnn": "conv relu 4, pool none 2, linear none 1",
}  # fmt: skip


@pytest.mark.parametrize("name", BUNDLED)
def test_activations_of_the_bundled_networks(name: str) -> None:
    counted = Counter(f"{each.kind} {each.activation}" for each in es.load_network(name).layers)
    assert sorted(f"{key} {count}" for key, count in counted.items()) == sorted(
        each.strip() for each in BUNDLED[name].split(",")
    )


@pytest.mark.parametrize(
    ("name", "suffixes"),
    [
        ("resnet50", {"conv1": RELU, "conv2": RELU, "conv3": NONE, "add": RELU}),
        ("resnet18", {"conv1": RELU, "conv2": NONE, "downsample": NONE, "add": RELU}),
        ("mobilenet_v2", {"conv3": NONE, "shortcut": NONE, "add": NONE}),
        (
            "mobilenet_v2_imagenet",
            {"expand": RELU6, "dw": RELU6, "project": NONE, "add": NONE, "conv2": RELU6},
        ),
        (
            "shufflenet_v2_x1_5_imagenet",
            {"dw": NONE, "pw": RELU, "pw1": RELU, "pw2": RELU, "conv1": RELU, "conv5": RELU},
        ),
        ("densenet121", {"norm1": RELU, "conv1": RELU, "conv2": NONE, "norm": RELU, "conv": NONE,
                         "conv0": RELU, "norm5": RELU}),
        (
            "efficientnet_b0",
            {"stem": SWISH, "expand": SWISH, "dw": SWISH, "reduce": SWISH, "excite": SIGMOID,
             "scale": NONE, "project": NONE, "add": NONE, "head": SWISH, "classifier": NONE},
        ),
        ("unet", {"conv1": RELU, "conv2": RELU, "upconv1": NONE, "upconv4": NONE, "conv": SIGMOID}),
        ("vit_b_16_block", {"mlp1": GELU, "mlp2": NONE, "project": NONE, "add2": NONE}),
        ("squeezenet", {"squeeze": RELU, "expand1x1": RELU, "expand3x3": RELU, "conv10": RELU}),
    ],
)  # fmt: skip
def test_activations_by_the_last_part_of_the_name(
    name: str, suffixes: dict[str, Activation]
) -> None:
    layers = es.load_network(name).layers
    for suffix, activation in suffixes.items():
        own = {each.activation for each in layers if each.name.rsplit(".", 1)[-1] == suffix}
        assert own == {activation}, suffix


def test_digits_cnn() -> None:
    """Weights by hand: 9 (1*16 + 16*16 + 16*32 + 32*32), 2 for each of 96 norms, 32*10 + 10."""
    network = es.load_network("digits_cnn")
    assert network.parameters == 9 * (16 + 256 + 512 + 1024) + 2 * 96 + 330 == 16_794
    assert network.macs == 9 * ((16 + 256) * 64 + (512 + 1024) * 16) + 320 == 378_176
    assert network.input_size == (1, 8, 8)
    assert [each.kind for each in network.layers[-2:]] == [LayerKind.POOL, LayerKind.LINEAR]


# --- mistakes -------------------------------------------------------------------------------------

WORDS = "must be one of 'none', 'relu', 'relu6', 'sigmoid', 'swish', 'gelu', got "

MISTAKES = [
    (
        "activation: relu7\n",
        "kind: softmax",
        rf":4:\d+ activation: {WORDS}'relu7'. Did you mean 'relu'?",
    ),
    (
        "",
        "kind: batch_norm, activation: sigmod",
        f"activation: {WORDS}'sigmod'. Did you mean 'sigmoid'?",
    ),
    (
        "",
        "kind: batch_norm, activaton: relu",
        "activaton: unknown field. Did you mean 'activation'?",
    ),
    ("", "kind: softmax, activation: relu", "activation: unknown field"),
    ("", "kind: pool, kernel: 2, activation: relu", "activation: unknown field"),
    ("", "kind: shuffle, groups: 1, activation: relu", "activation: unknown field"),
    (
        "",
        "kind: matmul, input: [a, a], over: channels, activation: relu",
        "activation: unknown field",
    ),
]


@pytest.mark.parametrize(("head", "record", "text"), MISTAKES)
def test_mistakes(tmp_path: Path, head: str, record: str, text: str) -> None:
    path = tmp_path / "net.yaml"
    path.write_text(
        f"name: net\nsource: a test\ninput: [3, 8, 8]\n{head}layers:\n"
        f"  - {{name: a, kind: conv, out: 4, kernel: 1}}\n  - {{name: b, {record}}}\n"
    )
    with pytest.raises(InputErrors) as caught:
        es.load_network(str(path))
    (problem,) = caught.value.problems
    assert re.search(text.replace("?", r"\?"), problem), problem


def test_a_variant_has_that_of_its_base(tmp_path: Path) -> None:
    path = tmp_path / "net.yaml"
    path.write_text("name: net\nsource: x\nbase: vgg16\npattern: PS4_P4\nactivation: gelu\n")
    with pytest.raises(InputErrors, match="a variant has the activation of its base 'vgg16'"):
        es.load_network(str(path))
