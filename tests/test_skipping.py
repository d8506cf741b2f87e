"""Skipped zeros on the tiles of a mapping, and what a run says about them."""

from __future__ import annotations

import json
import random
from itertools import product
from math import ceil
from typing import Any

import numpy as np
import pytest
from machines import conv, machine, memory, network

from energysim import Activations, Density, load_hardware, load_network, simulate
from energysim.axes import Dim, Shape
from energysim.errors import InputError
from energysim.hardware import Hardware
from energysim.mapping import Loop, Nest
from energysim.model.lockstep import lock_step_of
from energysim.model.tiling import temporal_steps
from energysim.sparsity import Mask

AXES = ("rows", "cols")
Walk = list[tuple[int, bool]]
"""Trip counts of the loops over one dim, and whether each is spatial."""


def draw_nest(rng: random.Random, shape: Shape) -> tuple[Nest, tuple[int, ...]]:
    """Draw loops over the dims of the weights and P, some of them spatial, in any order."""
    left: dict[Dim, list[tuple[int, int | None]]] = {}
    for dim in (Dim.G, Dim.K, Dim.C, Dim.P, Dim.R, Dim.S):
        size, spatial = shape[dim], rng.random() < 0.6
        left[dim] = []
        while size > 1:
            trips = rng.randint(2, size) if rng.random() < 0.7 else size
            axis = rng.randrange(2) if spatial and rng.random() < 0.6 else None
            spatial = spatial and axis is None
            left[dim].append((trips, axis))
            size = ceil(size / trips)
    drawn: list[tuple[Dim, int, int | None]] = []
    while any(left.values()):
        dim = rng.choice([dim for dim, loops in left.items() if loops])
        drawn.append((dim, *left[dim].pop(0)))
    loops = tuple(Loop(dim, axis) for dim, _, axis in drawn)
    return Nest(loops, ((0, 0, 0),), (frozenset(),)), tuple(trips for _, trips, _ in drawn)


def walk_dim(numbers: list[int], loops: Walk) -> list[list[int]]:
    """What the places of the array hold in each temporal step over a dim that has work."""
    found: dict[tuple[int, ...], list[int]] = {}

    def follow(part: list[int], size: int, rest: Walk, step: tuple[int, ...]) -> None:
        if not part:
            return
        if not rest:
            found.setdefault(step, []).extend(part)
            return
        (trips, spatial), *rest = rest
        size = ceil(size / trips)
        for index in range(trips):
            inner = part[index * size : (index + 1) * size]
            follow(inner, size, rest, step if spatial else (*step, index))

    follow(numbers, len(numbers), loops, ())
    return [found[step] for step in sorted(found)]


def walk_steps(mask: Mask, nest: Nest, trips: tuple[int, ...], by_slot: frozenset[str]) -> int:
    """Array steps by going through the loops over G, K and C, one after the other."""
    live = mask.array()
    groups, filters, channels, height, width = mask.dims
    step_of = {Dim.G: filters + channels, Dim.K: 1, Dim.C: 1}
    walks = {}
    for dim, extent in ((Dim.G, groups), (Dim.K, filters), (Dim.C, channels)):
        own = [(loop, n) for loop, n in zip(nest.loops, trips, strict=True) if loop.dim is dim]
        numbers = list(range(extent))
        steps = walk_dim(numbers, [(n, loop.axis is not None) for loop, n in own])
        if any(loop.axis is not None and AXES[loop.axis] in by_slot for loop, n in own if n > 1):
            numbers.sort(key=lambda i: i * step_of[dim] % mask.pattern.period)
            ahead = iter(numbers)
            steps = [[next(ahead) for _ in step] for step in steps]
        walks[dim] = steps
    pieces = []
    for dim, extent in ((Dim.R, height), (Dim.S, width)):
        own = [(loop, n) for loop, n in zip(nest.loops, trips, strict=True) if loop.dim is dim]
        # walked with space for time, what is found together is what one place has
        pieces.append(walk_dim(list(range(extent)), [(n, loop.axis is None) for loop, n in own]))
    total = 0
    for gs, ks, cs in product(walks[Dim.G], walks[Dim.K], walks[Dim.C]):
        total += max(
            sum(any(live[g, k, c, r, s] for k in ks) for r, s in product(rows, columns))
            for g, c, rows, columns in product(gs, cs, *pieces)
        )
    return total


@pytest.mark.parametrize("part", range(5))
def test_steps_of_a_mapping_equal_a_walk(part: int) -> None:
    for seed in range(60):
        rng = random.Random(1000 * part + seed)
        groups = rng.choice((1, 1, 1, 2, 3))
        filters, channels = rng.randint(1, 13), rng.randint(1, 13)
        shape = Shape((1, groups, filters, channels, 3, 1, 3, 3), pad=(1, 1), size=(3, 1))
        mask = Mask.of(rng.choice(("PS4_P4", "PSD4_P8", "PS2_P6", "PS1_P9", "pSC2")), shape, seed)
        nest, trips = draw_nest(rng, shape)
        busy = {AXES[x.axis] for x, n in zip(nest.loops, trips, strict=True)
                if x.axis is not None and n > 1}  # fmt: skip
        grouped = frozenset(axis for axis in busy if mask.periodic and rng.random() < 0.5)
        order = {axis: "by_slot" if axis in grouped else "natural" for axis in AXES}
        found = lock_step_of(mask, nest, trips, axes=AXES, order=order)
        assert found.steps == walk_steps(mask, nest, trips, grouped), seed
        assert found.steps <= found.dense_steps
        plain = lock_step_of(mask, nest, trips, axes=AXES)
        best = lock_step_of(mask, nest, trips, axes=AXES, order="auto")
        assert best.steps <= min(found.steps, plain.steps)
        own = [(n, x.axis is not None) for x, n in zip(nest.loops, trips, strict=True)
               if x.dim is Dim.P]  # fmt: skip
        assert temporal_steps(3, own) == len(walk_dim([0, 1, 2], own))


def chip(**sparsity: object) -> Hardware:
    """16 x 16 processing elements, channels on the rows and filters on the columns."""
    return machine(
        memory("BUF", capacity_kib=64),
        memory("RF", "regfile", per=["rows", "cols"], holds=["weight"], capacity_bytes=1),
        array={"axes": {"rows": 16, "cols": 16}, "unroll": {"rows": ["C"], "cols": ["K"]}},
        dataflow="custom",
        sparsity=sparsity,
    )


def cycles(pattern: str, **sparsity: object) -> int:
    net = network(conv("first", 64), conv("a", 128), size=(64, 6, 6)).with_pattern(pattern)
    return simulate(net, chip(**sparsity)).layer_rows[-1].cycles


def test_gating_never_shortens_a_run() -> None:
    assert cycles("PS4_P4", weights="gate") == cycles("PS4_P4", weights="none")
    assert cycles("dense", weights="skip") == cycles("dense", weights="none")


def test_natural_order_saves_no_step_and_order_by_slot_does() -> None:
    natural = cycles("PS4_P4", weights="skip")
    assert natural == cycles("PS4_P4", weights="none")
    grouped = cycles("PS4_P4", weights="skip", order={"cols": "by_slot"})
    assert grouped / natural == pytest.approx(4 / 9, rel=1e-9)
    assert cycles("PS4_P4", weights="skip", order="auto") == grouped


def test_an_fdk_holds_up_the_rest_unless_both_axes_are_grouped_or_kernels_queue() -> None:
    natural = cycles("PSD4_P8", weights="skip")
    assert cycles("PSD4_P8", weights="skip", order={"cols": "by_slot"}) == natural
    both = cycles("PSD4_P8", weights="skip", order="auto")
    queued = cycles("PSD4_P8", weights="skip", order={"cols": "by_slot"}, pe_queue=8)
    assert both < natural
    assert queued < natural


@pytest.mark.parametrize("order", ["by_slot", {"cols": "by_slot"}])
def test_a_mask_without_a_period_stays_as_numbered(order: object) -> None:
    assert cycles("pSC4", weights="skip", order=order) == cycles("pSC4", weights="skip")


def test_a_run_tells_what_was_skipped() -> None:
    net = network(conv("first", 64), conv("a", 128), size=(64, 6, 6)).with_pattern("PSD4_P8")
    result = simulate(net, chip(weights="skip", order="auto"))
    (row,) = json.loads(result.to_json())["skipping"]
    assert row["layer"] == "a"
    assert row["order"] == {"rows": "by_slot", "cols": "by_slot"}
    assert 0 < row["steps"] < row["dense_steps"]
    assert row["max_steps"] == 9  # the FDK
    assert row["mean_steps"] == row["steps"] / row["groups"]
    gated = simulate(net, chip(weights="gate"))
    assert json.loads(gated.to_json())["skipping"] == []


def test_skipping_on_the_bundled_chip() -> None:
    hardware = load_hardware("edge_tpu")
    sparsity = hardware.sparsity.model_copy(update={"weights": "skip", "order": "auto"})
    skipping = hardware.model_copy(update={"sparsity": sparsity})
    net = load_network("resnet18_ps")
    fast, slow = simulate(net, skipping), simulate(net, hardware)
    assert fast.total_cycles < slow.total_cycles
    for one, other in zip(fast.layer_rows, slow.layer_rows, strict=True):
        assert one.cycles <= other.cycles
        assert one.dram_bytes == other.dram_bytes


def test_mistakes_in_the_order_are_told() -> None:
    with pytest.raises(ValueError, match="no array axis named 'row'"):
        chip(weights="skip", order={"row": "by_slot"})
    with pytest.raises(ValueError, match="natural"):
        chip(weights="skip", order="slot")
    with pytest.raises(ValueError, match="pe_queue"):
        chip(weights="skip", pe_queue=0)


def bare(**fields: Any) -> Hardware:
    """One weight in each of 4x4 elements; the sums under each column."""
    return machine(
        memory("BUF", capacity_kib=64),
        memory("ACC", per=["cols"], holds=["output"], capacity_kib=8),
        memory("RF", "regfile", per=["rows", "cols"], holds=["weight"], capacity_bytes=1),
        array={
            "axes": {"rows": 4, "cols": 4},
            "unroll": {"rows": ["C"], "cols": ["K"]},
            "systolic": True,
        },
        dataflow="custom",
        stationary="weight",
        **fields,
    )


def test_tiles_without_a_live_weight_are_not_put_on_the_array() -> None:
    """Four kernels of 3x3 with one live tap, the same in all: one fold where there were nine."""
    net = network(conv("a", 4), size=(4, 5, 5))
    mask = np.zeros((1, 4, 4, 3, 3), dtype=np.bool_)
    mask[..., 1, 1] = True
    sparse = net.with_masks({"a": mask})
    dense = simulate(net, bare()).layer_rows[0]
    skipped = simulate(sparse, bare(sparsity={"weights": "skip"}))
    row = skipped.layer_rows[0]
    assert dense.cycles == 9 * (25 + 3 + 3)
    assert row.cycles == 25 + 3 + 3
    assert row.utilization == 25 * 16 / (row.cycles * 16) < 1
    moved = {(x.level, x.tensor, x.action): x.elements for x in skipped.access_rows}
    assert moved["RF", "weight", "fill"] == 16
    assert moved["RF", "weight", "read"] == 25 * 16
    assert moved["BUF", "input", "read"] == 25 * 4
    assert moved["ACC", "output", "update"] == 25 * 4


def test_utilization_of_a_machine_that_skips_is_that_of_live_weights() -> None:
    result = simulate(load_network("vgg16").with_pattern("PS1_P9"), bare_edge(order="auto"))
    assert all(row.utilization <= 1 for row in result.layer_rows)


def bare_edge(**sparsity: Any) -> Hardware:
    """edge_tpu with 16x16 elements that skip."""
    chip = load_hardware("edge_tpu")
    array = chip.array.model_copy(update={"axes": {"rows": 16, "cols": 16}})
    block = chip.sparsity.model_copy(update={"weights": "skip", **sparsity})
    return chip.model_copy(update={"array": array, "sparsity": block})


@pytest.mark.parametrize("what", ["weights", "activations"])
def test_gating_never_shortens_a_run_that_waits_for_memory(what: str) -> None:
    """The scratch pad of each element is the limit: it waits for it, whatever is gated."""
    net = network(conv("first", 3), conv("a", 3), size=(3, 4, 4)).with_pattern("PS1_P9")
    slow = {"per": ["rows", "cols"], "bandwidth_bits_per_cycle": 1.0, "capacity_bytes": 200}
    given = Activations({"a": Density(0.25, None)}) if what == "activations" else None
    rows = []
    for word in ("none", "gate"):
        chip = machine(
            memory("BUF", capacity_kib=64),
            memory("PAD", "regfile", **slow),
            sparsity={what: word},
        )
        rows.append(simulate(net, chip, activations=given, uneven=False).layer_rows[1])
    plain, gated = rows
    assert plain.cycles == gated.cycles > plain.macs / 6
    assert gated.energy_pj < plain.energy_pj


def test_a_machine_that_holds_plain_weights_in_dram_stores_no_format() -> None:
    net = network(conv("first", 4), conv("a", 4), size=(4, 5, 5)).with_pattern("PS1_P9")
    chip = machine(
        memory("BUF", capacity_kib=64),
        dram={"compressed": False},
        sparsity={"formats": ["periodic", "rle"]},
    )
    row = simulate(net, chip).layer_rows[1]
    assert row.weight_format == "dense"
    assert row.dram_bytes >= row.dram_bound_bytes
    with pytest.raises(InputError, match="holds weights uncompressed"):
        simulate(net, chip, weight_format="rle")
