"""A network as a function of images and weights, forward and backward, on the exact masks.

Activations are ``[channel, row, column, image]``. A model holds no weights and no state: shards of
a batch go through it in threads of their own.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from math import sqrt
from typing import Any, TypedDict

import numpy as np
import numpy.typing as npt

from energysim.axes import Dim
from energysim.errors import InputError, InputErrors
from energysim.network import (
    NETWORK_INPUT,
    Activation,
    Layer,
    LayerKind,
    MixtureLayer,
    Network,
    Over,
    PoolMode,
)
from energysim.train import ops
from energysim.train.conv import USUAL_BATCH, ConvPlan, Kind
from energysim.train.mixture import (
    Fit,
    Seen,
    mixture_norm,
    mixture_norm_backward,
    mixture_norm_inference,
)
from energysim.train.ops import Statistics
from energysim.train.parameters import (
    BETA,
    BIAS,
    GAMMA,
    MEAN,
    VARIANCE,
    WEIGHT,
    Arrays,
    Layout,
    last_fit,
    running_fit,
)
from energysim.train.scratch import Floats


@dataclass(slots=True)
class Trace:
    """What a pass forward leaves for the way back."""

    outputs: dict[str, Floats]
    """of each layer, and the images as ``input``"""
    before: dict[str, Floats] = field(default_factory=dict)
    """of layers with a norm or an activation function: what these were given"""
    between: dict[str, Floats] = field(default_factory=dict)
    """of layers with both: what the activation function was given"""
    statistics: dict[str, Statistics] = field(default_factory=dict)
    """of the batch, of layers with batch norm"""
    mixtures: dict[str, Seen] = field(default_factory=dict)
    """of layers with mixture norm, until they are on the way back"""
    fits: dict[str, Fit] = field(default_factory=dict)
    """of the batch, of the same layers"""
    counts: dict[str, int] = field(default_factory=dict)
    """elements of each channel that a batch or mixture norm saw"""


@dataclass(frozen=True)
class Model:
    """How a network is computed. Build it with :meth:`of`."""

    network: Network
    layout: Layout
    """of its weights"""
    plans: Mapping[str, ConvPlan] = field(repr=False)
    """of each layer with weights"""
    dtype: np.dtype[Any]

    @classmethod
    def of(
        cls,
        network: Network,
        *,
        dtype: npt.DTypeLike = np.float32,
        batch: int = USUAL_BATCH,
        kind: Kind | str | None = None,
    ) -> Model:
        """Choose how each layer of a network is computed.

        Parameters
        ----------
        network : Network
            Its last layer must give one score a class.
        dtype : dtype
            Of weights and activations, float32 or float64.
        batch : int
            Images of a shard, which the kernels are chosen for.
        kind : Kind or str, optional
            Of kernel, for every layer that can be computed so, instead of the best.

        Raises
        ------
        InputErrors
            With all layers that can't be trained.
        """
        refuse_untrainable(network)
        plans = {
            layer.name: _plan(layer, dtype, batch, kind)
            for layer in network.layers
            if layer.stores_weights
        }
        return cls(network, Layout.of(network), plans, np.dtype(dtype))

    @property
    def classes(self) -> int:
        """How many scores an image gets."""
        return self.network.layers[-1].output[0]

    # -- forward -----------------------------------------------------------------------------------

    def forward(
        self,
        weights: Arrays,
        x: Floats,
        *,
        running: Arrays | None = None,
        chance: tuple[int, ...] = (0,),
    ) -> tuple[Floats, Trace]:
        """Scores of a batch, with the norms of the batch itself.

        Parameters
        ----------
        weights : dict of ndarray
            By name, as :meth:`Layout.views` gives them.
        x : ndarray, shape (C, H, W, N)
            Normalised images.
        running : dict of ndarray, optional
            Running statistics, among which are the last fits that mixture norms go on from; without
            them they begin with seeds.
        chance : tuple of int
            Of the seeds.

        Returns
        -------
        scores : ndarray, shape (classes, N)
        trace : Trace
            For :meth:`backward`.

        Raises
        ------
        InputError
            If the images have another size than the network reads.
        """
        self._check(x)
        trace = Trace({NETWORK_INPUT: x})
        for layer in self.network.layers:
            if isinstance(layer, MixtureLayer):
                y = self._mixed(layer, weights, trace, running, chance)
            else:
                y = self._learn(layer, weights, trace)
            trace.outputs[layer.name] = y
        return self._scores(trace.outputs), trace

    def infer(
        self, weights: Arrays, running: Arrays, x: Floats, *, watch: Watch | None = None
    ) -> Floats:
        """Scores of a batch, with running statistics.

        Parameters
        ----------
        weights, running : dict of ndarray
            Learnt numbers and running statistics by name.
        x : ndarray, shape (C, H, W, N)
        watch : Watch, optional
            Is shown what each layer reads and gives.

        Returns
        -------
        ndarray, shape (classes, N)

        Raises
        ------
        InputError
            If the images have another size than the network reads.
        """
        self._check(x)
        outputs: dict[str, Floats] = {NETWORK_INPUT: x}
        for index, layer in enumerate(self.network.layers):
            y = self._computed(layer, weights, outputs)
            y = self._inferred(layer, weights, running, y)
            if watch is not None:
                watch.see(layer, operands_of(layer, outputs), y)
            outputs[layer.name] = y
            for name in self._last_read.get(index, ()):
                del outputs[name]
        return self._scores(outputs)

    def _check(self, x: Floats) -> None:
        wanted = self.network.input_size
        if x.shape[:3] != wanted:
            raise InputError(
                f"{self.network.name} reads images of {list(wanted)} (channels, height, width), got"
                f" {list(x.shape[:3])}"
            )

    def _scores(self, outputs: Mapping[str, Floats]) -> Floats:
        last = self.network.layers[-1]
        return outputs[last.name].reshape(self.classes, -1)

    def _learn(self, layer: Layer, weights: Arrays, trace: Trace) -> Floats:
        """Output of a layer in training, with what backward needs put by."""
        y = self._computed(layer, weights, trace.outputs)
        relu = layer.activation is Activation.RELU
        if norm_of(layer):
            trace.before[layer.name] = y
            gamma, beta = weights[f"{layer.name}.{GAMMA}"], weights[f"{layer.name}.{BETA}"]
            y, seen = ops.batch_norm(y, gamma, beta, relu=relu)
            trace.statistics[layer.name] = seen
            trace.counts[layer.name] = y[0].size
            if relu:
                return y
        elif layer.kind is LayerKind.LAYER_NORM:
            gamma, beta = weights[f"{layer.name}.{GAMMA}"], weights[f"{layer.name}.{BETA}"]
            y = ops.layer_norm(y, gamma, beta)
        if layer.activation is not Activation.NONE:
            trace.between[layer.name] = y
            y = ops.activate(layer.activation, y)
        return y

    def _mixed(
        self,
        layer: MixtureLayer,
        weights: Arrays,
        trace: Trace,
        running: Arrays | None,
        chance: tuple[int, ...],
    ) -> Floats:
        """Output of a mixture norm in training."""
        name, relu = layer.name, layer.activation is Activation.RELU
        x = trace.before[name] = operands_of(layer, trace.outputs)[0]
        last = None if running is None else last_fit(layer, running)
        begin = last or np.random.default_rng([*chance, self.network.layers.index(layer)])
        gamma, beta = weights[f"{name}.{GAMMA}"], weights[f"{name}.{BETA}"]
        y, seen = mixture_norm(x, gamma, beta, layer.mixture, begin, relu=relu)
        trace.mixtures[name], trace.fits[name], trace.counts[name] = seen, seen.fit, y[0].size
        if relu or layer.activation is Activation.NONE:
            return y
        trace.between[name] = y
        return ops.activate(layer.activation, y)

    def _inferred(self, layer: Layer, weights: Arrays, running: Arrays, y: Floats) -> Floats:
        """Norm and activation function of a layer, with running statistics."""
        relu = layer.activation is Activation.RELU
        name = layer.name
        if isinstance(layer, MixtureLayer):
            gamma, beta = weights[f"{name}.{GAMMA}"], weights[f"{name}.{BETA}"]
            fit = running_fit(layer, running)
            y = mixture_norm_inference(y, gamma, beta, layer.mixture, fit)
        elif norm_of(layer):
            seen = Statistics(running[f"{name}.{MEAN}"], running[f"{name}.{VARIANCE}"])
            gamma, beta = weights[f"{name}.{GAMMA}"], weights[f"{name}.{BETA}"]
            y = ops.batch_norm_inference(y, gamma, beta, seen, relu=relu)
            if relu:
                return y
        elif layer.kind is LayerKind.LAYER_NORM:
            y = ops.layer_norm(y, weights[f"{name}.{GAMMA}"], weights[f"{name}.{BETA}"])
        return ops.activate(layer.activation, y)

    def _computed(  # noqa: PLR0911 - a line a kind
        self, layer: Layer, weights: Arrays, outputs: Mapping[str, Floats]
    ) -> Floats:
        """What a layer computes before its norm and activation function."""
        operands = operands_of(layer, outputs)
        x = operands[0]
        match layer.kind:
            case LayerKind.POOL if layer.mode is PoolMode.MAX:
                return ops.max_pool(x, layer.shape)
            case LayerKind.POOL:
                return ops.average_pool(x, layer.shape)
            case LayerKind.ADD:
                return ops.add(operands)
            case LayerKind.MULTIPLY:
                return ops.multiply(x, operands[1])
            case LayerKind.MATMUL:
                return ops.matmul(x, operands[1], **product_of(layer))
            case LayerKind.SOFTMAX:
                return ops.channel_softmax(x, self.heads[layer.name])
            case LayerKind.BATCH_NORM | LayerKind.LAYER_NORM | LayerKind.MIXTURE_NORM:
                return x
        y = self.plans[layer.name].forward(_as_read(layer, x), weights[f"{layer.name}.{WEIGHT}"])
        if layer.kind is LayerKind.TRANSPOSED:
            y = _patches(layer, y)
        # A bias before a batch norm is taken away again with the mean: it does nothing.
        if layer.bias and not layer.batch_norm:
            y = ops.add_bias(y, weights[f"{layer.name}.{BIAS}"])
        return y

    # -- backward ----------------------------------------------------------------------------------

    def backward(
        self,
        weights: Arrays,
        trace: Trace,
        dscores: Floats,
        gradient: Floats | None,
        *,
        of_images: bool = False,
        extra: Mapping[str, Floats] | None = None,
    ) -> Floats | None:
        """Gradients of all that is learnt, and if asked for of the images.

        Parameters
        ----------
        weights : dict of ndarray
            As forward.
        trace : Trace
            Of the pass forward; is used up.
        dscores : ndarray, shape (classes, N)
            Gradient of the scores.
        gradient : ndarray, shape (layout.total,), or None
            Overwritten; without one, gradients of what is learnt are not computed.
        of_images : bool
            Else none is computed.
        extra : mapping of str to ndarray, optional
            Gradients of outputs of layers, by name, from what the loss takes of them by itself.

        Returns
        -------
        ndarray, shape (C, H, W, N), or None
            Gradient of the images.
        """
        into: Arrays = {}
        if gradient is not None:
            gradient[:] = 0
            into = self.layout.views(gradient)
        last = self.network.layers[-1]
        flows = dict(extra or {})
        own = dscores.reshape(trace.outputs[last.name].shape)
        flows[last.name] = flows[last.name] + own if last.name in flows else own
        if of_images:
            flows[NETWORK_INPUT] = np.zeros_like(trace.outputs[NETWORK_INPUT])
        for layer in reversed(self.network.layers):
            dy = flows.pop(layer.name, None)
            if dy is None:  # nobody reads it on the way to the scores
                continue
            dy = self._before(layer, weights, trace, dy, into)
            wanted = of_images or set(layer.inputs) != {NETWORK_INPUT}
            given = self._operand_gradients(layer, weights, trace, dy, into, wanted=wanted)
            _send(layer, given, trace.outputs, flows)
            del trace.outputs[layer.name]
        return flows.get(NETWORK_INPUT)

    def _before(
        self, layer: Layer, weights: Arrays, trace: Trace, dy: Floats, into: Arrays
    ) -> Floats:
        """Gradient of what norm and activation function were given."""
        name, relu = layer.name, layer.activation is Activation.RELU
        fused = relu and (norm_of(layer) or isinstance(layer, MixtureLayer))
        if layer.activation is not Activation.NONE and not fused:
            x = trace.between.pop(name)
            dy = ops.activate_backward(layer.activation, dy, x, trace.outputs[name])
        if isinstance(layer, MixtureLayer):
            x, y = trace.before.pop(name), trace.outputs[name]
            gamma, seen = weights[f"{name}.{GAMMA}"], trace.mixtures.pop(name)
            dy, dgamma, dbeta = mixture_norm_backward(
                dy, x, y, gamma, layer.mixture, seen, relu=fused
            )
            into[f"{name}.{GAMMA}"][...], into[f"{name}.{BETA}"][...] = dgamma, dbeta
        elif norm_of(layer):
            x, y = trace.before.pop(name), trace.outputs[name]
            gamma = weights[f"{name}.{GAMMA}"]
            dy, dgamma, dbeta = ops.batch_norm_backward(
                dy, x, y, gamma, trace.statistics[name], relu=fused
            )
            if into:
                into[f"{name}.{GAMMA}"][...], into[f"{name}.{BETA}"][...] = dgamma, dbeta
        elif layer.kind is LayerKind.LAYER_NORM:
            (x,) = operands_of(layer, trace.outputs)
            dy, dgamma, dbeta = ops.layer_norm_backward(dy, x, weights[f"{name}.{GAMMA}"])
            if into:
                into[f"{name}.{GAMMA}"][...], into[f"{name}.{BETA}"][...] = dgamma, dbeta
        return dy

    def _operand_gradients(  # noqa: PLR0911 - a line a kind
        self,
        layer: Layer,
        weights: Arrays,
        trace: Trace,
        dy: Floats,
        into: Arrays,
        *,
        wanted: bool,
    ) -> list[Floats]:
        """Gradients of what a layer computes with; empty where costly and not wanted."""
        match layer.kind:
            case LayerKind.ADD:
                return [dy] * len(layer.inputs)
            case LayerKind.BATCH_NORM | LayerKind.LAYER_NORM | LayerKind.MIXTURE_NORM:
                return [dy]
        operands = operands_of(layer, trace.outputs)
        x = operands[0]
        match layer.kind:
            case LayerKind.POOL if layer.mode is PoolMode.MAX:
                return [ops.max_pool_backward(dy, x, trace.outputs[layer.name], layer.shape)]
            case LayerKind.POOL:
                return [ops.average_pool_backward(dy, layer.shape)]
            case LayerKind.MULTIPLY:
                return list(ops.multiply_backward(dy, x, operands[1]))
            case LayerKind.MATMUL:
                how = product_of(layer)
                # Scaled here, into an array of its own: dy may be another layer's gradient too.
                scaled, how["factor"] = dy * how["factor"], 1.0
                return list(ops.matmul_backward(scaled, x, operands[1], **how))
            case LayerKind.SOFTMAX:
                heads = self.heads[layer.name]
                return [ops.channel_softmax_backward(dy, trace.outputs[layer.name], heads)]
        given = self._kernel_gradient(layer, weights, x, dy, into, wanted=wanted)
        return [] if given is None else [given]

    def _kernel_gradient(
        self,
        layer: Layer,
        weights: Arrays,
        x: Floats,
        dy: Floats,
        into: Arrays,
        *,
        wanted: bool,
    ) -> Floats | None:
        """Gradient of what a layer with weights reads, if wanted; that of its weights goes into."""
        plan, w = self.plans[layer.name], weights[f"{layer.name}.{WEIGHT}"]
        if into and layer.bias and not layer.batch_norm:
            into[f"{layer.name}.{BIAS}"][...] = ops.bias_gradient(dy)
        if layer.kind is LayerKind.TRANSPOSED:
            dy = _unpatched(layer, dy)
        read = _as_read(layer, x)
        if into:
            into[f"{layer.name}.{WEIGHT}"][...] = plan.backward_weight(dy, read)
        return plan.backward_input(dy, w).reshape(x.shape) if wanted else None

    # -- what is known of the graph ----------------------------------------------------------------

    @cached_property
    def _last_read(self) -> dict[int, list[str]]:
        """Outputs that nobody reads any more, by the index of the layer that read them last."""
        last = {
            name: index for index, layer in enumerate(self.network.layers) for name in layer.inputs
        }
        found: dict[int, list[str]] = {}
        for name, index in last.items():
            found.setdefault(index, []).append(name)
        return found

    @cached_property
    def heads(self) -> dict[str, int]:
        """Groups of channels that each softmax sums over; see :func:`heads_of`."""
        return heads_of(self.network)


class Watch:
    """Counts elements that are not zero, of all that layers read and give."""

    def __init__(self) -> None:
        self.read: dict[str, tuple[int, int]] = {}
        """by layer: of what it reads, how many are not zero, and how many there are"""
        self.given: dict[str, tuple[int, int]] = {}
        """the same of what it gives"""

    def see(self, layer: Layer, operands: list[Floats], y: Floats) -> None:
        """Count those of one batch of images."""
        found = sum(int(np.count_nonzero(each)) for each in operands)
        self._count(self.read, layer.name, found, sum(each.size for each in operands))
        self._count(self.given, layer.name, int(np.count_nonzero(y)), y.size)

    @staticmethod
    def _count(into: dict[str, tuple[int, int]], name: str, found: int, total: int) -> None:
        before = into.get(name, (0, 0))
        into[name] = before[0] + found, before[1] + total


# -- one layer -------------------------------------------------------------------------------------


def untrainable(network: Network) -> list[str]:
    """What keeps a network from being trained to tell classes; empty if nothing does."""
    problems = []
    last = network.layers[-1]
    channels, height, width = last.output
    read = {name for layer in network.layers for name in layer.inputs}
    if height != 1 or width != 1 or channels == 1:
        problems.append(
            f"network {network.name} can't be trained to tell classes: its last layer {last.name!r}"
            f" gives {channels} x {height} x {width} numbers (channels, height, width), not one"
            " score a class. End it with a global pool and a linear layer"
        )
    if last.kind is LayerKind.SOFTMAX:
        problems.append(
            f"network {network.name} ends with a softmax, {last.name!r}, and the loss takes scores"
            " from before one. Leave it out"
        )
    unread = [layer.name for layer in network.layers[:-1] if layer.name not in read]
    if unread:
        names = ", ".join(map(repr, unread))
        problems.append(
            f"network {network.name} has more than one output: nobody reads {names}. The trainer"
            " needs one, the scores of the classes"
        )
    return problems


def refuse_untrainable(network: Network) -> None:
    """Refuse a network that can't be trained.

    Raises
    ------
    InputErrors
        With all that keeps it from being trained.
    """
    problems = untrainable(network)
    if problems:
        raise InputErrors(problems)


def heads_of(network: Network) -> dict[str, int]:
    """Groups of channels that each softmax sums over: those of the product whose result it reads.

    What is added to the scores of an attention (positions) or scales them may stand between.
    """
    groups: dict[str, int] = {NETWORK_INPUT: 1}
    for layer in network.layers:
        if layer.kind is LayerKind.MATMUL:
            groups[layer.name] = layer.shape[Dim.G]
        elif layer.kind in (LayerKind.ADD, LayerKind.MULTIPLY):
            groups[layer.name] = max(groups[name] for name in layer.inputs)
        else:
            groups[layer.name] = 1
    return {
        layer.name: groups[layer.inputs[0]]
        for layer in network.layers
        if layer.kind is LayerKind.SOFTMAX
    }


def _plan(layer: Layer, dtype: npt.DTypeLike, batch: int, kind: Kind | str | None) -> ConvPlan:
    """Plan of a layer; of the kind that is asked for, if it can be computed so."""
    if kind is not None:
        asked = Kind(kind)
        with suppress(InputError):  # where it can't be, the best
            return ConvPlan.of(layer.shape, layer.mask, dtype=dtype, batch=batch, kind=asked)
    return ConvPlan.of(layer.shape, layer.mask, dtype=dtype, batch=batch)


def norm_of(layer: Layer) -> bool:
    """Whether a layer normalises by the statistics of the batch."""
    return layer.batch_norm or layer.kind is LayerKind.BATCH_NORM


class _Product(TypedDict):
    """How two activations are multiplied."""

    over: Over
    groups: int
    factor: float


def product_of(layer: Layer) -> _Product:
    """How a matmul multiplies.

    Sums over channels are divided by the root of their number, as those of an attention are
    (Vaswani et al., NeurIPS 2017, equation 1); no network file says so, and no cost depends on it.
    """
    assert layer.over is not None  # of every matmul
    shape = layer.shape
    factor = 1 / sqrt(shape[Dim.C]) if layer.over is Over.CHANNELS else 1.0
    return {"over": layer.over, "groups": shape[Dim.G], "factor": factor}


def operands_of(layer: Layer, outputs: Mapping[str, Floats]) -> list[Floats]:
    """What a layer reads: each input by itself, or the channels that it picks of all together."""
    inputs = [outputs[name] for name in layer.inputs]
    if layer.kind in (LayerKind.ADD, LayerKind.MULTIPLY, LayerKind.MATMUL):
        return inputs
    x = inputs[0] if len(inputs) == 1 else ops.concat(inputs)
    if layer.picked is not None:
        return [ops.pick(x, np.array(layer.picked))]
    return [x if layer.channels is None else x[: layer.channels]]


def _send(
    layer: Layer, given: list[Floats], outputs: Mapping[str, Floats], flows: dict[str, Floats]
) -> None:
    """Add the gradients of a layer's operands to those of the layers that it reads."""
    if not given:
        return
    if layer.kind not in (LayerKind.ADD, LayerKind.MULTIPLY, LayerKind.MATMUL):
        given = _of_inputs(layer, given[0], [len(outputs[name]) for name in layer.inputs])
    for name, dx in zip(layer.inputs, given, strict=True):
        if name in flows:
            flows[name] = flows[name] + dx
        elif name != NETWORK_INPUT:  # those of the images only where they are asked for
            flows[name] = dx


def _of_inputs(layer: Layer, dx: Floats, channels: list[int]) -> list[Floats]:
    """Gradient of each of the inputs that a layer reads together."""
    total = sum(channels)
    if layer.picked is not None:
        dx = ops.pick_backward(dx, np.array(layer.picked), total)
    elif layer.channels is not None and layer.channels < total:
        dx = np.concatenate([dx, np.zeros((total - len(dx), *dx.shape[1:]), dx.dtype)])
    return [dx] if len(channels) == 1 else ops.concat_backward(dx, channels)


def _as_read(layer: Layer, x: Floats) -> Floats:
    """The input as the kernels take it: a linear layer reads one long vector an image."""
    if layer.kind is LayerKind.LINEAR:
        return x.reshape(-1, 1, 1, x.shape[-1])
    return x


def _patches(layer: Layer, y: Floats) -> Floats:
    """From a channel for each pixel of a patch to the patches themselves."""
    channels, height, width = layer.output
    rows, columns = height // y.shape[1], width // y.shape[2]
    parted = y.reshape(channels, rows, columns, *y.shape[1:])
    return parted.transpose(0, 3, 1, 4, 2, 5).reshape(channels, height, width, -1)


def _unpatched(layer: Layer, dy: Floats) -> Floats:
    """Gradient of :func:`_patches`: the other way round."""
    high, wide = layer.shape[Dim.P], layer.shape[Dim.Q]
    channels, height, width, images = dy.shape
    rows, columns = height // high, width // wide
    parted = dy.reshape(channels, high, rows, wide, columns, images)
    return parted.transpose(0, 2, 4, 1, 3, 5).reshape(-1, high, wide, images)
