"""How sparse weights are stored and what that does to traffic and arithmetic."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from energysim.axes import Dim, Shape, Tensor
from energysim.sparsity import Mask, cheapest

ONCE_PER_LAYER = frozenset({"periodic"})
"""Formats whose metadata is one table a layer: loaded once, not with every tile."""


@dataclass(frozen=True, slots=True)
class WeightStore:
    """The weights of one layer in the format they are stored in."""

    mask: Mask
    format: str
    """name of the storage format"""
    elements: int
    """weights, zeros included"""
    values_bits: int
    """of the stored values [bit]"""
    metadata_bits: int
    """of the stored indices, bitmaps or tables [bit]"""

    @classmethod
    def of(cls, mask: Mask, bits: int, formats: Iterable[str]) -> WeightStore:
        """The smallest of the allowed formats; the first of equals.

        Parameters
        ----------
        mask : Mask
        bits : int
            Width of a weight [bit].
        formats : iterable of str
            Names of :data:`energysim.sparsity.FORMATS`; a format that cannot hold the mask is
            passed over.
        """
        name, stored = cheapest(mask, bits, formats)
        return cls(mask, name, mask.total, stored.values, stored.metadata)

    @property
    def total_bits(self) -> int:
        """Values and metadata [bit]."""
        return self.values_bits + self.metadata_bits

    @property
    def once_bits(self) -> int:
        """Metadata that is loaded once for the whole layer [bit]."""
        return self.metadata_bits if self.format in ONCE_PER_LAYER else 0

    @property
    def bits_per_weight(self) -> float:
        """Stored bits that move with every weight, zeros included [bit].

        All weights of a layer cross a boundary equally often, so traffic is this times the dense
        count, exactly.
        """
        return (self.total_bits - self.once_bits) / self.elements

    @property
    def stored(self) -> int:
        """Weights that are stored: all of them in the dense format, else those that may be live."""
        return self.elements if self.format == "dense" else self.mask.nonzeros

    def tile_bits(self, shape: Shape, k_tile: int, c_tile: int, kernel: int) -> int:
        """Room that the fullest tile of one group needs [bit].

        Parameters
        ----------
        shape : Shape
        k_tile, c_tile : int
            Filters and channels of the tile.
        kernel : int
            Taps of the tile; fewer than the whole kernel are taken as all live.
        """
        dense = k_tile * c_tile * kernel
        if self.format == "dense":
            return dense * self.values_bits // self.elements
        live = min(dense, self.mask.max_tile_nonzeros(k_tile, c_tile))
        values = live * (self.values_bits // self.mask.nonzeros)
        if self.format in ONCE_PER_LAYER:
            return values + self.metadata_bits
        return values + -(-dense * self.metadata_bits // shape.elements(Tensor.WEIGHT))


def whole_kernel(shape: Shape) -> int:
    """Taps of the 2D kernel."""
    return shape[Dim.R] * shape[Dim.S]
