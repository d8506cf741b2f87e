"""A training iteration as layers: gradients by naive loops, then what the steps cost."""

from __future__ import annotations

import json
import random
import re
from itertools import product
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from command_line import call
from hypothesis import given, settings
from hypothesis import strategies as st
from machines import bundled, conv, looked_up, machine, memory, network

import energysim as es
from energysim.axes import Dim, Shape, Tensor
from energysim.errors import InputError
from energysim.hardware import Hardware
from energysim.network import LayerKind, Network
from energysim.result import NoteKind, Result, TrainingRow
from energysim.sparsity import PATTERNS, Mask
from energysim.training import (
    Phase,
    Step,
    input_gradient,
    segments_of,
    sum_shape,
    tiled_pool_gradient,
    training_of,
    turned,
    update_shape,
    weight_gradient,
)

Array = npt.NDArray[np.int64]

SIDES = ((Dim.P, Dim.R), (Dim.Q, Dim.S))


# -- naive arithmetic ------------------------------------------------------------------------------


def positions(shape: Shape) -> Any:
    """All (p, q, r, s, h, w) of a layer whose input is no padding."""
    ranges = [range(shape[dim]) for dim in (Dim.P, Dim.Q, Dim.R, Dim.S)]
    for p, q, r, s in product(*ranges):
        h = p * shape.stride[0] + r * shape.dilation[0] - shape.pad[0]
        w = q * shape.stride[1] + s * shape.dilation[1] - shape.pad[1]
        if 0 <= h < shape.size[0] and 0 <= w < shape.size[1]:
            yield p, q, r, s, h, w


def convolve(shape: Shape, inputs: Array, weights: Array) -> Array:
    """Outputs ``[N, G, K, P, Q]`` of inputs ``[N, G, C, H, W]`` and weights ``[G, K, C, R, S]``."""
    n, g, k, _, p_all, q_all, _, _ = shape.dims
    found = np.zeros((n, g, k, p_all, q_all), dtype=np.int64)
    for p, q, r, s, h, w in positions(shape):
        found[..., p, q] += np.einsum("ngc,gkc->ngk", inputs[..., h, w], weights[..., r, s])
    return found


def gradients(shape: Shape, inputs: Array, weights: Array, above: Array) -> tuple[Array, Array]:
    """What each product of the forward pass sends back: gradients of inputs and of weights."""
    of_inputs, of_weights = np.zeros_like(inputs), np.zeros_like(weights)
    for p, q, r, s, h, w in positions(shape):
        of_inputs[..., h, w] += np.einsum("ngk,gkc->ngc", above[..., p, q], weights[..., r, s])
        of_weights[..., r, s] += np.einsum("ngk,ngc->gkc", above[..., p, q], inputs[..., h, w])
    return of_inputs, of_weights


def random_shape(rng: random.Random) -> Shape:
    """Any small layer: groups, strides, dilation, pads of their own on every side."""
    extents = [rng.randint(1, most) for most in (2, 2, 3, 3)]
    sides = []
    for _ in range(2):
        taps, stride, dilation = rng.randint(1, 4), rng.randint(1, 4), rng.randint(1, 3)
        before, after = rng.randint(0, 4), rng.randint(0, 4)
        span = (taps - 1) * dilation + 1
        size = rng.randint(max(1, span - before - after), 9 + span)
        out = (before + size + after - span) // stride + 1
        sides.append((out, taps, stride, dilation, before, size))
    (p, r, *_), (q, s, *_) = sides
    pairs = [(rows, columns) for rows, columns in zip(*sides, strict=True)][2:]
    stride, dilation, pad, size = pairs
    n, g, k, c = extents
    return Shape((n, g, k, c, p, q, r, s), stride, dilation, pad, size)


def random_mask(rng: random.Random, shape: Shape) -> Mask:
    dims = tuple(shape[dim] for dim in (Dim.G, Dim.K, Dim.C, Dim.R, Dim.S))
    if dims[3:] == (3, 3) and rng.random() < 0.5:
        name = rng.choice(["PS4_P4", "PSD4_P8", "PS1_P9", "pSC2", "PS2_P6"])
        return Mask.of(name, shape, seed=rng.randint(0, 9))
    live = np.array([rng.random() < 0.6 for _ in range(prod(dims))]).reshape(dims)
    return Mask.from_array(live)


def drawn(rng: random.Random, *dims: int) -> Array:
    return np.random.default_rng(rng.randint(0, 2**30)).integers(-9, 10, dims)


def tensors(rng: random.Random, shape: Shape, mask: Mask) -> tuple[Array, Array, Array]:
    n, g, k, c, p, q, *_ = shape.dims
    inputs = drawn(rng, n, g, c, *shape.size)
    weights = drawn(rng, *mask.dims) * mask.array()
    return inputs, weights, drawn(rng, n, g, k, p, q)


@settings(max_examples=150, deadline=None)
@given(st.randoms(use_true_random=False))
def test_input_gradient_falls_apart_into_convolutions(rng: random.Random) -> None:
    shape = random_shape(rng)
    if rng.random() < 0.3:  # as in the papers, with patterns of 3x3
        shape = Shape((*shape.dims[:6], 3, 3), shape.stride, shape.dilation, shape.pad, shape.size)
    mask = random_mask(rng, shape)
    inputs, weights, above = tensors(rng, shape, mask)
    true, _ = gradients(shape, inputs, weights, above)
    found, kernels = np.zeros_like(true), weights.swapaxes(1, 2)
    for part in input_gradient(shape):
        rows, columns = part.along
        own = kernels[..., list(rows.taps), :][..., list(columns.taps)]
        live = mask.array().swapaxes(1, 2)[..., list(rows.taps), :][..., list(columns.taps)]
        assert np.array_equal(part.mask(mask).array(), live)
        seen = above[..., rows.skipped :, columns.skipped :]
        assert seen.shape[3:] == part.shape.size
        assert part.shape.stride == (1, 1)
        assert min(part.shape.pad) >= 0
        steps = [slice(each.first, None, shape.stride[i]) for i, each in enumerate(part.along)]
        place = (..., *steps)
        assert not found[place].any()  # no position belongs to two parts
        found[place] = convolve(part.shape, seen, own)
    assert np.array_equal(found, true)


@settings(max_examples=150, deadline=None)
@given(st.randoms(use_true_random=False))
def test_weight_gradient_is_a_convolution(rng: random.Random) -> None:
    shape = random_shape(rng)
    mask = random_mask(rng, shape)
    inputs, weights, above = tensors(rng, shape, mask)
    _, true = gradients(shape, inputs, weights, above)
    step = weight_gradient(shape)
    slid, over = inputs.transpose(2, 1, 0, 3, 4), above.transpose(1, 2, 0, 3, 4)
    n, g, k, c, p, q, *_ = shape.dims
    single = shape[Dim.R] == shape[Dim.S] == 1
    if single and step[Dim.C] == n * p * q and step.pad == (0, 0):  # gathered at the strides
        rows, columns = (np.arange(each) * shape.stride[i] for i, each in enumerate((p, q)))
        slid = slid[..., rows, :][..., columns].reshape(c, g, n * p * q, 1, 1)
        over = over.reshape(g, k, n * p * q, 1, 1)
    found = convolve(step, slid, over)  # [C, G, K, R, S]
    assert np.array_equal(found.transpose(1, 2, 0, 3, 4), true)
    assert step.macs == shape.macs
    # The mask is one on outputs: as many live products as the forward pass has, padding included.
    n, p, q = (shape[dim] for dim in (Dim.N, Dim.P, Dim.Q))
    layer = Step(
        "w", LayerKind.CONV, step, (), operand=Mask.of("dense", step),
        outputs=(mask.nonzeros, mask.total),
    )  # fmt: skip
    assert layer.effective_macs == int(mask.array().sum()) * n * p * q


@settings(max_examples=100, deadline=None)
@given(st.randoms(use_true_random=False))
def test_every_live_product_comes_back_once_in_each_gradient(rng: random.Random) -> None:
    shape = random_shape(rng)
    mask = random_mask(rng, shape)
    n, g, k, c, *_ = shape.dims
    ones, live = np.ones((n, g, c, *shape.size), dtype=np.int64), mask.array().astype(np.int64)
    forward = int(convolve(shape, ones, live).sum())
    backward = 0
    for part in input_gradient(shape):
        seen = np.ones((n, g, k, *part.shape.size), dtype=np.int64)
        backward += int(convolve(part.shape, seen, part.mask(mask).array().astype(np.int64)).sum())
    assert backward == forward
    step = weight_gradient(shape)
    own = [np.ones(tuple(extents), dtype=np.int64) for extents in (
        (step[Dim.N], g, step[Dim.C], *step.size),
        (g, k, *(step[dim] for dim in (Dim.C, Dim.R, Dim.S))),
    )]  # fmt: skip
    found = convolve(step, *own).transpose(1, 2, 0, 3, 4)
    assert int((found * live).sum()) == forward


def test_patterns_stay_periodic_when_turned() -> None:
    shape = Shape((1, 1, 32, 20, 8, 8, 3, 3), pad=(1, 1), size=(8, 8))
    for name in PATTERNS:
        mask = Mask.of(name, shape, seed=3)
        found = turned(mask, (2, 1, 0), (2, 1, 0))
        assert found.nonzeros == mask.nonzeros
        assert found.periodic == mask.periodic
        assert found.pattern.dense == mask.pattern.dense
        flipped = mask.array()[..., ::-1, ::-1].swapaxes(1, 2)
        assert np.array_equal(found.array(), flipped)
        cut = turned(mask, (2, 0), (1,))
        assert np.array_equal(cut.array(), mask.array().swapaxes(1, 2)[..., [2, 0], :][..., [1]])


# -- steps of a network ----------------------------------------------------------------------------


def names(net: Network, batch: int = 2, **options: Any) -> list[str]:
    return [step.name for step in training_of(net, batch, **options).steps]


def test_first_layers_need_no_input_gradient() -> None:
    pool = {"name": "a", "kind": "pool", "kernel": 2}
    add = {"name": "d", "kind": "add", "input": ["b", "c"]}
    net = network(pool, conv("b", 4), conv("c", 4), add, size=(4, 8, 8))
    assert names(net) == [
        "a", "b", "c", "d", "c.dx", "c.dw", "c.update", "b.dy", "b.dw", "b.update",
    ]  # fmt: skip
    total = next(s for s in training_of(net, 2).steps if s.name == "b.dy")
    assert total.kind is LayerKind.ADD
    assert total.shape.dims == (2, 4, 1, 2, 4, 4, 1, 1)
    assert total.phase is Phase.INPUT_GRAD


def test_gradients_meet_where_channels_are_read_twice() -> None:
    layer = network(conv("a", 8), size=(3, 6, 6)).layers[0]
    assert sum_shape(layer, [8], 2) is None
    assert sum_shape(layer, [4, 4], 2) is None
    three, some = sum_shape(layer, [8, 8, 8], 2), sum_shape(layer, [8, 4], 2)
    assert three is not None
    assert some is not None
    assert three.dims == (2, 8, 1, 3, 6, 6, 1, 1)
    assert some.dims == (2, 4, 1, 2, 6, 6, 1, 1)


def test_shuffled_halves_do_not_meet() -> None:
    both = {"input": ["a", "b"], "channels": 4}
    net = network(
        conv("a", 4), conv("b", 4, input="input"), conv("c", 4, **both), conv("d", 4, **both),
        {"name": "e", "kind": "add", "input": ["c", "d"]}, size=(3, 6, 6),
    )  # fmt: skip
    assert not [name for name in names(net) if name.endswith(".dy")]


def test_a_stride_leaves_positions_without_taps_alone() -> None:
    net = network(conv("a", 4), conv("b", 6, 1, stride=2), size=(3, 8, 8))
    steps = {step.name: step for step in training_of(net, 2).steps}
    assert "b.dx.0_0" in steps
    assert not [name for name in steps if name.startswith("b.dx.") and name != "b.dx.0_0"]
    assert steps["b.dw"].shape.dims == (4, 1, 6, 2 * 4 * 4, 1, 1, 1, 1)
    net = network(conv("a", 4), conv("b", 6, stride=2), size=(3, 8, 8))
    assert [name for name in names(net) if name.startswith("b.dx")] == [
        "b.dx.0_0", "b.dx.0_1", "b.dx.1_0", "b.dx.1_1",
    ]  # fmt: skip


def test_pools() -> None:
    pool = {"name": "b", "kind": "pool", "kernel": 2}
    net = network(conv("a", 4), pool, size=(3, 8, 8))
    steps = {step.name: step for step in training_of(net, 2).steps}
    # Gradient and place in, one value for each tap out; forward writes the maximum and its place.
    assert steps["b.dx"].shape.elements(Tensor.INPUT) == 2 * (2 * 4 * 4 * 4)
    assert steps["b.dx"].shape.elements(Tensor.OUTPUT) == 2 * 4 * 8 * 8
    assert steps["b"].shape.elements(Tensor.OUTPUT) == 2 * (2 * 4 * 4 * 4)
    average = {"name": "b", "kind": "pool", "kernel": "global", "mode": "average"}
    net = network(conv("a", 4), average, size=(3, 8, 8))
    steps = {step.name: step for step in training_of(net, 2).steps}
    assert steps["b.dx"].shape.elements(Tensor.INPUT) == 2 * 4
    assert steps["b.dx"].shape.elements(Tensor.OUTPUT) == 2 * 4 * 8 * 8
    assert steps["b"].shape.elements(Tensor.OUTPUT) == 2 * 4
    overlapping = {"name": "b", "kind": "pool", "kernel": 3, "stride": 2}
    net = network(conv("a", 4), overlapping, size=(3, 9, 9))
    parts = [step for step in training_of(net, 2).steps if step.name.startswith("b.dx.")]
    assert sum(step.shape.elements(Tensor.OUTPUT) for step in parts) == 2 * 4 * 9 * 9
    assert tiled_pool_gradient(net.layers[1].shape, 2) is None


def test_a_layer_with_the_name_of_a_step() -> None:
    net = network(conv("a", 4), conv("a.dw", 4), size=(3, 8, 8))
    with pytest.raises(InputError, match=r"training has a step named 'a\.dw'"):
        training_of(net, 1)
    with pytest.raises(InputError, match="1 image or more, got 0"):
        training_of(net, 1, epoch_images=0)


# -- activations -----------------------------------------------------------------------------------


def test_what_waits_for_the_backward_pass() -> None:
    pool = {"name": "c", "kind": "pool", "kernel": 2}
    net = network(conv("a", 2), conv("b", 4), pool, conv("d", 8), conv("e", 1), size=(3, 4, 4))
    assert [[layer.name for layer in each] for each in segments_of(net)] == [
        ["a", "b", "c"], ["d", "e"],
    ]  # fmt: skip
    found = training_of(net, 10)
    # Inputs of b, d and e, and where the maxima of c were; b's output is of use to no gradient.
    a, c, d = 2 * 16, 4 * 4, 8 * 4
    assert found.activations.kept == 10 * (a + c + c + d)
    # c crosses, with its places; a is computed again, for b; d is of the last segment.
    assert found.repeated == ("a",)
    assert found.activations.recomputed == 10 * max(c + c + d, a + c + c)
    again = names(net, recompute=True)
    assert [name for name in again if name.endswith(".again")] == ["a.again"]
    assert again.index("a.again") == again.index("d.update") + 1
    assert set(again) - {"a.again"} == set(names(net))


def test_recomputing_keeps_less() -> None:
    for name in ("vgg16", "resnet18", "mobilenet_v2", "shufflenet_v2"):
        found = training_of(es.load_network(name), 4).activations
        assert found.recomputed < found.kept


# -- what it costs ---------------------------------------------------------------------------------


def gating_chip(**fields: Any) -> Hardware:
    buffer = memory(
        "BUF", capacity_kib=16, double_buffered=True, bandwidth_bits_per_cycle=64.0, compressed=True
    )
    around: dict[str, Any] = {
        "mac": {"energy_pj": 1.0, "source": "a test"},
        "vector": {"lanes": 4, "energy_pj": 0.5, "source": "a test"},
        "array": {"axes": {"rows": 4, "cols": 4}, "unroll": {"rows": ["C"], "cols": ["K"]}},
        "sparsity": {"weights": "gate", "formats": ["dense", "periodic", "csr"]},
        "dram": {"bandwidth_bits_per_cycle": 8.0, "compressed": True},
    }
    return machine(buffer, **(around | fields))


SMALL = network(
    conv("a", 8),
    conv("b", 8, bias=False, batch_norm=True),
    {"name": "c", "kind": "pool", "kernel": 2},
    conv("d", 12, stride=2),
    {"name": "e", "kind": "linear", "out": 5},
    size=(3, 8, 8),
)


def trained(net: Network = SMALL, hardware: Hardware | None = None, **options: Any) -> Result:
    return looked_up(net, hardware or gating_chip(), phase="training", **({"batch": 4} | options))


def moved(result: Result, layer: str, tensor: str, level: str = "DRAM") -> float:
    return sum(
        row.bits for row in result.access_rows
        if (row.layer, row.level, row.tensor) == (layer, level, tensor)
    )  # fmt: skip


@pytest.mark.parametrize("pattern", ["dense", "PS4_P4", "pSC2", "2:4"])
def test_update_moves_five_words_of_every_live_parameter(pattern: str) -> None:
    net = SMALL.with_pattern(pattern)
    bits = {"weight": 4, "input": 8, "output": 16, "psum": 24}
    result = trained(net, gating_chip(bits=bits))
    for layer in net.layers:
        if not layer.has_weights:
            continue
        name = f"{layer.name}.update"
        assert moved(result, name, "input") == 3 * layer.parameters * 4
        assert moved(result, name, "output") == 2 * layer.parameters * 4
        (work,) = [r for r in result.access_rows if (r.layer, r.level) == (name, "vector")]
        assert work.elements == 4 * layer.parameters
    assert update_shape(7).dims[1] == 7


def test_weight_gradients_are_those_of_live_weights() -> None:
    net = SMALL.with_pattern("PSD4_P8")
    for word, share in (("gate", True), ("none", False)):
        sparsity = {"weights": word, "formats": ["dense", "periodic"]}
        result = trained(net, gating_chip(sparsity=sparsity), objective="dram")
        for layer in net.layers[1], net.layers[3]:
            stored = layer.weights if share else layer.weights_dense
            written = [
                row for row in result.access_rows
                if (row.layer, row.level, row.action) == (f"{layer.name}.dw", "DRAM", "update")
            ]  # fmt: skip
            assert sum(row.bits for row in written) == pytest.approx(stored * 8, rel=1e-12)
            assert sum(row.elements for row in written) == stored
            row = next(r for r in result.layer_rows if r.layer == f"{layer.name}.dw")
            assert row.macs == layer.macs * 4
            assert row.effective_macs == layer.effective_macs * 4
            assert row.dram_bytes >= row.dram_bound_bytes * (1 - 1e-12)


def test_gradients_have_the_widths_that_are_told() -> None:
    bits = {"weight": 4, "input": 8, "output": 16, "psum": 24}
    result = trained(SMALL, gating_chip(bits=bits), objective="dram", batch=1)
    # dY of the last layer in place of weights, as wide as activations; dW as wide as weights.
    assert moved(result, "e.dw", "weight") == 5 * 8
    assert moved(result, "e.dw", "output") == 5 * 48 * 4
    assert moved(result, "e.dx", "input") == 5 * 8
    assert moved(result, "e.dx", "weight") == 5 * 48 * 4
    assert moved(result, "e.dx", "output") == 48 * 16


def test_gradients_take_as_many_macs_as_forward() -> None:
    result = bundled("vgg16", "edge_tpu", phase="training", batch=8)
    phases = result.by_phase()
    first = next(row for row in result.layer_rows if row.layer == "conv1_1")
    assert phases["weight_grad"].macs == phases["forward"].macs == 8 * 313_201_664
    assert phases["input_grad"].macs == phases["forward"].macs - first.macs
    assert phases["update"].macs == 0


def test_phases_add_up() -> None:
    result = trained(batch=4, epoch_images=1000, recompute=True)
    phases = result.by_phase()
    assert list(phases) == [str(phase) for phase in Phase]
    assert sum(each.energy_mj for each in phases.values()) == pytest.approx(result.total_energy_mj)
    assert sum(each.dram_bytes for each in phases.values()) == pytest.approx(
        result.total_dram_bytes
    )
    assert sum(each.cycles for each in phases.values()) == result.total_cycles
    data = json.loads(result.to_json())
    told = data["training"]
    assert told["epoch"]["iterations"] == 250
    assert told["epoch"]["energy_mj"] == pytest.approx(250 * result.total_energy_mj)
    assert told["image"]["energy_mj"] == pytest.approx(result.total_energy_mj / 4)
    assert data["settings"]["phase"] == "training"
    assert {row["phase"] for row in data["layers"]} == set(phases)
    assert list(result.layers.columns[-2:]) == ["phase", "of"]
    assert result.to_csv().splitlines()[0].endswith(",phase,of")
    assert NoteKind.TRAINING in {note.kind for note in result.warnings}


def test_recomputing_costs_the_energy_that_keeping_says_it_would() -> None:
    kept, again = trained(), trained(recompute=True)
    assert again.by_phase()["recompute"].energy_mj == pytest.approx(kept.recompute_energy_mj)
    assert again.total_energy_mj == pytest.approx(kept.total_energy_mj + kept.recompute_energy_mj)
    assert kept.recompute_energy_mj == pytest.approx(again.recompute_energy_mj)
    assert kept.recompute_energy_mj > 0
    assert kept.activation_bytes() == again.activation_bytes()


@pytest.mark.parametrize("pattern", ["PS4_P4", "PSD4_P8", "PS1_P9"])
def test_a_sparse_network_trains_for_less(pattern: str) -> None:
    dense, sparse = trained(), trained(SMALL.with_pattern(pattern))
    for phase, cost in sparse.by_phase().items():
        assert cost.energy_mj < dense.by_phase()[phase].energy_mj
        if phase != "update":
            assert cost.macs == dense.by_phase()[phase].macs
            assert cost.effective_macs < cost.macs


def test_forward_is_inference_with_nothing_kept_on_chip() -> None:
    net = network(conv("a", 8), conv("b", 8, stride=2), size=(3, 8, 8))
    once = looked_up(net, gating_chip(), batch=4, residency=False)
    forward = trained(net).layer_rows[:2]
    assert [row.phase for row in forward if isinstance(row, TrainingRow)] == ["forward"] * 2
    for row, same in zip(forward, once.layer_rows, strict=True):
        assert (row.energy_pj, row.cycles, row.mapping) == (
            same.energy_pj, same.cycles, same.mapping,
        )  # fmt: skip
    assert not once.by_phase()
    assert not once.activation_bytes()
    assert "training" not in json.loads(once.to_json())


@pytest.mark.parametrize("name", ["resnet18_ps", "mobilenet_v2", "shufflenet_v2"])
def test_every_gradient_of_a_network_is_written_once(name: str) -> None:
    """Shapes of all steps fit their layers: strides, depthwise, splits, joins and shortcuts."""
    net, batch = es.load_network(name), 2
    steps = training_of(net, batch).steps
    for layer in net.layers:
        own = [step for step in steps if step.of == layer.name]
        into = [s for s in own if s.phase is Phase.INPUT_GRAD and not s.name.endswith(".dy")]
        for step in own:
            if step.phase is Phase.WEIGHT_GRAD:
                assert step.shape.elements(Tensor.OUTPUT) == layer.weights_dense
                assert step.effective_macs == layer.effective_macs * batch
            if step.phase is Phase.UPDATE:
                assert step.shape[Dim.G] == layer.parameters
        if into and layer.kind is not LayerKind.LINEAR:
            written = sum(step.shape.elements(Tensor.OUTPUT) for step in into)
            whole = layer.batched(batch).elements(Tensor.INPUT)
            taps = (
                [
                    len({h % layer.shape.stride[0] for _, _, _, _, h, _ in positions(layer.shape)}),
                    len({w % layer.shape.stride[1] for *_, w in positions(layer.shape)}),
                ]
                if prod(layer.shape.dims[4:]) < 5000
                else list(layer.shape.stride)
            )
            assert written == whole * prod(taps) // prod(layer.shape.stride)


# -- README ----------------------------------------------------------------------------------------


def test_readme_says_what_training_costs() -> None:
    readme = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")
    section = readme.split("## What training costs")[1].split("\n## ")[0]
    table = section.split("<!-- training -->")[1].strip().split("\n\n")[0]
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines()[2:]]
    assert len(rows) == 6
    totals = {}
    for name, batch, image, *shown in rows:
        result = bundled(name, "edge_tpu", phase="training", batch=int(batch))
        total = totals[name, int(batch)] = result.total_energy_mj
        assert image == f"{total / int(batch):.3f}"
        phases = [100 * cost.energy_mj / total for cost in result.by_phase().values()]
        waiting = [each / 1e6 for each in result.activation_bytes().values()]
        assert shown == [
            *(f"{share:.0f}" for share in phases),
            f"{total * result.epoch_iterations / 1000:.1f}",
            *(f"{each:.2f}" for each in waiting),
            f"{result.recompute_energy_mj / int(batch):.3f}",
        ]
    told = re.search(
        r"trains for (\S+)x the energy .* at batch 1 and (\S+)x\s+at batch 128", section
    )
    assert told
    assert list(told.groups()) == [
        f"{totals['vgg16_ps', batch] / totals['vgg16', batch]:.2f}" for batch in (1, 128)
    ]


# -- options ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"phase": "trainig"}, "no phase named 'trainig'. Did you mean 'training'?"),
        ({"phase": "training", "residency": True}, "Leave residency out"),
        ({"phase": "training", "epoch_images": 0}, "1 image or more, got 0"),
        ({"recompute": True}, "recompute is for phase 'training'"),
        ({"epoch_images": 5}, "epoch_images is for phase 'training'"),
    ],
)
def test_wrong_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as raised:
        es.simulate(SMALL, gating_chip(), **options)
    assert message in str(raised.value)


@pytest.fixture
def files(tmp_path: Any) -> tuple[str, str]:
    net = tmp_path / "little.yaml"
    net.write_text(
        "name: little\nsource: a test\ninput: [3, 8, 8]\nlayers:\n"
        "  - {name: a, kind: conv, out: 8, kernel: 3, pad: 1}\n"
        "  - {name: b, kind: conv, out: 8, kernel: 3, pad: 1, stride: 2}\n"
    )
    return str(net), "edge_tpu"


def test_command(files: tuple[str, str]) -> None:
    net, hw = files
    common = ("run", "--net", net, "--hw", hw, "--phase", "training", "--batch", "4")
    done = call(*common, "--pattern", "PS4_P4", "--epoch-images", "1000")
    assert done.status == 0, done.err
    assert " · training" in done.out.splitlines()[0]
    for word in ("b.dx.0_0", "b.dw", "b.update"):
        assert f" {word} " in done.out
    for word in ("forward: ", "input_grad: ", "weight_grad: ", "update: "):
        assert f"\n {word}" in done.out
    assert "per epoch of 1,000 images: " in done.out
    assert "activations kept: at most " in done.out
    assert "note: every tensor of the iteration goes to and from DRAM." in done.err
    again = call(*common, "--recompute-activations", "--format", "json", "-q")
    told = json.loads(again.out)["training"]
    assert told["activations"]["recompute"] is True
    assert told["epoch"]["images"] == 50_000
    shown = call(*common, "--recompute-activations")
    assert "activations recomputed: at most " in shown.out


def test_command_explains_a_step(files: tuple[str, str]) -> None:
    net, hw = files
    common = ("run", "--net", net, "--hw", hw, "--phase", "training", "--explain")
    done = call(*common, "b.dw")
    assert done.status == 0, done.err
    assert done.out.startswith("b.dw of little on edge_tpu: N8 K8 P3 Q3 R4 S4\n")
    wrong = call(*common, "b.dz")
    assert wrong.status == 2
    assert "no layer named 'b.dz'" in wrong.err


def test_command_refuses(files: tuple[str, str]) -> None:
    net, hw = files
    for options, word in (
        (("--phase", "trainig"), "'trainig' is not one of"),
        (("--phase", "training", "--epoch-images", "0"), "0 is not in the range"),
        (("--phase", "training", "--residency", "on"), "Leave residency out"),
        (("--recompute-activations",), "recompute is for phase 'training'"),
    ):
        done = call("run", "--net", net, "--hw", hw, *options)
        assert done.status == 2
        assert word in done.err


def test_objectives_and_dataflows_of_training(files: tuple[str, str]) -> None:
    net, hw = files
    path = Path(net)  # every dataflow is searched for every step: fewer channels and pixels do
    path.write_text(path.read_text().replace("out: 8", "out: 4").replace("8, 8]", "5, 5]"))
    common = ("run", "--net", net, "--hw", hw, "--phase", "training", "--format", "json", "-q")
    front = json.loads(call(*common, "--objective", "energy,latency").out)
    assert "b.dw" in front["layers"]
    assert front["settings"]["phase"] == "training"
    flows = json.loads(call(*common, "--dataflow", "all").out)
    assert len(flows["dataflows"]) > 1


def test_next_best_mappings_with_idle_instances_are_measured() -> None:
    """One of them has three tiles of 43 filters on 64 columns."""
    net, chip = es.load_network("vgg16_ps"), es.load_hardware("edge_tpu")
    result = looked_up(net, chip, phase="training", explain="conv3_2.dw")
    others = result.runners_up["conv3_2.dw"]
    best = next(row for row in result.layer_rows if row.layer == "conv3_2.dw")
    spatial = [loop for other in others for row in other.loops for loop in row.spatial]
    assert ("K", 43, "cols") in spatial
    assert all(other.measure.energy > best.energy_pj for other in others)
