"""Cycles of a layer: array steps, memory traffic over bandwidth, and what cannot overlap."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from energysim.axes import Tensor
from energysim.hardware import Hardware
from energysim.mapping import Nest
from energysim.model.counts import Key
from energysim.model.energy import Tariff

Floats = npt.NDArray[np.float64]
Numbers = npt.NDArray[np.int64] | Floats
Widths = Sequence[float | Floats | None]
"""Bandwidth of each level [bit/cycle]; None is no limit."""


@dataclass(frozen=True, slots=True)
class Latency:
    """Cycles, arrays over the batch (or grid) of mappings."""

    compute: Floats
    """array steps, and filling and draining of a systolic array"""
    levels: tuple[Floats, ...]
    """traffic of each level over its bandwidth; 0 where bandwidth is not a limit"""
    links: Floats
    """traffic of the busiest bus while the array computes; 0 where the buses are no limit"""
    ramp: Floats
    """the array waits for the weights and first inputs of a pass"""
    exposed: Floats
    """first fill and last drain, which nothing can hide"""
    total: Floats


def latency(
    hardware: Hardware,
    nest: Nest,
    tariff: Tariff,
    *,
    steps: Numbers,
    value: Callable[[Key], Numbers | None],
    used: Sequence[Numbers],
    vector: bool = False,
    skipped: float = 1.0,
    widths: Widths | None = None,
) -> Latency:
    """Cycles of a layer.

    Parameters
    ----------
    hardware, nest, tariff
        The machine, the loops, and the bits of each count.
    steps : array
        Steps of the nest that have work.
    value : callable
        Count of a key, None where there is none.
    used : sequence of array
        Instances with work along each array axis.
    vector : bool
        The layer runs on the vector unit.
    skipped : float
        Share of the tiles of weights that are put on the array, where others have no live weight.
    widths : sequence, optional
        Bandwidth of each level instead of the hardware's, a number or an array over designs, for
        one mapping [bit/cycle]. One without a limit has none here too.

    Returns
    -------
    Latency

    Notes
    -----
    ``total = max(max(compute, links) + ramp, cycles of levels that overlap) + sum of the others +
    exposed``. DRAM overlaps when every level that it fills is double-buffered; its first tiles in
    and last tile out are exposed then, and only the rest overlaps. A systolic array takes
    ``sum of (used length - 1)`` extra cycles for every tile of the level that has an instance per
    processing element. For buses and passes see :func:`links`, for DRAM bursts :func:`_bursts`.
    """
    zero = np.zeros(np.shape(steps))
    widths = bandwidths(hardware) if widths is None else widths
    if vector:
        lanes = hardware.vector.lanes if hardware.vector else None
        compute = np.ceil(np.asarray(steps) / lanes) if lanes else zero
    else:
        compute = np.asarray(steps, dtype=np.float64) + _ripple(
            hardware, nest, value, used, skipped
        )
    cycles, overlapped, added = list[Floats](), list[Floats](), [zero]
    bursts = _bursts(hardware, nest, tariff, value)
    for level, width in enumerate(widths):
        if width is None:
            cycles.append(zero)
            continue
        instances: Numbers | int = 1
        for axis in nest.axes[level]:
            instances = instances * used[axis]
        traffic = _level_bits(tariff, level, value, {} if level else bursts) + zero
        cycles.append(traffic / (width * instances))
        (overlapped if overlaps(hardware, nest, level) else added).append(cycles[-1])
    exposed = zero
    if widths[0] is not None and overlaps(hardware, nest, 0):
        exposed = _exposed_bits(nest, tariff, value, bursts) / widths[0] + zero
        overlapped[0] = overlapped[0] - exposed  # DRAM's time is no longer for it
    busy, ramp = zero, zero
    if hardware.array.link_bits_per_cycle and not vector:
        busy, ramp = (each + zero for each in _link_cycles(hardware, nest, tariff, value, widths))
    working = np.maximum(compute, busy) + ramp
    total = reduce(np.maximum, overlapped, working) + sum(added) + exposed
    return Latency(compute, tuple(cycles), busy, ramp, exposed, np.ceil(total))


def bandwidths(hardware: Hardware) -> Widths:
    """Bandwidth of one instance of each level [bit/cycle]; None is no limit."""
    return [level.bandwidth_bits_per_cycle for level in hardware.levels]


def _level_bits(
    tariff: Tariff,
    level: int,
    value: Callable[[Key], Numbers | None],
    bursts: Mapping[Tensor, Floats],
) -> Floats | float:
    """Bits that a level reads and writes, all actions of all tensors."""
    total: Floats | float = float(
        sum(bits for key, bits in tariff.once_bits.items() if key[0] == level)
    )
    for key in tariff.bits:
        if key[0] == level:
            moved = _timed_bits(tariff, key, value) * bursts.get(key[1], 1.0)
            total = np.asarray(total + moved, dtype=np.float64)
    return total


def _bursts(
    hardware: Hardware, nest: Nest, tariff: Tariff, value: Callable[[Key], Numbers | None]
) -> dict[Tensor, Floats]:
    """For one bit of a tensor that DRAM moves, the bits whose time it takes: whole bursts.

    What lies in a row is that of the first tile, with what strides leave out between it; what is
    new in the next tiles is taken to lie alike and to begin with a burst. (Estimated: of a halo
    that stays, narrower pieces are new.) What the MACs take from DRAM themselves comes one by one.
    """
    burst = hardware.levels[0].burst_bits
    if burst is None:
        return {}
    found = {}
    for tensor in Tensor:
        bits = sum(tariff.bits.get((0, tensor, name), 0.0) for name in MOVED[tensor])
        holders = nest.holders(tensor)
        if not holders or bits <= 0:
            continue
        run = span = np.ones(())
        if holders[1:]:
            run, span = (
                np.asarray(1 if each is None else each, dtype=np.float64)
                for each in (value((holders[1], tensor, name)) for name in ("run", "span"))
            )
        needed = np.maximum(run, 1) * bits
        found[tensor] = np.ceil(np.maximum(span, 1) * bits / burst) * burst / needed
    return found


MOVED: dict[Tensor, tuple[str, ...]] = {
    Tensor.WEIGHT: ("read",),
    Tensor.INPUT: ("read",),
    Tensor.OUTPUT: ("update", "update_complete"),
}
"""Counts that the tile of a tensor adds to at the outermost level when it moves."""


def _timed_bits(tariff: Tariff, key: Key, value: Callable[[Key], Numbers | None]) -> Floats | float:
    """Bits that one action moves, those of gated accesses too: gating saves no time."""
    counted = value(key) if key in tariff.bits else None
    if counted is None:
        return 0.0
    if key in tariff.timed_bits:
        return np.asarray(counted * tariff.timed_bits[key], dtype=np.float64)
    return np.asarray(tariff.moved.get(key, counted * tariff.bits[key]), dtype=np.float64)


def overlaps(hardware: Hardware, nest: Nest, level: int) -> bool:
    """Whether a level's traffic hides behind other work; DRAM's, if what it fills does."""
    if level:
        return hardware.levels[level].double_buffered
    filled = {nest.holders(tensor)[1:2] for tensor in Tensor if nest.holders(tensor)}
    return all(hardware.levels[first].double_buffered for holder in filled for first in holder)


def _exposed_bits(
    nest: Nest,
    tariff: Tariff,
    value: Callable[[Key], Numbers | None],
    bursts: Mapping[Tensor, Floats],
) -> Floats | float:
    """Bits of the first tiles loaded from and the last tile stored to the outermost level."""
    total: Floats | float = 0.0
    for tensor in Tensor:
        holders = nest.holders(tensor)
        if not holders[1:]:
            continue
        end = "last" if tensor is Tensor.OUTPUT else "first"
        bits = sum(tariff.bits.get((0, tensor, name), 0.0) for name in MOVED[tensor])
        tile = value((holders[1], tensor, end))
        if tile is not None and bits:
            moved = tile * bits * bursts.get(tensor, 1.0)
            total = np.asarray(total + moved, dtype=np.float64)
    return total


WAYS: dict[Tensor, tuple[tuple[str, ...], ...]] = {
    Tensor.WEIGHT: (("read",),),
    Tensor.INPUT: (("read",),),
    Tensor.OUTPUT: (("read",), ("update", "update_complete")),
}
"""What goes over a bus of the array, each way of it."""


@dataclass(frozen=True, slots=True)
class Load:
    """How a tensor gets into the array."""

    read: Key
    """elements read for it, of all passes"""
    first: Key
    """elements that the array holds first"""
    cycles: float
    """to load one of them"""


@dataclass(frozen=True, slots=True)
class Links:
    """The buses of an array, for the levels that hold each tensor."""

    busy: tuple[tuple[Tensor, Mapping[Key, float]], ...]
    """of each bus and way that is used while the array computes: cycles of one counted element"""
    waits: Mapping[Key, float | Floats]
    """cycles of one counted element during which the array computes nothing"""
    loads: Mapping[Tensor, Load]
    """weights and inputs that a pass begins with; nothing where the array keeps no weights"""
    every_pass: bool
    """the array waits in each pass, not in the first one only"""


def links(hardware: Hardware, nest: Nest, tariff: Tariff, widths: Widths | None = None) -> Links:
    """Buses of the array, and what it waits for at the beginning of a pass.

    A pass lasts as long as the weights in the array stay. Where their memory is not
    double-buffered, nothing is computed while those of the next pass come in, nor until each
    processing element has the first of its inputs; the others arrive while it computes.

    Notes
    -----
    Buses and ramp-up are those of Chen et al., JSSC 2017, sections IV-A, V-B and VI-A; that nothing
    else is exposed is our assumption (``energysim validate eyeriss_alexnet``).
    """
    widths = bandwidths(hardware) if widths is None else widths
    busy: list[tuple[Tensor, dict[Key, float]]] = []
    waits: dict[Key, float | Floats] = {}
    loads: dict[Tensor, Load] = {}
    every_pass = False
    for tensor, own in hardware.array.links.items():
        holders = nest.holders(tensor)
        if not holders:
            continue
        outer, inner = _entry(nest, holders)
        ways = [
            {
                (outer, tensor, name): tariff.bits[outer, tensor, name] / own
                for name in names
                if (outer, tensor, name) in tariff.bits
            }
            for names in WAYS[tensor]
        ]
        if inner is not None and tensor is not Tensor.OUTPUT:
            read, each = (outer, tensor, "read"), sum(ways[0].values())
            loads[tensor] = Load(read, (inner, tensor, "first"), each)
            if tensor is Tensor.WEIGHT and not hardware.levels[inner].double_buffered:
                every_pass = True
                share = _own_share(hardware, nest, outer, widths)
                waits = {key: price * share for key, price in ways.pop().items()}
        busy += [(tensor, way) for way in ways]
    return Links(tuple(busy), waits, loads if Tensor.WEIGHT in loads else {}, every_pass)


def _own_share(hardware: Hardware, nest: Nest, outer: int, widths: Widths) -> float | Floats:
    """Share of the wait for weights on their bus that the time of the outer level does not cover.

    Where that time is waited for anyway it is one way, as fast as its slower part.
    """
    width = widths[outer]
    if width is None or overlaps(hardware, nest, outer):
        return 1.0
    bus = hardware.array.links[Tensor.WEIGHT]
    share: Floats = np.maximum(0.0, 1 - bus / (width * hardware.instances(outer)))
    return share


def _link_cycles(
    hardware: Hardware,
    nest: Nest,
    tariff: Tariff,
    value: Callable[[Key], Numbers | None],
    widths: Widths,
) -> tuple[Floats, Floats]:
    """Cycles of the busiest bus while the array computes, and cycles that the array waits.

    How many passes there are is what all of them load over what the first one does. Inputs that
    stay are not waited for again: never for more than all that is read.
    """
    buses = links(hardware, nest, tariff, widths)

    def counted(key: Key) -> Floats:
        found = value(key)
        return np.asarray(0.0 if found is None else found, dtype=np.float64)

    def cycles(prices: Mapping[Key, float] | Mapping[Key, float | Floats]) -> Floats:
        total: Floats = np.zeros(())
        for key, price in prices.items():
            moved = _timed_bits(tariff, key, value)
            total = total + moved * (price / tariff.bits[key] if tariff.bits[key] else 0.0)
        return total

    passes, waited = np.ones(()), dict[Tensor, Floats]()
    if buses.every_pass:
        load = buses.loads[Tensor.WEIGHT]
        passes = counted(load.read) / np.maximum(counted(load.first), 1)
    for tensor, load in buses.loads.items():
        if tensor is Tensor.INPUT or not buses.every_pass:
            all_of_it = counted(load.read) * load.cycles
            waited[tensor] = np.minimum(passes * counted(load.first) * load.cycles, all_of_it)
    busy: Floats = np.zeros(())
    for tensor, prices in buses.busy:
        busy = np.maximum(busy, cycles(prices) - waited.get(tensor, 0.0))
    return busy, sum(waited.values(), cycles(buses.waits))


def _entry(nest: Nest, holders: Sequence[int]) -> tuple[int, int | None]:
    """The level from which a tensor enters the array, and the one that takes it there, if any."""
    for outer, inner in pairwise(holders):
        if nest.axes[outer] != nest.axes[inner]:
            return outer, inner
    return holders[-1], None


def _ripple(
    hardware: Hardware,
    nest: Nest,
    value: Callable[[Key], Numbers | None],
    used: Sequence[Numbers],
    skipped: float,
) -> Floats:
    if not hardware.array.systolic or not used:
        return np.zeros(())
    zero = np.zeros(np.shape(used[0]))
    every_axis = frozenset(range(len(hardware.axis_sizes)))
    length = zero
    for count in used:
        length = length + (np.asarray(count, dtype=np.float64) - 1)
    folds: Floats = zero + 1.0
    for tensor in Tensor:
        holders = nest.holders(tensor)
        if holders and nest.axes[holders[-1]] == every_axis:
            tiles = value((holders[-1], tensor, "folds"))
            if tiles is not None:
                share = skipped if tensor is Tensor.WEIGHT else 1.0
                folds = np.maximum(folds, tiles * share)
    return folds * length
