"""What a tensor of another tool's graph holds, in terms of the layers whose output it is.

Layers of a network file produce volumes (channels, height, width). Graphs reshape and transpose
tensors between their layers, which moves nothing where it only relabels. A :class:`View` follows
that exactly: each dim of the tensor is a list of pieces of the axes of the volume, outermost first.
Reshaping cuts and joins pieces, transposing reorders dims. Whether a layer can read the volume as
it lies there is then a question of which pieces stand in which dim. Their order inside an axis (a
channel shuffle) makes no difference to any count; which channels are read, and in which order, is
kept all the same, for the layers to say it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from math import prod

Volume = tuple[int, int, int]
"""Channels, height, width."""

Margins = tuple[int, int, int, int]
"""Zeros above, below, left and right."""

NO_MARGINS: Margins = (0, 0, 0, 0)


class Axis(StrEnum):
    """Where a piece of a dim comes from."""

    BATCH = "batch"
    CHANNEL = "channel"
    HEIGHT = "height"
    WIDTH = "width"
    MIXED = "mixed"
    """pieces of several axes that were cut across"""


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of an axis."""

    axis: Axis
    size: int
    step: int = 1
    """of channels: how far apart its entries are among those of the volume"""


Dim = tuple[Piece, ...]
"""Pieces of one dim of a tensor, outermost first; none where its size is 1."""


def dim(axis: Axis, size: int) -> Dim:
    """A dim that is one axis.

    Examples
    --------
    >>> dim(Axis.CHANNEL, 1)
    ()
    """
    return (Piece(axis, size),) if size > 1 else ()


def size_of(pieces: Dim) -> int:
    """Size of a dim."""
    return prod(piece.size for piece in pieces)


def axes_of(pieces: Dim) -> frozenset[Axis]:
    """The axes that have a piece in a dim, but for the batch."""
    return frozenset(piece.axis for piece in pieces) - {Axis.BATCH}


def has_batch(pieces: Dim) -> bool:
    """Whether a dim runs over images."""
    return any(piece.axis is Axis.BATCH for piece in pieces)


@dataclass(frozen=True, slots=True)
class View:
    """A tensor as an arrangement of what one or several layers have produced."""

    layers: tuple[str, ...]
    """whose channels it joins"""
    joined: int
    """channels of all of them together"""
    volume: Volume
    """what it holds of that, for one image; the channels may be fewer than the joined ones"""
    dims: tuple[Dim, ...]
    """what each dim of the tensor holds"""
    margins: Margins = NO_MARGINS
    """zeros put around it that no window has taken up yet"""
    origin: str = ""
    """the tensor that it stands in for, where a node without a layer has made other data of it"""
    order: tuple[int, ...] = ()
    """the channels of the volume as numbers among the joined ones; none where it is the first ones
    in order"""

    @classmethod
    def of(cls, layer: str, volume: Volume, dims: Sequence[Dim]) -> View:
        """View the whole output of one layer, whose channels run through the dims in order."""
        return cls((layer,), volume[0], volume, stepped(dims))

    @property
    def numbers(self) -> tuple[int, ...]:
        """Channels among the joined ones, in the order in which the tensor holds them."""
        places = _places(self.dims)
        if len(places) != self.volume[0]:  # cut across
            places = range(self.volume[0])
        return tuple(self.order[each] for each in places) if self.order else tuple(places)

    @property
    def in_order(self) -> bool:
        """Whether the channels are the first of the joined ones, in their order."""
        return self.numbers == tuple(range(self.volume[0]))

    @property
    def channels(self) -> int | None:
        """How many channels are read, where it is not all."""
        return None if self.volume[0] == self.joined else self.volume[0]

    @property
    def whole(self) -> bool:
        """Whether it is all of what one layer has produced, and nothing else."""
        return len(self.layers) == 1 and self.channels is None and self.margins == NO_MARGINS

    def reshaped(self, sizes: Sequence[int]) -> View:
        """The same elements in the same order, in dims of other sizes.

        Examples
        --------
        >>> volume = (6, 5, 4)
        >>> image = View.of("conv", volume, plain_dims(volume, batch=1))
        >>> [size_of(each) for each in image.reshaped((1, 2, 3, 20)).dims]
        [1, 2, 3, 20]
        """
        joined = self._with_joined_pieces()
        return replace(joined, dims=regrouped(joined.dims, sizes))

    def _with_joined_pieces(self) -> View:
        """The same with neighbouring pieces of channels as one, which can be cut elsewhere."""
        if len(_places(self.dims)) != self.volume[0]:
            return self  # cut across
        return replace(self, dims=stepped(map(_joined, self.dims)), order=self.numbers)

    def transposed(self, order: Sequence[int]) -> View:
        """The dims in another order."""
        return replace(self, dims=tuple(self.dims[each] for each in order))

    def narrowed(self, at: int, entries: Sequence[int]) -> View | None:
        """Only these entries of one dim; None unless they are channels."""
        if axes_of(self.dims[at]) != {Axis.CHANNEL} or has_batch(self.dims[at]):
            return None
        size = size_of(self.dims[at])
        before, after = (len(_places(dims)) for dims in (self.dims[:at], self.dims[at + 1 :]))
        numbers = self.numbers
        kept = tuple(
            numbers[(outer * size + entry) * after + inner]
            for outer in range(before)
            for entry in entries
            for inner in range(after)
        )
        dims = (*self.dims[:at], dim(Axis.CHANNEL, len(entries)), *self.dims[at + 1 :])
        volume = (len(kept), *self.volume[1:])
        return replace(self, volume=volume, dims=stepped(dims), order=kept)


def _places(dims: Sequence[Dim]) -> Sequence[int]:
    """Numbers of the channels of a volume, in the order in which dims run through them."""
    places = [0]
    for piece in (piece for each in dims for piece in each if piece.axis is Axis.CHANNEL):
        places = [place + entry * piece.step for place in places for entry in range(piece.size)]
    return places


def _joined(pieces: Dim) -> Dim:
    found: list[Piece] = []
    for piece in pieces:
        if piece.axis is Axis.CHANNEL and found and found[-1].axis is Axis.CHANNEL:
            found[-1] = Piece(Axis.CHANNEL, found[-1].size * piece.size)
        else:
            found.append(piece)
    return tuple(found)


def stepped(dims: Iterable[Dim]) -> tuple[Dim, ...]:
    """Dims that run through channels in order: the steps of each piece from those behind it.

    Examples
    --------
    >>> channels = (Piece(Axis.CHANNEL, 2), Piece(Axis.CHANNEL, 3))
    >>> [piece.step for piece in stepped([channels])[0]]
    [3, 1]
    """
    step = 1
    found: list[Dim] = []
    for each in reversed(tuple(dims)):
        pieces: list[Piece] = []
        for piece in reversed(each):
            is_channel = piece.axis is Axis.CHANNEL
            pieces.append(Piece(piece.axis, piece.size, step if is_channel else 1))
            step *= piece.size if is_channel else 1
        found.append(tuple(reversed(pieces)))
    return tuple(reversed(found))


def plain_dims(volume: Volume, *, batch: int, rank: int = 4) -> tuple[Dim, ...]:
    """Dims of batch, channels, height and width; of rank 2 or 3 where trailing ones are 1."""
    channels, height, width = volume
    every = (
        dim(Axis.BATCH, batch),
        dim(Axis.CHANNEL, channels),
        dim(Axis.HEIGHT, height),
        dim(Axis.WIDTH, width),
    )
    return every[:rank]


def regrouped(dims: Sequence[Dim], sizes: Sequence[int]) -> tuple[Dim, ...]:
    """Cut and join pieces, in row-major order, to dims of other sizes.

    A boundary that cuts a piece where it doesn't divide it makes that stretch ``MIXED``.

    Parameters
    ----------
    dims : sequence of dims
        As they are.
    sizes : sequence of int
        As they shall be; their product is the same.

    Examples
    --------
    >>> four_by_six = (dim(Axis.CHANNEL, 4), dim(Axis.WIDTH, 6))
    >>> [[str(piece.axis) for piece in each] for each in regrouped(four_by_six, (8, 3))]
    [['channel', 'width'], ['width']]
    >>> [[str(piece.axis) for piece in each] for each in regrouped(four_by_six, (3, 8))]
    [['mixed'], ['mixed']]
    """
    waiting = [piece for each in dims for piece in each][::-1]
    found: list[Dim] = []
    for size in sizes:
        taken: list[Piece] = []
        missing = size
        while missing > 1:
            piece = waiting.pop()
            if missing % piece.size == 0:
                taken.append(piece)
                missing //= piece.size
            elif piece.size % missing == 0:
                rest = piece.size // missing
                taken.append(Piece(piece.axis, missing, piece.step * rest))
                waiting.append(Piece(piece.axis, rest, piece.step))
                missing = 1
            else:
                return _mixed(dims, sizes)
        found.append(tuple(taken))
    return tuple(found)


def _mixed(dims: Sequence[Dim], sizes: Sequence[int]) -> tuple[Dim, ...]:
    """Dims of which only the batch is still known, where it stays in front."""
    batch = dims[0] if dims and dims[0] and not axes_of(dims[0]) else ()
    kept = bool(batch) and bool(sizes) and sizes[0] == size_of(batch)
    rest = [dim(Axis.MIXED, size) for size in sizes[kept:]]
    return (batch, *rest) if kept else tuple(rest)


def image_of(view: View) -> Volume | None:
    """The volume that a sliding window sees: dims batch, channels, then height and width.

    Returns
    -------
    tuple or None
        None where the tensor's dims do not hold the axes in this order. With one dim behind the
        channels, that may be either or both.
    """
    if len(view.dims) < 2 or axes_of(view.dims[0]):  # noqa: PLR2004 - batch and channels
        return None
    if any(map(has_batch, view.dims[1:])):
        return None
    seen = [axes_of(each) for each in view.dims[1:]]
    wanted: list[set[Axis]] = [{Axis.CHANNEL}, {Axis.HEIGHT}, {Axis.WIDTH}]
    if len(seen) == len(wanted) - 1:
        wanted = [{Axis.CHANNEL}, {Axis.HEIGHT, Axis.WIDTH}]
    if len(seen) > len(wanted):
        return None
    fits = all(each <= allowed for each, allowed in zip(seen, wanted, strict=False))
    alone = len(seen) > 1 or view.volume[1:] == (1, 1)
    return view.volume if fits and alone else None


def is_flat(view: View, at: int) -> bool:
    """Whether one dim holds all elements of an image."""
    others = [each for index, each in enumerate(view.dims) if index != at % len(view.dims)]
    return not any(map(axes_of, others)) and not has_batch(view.dims[at])


def is_pixelwise(view: View, at: int) -> bool:
    """Whether one dim holds the channels, all of them and nothing else."""
    others = [each for index, each in enumerate(view.dims) if index != at % len(view.dims)]
    elsewhere = frozenset().union(*map(axes_of, others))
    alone = axes_of(view.dims[at]) <= {Axis.CHANNEL} and not has_batch(view.dims[at])
    return alone and elsewhere <= {Axis.HEIGHT, Axis.WIDTH}
