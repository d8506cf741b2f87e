"""Pre-defined sparse kernels: the patterns by name, the exact mask of one layer, storage formats.

A pattern fixes before training which taps of every 2D kernel may differ from zero. Names and tables
are plain Python; NumPy is imported only where a mask is written out as an array.

References
----------
S. Kundu, M. Nazemi, M. Pedram, K. M. Chugg, P. A. Beerel, "Pre-Defined Sparsity for Low-Complexity
Convolutional Neural Networks", IEEE Trans. Computers 69(7), 2020 (arXiv 2001.10710); supports and
slot rule as in the authors' code, github.com/ksouvik52/Pre-defined-sparseCNN (f41b11c).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

from energysim.axes import Dim, Shape
from energysim.errors import InputError, did_you_mean

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

Taps = tuple[int, ...]
"""Live taps of one 3x3 kernel, numbered 0..8 row-major."""

SIDE = 3
"""Height and width of the kernels that sparse patterns are defined for."""

ALL_TAPS: Taps = tuple(range(SIDE * SIDE))
"""The support of a fully dense kernel."""

CORNERS: tuple[Taps, ...] = ((0, 1, 3, 4), (1, 2, 4, 5), (3, 4, 6, 7), (4, 5, 7, 8))
"""KSS 4: the four 2x2 corners, in the order of the authors' code."""

PAIRS: tuple[Taps, ...] = ((0, 1), (1, 2), (3, 4), (4, 5), (6, 7), (7, 8))
"""KSS 2: the six horizontally adjacent pairs, in the order of the authors' code."""

SINGLES: tuple[Taps, ...] = tuple((tap,) for tap in ALL_TAPS)
"""KSS 1: the nine single taps (assumed order: row-major; the authors' code has no KSS 1)."""


@dataclass(frozen=True, slots=True)
class Pattern:
    """Which taps of the 2D kernels of a layer are live.

    The kernel of filter k and input channel c stands in slot ``s = (k + c + 1) mod P``, with k and
    c counted over the layer's full channels (all groups). The kernel variants cycle over the slots
    1, 2, 3 ...: slot s takes variant ``(s - 1) mod KV``. Slot 0 is the end of that cycle: it holds
    the fully dense kernel where the pattern has one, else variant ``(P - 1) mod KV``. A random
    pattern has no slots: every 2D kernel draws its own support.
    """

    name: str
    """as the papers write it: ``PSD4_P8`` is KSS 4 with one dense kernel in every 8"""
    kss: int
    """kernel support size: live taps of a sparse kernel"""
    supports: tuple[Taps, ...]
    """the kernel variants; empty for a random pattern"""
    period: int = 1
    """P, number of slots"""
    fdk: bool = False
    """slot 0 is a fully dense kernel"""
    random: bool = False
    """a seeded random support for each 2D kernel"""

    @property
    def dense(self) -> bool:
        """Whether no weight is fixed at zero; only this pattern fits kernels other than 3x3."""
        return self.kss == len(ALL_TAPS)

    @property
    def slots(self) -> tuple[Taps, ...]:
        """Support of every slot, slot 0 first; empty for a random pattern.

        Examples
        --------
        >>> PATTERNS["PS4_P4"].slots[1]
        (0, 1, 3, 4)
        >>> PATTERNS["PSD4_P8"].slots[0] == ALL_TAPS
        True
        """
        if self.random:
            return ()
        variants = len(self.supports)
        last = ALL_TAPS if self.fdk else self.supports[(self.period - 1) % variants]
        return (last, *(self.supports[(slot - 1) % variants] for slot in range(1, self.period)))

    @property
    def mean_kss(self) -> float:
        """Mean number of live taps of a kernel over one period.

        Examples
        --------
        >>> PATTERNS["PSD4_P8"].mean_kss
        4.625
        """
        if self.random:
            return float(self.kss)
        return sum(map(len, self.slots)) / self.period

    def fits(self, height: int, width: int) -> bool:
        """Whether the pattern is defined for kernels of this size."""
        return self.dense or (height, width) == (SIDE, SIDE)


def _periodic(name: str, supports: tuple[Taps, ...], period: int, *, fdk: bool) -> Pattern:
    return Pattern(name, len(supports[0]), supports, period, fdk)


PATTERNS: dict[str, Pattern] = {
    pattern.name: pattern
    for pattern in (
        Pattern("dense", len(ALL_TAPS), (ALL_TAPS,)),
        Pattern("pSC4", 4, (), random=True),
        Pattern("pSC2", 2, (), random=True),
        Pattern("pSC1", 1, (), random=True),
        _periodic("PS4_P4", CORNERS, 4, fdk=False),
        _periodic("PS2_P6", PAIRS, 6, fdk=False),
        _periodic("PS1_P9", SINGLES, 9, fdk=False),
        _periodic("PSD4_P8", CORNERS, 8, fdk=True),
        _periodic("PSD4_P16", CORNERS, 16, fdk=True),
        _periodic("PSD2_P8", PAIRS, 8, fdk=True),
        _periodic("PSD2_P16", PAIRS, 16, fdk=True),
        _periodic("PSD1_P8", SINGLES, 8, fdk=True),
        _periodic("PSD1_P16", SINGLES, 16, fdk=True),
    )
}
"""Every pattern by name."""

ALIASES: dict[str, str] = {"pSC9": "dense"}
"""Other names that the papers use."""


def get_pattern(name: str) -> Pattern:
    """Find a pattern by name, in any mixture of upper and lower case.

    Parameters
    ----------
    name : str
        A key of :data:`PATTERNS` or :data:`ALIASES`.

    Raises
    ------
    InputError
        If there is no such pattern; names the nearest one.

    Examples
    --------
    >>> get_pattern("psd4_p8").name
    'PSD4_P8'
    """
    known = {word.lower(): word for word in (*PATTERNS, *ALIASES)}
    word = known.get(name.lower())
    if word is None:
        near = did_you_mean(name.lower(), known)
        for lower, proper in known.items():
            near = near.replace(f"'{lower}'", f"'{proper}'")
        raise InputError(f"no pattern named {name!r}.{near} Known: {', '.join(PATTERNS)}")
    return PATTERNS[ALIASES.get(word, word)]


@dataclass(frozen=True, slots=True)
class Mask:
    """Which weights of one layer may differ from zero, exactly.

    Build it with :meth:`of`. Counts of periodic masks follow from the slot sizes in closed form;
    only :meth:`array` and :meth:`support_sizes` write anything out.
    """

    pattern: Pattern
    dims: tuple[int, int, int, int, int]
    """extents of the weight tensor ``[G, K, C, R, S]``"""
    seed: int = 0
    """of a random pattern"""

    @classmethod
    def of(cls, pattern: Pattern | str, shape: Shape, seed: int = 0) -> Mask:
        """Lay a pattern over the weights of a layer.

        Parameters
        ----------
        pattern : Pattern or str
            A pattern or its name.
        shape : Shape
            Geometry of a layer with weights.
        seed : int
            Of a random pattern; the same seed gives the same mask.

        Raises
        ------
        InputError
            If the pattern isn't defined for the layer's kernel size.

        Examples
        --------
        >>> shape = Shape((1, 1, 64, 64, 32, 32, 3, 3), pad=(1, 1), size=(32, 32))
        >>> Mask.of("PSD4_P8", shape).nonzeros
        18944
        """
        found = get_pattern(pattern) if isinstance(pattern, str) else pattern
        height, width = shape[Dim.R], shape[Dim.S]
        if not found.fits(height, width):
            raise InputError(
                f"pattern {found.name} is defined for {SIDE}x{SIDE} kernels, not {height}x{width}"
            )
        dims = (shape[Dim.G], shape[Dim.K], shape[Dim.C], height, width)
        return cls(found, dims, seed if found.random else 0)

    @property
    def periodic(self) -> bool:
        """Whether a table of one period describes the mask (a dense one has period 1)."""
        return not self.pattern.random

    @property
    def slot_sizes(self) -> tuple[int, ...]:
        """Live taps of the kernel in every slot, slot 0 first; one entry if all are equal."""
        if self.pattern.dense:
            return (self.dims[3] * self.dims[4],)
        if self.pattern.random:
            return (self.pattern.kss,)
        return tuple(map(len, self.pattern.slots))

    @property
    def total(self) -> int:
        """Weights, zeros included."""
        groups, filters, channels, height, width = self.dims
        return groups * filters * channels * height * width

    @property
    def nonzeros(self) -> int:
        """Weights that may differ from zero."""
        groups, filters, channels, _, _ = self.dims
        return _live_weights(self.slot_sizes, groups, filters, channels)

    @property
    def density(self) -> float:
        """Ratio of live weights to all weights."""
        return self.nonzeros / self.total

    def array(self) -> npt.NDArray[np.bool_]:
        """Write the mask out.

        Returns
        -------
        ndarray of bool, shape (G, K, C, R, S)
            True where the weight may differ from zero.
        """
        import numpy as np

        groups, filters, channels, height, width = self.dims
        kernels = (groups, filters, channels)
        taps = height * width
        if self.pattern.random:
            generator = np.random.Generator(np.random.PCG64(self.seed))
            # Sorting independent draws shuffles the taps, so each support is equally likely.
            shuffled = generator.random((*kernels, taps)).argsort(axis=-1, kind="stable")
            drawn: npt.NDArray[np.bool_] = (shuffled < self.pattern.kss).reshape(self.dims)
            return drawn
        if self.pattern.dense:
            return np.ones(self.dims, dtype=np.bool_)
        table = np.zeros((self.pattern.period, taps), dtype=np.bool_)
        for slot, live in enumerate(self.pattern.slots):
            table[slot, list(live)] = True
        mask: npt.NDArray[np.bool_] = table[self._slot_numbers()].reshape(self.dims)
        return mask

    def support_sizes(self) -> npt.NDArray[np.int64]:
        """Count the live taps of every 2D kernel.

        Returns
        -------
        ndarray of int, shape (G, K, C)
        """
        import numpy as np

        sizes = np.asarray(self.slot_sizes, dtype=np.int64)
        if len(sizes) == 1:
            return np.full(self.dims[:3], sizes[0], dtype=np.int64)
        counts: npt.NDArray[np.int64] = sizes[self._slot_numbers()]
        return counts

    def max_tile_nonzeros(
        self, k_tiles: npt.ArrayLike, c_tiles: npt.ArrayLike
    ) -> npt.NDArray[np.int64]:
        """Live weights of the fullest tile of whole kernels within one group.

        Parameters
        ----------
        k_tiles, c_tiles : int array, shapes (A,) and (B,)
            Filters and input channels of a tile. Tiles start at multiples of these; the last one
            may be smaller.

        Returns
        -------
        int array, shape (A, B)
            The largest count over all tiles of all groups: the room that a buffer needs.
        """
        import numpy as np

        k, c = np.atleast_1d(k_tiles), np.atleast_1d(c_tiles)
        return _fullest_tiles(self.slot_sizes, self.dims[:3], k, c)

    def _slot_numbers(self) -> npt.NDArray[np.int64]:
        """Slot of every 2D kernel, shape (G, K, C)."""
        import numpy as np

        groups, filters, channels, _, _ = self.dims
        k = np.arange(groups * filters, dtype=np.int64).reshape(groups, filters, 1)
        c = np.arange(groups * channels, dtype=np.int64).reshape(groups, 1, channels)
        numbers: npt.NDArray[np.int64] = (k + c + 1) % self.pattern.period
        return numbers


def _residues(extent: int, period: int) -> list[int]:
    """How many of the numbers 0 .. extent - 1 leave each remainder mod ``period``."""
    whole, rest = divmod(extent, period)
    return [whole + (residue < rest) for residue in range(period)]


@lru_cache(maxsize=4096)
def _tile_weights(sizes: tuple[int, ...], filters: int, channels: int) -> tuple[int, ...]:
    """Live weights of a filters x channels tile, for each slot that its first kernel may have."""
    period = len(sizes)
    by_k, by_c = _residues(filters, period), _residues(channels, period)
    # Only k + c matters, so count the kernels by distance from the slot of the first one.
    ahead = [
        sum(by_k[k] * by_c[(distance - k) % period] for k in range(period))
        for distance in range(period)
    ]
    return tuple(
        sum(count * sizes[(first + distance) % period] for distance, count in enumerate(ahead))
        for first in range(period)
    )


@lru_cache(maxsize=4096)
def _live_weights(sizes: tuple[int, ...], groups: int, filters: int, channels: int) -> int:
    """Live weights of a whole layer: one tile per group, each starting K + C slots further on."""
    period = len(sizes)
    weights = _tile_weights(sizes, filters, channels)
    return sum(
        count * weights[(group * (filters + channels) + 1) % period]
        for group, count in enumerate(_residues(groups, period))
    )


def _fullest_tiles(
    sizes: tuple[int, ...],
    dims: tuple[int, int, int],
    k_tiles: npt.NDArray[np.int64],
    c_tiles: npt.NDArray[np.int64],
) -> npt.NDArray[np.int64]:
    """Largest count of live weights over all tiles, for all pairs of tile sizes.

    Only the sum of a tile's offsets mod the period matters, so the whole tiles and the smaller last
    one of each dim are told apart by size and by the offsets that they start at.
    """
    import numpy as np

    groups, filters, channels = dims
    period = len(sizes)
    fullest = np.zeros((k_tiles.size, c_tiles.size), dtype=np.int64)
    if period == 1:
        whole = np.minimum(k_tiles, filters)[:, None] * np.minimum(c_tiles, channels)
        alike: npt.NDArray[np.int64] = fullest + whole * sizes[0]
        return alike
    corners = _corner_weights(sizes)
    mean = sum(sizes)
    by_group = {(group * (filters + channels) + 1) % period for group in range(min(groups, period))}
    for k_size, k_starts in _tile_classes(filters, k_tiles, period):
        for c_size, c_starts in _tile_classes(channels, c_tiles, period):
            k_rest, c_rest = k_size % period, c_size % period
            even = np.multiply.outer(k_size, c_size) - np.multiply.outer(k_rest, c_rest)
            for first in range(period):
                starts = np.zeros(fullest.shape, dtype=np.bool_)
                for at in range(period):
                    rows = np.zeros(k_tiles.size, dtype=np.bool_)
                    for offset in by_group:
                        rows |= k_starts[:, (first - at - offset) % period]
                    starts |= np.logical_and.outer(rows, c_starts[:, at])
                live = even // period * mean + corners[k_rest[:, None], c_rest[None], first]
                np.maximum(fullest, np.where(starts, live, 0), out=fullest)
    return fullest


def _tile_classes(
    extent: int, tiles: npt.NDArray[np.int64], period: int
) -> list[tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]]:
    """Sizes ``(A,)`` of whole tiles and of the last one, and offsets they start at ``(A, P)``."""
    import numpy as np

    size = np.minimum(tiles, extent)
    whole, rest = extent // size, extent % size
    number = np.arange(period)
    starts = np.zeros((tiles.size, period), dtype=np.bool_)
    row = np.broadcast_to(np.arange(tiles.size)[:, None], starts.shape)
    there = number[None] < whole[:, None]
    starts[row[there], (number[None] * size[:, None] % period)[there]] = True
    last = np.zeros_like(starts)
    some = rest > 0
    last[np.flatnonzero(some), (whole * size % period)[some]] = True
    return [(size, starts), (rest, last)]


@lru_cache(maxsize=64)
def _corner_weights(sizes: tuple[int, ...]) -> npt.NDArray[np.int64]:
    """Live weights of a k x c tile with k, c < P, for each slot of its first kernel, (P, P, P)."""
    import numpy as np

    period = len(sizes)
    return np.array(
        [
            [_tile_weights(sizes, filters, channels) for channels in range(period)]
            for filters in range(period)
        ]
    )


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


def _index_bits(count: int) -> int:
    """ceil(log2(count)): bits that tell ``count`` things apart."""
    return (count - 1).bit_length()


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


def periodic_bits(mask: Mask, bits: int) -> StoredBits:
    """Store the live weights and one table of supports for the layer.

    The slot of a kernel follows from its position, so the table of P * R * S bits is all it takes.
    """
    if not mask.periodic:
        raise InputError(
            f"format periodic needs a pattern with a period; {mask.pattern.name} is random."
            " Try csr or bitmap"
        )
    _, _, _, height, width = mask.dims
    return StoredBits(bits * mask.nonzeros, mask.pattern.period * height * width)


FORMATS: dict[str, Callable[[Mask, int], StoredBits]] = {
    "dense": dense_bits,
    "csr": csr_bits,
    "periodic": periodic_bits,
    "bitmap": bitmap_bits,
}
"""Storage formats by name: mask and bits of one weight to stored bits."""


def get_format(name: str) -> Callable[[Mask, int], StoredBits]:
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


def cheapest(mask: Mask, bits: int, formats: Iterable[str]) -> tuple[str, StoredBits]:
    """Choose the format that stores a layer in the fewest bits.

    Parameters
    ----------
    mask : Mask
        Of the layer.
    bits : int
        Of one weight.
    formats : iterable of str
        Names to choose from; the first one wins a tie. ``periodic`` is passed over where the mask
        has no period.

    Returns
    -------
    (str, StoredBits)

    Raises
    ------
    InputError
        If a name is unknown or no format can hold the mask.

    Examples
    --------
    >>> shape = Shape((1, 1, 64, 64, 32, 32, 3, 3), pad=(1, 1), size=(32, 32))
    >>> cheapest(Mask.of("PSD4_P8", shape), 8, ["dense", "csr", "periodic"])
    ('periodic', StoredBits(values=151552, metadata=72))
    """
    names = tuple(formats)
    functions = {name: get_format(name) for name in names}
    stored = {
        name: function(mask, bits)
        for name, function in functions.items()
        if mask.periodic or function is not periodic_bits
    }
    if not stored:
        given = ", ".join(names) or "none"
        raise InputError(
            f"no given storage format ({given}) can hold a {mask.pattern.name} mask; add one of"
            " dense, csr, bitmap"
        )
    name = min(stored, key=lambda name: stored[name].total)
    return name, stored[name]
