"""How sparse weights are stored and what that does to traffic and arithmetic."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from energysim.sparsity import FORMATS, RUN_BITS, Mask, block_entries, cheapest

Ints = npt.NDArray[np.int64]

ONCE_PER_LAYER = frozenset(name for name, each in FORMATS.items() if each.once)
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
    weight_bits: int
    """width of one weight [bit]"""
    run_bits: int = RUN_BITS
    """width of a run of zeros, for ``rle`` [bit]"""
    outputs: tuple[int, int] = (1, 1)
    """live and all elements of the output that they are multiplied for: a mask may lie on it"""

    @property
    def live_outputs(self) -> float:
        """Share of the outputs that are computed and moved.

        Traffic is this times the dense count: exact where every output crosses a boundary equally
        often, as bits per weight are.
        """
        return self.outputs[0] / self.outputs[1]

    @classmethod
    def of(
        cls, mask: Mask, bits: int, formats: Iterable[str], *, run_bits: int = RUN_BITS
    ) -> WeightStore:
        """The smallest of the allowed formats; the first of equals.

        Parameters
        ----------
        mask : Mask
        bits : int
            Width of a weight [bit].
        formats : iterable of str
            Names of :data:`energysim.sparsity.FORMATS`; a format that cannot hold the mask is
            passed over.
        run_bits : int
            Width of a run of zeros, for ``rle`` [bit].

        Raises
        ------
        InputError
            If a name is unknown, none of them can hold the mask, or a run has no width.
        """
        name, stored = cheapest(mask, bits, formats, run_bits=run_bits)
        return cls(mask, name, mask.total, stored.values, stored.metadata, bits, run_bits)

    @property
    def total_bits(self) -> int:
        """Values and metadata [bit]."""
        return self.values_bits + self.metadata_bits

    @property
    def least_bits(self) -> int:
        """No fewer move, however the weights are cut into tiles that are coded each by itself."""
        if self.format in ("csr", "cp", "rle"):
            return self.mask.nonzeros * self.weight_bits
        return self.total_bits

    @property
    def once_bits(self) -> int:
        """Metadata that is loaded once for the whole layer [bit]."""
        return self.metadata_bits if self.format in ONCE_PER_LAYER else 0

    @property
    def bits_per_weight(self) -> float:
        """Stored bits that move with every weight, zeros included [bit].

        What the mapping search takes for every weight. The mapping found is counted tile by tile
        where tiles are coded (:func:`energysim.model.coded.coded_bits`).
        """
        return (self.total_bits - self.once_bits) / self.elements

    @property
    def stored(self) -> int:
        """Weights that are stored: those that may be live, and zeros where the format has some."""
        return self.values_bits // self.weight_bits

    def stored_elements(self, dense_count: int) -> int:
        """Stored weights among a dense count of moved ones, to the nearest."""
        return (2 * dense_count * self.stored + self.elements) // (2 * self.elements)

    def tile_bits(self, k_tiles: Ints, c_tiles: Ints, kernel: int) -> Ints:
        """Room that the fullest tile of one group needs at most, for all pairs of tile sizes.

        What one tile takes exactly, wherever it lies, says
        :func:`energysim.sparsity.tile_bits`.

        Parameters
        ----------
        k_tiles, c_tiles : int array, shapes (A,) and (B,)
            Filters and channels of the tile.
        kernel : int
            Taps of the tile; fewer than the whole kernel are taken as all live.

        Returns
        -------
        int array, shape (A, B)
            [bit]
        """
        dense: Ints = np.multiply.outer(k_tiles, c_tiles) * kernel
        if self.format == "dense":
            plain: Ints = dense * self.weight_bits
            return plain
        if self.format == "nm":
            return self._block_bits(k_tiles, c_tiles, kernel)
        live = np.minimum(dense, self.mask.max_tile_nonzeros(k_tiles, c_tiles))
        if self.format == "rle":  # 2**run_bits zeros are stored as one at the soonest
            pairs: Ints = live + ((dense - live) >> self.run_bits)
            coded: Ints = pairs * (self.weight_bits + self.run_bits)
            return coded
        return live * self.weight_bits + self._metadata(live, dense, k_tiles, c_tiles * kernel)

    def _metadata(self, live: Ints, dense: Ints, rows: Ints, columns: Ints) -> Ints:
        """Bits that say at most where so many live weights of one group stand."""
        if self.format == "bitmap":
            return dense
        if self.format == "cp":  # indices inside a tile are no wider than those of the layer
            return live * sum((each - 1).bit_length() for each in self.mask.dims)
        if self.format == "csr":  # nor are the starts of the rows, one for each filter
            widths = [(count - 1).bit_length() for count in columns.tolist()]
            starts: Ints = (rows + 1) * self.mask.nonzeros.bit_length()
            return live * np.array(widths, dtype=np.int64) + starts[:, None]
        return np.full_like(live, self.metadata_bits)  # a table, once a layer

    def _block_bits(self, k_tiles: Ints, c_tiles: Ints, kernel: int) -> Ints:
        """Room for the fullest tile of an N:M mask: a tile that cuts a block holds part of it."""
        blocks = self.mask.pattern.blocks
        assert blocks is not None  # or the format couldn't hold the mask
        channels = self.mask.dims[2]
        fullest = [
            max(
                block_entries(blocks, first, min(first + tile, channels))
                for first in range(0, channels, tile)
            )
            for tile in map(int, c_tiles)
        ]
        entries = np.multiply.outer(k_tiles, np.array(fullest, dtype=np.int64)) * kernel
        bits: Ints = entries * (self.weight_bits + (blocks[1] - 1).bit_length())
        return bits
