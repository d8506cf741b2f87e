"""The mapspace: trip counts, loop orders, and that every choice is a mapping that fits inside."""

from __future__ import annotations

import random
from itertools import permutations, product

import numpy as np
import pytest
from machines import cut_dims, every_choice, machine, memory, random_layer, random_machine, single

import energysim as es
from energysim.axes import Dim, Shape, Tensor
from energysim.errors import DoesNotFitError
from energysim.hardware import Hardware
from energysim.mapper.dataflows import DATAFLOWS, get_dataflow
from energysim.mapper.space import (
    KERNEL,
    distinct_trips,
    dram_orders,
    make_template,
    stationarity,
)
from energysim.mapping import machine_rules, uncovered
from energysim.model.capacity import Residency, occupancy
from energysim.model.counts import count, own_loops
from energysim.model.sparse import WeightStore
from energysim.sparsity import Mask

# -- trip counts -----------------------------------------------------------------------------------


@pytest.mark.parametrize("extent", [1, 2, 3, 7, 10, 12, 97, 224, 1000])
def test_one_trip_count_for_each_tile_size(extent: int) -> None:
    trips = distinct_trips(extent).tolist()
    sizes = [-(-extent // trip) for trip in trips]
    assert trips == sorted(set(trips))
    assert set(sizes) == {-(-extent // trip) for trip in range(1, extent + 1)}
    assert len(set(sizes)) == len(sizes)
    # the fewest trips that give the size: none of them is idle
    assert all(trip == -(-extent // size) for trip, size in zip(trips, sizes, strict=True))


# -- loop orders -----------------------------------------------------------------------------------


def relevant_order(order: tuple[Dim, ...], trips: dict[Dim, int]) -> tuple[Dim, ...]:
    return tuple(dim for dim in order if trips[dim] > 1)


@pytest.mark.parametrize("wide", [1, 2, 3, 4, 5, 6])
def test_every_order_behaves_like_a_listed_one(wide: int) -> None:
    dims = tuple(dim for dim in Dim if dim not in KERNEL)[:wide]
    listed = dram_orders(dims)
    assert len(set(listed)) == len(listed)
    assert all(sorted(order) == sorted(dims) for order in listed)
    for running in product((False, True), repeat=wide):
        runs = dict(zip(dims, (1 + more for more in running), strict=True))
        shown = {stationarity(relevant_order(order, runs)) for order in listed}
        every = {stationarity(relevant_order(order, runs)) for order in permutations(dims)}
        assert shown == every


def test_nothing_to_order() -> None:
    assert dram_orders(()) == ((),)


@pytest.mark.parametrize("seed", range(8))
def test_orders_of_one_behaviour_have_the_same_counts(seed: int) -> None:
    """``stationarity`` really decides: every count of every mapping is that of a listed order."""
    rng = random.Random(seed)
    shape = random_layer(rng)
    hardware = random_machine(rng)
    try:
        template = make_template(hardware, shape, get_dataflow(hardware.dataflow), has_weights=True)
    except DoesNotFitError:
        return
    rules = machine_rules(hardware, has_weights=True)
    dims = cut_dims(shape)
    seen: dict[tuple[object, ...], dict[object, int]] = {}
    for order in permutations(dims):
        nest = template.nest(order)
        rows = every_choice(template, nest)
        counts = count(shape, nest, np.array(rows, dtype=np.int64), rules)
        for at, trips in enumerate(rows):
            runs = dict(zip(order, trips, strict=False))
            by_dim = tuple(runs[dim] for dim in dims)
            key = (stationarity(relevant_order(order, runs)), by_dim)
            values = {name: int(value[at]) for name, value in counts.values.items()}
            assert seen.setdefault(key, values) == values


# -- what the dataflow's rule makes of a layer -----------------------------------------------------

SHAPES = {
    "conv": Shape((2, 1, 70, 67, 9, 14, 3, 3), pad=(1, 1), size=(9, 14)),
    "first": Shape((1, 1, 64, 3, 32, 32, 7, 7), stride=(2, 2), pad=(3, 3), size=(64, 64)),
    "large kernel": Shape((1, 1, 5, 2, 4, 4, 13, 15), size=(16, 18)),
    "depthwise": Shape((1, 130, 1, 1, 5, 5, 3, 3), pad=(1, 1), size=(5, 5)),
    "groups": Shape((7, 3, 65, 9, 6, 6, 3, 3), pad=(1, 1), size=(6, 6)),
    "dilated": Shape((1, 1, 8, 8, 6, 6, 3, 3), dilation=(2, 3), pad=(2, 3), size=(6, 6)),
    "1x1 image": Shape((1, 1, 512, 512, 1, 1, 3, 3), pad=(1, 1), size=(1, 1)),
    "linear": Shape((7, 1, 10, 25, 1, 1, 1, 1)),
    "strided": Shape((1, 1, 4, 4, 5, 5, 1, 1), stride=(3, 3), size=(13, 13)),
    "single": Shape((1, 1, 1, 1, 1, 1, 1, 1)),
}


SAMPLES = 25
"""tile sizes of a mapspace that are tried"""


def check_template(hardware: Hardware, shape: Shape, dataflow: str, rng: random.Random) -> None:
    """Every choice covers the layer, stays on the array and fits the inner levels."""
    template = make_template(hardware, shape, get_dataflow(dataflow), has_weights=True)
    order = dram_orders(cut_dims(shape))[-1]
    nest = template.nest(order)
    rules = machine_rules(hardware, has_weights=True)
    store = WeightStore.of(Mask.of("dense", shape), hardware.bits.weight, ["dense"])
    drawn = np.zeros((SAMPLES, len(nest.loops)), dtype=np.int64)
    for group, rows in enumerate(template.choices(nest)):
        drawn[:, own_loops(nest, group)] = rows[rng.choices(range(len(rows)), k=SAMPLES)]
    every = count(shape, nest, drawn, rules)
    for at, trips in enumerate(drawn.tolist()):
        assert uncovered(shape, nest, trips) == {}
        assert min(trips, default=1) >= 1
        for axis, size in enumerate(hardware.axis_sizes):
            fan = [trip for loop, trip in zip(nest.loops, trips, strict=True) if loop.axis == axis]
            assert np.prod(fan, dtype=int) <= size
        counts = single(every, at)
        filled = occupancy(hardware, shape, nest, trips, counts, store, Residency())
        assert all(room.excess_bits <= 0 for room in filled if room.level >= 2)
        # a MAC does at most one multiplication a step
        places = int(np.prod(hardware.axis_sizes))
        assert int(counts.steps[0]) * places >= shape.macs


@pytest.mark.parametrize("dataflow", sorted(DATAFLOWS))
@pytest.mark.parametrize("name", ["edge_tpu", "eyeriss"])
@pytest.mark.parametrize("layer", SHAPES)
def test_every_choice_is_a_mapping(layer: str, name: str, dataflow: str) -> None:
    hardware = es.load_hardware(name)
    check_template(hardware, SHAPES[layer], dataflow, random.Random(f"{layer}{name}{dataflow}"))


@pytest.mark.parametrize("seed", range(60))
def test_every_choice_is_a_mapping_of_random_layers(seed: int) -> None:
    rng = random.Random(seed)
    hardware = random_machine(rng)
    shape = random_layer(rng, largest=9, wide=rng.randint(1, 6))
    try:
        check_template(hardware, shape, hardware.dataflow, rng)
    except DoesNotFitError as error:
        assert "cannot hold one element of each tensor" in str(error)  # noqa: PT017


def test_inner_memories_take_what_they_hold() -> None:
    hardware = machine(
        memory("BUF", capacity_kib=64),
        memory("RF", "regfile", per=["rows", "cols"], holds=["weight"], capacity_bytes=6),
    )
    shape = Shape((1, 1, 9, 8, 4, 4, 1, 1), size=(4, 4))
    template = make_template(hardware, shape, get_dataflow("weight_stationary"), has_weights=True)
    assert template.spatial[1] == ((Dim.C, 0, 2), (Dim.K, 1, 3))
    # 8 channels over 2 rows leave 4 of the 6 bytes that an element's memory holds
    assert (Dim.C, 4) in template.temporal[2]
    # outputs pass the weight that stays
    assert template.temporal[2][-2:] == ((Dim.P, 4), (Dim.Q, 4))
    assert template.holds[2] == {Tensor.WEIGHT}
