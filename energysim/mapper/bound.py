"""Lower bounds of what a cut costs, for all tiles at once.

Every function gives, for each tile (a point of the grid of ladders), a number that no mapping with
that tile can undercut, whatever the other loops do: tests compare them with exact counts of random
mappings. They are exact where pieces divide evenly, and but for the overlap of input windows.

A dim that ``weight`` or ``output`` does not use multiplies its traffic by the number of pieces, at
least ceil(extent / size). Inputs are bounded along height and width by what the pieces touch
together and what neighbouring pieces share (:func:`_window`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from energysim.axes import REDUCTION, RELEVANT, Dim, Shape, Tensor
from energysim.mapper.space import Arrangement, Ladder
from energysim.mapping import Rules
from energysim.model.counts import Key
from energysim.model.sparse import WeightStore
from energysim.model.tables import Ints

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

MIDDLE = 4
"""With so many pieces one of full size touches no border."""

Prices = Mapping[Key, float]
"""Cost of one counted element: energy [pJ], bits or cycles."""

Met = tuple[bool, bool]
"""Whether rows, and columns, may be met again where loops inside a loop over taps start over."""

ANY = (True, True)
"""What holds if nothing is known about the loops in front of a tile."""


def outer(vectors: Mapping[Dim, npt.NDArray[np.generic]]) -> Floats:
    """Product of vectors along their dims' axes, length 1 along the other axes."""
    product: Floats = np.ones((1,) * len(Dim))
    for dim, vector in vectors.items():
        shape = [1] * len(Dim)
        shape[dim] = vector.size
        product = product * vector.astype(np.float64).reshape(shape)
    return product


@dataclass(frozen=True, slots=True)
class _Moves:
    """Elements of one tensor that cross one boundary, as bounds over the grid of tiles."""

    each: Floats
    """summed over the instances of the inner level"""
    union: Floats
    """what the instances under one outer instance need together, summed over outer instances"""


def cut_cost(
    here: Arrangement,
    rules: Rules,
    tensor: Tensor,
    level: int,
    prices: Prices,
    *,
    late: bool = False,
    met: Met = ANY,
    taps_last: bool = False,
) -> Floats:
    """Cost of what a cut moves, for every tile.

    Parameters
    ----------
    here : Arrangement
    rules : Rules
    tensor : Tensor
    level : int
        Whose tile it is; ``here.macs`` for what the MACs read and update.
    prices : mapping
        Of every count.
    late : bool
        As in :class:`energysim.mapper.space.Step`.
    met : tuple of bool
        What is known of the loops in front.
    taps_last : bool
        The block in front of the cut (of ``input``) has loops over kernel taps: they are its
        innermost, so each step brings another row or column.

    Returns
    -------
    float array
        One axis a dim, of length 1 where the dim makes no difference.
    """
    above = here.outer(tensor, level)
    moves = _moves(here, rules, tensor, above, level, late=late, met=met, taps_last=taps_last)

    fans_out = here.axes[level] != here.axes[above]

    def price(at: int, name: str) -> float:
        if name == "hop" and not fans_out:
            return 0.0
        return prices.get((at, tensor, name), 0.0)

    if tensor is not Tensor.OUTPUT:
        read = moves.union if rules.multicast else moves.each
        cost = read * price(above, "read")
        return cost + moves.each * (price(level, "fill") + price(above, "hop"))
    first = _first_visits(here, above)
    back = np.maximum(moves.union - first, 0.0)
    if rules.reduce:
        read, update = back, moves.union
    else:
        # sums of instances with unequal shares arrive one after the other, and are not read then
        read = np.maximum(moves.each - first, 0.0) if _equal_shares(here, level) else back
        update = moves.each
    cost = read * price(above, "read") + update * price(above, "update")
    cost = cost + (back + moves.each) * price(above, "hop")
    cost = cost + back * price(level, "fill") + moves.each * price(level, "drain")
    if level < here.macs:
        cost = cost + _complete(here, rules, above, level, prices)
    return cost


def _equal_shares(here: Arrangement, level: int) -> bool:
    """Whether reduction dims that are spread over instances always split evenly."""
    return all(
        not np.any(here.shape[dim] % (here.ladders[dim].trips * here.ladders[dim].fans[level]))
        for dim in REDUCTION
        if here.ladders[dim].fans[level] > 1
    )


def _first_visits(here: Arrangement, above: int) -> float:
    """At most so many elements arrive for the first time at an instance of the outer level."""
    total = float(here.shape.elements(Tensor.OUTPUT))
    for dim in REDUCTION:
        total *= _most_used(here, dim, above)
    return total


def _used(here: Arrangement, dim: Dim, size: int) -> Ints:
    """Instances with work, of so many, for every product of trip counts that may stand outside."""
    ladder = here.ladders[dim]
    left = -(-here.shape[dim] // np.append(ladder.trips, ladder.ends))
    some = np.minimum(left, size)
    used: Ints = -(-left // -(-left // some))
    return used


def _most_used(here: Arrangement, dim: Dim, level: int) -> int:
    """At most so many instances of a level work on different pieces of a dim."""
    fan = here.ladders[dim].fans[level]
    if fan == 1:
        return 1
    if sum(each is dim for each, _, _ in here.fan) > 1:
        return min(fan, here.shape[dim])
    return int(_used(here, dim, fan).max())


def _complete(here: Arrangement, rules: Rules, above: int, level: int, prices: Prices) -> float:
    """What final outputs cost more (or less) than the partial sums they are counted as."""
    whole = here.shape.elements(Tensor.OUTPUT)
    cost = 0.0
    for name, at, counted in (("update_complete", above, above if rules.reduce else level),
                              ("drain_complete", level, level)):  # fmt: skip
        price = prices.get((at, Tensor.OUTPUT, name), 0.0)
        fans = [here.ladders[dim].fans[counted] for dim in REDUCTION]
        alone = all(fan == 1 for fan in fans)
        # Spread over several instances no sum is complete; a dim cut below the array's width may
        # be on one instance all the same.
        maybe = any(here.ladders[dim].trips[-1] * here.ladders[dim].fans[-1] >= 2 * here.shape[dim]
                    for dim in REDUCTION)  # fmt: skip
        if alone or (price < 0 and maybe):
            cost += price * whole
    return cost


# -- elements that move ----------------------------------------------------------------------------


def _moves(
    here: Arrangement,
    rules: Rules,
    tensor: Tensor,
    above: int,
    level: int,
    *,
    late: bool,
    met: Met,
    taps_last: bool,
) -> _Moves:
    keeps = level < here.macs or tensor in rules.latch
    if tensor is Tensor.INPUT:
        overlaps = keeps and level not in rules.refetch
        each, union = (
            _input(
                here,
                rules,
                seen,
                level,
                late=late,
                overlaps=overlaps,
                met=met,
                taps_last=taps_last,
            )
            for seen in (level, above)
        )
        return _Moves(each, union)
    elements = here.shape.elements(tensor)
    idle = [dim for dim in Dim if dim not in RELEVANT[tensor]]
    each, union = (
        elements * outer({dim: _pieces(here, dim, at, level, late=late) for dim in idle})
        for at in (level, above)
    )
    return _Moves(each, union)


def _together(here: Arrangement, dim: Dim, seen: int, level: int) -> Ints:
    """At most so much of a dim do the instances of a level under one outer one hold at once."""
    ladder = here.ladders[dim]
    size = ladder.sizes(level) * (ladder.fans[level] // ladder.fans[seen])
    return np.minimum(size, ladder.extent)


def _pieces(here: Arrangement, dim: Dim, seen: int, level: int, *, late: bool) -> Ints:
    """At least so many tiles along a dim, in time and over the instances of an outer level.

    Not by the outer level's own tile: instances that fan out in front of a loop may be done with
    their shares in fewer steps than the whole dim would take.

    If the instances split up late, behind further loops over the dim (which leave the tile alone),
    fewer of them may have work by then.
    """
    pieces: Ints = -(-here.shape[dim] // _together(here, dim, seen, level))
    if late and here.ladders[dim].fans[seen] > 1:
        in_time = -(-here.shape[dim] // _together(here, dim, 0, level))
        fewest = np.minimum.accumulate(working(here, dim, seen)[::-1])[::-1]
        pieces = np.minimum(pieces, in_time * fewest)
    return pieces


def working(here: Arrangement, dim: Dim, level: int) -> Ints:
    """At least so many instances of a level that a dim gives work, for each tile outside them.

    For the last place of the ladder: of all products that loops to it may come to. Where the axes
    fan out at different levels, loops may stand between: then at least one.
    """
    ladder = here.ladders[dim]
    left = -(-here.shape[dim] // np.append(ladder.trips, ladder.ends))
    used = np.ones_like(left)
    axes = dict.fromkeys(axis for _, axis, _ in here.fan)
    spread = [
        (axis, size)
        for axis in sorted(axes, key=here.places.__getitem__)
        for each, own, size in here.fan
        if each is dim and own == axis
    ]
    if len({here.places[axis] for axis, _ in spread}) == 1:
        for axis, size in spread:
            some = -(-left // -(-left // np.minimum(left, size)))
            left = -(-left // some)
            if axis in here.axes[level]:
                used = used * some
    places = ladder.trips.size
    return np.append(used[: places - 1], used[places - 1 :].min())


def _input(
    here: Arrangement,
    rules: Rules,
    seen: int,
    level: int,
    *,
    late: bool,
    overlaps: bool,
    met: Met,
    taps_last: bool,
) -> Floats:
    shape = here.shape
    rows = _window(here, rules, Dim.P, seen, level, met=met[0])
    columns = _window(here, rules, Dim.Q, seen, level, met=met[1])
    plane = rows.apart * columns.apart
    if overlaps:
        by_column, by_row = rows.apart * columns.shared, rows.shared * columns.apart
        plane = np.minimum(by_column, by_row)
        if taps_last:
            row_taps = outer({Dim.R: here.ladders[Dim.R].trips > 1}) > 0
            column_taps = outer({Dim.S: here.ladders[Dim.S].trips > 1}) > 0
            plane = np.where(column_taps, plane, np.where(row_taps, by_row, plane))
            plane = np.where(row_taps, plane, np.where(column_taps, by_column, plane))
    channels = shape[Dim.N] * shape[Dim.G] * shape[Dim.C]
    least = rows.apart.min() * columns.apart.min()  # every element is loaded once at least
    passes = outer({Dim.K: _pieces(here, Dim.K, seen, level, late=late)})
    moved: Floats = channels * np.maximum(passes * plane, least)
    return moved


@dataclass(frozen=True, slots=True)
class _Grids:
    apart: Floats
    shared: Floats
    pieces: Floats
    sections: Floats
    overlap: Floats


@dataclass(frozen=True, slots=True)
class _Window:
    """Rows (or columns) of the input that the pieces of one pass over the plane load."""

    apart: Floats
    """if each piece loads all it needs"""
    shared: Floats
    """if each piece finds there what it shares with the one before"""
    pieces: Floats
    sections: Floats
    """pieces of outputs alone"""
    overlap: Floats
    """what two pieces of an instance share at most, summed over instances of one outer one"""
    grids: _Grids
    """all of these as plain (outputs, taps) arrays"""


@lru_cache(maxsize=128)
def _window(
    here: Arrangement, rules: Rules, out: Dim, seen: int, level: int, *, met: bool
) -> _Window:
    """Bound the rows loaded along one axis.

    Sorted by their first row, pieces of full kernels touch together the union and, at each border
    between two of them, at least what two neighbouring outputs share. A piece can find there at
    most what its instance's window shares with any other of its pieces. Where taps are cut, a tile
    is one row (:func:`window_rule`); then it is new but for the steps in which the taps start over,
    if the first tap of an output meets the row of the last tap of the one before.
    """
    tap = Dim.R if out is Dim.P else Dim.S
    along = 0 if out is Dim.P else 1
    facts = _facts(here.shape, along, count_padding=rules.count_padding)
    grid = (here.ladders[out].trips.size, here.ladders[tap].trips.size)
    size_out, size_tap = (_together(here, dim, seen, level) for dim in (out, tap))
    size_out = size_out[:, None]
    pieces = -(-here.shape[out] // size_out)
    parts = -(-here.shape[tap] // size_tap)
    apart = np.where(
        size_tap >= here.shape[tap],
        facts.touched + (pieces - 1) * facts.shared,
        np.maximum(facts.touched, np.where(size_tap == 1, facts.singles, parts * facts.single)),
    ).astype(np.float64)
    stride, dilation = here.shape.stride[along], here.shape.dilation[along]
    own = here.ladders[tap].sizes(level)
    overlap = np.maximum((own - 1) * dilation + 1 - stride, 0)
    fan = 1
    for dim in (out, tap):
        fan *= here.ladders[dim].fans[level] // here.ladders[dim].fans[seen]
    cut_out, cut_tap = here.ladders[out].trips[:, None] > 1, here.ladders[tap].trips > 1
    saved = np.where(cut_out, pieces * parts * overlap * fan, 0).astype(np.float64)
    in_time = -(-here.shape[tap] // (own * here.ladders[tap].fans[level]))
    meets = _taps_meet(here, out, tap, level, stride, dilation)
    again = apart / np.maximum(in_time, 1) * meets
    if met and _sweeps_meet(here, out, tap):
        again = np.where(cut_out, np.maximum(again, apart / 2), again)
    saved = np.where(cut_tap, again, saved)
    shared = np.maximum(apart - saved, 0.0)
    shape = [1] * len(Dim)
    shape[out], shape[tap] = grid

    columns = (apart, shared, pieces * parts, pieces, overlap * fan)
    plain = _Grids(*(np.broadcast_to(values, grid).astype(np.float64) for values in columns))
    return _Window(
        plain.apart.reshape(shape),
        plain.shared.reshape(shape),
        plain.pieces.reshape(shape),
        plain.sections.reshape(shape),
        plain.overlap.reshape(shape),
        plain,
    )


class FreshChannels:
    """Cost of an input cut if loops over N, G or C stand in its own block, outside its windows.

    Such a loop brings a wholly new tile, so pieces share rows only inside the tile that the block
    began with: along the innermost window dim that tile is loaded once, along the other one piece
    by piece. Where both dims start over, a corner may be found again.
    """

    def __init__(
        self, here: Arrangement, rules: Rules, level: int, met: Met, *, late: bool
    ) -> None:
        self.here, self.rules, self.level = here, rules, level
        self.above = here.outer(Tensor.INPUT, level)
        self.windows = {
            (seen, out): _window(here, rules, out, seen, level, met=meets)
            for seen in (level, self.above)
            for out, meets in zip((Dim.P, Dim.Q), met, strict=True)
        }
        shape = here.shape
        self.channels = shape[Dim.N] * shape[Dim.G] * shape[Dim.C]
        self.least = {
            seen: self.windows[seen, Dim.P].apart.min() * self.windows[seen, Dim.Q].apart.min()
            for seen in (level, self.above)
        }
        """of one pass: all of the plane"""
        self.passes = {
            seen: _pieces(here, Dim.K, seen, level, late=late) for seen in (level, self.above)
        }
        kernels = here.ladders[Dim.K]
        self.first = {
            seen: np.minimum(kernels.trips * kernels.fans[seen], kernels.extent)
            for seen in (level, self.above)
        }
        """at most so many tiles along K"""

    def elements(
        self, now: Ints, tile: Ints, passes: Ints, *, without: Ints | None = None
    ) -> tuple[Floats, Floats]:
        """Bound what moves, summed over instances, and together under each outer one.

        Parameters
        ----------
        now, tile : int array, shape (8, n)
            Places of the tiles before the block, and behind it.
        passes : int array, shape (n,)
            The place of K up to which loops load everything again.
        without : int array, shape (n,), optional
            Count only what is loaded after the first pass of each tile with this place of K.

        Returns
        -------
        float array, float array
            Shape (n,).
        """
        found = []
        for seen in (self.level, self.above):
            rows = _section(self.windows[seen, Dim.P], Dim.P, now, tile)
            columns = _section(self.windows[seen, Dim.Q], Dim.Q, now, tile)
            corners = rows.overlap * columns.overlap
            plane = np.minimum(
                rows.apart * columns.together
                - (rows.pieces - rows.sections) * columns.sections * corners,
                rows.together * columns.apart
                - rows.sections * (columns.pieces - columns.sections) * corners,
            )
            times = self.passes[seen][passes]
            if without is not None:
                times = np.maximum(times - self.first[seen][without], 0)
            found.append(self.channels * times * np.maximum(plane, self.least[seen]))
        return found[0], found[1]

    def cost(self, prices: Prices, each: Floats, union: Floats) -> Floats:
        """Price what :meth:`elements` found."""
        read = prices.get((self.above, Tensor.INPUT, "read"), 0.0)
        fill = prices.get((self.level, Tensor.INPUT, "fill"), 0.0)
        if self.here.axes[self.level] != self.here.axes[self.above]:
            fill += prices.get((self.above, Tensor.INPUT, "hop"), 0.0)
        return (union if self.rules.multicast else each) * read + each * fill


@dataclass(frozen=True, slots=True)
class Fresh:
    """As :class:`FreshChannels`, for every tile before and behind a block that cuts no taps.

    ``rows_inside`` reads height (P) before the block and width (Q) behind it, ``columns_inside``
    the other way round: the order in which the inner window dim is swept first.
    """

    rows_inside: Floats
    columns_inside: Floats


def fresh_cost(here: Arrangement, rules: Rules, level: int, prices: Prices, *, late: bool) -> Fresh:
    """Cost of an input cut whose block brings new channels, for all tiles at once."""
    above = here.outer(Tensor.INPUT, level)
    shape = here.shape
    channels = shape[Dim.N] * shape[Dim.G] * shape[Dim.C]
    read = prices.get((above, Tensor.INPUT, "read"), 0.0)
    fill = prices.get((level, Tensor.INPUT, "fill"), 0.0)
    if here.axes[level] != here.axes[above]:
        fill += prices.get((above, Tensor.INPUT, "hop"), 0.0)
    terms = ((level, fill), (above, read)) if rules.multicast else ((level, fill + read),)
    found = [np.zeros((1,) * len(Dim)), np.zeros((1,) * len(Dim))]
    for seen, price in terms:
        rows = _window(here, rules, Dim.P, seen, level, met=True)
        columns = _window(here, rules, Dim.Q, seen, level, met=True)
        corner = rows.overlap * columns.overlap
        passes = channels * price * outer({Dim.K: _pieces(here, Dim.K, seen, level, late=late)})
        plane = rows.apart * columns.apart
        least = rows.apart.min() * columns.apart.min()
        for i, pieces in enumerate(
            (rows.sections * (columns.pieces - 1), (rows.pieces - 1) * columns.sections)
        ):
            found[i] = found[i] + passes * np.maximum(plane - pieces * corner, least)
    return Fresh(found[0], found[1])


@dataclass(frozen=True, slots=True)
class _Section:
    """Rows of one axis of blocks that begin with new channels; arrays of shape (n,)."""

    apart: Floats
    together: Floats
    """if pieces of the tile before the block find what they share"""
    pieces: Floats
    sections: Floats
    overlap: Floats
    """rows that two pieces share, at most; 0 where the block does not cut the axis"""


def _section(window: _Window, out: Dim, now: Ints, tile: Ints) -> _Section:
    tap = Dim.R if out is Dim.P else Dim.S
    pick, before = (tile[out], tile[tap]), (now[out], now[tap])
    grids = window.grids
    apart, pieces = grids.apart[pick], grids.pieces[pick]
    taps_cut = tile[tap] != now[tap]
    cut = taps_cut | (tile[out] != now[out])
    together = np.where(taps_cut, grids.shared[pick], grids.apart[before])
    overlap = np.where(cut, np.maximum(grids.overlap[pick], taps_cut), 0.0)
    sections = np.where(taps_cut, pieces, grids.sections[before])
    return _Section(apart, np.minimum(together, apart), pieces, sections, overlap)


def _taps_meet(
    here: Arrangement, out: Dim, tap: Dim, level: int, stride: int, dilation: int
) -> bool:
    """Whether the first tap of an instance's next output can need the row of its last tap so far.

    Outputs of an instance follow each other at a distance of 1, or, where the dim is spread over n
    instances, of at least n from one round to the next.
    """
    again = (here.shape[tap] - 1) * dilation
    if here.ladders[tap].fans[level] > 1:
        return again >= stride
    if again % stride:
        return False
    distance = again // stride
    if here.ladders[out].fans[level] == 1:
        return distance == 1
    least = min(_least_used(here, out), here.ladders[out].fans[level])
    return distance == 1 or (distance > 1 and least <= distance)


def _sweeps_meet(here: Arrangement, out: Dim, tap: Dim) -> bool:
    """Whether a row can be met again where a loop inside a loop over taps starts over.

    With tiles of one output and one tap, each step of the innermost loop brings another row: so
    that happens at most once in two steps. It does where some outputs further are as far as some
    taps.
    """
    along = 0 if out is Dim.P else 1
    stride, dilation = here.shape.stride[along], here.shape.dilation[along]
    taps = np.arange(1, here.shape[tap]) * dilation
    return bool(np.any((taps % stride == 0) & (taps // stride < here.shape[out])))


def sweeps_meet(here: Arrangement, level: int, out: Dim, places: Ints, tile: Ints) -> Bools:
    """Whether rows may be met again, given all tiles in front of an input tile.

    If a dim's taps are cut by one loop, all loops over its outputs stand outside of it and sweep
    the taps (:func:`_taps_meet`), or some stand inside. Then, when the taps advance by one, these
    go back to their start: to the row that they were at only if they have gone on by one tap.

    Parameters
    ----------
    here : Arrangement
    level : int
        Whose tile it is.
    out : Dim
        P for rows, Q for columns.
    places : int array, shape (n, steps, 8)
    tile : int array, shape (8, n)

    Returns
    -------
    bool array, shape (n,)
    """
    tap = Dim.R if out is Dim.P else Dim.S
    along = 0 if out is Dim.P else 1
    taps = np.concatenate(
        [np.zeros_like(tile[tap])[:, None], places[:, :, tap], tile[tap][:, None]], 1
    )
    cuts = taps[:, 1:] != taps[:, :-1]
    times = np.count_nonzero(cuts, axis=1)
    if here.ladders[tap].fans[level] > 1 or here.ladders[out].fans[level] > 1:
        spread: Bools = times > 0
        return spread
    last = np.argmax(cuts, axis=1)  # the block of the first (the only) loop over taps
    outs = np.concatenate([places[:, :, out], tile[out][:, None]], 1)
    before = np.take_along_axis(outs, last[:, None], axis=1)[:, 0]
    ladder = here.ladders[out]
    sweep = -(-ladder.trips[tile[out]] // ladder.trips[before])
    even = ladder.extent % ladder.trips[before] == 0
    stride, dilation = here.shape.stride[along], here.shape.dilation[along]
    steps = dilation // stride + 1 if dilation % stride == 0 else 0
    inside = np.where(even, sweep == steps, sweep >= steps) & (steps > 1) & (sweep > 1)
    found: Bools = (times > 1) | ((times == 1) & inside)
    return found


def ends_apart(here: Arrangement, level: int, before: Ints, tile: Ints) -> Bools:
    """Whether the last piece of a sweep over a tile shares nothing with the first of the next.

    That is so if along one axis each instance goes on by at least its window, from the first piece
    to the last; with single rows (taps are cut), if it goes on at all.

    Parameters
    ----------
    here : Arrangement
    level : int
    before, tile : int array, shape (8, n)
        Places of the tile that is swept, and of the pieces.

    Returns
    -------
    bool array, shape (n,)
    """
    apart: Bools = np.zeros(tile.shape[1], dtype=np.bool_)
    for along, (out, tap) in enumerate(((Dim.P, Dim.R), (Dim.Q, Dim.S))):
        outs, taps = here.ladders[out], here.ladders[tap]
        size, own = outs.sizes(level)[tile[out]], taps.sizes(level)[tile[tap]]
        even = np.ones_like(apart)
        for dim, ladder in ((out, outs), (tap, taps)):
            trips = ladder.trips[tile[dim]]
            even &= ladder.extent % (trips * ladder.fans[level]) == 0
            even &= trips % ladder.trips[before[dim]] == 0
        steps = outs.trips[tile[out]] // outs.trips[before[out]]
        stride, dilation = here.shape.stride[along], here.shape.dilation[along]
        window = (size - 1) * stride + (own - 1) * dilation + 1
        gone = (steps - 1) * size * stride
        cut = tile[tap] != before[tap]
        apart |= even & np.where(cut, (size == 1) & (own == 1), (steps > 1) & (gone >= window))
    return apart


def _least_used(here: Arrangement, dim: Dim) -> int:
    """At least so many instances of the first axis that a dim is spread over have work."""
    sizes = [size for each, _, size in here.fan if each is dim]
    return int(_used(here, dim, sizes[0]).min()) if len(sizes) == 1 else 1


@dataclass(frozen=True, slots=True)
class _Facts:
    touched: int
    """rows that any output needs"""
    single: int
    """rows that one tap touches, at least"""
    singles: int
    """the same summed over the taps"""
    shared: int
    """rows that two neighbouring outputs share, at least"""


@lru_cache(maxsize=512)
def _facts(shape: Shape, along: int, *, count_padding: bool) -> _Facts:
    out, tap = ((Dim.P, Dim.R), (Dim.Q, Dim.S))[along]
    rows = np.add.outer(
        np.arange(shape[out]) * shape.stride[along],
        np.arange(shape[tap]) * shape.dilation[along] - shape.pad[along],
    )
    real = np.ones(rows.shape, dtype=np.bool_)
    if not count_padding:
        real = (rows >= 0) & (rows < shape.size[along])
    touched = int(np.unique(rows[real]).size)
    each = [int(np.unique(column[use]).size) for column, use in zip(rows.T, real.T, strict=True)]
    shared = 0
    if shape[out] > 1 and shape.dilation[along] == 1:
        first, last = rows[:, 0], rows[:, -1]
        if not count_padding:
            first, last = np.maximum(first, 0), np.minimum(last, shape.size[along] - 1)
        shared = max(int(np.min(last[:-1] - first[1:])) + 1, 0)
    return _Facts(touched, min(each), sum(each), shared)


# -- room that a tile takes ------------------------------------------------------------------------


def window_rule(here: Arrangement, level: int) -> npt.NDArray[np.bool_]:
    """Where an input tile may stand: taps are cut only around tiles of one output row (column)."""
    allowed = np.ones((1,) * len(Dim), dtype=np.bool_)
    for out, tap in ((Dim.P, Dim.R), (Dim.Q, Dim.S)):
        whole = (here.ladders[tap].trips == 1)[None, :]
        one_row, one_tap = (here.ladders[dim].sizes(level) == 1 for dim in (out, tap))
        single = one_row[:, None] & one_tap[None, :]
        shape = [1] * len(Dim)
        shape[out], shape[tap] = single.shape
        allowed = allowed & (whole | single).reshape(shape)
    return allowed


def tile_elements(
    here: Arrangement, rules: Rules, tensor: Tensor, level: int, *, first: bool = False
) -> Floats:
    """At most the elements of the largest tile of one instance, or of the first one."""
    windows = {Dim.P, Dim.Q, Dim.R, Dim.S} if tensor is Tensor.INPUT else set[Dim]()
    dims = RELEVANT[tensor] - windows
    size = outer({dim: here.ladders[dim].least_sizes(level) for dim in dims})
    for along, (out, tap) in enumerate(((Dim.P, Dim.R), (Dim.Q, Dim.S))):
        if tensor is Tensor.INPUT:
            window = _largest_window(here, rules, along, out, tap, level, first=first)
            size = size * window
    return size


def _largest_window(
    here: Arrangement, rules: Rules, along: int, out: Dim, tap: Dim, level: int, *, first: bool
) -> Floats:
    """Rows of the largest tile: no less than those of the first, and of one inside the image.

    The first piece is a full one. Where an instance has a single tap, some instance or step has the
    tap that begins at the border, and its rows are real. With four pieces or more along a dim, some
    piece of full size is neither first nor last: a loop of three trips or more has a full piece in
    its middle; after one of two trips the second half begins with a full piece, and it ends there
    only if there are three pieces in all.
    """
    outs = here.ladders[out].least_sizes(level)[:, None]
    taps = here.ladders[tap].least_sizes(level)
    stride, dilation = here.shape.stride[along], here.shape.dilation[along]
    pad, size = here.shape.pad[along], here.shape.size[along]
    reach = (outs - 1) * stride + (taps - 1) * dilation + 1
    rows = reach if dilation == 1 else outs + taps - 1  # at least so many different sums
    rows = np.where((taps < stride) & (dilation == 1), outs * taps, rows)
    if not rules.count_padding:

        def of_first_piece(begin: int) -> Ints:
            below = np.maximum(reach + begin - pad - size, 0)
            left: Ints = np.maximum(rows - np.minimum(max(pad - begin, 0), reach) - below, 0)
            return left

        outermost = of_first_piece(0)
        if not first:
            inside = min(-(-pad // dilation), here.shape[tap] - 1) * dilation
            single = np.broadcast_to(taps == 1, rows.shape)
            outermost = np.where(single, np.maximum(outermost, of_first_piece(inside)), outermost)
        bottom = (here.shape[out] - 1) * stride + (here.shape[tap] - 1) * dilation + 1 - pad - size
        lost = np.maximum(pad - outs * stride, 0) + max(bottom - stride, 0)
        middle = np.where(-(-here.shape[out] // outs) >= MIDDLE, np.maximum(rows - lost, 0), 0)
        rows = outermost if first else np.maximum(outermost, middle)
    shape = [1] * len(Dim)
    shape[out], shape[tap] = rows.shape
    return rows.reshape(shape).astype(np.float64)


def last_tile(here: Arrangement) -> Floats:
    """At most the outputs of the last tile that goes outward: the whole dim, or one element."""
    return outer(
        {
            dim: np.where(ladder.trips == 1, here.shape[dim], 1)
            for dim, ladder in zip(Dim, here.ladders, strict=True)
            if dim in RELEVANT[Tensor.OUTPUT]
        }
    )


def constant(here: Arrangement, tensor: Tensor) -> npt.NDArray[np.bool_]:
    """Where the tile of a tensor never changes."""
    product = outer({dim: here.ladders[dim].trips == 1 for dim in RELEVANT[tensor]})
    return product > 0


def packed_bits(here: Arrangement, store: WeightStore, level: int) -> Floats:
    """At most the room of the compressed weight tile, as ``capacity.occupancy`` counts it."""
    sizes = {dim: here.ladders[dim].least_sizes(level) for dim in RELEVANT[Tensor.WEIGHT]}
    shape = [sizes[dim].size if dim in sizes else 1 for dim in Dim]
    bits = np.empty(shape)
    # The fullest tile of fewer channels may be fuller: at the last place any of them may stand.
    filters, channels = (_all_sizes(here.ladders[dim], level) for dim in (Dim.K, Dim.C))
    starts = [np.arange(sizes[dim].size) for dim in (Dim.K, Dim.C)]
    for i, rows in enumerate(sizes[Dim.R]):
        for j, columns in enumerate(sizes[Dim.S]):
            pairs = store.tile_bits(filters, channels, int(rows * columns))
            pairs = np.minimum.reduceat(pairs, starts[0], axis=0)
            pairs = np.minimum.reduceat(pairs, starts[1], axis=1)
            block = np.multiply.outer(sizes[Dim.G], pairs)
            bits[0, :, :, :, 0, 0, i, j] = block
    return bits


def _all_sizes(ladder: Ladder, level: int) -> Ints:
    """Sizes of an instance's tile for each product, and at the end all that the last may have."""
    ends = np.unique(-(-ladder.extent // (ladder.ends * ladder.fans[level])))
    return np.append(ladder.sizes(level), ends)


def folds(here: Arrangement, level: int) -> Floats:
    """At least so many tiles of an instance one after the other, over all dims."""
    return outer(
        {
            dim: np.ceil(here.shape[dim] / (ladder.sizes(level) * ladder.fans[level]))
            for dim, ladder in zip(Dim, here.ladders, strict=True)
        }
    )


def apart(here: Arrangement, dims: Sequence[Dim]) -> int:
    """At least so many instances with work differ in some dims."""
    count = 1
    for dim, _, size in here.fan:
        if dim in dims and sum(each is dim for each, _, _ in here.fan) == 1:
            count *= int(_used(here, dim, size).min())
    return count


def busy(here: Arrangement) -> Sequence[int]:
    """At least so many instances of each array axis have work."""
    used = [1] * len(here.hardware.axis_sizes)
    for dim, axis, size in here.fan:
        if sum(each is dim for each, _, _ in here.fan) == 1:
            used[axis] *= int(_used(here, dim, size).min())
    return used
