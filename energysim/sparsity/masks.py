"""The exact mask of one layer: of a pattern, of dead channels, or of any array.

Counts of masks with slots follow from the slot sizes in closed form; NumPy is imported only where a
mask is written out as an array.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from math import prod
from typing import TYPE_CHECKING

from energysim.axes import Dim, Shape
from energysim.errors import InputError
from energysim.sparsity.patterns import Pattern, get_pattern, smallest_period

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

WEIGHT_DIMS = 5
"""``[G, K, C, R, S]``"""


@dataclass(frozen=True, slots=True)
class Mask:
    """Which weights of one layer may differ from zero, exactly.

    Build it with :meth:`of`, :meth:`from_array` or :meth:`from_channels`.
    """

    pattern: Pattern
    dims: tuple[int, int, int, int, int]
    """extents of the weight tensor ``[G, K, C, R, S]``"""
    seed: int = 0
    """of a random or N:M pattern"""
    live: bytes = field(default=b"", repr=False)
    """of an irregular mask: one bit a weight in the order of ``dims``, the first one on top; the
    digest of the pattern stands for it in texts"""

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
            Of a random or N:M pattern; the same seed gives the same mask.

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
            raise InputError(found.misfit(height, width))
        dims = (shape[Dim.G], shape[Dim.K], shape[Dim.C], height, width)
        return cls(found, dims, seed if found.seeded else 0)

    @classmethod
    def from_array(
        cls,
        array: npt.ArrayLike,
        *,
        name: str = "irregular",
        blocks: tuple[int, int] | None = None,
    ) -> Mask:
        """Take any mask, such as what pruning has left.

        Parameters
        ----------
        array : array-like of bool, shape (G, K, C, R, S)
            True where the weight may differ from zero.
        name : str
            What the pattern is called in tables.
        blocks : (int, int), optional
            (N, M), if of every M neighbouring input channels at most N are live; format ``nm`` can
            then hold the mask.

        Raises
        ------
        InputError
            If the array has another type or number of dims, or more than N of M are live.

        Examples
        --------
        >>> Mask.from_array([[[[[True]], [[False]], [[True]]]]]).nonzeros
        2
        """
        import numpy as np

        given = np.asarray(array)
        if given.dtype != np.bool_:
            raise InputError(f"a mask is an array of bool, got {given.dtype}. Try `array != 0`")
        if given.ndim != WEIGHT_DIMS or not given.size:
            raise InputError(
                f"a mask has the dims [G, K, C, R, S], each 1 or more, got {list(given.shape)}."
                " Try `array[None]` for a layer of one group"
            )
        groups, filters, channels, height, width = map(int, given.shape)
        if blocks is not None:
            most = _fullest_block(given, blocks)
            if most > blocks[0]:
                raise InputError(
                    f"the mask has {most} live weights in {blocks[1]} neighbouring channels;"
                    f" {blocks[0]}:{blocks[1]} allows {blocks[0]}"
                )
        live = np.packbits(given).tobytes()
        return cls._packed((groups, filters, channels, height, width), live, name, blocks)

    @classmethod
    def _packed(
        cls,
        dims: tuple[int, int, int, int, int],
        live: bytes,
        name: str,
        blocks: tuple[int, int] | None = None,
    ) -> Mask:
        digest = hashlib.sha256(repr(dims).encode() + live).hexdigest()
        pattern = Pattern(name, 0, (), kernel=dims[3:], blocks=blocks, digest=digest)
        return cls(pattern, dims, 0, live)

    @classmethod
    def from_bits(cls, live: bytes, shape: Shape, *, name: str = "irregular") -> Mask:
        """Take the mask that another one's ``live`` spells, for a layer of the same shape.

        Parameters
        ----------
        live : bytes
            One bit a weight in the order of ``[G, K, C, R, S]``, the first one on top.
        shape : Shape
            Geometry of a layer with weights.
        name : str
            What the pattern is called in tables.

        Raises
        ------
        InputError
            If there are not as many bytes as the weights take.

        Examples
        --------
        >>> shape = Shape((1, 1, 1, 4, 1, 1, 3, 1), size=(3, 1))
        >>> Mask.from_bits(bytes([0b11110001, 0b00010000]), shape).nonzeros
        6
        """
        dims = _dims_of(shape)
        if len(live) != -(-prod(dims) // 8):
            raise InputError(
                f"{prod(dims)} weights take {-(-prod(dims) // 8)} bytes of bits, got {len(live)}"
            )
        return cls._packed(dims, live, name)

    @classmethod
    def for_layer(cls, array: npt.ArrayLike, shape: Shape) -> Mask:
        """Take any mask of one layer, in one of the shapes that a file of masks may have.

        Parameters
        ----------
        array : array-like of bool
            ``[G, K, C, R, S]``; ``[G * K, C, R, S]`` as frameworks hold weights; for 1x1 kernels
            and linear layers ``[G * K, C]`` too; or ``[G * C]``, False for dead input channels.
        shape : Shape
            Geometry of a layer with weights.

        Raises
        ------
        InputError
            If it has another type or shape, or no weight is live.

        Examples
        --------
        >>> shape = Shape((1, 1, 8, 4, 1, 1, 3, 3), size=(3, 3))
        >>> Mask.for_layer([True, False, False, True], shape).nonzeros
        144
        """
        import numpy as np

        given = np.asarray(array)
        problem = mask_misfit(shape, str(given.dtype), given.shape)
        if problem:
            raise InputError(problem)
        if not given.any():
            raise InputError("no weight is live, so the layer computes nothing. Leave it out")
        if given.ndim == 1:
            return cls.from_channels(shape, given)
        return cls.from_array(given.reshape(_dims_of(shape)))

    @classmethod
    def from_channels(cls, shape: Shape, live: npt.ArrayLike) -> Mask:
        """Leave out whole input channels.

        Parameters
        ----------
        shape : Shape
            Geometry of a layer with weights.
        live : array-like of bool, shape (G * C,)
            False for the input channels that are dead, counted over all groups.

        Raises
        ------
        InputError
            If it isn't one bool for each input channel.

        Examples
        --------
        >>> shape = Shape((1, 1, 8, 4, 1, 1, 3, 3), size=(3, 3))
        >>> Mask.from_channels(shape, [True, False, False, True]).nonzeros
        144
        """
        import numpy as np

        groups, channels = shape[Dim.G], shape[Dim.C]
        given = np.asarray(live)
        if given.dtype != np.bool_ or given.shape != (groups * channels,):
            raise InputError(
                f"a channel mask of this layer is an array of {groups * channels} bool, got"
                f" {given.dtype} {list(given.shape)}"
            )
        dims = (groups, shape[Dim.K], channels, shape[Dim.R], shape[Dim.S])
        each = given.reshape(groups, 1, channels, 1, 1)
        return cls.from_array(np.broadcast_to(each, dims), name="channels")

    @property
    def periodic(self) -> bool:
        """Whether a table of one period describes the mask (a dense one has period 1)."""
        return bool(self.pattern.supports)

    @property
    def slot_sizes(self) -> tuple[int, ...]:
        """Live taps of the kernel in every slot, slot 0 first, as far as they don't repeat.

        One entry if all are equal, as in a random mask; none if kernels have no size of their own
        (N:M and irregular masks).
        """
        if self.pattern.dense:
            return (self.dims[3] * self.dims[4],)
        if self.pattern.random:
            return (self.pattern.kss,)
        sizes = tuple(map(len, self.pattern.slots))
        return sizes[: smallest_period(sizes)] if sizes else ()

    @property
    def total(self) -> int:
        """Weights, zeros included."""
        groups, filters, channels, height, width = self.dims
        return groups * filters * channels * height * width

    @property
    def nonzeros(self) -> int:
        """Weights that may differ from zero."""
        groups, filters, channels, height, width = self.dims
        if self.live:
            return int.from_bytes(self.live).bit_count()
        if self.pattern.blocks is not None:
            return (
                groups * filters * height * width * block_entries(self.pattern.blocks, 0, channels)
            )
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

        if self.live:
            packed = np.frombuffer(self.live, dtype=np.uint8)
            bits = np.unpackbits(packed, count=self.total)
            return bits.astype(np.bool_).reshape(self.dims)
        if self.pattern.blocks is not None:
            return _drawn_blocks(self.dims, self.pattern.blocks, self.seed)
        if self.pattern.random:
            return _drawn_taps(self.dims, self.pattern.kss, self.seed).copy()
        mask: npt.NDArray[np.bool_] = self.table()[self._slot_numbers()].reshape(self.dims)
        return mask

    def table(self) -> npt.NDArray[np.bool_]:
        """Supports of one period, slot 0 first.

        Returns
        -------
        ndarray of bool, shape (P, R * S)

        Raises
        ------
        InputError
            If the mask has no period.
        """
        import numpy as np

        if not self.periodic:
            raise InputError(f"a {self.pattern.name} mask has no period, so no table of supports")
        taps = self.dims[3] * self.dims[4]
        table = np.zeros((self.pattern.period, taps), dtype=np.bool_)
        for slot, live in enumerate(self.slots):
            table[slot, list(live)] = True
        return table

    @property
    def slots(self) -> tuple[tuple[int, ...], ...]:
        """Live taps of the kernel in every slot, slot 0 first; empty without a period."""
        if self.pattern.dense:  # of whatever size the kernels are
            return (tuple(range(self.dims[3] * self.dims[4])),)
        return self.pattern.slots

    def cut(
        self, starts: npt.NDArray[np.int64], sizes: tuple[int, int, int, int, int]
    ) -> npt.NDArray[np.bool_]:
        """Cut tiles of one size out of the mask.

        Parameters
        ----------
        starts : int array, shape (T, 5)
            First group, filter, channel, kernel row and column of each tile.
        sizes : (int, int, int, int, int)
            Their extents; the tiles lie inside the tensor.

        Returns
        -------
        ndarray of bool, shape (T, weights of a tile)
            In the order of ``[G, K, C, R, S]``.
        """
        import numpy as np

        if len(starts) == 1 and not self.periodic:  # a slice needs no index of every weight
            ends = starts[0] + sizes
            only = tuple(slice(*each) for each in zip(starts[0], ends, strict=True))
            one: npt.NDArray[np.bool_] = _written(self)[only].reshape(1, -1)
            return one
        at = [
            (starts[:, dim, None] + np.arange(sizes[dim])).reshape(
                -1, *(sizes[dim] if dim == axis else 1 for axis in range(WEIGHT_DIMS))
            )
            for dim in range(WEIGHT_DIMS)
        ]
        if self.periodic:
            # Nothing is written out but the tiles: a kernel follows from its slot.
            _, filters, channels, height, width = self.dims
            slots = (at[0] * (filters + channels) + at[1] + at[2] + 1) % self.pattern.period
            live = self.table().reshape(-1, height, width)[slots, at[3], at[4]]
        else:
            live = _written(self)[tuple(at)]
        tiles: npt.NDArray[np.bool_] = live.reshape(len(starts), prod(sizes))
        return tiles

    def live_in(
        self, starts: npt.NDArray[np.int64], sizes: tuple[int, int, int, int, int]
    ) -> npt.NDArray[np.int64]:
        """Count the live weights of tiles of one size.

        Parameters
        ----------
        starts, sizes
            As for :meth:`cut`.

        Returns
        -------
        ndarray of int, shape (T,)
        """
        import numpy as np

        if not self.periodic:
            whole: npt.NDArray[np.int64] = self.cut(starts, sizes).sum(axis=1, dtype=np.int64)
            return whole
        # No weight is looked at: kernels are counted by how far their slot is from the first one's.
        period, step = self.pattern.period, self.dims[1] + self.dims[2]
        groups, filters, channels, height, width = sizes
        by_group = np.bincount(np.arange(groups) * step % period, minlength=period)
        ahead = _ahead(_ahead(by_group, _residues(filters, period)), _residues(channels, period))
        first = (starts[:, 0] * step + starts[:, 1] + starts[:, 2] + 1) % period
        table = self.table().reshape(-1, *self.dims[3:])
        windows, place = np.unique(starts[:, 3:], axis=0, return_inverse=True)
        live = np.array(
            [
                table[:, r : r + height, s : s + width].sum(axis=(1, 2), dtype=np.int64)
                for r, s in windows.tolist()
            ]
        )
        slots = (first[:, None] + np.arange(period)) % period
        counted: npt.NDArray[np.int64] = live[place.reshape(-1, 1), slots] @ ahead
        return counted

    def support_sizes(self) -> npt.NDArray[np.int64]:
        """Count the live taps of every 2D kernel.

        Returns
        -------
        ndarray of int, shape (G, K, C)
        """
        import numpy as np

        sizes = np.asarray(self.slot_sizes, dtype=np.int64)
        if not sizes.size:
            counted: npt.NDArray[np.int64] = self.array().sum(axis=(3, 4), dtype=np.int64)
            return counted
        if len(sizes) == 1:
            return np.full(self.dims[:3], sizes[0], dtype=np.int64)
        counts: npt.NDArray[np.int64] = sizes[self._slot_numbers() % len(sizes)]
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
        if not self.slot_sizes:
            return _fullest_of_any(_kernel_sums(self), k, c)
        return _fullest_tiles(self.slot_sizes, self.dims[:3], k, c)

    def _slot_numbers(self) -> npt.NDArray[np.int64]:
        """Slot of every 2D kernel, shape (G, K, C)."""
        import numpy as np

        groups, filters, channels, _, _ = self.dims
        k = np.arange(groups * filters, dtype=np.int64).reshape(groups, filters, 1)
        c = np.arange(groups * channels, dtype=np.int64).reshape(groups, 1, channels)
        numbers: npt.NDArray[np.int64] = (k + c + 1) % self.pattern.period
        return numbers


def _dims_of(shape: Shape) -> tuple[int, int, int, int, int]:
    return shape[Dim.G], shape[Dim.K], shape[Dim.C], shape[Dim.R], shape[Dim.S]


def mask_misfit(shape: Shape, dtype: str, found: tuple[int, ...]) -> str:
    """Say why an array can't be the mask of a layer; nothing if it can.

    Parameters
    ----------
    shape : Shape
        Geometry of a layer with weights.
    dtype : str
        Name of the array's type.
    found : tuple of int
        Its shape.
    """
    groups, filters, channels, height, width = dims = _dims_of(shape)
    allowed: list[tuple[int, ...]] = [(groups * filters, channels, height, width), dims]
    if height == width == 1:
        allowed.insert(0, allowed[0][:2])
    if dtype != "bool":
        return f"a mask is an array of bool, got {dtype}. Try `array != 0`"
    if found in (*allowed, (groups * channels,)):
        return ""
    shapes = ", ".join(str(list(each)) for each in allowed)
    return (
        f"its mask has the shape {shapes}, or [{groups * channels}] for whole input channels;"
        f" got {list(found)}"
    )


def _residues(extent: int, period: int) -> list[int]:
    """How many of the numbers 0 .. extent - 1 leave each remainder mod ``period``."""
    whole, rest = divmod(extent, period)
    return [whole + (residue < rest) for residue in range(period)]


def _ahead(
    one: Sequence[int] | npt.NDArray[np.int64], other: Sequence[int]
) -> npt.NDArray[np.int64]:
    """How many sums of a number of each leave each remainder, from how many of theirs do."""
    import numpy as np

    full = np.convolve(one, other)
    period = (len(full) + 1) // 2
    full[: period - 1] += full[period:]
    return full[:period]


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
    slot = np.arange(period)
    kernels = np.asarray(sizes, dtype=np.int64)[
        (slot[:, None, None] + slot[:, None] + slot) % period
    ]
    corners = np.zeros_like(kernels)
    corners[1:, 1:] = kernels[:-1, :-1].cumsum(axis=0).cumsum(axis=1)
    counted: npt.NDArray[np.int64] = corners
    return counted


def block_entries(blocks: tuple[int, int], first: int, stop: int) -> int:
    """Most live weights of an N:M mask in the channels from ``first`` to ``stop - 1``.

    The part of each block of M that lies there has N of them, or as many as it has channels.

    Examples
    --------
    >>> block_entries((2, 4), 0, 10), block_entries((2, 4), 3, 6), block_entries((2, 4), 1, 2)
    (6, 3, 1)
    """
    live, block = blocks
    return sum(
        min(live, min(stop, start + block) - max(first, start))
        for start in range(first // block * block, stop, block)
    )


def _blocked(array: npt.NDArray[np.generic], block: int, fill: float) -> npt.NDArray[np.generic]:
    """Cut C into blocks of M, the last one filled up: shape (G, K, blocks, M, R, S)."""
    import numpy as np

    groups, filters, channels, height, width = array.shape
    number = -(-channels // block)
    full = np.full((groups, filters, number * block, height, width), fill, dtype=array.dtype)
    full[:, :, :channels] = array
    return full.reshape(groups, filters, number, block, height, width)


def _fullest_block(array: npt.NDArray[np.bool_], blocks: tuple[int, int]) -> int:
    return int(_blocked(array, blocks[1], 0).sum(axis=3, dtype=int).max())


def _drawn_blocks(
    dims: tuple[int, int, int, int, int], blocks: tuple[int, int], seed: int
) -> npt.NDArray[np.bool_]:
    """Draw N of every M neighbouring channels, each choice equally likely."""
    import numpy as np

    live, block = blocks
    generator = np.random.Generator(np.random.PCG64(seed))
    # Channels that don't exist sort behind all others, so a short last block keeps min(N, rest).
    order = _blocked(generator.random(dims), block, 2.0).argsort(axis=3, kind="stable")
    rank = order.argsort(axis=3, kind="stable")
    groups, filters, channels, height, width = dims
    chosen = (rank < live).reshape(groups, filters, -1, height, width)
    drawn: npt.NDArray[np.bool_] = np.ascontiguousarray(chosen[:, :, :channels])
    return drawn


@lru_cache(maxsize=4)
def _drawn_taps(dims: tuple[int, int, int, int, int], kss: int, seed: int) -> npt.NDArray[np.bool_]:
    """Draw as many taps of each kernel, each support equally likely; nobody may change them."""
    import numpy as np

    *kernels, height, width = dims
    generator = np.random.Generator(np.random.PCG64(seed))
    # Sorting independent draws shuffles the taps.
    shuffled = generator.random((*kernels, height * width)).argsort(axis=-1, kind="stable")
    drawn: npt.NDArray[np.bool_] = (shuffled < kss).reshape(dims)
    drawn.flags.writeable = False
    return drawn


@lru_cache(maxsize=4)
def _written(mask: Mask) -> npt.NDArray[np.bool_]:
    """The mask as an array that nobody may change; tiles are cut out of it many times."""
    array = mask.array()
    array.flags.writeable = False
    return array


@lru_cache(maxsize=4)
def _kernel_sums(mask: Mask) -> npt.NDArray[np.int64]:
    """Live weights of the kernels before each (k, c), shape (G, K + 1, C + 1)."""
    import numpy as np

    sizes = mask.support_sizes()
    sums = np.zeros((sizes.shape[0], sizes.shape[1] + 1, sizes.shape[2] + 1), dtype=np.int64)
    sums[:, 1:, 1:] = sizes.cumsum(axis=1).cumsum(axis=2)
    sums.flags.writeable = False
    return sums


def _fullest_of_any(
    sums: npt.NDArray[np.int64], k_tiles: npt.NDArray[np.int64], c_tiles: npt.NDArray[np.int64]
) -> npt.NDArray[np.int64]:
    """Largest count of live weights over all tiles of a mask without slots."""
    import numpy as np

    filters, channels = sums.shape[1] - 1, sums.shape[2] - 1
    fullest = np.zeros((k_tiles.size, c_tiles.size), dtype=np.int64)
    for i, k_tile in enumerate(k_tiles.tolist()):
        rows = np.diff(sums[:, [*range(0, filters, k_tile), filters]], axis=1)
        for j, c_tile in enumerate(c_tiles.tolist()):
            tiles = np.diff(rows[:, :, [*range(0, channels, c_tile), channels]], axis=2)
            fullest[i, j] = tiles.max()
    return fullest
