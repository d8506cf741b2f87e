"""A trained network without norms: what batch norms do to an image goes into weights and biases."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from energysim.axes import Dim, Shape
from energysim.errors import InputError
from energysim.network import Layer, LayerKind, MixtureLayer, Network
from energysim.train.ops import EPSILON
from energysim.train.parameters import BETA, BIAS, GAMMA, MEAN, VARIANCE, WEIGHT, Arrays
from energysim.train.scratch import Floats


def folded(network: Network, weights: Arrays, running: Arrays) -> tuple[Network, Arrays]:
    """Fold batch norms with their running statistics into the layers before them.

    Parameters
    ----------
    network : Network
    weights, running : dict of ndarray
        Learnt numbers and running statistics by name, as of :class:`~energysim.train.model.Model`.

    Returns
    -------
    network : Network
        Without batch norms. One that stands by itself becomes a depthwise 1x1 convolution.
    weights : dict of ndarray
        Of it: for any image it gives the scores that the other one does with running statistics.

    Raises
    ------
    InputError
        If it has a mixture norm: what that multiplies with depends on the image.
    """
    mixed = next((layer.name for layer in network.layers if isinstance(layer, MixtureLayer)), None)
    if mixed is not None:
        raise InputError(
            f"{mixed} of {network.name} is a mixture norm, which can't be folded into weights: its"
            " posteriors depend on the image. Attacks need a network with batch norms"
        )
    layers, found = [], dict[str, Floats]()
    for layer in network.layers:
        name = layer.name
        normed = layer.batch_norm or layer.kind is LayerKind.BATCH_NORM
        if normed:
            scale, shift = _affine(name, weights, running)
        own = layer if not normed else _without(layer)
        if layer.kind is LayerKind.BATCH_NORM:
            found[f"{name}.{WEIGHT}"] = scale.reshape(-1, 1, 1, 1, 1)
        elif layer.stores_weights:
            given = weights[f"{name}.{WEIGHT}"]
            found[f"{name}.{WEIGHT}"] = given * by_filter(layer, scale) if normed else given
        if normed:
            found[f"{name}.{BIAS}"] = shift
        else:
            words = (BIAS, GAMMA, BETA)
            found |= {f"{name}.{each}": weights[f"{name}.{each}"] for each in words
                      if f"{name}.{each}" in weights}  # fmt: skip
        layers.append(own)
    return replace(network, layers=tuple(layers)), found


def _affine(name: str, weights: Arrays, running: Arrays) -> tuple[Floats, Floats]:
    """What a batch norm multiplies each channel with and then adds."""
    scale = weights[f"{name}.{GAMMA}"] / np.sqrt(running[f"{name}.{VARIANCE}"] + EPSILON)
    return scale, weights[f"{name}.{BETA}"] - running[f"{name}.{MEAN}"] * scale


def _without(layer: Layer) -> Layer:
    if layer.kind is not LayerKind.BATCH_NORM:
        return replace(layer, batch_norm=False, bias=True)
    channels, height, width = layer.output
    shape = Shape((1, channels, 1, 1, height, width, 1, 1), size=(height, width))
    return replace(layer, kind=LayerKind.DEPTHWISE, shape=shape, bias=True, pattern="dense")


def by_filter(layer: Layer, scale: Floats) -> Floats:
    """Scales of the output channels of a layer, for its weights ``[G, K, C, R, S]``."""
    groups, filters = layer.shape[Dim.G], layer.shape[Dim.K]
    # a transposed convolution has a filter for each pixel of a channel's patch
    each = np.repeat(scale, groups * filters // len(scale))
    return each.reshape(groups, filters, 1, 1, 1)
