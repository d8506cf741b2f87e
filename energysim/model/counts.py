"""The counting rule in closed form: exact element counts for a whole batch of mappings.

Every count is a short *sum of products*: one factor for each of six groups of dims (N, G, K, C,
(P, R), (Q, S)), each a small vector over that group's choices of trip counts (:class:`Terms`). With
U the elements needed and M those of them that are there already, summed over the transitions of
temporal loop j along each axis, a boundary moves

    product over axes of U(all steps)  -  sum over j of product over axes of M_j

elements, because the steps of a nest are the product of its axes' steps (README, "How it counts").
A batch of mappings gathers the factors; a grid of tile choices multiplies them out.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from energysim.axes import REDUCTION, RELEVANT, Dim, Shape, Tensor
from energysim.mapping import Loop, Nest, Rules
from energysim.model.tables import Axis, AxisTable, Ints, Role, axis_table

GROUPS: tuple[tuple[Dim, ...], ...] = (
    (Dim.N,),
    (Dim.G,),
    (Dim.K,),
    (Dim.C,),
    (Dim.P, Dim.R),
    (Dim.Q, Dim.S),
)
"""Dims whose loops must be seen together: an output and a kernel dim drive a window."""

SIDE = 4
"""So many first groups vary over the rows of a grid of mappings, the others over its columns."""

FEW = 16
"""In so small a batch no two mappings share work that is worth looking for."""

EXACT = 2**53
"""Integers below this are exact in float64, and so are their sums and products."""

Floats = npt.NDArray[np.float64]

GROUP_OF: dict[Dim, int] = {dim: i for i, group in enumerate(GROUPS) for dim in group}

Key = tuple[int, Tensor, str]
"""(level, tensor, name of the count)"""


@dataclass(frozen=True, slots=True)
class Terms:
    """A sum of products: ``sum over t of product over groups g of factors[g][t, choice_g]``."""

    factors: tuple[Ints, ...]
    """one array ``(T, U_g)`` for each of :data:`GROUPS`"""

    def __add__(self, other: Terms) -> Terms:
        pairs = zip(self.factors, other.factors, strict=True)
        return Terms(tuple(np.concatenate(pair) for pair in pairs))

    def __neg__(self) -> Terms:
        return Terms((-self.factors[0], *self.factors[1:]))

    def __sub__(self, other: Terms) -> Terms:
        return self + -other

    def __mul__(self, other: Terms) -> Terms:
        return Terms(
            tuple(
                (a[:, None] * b[None]).reshape(-1, a.shape[-1])
                for a, b in zip(self.factors, other.factors, strict=True)
            )
        )

    def grid(self, rows: slice = slice(None)) -> Floats:
        """Values for all combinations of choices, as one matrix product.

        Parameters
        ----------
        rows : slice
            Part of the rows.

        Returns
        -------
        float array, shape (rows, columns)
            Rows run over the choices of (N, G, K, C), columns over those of the two windows.
        """
        left, right = _outer(self.factors[:SIDE]), _outer(self.factors[SIDE:])
        return np.asarray(left[:, rows].T @ right)

    @property
    def bound(self) -> float:
        """No partial sum or product of any value is larger than this."""
        parts = [np.abs(factor).max(axis=1, initial=0) for factor in self.factors]
        return float(np.prod(np.array(parts, dtype=np.float64), axis=0).sum())


def _outer(factors: Sequence[npt.NDArray[np.generic]]) -> Floats:
    """Row-wise outer product, ``(T, U_1), (T, U_2), ... -> (T, U_1 * U_2 * ...)``."""
    product = factors[0].astype(np.float64)
    for factor in factors[1:]:
        width = product.shape[1] * factor.shape[1]
        each = factor.astype(np.float64)
        product = (product[:, :, None] * each[:, None, :]).reshape(factor.shape[0], width)
    return product


class _Batch:
    """Mappings picked from a grid of choices; evaluates :class:`Terms` for all of them."""

    def __init__(self, index: Ints, sizes: Sequence[int]) -> None:
        self.size, self.index = index.shape[0], index
        if self.size <= FEW:
            return
        self.rows, self.row = _compact(index[:, :SIDE], sizes[:SIDE])
        self.columns, self.column = _compact(index[:, SIDE:], sizes[SIDE:])
        # A batch that fills much of its own grid is read off the whole grid.
        self.dense = self.rows.shape[0] * self.columns.shape[0] <= 4 * self.size

    def value(self, terms: Terms) -> Ints:
        if self.size <= FEW:
            few: Ints = _gathered(terms.factors, self.index, np.int64).sum(axis=0)
            return few
        exact = terms.bound < EXACT
        kind = np.float64 if exact and self.dense else np.int64
        left = _gathered(terms.factors[:SIDE], self.rows, kind)
        right = _gathered(terms.factors[SIDE:], self.columns, kind)
        if exact and self.dense:
            grid = left.T @ right
            picked: Ints = grid.reshape(-1)[self.row * grid.shape[1] + self.column].astype(np.int64)
            return picked
        total = np.zeros(self.size, dtype=np.int64)
        for a, b in zip(left, right, strict=True):
            total += a[self.row] * b[self.column]
        return total


def _gathered(factors: Sequence[Ints], index: Ints, kind: type) -> npt.NDArray[Any]:
    product: npt.NDArray[Any] = np.ones((factors[0].shape[0], index.shape[0]), dtype=kind)
    for group, factor in enumerate(factors):
        product *= factor if factor.shape[1] == 1 else factor[:, index[:, group]]
    return product


def _compact(index: Ints, sizes: Sequence[int]) -> tuple[Ints, Ints]:
    """Distinct rows of an index array and which of them each row is."""
    code = np.zeros(index.shape[0], dtype=np.int64)
    for column, size in enumerate(sizes):
        code = code * size + index[:, column]
    distinct, inverse = _unique(code, int(np.prod(sizes, dtype=np.int64)))
    rows = np.empty((distinct.size, len(sizes)), dtype=np.int64)
    for column in reversed(range(len(sizes))):
        rows[:, column] = distinct % sizes[column]
        distinct = distinct // sizes[column]
    return rows, inverse


def _unique(code: Ints, limit: int) -> tuple[Ints, Ints]:
    """``np.unique`` with inverse, without sorting where the codes are small."""
    if limit > 64 * code.size + 1024:
        distinct, inverse = np.unique(code, return_inverse=True)
        return distinct, inverse.reshape(-1)
    seen = np.zeros(limit, dtype=np.bool_)
    seen[code] = True
    return np.flatnonzero(seen), (np.cumsum(seen) - 1)[code]


@dataclass(frozen=True, slots=True)
class Counts:
    """Exact counts of a batch of mappings."""

    steps: Ints
    """array steps that have work, shape (B,)"""
    values: Mapping[Key, Ints]
    """element counts ``(level, tensor, name) -> (B,)``; names: fill, read, update, drain,
    update_complete and drain_complete (of update and drain: elements that are final outputs), hop
    (elements handed over between the level and the next inner holder where instances fan out),
    tile (largest tile of one instance), first and last (what all tiles hold at the first and last
    step), run and span (of the first tile, what lies in a row in the outermost level, without and
    with what lies between; only where that moves bursts), folds (tiles one after the other),
    constant (1 where there is but one of them), final (1 where all outputs that reach the level
    are complete)"""
    used: tuple[Ints, ...]
    """instances with work along each array axis, shape (B,) each"""

    def __call__(self, level: int, tensor: Tensor, name: str) -> Ints:
        """One count, zeros where nothing of the kind happens."""
        return self.values.get((level, tensor, name), np.zeros_like(self.steps))

    def changed(self, values: Mapping[Key, int]) -> Counts:
        """With other values of one mapping (B = 1)."""
        others = {key: np.array([value]) for key, value in values.items()}
        return Counts(self.steps, {**self.values, **others}, self.used)

    def one(self, row: int) -> Counts:
        """Of one mapping of the batch."""
        part = slice(row, row + 1)
        values = {key: value[part] for key, value in self.values.items()}
        return Counts(self.steps[part], values, tuple(used[part] for used in self.used))


@dataclass(frozen=True, slots=True)
class Expansion:
    """All counts of a nest as :class:`Terms` over the choices of each group."""

    steps: Terms
    values: Mapping[Key, Terms]
    """names as in :class:`Counts`"""
    used: tuple[Terms, ...]

    def at(self, index: Ints, like: tuple[Expansion, Counts] | None = None) -> Counts:
        """Counts of a batch.

        Parameters
        ----------
        index : int array, shape (B, 6)
            Choice of each group.
        like : Expansion and Counts, optional
            Counts of the same batch by another order: what has the same terms is taken from there.
        """
        batch = _Batch(index, [factor.shape[1] for factor in self.steps.factors])
        known: dict[int, Ints] = {}  # several counts may be the same terms
        if like is not None:
            other, counts = like
            known = {id(terms): counts.values[key] for key, terms in other.values.items()}
            known[id(other.steps)] = counts.steps
            known |= {id(a): b for a, b in zip(other.used, counts.used, strict=True)}

        def value(terms: Terms) -> Ints:
            if id(terms) not in known:
                known[id(terms)] = batch.value(terms)
            return known[id(terms)]

        return Counts(
            value(self.steps),
            {key: value(terms) for key, terms in self.values.items()},
            tuple(value(terms) for terms in self.used),
        )


def count(shape: Shape, nest: Nest, trips: Ints, rules: Rules | None = None) -> Counts:
    """Count every access of every tensor at every level, for a batch of mappings.

    Parameters
    ----------
    shape : Shape
    nest : Nest
        Loops and cuts that the batch shares.
    trips : int array, shape (B, loops)
        Trip count of every loop of every mapping.
    rules : Rules, optional

    Returns
    -------
    Counts

    Raises
    ------
    ValueError
        If the nest cuts a dim in a way that leaves a tile in several pieces.

    Examples
    --------
    A 1D convolution of 16 outputs and 3 taps in 4 tiles; 18 inputs are fetched, halos kept.

    >>> from energysim.mapping import Loop
    >>> shape = Shape((1, 1, 1, 1, 16, 1, 3, 1), size=(18, 1))
    >>> loops = (Loop(Dim.P), Loop(Dim.P), Loop(Dim.R))
    >>> nest = Nest(loops, cuts=((0, 0, 0), (1, 1, 1)), axes=(frozenset(), frozenset()))
    >>> int(count(shape, nest, np.array([[4, 4, 3]]))(0, Tensor.INPUT, "read")[0])
    18
    """
    choices, index = choices_of(nest, np.asarray(trips, dtype=np.int64))
    return expand(shape, nest, choices, rules).at(index)


def choices_of(nest: Nest, trips: Ints) -> tuple[list[Ints], Ints]:
    """Distinct trip counts of each group in a batch, and which of them each mapping takes.

    Parameters
    ----------
    nest : Nest
    trips : int array, shape (B, loops)

    Returns
    -------
    list of 6 int arrays ``(U_g, loops of the group)``, int array ``(B, 6)``
    """
    choices, index = [], np.empty((trips.shape[0], len(GROUPS)), dtype=np.int64)
    for group, _ in enumerate(GROUPS):
        own = own_loops(nest, group)
        limits = [int(trips[:, loop].max(initial=0)) + 1 for loop in own]
        rows, index[:, group] = _compact(trips[:, own], limits)
        choices.append(rows)
    return choices, index


def own_loops(nest: Nest, group: int) -> tuple[int, ...]:
    """Positions of the loops over the dims of one group."""
    return _own_loops(nest.loops)[group]


@lru_cache(maxsize=256)
def _own_loops(loops: tuple[Loop, ...]) -> tuple[tuple[int, ...], ...]:
    return tuple(
        tuple(i for i, loop in enumerate(loops) if GROUP_OF[loop.dim] == group)
        for group in range(len(GROUPS))
    )


def expand(
    shape: Shape, nest: Nest, choices: Sequence[Ints], rules: Rules | None = None
) -> Expansion:
    """Tabulate a nest for all choices of each group.

    Parameters
    ----------
    shape : Shape
    nest : Nest
    choices : sequence of 6 int arrays, shapes (U_g, loops of the group)
        Trip counts of the group's loops, in nest order.
    rules : Rules, optional

    Returns
    -------
    Expansion
    """
    return next(expand_orders(shape, nest, choices, rules, ranks=[range(len(nest.loops))]))


def expand_orders(
    shape: Shape,
    nest: Nest,
    choices: Sequence[Ints],
    rules: Rules | None = None,
    *,
    ranks: Sequence[Sequence[int]],
    ordered: frozenset[Tensor] = frozenset(Tensor),
) -> Iterator[Expansion]:
    """Tabulate a nest and reorderings of its loops between the same cuts, which share all tables.

    Parameters
    ----------
    shape, nest, choices, rules
        As in :func:`expand`.
    ranks : sequence of sequence of int
        For each order: the place of each loop of ``nest``. Only temporal loops between which no
        cut stands may change places, and no two of them of the same group.
    ordered : frozenset of Tensor
        Tensors whose counts the orders make a difference to; the others are counted once.

    Yields
    ------
    Expansion
        Of each order, made when it is asked for.
    """
    rules = rules or Rules()
    boundaries = []
    for tensor in Tensor:
        holders = nest.holders(tensor)
        boundaries += [
            _Boundary(shape, nest, choices, rules, tensor, outer, inner)
            for outer, inner in zip(holders, (*holders, None)[1:], strict=True)
        ]
    steps, used = _steps(shape, nest, choices), _used(shape, nest, choices)
    shared: dict[Key, Terms] = {}
    for boundary in boundaries:
        if boundary.tensor not in ordered:
            shared.update(boundary.counts(ranks[0]))
    for rank in ranks:
        values = dict(shared)
        for boundary in boundaries:
            if boundary.tensor in ordered:
                values.update(boundary.counts(rank))
        yield Expansion(steps, values, used)


def _used(shape: Shape, nest: Nest, choices: Sequence[Ints]) -> tuple[Terms, ...]:
    """Instances with work along each array axis: trip counts without pieces that stay empty."""
    axes = {loop.axis for loop in nest.loops if loop.axis is not None}.union(*nest.axes)
    factors = [
        [np.ones((1, rows.shape[0]), dtype=np.int64) for rows in choices]
        for _ in range(max(axes, default=-1) + 1)
    ]
    for group, dims in enumerate(GROUPS):
        size = {dim: np.full(choices[group].shape[0], shape[dim]) for dim in dims}
        for column, position in enumerate(own_loops(nest, group)):
            loop = nest.loops[position]
            piece = -(-size[loop.dim] // choices[group][:, column])
            if loop.axis is not None:
                factors[loop.axis][group] = factors[loop.axis][group] * -(-size[loop.dim] // piece)
            size[loop.dim] = piece
    return tuple(Terms(tuple(factors[axis])) for axis in range(len(factors)))


def _steps(shape: Shape, nest: Nest, choices: Sequence[Ints]) -> Terms:
    factors = []
    for group, dims in enumerate(GROUPS):
        own = own_loops(nest, group)
        product = np.ones(choices[group].shape[0], dtype=np.int64)
        for dim in dims:
            columns = [i for i, loop in enumerate(own) if nest.loops[loop].dim is dim]
            roles = [
                Role.TEMPORAL if nest.loops[own[i]].axis is None else Role.FANOUT for i in columns
            ]
            axis = Axis((shape[dim],), used=False)
            table = axis_table(axis, [0] * len(columns), roles, choices[group][:, columns])
            product = product * table.steps
        factors.append(product[None])
    return Terms(tuple(factors))


@dataclass(frozen=True, slots=True)
class _AxisInNest:
    group: int
    dims: tuple[Dim, ...]
    table: AxisTable
    temporal: tuple[int, ...]
    """positions in the nest of the axis's temporal loops outside the cut"""

    def code(self, position: int, rank: Sequence[int]) -> int:
        """Code of the transitions of the temporal loop at ``position`` (see :mod:`.tables`)."""
        if not self.temporal:
            return 0
        before = sum(rank[own] < rank[position] for own in self.temporal)
        return 2 * before + (position in self.temporal)


class _Boundary:
    """What moves between a holder p of a tensor and the next inner holder c (None: the MACs)."""

    def __init__(
        self,
        shape: Shape,
        nest: Nest,
        choices: Sequence[Ints],
        rules: Rules,
        tensor: Tensor,
        outer: int,
        inner: int | None,
    ) -> None:
        self.rules, self.tensor, self.outer, self.inner = rules, tensor, outer, inner
        cut = len(nest.loops) if inner is None else nest.cuts[inner][tensor]
        assert cut is not None  # holders() lists only levels with a cut
        inner_axes = nest.array_axes if inner is None else nest.axes[inner]
        self.fans_out = inner_axes != nest.axes[outer]
        self.keeps = inner is not None or tensor in rules.latch
        roles: dict[int, Role] = {}
        for position, loop in enumerate(nest.loops):
            if loop.axis is None and position < cut:
                roles[position] = Role.TEMPORAL
            elif loop.axis is not None and loop.axis in inner_axes:
                outermost = loop.axis in nest.axes[outer]
                roles[position] = Role.OUTER if outermost else Role.FANOUT
        _check_contiguous(nest, roles)
        self.temporal = [i for i, role in roles.items() if role is Role.TEMPORAL]
        whole = tensor is Tensor.INPUT and inner in rules.refetch
        self.axes = [
            _place(nest, choices, roles, dims, axis, keeps=self.keeps, whole=whole)
            for dims, axis in _tile_axes(shape, tensor, rules)
        ]
        self.ones = [np.ones((1, rows.shape[0]), dtype=np.int64) for rows in choices]
        self.shape = shape
        self.codes: tuple[tuple[int, ...], ...] = ()
        """for each temporal loop outside the cut, the code of its transitions along each axis"""
        self.known: dict[object, Terms] = {}

    # -- sums of products ------------------------------------------------------------------------

    def _product(self, factor_of: Iterable[tuple[int, Ints]]) -> tuple[Ints, ...]:
        factors: list[Ints | None] = [None] * len(GROUPS)
        for group, factor in factor_of:
            before = factors[group]
            factors[group] = factor if before is None else before * factor
        return tuple(
            one if factor is None else factor
            for factor, one in zip(factors, self.ones, strict=True)
        )

    def _total(self, name: str, last: str | None = None, single: str | None = None) -> Terms:
        """Product over axes; on the reduction axes ``last``, where only one instance sums."""
        key = (name, last, single)
        if key not in self.known:
            picked = ((axis.group, self._pick(axis, *key)[None]) for axis in self.axes)
            self.known[key] = Terms(self._product(picked))
        return self.known[key]

    def _pick(self, axis: _AxisInNest, name: str, last: str | None, single: str | None) -> Ints:
        reduces = last is not None and axis.dims[0] in REDUCTION
        factor: Ints = getattr(axis.table, last if reduces and last is not None else name)
        if reduces and single is not None:
            factor = factor * (getattr(axis.table, single) == 1)
        return factor

    def _held(self, name: str, last: str | None = None, single: str | None = None) -> Terms:
        """Sum over temporal loops j of the product over axes of what need not move."""
        if not self.keeps:
            return self._none()
        # The order of the loops matters only through the codes, so many orders share the result.
        key = (name, last, single, self.codes)
        if key not in self.known:
            factors = [self._pick(axis, name, last, single) for axis in self.axes]
            alive = [np.any(factor, axis=-1).tolist() for factor in factors]
            rows = [
                self._product(
                    (axis.group, factor[code, None])
                    for axis, factor, code in zip(self.axes, factors, codes, strict=True)
                )
                for codes in self.codes
                if all(some[code] for some, code in zip(alive, codes, strict=True))
            ]
            columns = zip(*rows, strict=True)
            self.known[key] = (
                Terms(tuple(np.concatenate(column) for column in columns)) if rows else self._none()
            )
        return self.known[key]

    def _none(self) -> Terms:
        return Terms(tuple(one[:0] for one in self.ones))

    def _moved(self, name: str, held: str) -> Terms:
        return self._total(name) - self._held(held)

    # -- counts ----------------------------------------------------------------------------------

    def counts(self, rank: Sequence[int]) -> dict[Key, Terms]:
        self.codes = tuple(
            tuple(axis.code(position, rank) for axis in self.axes) for position in self.temporal
        )
        is_output = self.tensor is Tensor.OUTPUT
        named = self._output_counts() if is_output else self._operand_counts()
        return {(level, self.tensor, name): terms for (level, name), terms in named.items()}

    def _operand_counts(self) -> dict[tuple[int, str], Terms]:
        each = self._moved("each", "held_each")
        together = self._moved("union", "held_in") if self.rules.multicast else each
        named = {(self.outer, "read"): together}
        if self.fans_out:
            named[self.outer, "hop"] = each
        if self.inner is not None:
            named |= {
                (self.inner, "fill"): each,
                (self.inner, "tile"): self._total("peak"),
                (self.inner, "first"): self._total("first"),
            } | self._tile_properties(self.inner)
        return named

    def _output_counts(self) -> dict[tuple[int, str], Terms]:
        each = self._moved("each", "held_each")
        merged = self._moved("union", "held_out")
        back = self._moved("union", "held_in") - self._first_visits()
        read, update = back, merged
        if not self.rules.reduce:
            # every arrival after the first of the same element in a step is read, added, written
            read, update = back + each - merged, each
        named = {
            (self.outer, "read"): read,
            (self.outer, "update"): update,
            (self.outer, "final"): self._final(),
        }
        if self.fans_out:
            named[self.outer, "hop"] = back + each
        if self.inner is not None:
            complete = ("each_last", "held_each_last")
            done = self._complete("each", "held_each", complete, "spread")
            arrived = done
            if self.rules.reduce:
                complete = ("union_last", "held_out_last")
                arrived = self._complete("union", "held_out", complete, "spread_outer")
            named |= {
                (self.inner, "fill"): back,
                (self.inner, "drain"): each,
                (self.inner, "drain_complete"): done,
                (self.outer, "update_complete"): arrived,
                (self.inner, "tile"): self._total("peak"),
                (self.inner, "last"): self._total("last"),
            } | self._tile_properties(self.inner)
        return named

    def _complete(self, name: str, held: str, last: tuple[str, str], single: str) -> Terms:
        return self._total(name, last[0], single) - self._held(held, last[1], single)

    def _first_visits(self) -> Terms:
        """Elements that an instance of p ever sees, summed over its instances."""
        return Terms(
            self._product(
                (axis.group, axis.table.spread_outer[None])
                if axis.dims[0] in REDUCTION
                else (axis.group, self.ones[axis.group] * self.shape[axis.dims[0]])
                for axis in self.axes
            )
        )

    # -- properties of the tile of c -------------------------------------------------------------

    def _tile_properties(self, inner: int) -> dict[tuple[int, str], Terms]:
        relevant = RELEVANT[self.tensor]
        tiles = [axis for axis in self.axes if relevant & set(axis.dims)]
        constant = ((axis.group, (axis.table.steps == 1).astype(np.int64)[None]) for axis in tiles)
        folds = ((axis.group, axis.table.steps[None]) for axis in self.axes)
        named = {
            (inner, "constant"): Terms(self._product(constant)),
            (inner, "folds"): Terms(self._product(folds)),
        }
        if self.rules.bursts and not self.outer:
            named[inner, "run"] = self._run(tiles, [axis.table.first for axis in tiles])
            named[inner, "span"] = self._run(tiles, [self._spanned(axis) for axis in tiles])
        return named

    def _run(self, tiles: Sequence[_AxisInNest], lengths: Sequence[Ints]) -> Terms:
        """How many elements of the first tile lie in a row, tensors stored by dims, last innermost.

        Dims that the tile covers whole, from the last one on, and its share of the dim before them.
        """
        whole = [
            (axis.table.steps == 1).astype(np.int64) * (self._step(axis) == 1) for axis in tiles
        ]
        total = None
        for place, spanned in enumerate(lengths):
            behind = range(place + 1, len(tiles))
            # the first dim has none before it: whatever it holds is part of the run
            broken = 1 - whole[place] if place else np.ones_like(whole[0])
            apart = self._step(tiles[place]) > 1 and len(behind) > 0
            # rows that a stride passes over lie between
            length = np.minimum(spanned, 1) if apart else spanned
            factors = [(tiles[place].group, (length * broken)[None])]
            factors += [(tiles[i].group, (lengths[i] * whole[i])[None]) for i in behind]
            terms = Terms(self._product(factors))
            total = terms if total is None else total + terms
        assert total is not None  # every tensor has dims
        return total

    def _step(self, axis: _AxisInNest) -> int:
        """Rows from one that is needed to the next: the stride, where the kernel leaves gaps."""
        if len(axis.dims) == 1:
            return 1
        along = 0 if axis.dims[0] is Dim.P else 1
        stride = self.shape.stride[along]
        return stride if self.shape[axis.dims[1]] == 1 else 1

    def _spanned(self, axis: _AxisInNest) -> Ints:
        first = axis.table.first
        between: Ints = np.maximum(first - 1, 0) * (self._step(axis) - 1)
        return first + between

    def _final(self) -> Terms:
        """1 where all that p gets from below is complete; the MAC hands over partial sums."""
        if self.inner is None:
            return Terms(self._product([(0, 0 * self.ones[0])]))
        spread = "spread_outer" if self.rules.reduce else "spread"
        return Terms(
            self._product(
                (
                    axis.group,
                    ((axis.table.steps == 1) & (getattr(axis.table, spread) == 1))
                    .astype(np.int64)[None],
                )
                for axis in self.axes
                if axis.dims[0] in REDUCTION
            )
        )  # fmt: skip


def _tile_axes(shape: Shape, tensor: Tensor, rules: Rules) -> list[tuple[tuple[Dim, ...], Axis]]:
    axes: list[tuple[tuple[Dim, ...], Axis]] = []
    windows = {Dim.P: Dim.R, Dim.Q: Dim.S} if tensor is Tensor.INPUT else {}
    for dim in Dim:
        if dim in windows:
            tap, along = windows[dim], 0 if dim is Dim.P else 1
            axis = Axis(
                (shape[dim], shape[tap]),
                stride=shape.stride[along],
                dilation=shape.dilation[along],
                pad=shape.pad[along],
                size=None if rules.count_padding else shape.size[along],
            )
            axes.append(((dim, tap), axis))
        elif dim not in windows.values():
            axes.append(((dim,), Axis((shape[dim],), used=dim in RELEVANT[tensor])))
    return axes


def _place(
    nest: Nest,
    choices: Sequence[Ints],
    roles: Mapping[int, Role],
    dims: tuple[Dim, ...],
    axis: Axis,
    *,
    keeps: bool,
    whole: bool,
) -> _AxisInNest:
    group = GROUP_OF[dims[0]]
    own = own_loops(nest, group)
    columns = [
        i
        for i, position in enumerate(own)
        if position in roles and nest.loops[position].dim in dims
    ]
    positions = [own[i] for i in columns]
    table = axis_table(
        axis,
        [dims.index(nest.loops[position].dim) for position in positions],
        [roles[position] for position in positions],
        choices[group][:, columns],
        keeps=keeps,
        whole_tiles=whole,
    )
    temporal = tuple(position for position in positions if roles[position] is Role.TEMPORAL)
    return _AxisInNest(group, dims, table, temporal)


def _check_contiguous(nest: Nest, outside: Mapping[int, Role]) -> None:
    """A tile is one piece of a dim only if the dim's outside loops all precede its inside ones."""
    inside: set[Dim] = set()
    for position, loop in enumerate(nest.loops):
        if position not in outside:
            inside.add(loop.dim)
        elif loop.dim in inside:
            raise ValueError(
                f"loop {position} over {loop.dim.name} is outside a cut but stands inside another "
                f"loop over {loop.dim.name} that is inside the cut"
            )
