"""Correlation as matrix products over lowered rows, leaving out weights that are fixed at zero.

Plain im2col copies each input element once for every tap of the kernel. Here a line of the lowered
buffer holds, for one input row, only the horizontal shifts: ``[line, (shift, channel), (q, n)]``.
Lines that follow one another are what the taps of one kernel column meet, so the columns of an
output row are a *view* of as many lines as the kernel has rows, and the copying falls from R * S
to S elements a channel and position. The product of an output row needs no copy either, neither of
what it reads nor of what it writes.

Filters whose kernels have equal supports for every channel are one part, and so one product; inside
it channels of equal support are one run, as long as they are an arithmetic progression and so a
view. A support of neighbouring rows times any columns is lowered as above, with its own first row
as the shift of its lines; any other one tap by tap.

References
----------
M. Cho, D. Brand, "MEC: Memory-efficient Convolution for Deep Neural Network", ICML 2017: lowering
along one axis only.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from itertools import groupby

import numpy as np
import numpy.typing as npt

from energysim.train.scratch import Floats, scratch

Bools = npt.NDArray[np.bool_]

BUFFER_BYTES = 1 << 21
"""Of lowered lines, as far as one output row does not need more [byte]. Below 1 MiB blocks of rows
copy their first lines too often, above 4 MiB they leave the cache; measured on a core with 512 KiB
L2 and 32 MiB L3."""

SUMMANDS_BYTES = 1 << 18
"""Of the weight gradients of single output rows, as many as are computed before they are added
[byte]"""

ROWS = 4
"""Rows that the kernels of BLAS work on together: a product with 11 rows takes longer than one with
12 (30 against 51 flop/ns), so rows are filled up with zeros to a multiple of this."""

LINE = 16
"""Floats of single precision in a cache line of 64 bytes."""


@dataclass(frozen=True, slots=True)
class Axis:
    """How output and input positions correspond along one axis: ``stride * p + offset``."""

    out: int
    """output positions"""
    size: int
    """input positions"""
    stride: int
    """input positions from one output position to the next"""
    offsets: tuple[int, ...]
    """of the taps, ascending: input position that output position 0 meets"""

    def valid(self, tap: int) -> tuple[int, int]:
        """First output position that meets the input with this tap, and the one after the last."""
        return valid_range(self.out, self.size, self.stride, self.offsets[tap])

    def meeting(self, tap: int) -> tuple[slice, slice]:
        """Output positions that meet the input with this tap, and the input positions they meet."""
        first, stop = self.valid(tap)
        return slice(first, stop), _span(first, stop, self.stride, self.offsets[tap])


def valid_range(out: int, size: int, stride: int, offset: int) -> tuple[int, int]:
    """Positions p with ``0 <= stride * p + offset < size``: the first, and the one after the last.

    Examples
    --------
    >>> valid_range(4, 4, 1, -1), valid_range(2, 4, 2, 1), valid_range(1, 2, 1, 3)
    ((1, 4), (0, 2), (0, 0))
    """
    first = max(0, -(offset // stride))
    stop = min(out, -(-(size - offset) // stride))
    return (first, stop) if first < stop else (0, 0)


def residues_of(axis: Axis) -> Iterator[tuple[int, Axis, slice]]:
    """For each remainder: the first input position, the axis of its gradient, and its taps.

    Examples
    --------
    >>> for first, back, taps in residues_of(Axis(2, 4, 2, (-1, 0, 1))):
    ...     print(first, back.offsets, taps)
    0 (0,) slice(1, 0, -2)
    1 (0, 1) slice(2, None, -2)
    """
    for first in range(min(axis.stride, axis.size)):
        taps = [
            tap for tap, offset in enumerate(axis.offsets) if (first - offset) % axis.stride == 0
        ][::-1]
        offsets = tuple((first - axis.offsets[tap]) // axis.stride for tap in taps)
        out = -(-(axis.size - first) // axis.stride)
        step = taps[1] - taps[0] if len(taps) > 1 else -axis.stride
        which = slice(taps[0], taps[-1] - 1 if taps[-1] else None, step) if taps else slice(0, 0)
        yield first, Axis(out, axis.out, 1, offsets), which


@dataclass(frozen=True, slots=True)
class Run:
    """Channels of a part that are lowered together, with one horizontal shift."""

    channels: slice
    """which ones"""
    count: int
    """how many"""
    row: int
    """kernel row that meets the first line"""
    column: int
    """kernel column"""


@dataclass(frozen=True)
class Piece:
    """Runs whose kernels are all of one height: one matrix product an output row."""

    height: int
    """kernel rows, neighbours"""
    runs: tuple[Run, ...]

    @cached_property
    def channels(self) -> int:
        """Rows of a lowered line."""
        return sum(run.count for run in self.runs)

    @property
    def depth(self) -> int:
        """Products that one output element sums up."""
        return self.height * self.channels


@dataclass(frozen=True, slots=True)
class Part:
    """Filters of equal supports."""

    filters: slice
    """which ones"""
    count: int
    """how many"""
    pieces: tuple[Piece, ...]


Place = tuple[slice, slice, slice]
"""In lowered lines ``[line, channel, q]``, or in images ``[channel, row, column]``."""


@dataclass(frozen=True, slots=True)
class Stretch:
    """Output rows of a block that follow one another and meet the same depths."""

    rows: slice
    """which ones"""
    start: int
    """first depth that meets the input"""
    stop: int
    """the one after the last"""
    line: int
    """where the columns of the first row begin, in rows of lowered lines"""
    step: int
    """from there to where those of the next row do"""

    def columns(self, lines: Floats) -> Floats:
        """Lowered columns of each row, ``[row, depth, (q, n)]``; they overlap."""
        width = lines.shape[2] * lines.strides[2]
        return np.ndarray(
            (self.rows.stop - self.rows.start, self.stop - self.start, width // lines.itemsize),
            lines.dtype,
            lines,
            (self.line + self.start) * width,
            (self.step * width, width, lines.itemsize),
        )


@dataclass(frozen=True, slots=True)
class Block:
    """Output rows whose lines are filled together, and how."""

    shape: tuple[int, int, int]
    """lines, channels and columns"""
    margins: tuple[Place, ...]
    """where padding is"""
    copies: tuple[tuple[Place, Place], ...]
    """places in lines, and in images what they take"""
    stretches: tuple[Stretch, ...]

    def filled(self, x: Floats) -> Floats:
        """Lowered lines ``[line, channel, q, n]`` of images ``[C, H, W, N]``."""
        lines = scratch("lines", (*self.shape, x.shape[3]), x.dtype)
        for place in self.margins:
            lines[place] = 0
        for place, source in self.copies:
            lines[place] = x[source].swapaxes(0, 1)
        return lines


Schedules = tuple[tuple[tuple[Block, ...], ...], ...]
"""Blocks of each piece of each part."""


def progressions(indices: Sequence[int]) -> Iterator[tuple[slice, int]]:
    """Cut ascending indices into arithmetic progressions, each as a slice with its length.

    Examples
    --------
    >>> list(progressions([1, 5, 9, 10]))
    [(slice(1, 10, 4), 3), (slice(10, 11, 1), 1)]
    """
    start = 0
    while start < len(indices):
        stop, step = start + 1, 1
        if stop < len(indices):
            step = indices[stop] - indices[start]
            while stop < len(indices) and indices[stop] - indices[stop - 1] == step:
                stop += 1
        if stop - start == 1:
            step = 1
        yield slice(indices[start], indices[stop - 1] + 1, step), stop - start
        start = stop


def equal_rows(rows: Bools) -> list[list[int]]:
    """Put the numbers of equal rows together, in the order of their first one.

    Examples
    --------
    >>> equal_rows(np.array([[True, False], [False, True], [True, False]]))
    [[0, 2], [1]]
    """
    found: dict[bytes, list[int]] = {}
    for index, row in enumerate(np.packbits(rows, axis=1)):
        found.setdefault(row.tobytes(), []).append(index)
    return list(found.values())


def _rectangle(support: Bools, neighbours: bool) -> tuple[int, int, list[int]] | None:
    """First row, height and columns of a support that is neighbouring rows times columns."""
    rows = np.flatnonzero(support.any(axis=1))
    height = len(rows)
    if height > 1 and (not neighbours or rows[-1] - rows[0] != height - 1):
        return None
    if not (support[rows] == support[rows[0]]).all():
        return None
    return int(rows[0]), height, np.flatnonzero(support[rows[0]]).tolist()


def _pieces(supports: Bools, neighbours: bool) -> tuple[Piece, ...]:
    """Runs of one part by height; ``supports`` is ``[C, I, J]``."""
    runs: dict[int, list[Run]] = {}
    for channels in equal_rows(supports.reshape(len(supports), -1)):
        support = supports[channels[0]]
        if not support.any():
            continue
        boxed = _rectangle(support, neighbours)
        if boxed:
            row, height, columns = boxed
            places = [(row, column) for column in columns]
        else:
            height = 1
            places = list(zip(*map(np.ndarray.tolist, np.nonzero(support)), strict=True))
        for row, column in places:
            for which, count in progressions(channels):
                runs.setdefault(height, []).append(Run(which, count, row, column))
    return tuple(
        Piece(height, tuple(sorted(each, key=lambda run: (run.row, run.column))))
        for height, each in sorted(runs.items())
    )


@dataclass(frozen=True)
class Lowered:
    """A correlation ``y[k, p, q] = sum of w[k, c, i, j] x[c, rows(p, i), columns(q, j)]``."""

    parts: tuple[Part, ...]
    rows: Axis
    columns: Axis
    filters: int
    channels: int
    _made: dict[tuple[int, int], Schedules] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )
    """schedules by the number of images and the size of a float"""

    @classmethod
    def of(cls, mask: Bools, rows: Axis, columns: Axis, *, boxes: bool = True) -> Lowered:
        """Find what can be computed together.

        Parameters
        ----------
        mask : ndarray of bool, shape (K, C, I, J)
            Weights that may differ from zero.
        rows, columns : Axis
            With I and J offsets.
        boxes : bool
            Lower kernels of several rows as such. Else tap by tap, which copies more and leaves out
            every tap that meets only padding.
        """
        filters, channels = mask.shape[:2]
        # Lines hold neighbouring input rows, so rows of taps must be neighbours too; and where the
        # stride is no less than the kernel, no line would be used twice.
        steps = set(np.diff(rows.offsets).tolist())
        neighbours = boxes and steps <= {1} and rows.stride < len(rows.offsets)
        parts = []
        for alike in equal_rows(mask.reshape(filters, -1)):
            pieces = _pieces(mask[alike[0]], neighbours)
            parts += [Part(which, count, pieces) for which, count in progressions(alike)]
        return cls(tuple(parts), rows, columns, filters, channels)

    @cached_property
    def products(self) -> int:
        """Multiply-accumulates for one output position of each filter, all filters together."""
        return sum(part.count * piece.depth for part in self.parts for piece in part.pieces)

    @cached_property
    def copied(self) -> int:
        """Elements that are copied into lines for one output position."""
        return sum(piece.channels for part in self.parts for piece in part.pieces)

    @property
    def depth(self) -> int:
        """Weights of a filter, fixed zeros included."""
        return self.channels * len(self.rows.offsets) * len(self.columns.offsets)

    def apply(self, x: Floats, w: Floats, y: Floats) -> None:
        """Compute the correlation.

        Parameters
        ----------
        x : ndarray, shape (C, H, W, N)
        w : ndarray, shape (K, C, I, J)
            What the mask leaves out is not read.
        y : ndarray, shape (K, P, Q, N)
            Is overwritten.
        """
        for part, schedules in zip(self.parts, self.schedules(x.shape[3], x.itemsize), strict=True):
            into = y[part.filters]
            if not part.pieces:
                into[...] = 0
            for index, (piece, blocks) in enumerate(zip(part.pieces, schedules, strict=True)):
                self._apply(blocks, x, packed(piece, w[part.filters]), into, index > 0)

    def _apply(self, blocks: tuple[Block, ...], x: Floats, w: Floats, y: Floats, add: bool) -> None:
        filters, _, width, batch = y.shape
        flat = y.strides[2:] == (batch * y.itemsize, y.itemsize)
        direct = flat and not add and len(w) == filters
        for block in blocks:
            lines = block.filled(x)
            for stretch in block.stretches:
                into = y[:, stretch.rows].swapaxes(0, 1)
                if stretch.start == stretch.stop:
                    if not add:
                        into[...] = 0
                    continue
                left = w[:, stretch.start : stretch.stop]
                columns = stretch.columns(lines)
                if direct:
                    np.matmul(left, columns, out=into.reshape(len(into), filters, -1))
                    continue
                room = scratch("product", (len(into), len(w), width * batch), y.dtype)
                np.matmul(left, columns, out=room)
                found = room[:, :filters].reshape(into.shape)
                if add:
                    into += found
                else:
                    into[...] = found

    def weight_gradient(self, x: Floats, dy: Floats, dw: Floats) -> None:
        """Compute ``dw[k, c, i, j] = sum of dy[k, p, q, n] x[c, rows(p, i), columns(q, j), n]``.

        Parameters
        ----------
        x : ndarray, shape (C, H, W, N)
        dy : ndarray, shape (K, P, Q, N)
        dw : ndarray, shape (K, C, I, J)
            What the mask leaves is overwritten, the rest isn't touched.
        """
        for part, schedules in zip(self.parts, self.schedules(x.shape[3], x.itemsize), strict=True):
            for piece, blocks in zip(part.pieces, schedules, strict=True):
                found = self._weight_gradient(piece, blocks, x, dy[part.filters])
                _unpack(piece, found, dw[part.filters])

    def _weight_gradient(
        self, piece: Piece, blocks: tuple[Block, ...], x: Floats, dy: Floats
    ) -> Floats:
        filters, _, width, batch = dy.shape
        padded = -(-filters // ROWS) * ROWS
        total: Floats = np.zeros((padded, piece.depth), dtype=dy.dtype)
        many = max(1, SUMMANDS_BYTES // total.nbytes)
        for block in blocks:
            lines = block.filled(x)
            for stretch in block.stretches:
                where = slice(stretch.start, stretch.stop)
                if stretch.start == stretch.stop:
                    continue
                columns = stretch.columns(lines).swapaxes(1, 2)
                given = dy[:, stretch.rows].swapaxes(0, 1)
                if padded == filters:
                    left = given.reshape(len(given), filters, -1)
                else:
                    left = scratch("left", (len(given), padded, width * batch), dy.dtype)
                    left[:, :filters] = given.reshape(len(given), filters, -1)
                    left[:, filters:] = 0
                for first in range(0, len(left), many):
                    some = slice(first, first + many)
                    shape = (len(left[some]), padded, columns.shape[2])
                    summands = scratch("product", shape, dy.dtype)
                    np.matmul(left[some], columns[some], out=summands)
                    for each in summands:
                        total[:, where] += each
        return total[:filters]

    def schedules(self, batch: int, itemsize: int) -> Schedules:
        """For each piece of each part, the blocks in which images are lowered.

        Made once for each number of images: finding what meets what takes as long as a product of a
        small layer.

        Parameters
        ----------
        batch : int
            Images.
        itemsize : int
            Of a float [byte].
        """
        made = self._made.get((batch, itemsize))
        if made is None:
            made = tuple(
                tuple(tuple(self._blocks(piece, batch, itemsize)) for piece in part.pieces)
                for part in self.parts
            )
            self._made[batch, itemsize] = made
        return made

    def _blocks(self, piece: Piece, batch: int, itemsize: int) -> Iterator[Block]:
        """Output rows whose lines are filled together."""
        many = self._rows_of_block(piece, batch * itemsize)
        for first in range(0, self.rows.out, many):
            stop = min(self.rows.out, first + many)
            yield self._block(piece, first, stop)

    def _rows_of_block(self, piece: Piece, pixel_bytes: int) -> int:
        lines = BUFFER_BYTES // (piece.channels * self.columns.out * pixel_bytes)
        step = self.rows.stride if piece.height > 1 else 1
        return max(1, (lines - piece.height) // step + 1)

    def _met(self, piece: Piece, p: int) -> tuple[int, int]:
        """Depths from which to which some run meets the input at output row p."""
        tops = [self.rows.stride * p + self.rows.offsets[run.row] for run in piece.runs]
        if piece.height == 1:  # runs stand in the order of their rows
            before = sum(run.count for run, top in zip(piece.runs, tops, strict=True) if top < 0)
            met = (
                run.count
                for run, top in zip(piece.runs, tops, strict=True)
                if 0 <= top < self.rows.size
            )
            return before, before + sum(met)
        low = min(max(0, -top) for top in tops)
        high = max(low, *(min(piece.height, self.rows.size - top) for top in tops))
        return low * piece.channels, high * piece.channels

    def _block(self, piece: Piece, first: int, stop: int) -> Block:
        """What lowers the output rows from ``first`` to ``stop``."""
        rows, columns = self.rows, self.columns
        step = 1 if piece.height > 1 else rows.stride
        count = (
            (stop - 1 - first) * rows.stride + piece.height if piece.height > 1 else stop - first
        )
        margins: list[Place] = []
        copies: list[tuple[Place, Place]] = []
        place = 0
        for run in piece.runs:
            offset = first * rows.stride + rows.offsets[run.row]
            top, bottom = valid_range(count, rows.size, step, offset)
            left, right = columns.valid(run.column)
            which = slice(place, place + run.count)
            place += run.count
            margins += _margins(which, (count, top, bottom), (columns.out, left, right))
            if top < bottom and left < right:
                source = (
                    run.channels,
                    _span(top, bottom, step, offset),
                    _span(left, right, columns.stride, columns.offsets[run.column]),
                )
                copies.append(((slice(top, bottom), which, slice(left, right)), source))
        shape = (count, piece.channels, columns.out)
        return Block(
            shape, tuple(margins), tuple(copies), tuple(self._stretches(piece, first, stop))
        )

    def _stretches(self, piece: Piece, first: int, stop: int) -> Iterator[Stretch]:
        """Output rows of a block that follow one another and meet the same depths."""
        step = self.rows.stride if piece.height > 1 else 1
        for met, each in groupby(range(first, stop), partial(self._met, piece)):
            some = list(each)
            line = (some[0] - first) * step * piece.channels
            yield Stretch(slice(some[0], some[-1] + 1), *met, line, step * piece.channels)


def _span(first: int, stop: int, stride: int, offset: int) -> slice:
    """Input positions that output positions from ``first`` to ``stop`` meet."""
    return slice(first * stride + offset, (stop - 1) * stride + offset + 1, stride)


def _margins(
    which: slice, rows: tuple[int, int, int], columns: tuple[int, int, int]
) -> Iterator[Place]:
    """Where the padding is: extent, first and last along lines and along columns."""
    high, top, bottom = rows
    wide, left, right = columns
    for some in (slice(0, top), slice(bottom, high)):
        if some.start < some.stop:
            yield some, which, slice(None)
    for some in (slice(0, left), slice(right, wide)):
        if some.start < some.stop and top < bottom:
            yield slice(top, bottom), which, some


def _places(piece: Piece) -> Iterable[tuple[Run, int, slice]]:
    """Each run with each row of its kernels, and where its weights stand in a packed row."""
    start = 0
    for run in piece.runs:
        for row in range(piece.height):
            at = row * piece.channels + start
            yield run, run.row + row, slice(at, at + run.count)
        start += run.count


def packed(piece: Piece, w: Floats) -> Floats:
    """Weights of one piece in the order of lowered lines, ``[K or more, height * channels]``.

    Kernels of an input gradient are a transposed view of the weights. Of these the matrix is a
    transposed view too, of a buffer that is written in the order in which the weights are read, so
    that the two don't meet a new cache line at every element. A product takes either.
    """
    filters, channels, height, width = w.shape
    turned = abs(w.strides[0]) < abs(w.strides[1])
    if piece.depth == channels * height * width:
        # Nothing is left out; a view, where the weights lie in memory as `stored` arranges them.
        return _turned_over(w) if turned else w.transpose(0, 2, 3, 1).reshape(filters, -1)
    rows = -(-filters // ROWS) * ROWS
    matrix = (
        scratch("packed", (piece.depth, rows), w.dtype).T
        if turned
        else scratch("packed", (rows, piece.depth), w.dtype)
    )
    matrix[filters:] = 0
    for run, row, where in _places(piece):
        matrix[:filters, where] = w[:, run.channels, row, run.column]
    return matrix


def _turned_over(w: Floats) -> Floats:
    """All weights as ``[K, (I, J, C)]``."""
    filters, channels, height, width = w.shape
    matrix = scratch("packed", (height, width, channels, filters), w.dtype)
    matrix[...] = w.transpose(2, 3, 1, 0)
    return matrix.reshape(-1, filters).T


def _unpack(piece: Piece, matrix: Floats, w: Floats) -> None:
    for run, row, where in _places(piece):
        w[:, run.channels, row, run.column] = matrix[:, where]
