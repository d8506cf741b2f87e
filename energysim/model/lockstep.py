"""Array steps of a layer whose zero weights are skipped: who waits for whom, on the exact mask.

The pre-defined patterns are known before training, so nothing here is a mean over a density: the
steps are those of the mask that the trainer uses. Gating never changes steps, skipping does.

References
----------
Slot rule and patterns: :mod:`energysim.sparsity`. Y.-H. Chen, T.-J. Yang, J. Emer, V. Sze, "Eyeriss
v2", IEEE JETCAS 9(2), 2019, describes an array whose elements skip zeros and wait for each other.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import product
from math import prod
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from energysim.axes import Dim
from energysim.errors import InputError, did_you_mean
from energysim.mapping import Nest
from energysim.model.tiling import (
    CHANNELS,
    TAPS,
    OrderWord,
    Pieces,
    Spread,
    Tiling,
    loops_over,
    nest_order,
    nest_pieces,
    nest_tiling,
    residues_of,
    rule_tilings,
    tap_pieces,
)
from energysim.sparsity import Mask

Bools = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int64]

WeightsWord = Literal["none", "gate", "skip"]
OrderChoice = Literal["natural", "by_slot", "auto"]

REPLICAS = frozenset({Dim.N, Dim.P, Dim.Q})
"""Dims that no weight has: spread over an axis, they put the same kernels there again."""


@dataclass(frozen=True, slots=True)
class Group:
    """What waits together: the kernels of one array step, or of ``pe_queue`` of them."""

    steps: int
    """deliveries of its busiest port"""
    groups: tuple[int, ...]
    """indices along G of its kernels"""
    filters: tuple[int, ...]
    """indices along K of its kernels"""
    channels: tuple[int, ...]
    """indices along C of its kernels"""


@dataclass(frozen=True, slots=True)
class LockStep:
    """Array steps of one layer for one output position of every processing element."""

    steps: int
    """array steps with the zeros skipped (or not); multiply by the trips of the temporal loops over
    N, P and Q for the steps of a layer"""
    dense_steps: int
    """array steps of the dense layer: same array, channels in natural order"""
    macs: int
    """multiply-accumulates, zeros included, for one output position"""
    effective_macs: int
    """multiply-accumulates with a live weight, for one output position"""
    places: int
    """processing elements over which the dims of the weights are spread"""
    order: tuple[tuple[str, OrderWord], ...]
    """channel order that was used, by axis"""
    groups: int
    """how many groups there are, each of which ends with everyone waiting for the slowest"""
    max_steps: int
    """steps of the slowest group"""
    port_waits: int
    """cycles that ports stand still because another port of their group is busy, summed over the
    ports that have a kernel in the group"""
    lost_cycles: float
    """steps minus those that each group would take if its ports shared its deliveries evenly"""
    slowest: Group
    """the first of the groups with ``max_steps``"""

    @property
    def ratio(self) -> float:
        """Steps relative to the dense layer on the same array."""
        return self.steps / self.dense_steps

    @property
    def mean_steps(self) -> float:
        """Mean steps of a group."""
        return self.steps / self.groups

    @property
    def utilization(self) -> float:
        """Live multiply-accumulates per step and place; 0 where nothing is live."""
        return self.effective_macs / (self.steps * self.places) if self.steps else 0.0

    @property
    def dense_utilization(self) -> float:
        """Multiply-accumulates of the dense layer per step and place."""
        return self.macs / (self.dense_steps * self.places)


@dataclass(frozen=True, slots=True)
class Skipped:
    """Array steps of a layer whose zero weights are skipped."""

    lock: LockStep
    """for one step of the loops over N, P and Q"""
    times: int
    """steps of these loops"""

    @property
    def steps(self) -> int:
        """Of the layer."""
        return self.lock.steps * self.times

    def to_dict(self) -> dict[str, Any]:
        """As plain data, for the whole layer."""
        lock = self.lock
        slowest = asdict(lock.slowest)
        return {
            "order": dict(lock.order),
            "steps": self.steps,
            "dense_steps": lock.dense_steps * self.times,
            "groups": lock.groups * self.times,
            "mean_steps": lock.mean_steps,
            "max_steps": lock.max_steps,
            "lost_cycles": self.lost_cycles,
            "slowest": {name: slowest[name] for name in ("groups", "filters", "channels")},
        }

    @property
    def lost_cycles(self) -> float:
        """Steps in which ports wait for slower ones."""
        return self.lock.lost_cycles * self.times


def lock_step(
    mask: Mask | Bools,
    spreads: Iterable[Spread],
    *,
    weights: WeightsWord = "skip",
    order: OrderChoice | Mapping[str, OrderChoice] = "natural",
    pe_queue: int | None = 1,
    loops: Sequence[Dim] = (Dim.G, Dim.C, Dim.K),
    period: int | None = None,
) -> LockStep:
    """Count the array steps of a layer exactly.

    Parameters
    ----------
    mask : Mask or bool array, shape (G, K, C, R, S)
        Live weights.
    spreads : iterable of Spread
        What stands side by side on the array; all else is temporal. Several spreads of one dim
        multiply. An output-stationary array spreads K and an output dim, a weight-stationary one C
        and K.
    weights : {"none", "gate", "skip"}
        What the array does with zeros. ``none`` and ``gate`` take the dense steps whatever the mask
        and the order.
    order : {"natural", "by_slot", "auto"}, or a mapping of axis to one of them
        Channels along each axis: as numbered, or grouped by their residue mod ``period`` so that
        no tile holds two residues. A dim on several axes is grouped if one of them says so.
        ``auto`` takes the choice with the fewest steps, on a tie the one with the fewest grouped
        axes. Axes that a mapping leaves out are in natural order.
    pe_queue : int or None
        Kernels that each processing element holds, n; None = without limit. See Notes.
    loops : sequence of Dim
        G, K and C, outermost first: the order of the array steps. It decides which kernels stand
        in a queue together and which of several slowest groups is the first, nothing else.
    period : int, optional
        Of ``by_slot``. The mask's own unless given; an array or a random mask has none.

    Returns
    -------
    LockStep

    Raises
    ------
    InputError
        If an argument is not one of the above, or channels shall be grouped that have no period.

    Notes
    -----
    An *array step of the dense nest* sets a tile of channels (G, K, C) on the array. Each live
    input channel (g, c) has one input port. The processing elements on it belong to different
    filters k; they can use only what the port delivers, so it delivers the union of their supports,
    one tap a cycle. Temporal loops over R and S stand inside, wherever the nest has them: two ports
    need not be at the same tap. R or S spread over the array give each piece of ceil(extent /
    count) rows or columns a port of its own. Ports that run together wait for the slowest::

        steps = sum over tiles of  max over ports (g, c, piece)  |union over k of support(g, k, c)|

    Where C is temporal only one channel is live and its port waits for nobody. A tile without a
    live tap takes no step.

    *Queue.* With ``pe_queue = n``, every processing element holds its kernels of n tiles that
    follow each other in ``loops`` order (the last queue may be shorter) and each port serves them
    one after the other without waiting; ports wait for each other only at the end of the queue::

        steps = sum over queues of  max over ports  (sum over the n tiles of its deliveries)

    A port is a place on the array here: the channels that stand there in turn share it. Partial
    sums of different tiles are in flight at once, n at most, and need room. n = 1 is plain lock
    step. Without limit, the steps are the deliveries of the busiest port in all, which is the
    mean over the ports where all carry the same and never below it. A queue helps where the slow
    kernel comes to another port from tile to tile: the FDK does so along K if grouped by slot
    (tiles that follow each other have different residues), but along C only where the tile is no
    multiple of the period. Doubling n never costs steps; adding one may.

    *Classes.* In a periodic mask only residues mod the period P matter: the deliveries of a port
    follow from the set of residues of the filters in the tile and the residue of its channel, so
    the tiles fall into few classes, which are counted instead of walked (n = 1).

    Examples
    --------
    >>> from energysim.axes import Shape
    >>> layer = Shape((1, 1, 256, 256, 14, 14, 3, 3), pad=(1, 1), size=(14, 14))
    >>> array = [Spread(Dim.C, 64, "rows"), Spread(Dim.K, 64, "cols")]
    >>> mask = Mask.of("PS4_P4", layer)
    >>> lock_step(mask, array).ratio
    1.0
    >>> round(lock_step(mask, array, order={"cols": "by_slot"}).ratio, 3)
    0.444
    """
    array = tuple(spreads)
    _refuse(array, weights, pe_queue, loops)
    dims = _dims(mask)
    if period is None and isinstance(mask, Mask) and mask.periodic:
        period = mask.pattern.period
    if period is not None and period < 1:
        raise InputError(f"period must be at least 1, got {period}")
    choices = _orders(array, order, grouping=period is not None)
    if weights != "skip":
        # Neither mask nor order can matter: the array does what a dense layer makes it do.
        choices, pe_queue = [dict.fromkeys(choices[0], "natural")], 1
    natural = rule_tilings(dims, array, {spread.axis: "natural" for spread in array}, 1)
    height, width = dims[3:]
    pieces = tap_pieces(height, array, Dim.R), tap_pieces(width, array, Dim.S)
    results = [
        _count(
            mask, dims, array, pieces, rule_tilings(dims, array, choice, period or 1), natural,
            choice, pe_queue, loops, dense=weights != "skip",
        )
        for choice in choices
    ]  # fmt: skip
    # min takes the first of equals, and the choices come with the fewest grouped axes first.
    return min(results, key=lambda result: result.steps)


def lock_step_of(
    mask: Mask,
    nest: Nest,
    trips: Sequence[int],
    *,
    axes: Sequence[str],
    order: OrderChoice | Mapping[str, OrderChoice] = "natural",
    pe_queue: int | None = 1,
) -> LockStep:
    """Count the array steps of a mapping that skips zeros: as :func:`lock_step`, with its tiles.

    Tiles and places are those of the nest, ragged ones included. ``by_slot`` renumbers the channels
    along an axis, so that those of one residue fill one tile after the other, and leaves the nest
    as it is: traffic does not change, and where a class is narrower than a tile, the tile holds two
    residues (instead of standing partly empty, as in :func:`lock_step`). So no order takes more
    steps than a dense layer.

    Parameters
    ----------
    mask : Mask
    nest : Nest
    trips : sequence of int
        Trip count of each loop.
    axes : sequence of str
        Names of the array axes.
    order, pe_queue
        As in :func:`lock_step`; a mask without a period has no slots and stays as numbered.

    Returns
    -------
    LockStep

    Raises
    ------
    InputError
        As :func:`lock_step`.
    """
    array = _array_of(nest, trips, axes)
    given = order
    if not isinstance(order, str):
        busy = {spread.axis for spread in array}
        given = {axis: word for axis, word in order.items() if axis in busy}
    period = mask.pattern.period if mask.periodic else None
    own = {dim: loops_over(nest, trips, dim) for dim in CHANNELS}

    def tilings(choice: Mapping[str, OrderWord]) -> dict[Dim, Tiling]:
        residues = residues_of(mask.dims, array, choice, period or 1)
        return {dim: nest_tiling(residues[dim], own[dim]) for dim in CHANNELS}

    natural = tilings({spread.axis: "natural" for spread in array})
    loops = _loop_order(nest, trips)
    height, width = mask.dims[3:]
    pieces = (
        nest_pieces(height, loops_over(nest, trips, Dim.R)),
        nest_pieces(width, loops_over(nest, trips, Dim.S)),
    )
    if period is None:
        given = "natural"
    results = [
        _count(mask, mask.dims, array, pieces, tilings(choice), natural, choice, pe_queue, loops,
               dense=False)
        for choice in _orders(array, given, grouping=period is not None)
    ]  # fmt: skip
    return min(results, key=lambda result: result.steps)


def in_nest_order(
    mask: Mask,
    nest: Nest,
    trips: Sequence[int],
    *,
    axes: Sequence[str],
    order: Mapping[str, OrderWord],
) -> Bools:
    """Write a mask out with its channels in the order in which the loops take them.

    Parameters
    ----------
    mask, nest, trips, axes
        As in :func:`lock_step_of`.
    order : mapping
        Of the channels, by axis: ``LockStep.order``.

    Returns
    -------
    bool array, shape (G, K, C, R, S)
    """
    live = mask.array()
    period = mask.pattern.period if mask.periodic else 1
    residues = residues_of(mask.dims, _array_of(nest, trips, axes), order, period)
    for place, dim in enumerate(CHANNELS):
        number = nest_order(residues[dim], loops_over(nest, trips, dim))
        live = np.take(live, np.argsort(number), axis=place)
    return live


def _array_of(nest: Nest, trips: Sequence[int], axes: Sequence[str]) -> tuple[Spread, ...]:
    """What stands side by side."""
    return tuple(
        Spread(loop.dim, count, axes[loop.axis])
        for loop, count in zip(nest.loops, trips, strict=True)
        if loop.axis is not None and count > 1
    )


def _loop_order(nest: Nest, trips: Sequence[int]) -> tuple[Dim, ...]:
    """G, K and C by their innermost temporal loops, outermost first."""
    last = dict.fromkeys(CHANNELS, -1)
    for position, (loop, count) in enumerate(zip(nest.loops, trips, strict=True)):
        if loop.dim in last and loop.axis is None and count > 1:
            last[loop.dim] = position
    return tuple(sorted(CHANNELS, key=last.__getitem__))


# -- arguments -----------------------------------------------------------------------------------


def _refuse(
    array: tuple[Spread, ...], weights: str, pe_queue: int | None, loops: Sequence[Dim]
) -> None:
    if weights not in ("none", "gate", "skip"):
        raise InputError(f"weights must be none, gate or skip, got {weights!r}")
    if pe_queue is not None and pe_queue < 1:
        raise InputError(f"pe_queue must be at least 1 (None = without limit), got {pe_queue}")
    if sorted(loops) != sorted(CHANNELS):
        given = ", ".join(dim.name for dim in loops) or "none"
        raise InputError(f"loops must name G, K and C once each, got {given}")
    for spread in array:
        where = f"{spread.dim.name} on axis '{spread.axis}'"
        if spread.count < 1 or spread.piece < 1:
            raise InputError(
                f"{where}: count and piece must be at least 1, got {spread.count}, {spread.piece}"
            )
        if spread.piece > 1 and spread.dim not in CHANNELS:
            raise InputError(f"{where}: only G, K and C have pieces, got {spread.piece}")


def _dims(mask: Mask | Bools) -> tuple[int, int, int, int, int]:
    if isinstance(mask, Mask):
        return mask.dims
    if mask.ndim != len(CHANNELS) + len(TAPS) or mask.dtype != np.bool_ or not mask.size:
        raise InputError(
            f"a mask is a bool array [G, K, C, R, S] with something in it, got {mask.dtype} "
            f"{list(mask.shape)}"
        )
    groups, filters, channels, height, width = mask.shape
    return groups, filters, channels, height, width


def _orders(
    array: tuple[Spread, ...], order: OrderChoice | Mapping[str, OrderChoice], *, grouping: bool
) -> list[dict[str, OrderWord]]:
    """Orders to try, by axis, those with the fewest grouped axes first."""
    axes = tuple(dict.fromkeys(spread.axis for spread in array))
    known = ("natural", "by_slot", "auto")
    given = dict.fromkeys(axes, order) if isinstance(order, str) else dict(order)
    for axis, word in given.items():
        if axis not in axes:
            hint = did_you_mean(axis, axes) or f" Axes in use: {', '.join(axes) or 'none'}"
            raise InputError(f"order: nothing is spread over an axis named '{axis}'.{hint}")
        if word not in known:
            raise InputError(f"order of '{axis}' must be {', '.join(known)}, got {word!r}")
    busy = {spread.axis for spread in array if spread.dim in CHANNELS}
    words: list[tuple[OrderWord, ...]] = []
    for axis in axes:
        word = given.get(axis, "natural")
        if word == "by_slot" and not grouping:
            raise InputError(
                f"order of '{axis}' is by_slot, but the mask has no period. Give period, or take "
                "natural"
            )
        if word == "auto":
            both = grouping and axis in busy
            words.append(("natural", "by_slot") if both else ("natural",))
        else:
            words.append((word,))
    tried = [dict(zip(axes, choice, strict=True)) for choice in product(*words)]
    return sorted(tried, key=lambda choice: list(choice.values()).count("by_slot"))


# -- deliveries ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Needs:
    """Deliveries of every kind of port.

    A port of filter tile t, group g and channel c needs ``deliveries[kind[t], port[g, c]]``.
    """

    deliveries: Ints
    """shape (kinds of filter tiles, kinds of channels, pieces of a kernel)"""
    kind: Ints
    """kind of every filter tile, shape (tiles of K,)"""
    port: Ints
    """kind of every channel, shape (G, C)"""


def _per_piece(live: Bools, rows: Pieces, columns: Pieces) -> Ints:
    """Count the live taps in every piece of kernels ``(..., R, S)``: shape (..., pieces)."""
    live = live[..., rows.order[:, None], columns.order]
    counts = np.add.reduceat(live.astype(np.int64), columns.starts, axis=-1)
    counts = np.add.reduceat(counts, rows.starts, axis=-2)
    return counts.reshape(*live.shape[:-2], rows.starts.size * columns.starts.size)


def _periodic_needs(mask: Mask, filters: Tiling, rows: Pieces, columns: Pieces) -> _Needs:
    """Needs of a periodic mask: only residues count, of the filters and of the channel."""
    period = mask.pattern.period
    table = _slot_table(mask)
    held = np.zeros((filters.tiles, period), dtype=np.bool_)
    held[filters.tile, np.arange(mask.dims[1]) % period] = True
    kinds, kind = np.unique(held, axis=0, return_inverse=True)
    number = np.arange(period)
    by_channel = table[(number[:, None] + number) % period]
    union = np.zeros((len(kinds), *table.shape), dtype=np.bool_)
    for residue in range(period):
        union |= kinds[:, residue, None, None, None] & by_channel[:, residue]
    groups, _, channels = mask.dims[:3]
    offset = np.arange(groups) * (mask.dims[1] + channels) + 1
    port = (offset[:, None] + np.arange(channels)) % period
    return _Needs(_per_piece(union, rows, columns), kind.reshape(-1), port)


def _slot_table(mask: Mask) -> Bools:
    """Supports of the slots of a periodic mask, shape (P, R, S)."""
    period = mask.pattern.period
    # The filters 0 .. P - 1 of a lone channel stand in the slots 1 .. P - 1, 0.
    column = replace(mask, dims=(1, period, 1, *mask.dims[3:])).array()[0, :, 0]
    return np.roll(column, 1, axis=0)


def _array_needs(live: Bools, filters: Tiling, rows: Pieces, columns: Pieces) -> _Needs:
    """Needs of any mask: every filter tile and every channel is a kind of its own."""
    groups, _, channels, height, width = live.shape
    by_tile = np.argsort(filters.tile, kind="stable")
    starts = np.searchsorted(filters.tile[by_tile], np.arange(filters.tiles))
    union = np.logical_or.reduceat(live[:, by_tile], starts, axis=1)
    union = union.transpose(1, 0, 2, 3, 4).reshape(filters.tiles, -1, height, width)
    port = np.arange(groups * channels, dtype=np.int64).reshape(groups, channels)
    return _Needs(_per_piece(union, rows, columns), np.arange(filters.tiles, dtype=np.int64), port)


def _ports(needs: _Needs, groups: Tiling, channels: Tiling) -> Ints:
    """Kind of channel at every place, -1 at an empty one: (tiles of G, tiles of C, places)."""
    at = np.full((groups.tiles, channels.tiles, groups.places, channels.places), -1, dtype=np.int64)
    at[groups.tile[:, None], channels.tile[None], groups.place[:, None], channels.place[None]] = (
        needs.port
    )
    return at.reshape(groups.tiles, channels.tiles, -1)


# -- steps ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Waiting:
    """Steps of the groups, and what their ports wait."""

    steps: int
    groups: int
    port_waits: int
    lost: float
    slowest: tuple[Ints, Ints, Ints]
    """tiles of G, K and C of the slowest group"""
    max_steps: int


def _plain(needs: _Needs, ports: Ints, axes: tuple[int, ...], *, alike: bool) -> _Waiting:
    """Lock step without a queue: tiles that are alike are counted, not walked."""
    places = ports.reshape(-1, ports.shape[-1])
    kinds = _alike(places, needs.deliveries.shape[1]) if alike else None
    first, kind = kinds or (np.arange(len(places)), np.arange(len(places)))
    there = places[first] >= 0
    # (kinds of filter tiles, kinds of channel tiles, places, pieces)
    loads = np.where(there[..., None], needs.deliveries[:, places[first]], 0)
    slow, total = loads.max(axis=(-1, -2)), loads.sum(axis=(-1, -2))
    live = there.sum(axis=-1) * needs.deliveries.shape[-1]
    times = np.outer(
        np.bincount(needs.kind, minlength=len(slow)), np.bincount(kind, minlength=len(first))
    )
    most = int(slow.max())
    grid = (slow == most)[needs.kind][:, kind].reshape(-1, *ports.shape[:2])
    hits = grid.transpose(1, 0, 2).transpose(axes)
    where = np.unravel_index(int(hits.argmax()), hits.shape)
    tile = [np.zeros(1, dtype=np.int64)] * len(CHANNELS)
    for axis, index in zip(axes, where, strict=True):
        tile[axis] = np.array([index])
    return _Waiting(
        steps=int((times * slow).sum()),
        groups=int(times.sum()),
        port_waits=int((times * (slow * live - total)).sum()),
        lost=float((times * (slow - total / live)).sum()),
        slowest=(tile[0], tile[1], tile[2]),
        max_steps=most,
    )


def _alike(places: Ints, kinds: int) -> tuple[Ints, Ints]:
    """First of the channel tiles with the same channels by kind, and which each tile is like."""
    number = np.arange(len(places))[:, None]
    # One column more takes the empty places.
    counts = np.bincount(
        (number * (kinds + 1) + places % (kinds + 1)).ravel(), minlength=len(places) * (kinds + 1)
    )
    _, first, kind = np.unique(
        counts.reshape(len(places), -1), axis=0, return_index=True, return_inverse=True
    )
    return first, kind.reshape(-1)


def _queued(needs: _Needs, ports: Ints, axes: tuple[int, ...], size: int | None) -> _Waiting:
    """Ports that wait for each other once in ``size`` tiles."""
    there = ports >= 0
    loads = np.where(there[..., None], needs.deliveries[:, ports][needs.kind], 0)
    shape = (ports.shape[0], needs.kind.size, ports.shape[1])
    grid = loads.reshape(shape[1], shape[0], shape[2], -1).transpose(1, 0, 2, 3)
    tiles = prod(shape)
    walk = grid.transpose(*axes, 3).reshape(tiles, -1)
    used = np.broadcast_to(there[:, None, :, :, None], (*shape, *loads.shape[-2:]))
    used_walk = used.reshape(*shape, -1).transpose(*axes, 3).reshape(tiles, -1)
    starts = np.arange(0, tiles, size or tiles)
    sums = np.add.reduceat(walk, starts, axis=0)
    live = np.logical_or.reduceat(used_walk, starts, axis=0).sum(axis=-1)
    slow, total = sums.max(axis=-1), sums.sum(axis=-1)
    worst = int(slow.argmax())
    span = np.arange(starts[worst], min(starts[worst] + (size or tiles), tiles))
    where = np.unravel_index(span, tuple(shape[axis] for axis in axes))
    tile = [np.zeros(1, dtype=np.int64)] * len(CHANNELS)
    for axis, index in zip(axes, where, strict=True):
        tile[axis] = np.unique(index)
    return _Waiting(
        steps=int(slow.sum()),
        groups=starts.size,
        port_waits=int((slow * live - total).sum()),
        lost=float((slow - total / live).sum()),
        slowest=(tile[0], tile[1], tile[2]),
        max_steps=int(slow[worst]),
    )


def _count(
    mask: Mask | Bools,
    dims: tuple[int, int, int, int, int],
    array: tuple[Spread, ...],
    pieces: tuple[Pieces, Pieces],
    tilings: Mapping[Dim, Tiling],
    natural: Mapping[Dim, Tiling],
    order: Mapping[str, OrderWord],
    pe_queue: int | None,
    loops: Sequence[Dim],
    *,
    dense: bool,
) -> LockStep:
    """Steps for one channel order, with its tiles and those of the natural order."""
    rows, columns = pieces
    periodic = isinstance(mask, Mask) and mask.periodic
    if isinstance(mask, Mask) and mask.periodic:
        needs = _periodic_needs(mask, tilings[Dim.K], rows, columns)
    else:
        live = mask.array() if isinstance(mask, Mask) else mask
        needs = _array_needs(live, tilings[Dim.K], rows, columns)
    kernel = _per_piece(np.ones(dims[3:], dtype=np.bool_), rows, columns)
    if dense:
        needs = _Needs(np.broadcast_to(kernel, needs.deliveries.shape), needs.kind, needs.port)
    ports = _ports(needs, tilings[Dim.G], tilings[Dim.C])
    axes = tuple(CHANNELS.index(dim) for dim in loops)
    if pe_queue == 1:
        waiting = _plain(needs, ports, axes, alike=periodic)
    else:
        waiting = _queued(needs, ports, axes, pe_queue)
    members = [
        tuple(np.flatnonzero(np.isin(tilings[dim].tile, tiles)).tolist())
        for dim, tiles in zip(CHANNELS, waiting.slowest, strict=True)
    ]
    return LockStep(
        steps=waiting.steps,
        dense_steps=prod(tiling.tiles for tiling in natural.values()) * int(kernel.max()),
        macs=prod(dims),
        effective_macs=mask.nonzeros if isinstance(mask, Mask) else int(mask.sum()),
        places=prod(spread.count for spread in array if spread.dim not in REPLICAS),
        order=tuple(order.items()),
        groups=waiting.groups,
        max_steps=waiting.max_steps,
        port_waits=waiting.port_waits,
        lost_cycles=waiting.lost,
        slowest=Group(waiting.max_steps, members[0], members[1], members[2]),
    )
