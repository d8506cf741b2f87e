"""The smaller network that is left where dead channels are taken out of a masked one.

Notes
-----
A channel stays if it is live (:mod:`energysim.network.liveness`), or if the shape of a layer needs
it:

- sums and products of layers have the same channels as their operands: the union of what is live
  in any of them. An operand that only adds zeros is left out, and a sum of one operand gives way to
  it where its activation function can move there or does nothing;
- groups of a convolution stay equally large, at the size of the largest, or go as a whole;
- products of activations, softmax, layer norms and mixture norms keep all channels that they read;
- outputs stay, and a layer that stays has at least one filter, one channel to read and one weight.

Channels that stay for their shape alone have no live weight. What is left of a mask stays a mask.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from energysim.errors import EnergysimError
from energysim.network.activate import CAN_BE_ACTIVATED
from energysim.network.liveness import (
    BY_OPERAND,
    MIXING,
    Flags,
    Liveness,
    by_filter,
    by_group,
    channels_read,
    liveness,
    outputs_of,
    patch,
    positions,
    read_by,
    said_to,
    some_along,
)
from energysim.network.types import (
    NETWORK_INPUT,
    Activation,
    Layer,
    LayerKind,
    Network,
    PoolMode,
    pattern_of,
)
from energysim.network.wiring import Channel, Reads
from energysim.sparsity import Mask, get_pattern

Numbers = npt.NDArray[np.int64]

SUFFIX = "-shrunk"
"""Of the name of a network without its dead channels."""


class DisconnectedError(EnergysimError):
    """No output depends on the image."""

    exit_code = 3


@dataclass(frozen=True, slots=True)
class Cut:
    """What stays of a layer with weights."""

    groups: Numbers
    """shape (G',)"""
    filters: Numbers
    """of each group that stays, shape (G', K')"""
    channels: Numbers
    """input channels of each group that stays, shape (G', C')"""
    live: Flags = field(repr=False)
    """weights that matter, ``[G', K', C', R, S]``"""

    def of(self, weights: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """What stays of an array ``[G, K, C, R, S]``."""
        some: npt.NDArray[Any] = weights[
            self.groups[:, None, None], self.filters[:, :, None], self.channels[:, None, :]
        ]
        return some


@dataclass(frozen=True, slots=True)
class Shrunk:
    """A network without its dead channels, and where the rest of it comes from."""

    before: Network = field(repr=False)
    """as given"""
    network: Network = field(repr=False)
    """without them"""
    channels: Mapping[str, Numbers] = field(repr=False)
    """of each layer that stays: numbers of the channels that it still has"""
    cuts: Mapping[str, Cut] = field(repr=False)
    """of each layer with weights that stays"""
    liveness: Liveness = field(repr=False)
    """of the network as given"""

    @property
    def removed(self) -> tuple[str, ...]:
        """Layers of which nothing is left."""
        return tuple(layer.name for layer in self.before.layers if layer.name not in self.channels)


def shrunk(network: Network, *, silent: Mapping[str, Flags] | None = None) -> Shrunk:
    """Take out the channels that do nothing.

    Parameters
    ----------
    network : Network
        With masks.
    silent : mapping of str to ndarray of bool, optional
        As for :func:`energysim.network.liveness.liveness`.

    Returns
    -------
    Shrunk
        Its network gives every image the scores that the masked one gives it, for all weights with
        which channels are 0 where nothing flows into them and ``silent`` says so. What it learns
        may differ: the biases and shifts of filters that are gone are gone too.

    Raises
    ------
    DisconnectedError
        If no output depends on the image.

    Examples
    --------
    >>> from energysim.catalog import load_network
    >>> masked = load_network("digits_cnn").with_masks({"conv2": np.arange(16) < 12})
    >>> small = shrunk(masked).network
    >>> small.name, small.layer("conv1").output, small.macs, masked.effective_macs
    ('digits_cnn-shrunk', (12, 8, 8), 339008, 341312)
    """
    found = liveness(network, silent=silent)
    if not found.reached:
        raise DisconnectedError(
            f"no way leads from the image through live weights to the outputs of {network.name}:"
            " nothing would be left. Prune less, or by another method"
        )
    return _Shrinking(found).done()


class _Shrinking:
    """The state of one shrinking: which channels are there, so far."""

    def __init__(self, found: Liveness) -> None:
        self.found, self.network = found, found.network
        self.by_name = {layer.name: layer for layer in self.network.layers}
        self.outputs = outputs_of(self.network)
        self.readers: dict[str, list[str]] = {name: [] for name in found.used}
        for layer in self.network.layers:
            for name in layer.inputs:
                self.readers[name].append(layer.name)
        self.operands: dict[str, tuple[str, ...]] = {}  # of sums, without zeros
        self.stands_for: dict[str, str] = {}  # a layer, in place of a sum of it alone
        self.activations = {layer.name: layer.activation for layer in self.network.layers}
        self.reads: dict[str, Flags] = {}
        self._drop_zeros()
        # Arrays are shared with what stands for another, so that both are always the same.
        self.there = {name: found.live(name) for name in found.used}
        self.there[NETWORK_INPUT] = np.ones_like(found.used[NETWORK_INPUT])
        for name in self.outputs:
            self.there[name][:] = True
        for name, other in self.stands_for.items():
            self.there[other] |= self.there[name]
            self.there[name] = self.there[other]

    # -- sums of zeros -----------------------------------------------------------------------------

    def _drop_zeros(self) -> None:
        """Leave operands out of sums to which they only add zeros."""
        for layer in self.network.layers:
            if layer.kind is not LayerKind.ADD:
                continue
            used = self.found.used[layer.name]
            some = [name for name in layer.inputs if (self.found.filled[name] & used).any()]
            if not some:
                continue
            if len(some) == 1 and not self._gives_way(layer, some[0]):
                some = self._with_a_zero(layer, some[0])
            self.operands[layer.name] = tuple(some)

    @staticmethod
    def _with_a_zero(layer: Layer, name: str) -> list[str]:
        """The operand that adds something, and beside it the first one that adds zeros."""
        other = next(each for each in layer.inputs if each != name)
        return [each for each in layer.inputs if each in (name, other)]

    def _gives_way(self, layer: Layer, operand: str) -> bool:
        """Put the only operand of a sum in its place, if the results are the same."""
        own = self.activations[layer.name]
        source = self.stands_for.get(operand, operand)
        if layer.name in self.outputs or source == NETWORK_INPUT:
            return False
        producer = self.by_name[source]
        if own is not Activation.NONE and not self._settled(source, own):
            alone = self.readers[source] == [layer.name] and source == operand
            plain = self.activations[source] is Activation.NONE
            if not (alone and plain and producer.kind in CAN_BE_ACTIVATED):
                return False
            self.activations[source] = own
        self.stands_for[layer.name] = source
        return True

    def _settled(self, name: str, activation: Activation) -> bool:
        """Whether an activation function changes nothing of what a layer gives."""
        if name == NETWORK_INPUT or activation not in (Activation.RELU, Activation.RELU6):
            return False
        layer = self.by_name[name]
        if self.activations[name] is activation:
            return True
        return (
            layer.kind is LayerKind.POOL
            and layer.mode in (PoolMode.MAX, PoolMode.AVERAGE)
            and all(
                self._settled(self.stands_for.get(each, each), activation) for each in layer.inputs
            )
        )

    # -- which channels are there ------------------------------------------------------------------

    def done(self) -> Shrunk:
        new = True
        while new:  # every layer claims what its shape needs, until none needs more
            new = False
            for layer in reversed(self.network.layers):
                new |= self._claim(layer)
        channels = {
            layer.name: np.flatnonzero(self.there[layer.name])
            for layer in self.network.layers
            if self._stays(layer)
        }
        layers: list[Layer] = []
        cuts: dict[str, Cut] = {}
        for layer in self.network.layers:
            if self._stays(layer):
                cut = self._cut(layer) if layer.stores_weights else None
                if cut is not None:
                    cuts[layer.name] = cut
                layers.append(self._made(layer, cut, len(layers)))
        return Shrunk(self.network, self._network(tuple(layers)), channels, cuts, self.found)

    def _stays(self, layer: Layer) -> bool:
        return layer.name not in self.stands_for and bool(self.there[layer.name].any())

    def _claim(self, layer: Layer) -> bool:
        """Let a layer have the channels that its shape needs; whether any is new."""
        if not self._stays(layer):
            return False
        own = self.there[layer.name]
        if layer.kind is LayerKind.MATMUL:
            return self._all_of(layer.name, *layer.inputs)
        if layer.kind in BY_OPERAND:
            return self._alike(layer.name, *self.operands.get(layer.name, layer.inputs))
        if layer.kind in MIXING:
            new = self._all_of(layer.name)
            return said_to(layer, np.ones_like(own), self.there) or new
        if not layer.stores_weights:
            return said_to(layer, own, self.there)
        filters, channels = self._kept(layer)
        produced = some_along(filters.reshape(-1, patch(layer)), 1)
        new = bool((produced & ~own).any())
        own |= produced
        return said_to(layer, self._channels(layer, channels), self.there) or new

    def _all_of(self, *names: str) -> bool:
        new = any(not self.there[name].all() for name in names)
        for name in names:
            self.there[name][:] = True
        return new

    def _alike(self, *names: str) -> bool:
        union = some_along(np.array([self.there[name] for name in names]), 0)
        new = any((union != self.there[name]).any() for name in names)
        for name in names:
            self.there[name] |= union
        return new

    def _read(self, layer: Layer) -> Flags:
        """Channels that weights that matter read, shape (G, C); whole ones of flattened images."""
        if layer.name not in self.reads:
            read = some_along(self.found.pairs(layer.name), 1)
            size = self._positions(layer)
            whole = some_along(read.reshape(len(read), -1, size), 2)
            self.reads[layer.name] = np.repeat(whole, size, axis=1)
        return self.reads[layer.name]

    def _kept(self, layer: Layer) -> tuple[Flags, Flags]:
        """Filters (G, K) and channels (G, C) of a layer that stay, equally many in each group."""
        filters, read = by_filter(layer, self.there[layer.name]), self._read(layer)
        groups = some_along(filters, 1)
        live = read_by(layer, self.found.filled) & read_by(layer, self.found.used)
        most = max(self._positions(layer), int(read[groups].sum(axis=1).max()))
        filters = filled_up(filters, int(filters.sum(axis=1).max()), filters)
        channels = filled_up(read, most, by_group(layer, live))
        return filters & groups[:, None], channels & groups[:, None]

    def _count(self, layer: Layer) -> int:
        """Channels that a layer reads in the network as given."""
        return channels_read(layer, [self.there[name].size for name in layer.inputs]).size

    def _positions(self, layer: Layer) -> int:
        return positions(layer, self._count(layer))

    def _channels(self, layer: Layer, kept: Flags) -> Flags:
        """From the channels of each group to those that the layer reads, in its order."""
        return some_along(kept.reshape(self._count(layer), -1), 1)

    # -- the smaller layers ------------------------------------------------------------------------

    def _cut(self, layer: Layer) -> Cut:
        filters, channels = self._kept(layer)
        groups = np.flatnonzero(filters.any(axis=1))
        cut = Cut(
            groups,
            np.nonzero(filters[groups])[1].reshape(len(groups), -1),
            np.nonzero(channels[groups])[1].reshape(len(groups), -1),
            np.zeros(0, np.bool_),
        )
        pairs = self.found.pairs(layer.name)[..., None, None]
        return replace(cut, live=cut.of(layer.mask.array() & pairs))

    def _made(self, layer: Layer, cut: Cut | None, index: int) -> Layer:
        """A layer with the channels that stay."""
        count = int(self.there[layer.name].sum())
        inputs = self.operands.get(layer.name, layer.inputs)
        _, groups, filters, channels, *pixels = layer.shape.dims
        if cut is not None:
            (groups, filters), channels = cut.filters.shape, cut.channels.shape[1]
        elif layer.kind is not LayerKind.MATMUL:
            groups = count
        if layer.kind is LayerKind.ADD:
            channels = len(inputs)
        high, wide, rows, columns = pixels
        reads = self._reads(layer, inputs)
        volume = layer.volume
        made = replace(
            layer,
            shape=replace(
                layer.shape, dims=(1, groups, filters, channels, high, wide, rows, columns)
            ),
            seed=index,
            inputs=reads.inputs,
            channels=reads.channels,
            picked=reads.picked,
            activation=self.activations[layer.name],
            volume=None if volume is None else (count, *volume[1:]),
        )
        return made if cut is None else self._masked(layer, made, cut)

    @staticmethod
    def _masked(layer: Layer, made: Layer, cut: Cut) -> Layer:
        """Give a smaller layer what is left of its mask; none where all is left."""
        live = cut.live
        if live.all():
            return replace(made, pattern="dense", live="")
        whole = made.shape == layer.shape and bool((live == layer.mask.array()).all())
        if whole and not layer.live:
            seeded = get_pattern(layer.pattern).seeded
            if not seeded or made.seed == layer.seed:
                return made
        if not live.any():
            live = live.copy()
            live.flat[0] = True
        mask = Mask.from_array(live)
        return replace(made, pattern=mask.pattern.name, live=b64encode(mask.live).decode())

    def _reads(self, layer: Layer, inputs: tuple[str, ...]) -> Reads:
        """What a layer reads, by the numbers that channels have now."""
        if layer.kind in BY_OPERAND:
            return Reads(tuple(self.stands_for.get(name, name) for name in inputs), None, None)
        joined: list[Channel] = [
            (self.stands_for.get(name, name), number)
            for name in inputs
            for number in range(self.there[name].size)
        ]
        every = [joined[number] for number in channels_read(layer, (len(joined),))]
        if layer.stores_weights:
            kept = self._channels(layer, self._kept(layer)[1])
        else:
            kept = self.there[layer.name]
        wanted = [channel for channel, stays in zip(every, kept, strict=True) if stays]
        now = {name: np.cumsum(flags) - 1 for name, flags in self.there.items()}
        sizes = {name: int(flags.sum()) for name, flags in self.there.items()}
        return Reads.of([(name, int(now[name][number])) for name, number in wanted], sizes)

    def _network(self, layers: tuple[Layer, ...]) -> Network:
        before = self.network
        name = before.name.removesuffix("+masks").removesuffix(SUFFIX)
        name = name.replace("+", "-").replace(":", "")  # names in files have neither
        return replace(
            before,
            name=f"{name}{SUFFIX}",
            source=f"{before.source}; without the dead channels of a mask",
            layers=layers,
            base=None,
            pattern=pattern_of(layers),
            masks=None,
            shuffles=(),
        )


def filled_up(some: Flags, size: int, rather: Flags) -> Flags:
    """Add to each row as many as it lacks, first those that are named, in order.

    Parameters
    ----------
    some, rather : ndarray of bool, shape (G, M)
    size : int
        True elements that each row shall have; those with more keep them.

    Examples
    --------
    >>> some = np.array([[False, True, False, False]])
    >>> filled_up(some, 3, np.array([[False, False, False, True]])).tolist()
    [[True, True, False, True]]
    """
    order = np.argsort(np.where(some, 0, np.where(rather, 1, 2)), axis=1, kind="stable")
    rank = np.argsort(order, axis=1, kind="stable")
    return some | (rank < size)
