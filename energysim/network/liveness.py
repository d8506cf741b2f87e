"""Which channels of a network do something: filled by the image on one side, used on the other.

A mask that leaves weights in every layer may still leave filters that nothing flows into, or that
nobody reads: dead neurons, whose weights and multiply-accumulates can go without a trace.

Notes
-----
Two marches over the layers find them. Forward, a channel is *filled* if it may ever differ from 0:
a live weight reads a filled channel, or the filter gives something of its own where all its inputs
are 0. Backward, a channel is *used* if a live weight of a used filter reads it, up to the outputs.
Live is what is both, and a weight matters if it leads from a filled channel to a used filter.

What a filter gives where nothing flows into it is its activation function of its bias, or of the
shift of its norm: a constant. It is 0 in a network that begins its training (biases, shifts and
running means 0) for every activation function but ``sigmoid``, and that is assumed unless
``silent`` says otherwise. Channels that are constant and not 0 count as filled, since zeros around
the images keep them from being a part of the next bias.

Everything is by channel: of a linear layer that reads images, the weights of all positions of a
channel stand together. A tap that no position has an image under is as good as masked. Products of
two activations, softmax, layer norms and mixture norms are taken to mix all their channels, and so
need all of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from energysim.axes import Dim, Shape
from energysim.network.types import NETWORK_INPUT, Activation, Layer, LayerKind, Network

Flags = npt.NDArray[np.bool_]

MIXING = frozenset(
    {LayerKind.MATMUL, LayerKind.SOFTMAX, LayerKind.LAYER_NORM, LayerKind.MIXTURE_NORM}
)
"""Kinds of layer of which each output channel may depend on all channels that it reads."""

BY_OPERAND = frozenset({LayerKind.ADD, LayerKind.MULTIPLY, LayerKind.MATMUL})
"""Kinds of layer that read each of their inputs by itself, whole."""


@dataclass(frozen=True, slots=True)
class Liveness:
    """Channels of a network, and which of them do something."""

    network: Network = field(repr=False)
    filled: Mapping[str, Flags] = field(repr=False)
    """of each layer and the network's input, shape (channels,): may differ from 0"""
    used: Mapping[str, Flags] = field(repr=False)
    """of the same: some output may depend on it"""
    reached: bool
    """whether some output depends on the image at all"""
    weights: Mapping[str, int]
    """of each layer with weights: how many lead from a filled channel to a used filter"""
    links: Mapping[str, Flags] = field(repr=False)
    """of the same: which filter reads which channel with a live weight, shape (G, K, C)"""

    def live(self, name: str) -> Flags:
        """Channels of a layer that are filled and used, shape (channels,)."""
        return self.filled[name] & self.used[name]

    def pairs(self, name: str) -> Flags:
        """Used filters and filled channels with a live weight between them, shape (G, K, C)."""
        return live_pairs(self.network.layer(name), self.links[name], self.filled, self.used)

    def dead(self) -> dict[str, int]:
        """How many channels do nothing, of each layer that has weights and such channels."""
        found = {
            layer.name: int((~self.live(layer.name)).sum())
            for layer in self.network.layers
            if layer.stores_weights
        }
        return {name: count for name, count in found.items() if count}

    @property
    def macs(self) -> int:
        """Multiply-accumulates for one image that matter, of layers with weights."""
        return sum(self.macs_of(layer) for layer in self.network.layers if layer.stores_weights)

    def macs_of(self, layer: Layer) -> int:
        """Multiply-accumulates for one image that matter in a layer with weights."""
        return self.weights[layer.name] * layer.shape[Dim.P] * layer.shape[Dim.Q]


def liveness(
    network: Network,
    *,
    masks: Mapping[str, Flags] | None = None,
    silent: Mapping[str, Flags] | None = None,
) -> Liveness:
    """Find the channels that do something.

    Parameters
    ----------
    network : Network
    masks : mapping of str to ndarray of bool, optional
        Of layers, ``[G, K, C, R, S]``, in place of their own; they may be empty.
    silent : mapping of str to ndarray of bool, optional
        Of layers, shape (channels,): gives 0 where everything that it reads is 0. By default as
        :func:`silent_at_start` has it.

    Returns
    -------
    Liveness

    Examples
    --------
    A filter that the next layer doesn't read takes its inputs with it.

    >>> from energysim.catalog import load_network
    >>> some = load_network("digits_cnn").with_masks({"conv2": np.arange(16) < 12})
    >>> found = liveness(some)
    >>> found.dead(), found.weights["conv1"], some.layer("conv1").weights
    ({'conv1': 4}, 108, 144)
    """
    links = {
        layer.name: _links(layer, None if masks is None else masks.get(layer.name))
        for layer in network.layers
        if layer.stores_weights
    }
    quiet = silent_at_start(network) | dict(silent or {})
    filled = _filled(network, links, quiet)
    used = _used(network, links, filled)
    every = {name: np.ones_like(flags) for name, flags in quiet.items()}
    reached = _filled(network, links, every, beside=filled)
    weights = {
        layer.name: _weights_between(
            layer,
            None if masks is None else masks.get(layer.name),
            live_pairs(layer, links[layer.name], filled, used),
        )
        for layer in network.layers
        if layer.stores_weights
    }
    ends = any(reached[name].any() for name in outputs_of(network))
    return Liveness(network, filled, used, ends, weights, links)


def silent_at_start(network: Network) -> dict[str, Flags]:
    """Which channels are 0 where all that is read is 0, with biases, shifts and running means 0."""
    return {
        layer.name: np.full(
            layer.output[0],
            layer.activation is not Activation.SIGMOID and layer.kind is not LayerKind.SOFTMAX,
        )
        for layer in network.layers
    }


def outputs_of(network: Network) -> tuple[str, ...]:
    """Layers that nobody reads."""
    read = {name for layer in network.layers for name in layer.inputs}
    return tuple(layer.name for layer in network.layers if layer.name not in read)


# -- what a layer reads ----------------------------------------------------------------------------


def channels_read(layer: Layer, widths: Iterable[int]) -> npt.NDArray[np.int64]:
    """Numbers of the channels that a layer reads of all its inputs, joined; in order."""
    if layer.picked is not None:
        return np.array(layer.picked, np.int64)
    return np.arange(sum(widths) if layer.channels is None else layer.channels)


def read_by(layer: Layer, of: Mapping[str, Flags]) -> Flags:
    """What is said of the channels that a layer reads, in its order; not for :data:`BY_OPERAND`."""
    joined = np.concatenate([of[name] for name in layer.inputs])
    found: Flags = joined[channels_read(layer, (joined.size,))]
    return found


def said_to(layer: Layer, flags: Flags, into: dict[str, Flags]) -> bool:
    """Say something of channels that a layer reads to those who produce them, beside what was said.

    Parameters
    ----------
    layer : Layer
        Not of :data:`BY_OPERAND`.
    flags : ndarray of bool
        Of the channels that it reads, in its order.
    into : dict of str to ndarray of bool
        By layer and channel; is changed.

    Returns
    -------
    bool
        Whether anything is new.
    """
    widths = [into[name].size for name in layer.inputs]
    joined = np.zeros(sum(widths), np.bool_)
    np.logical_or.at(joined, channels_read(layer, widths), flags)
    new = False
    for name, part in zip(layer.inputs, np.split(joined, np.cumsum(widths)[:-1]), strict=True):
        new |= bool((part & ~into[name]).any())
        into[name] |= part
    return new


def patch(layer: Layer) -> int:
    """Filters that together make one output channel: one for each pixel of its patch."""
    filters = layer.shape[Dim.G] * layer.shape[Dim.K]
    return filters // layer.output[0] if layer.kind is LayerKind.TRANSPOSED else 1


def positions(layer: Layer, channels: int) -> int:
    """Weights of a filter that read one channel, taps apart: pixels of a flattened image."""
    return layer.shape[Dim.G] * layer.shape[Dim.C] // channels


def by_group(layer: Layer, flags: Flags) -> Flags:
    """Of the channels that a layer with weights reads, shape (G, C)."""
    return np.repeat(flags, positions(layer, flags.size)).reshape(layer.shape[Dim.G], -1)


def by_filter(layer: Layer, flags: Flags) -> Flags:
    """Of the channels that a layer with weights produces, shape (G, K)."""
    return np.repeat(flags, patch(layer)).reshape(layer.shape[Dim.G], -1)


def some_along(flags: Flags, axis: int | tuple[int, ...]) -> Flags:
    """Whether any flag along an axis, or several, is up."""
    return np.asarray(flags.any(axis=axis))


# -- masks -----------------------------------------------------------------------------------------


def _links(layer: Layer, mask: Flags | None) -> Flags:
    """Which filter reads which channel with a live weight, shape (G, K, C)."""
    shape, seen = layer.shape, seen_taps(layer.shape)
    dims = shape[Dim.G], shape[Dim.K], shape[Dim.C]
    if mask is None and layer.pattern == "dense" and not layer.live:
        return np.broadcast_to(np.bool_(seen.any()), dims)
    if mask is None and not layer.live and seen.all() and layer.mask.slot_sizes:
        return np.broadcast_to(layer.mask.support_sizes() > 0, dims)
    given = layer.mask.array() if mask is None else mask
    return some_along(given & seen, (3, 4))


def seen_taps(shape: Shape) -> Flags:
    """Taps that have a pixel of the image under them at some position, shape (R, S)."""
    along = []
    for axis, (out, taps) in enumerate(((Dim.P, Dim.R), (Dim.Q, Dim.S))):
        at = (
            np.arange(shape[out])[:, None] * shape.stride[axis]
            + np.arange(shape[taps]) * shape.dilation[axis]
            - shape.pad[axis]
        )
        along.append(((at >= 0) & (at < shape.size[axis])).any(axis=0))
    return np.logical_and.outer(*along)


def live_pairs(
    layer: Layer, links: Flags, filled: Mapping[str, Flags], used: Mapping[str, Flags]
) -> Flags:
    """Used filters and filled channels with a live weight between them, shape (G, K, C)."""
    rows, columns = by_filter(layer, used[layer.name]), by_group(layer, read_by(layer, filled))
    if rows.all() and columns.all():
        return links
    return links & rows[:, :, None] & columns[:, None, :]


def _weights_between(layer: Layer, mask: Flags | None, pairs: Flags) -> int:
    """Live weights of pairs of filters and channels."""
    if mask is None and layer.pattern == "dense" and not layer.live:
        return int(pairs.sum()) * layer.shape[Dim.R] * layer.shape[Dim.S]
    given = layer.mask.array() if mask is None else mask
    return int((given & pairs[..., None, None]).sum())


# -- forward and backward --------------------------------------------------------------------------


def _filled(
    network: Network,
    links: Mapping[str, Flags],
    silent: Mapping[str, Flags],
    beside: Mapping[str, Flags] | None = None,
) -> dict[str, Flags]:
    """Channels that may differ from 0; ``beside`` says so of what they are multiplied with."""
    found = {NETWORK_INPUT: np.ones(network.input_size[0], np.bool_)}
    for layer in network.layers:
        given = _given(layer, links, found, found if beside is None else beside)
        found[layer.name] = given | ~silent[layer.name]
    return found


def _given(
    layer: Layer,
    links: Mapping[str, Flags],
    filled: Mapping[str, Flags],
    beside: Mapping[str, Flags],
) -> Flags:
    """Output channels of a layer that something flows into."""
    match layer.kind:
        case LayerKind.ADD:
            return some_along(np.array([filled[name] for name in layer.inputs]), 0)
        case LayerKind.MULTIPLY:
            one, other = layer.inputs
            return (filled[one] & beside[other]) | (beside[one] & filled[other])
        case LayerKind.MATMUL:
            one, other = layer.inputs
            flows = (filled[one].any() and beside[other].any()) or (
                beside[one].any() and filled[other].any()
            )
            return np.full(layer.output[0], flows)
        case _ if layer.kind in MIXING:
            return np.full(layer.output[0], any(filled[name].any() for name in layer.inputs))
        case _ if not layer.stores_weights:  # pools and norms
            return read_by(layer, filled)
    read = by_group(layer, read_by(layer, filled))
    filters = some_along(links[layer.name] & read[:, None, :], 2)
    return some_along(filters.reshape(-1, patch(layer)), 1)


def _used(
    network: Network, links: Mapping[str, Flags], filled: Mapping[str, Flags]
) -> dict[str, Flags]:
    """Channels that an output may depend on."""
    found = {name: np.zeros_like(flags) for name, flags in filled.items()}
    for name in outputs_of(network):
        found[name][:] = True
    for layer in reversed(network.layers):
        own = found[layer.name]
        if not own.any():
            continue
        if layer.kind in BY_OPERAND:
            _operands_used(layer, own, filled, found)
        elif layer.kind in MIXING:
            said_to(layer, np.ones_like(own), found)
        elif layer.stores_weights:
            channels = channels_read(layer, [found[name].size for name in layer.inputs]).size
            read = some_along(links[layer.name] & by_filter(layer, own)[:, :, None], 1)
            said_to(layer, some_along(read.reshape(channels, -1), 1), found)
        else:  # pools and norms
            said_to(layer, own, found)
    return found


def _operands_used(
    layer: Layer, own: Flags, filled: Mapping[str, Flags], found: dict[str, Flags]
) -> None:
    """Mark what a layer of several operands uses of each."""
    if layer.kind is LayerKind.MULTIPLY:  # what is multiplied by 0 makes no difference
        one, other = layer.inputs
        found[one] |= own & filled[other]
        found[other] |= own & filled[one]
        return
    for name in layer.inputs:
        found[name] |= own if layer.kind is LayerKind.ADD else np.ones_like(found[name])
