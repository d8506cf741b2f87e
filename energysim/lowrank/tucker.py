"""Convolutions of low rank: a 1x1, a small one and a 1x1 in place of one (Tucker-2).

A kernel ``[K, C, R, S]`` is approximated by a core ``[R2, R1, R, S]`` and a factor for each of the
two channel modes (Kim et al., ICLR 2016, section 3.1; HALOC, Xiao et al., AAAI 2023, takes the same
with R1 = R2).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from energysim.axes import Dim, Shape
from energysim.errors import InputError, InputErrors
from energysim.network import Activation, Layer, LayerKind, Network

Floats = npt.NDArray[np.floating[Any]]

Ranks = tuple[int, int]
"""Channels between the first and the second convolution (R1), and between that and the third
(R2)."""

REDUCE, CORE = "reduce", "core"
"""What the first two of three layers are called, behind the name of the one they stand for; the
third has its name, so that whoever reads it need not change."""

SWEEPS = 20
"""Most rounds of alternating fits."""

ENOUGH = 1e-9
"""Share of the error by which a round must better it to be followed by another."""


# -- kernels ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Factors:
    """A kernel of low rank."""

    reduce: Floats
    """shape (R1, C): weights of the first 1x1 convolution"""
    core: Floats
    """shape (R2, R1, R, S)"""
    expand: Floats
    """shape (K, R2): weights of the last"""

    @property
    def kernel(self) -> Floats:
        """The kernel that the three make together, ``[K, C, R, S]``."""
        whole: Floats = np.einsum("kj,jirs,ic->kcrs", self.expand, self.core, self.reduce)
        return whole


def tucker2(kernel: Floats, ranks: Ranks, *, sweeps: int = SWEEPS) -> Factors:
    """Approximate a kernel in its channel modes, with orthonormal factors.

    Parameters
    ----------
    kernel : ndarray, shape (K, C, R, S)
    ranks : (R1, R2)
        At most (C, K).
    sweeps : int
        Rounds of HOOI after the start by HOSVD (De Lathauwer et al., SIAM J. Matrix Anal. Appl.
        21(4), 2000, algorithms of sections 2 and 3): each fits one factor with the other one
        fixed, so that the error never grows. 0 is HOSVD.

    Returns
    -------
    Factors

    Raises
    ------
    InputError
        If a rank is below 1 or above the number of channels.

    Examples
    --------
    >>> kernel = np.random.default_rng(0).standard_normal((6, 4, 3, 3))
    >>> whole = tucker2(kernel, (4, 6))
    >>> bool(np.allclose(whole.kernel, kernel))
    True
    """
    filters, channels, _, _ = kernel.shape
    _check_ranks(ranks, channels, filters, "the kernel")
    of_input = _leading(kernel.transpose(1, 0, 2, 3), ranks[0])
    of_output = _leading(kernel, ranks[1])
    kept = -1.0
    for _ in range(sweeps):
        seen = np.einsum("kcrs,kj->cjrs", kernel, of_output)
        of_input = _leading(seen, ranks[0])
        seen = np.einsum("kcrs,ci->kirs", kernel, of_input)
        of_output = _leading(seen, ranks[1])
        core = np.einsum("kirs,kj->jirs", seen, of_output)
        now = float((core**2).sum())  # what is kept of the kernel's squared length
        if now - kept <= ENOUGH * now:
            break
        kept = now
    core = np.einsum("kcrs,kj,ci->jirs", kernel, of_output, of_input, optimize=True)
    return Factors(of_input.T, core, of_output)


def _leading(tensor: Floats, rank: int) -> Floats:
    """Leading left singular vectors of a tensor unfolded along its first mode."""
    flat = tensor.reshape(len(tensor), -1)
    vectors, _, _ = np.linalg.svd(flat, full_matrices=False)
    if rank > vectors.shape[1]:  # more than the rest has: any others that complete them
        vectors, _, _ = np.linalg.svd(flat, full_matrices=True)
    return vectors[:, :rank]


def bases(kernel: Floats) -> tuple[Floats, Floats]:
    """Orthonormal bases of the channels, those that carry most of a kernel first (HOSVD).

    Parameters
    ----------
    kernel : ndarray, shape (K, C, R, S)

    Returns
    -------
    of_input, of_output : ndarray, shapes (C, C) and (K, K)
    """
    filters, channels, _, _ = kernel.shape
    return _leading(kernel.transpose(1, 0, 2, 3), channels), _leading(kernel, filters)


def core_of(kernel: Floats) -> Floats:
    """A kernel in its own :func:`bases`: ranks cut it to its first rows and columns.

    Parameters
    ----------
    kernel : ndarray, shape (K, C, R, S)

    Returns
    -------
    ndarray, shape (K, C, R, S)
        In double precision.
    """
    whole = kernel.astype(np.float64)
    of_input, of_output = bases(whole)
    core: Floats = np.einsum("kcrs,kj,ci->jirs", whole, of_output, of_input, optimize=True)
    return core


def singular_values(kernel: Floats) -> tuple[Floats, Floats]:
    """Singular values along the input and the output channels, large ones first.

    Parameters
    ----------
    kernel : ndarray, shape (K, C, R, S)

    Returns
    -------
    of_input, of_output : ndarray, shapes (C,) and (K,)
        Padded with zeros where a mode is longer than all others together.
    """
    found = []
    for flat in (kernel.transpose(1, 0, 2, 3).reshape(kernel.shape[1], -1),
                 kernel.reshape(len(kernel), -1)):  # fmt: skip
        values = np.linalg.svd(flat, compute_uv=False)
        found.append(np.pad(values, (0, len(flat) - len(values))))
    return found[0], found[1]


# -- layers ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Chain:
    """Counts of a convolution and of the three that stand for it, for one image."""

    layer: Layer
    """the convolution"""
    ranks: Ranks

    @property
    def weights(self) -> int:
        """Of the three."""
        return sum(each.weights for each in self.layers)

    @property
    def parameters(self) -> int:
        """Of the three, with bias and norm of the last."""
        return sum(each.parameters for each in self.layers)

    @property
    def macs(self) -> int:
        """Of the three; the first sees the input at its full size."""
        return sum(each.macs for each in self.layers)

    @property
    def map_words(self) -> int:
        """Elements of feature maps that are read and written, each once for each of the three."""
        return sum(map_words(each) for each in self.layers)

    @property
    def map_words_fused(self) -> int:
        """The same where what lies between the three never leaves the chip."""
        return map_words(self.layer)

    @property
    def layers(self) -> tuple[Layer, Layer, Layer]:
        """The three layers."""
        return _chain(self.layer, self.ranks)


def map_words(layer: Layer) -> int:
    """Elements of feature maps that a layer reads and writes, each once."""
    shape = layer.shape
    read = shape[Dim.G] * shape[Dim.C] * shape.size[0] * shape.size[1]
    channels, height, width = layer.output
    return read + channels * height * width


def factorable(layer: Layer) -> bool:
    """Whether three convolutions can stand for a layer: a dense one of kernels above 1x1."""
    return (
        layer.kind is LayerKind.CONV
        and layer.shape[Dim.G] == 1
        and layer.shape[Dim.R] * layer.shape[Dim.S] > 1
        and layer.mask.nonzeros == layer.mask.total
    )


def with_ranks(network: Network, ranks: Mapping[str, Ranks | int]) -> Network:
    """Put three convolutions of low rank in place of some.

    Parameters
    ----------
    network : Network
    ranks : mapping
        By layer, R1 and R2, or one number for both.

    Returns
    -------
    Network
        Named ``network_tucker2``. The last of three has the name, norm, bias and activation
        function of the layer; nothing stands between them.

    Raises
    ------
    InputErrors
        If there is no such layer, three can't stand for it, or a rank is out of its range.

    Examples
    --------
    >>> from energysim.catalog import load_network
    >>> low = with_ranks(load_network("digits_cnn"), {"conv4": 8})
    >>> [(layer.name, layer.weights) for layer in low.layers if layer.name.startswith("conv4")]
    [('conv4.reduce', 256), ('conv4.core', 576), ('conv4', 256)]
    """
    problems: list[str] = []
    chains: dict[str, tuple[Layer, ...]] = {}
    taken = {layer.name for layer in network.layers}
    for name, given in ranks.items():
        try:
            chain = _chain_of(network, name, (given, given) if isinstance(given, int) else given)
        except InputError as error:
            problems.append(f"{network.name}: {error}")
            continue
        chains[name] = chain
        problems += [
            f"{network.name}: there is a layer named {each.name} already"
            for each in chain[:-1]
            if each.name in taken
        ]
    if problems:
        raise InputErrors(problems)
    layers = [each for layer in network.layers for each in chains.get(layer.name, (layer,))]
    numbered = (
        # a dense layer draws nothing: it has the seed of its place, as when read from a file
        replace(layer, seed=place) if layer.pattern == "dense" else layer
        for place, layer in enumerate(layers)
    )
    return replace(network, name=f"{network.name}_tucker2", layers=tuple(numbered))


def _chain_of(network: Network, name: str, ranks: Ranks) -> tuple[Layer, ...]:
    """Three layers for one of a network.

    Raises
    ------
    InputError
        If there is none of that name, or three can't stand for it.
    """
    layer = network.layer(name)
    if not factorable(layer):
        raise InputError(
            f"{name} can't have ranks: only convolutions of kernels above 1x1 can, without groups"
            " and zeros"
        )
    _check_ranks(ranks, layer.shape[Dim.C], layer.shape[Dim.K], name)
    return _chain(layer, ranks)


def _check_ranks(ranks: Ranks, channels: int, filters: int, what: str) -> None:
    """Refuse ranks that a kernel can't have.

    Raises
    ------
    InputError
    """
    for word, rank, most in (("R1", ranks[0], channels), ("R2", ranks[1], filters)):
        if not 1 <= rank <= most:
            raise InputError(f"{word} of {what} is from 1 to {most}, its channels, got {rank}")


def _chain(layer: Layer, ranks: Ranks) -> tuple[Layer, Layer, Layer]:
    shape = layer.shape
    first, second = ranks
    height, width = shape.size
    rows, columns = shape[Dim.P], shape[Dim.Q]
    plain = replace(
        layer, bias=False, batch_norm=False, activation=Activation.NONE, volume=None, picked=None,
        channels=None,
    )  # fmt: skip
    reduce = replace(
        plain,
        name=f"{layer.name}.{REDUCE}",
        shape=Shape((1, 1, first, shape[Dim.C], height, width, 1, 1), size=(height, width)),
        channels=layer.channels,
        picked=layer.picked,
    )
    core = replace(
        plain,
        name=f"{layer.name}.{CORE}",
        shape=replace(shape, dims=(1, 1, second, first, *shape.dims[4:])),
        inputs=(reduce.name,),
    )
    expand = replace(
        layer,
        shape=Shape((1, 1, shape[Dim.K], second, rows, columns, 1, 1), size=(rows, columns)),
        inputs=(core.name,),
        channels=None,
        picked=None,
    )
    return reduce, core, expand
