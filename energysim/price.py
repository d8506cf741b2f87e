"""One layer on one mapping: counts to bits, energy, cycles and rows of the result."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product
from math import prod

import numpy as np
import numpy.typing as npt

from energysim.axes import Action, Dim, Shape, Tensor
from energysim.hardware import Hardware, Level
from energysim.mapping import Nest, machine_rules, nominal_tile
from energysim.model.bounds import (
    communication_bound,
    compulsory_elements,
    real_macs,
    window_reuse,
)
from energysim.model.capacity import Residency
from energysim.model.coded import coded_bits, live_weights
from energysim.model.counts import Counts, Key
from energysim.model.energy import Tariff, compute_pj, done_macs, stored_in_dram, tariff
from energysim.model.latency import Latency, Widths, latency, overlaps
from energysim.model.live import needed_inputs, with_known_zeros
from energysim.model.lockstep import Skipped, in_nest_order, lock_step_of
from energysim.model.sparse import WeightStore
from energysim.model.tiling import temporal_steps
from energysim.network import Layer, MixtureLayer
from energysim.network.norm import STATISTIC_BITS
from energysim.result import AccessRow, LayerRow, Timing
from energysim.sparsity import DENSE, Activity
from energysim.units import BITS_PER_BYTE, cycles_to_ms


@dataclass(frozen=True, slots=True)
class Job:
    """One layer with all that its cost depends on but the mapping."""

    layer: Layer
    shape: Shape
    """with the batch"""
    store: WeightStore | None
    """of what it multiplies with; None for a layer that the vector unit runs"""
    residency: Residency
    activity: Activity = DENSE
    """what is known of zeros in its input and output, as far as the machine makes use of it"""

    @property
    def positions(self) -> int:
        """Positions of the map that a norm reads, of all images."""
        shape = self.shape
        return shape[Dim.N] * shape.size[0] * shape.size[1]

    @property
    def effective_macs(self) -> int:
        """Multiply-accumulates of the batch with weights that may differ from zero."""
        return self.layer.effective_macs * (self.shape.macs // self.layer.shape.macs)


def machine_of(layer: Layer, hardware: Hardware) -> Hardware:
    """The machine with the widths of one layer: the vector unit hands over finished outputs.

    Its lanes are those that take a step of the nest in a cycle: fewer where a step is more than one
    operation.
    """
    if layer.operations is not None and hardware.vector is not None and hardware.vector.lanes:
        # A little more than their share, so that rounding never makes a cycle of nothing.
        share = layer.shape[Dim.G] * layer.shape[Dim.C] / layer.operations.steps * (1 + 1e-12)
        vector = hardware.vector.model_copy(update={"lanes": hardware.vector.lanes * share})
        hardware = hardware.model_copy(update={"vector": vector})
    bits = layer.widths(hardware.bits)
    if not layer.has_weights:
        bits = bits.model_copy(update={"psum": bits.output})
    if bits == hardware.bits:
        return hardware
    return hardware.model_copy(update={"bits": bits})


def static_pj_per_cycle(hardware: Hardware) -> float:
    """Energy of the static power in one cycle [pJ]."""
    return hardware.static_mw * 1000 / hardware.clock_mhz  # 1 mW for 1 us is 1000 pJ


def arithmetic_pj(job: Job, hardware: Hardware) -> float:
    """Energy of the arithmetic, whatever the mapping [pJ]."""
    if job.layer.operations is not None:
        return sum(energy for _, _, energy in _arithmetic(job, hardware))
    return compute_pj(
        hardware,
        job.shape.macs,
        job.effective_macs,
        has_weights=job.store is not None,
        density=job.activity.input_density,
    )


def _arithmetic(job: Job, hardware: Hardware) -> list[tuple[str, int, float]]:
    """What computes a norm, operations there, and their energy [pJ].

    Products cost what a multiply-accumulate does, whatever the width of what is multiplied.
    """
    each = job.layer.operations
    assert each is not None  # of norms only
    done = each * job.positions
    free = hardware.vector is None
    added = 0.0 if hardware.vector is None else done.additions * hardware.vector.energy_pj
    return [
        ("MAC", done.macs, done.macs * hardware.mac.energy_pj),
        *([] if free else [("vector", done.additions, added)]),
    ]


def skipped_steps(
    job: Job, hardware: Hardware, nest: Nest, trips: tuple[int, ...]
) -> Skipped | None:
    """Array steps with the zero weights of a layer skipped; None if the machine skips none.

    Parameters
    ----------
    job : Job
    hardware : Hardware
    nest : Nest
    trips : tuple of int

    Returns
    -------
    Skipped or None
    """
    if hardware.sparsity.weights != "skip" or job.store is None:
        return None
    if job.store.mask.nonzeros == job.store.mask.total:
        return None
    lock = lock_step_of(
        job.store.mask,
        nest,
        trips,
        axes=tuple(hardware.array.axes),
        order=hardware.sparsity.order,
        pe_queue=hardware.sparsity.pe_queue,
    )
    times = 1
    for dim in (Dim.N, Dim.P, Dim.Q):
        own = [
            (count, loop.axis is not None)
            for loop, count in zip(nest.loops, trips, strict=True)
            if loop.dim is dim
        ]
        times *= temporal_steps(job.shape[dim], own)
    return Skipped(lock, times)


def known_zeros(
    job: Job,
    hardware: Hardware,
    nest: Nest,
    trips: tuple[int, ...],
    counts: Counts,
    skipped: Skipped | None = None,
) -> Counts:
    """Counts of a layer on a machine that does nothing for zero weights; unchanged on others.

    Parameters
    ----------
    job : Job
    hardware : Hardware
    nest : Nest
    trips : tuple of int
    counts : Counts
        Of this mapping alone (B = 1), zeros multiplied.
    skipped : Skipped, optional
        Array steps, where zeros are skipped: its channel order is that of the loops.

    Returns
    -------
    Counts
    """
    store, word = job.store, hardware.sparsity.weights
    if store is None or word == "none" or store.mask.nonzeros == store.mask.total:
        return counts
    rules = machine_rules(hardware, has_weights=True)
    if skipped is None:
        live = store.mask.array()
    else:
        axes, order = tuple(hardware.array.axes), dict(skipped.lock.order)
        live = in_nest_order(store.mask, nest, trips, axes=axes, order=order)
    skips = word == "skip"
    known = with_known_zeros(counts, job.shape, nest, trips, rules, live, skips=skips)
    if not skips:
        return known
    compressed = [level.compressed for level in hardware.levels]
    weights = live_weights(store.mask, compressed, job.shape, nest, trips, rules, counts)
    return known.changed(weights)


def _live_folds(job: Job, nest: Nest, trips: tuple[int, ...], skipped: Skipped | None) -> float:
    """Share of the tiles of weights on the array that have a live weight.

    A tile of one tap a kernel is put there for a step of the array, and not at all if the step is
    skipped. A tile of more taps is taken as live.
    """
    if skipped is None:
        return 1.0
    innermost = nest.holders(Tensor.WEIGHT)[-1]
    tile = nominal_tile(job.shape, nest, trips, innermost, Tensor.WEIGHT)
    return skipped.lock.ratio if tile[Dim.R] * tile[Dim.S] == 1 else 1.0


def _coded_weights(
    job: Job, hardware: Hardware, nest: Nest, trips: tuple[int, ...], counts: Counts
) -> dict[Key, float]:
    """Bits of weights that move in coded tiles; nothing where a level inside DRAM codes none."""
    compressed = [level.compressed for level in hardware.levels]
    if job.store is None or job.store.format == "dense" or not any(compressed[1:]):
        return {}
    rules = machine_rules(hardware, has_weights=True)
    return coded_bits(job.store, compressed, job.shape, nest, trips, rules, counts)


def _prices(
    job: Job, hardware: Hardware, mapped: tuple[Nest, tuple[int, ...]], counts: Counts
) -> Tariff:
    prices = tariff(hardware, mapped[0], job.store, job.residency.tensors, job.activity)
    return prices.with_coded(_coded_weights(job, hardware, *mapped, counts))


def _latency(
    job: Job,
    hardware: Hardware,
    mapped: tuple[Nest, tuple[int, ...]],
    prices: Tariff,
    counted: tuple[Counts, Counts],
    skipped: Skipped | None,
    widths: Widths | None = None,
) -> Latency:
    """Cycles, from the counts with zeros multiplied and those with zeros known."""
    (nest, trips), (every, known) = mapped, counted
    timed = every if skipped is None else known  # what is gated takes its time
    return latency(
        hardware,
        nest,
        prices,
        steps=known.steps if skipped is None else np.array([skipped.steps]),
        value=timed.values.get,
        used=known.used,
        vector=job.store is None,
        skipped=_live_folds(job, nest, trips, skipped),
        widths=widths,
    )


def cycles_at(
    job: Job,
    hardware: Hardware,
    mapped: tuple[Nest, tuple[int, ...]],
    counts: Counts,
    skipped: Skipped | None,
    widths: Widths,
) -> npt.NDArray[np.float64]:
    """Cycles of one layer on one mapping with many bandwidths.

    Parameters
    ----------
    job, hardware, mapped, counts, skipped
        As for :func:`price_layer`.
    widths : sequence
        Of each level, a number or an array of shape (D,) [bit/cycle]; None where the machine sets
        no limit.

    Returns
    -------
    float array, shape (D,) or (1,)
        Whole numbers.
    """
    known = known_zeros(job, hardware, *mapped, counts, skipped)
    prices = _prices(job, hardware, mapped, counts)
    return _latency(job, hardware, mapped, prices, (counts, known), skipped, widths).total


def price_layer(
    job: Job,
    hardware: Hardware,
    mapped: tuple[Nest, tuple[int, ...]],
    counts: Counts,
    mapping: str,
    skipped: Skipped | None = None,
) -> tuple[LayerRow, tuple[AccessRow, ...], Timing]:
    """Rows of the result for one layer, and what its time is made of.

    Parameters
    ----------
    job : Job
    hardware : Hardware
        As :func:`machine_of` gives it.
    mapped : Nest, tuple of int
        The mapping: loops, and the trip count of each.
    counts : Counts
        Of this mapping alone (B = 1), zeros multiplied.
    mapping : str
        The mapping in one line.
    skipped : Skipped, optional
        Array steps, if zero weights are skipped.

    Returns
    -------
    LayerRow, tuple of AccessRow, Timing
        The energy of the layer is the sum of its access rows.
    """
    layer, has_weights = job.layer, job.store is not None
    nest, trips = mapped
    prices = _prices(job, hardware, mapped, counts)
    every, counts = counts, known_zeros(job, hardware, nest, trips, counts, skipped)
    time = _latency(job, hardware, mapped, prices, (every, counts), skipped)
    cycles = int(time.total[0])
    accesses = _memory_rows(job, hardware, counts, prices)
    accesses += _network_rows(job, hardware, counts, prices)
    accesses += _compute_rows(job, hardware)
    if hardware.static_mw:
        static = cycles * static_pj_per_cycle(hardware)
        accesses.append(_row(job, hardware, ("static", "", "static"), (0, 0.0, static)))
    macs = job.shape.macs if has_weights else 0
    busy = macs if skipped is None else job.effective_macs
    stored = job.store if layer.stores_weights else None
    row = LayerRow(
        layer=layer.name,
        kind=str(layer.kind),
        macs=macs,
        effective_macs=job.effective_macs if has_weights else 0,
        cycles=cycles,
        time_ms=cycles_to_ms(cycles, hardware.clock_mhz),
        utilization=busy / (cycles * prod(hardware.axis_sizes)) if cycles else 0.0,
        dram_bytes=_moved_bytes(accesses, hardware.levels[:1]),
        sram_bytes=_moved_bytes(accesses, hardware.levels[1:2]),
        energy_pj=sum(each.energy_pj for each in accesses),
        dram_bound_bytes=_bound_bits(job, hardware) / BITS_PER_BYTE,
        weight_format=stored.format if stored else "",
        weight_bits=stored.total_bits if stored else 0,
        resident=" ".join(tensor.label for tensor in sorted(job.residency.tensors)),
        mapping=mapping,
    )
    return row, tuple(accesses), _timing(hardware, nest, time)


def _timing(hardware: Hardware, nest: Nest, time: Latency) -> Timing:
    names = [level.name for level in hardware.levels]
    return Timing(
        compute_cycles=float(time.compute[0]),
        bus_cycles=float(time.links[0]),
        waiting_cycles=float(time.ramp[0]),
        exposed_cycles=float(time.exposed[0]),
        level_cycles=dict(zip(names, (float(each[0]) for each in time.levels), strict=True)),
        overlapping=tuple(name for i, name in enumerate(names) if overlaps(hardware, nest, i)),
    )


def _row(
    job: Job,
    hardware: Hardware,
    what: tuple[str, str, str],
    figures: tuple[int, float, float],
) -> AccessRow:
    return AccessRow("", hardware.name, job.layer.name, *what, *figures)


def _compute_rows(job: Job, hardware: Hardware) -> list[AccessRow]:
    """The arithmetic; of a mixture norm its statistics too, which are read once a batch."""
    has_weights, layer = job.store is not None, job.layer
    if layer.operations is not None:
        rows = [
            _row(job, hardware, (unit, "", "compute"), (done, 0.0, energy))
            for unit, done, energy in _arithmetic(job, hardware)
        ]
        if isinstance(layer, MixtureLayer):
            rows.insert(0, _statistics_row(job, layer, hardware))
        return rows
    done = job.shape.macs
    if has_weights:
        live = job.effective_macs
        done = round(done_macs(hardware, done, live, job.activity.input_density))
    what = ("MAC" if has_weights else "vector", "", "compute")
    return [_row(job, hardware, what, (done, 0.0, arithmetic_pj(job, hardware)))]


def _statistics_row(job: Job, layer: MixtureLayer, hardware: Hardware) -> AccessRow:
    """Statistics, scale and shift: from where weights are between inferences."""
    memory = hardware.levels[1 if Tensor.WEIGHT in job.residency.tensors else 0]
    words = layer.statistics
    bits = float(words * STATISTIC_BITS)
    figures = (words, bits, bits * memory.read_pj_per_bit)
    return _row(job, hardware, (memory.name, Tensor.WEIGHT.label, "read"), figures)


def _moved_bytes(accesses: list[AccessRow], levels: tuple[Level, ...]) -> float:
    """Bytes read and written in some levels."""
    names = {level.name for level in levels}
    return sum(row.bits for row in accesses if row.level in names) / BITS_PER_BYTE


def _memory_rows(job: Job, hardware: Hardware, counts: Counts, prices: Tariff) -> list[AccessRow]:
    """What is read and written at each memory level."""
    rows = []
    for (index, memory), tensor, action in product(enumerate(hardware.levels), Tensor, Action):
        key = (index, tensor, action.label)
        elements = int(counts(*key)[0]) if key in prices.bits else 0
        if not elements:
            continue
        done = (index, tensor, f"{action.label}_complete")
        bits = prices.moved.get(key, elements * prices.bits[key]) + prices.once_bits.get(key, 0)
        bits += int(counts(*done)[0]) * prices.bits.get(done, 0.0)
        write = action in (Action.FILL, Action.UPDATE)
        per_bit = memory.write_pj_per_bit if write else memory.read_pj_per_bit
        if tensor is Tensor.WEIGHT and memory.compressed and job.store is not None:
            elements = job.store.stored_elements(elements)
        if key in prices.shares or done in prices.shares:
            more = int(counts(*done)[0]) * prices.shares.get(done, 0.0)
            elements = round(elements * prices.shares.get(key, 1.0) + more)
        what = (memory.name, tensor.label, action.label)
        rows.append(_row(job, hardware, what, (elements, bits, bits * per_bit)))
    return rows


def _network_rows(job: Job, hardware: Hardware, counts: Counts, prices: Tariff) -> list[AccessRow]:
    """What crosses the network between a level and the instances it fans out to."""
    rows = []
    for tensor in Tensor:
        own = [(key, each) for key, each in prices.hop_bits.items() if key[1] is tensor]
        moved = (key for key, _ in own if key[2] == "hop")
        hops = sum(_handed_over(job, hardware, counts, prices, key) for key in moved)
        bits = sum(prices.moved.get(key, int(counts(*key)[0]) * each) for key, each in own)
        if hops:
            figures = (hops, bits, bits * prices.hop_pj)
            rows.append(_row(job, hardware, ("NoC", tensor.label, "hop"), figures))
    return rows


def _handed_over(job: Job, hardware: Hardware, counts: Counts, prices: Tariff, key: Key) -> int:
    """Elements that cross the network, stored ones where they cross it coded."""
    elements = int(counts(*key)[0])
    if key[1] is Tensor.WEIGHT and hardware.levels[key[0]].compressed and job.store is not None:
        elements = job.store.stored_elements(elements)
    return round(elements * prices.shares.get(key, 1.0))


def compulsory_bits(job: Job, hardware: Hardware) -> dict[Tensor, float]:
    """What each tensor moves to or from DRAM if it moves once and nothing stays on chip [bit]."""
    elements = compulsory_elements(job.shape, count_padding=hardware.padding == "count")
    bits = {
        tensor: elements[tensor] * stored_in_dram(hardware, tensor, job.activity).bits
        for tensor in (Tensor.INPUT, Tensor.OUTPUT)
    }
    if isinstance(job.layer, MixtureLayer):
        return bits | {Tensor.WEIGHT: job.layer.statistics * STATISTIC_BITS}
    if job.store is None:
        return bits | {Tensor.WEIGHT: 0}
    bits[Tensor.OUTPUT] *= job.store.live_outputs
    mask = job.store.mask
    if hardware.sparsity.weights == "skip" and mask.nonzeros < mask.total:
        padding = hardware.padding == "count"
        needed = needed_inputs(job.shape, mask.array(), count_padding=padding)
        bits[Tensor.INPUT] *= needed / elements[Tensor.INPUT]
    in_tiles = hardware.levels[1].compressed
    weights = job.store.least_bits if in_tiles else job.store.total_bits
    return bits | {Tensor.WEIGHT: weights}


def _bound_bits(job: Job, hardware: Hardware) -> float:
    """Least traffic to and from DRAM: what must move once, or what the on-chip memory forces."""
    bits = compulsory_bits(job, hardware)
    once = sum(each for tensor, each in bits.items() if tensor not in job.residency.tensors)
    if job.residency.tensors or not job.layer.has_weights:
        return once
    narrowest = min(hardware.bits.of(tensor) for tensor in Tensor)
    room = sum(
        _all_bits(level.capacity_bits()) * hardware.instances(i)
        for i, level in enumerate(hardware.levels)
    )
    room += sum(hardware.bits.of(tensor) for tensor in Tensor) * prod(hardware.axis_sizes)
    # MACs on padding need no input; at most all of them are among those with live weights
    macs = job.effective_macs - (job.shape.macs - real_macs(job.shape))
    forced = communication_bound(max(macs, 0), window_reuse(job.shape), -(-room // narrowest))
    coded = (stored_in_dram(hardware, t, job.activity).bits for t in (Tensor.INPUT, Tensor.OUTPUT))
    return max(once, forced * min(narrowest, *coded))


def _all_bits(capacity: int | Mapping[Tensor, int] | None) -> int:
    if capacity is None or isinstance(capacity, int):
        return capacity or 0
    return sum(capacity.values())
