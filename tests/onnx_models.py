"""ONNX models made for tests, and their work counted from the graph alone."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper, shape_inference

OPSET = 17


def node(op: str, inputs: str, outputs: str, **attributes: Any) -> onnx.NodeProto:
    """A node; tensors are given as words, ``_`` for one left out."""
    names = ["" if each == "_" else each for each in inputs.split()]
    made = outputs.split()
    return helper.make_node(op, names, made, name=f"{op.lower()}_{made[0]}", **attributes)


def tensor(name: str, values: Any) -> onnx.TensorProto:
    return numpy_helper.from_array(np.asarray(values), name)


def ones(name: str, *shape: int) -> onnx.TensorProto:
    return tensor(name, np.ones(shape, dtype=np.float32))


def model(
    nodes: Sequence[onnx.NodeProto],
    constants: Sequence[onnx.TensorProto] = (),
    *,
    image: Sequence[int | str | None] = (1, 3, 16, 32),
    opset: int = OPSET,
    output: str | None = None,
    kind: int = TensorProto.FLOAT,
    out_kind: int = TensorProto.FLOAT,
) -> onnx.ModelProto:
    """A model of one image ``x`` whose output is that of its last node."""
    last = output or nodes[-1].output[0]
    graph = helper.make_graph(
        list(nodes),
        "test",
        [helper.make_tensor_value_info("x", kind, list(image))],
        [helper.make_tensor_value_info(last, out_kind, None)],
        list(constants),
    )
    # The checker wants the output to have a shape; any rank will do for what is tested.
    graph.output[0].type.tensor_type.shape.SetInParent()
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)],
                             producer_name="tests", ir_version=8)  # fmt: skip


def save(made: onnx.ModelProto, folder: Path, name: str = "model.onnx") -> Path:
    path = folder / name
    path.write_bytes(made.SerializeToString())
    return path


def shapes_of(made: onnx.ModelProto) -> dict[str, tuple[int, ...]]:
    bare = onnx.ModelProto()
    bare.CopyFrom(made)
    bare.graph.output[0].type.tensor_type.ClearField("shape")
    graph = shape_inference.infer_shapes(bare, strict_mode=True, data_prop=True).graph
    found = {each.name: tuple(each.dims) for each in graph.initializer}
    for each in (*graph.input, *graph.value_info, *graph.output):
        found[each.name] = tuple(one.dim_value for one in each.type.tensor_type.shape.dim)
    return found


def counted_macs(made: onnx.ModelProto) -> int:
    """Multiply-accumulates of all convolutions and matrix products with a batch of one.

    From the schema's own sums, and so in another way than the importer's: each output element of a
    convolution adds up C / groups * taps products, each one of a matrix product as many as the
    second factor has rows, and each input element of a transposed one goes to M / groups * taps.
    """
    shapes = shapes_of(made)
    total = 0
    for each in made.graph.node:
        output = prod(shapes[each.output[0]])
        at = {"QLinearConv": 3, "QLinearMatMul": 3}.get(each.op_type, 1)
        if each.op_type in ("Conv", "QLinearConv", "ConvInteger"):
            _, channels, *taps = shapes[each.input[at]]
            total += output * channels * prod(taps)
        elif each.op_type == "ConvTranspose":
            _, filters, *taps = shapes[each.input[1]]
            total += prod(shapes[each.input[0]]) * filters * prod(taps)
        elif each.op_type in ("MatMul", "QLinearMatMul", "MatMulInteger"):
            total += output * shapes[each.input[at]][-2]
        elif each.op_type == "Gemm":
            attributes = {one.name: helper.get_attribute_value(one) for one in each.attribute}
            rows, columns = shapes[each.input[1]]
            total += output * (columns if attributes.get("transB") else rows)
    return total
