"""The search against brute force: every order and every tile size, one mapping after the other."""

from __future__ import annotations

import random
from dataclasses import dataclass, replace
from itertools import pairwise, permutations

import numpy as np
import pytest
from machines import cut_dims, every_choice, machine, memory, random_layer, random_machine, single

from energysim.axes import Dim, Shape, Tensor
from energysim.errors import DoesNotFitError
from energysim.hardware import Hardware
from energysim.mapper import search as module
from energysim.mapper.dataflows import DATAFLOWS, get_dataflow
from energysim.mapper.search import TIE, Found, Objective, Problem, search
from energysim.mapper.space import dram_orders, make_template
from energysim.mapping import Nest, machine_rules
from energysim.model.capacity import Residency, occupancy
from energysim.model.counts import Counts, count
from energysim.model.energy import compute_pj, tariff
from energysim.model.latency import latency
from energysim.model.sparse import WeightStore
from energysim.sparsity import Mask


def problem(
    hardware: Hardware,
    shape: Shape,
    objective: Objective = Objective.ENERGY,
    *,
    pattern: str = "dense",
    weights: bool = True,
    residency: Residency | None = None,
) -> Problem:
    """State what ``simulate`` would ask of the search."""
    store = None
    if weights:
        store = WeightStore.of(
            Mask.of(pattern, shape), hardware.bits.weight, hardware.sparsity.formats
        )
    return Problem(
        hardware,
        shape,
        machine_rules(hardware, has_weights=weights),
        get_dataflow(hardware.dataflow),
        store,
        residency or Residency(),
        objective,
        static_pj_per_cycle=hardware.static_mw * 1000 / hardware.clock_mhz,
        compute_pj=compute_pj(hardware, shape.macs, shape.macs, has_weights=weights),
    )


@dataclass(frozen=True)
class Price:
    """The measures of one mapping, from its counts alone."""

    energy: float
    dram: float
    latency: float
    feasible: bool

    def of(self, objective: Objective) -> float:
        return self.edp if objective is Objective.EDP else float(getattr(self, objective))

    @property
    def edp(self) -> float:
        return self.energy * self.latency


def price(asked: Problem, nest: Nest, trips: tuple[int, ...], counts: Counts) -> Price:
    """Measure one mapping (B = 1) by the scalar code path."""
    hardware = asked.hardware
    prices = tariff(hardware, nest, asked.store, asked.residency.tensors)
    energy, dram = prices.once_pj(), 0.0
    for key, bits in prices.bits.items():
        elements = int(counts(*key)[0])
        level = hardware.levels[key[0]]
        writes = key[2] in ("fill", "update", "update_complete")
        energy += elements * bits * (level.write_pj_per_bit if writes else level.read_pj_per_bit)
        dram += elements * bits if key[0] == 0 else 0.0
    for key, bits in prices.hop_bits.items():
        energy += int(counts(*key)[0]) * bits * hardware.array.hop_pj_per_bit
    time = latency(
        hardware,
        nest,
        prices,
        steps=counts.steps,
        value=counts.values.get,
        used=counts.used,
        vector=asked.store is None,
    )
    cycles = float(time.total[0])
    energy += cycles * asked.static_pj_per_cycle + asked.compute_pj
    filled = occupancy(hardware, asked.shape, nest, trips, counts, asked.store, asked.residency)
    return Price(energy, dram, cycles, all(room.excess_bits <= 0 for room in filled))


def brute_force(asked: Problem) -> tuple[list[Price], int]:
    """Price what fits, over every order and tile size, and count the tiles that fit."""
    shape = asked.shape
    template = make_template(
        asked.hardware, shape, asked.dataflow, has_weights=asked.store is not None
    )
    feasible: list[Price] = []
    fitting: set[int] = set()
    for order in permutations(cut_dims(shape)):
        nest = template.nest(order)
        rows = every_choice(template, nest)
        counts = count(
            shape, nest, np.array(rows, dtype=np.int64).reshape(len(rows), -1), asked.rules
        )
        prices = [price(asked, nest, trips, single(counts, at)) for at, trips in enumerate(rows)]
        feasible += [found for found in prices if found.feasible]
        fitting.add(sum(found.feasible for found in prices))
    assert len(fitting) == 1  # what fits has nothing to do with the order
    return feasible, fitting.pop()


def check_against_brute_force(asked: Problem) -> bool:
    """Search under all four objectives; whether anything fits."""
    try:
        every, fits = brute_force(asked)
    except DoesNotFitError:
        with pytest.raises(DoesNotFitError):
            search(asked)
        return False
    if not fits:
        with pytest.raises(DoesNotFitError):
            search(asked)
        return False
    for objective in Objective:
        given = replace(asked, objective=objective)
        found = search(given)
        counts = count(
            asked.shape, found.nest, np.array([found.trips], dtype=np.int64), asked.rules
        )
        mine = price(given, found.nest, found.trips, counts)
        assert mine.feasible
        least = min(each.of(objective) for each in every)
        assert mine.of(objective) == pytest.approx(least, rel=2e-9, abs=1e-9)
        # of those that are as good, the one of least energy
        good = [each.energy for each in every if each.of(objective) <= least * (1 + TIE)]
        assert mine.energy == pytest.approx(min(good), rel=2e-9)
        orders = len(dram_orders(cut_dims(asked.shape)))
        assert found.feasible == fits * orders
        assert found.mapspace % orders == 0
        assert found.mapspace >= found.feasible
    return True


@pytest.mark.parametrize("seed", range(40))
def test_no_mapping_is_cheaper(seed: int) -> None:
    rng = random.Random(seed)
    hardware, shape = random_machine(rng), random_layer(rng, wide=rng.choice((2, 3, 3, 4)))
    pattern = "dense"
    if shape[Dim.R] == shape[Dim.S] == 3:
        pattern = rng.choice(("dense", "PS4_P4", "PSD2_P8", "pSC4"))
    resident = {tensor for tensor in hardware.levels[1].tensors if rng.random() < 0.2}
    if not isinstance(hardware.levels[1].capacity_bits(), int):
        resident = set()  # memories of their own keep nothing
    around = Residency(frozenset(resident), rng.choice((0, 0, 64)) if resident else 0)
    check_against_brute_force(problem(hardware, shape, pattern=pattern, residency=around))


def test_random_machines_are_of_many_kinds() -> None:
    solved, spread, packed = 0, 0, 0
    for seed in range(40):
        rng = random.Random(seed)
        hardware = random_machine(rng)
        asked = problem(hardware, random_layer(rng, wide=2))
        try:
            nest = search(asked).nest
        except DoesNotFitError:
            continue
        solved += 1
        outermost = hardware.levels[1]
        fan = {loop.axis for loop in nest.loops} & hardware.level_axes(1)
        spread += bool(fan)
        packed += outermost.compressed and not isinstance(outermost.capacity_bits(), int)
    assert min(solved, 5 * spread, 10 * packed) >= 20


def test_of_equally_good_mappings_the_one_of_least_energy_is_taken() -> None:
    """Where the MACs decide how long it takes, or much fits, many are equally good."""
    hardware = machine(
        memory("BUF", capacity_bytes=160, double_buffered=True),
        memory("RF", "regfile", per=["rows", "cols"], holds=["weight"], capacity_bytes=2),
    )
    for shape in (
        Shape((1, 1, 4, 4, 3, 3, 1, 1), size=(3, 3)),
        Shape((1, 1, 3, 3, 3, 2, 3, 3), pad=(1, 1), size=(3, 2)),
    ):
        every, _ = brute_force(problem(hardware, shape))
        for objective in (Objective.DRAM, Objective.LATENCY):
            least = min(each.of(objective) for each in every)
            good = [each.energy for each in every if each.of(objective) <= least * (1 + TIE)]
            assert max(good) > 1.05 * min(good)
            _, mine = searched(hardware, shape, objective)
            assert mine.of(objective) == pytest.approx(least, rel=2e-9)
            assert mine.energy == pytest.approx(min(good), rel=2e-9)


@pytest.mark.parametrize("dataflow", sorted(DATAFLOWS))
@pytest.mark.parametrize("inner", ["none", "columns", "elements", "both"])
def test_no_mapping_is_cheaper_under_any_dataflow(dataflow: str, inner: str) -> None:
    levels = [
        memory("BUF", capacity_bytes=150, double_buffered=True, bandwidth_bits_per_cycle=40.0)
    ]
    if inner in ("columns", "both"):
        levels.append(memory("ACC", per=["cols"], holds=["output"], capacity_bytes=12))
    if inner in ("elements", "both"):
        levels.append(
            memory("RF", "regfile", per=["rows", "cols"], holds=["weight"], capacity_bytes=4)
        )
    hardware = machine(
        *levels, dataflow=dataflow, dram={"bandwidth_bits_per_cycle": 10.0}, static_mw=3.0
    )
    shape = Shape((1, 1, 4, 3, 4, 3, 3, 3), pad=(1, 1), size=(4, 3))
    assert check_against_brute_force(problem(hardware, shape))
    batched = Shape((3, 1, 5, 4, 1, 1, 1, 1))
    assert check_against_brute_force(problem(hardware, batched))


@pytest.mark.parametrize("seed", range(10))
def test_no_mapping_is_cheaper_without_weights(seed: int) -> None:
    rng = random.Random(seed)
    hardware = random_machine(rng)
    pool = Shape((2, 3, 1, 1, 2, 2, 2, 2), stride=(2, 2), size=(4, 4))
    add = Shape((1, 4, 1, 2, 3, 3, 1, 1), size=(3, 3))
    for shape in (pool, add):
        check_against_brute_force(problem(hardware, shape, weights=False))


def test_cost_of_the_grid_is_the_cost_one_by_one() -> None:
    rng = random.Random(5)
    compared = 0
    while compared < 6:
        hardware, shape = random_machine(rng), random_layer(rng, wide=3)
        try:
            template = make_template(
                hardware, shape, get_dataflow(hardware.dataflow), has_weights=True
            )
        except DoesNotFitError:
            continue
        for order in dram_orders(cut_dims(shape))[:3]:
            nest = template.nest(order)
            rows = every_choice(template, nest)
            asked = problem(hardware, shape)
            expansion = module._expansions(template, (order,), asked.rules)[order]
            fits = np.ones(len(rows), dtype=np.bool_)
            for objective in (Objective.ENERGY, Objective.DRAM, Objective.LATENCY):
                given = replace(asked, objective=objective)
                (costs,) = module._Grid(given, nest, expansion, fits).costs()
                for at in range(0, len(rows), max(1, len(rows) // 8)):
                    counts = count(shape, nest, np.array([rows[at]], dtype=np.int64), asked.rules)
                    alone = price(given, nest, rows[at], counts).of(objective)
                    if objective is Objective.DRAM:  # what moves once is the same for all
                        once = tariff(hardware, nest, asked.store).once_bits
                        alone -= sum(bits for key, bits in once.items() if key[0] == 0)
                    assert costs[at] == pytest.approx(alone, rel=1e-9, abs=1e-9)
        compared += 1


def test_a_grid_in_slabs_gives_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    hardware = machine(memory("BUF", capacity_bytes=300), dram={"bandwidth_bits_per_cycle": 9.0})
    shape = Shape((2, 1, 6, 5, 4, 4, 3, 3), pad=(1, 1), size=(4, 4))
    for objective in Objective:
        asked = problem(hardware, shape, objective)
        whole = search(asked)
        monkeypatch.setattr(module, "GRID_LIMIT", 7)
        assert search(asked) == whole
        monkeypatch.undo()


def searched(hardware: Hardware, shape: Shape, objective: Objective) -> tuple[Found, Price]:
    """Search and measure."""
    asked = problem(hardware, shape, objective)
    found = search(asked)
    counts = count(shape, found.nest, np.array([found.trips], dtype=np.int64), asked.rules)
    return found, price(asked, found.nest, found.trips, counts)


@pytest.mark.parametrize("objective", [Objective.ENERGY, Objective.DRAM, Objective.LATENCY])
@pytest.mark.parametrize("dataflow", sorted(DATAFLOWS))
def test_a_larger_buffer_never_costs_more(dataflow: str, objective: Objective) -> None:
    shape = Shape((1, 1, 24, 20, 9, 7, 3, 3), pad=(1, 1), size=(9, 7))
    costs = []
    for kib in (0.25, 0.5, 1, 2, 4, 8, 16, 64):
        hardware = machine(
            memory("BUF", capacity_kib=kib, bandwidth_bits_per_cycle=64.0, double_buffered=True),
            dram={"bandwidth_bits_per_cycle": 16.0},
            dataflow=dataflow,
        )
        costs.append(searched(hardware, shape, objective)[1].of(objective))
    assert all(larger <= smaller * (1 + 1e-9) for smaller, larger in pairwise(costs))
    assert costs[-1] < costs[0]


def test_fused_tiles_move_everything_once_where_all_fits() -> None:
    shape = Shape((1, 1, 6, 4, 5, 5, 3, 3), pad=(1, 1), size=(5, 5))
    hardware = machine(
        memory("BUF", capacity_kib=8), bits={"weight": 8, "input": 4, "output": 8, "psum": 32}
    )
    found, cost = searched(hardware, shape, Objective.DRAM)
    elements = {tensor: shape.elements(tensor) for tensor in Tensor}
    assert cost.dram == (
        8 * elements[Tensor.WEIGHT] + 4 * elements[Tensor.INPUT] + 8 * elements[Tensor.OUTPUT]
    )
    assert set(found.trips[: len(cut_dims(shape))]) == {1}


def test_what_does_not_fit_is_told_with_what_is_missing() -> None:
    hardware = machine(memory("BUF", capacity_bytes=10))
    shape = Shape((1, 1, 4, 4, 4, 4, 3, 3), pad=(1, 1), size=(4, 4))
    with pytest.raises(DoesNotFitError) as caught:
        search(problem(hardware, shape))
    # 9 weights, the four inputs that a corner window touches at least are 9 away from the corner,
    # and one partial sum of 3 bytes: 21 bytes
    assert str(caught.value) == (
        "no tile fits level BUF: 11 bytes are missing for the smallest one"
    )
    assert caught.value.exit_code == 3


def test_a_tile_of_exactly_the_capacity_fits() -> None:
    shape = Shape((1, 1, 4, 4, 4, 4, 3, 3), pad=(1, 1), size=(4, 4))
    assert search(problem(machine(memory("BUF", capacity_bytes=21)), shape)).feasible
    with pytest.raises(DoesNotFitError, match="1 bytes are missing"):
        search(problem(machine(memory("BUF", capacity_bytes=20)), shape))


def test_a_layer_of_one_multiplication() -> None:
    shape = Shape((1, 1, 1, 1, 1, 1, 1, 1))
    found, cost = searched(machine(memory("BUF", capacity_bytes=8)), shape, Objective.ENERGY)
    assert (found.mapspace, found.feasible) == (1, 1)
    assert cost.dram == 24


def test_repeated_searches_agree() -> None:
    hardware = machine(memory("BUF", capacity_bytes=200))
    shape = Shape((2, 2, 3, 3, 4, 4, 3, 3), size=(6, 6))
    assert search(problem(hardware, shape)) == search(problem(hardware, shape))
