"""What stays on chip: never more than fits, and every reader agrees with its producers."""

from __future__ import annotations

import random
from collections.abc import Iterable
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from machines import bundled, conv, machine, memory, network

import energysim as es
from energysim.axes import Tensor
from energysim.hardware import Hardware
from energysim.mapper.dataflows import get_dataflow
from energysim.mapper.residency import nothing_stays, plan
from energysim.mapping import machine_rules, read_loops
from energysim.model.capacity import occupancy
from energysim.model.counts import count
from energysim.model.sparse import WeightStore
from energysim.network import Network, Scale
from energysim.result import Result
from energysim.simulate import simulate

W, I, O = Tensor


def moved(result: Result, layer: str, tensor: str) -> float:
    """Bits of a tensor of a layer that DRAM reads or writes."""
    return sum(
        row.bits
        for row in result.access_rows
        if (row.level, row.layer, row.tensor) == ("DRAM", layer, tensor)
    )


def resident(result: Result) -> dict[str, set[str]]:
    """Words for what stays around each layer."""
    return {row.layer: set(row.resident.split()) for row in result.layer_rows}


def check_consistency(net: Network, result: Result) -> None:
    """DRAM reads what was written to it, and all that the plan says holds in the counts."""
    hardware = result.inputs[1]
    stays = resident(result)
    output_bits = hardware.bits.output
    readers: dict[str, list[str]] = {}
    for layer in net.layers:
        for name in layer.inputs:
            readers.setdefault(name, []).append(layer.name)
    for layer in net.layers:
        from_chip = "input" not in layer.inputs and all(
            "output" in stays[name] for name in layer.inputs
        )
        assert ("input" in stays[layer.name]) == from_chip
        # two operands of one addition are both here or both there
        assert len({name in stays and "output" in stays[name] for name in layer.inputs}) == 1
        assert (moved(result, layer.name, "input") == 0) == from_chip
        kept = "output" in stays[layer.name]
        assert (moved(result, layer.name, "output") == 0) == kept
        assert readers.get(layer.name) or not kept
        if not kept:
            whole = layer.shape.elements(Tensor.OUTPUT) * result.batch * output_bits
            assert moved(result, layer.name, "output") >= whole
        if layer.has_weights:
            assert (moved(result, layer.name, "weight") == 0) == ("weight" in stays[layer.name])
    weighted = [layer.name for layer in net.layers if layer.has_weights]
    assert len({"weight" in stays[name] for name in weighted}) <= 1


def check_room(net: Network, result: Result) -> None:
    """What all layers' mappings and waiting outputs take in each memory is there."""
    hardware = result.inputs[1]
    kept, stores, shapes = replan(net, hardware, batch=result.batch)
    planned = [{tensor.label for tensor in around.tensors} for around in kept.layers]
    if planned != list(resident(result).values()):
        return  # an output was found not to stay after all
    for layer, around, store, shape in zip(net.layers, kept.layers, stores, shapes, strict=True):
        nest, trips = read_loops(
            hardware,
            shape,
            result.mappings[layer.name],
            has_weights=layer.has_weights,
            where=str,
        )
        rules = machine_rules(hardware, has_weights=layer.has_weights)
        counts = count(shape, nest, np.array([trips], dtype=np.int64), rules)
        seen = hardware
        if not layer.has_weights:  # the vector unit hands over finished outputs
            bits = hardware.bits.model_copy(update={"psum": hardware.bits.output})
            seen = hardware.model_copy(update={"bits": bits})
        for room in occupancy(seen, shape, nest, trips, counts, store, around):
            assert room.excess_bits <= 0
    # weights and the outputs alive at any time fit together
    capacity = hardware.levels[1].capacity_bits()
    for at, around in enumerate(kept.layers):
        assert isinstance(capacity, int)
        assert kept.cached_weight_bits <= around.reserved_bits <= capacity
        live = alive(net, result, at) * hardware.bits.output
        assert live + kept.cached_weight_bits <= capacity


def alive(net: Network, result: Result, at: int) -> int:
    """Elements of outputs that stay and are made before and read at or behind a layer."""
    stays = resident(result)
    total = 0
    for i, layer in enumerate(net.layers):
        readers = [j for j, other in enumerate(net.layers) if layer.name in other.inputs]
        if "output" in stays[layer.name] and i <= at <= max(readers):
            total += layer.shape.elements(Tensor.OUTPUT) * result.batch
    return total


def replan(net: Network, hardware: Hardware, batch: int = 1) -> tuple[Any, list[Any], list[Any]]:
    """Plan as ``simulate`` does."""
    shapes = [
        type(layer.shape)(
            (batch, *layer.shape.dims[1:]),
            stride=layer.shape.stride,
            dilation=layer.shape.dilation,
            pad=layer.shape.pad,
            size=layer.shape.size,
        )
        for layer in net.layers
    ]
    stores = [
        WeightStore.of(layer.mask, hardware.bits.weight, hardware.sparsity.formats)
        if layer.has_weights
        else None
        for layer in net.layers
    ]
    flow = get_dataflow(hardware.dataflow)
    return plan(hardware, net, shapes=shapes, stores=stores, dataflow=flow), stores, shapes


# -- the bundled networks --------------------------------------------------------------------------


def test_weights_are_cached_if_all_of_them_fit() -> None:
    sparse, dense = (bundled(name, "edge_tpu") for name in ("vgg16_ps", "vgg16"))
    stored = sum(row.weight_bits for row in sparse.layer_rows)
    assert sparse.cached_weight_bytes == stored / 8 < 8192 * 1024
    assert all("weight" in words for name, words in resident(sparse).items() if "pool" not in name)
    assert sum(moved(sparse, row.layer, "weight") for row in sparse.layer_rows) == 0
    stored = sum(row.weight_bits for row in dense.layer_rows)
    assert stored / 8 > 8192 * 1024
    assert dense.cached_weight_bytes == 0
    assert sum(moved(dense, row.layer, "weight") for row in dense.layer_rows) == stored


@pytest.mark.parametrize("name", ["vgg16_ps", "resnet18_ps"])
@pytest.mark.parametrize("batch", [1, 3])
def test_the_ends_of_a_network_move_once(name: str, batch: int) -> None:
    net = es.load_network(name)
    result = bundled(name, "edge_tpu", batch=batch)
    first, last = net.layers[0], net.layers[-1]
    assert moved(result, first.name, "input") == batch * 3 * 32 * 32 * 8
    assert moved(result, last.name, "output") == batch * 10 * 8
    assert result.total_dram_bytes >= batch * (3 * 32 * 32 + 10)
    check_consistency(net, result)
    check_room(net, result)


@pytest.mark.parametrize("name", ["vgg16", "vgg16_ps", "resnet18"])
@pytest.mark.parametrize("chip", ["edge_tpu"])
def test_residency_never_moves_more(name: str, chip: str) -> None:
    net = es.load_network(name)
    on, off = (bundled(name, chip, residency=stays) for stays in (True, False))
    assert on.total_dram_bytes <= off.total_dram_bytes
    assert on.total_energy_pj <= off.total_energy_pj
    assert all(not words for words in resident(off).values())
    check_consistency(net, on)
    check_consistency(net, off)
    check_room(net, on)


def test_a_machine_keeps_nothing_unless_told() -> None:
    net = network(conv("a", 4), conv("b", 4), size=(4, 6, 6))
    for stays in (False, True):
        hardware = machine(memory("BUF", capacity_kib=64), residency=stays)
        assert simulate(net, hardware).residency is stays
        assert simulate(net, hardware, residency=not stays).residency is not stays
    assert nothing_stays(net).cached_weight_bits == 0


# -- branches --------------------------------------------------------------------------------------


def add(name: str, *inputs: str) -> dict[str, Any]:
    return {"name": name, "kind": "add", "input": inputs}


BRANCH = network(
    conv("stem", 6),
    conv("left", 6, 1),
    conv("right", 6, input="stem"),
    add("join", "left", "right"),
    conv("end", 5, 1),
    size=(3, 8, 8),
)


def stays_at(net: Network, capacity_bytes: int, **fields: Any) -> Result:
    buffer = memory("BUF", capacity_bytes=capacity_bytes, **fields)
    return simulate(net, machine(buffer), residency=True)


def test_an_output_waits_for_its_last_reader() -> None:
    # all of it stays in a large memory
    result = stays_at(BRANCH, 60_000)
    assert resident(result) == {
        "stem": {"weight", "output"},
        "left": {"weight", "input", "output"},
        "right": {"weight", "input", "output"},
        "join": {"input", "output"},
        "end": {"weight", "input"},
    }
    check_consistency(BRANCH, result)
    check_room(BRANCH, result)


@pytest.mark.parametrize("capacity", range(150, 3000, 95))
def test_branches_stay_together_or_not_at_all(capacity: int) -> None:
    result = stays_at(BRANCH, capacity)
    check_consistency(BRANCH, result)
    check_room(BRANCH, result)
    off = simulate(BRANCH, result.inputs[1], residency=False)
    assert result.total_dram_bytes <= off.total_dram_bytes


def test_the_image_is_never_resident() -> None:
    net = network(
        conv("a", 3),
        add("join", "input", "a"),
        conv("b", 3),
        add("end", "b", "join"),
        size=(3, 6, 6),
    )
    result = stays_at(net, 60_000)
    # `a` is read together with the image, which comes from DRAM
    assert "output" not in resident(result)["a"]
    assert "input" not in resident(result)["join"]
    assert resident(result)["end"] == {"input"}
    assert moved(result, "join", "input") == 2 * 3 * 36 * 8
    check_consistency(net, result)


def test_an_output_read_twice_by_one_layer() -> None:
    net = network(conv("a", 3), add("twice", "a", "a"), conv("b", 3), size=(3, 6, 6))
    result = stays_at(net, 60_000)
    assert "input" in resident(result)["twice"]
    check_consistency(net, result)


def test_an_output_that_nobody_reads_is_written() -> None:
    net = network(conv("a", 3), conv("unread", 2), conv("b", 3, input="a"), size=(3, 6, 6))
    result = stays_at(net, 60_000)
    assert "output" not in resident(result)["unread"]
    assert moved(result, "unread", "output") == 2 * 36 * 8
    check_consistency(net, result)


# -- kinds of machine ------------------------------------------------------------------------------


def test_memories_of_their_own_keep_nothing() -> None:
    sizes = {"weight": 9000, "input": 9000, "output": 9000}
    result = stays_at(BRANCH, sizes)  # type: ignore[arg-type]
    assert all(not words for words in resident(result).values())
    assert result.cached_weight_bytes == 0


@pytest.mark.parametrize(
    "holds", [["weight"], ["input", "output"], ["input"], ["output", "weight"]]
)
def test_a_level_keeps_only_what_it_holds(holds: list[str]) -> None:
    net = network(conv("a", 4), conv("b", 4), conv("c", 2, 1), size=(4, 6, 6))
    result = stays_at(net, 60_000, holds=holds)
    words = set().union(*resident(result).values())
    expected = set(holds) if {"input", "output"} <= set(holds) else set(holds) & {"weight"}
    assert words == expected
    check_consistency(net, result)


def test_cached_weights_in_a_memory_of_their_own_take_no_room_elsewhere() -> None:
    """The pool's buffer is not the one that the weights fill."""
    weights = memory("WB", holds=["weight"], capacity_kib=8)
    hardware = machine(weights, memory("GB", holds=["input", "output"], capacity_bytes=2000))
    net = network(conv("c", 16), {"name": "p", "kind": "pool", "kernel": 2}, size=(16, 8, 8))
    result = simulate(net, hardware, residency=True)
    assert resident(result) == {"c": {"weight"}, "p": set()}
    assert result.cached_weight_bytes == 16 * 16 * 9 > 2000
    check_consistency(net, result)


def test_compressed_weights_are_cached_as_they_are_stored() -> None:
    net = network(conv("a", 8), conv("b", 8), size=(8, 6, 6)).with_pattern("PS1_P9")
    weights = 576 * 8 + 64 * 8 + 9 * 9
    sparsity = {"weights": "gate", "formats": ["dense", "periodic"]}
    for compressed, bits in ((True, weights), (False, 2 * 576 * 8)):
        buffer = memory("BUF", capacity_bytes=4000, compressed=compressed)
        result = simulate(net, machine(buffer, sparsity=sparsity), residency=True)
        assert result.cached_weight_bytes == bits / 8


def test_an_output_leaves_where_the_plan_leaves_too_little_room() -> None:
    """Partial sums in the buffer are three times as wide as the plan counts an output."""
    net = network(conv("a", 12, 1), conv("b", 12, 1), conv("c", 12, 1), size=(12, 5, 5))
    kept = []
    for capacity in range(320, 1500, 60):
        result = stays_at(net, capacity)
        check_consistency(net, result)
        kept.append("output" in resident(result)["a"])
    assert not kept[0]
    assert kept[-1]


@pytest.mark.parametrize("name", ["vgg16", "mobilenet_v2"])
def test_more_images_cost_no_more_each_while_all_stays(name: str) -> None:
    """Cached weights come again for each tile of outputs; two batches are one of twice the size.

    Loaded once, they made the partial sums of all images wait in the buffer: mobilenet_v2 took
    twice the energy an image in batches of 4.
    """
    net = es.load_network(name, scale=Scale(0.25, 32, 10))
    rows = [
        {
            row.layer: row
            for row in simulate(net, es.load_hardware("edge_tpu"), batch=batch).layer_rows
        }
        for batch in (1, 2, 4, 8)
    ]
    compared = 0
    for fewer, more in pairwise(rows):
        for layer, row in fewer.items():
            if row.resident == more[layer].resident == "weight input output":
                compared += 1
                assert more[layer].energy_pj <= 2 * row.energy_pj * (1 + 1e-9), layer
    assert compared > 20


def test_weights_are_let_go_where_they_crowd_the_activations_out() -> None:
    """They would fit, but then sums go to DRAM and back; in a larger memory both have room."""
    net = network(conv("a", 16), conv("b", 16), size=(16, 24, 24))
    weights = sum(layer.weights for layer in net.layers)
    cached = []
    for room in (600, 1500, 4000, 40000):
        chip = machine(
            memory("BUF", capacity_bytes=weights + room),
            memory("RF", "regfile", per=["rows", "cols"], holds=["weight"], capacity_bytes=1),
        )
        result = simulate(net, chip, residency=True)
        streamed = simulate(net, result.inputs[1], residency=False)
        assert result.total_energy_pj <= streamed.total_energy_pj
        assert result.total_dram_bytes <= streamed.total_dram_bytes
        cached.append(result.cached_weight_bytes == weights)
    assert cached == sorted(cached)
    assert not cached[0]
    assert cached[-1]


def random_network(rng: random.Random) -> Network:
    """Draw a network with branches."""
    layers: list[dict[str, Any]] = [conv("l0", 4)]
    for i in range(1, rng.randint(4, 9)):
        names = [f"l{j}" for j in range(i)] + ["input"] * (i == 1)
        if i > 1 and rng.random() < 0.35:
            picks: Iterable[str] = rng.sample(names, 2)
            layers.append(add(f"l{i}", *picks))
        else:
            kernel = rng.choice((1, 3))
            layers.append(conv(f"l{i}", 4, kernel, input=rng.choice(names)))
    return network(*layers, size=(4, 5, 5))


@pytest.mark.parametrize("seed", range(25))
def test_random_networks_are_consistent(seed: int) -> None:
    rng = random.Random(seed)
    net = random_network(rng)
    result = stays_at(net, rng.randint(250, 2500), double_buffered=rng.random() < 0.5)
    check_consistency(net, result)
    check_room(net, result)
    off = simulate(net, result.inputs[1], residency=False)
    assert result.total_dram_bytes <= off.total_dram_bytes
