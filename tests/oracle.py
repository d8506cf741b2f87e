"""The counting rule, walked step by step with explicit sets of elements: the judge of the model.

Nothing here is clever and nothing is shared with ``energysim.model``. Every tile is a set of
element coordinates; every count is the size of a set or a sum of such sizes.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise, product

from energysim.axes import REDUCTION, Dim, Shape, Tensor
from energysim.mapping import Nest, Rules

Index = tuple[int, ...]
"""indices of some loops, in the order of the nest"""
Element = tuple[int, ...]
"""coordinates of one element of a tensor"""
Tile = frozenset[Element]
Tiles = Mapping[Index, Tile]
"""the tile of every instance at one moment; an instance that is not named holds nothing"""
Key = tuple[int, Tensor, str]
"""level, tensor, name of the count"""
Live = frozenset[tuple[int, int, int, int, int]]
"""weights (g, k, c, r, s) that may differ from zero"""

NOTHING: Tile = frozenset()
DEFAULT = Rules()


@dataclass(frozen=True, slots=True)
class Walk:
    """What a walk of the whole nest counted."""

    steps: int
    """temporal steps in which at least one MAC had work"""
    counts: dict[Key, int]
    """elements by (level, tensor, name); a missing key is zero (it is a ``Counter``)"""


def walk(shape: Shape, nest: Nest, trips: Sequence[int], rules: Rules = DEFAULT) -> Walk:
    """Count every move of every element by walking the nest step by step.

    Parameters
    ----------
    shape : Shape
        The layer.
    nest : Nest
        Loops, cuts and axes.
    trips : sequence of int
        Trip count of each of ``nest.loops``; together they must cut every dim into single indices.
    rules : Rules
        How data moves.

    Returns
    -------
    Walk
        The number of steps, and counts named ``fill``, ``read``, ``update``, ``drain``,
        ``update_complete``, ``drain_complete`` and ``hop``.
    """
    return _Walker(shape, nest, tuple(trips), rules).walk()


def walk_inputs(
    shape: Shape, nest: Nest, trips: Sequence[int], rules: Rules, live: Live
) -> dict[Key, int]:
    """Count the inputs that live weights need, by walking the nest with the mask in hand.

    Parameters
    ----------
    shape, nest, trips, rules
        As in :func:`walk`.
    live : set of (g, k, c, r, s)
        The weights that may differ from zero.

    Returns
    -------
    dict
        ``read``, ``fill`` and ``hop`` of inputs.
    """
    walker = _Walker(shape, nest, tuple(trips), rules)
    walker.walk_inputs(live)
    return dict(walker.counts)


def walk_sums(
    shape: Shape, nest: Nest, trips: Sequence[int], rules: Rules, live: Live
) -> dict[Key, int]:
    """Count what MACs do to their sums, by stepping the array delivery by delivery.

    Parameters and return value as of :func:`walk_inputs`, for ``read``, ``update`` and ``hop`` of
    outputs at the innermost level that holds them.
    """
    walker = _Walker(shape, nest, tuple(trips), rules)
    walker.walk_sums(live)
    return dict(walker.counts)


def walk_weights(
    shape: Shape, nest: Nest, trips: Sequence[int], rules: Rules
) -> dict[tuple[int, int], tuple[Counter[Tile], Counter[Tile]]]:
    """List the tiles of weights that move between two levels, in which they move whole.

    Returns
    -------
    dict
        By (outer, inner) level: how often each tile is read at the outer one, and how often one of
        the instances of the inner one is filled with it.
    """
    walker = _Walker(shape, nest, tuple(trips), rules)
    holders = nest.holders(Tensor.WEIGHT)
    return {pair: walker.weight_tiles(*pair) for pair in pairwise(holders)}


class _Walker:
    """One walk: the inputs, two caches of what loops touch, and the counts so far."""

    def __init__(self, shape: Shape, nest: Nest, trips: Index, rules: Rules) -> None:
        if len(trips) != len(nest.loops):
            raise ValueError(f"{len(trips)} trip counts for {len(nest.loops)} loops")
        self.shape, self.nest, self.trips, self.rules = shape, nest, trips, rules
        self.counts: Counter[Key] = Counter()
        loops = range(len(nest.loops))
        self.temporal = tuple(i for i in loops if nest.loops[i].axis is None)
        self.spatial = tuple(i for i in loops if nest.loops[i].axis is not None)
        self.loops_of = {d: tuple(i for i in loops if nest.loops[i].dim is d) for d in Dim}
        self._pieces = {dim: self._cut(dim) for dim in Dim}
        self._touched: dict[tuple[Dim, tuple[int | None, ...]], frozenset[int]] = {}
        self._tiles: dict[tuple[Tensor, tuple[frozenset[int], ...]], Tile] = {}

    def walk(self) -> Walk:
        """Enumerate the steps, then every boundary between two holders of every tensor."""
        steps = [
            index
            for index in product(*(range(self.trips[i]) for i in self.temporal))
            if all(self.touched(dim, dict(zip(self.temporal, index, strict=True))) for dim in Dim)
        ]
        for tensor in Tensor:
            holders = self.nest.holders(tensor)
            for outer, inner in pairwise(holders):
                self.boundary(tensor, outer, inner, steps)
            if holders:
                self.boundary(tensor, holders[-1], None, steps)
        return Walk(len(steps), +self.counts)

    def walk_inputs(self, live: Live) -> None:
        """Walk every boundary of the inputs; tiles are what live weights need of them."""
        steps = [
            index
            for index in product(*(range(self.trips[i]) for i in self.temporal))
            if all(self.touched(dim, dict(zip(self.temporal, index, strict=True))) for dim in Dim)
        ]
        for outer, inner in pairwise((*self.nest.holders(Tensor.INPUT), None)):
            assert outer is not None
            self.live_boundary(outer, inner, steps, live)

    def live_boundary(self, outer: int, inner: int | None, steps: list[Index], live: Live) -> None:
        """Count the inputs that live weights need below a boundary."""
        keeps = inner is not None or Tensor.INPUT in self.rules.latch
        outside = [i for i in self.outside(Tensor.INPUT, inner) if self.trips[i] > 1]
        instances = self.spatial_on(self.axes(inner))
        while keeps and outside and self.nest.loops[outside[-1]].dim is Dim.K:
            if self.idles(Dim.K, outside, instances):
                break
            outside.pop()  # the whole tile stays while it turns: it serves all these filters
        places = [self.temporal.index(i) for i in outside]
        old: dict[Index, Tile] = {}
        old_whole: dict[Index, Tile] = {}
        for index, _ in groupby(tuple(step[place] for place in places) for step in steps):
            new, whole, moved = {}, {}, {}
            for instance in product(*(range(self.trips[i]) for i in instances)):
                fixed = dict(zip((*outside, *instances), (*index, *instance), strict=True))
                whole[instance] = self.tile(Tensor.INPUT, fixed)
                new[instance] = self.live_inputs(fixed, live)
                held = old.get(instance, NOTHING)
                if inner in self.rules.refetch and whole[instance] != old_whole.get(instance):
                    held = NOTHING
                moved[instance] = new[instance] - held
            total = sum(len(tile) for tile in moved.values())
            self.add_inner(inner, Tensor.INPUT, "fill", total)
            self.add_hop(outer, inner, Tensor.INPUT, total)
            for tiles in self.groups(outer, inner, moved).values():
                read = _union(tiles) if self.rules.multicast else _total(tiles)
                self.counts[outer, Tensor.INPUT, "read"] += read
            old, old_whole = (new, whole) if keeps else ({}, {})

    def idles(self, dim: Dim, outside: Sequence[int], instances: Sequence[int]) -> bool:
        """Whether an instance has work in some steps over a dim and none in others that have."""
        own, spread = ([i for i in some if self.nest.loops[i].dim is dim]
                       for some in (outside, instances))  # fmt: skip
        steps = [
            at
            for index in product(*(range(self.trips[i]) for i in own))
            if self.touched(dim, at := dict(zip(own, index, strict=True)))
        ]
        return any(
            len(
                {
                    bool(self.touched(dim, at | dict(zip(spread, place, strict=True))))
                    for at in steps
                }
            )
            > 1
            for place in product(*(range(self.trips[i]) for i in spread))
        )

    def live_inputs(self, fixed: Mapping[int, int], live: Live) -> Tile:
        """Inputs under the live weights that are touched while the ``fixed`` loops stand still."""
        n, g, k, c, p, q, r, s = (self.touched(dim, fixed) for dim in Dim)
        return frozenset(
            (image, group, channel, row, column)
            for group, filt, channel, y, x in product(g, k, c, r, s)
            if (group, filt, channel, y, x) in live
            for image in n
            for row in self._positions(0, p, frozenset({y}))
            for column in self._positions(1, q, frozenset({x}))
        )

    def weight_tiles(self, outer: int, inner: int) -> tuple[Counter[Tile], Counter[Tile]]:
        """Go from tile to tile; one that is there already does not move."""
        outside = self.outside(Tensor.WEIGHT, inner)
        instances = self.spatial_on(self.axes(inner))
        reads: Counter[Tile] = Counter()
        fills: Counter[Tile] = Counter()
        old: dict[Index, Tile] = {}
        for index in product(*(range(self.trips[i]) for i in outside)):
            at = dict(zip(outside, index, strict=True))
            if not all(self.touched(dim, at) for dim in Dim):
                continue
            new = {
                instance: self.tile(Tensor.WEIGHT, at | dict(zip(instances, instance, strict=True)))
                for instance in product(*(range(self.trips[i]) for i in instances))
            }
            moved = {i: tile for i, tile in new.items() if tile and tile != old.get(i, NOTHING)}
            for instance, tile in moved.items():
                assert not tile & old.get(instance, NOTHING), "a tile of weights moves whole"
            fills.update(moved.values())
            for tiles in self.groups(outer, inner, moved).values():
                reads.update(frozenset(tiles) if self.rules.multicast else tiles)
            old = new
        return reads, fills

    def walk_sums(self, live: Live) -> None:
        """Set tile after tile on the array and deliver what its filters need, tap by tap."""
        outer = self.nest.holders(Tensor.OUTPUT)[-1]
        weights = (Dim.G, Dim.K, Dim.C, Dim.R, Dim.S)
        tiled = [i for i in self.temporal if self.nest.loops[i].dim in weights[:3]]
        spread = [i for i in self.spatial if self.nest.loops[i].dim in REDUCTION]
        own = [i for i in spread if self.nest.loops[i].axis in self.axes(outer)]
        alone = merged = 0
        summed: set[tuple[int, int, Index]] = set()
        for index in product(*(range(self.trips[i]) for i in tiled)):
            added: set[tuple[int, int, Index, int]] = set()
            for place in product(*(range(self.trips[i]) for i in spread)):
                at = dict(zip((*tiled, *spread), (*index, *place), strict=True))
                groups, filters, channels, rows, columns = (
                    sorted(self.touched(dim, at)) for dim in weights
                )
                sums = tuple(at[i] for i in own)
                for group, channel in product(groups, channels):  # one port each
                    cycle = 0
                    for row, column in product(rows, columns):
                        using = [k for k in filters if (group, k, channel, row, column) in live]
                        added |= {(group, k, sums, cycle) for k in using}
                        alone += len(using)
                        cycle += bool(using)
            merged += len(added)
            summed |= {each[:3] for each in added}
        pixels = self.shape[Dim.N] * self.shape[Dim.P] * self.shape[Dim.Q]
        back = merged - len(summed)  # an instance starts each sum from nothing
        key = outer, Tensor.OUTPUT
        reduce = self.rules.reduce
        self.counts[*key, "update"] = pixels * (merged if reduce else alone)
        self.counts[*key, "read"] = pixels * (back if reduce else alone - len(summed))
        if self.axes(None) > self.axes(outer):
            self.counts[*key, "hop"] = pixels * (back + alone)

    # ---- what loops touch

    def _cut(self, dim: Dim) -> dict[Index, int]:
        """Index tuple of all loops over one dim -> the single coordinate there; absent = empty."""
        loops = self.loops_of[dim]
        pieces: dict[Index, int] = {}
        for index in product(*(range(self.trips[i]) for i in loops)):
            start, end, size = 0, self.shape[dim], self.shape[dim]
            for i, at in zip(loops, index, strict=True):
                size = -(-size // self.trips[i])
                start += at * size
                end = min(end, start + size)
            if size != 1:
                raise ValueError(f"the loops over {dim.name} leave pieces of {size}")
            if start < end:
                pieces[index] = start
        return pieces

    def touched(self, dim: Dim, fixed: Mapping[int, int]) -> frozenset[int]:
        """Coordinates of one dim that are touched while the ``fixed`` loops stand still."""
        wanted = tuple(fixed.get(i) for i in self.loops_of[dim])
        key = dim, wanted
        if key not in self._touched:
            self._touched[key] = frozenset(
                coordinate
                for index, coordinate in self._pieces[dim].items()
                if all(w is None or w == at for w, at in zip(wanted, index, strict=True))
            )
        return self._touched[key]

    def tile(self, tensor: Tensor, fixed: Mapping[int, int]) -> Tile:
        """Elements that are touched while the ``fixed`` loops stand still; none without work."""
        ranges = tuple(self.touched(dim, fixed) for dim in Dim)
        if not all(ranges):
            return NOTHING
        key = tensor, ranges
        if key not in self._tiles:
            self._tiles[key] = frozenset(self._elements(tensor, ranges))
        return self._tiles[key]

    def _elements(self, tensor: Tensor, ranges: Sequence[frozenset[int]]) -> Iterator[Element]:
        n, g, k, c, p, q, r, s = ranges
        if tensor is Tensor.WEIGHT:
            return product(g, k, c, r, s)
        if tensor is Tensor.OUTPUT:
            return product(n, g, k, p, q)
        return product(n, g, c, self._positions(0, p, r), self._positions(1, q, s))

    def _positions(self, side: int, out: frozenset[int], taps: frozenset[int]) -> set[int]:
        """Input rows (side 0) or columns (side 1) under some output pixels and kernel taps."""
        shape = self.shape
        positions = {
            pixel * shape.stride[side] + tap * shape.dilation[side] - shape.pad[side]
            for pixel in out
            for tap in taps
        }
        if self.rules.count_padding:
            return positions
        return {position for position in positions if 0 <= position < shape.size[side]}

    # ---- one boundary

    def boundary(self, tensor: Tensor, outer: int, inner: int | None, steps: list[Index]) -> None:
        """Count what crosses between two holders of a tensor; ``inner`` None means the MACs."""
        outside = self.outside(tensor, inner)
        instances = self.spatial_on(self.axes(inner))
        moments: list[tuple[Index, Tiles]] = []  # (reduction indices, tiles) one after the other
        for index, _ in groupby(step[: len(outside)] for step in steps):
            at = dict(zip(outside, index, strict=True))
            reduction = tuple(at[i] for i in outside if self.nest.loops[i].dim in REDUCTION)
            tiles = {
                instance: tile
                for instance in product(*(range(self.trips[i]) for i in instances))
                if (tile := self.tile(tensor, at | dict(zip(instances, instance, strict=True))))
            }
            moments.append((reduction, tiles))
            if inner is None and tensor not in self.rules.latch:
                moments.append((reduction, {}))  # the MAC keeps nothing
        moments = [((), {}), *moments, ((), {})]
        if tensor is Tensor.OUTPUT:
            self.move_output(outer, inner, moments)
        else:
            self.move_operand(tensor, outer, inner, moments)

    def move_operand(
        self,
        tensor: Tensor,
        outer: int,
        inner: int | None,
        moments: list[tuple[Index, Tiles]],
    ) -> None:
        """Count weight or input going inward."""
        refetch = tensor is Tensor.INPUT and inner in self.rules.refetch
        for (_, old), (_, new) in pairwise(moments):
            moved: dict[Index, Tile] = {}
            for instance, tile in new.items():
                held = old.get(instance, NOTHING)
                if not refetch:
                    moved[instance] = tile - held
                elif tile != held:
                    moved[instance] = tile
            total = sum(len(tile) for tile in moved.values())
            self.add_inner(inner, tensor, "fill", total)
            self.add_hop(outer, inner, tensor, total)
            for tiles in self.groups(outer, inner, moved).values():
                read = _union(tiles) if self.rules.multicast else _total(tiles)
                self.counts[outer, tensor, "read"] += read

    def move_output(
        self, outer: int, inner: int | None, moments: list[tuple[Index, Tiles]]
    ) -> None:
        """Count partial sums and outputs leaving, and partial sums coming back."""
        tensor, reduce = Tensor.OUTPUT, self.rules.reduce
        last = max(reduction for reduction, _ in moments)
        spread_inner = self.is_spread(self.axes(inner))
        spread_update = self.is_spread(self.axes(outer)) if reduce else spread_inner
        seen: defaultdict[Index, set[Element]] = defaultdict(set)
        for (reduction, old), (_, new) in pairwise(moments):
            # what leaves
            left = {i: tile - new.get(i, NOTHING) for i, tile in old.items()}
            drained = sum(len(tile) for tile in left.values())
            complete = reduction == last
            self.add_inner(inner, tensor, "drain", drained)
            if complete and not spread_inner:
                self.add_inner(inner, tensor, "drain_complete", drained)
            self.add_hop(outer, inner, tensor, drained)
            for tiles in self.groups(outer, inner, left).values():
                union, total = _union(tiles), _total(tiles)
                updated = union if reduce else total
                self.counts[outer, tensor, "update"] += updated
                if complete and not spread_update and inner is not None:
                    self.counts[outer, tensor, "update_complete"] += updated
                if not reduce:  # merging another arrival reads what is there
                    self.counts[outer, tensor, "read"] += total - union
            # what comes back
            entered = {i: tile - old.get(i, NOTHING) for i, tile in new.items()}
            for group, tiles in self.groups(outer, inner, entered).items():
                wanted = set().union(*tiles)
                back = len(wanted & seen[group])
                seen[group] |= wanted
                self.counts[outer, tensor, "read"] += back
                self.add_inner(inner, tensor, "fill", back)
                self.add_hop(outer, inner, tensor, back)

    # ---- small helpers

    def axes(self, level: int | None) -> frozenset[int]:
        """Array axes along which a level, or None for the MACs, has instances."""
        if level is not None:
            return self.nest.axes[level]
        on_loops = frozenset(loop.axis for loop in self.nest.loops if loop.axis is not None)
        return on_loops.union(*self.nest.axes)

    def spatial_on(self, axes: frozenset[int]) -> tuple[int, ...]:
        """Positions of the spatial loops on some axes: their indices name an instance."""
        return tuple(i for i in self.spatial if self.nest.loops[i].axis in axes)

    def outside(self, tensor: Tensor, level: int | None) -> tuple[int, ...]:
        """Positions of the temporal loops before the cut; always the first of all temporal ones."""
        cut = len(self.nest.loops) if level is None else self.nest.cuts[level][tensor]
        if cut is None:
            raise ValueError(f"level {level} does not hold {tensor.label}")
        return tuple(i for i in self.temporal if i < cut)

    def groups(self, outer: int, inner: int | None, tiles: Tiles) -> dict[Index, list[Tile]]:
        """Sort what the inner instances move by the outer instance that they hang under."""
        own = self.spatial_on(self.axes(inner))
        above = self.spatial_on(self.axes(outer))
        groups: dict[Index, list[Tile]] = {}
        for instance, tile in tiles.items():
            at = dict(zip(own, instance, strict=True))
            groups.setdefault(tuple(at[i] for i in above), []).append(tile)
        return groups

    def is_spread(self, axes: frozenset[int]) -> bool:
        """Whether instances along some axes work on different parts of one output's sum."""
        for dim in REDUCTION:
            loops = tuple(i for i in self.spatial_on(axes) if self.nest.loops[i].dim is dim)
            working = [
                index
                for index in product(*(range(self.trips[i]) for i in loops))
                if self.touched(dim, dict(zip(loops, index, strict=True)))
            ]
            if len(working) > 1:
                return True
        return False

    def add_inner(self, inner: int | None, tensor: Tensor, name: str, amount: int) -> None:
        """Count at the inner side; the MACs have no counts of their own."""
        if inner is not None:
            self.counts[inner, tensor, name] += amount

    def add_hop(self, outer: int, inner: int | None, tensor: Tensor, amount: int) -> None:
        """Count what travels over the array's network: only where the instances fan out."""
        if self.axes(inner) > self.axes(outer):
            self.counts[outer, tensor, "hop"] += amount


def _union(tiles: list[Tile]) -> int:
    return len(frozenset().union(*tiles))


def _total(tiles: list[Tile]) -> int:
    return sum(len(tile) for tile in tiles)
