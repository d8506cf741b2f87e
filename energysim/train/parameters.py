"""All numbers of a model that are learnt, in one vector, and each layer's by name.

An optimiser then is a few operations on whole vectors, a checkpoint a handful of arrays, and the
gradients of the shards of a batch are added in one go.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from math import prod, sqrt
from typing import Any

import numpy as np
import numpy.typing as npt

from energysim.axes import Dim
from energysim.network import Layer, LayerKind, MixtureLayer, Network
from energysim.network.types import NORMALIZING
from energysim.train.mixture import Fit
from energysim.train.scratch import Floats

Arrays = dict[str, Floats]
"""By the name of the layer and of what it is there: ``conv1.weight``."""

WEIGHT, BIAS, GAMMA, BETA = "weight", "bias", "gamma", "beta"
MEAN, VARIANCE, PROPORTION = "mean", "variance", "proportion"
LAST = "last_"
"""In front of what a mixture norm found in the last step, from where the next one goes on."""

HALF = 0.5


class Init(StrEnum):
    """How weights begin; biases begin at 0.

    Those of linear layers are uniform in both, within 1 / sqrt(inputs), as PyTorch has them.
    """

    HE = "he"
    """normal with variance 2 / live weights of a filter; batch norms scale by 1 (He et al., ICCV
    2015)"""
    XAVIER = "xavier"
    """uniform, half as wide as Glorot and Bengio have it; batch norms scale by 0.5: as the authors
    of pre-defined periodic sparsity start"""


@dataclass(frozen=True, slots=True)
class Slot:
    """Where the numbers of one name stand."""

    name: str
    shape: tuple[int, ...]
    """``[G, K, C, R, S]`` of weights, ``[C]`` of all else"""
    start: int
    """of its first number in the vector"""

    @property
    def stop(self) -> int:
        """Behind its last number."""
        return self.start + prod(self.shape)

    def view(self, vector: Floats) -> Floats:
        """The numbers in a vector; weights as the kernels read them, ``[G, K, R, S, C]`` apart."""
        flat: Floats = vector[self.start : self.stop]
        if len(self.shape) == 1:
            return flat
        groups, filters, channels, height, width = self.shape
        return flat.reshape(groups, filters, height, width, channels).transpose(0, 1, 4, 2, 3)


@dataclass(frozen=True, slots=True)
class Layout:
    """Names and places of all that is learnt: weights first, then biases and norms."""

    slots: tuple[Slot, ...]
    weights: int
    """how many of the numbers are weights"""

    @classmethod
    def of(cls, network: Network) -> Layout:
        """Lay out what a network learns, in the order of its layers."""
        slots: list[Slot] = []
        start = 0
        for layer in network.layers:
            if layer.stores_weights:
                slots.append(Slot(f"{layer.name}.{WEIGHT}", weight_dims(layer), start))
                start = slots[-1].stop
        weights = start
        for layer in network.layers:
            for word in vectors_of(layer):
                slots.append(Slot(f"{layer.name}.{word}", (layer.output[0],), start))
                start = slots[-1].stop
        return cls(tuple(slots), weights)

    @property
    def total(self) -> int:
        """How many numbers there are, fixed zeros included."""
        return self.slots[-1].stop if self.slots else 0

    def views(self, vector: Floats) -> Arrays:
        """Each name's part of a vector, without copies."""
        return {slot.name: slot.view(vector) for slot in self.slots}


def weight_dims(layer: Layer) -> tuple[int, ...]:
    """Extents of the weights of a layer, ``[G, K, C, R, S]``."""
    return tuple(layer.shape[dim] for dim in (Dim.G, Dim.K, Dim.C, Dim.R, Dim.S))


def vectors_of(layer: Layer) -> Iterator[str]:
    """What a layer learns beside weights, one number a channel each."""
    if layer.bias:
        yield BIAS
    if layer.batch_norm or layer.kind in NORMALIZING:
        yield GAMMA
        yield BETA


def normalised_layers(network: Network) -> tuple[Layer, ...]:
    """Layers with batch norm, which have running statistics."""
    return tuple(
        layer for layer in network.layers if layer.batch_norm or layer.kind is LayerKind.BATCH_NORM
    )


def mixture_layers(network: Network) -> tuple[MixtureLayer, ...]:
    """Mixture norms, which have running statistics of each component."""
    return tuple(layer for layer in network.layers if isinstance(layer, MixtureLayer))


def start(
    network: Network,
    rng: np.random.Generator,
    how: Init = Init.HE,
    dtype: npt.DTypeLike = np.float32,
    *,
    gamma: float | None = None,
) -> Floats:
    """Weights before training.

    Parameters
    ----------
    network : Network
        Whose masks are kept: what they leave out is 0.
    rng : numpy.random.Generator
        Asked for every weight, left out or not, so that the same seed starts all patterns of a
        network alike, but for the width of the distribution.
    how : Init
    dtype : dtype
        float32 or float64.
    gamma : float, optional
        That batch and mixture norms scale by at first, in place of that of ``how``.

    Returns
    -------
    ndarray, shape (Layout.total,)
    """
    layout = Layout.of(network)
    vector: Floats = np.zeros(layout.total, dtype)
    views = layout.views(vector)
    for layer in network.layers:
        if layer.stores_weights:
            draw = _drawn(layer, rng, how)
            views[f"{layer.name}.{WEIGHT}"][...] = draw * layer.mask.array()
        if f"{layer.name}.{GAMMA}" in views:
            own = scale_of(how, gamma) if layer.kind is not LayerKind.LAYER_NORM else 1
            views[f"{layer.name}.{GAMMA}"][...] = own
    return vector


def scale_of(how: Init, gamma: float | None) -> float:
    """What batch and mixture norms scale by before training."""
    if gamma is not None:
        return gamma
    return HALF if how is Init.XAVIER else 1.0


def _drawn(layer: Layer, rng: np.random.Generator, how: Init) -> npt.NDArray[np.float64]:
    """Numbers for all weights of a layer."""
    dims = weight_dims(layer)
    groups, filters, channels, height, width = dims
    if layer.kind is LayerKind.LINEAR:
        return rng.uniform(-1, 1, dims) / sqrt(channels)
    if how is Init.XAVIER:
        taps = height * width
        bound = HALF * sqrt(6 / ((channels + filters) * taps))
        return rng.uniform(-bound, bound, dims)
    live = max(1, layer.mask.nonzeros) / (groups * filters)
    return rng.standard_normal(dims) * sqrt(2 / live)


def running_start(network: Network, dtype: npt.DTypeLike = np.float32) -> Arrays:
    """Running statistics of all norms before the first batch: mean 0, variance 1.

    A mixture norm has them of each component, the proportions, and the last fit, which has
    proportions of 0 while there is none.
    """
    found: Arrays = {}
    for layer in normalised_layers(network):
        channels = layer.output[0]
        found[f"{layer.name}.{MEAN}"] = np.zeros(channels, dtype)
        found[f"{layer.name}.{VARIANCE}"] = np.ones(channels, dtype)
    for layer in mixture_layers(network):
        fit = Fit.start(layer.mixture, layer.output[0], dtype)
        none = Fit(np.zeros_like(fit.proportion), fit.mean.copy(), fit.variance.copy())
        found |= kept_fit(layer, fit) | kept_fit(layer, none, LAST)
    return found


def kept_fit(layer: Layer, fit: Fit, when: str = "") -> Arrays:
    """A fit as running statistics; ``when`` is :data:`LAST` for that of the last step."""
    words = {PROPORTION: fit.proportion, MEAN: fit.mean, VARIANCE: fit.variance}
    return {f"{layer.name}.{when}{word}": each for word, each in words.items()}


def running_fit(layer: Layer, running: Arrays, when: str = "") -> Fit:
    """The fit that :func:`kept_fit` has kept."""
    words = (PROPORTION, MEAN, VARIANCE)
    return Fit(*(running[f"{layer.name}.{when}{word}"] for word in words))


def last_fit(layer: Layer, running: Arrays) -> Fit | None:
    """What a mixture norm found in the last step; None before the first one."""
    found = running_fit(layer, running, LAST)
    return found if found.alive.any() else None


def live_weights(network: Network) -> npt.NDArray[np.bool_]:
    """Which of all numbers may differ from 0, as :class:`Layout` has them; bool, shape (total,)."""
    layout = Layout.of(network)
    live: npt.NDArray[Any] = np.ones(layout.total, np.bool_)
    views = layout.views(live)
    for layer in network.layers:
        if layer.stores_weights:
            views[f"{layer.name}.{WEIGHT}"][...] = layer.mask.array()
    return live
