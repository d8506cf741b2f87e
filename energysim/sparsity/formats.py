"""Storage formats of weights: exact bits of a whole layer and of any tile of it.

A weight tensor or a tile is a sequence in the order of ``[G, K, C, R, S]``, seen as a matrix with
one row for each filter of each group. Its size, and how many values are stored, are known to
whoever decodes it (they are in the descriptor of the tile), so neither costs bits. Indices are
those inside the tile and so as wide as the tile asks for.

References
----------
Y.-H. Chen, T. Krishna, J. Emer, V. Sze, "Eyeriss", IEEE JSSC 52(1), 2017: run-length compression.
Y. N. Wu, P.-A. Tsai, A. Parashar, V. Sze, J. S. Emer, "Sparseloop", MICRO 2022 (arXiv 2205.05826),
section 3: bitmask, run length and coordinate payload as formats of one rank.
A. Mishra et al., "Accelerating Sparse Deep Neural Networks", 2021 (arXiv 2104.08378): N:M.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING

from energysim.errors import InputError, did_you_mean
from energysim.sparsity.masks import WEIGHT_DIMS, Mask, block_entries

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Ints = npt.NDArray[np.int64]

RUN_BITS = 5
"""Width of a run of zeros unless told otherwise, as in Eyeriss [bit]."""

MOST_RUN_BITS = 32
"""Widest field of a run [bit]."""

CHUNK = 1 << 22
"""Weights of tiles that are looked at together."""


@dataclass(frozen=True, slots=True)
class StoredBits:
    """Size of the weights of one layer in one storage format."""

    values: int
    """bits of the weights that are stored"""
    metadata: int
    """bits that say where they stand"""

    @property
    def total(self) -> int:
        """All bits."""
        return self.values + self.metadata


@dataclass(frozen=True, slots=True)
class Tiles:
    """Some tiles of a weight tensor: ranges along G, K, C, R and S."""

    starts: Ints
    """first index along each dim, shape (T, 5)"""
    stops: Ints
    """index after the last, shape (T, 5)"""

    @classmethod
    def of(cls, mask: Mask, ranges: Iterable[Sequence[tuple[int, int]]]) -> Tiles:
        """Tiles by their ranges.

        Parameters
        ----------
        mask : Mask
            That they are tiles of.
        ranges : iterable of 5 (start, stop)
            Along G, K, C, R and S.

        Raises
        ------
        InputError
            If a tile is empty or reaches beyond the tensor.
        """
        import numpy as np

        both = np.asarray([list(each) for each in ranges], dtype=np.int64)
        both = both.reshape(-1, WEIGHT_DIMS, 2)
        starts, stops = both[..., 0].copy(), both[..., 1].copy()
        wrong = ((starts < 0) | (starts >= stops) | (stops > np.asarray(mask.dims))).any(axis=1)
        if wrong.any():
            index = int(np.flatnonzero(wrong)[0])
            raise InputError(
                f"tile {index} is empty or reaches beyond the weights {list(mask.dims)}:"
                f" {list(map(tuple, both[index].tolist()))}"
            )
        return cls(starts, stops)

    @classmethod
    def grid(cls, mask: Mask, sizes: Sequence[int]) -> Tiles:
        """All tiles of one size: they start at multiples of it, and the last ones may be smaller.

        Parameters
        ----------
        mask : Mask
            That they are tiles of.
        sizes : 5 int
            Extents along G, K, C, R and S; what is larger than the tensor is cut to it.

        Raises
        ------
        InputError
            If a size is less than 1.
        """
        import numpy as np

        if len(sizes) != WEIGHT_DIMS or min(sizes) < 1:
            raise InputError(f"a tile has 5 extents (G, K, C, R, S) of 1 or more, got {sizes}")
        edges = [np.arange(0, extent, size) for extent, size in zip(mask.dims, sizes, strict=True)]
        grid = np.meshgrid(*edges, indexing="ij")
        starts = np.stack([each.ravel() for each in grid], axis=1).astype(np.int64)
        return cls(starts, np.minimum(starts + np.asarray(sizes), mask.dims))

    @property
    def extents(self) -> Ints:
        """Size of each tile along each dim, shape (T, 5)."""
        return self.stops - self.starts

    @property
    def elements(self) -> Ints:
        """Weights of each tile, zeros included, shape (T,)."""
        elements: Ints = self.extents.prod(axis=1)
        return elements

    def __len__(self) -> int:
        return len(self.starts)


@dataclass(frozen=True, slots=True)
class TileBits:
    """Size of each of some tiles in one storage format."""

    values: Ints
    """bits of the weights that are stored, shape (T,)"""
    metadata: Ints
    """bits that say where they stand, shape (T,); what a layer has once is in no tile"""

    @property
    def total(self) -> Ints:
        """All bits of each tile, shape (T,)."""
        return self.values + self.metadata


@dataclass(frozen=True, slots=True)
class Format:
    """A way to store sparse weights."""

    name: str
    """as users write it"""
    whole: Callable[[Mask, int, int], StoredBits]
    """mask, bits of one weight and of a run to the stored bits of the layer"""
    tiles: Callable[[Mask, Tiles, int, int], TileBits]
    """the same for tiles"""
    holds: Callable[[Mask], bool] = lambda _mask: True
    """whether it can hold a mask"""
    once: bool = False
    """its metadata is one table a layer, loaded once and not with every tile"""

    def __call__(self, mask: Mask, bits: int, *, run_bits: int = RUN_BITS) -> StoredBits:
        """Bits of a whole layer.

        Parameters
        ----------
        mask : Mask
        bits : int
            Width of one weight [bit].
        run_bits : int
            Width of a run of zeros, for ``rle`` [bit].

        Raises
        ------
        InputError
            If the format can't hold the mask.
        """
        return self.whole(mask, bits, run_bits)


def _index_bits(count: int) -> int:
    """ceil(log2(count)): bits that tell ``count`` things apart."""
    return (count - 1).bit_length()


def _index_widths(counts: Ints) -> Ints:
    """ceil(log2(count)) of each of many counts of 1 or more."""
    import numpy as np

    # frexp gives the bit length of count - 1 exactly, as a float of 53 bits holds every count.
    return np.frexp((counts - 1).astype(np.float64))[1].astype(np.int64)


# -- whole layers ---------------------------------------------------------------------------------


def dense_bits(mask: Mask, bits: int) -> StoredBits:
    """Store every weight, zeros included."""
    return StoredBits(bits * mask.total, 0)


def csr_bits(mask: Mask, bits: int) -> StoredBits:
    """Store compressed sparse rows, one row per filter.

    With N live weights in a matrix of G*K rows and C*R*S columns: N column indices of
    ceil(log2(C*R*S)) bits and G*K + 1 row starts of ceil(log2(N + 1)) bits.
    """
    groups, filters, channels, height, width = mask.dims
    live = mask.nonzeros
    columns = live * _index_bits(channels * height * width)
    starts = (groups * filters + 1) * _index_bits(live + 1)
    return StoredBits(bits * live, columns + starts)


def bitmap_bits(mask: Mask, bits: int) -> StoredBits:
    """Store the live weights and one bit for every weight."""
    return StoredBits(bits * mask.nonzeros, mask.total)


def cp_bits(mask: Mask, bits: int) -> StoredBits:
    """Store the live weights and the coordinates of each (COO; Sparseloop's coordinate payload).

    With N live weights: N times the sum of ceil(log2) of the extents G, K, C, R and S.
    """
    return StoredBits(bits * mask.nonzeros, sum(map(_index_bits, mask.dims)) * mask.nonzeros)


def periodic_bits(mask: Mask, bits: int) -> StoredBits:
    """Store the live weights and one table of supports for the layer.

    The slot of a kernel follows from its position, so the table of P * R * S bits is all it takes.
    """
    _refuse_aperiodic(mask)
    _, _, _, height, width = mask.dims
    return StoredBits(bits * mask.nonzeros, mask.pattern.period * height * width)


def rle_bits(mask: Mask, bits: int, run_bits: int = RUN_BITS) -> StoredBits:
    """Store pairs of a run of zeros and the value that follows it, as Eyeriss does.

    A run of up to ``2**run_bits - 1`` zeros fits its field. A longer one takes pairs of a full run
    and a zero value first, each worth ``2**run_bits`` zeros. Zeros at the end of the sequence are
    not stored: the decoder knows where the code ends and how many weights there are, and fills up.
    So it is in Eyeriss, where a bit marks the last of the 64-bit words that hold three pairs each;
    here pairs aren't packed, and that bit and the bits left over in the last word aren't charged.
    """
    _refuse_run_bits(run_bits)
    pairs = _pairs_of_slots(mask, run_bits) if mask.periodic else None
    if pairs is None:
        both = tile_bits("rle", mask, Tiles.grid(mask, mask.dims), bits, run_bits=run_bits)
        return StoredBits(int(both.values[0]), int(both.metadata[0]))
    return StoredBits(bits * pairs, run_bits * pairs)


def nm_bits(mask: Mask, bits: int) -> StoredBits:
    """Store the N values of every M neighbouring input channels with their places in the block.

    Each value has an index of ceil(log2(M)) bits. A block always holds N values, zeros among them
    where fewer are live, so nothing says how many there are; a last block of fewer channels holds
    at most one for each.
    """
    live, block = _blocks_of(mask)
    groups, filters, channels, height, width = mask.dims
    stored = groups * filters * height * width * block_entries((live, block), 0, channels)
    return StoredBits(bits * stored, _index_bits(block) * stored)


def _refuse_aperiodic(mask: Mask) -> None:
    if not mask.periodic:
        kind = "random" if mask.pattern.seeded else "irregular"
        raise InputError(
            f"format periodic needs a pattern with a period; {mask.pattern.name} is {kind}."
            " Try csr or bitmap"
        )


def _refuse_run_bits(run_bits: int) -> None:
    if not 1 <= run_bits <= MOST_RUN_BITS:
        raise InputError(f"a run of zeros has 1 to {MOST_RUN_BITS} bits, got {run_bits}")


def _blocks_of(mask: Mask) -> tuple[int, int]:
    if mask.pattern.blocks is None:
        raise InputError(
            f"format nm needs an N:M pattern; {mask.pattern.name} is none. Try csr or bitmap"
        )
    return mask.pattern.blocks


@dataclass(frozen=True, slots=True)
class _Run:
    """What a stretch of weights adds to a run-length code; stretches join in any grouping."""

    length: int
    pairs: int = 0
    """all that lie between its first and its last live weight, both counted"""
    lead: int = 0
    """zeros before the first live weight; all of them if none is live"""
    trail: int = 0
    """zeros after the last live weight"""

    def join(self, other: _Run, run_bits: int) -> _Run:
        length = self.length + other.length
        if not self.pairs:
            return _Run(length, other.pairs, self.length + other.lead, other.trail)
        if not other.pairs:
            return _Run(length, self.pairs, self.lead, self.trail + other.length)
        between = (self.trail + other.lead) >> run_bits
        return _Run(length, self.pairs + between + other.pairs, self.lead, other.trail)

    def times(self, count: int, run_bits: int) -> _Run:
        result, power = _Run(0), self
        while count:
            if count & 1:
                result = result.join(power, run_bits)
            power = power.join(power, run_bits)
            count >>= 1
        return result

    def all_pairs(self, run_bits: int) -> int:
        """Of a whole sequence, with those before its first live weight."""
        return (self.lead >> run_bits) + self.pairs if self.pairs else 0


def _pairs_of_slots(mask: Mask, run_bits: int) -> int:
    """Pairs of the run-length code of a periodic mask, from the stretches of its slots."""
    groups, filters, channels, height, width = mask.dims
    weight = _Run(1, 1)
    kernels = []
    for taps in mask.slots:
        kernel, at = _Run(0), 0
        for tap in taps:
            kernel = kernel.join(_Run(tap - at), run_bits).join(weight, run_bits)
            at = tap + 1
        kernels.append(kernel.join(_Run(height * width - at), run_bits))
    period = len(kernels)
    whole, rest = divmod(channels, period)
    rows = []
    for first in range(period):
        turn = [kernels[(first + step) % period] for step in range(period)]
        row = _joined(turn, run_bits).times(whole, run_bits)
        rows.append(row.join(_joined(turn[:rest], run_bits), run_bits))
    code = _Run(0)
    for group in range(groups):
        start = group * (filters + channels) + 1
        turn = [rows[(start + step) % period] for step in range(period)]
        whole_turns, rest = divmod(filters, period)
        code = code.join(_joined(turn, run_bits).times(whole_turns, run_bits), run_bits)
        code = code.join(_joined(turn[:rest], run_bits), run_bits)
    return code.all_pairs(run_bits)


def _joined(runs: Iterable[_Run], run_bits: int) -> _Run:
    result = _Run(0)
    for run in runs:
        result = result.join(run, run_bits)
    return result


# -- tiles ----------------------------------------------------------------------------------------


def tile_bits(
    name: str, mask: Mask, tiles: Tiles, bits: int, *, run_bits: int = RUN_BITS
) -> TileBits:
    """Exact bits of tiles that are stored one by one.

    Parameters
    ----------
    name : str
        Of the format.
    mask : Mask
        Of the layer.
    tiles : Tiles
        T tiles of it; :meth:`Tiles.grid` gives those of a mapping.
    bits : int
        Width of one weight [bit].
    run_bits : int
        Width of a run of zeros, for ``rle`` [bit].

    Returns
    -------
    TileBits
        Arrays of shape (T,) [bit]. The table of supports of ``periodic`` is in no tile: the layer
        loads it once, and :func:`periodic_bits` counts it.

    Raises
    ------
    InputError
        If there is no such format or it can't hold the mask.

    Notes
    -----
    A tile is coded as :func:`csr_bits` and its neighbours code a layer, with the extents of the
    tile in place of those of the layer. ``nm`` keeps to the blocks of the layer: the part of a
    block of M channels that lies in the tile holds min(N, its width) values, each with an index of
    ceil(log2(M)) bits.

    Examples
    --------
    >>> from energysim.axes import Shape
    >>> mask = Mask.of("PSD4_P8", Shape((1, 1, 64, 64, 32, 32, 3, 3), pad=(1, 1), size=(32, 32)))
    >>> tiles = Tiles.grid(mask, (1, 12, 64, 3, 3))
    >>> found = tile_bits("bitmap", mask, tiles, 8)
    >>> found.values.tolist(), found.metadata.tolist()
    ([28416, 28416, 28416, 28416, 28416, 9472], [6912, 6912, 6912, 6912, 6912, 2304])
    """
    return get_format(name).tiles(mask, tiles, bits, run_bits)


def tile_nonzeros(mask: Mask, tiles: Tiles) -> Ints:
    """Live weights of each tile, shape (T,)."""
    return _counted(mask, tiles, mask.live_in)


def _counted(
    mask: Mask,
    tiles: Tiles,
    count: Callable[[Ints, tuple[int, int, int, int, int]], Ints],
) -> Ints:
    """Count something in each tile; tiles that are alike are looked at once, those of one size
    together.
    """  # noqa: D205 - one sentence
    import numpy as np

    extents = tiles.extents
    starts = tiles.starts
    if mask.periodic:
        # What a tile holds depends on the slot of its first kernel alone, and on its taps.
        _, filters, channels, _, _ = mask.dims
        first = starts[:, 0] * (filters + channels) + starts[:, 1] + starts[:, 2]
        alike = np.column_stack([first % mask.pattern.period, starts[:, 3:], extents])
    else:
        alike = np.column_stack([starts, extents])
    _, chosen, place = np.unique(alike, axis=0, return_index=True, return_inverse=True)
    found = np.zeros(len(chosen), dtype=np.int64)
    sizes, size_of = np.unique(extents[chosen], axis=0, return_inverse=True)
    for index, size in enumerate(sizes.tolist()):
        members = np.flatnonzero(size_of.ravel() == index)
        step = max(1, CHUNK // prod(size))
        for at in range(0, len(members), step):
            some = members[at : at + step]
            g, k, c, r, s = size
            found[some] = count(starts[chosen[some]], (g, k, c, r, s))
    counted: Ints = found[place.ravel()]
    return counted


def _pairs(live: npt.NDArray[np.bool_], run_bits: int) -> npt.NDArray[np.int_]:
    """Pairs of the run-length code of each row, shape (T,)."""
    import numpy as np

    tile, at = np.nonzero(live)
    before = np.empty_like(at)  # place of the live weight before, -1 at the start of a tile
    before[:1] = -1
    before[1:] = np.where(tile[1:] == tile[:-1], at[:-1], -1)
    full = np.zeros(len(live), dtype=np.int64)
    np.add.at(full, tile, (at - before - 1) >> run_bits)
    pairs: npt.NDArray[np.int_] = live.sum(axis=1, dtype=int) + full
    return pairs


def _dense_tiles(mask: Mask, tiles: Tiles, bits: int, _run_bits: int) -> TileBits:  # noqa: ARG001
    import numpy as np

    return TileBits(bits * tiles.elements, np.zeros(len(tiles), dtype=np.int64))


def _csr_tiles(mask: Mask, tiles: Tiles, bits: int, _run_bits: int) -> TileBits:
    live = tile_nonzeros(mask, tiles)
    extents = tiles.extents
    columns = live * _index_widths(extents[:, 2:].prod(axis=1))
    starts = (extents[:, :2].prod(axis=1) + 1) * _index_widths(live + 1)
    return TileBits(bits * live, columns + starts)


def _bitmap_tiles(mask: Mask, tiles: Tiles, bits: int, _run_bits: int) -> TileBits:
    return TileBits(bits * tile_nonzeros(mask, tiles), tiles.elements)


def _cp_tiles(mask: Mask, tiles: Tiles, bits: int, _run_bits: int) -> TileBits:
    live = tile_nonzeros(mask, tiles)
    return TileBits(bits * live, live * _index_widths(tiles.extents).sum(axis=1))


def _periodic_tiles(mask: Mask, tiles: Tiles, bits: int, _run_bits: int) -> TileBits:
    import numpy as np

    _refuse_aperiodic(mask)
    live = tile_nonzeros(mask, tiles)
    return TileBits(bits * live, np.zeros_like(live))


def _rle_tiles(mask: Mask, tiles: Tiles, bits: int, run_bits: int) -> TileBits:
    _refuse_run_bits(run_bits)
    pairs = _counted(mask, tiles, lambda *tile: _pairs(mask.cut(*tile), run_bits))
    return TileBits(bits * pairs, run_bits * pairs)


def _nm_tiles(mask: Mask, tiles: Tiles, bits: int, _run_bits: int) -> TileBits:
    import numpy as np

    live, block = _blocks_of(mask)
    first, stop = tiles.starts[:, 2], tiles.stops[:, 2]
    lowest, end = first // block, -(-stop // block)
    # The blocks between the outermost two are whole; those two may be one and the same.
    head = np.minimum(live, np.minimum(stop, (lowest + 1) * block) - first)
    tail = np.where(end - lowest > 1, np.minimum(live, stop - (end - 1) * block), 0)
    along = head + tail + live * np.maximum(end - lowest - 2, 0)
    stored = along * np.delete(tiles.extents, 2, axis=1).prod(axis=1)
    return TileBits(bits * stored, _index_bits(block) * stored)


# -- by name --------------------------------------------------------------------------------------


def _plain(function: Callable[[Mask, int], StoredBits]) -> Callable[[Mask, int, int], StoredBits]:
    """Ignore the width of a run."""
    return lambda mask, bits, _run_bits: function(mask, bits)


FORMATS: dict[str, Format] = {
    each.name: each
    for each in (
        Format("dense", _plain(dense_bits), _dense_tiles),
        Format("csr", _plain(csr_bits), _csr_tiles),
        Format(
            "periodic",
            _plain(periodic_bits),
            _periodic_tiles,
            holds=lambda mask: mask.periodic,
            once=True,
        ),
        Format("bitmap", _plain(bitmap_bits), _bitmap_tiles),
        Format("rle", rle_bits, _rle_tiles),
        Format("cp", _plain(cp_bits), _cp_tiles),
        Format(
            "nm",
            _plain(nm_bits),
            _nm_tiles,
            holds=lambda mask: mask.pattern.blocks is not None,
        ),
    )
}
"""Storage formats by name; a hardware file lists those that its machine decodes."""


def all_formats() -> dict[str, Format]:
    """Every storage format by name."""
    return dict(FORMATS)


def get_format(name: str) -> Format:
    """Find a storage format by name.

    Raises
    ------
    InputError
        If there is no such format; names the nearest one.
    """
    if name not in FORMATS:
        raise InputError(
            f"no storage format named {name!r}.{did_you_mean(name, FORMATS)}"
            f" Known: {', '.join(FORMATS)}"
        )
    return FORMATS[name]


def cheapest(
    mask: Mask, bits: int, formats: Iterable[str], *, run_bits: int = RUN_BITS
) -> tuple[str, StoredBits]:
    """Choose the format that stores a layer in the fewest bits.

    Parameters
    ----------
    mask : Mask
        Of the layer.
    bits : int
        Of one weight.
    formats : iterable of str
        Names to choose from; the first one wins a tie. ``periodic`` is passed over where the mask
        has no period, and ``nm`` where it isn't N:M.
    run_bits : int
        Width of a run of zeros, for ``rle`` [bit].

    Returns
    -------
    (str, StoredBits)

    Raises
    ------
    InputError
        If a name is unknown or no format can hold the mask.

    Examples
    --------
    >>> from energysim.axes import Shape
    >>> shape = Shape((1, 1, 64, 64, 32, 32, 3, 3), pad=(1, 1), size=(32, 32))
    >>> cheapest(Mask.of("PSD4_P8", shape), 8, ["dense", "csr", "periodic"])
    ('periodic', StoredBits(values=151552, metadata=72))
    """
    names = tuple(formats)
    found = {name: get_format(name) for name in names}
    stored = {
        name: each(mask, bits, run_bits=run_bits)
        for name, each in found.items()
        if each.holds(mask)
    }
    if not stored:
        given = ", ".join(names) or "none"
        raise InputError(
            f"no given storage format ({given}) can hold a {mask.pattern.name} mask; add one of"
            " dense, csr, bitmap"
        )
    name = min(stored, key=lambda name: stored[name].total)
    return name, stored[name]
