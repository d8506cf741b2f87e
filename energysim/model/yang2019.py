"""A second energy model: a layer on a weight-sparse systolic array, in closed form.

It knows no mapping. Words are counted from the shape of a layer and the number of its live weights,
with one fixed way to run it: outputs stay in an array of m pixels by n filters, inputs and weights
each have a cache. So it is independent of the counting rule of this package, and a check on what
the rule finds that sparse weights save.

Energies are relative: 1 is one access to a register file, for one 16-bit word.

Where it differs from the counting rule: there is no choice of tiles, so weights beyond their small
cache come from DRAM again for every few pixels; an output moves once, as its partial sums never
leave the array; nothing stays on chip between layers; time and static power are left out.

References
----------
H. Yang, Y. Zhu, J. Liu, "Energy-Constrained Compression for Deep Neural Networks via Weighted
Sparse Projection and Layer Input Masking", ICLR 2019 (arXiv 1806.04321); formulas and constants as
in the authors' code, github.com/hyang1990/model_based_energy_constrained_compression,
sa_energy_model.py (9998038). Their code walks the rows that are read again one by one; here they
follow from a formula, and a layer whose input fits reads none.
"""

from __future__ import annotations

from dataclasses import dataclass

from energysim.axes import Dim, Shape, Tensor
from energysim.errors import DoesNotFitError


@dataclass(frozen=True, slots=True)
class Machine:
    """The array, its caches and what an access costs; by default as in the authors' code.

    They name Eyeriss as the origin of the array, the sizes and the prices.
    """

    pixels: int = 12
    """m, output pixels that the array works on at once"""
    filters: int = 14
    """n, filters that it works on at once"""
    input_words: int = 51_200
    """s1, room for inputs: 100 KiB [word]"""
    weight_words: int = 4_096
    """s2, room for weights: 8 KiB [word]"""
    word_bits: int = 16
    """of an input, output or weight [bit]"""
    dram: float = 200.0
    """e_mem, of a word to or from DRAM [register-file accesses]"""
    cache: float = 6.0
    """e_cache, of a word from a cache [register-file accesses]"""
    register: float = 1.0
    """e_rf, of a word from a register file"""
    mac: float = 3.0
    """e_mac, of a multiply-accumulate with the register traffic of its partial sum [register-file
    accesses]"""


@dataclass(frozen=True, slots=True)
class LayerEnergy:
    """Energy of one layer for one image [register-file accesses]."""

    dram_input: float
    """inputs from DRAM, rows that windows share read again where the cache is too small"""
    dram_output: float
    """outputs to DRAM, once"""
    dram_weight: float
    """live weights from DRAM; those beyond the cache once per group of pixels"""
    dram_index: float
    """what says where the live weights stand, from DRAM"""
    cache: float
    """inputs once per group of filters, weights once per group of pixels"""
    register: float
    """inputs once per filter, weights once per pixel"""
    compute: float
    """multiply-accumulates with live weights"""

    @property
    def dram(self) -> float:
        """All that crosses DRAM."""
        return self.dram_input + self.dram_output + self.dram_weight + self.dram_index

    @property
    def total(self) -> float:
        """All parts together."""
        return self.dram + self.cache + self.register + self.compute


def layer_energy(
    shape: Shape,
    weights: int,
    *,
    index_bits: int = 0,
    index_once: bool = True,
    machine: Machine | None = None,
) -> LayerEnergy:
    """Energy of a convolution or a linear layer for one image.

    Parameters
    ----------
    shape : Shape
        Of a layer with weights, N = 1. A linear layer is a 1x1 convolution of a 1x1 map.
    weights : int
        Nw, weights that are not zero.
    index_bits : int
        Metadata of the stored weights [bit]. The source has none; here they cross DRAM as words.
    index_once : bool
        Whether they cross once for the layer, as the table of a periodic pattern does; else with
        every weight, so again with a weight that is loaded again (CSR, bitmap).
    machine : Machine, optional
        Array, caches and energies; by default those of the source.

    Returns
    -------
    LayerEnergy
        In units of one register-file access.

    Raises
    ------
    DoesNotFitError
        If the input cache can't hold the rows that one window covers.
    ValueError
        If the shape has a batch, or there are more weights than the shape has.

    Notes
    -----
    With C input channels, K filters per group, X inputs, Y outputs of which A = P Q per channel,
    U live entries of the unfolded input (each input as often as a window covers it, padding left
    out), kernel height k (dilated), stride t, rows R = floor(s1 / (W C)) that the cache holds:

    - DRAM: e_mem (X + again), e_mem Y, and e_mem (min(Nw, s2) + ceil(A / m) max(0, Nw - s2)), with
      again = max(0, k - t) W C (ceil(H / (R - k + t)) - 1) where R < H, else 0;
    - cache: e_cache (U ceil(K / n) + ceil(A / m) Nw);
    - register files: e_rf (U K + A Nw);
    - compute: e_mac A Nw, so also where a window lies on padding.

    A linear layer differs in again = (ceil(K / n) - 1) max(0, X - s1): what does not fit is read
    again for every group of filters.

    Examples
    --------
    >>> conv = Shape((1, 1, 64, 64, 32, 32, 3, 3), pad=(1, 1), size=(32, 32))
    >>> dense, sparse = (layer_energy(conv, taps * 64 * 64) for taps in (9, 4))
    >>> round(sparse.total / dense.total, 3)
    0.452
    """
    if shape[Dim.N] != 1:
        raise ValueError(f"the model is for one image, got a batch of {shape[Dim.N]}")
    total = shape.elements(Tensor.WEIGHT)
    if not 0 <= weights <= total:
        raise ValueError(f"of {total} weights, {weights} can't be live")
    on = machine or Machine()
    inputs, outputs = shape.elements(Tensor.INPUT), shape.elements(Tensor.OUTPUT)
    pixels = shape[Dim.P] * shape[Dim.Q]
    filters = shape[Dim.K]
    pixel_groups, filter_groups = -(-pixels // on.pixels), -(-filters // on.filters)
    unfolded = shape[Dim.G] * shape[Dim.C] * _live(shape, 0) * _live(shape, 1)
    loaded = min(weights, on.weight_words) + pixel_groups * max(0, weights - on.weight_words)
    index_words = index_bits / on.word_bits
    if not index_once and weights:
        index_words *= loaded / weights
    return LayerEnergy(
        dram_input=on.dram * (inputs + _read_again(shape, on, filter_groups)),
        dram_output=on.dram * outputs,
        dram_weight=on.dram * loaded,
        dram_index=on.dram * index_words,
        cache=on.cache * (unfolded * filter_groups + pixel_groups * weights),
        register=on.register * (unfolded * filters + pixels * weights),
        compute=on.mac * pixels * weights,
    )


def _live(shape: Shape, axis: int) -> int:
    """Pairs of output position and tap along one axis that do not lie on padding."""
    count, taps = ((shape[Dim.P], shape[Dim.R]), (shape[Dim.Q], shape[Dim.S]))[axis]
    stride, dilation, before = shape.stride[axis], shape.dilation[axis], shape.pad[axis]
    return sum(
        0 <= position * stride + tap * dilation - before < shape.size[axis]
        for position in range(count)
        for tap in range(taps)
    )


def _read_again(shape: Shape, machine: Machine, filter_groups: int) -> int:
    """Words of the input that cross DRAM a second time and more."""
    height, width = shape.size
    if (height, width) == (1, 1):
        inputs = shape.elements(Tensor.INPUT)
        return (filter_groups - 1) * max(0, inputs - machine.input_words)
    row_words = width * shape[Dim.G] * shape[Dim.C]
    rows = machine.input_words // row_words
    span = (shape[Dim.R] - 1) * shape.dilation[0] + 1
    if rows < min(span, height):
        raise DoesNotFitError(
            f"the input cache of {machine.input_words} words holds {rows} rows of {row_words}"
            f" words; a window covers {min(span, height)}"
        )
    if rows >= height:
        return 0
    shared = max(0, span - shape.stride[0])
    return shared * row_words * (-(-height // (rows - span + shape.stride[0])) - 1)
