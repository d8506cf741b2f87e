"""Counts to bits to pJ. Everything is linear in the counts, so one tariff serves any batch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from energysim.axes import Tensor
from energysim.hardware import Hardware
from energysim.mapping import Nest
from energysim.model.counts import Key
from energysim.model.sparse import WeightStore
from energysim.sparsity import DENSE, Activity, Coded, run_length_coded

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
    shares: Mapping[Key, float] = field(default_factory=dict)
    """accesses that are made, or values that are stored, per counted element: 1 where left out;
    those of ``update_complete`` come on top of ``update``: 0 where left out"""
    timed_bits: Mapping[Key, float] = field(default_factory=dict)
    """per element, of accesses that are gated: they take the time that they took [bit]"""
    moved: Mapping[Key, float] = field(default_factory=dict)
    """bits that move in all, of one mapping, where they are known to the last and not only so many
    an element; without those that move once [bit]"""

    def with_coded(self, coded: Mapping[Key, float]) -> Tariff:
        """The tariff of one mapping of which the bits of coded weights are known.

        Parameters
        ----------
        coded : mapping
            As :func:`energysim.model.coded.coded_bits` gives it [bit].
        """
        priced = self.bits.keys() | self.hop_bits.keys()
        moved = {key: bits * self.shares.get(key, 1.0) for key, bits in coded.items()}
        return replace(self, moved={key: moved[key] for key in coded if key in priced})

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
    activity: Activity = DENSE,
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
    activity : Activity
        What is known of zeros in the input and output: bits of gated accesses and of coded tensors
        are expected values.

    Returns
    -------
    Tariff
    """
    parts = _Parts({}, {}, {}, {}, {})
    for tensor in Tensor:
        holders = nest.holders(tensor)
        for place, level in enumerate(holders):
            inner = holders[place + 1] if place + 1 < len(holders) else None
            fans_out = inner is not None and nest.axes[inner] != nest.axes[level]
            moves = _Moves(
                level,
                inward=not (place == 0 and tensor in resident),
                outward=place > 0 and not (place == 1 and tensor in resident),
                below=inner if fans_out else None,
            )
            if tensor is Tensor.OUTPUT:
                _price_outputs(hardware, moves, activity, parts)
            else:
                _price_operands(hardware, tensor, moves, store, activity, parts)
    if store is not None and hardware.sparsity.activations == "gate":
        _gate(hardware, nest, activity.input_density, parts)
    if store is not None and store.live_outputs != 1:
        _leave_dead_outputs(store.live_outputs, parts)
    return Tariff(
        parts.bits,
        parts.hop_bits,
        {key: bits for key, bits in parts.once_bits.items() if bits},
        tuple(level.read_pj_per_bit for level in hardware.levels),
        tuple(level.write_pj_per_bit for level in hardware.levels),
        hardware.array.hop_pj_per_bit,
        {key: share for key, share in parts.shares.items() if share != 1},
        parts.timed_bits,
    )


def used_activity(hardware: Hardware, activity: Activity, *, has_weights: bool) -> Activity:
    """What a machine makes use of; the rest as if dense, so that like layers stay alike."""
    coded = hardware.sparsity.activation_format != "dense"
    gated = has_weights and hardware.sparsity.activations != "none"
    return Activity(
        activity.input_density if coded or gated else 1.0,
        activity.output_density if coded else 1.0,
    )


def stored_in_dram(hardware: Hardware, tensor: Tensor, activity: Activity) -> Coded:
    """Room of an element of the input or of the complete output in DRAM, on average."""
    bits, sparsity = hardware.bits.of(tensor), hardware.sparsity
    if sparsity.activation_format == "dense":
        return Coded(float(bits), 1.0)
    given = activity.input_density if tensor is Tensor.INPUT else activity.output_density
    return run_length_coded(given, bits, sparsity.activation_run_bits)


@dataclass(frozen=True, slots=True)
class _Parts:
    """The tables of a tariff while they are filled in."""

    bits: dict[Key, float]
    hop_bits: dict[Key, float]
    once_bits: dict[Key, int]
    shares: dict[Key, float]
    timed_bits: dict[Key, float]


@dataclass(frozen=True, slots=True)
class _Moves:
    """Which sides of a level move data."""

    level: int
    inward: bool
    outward: bool
    below: int | None
    """the next inner holder, where instances fan out to it"""


def _price_outputs(hardware: Hardware, moves: _Moves, activity: Activity, parts: _Parts) -> None:
    level, partial = moves.level, float(hardware.bits.psum)
    saved = float(hardware.bits.output) - partial
    if moves.inward:
        parts.bits[level, Tensor.OUTPUT, "read"] = partial
        parts.bits[level, Tensor.OUTPUT, "update"] = partial
        parts.bits[level, Tensor.OUTPUT, "update_complete"] = saved
        if level == 0:
            stored = stored_in_dram(hardware, Tensor.OUTPUT, activity)
            parts.bits[level, Tensor.OUTPUT, "update_complete"] = stored.bits - partial
            if stored.entries != 1:
                parts.shares[level, Tensor.OUTPUT, "update_complete"] = stored.entries - 1
        parts.hop_bits[level, Tensor.OUTPUT, "hop"] = partial
        if moves.below is not None:
            parts.hop_bits[moves.below, Tensor.OUTPUT, "drain_complete"] = saved
    if moves.outward:
        parts.bits[level, Tensor.OUTPUT, "fill"] = partial
        parts.bits[level, Tensor.OUTPUT, "drain"] = partial
        parts.bits[level, Tensor.OUTPUT, "drain_complete"] = saved


def _price_operands(
    hardware: Hardware,
    tensor: Tensor,
    moves: _Moves,
    store: WeightStore | None,
    activity: Activity,
    parts: _Parts,
) -> None:
    level, each, once = moves.level, float(hardware.bits.of(tensor)), 0
    if tensor is Tensor.WEIGHT and store is not None and hardware.levels[level].compressed:
        each, once = store.bits_per_weight, store.once_bits
    for moved, name in ((moves.inward, "read"), (moves.outward, "fill")):
        if moved:
            parts.bits[level, tensor, name] = each
            parts.once_bits[level, tensor, name] = once
    if moves.inward:
        parts.hop_bits[level, tensor, "hop"] = each
    if level == 0 and tensor is Tensor.INPUT and moves.inward:
        # decoded where it enters the chip: what crosses the network is not coded
        stored = stored_in_dram(hardware, tensor, activity)
        parts.bits[level, tensor, "read"] = stored.bits
        parts.shares[level, tensor, "read"] = stored.entries


def _leave_dead_outputs(share: float, parts: _Parts) -> None:
    """Move and add up live outputs only, of a layer with a mask on its output."""
    for table in (parts.bits, parts.hop_bits):
        for key in table:
            if key[1] is Tensor.OUTPUT:
                table[key] *= share
                unmarked = 0.0 if key[2].endswith("_complete") else 1.0
                parts.shares[key] = share * parts.shares.get(key, unmarked)


def _gate(hardware: Hardware, nest: Nest, density: float, parts: _Parts) -> None:
    """Leave out what a MAC with a zero input does not need from memories of its own.

    An operand in a latch is read for many MACs at once, and one in a memory of several elements
    for all of them: these reads are made.
    """
    for tensor, names in ((Tensor.WEIGHT, ("read",)), (Tensor.OUTPUT, ("read", "update"))):
        level = nest.holders(tensor)[-1]
        alone = all(
            size == 1 or axis in nest.axes[level] for axis, size in enumerate(hardware.axis_sizes)
        )
        if level == 0 or not alone or tensor in hardware.mac.latched:
            continue
        for name in names:
            key = (level, tensor, name)
            if key in parts.bits:
                parts.timed_bits[key] = parts.bits[key]
                parts.bits[key] *= density
                parts.shares[key] = density


def done_macs(hardware: Hardware, operations: int, effective: int, density: float = 1.0) -> float:
    """Multiply-accumulates that cost energy, as expected.

    Parameters
    ----------
    hardware : Hardware
    operations : int
        MACs, zeros included.
    effective : int
        Those with weights that may differ from zero.
    density : float
        Share of inputs that are not zero, wherever the weights are.
    """
    done = operations if hardware.sparsity.weights == "none" else effective
    return done * density if hardware.sparsity.activations == "gate" else done


def compute_pj(
    hardware: Hardware,
    operations: int,
    effective: int,
    *,
    has_weights: bool,
    density: float = 1.0,
) -> float:
    """Energy of the arithmetic of a layer [pJ].

    A machine that gates or skips zero weights pays for effective MACs only, one that gates zero
    inputs for those MACs whose input is not zero. Layers without weights (pools, additions) run on
    the vector unit.
    """
    if not has_weights:
        return operations * hardware.vector.energy_pj if hardware.vector else 0.0
    return done_macs(hardware, operations, effective, density) * hardware.mac.energy_pj
