"""ONNX models: every operator, every opset, the models that onnx ships, and hostile files."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_line import call
from hypothesis import given, settings
from hypothesis import strategies as st

onnx = pytest.importorskip("onnx")

from onnx import TensorProto, helper  # noqa: E402
from onnx.reference import ReferenceEvaluator  # noqa: E402
from onnx_models import counted_macs, model, node, ones, save, shapes_of, tensor  # noqa: E402

from energysim.axes import Dim  # noqa: E402
from energysim.catalog import load_hardware, load_network  # noqa: E402
from energysim.errors import EnergysimError, InputError  # noqa: E402
from energysim.importers.onnx import Imported, import_onnx  # noqa: E402
from energysim.network import Layer  # noqa: E402
from energysim.simulate import simulate  # noqa: E402

LIGHT = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light"


def read(made: Any, folder: Path, **options: Any) -> Imported:
    return import_onnx(save(made, folder), **options)


def only(found: Imported) -> Layer:
    (layer,) = found.network.layers
    return layer


def kinds(found: Imported) -> list[str]:
    return [str(layer.kind) for layer in found.network.layers]


# -- height and width, padding, groups -------------------------------------------------------------


def test_height_and_width_are_never_swapped(tmp_path: Path) -> None:
    made = model([node("Conv", "x w", "y", pads=[0, 3, 0, 3])], [ones("w", 8, 3, 1, 7)])
    layer = only(read(made, tmp_path))
    assert (layer.shape[Dim.R], layer.shape[Dim.S]) == (1, 7)
    assert layer.shape.size == (16, 32)
    assert layer.shape.pad == (0, 3)
    assert layer.output == (8, 16, 32)


def test_all_of_a_window_has_two_sides(tmp_path: Path) -> None:
    made = model(
        [node("Conv", "x w", "y", pads=[1, 2, 3, 4], strides=[1, 2], dilations=[3, 1])],
        [ones("w", 8, 3, 2, 5)],
    )
    layer = only(read(made, tmp_path))
    assert layer.shape.stride == (1, 2)
    assert layer.shape.dilation == (3, 1)
    assert layer.shape.pad == (1, 2)
    assert layer.output == shapes_of(made)["y"][1:] == (8, 17, 17)


@pytest.mark.parametrize("how", ["SAME_UPPER", "SAME_LOWER", "VALID", "NOTSET"])
@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("kernel", [2, 3, 5])
def test_auto_pad(how: str, stride: int, kernel: int, tmp_path: Path) -> None:
    made = model(
        [node("Conv", "x w", "y", auto_pad=how, strides=[stride, 1])],
        [ones("w", 4, 3, kernel, 2)],
        image=(1, 3, 13, 9),
    )
    found = read(made, tmp_path)
    layer = only(found)
    assert layer.output == shapes_of(made)["y"][1:]
    assert found.network.macs == counted_macs(made)
    # An odd number of zeros has its odd one below for UPPER and above for LOWER.
    total = max(0, (layer.output[1] - 1) * stride + kernel - 13) if "SAME" in how else 0
    assert layer.shape.pad[0] == (total // 2 if how != "SAME_LOWER" else total - total // 2)


@pytest.mark.parametrize(
    ("channels", "filters", "groups", "kind", "per_group"),
    [(6, 6, 6, "depthwise", (1, 1)), (6, 12, 6, "conv", (2, 1)), (6, 4, 2, "conv", (2, 3))],
)
def test_groups(
    channels: int, filters: int, groups: int, kind: str, per_group: tuple[int, int], tmp_path: Path
) -> None:
    made = model(
        [node("Conv", "x w b", "y", group=groups)],
        [ones("w", filters, channels // groups, 3, 3), ones("b", filters)],
        image=(1, channels, 9, 8),
    )
    found = read(made, tmp_path)
    layer = only(found)
    assert str(layer.kind) == kind
    assert (layer.shape[Dim.G], layer.shape[Dim.K], layer.shape[Dim.C]) == (groups, *per_group)
    assert found.network.macs == counted_macs(made)
    assert layer.parameters == filters * (channels // groups) * 9 + filters


@pytest.mark.parametrize("rounding", [0, 1])
@pytest.mark.parametrize("op", ["MaxPool", "AveragePool"])
def test_pools_round_as_the_model_does(op: str, rounding: int, tmp_path: Path) -> None:
    made = model(
        [node(op, "x", "y", kernel_shape=[3, 2], strides=[2, 3], ceil_mode=rounding)],
        image=(1, 5, 12, 9),
    )
    layer = only(read(made, tmp_path))
    assert layer.output == shapes_of(made)["y"][1:] == (5, 5 + rounding, 3 + rounding)
    assert str(layer.mode) == op.removesuffix("Pool").lower()


def test_pad_becomes_part_of_the_window_behind_it(tmp_path: Path) -> None:
    made = model(
        [
            node("Pad", "x pads", "p"),
            node("Relu", "p", "r"),
            node("Conv", "r w", "y", pads=[0, 1, 0, 0]),
        ],
        [tensor("pads", np.array([0, 0, 1, 0, 0, 0, 2, 3])), ones("w", 4, 3, 3, 3)],
    )
    layer = only(read(made, tmp_path))
    assert layer.output == shapes_of(made)["y"][1:] == (4, 17, 34)
    assert layer.shape.pad == (1, 1)
    assert layer.shape.size == (16, 32), "the image itself does not grow"


def test_windows_over_one_dim(tmp_path: Path) -> None:
    made = model(
        [node("Conv", "x w", "y", pads=[2, 1], strides=[2]), node("GlobalMaxPool", "y", "z")],
        [ones("w", 8, 4, 5)],
        image=(1, 4, 50),
    )
    found = read(made, tmp_path)
    assert found.network.input_size == (4, 1, 50)
    assert found.network.layers[0].output == (8, 1, 25)
    assert found.network.layers[1].output == (8, 1, 1)
    assert found.network.macs == counted_macs(made)


# -- matrix products -------------------------------------------------------------------------------


@pytest.mark.parametrize("turned", [0, 1])
@pytest.mark.parametrize("op", ["Gemm", "MatMul"])
def test_fully_connected(op: str, turned: int, tmp_path: Path) -> None:
    shape = (10, 1536) if turned else (1536, 10)
    attributes = {"transB": turned} if op == "Gemm" else {}
    nodes = [node("Flatten", "x", "f")]
    nodes += [node("Transpose", "w", "t")] if turned and op == "MatMul" else []
    weights = "t" if turned and op == "MatMul" else "w"
    nodes += [node(op, f"f {weights}", "y", **attributes), node("Add", "y b", "z")]
    made = model(nodes, [ones("w", *shape), ones("b", 10)])
    found = read(made, tmp_path)
    layer = only(found)
    assert str(layer.kind) == "linear"
    assert (layer.shape[Dim.K], layer.shape[Dim.C]) == (10, 1536)
    assert layer.bias
    assert found.network.macs == counted_macs(made) == 15360


def test_a_linear_layer_over_tokens_is_a_1x1_convolution(tmp_path: Path) -> None:
    made = model(
        [node("MatMul", "x w", "a"), node("Add", "a b", "c"), node("Gelu", "c", "d"),
         node("MatMul", "d v", "y")],
        [ones("w", 24, 48), ones("b", 48), ones("v", 48, 24)],
        image=(1, 50, 24), opset=20,
    )  # fmt: skip
    found = read(made, tmp_path)
    assert found.network.input_size == (24, 50, 1)
    assert kinds(found) == ["conv", "conv"]
    assert [layer.output for layer in found.network.layers] == [(48, 50, 1), (24, 50, 1)]
    assert [layer.bias for layer in found.network.layers] == [True, False]
    assert found.network.macs == counted_macs(made)


def test_constants_may_stand_on_the_left(tmp_path: Path) -> None:
    made = model([node("MatMul", "w x", "y")], [ones("w", 7, 4)], image=(1, 4, 50))
    found = read(made, tmp_path)
    assert only(found).output == (7, 1, 50)
    assert found.network.macs == counted_macs(made)


def attention(heads: int = 4, tokens: int = 10, width: int = 32) -> Any:
    split = tensor("split", np.array([1, tokens, heads, width // heads]))
    nodes = []
    for each, order in (("q", [0, 2, 1, 3]), ("k", [0, 2, 3, 1]), ("v", [0, 2, 1, 3])):
        nodes += [
            node("MatMul", f"x w{each}", f"{each}0"),
            node("Reshape", f"{each}0 split", f"{each}1"),
            node("Transpose", f"{each}1", each, perm=order),
        ]
    nodes += [
        node("MatMul", "q k", "s0"),
        node("Mul", "s0 scale", "s1"),
        node("Softmax", "s1", "s", axis=-1),
        node("MatMul", "s v", "o0"),
        node("Transpose", "o0", "o1", perm=[0, 2, 1, 3]),
        node("Reshape", "o1 back", "o"),
        node("MatMul", "o wo", "p"),
        node("Add", "p x", "r"),
        node("LayerNormalization", "r g h", "y"),
    ]
    constants = [ones(f"w{each}", width, width) for each in "qkvo"]
    constants += [split, tensor("back", np.array([1, tokens, width])), ones("g", width)]
    constants += [ones("h", width), tensor("scale", np.float32(0.5))]
    return model(nodes, constants, image=(1, tokens, width))


def test_attention(tmp_path: Path) -> None:
    made = attention()
    found = read(made, tmp_path, strict=True)
    assert kinds(found) == [
        "conv", "conv", "conv", "matmul", "softmax", "matmul", "conv", "add", "layer_norm",
    ]  # fmt: skip
    scores, weighted = (layer for layer in found.network.layers if layer.kind == "matmul")
    assert scores.output == (40, 10, 1)
    assert scores.shape[Dim.G] == weighted.shape[Dim.G] == 4
    assert weighted.output == (32, 10, 1)
    assert found.network.macs == counted_macs(made)


# -- the other operators ---------------------------------------------------------------------------


def test_transposed_convolution(tmp_path: Path) -> None:
    made = model(
        [
            node("ConvTranspose", "x w b", "y", strides=[2, 3]),
            node("BatchNormalization", "y b b b b", "z"),
        ],
        [ones("w", 3, 6, 2, 3), ones("b", 6)],
    )
    found = read(made, tmp_path)
    layer = only(found)
    assert str(layer.kind) == "transposed"
    assert layer.output == shapes_of(made)["y"][1:] == (6, 32, 96)
    assert found.network.macs == counted_macs(made)
    assert layer.parameters == 3 * 6 * 6 + 6 + 12


@pytest.mark.parametrize("groups", [1, 3])
@pytest.mark.parametrize("how", ["NOTSET", "SAME_UPPER"])
def test_transposed_convolution_of_stride_1(groups: int, how: str, tmp_path: Path) -> None:
    kernel = np.zeros((3, 4, 3, 5), dtype=np.float32)
    kernel[2, 1] = 1
    pads = {"pads": [0, 3, 2, 1]} if how == "NOTSET" else {}
    made = model(
        [node("ConvTranspose", "x w", "y", group=groups, auto_pad=how, dilations=[2, 1], **pads)],
        [tensor("w", kernel)],
    )
    found = read(made, tmp_path, weights_sparsity=True)
    layer = only(found)
    filters = 4 * groups
    assert layer.output == shapes_of(made)["y"][1:]
    assert layer.shape[Dim.G] == groups
    assert layer.macs == filters * prod(layer.output[1:]) * 3 // groups * 15
    assert found.masks["convtranspose_y"].shape == (filters, 3 // groups, 3, 5)
    where = (9, 0) if groups == 3 else (1, 2)
    assert found.masks["convtranspose_y"][where].all()
    assert found.masks["convtranspose_y"].sum() == 15
    if how == "NOTSET":
        assert layer.shape.pad == (4, 1)


def test_a_dynamically_quantised_product(tmp_path: Path) -> None:
    made = model(
        [
            node("DynamicQuantizeLinear", "x", "q s z"),
            node("ConvInteger", "q w z", "a"),
            node("Cast", "a", "b", to=TensorProto.FLOAT),
            node("Mul", "b s", "y"),
        ],
        [tensor("w", np.ones((4, 3, 3, 3), np.uint8))],
    )
    found = read(made, tmp_path, strict=True)
    assert kinds(found) == ["conv"]
    assert found.network.macs == counted_macs(made)


def test_images_that_became_channels_are_no_channels(tmp_path: Path) -> None:
    made = model(
        [node("Reshape", "x one", "f"), node("Gemm", "f w", "y")],
        [tensor("one", np.array([1, -1])), ones("w", 2 * 3 * 4 * 5, 6)],
        image=(2, 3, 4, 5),
    )
    with pytest.raises(InputError, match="another layout"):
        read(made, tmp_path)


def test_overlapping_patches_are_told_with_their_macs(tmp_path: Path) -> None:
    made = model(
        [
            node("Conv", "x v", "a"),
            node("ConvTranspose", "a w", "b", strides=[2, 2], pads=[1, 1, 1, 1]),
            node("Conv", "b v2", "y"),
        ],
        [ones("v", 6, 3, 1, 1), ones("w", 6, 4, 4, 4), ones("v2", 5, 4, 1, 1)],
    )
    found = read(made, tmp_path)
    assert kinds(found) == ["conv"]
    lost = 6 * 16 * 32 * 4 * 16
    assert found.network.macs + lost + 5 * 4 * 32 * 64 == counted_macs(made)
    assert found.missing[1].startswith("ConvTranspose x1 ('convtranspose_b'), ")
    assert f"{lost / counted_macs(made):.1%} of the MACs" in found.missing[1]
    assert "reads what is left out" in found.missing[0]


def test_batch_norms_are_folded_where_they_can_be(tmp_path: Path) -> None:
    made = model(
        [
            node("Conv", "x w", "a"),
            node("BatchNormalization", "a s s s s", "b"),
            node("Relu", "b", "c"),
            node("BatchNormalization", "c s s s s", "d"),
            node("Conv", "d v", "e"),
            node("BatchNormalization", "e s s s s", "f"),
            node("Add", "e f", "y"),
        ],
        [ones("w", 8, 3, 3, 3), ones("s", 8), ones("v", 8, 8, 1, 1)],
    )
    found = read(made, tmp_path)
    assert kinds(found) == ["conv", "batch_norm", "conv", "batch_norm", "add"]
    assert [layer.batch_norm for layer in found.network.layers] == [True] + [False] * 4


def test_products_and_sums_of_layers(tmp_path: Path) -> None:
    made = model(
        [
            node("Conv", "x w", "a"),
            node("GlobalAveragePool", "a", "g"),
            node("Conv", "g v", "h"),
            node("Sigmoid", "h", "i"),
            node("Mul", "i a", "j"),
            node("Add", "j a", "k"),
            node("Sum", "k j a", "l"),
            node("Mul", "l k", "y"),
        ],
        [ones("w", 8, 3, 1, 1), ones("v", 8, 8, 1, 1)],
    )
    found = read(made, tmp_path, strict=True)
    assert kinds(found) == ["conv", "pool", "conv", "multiply", "add", "add", "multiply"]
    scaled = found.network.layers[3]
    assert scaled.inputs == ("conv_a", "conv_h"), "what is scaled stands first"
    assert scaled.output == (8, 16, 32)
    assert found.network.layers[5].inputs == ("add_k", "mul_j", "conv_a")


FUSED = [
    "Relu", "LeakyRelu", "Elu", "Selu", "Sigmoid", "HardSigmoid", "HardSwish", "Tanh", "Softplus",
    "Softsign", "ThresholdedRelu", "Mish", "Gelu", "Erf", "Abs", "Neg", "Exp", "Identity",
    "Dropout",
]  # fmt: skip


@pytest.mark.parametrize("op", FUSED)
def test_activations_are_part_of_their_layer(op: str, tmp_path: Path) -> None:
    made = model(
        [node("Conv", "x w", "a"), node(op, "a", "b"), node("Conv", "b v", "y")],
        [ones("w", 8, 3, 1, 1), ones("v", 8, 8, 1, 1)],
        opset=20,
    )
    found = read(made, tmp_path, strict=True)
    assert kinds(found) == ["conv", "conv"]


def test_activations_of_several_nodes(tmp_path: Path) -> None:
    made = model(
        [
            node("Conv", "x w", "a"),
            node("Clip", "a low high", "b"),
            node("PRelu", "b slope", "c"),
            node("Add", "c three", "d"),
            node("Sigmoid", "d", "e"),
            node("Mul", "c e", "f"),
            node("Div", "f three", "g"),
            node("Conv", "g v", "y"),
        ],
        [ones("w", 8, 3, 1, 1), ones("v", 8, 8, 1, 1), ones("slope", 8, 1, 1),
         tensor("low", np.float32(0)), tensor("high", np.float32(6)),
         tensor("three", np.float32(3))],
    )  # fmt: skip
    assert kinds(read(made, tmp_path, strict=True)) == ["conv", "conv"]


def test_a_shuffle_of_channels_moves_nothing(tmp_path: Path) -> None:
    made = model(
        [
            node("Conv", "x w", "a"),
            node("Reshape", "a apart", "b"),
            node("Transpose", "b", "c", perm=[0, 2, 1, 3, 4]),
            node("Reshape", "c together", "d"),
            node("Split", "d", "e f", axis=1),
            node("Conv", "e v", "g"),
            node("Concat", "f g", "h", axis=1),
            node("Slice", "h from to axes", "i"),
            node("Conv", "i u", "y"),
        ],
        [ones("w", 8, 3, 1, 1), tensor("apart", np.array([1, 2, 4, 16, 32])),
         tensor("together", np.array([1, 8, 16, 32])), ones("v", 4, 4, 1, 1),
         tensor("from", np.array([2])), tensor("to", np.array([7])), tensor("axes", np.array([1])),
         ones("u", 2, 5, 1, 1)],
    )  # fmt: skip
    found = read(made, tmp_path, strict=True)
    first, second, third = found.network.layers
    assert (second.inputs, second.channels) == (("conv_a",), 4)
    assert (third.inputs, third.channels) == (("conv_a", "conv_g"), 5)
    assert first.output == (8, 16, 32)
    assert found.network.macs == counted_macs(made)


def test_a_transposed_image_is_not_taken_for_an_upright_one(tmp_path: Path) -> None:
    made = model(
        [
            node("Conv", "x w", "a"),
            node("Transpose", "a", "b", perm=[0, 1, 3, 2]),
            node("Conv", "b v", "y"),
        ],
        [ones("w", 8, 3, 1, 1), ones("v", 4, 8, 3, 1)],
    )
    found = read(made, tmp_path)
    assert kinds(found) == ["conv"]
    assert "another layout" in found.missing[0]


def test_channels_may_stand_last_in_the_image(tmp_path: Path) -> None:
    made = model(
        [node("Transpose", "x", "t", perm=[0, 3, 1, 2]), node("Conv", "t w", "y")],
        [ones("w", 4, 3, 3, 1)],
        image=(1, 16, 32, 3),
    )
    found = read(made, tmp_path)
    assert found.network.input_size == (3, 16, 32)
    assert only(found).output == (4, 14, 32)


@pytest.mark.parametrize("keep", [0, 1])
def test_means_over_the_image_are_global_pools(keep: int, tmp_path: Path) -> None:
    made = model(
        [node("Conv", "x w", "a"), node("ReduceMean", "a", "b", axes=[-1, 2], keepdims=keep),
         node("Flatten", "b", "c"), node("Gemm", "c v", "y")],
        [ones("w", 8, 3, 1, 1), ones("v", 8, 2)],
    )  # fmt: skip
    found = read(made, tmp_path, strict=True)
    assert kinds(found) == ["conv", "pool", "linear"]
    assert found.network.layers[1].shape[Dim.R] == 16
    assert found.network.layers[1].shape[Dim.S] == 32


def quantised() -> Any:
    scale, zero = tensor("s", np.float32(0.1)), tensor("z", np.uint8(3))
    kernel = np.array([0, 3, 5, 3], dtype=np.uint8).reshape(1, 4, 1, 1).repeat(6, axis=0)
    return model(
        [
            node("QuantizeLinear", "x s z", "xq"),
            node("QLinearConv", "xq s z w s z s z b", "a", kernel_shape=[1, 1]),
            node("DequantizeLinear", "a s z", "f"),
            node("DequantizeLinear", "v s z", "vf"),
            node("Conv", "f vf", "g", pads=[1, 1, 1, 1]),
            node("QuantizeLinear", "g s z", "h"),
            node("MaxPool", "h", "i", kernel_shape=[2, 2], strides=[2, 2]),
            node("DequantizeLinear", "i s z", "y"),
        ],
        [scale, zero, tensor("w", kernel), tensor("b", np.zeros(6, dtype=np.int32)),
         tensor("v", np.arange(18 * 6, dtype=np.uint8).reshape(2, 6, 3, 3) % 5)],
        image=(1, 4, 16, 32),
    )  # fmt: skip


def test_quantised_models_are_looked_through(tmp_path: Path) -> None:
    made = quantised()
    found = read(made, tmp_path, strict=True, weights_sparsity=True)
    assert kinds(found) == ["conv", "conv", "pool"]
    assert found.network.layers[0].bias
    assert found.network.macs == counted_macs(made)
    # Zero is what the zero point says.
    assert found.masks["qlinearconv_a"][0, :, 0, 0].tolist() == [True, False, True, False]
    values = np.arange(18 * 6).reshape(2, 6, 3, 3) % 5
    assert (found.masks["conv_g"] == (values != 3)).all()


def test_integer_products(tmp_path: Path) -> None:
    made = model(
        [
            node("ConvInteger", "x w z z", "a"),
            node("Cast", "a", "b", to=TensorProto.UINT8),
            node("Flatten", "b", "c"),
            node("MatMulInteger", "c v", "y"),
        ],
        [tensor("w", np.ones((4, 3, 3, 3), np.uint8)), tensor("z", np.uint8(1)),
         tensor("v", np.ones((4 * 14 * 30, 5), np.uint8))],
        kind=TensorProto.UINT8, out_kind=TensorProto.INT32,
    )  # fmt: skip
    found = read(made, tmp_path, strict=True)
    assert kinds(found) == ["conv", "linear"]
    assert found.network.macs == counted_macs(made)


def test_functions_of_the_model_are_written_out(tmp_path: Path) -> None:
    made = model([node("Conv", "x w", "a")], [ones("w", 4, 3, 1, 1)], output="y")
    twice = helper.make_function(
        "local", "twice", ["i"], ["o"], [node("Relu", "i", "r"), node("Tanh", "r", "o")],
        [helper.make_opsetid("", 17)],
    )  # fmt: skip
    made.graph.node.append(helper.make_node("twice", ["a"], ["y"], domain="local"))
    made.functions.append(twice)
    made.opset_import.append(helper.make_opsetid("local", 1))
    assert kinds(read(made, tmp_path, strict=True)) == ["conv"]


# -- what has no layer -----------------------------------------------------------------------------


def test_what_has_no_layer_is_told_once_with_its_share(tmp_path: Path) -> None:
    made = model(
        [
            node("Conv", "x w", "a"),
            node("LRN", "a", "b", size=3),
            node("LRN", "b", "c", size=3),
            node("Conv", "c v", "y"),
        ],
        [ones("w", 8, 3, 1, 1), ones("v", 4, 8, 1, 1)],
    )
    found = read(made, tmp_path)
    assert kinds(found) == ["conv", "conv"]
    share = 16 / (8 + 8 + 8 + 4)
    assert found.missing == (
        f"LRN x2 ('lrn_b', 'lrn_c'), {share:.1%} of the data: no kind of layer does this",
    )
    with pytest.raises(InputError, match=r"no layer for LRN x2 .*\n1 error"):
        read(made, tmp_path, strict=True)


def test_data_that_a_node_without_layer_makes_are_data_of_their_own(tmp_path: Path) -> None:
    made = model(
        [node("Conv", "x w", "a"), node("LRN", "a", "b", size=3), node("Add", "a b", "y")],
        [ones("w", 8, 3, 1, 1)],
    )
    assert kinds(read(made, tmp_path)) == ["conv", "add"], "not an activation of one layer"


def test_nothing_left_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no layer comes of it: LRN x1"):
        read(model([node("LRN", "x", "y", size=3)]), tmp_path)
    with pytest.raises(InputError, match="only rearrange data"):
        read(model([node("Relu", "x", "y")]), tmp_path)


# -- opsets ----------------------------------------------------------------------------------------


def small(opset: int) -> Any:
    axes = np.array([2, 3])
    squeeze = (
        node("Squeeze", "f axes", "g") if opset >= 13 else node("Squeeze", "f", "g", axes=[2, 3])
    )
    bounds = {"min": 0.0, "max": 6.0}
    clip = node("Clip", "c low high", "d") if opset >= 11 else node("Clip", "c", "d", **bounds)
    return model(
        [
            node("Conv", "x w b", "a", strides=[2, 2], pads=[1, 1, 1, 1]),
            node("BatchNormalization", "a b b b b", "c"),
            clip,
            node("MaxPool", "d", "e", kernel_shape=[2, 2]),
            node("GlobalAveragePool", "e", "f"),
            squeeze,
            node("Gemm", "g v u", "y", transB=1),
        ],
        [ones("w", 8, 3, 3, 3), ones("b", 8), ones("v", 5, 8), ones("u", 5), tensor("axes", axes),
         tensor("low", np.float32(0)), tensor("high", np.float32(6))],
        opset=opset,
    )  # fmt: skip


@pytest.mark.parametrize("opset", range(9, 22))
def test_every_opset(opset: int, tmp_path: Path) -> None:
    made = small(opset)
    found = read(made, tmp_path, strict=True)
    assert kinds(found) == ["conv", "pool", "pool", "linear"]
    assert found.network.macs == counted_macs(made)
    assert found.network.parameters == 8 * 27 + 8 + 16 + 45
    assert f"opset {opset}, producer tests" in found.network.source
    assert (str(found.network.layers[0].activation), found.notes) == ("relu6", ())


@pytest.mark.parametrize("opset", [8, 22])
def test_other_opsets_are_refused(opset: int, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=f"has opset {opset}; allowed: 9 to 21"):
        read(small(opset), tmp_path)


# -- the models that onnx ships --------------------------------------------------------------------

# Parameters: torchvision's model documentation for resnet50 (25,557,032), vgg19 (143,667,240),
# densenet121 (7,978,856) and squeezenet1_1 (1,235,496); bvlc_alexnet 60,965,224 and bvlc_googlenet
# 6,998,552 are the sizes of the Caffe models. MACs: He et al. 2016, table 1, "3.8 x 10^9" for
# ResNet-50 counts its convolutions with stride in the first 1x1; torchvision's v1.5 has 4.09 G;
# VGG-19 19.6 G (Simonyan and Zisserman 2015, table of torchvision), DenseNet-121 2.83 G,
# SqueezeNet 1.1 0.35 G.
PUBLISHED = {
    "resnet50": (25_557_032, 4.09e9),
    "vgg19": (143_667_240, 19.63e9),
    "densenet121": (7_978_856, 2.83e9),
    "squeezenet": (1_235_496, 0.349e9),
    "bvlc_alexnet": (60_965_224, None),
    "inception_v1": (6_998_552, 1.43e9),
}

SHIPPED = sorted(path.stem.removeprefix("light_") for path in LIGHT.glob("light_*.onnx"))


def test_models_are_there() -> None:
    assert set(PUBLISHED) | {"inception_v2", "shufflenet", "zfnet512"} <= set(SHIPPED)


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_models(name: str) -> None:
    path = LIGHT / f"light_{name}.onnx"
    found = import_onnx(path)
    assert found.network.macs == counted_macs(onnx.load(path))
    assert hashlib.sha256(path.read_bytes()).hexdigest() in found.network.source
    if name in PUBLISHED:
        parameters, macs = PUBLISHED[name]
        assert found.network.parameters == parameters
        assert macs is None or found.network.macs == pytest.approx(macs, rel=0.005)


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_models_run(name: str) -> None:
    network = load_network(str(LIGHT / f"light_{name}.onnx"))
    # Which mapping is found is not the question: trip counts that divide are sought faster.
    result = simulate(network, load_hardware("edge_tpu"), perfect=True, uneven=False)
    assert result.total_macs == network.macs
    assert len(result.layer_rows) == len(network.layers)


# -- random chains against the reference evaluator -------------------------------------------------


@st.composite
def chains(draw: st.DrawFn) -> Any:
    """A few convolutions and pools, one behind the other."""
    channels, sides = draw(st.integers(1, 6)), [draw(st.integers(4, 14)) for _ in range(2)]
    image = (1, channels, *sides)
    nodes, constants, tensor_name = [], [], "x"
    for index in range(draw(st.integers(1, 4))):
        kernel = [draw(st.integers(1, min(4, side))) for side in sides]
        stride = [draw(st.integers(1, 3)) for _ in range(2)]
        pads = [draw(st.integers(0, each - 1)) for each in kernel * 2]
        convolves = draw(st.booleans())
        attributes: dict[str, Any] = {"kernel_shape": kernel, "strides": stride, "pads": pads}
        if convolves:
            dilation = [
                draw(st.integers(1, max(1, min(3, (side - 1) // max(1, tap - 1)))))
                for side, tap in zip(sides, kernel, strict=True)
            ]
            groups = draw(st.sampled_from([1, channels]))
            filters = groups * draw(st.integers(1, 3))
            constants.append(ones(f"w{index}", filters, channels // groups, *kernel))
            attributes |= {"dilations": dilation, "group": groups}
            nodes.append(node("Conv", f"{tensor_name} w{index}", f"t{index}", **attributes))
            channels = filters
        else:
            dilation = [1, 1]
            op = draw(st.sampled_from(["MaxPool", "AveragePool"]))
            if op == "MaxPool":  # the evaluator takes its pads in another order than the schema
                pads = attributes["pads"] = [min(pads)] * 4
            nodes.append(node(op, tensor_name, f"t{index}", **attributes))
        tensor_name = f"t{index}"
        sides = [
            (pads[at] + side + pads[at + 2] - (kernel[at] - 1) * dilation[at] - 1) // stride[at] + 1
            for at, side in enumerate(sides)
        ]
    return model(nodes, constants, image=image), image


@settings(max_examples=60, deadline=None)
@given(chains())
def test_sizes_are_those_of_the_reference_evaluator(
    tmp_path_factory: pytest.TempPathFactory, chain: Any
) -> None:
    made, image = chain
    made.graph.output.clear()
    names = [each.output[0] for each in made.graph.node]
    for name in names:
        info = helper.make_tensor_value_info(name, TensorProto.FLOAT, [None] * 4)
        made.graph.output.append(info)
    arrays = ReferenceEvaluator(made).run(None, {"x": np.zeros(image, dtype=np.float32)})
    found = read(made, tmp_path_factory.mktemp("chain"), strict=True)
    assert [(1, *layer.output) for layer in found.network.layers] == [
        array.shape for array in arrays
    ]
    convolved = [
        array for array, each in zip(arrays, made.graph.node, strict=True) if each.op_type == "Conv"
    ]
    assert found.network.macs == sum(
        prod(array.shape) * prod(weights.dims[1:])
        for array, weights in zip(convolved, made.graph.initializer, strict=True)
    )


# -- sizes that the file leaves open ---------------------------------------------------------------


def open_model(*image: Any) -> Any:
    return model(
        [node("Conv", "x w", "a"), node("Reshape", "a flat", "b"), node("Gemm", "b v", "y")],
        [ones("w", 4, 3, 1, 1), tensor("flat", np.array([0, -1])), ones("v", 4 * 16 * 32, 2)],
        image=image,
    )


@pytest.mark.parametrize("first", ["N", None, 1, 6])
def test_layers_are_those_of_one_image(first: Any, tmp_path: Path) -> None:
    for batch in (None, 5):
        found = read(open_model(first, 3, 16, 32), tmp_path, batch=batch)
        assert found.network.macs == 4 * 3 * 16 * 32 + 4 * 16 * 32 * 2
        images = first if isinstance(first, int) else batch or 1
        assert found.notes == (
            (f"the file has {images} images at once; the layers are those of one",)
            if images > 1
            else ()
        )


def test_other_open_sizes_are_asked_for(tmp_path: Path) -> None:
    made = open_model("N", 3, "rows", None)
    with pytest.raises(InputError, match=r"leaves dimension 2 \('rows'\) open.*x=1x3x224x224"):
        read(made, tmp_path)
    found = read(made, tmp_path, sizes={"x": (1, 3, 16, 32)})
    assert found.network.input_size == (3, 16, 32)
    for sizes, words in (
        ({"y": (1, 3, 16, 32)}, "--input-shape y: there is no such input"),
        ({"x": (3, 16, 32)}, "has 4 dimensions, got 3"),
        ({"x": (1, 4, 16, 32)}, "has the size 3 in dimension 1; --input-shape says 4"),
    ):
        with pytest.raises(InputError, match=words):
            read(made, tmp_path, sizes=sizes)


# -- masks -----------------------------------------------------------------------------------------


def pruned() -> Any:
    random = np.random.default_rng(7)
    kernel = random.normal(size=(6, 3, 3, 3)).astype(np.float32)
    kernel[random.random(kernel.shape) < 0.6] = 0
    matrix = random.normal(size=(6, 8)).astype(np.float32)
    matrix[2:4] = 0
    matrix[5] = 0
    return model(
        [
            node("Conv", "x w", "a"),
            node("GlobalAveragePool", "a", "b"),
            node("Flatten", "b", "c"),
            node("MatMul", "c v", "y"),
        ],
        [tensor("w", kernel), tensor("v", matrix)],
    ), kernel, matrix  # fmt: skip


def test_zeros_of_the_weights_are_masks(tmp_path: Path) -> None:
    made, kernel, matrix = pruned()
    path = save(made, tmp_path)
    done = call("import", str(path), "--weights-sparsity", "-o", str(tmp_path / "net.yaml"))
    assert done.status == 0, done.err
    network = load_network(str(tmp_path / "net.yaml"))
    assert network.layer("conv_a").weights == np.count_nonzero(kernel)
    assert network.layer("matmul_y").weights == np.count_nonzero(matrix)
    assert (network.layer("conv_a").mask.array()[0] == (kernel != 0)).all()
    assert (network.layer("matmul_y").mask.array()[0, :, :, 0, 0] == (matrix.T != 0)).all()
    assert "2:4 along the input channels holds in matmul_y" in done.err
    before = (tmp_path / "net.npz").read_bytes()
    call("import", str(path), "--weights-sparsity", "-o", str(tmp_path / "net.yaml"))
    assert (tmp_path / "net.npz").read_bytes() == before


def test_weights_that_are_all_zero_are_no_masks(tmp_path: Path) -> None:
    made = model([node("Conv", "x w", "y")], [tensor("w", np.zeros((4, 3, 1, 1), np.float32))])
    found = read(made, tmp_path, weights_sparsity=True)
    assert not found.masks
    assert "all weights are zero in 1 layers ('conv_y')" in found.notes[0]


def test_weights_beside_the_file(tmp_path: Path) -> None:
    made, kernel, _ = pruned()
    path = tmp_path / "model.onnx"
    onnx.save(made, path, save_as_external_data=True, location="data.bin", size_threshold=0)
    found = import_onnx(path, weights_sparsity=True)
    assert (found.masks["conv_a"] == (kernel != 0)).all()
    (tmp_path / "data.bin").unlink()
    assert import_onnx(path).network.macs == counted_macs(made), "sizes need no data"
    with pytest.raises(InputError, match="the data of its tensor 'w' can't be read"):
        import_onnx(path, weights_sparsity=True)


# -- hostile and broken files ----------------------------------------------------------------------


def cyclic(made: Any) -> None:
    made.graph.node[2].input[0] = "e"


def without_weights(made: Any) -> None:
    del made.graph.initializer[0]


def output_twice(made: Any) -> None:
    made.graph.node[3].output[0] = "c"


def weights_twice(made: Any) -> None:
    made.graph.initializer.append(made.graph.initializer[0])


def custom_domain(made: Any) -> None:
    made.graph.node[1].domain = "com.microsoft"


def no_such_output(made: Any) -> None:
    made.graph.output[0].name = "nowhere"


def huge_image(made: Any) -> None:
    made.graph.input[0].type.tensor_type.shape.dim[3].dim_value = 2**20


def claimed_weights(made: Any) -> None:
    made.graph.initializer[0].dims[0] = 2**30


def long_vector(made: Any) -> None:
    made.graph.initializer[1].dims[0] = 2**31


def other_elements(made: Any) -> None:
    made.graph.node[5].op_type = "Reshape"
    made.graph.node[6].CopyFrom(node("Relu", "g", "y"))


def huge_weights(made: Any) -> None:
    made.graph.initializer[0].dims[0] = 2**50


def many_filters(made: Any) -> None:
    made.graph.initializer[0].CopyFrom(ones("w", 2**20, 3, 1, 1))
    del made.graph.node[1:]
    made.graph.node[0].input.pop()
    made.graph.output[0].name = "a"


def two_images(made: Any) -> None:
    made.graph.input.append(helper.make_tensor_value_info("x2", TensorProto.FLOAT, [8]))
    made.graph.node[1].input[1] = "x2"


def five_dims(made: Any) -> None:
    made.graph.input[0].type.tensor_type.shape.dim.add().dim_value = 4
    del made.graph.node[:]
    made.graph.node.append(node("Relu", "x", "y"))


def other_kernel(made: Any) -> None:
    made.graph.node[0].attribute.append(helper.make_attribute("kernel_shape", [5, 5]))


def negative_size(made: Any) -> None:
    made.graph.input[0].type.tensor_type.shape.dim[2].dim_value = -4


def no_opset(made: Any) -> None:
    del made.opset_import[:]


def other_channels(made: Any) -> None:
    made.graph.input[0].type.tensor_type.shape.dim[1].dim_value = 5


def unknown_operator(made: Any) -> None:
    made.graph.node[3].op_type = "Frobnicate"


def control_flow(made: Any) -> None:
    output = helper.make_tensor_value_info("l", TensorProto.FLOAT, None)
    body = helper.make_graph([node("Relu", "x", "l")], "body", [], [output])
    made.graph.node.insert(0, node("If", "high", "q", then_branch=body, else_branch=body))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (cyclic, "clip_d.*reads the tensor 'e', which MaxPool node 'maxpool_e' makes.*cycle"),
        (without_weights, "Conv node 'conv_a': reads the tensor 'w', which is no input"),
        (output_twice, "makes the tensor 'c', which exists already"),
        (weights_twice, "two initialisers named 'w'"),
        (custom_domain, "the domain 'com.microsoft'; only those of ai.onnx are known"),
        (no_such_output, "nothing makes its output 'nowhere'"),
        (huge_image, r"has the shape \[1, 3, 16, 1048576\]; a network file takes numbers below"),
        (claimed_weights, r"has the shape \[1073741824, 3, 3, 3\] and data for at most 1728 elem"),
        (long_vector, "'b' is a vector of 2147483648 elements"),
        (other_elements, r"Reshape node 'squeeze_g': makes a tensor \[2, 3\] of 8 elements"),
        (huge_weights, r"its tensor 'w' has the shape \[1125899906842624"),
        (many_filters, "out is 1048576; a network file takes numbers below 1048576"),
        (two_images, r"has 2 inputs that its nodes read \('x', 'x2'\)"),
        (five_dims, "has 5 dimensions; allowed: 1 to 4"),
        (other_kernel, r"kernel_shape \[5, 5\], but its weights have \[3, 3\] taps"),
        (negative_size, "has the size -4 in dimension 2"),
        (no_opset, "names no version|ONNX's own checks"),
        (other_channels, "need 3 channels, and its data have 5"),
        (unknown_operator, "ONNX's own checks refuse it: No Op registered for Frobnicate"),
        (control_flow, "If node 'if_q': control flow"),
    ],
)
def test_broken_models_end_in_one_error(
    change: Callable[[Any], None], words: str, tmp_path: Path
) -> None:
    made = small(17)
    change(made)
    path = save(made, tmp_path)
    with pytest.raises(InputError, match=words) as caught:
        import_onnx(path)
    assert str(caught.value).startswith(f"{path}: ")
    done = call("import", str(path), "-o", str(tmp_path / "net.yaml"))
    assert done.status == 2
    assert done.err.startswith("Error: ")
    assert sorted(each.name for each in tmp_path.iterdir()) == ["model.onnx"]


@pytest.mark.parametrize("location", ["/etc/hostname", "../secret", "a/../../secret", "", "link"])
def test_data_outside_the_folder_are_not_read(location: str, tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"\0" * 10_000)
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "link").symlink_to(tmp_path / "secret")
    made = small(17)
    made.graph.initializer[0].ClearField("raw_data")
    made.graph.initializer[0].data_location = TensorProto.EXTERNAL
    entry = made.graph.initializer[0].external_data.add()
    entry.key, entry.value = "location", location
    with pytest.raises(InputError, match=r"'w' are in '.*', which is not in the folder"):
        read(made, folder, weights_sparsity=True)


def test_damaged_files(tmp_path: Path) -> None:
    whole = small(17).SerializeToString()
    path = tmp_path / "model.onnx"
    for end in range(0, len(whole), 37):
        path.write_bytes(whole[:end])
        with pytest.raises(InputError, match=r"model\.onnx: "):
            import_onnx(path)
    for raw in (b"not a model", b"\x89PNG\r\n\x1a\n" + bytes(100), b"name: net\nlayers: []\n"):
        path.write_bytes(raw)
        with pytest.raises(InputError, match="is no ONNX file, or damaged"):
            import_onnx(path)


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_changed_bytes_never_are_a_bug(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    raw = bytearray(small(17).SerializeToString())
    for _ in range(data.draw(st.integers(1, 4))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.mktemp("changed") / "model.onnx"
    path.write_bytes(bytes(raw))
    try:
        found = import_onnx(path, weights_sparsity=True)
    except EnergysimError:
        return
    assert found.network.layers


def test_files_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        import_onnx(tmp_path / "none.onnx")
    with pytest.raises(InputError, match="is a folder"):
        import_onnx(tmp_path)


def test_without_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("energysim.importers.onnx.find_spec", lambda _name: None)
    done = call("import", str(save(small(17), tmp_path)))
    assert done.status == 2
    assert "pip install 'energysim[onnx]'" in done.err


# -- the command -----------------------------------------------------------------------------------


def test_a_network_file_of_its_own(tmp_path: Path) -> None:
    path = save(small(17), tmp_path, "my net.onnx")
    target = tmp_path / "net.yaml"
    done = call("import", str(path), "-o", str(target))
    assert (done.status, done.out, done.err) == (0, "", "")
    text = target.read_text()
    assert text == call("import", str(path)).out
    assert text.splitlines()[0] == "name: my_net"
    assert hashlib.sha256(path.read_bytes()).hexdigest() in text
    records = [line for line in text.splitlines() if line.startswith("  - {name: ")]
    assert len(records) == 4
    again, direct = load_network(str(target)), load_network(str(path))
    assert again == direct == import_onnx(path).network


def test_the_file_tells_what_has_no_layer(tmp_path: Path) -> None:
    path = LIGHT / "light_zfnet512.onnx"
    target = tmp_path / "net.yaml"
    done = call("import", str(path), "-o", str(target))
    assert done.status == 0
    assert done.err.startswith("note: no layer for LRN x2 ('n2', 'n6'), 27.6% of the data")
    assert call("import", str(path), "-q", "-o", str(target)).err == ""
    for net in (target, path):
        run = call("run", "--net", str(net), "--hw", "edge_tpu", "--no-cache")
        assert run.status == 0
        assert "LRN x2" in run.err
    refused = call("import", str(path), "--strict", "-o", str(tmp_path / "other.yaml"))
    assert refused.status == 2
    assert "no layer for LRN x2" in refused.err
    assert not (tmp_path / "other.yaml").exists()


def test_other_commands_take_models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    save(small(17), tmp_path, "net.onnx")
    assert call("check", "net.onnx").out == "net.onnx: ok (network, 4 layers)\n"
    assert "kind: linear" in call("show", "net.onnx").out
    assert call("run", "--net", "net.onnx", "--hw", "edge_tpu", "--no-cache").status == 0
    wrong = call("run", "--net", "net.onnx", "--hw", "net.onnx")
    assert (wrong.status, "describes a network" in wrong.err) == (2, True)


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["--input-shape", "x"], "'x' is no shape. Allowed: image=1x3x224x224"),
        (["--input-shape", "x=1x0"], "'x=1x0' is no shape"),
        (["-o", "net.txt"], "'net.txt' is no .yaml file"),
        (["--weights-sparsity"], "give -o too"),
        (["--batch", "0"], "0 is not in the range"),
    ],
)
def test_usage(args: list[str], words: str, tmp_path: Path) -> None:
    done = call("import", str(save(small(17), tmp_path)), *args)
    assert done.status == 2
    assert words in done.err


def test_masks_are_not_left_alone(tmp_path: Path) -> None:
    made, _, _ = pruned()
    path = save(made, tmp_path)
    (tmp_path / "net.yaml").mkdir()
    done = call("import", str(path), "--weights-sparsity", "-o", str(tmp_path / "net.yaml"))
    assert done.status == 2
    assert not (tmp_path / "net.npz").exists()
