"""Cycles of a layer: array steps, memory traffic over bandwidth, and what cannot overlap."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from energysim.axes import Tensor
from energysim.hardware import Hardware
from energysim.mapping import Nest
from energysim.model.counts import Key
from energysim.model.energy import Tariff

Floats = npt.NDArray[np.float64]
Numbers = npt.NDArray[np.int64] | Floats


@dataclass(frozen=True, slots=True)
class Latency:
    """Cycles, arrays over the batch (or grid) of mappings."""

    compute: Floats
    """array steps, and filling and draining of a systolic array"""
    levels: tuple[Floats, ...]
    """traffic of each level over its bandwidth; 0 where bandwidth is not a limit"""
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

    Returns
    -------
    Latency

    Notes
    -----
    ``total = max(compute, cycles of levels that overlap) + sum of the others + exposed``. DRAM
    overlaps when every level that it fills is double-buffered; its first tiles in and last tile out
    are exposed then. A systolic array takes ``sum of (used length - 1)`` extra cycles for every
    tile of the level that has an instance per processing element.
    """
    zero = np.zeros(np.shape(steps))
    if vector:
        lanes = hardware.vector.lanes if hardware.vector else None
        compute = np.ceil(np.asarray(steps) / lanes) if lanes else zero
    else:
        compute = np.asarray(steps, dtype=np.float64) + _ripple(
            hardware, nest, value, used, skipped
        )
    cycles, overlapped, added = [], [compute], [zero]
    for level, memory in enumerate(hardware.levels):
        if memory.bandwidth_bits_per_cycle is None:
            cycles.append(zero)
            continue
        instances: Numbers | int = 1
        for axis in nest.axes[level]:
            instances = instances * used[axis]
        traffic = level_bits(tariff, level, value) + zero
        cycles.append(traffic / (memory.bandwidth_bits_per_cycle * instances))
        (overlapped if overlaps(hardware, nest, level) else added).append(cycles[-1])
    exposed = zero
    width = hardware.levels[0].bandwidth_bits_per_cycle
    if width is not None and overlaps(hardware, nest, 0):
        exposed = _exposed_bits(nest, tariff, value) / width + zero
    total = np.maximum.reduce(overlapped) + sum(added) + exposed
    return Latency(compute, tuple(cycles), exposed, np.ceil(total))


def level_bits(
    tariff: Tariff, level: int, value: Callable[[Key], Numbers | None]
) -> Floats | float:
    """Bits that a level reads and writes, all actions of all tensors."""
    total: Floats | float = float(
        sum(bits for key, bits in tariff.once_bits.items() if key[0] == level)
    )
    for key, bits in tariff.bits.items():
        counted = value(key) if key[0] == level else None
        if counted is not None:
            moved = tariff.moved.get(key, counted * bits)
            if key in tariff.timed_bits:  # gating saves no time
                moved = counted * tariff.timed_bits[key]
            total = np.asarray(total + moved, dtype=np.float64)
    return total


def overlaps(hardware: Hardware, nest: Nest, level: int) -> bool:
    """Whether a level's traffic hides behind other work; DRAM's, if what it fills does."""
    if level:
        return hardware.levels[level].double_buffered
    filled = {nest.holders(tensor)[1:2] for tensor in Tensor if nest.holders(tensor)}
    return all(hardware.levels[first].double_buffered for holder in filled for first in holder)


def _exposed_bits(
    nest: Nest, tariff: Tariff, value: Callable[[Key], Numbers | None]
) -> Floats | float:
    """Bits of the first tiles loaded from and the last tile stored to the outermost level."""
    total: Floats | float = 0.0
    names: tuple[str, ...]
    for tensor in Tensor:
        holders = nest.holders(tensor)
        if not holders[1:]:
            continue
        if tensor is Tensor.OUTPUT:
            names, end = ("update", "update_complete"), "last"
        else:
            names, end = ("read",), "first"
        bits = sum(tariff.bits.get((0, tensor, name), 0.0) for name in names)
        tile = value((holders[1], tensor, end))
        if tile is not None and bits:
            total = np.asarray(total + tile * bits, dtype=np.float64)
    return total


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
