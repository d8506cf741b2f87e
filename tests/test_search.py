"""The search against brute force, and what its certificate says."""

from __future__ import annotations

import random
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from brute import best, best_even, price
from machines import machine, memory, random_layer, random_machine
from oracle import walk

from energysim.axes import Shape, Tensor
from energysim.errors import DoesNotFitError
from energysim.hardware import Hardware
from energysim.mapper.dataflows import DATAFLOWS, of_machine, with_dataflow
from energysim.mapper.goal import Objective, Options
from energysim.mapper.problem import Found, Problem
from energysim.mapper.search import search
from energysim.mapping import machine_rules
from energysim.model.capacity import Residency
from energysim.model.counts import count
from energysim.model.energy import compute_pj
from energysim.model.sparse import WeightStore
from energysim.sparsity import Mask


def problem(
    hardware: Hardware,
    shape: Shape,
    objective: Objective = Objective.ENERGY,
    *,
    weights: bool = True,
    options: Options | None = None,
) -> Problem:
    """State what ``simulate`` would ask of the search."""
    store = None
    if weights:
        mask = Mask.of("dense", shape)
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
        options=options or Options(),
    )


def without_latch(hardware: Hardware) -> Hardware:
    return hardware.model_copy(update={"mac": hardware.mac.model_copy(update={"latch": ()})})


def draw(seed: int, most: int) -> tuple[Problem, float] | None:
    """Draw a case and solve it by brute force; None if there are too many mappings."""
    rng = random.Random(seed)
    hardware = random_machine(rng)
    shape = random_layer(rng, largest=rng.choice((3, 4, 5)), wide=rng.choice((1, 1, 2, 2)))
    if max(shape.dims[6:]) > 1:  # brute force does not turn taps around outputs for a latch
        hardware = without_latch(hardware)
    options = Options(perfect=rng.random() < 0.2)
    asked = problem(hardware, shape, rng.choice(list(Objective)), options=options)
    solved = best(asked, asked.objective, most=most)
    if solved is None or not np.isfinite(solved[0]):
        return None
    return asked, solved[0]


@pytest.mark.parametrize("part", range(10))
def test_the_search_equals_brute_force(part: int) -> None:
    compared, seed = 0, 10_000 * part
    while compared < 21:
        seed += 1
        drawn = draw(seed, most=120)
        if drawn is None:
            continue
        asked, least = drawn
        found = search(asked)
        assert found.best.measure.of(asked.objective) == pytest.approx(least, rel=1e-9), seed
        assert found.certificate.optimal
        assert found.certificate.gap == 0
        if compared % 4 == 0:
            plain = replace(asked, options=replace(asked.options, prune=False))
            cost = search(plain).best.measure.of(asked.objective)
            assert cost == pytest.approx(least, rel=1e-9), seed
            check_by_walking(asked, found)
        compared += 1


@pytest.mark.parametrize("part", range(4))
def test_one_cut_a_level_equals_brute_force(part: int) -> None:
    compared, seed = 0, 300_000 + 10_000 * part
    while compared < 8:
        seed += 1
        rng = random.Random(seed)
        hardware = without_latch(random_machine(rng))
        shape = random_layer(rng, largest=rng.choice((3, 4)), wide=rng.choice((1, 2)))
        asked = problem(hardware, shape, rng.choice(list(Objective)))
        asked = replace(asked, dataflow=replace(asked.dataflow, uneven=False))
        least = best_even(asked, asked.objective, most=60)
        if least is None or not np.isfinite(least):
            continue
        found = search(asked).best.measure.of(asked.objective)
        assert found == pytest.approx(least, rel=1e-9), seed
        free = replace(asked, dataflow=replace(asked.dataflow, uneven=True))
        cost = search(free).best.measure.of(asked.objective)
        assert cost <= found * (1 + 1e-9)
        compared += 1


def test_instances_split_up_behind_loops_that_leave_their_tiles() -> None:
    inner = {"holds": ["input", "output"], "capacity_bytes": 4}
    cheap = {"read_pj_per_bit": 0.1, "write_pj_per_bit": 0.1}
    hardware = machine(
        memory("BUF", capacity_bytes={"weight": 5, "input": 7, "output": 8}),
        memory("RF", "regfile", per=["cols"], **inner, **cheap),
        dataflow="free",
        array={"axes": {"cols": 4}},
    )
    asked = problem(hardware, Shape((1, 1, 1, 4, 2, 1, 1, 1), size=(2, 1)))
    unpruned = replace(asked, options=Options(prune=False))
    least = search(unpruned).best.measure.energy
    assert search(asked).best.measure.energy == pytest.approx(least, rel=1e-9)


def test_instances_split_up_as_late_as_pays(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shares of 4 and 3 channels: split up behind the loops over them, both end in one step."""
    inner = {"holds": ["weight", "input"], "capacity_bytes": 31}
    hardware = machine(
        memory("BUF", per=["rows"], capacity_bytes=326, bandwidth_bits_per_cycle=3.5),
        memory("RF", "regfile", per=["rows"], **inner),
        dataflow="weight_stationary",
        array={"axes": {"rows": 2}, "reduce": False, "hop_pj_per_bit": 0.4},
        dram={"bandwidth_bits_per_cycle": 4.0},
        bits={"weight": 4, "input": 8, "output": 8, "psum": 24},
    )
    asked = problem(hardware, Shape((1, 1, 2, 7, 1, 1, 1, 1), size=(1, 1)), Objective.LATENCY)
    found = search(asked).best
    solved = best(asked, Objective.LATENCY, most=20_000)
    assert solved is not None
    assert found.measure.latency == solved[0]
    monkeypatch.setattr("energysim.mapper.leaves.delays", lambda *_: [frozenset()])
    assert search(asked).best.measure.latency > found.measure.latency


def array_machine(rng: random.Random) -> Hardware:
    """Draw a buffer and register files of the processing elements that are almost too small."""
    axes = rng.choice([{"cols": rng.randint(2, 4)}, {"cols": 2, "rows": 2}, {"cols": 3, "rows": 2}])
    tensors = ["weight", "input", "output"]
    holds = rng.choice([tensors, tensors[:2], tensors[1:], tensors[::2], tensors[:1], tensors[2:]])
    cheap = {"read_pj_per_bit": 0.1, "write_pj_per_bit": 0.1}
    levels = [
        memory("BUF", capacity_bytes={tensor: rng.randint(2, 12) for tensor in tensors}),
        memory("RF", "regfile", per=list(axes), holds=holds,
               capacity_bytes=rng.randint(3, 9), **cheap),
    ]  # fmt: skip
    array = {"axes": axes, "multicast": rng.random() < 0.7, "reduce": rng.random() < 0.7}
    return machine(*levels, dataflow=rng.choice(["free", *DATAFLOWS]), array=array)


@pytest.mark.parametrize("part", range(4))
def test_pruning_loses_nothing_on_an_array(part: int) -> None:
    """Instances split up behind loops of their own, with unequal shares and shared windows."""
    compared, seed = 0, 400_000 + 10_000 * part
    while compared < 8:
        seed += 1
        rng = random.Random(seed)
        taps = rng.choice([1, 1, 2, 3])
        k, c, p = rng.choice([(1, 8, 2), (8, 1, 2), (2, 2, 3), (6, 1, 3), (1, 7, 2), (1, 1, 7)])
        shape = Shape((1, 1, k, c, p, 1, taps, 1), size=(p + taps - 1, 1))
        asked = problem(array_machine(rng), shape, rng.choice(list(Objective)))
        try:
            found = search(asked)
        except DoesNotFitError:
            continue
        if found.certificate.mapspace > 20_000:
            continue
        whole = search(replace(asked, options=Options(prune=False)))
        assert found.best.measure.of(asked.objective) == pytest.approx(
            whole.best.measure.of(asked.objective), rel=1e-9
        ), seed
        compared += 1


@pytest.mark.parametrize("seed", range(12))
def test_a_budget_never_claims_too_much(seed: int) -> None:
    rng = random.Random(seed)
    asked = problem(random_machine(rng), random_layer(rng, largest=5, wide=3))
    try:
        whole = search(asked).best.measure.energy
        stopped = search(replace(asked, options=Options(budget_s=0.0)))
    except DoesNotFitError:
        return
    lower = stopped.best.measure.energy * (1 - stopped.certificate.gap)
    assert lower <= whole * (1 + 1e-9)


def check_by_walking(asked: Problem, found: Found) -> None:
    """Count the mapping found once more, step by step, and price it by the scalar path."""
    nest, trips = found.best.nest, found.best.trips
    counts = count(asked.shape, nest, np.array([trips], dtype=np.int64), asked.rules)
    walked = walk(asked.shape, nest, trips, asked.rules)
    assert int(counts.steps[0]) == walked.steps
    for key, value in walked.counts.items():
        assert int(counts(*key)[0]) == value, key
    alone = price(asked, nest, trips, counts)
    assert alone.feasible
    assert alone.energy == pytest.approx(found.best.measure.energy, rel=1e-9)
    assert alone.latency == found.best.measure.latency
    assert alone.dram == pytest.approx(found.best.measure.dram, rel=1e-9)


@pytest.mark.parametrize("seed", range(6))
def test_without_weights(seed: int) -> None:
    rng = random.Random(seed)
    hardware = random_machine(rng)
    pool = Shape((1, 3, 1, 1, 2, 2, 2, 2), stride=(2, 2), size=(4, 4))
    add = Shape((1, 4, 1, 2, 3, 1, 1, 1), size=(3, 1))
    for shape in (pool, add):
        for objective in Objective:
            asked = problem(hardware, shape, objective, weights=False)
            try:
                found = search(asked)
            except DoesNotFitError:
                continue
            plain = replace(asked, options=Options(prune=False))
            cost = found.best.measure.of(objective)
            assert search(plain).best.measure.of(objective) == pytest.approx(cost, rel=1e-9)
            check_by_walking(asked, found)


def test_a_budget_stops_early_and_says_how_far_it_may_be() -> None:
    hardware = machine(
        memory("BUF", capacity_kib=2),
        memory("RF", "regfile", per=["rows", "cols"], capacity_bytes=60, read_pj_per_bit=0.1),
    )
    shape = Shape((1, 1, 30, 20, 13, 13, 3, 3), pad=(1, 1), size=(13, 13))
    whole = search(problem(hardware, shape))
    stopped = search(problem(hardware, shape, options=Options(budget_s=0.0)))
    assert whole.certificate.optimal
    assert not stopped.certificate.optimal
    least, found = whole.best.measure.energy, stopped.best.measure.energy
    assert found >= least
    assert found * (1 - stopped.certificate.gap) <= least * (1 + 1e-9)
    assert stopped.certificate.evaluated < whole.certificate.evaluated


@pytest.mark.parametrize("objective", [Objective.ENERGY, Objective.DRAM, Objective.LATENCY])
@pytest.mark.parametrize("dataflow", sorted(DATAFLOWS))
def test_a_larger_buffer_never_costs_more(dataflow: str, objective: Objective) -> None:
    shape = Shape((1, 1, 24, 20, 8, 6, 3, 3), pad=(1, 1), size=(8, 6))
    costs = []
    for kib in (0.5, 1, 2, 8, 64):
        hardware = machine(
            memory("BUF", capacity_kib=kib, bandwidth_bits_per_cycle=64.0, double_buffered=True),
            dram={"bandwidth_bits_per_cycle": 16.0},
            dataflow=dataflow,
            array={"unroll": {"rows": ["C"], "cols": ["K"]}},
        )
        costs.append(search(problem(hardware, shape, objective)).best.measure.of(objective))
    assert all(larger <= smaller * (1 + 1e-9) for smaller, larger in pairwise(costs))
    assert costs[-1] < costs[0]


def test_a_larger_inner_memory_never_costs_more() -> None:
    shape = Shape((1, 1, 12, 10, 8, 6, 3, 3), pad=(1, 1), size=(8, 6))
    costs = []
    for size in (6, 12, 24, 48, 96, 960):
        hardware = machine(
            memory("BUF", capacity_kib=1, holds=["input", "output"]),
            memory("W", "regfile", per=["rows", "cols"], holds=["weight"], capacity_bytes=20),
            memory("O", "regfile", per=["rows", "cols"], holds=["output"], capacity_bytes=size),
        )
        costs.append(search(problem(hardware, shape)).best.measure.energy)
    assert all(larger <= smaller * (1 + 1e-9) for smaller, larger in pairwise(costs))


@pytest.mark.parametrize("seed", range(8))
def test_freedom_never_costs_more(seed: int) -> None:
    rng = random.Random(seed)
    hardware = random_machine(rng)
    array = hardware.array.model_copy(update={"unroll": {hardware.axis_names[0]: ("K", "C")}})
    shape = random_layer(rng, largest=5, wide=3)
    costs = {}
    for flow in DATAFLOWS:
        machine_ = with_dataflow(hardware, flow).model_copy(update={"array": array})
        named = machine_.model_copy(
            update={
                "array": array.model_copy(
                    update={"unroll": dict.fromkeys(hardware.axis_names, ("K", "C"))}
                )
            }
        )
        try:
            costs[flow] = search(problem(named, shape)).best.measure.energy
        except DoesNotFitError:
            costs[flow] = np.inf
    for flow, cost in costs.items():
        if flow != "no_local_reuse":  # which takes memories away
            assert costs["free"] <= cost * (1 + 1e-9), flow


def test_the_stationary_tensor_is_loaded_once_per_stay() -> None:
    shape = Shape((2, 1, 6, 4, 5, 3, 3, 3), pad=(1, 1), size=(5, 3))
    levels = (
        memory("BUF", capacity_kib=0.25),
        memory("RF", "regfile", per=["rows", "cols"], capacity_bytes=12, read_pj_per_bit=0.1),
    )
    for flow, tensor, names in (
        ("weight_stationary", Tensor.WEIGHT, ("read", "fill")),
        ("input_stationary", Tensor.INPUT, ("read", "fill")),
        ("output_stationary", Tensor.OUTPUT, ("update", "drain")),
    ):
        asked = problem(machine(*levels, dataflow=flow), shape)
        found = search(asked)
        trips = np.array([found.best.trips], dtype=np.int64)
        counts = count(shape, found.best.nest, trips, asked.rules)
        assert counts(1, tensor, names[0])[0] == counts(1, tensor, names[1])[0]


def test_cuts_of_their_own_can_pay() -> None:
    shape = Shape((1, 1, 12, 6, 8, 8, 3, 3), pad=(1, 1), size=(8, 8))
    inner = {"holds": ["weight", "output"], "capacity_bytes": 12}
    hardware = machine(
        memory("BUF", capacity_bytes=60),
        memory("RF", "regfile", per=["rows", "cols"], **inner, read_pj_per_bit=0.1),
    )
    asked = problem(hardware, shape)
    shared = replace(asked, dataflow=replace(asked.dataflow, uneven=False))
    assert search(asked).best.measure.energy < 0.95 * search(shared).best.measure.energy


def test_an_order_is_kept_on_chip() -> None:
    shape = Shape((1, 1, 8, 8, 6, 6, 1, 1), size=(6, 6))
    hardware = machine(
        memory("BUF", capacity_kib=0.25),
        memory("RF", "regfile", per=["rows", "cols"], holds=["output"], capacity_bytes=6),
        dataflow="custom",
        order=["P", "Q", "C"],
        array={"unroll": {"rows": ["K"], "cols": ["K"]}},
    )
    found = search(problem(hardware, shape)).best
    first = max(cut or 0 for cut in found.nest.cuts[1])
    inside = [
        loop.dim.name
        for loop, trips in list(zip(found.nest.loops, found.trips, strict=True))[first:]
        if loop.axis is None and trips > 1 and loop.dim.name in "PQC"
    ]
    assert inside == sorted(inside, key="PQC".index)


def test_no_local_reuse_holds_data_once() -> None:
    shape = Shape((1, 1, 8, 8, 6, 6, 1, 1), size=(6, 6))
    levels = (
        memory("BUF", capacity_kib=1),
        memory("RF", "regfile", per=["rows", "cols"], capacity_bytes=60, read_pj_per_bit=0.1),
    )
    found = search(problem(machine(*levels, dataflow="no_local_reuse"), shape)).best
    assert found.nest.cuts[2] == (None, None, None)


def test_everything_moves_once_where_all_fits() -> None:
    shape = Shape((1, 1, 6, 4, 5, 5, 3, 3), pad=(1, 1), size=(5, 5))
    hardware = machine(
        memory("BUF", capacity_kib=8), bits={"weight": 8, "input": 4, "output": 8, "psum": 32}
    )
    found = search(problem(hardware, shape, Objective.DRAM))
    elements = {tensor: shape.elements(tensor) for tensor in Tensor}
    assert found.best.measure.dram == (
        8 * elements[Tensor.WEIGHT] + 4 * elements[Tensor.INPUT] + 8 * elements[Tensor.OUTPUT]
    )


def test_what_does_not_fit_is_told_with_what_is_missing() -> None:
    hardware = machine(memory("BUF", capacity_bytes=4))
    shape = Shape((1, 1, 4, 4, 4, 4, 3, 3), pad=(1, 1), size=(4, 4))
    with pytest.raises(DoesNotFitError) as caught:
        search(problem(hardware, shape))
    # a weight, an input and a partial sum of 3 bytes
    assert str(caught.value) == (
        "level BUF is too small: 1 bytes are missing for the smallest tiles"
    )
    assert caught.value.exit_code == 3


def test_a_layer_of_one_multiplication() -> None:
    shape = Shape((1, 1, 1, 1, 1, 1, 1, 1))
    found = search(problem(machine(memory("BUF", capacity_bytes=8)), shape))
    assert found.best.measure.dram == 24
    assert found.certificate.optimal


def test_repeated_searches_agree() -> None:
    hardware = machine(memory("BUF", capacity_bytes=200))
    shape = Shape((2, 2, 3, 3, 4, 4, 3, 3), size=(6, 6))
    assert search(problem(hardware, shape)) == search(problem(hardware, shape))


@pytest.mark.parametrize("objective", list(Objective))
def test_runners_up_are_the_next_best(objective: Objective) -> None:
    narrow = {"bandwidth_bits_per_cycle": 4.0}
    hardware = machine(memory("BUF", capacity_bytes=60), static_mw=1.0, dram=narrow)
    shape = Shape((1, 1, 3, 2, 3, 3, 3, 3), size=(5, 5))
    found = search(problem(hardware, shape, objective, options=Options(runners_up=3)))
    every = search(problem(hardware, shape, objective, options=Options(runners_up=3, prune=False)))
    costs = [each.measure.of(objective) for each in (found.best, *found.others)]
    assert costs == pytest.approx(
        [each.measure.of(objective) for each in (every.best, *every.others)], rel=1e-9
    )
    assert len(costs) == 4
    assert all(one < other * (1 - 1e-9) for one, other in pairwise(costs))
    assert found.certificate.evaluated < every.certificate.evaluated
    assert search(problem(hardware, shape, objective)).others == ()
