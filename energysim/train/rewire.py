"""Dynamic network rewiring: a sparse network that moves its live weights while it is trained.

Sparse from the first step to the last. Between two epochs each layer loses a share of its smallest
weights, and as many grow where the momentum of the loss is largest: in layers in proportion to the
mean momentum of their live weights, in a layer at the dead places that are pulled the most (T.
Dettmers, L. Zettlemoyer, 2019, "Sparse networks from scratch", arXiv 1907.04840; S. Kundu, M.
Nazemi, P. A. Beerel, M. Pedram, "DNR: a tunable robust pruning framework through dynamic network
rewiring of DNNs", ASP-DAC 2021).

What lives and dies together is a unit: one weight, or all weights of an input channel. The number
of live weights is exactly the same after every step; of channels, whose sizes differ from layer to
layer, it is never above, and below it by less than the smallest unit that there is room for. The
authors of sparse momentum round quotas up and correct the sum in later epochs; here nothing is left
to correct. All layers with weights are pruned, as by :mod:`energysim.prune`; biases and norms are
not, nor are channels of the image itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from math import ceil, cos, pi
from typing import Any

import numpy as np
import numpy.typing as npt

from energysim.errors import InputError
from energysim.network import NETWORK_INPUT, Layer, LayerKind, Network
from energysim.train.parameters import Layout, Slot, live_weights, weight_dims
from energysim.train.scratch import Floats

Bools = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int64]

ROOM = 0.99
"""Share of the dead units of a layer that may grow at once, while others have room (as in the code
of sparse momentum)."""

SPARSE = 0.2
"""Layers with fewer dead weights than this share, and more than an average share of what grows,
lose no larger share than is dead: they would get it all back (as there)."""


class Mode(StrEnum):
    """What lives and dies together."""

    IRREGULAR = "irregular"
    """each weight by itself"""
    CHANNEL = "channel"
    """all weights that read an input channel"""


class Decline(StrEnum):
    """How the share that is pruned gets smaller."""

    LINEAR = "linear"
    COSINE = "cosine"


def declined(share: float, done: int, of: int, how: Decline) -> float:
    """Share that is pruned after so many epochs; 0 after the last.

    Examples
    --------
    >>> [round(declined(0.5, done, 4, Decline.LINEAR), 3) for done in range(1, 5)]
    [0.375, 0.25, 0.125, 0.0]
    >>> [round(declined(0.5, done, 4, Decline.COSINE), 3) for done in range(1, 5)]
    [0.427, 0.25, 0.073, 0.0]
    """
    if how is Decline.COSINE:
        return share * (1 + cos(pi * done / of)) / 2
    return share * (1 - done / of)


# -- a layer ---------------------------------------------------------------------------------------


def smallest(scores: Floats, live: Bools, many: int) -> Ints:
    """Live units with the smallest scores; of equal ones those that stand first.

    Parameters
    ----------
    scores : ndarray, shape (U,)
    live : ndarray of bool, shape (U,)
    many : int

    Returns
    -------
    ndarray of int, shape (many,)
    """
    places = np.flatnonzero(live)
    found: Ints = places[np.argsort(scores[places], kind="stable")[:many]]
    return found


def largest(scores: Floats, dead: Bools, many: int) -> Ints:
    """Dead units with the largest scores; of equal ones those that stand first."""
    return smallest(-scores, dead, many)


def to_prune(live: int, units: int, share: float, grows: float, layers: int) -> int:
    """How many units a layer loses; one stays, so that no layer is emptied.

    Parameters
    ----------
    live, units : int
        Live ones, and all.
    share : float
        That is pruned in every layer.
    grows : float
        The layer's share of what grows.
    layers : int

    Examples
    --------
    >>> to_prune(10, 100, 0.25, 0.1, 3), to_prune(90, 100, 0.5, 0.9, 3), to_prune(1, 8, 0.5, 0.1, 3)
    (3, 9, 0)
    """
    dead = 1 - live / units
    if dead < SPARSE and grows > 1 / layers:
        share = min(share, dead)
    return min(ceil(share * live), live - 1)


# -- all layers ------------------------------------------------------------------------------------


def shares_of(means: Sequence[float]) -> Floats:
    """Share of each layer in what grows: its mean momentum beside that of all; equal if none has.

    Parameters
    ----------
    means : sequence of float, length L
        Mean absolute momentum of the live weights.

    Returns
    -------
    ndarray, shape (L,)
    """
    found = np.asarray(means, np.float64)
    total = found.sum()
    return found / total if total > 0 else np.full(len(found), 1 / len(found))


def quotas(budget: int, shares: Floats, sizes: Ints, room: Ints) -> Ints:
    """How many units grow in each layer.

    Each layer gets its share of the weights, as long as at most :data:`ROOM` of its dead units
    grow; what it has no room for is spread evenly over the others. Only when all are as full as
    that do they fill up wholly. Fractions of units go to the layers with the largest ones.

    Parameters
    ----------
    budget : int
        Weights that may grow.
    shares : ndarray, shape (L,)
        Sum 1.
    sizes : ndarray of int, shape (L,)
        Weights of a unit.
    room : ndarray of int, shape (L,)
        Dead units.

    Returns
    -------
    ndarray of int, shape (L,)
        Together at most the budget, and less by less than the smallest unit that there still is
        room for.

    Examples
    --------
    >>> one = np.ones(3, np.int64)
    >>> quotas(10, np.array([0.5, 0.3, 0.2]), one, 100 * one).tolist()
    [5, 3, 2]
    >>> quotas(10, np.array([0.8, 0.1, 0.1]), one, np.array([4, 100, 100])).tolist()
    [3, 4, 3]
    """
    given = np.zeros(len(sizes), np.int64)
    for most in (np.floor(ROOM * room).astype(np.int64), room):
        left = budget - int((given * sizes).sum())
        given += _spread(left, shares, sizes, most - given)
    return given


def _spread(budget: int, shares: Floats, sizes: Ints, most: Ints) -> Ints:
    full = (most * sizes).astype(np.float64)
    wanted = budget * shares
    for _ in sizes:  # each time at least one layer more is full
        excess = float(np.maximum(wanted - full, 0).sum())
        wanted = np.minimum(wanted, full)
        open_ = wanted < full
        if excess <= 0 or not open_.any():
            break
        wanted = wanted + open_ * (excess / open_.sum())
    wanted = np.minimum(wanted, full)
    found = np.minimum(np.floor(wanted / sizes).astype(np.int64), most)
    left = budget - int((found * sizes).sum())
    order = np.argsort(found - wanted / sizes, kind="stable")  # by the largest fraction
    while True:
        before = left
        for layer in order:
            if found[layer] < most[layer] and sizes[layer] <= left:
                found[layer] += 1
                left -= int(sizes[layer])
        if left == before:
            return found


# -- the weights of a network ----------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Part:
    """The weights of a layer, as units."""

    layer: Layer
    slot: Slot
    """where they stand in the vector of all"""
    features: int
    """of a channel that the layer reads: its height times its width for a linear layer, else 1"""
    mode: Mode

    @property
    def units(self) -> int:
        """How many there are, those that a pattern leaves out included."""
        return (self.slot.stop - self.slot.start) // self.size

    @property
    def size(self) -> int:
        """Weights of a unit."""
        if self.mode is Mode.IRREGULAR:
            return 1
        _, filters, _, height, width = self.slot.shape
        return filters * self.features * height * width

    def of(self, vector: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Weights by unit, shape (units, size), of a vector of all; a copy of those of channels."""
        if self.mode is Mode.IRREGULAR:
            return vector[self.slot.start : self.slot.stop, None]
        groups, filters, channels, height, width = self.slot.shape
        whole = channels // self.features
        apart = self.slot.view(vector).reshape(groups, filters, whole, self.features, height, width)
        return apart.swapaxes(1, 2).reshape(self.units, self.size)

    def put(self, units: npt.NDArray[Any], vector: npt.NDArray[Any]) -> None:
        """Write one number a unit, shape (units,), to all its weights in a vector of all."""
        if self.mode is Mode.IRREGULAR:
            vector[self.slot.start : self.slot.stop] = units
            return
        groups, _, channels, _, _ = self.slot.shape
        by_channel = units.reshape(groups, channels // self.features).repeat(self.features, axis=1)
        self.slot.view(vector)[...] = by_channel[:, None, :, None, None]


@dataclass(frozen=True, slots=True)
class Moved:
    """What a rewiring has done."""

    live: Floats
    """1 where a weight is live, else 0, shape (W,)"""
    pruned: int
    """weights that were live and are not"""


@dataclass(frozen=True)
class Wiring:
    """The weights of a network that may be live, layer by layer."""

    parts: tuple[Part, ...]
    """of the layers that are rewired"""
    allowed: Bools
    """what the network's own patterns leave, shape (W,)"""
    settled: Bools
    """weights that live all the time, as nothing of their layers is pruned, shape (W,)"""

    @classmethod
    def of(cls, network: Network, mode: Mode) -> Wiring:
        """Take all layers with weights of a network; of channels, all but those of the image.

        Raises
        ------
        InputError
            If channels are asked for and the network has patterns or masks of its own, or no layer
            that reads another one.
        """
        check_rewirable(network, mode)
        layout = Layout.of(network)
        weighted = [layer for layer in network.layers if layer.stores_weights]
        parts = tuple(
            Part(layer, slot, _features(network, layer), mode)
            for layer, slot in zip(weighted, layout.slots, strict=False)
            if _rewired(layer, mode)
        )
        allowed = live_weights(network)[: layout.weights]
        settled = allowed.copy()
        for part in parts:
            settled[part.slot.start : part.slot.stop] = False
        return cls(parts, allowed, settled)

    def target(self, density: float) -> int:
        """Live weights at a density: that share of every layer, and one unit of each at least."""
        moving = sum(self._many(part, density) * part.size for part in self.parts)
        return moving + int(self.settled.sum())

    def start(self, density: float, rng: np.random.Generator) -> Floats:
        """Draw live weights: exactly as many of each layer, so that no small one is empty.

        Parameters
        ----------
        density : float
        rng : numpy.random.Generator

        Returns
        -------
        ndarray, shape (W,)
            1 where a weight is live, else 0.
        """
        live = self.settled.astype(np.float32)
        for part in self.parts:
            units = np.zeros(part.units, np.float32)
            places = np.flatnonzero(part.of(self.allowed)[:, 0])
            units[rng.choice(places, self._many(part, density), replace=False)] = 1
            part.put(units, live)
        return live

    def rewired(
        self, live: Floats, weights: Floats, momentum: Floats, share: float, target: int
    ) -> Moved:
        """Prune the smallest weights and let others grow.

        Parameters
        ----------
        live : ndarray, shape (W,)
            1 where a weight is live, else 0.
        weights, momentum : ndarray, shape (W,)
        share : float
            Of the live weights of each layer that is pruned.
        target : int
            Live weights afterwards, if there is room.

        Returns
        -------
        Moved
            A weight that is pruned and grows again at once has never been away.
        """
        parts = self.parts
        means = [_mean(part.of(momentum), part.of(live)) for part in parts]
        shares = shares_of(means)
        kept, free = [], []
        for part, grows in zip(parts, shares, strict=True):
            own, may = part.of(live)[:, 0] > 0, part.of(self.allowed)[:, 0]
            many = to_prune(int(own.sum()), int(may.sum()), share, float(grows), len(parts))
            own[smallest(_lengths(part.of(weights)), own, many)] = False
            kept.append(own)
            free.append(may & ~own)
        sizes = np.array([part.size for part in parts])
        left = target - int(self.settled.sum())
        left -= sum(int(own.sum()) * part.size for own, part in zip(kept, parts, strict=True))
        room = np.array([int(each.sum()) for each in free])
        found = self.settled.astype(live.dtype)
        for part, own, dead, many in zip(
            parts, kept, free, quotas(left, shares, sizes, room), strict=True
        ):
            own[largest(_lengths(part.of(momentum)), dead, int(many))] = True
            part.put(own, found)
        return Moved(found, int(((live > 0) & (found == 0)).sum()))

    def masks(self, live: Floats) -> dict[str, Bools]:
        """Masks by layer: ``[G, K, C, R, S]``, or one bool for each input channel, (G C,)."""
        found = {}
        for part in self.parts:
            mask = part.slot.view(live) > 0
            by_channel = part.mode is Mode.CHANNEL
            found[part.layer.name] = (
                mask[:, 0, :, 0, 0].reshape(-1) if by_channel else np.ascontiguousarray(mask)
            )
        return found

    def _many(self, part: Part, density: float) -> int:
        """Units of a layer that are live at a density."""
        return max(1, round(density * int(part.of(self.allowed)[:, 0].sum())))


def check_rewirable(network: Network, mode: Mode) -> None:
    """Refuse to rewire channels of a network that has patterns or masks of its own.

    Raises
    ------
    InputError
    """
    sparse = [
        each.name
        for each in network.layers
        if each.stores_weights and each.weights < each.weights_dense
    ]
    if mode is Mode.CHANNEL and sparse:
        raise InputError(
            f"{network.name} is sparse in itself ({', '.join(sparse[:3])}), and whole channels of"
            " it are not rewired. Leave out its pattern or mask, or choose mode irregular, which"
            " stays within them"
        )
    if not any(layer.stores_weights and _rewired(layer, mode) for layer in network.layers):
        raise InputError(
            f"no layer of {network.name} with weights reads channels of another one, and those of"
            " the image stay. Choose mode irregular"
        )


def _rewired(layer: Layer, mode: Mode) -> bool:
    """Whether a layer takes part: what an image has is not taken from it."""
    return mode is Mode.IRREGULAR or NETWORK_INPUT not in layer.inputs


def _features(network: Network, layer: Layer) -> int:
    """Inputs of a layer that belong to one channel of what it reads."""
    if layer.kind is not LayerKind.LINEAR:
        return 1
    read = [
        network.input_size if name == NETWORK_INPUT else network.layer(name).output
        for name in layer.inputs
    ]
    sizes = {height * width for _, height, width in read}
    # Where maps of several sizes are joined, or a part of the inputs is read, each counts alone.
    size = sizes.pop()
    return 1 if sizes or weight_dims(layer)[2] % size else size


def _lengths(units: Floats) -> Floats:
    """Length of each unit; of a single weight its absolute value."""
    if units.shape[1] == 1:
        return np.abs(units[:, 0])
    found: Floats = np.sqrt((units.astype(np.float64) ** 2).sum(axis=1))
    return found


def _mean(momentum: Floats, live: Floats) -> float:
    """Mean absolute momentum of live weights."""
    return float(np.abs(momentum[live > 0]).mean(dtype=np.float64))
