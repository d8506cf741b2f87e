"""Masks by chance with the densities of others: what is left of a mask without its places.

Whatever a method gains over such a mask it gains by which weights it keeps, and not by how many of
each layer (J. Frankle et al., "Pruning neural networks at initialization", ICLR 2021, section 5).
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from energysim.network import Layer, Network
from energysim.prune.prune import Kept, Pruned
from energysim.sparsity import MaskFile


def alike(
    network: Network, masks: Mapping[str, npt.ArrayLike] | MaskFile, *, seed: int = 0
) -> Pruned:
    """Draw as many live weights of each layer as the masks have.

    Parameters
    ----------
    network : Network
        Weights that masks of its own leave out stay out.
    masks : mapping of str to array-like of bool, or MaskFile
        As :meth:`energysim.network.Network.with_masks` takes them. Of a mask of input channels, as
        many channels are drawn; a layer without a mask keeps what it has.
    seed : int
        Of what is drawn.

    Returns
    -------
    Pruned

    Raises
    ------
    InputErrors
        If the masks are not of this network.

    Examples
    --------
    >>> from energysim.catalog import load_network
    >>> found = alike(load_network("digits_cnn"), {"conv2": np.eye(16, dtype=bool)[0]}, seed=1)
    >>> [(each.layer.name, each.live) for each in found.layers][:2]
    [('conv1', 144), ('conv2', 144)]
    """
    masked = network.with_masks(masks)
    shapes = (
        {name: head.shape for name, head in masks.heads.items()}
        if isinstance(masks, MaskFile)
        else {name: np.shape(mask) for name, mask in masks.items()}
    )
    rng = np.random.default_rng(seed)
    found: dict[str, npt.NDArray[np.bool_]] = {}
    layers = []
    for own, other in zip(network.layers, masked.layers, strict=True):
        if own.stores_weights:
            by_channel = len(shapes.get(own.name, ())) == 1
            found[own.name] = (_channels if by_channel else _weights)(own, other, rng)
            layers.append(Kept(own, own.weights, int(found[own.name].sum()), None))
    live, before = sum(each.live for each in layers), sum(each.before for each in layers)
    how = "alike", live / before, 1, "exponential", seed
    return Pruned(network, *how, found, tuple(layers))


def _weights(own: Layer, other: Layer, rng: np.random.Generator) -> npt.NDArray[np.bool_]:
    """So many single weights."""
    before = own.mask.array()
    places = np.flatnonzero(before)
    many = int(np.count_nonzero(other.mask.array() & before))
    found = np.zeros(before.size, np.bool_)
    found[rng.choice(places, many, replace=False)] = True
    return found.reshape(before.shape)


def _channels(own: Layer, other: Layer, rng: np.random.Generator) -> npt.NDArray[np.bool_]:
    """All weights of so many input channels."""
    before, mask = own.mask.array(), other.mask.array()
    live = mask.any(axis=(1, 3, 4))
    drawn = rng.permutation(live.ravel()).reshape(live.shape)
    return np.asarray(before & drawn[:, None, :, None, None])
