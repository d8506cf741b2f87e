"""Counts to bits to pJ. Everything is linear in the counts, so one tariff serves any batch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from energysim.axes import Tensor
from energysim.hardware import Hardware
from energysim.mapping import Nest
from energysim.model.counts import Key
from energysim.model.sparse import WeightStore

WRITES = frozenset({"fill", "update", "update_complete"})
"""Counts that cost write energy; the other moves cost read energy."""


@dataclass(frozen=True, slots=True)
class Tariff:
    """Bits and energy of one counted element, for one layer on one machine.

    ``update_complete`` and ``drain_complete`` carry what a final output has less (or more) than the
    partial sum that ``update`` and ``drain`` count it as.
    """

    bits: Mapping[Key, float]
    """per element [bit]"""
    hop_bits: Mapping[Key, float]
    """per element handed over between a level and the instances inside it [bit]"""
    once_bits: Mapping[Key, int]
    """moved once, whatever the mapping [bit]"""
    read_pj: tuple[float, ...]
    """of each level [pJ/bit]"""
    write_pj: tuple[float, ...]
    hop_pj: float

    def element_pj(self) -> dict[Key, float]:
        """Memory and network energy per counted element [pJ]."""
        cost = {
            key: bits * (self.write_pj if key[2] in WRITES else self.read_pj)[key[0]]
            for key, bits in self.bits.items()
        }
        for key, bits in self.hop_bits.items():
            cost[key] = cost.get(key, 0.0) + bits * self.hop_pj
        return cost

    def once_pj(self) -> float:
        """Energy of what moves once [pJ]."""
        return sum(
            bits * (self.write_pj if key[2] in WRITES else self.read_pj)[key[0]]
            for key, bits in self.once_bits.items()
        )


def tariff(
    hardware: Hardware,
    nest: Nest,
    store: WeightStore | None,
    resident: frozenset[Tensor] = frozenset(),
) -> Tariff:
    """Price every count of a layer.

    Parameters
    ----------
    hardware : Hardware
    nest : Nest
        Says which level holds which tensor.
    store : WeightStore or None
        None for a layer without weights.
    resident : frozenset of Tensor
        Tensors that stay on chip: nothing of them moves between the outermost two levels that hold
        them.

    Returns
    -------
    Tariff
    """
    widths = hardware.bits
    bits: dict[Key, float] = {}
    hop_bits: dict[Key, float] = {}
    once: dict[Key, int] = {}
    for tensor in Tensor:
        holders = nest.holders(tensor)
        for place, level in enumerate(holders):
            inner = holders[place + 1] if place + 1 < len(holders) else None
            outward = place > 0 and not (place == 1 and tensor in resident)
            inward = not (place == 0 and tensor in resident)
            if tensor is Tensor.OUTPUT:
                saved = float(widths.output - widths.psum)
                if inward:
                    bits[level, tensor, "read"] = bits[level, tensor, "update"] = widths.psum
                    bits[level, tensor, "update_complete"] = saved
                if outward:
                    bits[level, tensor, "fill"] = bits[level, tensor, "drain"] = widths.psum
                    bits[level, tensor, "drain_complete"] = saved
                hop_bits[level, tensor, "hop"] = widths.psum
                if inner is not None and nest.axes[inner] != nest.axes[level]:
                    hop_bits[inner, tensor, "drain_complete"] = saved
                continue
            each = float(widths.of(tensor))
            packed = tensor is Tensor.WEIGHT and hardware.levels[level].compressed
            if packed and store is not None:
                each = store.bits_per_weight
                if inward:
                    once[level, tensor, "read"] = store.once_bits
                if outward:
                    once[level, tensor, "fill"] = store.once_bits
            if inward:
                bits[level, tensor, "read"] = each
            if outward:
                bits[level, tensor, "fill"] = each
            hop_bits[level, tensor, "hop"] = each
    return Tariff(
        bits,
        hop_bits,
        {key: value for key, value in once.items() if value},
        tuple(level.read_pj_per_bit for level in hardware.levels),
        tuple(level.write_pj_per_bit for level in hardware.levels),
        hardware.array.hop_pj_per_bit,
    )


def compute_pj(hardware: Hardware, operations: int, effective: int, *, has_weights: bool) -> float:
    """Energy of the arithmetic of a layer [pJ].

    A machine that gates or skips zero weights pays for effective MACs only. Layers without weights
    (pools, additions) run on the vector unit.
    """
    if not has_weights:
        return operations * hardware.vector.energy_pj if hardware.vector else 0.0
    done = operations if hardware.sparsity.weights == "none" else effective
    return done * hardware.mac.energy_pj
