"""What stays on chip between layers and between inferences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from energysim.axes import Dim, Shape, Tensor
from energysim.hardware import Hardware
from energysim.mapper.dataflows import Dataflow, unrollings
from energysim.model.capacity import Residency
from energysim.model.sparse import WeightStore
from energysim.network import NETWORK_INPUT, Layer, MixtureLayer, Network
from energysim.network.norm import STATISTIC_BITS


@dataclass(frozen=True, slots=True)
class Plan:
    """Residency of every layer of a network."""

    layers: tuple[Residency, ...]
    cached_weight_bits: int = 0
    """weights that stay on chip from one inference to the next [bit]"""


@dataclass(frozen=True, slots=True)
class _Producer:
    """A layer's output and when it is needed."""

    index: int
    last_reader: int
    bits: int


def nothing_stays(network: Network) -> Plan:
    """The plan of a machine that keeps nothing between layers."""
    return Plan((Residency(),) * len(network.layers))


def plan(
    hardware: Hardware,
    network: Network,
    *,
    shapes: Sequence[Shape],
    stores: Sequence[WeightStore | None],
    dataflow: Dataflow,
    streamed: frozenset[int] = frozenset(),
    caches: bool = True,
) -> Plan:
    """Decide what stays in the outermost on-chip memory.

    Weights stay if all of them fit at once, as the Edge TPU caches parameters. An output stays
    until its last reader is done if at every layer of that time all that stays fits together with
    one pass over the array (the weights, input rows and output row that the array works on at
    once, twice where double-buffered). Outputs that are read together stay together or not at all.
    The network's input and its last output always move.

    Parameters
    ----------
    shapes : sequence of Shape
        Of the layers, with the batch.
    stores : sequence of WeightStore or None
    streamed : frozenset of int
        Layers whose outputs must not stay.
    caches : bool
        Whether weights may stay.

    Returns
    -------
    Plan
    """
    level = hardware.levels[1]
    capacity = level.capacity_bits()
    if not isinstance(capacity, int):
        # Memories of their own for each tensor: an output would have to move to become an input.
        return nothing_stays(network)
    passes = [
        _pass_bits(hardware, layer, shape, dataflow, store)
        for layer, shape, store in zip(network.layers, shapes, stores, strict=True)
    ]
    weights = 0
    if caches and Tensor.WEIGHT in level.tensors:
        total = sum(
            store.total_bits if level.compressed else store.elements * hardware.bits.weight
            for layer, store in zip(network.layers, stores, strict=True)
            if store is not None and layer.stores_weights
        )
        total += sum(
            layer.statistics * STATISTIC_BITS
            for layer in network.layers
            if isinstance(layer, MixtureLayer)
        )
        if all(
            total + _room(one, _cached(layer)) <= capacity
            for layer, one in zip(network.layers, passes, strict=True)
        ):
            weights = total
    staying: dict[int, _Producer] = {}
    if {Tensor.INPUT, Tensor.OUTPUT} <= level.tensors:
        room = capacity - weights
        for group in _groups(hardware, network, shapes):
            if streamed & {producer.index for producer in group}:
                continue
            trial = staying | {producer.index: producer for producer in group}
            times = range(
                min(producer.index for producer in group),
                max(producer.last_reader for producer in group) + 1,
            )
            if all(_fits(network, trial, passes, at, room, cached=weights > 0) for at in times):
                staying = trial
    return Plan(
        tuple(
            _layer_plan(
                network, staying, weights, i, shape.elements(Tensor.INPUT) * hardware.bits.output
            )
            for i, shape in enumerate(shapes)
        ),
        weights,
    )


def _layer_plan(
    network: Network,
    staying: Mapping[int, _Producer],
    weights: int,
    index: int,
    read_bits: int,
) -> Residency:
    layer = network.layers[index]
    tensors = _resident(network, staying, index)
    if weights:
        tensors |= _cached(layer)
    read = _producers(network, layer.operands[Tensor.INPUT])
    own = {index} | read
    waiting = sum(
        producer.bits
        for producer in staying.values()
        if producer.index not in own and producer.index < index < producer.last_reader + 1
    )
    if Tensor.INPUT in tensors:
        # A layer may read some channels of what stays; the others take room all the same.
        present = sum(staying[producer].bits for producer in read)
        waiting += max(0, present - read_bits)
    return Residency(frozenset(tensors), weights + waiting)


def _cached(layer: Layer) -> set[Tensor]:
    """What of a layer is on chip where all weights are."""
    keeps = layer.stores_weights or isinstance(layer, MixtureLayer)
    return {Tensor.WEIGHT} if keeps else set()


def _producers(network: Network, read: Sequence[str]) -> set[int]:
    names = {layer.name: i for i, layer in enumerate(network.layers)}
    return {names[name] for name in read if name in names}


def _resident(network: Network, staying: Mapping[int, _Producer], index: int) -> set[Tensor]:
    tensors = set[Tensor]()
    for tensor, read in network.layers[index].operands.items():
        producers = _producers(network, read)
        if len(producers) == len(set(read)) and producers <= staying.keys():
            tensors.add(tensor)
    if index in staying:
        tensors.add(Tensor.OUTPUT)
    return tensors


def _groups(hardware: Hardware, network: Network, shapes: Sequence[Shape]) -> list[list[_Producer]]:
    """Outputs that are read together as one tensor, in order of production."""
    readers: dict[int, list[int]] = {}
    moving = set[int]()
    groups: list[set[int]] = []
    for index, layer in enumerate(network.layers):
        for tensor, read in layer.operands.items():
            together = _producers(network, read)
            for producer in together:
                readers.setdefault(producer, []).append(index)
            # the network's input is never resident, nor what another memory takes from DRAM
            if NETWORK_INPUT in read or tensor not in hardware.levels[1].tensors:
                moving |= together
            touching = [group for group in groups if group & together]
            groups = [group for group in groups if not group & together]
            if together:
                groups.append(together.union(*touching))
    found = []
    for group in sorted(groups, key=min):
        if group & moving:
            continue
        found.append(
            [
                _Producer(
                    member,
                    max(readers[member]),
                    shapes[member].elements(Tensor.OUTPUT) * hardware.bits.output,
                )
                for member in sorted(group)
            ]
        )
    return found


def _fits(
    network: Network,
    staying: Mapping[int, _Producer],
    passes: Sequence[Mapping[Tensor, int]],
    at: int,
    room: int,
    *,
    cached: bool,
) -> bool:
    live = sum(
        producer.bits
        for producer in staying.values()
        if producer.index <= at <= producer.last_reader
    )
    absent = _cached(network.layers[at]) if cached else set[Tensor]()
    return live + _room(passes[at], absent | _resident(network, staying, at)) <= room


def _room(one_pass: Mapping[Tensor, int], absent: set[Tensor]) -> int:
    return sum(bits for tensor, bits in one_pass.items() if tensor not in absent)


def _pass_bits(
    hardware: Hardware, layer: Layer, shape: Shape, dataflow: Dataflow, store: WeightStore | None
) -> dict[Tensor, int]:
    """Room for what the array works on at once: whole kernels, one output row [bit]."""
    level = hardware.levels[1]
    fan = dict.fromkeys(Dim, 1)
    if store is not None:
        first = unrollings(hardware, dict(zip(Dim, shape.dims, strict=True)), dataflow)[0]
        for dim, _, size in first:
            fan[dim] *= size
    filters, channels = min(shape[Dim.K], fan[Dim.K]), min(shape[Dim.C], fan[Dim.C])
    copies = 2 if level.double_buffered else 1
    rows = (shape[Dim.R] - 1) * shape.dilation[0] + 1
    needed = {
        Tensor.INPUT: channels * min(rows, shape.size[0]) * shape.size[1] * hardware.bits.input,
        Tensor.OUTPUT: filters * shape[Dim.Q] * hardware.bits.psum,
    }
    if store is not None:
        kernel = shape[Dim.R] * shape[Dim.S]
        needed[Tensor.WEIGHT] = filters * channels * kernel * layer.widths(hardware.bits).weight
        if level.compressed:
            tile = store.tile_bits(np.array([filters]), np.array([channels]), kernel)
            needed[Tensor.WEIGHT] = int(tile[0, 0])
    return {tensor: bits * copies for tensor, bits in needed.items() if tensor in level.tensors}
