"""Pre-defined sparse kernels: patterns, exact masks, storage formats.

``patterns`` says which weights may differ from zero, ``masks`` lays that over one layer, and
``formats`` counts the bits that storing it takes. Names and tables are plain Python; NumPy is
imported only where a mask is written out as an array.
"""

from energysim.sparsity.formats import (
    FORMATS,
    RUN_BITS,
    Format,
    StoredBits,
    TileBits,
    Tiles,
    all_formats,
    bitmap_bits,
    cheapest,
    cp_bits,
    csr_bits,
    dense_bits,
    get_format,
    nm_bits,
    periodic_bits,
    rle_bits,
    tile_bits,
    tile_nonzeros,
)
from energysim.sparsity.maskfile import Head, MaskFile
from energysim.sparsity.masks import Mask, block_entries, mask_misfit
from energysim.sparsity.patterns import (
    ALIASES,
    ALL_TAPS,
    CORNERS,
    PAIRS,
    PATTERNS,
    SIDE,
    SINGLES,
    Coverage,
    Pattern,
    Taps,
    coverage,
    get_pattern,
    problems_of,
)

__all__ = [
    "ALIASES",
    "ALL_TAPS",
    "CORNERS",
    "FORMATS",
    "PAIRS",
    "PATTERNS",
    "RUN_BITS",
    "SIDE",
    "SINGLES",
    "Coverage",
    "Format",
    "Head",
    "Mask",
    "MaskFile",
    "Pattern",
    "StoredBits",
    "Taps",
    "TileBits",
    "Tiles",
    "all_formats",
    "bitmap_bits",
    "block_entries",
    "cheapest",
    "coverage",
    "cp_bits",
    "csr_bits",
    "dense_bits",
    "get_format",
    "get_pattern",
    "mask_misfit",
    "nm_bits",
    "periodic_bits",
    "problems_of",
    "rle_bits",
    "tile_bits",
    "tile_nonzeros",
]
