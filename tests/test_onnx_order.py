"""What imported layers say beside their sizes: activation functions, and which channels they read.

Both against ONNX's reference evaluator: functions by their values, channels by numbers that biases
put into them.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

onnx = pytest.importorskip("onnx")

from onnx import TensorProto, helper  # noqa: E402
from onnx.reference import ReferenceEvaluator  # noqa: E402
from onnx_models import model, node, ones, save, tensor  # noqa: E402

from energysim.catalog import load_network  # noqa: E402
from energysim.cli.describe import network_yaml  # noqa: E402
from energysim.importers.onnx import Imported, import_onnx  # noqa: E402
from energysim.network import Layer, Network  # noqa: E402

LIGHT = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light"
WEIGHTS = [ones("w", 8, 3, 1, 1), ones("v", 8, 8, 1, 1)]
NUMBERS = [
    tensor(name, np.float32(value))
    for name, value in {
        "zero": 0, "half": 0.5, "one": 1, "root2": 2**0.5, "six": 6, "three": 3, "sixth": 1 / 6,
        "more": 1.702, "cubic": 0.044715, "tanhs": (2 / np.pi) ** 0.5,
    }.items()
]  # fmt: skip


def read(made: Any, folder: Path) -> Imported:
    """Import a model; the file that is written of it must build the same layers."""
    found = import_onnx(save(made, folder), strict=True)
    path = folder / "again.yaml"
    path.write_text(network_yaml(found.network))
    assert load_network(str(path)).layers == found.network.layers
    return found


def behind_a_convolution(folder: Path, *nodes: Any, opset: int = 20, last: str = "r") -> Imported:
    """A convolution ``a``, nodes that make ``r`` of it, and a second convolution."""
    made = model(
        [node("Conv", "x w", "a"), *nodes, node("Conv", f"{last} v", "y")],
        [*WEIGHTS, *NUMBERS],
        opset=opset,
    )
    return read(made, folder)


def activations(found: Imported) -> list[str]:
    return [str(layer.activation) for layer in found.network.layers]


# -- which function --------------------------------------------------------------------------------

SEVERAL = {
    "relu": [node("Relu", "a", "r")],
    "relu by clip": [node("Clip", "a zero", "r")],
    "relu by max": [node("Max", "a zero", "r")],
    "relu6": [node("Clip", "a zero six", "r")],
    "relu6 of relu": [node("Relu", "a", "b"), node("Clip", "b _ six", "r")],
    "sigmoid": [node("Sigmoid", "a", "r")],
    "swish": [node("Sigmoid", "a", "b"), node("Mul", "a b", "r")],
    "swish turned": [node("Sigmoid", "a", "b"), node("Mul", "b a", "r")],
    "gelu": [node("Gelu", "a", "r")],
    "gelu by tanh": [node("Gelu", "a", "r", approximate="tanh")],
    "gelu by erf": [
        node("Div", "a root2", "b"), node("Erf", "b", "c"), node("Add", "c one", "d"),
        node("Mul", "a d", "e"), node("Mul", "e half", "r"),
    ],
    "gelu by erf, half first": [
        node("Mul", "a half", "b"), node("Div", "a root2", "c"), node("Erf", "c", "d"),
        node("Add", "d one", "e"), node("Mul", "b e", "r"),
    ],
    "gelu by powers": [
        node("Pow", "a three", "b"), node("Mul", "b cubic", "c"), node("Add", "a c", "d"),
        node("Mul", "d tanhs", "e"), node("Tanh", "e", "f"), node("Add", "f one", "g"),
        node("Mul", "a g", "h"), node("Mul", "h half", "r"),
    ],
    "none by identity": [node("Identity", "a", "r")],
    "none by halves": [node("Mul", "a half", "b"), node("Div", "b half", "r")],
}  # fmt: skip


@pytest.mark.parametrize("name", SEVERAL)
def test_functions_by_their_values(name: str, tmp_path: Path) -> None:
    found = behind_a_convolution(tmp_path, *SEVERAL[name])
    assert activations(found) == [name.split(maxsplit=1)[0], "none"]
    assert found.notes == ()


UNKNOWN = {
    "HardSwish": [node("HardSwish", "a", "r")],
    "LeakyRelu": [node("LeakyRelu", "a", "r")],
    "Tanh": [node("Tanh", "a", "r")],
    "Mul Sigmoid Mul": [
        node("Mul", "a more", "b"), node("Sigmoid", "b", "c"), node("Mul", "a c", "r")
    ],
    "Add Clip Mul Mul": [
        node("Add", "a three", "b"), node("Clip", "b zero six", "c"), node("Mul", "a c", "d"),
        node("Mul", "d sixth", "r"),
    ],
    "Relu Mul": [node("Relu", "a", "b"), node("Mul", "b half", "r")],
}  # fmt: skip


@pytest.mark.parametrize("name", UNKNOWN)
def test_functions_without_a_name_are_told(name: str, tmp_path: Path) -> None:
    found = behind_a_convolution(tmp_path, *UNKNOWN[name])
    assert activations(found) == ["none", "none"]
    (note,) = found.notes
    assert note.startswith(f"{name} behind 'conv_a': no activation function that a network file")


def test_a_function_of_its_own_for_every_channel_is_none(tmp_path: Path) -> None:
    made = model(
        [node("Conv", "x w", "a"), node("PRelu", "a slope", "r"), node("Conv", "r v", "y")],
        [*WEIGHTS, ones("slope", 8, 1, 1)],
    )
    (note,) = read(made, tmp_path).notes
    assert note.startswith("PRelu behind 'conv_a'")


@pytest.mark.parametrize("opset", [9, 10, 11, 13])
def test_clip_of_every_opset(opset: int, tmp_path: Path) -> None:
    clip = (
        node("Clip", "a zero six", "r") if opset > 10 else node("Clip", "a", "r", min=0.0, max=6.0)
    )
    assert activations(behind_a_convolution(tmp_path, clip, opset=opset)) == ["relu6", "none"]


# -- which layer -----------------------------------------------------------------------------------


def test_the_usual_places(tmp_path: Path) -> None:
    """After a batch norm, a sum, a linear layer behind a reshape, and at the output."""
    made = model(
        [
            node("Conv", "x w", "a"),
            node("BatchNormalization", "a b b b b", "c"),
            node("Relu", "c", "d"),
            node("Conv", "d v", "e"),
            node("Add", "e d", "f"),
            node("Relu", "f", "g"),
            node("GlobalAveragePool", "g", "h"),
            node("Flatten", "h", "i"),
            node("Gemm", "i u", "j", transB=1),
            node("Reshape", "j shape", "k"),
            node("Relu", "k", "l"),
            node("MatMul", "l t", "m"),
            node("Add", "m bias", "n"),
            node("Sigmoid", "n", "y"),
        ],
        [*WEIGHTS, ones("b", 8), ones("u", 5, 8), tensor("shape", np.array([1, 5])),
         ones("t", 5, 2), ones("bias", 2)],
    )  # fmt: skip
    found = read(made, tmp_path)
    assert [(str(layer.kind), str(layer.activation)) for layer in found.network.layers] == [
        ("conv", "relu"), ("conv", "none"), ("add", "relu"), ("pool", "none"), ("linear", "relu"),
        ("linear", "sigmoid"),
    ]  # fmt: skip
    assert found.notes == ()


def test_scales_of_a_norm_are_part_of_it(tmp_path: Path) -> None:
    """As Caffe writes it: a norm, then factor and shift of each channel as layers of their own."""
    made = model(
        [
            node("Conv", "x w", "a"),
            node("BatchNormalization", "a b b b b", "c"),
            node("Mul", "c scale", "d"),
            node("Add", "d scale", "e"),
            node("Relu", "e", "f"),
            node("Conv", "f v", "y"),
        ],
        [*WEIGHTS, ones("b", 8), ones("scale", 8, 1, 1)],
    )
    found = read(made, tmp_path)
    assert (activations(found), found.notes) == (["relu", "none"], ())


def test_what_is_read_without_it_too_has_none(tmp_path: Path) -> None:
    made = model(
        [
            node("Conv", "x w", "a"),
            node("Relu", "a", "b"),
            node("Conv", "b v", "c"),
            node("Add", "a c", "y"),
        ],
        WEIGHTS,
    )
    found = read(made, tmp_path)
    assert activations(found) == ["none", "none", "none"]
    (note,) = found.notes
    assert note == (
        "'conv_a': read with an activation function and without it, so that it is left out of the"
        " layers, which no count depends on"
    )


def test_what_is_an_output_without_it_too_has_none(tmp_path: Path) -> None:
    made = model([node("Conv", "x w", "a"), node("Relu", "a", "y")], WEIGHTS)
    info = helper.make_tensor_value_info("a", TensorProto.FLOAT, [1, 8, 16, 32])
    made.graph.output.append(info)
    found = read(made, tmp_path)
    assert activations(found) == ["none"]
    assert "read with an activation function and without it" in found.notes[0]


def test_two_readers_behind_it_are_both_served(tmp_path: Path) -> None:
    made = model(
        [
            node("Conv", "x w", "a"),
            node("Relu", "a", "b"),
            node("Conv", "b v", "c"),
            node("Relu", "a", "d"),
            node("Add", "d c", "y"),
        ],
        WEIGHTS,
    )
    found = read(made, tmp_path)
    assert (activations(found), found.notes) == (["relu", "none", "none"], ())


@pytest.mark.parametrize(
    ("nodes", "place"),
    [
        ([node("MaxPool", "a", "b", kernel_shape=[2, 2]), node("Relu", "b", "r")], "maxpool_b"),
        ([node("Concat", "a a", "b", axis=1), node("Relu", "b", "c"),
          node("Split", "c", "r s", axis=1)], "relu_c"),
    ],
)  # fmt: skip
def test_places_where_no_layer_has_one(nodes: list[Any], place: str, tmp_path: Path) -> None:
    found = behind_a_convolution(tmp_path, *nodes, opset=17)
    assert set(activations(found)) == {"none"}
    assert found.notes[-1] == (
        f"activation functions at '{place}', where no layer has one: left out of the layers, which"
        " no count depends on"
    )


def test_many_places_are_told_with_their_number(tmp_path: Path) -> None:
    nodes = [node("Conv", "x w", "t0")]
    for index in range(5):
        nodes += [
            node("Tanh", f"t{index}", f"u{index}"),
            node("Conv", f"u{index} v", f"t{index + 1}"),
        ]
    (note,) = read(model(nodes, WEIGHTS), tmp_path).notes
    assert note.startswith("Tanh behind 'conv_t0', 'conv_t1', 'conv_t2', ... (5 in all): no ")


# -- models that onnx ships ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "ours"),
    [("vgg19", "vgg19"), ("resnet50", "resnet50"), ("densenet121", "densenet121"),
     ("inception_v1", "googlenet"), ("bvlc_alexnet", "alexnet")],
)  # fmt: skip
def test_shipped_models_have_the_functions_of_the_bundled_networks(name: str, ours: str) -> None:
    """In the order of computation, of all layers that can have one."""

    def counted(network: Network, *kinds: str) -> list[int]:
        return [sum((str(layer.kind), str(layer.activation)) == (kind, function)
                    for layer in network.layers)
                for kind in kinds for function in ("none", "relu")]  # fmt: skip

    found = import_onnx(LIGHT / f"light_{name}.onnx")
    kinds = ("conv", "linear", "add", "batch_norm")
    expected = counted(load_network(ours), *kinds)
    if name == "densenet121":  # its classifier is a 1x1 convolution
        expected[0], expected[2] = expected[0] + 1, 0
    assert counted(found.network, *kinds) == expected
    assert found.notes == ()


@pytest.mark.parametrize("path", sorted(LIGHT.glob("light_*.onnx")), ids=lambda path: path.stem)
def test_shipped_models_are_read_back(path: Path, tmp_path: Path) -> None:
    network = import_onnx(path).network
    again = tmp_path / "again.yaml"
    again.write_text(network_yaml(network))
    assert load_network(str(again)).layers == network.layers


def test_shipped_shufflenet_shuffles() -> None:
    """16 units, each with a shuffle in 4 groups before its depthwise convolution."""
    network = import_onnx(LIGHT / "light_shufflenet.onnx").network
    assert [shuffle.groups for shuffle in network.shuffles] == [4] * 16
    for layer in network.layers:
        width = layer.output[0]
        dealt = np.arange(width).reshape(4, -1).T.ravel().tolist() if width % 4 == 0 else []
        assert list(layer.picked or ()) == (dealt if layer.kind == "depthwise" else [])


# -- which channels --------------------------------------------------------------------------------


def numbered(name: str, first: int, count: int, made: str) -> tuple[Any, list[Any]]:
    """A convolution of zeros whose channel k is ``first + k`` everywhere."""
    bias = np.arange(first, first + count, dtype=np.float32)
    weights = np.zeros((count, 3, 1, 1), dtype=np.float32)
    return node("Conv", f"x {name}w {name}b", made), [tensor(f"{name}w", weights),
                                                      tensor(f"{name}b", bias)]  # fmt: skip


def numbers_read(network: Network, layer: Layer) -> list[int]:
    first = {"conv_a": 0, "conv_b": 100}
    width = {each.name: each.output[0] for each in network.layers}
    joined = [first[name] + number for name in layer.inputs for number in range(width[name])]
    picked = layer.picked or range(len(joined) if layer.channels is None else layer.channels)
    return [joined[number] for number in picked]


def rearranged(draw: st.DrawFn, index: int, held: str, sizes: dict[str, int]) -> tuple[Any, Any]:
    """Nodes that take channels of a tensor in another order, and their constants."""
    size, out = sizes[held], f"t{index}"
    kind = draw(st.sampled_from(["shuffle", "slice", "split", "gather", "concat", "turn"]))
    if kind == "shuffle":
        groups = draw(st.sampled_from([n for n in range(1, size + 1) if size % n == 0]))
        sizes[out] = size
        shapes = [tensor(f"{out}s", np.array([1, groups, size // groups, 2, 4])),
                  tensor(f"{out}u", np.array([1, size, 2, 4]))]  # fmt: skip
        return [node("Reshape", f"{held} {out}s", f"{out}1"),
                node("Transpose", f"{out}1", f"{out}2", perm=[0, 2, 1, 3, 4]),
                node("Reshape", f"{out}2 {out}u", out)], shapes  # fmt: skip
    if kind == "slice":
        start = draw(st.integers(-size, size - 1))
        step = draw(st.sampled_from([-2, -1, 1, 2]))
        end = 2**31 if step > 0 else -(2**31)
        sizes[out] = len(range(size)[start:end:step])
        named = {"b": start, "e": end, "a": draw(st.sampled_from([1, -3])), "i": step}
        constants = [tensor(f"{out}{key}", np.array([value])) for key, value in named.items()]
        return [node("Slice", f"{held} {out}b {out}e {out}a {out}i", out)], constants
    if kind == "split":
        at = draw(st.integers(1, max(1, size - 1)))
        parts = [at, size - at] if size > 1 else [1]
        sizes |= dict(zip([out, f"{out}r"], parts, strict=False))
        names = " ".join([out, f"{out}r"][: len(parts)])
        return [node("Split", f"{held} {out}p", names, axis=1)], [
            tensor(f"{out}p", np.array(parts))
        ]
    if kind == "gather":
        wanted = draw(st.lists(st.integers(-size, size - 1), min_size=1, max_size=size))
        sizes[out] = len(wanted)
        return [node("Gather", f"{held} {out}g", out, axis=1)], [
            tensor(f"{out}g", np.array(wanted))
        ]
    if kind == "turn":
        sizes[out] = size
        return [node("Transpose", held, f"{out}1", perm=[0, 2, 3, 1]),
                node("Transpose", f"{out}1", out, perm=[0, 3, 1, 2])], []  # fmt: skip
    other = draw(st.sampled_from(sorted(sizes)))
    sizes[out] = size + sizes[other]
    return [node("Concat", f"{held} {other}", out, axis=1)], []


@st.composite
def orders(draw: st.DrawFn) -> Any:
    """Two numbered convolutions, their channels rearranged, and a convolution that reads them."""
    sizes = {"a": draw(st.integers(1, 12)), "b": draw(st.integers(1, 6))}
    nodes, constants = [], []
    for name, first in (("a", 0), ("b", 100)):
        made, values = numbered(name, first, sizes[name], name)
        nodes.append(made)
        constants += values
    held = "a"
    for index in range(draw(st.integers(1, 5))):
        made, values = rearranged(draw, index, held, sizes)
        nodes += made
        constants += values
        held = f"t{index}"
    constants.append(ones("v", 1, sizes[held], 1, 1))
    nodes.append(node("Conv", f"{held} v", "y"))
    return model(nodes, constants, image=(1, 3, 2, 4)), held


@settings(max_examples=200, deadline=None)
@given(orders())
def test_channels_are_those_of_the_reference_evaluator(
    tmp_path_factory: pytest.TempPathFactory, order: Any
) -> None:
    made, held = order
    found = read(made, tmp_path_factory.mktemp("order"))
    made.graph.output.append(helper.make_tensor_value_info(held, TensorProto.FLOAT, None))
    image = np.zeros((1, 3, 2, 4), dtype=np.float32)
    _, values = ReferenceEvaluator(made).run(None, {"x": image})
    expected: Sequence[int] = np.asarray(values)[0, :, 0, 0].astype(int).tolist()
    assert numbers_read(found.network, found.network.layers[-1]) == list(expected)


def test_a_sum_of_shuffled_channels_is_told(tmp_path: Path) -> None:
    made = model(
        [
            node("Conv", "x w", "a"),
            node("Gather", "a back", "b", axis=1),
            node("Conv", "b v", "c"),
            node("Add", "b c", "y"),
        ],
        [*WEIGHTS, tensor("back", np.arange(8)[::-1].copy())],
    )
    found = import_onnx(save(made, tmp_path))
    assert found.network.layers[1].picked == (7, 6, 5, 4, 3, 2, 1, 0)
    (note,) = found.notes
    assert note == (
        "sums and products read 'conv_a' with channels in another order, which is lost and which"
        " no count depends on"
    )
