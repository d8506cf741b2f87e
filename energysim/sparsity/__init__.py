"""Pre-defined sparse kernels: patterns, exact masks, storage formats.

``patterns`` says which weights may differ from zero, ``masks`` lays that over one layer, and
``formats`` counts the bits that storing it takes. ``activity`` does so for activations, of which
only a density is known. Names and tables are plain Python; NumPy is
imported only where a mask is written out as an array.
"""

from energysim.sparsity.activity import (
    CODE_WORD_BITS,
    DENSE,
    Activity,
    Coded,
    entries_per_element,
    run_length_coded,
)
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
    "CODE_WORD_BITS",
    "CORNERS",
    "DENSE",
    "FORMATS",
    "PAIRS",
    "PATTERNS",
    "RUN_BITS",
    "SIDE",
    "SINGLES",
    "Activity",
    "Coded",
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
    "entries_per_element",
    "get_format",
    "get_pattern",
    "mask_misfit",
    "nm_bits",
    "periodic_bits",
    "problems_of",
    "rle_bits",
    "run_length_coded",
    "tile_bits",
    "tile_nonzeros",
]
