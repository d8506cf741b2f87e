"""Which activation function a layer has where its record says nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from energysim.network.types import Activation, Layer, LayerKind

ACTIVATED = frozenset(
    {
        LayerKind.CONV,
        LayerKind.DEPTHWISE,
        LayerKind.TRANSPOSED,
        LayerKind.LINEAR,
        LayerKind.BATCH_NORM,
        LayerKind.MIXTURE_NORM,
        LayerKind.ADD,
    }
)
"""Kinds of layer that have the network's activation function unless they say otherwise."""

CAN_BE_ACTIVATED = ACTIVATED | {LayerKind.MULTIPLY, LayerKind.LAYER_NORM}
"""Kinds of layer that can have one."""


def usual_activations(layers: Sequence[Layer], own: Activation) -> dict[str, Activation]:
    """What each layer has by default in a network whose activation function is ``own``.

    Layers that nobody reads are outputs, which have none; nor have those that only adds read: in a
    residual block the sum is activated and not what is added.

    Parameters
    ----------
    layers : sequence of Layer
        Of the whole network.
    own : Activation
        Of the network.

    Returns
    -------
    dict of str to Activation
        By layer.
    """
    readers: dict[str, set[LayerKind]] = {layer.name: set() for layer in layers}
    for layer in layers:
        for name in layer.inputs:
            readers.setdefault(name, set()).add(layer.kind)
    return {layer.name: _usual(layer, readers, own) for layer in layers}


def _usual(layer: Layer, readers: Mapping[str, set[LayerKind]], own: Activation) -> Activation:
    alone = readers[layer.name] <= {LayerKind.ADD}
    return own if layer.kind in ACTIVATED and not alone else Activation.NONE
