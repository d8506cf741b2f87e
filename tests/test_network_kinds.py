"""Kinds of layer beside convolution and pool: against naive loops, on chips, and every mistake."""

from __future__ import annotations

import re
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from machines import conv, machine, memory, network

import energysim as es
from energysim.axes import Dim, Shape, Tensor
from energysim.errors import InputError, InputErrors
from energysim.network import LayerKind, Network, NetworkSpec, Over
from energysim.simulate import simulate

Array = npt.NDArray[np.int64]


def layer(kind: str, name: str = "x", **fields: Any) -> dict[str, Any]:
    return {"name": name, "kind": kind} | fields


def numbers(*sizes: int) -> Array:
    return np.random.default_rng(sum(sizes)).integers(-9, 9, sizes)


def convolved(shape: Shape, image: Array, kernels: Array) -> Array:
    """Do the arithmetic that a shape with 1x1 kernels stands for: what the array computes."""
    _, groups, filters, depth, height, width, *_ = shape.dims
    a = image.reshape(groups, depth, height * width)
    b = kernels.reshape(groups, filters, depth)
    return np.einsum("gcp,gkc->gkp", a, b).reshape(groups * filters, height, width)


# --- transposed convolution -----------------------------------------------------------------------


@pytest.mark.parametrize("stride", [(2, 2), (3, 1), (1, 4)])
def test_a_transposed_convolution_is_a_1x1_convolution_to_patches(stride: tuple[int, int]) -> None:
    net = network(
        layer("transposed", out=5, kernel=list(stride), stride=list(stride)), size=(3, 4, 6)
    )
    (up,) = net.layers
    image, (rows, columns) = numbers(3, 4, 6), stride
    kernels = numbers(3, 5, rows, columns)
    out = np.zeros((5, 4 * rows, 6 * columns), dtype=np.int64)
    for c, k, h, w, r, s in product(
        range(3), range(5), range(4), range(6), range(rows), range(columns)
    ):
        out[k, h * rows + r, w * columns + s] += image[c, h, w] * kernels[c, k, r, s]
    flat = kernels.transpose(1, 2, 3, 0).reshape(-1, 3)
    patches = convolved(up.shape, image, flat).reshape(5, rows, columns, 4, 6)
    assert (patches.transpose(0, 3, 1, 4, 2).reshape(out.shape) == out).all()
    assert up.output == out.shape
    assert up.weights == kernels.size
    assert up.macs == image.size * kernels.size // 3
    assert up.parameters == kernels.size + 5
    assert up.shape.elements(Tensor.OUTPUT) == out.size


def test_layers_behind_a_transposed_convolution_see_the_large_map() -> None:
    net = network(
        conv("a", 4),
        layer("pool", "p", kernel=2),
        layer("transposed", "up", out=3, kernel=2, stride=2, bias=False, batch_norm=True),
        conv("b", 2, input=["up", "a"]),
        size=(1, 8, 6),
    )
    assert net.layer("b").shape.dims == (1, 1, 2, 3 + 4, 8, 6, 3, 3)
    assert net.layer("up").parameters == 4 * 3 * 4 + 2 * 3
    assert net.with_pattern("PS4_P4").layer("up").pattern == "dense"


# --- products of activations ----------------------------------------------------------------------


HEADS, DEPTH, TOKENS, KEYS = 3, 4, 5, 6


def attention(**size: int) -> Network:
    return network(
        conv("q", HEADS * DEPTH, kernel=1),
        conv("k", HEADS * DEPTH, kernel=1, input="input"),
        layer("matmul", "scores", input=["q", "k"], over="channels", groups=HEADS),
        layer("softmax", "weights"),
        layer("matmul", "values", input=["weights", "k"], over="positions", groups=HEADS),
        size=(2, size.get("height", TOKENS), size.get("width", 1)),
    )


def test_an_attention_is_two_grouped_1x1_convolutions() -> None:
    """Against the definition, head by head; also over an image of two dims."""
    for height, width in ((TOKENS, 1), (3, 2)):
        net = attention(height=height, width=width)
        tokens = height * width
        q, k = numbers(HEADS, DEPTH, tokens), numbers(HEADS, DEPTH, tokens) + 1
        scores = net.layer("scores")
        found = convolved(scores.shape, q, k.transpose(0, 2, 1))
        for head in range(HEADS):
            by_token = q[head].T @ k[head]  # [token, key]
            rows = found.reshape(HEADS, tokens, tokens)[head]  # [key, token]
            assert (by_token == rows.T).all()
        assert scores.output == (HEADS * tokens, height, width)
        values = net.layer("values")
        out = convolved(values.shape, found, k)
        for head in range(HEADS):
            by_token = found.reshape(HEADS, tokens, tokens)[head].T @ k[head].T
            assert (by_token == out.reshape(HEADS, DEPTH, tokens)[head].T).all()
        assert values.output == (HEADS * DEPTH, height, width)
        assert scores.macs == values.macs == HEADS * DEPTH * tokens * tokens


def test_a_product_of_activations_has_no_weights() -> None:
    net = attention()
    for name in ("scores", "values"):
        product_ = net.layer(name)
        assert product_.has_weights
        assert not product_.stores_weights
        assert product_.parameters == product_.weights == product_.weights_dense == 0
        assert product_.effective_macs == product_.macs > 0
        with pytest.raises(InputErrors, match="has no weights, so it takes no mask"):
            net.with_masks({name: np.ones(3, dtype=bool)})
    assert net.parameters == 2 * (2 * HEADS * DEPTH + HEADS * DEPTH)
    assert net.conv_macs == 2 * 2 * HEADS * DEPTH * TOKENS
    assert net.macs == net.conv_macs + 2 * net.layer("scores").macs
    assert net.layer("scores").over is Over.CHANNELS


def chip(**fields: Any) -> es.Hardware:
    bits = {"weight": 4, "input": 8, "output": 8, "psum": 24}
    return machine(memory("BUF", **({"capacity_kib": 64} | fields)), bits=bits)


def rows_of(result: es.Result, name: str, tensor: str) -> dict[tuple[str, str], float]:
    return {
        (row.level, row.action): row.bits
        for row in result.access_rows
        if (row.layer, row.tensor) == (name, tensor)
    }


@pytest.mark.parametrize("batch", [1, 3])
def test_each_image_brings_its_own_second_operand(batch: int) -> None:
    """As wide as an activation, moved once for every image, and never counted as weights."""
    result = simulate(attention(), chip(), batch=batch, residency=False, objective="dram")
    rows = {row.layer: row for row in result.layer_rows}
    keys = HEADS * DEPTH * TOKENS
    for name in ("scores", "values"):
        assert rows_of(result, name, "weight")["DRAM", "read"] == batch * keys * 8
        assert (rows[name].weight_format, rows[name].weight_bits) == ("", 0)
        assert rows[name].macs == rows[name].effective_macs == batch * keys * TOKENS
    assert rows_of(result, "q", "weight")["DRAM", "read"] == 2 * HEADS * DEPTH * 4
    assert rows["q"].weight_bits == 2 * HEADS * DEPTH * 4


def test_both_operands_stay_on_chip_and_only_weights_are_cached() -> None:
    result = simulate(attention(), chip(), residency=True)
    stays = {row.layer: set(row.resident.split()) for row in result.layer_rows}
    assert (
        stays["scores"]
        == stays["values"] - {"output"} | {"output"}
        == {"weight", "input", "output"}
    )
    assert "output" not in stays["values"]
    assert result.cached_weight_bytes == 2 * 2 * HEADS * DEPTH * 4 / 8
    for name in ("scores", "values"):
        assert ("DRAM", "read") not in rows_of(result, name, "weight")


def test_an_image_as_second_operand_is_not_among_the_cached_weights() -> None:
    net = network(
        conv("a", 4, kernel=1),
        layer("matmul", "x", input=["a", "input"], over="channels"),
        size=(4, 3, 2),
    )
    result = simulate(net, chip(), residency=True)
    stays = {row.layer: set(row.resident.split()) for row in result.layer_rows}
    assert stays == {"a": {"weight", "output"}, "x": {"input"}}
    assert rows_of(result, "x", "weight")["DRAM", "read"] == 4 * 6 * 8


def test_an_operand_whose_memory_is_apart_comes_from_dram() -> None:
    """The buffer that keeps outputs holds no weights, so what is read in their place can't stay."""
    hardware = machine(
        memory("BUF", capacity_kib=64, holds=["input", "output"]),
        memory("RF", capacity_bytes=4, per=["rows", "cols"], holds=["weight"]),
    )
    result = simulate(attention(), hardware, residency=True)
    stays = {row.layer: set(row.resident.split()) for row in result.layer_rows}
    assert stays["q"] == {"output"}
    assert stays["k"] == set()
    assert stays["scores"] == {"input", "output"}
    assert rows_of(result, "scores", "weight")["DRAM", "read"] == HEADS * DEPTH * TOKENS * 8


def test_room_is_left_for_an_operand_that_stays() -> None:
    """What all keep at once never exceeds the memory, however small it is."""
    net = attention()
    for kib in (1, 2, 3):
        result = simulate(net, chip(capacity_kib=kib), residency=True)
        assert all(room.excess_bits <= 0 for rooms in result.rooms.values() for room in rooms)


def test_one_layer_may_be_both_operands() -> None:
    net = network(
        conv("a", 4, kernel=1),
        layer("matmul", "gram", input=["a", "a"], over="channels"),
        size=(2, 3, 2),
    )
    gram = net.layer("gram")
    assert gram.shape.dims == (1, 1, 6, 4, 3, 2, 1, 1)
    result = simulate(net, chip(), residency=True)
    assert {row.layer: row.resident for row in result.layer_rows}["gram"] == "weight input"


# --- products element by element ------------------------------------------------------------------


def test_a_scale_is_read_once_for_each_channel() -> None:
    net = network(
        conv("a", 6, kernel=1),
        layer("pool", "squeeze", kernel="global", mode="average"),
        layer("multiply", "scale", input=["a", "squeeze"]),
        conv("b", 2, kernel=1),
        size=(3, 5, 4),
    )
    scale = net.layer("scale")
    assert scale.output == (6, 5, 4)
    assert scale.shape.elements(Tensor.INPUT) == 6 * 5 * 4 + 6
    assert scale.shape.elements(Tensor.OUTPUT) == 6 * 5 * 4
    assert (scale.macs, scale.parameters, scale.has_weights) == (0, 0, False)
    assert net.layer("b").shape[Dim.C] == 6
    result = simulate(net, chip(), residency=False)
    assert rows_of(result, "scale", "input")["DRAM", "read"] == (6 * 20 + 6) * 8
    assert rows_of(result, "scale", "input")["BUF", "read"] == 2 * 6 * 20 * 8


def test_what_a_small_buffer_does_to_a_scale() -> None:
    """Each tile of a channel needs the scale: kept with it, it still comes once a channel."""
    net = network(
        layer("pool", "g", kernel="global"), layer("multiply", input=["input", "g"]), size=(4, 6, 6)
    )
    for halo, scales in (("keep", 4), ("refetch", 4 * 18)):
        hardware = machine(memory("BUF", capacity_bytes=6, halo=halo))
        result = simulate(net, hardware, residency=False, objective="dram")
        assert rows_of(result, "x", "input")["DRAM", "read"] <= (4 * 36 + scales) * 8
        assert rows_of(result, "x", "input")["DRAM", "read"] >= (4 * 36 + 4) * 8


def test_equal_operands_are_both_read_whole() -> None:
    net = network(
        conv("a", 2),
        conv("b", 2, input="input"),
        layer("multiply", input=["a", "b"]),
        size=(2, 4, 4),
    )
    twice = net.layer("x").shape
    assert twice.elements(Tensor.INPUT) == 2 * twice.elements(Tensor.OUTPUT) == 64


# --- norms ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "each"), [("batch_norm", 2), ("layer_norm", 2), ("softmax", 0)])
def test_norms_pass_over_every_element_once(kind: str, each: int) -> None:
    net = network(conv("a", 4), conv("b", 2), layer(kind, input=["a", "b"]), size=(2, 5, 3))
    norm = net.layer("x")
    assert norm.output == (6, 5, 3)
    assert norm.parameters == each * 6
    assert norm.shape.elements(Tensor.INPUT) == norm.shape.elements(Tensor.OUTPUT) == 90
    assert (norm.macs, norm.has_weights, norm.kind) == (0, False, LayerKind(kind))
    rows = simulate(net, chip(), residency=False).access_rows
    done = [row.elements for row in rows if (row.layer, row.level) == ("x", "vector")]
    assert done == [90]


# --- all ------------------------------------------------------------------------------------------


EVERY = """\
name: every
source: a test
input: [4, 3, 2]
layers:
  - {name: up, kind: transposed, out: 6, kernel: [2, 3], stride: [2, 3], bias: false}
  - {name: even, kind: transposed, input: input, out: 6, kernel: 2, stride: 2, batch_norm: true}
  - {name: gram, kind: matmul, input: [up, up], over: channels, groups: 2}
  - {name: soft, kind: softmax}
  - {name: mixed, kind: matmul, input: [soft, up], over: positions, groups: 2}
  - {name: norm, kind: layer_norm, channels: 4}
  - {name: scale, kind: pool, kernel: global}
  - {name: scaled, kind: multiply, input: [norm, scale]}
  - {name: squared, kind: multiply, input: [scaled, norm]}
  - {name: all, kind: batch_norm, input: [squared, norm]}
"""


def test_every_kind_is_shown_as_it_is_read(tmp_path: Path) -> None:
    from energysim.cli.describe import network_yaml

    path = tmp_path / "every.yaml"
    path.write_text(EVERY)
    net = es.load_network(str(path))
    path.write_text(network_yaml(net))
    assert es.load_network(str(path)).layers == net.layers
    assert net.layer("gram").output == (2 * 36, 6, 6)


@pytest.mark.parametrize(("hw", "batches"), [("edge_tpu", (1, 2)), ("eyeriss", (1,))])
def test_every_kind_runs(tmp_path: Path, hw: str, batches: tuple[int, ...]) -> None:
    path = tmp_path / "every.yaml"
    path.write_text(EVERY)
    net = es.load_network(str(path))
    for batch in batches:
        result = simulate(net, es.load_hardware(hw), batch=batch)
        assert result.total_macs == batch * net.macs
        for row in result.layer_rows:
            assert row.energy_pj > 0
            assert row.dram_bytes >= row.dram_bound_bytes * (1 - 1e-12)


def test_explain_draws_a_product(tmp_path: Path) -> None:
    from energysim.cli.explain import explain

    result = simulate(attention(), es.load_hardware("edge_tpu"), explain="scores", batch=2)
    assert "multiply and add" in explain(result, "scores")


def test_training_refuses_what_has_no_gradient_here() -> None:
    with pytest.raises(InputError, match=r"gradients of matmul, softmax layers .* 'scores'.* conv"):
        simulate(attention(), chip(), phase="training")


MISTAKES = [
    (
        "kind: transposed, out: 4, kernel: 3, stride: 2",
        (
            "layers.1.kernel: layer 'b': a transposed convolution must have a kernel as large as"
            " its stride, so that patches don't overlap, got kernel [3, 3] and stride [2, 2]"
        ),
    ),
    ("kind: transposed, out: 4, kernel: 2", "missing field 'stride'"),
    ("kind: matmul, input: [a], over: channels", "needs two layers to multiply, got 1"),
    ("kind: matmul, input: [a, a, a], over: channels", "needs two layers to multiply, got 3"),
    (
        "kind: matmul, input: [a, input], over: channels",
        (
            "layers.1.input: layer 'b': the first operand has 4 channels and the second 3 to sum"
            " over; they must be equal, got 'a' [4, 8, 8], 'input' [3, 8, 8]"
        ),
    ),
    (
        "kind: matmul, input: [a, a], over: positions, groups: 2",
        "the first operand has 4 channels and the second 2 groups of 64 positions = 128 to sum",
    ),
    (
        "kind: matmul, input: [a, a], over: channels, groups: 3",
        "groups: 3 must divide the channels of both, got 4",
    ),
    (
        "kind: matmul, input: [a, a], over: chanels",
        "over: must be one of 'channels', 'positions', got 'chanels'",
    ),
    ("kind: matmul, input: [a, a]", "missing field 'over'"),
    ("kind: matmul, input: [a, a], over: channels, bias: true", "bias: unknown field"),
    ("kind: matmul, input: [a, c], over: channels", "reads 'c', but there is no such layer"),
    ("kind: multiply, input: [a]", "a multiply needs two layers to multiply, got 1"),
    (
        "kind: multiply, input: [a, input]",
        (
            "the second operand must be as large as the first or have size [4, 1, 1], got 'a'"
            " [4, 8, 8], 'input' [3, 8, 8]"
        ),
    ),
    ("kind: softmax, out: 4", "out: unknown field"),
    ("kind: matmull", "got 'matmull'. Did you mean 'matmul'?"),
]


@pytest.mark.parametrize(("record", "text"), MISTAKES)
def test_mistakes(tmp_path: Path, record: str, text: str) -> None:
    path = tmp_path / "net.yaml"
    path.write_text(
        "name: net\nsource: a test\ninput: [3, 8, 8]\nlayers:\n"
        f"  - {{name: a, kind: conv, out: 4, kernel: 1}}\n  - {{name: b, {record}}}\n"
    )
    with pytest.raises(InputErrors) as caught:
        es.load_network(str(path))
    (problem,) = caught.value.problems
    assert re.match(r".*net\.yaml:6:\d+ layers\.1", problem), problem
    assert text in problem


def test_every_new_field_is_explained() -> None:
    definitions = NetworkSpec.model_json_schema()["$defs"]
    for name in ("TransposedSpec", "MatmulSpec", "MultiplySpec", "NormSpec", "ShuffleSpec"):
        for field, properties in definitions[name]["properties"].items():
            assert "description" in properties, f"{name}.{field}"
