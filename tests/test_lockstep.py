"""Array steps with zeros skipped against a walk that delivers tap by tap, and against DESIGN."""

from __future__ import annotations

import csv
import math
import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import permutations, product, zip_longest
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from energysim.axes import Dim, Shape
from energysim.errors import InputError
from energysim.model.lockstep import LockStep, Spread, lock_step
from energysim.sparsity import PATTERNS, Mask

Bools = npt.NDArray[np.bool_]

PERIODIC = sorted(name for name, pattern in PATTERNS.items() if not pattern.random)
STATIONARY = (Spread(Dim.C, 64, "rows"), Spread(Dim.K, 64, "cols"))
"""The 64x64 weight-stationary array of DESIGN section 5."""
K_INSIDE, C_INSIDE = (Dim.G, Dim.C, Dim.K), (Dim.G, Dim.K, Dim.C)


def layer(name: str, filters: int, channels: int, groups: int = 1) -> Mask:
    shape = Shape((1, groups, filters, channels, 1, 1, 3, 3), size=(3, 3))
    return Mask.of(name, shape)


# --- the walk: deliver one tap a cycle, port by port ----------------------------------------------


@dataclass
class Walk:
    """What an array that is stepped cycle by cycle does."""

    steps: int = 0
    macs: int = 0
    port_waits: int = 0
    lost: Fraction = Fraction(0)
    groups: tuple[tuple[int, frozenset[int], frozenset[int], frozenset[int]], ...] = ()
    """steps and indices of G, K and C of every group"""


def cut(classes: Iterable[list[int]], spreads: Sequence[Spread], dim: Dim) -> list[dict[int, int]]:
    """Tiles of a dim, each a mapping of place to index; the classes take turns."""
    count = math.prod(s.count for s in spreads if s.dim is dim)
    piece = math.prod(s.piece for s in spreads if s.dim is dim)
    by_class: list[list[dict[int, int]]] = []
    for members in classes:
        by_class.append([])
        rest = members
        while rest:
            block, rest = rest[: count * piece], rest[count * piece :]
            walks = [block[i * piece : (i + 1) * piece] for i in range(count)]
            for turn in range(piece):
                tile = {i: walk[turn] for i, walk in enumerate(walks) if turn < len(walk)}
                if tile:
                    by_class[-1].append(tile)
    return [tile for row in zip_longest(*by_class) for tile in row if tile]


def chunks(extent: int, spreads: Sequence[Spread], dim: Dim) -> list[list[int]]:
    """Rows or columns of a kernel that each place of the array takes."""
    count = math.prod(s.count for s in spreads if s.dim is dim)
    size = math.ceil(extent / count)
    return [list(range(i, min(i + size, extent))) for i in range(0, extent, size)]


Task = list[set[tuple[int, int]]]
"""Taps that the processing elements of one port still have to do, one set for each of them."""


def all_tiles(
    live: Bools, spreads: Sequence[Spread], order: Mapping[str, str], period: int | None
) -> dict[Dim, list[dict[int, int]]]:
    """Tiles of G, K and C in the order of their channels."""
    groups, filters, channels = live.shape[:3]
    strides = {Dim.G: filters + channels, Dim.K: 1, Dim.C: 1}
    tiles = {}
    for dim, extent in ((Dim.G, groups), (Dim.K, filters), (Dim.C, channels)):
        classes: dict[int, list[int]] = {}
        grouped = any(order.get(s.axis) == "by_slot" for s in spreads if s.dim is dim)
        for index in range(extent):
            residue = index * strides[dim] % period if grouped and period else 0
            classes.setdefault(residue, []).append(index)
        tiles[dim] = cut((classes[r] for r in sorted(classes)), spreads, dim)
    return tiles


def load_ports(
    live: Bools, spreads: Sequence[Spread], batch: Sequence[dict[Dim, dict[int, int]]]
) -> list[list[Task]]:
    """What every port has to serve, one task for each tile of the batch."""
    rows, columns = chunks(live.shape[3], spreads, Dim.R), chunks(live.shape[4], spreads, Dim.S)
    ports: dict[tuple[int, int, int, int], list[Task]] = {}
    for step in batch:
        for (gp, g), (cp, c) in product(step[Dim.G].items(), step[Dim.C].items()):
            for (i, part_r), (j, part_s) in product(enumerate(rows), enumerate(columns)):
                taps = set(product(part_r, part_s))
                task = [
                    {(r, s) for r, s in taps if live[g, k, c, r, s]} for k in step[Dim.K].values()
                ]
                ports.setdefault((gp, cp, i, j), []).append(task)
    return list(ports.values())


def serve(ports: list[list[Task]], result: Walk) -> int:
    """Deliver one tap a cycle through every port until all is done; the cycles it took."""
    cycles, delivered = 0, 0
    while any(any(map(any, tasks)) for tasks in ports):
        cycles += 1
        for tasks in ports:
            while tasks and not any(tasks[0]):
                tasks.pop(0)
            if not tasks:
                result.port_waits += 1
                continue
            tap = min(set[tuple[int, int]]().union(*tasks[0]))
            delivered += 1
            for kernel in tasks[0]:
                if tap in kernel:
                    kernel.remove(tap)
                    result.macs += 1
    result.steps += cycles
    result.lost += cycles - Fraction(delivered, len(ports))
    return cycles


def walk(
    live: Bools,
    spreads: Sequence[Spread],
    *,
    order: Mapping[str, str],
    loops: Sequence[Dim],
    pe_queue: int | None,
    period: int | None,
) -> Walk:
    """Step the array through all tiles; everyone waits for everyone at the end of a queue."""
    tiles = all_tiles(live, spreads, order, period)
    nest = [dict(zip(loops, step, strict=True)) for step in product(*(tiles[dim] for dim in loops))]
    result = Walk()
    size = pe_queue or len(nest)
    for start in range(0, len(nest), size):
        batch = nest[start : start + size]
        cycles = serve(load_ports(live, spreads, batch), result)
        touched = [
            frozenset(index for step in batch for index in step[dim].values())
            for dim in (Dim.G, Dim.K, Dim.C)
        ]
        result.groups += ((cycles, touched[0], touched[1], touched[2]),)
    return result


def random_case(rng: random.Random) -> tuple[Mask | Bools, Bools, dict[str, Any]]:
    """A mask, the same written out, and the other arguments."""
    groups, filters, channels = rng.choice((1, 1, 2, 3, 4)), rng.randint(1, 14), rng.randint(1, 14)
    mask: Mask | Bools
    period: int | None
    if rng.random() < 0.7:
        mask = layer(rng.choice(sorted(PATTERNS)), filters, channels, groups)
        live = mask.array()
        period = mask.pattern.period if mask.periodic else None
    else:
        kernel = (rng.randint(1, 5), rng.randint(1, 5))
        noise = np.random.default_rng(rng.randrange(2**32))
        live = noise.random((groups, filters, channels, *kernel)) < rng.choice(
            (0, 0.1, 0.4, 0.8, 1)
        )
        mask, period = live, None
    given = None
    if rng.random() < 0.3 or (period is None and rng.random() < 0.7):
        given = period = rng.randint(1, 9)
    elif rng.random() < 0.3:
        mask, given = live, period
    dims = rng.sample((Dim.K, Dim.C, Dim.G, Dim.R, Dim.S, Dim.P), rng.randint(0, 4))
    if rng.random() < 0.2:
        dims.append(rng.choice((Dim.K, Dim.C)))
    spreads = [
        Spread(
            dim,
            rng.randint(1, 6),
            rng.choice(("rows", "cols", "deep")),
            rng.choice((1, 1, 1, 2, 3)) if dim in (Dim.G, Dim.K, Dim.C) else 1,
        )
        for dim in dims
    ]
    words = ("natural", "by_slot") if period else ("natural",)
    return (
        mask,
        live,
        {
            "spreads": spreads,
            "order": {s.axis: rng.choice(words) for s in spreads},
            "loops": rng.choice(list(permutations((Dim.G, Dim.K, Dim.C)))),
            "pe_queue": rng.choice((1, 1, 1, 2, 3, 5, None)),
            "period": given,
        },
    )


def differences(mask: Mask | Bools, live: Bools, arguments: dict[str, Any]) -> list[str]:
    """Everything in which the count and the walk differ."""
    rest = {name: value for name, value in arguments.items() if name != "spreads"}
    found = lock_step(mask, arguments["spreads"], **rest)
    period = rest["period"]
    if period is None and isinstance(mask, Mask) and mask.periodic:
        period = mask.pattern.period
    seen = walk(live, arguments["spreads"], **{**rest, "period": period})
    most = max(group[0] for group in seen.groups)
    first = next(group for group in seen.groups if group[0] == most)
    pairs = {
        "steps": (found.steps, seen.steps),
        "effective_macs": (found.effective_macs, seen.macs),
        "port_waits": (found.port_waits, seen.port_waits),
        "groups": (found.groups, len(seen.groups)),
        "max_steps": (found.max_steps, most),
        "mean_steps": (found.mean_steps, seen.steps / len(seen.groups)),
        "slowest": (
            (
                found.slowest.steps,
                frozenset(found.slowest.groups),
                frozenset(found.slowest.filters),
                frozenset(found.slowest.channels),
            ),
            first,
        ),
    }
    dense = walk(np.ones_like(live), arguments["spreads"], **{**rest, "order": {}, "pe_queue": 1})
    pairs["dense_steps"] = (found.dense_steps, dense.steps)
    apart = [f"{name}: {ours} {theirs}" for name, (ours, theirs) in pairs.items() if ours != theirs]
    if not math.isclose(found.lost_cycles, seen.lost, abs_tol=1e-9):
        apart.append(f"lost_cycles: {found.lost_cycles} {seen.lost}")
    return apart


@pytest.mark.parametrize("seed", range(50))
def test_counting_equals_walking_the_array_port_by_port(seed: int) -> None:
    rng = random.Random(seed)
    for _ in range(12):
        case = random_case(rng)
        assert differences(*case) == [], case


def test_random_cases_cover_what_they_should() -> None:
    rng = random.Random(0)
    cases = [random_case(rng) for _ in range(600)]
    found = [
        lock_step(mask, args["spreads"], **{k: v for k, v in args.items() if k != "spreads"})
        for mask, _, args in cases
    ]
    assert sum(one.steps < one.dense_steps for one in found) > 200
    assert sum(one.steps > one.dense_steps for one in found) > 20
    assert sum(one.port_waits > 0 for one in found) > 100
    assert sum("by_slot" in args["order"].values() for _, _, args in cases) > 200
    assert (
        sum(
            args["pe_queue"] != 1 and one.port_waits > 0
            for one, (_, _, args) in zip(found, cases, strict=True)
        )
        > 50
    )


def test_a_case_done_by_hand() -> None:
    # Two filters, two channels, kernels of one row with three taps.
    live = np.array([[[[[1, 1, 0]], [[0, 0, 1]]], [[[0, 1, 1]], [[0, 0, 0]]]]], dtype=np.bool_)
    both = [Spread(Dim.C, 2, "rows"), Spread(Dim.K, 2, "cols")]
    # Channel 0 needs taps 0, 1, 2 for the two filters, channel 1 tap 2: three steps, two waited.
    found = lock_step(live, both)
    assert (found.steps, found.dense_steps, found.port_waits, found.lost_cycles) == (3, 3, 2, 1.0)
    assert found.utilization == 5 / 12
    # One filter at a time: max(2, 1) + max(2, 0); in one queue the ports need 4 and 1.
    rows = [Spread(Dim.C, 2, "rows")]
    assert lock_step(live, rows).steps == 4
    assert lock_step(live, rows).slowest.filters == (0,)
    assert lock_step(live, rows, pe_queue=2).port_waits == 3
    # One channel at a time: three taps for channel 0, one for channel 1, and nobody to wait for.
    columns = lock_step(live, [Spread(Dim.K, 2, "cols")])
    assert (columns.steps, columns.port_waits, columns.mean_steps, columns.max_steps) == (
        4,
        0,
        2,
        3,
    )
    # Every tap at a place of its own: a step where any is live.
    assert lock_step(live, [*both, Spread(Dim.S, 3, "deep")]).steps == 1


# --- DESIGN section 5 -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pattern", "channels", "order", "steps", "dense", "ratio"),
    [
        ("PS4_P4", 256, "natural", 144, 144, 1.000),
        ("PS4_P4", 256, {"cols": "by_slot"}, 64, 144, 0.444),
        ("PSD4_P8", 512, {"cols": "by_slot"}, 576, 576, 1.000),
        ("PSD4_P8", 512, "by_slot", 296, 576, 0.514),
        ("PSD4_P8", 128, "by_slot", 296, 36, 8.22),
        ("PSD4_P8", 128, "auto", 36, 36, 1.000),
    ],
)
def test_step_ratios_of_the_design(
    pattern: str, channels: int, order: Any, steps: int, dense: int, ratio: float
) -> None:
    found = lock_step(layer(pattern, channels, channels), STATIONARY, order=order)
    assert (found.steps, found.dense_steps) == (steps, dense)
    assert found.ratio == pytest.approx(ratio, abs=0.5e-3 if ratio < 2 else 0.5e-2)


def test_auto_stays_natural_where_grouping_does_not_pay() -> None:
    found = lock_step(layer("PSD4_P8", 128, 128), STATIONARY, order="auto")
    assert found.order == (("rows", "natural"), ("cols", "natural"))
    pays = lock_step(layer("PSD4_P8", 512, 512), STATIONARY, order="auto")
    assert pays.order == (("rows", "by_slot"), ("cols", "by_slot"))
    # Without an FDK the columns alone reach it, and the simpler of equals is taken.
    plain = lock_step(layer("PS4_P4", 256, 256), STATIONARY, order="auto")
    assert plain.order == (("rows", "natural"), ("cols", "by_slot"))


def test_the_fdk_row_is_what_holds_up_the_others() -> None:
    found = lock_step(layer("PSD4_P8", 512, 512), STATIONARY, order={"cols": "by_slot"})
    # In each of 64 tiles 8 of 64 ports deliver 9 taps and 56 deliver 4.
    assert found.port_waits == 64 * 56 * 5
    assert found.lost_cycles == 64 * (9 - (8 * 9 + 56 * 4) / 64)
    assert (found.mean_steps, found.max_steps, found.groups) == (9, 9, 64)
    assert found.utilization == pytest.approx(4.625 / 9)


def test_which_group_is_slowest() -> None:
    found = lock_step(layer("PSD4_P8", 512, 512), STATIONARY, order="by_slot")
    # Slot (k + c + 1) mod 8 is 0 for channels 0 mod 8 first with filters 7 mod 8.
    assert found.slowest.steps == 9
    assert found.slowest.filters == tuple(range(7, 512, 8))
    assert found.slowest.channels == tuple(range(0, 512, 8))
    assert (found.mean_steps, found.groups, found.port_waits) == (4.625, 64, 0)


@pytest.mark.parametrize(
    ("loops", "by_queue"),
    [
        (K_INSIDE, {1: 576, 2: 416, 4: 336, 8: 296, 16: 296, None: 296}),
        (C_INSIDE, {1: 576, 2: 576, 4: 576, 8: 576, 16: 416, None: 296}),
    ],
)
def test_a_queue_along_filters_evens_out_the_fdk(
    loops: tuple[Dim, ...], by_queue: dict[int | None, int]
) -> None:
    # 64 channels a tile are whole periods: along C the same port gets the FDK again and again.
    mask, order = layer("PSD4_P8", 512, 512), {"cols": "by_slot"}
    steps = {
        n: lock_step(mask, STATIONARY, order=order, pe_queue=n, loops=loops).steps for n in by_queue
    }
    assert steps == by_queue


def test_an_output_stationary_array_waits_for_nobody() -> None:
    spreads = [Spread(Dim.K, 64, "cols"), Spread(Dim.P, 64, "rows")]
    mask = layer("PSD4_P8", 512, 512)
    found = lock_step(mask, spreads, order={"cols": "by_slot"})
    # 8 tiles of filters, each walks 512 channels of which one in 8 is dense.
    assert (found.steps, found.dense_steps) == (8 * (64 * 9 + 448 * 4), 8 * 512 * 9)
    assert (found.port_waits, found.lost_cycles, found.utilization) == (0, 0.0, 1.0)
    assert found.places == 64
    assert lock_step(mask, spreads).ratio == 1.0


# --- the record of benchmarks/lockstep.py ---------------------------------------------------------

RECORD = Path(__file__).parents[1] / "benchmarks" / "lockstep.csv"


def recorded() -> list[dict[str, str]]:
    with RECORD.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("dataflow", ["weight_stationary", "output_stationary"])
def test_the_recorded_ratios_are_those_of_today(dataflow: str) -> None:
    rows = [row for row in recorded() if row["dataflow"] == dataflow]
    assert len(rows) == 5 * 4 * 4
    along_rows = Dim.C if dataflow == "weight_stationary" else Dim.P
    for row in rows:
        side, channels = int(row["array"].partition("x")[0]), int(row["channels"])
        spreads = (Spread(along_rows, side, "rows"), Spread(Dim.K, side, "cols"))
        mask, columns = layer(row["pattern"], channels, channels), {"cols": "by_slot"}
        now = {
            "natural": lock_step(mask, spreads),
            "columns": lock_step(mask, spreads, order=columns),
            "both": lock_step(mask, spreads, order="by_slot"),
            "auto": lock_step(mask, spreads, order="auto"),
            "queue_8": lock_step(mask, spreads, order=columns, pe_queue=8),
        }
        assert {name: str(round(found.ratio, 4)) for name, found in now.items()} == {
            name: row[name] for name in now
        }, row
        assert int(row["dense_steps"]) == now["natural"].dense_steps
        assert row["auto_utilization"] == str(round(now["auto"].utilization, 4))


def test_when_a_pattern_saves_cycles() -> None:
    # Grouped, all that the mask can save is saved where every residue fills the columns; in natural
    # order nothing is where the columns hold a whole period.
    for row in recorded():
        side, channels = int(row["array"].partition("x")[0]), int(row["channels"])
        period = PATTERNS[row["pattern"]].period
        if channels % period == 0 and channels // period >= side:
            assert float(row["auto"]) == pytest.approx(float(row["density"]), abs=1e-4)
        if side >= period:
            assert float(row["natural"]) == 1


# --- properties -----------------------------------------------------------------------------------


def counted(seed: int, **changes: Any) -> LockStep:
    mask, _, arguments = random_case(random.Random(seed))
    rest = {**arguments, **changes}
    return lock_step(rest.pop("mask", mask), rest.pop("spreads"), **rest)


@pytest.mark.parametrize("seed", range(60))
def test_auto_is_the_best_of_all_orders_and_natural_on_a_tie(seed: int) -> None:
    mask, _, arguments = random_case(random.Random(seed))
    axes = sorted({s.axis for s in arguments["spreads"]})
    grouping = arguments["period"] is not None or (isinstance(mask, Mask) and mask.periodic)
    words = ("natural", "by_slot") if grouping else ("natural",)
    every = [
        counted(seed, order=dict(zip(axes, choice, strict=True)))
        for choice in product(words, repeat=len(axes))
    ]
    best = counted(seed, order="auto")
    assert best.steps == min(one.steps for one in every)
    fewest = min(str(one.order).count("by_slot") for one in every if one.steps == best.steps)
    assert str(best.order).count("by_slot") == fewest
    assert best == counted(seed, order=dict(best.order))
    if len(axes) > 1 and grouping:
        fixed = counted(seed, order={**dict.fromkeys(axes, "auto"), axes[0]: "by_slot"})
        assert dict(fixed.order)[axes[0]] == "by_slot"
        assert fixed.steps == min(o.steps for o in every if dict(o.order)[axes[0]] == "by_slot")


@pytest.mark.parametrize("seed", range(60))
@pytest.mark.parametrize("weights", ["none", "gate"])
def test_arrays_that_do_not_skip_take_the_dense_steps(seed: int, weights: str) -> None:
    found = counted(seed, weights=weights)
    assert found.steps == found.dense_steps
    assert set(dict(found.order).values()) <= {"natural"}
    skipping = counted(seed)
    assert (found.dense_steps, found.effective_macs) == (
        skipping.dense_steps,
        skipping.effective_macs,
    )


@pytest.mark.parametrize("seed", range(60))
def test_a_dense_mask_takes_the_dense_steps(seed: int) -> None:
    _, live, _ = random_case(random.Random(seed))
    for queue in (1, 2, None):
        found = counted(seed, mask=np.ones_like(live), order="natural", pe_queue=queue)
        assert found.steps == found.dense_steps
        assert found.effective_macs == found.macs == live.size


@pytest.mark.parametrize("seed", range(60))
def test_a_queue_twice_as_long_never_costs_steps(seed: int) -> None:
    steps = [counted(seed, pe_queue=n).steps for n in (1, 2, 4, 8, 16, None)]
    assert steps == sorted(steps, reverse=True)
    # Nothing is faster than every place at work in every step.
    found = counted(seed, pe_queue=None)
    assert found.steps >= found.effective_macs / found.places
    assert 0 <= found.utilization <= 1
    assert 0 <= found.dense_utilization <= 1


def test_one_more_kernel_in_the_queue_may_cost_steps() -> None:
    # Two ports, four tiles: loads (9, 1), (1, 9) twice. Pairs even out, threes do not.
    live = np.zeros((1, 4, 2, 3, 3), dtype=np.bool_)
    for filters in range(4):
        live[0, filters, filters % 2] = True
        live[0, filters, 1 - filters % 2, 0, 0] = True
    rows = [Spread(Dim.C, 2, "rows")]
    assert [lock_step(live, rows, pe_queue=n).steps for n in (1, 2, 3, 4)] == [36, 20, 28, 20]


@pytest.mark.parametrize("seed", range(40))
def test_fewer_live_taps_never_cost_steps(seed: int) -> None:
    _, live, arguments = random_case(random.Random(seed))
    period = arguments["period"] or 3
    fewer = live & (np.random.default_rng(seed).random(live.shape) < 0.5)
    assert (
        counted(seed, mask=fewer, period=period).steps
        <= counted(seed, mask=live, period=period).steps
    )


@pytest.mark.parametrize("name", PERIODIC)
def test_a_mask_and_its_array_agree_on_whole_layers(name: str) -> None:
    mask = layer(name, 96, 72)
    spreads = [Spread(Dim.C, 16, "rows"), Spread(Dim.K, 8, "cols")]
    for order, queue in product(("natural", "by_slot", "auto"), (1, 3, None)):
        short = lock_step(mask, spreads, order=order, pe_queue=queue)
        full = lock_step(
            mask.array(), spreads, order=order, pe_queue=queue, period=mask.pattern.period
        )
        assert short.lost_cycles == pytest.approx(full.lost_cycles)
        for field in ("steps", "effective_macs", "port_waits", "order", "groups", "slowest"):
            assert getattr(short, field) == getattr(full, field)


def test_places_that_walk_through_a_piece_hold_every_fourth_filter() -> None:
    # Filters i, 4 + i, 8 + i ... share a residue mod 4, so the mapping groups them by itself.
    walks = [Spread(Dim.C, 64, "rows"), Spread(Dim.K, 64, "cols", piece=4)]
    assert lock_step(layer("PS4_P4", 256, 256), walks).steps == 64


@pytest.mark.parametrize("kernel", [1, 5])
def test_dense_layers_of_other_kernel_sizes(kernel: int) -> None:
    shape = Shape((1, 1, 100, 70, 1, 1, kernel, kernel), size=(kernel, kernel))
    found = lock_step(Mask.of("dense", shape), STATIONARY, order="auto")
    assert found.steps == found.dense_steps == 4 * kernel**2


def test_a_mask_without_live_taps_takes_no_step() -> None:
    found = lock_step(np.zeros((1, 4, 4, 3, 3), dtype=np.bool_), STATIONARY)
    assert (found.steps, found.ratio, found.utilization, found.port_waits) == (0, 0.0, 0.0, 0)


# --- what is refused ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"weights": "skp"}, "weights must be none, gate or skip, got 'skp'"),
        ({"pe_queue": 0}, "pe_queue must be at least 1"),
        ({"loops": (Dim.K, Dim.C)}, "loops must name G, K and C once each, got K, C"),
        ({"loops": ()}, "got none"),
        ({"order": {"row": "natural"}}, "an axis named 'row'. Did you mean 'rows'"),
        ({"order": {"rows": "slot"}}, "order of 'rows' must be natural, by_slot, auto, got 'slot'"),
        ({"order": "by_slot"}, "order of 'rows' is by_slot, but the mask has no period"),
        ({"period": 0}, "period must be at least 1, got 0"),
        ({"spreads": [Spread(Dim.K, 0, "cols")]}, "K on axis 'cols': count and piece must be"),
        ({"spreads": [Spread(Dim.R, 3, "cols", 2)]}, "only G, K and C have pieces, got 2"),
        ({"spreads": [], "order": {"rows": "auto"}}, "Axes in use: none"),
        ({"mask": np.ones((1, 2, 2, 3), dtype=np.bool_)}, r"got bool \[1, 2, 2, 3\]"),
        ({"mask": np.ones((1, 2, 2, 3, 3))}, "got float64"),
        ({"mask": np.ones((1, 0, 2, 3, 3), dtype=np.bool_)}, r"\[1, 0, 2, 3, 3\]"),
    ],
)
def test_errors_say_what_is_allowed(changes: dict[str, Any], message: str) -> None:
    arguments = {"mask": layer("pSC4", 4, 4), "spreads": STATIONARY, **changes}
    mask, spreads = arguments.pop("mask"), arguments.pop("spreads")
    with pytest.raises(InputError, match=message):
        lock_step(mask, spreads, **arguments)


def test_auto_leaves_a_mask_without_period_as_it_is() -> None:
    found = lock_step(layer("pSC4", 64, 64), STATIONARY, order="auto")
    assert set(dict(found.order).values()) == {"natural"}
