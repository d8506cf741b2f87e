"""The mapspace: ladders of tile sizes, unrollings, orders of cuts, and its size."""

from __future__ import annotations

import numpy as np
import pytest
from brute import cut_orders, tiles
from hypothesis import given
from hypothesis import strategies as st
from machines import machine, memory
from test_bound import problem

from energysim.axes import RELEVANT, Dim, Shape, Tensor
from energysim.mapper.dataflows import DATAFLOWS, Dataflow, get_dataflow, of_machine, unrollings
from energysim.mapper.goal import Objective
from energysim.mapper.space import Arrangement, Ladder, arrangements, paths, size_of

FREE = frozenset[Tensor]()


def arranged(shape: Shape, *levels: dict[str, object], **fields: object) -> list[Arrangement]:
    hardware = machine(*levels, **fields)
    flow = of_machine(hardware)
    return arrangements(hardware, shape, flow, has_weights=True, latch=FREE)


@given(st.integers(1, 300), st.integers(1, 20), st.integers(1, 6))
def test_ladders_have_one_product_for_every_tile(extent: int, array: int, part: int) -> None:
    fans = (1, min(part, extent), min(part, extent) * array)
    ladder = Ladder.of(extent, fans, perfect=False, beyond=False)
    steps = -(-extent // fans[-1])
    sizes = {tuple(-(-extent // (trips * fan)) for fan in fans) for trips in range(1, steps + 1)}
    seen = [
        tuple(int(ladder.sizes(level)[i]) for level in range(3)) for i in range(ladder.trips.size)
    ]
    assert set(seen) == sizes
    assert len(seen) == len(sizes)
    assert ladder.sizes(2)[-1] == 1


@given(st.integers(2, 200), st.integers(1, 9))
def test_a_loop_leads_from_one_tile_to_the_next(extent: int, fan: int) -> None:
    ladder = Ladder.of(extent, (1, fan), perfect=False, beyond=False)
    for outer, further in enumerate(ladder.reach):
        for inner in further.tolist():
            trips = ladder.loop(outer, inner) * int(ladder.trips[outer])
            at = int(np.searchsorted(ladder.trips, trips, side="right")) - 1
            assert at == inner
            assert (ladder.loop(outer, inner) == 1) == (outer == inner)


@given(st.integers(2, 200))
def test_the_last_piece_is_split_too(extent: int) -> None:
    """Follow every chain of two tiles piece by piece."""
    ladder = Ladder.of(extent, (1, 1), perfect=False, beyond=False)
    for first in ladder.reach[0].tolist():
        size = -(-extent // int(ladder.trips[first]))
        last = (extent - 1) % size + 1
        for second in ladder.reach[first].tolist():
            if second != first:
                assert last > -(-size // ladder.loop(first, second))


@given(st.integers(1, 200), st.integers(1, 16))
def test_perfect_ladders_divide(extent: int, room: int) -> None:
    fan = max(n for n in range(1, room + 1) if extent % n == 0)
    ladder = Ladder.of(extent, (1, fan), perfect=True, beyond=False)
    assert all(extent % (trips * fan) == 0 for trips in ladder.trips.tolist())


def test_unrollings_fill_the_array() -> None:
    hardware = machine(memory("BUF", capacity_kib=1), array={"axes": {"rows": 12, "cols": 14}})
    extents = dict(zip(Dim, (1, 1, 64, 32, 28, 28, 3, 3), strict=True))
    flow = Dataflow("x", "", ((Dim.R, Dim.K, Dim.C), (Dim.P, Dim.K)))
    found = unrollings(hardware, extents, flow)
    assert found[0] == ((Dim.R, 0, 3), (Dim.K, 0, 4), (Dim.P, 1, 14))
    assert ((Dim.R, 0, 3), (Dim.C, 0, 4), (Dim.K, 1, 14)) in found
    assert len({frozenset(fan) for fan in found}) == len(found)
    for fan in found:
        for axis, room in enumerate(hardware.axis_sizes):
            used = int(np.prod([size for _, own, size in fan if own == axis]))
            assert used <= room
            for dim in flow.unroll[axis]:  # nothing more goes in
                taken = int(np.prod([size for each, _, size in fan if each is dim]))
                assert room // used == 1 or taken >= extents[dim]


def test_dims_smaller_than_the_axis_are_joined_by_another() -> None:
    hardware = machine(memory("BUF", capacity_kib=1), array={"axes": {"rows": 16}})
    extents = dict(zip(Dim, (1, 1, 8, 3, 1, 1, 1, 1), strict=True))
    flow = Dataflow("x", "", ((Dim.C, Dim.K),))
    assert unrollings(hardware, extents, flow) == [
        ((Dim.C, 0, 3), (Dim.K, 0, 5)),
        ((Dim.K, 0, 8), (Dim.C, 0, 2)),
    ]


def test_bypass_is_a_choice() -> None:
    shape = Shape((1, 1, 4, 4, 1, 1, 1, 1))
    found = arranged(shape, memory("BUF", capacity_kib=1, bypass=["weight", "output"]))
    assert {here.holds[1] for here in found} == {
        frozenset(Tensor),
        frozenset({Tensor.INPUT, Tensor.OUTPUT}),
        frozenset({Tensor.WEIGHT, Tensor.INPUT}),
        frozenset({Tensor.INPUT}),
    }


@pytest.mark.parametrize("flow", sorted(DATAFLOWS))
def test_blocks_hold_only_dims_of_their_tensor(flow: str) -> None:
    shape = Shape((2, 1, 4, 4, 4, 4, 3, 3), size=(6, 6))
    levels = (
        memory("BUF", capacity_kib=1),
        memory("RF", "regfile", per=["rows", "cols"], holds=["weight"], capacity_bytes=9),
    )
    (here, *_) = arranged(shape, *levels, dataflow=flow)
    every = list(paths(here, get_dataflow(flow)))
    assert every
    for path in every:
        for step in path:
            assert set(step.dims) <= RELEVANT[step.tensor]


@pytest.mark.parametrize("seed", range(40))
def test_the_size_of_a_mapspace_is_what_can_be_listed(seed: int) -> None:
    import random

    asked = problem(random.Random(seed), Objective.ENERGY, wide=2)
    flow = asked.dataflow
    for here in arrangements(asked.hardware, asked.shape, flow, has_weights=True, latch=FREE)[:2]:
        listed = 0
        for path in paths(here, flow):
            chains = {((0,) * len(Dim)): 1}
            for step in path:
                after: dict[tuple[int, ...], int] = {}
                for now, many in chains.items():
                    options = [
                        here.ladders[dim].reach[now[dim]].tolist()
                        if dim in step.dims
                        else [now[dim]]
                        for dim in Dim
                    ]
                    for place in np.stack(np.meshgrid(*options, indexing="ij"), -1).reshape(-1, 8):
                        key = tuple(place.tolist())
                        after[key] = after.get(key, 0) + many
                chains = after
            listed += sum(chains.values())
        assert size_of(here, flow) == listed


def test_brute_force_lists_more_than_the_canonical_blocks() -> None:
    import random

    asked = problem(random.Random(3), Objective.ENERGY, wide=1)
    here = arrangements(
        asked.hardware, asked.shape, asked.dataflow, has_weights=True, latch=asked.rules.latch
    )[0]
    orders = cut_orders(here)
    assert orders
    assert all(tiles(here, asked, order).ndim == 3 for order in orders)
