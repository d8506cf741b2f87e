"""Learnt numbers of a network for the smaller one that is left without its dead channels."""

from __future__ import annotations

import numpy as np

from energysim.network import LayerKind, MixtureLayer, Network
from energysim.network.liveness import Flags, silent_at_start
from energysim.network.shrink import Shrunk, shrunk
from energysim.train import ops
from energysim.train.mixture import mixture_norm_inference
from energysim.train.ops import EPSILON
from energysim.train.parameters import (
    BETA,
    BIAS,
    GAMMA,
    MEAN,
    VARIANCE,
    WEIGHT,
    Arrays,
    Layout,
    running_fit,
)
from energysim.train.weights import Weights


def silent_with(
    network: Network, weights: Arrays, running: Arrays | None = None
) -> dict[str, Flags]:
    """Which channels are 0 where all that is read is 0, with the biases and shifts as learnt.

    Parameters
    ----------
    network : Network
    weights : dict of ndarray
        Learnt numbers by name, as :meth:`energysim.train.parameters.Layout.views` gives them.
    running : dict of ndarray, optional
        Running statistics of norms, for a network that is used; without them norms are those of
        the batch, as in training.

    Returns
    -------
    dict of str to ndarray of bool
        By layer, shape (channels,): for :func:`energysim.network.shrink.shrunk`.
    """
    found = silent_at_start(network)
    for layer in network.layers:
        given = np.zeros(layer.output[0])
        normed = layer.batch_norm or layer.kind is LayerKind.BATCH_NORM
        if normed and running is not None:
            deviation = np.sqrt(running[f"{layer.name}.{VARIANCE}"] + EPSILON)
            given -= running[f"{layer.name}.{MEAN}"] / deviation * weights[f"{layer.name}.{GAMMA}"]
        if layer.bias and not normed:  # a norm takes a bias away again
            given += weights[f"{layer.name}.{BIAS}"]
        elif isinstance(layer, MixtureLayer) and running is not None:
            gamma, beta = (weights[f"{layer.name}.{word}"] for word in (GAMMA, BETA))
            fit, nothing = running_fit(layer, running), np.zeros((len(beta), 1), beta.dtype)
            given += mixture_norm_inference(nothing, gamma, beta, layer.mixture, fit)[:, 0]
        elif f"{layer.name}.{BETA}" in weights:
            given += weights[f"{layer.name}.{BETA}"]
        if layer.kind is not LayerKind.SOFTMAX:
            found[layer.name] = ops.activate(layer.activation, given) == 0
    return found


def cut(found: Shrunk, arrays: Arrays) -> Arrays:
    """Take the numbers of what stays.

    Parameters
    ----------
    found : Shrunk
    arrays : dict of ndarray
        By name: weights, biases, scales and shifts, or running statistics, of the network as given.

    Returns
    -------
    dict of ndarray
        Of the smaller network; copies. A weight that stays for the shape of its layer alone is 0.
    """
    made: Arrays = {}
    for name, array in arrays.items():
        layer, _, word = name.rpartition(".")
        if layer not in found.channels:
            continue
        if word == WEIGHT:
            some = found.cuts[layer]
            made[name] = np.asarray(some.of(array) * some.live, array.dtype)
        elif found.channels[layer].size == found.before.layer(layer).output[0]:
            made[name] = array.copy()  # numbers of a mixture do not stand by channel
        else:
            made[name] = array[found.channels[layer]]
    return made


def shrunk_with(network: Network, weights: Weights) -> tuple[Shrunk, Weights]:
    """Take the channels out of a trained network that do nothing with what it has learnt.

    Parameters
    ----------
    network : Network
        With masks.
    weights : Weights
        Of it, with running statistics.

    Returns
    -------
    small : Shrunk
    weights : Weights
        Of the smaller network.

    Raises
    ------
    InputErrors
        If the weights are not those of the network.
    DisconnectedError
        If no output depends on the image.
    """
    vector, running = weights.fitted(network)
    views = Layout.of(network).views(vector)
    small = shrunk(network, silent=silent_with(network, views, running))
    return small, Weights.of(small.network, cut(small, views), cut(small, running))
