"""How much each weight of an untrained network matters, by methods that prune at initialisation.

Scores stand in one vector, as :class:`~energysim.train.parameters.Layout` has the weights. Before
training a norm only scales each channel by its gamma (mean 0, variance 1, beta 0), and biases are
0: the networks that are differentiated here have neither, and gamma goes into the weights.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt

from energysim.errors import InputError
from energysim.network import Activation, Layer, LayerKind, Network, PoolMode
from energysim.prune.kinks import Held
from energysim.train import ops
from energysim.train.data import Batch
from energysim.train.fold import by_filter
from energysim.train.model import Model
from energysim.train.parameters import GAMMA, WEIGHT, Layout
from energysim.train.scratch import Floats

Live = npt.NDArray[np.bool_]

TEMPERATURE = 200.0
"""What GraSP divides the scores of the classes by, as in its authors' code."""

STEP = 1e-6
"""Of GraSP's difference of gradients, as a share of the length of the weights."""


UNSCORED = frozenset({LayerKind.SOFTMAX, LayerKind.LAYER_NORM, LayerKind.MIXTURE_NORM})
"""Kinds of layer with which no gradient is a score."""


@dataclass(frozen=True)
class Start:
    """What a network begins its training with."""

    network: Network
    weights: Floats
    """shape (W,), 0 where a mask of the network's own is"""
    live: Live
    """what that mask leaves, shape (W,)"""
    scale: Floats | None
    """of the norm behind each weight, shape (W,); None where all are 1"""

    @classmethod
    def of(cls, network: Network, vector: Floats) -> Start:
        """Take what :func:`energysim.train.parameters.start` has drawn, shape (Layout.total,)."""
        layout = Layout.of(network)
        live, scale = np.ones(layout.total, np.bool_), np.ones(layout.total)
        given = layout.views(vector.astype(np.float64))
        masks, scales = layout.views(live), layout.views(scale)  # type: ignore[arg-type]
        for layer in network.layers:
            if layer.stores_weights:
                name, gamma = f"{layer.name}.{WEIGHT}", given.get(f"{layer.name}.{GAMMA}")
                masks[name][...] = layer.mask.array()
                if gamma is not None:
                    scales[name][...] = by_filter(layer, np.abs(gamma))
        many = layout.weights
        own = None if (scale[:many] == 1).all() else scale[:many]
        return cls(network, vector[:many].astype(np.float64), live[:many], own)

    @cached_property
    def layout(self) -> Layout:
        """Of the weights alone."""
        full = Layout.of(self.network)
        return Layout(full.slots[: len(self.layers)], full.weights)

    @cached_property
    def layers(self) -> tuple[Layer, ...]:
        """Layers with weights, in the order of the vector."""
        return tuple(layer for layer in self.network.layers if layer.stores_weights)

    def views(self, vector: npt.NDArray[np.generic]) -> dict[str, npt.NDArray[np.generic]]:
        """Each layer's part of a vector of all weights, ``[G, K, C, R, S]``, without copies."""
        return {
            layer.name: slot.view(vector)  # type: ignore[arg-type]
            for layer, slot in zip(self.layers, self.layout.slots, strict=True)
        }

    def parts(self, vector: npt.NDArray[np.generic]) -> dict[str, npt.NDArray[np.generic]]:
        """Each layer's part of a vector of all weights, as it stands there."""
        return {
            layer.name: vector[slot.start : slot.stop]
            for layer, slot in zip(self.layers, self.layout.slots, strict=True)
        }

    def model(self, images: int, *, linear: bool) -> Model:
        """Compute the network without norms and biases, and if linear activation functions."""
        layers = tuple(_bare(layer, linear=linear) for layer in self.network.layers)
        plain = replace(self.network, layers=layers, pattern="dense")
        return Model.of(plain, dtype=np.float64, batch=images)

    def scaled(self, weights: Floats) -> dict[str, Floats]:
        """Weights by name for a model of :meth:`model`: with the scales of norms in them."""
        return self.layout.views(weights if self.scale is None else weights * self.scale)

    def gradient(
        self, model: Model, weights: Floats, x: Floats, of_scores: Callable[[Floats], Floats]
    ) -> Floats:
        """Gradient by all weights, shape (W,).

        Parameters
        ----------
        model : Model
            Of :meth:`model`.
        weights : ndarray, shape (W,)
            Scales of norms left out.
        x : ndarray, shape (C, H, W, N)
        of_scores : callable
            From the scores, shape (classes, N), to their gradient.
        """
        views = self.scaled(weights)
        scores, trace = model.forward(views, x)
        found = np.zeros(self.layout.total)
        model.backward(views, trace, of_scores(scores), found)
        return found if self.scale is None else found * self.scale


Score = Callable[["Start", Live, np.random.Generator], Floats]
"""From a start, the weights that are still live and a source of chance to scores, shape (W,)."""


class SynFlow:
    """Synaptic flow: how much of what flows through the network goes through a weight.

    R = sum of the scores that the network with absolute weights gives for an image of ones; the
    score of a weight is \\|dR/dw w\\|. No data is used. Where no layers are multiplied with each
    other, the scores of every layer add up to R (Tanaka et al., NeurIPS 2020, equation 2 and
    theorem 2).
    """  # noqa: D301 - absolute value

    def __init__(self, start: Start) -> None:
        self.model = start.model(1, linear=True)
        self.image = np.ones((*start.network.input_size, 1))

    def __call__(self, start: Start, live: Live, rng: np.random.Generator) -> Floats:  # noqa: ARG002
        """Scores of what is live."""
        weights = np.abs(start.weights) * live
        flow: Floats = start.gradient(self.model, weights, self.image, _ones) * weights
        return flow


class Snip:
    """SNIP: how much the loss changes with a weight, \\|dL/dw w\\|.

    Lee et al., ICLR 2019, equation 4; on images with their classes.
    """  # noqa: D301 - absolute value

    def __init__(self, start: Start, batch: Batch) -> None:
        self.model = start.model(len(batch.y), linear=False)
        self.batch = batch

    def __call__(self, start: Start, live: Live, rng: np.random.Generator) -> Floats:  # noqa: ARG002
        """Scores of what is live."""
        weights = start.weights * live
        gradient = start.gradient(self.model, weights, _pixels(self.batch), _loss(self.batch))
        return np.abs(gradient * weights)


class Grasp:
    """GraSP: how much the gradient's length would lose with a weight, w (H g).

    Wang et al., ICLR 2020, equation 8, with the sign that keeps what is largest. H g is a central
    difference of gradients along g, with all kinks held where they are, as by automatic
    differentiation: the network is a polynomial then.
    """

    def __init__(self, start: Start, batch: Batch) -> None:
        self.model = start.model(len(batch.y), linear=False)
        self.batch = batch

    def __call__(self, start: Start, live: Live, rng: np.random.Generator) -> Floats:  # noqa: ARG002
        """Scores of what is live."""
        weights, x = start.weights * live, _pixels(self.batch)
        loss = _loss(self.batch, TEMPERATURE)
        along = start.gradient(self.model, weights, x, loss) * live
        length = float(np.linalg.norm(along))
        if not length:
            return np.zeros_like(weights)
        step = along * (STEP * float(np.linalg.norm(weights)) / length)
        _, trace = self.model.forward(start.scaled(weights), x)
        held = Held.of_pass(self.model, trace)
        more = start.gradient(held, weights + step, x, loss)
        less = start.gradient(held, weights - step, x, loss)
        scale = length / (2 * STEP * float(np.linalg.norm(weights)))
        return (more - less) * scale * weights


def magnitude(start: Start, live: Live, rng: np.random.Generator) -> Floats:  # noqa: ARG001
    """\\|w\\|, of the whole network together (Han et al., NeurIPS 2015, without their training)."""  # noqa: D301
    return np.abs(start.weights) * live


def chance(start: Start, live: Live, rng: np.random.Generator) -> Floats:  # noqa: ARG001
    """Draw a number for every weight, so that all layers lose about the same share."""
    return rng.random(start.weights.size)


def _loss(batch: Batch, temperature: float = 1.0) -> Callable[[Floats], Floats]:
    """Gradient of the mean cross-entropy by the scores, which are divided by a temperature."""

    def of_scores(scores: Floats) -> Floats:
        _, gradient = ops.cross_entropy(scores / temperature, batch.y)
        return np.asarray(gradient / temperature)

    return of_scores


def _ones(scores: Floats) -> Floats:
    """Gradient of the sum of the scores."""
    return np.ones_like(scores)


def _pixels(batch: Batch) -> Floats:
    return batch.x.astype(np.float64)


def _bare(layer: Layer, *, linear: bool) -> Layer:
    """A layer without norm, bias and mask."""
    if layer.kind in UNSCORED:
        raise InputError(
            f"layer {layer.name!r} is a {layer.kind}: it does not pass on what it reads in"
            " proportion, so what flows through a weight is not defined. Try magnitude, random,"
            " uniform or erdos_renyi"
        )
    # A norm that stands by itself passes on what it reads, as a pool of one pixel does.
    norm = layer.kind is LayerKind.BATCH_NORM
    return replace(
        layer,
        kind=LayerKind.POOL if norm else layer.kind,
        mode=PoolMode.AVERAGE if norm else layer.mode,
        pattern="dense",
        live="",
        bias=False,
        batch_norm=False,
        activation=Activation.NONE if linear else layer.activation,
    )
