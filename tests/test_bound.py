"""Bounds never exceed the exact cost of a mapping with that tile."""

from __future__ import annotations

import random
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from machines import machine, memory, random_layer, random_machine

from energysim.axes import Dim, Shape, Tensor
from energysim.mapper import bound
from energysim.mapper.dataflows import of_machine
from energysim.mapper.goal import Objective, Options
from energysim.mapper.incumbent import Incumbent
from energysim.mapper.layout import lay_out, orders
from energysim.mapper.leaves import evaluate
from energysim.mapper.parts import CostModel, Part
from energysim.mapper.problem import Problem
from energysim.mapper.search import arrangements_of
from energysim.mapper.space import Arrangement, Path, arrangements, paths, scatters
from energysim.mapper.tree import Nodes, Tree
from energysim.mapping import Nest, machine_rules
from energysim.model.capacity import Residency, occupancy
from energysim.model.counts import Counts, count
from energysim.model.energy import compute_pj
from energysim.model.sparse import WeightStore
from energysim.model.tables import Ints
from energysim.sparsity import Mask


def problem(
    rng: random.Random,
    objective: Objective,
    *,
    weights: bool = True,
    wide: int = 4,
    irregular: bool = False,
) -> Problem:
    """Draw a layer and a machine."""
    hardware = random_machine(rng)
    kernels = ((1, 1), (3, 3), (2, 1), (3, 3), (5, 1), (4, 2), (1, 7))
    shape = random_layer(rng, largest=rng.choice((2, 4, 7, 12)), wide=wide, kernels=kernels)
    store = None
    if weights:
        pattern = (
            "PS4_P4" if (shape[Dim.R], shape[Dim.S]) == (3, 3) and rng.random() < 0.3 else "dense"
        )
        mask = Mask.of(pattern, shape)
        if irregular:
            live = np.random.default_rng(rng.randrange(2**32)).random(mask.dims) < 0.4
            live.flat[0] = True
            mask = Mask.from_array(live)
        store = WeightStore.of(mask, hardware.bits.weight, hardware.sparsity.formats)
    return Problem(
        hardware,
        shape,
        machine_rules(hardware, has_weights=weights),
        of_machine(hardware),
        store,
        Residency(),
        objective,
        static_pj_per_cycle=hardware.static_mw * 1000 / hardware.clock_mhz,
        compute_pj=compute_pj(hardware, shape.macs, shape.macs, has_weights=weights),
    )


def draw_places(rng: random.Random, here: Arrangement, path: Path) -> Ints:
    """Draw a tile for every step of a path."""
    now = [0] * len(Dim)
    rows = []
    for step in path:
        for dim in step.dims:
            if rng.random() < 0.6:
                now[dim] = int(rng.choice(here.ladders[dim].reach[now[dim]].tolist()))
        rows.append(list(now))
    return np.array([rows], dtype=np.int64).reshape(1, len(path), len(Dim))


def moved(model: CostModel, part: Part, counts: Counts, tensor: Tensor, level: int) -> float:
    """Exact cost of what crosses one boundary."""
    here = model.here
    above = here.outer(tensor, level)
    names = [(above, name) for name in ("read", "update", "update_complete", "hop")]
    if level < here.macs:
        names += [(level, name) for name in ("fill", "drain", "drain_complete")]
    if level == here.macs:
        names.remove((above, "update_complete"))
    cost = 0.0
    for at, name in names:
        cost += float(counts(at, tensor, name)[0]) * part.prices.get((at, tensor, name), 0.0)
    real = [each for each in here.cuts[tensor] if each < here.macs]
    if tensor in part.first_tile and real[:1] == [level]:
        end = "last" if tensor is Tensor.OUTPUT else "first"
        cost += float(counts(level, tensor, end)[0]) * part.first_tile[tensor]
    return cost


def allowed(here: Arrangement, path: Path, places: Ints) -> bool:
    grid = [each.trips.size for each in here.ladders]
    for i, step in enumerate(path):
        rule = np.broadcast_to(bound.window_rule(here, min(step.level, here.macs - 1)), grid)
        if step.tensor is Tensor.INPUT and step.level < here.macs and not rule[tuple(places[0, i])]:
            return False
        if step.level == here.macs:  # a latch keeps one element
            for dim in step.dims:
                if places[0, i, dim] != here.ladders[dim].trips.size - 1:
                    return False
        if scatters(here, path[: i + 1], places[:, :i], places[:, i].T)[0]:
            return False
    return True


def check(seed: int, *, weights: bool = True, irregular: bool = False) -> int:
    """Compare bounds with exact figures of random mappings; how many there were."""
    rng = random.Random(seed)
    asked = problem(rng, rng.choice(list(Objective)), weights=weights, irregular=irregular)
    goal = Incumbent(asked, asked.dataflow)
    checked = 0
    for here in rng.sample(
        places := arrangements_of(asked, asked.dataflow, beyond=False), min(2, len(places))
    ):
        tree = Tree(goal, CostModel(asked, here))
        every = list(paths(here, asked.dataflow))
        for path in rng.sample(every, min(4, len(every))):
            for _ in range(3):
                drawn = draw_places(rng, here, path)
                if allowed(here, path, drawn):
                    _compare(rng, tree, path, drawn)
                    checked += 1
    return checked


def _compare(rng: random.Random, tree: Tree, path: Path, places: Ints) -> None:
    here, model, asked = tree.here, tree.model, tree.goal.problem
    layout = lay_out(here, path, places)
    rank = rng.choice(orders(layout))
    order = sorted(range(len(rank)), key=rank.__getitem__)
    loops = tuple(layout.nest.loops[i] for i in order)
    nest = Nest(loops, layout.nest.cuts, layout.nest.axes)
    trips = tuple(int(layout.trips[0, i]) for i in order)
    counts = count(asked.shape, nest, np.array([trips]), asked.rules)
    where = (asked.shape, here.fan, [(s.tensor, s.level) for s in path], places.tolist())
    for number, part in enumerate([model.energy, model.dram, *model.cycles()]):
        for i, step in enumerate(path):
            tile = places[0, i]
            tensor = step.tensor
            if step.level == here.macs:
                continue
            array = model.cost(part, tensor, step.level, late=step.late)
            lower = float(
                array[tuple(min(a, n - 1) for a, n in zip(tile, array.shape, strict=True))]
            )
            exact = moved(model, part, counts, tensor, step.level)
            fold = part.fold.get((tensor, step.level), 0.0)
            exact += fold * float(counts(step.level, tensor, "folds")[0])
            # a tensor may be loaded less often than its block says if the block is idle
            if not _idle(path, i, places, tensor):
                assert lower <= exact * (1 + 1e-9) + 1e-6, (number, tensor, step.level, where)
    rooms = occupancy(
        asked.hardware, asked.shape, nest, trips, counts, asked.store, asked.residency
    )
    for room in rooms:
        for tensor, bits in room.bits.items():
            at = next(i for i, s in enumerate(path) if s.level == room.level and tensor is s.tensor)
            size = model.room(tensor, room.level)[0]
            tile = tuple(min(a, n - 1) for a, n in zip(places[0, at], size.shape, strict=True))
            assert float(size[tile]) <= bits, (tensor, room.level, where)
    _compare_whole(tree, path, places, nest, counts, fits=all(r.excess_bits <= 0 for r in rooms))


def _compare_whole(
    tree: Tree,
    path: Path,
    places: Ints,
    nest: Nest,
    counts: Counts,
    *,
    fits: bool,
) -> None:
    """Follow the path in the tree: the root's bound is below the exact cost."""
    goal = tree.goal
    energy, cycles, dram = tree.model.measure(nest, counts)
    root = tree.root()
    if not fits:
        return
    assert root is not None
    exact = float(goal.cost(energy, cycles, dram)[0])
    assert float(root.values[0]) <= exact * (1 + 1e-9) + 1e-6, (
        goal.objective,
        tree.here.fan,
        path,
        places.tolist(),
        energy,
        cycles,
        dram,
    )


def _canonical(nodes: Nodes, row: int) -> bool:
    """Whether no tensor has a tile that the loops just outside leave alone.

    The mapping with these loops behind the cut is as good, and meant by its bound.
    """
    places = nodes.places[row : row + 1]
    return not any(_idle(nodes.path, i, places, step.tensor) for i, step in enumerate(nodes.path))


def _idle(path: Path, i: int, places: Ints, tensor: Tensor) -> bool:
    """Whether the loops just outside a cut leave its tile alone (a cut further out is meant)."""
    from energysim.axes import RELEVANT

    for outer, inner in pairwise([*reversed(range(i + 1)), -1]):
        before = places[0, inner] if inner >= 0 else np.zeros(len(Dim), dtype=np.int64)
        cut = [dim for dim in Dim if places[0, outer, dim] != before[dim]]
        if cut:
            return not set(cut) & RELEVANT[tensor] or any(
                dim not in RELEVANT[tensor] for dim in cut
            )
    return False


def descend(rng: random.Random, nodes: Nodes, most: int) -> float:
    """Go on with some of the nodes; the least exact cost found below each is above its bound."""
    if nodes.complete:
        rows = [row for row in range(nodes.values.size) if _canonical(nodes, row)]
        if not rows:
            return np.inf
        nodes = nodes.some(np.array(rows))
        exact = evaluate(nodes.tree, nodes.path, nodes.places)
        worst = int(np.argmax(nodes.values / np.maximum(exact, 1e-30)))
        assert nodes.values[worst] <= exact[worst] * (1 + 1e-9) + 1e-6, (
            nodes.tree.goal.problem.shape,
            nodes.tree.goal.problem.objective,
            nodes.tree.here.fan,
            [(step.tensor, step.level) for step in nodes.path],
            nodes.places[worst].tolist(),
            nodes.values[worst],
            exact[worst],
        )
        return float(exact.min())
    least = np.inf
    for children in nodes.tree.branch(nodes):
        rows = np.arange(children.values.size)
        few = children.some(np.array(rng.sample(rows.tolist(), min(most, rows.size))))
        if few.complete:
            least = min(least, descend(rng, few, most))
        else:
            for row in range(min(2, few.values.size)):
                one = few.some(slice(row, row + 1))
                below = descend(rng, one, most)
                assert one.values[0] <= below * (1 + 1e-9) + 1e-6, (one.path, one.places.tolist())
                least = min(least, below)
    return least


def descend_from_the_root(seed: int) -> int:
    """Compare bounds of partial mappings with exact figures; how many complete ones there were."""
    rng = random.Random(seed)
    asked = problem(rng, rng.choice(list(Objective)))
    asked = replace(asked, options=Options(perfect=rng.random() < 0.2, prune=False))
    goal = Incumbent(asked, asked.dataflow)
    every = arrangements_of(asked, asked.dataflow, beyond=False)
    for here in rng.sample(every, min(2, len(every))):
        root = Tree(goal, CostModel(asked, here)).root()
        if root is not None:
            descend(rng, root, 40)
    return goal.evaluated


@pytest.mark.parametrize("part", range(8))
def test_bounds_of_partial_mappings(part: int) -> None:
    assert sum(descend_from_the_root(1000 * part + seed) for seed in range(6)) > 150


@pytest.mark.parametrize("part", range(8))
def test_bounds_of_random_mappings(part: int) -> None:
    checked = sum(check(1000 * part + seed) for seed in range(14))
    assert checked > 20


@pytest.mark.parametrize("part", range(2))
def test_bounds_with_irregular_masks(part: int) -> None:
    checked = sum(check(700_000 + 1000 * part + seed, irregular=True) for seed in range(14))
    assert checked > 20


def test_a_smaller_tile_may_need_more_room() -> None:
    """Of 10 channels 3 to 5 are live: tiles of 3 hold all of them at once, tiles of 4 two at most.

    With 4 instances inside, tiles of both sizes stand at the last place: 10 in 3 steps, or in 2
    and 2.
    """
    live = np.zeros((1, 1, 10, 1, 1), dtype=np.bool_)
    live[0, 0, 3:6] = True
    store = WeightStore.of(Mask.from_array(live), 8, ["bitmap"])
    shape = Shape((1, 1, 1, 10, 1, 1, 1, 1))
    small, large = store.tile_bits(np.array([1]), np.array([3, 4]), 1)[0].tolist()
    assert (small, large) == (3 * 8 + 3, 2 * 8 + 4)
    hardware = machine(
        memory("BUF", capacity_bytes=100, compressed=True),
        memory("RF", "regfile", per=["cols"], holds=["output"], capacity_bytes=8),
        array={"axes": {"cols": 4}, "unroll": {"cols": ["C"]}},
        dataflow="custom",
    )
    flow = of_machine(hardware)
    (here,) = arrangements(hardware, shape, flow, has_weights=True, latch=frozenset())
    assert here.ladders[Dim.C].sizes(1)[-1] == 4
    assert here.ladders[Dim.C].least_sizes(1)[-1] == 3
    assert bound.packed_bits(here, store, 1).reshape(-1)[-1] == large


@pytest.mark.parametrize("part", range(2))
def test_bounds_without_weights(part: int) -> None:
    assert sum(check(500_000 + 1000 * part + seed, weights=False) for seed in range(25)) > 5
