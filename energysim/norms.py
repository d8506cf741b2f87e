"""Norms that can't be folded: when they are computed on the way out, and when they need a pass.

A batch norm is folded into the layer before it and costs nothing. A mixture norm is a layer: the
vector unit reads each element from the outermost memory on chip and writes it back there. Whether
the map also goes to DRAM and comes back, 2 C H W words more, depends on what is there at once:

- a mixture for each channel needs one element at a time, so each is normalised when it is complete,
  and what the layer before writes to DRAM is the normalised map;
- one mixture of all channels needs all of a pixel. Where the output tile of the layer before spans
  them in that memory, it is normalised there before it leaves. Else the map is written raw, read,
  and written once more.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from energysim.axes import Dim, Shape, Tensor
from energysim.mapping import Nest, nominal_tile
from energysim.model.capacity import Residency
from energysim.network import Layer, MixtureLayer, Of

BOTH = frozenset({Tensor.INPUT, Tensor.OUTPUT})


def fusible(
    layers: Sequence[Layer], kept: Sequence[Residency], *, any_mapping: bool = False
) -> Mapping[int, int]:
    """Mixture norms that may be computed on the way out of the layer before them.

    Parameters
    ----------
    layers : sequence of Layer
    kept : sequence of Residency
        What stays on chip around each.
    any_mapping : bool
        Only those that may be so whatever the mapping of the layer before: of channels.

    Returns
    -------
    mapping of int to int
        Place of the norm, and of the layer before it: one with weights, whose output nobody else
        reads. Where either output stays on chip in whole, moves are counted as for any two layers.
    """
    places = {layer.name: i for i, layer in enumerate(layers)}
    readers: dict[str, int] = {}
    for layer in layers:
        for name in set(layer.inputs):
            readers[name] = readers.get(name, 0) + 1
    found: dict[int, int] = {}
    for i, layer in enumerate(layers):
        if not isinstance(layer, MixtureLayer) or len(layer.inputs) != 1:
            continue
        if any_mapping and layer.mixture.of is Of.VECTOR:
            continue
        producer = places.get(layer.inputs[0])
        if producer is None or readers[layer.inputs[0]] > 1 or layer.channels is not None:
            continue
        stays = Tensor.OUTPUT in kept[i].tensors | kept[producer].tensors
        if layers[producer].stores_weights and not stays:
            found[i] = producer
    return found


def joined(around: Residency) -> Residency:
    """What stays around a norm that is computed on the way out: all that it reads and gives."""
    return replace(around, tensors=around.tensors | BOTH)


def holds_all_channels(shape: Shape, nest: Nest, trips: Sequence[int]) -> bool:
    """Whether the outermost memory on chip holds all output channels of some pixels at once.

    Parameters
    ----------
    shape : Shape
        Of the layer.
    nest : Nest
    trips : sequence of int
        Of its mapping.

    Returns
    -------
    bool
        False where that memory is split along an axis of the array, or holds no output.
    """
    inside = [level for level in nest.holders(Tensor.OUTPUT) if level > 0]
    if not inside or nest.axes[inside[0]]:
        return False
    tile = nominal_tile(shape, nest, trips, inside[0], Tensor.OUTPUT)
    return all(tile[dim] == shape[dim] for dim in (Dim.G, Dim.K))
