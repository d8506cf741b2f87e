"""How full each memory level is for a mapping, and by how much one is too small."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from energysim.axes import Dim, Shape, Tensor
from energysim.hardware import Hardware
from energysim.mapping import Nest, nominal_tile
from energysim.model.counts import Counts
from energysim.model.sparse import WeightStore


@dataclass(frozen=True, slots=True)
class Residency:
    """What stays on chip around one layer."""

    tensors: frozenset[Tensor] = frozenset()
    """tensors of this layer that are in the outermost on-chip level whole and do not move to or
    from DRAM"""
    reserved_bits: int = 0
    """taken there by weights kept for the next inference and by outputs waiting for later layers
    [bit]"""


@dataclass(frozen=True, slots=True)
class Occupancy:
    """Room taken in one instance of one level."""

    level: int
    capacity_bits: int | Mapping[Tensor, int]
    bits: Mapping[Tensor, int]
    """by each tensor's tile, second buffers included [bit]"""
    reserved_bits: int = 0

    @property
    def used_bits(self) -> int:
        """All together [bit]."""
        return sum(self.bits.values()) + self.reserved_bits

    @property
    def excess_bits(self) -> int:
        """What is missing; 0 or less where everything fits [bit]."""
        if isinstance(self.capacity_bits, int):
            return self.used_bits - self.capacity_bits
        return max(self.bits.get(tensor, 0) - room for tensor, room in self.capacity_bits.items())


def occupancy(
    hardware: Hardware,
    shape: Shape,
    nest: Nest,
    trips: Sequence[int],
    counts: Counts,
    store: WeightStore | None,
    residency: Residency,
) -> list[Occupancy]:
    """Room taken at every level inside DRAM by one mapping.

    Parameters
    ----------
    counts : Counts
        Of this mapping alone (B = 1).

    Notes
    -----
    A level holds the largest tile of each tensor; a double-buffered one holds it twice, unless the
    tile never changes. Outputs take ``psum`` bits where partial sums arrive, else ``output`` bits.
    """
    found = []
    for level, memory in enumerate(hardware.levels):
        capacity = memory.capacity_bits()
        if level == 0 or capacity is None:
            continue
        bits: dict[Tensor, int] = {}
        for tensor in Tensor:
            if nest.cuts[level][tensor] is None:
                continue
            width = element_bits(hardware, tensor, final=bool(counts(level, tensor, "final")[0]))
            if tensor in residency.tensors and nest.holders(tensor)[1] == level:
                # cached weights are part of what is reserved, for all layers at once
                whole = 0 if tensor is Tensor.WEIGHT else shape.elements(tensor)
                bits[tensor] = whole * width
                continue
            tile = int(counts(level, tensor, "tile")[0]) * width
            if tensor is Tensor.WEIGHT and memory.compressed and store is not None:
                size = nominal_tile(shape, nest, trips, level, tensor)
                kernel = size[Dim.R] * size[Dim.S]
                filters, channels = np.array([size[Dim.K]]), np.array([size[Dim.C]])
                one_group = int(store.tile_bits(filters, channels, kernel)[0, 0])
                tile = size[Dim.G] * one_group
            copies = 2 if memory.double_buffered and not counts(level, tensor, "constant")[0] else 1
            bits[tensor] = tile * copies
        reserved = residency.reserved_bits if level == 1 else 0
        found.append(Occupancy(level, capacity, bits, reserved))
    return found


def element_bits(hardware: Hardware, tensor: Tensor, *, final: bool) -> int:
    """Width of a stored element; outputs are partial sums unless ``final`` [bit]."""
    if tensor is Tensor.OUTPUT and not final:
        return hardware.bits.psum
    return hardware.bits.of(tensor)
