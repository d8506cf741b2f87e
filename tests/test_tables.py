"""Tables of one axis against sets, sums of products, and batches against single mappings."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from math import prod

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from oracle import walk
from strategies import Case, cases, random_case, random_trips

from energysim.axes import RELEVANT, Dim, Shape, Tensor
from energysim.mapping import Loop, Nest
from energysim.model import tables
from energysim.model.counts import GROUPS, Expansion, Terms, count, expand, own_loops
from energysim.model.tables import Axis, AxisTable, Role, axis_table

Index = tuple[int, ...]
Element = tuple[int, ...]
Tile = frozenset[int]
NOTHING: Tile = frozenset()
MAX_POINTS = 400
"""largest product of the trip counts of one axis"""


# -- one axis --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class AxisCase:
    """One axis and the loops over it outside a cut."""

    axis: Axis
    dims: tuple[int, ...]
    roles: tuple[Role, ...]
    rows: tuple[tuple[int, ...], ...]
    """trip counts, some rows given twice"""
    keeps: bool
    whole: bool

    def table(self, rows: Sequence[Sequence[int]] | None = None) -> AxisTable:
        """Tabulate all rows, or the given ones."""
        rows = self.rows if rows is None else rows
        trips = np.array(rows, dtype=np.int64).reshape(len(rows), len(self.dims))
        return axis_table(
            self.axis, self.dims, self.roles, trips, keeps=self.keeps, whole_tiles=self.whole
        )


def random_axis_case(rng: random.Random) -> AxisCase:
    """One random axis: of one dim that the tensor uses or not, or a window with any padding."""
    if rng.random() < 0.7:
        out, taps = rng.randint(1, 8), rng.randint(1, 4)
        stride, dilation, pad = rng.randint(1, 4), rng.randint(1, 3), rng.randint(0, 3)
        reach = (out - 1) * stride + (taps - 1) * dilation + 1
        size = None if rng.random() < 0.3 else max(1, reach - pad - rng.randint(-3, 3))
        axis = Axis((out, taps), stride=stride, dilation=dilation, pad=pad, size=size)
    else:
        axis = Axis((rng.randint(1, 9),), used=rng.random() < 0.6)
    loops = rng.randint(0, 5)
    dims = tuple(rng.randrange(len(axis.extents)) for _ in range(loops))
    roles = tuple(rng.choice((Role.TEMPORAL, Role.TEMPORAL, *Role)) for _ in range(loops))
    rows = [tuple(rng.randint(1, 4) for _ in range(loops)) for _ in range(rng.randint(1, 4))]
    rows = [row if prod(row) <= MAX_POINTS else (1,) * loops for row in rows]
    rows += [rng.choice(rows) for _ in range(rng.randint(0, 2))]
    return AxisCase(axis, dims, roles, tuple(rows), rng.random() < 0.8, rng.random() < 0.3)


axis_cases = st.builds(random_axis_case, st.randoms(use_true_random=False))


class Enumerated:
    """The same sums as a table, for one row of trip counts, from sets of elements."""

    def __init__(self, case: AxisCase, trips: tuple[int, ...]) -> None:
        self.case, self.trips = case, trips
        self.temporal, self.outer, self.fan = (
            [i for i, each in enumerate(case.roles) if each is role]
            for role in (Role.TEMPORAL, Role.OUTER, Role.FANOUT)
        )
        self.tiles: dict[tuple[Index, Index, Index], Tile] = {}
        self.steps: list[Index] = []
        for step in self.indices(self.temporal):
            found = {
                (step, outer, fan): self.tile(step, outer, fan)
                for outer in self.indices(self.outer)
                for fan in self.indices(self.fan)
            }
            working = {key: tile for key, tile in found.items() if tile is not None}
            if working:
                self.steps.append(step)
                self.tiles |= working

    def indices(self, loops: list[int]) -> Iterator[Index]:
        """All index tuples of some loops, in order."""
        return product(*(range(self.trips[i]) for i in loops))

    def tile(self, step: Index, outer: Index, fan: Index) -> Tile | None:
        """Elements of one instance in one step; None if it has no work."""
        at = dict(zip((*self.temporal, *self.outer, *self.fan), (*step, *outer, *fan), strict=True))
        axis = self.case.axis
        start, end, size = [0] * len(axis.extents), list(axis.extents), list(axis.extents)
        for i, dim in enumerate(self.case.dims):
            size[dim] = -(-size[dim] // self.trips[i])
            start[dim] += at[i] * size[dim]
            end[dim] = min(end[dim], start[dim] + size[dim])
        if any(low >= high for low, high in zip(start, end, strict=True)):
            return None
        if not axis.used:
            return frozenset({0})
        if len(axis.extents) == 1:
            return frozenset(range(start[0], end[0]))
        positions = {
            pixel * axis.stride + tap * axis.dilation - axis.pad
            for pixel in range(start[0], end[0])
            for tap in range(start[1], end[1])
        }
        if axis.size is None:
            return frozenset(positions)
        return frozenset(position for position in positions if 0 <= position < axis.size)

    def at(self, step: Index) -> list[list[Tile]]:
        """Tiles in one step: instances of c under each instance of p."""
        return [
            [self.tiles.get((step, outer, fan), NOTHING) for fan in self.indices(self.fan)]
            for outer in self.indices(self.outer)
        ]

    def union(self, steps: Sequence[Index]) -> int:
        """Elements needed together under each p."""
        return sum(len(NOTHING.union(*row)) for step in steps for row in self.at(step))

    def each(self, steps: Sequence[Index]) -> int:
        """Elements needed, summed over all instances."""
        return sum(len(tile) for step in steps for row in self.at(step) for tile in row)

    def transitions(self, code: int) -> Iterator[tuple[Index, Index]]:
        """Old and new step of every transition of one code, see :mod:`energysim.model.tables`."""
        fixed = (code + 1) // 2
        last: dict[Index, Index] = {}
        first: dict[Index, Index] = {}
        for step in self.steps:
            last[step[:fixed]] = step
            first.setdefault(step[:fixed], step)
        for context, new in first.items():
            before = context
            if code % 2:  # the last fixed loop comes from its previous index
                before = (*context[:-1], context[-1] - 1)
            if before in last and not any(new[fixed:]):
                yield last[before], new

    def held(self, code: int, *, of_last: bool = False) -> tuple[int, int, int]:
        """What stays in the transitions of one code: of the new union, the old one, and of each."""
        inward = outward = each = 0
        if not self.case.keeps:
            return 0, 0, 0
        for before, after in self.transitions(code):
            if of_last and before != self.steps[-1]:
                continue
            for old_row, new_row in zip(self.at(before), self.at(after), strict=True):
                pairs = list(zip(old_row, new_row, strict=True))
                arriving = [new - old for old, new in pairs]
                staying = [new & old for old, new in pairs]
                if self.case.whole:
                    arriving = [NOTHING if new == old else new for old, new in pairs]
                    staying = [new if new == old else NOTHING for old, new in pairs]
                inward += len(NOTHING.union(*new_row)) - len(NOTHING.union(*arriving))
                leaving = NOTHING.union(*(old - new for old, new in pairs))
                outward += len(NOTHING.union(*old_row)) - len(leaving)
                each += sum(len(tile) for tile in staying)
        return inward, outward, each

    def table(self) -> dict[str, object]:
        """All fields of an :class:`AxisTable`."""
        codes = range(2 * len(self.temporal) + 1)
        held = [self.held(code) for code in codes]
        of_last = [self.held(code, of_last=True) for code in codes]
        last = self.steps[-1:]
        return {
            "union": self.union(self.steps),
            "each": self.each(self.steps),
            "held_in": [inward for inward, _, _ in held],
            "held_out": [outward for _, outward, _ in held],
            "held_each": [each for _, _, each in held],
            "first": self.union(self.steps[:1]),
            "last": self.union(last),
            "peak": max(len(tile) for tile in self.tiles.values()),
            "steps": len(self.steps),
            "spread_outer": len({outer for _, outer, _ in self.tiles}),
            "spread": len({(outer, fan) for _, outer, fan in self.tiles}),
            "union_last": self.union(last),
            "each_last": self.each(last),
            "held_out_last": [outward for _, outward, _ in of_last],
            "held_each_last": [each for _, _, each in of_last],
        }


@settings(max_examples=4 * settings.default.max_examples)
@given(axis_cases)
def test_a_table_is_what_sets_say(case: AxisCase) -> None:
    table = case.table()
    for row, trips in enumerate(case.rows):
        expected = Enumerated(case, trips).table()
        for name in AxisTable.__slots__:
            assert getattr(table, name)[..., row].tolist() == expected[name], name


@settings(max_examples=2 * settings.default.max_examples)
@given(axis_cases)
def test_a_batch_of_trips_is_its_rows_one_by_one(case: AxisCase) -> None:
    table = case.table()
    for row, trips in enumerate(case.rows):
        alone = case.table([trips])
        for name in AxisTable.__slots__:
            np.testing.assert_array_equal(
                getattr(table, name)[..., row], getattr(alone, name)[..., 0], err_msg=name
            )


@pytest.mark.parametrize("kept", [3, tables.KNOWN])
def test_what_was_asked_before_changes_no_table(kept: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Choices are kept for batches to come; where they grow too many, they are forgotten."""
    monkeypatch.setattr(tables, "KNOWN", kept)
    rng = random.Random(kept)
    roles = (Role.TEMPORAL, Role.FANOUT, Role.TEMPORAL)
    axis = Axis((17, 3), size=19 + kept)  # of no other test
    every = [(a, b, c) for a in (1, 2, 5) for b in (1, 3) for c in (1, 3)]
    alone = {row: AxisCase(axis, (0, 0, 1), roles, (row,), True, False).table() for row in every}
    for _ in range(20):
        rows = tuple(rng.choices(every, k=rng.randint(2, 5)))
        table = AxisCase(axis, (0, 0, 1), roles, rows, True, False).table()
        for column, row in enumerate(rows):
            for name in AxisTable.__slots__:
                found = getattr(table, name)[..., column]
                np.testing.assert_array_equal(found, getattr(alone[row], name)[..., 0])


def test_wide_and_narrow_fan_outs_share_a_batch() -> None:
    axis = Axis((64, 3), size=66)
    roles = (Role.FANOUT, Role.TEMPORAL, Role.TEMPORAL)
    case = AxisCase(axis, (0, 0, 1), roles, ((1, 8, 3), (13, 2, 3), (64, 1, 3)), True, False)
    table = case.table()
    for row, trips in enumerate(case.rows):
        enumerated = Enumerated(case, trips)
        assert enumerated.steps
        assert {name: getattr(table, name)[..., row].tolist() for name in AxisTable.__slots__} == (
            enumerated.table()
        )


@pytest.mark.parametrize(
    ("axis", "touched"),
    [
        (Axis((5, 3)), 7),
        (Axis((5, 3), size=5, pad=1), 5),
        (Axis((4, 1), stride=3), 4),
        (Axis((4, 2), stride=3), 8),
        (Axis((4, 3), stride=2), 9),
        (Axis((3, 3), dilation=2), 7),
        (Axis((2, 3), dilation=2), 6),
        (Axis((3, 2), stride=2, dilation=4), 5),
        (Axis((3, 2), stride=4, dilation=6), 6),
        (Axis((2, 2), stride=9, pad=1, size=9), 2),
        (Axis((1, 1), pad=2, size=1), 0),
    ],
)
def test_positions_touched_by_windows(axis: Axis, touched: int) -> None:
    nothing = np.empty((1, 0), dtype=np.int64)
    assert axis_table(axis, (), (), nothing).union.tolist() == [touched]


# -- sums of products ------------------------------------------------------------------------------

SIZES = (2, 1, 3, 2, 4, 1)
"""choices of each group"""
EVERY = np.array(list(product(*map(range, SIZES))), dtype=np.int64)
"""all combinations of choices, in the order of a grid"""


def random_terms(rng: random.Random) -> Terms:
    """Draw up to three terms with factors of either sign."""
    terms = rng.randint(0, 3)
    return Terms(
        tuple(
            np.array([rng.randint(-5, 5) for _ in range(terms * size)], dtype=np.int64).reshape(
                terms, size
            )
            for size in SIZES
        )
    )


def values_of(terms: Terms) -> list[int]:
    """Value of every combination, one product after the other."""
    return [
        sum(
            prod(int(factor[term, at]) for factor, at in zip(terms.factors, choice, strict=True))
            for term in range(len(terms.factors[0]))
        )
        for choice in EVERY
    ]


def picked(terms: Terms, index: np.ndarray) -> list[int]:
    """Values of a batch, as counts are taken."""
    some = Expansion(terms, {(0, Tensor.WEIGHT, "read"): terms - terms}, (terms + terms,)).at(index)
    assert not some(0, Tensor.WEIGHT, "read").any()
    assert (some.used[0] == 2 * some.steps).all()
    values: list[int] = some.steps.tolist()
    return values


any_terms = st.builds(random_terms, st.randoms(use_true_random=False))


@given(any_terms, any_terms)
def test_terms_add_subtract_and_multiply_like_their_values(a: Terms, b: Terms) -> None:
    pairs = list(zip(values_of(a), values_of(b), strict=True))
    assert values_of(a + b) == [x + y for x, y in pairs]
    assert values_of(a - b) == [x - y for x, y in pairs]
    assert values_of(a * b) == [x * y for x, y in pairs]
    assert values_of(-a) == [-x for x, _ in pairs]


@given(any_terms, st.randoms(use_true_random=False))
def test_grids_and_batches_of_terms(terms: Terms, rng: random.Random) -> None:
    values = values_of(terms)
    grid = terms.grid()
    assert grid.reshape(-1).tolist() == values
    assert terms.grid(slice(3, 7)).tolist() == grid[3:7].tolist()
    assert max(map(abs, values)) <= terms.bound
    assert picked(terms, EVERY) == values
    some = [rng.randrange(len(EVERY)) for _ in range(rng.randint(1, 4))]
    assert picked(terms, EVERY[some]) == [values[at] for at in some]


@pytest.mark.parametrize("rows", [[47], [0, 13, 47], list(range(48))])
def test_large_counts_stay_integers(rows: list[int]) -> None:
    ones = [np.ones((2, size), dtype=np.int64) for size in SIZES]
    ones[0] = np.array([[2**40, 2**40 + 1], [1, 1]])
    ones[4] = np.array([[1, 2**20, 3, 2**21 + 1], [1, 1, 1, 1]])
    values = values_of(Terms(tuple(ones)))
    assert max(values) == (2**40 + 1) * (2**21 + 1) + 1
    assert picked(Terms(tuple(ones)), EVERY[rows]) == [values[at] for at in rows]


# -- batches ---------------------------------------------------------------------------------------


def random_batch(rng: random.Random) -> tuple[Case, tuple[tuple[int, ...], ...]]:
    case = random_case(rng)
    more = (random_trips(rng, case.shape, case.nest.loops) for _ in range(3))
    return case, (case.trips, *more, case.trips)


@settings(max_examples=settings.default.max_examples // 2)
@given(st.builds(random_batch, st.randoms(use_true_random=False)))
def test_a_batch_is_its_mappings_one_by_one(
    drawn: tuple[Case, tuple[tuple[int, ...], ...]],
) -> None:
    case, batch = drawn
    together = count(case.shape, case.nest, np.array(batch), case.rules)
    for row, trips in enumerate(batch):
        alone = count(case.shape, case.nest, np.array([trips]), case.rules)
        assert together.steps[row] == alone.steps[0]
        assert together.values.keys() == alone.values.keys()
        for key, values in together.values.items():
            assert values.shape == (len(batch),)
            assert values[row] == alone.values[key][0], key
        assert [used[row] for used in together.used] == [used[0] for used in alone.used]


@settings(max_examples=settings.default.max_examples // 3)
@given(st.builds(random_batch, st.randoms(use_true_random=False)))
def test_a_grid_of_choices_is_a_batch_of_all_of_them(
    drawn: tuple[Case, tuple[tuple[int, ...], ...]],
) -> None:
    """What the search relies on: the groups of dims may be combined freely."""
    case, (first, second, *_) = drawn
    nest = case.nest
    own = [own_loops(nest, group) for group in range(len(GROUPS))]
    choices = [np.array([first, second])[:, columns] for columns in own]
    index = np.array(list(product((0, 1), repeat=len(GROUPS))))
    trips = np.empty((len(index), len(nest.loops)), dtype=np.int64)
    for group, columns in enumerate(own):
        trips[:, columns] = choices[group][index[:, group]]
    grid = expand(case.shape, nest, choices, case.rules).at(index)
    batch = count(case.shape, nest, trips, case.rules)
    np.testing.assert_array_equal(grid.steps, batch.steps)
    for key, values in grid.values.items():
        np.testing.assert_array_equal(values, batch.values[key], err_msg=str(key))


def test_counts_of_nothing_are_zero() -> None:
    shape = Shape((1, 1, 2, 1, 1, 1, 1, 1))
    nest = Nest((Loop(Dim.K),), ((0, 0, 0), (0, 0, 0)), (frozenset(), frozenset()))
    counts = count(shape, nest, np.array([[2], [2]]))
    assert counts(0, Tensor.WEIGHT, "read").tolist() == [2, 2]
    assert counts(0, Tensor.WEIGHT, "drain").tolist() == [0, 0]


def test_a_tile_in_several_pieces_is_refused() -> None:
    shape = Shape((1, 1, 4, 1, 1, 1, 1, 1))
    loops = (Loop(Dim.K, 0), Loop(Dim.K))  # the fan-out is inside the tile, the loop behind it not
    nest = Nest(loops, ((0, 0, 0), (2, 2, 2)), (frozenset(), frozenset()))
    with pytest.raises(ValueError, match=r"loop 1 over K .* stands inside another loop over K"):
        count(shape, nest, np.array([[2, 2]]))


# -- weights ---------------------------------------------------------------------------------------


def weight_counts(case: Case) -> dict[tuple[int, str], int]:
    """All moves of weights."""
    counts = count(case.shape, case.nest, np.array([case.trips]), case.rules)
    return {
        (level, name): int(value[0])
        for (level, tensor, name), value in counts.values.items()
        if tensor is Tensor.WEIGHT and name in ("fill", "read", "hop")
    }


def random_even_case(rng: random.Random) -> Case:
    """Draw a case whose loops over the dims of the weights divide them; others may be ragged."""
    case = random_case(rng)
    trips = list(case.trips)
    rest = list(case.shape.dims)
    last = {loop.dim: position for position, loop in enumerate(case.nest.loops)}
    for position, loop in enumerate(case.nest.loops):
        if loop.dim in RELEVANT[Tensor.WEIGHT]:
            left = rest[loop.dim]
            divisors = [n for n in range(1, left + 1) if left % n == 0]
            trips[position] = left if last[loop.dim] == position else rng.choice(divisors)
            rest[loop.dim] //= trips[position]
    return case._replace(trips=tuple(trips))


@settings(max_examples=2 * settings.default.max_examples)
@given(st.builds(random_even_case, st.randoms(use_true_random=False)))
def test_every_weight_moves_equally_often(case: Case) -> None:
    """Where no piece is ragged; the bits of compressed weights are exact because of it."""
    weights = case.shape.elements(Tensor.WEIGHT)
    rests = {key: value % weights for key, value in weight_counts(case).items()}
    assert not any(rests.values()), rests


@given(cases())
def test_no_weight_is_left_out(case: Case) -> None:
    weights = case.shape.elements(Tensor.WEIGHT)
    assert all(value >= weights for value in weight_counts(case).values())


def test_weights_of_a_ragged_last_piece_may_stay() -> None:
    """Three filters in pieces of two and one, for three pixels: the lone filter is not reloaded."""
    shape = Shape((1, 1, 3, 1, 3, 1, 1, 1), size=(3, 1))
    loops = (Loop(Dim.K), Loop(Dim.P), Loop(Dim.K))
    nest = Nest(loops, ((0, 0, 0), (3, 3, 3)), (frozenset(), frozenset()))
    counts = count(shape, nest, np.array([[2, 3, 2]]))
    assert counts(1, Tensor.WEIGHT, "fill").tolist() == [2 * 3 + 1]
    assert walk(shape, nest, (2, 3, 2)).counts[1, Tensor.WEIGHT, "fill"] == 2 * 3 + 1
