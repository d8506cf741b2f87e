"""Bits of coded weights that move, against tiles that are really coded one after the other."""

from __future__ import annotations

import random
from collections import Counter

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from oracle import Tile, walk_weights
from strategies import random_case
from test_formats import encode, numbered, setting_of

from energysim.axes import Dim, Shape, Tensor
from energysim.mapping import Loop, Nest, Rules
from energysim.model.coded import coded_bits, live_weights
from energysim.model.counts import count
from energysim.model.sparse import WeightStore
from energysim.sparsity import Mask, Pattern

BITS = 5
KERNELS = (Dim.G, Dim.K, Dim.C, Dim.R, Dim.S)


def some_store(rng: random.Random, shape: Shape) -> WeightStore:
    """A mask, periodic or not, in a format that holds it."""
    height, width = shape[Dim.R], shape[Dim.S]
    taps = range(height * width)
    if rng.random() < 0.5:
        count = rng.randint(1, 3)
        supports = {
            tuple(sorted(rng.sample(taps, rng.randint(1, len(taps))))) for _ in range(count)
        }
        pattern = Pattern.of(
            sorted(supports), kernel=(height, width), period=rng.randint(len(supports), 5)
        )
        mask = Mask.of(pattern, shape)
        formats = ["dense", "csr", "bitmap", "cp", "rle", "periodic"]
    else:
        live = np.random.default_rng(rng.randrange(2**32)).random([shape[d] for d in KERNELS]) < 0.5
        live.flat[0] = True
        mask = Mask.from_array(live)
        formats = ["dense", "csr", "bitmap", "cp", "rle"]
    return WeightStore.of(mask, BITS, [rng.choice(formats)], run_bits=2)


def code_of(store: WeightStore, weights: Tile) -> int:
    """Length of the code of a tile."""
    index = np.array(sorted(weights))
    ranges = [
        (int(low), int(high) + 1) for low, high in zip(index.min(0), index.max(0), strict=True)
    ]
    setting = setting_of(store.format, store.mask, ranges, bits=BITS, run_bits=2)
    array = numbered(store.mask, BITS, np.random.default_rng(0))
    tile = array[tuple(slice(*each) for each in ranges)]
    code = encode(tile, setting)
    return len(code.values.bits) + len(code.metadata.bits)


def total(store: WeightStore, tiles: Counter[Tile]) -> int:
    """Bits of all tiles that moved."""
    return sum(times * code_of(store, tile) for tile, times in tiles.items())


@settings(max_examples=150)
@given(seed=st.integers(0, 2**32))
@example(seed=10_000_428)  # instances that are idle at a ragged end lose their tile
@example(seed=10_000_722)
def test_bits_that_move_are_those_of_coded_tiles(seed: int) -> None:
    rng = random.Random(seed)
    shape, nest, trips, rules = random_case(rng)
    store = some_store(rng, shape)
    counts = count(shape, nest, np.array([trips], dtype=np.int64), rules)
    coded = rng.randint(1, nest.levels)
    found = coded_bits(
        store, [level < coded for level in range(nest.levels)], shape, nest, trips, rules, counts
    )
    for (outer, inner), (reads, fills) in walk_weights(shape, nest, trips, rules).items():
        if inner < coded:
            assert found[outer, Tensor.WEIGHT, "read"] == total(store, reads)
            assert found[inner, Tensor.WEIGHT, "fill"] == total(store, fills)
        moved = int(counts(outer, Tensor.WEIGHT, "read")[0])
        assert sum(len(tile) * times for tile, times in reads.items()) == moved


@settings(max_examples=150)
@given(seed=st.integers(0, 2**32))
@example(seed=10_000_428)
def test_live_weights_that_move_uncoded(seed: int) -> None:
    rng = random.Random(seed)
    shape, nest, trips, rules = random_case(rng)
    mask = some_store(rng, shape).mask
    live = {tuple(index) for index in np.argwhere(mask.array()).tolist()}
    counts = count(shape, nest, np.array([trips], dtype=np.int64), rules)
    coded = rng.randint(0, nest.levels)
    compressed = [level < coded for level in range(nest.levels)]
    found = live_weights(mask, compressed, shape, nest, trips, rules, counts)

    def alive(tiles: Counter[Tile]) -> int:
        return sum(times * len(tile & live) for tile, times in tiles.items())

    for (outer, inner), (reads, fills) in walk_weights(shape, nest, trips, rules).items():
        assert found.get((inner, Tensor.WEIGHT, "fill")) == (
            None if inner < coded else alive(fills)
        )
        if outer >= coded:
            assert found[outer, Tensor.WEIGHT, "read"] == alive(reads)
    last = nest.holders(Tensor.WEIGHT)[-1]
    if last >= coded:
        dense = int(counts(last, Tensor.WEIGHT, "read")[0])
        share = dense * mask.nonzeros / mask.total
        assert abs(found[last, Tensor.WEIGHT, "read"] - share) <= 0.5


@settings(max_examples=60)
@given(seed=st.integers(0, 2**32))
def test_plain_weights_move_as_many_bits_as_the_counts_say(seed: int) -> None:
    shape, nest, trips, rules = random_case(random.Random(seed))
    store = WeightStore.of(Mask.of("dense", shape), BITS, ["dense"])
    counts = count(shape, nest, np.array([trips], dtype=np.int64), rules)
    for key, bits in coded_bits(
        store, [True] * nest.levels, shape, nest, trips, rules, counts
    ).items():
        assert bits == pytest.approx(BITS * int(counts(*key)[0]), rel=1e-12)


def test_a_tile_that_stays_at_a_ragged_end_moves_less_often() -> None:
    """Five filters in pieces of two, walked twice: the last one alone stays while P turns."""
    shape = Shape((1, 1, 5, 1, 2, 1, 1, 1), size=(2, 1))
    loops = (Loop(Dim.K), Loop(Dim.P), Loop(Dim.K))
    nest = Nest(loops, cuts=((0, 0, 0), (3, 3, 3)), axes=(frozenset(), frozenset()))
    live = np.array([True, False, True, False, True]).reshape(1, 5, 1, 1, 1)
    store = WeightStore.of(Mask.from_array(live), 8, ["bitmap"])
    counts = count(shape, nest, np.array([(3, 2, 2)]))
    found = coded_bits(store, [True, True], shape, nest, (3, 2, 2), Rules(), counts)
    # filters 0 to 3 come twice, two of them live; filter 4 once
    assert found[0, Tensor.WEIGHT, "read"] == 2 * (4 + 2 * 8) + (1 + 8)
